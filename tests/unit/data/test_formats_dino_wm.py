"""DINO-WM folders of tensors: both layouts of frames, the three kinds of lengths, refused files."""

import os
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from film_layouts import SIZE, moving_frames, write_deformable, write_point_maze, write_wall_single

from wm_toolkit.data.convert import convert
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats import find_format, open_reader
from wm_toolkit.data.formats.dino_wm import published_split
from wm_toolkit.errors import DataError

N, T, LENGTHS = 3, 6, [4, 6, 2]
CHANNELS, STORED = ["first", "last"], ["tensor", "pickle", None]


def point_maze(folder, **replaced):
    """The folder, with some of its tensors replaced, or removed where they are None."""
    path = write_point_maze(folder / "point_maze")
    for name, values in replaced.items():
        (path / f"{name}.pth").unlink(missing_ok=True)
        if values is not None:
            torch.save(values, path / f"{name}.pth")
    return path


def saved(path, name):
    return torch.load(path / f"{name}.pth").numpy()


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_layout_gives_the_same_episodes(tmp_path, channels, stored, dtype):
    path = write_point_maze(tmp_path / "a", channels=channels, stored_lengths=stored, dtype=dtype)
    lengths = LENGTHS if stored else [T] * N
    states, actions = saved(path, "states"), saved(path, "actions")
    episodes = list(open_reader(path).episodes())
    assert [len(episode) for episode in episodes] == [rows - 1 for rows in lengths]
    for i, (episode, rows) in enumerate(zip(episodes, lengths, strict=True)):
        np.testing.assert_array_equal(episode.obs["image"], moving_frames(T, i)[:rows])
        np.testing.assert_array_equal(episode.obs["proprio"], states[i, :rows])
        np.testing.assert_array_equal(episode.action, actions[i, : rows - 1])
        assert episode.reward is None
        assert not episode.terminated.any()
        assert episode.truncated.tolist() == [False] * (rows - 2) + [True]


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("stored", STORED)
def test_every_layout_of_deformables_gives_the_same_episodes(tmp_path, channels, stored):
    lengths = [4, 5, 2] if stored else [5, 5, 5]
    how = {"channels": channels, "stored_lengths": stored, "lengths": lengths}
    path = write_deformable(tmp_path / "rope", **how)
    particles, actions = saved(path, "states"), saved(path, "actions")
    reader = open_reader(path)
    assert reader.spaces.observation["proprio"].shape == (1,)
    for i, (episode, rows) in enumerate(zip(reader.episodes(), lengths, strict=True)):
        np.testing.assert_array_equal(episode.obs["image"], moving_frames(5, i)[:rows])
        np.testing.assert_array_equal(episode.obs["proprio"], np.zeros((rows, 1)))
        np.testing.assert_array_equal(
            episode.extras["state"], particles[i, :rows].reshape(rows, 28)
        )
        np.testing.assert_array_equal(episode.action, actions[i, : rows - 1])


def test_columns_beside_the_states_become_extras(tmp_path):
    reader = open_reader(write_wall_single(tmp_path / "wall_single"))
    assert reader.spaces.observation["image"] == gym.spaces.Box(0, 255, (*SIZE, 3), np.uint8)
    for i, episode in enumerate(reader.episodes()):
        assert episode.extras["door_locations"].tolist() == [10.0 + i] * T


def test_the_published_split_is_that_of_torch():
    order = torch.utils.data.random_split(
        range(2000), [1800, 200], generator=torch.Generator().manual_seed(42)
    )
    assert set(order[1].indices) == {
        i for i, name in enumerate(published_split(2000)) if name == "val"
    }
    sizes = {count: published_split(count).count("train") for count in (3, 15, 1920)}
    assert sizes == {3: 2, 15: 13, 1920: 1728}  # the share is rounded down


def test_every_episode_says_its_split_and_the_conversion_keeps_it(tmp_path):
    convert(point_maze(tmp_path), tmp_path / "native.h5")
    native = TrajectoryDataset.load(tmp_path / "native.h5")
    assert [about["split"] for about in native.info] == published_split(N)


def test_only_the_wanted_frames_are_loaded(tmp_path):
    path = point_maze(tmp_path)
    (path / "obses" / "episode_001.pth").unlink()
    assert len(next(iter(open_reader(path).episodes(2)))) == 1
    with pytest.raises(DataError, match=r"episode_001\.pth, episode 1: .*No such file"):
        list(open_reader(path).episodes())


def test_folders_are_recognised(tmp_path):
    for write, name in [
        (write_point_maze, "dino_wm"),
        (write_wall_single, "dino_wm"),
        (write_deformable, "dino_wm_deformable"),
    ]:
        found = find_format(write(tmp_path / write.__name__))
        assert found is not None
        assert found[0].name == name
    assert find_format(tmp_path) is None


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_lengths_that_want_to_run_code_are_refused(tmp_path):
    path = point_maze(tmp_path, seq_lengths=None)
    (path / "seq_lengths.pkl").write_bytes(pickle.dumps([4, 6, Bomb(tmp_path / "made")]))
    with pytest.raises(DataError, match=r"seq_lengths\.pkl: it wants to use .*mkdir"):
        open_reader(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["states", "seq_lengths", "obses/episode_001"])
def test_tensors_that_want_to_run_code_are_refused(tmp_path, name):
    path = point_maze(tmp_path)
    torch.save({"a": Bomb(tmp_path / "made")}, path / f"{name}.pth")
    with pytest.raises(DataError, match=rf"{name}\.pth.*: wants to use \S+mkdir, which is refused"):
        list(open_reader(path).episodes())
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("bad", ["four", None, 2.5, float("nan"), True])
def test_a_length_that_is_no_number_of_rows_is_named(tmp_path, bad):
    path = point_maze(tmp_path, seq_lengths=None)
    (path / "seq_lengths.pkl").write_bytes(pickle.dumps([4, bad, 2]))
    with pytest.raises(DataError, match=rf"seq_lengths\.pkl, episode 1: is {bad!r}"):
        open_reader(path)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"actions": torch.zeros(N, T)}, r"column 'actions': has shape \(3, 6\)"),
        ({"actions": torch.zeros(N, T + 1, 2)}, r"column 'states': .* the N, T = \(3, 7\)"),
        ({"states": torch.zeros(N, T)}, r"column 'states': has shape \(3, 6\)"),
        ({"states": torch.zeros(0, T, 4), "actions": torch.zeros(0, T, 2)}, "holds no episode"),
        ({"seq_lengths": torch.tensor([4, 6])}, r"seq_lengths\.pth: holds 2 values, expected 3"),
        ({"seq_lengths": torch.tensor([4, 7, 2])}, r"seq_lengths\.pth, episode 1: is 7"),
        ({"seq_lengths": torch.tensor([4, 6, 1])}, r"seq_lengths\.pth, episode 2: is 1"),
        ({"states": {"a": np.zeros(1)}}, r"states\.pth: wants to use numpy.* is refused"),
        ({"states": [1, 2]}, r"states\.pth: holds a list, expected a tensor"),
        ({"states": torch.zeros(N, T, 4).to_sparse()}, r"states\.pth: cannot be an array: .*parse"),
        (
            {"states": torch.zeros(N, T, 4, dtype=torch.bfloat16)},
            r"states\.pth: cannot be an array: .*BFloat16",
        ),
    ],
)
def test_a_bad_column_is_named(tmp_path, replaced, message):
    with pytest.raises(DataError, match=message):
        open_reader(point_maze(tmp_path, **replaced))


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (torch.zeros(5, 8, 10, 3, dtype=torch.uint8), "episode 1: has 5 frames, expected 6"),
        (torch.zeros(6, 8, 10, 4), r"episode 1: has shape \(6, 8, 10, 4\)"),
        (torch.full((6, 8, 10, 3), torch.nan), "episode 1, row 0: holds other numbers"),
        (torch.full((6, 8, 10, 3), 0.5), "episode 1, row 0: holds other numbers"),
    ],
)
def test_bad_frames_are_named(tmp_path, pictures, message):
    path = point_maze(tmp_path)
    torch.save(pictures, path / "obses" / "episode_001.pth")
    with pytest.raises(DataError, match=rf"episode_001\.pth, column 'image', {message}"):
        list(open_reader(path).episodes())


def test_bad_particles_and_frames_of_deformables_are_named(tmp_path):
    path = write_deformable(tmp_path / "rope")
    torch.save(torch.zeros(2, 8, 10, 3), path / "000002" / "obses.pth")
    with pytest.raises(
        DataError, match=r"000002/obses\.pth, .*episode 2: has 2 frames, expected 5"
    ):
        list(open_reader(path).episodes())
    particles = torch.load(path / "states.pth")
    particles[1, 3, 4, 2] = torch.nan
    torch.save(particles, path / "states.pth")
    with pytest.raises(DataError, match="'states', episode 1, row 3: nan of particle 4"):
        open_reader(path)
    torch.save(particles[:, :, 0], path / "states.pth")
    with pytest.raises(DataError, match=r"'states': has shape \(3, 5, 4\), .*particles"):
        open_reader(path)


def test_nan_in_an_action_is_named_by_the_conversion(tmp_path):
    path = point_maze(tmp_path)
    actions = torch.load(path / "actions.pth")
    actions[1, 2, 0] = torch.nan
    torch.save(actions, path / "actions.pth")
    with pytest.raises(DataError, match="column 'action', episode 1, row 2: nan"):
        convert(path, tmp_path / "native.h5")


def test_damaged_tensors_are_named(tmp_path):
    path = point_maze(tmp_path) / "obses" / "episode_001.pth"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"episode_001\.pth, episode 1: .*damaged"):
        list(open_reader(tmp_path / "point_maze").episodes())


@pytest.mark.parametrize("name", ["obses/episode_001", "states"])
def test_a_flipped_bit_is_noticed(tmp_path, name):
    path = point_maze(tmp_path)
    file = path / f"{name}.pth"
    numbers = torch.load(file).numpy().tobytes()
    data = bytearray(file.read_bytes())
    data[data.index(numbers) + len(numbers) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}\.pth.* is not what was written"):
        list(open_reader(path).episodes())
