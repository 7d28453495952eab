"""What every search works with: the problem, its best plan so far, the elites and the record."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from wm_toolkit.errors import NonFiniteError, ShapeError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.base import PlanRecord
from wm_toolkit.planning.objective import Objective
from wm_toolkit.planning.rollout import score
from wm_toolkit.planning.shared import share_scores
from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class Problem:
    """One call of `plan`.

    Attributes:
        model: what is searched.
        state: [B] where the plans begin.
        objective: bound to the present observations.
        start: [B, H, A] where the search begins; a row of zeros where nothing is known.
        generator: source of randomness.
        low: [A] bounds of an encoded action, on the device (may be infinite).
        high: likewise.
    """

    model: WorldModel
    state: Any
    objective: Objective
    start: Tensor
    generator: torch.Generator | None
    low: Tensor
    high: Tensor

    @classmethod
    def of(
        cls,
        model: WorldModel,
        state: Struct,
        objective: Objective,
        *,
        horizon: int,
        warm_start: Tensor | None,
        generator: torch.Generator | None,
    ) -> Problem:
        """Put the arguments of `plan` in order: a warm start [B, H, A] is cut or zero-padded to the horizon.

        Raises:
            ShapeError: if the warm start does not fit the state or the action space.
        """
        size, width, device = len(state), model.spaces.action_width, model.device
        start = torch.zeros(size, horizon, width, device=device)
        if warm_start is not None:
            if warm_start.ndim != 3 or warm_start.shape[::2] != (size, width):
                raise ShapeError(
                    f"warm start of shape {tuple(warm_start.shape)}, expected [B, H, A] with "
                    f"B = {size} rows and A = {width}"
                )
            known = min(horizon, warm_start.shape[1])
            start[:, :known] = warm_start[:, :known].detach()
        low, high = model.spaces.action_low.to(device), model.spaces.action_high.to(device)
        return cls(model, state, objective, start.clamp_(low, high), generator, low, high)

    def select(self, rows: Tensor) -> Problem:
        """The same for some rows [b] (indices into B)."""
        return dataclasses.replace(
            self,
            state=self.state[rows],
            objective=self.objective.select(rows),
            start=self.start[rows],
        )

    def score(self, candidates: Tensor, memory_bytes: int, *, compiled: bool = False) -> Tensor:
        """[B, N] scores of candidates [B, N, H, A]; one that is not finite counts as the worst.

        Inside `shared_candidates` every process scores its share, and all get all scores.
        """

        def score_some(some: Tensor) -> Tensor:
            return score(
                self.model,
                self.state,
                some,
                self.objective,
                generator=self.generator,
                memory_bytes=memory_bytes,
                compiled=compiled,
            )

        return worst_unless_finite(share_scores(score_some, candidates))


@dataclasses.dataclass(frozen=True)
class Best(Struct):
    """The best plan seen so far: its score [B] and actions [B, H, A]."""

    score: Tensor
    actions: Tensor

    def improve(self, score: Tensor, actions: Tensor) -> Best:
        """The better of this and another plan [B, H, A] of score [B], row by row."""
        better = score > self.score
        return Best(
            torch.where(better, score, self.score),
            torch.where(better.view(-1, 1, 1), actions, self.actions),
        )

    def checked(self, model: WorldModel, objective: Objective) -> Best:
        """Itself, if every row has a finite score.

        Raises:
            NonFiniteError: naming the rows without one.
        """
        bad = ~self.score.isfinite()
        if bool(bad.any()):
            raise NonFiniteError(
                f"no candidate plan of row {bad.nonzero().squeeze(-1).tolist()} has a finite score "
                f"({type(objective).__name__} in {type(model).__name__}); look for NaN in the "
                "observations, the goal and the parameters"
            )
        return self


class History:
    """Collects a `PlanRecord` while a search runs."""

    def __init__(self) -> None:
        self.rows: list[tuple[Tensor, ...]] = []

    def add(self, best: Best, scores: Tensor, spread: Tensor, rows: Tensor | None = None) -> None:
        """One iteration: scores [b, N] of its candidates, spread [b] after it.

        `rows` [b] are those it was made for, None for all; the others stay as they were.
        """
        finite = torch.where(scores.isfinite(), scores, torch.nan)
        now = (best.score, finite.nanmean(1), spread)
        if rows is not None:
            before = self.rows[-1]
            now = tuple(old.index_copy(0, rows, new) for old, new in zip(before, now, strict=True))
        self.rows.append(now)

    def record(self) -> PlanRecord:
        """[B, I] over the iterations done."""
        best, mean, spread = (torch.stack(column, 1) for column in zip(*self.rows, strict=True))
        return PlanRecord(best, mean, spread)


def select_elites(candidates: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best candidates of every row, best first.

    Where fewer than `count` have a finite score the best one stands in for the rest, so that a
    candidate that made the model diverge never shapes the belief.

    Args:
        candidates: [B, N, H, A].
        scores: [B, N], -inf for worthless ones.
        count: K, at most N are returned.

    Returns:
        [B, K] scores and [B, K, H, A] elites.
    """
    values, index = scores.topk(min(count, scores.shape[1]), dim=1)
    index = torch.where(values.isfinite(), index, index[:, :1])
    rows = torch.arange(len(scores), device=scores.device).unsqueeze(1)
    return values, candidates[rows, index]


def worst_unless_finite(scores: Tensor) -> Tensor:
    """The same scores, of any shape, with -inf in place of NaN and infinity."""
    return scores.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
