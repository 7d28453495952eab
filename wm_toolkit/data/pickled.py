"""Pickled side files of released data sets, read without running what they ask for.

A pickle is a program: it may name any function and call it. Numbers, text and containers need none, so a
reader that refuses every name still reads those.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import warnings
from pathlib import Path
from typing import Any, NoReturn

from wm_toolkit.data.foreign import reading

# These give an object a number; an unpickler keeps a table as long as the largest.
NUMBERING = ("PUT", "BINPUT", "LONG_BINPUT")
# What a garbled program makes an unpickler raise.
GARBLED = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        """Refuse every function and class."""
        raise pickle.UnpicklingError(
            f"it wants to use {module_name}.{global_name}, which is refused: only numbers, text and "
            "containers of them are loaded"
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse every object kept elsewhere."""
        raise pickle.UnpicklingError(f"it refers to the outside object {pid!r}, which is refused")


def load_plain(path: Path) -> Any:
    """Numbers, text and containers of them from a pickle; nothing else is admitted.

    Args:
        path: the file.

    Raises:
        DataError: naming the file, and the function or class that it wants to use.

    Example:
        >>> load_plain(Path("pusht_noise/train/seq_lengths.pkl"))[:3]
        [73, 246, 121]
    """
    with reading(path):
        return run_program(path.read_bytes(), _PlainUnpickler)


def run_program(program: bytes | bytearray, unpickler: type[pickle.Unpickler]) -> Any:
    """What a pickle gives to an unpickler that decides which names it may use.

    Raises:
        UnpicklingError: if it is garbled, wants what is refused, or would take more memory for numbers of
            objects than it has bytes.
    """
    try:
        _check_numbers(program)
        return unpickler(io.BytesIO(program)).load()
    except GARBLED as error:
        raise pickle.UnpicklingError(str(error) or type(error).__name__) from error


def _check_numbers(program: bytes | bytearray) -> None:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of garbled text
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name in NUMBERING and argument is not None and argument > len(program):
                raise pickle.UnpicklingError(f"it numbers an object {argument}, but has few")
