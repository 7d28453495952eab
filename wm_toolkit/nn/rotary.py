"""Rotary positions over time and a grid of patches."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from wm_toolkit.errors import ConfigError

BASE = 10_000.0  # Su et al. 2021


@dataclasses.dataclass(frozen=True)
class Rotary:
    """Rotates queries and keys by time, row and column, so that attention sees differences only.

    Rotary embedding (Su et al. 2021, "RoFormer", eq. 34) on three axes, as V-JEPA 2 has it (Assran et al.
    2025, section 2.1): a third of a head's width turns with the time of the frame, a third with the row of
    the patch, a third with its column. What no pair of thirds can use stays as it is. Because the time
    enters as a difference, remembered keys stay right wherever a window begins.

    Args:
        patches: P tokens of a frame, a square grid row by row.

    Raises:
        ConfigError: if the patches make no square.
    """

    patches: int = 1

    def __post_init__(self) -> None:
        if math.isqrt(self.patches) ** 2 != self.patches:
            raise ConfigError(f"{self.patches} patches make no square grid for rotary positions")

    def rotate(self, x: Tensor, first: int = 0) -> Tensor:
        """Rotate queries or keys [B, heads, T P, width] of frames first ... first + T - 1."""
        turned = 6 * (x.shape[-1] // 6)  # components: an even share for each of the three axes
        angle = self._angles(x.shape[-2] // self.patches, first, turned // 6, x.device)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        even, odd = x[..., :turned:2], x[..., 1:turned:2]
        pairs = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
        return torch.cat([pairs.flatten(-2), x[..., turned:]], -1)

    def _angles(self, frames: int, first: int, pairs: int, device: torch.device) -> Tensor:
        """[T P, 3 pairs] angle of every pair of components."""
        side = math.isqrt(self.patches)
        speed = BASE ** -(torch.arange(pairs, device=device) / max(pairs, 1))
        time = torch.arange(first, first + frames, device=device).repeat_interleave(self.patches)
        patch = torch.arange(self.patches, device=device).repeat(frames)
        axes = (time, patch // side, patch % side)
        return torch.cat([axis.unsqueeze(-1) * speed for axis in axes], -1)
