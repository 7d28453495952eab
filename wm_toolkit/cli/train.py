"""`wm train`: a recipe on a data set, or a run again from its folder."""

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
    """Train a recipe on a data set. The same command goes on with a run that was stopped.

    For example: `wm train lewm.small --data tworooms --set train.updates=1000 lr=5e-4`, or
    `wm train --config runs/lewm.small --run runs/again` to repeat a run.

    Attributes:
        recipe: a recipe or preset (`wm list recipes`); left out with --config.
        data: a data set: name, file, or Minari id; with --config, the run's own by default.
        config: a run folder whose resolved config is repeated.
        run: the run folder to write; by default runs/RECIPE.
        set: fields of the config to replace, as name=value; nested names are dotted.
        seed: short for --set train.seed=SEED.
        updates: short for --set train.updates=UPDATES.
        processes: short for --set train.processes=PROCESSES.
        no_oracle: leave the oracle out of what is measured; a simulator may take it long.
        no_eval: train only; without it the result is measured as the config's protocol says.
        json: print the results as one JSON object, as `wm eval --json` does.
    """

    recipe: Annotated[str, tyro.conf.Positional] = ""
    data: str = ""
    config: Path | None = None
    run: Path | None = None
    set: tuple[str, ...] = ()
    seed: int | None = None
    updates: int | None = None
    processes: int | None = None
    no_oracle: bool = False
    no_eval: bool = False
    json: bool = False


def run(args: Args) -> int:
    """Train, measure, print."""
    from wm_toolkit.training.jobs import require_offline
    from wm_toolkit.training.launch import launch

    recipe, config, data = resolve(args)
    require_offline(recipe, config)
    folder = args.run or Path("runs") / recipe
    launch(_train, config.train.processes, recipe, config, data, folder)
    output.say(f"the run lies in {folder}")
    if not args.no_eval:
        _measure(folder, args)
    return 0


def resolve(args: Args) -> tuple[str, Any, TrajectoryDataset]:
    """Recipe, full config and data set that the options mean.

    Raises:
        ConfigError: if recipe or data are missing or contradict --config.
    """
    from wm_toolkit.config import override
    from wm_toolkit.registry import recipe_config
    from wm_toolkit.training.jobs import open_data, saved_run

    recipe, name = args.recipe, args.data
    if args.config is not None:
        known, config, about = saved_run(args.config)
        if recipe and recipe != known:
            raise ConfigError(f"{args.config} is a run of {known!r}, not of {recipe!r}")
        recipe, name = known, name or str(about.get("path") or about.get("name") or "")
    elif recipe:
        config = recipe_config(recipe)
    else:
        raise ConfigError("name a recipe (`wm list recipes`), or a run to repeat with --config")
    if not name:
        raise ConfigError("name a data set with --data (`wm list datasets`)")
    config = override(config, changes(args))
    data = open_data(name)
    _same_data(args, data)
    return recipe, config, data


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


def _same_data(args: Args, data: TrajectoryDataset) -> None:
    """A repeated run must meet the very data it saw."""
    if args.config is None or args.data:
        return
    from wm_toolkit.training.jobs import saved_run

    checksum = saved_run(args.config)[2].get("checksum")
    if checksum and checksum != data.checksum:
        raise ConfigError(
            f"{data.path} has changed since {args.config} was trained (checksum {data.checksum[:12]}, "
            f"then {checksum[:12]}); name a data set with --data to train on it all the same"
        )


def _train(recipe: str, config: Any, data: TrajectoryDataset, folder: Path) -> None:
    """What every process of the run does."""
    from wm_toolkit.training.jobs import train_offline
    from wm_toolkit.training.progress import ProgressBar

    train_offline(recipe, config, data, folder, hooks=[ProgressBar()])


def _measure(folder: Path, args: Args) -> None:
    """Measure what was saved, beside random and oracle; the numbers go into the card."""
    from wm_toolkit.agents.agent import Agent
    from wm_toolkit.cli.eval import protocol_of, tell
    from wm_toolkit.training.baselines import contenders
    from wm_toolkit.training.jobs import agent_data
    from wm_toolkit.training.measure import measure_run

    agent = Agent.from_pretrained(folder)
    those = contenders(agent, with_oracle=not args.no_oracle)
    rows = measure_run(folder, those, agent_data(agent), say=output.say)
    tell(rows, protocol_of(agent), agent.recipe, as_json=args.json)
