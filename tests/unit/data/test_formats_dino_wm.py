"""DINO-WM folders of tensors: both layouts of frames, the three kinds of lengths, refused files."""

import os
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch

from wm_toolkit.data.convert import convert
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats import find_format, open_reader
from wm_toolkit.errors import DataError

N, T = 3, 6
LENGTHS = [4, 6, 2]


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "states": torch.randn(N, T, 4, generator=generator),
        "actions": torch.rand(N, T, 2, generator=generator) * 2 - 1,
    }


def frames(i, rows=T):
    generator = torch.Generator().manual_seed(i)
    return torch.randint(0, 256, (rows, 8, 10, 3), generator=generator, dtype=torch.uint8)


def save(folder, pictures, **columns):
    (folder / "obses").mkdir(parents=True)
    for name, values in columns.items():
        torch.save(values, folder / f"{name}.pth")
    for i, values in enumerate(pictures):
        torch.save(values, folder / "obses" / f"episode_{i:03d}.pth")
    return folder


def point_maze(folder, **replaced):
    """Frames channel last, lengths as a tensor."""
    columns = {**tensors(), "seq_lengths": torch.tensor(LENGTHS), **replaced}
    kept = {name: values for name, values in columns.items() if values is not None}
    return save(folder / "point_maze", [frames(i) for i in range(N)], **kept)


def wall_single(folder, dtype=torch.uint8):
    """Frames channel first, no lengths, door and wall beside them."""
    where = {
        name: torch.arange(N * T).reshape(N, T) for name in ("door_locations", "wall_locations")
    }
    pictures = [frames(i).permute(0, 3, 1, 2).contiguous().to(dtype) for i in range(N)]
    return save(folder / "wall_single", pictures, **tensors(), **where)


def test_an_episode_has_its_length_and_drops_the_action_without_outcome(tmp_path):
    saved = {name: values.numpy() for name, values in tensors().items()}
    episodes = list(open_reader(point_maze(tmp_path)).episodes())
    assert [len(episode) for episode in episodes] == [3, 5, 1]
    for i, (episode, rows) in enumerate(zip(episodes, LENGTHS, strict=True)):
        np.testing.assert_array_equal(episode.obs["image"], frames(i)[:rows].numpy())
        np.testing.assert_array_equal(episode.obs["proprio"], saved["states"][i, :rows])
        np.testing.assert_array_equal(episode.action, saved["actions"][i, : rows - 1])
        assert episode.reward is None
        assert not episode.terminated.any()
        assert episode.truncated.tolist() == [False] * (rows - 2) + [True]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_frames_that_are_channel_first_are_turned(tmp_path, dtype):
    reader = open_reader(wall_single(tmp_path, dtype))
    assert reader.spaces.observation["image"] == gym.spaces.Box(0, 255, (8, 10, 3), np.uint8)
    for i, episode in enumerate(reader.episodes()):
        np.testing.assert_array_equal(episode.obs["image"], frames(i).numpy())
        assert episode.extras["door_locations"].tolist() == list(range(i * T, i * T + T))
        assert len(episode) == T - 1


@pytest.mark.parametrize("layout", [point_maze, wall_single])
def test_conversion_to_native_is_bit_exact(tmp_path, layout):
    convert(layout(tmp_path), tmp_path / "native.h5")
    native = TrajectoryDataset.load(tmp_path / "native.h5")
    assert native.name == layout.__name__
    for i, (episode, rows) in enumerate(
        zip(native, LENGTHS if layout is point_maze else [T] * N, strict=True)
    ):
        saved = {name: values[i].numpy() for name, values in tensors().items()}
        assert episode.obs["image"].tobytes() == frames(i)[:rows].numpy().tobytes()
        assert episode.obs["proprio"].tobytes() == saved["states"][:rows].tobytes()
        assert episode.action.tobytes() == saved["actions"][: rows - 1].tobytes()


def test_pickled_lengths_are_read(tmp_path):
    folder = point_maze(tmp_path, seq_lengths=None)
    (folder / "seq_lengths.pkl").write_bytes(pickle.dumps(LENGTHS))
    assert [len(episode) for episode in open_reader(folder).episodes()] == [3, 5, 1]


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_lengths_that_want_to_run_code_are_refused(tmp_path):
    folder = point_maze(tmp_path, seq_lengths=None)
    (folder / "seq_lengths.pkl").write_bytes(pickle.dumps([4, 6, Bomb(tmp_path / "made")]))
    with pytest.raises(DataError, match=r"seq_lengths\.pkl: it wants to use .*mkdir"):
        open_reader(folder)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["states", "seq_lengths", "obses/episode_001"])
def test_tensors_that_want_to_run_code_are_refused(tmp_path, name):
    folder = point_maze(tmp_path)
    torch.save({"a": Bomb(tmp_path / "made")}, folder / f"{name}.pth")
    with pytest.raises(DataError, match=rf"{name}\.pth.*: wants to use \S+mkdir, which is refused"):
        list(open_reader(folder).episodes())
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("bad", ["four", None, 2.5, float("nan")])
def test_a_length_that_is_no_number_of_rows_is_named(tmp_path, bad):
    folder = point_maze(tmp_path, seq_lengths=None)
    (folder / "seq_lengths.pkl").write_bytes(pickle.dumps([4, bad, 2]))
    with pytest.raises(DataError, match=rf"seq_lengths\.pkl, episode 1: is {bad!r}"):
        open_reader(folder)


def test_only_the_wanted_frames_are_loaded(tmp_path):
    folder = point_maze(tmp_path)
    (folder / "obses" / "episode_001.pth").unlink()
    assert len(next(iter(open_reader(folder).episodes(2)))) == 1
    with pytest.raises(DataError, match=r"episode_001\.pth, episode 1: .*No such file"):
        list(open_reader(folder).episodes())


def test_folders_of_the_layout_are_recognised(tmp_path):
    found = find_format(point_maze(tmp_path))
    assert found is not None
    assert found[0].name == "dino_wm"
    assert find_format(tmp_path) is None


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"actions": torch.zeros(N, T + 1, 2)}, r"column 'actions': has shape \(3, 7, 2\)"),
        ({"states": torch.zeros(N, T)}, r"column 'states': has shape \(3, 6\)"),
        ({"seq_lengths": torch.tensor([4, 6])}, r"seq_lengths\.pth: holds 2 values, expected 3"),
        ({"seq_lengths": torch.tensor([4, 7, 2])}, r"seq_lengths\.pth, episode 1: is 7"),
        ({"seq_lengths": torch.tensor([4, 6, 1])}, r"seq_lengths\.pth, episode 2: is 1"),
        ({"states": {"a": np.zeros(1)}}, r"states\.pth: wants to use numpy.* is refused"),
        ({"states": [1, 2]}, r"states\.pth: holds a list, expected a tensor"),
        ({"rel_actions": torch.zeros(1)}, "Push-T release, whose frames are mp4"),
    ],
)
def test_a_bad_column_is_named(tmp_path, replaced, message):
    with pytest.raises(DataError, match=message):
        open_reader(point_maze(tmp_path, **replaced))


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (frames(1, 5), "episode 1: has 5 frames, expected 6"),
        (torch.zeros(6, 8, 10, 4), r"episode 1: has shape \(6, 8, 10, 4\)"),
        (torch.full((6, 8, 10, 3), torch.nan), "episode 1, row 0: holds other numbers"),
        (frames(1) / 255 + 0.001, "episode 1, row 0: holds other numbers"),
    ],
)
def test_bad_frames_are_named(tmp_path, pictures, message):
    folder = point_maze(tmp_path)
    torch.save(pictures, folder / "obses" / "episode_001.pth")
    with pytest.raises(DataError, match=rf"episode_001\.pth, column 'image', {message}"):
        list(open_reader(folder).episodes())


def test_nan_in_an_action_is_named_by_the_conversion(tmp_path):
    actions = tensors()["actions"]
    actions[1, 2, 0] = torch.nan
    with pytest.raises(DataError, match="column 'action', episode 1, row 2: nan"):
        convert(point_maze(tmp_path, actions=actions), tmp_path / "native.h5")


def test_damaged_tensors_are_named(tmp_path):
    folder = point_maze(tmp_path)
    path = folder / "obses" / "episode_001.pth"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"episode_001\.pth, episode 1: .*damaged"):
        list(open_reader(folder).episodes())
