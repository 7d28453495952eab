"""`wm convert` from released folders to native and Minari: what is decoded arrives bit for bit."""

import json

import numpy as np
import pytest
from film_layouts import (
    write_deformable,
    write_lerobot_v2,
    write_lerobot_v3,
    write_point_maze,
    write_pusht,
    write_wall_single,
)

from wm_toolkit.cli.main import main
from wm_toolkit.data.convert import convert
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats import open_reader

LOSSY = {"codec": "libx264", "options": {"bf": "3"}}
LAYOUTS = {
    "pusht_noise": lambda folder: write_pusht(folder, film=LOSSY),
    "point_maze": write_point_maze,
    "wall_single": write_wall_single,
    "rope": write_deformable,
    "lerobot_v2": lambda folder: write_lerobot_v2(folder, film=LOSSY),
    "lerobot_v3": lambda folder: write_lerobot_v3(folder, film=LOSSY),
}


@pytest.fixture(params=LAYOUTS)
def source(request, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return LAYOUTS[request.param](tmp_path / request.param)


def assert_same(one, other):
    assert sorted(one.obs) == sorted(other.obs)
    assert sorted(one.extras) == sorted(other.extras)
    assert one.info == dict(other.info)
    pairs = [(one.action, other.action), (one.truncated, other.truncated)]
    pairs += [(one.obs[k], other.obs[k]) for k in one.obs]
    pairs += [(one.extras[k], other.extras[k]) for k in one.extras]
    assert (one.reward is None) == (other.reward is None)
    pairs += [] if one.reward is None else [(one.reward, other.reward)]
    for mine, theirs in pairs:
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape
        assert mine.tobytes() == np.ascontiguousarray(theirs).tobytes()
    assert not other.terminated.any()


@pytest.mark.parametrize("target", ["native.h5", "test/folder-v0"])
def test_a_released_folder_is_converted_exactly(source, target, tmp_path, capsys):
    place = str(tmp_path / target) if target.endswith("h5") else target
    assert main(["convert", str(source), place, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    reader, copy = open_reader(source), open_reader(said["path"])
    assert said["episodes"] == len(copy) == len(reader) >= 3
    for one, other in zip(reader.episodes(), copy.episodes(), strict=True):
        assert_same(one, other)
    kept = {name: value for name, value in reader.metadata.items() if name != "name"}
    assert {name: copy.metadata[name] for name in kept} == kept
    assert copy.units == reader.units


def test_an_interrupted_conversion_goes_on(source, tmp_path):
    class Stop(Exception):
        pass

    def stop(done, of):
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        convert(source, tmp_path / "native.h5", progress=stop)
    seen = []
    convert(source, tmp_path / "native.h5", progress=lambda done, of: seen.append(done))
    reader, native = open_reader(source), TrajectoryDataset.load(tmp_path / "native.h5")
    assert seen == list(range(3, len(reader) + 1))
    for one, other in zip(reader.episodes(), native, strict=True):
        assert_same(one, other)


def test_a_converted_folder_gives_windows(source, tmp_path):
    native = TrajectoryDataset.load(source)  # converts once, into the cache
    windows = native.windows(2)
    batch = windows.gather([0, len(windows) - 1])
    first = next(iter(open_reader(source).episodes()))
    np.testing.assert_array_equal(batch.obs["image"][0].numpy(), first.obs["image"][:2])
    np.testing.assert_allclose(batch.obs["proprio"][0].numpy(), first.obs["proprio"][:2])
