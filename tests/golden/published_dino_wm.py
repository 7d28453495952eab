"""The modules that a released DINO-WM checkpoint is a pickle of, written plainly from their description.

Such a file names its classes by module path (`models.vit`, `models.proprio`), so they stand at these paths
while a test writes one, and are gone when it is read.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Attention in which the tokens of a frame see those of their own and of earlier frames."""

    def __init__(self, dim: int, heads: int, width: int, patches: int, frames: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, width**-0.5
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * width, dim), nn.Dropout(0.1))
        frame = torch.arange(frames * patches) // patches
        self.bias = (frame[:, None] >= frame).float()[None, None]  # a plain attribute, as published

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        parts = self.to_qkv(self.norm(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        match = torch.einsum("bqhc,bkhc->bhqk", q, k) * self.scale
        hidden = self.bias[:, :, :length, :length] == 0
        weights = match.masked_fill(hidden, float("-inf")).softmax(-1)
        return self.to_out(torch.einsum("bhqk,bkhc->bqhc", weights, v).flatten(2))


class FeedForward(nn.Module):
    """LayerNorm, Linear, GELU, Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        first, last = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        drop = nn.Dropout(0.1)
        self.net = nn.Sequential(nn.LayerNorm(dim), first, nn.GELU(), drop, last, nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        norm, first, _, _, last, _ = self.net
        return last(functional.gelu(first(norm(x))))


class Transformer(nn.Module):
    """Pre-norm blocks and a final norm."""

    def __init__(self, dim: int, depth: int, hidden: int, **attention: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([Attention(dim, **attention), FeedForward(dim, hidden)])
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for attention, mlp in self.layers:
            x = x + attention(x)
            x = x + mlp(x)
        return self.norm(x)


class ViTPredictor(nn.Module):
    """[B, T P, D] tokens of T frames to those of the frames after each."""

    def __init__(self, dim: int, depth: int, hidden: int, **attention: int) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(
            torch.zeros(1, attention["frames"] * attention["patches"], dim)
        )
        self.transformer = Transformer(dim, depth, hidden, **attention)
        self.pool = "mean"

    def forward(self, x: Tensor) -> Tensor:
        return self.transformer(x + self.pos_embedding[:, : x.shape[1]])


class ProprioceptiveEmbedding(nn.Module):
    """[B, T, in] to [B, T, out] by a convolution of width 1."""

    def __init__(self, in_chans: int, emb_dim: int) -> None:
        super().__init__()
        self.in_chans, self.emb_dim = in_chans, emb_dim
        self.patch_embed = nn.Conv1d(in_chans, emb_dim, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.patch_embed(x.mT).mT


PATHS = {
    "models": (),
    "models.vit": (Attention, FeedForward, Transformer, ViTPredictor),
    "models.proprio": (ProprioceptiveEmbedding,),
}


@contextmanager
def at_their_paths() -> Iterator[None]:
    """Within the block the classes can be imported from where published code has them."""
    for path, classes in PATHS.items():
        sys.modules[path] = types.ModuleType(path)
        for cls in classes:
            cls.__module__ = path
            setattr(sys.modules[path], cls.__name__, cls)
    try:
        yield
    finally:
        for path, classes in PATHS.items():
            del sys.modules[path]
            for cls in classes:
                cls.__module__ = __name__
