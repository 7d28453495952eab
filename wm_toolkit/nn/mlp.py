"""Multi-layer perceptrons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn


def mlp(
    width_in: int,
    hidden: Sequence[int],
    width_out: int,
    *,
    norm: Callable[[int], nn.Module] | None = None,
    activation: Callable[[], nn.Module] = nn.SiLU,
) -> nn.Sequential:
    """Linear layers with `norm` and `activation` after every hidden one: [..., in] -> [..., out]."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(width_in, width))
        if norm is not None:
            layers.append(norm(width))
        layers.append(activation())
        width_in = width
    return nn.Sequential(*layers, nn.Linear(width_in, width_out))
