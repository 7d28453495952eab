"""JEPA-WMs checkpoints: state dicts by part, beside the YAML file that the training was started with.

    predictor, action_encoder, proprio_encoder   tensors, the names perhaps behind `module.`
    opt, scaler, epoch                           not used

Their DINO-WM baselines (`pred_type: dino_wm`) have the tensors of the original and are converted. Their own
predictors (`AdaLN`, `vjepa2_ac`) are not: the released rotary embedding gives the two components of a pair
different angles, which no rotation does, so weights trained with it mean something else in ours.

Terver et al. 2025, "What Drives Success in Physical Planning with Joint-Embedding Predictive World Models?".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from wm_toolkit.encoders.dinov2 import NORMALISATIONS, PATCH, Normalisation
from wm_toolkit.errors import CheckpointError, ConfigError
from wm_toolkit.recipes.dino_wm import JEPA_WMS, DinoWMConfig
from wm_toolkit.recipes.published.artefact import Origin, save
from wm_toolkit.recipes.published.dino_wm import (
    ACTIONS,
    ENCODERS,
    PROPRIO,
    dino_wm_agent,
    sized,
)
from wm_toolkit.recipes.published.dino_wm_parts import Parts
from wm_toolkit.recipes.published.settings import Settings, read_settings
from wm_toolkit.recipes.published.torch_file import TorchFile

OTHER_PREDICTOR = (
    "only DINO-WM predictors are converted; the released rotary embedding of the others is no rotation, so "
    "their weights would compute something else here. Train the preset dino_wm.jepa_wms instead"
)
ABOUT = (
    "Converted from a DINO-WM baseline that the authors of JEPA-WMs released (Terver et al. 2025); the "
    "predictor's outputs are those of their code to 1e-5."
)


def convert_jepa_wms(
    checkpoint: str | Path,
    settings: str | Path,
    out: str | Path,
    *,
    origin: Origin,
    encoder_weights: str | Path = "hub",
) -> Path:
    """Write a published checkpoint as an artefact.

    Args:
        checkpoint: `jepa-latest.pth.tar`.
        settings: the YAML file of its training.
        out: the artefact's folder.
        origin: the data set it was trained on, or its statistics; Push-T's are known.
        encoder_weights: see `DINOv2`.

    Raises:
        ConfigError: if a setting is missing or describes a model that ours is not.
        CheckpointError: if a file is damaged, or tensors are missing, left over, or of another shape.
    """
    given = read_settings(settings)
    config = jepa_wms_config(given, encoder_weights=str(encoder_weights))
    parts = shortened(read_parts(checkpoint), config)
    config = sized(config, parts, given.where)
    if _datasets(given) == ["PushT"]:
        origin = origin.known(ACTIONS["pusht"], PROPRIO["pusht"])
    agent = dino_wm_agent(config, parts, origin, frame_size=config.image_size)
    return save(agent, out, [checkpoint, settings], ABOUT)


def read_parts(checkpoint: str | Path) -> Parts:
    """The tensors of a checkpoint of state dicts.

    Raises:
        CheckpointError: if it is damaged or lacks the predictor or the action encoder.
    """
    file = TorchFile(checkpoint)

    def part(name: str) -> dict[str, Tensor]:
        return {n.removeprefix("module."): value for n, value in file.tensors(name).items()}

    proprio = "proprio_encoder" in file.names() and file.value("proprio_encoder") is not None
    return Parts(
        predictor=part("predictor"),
        action=part("action_encoder"),
        proprio=part("proprio_encoder") if proprio else {},
        where=str(checkpoint),
    )


def jepa_wms_config(settings: Settings, *, encoder_weights: str) -> DinoWMConfig:
    """The recipe's config for what the YAML file describes, but for the sizes of tensors.

    The planner is the published one: two frames of context, six blocks planned and executed.

    Raises:
        ConfigError: if a needed value is missing, or the model is one that ours is not.
    """
    _refuse_others(settings)
    frame_skip = settings.get("data.custom.frameskip", int)
    return DinoWMConfig(
        frame_skip=frame_skip,
        encoder=ENCODERS[settings.get("model.visual_encoder.enc_version", str)],
        encoder_weights=encoder_weights,
        image_size=settings.get("data.img_size", int),
        normalisation=_normalisation(settings),
        feature_dtype="float32",
        history=settings.get("data.custom.num_hist", int),
        context=JEPA_WMS.context,
        heads=settings.get("model.predictor.pred_num_heads", int),
        alpha=JEPA_WMS.alpha,
        planner=JEPA_WMS.planner,
        replan_every=JEPA_WMS.planner.horizon,
        evaluation=dataclasses.replace(JEPA_WMS.evaluation, frame_skip=frame_skip),
    )


def shortened(parts: Parts, config: DinoWMConfig) -> Parts:
    """Positions of the frames that the predictor is ever shown.

    The released ones are for as many frames as a training window has, one more than its history.

    Raises:
        CheckpointError: if there are fewer.
    """
    tokens = (config.image_size // PATCH) ** 2 * config.history
    if parts.positions < tokens:
        raise CheckpointError(
            f"{parts.where} has {parts.positions} positions, fewer than the {tokens} of "
            f"{config.history} frames"
        )
    table = parts.predictor["pos_embedding"][:, :tokens]
    return dataclasses.replace(parts, predictor={**parts.predictor, "pos_embedding": table})


def _refuse_others(settings: Settings) -> None:
    """Refuse what would make the converted model compute something else."""
    kind = settings.get("model.predictor.pred_type", str)
    if kind != "dino_wm":
        raise ConfigError(f"{settings.where}: pred_type is {kind!r}; {OTHER_PREDICTOR}")
    settings.expect("model.visual_encoder.enc_type", "dino", "only DINOv2 is here")
    settings.expect("model.wm_encoding.normalize_reps", False, "tokens are not normalised again")
    settings.expect("model.tubelet_size_enc", 1, "every frame is encoded by itself")
    settings.expect("data.custom.action_skip", 1, "blocks hold every raw action")
    version = settings.get("model.visual_encoder.enc_version", str)
    if version not in ENCODERS:
        raise ConfigError(
            f"{settings.where}: enc_version is {version!r}; converted are {', '.join(ENCODERS)}"
        )


def _normalisation(settings: Settings) -> Normalisation:
    given = settings.find("data_aug.normalize")
    for name, (mean, std) in NORMALISATIONS.items():
        if _close(given, (mean, std)):
            return name  # type: ignore[return-value]
    raise ConfigError(
        f"{settings.where}: data_aug.normalize is {given!r}; known are {dict(NORMALISATIONS)}"
    )


def _close(given: Any, known: Sequence[Sequence[float]]) -> bool:
    rows = given if isinstance(given, list) and all(isinstance(x, list) for x in given) else []
    return [tuple(row) for row in rows] == [tuple(row) for row in known]


def _datasets(settings: Settings) -> Any:
    return settings.find("data.datasets")
