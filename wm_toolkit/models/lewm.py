"""LeWorldModel: a JEPA trained end to end from pixels, kept from collapsing by SIGReg."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wm_toolkit.batch import Batch, Losses
from wm_toolkit.encoders.conv import ConvEncoder, ResNet18
from wm_toolkit.encoders.vit import ViT
from wm_toolkit.errors import ShapeError
from wm_toolkit.losses.sigreg import SIGReg
from wm_toolkit.models.predictor import Predictor
from wm_toolkit.models.window_model import WindowModel
from wm_toolkit.nn.image import IMAGENET_MEAN, IMAGENET_STD, to_float
from wm_toolkit.nn.norm import fresh_statistics, projector
from wm_toolkit.spaces import Spaces


class LeWorldModel(WindowModel):
    """One embedding per frame, predicted in latent space (Maes et al. 2026).

    z_t = projector(encoder(o_t)),  z'_{t+1} = projector'(predictor(z_{<=t}, a_{<=t}))
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
        encoder: ViT | ConvEncoder | ResNet18,
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
        super().__init__(spaces, predictor, context=context)
        self.image_mean, self.image_std = image_mean, image_std
        self.image_size, self.image_key, self.pieces = image_size, image_key, 1
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
    def tokens(self, obs: Mapping[str, Tensor]) -> Tensor:
        """One embedding per image [..., h, w, C], [..., 1, E]."""
        return self.encode(obs[self.image_key]).unsqueeze(-2)

    def following(self, frames: Tensor, predicted: Tensor) -> Tensor:
        """The predictor's output, projected, [B, T, 1, E]."""
        return self.predicted(predicted)

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
        predicted = self.predictor(z[:, :-1], self.action_encoder(batch.action[:, :-1]))
        error = (self.predicted(predicted) - z[:, 1:]).float().square().mean(-1)
        return {"prediction": error, "sigreg": self.sigreg(z.transpose(0, 1))}

    # -- finer -----------------------------------------------------------------------------------------
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
