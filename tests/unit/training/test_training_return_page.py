"""The page of a run that learns from rewards says its numbers, and can be made while it runs."""

from __future__ import annotations

import json

import pytest
from dreamer_toys import Drift, drifting

from wm_toolkit.checkpoint import save_json
from wm_toolkit.errors import CheckpointError
from wm_toolkit.render.dreams import look, save_look
from wm_toolkit.render.return_report import ReturnReport, learning_chart, return_report
from wm_toolkit.training.return_page import (
    learning_curves,
    learns_from_rewards,
    render_returns,
)

LINES = [
    {"update": 1, "loss": 3.0, "loss/reward": 1.0, "env/steps": 100, "env/return": 20.5},
    {"update": 2, "eval/return_mean": 30.0, "eval/env_steps": 150.0},
    {"update": 3, "loss": 1.0, "loss/reward": None, "env/steps": 200, "env/return": 60.0},
    {"update": 3, "dream/latent_error/5": 0.3, "dream/latent_error_copy/5": 1.0},
    {"update": 4, "dream/latent_error/5": 0.2, "dream/latent_error/1": 0.1},
]
ROWS = {
    "model": {"return_mean": -412.34, "interval": [-500.0, -300.5], "episodes": 20, "seed": 42},
    "random": {"return_mean": -1200.0, "interval": None, "episodes": 20, "seed": 42},
}


def run_folder(path, evaluation=None):
    """A run that has just begun, as `Trainer` leaves it."""
    about = {"recipe": "dreamer_v3.nano", "experience": {"env": "Pendulum-v1"}}
    save_json(path / "config.json", about | {"evaluation": evaluation or {"episodes": 20}})
    text = "".join(json.dumps(line) + "\n" for line in LINES)
    (path / "metrics.jsonl").write_text(text + '{"update": 5, "lo')
    return path


def test_learning_is_shown_over_environment_steps_beside_the_baselines():
    curves = learning_curves(LINES)
    assert curves == {"exploring": [(100, 20.5), (200, 60.0)], "evaluated": [(150, 30.0)]}
    chart = learning_chart(curves, ROWS)
    assert "exploring from 20.5 to 60" in chart
    assert "random from -1.2e+03 to -1.2e+03" in chart
    assert "model from" not in chart
    assert learning_chart({}, ROWS) == ""


def test_the_page_of_a_run_that_goes_on_shows_what_there_is(tmp_path):
    html = render_returns(run_folder(tmp_path)).read_text()
    assert "dreamer_v3.nano learnt from 200 steps in Pendulum-v1 in 4 updates." in html
    assert "Return while learning" in html
    assert "dream/latent_error/5" in html
    for absent in ("Dream beside reality", "mean return", "_copy", "latent_error/1"):
        assert absent not in html


def test_the_page_shows_results_and_dreams_where_they_lie_in_the_folder(tmp_path):
    folder = run_folder(tmp_path)
    save_json(folder / "results.json", {"weights": "x", "rows": ROWS})
    save_look(look(Drift(), drifting(), context=2), folder)
    html = render_returns(folder).read_text()
    for said in ("-412.3", "-500.0 to -300.5", "mean return: random", "Dream beside reality"):
        assert said in html
    assert html.count("data:image/png") == html.count("data:image/gif") == 1


def test_an_empty_report_is_still_a_page():
    html = return_report(ReturnReport("title", "lead"))
    assert "<section" not in html
    assert "<h1>title</h1>" in html


def test_runs_are_told_apart_by_their_protocol(tmp_path):
    assert learns_from_rewards(run_folder(tmp_path))
    assert not learns_from_rewards(run_folder(tmp_path, {"goals": "dataset"}))
    with pytest.raises(CheckpointError, match="does not exist"):
        learns_from_rewards(tmp_path / "nothing")
