"""Frozen dataclasses as configuration: to JSON, from JSON, with single fields replaced."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from wm_toolkit.errors import ConfigError, did_you_mean

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A JSON-ready dict of a (nested) config dataclass."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build a config of type `cls` from a dict; absent fields keep their defaults.

    Raises:
        ConfigError: naming the field and what is wrong with it.
    """
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values = {}
    for key, value in data.items():
        if key not in known:
            raise ConfigError(
                f"{cls.__name__} has no field {where + key!r}.{did_you_mean(key, known)}"
            )
        values[key] = _coerce(hints[key], value, where + key)
    return cls(**values)


def override(config: T, changes: Mapping[str, Any]) -> T:
    """Replace fields, nested ones by dotted names: `override(config, {"train.updates": 100})`.

    Raises:
        ConfigError: for an unknown field or a value of the wrong type.
    """
    return _replace(config, changes, "")


def check_ranges(
    config: Any, groups: Mapping[str, Iterable[str]] | None = None, **allowed: str
) -> None:
    """Refuse numbers out of range; fields that are None pass.

    Args:
        config: a config dataclass.
        groups: names of fields by the interval they share: `{"[1, inf)": ("envs", "burst")}`.
        allowed: the interval of one field, as mathematics writes it: `lam="[0, 1]"`, `lr="(0, inf)"`.

    Raises:
        ConfigError: naming the first field that is out of range, its value and the range.
    """
    shared = {name: interval for interval, names in (groups or {}).items() for name in names}
    for name, interval in {**shared, **allowed}.items():
        value = getattr(config, name)
        low, high = (float(bound) for bound in interval[1:-1].split(","))
        above = value is None or (value >= low if interval[0] == "[" else value > low)
        below = value is None or (value <= high if interval[-1] == "]" else value < high)
        if not (above and below):
            raise ConfigError(f"{type(config).__name__}.{name} is {value}, expected in {interval}")


def one_of(config: Any, name: str, known: tuple[str, ...]) -> None:
    """Check one setting that is a name.

    Raises:
        ConfigError: if it is not among `known`.
    """
    value = getattr(config, name)
    if value not in known:
        raise ConfigError(
            f"{type(config).__name__}.{name} is {value!r}.{did_you_mean(str(value), known)}"
        )


def _replace(config: Any, changes: Mapping[str, Any], where: str) -> Any:
    """All changes of one level at once, so that fields which must agree may change together."""
    hints = typing.get_type_hints(type(config))
    known = [f.name for f in dataclasses.fields(config)]
    values: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        name, _, rest = key.partition(".")
        if name not in known:
            likely = [*known, *_paths(config, name)]
            raise ConfigError(
                f"{type(config).__name__} has no field {where + key!r}.{did_you_mean(name, likely)}"
            )
        if not rest:
            values[name] = _coerce(hints[name], value, where + name)
        elif dataclasses.is_dataclass(getattr(config, name)):
            nested.setdefault(name, {})[rest] = value
        else:
            kind = type(getattr(config, name)).__name__
            raise ConfigError(f"{where + key!r}: {name!r} is a {kind}, it has no fields")
    for name, inner in nested.items():
        values[name] = _replace(values.get(name, getattr(config, name)), inner, f"{where}{name}.")
    return dataclasses.replace(config, **values)


def _paths(config: Any, name: str) -> list[str]:
    """Dotted paths of nested fields of that name."""
    found = []
    for field in dataclasses.fields(config):
        inner = getattr(config, field.name)
        if dataclasses.is_dataclass(inner):
            own = [name] if hasattr(inner, name) else _paths(inner, name)
            found += [f"{field.name}.{path}" for path in own]
    return found


def _coerce(hint: Any, value: Any, where: str) -> Any:
    """Check `value` against a type hint; JSON lists become tuples, whole floats stay floats."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return from_dict(hint, value, where + ".")
    if origin in (typing.Union, types.UnionType):
        errors = []
        for option in typing.get_args(hint):
            try:
                return _coerce(option, value, where)
            except ConfigError as error:
                errors.append(error)
        raise errors[0]
    if origin is typing.Literal:
        options = typing.get_args(hint)
        if value not in options:
            raise ConfigError(f"{where} is {value!r}.{did_you_mean(str(value), map(str, options))}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = typing.get_args(hint)
        kinds = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is Ellipsis else inner
        if len(kinds) != len(value):
            raise ConfigError(f"{where} has {len(value)} entries, expected {len(kinds)}")
        return tuple(_coerce(k, v, where) for k, v in zip(kinds, value, strict=True))
    if hint in (None, type(None)) and value is None:
        return None
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    plain = origin or hint
    fits = isinstance(plain, type) and isinstance(value, plain)
    if fits and not (isinstance(value, bool) and plain is int):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{where} is {value!r} ({type(value).__name__}), expected {name}")
