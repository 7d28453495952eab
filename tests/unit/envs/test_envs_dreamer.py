"""Models of the Dreamer family as environments: their own rewards, ends, observations and randomness."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from dreamer_toys import (
    BOX,
    SPACES,
    FirstFeature,
    categorical_dreamer,
    gaussian_dreamer,
    sequences,
)
from gymnasium.utils.env_checker import check_env
from torch import nn

from wm_toolkit.agents.actors import PolicyActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.envs.imagined import WorldModelEnv, WorldModelVectorEnv
from wm_toolkit.errors import ConfigError, MissingHeadError
from wm_toolkit.heads.bernoulli import Bernoulli
from wm_toolkit.heads.policy import BoxPolicy, ChoicePolicy
from wm_toolkit.models.mdn_rnn import MDNRNN
from wm_toolkit.planning.objective import Goal, Reward
from wm_toolkit.spaces import Spaces


def starts(name: str = "vector"):
    return sequences(SPACES[name], torch.Generator().manual_seed(1), rows=4, length=6)


def make(model, name: str = "vector", **options) -> WorldModelEnv:
    options = {"objective": Reward(), "starts": starts(name), **options}
    return WorldModelEnv(model, **options)


class Chance(nn.Module):
    """Goes on with one probability, always."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, features):
        return Bernoulli(torch.full(features.shape[:-1], self.chance).logit())


@pytest.mark.parametrize("observation", ["features", "decoded"])
@pytest.mark.parametrize("name", SPACES)
def test_the_checker_accepts_every_kind_of_observation(name, observation):
    env = make(categorical_dreamer(name), name, observation=observation, horizon=5)
    check_env(env, skip_render_check=True)


def test_a_policy_gets_the_rewards_that_the_model_predicts():
    model = gaussian_dreamer()
    model.heads["policy"] = BoxPolicy(nn.Linear(20, 4))
    model.heads["continue"] = Chance(0.999999)
    env = make(model, horizon=5)
    obs, info = env.reset(seed=11, options={"start": 2})
    seen, rewards = [obs], []
    for _ in range(5):
        with torch.no_grad():
            action = model.heads["policy"](torch.from_numpy(seen[-1])).mode
        obs, reward, terminated, truncated, _ = env.step(action.numpy())
        seen.append(obs)
        rewards.append(reward)
        assert not terminated
    assert truncated
    assert info == {"start": 2}

    noise = torch.Generator().manual_seed(11)
    with torch.no_grad():
        state = model.observe_sequence(starts()[2:3], generator=noise)[:, -1]
        for step in range(5):
            action = model.predict("policy", state).mode
            state = model.imagine(state, action, generator=noise)
            np.testing.assert_allclose(seen[step + 1], model.features(state)[0], rtol=1e-6)
            assert rewards[step] == pytest.approx(model.predict("reward", state).mean.item())


def test_an_agent_of_the_real_environment_acts_in_the_dream_unchanged():
    for name in SPACES:
        model = categorical_dreamer(name)
        net = nn.Linear(model.rssm.width, 3 if model.spaces.discrete else 4)
        model.heads["policy"] = ChoicePolicy(net, (3,)) if model.spaces.discrete else BoxPolicy(net)
        agent = Agent(model, PolicyActor(model))
        envs = WorldModelVectorEnv(
            3, model=model, objective=Reward(), starts=starts(name), observation="decoded"
        )
        assert Spaces.of(envs).observation == model.spaces.observation
        obs, _ = envs.reset(seed=0)
        decision, _ = agent.act(obs, agent.initial(3), is_first=np.ones(3, bool))
        obs, reward, *_ = envs.step(model.spaces.decode_action(decision.action))
        assert envs.observation_space.contains(obs)
        assert reward.shape == (3,)
        assert np.isfinite(reward).all()


def test_decoded_observations_are_what_the_decoder_draws_within_the_space():
    model = categorical_dreamer("several")
    env = make(model, "several", observation="decoded")
    obs, _ = env.reset(seed=3, options={"start": 1})
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        state = model.observe_sequence(starts("several")[1:2], generator=noise)[:, -1]
        parts = model.predict("decoder", state).parts
    assert (obs["camera"].dtype, obs["joints"].dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(obs["camera"], parts["camera"].uint8[0])
    np.testing.assert_allclose(obs["joints"], parts["joints"].mean[0].clamp(-9, 9), rtol=1e-6)
    assert obs["mode"] == parts["mode"].logits[0].argmax()
    tight = gym.spaces.Box(-1e-4, 1e-4, (3,), np.float32)
    model.spaces = Spaces({**model.spaces.observation, "joints": tight}, model.spaces.action)
    clipped = make(model, "several", observation="decoded").reset(seed=3)[0]["joints"]
    assert np.abs(clipped).max() == pytest.approx(1e-4)


@pytest.mark.parametrize(("chance", "ended"), [(0.6, 0.0), (0.4, 1.0)])
def test_likely_ends_need_no_luck(chance, ended):
    model = gaussian_dreamer()
    model.heads["continue"] = Chance(chance)
    options = {"model": model, "objective": Reward(), "starts": starts(), "termination": "likely"}
    envs = WorldModelVectorEnv(50, **options)
    envs.reset(seed=0)
    assert envs.step(np.zeros((50, 2), np.float32))[2].mean() == ended


def test_a_discount_in_the_continue_head_ends_no_episode():
    model = gaussian_dreamer()
    model.heads["continue"], model.discount = Chance(0.9), 0.9
    envs = WorldModelVectorEnv(200, model=model, objective=Reward(), starts=starts(), horizon=9)
    envs.reset(seed=0)
    for _ in range(5):
        assert not envs.step(np.zeros((200, 2), np.float32))[2].any()


def test_a_temperature_is_the_models_only_while_it_dreams():
    image = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    torch.manual_seed(0)
    model = MDNRNN(Spaces({"image": image}, BOX), latent=4, width=8, depth=2).eval()
    model.heads["reward"] = FirstFeature()
    env, hot = (
        make(model, "image", temperature=temperature, observation="features")
        for temperature in (None, 9.0)
    )

    def dream(one) -> np.ndarray:
        one.reset(seed=5, options={"start": 0})
        return one.step(np.zeros(2, np.float32))[0][:4]

    with torch.no_grad():
        noise = torch.Generator().manual_seed(5)
        state = model.observe_sequence(starts("image")[:1], generator=noise)[:, -1]
        model.temperature = 9.0
        expected = model.imagine(state, torch.zeros(1, 2), generator=noise).z[0].numpy()
        model.temperature = 1.0
    np.testing.assert_allclose(dream(hot), expected, rtol=1e-5)
    assert model.temperature == 1.0
    assert not np.allclose(dream(env), expected)


def test_rendering_shows_drawn_images_else_stored_ones():
    drawn = make(categorical_dreamer("several"), "several", render_mode="rgb_array")
    drawn.reset(seed=0)
    assert drawn.render().shape == (64, 64, 1)
    with pytest.raises(ConfigError, match="nothing to render"):
        make(gaussian_dreamer(), render_mode="rgb_array")


def test_what_does_not_fit_is_named():
    model = gaussian_dreamer()
    with pytest.raises(ConfigError, match=r"observation is 'decode'.*'decoded'"):
        make(model, observation="decode")
    with pytest.raises(ConfigError, match="termination is 'never'"):
        make(model, termination="never")
    with pytest.raises(ConfigError, match="Dreamer dreams without a temperature"):
        make(model, temperature=1.2)
    with pytest.raises(ConfigError, match="stand behind features"):
        make(model, objective=Goal(), observation="decoded")
    del model.heads["decoder"]
    with pytest.raises(MissingHeadError, match="needs a decoder"):
        make(model, observation="decoded")
