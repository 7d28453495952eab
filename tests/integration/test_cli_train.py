"""`wm train`, `collect`, `convert` and `check` on small things of their own."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from wm_toolkit.cli.main import main
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.training.jobs import prepare_two_rooms

FAST = ("train.updates=3", "train.batch_size=8", "evaluation.episodes=3", "evaluation.budget=10")


def timeless(row):
    """A row as `wm eval --json` prints it, without its milliseconds."""
    kept = {key: value for key, value in row.items() if not key.endswith("_ms")}
    return kept | {"baselines": {k: timeless(v) for k, v in row.get("baselines", {}).items()}}


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "walks.h5"
    prepare_two_rooms(path, episodes=20)
    return path


def said(capsys, *words):
    assert main(list(words)) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_is_repeated_from_its_folder(walks, tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    row = said(
        capsys,
        *("train", "lewm.small", "--data", str(walks), "--run", str(one), "--json"),
        *("--seed", "5", "--set", *FAST),
    )
    assert row["episodes"] == 3
    again = said(capsys, "train", "--config", str(one), "--run", str(two), "--json")
    assert timeless(again) == timeless(row)
    first, second = (load_file(run / "model" / "model.safetensors") for run in (one, two))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert json.loads((two / "config.json").read_text())["train"]["seed"] == 5
    assert (one / "report.html").exists()


def test_a_repeated_run_refuses_other_data(walks, tmp_path, capsys):
    changed, run = tmp_path / "walks.h5", tmp_path / "run"
    prepare_two_rooms(changed, episodes=20)
    words = ("train", "lewm.small", "--data", str(changed), "--run", str(run), "--no-eval")
    assert main([*words, "--set", *FAST]) == 0
    changed.unlink()
    prepare_two_rooms(changed, episodes=20, seed=1)
    assert main(["train", "--config", str(run), "--run", str(tmp_path / "again")]) == 2
    assert "has changed since" in capsys.readouterr().err


def test_eval_on_the_same_data_at_another_place_takes_the_held_out_part(walks, tmp_path, capsys):
    run, copy = tmp_path / "run", tmp_path / "elsewhere.h5"
    words = ("train", "lewm.small", "--data", str(walks), "--run", str(run), "--json")
    row = said(capsys, *words, "--set", *FAST)
    shutil.copy(walks, copy)
    shutil.copytree(run / "model", tmp_path / "artefact")
    again = said(capsys, "eval", str(tmp_path / "artefact"), "--data", str(copy), "--json")
    assert timeless(again) == timeless(row)


def test_a_saved_agent_of_action_blocks_is_recorded_step_by_step(walks, tmp_path, capsys):
    run, target = tmp_path / "run", tmp_path / "planned.h5"
    words = ("train", "lewm.small", "--data", str(walks), "--run", str(run), "--no-eval")
    assert main([*words, "--set", *FAST]) == 0
    record = ("collect", "wm_toolkit/TwoRooms-v0", str(target), "--policy", str(run))
    limit = ("--episodes", "2", "--max-steps", "7")
    assert main([*record, *limit]) == 2
    assert "add --goals" in capsys.readouterr().err
    said(capsys, *record, *limit, "--goals", "--json")
    data = TrajectoryDataset.load(target)
    assert sorted(data.columns)[1:3] == ["obs/goal/image", "obs/image"]
    assert [(len(e), e.action.shape) for e in data] == [(7, (7, 2))] * 2


def test_collect_records_and_goes_on(tmp_path, capsys):
    path = str(tmp_path / "pole.h5")
    made = said(capsys, "collect", "CartPole-v1", path, "--episodes", "4", "--envs", "2", "--json")
    assert made == {"path": path, "format": "hdf5", "episodes": 4, "recorded": 4}
    data = TrajectoryDataset.load(path)
    assert len(data) == 4
    assert data.metadata["env"] == "CartPole-v1"
    assert main(["collect", "CartPole-v1", path]) == 2
    assert "exists" in capsys.readouterr().err


def test_convert_goes_to_minari_and_back_exactly(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    source, back = str(tmp_path / "rooms.h5"), str(tmp_path / "back.h5")
    words = ("--episodes", "3", "--max-steps", "6", "--set", "obs_mode=both", "--json")
    said(capsys, "collect", "wm_toolkit/TwoRooms-v0", source, *words)
    there = said(capsys, "convert", source, "test/rooms-v0", "--json")
    assert (there["format"], there["episodes"]) == ("minari", 3)
    said(capsys, "convert", "test/rooms-v0", back, "--json")
    one, two = TrajectoryDataset.load(source), TrajectoryDataset.load(back)
    for name in ("obs/image", "obs/position", "action", "reward"):
        np.testing.assert_array_equal(one.rows(1)[name], two.rows(1)[name])


def test_inspect_exits_with_one_for_damaged_data(walks, tmp_path, capsys):
    broken = tmp_path / "broken.h5"
    broken.write_bytes(walks.read_bytes()[: walks.stat().st_size // 2])
    assert main(["inspect", str(broken)]) == 1
    assert "broken.h5" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["lewm.small", "shooting", "wm_toolkit/TwoRooms-v0"])
def test_check_passes_our_own(name, capsys):
    report = said(capsys, "check", name, "--json")
    assert report["passed"]
    assert report["failed"] == ""


def test_check_reads_every_row_of_a_data_set(walks, tmp_path, capsys):
    assert (
        said(capsys, "check", str(walks), "--json")["passed"][0] == "every row of the file is sound"
    )
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(walks.read_bytes())
    with h5py.File(damaged, "r+") as file:
        file["columns/action"][5] = np.nan
    assert main(["check", str(damaged)]) == 1
    assert "action" in capsys.readouterr().out


def test_check_fails_a_planner_that_ignores_its_bounds(capsys):
    assert main(["check", f"{__name__}:Wild"]) == 1
    assert "action bounds" in capsys.readouterr().out


class Wild:
    """A planner that always shouts."""

    def plan(self, model, state, objective, *, warm_start=None, generator=None):
        import torch

        from wm_toolkit.planning.base import Plan

        size = len(state)
        return Plan(torch.full((size, 2, model.spaces.action_width), 99.0), torch.zeros(size))
