"""Make the README's pictures from the pretrained model: python docs/make_pictures.py [FOLDER]."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch

from wm_toolkit import Agent, TrajectoryDataset, evaluate
from wm_toolkit.config import from_dict
from wm_toolkit.render.report import ANIMATION_FPS, goal_film
from wm_toolkit.render.video import film_strip, save_gif, save_png
from wm_toolkit.training import jobs
from wm_toolkit.training.config import EvaluationConfig

STEPS = 8  # decisions of the dream, five raw steps each


def opposite_room(agent: Agent, path: Path) -> float:
    """Film twelve goals in the other room; returns the success rate."""
    protocol = from_dict(EvaluationConfig, agent.info["evaluation"])
    far = {"goals": "env", "goal_options": {"goal_room": "opposite"}}
    protocol = dataclasses.replace(protocol, episodes=12, budget=100, **far)
    found = evaluate(agent, None, protocol, films=12)
    save_gif(goal_film(found.films, columns=4), path, fps=ANIMATION_FPS, hold_seconds=1.5)
    return found.success_rate


def dream(agent: Agent, train: TrajectoryDataset, held_out: TrajectoryDataset, path: Path) -> None:
    """Truth above, dream below: every dreamt embedding as the training frame nearest to it."""
    windows = held_out.windows(STEPS + 1, frame_skip=agent.spaces.block, spaces=agent.spaces)
    length = np.linalg.norm(np.diff(held_out.columns["obs/position"].array, axis=0), axis=1)
    travelled = [length[windows.rows([i])[0, 0] :][: 5 * STEPS].sum() for i in range(len(windows))]
    batch = windows.gather([int(np.argmax(travelled))], keys=["obs/image"])
    frames = torch.from_numpy(np.ascontiguousarray(train.columns["obs/image"].array[::7]))
    model, truth = agent.model, batch.obs["image"]
    with torch.no_grad():
        known = torch.cat([model.encode(part) for part in frames.split(256)])
        nothing = torch.zeros(1, agent.spaces.action_width)
        start = model.observe(model.initial(1), nothing, {"image": truth[:, 0]})
        dreamt = model.features(model.rollout(start, batch.action[:, None, :STEPS]))[0, 0]
        seen = torch.cat([model.features(start), dreamt])
    nearest = frames[torch.cdist(seen, known).argmin(1)].numpy()
    strips = [film_strip(truth[0].numpy()), film_strip(nearest)]
    save_png(np.concatenate(strips, 0), path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    agent = Agent.from_pretrained("lewm-tworooms")
    ready = jobs.agent_data(agent)
    dream(agent, ready.train, ready.held_out, folder / "dream.png")
    reached = opposite_room(agent, folder / "goals.gif")
    print(f"{reached:.0%} of 12 goals in the other room reached within 100 steps; see {folder}")
