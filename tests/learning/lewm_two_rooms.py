"""LeWorldModel (small) on TwoRooms, measured: python tests/learning/lewm_two_rooms.py [SEED ...].

Trains every seed from scratch, reaches 100 held-out goals 25 random-walk steps away and 100 goals in the
opposite room, with the random policy and the same search in the true dynamics beside it, and writes one
JSON line a seed into tests/learning/results/lewm_two_rooms.jsonl, in place of the seed's older one, training curves
included.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from imagination import write

from wm_toolkit.agents.agent import Agent
from wm_toolkit.registry import recipe_config
from wm_toolkit.render.rollout import horizon_error
from wm_toolkit.training import jobs
from wm_toolkit.training.baselines import oracle_agent, random_agent
from wm_toolkit.training.evaluate import evaluate
from wm_toolkit.training.logging import METRICS, read_metrics

RECIPE = "lewm.small"
RESULTS = Path(__file__).parent / "results" / "lewm_two_rooms.jsonl"
CURVES = ("loss/prediction", "loss/sigreg", "monitor/spread", "monitor/effective_rank")
PROBE = "monitor/probe_r2/position"
SIGREG_MEAN_OVER = 50  # updates at the end of training; a single batch of 64 is noisy


def measure(seed: int, folder: Path, *, opposite: bool = True) -> dict[str, Any]:
    """Train one seed and measure everything; CPU seconds are of this process, one thread."""
    began = time.process_time()
    config = recipe_config(RECIPE, train__seed=seed, train__log_every=5, evaluation__episodes=100)
    data = jobs.prepare_two_rooms(folder / "tworooms.h5")
    run = folder / f"seed{seed}"
    jobs.train_offline(RECIPE, config, data, run, probes=("position",))
    trained = time.process_time()
    agent, ready = Agent.from_pretrained(run), jobs.offline_data(data, config)
    near = evaluate(agent, ready.held_out).to_json()
    planned = time.process_time()
    rows = read_metrics(run / METRICS)
    last = [row["loss/sigreg"] for row in rows if "loss/sigreg" in row]
    tail = last[-SIGREG_MEAN_OVER // config.train.log_every :]
    error = horizon_error(agent.model, jobs.monitor_batch(ready, 6))
    result: dict[str, Any] = {
        "case": RECIPE,
        "seed": seed,
        "near": near,
        "sigreg": sum(tail) / len(tail),
        "probe_r2": [row[PROBE] for row in rows if PROBE in row][-1],
        "open_loop": list(error.model),
        "copy_last": list(error.copy),
        "cpu_seconds": {
            "data_and_training": trained - began,
            "planning_100_goals": planned - trained,
            "total": planned - began,
        },
        "curves": {
            name: [(row["update"], round(row[name], 4)) for row in rows if name in row]
            for name in (*CURVES, PROBE)
        },
    }
    contenders = {"random": random_agent(agent), "oracle": oracle_agent(agent)}
    if opposite:
        for name, other in contenders.items():
            result[f"near_{name}"] = evaluate(other, ready.held_out).to_json()
        for name, other in {"model": agent, **contenders}.items():
            result[f"opposite_{name}"] = evaluate(other, None, _opposite(other)).to_json()
    return result


def _opposite(agent: Agent) -> Any:
    protocol = agent.info["evaluation"]
    config = recipe_config(RECIPE).evaluation
    return dataclasses.replace(
        config,
        episodes=100,
        env=protocol["env"],
        env_options=protocol["env_options"],
        goals="env",
        goal_options={"goal_room": "opposite"},
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    for number in map(int, sys.argv[1:] or ("0", "1", "2")):
        with tempfile.TemporaryDirectory() as temporary:
            line = measure(number, Path(temporary))
        write(line, RESULTS)
        print(json.dumps({k: v for k, v in line.items() if k != "curves"}), flush=True)
