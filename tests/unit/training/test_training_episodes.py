"""Episodes in groups: what counts as success when, and that grouping changes nothing but the noise."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor
from training_toys import Eyes

from wm_toolkit.agents.actors import Decision, RandomActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.envs.goal import GoalReachingVector
from wm_toolkit.envs.goals import EnvGoals, Goals, ImageGoals
from wm_toolkit.envs.make import make_vec
from wm_toolkit.envs.rooms import Rooms
from wm_toolkit.envs.walks import smooth_walks
from wm_toolkit.errors import ConfigError, MissingGoalError
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct
from wm_toolkit.training.baselines import random_agent
from wm_toolkit.training.config import EvaluationConfig
from wm_toolkit.training.episodes import run_episodes
from wm_toolkit.training.evaluate import evaluate, goal_env

ENV, BLOCK, BUDGET, EPISODES = "wm_toolkit/TwoRooms-v0", 5, 40, 60


@dataclasses.dataclass(frozen=True)
class Turn(Struct):
    """How many decisions were made [B]."""

    count: Tensor


class Circle:
    """Walks in a circle whatever it sees, and says that it plans `every` decisions ahead."""

    def __init__(self, every: int) -> None:
        self.every = every

    def initial(self, batch_size):
        return Turn(torch.zeros(batch_size, dtype=torch.int64))

    def act(self, state, obs, memory, *, is_first, explore=False, generator=None):
        action = torch.stack([torch.from_numpy(circle(int(k))) for k in memory.count])
        count = memory.count + 1
        return Decision(action.flatten(1), ends_plan=count % self.every == 0), Turn(count)


def circle(decision: int) -> np.ndarray:
    """[BLOCK, 2] raw actions of the n-th decision."""
    angle = (decision * BLOCK + np.arange(BLOCK)) * 0.5
    return np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)


class Straight:
    """Walks straight at the goal and stands still on it."""

    def initial(self, batch_size):
        return None

    def act(self, state, obs, memory, *, is_first, explore=False, generator=None):
        way = (obs["goal/position"] - state.position) / 2
        raw = [(way - t).clamp(0, 1) + (way + t).clamp(-1, 0) for t in range(BLOCK)]
        return Decision(torch.cat(raw, -1)), None


def protocol(**changes) -> EvaluationConfig:
    base = {
        "episodes": EPISODES,
        "budget": BUDGET,
        "goals": "env",
        "frame_skip": BLOCK,
        "env": ENV,
        "env_options": {"obs_mode": "both"},
        "goal_options": {"goal_room": "same"},
    }
    return EvaluationConfig(**{**base, **changes})


def agent(actor) -> Agent:
    with gym.make(ENV, obs_mode="both") as env:
        spaces = Spaces.of(env)
    seen = {"position": spaces.observation["position"]}
    return Agent(Eyes(dataclasses.replace(spaces, observation=seen).blocked(BLOCK)), actor)


def at_goal() -> np.ndarray:
    """[BUDGET + 1, EPISODES] whether walking in a circle is at the goal after every raw step."""
    env = make_vec(ENV, EPISODES, obs_mode="both", max_episode_steps=BUDGET + 1)
    env = GoalReachingVector(env, EnvGoals({"goal_room": "same"}), budget=BUDGET + 1)
    _, info = env.reset(seed=protocol().seed)
    seen = [info["success"]]
    for decision in range(BUDGET // BLOCK):
        for raw in circle(decision):
            *_, info = env.step(np.tile(raw, (EPISODES, 1)))
            seen.append(info["success"])
    env.close()
    return np.stack(seen)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_success_at_every_step_and_at_replans_is_what_brute_force_finds(every):
    seen = at_goal()
    looks = [t for t in range(BUDGET + 1) if t % (BLOCK * every) == 0 or t == BUDGET]

    def first(times):
        return [next((t for t in times if seen[t, i]), -1) for i in range(EPISODES)]

    env = goal_env(protocol())
    outcome = run_episodes(agent(Circle(every)), env, BUDGET, seed=protocol().seed)
    env.close()
    assert outcome.success.tolist() == first(range(BUDGET + 1))
    assert outcome.at_replan.tolist() == first(looks)
    assert 0 < (outcome.at_replan >= 0).sum() < (outcome.success >= 0).sum() < EPISODES


def test_the_curve_is_the_share_of_first_successes_within_every_number_of_steps():
    found = evaluate(agent(Circle(1)), None, protocol())
    reached = at_goal().cumsum(0) > 0
    assert found.success_by_step == pytest.approx(reached.mean(1))
    assert found.success_by_step[0] == found.start_solved_rate
    assert found.success_by_step[-1] == found.success_rate
    rate = np.mean([record.success_at_replan for record in found.records])
    assert found.success_rate_at_replan == pytest.approx(rate)
    low, high = found.interval_at_replan
    assert low < rate < high


class NobodyLingers(gym.vector.VectorWrapper):
    """Says of every row that passed its goal in a block that it still is there."""

    def step(self, actions):
        *rest, info = self.env.step(actions)
        return *rest, {**info, "at_goal": info["success"]}


def test_who_has_arrived_does_not_disturb_the_noise_of_the_others():
    walker = random_agent(agent(None))
    env = goal_env(protocol())
    going_on = run_episodes(walker, env, BUDGET, seed=3)
    stopped = run_episodes(walker, NobodyLingers(env), BUDGET, seed=3)
    env.close()
    assert (going_on.at_replan != stopped.at_replan).any()
    assert going_on.success.tolist() == stopped.success.tolist()
    assert going_on.total.tolist() == stopped.total.tolist()
    assert going_on.decisions == stopped.decisions


# -- groups ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def held_out():
    with gym.make(ENV, obs_mode="both") as env:
        walks = smooth_walks(3, episodes=12, steps=40)
        return TrajectoryDataset.from_trajectories(list(walks.trajectories()), Spaces.of(env))


@pytest.mark.parametrize("goals", ["env", "dataset", "random_action"])
def test_grouping_changes_neither_starts_nor_goals(goals, held_out):
    walker = agent(Straight())
    whole = evaluate(walker, held_out, protocol(goals=goals))
    parts = evaluate(walker, held_out, protocol(goals=goals, group=7))
    assert parts.records == whole.records
    assert len({record.steps for record in whole.records}) > 5


def test_a_group_s_noise_is_its_own_and_the_same_in_every_run():
    walker = random_agent(agent(None))
    whole, parts, again = (
        evaluate(walker, None, protocol(group=group)).records for group in (None, 30, 30)
    )
    assert parts == again
    assert parts != whole
    # The first group draws from the protocol's seed, as a single one does.
    alone = evaluate(walker, None, protocol(episodes=30, goals="env")).records
    starts = [record.steps == 0 for record in whole]
    assert [record.steps == 0 for record in alone] == starts[:30]


def test_groups_are_cut_in_order():
    assert protocol(episodes=5, group=2).groups() == [range(2), range(2, 4), range(4, 5)]
    assert protocol(episodes=5).groups() == [range(5)]
    with pytest.raises(ConfigError, match="group is 0"):
        protocol(group=0)


class Single(gym.Env):
    """A point that has to come as far right as its goal, without a vector form."""

    observation_space = gym.spaces.Dict({"position": gym.spaces.Box(-9, 9, (2,), np.float32)})
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        options = options or {}
        self.position = np.array(options.get("state", (0, 0)), np.float32)
        self.goal = np.array(options.get("goal", self.np_random.uniform(-8, 8, 2)), np.float32)
        return {"position": self.position.copy()}, self._info()

    def step(self, action):
        self.position = np.clip(self.position + action, -9, 9).astype(np.float32)
        return {"position": self.position.copy()}, 0.0, False, False, self._info()

    def get_state(self):
        return self.position.copy()

    def set_state(self, state):
        self.position = np.array(state, np.float32)
        return {"position": self.position.copy()}

    def _info(self):
        near = bool(abs(self.position[0] - self.goal[0]) < 0.5)
        return {"goal": self.goal.copy(), "success": near}


@pytest.fixture
def single():
    """Its id, registered for one test."""
    gym.register("Single-episodes-v0", entry_point=lambda **_: Single())
    yield "Single-episodes-v0"
    del gym.registry["Single-episodes-v0"]


def single_agent() -> Agent:
    spaces = Spaces(Single.observation_space.spaces, Single.action_space)
    return Agent(Eyes(spaces.blocked(BLOCK)), Rightwards())


class Rightwards(RandomActor):
    """One unit to the right in every raw step."""

    def __init__(self):
        pass

    def act(self, state, obs, memory, *, is_first, explore=False, generator=None):
        return Decision(torch.tensor([1.0, 0.0]).repeat(len(state), BLOCK)), None


def test_copies_of_a_single_environment_meet_the_same_goals_in_any_grouping(single):
    changes = {"env": single, "env_options": {}, "goal_options": {}, "episodes": 40}
    whole, parts = (
        evaluate(single_agent(), None, protocol(**changes, group=g)).records for g in (None, 12)
    )
    assert whole == parts
    assert len({record.steps for record in whole}) > 2


def turns(walker: Agent, tasks: Goals, **changes) -> list[int | None]:
    short = protocol(episodes=7, budget=5, goal_options={}, **changes)
    return [record.steps for record in evaluate(walker, None, short, goals=tasks).records]


@pytest.mark.parametrize("group", [None, 4])
def test_a_list_of_goals_is_taken_in_turn(group, single):
    place, goal = np.full((3, 2), 10, np.float32), np.float32([[20, 10], [10, 10], [10, 55]])
    rooms = Goals({"position": goal, "image": Rooms().render(goal)}, place, goal)
    assert turns(agent(Straight()), rooms, group=group) == [3, 0, None] * 2 + [3]
    goal = np.float32([[3, 0], [0, 0], [-8, 0]])
    line = Goals({"position": goal}, np.zeros((3, 2), np.float32), goal)
    found = turns(single_agent(), line, group=group, env=single, env_options={})
    assert found == [3, 0, None] * 2 + [3]


def test_goals_may_be_pictures_if_one_says_what_success_is():
    pictures = ImageGoals([Rooms().render(np.float32([[12, 20]]))[0]])

    def right_of_start(env, info):
        return info["position"][..., 0] > 12

    changes = {"episodes": 6, "env_options": {"obs_mode": "both"}, "goal_options": {}}
    found = evaluate(
        agent(Circle(1)), None, protocol(**changes), goals=pictures, success=right_of_start
    )
    steps = [record.steps for record in found.records]
    assert 0 in steps  # some start there
    assert len(set(steps)) > 1
    with pytest.raises(MissingGoalError, match="success must be given"):
        evaluate(agent(Circle(1)), None, protocol(**changes), goals=pictures)


def test_films_are_of_the_first_group_and_progress_counts_all(held_out):
    told = []
    found = evaluate(
        agent(Circle(1)),
        held_out,
        protocol(goals="dataset", episodes=8, group=4, budget=10),
        films=3,
        progress=lambda *count: told.append(count),
    )
    assert [film.success for film in found.films] == [r.success for r in found.records[:3]]
    assert told == [(5, 20), (10, 20), (15, 20), (20, 20)]


def test_a_number_of_processes_that_is_not_running_is_refused():
    with pytest.raises(ConfigError, match=r"processes=2.*but 1 are running"):
        evaluate(agent(Straight()), None, protocol(), processes=2)
