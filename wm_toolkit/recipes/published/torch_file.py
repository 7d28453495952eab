"""Reads the tensors of files that torch wrote, whole pickled modules included, without running anything.

Such a file is a zip: one pickle that describes objects, and the bytes of every tensor beside it. The pickle
is read as inert records (`records.py`), and tensors are put together afterwards from what those say. A
module is the record of an object whose state has `_parameters`, `_buffers` and `_modules`.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wm_toolkit.errors import CheckpointError, did_you_mean
from wm_toolkit.recipes.published.records import Record, read_records

DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
TENSOR = "torch._utils._rebuild_tensor_v2"
PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
MAPPINGS = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict")
MODULE = ("_parameters", "_buffers", "_modules")
EMPTY_AXES = 4  # of a tensor without numbers, whose shape nothing else bounds
MOST = 10_000  # records of one file: a description may hold itself, which would never end


class TorchFile:
    """A file written by `torch.save`, opened as data.

    Args:
        path: the file.

    Raises:
        CheckpointError: if it is missing, damaged, or of the old layout that is one bare pickle.

    Example:
        >>> file = TorchFile("checkpoints/model_latest.pth")
        >>> file.names(), file.value("epoch")
        (['epoch', 'predictor', 'action_encoder'], 2)
        >>> file.tensors("predictor")["pos_embedding"].shape
        torch.Size([1, 588, 404])
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._opened() as archive:
            names = archive.namelist()
            found = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(found) != 1:
                raise CheckpointError(f"{self.path} is a zip without torch's data.pkl")
            self._root = found[0].removesuffix("data.pkl")
            order = f"{self._root}byteorder"
            if order in names and self._stored(archive, order) != b"little":
                raise CheckpointError(f"{self.path} was written on a big-endian machine")
            self._content = self._describe(archive, found[0])

    def names(self) -> list[str]:
        """The names on the top level; none if there is one module or tensor only."""
        return [key for key in _mapping(self._content) or {} if isinstance(key, str)]

    def value(self, key: str) -> Any:
        """What is at a name of the top level: plain values, records, and mappings of them.

        Raises:
            CheckpointError: listing the names there are.
        """
        content = _mapping(self._content) or {}
        if key not in content:
            raise CheckpointError(f"{self.path} has no {key!r}.{did_you_mean(key, self.names())}")
        return content[key]

    def tensors(self, key: str | None = None) -> dict[str, Tensor]:
        """The tensors of a module, or of a mapping of tensors, by dotted names.

        Args:
            key: on the top level; None for the whole file.

        Raises:
            CheckpointError: if the name is missing, holds something else, or a tensor is damaged.
        """
        held = self._content if key is None else self.value(key)
        where = f"{key!r} of {self.path}" if key else str(self.path)
        found = _flatten(held, where)
        if not found:
            kind = held if isinstance(held, Record) else type(held).__name__
            raise CheckpointError(f"{where} holds no tensors, but a {kind}")
        with self._opened() as archive:
            return {name: self._build(archive, name, record) for name, record in found.items()}

    def _opened(self) -> zipfile.ZipFile:
        try:
            with self.path.open("rb") as file:
                start = file.read(4)
            if start[:2] != b"PK":
                raise CheckpointError(
                    f"{self.path} is not the zip that torch.save has written since 1.6. If it is an older "
                    "checkpoint, and you trust it, load it where its code is installed and save it again "
                    "with a newer torch"
                )
            return zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise CheckpointError(
                f"{self.path} cannot be read ({error}); it is missing, truncated or damaged"
            ) from error

    def _describe(self, archive: zipfile.ZipFile, member: str) -> Any:
        try:
            return read_records(self._stored(archive, member))
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"the description in {self.path} cannot be read as data ({error}); it is damaged, or it "
                "wants more than to describe objects"
            ) from error

    def _build(self, archive: zipfile.ZipFile, name: str, record: Record) -> Tensor:
        """A tensor from `(storage, offset, shape, strides, ...)`."""
        storage, offset, shape, strides = _tensor_arguments(record, name, self.path)
        kind, key, count = storage
        dtype = DTYPES.get(kind)
        if dtype is None:
            raise CheckpointError(f"{name} of {self.path} is a {kind}; known: {sorted(DTYPES)}")
        if not _fits(shape, strides, offset, count):
            raise CheckpointError(
                f"{name} of {self.path} has shape {shape}, strides {strides} and offset {offset}, more "
                f"than the {count} numbers stored"
            )
        data = self._stored(archive, f"{self._root}data/{key}", count * dtype.itemsize)
        if not data:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(data, dtype=dtype).as_strided(shape, strides, offset).clone()

    def _stored(self, archive: zipfile.ZipFile, member: str, size: int | None = None) -> bytearray:
        """The bytes of a member, which torch never compresses."""
        try:
            info = archive.getinfo(member)
            wanted = info.compress_size if size is None else size
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != wanted:
                raise CheckpointError(
                    f"{self.path} has {info.file_size} bytes in {member}, expected {wanted}, not "
                    "compressed; it is damaged"
                )
            return bytearray(archive.read(info))
        except (KeyError, OSError, RuntimeError, zipfile.BadZipFile, EOFError) as error:
            raise CheckpointError(
                f"{member} of {self.path} cannot be read ({error}); the file is truncated or damaged"
            ) from error


def _fits(shape: tuple[int, ...], strides: tuple[int, ...], offset: int, count: int) -> bool:
    """Whether a view of `count` numbers reads only these, and none more often than there are numbers."""
    if math.prod(shape) == 0:
        return len(shape) <= EMPTY_AXES and max(shape) <= max(count, MOST) and offset <= count
    reach = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    return reach < count and math.prod(shape) <= count


def _mapping(held: Any) -> Mapping[Any, Any] | None:
    if isinstance(held, dict):
        return held
    if isinstance(held, Record) and held.name in MAPPINGS:
        return held.items
    return None


def _flatten(held: Any, where: str) -> dict[str, Record]:
    """The records of tensors below `held`, by dotted names."""
    found: dict[str, Record] = {}
    todo = [("", held)]
    for _ in range(MOST):
        if not todo:
            return found
        prefix, item = todo.pop()
        if isinstance(item, Record) and item.name in (TENSOR, *PARAMETERS):
            found[prefix] = item
            continue
        children = [(n, child) for n, child in _children(item) if isinstance(n, (str, int))]
        todo += [(f"{prefix}.{n}" if prefix else str(n), child) for n, child in reversed(children)]
    raise CheckpointError(f"{where} describes more than {MOST} things inside each other")


def _children(held: Any) -> list[tuple[Any, Any]]:
    """What a module or a mapping holds, by name; nothing for anything else."""
    state = held.state if isinstance(held, Record) else None
    if not (isinstance(state, dict) and all(part in state for part in MODULE)):
        return list((_mapping(held) or {}).items())
    transient = _names(state.get("_non_persistent_buffers_set"))
    parts = [_mapping(state[part]) or {} for part in MODULE]
    return [(n, child) for part in parts for n, child in part.items() if n not in transient]


def _names(held: Any) -> Collection[Any]:
    """The elements of a set, which a pickle writes as a call of `set` or of its own kind."""
    if isinstance(held, Record) and held.name == "builtins.set" and held.args:
        held = held.args[0]
    return held if isinstance(held, (list, tuple, set, frozenset)) else ()


def _tensor_arguments(
    record: Record, name: str, path: Path
) -> tuple[tuple[str, str, int], int, tuple[int, ...], tuple[int, ...]]:
    """Storage, offset, shape and strides that a tensor's record gives.

    Raises:
        CheckpointError: if it gives something else.
    """
    if record.name in PARAMETERS and record.args and isinstance(record.args[0], Record):
        record = record.args[0]
    given = record.args[:4]
    if record.name == TENSOR and len(given) == 4:
        storage, offset, shape, strides = given
        whole = isinstance(shape, tuple) and isinstance(strides, tuple)
        if (
            whole
            and isinstance(storage, tuple)
            and len(storage) == 3
            and len(shape) == len(strides)
        ):
            numbers = (offset, *shape, *strides)
            if all(type(number) is int and 0 <= number < 2**63 for number in numbers):
                return storage, offset, shape, strides
    raise CheckpointError(f"{name} of {path} is described as {record!r} with other arguments")
