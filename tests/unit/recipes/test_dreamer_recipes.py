"""The Dreamer recipes: published numbers in their presets, every kind of space, frozen models."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from dreamer_toys import WIDTHS, small_agent
from torch import nn

from wm_toolkit.agents.actors import NoisyActor, PlanningActor
from wm_toolkit.batch import Batch
from wm_toolkit.config import from_dict, to_dict
from wm_toolkit.errors import ConfigError, SpaceError
from wm_toolkit.planning.categorical import CategoricalCEM
from wm_toolkit.planning.cem import CEM
from wm_toolkit.registry import RECIPES, recipe_config, recipe_names
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.laprop import LaProp

SEVERAL = {
    "camera": gym.spaces.Box(0, 255, (64, 64, 3), np.uint8),
    "second": gym.spaces.Box(0, 255, (64, 64, 1), np.uint8),
    "joints": gym.spaces.Box(-9, 9, (3,), np.float32),
    "mode": gym.spaces.Discrete(4),
}
VECTOR = {"vector": gym.spaces.Box(-9, 9, (3,), np.float32)}
ACTIONS = {
    "box": gym.spaces.Box(-2, 2, (2,), np.float32),
    "discrete": gym.spaces.Discrete(3),
    "several": gym.spaces.MultiDiscrete([2, 3]),
}
SEARCH = CEM(horizon=2, samples=6, elites=2, iterations=2)


def tiny(name: str, spaces: Spaces, **overrides):
    short = {"planner": SEARCH} if name.startswith("planet") else {"behaviour__horizon": 2}
    return small_agent(name, spaces, **{"train__precision": "no", **short, **overrides})


def batch_of(spaces: Spaces, rows: int = 2, length: int = 4) -> Batch:
    obs = {}
    spaces.action.seed(0)
    for number, (key, space) in enumerate(spaces.observation.items()):
        space.seed(number)
        drawn = np.stack([[space.sample() for _ in range(length)] for _ in range(rows)])
        obs[key] = torch.as_tensor(drawn)
    action = np.stack([[spaces.action.sample() for _ in range(length)] for _ in range(rows)])
    first = torch.zeros(rows, length, dtype=torch.bool)
    first[:, 0] = True
    flags = torch.zeros_like(first)
    reward = torch.randn(rows, length)
    return Batch(obs, spaces.encode_action(action), first, reward, flags, flags)


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("action", ACTIONS)
def test_every_recipe_learns_and_acts_with_several_observations_in_every_action_space(name, action):
    spaces = Spaces(SEVERAL, ACTIONS[action])
    agent, batch = tiny(name, spaces), batch_of(spaces)
    metrics = agent.learn(batch)
    assert {f"loss/{key}" for key in SEVERAL} <= metrics.keys()
    assert all(np.isfinite(float(value)) for value in metrics.values())
    obs = {key: value[:, 0].numpy() for key, value in batch.obs.items()}
    rng = torch.Generator().manual_seed(0)
    for explore in (False, True):
        decision, _ = agent.act(
            obs, agent.initial(2), is_first=np.ones(2, bool), explore=explore, generator=rng
        )
        assert all(spaces.action.contains(a) for a in spaces.decode_action(decision.action))


@pytest.mark.parametrize("name", WIDTHS)
def test_single_bits_are_refused_with_a_way_out(name):
    with pytest.raises(SpaceError, match="MultiDiscrete"):
        tiny(name, Spaces(VECTOR, gym.spaces.MultiBinary(3)))


@pytest.mark.parametrize("name", [n for n in recipe_names() if n.startswith(("dreamer", "planet"))])
def test_a_config_survives_being_written_and_read(name):
    config = recipe_config(name)
    kind = RECIPES[name.partition(".")[0]].config
    assert from_dict(kind, json.loads(json.dumps(to_dict(config)))) == config


def learning_rates(agent) -> dict[float, tuple[float, float | None]]:
    agent.learn(batch_of(agent.spaces))
    groups = agent.learner.state_dict()["optimizer"]["param_groups"]
    return {group["lr"]: (group["eps"], group["max_norm"]) for group in groups}


def test_the_optimisers_of_every_generation_are_the_published_ones():
    spaces = Spaces(VECTOR, ACTIONS["discrete"])
    assert learning_rates(tiny("dreamer_v1", spaces)) == {6e-4: (1e-7, 100.0), 8e-5: (1e-7, 100.0)}
    atari = learning_rates(tiny("dreamer_v2.atari", spaces))
    assert atari == {2e-4: (1e-5, 100.0), 4e-5: (1e-5, 100.0), 1e-4: (1e-5, 100.0)}
    assert learning_rates(tiny("planet", spaces)) == {1e-3: (1e-4, 1000.0)}
    preprint = learning_rates(tiny("dreamer_v3.arxiv_v1", spaces))
    assert preprint == {1e-4: (1e-8, 1000.0), 3e-5: (1e-5, 100.0)}


def test_v3_warms_laprop_up_over_a_thousand_updates():
    agent = tiny("dreamer_v3", Spaces(VECTOR, ACTIONS["box"]))
    first = agent.learn(batch_of(agent.spaces))
    assert float(first["learning_rate"]) == pytest.approx(4e-5 / 1000)
    assert agent.learner.schedule(999) == agent.learner.schedule(10**6) == 1.0
    built = agent.learner._make_optimizer([nn.Parameter(torch.ones(2))])
    assert isinstance(built, LaProp)
    assert built.param_groups[0]["clip"] == 0.3


def test_published_ratios_of_v3_are_presets():
    ratios = {
        name: recipe_config(f"dreamer_v3.{name}").train_ratio
        for name in ("atari", "atari100k", "crafter", "dmc_vision", "dmc_proprio", "procgen")
    }
    assert ratios == {
        "atari": 32, "atari100k": 256, "crafter": 512, "dmc_vision": 256, "dmc_proprio": 1024,
        "procgen": 64,
    }  # fmt: skip
    updates = recipe_config("dreamer_v3.atari100k").train.updates
    assert updates == (100_000 - 1024) // 4 + 1  # four environment steps each, behind the prefill
    assert recipe_config("dreamer_v3.dmc_proprio").size == recipe_config("dreamer_v3.size1m").size
    default = recipe_config("dreamer_v3")
    assert (default.dynamics, default.representation, default.free_nats) == (1.0, 0.1, 1.0)
    assert default.online_queue
    assert default.stored_latents
    assert default.capacity == 5_000_000


def test_updates_follow_the_published_rhythm():
    """Rows between two bursts of updates, from replay ratio, batch and sequence."""
    for name, rows in (
        ("dreamer_v1", 500), ("planet", 250), ("planet.repeat8", 125), ("dreamer_v2.atari", 4),
        ("dreamer_v2.dmc", 5),
    ):  # fmt: skip
        config = recipe_config(name)
        replayed = config.train.batch_size * config.sequence * config.burst
        assert replayed / config.train_ratio == rows, name


def test_planet_plans_from_scratch_for_rewards_alone_and_searches_choices_by_categories():
    config = recipe_config("planet").planner
    assert (config.horizon, config.samples, config.elites, config.iterations) == (12, 1000, 100, 10)
    for action, kind in (("box", CEM), ("discrete", CategoricalCEM)):
        agent = tiny("planet", Spaces(VECTOR, ACTIONS[action]))
        assert isinstance(agent.actor, NoisyActor)
        planning = agent.actor.actor
        assert isinstance(planning, PlanningActor)
        assert isinstance(planning.planner, kind)
        assert not planning.warm_start
        assert planning.objective.gamma == 1.0
        assert planning.objective.bootstrap == "none"
        assert (planning.planner.horizon, planning.planner.samples) == (2, 6)


@pytest.mark.parametrize("name", ["dreamer_v3", "dreamer_v2", "dreamer_v1"])
def test_a_frozen_model_stays_while_its_behaviour_learns(name):
    agent = tiny(name, Spaces(VECTOR, ACTIONS["box"]), frozen_model=True)
    before = {n: p.detach().clone() for n, p in agent.model.named_parameters()}
    for _ in range(2):
        agent.learn(batch_of(agent.spaces))
    moved = {n for n, p in agent.model.named_parameters() if not torch.equal(p, before[n])}
    assert {n.split(".")[1] for n in moved} == {"policy", "value"}
    assert all(n.startswith("heads.") for n in moved)


def test_a_recipe_that_plans_has_no_behaviour_to_train_alone():
    with pytest.raises(ConfigError, match="this recipe plans"):
        tiny("planet", Spaces(VECTOR, ACTIONS["box"]), frozen_model=True)


@pytest.mark.parametrize("name", [*WIDTHS, "dreamer_v3.arxiv_v1"])
def test_a_forward_pass_in_half_precision_is_near_that_in_full(name):
    spaces = Spaces(SEVERAL, ACTIONS["discrete"])
    agent, batch = tiny(name, spaces), batch_of(spaces)
    program, found = agent.learner.program, []
    for half in (False, True):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            found.append(program(batch))
    for term in ("camera", "joints", "mode", "reward"):
        assert found[1][term].dtype == torch.float32
        first = [losses[term][:, 0].detach() for losses in found]  # later rows follow other draws
        torch.testing.assert_close(first[1], first[0], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", WIDTHS)
def test_images_of_any_size_are_seen_and_drawn(name):
    wide = {"image": gym.spaces.Box(0, 255, (48, 80, 3), np.uint8)}
    agent = tiny(name, Spaces(wide, ACTIONS["box"]))
    batch = batch_of(agent.spaces)
    assert np.isfinite(float(agent.learn(batch)["loss/image"]))
    state = agent.model.observe_sequence(batch)
    assert agent.model.predict("decoder", state).picture.uint8.shape == (2, 4, 48, 80, 3)


@pytest.mark.parametrize(
    ("name", "env_steps"),
    [
        ("dreamer_v3", 50_000_000),
        ("dreamer_v3.crafter", 1_000_000),
        ("dreamer_v2", 50_000_000),
        ("dreamer_v2.dmc", 500_000),
        ("dreamer_v2.crafter", 1_000_000),
        ("dreamer_v1", 2_500_000),
        ("planet", 250_000),
    ],
)
def test_published_budgets_are_the_updates_that_the_train_ratio_makes_of_them(name, env_steps):
    config = recipe_config(name)
    assert config.train.updates == config.updates_for(env_steps)
