"""Divergences between posterior and prior, which side learns from them, and how much is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

from torch import Tensor

from wm_toolkit.structs import Struct

FreeNats = Literal["each", "mean", "subtract"]
BeliefT = TypeVar("BeliefT", bound=Struct)


def kl_normal(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """KL(N(mean, std) || N(other_mean, other_std)) of diagonal Gaussians [..., Z]: [...] in nats."""
    ratio = (std / other_std).square()
    shift = ((mean - other_mean) / other_std).square()
    return 0.5 * (ratio + shift - 1 - ratio.log()).sum(-1)


def kl_categorical(log_probs: Tensor, other: Tensor) -> Tensor:
    """KL of independent categoricals from their log-probabilities [..., G, K]: [...] in nats."""
    return (log_probs.exp() * (log_probs - other)).sum((-2, -1))


def two_sided(
    kl: Callable[[BeliefT, BeliefT], Tensor], posterior: BeliefT, prior: BeliefT
) -> tuple[Tensor, Tensor]:
    """The same divergence twice, each time teaching one side only (Dreamer V2).

    Args:
        kl: of two beliefs [..., Z], giving [...].
        posterior: with the observation.
        prior: without it.

    Returns:
        [...] dynamics term, whose gradient reaches the prior, and [...] representation term, whose
        gradient reaches the posterior.
    """
    return kl(posterior.detach(), prior), kl(posterior, prior.detach())


def free(kl: Tensor, nats: float, how: FreeNats = "each") -> Tensor:
    """Divergences [B, T] of which `nats` cost nothing.

    Args:
        kl: summed over the latent variables.
        nats: how much is free.
        how: "each" is max(kl, nats) in every state (Dreamer V3); "mean" is max(mean kl, nats), spread
            evenly over the states (Dreamer V1 and V2); "subtract" is max(kl - nats, 0) (PlaNet).

    Returns:
        [B, T].
    """
    if how == "each":
        return kl.clamp(min=nats)
    if how == "subtract":
        return (kl - nats).clamp(min=0)
    return kl.mean().clamp(min=nats).expand_as(kl)
