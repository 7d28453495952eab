"""The contract of every world model: five methods to write, the rest is given."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar, cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from wm_toolkit.batch import Batch, Losses
from wm_toolkit.errors import MissingHeadError
from wm_toolkit.heads.base import Output
from wm_toolkit.spaces import Spaces, is_image
from wm_toolkit.structs import Struct, stack, unflatten

StateT = TypeVar("StateT", bound=Struct)


class WorldModel(nn.Module, ABC, Generic[StateT]):
    """Filters observations into a latent state and simulates it forward.

    Subclasses define `initial`, `observe`, `imagine`, `features` and `loss`. They may override
    `observe_sequence` and `rollout` for speed; the results must stay equal to the loops given here
    (`wm_toolkit.testing.check_world_model` compares them).

    Attributes:
        spaces: observations the model reads and actions it is conditioned on.
        stochastic: whether `observe` or `imagine` draw random numbers.
        discount: what the "continue" head learns for a state that is not terminal: 1, or a discount,
            so that its mean is the discounted chance of going on (Dreamer V3).
        squash_reward: whether the "reward" head learns tanh of the rewards.
        temperature: how random `imagine` is, 1 as learnt; None for models that have no such dial.
        heads: read-outs from `features`: any of "reward", "continue", "value", "policy", "decoder" or
            a probe. A head maps [..., F] to an `Output`.
    """

    stochastic: bool = False
    discount: float = 1.0
    squash_reward: bool = False
    temperature: float | None = None
    heads: nn.ModuleDict

    def __init__(self, spaces: Spaces) -> None:
        super().__init__()
        self.spaces = spaces
        self.heads = nn.ModuleDict()

    # -- to be written ---------------------------------------------------------------------------
    @abstractmethod
    def initial(self, batch_size: int) -> StateT:
        """The state before anything was seen, [batch_size, ...] on the model's device."""

    @abstractmethod
    def observe(
        self,
        state: StateT,
        action: Tensor,
        obs: dict[str, Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> StateT:
        """Posterior: one real step.

        Args:
            state: [B] before the step.
            action: [B, A] that led here; zeros on an episode's first observation.
            obs: [B, ...] what was seen.
            generator: source of randomness, for models that sample their posterior.
        """

    @abstractmethod
    def imagine(
        self, state: StateT, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StateT:
        """Prior: one dreamt step from `state` [B] with `action` [B, A]."""

    @abstractmethod
    def features(self, state: StateT) -> Tensor:
        """The state as one flat vector [..., F], for any leading axes."""

    @abstractmethod
    def loss(self, batch: Batch) -> Losses:
        """Unreduced loss terms, [B, T] each, or [] for statistics of the whole batch."""

    # -- given -------------------------------------------------------------------------------------
    def observe_sequence(
        self,
        batch: Batch,
        state: StateT | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> StateT:
        """Filter a batch of windows; the state restarts wherever `is_first`.

        Args:
            batch: [B, T].
            state: [B] at the row before the window; default `initial`, whose filters see the
                window's first row as a beginning.
            generator: source of randomness.

        Returns:
            [B, T] posterior states.
        """
        size, length = batch.action.shape[:2]
        carried = state is not None
        current = self.initial(size) if state is None else state
        action = batch.previous_action()
        restarts = batch.restarts()
        states = []
        for t in range(length):
            if (t or carried) and restarts[t]:
                first = batch.is_first[:, t]
                current = current.where(~first, self.initial(size))
            obs = {key: value[:, t] for key, value in batch.obs.items()}
            current = self.observe(current, action[:, t], obs, generator=generator)
            states.append(current)
        return stack(states, 1)

    def rollout(
        self, state: StateT, actions: Tensor, *, generator: torch.Generator | None = None
    ) -> StateT:
        """Dream along given actions.

        Args:
            state: [B] to start from.
            actions: [B, N, H, A] candidate plans.

        Returns:
            [B, N, H] the state each action leads to.
        """
        size, candidates, horizon, _ = actions.shape
        current = state.repeat(candidates)
        flat = actions.flatten(0, 1)
        states = []
        for t in range(horizon):
            current = self.imagine(current, flat[:, t], generator=generator)
            states.append(current)
        return unflatten(stack(states, 1), 0, (size, candidates))

    def goal_features(self, state: StateT) -> Tensor:
        """[..., G] what a `Goal` compares by squared distance; by default the features."""
        return self.features(state)

    def stored_features(self) -> dict[str, dict[str, Any]]:
        """Columns of encoded frames that `loss` and `observe_sequence` read instead of the frames.

        A data set may hold what a frozen encoder makes of its frames, computed once. A model that can
        learn from such a column finds it in `batch.extras` and then needs no `batch.obs[key]`. Acting
        always encodes frames.

        Returns:
            {column: identity}, such as {"features/image": {"encoder": "dinov2", ..., "key": "image",
            "dtype": "float16"}}: the observation it stands for, the type of its numbers, and all that
            decides them. Training reads the column only where the data set's identity is equal. Models
            whose encoder learns have none.
        """
        return {}

    def fit_inputs(
        self, statistics: Mapping[str, tuple[Tensor, Tensor]], batches: Iterable[Batch]
    ) -> None:
        """Fix how the model standardises what it reads, once, before the first update.

        Models that standardise nothing have nothing to do.

        Args:
            statistics: mean and deviation of columns of the training data, such as "obs/proprio".
            batches: some training windows [B, T], for what only the model can measure.
        """

    # -- final ---------------------------------------------------------------------------------------
    def predict(self, head: str, state: StateT) -> Output:
        """Read one head off a state with any leading axes.

        Raises:
            MissingHeadError: naming the heads there are.
        """
        if head not in self.heads:
            raise MissingHeadError(
                f"{type(self).__name__} has no {head!r} head (it has: "
                f"{', '.join(self.heads) or 'none'}). Use an objective that needs none, such as "
                f'Goal(), or attach one: model.heads["{head}"] = NormalHead(...)'
            )
        return cast(Output, self.heads[head](self.features(state)))

    def continues(self, state: StateT) -> Tensor:
        """[...] probability that the episode goes on from a state [...], off the "continue" head.

        A discount that the head was taught is taken out again.

        Raises:
            MissingHeadError: if there is no such head.
        """
        return (self.predict("continue", state).mean / self.discount).clamp(max=1.0)

    def decode(self, state: StateT) -> dict[str, Tensor]:
        """Observations off the "decoder" head, in the form in which the environment hands them over.

        Returns:
            [..., *shape] per key: uint8 images [..., h, w, C], the likeliest of choices as int64 and of
            bits as int8, the expectation of numbers.

        Raises:
            MissingHeadError: if there is no such head.
        """
        output: Any = self.predict("decoder", state)
        parts = getattr(output, "parts", None)
        if parts is None:  # a decoder of one picture
            seen = (key for key, space in self.spaces.observation.items() if is_image(space))
            parts = {next(seen, "image"): output}
        return {
            key: _observed(part, self.spaces.observation.get(key)) for key, part in parts.items()
        }

    def forward(self, batch: Batch) -> Losses:
        """The loss of [B, T] windows; the only entry that distributed wrappers see."""
        return self.loss(batch)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        tensor = next(itertools.chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Make running statistics right before evaluation, from training batches [B, T].

        Models without running statistics have nothing to do.
        """

    def microbatches(self, pieces: int) -> bool:
        """Ask the model to do its per-frame work in `pieces`, for losses that need the whole batch.

        A model whose loss holds batch statistics (SIGReg, BatchNorm) cannot be accumulated over
        smaller batches: the statistic would change. Such a model returns True and recomputes the
        expensive per-frame part piece by piece in the backward pass, with exactly the same result.
        """
        return False


def _observed(part: Output, space: gym.Space | None) -> Tensor:
    """A decoded observation [..., *shape] as it would be seen; without a space it is an image."""
    if isinstance(space, gym.spaces.Discrete):
        return part.mode.argmax(-1)
    if isinstance(space, gym.spaces.MultiDiscrete):
        each = part.mode.split(space.nvec.ravel().tolist(), -1)
        return _shaped(torch.stack([one.argmax(-1) for one in each], -1), space)
    if isinstance(space, gym.spaces.MultiBinary):
        return _shaped(part.mode.to(torch.int8), space)
    if space is None or is_image(space):
        return part.mean.clamp(0, 1).mul(255).round().to(torch.uint8)
    if isinstance(space, gym.spaces.Box) and space.dtype.kind in "iub":
        return _counted(_shaped(part.mean, space), space)
    return part.mean if space is None else _shaped(part.mean, space)


def _shaped(flat: Tensor, space: gym.Space) -> Tensor:
    """[..., V] numbers side by side as [..., *shape] of the space."""
    shape = tuple(space.shape or ())
    return flat if len(shape) == 1 else flat.reshape(*flat.shape[:-1], *shape)


def _counted(mean: Tensor, space: gym.spaces.Box) -> Tensor:
    """[..., *shape] the nearest whole numbers or flags of a space."""
    low, high = (
        torch.from_numpy(bound.astype(np.float32)).to(mean) for bound in (space.low, space.high)
    )
    whole = mean.round().clamp(low, high)
    return whole.to(torch.from_numpy(np.zeros(0, space.dtype)).dtype)
