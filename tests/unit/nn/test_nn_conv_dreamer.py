"""Convolutional encoders and decoders: published sizes, published parameter counts, locality."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wm_toolkit.nn.conv import PoolEncoder, StrideDecoder, StrideEncoder, UpsampleDecoder


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("depth", "count", "width"), [(4, 14_304, 256), (16, 220_416, 1024)])
def test_dreamer_v3_encoders_have_their_published_parameters(depth, count, width):
    encoder = PoolEncoder(3, depth)
    assert parameters(encoder) == count
    assert encoder.width == width
    assert encoder(torch.zeros(2, 3, 64, 64)).shape == (2, width)


@pytest.mark.parametrize(
    ("deter", "stoch", "depth", "units", "count"),
    [(512, 128, 4, 64, 80_595), (2048, 512, 16, 256, 1_272_003)],
)
def test_dreamer_v3_decoders_have_their_published_parameters(deter, stoch, depth, units, count):
    decoder = UpsampleDecoder(deter, stoch, 3, depth=depth, units=units)
    assert parameters(decoder) == count
    assert decoder(torch.zeros(2, deter + stoch)).shape == (2, 3, 64, 64)


def test_world_models_vae_has_its_published_parameters():
    latent = 32
    parts = [
        StrideEncoder(3),
        *(nn.Linear(1024, latent) for _ in range(2)),
        StrideDecoder(latent, 3),
    ]
    assert sum(map(parameters, parts)) == 4_348_547
    assert parts[0](torch.zeros(2, 3, 64, 64)).shape == (2, 1024)
    assert parts[-1](torch.zeros(2, latent)).shape == (2, 3, 64, 64)


def test_a_pixel_changes_only_the_cells_near_it(rng):
    encoder = PoolEncoder(1, 2, multiples=(1, 1), size=32)
    image = torch.rand(1, 1, 32, 32, generator=rng)
    other = image.clone()
    other[..., 0, 0] += 1
    change = (encoder(image) - encoder(other)).view(2, 8, 8).abs().sum(0)
    assert change[0, 0] > 0
    assert not change[4:].any()
    assert not change[:, 4:].any()


def test_each_group_of_the_state_draws_its_share_of_the_channels_everywhere(rng):
    deter, stoch = 32, 6
    decoder = UpsampleDecoder(deter, stoch, 3, depth=4, units=8)
    starts = []
    decoder.norm.register_forward_pre_hook(lambda _, args: starts.append(args[0]))
    features = torch.randn(1, deter + stoch, generator=rng)
    other = features.clone()
    other[:, 4:8] += 1  # the second of eight groups
    decoder(features)
    decoder(other)
    change = (starts[1] - starts[0]).abs()[0]  # [16 channels, 4, 4]
    assert bool((change[2:4] > 1e-6).all())
    assert not change[:2].any()
    assert not change[4:].any()
