"""World Models' V and M on CarRacing, measured: python tests/learning/car_racing_dreams.py [SEED ...].

As `wm train world_models.car_racing` with SETTINGS: rollouts are recorded here, V and M learn from them at their
published sizes, and C is left out. Everything is measured on rollouts that training never saw, once from their first
row on, where the camera flies down, and once behind that, where the car drives. Each seed is one JSON line of
tests/learning/results/car_racing_dreams.jsonl, and seed 0 draws docs/images/car_racing_dream.png; CPU seconds are of
this process, one thread, recording included.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from imagination import write
from torch import Tensor

from wm_toolkit.agents.agent import Agent
from wm_toolkit.batch import Batch
from wm_toolkit.heads.normal import Normal
from wm_toolkit.models.mdn_rnn import MDNRNN
from wm_toolkit.registry import build, recipe_config
from wm_toolkit.render.open_loop import (
    HorizonError,
    OpenLoop,
    latent_error,
    observation_errors,
    open_loop,
)
from wm_toolkit.render.rollout import Films, dream_films, evenly, strip
from wm_toolkit.render.video import save_png
from wm_toolkit.structs import cat
from wm_toolkit.training import jobs
from wm_toolkit.training.logging import METRICS, read_metrics
from wm_toolkit.training.offline import OfflineData
from wm_toolkit.training.seeding import own_stream
from wm_toolkit.training.stages import train_in_stages

RECIPE, ENV = "world_models.car_racing", "wm_toolkit/CarRacing-v0"
RESULTS = Path(__file__).parent / "results" / "car_racing_dreams.jsonl"
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "car_racing_dream.png"

# Sizes of V and M are the published ones; there are fewer rollouts and updates, and so V learns faster. New draws at
# every step hardly move the car, so most are held.
SETTINGS: dict[str, Any] = {
    "rollouts": 64,
    "rollout_steps": 300,
    "sticky": 0.98,
    "envs": 8,
    "vision_updates": 1600,
    "vision_batch": 32,
    "vision_rate": 1e-3,
    "memory_updates": 1500,
    "sequence": 64,
    "train__batch_size": 32,
    "train__updates": 3100,
    "evaluation__holdout": 0.2,
}
CURVES = ("loss/reconstruction", "loss/divergence", "loss/transition")
EVERY = 50  # updates between two points of a curve
CONTEXT, HORIZON = 20, 20  # rows observed, rows dreamt
STEPS = (1, 5, 10, 20)
BEGINS = {"zoom": range(1), "driving": range(60, 260, CONTEXT + HORIZON)}
"""Rows of an episode at which windows begin; the camera is down after 50."""
MOST, DRAWN = 64, 6  # windows that are measured; frames of a strip, from the last one seen on
COOL = 0.1  # a temperature at which dreams take the likeliest way


def measure(seed: int, folder: Path) -> dict[str, Any]:
    """Record, train and measure one seed; its run lies in the folder."""
    began = time.process_time()
    config = recipe_config(RECIPE, train__seed=seed, train__log_every=EVERY, **SETTINGS)
    train_in_stages(RECIPE, config, ENV, folder / "run")
    return looked_at(seed, folder / "run", time.process_time() - began)


def looked_at(seed: int, run: Path, cpu_seconds: float) -> dict[str, Any]:
    """What a finished run has learnt."""
    agent = Agent.from_pretrained(run)
    ready = jobs.agent_data(agent)
    rows = [row for row in read_metrics(run / METRICS) if row["update"] % EVERY == 0]
    return {
        "case": RECIPE,
        "seed": seed,
        "settings": SETTINGS,
        "rows": {"train": ready.train.num_rows, "held_out": ready.held_out.num_rows},
        "cpu_seconds": cpu_seconds,
        **{name: measured(agent, ready, name) for name in BEGINS},
        "curves": {
            name: [(row["update"], round(row[name], 4)) for row in rows if name in row]
            for name in CURVES
        },
    }


def measured(agent: Agent, ready: OfflineData, name: str) -> dict[str, Any]:
    """V, M and their dreams on one kind of held-out windows."""
    model = agent.model
    assert isinstance(model, MDNRNN)
    known, unseen = (windows(ready, part, BEGINS[name]) for part in ("train", "held_out"))
    with torch.no_grad(), own_stream(0):
        fresh = build(agent.recipe, agent.spaces, agent.config).model
        assert isinstance(fresh, MDNRNN)
        vision = vision_errors(model, fresh, known, unseen)
        fresh.encoder.load_state_dict(model.encoder.state_dict())
        memory = memory_errors(model, fresh, known, unseen)
    return {
        "windows": len(unseen),
        "vision": vision,
        "memory": memory,
        "dream": dream_errors(model, unseen),
    }


def windows(ready: OfflineData, part: str, begins: range) -> Batch:
    """Windows [B, T] of one part whose first row is one of these rows of its episode, evenly spaced."""
    found = ready.windows(getattr(ready, part), CONTEXT + HORIZON)
    _, row = found.locate(np.arange(len(found)))
    return found.gather(evenly(np.flatnonzero(np.isin(row, begins)), MOST))


# -- V -----------------------------------------------------------------------------------------------
def vision_errors(model: MDNRNN, fresh: MDNRNN, known: Batch, unseen: Batch) -> dict[str, float]:
    """Squared error summed over the pixels of an unseen frame, and what others make of it."""
    seen = model.encoder.pixels(unseen.obs)
    average = model.encoder.pixels(known.obs).mean((0, 1))

    def error(guess: Tensor) -> float:
        return (seen - guess).square().sum((-3, -2, -1)).mean().item()

    return {
        "model": model.vision_loss(unseen)["reconstruction"].mean().item(),
        "untrained": fresh.vision_loss(unseen)["reconstruction"].mean().item(),
        "mean_frame": error(average),
        "black": error(torch.zeros_like(average)),
    }


# -- M -----------------------------------------------------------------------------------------------
def memory_errors(model: MDNRNN, fresh: MDNRNN, known: Batch, unseen: Batch) -> dict[str, float]:
    """Negative log-likelihood of the next code, nats per number, and of Gaussians fitted to the known ones.

    "gaussian" is one for all rows; "persistence" goes out from the code before, z' ~ N(a z + b, s), every
    number of it by itself.
    """
    z, unseen_z = (model.posterior(batch).sample() for batch in (known, unseen))
    before, after = (x.flatten(0, 1) for x in (z[:, :-1], z[:, 1:]))
    a = ((before - before.mean(0)) * after).mean(0) / before.var(0, correction=0)
    b = (after - a * before).mean(0)
    s = (after - a * before).std(0)

    def loss(guess: Normal) -> float:
        return guess.loss(unseen_z[:, 1:]).mean().item() / model.latent

    return {
        "model": model.memory_loss(unseen)["transition"].mean().item(),
        "untrained": fresh.memory_loss(unseen)["transition"].mean().item(),
        "gaussian": loss(Normal(after.mean(0), after.std(0))),
        "persistence": loss(Normal(a * unseen_z[:, :-1] + b, s)),
    }


# -- dreams ------------------------------------------------------------------------------------------
def dream_errors(model: MDNRNN, unseen: Batch) -> dict[str, Any]:
    """Open-loop errors by horizon, in units of the variance of what is compared.

    "cool" dreams at the temperature COOL, and "mistaken" is told the actions of other windows. "seen" is what
    V draws of the very rows, the best that a dream can do, and "stays" what it draws of the last one seen.
    """
    model.temperature = 1.0
    loop = open_loop(model, unseen, context=CONTEXT)
    mistaken = open_loop(model, mistaken_actions(unseen), context=CONTEXT)
    model.temperature = COOL
    cool = open_loop(model, unseen, context=CONTEXT)
    model.temperature = 1.0
    loops = {"model": loop, "cool": cool, "mistaken": mistaken}
    latents = {name: latent_error(model, one) for name, one in loops.items()}
    loops["seen"] = dataclasses.replace(loop, dreamt=loop.seen[:, CONTEXT:])
    last = cat([loop.seen[:, CONTEXT - 1 : CONTEXT]] * HORIZON, 1)
    loops["stays"] = dataclasses.replace(loop, dreamt=last)
    pixels = {name: pixel_error(model, one) for name, one in loops.items()}
    return {"steps": STEPS, "latent": by_step(latents), "pixel": by_step(pixels)}


def mistaken_actions(batch: Batch) -> Batch:
    """The same windows, with what was done in other ones from the last observed row on."""
    other = batch.action.roll(len(batch) // 2, 0)
    action = torch.cat([batch.action[:, : CONTEXT - 1], other[:, CONTEXT - 1 :]], 1)
    return dataclasses.replace(batch, action=action)


def pixel_error(model: MDNRNN, loop: OpenLoop) -> HorizonError:
    """Of the decoded images."""
    return observation_errors(model, loop)[model.encoder.key]


def by_step(errors: dict[str, HorizonError]) -> dict[str, list[float]]:
    """Errors at the chosen steps, and those of the last frame staying."""
    lines = {name: error.model for name, error in errors.items()}
    lines |= {"copy_last": errors["model"].copy}
    return {name: [round(line[step - 1], 4) for step in STEPS] for name, line in lines.items()}


def draw(agent: Agent, ready: OfflineData, path: Path) -> None:
    """Truth, dream and error of two unseen windows: one of each kind, in which most happens."""
    chosen = []
    for begins in BEGINS.values():
        batch = windows(ready, "held_out", begins)
        image = batch.obs["image"][:, CONTEXT:].float()
        moved = (image[:, 1:] - image[:, :-1]).square().flatten(1).sum(1)
        chosen.append(batch[moved.argmax()[None]])
    loop = open_loop(agent.model, cat(chosen, 0), context=CONTEXT)
    films = dream_films(agent.model, loop)["image"]
    save_png(strip(Films(*(film[:, CONTEXT - 1 :] for film in films)), DRAWN), path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for number in map(int, sys.argv[1:] or ("0",)):
        with tempfile.TemporaryDirectory() as temporary:
            line = measure(number, Path(temporary))
            if number == 0:
                agent = Agent.from_pretrained(Path(temporary) / "run")
                draw(agent, jobs.agent_data(agent), PICTURE)
        write(line, RESULTS)
        print({k: v for k, v in line.items() if k != "curves"}, flush=True)
