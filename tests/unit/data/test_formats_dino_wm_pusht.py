"""The DINO-WM Push-T release: films, both splits, both kinds of actions, files that do not fit."""

import os
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from film_layouts import decoded, moving_frames, save_tensor, write_film, write_pusht
from film_layouts import write_pusht_split as write_split

from wm_toolkit.data.formats import find_format, open_reader
from wm_toolkit.data.formats.dino_wm_pusht import PushTReader
from wm_toolkit.errors import DataError

TRAIN, VAL = [7, 5, 9], [6]


def tensors(folder):
    names = ("states", "velocities", "rel_actions", "abs_actions")
    return {name: torch.load(folder / f"{name}.pth").numpy() for name in names}


def test_episodes_are_those_of_train_and_then_those_of_val(tmp_path):
    reader = open_reader(write_pusht(tmp_path / "pusht_noise"))
    episodes = list(reader.episodes())
    assert [episode.info["split"] for episode in episodes] == ["train"] * 3 + ["val"]
    place = [("train", i) for i in range(3)] + [("val", 0)]
    for episode, rows, (split, i) in zip(episodes, TRAIN + VAL, place, strict=True):
        saved = tensors(tmp_path / "pusht_noise" / split)
        state = np.concatenate([saved["states"], saved["velocities"]], -1)[i, :rows]
        np.testing.assert_array_equal(episode.obs["image"], moving_frames(rows, i))
        np.testing.assert_array_equal(episode.obs["proprio"], state[:, [0, 1, 5, 6]])
        np.testing.assert_array_equal(episode.extras["state"], state)
        expected = saved["rel_actions"][i, : rows - 1] / np.float32(100)
        np.testing.assert_array_equal(episode.action, expected)
        assert episode.reward is None
        assert not episode.terminated.any()
        assert episode.truncated.tolist() == [False] * (rows - 2) + [True]


@pytest.mark.parametrize("start", [0, 2, 3, 4])
def test_reading_begins_at_any_episode_without_the_films_before(tmp_path, start):
    path = write_pusht(tmp_path / "pusht_noise")
    every = list(open_reader(path).episodes())
    reader = open_reader(path)
    for i in range(min(start, 3)):
        (path / "train/obses" / f"episode_{i:03d}.mp4").unlink()
    found = list(reader.episodes(start))
    assert len(found) == 4 - start
    for one, other in zip(found, every[start:], strict=True):
        np.testing.assert_array_equal(one.obs["image"], other.obs["image"])


def test_one_split_alone_is_read_and_says_which(tmp_path):
    path = write_pusht(tmp_path / "pusht_noise")
    reader = open_reader(path / "val")
    assert len(reader) == 1
    assert reader.metadata["name"] == "pusht_noise_val"
    assert next(iter(reader.episodes())).info == {"split": "val"}
    found = find_format(path)
    assert found is not None
    assert found[0].name == "dino_wm_pusht"


def test_published_statistics_and_units_travel_with_the_data(tmp_path):
    reader = open_reader(write_pusht(tmp_path / "pusht_noise"))
    published = reader.metadata["published_statistics"]
    assert published["action"] == {"mean": [-0.0087, 0.0068], "std": [0.2019, 0.2002]}
    assert published["proprio"]["std"] == [101.1202, 87.0112, 74.84556075, 74.14009094]
    assert len(published["state"]["mean"]) == 7
    assert reader.units["action"] == "100 px from the agent"


def test_the_simulator_is_named_and_takes_the_recorded_state_and_actions(tmp_path):
    pytest.importorskip("gym_pusht")
    import wm_toolkit.envs  # noqa: F401

    reader = open_reader(write_pusht(tmp_path / "pusht_noise", size=(64, 64)))
    about, first = reader.metadata, next(iter(reader.episodes()))
    env = gym.make(about["env"], **about["env_options"]).unwrapped
    obs, _ = env.reset(options={"state": first.extras["state"][0]})
    np.testing.assert_allclose(obs["proprio"], first.obs["proprio"][0], rtol=1e-6)
    assert obs["image"].shape == first.obs["image"].shape[1:]
    # 0.1 s of control covers a part of the way to where the action aims, from the agent's place at rest.
    env.reset(options={"state": [256, 100, 100, 400, 0]})
    moved = env.step(np.array([0.5, 0.0], np.float32))[0]["proprio"][:2] - (256, 100)
    assert 5 < moved[0] < 50
    assert abs(moved[1]) < 1e-3
    env.close()


def test_absolute_actions_are_taken_on_demand_or_if_there_are_no_others(tmp_path):
    path = write_pusht(tmp_path / "pusht_noise")
    asked = PushTReader(path, actions="absolute")
    for split in ("train", "val"):
        (path / split / "rel_actions.pth").unlink()
    for reader in (asked, open_reader(path)):
        expected = tensors_of_absolute(path)[0, :6] / np.float32(100)
        np.testing.assert_array_equal(next(iter(reader.episodes())).action, expected)
        assert reader.units["action"] == "100 px on the board"
        assert "action" not in reader.metadata["published_statistics"]
        assert "env" not in reader.metadata
    with pytest.raises(DataError, match=r"rel_actions\.pth"):
        PushTReader(path, actions="relative")


def tensors_of_absolute(path):
    return torch.load(path / "train" / "abs_actions.pth").numpy()


def test_shapes_of_blocks_are_told(tmp_path):
    path = write_split(tmp_path / "train", [3, 4], shapes=["T", "L"])
    assert [episode.info["shape"] for episode in open_reader(path).episodes()] == ["T", "L"]
    (path / "shapes.pkl").write_bytes(pickle.dumps(["T"]))
    with pytest.raises(DataError, match=r"shapes\.pkl: holds \['T'\], expected 2"):
        open_reader(path)


def test_episodes_beyond_the_thousandth_have_longer_names(tmp_path):
    path = write_split(tmp_path / "train", [2] * 1003, filmed=[0, 1002])
    assert (path / "obses/episode_1002.mp4").exists()
    (last,) = open_reader(path).episodes(1002)
    np.testing.assert_array_equal(last.obs["image"], moving_frames(2, 1002))


def test_a_lossy_film_is_read_as_it_is_decoded_in_order(tmp_path):
    film = {"codec": "libx264", "options": {"bf": "3"}}
    path = write_split(tmp_path / "train", [30, 20], film=film)
    for i, episode in enumerate(open_reader(path).episodes()):
        truth = decoded(path / "obses" / f"episode_{i:03d}.mp4")
        np.testing.assert_array_equal(episode.obs["image"], truth)


def test_a_film_that_is_shorter_than_the_states_is_named(tmp_path):
    path = write_split(tmp_path / "train", [4, 6])
    write_film(path / "obses/episode_001.mp4", moving_frames(5, 1))
    with pytest.raises(
        DataError,
        match=r"episode_001\.mp4, column 'image', episode 1: frame 5: there are 5 frames",
    ):
        list(open_reader(path).episodes())


def test_a_film_of_val_is_named_with_the_number_in_the_whole(tmp_path):
    path = write_pusht(tmp_path / "pusht_noise")
    film = path / "val/obses/episode_000.mp4"
    film.write_bytes(film.read_bytes()[:200])
    with pytest.raises(DataError, match=r"val/obses/episode_000\.mp4, column 'image', episode 3"):
        list(open_reader(path).episodes())


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("velocities", (2, 6, 3), r"velocities\.pth: has shape \(2, 6, 3\), expected \(N, T, 2\)"),
        ("states", (2, 6, 7), r"states\.pth: has shape \(2, 6, 7\), expected \(N, T, 5\)"),
        ("rel_actions", (2, 6), r"rel_actions\.pth: has shape \(2, 6\)"),
        ("rel_actions", (2, 7, 2), r"states\.pth: has N, T = \(2, 6\), the actions have \(2, 7\)"),
        (
            "velocities",
            (3, 6, 2),
            r"velocities\.pth: has N, T = \(3, 6\), the states have \(2, 6\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, name, shape, message):
    path = write_split(tmp_path / "train", [4, 6])
    save_tensor(path / f"{name}.pth", np.zeros(shape))
    with pytest.raises(DataError, match=message):
        open_reader(path)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", ["states", "rel_actions"])
def test_a_split_that_is_not_all_there_is_named_and_never_passed_over(tmp_path, split, name):
    path = write_pusht(tmp_path / "pusht_noise")
    (path / split / f"{name}.pth").unlink()
    with pytest.raises(DataError, match=rf"{split}/{name}\.pth"):
        open_reader(path)


def test_a_missing_tensor_and_lengths_that_want_to_run_code_are_named(tmp_path):
    path = write_split(tmp_path / "train", [4, 6])
    (path / "seq_lengths.pkl").write_bytes(pickle.dumps([4, os.getcwd]))
    with pytest.raises(DataError, match=r"seq_lengths\.pkl: it wants to use .*getcwd"):
        open_reader(path)
    (path / "velocities.pth").unlink()
    with pytest.raises(DataError, match=r"velocities\.pth"):
        open_reader(path)
