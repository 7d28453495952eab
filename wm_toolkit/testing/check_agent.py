"""Does an agent keep the contract?"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch

from wm_toolkit.agents.agent import Agent
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
    checks = Checks(f"agent {agent.recipe or type(agent.model).__name__}")
    first = next(iter(obs.values())) if isinstance(obs, dict) else obs
    size = len(first)

    def run(who: Agent, steps: int = 2) -> torch.Tensor:
        generator = torch.Generator(who.model.device).manual_seed(0)
        state, actions = who.initial(size), []
        for step in range(steps):
            begin = np.full(size, step == 0)
            decision, state = who.act(obs, state, is_first=begin, generator=generator)
            actions.append(decision.action)
        return torch.stack(actions, 1)

    def acts() -> None:
        actions = run(agent)
        expected = (size, 2, agent.spaces.action_width)
        assert tuple(actions.shape) == expected, f"actions {tuple(actions.shape)}, not {expected}"
        for action in agent.spaces.decode_action(actions[:, 0]):
            assert agent.spaces.action.contains(action), (
                f"{action} is outside {agent.spaces.action}"
            )

    def repeats() -> None:
        close(run(agent), run(agent), 0.0, "two runs of one seed")

    def restarts() -> None:
        generator = torch.Generator(agent.model.device)
        begin = np.ones(size, bool)
        _, used = agent.act(
            obs, agent.initial(size), is_first=begin, generator=generator.manual_seed(0)
        )
        fresh, _ = agent.act(
            obs, agent.initial(size), is_first=begin, generator=generator.manual_seed(1)
        )
        again, _ = agent.act(obs, used, is_first=begin, generator=generator.manual_seed(1))
        close(again.action, fresh.action, 1e-5, "the first action of a second episode")

    def saves() -> None:
        with tempfile.TemporaryDirectory() as folder:
            agent.save_pretrained(f"{folder}/agent")
            loaded = Agent.from_pretrained(f"{folder}/agent", device=str(agent.model.device))
        close(run(loaded), run(agent), 0.0, "actions after loading")

    def learns() -> None:
        assert batch is not None
        before = [p.detach().clone() for p in agent.model.parameters() if p.requires_grad]
        metrics = agent.learn(batch)
        assert all(np.isfinite(float(value)) for value in metrics.values()), f"metrics {metrics}"
        after = [p for p in agent.model.parameters() if p.requires_grad]
        moved = any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert moved, "one update changed no parameter"

    checks.run("actions fit the action space", acts)
    checks.run("the same seed gives the same actions", repeats)
    checks.run("a new episode starts from nothing", restarts)
    if agent.recipe:
        checks.run("saved and loaded it acts the same", saves)
    if batch is not None:
        checks.run("an update changes the model", learns)
    return checks.finish()
