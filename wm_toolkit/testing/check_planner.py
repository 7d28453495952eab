"""Does a planner keep the contract?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.base import Plan, Planner
from wm_toolkit.planning.objective import Objective
from wm_toolkit.testing.checks import Checks, close


class _Outwards(Objective):
    """Rewards large actions, whatever they do: drives a search against the upper bounds."""

    def reward(self, model: WorldModel, action: Tensor, state: Any) -> Tensor:
        """[...] sum of the action [..., A]."""
        return action.sum(-1)


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
    checks, probe = Checks(type(planner).__name__), _Probe(planner, model, state, objective)
    checks.run("plans are [B, H, A] and finite", probe.shapes)
    checks.run("plans stay inside the action bounds", probe.bounds)
    if model.spaces.action_groups:
        checks.run("every choice of a plan is one of the choices", probe.choices)
    checks.run("the same seed gives the same plan", probe.seeds)
    checks.run("the model is left as it was", probe.model_untouched)
    checks.run("a warm start is accepted", probe.warm_start)
    return checks.finish()


class _Probe:
    """The checks, and what the model was like before any of them."""

    def __init__(
        self, planner: Planner, model: WorldModel, state: Any, objective: Objective
    ) -> None:
        self.planner, self.model, self.state, self.objective = planner, model, state, objective
        self.values = [tensor.clone() for tensor in model.state_dict().values()]
        self.training = [module.training for module in model.modules()]

    def plan(self, seed: int = 0, objective: Objective | None = None, **options: Any) -> Plan:
        """A plan [B, H, A] made with a seed."""
        generator = torch.Generator(self.model.device).manual_seed(seed)
        return self.planner.plan(
            self.model, self.state, objective or self.objective, generator=generator, **options
        )

    def shapes(self) -> None:
        """Sizes and finiteness."""
        found, size = self.plan(), len(self.state)
        shape = tuple(found.actions.shape)
        assert len(shape) == 3, f"actions {shape}, expected [B, H, A]"
        expected = (size, shape[1], self.model.spaces.action_width)
        assert shape == expected, f"{shape} not {expected}"
        assert tuple(found.score.shape) == (size,), f"score {tuple(found.score.shape)}"
        assert bool(torch.isfinite(found.actions).all()), "the plan is not finite"

    def bounds(self) -> None:
        """Bounds, also when the objective would pay for leaving them."""
        low, high, slack = self.model.spaces.action_low, self.model.spaces.action_high, 1e-6
        for objective in (self.objective, _Outwards()):
            actions = self.plan(objective=objective).actions.cpu()
            assert bool((actions >= low - slack).all()), "below the lower bound"
            assert bool((actions <= high + slack).all()), "above the upper bound"

    def choices(self) -> None:
        """One-hot groups."""
        for group in self.plan().actions.split(list(self.model.spaces.action_groups), -1):
            one = (group.sum(-1) == 1) & (group.amax(-1) == 1)
            assert bool(one.all()), "a choice is not one-hot"

    def seeds(self) -> None:
        """The generator is the only source of randomness."""
        before = torch.random.get_rng_state()
        first = self.plan(1)
        torch.rand(1)  # whoever draws from the global generator draws something else now
        second = self.plan(1)
        torch.random.set_rng_state(before)
        close(second.actions, first.actions, 0.0, "two plans of one seed")

    def model_untouched(self) -> None:
        """Mode, weights, statistics and gradients."""
        flags = [parameter.requires_grad for parameter in self.model.parameters()]
        before = [parameter.grad for parameter in self.model.parameters()]
        self.plan()
        modes = [module.training for module in self.model.modules()]
        assert self.training == modes, "the mode was changed"
        for old, new in zip(self.values, self.model.state_dict().values(), strict=True):
            assert torch.equal(old, new), "planning changed the model's weights or statistics"
        after = [parameter.grad for parameter in self.model.parameters()]
        kept = [parameter.requires_grad for parameter in self.model.parameters()]
        assert flags == kept, "requires_grad was changed"
        same = all(a is b for a, b in zip(before, after, strict=True))
        assert same, "planning left gradients in the model"

    def warm_start(self) -> None:
        """An earlier plan may be handed over."""
        first = self.plan()
        again = self.plan(1, warm_start=first.actions)
        assert again.actions.shape == first.actions.shape, "a warm start changes the plan's shape"
