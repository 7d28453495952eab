"""Random numbers for planners: smooth noise over time, and actions drawn without a preference."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from wm_toolkit.spaces import Spaces


def power_law_noise(
    shape: tuple[int, ...],
    exponent: float,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Gaussian noise whose power spectrum over time falls as 1 / f^exponent.

    White noise is filtered with the amplitude f^(-exponent / 2) (Timmer and Koenig 1995, "On
    generating power law noise"); the mean takes the amplitude of the lowest frequency.

    Args:
        shape: [..., T, A]; time is the last but one axis.
        exponent: 0 white, 1 pink, 2 red (Brownian).
        generator: source of randomness, on `device`.
        device: where the noise is made.

    Returns:
        `shape`, every element of mean 0 and deviation 1.
    """
    white = torch.randn(shape, generator=generator, device=device)
    steps = shape[-2]
    if exponent == 0 or steps == 1:
        return white
    frequency = torch.fft.fftfreq(steps, device=device).abs().clamp_min(1 / steps)
    amplitude = frequency.pow(-exponent / 2)
    amplitude = amplitude / amplitude.square().mean().sqrt()
    half = amplitude[: steps // 2 + 1].unsqueeze(-1)
    return torch.fft.irfft(torch.fft.rfft(white, dim=-2) * half, n=steps, dim=-2)


def block_noise(
    shape: tuple[int, ...],
    block: int,
    exponent: float,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Power-law noise over raw environment steps, for actions that hold `block` of them.

    Args:
        shape: [..., H, A], A holds `block` raw actions one after the other.
        block: raw actions per action.
        exponent, generator, device: as for `power_law_noise`.

    Returns:
        `shape`; reshaped to [..., H * block, A / block] it follows the power law.
    """
    *lead, horizon, width = shape
    raw = (*lead, horizon * block, width // block)
    return power_law_noise(raw, exponent, generator=generator, device=device).reshape(shape)


def random_actions(
    spaces: Spaces,
    shape: tuple[int, ...],
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Encoded actions drawn alike: uniform between bounds, normal without, any choice or bit.

    Args:
        spaces: whose actions.
        shape: leading axes.
        generator: source of randomness, on `device`.
        device: where they are made.

    Returns:
        [*shape, A].
    """
    if spaces.action_groups:
        draws = [
            one_hot(torch.randint(n, shape, generator=generator, device=device), n)
            for n in spaces.action_groups
        ]
        return torch.cat(draws, -1).float()
    full = (*shape, spaces.action_width)
    if spaces.discrete:
        return torch.randint(2, full, generator=generator, device=device).float()
    low, high = spaces.action_low.to(device), spaces.action_high.to(device)
    bounded = torch.isfinite(low) & torch.isfinite(high)
    uniform = torch.rand(full, generator=generator, device=device)
    between = low.nan_to_num(posinf=0, neginf=0).lerp(high.nan_to_num(posinf=0, neginf=0), uniform)
    if bool(bounded.all()):
        return between
    normal = torch.randn(full, generator=generator, device=device).clamp(low, high)
    return torch.where(bounded, between, normal)
