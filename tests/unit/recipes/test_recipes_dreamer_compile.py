"""`torch.compile` as an option of a recipe: the same numbers, by a program of the compiler's."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from dreamer_toys import NUMBERS, SMALL

from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.batch import Batch
from wm_toolkit.registry import build

# The compiler looks at the gradient of what is not a leaf, and torch warns of that.
TRACING = pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")


def agent(compile: bool) -> Agent:
    torch.manual_seed(0)
    return build("dreamer_v3", NUMBERS, size=SMALL, behaviour__horizon=3, compile=compile)


def batch() -> Batch:
    rng, never = torch.Generator().manual_seed(0), torch.zeros(3, 4, dtype=torch.bool)
    first = never.clone()
    first[:, 0] = True
    action = torch.rand(3, 4, 2, generator=rng) * 2 - 1
    obs = {"vector": torch.randn(3, 4, 3, generator=rng)}
    return Batch(obs, action, first, torch.randn(3, 4, generator=rng), never, never)


def losses_and_gradients(one: Agent) -> list[torch.Tensor]:
    assert isinstance(one.learner, ModelLearner)
    torch.manual_seed(1)
    losses = one.learner.program(batch())
    torch.stack([term.mean() for term in losses.values()]).sum().backward()
    gradients = [p.grad for p in one.model.parameters() if p.grad is not None]
    return [*(term.detach() for term in losses.values()), *gradients]


def assert_equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """Up to rounding: entries of one gradient differ by orders of magnitude."""
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-6


def test_only_on_demand_the_cell_goes_through_the_compiler(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: asked.append(type(self).__name__))
    agent(False)
    assert asked == []
    agent(True)
    assert asked == ["BlockGRU"]


@TRACING
def test_the_compiler_can_trace_the_cell():
    plain, traced = agent(False), agent(False)
    model: Any = traced.model
    model.rssm.core.recurrent.compile(backend="eager", fullgraph=True)
    assert_equal(losses_and_gradients(traced), losses_and_gradients(plain))


@TRACING
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # torch's own
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_whole_compiler_gives_the_same_losses_and_gradients():
    plain, compiled = agent(False), agent(True)
    assert_equal(losses_and_gradients(compiled), losses_and_gradients(plain))
