"""Where goals come from: held-out episodes replayed in the environment, its own sampler, image files.

A sampler is any callable `(env, rng, count) -> Goals`. `env` is the unwrapped environment: for a vector
environment of N rows count is N and all rows are worked on at once; for a single one count is 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.rows import over
from wm_toolkit.errors import ConfigError, DataError, MissingGoalError, did_you_mean
from wm_toolkit.spaces import Spaces, flat_obs, flat_space, is_image

if TYPE_CHECKING:
    from wm_toolkit.data.dataset import TrajectoryDataset
    from wm_toolkit.models.base import WorldModel


@runtime_checkable
class Stateful(Protocol):
    """An environment that can be put into a state, as replaying a segment needs.

    It also understands `reset(options={"state": ..., "goal": ...})`: start in that state, with that goal
    state as the one its reward and `info["success"]` speak of. Left out, it draws both itself and says
    in `info["goal"]` which goal state it drew. A vector environment takes and gives [N, S].
    """

    def get_state(self) -> NDArray:
        """[S] everything the simulator needs to go on from here."""
        ...

    def set_state(self, state: NDArray) -> Any:
        """Go to `state` [S] and return the observation there."""
        ...


@runtime_checkable
class TrueDynamics(Protocol):
    """An environment that can say how it moves, for the oracle row of a result table."""

    def true_dynamics(self, spaces: Spaces) -> tuple[WorldModel, dict[str, Any]]:
        """Its own dynamics as a world model.

        Args:
            spaces: of the agent whose actions (blocks, scaling) the model shall take.

        Returns:
            the model, and the constructor options that make the environment show what it observes.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Goals:
    """N tasks.

    Attributes:
        obs: what the goal looks like, [N, ...] by observation key.
        start: [N, S] states to start from, or None: the environment's own.
        state: [N, S] the goal states, or None where they are unknown (a photograph).

    Example:
        >>> start, goal = np.float32([[10, 10]]), np.float32([[50, 40]])
        >>> len(Goals({"image": Rooms().render(goal)}, start, goal))
        1
    """

    obs: Mapping[str, NDArray]
    start: NDArray | None = None
    state: NDArray | None = None

    def __post_init__(self) -> None:
        parts = {**self.obs, "start": self.start, "state": self.state}
        lengths = {name: len(part) for name, part in parts.items() if part is not None}
        if not self.obs or not len(self) or len(set(lengths.values())) != 1:
            raise MissingGoalError(
                f"goals need observations and one row per task in every part; got {lengths}"
            )

    def __len__(self) -> int:
        return len(next(iter(self.obs.values()))) if self.obs else 0

    def __getitem__(self, index: Any) -> Goals:
        """Some of the tasks, by an array of indices or a slice."""
        return Goals(
            {key: value[index] for key, value in self.obs.items()},
            None if self.start is None else self.start[index],
            None if self.state is None else self.state[index],
        )


GoalSampler = Callable[[Any, np.random.Generator, int], Goals]


class SegmentGoals:
    """Goals from data: start where a stored episode was, reach where its actions lead.

    The segment's `offset` raw actions are replayed in the environment from its first state; the goal is
    what is seen at the end. With held-out episodes these are goals that training never saw.

    Args:
        dataset: where segments are drawn from, uniformly over all that are long enough.
        offset: raw steps from start to goal.
        state_key: column with the simulator's state: an observation key or an extra column.

    Raises:
        DataError: if the column is missing or no episode is long enough.

    Example:
        >>> train, held_out = TrajectoryDataset.load("two_rooms").split(0.9, seed=0)
        >>> env = GoalReaching(TwoRooms(), SegmentGoals(held_out, offset=25), budget=50)
    """

    def __init__(
        self, dataset: TrajectoryDataset, offset: int, *, state_key: str = "position"
    ) -> None:
        names = {name.removeprefix("obs/"): name for name in dataset.columns}
        if state_key not in names:
            raise DataError(
                f"{dataset!r} has no column {state_key!r}.{did_you_mean(state_key, names)} Goals from data "
                "need the simulator's state of every row; say which column holds it, or use other goals"
            )
        if offset < 1:
            raise ConfigError(f"offset is {offset}, expected at least 1 raw step")
        counts = np.maximum(0, dataset.episode_lengths - offset)
        if not counts.sum():
            raise DataError(
                f"{dataset!r} has no episode with {offset} steps; the longest has "
                f"{int(dataset.episode_lengths.max()) - 1}"
            )
        self.dataset, self.offset, self.column = dataset, offset, names[state_key]
        self._ends = np.cumsum(counts)

    def __call__(self, env: Any, rng: np.random.Generator, count: int) -> Goals:
        """Draw `count` segments and replay them."""
        starts, actions = self.segments(rng, count)
        obs, state = replay(env, starts, actions)
        return Goals(obs, starts, state)

    def segments(self, rng: np.random.Generator, count: int) -> tuple[NDArray, NDArray]:
        """Start states [count, S] and raw actions [count, offset, ...] of random segments."""
        drawn = rng.integers(int(self._ends[-1]), size=count)
        episode = np.searchsorted(self._ends, drawn, side="right")
        first = drawn - np.where(episode > 0, self._ends[episode - 1], 0)
        row = self.dataset.episode_starts[episode] + first
        starts = np.asarray(self.dataset.columns[self.column].array[row])
        return starts, self.dataset.columns["action"].array[row[:, None] + np.arange(self.offset)]


class RandomActionGoals(SegmentGoals):
    """Starts of recorded episodes, and goals where random actions lead from there.

    Actions are normal with the data set's mean and deviation, clipped to their bounds: goals that no
    policy was heading for (Zhou et al. 2025, DINO-WM, "random_action").

    Args:
        dataset, offset, state_key: as in `SegmentGoals`.

    Example:
        >>> env = GoalReaching(TwoRooms(), RandomActionGoals(held_out, offset=25), budget=50)
    """

    def __init__(
        self, dataset: TrajectoryDataset, offset: int, *, state_key: str = "position"
    ) -> None:
        super().__init__(dataset, offset, state_key=state_key)
        space = dataset.spaces.action
        if not isinstance(space, gym.spaces.Box):
            raise ConfigError(f"random actions are drawn for a Box, but actions here are {space}")
        known = dataset.statistics(["action"])["action"]
        self._mean, self._std = np.asarray(known.mean), np.asarray(known.std)
        self._bounds = space.low, space.high

    def segments(self, rng: np.random.Generator, count: int) -> tuple[NDArray, NDArray]:
        """Start states [count, S] of random segments, and random actions [count, offset, ...]."""
        starts, recorded = super().segments(rng, count)
        drawn = self._mean + self._std * rng.standard_normal(recorded.shape)
        return starts, np.clip(drawn, *self._bounds).astype(recorded.dtype)


class EnvGoals:
    """Goals of the environment's own sampler: a fresh start, and a goal drawn for it.

    Args:
        options: of the reset that makes the start, e.g. {"goal_room": "opposite"}.

    Example:
        >>> env = GoalReaching(TwoRooms(), EnvGoals({"goal_room": "opposite"}), budget=50)
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options = dict(options or {})

    def __call__(self, env: Any, rng: np.random.Generator, count: int) -> Goals:
        """Reset the environment and look at the goal it drew."""
        _, info = env.reset(seed=int(rng.integers(2**31)), options=dict(self.options))
        if not isinstance(env, Stateful) or "goal" not in info:
            raise MissingGoalError(
                f"{env} draws no goals of its own (it needs get_state, set_state and info['goal']); use "
                "SegmentGoals, ImageGoals or a callable"
            )
        start, goal = env.get_state(), np.asarray(info["goal"])
        obs = {key: np.asarray(value) for key, value in flat_obs(env.set_state(goal)).items()}
        if isinstance(env, gym.vector.VectorEnv):
            return Goals(obs, start, goal)
        return Goals({key: value[None] for key, value in obs.items()}, start[None], goal[None])


class ImageGoals:
    """Goals given as pictures: files, or arrays uint8 [h, w, 3]. Their states are unknown.

    Args:
        images: the tasks of a batch take them in turn.
        key: the observation key they stand for.

    Example:
        >>> env = GoalReaching(TwoRooms(), ImageGoals("goal.png"), budget=50, success=near)
    """

    def __init__(
        self, images: Sequence[str | Path | NDArray] | str | Path, *, key: str = "image"
    ) -> None:
        self.images = [images] if isinstance(images, (str, Path)) else list(images)
        self.key = key
        if not self.images:
            raise MissingGoalError("ImageGoals needs at least one picture")

    def __call__(self, env: Any, rng: np.random.Generator, count: int) -> Goals:
        """The pictures at the environment's image size, resampled where they differ."""
        single = getattr(env, "single_observation_space", None) or env.observation_space
        space = flat_space(single).get(self.key)
        if space is None or not is_image(space):
            raise MissingGoalError(
                f"{env} has no image observation {self.key!r}, it has {sorted(flat_space(single))}"
            )
        assert space.shape is not None
        chosen = [self.images[i % len(self.images)] for i in range(count)]
        return Goals({self.key: np.stack([_picture(one, space.shape) for one in chosen])})


def replay(env: Any, starts: NDArray, actions: NDArray) -> tuple[dict[str, NDArray], NDArray]:
    """Execute stored actions from stored states and look at the end.

    Args:
        env: a `Stateful` environment, or a vector of as many rows as there are segments.
        starts: [N, S] states.
        actions: [N, T, ...] raw actions.

    Returns:
        the last observation [N, ...] by key, and the last state [N, S].

    Raises:
        MissingGoalError: if the environment cannot be put into a state.
        DataError: if an episode ends before its segment does.
    """
    if not isinstance(env, Stateful):
        raise MissingGoalError(
            f"{env} has no get_state and set_state, so nothing can be replayed in it"
        )
    if isinstance(env, gym.vector.VectorEnv):
        return _replay_rows(env, starts, actions)
    ends = [_replay_one(env, start, plan) for start, plan in zip(starts, actions)]
    keys = ends[0][0].keys()
    return {key: np.stack([obs[key] for obs, _ in ends]) for key in keys}, np.stack(
        [state for _, state in ends]
    )


def _replay_one(env: Any, start: NDArray, plan: NDArray) -> tuple[dict[str, Any], NDArray]:
    obs, _ = env.reset(options={"state": start})
    for t, action in enumerate(plan):
        obs, _, terminated, truncated, _ = env.step(action)
        _check_goes_on(bool(over(terminated, truncated)), t, len(plan))
    return {key: np.asarray(value) for key, value in flat_obs(obs).items()}, env.get_state()


def _replay_rows(env: Any, starts: NDArray, actions: NDArray) -> tuple[dict[str, Any], NDArray]:
    if len(starts) != env.num_envs:
        raise ConfigError(f"{len(starts)} segments for {env.num_envs} environments")
    obs, _ = env.reset(options={"state": starts})
    length = actions.shape[1]
    for t in range(length):
        obs, _, terminated, truncated, _ = env.step(actions[:, t])
        _check_goes_on(bool(over(terminated, truncated).any()), t, length)
    return flat_obs(obs), env.get_state()


def _check_goes_on(ended: bool, t: int, length: int) -> None:
    if ended and t + 1 < length:
        raise DataError(
            f"the environment ended its episode at step {t + 1} of a segment of {length} steps; use a "
            "shorter offset, or an environment with a larger max_episode_steps"
        )


def _picture(image: str | Path | NDArray, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    from PIL import Image

    if isinstance(image, (str, Path)):
        try:
            picture = Image.open(image).convert("RGB")
        except OSError as error:
            raise MissingGoalError(f"the goal image {image} cannot be read: {error}") from error
    else:
        picture = Image.fromarray(np.asarray(image, np.uint8)).convert("RGB")
    if picture.size != (shape[1], shape[0]):
        picture = picture.resize((shape[1], shape[0]), Image.Resampling.LANCZOS)
    return np.asarray(picture)
