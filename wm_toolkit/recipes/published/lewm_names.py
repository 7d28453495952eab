"""What the tensors of published LeWorldModel checkpoints are called, from our names to theirs.

The encoder is a vision transformer of the `transformers` package, whose names changed with its version 5.
Query, key and value of its blocks are apart in the file and one map here.
"""

from __future__ import annotations

from collections.abc import Iterable

from wm_toolkit.recipes.published.names import Rules

COMMON: Rules = [
    (r"encoder\.embed\.(\w+)", r"encoder.embeddings.patch_embeddings.projection.\1"),
    (r"encoder\.token", r"encoder.embeddings.cls_token"),
    (r"encoder\.positions", r"encoder.embeddings.position_embeddings"),
    (r"encoder\.norm\.(\w+)", r"encoder.layernorm.\1"),
    (r"projector\.(.+)", r"projector.net.\1"),
    (r"predicted\.(.+)", r"pred_proj.net.\1"),
    (r"action_encoder\.0\.(\w+)", r"action_encoder.patch_embed.\1"),
    (r"action_encoder\.1\.(\w+)", r"action_encoder.embed.0.\1"),
    (r"action_encoder\.3\.(\w+)", r"action_encoder.embed.2.\1"),
    (r"predictor\.positions", r"predictor.pos_embedding"),
    (r"predictor\.norm\.(\w+)", r"predictor.transformer.norm.\1"),
    (
        r"predictor\.blocks\.(\d+)\.attention\.norm\.(\w+)",
        r"predictor.transformer.layers.\1.attn.norm.\2",
    ),
    (
        r"predictor\.blocks\.(\d+)\.attention\.qkv\.(\w+)",
        r"predictor.transformer.layers.\1.attn.to_qkv.\2",
    ),
    (
        r"predictor\.blocks\.(\d+)\.attention\.out\.(\w+)",
        r"predictor.transformer.layers.\1.attn.to_out.0.\2",
    ),
    (r"predictor\.blocks\.(\d+)\.mlp\.(.+)", r"predictor.transformer.layers.\1.mlp.net.\2"),
    (
        r"predictor\.blocks\.(\d+)\.modulation\.(.+)",
        r"predictor.transformer.layers.\1.adaLN_modulation.\2",
    ),
]


def _block(ours: str, theirs: str) -> tuple[str, str]:
    return rf"encoder\.blocks\.(\d+)\.{ours}\.(\w+)", " ".join(
        rf"encoder.{part}.\2" for part in theirs.split()
    )


_OLD, _NEW = r"encoder.layer.\1", r"layers.\1"
BEFORE_5: Rules = [
    _block("norm1", rf"{_OLD}.layernorm_before"),
    _block("norm2", rf"{_OLD}.layernorm_after"),
    _block(
        r"attention\.qkv",
        " ".join(rf"{_OLD}.attention.attention.{part}" for part in ("query", "key", "value")),
    ),
    _block(r"attention\.out", rf"{_OLD}.attention.output.dense"),
    _block(r"mlp\.1", rf"{_OLD}.intermediate.dense"),
    _block(r"mlp\.4", rf"{_OLD}.output.dense"),
]
SINCE_5: Rules = [
    _block("norm1", rf"{_NEW}.layernorm_before"),
    _block("norm2", rf"{_NEW}.layernorm_after"),
    _block(
        r"attention\.qkv",
        " ".join(rf"{_NEW}.attention.{part}_proj" for part in ("q", "k", "v")),
    ),
    _block(r"attention\.out", rf"{_NEW}.attention.o_proj"),
    _block(r"mlp\.1", rf"{_NEW}.mlp.fc1"),
    _block(r"mlp\.4", rf"{_NEW}.mlp.fc2"),
]
# Of encoders that were made for other uses as well; the class token depends on neither.
UNUSED = (r"encoder\.pooler\..+", r"encoder\.embeddings\.mask_token")


def rules_for(state: Iterable[str]) -> Rules:
    """The rules for a file with these names."""
    old = any(name.startswith("encoder.encoder.layer.") for name in state)
    return [*COMMON, *(BEFORE_5 if old else SINCE_5)]
