"""One search by several processes: each scores its share of the candidates, all learn from all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from wm_toolkit.nn.distributed import processes, rank, same_everywhere, sum_over_processes

_SHARED: ContextVar[bool] = ContextVar("candidates are shared", default=False)


@contextmanager
def shared_candidates() -> Iterator[None]:
    """Let all processes of a run search together inside the block.

    Every process must make the same calls with the same arguments: model, state, objective, warm start
    and a generator in the same state. Each then gets the plan that one process alone would have made,
    up to rounding (a matrix product of half as many rows may round differently). With a stochastic
    model the dreams' noise depends on the number of processes. One process alone notices nothing.

    Example:
        >>> with shared_candidates():
        ...     plan = CEM(horizon=5).plan(model, state, goal, generator=generator)
    """
    token = _SHARED.set(True)
    try:
        yield
    finally:
        _SHARED.reset(token)


def sharing() -> bool:
    """Whether candidates are shared out here and now."""
    return _SHARED.get() and processes() > 1


def share_scores(score: Callable[[Tensor], Tensor], candidates: Tensor) -> Tensor:
    """Score candidates, this process's share of them if they are shared out.

    Args:
        score: [B, n, H, A] to [B, n], with n at least 1.
        candidates: [B, N, H, A]; where they are shared the first process's are taken by all.

    Returns:
        [B, N] scores, the same in every process.
    """
    if not sharing():
        return score(candidates)
    same_everywhere(candidates)
    count = candidates.shape[1]
    own = slice(rank() * count // processes(), (rank() + 1) * count // processes())
    scores = torch.zeros(candidates.shape[:2], device=candidates.device)
    if own.start < own.stop:
        scores[:, own] = score(candidates[:, own])
    return sum_over_processes(scores)


def agreed(verdict: bool, device: torch.device) -> bool:
    """What the first process says, where candidates are shared: all must stop at the same iteration."""
    if not sharing():
        return verdict
    return bool(same_everywhere(torch.tensor([float(verdict)], device=device)))
