"""Convolutional encoders: sizes, published counts, and which recipe option builds which."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from wm_toolkit.encoders.conv import ConvEncoder, ResNet18
from wm_toolkit.errors import ConfigError
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_resnet18_has_the_published_number_of_parameters(rng):
    encoder = ResNet18()
    assert count(encoder) == 11_176_512
    assert encoder(torch.randn(2, 3, 64, 64, generator=rng)).shape == (2, 512)


def test_the_small_one_has_the_parameters_of_its_arithmetic(rng):
    encoder = ConvEncoder(image_size=32, depth=4, width=10)
    kernels = sum(16 * a * b + b for a, b in ((3, 4), (4, 8), (8, 16), (16, 32)))
    norms = 2 * (4 + 8 + 16 + 32) + 2 * 10
    assert count(encoder) == kernels + norms + (4 * 32 + 1) * 10
    assert encoder(torch.randn(2, 3, 32, 32, generator=rng)).shape == (2, 10)


def test_each_image_is_encoded_by_itself(rng):
    encoder, images = ConvEncoder(image_size=32, depth=4), torch.randn(3, 3, 32, 32, generator=rng)
    together = encoder(images)
    apart = torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(together, apart)


def test_a_size_that_four_halvings_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match="image_size is 40, expected a multiple of 16"):
        ConvEncoder(image_size=40)


@pytest.mark.parametrize(("name", "kind"), [("conv", ConvEncoder), ("resnet18", ResNet18)])
def test_leworldmodel_is_built_on_the_encoder_its_config_names(name, kind):
    model = build("lewm.small", spaces(), encoder=name, decoder=False).model
    assert isinstance(model.encoder, kind)
    frame = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    state = model.observe(model.initial(2), torch.zeros(2, 2), {"image": frame})
    assert model.features(state).shape == (2, 32)


def test_an_unknown_encoder_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"encoder is 'cnn'\. Did you mean 'conv'\?"):
        build("lewm.small", spaces(), encoder="cnn")


def spaces() -> Spaces:
    image = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    return Spaces({"image": image}, gym.spaces.Box(-1, 1, (2,), np.float32))
