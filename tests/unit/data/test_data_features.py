"""Stored features: what the encoder makes of each frame, once, with its identity, whatever interrupts it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from wm_toolkit.data import features as features_module
from wm_toolkit.data import partial as partial_module
from wm_toolkit.data.convert import convert
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.features import EncodedReader, dropped_spaces, encode_features
from wm_toolkit.data.formats import open_reader
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.data.inspect import inspect
from wm_toolkit.data.native import open_native, write_file
from wm_toolkit.data.partial import partial_folder
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.encoders.dinov2 import Tokens
from wm_toolkit.errors import ConfigError, DataError
from wm_toolkit.spaces import Spaces

BOX = gym.spaces.Box
SPACES = Spaces(
    {"image": BOX(0, 255, (4, 6, 3), np.uint8), "place": BOX(-9, 9, (2,), np.float32)},
    BOX(-1, 1, (2,), np.float32),
)
COLUMN = "features/image"
STEPS = (3, 5, 2, 4)


class Halves:
    """Two tokens, left and right half of a frame: the mean of each channel, to the power of two."""

    patches, width, device = 2, 3, torch.device("cpu")

    def __init__(self, **identity: Any) -> None:
        self.identity = {"encoder": "halves", "weights": "none", "block": 1} | identity
        self.frames = 0

    def __call__(self, images: Tensor, /) -> Tokens:
        self.frames += len(images)
        halves = torch.stack(images.float().split(3, -2), -4).mean((-3, -2)) ** 2 / 255
        return Tokens(halves, halves.mean(-2))


def episode(seed: int, steps: int) -> Trajectory:
    rng = np.random.default_rng(seed)
    return Trajectory(
        {
            "image": rng.integers(0, 256, (steps + 1, 4, 6, 3), np.uint8),
            "place": rng.normal(size=(steps + 1, 2)).astype(np.float32),
        },
        rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        rng.normal(size=steps),
        np.zeros(steps, bool),
        np.arange(steps) == steps - 1,
        info={"seed": seed},
    )


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    with Hdf5Writer(tmp_path / "a.h5", SPACES, metadata={"licence": "MIT"}) as writer:
        for seed, steps in enumerate(STEPS):
            writer.add_episode(episode(seed, steps))
    return tmp_path / "a.h5"


def expected(frames: np.ndarray) -> np.ndarray:
    """Halves by numpy, [n, 2, 3] float16."""
    left, right = frames[:, :, :3], frames[:, :, 3:]
    means = np.stack([half.astype(np.float64).mean((1, 2)) for half in (left, right)], 1)
    return (means**2 / 255).astype(np.float16)


def stop_after(episodes: int):
    def progress(done: int, total: int) -> None:
        if done == episodes:
            raise KeyboardInterrupt

    return progress


def test_every_row_holds_the_features_of_its_frame_and_all_else_is_copied(source, tmp_path):
    path = encode_features(source, Halves(), tmp_path / "b.h5")
    before, after = TrajectoryDataset.load(source), TrajectoryDataset.load(path)
    stored = after.columns[COLUMN].array
    assert (stored.dtype, stored.shape) == (np.float16, (sum(STEPS) + len(STEPS), 2, 3))
    want = expected(before.columns["obs/image"].array)
    np.testing.assert_allclose(stored.astype(float), want.astype(float), rtol=1e-3)
    for name, column in before.columns.items():
        np.testing.assert_array_equal(after.columns[name].array, column.array)
    assert after.spaces.to_dict() == before.spaces.to_dict()
    assert after.info == before.info
    assert inspect(path).problems == []


def test_the_metadata_says_whose_features_they_are(source, tmp_path):
    path = encode_features(source, Halves(block=4), tmp_path / "b.h5")
    identity = {"encoder": "halves", "weights": "none", "block": 4}
    about = TrajectoryDataset.load(path).metadata
    assert about["features"] == {COLUMN: identity | {"key": "image", "dtype": "float16"}}
    assert about["licence"] == "MIT"
    report = inspect(path).columns[COLUMN]
    assert report["identity"] == about["features"][COLUMN]
    stored = TrajectoryDataset.load(path).columns[COLUMN].array.astype(float)
    assert report["mean"] == pytest.approx(stored.mean())
    assert report["max"] == stored.max()


def test_windows_hand_the_features_on_as_they_lie_in_the_file(source, tmp_path):
    data = TrajectoryDataset.load(encode_features(source, Halves(), tmp_path / "b.h5"))
    windows = data.windows(2, frame_skip=2)
    batch = windows.gather([0, 3, 4], keys=["obs/place", COLUMN])
    assert list(batch.obs) == ["place"]
    found = batch.extras[COLUMN]
    assert found.dtype == torch.float16
    want = data.columns[COLUMN].array[windows.rows([0, 3, 4])]
    assert found.equal(torch.from_numpy(want.copy()))
    unasked = windows.gather([0])
    assert COLUMN not in unasked.extras
    assert sorted(unasked.obs) == ["image", "place"]


def test_an_interrupted_encoding_goes_on_and_encodes_no_finished_episode_again(source, tmp_path):
    whole = encode_features(source, Halves(), tmp_path / "whole.h5")
    first, second, target = Halves(), Halves(), tmp_path / "b.h5"
    with pytest.raises(KeyboardInterrupt):
        encode_features(source, first, target, progress=stop_after(2))
    assert not target.exists()
    encode_features(source, second, target)
    rows = [steps + 1 for steps in STEPS]
    assert (first.frames, second.frames) == (sum(rows[:2]), sum(rows[2:]))
    assert TrajectoryDataset.load(target).checksum == TrajectoryDataset.load(whole).checksum
    assert not partial_folder(target).exists()


def test_a_killed_process_leaves_its_finished_episodes(source, tmp_path):
    target, encoder = tmp_path / "b.h5", Halves()

    def die(done: int, total: int) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        encode_features(source, encoder, target, progress=die)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    encode_features(source, encoder, target)
    assert encoder.frames == STEPS[3] + 1
    whole = encode_features(source, Halves(), tmp_path / "whole.h5")
    assert TrajectoryDataset.load(target).checksum == TrajectoryDataset.load(whole).checksum


def test_unfinished_work_of_another_encoder_or_source_is_not_mixed_in(source, tmp_path):
    target = tmp_path / "b.h5"
    with pytest.raises(KeyboardInterrupt):
        encode_features(source, Halves(), target, progress=stop_after(1))
    with pytest.raises(DataError, match=r"'block': 1.*'block': 7.*is in the way"):
        encode_features(source, Halves(block=7), target)
    with pytest.raises(DataError, match="is in the way"):
        encode_features(source, Halves(), target, dtype="float32")
    other = tmp_path / "c.h5"
    with Hdf5Writer(other, SPACES) as writer:
        for seed in range(4):
            writer.add_episode(episode(seed + 9, 3))
    shutil.move(other, source)  # the same name, other content
    with pytest.raises(DataError, match=r"'checksum': .* is in the way"):
        encode_features(source, Halves(), target)


def test_a_data_set_that_exists_is_not_overwritten(source, tmp_path):
    encode_features(source, Halves(), tmp_path / "b.h5")
    encoder = Halves()
    with pytest.raises(DataError, match=r"b\.h5 exists"):
        encode_features(source, encoder, tmp_path / "b.h5")
    assert encoder.frames == 0


def test_long_episodes_are_encoded_a_few_rows_at_a_time(source, tmp_path, monkeypatch):
    passes = []

    class Watched(Halves):
        def __call__(self, images: Tensor, /) -> Tokens:
            passes.append(len(images))
            return super().__call__(images)

    monkeypatch.setattr(features_module, "PASS_BYTES", 2 * (4 * 6 * 3 + 4 * 2 * 3))
    few = encode_features(source, Watched(), tmp_path / "b.h5")
    assert passes == [2, 2, 2, 2, 2, 2, 1, 2, 2, 1]
    many = encode_features(source, Halves(), tmp_path / "c.h5")
    assert TrajectoryDataset.load(few).checksum == TrajectoryDataset.load(many).checksum


def test_features_can_be_kept_in_full_precision(source, tmp_path):
    path = encode_features(source, Halves(), tmp_path / "b.h5", dtype="float32")
    data = TrajectoryDataset.load(path)
    assert data.columns[COLUMN].dtype == np.float32
    frames = torch.from_numpy(np.array(data.columns["obs/image"].array))
    np.testing.assert_array_equal(data.columns[COLUMN].array, Halves()(frames).patches)


def test_encoding_again_replaces_the_features(source, tmp_path):
    first = encode_features(source, Halves(), tmp_path / "b.h5")
    again = TrajectoryDataset.load(encode_features(first, Halves(block=2), tmp_path / "c.h5"))
    assert list(again.columns).count(COLUMN) == 1
    assert again.metadata["features"][COLUMN]["block"] == 2


def test_some_episodes_of_an_opened_data_set_are_encoded_alone(source, tmp_path):
    data, encoder = TrajectoryDataset.load(source), Halves()
    path = encode_features(data.select([3, 1]), encoder, tmp_path / "b.h5")
    assert encoder.frames == STEPS[3] + STEPS[1] + 2
    found = TrajectoryDataset.load(path)
    assert [info["seed"] for info in found.info] == [3, 1]
    np.testing.assert_array_equal(found.episode(0).obs["image"], data.episode(3).obs["image"])


def test_dropped_frames_leave_their_space_behind(source, tmp_path):
    path = encode_features(source, Halves(), tmp_path / "b.h5", drop_frames=True)
    data = TrajectoryDataset.load(path)
    assert "obs/image" not in data.columns
    assert list(data.spaces.observation) == ["place"]
    assert dropped_spaces(data.metadata) == {"image": SPACES.observation["image"]}
    whole = TrajectoryDataset.load(encode_features(source, Halves(), tmp_path / "c.h5"))
    np.testing.assert_array_equal(data.columns[COLUMN].array, whole.columns[COLUMN].array)
    assert inspect(path).problems == []
    with pytest.raises(DataError, match="its frames 'image' were dropped"):
        encode_features(path, Halves(), tmp_path / "d.h5")


@pytest.mark.parametrize("storage", ["minari", "minari-arrow"])
def test_features_travel_through_minari_and_back_exactly(source, tmp_path, storage):
    path = encode_features(source, Halves(), tmp_path / "b.h5")
    convert(path, "toy/walk-v0", format=storage)
    back = TrajectoryDataset.load(convert("toy/walk-v0", tmp_path / "c.h5"))
    assert back.checksum == TrajectoryDataset.load(path).checksum
    assert back.metadata["features"] == TrajectoryDataset.load(path).metadata["features"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("imgae", r"a\.h5 has no observation 'imgae' to encode\. Did you mean 'image'"),
        ("place", r"observation 'place' is Box.*frames are uint8 \[h, w, 3\]"),
    ],
)
def test_a_source_without_such_frames_is_refused(source, tmp_path, key, message):
    with pytest.raises(DataError, match=message):
        encode_features(source, Halves(), tmp_path / "b.h5", key=key)


def test_an_unknown_type_of_number_is_refused(source):
    with pytest.raises(ConfigError, match=r"dtype is 'float8'.*float16 or float32"):
        EncodedReader(source, Halves(), dtype="float8")


def test_a_token_too_large_for_half_precision_is_named_with_the_way_out(source, tmp_path):
    class Loud(Halves):
        def __call__(self, images: Tensor, /) -> Tokens:
            tokens = super().__call__(images)
            loud = torch.where(images[:, 0, 0, 0] == loudest, 1e5, 1.0)
            return tokens.map(lambda x: x * loud.reshape(-1, *[1] * (x.ndim - 1)))

    loudest = int(episode(1, 5).obs["image"][4, 0, 0, 0])
    with pytest.raises(DataError, match=r"'features/image', episode \d, row \d: .*dtype=float32"):
        encode_features(source, Loud(), tmp_path / "b.h5")
    encode_features(source, Loud(), tmp_path / "c.h5", dtype="float32")


def test_how_much_it_will_take_is_said_before(source, tmp_path, caplog):
    with caplog.at_level("INFO", logger="wm_toolkit"):
        encode_features(source, Halves(), tmp_path / "b.h5")
    assert "features/image: 18 rows x 2 patches x 3 float16 numbers = 0.0 MB" in caplog.text
    reader = EncodedReader(source, Halves())
    rows, row = sum(STEPS) + len(STEPS), 4 * 6 * 3 + 4 * 2 + 4 * 2 + 8 + 1 + 1 + 2 * 3 * 2
    assert reader.nbytes() == rows * row
    assert EncodedReader(source, Halves(), drop_frames=True).nbytes() == rows * (row - 72)


def test_a_source_that_does_not_know_its_rows_is_estimated(source, tmp_path):
    convert(source, "toy/walk-v0")
    reader = EncodedReader(open_reader("toy/walk-v0"), Halves())
    assert "about 16 rows" in reader.describe()  # four episodes like the first


def test_a_disk_that_is_too_small_is_refused_before_any_work(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(features_module.shutil, "disk_usage", lambda _: usage)
    encoder = Halves()
    with pytest.raises(DataError, match=r"new/b\.h5 needs .* GB of disk .* has 0\.00 GB left"):
        encode_features(source, encoder, tmp_path / "new" / "b.h5")
    assert encoder.frames == 0


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_says_so_and_loses_nothing_finished(source, tmp_path, monkeypatch):
    target = tmp_path / "b.h5"
    append, calls = partial_module.Partial.append, []

    def tight(self, rows, info):
        calls.append(1)
        if len(calls) == 3:
            full_disk()
        append(self, rows, info)

    monkeypatch.setattr(partial_module.Partial, "append", tight)
    with pytest.raises(DataError, match=r"the disk is full .* after 2 of 4 episodes.*goes on"):
        encode_features(source, Halves(), target)
    encoder = Halves()
    encode_features(source, encoder, target)
    assert encoder.frames == sum(steps + 1 for steps in STEPS[2:])


def full_when_closed(*_: Any, **__: Any) -> None:
    raise RuntimeError("Can't decrement id ref count (unable to extend file properly, errno = 28)")


@pytest.mark.parametrize("write", [full_disk, full_when_closed])
def test_a_disk_that_fills_up_while_the_file_is_put_together_loses_nothing(
    source, tmp_path, monkeypatch, write
):
    target = tmp_path / "b.h5"
    with monkeypatch.context() as patch:
        patch.setattr("wm_toolkit.data.formats.hdf5.write_file", write)
        with pytest.raises(DataError, match=r"the disk is full .* after 4 of 4 episodes"):
            encode_features(source, Halves(), target)
    encoder = Halves()
    encode_features(source, encoder, target)
    assert encoder.frames == 0
    assert inspect(target).sound


def test_a_fault_that_is_not_the_disks_is_not_called_one(source, tmp_path, monkeypatch):
    def fault(*_: Any, **__: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr("wm_toolkit.data.formats.hdf5.write_file", fault)
    with pytest.raises(RuntimeError, match="something else"):
        encode_features(source, Halves(), tmp_path / "b.h5")


def test_statistics_leave_features_out_unless_asked_for(source, tmp_path):
    data = TrajectoryDataset.load(encode_features(source, Halves(), tmp_path / "b.h5"))
    assert COLUMN not in data.statistics()
    assert "obs/image" in data.statistics()
    stored = data.columns[COLUMN].array.astype(float)
    np.testing.assert_allclose(data.statistics([COLUMN])[COLUMN].mean, stored.mean(0))


def test_asked_for_one_column_the_others_are_not_read_and_each_is_kept(source):
    data = TrajectoryDataset.load(source)
    image = data.columns.pop("obs/image")
    assert list(data.statistics(["action"])) == ["action"]
    data.columns["obs/image"] = image
    data.statistics(["obs/image"])
    saved = json.loads(source.with_name("a.h5.statistics.json").read_text())
    assert sorted(saved[data.fingerprint]) == ["action", "obs/image"]
    with pytest.raises(DataError, match=r"no column 'actoin' of numbers\. Did you mean 'action'"):
        data.statistics(["actoin"])


def damage(path, target, change):
    """A native file with other columns or metadata."""
    data = open_native(path)
    columns = {name: np.array(column.array) for name, column in data.columns.items()}
    metadata = dict(data.metadata)
    change(columns, metadata)
    about = {"metadata": metadata, "units": {}, "descriptions": {}}
    episodes = [{"rows": int(rows), "info": {}} for rows in data.episode_lengths]
    parts = {name: [values] for name, values in columns.items()}
    write_file(target, parts, episodes, spaces=data.spaces, **about)
    return [str(problem) for problem in inspect(target).problems]


def test_inspect_finds_what_is_wrong_with_features(source, tmp_path):
    path = encode_features(source, Halves(), tmp_path / "b.h5")

    def spoil(columns, metadata):
        columns[COLUMN][4 + 2, 1, 0] = np.nan

    def lose(columns, metadata):
        del columns[COLUMN]

    def widen(columns, metadata):
        columns[COLUMN] = columns[COLUMN].astype(np.float32)

    (found,) = damage(path, tmp_path / "c.h5", spoil)
    assert f"column {COLUMN!r}, episode 1, row 2: nan component (1, 0)" in found
    found = damage(path, tmp_path / "d.h5", lose)
    assert len(found) == len(STEPS)
    assert f"column {COLUMN!r}, episode 0: is missing, but the metadata" in found[0]
    found = damage(path, tmp_path / "e.h5", widen)
    assert "is float32 (2, 3) a row, expected float16 (P, E)" in found[0]
