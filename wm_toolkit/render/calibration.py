"""Do predictions come true as often, and as large, as they say?"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from wm_toolkit.errors import ShapeError


@dataclasses.dataclass(frozen=True)
class Bins:
    """Predictions in groups of similar size, the smallest first; groups without any are left out.

    Attributes:
        predicted: mean prediction of each group.
        happened: mean outcome.
        count: predictions.
    """

    predicted: tuple[float, ...]
    happened: tuple[float, ...]
    count: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How far predicted probabilities can be trusted.

    Attributes:
        bins: probabilities in ten equal intervals of [0, 1].
        ece: expected calibration error, sum over the bins of share x |predicted - happened|
            (Naeini et al. 2015); 0 is perfect, 1 the worst.
        brier: mean squared error of the probabilities (Brier 1950).
        rate: how often the event happened.
    """

    bins: Bins
    ece: float
    brier: float
    rate: float


@dataclasses.dataclass(frozen=True)
class Fit:
    """How well predicted numbers meet those that came.

    Attributes:
        bins: predictions in equally full groups.
        r2: 1 - squared error / variance of what came; None where that never varied.
        bias: mean prediction minus mean outcome.
        mse: mean squared error.
    """

    bins: Bins
    r2: float | None
    bias: float
    mse: float


def reliability(probability: Tensor, happened: Tensor, *, bins: int = 10) -> Reliability:
    """Calibration of a binary event.

    Args:
        probability: [n] predicted, in [0, 1].
        happened: [n] whether it did, bool or 0 and 1.
        bins: equal intervals of [0, 1].

    Raises:
        ShapeError: unless both are [n], n at least 1.
    """
    probability, outcome = _pair(probability, happened)
    group = (probability * bins).long().clamp(0, bins - 1)
    found = _binned(probability, outcome, group)
    share = torch.tensor(found.count, dtype=torch.float64) / len(probability)
    gap = torch.tensor(
        [a - b for a, b in zip(found.predicted, found.happened, strict=True)], dtype=torch.float64
    )
    return Reliability(
        found,
        ece=float((share * gap.abs()).sum()),
        brier=float((probability - outcome).square().mean()),
        rate=float(outcome.mean()),
    )


def fit(predicted: Tensor, received: Tensor, *, bins: int = 10) -> Fit:
    """Calibration of a number.

    Args:
        predicted: [n].
        received: [n] in the same units.
        bins: groups of equally many predictions, smallest first.

    Raises:
        ShapeError: unless both are [n], n at least 1.
    """
    predicted, received = _pair(predicted, received)
    rank = predicted.argsort(stable=True).argsort()
    group = rank * bins // len(predicted)
    mse = (predicted - received).square().mean()
    variance = received.var(unbiased=False)
    return Fit(
        _binned(predicted, received, group),
        r2=float(1 - mse / variance) if variance > 0 else None,
        bias=float(predicted.mean() - received.mean()),
        mse=float(mse),
    )


def _pair(predicted: Tensor, happened: Tensor) -> tuple[Tensor, Tensor]:
    """Both as doubles on the CPU."""
    if predicted.ndim != 1 or predicted.shape != happened.shape or not len(predicted):
        raise ShapeError(
            f"predictions have shape {tuple(predicted.shape)} and outcomes {tuple(happened.shape)}; "
            "expected [n] both, n at least 1"
        )
    return predicted.detach().cpu().double(), happened.detach().cpu().double()


def _binned(predicted: Tensor, happened: Tensor, group: Tensor) -> Bins:
    """Means over the groups [n] that have any members."""
    _, index, count = group.unique(return_inverse=True, return_counts=True)

    def mean(values: Tensor) -> tuple[float, ...]:
        total = torch.zeros(len(count), dtype=torch.float64).index_add(0, index, values)
        return tuple((total / count).tolist())

    return Bins(mean(predicted), mean(happened), tuple(count.tolist()))
