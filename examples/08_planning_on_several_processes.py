"""The same goals with one process and with several: the same successes, in less time.

python examples/08_planning_on_several_processes.py            a minute
python examples/08_planning_on_several_processes.py --smoke    seconds, with few goals
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from wm_toolkit import Agent, evaluate
from wm_toolkit.checkpoint import save_json
from wm_toolkit.config import from_dict, override
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.training.config import EvaluationConfig
from wm_toolkit.training.jobs import prepare_two_rooms
from wm_toolkit.training.launch import launch, world


def main(episodes: int, group: int, processes: int, run: Path) -> None:
    """Share out episodes, then candidates; compare each with one process."""
    # Walks of another seed than the model was trained on.
    walks = prepare_two_rooms(run / "unseen.h5", episodes=40, seed=1)
    print(
        f"{'shared out':<12}{'processes':>10}{'successes':>11}{'steps to goal':>15}{'seconds':>9}"
    )
    for what, size in (("episodes", group), ("candidates", episodes)):
        found = []
        for count in (1, processes):
            # Starts the processes and waits for them; `torchrun` would do as well.
            launch(measure, count, walks, episodes, size, count, run, device="cpu")
            found.append(json.loads((run / f"{count}.json").read_text()))
            print(line(what, count, **found[-1]))
        one, many = ({k: v for k, v in row.items() if k != "seconds"} for row in found)
        print(f"sharing out {what} changes {'nothing' if one == many else 'the result'}")


def measure(walks: TrajectoryDataset, episodes: int, group: int, processes: int, run: Path) -> None:
    """What every process does: ask for the same evaluation, and get the whole result."""
    torch.set_num_threads(1)
    agent = Agent.from_pretrained("lewm-tworooms")
    protocol = from_dict(EvaluationConfig, agent.info["evaluation"])
    # Groups of episodes are shared out where there are enough of them; a single group is planned for by
    # all processes together, each scoring its share of the candidates.
    protocol = override(protocol, {"episodes": episodes, "group": group})
    began = time.perf_counter()
    result = evaluate(agent, walks, protocol, processes=processes)
    seconds = time.perf_counter() - began
    if world()[0] == 0:
        steps = [record.steps for record in result.records]
        save_json(run / f"{processes}.json", {"steps": steps, "seconds": seconds})


def line(what: str, processes: int, steps: list[int | None], seconds: float) -> str:
    """One row of the table."""
    reached = [step for step in steps if step is not None]
    mean = sum(reached) / max(1, sum(step > 0 for step in reached))
    return f"{what:<12}{processes:>10}{len(reached):>8}/{len(steps)}{mean:>14.1f}{seconds:>10.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="few goals")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--run", type=Path, default=Path("runs/several_processes"))
    args = parser.parse_args()
    main(8 if args.smoke else 100, 4 if args.smoke else 50, args.processes, args.run)
