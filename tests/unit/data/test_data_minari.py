"""Minari, both ways and both storages: exact, resumable, and clear about what is lost."""

import dataclasses
import logging

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector.episode_buffer import EpisodeBuffer

from wm_toolkit.data import minari_hub
from wm_toolkit.data.convert import convert
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats import FORMATS, open_reader
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.data.inspect import inspect
from wm_toolkit.data.partial import partial_folder
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.errors import DataError, UnknownNameError
from wm_toolkit.spaces import Spaces, flat_space

BOX = gym.spaces.Box
IMAGE = BOX(0, 255, (40, 36, 3), np.uint8)
OBSERVATIONS = {
    "vector": BOX(-9, 9, (3,), np.float64),
    "image": IMAGE,
    "dict": gym.spaces.Dict(
        {
            "cam": IMAGE,
            "body": gym.spaces.Dict({"pos": BOX(-9, 9, (2,), np.float32)}),
            "n": gym.spaces.Discrete(5),
        }
    ),
}
ACTIONS = {
    "box": BOX(-1, 1, (2,), np.float32),
    "discrete": gym.spaces.Discrete(4),
    "multi": gym.spaces.MultiDiscrete([3, 2]),
}
ABOUT = {"code_permalink": "x", "author": "a", "author_email": "e", "algorithm_name": "random"}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def draw(space, n, rng):
    if isinstance(space, gym.spaces.Dict):
        return {key: draw(child, n, rng) for key, child in space.spaces.items()}
    space.seed(int(rng.integers(1000)))
    return np.stack([space.sample() for _ in range(n)])


def episodes(observation, action, n=3):
    """Episodes in the toolkit's form, by flat key."""
    rng = np.random.default_rng(0)
    for i in range(n):
        steps = 4 + i
        flat = {key: draw(space, steps + 1, rng) for key, space in flat_space(observation).items()}
        extras = {"success": rng.random(steps + 1) > 0.5, "sim/force": rng.random((steps + 1, 2))}
        last = np.arange(steps) == steps - 1
        info = {"seed": 7 + i, "options": {"level": i}}
        yield Trajectory(
            flat,
            draw(action, steps, rng),
            rng.normal(size=steps),
            last & (i == 0),
            last & (i != 0),
            extras,
            info,
        )


def write_native(path, observation, action, n=3, **metadata):
    spaces = Spaces(flat_space(observation), action)
    with Hdf5Writer(
        path, spaces, metadata={"licence": "MIT", **metadata}, units={"reward": "m"}
    ) as writer:
        for episode in episodes(observation, action, n):
            writer.add_episode(episode)
    return path


@pytest.mark.parametrize("storage", ["minari", "minari-arrow"])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_native_to_minari_and_back_is_exact(tmp_path, observation, action, storage):
    source = write_native(tmp_path / "a.h5", OBSERVATIONS[observation], ACTIONS[action])
    convert(source, "toy/walk-v0", format=storage)
    theirs = minari.load_dataset("toy/walk-v0")
    assert theirs.observation_space == OBSERVATIONS[observation]
    assert theirs.action_space == ACTIONS[action]
    want = list(episodes(OBSERVATIONS[observation], ACTIONS[action]))
    for mine, episode in zip(want, theirs.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(episode.actions, mine.action)
        np.testing.assert_array_equal(episode.rewards, mine.reward)
        np.testing.assert_array_equal(episode.terminations, mine.terminated)
        np.testing.assert_array_equal(episode.infos["success"], mine.extras["success"])
        bare = {next(iter(mine.obs)): episode.observations}
        seen = episode.observations["cam"] if observation == "dict" else next(iter(bare.values()))
        np.testing.assert_array_equal(
            seen, mine.obs["cam" if observation == "dict" else observation]
        )
    convert("toy/walk-v0", tmp_path / "b.h5")
    before, after = (TrajectoryDataset.load(tmp_path / name) for name in ("a.h5", "b.h5"))
    assert after.checksum == before.checksum
    assert [dict(e.info) for e in after] == [dict(e.info) for e in before]
    assert after.columns["reward"].unit == "m"
    assert after.metadata["licence"] == "MIT"
    assert inspect("toy/walk-v0").problems == []


def rewardless(n=3):
    return [
        dataclasses.replace(episode, reward=None)
        for episode in episodes(OBSERVATIONS["vector"], ACTIONS["box"], n)
    ]


@pytest.mark.parametrize("storage", ["minari", "minari-arrow"])
def test_absent_rewards_are_zeros_for_minari_and_absent_again_when_read_back(tmp_path, storage):
    spaces = Spaces(flat_space(OBSERVATIONS["vector"]), ACTIONS["box"])
    with Hdf5Writer(tmp_path / "a.h5", spaces) as writer:
        for episode in rewardless():
            writer.add_episode(episode)
    convert(tmp_path / "a.h5", "toy/walk-v0", format=storage)
    for episode in minari.load_dataset("toy/walk-v0").iterate_episodes():
        np.testing.assert_array_equal(episode.rewards, np.zeros(len(episode.actions)))
    assert all(episode.reward is None for episode in open_reader("toy/walk-v0").episodes())
    assert inspect("toy/walk-v0").problems == []
    convert("toy/walk-v0", tmp_path / "b.h5")
    before, after = (TrajectoryDataset.load(tmp_path / name) for name in ("a.h5", "b.h5"))
    assert "reward" not in after.columns
    assert after.checksum == before.checksum


def test_a_continued_minari_recording_remembers_that_rewards_are_absent(tmp_path):
    spaces = Spaces(flat_space(OBSERVATIONS["vector"]), ACTIONS["box"])
    with_reward = next(iter(episodes(OBSERVATIONS["vector"], ACTIONS["box"], 1)))
    writer = FORMATS["minari"].write("walk-v0", spaces)
    writer.add_episode(rewardless(1)[0])
    writer.abandon()
    writer = FORMATS["minari"].write("walk-v0", spaces)
    with pytest.raises(DataError, match="'reward', episode 1: is new, the episodes before lack it"):
        writer.add_episode(with_reward)
    writer.add_episode(rewardless(1)[0])
    writer.close()
    assert [episode.reward for episode in open_reader("walk-v0").episodes()] == [None, None]
    writer = FORMATS["minari"].write("run-v0", spaces)
    writer.add_episode(with_reward)
    with pytest.raises(DataError, match="'reward', episode 1: is missing"):
        writer.add_episode(rewardless(1)[0])


@pytest.mark.parametrize("storage", ["hdf5", "arrow"])
def test_minari_to_native_and_back_is_exact(tmp_path, storage):
    space, action = OBSERVATIONS["dict"], ACTIONS["box"]
    rng = np.random.default_rng(1)
    buffers = [
        EpisodeBuffer(
            seed=3 + i,
            options={"level": i},
            observations=draw(space, 6, rng),
            actions=draw(action, 5, rng),
            rewards=list(rng.normal(size=5)),
            terminations=[False] * 5,
            truncations=[False] * 4 + [True],
            infos={"success": [False] * 5 + [True]},
        )
        for i in range(2)
    ]
    spaces = {"observation_space": space, "action_space": action, "description": "d"}
    theirs = make_minari("toy/old-v3", buffers, data_format=storage, jpeg_encoding=False, **spaces)
    convert("toy/old-v3", tmp_path / "a.h5")
    convert(
        tmp_path / "a.h5", "toy/new-v3", format="minari" if storage == "hdf5" else "minari-arrow"
    )
    copy = minari.load_dataset("toy/new-v3")
    assert copy.observation_space == theirs.observation_space
    kept = (
        "author",
        "author_email",
        "algorithm_name",
        "code_permalink",
        "description",
        "data_format",
    )
    assert all(copy.storage.metadata[key] == theirs.storage.metadata[key] for key in kept)
    assert copy.id == "toy/new-v3"
    old, new = (list(d.storage.get_episode_metadata([0, 1])) for d in (theirs, copy))
    assert [m["seed"] for m in old] == [m["seed"] for m in new]
    assert [m["options"] for m in old] == [m["options"] for m in new]
    for a, b in zip(theirs, copy, strict=True):
        np.testing.assert_array_equal(a.observations["cam"], b.observations["cam"])
        np.testing.assert_array_equal(a.observations["body"]["pos"], b.observations["body"]["pos"])
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.rewards, b.rewards)
        np.testing.assert_array_equal(a.truncations, b.truncations)
        np.testing.assert_array_equal(a.infos["success"], b.infos["success"])


def make_minari(name, buffers, **options):
    """Minari warns about every argument that is left out, also about a missing environment."""
    with pytest.warns(UserWarning, match="None"):
        return minari.create_dataset_from_buffers(name, buffers, **ABOUT, **options)


def simple_buffer(steps=4, **changes):
    fields = {
        "observations": np.zeros((steps + 1, 3)),
        "actions": np.zeros((steps, 2), np.float32),
        "rewards": [0.0] * steps,
        "terminations": [False] * steps,
        "truncations": [False] * steps,
        "infos": {},
    }
    return EpisodeBuffer(**(fields | changes))


SIMPLE = {
    "observation_space": OBSERVATIONS["vector"],
    "action_space": ACTIONS["box"],
    "description": "d",
}


def test_lossy_images_are_told(tmp_path, caplog):
    rng = np.random.default_rng(0)
    buffer = simple_buffer(observations=rng.integers(0, 256, (5, 40, 36, 3), dtype=np.uint8))
    make_minari("lossy-v0", [buffer], **(SIMPLE | {"observation_space": IMAGE}))
    with caplog.at_level(logging.WARNING):
        convert("lossy-v0", tmp_path / "a.h5")
    assert "column 'obs/image': was compressed with JPEG" in caplog.text
    assert TrajectoryDataset.load(tmp_path / "a.h5").metadata["lossy"] == ["obs/image"]
    report = inspect("lossy-v0")
    assert report.sound  # a note is no error
    assert "JPEG" in str(report.problems[0])


def test_columns_that_hold_no_numbers_are_left_out_and_told(tmp_path, caplog):
    space = gym.spaces.Dict({"x": BOX(-1, 1, (1,)), "mission": gym.spaces.Text(9)})
    obs = {"x": np.zeros((5, 1), np.float32), "mission": ["go"] * 5}
    infos = {"note": ["a"] * 5, "speed": [1.0, 2.0, 3.0, 4.0]}
    buffer = simple_buffer(observations=obs, infos=infos)
    make_minari("text-v0", [buffer], **(SIMPLE | {"observation_space": space}))
    with caplog.at_level(logging.WARNING):
        convert("text-v0", tmp_path / "a.h5")
    data = TrajectoryDataset.load(tmp_path / "a.h5")
    assert sorted(data.columns) == ["action", "obs/x", "reward", "speed", "terminated", "truncated"]
    assert data.columns["speed"].array[:].tolist() == [1, 2, 3, 4, 0]
    for told in ("'obs/mission': is Text", "'note': is", "'speed': has no value for the final"):
        assert told in caplog.text


def test_loading_by_id_converts_once_into_the_cache(tmp_path):
    make_minari("toy/walk-v0", [simple_buffer(), simple_buffer(6)], **SIMPLE)
    data = TrajectoryDataset.load("toy/walk-v0")
    assert data.episode_lengths.tolist() == [5, 7]
    assert data.path is not None
    assert data.path.is_relative_to(tmp_path / "home")
    stamp = data.path.stat().st_mtime_ns
    again = TrajectoryDataset.load(tmp_path / "minari/toy/walk-v0")
    assert again.path == data.path
    assert data.path.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("target", ["b.h5", "toy/walk-v0", "toy/arrow-v0"])
def test_an_interrupted_conversion_goes_on_after_the_finished_episodes(tmp_path, target):
    source = write_native(tmp_path / "a.h5", OBSERVATIONS["image"], ACTIONS["box"], n=5)
    format = "minari-arrow" if "arrow" in target else None
    target = tmp_path / target if target.endswith(".h5") else target

    def stop(done, _):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, target, format=format, progress=stop)
    seen = []
    place = convert(source, target, format=format, progress=lambda done, n: seen.append((done, n)))
    assert seen == [(4, 5), (5, 5)]
    assert not partial_folder(place).exists()
    for mine, episode in zip(
        episodes(OBSERVATIONS["image"], ACTIONS["box"], 5),
        open_reader(place).episodes(),
        strict=True,
    ):
        np.testing.assert_array_equal(episode.obs["image"], mine.obs["image"])
    with pytest.raises(DataError, match="exists"):
        convert(source, target, format=format)


def test_a_torn_minari_recording_is_cut_or_begun_anew(tmp_path, root, caplog):
    source = write_native(tmp_path / "a.h5", OBSERVATIONS["vector"], ACTIONS["box"], n=3)
    reader = open_reader(source)
    first = next(reader.episodes())
    main = root / ".walk-v0.partial/data/main_data.hdf5"

    def start():
        writer = FORMATS["minari"].write("walk-v0", reader.spaces, metadata=reader.metadata)
        writer.add_episode(first)
        writer.abandon()

    start()
    with h5py.File(main, "a") as file:
        file.create_group("episode_1/observations")  # killed while writing the second one
    writer = FORMATS["minari"].write("walk-v0", reader.spaces)
    assert writer.finished == 1
    writer.add_episode(first)
    writer.close()
    assert len(minari.load_dataset("walk-v0")) == 2

    main = root / ".run-v0.partial/data/main_data.hdf5"
    writer = FORMATS["minari"].write("run-v0", reader.spaces)
    writer.add_episode(first)
    main.write_bytes(main.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        assert FORMATS["minari"].write("run-v0", reader.spaces).finished == 0
    assert "starting over" in caplog.text


@pytest.mark.parametrize("storage", ["minari", "minari-arrow"])
def test_a_recording_killed_while_metadata_was_written_goes_on(tmp_path, root, storage):
    source = write_native(tmp_path / "a.h5", OBSERVATIONS["vector"], ACTIONS["box"], n=3)
    reader = open_reader(source)
    writer = FORMATS[storage].write("walk-v0", reader.spaces)
    for episode in list(reader.episodes())[:2]:
        writer.add_episode(episode)
    writer.abandon()
    data = root / ".walk-v0.partial/data"
    (data / "metadata.json").write_text("")
    if storage == "minari-arrow":
        (data / "2").mkdir()
        (data / "2" / "metadata.json").write_text("")
    writer = FORMATS[storage].write("walk-v0", reader.spaces)
    assert writer.finished == 2
    writer.add_episode(list(reader.episodes())[2])
    writer.close()
    assert sorted(p.name for p in (root / "walk-v0").iterdir()) == ["data"]
    for mine, theirs in zip(reader.episodes(), open_reader("walk-v0").episodes(), strict=True):
        np.testing.assert_array_equal(mine.action, theirs.action)
        assert mine.info == theirs.info


def test_another_conversion_in_the_way_is_refused(tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    for name in ("a.h5", "b.h5"):
        write_native(tmp_path / name, OBSERVATIONS["vector"], ACTIONS["box"])
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "a.h5", "walk-v0", progress=stop)
    with pytest.raises(DataError, match=r"unfinished conversion of .*a\.h5.* is in the way"):
        convert(tmp_path / "b.h5", "walk-v0")


def test_damaged_minari_data_names_file_episode_and_column(tmp_path, root):
    actions = np.zeros((4, 2), np.float32)
    actions[2, 1] = np.nan
    make_minari("bad-v0", [simple_buffer(), simple_buffer(actions=actions)], **SIMPLE)
    with pytest.raises(DataError, match="bad-v0/data, column 'action', episode 1, row 2: nan"):
        convert("bad-v0", tmp_path / "a.h5")
    main = root / "bad-v0/data/main_data.hdf5"
    with h5py.File(main, "a") as file:
        del file["episode_0/rewards"]
    report = inspect("bad-v0")
    assert [problem.episode for problem in report.problems] == [0, 1]
    assert "rewards" in str(report.problems[0])
    main.write_bytes(main.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"bad-v0/data, episode 0: .*damaged"):
        convert("bad-v0", tmp_path / "b.h5")
    (root / "bad-v0/data/metadata.json").write_text('{"data_format": "hd')
    assert not inspect("bad-v0").sound
    (root / "bad-v0/data/metadata.json").write_bytes(b'{"data_format": "\xa0"}')
    assert not inspect("bad-v0").sound


def test_damaged_names_inside_the_file_are_a_damaged_episode(root):
    make_minari("bad-v0", [simple_buffer(), simple_buffer()], **SIMPLE)
    main = root / "bad-v0/data/main_data.hdf5"
    parts = main.read_bytes().split(
        b"HEAP"
    )  # where HDF5 keeps names; a byte with a version follows
    found = []
    for i in range(1, len(parts)):
        damaged = [*parts[:i], b"\xff" + parts[i][1:], *parts[i + 1 :]]
        main.write_bytes(b"HEAP".join(damaged))
        found.append([problem.episode for problem in inspect("bad-v0").problems])
    assert [0] in found
    assert [1] in found


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda **_: minari_hub.threading.Event().wait(), "no answer in 0.05 s"),
        (lambda **_: (_ for _ in ()).throw(ConnectionError("refused")), "refused"),
    ],
)
def test_a_hub_that_cannot_be_reached_is_a_clear_error(monkeypatch, root, answer, message):
    monkeypatch.setattr(minari, "list_remote_datasets", answer)
    with pytest.raises(DataError, match=message) as error:
        minari_hub.download("D4RL/door/human-v2", timeout_seconds=0.05)
    assert f"copy the folder below {root}" in str(error.value)


def test_an_id_that_is_not_here_says_how_to_get_it():
    with pytest.raises(UnknownNameError, match="wm convert"):
        TrajectoryDataset.load("toy/absent-v0")


@pytest.mark.parametrize(
    ("target", "format", "message"),
    [("walk", None, "cannot tell the format"), ("walk", "minari", "no Minari id")],
)
def test_a_target_without_a_format_is_explained(tmp_path, target, format, message):
    source = write_native(tmp_path / "a.h5", OBSERVATIONS["vector"], ACTIONS["box"])
    with pytest.raises(DataError, match=message):
        convert(source, target, format=format)
