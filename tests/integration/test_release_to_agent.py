"""From a released layout to an agent that can be loaded, by three commands: convert, train, eval."""

from __future__ import annotations

import json

import pytest

from wm_toolkit import catalog
from wm_toolkit.agents.agent import Agent
from wm_toolkit.cli.main import main
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.training.evaluate import evaluate
from wm_toolkit.training.jobs import agent_data

SAMPLES = catalog.root("datasets") / "samples"
LENGTH = ("train.updates=2", "train.batch_size=4", "train.log_every=1")
DINO_WM = (
    *("encoder_weights=random", "encoder_block=0", "image_size=28"),
    *("width=16", "layers=1", "heads=2", "head_width=8", "hidden=16"),
)
LEWM = ("width=24", "layers=1", "history=2")
RELEASED = "evaluation.split=released"


def said(capsys, *words):
    """What a command prints as JSON."""
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def timeless(row):
    return {k: v for k, v in row.items() if not k.endswith("_ms") and k != "baselines"}


@pytest.mark.parametrize(
    ("sample", "recipe", "settings"),
    [
        ("point_maze", "dino_wm.small", (*DINO_WM, RELEASED)),
        ("wall_single", "dino_wm.small", DINO_WM),
        ("stable_worldmodel/walks.h5", "lewm.small", LEWM),
        ("stable_worldmodel/walks.h5", "dino_wm.small", DINO_WM),
        ("lerobot_v2", "dino_wm.small", DINO_WM),
        ("lerobot_v3", "lewm.small", LEWM),
    ],
)
def test_a_release_is_converted_learnt_from_and_the_agent_loads(
    sample, recipe, settings, tmp_path, capsys
):
    found = said(capsys, "convert", SAMPLES / sample, tmp_path / "data.h5")
    assert (tmp_path / "data.card.md").read_text().startswith("# ")
    run = tmp_path / "run"
    words = ("train", recipe, "--data", found["path"], "--run", run, "--no-eval")
    # The samples are a few rows long: one action a decision, and short windows.
    short = ("frame_skip=1", "evaluation.frame_skip=1", "evaluation.holdout=0.3")
    assert main([*map(str, words), "--set", *LENGTH, *short, *settings]) == 0
    agent, data = Agent.from_pretrained(run), TrajectoryDataset.load(tmp_path / "data.h5")
    ready = agent_data(agent)
    assert (len(ready.train), len(ready.held_out)) == (len(data) - 1, 1)
    assert agent.spaces.observation["image"] == data.spaces.observation["image"]
    frames = ready.held_out.episode(0).obs["image"].copy()
    seen = {"image": frames[:1], "goal/image": frames[-1:]}
    decision, _ = agent.act(seen, agent.initial(1), is_first=[True])
    (action,) = agent.spaces.decode_action(decision.action)
    assert data.spaces.action.contains(action)


def test_push_t_from_its_films_is_measured_on_the_episodes_that_the_release_holds_out(
    tmp_path, capsys
):
    pytest.importorskip("gym_pusht")
    found = said(capsys, "convert", SAMPLES / "pusht_noise", tmp_path / "pushes.h5")
    measured = ("evaluation.episodes=2", "evaluation.budget=10", "planner.samples=8", RELEASED)
    inputs = 'observations=["image", "proprio"]'
    words = ("train", "dino_wm.small", "--data", found["path"], "--run", tmp_path / "run")
    # Neither the environment nor the column with its state is typed: the data name both.
    row = said(capsys, *words, "--no-oracle", "--set", *LENGTH, *DINO_WM, *measured, inputs)
    assert row["episodes"] == 2
    for result in (row, row["baselines"]["random"]):
        assert 0 <= result["success_rate_at_replan"] <= result["success_rate"] <= 1
    agent = Agent.from_pretrained(tmp_path / "run")
    protocol, held_out = agent.info["evaluation"], agent_data(agent).held_out
    assert protocol["env"] == "wm_toolkit/PushT-v0"
    assert (protocol["goals"], protocol["state_key"]) == ("dataset", "state")
    assert [dict(about) for about in held_out.info] == [{"split": "val"}]
    assert timeless(evaluate(agent, held_out).to_json()) == timeless(row)
    card = (tmp_path / "run/model/README.md").read_text()
    assert "Held out are the episodes that the data's release names" in card
    with pytest.raises(AssertionError):
        said(capsys, "eval", tmp_path / "run", "--set", "state_key=states")
    assert "Did you mean 'state'" in capsys.readouterr().err
