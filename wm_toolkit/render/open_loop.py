"""Open-loop dreams beside what happened: filter the beginning, dream on with the recorded actions."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import torch
from torch import Tensor

from wm_toolkit.batch import Batch
from wm_toolkit.errors import ShapeError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class HorizonError:
    """Open-loop error 1 ... H steps ahead, usually in units of the variance of what is compared.

    Attributes:
        model: [H] of the dream.
        copy: [H] of repeating what was last seen, the baseline every model must beat.
    """

    model: tuple[float, ...]
    copy: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class OpenLoop(Struct):
    """A dream beside what happened.

    Attributes:
        batch: [B, T] what happened.
        seen: [B, T] states, filtered from all of it.
        dreamt: [B, T - context] states of the dream, for the rows behind the context.
        ahead: [B, T - context] bool, rows that can be compared: real ones, of the episode in which the
            dream began.
        context: rows that were observed before the dream.
    """

    batch: Batch
    seen: Any
    dreamt: Any
    ahead: Tensor
    context: int


@runtime_checkable
class Drawn(Protocol):
    """A state that knows what its random part was drawn from."""

    @property
    def belief(self) -> Any:
        """A distribution with `kl(other)`."""
        ...


@torch.no_grad()
def open_loop(
    model: WorldModel,
    batch: Batch,
    *,
    context: int = 5,
    generator: torch.Generator | None = None,
) -> OpenLoop:
    """Observe the first rows of windows, then dream on with the actions that were taken.

    Args:
        model: any world model; its mode is left as it is.
        batch: [B, T] recorded windows; rows behind the end of an episode are not compared.
        context: rows observed before the dream begins.
        generator: for stochastic models; by default one that is seeded with 0.

    Raises:
        ShapeError: if the windows leave nothing to dream.
    """
    length = batch.action.shape[1]
    if not 1 <= context < length:
        raise ShapeError(f"context is {context}, expected 1 to {length - 1} in windows of {length}")
    batch = batch.to(model.device)
    generator = generator or torch.Generator(model.device).manual_seed(0)
    training = model.training
    model.eval()
    seen = model.observe_sequence(batch, generator=generator)
    actions = batch.action[:, None, context - 1 : length - 1]
    dreamt = model.rollout(seen[:, context - 1], actions, generator=generator)[:, 0]
    model.train(training)
    ahead = batch.is_first[:, context:].cumsum(1) == 0
    if batch.mask is not None:
        ahead = ahead & batch.mask[:, context:].bool()
    return OpenLoop(batch, seen, dreamt, ahead, context)


@torch.no_grad()
def latent_error(model: WorldModel, loop: OpenLoop) -> HorizonError:
    """How far dreamt states lie from filtered ones.

    error(k) = E |g(dreamt k) - g(seen k)|^2 / Var g(seen), g = `goal_features`, Var summed over width.
    """
    return _squared(loop, model.goal_features(loop.seen), model.goal_features(loop.dreamt))


def belief_error(loop: OpenLoop) -> HorizonError | None:
    """How surprising what was seen is to the dream: KL(posterior || dreamt prior), in nats.

    The baseline repeats the last posterior. None for models whose states are not drawn.
    """
    if not isinstance(loop.seen, Drawn):
        return None
    posterior = loop.seen.belief
    ahead, last = posterior[:, loop.context :], posterior[:, loop.context - 1 : loop.context]
    return HorizonError(
        _by_horizon(ahead.kl(loop.dreamt.belief), loop.ahead),
        _by_horizon(ahead.kl(last), loop.ahead),
    )


@torch.no_grad()
def observation_errors(model: WorldModel, loop: OpenLoop) -> dict[str, HorizonError]:
    """How far decoded observations lie from those seen, by key; none without a decoder.

    Squared error in units of the variance; for choices and bits the share that is wrong.
    """
    if "decoder" not in model.heads:
        return {}
    drawn = model.decode(loop.dreamt)
    return {
        key: _choices(loop, loop.batch.obs[key], guess)
        if isinstance(model.spaces.observation.get(key), _CHOICES)
        else _squared(loop, loop.batch.obs[key], guess)
        for key, guess in drawn.items()
        if key in loop.batch.obs
    }


_CHOICES = gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary


def _choices(loop: OpenLoop, truth: Tensor, guess: Tensor) -> HorizonError:
    """Share of wrong choices: truth [B, T, ...], guesses [B, T - context, ...]."""
    truth, guess = (x.reshape(*x.shape[:2], -1) for x in (truth, guess))
    ahead, last = truth[:, loop.context :], truth[:, loop.context - 1 : loop.context]
    return HorizonError(
        _by_horizon((guess != ahead).float().mean(-1), loop.ahead),
        _by_horizon((last != ahead).float().mean(-1), loop.ahead),
    )


def _squared(loop: OpenLoop, truth: Tensor, guess: Tensor) -> HorizonError:
    """Squared error over variance: truth [B, T, ...], guesses [B, T - context, ...]."""
    if truth.shape[2:] != guess.shape[2:]:
        raise ShapeError(f"the decoder draws {list(guess.shape)}, seen was {list(truth.shape)}")
    truth, guess = (x.reshape(*x.shape[:2], -1).float() for x in (truth, guess))
    ahead, last = truth[:, loop.context :], truth[:, loop.context - 1 : loop.context]
    begun = torch.ones_like(loop.ahead[:, :1]).expand(-1, loop.context)
    compared = truth[torch.cat([begun, loop.ahead], 1)]
    variance = compared.var(0, unbiased=False).sum().clamp(min=1e-12)

    def error(values: Tensor) -> tuple[float, ...]:
        return _by_horizon((values - ahead).square().sum(-1) / variance, loop.ahead)

    return HorizonError(error(guess), error(last.expand_as(ahead)))


def _by_horizon(values: Tensor, ahead: Tensor) -> tuple[float, ...]:
    """Means [H] over the rows of [B, T - context] that can be compared, as far as there are any."""
    count = ahead.sum(0)
    total = torch.where(ahead, values, 0.0).double().sum(0)
    reach = int((count > 0).sum())
    return tuple((total[:reach] / count[:reach]).tolist())
