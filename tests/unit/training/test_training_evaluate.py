import dataclasses
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from training_toys import Eyes

from wm_toolkit.agents.actors import Decision, RandomActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.envs.walks import smooth_walks
from wm_toolkit.errors import ConfigError
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.baselines import random_agent
from wm_toolkit.training.config import EvaluationConfig
from wm_toolkit.training.evaluate import evaluate
from wm_toolkit.training.summary import wilson_interval

ENV = "wm_toolkit/TwoRooms-v0"
BLOCK = 5


class Straight:
    """Walks straight at the goal, two units a raw step, and stands still on it."""

    def initial(self, batch_size):
        return None

    def act(self, state, obs, memory, *, is_first, explore=False, generator=None):
        way = (obs["goal/position"] - state.position) / 2
        raw = [(way - t).clamp(0, 1) + (way + t).clamp(-1, 0) for t in range(BLOCK)]
        return Decision(torch.cat(raw, -1)), None


@pytest.fixture(scope="module")
def held_out():
    walks = smooth_walks(3, episodes=12, steps=40)
    with gym.make(ENV, obs_mode="both") as env:
        return TrajectoryDataset.from_trajectories(list(walks.trajectories()), Spaces.of(env))


@pytest.fixture
def agent(held_out):
    spaces = dataclasses.replace(
        held_out.spaces, observation={"position": held_out.spaces.observation["position"]}
    )
    return Agent(Eyes(spaces.blocked(BLOCK)), Straight())


def protocol(**changes):
    return EvaluationConfig(
        **{"episodes": 40, "frame_skip": BLOCK, "env": ENV, "env_options": {"obs_mode": "both"}}
        | changes
    )


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_interval_has_its_published_values(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="3 successes in 2 trials"):
        wilson_interval(3, 2)


def test_an_agent_that_knows_the_way_reaches_every_goal_in_its_room(agent, held_out):
    result = evaluate(agent, None, protocol(goals="env", goal_options={"goal_room": "same"}))
    assert result.success_rate == 1.0
    assert result.interval == wilson_interval(40, 40)
    steps = [r.steps for r in result.records]
    assert result.steps_to_goal == np.mean([s for s in steps if s])
    assert result.start_solved_rate == np.mean([s == 0 for s in steps])
    # TwoRooms pays 1 for every row at the goal; the episode is over with the block that reached it.
    for record in result.records:
        block_end = BLOCK * -(-record.steps // BLOCK)
        assert record.total_reward == (block_end - record.steps + 1 if record.steps else 0)


def test_success_is_seen_at_every_raw_step_and_solved_starts_are_counted_apart(agent, held_out):
    result = evaluate(agent, held_out, protocol(episodes=60))
    steps = [r.steps for r in result.records if r.success]
    assert any(step % BLOCK for step in steps)
    assert result.start_solved_rate == steps.count(0) / 60 > 0


def test_the_random_baseline_is_repeatable_and_worse(agent, held_out):
    first = evaluate(random_agent(agent), held_out, protocol())
    again = evaluate(random_agent(agent), held_out, protocol())
    other = evaluate(random_agent(agent), held_out, protocol(seed=7))
    assert first.records == again.records != other.records
    assert first.success_rate < evaluate(agent, held_out, protocol()).success_rate


def test_json_has_exactly_the_promised_keys(agent, held_out):
    found = json.loads(json.dumps(evaluate(agent, held_out, protocol(episodes=3)).to_json()))
    assert list(found) == [
        "success_rate",
        "interval",
        "return_mean",
        "steps_to_goal",
        "start_solved_rate",
        "decision_ms",
        "episodes",
        "seed",
        "success_rate_at_replan",
        "interval_at_replan",
        "decision_cpu_ms",
        "success_by_step",
    ]
    assert found["decision_ms"] > 0
    assert found["decision_cpu_ms"] > 0


def test_films_end_with_their_success(agent, held_out):
    result = evaluate(agent, held_out, protocol(), films=8)
    for film, record in zip(result.films, result.records):
        assert film.success == record.success
        blocks = -(-record.steps // BLOCK) if record.success else 10
        assert len(film.frames) == 1 + max(blocks, 0)
        assert film.goal.shape == (64, 64, 3)


def test_an_agent_carries_its_protocol(agent, held_out):
    agent.info["evaluation"] = dataclasses.asdict(protocol(episodes=4))
    assert evaluate(agent, held_out).episodes == 4
    agent.info.clear()
    with pytest.raises(ConfigError, match="carries no evaluation protocol"):
        evaluate(agent, held_out)


def test_a_frame_skip_that_is_not_the_agents_is_refused(agent, held_out):
    with pytest.raises(ConfigError, match="frame_skip 1, but the agent's actions hold 5"):
        evaluate(agent, held_out, protocol(frame_skip=1))
    with pytest.raises(ConfigError, match="give held_out"):
        evaluate(agent, None, protocol())
    with pytest.raises(ConfigError, match="names no environment"):
        evaluate(agent, held_out, protocol(env=""))


class Line(gym.Env):
    """A single environment without a vector form: a point on a line, done at the end of it."""

    observation_space = gym.spaces.Dict({"position": gym.spaces.Box(-9, 9, (2,), np.float32)})
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        options = options or {}
        self.position = np.array(options.get("state", (0, 0)), np.float32)
        self.goal = np.array(options.get("goal", self.np_random.uniform(-6, 6, 2)), np.float32)
        return self._obs(), self._info()

    def step(self, action):
        self.position = np.clip(self.position + action, -9, 9).astype(np.float32)
        terminated = bool(self.position[0] >= 5)
        return self._obs(), 1.0, terminated, False, self._info()

    def get_state(self):
        return self.position.copy()

    def set_state(self, state):
        self.position = np.array(state, np.float32)
        return self._obs()

    def _obs(self):
        return {"position": self.position.copy()}

    def _info(self):
        near = bool(np.abs(self.position - self.goal).max() < 0.5)
        return {"goal": self.goal.copy(), "success": near}


def test_copies_of_a_single_environment_work_and_an_ended_row_stays_ended(agent):
    gym.register("Line-test-v0", entry_point=lambda **_: Line())
    spaces = Spaces(Line.observation_space.spaces, Line.action_space).blocked(BLOCK)
    walker = Agent(Eyes(spaces), RightWards())
    found = evaluate(walker, None, protocol(env="Line-test-v0", env_options={}, goals="env"))
    # Ends at x = 5 after one block and pays 1 a step; nothing happens where the start is the goal.
    assert {r.total_reward for r in found.records if r.steps != 0} == {5.0}
    on_the_way = [r for r in found.records if r.success]
    assert 0 < len(on_the_way) < 40


class RightWards(RandomActor):
    """One unit to the right in every raw step."""

    def __init__(self):
        pass

    def act(self, state, obs, memory, *, is_first, explore=False, generator=None):
        return Decision(torch.tensor([1.0, 0.0]).repeat(len(state), BLOCK)), None
