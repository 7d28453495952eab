"""The `wm` command answers fast, helps with names, and tells users' errors from bugs."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys

import pytest

from wm_toolkit.cli import list as list_command
from wm_toolkit.cli import main as cli
from wm_toolkit.cli import output, train
from wm_toolkit.errors import ConfigError


def test_help_and_import_leave_torch_alone():
    program = (
        "import sys, wm_toolkit\n"
        "from wm_toolkit.cli.main import main\n"
        "assert main(['--help']) == 0 and main(['--version']) == 0\n"
        "heavy = {'torch', 'numpy', 'tyro', 'rich', 'gymnasium'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert main(['demo', '--help']) == 0 and main(['train', '--help']) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    assert cli.main([name, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"usage: wm {name}" in said
    assert f"`wm {name}" in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["trian"], "Did you mean 'train'"),
        (["list", "recipies"], "Did you mean 'recipes'"),
        (["train", "lewm.smal", "--data", "x"], "Did you mean 'small'"),
        (["train", "lewn", "--data", "x"], "Did you mean 'lewm'"),
        (["check", "lewm.smal"], "Did you mean 'lewm.small'"),
        (["bench", "dat"], "Did you mean 'data'"),
        (["collect", "wm_toolkit/TwoRoms-v0", "x.h5"], "wm_toolkit/TwoRooms-v0"),
        (["collect", "CartPole-v1", "x.h5", "--set", "foo=1"], "unexpected keyword argument 'foo'"),
        (["collect", "CartPole-v1", "x.h5", "--envs", "0"], "envs 0"),
        (["collect", "CartPole-v1", "x.h5", "--goals"], "draws no goals of its own"),
        (["convert", "tworoms", "x.h5"], "Did you mean 'tworooms'"),
    ],
)
def test_a_misspelt_name_gets_a_hint_and_exit_code_two(words, hint, capsys):
    assert cli.main(words) == cli.USER_ERROR
    said = capsys.readouterr()
    assert hint in said.err
    assert said.err.startswith("wm: ")
    assert "Traceback" not in said.err
    assert said.out == ""


def test_an_unknown_option_is_a_users_error(capsys):
    assert cli.main(["list", "--jsn"]) == cli.USER_ERROR
    assert "--json" in capsys.readouterr().err


def test_traceback_shows_where_an_error_was_raised():
    with pytest.raises(ConfigError, match="name a data set"):
        cli.main(["train", "lewm.small", "--traceback"])


def test_a_bug_is_not_dressed_up_as_a_users_error(monkeypatch):
    monkeypatch.setattr(list_command, "run", lambda args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["list"])


def test_a_full_disk_is_no_bug(monkeypatch, capsys):
    def full(args):
        raise OSError(28, "No space left on device", "runs/demo")

    monkeypatch.setattr(list_command, "run", full)
    assert cli.main(["list"]) == cli.USER_ERROR
    assert "No space left on device: 'runs/demo'" in capsys.readouterr().err
    with pytest.raises(OSError, match="No space left"):
        cli.main(["list", "--traceback"])


def test_an_interrupted_command_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run", interrupted)
    assert cli.main(["train"]) == cli.INTERRUPTED
    assert "the same command goes on from the last checkpoint" in capsys.readouterr().err


def test_a_command_that_begins_anew_does_not_promise_to_go_on(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(list_command, "run", interrupted)
    assert cli.main(["list"]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "wm: stopped\n"


RUN = """
import multiprocessing, os, signal, sys
from wm_toolkit.cli import main as cli
from wm_toolkit.cli import train as command

def work(name):
    try:
        print(name, "begun", flush=True)
        signal.pause()
    finally:
        print(name, "closed", flush=True)

{rest}
command.run = run
sys.exit(cli.main(["train"]))
"""

ALONE = """
def run(args):
    work("it")
"""

FAILS_ON_THE_WAY_OUT = """
def run(args):
    try:
        work("it")
    finally:
        raise BrokenPipeError(32, "a worker has gone")
"""

WITH_A_CHILD = """
def run(args):
    child = multiprocessing.get_context("fork").Process(target=work, args=("child",))
    child.start()
    child.join()
"""

TOLD_AS_A_GROUP = """
def run(args):
    child = multiprocessing.get_context("fork").Process(target=twice)
    child.start()
    child.join()

def twice():
    try:
        work("child")
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("child still closing", flush=True)
"""

WAYS = {
    "alone": (ALONE, "it", ["it closed"]),
    "an error on the way out": (FAILS_ON_THE_WAY_OUT, "it", ["it closed"]),
    "its child": (WITH_A_CHILD, "child", ["child closed"]),
    "a child that is told twice": (
        TOLD_AS_A_GROUP,
        "child",
        ["child closed", "child still closing"],
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_command_that_is_told_to_end_closes_what_it_opened(way):
    rest, name, said = WAYS[way]
    program = [sys.executable, "-c", RUN.format(rest=rest)]
    with subprocess.Popen(program, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{name} begun\n"
        process.terminate()
        out, err = process.communicate()
    assert out.splitlines() == said
    assert err == "wm: stopped; the same command goes on from the last checkpoint\n"
    assert process.returncode == cli.TERMINATED


def test_afterwards_sigterm_means_what_it_meant(monkeypatch):
    handlers = []
    monkeypatch.setattr(
        list_command, "run", lambda args: handlers.append(signal.getsignal(signal.SIGTERM))
    )
    for before in (signal.SIG_DFL, signal.SIG_IGN):
        old = signal.signal(signal.SIGTERM, before)
        try:
            assert cli.main(["list"]) == 0
            assert signal.getsignal(signal.SIGTERM) is before
        finally:
            signal.signal(signal.SIGTERM, old)
    assert callable(handlers[0])
    assert handlers[1] is signal.SIG_IGN


def test_list_names_recipes_presets_planners_formats_and_environments(capsys):
    assert cli.main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(list_command.KINDS)
    assert {"lewm", "lewm.small"} <= found["recipes"].keys()
    assert "cem" in found["planners"]
    assert {"hdf5", "minari"} <= found["formats"].keys()
    assert {"wm_toolkit/TwoRooms-v0", "dmc/reacher-easy"} <= set(found["environments"])
    assert {"data", "plan", "train"} <= found["benchmarks"].keys()
    assert all(found["recipes"].values())


def test_list_shows_environments_of_every_package_with_its_extra(capsys):
    assert cli.main(["list", "envs", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["environments"]
    assert found["bsuite/catch-0"] == "settings -0 to -19 [bsuite]"
    assert "bsuite/catch-1" not in found
    assert "VizdoomTakeCover-v1" in found
    for name, extra in {"atari100k/Pong": "atari", "CarRacing-v3": "box2d"}.items():
        assert found[name].endswith(f"[{extra}]")


def test_the_librarys_log_goes_to_stderr_once_however_often_it_is_asked(capsys):
    output.log_to_stderr()
    output.log_to_stderr()
    logging.getLogger("wm_toolkit.data.convert").info("converting %s", "x")
    said = capsys.readouterr()
    assert said.err == "converting x\n"
    assert said.out == ""


def test_emitted_json_has_no_nan(capsys):
    output.emit({"a": float("nan"), "b": [float("inf"), 1.5], "c": (1, None)})
    assert capsys.readouterr().out == '{"a": null, "b": [null, 1.5], "c": [1, null]}\n'


def test_set_replaces_fields_and_short_options_fill_in_theirs():
    args = train.Args("lewm", set=("train.clip=null", "lr=1e-3", "goal_mode=all"), seed=3)
    assert train.changes(args) == {
        "train.seed": 3,
        "train.clip": None,
        "lr": 1e-3,
        "goal_mode": "all",
    }
    with pytest.raises(ConfigError, match=r"name=value, got 'train\.clip'"):
        train.changes(train.Args("lewm", set=("train.clip",)))


def test_a_wrong_field_or_type_is_named(capsys):
    assert cli.main(["train", "lewm.small", "--data", "x", "--set", "train.update=3"]) == 2
    assert "Did you mean 'updates'" in capsys.readouterr().err
    assert cli.main(["train", "lewm.small", "--data", "x", "--set", "train.updates=many"]) == 2
    assert "train.updates is 'many' (str), expected int" in capsys.readouterr().err
