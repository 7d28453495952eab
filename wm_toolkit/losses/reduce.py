"""The one place where losses are masked, weighted, scaled and added up."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wm_toolkit.batch import Losses, Metrics
from wm_toolkit.errors import ConfigError, ShapeError, did_you_mean


def reduce(
    losses: Losses,
    valid: Tensor,
    scales: Mapping[str, float] | None = None,
    *,
    row_weight: Tensor | None = None,
) -> tuple[Tensor, Metrics]:
    """Weighted mean of every term over the real rows of the whole batch, then their scaled sum.

    A term [B, T] counts as sum(valid * term) / sum(valid over the whole batch). The denominator is a
    total, so pieces of a batch (micro-batches, processes) add up to the result of the whole batch,
    however unevenly its real rows are spread over them. A term [B, t] with t < T belongs to the last
    t rows, as predictions do, which the first rows of a window have none of. A term [] is a statistic
    of the whole batch already and stays as it is.

    Args:
        losses: unreduced terms.
        valid: [B, T] weight of every row of this piece (`Batch.valid`).
        scales: weight of each term in the total; 1 where a name is absent, 0 to only report it.
        row_weight: [T] `valid.sum(0)` of the whole batch (summed over micro-batches, averaged over
            processes, whose gradients are averaged too); by default of this piece.

    Returns:
        total: [] to call backward on.
        metrics: "loss" and "loss/<name>", detached and unscaled, on the losses' device.

    Raises:
        ConfigError: if `scales` names a term there is not.
        ShapeError: if a term is neither [B, t] nor [].
    """
    scales = scales or {}
    for name in scales:
        if name not in losses:
            raise ConfigError(f"no loss term {name!r} to scale.{did_you_mean(name, losses)}")
    if not losses:
        raise ConfigError("the model returned no loss terms, so there is nothing to train")
    rows = valid.sum(0) if row_weight is None else row_weight
    terms = {name: _mean(name, term, valid, rows) for name, term in losses.items()}
    used = [scales.get(name, 1.0) * term for name, term in terms.items() if scales.get(name, 1.0)]
    total = torch.stack(used).sum() if used else next(iter(terms.values())) * 0.0
    metrics: Metrics = {"loss": total.detach()}
    metrics |= {f"loss/{name}": term.detach() for name, term in terms.items()}
    return total, metrics


def _mean(name: str, term: Tensor, valid: Tensor, row_weight: Tensor) -> Tensor:
    """The [] share of one term in the weighted mean over the whole batch."""
    if term.ndim == 0:
        return term
    if term.ndim != 2 or len(term) != len(valid) or not 0 < term.shape[1] <= valid.shape[1]:
        raise ShapeError(
            f"loss term {name!r} has shape {tuple(term.shape)}; expected [] or [B, t] with "
            f"B = {len(valid)} and t up to {valid.shape[1]}"
        )
    weight = valid[:, -term.shape[1] :]
    total = row_weight[-term.shape[1] :].sum()
    # Padding may hold anything, even NaN, which a product with zero would let through.
    summed = torch.where(weight > 0, term * weight, 0.0).sum()
    return summed / torch.where(total > 0, total, 1.0)


def surprise(losses: Losses, valid: Tensor, scales: Mapping[str, float] | None = None) -> Tensor:
    """[B] how badly windows were predicted: half the mean over their rows, half the worst row.

    So R2D2 makes one priority of a sequence's errors, there with 0.9 of the worst (Kapturowski 2019).

    Args:
        losses: unreduced terms; those [] tell of no window.
        valid: [B, T] weight of every row.
        scales: weight of each term; 1 where a name is absent.
    """
    rows = torch.zeros_like(valid)
    for name, term in losses.items():
        if term.ndim == 2:
            scaled = (scales or {}).get(name, 1.0) * term.detach().float()
            rows = rows + nn.functional.pad(scaled, (valid.shape[1] - term.shape[1], 0))
    rows = torch.where(valid > 0, rows, 0.0)
    mean = rows.sum(1) / (valid > 0).sum(1).clamp_min(1)
    return (0.5 * (mean + rows.amax(1))).clamp_min(1e-6)
