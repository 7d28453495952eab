"""Whole jobs made of the library's parts: prepare data, train a recipe on it. The command line calls these."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wm_toolkit import catalog
from wm_toolkit.agents.agent import Agent
from wm_toolkit.batch import Batch
from wm_toolkit.checkpoint import load_json
from wm_toolkit.config import from_dict
from wm_toolkit.data.columns import feature_columns
from wm_toolkit.data.dataset import TrajectoryDataset, find_dataset
from wm_toolkit.data.loader import Loader
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.envs.make import make
from wm_toolkit.envs.walks import smooth_walks
from wm_toolkit.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    UnknownNameError,
)
from wm_toolkit.models.base import WorldModel
from wm_toolkit.registry import RECIPES
from wm_toolkit.training.config import OfflineConfig, TrainConfig
from wm_toolkit.training.episodes import Progress
from wm_toolkit.training.experience_config import ExperienceConfig
from wm_toolkit.training.hooks import Calibrate, CollapseMonitor, Hook
from wm_toolkit.training.inputs import (
    FitInputs,
    learning_columns,
    telling_columns,
)
from wm_toolkit.training.launch import world
from wm_toolkit.training.logging import CONFIG, RECORD
from wm_toolkit.training.offline import OfflineData, offline_agent, offline_data
from wm_toolkit.training.online import StartFrom, train_online
from wm_toolkit.training.prepare import dataset_path, prepared
from wm_toolkit.training.returns import evaluate_otherwise
from wm_toolkit.training.trainer import MODEL, Evaluate, Trainer, TrainResult

if TYPE_CHECKING:
    from wm_toolkit.envs.rooms import Rooms

log = logging.getLogger(__name__)

TWO_ROOMS = "wm_toolkit/TwoRooms-v0"
MONITOR_WINDOWS = 128
CALIBRATION_BATCHES = 8


def prepare_two_rooms(
    path: str | Path | None = None,
    *,
    episodes: int = 1000,
    steps: int = 60,
    seed: int = 0,
    rooms: Rooms | None = None,
) -> TrajectoryDataset:
    """The default data of TwoRooms as a native file, made once and then reused.

    A file that was made with other settings is not touched.

    Args:
        path: the file; by default "tworooms.h5" among the prepared data sets.
        episodes: random walks; about one in eight goes through the door.
        steps: of every walk.
        seed: of the walks.
        rooms: the layout; by default the standard one.

    Raises:
        DataError: if the file there holds something else.
    """
    made: dict[str, Any] = {"episodes": episodes, "steps": steps, "seed": seed}
    made |= {"rooms": layout} if (layout := _layout(rooms)) else {}
    about = {
        "env": TWO_ROOMS,
        "env_options": made.get("rooms", {}),
        "source": "wm_toolkit.envs.walks.smooth_walks",
        "licence": "MIT",
    }
    units = {"obs/position": "px", "action": "2 px"}
    env = make(TWO_ROOMS, obs_mode="both", **({} if rooms is None else {"rooms": rooms}))

    def record(first: int) -> Iterator[Trajectory]:
        walks = smooth_walks(seed, episodes=episodes, steps=steps, rooms=rooms)
        return itertools.islice(walks.trajectories(), first, None)

    try:
        return prepared(path or dataset_path("tworooms"), made, about, env, units, record)
    finally:
        env.close()


def _layout(rooms: Rooms | None) -> dict[str, Any]:
    """The fields in which a layout differs from the standard one, JSON-ready."""
    if rooms is None:
        return {}
    standard = dataclasses.asdict(type(rooms)())
    changed = {k: v for k, v in dataclasses.asdict(rooms).items() if v != standard[k]}
    return json.loads(json.dumps(changed))


def prepare_data(name_or_path: str | Path) -> None:
    """Make a data set that the catalog knows how to build and this machine does not have yet.

    Any other name or path is left to whoever opens it.
    """
    entry = catalog.entries("datasets").get(str(name_or_path))
    if entry is None or "builder" not in entry.extra:
        return
    try:
        find_dataset(name_or_path)
    except UnknownNameError:
        log.info("preparing the data set %s: %s", entry.name, entry.summary)
        module, _, function = entry.extra["builder"].partition(":")
        getattr(importlib.import_module(module), function)()


def open_data(name_or_path: str | Path) -> TrajectoryDataset:
    """`TrajectoryDataset.load`, after preparing what the catalog can build.

    Raises:
        UnknownNameError: listing the places that were tried.
        DataError: if the file is damaged.
    """
    prepare_data(name_or_path)
    return TrajectoryDataset.load(name_or_path)


def train(
    recipe: str,
    config: Any,
    run_dir: str | Path,
    *,
    env: str | None = None,
    data: TrajectoryDataset | None = None,
    init: str | Path | None = None,
    hooks: Sequence[Hook] = (),
    progress: Progress | None = None,
) -> tuple[Agent, TrainResult]:
    """Train a recipe as it learns: with rewards, from recorded episodes, or by a job of its own.

    Args:
        recipe: "dreamer_v3", or a preset "dreamer_v3.nano".
        config: its full config.
        run_dir: the run folder; checkpoints in it are continued.
        env: id of the environment to act in.
        data: recorded episodes to learn from.
        init: an artefact or a run folder whose weights are the start.
        hooks: further hooks, such as a progress bar.
        progress: told how far a recipe's own job has prepared what it learns from.

    Raises:
        ConfigError: if recipe, environment and data do not fit.
    """
    own: dict[str, Any] = {"data": data, "init": init, "hooks": hooks}
    job = RECIPES[recipe.partition(".")[0]].job
    if job is not None:
        return job(recipe, config, env, run_dir, **own, progress=progress)
    if isinstance(config, ExperienceConfig):
        return train_online(recipe, config, env, run_dir, **own)
    require_offline(recipe, config)
    if env is not None or data is None:
        raise ConfigError(
            f"recipe {recipe!r} learns from recorded episodes alone: give it a data set, and no "
            "environment (the one it is measured in is set with evaluation.env)"
        )
    begin = [] if init is None else [StartFrom(init)]
    return train_offline(recipe, config, data, run_dir, hooks=[*begin, *hooks])


def train_offline(
    recipe: str,
    config: Any,
    data: TrajectoryDataset,
    run_dir: str | Path,
    *,
    probes: Sequence[str] | None = None,
    hooks: Sequence[Hook] = (),
) -> tuple[Agent, TrainResult]:
    """Train a recipe on a data set, or go on with a run that was stopped.

    A recipe that learns from rewards replays the recorded episodes as it would its own.
    With `train.eval_every` or `train.keep="best"` the agent is measured along the way, on goals other
    than the protocol's: what stops a run or picks its weights must not be what it is judged by.

    Args:
        recipe: "lewm", or a preset "lewm.small".
        config: its full config (an `OfflineConfig`).
        data: the whole data set; the protocol's share of it is held out.
        run_dir: the run folder; checkpoints in it are continued.
        probes: columns that a linear probe reads off the representation, for the logs; by default the
            protocol's `state_key`, if the data has it and the representation learns.
        hooks: further hooks, such as a progress bar.

    Raises:
        ConfigError: if the recipe does not train on stored data, or data and recipe do not fit.
    """
    require_offline(recipe, config)
    if isinstance(config, ExperienceConfig):
        return train(recipe, config, run_dir, data=data, hooks=hooks)
    ready = offline_data(data, config)
    agent = offline_agent(recipe, config, ready)
    columns = learning_columns(agent, ready.train)
    stored = feature_columns(data.metadata)
    agent.info["data"]["features"] = {name: stored[name] for name in columns if name in stored}
    rank, processes = world()
    source = Loader(
        ready.windows(ready.train, config.window, last_action=config.last_action),
        config.train.batch_size,
        seed=config.train.seed,
        workers=config.train.workers,
        rank=rank,
        world_size=processes,
        keys=columns,
    )
    trainer = Trainer(
        agent,
        source,
        run_dir=run_dir,
        config=config.train,
        evaluate=_evaluation(config.train, ready),
        hooks=[*_own_hooks(agent, ready, source, probes), *hooks],
    )
    return agent, trainer.train()


def _own_hooks(
    agent: Agent, ready: OfflineData, source: Loader, probes: Sequence[str] | None
) -> Iterator[Hook]:
    """What every run on stored data does beside the updates."""
    model, config = agent.model, agent.config
    yield FitInputs(ready.train, source.keys or (), _calibration(source))
    # A frozen encoder cannot collapse, so its features are looked at only when probes are asked for.
    if probes or not model.stored_features():
        seen = monitor_batch(ready, config.window, agent=agent)
        known = agent.info["evaluation"]["state_key"]
        state = [key for key in (known,) if key in seen.obs | seen.extras]
        yield CollapseMonitor(seen, state if probes is None else probes)
    if type(model).calibrate is not WorldModel.calibrate:
        yield Calibrate(_calibration(source))


def _evaluation(config: TrainConfig, ready: OfflineData) -> Evaluate | None:
    """What measures an agent while it trains, if the config asks for it."""
    if not config.eval_every and config.keep == "last":
        return None

    return partial(evaluate_otherwise, held_out=ready.held_out)


def require_offline(recipe: str, config: Any) -> None:
    """Refuse a recipe that cannot learn from stored trajectories.

    Raises:
        ConfigError: naming it.
    """
    if not isinstance(config, OfflineConfig):
        raise ConfigError(f"recipe {recipe!r} does not train on stored trajectories")


def monitor_batch(
    ready: OfflineData, length: int, count: int = MONITOR_WINDOWS, *, agent: Agent | None = None
) -> Batch:
    """Evenly spaced held-out windows [count, length] with every column but stored features.

    Given an agent, what its model learns from is read, features or frames, and every other quantity.
    """
    windows = ready.windows(ready.held_out, length)
    chosen = np.linspace(0, len(windows) - 1, min(count, len(windows)))
    keys = telling_columns(agent, ready.held_out)
    return windows.gather(chosen.round().astype(np.int64), keys=keys)


def _calibration(source: Loader) -> Iterator[Batch]:
    """Training windows for batch statistics: the same in every process and at every evaluation."""
    windows, size = source.windows, source.batch_size
    count = min(CALIBRATION_BATCHES * size, len(windows))
    chosen = np.linspace(0, len(windows) - 1, count).round().astype(np.int64)
    for i in range(0, max(count - size, 0) + 1, size):
        yield windows.gather(chosen[i : i + size], keys=source.keys)


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """What a run folder says about itself, enough to run it again.

    Attributes:
        recipe: the preset.
        config: in full.
        data: name, path and checksum of the recorded episodes; empty without any.
        env: id of the environment it acted in, if it did.
    """

    recipe: str
    config: Any
    data: Mapping[str, Any]
    env: str | None


def saved_run(run_dir: str | Path) -> SavedRun:
    """Read what a run folder says about itself.

    Raises:
        CheckpointError: if it is no run folder.
    """
    path = Path(run_dir) / CONFIG
    saved = load_json(path)
    if not isinstance(saved, dict) or "recipe" not in saved or "config" not in saved:
        raise CheckpointError(
            f"{path} is not the config of a run; give a folder that `wm train` wrote"
        )
    recipe = saved["recipe"]
    kind = RECIPES[recipe.partition(".")[0]].config
    env = (saved.get("experience") or {}).get("env")
    return SavedRun(recipe, from_dict(kind, saved["config"]), saved.get("data") or {}, env)


def agent_data(agent: Agent) -> OfflineData:
    """The data set that a saved agent was trained on, parted the same way.

    Raises:
        UnknownNameError: if it is not on this machine and cannot be made here.
        DataError: if it is another one by now.
    """
    about = agent.info.get("data") or {}
    path, name = about.get("path"), about.get("name", "")
    try:
        data = open_data(path if path and Path(path).exists() else name)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"the data set {name!r} that this agent was trained on (checksum "
            f"{about.get('checksum', '')[:12]}) is neither at {path} nor at "
            f"{catalog.home() / 'datasets' / f'{name}.h5'}; its held-out episodes hold the goals. Copy it "
            "there, or let the environment draw other goals (wm eval --set goals=env)"
        ) from error
    if about.get("checksum") and data.checksum != about["checksum"]:
        raise DataError(
            f"{data.path} is not the data set this agent was trained on: checksum "
            f"{data.checksum[:12]}, expected {about['checksum'][:12]}"
        )
    return offline_data(data, agent.config)


def is_trained(run_dir: str | Path, recipe: str, config: Any) -> bool:
    """Whether a run folder holds the finished training of just this recipe and config."""
    folder = Path(run_dir)
    if not all((folder / name).exists() for name in (CONFIG, RECORD, MODEL)):
        return False
    known = saved_run(folder)
    return (known.recipe, known.config) == (recipe, config) and bool(
        load_json(folder / RECORD).get("ended")
    )
