"""Recurrent cells of the Dreamer family: one step h, x -> h'."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_toolkit.nn.dense import BlockLinear


class BlockGRU(nn.Module):
    """GRU whose matrices are block-diagonal (Dreamer V3, 2025).

        y = SiLU(norm(W1 [h_g, x]))                          in every group g
        reset, candidate, update = split(W2 y_g)             inside every group
        c = tanh(sigmoid(reset) * candidate),  u = sigmoid(update - 1),  h' = u c + (1 - u) h

    Args:
        inputs: X, width of the input, which every group sees whole.
        width: D of the state, a multiple of `groups`.
        groups: number of blocks.
    """

    def __init__(self, inputs: int, width: int, *, groups: int = 8) -> None:
        super().__init__()
        self.groups = groups
        self.mix = BlockLinear(width + groups * inputs, width, groups)
        self.norm = nn.RMSNorm(width, eps=1e-4)
        self.gates = BlockLinear(width, 3 * width, groups)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Input [B, X] and state [B, D] to the next state [B, D]."""
        own = h.unflatten(-1, (self.groups, -1))
        shared = x.unsqueeze(-2).expand(*own.shape[:-1], x.shape[-1])
        mixed = self.mix(torch.cat([own, shared], -1)).flatten(-2)
        hidden = nn.functional.silu(self.norm(mixed)).unflatten(-1, (self.groups, -1))
        reset, candidate, update = self.gates(hidden).chunk(3, -1)
        candidate = torch.tanh(reset.sigmoid() * candidate).flatten(-2)
        return torch.lerp(h, candidate, (update - 1).sigmoid().flatten(-2))


class NormGRU(nn.Module):
    """GRU with one normalised projection and slow updates at first (Dreamer V2).

        reset, candidate, update = split(norm(W [x, h]))
        c = tanh(sigmoid(reset) * candidate),  u = sigmoid(update - 1),  h' = u c + (1 - u) h

    Args:
        inputs: X, width of the input.
        width: D of the state.
        bias: of the projection.
        eps: of the LayerNorm.
    """

    def __init__(self, inputs: int, width: int, *, bias: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.project = nn.Linear(inputs + width, 3 * width, bias=bias)
        self.norm = nn.LayerNorm(3 * width, eps=eps)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Input [B, X] and state [B, D] to the next state [B, D]."""
        parts = self.norm(self.project(torch.cat([x, h], -1)))
        reset, candidate, update = parts.chunk(3, -1)
        return torch.lerp(h, torch.tanh(reset.sigmoid() * candidate), (update - 1).sigmoid())
