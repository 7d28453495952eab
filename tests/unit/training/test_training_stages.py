"""Training in stages: rollouts, batches of every stage, and a resumed run that equals a whole one."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("cma")

from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.fitness import EnvFitness
from wm_toolkit.config import override
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.errors import ConfigError, DataError, SpaceError
from wm_toolkit.models.mdn_rnn import LATENT
from wm_toolkit.registry import build, recipe_config
from wm_toolkit.training import jobs
from wm_toolkit.training.hooks import Hook
from wm_toolkit.training.logging import METRICS, read_metrics
from wm_toolkit.training.staged_source import StageData, StagedSource
from wm_toolkit.training.stages import ROLLOUTS, StickyPolicy, record_rollouts, train_in_stages

RECIPE = "world_models.small"
DODGE = "wm_toolkit/Dodge-v0"
TINY = {
    "latent": 3,
    "width": 4,
    "depth": 2,
    "rollouts": 4,
    "rollout_steps": 30,
    "envs": 2,
    "vision_updates": 3,
    "vision_batch": 4,
    "memory_updates": 3,
    "sequence": 8,
    "population": 4,
    "starts": 2,
    "horizon": 6,
    "remeasure": 2,
    "train__batch_size": 2,
    "train__updates": 9,
    "train__log_every": 1,
    "train__checkpoint_every": 4,
    "evaluation__env": DODGE,
}


def config(**changes):
    return recipe_config("world_models.small", **(TINY | changes))


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory) -> TrajectoryDataset:
    return record_rollouts(config(), tmp_path_factory.mktemp("rollouts") / ROLLOUTS)


# -- rollouts ----------------------------------------------------------------------------------------
def test_whoever_trains_is_told_how_far_the_rollouts_are(tmp_path):
    told = []
    few = config(train__updates=1, vision_updates=1)
    with pytest.raises(KeyboardInterrupt):  # what is told is known before the first update
        jobs.train(
            "world_models.small",
            few,
            tmp_path,
            hooks=[Stop()],
            progress=lambda done, total: told.append((done, total)),
        )
    assert told == [(2, 4), (4, 4)]


class Stop(Hook):
    """Breaks a run off before its first update."""

    def before_training(self, trainer):
        raise KeyboardInterrupt


def test_actors_of_their_own_are_refused_where_rollouts_are_recorded(tmp_path):
    with pytest.raises(ConfigError, match="actors is 'process'"):
        train_in_stages(RECIPE, config(actors="process"), None, tmp_path)


def test_rollouts_are_recorded_once_with_what_they_were_made_with(rollouts):
    assert len(rollouts) == 4
    assert max(rollouts.episode_lengths) <= 31
    assert rollouts.metadata["env"] == DODGE
    again = record_rollouts(config(), rollouts.path)
    assert again.checksum == rollouts.checksum


def test_rollouts_made_otherwise_are_not_taken_for_these(rollouts):
    with pytest.raises(DataError, match="delete it to go on"):
        record_rollouts(config(sticky=0.1), rollouts.path)


def test_rollouts_need_an_environment(tmp_path):
    with pytest.raises(ConfigError, match="--env"):
        record_rollouts(config(evaluation__env=""), tmp_path / ROLLOUTS)


def test_sticky_actions_are_held_as_often_as_asked():
    policy = StickyPolicy(gym.spaces.Discrete(100), 0.7)
    policy.begin(0, 20)
    actions = np.stack([policy.act(None) for _ in range(200)])
    assert (actions[1:] == actions[:-1]).mean() == pytest.approx(0.7 + 0.3 / 100, abs=0.03)


def test_a_rows_actions_depend_on_its_seed_alone():
    one, two = (StickyPolicy(gym.spaces.Discrete(9), 0.5) for _ in range(2))
    one.begin(3, 4)
    two.begin(5, 1)
    for _ in range(20):
        assert one.act(None)[2] == two.act(None)[0]


# -- batches -----------------------------------------------------------------------------------------
@pytest.fixture
def model(rollouts):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("world_models.small", rollouts.spaces, config()).model.eval()


def source(rollouts, model, *stages: StageData) -> StagedSource:
    return StagedSource(rollouts, model, stages, seed=1)


def test_windows_run_across_the_ends_of_episodes_and_say_so(rollouts, model):
    stream = source(rollouts, model, StageData(1, 40, 16, reads="both"))
    batch = next(stream)
    first = np.cumsum(rollouts.episode_lengths) - rollouts.episode_lengths
    for row, start in enumerate(batch.index.tolist()):
        places = np.arange(start, start + 40)
        assert batch.is_first[row].tolist() == np.isin(places, first).tolist()
        images = np.asarray(rollouts.columns["obs/image"].array[places])
        assert np.array_equal(batch.obs["image"][row].numpy(), images)
        ended = np.asarray(rollouts.columns["terminated"].array[places])
        assert batch.terminated[row].tolist() == ended.tolist()
    assert batch.is_first.any()


def test_every_row_is_drawn_as_often_as_any_other(rollouts, model):
    stream = source(rollouts, model, StageData(1, 1, 500))
    drawn = torch.cat([next(stream).index for _ in range(20)])
    counts = torch.bincount(drawn, minlength=rollouts.num_rows)
    assert counts.min() > 0.5 * counts.float().mean()
    assert counts.max() < 1.6 * counts.float().mean()


def test_codes_are_what_vision_makes_of_the_frames(rollouts, model):
    stage = StageData(1, 3, 5, reads="both")
    batch = next(source(rollouts, model, stage))
    with torch.no_grad():
        seen = model.encoder(batch.obs)
    mean, log_variance = batch.extras[LATENT].chunk(2, -1)
    torch.testing.assert_close(mean, seen.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((0.5 * log_variance).exp(), seen.std, rtol=1e-4, atol=1e-5)


def test_dreams_begin_where_episodes_do(rollouts, model):
    batch = next(source(rollouts, model, StageData(1, 1, 8, "first", "both")))
    assert batch.is_first.all()


def test_every_stage_gets_its_own_batches_and_the_last_goes_on(rollouts, model):
    stages = config().stages
    stream = source(rollouts, model, *stages)
    shapes = [tuple(next(stream).action.shape[:2]) for _ in range(8)]
    assert shapes == [(4, 1)] * 3 + [(2, 8)] * 3 + [(2, 1)] * 2


def test_a_restored_stream_goes_on_where_it_was(rollouts, model):
    stages = config().stages
    one, two = source(rollouts, model, *stages), source(rollouts, model, *stages)
    for _ in range(4):
        next(one)
    two.load_state_dict(one.state_dict())
    assert torch.equal(next(one).index, next(two).index)


def test_held_out_episodes_are_never_drawn(rollouts, model):
    train, held_out = rollouts.split(0.5, seed=0)
    stream = StagedSource(train, model, [StageData(1, 2, 64)], seed=0)
    kept = {tuple(frame.flatten().tolist()[::97]) for e in train for frame in e.obs["image"]}
    seen = next(stream).obs["image"].flatten(0, 1)
    assert all(tuple(frame.flatten().tolist()[::97]) in kept for frame in seen)
    assert len(stream._rows) == train.num_rows < rollouts.num_rows
    assert held_out.num_rows + train.num_rows == rollouts.num_rows


def encoded(stream, monkeypatch) -> int:
    """How many frames V is shown for the next batch."""
    seen, pixels = [], stream.model.encoder.pixels
    monkeypatch.setattr(
        stream.model.encoder, "pixels", lambda obs: seen.append(len(obs["image"])) or pixels(obs)
    )
    next(stream)
    return sum(seen)


def test_no_more_frames_are_encoded_than_any_stage_reads(rollouts, model, monkeypatch):
    dreams = config(frozen_model=True, fitness="dream").stages
    assert encoded(source(rollouts, model, *dreams), monkeypatch) == len(rollouts)
    memory = StageData(1, 3, 2, reads="codes")
    assert encoded(source(rollouts, model, memory), monkeypatch) == rollouts.num_rows
    real = config(frozen_model=True, fitness="real").stages
    assert encoded(source(rollouts, model, *real), monkeypatch) == 0


def test_codes_of_beginnings_alone_are_those_of_all_frames(rollouts, model):
    first = StageData(1, 2, 6, "first", "both")
    alone, among = (
        next(source(rollouts, model, first)),
        next(source(rollouts, model, first, StageData(1, 3, 2, reads="codes"))),
    )
    assert torch.equal(alone.index, among.index)
    torch.testing.assert_close(alone.extras[LATENT], among.extras[LATENT], rtol=1e-5, atol=1e-6)


def test_more_rows_than_there_are_cannot_be_given(rollouts, model):
    with pytest.raises(DataError, match="rows cannot give"):
        source(rollouts, model, StageData(1, 10_000, 2))


# -- the whole job -----------------------------------------------------------------------------------
def weights(run) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def test_a_run_that_was_stopped_in_any_stage_equals_a_whole_one(tmp_path):
    train_in_stages(RECIPE, config(), DODGE, tmp_path / "whole")
    for updates in (4, 8, 9):  # in memory, in evolution, to the end
        changed = config(train__updates=updates)
        train_in_stages(RECIPE, changed, DODGE, tmp_path / "parts")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


def test_the_artefact_acts_and_knows_how_it_is_measured(tmp_path):
    agent, result = train_in_stages(
        "world_models.small", config(evaluation__env=""), DODGE, tmp_path
    )
    assert (result.update, result.ended) == (9, "finished")
    loaded = Agent.from_pretrained(tmp_path)
    assert loaded.info["evaluation"]["env"] == DODGE
    assert loaded.model.temperature == agent.model.temperature
    obs = np.zeros((2, 64, 64, 3), np.uint8)
    decisions = [
        a.act(
            obs, a.initial(2), is_first=np.ones(2, bool), generator=torch.Generator().manual_seed(0)
        )[0]
        for a in (agent, loaded)
    ]
    assert torch.equal(decisions[0].action, decisions[1].action)


def test_recorded_data_takes_the_place_of_rollouts(tmp_path, rollouts):
    run = tmp_path / "run"
    agent, _ = train_in_stages(RECIPE, config(), None, run, data=rollouts)
    assert not (run / ROLLOUTS).exists()
    assert agent.info["data"]["checksum"] == rollouts.checksum


def test_a_real_environment_may_measure_the_controllers(tmp_path, rollouts):
    real = config(fitness="real", evaluation__env_options={"max_episode_steps": 20})
    agent, _ = train_in_stages(RECIPE, real, None, tmp_path, data=rollouts)
    assert 0 < agent.learner.stages[-1].learner.champion <= 20


def test_real_episodes_are_counted_and_the_environment_is_closed(tmp_path, rollouts, monkeypatch):
    """Three generations of four members in two episodes each, one remeasuring; nobody is hit so early."""
    closed = []
    monkeypatch.setattr(EnvFitness, "close", lambda self: closed.append(self))
    real = config(fitness="real", evaluation__env_options={"max_episode_steps": 20})
    for updates in (7, 9):  # the second goes on with the first
        changed = override(real, {"train.updates": updates})
        agent, _ = train_in_stages(RECIPE, changed, None, tmp_path, data=rollouts)
        assert closed == [agent.learner.stages[-1].learner.fitness]
        closed.clear()
    lines = [x for x in read_metrics(tmp_path / METRICS) if "env/steps" in x]
    assert [(x["update"], x["env/episodes"]) for x in lines] == [(7, 8), (8, 24), (9, 32)]
    plain = lines[0]["env/return"] * 8, lines[2]["env/return"] * 8
    steps = [x["env/steps"] for x in lines]
    assert (steps[0], steps[2] - steps[1]) == pytest.approx(plain, abs=1e-3)
    seen = Agent.from_pretrained(tmp_path).info["experience"]
    options = {"max_episode_steps": 20}
    assert seen == {"env": DODGE, "env_options": options, "steps": steps[2], "episodes": 32}


def test_a_controller_of_dreams_has_seen_no_environment(tmp_path, rollouts):
    agent, _ = train_in_stages(RECIPE, config(), None, tmp_path, data=rollouts)
    assert "experience" not in agent.info


def test_an_environment_without_pictures_is_refused_before_anything_is_recorded(tmp_path):
    blind = config(observations=("picture",), evaluation__env="CartPole-v1")
    with pytest.raises(SpaceError, match="no observation 'picture'"):
        train_in_stages(RECIPE, blind, "CartPole-v1", tmp_path)
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize(
    ("env", "changes", "said"),
    [
        ("CartPole-v1", {}, "no observation 'image'. Known: vector"),
        (DODGE, {"squash": "car"}, "'car', but the action space is Discrete"),
    ],
)
def test_spaces_that_the_model_cannot_have_are_refused_before_anything_is_recorded(
    tmp_path, env, changes, said
):
    with pytest.raises(SpaceError, match=said):
        train_in_stages(RECIPE, config(evaluation__env=env, **changes), env, tmp_path)
    assert not list(tmp_path.rglob("*.h5"))


def test_what_this_job_cannot_do_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="every frame"):
        train_in_stages(RECIPE, config(frame_skip=2), DODGE, tmp_path)
