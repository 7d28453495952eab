"""Arrays that are used again once nobody holds them."""

from __future__ import annotations

import weakref

import numpy as np

LEAST = 2**16  # bytes; what is smaller is cheap to allocate
KEPT = 8
"""Arrays of one shape that wait to be used again; what comes back beyond that is given to the system."""


class Buffers:
    """Memory for batches.

    Whoever allocates megabytes for every batch makes the system clear them page by page, which takes as
    long as reading them, and threads that do it wait for each other. Here a batch's memory is taken over
    by a later one of the same shape as soon as the last tensor that lies in it is gone.

    Example:
        >>> buffers = Buffers()
        >>> tensor = torch.from_numpy(buffers.gather(frames, rows))
    """

    def __init__(self) -> None:
        self._free: dict[tuple[tuple[int, ...], np.dtype], list[np.ndarray]] = {}

    def gather(self, array: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """array[rows] for row numbers [B, T] that exist, in memory of this pool if it is large."""
        shape = rows.shape + array.shape[1:]
        if array.dtype.itemsize * int(np.prod(shape)) < LEAST:
            return array[rows]
        out = self.empty(shape, array.dtype)
        # Any other mode copies once more; the rows are known to exist.
        return np.take(array, rows, axis=0, out=out, mode="clip")

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Memory of this pool with anything in it; it comes back when the last tensor in it is gone."""
        free = self._free.setdefault((shape, dtype), [])
        try:
            whole = free.pop()
        except IndexError:
            whole = np.empty(shape, dtype)
        view = whole[...]
        weakref.finalize(view, _give_back, free, whole).atexit = False
        return view


def _give_back(free: list[np.ndarray], whole: np.ndarray) -> None:
    if len(free) < KEPT:
        free.append(whole)
