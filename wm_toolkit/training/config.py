"""What a run does and how its result is measured, as frozen records that travel with the artefact."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from wm_toolkit.config import check_ranges, from_dict
from wm_toolkit.errors import ConfigError

Precision = Literal["no", "bf16", "fp16"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, how fast and how carefully to train.

    Attributes:
        updates: gradient updates in all.
        batch_size: windows per update, over all processes.
        seed: of initial weights, data order and every noise.
        workers: threads that prepare batches beside the training.
        precision: mixed precision of the forward pass; "no" is float32.
        accumulation: pieces a batch is split into to save memory (given to the learner).
        clip: largest gradient norm (given to the learner); None leaves gradients alone.
        ema: decay of an average of the weights that is evaluated and saved instead of them (given to
            the learner); None has none.
        cuda_graphs: record an update once and replay it (given to the learner): launching its thousands of
            small kernels one by one keeps a fast GPU waiting. Needs one CUDA device.
        processes: how many train together; `launch` refuses to run fewer.
        log_every: updates between two log lines.
        eval_every: updates between two evaluations; 0 means at the end only.
        checkpoint_every: updates between two checkpoints; 0 means at the end only.
        keep_checkpoints: how many to keep, newest first.
        patience: stop after so many evaluations without a better `metric`; None never stops early.
        metric: the evaluation's number that counts for `patience` and `keep`; "" means the first that it
            gives: of goals the success rate, of returns their mean.
        better: whether more or less of it is better.
        keep: which weights the artefact holds in the end.

    Raises:
        ConfigError: for a number out of range.
    """

    updates: int = 1_000
    batch_size: int = 64
    seed: int = 0
    workers: int = 0
    precision: Precision = "no"
    accumulation: int = 1
    clip: float | None = 1.0
    ema: float | None = None
    cuda_graphs: bool = False
    processes: int = 1
    log_every: int = 10
    eval_every: int = 0
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    patience: int | None = None
    metric: str = ""
    better: Literal["higher", "lower"] = "higher"
    keep: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        least = {
            "updates": 1,
            "batch_size": 1,
            "seed": 0,
            "workers": 0,
            "accumulation": 1,
            "processes": 1,
            "log_every": 1,
            "eval_every": 0,
            "checkpoint_every": 0,
            "keep_checkpoints": 1,
        }
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least {bound}")
        if self.patience is not None and (self.patience < 1 or not self.eval_every):
            raise ConfigError(
                f"patience is {self.patience} with eval_every {self.eval_every}: stopping early "
                "needs patience of at least 1 and evaluations to wait for"
            )
        if self.batch_size % self.processes:
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be shared by {self.processes} processes"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """What every evaluation protocol says; it is saved with the artefact, so `wm eval` can repeat it.

    Attributes:
        episodes: how many.
        seed: of the environment, the choice of segments and the agent's noise.
        frame_skip: raw environment steps per decision.
        env: registered id of the environment; "" means the one of the training or of its data set.
        env_options: its constructor arguments.
        split: which episodes of a data set are held out: "random" ones, or those that its release names.
        holdout: share of the data set's episodes that training never sees; of a random split.
        split_seed: of a random split.
        group: episodes that run side by side and decide as one batch; less takes less memory, and
            groups are what several processes share out. Every group has its own noise, so the number
            decides the result, the processes do not. None: all in one.

    Raises:
        ConfigError: for a number out of range.
    """

    episodes: int = 50
    seed: int = 42
    frame_skip: int = 1
    env: str = ""
    env_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    split: Literal["random", "released"] = "random"
    holdout: float = 0.1
    split_seed: int = 0
    group: int | None = None

    def __post_init__(self) -> None:
        check_ranges(self, {"[1, inf)": ("episodes", "frame_skip", "group")})
        if not 0 < self.holdout < 1:
            raise ConfigError(f"holdout is {self.holdout}, expected a share between 0 and 1")

    def groups(self) -> list[range]:
        """The numbers of the episodes, cut into groups that run side by side."""
        size = self.group or self.episodes
        starts = range(0, self.episodes, size)
        return [range(first, min(first + size, self.episodes)) for first in starts]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig(ProtocolConfig):
    """The protocol behind a success rate: goals, and how long an agent may take to reach them.

    Attributes:
        goal_offset: raw environment steps between an episode's start and its goal in the data.
        budget: raw environment steps allowed to reach the goal.
        goals: "dataset" takes starts and goals from held-out episodes; "random_action" takes starts from
            them and the goals from where random actions lead; "env" lets the environment draw both.
        state_key: column of the data set that holds the simulator's state, for goals from the data; ""
            means the one the data set names, else "state" where it has one, else "position".
        goal_options: reset options for goals "env", such as {"goal_room": "opposite"}.
        published: name of the protocol in `training.protocols` that it follows; "" for none.

    Raises:
        ConfigError: for a number out of range.
    """

    goal_offset: int = 25
    budget: int = 50
    goals: Literal["dataset", "env", "random_action"] = "dataset"
    state_key: str = ""
    goal_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    published: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"[1, inf)": ("goal_offset", "budget")})
        if self.budget % self.frame_skip:
            raise ConfigError(
                f"budget {self.budget} is not a multiple of frame_skip {self.frame_skip}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReturnConfig(ProtocolConfig):
    """The protocol behind a return: whole episodes in environments of their own.

    The agent acts without exploring; episode i is seeded with `seed` + i.

    Attributes:
        budget: raw environment steps after which an episode is cut that has not come to its end.

    Raises:
        ConfigError: for a number out of range.
    """

    episodes: int = 20
    budget: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, budget="[1, inf)")


def saved_protocol(saved: Mapping[str, Any]) -> EvaluationConfig | ReturnConfig:
    """The protocol that an artefact carries as `info["evaluation"]`.

    Raises:
        ConfigError: if a field is unknown or wrong.
    """
    return from_dict(EvaluationConfig if "goals" in saved else ReturnConfig, saved)


@dataclasses.dataclass(frozen=True)
class OfflineConfig:
    """What every recipe that trains on stored trajectories has in common.

    Attributes:
        frame_skip: raw steps between two frames; their actions form one block.
        observations: the observation keys the model reads.
        action_scaling: "standardise" with the training data's statistics, or "scale" the bounds to
            [-1, 1].
        features: "auto" learns from stored features of frames where the data set has them (and refuses
            those of another encoder), else from frames; "stored" insists on them; "frames" always
            encodes.
        last_action: "filler" trains on every window that fits, "real" on those whose last frame has a whole
            block of actions, too, as DINO-WM does; see `Windows`.
        train: how to train.
        evaluation: how the result is measured.
    """

    frame_skip: int = 1
    observations: tuple[str, ...] = ("image",)
    action_scaling: Literal["standardise", "scale"] = "standardise"
    features: Literal["auto", "stored", "frames"] = "auto"
    last_action: Literal["filler", "real"] = "filler"
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig | ReturnConfig = EvaluationConfig()

    @property
    def window(self) -> int:
        """Frames of a training window."""
        raise ConfigError(f"{type(self).__name__} does not say how long its windows are")
