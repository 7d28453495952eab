"""Statistics over all processes of a run, right in value and in gradient; one process costs nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Mean over processes, any shape."""
        x = x.contiguous().clone()
        dist.all_reduce(x)
        return x / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        """The same mean of the gradients: the loss is every process's, the gradient is averaged."""
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad / dist.get_world_size()


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if processes() > 1 else 0


def mean_over_processes(x: Tensor) -> Tensor:
    """Mean of a tensor (any shape) over all processes, differentiable.

    Together with the averaging of gradients that data-parallel training does, the gradient of a loss of
    this mean equals that of one process holding all the data.
    """
    return x if processes() == 1 else _Mean.apply(x)  # type: ignore[no-any-return]


def same_everywhere(x: Tensor) -> Tensor:
    """Replace a tensor (any shape) in place by the first process's, so that random draws agree."""
    if processes() > 1:
        first = x.contiguous()
        dist.broadcast(first, 0)
        if first is not x:
            x.copy_(first)
    return x


def sum_over_processes(x: Tensor) -> Tensor:
    """Replace a tensor (any shape) in place by its sum over all processes; no gradients."""
    if processes() > 1:
        dist.all_reduce(x)
    return x
