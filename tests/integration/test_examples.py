"""Every example runs as a newcomer would run it, and prints what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(tmp_path):
    """Run `examples/NAME* --smoke` in an empty folder; returns what it printed."""

    def example(name: str, **environment: str) -> str:
        (file,) = EXAMPLES.glob(f"{name}*.py")
        done = subprocess.run(
            [sys.executable, str(file), "--smoke"],
            cwd=tmp_path,
            env={**os.environ, "WM_TOOLKIT_HOME": str(tmp_path / "home"), **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return example


def numbers(pattern: str, text: str) -> tuple[float, ...]:
    """The groups of the only match, as numbers."""
    (found,) = re.findall(pattern, text)
    return tuple(map(float, found if isinstance(found, tuple) else (found,)))


def test_examples_are_numbered_without_a_gap_and_short_enough_to_read_at_once():
    files = sorted(EXAMPLES.glob("*.py"))
    assert [file.name[:2] for file in files] == [f"{n:02}" for n in range(1, len(files) + 1)]
    for file in files:
        assert len(file.read_text().splitlines()) < 80, file.name


def test_the_quick_start_ends_with_success_and_its_interval_beside_random(run, tmp_path):
    said = run("01")
    assert "data: 60 walks, 3,660 frames" in said
    assert "trained: 10 updates" in said
    line = r"{}: (\d+)% of 10 goals reached \(95 % interval (\d+)% to (\d+)%\)"
    for name in (r"lewm\.small", "random"):
        rate, low, high = numbers(line.format(name), said)
        assert low <= rate <= high
        assert 0 <= low < high <= 100
    assert (tmp_path / "runs/quick_start/model/model.safetensors").exists()


def test_sigreg_keeps_the_embeddings_apart(run):
    said = run("02")
    assert numbers(r"equal: SIGReg = ([\d.]+) N", said)[0] == pytest.approx(0.402, abs=5e-4)
    assert numbers(r"Gaussian: SIGReg = ([\d.]+)", said)[0] == pytest.approx(1.0525, rel=0.03)
    row = r"weight {}\s+([\d.e+-]+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+(-?[\d.]+)"
    free, regular = (numbers(row.format(weight), said) for weight in (r"0\.0", r"0\.09"))
    assert free[1] < 0.5 * regular[1], "without SIGReg the embeddings should shrink together"
    assert free[3] > regular[3], "SIGReg is what the weight brings down"


def test_every_planner_gets_a_row_and_a_curve(run, tmp_path):
    said = run("03")
    for planner in ("CEM", "iCEM", "MPPI", "gradient", "shooting"):
        rate, milliseconds = numbers(rf"(?m)^{planner} +(\d+)% +[\d.-]+ +([\d.]+)$", said)
        assert 0 <= rate <= 100
        assert milliseconds > 0
    assert numbers(r"(?m)^CEM +(\d+)%", said)[0] >= 75
    chart = (tmp_path / "planners.svg").read_text()
    assert chart.count("<path") == 5


def test_ppo_learns_in_the_dream_and_is_measured_outside_it(run):
    said = run("04")
    (width,) = numbers(r"dream: observation \((\d+),\), action \(10,\)", said)
    assert width % 2 == 0, "features of the state, and of the goal behind them"
    before, after = (
        numbers(rf"{when}: (\d+)% of (\d+) goals reached in the real environment", said)
        for when in ("before", "after 512 dreamt steps")
    )
    assert 0 <= before[0] <= 100
    assert 0 <= after[0] <= 100


def test_without_sb3_the_example_says_what_to_install(run, tmp_path):
    (tmp_path / "stable_baselines3.py").write_text("raise ModuleNotFoundError('not here')")
    assert "pip install 'wm_toolkit[sb3]'" in run("04", PYTHONPATH=str(tmp_path))


def test_a_model_of_ones_own_keeps_its_contract_and_reaches_goals(run):
    said = run("05")
    assert "11 checks passed" in said
    assert numbers(r"reaches (\d+)% of 50 held-out goals", said)[0] >= 80


def test_a_release_becomes_a_measured_agent(run, tmp_path):
    pytest.importorskip("gym_pusht")
    said = run("06")
    assert "weights are random: what is measured below means nothing" in said
    assert "64 frames; learnt from 2 episodes, held out 1, split: released" in said
    for name in (r"dino_wm\.small", "random"):
        rate, low, high, at_replan = numbers(
            rf"(?m)^\| {name} \| ([\d.]+) % \| (\d+) - (\d+) % \| ([\d.]+) % \|", said
        )
        assert low <= rate <= high
        assert at_replan <= rate
    assert "Protocol: wm_toolkit/PushT-v0" in said
    assert "that the data's release names" in said
    assert (tmp_path / "runs/dino_wm_pusht_noise_28px/model/model.safetensors").exists()


def test_stored_features_train_the_same_model_for_less(run, tmp_path):
    said = run("07")
    assert "weights random" in said
    assert "stored: (16, 384) float16 a frame" in said
    frames, stored = (
        numbers(rf"on {mode}: loss ([\d.]+) \.\.\. ([\d.]+), ([\d.]+) CPU s", said)
        for mode in ("frames", "stored")
    )
    assert frames[:2] == stored[:2]
    assert frames[1] < frames[0]
    assert numbers(r"difference of weights: ([\d.e+-]+)", said)[0] < 1e-5
    assert (tmp_path / "runs/stored_features/features.h5").exists()


def test_several_processes_change_nothing_but_the_time(run, tmp_path):
    said = run("08")
    for what in ("episodes", "candidates"):
        assert f"sharing out {what} changes nothing" in said
        for processes in (1, 2):
            row = rf"(?m)^{what} +{processes} +(\d+)/8 +([\d.]+) +([\d.]+)$"
            reached, steps, seconds = numbers(row, said)
            assert reached >= 6
            assert 0 < steps <= 50
            assert seconds > 0
    assert (tmp_path / "runs/several_processes/2.json").exists()
