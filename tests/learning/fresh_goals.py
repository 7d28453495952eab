"""The pretrained LeWorldModel on goals that played no part in any choice: python tests/learning/fresh_goals.py.

Planner and objective of `lewm.small` were chosen while looking at goals of the default walks. These 200 are
taken from walks of another seed, which nothing was trained, tuned or selected on.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import torch

from wm_toolkit import Agent, evaluate
from wm_toolkit.config import from_dict
from wm_toolkit.training import jobs
from wm_toolkit.training.config import EvaluationConfig

if __name__ == "__main__":
    torch.set_num_threads(1)
    agent = Agent.from_pretrained("lewm-tworooms")
    protocol = from_dict(EvaluationConfig, agent.info["evaluation"])
    protocol = dataclasses.replace(protocol, episodes=200, seed=7)
    with tempfile.TemporaryDirectory() as folder:
        walks = jobs.prepare_two_rooms(Path(folder) / "walks.h5", episodes=200, seed=7)
        print(json.dumps(evaluate(agent, walks, protocol).to_json()))
