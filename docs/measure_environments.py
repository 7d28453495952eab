"""Steps per CPU second of every adapter: python docs/measure_environments.py [STEPS]."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from wm_toolkit.envs.headless import prepare_headless
from wm_toolkit.envs.make import make

ROWS = {
    "Push-T": ("wm_toolkit/PushT-v0", {}),
    "PointMaze": ("wm_toolkit/PointMaze-v0", {}),
    "OGBench pointmaze-medium": ("wm_toolkit/OGBench-v0", {}),
    "OGBench visual-antmaze-medium": (
        "wm_toolkit/OGBench-v0",
        {"task": "visual-antmaze-medium-v0"},
    ),
    "OGBench visual-cube-single": ("wm_toolkit/OGBench-v0", {"task": "visual-cube-single-v0"}),
    "dmc/cartpole-swingup": ("dmc/cartpole-swingup", {}),
    "dmc/cheetah-run": ("dmc/cheetah-run", {}),
}
VIEWS = {
    "state": {"obs_mode": "state"},
    "64 px": {"image_size": 64},
    "224 px": {"image_size": 224},
    "64 px fast": {"image_size": 64, "fast_render": True},
    "224 px fast": {"image_size": 224, "fast_render": True},
}


def steps_per_second(name: str, options: dict, steps: int) -> float:
    """How many steps with observation one CPU second holds, after the first picture."""
    env = make(name, max_episode_steps=10**9, **options)
    env.reset(seed=0)
    env.action_space.seed(0)
    env.step(env.action_space.sample())
    began = time.process_time()
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    spent = time.process_time() - began
    env.close()
    return steps / spent


def pictures_per_second(draw: Callable[[], object], count: int) -> float:
    """How many pictures one CPU second holds, after the first."""
    draw()
    began = time.process_time()
    for _ in range(count):
        draw()
    return count / (time.process_time() - began)


def compare_drawing(count: int) -> None:
    """Print how fast gym-pusht and our adapter draw the same board."""
    from gym_pusht.envs.pusht import PushTEnv

    for size in (96, 224):
        theirs = PushTEnv(observation_width=size, observation_height=size)
        theirs.reset(seed=0)
        ours = make("wm_toolkit/PushT-v0", image_size=size, render_mode="rgb_array")
        ours.reset(seed=0)
        pair = [pictures_per_second(draw, count) for draw in (theirs._render, ours.render)]
        print("Push-T pictures of {} px: package {:,.0f}, ours {:,.0f}".format(size, *pair))


def main(steps: int) -> None:
    """Print a Markdown table."""
    prepare_headless()
    compare_drawing(20 * steps)
    print("| | " + " | ".join(VIEWS) + " |")
    print("|---" * (len(VIEWS) + 1) + "|")
    for title, (name, options) in ROWS.items():
        cells = []
        for view in VIEWS.values():
            if name == "wm_toolkit/PushT-v0" and "fast_render" in view:
                cells.append("")
                continue
            more = 20 * steps if "obs_mode" in view else steps
            cells.append(f"{steps_per_second(name, {**options, **view}, more):,.0f}")
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
