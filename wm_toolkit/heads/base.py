"""What a head returns: a prediction together with the recipe for using it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Output(Protocol):
    """A prediction that knows how to be read, sampled and trained.

    Shapes: a head maps features [..., F] to an Output over values [..., *event]; `log_prob`, `entropy`
    and `loss` drop the event axes and return [...].
    """

    @property
    def mean(self) -> Tensor:
        """[..., *event] expectation."""
        ...

    @property
    def mode(self) -> Tensor:
        """[..., *event] most likely value."""
        ...

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., *event] one draw; differentiable where the distribution allows it."""
        ...

    def log_prob(self, x: Tensor) -> Tensor:
        """[...] log-likelihood of x [..., *event]."""
        ...

    def entropy(self) -> Tensor:
        """[...] entropy in nats."""
        ...

    def loss(self, target: Tensor) -> Tensor:
        """[...] what training minimises for `target` [..., *event]."""
        ...
