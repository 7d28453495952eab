"""World Models that begin with the weights of others: all of it goes on, or the controller alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils import parameters_to_vector

pytest.importorskip("cma")

from test_training_stages import DODGE, config, rollouts, weights

from wm_toolkit.agents.agent import Agent
from wm_toolkit.errors import CheckpointError, ConfigError
from wm_toolkit.training import jobs
from wm_toolkit.training.hooks import Hook
from wm_toolkit.training.stages import train_in_stages

__all__ = ["rollouts"]  # the fixture
RECIPE = "world_models.small"


@pytest.fixture(scope="module")
def run(tmp_path_factory, rollouts):
    """A finished run, whose controller is no longer zero."""
    path = tmp_path_factory.mktemp("first")
    train_in_stages(RECIPE, config(), None, path, data=rollouts)
    return path


class Begun(Hook):
    """Keeps the weights that a run begins with."""

    def before_training(self, trainer):
        self.model = {k: v.clone() for k, v in trainer.agent.model.state_dict().items()}


def controller(model) -> torch.Tensor:
    return parameters_to_vector(model.heads["policy"].parameters())


def world(run) -> dict[str, torch.Tensor]:
    return {name: x for name, x in weights(run).items() if "policy" not in name}


@pytest.mark.parametrize("unfinished", [False, True])
def test_all_stages_go_on_from_the_weights(run, rollouts, tmp_path, unfinished):
    source = run
    if unfinished:  # checkpoints and no artefact
        source = tmp_path / "part"
        (source / "checkpoints").parent.mkdir()
        (source / "checkpoints").symlink_to(run / "checkpoints")
    begun = Begun()
    agent, result = train_in_stages(
        RECIPE, config(), None, tmp_path / "run", data=rollouts, init=source, hooks=[begun]
    )
    known = weights(run)
    assert all(torch.equal(begun.model[name], x) for name, x in known.items())
    assert result.update == 9
    for part in ("encoder.", "lstm.", "heads.policy."):
        assert any(
            not torch.equal(x, known[name])
            for name, x in agent.model.state_dict().items()
            if name.startswith(part)
        ), part


def test_evolution_begins_at_the_controller_that_was_loaded(run, rollouts, tmp_path):
    frozen = config(frozen_model=True, train__updates=2)
    agent, _ = train_in_stages(RECIPE, frozen, None, tmp_path, data=rollouts, init=run)
    known = controller(Agent.from_pretrained(run).model)
    assert known.abs().max() > 0
    start = agent.learner.stages[-1].learner.evolution.start
    assert torch.equal(torch.from_numpy(start).float(), known)


@pytest.mark.parametrize("fitness", ["dream", "real"])
def test_of_a_frozen_model_the_controller_alone_changes(run, rollouts, tmp_path, fitness):
    options = {"evaluation__env_options": {"max_episode_steps": 20}} if fitness == "real" else {}
    frozen = config(frozen_model=True, train__updates=3, fitness=fitness, **options)
    agent, result = jobs.train(RECIPE, frozen, tmp_path, data=rollouts, init=run)
    assert (result.update, result.ended) == (3, "finished")
    assert agent.learner.updates == agent.learner.stages[-1].learner.updates == 3
    known, found = world(run), world(tmp_path)
    assert known.keys() == found.keys()
    assert all(torch.equal(found[name], x) for name, x in known.items())
    assert not torch.equal(controller(agent.model), controller(Agent.from_pretrained(run).model))
    assert torch.equal(
        controller(Agent.from_pretrained(tmp_path).model), controller(agent.model)
    ), "loading asks for no init"


@pytest.mark.parametrize("frozen", [False, True])
def test_a_run_that_began_elsewhere_resumes_exactly_and_without_it(run, rollouts, tmp_path, frozen):
    def train(name, updates, init):
        changed = config(frozen_model=frozen, train__updates=updates)
        train_in_stages(RECIPE, changed, None, tmp_path / name, data=rollouts, init=init)

    train("whole", 8, run)
    train("parts", 3, run)
    train("parts", 7, "gone/by/now")
    train("parts", 8, None)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


def test_a_frozen_model_has_to_come_from_somewhere(tmp_path):
    with pytest.raises(ConfigError, match=r"frozen_model trains the behaviour alone.*with --init"):
        train_in_stages(RECIPE, config(frozen_model=True), DODGE, tmp_path)
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"latent": 5}, "other shapes"), ({"width": 6}, "other shapes"), ({"depth": 4}, "instead of")],
)
def test_weights_of_other_sizes_are_refused_before_anything_is_recorded(
    run, tmp_path, changes, complaint
):
    with pytest.raises(CheckpointError, match=f"does not fit this model.*{complaint}"):
        train_in_stages(RECIPE, config(**changes), DODGE, tmp_path, init=run)
    assert not list(tmp_path.rglob("*.h5"))


def test_weights_that_are_not_there_are_missed_before_anything_is_recorded(tmp_path):
    with pytest.raises(CheckpointError, match="no artefact at 'x'"):
        train_in_stages(RECIPE, config(), DODGE, tmp_path, init="x")
    assert not list(tmp_path.rglob("*.h5"))
