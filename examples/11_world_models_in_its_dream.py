"""World Models: a controller that never played the game, grown up in the dreams of a model of it.

python examples/11_world_models_in_its_dream.py            minutes on one core
python examples/11_world_models_in_its_dream.py --smoke    seconds; shows the way and learns next to nothing

Random play in Dodge (stay alive under falling balls) teaches V to see and M to dream. C, one linear layer, is
evolved by living long in dreams alone, and is then put into the real game. (Ha and Schmidhuber 2018)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from wm_toolkit import Agent
from wm_toolkit.envs.imagined import WorldModelVectorEnv
from wm_toolkit.errors import MissingPackageError
from wm_toolkit.planning.objective import Survival
from wm_toolkit.registry import recipe_config
from wm_toolkit.render.video import save_gif
from wm_toolkit.training.baselines import random_agent
from wm_toolkit.training.jobs import agent_data, train
from wm_toolkit.training.progress import ProgressBar
from wm_toolkit.training.returns import evaluate_returns

RECIPE, ENV, N = "world_models.small", "wm_toolkit/Dodge-v0", 32
SMOKE = {"rollouts": 20, "vision_updates": 30, "memory_updates": 20, "population": 6, "starts": 4}
SMOKE |= {"horizon": 40, "train__updates": 53, "evaluation__episodes": 10}  # three generations


def main(smoke: bool, run: Path) -> None:
    """Train V, M and C one after the other; then let C live in dreams and in the game."""
    config = recipe_config(RECIPE, **(SMOKE if smoke else {}))
    _, result = train(RECIPE, config, run, env=ENV, hooks=[ProgressBar()])
    agent = Agent.from_pretrained(run)
    size = sum(p.numel() for p in agent.model.heads["policy"].parameters())
    print(f"trained: {result.update:,} updates; C has {size} parameters")

    life, film = dreamt(agent)
    save_gif(film, run / "dream.gif", fps=20)
    print(
        f"in dreams C lives {life:.0f} of {config.horizon} steps; one of them: {run / 'dream.gif'}"
    )
    real, random = evaluate_returns(agent), evaluate_returns(random_agent(agent))
    for name, found in (("C", real), ("random", random)):
        low, high = found.interval or (float("nan"),) * 2
        print(f"{name} lives {found.return_mean:.0f} steps (95 % interval {low:.0f} to {high:.0f})")
    print(f"in the real game that is {real.return_mean / random.return_mean:.1f} times as long")


def dreamt(agent: Agent) -> tuple[float, list[np.ndarray]]:
    """How long C lives in dreams that begin like recorded episodes, and what the first looks like."""
    how = {name: getattr(agent.config, name) for name in ("horizon", "termination")}
    how |= {"starts": agent_data(agent).held_out, "render_mode": "rgb_array"}
    dream = WorldModelVectorEnv(N, model=agent, objective=Survival(), **how)
    obs, _ = dream.reset(seed=0)
    alive, life, film = np.ones(N, bool), np.zeros(N), []
    while alive.any():
        film += (dream.render() or ())[: int(alive[0])]
        seen = torch.from_numpy(obs)  # features of the model's state
        action = agent.spaces.decode_action(agent.model.heads["policy"](seen).mode)
        obs, _, terminated, truncated, _ = dream.step(action)
        life += alive
        alive &= ~(terminated | truncated)
    return float(life.mean()), film


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    try:
        main(parser.parse_args().smoke, Path("runs/world_models"))
    except MissingPackageError as error:
        print(f"skipped: {error}")
