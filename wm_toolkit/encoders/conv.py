"""Convolutional encoders of whole images, trained from scratch."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from wm_toolkit.errors import ConfigError
from wm_toolkit.nn.timm_import import import_timm


class ConvEncoder(nn.Module):
    """Four convolutions of stride 2 and a linear map: small, and quick to find where things are.

    In Push-T at 64 px it learns the block's angle from labels in 300 updates of 64 windows, when a ViT of
    equal cost has not begun to.

    Args:
        image_size: height and width in px, a multiple of 16.
        depth: channels of the first layer; each has twice those before it.
        width: D.
    """

    def __init__(self, *, image_size: int = 64, depth: int = 16, width: int = 256) -> None:
        super().__init__()
        if image_size % 16:
            raise ConfigError(f"image_size is {image_size}, expected a multiple of 16")
        self.width = width
        widths = [3, *(depth * 2**i for i in range(4))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.GroupNorm(1, after), nn.SiLU()]
        cells = (image_size // 16) ** 2
        self.net = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(cells * widths[-1], width), nn.LayerNorm(width)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Normalised float images [n, 3, h, w] to [n, D]."""
        return self.net(images)


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016) by timm with random weights; 11,176,512 parameters, D = 512."""

    width = 512

    def __init__(self) -> None:
        super().__init__()
        self.net = import_timm().create_model("resnet18", pretrained=False, num_classes=0)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised float images [n, 3, h, w] to [n, 512]."""
        return self.net(images)
