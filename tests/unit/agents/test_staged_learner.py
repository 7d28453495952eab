"""One part after the other: whose turn it is, who may change, and an exact resume."""

from __future__ import annotations

import contextlib

import gymnasium as gym
import numpy as np
import pytest
import torch
from accelerate import Accelerator

from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.agents.staged import Part, Stage, StagedLearner, stage_of, train_only
from wm_toolkit.batch import Batch
from wm_toolkit.errors import CheckpointError, ConfigError
from wm_toolkit.models.mdn_rnn import MDNRNN
from wm_toolkit.spaces import Spaces

IMAGE = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
SPACES = Spaces({"image": IMAGE}, gym.spaces.Discrete(3))


def batch(rng) -> Batch:
    image = torch.randint(0, 256, (2, 3, 64, 64, 3), generator=rng, dtype=torch.uint8)
    return Batch({"image": image}, torch.zeros(2, 3, 3), torch.zeros(2, 3, dtype=torch.bool))


def staged(*updates: int) -> tuple[MDNRNN, StagedLearner]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MDNRNN(SPACES, latent=3, width=4, depth=2)
    stages = []
    for number, modules, losses in (
        (updates[0], model.vision(), "vision_loss"),
        (updates[1], model.memory(), "memory_loss"),
    ):
        train_only(model, modules)
        optimizer = torch.optim.Adam
        learner = ModelLearner(model, optimizer=optimizer, program=Part(model, losses))
        stages.append(Stage(losses, number, modules, learner))
    return model, StagedLearner(model, stages)


def changed(model: MDNRNN, before: dict[str, torch.Tensor]) -> set[str]:
    return {k.split(".")[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}


@pytest.mark.parametrize(
    ("update", "expected"),
    [(0, (0, 0)), (1, (0, 1)), (2, (1, 0)), (4, (1, 2)), (5, (2, 0)), (99, (2, 94))],
)
def test_the_last_stage_goes_on_for_ever(update, expected):
    assert stage_of([2, 3, 1], update) == expected


def test_only_the_part_whose_turn_it_is_changes(rng):
    model, learner = staged(2, 1)
    data, seen = batch(rng), []
    for _ in range(4):
        before = {k: v.clone() for k, v in model.state_dict().items()}
        metrics = learner.learn(data)
        seen.append((metrics["stage"], changed(model, before)))
        learning = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
        assert learning == seen[-1][1]
    assert seen == [(0, {"encoder", "heads"})] * 2 + [(1, {"lstm", "next"})] * 2


def test_a_resumed_learner_equals_an_uninterrupted_one_across_stages(rng):
    data = batch(rng)
    one, whole = staged(2, 3)
    two, half = staged(2, 3)
    for number in range(5):
        torch.manual_seed(number)
        whole.learn(data)
        if number < 3:
            torch.manual_seed(number)
            half.learn(data)
    three, resumed = staged(2, 3)
    resumed.prepare(Accelerator())
    three.load_state_dict(two.state_dict())
    resumed.load_state_dict(half.state_dict())
    for number in (3, 4):
        torch.manual_seed(number)
        resumed.learn(data)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, three.state_dict()[name]), name


def test_weights_to_evaluate_are_those_of_the_present_stage():
    _, learner = staged(1, 1)
    asked = []

    @contextlib.contextmanager
    def note(number):
        asked.append(number)
        yield

    for number, stage in enumerate(learner.stages):
        stage.learner.evaluation_weights = lambda number=number: note(number)  # type: ignore[method-assign]
    for updates in (0, 1):
        learner.updates = updates
        with learner.evaluation_weights():
            pass
    assert asked == [0, 1]


def test_other_stages_and_empty_ones_are_refused():
    model, learner = staged(1, 1)
    saved = learner.state_dict()
    saved["stages"] = saved["stages"][:1]
    with pytest.raises(CheckpointError, match="1 stages, this one 2"):
        learner.load_state_dict(saved)
    with pytest.raises(ConfigError, match="each needs at least 1"):
        StagedLearner(model, [])
