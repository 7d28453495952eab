"""Options of the Dreamer recipes that publications and codes differ in, and what cannot be combined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dreamer_toys import CHOICES, small_agent

from wm_toolkit.errors import ConfigError
from wm_toolkit.registry import recipe_config


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("planet.repeat8", {"obs_mode": "image", "action_repeat": 8}),
        ("planet.repeat4", {"obs_mode": "image", "action_repeat": 4}),
        ("dreamer_v1.dmc", {"obs_mode": "image", "action_repeat": 2}),
        ("dreamer_v1.paper", {"obs_mode": "image", "action_repeat": 2}),
        ("dreamer_v2.dmc", {"obs_mode": "image", "action_repeat": 2}),
        (
            "dreamer_v2.atari",
            {"image_size": 64, "grey": True, "sticky": 0.25, "action_repeat": 4},
        ),
        ("dreamer_v3.dmc_proprio", {"obs_mode": "state"}),
        ("dreamer_v3.dmc_vision", {"obs_mode": "image"}),
        ("dreamer_v2.paper", {"image_size": 64, "grey": True, "sticky": 0.25, "action_repeat": 4}),
        ("dreamer_v3.dmc_proprio_paper", {"obs_mode": "state", "action_repeat": 2}),
        ("dreamer_v3.dmc_vision_paper", {"obs_mode": "image", "action_repeat": 2}),
        ("dreamer_v3.atari100k", {}),
    ],
)
def test_a_presets_environment_is_the_published_one(name, options):
    assert recipe_config(name).env_options == options


@pytest.mark.parametrize("repeat", [2, 4, 8])
def test_planets_hundred_updates_follow_an_episode_of_a_thousand_steps(repeat):
    config = recipe_config(f"planet.repeat{repeat}")
    assert config.rows_per_update * config.burst * repeat == 1000
    assert config.prefill * repeat == 5 * 1000
    assert config.env_options["action_repeat"] == repeat


def test_v2_shows_ends_more_often_on_atari_and_trains_first_on_dmc():
    atari, dmc = recipe_config("dreamer_v2.atari"), recipe_config("dreamer_v2.dmc")
    assert (atari.mix.ends, atari.pretrain) == (True, 0)
    assert (dmc.mix.ends, dmc.pretrain) == (False, 100)


def test_updates_on_the_prefill_alone_count_beside_those_that_follow_environment_steps():
    dmc = recipe_config("dreamer_v2.dmc")
    assert dmc.updates_for(1000 + 5 * 20) == 100 + 20 + 1


def test_v1s_random_choices_become_rarer_with_the_updates():
    agent = small_agent("dreamer_v1.discrete", CHOICES)
    found = []
    for updates in (0, 100_000, 200_000, 900_000):
        agent.learner.updates = updates
        found.append(agent.actor.random())
    assert found == pytest.approx([0.4, 0.25, 0.1, 0.1])


def test_v1_for_choices_learns_tanh_rewards_in_short_dreams():
    config = recipe_config("dreamer_v1.discrete")
    assert (config.kl_scale, config.behaviour.horizon, config.tanh_reward) == (0.1, 10, True)
    assert small_agent("dreamer_v1.discrete", CHOICES).model.squash_reward


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("dreamer_v3", "the range of the returns"),
        ("dreamer_v2.dmc", "the mean divergence"),
        ("dreamer_v1", "the mean divergence"),
    ],
)
def test_what_counts_for_a_whole_batch_cannot_be_learnt_in_pieces(name, what):
    with pytest.raises(ConfigError, match=f"accumulation is 2, but {what}"):
        small_agent(name, CHOICES, train__accumulation=2)


@pytest.mark.parametrize("name", ["planet", "dreamer_v2"])
def test_what_counts_state_by_state_may_be_learnt_in_pieces(name):
    assert small_agent(name, CHOICES, train__accumulation=2).learner.accumulation == 2


@pytest.mark.parametrize("settled", ["auto", "mode", "sample"])
def test_v3_decides_by_mode_or_by_a_draw_when_it_does_not_explore(settled):
    torch.manual_seed(0)
    agent = small_agent("dreamer_v3", CHOICES, settled=settled)
    last = agent.model.heads["policy"].net[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.5, 0.3, 0.2]).log()
    obs = {"vector": np.zeros((2000, 3), np.float32)}
    decision, _ = agent.act(obs, agent.initial(2000), is_first=np.ones(2000, bool))
    expected = [1.0, 0.0, 0.0] if settled == "mode" else [0.5, 0.3, 0.2]
    assert decision.action.mean(0).tolist() == pytest.approx(expected, abs=0.05)


def test_v3_takes_the_mode_of_numbers_unless_it_is_told_to_draw():
    for settled, drawn in (("auto", False), ("sample", True)):
        agent = small_agent("dreamer_v3", settled=settled)
        obs = {"vector": np.zeros((8, 3), np.float32)}
        decision, _ = agent.act(obs, agent.initial(8), is_first=np.ones(8, bool))
        assert (decision.action.std(0) > 0.05).all() == drawn
