"""What the Push-T data holds, and what simple policies reach in it: python docs/measure_push_t.py [EPISODES]."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.push_t import PushT, aim
from wm_toolkit.envs.push_t_board import NEAR, TURNED, Board, angle_between, is_success
from wm_toolkit.envs.pushes import Pusher, explorations
from wm_toolkit.envs.walks import smooth_actions
from wm_toolkit.training.summary import wilson_interval

OFFSET, BUDGET, SEED = 25, 50, 123
Policy = Callable[[NDArray, int], NDArray]


def uniform(task: int) -> Policy:
    """Uniformly random actions."""
    rng = np.random.default_rng([1, task])
    return lambda state, t: rng.uniform(-1, 1, 2)


def smooth(task: int) -> Policy:
    """Smooth noise with the data's deviation."""
    rng = np.random.default_rng([2, task])
    actions = smooth_actions(rng, 1, BUDGET, smoothing=0.85, scale=0.33)[0]
    return lambda state, t: actions[t]


def exploring(task: int) -> Policy:
    """The behaviour that made the data."""
    pusher = Pusher(np.random.default_rng([3, task]), BUDGET)
    return lambda state, t: pusher.act(state)


def reaches(board: Board, policy: Policy, start: NDArray, goal: NDArray) -> bool:
    """Whether a policy is at the goal at any step of the budget."""
    state = start
    for t in range(BUDGET):
        if is_success(state, goal):
            return True
        state = board.step(state, aim(state, policy(state, t), relative=True))
    return bool(is_success(state, goal))


def main(episodes: int) -> None:
    """Print shares of segments, and successes with their intervals."""
    env = PushT(obs_mode="state")
    states = np.stack([one.obs["state"] for one in explorations(env, SEED, range(episodes), 100)])
    before, after = states[:, :-OFFSET], states[:, OFFSET:]
    moved = np.linalg.norm(before[..., 2:4] - after[..., 2:4], axis=-1) > NEAR
    turned = angle_between(before[..., 4], after[..., 4]) > TURNED
    print(f"{moved.size:,} segments: moved {moved.mean():.3f}, turned {turned.mean():.3f}")
    print(f"either {(moved | turned).mean():.3f}, solved {is_success(before, after).mean():.4f}")
    first = np.random.default_rng(7).integers(0, 100 - OFFSET, episodes)
    every = np.arange(episodes)
    tasks = list(zip(states[every, first], states[every, first + OFFSET]))
    for policy in (uniform, smooth, exploring):
        count = sum(reaches(env.board, policy(i), *task) for i, task in enumerate(tasks))
        low, high = wilson_interval(count, episodes)
        print(f"{policy.__name__}: {count / episodes:.3f} ({low:.3f} .. {high:.3f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
