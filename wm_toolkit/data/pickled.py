"""Pickled side files of released data sets, read without running what they ask for.

A pickle is a program: it may name any function and call it. Numbers, text and containers need none, so a
reader that refuses every name still reads those.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

from wm_toolkit.data.foreign import reading


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
    with reading(path), path.open("rb") as file:
        try:
            return _PlainUnpickler(file).load()
        except (
            AttributeError,
            IndexError,
            TypeError,
            MemoryError,
        ) as error:  # of a garbled program
            raise pickle.UnpicklingError(str(error) or type(error).__name__) from error
