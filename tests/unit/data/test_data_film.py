"""Films: frames by number equal frames in order, few are decoded, damage is named."""

from pathlib import Path

import av
import numpy as np
import pytest
from film_layouts import decoded, moving_frames, write_film

from wm_toolkit import errors
from wm_toolkit.data.film import Film
from wm_toolkit.errors import DataError, MissingPackageError

N = 60
KINDS = {
    "lossless.mp4": {},
    "b_frames.mp4": {"codec": "libx264", "options": {"bf": "3", "b_strategy": "0"}},
    "b_frames.mkv": {"codec": "libx264", "options": {"bf": "3", "b_strategy": "0"}},
    "short_gop.mp4": {"codec": "libx264", "options": {"bf": "2", "b_strategy": "0"}, "gop": 3},
    "open_gop.mp4": {
        "codec": "libx264",
        "options": {"bf": "3", "b_strategy": "0", "x264-params": "open-gop=1"},
    },
    "refreshed.mp4": {"codec": "libx264", "options": {"x264-params": "intra-refresh=1"}},
    "odd_rate.mp4": {"codec": "libx264", "fps": 7, "options": {"bf": "2"}},
    "irregular.mp4": {"codec": "libx264", "times": [40 * i + i * i for i in range(N)]},
    "no_count.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}},
    "fragments.mp4": {"codec": "libx264", "container": {"movflags": "frag_keyframe+empty_moov"}},
    "old.avi": {"codec": "mpeg4"},
    "late_start.mkv": {"codec": "libx264", "times": [100 * i + 300 for i in range(N)]},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12"}},
}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    av.logging.set_level(av.logging.PANIC)
    return {name: write_film(folder / name, moving_frames(N), **how) for name, how in KINDS.items()}


def test_a_lossless_film_gives_back_what_was_written(films):
    with Film(films["lossless.mp4"]) as film:
        assert film.size == (32, 48)
        assert film.frames(range(N)).tobytes() == moving_frames(N).tobytes()
        assert film.decoded == N


@pytest.mark.parametrize("name", KINDS)
def test_frames_by_number_are_those_of_reading_in_order(films, name):
    truth = decoded(films[name])
    assert len(truth) == N
    order = np.random.default_rng(0).permutation(N)
    with Film(films[name]) as film:
        assert len(film) == N
        for number in order.tolist():
            np.testing.assert_array_equal(film.frames([number])[0], truth[number])
        np.testing.assert_array_equal(film.frames(order), truth[order])
        np.testing.assert_array_equal(film.frames([7, 3, 7]), truth[[7, 3, 7]])
        assert film.frames([]).shape == (0, *truth.shape[1:])


@pytest.mark.parametrize("name", [n for n in KINDS if n not in ("refreshed.mp4", "av1.mp4")])
def test_a_window_is_decoded_from_its_key_frame_and_not_from_the_beginning(films, name):
    gop = KINDS[name].get("gop", 12)
    with Film(films[name]) as film:
        film.frames([50, 51, 52, 53])
        assert (
            4 <= film.decoded <= gop + 4 + 4
        )  # and frames that the decoder holds back for their order


@pytest.mark.parametrize("trimmed", [5, 15])
def test_what_an_editor_trimmed_away_has_no_number(tmp_path, films, trimmed):
    path = trim(films["b_frames.mp4"], tmp_path / "trimmed.mp4", trimmed)
    truth = decoded(path)
    np.testing.assert_array_equal(truth, decoded(films["b_frames.mp4"])[trimmed:])
    with Film(path) as film:
        assert len(film) == N - trimmed
        for number in np.random.default_rng(0).permutation(N - trimmed).tolist():
            np.testing.assert_array_equal(film.frames([number])[0], truth[number])


def trim(path, target, count):
    """A copy that begins `count` frames later; frames before stay in the file, for those after them."""
    keep = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(path)) as film, av.open(str(target), "w", options=keep) as out:
        stream = out.add_stream_from_template(film.streams.video[0])
        tick = int(1 / (film.streams.video[0].time_base * 10))
        for packet in film.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - count * tick, packet.dts - count * tick
                packet.stream = stream
                out.mux(packet)
    return target


def test_a_claimed_number_of_frames_is_not_believed(tmp_path, films):
    content = bytearray(films["old.avi"].read_bytes())
    claim = content.index(b"strh") + 8 + 32  # the length in the stream's header
    assert int.from_bytes(content[claim : claim + 4], "little") == N
    content[claim : claim + 4] = (99).to_bytes(4, "little")
    (tmp_path / "lies.avi").write_bytes(content)
    with av.open(str(tmp_path / "lies.avi")) as film:
        assert film.streams.video[0].frames == 99
    with Film(tmp_path / "lies.avi") as film:
        assert len(film) == N
        np.testing.assert_array_equal(film.frames([N - 1]), decoded(films["old.avi"])[-1:])


def test_frames_in_rising_order_are_decoded_once(films):
    with Film(films["b_frames.mp4"]) as film:
        for number in range(N):
            film.frames([number])
        assert film.decoded == N


def test_times_are_those_of_the_frames_and_not_of_the_claimed_rate(films):
    with Film(films["irregular.mp4"]) as film:
        expected = np.array(KINDS["irregular.mp4"]["times"]) / 1000
        np.testing.assert_allclose(film.times, expected, atol=5e-4)
    with Film(films["late_start.mkv"]) as film:  # its first frame is shown at 0.3 s
        np.testing.assert_allclose(film.times, np.arange(N) / 10)


def test_a_frame_that_is_not_there_is_named(films):
    for number in (N, -1):
        with (
            Film(films["b_frames.mp4"], column="image") as film,
            pytest.raises(
                DataError,
                match=rf"b_frames\.mp4, column 'image', episode 3: frame {number}: there are 60",
            ),
        ):
            film.frames([0, number], episode=3)


@pytest.mark.parametrize("kept", [0.5, 0.9, 1.0])
def test_a_film_that_is_cut_off_is_refused(tmp_path, kept):
    how = {**KINDS["b_frames.mp4"], "container": {"movflags": "faststart"}}
    path = write_film(tmp_path / "cut.mp4", moving_frames(N), **how)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size) - 1])
    with pytest.raises(DataError, match=r"cut\.mp4, episode 4: is cut off: box b'mdat'"):
        Film(path, episode=4)


def test_a_film_that_lost_its_index_is_refused(tmp_path, films):
    path = tmp_path / "lost.mp4"
    path.write_bytes(films["b_frames.mp4"].read_bytes()[:2000])
    with pytest.raises(DataError, match=r"lost\.mp4, column 'image', episode 4: .*damaged"):
        Film(path, column="image", episode=4)


def test_a_film_whose_order_cannot_be_known_is_refused(tmp_path):
    path = write_film(tmp_path / "a.avi", moving_frames(9), codec="libx264", options={"bf": "3"})
    with pytest.raises(DataError, match=r"a\.avi: .*order frames are shown; make it an mp4"):
        Film(path)


def test_a_film_without_time_stamps_is_refused(tmp_path):
    path = write_film(tmp_path / "a.h264", moving_frames(9), codec="libx264")
    with pytest.raises(DataError, match=r"a\.h264: 9 frames have 0 time stamps; make it an mp4"):
        Film(path)


@pytest.mark.parametrize("content", [b"", b"no film at all" * 100])
def test_what_is_no_film_is_refused(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mp4"):
        Film(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"missing\.mp4.*No such file"):
        Film(tmp_path / "missing.mp4")


def test_damage_inside_is_named_and_the_frames_before_it_stay_readable(tmp_path, films):
    path = tmp_path / "damaged.mp4"
    truth = decoded(films["b_frames.mp4"])
    with av.open(str(films["b_frames.mp4"])) as film:
        packets = [p for p in film.demux(video=0) if p.size]
    hit = next(p for p in packets if p.is_keyframe and p.pts > packets[30].pts)
    content = bytearray(films["b_frames.mp4"].read_bytes())
    content[hit.pos : hit.pos + hit.size] = bytes(hit.size)
    path.write_bytes(content)
    with Film(path) as film:
        np.testing.assert_array_equal(film.frames(range(30)), truth[:30])
        with pytest.raises(DataError, match=r"damaged\.mp4, episode 2: frame \d+: "):
            film.frames(range(30, N), episode=2)
        np.testing.assert_array_equal(film.frames([5, 29]), truth[[5, 29]])


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(errors.importlib, "import_module", _missing)
    with pytest.raises(MissingPackageError, match=r"wm_toolkit\[video\]"):
        Film(Path("a.mp4"))


def _missing(name):
    raise ModuleNotFoundError(f"No module named {name!r}")
