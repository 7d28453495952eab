"""A vision transformer trained from scratch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_toolkit.errors import ConfigError
from wm_toolkit.nn.transformer import Block


class ViT(nn.Module):
    """Images to one class token (Dosovitskiy et al. 2021).

    The defaults are ViT-Tiny/14 at 224 px, 5,501,376 parameters.

    Args:
        image_size: height and width in px.
        patch: side of a patch in px.
        width: D.
        layers: number of blocks.
        heads: heads per block.
        mlp_ratio: width of a block's MLP over D.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch: int = 14,
        width: int = 192,
        layers: int = 12,
        heads: int = 3,
        mlp_ratio: int = 4,
    ) -> None:
        super().__init__()
        if image_size % patch or width % heads:
            raise ConfigError(
                f"image_size {image_size} must be a multiple of patch {patch}, "
                f"and width {width} of heads {heads}"
            )
        self.patch, self.width = patch, width
        self.embed = nn.Linear(3 * patch * patch, width)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, (image_size // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(
            *(Block(width, heads, mlp_ratio * width, eps=1e-12) for _ in range(layers))
        )
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.positions, std=0.02)
        nn.init.trunc_normal_(self.token, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised float images [n, 3, h, w] to class tokens [n, D]."""
        patches = self.embed(patchify(images, self.patch))
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], 1) + self.positions
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens)
        assert isinstance(last, Block)
        return self.norm(last.first(tokens)[:, 0])  # the last block's patches are read by nobody


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images [n, C, h, w] into rows of patches [n, (h / patch) (w / patch), C patch patch]."""
    grid = images.unfold(2, patch, patch).unfold(3, patch, patch)
    return grid.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
