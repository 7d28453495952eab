"""Updates that a device repeats by itself: their kernels are recorded once and launched all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from wm_toolkit.batch import Batch, Metrics
from wm_toolkit.errors import ConfigError

Work = Callable[[], Tensor]
Record = Callable[[Work], tuple[Callable[[], None], Tensor]]
"""Records work; returns what repeats it, and the tensor that each repetition writes its result into."""


class Beside(Protocol):
    """Keeps what an update makes beside its metrics (`model_learner.Program`)."""

    pieces: list[dict[str, Tensor]]


WARM_UP = 3
"""Updates before the recording: by then every buffer, workspace and moment of the optimiser is there."""


def cuda_graph(work: Work) -> tuple[Callable[[], None], Tensor]:
    """Record as a CUDA graph; draws go on from the device's generator, replay by replay.

    Raises:
        ConfigError: if there is no CUDA device, or the work does what a graph cannot hold.
    """
    if not torch.cuda.is_available():
        raise ConfigError(
            "a CUDA graph needs a CUDA device, and there is none; leave cuda_graphs off"
        )
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            result = work()
    except RuntimeError as error:
        raise ConfigError(
            f"this update cannot be recorded as a CUDA graph ({error}): something in it waits for the "
            "device, or changes from update to update. Leave cuda_graphs off for this model"
        ) from error
    return graph.replay, result


def recording(cuda_graphs: bool) -> Record | None:
    """What a learner is told by the option of that name."""
    return cuda_graph if cuda_graphs else None


class Recorded:
    """A function of batches, to metrics [] on the device, that is recorded and then replayed.

    The first calls run it as it is. Then it is recorded with a batch in memory of its own, and every later
    call copies its batch there and replays the recording; batches of another layout have another one.
    So it must do the same for every batch, and read what changes, such as a learning rate, from tensors.

    Args:
        update: the function; it is given batches [B, T] on `device`.
        beside: what keeps, as its `pieces`, tensors that the function makes beside the metrics.
        record: how it is recorded.
        device: of the model.
    """

    def __init__(
        self,
        update: Callable[[Batch], Metrics],
        beside: Beside,
        record: Record,
        device: torch.device,
    ) -> None:
        self.update, self.beside, self.record, self.device = update, beside, record, device
        self._calls: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, _Recording] = {}

    def __call__(self, batch: Batch) -> Metrics:
        """One update on a batch [B, T] from anywhere."""
        layout = _layout(batch)
        self._calls[layout] += 1
        if self._calls[layout] <= WARM_UP:
            return self._warm_up(batch.to(self.device))
        if layout not in self._recordings:
            static = batch.map(lambda x: torch.empty_like(x, device=self.device).copy_(x))
            self._recordings[layout] = _Recording(self.update, self.record, static)
            self._recordings[layout].pieces = self.beside.pieces
        recording = self._recordings[layout]
        self.beside.pieces = recording.pieces
        return recording.replay(batch)

    def _warm_up(self, batch: Batch) -> Metrics:
        """On a stream of its own, as a recording is, so that gradients are expected there too."""
        if self.device.type != "cuda":
            return self.update(batch)
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            metrics = self.update(batch)
        torch.cuda.current_stream(self.device).wait_stream(side)
        return metrics


class _Recording:
    """One recording with the memory of its batch, its metrics, and what is made beside them."""

    def __init__(self, update: Callable[[Batch], Metrics], record: Record, batch: Batch) -> None:
        self.batch, self.names = batch, list[str]()
        self.pieces: list[dict[str, Tensor]] = []

        def work() -> Tensor:
            metrics = update(self.batch)
            self.names = list(metrics)
            return torch.stack([cast(Tensor, value).float() for value in metrics.values()])

        self.repeat, self.result = record(work)

    def replay(self, batch: Batch) -> Metrics:
        """One update on [B, T]; its metrics [] stay as they are when the next one comes."""
        for mine, given in zip(self.batch.leaves(), batch.leaves(), strict=True):
            mine.copy_(given, non_blocking=True)
        self.repeat()
        return dict(zip(self.names, self.result.clone().unbind(), strict=True))


def _layout(batch: Batch) -> Hashable:
    """Names, shapes and types of everything in a batch."""

    def named(name: str, value: Any) -> list[tuple[str, torch.Size, torch.dtype]]:
        if isinstance(value, dict):
            return [part for key in value for part in named(f"{name}/{key}", value[key])]
        return [] if value is None else [(name, value.shape, value.dtype)]

    return tuple(part for name, value in vars(batch).items() for part in named(name, value))
