"""OGBench files: T + 1 rows an episode, ends that are truncations, and streaming."""

import gymnasium as gym
import numpy as np
import pytest

from wm_toolkit.data.convert import convert
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats import find_format, open_reader
from wm_toolkit.errors import DataError

LENGTHS = (5, 3, 4)  # rows: steps + 1


def columns(**replaced):
    """Flat columns [12, ...] as OGBench releases them."""
    rng, rows = np.random.default_rng(0), sum(LENGTHS)
    return {
        "observations": rng.normal(size=(rows, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "terminals": np.isin(np.arange(rows), np.cumsum(LENGTHS) - 1),
        "qpos": rng.normal(size=(rows, 4)),
        "button_states": rng.integers(0, 2, (rows, 2)),
        **replaced,
    }


def save(path, save=np.savez_compressed, **replaced):
    saved = columns(**replaced)
    save(path, **{name: values for name, values in saved.items() if values is not None})
    return path


def parts(values):
    return np.split(values, np.cumsum(LENGTHS)[:-1])


@pytest.mark.parametrize("how", [np.savez, np.savez_compressed])
def test_an_episode_keeps_its_final_observation_and_loses_the_action_after_it(tmp_path, how):
    path, saved = save(tmp_path / "maze-v0.npz", how), columns()
    episodes = list(open_reader(path).episodes())
    assert [len(episode) for episode in episodes] == [4, 2, 3]
    for i, episode in enumerate(episodes):
        np.testing.assert_array_equal(episode.obs["vector"], parts(saved["observations"])[i])
        np.testing.assert_array_equal(episode.action, parts(saved["actions"])[i][:-1])
        np.testing.assert_array_equal(episode.extras["qpos"], parts(saved["qpos"])[i])
        assert not episode.terminated.any()
        assert episode.truncated.tolist() == [False] * (LENGTHS[i] - 2) + [True]
        assert episode.reward is None


def test_the_compact_form_means_the_same_episodes(tmp_path):
    ends = columns()["terminals"]
    doubled = np.minimum(ends + np.append(ends[1:], 1.0), 1).astype(np.float32)
    compact = save(tmp_path / "a.npz", terminals=doubled, valids=1.0 - ends)
    released = open_reader(save(tmp_path / "b.npz")).episodes()
    for got, expected in zip(open_reader(compact).episodes(), released, strict=True):
        np.testing.assert_array_equal(got.obs["vector"], expected.obs["vector"])
        np.testing.assert_array_equal(got.action, expected.action)
        assert got.extras.keys() == expected.extras.keys()


def test_conversion_to_native_is_bit_exact(tmp_path):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 255, (12, 8, 8, 3), np.uint8)
    rewards = rng.normal(size=12).astype(np.float32)
    source = save(tmp_path / "visual-v0.npz", observations=images, rewards=rewards)
    convert(source, tmp_path / "native.h5")
    native = TrajectoryDataset.load(tmp_path / "native.h5")
    assert native.name == "visual-v0"
    assert native.metadata["source"].startswith("OGBench")
    for i, episode in enumerate(native):
        assert episode.obs["image"].tobytes() == parts(images)[i].tobytes()
        assert episode.action.tobytes() == parts(columns()["actions"])[i][:-1].tobytes()
        assert episode.reward is not None
        assert episode.reward.tobytes() == parts(rewards)[i][:-1].tobytes()
        for name in ("qpos", "button_states"):
            assert episode.extras[name].tobytes() == parts(columns()[name])[i].tobytes()


@pytest.mark.parametrize("order", ["C", "F"])
def test_reading_may_begin_at_any_episode(tmp_path, order):
    saved = columns()["observations"]
    reader = open_reader(save(tmp_path / "a.npz", observations=np.asarray(saved, order=order)))
    got = [episode.obs["vector"] for episode in reader.episodes(1)]
    assert len(got) == 2
    for values, expected in zip(got, parts(saved)[1:], strict=True):
        np.testing.assert_array_equal(values, expected)


def test_integer_actions_are_choices(tmp_path):
    pairs = np.array([[2, 0], [0, 4]], np.int32).repeat(6, 0)
    reader = open_reader(save(tmp_path / "powder-v0.npz", actions=pairs))
    assert reader.spaces.action == gym.spaces.MultiDiscrete([3, 5], dtype=np.int32)
    convert(tmp_path / "powder-v0.npz", tmp_path / "native.h5")
    assert TrajectoryDataset.load(tmp_path / "native.h5").episode(0).action.dtype == np.int32


def test_only_files_with_its_columns_are_recognised(tmp_path):
    found = find_format(save(tmp_path / "a.npz"))
    assert found is not None
    assert found[0].name == "ogbench"
    assert find_format(save(tmp_path / "b.npz", terminals=None)) is None


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"qpos": np.zeros((11, 4))}, r"column 'qpos': has shape \(11, 4\)"),
        ({"terminals": np.arange(12) == 6}, "column 'terminals': does not mark the last row"),
        ({"terminals": np.arange(12) >= 10}, "column 'terminals', episode 1, row 0: .*one row"),
        ({"terminals": np.arange(12)}, "column 'terminals', row 2: is 2, expected 0 or 1"),
        ({"next_observations": np.zeros((12, 3))}, "column 'next_observations': was added"),
        ({"observations": np.array([{}] * 12)}, "column 'observations': .*pickled Python objects"),
        ({"actions": np.array(["a"] * 12)}, "column 'actions': actions of <U1 hold no numbers"),
    ],
)
def test_a_bad_column_is_named(tmp_path, replaced, message):
    with pytest.raises(DataError, match=f"a.npz, {message}"):
        open_reader(save(tmp_path / "a.npz", **replaced))


def test_nan_in_an_action_is_named_by_the_conversion(tmp_path):
    actions = columns()["actions"]
    actions[6, 1] = np.nan
    with pytest.raises(DataError, match=r"a.npz, column 'action', episode 1, row 1: nan"):
        convert(save(tmp_path / "a.npz", actions=actions), tmp_path / "native.h5")


def test_the_unexecuted_action_may_be_anything(tmp_path):
    actions = columns()["actions"]
    actions[7] = np.nan
    source = save(tmp_path / "a.npz", actions=actions)
    assert open_reader(source).spaces.action == gym.spaces.Box(-1, 1, (2,), np.float32)
    assert len(list(open_reader(convert(source, tmp_path / "native.h5")).episodes())) == 3


def test_a_damaged_column_is_named(tmp_path):
    path = save(tmp_path / "a.npz", np.savez)
    data = bytearray(path.read_bytes())
    begin = data.index(columns()["qpos"].tobytes())
    data[begin + 6 * 32] ^= 1  # a bit of row 6, so the checksum at the end of the column fails
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a.npz, column 'qpos'.*: Bad CRC"):
        list(open_reader(path).episodes())
