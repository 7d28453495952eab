"""Rows of dreams in one batch: the machinery of imagined environments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_toolkit.batch import Batch
from wm_toolkit.envs.decoded import VIEWS, View
from wm_toolkit.envs.rows import row_generators, row_seeds, unshare
from wm_toolkit.envs.starts import as_starts, dense_reward, find_goal, load_model
from wm_toolkit.errors import ConfigError, MissingHeadError, did_you_mean
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.objective import GOAL, Objective
from wm_toolkit.structs import cat

READS = {"Goal": None, "ActionCost": None, "Survival": "continue", "Reward": "reward"}
"""The head that an objective reads at every step, or None."""
BANK = 1024  # stored frames among which rendering looks for the nearest one

Termination = Literal["sampled", "likely"]


class Dream:
    """`rows` dreams in one batch.

    Args:
        model, objective, starts, goals: as in `WorldModelEnv`; each may be a `Shared`.
        rows: N.
        horizon: steps until truncation.
        context: frames of a data set that are observed before the dream.
        device: where the model runs.
        observation, termination, temperature: as in `WorldModelEnv`.

    Attributes:
        space: of one row's observation.
        action_space: of one row's raw action.
        start: [N] index of the start that every row's dream began from.
    """

    def __init__(
        self,
        model: Any,
        objective: Any,
        starts: Any,
        goals: Any,
        *,
        rows: int,
        horizon: int,
        context: int,
        device: str | None,
        observation: View,
        termination: Termination,
        temperature: float | None,
    ) -> None:
        if horizon < 1 or context < 1:
            raise ConfigError(f"horizon is {horizon}, context {context}; both must be at least 1")
        _one_of("observation", observation, tuple(VIEWS))
        _one_of("termination", termination, ("sampled", "likely"))
        self.termination = termination
        self.model = load_model(unshare(model)).eval()
        self.temperature = _checked(temperature, self.model)
        if device is not None:
            self.model.to(device)
        self.objective: Objective = unshare(objective)
        self.starts = as_starts(unshare(starts), self.model, context)
        self.rows, self.horizon = rows, horizon
        goal = find_goal(self.objective)
        self.draws_goals = goal is not None and goal.features is None
        given = unshare(goals)
        self.goals = self.starts if given is None else as_starts(given, self.model, 1)
        self.action_space = self.model.spaces.action
        self.start = np.zeros(rows, np.int64)
        self.elapsed = np.zeros(rows, np.int64)
        self._generators = row_generators(None, rows)
        self._noise = torch.Generator(self.model.device)
        self._noise.seed()
        self._state: Any = None
        self._goal_obs: dict[str, Tensor] = {}
        self._bound = self.objective
        self.begin(np.arange(rows), {})
        self._check_objective()
        with torch.no_grad():
            self._view = VIEWS[observation](self.model, self._state, self._goal())
        self.space = self._view.space

    @torch.no_grad()
    def _check_objective(self) -> None:
        """Refuse an objective that reads a head the model lacks, now and not at the first step."""
        model = self.model
        action = torch.zeros(self.rows, model.spaces.action_width, device=model.device)
        try:
            dense_reward(self._bound, model, action, self._state)
        except MissingHeadError as error:
            serves = [name for name, head in READS.items() if head in (None, *model.heads)]
            raise MissingHeadError(
                f"this model cannot serve objective={type(self.objective).__name__}: {error}. It serves "
                f"{', '.join(serves)}, and sums of these in Weighted"
            ) from error

    def seed(self, seed: int | Sequence[int | None] | None) -> None:
        """Seed every row's draws, and the model's noise; None goes on with the generators."""
        self._generators = row_generators(seed, self.rows, self._generators)
        first = row_seeds(seed, self.rows)[0]
        if first is not None:
            self._noise.manual_seed(first)

    @torch.no_grad()
    def begin(self, rows: NDArray[np.int64], chosen: Mapping[str, Any]) -> None:
        """Start new dreams in `rows` [b]; `chosen` may hold their "start" and "goal" indices [b]."""
        start = self._choose("start", rows, chosen, len(self.starts))
        self.start[rows], self.elapsed[rows] = start, 0
        batch = self.starts.gather(start).to(self.model.device)
        state = self.model.observe_sequence(batch, generator=self._noise)[:, -1]
        self._state = state if len(rows) == self.rows else self._put(self._state, rows, state)
        if self.draws_goals:
            goal = self._choose("goal", rows, chosen, len(self.goals))
            self._set_goals(rows, self.goals.gather(goal))

    def _choose(
        self, what: str, rows: NDArray[np.int64], chosen: Mapping[str, Any], size: int
    ) -> NDArray[np.int64]:
        if what not in chosen:
            return np.array([self._generators[row].integers(size) for row in rows], np.int64)
        index = np.broadcast_to(np.asarray(chosen[what], np.int64), rows.shape).copy()
        if index.min() < 0 or index.max() >= size:
            raise ConfigError(f"options[{what!r}] is {index.tolist()}, there are 0 to {size - 1}")
        return index

    def _put(self, old: Any, rows: NDArray[np.int64], new: Any) -> Any:
        """`old` [N, ...] with `new` [b, ...] in `rows`."""
        order = np.arange(self.rows)
        order[rows] = self.rows + np.arange(len(rows))
        return cat([old, new])[torch.from_numpy(order).to(self.model.device)]

    def _set_goals(self, rows: NDArray[np.int64], goals: Batch) -> None:
        """Bind the objective to the last frames of `goals` [b, T]."""
        for key in self.model.spaces.observation:
            new = goals.obs[key][:, -1].to(self.model.device)
            whole = len(rows) == self.rows
            self._goal_obs[GOAL + key] = (
                new if whole else self._put(self._goal_obs[GOAL + key], rows, new)
            )
        self._bound = self.objective.bind(self.model, self._goal_obs, generator=self._noise)

    @torch.no_grad()
    def step(
        self, actions: NDArray, skip: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """One dreamt step of every row.

        Args:
            actions: [N, ...] raw actions.
            skip: [N] rows whose outcome does not count, because they start anew.

        Returns:
            reward, terminated, truncated, [N] each.
        """
        live = np.ones(self.rows, bool) if skip is None else ~skip
        action = self.model.spaces.encode_action(actions).to(self.model.device)
        with _at(self.model, self.temperature):
            self._state = self.model.imagine(self._state, action, generator=self._noise)
        self.elapsed += 1
        reward = dense_reward(self._bound, self.model, action, self._state)
        reward = np.where(live, reward.double().cpu().numpy(), 0.0)
        truncated = live & (self.elapsed >= self.horizon)
        return reward, self._draw_ends(live), truncated

    def _draw_ends(self, live: NDArray[np.bool_]) -> NDArray[np.bool_]:
        ended = np.zeros(self.rows, bool)
        if "continue" in self.model.heads:
            goes_on = self.model.continues(self._state).cpu().numpy()
            for row in np.flatnonzero(live):
                drawn = self._generators[row].random() if self.termination == "sampled" else 0.5
                ended[row] = drawn >= goes_on[row]
        return ended

    @torch.no_grad()
    def observation(self) -> Any:
        """[N, ...] what is shown of the present states."""
        return self._view(self._state, self._goal())

    def _goal(self) -> Tensor | None:
        """[N, G] the goals' features, if they are drawn."""
        goal = find_goal(self._bound)
        return goal.features if self.draws_goals and goal is not None else None

    # -- rendering -------------------------------------------------------------------------------
    def check_render_mode(self, render_mode: str | None) -> str | None:
        """The render mode, refused if nothing can be shown."""
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode is {render_mode!r}, expected 'rgb_array' or None")
        if render_mode and self._drawn() is None and self._image_key() is None:
            raise ConfigError(
                "there is nothing to render: the model draws no image, and starts have none"
            )
        return render_mode

    @torch.no_grad()
    def render(self) -> NDArray[np.uint8]:
        """[N, h, w, C] images of the present states."""
        picture = self._drawn()
        if picture is not None:
            return picture.cpu().numpy()
        features, images = self._bank()
        nearest = torch.cdist(self.model.features(self._state).float(), features).argmin(-1)
        return images[nearest.cpu()].numpy()

    def _drawn(self) -> Tensor | None:
        """[N, h, w, C] the first image that the model's decoder draws, if it draws any."""
        if "decoder" not in self.model.heads:
            return None
        drawn = self.model.decode(self._state).values()
        return next((x for x in drawn if x.dtype == torch.uint8 and x.ndim == 4), None)

    def _image_key(self) -> str | None:
        obs = self.starts.gather(np.zeros(1, np.int64)).obs
        return next((k for k, v in obs.items() if v.dtype == torch.uint8 and v.ndim == 5), None)

    def _bank(self) -> tuple[Tensor, Tensor]:
        """Features [M, F] and images [M, h, w, C] of stored frames, made at the first call."""
        if not hasattr(self, "_stored"):
            key = self._image_key()
            assert key is not None
            count = min(BANK, len(self.starts))
            batch = self.starts.gather(np.linspace(0, len(self.starts) - 1, count).astype(np.int64))
            batch = batch.to(self.model.device)
            state = self.model.observe_sequence(batch, generator=self._noise)[:, -1]
            self._stored = self.model.features(state).float(), batch.obs[key][:, -1].cpu()
        return self._stored


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}.{did_you_mean(value, known)}")


def _checked(temperature: float | None, model: WorldModel) -> float | None:
    if temperature is None:
        return None
    if model.temperature is None:
        raise ConfigError(
            f"{type(model).__name__} dreams without a temperature; leave temperature={temperature} out"
        )
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature}, expected above 0")
    return temperature


@contextmanager
def _at(model: WorldModel, temperature: float | None) -> Iterator[None]:
    """Let the model dream at a temperature inside the block; it may be shared with other dreams."""
    before = model.temperature
    model.temperature = before if temperature is None else temperature
    try:
        yield
    finally:
        model.temperature = before
