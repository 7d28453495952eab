"""Any Gymnasium environment by name, with errors that help."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import registry
from gymnasium.error import (
    DependencyNotInstalled,
    NameNotFound,
    NamespaceNotFound,
    UnregisteredEnv,
    VersionNotFound,
)

from wm_toolkit.envs.registration import register_envs
from wm_toolkit.errors import ConfigError, MissingPackageError, UnknownNameError, did_you_mean

_UNKNOWN = (UnregisteredEnv, NameNotFound, NamespaceNotFound, VersionNotFound)


def make(name: str, **kwargs: Any) -> gym.Env:
    """`gymnasium.make` for any registered id; ours work without an import.

    Args:
        name: "CartPole-v1", "wm_toolkit/TwoRooms-v0", or "module:Name-v0" to import a module first.
        kwargs: `max_episode_steps`, `render_mode` and what the environment takes.

    Raises:
        UnknownNameError: with close matches.
        MissingPackageError: if the environment's own package is not installed.
        ConfigError: if it does not take one of the arguments.
    """
    return _make(gym.make, name, kwargs)


def make_vec(name: str, num_envs: int, **kwargs: Any) -> gym.vector.VectorEnv:
    """`gymnasium.make_vec` in the same way: an environment's own vector form where it has one.

    Raises:
        UnknownNameError, MissingPackageError, ConfigError: as `make`.
    """
    return _make(gym.make_vec, name, {"num_envs": num_envs, **kwargs})


def _make(build: Any, name: str, kwargs: dict[str, Any]) -> Any:
    register_envs()
    try:
        return build(name, **kwargs)
    except _UNKNOWN as error:
        known = list(registry)
        own = {key.partition("/")[2]: key for key in known if "/" in key}
        hint = (
            f" Did you mean {own[name]!r}?"
            if name in own
            else did_you_mean(name, _near(name, known))
        )
        raise UnknownNameError(
            f"no environment {name!r}.{hint} An environment of another package is known after its "
            'import: make("package:Name-v0")'
        ) from error
    except (DependencyNotInstalled, ModuleNotFoundError) as error:
        raise MissingPackageError(
            f"{name!r} needs a package that is not installed: {error}"
        ) from error
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise ConfigError(f"{name!r} cannot be made with {kwargs}: {error}") from error


def _near(name: str, known: list[str]) -> list[str]:
    """The ids worth showing: those that share a beginning, so that the list stays short."""
    start = name.partition("-")[0].lower()[:3]
    return [key for key in known if start in key.lower()] or known[:8]
