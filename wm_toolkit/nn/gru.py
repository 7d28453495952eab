"""Recurrent cells of the Dreamer family: one step h, x -> h'; the state stays in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_toolkit.nn.dense import BlockLinear, NormSiLU


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
        self.inputs, self.width, self.groups = inputs, width, groups
        self.mix = BlockLinear(width + groups * inputs, width, groups)
        self.norm = NormSiLU(width)
        self.gates = BlockLinear(width, 3 * width, groups)

    def weights(self) -> tuple[Tensor, Tensor]:
        """W1's rows for h_g, [G, D / G, D / G], and those for x, which all groups see, as one [X, D].

        A step that is not given them makes them anew.
        """
        own, shared = self.mix.weight.split([self.width // self.groups, self.inputs], 1)
        return own, shared.transpose(0, 1).reshape(self.inputs, self.width)

    def forward(self, x: Tensor, h: Tensor, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Input [B, X] and state [B, D] to the next state [B, D]."""
        own, shared = weights or self.weights()
        groups = h.unflatten(-1, (self.groups, -1)).transpose(0, 1)
        bias = self.mix.bias.view(self.groups, 1, -1)
        mixed = torch.baddbmm(bias, groups, own).transpose(0, 1).flatten(-2)
        hidden = self.norm(torch.addmm(mixed, x, shared)).unflatten(-1, (self.groups, -1))
        reset, candidate, update = self.gates(hidden).float().chunk(3, -1)
        candidate = torch.tanh(reset.sigmoid() * candidate).flatten(-2)
        return torch.addcmul(h, (update - 1).sigmoid().flatten(-2), candidate - h)


class NormGRU(nn.Module):
    """GRU with one normalised projection and slow updates at first (Dreamer V2).

        reset, candidate, update = split(norm(W [x, h]))
        c = tanh(sigmoid(reset) * candidate),  u = sigmoid(update - 1),  h' = u c + (1 - u) h

    Args:
        inputs: X, width of the input.
        width: D of the state.
        bias: of the projection.
        eps: of the LayerNorm (V2 takes Keras's default).
    """

    def __init__(self, inputs: int, width: int, *, bias: bool = True, eps: float = 1e-3) -> None:
        super().__init__()
        self.project = nn.Linear(inputs + width, 3 * width, bias=bias)
        self.norm = nn.LayerNorm(3 * width, eps=eps)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Input [B, X] and state [B, D] to the next state [B, D]."""
        parts = self.norm(self.project(torch.cat([x, h], -1)).float())
        reset, candidate, update = parts.chunk(3, -1)
        return torch.lerp(h, torch.tanh(reset.sigmoid() * candidate), (update - 1).sigmoid())
