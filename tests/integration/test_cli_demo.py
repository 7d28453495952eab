"""`wm demo` from end to end, twice, and killed in the middle; the other commands on what it leaves."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from wm_toolkit.agents.card import percent
from wm_toolkit.cli.main import main
from wm_toolkit.render.video import save_png

ROW = {
    "success_rate",
    "interval",
    "return_mean",
    "steps_to_goal",
    "start_solved_rate",
    "decision_ms",
    "episodes",
    "seed",
    "success_rate_at_replan",
    "interval_at_replan",
    "decision_cpu_ms",
    "success_by_step",
}
CLOCKS = {"decision_ms", "decision_cpu_ms"}

KILLED_IN_TRAINING = """
import os, signal, sys
from wm_toolkit.cli.main import main
from wm_toolkit.training.progress import ProgressBar

def die(self, trainer, metrics):
    if trainer.update == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return {}

ProgressBar.after_update = die
main(["demo", "--smoke", "--run", sys.argv[1]])
"""

KILLED_IN_EVALUATION = """
import os, signal, sys
from wm_toolkit.cli.main import main
from wm_toolkit.training import measure

real, calls = measure.evaluate_agent, []

def die(*args, **options):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **options)

measure.evaluate_agent = die
main(["demo", "--smoke", "--run", sys.argv[1]])
"""


def said(capsys, *words):
    """The JSON object a command prints, which must be all there is on stdout."""
    assert main(list(words)) == 0
    return json.loads(capsys.readouterr().out)


def logged(run: Path) -> list[int]:
    """The updates in a run's metrics, in the order of the file."""
    return [json.loads(line)["update"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def kill(program: str, run: Path) -> None:
    done = subprocess.run([sys.executable, "-c", program, str(run)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A finished smoke run that no test changes, and what it printed."""
    run = tmp_path_factory.mktemp("demo") / "run"
    program = "import sys; from wm_toolkit.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["demo", "--smoke", "--json", "--run", str(run)]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return run, json.loads(done.stdout)


def test_the_demo_prints_a_row_for_model_random_and_oracle(demo):
    _, printed = demo
    assert printed.keys() == {"model", "random", "oracle", "seconds"}
    for name in ("model", "random", "oracle"):
        assert printed[name].keys() == ROW
        assert printed[name]["episodes"] == 4
        low, high = printed[name]["interval"]
        assert low <= printed[name]["success_rate"] <= high
    assert printed["oracle"]["success_rate"] >= printed["random"]["success_rate"]


def test_the_run_folder_holds_model_metrics_film_and_page(demo):
    run, printed = demo
    assert load_file(run / "model" / "model.safetensors")
    updates = logged(run)
    assert updates == sorted(updates)
    assert updates[-1] == 6
    with Image.open(run / "goals.gif") as film:
        assert film.n_frames > 1
    page = (run / "report.html").read_text()
    parser = HTMLParser()
    parser.feed(page)
    assert "prediction loss" in page
    assert "Open-loop prediction error" in page
    card = (run / "model" / "README.md").read_text()
    for name in ("model", "random", "oracle"):
        shown = "lewm.small" if name == "model" else name
        assert f"| {shown} | {percent(printed[name]['success_rate'])} |" in card


def test_a_second_start_reuses_everything(demo, capsys):
    run, printed = demo
    before = {path: path.stat().st_mtime_ns for path in (run / "model").iterdir()}
    again = said(capsys, "demo", "--smoke", "--json", "--run", str(run))
    # decision_ms is wall-clock time, so equal digits mean that nothing was measured again.
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in printed.items() if k != "seconds"
    }
    assert before == {path: path.stat().st_mtime_ns for path in (run / "model").iterdir()}


def test_a_demo_killed_in_training_goes_on_to_the_same_model(demo, tmp_path, capsys):
    run, printed = demo
    kill(KILLED_IN_TRAINING, tmp_path / "run")
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["update_00000002"]
    resumed = said(capsys, "demo", "--smoke", "--json", "--run", str(tmp_path / "run"))
    ours, theirs = (
        load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "run", run)
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    for name in ("model", "random", "oracle"):
        assert resumed[name]["success_rate"] == printed[name]["success_rate"]
    assert logged(tmp_path / "run") == [1, 2, 3, 4, 5, 6]


def test_a_demo_killed_in_evaluation_keeps_what_was_measured(tmp_path, capsys):
    run = tmp_path / "run"
    kill(KILLED_IN_EVALUATION, run)
    kept = json.loads((run / "results.json").read_text())["rows"]
    assert list(kept) == ["model"]
    resumed = said(capsys, "demo", "--smoke", "--json", "--run", str(run))
    assert resumed["model"] == kept["model"]
    assert resumed["oracle"].keys() == ROW


def test_another_seed_in_the_same_folder_is_refused(demo, capsys):
    run, _ = demo
    assert main(["demo", "--smoke", "--seed", "1", "--run", str(run)]) == 2
    assert "seed was 0 and is 1" in capsys.readouterr().err


def test_fresh_removes_a_run_and_nothing_else(tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("mine")
    assert main(["demo", "--smoke", "--fresh", "--run", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert (tmp_path / "precious.txt").exists()


def test_eval_without_options_repeats_the_number_in_the_card(demo, capsys):
    run, printed = demo
    row = said(capsys, "eval", str(run), "--json")
    baselines = row.pop("baselines")
    assert row.keys() == ROW
    for key in ROW - CLOCKS:
        assert row[key] == printed["model"][key], key
        for name in ("random", "oracle"):
            assert baselines[name][key] == printed[name][key], (name, key)


def test_eval_by_a_published_protocol_says_so_and_writes_the_card_when_asked(
    demo, tmp_path, capsys
):
    mine = tmp_path / "mine"
    shutil.copytree(demo[0] / "model", mine)
    few = ("--episodes", "2", "--budget", "10")
    row = said(capsys, "eval", str(mine), "--protocol", "lewm.tworoom", *few, "--card", "--json")
    saved = json.loads((mine / "config.json").read_text())
    assert saved["results"] == {k: v for k, v in row.items() if k != "baselines"}
    assert saved["baselines"] == row["baselines"]
    assert saved["evaluation"]["episodes"] == 2
    assert saved["evaluation"]["published"] == ""  # with other numbers it is not the published one
    assert saved["config"]["planner"]["samples"] == 300
    assert saved["config"]["replan_every"] == 5
    assert (
        f"| oracle | {percent(row['baselines']['oracle']['success_rate'])}"
        in (mine / "README.md").read_text()
    )
    again = said(capsys, "eval", str(mine), "--json")
    assert {k: v for k, v in again.items() if k in ROW - CLOCKS} == {
        k: v for k, v in row.items() if k in ROW - CLOCKS
    }
    assert main(["eval", "lewm-tworooms", "--card"]) == 2
    assert "a folder of your own" in capsys.readouterr().err
    assert main(["eval", str(mine), "--protocol", "lewm.pusht"]) == 2
    assert "measures in an environment 'pusht'" in capsys.readouterr().err


def test_plan_in_two_processes_makes_the_same_plan(demo, capfd):
    plans = []
    for processes in ("1", "2"):
        assert main(["plan", str(demo[0]), "--json", "--processes", processes]) == 0
        (line,) = capfd.readouterr().out.splitlines()
        plans.append(json.loads(line)["actions"])
    np.testing.assert_allclose(plans[0], plans[1], atol=1e-5)


def test_eval_in_two_processes_finds_the_same(demo, capfd):
    run, _ = demo
    for group in (2, 4):  # episodes shared out; one group, so candidates are
        words = ["eval", str(run), "--json", "--set", f"group={group}"]
        rows = []
        for processes in ("1", "2"):
            assert main([*words, "--processes", processes]) == 0
            (line,) = capfd.readouterr().out.splitlines()
            rows.append(json.loads(line))
        one, two = rows
        assert one["episodes"] == 4
        for key in ROW - CLOCKS:
            assert one[key] == two[key], key
            assert one["baselines"]["oracle"][key] == two["baselines"]["oracle"][key], key


def test_eval_can_change_the_protocol(demo, capsys):
    run, _ = demo
    row = said(capsys, "eval", str(run), "--json", "--episodes", "2", "--set", "goals=env")
    assert row["episodes"] == 2
    assert main(["eval", str(run), "--set", "budgt=5"]) == 2
    assert "Did you mean 'budget'" in capsys.readouterr().err


def test_plan_reaches_from_picture_to_picture(demo, tmp_path, capsys):
    run, _ = demo
    for name in ("start", "goal"):
        save_png(np.full((32, 48, 3), 200, np.uint8), tmp_path / f"{name}.png")
    pictures = ("--start", str(tmp_path / "start.png"), "--goal", str(tmp_path / "goal.png"))
    out = tmp_path / "plan.png"
    plan = said(capsys, "plan", str(run), *pictures, "--out", str(out), "--json")
    actions = np.array(plan["actions"])
    assert actions.shape[1] == 2
    assert len(actions) % 5 == 0
    assert (np.abs(actions) <= 1).all()
    assert plan["score"] <= 0
    with Image.open(out) as picture:
        assert picture.width > 2 * picture.height
    assert said(capsys, "plan", str(run), *pictures, "--json")["actions"] == plan["actions"]


def test_inspect_says_what_a_run_and_its_data_hold(demo, capsys):
    run, _ = demo
    facts = said(capsys, "inspect", str(run), "--json")
    assert facts["recipe"] == "lewm.small"
    assert facts["observations"] == ["image"]
    report = said(capsys, "inspect", str(run / "walks.h5"), "--json")
    assert (report["episodes"], report["steps"], report["sound"]) == (30, 1800, True)


def test_render_makes_the_page_again(demo, capsys):
    run, _ = demo
    before = (run / "report.html").read_text()
    made = said(capsys, "render", str(run), "--json")
    assert made == {"report": str(run / "report.html"), "film": str(run / "goals.gif")}
    assert (run / "report.html").read_text() == before
