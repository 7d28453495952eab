"""What a Source yields and a Learner consumes."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from wm_toolkit.errors import ShapeError
from wm_toolkit.structs import Struct

Losses = dict[str, Tensor]
"""Unreduced loss terms: [B, T] each, or [] for statistics of the whole batch."""

Metrics = dict[str, Tensor | float]
"""What one update reports; tensors stay on the device until a logger asks for them."""


@dataclasses.dataclass(frozen=True)
class Batch(Struct):
    """A batch of trajectory windows, batch first, time second.

    Row t holds what the environment handed over at t and the action taken in response: `reward[t]`,
    `terminated[t]` and `truncated[t]` arrive with `obs[t]`. The reward of an episode's first row is 0.

    Attributes:
        obs: [B, T, ...] per key; images are uint8 [B, T, h, w, C].
        action: [B, T, A] float, as `Spaces.encode_action` makes it.
        is_first: [B, T] bool, true on the first row of an episode.
        reward: [B, T] float, or None where the data set has none.
        terminated: [B, T] bool: the episode ended in `obs[t]` for a reason of the task.
        truncated: [B, T] bool: the episode was cut at `obs[t]` from outside, a value goes on.
        mask: [B, T] bool, false on padding; None means every row is real.
        weight: [B] importance weight of a window; None means 1.
        index: [B] int64, where the window came from (Source's own numbering).
        extras: anything else per row (search policy, task id, language ...).
    """

    obs: dict[str, Tensor]
    action: Tensor
    is_first: Tensor
    reward: Tensor | None = None
    terminated: Tensor | None = None
    truncated: Tensor | None = None
    mask: Tensor | None = None
    weight: Tensor | None = None
    index: Tensor | None = None
    extras: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        lead = self.action.shape[:-1]
        for name in ("is_first", "reward", "terminated", "truncated", "mask"):
            value = getattr(self, name)
            if value is not None and value.shape != lead:
                raise ShapeError(
                    f"Batch.{name} has shape {tuple(value.shape)}, but action "
                    f"{tuple(self.action.shape)} asks for {tuple(lead)}"
                )
        for key, value in self.obs.items():
            if value.shape[: len(lead)] != lead:
                raise ShapeError(
                    f"Batch.obs[{key!r}] has shape {tuple(value.shape)}, expected it to begin with "
                    f"{tuple(lead)}"
                )

    def __len__(self) -> int:
        return len(self.action)

    @property
    def valid(self) -> Tensor:
        """[B, T] float weight of every row: mask times window weight."""
        valid = torch.ones_like(self.is_first, dtype=torch.float32)
        if self.mask is not None:
            valid = valid * self.mask
        if self.weight is not None:
            valid = valid * self.weight.reshape(-1, *([1] * (valid.ndim - 1)))
        return valid

    def restarts(self) -> list[bool]:
        """[T] whether an episode may begin in that row.

        On a CPU the host looks, once for all rows; on a device that it runs ahead of it does not wait to know.
        """
        if self.is_first.device.type != "cpu":
            return [True] * self.is_first.shape[1]
        return self.is_first.any(0).tolist()

    def previous_action(self) -> Tensor:
        """[B, T, A] the action that led into each row; zero on the window's and an episode's first row."""
        shifted = torch.cat([torch.zeros_like(self.action[:, :1]), self.action[:, :-1]], 1)
        return shifted * (~self.is_first).unsqueeze(-1)
