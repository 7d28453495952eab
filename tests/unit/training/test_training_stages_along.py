"""Beside the updates of a staged run: looks at its dreams, evaluations, and what is refused in time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("cma")

from test_training_stages import DODGE, config, rollouts, weights
from training_toys import ToySource, toy_agent

from wm_toolkit.agents.agent import Agent
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.errors import ConfigError
from wm_toolkit.render.dreams import load_look
from wm_toolkit.training.config import TrainConfig
from wm_toolkit.training.dream_hooks import DreamReport
from wm_toolkit.training.hooks import Hook
from wm_toolkit.training.logging import METRICS, read_metrics
from wm_toolkit.training.stages import StageDreams, train_in_stages
from wm_toolkit.training.trainer import Trainer

__all__ = ["rollouts"]  # the fixture
RECIPE = "world_models.small"
SHORT = {"max_episode_steps": 20}


def lines(run) -> list[dict]:
    return list(read_metrics(run / METRICS))


def told(run, name: str) -> dict[int, float]:
    """A number by the update at which it was logged."""
    return {line["update"]: line[name] for line in lines(run) if name in line}


# -- dreams ------------------------------------------------------------------------------------------
def test_every_run_compares_its_dreams_with_held_out_episodes(tmp_path, rollouts):
    train_in_stages(RECIPE, config(), None, tmp_path, data=rollouts)
    assert list(told(tmp_path, "dream/latent_error/1")) == [4, 6, 9]
    found = load_look(tmp_path)
    assert list(found.strips) == list(found.films) == ["image"]
    assert [name for name, _ in found.dreams.endings] == ["dreamt", "filtered"]
    assert found.dreams.latent.model[0] == told(tmp_path, "dream/latent_error/1")[9]
    frozen = told(tmp_path, "dream/latent_error/5")
    assert frozen[4] != frozen[6] == frozen[9], "the controller changes no dream"


class Numbers(Hook):
    """Keeps what every update reports."""

    def __init__(self):
        self.seen = []

    def after_update(self, trainer, metrics):
        self.seen.append({name: float(value) for name, value in metrics.items()})
        return {}


def test_looking_changes_no_number_of_the_training(tmp_path, rollouts):
    looked, plain = Numbers(), Numbers()
    kept = {"looked": [looked], "plain": [plain, DreamReport(lambda: None)]}
    for name, hooks in kept.items():
        train_in_stages(RECIPE, config(), None, tmp_path / name, data=rollouts, hooks=hooks)
    assert load_look(tmp_path / "plain") is None
    assert looked.seen == plain.seen
    one, two = weights(tmp_path / "looked"), weights(tmp_path / "plain")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_vision_alone_dreams_nothing(tmp_path, rollouts):
    train_in_stages(RECIPE, config(train__updates=3), None, tmp_path, data=rollouts)
    assert load_look(tmp_path) is None
    assert not told(tmp_path, "dream/latent_error/1")


def test_a_report_given_by_hand_looks_at_held_out_windows_too(tmp_path, rollouts):
    hook = DreamReport(every=2)
    train_in_stages(RECIPE, config(), None, tmp_path, data=rollouts, hooks=[hook])
    assert list(told(tmp_path, "dream/latent_error/1")) == [2, 4, 6, 8, 9]
    train, held_out = rollouts.split(0.9, seed=0)
    seen = {frame.numpy().tobytes() for frame in hook.sequences().obs["image"].flatten(0, 1)}
    assert seen <= {frame.tobytes() for frame in next(iter(held_out)).obs["image"]}
    assert len(train) == 3


def test_looks_come_when_memory_begins_when_stages_end_and_now_and_then():
    stages = config(vision_updates=1500, memory_updates=1200).stages
    hook = StageDreams(lambda: None, stages)
    trainer = SimpleNamespace(config=SimpleNamespace(updates=3100))
    due = [u for u in range(1, 3101) if hook.due(SimpleNamespace(update=u, config=trainer.config))]
    assert due == [1501, 2000, 2700, 3000, 3100]
    frozen = StageDreams(lambda: None, config(frozen_model=True).stages)
    trainer.config.updates = 5
    due = [u for u in range(1, 6) if frozen.due(SimpleNamespace(update=u, config=trainer.config))]
    assert due == [1, 5]


# -- evaluations -------------------------------------------------------------------------------------
def evaluating(**changes):
    return config(
        evaluation__episodes=3, evaluation__env_options=SHORT, train__eval_every=1, **changes
    )


class Controllers(Hook):
    """Keeps the controller that every evaluation measures."""

    def __init__(self):
        self.seen = []

    def at_evaluation(self, trainer, results):
        head = trainer.agent.model.heads["policy"]
        self.seen.append({name: p.clone() for name, p in head.state_dict().items()})


def test_a_run_is_evaluated_by_return_while_controllers_evolve_and_keeps_the_best(
    tmp_path, rollouts
):
    hook = Controllers()
    wanted = evaluating(train__keep="best", train__updates=14, sigma=3.0)
    agent, result = train_in_stages(RECIPE, wanted, None, tmp_path, data=rollouts, hooks=[hook])
    returns = told(tmp_path, "eval/return_mean")
    assert list(returns) == list(range(7, 15)), "during V and M it would say nothing"
    assert result.best == max(returns.values())
    assert all(0 < value <= 20 for value in returns.values())
    best = hook.seen[list(returns.values()).index(result.best)]
    loaded = Agent.from_pretrained(tmp_path).model.heads["policy"].state_dict()
    assert all(torch.equal(loaded[name], best[name]) for name in best)
    assert all(torch.equal(agent.model.state_dict()[f"heads.policy.{k}"], best[k]) for k in best)


def test_evaluating_changes_no_number_of_the_training(tmp_path, rollouts):
    often, never = Numbers(), Numbers()
    for name, hook, wanted in (("often", often, evaluating()), ("never", never, config())):
        train_in_stages(RECIPE, wanted, None, tmp_path / name, data=rollouts, hooks=[hook])
    assert often.seen == never.seen


def test_patience_counts_evaluations_of_controllers_alone(tmp_path, rollouts):
    wanted = evaluating(train__patience=2, train__updates=40, evaluation__budget=1)
    _, result = train_in_stages(RECIPE, wanted, None, tmp_path, data=rollouts)
    assert (result.update, result.ended, result.best) == (9, "early", 1.0)


def test_nothing_is_recorded_for_a_run_that_could_not_be_evaluated(tmp_path):
    for wish in ({"keep": "best"}, {"eval_every": 1, "patience": 1}):
        few = config(train__updates=6, **{f"train__{name}": value for name, value in wish.items()})
        with pytest.raises(ConfigError, match=r"begins behind update 6, but train\.updates is 6"):
            train_in_stages(RECIPE, few, DODGE, tmp_path)
    assert not list(tmp_path.rglob("*.h5"))


def nowhere(rollouts) -> TrajectoryDataset:
    """The same episodes, and nobody knows of which environment."""
    return TrajectoryDataset.from_trajectories(iter(rollouts), rollouts.spaces, name="found")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"train__keep": "best"}, "measures returns in the environment; name one with --env"),
        ({"train__eval_every": 3}, "measures returns in the environment; name one with --env"),
        ({"fitness": "real"}, r"fitness='real'\); name one with --env"),
    ],
)
def test_what_needs_an_environment_says_so_before_the_first_update(
    tmp_path, rollouts, changes, complaint
):
    alone = config(evaluation__env="", **changes)
    with pytest.raises(ConfigError, match=complaint):
        train_in_stages(RECIPE, alone, None, tmp_path, data=nowhere(rollouts))


def test_an_evaluation_without_numbers_is_no_verdict_but_at_the_end(tmp_path):
    measured = iter([{}, {"return_mean": 3.0}, {}, {"return_mean": 2.0}])
    train = TrainConfig(updates=4, batch_size=4, eval_every=1, keep="best")
    how = {"run_dir": tmp_path / "some", "config": train}
    result = Trainer(toy_agent(), ToySource(), evaluate=lambda _: next(measured), **how).train()
    assert result.best == 3.0
    assert told(tmp_path / "some", "eval/return_mean") == {2: 3.0, 4: 2.0}
    how["run_dir"] = tmp_path / "none"
    with pytest.raises(ConfigError, match="gave no"):
        Trainer(toy_agent(), ToySource(), evaluate=lambda _: {}, **how).train()
