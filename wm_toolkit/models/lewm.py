"""LeWorldModel: a JEPA trained end to end from pixels, kept from collapsing by SIGReg."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wm_toolkit.batch import Batch, Losses
from wm_toolkit.encoders.vit import ViT
from wm_toolkit.errors import ConfigError, ShapeError
from wm_toolkit.losses.sigreg import SIGReg
from wm_toolkit.models.base import WorldModel
from wm_toolkit.models.predictor import Dream, Predictor
from wm_toolkit.models.window import Window, empty, push, sliding
from wm_toolkit.nn.image import IMAGENET_MEAN, IMAGENET_STD, to_float
from wm_toolkit.nn.norm import fresh_statistics, projector
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import cat, unflatten


class LeWorldModel(WorldModel[Window]):
    """One embedding per frame, predicted in latent space (Maes et al. 2026).

    z_t = projector(ViT(o_t)),  z'_{t+1} = projector'(predictor(z_{<=t}, a_{<=t}))
    loss = |z'_{t+1} - z_{t+1}|^2 + weight * SIGReg(z), without stop-gradient and without an averaged
    copy of the encoder. The weight is the learner's.

    Args:
        spaces: with the image observation `image_key` and the (blocked) action.
        encoder: normalised images [n, C, h, w] to [n, D], D = `encoder.width`.
        predictor: predicts the next embedding, of width E = `predictor.embedding`.
        projector_hidden: width of the two projectors' hidden layer.
        action_mixed: width of the linear map that comes first in the action encoder.
        action_hidden: width of the action encoder's hidden layer.
        context: most frames a dream starts from, 1 to history; None takes all that were seen. The
            published planner passes 1. Dreams themselves grow to the whole history.
        sigreg: the regulariser.
        image_size: what the encoder takes; other images are resized.
        image_mean: per channel, in [0, 1]; what becomes 0.
        image_std: per channel, what becomes 1.
        image_key: observation key.

    Example:
        >>> model = wm_toolkit.build("lewm.small", spaces).model
        >>> state = model.observe(model.initial(1), torch.zeros(1, 10), {"image": frame})
        >>> dream = model.rollout(state, torch.zeros(1, 64, 5, 10))
    """

    def __init__(
        self,
        spaces: Spaces,
        encoder: ViT,
        predictor: Predictor,
        *,
        projector_hidden: int = 2048,
        action_mixed: int = 10,
        action_hidden: int = 768,
        context: int | None = None,
        sigreg: SIGReg | None = None,
        image_size: int = 224,
        image_mean: tuple[float, ...] = IMAGENET_MEAN,
        image_std: tuple[float, ...] = IMAGENET_STD,
        image_key: str = "image",
    ) -> None:
        super().__init__(spaces)
        self.image_mean, self.image_std = image_mean, image_std
        self.image_size, self.image_key, self.pieces = image_size, image_key, 1
        self.history, self.embedding = predictor.history, predictor.embedding
        self.context = self.history if context is None else context
        if not 1 <= self.context <= self.history:
            raise ConfigError(f"context is {context}, expected 1 to history = {self.history}")
        action = spaces.action_width
        self.encoder = encoder
        self.projector = projector(encoder.width, projector_hidden, self.embedding)
        self.action_encoder = nn.Sequential(
            nn.Linear(action, action_mixed),
            nn.Linear(action_mixed, action_hidden),
            nn.SiLU(),
            nn.Linear(action_hidden, predictor.width),
        )
        self.predictor = predictor
        self.predicted = projector(predictor.width, projector_hidden, self.embedding)
        self.sigreg = sigreg or SIGReg()

    # -- the contract --------------------------------------------------------------------------------
    def initial(self, batch_size: int) -> Window:
        """An empty window."""
        shape = (1, self.embedding)
        like = self.predictor.positions
        return empty(batch_size, self.history, shape, self.spaces.action_width, like.detach())

    def observe(
        self,
        state: Window,
        action: Tensor,
        obs: dict[str, Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> Window:
        """Encode the image [B, h, w, C] and push it."""
        seen = push(state, action, self.encode(obs[self.image_key]).unsqueeze(-2))
        return seen.replace(count=seen.count.clamp(max=self.context))

    def imagine(
        self, state: Window, action: Tensor, *, generator: torch.Generator | None = None
    ) -> Window:
        """Predict the next embedding and push it; deterministic."""
        actions = torch.cat([state.actions, action.unsqueeze(1)], 1)
        z = self._predict(state.tokens.squeeze(-2), self.action_encoder(actions), state.count)
        return push(state, action, z[:, -1:])

    def features(self, state: Window) -> Tensor:
        """[..., E] embedding of the newest frame."""
        return state.newest.squeeze(-2)

    def loss(self, batch: Batch) -> Losses:
        """Terms "prediction" [B, T - 1] (of frames 1 ... T - 1) and "sigreg" [].

        Args:
            batch: [B, T] with T = history + 1 frames.
        """
        length = batch.action.shape[1]
        if not 2 <= length <= self.history + 1:
            raise ShapeError(
                f"LeWorldModel of history {self.history} trains on windows of 2 to "
                f"{self.history + 1} frames, got {length}"
            )
        z = self.encode(batch.obs[self.image_key])
        predicted = self._predict(z[:, :-1], self.action_encoder(batch.action[:, :-1]))
        error = (predicted - z[:, 1:]).float().square().mean(-1)
        return {"prediction": error, "sigreg": self.sigreg(z.transpose(0, 1))}

    # -- faster and finer ------------------------------------------------------------------------------
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
        plan, known = actions.flatten(0, 1), state.tokens[:, -age:, 0]
        taken = state.actions[:, state.actions.shape[1] - age + 1 :]
        dream = Dream(
            self.predictor,
            known[:, :-1],
            self.action_encoder(taken),
            self.action_encoder(plan),
        )
        frames = [known[:, -1:].repeat_interleave(candidates, 0)]
        for _ in range(horizon):
            frames.append(self.predicted(dream.step(frames[-1])))
        start, dreamt = state.repeat(candidates), torch.cat(frames[1:], 1).unsqueeze(-2)
        return unflatten(sliding(start, dreamt, plan), 0, (size, candidates))

    def encode(self, images: Tensor) -> Tensor:
        """[..., h, w, C] uint8 images to [..., E] embeddings."""
        lead = images.shape[:-3]
        flat = images.flatten(0, -4)
        if self.pieces > 1 and torch.is_grad_enabled():
            parts = [
                checkpoint(self._encode_images, part, use_reentrant=False)
                for part in flat.chunk(self.pieces)
            ]
            hidden = torch.cat(parts)
        else:
            hidden = self._encode_images(flat)
        return self.projector(hidden).unflatten(0, lead)

    def microbatches(self, pieces: int) -> bool:
        """Encode images in `pieces` and recompute them in the backward pass: same loss, less memory.

        SIGReg and the projectors' batch norms still see the whole batch.
        """
        self.pieces = pieces
        return True

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Re-estimate the batch norms' statistics over training batches [B, T]."""
        with torch.no_grad(), fresh_statistics(self):
            for batch in batches:
                self.loss(batch)

    def _encode_images(self, images: Tensor) -> Tensor:
        floats = to_float(images, size=self.image_size, mean=self.image_mean, std=self.image_std)
        return self.encoder(floats)

    def _predict(self, z: Tensor, condition: Tensor, count: Tensor | None = None) -> Tensor:
        return self.predicted(self.predictor(z, condition, count))
