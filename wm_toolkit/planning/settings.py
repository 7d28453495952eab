"""Checks of a planner's settings."""

from __future__ import annotations

from typing import Any

from wm_toolkit.errors import ConfigError, did_you_mean


def at_least(config: Any, name: str, minimum: float) -> None:
    """Check one field of a planner.

    Raises:
        ConfigError: if it is below `minimum`.
    """
    value = getattr(config, name)
    if not value >= minimum:
        raise ConfigError(f"{type(config).__name__}.{name} is {value}, expected at least {minimum}")


def one_of(config: Any, name: str, known: tuple[str, ...]) -> None:
    """Check one named setting of a planner.

    Raises:
        ConfigError: if it is not among `known`.
    """
    value = getattr(config, name)
    if value not in known:
        raise ConfigError(
            f"{type(config).__name__}.{name} is {value!r}.{did_you_mean(str(value), known)}"
        )
