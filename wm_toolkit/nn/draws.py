"""Random numbers of a few rows, as they fall in a larger batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class DrawnAmong(TorchFunctionMode):
    """Inside, a few rows draw from a generator what they would draw as part of a larger batch.

    So a batch can be computed in groups of any size, each from the same seed, with the same numbers. A
    draw is made for all rows of the larger batch, and these take theirs. It must have the rows first, or
    several parts [n * k, ...] of each, side by side; other draws, and those without a generator, are as
    they are outside.

    Args:
        total: rows of the larger batch.
        rows: [n] which of them these are; one may come up again.

    Example:
        >>> noise = torch.Generator().manual_seed(0)
        >>> with DrawnAmong(1000, range(16, 32)):
        ...     state = model.observe(state, action, obs, generator=noise)
    """

    def __init__(self, total: int, rows: Sequence[int]) -> None:
        super().__init__()
        self.total, self.rows = total, torch.tensor(list(rows), dtype=torch.long)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, for all rows if it draws for these."""
        kwargs = dict(kwargs or {})
        if kwargs.get("generator") is None:
            return func(*args, **kwargs)
        given: list[Any] = list(args)
        if func in (torch.rand, torch.randn) and args and isinstance(args[0], int):
            given = [tuple(args)]
        wide = [self._widened(value) for value in given]
        named = {name: self._widened(value) for name, value in kwargs.items()}
        drawn = func(*wide, **named)
        if not any(map(self._ours, (*given, *kwargs.values()))):
            return drawn
        own = drawn.unflatten(0, (self.total, -1))[self.rows.to(drawn.device)].flatten(0, 1)
        in_place = bool(wide) and drawn is wide[0]
        return given[0].copy_(own) if in_place else own

    def _ours(self, value: Any) -> bool:
        """Whether this is a tensor, or the shape of one, that has the rows first."""
        shape: Any = value.shape if isinstance(value, Tensor) else value
        return isinstance(shape, (tuple, list)) and bool(shape) and shape[0] % len(self.rows) == 0

    def _widened(self, value: Any) -> Any:
        """The same for all rows: what the others hold is of no account, so they hold what the first does."""
        if not self._ours(value):
            return value
        if not isinstance(value, Tensor):
            return (value[0] // len(self.rows) * self.total, *value[1:])
        own = value.unflatten(0, (len(self.rows), -1))
        wide = own[:1].expand(self.total, *own.shape[1:]).clone()
        wide[self.rows.to(value.device)] = own
        return wide.flatten(0, 1)
