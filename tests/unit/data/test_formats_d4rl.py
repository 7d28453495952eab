"""D4RL files: where episodes end and why, the final observation, and what is lost without it."""

import gymnasium as gym
import h5py
import numpy as np
import pytest

from wm_toolkit.data.convert import convert
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats import find_format, open_reader
from wm_toolkit.errors import DataError

# Rows of the episodes, ended by: the task, the clock, nothing (the file).
LENGTHS, ROWS = (4, 3, 5), 12


def mark(*rows, dtype=bool):
    return np.isin(np.arange(ROWS), rows).astype(dtype)


def columns(*, full=False, **replaced):
    """Flat columns [12, ...] as in the release; `full` adds the next observations of v2."""
    rng = np.random.default_rng(0)
    states = [rng.normal(size=(n + 1, 3)).astype(np.float32) for n in LENGTHS]
    after = {"next_observations": np.concatenate([s[1:] for s in states])}
    return {
        "observations": np.concatenate([s[:-1] for s in states]),
        "actions": rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        "rewards": rng.normal(size=ROWS).astype(np.float32),
        "terminals": mark(3),
        "timeouts": mark(6),
        "infos/qpos": rng.normal(size=(ROWS, 4)),
        **(after if full else {}),
        **replaced,
    }


def save(path, **options):
    with h5py.File(path, "w") as file:
        for name, values in columns(**options).items():
            if values is not None:
                file.create_dataset(name, data=values, compression="gzip")
        file["metadata/algorithm"] = "SAC"
        file["metadata/iteration"] = 3
        file["metadata/policy/fc0/weight"] = np.zeros((8, 8))
    return path


def parts(name, full=False):
    return np.split(columns(full=full)[name], np.cumsum(LENGTHS)[:-1])


def test_next_observations_give_every_action_its_outcome(tmp_path):
    reader = open_reader(save(tmp_path / "a.hdf5", full=True))
    episodes = list(reader.episodes())
    assert [len(episode) for episode in episodes] == list(LENGTHS)
    for i, episode in enumerate(episodes):
        np.testing.assert_array_equal(episode.obs["vector"][:-1], parts("observations")[i])
        np.testing.assert_array_equal(
            episode.obs["vector"][1:], parts("next_observations", True)[i]
        )
        np.testing.assert_array_equal(episode.action, parts("actions")[i])
        np.testing.assert_array_equal(episode.reward, parts("rewards")[i])
        np.testing.assert_array_equal(episode.extras["infos/qpos"][:-1], parts("infos/qpos")[i])
        assert not episode.extras["infos/qpos"][-1].any()
    assert any(p.column == "infos" and "zeros" in p.message for p in reader.problems)


def test_terminals_and_timeouts_stay_apart_and_the_end_of_the_file_truncates(tmp_path):
    first, second, third = open_reader(save(tmp_path / "a.hdf5", full=True)).episodes()
    assert (first.terminated.tolist(), first.truncated.any()) == ([False] * 3 + [True], False)
    assert (second.truncated.tolist(), second.terminated.any()) == ([False] * 2 + [True], False)
    assert (third.truncated.tolist(), third.terminated.any()) == ([False] * 4 + [True], False)
    assert [e.info["ended_by"] for e in (first, second, third)] == [["terminals"], ["timeouts"], []]


def test_a_row_with_both_flags_has_both(tmp_path):
    episode = next(
        open_reader(save(tmp_path / "a.hdf5", full=True, timeouts=mark(3, 6))).episodes()
    )
    assert (episode.terminated[-1], episode.truncated[-1]) == (True, True)


def test_without_next_observations_the_last_action_is_dropped(tmp_path):
    reader = open_reader(save(tmp_path / "a.hdf5"))
    episodes = list(reader.episodes())
    assert [len(episode) for episode in episodes] == [3, 2, 4]
    for i, episode in enumerate(episodes):
        np.testing.assert_array_equal(episode.obs["vector"], parts("observations")[i])
        np.testing.assert_array_equal(episode.action, parts("actions")[i][:-1])
        np.testing.assert_array_equal(episode.reward, parts("rewards")[i][:-1])
        np.testing.assert_array_equal(episode.extras["infos/qpos"], parts("infos/qpos")[i])
        assert not episode.terminated.any()
        assert episode.truncated.tolist() == [False] * (LENGTHS[i] - 2) + [True]
    assert episodes[0].info == {"ended_by": ["terminals"], "first_row": 0}
    assert any("last action of every episode is dropped" in p.message for p in reader.problems)


def test_a_cut_that_the_flags_do_not_show_ends_an_episode(tmp_path):
    reader = open_reader(save(tmp_path / "a.hdf5", full=True, timeouts=None))
    assert [len(episode) for episode in reader.episodes()] == list(LENGTHS)
    assert [episode.truncated[-1] for episode in reader.episodes()] == [False, True, True]
    assert any("in 1 rows: episodes are cut there" in p.message for p in reader.problems)


@pytest.mark.parametrize("full", [False, True])
def test_conversion_to_native_is_bit_exact(tmp_path, full):
    convert(save(tmp_path / "a.hdf5", full=full), tmp_path / "native.h5")
    native, cut = TrajectoryDataset.load(tmp_path / "native.h5"), None if full else -1
    assert native.metadata["d4rl"] == {"algorithm": "SAC", "iteration": 3}
    lost = "have no value for the final" if full else "the last action of every episode is dropped"
    assert lost in native.metadata["notes"][0]
    for i, episode in enumerate(native):
        assert episode.obs["vector"][: LENGTHS[i]].tobytes() == parts("observations")[i].tobytes()
        assert episode.action.tobytes() == parts("actions")[i][:cut].tobytes()
        assert episode.reward is not None
        assert episode.reward.tobytes() == parts("rewards")[i][:cut].tobytes()
        qpos = episode.extras["infos/qpos"][: LENGTHS[i]]
        assert qpos.tobytes() == parts("infos/qpos")[i].tobytes()


def test_reading_may_begin_at_any_episode(tmp_path):
    reader = open_reader(save(tmp_path / "a.hdf5"))
    assert [len(episode) for episode in reader.episodes(1)] == [2, 4]


def test_an_episode_of_one_row_has_no_step_and_is_left_out(tmp_path):
    reader = open_reader(save(tmp_path / "a.hdf5", terminals=mark(0, 3)))
    assert [episode.info["first_row"] for episode in reader.episodes()] == [1, 4, 7]
    assert any("1 episodes of a single row" in p.message for p in reader.problems)


def test_images_and_bounds_are_told_from_the_arrays(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (ROWS, 8, 8, 3), np.uint8)
    actions = np.full((ROWS, 1), 1.5, np.float32)
    spaces = open_reader(save(tmp_path / "a.hdf5", observations=frames, actions=actions)).spaces
    assert spaces.observation == {"image": gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)}
    assert spaces.action == gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)


def test_native_files_are_not_mistaken_for_it(tmp_path):
    found = find_format(save(tmp_path / "a.hdf5"))
    assert found is not None
    assert found[0].name == "d4rl"
    native = find_format(convert(tmp_path / "a.hdf5", tmp_path / "native.h5"))
    assert native is not None
    assert native[0].name == "hdf5"


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"rewards": np.zeros(11)}, r"column 'rewards': has shape \(11,\)"),
        ({"rewards": np.zeros((12, 1))}, "column 'rewards': .*expected one number a row"),
        ({"terminals": mark(3) * 2}, "column 'terminals', row 3: is 2, expected 0 or 1"),
        ({"next_observations": np.zeros((12, 2))}, r"column 'next_observations': .*\(12, 3\)"),
        ({"actions": np.array([b"a"] * 12)}, r"column 'actions': actions of \|S1 hold no numbers"),
        ({"terminals": np.ones(12)}, "column 'observations': has no episode of two rows"),
    ],
)
def test_a_bad_column_is_named(tmp_path, replaced, message):
    with pytest.raises(DataError, match=f"a.hdf5, {message}"):
        open_reader(save(tmp_path / "a.hdf5", **replaced))


@pytest.mark.parametrize("part", [b"HEAP", b"SNOD"])
def test_a_file_whose_names_are_damaged_is_refused(tmp_path, part):
    path = save(tmp_path / "a.hdf5")
    path.write_bytes(path.read_bytes().replace(part, b"XXXX"))
    with pytest.raises(DataError, match=r"a\.hdf5.*damaged"):
        open_reader(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = save(tmp_path / "a.hdf5")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"a\.hdf5.*truncated"):
        open_reader(path)


@pytest.mark.parametrize("column", ["actions", "observations", "rewards"])
def test_nan_is_named_by_the_conversion(tmp_path, column):
    values = columns()[column]
    values[5] = np.nan
    name, row = {"actions": ("action", 1), "observations": ("obs/vector", 1)}.get(
        column, ("reward", 2)
    )
    with pytest.raises(DataError, match=f"a.hdf5, column '{name}', episode 1, row {row}: nan"):
        convert(save(tmp_path / "a.hdf5", **{column: values}), tmp_path / "native.h5")
