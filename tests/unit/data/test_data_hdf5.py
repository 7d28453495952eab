"""The native format: what is written is read back, and a killed writer loses nothing that was finished."""

import hashlib
import signal
import subprocess
import sys

import gymnasium as gym
import h5py
import numpy as np
import pytest

from wm_toolkit.data.columns import ChunkedRows
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats.hdf5 import Hdf5Writer, recover
from wm_toolkit.data.inspect import inspect
from wm_toolkit.data.partial import partial_folder
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.errors import DataError, UnknownNameError
from wm_toolkit.spaces import Spaces

BOX = gym.spaces.Box
SPACES = Spaces(
    {"image": BOX(0, 255, (4, 5, 3), np.uint8), "sensor/angle": BOX(-9, 9, (2,), np.float64)},
    BOX(-1, 1, (2,), np.float32),
)


def episode(seed: int, steps: int = 6, **changes) -> Trajectory:
    rng = np.random.default_rng(seed)
    fields = {
        "obs": {
            "image": rng.integers(0, 256, (steps + 1, 4, 5, 3), dtype=np.uint8),
            "sensor/angle": rng.normal(size=(steps + 1, 2)),
        },
        "action": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "reward": rng.normal(size=steps),
        "terminated": np.zeros(steps, bool),
        "truncated": np.arange(steps) == steps - 1,
        "extras": {"success": rng.random(steps + 1) > 0.5},
        "info": {"seed": seed},
    }
    return Trajectory(**(fields | changes))


def write(path, seeds, **options):
    with Hdf5Writer(path, SPACES, **options) as writer:
        for seed in seeds:
            writer.add_episode(episode(seed, steps=3 + seed))
    return path


def assert_same(have: Trajectory, want: Trajectory) -> None:
    assert have.obs.keys() == want.obs.keys()
    assert dict(have.info) == dict(want.info)
    pairs = [(have.obs[key], want.obs[key]) for key in want.obs]
    pairs += [(have.extras[key], want.extras[key]) for key in want.extras]
    pairs += [
        (getattr(have, n), getattr(want, n))
        for n in ("action", "reward", "terminated", "truncated")
    ]
    for a, b in pairs:
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_episodes_come_back_bit_for_bit(tmp_path):
    data = TrajectoryDataset.load(
        write(
            tmp_path / "a.h5",
            range(4),
            metadata={"source": "test", "licence": "MIT"},
            units={"reward": "m"},
        )
    )
    assert data.episode_lengths.tolist() == [4, 5, 6, 7]
    assert (data.metadata["licence"], data.columns["reward"].unit) == ("MIT", "m")
    assert data.spaces.to_dict() == SPACES.to_dict()
    for seed, stored in enumerate(data):
        assert_same(stored, episode(seed, steps=3 + seed))


def test_rows_hold_the_reward_beside_the_observation_it_arrived_with(tmp_path):
    rows = TrajectoryDataset.load(write(tmp_path / "a.h5", [1])).rows(0)
    want = episode(1, steps=4)
    assert rows["reward"].tolist() == [0.0, *want.reward]
    assert rows["truncated"].tolist() == [False, False, False, False, True]
    np.testing.assert_array_equal(rows["action"], np.concatenate([want.action, np.zeros((1, 2))]))


def test_plain_h5py_reads_the_file_and_columns_are_contiguous(tmp_path):
    path = write(tmp_path / "a.h5", range(3))
    with h5py.File(path) as file:
        image = file["columns/obs/image"]
        assert image.chunks is None
        assert image.id.get_offset() % 8 == 0
        assert file["episode_length"][:].tolist() == [4, 5, 6]
        np.testing.assert_array_equal(image[4:9], episode(1, steps=4).obs["image"])


def test_a_chunked_compressed_file_is_read_too(tmp_path):
    path = write(tmp_path / "a.h5", range(3))
    with h5py.File(path, "a") as file:
        values = file["columns/reward"][:]
        del file["columns/reward"]
        file.create_dataset("columns/reward", data=values, chunks=(2,), compression="gzip")
    data = TrajectoryDataset.load(path)
    assert isinstance(data.columns["reward"].array, ChunkedRows)
    batch = data.windows(3, frame_skip=2, stride=2).gather([0, 0])
    first = episode(1, steps=4).reward  # episode 0 is too short
    np.testing.assert_allclose(batch.reward[1], [0, first[:2].sum(), first[2:].sum()], rtol=1e-6)


def test_appending_keeps_the_old_episodes_and_gives_the_checksum_of_one_go(tmp_path):
    write(tmp_path / "a.h5", range(2), metadata={"source": "first"}, units={"reward": "m"})
    write(tmp_path / "a.h5", range(2, 5), metadata={"env": "second"}, append=True)
    appended, whole = (
        TrajectoryDataset.load(p) for p in (tmp_path / "a.h5", write(tmp_path / "b.h5", range(5)))
    )
    assert appended.checksum == whole.checksum
    assert appended.metadata == {"source": "first", "env": "second"}
    assert appended.columns["reward"].unit == "m"
    assert [e.info["seed"] for e in appended] == [0, 1, 2, 3, 4]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from test_data_hdf5 import SPACES, episode
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
writer = Hdf5Writer(sys.argv[1], SPACES, metadata={"source": "killed"}, append=True)
for seed in range(10, 13):
    writer.add_episode(episode(seed))
# The next episode is cut off in the middle of its bytes.
writer._partial._files["obs/image"].write(b"torn" * 10)
writer._partial._files["obs/image"].flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("way", ["recover", "append"])
def test_a_killed_writer_leaves_the_old_file_whole_and_its_episodes_recoverable(tmp_path, way):
    path = write(tmp_path / "a.h5", range(2))
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    here = __file__.rsplit("/", 1)[0]
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), here], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    if way == "recover":
        assert recover(path) == 3
        seeds = [0, 1, 10, 11, 12]
    else:
        with pytest.raises(DataError, match="3 finished episodes"):
            Hdf5Writer(path, SPACES)
        with Hdf5Writer(path, SPACES, append=True) as writer:
            assert writer.finished == 3
            writer.add_episode(episode(13))
        seeds = [0, 1, 10, 11, 12, 13]
    data = TrajectoryDataset.load(path)
    assert [e.info["seed"] for e in data] == seeds
    for number, seed in enumerate(seeds[2:], 2):
        assert_same(data.episode(number), episode(seed))
    assert not partial_folder(path).exists()
    assert inspect(path).problems == []


def test_what_a_writer_killed_while_assembling_left_is_removed_by_the_next(tmp_path):
    (tmp_path / ".a.h5.abcd1234.tmp").write_bytes(b"half of a large file")
    (tmp_path / ".b.h5.abcd1234.tmp").write_bytes(b"somebody else's")
    write(tmp_path / "a.h5", range(2))
    assert sorted(f.name for f in tmp_path.iterdir()) == [".b.h5.abcd1234.tmp", "a.h5"]


def test_an_episode_whose_bytes_were_lost_ends_the_recovery(tmp_path):
    path = tmp_path / "a.h5"
    writer = Hdf5Writer(path, SPACES)
    for seed in range(3):
        writer.add_episode(episode(seed))
    writer.abandon()
    file = partial_folder(path) / "action.bin"
    raw = bytearray(file.read_bytes())
    raw[-20:] = bytes(20)
    file.write_bytes(raw)
    assert recover(path, target=tmp_path / "b.h5") == 2
    assert not path.exists()
    assert_same(TrajectoryDataset.load(tmp_path / "b.h5").episode(1), episode(1))


def test_an_error_while_recording_keeps_the_finished_episodes(tmp_path):
    def record():
        with Hdf5Writer(tmp_path / "a.h5", SPACES) as writer:
            writer.add_episode(episode(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record()
    assert not (tmp_path / "a.h5").exists()
    assert recover(tmp_path / "a.h5") == 1


def test_two_writers_of_one_file_are_refused(tmp_path):
    with Hdf5Writer(tmp_path / "a.h5", SPACES) as writer:
        writer.add_episode(episode(0))
        with pytest.raises(DataError, match="another writer"):
            Hdf5Writer(tmp_path / "a.h5", SPACES, append=True)


def test_no_episode_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match="no episode was written"):
        Hdf5Writer(tmp_path / "a.h5", SPACES).close()
    assert list(tmp_path.iterdir()) == []


def spoilt(name, index, value):
    values = getattr(episode(0), name).copy()
    values[index] = value
    return {name: values}


BAD_EPISODES = {
    "column 'action', episode 1, row 4: nan": spoilt("action", (4, 1), np.nan),
    "column 'action', episode 1, row 2: inf": spoilt("action", (2, 0), np.inf),
    "column 'action', episode 1, row 3: 1.5 .*outside the action space": spoilt(
        "action", (3, 0), 1.5
    ),
    "column 'reward', episode 1, row 3: nan": spoilt("reward", 2, np.nan),
    "column 'terminated', episode 1, row 3: is true before the episode's last row": spoilt(
        "terminated", 2, True
    ),
    "column 'action', episode 1: has dtype complex128": {"action": np.zeros((6, 2), complex)},
    "column 'obs/sensor/angle', episode 1: is missing": {
        "obs": {"image": episode(0).obs["image"]},
    },
    "column 'obs/image', episode 1: is float32, images are uint8": {
        "obs": episode(0).obs | {"image": np.zeros((7, 4, 5, 3), np.float32)}
    },
    "column 'obs/image', episode 1: has 6 rows, expected 7": {
        "obs": episode(0).obs | {"image": episode(0).obs["image"][:-1]}
    },
    "column 'obs/image', episode 1: rows have shape": {
        "obs": episode(0).obs | {"image": np.zeros((7, 4, 5, 1), np.uint8)}
    },
    "column 'reward', episode 1: has shape": {"reward": np.zeros(5)},
    "column 'truncated', episode 1: has dtype int64, expected bool": {
        "truncated": np.zeros(6, int)
    },
    "column 'action', episode 1: is a reserved name": {"extras": {"action": np.zeros(7)}},
    "episode 1 has columns": {"extras": {}},
}


@pytest.mark.parametrize("message", BAD_EPISODES)
def test_bad_episodes_are_refused_with_column_episode_and_row(tmp_path, message):
    writer = Hdf5Writer(tmp_path / "a.h5", SPACES)
    writer.add_episode(episode(0))
    with pytest.raises(DataError, match=message) as error:
        writer.add_episode(episode(1, **BAD_EPISODES[message]))
    assert "a.h5" in str(error.value)
    writer.close()
    assert len(TrajectoryDataset.load(tmp_path / "a.h5")) == 1


def drop(file, name):
    del file[name]


def edit(file, name, index, value):
    file[name][index] = value


DAMAGE = {
    "column 'action': is missing": lambda f: drop(f, "columns/action"),
    "column 'obs/image': is missing": lambda f: drop(f, "columns/obs/image"),
    "column 'episode_length': is missing": lambda f: drop(f, "episode_length"),
    "the 3 episodes add up to 24": lambda f: edit(f, "episode_length", 1, 14),
    "lacks the attribute 'spaces'": lambda f: f.attrs.pop("spaces"),
    "not a wm_toolkit data set": lambda f: f.attrs.pop("format"),
    "upgrade wm_toolkit": lambda f: f.attrs.modify("version", 99),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_structural_damage_is_found_on_opening_and_by_inspect(tmp_path, message):
    path = write(tmp_path / "a.h5", range(3))
    with h5py.File(path, "a") as file:
        DAMAGE[message](file)
    with pytest.raises(DataError, match=message) as error:
        TrajectoryDataset.load(path)
    assert "a.h5" in str(error.value)
    report = inspect(path)
    assert not report.sound
    assert any(message.split(":")[-1].strip() in str(problem) for problem in report.problems)


def test_a_truncated_file_is_named(tmp_path):
    path = write(tmp_path / "a.h5", range(3))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"a\.h5 cannot be opened .*truncated"):
        TrajectoryDataset.load(path)
    assert "truncated" in str(inspect(path).problems[0])


@pytest.mark.parametrize("part", [b"HEAP", b"SNOD"])
def test_a_file_whose_names_are_damaged_is_named(tmp_path, part):
    path = write(tmp_path / "a.h5", range(3))
    start, *_, end = path.read_bytes().partition(part)
    path.write_bytes(start + b"XXXX" + end.replace(part, b"XXXX"))
    with pytest.raises(DataError, match=r"a\.h5.*damaged"):
        TrajectoryDataset.load(path)
    assert "damaged" in str(inspect(path).problems[0])


def test_an_unknown_name_lists_the_places_that_were_tried(tmp_path, monkeypatch):
    monkeypatch.setenv("WM_TOOLKIT_HOME", str(tmp_path))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write(tmp_path / "datasets" / "two_rooms.h5", [0])
    assert len(TrajectoryDataset.load("two_rooms")) == 1
    with pytest.raises(UnknownNameError, match="Did you mean 'two_rooms'") as error:
        TrajectoryDataset.load("two_room")
    assert str(tmp_path / "datasets" / "two_room.h5") in str(error.value)
