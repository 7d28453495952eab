"""With the data set at hand, a converted agent takes spaces, statistics and goals from it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from published_dino_wm import ProprioceptiveEmbedding, ViTPredictor, at_their_paths
from safetensors.torch import load_file

from wm_toolkit import Agent
from wm_toolkit.checkpoint import before_loading
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.errors import ConfigError
from wm_toolkit.recipes.published.artefact import Origin
from wm_toolkit.recipes.published.dino_wm import dino_wm_agent, dino_wm_config, read_parts
from wm_toolkit.recipes.published.lewm import convert_lewm
from wm_toolkit.recipes.published.settings import Settings
from wm_toolkit.spaces import Spaces

DATA = Path(__file__).parent / "data"
OBSERVATION = {
    "image": gym.spaces.Box(0, 255, (28, 28, 3), np.uint8),
    "proprio": gym.spaces.Box(-np.inf, np.inf, (4,), np.float32),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Ten short episodes whose actions and proprioception have known statistics."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "pushes.h5"
    action = gym.spaces.Box(-2, 2, (2,), np.float32)
    with Hdf5Writer(path, Spaces(OBSERVATION, action), metadata={"env": "Push-v0"}) as writer:
        for _ in range(10):
            steps = 8
            obs = {
                "image": rng.integers(0, 256, (steps + 1, 28, 28, 3), np.uint8),
                "proprio": rng.normal(5, 3, (steps + 1, 4)).astype(np.float32),
            }
            actions = rng.uniform(-2, 2, (steps, 2)).astype(np.float32)
            ended = np.arange(steps) == steps - 1
            writer.add_episode(Trajectory(obs, actions, None, np.zeros(steps, bool), ended))
    return path


def whole(dataset: Path, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation over the rows of all episodes."""
    episodes = list(TrajectoryDataset.load(dataset))
    values = [e.action if column == "action" else e.obs["proprio"] for e in episodes]
    rows = np.concatenate(values).astype(np.float64)
    return rows.mean(0), rows.std(0)


def test_a_leworldmodel_gets_the_whole_data_sets_statistics(dataset, tmp_path):
    stored = load_file(DATA / "lewm_published.safetensors")
    weights = {n.removeprefix("weights/"): v for n, v in stored.items() if n.startswith("weights/")}
    torch.save(weights, tmp_path / "weights.pt")
    (tmp_path / "config.json").write_text((DATA / "lewm_published.json").read_text())
    convert_lewm(
        tmp_path / "weights.pt",
        tmp_path / "config.json",
        tmp_path / "ours",
        origin=Origin(data=dataset),
    )
    agent = Agent.from_pretrained(tmp_path / "ours")
    mean, std = whole(dataset, "action")
    np.testing.assert_allclose(agent.spaces.mean, mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(agent.spaces.std, std, rtol=1e-6)
    assert agent.spaces.action.high.max() == 2
    assert agent.info["data"]["name"] == "pushes"
    assert agent.info["evaluation"]["env"] == "Push-v0"
    saved = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert saved["converted"].keys() == {"weights.pt", "config.json"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    stored = load_file(DATA / "dino_wm_published.safetensors")
    modules = {
        "predictor": ViTPredictor(404, 2, 6, heads=2, width=3, patches=4, frames=3),
        "action_encoder": ProprioceptiveEmbedding(10, 10),
        "proprio_encoder": ProprioceptiveEmbedding(4, 10),
    }
    for name, module in modules.items():
        own = {n.removeprefix(f"{name}/"): v for n, v in stored.items() if n.startswith(f"{name}/")}
        module.load_state_dict(own)
    path = tmp_path_factory.mktemp("published") / "model_2.pth"
    with at_their_paths():
        torch.save({**modules, "epoch": 2}, path)
    return read_parts(path)


@pytest.fixture
def config(parts):
    settings = {
        "img_size": 32,
        "frameskip": 5,
        "num_hist": 3,
        "encoder": {"name": "dinov2_vits14"},
        "predictor": {"heads": 2},
    }
    config = dino_wm_config(Settings(settings, "hydra.yaml"), parts, encoder_weights="random")
    return dataclasses.replace(config, encoder_block=0)


def test_a_dino_wm_standardises_proprioception_with_the_data(dataset, parts, config):
    with before_loading():
        agent = dino_wm_agent(config, parts, Origin(data=dataset), frame_size=28)
    mean, std = whole(dataset, "proprio")
    np.testing.assert_allclose(agent.model.proprio_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(agent.model.proprio_std, std, rtol=1e-5)
    assert agent.spaces.observation["image"].shape == (28, 28, 3)


def test_data_without_what_the_model_reads_are_refused(dataset, parts, config):
    other = dataclasses.replace(config, observations=("image", "state"))
    with pytest.raises(ConfigError, match="no observation 'state'"):
        dino_wm_agent(other, parts, Origin(data=dataset), frame_size=28)
