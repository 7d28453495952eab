"""The decoder of patch tokens: it knows where patches lie, reads what it may, and learns."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wm_toolkit.errors import ConfigError
from wm_toolkit.heads.patch_decoder import PatchDecoder


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        yield


def small(**options) -> PatchDecoder:
    return PatchDecoder(9, 6, (48, 48), visual=4, hidden=8, inner=4, blocks=1, **options)


def test_pictures_keep_the_leading_axes_and_the_size_that_was_asked_for(rng):
    features = torch.randn(2, 3, 54, generator=rng)
    assert small()(features).mean.shape == (2, 3, 48, 48, 3)
    other = PatchDecoder(9, 6, (20, 30), hidden=8, inner=4, blocks=1, channels=1)
    assert other(features[0, 0]).mean.shape == (20, 30, 1)


def test_a_stack_computes_what_is_published(rng):
    decoder = PatchDecoder(9, 6, (12, 12), hidden=8, inner=4, blocks=1, stacks=1)
    features = torch.randn(2, 9, 6, generator=rng)
    first, residual, _, up, _, upper = decoder.net[0]
    wide, narrow = residual.net[1], residual.net[3]
    x = features.mT.unflatten(-1, (3, 3))
    x = functional.conv2d(x, first.weight, first.bias, padding=1)
    branch = functional.conv2d(x.relu(), wide.weight, wide.bias, padding=1)
    x = x + functional.conv2d(branch.relu(), narrow.weight, narrow.bias)
    for layer in (up, upper):
        x = functional.conv_transpose2d(x.relu(), layer.weight, layer.bias, stride=2, padding=1)
    found = decoder(features.flatten(1)).mean
    torch.testing.assert_close(found, x.permute(0, 2, 3, 1))


def test_a_patch_is_drawn_where_it_lies(rng):
    """A stack with one residual block reaches three patches far; each patch becomes 4 x 4 px."""
    decoder = PatchDecoder(81, 6, (36, 36), hidden=8, inner=4, blocks=1, stacks=1)
    features = torch.randn(1, 81, 6, generator=rng)
    changed = features.clone()
    changed[:, 2 * 9 + 7] += 1  # row 2, column 7
    one, two = (decoder(x.flatten(1)).mean for x in (features, changed))
    difference = (one - two).abs().sum((0, -1))
    assert (difference[8:12, 28:32] > 1e-4).all()
    assert difference[24:].max() < 1e-6
    assert difference[:, :16].max() < 1e-6


def test_what_is_not_visual_is_never_looked_at(rng):
    features = torch.randn(1, 9, 6, generator=rng)
    changed = features.clone()
    changed[..., 4:] += 1
    decoder = small()
    assert torch.equal(decoder(features.flatten(1)).mean, decoder(changed.flatten(1)).mean)


def test_a_learnt_background_is_added_to_every_picture(rng):
    features = torch.randn(2, 54, generator=rng)
    decoder = small(background=True)
    before = decoder(features).mean
    with torch.no_grad():
        decoder.background[3, 4] += 1
    after = decoder(features).mean
    expected = torch.zeros(48, 48, 3)
    expected[3, 4] = 1
    torch.testing.assert_close(after - before, expected.expand(2, -1, -1, -1))


def test_patches_that_make_no_square_are_refused():
    with pytest.raises(ConfigError, match="8 patches make no square"):
        PatchDecoder(8, 6, (48, 48))
