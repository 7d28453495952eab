"""Behaviour learnt in dreams: actor and critic of the Dreamer family."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_toolkit.agents.behaviour import BehaviourConfig, Dream, Score, score
from wm_toolkit.agents.model_learner import Program
from wm_toolkit.batch import Batch, Losses
from wm_toolkit.data.tables import ColumnSpec
from wm_toolkit.errors import ConfigError, DataError
from wm_toolkit.heads.base import Output
from wm_toolkit.losses.returns import ReturnScale
from wm_toolkit.models.dreamer import Dreamer, without_first
from wm_toolkit.models.rssm import Categorical, Latent
from wm_toolkit.nn.choices import Choices
from wm_toolkit.structs import cat, flatten, stack, unbind

__all__ = ["ActorCritic", "BehaviourConfig"]

Features = Tensor | Choices


class ActorCritic(Program):
    """All losses of one update: the model's on what was recorded, the behaviour's on dreams from it.

    The model's heads "policy" and "value" are the actor and the critic. Terms beside the model's are
    "policy", "value" (both [B, T], means over the dream) and "replay_value" [B, T - 1].

    Args:
        model: with those heads.
        config: how they learn.
        stored_latents: keep the model's states with the rows of a replay and begin sequences with them
            (Dreamer V3).
    """

    model: Dreamer
    taught = ("policy", "value")
    own_terms = ("policy", "value", "replay_value")

    def __init__(
        self, model: Dreamer, config: BehaviourConfig | None = None, *, stored_latents: bool = False
    ) -> None:
        super().__init__(model)
        missing = set(self.taught) - set(model.heads)
        if missing:
            raise ConfigError(f"the model has no head {sorted(missing)}; the behaviour needs both")
        self.config = (config or BehaviourConfig()).resolved(model.discount)
        self.stored_latents = stored_latents
        self.share = self.config.reinforced(discrete=model.spaces.discrete)
        self.slow: nn.Module | None = None
        if self.config.slow_targets or self.config.slow_pull:
            self.slow = copy.deepcopy(model.heads["value"]).requires_grad_(False)
        self.scale = ReturnScale()

    def forward(self, batch: Batch) -> Losses:
        """The unreduced losses of [B, T] windows, or of rows 1 ... T of [B, T + 1] with stored states."""
        batch, posterior = self._filtered(self.model.prepare(batch))
        losses = self.model.losses(batch, posterior)
        rows = slice(None, -1 if self.config.but_last else None)
        starts = posterior.detach()[:, rows]
        lead = tuple(starts.deter.shape[:2])
        live = None
        if self.config.start == "recorded" and batch.terminated is not None:
            live = (~batch.terminated[:, rows]).float().flatten()
        found, returns = self.behaviour(flatten(starts, 0, 1), live)
        losses |= {name: term.mean(1).unflatten(0, lead) for name, term in found.items()}
        if self.config.replay_value:
            first = returns[:, 0].unflatten(0, lead)
            losses["replay_value"] = self._replayed(batch, posterior, first)
        return losses

    def behaviour(self, start: Latent, live: Tensor | None = None) -> tuple[Losses, Tensor]:
        """Terms "policy" and "value" [M, H] of dreams from states [M], and their returns [M, H].

        Args:
            start: where the dreams begin.
            live: [M] 0 where that is known to be terminal, else 1; None predicts it.
        """
        dream = self.dream(start, live)
        known = unbind(dream.features.detach(), 1)[:-1]
        critic = [self.model.heads["value"](features) for features in known]
        values = self._values(dream, critic)
        found = score(dream, values, self.config)
        returns = found.returns.detach()
        losses = [
            self._critic_loss(critic[t], known[t], aim)
            for t, aim in enumerate(returns.unbind(1), found.first)
        ]
        value = found.weight * torch.stack(losses, 1)
        return {"policy": self._actor_loss(dream, found, values), "value": value}, returns

    def dream(self, start: Latent, live: Tensor | None = None) -> Dream:
        """Act H times in the model from states [M]: [M, H]; only the actor can receive gradients.

        Args:
            start: [M] where the dreams begin.
            live: [M] 0 where that is known to be terminal, else 1; None predicts it.
        """
        through = self.share < 1
        state = start if through else _without_gradient(start)
        with torch.set_grad_enabled(through), _frozen(self.model, but="policy"):
            step, embed = self.model.rssm.core.unrolled(), self.model.rssm.core.embed
            seen, policies, actions = [self.model.features(state)], [], []
            for _ in range(self.config.horizon):
                with torch.enable_grad():
                    policies.append(self.model.heads["policy"](seen[-1].detach()))
                action = policies[-1].sample()
                actions.append(action if through else action.detach())
                state = self.model.rssm.imagine(state, embed(actions[-1]), step=step)
                seen.append(self.model.features(state))
            features = stack(seen, 1)
            reward = _read(self.model.heads["reward"], features)
            go_on = self._go_on(features, live)
            return Dream(features, torch.stack(actions, 1), reward, go_on, tuple(policies))

    # -- stored states -----------------------------------------------------------------------------
    def latent_columns(self) -> dict[str, ColumnSpec]:
        """Deterministic part and draw of a state, if they are stored."""
        if not self.stored_latents:
            return {}
        columns = self.model.rssm.columns
        return {name: ColumnSpec(shape, np.dtype(kind)) for name, (shape, kind) in columns.items()}

    def latents_of(self, state: Latent) -> dict[str, Tensor]:
        """States [...] in the form in which they are stored."""
        return self.model.rssm.encode(state) if self.stored_latents else {}

    def _filtered(self, batch: Batch) -> tuple[Batch, Latent]:
        """The rows to learn from, and their posteriors."""
        columns = self.model.rssm.columns
        if self.latents is not None:  # of an update that is over
            self.pieces, self.latents = [], None
        if not self.stored_latents or not columns.keys() <= batch.extras.keys():
            return batch, self.model.observe_sequence(batch)
        known = {name: batch.extras[name][:, 0] for name in columns}
        posterior = self.model.observe_after(batch, self.model.rssm.decode(known))
        self.pieces.append(self.latents_of(posterior.detach()))
        return without_first(batch), posterior

    def restart(self) -> None:
        """Let the slow critic be the model's."""
        if self.slow is not None:
            self.slow.load_state_dict(self.model.heads["value"].state_dict())

    def after_update(self, update: int) -> None:
        """Let the slow critic follow, and offer the states that were made anew."""
        if self.pieces:
            self.latents = cat(self.pieces)
        if self.slow is not None and update % self.config.slow_every == 0:
            fast = self.model.heads["value"].parameters()
            with torch.no_grad():
                for mine, theirs in zip(self.slow.parameters(), fast, strict=True):
                    mine.lerp_(theirs, self.config.slow_rate)

    # -- terms -------------------------------------------------------------------------------------
    def _go_on(self, features: Features, live: Tensor | None) -> Tensor:
        """[M, H + 1] discounted chance of going on."""
        config = self.config
        if "continue" not in self.model.heads:
            like = next(self.model.parameters())
            return like.new_full((len(features), config.horizon + 1), config.discount)
        chance = config.discount * _read(self.model.heads["continue"], features, config.go_on)
        if live is None:
            return chance
        known = config.discount * self.model.discount * live
        return torch.cat([known.unsqueeze(1), chance[:, 1:]], 1)

    def _values(self, dream: Dream, critic: list[Output]) -> Tensor:
        """[M, H + 1] for returns and baseline, without gradient for the critic.

        `critic` is what it said in states 0 ... H - 1.
        """
        fast = self.model.heads["value"]
        head = self.slow if self.slow is not None and self.config.slow_targets else fast
        through = dream.features.requires_grad
        with torch.set_grad_enabled(through), _frozen(head):
            if through or head is not fast:
                return _read(head, dream.features)
            last = fast(dream.features[:, -1]).mean
            return torch.stack([*(value.mean for value in critic), last], 1)

    def _actor_loss(self, dream: Dream, found: Score, values: Tensor) -> Tensor:
        """[M, m] for the m actions that are judged."""
        config, count = self.config, found.aims.shape[1]
        policies = dream.policies[:count]
        scale = self.scale.update(found.aims.detach()) if config.normalise else 1.0
        advantage = (found.aims - values[:, :count]) / scale
        gain = torch.zeros_like(found.aims)
        if self.share:
            pairs = zip(policies, dream.actions.detach().unbind(1), strict=False)
            score = torch.stack([policy.log_prob(action) for policy, action in pairs], 1)
            gain = gain + self.share * score * advantage.detach()
        if self.share < 1:
            raised = found.aims / scale if config.dynamics_of == "return" else advantage
            gain = gain + (1 - self.share) * raised
        if config.entropy:
            entropy = torch.stack([policy.entropy() for policy in policies], 1)
            gain = gain + config.entropy * entropy
        return -found.aim_weight * gain

    def _critic_loss(self, value: Output, features: Features, returns: Tensor) -> Tensor:
        """The loss of what the critic said at the returns, and at what the slow one says of `features`."""
        loss = value.loss(returns)
        if self.slow is None or not self.config.slow_pull:
            return loss
        with torch.no_grad():
            steady = self.slow(features).mean
        return loss + self.config.slow_pull * value.loss(steady)

    def _replayed(self, batch: Batch, posterior: Latent, bootstrap: Tensor) -> Tensor:
        """[B, T - 1] the critic's loss on recorded rewards, bootstrapped by dreamt returns [B, T].

        What the critic says in row t is judged from row t + 1 on: that is the row `reduce` weighs it by.

        Raises:
            DataError: if the batch does not say where episodes end.
        """
        gamma = self.config.replay_discount
        assert batch.reward is not None
        assert gamma is not None
        if batch.terminated is None:
            raise DataError(
                "the batch does not say where episodes end (Batch.terminated is None), and the value of "
                "replayed rows depends on it; give it, or set behaviour.replay_value to 0"
            )
        last = _last(batch, batch.terminated)
        live = (~batch.terminated[:, 1:]).float() * gamma
        lam = (~last[:, 1:]).float() * self.config.lam
        returns, current = [], bootstrap[:, -1]
        direct = batch.reward[:, 1:] + live * (1 - lam) * bootstrap[:, 1:]
        for t in range(direct.shape[1] - 1, -1, -1):
            current = direct[:, t] + live[:, t] * lam[:, t] * current
            returns.append(current)
        features = self.model.features(posterior)[:, :-1]
        value = self.model.heads["value"](features)
        loss = self._critic_loss(value, features, torch.stack(returns[::-1], 1))
        return (~last[:, :-1]).float() * loss


def _last(batch: Batch, terminated: Tensor) -> Tensor:
    """[B, T] the last known row of an episode, whose value cannot be learnt from what follows; and padding.

    The episode ended there, or was abandoned (the next row begins another one), or padding follows. A
    window's own last row is not marked.
    """
    last = terminated if batch.truncated is None else terminated | batch.truncated
    behind = batch.is_first[:, 1:]
    if batch.mask is not None:
        last, behind = last | ~batch.mask, behind | ~batch.mask[:, 1:]
    return last | functional.pad(behind, (0, 1))


def _read(head: nn.Module, features: Features, what: str = "mean") -> Tensor:
    """[M, n] mean or mode of a head in states [M, n, F].

    State by state: all that goes on inside a head then fits the processor's cache.
    """
    return torch.stack([getattr(head(each), what) for each in unbind(features, 1)], 1)


def _without_gradient(state: Latent) -> Latent:
    """The same drawn state, its choices kept as indices, which are faster to multiply with."""
    if not isinstance(state.belief, Categorical):
        return state
    return state.replace(stoch=Choices.of(state.stoch, state.belief.log_probs.shape[-1]))


@contextmanager
def _frozen(module: nn.Module, but: str = "") -> Iterator[None]:
    """No parameter of `module` takes part in gradients of what is computed inside, but head `but`'s."""
    spared = f"heads.{but}."
    chosen = [p for n, p in module.named_parameters() if not (but and n.startswith(spared))]
    was = [p.requires_grad for p in chosen]
    try:
        for p in chosen:
            p.requires_grad_(False)
        yield
    finally:
        for p, flag in zip(chosen, was, strict=True):
            p.requires_grad_(flag)
