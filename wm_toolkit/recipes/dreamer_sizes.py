"""Widths of Dreamer V3's networks: the newest sizes (Hafner et al. 2025, its code) and the preprint's (2023)."""

from __future__ import annotations

import dataclasses

from wm_toolkit.config import check_ranges
from wm_toolkit.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths of the networks; every published size has 32 categoricals and 8 groups.

    Attributes:
        deter: D.
        units: U, of every hidden layer.
        classes: of a categorical.
        depth: unit of the convolutions' width.
        latents: categoricals.
        groups: blocks of the GRU, whose width is a multiple of them; the preprint has none.
        layers: hidden layers of every network of the preprint; the newest recipe has its own for each.

    Raises:
        ConfigError: for a number below 1.
    """

    deter: int
    units: int
    classes: int
    depth: int
    latents: int = 32
    groups: int = 8
    layers: int = 1

    def __post_init__(self) -> None:
        check_ranges(self, {"[1, inf)": [field.name for field in dataclasses.fields(self)]})

    def check_blocks(self) -> None:
        """Refuse a state that cannot be cut into the GRU's blocks.

        Raises:
            ConfigError: naming both numbers.
        """
        if self.deter % self.groups:
            raise ConfigError(
                f"size.deter is {self.deter}, expected a multiple of size.groups, which is {self.groups}"
            )


SIZES = {
    "1m": Size(512, 64, 4, 4),
    "12m": Size(2048, 256, 16, 16),
    "25m": Size(3072, 384, 24, 24),
    "50m": Size(4096, 512, 32, 32),
    "100m": Size(6144, 768, 48, 48),
    "200m": Size(8192, 1024, 64, 64),
    "400m": Size(12288, 1536, 96, 96),
}
PREPRINT_SIZES = {
    "xs": Size(256, 256, 32, 24, layers=1),
    "s": Size(512, 512, 32, 32, layers=2),
    "m": Size(1024, 640, 32, 48, layers=3),
    "l": Size(2048, 768, 32, 64, layers=4),
    "xl": Size(4096, 1024, 32, 96, layers=5),
}
