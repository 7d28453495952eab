"""Layers of the Dreamer family: linear, norm, activation, with the initial scale of their inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# What a normal distribution cut at two deviations has to be stretched by to have deviation one.
UNCUT = 1.1368


def init_scaled(weight: Tensor, fan_in: int, scale: float = 1.0) -> None:
    """Fill `weight` of any shape from a normal cut at two deviations, deviation scale / sqrt(fan_in)."""
    with torch.no_grad():
        nn.init.trunc_normal_(weight, a=-2.0, b=2.0)
        weight.mul_(scale * UNCUT * fan_in**-0.5)


def linear(width_in: int, width_out: int, *, scale: float = 1.0) -> nn.Linear:
    """Linear layer [..., in] -> [..., out], `init_scaled` weights and no initial bias."""
    layer = nn.Linear(width_in, width_out)
    init_scaled(layer.weight, width_in, scale)
    nn.init.zeros_(layer.bias)
    return layer


def dense(width_in: int, width: int, layers: int = 1) -> nn.Sequential:
    """`layers` times linear, RMSNorm, SiLU: [..., in] -> [..., width] (Dreamer V3)."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [linear(width_in, width), nn.RMSNorm(width, eps=1e-4), nn.SiLU()]
        width_in = width
    return nn.Sequential(*parts)


class BlockLinear(nn.Module):
    """Linear layer whose matrix is block-diagonal: each group of outputs sees its group of inputs.

    The initial scale counts the whole input, not the inputs of one group.

    Args:
        width_in: a multiple of `groups`.
        width_out: a multiple of `groups`.
        groups: number of blocks.
    """

    def __init__(self, width_in: int, width_out: int, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, width_in // groups, width_out // groups))
        self.bias = nn.Parameter(torch.zeros(width_out))
        init_scaled(self.weight, width_in)

    def forward(self, x: Tensor) -> Tensor:
        """[..., groups, in / groups] to [..., groups, out / groups]."""
        lead, groups = x.shape[:-2], len(self.weight)
        rows = x.reshape(-1, groups, x.shape[-1]).transpose(0, 1)
        bias = self.bias.view(groups, 1, -1)
        out = torch.baddbmm(bias, rows, self.weight)
        return out.transpose(0, 1).reshape(*lead, groups, -1)
