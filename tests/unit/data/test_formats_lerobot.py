"""LeRobot folders of both generations: the same episodes come out, and what does not fit is named."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from film_layouts import (
    CAMERA,
    TASKS,
    decoded,
    lerobot_columns,
    moving_frames,
    png,
    write_film,
    write_lerobot_v2,
    write_lerobot_v3,
)

from wm_toolkit.data.film import Film
from wm_toolkit.data.formats import find_format, open_reader
from wm_toolkit.data.formats.lerobot_meta import split_names
from wm_toolkit.errors import DataError

LENGTHS = (7, 5, 9)
WRITERS = {"v2": write_lerobot_v2, "v3": write_lerobot_v3}
WRIST = "observation.images.wrist"
EXTRAS = (
    "next.done",
    "next.success",
    "timestamp",
    "frame_index",
    "episode_index",
    "task_index",
)


@pytest.fixture(params=WRITERS)
def folder(request, tmp_path):
    return WRITERS[request.param](tmp_path / request.param)


def edit_info(folder, **changes):
    path = folder / "meta/info.json"
    info = json.loads(path.read_text())
    for name, value in changes.items():
        info[name] = value
    path.write_text(json.dumps(info))


def edit_table(file, name, values):
    table = pq.read_table(file)
    pq.write_table(table.set_column(table.column_names.index(name), name, values), file)


def table_of(folder, episode):
    names = {"v2": f"episode_{episode:06d}", "v3": f"file-{episode // 2:03d}"}
    return folder / "data/chunk-000" / f"{names[folder.name]}.parquet"


def film_of(folder, episode):
    older = f"videos/chunk-000/{CAMERA}/episode_{episode:06d}.mp4"
    modern = f"videos/{CAMERA}/chunk-000/file-{episode // 2:03d}.mp4"
    return folder / {"v2": older, "v3": modern}[folder.name]


def test_every_episode_is_read_exactly(folder):
    columns, begin = lerobot_columns(LENGTHS), 0
    for i, (episode, rows) in enumerate(zip(open_reader(folder).episodes(), LENGTHS, strict=True)):
        own = slice(begin, begin + rows)
        begin += rows
        np.testing.assert_array_equal(episode.obs["image"], moving_frames(rows, i))
        np.testing.assert_array_equal(episode.obs["proprio"], columns["observation.state"][own])
        np.testing.assert_array_equal(episode.action, columns["action"][own][:-1])
        np.testing.assert_array_equal(episode.reward, columns["next.reward"][own][:-1])
        assert episode.info["last_reward"] == columns["next.reward"][own][-1]
        assert tuple(episode.extras) == EXTRAS
        for name in EXTRAS:
            np.testing.assert_array_equal(episode.extras[name], columns[name][own])
            assert episode.extras[name].dtype == columns[name].dtype
        assert episode.info["tasks"] == [TASKS[i % 2]]


def test_the_last_action_is_dropped_and_done_is_not_taken_for_terminated(folder):
    for episode, rows in zip(open_reader(folder).episodes(), LENGTHS, strict=True):
        assert len(episode) == rows - 1
        assert not episode.terminated.any()
        assert episode.truncated.tolist() == [False] * (rows - 2) + [True]
        assert episode.extras["next.done"].tolist() == [False] * (rows - 1) + [True]


def test_what_the_release_says_about_itself_is_kept(folder):
    reader = open_reader(folder)
    about = reader.metadata
    assert about["source"] == {"v2": "LeRobot v2.1", "v3": "LeRobot v3.0"}[folder.name]
    assert (about["licence"], about["robot"], about["fps"]) == ("apache-2.0", "toy_arm", 10)
    assert about["tasks"] == TASKS
    assert about["renamed"] == {"obs/image": CAMERA, "obs/proprio": "observation.state"}
    assert reader.spaces.action.shape == (2,)
    assert reader.spaces.observation["image"].shape == (32, 48, 3)
    found = find_format(folder)
    assert found is not None
    assert found[0].name == "lerobot"


@pytest.mark.parametrize("start", range(4))
def test_reading_begins_at_any_episode(folder, start):
    every = list(open_reader(folder).episodes())
    found = list(open_reader(folder).episodes(start))
    assert len(found) == 3 - start
    for one, other in zip(found, every[start:], strict=True):
        np.testing.assert_array_equal(one.obs["image"], other.obs["image"])
        np.testing.assert_array_equal(one.action, other.action)


def test_episodes_of_one_film_are_decoded_once(tmp_path, monkeypatch):
    films = []
    init = Film.__init__
    monkeypatch.setattr(
        Film, "__init__", lambda self, *a, **k: (films.append(self), init(self, *a, **k))[1]
    )
    film = {"codec": "libx264", "options": {"bf": "2"}}
    reader = open_reader(write_lerobot_v3(tmp_path / "v3", lengths=[20, 30], film=film))
    truth = decoded(film_of(tmp_path / "v3", 0))
    shown = [episode.obs["image"] for episode in reader.episodes()]
    np.testing.assert_array_equal(np.concatenate(shown), truth)
    assert [film.decoded for film in films] == [50]


@pytest.mark.parametrize("write", WRITERS.values())
def test_pictures_inside_the_tables_and_several_cameras_are_read(tmp_path, write):
    pictures = {CAMERA: "video", WRIST: "image"}
    reader = open_reader(write(tmp_path / "a", pictures=pictures))
    assert sorted(reader.spaces.observation) == ["proprio", "top", "wrist"]
    for i, (episode, rows) in enumerate(zip(reader.episodes(), LENGTHS, strict=True)):
        np.testing.assert_array_equal(episode.obs["top"], moving_frames(rows, i))
        np.testing.assert_array_equal(episode.obs["wrist"], moving_frames(rows, i))


def test_several_films_do_not_mix(tmp_path):
    pictures = {CAMERA: "video", WRIST: "video"}
    for write in WRITERS.values():
        reader = open_reader(write(tmp_path / write.__name__, pictures=pictures))
        for i, (episode, rows) in enumerate(zip(reader.episodes(), LENGTHS, strict=True)):
            np.testing.assert_array_equal(episode.obs["top"], moving_frames(rows, i))
            np.testing.assert_array_equal(episode.obs["wrist"], moving_frames(rows, i + 10))


def test_pictures_in_files_beside_the_tables_are_read_if_they_are_inside(tmp_path):
    folder = write_lerobot_v2(tmp_path / "v2", pictures={WRIST: "image"})
    (folder / "images").mkdir()
    for k, frame in enumerate(moving_frames(7, 3)):
        (folder / f"images/{k}.png").write_bytes(png(frame))
    cells = [{"bytes": None, "path": f"images/{k}.png"} for k in range(7)]
    edit_table(table_of(folder, 0), WRIST, pa.array(cells))
    np.testing.assert_array_equal(
        next(iter(open_reader(folder).episodes())).obs["image"], moving_frames(7, 3)
    )
    cells[4]["path"] = "../outside.png"
    edit_table(table_of(folder, 0), WRIST, pa.array(cells))
    with pytest.raises(DataError, match=r"wrist', episode 0, row 4: .* not inside the data set"):
        list(open_reader(folder).episodes())
    cells[4] = {"bytes": b"no picture", "path": None}
    edit_table(table_of(folder, 0), WRIST, pa.array(cells))
    with pytest.raises(DataError, match=r"wrist', episode 0, row 4: cannot be read"):
        list(open_reader(folder).episodes())


def test_text_and_depth_are_left_out_and_said(folder):
    info = json.loads((folder / "meta/info.json").read_text())
    features = info["features"] | {
        "language": {"dtype": "string", "shape": [1]},
        "observation.images.far": {
            "dtype": "video",
            "shape": [32, 48, 3],
            "info": {"video.is_depth_map": True},
        },
    }
    edit_info(folder, features=features)
    notes = open_reader(folder).metadata["notes"]
    assert notes == [
        "language holds string, not numbers: left out",
        "observation.images.far is a map of depths: left out",
    ]


def test_choices_are_a_discrete_space(tmp_path):
    folder = write_lerobot_v2(tmp_path / "v2", pictures={})
    info = json.loads((folder / "meta/info.json").read_text())
    features = info["features"] | {"action": {"dtype": "int64", "shape": [1]}}
    edit_info(folder, features=features)
    for i, rows in enumerate(LENGTHS):
        edit_table(table_of(folder, i), "action", pa.array(np.arange(rows) % 4))
    reader = open_reader(folder)
    assert reader.spaces.action.n == 4
    assert next(iter(reader.episodes())).action.tolist() == [0, 1, 2, 3, 0, 1]


def test_splits_are_told_where_there_are_several():
    assert split_names({"splits": {"train": "0:3", "val": "3:9"}}, 4) == ["train"] * 3 + ["val"]
    assert split_names({"splits": {"train": "0:3"}}, 3) == ["", "", ""]
    assert split_names({}, 2) == ["", ""]


def test_a_film_that_is_too_short_is_named(folder):
    write_film(film_of(folder, 2), moving_frames(6, 2))
    with pytest.raises(
        DataError,
        match=r"\.mp4, column '.*top', episode 2, row 6: has no frame at 0.6000 s, of 6 the last",
    ):
        list(open_reader(folder).episodes())


def test_a_film_of_another_rate_is_named(folder):
    write_film(film_of(folder, 2), moving_frames(9, 2), fps=20)
    with pytest.raises(DataError, match=r"episode 2, row 5: has no frame at 0\.5000 s"):
        list(open_reader(folder).episodes())


def test_a_damaged_film_table_or_list_is_named(folder):
    film = film_of(folder, 2)
    film.write_bytes(film.read_bytes()[:100])
    reader = open_reader(folder)
    with pytest.raises(DataError, match=r"\.mp4, column '.*top', episode 2: .*damaged"):
        list(reader.episodes())
    table = table_of(folder, 2)
    table.write_bytes(table.read_bytes()[:100])
    with pytest.raises(DataError, match=rf"{table.name}, column 'action': .*damaged"):
        open_reader(folder)
    (folder / "meta/episodes.jsonl").unlink(missing_ok=True)
    for file in (folder / "meta").glob("episodes/*/*.parquet"):
        file.unlink()
    with pytest.raises(DataError, match=r"meta/episodes"):
        open_reader(folder)


def test_a_list_that_lacks_episodes_is_named_and_never_passed_over(folder):
    older = folder / "meta/episodes.jsonl"
    if older.exists():
        older.write_text("".join(older.read_text().splitlines(keepends=True)[:-1]))
    else:
        file = next(folder.glob("meta/episodes/*/*.parquet"))
        pq.write_table(pq.read_table(file)[:-1], file)
    with pytest.raises(DataError, match=r"meta/episodes.*names \d+ episodes, .* says \d+"):
        open_reader(folder)


def test_rows_that_are_missing_or_out_of_order_are_named(folder):
    table = table_of(folder, 1)
    frames = pq.read_table(table)["frame_index"].to_numpy().copy()
    frames[-2:] = frames[-2:][::-1]
    edit_table(table, "frame_index", pa.array(frames))
    with pytest.raises(DataError, match=r"'frame_index', episode 1: does not count 0 ... 4"):
        list(open_reader(folder).episodes())
    pq.write_table(pq.read_table(table).slice(0, len(frames) - 1), table)
    with pytest.raises(DataError, match=r"'frame_index', episode 1: .* in the 4 rows"):
        list(open_reader(folder).episodes())


def test_empty_cells_are_named(folder):
    table = table_of(folder, 1)
    rewards = pq.read_table(table)["next.reward"].to_pylist()
    edit_table(table, "next.reward", pa.array([None, *rewards[1:]], pa.float32()))
    with pytest.raises(DataError, match=r"'next.reward', episode \d: has 1 empty values"):
        list(open_reader(folder).episodes())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v1.6"}, r"info\.json: has version 'v1.6', expected v2.0, v2.1 or"),
        ({"features": {"action": {"dtype": "float32", "shape": [2]}}}, "'observation': is missing"),
        ({"features": {CAMERA: {"dtype": "video", "shape": [2, 2, 3]}}}, "'action': is missing"),
        ({"features": 3}, r"info\.json: has features 3, expected a dictionary"),
        ({"features": {"action": 3}}, r"info\.json: feature 'action' is 3, expected dtype and"),
        ({"video_path": None}, r"meta/episodes.*: does not say where episodes lie"),
        ({"video_path": "{no_such_name}"}, r"meta/episodes.*no_such_name"),
    ],
)
def test_an_info_file_that_does_not_fit_is_refused(folder, changes, message):
    edit_info(folder, **changes)
    with pytest.raises(DataError, match=message):
        open_reader(folder)


def test_an_info_file_that_lacks_something_is_refused(folder):
    (folder / "meta/info.json").write_text('{"codebase_version": "v3.0", "fps": 1}')
    with pytest.raises(DataError, match=r"info\.json: has no 'features'"):
        open_reader(folder)
    (folder / "meta/info.json").write_text("{")
    with pytest.raises(DataError, match=r"info\.json: .*damaged"):
        open_reader(folder)
