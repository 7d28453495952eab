"""Pickles: numbers and containers come through, code never runs."""

import collections
import os
import pickle

import numpy as np
import pytest

from wm_toolkit.data.pickled import load_plain
from wm_toolkit.errors import DataError


class Bomb:
    """Makes a folder when a plain pickle.load reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numbers_and_containers_are_read(tmp_path, protocol):
    values = [1, 2.5, True, None, "T", (3, [4]), {"a": {"b": 5}}, 2**70, -1]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(values, protocol))
    assert load_plain(tmp_path / "a.pkl") == values


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_file_that_wants_to_run_code_is_refused_and_the_code_does_not_run(tmp_path, protocol):
    target = tmp_path / "made"
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([3, Bomb(target)], protocol))
    with pytest.raises(DataError, match=r"a\.pkl: it wants to use .*mkdir, which is refused"):
        load_plain(tmp_path / "a.pkl")
    assert not target.exists()
    pickle.loads((tmp_path / "a.pkl").read_bytes())  # the file is a real one: this runs it
    assert target.exists()


@pytest.mark.parametrize("value", [np.float32(1), np.zeros(2), collections.Counter("a"), print])
def test_classes_and_functions_are_refused_whatever_they_are(tmp_path, value):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match="which is refused"):
        load_plain(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "program",
    [b".", b"]K\x01s.", b"K\x01K\x02a.", b"NK\x01b.", b"h\x07.", b"N)R.", b"\xff.", b"P\\\x00\n"],
)
def test_a_garbled_program_is_a_damaged_file(tmp_path, program):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + program)
    with pytest.raises(DataError, match=r"a\.pkl: .*damaged"):
        load_plain(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "program", [b"]r" + (2**28).to_bytes(4, "little") + b".", b"]p300000000\n."]
)
def test_a_few_bytes_cannot_ask_for_gigabytes(tmp_path, program):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + program)
    with pytest.raises(DataError, match=r"a\.pkl: it numbers an object \d+, but has few"):
        load_plain(tmp_path / "a.pkl")


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([1, 2, 3])[:-4])
    with pytest.raises(DataError, match=r"a\.pkl"):
        load_plain(tmp_path / "a.pkl")
    with pytest.raises(DataError, match=r"b\.pkl"):
        load_plain(tmp_path / "b.pkl")
