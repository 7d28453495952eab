"""On a GPU: updates replayed from a CUDA graph equal those launched one kernel at a time."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from accelerate import Accelerator
from dreamer_toys import SPACES, sequences

from wm_toolkit.agents.agent import Agent
from wm_toolkit.registry import build, recipe_config
from wm_toolkit.structs import stack

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def trained(recipe: str, *, cuda_graphs: bool, updates: int = 8) -> Agent:
    torch.manual_seed(0)
    config = recipe_config(recipe)
    train = dataclasses.replace(config.train, cuda_graphs=cuda_graphs)
    agent = build(recipe, SPACES["image"], dataclasses.replace(config, train=train))
    assert agent.learner is not None
    agent.learner.prepare(Accelerator())
    rng = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    for _ in range(updates):
        agent.learn(sequences(SPACES["image"], rng, rows=4, length=4))
    return agent


@pytest.mark.parametrize(
    "recipe", ["planet.nano", "dreamer_v1.nano", "dreamer_v2.nano", "dreamer_v3.nano", "lewm.small"]
)
def test_a_graph_learns_what_single_launches_learn(recipe: str) -> None:
    plain, replayed = (trained(recipe, cuda_graphs=on) for on in (False, True))
    theirs, mine = plain.model.state_dict(), replayed.model.state_dict()
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_draws_differ_from_one_replay_to_the_next() -> None:
    agent = trained("dreamer_v3.nano", cuda_graphs=True, updates=5)
    batch = sequences(SPACES["image"], torch.Generator().manual_seed(1), rows=4, length=4)
    losses = stack([agent.learn(batch)["loss/policy"] for _ in range(3)])
    assert len(losses.unique()) == 3
