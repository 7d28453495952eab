"""What is said once for every recipe that learns from rewards: ratio, steps, updates, saved and read."""

from __future__ import annotations

import json

import pytest

from wm_toolkit.config import from_dict, override, to_dict
from wm_toolkit.data.samplers import Mix
from wm_toolkit.errors import ConfigError
from wm_toolkit.training.config import ReturnConfig, TrainConfig
from wm_toolkit.training.experience_config import ExperienceConfig

BASE = ExperienceConfig(
    sequence=64, train_ratio=512.0, prefill=1000, train=TrainConfig(batch_size=16)
)


def test_it_is_read_as_it_was_saved():
    config = override(BASE, {"mix": Mix(0.5, 0.5, 0.0), "env_options": {"image_size": 64}})
    assert from_dict(ExperienceConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert isinstance(config.evaluation, ReturnConfig)
    assert config.window == 64


def test_the_ratio_decides_the_rows_between_two_updates():
    assert BASE.rows_per_update == 2.0
    assert "every 2 environment steps (0.5 updates per environment step)" in BASE.ratio_text()


def test_a_repeated_action_is_counted_in_steps_of_the_simulator_too():
    assert "0.5 updates per environment step, 0.125 per simulator step" in BASE.ratio_text(4)
    assert "; 100 updates in one go" in override(BASE, {"burst": 100}).ratio_text()


@pytest.mark.parametrize(
    ("env_steps", "updates"), [(1001, 1), (1002, 2), (1100, 51), (21_000, 10_001)]
)
def test_environment_steps_come_to_updates_behind_the_prefill(env_steps, updates):
    assert BASE.updates_for(env_steps) == updates
    # The last update comes when all those rows are there, none too many.
    rows = BASE.prefill + (updates - 1) * BASE.rows_per_update
    assert rows <= env_steps < rows + BASE.rows_per_update


@pytest.mark.parametrize("env_steps", [1001, 1040, 1041, 5000])
def test_updates_of_a_burst_come_together(env_steps):
    updates = override(BASE, {"burst": 20}).updates_for(env_steps)
    rows = BASE.prefill + (updates - 20) * BASE.rows_per_update
    assert updates % 20 == 0
    assert rows <= env_steps < rows + 20 * BASE.rows_per_update


def test_recorded_episodes_take_the_place_of_the_prefill():
    assert BASE.updates_for(1000, recorded=True) == 501


def test_steps_that_the_prefill_takes_are_refused():
    with pytest.raises(ConfigError, match="no more than the prefill of 1,000"):
        BASE.updates_for(1000)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sequence", 0),
        ("envs", 0),
        ("burst", 0),
        ("train_ratio", 0.0),
        ("prefill", -1),
        ("memory", 0),
    ],
)
def test_numbers_out_of_range_are_named(field, value):
    with pytest.raises(ConfigError, match=rf"{field} (is )?{value}"):
        override(BASE, {field: value})


def test_a_protocol_without_episodes_or_budget_is_refused():
    for field in ("episodes", "budget", "group"):
        with pytest.raises(ConfigError, match=f"{field} is 0"):
            ReturnConfig(**{field: 0})
