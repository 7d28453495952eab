"""What every planner takes and returns."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.objective import Objective
from wm_toolkit.registry import Registry
from wm_toolkit.structs import Struct

PLANNERS: Registry[type[Planner]] = Registry("planner", "wm_toolkit.planning")
"""Planner classes by name: "cem", "icem", "mppi", "gradient", "shooting", "categorical_cem" ..."""


@dataclasses.dataclass(frozen=True)
class PlanRecord(Struct):
    """How a search went, iteration by iteration; [B, I] each, for plots and early stops.

    Attributes:
        best: score of the best candidate so far.
        mean: mean score of the candidates.
        spread: mean deviation of the sampling distribution over horizon and action.
    """

    best: Tensor
    mean: Tensor
    spread: Tensor


@dataclasses.dataclass(frozen=True)
class Plan(Struct):
    """The outcome of a search from every row's state.

    Attributes:
        actions: [B, H, A] the plan; its first action is due now.
        score: [B] what the objective says of it.
        value: [B] value of the root (tree search), else None.
        policy: [B, n] improved policy over the root's actions (tree search), else None.
        record: how the search went, if the planner keeps one.
    """

    actions: Tensor
    score: Tensor
    value: Tensor | None = None
    policy: Tensor | None = None
    record: PlanRecord | None = None


@runtime_checkable
class Planner(Protocol):
    """Searches a model for an objective. Stateless: everything it knows comes as an argument."""

    def plan(
        self,
        model: WorldModel,
        state: Any,
        objective: Objective,
        *,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """Plan for every row at once.

        Args:
            model: any world model.
            state: [B] where to start.
            objective: bound to the present observations.
            warm_start: [B, H, A] an earlier plan, already shifted; a row of zeros means none. It is
                padded with zeros, or cut, to the planner's horizon.
            generator: source of randomness, on the model's device.

        Raises:
            PlanError: if the action space or the objective does not suit this planner.
            NonFiniteError: if no candidate of some row has a finite score; single ones that have
                none count as the worst.
        """
        ...
