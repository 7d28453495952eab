"""DINO-WM: predicts the patch tokens of a frozen DINOv2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wm_toolkit.batch import Batch, Losses
from wm_toolkit.encoders.dinov2 import DINOv2
from wm_toolkit.errors import ConfigError, ShapeError, SpaceError
from wm_toolkit.models.predictor import Memory, Predictor
from wm_toolkit.models.window import Window
from wm_toolkit.models.window_model import WindowModel
from wm_toolkit.spaces import Spaces

FEATURES = "features/"
"""Prefix of the columns that hold encoded frames."""

Prediction = Literal["direct", "residual"]
FeatureDtype = Literal["float32", "float16"]


class DinoWM(WindowModel):
    """Patch tokens of a frozen encoder, predicted frame by frame (Zhou et al. 2025; JEPA-WMs 2025).

    x_t = [DINOv2(o_t), proprio(p_t)] (P tokens of width E; the proprioception repeated in each),
    x'_{t+1} = predictor(x_{<=t}, action(a_{<=t})),  loss = |x'_{t+1} - x_{t+1}|^2 with the target
    detached, for all frames at once (teacher forcing). Which of the published forms it is, the predictor
    says: "concat" and learned positions (DINO-WM), or "adaln" and rotary ones (JEPA-WMs).

    Args:
        spaces: with the image `image_key`, the (blocked) action, and `proprio_key` if there is
            proprioception.
        encoder: frozen; P tokens of an image.
        predictor: of P tokens of width E = encoder.width (+ `proprio_width`).
        proprio_width: of the linear embedding of proprioception; unused without.
        context: most frames a dream starts from, 1 to history; None takes all that were seen.
        alpha: weight of proprioception in the distance to a goal.
        prediction: the predictor's output is the next frame ("direct") or what changes ("residual").
        rollout_steps: how many frames each prefix of a window is continued for in the loss, every frame
            from its predecessors' detached predictions; 1 is teacher forcing alone.
        feature_dtype: what tokens are rounded to, so that frames and stored features of this type
            give equal numbers.
        standardise_features: take from every patch its mean over the training data, and give every
            channel deviation 1. Most of what tokens hold is where they are and what never changes.
        image_key: observation key.
        proprio_key: observation key of a vector.

    Raises:
        ConfigError: if the predictor does not fit the encoder, or an option is unknown.

    Example:
        >>> model = wm_toolkit.build("dino_wm", spaces).model
        >>> state = model.observe(model.initial(1), torch.zeros(1, 10), obs)
        >>> dream = model.rollout(state, torch.zeros(1, 64, 5, 10))
    """

    proprio_mean: Tensor
    proprio_std: Tensor
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        spaces: Spaces,
        encoder: DINOv2,
        predictor: Predictor,
        *,
        proprio_width: int = 10,
        context: int | None = None,
        alpha: float = 1.0,
        prediction: Prediction = "direct",
        rollout_steps: int = 1,
        feature_dtype: FeatureDtype = "float32",
        standardise_features: bool = False,
        image_key: str = "image",
        proprio_key: str = "proprio",
    ) -> None:
        super().__init__(spaces, predictor, context=context)
        self.alpha, self.prediction, self.rollout_steps = alpha, prediction, rollout_steps
        self.image_key, self.proprio_key = image_key, proprio_key
        self.feature_dtype = feature_dtype
        self.visual, self.standardise_features = encoder.width, standardise_features
        self.proprio_width = proprio_width if proprio_key in spaces.observation else 0
        self._check(encoder, predictor)
        self.encoder = encoder
        self.action_encoder = nn.Linear(spaces.action_width, predictor.condition)
        self.proprio_encoder: nn.Module | None = None
        if self.proprio_width:
            numbers = _numbers(spaces, proprio_key)
            self.proprio_encoder = nn.Linear(numbers, self.proprio_width)
            self.register_buffer("proprio_mean", torch.zeros(numbers))
            self.register_buffer("proprio_std", torch.ones(numbers))
        if standardise_features:
            self.register_buffer("feature_mean", torch.zeros(encoder.patches, self.visual))
            self.register_buffer("feature_std", torch.ones(self.visual))
        self.predictor = predictor
        self.output: nn.Module = nn.Identity()
        if not isinstance(predictor.input, nn.Identity):
            self.output = nn.Linear(predictor.width, self.embedding)

    def _check(self, encoder: DINOv2, predictor: Predictor) -> None:
        expected = (encoder.patches, encoder.width + self.proprio_width)
        if self.frame != expected:
            raise ConfigError(
                f"the predictor takes {self.frame[0]} tokens of width {self.frame[1]}; this encoder and "
                f"{self.proprio_width} numbers of proprioception make {expected[0]} of {expected[1]}"
            )
        if self.prediction not in ("direct", "residual") or self.rollout_steps < 1:
            raise ConfigError(
                f"prediction is {self.prediction!r} and rollout_steps {self.rollout_steps}; expected "
                "'direct' or 'residual', and at least 1"
            )
        if self.feature_dtype not in ("float32", "float16"):
            raise ConfigError(
                f"feature_dtype is {self.feature_dtype!r}; use 'float32' or 'float16'"
            )

    # -- the contract ------------------------------------------------------------------------------
    def tokens(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Images [..., h, w, 3] uint8 and proprioception [..., n] to tokens [..., P, E]."""
        return self._join(self.encode(obs[self.image_key]), obs)

    def frames(self, batch: Batch) -> Tensor:
        """[B, T, P, E] tokens of windows, from stored features where the batch has them."""
        column = FEATURES + self.image_key
        if column not in batch.extras:
            return self.tokens(batch.obs)
        stored = batch.extras[column].to(getattr(torch, self.feature_dtype)).float()
        return self._join(self._standardised(stored), batch.obs)

    def following(self, frames: Tensor, predicted: Tensor) -> Tensor:
        """The next frames [B, T, P, E]; what the predictor says about appended actions is ignored."""
        out = self.output(predicted)[..., : self.embedding]
        return frames + out if self.prediction == "residual" else out

    def loss(self, batch: Batch) -> Losses:
        """Terms "prediction" [B, T - 1] and, for k = 2 ... rollout_steps, "rollout_k" [B, T - k].

        "rollout_k" is the error k frames after each prefix of the window.

        Args:
            batch: [B, T] with T up to history + 1 frames.
        """
        length = batch.action.shape[1]
        if not self.rollout_steps < length <= self.history + 1:
            raise ShapeError(
                f"DinoWM of history {self.history} and {self.rollout_steps} rollout steps trains on "
                f"windows of {self.rollout_steps + 1} to {self.history + 1} frames, got {length}"
            )
        x = self.frames(batch)
        known, target = x[:, :-1], x[:, 1:].detach()
        conditions = self.predictor.conditions(self.action_encoder(batch.action[:, :-1]))
        predicted, memory = self.predictor.extend(known, conditions, None, 0, newest=False)
        guess = self.following(known, predicted)
        losses = {"prediction": _error(guess, target)}
        dreams = [
            (guess[:, t : t + 1], _until(memory, (t + 1) * self.frame[0]))
            for t in range(length - 1)
        ]
        for step in range(2, self.rollout_steps + 1):
            dreams = [
                self._go_on(*dream, conditions, t + step - 1)
                for t, dream in enumerate(dreams[: length - step])
            ]
            guess = torch.cat([frame for frame, _ in dreams], 1)
            losses[f"rollout_{step}"] = _error(guess, target[:, step - 1 :])
        return losses

    def _go_on(
        self, frame: Tensor, past: Memory, conditions: list[Tensor], position: int
    ) -> tuple[Tensor, Memory]:
        """The frame after a predicted one [B, 1, P, E], which gets no gradient, and the memory then."""
        frame, now = frame.detach(), slice(position, position + 1)
        predicted, memory = self.predictor.extend(
            frame, [part[:, now] for part in conditions], past, position
        )
        return self.following(frame, predicted), memory

    def goal_features(self, state: Window) -> Tensor:
        """[..., G] whose mean squared distance is the published objective.

        mean |visual - goal|^2 + alpha * mean |proprio - goal|^2 over the newest frame; the embedded
        proprioception is read off the first patch, as published.
        """
        visual = state.newest[..., : self.visual].flatten(-2)
        if not self.proprio_width or not self.alpha:
            return visual
        proprio = state.newest[..., 0, self.visual :]
        parts = ((visual, 1.0), (proprio, self.alpha))
        total = sum(part.shape[-1] for part, _ in parts)
        return torch.cat([x * (weight * total / x.shape[-1]) ** 0.5 for x, weight in parts], -1)

    # -- frames to tokens ----------------------------------------------------------------------------
    def encode(self, images: Tensor) -> Tensor:
        """[..., h, w, 3] uint8 images to visual tokens [..., P, Ev], rounded and standardised."""
        # Stored features are made in full precision; so are these, or training would see others.
        with torch.autocast(images.device.type, enabled=False):
            tokens = self.encoder(images).patches
        return self._standardised(tokens.to(getattr(torch, self.feature_dtype)).float())

    def stored_features(self) -> dict[str, dict[str, Any]]:
        """The column of encoded frames that serves instead of the frames, and what must be in it."""
        about = {"key": self.image_key, "dtype": self.feature_dtype}
        return {FEATURES + self.image_key: {**self.encoder.identity, **about}}

    @torch.no_grad()
    def fit_inputs(
        self, statistics: Mapping[str, tuple[Tensor, Tensor]], batches: Iterable[Batch]
    ) -> None:
        """Keep mean and deviation of proprioception [V] and, if asked for, of every token channel [E]."""
        if self.proprio_width and f"obs/{self.proprio_key}" in statistics:
            mean, std = statistics[f"obs/{self.proprio_key}"]
            self.proprio_mean.copy_(mean.flatten())
            self.proprio_std.copy_(std.flatten().clamp(min=1e-6))
        if self.standardise_features:
            self.feature_mean.zero_()
            self.feature_std.fill_(1)
            seen = [self.frames(batch.to(self.device))[..., : self.visual] for batch in batches]
            variance, mean = torch.var_mean(torch.cat([x.flatten(0, 1) for x in seen]), 0)
            self.feature_mean.copy_(mean)
            self.feature_std.copy_(variance.mean(0).sqrt().clamp(min=1e-6))

    def _standardised(self, visual: Tensor) -> Tensor:
        if not self.standardise_features:
            return visual
        return (visual - self.feature_mean) / self.feature_std

    def _join(self, visual: Tensor, obs: Mapping[str, Tensor]) -> Tensor:
        """Visual tokens [..., P, Ev] with the embedded proprioception in each, [..., P, E].

        Raises:
            SpaceError: if there is no proprioception.
        """
        if self.proprio_encoder is None:
            return visual
        if self.proprio_key not in obs:
            raise SpaceError(
                f"this DinoWM reads {self.proprio_key!r} beside the image, in observations and in goals; "
                f"got {sorted(obs)}"
            )
        raw = obs[self.proprio_key].float().reshape(*visual.shape[:-2], -1)
        embedded = self.proprio_encoder((raw - self.proprio_mean) / self.proprio_std)
        every = embedded.unsqueeze(-2).expand(*visual.shape[:-1], -1)
        return torch.cat([visual, every], -1)


def _error(guess: Tensor, target: Tensor) -> Tensor:
    """[B, t] mean squared difference of frames [B, t, P, E]."""
    return (guess - target).float().square().mean((-2, -1))


def _until(memory: Memory, tokens: int) -> Memory:
    """What is remembered of the first tokens."""
    return [(k[:, :, :tokens], v[:, :, :tokens]) for k, v in memory]


def _numbers(spaces: Spaces, key: str) -> int:
    """How many numbers a vector observation has."""
    shape = spaces.observation[key].shape
    if shape is None:
        raise ConfigError(f"observation {key!r} has no shape, so it cannot be embedded")
    return max(1, int(torch.Size(shape).numel()))
