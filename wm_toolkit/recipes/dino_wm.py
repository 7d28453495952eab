"""DINO-WM: predict the patch features of a frozen DINOv2, plan to goal images."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.agents.probe_learner import ProbeLearner
from wm_toolkit.agents.recorded import recording
from wm_toolkit.batch import Batch
from wm_toolkit.data.windows import LastAction
from wm_toolkit.encoders.dinov2 import DINOv2, Norm, Normalisation, Resample, Size
from wm_toolkit.heads.patch_decoder import PatchDecoder
from wm_toolkit.models.dino_wm import DinoWM, FeatureDtype, Prediction
from wm_toolkit.models.predictor import Conditioning, Positions, Predictor
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.objective import GoalMode
from wm_toolkit.registry import recipe
from wm_toolkit.spaces import Spaces, image_shape
from wm_toolkit.training.config import EvaluationConfig, TrainConfig
from wm_toolkit.training.goal_config import GoalConfig
from wm_toolkit.training.optimizer import adamw, cooldown
from wm_toolkit.training.protocols import PROTOCOLS

PUSHT = PROTOCOLS["dino_wm.pusht"]


@dataclasses.dataclass(frozen=True)
class DinoWMConfig(GoalConfig):
    """Hyper-parameters of DINO-WM; the defaults are the published ones on Push-T (Zhou et al. 2025).

    Attributes:
        encoder: size of the DINOv2.
        registers: its variant with register tokens.
        encoder_weights: "hub", the path of a .safetensors file, or "random" (for tests of wiring).
        encoder_block: read the tokens after this block, counted from 0; None reads the last.
        encoder_norm: pass them through the final LayerNorm, or not.
        normalisation: of images; "half" as published, "imagenet" as DINOv2 was trained.
        resample: how positions are brought to `image_size`; "original" as published.
        image_size: of the encoder, px; 14 px make a patch.
        feature_dtype: what tokens are rounded to; "float16" is what stored features have, published is
            "float32".
        standardise_features: over the training data, around the mean of each patch (not published).
        proprio_width: of embedded proprioception.
        action_width: of embedded actions ("concat").
        history: frames that the state holds and the predictor sees; num_hist of the paper.
        train_history: known frames of a training window; None takes the history.
        context: most frames a plan starts from; the published planner passes 1. None means history.
        conditioning: "concat" appends the action to every token, "adaln" modulates the blocks by it.
        positions: "learned", "rotary" or "mixed"; see `Predictor`.
        position_std: initial deviation of learned positions.
        attention_window: frames that a token sees in each block; None sees all.
        width: of the predictor, whose input and output are mapped; None takes the tokens' as they are.
        layers: blocks of the predictor.
        heads: attention heads.
        head_width: of an attention head.
        hidden: of the blocks' MLPs.
        dropout: of the predictor.
        bias: of the query, key and value projections.
        inner_norms: second LayerNorms in AdaLN blocks (as LeWorldModel has them).
        modulation_std: initial deviation of AdaLN maps; 0 is AdaLN-zero.
        rescale: begin with residual branches divided by sqrt(2 n) in block n.
        prediction: of the next frame ("direct") or its difference ("residual").
        rollout_steps: frames that each prefix is continued for in the loss.
        alpha: weight of proprioception in the distance to a goal.
        lr: released code 5e-4, paper 5e-5.
        weight_decay: of AdamW.
        decay_rate: let the learning rate fall to 0 over the last sixth of the updates.
        decoder: train a decoder beside the model, for pictures.
        decoder_width: its channels.
        decoder_inner: channels inside its residual blocks.
        decoder_blocks: residual blocks of a stack.
        decoder_background: add a learnt picture to all.
        decoder_lr: its learning rate.
        decoder_windows: train it on so many windows of a batch; None takes all.
    """

    frame_skip: int = 5
    observations: tuple[str, ...] = ("image", "proprio")
    encoder: Size = "small"
    registers: bool = False
    encoder_weights: str = "hub"
    encoder_block: int | None = None
    encoder_norm: Norm = "final"
    normalisation: Normalisation = "half"
    resample: Resample = "original"
    image_size: int = 196
    feature_dtype: FeatureDtype = "float16"
    last_action: LastAction = "real"
    standardise_features: bool = False
    proprio_width: int = 10
    action_width: int = 10
    history: int = 3
    train_history: int | None = None
    context: int | None = 1
    conditioning: Conditioning = "concat"
    positions: Positions = "learned"
    position_std: float = 1.0
    attention_window: int | None = None
    width: int | None = None
    layers: int = 6
    heads: int = 16
    head_width: int = 64
    hidden: int = 2048
    dropout: float = 0.1
    bias: bool = False
    inner_norms: bool = False
    modulation_std: float = 0.0
    rescale: bool = False
    prediction: Prediction = "direct"
    rollout_steps: int = 1
    alpha: float = 1.0
    lr: float = 5e-4
    weight_decay: float = 0.01
    decay_rate: bool = False
    decoder: bool = False
    decoder_width: int = 384
    decoder_inner: int = 128
    decoder_blocks: int = 4
    decoder_background: bool = False
    decoder_lr: float = 3e-4
    decoder_windows: int | None = None
    planner: CEM = PUSHT.planner
    replan_every: int = PUSHT.replan_every
    goal_mode: GoalMode = PUSHT.goal_mode
    # 100 epochs of 18,500 trajectories; the public checkpoints were stopped after two or three.
    train: TrainConfig = TrainConfig(
        updates=6_000_000, batch_size=32, clip=None, checkpoint_every=1000
    )
    evaluation: EvaluationConfig = PUSHT.evaluation

    @property
    def window(self) -> int:
        """Frames of a training window."""
        return (self.train_history or self.history) + 1


def _measured_by(name: str, **fields: Any) -> DinoWMConfig:
    """A config that plans and is measured by a published protocol."""
    protocol = PROTOCOLS[name]
    same = ("planner", "replan_every", "goal_mode", "alpha", "evaluation")
    return DinoWMConfig(**{field: getattr(protocol, field) for field in same}, **fields)


POINT_MAZE = _measured_by("dino_wm.point_maze")
WALL = _measured_by("dino_wm.wall", history=1)
DEFORMABLE = DinoWMConfig(
    frame_skip=1, history=1, evaluation=EvaluationConfig(frame_skip=1, seed=99)
)

# JEPA-WMs on Push-T (Terver et al. 2025), their released code where it differs from the paper. The state
# holds eight frames so that a plan of six from two never slides; attention looks back three, as trained.
# Their weight decay grows from 1e-7 to 1e-6.
JEPA_WMS = _measured_by(
    "jepa_wms.pusht",
    normalisation="imagenet",
    proprio_width=16,
    history=8,
    train_history=3,
    context=2,
    conditioning="adaln",
    positions="rotary",
    attention_window=3,
    width=400,
    head_width=25,
    hidden=1600,
    dropout=0.0,
    bias=True,
    modulation_std=0.2,
    rescale=True,
    rollout_steps=2,
    weight_decay=1e-6,
    train=TrainConfig(
        updates=400_000, batch_size=256, clip=1.0, precision="bf16", checkpoint_every=1000
    ),
)

# For two CPU cores: few patches of an early block, a narrow predictor, and a cache that slides, so that
# a dreamt frame is computed once. Short trainings need standardised tokens, which no longer tell where they
# are, so the predictor is told. Predicting differences instead learns more slowly and drifts.
SMALL = DinoWMConfig(
    observations=("image",),
    last_action="filler",
    encoder_block=8,
    image_size=70,
    standardise_features=True,
    history=6,
    train_history=3,
    conditioning="adaln",
    positions="mixed",
    position_std=0.02,
    attention_window=3,
    width=96,
    layers=2,
    heads=4,
    head_width=24,
    hidden=256,
    dropout=0.0,
    bias=True,
    modulation_std=0.2,
    rollout_steps=2,
    lr=2e-3,
    decay_rate=True,
    decoder=True,
    decoder_width=32,
    decoder_inner=16,
    decoder_blocks=1,
    decoder_background=True,
    decoder_lr=3e-3,
    decoder_windows=8,
    planner=CEM(
        horizon=5,
        samples=48,
        elites=6,
        iterations=3,
        min_std=0.1,
        noise_exponent=3.0,
        execute="best",
    ),
    replan_every=2,
    goal_mode="closest",
    train=TrainConfig(updates=600, batch_size=32),
    evaluation=EvaluationConfig(frame_skip=5, seed=99),
)

PRESETS = {
    "point_maze": POINT_MAZE,
    "wall": WALL,
    "deformable": DEFORMABLE,
    "jepa_wms": JEPA_WMS,
    "small": SMALL,
}
ABOUT = {
    "point_maze": "the published PointMaze: its protocol and planner",
    "wall": "the published Wall: a single frame of history",
    "deformable": "the published rope and granular material: no frame skip, a single frame of history",
    "jepa_wms": "the predictor of JEPA-WMs on Push-T (Terver et al. 2025)",
    "small": "few patches of an early block, a narrow predictor; learns small tasks on one CPU core in minutes",
}


@recipe("dino_wm", DinoWMConfig, presets=PRESETS, about=ABOUT)
def dino_wm(spaces: Spaces, config: DinoWMConfig) -> Agent:
    """DINO-WM: predicts the patch features of a frozen DINOv2, planning to goal images."""
    encoder = DINOv2(
        config.encoder,
        registers=config.registers,
        image_size=config.image_size,
        normalisation=config.normalisation,
        block=config.encoder_block,
        norm=config.encoder_norm,
        weights=config.encoder_weights,
        resample=config.resample,
    )
    key, *others = config.observations
    proprio_key = others[0] if others else "proprio"
    proprio_width = config.proprio_width if proprio_key in spaces.observation else 0
    model = DinoWM(
        spaces,
        encoder,
        _predictor(encoder, config, proprio_width),
        proprio_width=proprio_width,
        context=config.context,
        alpha=config.alpha,
        prediction=config.prediction,
        rollout_steps=config.rollout_steps,
        feature_dtype=config.feature_dtype,
        standardise_features=config.standardise_features,
        image_key=key,
        proprio_key=proprio_key,
    )
    learner = ModelLearner(
        model,
        optimizer=adamw(config.lr, weight_decay=config.weight_decay, decay="all"),
        schedule=cooldown(config.train.updates) if config.decay_rate else None,
        clip=config.train.clip,
        ema=config.train.ema,
        accumulation=config.train.accumulation,
        record=recording(config.train.cuda_graphs),
        probes=_decoder(model, config) if config.decoder else None,
    )
    return Agent(model, config.actor(model), learner)


def _predictor(encoder: DINOv2, config: DinoWMConfig, proprio_width: int) -> Predictor:
    return Predictor(
        encoder.width + proprio_width,
        width=config.width,
        tokens=encoder.patches,
        history=config.history,
        layers=config.layers,
        heads=config.heads,
        head_width=config.head_width,
        hidden=config.hidden,
        dropout=config.dropout,
        conditioning=config.conditioning,
        condition=config.action_width,
        positions=config.positions,
        position_std=config.position_std,
        window=config.attention_window,
        bias=config.bias,
        inner_norms=config.inner_norms,
        modulation_std=config.modulation_std,
        rescale=config.rescale,
    )


def _decoder(model: DinoWM, config: DinoWMConfig) -> ProbeLearner:
    """A decoder that reads the tokens and never shapes them."""
    height, width, channels = image_shape(model.spaces.observation[model.image_key])
    model.heads["decoder"] = PatchDecoder(
        *model.frame,
        (height, width),
        visual=model.visual,
        channels=channels,
        hidden=config.decoder_width,
        inner=config.decoder_inner,
        blocks=config.decoder_blocks,
        background=config.decoder_background,
    )

    def frames(batch: Batch) -> Tensor:
        return batch.obs[model.image_key]

    def adam(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=config.decoder_lr)

    return ProbeLearner(
        model,
        {"decoder": frames},
        optimizer=adam,
        schedule=cooldown(config.train.updates) if config.decay_rate else None,
        windows=config.decoder_windows,
    )
