"""Steps per CPU second of every adapter: python docs/measure_environments.py [STEPS] [goals|packages]."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import psutil

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
PACKAGES = [
    ("CartPole-v1", {}),
    ("CartPole-v1", {"obs_mode": "image", "image_size": 64}),
    ("Pendulum-v1", {}),
    ("wm_toolkit/Dodge-v0", {}),
    ("wm_toolkit/CarRacing-v0", {}),
    ("LunarLander-v3", {}),
    ("BipedalWalker-v3", {}),
    ("CarRacing-v3", {"image_size": 64}),
    ("atari100k/Pong", {}),
    ("atari/Pong", {}),
    ("ALE/Pong-v5", {"image_size": 64}),
    ("dmc/walker-walk", {"obs_mode": "state", "action_repeat": 2}),
    ("dmc/walker-walk", {"obs_mode": "image", "action_repeat": 2, "fast_render": True}),
    ("crafter/reward", {}),
    ("VizdoomTakeCover-v1", {"obs_mode": "image"}),
    ("VizdoomTakeCover-v1", {"obs_mode": "image", "action_repeat": 4}),
    ("bsuite/catch-0", {}),
    ("MiniGrid-DoorKey-8x8-v0", {}),
    ("MiniGrid-DoorKey-8x8-v0", {"obs_mode": "image"}),
]
VIEWS = {
    "state": {"obs_mode": "state"},
    "64 px": {"image_size": 64},
    "224 px": {"image_size": 224},
    "64 px fast": {"image_size": 64, "fast_render": True},
    "224 px fast": {"image_size": 224, "fast_render": True},
}


def cpu_seconds() -> float:
    """CPU time of this process and of those it runs (VizDoom's engine is one)."""
    inside = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(one.user + one.system for one in inside)


def steps_per_second(name: str, options: dict, steps: int) -> float:
    """How many steps with observation one CPU second holds, after the first picture; resets count."""
    env = make(name, max_episode_steps=10**9, **options)
    env.reset(seed=0)
    env.action_space.seed(0)
    env.step(env.action_space.sample())
    began = cpu_seconds()
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    spent = cpu_seconds() - began
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


def measure_packages(steps: int) -> None:
    """Print a Markdown table of other packages' environments."""
    print("| id | options | steps |\n|---|---|---|")
    for name, options in PACKAGES:
        said = " ".join(f"{key}={value}" for key, value in options.items())
        speed = steps_per_second(name, options, 20 * steps)
        print(f"| `{name}` | {said} | {speed:,.0f} |", flush=True)


def measure_goals(steps: int) -> None:
    """Print a Markdown table of the environments with goals."""
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


def main(steps: int = 50, which: str = "") -> None:
    """Measure one of the two tables, or both."""
    prepare_headless()
    for name, measure in {"goals": measure_goals, "packages": measure_packages}.items():
        if which in ("", name):
            measure(steps)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:3])
