"""What the parts of published DINO-WM checkpoints hold: names, and sizes told from the tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from wm_toolkit.errors import CheckpointError
from wm_toolkit.recipes.published.names import Rules, count

# From our names to theirs.
PREDICTOR: Rules = [
    (r"positions", r"pos_embedding"),
    (r"norm\.(\w+)", r"transformer.norm.\1"),
    (r"blocks\.(\d+)\.norm1\.(\w+)", r"transformer.layers.\1.0.norm.\2"),
    (r"blocks\.(\d+)\.attention\.qkv\.(\w+)", r"transformer.layers.\1.0.to_qkv.\2"),
    (r"blocks\.(\d+)\.attention\.out\.(\w+)", r"transformer.layers.\1.0.to_out.0.\2"),
    (r"blocks\.(\d+)\.norm2\.(\w+)", r"transformer.layers.\1.1.net.0.\2"),
    (r"blocks\.(\d+)\.mlp\.(\d+)\.(\w+)", r"transformer.layers.\1.1.net.\2.\3"),
]
# Some copies of the code keep the causal mask among the weights.
MASK = r"transformer\.layers\.\d+\.0\.bias"
LINEAR: Rules = [(r"(\w+)", r"patch_embed.\1")]


@dataclasses.dataclass(frozen=True)
class Parts:
    """The tensors of a published DINO-WM, by the part they belong to.

    Attributes:
        predictor: of the transformer.
        action: of the action encoder.
        proprio: of the proprioception's encoder; empty if there is none.
        where: the file, for errors.
    """

    predictor: Mapping[str, Tensor]
    action: Mapping[str, Tensor]
    proprio: Mapping[str, Tensor]
    where: str

    def __post_init__(self) -> None:
        for part, name in (
            (self.predictor, "pos_embedding"),
            (self.predictor, "transformer.layers.0.0.to_out.0.weight"),
            (self.predictor, "transformer.layers.0.1.net.1.weight"),
            (self.action, "patch_embed.weight"),
        ):
            if name not in part:
                raise CheckpointError(f"{self.where} has no {name!r}; it holds no DINO-WM")

    @property
    def layers(self) -> int:
        """Blocks of the predictor."""
        return count(self.predictor, r"transformer\.layers\.(\d+)\.")

    @property
    def inner(self) -> int:
        """Width of all heads together."""
        return self.predictor["transformer.layers.0.0.to_out.0.weight"].shape[1]

    @property
    def hidden(self) -> int:
        """Width of the blocks' MLPs."""
        return self.predictor["transformer.layers.0.1.net.1.weight"].shape[0]

    @property
    def positions(self) -> int:
        """Tokens of a whole window."""
        return self.predictor["pos_embedding"].shape[1]

    @property
    def action_sizes(self) -> tuple[int, int]:
        """(width of an action block, width it is embedded in)."""
        return _sizes(self.action)

    @property
    def proprio_sizes(self) -> tuple[int, int]:
        """(numbers of proprioception, width they are embedded in); zeros if there is none."""
        return _sizes(self.proprio) if self.proprio else (0, 0)


def _sizes(linear: Mapping[str, Tensor]) -> tuple[int, int]:
    """(inputs, outputs) of a convolution of width 1, [out, in, 1]."""
    weight = linear.get("patch_embed.weight")
    if weight is None or weight.ndim != 3 or weight.shape[2] != 1:
        shape = None if weight is None else tuple(weight.shape)
        raise CheckpointError(f"patch_embed.weight has shape {shape}, expected (out, in, 1)")
    return weight.shape[1], weight.shape[0]
