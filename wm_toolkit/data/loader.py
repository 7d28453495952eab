"""Batches of windows: shuffled, shared out over processes, resumable, read ahead by threads."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from wm_toolkit.batch import Batch
from wm_toolkit.data.buffers import Buffers
from wm_toolkit.data.windows import Windows
from wm_toolkit.errors import CheckpointError, DataError
from wm_toolkit.spaces import Spaces

READ_AHEAD = 2  # batches in flight per thread


class Loader:
    """An endless, resumable stream of batches of windows (a `Source`).

    The order is one permutation per epoch after another, drawn from (seed, epoch). Batch i of the stream
    is positions [i B, (i + 1) B) of it, whatever the number of processes, and every process takes its
    own equal slice. All batches have the same size: an epoch's tail shares its batch with the head of
    the next one, so every window comes exactly once an epoch and none is dropped. `epoch(e)` yields one
    epoch alone.

    Args:
        windows: what to read.
        batch_size: B, windows of a *global* batch; a multiple of `world_size`.
        seed: of the permutations.
        shuffle: false keeps the data set's order.
        rank: number of this process.
        world_size: how many processes share each batch.
        workers: threads that read ahead; 0 reads when asked. The numbers are the same.
        device: where batches go; None leaves them in memory.
        keys: observation and extra columns to read, see `Windows.gather`.

    Raises:
        DataError: if the batch cannot be shared out equally.

    Example:
        >>> loader = Loader(data.windows(4, frame_skip=5), 64, seed=0)
        >>> batch = next(loader)
    """

    def __init__(
        self,
        windows: Windows,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        device: torch.device | str | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise DataError(
                f"batch_size is {batch_size}, expected a positive multiple of the {world_size} processes"
            )
        if not 0 <= rank < world_size:
            raise DataError(f"rank is {rank}, expected 0 to {world_size - 1}")
        self.windows, self.batch_size, self.seed, self.shuffle = windows, batch_size, seed, shuffle
        self.rank, self.world_size, self.workers = rank, world_size, workers
        self.device = None if device is None else torch.device(device)
        self.keys = keys
        self.position = 0
        self._permutation = functools.lru_cache(maxsize=2)(self._draw)
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: deque[Future[Batch]] = deque()
        self._buffers = Buffers()

    @property
    def spaces(self) -> Spaces:
        """What the batches hold."""
        return self.windows.spaces

    def __len__(self) -> int:
        """Batches of `epoch(e)`: the number of windows divided by batch_size, rounded up."""
        return -(-len(self.windows) // self.batch_size)

    # -- the endless stream ----------------------------------------------------------------------
    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self.workers:
            batch = self._load(self.indices(self.position))
        else:
            batch = self._next_ahead()
        self.position += 1
        return self._to_device(batch)

    def indices(self, position: int) -> np.ndarray:
        """Windows [B / world_size] of this process's share of batch `position` of the stream."""
        share = self.batch_size // self.world_size
        first = position * self.batch_size + self.rank * share
        epoch, offset = np.divmod(np.arange(first, first + share), len(self.windows))
        found = np.empty(share, np.int64)
        for number in range(int(epoch[0]), int(epoch[-1]) + 1):
            inside = epoch == number
            found[inside] = self._permutation(number)[offset[inside]]
        return found

    # -- one epoch -------------------------------------------------------------------------------
    def epoch(self, number: int) -> Iterator[Batch]:
        """Every window of one epoch exactly once, over all processes together.

        The epoch is cut into `len(self)` batches of nearly equal size (they differ by at most one
        window, none is a small rest), and so are the processes' shares; every process gets the same
        number of batches. The stream's position is not touched.

        Raises:
            DataError: if a batch would leave a process without a window.
        """
        order = self._permutation(number)
        bounds = np.linspace(0, len(order), len(self) + 1).astype(np.int64)
        if np.diff(bounds).min() < self.world_size:
            raise DataError(
                f"{len(order)} windows in {len(self)} batches leave some of {self.world_size} processes "
                "without a window; use a larger batch_size or fewer processes"
            )
        for start, stop in itertools.pairwise(bounds):
            share = np.array_split(order[start:stop], self.world_size)[self.rank]
            yield self._to_device(self._load(share))

    # -- resuming --------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, JSON-ready; batches read ahead do not count."""
        return {"position": self.position, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken; the number of processes may have changed.

        Raises:
            CheckpointError: if the state belongs to other data, windows, seed or batch size.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise CheckpointError(
                    f"the saved position is for {name}={state.get(name)!r}, this loader has {value!r}"
                )
        self.close()
        self.position = int(state["position"])

    def close(self) -> None:
        """Stop reading ahead; the next batch starts the threads again."""
        self._ahead.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    # -- inside ----------------------------------------------------------------------------------
    def _identity(self) -> dict[str, Any]:
        own = {"batch_size": self.batch_size, "seed": self.seed, "shuffle": self.shuffle}
        return {**own, **self.windows.describe()}

    def _draw(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.windows))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.windows))

    def _load(self, indices: np.ndarray) -> Batch:
        return self.windows.gather(indices, keys=self.keys, buffers=self._buffers)

    def _next_ahead(self) -> Batch:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, "wm-loader")
        while len(self._ahead) < READ_AHEAD * self.workers:
            indices = self.indices(self.position + len(self._ahead))
            self._ahead.append(self._pool.submit(self._load, indices))
        return self._ahead.popleft().result()

    def _to_device(self, batch: Batch) -> Batch:
        if self.device is None or self.device.type == "cpu":
            return batch
        # Only pinned memory is copied to an accelerator beside the computation.
        return batch.map(torch.Tensor.pin_memory).to(self.device)
