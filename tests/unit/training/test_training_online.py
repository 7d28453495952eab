"""Learning from rewards as one job: exact resume, from data, from another run, and measured by return."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from wm_toolkit.agents.agent import Agent
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.samplers import Mix
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.errors import CheckpointError, ConfigError, DataError
from wm_toolkit.recipes.dreamer_v3 import Size
from wm_toolkit.registry import recipe_config
from wm_toolkit.spaces import Spaces
from wm_toolkit.training import jobs
from wm_toolkit.training.checkpoints import load_checkpoint
from wm_toolkit.training.hooks import Hook
from wm_toolkit.training.logging import read_metrics
from wm_toolkit.training.online import FILES, train_online
from wm_toolkit.training.returns import APART, evaluate_agent
from wm_toolkit.training.summary import ReturnEvaluation

RECIPE, ENV = "dreamer_v3.nano", "CartPole-v1"
TINY: dict[str, Any] = {
    "size": Size(deter=16, units=8, classes=3, depth=1, latents=2, groups=2),
    "behaviour.horizon": 3,
    "sequence": 6,
    "train_ratio": 12.0,
    "prefill": 80,
    "capacity": 300,
    "envs": 2,
    "burst": 1,
    "train.batch_size": 4,
    "train.updates": 8,
    "train.checkpoint_every": 4,
    "train.log_every": 2,
    "evaluation.episodes": 3,
    "evaluation.budget": 20,
}


def config(**changes: Any):
    return recipe_config(RECIPE, **{**TINY, **changes})


class Stop(Hook):
    """Breaks a run off behind an update, as a killed process would."""

    def __init__(self, update: int) -> None:
        self.update = update

    def after_update(self, trainer, metrics):
        if trainer.update == self.update:
            raise KeyboardInterrupt
        return {}


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").iterdir())[-1]


def saved_arrays(folder: Path) -> dict[str, np.ndarray]:
    return {str(p.relative_to(folder)): np.load(p) for p in folder.rglob("*.npy")}


def equal(one: Any, two: Any) -> bool:
    """Whether two saved states are the same to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("online") / "whole"
    train_online(RECIPE, config(), ENV, folder)
    return folder


def recorded(episodes: int = 6, *, rewards: bool = True, steps: int = 14) -> TrajectoryDataset:
    """Random episodes of CartPole; the last observation of each is terminal."""
    env = gym.make(ENV)
    rng = np.random.default_rng(0)
    found = []
    for number in range(episodes):
        obs, _ = env.reset(seed=number)
        seen, actions, earned, over = [obs], [], [], False
        while not over and len(actions) < steps:
            actions.append(int(rng.integers(2)))
            obs, reward, over, _, _ = env.step(actions[-1])
            seen.append(obs)
            earned.append(reward)
        last = np.arange(len(actions)) == len(actions) - 1
        found.append(
            Trajectory(
                {"vector": np.stack(seen)},
                np.array(actions),
                np.array(earned, np.float32) if rewards else None,
                last & over,
                last & (not over),
            )
        )
    return TrajectoryDataset.from_trajectories(found, Spaces.of(env), name="recorded", env=ENV)


# -- stopped and resumed ---------------------------------------------------------------------------
@pytest.mark.parametrize("mix", [Mix(), Mix(0.3, 0.5, 0.2)])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(run, tmp_path, mix):
    if mix.priority:
        run = tmp_path / "whole"
        train_online(RECIPE, config(mix=mix), ENV, run)
    with pytest.raises(KeyboardInterrupt):
        train_online(RECIPE, config(mix=mix), ENV, tmp_path / "again", hooks=[Stop(6)])
    assert newest(tmp_path / "again").name == "update_00000004"
    train_online(RECIPE, config(mix=mix), ENV, tmp_path / "again")
    one, two = newest(run), newest(tmp_path / "again")
    assert one.name == two.name == "update_00000008"
    first, second = load_checkpoint(one), load_checkpoint(two)
    assert equal(first.model, second.model)
    assert equal(first.state, second.state)  # optimiser, slow critic, return scale, random streams
    arrays, others = saved_arrays(one / "source"), saved_arrays(two / "source")
    assert arrays.keys() == others.keys()
    assert {name.split("/")[-1].split(".")[0] for name in arrays} >= {"deter", "stoch", "obs"}
    assert all(np.array_equal(arrays[name], others[name]) for name in arrays)
    for name in ("acting/acting.json", "acting/acting.safetensors", "experience.json"):
        assert (one / "source" / name).read_bytes() == (two / "source" / name).read_bytes()
    heads = [json.loads((path / "source/replay/replay.json").read_text()) for path in (one, two)]
    assert equal(*({k: v for k, v in head.items() if k != "saved"} for head in heads))


@pytest.mark.parametrize("recipe", [RECIPE, "dreamer_v1.nano", "planet.nano"])
def test_what_surprised_the_model_gets_priority(tmp_path, recipe):
    seen = []

    class Look(Hook):
        """Notes what an update drew, and how badly it was predicted."""

        def after_update(self, trainer, metrics):
            surprises = torch.cat(trainer.learner.surprises)
            seen.append((trainer.source, trainer.source._shown, surprises))
            return {}

    changed = {"mix": Mix(0.0, 1.0, 0.0, exponent=0.5), "train.updates": 4, "behaviour.horizon": 2}
    if recipe == "planet.nano":
        changed |= {"planner.samples": 4, "planner.elites": 2, "planner.iterations": 1}
        del changed["behaviour.horizon"]
    tiny = {k: v for k, v in TINY.items() if not k.startswith(("behaviour", "online"))}
    if recipe != RECIPE:
        del tiny["size"]
    train_online(
        recipe,
        recipe_config(recipe, **{**tiny, **changed}),
        "Pendulum-v1",
        tmp_path,
        hooks=[Look()],
    )
    source, shown, surprises = seen[-1]
    source._write_back()
    replay = source.replay
    start, stream = np.divmod(shown.numpy(), replay.rings.streams)
    found = replay.tree.get(stream * replay.rings.size + start % replay.rings.size)
    # Of a sequence that was drawn twice the last counts, and they are the same.
    assert found == pytest.approx(surprises.double().numpy() ** 0.5, rel=1e-3)
    assert len(set(found.tolist())) > 1


def test_the_return_scale_and_the_slow_critic_are_part_of_what_is_resumed(run):
    program = load_checkpoint(newest(run)).state["learner"]["program"]
    assert any(name.startswith("slow.") for name in program)
    assert any(name.startswith("scale.") for name in program)


def test_old_replays_go_with_their_checkpoints(tmp_path):
    folder = tmp_path / "run"
    train_online(RECIPE, config(**{"train.updates": 12}), ENV, folder)
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept == ["update_00000008", "update_00000012"]


def test_environments_in_processes_of_their_own_and_a_replay_in_files_give_the_same(run, tmp_path):
    changes = {"vectorisation": "async", "memory": 100}
    train_online(RECIPE, config(**changes), ENV, tmp_path / "run")
    assert equal(
        load_checkpoint(newest(run)).model, load_checkpoint(newest(tmp_path / "run")).model
    )


def test_files_of_a_large_replay_lie_in_the_run_folder_and_those_of_a_killed_run_go(tmp_path):
    folder = tmp_path / "run"
    left = folder / FILES / "left.ring"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of a killed run")
    found: list[set[str]] = []

    class Look(Hook):
        def before_training(self, trainer):
            found.append({path.name for path in left.parent.iterdir()})

    train_online(RECIPE, config(memory=100), ENV, folder, hooks=[Look()])
    assert "_narrow.ring" in found[0]
    assert left.name not in found[0]
    assert not left.parent.exists()


def test_a_checkpoint_whose_replay_cannot_be_written_leaves_the_last_one_whole(
    run, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_online(RECIPE, config(), ENV, folder, hooks=[Stop(5)])
    real, left = np.save, [3]

    def full(path, array):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(path, array)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(CheckpointError, match=r"update_00000008.*No space left.*unharmed"):
        train_online(RECIPE, config(), ENV, folder)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["update_00000004"]
    monkeypatch.setattr(np, "save", real)
    train_online(RECIPE, config(), ENV, folder)
    assert equal(load_checkpoint(newest(run)).model, load_checkpoint(newest(folder)).model)


def test_a_run_folder_of_another_environment_is_refused(run):
    with pytest.raises(ConfigError, match="env was CartPole-v1 and is Acrobot-v1"):
        train_online(RECIPE, config(), "Acrobot-v1", run)


# -- what it says ------------------------------------------------------------------------------------
def test_steps_episodes_return_and_length_are_logged_and_the_artefact_knows_them(run):
    lines = [line for line in read_metrics(run / "metrics.jsonl") if "env/steps" in line]
    assert [line["update"] for line in lines] == [2, 4, 6, 8]
    assert all(a["env/steps"] < b["env/steps"] for a, b in zip(lines, lines[1:]))
    assert {"env/episodes", "env/return", "env/length"} <= lines[-1].keys()
    agent = Agent.from_pretrained(run)
    seen = agent.info["experience"]
    assert (seen["env"], seen["steps"]) == (ENV, lines[-1]["env/steps"])
    assert agent.info["evaluation"]["env"] == ENV
    card = (run / "model" / "README.md").read_text()
    assert f"{seen['steps']:,} environment steps in CartPole-v1" in card


def test_the_ratio_is_said_in_both_units(caplog, tmp_path):
    caplog.set_level("INFO")
    train_online(RECIPE, config(**{"train.updates": 1}), ENV, tmp_path / "run")
    assert "12 rows are replayed per row collected" in caplog.text
    assert "4 x 6 rows every 2 environment steps (0.5 updates per environment step)" in caplog.text


def test_an_agent_that_decides_for_several_steps_is_measured_so(caplog, tmp_path):
    caplog.set_level("INFO")
    changed = {"frame_skip": 2, "train.updates": 4, "train.eval_every": 2, "evaluation.budget": 20}
    agent, result = train_online(RECIPE, config(**changed), ENV, tmp_path / "run")
    assert "0.5 updates per environment step, 0.25 per simulator step" in caplog.text
    assert result.results["length_mean"] > 0
    assert evaluate_agent(agent).episodes == 3


def test_a_trained_agent_loads_in_one_line_and_acts_in_three(run):
    agent = Agent.from_pretrained(run)
    state = agent.initial(1)
    obs = gym.make(ENV).reset(seed=0)[0]
    decision, state = agent.act(obs[None], state, is_first=[True])
    assert agent.spaces.decode_action(decision.action)[0] in (0, 1)


def test_the_agent_is_measured_along_the_way_on_another_seed(tmp_path):
    changes = {"train.eval_every": 4, "train.keep": "best"}
    _, result = train_online(RECIPE, config(**changes), ENV, tmp_path / "run")
    assert result.results["seed"] == 42 + APART
    assert result.best is not None
    assert result.best >= result.results["return_mean"]


# -- data, then experience -----------------------------------------------------------------------------
def test_recorded_episodes_alone_train_it_and_name_the_environment_it_is_measured_in(tmp_path):
    data = recorded()
    agent, result = jobs.train_offline(RECIPE, config(), data, tmp_path / "run")
    assert result.update == 8
    assert agent.info["data"]["name"] == "recorded"
    assert "experience" not in agent.info
    measured = evaluate_agent(agent)
    assert isinstance(measured, ReturnEvaluation)
    assert measured.episodes == 3
    assert agent.info["evaluation"]["env"] == ENV


def test_an_offline_run_is_resumed_exactly_too(tmp_path):
    data = recorded()
    jobs.train(RECIPE, config(), tmp_path / "whole", data=data)
    with pytest.raises(KeyboardInterrupt):
        jobs.train(RECIPE, config(), tmp_path / "again", data=data, hooks=[Stop(6)])
    jobs.train(RECIPE, config(), tmp_path / "again", data=data)
    one, two = (load_checkpoint(newest(tmp_path / name)) for name in ("whole", "again"))
    assert equal(one.model, two.model)
    assert equal(one.state, two.state)


def test_offline_first_and_online_after_from_the_same_checkpoint(tmp_path):
    data = recorded()
    jobs.train(RECIPE, config(), tmp_path / "offline", data=data)
    begun: list[Any] = []

    class Look(Hook):
        def before_training(self, trainer):
            model = {k: v.clone() for k, v in trainer.agent.model.state_dict().items()}
            learner = copy.deepcopy(trainer.learner.state_dict())
            begun.append((model, learner, len(trainer.source.replay)))

    agent, _ = jobs.train(
        RECIPE,
        config(),
        tmp_path / "online",
        env=ENV,
        data=data,
        init=tmp_path / "offline",
        hooks=[Look()],
    )
    saved = load_checkpoint(newest(tmp_path / "offline"))
    model, learner, rows = begun[0]
    assert equal(model, saved.model)
    assert equal(learner["program"], saved.state["learner"]["program"])
    assert learner["updates"] == 8
    assert rows >= data.num_rows * 0.7
    assert agent.info["experience"]["steps"] > 0
    assert agent.info["data"]["name"] == "recorded"


def test_an_artefact_alone_gives_its_weights(run, tmp_path):
    begun: list[dict[str, torch.Tensor]] = []

    class Look(Hook):
        def before_training(self, trainer):
            begun.append({k: v.clone() for k, v in trainer.agent.model.state_dict().items()})
            begun.append(
                {k: v.clone() for k, v in trainer.learner.program.slow.state_dict().items()}
            )

    jobs.train(RECIPE, config(), tmp_path / "run", env=ENV, init=run / "model", hooks=[Look()])
    known = Agent.from_pretrained(run).model
    assert equal(begun[0], dict(known.state_dict()))
    assert equal(
        begun[1], dict(known.heads["value"].state_dict())
    )  # nothing follows the old weights


def test_data_without_rewards_and_data_of_another_environment_are_refused(tmp_path):
    with pytest.raises(DataError, match="reward"):
        jobs.train(RECIPE, config(), tmp_path / "a", data=recorded(rewards=False))
    with pytest.raises(ConfigError, match="do not fit"):
        jobs.train(RECIPE, config(), tmp_path / "b", env="Acrobot-v1", data=recorded())


def test_jobs_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="name an environment"):
        jobs.train(RECIPE, config(), tmp_path)
    several = config(**{"train.processes": 2})
    with pytest.raises(ConfigError, match="one process"):
        jobs.train(RECIPE, several, tmp_path, env=ENV)
    with pytest.raises(ConfigError, match="recorded episodes alone"):
        jobs.train("lewm.small", recipe_config("lewm.small"), tmp_path, env=ENV)
    with pytest.raises(ConfigError, match="does not learn from rewards"):
        train_online("lewm.small", recipe_config("lewm.small"), ENV, tmp_path)
    wrong = dataclasses.replace(config(), action_scaling="standardise")
    with pytest.raises(ConfigError, match="standardise"):
        jobs.train(RECIPE, wrong, tmp_path, env="Pendulum-v1")


def test_the_behaviour_alone_can_be_trained_on_a_model_that_stays_as_it_is(run, tmp_path):
    frozen = config(frozen_model=True)
    agent, _ = jobs.train(RECIPE, frozen, tmp_path / "run", env=ENV, init=run / "model")
    before, after = Agent.from_pretrained(run).model.state_dict(), agent.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("heads.policy", "heads.value")) for name in changed)
