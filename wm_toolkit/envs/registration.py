"""Names of our environments in Gymnasium's registry; importing this imports neither torch nor numpy."""

from __future__ import annotations

from typing import Any

_ENTRY: dict[str, dict[str, Any]] = {
    "wm_toolkit/TwoRooms-v0": {
        "entry_point": "wm_toolkit.envs.two_rooms:TwoRooms",
        "vector_entry_point": "wm_toolkit.envs.two_rooms:TwoRoomsVector",
        "max_episode_steps": 100,
    },
    "wm_toolkit/PushT-v0": {
        "entry_point": "wm_toolkit.envs.push_t:PushT",
        "max_episode_steps": 300,
    },
    "wm_toolkit/PointMaze-v0": {
        "entry_point": "wm_toolkit.envs.point_maze:PointMaze",
        "max_episode_steps": 300,
    },
    "wm_toolkit/OGBench-v0": {
        "entry_point": "wm_toolkit.envs.og_bench:OgBench",
        "max_episode_steps": 1000,
    },
    "wm_toolkit/Rendered-v0": {
        "entry_point": "wm_toolkit.envs.rendered:rendered",
    },
    "wm_toolkit/WorldModel-v0": {
        "entry_point": "wm_toolkit.envs.imagined:WorldModelEnv",
        "vector_entry_point": "wm_toolkit.envs.imagined:WorldModelVectorEnv",
    },
}

_DMC = {
    "acrobot": "swingup swingup_sparse",
    "ball_in_cup": "catch",
    "cartpole": "balance balance_sparse swingup swingup_sparse two_poles three_poles",
    "cheetah": "run",
    "dog": "stand walk trot run fetch",
    "finger": "spin turn_easy turn_hard",
    "fish": "upright swim",
    "hopper": "stand hop",
    "humanoid": "stand walk run run_pure_state",
    "humanoid_CMU": "stand walk run",
    "lqr": "lqr_2_1 lqr_6_2",
    "manipulator": "bring_ball bring_peg insert_ball insert_peg",
    "pendulum": "swingup",
    "point_mass": "easy hard",
    "quadruped": "walk run escape fetch",
    "reacher": "easy hard",
    "stacker": "stack_2 stack_4",
    "swimmer": "swimmer6 swimmer15",
    "walker": "stand walk run",
}
_DMC_CLASS = {"reacher": "wm_toolkit.envs.dmc_reacher:Reacher"}
_ENTRY |= {
    f"dmc/{domain}-{task}": {
        "entry_point": _DMC_CLASS.get(domain, "wm_toolkit.envs.dmc:DmControl"),
        "kwargs": {"domain": domain, "task": task},
    }
    for domain, tasks in _DMC.items()
    for task in tasks.split()
}


def register_envs() -> None:
    """Make our environments known to `gymnasium.make`; calling it again changes nothing.

    Importing wm_toolkit after gymnasium calls it, and so does the first name used of wm_toolkit;
    `gymnasium.make("wm_toolkit.envs:wm_toolkit/TwoRooms-v0")` needs no import of ours at all.
    """
    from gymnasium.envs.registration import register, registry

    for name, fields in _ENTRY.items():
        if name not in registry:
            register(name, **fields)
