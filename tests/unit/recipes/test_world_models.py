"""World Models through the registry: published sizes, and what its stages are."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from wm_toolkit.errors import ConfigError
from wm_toolkit.recipes.world_models import clipping
from wm_toolkit.registry import RECIPES, build, recipe_config
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.stages import train_in_stages

IMAGE = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
CAR = Spaces(
    {"image": IMAGE}, gym.spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32))
)
COVER = Spaces({"image": IMAGE}, gym.spaces.Discrete(3))
SIZES = {
    "car_racing": (CAR, 4_348_547, 422_368, 867),
    "take_cover": (COVER, 4_446_915, 1_678_785, 1_088),
}


def count(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize("preset", SIZES)
def test_vision_memory_and_controller_have_the_published_sizes(preset):
    spaces, vision, memory, controller = SIZES[preset]
    model = build(f"world_models.{preset}", spaces).model
    assert count(*model.vision()) == vision
    assert count(*model.memory()) == memory
    assert count(model.heads["policy"]) == controller
    assert count(model) == vision + memory + controller


def test_a_shared_mixture_is_as_wide_as_the_port_that_has_it():
    # 2 * 5 numbers for each of 32, and 5 weights: (2 * 32 + 1) * 5
    model = build("world_models.car_racing", CAR, shared_mixture=True).model
    assert model.next.net.out_features == (2 * 32 + 1) * 5


def test_published_numbers_stand_in_the_presets():
    car, cover = (recipe_config(f"world_models.{name}") for name in SIZES)
    assert (car.population, car.starts, car.sigma, car.remeasure) == (64, 16, 0.1, 25)
    assert (car.fitness, car.sequence, car.memory_updates, car.rollouts) == (
        "real",
        999,
        4000,
        10_000,
    )
    assert (cover.fitness, cover.temperature, cover.sequence) == ("dream", 1.15, 500)
    assert cover.termination == "likely"
    agent = build("world_models.take_cover", COVER)
    assert agent.model.temperature == 1.15
    assert agent.model.terminal_weight == 10
    assert agent.model.floor == 0.5


def test_only_vision_learns_at_first_and_the_controller_never_by_gradients():
    agent = build("world_models.small", COVER)
    learning = {name.split(".")[0] for name, p in agent.model.named_parameters() if p.requires_grad}
    assert learning == {"encoder", "heads"}
    assert not agent.model.heads["policy"].linear.weight.requires_grad
    assert [stage.name for stage in agent.learner.stages] == ["vision", "memory", "controller"]


def test_of_a_frozen_model_the_controller_alone_is_a_stage():
    agent = build("world_models.small", COVER, frozen_model=True)
    assert [stage.name for stage in agent.learner.stages] == ["controller"]
    assert len(agent.config.stages) == 1
    assert agent.config.before_last == 0
    assert not any(p.requires_grad for p in agent.model.parameters())


def test_stages_say_when_there_is_a_dream_and_when_a_game():
    assert [stage.dreams for stage in recipe_config("world_models.small").stages] == [
        False,
        True,
        True,
    ]
    assert not any(stage.plays for stage in recipe_config("world_models.small").stages)
    assert [stage.plays for stage in recipe_config("world_models").stages] == [False, False, True]


def test_the_recipe_names_the_job_that_trains_it():
    assert RECIPES["world_models"].job is train_in_stages


def test_an_optimiser_cuts_every_element_of_the_gradient():
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = clipping(lambda p: torch.optim.SGD(p, lr=1.0), 1.0)([weight])
    weight.grad = torch.tensor([5.0, -0.5, -7.0])
    optimizer.step()
    assert weight.tolist() == [-1.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"ending": False}, "M must learn endings"),
        ({"vision_updates": 0}, "vision_updates is 0"),
        ({"sticky": 1.0}, "sticky is 1.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, complaint):
    with pytest.raises(ConfigError, match=complaint):
        recipe_config("world_models.small", **fields)


def test_measuring_in_the_real_environment_needs_one():
    agent = build("world_models.small", COVER, fitness="real")
    fitness = agent.learner.stages[-1].learner.fitness
    with pytest.raises(ConfigError, match=r"train with --env, or set evaluation\.env"):
        fitness.open_envs(4)
