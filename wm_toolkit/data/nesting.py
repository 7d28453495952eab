"""Nested dicts and their flat form, where keys are joined by "/"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium import spaces as gs


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": x}} to {"a/b": x}."""
    flat: dict[str, Any] = {}
    for key, child in node.items():
        if isinstance(child, Mapping):
            flat |= flatten(child, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = child
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a/b": x} to {"a": {"b": x}}."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, leaf = name.split("/")
        node = nested
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return nested


def nest_spaces(flat: Mapping[str, gym.Space]) -> gs.Dict:
    """Spaces by flat name as nested Dict spaces."""

    def wrap(node: dict[str, Any]) -> gs.Dict:
        return gs.Dict({k: wrap(v) if isinstance(v, dict) else v for k, v in node.items()})

    return wrap(nest(flat))
