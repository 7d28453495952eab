"""CarRacing: frames collected here teach V to see and M to dream on, in a few seconds."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of its generated bindings
    pytest.importorskip("Box2D")
pytest.importorskip("cma")

from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.envs.car_racing import ROAD, CroppedImages, car_racing
from wm_toolkit.envs.two_rooms import TwoRooms
from wm_toolkit.errors import SpaceError
from wm_toolkit.heads.normal import Normal
from wm_toolkit.registry import recipe_config
from wm_toolkit.render.open_loop import observation_errors, open_loop
from wm_toolkit.training.seeding import own_stream
from wm_toolkit.training.stages import ROLLOUTS, train_in_stages

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*pkg_resources"),
]
RECIPE, CAR = "world_models.car_racing", "wm_toolkit/CarRacing-v0"


def test_the_instruments_are_cut_off_and_the_rest_is_64_px():
    env = car_racing()
    seen, _ = env.reset(seed=0)
    assert seen.shape == env.observation_space.shape == (64, 64, 3)
    core: Any = env.unwrapped
    whole = core.render() if env.render_mode else core._render("state_pixels")
    above = whole[:ROAD].reshape(ROAD, 96, 3).mean((0, 1))
    np.testing.assert_allclose(seen.mean((0, 1)), above, atol=1.0)
    env.close()


def test_what_has_fewer_rows_is_not_cropped():
    with pytest.raises(SpaceError, match="at least 84 rows"):
        CroppedImages(TwoRooms(), ROAD)


SIZE = {"depth": 8, "latent": 16, "width": 64, "log_variance": -4.0}
STAGES = {"vision_updates": 150, "vision_batch": 16, "vision_rate": 3e-3}
STAGES |= {"memory_updates": 100, "memory_rate": 1e-2, "sequence": 30}
ROWS = 61  # of every rollout


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """An agent without its controller, and the rollouts [4, 61] it learnt from."""
    run = tmp_path_factory.mktemp("run")
    few = {"rollouts": 4, "rollout_steps": ROWS - 1, "envs": 2}
    config = recipe_config(RECIPE, **few, **SIZE, **STAGES, train__batch_size=8, train__updates=250)
    agent, _ = train_in_stages(RECIPE, config, CAR, run)
    data = TrajectoryDataset.load(run / ROLLOUTS)
    return agent, data.windows(ROWS, spaces=agent.spaces).gather(range(4))


@torch.no_grad()
def test_vision_learns_to_see_its_frames(learnt):
    agent, batch = learnt
    pixels = agent.model.encoder.pixels(batch.obs)
    average = (pixels - pixels.mean((0, 1))).square().sum((-3, -2, -1)).mean()
    with own_stream(0):
        assert agent.model.vision_loss(batch)["reconstruction"].mean() < 0.5 * average


@torch.no_grad()
def test_memory_learns_what_comes_next(learnt):
    agent, batch = learnt
    with own_stream(0):
        z = agent.model.posterior(batch).sample()[:, 1:]
        learnt_loss = agent.model.memory_loss(batch)["transition"].mean()
    constant = Normal(z.mean((0, 1)), z.std((0, 1))).loss(z).mean() / agent.model.latent
    assert learnt_loss < constant - 0.2


def test_the_camera_flies_down_in_a_dream_too(learnt):
    agent, batch = learnt
    error = observation_errors(agent.model, open_loop(agent.model, batch, context=15))["image"]
    assert error.model[19] < 0.5 * error.copy[19], "the last frame stays"


def test_an_unevolved_controller_goes_straight_on(learnt):
    agent, batch = learnt
    state = agent.model.observe_sequence(batch)[:, -1]
    decision, _ = agent.actor.act(state, {}, None, is_first=torch.ones(4, dtype=torch.bool))
    raw = agent.spaces.decode_action(decision.action)
    np.testing.assert_allclose(raw, [[0, 0.5, 0]] * 4, atol=1e-6)
