"""Numbers learnt by squared error, summed over the event, in their own units or squashed ones."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from wm_toolkit.heads.normal import Normal
from wm_toolkit.heads.twohot import symexp, symlog


@dataclasses.dataclass(frozen=True)
class Squared(Normal):
    """A Gaussian of unit deviation; the loss is the summed squared error, scaled.

    With scale 0.5 it is the negative log-likelihood but for a constant (PlaNet, Dreamer V1 and V2).

    Attributes:
        raw: like mean; in symlog space if `squash`, else as it is.
        squash: whether it is.
        scale: of the loss.
    """

    raw: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(()))
    squash: bool = False
    scale: float = 1.0

    def loss(self, target: Tensor) -> Tensor:
        """[...] for vectors [..., D] (or [...] where every element is an event)."""
        target = target.float()  # counts and flags are numbers, too
        target = symlog(target) if self.squash else target
        return self.scale * self._sum((self.raw - target).square())


def squared(raw: Tensor, *, squash: bool = False, scale: float = 1.0, event: int = 1) -> Squared:
    """The read-out of `raw` [..., D], or of scalars [...] with event 0."""
    mean = symexp(raw) if squash else raw
    return Squared(mean, torch.ones_like(mean), event, raw, squash, scale)


class ScalarHead(nn.Module):
    """A network to a `Squared` over [...].

    Args:
        net: [..., F] to [..., 1].
        scale: of the squared error.
    """

    def __init__(self, net: nn.Module, *, scale: float = 0.5) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, features: Tensor) -> Squared:
        """[..., F] to a Squared over [...]."""
        return squared(self.net(features).float().squeeze(-1), scale=self.scale, event=0)
