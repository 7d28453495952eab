"""Files of torch are read as data: tensors come out, nothing is run."""

from __future__ import annotations

import builtins
import os
import pickle
import re
import shutil
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wm_toolkit.errors import CheckpointError
from wm_toolkit.recipes.published.records import Record
from wm_toolkit.recipes.published.torch_file import TorchFile


class Calls:
    """Pickled, it wants to call a function with arguments."""

    def __init__(self, function, *args) -> None:
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


class Sets:
    """Pickled, it wants to make an object with `args` and set its state."""

    def __init__(self, state) -> None:
        self.state = state

    def __reduce__(self):
        return Sets, (None,), self.state


@pytest.fixture
def sentinel(tmp_path):
    """A file that any code of a checkpoint would create."""
    return tmp_path / "it_ran"


def saved(content, folder: Path) -> Path:
    torch.save(content, folder / "file.pth")
    return folder / "file.pth"


class Tower(nn.Module):
    """Parameters, buffers (one that is not saved), absent parameters, plain tensors, shared ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
        self.tied = nn.Linear(3, 4, bias=False)
        self.tied.weight = self.first[0].weight
        self.register_buffer("mask", torch.ones(2, 2).tril())
        self.register_buffer("passing", torch.zeros(5), persistent=False)
        self.register_buffer("nothing", None)
        self.plain = torch.ones(7)


def assert_equal(actual, wanted) -> None:
    assert list(actual) == list(wanted)
    for name, value in wanted.items():
        assert actual[name].dtype == value.dtype
        assert torch.equal(actual[name], value), name


# -- what is read ------------------------------------------------------------------------------------
def test_a_pickled_module_gives_its_state_dict(tmp_path):
    tower = Tower()
    file = TorchFile(saved({"model": tower, "epoch": 3}, tmp_path))
    assert file.names() == ["model", "epoch"]
    assert file.value("epoch") == 3
    got = file.tensors("model")
    wanted = tower.state_dict()
    assert got.keys() == wanted.keys()
    assert_equal({name: got[name] for name in wanted}, wanted)


def test_a_module_of_a_class_that_does_not_exist_here_is_read(tmp_path, monkeypatch):
    class Net(nn.Linear):
        """Lives in a module that is gone when the file is read."""

    Net.__module__, Net.__qualname__ = "theirs.nets", "Net"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "theirs", types.ModuleType("theirs"))
        patch.setitem(sys.modules, "theirs.nets", types.ModuleType("theirs.nets"))
        sys.modules["theirs.nets"].__dict__["Net"] = Net
        net = Net(2, 1)
        path = saved({"net": net}, tmp_path)
    file = TorchFile(path)
    assert file.value("net").name == "theirs.nets.Net"
    assert_equal(file.tensors("net"), net.state_dict())
    assert "theirs" not in sys.modules


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(6, dtype=torch.float64).reshape(2, 3),
        torch.arange(6).reshape(2, 3).mT,
        torch.arange(12, dtype=torch.int32)[2::3],
        torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).bfloat16(),
        torch.tensor([1.5, -2.0]).half(),
        torch.tensor(3, dtype=torch.int64),
        torch.tensor([True, False]),
        torch.tensor([255, 3], dtype=torch.uint8),
        torch.zeros(0, 3),
        nn.Parameter(torch.ones(2, 2)),
    ],
)
def test_every_kind_of_tensor_comes_out_as_it_went_in(tmp_path, value):
    assert_equal(TorchFile(saved({"x": value}, tmp_path)).tensors(), {"x": value.detach()})


@given(st.lists(st.integers(1, 4), max_size=4), st.randoms())
@settings(max_examples=25, deadline=None)
def test_any_view_of_a_storage_comes_out_as_torch_reads_it(tmp_path_factory, shape, random):
    value = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    order = list(range(len(shape)))
    random.shuffle(order)
    view = value.permute(order)[..., :1] if shape else value
    path = saved(OrderedDict(x=view), tmp_path_factory.mktemp("view"))
    assert_equal(TorchFile(path).tensors(), torch.load(path, weights_only=True))


def test_views_of_one_storage_are_apart_afterwards(tmp_path):
    base = torch.zeros(4)
    got = TorchFile(saved({"a": base[:2], "b": base[1:]}, tmp_path)).tensors()
    got["a"].fill_(1)
    assert not got["b"].any()


def test_names_of_nested_mappings_are_joined_by_dots(tmp_path):
    content = {"state": OrderedDict({"net.0.weight": torch.ones(1)}), "other": {"x": torch.ones(2)}}
    assert list(TorchFile(saved(content, tmp_path)).tensors()) == ["state.net.0.weight", "other.x"]


# -- nothing is run ------------------------------------------------------------------------------------
def payloads(sentinel: Path) -> dict[str, object]:
    touch = f"open({str(sentinel)!r}, 'w').close()"
    return {
        "os.system": Calls(os.system, f"touch {sentinel}"),
        "eval": Calls(eval, f"__import__('pathlib').Path({str(sentinel)!r}).touch()"),
        "exec": Calls(exec, touch),
        "open": Calls(open, str(sentinel), "w"),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "subprocess": Calls(subprocess.call, ["touch", str(sentinel)]),
        "shutil": Calls(shutil.copyfile, __file__, str(sentinel)),
        "torch.load": Calls(torch.load, str(sentinel)),
    }


PAYLOADS = sorted(payloads(Path("x")))


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_becomes_a_record_of_what_it_wanted(tmp_path, sentinel, name):
    path = saved({"bad": payloads(sentinel)[name], "x": torch.ones(2)}, tmp_path)
    file = TorchFile(path)
    record = file.value("bad")
    assert isinstance(record, Record)
    assert record.args
    assert_equal(file.tensors(), {"x": torch.ones(2)})
    assert not sentinel.exists()


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_that_stands_for_a_tensor_or_a_module_is_refused(tmp_path, sentinel, name):
    file = TorchFile(saved({"model": payloads(sentinel)[name]}, tmp_path))
    with pytest.raises(CheckpointError, match=r"'model' of .* holds no tensors, but a <record of"):
        file.tensors("model")
    assert not sentinel.exists()


def test_the_same_payload_runs_when_torch_is_allowed_to_run_it(tmp_path, sentinel):
    """So that the tests above can fail."""
    path = saved({"bad": payloads(sentinel)["os.system"]}, tmp_path)
    torch.load(path, weights_only=False)
    assert sentinel.exists()


def test_a_payload_hidden_in_a_module_is_never_called(tmp_path, sentinel):
    tower = Tower()
    tower.hook = payloads(sentinel)["os.system"]
    tower._parameters["extra"] = payloads(sentinel)["eval"]
    tower.first[0].weight.grad_fn_like = payloads(sentinel)["exec"]
    got = TorchFile(saved({"model": tower}, tmp_path)).tensors("model")
    assert "extra" not in got
    assert torch.equal(got["first.0.weight"], tower.first[0].weight)
    assert not sentinel.exists()


def test_attributes_are_written_down_and_never_set(tmp_path):
    """An object's own `__setstate__` or attributes cannot reach anything that exists."""
    file = TorchFile(saved({"bad": Sets({"name": "torch._utils._rebuild_tensor_v2"})}, tmp_path))
    record = file.value("bad")
    assert record.name.endswith(".Sets")
    assert Record.name == ""


def described(folder: Path, program: bytes, members: dict[str, bytes] | None = None) -> Path:
    """A file of torch whose description is a hand-written pickle program."""
    path = folder / "file.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, data in (members or {}).items():
            archive.writestr(f"archive/{name}", data)
    return path


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n}S'name'\nS'x'\nsb.",  # set attributes of the function itself
        b"cbuiltins\neval\n(S'x'\nS'y'\nu.",  # put items into the function itself
        b"cbuiltins\neval\nS'x'\na.",  # append to it
        b"(S'touch it_ran'\nios\nsystem\n)R.",  # call what calling it gave
        b"Pexternal\n.",  # an object kept elsewhere
        b"(S'storage'\nS'kind'\nS'0'\nS'cpu'\nI1\ntQ.",  # a storage of no class
        b"\x82\x01.",  # an extension code
        b"\x97.",  # an out-of-band buffer
        b"}r\xff\xff\xff\x7f.",  # a table of two billion objects
        b"}p99999999999\n.",
        b"\x8e\xff\xff\xff\xff\x0f\0\0\0.",  # bytes of 64 GiB
        b"\x96\xff\xff\xff\xff\x0f\0\0\0.",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",  # a frame of more than there is
        b"cos\nsystem\n.garbage",
        b"",
        b"}",
        b"I1\n0.",
    ],
)
def test_programs_that_want_more_than_to_describe_are_refused(tmp_path, program, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="file"):
        TorchFile(described(tmp_path, program)).tensors()
    assert not (tmp_path / "it_ran").exists()
    assert "name" not in vars(Record) or Record.name == ""
    assert not hasattr(builtins.eval, "name")


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_program_is_read_as_data_or_refused(tmp_path_factory, program):
    path = described(tmp_path_factory.mktemp("any"), program)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        TorchFile(path).tensors()  # no program that chance writes describes a tensor


# -- damage ------------------------------------------------------------------------------------------
def tensor_program(shape: str, strides: str, offset: int = 0, count: int = 4, kind="FloatStorage"):
    """A description of one tensor under the name "x"."""
    return (
        f"(dS'x'\nctorch._utils\n_rebuild_tensor_v2\n"
        f"((S'storage'\nctorch\n{kind}\nS'0'\nS'cpu'\nI{count}\ntQ"
        f"I{offset}\n({shape}t({strides}tI00\n(dtRs."
    ).encode()


FOUR = {"data/0": torch.arange(4.0).numpy().tobytes()}


def test_a_hand_written_description_of_a_tensor_is_read(tmp_path):
    path = described(tmp_path, tensor_program("I2\nI2\n", "I2\nI1\n"), FOUR)
    assert_equal(TorchFile(path).tensors(), {"x": torch.arange(4.0).reshape(2, 2)})


@pytest.mark.parametrize(
    ("program", "members", "message"),
    [
        (tensor_program("I2\nI3\n", "I3\nI1\n"), FOUR, "more than the 4 numbers stored"),
        (tensor_program("I2\n", "I9\n"), FOUR, "more than the 4 numbers stored"),
        (tensor_program("I4\n", "I1\n", offset=1), FOUR, "more than the 4 numbers stored"),
        (tensor_program("I99999999\n", "I0\n"), FOUR, "more than the 4 numbers stored"),
        (tensor_program("I0\n" + 40 * "I9999\n", 41 * "I1\n"), FOUR, "more than the 4 numbers"),
        (tensor_program("I-4\n", "I1\n"), FOUR, "with other arguments"),
        (tensor_program("I4\n", "I1\nI1\n"), FOUR, "with other arguments"),
        (tensor_program("I4\n", "S'1'\n"), FOUR, "with other arguments"),
        (tensor_program("I4\n", "I1\n"), {}, "archive/data/0 of .* cannot be read"),
        (
            tensor_program("I4\n", "I1\n"),
            {"data/0": b"123"},
            "has 3 bytes in archive/data/0, expected 16",
        ),
        (tensor_program("I4\n", "I1\n", kind="QInt8Storage"), FOUR, "is a torch.QInt8Storage"),
    ],
)
def test_descriptions_that_do_not_fit_their_numbers_are_refused(
    tmp_path, program, members, message
):
    with pytest.raises(CheckpointError, match=message):
        TorchFile(described(tmp_path, program, members)).tensors()


def test_a_description_that_holds_itself_ends(tmp_path):
    program = b"(dp0\nS'x'\ng0\nsS'y'\ng0\ns."
    with pytest.raises(CheckpointError, match="describes more than 10000 things"):
        TorchFile(described(tmp_path, program)).tensors()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = saved({"model": Tower()}, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"file\.pth (cannot be read|is not the zip)"):
        TorchFile(path)


def test_flipped_bytes_of_a_tensor_are_noticed(tmp_path):
    value = torch.arange(64.0)
    path = saved({"x": value}, tmp_path)
    data = bytearray(path.read_bytes())
    place = data.find(value.numpy().tobytes())
    data[place + 8] ^= 255
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"data/0 of .* cannot be read \(Bad CRC"):
        TorchFile(path).tensors()


def test_the_old_layout_is_refused_with_the_way_out(tmp_path):
    torch.save(Tower(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"not the zip .* save it again with a newer torch"):
        TorchFile(tmp_path / "old.pth")


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06" + 18 * b"\0", pickle.dumps([1])])
def test_other_files_are_refused(tmp_path, data):
    (tmp_path / "file.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"file\.pth"):
        TorchFile(tmp_path / "file.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth cannot be read"):
        TorchFile(tmp_path / "none.pth")


@pytest.mark.parametrize("member", ["data.pkl", "data/0"])
def test_a_compressed_member_is_refused(tmp_path, member):
    """Torch writes none, and a few bytes could become many."""
    program = {"data.pkl": tensor_program("I4\n", "I1\n"), **FOUR}
    with zipfile.ZipFile(tmp_path / "file.pth", "w") as archive:
        for name, data in program.items():
            kind = zipfile.ZIP_DEFLATED if name == member else zipfile.ZIP_STORED
            archive.writestr(f"archive/{name}", data, kind)
    with pytest.raises(CheckpointError, match="not compressed"):
        TorchFile(tmp_path / "file.pth").tensors()


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    file = TorchFile(saved({"predictor": Tower()}, tmp_path))
    with pytest.raises(CheckpointError, match=r"no 'predicter'\. Did you mean 'predictor'"):
        file.tensors("predicter")


def test_a_file_of_a_big_endian_machine_is_refused(tmp_path):
    path = described(tmp_path, tensor_program("I4\n", "I1\n"), {**FOUR, "byteorder": b"big"})
    with pytest.raises(CheckpointError, match="big-endian"):
        TorchFile(path)
