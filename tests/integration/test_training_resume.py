"""A run that is killed and started again equals one that never stopped, bit for bit on a CPU.

Run as a program this file trains in a run folder, for the test to kill.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_toys import ToySource, toy_agent, toy_batch

from wm_toolkit.training.config import TrainConfig
from wm_toolkit.training.hooks import CollapseMonitor, Hook
from wm_toolkit.training.trainer import Trainer

UPDATES = 24
TIMES = ("updates_per_second", "data_wait")


class Interrupt(Hook):
    """Stops the process in its tracks after one update."""

    def __init__(self, after):
        self.after = after

    def after_update(self, trainer, metrics):
        if trainer.update == self.after:
            raise KeyboardInterrupt
        return {}


class Slow(Hook):
    """Leaves time to be killed, and has a memory of its own."""

    def __init__(self, seconds=0.0):
        self.seconds, self.seen = seconds, 0.0

    def after_update(self, trainer, metrics):
        time.sleep(self.seconds)
        self.seen += float(metrics["loss"])
        return {"seen": self.seen}

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def make(run_dir, *hooks, updates=UPDATES):
    agent = toy_agent(dropout=0.3, norm=True, ema=0.9)
    monitor = CollapseMonitor(toy_batch(torch.Generator().manual_seed(9)), ("vector",), every=4)
    return Trainer(
        agent,
        ToySource(),
        run_dir=run_dir,
        config=TrainConfig(
            updates=updates, batch_size=8, log_every=2, eval_every=6, checkpoint_every=5
        ),
        evaluate=lambda agent: {"noise": float(torch.rand(()))},
        hooks=[monitor, *hooks],
    )


def final(run_dir):
    folder = sorted(Path(run_dir, "checkpoints").glob("update_*"))[-1]
    state = torch.load(folder / "state.pt", weights_only=True)
    lines = Path(run_dir, "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    logged = [{k: v for k, v in line.items() if k not in TIMES} for line in metrics]
    return folder.name, load_file(folder / "model.safetensors"), state, logged


def assert_equal_runs(one, two):
    (name, model, state, metrics), (name2, model2, state2, metrics2) = final(one), final(two)
    assert name == name2
    assert all(torch.equal(model[key], model2[key]) for key in model | model2)
    assert flat(state) == flat(state2)
    assert metrics == metrics2


def flat(node):
    if isinstance(node, torch.Tensor):
        return node.tolist()
    if isinstance(node, dict):
        return {key: flat(value) for key, value in node.items()}
    return [flat(value) for value in node] if isinstance(node, list | tuple) else node


@pytest.mark.parametrize("after", [3, 5, 13])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, after):
    make(tmp_path / "straight", Slow(), Hook()).train()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "broken", Slow(), Interrupt(after)).train()
    torch.rand(after)  # whatever the caller draws in between does not matter
    make(tmp_path / "broken", Slow(), Hook()).train()
    assert_equal_runs(tmp_path / "straight", tmp_path / "broken")


def test_a_run_killed_between_checkpoints_resumes_to_the_same_bits(tmp_path):
    make(tmp_path / "straight", Slow()).train()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    killed = subprocess.Popen([sys.executable, __file__, str(tmp_path / "killed")], env=environment)
    metrics = tmp_path / "killed" / "metrics.jsonl"
    while not (metrics.exists() and '"update": 8' in metrics.read_text()):
        assert killed.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    make(tmp_path / "killed", Slow()).train()
    assert_equal_runs(tmp_path / "straight", tmp_path / "killed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    make(sys.argv[1], Slow(0.1)).train()
