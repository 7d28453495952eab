"""`wm train --env` and `wm eval`: what the options mean, and the two commands end to end."""

from __future__ import annotations

import json

import pytest

from wm_toolkit.cli import collect
from wm_toolkit.cli import eval as wm_eval
from wm_toolkit.cli import train as wm_train
from wm_toolkit.errors import ConfigError
from wm_toolkit.training.logging import METRICS, read_metrics

RECIPE = "dreamer_v3.nano"
TINY = (
    "train.batch_size=4",
    "sequence=6",
    "train_ratio=12",
    "burst=1",
    "prefill=40",
    "capacity=300",
    "behaviour.horizon=3",
    "evaluation.episodes=2",
    "evaluation.budget=15",
)


def test_steps_become_updates_by_the_ratio_that_holds_after_all_changes():
    job = wm_train.resolve(wm_train.Args(RECIPE, env="CartPole-v1", steps=60, set=TINY))
    assert (job.env, job.data, job.init) == ("CartPole-v1", None, None)
    assert job.config.train.updates == 11  # 20 steps behind the prefill, 2 for each update


@pytest.mark.parametrize("burst", [1, 7])
def test_as_many_steps_are_taken_as_asked_for_with_recorded_episodes_to_begin_with(tmp_path, burst):
    data = tmp_path / "cartpole.h5"
    collect.run(collect.Args("CartPole-v1", str(data), episodes=4))
    run = tmp_path / "run"
    changed = (*TINY, f"burst={burst}", "envs=2")
    asked = wm_train.Args(
        RECIPE, env="CartPole-v1", data=str(data), steps=100, run=run, set=changed, no_eval=True
    )
    assert wm_train.run(asked) == 0
    rows = [row for row in read_metrics(run / METRICS) if "env/steps" in row]
    # Every episode's last row is no step.
    taken = rows[-1]["env/steps"] + rows[-1]["env/episodes"]
    assert 100 - 2 * burst < taken <= 102


def test_steps_of_a_recipe_without_a_ratio_are_refused():
    with pytest.raises(ConfigError, match="keeps no train ratio"):
        wm_train.resolve(wm_train.Args("lewm.small", env="CartPole-v1", steps=60))


def test_neither_environment_nor_data_is_refused():
    with pytest.raises(ConfigError, match=r"--data.*--env"):
        wm_train.resolve(wm_train.Args(RECIPE))


def test_train_then_eval_then_repeat(tmp_path, capsys):
    run = tmp_path / "run"
    first = wm_train.Args(RECIPE, env="CartPole-v1", steps=46, run=run, set=TINY, json=True)
    assert wm_train.run(first) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["updates"] == 4
    assert row["baselines"]["random"]["episodes"] == 2
    assert wm_eval.run(wm_eval.Args(str(run), json=True)) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["returns"] == row["returns"]
    assert again["baselines"]["random"]["returns"] == row["baselines"]["random"]["returns"]
    assert (run / "report.html").exists()
    assert "| random |" in (run / "model" / "README.md").read_text()
    job = wm_train.resolve(wm_train.Args(config=run))
    assert (job.recipe, job.env, job.config.train.updates) == (RECIPE, "CartPole-v1", 4)
    with pytest.raises(ConfigError, match="a run in CartPole-v1, not in 'Acrobot-v1'"):
        wm_train.resolve(wm_train.Args(config=run, env="Acrobot-v1"))
