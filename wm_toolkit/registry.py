"""Names to things: recipes, data formats, environments, bench cases. One registry class for all.

A registry imports the package that fills it at the first look-up, so adding a file adds a name.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from wm_toolkit.errors import ConfigError, UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from wm_toolkit.agents.agent import Agent
    from wm_toolkit.spaces import Spaces

T = TypeVar("T")


class Registry(Generic[T]):
    """A dictionary of named things that explains itself when a name is unknown.

    Args:
        kind: what the things are, for error messages ("recipe").
        package: imported, with all its modules, at the first look-up. Other distributions add to it
            through the entry-point group of the same name ("wm_toolkit.recipes").
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._items: dict[str, T] = {}
        self._filled = False

    def register(self, name: str, item: T) -> T:
        """Add `item` under `name`; its own module may do so again (a notebook cell run twice).

        Raises:
            ConfigError: if another module has taken the name.
        """
        known = self._items.get(name)
        if known is not None and _module(known) != _module(item):
            raise ConfigError(f"two {self.kind}s are named {name!r}: {known} and {item}")
        self._items[name] = item
        return item

    def names(self) -> list[str]:
        """All names, sorted."""
        self._fill()
        return sorted(self._items)

    def __contains__(self, name: object) -> bool:
        self._fill()
        return name in self._items

    def __getitem__(self, name: str) -> T:
        """Look a name up.

        Raises:
            UnknownNameError: with close matches.
        """
        if name not in self._items:
            self._fill()
        if name not in self._items:
            raise UnknownNameError(
                f"no {self.kind} named {name!r}.{did_you_mean(name, self._items)}"
            )
        return self._items[name]

    def _fill(self) -> None:
        if self._filled:
            return
        self._filled = True  # already: a module may look names up while it is imported
        try:
            self._import_all()
        except BaseException:
            self._filled = False
            raise

    def _import_all(self) -> None:
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for entry in importlib.metadata.entry_points(group=self.package):
            entry.load()


def _module(item: Any) -> str | None:
    return getattr(getattr(item, "build", item), "__module__", None)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to build one system.

    Attributes:
        name: "lewm".
        config: the frozen dataclass of its hyper-parameters; the defaults are the published ones.
        build: (spaces, config) -> Agent.
        presets: named variants of the config, reached as "lewm.small".
        job: what trains it where the usual jobs do not fit; as `training.online.train_online`, with an
            environment, recorded data, or both; and with `progress`, told (done, total) of what it
            prepares.
        about: one line about each preset; those that have none are shown as the recipe's.
    """

    name: str
    config: type
    build: Callable[[Spaces, Any], Agent]
    presets: Mapping[str, Any]
    job: Callable[..., Any] | None = None
    about: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first line of the build function's docstring."""
        return (self.build.__doc__ or "").strip().splitlines()[0]

    def summary_of(self, preset: str) -> str:
        """One line about a preset."""
        return self.about.get(preset, f"preset of {self.name}")


RECIPES: Registry[Recipe] = Registry("recipe", "wm_toolkit.recipes")


def recipe(
    name: str,
    config: type,
    presets: Mapping[str, Any] | None = None,
    *,
    job: Callable[..., Any] | None = None,
    about: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Agent]], Callable[..., Agent]]:
    """Register a build function `(spaces, config) -> Agent` as a recipe; the fields are `Recipe`'s.

    Raises:
        ConfigError: if `about` names a preset there is not.

    Example:
        >>> @recipe("mine", MineConfig, presets={"small": MineConfig(width=64)})
        ... def mine(spaces, config):
        ...     return Agent(model, actor, learner)
    """

    def add(build: Callable[..., Agent]) -> Callable[..., Agent]:
        known = dict(presets or {})
        RECIPES.register(name, Recipe(name, config, build, known, job, dict(about or {})))
        return build

    unknown = sorted(set(about or {}) - set(presets or {}))
    if unknown:
        raise ConfigError(f"recipe {name!r} has no preset {unknown[0]!r} to tell about")
    return add


def recipe_names() -> list[str]:
    """Every recipe and preset: "lewm", "lewm.small" ..."""
    return [
        full
        for name in RECIPES.names()
        for full in (name, *(f"{name}.{preset}" for preset in RECIPES[name].presets))
    ]


def recipe_config(name: str, **overrides: Any) -> Any:
    """The config of a recipe ("lewm") or preset ("lewm.small"), with fields replaced.

    Overrides of nested fields are written with double underscores or dots: `train__updates=100`.

    Raises:
        UnknownNameError: for an unknown recipe or preset.
        ConfigError: for an unknown field.
    """
    from wm_toolkit.config import override

    base, _, preset = name.partition(".")
    found = RECIPES[base]
    if preset and preset not in found.presets:
        raise UnknownNameError(
            f"recipe {base!r} has no preset {preset!r}.{did_you_mean(preset, found.presets)}"
        )
    config = found.presets[preset] if preset else found.config()
    return override(config, {key.replace("__", "."): value for key, value in overrides.items()})


def build(name: str, spaces: Spaces, config: Any = None, **overrides: Any) -> Agent:
    """Build an agent from a recipe's name.

    Args:
        name: "lewm", or a preset "lewm.small".
        spaces: what the agent sees and does; `TrajectoryDataset.spaces` or `Spaces.of(env)`.
        config: a full config; by default the preset's.
        overrides: single fields to replace.

    Raises:
        UnknownNameError, ConfigError: as `recipe_config`.
    """
    from wm_toolkit.config import override

    config = recipe_config(name) if config is None else config
    config = override(config, {key.replace("__", "."): value for key, value in overrides.items()})
    agent = RECIPES[name.partition(".")[0]].build(spaces, config)
    agent.recipe, agent.config = name, config
    return agent
