"""Batch normalisation whose statistics are those of the whole batch, on every process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wm_toolkit.nn.distributed import mean_over_processes, processes


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm1d over [..., D] that shares its statistics over all processes, on any backend.

    Same parameters and buffers as `torch.nn.BatchNorm1d`; one process computes exactly what that does.
    Every process must hold equally many rows.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [..., D] over every axis but the last."""
        rows = input.reshape(-1, input.shape[-1])
        if not self.training or processes() == 1:
            return super().forward(rows).view_as(input)
        rows = rows.float()  # statistics of half precision would be too coarse, as torch's are not
        mean = mean_over_processes(rows.mean(0))
        variance = mean_over_processes((rows - mean).square().mean(0))
        self._track(mean.detach(), variance.detach(), len(rows) * processes())
        normal = (rows - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias
        return normal.view_as(input).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        rate = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance * count / max(count - 1, 1), rate)


@contextmanager
def fresh_statistics(module: nn.Module) -> Iterator[None]:
    """Within the block, forward passes re-estimate every batch norm as a plain average over them.

    The running averages of training lag behind the weights, which ruins open-loop predictions; a few
    forward passes in this block make them right. Everything but the batch norms is in evaluation mode,
    modes are restored at the end.
    """
    modes = {m: m.training for m in module.modules()}
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for part, mode in modes.items():
            part.training = mode


def projector(width_in: int, hidden: int, width_out: int) -> nn.Sequential:
    """Linear, BatchNorm, GELU, Linear: [..., in] -> [..., out] (the projectors of LeWorldModel)."""
    return nn.Sequential(
        nn.Linear(width_in, hidden), BatchNorm(hidden), nn.GELU(), nn.Linear(hidden, width_out)
    )
