"""What the command line says: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def say(message: str) -> None:
    """A line about progress, on stderr."""
    print(message, file=sys.stderr, flush=True)


def emit(result: Any) -> None:
    """One JSON object on one line of stdout; NaN and infinity become null."""
    print(json.dumps(finite(result), allow_nan=False), flush=True)


def finite(value: Any) -> Any:
    """JSON-ready: numbers that JSON does not know become None, tuples lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def show_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", numbers: bool = False
) -> None:
    """A table on stdout.

    Args:
        head: column names.
        rows: cells as text.
        title: a line above it.
        numbers: align every column but the first to the right.
    """
    table = Table(
        box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold"
    )
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if numbers and i else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    terminal = sys.stdout.isatty()
    # Piped output has no width of its own: wide enough that no cell is folded.
    Console(file=sys.stdout, markup=False, width=None if terminal else 160).print(table)


class _Speaker(logging.Handler):
    """Says every message, on whatever stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        say(self.format(record))


def log_to_stderr() -> None:
    """Let the library's log speak, one plain line a message."""
    logger = logging.getLogger("wm_toolkit")
    if not any(isinstance(handler, _Speaker) for handler in logger.handlers):
        logger.addHandler(_Speaker())
    logger.setLevel(logging.INFO)
    # Packages of environments set up the root's handlers, which would say it twice.
    logger.propagate = False


@contextmanager
def progress(
    what: str, *, shown: bool = True, ends: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, from the first step on if `shown`; yields `advance(done, total)`.

    With `ends` it is no longer drawn once everything is done, so that another bar may follow.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} / {task.total:,.0f}"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(what, total=1)

    def advance(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        if shown and not bar.live.is_started:
            bar.start()
        if ends and done >= total and bar.live.is_started:
            bar.stop()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


def number(value: object) -> str:
    """A number for people: four digits; a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
