"""World Models (small) on Dodge, measured: python tests/learning/dodge_in_the_dream.py [SEED ...].

Trains every seed from scratch (random rollouts, V, M, and a controller evolved in dreams alone), plays 100
real episodes with it and with uniformly random actions, and writes one JSON line a seed into
tests/learning/results/dodge_in_the_dream.jsonl, in place of the seed's older one, curves included.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from imagination import write

from wm_toolkit.agents.agent import Agent
from wm_toolkit.registry import recipe_config
from wm_toolkit.training.baselines import random_agent
from wm_toolkit.training.logging import METRICS, read_metrics
from wm_toolkit.training.returns import evaluate_returns
from wm_toolkit.training.stages import train_in_stages

RECIPE, ENV = "world_models.small", "wm_toolkit/Dodge-v0"
RESULTS = Path(__file__).parent / "results" / "dodge_in_the_dream.jsonl"
CURVES = (
    "loss/reconstruction",
    "loss/transition",
    "loss/continue",
    "fitness/mean",
    "fitness/champion",
)
EVERY = 25  # updates between two points of a curve


def measure(seed: int, folder: Path) -> dict[str, Any]:
    """Train one seed and play; CPU seconds are of this process, one thread."""
    began = time.process_time()
    run = folder / f"seed{seed}"
    config = recipe_config(RECIPE, train__seed=seed, train__log_every=EVERY)
    train_in_stages(RECIPE, config, ENV, run)
    return played(seed, run, time.process_time() - began)


def played(seed: int, run: Path, cpu_seconds: float) -> dict[str, Any]:
    """A finished run in the real environment, beside random actions."""
    agent = Agent.from_pretrained(run)
    rows = [row for row in read_metrics(run / METRICS) if row["update"] % EVERY == 0]
    return {
        "case": RECIPE,
        "seed": seed,
        "controller": evaluate_returns(agent).to_json(),
        "random": evaluate_returns(random_agent(agent)).to_json(),
        "cpu_seconds": cpu_seconds,
        "curves": {
            name: [(row["update"], row[name]) for row in rows if row.get(name) is not None]
            for name in CURVES
        },
    }


def main(seeds: list[int]) -> None:
    """Measure and write down."""
    torch.set_num_threads(1)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(seed, Path(folder))
        write(result, RESULTS)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [0, 1, 2])
