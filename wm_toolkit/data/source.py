"""What a Trainer needs from data: an endless, resumable stream of batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from wm_toolkit.batch import Batch
from wm_toolkit.spaces import Spaces


@runtime_checkable
class Source(Protocol):
    """An endless stream of batches: a `Loader` over stored windows, or a sampler of a replay buffer.

    `next(source)` never ends; what is iterated is the process's own share of every global batch.
    `state_dict` is JSON-ready and small: a position, or a generator's state. After `load_state_dict`
    the stream continues with exactly the batches that would have followed.
    """

    @property
    def spaces(self) -> Spaces:
        """What the batches hold: observation spaces and the (blocked, encoded) action space."""
        ...

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class StoredSource(Protocol):
    """An endless stream whose state is too much for a dict, such as a replay: it lies in a folder.

    After `load` the stream continues with exactly the batches that would have followed `save`. What is
    saved may share files with where it was saved to before (`previous`), so they are never changed.
    """

    @property
    def spaces(self) -> Spaces:
        """As `Source.spaces`."""
        ...

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def save(self, folder: str | Path, previous: str | Path | None = None) -> None: ...

    def load(self, folder: str | Path) -> None: ...
