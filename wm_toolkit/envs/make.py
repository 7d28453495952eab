"""Any environment by name, with options that mean the same everywhere and errors that help."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator, registry
from gymnasium.error import (
    DependencyNotInstalled,
    NameNotFound,
    NamespaceNotFound,
    UnregisteredEnv,
    VersionNotFound,
)

from wm_toolkit.envs.headless import prepare_headless
from wm_toolkit.envs.registration import Package, package_of, register_envs
from wm_toolkit.envs.wrappers import ActionRepeat, ResizedImages, check_repeat
from wm_toolkit.errors import (
    ConfigError,
    MissingPackageError,
    UnknownNameError,
    did_you_mean,
    require,
)

_UNKNOWN = (UnregisteredEnv, NameNotFound, NamespaceNotFound, VersionNotFound)
_DRAWN = ("both", "image")

Wrap = Callable[[gym.Env], gym.Env]


def make(name: str, **kwargs: Any) -> gym.Env:
    """`gymnasium.make` for any registered id; ours and those of known packages work without an import.

    Four options work with every environment. One that its constructor takes is handed to it; otherwise a
    wrapper does it, and says so in its `settings`.

    Args:
        name: "CartPole-v1", "dmc/walker-walk", "atari100k/Pong", "crafter/reward", "bsuite/catch-0",
            "MiniGrid-DoorKey-8x8-v0", "VizdoomTakeCover-v1", or "module:Name-v0" to import a module first.
        kwargs: what the environment takes, `render_mode`, and
            `action_repeat`: every action so many times, rewards summed (`ActionRepeat`);
            `image_size`: side of the pictures, px (`ResizedImages`);
            `grey`: pictures of one channel;
            `obs_mode`: "image" or "both" draws an environment that shows only numbers (`RenderedImages`, with
            its `fast_render`);
            `max_episode_steps`: instead of the environment's own limit, in steps of what is returned.

    Raises:
        UnknownNameError: with close matches.
        MissingPackageError: with the pip command, if the environment's own package is not installed.
        ConfigError: if it does not take one of the arguments.

    Example:
        >>> make("Pendulum-v1", obs_mode="image", image_size=64, action_repeat=2).observation_space.shape
        (64, 64, 3)
    """
    with _explained(name, kwargs):
        plan = _plan(name, kwargs)
        env = gym.make(name, **plan.options)
        for wrap in plan.wrappers:
            env = wrap(env)
        return env


def make_vec(name: str, num_envs: int, **kwargs: Any) -> gym.vector.VectorEnv:
    """The same environments side by side; a row that ended starts anew on the next step.

    Our own vector forms are used where nothing has to be wrapped. The others are rows of `make`, each
    seeded by itself: `vectorization_mode` is "sync" (the default), "async" (a process each), or
    "vector_entry_point" for another package's own vector form, which may show something else.

    Raises:
        UnknownNameError, MissingPackageError, ConfigError: as `make`.
    """
    with _explained(name, kwargs):
        plan = _plan(name, kwargs)
        options = dict(plan.options)
        wrappers = [*plan.wrappers, *options.pop("wrappers", [])]
        if wrappers:
            options["wrappers"] = wrappers
        if wrappers or not name.startswith("wm_toolkit/"):
            options.setdefault("vectorization_mode", "sync")
        return gym.make_vec(name, num_envs=num_envs, **options)


# -- which options the environment takes, and which a wrapper has to do --------------------------------
@dataclasses.dataclass(frozen=True)
class _Plan:
    """How to make an environment: what Gymnasium is given, and what is put around the result."""

    options: dict[str, Any]
    wrappers: list[Wrap]


def _plan(name: str, kwargs: dict[str, Any]) -> _Plan:
    register_envs()
    package = package_of(name)
    if package is not None:
        _import(package)
    options, rest = dict(kwargs), _rest(kwargs, _named(_spec(name)))
    for key in rest:
        del options[key]
    wrappers = [] if package is None else _of_package(package, rest)
    wrappers += _repeated(rest, options) + _drawn(rest, options) + _resized(rest)
    return _Plan(options, wrappers)


def _import(package: Package) -> None:
    prepare_headless()
    with warnings.catch_warnings():
        # Box2D's module warns while it is built, and ends the process where warnings are errors.
        warnings.simplefilter("ignore", DeprecationWarning)
        require(package.module, package.extra)


_SHARED = ("action_repeat", "image_size", "grey", "obs_mode", "fast_render")


def _rest(kwargs: dict[str, Any], named: set[str]) -> dict[str, Any]:
    """The shared options that the constructor does not take; `fast_render` only with a picture of ours."""
    rest = {key: kwargs[key] for key in _SHARED if key in kwargs and key not in named}
    if rest.get("obs_mode") not in _DRAWN:
        rest.pop("fast_render", None)
    return rest


def _spec(name: str) -> EnvSpec:
    """What Gymnasium knows about an id, after importing the module that stands before a colon."""
    module, colon, own = name.rpartition(":")
    if colon:
        importlib.import_module(module)
    return gym.spec(own)


def _named(spec: EnvSpec) -> set[str]:
    """Names of the arguments that an environment's constructor takes."""
    creator = spec.entry_point
    if isinstance(creator, str):
        creator = load_env_creator(creator)
    return set() if creator is None else set(inspect.signature(creator).parameters)


def _of_package(package: Package, rest: dict[str, Any]) -> list[Wrap]:
    """The wrapper that every environment of a package needs, with the options it takes."""
    if not package.wrapper:
        return []
    module, _, name = package.wrapper.partition(":")
    wrapper = getattr(importlib.import_module(module), name)
    taken = {key: rest.pop(key) for key in inspect.signature(wrapper).parameters if key in rest}
    return [partial(wrapper, **taken)]


def _repeated(rest: dict[str, Any], options: dict[str, Any]) -> list[Wrap]:
    repeat = check_repeat(rest.pop("action_repeat", 1))
    if repeat == 1:
        return []
    if options.get("max_episode_steps", -1) > 0:
        options["max_episode_steps"] *= repeat  # the limit stands inside, where every repeat counts
    return [partial(ActionRepeat, repeat=repeat)]


def _drawn(rest: dict[str, Any], options: dict[str, Any]) -> list[Wrap]:
    """Pictures for an environment that has no modes of its own."""
    mode = rest.pop("obs_mode", "state")
    if mode == "state":
        return []
    if mode not in _DRAWN:
        raise ConfigError(f"obs_mode is {mode!r}, expected 'state', 'image' or 'both'")
    from wm_toolkit.envs.rendered import RenderedImages

    prepare_headless()
    options["render_mode"] = "rgb_array"
    taken = {key: rest.pop(key) for key in ("image_size", "fast_render") if key in rest}
    return [partial(RenderedImages, obs_mode=mode, **taken)]


def _resized(rest: dict[str, Any]) -> list[Wrap]:
    size, grey = rest.get("image_size"), bool(rest.get("grey", False))
    return [partial(ResizedImages, size=size, grey=grey)] if size is not None or grey else []


# -- errors ----------------------------------------------------------------------------------------
@contextmanager
def _explained(name: str, kwargs: dict[str, Any]) -> Iterator[None]:
    """Turns what Gymnasium raises into errors that say what to do."""
    try:
        yield
    except MissingPackageError:
        raise
    except _UNKNOWN as error:
        raise UnknownNameError(_no_such(name)) from error
    except (DependencyNotInstalled, ModuleNotFoundError) as error:
        raise MissingPackageError(
            f"{name!r} needs a package that is not installed: {error}"
        ) from error
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise ConfigError(f"{name!r} cannot be made with {kwargs}: {error}") from error


def _no_such(name: str) -> str:
    known = list(registry)
    own = {key.partition("/")[2]: key for key in known if "/" in key}
    spelt = {_plain(key): key for key in known}
    same = own.get(name) or spelt.get(_plain(name))  # "TwoRooms-v0", "atari100k/ms_pacman"
    hint = f" Did you mean {same!r}?" if same else did_you_mean(name, _near(name, known))
    return (
        f"no environment {name!r}.{hint} An environment of another package is known after its "
        'import: make("package:Name-v0")'
    )


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _near(name: str, known: list[str]) -> list[str]:
    """The ids worth showing: those that share a beginning, so that the list stays short."""
    start = name.partition("-")[0].lower()[:3]
    return [key for key in known if start in key.lower()] or known[:8]
