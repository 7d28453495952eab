"""SIGReg: keeps embeddings an isotropic Gaussian, and so from collapsing (Balestriero and LeCun 2025)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from wm_toolkit.nn.distributed import mean_over_processes, processes, same_everywhere

LAST_KNOT = 3.0  # integration over [0, 3], the symmetric half folded in (LeJEPA's EppsPulley)
REFERENCE_BATCH = 128  # batch size of the published LeWorldModel, at which its weight 0.09 holds

Estimator = Literal["statistic", "unbiased"]


def sigreg(
    z: Tensor, directions: Tensor, *, knots: int = 17, estimator: Estimator = "statistic"
) -> Tensor:
    """Epps-Pulley distance of projected samples to N(0, 1), averaged over the directions.

    T_m = N * integral |phi_m(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt,  phi_m(t) = mean_n exp(i t z_n a_m)

    The trapezoidal rule has `knots` points on [0, 3]. Collapsed samples give 0.40205 N, samples of
    N(0, I) give 1.0525 in expectation whatever N is. N counts the samples of all processes.

    Args:
        z: [..., N, D] samples; leading axes are independent tests and are averaged.
        directions: [D, M], columns of unit length, equal on all processes.
        knots: points of the quadrature.
        estimator: "statistic" is the published T. It grows with N, so a weight tuned at one batch size
            does not suit another. "unbiased" estimates the same integral without the bias of |phi|^2
            and multiplies it by 128: its expectation does not depend on N, and is 0 for N(0, I).

    Returns:
        [] scalar.
    """
    t = torch.linspace(0, LAST_KNOT, knots, device=z.device)
    target = (-0.5 * t.square()).exp()
    weight = torch.full_like(t, 2 * LAST_KNOT / (knots - 1))
    weight[[0, -1]] /= 2
    with torch.autocast(z.device.type, enabled=False):  # products of half precision are too coarse
        angle = (z.float() @ directions).unsqueeze(-1) * t
    real = mean_over_processes(angle.cos().mean(-3))
    imaginary = mean_over_processes(angle.sin().mean(-3))
    count = z.shape[-2] * processes()
    if estimator == "statistic":
        error = (real - target).square() + imaginary.square()
        return count * (error @ (weight * target)).mean()
    power = (count * (real.square() + imaginary.square()) - 1) / (count - 1)
    error = power - 2 * real * target + target.square()
    return REFERENCE_BATCH * (error @ (weight * target)).mean()


class SIGReg(nn.Module):
    """`sigreg` with new random directions at every call, the same on all processes.

    Args:
        slices: M, number of directions.
        knots: points of the quadrature.
        estimator: see `sigreg`.
    """

    def __init__(
        self, *, slices: int = 1024, knots: int = 17, estimator: Estimator = "statistic"
    ) -> None:
        super().__init__()
        self.slices, self.knots = slices, knots
        self.estimator: Estimator = estimator

    def forward(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """[..., N, D] samples to a [] scalar."""
        directions = torch.randn(z.shape[-1], self.slices, device=z.device, generator=generator)
        directions = same_everywhere(directions / directions.norm(dim=0))
        return sigreg(z, directions, knots=self.knots, estimator=self.estimator)
