"""Pictures out of patch tokens: the decoder that DINO-WM trains beside its model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wm_toolkit.errors import ConfigError
from wm_toolkit.heads.image import Image
from wm_toolkit.nn.image import resized


class PatchDecoder(nn.Module):
    """Convolutions from a square of patch tokens, flat in [..., P E], to an Image [..., h, w, C].

    Two stacks of a 3x3 convolution, four residual blocks and two transposed convolutions, each of which
    makes the picture four times as large: 14 -> 56 -> 224 px. This is the decoder of a VQ-VAE-2 (Razavi
    et al. 2019) without quantisation, as DINO-WM has it (Zhou et al. 2025). Where the picture wanted
    has another size, the last one is resized.

    Args:
        patches: P, a square number.
        width: E of a token.
        size: (h, w) of the picture in px.
        visual: how many channels of a token are read, from the first; None reads all.
        channels: C.
        hidden: channels of the convolutions; half of them between two transposed ones.
        inner: channels inside the residual blocks.
        blocks: residual blocks of a stack.
        stacks: how many; each enlarges four times.
        background: add a learnt picture to all, so that a still background costs a short training
            nothing (not published).

    Raises:
        ConfigError: if the patches make no square.
    """

    def __init__(
        self,
        patches: int,
        width: int,
        size: tuple[int, int],
        *,
        visual: int | None = None,
        channels: int = 3,
        hidden: int = 384,
        inner: int = 128,
        blocks: int = 4,
        stacks: int = 2,
        background: bool = False,
    ) -> None:
        super().__init__()
        self.side = math.isqrt(patches)
        if self.side**2 != patches:
            raise ConfigError(f"{patches} patches make no square picture")
        self.width, self.visual, self.size = width, visual or width, size
        widths = [self.visual, *[hidden] * (stacks - 1)]
        ends = [*[hidden] * (stacks - 1), channels]
        self.net = nn.Sequential(
            *(
                _stack(start, hidden, end, inner=inner, blocks=blocks)
                for start, end in zip(widths, ends, strict=True)
            )
        )
        self.background = nn.Parameter(torch.full((*size, channels), 0.5)) if background else None

    def forward(self, features: Tensor) -> Image:
        """[..., P E] to an Image of mean [..., h, w, C]."""
        lead = features.shape[:-1]
        tokens = features.reshape(-1, self.side, self.side, self.width)[..., : self.visual]
        pixels = resized(self.net(tokens.permute(0, 3, 1, 2)), self.size)
        mean = pixels.permute(0, 2, 3, 1).reshape(*lead, *self.size, -1)
        return Image(mean if self.background is None else mean + self.background)


class _Residual(nn.Module):
    """x + conv1(relu(conv3(relu(x))))."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(hidden, inner, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(inner, hidden, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[n, hidden, h, w] to the same shape."""
        return x + self.net(x)


def _stack(start: int, hidden: int, end: int, *, inner: int, blocks: int) -> nn.Sequential:
    """[n, start, s, s] to [n, end, 4 s, 4 s]."""
    return nn.Sequential(
        nn.Conv2d(start, hidden, 3, padding=1),
        *(_Residual(hidden, inner) for _ in range(blocks)),
        nn.ReLU(),
        nn.ConvTranspose2d(hidden, hidden // 2, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(hidden // 2, end, 4, 2, 1),
    )
