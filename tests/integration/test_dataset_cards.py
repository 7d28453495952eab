"""The data set catalog: cards, prepare scripts, and samples that survive every conversion bit for bit."""

import importlib.util
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from wm_toolkit import catalog
from wm_toolkit.data.convert import convert
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats import FORMATS, find_format, open_reader
from wm_toolkit.errors import DataError

ROOT = catalog.root("datasets")
ENTRIES = catalog.entries("datasets")
SAMPLES = sorted({entry.extra["sample"] for entry in ENTRIES.values()})
RELEASES = [name for name, entry in ENTRIES.items() if "fetch" in entry.extra]
SAMPLE_BYTES = 400_000


def script(path):
    """A file of the catalog as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def release():
    return script(ROOT / "prepare" / "release.py")


def episodes(path):
    return list(open_reader(path).episodes())


def assert_same(found, expected):
    """Equal in every number, type and shape."""
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("obs", "extras"):
            assert getattr(ours, name).keys() == getattr(theirs, name).keys()
            for key, values in getattr(theirs, name).items():
                assert_equal(getattr(ours, name)[key], values)
        for name in ("action", "terminated", "truncated"):
            assert_equal(getattr(ours, name), getattr(theirs, name))
        assert (ours.reward is None) == (theirs.reward is None)
        if theirs.reward is not None:
            assert_equal(ours.reward, theirs.reward)


def assert_equal(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_has_a_card_a_script_and_a_sample(name):
    entry = ENTRIES[name]
    card = (ROOT / entry.extra["card"]).read_text(encoding="utf-8")
    assert name in card
    for said in ("Source", "icence", "prepare/"):
        assert said in card
    assert (ROOT / "prepare" / f"{name.replace('-', '_')}.py").is_file()
    found = find_format(ROOT / entry.extra["sample"])
    assert found is not None
    assert found[0].name == entry.extra["format"]
    assert entry.licence
    assert entry.source


def test_every_format_that_can_be_read_has_an_entry():
    ours = {"minari-arrow", "replay"}  # another file type, and what a run writes itself
    assert set(FORMATS.names()) - ours <= {e.extra["format"] for e in ENTRIES.values()}


def test_every_format_is_described_in_other_words():
    from wm_toolkit.cli.list import formats

    said = formats()
    assert set(said) == set(FORMATS.names())
    assert len(set(said.values())) == len(said)
    assert "Arrow" in said["minari-arrow"]


def test_the_samples_are_small():
    files = [path for path in (ROOT / "samples").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < SAMPLE_BYTES


def test_the_samples_hold_what_their_script_makes(tmp_path):
    script(ROOT / "samples" / "make.py").make_samples(tmp_path)
    for sample in SAMPLES:
        assert_same(
            episodes(ROOT / sample), episodes(tmp_path / Path(sample).relative_to("samples"))
        )


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_is_the_same_in_the_native_format_and_in_both_of_minari(tmp_path, sample):
    expected = episodes(ROOT / sample)
    native = convert(ROOT / sample, tmp_path / "data.h5")
    assert_same(episodes(native), expected)
    for format in ("minari", "minari-arrow"):
        target = tmp_path / format / "data-v0"
        assert_same(episodes(convert(ROOT / sample, target, format=format)), expected)
    back = convert(tmp_path / "minari" / "data-v0", tmp_path / "back.h5")
    checksums = [TrajectoryDataset.load(path).checksum for path in (native, back)]
    assert checksums[0] == checksums[1]


@pytest.mark.parametrize(
    ("sample", "format"),
    [
        *((sample, "hdf5") for sample in SAMPLES),
        *(("samples/stable_worldmodel/walks.h5", format) for format in ("minari", "minari-arrow")),
    ],
)
def test_an_interrupted_conversion_goes_on_after_the_finished_episodes(tmp_path, sample, format):
    target = tmp_path / ("data.h5" if format == "hdf5" else "data-v0")
    done = []

    def stop(count, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(ROOT / sample, target, format=format, progress=stop)
    assert not target.exists()
    convert(ROOT / sample, target, format=format, progress=lambda *counts: done.append(counts))
    expected = episodes(ROOT / sample)
    assert done == [(i, len(expected)) for i in range(2, len(expected) + 1)]
    assert_same(episodes(target), expected)


@pytest.mark.parametrize("name", RELEASES)
def test_a_prepared_release_keeps_its_source_and_licence(tmp_path, release, name):
    entry = ENTRIES[name]
    native = release.prepare(entry, str(ROOT / entry.extra["sample"]), tmp_path / f"{name}.h5")
    assert_same(episodes(native), episodes(ROOT / entry.extra["sample"]))
    folder = convert(native, tmp_path / "data-v0")
    again = convert(folder, tmp_path / "again.h5")
    said = [open_reader(path).metadata for path in (native, folder, again)]
    assert said[0]["source"]
    for key in ("source", "citation", "licence", "name"):
        assert [metadata.get(key) for metadata in said] == [said[0].get(key)] * 3
    if not entry.extra.get("family"):
        assert said[0]["name"] == name
        assert said[0]["source"] == entry.source
        assert said[0]["licence"] in (entry.licence, f"see {entry.source}")
    for card in (native.with_suffix(".card.md"), folder / "README.md", tmp_path / "again.card.md"):
        text = card.read_text(encoding="utf-8")
        assert f"| source | {said[0]['source']} |" in text
        assert said[0].get("licence", "not stated in the data") in text


def test_a_prepared_release_lies_where_its_name_is_looked_for(release, capsys):
    assert release.main("point_maze", [str(ROOT / ENTRIES["point_maze"].extra["sample"])]) == 0
    assert "point_maze.h5" in capsys.readouterr().out
    assert len(TrajectoryDataset.load("point_maze")) == 2


def test_one_of_a_family_is_named_after_its_file(release, capsys):
    for name, stem in (("d4rl_file", "walks"), ("ogbench_file", "visual-walks-v0")):
        assert release.main(name, [str(ROOT / ENTRIES[name].extra["sample"])]) == 0
        assert f"{stem}.h5" in capsys.readouterr().out
        assert TrajectoryDataset.load(stem).name == stem


def test_a_release_of_another_layout_is_refused(release, capsys):
    sample = str(ROOT / ENTRIES["ogbench_file"].extra["sample"])
    assert release.main("lewm_pusht", [sample]) == 1
    said = capsys.readouterr().err
    assert "has the layout 'ogbench', expected 'stable_worldmodel' of 'lewm_pusht'" in said


def test_a_script_without_a_source_says_how_to_fetch_it(release, capsys):
    assert release.main("lewm_pusht", []) == 2
    said = capsys.readouterr().err
    assert "hf download quentinll/lewm-pusht" in said
    assert "zstd -d" in said


def test_an_address_is_fetched_once_and_an_archive_unpacked(tmp_path, release):
    shutil.make_archive(str(tmp_path / "wall"), "zip", ROOT / "samples", "wall_single")
    address = (tmp_path / "wall.zip").as_uri()
    found = release.fetch(ENTRIES["wall_single"], address)
    assert_same(episodes(found), episodes(ROOT / "samples" / "wall_single"))
    (tmp_path / "wall.zip").unlink()
    assert release.fetch(ENTRIES["wall_single"], address) == found


@pytest.mark.parametrize("name", ["wall.zip", "wall.tar.zst", "wall.h5.zst"])
def test_a_damaged_archive_is_named(tmp_path, release, monkeypatch, name):
    packed = tmp_path / name
    packed.write_bytes(b"PK damaged")
    monkeypatch.setattr(shutil, "which", lambda program: program)
    monkeypatch.setitem(release.UNPACK, ".tar.zst", ["false"])
    monkeypatch.setitem(release.UNPACK, ".zst", ["false"])
    with pytest.raises(DataError, match=rf"{name} cannot be unpacked .*; delete it"):
        release.fetch(ENTRIES["wall_single"], packed.as_uri())


def test_a_packed_file_needs_zstd_and_says_so(tmp_path, release, monkeypatch):
    packed = tmp_path / "data.h5.zst"
    packed.write_bytes(b"packed")
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(DataError, match=r"install it, then run: zstd -d -k -f .*data\.h5\.zst"):
        release.fetch(ENTRIES["lewm_pusht"], packed.as_uri())


def test_what_cannot_be_fetched_comes_with_the_commands(tmp_path, release):
    with pytest.raises(DataError, match="by hand: hf download facebook/jepa-wms"):
        release.fetch(ENTRIES["wall_single"], (tmp_path / "nothing.zip").as_uri())
    with pytest.raises(DataError, match="names no single file on the hub"):
        release.fetch(ENTRIES["rope"], "hub")


class Bomb:
    """Unpickled by Python's own reader, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize(
    ("name", "file"),
    [("point_maze", "seq_lengths.pkl"), ("pusht_noise", "train/seq_lengths.pkl")],
)
def test_a_pickled_side_file_that_wants_to_run_code_is_refused(tmp_path, release, name, file):
    folder, proof = tmp_path / "release", tmp_path / "it ran"
    shutil.copytree(ROOT / ENTRIES[name].extra["sample"], folder)
    (folder / "seq_lengths.pth").unlink(missing_ok=True)
    (folder / file).write_bytes(pickle.dumps(Bomb(proof)))
    with pytest.raises(DataError, match="which is refused"):
        release.prepare(ENTRIES[name], str(folder), tmp_path / "native.h5")
    assert not proof.exists()
    pickle.loads((folder / file).read_bytes())
    assert proof.exists(), "the file is harmless, so it shows nothing"
