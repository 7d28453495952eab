"""Sample-efficient cross-entropy method: coloured noise, kept elites, fewer samples every iteration."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from wm_toolkit.errors import ConfigError
from wm_toolkit.planning.base import PLANNERS
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.gaussian import Gaussian


@dataclasses.dataclass(frozen=True, kw_only=True)
class ICEM(CEM):
    """iCEM (Pinneri et al. 2020, "Sample-efficient Cross-Entropy Method for Real-time Planning").

    Candidates differ by power-law noise over raw environment steps; a share of the elites is scored
    again in the next iteration; the number of candidates decays; the mean is a candidate in the
    first iteration, where it is the last plan, shifted, and in the last one; the best plan ever
    scored is returned.

    Example:
        >>> plan = ICEM(horizon=5).plan(model, state, goal, warm_start=rest, generator=generator)

    Args:
        keep_elites: share of the elites that stay candidates, in [0, 1].
        decay: iteration i has samples / decay^i candidates, at least twice the elites.
    """

    samples: int = 64
    iterations: int = 6
    elites: int = 10
    momentum: float = 0.1
    init_std: float = 0.5
    noise_exponent: float = 2.0
    execute: Literal["mean", "best"] = "best"
    keep_elites: float = 0.3
    decay: float = 1.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.keep_elites <= 1:
            raise ConfigError(f"keep_elites is {self.keep_elites}, expected a share in [0, 1]")
        if self.decay < 1:
            raise ConfigError(f"decay is {self.decay}, expected at least 1 (no decay)")

    def count(self, iteration: int) -> int:
        """N of an iteration: decaying, but never below twice the elites nor above `samples`."""
        decayed = int(self.samples * self.decay**-iteration)
        return min(self.samples, max(decayed, 2 * self.elites))

    def carried(self, belief: Gaussian, iteration: int) -> Tensor:
        """[B, k, H, A] kept elites, and the mean in the first and last iteration only.

        Early means would narrow the elites before the search has found the right region.
        """
        mean = super().carried(belief, iteration)
        if belief.elites is None:
            return mean
        kept = belief.elites[:, : round(self.keep_elites * self.elites)]
        return torch.cat([mean, kept], 1) if iteration == self.iterations - 1 else kept


PLANNERS.register("icem", ICEM)
