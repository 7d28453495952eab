"""Every recipe and every family as an agent: acts, restarts, learns, comes back from disk; dreams too."""

from __future__ import annotations

import dataclasses
import warnings
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from families import FAMILIES, image_spaces, state_of
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_sb3
from toys import random_batch

import wm_toolkit.envs
from wm_toolkit.agents.actors import PolicyActor, RandomActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.cli.check import without_probes
from wm_toolkit.planning.objective import ActionCost, Goal, Objective, Reward, Weighted
from wm_toolkit.recipes.dreamer_v3 import Size
from wm_toolkit.registry import build, recipe_names
from wm_toolkit.testing import CheckError, check_agent, check_world_model

FEW = {
    "planner__samples": 8,
    "planner__elites": 4,
    "planner__iterations": 2,
    "train__precision": "no",
}
LEWM = FEW | {
    "image_size": 16,
    "patch": 8,
    "width": 12,
    "layers": 1,
    "embedding": 8,
    "projector_hidden": 16,
    "action_hidden": 8,
    "predictor_width": 12,
    "predictor_layers": 2,
    "predictor_heads": 2,
    "head_width": 4,
    "predictor_hidden": 16,
    "slices": 8,
}
DINO_WM = FEW | {
    "encoder_weights": "random",
    "encoder_block": 0,
    "image_size": 28,
    "width": 24,
    "layers": 2,
    "heads": 2,
    "head_width": 8,
    "hidden": 8,
    "decoder_width": 8,
    "decoder_inner": 4,
}
DREAMER = {"sequence": 5, "depth": 1, "units": 6, "train__precision": "no", "free_nats": 0.0}
SHORT = {"behaviour__horizon": 3}
DREAMER_V3 = SHORT | {
    "sequence": 5,
    "free_nats": 0.0,
    "size": Size(deter=16, units=8, classes=3, depth=2, latents=4),
    "train__precision": "no",
}
DREAMER_V2 = DREAMER | SHORT | {"deter": 8, "latents": 3, "classes": 3, "layers": 1}
DREAMER_V1 = DREAMER | SHORT | {"deter": 8, "hidden": 6, "stoch": 4}
PLANET = DREAMER | FEW | {"deter": 8, "stoch": 4, "reward_units": 6}
WORLD_MODELS = {"latent": 3, "width": 4, "depth": 2, "sequence": 4, "squash": "auto"}
SHRUNK = {
    "lewm": LEWM,
    "dino_wm": DINO_WM,
    "dreamer_v3": DREAMER_V3,
    "dreamer_v2": DREAMER_V2,
    "dreamer_v1": DREAMER_V1,
    "planet": PLANET,
    "world_models": WORLD_MODELS,
}
TOYS = [f"toy_of_the_contract_tests.{name}" for name in FAMILIES]
ALIKE = ("dreamer_v3.size", "dreamer_v3.arxiv_v1_")  # published sizes do not differ when shrunk
RECIPES = [
    name for name in recipe_names() if not name.startswith(("toy", *ALIKE)) and "tests" not in name
]


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        yield


def as_numpy(obs):
    return {key: value.numpy() for key, value in obs.items()}


@pytest.mark.parametrize("name", TOYS)
def test_an_agent_of_every_family_keeps_the_contract(name):
    family = FAMILIES[name.partition(".")[2]]
    agent = build(name, family.spaces())
    passed = check_agent(agent, as_numpy(family.obs()), family.batch())
    assert {"saved and loaded it acts the same", "an update changes the model"} <= set(passed)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_keeps_the_contract_when_shrunk(name):
    agent = build(name, image_spaces(), **SHRUNK[name.partition(".")[0]])
    batch = random_batch(agent.spaces, length=agent.config.window)
    obs = {key: value[:, 0] for key, value in batch.obs.items()}
    goals = {f"goal/{key}": value[:, 1] for key, value in batch.obs.items()}
    check_world_model(without_probes(agent), batch)
    check_agent(agent, as_numpy(obs | goals), batch)


def test_an_offline_policy_learns_to_imitate_through_the_same_nouns():
    """Behaviour cloning: the policy head is one more loss term, and PolicyActor reads it."""
    agent = build("toy_of_the_contract_tests.dreamer4", FAMILIES["dreamer4"].spaces())
    batch = FAMILIES["dreamer4"].batch(rows=16)
    batch = batch.replace(action=torch.full_like(batch.action, 0.4))
    for _ in range(150):
        agent.learn(batch)
    assert isinstance(agent.actor, PolicyActor)
    obs = {"vector": batch.obs["vector"][:, -1].numpy()}
    decision, _ = agent.act(obs, agent.initial(16), is_first=np.ones(16, bool))
    torch.testing.assert_close(decision.action, torch.full((16, 2), 0.4), atol=0.1, rtol=0)
    rng = torch.Generator().manual_seed(0)
    drawn, _ = agent.act(obs, agent.initial(16), is_first=np.ones(16, bool), explore=True, generator=rng)  # fmt: skip
    assert drawn.action.std() > 0


# -- broken agents -----------------------------------------------------------------------------------
class Leaky:
    """Adds up the rounds it has acted, over the ends of episodes."""

    def __init__(self, model):
        self.model = model

    def initial(self, batch_size):
        return None

    def act(self, state, obs, memory, *, is_first, explore=False, generator=None):
        count = torch.zeros(len(is_first)) if memory is None else memory.count + 1
        action = count.unsqueeze(-1).expand(-1, self.model.spaces.action_width) / 10
        decision, _ = RandomActor(self.model).act(state, obs, None, is_first=is_first)
        return decision.replace(action=action), Rounds(count)


@dataclasses.dataclass(frozen=True)
class Rounds(wm_toolkit.Struct):
    count: torch.Tensor


class Unseeded(RandomActor):
    def act(self, state, obs, memory, *, is_first, explore=False, generator=None):
        return super().act(state, obs, memory, is_first=is_first)


class OutOfBounds(RandomActor):
    def act(self, state, obs, memory, *, is_first, explore=False, generator=None):
        decision, _ = super().act(state, obs, memory, is_first=is_first, generator=generator)
        return decision.replace(action=decision.action[:, :1]), None


@pytest.mark.parametrize(
    ("actor", "complaint"),
    [
        (Leaky, "a new episode starts from nothing"),
        (Unseeded, "the same seed gives the same actions"),
        (OutOfBounds, "actions fit the action space"),
    ],
)
def test_a_broken_actor_is_found_out(actor, complaint):
    family = FAMILIES["rssm"]
    model = family.model(family.spaces())
    with pytest.raises(CheckError, match=complaint):
        check_agent(Agent(model, actor(model)), as_numpy(family.obs()))


def test_a_model_that_carries_one_episode_into_the_next_is_found_out():
    class Sticky(type(FAMILIES["lewm"].model(image_spaces()))):  # type: ignore[misc]
        seen = None

        def observe(self, state, action, obs, *, generator=None):
            found = super().observe(state, action, obs, generator=generator)
            if self.seen is not None and len(self.seen) == len(found):
                found = found.replace(tokens=found.tokens + self.seen.mean())
            type(self).seen = found.tokens
            return found

    model = FAMILIES["lewm"].model(image_spaces())
    model.__class__ = Sticky
    agent = Agent(model, RandomActor(model))
    with pytest.raises(CheckError, match="begin in one row alone"):
        check_agent(agent, as_numpy(FAMILIES["lewm"].obs()))


# -- nothing is encoded twice ------------------------------------------------------------------------
def test_in_an_episode_every_frame_and_every_goal_is_encoded_exactly_once():
    agent = build("toy_of_the_contract_tests.lewm", image_spaces())
    encoded: list[int] = []
    agent.model.encoder.register_forward_hook(lambda module, args, out: encoded.append(len(out)))
    generator, state = torch.Generator().manual_seed(0), agent.initial(3)
    goal = {k: v for k, v in as_numpy(FAMILIES["lewm"].obs(3)).items() if k.startswith("goal/")}
    for step in range(6):
        seen = as_numpy(FAMILIES["lewm"].obs(3, seed=step))
        first = np.full(3, step == 0)
        _, state = agent.act({**seen, **goal}, state, is_first=first, generator=generator)
    assert encoded == [3, 3] + [3] * 5  # the first frame and the goals, then frames only


@pytest.mark.parametrize(
    "objective",
    [Goal(), Weighted([(1.0, Goal(mode="sum")), (0.1, ActionCost())])],
    ids=["goal", "weighted"],
)
def test_a_goal_that_changes_in_one_row_is_encoded_alone(objective):
    agent = build("toy_of_the_contract_tests.lewm", image_spaces())
    agent.actor.objective = objective
    encoded: list[int] = []
    agent.model.encoder.register_forward_hook(lambda module, args, out: encoded.append(len(out)))
    obs = as_numpy(FAMILIES["lewm"].obs(3))
    generator = torch.Generator().manual_seed(0)
    _, state = agent.act(obs, agent.initial(3), is_first=np.ones(3, bool), generator=generator)
    moved = obs["goal/image"].copy()
    moved[1] = 255 - moved[1]
    encoded.clear()
    one = np.array([False, True, False])
    _, state = agent.act({**obs, "goal/image": moved}, state, is_first=one, generator=generator)
    assert encoded == [3, 1]
    whole = objective.bind(agent.model.eval(), {"goal/image": torch.as_tensor(moved)})
    goals = [
        found.features if isinstance(found, Goal) else found.parts[0][1].features
        for found in (state.actor.objective, whole)
    ]
    torch.testing.assert_close(goals[0], goals[1], rtol=1e-4, atol=1e-5)


def test_an_objective_that_cannot_mix_rows_is_bound_anew():
    class Own(Objective):
        bound: ClassVar[list[int]] = []

        def bind(self, model, obs, *, generator=None):
            self.bound.append(len(obs["goal/image"]))
            return Own()

    agent = build("toy_of_the_contract_tests.lewm", image_spaces())
    agent.actor.objective = Own()
    obs = as_numpy(FAMILIES["lewm"].obs(3))
    generator = torch.Generator().manual_seed(0)
    _, state = agent.act(obs, agent.initial(3), is_first=np.ones(3, bool), generator=generator)
    moved = obs["goal/image"].copy()
    moved[1] = 255 - moved[1]
    agent.act({**obs, "goal/image": moved}, state, is_first=np.zeros(3, bool), generator=generator)
    assert Own.bound == [3, 1, 3]


# -- dreams ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["rssm", "muzero", "dreamer4"])
def test_every_family_opens_as_an_environment_that_both_checkers_accept(family):
    made = FAMILIES[family]
    model = made.model(made.spaces())
    starts = {"vector": made.batch().obs["vector"][:, 0]}
    options = {"model": model, "objective": Reward(), "starts": starts, "horizon": 4}
    env = gym.make("wm_toolkit/WorldModel-v0", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both advise about unbounded observations
        check_env(env.unwrapped, skip_render_check=True)
        check_sb3(env)
    runs = []
    for _ in range(2):
        obs, _ = env.reset(seed=3)
        env.action_space.seed(3)
        rows = [obs]
        for _ in range(4):
            obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            rows.append(np.append(obs, reward))
            if terminated or truncated:
                break
        runs.append(np.concatenate(rows))
    np.testing.assert_array_equal(*runs)


def test_a_dream_pays_the_reward_head_and_ends_as_often_as_the_continue_head_says():
    made = FAMILIES["rssm"]
    model = made.model(made.spaces()).eval()
    torch.nn.init.zeros_(model.heads["continue"].net[-1].weight)
    torch.nn.init.constant_(model.heads["continue"].net[-1].bias, np.log(3))  # goes on 3 times of 4
    starts = {"vector": made.batch().obs["vector"][:, 0]}
    env = gym.make_vec(
        "wm_toolkit/WorldModel-v0",
        num_envs=400,
        vectorization_mode="vector_entry_point",
        model=model,
        objective=Reward(),
        starts=starts,
        horizon=9,
    )
    env.reset(seed=0)
    obs, reward, terminated, _, _ = env.step(np.zeros((400, 2), np.float32))
    assert terminated.mean() == pytest.approx(0.25, abs=0.07)
    features = torch.as_tensor(obs)[:, : model.DETER + model.STOCH]
    with torch.no_grad():
        expected = model.heads["reward"](features).mean.numpy()
    np.testing.assert_allclose(reward, expected, rtol=1e-4, atol=1e-5)


def test_the_states_a_planner_and_an_environment_start_from_are_the_same():
    made = FAMILIES["lewm"]
    model = made.model(made.spaces()).eval()
    obs = {"image": made.obs()["image"]}
    goal = Goal(features=torch.zeros(8))
    env = gym.make("wm_toolkit/WorldModel-v0", model=model, objective=goal, starts=obs)
    seen, _ = env.reset(seed=0, options={"start": 2})
    with torch.no_grad():
        expected = model.features(state_of(model, obs))[2]
    np.testing.assert_allclose(seen, expected.numpy(), rtol=1e-5, atol=1e-6)
