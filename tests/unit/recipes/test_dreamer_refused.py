"""Settings of the Dreamer recipes that are out of range, said twice, or would be ignored."""

from __future__ import annotations

import re

import pytest
import torch
from dreamer_toys import CHOICES, NUMBERS, small_agent

from wm_toolkit.agents.actor_critic import ActorCritic
from wm_toolkit.agents.behaviour import BehaviourConfig
from wm_toolkit.errors import ConfigError
from wm_toolkit.planning.categorical import CategoricalCEM
from wm_toolkit.planning.cem import CEM
from wm_toolkit.recipes.dreamer_sizes import SIZES, Size
from wm_toolkit.recipes.dreamer_v3 import world_model
from wm_toolkit.registry import recipe_config, recipe_names
from wm_toolkit.spaces import Spaces


def behaviour_of(name: str, spaces: Spaces = NUMBERS, **settings) -> BehaviourConfig:
    program = small_agent(name, spaces, **settings).learner.program
    assert isinstance(program, ActorCritic)
    return program.config


# -- one discount ------------------------------------------------------------------------------------
@pytest.mark.parametrize("horizon", [2, 50, 333])
def test_v3_counts_dreams_and_replayed_rewards_by_the_same_horizon(horizon):
    program = small_agent("dreamer_v3", horizon=horizon).learner.program
    assert program.model.discount == 1 - 1 / horizon
    assert program.config.replay_discount == 1 - 1 / horizon
    assert program.config.discount == 1


def test_the_preprint_counts_replayed_rewards_by_its_factor():
    settings = {"behaviour__replay_value": 0.3, "behaviour__discount": 0.9}
    assert behaviour_of("dreamer_v3.arxiv_v1", **settings).replay_discount == 0.9


def test_a_discount_of_replayed_rewards_that_was_given_counts():
    assert behaviour_of("dreamer_v3", behaviour__replay_discount=0.5).replay_discount == 0.5


def test_nano_need_not_say_its_horizon_twice():
    assert recipe_config("dreamer_v3.nano").behaviour.replay_discount is None
    assert behaviour_of("dreamer_v3.nano").replay_discount == 1 - 1 / 100


def test_an_actor_critic_by_itself_takes_the_discount_of_its_model():
    model = small_agent("dreamer_v3", horizon=20).learner.model
    assert ActorCritic(model).config.replay_discount == 1 - 1 / 20
    assert ActorCritic(model, BehaviourConfig(discount=0.5)).config.replay_discount == 0.475


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"horizon": 0}, "horizon is 0 and behaviour.discount 1.0"),
        ({"behaviour__discount": 0.9}, "horizon is 333 and behaviour.discount 0.9"),
        ({"horizon": 1}, "horizon is 1 and behaviour.discount 1.0"),
    ],
)
def test_v3_refuses_two_discounts_or_none(settings, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        recipe_config("dreamer_v3", **settings)


@pytest.mark.parametrize(
    "name", ["dreamer_v1", "dreamer_v1.discrete", "dreamer_v2", "dreamer_v2.dmc"]
)
def test_the_older_generations_name_the_field_that_is_their_discount(name):
    gamma = recipe_config(name).discount
    with pytest.raises(
        ConfigError, match=rf"behaviour.discount is 0.9, but gamma is .*\.discount.* {gamma}"
    ):
        recipe_config(name, behaviour__discount=0.9)


@pytest.mark.parametrize("name", ["dreamer_v1", "dreamer_v2"])
@pytest.mark.parametrize("ending", [True, False])
def test_the_older_generations_count_by_their_discount_once(name, ending):
    settings = {"discount": 0.9, "predict_ending": ending, "behaviour__start": "predicted"}
    program = small_agent(name, **settings).learner.program
    start = program.model.initial(6)
    if ending:
        chance = torch.full((1, 16), 0.9).logit()
        net = program.model.heads["continue"]
        for p in net.parameters():
            torch.nn.init.zeros_(p)
        net[-1].net[-1].bias.data.fill_(chance[0, 0])
    assert program.dream(start).go_on.flatten().tolist() == pytest.approx([0.9] * 96)
    assert program.config.replay_discount == 0.9


@pytest.mark.parametrize(("field", "value"), [("start", "recorded"), ("go_on", "mode")])
@pytest.mark.parametrize("name", ["dreamer_v2.dmc", "dreamer_v1"])
def test_endings_that_nothing_predicts_cannot_count(name, field, value):
    with pytest.raises(
        ConfigError, match=f"behaviour.{field} is '{value}', but predict_ending is F"
    ):
        recipe_config(name, **{f"behaviour__{field}": value})
    with pytest.raises(ConfigError, match=r"or behaviour.start to 'predicted'"):
        recipe_config("dreamer_v2", predict_ending=False)


def test_v1_leaves_last_states_out_where_it_predicts_endings_unless_told_otherwise():
    found = {
        (ending, said): behaviour_of(
            "dreamer_v1", predict_ending=ending, behaviour__but_last=said
        ).but_last
        for ending in (True, False)
        for said in (None, True, False)
    }
    assert found == {
        (True, None): True, (True, True): True, (True, False): False,
        (False, None): False, (False, True): True, (False, False): False,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["dreamer_v1", "dreamer_v2", "dreamer_v3"])
def test_the_weight_of_the_replayed_value_is_the_one_that_was_given(name):
    assert small_agent(name, behaviour__replay_value=0.125).learner.scales["replay_value"] == 0.125
    assert "replay_value" not in small_agent(name, behaviour__replay_value=0.0).learner.scales


def test_planets_settings_of_the_search_hold_for_choices_too():
    search = CEM(horizon=3, samples=9, elites=4, iterations=2, momentum=0.5, execute="best")
    agent = small_agent("planet", CHOICES, planner=search)
    expected = CategoricalCEM(
        horizon=3, samples=9, elites=4, iterations=2, momentum=0.5, execute="best"
    )
    assert agent.actor.actor.planner == expected


# -- ranges ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("field", "value", "interval"),
    [
        ("lam", 2, "[0, 1]"), ("lam", -0.1, "[0, 1]"), ("discount", -1, "(0, 1]"),
        ("discount", 0, "(0, 1]"), ("mix", 3, "[0, 1]"), ("slow_rate", 5, "[0, 1]"),
        ("slow_every", 0, "[1, inf)"), ("horizon", 0, "[1, inf)"), ("entropy", -1, "[0, inf)"),
        ("slow_pull", -1, "[0, inf)"), ("replay_value", -1, "[0, inf)"),
        ("replay_discount", 1.5, "(0, 1]"), ("lam", float("nan"), "[0, 1]"),
    ],
)  # fmt: skip
def test_the_behaviour_refuses_numbers_out_of_range(field, value, interval):
    said = re.escape(f"BehaviourConfig.{field} is {value}, expected in {interval}")
    with pytest.raises(ConfigError, match=said):
        BehaviourConfig(**{field: value})


@pytest.mark.parametrize(
    ("name", "field", "value", "interval"),
    [
        ("dreamer_v3", "unimix", 2.0, "[0, 1]"), ("dreamer_v3", "unimix", -1.0, "[0, 1]"),
        ("dreamer_v3", "policy_unimix", 1.5, "[0, 1]"), ("dreamer_v3", "horizon", -5, "[0, inf)"),
        ("dreamer_v3", "free_nats", -1.0, "[0, inf)"), ("dreamer_v3", "dynamics", -1.0, "[0, inf)"),
        ("dreamer_v3", "representation", -1.0, "[0, inf)"), ("dreamer_v3", "lr", 0.0, "(0, inf)"),
        ("dreamer_v3", "reconstruction", -1.0, "[0, inf)"), ("dreamer_v3", "warmup", -1, "[0, inf)"),
        ("dreamer_v3", "size.units", 0, "[1, inf)"), ("dreamer_v3", "size.groups", 0, "[1, inf)"),
        ("dreamer_v3", "behaviour.lam", 2.0, "[0, 1]"),
        ("planet", "bits", 0, "[1, 8]"), ("planet", "bits", 9, "[1, 8]"),
        ("planet", "overshooting", 0, "[1, inf)"), ("planet", "random", 1.1, "[0, 1]"),
        ("planet", "reward_scale", -1.0, "[0, inf)"), ("planet", "reward_layers", 0, "[1, inf)"),
        ("dreamer_v2", "kl_balance", 3.0, "[0, 1]"), ("dreamer_v2", "discount", 2.0, "(0, 1]"),
        ("dreamer_v2", "layers", 0, "[1, inf)"), ("dreamer_v2", "unimix", -0.1, "[0, 1]"),
        ("dreamer_v2", "free_nats", -1.0, "[0, inf)"), ("dreamer_v2", "classes", 0, "[1, inf)"),
        ("dreamer_v1", "discount", 0.0, "(0, 1]"), ("dreamer_v1", "actor_layers", 0, "[1, inf)"),
        ("dreamer_v1", "actor_std", 0.0, "(0, inf)"), ("dreamer_v1", "random_last", 2.0, "[0, 1]"),
        ("dreamer_v1", "random_updates", 0, "[1, inf)"), ("dreamer_v1", "noise", -0.1, "[0, inf)"),
    ],
)  # fmt: skip
def test_the_recipes_refuse_numbers_out_of_range(name, field, value, interval):
    said = re.escape(f".{field.rpartition('.')[2]} is {value}, expected in {interval}")
    with pytest.raises(ConfigError, match=said):
        recipe_config(name, **{field: value})


@pytest.mark.parametrize("name", [n for n in recipe_names() if n.startswith(("dreamer", "planet"))])
def test_what_all_recipes_check_is_checked_here_too(name):
    with pytest.raises(ConfigError, match="envs is 0"):
        recipe_config(name, envs=0)


def test_a_state_that_cannot_be_cut_into_blocks_is_refused_before_it_is_built():
    said = "size.deter is 100, expected a multiple of size.groups, which is 8"
    with pytest.raises(ConfigError, match=said):
        recipe_config("dreamer_v3", size__deter=100)
    with pytest.raises(ConfigError, match=said):
        world_model(NUMBERS, Size(100, 8, 3, 1))
    assert recipe_config("dreamer_v3", size__deter=100, size__groups=4).size.deter == 100
    assert recipe_config("dreamer_v3.arxiv_v1", size__deter=100).size.deter == 100  # no blocks
    assert all(size.deter % size.groups == 0 for size in SIZES.values())
