"""World Models (Ha and Schmidhuber 2018): V sees, M remembers and dreams, C decides."""

from __future__ import annotations

import dataclasses
from typing import Literal, cast

import torch
from torch import Tensor, nn

from wm_toolkit.batch import Batch, Losses
from wm_toolkit.encoders.vae import VAEDecoder, VAEEncoder
from wm_toolkit.errors import DataError
from wm_toolkit.heads.bernoulli import Bernoulli, BernoulliHead
from wm_toolkit.heads.mixture import MixtureHead
from wm_toolkit.heads.normal import Normal
from wm_toolkit.losses.kl import free, kl_normal
from wm_toolkit.models.base import WorldModel
from wm_toolkit.nn.lstm import LSTM
from wm_toolkit.spaces import Spaces, image_shape
from wm_toolkit.structs import Struct, stack

LATENT = "latent"
"""Column of what V makes of the frames: mean and log-variance side by side, [..., 2 Z]."""

Choices = Literal["one_hot", "level"]


@dataclasses.dataclass(frozen=True)
class Memory(Struct):
    """The state.

    Attributes:
        z: [..., Z] what is seen now.
        h: [..., H] of the LSTM, which has read everything before.
        c: [..., H] its cell.
        age: [...] 0 before the first observation, 1 with it, 2 from then on.
    """

    z: Tensor
    h: Tensor
    c: Tensor
    age: Tensor


class MDNRNN(WorldModel[Memory]):
    """A variational autoencoder, and an LSTM that predicts its next code as a mixture of Gaussians.

    The features are [z, h], or [z, c, h]; the read-outs are "decoder" (the image of z), "continue"
    (of h, where endings are learnt) and whatever policy is added.

    Args:
        spaces: with one image; other observations are not read.
        latent: Z.
        width: H, units of the LSTM.
        depth: channels of V's first convolution.
        log_variance: of z at first, see `VAEEncoder`.
        components: Gaussians of a mixture.
        shared_mixture: one choice of component for all of z, not one for each number.
        restart: tell the LSTM which row an episode begins with (TakeCover).
        ending: learn where episodes terminate (TakeCover).
        cell: put c among the features (TakeCover).
        choices: how the LSTM reads a choice among n: one-hot, or as one number from -1 to 1.
        floor: nats of the divergence that are free per number of z.
        terminal_weight: of rows that terminate an episode, in the loss of the ending.

    Attributes:
        temperature: tau of dreams; 1 dreams what was learnt, more makes dreams less certain.
    """

    stochastic = True

    def __init__(
        self,
        spaces: Spaces,
        *,
        latent: int = 32,
        width: int = 256,
        depth: int = 32,
        log_variance: float = 0.0,
        components: int = 5,
        shared_mixture: bool = False,
        restart: bool = False,
        ending: bool = False,
        cell: bool = False,
        choices: Choices = "one_hot",
        floor: float = 0.5,
        terminal_weight: float = 10.0,
    ) -> None:
        super().__init__(spaces)
        self.latent, self.width, self.restart, self.cell = latent, width, restart, cell
        self.floor, self.terminal_weight, self.temperature = floor, terminal_weight, 1.0
        self.levels = spaces.action_groups if choices == "level" else ()
        self.encoder = VAEEncoder(spaces, latent, depth=depth, log_variance=log_variance)
        actions = len(self.levels) or spaces.action_width
        self.lstm = LSTM(latent + actions + restart, width)
        self.next = MixtureHead(width, latent, components=components, shared=shared_mixture)
        shape = image_shape(spaces.observation[self.encoder.key])
        self.heads["decoder"] = _Part(VAEDecoder(latent, shape, depth=depth), 0, latent)
        if ending:
            end = self.features_width
            self.heads["continue"] = _Part(BernoulliHead(width), end - width, end)

    @property
    def features_width(self) -> int:
        """F."""
        return self.latent + self.width * (2 if self.cell else 1)

    def vision(self) -> tuple[nn.Module, ...]:
        """The modules of V."""
        return self.encoder, self.heads["decoder"]

    def memory(self) -> tuple[nn.Module, ...]:
        """The modules of M."""
        ending = (self.heads["continue"],) if "continue" in self.heads else ()
        return self.lstm, self.next, *ending

    # -- the contract --------------------------------------------------------------------------------
    def initial(self, batch_size: int) -> Memory:
        """Nothing seen yet."""
        like = self.lstm.read.bias
        z, h = like.new_zeros(batch_size, self.latent), like.new_zeros(batch_size, self.width)
        return Memory(z, h, h, like.new_zeros(batch_size))

    def observe(
        self,
        state: Memory,
        action: Tensor,
        obs: dict[str, Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> Memory:
        """z [B, Z] drawn from what V makes of the image; M reads the step that led here."""
        return self._observe(state, action, self.encoder(obs), generator)

    def imagine(
        self, state: Memory, action: Tensor, *, generator: torch.Generator | None = None
    ) -> Memory:
        """z [B, Z] drawn from M's mixture after action [B, A], at the model's temperature."""
        h, c, age = self._remember(state, action)
        z = self.next(h).tempered(self.temperature).sample(generator)
        return Memory(z, h, c, age)

    def features(self, state: Memory) -> Tensor:
        """[..., F]: z and h, or z, c and h."""
        parts = (state.z, state.c, state.h) if self.cell else (state.z, state.h)
        return torch.cat(parts, -1)

    def loss(self, batch: Batch) -> Losses:
        """Terms [B, T] of V and [B, T - 1] of M; V learns nothing from M's."""
        return self.vision_loss(batch) | self.memory_loss(batch)

    # -- faster and finer ------------------------------------------------------------------------------
    def observe_sequence(
        self,
        batch: Batch,
        state: Memory | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Memory:
        """States [B, T] as of the loop in `WorldModel`; frames are encoded at once, or read from `extras`."""
        size, length = batch.action.shape[:2]
        seen, action = self.posterior(batch), batch.previous_action()
        restarts = batch.restarts()
        fresh = self.initial(size)
        current = fresh if state is None else state
        states = []
        for t in range(length):
            if restarts[t] and (t or state is not None):
                current = current.where(~batch.is_first[:, t], fresh)
            now = Normal(seen.mean[:, t], seen.std[:, t])
            current = self._observe(current, action[:, t], now, generator)
            states.append(current)
        return stack(states, 1)

    def posterior(self, batch: Batch) -> Normal:
        """[B, T, Z] what V makes of the frames, or stored of them in the column `LATENT`."""
        if LATENT in batch.extras:
            mean, log_variance = batch.extras[LATENT].chunk(2, -1)
            return Normal(mean, (0.5 * log_variance).exp())
        return self.encoder(batch.obs)

    def vision_loss(self, batch: Batch) -> Losses:
        """V: "reconstruction", squared error summed over pixels in [0, 1], and "divergence" [B, T].

        The divergence is max(KL, floor Z) in every row, before any mean.
        """
        pixels = self.encoder.pixels(batch.obs)
        mean, log_variance = self.encoder.statistics(pixels)
        seen = Normal(mean, (0.5 * log_variance).exp())
        drawn = cast(VAEDecoder, self._read_out("decoder")).pixels(seen.sample())
        kl = kl_normal(seen.mean, seen.std, torch.zeros_like(mean), torch.ones_like(mean))
        return {
            "reconstruction": (drawn - pixels).square().sum((-3, -2, -1)),
            "divergence": free(kl, self.floor * self.latent),
        }

    def memory_loss(self, batch: Batch) -> Losses:
        """M: "transition", the mixture's negative log-likelihood per number of z, and "continue".

        Every row but the first is predicted from the rows before it, [B, T - 1]; z is drawn anew from V's
        mean and deviation. What follows an episode's end is no transition and counts 0.

        Raises:
            DataError: if endings are to be learnt and the batch does not know them.
        """
        with torch.no_grad():
            z = self.posterior(batch).sample()
        h = self._read_through(z, batch)
        follows = ~batch.is_first[:, 1:]
        losses = {"transition": self.next(h).loss(z[:, 1:]) * follows}
        if "continue" in self.heads:
            losses["continue"] = self._ending_loss(h, batch) * follows
        return losses

    # -- inside ----------------------------------------------------------------------------------------
    def _observe(
        self, state: Memory, action: Tensor, seen: Normal, generator: torch.Generator | None
    ) -> Memory:
        h, c, age = self._remember(state, action)
        return Memory(seen.sample(generator), h, c, age)

    def _remember(self, state: Memory, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h, c [B, H] and age [B] behind one more step; before an episode there was none."""
        inputs = self._inputs(state.z, action, (state.age == 1).to(state.z))
        h, c = self.lstm(self.lstm.read(inputs), state.h, state.c)
        begun = (state.age > 0).unsqueeze(-1)
        return h * begun, c * begun, (state.age + 1).clamp(max=2)

    def _inputs(self, z: Tensor, action: Tensor, first: Tensor) -> Tensor:
        """[..., X] of z [..., Z], action [..., A], and whether the episode begins here [...]."""
        parts = [z, self._levels(action)]
        return torch.cat([*parts, first.unsqueeze(-1)] if self.restart else parts, -1)

    def _levels(self, action: Tensor) -> Tensor:
        """[..., A], or one number in [-1, 1] for every choice."""
        if not self.levels:
            return action
        found = []
        for choice in action.split(list(self.levels), -1):
            levels = torch.linspace(-1, 1, choice.shape[-1], device=action.device)
            found.append(choice @ levels)
        return torch.stack(found, -1)

    def _read_through(self, z: Tensor, batch: Batch) -> Tensor:
        """[B, T - 1, H] the LSTM after each row but the last; it forgets where an episode begins."""
        first, restarts = batch.is_first[:, :-1], batch.restarts()
        inputs = self._inputs(z[:, :-1], batch.action[:, :-1], first.to(z))
        h = c = z.new_zeros(len(z), self.width)
        found = []
        for t, read in enumerate(self.lstm.read(inputs).unbind(1)):
            if t and restarts[t]:
                keep = ~first[:, t].unsqueeze(-1)
                h, c = h * keep, c * keep
            h, c = self.lstm(read, h, c)
            found.append(h)
        return torch.stack(found, 1)

    def _read_out(self, name: str) -> nn.Module:
        """A head without the choice of features before it."""
        return cast(_Part, self.heads[name]).head

    def _ending_loss(self, h: Tensor, batch: Batch) -> Tensor:
        """[B, T - 1] cross entropy of going on, rows that terminate weighing more."""
        if batch.terminated is None:
            raise DataError("the batch does not say where episodes end, and this model learns it")
        ended = batch.terminated[:, 1:].to(h)
        ending: Bernoulli = self._read_out("continue")(h)
        return ending.loss(1 - ended) * (1 + (self.terminal_weight - 1) * ended)


class _Part(nn.Module):
    """A head that reads the features from `start` to `end`."""

    def __init__(self, head: nn.Module, start: int, end: int) -> None:
        super().__init__()
        self.head, self.start, self.end = head, start, end

    def forward(self, features: Tensor) -> object:
        """[..., F] to the head's output."""
        return self.head(features[..., self.start : self.end])
