"""Which columns a model learns from: stored features that are its encoder's own, frames, or nothing."""

from __future__ import annotations

import types

import gymnasium as gym
import numpy as np
import pytest
import torch

from wm_toolkit.data.columns import Column
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.errors import ConfigError, DataError
from wm_toolkit.spaces import Spaces, space_to_dict
from wm_toolkit.training.config import OfflineConfig
from wm_toolkit.training.inputs import (
    FitInputs,
    learning_columns,
    observation_spaces,
    telling_columns,
)

BOX = gym.spaces.Box
COLUMN = "features/image"
IDENTITY = {
    "encoder": "dinov2",
    "model": "vit_small_patch14_dinov2",
    "weights": "sha256:abc",
    "block": 8,
    "norm": "final",
    "normalisation": "half",
    "resize": "bilinear antialias",
    "resample": "original",
    "image_size": 196,
    "key": "image",
    "dtype": "float16",
}
SPACES = Spaces(
    {
        "image": BOX(0, 255, (4, 4, 3), np.uint8),
        "wrist": BOX(0, 255, (4, 4, 3), np.uint8),
        "proprio": BOX(-np.inf, np.inf, (2,), np.float64),
    },
    BOX(-1, 1, (2,), np.float32),
)


def data_with(identity=None, *, dropped: bool = False) -> TrajectoryDataset:
    """Two episodes of three steps, with features if an identity is given."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(2):
        images = {k: rng.integers(0, 256, (4, 4, 4, 3), np.uint8) for k in ("image", "wrist")}
        obs = {**images, "proprio": rng.normal([3, -5], [2, 0], (4, 2))}
        extras = {"success": np.zeros(4, bool)}
        flags = np.zeros(3, bool), np.arange(3) == 2
        action = rng.uniform(-1, 1, (3, 2)).astype(np.float32)
        episodes.append(Trajectory(obs, action, None, *flags, extras))
    data = TrajectoryDataset.from_trajectories(episodes, SPACES, name="toy")
    if identity is not None:
        data.columns[COLUMN] = Column(COLUMN, np.zeros((8, 2, 3), np.float16))
        data.metadata["features"] = {COLUMN: dict(identity)}
    if dropped:
        del data.columns["obs/image"]
        data.metadata["dropped"] = {"image": space_to_dict(SPACES.observation["image"])}
        data.spaces = SPACES.only(["wrist", "proprio"])
    return data


def agent_that(features="auto", *, needs=IDENTITY, observations=("image", "proprio"), heads=()):
    """A stand-in whose model reads features of `needs`, or none."""
    usable = {} if needs is None else {COLUMN: dict(needs)}
    model = types.SimpleNamespace(stored_features=lambda: usable, heads=dict.fromkeys(heads))
    config = OfflineConfig(observations=observations, features=features)
    return types.SimpleNamespace(config=config, model=model)


@pytest.mark.parametrize("features", ["auto", "stored"])
def test_features_of_the_models_own_encoder_stand_for_the_frames(features):
    found = learning_columns(agent_that(features), data_with(IDENTITY))
    assert found == [COLUMN, "obs/proprio"]


def test_without_stored_features_the_frames_are_read():
    assert learning_columns(agent_that(), data_with()) == ["obs/image", "obs/proprio"]


def test_told_to_encode_frames_stored_features_are_passed_over():
    other = data_with({**IDENTITY, "block": 2})
    assert learning_columns(agent_that("frames"), other) == ["obs/image", "obs/proprio"]


def test_a_decoder_still_needs_the_frames():
    found = learning_columns(agent_that(heads=["decoder"]), data_with(IDENTITY))
    assert found == [COLUMN, "obs/image", "obs/proprio"]


@pytest.mark.parametrize("field", IDENTITY)
@pytest.mark.parametrize("features", ["auto", "stored"])
def test_features_that_differ_in_any_field_are_refused_with_both_values(field, features):
    other = 5 if isinstance(IDENTITY[field], int) else "other"
    message = rf"{COLUMN}.*: {field} is {other!r}, needed {IDENTITY[field]!r}\. Store"
    with pytest.raises(DataError, match=message):
        learning_columns(agent_that(features), data_with({**IDENTITY, field: other}))


@pytest.mark.parametrize("field", IDENTITY)
def test_features_that_do_not_say_a_field_are_refused(field):
    silent = {name: value for name, value in IDENTITY.items() if name != field}
    with pytest.raises(DataError, match=f"{field} is None, needed {IDENTITY[field]!r}"):
        learning_columns(agent_that(), data_with(silent))


def test_every_field_that_differs_is_named_with_the_ways_out():
    stored = {**IDENTITY, "block": 11, "image_size": 98, "flip": True}
    with pytest.raises(DataError) as caught:
        learning_columns(agent_that(), data_with(stored))
    said = str(caught.value)
    for part in (
        "block is 11, needed 8",
        "image_size is 98, needed 196",
        "flip is True, needed None",
        "--encode dinov2_small --encode-set weights=PATH block=8 norm=final normalisation=half "
        "resample=original image_size=196 dtype=float16` (weights: sha256:abc)",
        "features='frames'",
    ):
        assert part in said
    assert "norm is" not in said


def test_a_column_of_unknown_origin_is_refused():
    data = data_with(IDENTITY)
    del data.metadata["features"]
    with pytest.raises(DataError, match="encoder is None, needed 'dinov2'"):
        learning_columns(agent_that(), data)


def test_insisting_on_features_that_are_not_there_names_the_command():
    with pytest.raises(
        DataError, match=rf"no column '{COLUMN}'.*wm convert .* --encode dinov2_small"
    ):
        learning_columns(agent_that("stored"), data_with())


def test_insisting_on_features_of_a_model_that_reads_none_is_a_mistake():
    with pytest.raises(ConfigError, match="SimpleNamespace encodes frames itself; use 'frames'"):
        learning_columns(agent_that("stored", needs=None), data_with(IDENTITY))
    found = learning_columns(agent_that(needs=None), data_with(IDENTITY))
    assert found == ["obs/image", "obs/proprio"]


def test_dropped_frames_can_still_be_learnt_from_through_their_features():
    data = data_with(IDENTITY, dropped=True)
    assert learning_columns(agent_that(), data) == [COLUMN, "obs/proprio"]
    assert observation_spaces(data)["image"] == SPACES.observation["image"]
    for agent in (agent_that("frames"), agent_that(heads=["decoder"]), agent_that(needs=None)):
        with pytest.raises(DataError, match="no frames 'image' any more, they were dropped"):
            learning_columns(agent, data)


def test_a_few_windows_tell_everything_but_frames_and_features_nobody_reads():
    data = data_with(IDENTITY)
    rest = ["obs/proprio", "success"]
    assert sorted(telling_columns(agent_that(), data)) == [COLUMN, *rest]
    assert sorted(telling_columns(agent_that("frames"), data)) == ["obs/image", *rest]
    everything = ["obs/image", "obs/proprio", "obs/wrist", "success"]
    assert sorted(telling_columns(None, data)) == everything


def test_the_model_is_told_the_statistics_of_its_vectors_before_the_first_update_only():
    told, data = [], data_with(IDENTITY)
    model = types.SimpleNamespace(fit_inputs=lambda *given: told.append(given))
    trainer = types.SimpleNamespace(agent=types.SimpleNamespace(model=model), update=0)
    hook = FitInputs(data, [COLUMN, "obs/wrist", "obs/proprio"], batches := [object()])
    hook.before_training(trainer)
    ((statistics, given),) = told
    assert list(statistics) == ["obs/proprio"]
    mean, std = statistics["obs/proprio"]
    proprio = data.columns["obs/proprio"].array
    torch.testing.assert_close(mean, torch.from_numpy(proprio.mean(0)))
    torch.testing.assert_close(std, torch.from_numpy(proprio.std(0)))
    assert given is batches
    trainer.update = 3
    hook.before_training(trainer)
    assert len(told) == 1
