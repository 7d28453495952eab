"""What every recipe that learns from rewards has in common."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from wm_toolkit.config import check_ranges
from wm_toolkit.data.rings import DEFAULT_MEMORY
from wm_toolkit.data.samplers import Mix
from wm_toolkit.errors import ConfigError
from wm_toolkit.training.config import OfflineConfig, ReturnConfig

__all__ = ["ExperienceConfig", "ReturnConfig", "updates_within"]


@dataclasses.dataclass(frozen=True)
class ExperienceConfig(OfflineConfig):
    """Learns from rewards: online, from stored trajectories, or from these first and online after.

    A row is what an environment handed over at one step, with the action taken in response; sequences
    of rows are replayed, across the ends of episodes.

    Attributes:
        observations: the observation keys the model reads; none means every one there is.
        sequence: T, rows of a training sequence.
        envs: environments side by side.
        env_options: constructor arguments of the training environments; the evaluation's own come on
            top of them.
        vectorisation: "sync" steps environments one after the other, "async" in processes of their own.
        actors: who acts while training: "inline" the learner itself, between updates; "process" processes on
            this machine; "ray" actors of Ray. These hold the environments and copies of the agent, on CPUs.
        actor_processes: how many share the environments out.
        sync_every: updates after which they get the newest weights.
        collect_ahead: they collect the rows of the next burst while the learner learns, with weights that
            are a burst older; otherwise each waits for the other.
        train_ratio: rows replayed per row collected; an update replays `train.batch_size` T.
        burst: updates made one after another before the environments catch up (PlaNet, Dreamer V1: 100).
        prefill: rows collected with random actions before the first update.
        pretrain: updates made on these alone, before the environments go on (Dreamer V2 on DMC: 100).
        capacity: rows of replay; the oldest are overwritten.
        memory: bytes of memory the replay may take; a larger one lies in files.
        mix: how sequences are drawn.
        online_queue: show every fresh sequence once before older ones are drawn.
        frozen_model: train the behaviour alone, on a world model that stays as it is.
        evaluation: how the result is measured.

    Raises:
        ConfigError: for a number out of range.
    """

    observations: tuple[str, ...] = ()
    action_scaling: Literal["standardise", "scale"] = "scale"
    sequence: int = 64
    envs: int = 1
    env_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    vectorisation: Literal["sync", "async"] = "sync"
    actors: Literal["inline", "process", "ray"] = "inline"
    actor_processes: int = 1
    sync_every: int = 1
    collect_ahead: bool = True
    train_ratio: float = 32.0
    burst: int = 1
    prefill: int = 1000
    pretrain: int = 0
    capacity: int = 1_000_000
    memory: int = DEFAULT_MEMORY
    mix: Mix = Mix()
    online_queue: bool = False
    frozen_model: bool = False
    evaluation: ReturnConfig = ReturnConfig()

    def __post_init__(self) -> None:
        rows, many = ("sequence", "burst", "capacity", "memory"), ("envs", "actor_processes")
        check_ranges(self, {"[1, inf)": (*rows, *many, "sync_every")})
        check_ranges(self, train_ratio="(0, inf)", prefill="[0, inf)", pretrain="[0, inf)")
        self._check_actors()

    def _check_actors(self) -> None:
        if self.actor_processes > self.envs:
            raise ConfigError(
                f"actor_processes is {self.actor_processes}, but there are {self.envs} environments to "
                "share out; set envs"
            )
        if self.actors == "inline" and self.actor_processes > 1:
            raise ConfigError(
                f"actor_processes is {self.actor_processes}, but actors is 'inline': the learner acts "
                "itself; set actors to 'process' or 'ray'"
            )
        if self.actors != "inline" and self.vectorisation == "async":
            raise ConfigError(
                f"vectorisation is 'async' and actors {self.actors!r}: actors are processes of their own "
                "already; set vectorisation to 'sync', and actor_processes"
            )

    @property
    def window(self) -> int:
        """Rows of a training sequence."""
        return self.sequence

    @property
    def rows_per_update(self) -> float:
        """Rows that are collected between two updates."""
        return self.train.batch_size * self.sequence / self.train_ratio

    def updates_for(self, env_steps: int, *, recorded: bool = False) -> int:
        """Updates that are made while so many rows are collected, prefill included.

        Args:
            env_steps: rows.
            recorded: the replay begins with recorded episodes, which take the place of the prefill.

        Raises:
            ConfigError: if the prefill alone takes them.
        """
        prefill = 0 if recorded else self.prefill
        counted = updates_within(env_steps, self.rows_per_update, prefill, self.burst)
        return self.pretrain + counted

    def ratio_text(self, repeat: int = 1) -> str:
        """The train ratio in both units, for people.

        Args:
            repeat: steps of the simulator that one action lasts.
        """
        per_step = 1 / self.rows_per_update
        text = (
            f"{self.train_ratio:g} rows are replayed per row collected: an update of "
            f"{self.train.batch_size} x {self.sequence} rows every {self.rows_per_update:g} environment "
            f"steps ({per_step:.4g} updates per environment step"
        )
        if repeat > 1:
            text += f", {per_step / repeat:.4g} per simulator step"
        bursts = f"; {self.burst} updates in one go" if self.burst > 1 else ""
        return (
            f"{text}{bursts}); an episode's last observation is a row too and counts as a step here"
        )


def updates_within(env_steps: int, rows_per_update: float, prefill: int, burst: int = 1) -> int:
    """Updates that are made while so many rows are collected, the first of them behind the prefill.

    They come in bursts, and the last burst is a whole one too.

    Raises:
        ConfigError: if the prefill alone takes them.
    """
    left = env_steps - prefill
    if left <= 0:
        raise ConfigError(
            f"{env_steps:,} environment steps are no more than the prefill of {prefill:,}, so nothing "
            "would be learnt; ask for more, or for a smaller prefill"
        )
    return burst * (int(left / (burst * rows_per_update)) + 1)
