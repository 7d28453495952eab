"""Artefacts: written whole or not at all, and refused with a reason when they do not fit."""

from __future__ import annotations

import json
import resource
import signal

import gymnasium as gym
import numpy as np
import pytest
import torch

import wm_toolkit
from wm_toolkit import checkpoint
from wm_toolkit.agents.agent import Agent
from wm_toolkit.config import to_dict
from wm_toolkit.errors import CheckpointError, ConfigError, UnknownNameError
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.config import EvaluationConfig

TINY = {
    "image_size": 16, "patch": 8, "width": 12, "layers": 1, "embedding": 8, "projector_hidden": 16,
    "action_hidden": 8, "predictor_width": 12, "predictor_layers": 1, "predictor_heads": 2,
    "head_width": 4, "predictor_hidden": 16, "slices": 8, "decoder": False,
}  # fmt: skip


@pytest.fixture
def agent() -> Agent:
    image = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action = gym.spaces.Box(-1, 1, (2,), np.float32)
    spaces = Spaces({"image": image}, action).blocked(5)
    spaces = spaces.standardised(np.array([0.1, 0.0]), np.array([0.5, 0.7]))
    return wm_toolkit.build("lewm.small", spaces, **TINY)


def test_an_agent_comes_back_in_one_line_with_everything(agent, tmp_path):
    protocol = to_dict(EvaluationConfig(budget=50))
    agent.info = {"evaluation": protocol, "results": {"success_rate": 0.9}}
    agent.save_pretrained(tmp_path / "a")
    loaded = Agent.from_pretrained(tmp_path / "a")
    assert loaded.spaces == agent.spaces
    assert loaded.config == agent.config
    assert loaded.info == agent.info
    assert loaded.recipe == "lewm.small"
    for name, tensor in agent.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert sorted(f.name for f in (tmp_path / "a").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_saving_over_an_older_artefact_leaves_no_rubbish(agent, tmp_path):
    agent.save_pretrained(tmp_path / "a")
    agent.save_pretrained(tmp_path / "a")
    assert [f.name for f in tmp_path.iterdir()] == ["a"]


def test_a_folder_with_other_things_is_never_overwritten(agent, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="is not an artefact"):
        agent.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_failed_write_keeps_the_old_artefact(agent, tmp_path, monkeypatch):
    agent.save_pretrained(tmp_path / "a")
    before = (tmp_path / "a" / "model.safetensors").read_bytes()

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        agent.save_pretrained(tmp_path / "a")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["a"]


def test_truncated_weights_are_refused(agent, tmp_path):
    agent.save_pretrained(tmp_path / "a")
    weights = tmp_path / "a" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        Agent.from_pretrained(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "upgrade wm_toolkit"),
        ({"format": None}, "not the config of a wm_toolkit artefact"),
        ({"kind": "data set"}, "not an agent"),
        ({"spaces": None}, "lacks 'spaces'"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(agent, tmp_path, change, message):
    agent.save_pretrained(tmp_path / "a")
    file = tmp_path / "a" / "config.json"
    config = json.loads(file.read_text()) | change
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(CheckpointError, match=message):
        Agent.from_pretrained(tmp_path / "a")


def test_weights_of_another_size_are_named(agent, tmp_path):
    agent.save_pretrained(tmp_path / "a")
    file = tmp_path / "a" / "config.json"
    config = json.loads(file.read_text())
    config["config"]["embedding"] = 16
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="other shapes"):
        Agent.from_pretrained(tmp_path / "a")


def test_an_unknown_recipe_is_named(agent, tmp_path):
    agent.save_pretrained(tmp_path / "a")
    file = tmp_path / "a" / "config.json"
    file.write_text(file.read_text().replace('"lewm.small"', '"lewn.small"'))
    with pytest.raises(UnknownNameError, match="Did you mean 'lewm'"):
        Agent.from_pretrained(tmp_path / "a")


def test_a_missing_artefact_lists_where_it_was_looked_for(tmp_path):
    with pytest.raises(CheckpointError, match="looked in"):
        Agent.from_pretrained(tmp_path / "nothing")


def test_a_name_on_the_hub_that_cannot_be_reached_says_so(monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise ConnectionError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match="hub said: offline"):
        Agent.from_pretrained("somebody/some-model")


def test_a_hub_name_is_downloaded_without_anything_that_could_run(agent, tmp_path, monkeypatch):
    import huggingface_hub

    agent.save_pretrained(tmp_path / "hub")
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert Agent.from_pretrained("somebody/some-model", revision="v2").recipe == "lewm.small"
    assert asked["name"] == "somebody/some-model"
    assert asked["revision"] == "v2"
    assert set(asked["allow_patterns"]) == {"config.json", "model.safetensors", "README.md"}


def test_an_agent_is_uploaded_whole(agent, monkeypatch):
    import huggingface_hub

    sent = {}

    def upload(repo_id, folder_path):
        sent[repo_id] = sorted(file.name for file in folder_path.iterdir())
        return f"https://hub/{repo_id}"

    monkeypatch.setattr(
        huggingface_hub, "create_repo", lambda name, **options: sent.update(options)
    )
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload)
    assert agent.push_to_hub("me/mine", private=True) == "https://hub/me/mine"
    assert sent["private"] is True
    assert sent["me/mine"] == ["README.md", "config.json", "model.safetensors"]


def test_an_upload_that_fails_says_how_to_log_in(agent, monkeypatch):
    import huggingface_hub

    def refuse(name, **options):
        raise PermissionError("401")

    monkeypatch.setattr(huggingface_hub, "create_repo", refuse)
    with pytest.raises(CheckpointError, match=r"401.*hf auth login"):
        agent.push_to_hub("me/mine")


def test_a_run_folder_stands_for_the_model_inside(agent, tmp_path):
    agent.save_pretrained(tmp_path / "run" / "model")
    assert Agent.from_pretrained(tmp_path / "run").recipe == "lewm.small"


def test_an_agent_without_a_recipe_cannot_be_saved(agent, tmp_path):
    handmade = Agent(agent.model, agent.actor)
    with pytest.raises(ConfigError, match="registered recipe"):
        handmade.save_pretrained(tmp_path / "a")
    with pytest.raises(ConfigError, match="no learner"):
        handmade.learn(None)  # type: ignore[arg-type]


def test_a_device_that_is_not_there_is_named(agent, tmp_path):
    agent.save_pretrained(tmp_path / "a")
    with pytest.raises(ConfigError, match="no device 'cuda:99' here"):
        Agent.from_pretrained(tmp_path / "a", device="cuda:99")


def test_a_full_disk_is_said_and_leaves_the_old_artefact(agent, tmp_path):
    agent.save_pretrained(tmp_path / "a")
    before = (tmp_path / "a" / "model.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot be written.*Is the disk full\?"):
            agent.save_pretrained(tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["a"]


def test_what_killed_writers_left_is_put_right_and_nothing_else_is_touched(tmp_path):
    (tmp_path / ".card.abc_1234.tmp").write_text("half")
    (tmp_path / ".model.abcd1234.tmp").mkdir()
    (tmp_path / ".model.abcd1234.old").mkdir()
    (tmp_path / ".model.abcd1234.old" / "weights").write_text("whole")
    (tmp_path / ".mine.tmp").write_text("precious")
    checkpoint.sweep(tmp_path, "other")
    assert len(list(tmp_path.iterdir())) == 4
    checkpoint.sweep(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == [".mine.tmp", "model"]
    assert (tmp_path / "model" / "weights").read_text() == "whole"
    checkpoint.sweep(tmp_path / "missing")


def test_an_older_copy_goes_once_the_new_one_stands(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / ".model.abcd1234.old").mkdir()
    checkpoint.sweep(tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["model"]
