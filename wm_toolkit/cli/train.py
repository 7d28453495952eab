"""`wm train`: a recipe in an environment, on a data set or on both, or a run again from its folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wm_toolkit.cli import output
from wm_toolkit.errors import ConfigError

if TYPE_CHECKING:
    from wm_toolkit.data.dataset import TrajectoryDataset


@dataclasses.dataclass(frozen=True)
class Args:
    """Train a recipe in an environment or on a data set. The same command goes on with a stopped run.

    For example: `wm train dreamer_v3.nano --env CartPole-v1 --steps 20000`, `wm train lewm.small --data
    tworooms --set train.updates=1000 lr=5e-4`, or `wm train --config runs/lewm.small --run runs/again` to
    repeat a run. With --data and --env a recipe that learns from rewards begins with the recorded episodes.

    Attributes:
        recipe: a recipe or preset (`wm list recipes`); left out with --config.
        env: id of the environment to act in ("CartPole-v1", "dmc/walker-walk"); with --config, the run's
            own by default.
        data: a data set: name, file, or Minari id; likewise.
        init: a run or saved agent whose weights are the start.
        config: a run folder whose resolved config is repeated.
        run: the run folder to write; by default runs/RECIPE.
        set: fields of the config to replace, as name=value; nested names are dotted.
        seed: short for --set train.seed=SEED.
        updates: short for --set train.updates=UPDATES.
        steps: environment steps to train for, instead of updates; the train ratio says how many those are.
        processes: short for --set train.processes=PROCESSES.
        no_oracle: leave the oracle out of what is measured; a simulator may take it long.
        no_eval: train only; without it the result is measured as the config's protocol says.
        json: print the results as one JSON object, as `wm eval --json` does.
    """

    recipe: Annotated[str, tyro.conf.Positional] = ""
    env: str = ""
    data: str = ""
    init: str = ""
    config: Path | None = None
    run: Path | None = None
    set: tuple[str, ...] = ()
    seed: int | None = None
    updates: int | None = None
    steps: int | None = None
    processes: int | None = None
    no_oracle: bool = False
    no_eval: bool = False
    json: bool = False


def run(args: Args) -> int:
    """Train, measure, print."""
    from wm_toolkit.training.launch import launch

    job = resolve(args)
    folder = args.run or Path("runs") / job.recipe
    launch(_train, job.config.train.processes, job, folder)
    output.say(f"the run lies in {folder}")
    if not args.no_eval:
        _measure(folder, args)
    return 0


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be trained on what; the fields of `training.jobs.train`."""

    recipe: str
    config: Any
    env: str | None = None
    data: TrajectoryDataset | None = None
    init: str | None = None


def resolve(args: Args) -> Job:
    """The job that the options mean.

    Raises:
        ConfigError: if recipe, environment or data are missing or contradict --config.
    """
    from wm_toolkit.config import override
    from wm_toolkit.training.jobs import open_data

    job, name = _named(args)
    if not name and not job.env:
        raise ConfigError(
            "name a data set to learn from with --data (`wm list datasets`), or an environment to act in "
            "with --env (`wm list environments`)"
        )
    config = override(job.config, changes(args))
    if args.steps is not None:
        config = override(
            config, {"train.updates": _updates(job.recipe, config, args.steps, bool(name))}
        )
    data = open_data(name) if name else None
    _same_data(args, data)
    return dataclasses.replace(job, config=config, data=data)


def _named(args: Args) -> tuple[Job, str]:
    """Recipe, config and environment, and the name of the data set, "" without one."""
    from wm_toolkit.registry import recipe_config
    from wm_toolkit.training.jobs import saved_run

    init = args.init or None
    if args.config is None:
        if not args.recipe:
            raise ConfigError("name a recipe (`wm list recipes`), or a run to repeat with --config")
        config = recipe_config(args.recipe)
        return Job(args.recipe, config, args.env or None, init=init), args.data
    known = saved_run(args.config)
    if args.recipe and args.recipe != known.recipe:
        raise ConfigError(f"{args.config} is a run of {known.recipe!r}, not of {args.recipe!r}")
    if args.env and args.env != known.env:
        raise ConfigError(
            f"{args.config} is a run in {known.env or 'no environment'}, not in {args.env!r}; start from "
            "its weights with --init, without --config"
        )
    name = args.data or str(known.data.get("path") or known.data.get("name") or "")
    return Job(known.recipe, known.config, known.env, init=init), name


def _updates(recipe: str, config: Any, env_steps: int, recorded: bool) -> int:
    """How many updates so many environment steps come to, with recorded episodes to begin with or not.

    Raises:
        ConfigError: if the recipe keeps no train ratio.
    """
    from wm_toolkit.registry import RECIPES
    from wm_toolkit.training.experience_config import ExperienceConfig

    own = RECIPES[recipe.partition(".")[0]].job
    if own is not None or not isinstance(config, ExperienceConfig):
        raise ConfigError(f"{recipe} keeps no train ratio to count --steps by; give --updates")
    return config.updates_for(env_steps, recorded=recorded)


def changes(args: Args) -> dict[str, Any]:
    """The fields that --set and its short forms replace."""
    short = {"seed": args.seed, "updates": args.updates, "processes": args.processes}
    found = {f"train.{name}": value for name, value in short.items() if value is not None}
    return found | pairs(args.set)


def pairs(words: Sequence[str]) -> dict[str, Any]:
    """ "name=value" words as a dict.

    Raises:
        ConfigError: for a word without "=".
    """
    found = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"--set takes name=value, got {word!r}")
        found[name] = value_of(text)
    return found


def value_of(text: str) -> Any:
    """A value as JSON where it is JSON (5, 1e-3, true, null, [1, 2]), else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def _same_data(args: Args, data: TrajectoryDataset | None) -> None:
    """A repeated run must meet the very data it saw."""
    if args.config is None or args.data or data is None:
        return
    from wm_toolkit.training.jobs import saved_run

    checksum = saved_run(args.config).data.get("checksum")
    if checksum and checksum != data.checksum:
        raise ConfigError(
            f"{data.path} has changed since {args.config} was trained (checksum {data.checksum[:12]}, "
            f"then {checksum[:12]}); name a data set with --data to train on it all the same"
        )


def _train(job: Job, folder: Path) -> None:
    """What every process of the run does."""
    from wm_toolkit.training.jobs import train
    from wm_toolkit.training.progress import ProgressBar

    with output.progress(f"preparing {job.recipe}", ends=True) as advance:
        train(
            job.recipe,
            job.config,
            folder,
            env=job.env,
            data=job.data,
            init=job.init,
            hooks=[ProgressBar()],
            progress=advance,
        )


def _measure(folder: Path, args: Args) -> None:
    """Measure what was saved, beside random and, for goals, oracle; the numbers go into the card."""
    from wm_toolkit.agents.agent import Agent
    from wm_toolkit.agents.card import has_goals
    from wm_toolkit.cli.eval import protocol_of, tell
    from wm_toolkit.training.baselines import contenders
    from wm_toolkit.training.jobs import agent_data
    from wm_toolkit.training.measure import measure_run

    agent = Agent.from_pretrained(folder)
    protocol = protocol_of(agent)
    if not protocol.env:
        output.say("not measured: the data set names no environment (set evaluation.env)")
        return
    those = contenders(agent, with_oracle=not args.no_oracle)
    ready = agent_data(agent) if has_goals(agent.info["evaluation"]) else None
    rows = measure_run(folder, those, ready, say=output.say)
    tell(rows, protocol, agent.recipe, as_json=args.json)
