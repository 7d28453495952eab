"""Attention over frames of many tokens, with a look back and rotary positions, against masks and formulas."""

from __future__ import annotations

import math

import pytest
import torch

from wm_toolkit.errors import ConfigError
from wm_toolkit.nn.rotary import Rotary
from wm_toolkit.nn.transformer import AdaLNBlock, Attention, Block, Frames


def block_mask(frames: int, tokens: int, window: int | None) -> torch.Tensor:
    frame = torch.arange(frames).repeat_interleave(tokens)
    ago = frame.unsqueeze(-1) - frame
    return (ago >= 0) & (ago < (window or frames))


@pytest.mark.parametrize("window", [None, 1, 2, 3])
@pytest.mark.parametrize("tokens", [1, 4])
def test_attention_frame_by_frame_equals_a_block_mask(tokens, window, rng):
    rotary = Rotary(tokens)
    attention = Attention(12, 2, frames=Frames(tokens, window, rotary))
    x = torch.randn(2, 4 * tokens, 12, generator=rng)
    masked = attention(x, block_mask(4, tokens, window))
    torch.testing.assert_close(attention(x, causal=True), masked)


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("kind", ["plain", "modulated"])
def test_a_block_goes_on_from_what_it_remembers(kind, tokens, window, rng):
    frames = Frames(tokens, window, Rotary(tokens))
    x = torch.randn(2, 5 * tokens, 12, generator=rng)
    extra = ()
    if kind == "plain":
        block = Block(12, 2, 16, head_width=7, bias=False, frames=frames)
        expected = block(x, causal=True)
    else:
        block = AdaLNBlock(12, 2, hidden=16, inner_norms=False, modulation_std=0.5, frames=frames)
        condition = torch.randn(2, 5, 12, generator=rng)
        expected = block(x, condition)
        extra = (block.modulation(condition),)
    cut = 3 * tokens
    before, after = [e[:, :3] for e in extra], [e[:, 3:] for e in extra]
    _, past = block.extend(x[:, :cut], *before)
    found, memory = block.extend(x[:, cut:], *after, past=past, first=3)
    torch.testing.assert_close(found, expected[:, cut:])
    assert memory[0].shape[2] == 5 * tokens
    newest, _ = block.extend(x[:, cut:], *after, past=past, first=3, newest=True)
    torch.testing.assert_close(newest, expected[:, -tokens:])
    if window:
        seen = tuple(part[:, :, -tokens:] for part in past)  # all that a window of two can see
        short, _ = block.extend(x[:, cut:], *after, past=seen, first=3)
        torch.testing.assert_close(short, found)


def test_tokens_of_a_frame_share_its_modulation(rng):
    frames = Frames(3)
    block = AdaLNBlock(8, 2, hidden=16, modulation_std=0.5, frames=frames)
    x, condition = torch.randn(2, 6, 8, generator=rng), torch.randn(2, 2, 8, generator=rng)
    single = AdaLNBlock(8, 2, hidden=16)
    single.load_state_dict(block.state_dict())
    repeated = condition.repeat_interleave(3, 1)
    expected = single(x, repeated, block_mask(2, 3, None))
    torch.testing.assert_close(block(x, condition), expected)


def test_rotary_positions_turn_pairs_by_time_row_and_column():
    """With a head of 6, one pair per axis, all of speed 1: the angles are t, row and column."""
    rotary = Rotary(4)
    turned = rotary.rotate(torch.tensor([1.0, 0, 1, 0, 1, 0]).expand(1, 1, 8, 6), first=5)
    for token in range(8):
        time, patch = 5 + token // 4, token % 4
        angles = (time, patch // 2, patch % 2)
        expected = [f(angle) for angle in angles for f in (math.cos, math.sin)]
        torch.testing.assert_close(turned[0, 0, token], torch.tensor(expected))


def test_rotary_scores_depend_on_differences_only(rng):
    rotary, (q, k) = Rotary(1), torch.randn(2, 1, 1, 1, 20, generator=rng)
    scores = [(rotary.rotate(q, 3 + s) * rotary.rotate(k, 1 + s)).sum() for s in (0, 4, 50)]
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[0], scores[2], rtol=1e-4, atol=1e-4)
    other = (rotary.rotate(q, 4) * rotary.rotate(k, 1)).sum()
    assert (other - scores[0]).abs() > 1e-3


def test_what_no_axis_can_share_is_left_as_it_is(rng):
    x = torch.randn(1, 1, 4, 25, generator=rng)
    turned = Rotary(4).rotate(x, 2)
    assert torch.equal(turned[..., 24:], x[..., 24:])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_patches_that_make_no_square_are_refused():
    with pytest.raises(ConfigError, match="6 patches make no square"):
        Rotary(6)
