"""The state of every model that predicts from a window of past frames."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class Window(Struct):
    """The last frames and the actions between them, newest last, padded on the left.

    Attributes:
        tokens: [..., H, P, E] frames as tokens.
        actions: [..., H - 1, A] the action taken after each frame but the newest.
        count: [...] int64, how many of the H frames are real.
    """

    tokens: Tensor
    actions: Tensor
    count: Tensor

    @property
    def newest(self) -> Tensor:
        """[..., P, E] tokens of the present frame."""
        return self.tokens[..., -1, :, :]


def empty(
    batch_size: int, history: int, tokens: tuple[int, int], action: int, like: Tensor
) -> Window:
    """A window of `history` frames in which nothing is real; tokens = (P, E), action = A."""
    return Window(
        like.new_zeros(batch_size, history, *tokens),
        like.new_zeros(batch_size, history - 1, action),
        torch.zeros(batch_size, dtype=torch.int64, device=like.device),
    )


def push(window: Window, action: Tensor, tokens: Tensor) -> Window:
    """Append the frame `tokens` [B, P, E] that `action` [B, A] led to; the oldest drops out."""
    history = window.tokens.shape[1]
    return Window(
        torch.cat([window.tokens[:, 1:], tokens.unsqueeze(1)], 1),
        torch.cat([window.actions, action.unsqueeze(1)], 1)[:, 1:],
        (window.count + 1).clamp(max=history),
    )


def visible(count: Tensor, history: int, window: int | None = None) -> tuple[Tensor, Tensor]:
    """What left padding does to positions and to causal attention over frames.

    Args:
        count: [B] real frames of each row.
        history: H.
        window: frames that a frame sees, its own included; None sees all before it.

    Returns:
        [B, H] position of each frame, counted from the oldest real one (0 on padding), and
        [B, 1, H, H] mask, true where a frame may see another; padding sees only itself.
    """
    index = torch.arange(history, device=count.device)
    first = history - count.unsqueeze(-1)
    ago = index.unsqueeze(-1) - index
    causal = (ago >= 0) & (ago < (window or history))
    real = (index >= first).unsqueeze(1)
    itself = torch.eye(history, dtype=torch.bool, device=count.device)
    return (index - first).clamp(min=0), ((causal & real) | itself).unsqueeze(1)


def sliding(window: Window, frames: Tensor, actions: Tensor) -> Window:
    """All windows along dreamt sequences, as views of one buffer.

    Args:
        window: [M] where the dreams began.
        frames: [M, K, P, E] dreamt frames.
        actions: [M, K, A] the actions that led to them.

    Returns:
        [M, K] the window that ends in each frame.
    """
    history, steps = window.tokens.shape[1], frames.shape[1]
    tokens = torch.cat([window.tokens, frames], 1).unfold(1, history, 1)[:, 1:]
    taken = torch.cat([window.actions, actions], 1)
    if history > 1:
        past = taken.unfold(1, history - 1, 1)[:, 1:].movedim(-1, 2)
    else:
        past = taken.new_zeros(len(taken), steps, 0, taken.shape[-1])
    age = torch.arange(1, steps + 1, device=window.count.device)
    count = (window.count.unsqueeze(-1) + age).clamp(max=history)
    return Window(tokens.movedim(-1, 2), past, count)
