"""Actors in processes of their own: the same run wherever they are, no orphans, and errors that tell."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from actor_envs import FAILING

from wm_toolkit.errors import ActorError
from wm_toolkit.recipes.dreamer_v3 import Size
from wm_toolkit.registry import recipe_config
from wm_toolkit.training.checkpoints import load_checkpoint
from wm_toolkit.training.hooks import Hook
from wm_toolkit.training.online import train_online

RECIPE, ENV = "dreamer_v3.nano", "CartPole-v1"
TINY: dict[str, Any] = {
    "size": Size(deter=16, units=8, classes=3, depth=1, latents=2, groups=2),
    "behaviour.horizon": 3,
    "sequence": 6,
    "train_ratio": 12.0,
    "prefill": 40,
    "capacity": 300,
    "envs": 3,
    "burst": 1,
    "train.batch_size": 4,
    "train.updates": 8,
    "train.checkpoint_every": 4,
    "evaluation.episodes": 1,
    "evaluation.budget": 5,
}
ALONE = {"actors": "process", "collect_ahead": False}
AHEAD = {"actors": "process", "actor_processes": 2, "sync_every": 2}


def trained(folder: Path, *hooks: Hook, env: str = ENV, **changes: Any) -> Path:
    """The newest checkpoint of a run."""
    train_online(RECIPE, recipe_config(RECIPE, **{**TINY, **changes}), env, folder, hooks=hooks)
    return sorted((folder / "checkpoints").iterdir())[-1]


class Disturb(Hook):
    """Sends every actor what Ctrl-C in a terminal would; may stop the learner too."""

    def __init__(self, update: int, *, stop: bool) -> None:
        self.update, self.stop = update, stop

    def after_update(self, trainer, metrics):
        if trainer.update == self.update:
            actors = multiprocessing.active_children()
            assert len(actors) == 2
            for actor in actors:
                assert actor.pid is not None
                os.kill(actor.pid, signal.SIGINT)
            if self.stop:
                raise KeyboardInterrupt
        return {}


def equal(one: Any, two: Any) -> bool:
    """Whether two saved states are the same to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


def assert_same(one: Path, two: Path) -> None:
    """Weights, learner, random streams and every row of the replay."""
    assert one.name == two.name == "update_00000008"
    first, second = load_checkpoint(one), load_checkpoint(two)
    assert equal(first.model, second.model)
    for part in ("learner", "processes"):
        assert equal(first.state[part], second.state[part])
    files = {path.relative_to(one) for path in one.rglob("*.npy")}
    assert files == {path.relative_to(two) for path in two.rglob("*.npy")}
    assert all(np.array_equal(np.load(one / file), np.load(two / file)) for file in files)


@pytest.fixture(scope="module")
def inline(tmp_path_factory) -> Path:
    """What the learner does when it acts itself."""
    return trained(tmp_path_factory.mktemp("inline") / "run")


def test_one_actor_that_waits_and_is_waited_for_gives_what_the_learner_alone_gives(
    inline, tmp_path
):
    assert_same(inline, trained(tmp_path / "run", **ALONE))
    assert not multiprocessing.active_children()


def test_actors_that_collect_ahead_give_the_same_twice_also_after_ctrl_c(inline, tmp_path):
    whole = trained(tmp_path / "whole", Disturb(3, stop=False), **AHEAD)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "again", Disturb(6, stop=True), **AHEAD)
    assert not multiprocessing.active_children()
    again = trained(tmp_path / "again", **AHEAD)
    assert_same(whole, again)
    acting = Path("source/acting")
    for name in ("acting.json", "actor_0/acting.safetensors", "actor_1/acting.json"):
        assert (whole / acting / name).read_bytes() == (again / acting / name).read_bytes()
    assert not equal(load_checkpoint(inline).model, load_checkpoint(whole).model)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (
            "raise",
            r"(?s)actor 0 \(environment 0 of '.*Failing-v0'\).*Traceback.*the wheel came off",
        ),
        ("die", r"actor 0 \(environment 0 of '.*Failing-v0'\) died with exit code 3"),
    ],
)
def test_an_actor_that_fails_or_dies_ends_the_run_and_says_which_and_why(tmp_path, end, words):
    changes = {"actors": "process", "env_options": {"end": end}, "envs": 1}
    with pytest.raises(ActorError, match=words):
        trained(tmp_path / "run", env=FAILING, **changes)
    assert not multiprocessing.active_children()


def test_ray_actors_give_what_the_learner_alone_gives_and_say_why_they_fail(
    inline, tmp_path, monkeypatch
):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray puts a token into the home folder
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))  # `actor_envs` lies there
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        changes = {**ALONE, "actors": "ray"}
        assert_same(inline, trained(tmp_path / "run", **changes))
        with pytest.raises(ActorError, match=r"(?s)actor 0 \(environments 0 to 2 .*wheel came off"):
            trained(tmp_path / "failing", env=FAILING, **changes)
        assert ray.is_initialized()  # whoever began it ends it
    finally:
        ray.shutdown()
