"""Whole jobs: data made once, parted as the protocol says, results tied to the weights they belong to."""

from __future__ import annotations

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest

from wm_toolkit.agents.agent import Agent
from wm_toolkit.data.windows import Windows
from wm_toolkit.envs.make import make
from wm_toolkit.envs.rooms import Rooms
from wm_toolkit.envs.true_rooms import TrueRooms
from wm_toolkit.errors import CheckpointError, ConfigError, DataError, UnknownNameError
from wm_toolkit.registry import recipe_config
from wm_toolkit.render.report import GoalEpisode
from wm_toolkit.training import baselines, jobs, measure, run_folder
from wm_toolkit.training.evaluate import evaluate


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    return jobs.prepare_two_rooms(tmp_path_factory.mktemp("data") / "walks.h5", episodes=24)


@pytest.fixture
def config():
    return recipe_config(
        "lewm.small", **{"evaluation.holdout": 0.25, "evaluation.episodes": 4, "train.seed": 7}
    )


def test_walks_are_made_once_and_never_mixed_up(tmp_path):
    path = tmp_path / "walks.h5"
    one = jobs.prepare_two_rooms(path, episodes=3, steps=8)
    stamp = path.stat().st_mtime_ns
    two = jobs.prepare_two_rooms(path, episodes=3, steps=8)
    assert path.stat().st_mtime_ns == stamp
    assert one.checksum == two.checksum
    with pytest.raises(DataError, match=r"'seed': 0.*'seed': 1"):
        jobs.prepare_two_rooms(path, episodes=3, steps=8, seed=1)


def test_training_windows_end_as_the_config_says(walks, config, tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def trainer(agent, source, **_):
        seen.append(source.windows)
        raise Stopped

    seen: list[Windows] = []
    monkeypatch.setattr(jobs, "Trainer", trainer)
    for last in ("filler", "real"):
        chosen = dataclasses.replace(config, last_action=last)
        with pytest.raises(Stopped):
            jobs.train_offline("lewm.small", chosen, walks, tmp_path / last)
    filler, real = seen
    assert (filler.last_action, real.last_action) == ("filler", "real")
    assert len(filler) - len(real) == len(filler.dataset) * config.frame_skip


def test_another_layout_is_recorded_and_evaluated_in(tmp_path, config):
    path, rooms = tmp_path / "walks.h5", Rooms(doors=(40.0, 12.0), wall_x=30)
    data = jobs.prepare_two_rooms(path, episodes=4, steps=30, rooms=rooms)
    assert data.metadata["made"]["rooms"] == {"doors": [40.0, 12.0], "wall_x": 30}
    jobs.prepare_two_rooms(path, episodes=4, steps=30, rooms=rooms)
    with pytest.raises(DataError, match=r"was made with .*doors.*, not with"):
        jobs.prepare_two_rooms(path, episodes=4, steps=30)
    agent = jobs.offline_agent("lewm.small", config, jobs.offline_data(data, config))
    options = agent.info["evaluation"]["env_options"]
    assert make(jobs.TWO_ROOMS, **options).unwrapped.rooms == rooms


def test_the_standard_layout_needs_no_name(tmp_path):
    path = tmp_path / "walks.h5"
    jobs.prepare_two_rooms(path, episodes=3, steps=8)
    made = jobs.prepare_two_rooms(path, episodes=3, steps=8, rooms=Rooms()).metadata["made"]
    assert made == {"episodes": 3, "steps": 8, "seed": 0}


def test_the_data_is_parted_as_the_protocol_says_and_scaled_by_the_training_part(walks, config):
    ready = jobs.offline_data(walks, config)
    assert (len(ready.train), len(ready.held_out)) == (18, 6)
    both = np.concatenate([ready.train.episode_starts, ready.held_out.episode_starts])
    assert sorted(both) == sorted(walks.episode_starts)
    assert sorted(ready.spaces.observation) == ["image"]
    assert ready.spaces.block == 5
    raw = np.concatenate([np.asarray(episode.action) for episode in ready.train])
    np.testing.assert_allclose(ready.spaces.mean, raw.mean(0), atol=1e-5)
    np.testing.assert_allclose(ready.spaces.std, raw.std(0), rtol=1e-4)


def test_a_missing_observation_is_named(walks):
    config = recipe_config("lewm.small", observations=("imgae",))
    with pytest.raises(ConfigError, match=r"no observation 'imgae'\. Did you mean 'image'"):
        jobs.offline_data(walks, config)


def test_an_action_that_is_no_number_is_named_before_training_begins(tmp_path, config):
    path = tmp_path / "walks.h5"
    data = jobs.prepare_two_rooms(path, episodes=4, steps=30)
    with h5py.File(path, "r+") as file:
        file["columns/action"][31 + 7, 1] = np.nan
    with pytest.raises(DataError, match=r"walks\.h5, column 'action', episode 1, row 7: nan"):
        jobs.offline_data(data, config)


def test_initial_weights_come_from_the_seed_alone(walks, config):
    ready = jobs.offline_data(walks, config)
    one, two = (jobs.offline_agent("lewm.small", config, ready) for _ in range(2))
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert a.equal(b)
    assert one.info["evaluation"]["env"] == jobs.TWO_ROOMS
    assert one.info["data"]["checksum"] == walks.checksum


def test_the_monitor_sees_held_out_windows_with_their_positions(walks, config):
    ready = jobs.offline_data(walks, config)
    batch = jobs.monitor_batch(ready, 4, count=5)
    held = {tuple(row) for e in ready.held_out for row in np.asarray(e.obs["position"])}
    seen = batch.obs["position"].reshape(-1, 2).numpy()
    assert len(batch) == 5
    assert {tuple(row) for row in seen} <= held


def test_a_saved_agent_finds_its_data_again_and_refuses_another(walks, config, tmp_path):
    ready = jobs.offline_data(walks, config)
    agent = jobs.offline_agent("lewm.small", config, ready)
    found = jobs.agent_data(agent)
    np.testing.assert_array_equal(found.held_out.episode_starts, ready.held_out.episode_starts)
    other = jobs.prepare_two_rooms(tmp_path / "other.h5", episodes=4, steps=30)
    agent.info["data"]["path"] = str(other.path)
    with pytest.raises(DataError, match="is not the data set this agent was trained on"):
        jobs.agent_data(agent)


def test_missing_data_is_named_with_where_it_was_and_where_it_may_go(walks, config, monkeypatch):
    agent = jobs.offline_agent("lewm.small", config, jobs.offline_data(walks, config))
    agent.info["data"] |= {"path": "/gone/strolls.h5", "name": "strolls"}
    monkeypatch.setenv("WM_TOOLKIT_HOME", "/nowhere")
    message = (
        r"'strolls' .*neither at /gone/strolls.h5 nor at /nowhere/datasets/strolls.h5.*goals=env"
    )
    with pytest.raises(UnknownNameError, match=message):
        jobs.agent_data(agent)


def test_goals_of_the_environment_need_no_data_to_be_measured_and_rendered(
    walks, config, tmp_path, caplog
):
    agent = jobs.offline_agent("lewm.small", config, jobs.offline_data(walks, config))
    agent.info["training"] = {"updates": 0, "seed": 7}
    agent.info["evaluation"] |= {"goals": "env", "budget": 10}
    agent.info["data"] |= {"path": "/gone/strolls.h5", "name": "strolls"}
    agent.save_pretrained(tmp_path / "model")
    rows = measure.measure_run(tmp_path, {"model": agent}, None)
    assert rows["model"]["episodes"] == 4
    assert (tmp_path / "goals.gif").exists()
    assert "without film strips" in caplog.text
    page = measure.render_run(tmp_path).read_text()
    assert "Open-loop" not in page


def test_training_measures_along_the_way_on_goals_other_than_the_protocols(walks, tmp_path):
    changes = {
        "train.updates": 2,
        "train.batch_size": 4,
        "train.eval_every": 1,
        "train.keep": "best",
        "evaluation.episodes": 2,
        "evaluation.budget": 5,
    }
    config = recipe_config("lewm.small", **changes)
    _, result = jobs.train_offline("lewm.small", config, walks, tmp_path)
    assert result.results["seed"] == config.evaluation.seed + 1_000_000
    assert result.results["episodes"] == 2
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [x["update"] for x in lines if "eval/success_rate" in x] == [1, 2]
    assert Agent.from_pretrained(tmp_path).info["evaluation"]["seed"] == config.evaluation.seed


def test_a_finished_run_that_lost_its_artefact_writes_it_again(walks, tmp_path):
    changes = {"train.updates": 2, "train.batch_size": 4}
    config = recipe_config("lewm.small", **changes)
    jobs.train_offline("lewm.small", config, walks, tmp_path)
    want = (tmp_path / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "model")  # killed while the folder was replaced
    assert not jobs.is_trained(tmp_path, "lewm.small", config)
    _, result = jobs.train_offline("lewm.small", config, walks, tmp_path)
    assert (result.update, result.ended) == (2, "finished")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == want


def test_a_run_folder_is_not_continued_with_other_hyper_parameters(walks, tmp_path):
    changes = {"train.updates": 2, "train.batch_size": 4}
    jobs.train_offline("lewm.small", recipe_config("lewm.small", **changes), walks, tmp_path)
    before = (tmp_path / "config.json").read_text()
    other = recipe_config("lewm.small", **changes, lr=0.125)
    with pytest.raises(ConfigError, match=r"belongs to another run: lr was .* and is 0\.125"):
        jobs.train_offline("lewm.small", other, walks, tmp_path)
    assert (tmp_path / "config.json").read_text() == before


def test_the_probe_reads_the_protocols_state_unless_told_otherwise(walks, tmp_path):
    changes = {"train.updates": 50, "train.batch_size": 2, "train.log_every": 50}
    config = recipe_config("lewm.small", **changes)
    jobs.train_offline("lewm.small", config, walks, tmp_path)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert "monitor/probe_r2/position" in last


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        jobs.saved_run(tmp_path)
    (tmp_path / "config.json").write_text('{"something": 1}')
    with pytest.raises(CheckpointError, match="is not the config of a run"):
        jobs.saved_run(tmp_path)


def test_the_oracle_searches_as_the_agent_does_and_reaches_near_goals(walks, config):
    ready = jobs.offline_data(walks, config)
    agent = jobs.offline_agent("lewm.small", config, ready)
    oracle = baselines.oracle_agent(agent)
    assert isinstance(oracle.model, TrueRooms)
    assert oracle.actor.planner == agent.actor.planner
    assert evaluate(oracle, ready.held_out).success_rate == 1.0


def test_the_oracle_of_another_environment_is_not_made_up(walks, config):
    agent = jobs.offline_agent("lewm.small", config, jobs.offline_data(walks, config))
    agent.info["evaluation"]["env"] = "CartPole-v1"
    assert not baselines.has_oracle(agent)
    with pytest.raises(ConfigError, match="'CartPole-v1' has no true_dynamics"):
        baselines.oracle_agent(agent)


def weights(run, content):
    (run / "model").mkdir(exist_ok=True, parents=True)
    (run / "model" / "config.json").write_text("{}")
    (run / "model" / "model.safetensors").write_bytes(content)


def test_results_belong_to_the_weights_they_were_measured_with(tmp_path):
    weights(tmp_path, b"one")
    run_folder.Results(tmp_path).put_row("model", {"success_rate": 0.5})
    assert run_folder.Results(tmp_path).rows == {"model": {"success_rate": 0.5}}
    weights(tmp_path, b"two")
    assert run_folder.Results(tmp_path).rows == {}
    weights(tmp_path, b"one")
    assert list(run_folder.Results(tmp_path).rows) == ["model"]


def test_filmed_episodes_come_back_as_they_were(tmp_path):
    assert run_folder.load_episodes(tmp_path) == []
    film = np.random.default_rng(0).integers(0, 255, (3, 4, 5, 3), np.uint8)
    episodes = [GoalEpisode(film, film[0], True), GoalEpisode(film[:1], film[1], False)]
    run_folder.save_episodes(tmp_path, episodes)
    for one, two in zip(episodes, run_folder.load_episodes(tmp_path), strict=True):
        np.testing.assert_array_equal(one.frames, two.frames)
        np.testing.assert_array_equal(one.goal, two.goal)
        assert one.success == two.success


def test_curves_are_named_for_people_and_skip_what_was_not_logged(tmp_path):
    lines = [
        {"update": 1, "loss/prediction": 2.0, "loss": 9.0},
        {"update": 2, "loss/prediction": 1.0, "monitor/probe_r2/position": 0.5, "probe/decoder": 3},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert run_folder.training_curves(tmp_path) == {
        "prediction loss": [(1, 2.0), (2, 1.0)],
        "position probe R2": [(2, 0.5)],
        "decoder loss": [(2, 3)],
    }


def test_the_card_says_the_number_and_how_to_repeat_it(walks, config, tmp_path):
    agent = jobs.offline_agent("lewm.small", config, jobs.offline_data(walks, config))
    agent.info["training"] = {"updates": 12, "seed": 7}
    row = {
        "success_rate": 0.925,
        "interval": [0.8, 0.97],
        "success_rate_at_replan": 0.9,
        "steps_to_goal": 12.5,
        "start_solved_rate": 0.08,
        "return_mean": 2.0,
        "decision_ms": 30.25,
        "decision_cpu_ms": 28.0,
        "episodes": 50,
        "seed": 42,
    }
    assert "Not measured yet" in agent.default_card()
    random = {**row, "success_rate": 0.3, "steps_to_goal": None}
    measure.save_results(agent, {"model": row, "random": random}, tmp_path / "model")
    saved = Agent.from_pretrained(tmp_path)
    assert saved.info["results"] == row
    assert saved.info["baselines"] == {"random": random}
    card = (tmp_path / "model" / "README.md").read_text()
    cells = "92.5 % | 80 - 97 % | 90 % | 12.5 | 8 % | 2.00 | 30.25 | 28.00 | 50 | 42 |"
    assert f"| lewm.small | {cells}" in card
    assert "| random | 30 % | 80 - 97 % | 90 % | - |" in card
    assert "12 updates" in card
    assert "goals from held-out episodes 25 steps ahead, budget 50 steps" in card
    assert "25 % of the recorded episodes are held out (split seed 0)" in card
    assert "The random row is a uniformly random policy." in card
    assert "There is no oracle row" in card
    assert "`wm eval .` in this folder" in card
    agent.info["evaluation"]["goals"] = "env"
    assert "goals drawn by the environment, budget 50 steps" in agent.default_card()


def test_a_data_set_of_the_catalog_is_made_on_first_use_and_then_reused(monkeypatch):
    made = []

    def few_walks():
        made.append(1)
        return prepare(episodes=2, steps=6)

    prepare = jobs.prepare_two_rooms
    monkeypatch.setattr(jobs, "prepare_two_rooms", few_walks)
    assert jobs.open_data("tworooms").checksum == jobs.open_data("tworooms").checksum
    assert made == [1]


def test_an_unknown_data_set_is_named_with_the_close_match():
    with pytest.raises(UnknownNameError, match=r"'twoorooms'.*Did you mean 'tworooms'"):
        jobs.open_data("twoorooms")
