"""`wm check`: the public checkers of `wm_toolkit.testing` on something by name or path."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wm_toolkit.cli import output
from wm_toolkit.cli.inspect import is_artefact
from wm_toolkit.errors import UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from wm_toolkit.agents.agent import Agent
    from wm_toolkit.batch import Batch
    from wm_toolkit.models.base import WorldModel
    from wm_toolkit.spaces import Spaces

ROWS = 4
ADVICE = ("is probably too", "we recommend")
"""What gymnasium says of bounds that its own environments have, too."""
WRAPPED = "is different from the unwrapped version"
"""What it says of every environment inside wrappers; what these hand over must be right, too."""
HEAD = re.compile(r"^(\x1b\[\d+m)*WARN: |\x1b\[\d+m")
"""The colour of gymnasium's warnings, and their first word."""


@dataclasses.dataclass(frozen=True)
class Args:
    """Check that something keeps its contract: shapes, row independence, seeds, saving, gradients.

    For example: `wm check lewm.small`, `wm check cem`, `wm check runs/demo`, `wm check walks.h5`,
    `wm check wm_toolkit/TwoRooms-v0`, or `wm check mypackage.planners:MyPlanner`.

    Attributes:
        name: a recipe, planner, environment id, saved agent, data set, or module:name of a planner,
            a world model, or a function without arguments that makes one.
        json: print one JSON object: name, kind, passed, failed.
    """

    name: Annotated[str, tyro.conf.Positional]
    json: bool = False


def run(args: Args) -> int:
    """Run the checks; 1 if any failed."""
    from wm_toolkit.testing.checks import CheckError

    kind, check = find(args.name)
    try:
        passed, failed = check(), ""
    except CheckError as error:
        passed, failed = [], str(error)
    if args.json:
        output.emit({"name": args.name, "kind": kind, "passed": passed, "failed": failed})
    elif failed:
        print(failed)
    else:
        print("\n".join([f"{kind} {args.name} passes {len(passed)} checks:", *passed]))
    return 1 if failed else 0


def find(name: str) -> tuple[str, Callable[[], list[str]]]:
    """What a name means, and the check for it.

    Raises:
        UnknownNameError: with close matches, if it means nothing.
    """
    for kind, look in LOOK_UPS.items():
        check = look(name)
        if check is not None:
            return kind, check
    known = [name for names in _known().values() for name in names]
    raise UnknownNameError(
        f"{name!r} is no recipe, planner, environment, saved agent or data set here."
        f"{did_you_mean(name, known)}"
    )


def _known() -> dict[str, list[str]]:
    from wm_toolkit.cli import list as names

    kinds = (names.recipes, names.planners, names.environments, names.datasets, names.pretrained)
    return {kind.__name__: sorted(kind()) for kind in kinds}


def _recipe(name: str) -> Callable[[], list[str]] | None:
    from wm_toolkit.registry import recipe_names

    if name not in recipe_names():
        return None
    return lambda: check_one_agent(fresh_agent(name))


def _planner(name: str) -> Callable[[], list[str]] | None:
    from wm_toolkit.planning.base import PLANNERS

    return (
        (lambda: check_one_planner(default_planner(PLANNERS[name]))) if name in PLANNERS else None
    )


def default_planner(kind: type) -> Any:
    """A planner with its defaults, and a short horizon where it has no default."""
    horizon = inspect.signature(kind).parameters.get("horizon")
    return kind(horizon=3) if horizon is not None and horizon.default is horizon.empty else kind()


def _environment(name: str) -> Callable[[], list[str]] | None:
    from gymnasium.envs.registration import registry

    from wm_toolkit.envs.make import make
    from wm_toolkit.envs.registration import package_of, register_envs

    register_envs()
    known = name in registry or package_of(name) is not None
    return (lambda: check_environment(make(name))) if known else None


def _artefact(name: str) -> Callable[[], list[str]] | None:
    from wm_toolkit.agents.agent import Agent

    if not is_artefact(name):
        return None
    return lambda: check_one_agent(Agent.from_pretrained(name))


def _dataset(name: str) -> Callable[[], list[str]] | None:
    from wm_toolkit.training.jobs import open_data

    try:
        data = open_data(name)
    except UnknownNameError:
        return None
    return lambda: check_one_dataset(data)


def _imported(name: str) -> Callable[[], list[str]] | None:
    module, _, attribute = name.partition(":")
    if not attribute:
        return None
    from wm_toolkit.models.base import WorldModel

    try:
        thing = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownNameError(f"{name!r} cannot be imported: {error}") from error
    made = thing() if callable(thing) else thing
    if isinstance(made, WorldModel):
        return lambda: check_one_model(made)
    return lambda: check_one_planner(made)


LOOK_UPS: dict[str, Callable[[str], Callable[[], list[str]] | None]] = {
    "recipe": _recipe,
    "planner": _planner,
    "environment": _environment,
    "agent": _artefact,
    "object": _imported,
    "data set": _dataset,
}


def fresh_agent(name: str) -> Agent:
    """An untrained agent for the spaces of TwoRooms."""
    import gymnasium as gym

    from wm_toolkit.envs.registration import register_envs
    from wm_toolkit.registry import build, recipe_config
    from wm_toolkit.spaces import Spaces

    register_envs()
    config = recipe_config(name)
    env = gym.make("wm_toolkit/TwoRooms-v0")
    spaces = Spaces.of(env).blocked(getattr(config, "frame_skip", 1))
    env.close()
    return build(name, spaces, config)


def check_one_agent(agent: Agent) -> list[str]:
    """Model and agent on random data of their spaces."""
    from wm_toolkit.testing import check_agent

    batch = example_batch(agent.spaces, getattr(agent.config, "window", 4))
    obs = {key: value[:, 0].numpy() for key, value in batch.obs.items()}
    goals = {f"goal/{key}": value[:, -1].numpy() for key, value in batch.obs.items()}
    learns = batch if agent.learner is not None else None
    passed = check_one_model(without_probes(agent), getattr(agent.config, "window", 4))
    return passed + check_agent(agent, obs | goals, learns)


def without_probes(agent: Agent) -> WorldModel:
    """A copy of the model whose probes and behaviour are frozen: they learn beside it, not from its loss."""
    model = copy.deepcopy(agent.model)
    probes = getattr(agent.learner, "probes", None)
    program = getattr(agent.learner, "program", None)
    for name in (*(probes.targets if probes else ()), *(program.taught if program else ())):
        model.heads[name].requires_grad_(False)
    return model


def check_one_model(model: Any, length: int = 4) -> list[str]:
    """A world model on random data of its spaces."""
    from wm_toolkit.testing import check_world_model

    return check_world_model(model, example_batch(model.spaces, length))


def check_one_planner(planner: Any) -> list[str]:
    """A planner, searching an untrained small model for a goal image."""
    import torch

    from wm_toolkit.planning.objective import Goal
    from wm_toolkit.testing import check_planner

    model = fresh_agent("lewm.small").model.eval()
    batch = example_batch(model.spaces, 2)
    seen, goal = ({key: value[:, t] for key, value in batch.obs.items()} for t in (0, 1))
    with torch.no_grad():
        state = model.observe(model.initial(ROWS), torch.zeros_like(batch.action[:, 0]), seen)
        objective = Goal().bind(model, seen | {f"goal/{key}": v for key, v in goal.items()})
    return check_planner(planner, model, state, objective)


def check_one_dataset(data: Any) -> list[str]:
    """The whole file, row by row, and its loader as a source."""
    from wm_toolkit.data.inspect import inspect as look_over
    from wm_toolkit.data.loader import Loader
    from wm_toolkit.testing import check_source
    from wm_toolkit.testing.checks import Checks

    def sound() -> None:
        report = look_over(data.path)
        assert report.sound, "; ".join(map(str, report.problems))

    checks = Checks(f"data set {data.name}")
    checks.run("every row of the file is sound", sound)
    windows = data.windows(min(4, int(data.episode_lengths.min())))
    return checks.finish() + check_source(lambda: Loader(windows, batch_size=ROWS, seed=0))


def check_environment(env: Any) -> list[str]:
    """Gymnasium's own checker on the environment with its wrappers, as it is used.

    Its warnings count as failures, its taste in spaces is passed on.
    """
    from gymnasium.utils.env_checker import check_env

    from wm_toolkit.testing.checks import Checks

    advice: list[str] = []

    def check() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_env(env, skip_render_check=True)
        found = dict.fromkeys(HEAD.sub("", str(warning.message)) for warning in caught)
        said = [text for text in found if WRAPPED not in text]
        advice.extend(text for text in said if any(part in text for part in ADVICE))
        faults = [text for text in said if text not in advice]
        assert not faults, "; ".join(faults)

    checks = Checks(f"environment {env.spec.id}")
    checks.run("gymnasium's check_env passes without a warning", check)
    env.close()
    passed = checks.finish()
    return [passed[0] + "".join(f"\n  (it advises: {text})" for text in advice)]


def example_batch(spaces: Spaces, length: int) -> Batch:
    """[4, length] rows drawn from the spaces, always the same."""
    import numpy as np
    import torch

    from wm_toolkit.batch import Batch

    def draws(space: Any) -> Iterator[Any]:
        space.seed(0)
        for _ in range(ROWS * length):
            yield space.sample()

    def column(space: Any) -> Any:
        values = np.stack([np.asarray(draw) for draw in draws(space)])
        return values.reshape(ROWS, length, *values.shape[1:])

    obs = {key: torch.as_tensor(column(space)) for key, space in spaces.observation.items()}
    actions = spaces.encode_action(column(spaces.action))
    first = torch.zeros(ROWS, length, dtype=torch.bool)
    first[:, 0] = True
    nothing = torch.zeros(ROWS, length)
    return Batch(obs, actions, first, nothing, nothing.bool(), nothing.bool())
