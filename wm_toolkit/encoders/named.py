"""Frozen encoders by name, as commands and recipes call them: `dinov2_small`, `dinov2_base_reg` ..."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from typing import Any, Protocol, get_args

import torch
from torch import Tensor

from wm_toolkit.config import from_dict
from wm_toolkit.encoders.dinov2 import PATCH, DINOv2, Size, Tokens, architecture_of
from wm_toolkit.registry import Registry


class FrameEncoder(Protocol):
    """What turns frames into patch tokens worth storing: frozen, and able to say what it is."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the features, JSON-ready: equal identities give equal features."""
        ...

    @property
    def patches(self) -> int:
        """P, the tokens of a frame."""
        ...

    @property
    def width(self) -> int:
        """E, the width of a token."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def __call__(self, images: Tensor, /) -> Tokens:
        """[..., h, w, 3] uint8 images to tokens [..., P, E]."""
        ...


@dataclasses.dataclass(frozen=True)
class NamedEncoder:
    """A size of DINOv2 that has a name.

    Attributes:
        size: "small", "base", "large" or "giant".
        registers: the variant with four register tokens.
    """

    size: Size
    registers: bool

    @property
    def name(self) -> str:
        """What users write."""
        return f"dinov2_{self.size}{'_reg' if self.registers else ''}"

    @property
    def architecture(self) -> str:
        """What timm calls it."""
        return architecture_of(self.size, self.registers)

    @property
    def summary(self) -> str:
        """One line."""
        letter = "g" if self.size == "giant" else self.size[0].upper()
        return f"DINOv2 ViT-{letter}/{PATCH}{' with registers' if self.registers else ''}"

    def build(self, **options: Any) -> DINOv2:
        """The encoder, with options of `DINOv2`."""
        return DINOv2(self.size, registers=self.registers, **options)


ENCODERS: Registry[NamedEncoder] = Registry("encoder", "wm_toolkit.encoders")
for _size in get_args(Size):
    for _registers in (False, True):
        _named = NamedEncoder(_size, _registers)
        ENCODERS.register(_named.name, _named)


def make_encoder(name: str, **options: Any) -> DINOv2:
    """Build an encoder by name.

    Args:
        name: "dinov2_small", "dinov2_base", "dinov2_large", "dinov2_giant", or one of them with "_reg".
        options: of `DINOv2`: image_size, normalisation, block, norm, weights, resample, images_per_pass.

    Raises:
        UnknownNameError: with close matches.
        ConfigError: naming an option that is unknown, out of range or of the wrong type.
        CheckpointError: if the weights cannot be had.

    Example:
        >>> make_encoder("dinov2_small", image_size=28, weights="random").patches
        4
    """
    chosen = ENCODERS[name]
    from_dict(_options(name), options)  # names what is unknown; the encoder checks the values
    return chosen.build(**options)


def encode_options(identity: Mapping[str, Any]) -> str:
    """The options of `wm convert` that make features of this identity.

    A weights file is known by its sha256 only, so its path stays to be filled in.
    """
    skip = ("encoder", "model", "weights", "resize", "key")
    weights = "random" if identity.get("weights") == "random" else "PATH"
    words = [f"{key}={value}" for key, value in identity.items() if key not in skip]
    name = _name_of(str(identity.get("model", "")))
    return f"--encode {name} --encode-set {' '.join([f'weights={weights}', *words])}"


def _name_of(model: str) -> str:
    """The name of an architecture; weights of other training keep its beginning, vit_small_patch14."""
    start, known = model.partition(".")[0], [ENCODERS[name] for name in ENCODERS.names()]
    exact = [named.name for named in known if named.architecture == start]
    near = [named.name for named in known if start and named.architecture.startswith(start)]
    return [*exact, *near, "NAME"][0]


def _options(name: str) -> type:
    """A config class of DINOv2's options; errors carry the encoder's name."""
    hints = typing.get_type_hints(DINOv2.__init__)
    known = inspect.signature(DINOv2.__init__).parameters.items()
    fields = [
        (option, hints[option], dataclasses.field(default=parameter.default))
        for option, parameter in known
        if option not in ("self", "size", "registers")
    ]
    return dataclasses.make_dataclass(name, fields, frozen=True)
