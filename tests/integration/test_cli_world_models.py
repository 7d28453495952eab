"""World Models on the command line: from rollouts to a report, then its controller alone, then all of it again."""

from __future__ import annotations

import pytest
from safetensors.numpy import load_file

pytest.importorskip("cma")

from wm_toolkit.cli.main import main

DODGE = "wm_toolkit/Dodge-v0"
TINY = (
    *("latent=3", "width=4", "depth=2", "rollouts=6", "rollout_steps=30", "envs=2", "sequence=8"),
    *("vision_updates=3", "memory_updates=3", "vision_batch=4", "train.batch_size=2"),
    *("population=4", "starts=2", "horizon=6", "evaluation.episodes=2"),
)


def train(run, *words, fields=(), updates):
    how = ["--run", str(run), "--updates", str(updates), "--set", *TINY, *fields]
    return main(["train", "world_models.small", *words, *how])


def world(run):
    tensors = load_file(run / "model" / "model.safetensors")
    return {name: x.tobytes() for name, x in tensors.items() if "policy" not in name}


def test_a_run_shows_its_dreams_and_its_controller_learns_on_alone(tmp_path, capsys):
    first, alone, whole = (tmp_path / name for name in ("first", "alone", "whole"))
    assert train(first, "--env", DODGE, updates=8) == 0
    assert "updates: 3 of vision, 3 of memory, 2 of controller" in capsys.readouterr().err
    assert {"strip_0.png", "film_0.gif", "dreams.json"} == {
        path.name for path in (first / "dreams").iterdir()
    }
    page = (first / "report.html").read_text()
    assert "Dream beside reality" in page
    assert "Calibration" in page

    data = ("--data", str(first / "rollouts.h5"), "--init", str(first))
    assert train(alone, *data, fields=["frozen_model=true"], updates=2) == 0
    assert "updates: 2 of controller" in capsys.readouterr().err
    assert world(alone) == world(first)
    assert "Dream beside reality" in (alone / "report.html").read_text()

    assert train(whole, "--env", DODGE, "--init", str(alone), updates=7) == 0
    assert world(whole) != world(alone)


def test_what_cannot_work_is_said_before_anything_is_recorded(tmp_path, capsys):
    assert train(tmp_path, "--env", DODGE, fields=["frozen_model=true"], updates=2) == 2
    assert "with --init" in capsys.readouterr().err
    assert train(tmp_path, "--env", DODGE, fields=["train.keep=best"], updates=6) == 2
    assert "begins behind update 6" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.h5"))
