"""The main job from end to end: offline walks, a world model, held-out goals reached by planning.

Every stage keeps what it made in the run folder (or, the data, among the prepared data sets) and finds it
again, so a run that was stopped anywhere goes on from there.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_toolkit.agents.agent import Agent
from wm_toolkit.errors import ConfigError
from wm_toolkit.registry import recipe_config
from wm_toolkit.training import jobs
from wm_toolkit.training.baselines import contenders
from wm_toolkit.training.episodes import Progress
from wm_toolkit.training.hooks import Hook
from wm_toolkit.training.measure import measure_run

log = logging.getLogger(__name__)

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class DemoSettings:
    """What the demo does.

    Attributes:
        recipe: the preset that is trained.
        walks: episodes of the data set.
        data: its file; by default "tworooms.h5" among the prepared data sets.
        seed: of weights, data order and noise.
        overrides: fields of the recipe's config to replace, by dotted name.
    """

    recipe: str = "lewm.small"
    walks: int = 1000
    data: Path | None = None
    seed: int = 0
    overrides: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {
            "evaluation.episodes": 50,
            "train.checkpoint_every": 50,
            "train.log_every": 5,
        }
    )


def smoke_settings(run_dir: str | Path, seed: int = 0) -> DemoSettings:
    """The same job in seconds: it proves that everything works, and learns nothing."""
    overrides = {
        "train.updates": 6,
        "train.batch_size": 8,
        "train.checkpoint_every": 2,
        "train.log_every": 1,
        "evaluation.episodes": 4,
        "evaluation.budget": 10,
    }
    return DemoSettings(walks=30, data=Path(run_dir) / "walks.h5", seed=seed, overrides=overrides)


def run_demo(
    run_dir: str | Path,
    settings: DemoSettings | None = None,
    *,
    hooks: Sequence[Hook] = (),
    say: Say = log.info,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Do everything that is not done yet, and return the result rows by name.

    Args:
        run_dir: the run folder.
        settings: what to do; by default the whole thing.
        hooks: of the training, such as a progress bar.
        say: told which stage begins.
        progress: told how far an evaluation is.

    Returns:
        rows "model", "random" and "oracle", with the keys of `Evaluation.to_json`.
    """
    settings = settings or DemoSettings()
    config = recipe_config(settings.recipe, **settings.overrides, **{"train.seed": settings.seed})
    say(f"data: {settings.walks:,} random walks in two rooms")
    data = jobs.prepare_two_rooms(settings.data, episodes=settings.walks)
    if not jobs.is_trained(run_dir, settings.recipe, config):
        say(f"training: {settings.recipe}, {config.train.updates:,} updates")
        watch = {"probes": ("position",), "hooks": hooks}
        jobs.train_offline(settings.recipe, config, data, run_dir, **watch)
    agent, ready = Agent.from_pretrained(run_dir), jobs.offline_data(data, config)
    return measure_run(run_dir, contenders(agent), ready, say=say, progress=progress)


def discard(run_dir: str | Path) -> None:
    """Remove a run folder, to begin afresh.

    Raises:
        ConfigError: if the folder is not a run's.
    """
    folder = Path(run_dir)
    if not folder.exists():
        return
    if any(folder.iterdir()) and not any((folder / name).exists() for name in RUN_MARKS):
        raise ConfigError(f"{folder} is not a run folder, so it is not removed")
    shutil.rmtree(folder)


RUN_MARKS = ("config.json", "record.json", "checkpoints", "walks.h5", ".walks.h5.partial")
