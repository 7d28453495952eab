"""Does a planner keep the contract?"""

from __future__ import annotations

from typing import Any

import torch

from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.base import Plan, Planner
from wm_toolkit.planning.objective import Objective
from wm_toolkit.testing.checks import Checks, close


def check_planner(
    planner: Planner, model: WorldModel, state: Any, objective: Objective
) -> list[str]:
    """Check a planner on any model.

    Args:
        planner: what is checked.
        model: the model it searches.
        state: [B] states, B at least 2.
        objective: bound to them.

    Returns:
        the names of the checks that passed.

    Raises:
        CheckError: listing every check that failed.
    """
    checks = Checks(type(planner).__name__)

    def plan(seed: int = 0) -> Plan:
        generator = torch.Generator(model.device).manual_seed(seed)
        return planner.plan(model, state, objective, generator=generator)

    def shapes() -> None:
        found, size = plan(), len(state)
        assert found.actions.ndim == 3, f"actions {tuple(found.actions.shape)}, expected [B, H, A]"
        expected = (size, found.actions.shape[1], model.spaces.action_width)
        assert tuple(found.actions.shape) == expected, (
            f"{tuple(found.actions.shape)} not {expected}"
        )
        assert tuple(found.score.shape) == (size,), f"score {tuple(found.score.shape)}"
        assert bool(torch.isfinite(found.actions).all()), "the plan is not finite"

    def bounds() -> None:
        actions, slack = plan().actions.cpu(), 1e-6
        assert bool((actions >= model.spaces.action_low - slack).all()), "below the lower bound"
        assert bool((actions <= model.spaces.action_high + slack).all()), "above the upper bound"

    def seeds() -> None:
        close(plan(1).actions, plan(1).actions, 0.0, "two plans of one seed")

    def gradients() -> None:
        flags = [parameter.requires_grad for parameter in model.parameters()]
        before = [parameter.grad for parameter in model.parameters()]
        plan()
        after = [parameter.grad for parameter in model.parameters()]
        assert flags == [p.requires_grad for p in model.parameters()], "requires_grad was changed"
        same = all(a is b for a, b in zip(before, after, strict=True))
        assert same, "planning left gradients in the model"

    def warm_start() -> None:
        first = plan()
        again = planner.plan(
            model,
            state,
            objective,
            warm_start=first.actions,
            generator=torch.Generator(model.device).manual_seed(1),
        )
        assert again.actions.shape == first.actions.shape, "a warm start changes the plan's shape"

    checks.run("plans are [B, H, A] and finite", shapes)
    checks.run("plans stay inside the action bounds", bounds)
    checks.run("the same seed gives the same plan", seeds)
    checks.run("the model is left as it was", gradients)
    checks.run("a warm start is accepted", warm_start)
    return checks.finish()
