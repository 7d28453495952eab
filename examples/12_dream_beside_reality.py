"""Dream beside reality: how far can a world model be believed, and what can be done inside it?

python examples/12_dream_beside_reality.py            minutes
python examples/12_dream_beside_reality.py --smoke    seconds; the model has learnt little then

It sees five steps of new episodes and dreams on with the actions that were taken: numbers here, curves in
runs/dream/report.html. Random play swings the pendulum, and dreams follow; the agent balances it, and dreams that no
longer see it let it fall. Then the dream is an environment, and planners search it.
"""

import argparse

import numpy as np
import torch

from wm_toolkit import CEM, MPPI, Agent, Batch, Reward
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.envs.imagined import WorldModelVectorEnv
from wm_toolkit.planning.gradient import GradientPlanner
from wm_toolkit.planning.shooting import RandomShooting
from wm_toolkit.registry import recipe_config
from wm_toolkit.render.dreams import look, save_look
from wm_toolkit.training.baselines import random_agent
from wm_toolkit.training.collector import Collector
from wm_toolkit.training.dream_hooks import DreamReport, newest_windows
from wm_toolkit.training.online import train_online, vector_env
from wm_toolkit.training.return_page import render_returns

RECIPE, ENV, RUN, H = "dreamer_v3.nano", "Pendulum-v1", "runs/dream", 12
RETURN = Reward(gamma=1.0, bootstrap="none")  # the plain sum of predicted rewards


def new_episodes(player: Agent, rows: int = 1000) -> Batch:
    """Windows [B, T] of episodes that no agent has learnt from."""
    envs = vector_env(ENV, recipe_config(RECIPE, train__seed=1, envs=1))
    collector, replay = Collector(player, envs, seed=1), ReplayBuffer(player.spaces, capacity=rows)
    while len(replay) < rows:
        replay.add(**collector.collect())
    envs.close()
    batch = newest_windows(replay)
    assert batch is not None
    return batch


def main(updates: int) -> None:
    """Train; then look at the dreams, act in them, plan in them."""
    config = recipe_config(RECIPE, train__updates=updates)
    agent, _ = train_online(RECIPE, config, ENV, RUN, hooks=[DreamReport(every=100)])
    model, batch = agent.model, new_episodes(random_agent(agent))
    for who, seen in {"the agent": new_episodes(agent), "random play": batch}.items():
        found = look(model, seen, context=5)
        print(f"episodes of {who}, 15 steps ahead")
        for name in ("latent_error", "vector_error", "kl"):
            dream, copy = (found.dreams.metrics()[f"dream/{name}{end}/15"] for end in ("", "_copy"))
            print(f"  {name}: {dream:.3f}, repeating what was last seen {copy:.3f}")
        for where, fit in found.dreams.rewards:
            print(f"  reward of {where} states: squared error {fit.mse:.3f}, bias {fit.bias:+.3f}")
    save_look(found, RUN)
    print(f"page: {render_returns(RUN)}")

    envs = WorldModelVectorEnv(64, model=model, objective=RETURN, starts=batch[:, :6], horizon=H)
    envs.reset(seed=0)
    total = sum(np.mean(envs.step(envs.action_space.sample())[1]) for _ in range(H))
    print(f"random actions in the dream: {total:.1f} in {H} steps")
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        state = model.observe_sequence(batch[:, :6], generator=noise)[:, -1]
    search = {"random": RandomShooting(horizon=H, samples=1), "CEM": CEM(horizon=H, iterations=6)}
    search |= {"MPPI": MPPI(horizon=H), "gradient": GradientPlanner(horizon=H, samples=8)}
    for name, planner in search.items():
        score = planner.plan(model, state, RETURN, generator=noise).score.mean()
        print(f"{name} plans: {score:.1f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true")
    main(updates=80 if parser.parse_args().smoke else 1300)
