"""Collecting while training: rows as the environment gave them, the stated ratio, exact resume."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn

from wm_toolkit.agents.actors import PolicyActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.model_learner import Program
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.data.tables import ColumnSpec
from wm_toolkit.envs.repeatable import RepeatableEpisodes
from wm_toolkit.errors import ConfigError, NonFiniteError
from wm_toolkit.recipes.dreamer_v3 import Size, actor, world_model
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.collector import Collector
from wm_toolkit.training.experience import Experience


class Counting(gym.Env):
    """Shows (episode, step); ends after 3 steps when the action is 1, else is cut after 5."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.episode, self.step_count = -1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.step_count = self.episode + 1, 0
        return self._obs(), {}

    def step(self, action):
        self.step_count += 1
        ended = self.step_count >= 3 and action == 1
        return self._obs(), float(self.step_count), ended, self.step_count >= 5, {}

    def _obs(self):
        return np.array([self.episode, self.step_count], np.float32)


SIZE = Size(deter=16, units=8, classes=3, depth=1, latents=2, groups=2)


def tiny_agent(spaces: Spaces) -> Agent:
    torch.manual_seed(0)
    model = world_model(spaces, SIZE)
    model.heads["policy"] = actor(spaces, model.rssm.width, SIZE.units)
    return Agent(model, PolicyActor(model))


def source(
    *,
    ratio: float = 20.0,
    envs: int = 2,
    make=Counting,
    burst: int = 1,
    prefill: int = 30,
    **options,
) -> Experience:
    vector = SyncVectorEnv([make] * envs)
    agent = tiny_agent(Spaces.of(vector))
    replay = ReplayBuffer(agent.spaces, capacity=400, streams=envs, batch_size=4, length=5)
    collector = Collector(agent, vector)
    kept = {"train_ratio": ratio, "prefill": prefill, "burst": burst, **options}
    return Experience(collector, replay, **kept)


def cartpole(seed: int = 0) -> Experience:
    """Two environments whose episodes can be repeated."""
    copies = [
        lambda row=row: RepeatableEpisodes(gym.make("CartPole-v1"), seed + row, row)
        for row in range(2)
    ]
    vector = SyncVectorEnv(copies)
    agent = tiny_agent(Spaces.of(vector))
    replay = ReplayBuffer(agent.spaces, capacity=400, streams=2, batch_size=4, length=5)
    return Experience(Collector(agent, vector), replay, train_ratio=10.0, prefill=30)


def kept(experience: Experience) -> dict[str, np.ndarray]:
    """[N, rows, ...] every column."""
    rings = experience.replay.rings
    return {name: column[:, : len(rings)] for name, column in rings.columns.items()}


def test_rows_hold_what_the_environment_said_and_the_action_taken_in_response():
    experience = source()
    for _ in range(40):
        next(experience)
    rows = kept(experience)
    step, first = rows["obs/vector"][..., 1], rows["is_first"]
    assert (first == (step == 0)).all()
    assert (rows["reward"] == step).all()
    ended, cut = rows["terminated"], rows["truncated"]
    assert (cut == (step == 5))[~ended].all()
    assert ended.any()
    for n in range(2):
        over = (ended | cut)[n]
        assert (first[n, 1:] == over[:-1]).all()  # every end is followed by a beginning
        chosen = rows["action"][n, :-1].argmax(-1)
        assert (chosen[ended[n, 1:]] == 1).all()  # only action 1 ends an episode


def test_the_replayed_rows_per_collected_row_are_the_train_ratio():
    experience = source(ratio=10.0)
    next(experience)
    before = experience.rows
    for _ in range(50):
        next(experience)
    assert abs(50 * 20 / (experience.rows - before) - 10.0) < 0.3
    assert experience.rows_per_update == 2.0


def test_nothing_is_shown_before_the_prefill_is_there():
    experience = source()
    next(experience)
    assert 30 <= experience.rows < 34


def test_an_episodes_last_row_is_no_decision():
    experience = source()
    for _ in range(30):
        next(experience)
    rows = kept(experience)
    ends = int((rows["terminated"] | rows["truncated"]).sum())
    assert ends > 5
    assert experience.rows - experience.collector.steps == ends


def test_the_returns_of_finished_episodes_are_counted():
    experience = source()
    for _ in range(30):
        next(experience)
    assert set(experience.collector.returns) <= {6.0, 10.0, 15.0}  # 3, 4 or 5 steps
    assert len(experience.collector.returns) > 5
    lengths = experience.collector.lengths
    assert [sum(range(1, n + 1)) for n in lengths] == experience.collector.returns
    found = experience.progress()
    assert found["env/return"] == sum(experience.collector.returns[-10:]) / 10
    assert found["env/length"] == sum(lengths[-10:]) / 10
    assert found["env/episodes"] == len(lengths)
    assert found["env/steps"] == experience.collector.steps


def test_a_resumed_source_goes_on_in_the_middle_of_its_episodes(tmp_path):
    whole = cartpole()
    for _ in range(15):
        next(whole)
    running = [len(taken) for taken in whole.collector._actions]
    assert max(running) > 0
    whole.save(tmp_path / "experience")
    again = cartpole()
    again.load(tmp_path / "experience")
    assert [len(taken) for taken in again.collector._actions] == running
    for _ in range(40):
        one, two = next(whole), next(again)
        assert torch.equal(one.obs["vector"], two.obs["vector"])
        assert torch.equal(one.action, two.action)
        assert torch.equal(one.truncated, two.truncated)
    assert whole.collector.returns == again.collector.returns
    assert whole.progress() == again.progress()
    rows, others = kept(whole), kept(again)
    assert all(np.array_equal(rows[name], others[name]) for name in rows)


def test_saving_does_not_disturb_episodes_that_can_be_repeated(tmp_path):
    one, other = cartpole(), cartpole()
    for number in range(30):
        if number % 7 == 3:
            one.save(tmp_path / "experience")
        a, b = next(one), next(other)
        assert torch.equal(a.obs["vector"], b.obs["vector"])
    assert not kept(one)["truncated"].any()


def test_a_run_that_stopped_when_an_episode_had_just_ended_begins_the_next(tmp_path):
    whole = cartpole()
    for _ in range(200):
        next(whole)
        if (whole.collector._ended[0] | whole.collector._ended[1]).any():
            break
    else:
        raise AssertionError("no episode ended")
    whole.save(tmp_path / "experience")
    again = cartpole()
    again.load(tmp_path / "experience")
    for _ in range(20):
        assert torch.equal(next(whole).obs["vector"], next(again).obs["vector"])


def test_environments_that_cannot_repeat_are_cut_at_every_save_and_begin_anew(tmp_path):
    def fresh() -> gym.Env:
        return gym.make("CartPole-v1")

    whole, again = source(make=fresh), source(make=fresh)
    for _ in range(12):
        next(whole)
    whole.save(tmp_path / "experience")
    again.load(tmp_path / "experience")
    rows = kept(whole)
    ended = rows["truncated"] | rows["terminated"] | rows["is_first"]
    assert ended[:, -1].all()
    for _ in range(20):
        one, two = next(whole), next(again)
        assert torch.equal(one.obs["vector"], two.obs["vector"])
        assert torch.equal(one.action, two.action)


def test_an_environment_that_promised_to_repeat_and_does_not_is_cut_with_a_warning(
    tmp_path, caplog
):
    class Drifting(Counting):
        """Shows a number that no seed decides."""

        drift = 0

        def reset(self, *, seed=None, options=None):
            Drifting.drift += 1
            return super().reset(seed=seed)

        def _obs(self):
            return np.array([Drifting.drift, self.step_count], np.float32)

    def make() -> gym.Env:
        return RepeatableEpisodes(Drifting(), 0, 0)

    whole, again = source(make=make, envs=1), source(make=make, envs=1)
    while whole.collector._first.any() or any(np.concatenate(whole.collector._ended)):
        next(whole)
    whole.save(tmp_path / "experience")
    rows = whole.rows
    again.load(tmp_path / "experience")
    assert "did not repeat" in caplog.text
    assert again.rows == rows + 1
    assert kept(again)["truncated"][0, -1]
    next(again)


def test_updates_come_in_bursts_and_the_environments_catch_up_between_them():
    experience = source(ratio=10.0, burst=4)
    seen = []
    for _ in range(12):
        next(experience)
        seen.append(experience.rows)
    assert seen == [30] * 4 + [38] * 4 + [46] * 4


def test_updates_before_the_environments_go_on_replay_the_prefill_alone():
    experience = source(pretrain=3, ratio=20.0)  # else one row of both environments an update
    rows = [next(experience) and experience.rows for _ in range(6)]
    assert rows == [30, 30, 30, 30, 32, 32]


def test_the_agent_itself_collects_the_prefill_where_it_is_asked_to():
    asked = []
    for explore in ("agent", "random"):
        experience = source(explore=explore, prefill=20)
        head = experience.collector.agent.model.heads["policy"]
        head.register_forward_hook(lambda *args, how=explore: asked.append(how))
        next(experience)
    assert asked == ["agent"] * 10


class Remembering(Program):
    """Keeps the step it saw, plus 100, as the state of every row."""

    def latent_columns(self) -> dict[str, ColumnSpec]:
        return {"memory": ColumnSpec((1,), np.dtype(np.float16))}

    def latents_of(self, state) -> dict[str, torch.Tensor]:
        return {"memory": state.deter[:, :1].half()}


def test_latents_are_stored_with_every_row_and_written_back_before_the_next_batch():
    vector = SyncVectorEnv([Counting] * 2)
    agent = tiny_agent(Spaces.of(vector))
    program = Remembering(agent.model)
    replay = ReplayBuffer(
        agent.spaces,
        capacity=400,
        streams=2,
        batch_size=4,
        length=5,
        context=1,
        extras=program.latent_columns(),
    )
    acted = []
    agent.actor.act = _spy(agent.actor.act, acted)
    collector = Collector(agent, vector, latents=program.latents_of)
    experience = Experience(
        collector, replay, train_ratio=20, prefill=30, explore="agent", program=program
    )
    batch = next(experience)
    assert batch.action.shape == (4, 6, 2)
    stored = kept(experience)["memory"][..., 0]
    assert np.array_equal(stored, np.stack(acted, 1).astype(np.float16))
    program.latents = {"memory": torch.arange(20.0).reshape(4, 5, 1) + 100}
    start, stream = np.divmod(batch.index.numpy(), 2)
    context = replay.rings.read("memory", stream, start[:, None])
    experience._write_back()
    number = start[:, None] + 1 + np.arange(5)
    written = replay.rings.read("memory", stream, number)[..., 0]
    # Where sequences overlap the last one counts, so look at the last.
    assert np.array_equal(written[-1], np.arange(15, 20) + 100)
    alone = ~np.isin(start, number)
    assert np.array_equal(
        replay.rings.read("memory", stream, start[:, None])[alone], context[alone]
    )


def _spy(act, seen: list):
    def spied(state, obs, memory, **options):
        seen.append(state.deter[:, 0].numpy().copy())
        return act(state, obs, memory, **options)

    return spied


def test_latents_are_written_back_once_and_before_saving(tmp_path):
    experience = source()
    experience.program = Remembering(experience.collector.agent.model)
    written = []
    experience.replay.write = lambda index, values: written.append(values)
    next(experience)
    experience.program.latents = {"memory": torch.zeros(4, 5, 1)}
    experience.save(tmp_path / "experience")
    assert len(written) == 1
    next(experience)
    next(experience)
    assert len(written) == 2


def test_without_environments_only_what_is_there_is_replayed(tmp_path):
    full = source()
    next(full)
    alone = Experience(None, full.replay, train_ratio=1.0)
    for _ in range(3):
        assert next(alone).action.shape == (4, 5, 2)
    assert alone.rows == 0
    assert alone.progress() == {}
    alone.save(tmp_path / "alone")
    after = next(alone).obs["vector"]
    again = Experience(None, source().replay, train_ratio=1.0)
    again.load(tmp_path / "alone")
    assert torch.equal(next(again).obs["vector"], after)


def test_environments_that_reset_at_once_are_refused():
    vector = SyncVectorEnv([Counting], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ConfigError, match="NEXT_STEP"):
        Collector(tiny_agent(Spaces.of(vector)), vector)


def test_a_replay_of_other_streams_and_numbers_out_of_range_are_refused():
    one, two = source(envs=1), source(envs=2)
    with pytest.raises(ConfigError, match="2 environments and a replay of 1 streams"):
        Experience(two.collector, one.replay, train_ratio=1.0)
    with pytest.raises(ConfigError, match="train_ratio is 0, burst 1"):
        Experience(one.collector, one.replay, train_ratio=0)


def test_the_model_acts_without_gradients_and_in_evaluation_mode():
    experience = source()
    experience.collector.agent.model.heads["policy"].register_forward_hook(
        lambda module, args, out: seen.append((module.training, torch.is_grad_enabled()))
    )
    seen: list[tuple[bool, bool]] = []
    for _ in range(5):
        next(experience)
    assert set(seen) == {(False, False)}
    assert isinstance(experience.collector.agent.model, nn.Module)


class Failing(Counting):
    """Hands over something that is no number, or falls over, in its twentieth step."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.total = how, 0

    def step(self, action):
        obs, reward, *rest = super().step(action)
        self.total += 1
        if self.total < 20:
            return obs, reward, *rest
        if self.how == "raise":
            raise RuntimeError("the simulator fell over")
        return (obs * np.nan, reward, *rest) if self.how == "vector" else (obs, np.inf, *rest)


@pytest.mark.parametrize("how", ["vector", "reward"])
def test_what_is_not_finite_is_named_and_kept_out_of_the_replay(how):
    experience = source(make=lambda: Failing(how), prefill=100)
    with pytest.raises(NonFiniteError, match=f"handed over {how} .* in environment 0, episode"):
        next(experience)
    rewards, seen = kept(experience)["reward"], kept(experience)["obs/vector"]
    assert np.isfinite(rewards).all()
    assert np.isfinite(seen).all()
    assert 15 < rewards.shape[1] < 40


def test_an_environment_that_falls_over_keeps_its_own_error_and_says_what_is_safe():
    experience = source(make=lambda: Failing("raise"), prefill=100)
    with pytest.raises(RuntimeError, match="the simulator fell over") as caught:
        next(experience)
    assert "newest checkpoint" in caught.value.__notes__[0]
