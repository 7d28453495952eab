"""`wm collect`: any policy in any environment, recorded as a data set."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wm_toolkit.cli import output
from wm_toolkit.cli.train import pairs
from wm_toolkit.errors import ConfigError, MissingGoalError, UnknownNameError

if TYPE_CHECKING:
    import gymnasium as gym

    from wm_toolkit.training.collect import Policy


@dataclasses.dataclass(frozen=True)
class Args:
    """Record whole episodes of a policy; a recording that was stopped goes on where it ended.

    For example: `wm collect CartPole-v1 cartpole.h5 --episodes 100`, or `wm collect
    wm_toolkit/TwoRooms-v0 rooms.h5 --set obs_mode=both --max-steps 60 --extras goal`, or `wm collect
    wm_toolkit/TwoRooms-v0 planned.h5 --policy runs/demo --goals`.

    Attributes:
        env: a Gymnasium id; "module:Name-v0" imports a module first.
        target: data.h5 for the native format, ns/name-v0 for Minari.
        policy: random, a saved agent, or module:name of a function from observations [N, ...] to
            actions [N, ...].
        episodes: how many the data set shall hold.
        seed: of the first episode; episode i is reset with seed + i.
        envs: rows that record at once.
        max_steps: cut an episode after so many steps; by default the environment decides.
        extras: entries of info to store with every observation.
        goals: give every episode a goal that the environment draws, as observations goal/...; a saved
            agent that plans to goals needs them.
        set: constructor arguments of the environment, as name=value.
        format: hdf5, minari or minari-arrow; by default what the target looks like.
        json: print one JSON object: path, format, episodes, recorded.
    """

    env: Annotated[str, tyro.conf.Positional]
    target: Annotated[str, tyro.conf.Positional]
    policy: str = "random"
    episodes: int = 10
    seed: int = 0
    envs: int = 1
    max_steps: int | None = None
    extras: tuple[str, ...] = ()
    goals: bool = False
    set: tuple[str, ...] = ()
    format: str = ""
    json: bool = False


def run(args: Args) -> int:
    """Record with a progress bar on stderr."""
    from wm_toolkit.data.convert import guess_format
    from wm_toolkit.data.formats import FORMATS
    from wm_toolkit.spaces import Spaces
    from wm_toolkit.training.collect import collect

    if args.episodes < 1 or args.envs < 1:
        raise ConfigError(f"episodes is {args.episodes} and envs {args.envs}; both start at 1")
    chosen = FORMATS[args.format or guess_format(args.target)]
    env = rows(args)
    about = {"env": args.env, "env_options": options_of(env, args), "policy": args.policy}
    try:
        policy = policy_of(args.policy, env.single_action_space)
        with (
            chosen.write(args.target, Spaces.of(env), metadata=about) as writer,
            output.progress(f"recording {args.env}") as advance,
        ):
            recorded = collect(
                env,
                policy,
                writer,
                episodes=args.episodes,
                seed=args.seed,
                max_steps=args.max_steps,
                extras=args.extras,
                progress=advance,
            )
    except MissingGoalError as error:
        if args.goals:
            raise
        raise MissingGoalError(f"{args.policy} plans to goals: add --goals ({error})") from error
    finally:
        env.close()
    path = chosen.place(args.target)
    said = {"path": str(path), "format": chosen.name, "episodes": args.episodes}
    if args.json:
        output.emit({**said, "recorded": recorded})
    else:
        print(f"wrote {path} ({chosen.name}): {args.episodes} episodes, {recorded} of them now")
    return 0


def rows(args: Args) -> gym.vector.VectorEnv:
    """The environments side by side; each can be seeded by itself, which not every vector form can."""
    from gymnasium.vector import SyncVectorEnv

    from wm_toolkit.envs.make import make

    options = pairs(args.set)

    def one() -> gym.Env:
        env = make(args.env, **options)
        return with_goals(env, args.max_steps) if args.goals else env

    return SyncVectorEnv([one] * args.envs)


def options_of(env: gym.vector.VectorEnv, args: Args) -> dict[str, Any]:
    """What the data set says its environment was made with: also what was left at its default.

    So the rendering, the action repeat and the like of an adapter stay known when defaults change.
    """
    from gymnasium.vector import SyncVectorEnv

    assert isinstance(env, SyncVectorEnv)
    one = env.envs[0]
    known = one.get_wrapper_attr("settings") if one.has_wrapper_attr("settings") else {}
    return {**known, **pairs(args.set)}


def with_goals(env: gym.Env, max_steps: int | None) -> gym.Env:
    """The environment with a goal of its own sampler beside every observation.

    Raises:
        ConfigError: if nothing ends an episode whose goal is out of reach.
    """
    from wm_toolkit.envs.goal import GoalReaching
    from wm_toolkit.envs.goals import EnvGoals

    limit = max_steps or (env.spec.max_episode_steps if env.spec is not None else None)
    if limit is None:
        raise ConfigError("the environment sets no limit to an episode; give --max-steps")
    return GoalReaching(env, EnvGoals(), budget=limit)


def policy_of(name: str, space: gym.Space) -> Policy:
    """The policy that a name means.

    Raises:
        UnknownNameError: if module:name cannot be imported.
    """
    from wm_toolkit.agents.agent import Agent
    from wm_toolkit.training.collect import AgentPolicy, RandomPolicy

    if name == "random":
        return RandomPolicy(space)
    module, _, attribute = name.partition(":")
    if not attribute:
        return AgentPolicy(Agent.from_pretrained(name), space)
    try:
        return FunctionPolicy(getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise UnknownNameError(f"policy {name!r} cannot be imported: {error}") from error


class FunctionPolicy:
    """A function from a vector environment's observation to raw actions [N, ...].

    Args:
        choose: the function.
    """

    def __init__(self, choose: Callable[[Any], Any]) -> None:
        self.choose = choose

    def begin(self, seed: int, count: int) -> None:
        """A function has no memory."""
        return

    def act(self, obs: Any) -> Any:
        """[N, ...] what the function says."""
        return self.choose(obs)
