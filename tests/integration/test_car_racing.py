"""CarRacing: frames collected here teach V and M for a few updates, and M dreams on."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of its generated bindings
    pytest.importorskip("Box2D")
pytest.importorskip("cma")

import gymnasium as gym

from wm_toolkit.envs.car_racing import ROAD, CroppedImages, car_racing
from wm_toolkit.envs.two_rooms import TwoRooms
from wm_toolkit.errors import SpaceError
from wm_toolkit.registry import recipe_config
from wm_toolkit.training.stages import train_in_stages

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*pkg_resources"),
]
CAR = "wm_toolkit/CarRacing-v0"


def test_the_instruments_are_cut_off_and_the_rest_is_64_px():
    env = car_racing()
    seen, _ = env.reset(seed=0)
    assert seen.shape == env.observation_space.shape == (64, 64, 3)
    whole = env.unwrapped.render() if env.render_mode else env.unwrapped._render("state_pixels")
    above = whole[:ROAD].reshape(ROAD, 96, 3).mean((0, 1))
    np.testing.assert_allclose(seen.mean((0, 1)), above, atol=1.0)
    env.close()


def test_what_has_fewer_rows_is_not_cropped():
    with pytest.raises(SpaceError, match="at least 84 rows"):
        CroppedImages(TwoRooms(), ROAD)


def test_vision_and_memory_learn_from_its_frames_and_dream(tmp_path):
    config = recipe_config(
        "world_models.car_racing",
        rollouts=2,
        rollout_steps=25,
        envs=1,
        depth=4,
        width=16,
        vision_updates=8,
        vision_batch=8,
        memory_updates=8,
        sequence=12,
        train__batch_size=2,
        train__updates=16,
        train__log_every=1,
    )
    agent, _ = train_in_stages("world_models.car_racing", config, CAR, tmp_path)
    lines = [
        line for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if "loss/" in line
    ]
    assert len(lines) == 16
    rng = torch.Generator().manual_seed(0)
    frames = torch.from_numpy(np.asarray(_frames(tmp_path)))
    state = agent.model.observe(
        agent.model.initial(2), torch.zeros(2, 3), {"image": frames}, generator=rng
    )
    with torch.no_grad():
        dreamt = agent.model.rollout(state, torch.zeros(2, 1, 5, 3), generator=rng)
        pictures = agent.model.predict("decoder", dreamt).uint8
    assert pictures.shape == (2, 1, 5, 64, 64, 3)
    assert pictures.float().std() > 0
    assert (dreamt.z[:, 0, 1:] != dreamt.z[:, 0, :-1]).any()
    decision = agent.actor.act(state, {}, None, is_first=torch.ones(2, dtype=torch.bool))[0]
    raw = agent.spaces.decode_action(decision.action)
    np.testing.assert_allclose(
        raw, [[0, 0.5, 0]] * 2, atol=1e-6
    )  # a controller that was not evolved
    assert isinstance(agent.spaces.action, gym.spaces.Box)


def _frames(run) -> np.ndarray:
    from wm_toolkit.data.dataset import TrajectoryDataset

    data = TrajectoryDataset.load(run / "rollouts.h5")
    return data.columns["obs/image"].array[data.episode_starts]
