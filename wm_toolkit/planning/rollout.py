"""Scoring candidate plans: environments and candidates form one batch under a memory cap."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wm_toolkit.errors import PlanError, ShapeError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.objective import Objective
from wm_toolkit.structs import Struct

MEMORY_BYTES = 2**30
"""Default cap on the memory that one batch of rollouts may take."""

CPU_BYTES, CPU_ROWS = 2**26, 512
"""Batches of more than both make a CPU slower: what a step leaves behind falls out of its caches."""

STATES_PER_STEP = 8
"""Estimated memory of one dreamt step, in states: activations, copies and the state that is kept."""


class Piece(NamedTuple):
    """Candidates that are dreamt in one batch.

    Attributes:
        rows: which of the B environments.
        columns: which of the N candidates.
        state: [b] of those environments.
        actions: [b, n, H, A] those candidates.
        objective: bound to those environments.
    """

    rows: slice
    columns: slice
    state: Any
    actions: Tensor
    objective: Objective


def score(
    model: WorldModel,
    state: Struct,
    actions: Tensor,
    objective: Objective,
    *,
    generator: torch.Generator | None = None,
    memory_bytes: int = MEMORY_BYTES,
    compiled: bool = False,
) -> Tensor:
    """Dream along every candidate plan and score it, without gradients.

    Args:
        model: any world model, in evaluation mode.
        state: [B] where the plans begin.
        actions: [B, N, H, A] candidates.
        objective: bound to the present observations.
        generator: noise of a stochastic model.
        memory_bytes: cap on one batch of rollouts, by an estimate; what exceeds it is cut along
            environments, then along candidates. Scores of a deterministic model do not depend on it.
        compiled: dream through `torch.compile`; equal up to rounding.

    Returns:
        [B, N] float32 scores as the objective gives them, NaN included.

    Raises:
        ShapeError: if `actions` does not fit the state or the action space.
    """
    scores = actions.new_empty(actions.shape[:2], dtype=torch.float32)
    with torch.no_grad():
        for piece in pieces(model, state, actions, objective, memory_bytes):
            dream = _compiled() if compiled else _dream
            states = dream(model, piece.state, piece.actions, generator)
            found = piece.objective.score(model, piece.actions, states)
            scores[piece.rows, piece.columns] = found.float()
    return scores


def score_and_gradient(
    model: WorldModel,
    state: Struct,
    actions: Tensor,
    objective: Objective,
    *,
    generator: torch.Generator | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> tuple[Tensor, Tensor]:
    """Score every candidate and differentiate the score by its actions.

    Works under `no_grad`, and leaves no gradient in the model's parameters.

    Args:
        As for `score`.

    Returns:
        [B, N] scores and [B, N, H, A] their gradients.

    Raises:
        PlanError: if the score does not depend on the actions in a differentiable way.
    """
    scores = actions.new_empty(actions.shape[:2], dtype=torch.float32)
    gradient = torch.empty_like(actions)
    for piece in pieces(model, state.detach(), actions.detach(), objective, memory_bytes):
        with torch.enable_grad():
            leaf = piece.actions.detach().requires_grad_()
            states = _dream(model, piece.state, leaf, generator)
            value = piece.objective.score(model, leaf, states).float()
            slope = None
            if value.requires_grad:
                (slope,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
        if slope is None:
            raise PlanError(
                f"the score of {type(objective).__name__} in {type(model).__name__} has no gradient "
                "with respect to the actions; use a sampling planner such as CEM"
            )
        scores[piece.rows, piece.columns] = value.detach()
        gradient[piece.rows, piece.columns] = slope
    return scores, gradient


def pieces(
    model: WorldModel, state: Struct, actions: Tensor, objective: Objective, memory_bytes: int
) -> Iterator[Piece]:
    """Cut [B, N, H, A] candidates into batches of at most about `memory_bytes`, as even as can be.

    Raises:
        ShapeError: if `actions` does not fit the state or the action space.
    """
    _check(model, state, actions)
    size, candidates = actions.shape[:2]
    limit = _rows_within(memory_bytes, state, actions)
    if actions.device.type == "cpu" and not model.stochastic:  # whose noise depends on the pieces
        limit = min(limit, max(CPU_ROWS, _rows_within(CPU_BYTES, state, actions)))
    if size * candidates <= limit:
        yield Piece(slice(0, size), slice(0, candidates), state, actions, objective)
        return
    for rows in _even_slices(size, max(1, limit // candidates)):
        own_state, own_objective = state[rows], objective.select(rows)
        for columns in _even_slices(candidates, limit):
            yield Piece(rows, columns, own_state, actions[rows, columns], own_objective)


def _dream(
    model: WorldModel, state: Any, actions: Tensor, generator: torch.Generator | None
) -> Any:
    """[B, N, H] states along candidates [B, N, H, A]."""
    # The compiler does not trace generators, and a deterministic model needs none.
    return model.rollout(state, actions, generator=generator if model.stochastic else None)


@functools.cache
def _compiled() -> Callable[..., Any]:
    """`_dream` through the compiler, which keeps one program per model and shape."""
    return torch.compile(_dream)


def _check(model: WorldModel, state: Struct, actions: Tensor) -> None:
    width = model.spaces.action_width
    if actions.ndim != 4 or actions.shape[0] != len(state) or actions.shape[-1] != width:
        raise ShapeError(
            f"candidate actions of shape {tuple(actions.shape)}, expected [B, N, H, A] with "
            f"B = {len(state)} rows of the state and A = {width}"
        )


def _rows_within(memory_bytes: int, state: Struct, actions: Tensor) -> int:
    """How many candidates fit: bytes of one state, times the steps, times a safety factor."""
    one_state = sum(leaf.nbytes for leaf in state.leaves()) / max(1, len(state))
    one_action = actions.shape[-1] * actions.element_size()
    each = (one_state + one_action) * STATES_PER_STEP * (actions.shape[2] + 1)
    return max(1, int(memory_bytes / each))


def _even_slices(length: int, limit: int) -> Iterator[slice]:
    """Cut range(length) into the fewest slices of at most `limit`, differing by at most one."""
    count = math.ceil(length / limit)
    for i in range(count):
        yield slice(i * length // count, (i + 1) * length // count)
