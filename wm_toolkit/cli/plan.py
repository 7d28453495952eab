"""`wm plan`: the actions a saved agent would take from a start image to a goal image."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wm_toolkit.cli import output
from wm_toolkit.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from wm_toolkit.agents.agent import Agent
    from wm_toolkit.planning.base import Plan


@dataclasses.dataclass(frozen=True)
class Args:
    """Plan from a start image to a goal image in a saved agent's dreams.

    For example: `wm plan runs/demo --start start.png --goal goal.png`, or `wm plan runs/demo
    --episode 3 --out plan.png` to take both from a held-out episode of its data.

    Attributes:
        agent: a run, a saved agent, a catalog name, or owner/name on the hub.
        start: picture of where to begin.
        goal: picture of where to go.
        episode: held-out episode to take start and goal from, if no pictures are given.
        out: a PNG to write: start, what the model dreams (if it has a decoder), goal.
        seed: of the search.
        processes: score the candidates in so many processes; the plan is the same.
        json: print one JSON object: score, decision_ms, actions (raw, one row per environment step).
    """

    agent: Annotated[str, tyro.conf.Positional]
    start: Path | None = None
    goal: Path | None = None
    episode: int = 0
    out: Path | None = None
    seed: int = 0
    processes: int = 1
    json: bool = False


def run(args: Args) -> int:
    """Plan and print."""
    from wm_toolkit.training.launch import launch

    launch(_plan, args.processes, args, device="cpu")
    return 0


def _plan(args: Args) -> None:
    """What every process does; the first one speaks."""
    from wm_toolkit.agents.agent import Agent
    from wm_toolkit.planning.shared import shared_candidates
    from wm_toolkit.training.launch import world

    agent = Agent.from_pretrained(args.agent)
    start, goal = pictures(args, agent)
    with shared_candidates():
        plan, taken = search(agent, start, goal, args.seed)
    if world()[0] != 0:
        return
    actions = raw_actions(agent, plan)
    score = float(plan.score[0])
    if args.out is not None:
        write_picture(args.out, agent, start, goal, plan)
        output.say(f"wrote {args.out}")
    if args.json:
        output.emit({"score": score, "decision_ms": taken, "actions": actions.tolist()})
        return
    rows = [
        (str(t), " ".join(f"{x:.3f}" for x in action.ravel())) for t, action in enumerate(actions)
    ]
    title = f"score {score:.4g}, {taken:.0f} ms, {agent.spaces.block} environment steps per action block"
    output.show_table(("step", "action"), rows, title=title)


def image_key(agent: Agent) -> str:
    """The observation that is a picture.

    Raises:
        ConfigError: if the agent reads none.
    """
    from wm_toolkit.spaces import is_image

    for key, space in agent.spaces.observation.items():
        if is_image(space):
            return key
    raise ConfigError(f"the agent reads {sorted(agent.spaces.observation)}, none is a picture")


def pictures(args: Args, agent: Agent) -> tuple[np.ndarray, np.ndarray]:
    """Start and goal [h, w, 3], from files or from a held-out episode.

    Raises:
        ConfigError: if only one of them is given.
    """
    from wm_toolkit.render.video import read_image

    if (args.start is None) != (args.goal is None):
        raise ConfigError("give both --start and --goal, or neither")
    if args.start is not None and args.goal is not None:
        height, width, _ = agent.spaces.observation[image_key(agent)].shape or (0, 0, 0)
        size = (height, width)
        return read_image(args.start, size), read_image(args.goal, size)
    from wm_toolkit.training.jobs import agent_data

    protocol = agent.info["evaluation"]
    held_out = agent_data(agent).held_out
    film = held_out.rows(args.episode)[f"obs/{image_key(agent)}"]
    end = min(protocol["goal_offset"], len(film) - 1)
    return film[0].copy(), film[end].copy()  # the file is mapped read-only


def search(agent: Agent, start: np.ndarray, goal: np.ndarray, seed: int) -> tuple[Plan, float]:
    """The agent's first plan [1, H, A] and the milliseconds it took; pictures are [h, w, 3].

    Raises:
        ConfigError: if the agent does not plan.
    """
    import torch

    key = image_key(agent)
    obs = {key: start[None], f"goal/{key}": goal[None]}
    generator = torch.Generator(agent.model.device).manual_seed(seed)
    began = time.perf_counter()
    decision, _ = agent.act(obs, agent.initial(1), is_first=[True], generator=generator)
    taken = 1e3 * (time.perf_counter() - began)
    if decision.plan is None:
        raise ConfigError(f"{type(agent.actor).__name__} acts without a plan")
    return decision.plan, taken


def raw_actions(agent: Agent, plan: Plan) -> np.ndarray:
    """[H * block, ...] the environment's own actions of a plan."""
    blocks = agent.spaces.decode_action(plan.actions[0].cpu())
    return blocks.reshape(len(blocks) * agent.spaces.block, -1)


def write_picture(
    path: Path, agent: Agent, start: np.ndarray, goal: np.ndarray, plan: Plan
) -> None:
    """Write start [h, w, 3], the dreamt frames if the model can draw, and apart from them the goal."""
    import numpy as np

    from wm_toolkit.render.report import GoalEpisode, goal_strip
    from wm_toolkit.render.video import save_png

    frames = np.stack([start, *dreamt(agent, start, plan)])
    save_png(goal_strip(GoalEpisode(frames, goal, True), scale=2), path)


def dreamt(agent: Agent, start: np.ndarray, plan: Plan) -> Any:
    """[H, h, w, 3] frames that the model's decoder draws along the plan; empty without a decoder."""
    import torch

    if "decoder" not in agent.model.heads:
        return []
    model = agent.model
    with torch.no_grad():
        obs = {image_key(agent): torch.as_tensor(start[None]).to(model.device)}
        state = model.observe(model.initial(1), torch.zeros_like(plan.actions[:, 0]), obs)
        dream = model.rollout(state, plan.actions[:, None])[0, 0]
        mean = model.predict("decoder", dream).mean
    return (mean.clamp(0, 1) * 255).round().byte().cpu().numpy()
