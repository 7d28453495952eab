"""A real training run that is told to end closes its environments, wherever they are, and can go on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from wm_toolkit.cli.main import TERMINATED

ENVS = """
import os, pathlib
import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

class Engine(CartPoleEnv):
    '''Leaves a file as long as it is open, as a game's engine would leave a process.'''

    steps = 0

    def __init__(self):
        super().__init__()
        self.file = pathlib.Path(os.environ["ENGINES"]) / f"{os.getpid()}-{id(self)}"
        self.file.touch()

    def step(self, action):
        Engine.steps += 1
        if Engine.steps == 60:  # behind the first checkpoint
            print("far enough", flush=True)
        return super().step(action)

    def close(self):
        self.file.unlink(missing_ok=True)
        super().close()

gym.register("Engine-v0", "engines:Engine")
"""

SMALL = (
    *("size.deter=16", "size.units=8", "size.classes=3", "size.depth=1", "size.latents=2"),
    *("size.groups=2", "behaviour.horizon=3", "sequence=6", "train_ratio=12", "prefill=30"),
    *("burst=1", "envs=2", "capacity=300", "train.batch_size=4", "train.checkpoint_every=1"),
)


@pytest.mark.parametrize("actors", ["inline", "process"])
def test_sigterm_closes_the_environments_of_a_run(actors, tmp_path):
    (tmp_path / "engines.py").write_text(ENVS)
    engines, run = tmp_path / "open", tmp_path / "run"
    engines.mkdir()
    words = ("train", "dreamer_v3.nano", "--env", "engines:Engine-v0", "--run", str(run))
    program = (sys.executable, "-m", "wm_toolkit.cli.main", *words, "--updates", "1000000")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    mine = {"PYTHONPATH": paths, "ENGINES": str(engines), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        (*program, "--set", *SMALL, f"actors={actors}"),
        env=os.environ | mine,
        stdout=-1,
        stderr=-1,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "far enough\n", process.communicate()[1]
        assert len(list(engines.iterdir())) == 2
        process.terminate()
        said = process.communicate()[1]
    assert process.returncode == TERMINATED, said
    assert said.endswith("wm: stopped; the same command goes on from the last checkpoint\n")
    assert list(engines.iterdir()) == []
    assert list((run / "checkpoints").iterdir())
