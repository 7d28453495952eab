"""Updates of our Dreamer V3 in a process of its own: `python -m wm_toolkit.cli.benchmarks.dreamer_update`.

The first line it prints says how many parameters there are; then it makes one update for every line that
comes in, and answers with the CPU seconds (of the process) and the peak of its memory (kB) so far.
`sheeprl_update` does the same for the peer.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time

import gymnasium as gym
import numpy as np
import torch

from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.batch import Batch
from wm_toolkit.recipes.dreamer_v3 import SIZES, DreamerV3Config, Size
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.seeding import own_stream

BATCH, LENGTH, ACTION, VECTOR = 16, 64, 6, 24
WORKLOADS = {
    "vector": dataclasses.replace(SIZES["12m"], deter=256),
    "image": SIZES["12m"],
}
"""2.6 M parameters on a vector of 24 numbers, 10.5 M on 64 x 64 images; one continuous action of 6."""


def example_agent(workload: str, config: DreamerV3Config) -> Agent:
    """A fresh agent for what the workload shows."""
    observations = {
        "vector": gym.spaces.Box(-np.inf, np.inf, (VECTOR,), np.float32),
        "image": gym.spaces.Box(0, 255, (64, 64, 3), np.uint8),
    }
    action = gym.spaces.Box(-1.0, 1.0, (ACTION,), np.float32)
    with own_stream(0):
        return build("dreamer_v3", Spaces({workload: observations[workload]}, action), config)


def example_batch(workload: str, size: Size) -> Batch:
    """[16, 65] rows of noise: a row of context with a stored state, then 64 to learn from."""
    rng, shape = torch.Generator().manual_seed(0), (BATCH, LENGTH + 1)
    seen = torch.randn(*shape, VECTOR, generator=rng)
    if workload == "image":
        seen = torch.randint(0, 256, (*shape, 64, 64, 3), generator=rng, dtype=torch.uint8)
    never = torch.zeros(shape, dtype=torch.bool)
    stored = {
        "deter": torch.zeros(*shape, size.deter, dtype=torch.float16),
        "stoch": torch.zeros(*shape, size.latents, dtype=torch.uint8),
    }
    action = torch.rand(*shape, ACTION, generator=rng) * 2 - 1
    reward = torch.randn(shape, generator=rng)
    return Batch({workload: seen}, action, never, reward, never, never, extras=stored)


class Update:
    """One update of a workload, with the states it found written back where they came from.

    Args:
        workload: which.
        config: of the agent; by default of the workload's size.
    """

    def __init__(self, workload: str, config: DreamerV3Config | None = None) -> None:
        config = config or DreamerV3Config(size=WORKLOADS[workload])
        self.agent = example_agent(workload, config)
        self.batch = example_batch(workload, config.size)
        assert isinstance(self.agent.learner, ModelLearner)
        self.learner = self.agent.learner

    @property
    def parameters(self) -> int:
        """How many the optimiser moves."""
        return sum(p.numel() for p in self.agent.model.parameters())

    def __call__(self) -> None:
        self.agent.learn(self.batch)
        found = self.learner.program.latents
        assert found is not None
        for name, column in self.batch.extras.items():
            column[:, 1:] = found[name]


def main() -> None:
    """Build the workload named on the command line; make an update for every line that comes in."""
    torch.set_num_threads(1)
    update = Update(sys.argv[1])
    print(json.dumps({"parameters": update.parameters}), flush=True)
    for _ in sys.stdin:
        update()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"cpu": time.process_time(), "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
