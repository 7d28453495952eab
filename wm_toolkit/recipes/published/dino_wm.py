"""DINO-WM checkpoints of its authors: whole pickled modules beside `hydra.yaml`.

    predictor         causal transformer over the patches of all frames
    action_encoder    one linear map of an action block, saved as a convolution of width 1
    proprio_encoder   likewise
    decoder, optimisers, epoch: not used

The frozen DINOv2 is not in the file; it comes from where `DINOv2` gets its weights.

Zhou et al. 2025, "DINO-WM: World Models on Pre-trained Visual Features enable Zero-shot Planning".
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from wm_toolkit.agents.agent import Agent
from wm_toolkit.encoders.dinov2 import PATCH, Size
from wm_toolkit.errors import CheckpointError, ConfigError
from wm_toolkit.models.dino_wm import DinoWM
from wm_toolkit.recipes.dino_wm import DinoWMConfig
from wm_toolkit.recipes.published.artefact import Numbers, Origin, save, spaced_agent
from wm_toolkit.recipes.published.dino_wm_parts import LINEAR, MASK, PREDICTOR, Parts
from wm_toolkit.recipes.published.names import load_renamed
from wm_toolkit.recipes.published.settings import Settings, read_settings
from wm_toolkit.recipes.published.torch_file import TorchFile
from wm_toolkit.registry import recipe_config

# The original encoder sees images of this many px for every 16 px of the given size.
DECODER_PATCH = 16
ENCODERS: dict[str, Size] = {
    "dinov2_vits14": "small",
    "dinov2_vitb14": "base",
    "dinov2_vitl14": "large",
    "dinov2_vitg14": "giant",
}
PRESETS = {"point_maze": "point_maze", "wall": "wall", "deformable_env": "deformable"}
# Constants of the published Push-T loader; raw actions divided by 100, proprioception is the agent's
# place and velocity in px. The deformable tasks have one number that is always 0.
ACTIONS = {"pusht": Numbers((-0.0087, 0.0068), (0.2019, 0.2002))}
PROPRIO = {
    "pusht": Numbers(
        (236.6155, 264.5674, -2.93032027, 2.54307914),
        (101.1202, 87.0112, 74.84556075, 74.14009094),
    ),
    "deformable_env": Numbers((0.0,), (1.0,)),
}
ABOUT = (
    "Converted from a checkpoint that the authors of DINO-WM released (Zhou et al. 2025); the predictor's "
    "outputs are those of their code to 1e-5. The decoder was left behind."
)


def convert_dino_wm(
    checkpoint: str | Path,
    hydra: str | Path,
    out: str | Path,
    *,
    origin: Origin,
    encoder_weights: str | Path = "hub",
) -> Path:
    """Write a published checkpoint as an artefact.

    Args:
        checkpoint: `model_latest.pth`.
        hydra: `hydra.yaml`.
        out: the artefact's folder.
        origin: the data set it was trained on, or its statistics; Push-T's are known.
        encoder_weights: see `DINOv2`.

    Raises:
        ConfigError: if a setting is missing or describes a model that ours is not.
        CheckpointError: if a file is damaged, or tensors are missing, left over, or of another shape.
    """
    settings = read_settings(hydra)
    parts = read_parts(checkpoint)
    config = dino_wm_config(settings, parts, encoder_weights=str(encoder_weights))
    name = settings.get("env.name", str, "")
    origin = origin.known(ACTIONS.get(name), PROPRIO.get(name))
    agent = dino_wm_agent(config, parts, origin, frame_size=settings.get("img_size", int))
    return save(agent, out, [checkpoint, hydra], ABOUT)


def read_parts(checkpoint: str | Path) -> Parts:
    """The tensors of a checkpoint of whole modules; nothing in it is run.

    Raises:
        CheckpointError: if it is damaged, lacks a part, or holds an encoder that was trained as well.
    """
    file = TorchFile(checkpoint)
    if "encoder" in file.names():
        raise CheckpointError(
            f"{checkpoint} holds an 'encoder' of its own, trained with the model; only models of the "
            "frozen DINOv2 are converted"
        )
    return Parts(
        predictor=file.tensors("predictor"),
        action=file.tensors("action_encoder"),
        proprio=file.tensors("proprio_encoder"),
        where=str(checkpoint),
    )


def dino_wm_config(settings: Settings, parts: Parts, *, encoder_weights: str) -> DinoWMConfig:
    """The recipe's config for what `hydra.yaml` and the tensors describe.

    Sizes come from the tensors, what they cannot tell from the settings, and planner and training from the
    published preset of the environment.

    Raises:
        ConfigError: if a needed value is missing, or the model is one that ours is not.
    """
    _refuse_others(settings)
    image_size = settings.get("img_size", int) // DECODER_PATCH * PATCH
    preset = PRESETS.get(settings.get("env.name", str, ""))
    frame_skip = settings.get("frameskip", int)
    published = recipe_config(f"dino_wm.{preset}" if preset else "dino_wm")
    return sized(
        dataclasses.replace(
            published,
            frame_skip=frame_skip,
            encoder=ENCODERS[settings.get("encoder.name", str)],
            encoder_weights=encoder_weights,
            image_size=image_size,
            feature_dtype="float32",
            history=settings.get("num_hist", int),
            heads=settings.get("predictor.heads", int),
            dropout=settings.get("predictor.dropout", float, 0.0),
            evaluation=dataclasses.replace(published.evaluation, frame_skip=frame_skip),
        ),
        parts,
        settings.where,
    )


def sized(config: DinoWMConfig, parts: Parts, where: str) -> DinoWMConfig:
    """The config with the sizes that the tensors have.

    Raises:
        ConfigError: if they contradict it.
    """
    tokens = (config.image_size // PATCH) ** 2 * config.history
    if parts.positions != tokens:
        raise ConfigError(
            f"{parts.where} has {parts.positions} positions, but {config.history} frames of "
            f"{config.image_size // PATCH} x {config.image_size // PATCH} patches make {tokens}, as "
            f"{where} says"
        )
    if parts.inner % config.heads:
        raise ConfigError(
            f"{parts.inner} numbers cannot be shared by {config.heads} heads ({where})"
        )
    return dataclasses.replace(
        config,
        observations=("image", "proprio") if parts.proprio else ("image",),
        proprio_width=parts.proprio_sizes[1],
        action_width=parts.action_sizes[1],
        layers=parts.layers,
        head_width=parts.inner // config.heads,
        hidden=parts.hidden,
    )


def dino_wm_agent(config: DinoWMConfig, parts: Parts, origin: Origin, *, frame_size: int) -> Agent:
    """A `dino_wm` agent with published tensors.

    Args:
        config: with the sizes of the tensors.
        parts: the tensors.
        origin: the data set they were trained on, or its statistics.
        frame_size: without data, height and width of the frames it is given, px.

    Raises:
        CheckpointError: naming tensors that are missing, left over, or of another shape.
    """
    numbers, _ = parts.proprio_sizes
    observation: dict[str, gym.Space] = {
        "image": gym.spaces.Box(0, 255, (frame_size, frame_size, 3), np.uint8)
    }
    if numbers:
        observation["proprio"] = gym.spaces.Box(-np.inf, np.inf, (numbers,), np.float32)
    agent = spaced_agent("dino_wm", config, origin, observation, parts.action_sizes[0])
    model = agent.model
    assert isinstance(model, DinoWM)
    where = parts.where
    load_renamed(
        model.predictor, parts.predictor, PREDICTOR, f"predictor of {where}", unused=[MASK]
    )
    load_renamed(model.action_encoder, parts.action, LINEAR, f"action_encoder of {where}")
    if model.proprio_encoder is not None:
        load_renamed(model.proprio_encoder, parts.proprio, LINEAR, f"proprio_encoder of {where}")
        _standardise(model, origin.proprio_numbers(numbers))
    model.eval()
    return agent


def _standardise(model: DinoWM, proprio: Numbers) -> None:
    statistics = {
        f"obs/{model.proprio_key}": (torch.tensor(proprio.mean), torch.tensor(proprio.std))
    }
    model.fit_inputs(statistics, [])


def _refuse_others(settings: Settings) -> None:
    """Refuse what would make the converted model compute something else."""
    settings.expect("concat_dim", 1, "only the form that appends features to every patch is here")
    for name in ("num_action_repeat", "num_proprio_repeat", "num_pred"):
        settings.expect(name, 1, "as in the published configurations")
    settings.expect(
        "encoder.feature_key", "x_norm_patchtokens", "only patch features of DINOv2 are here"
    )
    settings.expect("predictor.emb_dropout", 0, "our predictor has no dropout of embeddings")
    name = settings.get("encoder.name", str)
    if name not in ENCODERS:
        raise ConfigError(
            f"{settings.where}: encoder.name is {name!r}; converted are {', '.join(ENCODERS)}"
        )
