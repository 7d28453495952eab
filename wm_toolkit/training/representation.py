"""Numbers that tell a healthy representation from a collapsed one."""

from __future__ import annotations

import torch
from torch import Tensor

from wm_toolkit.errors import ShapeError


def spread(features: Tensor) -> Tensor:
    """Mean over the F features of the deviation over N samples [N, F]; 0 when collapsed.

    Returns:
        [] scalar.
    """
    return features.std(0, correction=0).mean()


def effective_rank(features: Tensor) -> Tensor:
    """How many directions the samples [N, F] use: exp of the entropy of the singular values.

    p_i = s_i / sum(s),  rank = exp(-sum p_i log p_i), of the centred samples (Roy and Vetterli 2007).

    Returns:
        [] between 1 and min(N - 1, F); 0 if all samples are equal.
    """
    values = torch.linalg.svdvals((features - features.mean(0)).double())
    total = values.sum()
    # Below this, singular values are rounding noise of equal samples.
    if not bool(total > 1e-6 * features.numel() ** 0.5 * features.abs().max()):
        return features.new_zeros(())
    p = values / total
    return torch.special.entr(p).sum().exp().to(features.dtype)


def probe_r2(features: Tensor, targets: Tensor, *, split: int, ridge: float = 1e-3) -> Tensor:
    """Share of the variance of the targets that a linear read-out explains on unseen samples.

    Ridge regression in closed form on standardised features: W = (X'X + ridge N I)^-1 X'Y.

    Args:
        features: [N, F].
        targets: [N, n].
        split: the first `split` samples fit the read-out, the others test it.
        ridge: penalty per sample.

    Returns:
        [] R2 over all targets together, at most 1; 0 is no better than their mean.

    Raises:
        ShapeError: if there are not as many targets as features, or nothing on one side of the split.
    """
    if len(features) != len(targets) or not 0 < split < len(features):
        raise ShapeError(
            f"{len(features)} features and {len(targets)} targets, split at {split}; expected equal "
            "numbers and samples on both sides"
        )
    x, y = features.double(), targets.double()
    mean, std = x[:split].mean(0), x[:split].std(0, correction=0).clamp(min=1e-8)
    x, y = (x - mean) / std, y - y[:split].mean(0)
    fit, test = x[:split], x[split:]
    penalty = ridge * split
    if fit.shape[1] <= split:
        gram = fit.T @ fit + penalty * torch.eye(fit.shape[1], dtype=x.dtype, device=x.device)
        weight = torch.linalg.solve(gram, fit.T @ y[:split])
    else:  # the same solution by a smaller system
        gram = fit @ fit.T + penalty * torch.eye(split, dtype=x.dtype, device=x.device)
        weight = fit.T @ torch.linalg.solve(gram, y[:split])
    truth = y[split:]
    residual = (truth - test @ weight).square().sum()
    total = (truth - truth.mean(0)).square().sum()
    return (1 - residual / total.clamp(min=1e-12)).to(features.dtype)
