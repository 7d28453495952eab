"""LeWorldModel checkpoints of its authors: `weights.pt` (names and tensors) beside `config.json`.

Maes et al. 2026, "LeWorldModel: Stable End-to-End Joint-Embedding Predictive Architecture from Pixels".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor

from wm_toolkit.agents.agent import Agent
from wm_toolkit.errors import ConfigError, did_you_mean
from wm_toolkit.recipes.lewm import LeWMConfig
from wm_toolkit.recipes.published.artefact import Origin, check_width, fresh, save, spaced_agent
from wm_toolkit.recipes.published.lewm_names import UNUSED, rules_for
from wm_toolkit.recipes.published.names import load_renamed, without_prefix
from wm_toolkit.recipes.published.settings import Settings, read_settings
from wm_toolkit.recipes.published.torch_file import TorchFile
from wm_toolkit.spaces import Spaces

# (width, layers, heads) by the name of the size, as in stable-pretraining's `vit_hf`.
SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
MLP_RATIO = 4
VIT = {
    "patch_size",
    "image_size",
    "size",
    "pretrained",
    "use_mask_token",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
}
PREDICTOR = {
    "num_frames",
    "depth",
    "heads",
    "mlp_dim",
    "input_dim",
    "hidden_dim",
    "output_dim",
    "dim_head",
    "dropout",
    "emb_dropout",
}
ACTIONS = {"input_dim", "smoothed_dim", "emb_dim", "mlp_scale"}
PROJECTOR = {"input_dim", "hidden_dim", "output_dim", "norm_fn", "act_fn"}

ABOUT = (
    "Converted from a checkpoint that the authors of LeWorldModel released (Maes et al. 2026); the model's "
    "outputs are those of their code to 1e-5. Their training saw windows of every episode, so none of "
    "the data set is held out."
)


def lewm_config(settings: Settings, *, frame_skip: int = 5) -> LeWMConfig:
    """The recipe's config for what `config.json` describes.

    What is not in the file keeps the published value: planner, training and image normalisation.

    Args:
        settings: of `config.json`.
        frame_skip: raw actions in a block; the file gives only the width of a block.

    Raises:
        ConfigError: if a needed value is missing, or the model is one that ours is not.
    """
    _refuse_others(settings)
    size = settings.get("encoder.size", str, "tiny")
    if size not in SIZES:
        raise ConfigError(f"{settings.where}: encoder.size is {size!r}.{did_you_mean(size, SIZES)}")
    width, layers, heads = SIZES[size]
    published = LeWMConfig()
    embedding = settings.get("predictor.input_dim", int)
    return dataclasses.replace(
        published,
        frame_skip=frame_skip,
        image_size=settings.get("encoder.image_size", int, 224),
        patch=settings.get("encoder.patch_size", int, 16),
        width=settings.get("encoder.hidden_size", int, width),
        layers=settings.get("encoder.num_hidden_layers", int, layers),
        heads=settings.get("encoder.num_attention_heads", int, heads),
        embedding=embedding,
        projector_hidden=settings.get("projector.hidden_dim", int),
        action_mixed=settings.get("action_encoder.smoothed_dim", int, 10),
        action_hidden=embedding * settings.get("action_encoder.mlp_scale", int, 4),
        history=settings.get("predictor.num_frames", int),
        predictor_layers=settings.get("predictor.depth", int),
        predictor_heads=settings.get("predictor.heads", int),
        head_width=settings.get("predictor.dim_head", int, 64),
        predictor_hidden=settings.get("predictor.mlp_dim", int),
        dropout=settings.get("predictor.dropout", float, 0.0),
        evaluation=dataclasses.replace(published.evaluation, frame_skip=frame_skip),
    )


def lewm_from_state_dict(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any] | Settings,
    *,
    spaces: Spaces | None = None,
    frame_skip: int = 5,
) -> Agent:
    """A `lewm` agent with published weights; its model's outputs are those of the published code.

    Args:
        state: the content of `weights.pt`, with or without a trainer's prefix.
        config: the content of `config.json`.
        spaces: what the agent sees and does, with action blocks and statistics; by default images of the
            published size and actions that are standardised already.
        frame_skip: raw actions in a block.

    Raises:
        ConfigError: if `config` describes a model that ours is not.
        CheckpointError: naming tensors that are missing, left over, or of another shape.
        SpaceError: if `spaces` have another action width.

    Example:
        >>> state = torch.load("weights.pt", weights_only=True)
        >>> model = lewm_from_state_dict(state, json.load(open("config.json"))).model
    """
    settings = config if isinstance(config, Settings) else Settings(config, "config.json")
    ours = lewm_config(settings, frame_skip=frame_skip)
    width = settings.get("action_encoder.input_dim", int)
    spaces = spaces or _plain_spaces(ours.image_size, width)
    check_width(spaces, width)
    agent = fresh("lewm", ours, spaces)
    _fill(agent, state, "weights.pt")
    return agent


def convert_lewm(
    weights: str | Path,
    config: str | Path,
    out: str | Path,
    *,
    origin: Origin,
    frame_skip: int = 5,
) -> Path:
    """Write a published checkpoint as an artefact.

    Args:
        weights: `weights.pt`, or any file of torch that holds the same module or its tensors.
        config: `config.json`.
        out: the artefact's folder.
        origin: the data set it was trained on, or its statistics.
        frame_skip: raw actions in a block.

    Raises:
        ConfigError: if there are neither data nor statistics, or the model is one that ours is not.
        CheckpointError: if a file is damaged, or tensors are missing, left over, or of another shape.
    """
    settings = read_settings(config)
    ours = lewm_config(settings, frame_skip=frame_skip)
    width = settings.get("action_encoder.input_dim", int)
    agent = spaced_agent("lewm", ours, origin, {"image": _image(ours.image_size)}, width)
    _fill(agent, TorchFile(weights).tensors(), str(weights))
    return save(agent, out, [weights, config], ABOUT)


def _fill(agent: Agent, state: Mapping[str, Tensor], where: str) -> None:
    state = without_prefix(state, "predictor.pos_embedding")
    load_renamed(agent.model, state, rules_for(state), where, unused=UNUSED)
    agent.model.eval()


def _image(size: int) -> gym.Space:
    return gym.spaces.Box(0, 255, (size, size, 3), np.uint8)


def _plain_spaces(image_size: int, width: int) -> Spaces:
    """Images of one size, and unbounded action blocks that are standardised already."""
    action = gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)
    return Spaces({"image": _image(image_size)}, action, scaling="none")


def _refuse_others(settings: Settings) -> None:
    """Refuse what would make the converted model compute something else."""
    sections = {
        "encoder": VIT,
        "predictor": PREDICTOR,
        "action_encoder": ACTIONS,
        "projector": PROJECTOR,
        "pred_proj": PROJECTOR,
    }
    for section, names in sections.items():
        settings.known(section, names)
    size = settings.get("predictor.input_dim", int)
    for name in ("predictor.hidden_dim", "predictor.output_dim", "action_encoder.emb_dim"):
        settings.expect(name, size, "predictors that change the width are not supported")
    for name in ("projector.output_dim", "pred_proj.output_dim"):
        settings.expect(name, size, "it must be the predictor's width")
    settings.expect(
        "pred_proj.hidden_dim", settings.get("projector.hidden_dim", int), "both are one setting"
    )
    for name in ("projector.norm_fn._target_", "pred_proj.norm_fn._target_"):
        settings.expect(name, "torch.nn.BatchNorm1d", "our projectors have batch norms")
    width = SIZES.get(settings.get("encoder.size", str, "tiny"), (0, 0, 0))[0]
    width = settings.get("encoder.hidden_size", int, width)
    settings.expect("encoder.intermediate_size", MLP_RATIO * width, "MLPs are 4 times as wide")
