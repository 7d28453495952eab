"""Names of our environments in Gymnasium's registry; importing this imports neither torch nor numpy."""

from __future__ import annotations

_ENTRY = {
    "wm_toolkit/TwoRooms-v0": {
        "entry_point": "wm_toolkit.envs.two_rooms:TwoRooms",
        "vector_entry_point": "wm_toolkit.envs.two_rooms:TwoRoomsVector",
        "max_episode_steps": 100,
    },
    "wm_toolkit/WorldModel-v0": {
        "entry_point": "wm_toolkit.envs.imagined:WorldModelEnv",
        "vector_entry_point": "wm_toolkit.envs.imagined:WorldModelVectorEnv",
    },
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
