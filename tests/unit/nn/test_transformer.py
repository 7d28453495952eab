"""Attention sees what it may, and a fresh AdaLN block is the identity."""

from __future__ import annotations

import pytest
import torch

from wm_toolkit.encoders.vit import ViT, patchify
from wm_toolkit.errors import ConfigError, ShapeError
from wm_toolkit.nn.image import to_float
from wm_toolkit.nn.transformer import AdaLNBlock, Attention, Block


def test_a_fresh_adaln_block_is_the_identity(rng):
    block = AdaLNBlock(8, 2, head_width=4, hidden=16, dropout=0.0)
    x = torch.randn(2, 3, 8, generator=rng)
    assert torch.equal(block(x, torch.randn(2, 3, 8, generator=rng)), x)


def test_causal_attention_never_sees_the_future(rng):
    attention = Attention(8, 2)
    x = torch.randn(1, 5, 8, generator=rng)
    changed = x.clone()
    changed[:, 3] += 1
    one, two = attention(x, causal=True), attention(changed, causal=True)
    assert torch.equal(one[:, :3], two[:, :3])
    assert not torch.allclose(one[:, 3:], two[:, 3:])


def test_attention_equals_the_textbook_sum(rng):
    attention = Attention(6, 2, head_width=5, bias=False)
    x = torch.randn(1, 4, 6, generator=rng)
    q, k, v = attention.qkv(x).view(4, 3, 2, 5).unbind(1)
    heads = [torch.softmax(q[:, h] @ k[:, h].T / 5**0.5, -1) @ v[:, h] for h in range(2)]
    expected = attention.out(torch.cat(heads, -1))
    torch.testing.assert_close(attention(x)[0], expected)


@pytest.mark.parametrize(("known", "new"), [(0, 3), (1, 2), (2, 1), (3, 1)])
def test_frames_that_follow_remembered_ones_come_out_as_if_computed_together(known, new, rng):
    block = AdaLNBlock(8, 2, head_width=5, hidden=16)
    with torch.no_grad():
        block.modulation[1].weight.normal_(generator=rng)
    x, condition = torch.randn(2, 3, known + new, 8, generator=rng)
    modulation = block.modulation(condition)
    expected, past = block(x, condition), None
    if known:
        _, past = block.extend(x[:, :known], modulation[:, :known])
    found, memory = block.extend(x[:, known:], modulation[:, known:], past)
    torch.testing.assert_close(found, expected[:, known:])
    assert memory[0].shape == memory[1].shape == (3, 2, known + new, 5)
    newest, _ = block.extend(x[:, known:], modulation[:, known:], past, newest=True)
    torch.testing.assert_close(newest, expected[:, -1:])


def test_the_first_token_alone_is_what_the_whole_block_gives_it(rng):
    block = Block(8, 2, 16)
    x = torch.randn(3, 5, 8, generator=rng)
    torch.testing.assert_close(block.first(x), block(x)[:, :1])


def test_a_vit_gives_the_class_token_of_plain_blocks(rng):
    vit = ViT(image_size=16, patch=8, width=12, layers=3, heads=2)
    images = torch.randn(2, 3, 16, 16, generator=rng)
    tokens = vit.embed(patchify(images, 8))
    tokens = torch.cat([vit.token.expand(2, -1, -1), tokens], 1) + vit.positions
    torch.testing.assert_close(vit(images), vit.norm(vit.blocks(tokens))[:, 0])


def test_patches_are_rows_of_the_image_grid():
    image = torch.arange(2 * 4 * 4.0).view(1, 2, 4, 4)
    patches = patchify(image, 2)
    assert patches.shape == (1, 4, 8)
    assert patches[0, 1].tolist() == image[0, :, :2, 2:].flatten().tolist()


def test_images_are_normalised_in_one_place():
    images = torch.full((2, 3, 4, 4, 3), 255, dtype=torch.uint8)
    floats = to_float(images, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.25))
    assert floats.shape == (2, 3, 3, 4, 4)
    assert floats[0, 0, :, 0, 0].tolist() == pytest.approx([1, 1, 2])
    same = to_float(images.float() / 255, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.25))
    torch.testing.assert_close(floats, same)


def test_other_sizes_are_resized():
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    assert to_float(images, size=4).shape == (2, 3, 4, 4)


def test_grey_images_are_refused():
    with pytest.raises(ShapeError, match="3 channels"):
        to_float(torch.zeros(1, 4, 4, 1, dtype=torch.uint8))


def test_a_patch_that_does_not_divide_the_image_is_refused():
    with pytest.raises(ConfigError, match="multiple of patch 7"):
        ViT(image_size=64, patch=7)
