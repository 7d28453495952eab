"""V of World Models: sizes, closed forms, and that it can learn one batch by heart."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from wm_toolkit.encoders.vae import VAEDecoder, VAEEncoder
from wm_toolkit.errors import SpaceError
from wm_toolkit.spaces import Spaces

ACTION = gym.spaces.Discrete(2)


def spaces(*shapes: tuple[int, int, int]) -> Spaces:
    images = {f"image{i}": gym.spaces.Box(0, 255, s, np.uint8) for i, s in enumerate(shapes)}
    return Spaces(images, ACTION)


def test_the_deviation_is_half_the_log_variance_exponentiated(rng):
    encoder = VAEEncoder(spaces((64, 64, 3)), 5, depth=2)
    obs = {"image0": torch.randint(0, 256, (2, 3, 64, 64, 3), dtype=torch.uint8, generator=rng)}
    mean, log_variance = encoder.statistics(encoder.pixels(obs))
    seen = encoder(obs)
    assert seen.mean.shape == (2, 3, 5)
    torch.testing.assert_close(seen.mean, mean)
    torch.testing.assert_close(seen.std.square(), log_variance.exp())


def test_pixels_lie_between_0_and_1_channels_first():
    encoder = VAEEncoder(spaces((64, 64, 3)), 5, depth=2)
    image = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    image[0, 10, 20, 1] = 255
    pixels = encoder.pixels({"image0": image})
    assert pixels[0, 1, 10, 20] == 1
    assert pixels.sum() == 1


def test_images_of_another_size_are_resized_and_drawn_at_their_own():
    encoder = VAEEncoder(spaces((84, 96, 1)), 5, depth=2)
    obs = {"image0": torch.full((2, 84, 96, 1), 51, dtype=torch.uint8)}
    pixels = encoder.pixels(obs)
    assert pixels.shape == (2, 1, 64, 64)
    torch.testing.assert_close(pixels, torch.full_like(pixels, 0.2))
    decoder = VAEDecoder(5, (84, 96, 1), depth=2)
    assert decoder(torch.zeros(2, 7, 5)).mean.shape == (2, 7, 84, 96, 1)


def test_a_picture_is_the_drawn_pixels_channels_last(rng):
    decoder = VAEDecoder(5, (64, 64, 3), depth=2)
    z = torch.randn(2, 5, generator=rng)
    picture = decoder(z)
    torch.testing.assert_close(picture.mean.movedim(-1, 1), decoder.pixels(z))
    target = torch.zeros(2, 64, 64, 3)
    torch.testing.assert_close(picture.loss(target), picture.mean.square().sum((1, 2, 3)))


@pytest.mark.parametrize("shapes", [(), ((64, 64, 3), (64, 64, 3))])
def test_none_or_several_images_are_refused(shapes):
    made = spaces(*shapes) if shapes else Spaces({"x": gym.spaces.Box(-1, 1, (2,))}, ACTION)
    with pytest.raises(SpaceError, match="a VAE reads one image"):
        VAEEncoder(made, 4)
