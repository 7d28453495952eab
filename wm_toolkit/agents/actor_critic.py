"""Behaviour learnt in dreams: actor and critic of the Dreamer family."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from wm_toolkit.agents.model_learner import Program
from wm_toolkit.batch import Batch, Losses
from wm_toolkit.errors import ConfigError
from wm_toolkit.losses.returns import ReturnScale, lambda_return
from wm_toolkit.models.dreamer import Dreamer
from wm_toolkit.models.rssm import Latent
from wm_toolkit.structs import flatten, stack

Estimator = Literal["reinforce", "dynamics", "both"]


@dataclasses.dataclass(frozen=True)
class BehaviourConfig:
    """How actor and critic learn; the defaults are Dreamer V3's.

    Attributes:
        horizon: H, dreamt steps.
        lam: of the lambda-return.
        discount: factor on the predicted chance of going on; 1 where that is discounted already.
        estimator: gradient of the actor: "reinforce" (V3, V2 on Atari), "dynamics" through the model
            (V1, V2 on continuous actions), or a mixture of "both".
        mix: share of "reinforce" in "both".
        entropy: weight of the policy's entropy.
        normalise: divide advantages by the running range of the returns.
        slow_rate: share by which the slow critic follows.
        slow_every: updates between two steps of the slow critic.
        slow_targets: returns and baseline come from the slow critic (V2).
        slow_pull: weight of the critic's pull towards the slow critic (V3).
        replay_value: weight of the critic's loss along the replayed sequence, which also shapes the
            model (V3); 0 has none. Its discount is `replay_discount`.
        replay_discount: gamma of the replayed sequence.
    """

    horizon: int = 15
    lam: float = 0.95
    discount: float = 1.0
    estimator: Estimator = "reinforce"
    mix: float = 0.1
    entropy: float = 3e-4
    normalise: bool = True
    slow_rate: float = 0.02
    slow_every: int = 1
    slow_targets: bool = False
    slow_pull: float = 1.0
    replay_value: float = 0.3
    replay_discount: float = 1 - 1 / 333

    def __post_init__(self) -> None:
        if self.horizon < 1 or self.slow_every < 1:
            raise ConfigError(
                f"horizon is {self.horizon} and slow_every {self.slow_every}, expected at least 1"
            )


@dataclasses.dataclass(frozen=True)
class Dream:
    """What was dreamt from M states; index 0 is the state it began with.

    Attributes:
        features: [M, H + 1, F].
        actions: [M, H, A] taken in states 0 ... H - 1.
        reward: [M, H] on arriving in states 1 ... H.
        go_on: [M, H + 1] discounted chance of going on from states 0 ... H.
    """

    features: Tensor
    actions: Tensor
    reward: Tensor
    go_on: Tensor

    @property
    def weight(self) -> Tensor:
        """[M, H] chance of reaching states 0 ... H - 1 and going on, discounted."""
        return self.go_on[:, :-1].detach().cumprod(1)


class ActorCritic(Program):
    """All losses of one update: the model's on what was recorded, the behaviour's on dreams from it.

    The model's heads "policy" and "value" are the actor and the critic. Terms beside the model's are
    "policy", "value" (both [B, T], means over the dream) and "replay_value" [B, T - 1].

    Args:
        model: with those heads.
        config: how they learn.
    """

    model: Dreamer

    def __init__(self, model: Dreamer, config: BehaviourConfig | None = None) -> None:
        super().__init__(model)
        missing = {"policy", "value"} - set(model.heads)
        if missing:
            raise ConfigError(f"the model has no head {sorted(missing)}; the behaviour needs both")
        self.config = config or BehaviourConfig()
        self.slow = copy.deepcopy(model.heads["value"]).requires_grad_(False)
        self.scale = ReturnScale()

    def forward(self, batch: Batch) -> Losses:
        """The unreduced losses of [B, T] windows."""
        posterior = self.model.observe_sequence(batch)
        losses = self.model.losses(batch, posterior)
        lead = tuple(batch.action.shape[:2])
        found, returns = self.behaviour(flatten(posterior.detach(), 0, 1))
        losses |= {name: term.mean(1).unflatten(0, lead) for name, term in found.items()}
        if self.config.replay_value:
            first = returns[:, 0].unflatten(0, lead)
            losses["replay_value"] = self._replayed(batch, posterior, first)
        return losses

    def behaviour(self, start: Latent) -> tuple[Losses, Tensor]:
        """Terms "policy" and "value" [M, H] of dreams from states [M], and their returns [M, H]."""
        config = self.config
        dream = self.dream(start)
        values = self._values(dream.features)
        targets = self._values(dream.features, slow=True) if config.slow_targets else values
        returns = lambda_return(dream.reward, dream.go_on[:, 1:], targets[:, 1:], config.lam)
        known = dream.features[:, :-1].detach()
        policy = self._actor_loss(dream, known, returns, targets[:, :-1].detach())
        value = dream.weight * self._critic_loss(known, returns.detach())
        return {"policy": policy, "value": value}, returns.detach()

    def dream(self, start: Latent) -> Dream:
        """Act H times in the model from states [M]; only the actor can receive gradients."""
        through = self.config.estimator != "reinforce"
        with torch.set_grad_enabled(through), _frozen(self.model, but="policy"):
            states, actions = [start], []
            for _ in range(self.config.horizon):
                seen = self.model.features(states[-1]).detach()
                actions.append(self.model.heads["policy"](seen).sample())
                states.append(self.model.imagine(states[-1], actions[-1]))
            dreamt = stack(states, 1)
            features = self.model.features(dreamt)
            reward = self.model.predict("reward", dreamt).mean[:, 1:]
            return Dream(features, torch.stack(actions, 1), reward, self._go_on(dreamt))

    def after_update(self, update: int) -> None:
        """Let the slow critic follow."""
        if update % self.config.slow_every == 0:
            fast = self.model.heads["value"].parameters()
            with torch.no_grad():
                for mine, theirs in zip(self.slow.parameters(), fast, strict=True):
                    mine.lerp_(theirs, self.config.slow_rate)

    def _go_on(self, states: Latent) -> Tensor:
        if "continue" not in self.model.heads:
            return torch.full(
                states.deter.shape[:2], self.config.discount, device=states.deter.device
            )
        return self.config.discount * self.model.predict("continue", states).mean

    def _values(self, features: Tensor, *, slow: bool = False) -> Tensor:
        """[M, H + 1], without gradient for the critic."""
        head = self.slow if slow else self.model.heads["value"]
        with torch.set_grad_enabled(features.requires_grad), _frozen(head):
            return head(features).mean

    def _actor_loss(self, dream: Dream, known: Tensor, returns: Tensor, baseline: Tensor) -> Tensor:
        """[M, H]; `known` [M, H, F] are the states that were acted in."""
        config = self.config
        policy = self.model.heads["policy"](known)
        scale = self.scale.update(returns.detach()) if config.normalise else 1.0
        gain = torch.zeros_like(returns)
        share = {"reinforce": 1.0, "dynamics": 0.0, "both": config.mix}[config.estimator]
        if share:
            advantage = ((returns - baseline) / scale).detach()
            gain = gain + share * policy.log_prob(dream.actions.detach()) * advantage
        if share < 1:
            gain = gain + (1 - share) * returns / scale
        return -dream.weight * (gain + config.entropy * policy.entropy())

    def _critic_loss(self, features: Tensor, returns: Tensor) -> Tensor:
        """Cross entropy to the returns, and to what the slow critic says; any leading axes."""
        value = self.model.heads["value"](features)
        loss = value.loss(returns)
        if not self.config.slow_pull:
            return loss
        with torch.no_grad():
            steady = self.slow(features).mean
        return loss + self.config.slow_pull * value.loss(steady)

    def _replayed(self, batch: Batch, posterior: Latent, bootstrap: Tensor) -> Tensor:
        """[B, T - 1] the critic's loss on recorded rewards, bootstrapped by dreamt returns [B, T]."""
        assert batch.reward is not None
        assert batch.terminated is not None
        ended = batch.terminated if batch.truncated is None else batch.terminated | batch.truncated
        live = (~batch.terminated[:, 1:]).float() * self.config.replay_discount
        lam = (~ended[:, 1:]).float() * self.config.lam
        returns, current = [], bootstrap[:, -1]
        direct = batch.reward[:, 1:] + live * (1 - lam) * bootstrap[:, 1:]
        for t in range(direct.shape[1] - 1, -1, -1):
            current = direct[:, t] + live[:, t] * lam[:, t] * current
            returns.append(current)
        features = self.model.features(posterior)[:, :-1]
        loss = self._critic_loss(features, torch.stack(returns[::-1], 1))
        return (~ended[:, :-1]).float() * loss


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
