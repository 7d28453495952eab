"""Names of our environments in Gymnasium's registry; importing this imports neither torch nor numpy."""

from __future__ import annotations

import dataclasses
from typing import Any

_ENTRY: dict[str, dict[str, Any]] = {
    "wm_toolkit/TwoRooms-v0": {
        "entry_point": "wm_toolkit.envs.two_rooms:TwoRooms",
        "vector_entry_point": "wm_toolkit.envs.two_rooms:TwoRoomsVector",
        "max_episode_steps": 100,
    },
    "wm_toolkit/Dodge-v0": {
        "entry_point": "wm_toolkit.envs.dodge:Dodge",
        "vector_entry_point": "wm_toolkit.envs.dodge:DodgeVector",
        "max_episode_steps": 300,
    },
    "wm_toolkit/CarRacing-v0": {
        "entry_point": "wm_toolkit.envs.car_racing:car_racing",
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

_GAMES_100K = (
    "Alien Amidar Assault Asterix BankHeist BattleZone Boxing Breakout ChopperCommand CrazyClimber "
    "DemonAttack Freeway Frostbite Gopher Hero Jamesbond Kangaroo Krull KungFuMaster MsPacman Pong "
    "PrivateEye Qbert RoadRunner Seaquest UpNDown"
)
_OTHER_GAMES = (
    "Asteroids Atlantis BeamRider Berzerk Bowling Centipede Defender DoubleDunk Enduro FishingDerby "
    "Gravitar IceHockey MontezumaRevenge NameThisGame Phoenix Pitfall Riverraid Robotank Skiing Solaris "
    "SpaceInvaders StarGunner Surround Tennis TimePilot Tutankham Venture VideoPinball WizardOfWor "
    "YarsRevenge Zaxxon"
)
GAMES_100K = tuple(_GAMES_100K.split())
"""The 26 games of Atari 100k (Kaiser et al. 2020)."""
GAMES = tuple(sorted((*GAMES_100K, *_OTHER_GAMES.split())))
"""The 57 games that agents of 200 million frames are compared on."""

_ATARI = "wm_toolkit.envs.atari:Atari"
_ENTRY |= {
    f"atari100k/{game}": {"entry_point": _ATARI, "kwargs": {"game": game}} for game in GAMES_100K
}
# 200 million frames: Machado et al. 2018 (sticky actions, all 18), as in Dreamer V3's newest code.
_ENTRY |= {
    f"atari/{game}": {
        "entry_point": _ATARI,
        "kwargs": {"game": game, "sticky": 0.25, "actions": "all", "grey": True, "image_size": 96},
    }
    for game in GAMES
}

_ENTRY |= {
    f"crafter/{name}": {
        "entry_point": "wm_toolkit.envs.crafter_env:Crafter",
        "kwargs": {"reward": name == "reward"},
    }
    for name in ("reward", "no_reward")
}

BSUITE = {
    **dict.fromkeys(("deep_sea", "deep_sea_stochastic"), 21),
    **dict.fromkeys(("memory_len", "umbrella_distract", "umbrella_length"), 23),
    "memory_size": 17,
    **{
        f"{task}{kind}": 20
        for task in ("bandit", "cartpole", "catch", "mountain_car")
        for kind in ("", "_noise", "_scale")
    },
    **dict.fromkeys(("cartpole_swingup", "discounting_chain"), 20),
}
"""Settings of every experiment of the Behaviour Suite, but for MNIST's: those pictures are a download."""

_ENTRY |= {
    f"bsuite/{experiment}-{setting}": {
        "entry_point": "wm_toolkit.envs.b_suite:BSuite",
        "kwargs": {"experiment": experiment, "setting": setting},
    }
    for experiment, settings in BSUITE.items()
    for setting in range(settings)
}


@dataclasses.dataclass(frozen=True)
class Package:
    """A package whose environments Gymnasium knows by their own ids once it is imported.

    Attributes:
        starts: how its ids begin.
        module: what to import.
        extra: the pip extra that installs it.
        example: one of its ids.
        wrapper: "module:Class" around each of them, where what they observe cannot be used as it is.
    """

    starts: tuple[str, ...]
    module: str
    extra: str
    example: str
    wrapper: str = ""


PACKAGES = (
    Package(("ALE/",), "ale_py", "atari", "ALE/Pong-v5"),
    Package(("LunarLander", "BipedalWalker", "CarRacing"), "Box2D", "box2d", "CarRacing-v3"),
    Package(
        ("MiniGrid-", "BabyAI-"),
        "minigrid",
        "minigrid",
        "MiniGrid-DoorKey-8x8-v0",
        "wm_toolkit.envs.mini_grid:GridView",
    ),
    Package(
        ("Vizdoom",),
        "vizdoom.gymnasium_wrapper",
        "vizdoom",
        "VizdoomTakeCover-v1",
        "wm_toolkit.envs.viz_doom:DoomScreen",
    ),
)


def package_of(name: str) -> Package | None:
    """The package that an environment's id belongs to, if it is one that must be imported first."""
    return next((one for one in PACKAGES if name.startswith(one.starts)), None)


def register_envs() -> None:
    """Make our environments known to `gymnasium.make`; calling it again changes nothing.

    Importing wm_toolkit after gymnasium calls it, and so does the first name used of wm_toolkit;
    `gymnasium.make("wm_toolkit.envs:wm_toolkit/TwoRooms-v0")` needs no import of ours at all.
    """
    from gymnasium.envs.registration import register, registry

    for name, fields in _ENTRY.items():
        if name not in registry:
            register(name, **fields)
