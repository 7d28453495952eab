"""The one place where uint8 images become floats."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wm_toolkit.errors import ShapeError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def to_float(
    images: Tensor,
    *,
    size: int | None = None,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Tensor:
    """Normalised float images, channels first (a view of channels last, no copy is made for that).

    Args:
        images: [..., h, w, C] uint8, or float in [0, 1].
        size: resize to size x size (bilinear, antialiased) if the images differ.
        mean: per channel, in [0, 1].
        std: per channel.

    Returns:
        [..., C, size, size] float32.

    Raises:
        ShapeError: if the number of channels is wrong.
    """
    if images.shape[-1] != len(mean):
        raise ShapeError(f"images {tuple(images.shape)} do not end with {len(mean)} channels")
    full = 255.0 if images.dtype == torch.uint8 else 1.0
    shift, scale = _constant(mean, images.device), _constant(std, images.device)
    x = (
        images.float().sub_(shift * full).div_(scale * full)
        if full == 255.0
        else ((images - shift) / scale)
    )
    lead, x = x.shape[:-3], x.flatten(0, -4).permute(0, 3, 1, 2)
    return (x if size is None else resized(x, (size, size))).unflatten(0, lead)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """[n, C, h, w] float images at another size (bilinear, antialiased); those that have it as they are."""
    if tuple(images.shape[-2:]) == size:
        return images
    return functional.interpolate(images, size, mode="bilinear", antialias=True)


def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """[n], made on the device: nothing is copied there, for which the host would have to wait."""
    return torch.stack([torch.full((), value, device=device) for value in values])
