"""Looks at dreams while training: which sequences, when, and what stays behind."""

from __future__ import annotations

import dataclasses
import io
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from dreamer_toys import drifting
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_toys import SPACES, ToySource, toy_agent

from wm_toolkit.batch import Batch
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.envs.two_rooms import TwoRooms
from wm_toolkit.envs.walks import smooth_walks
from wm_toolkit.errors import ConfigError
from wm_toolkit.render.dreams import load_look, look
from wm_toolkit.render.video import gif_bytes, png_bytes
from wm_toolkit.spaces import Spaces
from wm_toolkit.training import dream_hooks
from wm_toolkit.training.config import TrainConfig
from wm_toolkit.training.dream_hooks import DreamReport, held_out_windows, newest_windows
from wm_toolkit.training.experience_config import ExperienceConfig
from wm_toolkit.training.offline import offline_data
from wm_toolkit.training.trainer import Trainer


def replay_of(lengths, *, capacity=1000, terminated=True) -> ReplayBuffer:
    """Two streams of episodes of these lengths; every observation is its row's number in the stream."""
    space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    replay = ReplayBuffer(Spaces({"x": space}, space), capacity=capacity, streams=2, length=2)
    number = 0
    for length in lengths:
        for t in range(length):
            last = np.full(2, t == length - 1)
            replay.add(
                {"x": np.array([[number], [1000 + number]], np.float32)},
                np.zeros((2, 1), np.float32),
                reward=np.full(2, t, np.float32),
                is_first=np.full(2, t == 0),
                terminated=last & terminated,
                truncated=last & (not terminated),
            )
            number += 1
    return replay


def rows_of(batch: Batch) -> list[list[float]]:
    """The real rows of every window."""
    pairs = zip(batch.obs["x"][..., 0], batch.mask, strict=True)
    return [x[kept].tolist() for x, kept in pairs]


@pytest.mark.parametrize("terminated", [True, False])
def test_the_newest_episodes_come_first_and_every_row_once(terminated):
    replay = replay_of([7, 4, 9], terminated=terminated)
    found = rows_of(newest_windows(replay, windows=100, length=5, least=2))
    whole = [row for window in found for row in window]
    assert sorted(whole) == [*range(20), *range(1000, 1020)]
    assert [11.0, 12.0, 13.0, 14.0, 15.0] in found[:2]
    assert [16.0, 17.0, 18.0, 19.0] in found[:4]
    assert {len(window) for window in found} == {5, 4, 2}


def test_windows_of_too_few_rows_are_left_out():
    found = rows_of(newest_windows(replay_of([7]), windows=100, length=5, least=3))
    assert found == [[0, 1, 2, 3, 4], [1000, 1001, 1002, 1003, 1004]]


def test_no_more_windows_than_asked_for_and_none_without_an_episode():
    replay = replay_of([6, 6, 6])
    found = newest_windows(replay, windows=3, length=6, least=6)
    assert sorted(rows_of(found)[:2]) == [list(range(12, 18)), list(range(1012, 1018))]
    assert len(found) == 3
    assert found.is_first[:, 0].all()
    assert found.terminated[:, -1].all()
    assert newest_windows(replay_of([4]), least=6) is None


def test_episodes_that_lost_their_beginning_or_have_no_end_are_not_whole():
    replay = replay_of([8, 6], capacity=24)  # 12 rows of a stream: the first episode lost two
    replay.add(
        {"x": np.full((2, 1), 99, np.float32)},
        np.zeros((2, 1), np.float32),
        reward=np.zeros(2, np.float32),
        is_first=np.ones(2, bool),
        terminated=np.zeros(2, bool),
        truncated=np.zeros(2, bool),
    )
    found = rows_of(newest_windows(replay, length=50, least=2))
    assert sorted(found) == [list(range(8, 14)), list(range(1008, 1014))]


def test_padding_is_marked_and_holds_no_other_episode():
    batch = newest_windows(replay_of([3, 6]), windows=10, length=10, least=3)
    short = batch.mask.sum(1) == 3
    assert short.sum() == 2
    assert (batch.obs["x"][short][:, 2:] == batch.obs["x"][short][:, 2:3]).all()
    assert not batch.is_first[:, 1:].any()


def held_out() -> Batch:
    generator = torch.Generator().manual_seed(1)
    first = torch.zeros(3, 7, dtype=torch.bool)
    first[:, 0] = True
    obs = {"vector": torch.randn(3, 7, 3, generator=generator)}
    return Batch(obs, torch.rand(3, 7, 2, generator=generator), first)


def train(path, hook, updates=5):
    config = TrainConfig(updates=updates, batch_size=4, log_every=100, seed=0)
    trainer = Trainer(toy_agent(), ToySource(), run_dir=path, config=config, hooks=[hook])
    trainer.train()
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_run_logs_its_dreams_and_keeps_the_newest(tmp_path):
    lines = train(tmp_path, DreamReport(held_out(), every=2, context=2))
    looked = [line["update"] for line in lines if "dream/latent_error/1" in line]
    assert looked == [2, 4, 5]
    found = load_look(tmp_path).dreams
    assert found.context == 2
    assert lines[-1]["dream/latent_error/5"] == pytest.approx(found.latent.model[4])


def test_every_strip_is_put_into_tensorboard(tmp_path, monkeypatch):
    drawn = []

    def seen(model, batch, **how):
        drawn.append(np.full((4, 6, 3), 40 * len(drawn), np.uint8))
        strips = {"image": png_bytes(drawn[-1])}
        return dataclasses.replace(
            look(model, batch, **how), strips=strips, films={"image": gif_bytes(drawn[-1][None])}
        )

    monkeypatch.setattr(dream_hooks, "look", seen)
    train(tmp_path, DreamReport(held_out(), every=2, context=2))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    pictures = events.Images("dream/image")
    assert [picture.step for picture in pictures] == [2, 4, 5]
    for picture, frame in zip(pictures, drawn, strict=True):
        found = np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)))
        assert (found == frame).all()


def test_looking_changes_nothing_but_the_log(tmp_path):
    plain = train(tmp_path / "plain", DreamReport(lambda: None))
    looked = train(tmp_path / "looked", DreamReport(held_out, every=1, context=2))
    assert plain[-1]["loss"] == looked[-1]["loss"]
    assert load_look(tmp_path / "plain") is None


def test_sequences_too_short_to_dream_are_passed_over(tmp_path):
    lines = train(tmp_path, DreamReport(held_out(), every=1, context=7))
    assert not any(name.startswith("dream/") for line in lines for name in line)


def test_without_sequences_or_a_replay_the_hook_says_what_it_needs(tmp_path):
    config = TrainConfig(updates=1, batch_size=4)
    trainer = Trainer(toy_agent(), ToySource(), run_dir=tmp_path, config=config)
    with pytest.raises(ConfigError, match="ToySource keeps no replay"):
        DreamReport().before_training(trainer)
    with pytest.raises(ConfigError, match="every is 0"):
        DreamReport(drifting(), every=0)


def test_the_replay_of_the_source_is_found(tmp_path):
    class Replayed(ToySource):
        """Batches of noise, beside a replay that collects."""

        def __init__(self) -> None:
            super().__init__()
            self.replay = ReplayBuffer(SPACES, capacity=100, length=2)
            for t in range(9):
                self.replay.add(
                    {"vector": np.full((1, 3), t, np.float32)},
                    np.zeros((1, 2), np.float32),
                    reward=np.zeros(1, np.float32),
                    is_first=np.array([t == 0]),
                    terminated=np.array([t == 8]),
                    truncated=np.array([False]),
                )

    config = TrainConfig(updates=1, batch_size=4, seed=0)
    hook = DreamReport(context=3)
    Trainer(toy_agent(), Replayed(), run_dir=tmp_path, config=config, hooks=[hook]).train()
    assert len(load_look(tmp_path).dreams.latent.model) == 6


def test_windows_of_a_data_set_are_held_out_ones():
    walks = smooth_walks(0, episodes=20, steps=24)
    spaces = Spaces.of(TwoRooms(obs_mode="both"))
    data = TrajectoryDataset.from_trajectories(walks.trajectories(), spaces, name="walks")
    ready = offline_data(data, ExperienceConfig(observations=("position",)))
    found = held_out_windows(ready)
    assert found.action.shape[:2] == (16, 12)
    held_out = ready.held_out.windows(1).gather(np.arange(ready.held_out.num_rows)).obs["position"]
    rows = {tuple(row) for row in held_out[:, 0].tolist()}
    assert {tuple(row) for row in found.obs["position"].flatten(0, 1).tolist()} <= rows
