"""What README.md shows is what happens: its Python runs, its commands run, and they print what it says."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path

import pytest
from markdown_blocks import blocks, shell_lines

from wm_toolkit.cli.main import COMMANDS, main
from wm_toolkit.training import jobs

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_RUN = ("pip install", "pytest")
"""Installing is what `.ci/run` does, and the tests are running already."""

FEW = "train.updates=2 train.batch_size=8 evaluation.episodes=2 evaluation.budget=10"
SHORTENED = {
    "wm demo": "wm demo --smoke",
    "wm train lewm.small --data me/rooms-v0 --run runs/mine": (
        f"wm train lewm.small --data me/rooms-v0 --run runs/mine --set {FEW}"
    ),
    "wm train lewm.small --data tworooms --run runs/lewm --set train.updates=1000 lr=5e-4": (
        f"wm train lewm.small --data tworooms --run runs/lewm --set {FEW} lr=5e-4"
    ),
    'wm eval runs/lewm --episodes 200 --set goals=env goal_options=\'{"goal_room": "opposite"}\'': (
        'wm eval runs/lewm --episodes 4 --set goals=env goal_options=\'{"goal_room": "opposite"}\''
    ),
    "wm train dreamer_v3.nano --data cartpole.h5 --run runs/offline": (
        "wm train dreamer_v3.nano --data cartpole.h5 --run runs/offline --updates 2 "
        "--set evaluation.episodes=2"
    ),
    "wm train dreamer_v3.nano --env CartPole-v1 --data cartpole.h5 --init runs/offline "
    "--run runs/online --steps 5000 --set lr=3e-4": (
        "wm train dreamer_v3.nano --env CartPole-v1 --data cartpole.h5 --init runs/offline "
        "--run runs/online --updates 2 --set lr=3e-4 evaluation.episodes=2"
    ),
    # The pretrained model's own data set has 1,000 walks; the run's has a few.
    "wm plan lewm-tworooms --episode 3 --out plan.png": (
        "wm plan runs/lewm --episode 1 --out plan.png"
    ),
}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder, with data sets of its own and a short TwoRooms."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    few_walks = functools.partial(jobs.prepare_two_rooms, episodes=20)
    monkeypatch.setattr(jobs, "prepare_two_rooms", few_walks)
    return tmp_path


def test_every_python_block_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    found = blocks(README, "python")
    assert len(found) == 8
    for code in found:
        exec(compile(code, "README.md", "exec"), names)
        shown = re.findall(r"^print\(.*\)  # (.+)$", code, re.MULTILINE)
        assert shown, f"this block shows no result:\n{code}"
        assert capsys.readouterr().out.splitlines() == shown


def test_every_command_runs_and_prints_what_is_shown(workplace, capsys):
    commands = shell_lines(README)
    assert set(SHORTENED) <= {command for command, _ in commands}, "a shortened command is gone"
    ran = set()
    for command, shown in commands:
        if command.startswith(NOT_RUN):
            continue
        program, *words = shlex.split(SHORTENED.get(command, command))
        assert program == "wm"
        code = main(words)
        said = capsys.readouterr()
        assert code == 0, f"{command}\n{said.err}"
        ran.add(words[0])
        for line in shown:
            assert line == "..." or line in said.out.splitlines(), f"{command} printed\n{said.out}"
    assert {"demo", "collect", "inspect", "convert", "train", "eval", "plan"} <= ran
    for made in ("rooms.h5", "plan.png", "runs/mine/report.html", "runs/demo-smoke/goals.gif"):
        assert (workplace / made).exists(), made


def test_the_table_of_commands_is_complete():
    shown = re.findall(r"^\| `wm (\w+)` \|", README, re.MULTILINE)
    assert sorted(shown) == sorted(COMMANDS)


def test_every_link_and_picture_is_there_and_pictures_are_small():
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", README) if "://" not in link]
    assert len(links) > 8
    for link in links:
        assert (ROOT / link).is_file(), link
        if Path(link).suffix in (".gif", ".png"):
            assert (ROOT / link).stat().st_size < 300_000, link
