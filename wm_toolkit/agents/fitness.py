"""What controllers are worth: their return in dreams, or in the real environment."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from wm_toolkit.batch import Batch
from wm_toolkit.envs.dream import Termination
from wm_toolkit.envs.imagined import WorldModelVectorEnv
from wm_toolkit.envs.latent import LatentObservationVector
from wm_toolkit.envs.rows import over
from wm_toolkit.errors import ConfigError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.nn.draws import DrawnAmong
from wm_toolkit.planning.objective import Objective


class Fitness(Protocol):
    """Measures candidates side by side; more is better."""

    def __call__(self, members: Tensor, batch: Batch, *, seed: int) -> Tensor:
        """[P] worth of members [P, n], the parameters of one candidate each.

        Args:
            members: parameter vectors, in the order of `nn.utils.parameters_to_vector`.
            batch: [R, T] what the update was given.
            seed: of everything random; all members meet the same chances as far as they can.
        """
        ...


class DreamFitness:
    """Mean return of policies in the model's dreams; nothing real is touched.

    Every member dreams once from every sequence of the batch, all in one batch of P x R dreams.

    Args:
        model: with the policy among its heads.
        objective: what a dream rewards.
        horizon: steps after which a dream is cut.
        termination: as in `WorldModelEnv`.
        policy: name of the head.
    """

    def __init__(
        self,
        model: WorldModel,
        objective: Objective,
        *,
        horizon: int,
        termination: Termination = "sampled",
        policy: str = "policy",
    ) -> None:
        self.model, self.objective, self.horizon = model, objective, horizon
        self.termination: Termination = termination
        self.policy = policy

    def __call__(self, members: Tensor, batch: Batch, *, seed: int) -> Tensor:
        """[P] mean over the R dreams of each member."""
        rows = len(members) * len(batch)
        envs = WorldModelVectorEnv(
            rows,
            model=self.model,
            objective=self.objective,
            starts=batch,
            horizon=self.horizon,
            termination=self.termination,
        )
        start = np.tile(np.arange(len(batch)), len(members))
        obs, _ = envs.reset(seed=_shared(seed, rows, len(batch)), options={"start": start})
        returns, _ = _episodes(envs, obs, self.model, self.policy, members)
        return returns.view(len(members), -1).mean(-1)


class EnvFitness:
    """Mean return of policies in a real environment, seen through the model.

    Every member plays `episodes` of them, all members the same ones, `group` side by side. A member's worth
    does not depend on the size of a group. The environments are opened when they are first needed and used
    again from then on; `close` closes them, and so does the end of this object or of the process.

    Args:
        model: with the policy among its heads.
        open_envs: from a number of rows to a vector environment whose ended rows restart on the next
            step, and which can be reset with a seed for each row again and again.
        episodes: R.
        group: the most environments that are open at once.
        policy: name of the head.

    Attributes:
        steps, played: environment steps and episodes of all members so far.

    Raises:
        ConfigError: if episodes or group is below 1.
    """

    def __init__(
        self,
        model: WorldModel,
        open_envs: Callable[[int], gym.vector.VectorEnv],
        *,
        episodes: int = 16,
        group: int = 16,
        policy: str = "policy",
    ) -> None:
        if episodes < 1 or group < 1:
            raise ConfigError(
                f"episodes is {episodes} and group {group}; expected at least 1 of each"
            )
        self.model, self.open_envs = model, open_envs
        self.episodes, self.group, self.policy = episodes, group, policy
        self.steps = self.played = 0
        self._envs: LatentObservationVector | None = None
        self._closing: Callable[[], object] = lambda: None

    def __call__(self, members: Tensor, batch: Batch, *, seed: int) -> Tensor:
        """[P] mean over the R episodes of each member; the batch is not needed."""
        total = len(members) * self.episodes
        seeds, returns = _shared(seed, total, self.episodes), torch.zeros(total, dtype=torch.double)
        lengths = torch.zeros(total, dtype=torch.long)
        envs = self._opened(min(total, self.group))
        for first in range(0, total, envs.num_envs):
            # Whoever is left over in the last group plays its last episode once more.
            rows = np.minimum(first + np.arange(envs.num_envs), total - 1).tolist()
            options = {"noise_seed": seeds[0]}
            with DrawnAmong(total, rows):
                obs, _ = envs.reset(seed=[seeds[row] for row in rows], options=options)
                whose = torch.tensor(rows) // self.episodes
                found = _episodes(envs, obs, self.model, self.policy, members[whose])
                returns[rows], lengths[rows] = found
        self.steps, self.played = self.steps + int(lengths.sum()), self.played + total
        return returns.view(len(members), -1).mean(-1)

    def close(self) -> None:
        """Close the environments; the next call opens them again."""
        if self._envs is not None:
            self._closing()
            self._envs = None

    def _opened(self, rows: int) -> LatentObservationVector:
        """At least so many environments, those that are open if they are enough."""
        if self._envs is not None and self._envs.num_envs < rows:
            self.close()
        if self._envs is None:
            envs = self.open_envs(rows)
            self._closing = weakref.finalize(self, envs.close)
            self._envs = LatentObservationVector(envs, self.model)
        return self._envs


def member_actions(head: nn.Module, members: Tensor, features: Tensor) -> Tensor:
    """Every member's decisions.

    Args:
        head: a policy head; its parameters are replaced by each member's.
        members: [P, n] parameter vectors.
        features: [P * R, F], the R rows of a member side by side.

    Returns:
        [P * R, A] modes.
    """
    shapes = {name: p.shape for name, p in head.named_parameters()}
    pieces = members.split([shape.numel() for shape in shapes.values()], -1)
    parameters = {
        name: piece.unflatten(-1, shape)
        for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }

    def one(own: dict[str, Tensor], rows: Tensor) -> Tensor:
        return functional_call(head, own, (rows,)).mode

    return vmap(one)(parameters, features.unflatten(0, (len(members), -1))).flatten(0, 1)


@torch.no_grad()
def _episodes(
    envs: gym.vector.VectorEnv, obs: NDArray, model: WorldModel, policy: str, members: Tensor
) -> tuple[Tensor, Tensor]:
    """[P * R] return and steps of the first episode in each member's rows; obs [P * R, F] are features."""
    total, live = np.zeros(envs.num_envs), np.ones(envs.num_envs, bool)
    steps = np.zeros(envs.num_envs, int)
    head, members = model.heads[policy], members.to(model.device)
    while live.any():
        features = torch.as_tensor(obs, device=model.device)
        action = model.spaces.decode_action(member_actions(head, members, features))
        obs, reward, terminated, truncated, _ = envs.step(action)
        total += np.where(live, reward, 0.0)
        steps += live
        live &= ~over(terminated, truncated)
    return torch.from_numpy(total), torch.from_numpy(steps)


def _shared(seed: int, rows: int, each: int) -> Sequence[int]:
    """[rows] seeds, the same `each` for every member."""
    words = np.random.SeedSequence(seed).generate_state(each)
    return [int(words[row % each]) for row in range(rows)]
