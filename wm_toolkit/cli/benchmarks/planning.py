"""How long a decision takes."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from wm_toolkit.agents.agent import Agent
from wm_toolkit.cli.benchmarks import Case, benchmark, matrix_rate, operations, seconds
from wm_toolkit.cli.benchmarks.training import example_agent
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.objective import Goal

SEARCHES = ((1, 64, 6), (16, 64, 6), (1, 300, 10))
"""(environments, samples, iterations)"""
HORIZON = 5


@benchmark("plan")
def run(quick: bool) -> Iterator[Case]:
    """Milliseconds per decision of CEM in the small LeWorldModel, against its multiplications alone."""
    agent, rate = example_agent(), matrix_rate()
    for environments, samples, iterations in SEARCHES[:1] if quick else SEARCHES:
        planner = CEM(horizon=HORIZON, samples=samples, iterations=iterations)
        yield measure(agent, planner, environments, rate, repeats=2 if quick else 7)


def measure(agent: Agent, planner: CEM, environments: int, rate: float, repeats: int) -> Case:
    """One decision for all environments; the floor is its matrix products at the measured rate."""
    model = agent.model.eval()
    generator = torch.Generator().manual_seed(0)
    shape = (environments, *(model.spaces.observation["image"].shape or ()))
    image, goal = torch.randint(0, 256, (2, *shape), generator=generator, dtype=torch.uint8)

    @torch.no_grad()
    def decide() -> None:
        action = torch.zeros(environments, model.spaces.action_width)
        state = model.observe(model.initial(environments), action, {"image": image})
        objective = Goal().bind(model, {"image": image, "goal/image": goal})
        planner.plan(model, state, objective, generator=generator)

    case = f"CEM {planner.samples}x{planner.iterations}x{HORIZON}, {environments} environments"
    return Case(case, "ms", 1e3 * seconds(decide, repeats), 1e3 * operations(decide) / rate)
