"""C of World Models: one linear layer that decides."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor, nn

from wm_toolkit.errors import SpaceError
from wm_toolkit.spaces import Spaces

Squash = Literal["tanh", "car", "level", "one_hot"]


@dataclasses.dataclass(frozen=True)
class Point:
    """A decision that leaves nothing to chance.

    Attributes:
        value: [..., A].
    """

    value: Tensor

    @property
    def mean(self) -> Tensor:
        """Equal to the value, [..., A]."""
        return self.value

    @property
    def mode(self) -> Tensor:
        """Equal to the value, [..., A]."""
        return self.value

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Equal to the value, [..., A]."""
        return self.value

    def log_prob(self, x: Tensor) -> Tensor:
        """[...] 0 where x [..., A] is the value, else minus infinity."""
        return torch.where((x == self.value).all(-1), 0.0, -math.inf)

    def entropy(self) -> Tensor:
        """[...] 0."""
        return self.value.new_zeros(self.value.shape[:-1])

    def loss(self, target: Tensor) -> Tensor:
        """[...] mean squared error to target [..., A]."""
        return (self.value - target).square().mean(-1)


class Controller(nn.Module):
    """Features [..., F] to encoded actions, linear but for the last squeeze.

    Args:
        spaces: whose actions it chooses.
        features: F.
        squash: "tanh" for a Box; "car" for CarRacing, whose brake is clip(output, 0, 1) and not half a
            tanh; "level" makes one choice among n by one output, cutting (-1, 1) into n equal parts (left,
            stay, right in TakeCover); "one_hot" takes the largest of n outputs.
        bias: of the layer.

    Raises:
        SpaceError: if the actions are not of that kind.
    """

    def __init__(
        self, spaces: Spaces, features: int, *, squash: Squash = "tanh", bias: bool = True
    ) -> None:
        super().__init__()
        self.squash, self.groups = squash, spaces.action_groups
        single = len(self.groups) == 1
        fits = single if squash in ("level", "one_hot") else not spaces.discrete
        if not fits or (squash == "car" and spaces.action_width != 3):
            raise SpaceError(
                f"squash is {squash!r}, but the action space is {spaces.action}; use 'level' or "
                "'one_hot' for Discrete, 'tanh' for Box, 'car' for a Box of steering, gas and brake"
            )
        outputs = 1 if squash == "level" else spaces.action_width
        self.linear = nn.Linear(features, outputs, bias=bias)
        for parameter in self.linear.parameters():  # where evolution begins
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Point:
        """[..., F] to a Point [..., A]."""
        raw = self.linear(features)
        if self.squash == "tanh":
            return Point(raw.tanh())
        if self.squash == "car":
            brake = 2 * raw[..., 2:].clamp(0, 1) - 1  # [0, 1] in the encoding of a Box
            return Point(torch.cat([raw[..., :2].tanh(), brake], -1))
        return Point(self._choose(raw))

    def _choose(self, raw: Tensor) -> Tensor:
        """[..., n] one-hot."""
        count = self.groups[0]
        if self.squash == "level":
            parts = ((raw.squeeze(-1).tanh() + 1) * (count / 2)).floor()
            index = parts.clamp(max=count - 1).long()
        else:
            index = raw.argmax(-1)
        every = torch.arange(count, device=raw.device)
        return (index.unsqueeze(-1) == every).float()
