"""Layers of the Dreamer family: linear, norm, activation, with the initial scale of their inputs."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

# What a normal distribution cut at two deviations has to be stretched by to have deviation one.
UNCUT = 1.1368


class RMSNorm(nn.RMSNorm):
    """RMSNorm over [..., width] in float32, whatever precision comes in (Dreamer V3: eps 1e-4)."""

    def __init__(self, width: int, eps: float = 1e-4) -> None:
        super().__init__(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same, float32."""
        return super().forward(x.float())


class NormSiLU(RMSNorm):
    """SiLU behind the RMSNorm, at once."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same, float32."""
        assert self.eps is not None
        return norm_silu(x.float(), self.weight, self.eps)


def norm_silu(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """silu(x / sqrt(mean(x^2) + eps) * weight), the mean over the last axis: [..., width] to the same."""
    # Accelerators have a fused norm, and the compiler makes one.
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        return _NormSiLU.apply(x, weight, eps)
    return functional.silu(functional.rms_norm(x, weight.shape, weight, eps))


class _NormSiLU(torch.autograd.Function):
    """`norm_silu` in few passes over memory; its backward pass starts from x alone.

    With n = r x, r = 1 / sqrt(mean(x^2) + eps), and d the gradient before SiLU:
    dweight = sum(d n),  dx = r (d weight - n mean(d weight n)).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """[..., width]."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        rate = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, rate)
        return functional.silu((x * rate).mul_(weight), inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of x and weight."""
        x, weight, rate = ctx.saved_tensors
        normed = x * rate
        before = torch.ops.aten.silu_backward(grads[0], normed * weight)
        product = before * normed
        share = (product @ weight).div_(x.shape[-1]).unsqueeze(-1)
        grad = before.mul_(weight).addcmul_(normed, share, value=-1).mul_(rate)
        return grad, product.reshape(-1, len(weight)).sum(0), None


@dataclasses.dataclass(frozen=True)
class Style:
    """How a generation of Dreamers makes its hidden layers.

    Attributes:
        norm: "rms" RMSNorm (V3); "layer" LayerNorm behind linear layers without bias (V3's preprint);
            "none" (PlaNet, V1, V2).
        activation: behind it.
        fan: what initial weights are scaled by: the inputs, or the "average" of inputs and outputs (V3's
            preprint). `init_glorot` overwrites them for the older generations.
    """

    norm: Literal["rms", "layer", "none"] = "rms"
    activation: type[nn.Module] = nn.SiLU
    fan: Literal["in", "average"] = "in"

    def norms(self, width: int) -> list[nn.Module]:
        """The norm over the last axis of [..., width], or nothing."""
        if self.norm == "none":
            return []
        return [RMSNorm(width) if self.norm == "rms" else nn.LayerNorm(width, eps=1e-3)]

    def after(self, width: int) -> list[nn.Module]:
        """What follows a linear layer to [..., width]: norm and activation."""
        if self.norm == "rms" and self.activation is nn.SiLU:
            return [NormSiLU(width)]
        return [*self.norms(width), self.activation()]

    def scale(self, fan_in: int, fan_out: int) -> float:
        """The fan that initial weights are scaled by."""
        return fan_in if self.fan == "in" else (fan_in + fan_out) / 2


V3 = Style()
V3_PREPRINT = Style("layer", nn.SiLU, "average")
PLAIN_ELU = Style("none", nn.ELU)
PLAIN_RELU = Style("none", nn.ReLU)


def init_scaled(weight: Tensor, fan: float, scale: float = 1.0) -> None:
    """Fill `weight` of any shape from a normal cut at two deviations, deviation scale / sqrt(fan)."""
    with torch.no_grad():
        nn.init.trunc_normal_(weight, a=-2.0, b=2.0)
        weight.mul_(scale * UNCUT * fan**-0.5)


def init_glorot(module: nn.Module) -> None:
    """Start all layers as Keras does: uniform by both fans, biases 0, recurrent weights orthogonal."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.GRUCell):
            nn.init.xavier_uniform_(part.weight_ih)
            nn.init.orthogonal_(part.weight_hh)
            nn.init.zeros_(part.bias_ih)
            nn.init.zeros_(part.bias_hh)


def linear(
    width_in: int, width_out: int, *, scale: float = 1.0, bias: bool = True, style: Style = V3
) -> nn.Linear:
    """Linear layer [..., in] -> [..., out], `init_scaled` weights and no initial bias."""
    layer = nn.Linear(width_in, width_out, bias=bias)
    init_scaled(layer.weight, style.scale(width_in, width_out), scale)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def dense(width_in: int, width: int, layers: int = 1, *, style: Style = V3) -> nn.Sequential:
    """`layers` times linear, norm, activation: [..., in] -> [..., width]."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts.append(linear(width_in, width, bias=style.norm != "layer", style=style))
        parts += style.after(width)
        width_in = width
    return nn.Sequential(*parts)


def read(
    width_in: int,
    units: int,
    layers: int,
    width_out: int,
    *,
    scale: float = 1.0,
    style: Style = V3,
) -> nn.Sequential:
    """`dense` layers, then a linear read-out: [..., in] -> [..., out]."""
    last = linear(units if layers else width_in, width_out, scale=scale, style=style)
    return nn.Sequential(dense(width_in, units, layers, style=style), last)


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
