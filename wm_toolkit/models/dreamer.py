"""The world model of PlaNet and Dreamer V1 to V3: an RSSM between an encoder and its read-outs."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from wm_toolkit.batch import Batch, Losses
from wm_toolkit.errors import DataError
from wm_toolkit.losses.kl import FreeNats, free, two_sided
from wm_toolkit.models.base import WorldModel
from wm_toolkit.models.rssm import RSSM, Belief, Latent
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import stack


@dataclasses.dataclass(frozen=True)
class KL:
    """How posterior and prior are pulled together.

    Attributes:
        form: "one" term KL(posterior || prior) teaching both (PlaNet, V1); or "two" terms "dynamics"
            and "representation", each teaching one side (V2, V3), whose weights are the learner's.
        nats: free nats.
        free: how they are counted (`losses.kl.free`).
    """

    form: Literal["one", "two"] = "two"
    nats: float = 1.0
    free: FreeNats = "each"


class Dreamer(WorldModel[Latent]):
    """Filters with posteriors, dreams with priors, and reads observations, reward and ending off both.

    Args:
        spaces: what is seen and done.
        rssm: the recurrent state.
        encoder: observations [..., *shape] per key to [..., E].
        decoder: features to `Observations`; None trains without reconstruction.
        reward: features [..., D + Z] to an Output over [...].
        ending: features to an Output over [...], whether the episode goes on; None without.
        kl: the divergence terms.
        discount: what the "continue" head learns for a state that is not terminal: 1, or 1 - 1 / horizon
            (Dreamer V3), so that its product is the discounted chance of getting there.
    """

    stochastic = True

    def __init__(
        self,
        spaces: Spaces,
        rssm: RSSM,
        encoder: nn.Module,
        *,
        decoder: nn.Module | None,
        reward: nn.Module,
        ending: nn.Module | None = None,
        kl: KL | None = None,
        discount: float = 1.0,
    ) -> None:
        super().__init__(spaces)
        self.rssm, self.encoder, self.kl, self.discount = rssm, encoder, kl or KL(), discount
        if decoder is not None:
            self.heads["decoder"] = decoder
        self.heads["reward"] = reward
        if ending is not None:
            self.heads["continue"] = ending

    # -- the contract --------------------------------------------------------------------------------
    def initial(self, batch_size: int) -> Latent:
        """Nothing seen yet."""
        return self.rssm.initial(batch_size, next(self.rssm.parameters()))

    def observe(
        self,
        state: Latent,
        action: Tensor,
        obs: dict[str, Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> Latent:
        """A draw from the posterior."""
        embedded = self.rssm.core.embed(action)
        return self.rssm.observe(state, embedded, self.encoder(obs), generator)

    def imagine(
        self, state: Latent, action: Tensor, *, generator: torch.Generator | None = None
    ) -> Latent:
        """A draw from the prior."""
        return self.rssm.imagine(state, self.rssm.core.embed(action), generator)

    def features(self, state: Latent) -> Tensor:
        """[..., D + Z]: h and s."""
        return torch.cat([state.deter, state.stoch], -1)

    def loss(self, batch: Batch) -> Losses:
        """Terms [B, T]: one per observation, "reward", "continue", and the divergence's."""
        return self.losses(batch, self.observe_sequence(batch))

    # -- faster and finer ------------------------------------------------------------------------------
    def observe_sequence(
        self,
        batch: Batch,
        state: Latent | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Latent:
        """As the loop in `WorldModel`, with everything that does not recur done for all rows at once."""
        size, length = batch.action.shape[:2]
        embedding = self.encoder(batch.obs).unbind(1)
        actions = self.rssm.core.embed(batch.previous_action()).unbind(1)
        restarts = batch.is_first.any(0).tolist()
        fresh = self.initial(size)
        current = fresh if state is None else state
        states = []
        for t in range(length):
            if restarts[t] and (t or state is not None):
                current = current.where(~batch.is_first[:, t], fresh)
            current = self.rssm.observe(current, actions[t], embedding[t], generator)
            states.append(current)
        return stack(states, 1)

    def losses(self, batch: Batch, posterior: Latent) -> Losses:
        """The terms of filtered states [B, T].

        Raises:
            DataError: if the batch has no rewards, or no endings where they are to be learnt.
        """
        found: Losses = {}
        if "decoder" in self.heads:
            seen = self.heads["decoder"](self.features(posterior))
            found |= seen.losses(batch.obs)
        if batch.reward is None:
            raise DataError("the batch has no rewards, and this model learns to predict them")
        found["reward"] = self.predict("reward", posterior).loss(batch.reward)
        if "continue" in self.heads:
            found["continue"] = self.predict("continue", posterior).loss(self._goes_on(batch))
        return found | self._divergence(posterior.belief, self.rssm.prior(posterior.deter))

    def _goes_on(self, batch: Batch) -> Tensor:
        if batch.terminated is None:
            raise DataError("the batch does not say where episodes end, and this model learns it")
        return (~batch.terminated).float() * self.discount

    def _divergence(self, posterior: Belief, prior: Belief) -> Losses:
        def kl(a: Belief, b: Belief) -> Tensor:
            return a.kl(b)  # type: ignore[arg-type]

        nats, how = self.kl.nats, self.kl.free
        if self.kl.form == "one":
            return {"divergence": free(kl(posterior, prior), nats, how)}
        dynamics, representation = two_sided(kl, posterior, prior)
        return {
            "dynamics": free(dynamics, nats, how),
            "representation": free(representation, nats, how),
        }
