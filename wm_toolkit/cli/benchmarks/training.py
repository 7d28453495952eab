"""How long an update takes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from wm_toolkit.agents.agent import Agent
from wm_toolkit.batch import Batch
from wm_toolkit.cli.benchmarks import Case, benchmark, dreamer_update
from wm_toolkit.cli.benchmarks.measure import RIVAL_PYTHON, compare, matrix_rate, operations
from wm_toolkit.errors import WmError
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.seeding import own_stream

RECIPE, FRAME_SKIP, BATCH, LENGTH = "lewm.small", 5, 64, 4
RIVAL = "sheeprl"
OURS = ("-m", "wm_toolkit.cli.benchmarks.dreamer_update")
THEIRS = (str(Path(__file__).with_name("sheeprl_update.py")),)
REPEATS = {"vector": 7, "image": 3}


@benchmark("train")
def run(quick: bool) -> Iterator[Case]:
    """CPU time and memory of an update: Dreamer V3 beside its peer, and the small LeWorldModel."""
    interpreter = os.environ.get(RIVAL_PYTHON) or sys.executable
    for workload, repeats in REPEATS.items():
        yield from dreamer(workload, interpreter, 1 if quick else repeats)
    agent, batch = example_agent(), example_batch()
    taken = compare({"ours": lambda: agent.learn(batch)}, 2 if quick else 10)["ours"].cpu
    floor = operations(lambda: agent.learn(batch)) / matrix_rate()
    yield Case(f"{RECIPE}, batch {BATCH}x{LENGTH}", "ms", 1e3 * taken, 1e3 * floor)


# -- Dreamer V3 ------------------------------------------------------------------------------------
class Worker:
    """A process that makes one update at a time (`dreamer_update`, `sheeprl_update`).

    Attributes:
        parameters: how many the model has.
        cpu: seconds every update took.
        peak: most memory the process held so far, MB.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.parameters: int = self._heard()["parameters"]
        self.cpu: list[float] = []
        self.peak, self._before = 0.0, 0.0

    def update(self) -> None:
        """Make one, and note what it took."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        heard = self._heard()
        self.cpu.append(heard["cpu"] - self._before)
        self._before, self.peak = heard["cpu"], heard["peak"] / 1024

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # what packages print on import is none of ours
                return json.loads(line)
        self.close()
        raise WmError(
            f"{self._process.args} ended with status {self._process.returncode}; it says why above"
        )


def dreamer(workload: str, interpreter: str, repeats: int) -> Iterator[Case]:
    """CPU seconds and peak memory of one update by us and by the peer, which take turns."""
    workers = {"ours": Worker((sys.executable, *OURS, workload))}
    peer = peer_version(interpreter)
    if peer is not None:
        workers["theirs"] = Worker((interpreter, *THEIRS, workload))
    for _ in range(1 + repeats):
        for worker in workers.values():
            worker.update()
    for worker in workers.values():
        worker.close()
    yield from compared(workload, workers["ours"], workers.get("theirs"), f"{RIVAL} {peer or ''}")


def compared(workload: str, ours: Worker, theirs: Worker | None, peer: str) -> Iterator[Case]:
    """Medians without the first update, which also allocates; the peak of the memory is over all."""
    update = dreamer_update.Update(workload)
    floor = operations(update) / matrix_rate()
    sizes = f"{dreamer_update.BATCH}x{dreamer_update.LENGTH}"
    case = f"dreamer_v3, {workload}, {ours.parameters:,} parameters, batch {sizes}"
    mine, least = statistics.median(ours.cpu[1:]), min(ours.cpu[1:])
    note, their = f"{mine / floor:.2f} of the floor; least {least:.3g}", None
    if theirs is not None:
        their = statistics.median(theirs.cpu[1:])
        note += (
            f", the peer's {min(theirs.cpu[1:]):.3g}; the peer has {theirs.parameters:,} parameters"
        )
    yield Case(case, "CPU s", mine, floor, peer, their, note=note)
    memory = None if theirs is None else theirs.peak
    yield Case(f"{case}, peak memory", "MB", ours.peak, None, peer, memory)


def peer_version(interpreter: str) -> str | None:
    """The version of the peer that an interpreter finds, or None."""
    ask = f"from importlib.metadata import version; print(version({RIVAL!r}))"
    found = subprocess.run((interpreter, "-c", ask), capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


# -- LeWorldModel ----------------------------------------------------------------------------------
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
