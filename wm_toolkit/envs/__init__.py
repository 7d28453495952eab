"""Environments: TwoRooms, adapters on real packages, goals, action blocks, and any world model as an environment."""

from wm_toolkit.envs.registration import register_envs

register_envs()
