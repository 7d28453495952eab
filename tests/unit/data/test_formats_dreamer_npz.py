"""Dreamer episode folders: the shift of the action, both kinds of ending, and files that are refused."""

import gymnasium as gym
import numpy as np
import pytest

from wm_toolkit.data.convert import convert
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats import FORMATS, find_format, open_reader
from wm_toolkit.errors import DataError


def columns(rows=5, *, seed=0, terminal=False, **replaced):
    """One episode as Dreamer V2 saves it: [rows, ...], row 0 from the reset."""
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
    reward = rng.normal(size=rows).astype(np.float32)
    action[0], reward[0] = 0, 0
    ends = np.arange(rows) == rows - 1
    return {
        "image": rng.integers(0, 255, (rows, 8, 8, 3), np.uint8),
        "height": rng.normal(size=(rows, 1)).astype(np.float32),
        "action": action,
        "reward": reward,
        "is_first": np.arange(rows) == 0,
        "is_last": ends,
        "is_terminal": ends & terminal,
        "touch": rng.random(rows) > 0.5,
        "log_speed": rng.normal(size=rows).astype(np.float32),
        **replaced,
    }


def save(folder, *episodes):
    folder.mkdir(exist_ok=True)
    for i, episode in enumerate(episodes):
        rows = len(episode["action"])
        present = {name: values for name, values in episode.items() if values is not None}
        np.savez_compressed(folder / f"2020010{i}T000000-{i:032x}-{rows - 1}.npz", **present)
    return folder


def test_an_action_stands_beside_the_observation_it_was_taken_in(tmp_path):
    saved = columns(4)
    episode = next(open_reader(save(tmp_path / "eps", saved)).episodes())
    assert len(episode) == 3
    np.testing.assert_array_equal(episode.obs["image"], saved["image"])
    np.testing.assert_array_equal(episode.obs["height"], saved["height"])
    np.testing.assert_array_equal(episode.action, saved["action"][1:])
    np.testing.assert_array_equal(episode.reward, saved["reward"][1:])
    np.testing.assert_array_equal(episode.extras["log_speed"], saved["log_speed"])
    assert episode.info["file"].startswith("20200100T")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_last_row_that_is_not_terminal_is_truncated(tmp_path, terminal):
    episode = next(open_reader(save(tmp_path / "eps", columns(terminal=terminal))).episodes())
    assert episode.terminated.tolist() == [False, False, False, terminal]
    assert episode.truncated.tolist() == [False, False, False, not terminal]


@pytest.mark.parametrize("last", [0.0, 1.0])
def test_a_discount_of_zero_ends_an_episode_of_the_first_version(tmp_path, last):
    old = dict.fromkeys(("is_first", "is_last", "is_terminal", "log_speed"))
    discount = np.array([1, 1, 1, 1, last], np.float16)
    episode = next(
        open_reader(save(tmp_path / "eps", columns(**old, discount=discount))).episodes()
    )
    assert episode.terminated.tolist() == [False, False, False, last == 0]
    assert episode.truncated.tolist() == [False, False, False, last == 1]
    np.testing.assert_array_equal(episode.extras["discount"], discount)


def test_conversion_to_native_is_bit_exact(tmp_path):
    folder = save(tmp_path / "eps", *(columns(3 + i, seed=i, terminal=i == 1) for i in range(3)))
    convert(folder, tmp_path / "native.h5")
    native = TrajectoryDataset.load(tmp_path / "native.h5")
    assert [len(episode) for episode in native] == [2, 3, 4]
    for i, episode in enumerate(native):
        saved = columns(3 + i, seed=i, terminal=i == 1)
        for name in ("image", "height", "touch"):
            assert episode.obs[name].tobytes() == saved[name].tobytes()
        assert episode.action.tobytes() == saved["action"][1:].tobytes()
        assert episode.reward is not None
        assert episode.reward.tobytes() == saved["reward"][1:].tobytes()
        assert episode.terminated[-1] == (i == 1) != episode.truncated[-1]


def test_reading_may_begin_at_any_episode(tmp_path):
    reader = open_reader(save(tmp_path / "eps", *(columns(3 + i, seed=i) for i in range(4))))
    assert len(reader) == 4
    assert [len(episode) for episode in reader.episodes(2)] == [4, 5]


def test_actions_within_one_are_bounded_and_integers_are_choices(tmp_path):
    box = open_reader(save(tmp_path / "box", columns())).spaces.action
    assert box == gym.spaces.Box(-1, 1, (2,), np.float32)
    wide = columns(action=np.array([[0.0], [2], [0], [1], [0]], np.float32))
    unbounded = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    assert open_reader(save(tmp_path / "wide", wide)).spaces.action == unbounded
    choices = columns(action=np.array([0, 3, 1, 2, 0]))
    assert open_reader(save(tmp_path / "choice", choices)).spaces.action == gym.spaces.Discrete(4)


def test_only_folders_of_episodes_are_recognised(tmp_path):
    found = find_format(save(tmp_path / "eps", columns()))
    assert found is not None
    assert found[0].name == "dreamer_npz"
    (tmp_path / "other").mkdir()
    np.savez(tmp_path / "other" / "a.npz", observations=np.zeros(3))
    assert find_format(tmp_path / "other") is None


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (
            {"action": np.full((5, 2), 0.5, np.float32)},
            "column 'action', episode 1, row 0: is .*reset",
        ),
        ({"is_first": np.array([1, 0, 0, 1, 0])}, "column 'is_first', episode 1, row 3"),
        (
            {"is_terminal": np.array([0, 0, 2, 0, 0])},
            "column 'is_terminal', episode 1, row 2: is 2",
        ),
        (
            {"image": np.zeros((4, 8, 8, 3), np.uint8)},
            "column 'image', episode 1: .*expected 5 rows",
        ),
        ({"reward": None}, "column 'reward', episode 1: is missing"),
        ({"is_terminal": None}, "column 'is_terminal', episode 1: is missing"),
        ({"stepid": np.zeros((5, 20), np.uint8)}, "column 'stepid': marks a replay chunk"),
    ],
)
def test_a_bad_episode_is_named(tmp_path, replaced, message):
    reader = open_reader(save(tmp_path / "eps", columns(), columns(**replaced)))
    with pytest.raises(DataError, match=f"20200101T.*npz, {message}"):
        list(reader.episodes())


def test_nan_in_an_action_is_named_by_the_conversion(tmp_path):
    bad = columns()
    bad["action"][3, 1] = np.nan
    with pytest.raises(DataError, match="column 'action', episode 1, row 2: nan"):
        convert(save(tmp_path / "eps", columns(), bad), tmp_path / "native.h5")


def test_pickled_objects_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("code of the file ran",)

    bad = columns(height=np.array([Bomb()] * 5, dtype=object))
    with pytest.raises(DataError, match="column 'height': it holds pickled Python objects"):
        open_reader(save(tmp_path / "eps", bad))


def test_a_truncated_file_is_named(tmp_path):
    folder = save(tmp_path / "eps", columns(), columns())
    bad = sorted(folder.glob("*.npz"))[1]
    bad.write_bytes(bad.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"20200101T.*damaged"):
        open_reader(folder)


def test_the_format_is_not_written():
    with pytest.raises(DataError, match="can be read, not written"):
        FORMATS["dreamer_npz"].write("x", None)  # pyright: ignore[reportArgumentType]
