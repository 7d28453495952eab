"""The recurrent state-space model of PlaNet and Dreamer V1 to V3: one deterministic and one random part.

    h_t = core(h_{t-1}, s_{t-1}, a_{t-1})            deterministic
    s_t ~ posterior(h_t, e_t)                        with the embedded observation e_t
    s_t ~ prior(h_t)                                 in a dream

Hafner et al. 2019 (PlaNet: Gaussian s, GRU), 2021 (Dreamer V2: categorical s), 2025 (Dreamer V3: block GRU).
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_toolkit.losses.kl import kl_categorical, kl_normal
from wm_toolkit.nn.choices import Choices
from wm_toolkit.nn.dense import dense
from wm_toolkit.nn.gru import BlockGRU
from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class Gaussian(Struct):
    """A diagonal Gaussian over s.

    Attributes:
        mean: [..., Z].
        std: [..., Z].
    """

    mean: Tensor
    std: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., Z] reparameterised draw."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return torch.addcmul(self.mean, self.std, noise)

    @property
    def mode(self) -> Tensor:
        """[..., Z] the mean."""
        return self.mean

    def kl(self, other: Gaussian) -> Tensor:
        """[...] KL(self || other) in nats."""
        return kl_normal(self.mean, self.std, other.mean, other.std)

    def entropy(self) -> Tensor:
        """[...] in nats."""
        return (self.std.log() + 0.5 * (1 + math.log(2 * math.pi))).sum(-1)


@dataclasses.dataclass(frozen=True)
class Categorical(Struct):
    """Independent categoricals over s.

    Attributes:
        log_probs: [..., G, K] normalised.
    """

    log_probs: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., G K] one-hot draws; their gradient is the probabilities' (straight through)."""
        drawn = self.choose(generator).tensor
        if not self.log_probs.requires_grad:
            return drawn
        probs = self.log_probs.exp().flatten(-2)
        return drawn + (probs - probs.detach())

    @torch.no_grad()
    def choose(self, generator: torch.Generator | None = None) -> Choices:
        """Draws [..., G K] as indices, without gradient."""
        # The first class up to which the chances exceed a uniform number: one number for a group, not K.
        reached = self.log_probs.exp().cumsum(-1)
        level = torch.empty_like(reached[..., :1]).uniform_(generator=generator)
        index = (reached <= level.mul_(reached[..., -1:])).sum(-1).clamp_(max=reached.shape[-1] - 1)
        return Choices(None, index, reached.shape[-1])

    @property
    def mode(self) -> Tensor:
        """[..., G K] one-hot of the likeliest classes."""
        return Choices(None, self.log_probs.argmax(-1), self.log_probs.shape[-1]).tensor

    def kl(self, other: Categorical) -> Tensor:
        """[...] KL(self || other) in nats."""
        return kl_categorical(self.log_probs, other.log_probs)

    def entropy(self) -> Tensor:
        """[...] in nats, summed over the groups."""
        return -(self.log_probs.exp() * self.log_probs).sum((-2, -1))


Belief = Gaussian | Categorical


@dataclasses.dataclass(frozen=True)
class GaussianBelief:
    """Means and raw deviations [..., 2 Z] into a Gaussian; std = softplus(raw) + least."""

    width: int = 30
    least: float = 0.1

    @property
    def inputs(self) -> int:
        """2 Z."""
        return 2 * self.width

    @property
    def column(self) -> tuple[tuple[int, ...], str]:
        """Shape and type in which a draw is stored."""
        return (self.width,), "float16"

    def encode(self, stoch: Tensor) -> Tensor:
        """[..., Z] in the form in which it is stored."""
        return stoch.half()

    def decode(self, stored: Tensor) -> Tensor:
        """[..., Z] out of it."""
        return stored.float()

    def __call__(self, x: Tensor) -> Gaussian:
        mean, raw = x.float().chunk(2, -1)
        return Gaussian(mean, functional.softplus(raw) + self.least)


@dataclasses.dataclass(frozen=True)
class CategoricalBelief:
    """Logits [..., G K] into categoricals, mixed with a share of the uniform distribution."""

    groups: int = 32
    classes: int = 32
    unimix: float = 0.01

    @property
    def width(self) -> int:
        """G K."""
        return self.groups * self.classes

    @property
    def inputs(self) -> int:
        """G K."""
        return self.width

    @property
    def column(self) -> tuple[tuple[int, ...], str]:
        """Shape and type in which a draw is stored: the classes' numbers."""
        return (self.groups,), "uint8" if self.classes <= 256 else "int16"

    def encode(self, stoch: Tensor) -> Tensor:
        """[..., G] classes of one-hot draws [..., G K]."""
        classes = stoch.unflatten(-1, (self.groups, self.classes)).argmax(-1)
        return classes.to(torch.uint8 if self.classes <= 256 else torch.int16)

    def decode(self, stored: Tensor) -> Tensor:
        """[..., G K] one-hot draws of classes [..., G]."""
        return Choices(None, stored.long(), self.classes).tensor

    def __call__(self, x: Tensor) -> Categorical:
        logits = x.unflatten(-1, (self.groups, self.classes)).float()
        if not self.unimix:
            return Categorical(logits.log_softmax(-1))
        probs = logits.softmax(-1) * (1 - self.unimix) + self.unimix / self.classes
        return Categorical(probs.log())


@dataclasses.dataclass(frozen=True)
class Latent(Struct):
    """The state.

    Attributes:
        deter: [..., D] deterministic part h.
        stoch: [..., Z] random part s, drawn; `Choices` inside a dream that no gradient passes through.
        belief: what it was drawn from.
    """

    deter: Tensor
    stoch: Any
    belief: Belief


Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""h [B, D], s [B, Z] and the embedded action to the next h [B, D]."""


class Core(nn.Module, ABC):
    """One deterministic step; the action's share can be computed for a whole sequence at once.

    Attributes:
        width: D.
    """

    width: int

    @abstractmethod
    def embed(self, action: Tensor) -> Tensor:
        """[..., A] into what `step` takes."""

    @abstractmethod
    def step(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """[B, D] after h [B, D], s [B, Z] and the embedded action."""

    def unrolled(self) -> Step:
        """`step`, for many steps in a row: what does not change from one to the next is done once."""
        return self.step

    @property
    @abstractmethod
    def recurrent(self) -> nn.Module:
        """The cell, which a compiler may take by itself."""


def bounded(action: Tensor) -> Tensor:
    """[..., A] with numbers beyond [-1, 1] scaled back to its ends, without gradient through the scale.

    Dreamer V3's policy draws numbers without bounds and the environment clips them: so the model sees
    what was done (Hafner et al. 2023, `action_clip`, and 2025).
    """
    return action / action.detach().abs().clamp(min=1.0)


class BlockCore(Core):
    """Dreamer V3's core: three embeddings of width U, mixed by a block-diagonal GRU.

    Args:
        stoch: Z.
        action: A.
        width: D.
        hidden: U.
        groups: blocks.
    """

    def __init__(
        self, stoch: int, action: int, *, width: int, hidden: int, groups: int = 8
    ) -> None:
        super().__init__()
        self.width = width
        self.deter, self.stoch = dense(width, hidden), dense(stoch, hidden)
        self.action = dense(action, hidden)
        self.gru = BlockGRU(3 * hidden, width, groups=groups)

    @property
    def recurrent(self) -> nn.Module:
        """The block GRU."""
        return self.gru

    def embed(self, action: Tensor) -> Tensor:
        """[..., A] to [..., U]; actions beyond [-1, 1] are scaled back, without gradient."""
        return self.action(bounded(action))

    def step(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """[B, D]."""
        return self.unrolled()(deter, stoch, action)

    def unrolled(self) -> Step:
        """As `step`."""
        weights = self.gru.weights()

        def step(deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
            parts = [self.deter(deter), self.stoch(stoch), action]
            return self.gru(torch.cat(parts, -1), deter, weights)

        return step


class DenseCore(Core):
    """The core of PlaNet, Dreamer V1 and V2 (and V3's preprint): one layer, then a dense GRU.

    Args:
        cell: GRU (x [B, U], h [B, D]) -> [B, D].
        layer: [..., Z + A] to [..., U].
        width: D.
        bound: scale actions beyond [-1, 1] back (V3's preprint, whose policy is not squashed).
    """

    def __init__(
        self, cell: nn.Module, layer: nn.Module, width: int, *, bound: bool = False
    ) -> None:
        super().__init__()
        self.cell, self.layer, self.width, self.bound = cell, layer, width, bound

    @property
    def recurrent(self) -> nn.Module:
        """The dense cell."""
        return self.cell

    def embed(self, action: Tensor) -> Tensor:
        """[..., A] as it is, or bounded."""
        return bounded(action) if self.bound else action

    def step(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """[B, D]."""
        return self.cell(self.layer(torch.cat([stoch, action], -1)), deter)


class RSSM(nn.Module):
    """Core, prior and posterior.

    Args:
        core: the deterministic step.
        prior: [..., D] to the belief's inputs.
        posterior: [..., D + E] to the belief's inputs.
        belief: kind and size of s.
        learned_initial: begin with h = tanh of a learnt vector and s the prior's mode there (V3's
            preprint), not with zeros.
    """

    def __init__(
        self,
        core: Core,
        prior: nn.Module,
        posterior: nn.Module,
        belief: GaussianBelief | CategoricalBelief,
        *,
        learned_initial: bool = False,
    ) -> None:
        super().__init__()
        self.core, self.prior_net, self.posterior_net = core, prior, posterior
        self.belief = belief
        self.start = nn.Parameter(torch.zeros(core.width)) if learned_initial else None

    @property
    def width(self) -> int:
        """D + Z."""
        return self.core.width + self.belief.width

    def initial(self, batch_size: int, like: Tensor) -> Latent:
        """The state before anything was seen, [batch_size], on the device of `like`."""
        if self.start is None:
            deter = like.new_zeros(batch_size, self.core.width)
            belief = self.belief(like.new_zeros(batch_size, self.belief.inputs))
            return Latent(deter, like.new_zeros(batch_size, self.belief.width), belief)
        deter = self.start.tanh().expand(batch_size, -1)
        belief = self.prior(deter)
        return Latent(deter, belief.mode, belief)

    @property
    def columns(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type of what is stored of a state: h in half precision, and s."""
        return {"deter": ((self.core.width,), "float16"), "stoch": self.belief.column}

    def encode(self, state: Latent) -> dict[str, Tensor]:
        """States [...] in the form in which they are stored."""
        return {"deter": state.deter.half(), "stoch": self.belief.encode(state.stoch)}

    def decode(self, stored: Mapping[str, Tensor]) -> Latent:
        """States [B] to go on from; what they were drawn from is not stored."""
        deter = stored["deter"].float()
        belief = self.belief(deter.new_zeros(len(deter), self.belief.inputs))
        return Latent(deter, self.belief.decode(stored["stoch"]), belief)

    def prior(self, deter: Tensor) -> Belief:
        """[..., D] to the belief without an observation."""
        return self.belief(self.prior_net(deter))

    def posterior(self, deter: Tensor, embedding: Tensor) -> Belief:
        """[..., D] and [..., E] to the belief with one."""
        return self.belief(self.posterior_net(torch.cat([deter, embedding], -1)))

    def observe(
        self,
        state: Latent,
        action: Tensor,
        embedding: Tensor,
        generator: torch.Generator | None = None,
        *,
        step: Step | None = None,
    ) -> Latent:
        """One real step: [B], embedded action, [B, E] to [B]; `step` is the core's, unrolled."""
        deter = (step or self.core.step)(state.deter, state.stoch, action)
        belief = self.posterior(deter, embedding)
        return Latent(deter, belief.sample(generator), belief)

    def imagine(
        self,
        state: Latent,
        action: Tensor,
        generator: torch.Generator | None = None,
        *,
        step: Step | None = None,
    ) -> Latent:
        """One dreamt step: [B] and embedded action to [B]; `step` is the core's, unrolled.

        A state whose s is given as `Choices` leads to one of that kind.
        """
        deter = (step or self.core.step)(state.deter, state.stoch, action)
        belief = self.prior(deter)
        if isinstance(belief, Categorical) and isinstance(state.stoch, Choices):
            return Latent(deter, belief.choose(generator), belief)
        return Latent(deter, belief.sample(generator), belief)
