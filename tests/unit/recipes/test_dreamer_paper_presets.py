"""Protocols of the papers where the official codes have other ones."""

from __future__ import annotations

import pytest

from wm_toolkit.config import to_dict
from wm_toolkit.registry import RECIPES, recipe_config


def differences(name: str, other: str) -> dict[str, object]:
    """Fields in which a preset is not the other one."""

    def flat(config, prefix=""):
        found = {}
        for key, value in config.items():
            nested = isinstance(value, dict) and key != "env_options"
            found |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
        return found

    mine, theirs = (flat(to_dict(recipe_config(n))) for n in (name, other))
    return {key: value for key, value in mine.items() if value != theirs[key]}


def test_v3_on_atari_100k_replays_half_as_often_in_the_paper():
    found = differences("dreamer_v3.atari100k_paper", "dreamer_v3.atari100k")
    assert found.pop("train.updates") == (100_000 - 1024) // 8 + 1
    assert found == {"train_ratio": 128}


@pytest.mark.parametrize(
    ("domain", "mode", "steps"), [("proprio", "state", 500_000), ("vision", "image", 1_000_000)]
)
def test_v3_takes_every_action_twice_on_control_in_the_paper(domain, mode, steps):
    config = recipe_config(f"dreamer_v3.dmc_{domain}_paper")
    assert config.env_options == {"obs_mode": mode, "action_repeat": 2}
    assert (config.train_ratio, config.envs) == (512, 16)
    assert config.size == recipe_config("dreamer_v3.size12m").size
    assert config.rows_per_update == 2
    assert config.train.updates == (steps // 2 - 1024) // 2 + 1
    default = recipe_config("dreamer_v3")
    assert config.behaviour == default.behaviour
    assert (config.lr, config.capacity) == (default.lr, default.capacity)


def test_the_state_of_v3_at_12m_is_half_as_wide_in_the_papers_table():
    assert differences("dreamer_v3.size12m_paper", "dreamer_v3.size12m") == {"size.deter": 1024}
    assert recipe_config("dreamer_v3.size12m").size.deter == 2048


def test_v2_of_the_paper_replays_more_rows_at_once_as_often():
    found = differences("dreamer_v2.paper", "dreamer_v2.atari")
    assert found == {"train.batch_size": 50, "train_ratio": 625.0, "discount": 0.995}
    paper, code = recipe_config("dreamer_v2.paper"), recipe_config("dreamer_v2.atari")
    assert paper.sequence == 50
    assert paper.rows_per_update == code.rows_per_update == 4
    assert paper.train.updates == paper.updates_for(50_000_000)


@pytest.mark.parametrize("name", ["planet", "dreamer_v1", "dreamer_v2", "dreamer_v3"])
def test_every_preset_has_a_line_of_its_own(name):
    recipe = RECIPES[name]
    assert recipe.about.keys() == recipe.presets.keys()
    lines = [recipe.summary_of(preset) for preset in recipe.presets]
    assert len(set(lines)) == len(lines)
    assert all(line and len(line) < 90 for line in lines)
