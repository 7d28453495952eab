"""The `wm` command: picks a command's module, parses its options, reports errors for people.

Only the chosen command is imported, so `wm --help` answers without torch.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from wm_toolkit.errors import UnknownNameError, WmError, did_you_mean

COMMANDS = {
    "demo": "train a world model on offline walks and reach held-out goals by planning (6 minutes)",
    "train": "train a recipe on a data set, or repeat a run from its folder",
    "eval": "measure a saved agent: success rate with interval, steps, return, latency",
    "plan": "plan from a start image to a goal image",
    "collect": "record a policy in an environment as a data set",
    "convert": "turn a data set into another format",
    "inspect": "say what is inside a data set or an artefact, and every problem found",
    "render": "make a run's report page and pictures again",
    "bench": "measure speed against a floor and against named peers",
    "list": "show recipes, planners, data sets, pretrained models, formats, environments ...",
    "check": "run the public checkers on a recipe, agent, planner, data set or environment",
}

USER_ERROR, INTERRUPTED, PIPE_CLOSED, TERMINATED = 2, 130, 141, 143

GOES_ON = {
    "train": "from the last checkpoint",
    "demo": "from the last checkpoint",
    "collect": "where it stopped",
    "convert": "where it stopped",
}
"""Where a stopped command goes on when it is given again; the others begin anew."""

HELP = """usage: wm COMMAND [options]

World models trained once, saved, loaded in one line, dreamt in and planned with.

commands:
{commands}

options:
  --help, --version
  --traceback   with any command: show where an error was raised

`wm COMMAND --help` shows a command's options and an example.
Example: wm demo
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 not passed, 2 a user's error.

    Args:
        argv: what follows `wm`; by default the process's own arguments.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    traceback = "--traceback" in words
    words = [word for word in words if word != "--traceback"]
    try:
        return _orderly(words)
    except WmError as error:
        if traceback:
            raise
        print(f"wm: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(stopped(words), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`wm list | head`) has left; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        # A full disk, a missing right, a folder where a file should be: the user's to mend.
        if traceback or error.errno is None:
            raise
        print(f"wm: {error}. The same command goes on from what is finished", file=sys.stderr)
        return USER_ERROR


def stopped(words: Sequence[str]) -> str:
    """What is said of a command that was stopped."""
    place = GOES_ON.get(words[0]) if words else None
    return f"wm: stopped; the same command goes on {place}" if place else "wm: stopped"


# -- SIGTERM ---------------------------------------------------------------------------------------------
def _orderly(words: list[str]) -> int:
    """Run one command; if it is told to end, say so and end what it started."""
    with _termination() as received:
        try:
            code = _run(words)
        except BaseException:
            # Workers are told to end at the same time, so this may be what became of them.
            if not received:
                raise
        if not received:
            return code
        _end_children()
        print(stopped(words), file=sys.stderr)
        return TERMINATED


@contextmanager
def _termination() -> Iterator[list[int]]:
    """Inside, SIGTERM ends this process and those it forks as `sys.exit` does: by their `finally` blocks.

    Otherwise environments that are programs of their own (games, simulators) would stay behind. Yields the
    signals that have arrived. A second one cuts short what the first began, but not in a forked process,
    which may be told twice. Where somebody handles the signal already, or in a thread, nothing changes.
    """
    received: list[int] = []
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield received
        return
    own = os.getpid()

    def end(number: int, frame: Any) -> None:
        received.append(number)
        if len(received) == 1 or os.getpid() == own:
            sys.exit(TERMINATED)

    signal.signal(signal.SIGTERM, end)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_children() -> None:
    """End the processes that are still at work; Python would wait for them at its exit."""
    import multiprocessing

    for child in multiprocessing.active_children():
        child.terminate()


def _run(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview(), end="")
        return 0
    if words[0] == "--version":
        from wm_toolkit import __version__

        print(f"wm_toolkit {__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        raise UnknownNameError(f"no command {name!r}.{did_you_mean(name, COMMANDS)}")
    return _command(name, rest)


def overview() -> str:
    """What `wm --help` prints."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    return HELP.format(commands="\n".join(lines))


def _command(name: str, words: list[str]) -> int:
    """Parse `words` into the command's `Args` and hand them to its `run`."""
    import tyro

    from wm_toolkit.cli import output

    module = importlib.import_module(f"wm_toolkit.cli.{name}")
    try:
        plain = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
        args = tyro.cli(module.Args, prog=f"wm {name}", args=words, config=plain)
    except SystemExit as stop:  # --help, or options that do not parse: tyro has said why
        return stop.code if isinstance(stop.code, int) else USER_ERROR
    output.log_to_stderr()
    return module.run(args) or 0


if __name__ == "__main__":
    sys.exit(main())
