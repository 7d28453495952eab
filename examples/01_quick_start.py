"""Quick start: recorded walks in, a world model out, goals it never saw reached by planning in it.

python examples/01_quick_start.py            a few minutes on one core
python examples/01_quick_start.py --smoke    seconds; shows the way and learns next to nothing
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from wm_toolkit import Agent, evaluate
from wm_toolkit.registry import recipe_config
from wm_toolkit.training.baselines import random_agent
from wm_toolkit.training.jobs import agent_data, prepare_two_rooms, train_offline
from wm_toolkit.training.progress import ProgressBar
from wm_toolkit.training.summary import Evaluation


def main(smoke: bool, run: Path) -> None:
    """Train (or go on with a training that was stopped), load, measure."""
    # Offline data: a red dot wandered at random through two rooms. Nobody told it about goals.
    data = prepare_two_rooms(run / "walks.h5", episodes=60 if smoke else 1000)
    print(f"data: {len(data)} walks, {data.num_rows:,} frames in {data.path}")

    # A recipe is a system with its hyper-parameters; a preset is a named variant of them.
    config = recipe_config("lewm.small")
    if smoke:
        short = {"train__updates": 10, "train__batch_size": 16, "evaluation__episodes": 10}
        config = recipe_config("lewm.small", **short)

    # Train it. One tenth of the walks is held out. Run again after Ctrl-C, it goes on.
    _, result = train_offline("lewm.small", config, data, run, hooks=[ProgressBar()])
    print(f"trained: {result.update} updates, saved in {run / 'model'}")

    # Load it in one line: weights, spaces, statistics, planner and protocol come along.
    agent = Agent.from_pretrained(run)

    # Reach goals of held-out walks: 25 steps away, 50 steps to get there, from pixels alone.
    held_out = agent_data(agent).held_out
    print(line("lewm.small", evaluate(agent, held_out)))
    print(line("random", evaluate(random_agent(agent), held_out)))


def line(name: str, found: Evaluation) -> str:
    """One result with its interval, on one line."""
    low, high = found.interval
    return (
        f"{name}: {found.success_rate:.0%} of {found.episodes} goals reached "
        f"(95 % interval {low:.0%} to {high:.0%}), {found.decision_ms:.1f} ms per decision"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--run", type=Path, default=Path("runs/quick_start"))
    args = parser.parse_args()
    main(args.smoke, args.run)
