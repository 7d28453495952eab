"""`pretrained/convert/*.py` turn released files into artefacts, or say what is wrong."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from wm_toolkit import Agent

ROOT = Path(__file__).parents[2]
SCRIPTS, DATA = ROOT / "pretrained" / "convert", ROOT / "tests" / "golden" / "data"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a script as from the command line: (exit status, stdout, stderr)."""

    def call(name: str, *args: str | Path) -> tuple[int, str, str]:
        monkeypatch.syspath_prepend(str(SCRIPTS))
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        return stopped.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def released(tmp_path):
    """weights.pt and config.json of a small LeWorldModel."""
    stored = load_file(DATA / "lewm_published.safetensors")
    weights = {n.removeprefix("weights/"): v for n, v in stored.items() if n.startswith("weights/")}
    torch.save(weights, tmp_path / "weights.pt")
    config = json.loads((DATA / "lewm_published.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_released_leworldmodel_becomes_an_artefact(run, released):
    files = released / "weights.pt", released / "config.json"
    statistics = ("--mean", "-0.5", "0.25", "--std", "0.2", "2")
    code, out, _ = run("lewm", *files, released / "ours", *statistics, "--bound", "3")
    assert (code, out.strip()) == (0, str(released / "ours"))
    agent = Agent.from_pretrained(released / "ours")
    assert (agent.spaces.mean, agent.spaces.std) == ((-0.5, 0.25), (0.2, 2.0))
    assert agent.spaces.action.high.max() == 3
    card = (released / "ours" / "README.md").read_text()
    assert "weights.pt" in card
    assert "Maes et al. 2026" in card


def test_what_is_missing_is_said_in_one_line(run, released):
    code, out, error = run("lewm", released / "none.pt", released / "config.json", "ours")
    assert (code, out) == (1, "")
    assert "ConfigError: published checkpoints do not hold mean and deviation" in error
    files = released / "none.pt", released / "config.json", released / "ours"
    code, _, error = run("lewm", *files, "--mean", "0", "0", "--std", "1", "1")
    assert code == 1
    assert "CheckpointError" in error
    assert "none.pt cannot be read" in error


def test_a_place_that_cannot_be_written_is_said_in_one_line(run, released):
    (released / "ours").write_text("a file")
    files = released / "weights.pt", released / "config.json", released / "ours"
    code, _, error = run("lewm", *files, "--mean", "0", "0", "--std", "1", "1")
    assert code == 1
    assert error.startswith(("FileExistsError", "NotADirectoryError", "CheckpointError"))


@pytest.mark.parametrize("script", ["dino_wm", "jepa_wms"])
def test_a_file_of_something_else_is_refused(run, released, script):
    (released / "settings.yaml").write_text("img_size: 224\n")
    files = released / "weights.pt", released / "settings.yaml", released / "ours"
    code, _, error = run(script, *files, "--encoder-weights", "random")
    assert code == 1
    assert error.startswith(("CheckpointError", "ConfigError"))
    assert not (released / "ours").exists()


def test_statistics_of_unequal_length_are_refused(run, released):
    files = released / "weights.pt", released / "config.json", released / "ours"
    code, _, error = run("lewm", *files, "--mean", "0", "0", "--std", "1")
    assert code == 1
    assert "expected as many positive deviations as means" in error
