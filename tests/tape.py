"""Records updates on a CPU: does with torch's operations what a CUDA graph does with kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = torch.ops.aten._local_scalar_dense.default
"""Hands a number of the device to the host."""


class Tape(TorchDispatchMode):
    """Every operation inside, with the very memory it reads and writes; the host's code leaves no trace.

    Attributes:
        played: operations that compute something, with their arguments and results.
        read: what the host has looked at, by the name of the operation that made it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.played: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self.read: list[str] = []
        self._own: set[int] = set()
        self._before: dict[int, tuple[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is READS:
            self.read.append(self.played[-1][0].name())
            return func(*args, **kwargs)
        for tensor in _written(func, args, kwargs):
            self._keep(tensor)
        found = func(*args, **kwargs)
        results = _fresh(func, found)
        self._own.update(result.untyped_storage().data_ptr() for result in results)
        if results or any(True for _ in _written(func, args, kwargs)):
            self.played.append((func, args, kwargs, results))
        return found

    def _keep(self, tensor: Tensor) -> None:
        """Remember what lay in memory that is not the tape's own."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own:
            self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))

    def undo(self) -> None:
        """Put back what was overwritten."""
        for storage, before in self._before.values():
            storage.copy_(before)

    def replay(self) -> None:
        """Everything again, in the same memory."""
        with torch.no_grad():
            for func, args, kwargs, results in self.played:
                for mine, new in zip(results, _fresh(func, func(*args, **kwargs)), strict=True):
                    mine.copy_(new)


class TapeRecorder:
    """As `agents.recorded.cuda_graph`: recording leaves everything as it was.

    Attributes:
        tapes: one for every recording.
    """

    def __init__(self) -> None:
        self.tapes: list[Tape] = []

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        tape, drawn = Tape(), torch.get_rng_state()
        with tape:
            result = work()
        tape.undo()
        torch.set_rng_state(drawn)
        self.tapes.append(tape)
        return tape.replay, result.detach()


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Tensors that an operation overwrites."""
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[number] if number < len(args) else kwargs.get(argument.name)
            yield from (leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor))


def _fresh(func: Any, found: Any) -> list[Tensor]:
    """Results in memory of their own, not in the arguments'."""
    if any(each.alias_info is not None for each in func._schema.returns):
        return []
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
