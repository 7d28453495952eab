"""The examples that learn from rewards print what they promise, and what they leave behind is what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_examples import numbers, run

from wm_toolkit import Agent, TrajectoryDataset

__all__ = ["run"]  # the fixture

INTERVAL = r"\(95 % interval (-?[\d.]+) to (-?[\d.]+)\)"


def returned(name: str, said: str) -> float:
    """The mean return that a line gives, which must lie in its interval."""
    mean, low, high = numbers(rf"(?m)^{name}: return (-?[\d.]+) {INTERVAL}", said)
    assert low <= mean <= high
    return mean


def changed(one: Path, two: Path) -> set[str]:
    """Names of the weights in which two artefacts differ."""
    a, b = (load_file(path / "model.safetensors") for path in (one, two))
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name], b[name])}


def test_dreamer_acts_measures_and_is_loaded_in_one_line(run, tmp_path):
    said = run("09")
    assert "an update of 16 x 16 rows every 16 environment steps" in said
    assert numbers(r"trained: (\d+) updates", said)[0] == 60
    steps, episodes = numbers(
        r"it has seen (\d+) steps in (\d+) episodes of CartPole-v1", said.replace(",", "")
    )
    assert 1000 < steps + episodes <= 1000 + 60 * 16, "the prefill, then sixteen rows an update"
    assert 1 <= numbers(r"one episode: return (\d+)", said)[0] <= 500
    assert 1 <= returned(r"dreamer_v3\.nano", said) <= 500
    assert 9 <= returned("random", said) <= 60, (
        "what uniformly random actions are worth in CartPole"
    )
    agent = Agent.from_pretrained(tmp_path / "runs/dreamer_online")
    assert agent.info["training"]["updates"] == 60


def test_one_agents_record_trains_another_which_goes_on_online(run, tmp_path):
    said = run("10")
    data = TrajectoryDataset.load(tmp_path / "runs/offline_to_online/short")
    rows = numbers(r"data: (\d+) episodes, (\d+) rows", said)
    assert rows == (len(data), data.num_rows)
    for name in ("short", "random", "offline", "behaviour", "online"):
        assert -2000 < returned(name, said) < 0
    # Every update but the first waits for four rows; the data stand in for a prefill.
    assert numbers(r"the last one took (\d+) steps", said)[0] == 4 * 4
    runs = tmp_path / "runs/offline_to_online"
    behaviour = changed(runs / "offline/model", runs / "behaviour/model")
    assert behaviour
    assert all(name.startswith(("heads.policy.", "heads.value.")) for name in behaviour)
    assert any(
        name.startswith("rssm.") for name in changed(runs / "offline/model", runs / "online/model")
    )
    online = Agent.from_pretrained(runs / "online")
    assert online.info["data"]["name"] == "short"
    assert online.info["experience"]["env"] == "Pendulum-v1"


def test_a_controller_lives_in_dreams_and_in_the_game(run, tmp_path):
    pytest.importorskip("cma")
    said = run("11")
    updates, parameters = numbers(r"trained: (\d+) updates; C has (\d+) parameters", said)
    assert (updates, parameters) == (53, 16 + 2 * 128), "one output of [z, c, h], without a bias"
    lives, horizon = numbers(r"in dreams C lives (\d+) of (\d+) steps", said)
    assert 1 <= lives <= horizon == 40
    real, random = (numbers(rf"(?m)^{who} lives (\d+) steps", said)[0] for who in ("C", "random"))
    assert 25 <= random <= 60, "the first ball falls for 28 steps"
    (factor,) = numbers(r"in the real game that is ([\d.]+) times as long", said)
    assert factor == pytest.approx(real / random, abs=0.1)
    assert (tmp_path / "runs/world_models/dream.gif").stat().st_size > 1000
