"""The random numbers of planners."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from wm_toolkit.planning.noise import block_noise, power_law_noise, random_actions
from wm_toolkit.spaces import Spaces


def slope(noise: torch.Tensor) -> float:
    """Of log power against log frequency, over the time axis of [N, T, A]."""
    steps = noise.shape[1]
    power = torch.fft.rfft(noise, dim=1).abs().square().mean((0, 2))[1 : steps // 2]
    frequency = torch.arange(1, steps // 2) / steps
    return float(np.polyfit(frequency.log().numpy(), power.log().numpy(), 1)[0])


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
def test_the_power_falls_with_the_stated_exponent(exponent, rng):
    noise = power_law_noise((2000, 64, 2), exponent, generator=rng)
    assert slope(noise) == pytest.approx(-exponent, abs=0.05)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0, 4.0])
@pytest.mark.parametrize("steps", [1, 2, 5, 16])
def test_every_step_has_mean_zero_and_deviation_one(exponent, steps, rng):
    noise = power_law_noise((20_000, steps, 1), exponent, generator=rng)
    assert noise.mean(0).abs().amax() < 0.03
    assert (noise.std(0) - 1).abs().amax() < 0.03


def test_a_block_is_smooth_over_the_raw_steps_inside_and_across_actions(rng):
    blocks = block_noise((2000, 6, 8), block=4, exponent=2.0, generator=rng)
    raw = blocks.reshape(2000, 24, 2)
    assert slope(raw) == pytest.approx(-2.0, abs=0.05)
    neighbours = (raw[:, 1:] * raw[:, :-1]).mean((0, 2))
    frequency = torch.fft.fftfreq(24)
    power = frequency.abs().clamp_min(1 / 24) ** -2.0
    expected = (power * torch.cos(2 * torch.pi * frequency)).sum() / power.sum()
    assert (neighbours - expected).abs().amax() < 0.05, "seams are as smooth as the inside"
    assert (raw[..., 0] * raw[..., 1]).mean().abs() < 0.05, "the two raw dimensions are independent"


def test_white_block_noise_is_the_plain_draw(rng):
    again = torch.Generator().manual_seed(0)
    noise = block_noise((3, 5, 4), block=2, exponent=0.0, generator=rng)
    assert torch.equal(noise, torch.randn(3, 10, 2, generator=again).view(3, 5, 4))


def spaces(action: gym.Space, **options) -> Spaces:
    return Spaces({"vector": gym.spaces.Box(-1, 1, (2,), np.float32)}, action, **options)


def test_bounded_actions_are_uniform_between_their_bounds(rng):
    box = gym.spaces.Box(np.float32([0.0, -3.0]), np.float32([1.0, 5.0]), dtype=np.float32)
    drawn = random_actions(spaces(box, scaling="none"), (100, 200), generator=rng)
    flat = drawn.flatten(0, 1)
    assert flat.mean(0).tolist() == pytest.approx([0.5, 1.0], abs=0.06)
    assert flat.std(0).tolist() == pytest.approx([1 / 12**0.5, 8 / 12**0.5], rel=0.03)
    assert (flat.amin(0) >= torch.tensor([0.0, -3.0])).all()
    assert (flat.amax(0) <= torch.tensor([1.0, 5.0])).all()


def test_dimensions_without_bounds_are_normal_beside_bounded_ones(rng):
    low, high = np.float32([-np.inf, -1.0]), np.float32([np.inf, 1.0])
    box = gym.spaces.Box(low, high, dtype=np.float32)
    drawn = random_actions(spaces(box), (20_000,), generator=rng)
    assert drawn.std(0).tolist() == pytest.approx([1.0, 1 / 3**0.5], rel=0.03)
    assert drawn[:, 0].abs().amax() > 3 > 1 >= drawn[:, 1].abs().amax()


def test_choices_and_bits_are_drawn_evenly(rng):
    choices = random_actions(spaces(gym.spaces.MultiDiscrete([2, 3])), (6000,), generator=rng)
    assert choices[:, :2].sum(1).eq(1).all()
    assert choices[:, 2:].sum(1).eq(1).all()
    assert choices.mean(0).tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3], abs=0.03)
    bits = random_actions(spaces(gym.spaces.MultiBinary(3)), (6000,), generator=rng)
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    assert bits.mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.03)
