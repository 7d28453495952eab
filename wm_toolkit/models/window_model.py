"""What LeWorldModel and DINO-WM share: a window of frames as state, a `Predictor` as dynamics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wm_toolkit.batch import Batch
from wm_toolkit.errors import ConfigError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.models.predictor import Dream, Predictor
from wm_toolkit.models.window import Window, empty, push, sliding
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import cat, unflatten

FRAMES = "frames"
"""Key under which `observe_sequence` hands `tokens` frames that are encoded already, [..., P, E]."""


class WindowModel(WorldModel[Window]):
    """Encodes each frame by itself and predicts the next one from a window of them.

    A subclass defines `tokens` (what a frame becomes), `following` (how the predictor's output is read)
    and `loss`, and sets `action_encoder`.

    Args:
        spaces: of its observations and (blocked) actions.
        predictor: of frames of P tokens of width E.
        context: most frames a dream starts from, 1 to history; None takes all that were seen. Dreams
            themselves grow to the whole history.

    Raises:
        ConfigError: if the context is not within the history.
    """

    action_encoder: nn.Module

    def __init__(self, spaces: Spaces, predictor: Predictor, *, context: int | None = None) -> None:
        super().__init__(spaces)
        self.history, self.embedding = predictor.history, predictor.embedding
        self.context = self.history if context is None else context
        if not 1 <= self.context <= self.history:
            raise ConfigError(f"context is {context}, expected 1 to history = {self.history}")
        self.frame = (predictor.tokens, predictor.embedding)

    # -- to be written ---------------------------------------------------------------------------
    predictor: Predictor

    @abstractmethod
    def tokens(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Observations [..., *shape] to frames of tokens [..., P, E]."""

    @abstractmethod
    def following(self, frames: Tensor, predicted: Tensor) -> Tensor:
        """The frames after `frames` [B, T, P, E], given the predictor's output [B, T, P, D]."""

    # -- the contract ------------------------------------------------------------------------------
    def initial(self, batch_size: int) -> Window:
        """An empty window."""
        like = next(self.predictor.parameters()).detach()
        return empty(batch_size, self.history, self.frame, self.spaces.action_width, like)

    def observe(
        self,
        state: Window,
        action: Tensor,
        obs: dict[str, Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> Window:
        """Encode the frame [B, ...] and push it."""
        seen = push(state, action, obs[FRAMES] if FRAMES in obs else self.tokens(obs))
        return seen.replace(count=seen.count.clamp(max=self.context))

    def imagine(
        self, state: Window, action: Tensor, *, generator: torch.Generator | None = None
    ) -> Window:
        """Predict the frame after action [B, A] and push it; deterministic."""
        actions = torch.cat([state.actions, action.unsqueeze(1)], 1)
        predicted = self.predictor(state.tokens, self.action_encoder(actions), state.count)
        following = self.following(state.tokens[:, -1:], predicted[:, -1:])
        return push(state, action, following[:, 0])

    def features(self, state: Window) -> Tensor:
        """[..., P E] tokens of the newest frame, flat."""
        return state.newest.flatten(-2)

    def frames(self, batch: Batch) -> Tensor:
        """[B, T, P, E] tokens of the frames of windows [B, T]."""
        times = range(batch.action.shape[1])
        every = [self.tokens({k: v[:, t] for k, v in batch.obs.items()}) for t in times]
        return torch.stack(every, 1)

    # -- faster --------------------------------------------------------------------------------------
    def observe_sequence(
        self,
        batch: Batch,
        state: Window | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Window:
        """Filter windows [B, T]; where no episode begins within one, as views of one buffer."""
        frames = self.frames(batch)
        if state is None and not bool(batch.is_first[:, 1:].any()):
            start = self.initial(len(batch))
            seen = sliding(start, frames, batch.previous_action())
            return seen.replace(count=seen.count.clamp(max=self.context))
        encoded = batch.replace(obs={FRAMES: frames})
        return super().observe_sequence(encoded, state, generator=generator)

    def rollout(
        self, state: Window, actions: Tensor, *, generator: torch.Generator | None = None
    ) -> Window:
        """Dream [B, N, H] from [B]: nothing is computed twice, exactly as the loop over `imagine`.

        Rows of one age are dreamt together, without padding or a mask.
        """
        ages = [int(age) for age in state.count.unique()]
        if len(ages) == 1:
            return self._dream(state, actions, ages[0])
        rows = [(state.count == age).nonzero().squeeze(-1) for age in ages]
        dreams = [self._dream(state[r], actions[r], a) for r, a in zip(rows, ages, strict=True)]
        return cat(dreams)[torch.cat(rows).argsort()]

    def _dream(self, state: Window, actions: Tensor, age: int) -> Window:
        """Dream [B, N, H] from windows [B] that all hold `age` frames."""
        if age == 0:
            return super().rollout(state, actions)
        size, candidates, horizon, _ = actions.shape
        plan, known = actions.flatten(0, 1), state.tokens[:, -age:]
        taken = state.actions[:, state.actions.shape[1] - age + 1 :]
        dream = Dream(
            self.predictor,
            known[:, :-1],
            self.action_encoder(taken),
            self.action_encoder(plan),
        )
        frames = [known[:, -1:].repeat_interleave(candidates, 0)]
        for _ in range(horizon):
            frames.append(self.following(frames[-1], dream.step(frames[-1])))
        start, dreamt = state.repeat(candidates), torch.cat(frames[1:], 1)
        return unflatten(sliding(start, dreamt, plan), 0, (size, candidates))
