"""Configs go to JSON and back, and unknown fields are explained."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

import pytest

from wm_toolkit.config import from_dict, override, to_dict
from wm_toolkit.errors import ConfigError, UnknownNameError
from wm_toolkit.registry import Registry, recipe_config, recipe_names


@dataclasses.dataclass(frozen=True)
class Inner:
    updates: int = 10
    rate: float = 0.5


@dataclasses.dataclass(frozen=True)
class Config:
    train: Inner = Inner()
    mode: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = (1, 2)
    clip: float | None = None
    name: str = "x"


def test_a_config_survives_json():
    config = Config(Inner(3, 0.1), "b", (4,), 2.0, "y")
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


def test_nested_fields_are_overridden_by_dotted_names():
    changed = override(Config(), {"train.updates": 5, "clip": 1})
    assert changed.train.updates == 5
    assert changed.clip == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.update": 5}, "Did you mean 'updates'"),
        ({"updates": 5}, "Did you mean 'train.updates'"),
        ({"mood": "a"}, "Did you mean 'mode'"),
        ({"train.updates": "many"}, "expected int"),
        ({"train.updates": True}, "expected int"),
        ({"mode": "c"}, "mode is 'c'"),
        ({"sizes": (1, "two")}, "sizes is 'two'"),
        ({"name.inner": 1}, "has no fields"),
    ],
)
def test_a_wrong_override_is_explained(changes, message):
    with pytest.raises(ConfigError, match=message):
        override(Config(), changes)


def test_every_preset_is_a_config_that_survives_json():
    for name in recipe_names():
        config = recipe_config(name)
        assert from_dict(type(config), json.loads(json.dumps(to_dict(config)))) == config


def test_an_unknown_recipe_or_preset_offers_close_ones():
    with pytest.raises(UnknownNameError, match="Did you mean 'lewm'"):
        recipe_config("lewmm")
    with pytest.raises(UnknownNameError, match="Did you mean 'small'"):
        recipe_config("lewm.smal")


def test_two_modules_cannot_share_a_name():
    registry: Registry[object] = Registry("thing", "wm_toolkit.recipes")
    registry.register("x", test_an_unknown_recipe_or_preset_offers_close_ones)
    with pytest.raises(ConfigError, match="two things are named 'x'"):
        registry.register("x", json.dumps)
