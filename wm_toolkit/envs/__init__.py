"""Environments: TwoRooms, goals, action blocks, and any world model as a Gymnasium environment."""

from wm_toolkit.envs.registration import register_envs

register_envs()
