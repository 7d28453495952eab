"""`wm list recipes` says what each preset is."""

from __future__ import annotations

import pytest

from wm_toolkit.cli.list import recipes
from wm_toolkit.errors import ConfigError
from wm_toolkit.registry import Recipe, recipe


def test_presets_are_told_apart():
    found = recipes()
    assert found["dreamer_v3"].startswith("Dreamer V3: a world model")
    assert "ratio 512, action repeat 2 (paper)" in found["dreamer_v3.dmc_proprio_paper"]
    assert "ratio 1024, no action repeat" in found["dreamer_v3.dmc_proprio"]
    assert "50 x 50" in found["dreamer_v2.paper"]


def test_a_preset_without_a_line_is_named_after_its_recipe():
    made = Recipe("mine", dict, lambda spaces, config: None, {"a": 1, "b": 2}, about={"a": "small"})
    assert (made.summary_of("a"), made.summary_of("b")) == ("small", "preset of mine")


def test_a_line_about_a_preset_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="'mine' has no preset 'smal'"):
        recipe("mine", dict, {"small": {}}, about={"smal": "typing error"})
