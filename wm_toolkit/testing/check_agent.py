"""Does an agent keep the contract?"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch

from wm_toolkit.agents.actors import Decision
from wm_toolkit.agents.agent import Agent, AgentState
from wm_toolkit.batch import Batch
from wm_toolkit.testing.checks import Checks, close


def check_agent(agent: Agent, obs: Any, batch: Batch | None = None) -> list[str]:
    """Check that an agent acts, restarts rows, learns and comes back from disk the same.

    Args:
        agent: its parameters change if `batch` is given.
        obs: a vector environment's observations, array or (nested) dict of arrays [B, ...], B >= 2.
        batch: [B, T] to learn from; None skips learning.

    Returns:
        the names of the checks that passed.

    Raises:
        CheckError: listing every check that failed.
    """
    checks, probe = (
        Checks(f"agent {agent.recipe or type(agent.model).__name__}"),
        _Probe(agent, obs),
    )
    checks.run("actions fit the action space", probe.acts)
    checks.run("the same seed gives the same actions", probe.repeats)
    checks.run("a new episode starts from nothing", probe.restarts)
    if probe.size > 1 and not agent.model.stochastic:
        checks.run("an episode may begin in one row alone", probe.restarts_alone)
    if agent.recipe:
        checks.run("saved and loaded it acts the same", probe.saves)
    if batch is not None:
        checks.run("an update changes the model", lambda: _learns(agent, batch))
    return checks.finish()


class _Probe:
    """The checks that act, all on the same observations."""

    def __init__(self, agent: Agent, obs: Any) -> None:
        self.agent, self.obs = agent, obs
        self.size = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
        self.every = np.ones(self.size, bool)

    def act(self, state: AgentState, is_first: Any, seed: int = 0) -> tuple[Decision, AgentState]:
        """One step of [B] rows with a seed of its own."""
        generator = torch.Generator(self.agent.model.device).manual_seed(seed)
        return self.agent.act(self.obs, state, is_first=is_first, generator=generator)

    def run(self, agent: Agent, steps: int = 2) -> torch.Tensor:
        """[B, steps, A] actions of an episode's beginning."""
        generator = torch.Generator(agent.model.device).manual_seed(0)
        state, actions = agent.initial(self.size), []
        for step in range(steps):
            begin = np.full(self.size, step == 0)
            decision, state = agent.act(self.obs, state, is_first=begin, generator=generator)
            actions.append(decision.action)
        return torch.stack(actions, 1)

    def acts(self) -> None:
        """Encoded and decoded actions."""
        spaces, actions = self.agent.spaces, self.run(self.agent)
        expected = (self.size, 2, spaces.action_width)
        assert tuple(actions.shape) == expected, f"actions {tuple(actions.shape)}, not {expected}"
        for action in spaces.decode_action(actions[:, 0]):
            assert spaces.action.contains(action), f"{action} is outside {spaces.action}"

    def repeats(self) -> None:
        """The generator is the only source of randomness."""
        close(self.run(self.agent), self.run(self.agent), 0.0, "two runs of one seed")

    def restarts(self) -> None:
        """Nothing of an episode is left when all rows begin anew."""
        start = self.agent.initial(self.size)
        _, used = self.act(start, self.every)
        fresh, _ = self.act(start, self.every, 1)
        again, _ = self.act(used, self.every, 1)
        close(again.action, fresh.action, 1e-5, "the first action of a second episode")

    def restarts_alone(self) -> None:
        """The first row begins anew, the others go on."""
        start, one = self.agent.initial(self.size), np.arange(self.size) == 0
        _, used = self.act(start, self.every)
        _, fresh = self.act(start, self.every)
        _, mixed = self.act(used, one)
        _, older = self.act(used, ~self.every)
        leaves = (list(state.model.leaves()) for state in (mixed, fresh, older))
        for got, begun, going in zip(*leaves, strict=True):
            close(got[:1], begun[:1], 1e-4, "the row whose episode begins")
            close(got[1:], going[1:], 1e-4, "a row whose episode goes on")

    def saves(self) -> None:
        """An artefact holds all there is."""
        with tempfile.TemporaryDirectory() as folder:
            self.agent.save_pretrained(f"{folder}/agent")
            device = str(self.agent.model.device)
            loaded = Agent.from_pretrained(f"{folder}/agent", device=device)
        close(self.run(loaded), self.run(self.agent), 0.0, "actions after loading")


def _learns(agent: Agent, batch: Batch) -> None:
    before = [p.detach().clone() for p in agent.model.parameters() if p.requires_grad]
    metrics = agent.learn(batch)
    assert all(np.isfinite(float(value)) for value in metrics.values()), f"metrics {metrics}"
    after = [p for p in agent.model.parameters() if p.requires_grad]
    moved = any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert moved, "one update changed no parameter"
