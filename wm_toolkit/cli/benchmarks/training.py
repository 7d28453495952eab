"""How long an update takes."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import torch

from wm_toolkit.agents.agent import Agent
from wm_toolkit.batch import Batch
from wm_toolkit.cli.benchmarks import Case, benchmark
from wm_toolkit.cli.benchmarks.measure import compare, matrix_rate, operations
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.seeding import own_stream

RECIPE, FRAME_SKIP, BATCH, LENGTH = "lewm.small", 5, 64, 4


@benchmark("train")
def run(quick: bool) -> Iterator[Case]:
    """Milliseconds per update of the small LeWorldModel, against its multiplications alone."""
    agent, batch = example_agent(), example_batch()
    taken = compare({"ours": lambda: agent.learn(batch)}, 2 if quick else 10)["ours"].cpu
    floor = operations(lambda: agent.learn(batch)) / matrix_rate()
    yield Case(f"{RECIPE}, batch {BATCH}x{LENGTH}", "ms", 1e3 * taken, 1e3 * floor)


def example_agent() -> Agent:
    """The small LeWorldModel for TwoRooms, fresh."""
    image = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    move = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    with own_stream(0):
        return build(RECIPE, Spaces({"image": image}, move).blocked(FRAME_SKIP))


def example_batch() -> Batch:
    """[64, 4] windows of noise: speed does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(
        0, 256, (BATCH, LENGTH, 64, 64, 3), generator=generator, dtype=torch.uint8
    )
    action = torch.rand(BATCH, LENGTH, 2 * FRAME_SKIP, generator=generator) * 2 - 1
    return Batch({"image": image}, action, torch.zeros(BATCH, LENGTH, dtype=torch.bool))
