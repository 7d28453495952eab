"""Cards of converted data sets: what they say, and that they can be written again."""

import numpy as np
import pytest
from gymnasium import spaces as gs

from wm_toolkit.data.card import UNKNOWN_LICENCE, card_path, write_card
from wm_toolkit.data.convert import convert
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.data.native import open_native
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.errors import DataError
from wm_toolkit.spaces import Spaces

SPACES = Spaces(
    {"image": gs.Box(0, 255, (4, 6, 3), np.uint8), "vector": gs.Box(-1, 1, (2,), np.float32)},
    gs.Discrete(3),
)


def walk(steps):
    obs = {
        "image": np.zeros((steps + 1, 4, 6, 3), np.uint8),
        "vector": np.zeros((steps + 1, 2), np.float32),
    }
    never, last = np.zeros(steps, bool), np.arange(steps) == steps - 1
    reward = np.ones(steps, np.float32)
    return Trajectory(
        obs, np.zeros(steps, np.int64), reward, never, last, {"task": np.arange(steps + 1)}
    )


def record(path, **metadata):
    with Hdf5Writer(path, SPACES, metadata=metadata, units={"obs/vector": "m|s"}) as writer:
        writer.add_episode(walk(3))
        writer.add_episode(walk(1200))
    return path


def test_a_card_says_what_the_data_set_is(tmp_path):
    made = {"source": "a robot", "licence": "CC-BY-4.0", "citation": "Who 2026", "env": "Walk-v0"}
    path = record(tmp_path / "walk.h5", name="walks", notes=["sound is left out"], **made)
    text = write_card(path).read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0] == "# walks"
    for line in (
        "| source | a robot |",
        "| licence | CC-BY-4.0 |",
        "| citation | Who 2026 |",
        "| environment | Walk-v0 |",
        "| episodes | 2 |",
        "| steps | 1,203 |",
        "| actions | `Discrete(3)` |",
        f"| SHA-256 of the content | `{open_native(path).checksum}` |",
        "| `obs/image` | uint8 | 4x6x3 |  |",
        "| `obs/vector` | float32 | 2 | m\\|s |",
        "| `action` | int64 | 1 |  |",
        "| `reward` | float32 | 1 |  |",
        "| `task` | int64 | 1 |  |",
        "- sound is left out",
    ):
        assert line in lines
    assert "wm convert" not in text


def test_a_conversion_leaves_a_card_with_its_command(tmp_path):
    source = record(tmp_path / "my walk.h5", source="a robot", licence="MIT")
    native = convert(source, tmp_path / "copy.h5")
    folder = convert(native, tmp_path / "walk-v0", format="minari-arrow")
    card = (tmp_path / "copy.card.md").read_text(encoding="utf-8")
    assert f"wm convert '{source}' {native}" in card
    assert f"| converted from | `{source}`, 2 episodes |" in card
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"wm convert {native} {folder} --format minari-arrow" in card
    for line in ("| source | a robot |", "| licence | MIT |", "| steps | 1,203 |"):
        assert line in card.splitlines()


@pytest.mark.parametrize("said", [{}, {"licence": "", "source": ""}])
def test_an_unknown_licence_is_said_to_be_unknown(tmp_path, said):
    text = write_card(record(tmp_path / "walk.h5", **said)).read_text(encoding="utf-8")
    assert f"| licence | {UNKNOWN_LICENCE} |" in text
    assert "| source | not stated |" in text
    assert "citation" not in text


def test_stored_features_come_with_the_options_that_made_them(tmp_path):
    identity = {
        "encoder": "dinov2",
        "model": "vit_small_patch14_dinov2",
        "weights": "random",
        "image_size": 28,
        "key": "image",
        "dtype": "float16",
    }
    made = {
        "converted_from": {"path": "walk.h5", "episodes": 2},
        "features": {"features/image": identity},
        "dropped": {"image": {}},
    }
    path = record(tmp_path / "encoded.h5", **made)
    text = write_card(path).read_text(encoding="utf-8")
    options = "--encode dinov2_small --encode-set weights=random image_size=28 dtype=float16"
    assert f"wm convert walk.h5 {path} {options} --drop-frames" in text
    assert "| features | features/image: {'encoder': 'dinov2'" in text


def test_the_checksum_of_a_folder_follows_its_bytes(tmp_path):
    source = record(tmp_path / "walk.h5")
    folder = convert(source, tmp_path / "walk-v0")
    first = card_path(folder).read_text(encoding="utf-8")
    card_path(folder).unlink()
    assert write_card(folder).read_text(encoding="utf-8") == first
    assert write_card(folder).read_text(encoding="utf-8") == first, "the card itself counts"
    (folder / "data" / "more.txt").write_text("new")
    assert write_card(folder).read_text(encoding="utf-8") != first


def test_what_is_no_data_set_gets_no_card(tmp_path):
    with pytest.raises(DataError, match="is not a data set"):
        write_card(tmp_path / "nothing.npz")
    assert not list(tmp_path.iterdir())
