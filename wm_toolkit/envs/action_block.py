"""Frame skip as an action block: one agent action is k different raw actions, executed in a row."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from wm_toolkit.envs.rows import over, put_rows
from wm_toolkit.spaces import block_space


def split_block(space: gym.Space, action: Any, block: int) -> NDArray:
    """Blocks of actions [..., block * width] to raw actions [..., block, *space.shape]."""
    action = np.asarray(action)
    lead = action.shape[:-1]
    return action.reshape(*lead, block, *(space.shape or ())).astype(space.dtype, copy=False)


class ActionBlock(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Executes `block` concatenated raw actions per step.

    Rewards are summed. The block stops where the episode ends, so termination and truncation stay what
    they are. `info` is the last raw step's, plus "raw_steps" (how many were executed); "success" is true
    if any raw step of the block succeeded.

    Args:
        env: any environment.
        block: raw actions per step, at least 1.

    Example:
        >>> env = ActionBlock(gym.make("wm_toolkit/TwoRooms-v0"), 5)
        >>> env.action_space.shape
        (10,)
    """

    def __init__(self, env: gym.Env, block: int) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, block=block)
        super().__init__(env)
        self.block = block
        self._space = env.action_space
        self.action_space = block_space(env.action_space, block)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Execute a block [block * width]."""
        if self.block == 1:
            obs, reward, terminated, truncated, info = self.env.step(action)
            return obs, float(reward), terminated, truncated, {**info, "raw_steps": 1}
        total, success, steps = 0.0, False, 0
        for raw in split_block(self._space, action, self.block):
            obs, reward, terminated, truncated, info = self.env.step(raw)
            total, steps = total + float(reward), steps + 1
            success = success or bool(info.get("success", False))
            if over(terminated, truncated):
                break
        info = {**info, "raw_steps": steps}
        if "success" in info:
            info["success"] = success
        return obs, total, terminated, truncated, info


class VectorActionBlock(gym.vector.VectorWrapper):
    """`ActionBlock` for a vector environment.

    A row whose episode ends inside a block keeps the observation and info of its end, whatever the
    environment below does with the rest of the block; on the next step it starts anew.

    Args:
        env: a vector environment that knows the reset option "reset_mask" (ours, `SyncVectorEnv`,
            `AsyncVectorEnv`).
        block: raw actions per step, at least 1.

    Example:
        >>> envs = VectorActionBlock(gym.make_vec("wm_toolkit/TwoRooms-v0", num_envs=100), 5)
        >>> envs.action_space.shape
        (100, 10)
    """

    def __init__(self, env: gym.vector.VectorEnv, block: int) -> None:
        super().__init__(env)
        self.block = block
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self._space = env.single_action_space
        self.single_action_space = block_space(env.single_action_space, block)
        self.action_space = batch_space(self.single_action_space, env.num_envs)
        self._ended = np.zeros(env.num_envs, bool)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset all rows, or those of options["reset_mask"]."""
        mask = (options or {}).get("reset_mask", slice(None))
        self._ended[mask] = False
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
        """Execute blocks [N, block * width]; rows that had ended start anew instead."""
        restart = self._ended.copy()
        obs, reward, terminated, truncated, info = self._execute(actions, restart)
        if restart.any():
            fresh, fresh_info = self.env.reset(options={"reset_mask": restart})
            obs = put_rows(self.env.single_observation_space, restart, fresh, obs)
            info = _put_info(restart, fresh_info, info)
            terminated, truncated = terminated & ~restart, truncated & ~restart
        self._ended = over(terminated, truncated)
        return obs, reward, terminated, truncated, info

    def _execute(
        self, actions: Any, skip: NDArray[np.bool_]
    ) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
        """Raw steps of every row until its episode ends; the rows of `skip` do not count."""
        size, space = self.env.num_envs, self.env.single_observation_space
        done, success = skip.copy(), np.zeros(size, bool)
        total, steps = np.zeros(size), np.zeros(size, np.int64)
        raw = split_block(self._space, np.reshape(actions, (size, -1)), self.block)
        result: Any = None
        for t in range(self.block):
            obs, reward, terminated, truncated, info = self.env.step(raw[:, t])
            live = ~done
            total += np.where(live, reward, 0.0)
            steps += live
            success |= live & np.asarray(info.get("success", np.zeros(size, bool)), bool)
            if result is None or live.all():
                result = [obs, total, terminated, truncated, info]
            else:
                obs = put_rows(space, live, obs, result[0])
                info = _put_info(live, info, result[4])
                ends = [
                    np.where(live, *pair)
                    for pair in ((terminated, result[2]), (truncated, result[3]))
                ]
                result = [obs, total, *ends, info]
            done |= over(terminated, truncated)
            if done.all():
                break
        obs, _, terminated, truncated, info = result
        info = {**info, "raw_steps": steps, "_raw_steps": ~skip}
        if "success" in info:
            info["success"] = success
        return obs, total, terminated, truncated, info


def _put_info(mask: NDArray[np.bool_], new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Row-wise merge of vector infos; a key that only one of them has keeps its value."""
    merged = dict(old)
    for key, value in new.items():
        if isinstance(value, np.ndarray) and key in old and np.shape(old[key]) == value.shape:
            rows = mask.reshape(-1, *([1] * (value.ndim - 1)))
            merged[key] = np.where(rows, value, old[key])
        else:
            merged[key] = value
    return merged
