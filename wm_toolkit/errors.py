"""Errors a user can cause. Each message says what is wrong, what was expected, and what to do."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class WmError(Exception):
    """Base of every error that a user can cause."""

    def __str__(self) -> str:
        # KeyError prints the repr of its argument; every message here is meant to be read.
        return str(self.args[0]) if self.args else ""


class ShapeError(WmError, ValueError):
    """A tensor has the wrong shape or type."""


class SpaceError(WmError, ValueError):
    """An observation or action does not fit its space, or two spaces do not fit each other."""


class ConfigError(WmError, ValueError):
    """A configuration value is unknown, of the wrong type, or out of range."""


class DataError(WmError, ValueError):
    """A data set is damaged or does not fit: names file, column, episode and row."""


class CheckpointError(WmError, ValueError):
    """A saved model or training state is missing, damaged, or belongs to something else."""


class NonFiniteError(WmError, FloatingPointError):
    """A loss, gradient or score became NaN or infinite."""


class MissingGoalError(WmError, ValueError):
    """A goal objective was given observations without a goal."""


class PlanError(WmError, ValueError):
    """A planner was asked for something it cannot do."""


class ActorError(WmError, RuntimeError):
    """An actor in a process of its own failed or died; the message holds its traceback."""


class UnknownNameError(WmError, KeyError):
    """A name is not in a registry; the message offers close matches."""


class MissingHeadError(WmError, KeyError):
    """A model lacks the head that was asked for."""


class MissingPackageError(WmError, ImportError):
    """An optional package is not installed; the message names the pip extra."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the closest known names, or the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return " Did you mean " + " or ".join(repr(match) for match in close) + "?"
    return f" Known: {', '.join(known) or 'none'}."


def require(package: str, extra: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: the module's import name.
        extra: the pip extra of wm_toolkit that installs it.

    Raises:
        MissingPackageError: naming the extra, if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{package!r} is not installed ({error}). Run: pip install 'wm_toolkit[{extra}]'"
        ) from error
