"""Reads a pickle as a description: every class and function it names becomes an inert record.

A pickle is a program that may name any function and have it called. Here a name is never looked up, and
calling one only writes its arguments down, so nothing that a file holds is ever run.
"""

from __future__ import annotations

import pickle
from typing import IO, Any

from wm_toolkit.data.pickled import run_program


class Record:
    """What a pickle said about an object: it is named, but never made.

    Attributes:
        name: of the class or function, "models.vit.ViTPredictor".
        args: it was to be called with.
        state: its attributes, or None.
        items: what was put into it by key.
    """

    name = ""
    args: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]

    def __new__(cls, *args: Any, **_: Any) -> Record:
        """Write the arguments down."""
        record = super().__new__(cls)
        record.args, record.state, record.items = args, None, {}
        return record

    def __setstate__(self, state: Any) -> None:
        """Write the attributes down."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write an item down."""
        self.items[key] = value

    def append(self, value: Any) -> None:
        """Write an element down."""
        self.items[len(self.items)] = value

    def __repr__(self) -> str:
        return f"<record of {self.name}>"


def read_records(program: bytes | bytearray) -> Any:
    """What a pickle of torch describes: plain values and records, storages as (kind, key, count).

    Raises:
        UnpicklingError: if it is garbled, or wants more than to describe objects.
    """
    return run_program(program, _Unpickler)


class _Unpickler(pickle.Unpickler):
    """Gives every class and function as a kind of `Record`, and every storage as what is said of it."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._kinds: dict[str, type[Record]] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """A kind of record with this name; nothing is imported."""
        name = f"{module_name.replace('__builtin__', 'builtins')}.{global_name}"
        if name not in self._kinds:
            self._kinds[name] = type("Record", (Record,), {"name": name})
        return self._kinds[name]

    def persistent_load(self, pid: Any) -> tuple[str, str, int]:
        """(kind, key, count) of a storage."""
        if isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage":
            _, kind, key, _, count = pid
            if isinstance(kind, type) and isinstance(key, str) and type(count) is int:
                return kind.name, key, count
        raise pickle.UnpicklingError("it refers to an outside object that is no storage")
