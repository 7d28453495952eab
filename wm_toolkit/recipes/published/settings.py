"""Reads settings of published configurations: nested mappings of plain values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from wm_toolkit.checkpoint import load_json
from wm_toolkit.errors import CheckpointError, ConfigError, did_you_mean

T = TypeVar("T", int, float, str, bool)


class Settings:
    """A nested mapping whose values are asked for by dotted names and types.

    Args:
        values: as read from JSON or YAML; nothing in it is built or run.
        where: the file, for errors.

    Example:
        >>> Settings({"predictor": {"depth": 6}}, "config.json").get("predictor.depth", int)
        6
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def find(self, name: str) -> Any:
        """Whatever is at a dotted name, None if nothing is."""
        value: Any = self.values
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def get(self, name: str, kind: type[T], default: T | None = None) -> T:
        """One value.

        Raises:
            ConfigError: if it is missing without a default, or of another type.
        """
        value = self.find(name)
        if value is None:
            if default is None:
                raise ConfigError(f"{self.where} does not say {name!r} ({kind.__name__})")
            return default
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{self.where}: {name} is {value!r}, expected {kind.__name__}")
        return value

    def expect(self, name: str, only: Any, why: str) -> None:
        """Refuse any other value than `only`; a value that is not given counts as it.

        Raises:
            ConfigError: with the reason.
        """
        value = self.find(name)
        if value is not None and value != only:
            raise ConfigError(f"{self.where}: {name} is {value!r}, expected {only!r}: {why}")

    def known(self, section: str, names: Collection[str]) -> None:
        """Refuse names in a section that would change the model in a way nobody here knows.

        Raises:
            ConfigError: naming the first one.
        """
        given = self.find(section)
        if not isinstance(given, Mapping):
            raise ConfigError(f"{self.where} has no section {section!r}")
        for name in given:
            if name not in names and name not in ("_target_", "_partial_"):
                raise ConfigError(
                    f"{self.where}: {section}.{name} is not known here, so a converted model would "
                    f"not be the same.{did_you_mean(str(name), names)}"
                )


def read_settings(path: str | Path) -> Settings:
    """The settings of a .json or .yaml file, as plain values.

    Raises:
        CheckpointError: if it is missing or damaged, or not a mapping.
    """
    path = Path(path)
    values = load_json(path) if path.suffix == ".json" else _load_yaml(path)
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, expected settings by name")
    return Settings(values, str(path))


def _load_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not plain YAML: {error}") from error
