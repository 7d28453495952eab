"""The world model of PlaNet and Dreamer V1 to V3: an RSSM between an encoder and its read-outs."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_toolkit.batch import Batch, Losses
from wm_toolkit.encoders.observations import ObservationEncoder
from wm_toolkit.errors import DataError
from wm_toolkit.losses.kl import FreeNats, free, two_sided
from wm_toolkit.models.base import WorldModel
from wm_toolkit.models.rssm import RSSM, Belief, Latent
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import flatten, stack, unflatten


@dataclasses.dataclass(frozen=True)
class KL:
    """How posterior and prior are pulled together.

    Attributes:
        form: "one" term KL(posterior || prior) teaching both (PlaNet, V1); or "two" terms "dynamics"
            and "representation", each teaching one side (V2, V3), whose weights are the learner's.
        nats: free nats.
        free: how they are counted (`losses.kl.free`).
        overshooting: longest open-loop prediction that is compared with the posterior, in a term
            "overshooting" (PlaNet's latent overshooting, off in its code); 1 has none.
    """

    form: Literal["one", "two"] = "two"
    nats: float = 1.0
    free: FreeNats = "each"
    overshooting: int = 1


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
        squash_reward: learn tanh of the rewards (Dreamer V2 on Atari).
    """

    stochastic = True

    def __init__(
        self,
        spaces: Spaces,
        rssm: RSSM,
        encoder: ObservationEncoder,
        *,
        decoder: nn.Module | None,
        reward: nn.Module,
        ending: nn.Module | None = None,
        kl: KL | None = None,
        discount: float = 1.0,
        squash_reward: bool = False,
    ) -> None:
        super().__init__(spaces)
        self.rssm, self.encoder, self.kl, self.discount = rssm, encoder, kl or KL(), discount
        self.squash_reward = squash_reward
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
        """A draw from the posterior after action [B, A] and observations [B, ...]."""
        embedded = self.rssm.core.embed(action)
        return self.rssm.observe(state, embedded, self.encoder(obs), generator)

    def imagine(
        self, state: Latent, action: Tensor, *, generator: torch.Generator | None = None
    ) -> Latent:
        """A draw from the prior after action [B, A]."""
        return self.rssm.imagine(state, self.rssm.core.embed(action), generator)

    def features(self, state: Latent) -> Tensor:
        """[..., D + Z]: h and s."""
        return torch.cat([state.deter, state.stoch], -1)

    def loss(self, batch: Batch) -> Losses:
        """Terms [B, T]: one per observation, "reward", "continue", and the divergence's."""
        batch = self.prepare(batch)
        return self.losses(batch, self.observe_sequence(batch))

    # -- faster and finer ------------------------------------------------------------------------------
    def prepare(self, batch: Batch) -> Batch:
        """The batch [B, T] as encoder and decoder shall see it in training."""
        return batch.replace(obs=self.encoder.prepare(batch.obs))

    def observe_sequence(
        self,
        batch: Batch,
        state: Latent | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Latent:
        """States [B, T] as of the loop in `WorldModel`; what does not recur is done for all rows at once."""
        return self._filter(batch, batch.previous_action(), state, generator)

    def observe_after(
        self, batch: Batch, state: Latent, *, generator: torch.Generator | None = None
    ) -> Latent:
        """Filter all rows but the first of [B, T + 1], from the states [B] known there: [B, T]."""
        return self._filter(without_first(batch), batch.previous_action()[:, 1:], state, generator)

    def _filter(
        self,
        batch: Batch,
        action: Tensor,
        state: Latent | None,
        generator: torch.Generator | None,
    ) -> Latent:
        """[B, T] posteriors of rows [B, T] that actions [B, T, A] led to."""
        embedding = self.encoder(batch.obs).unbind(1)
        actions = self.rssm.core.embed(action).unbind(1)
        restarts = batch.restarts()
        fresh, step = self.initial(len(action)), self.rssm.core.unrolled()
        current = fresh if state is None else state
        states = []
        for t in range(len(actions)):
            if restarts[t] and (t or state is not None):
                current = current.where(~batch.is_first[:, t], fresh)
            current = self.rssm.observe(current, actions[t], embedding[t], generator, step=step)
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
        reward = batch.reward.tanh() if self.squash_reward else batch.reward
        found["reward"] = self.predict("reward", posterior).loss(reward)
        if "continue" in self.heads:
            found["continue"] = self.predict("continue", posterior).loss(self._goes_on(batch))
        if self.kl.overshooting > 1:
            found["overshooting"] = self._overshooting(batch, posterior)
        return found | self._divergence(posterior.belief, self.rssm.prior(posterior.deter))

    def _goes_on(self, batch: Batch) -> Tensor:
        if batch.terminated is None:
            raise DataError("the batch does not say where episodes end, and this model learns it")
        return (~batch.terminated).float() * self.discount

    def _divergence(self, posterior: Belief, prior: Belief) -> Losses:
        nats, how = self.kl.nats, self.kl.free
        if self.kl.form == "one":
            return {"divergence": free(_kl(posterior, prior), nats, how)}
        dynamics, representation = two_sided(_kl, posterior, prior)
        return {
            "dynamics": free(dynamics, nats, how),
            "representation": free(representation, nats, how),
        }

    def _overshooting(self, batch: Batch, posterior: Latent) -> Tensor:
        """[B, T] divergence of each fixed posterior from open-loop priors, 2 ... D steps ahead of it.

        The mean over the distances d of KL(sg posterior_t || prior_t from posterior_{t-d}); distances
        that would reach across an episode's start, or begin before the window, count as 0.
        """
        longest = min(self.kl.overshooting, batch.action.shape[1] - 1)
        action, target = self.rssm.core.embed(batch.previous_action()), posterior.belief.detach()
        current, within = posterior, torch.ones_like(batch.is_first)
        total = torch.zeros_like(posterior.deter[..., 0])
        for distance in range(1, longest + 1):
            before, rows = current[:, :-1], (len(action), action.shape[1] - distance)
            flat = flatten(before, 0, 1), action[:, distance:].flatten(0, 1)
            current = unflatten(self.rssm.imagine(*flat), 0, rows)
            within = within[:, :-1] & ~batch.is_first[:, distance:]
            if distance > 1:
                term = free(_kl(target[:, distance:], current.belief), self.kl.nats, self.kl.free)
                total = total + functional.pad(term * within, (distance, 0))
        return total / max(longest - 1, 1)


def without_first(batch: Batch) -> Batch:
    """All rows but the first, [B, T + 1] to [B, T]; a window's weight and origin stay."""
    rows = batch.replace(weight=None, index=None)[:, 1:]
    return rows.replace(weight=batch.weight, index=batch.index)


def _kl(a: Belief, b: Belief) -> Tensor:
    return a.kl(b)  # type: ignore[arg-type]
