"""Immutable records of tensors: the form of every latent state, batch, plan and decision.

A record is a frozen dataclass that derives from `Struct`. Its fields are tensors, other records, dicts
or tuples of those, or None; anything else (an int, a string) is carried along untouched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from wm_toolkit.errors import ShapeError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Struct:
    """A frozen dataclass of tensors (nested, optional leaves) that behaves like one tensor.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Point(Struct):
        ...     xy: Tensor
        >>> point = Point(torch.zeros(3, 2))
        >>> len(point), point[0].xy.shape
        (3, torch.Size([2]))
    """

    @classmethod
    def unchecked(cls, **fields: Any) -> Self:
        """A record of all its fields without `__post_init__`, in a third of the time.

        For inner loops that make what is right by construction. No field has a default here.
        """
        record = object.__new__(cls)
        record.__dict__.update(fields)
        return record

    def map(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Apply `fn` to every tensor and return a new record."""
        return _map(fn, self)

    def leaves(self) -> Iterator[Tensor]:
        """Yield every tensor, depth first, in field order."""
        yield from _leaves(self)

    def replace(self, **fields: Any) -> Self:
        """Return a copy with some fields exchanged."""
        return dataclasses.replace(self, **fields)

    def __getitem__(self, index: Any) -> Self:
        return self.map(lambda x: x[index])

    def __len__(self) -> int:
        for leaf in self.leaves():
            return len(leaf)
        raise ShapeError(f"{type(self).__name__} holds no tensor, so it has no length")

    def to(self, device: torch.device | str) -> Self:
        """Move every tensor to `device`."""
        return self.map(lambda x: x.to(device, non_blocking=True))

    def detach(self) -> Self:
        """Cut every tensor out of the autograd graph."""
        return self.map(torch.Tensor.detach)

    def repeat(self, n: int) -> Self:
        """Repeat every row n times: [B, ...] -> [B * n, ...], copies of a row lie side by side."""
        return self.map(lambda x: x.repeat_interleave(n, 0))

    def where(self, keep: Tensor, other: Self) -> Self:
        """Rows of self where `keep` [B] is true, rows of `other` elsewhere."""

        def select(mine: Tensor, theirs: Tensor) -> Tensor:
            mask = keep.to(mine.device).reshape(keep.shape + (1,) * (mine.ndim - keep.ndim))
            return torch.where(mask, mine, theirs.to(mine.dtype))

        return _zip(select, self, other)


def stack(items: Sequence[T], dim: int = 0) -> T:
    """Stack records (or tensors) along a new axis `dim`."""
    return _combine(lambda tensors: torch.stack(tensors, dim), items)


def cat(items: Sequence[T], dim: int = 0) -> T:
    """Concatenate records (or tensors) along the axis `dim`."""
    return _combine(lambda tensors: torch.cat(tensors, dim), items)


def unbind(struct: T, dim: int = 0) -> list[T]:
    """Split a record (or tensor) along `dim` into a list of records."""
    length = next(_leaves(struct)).shape[dim]
    return [_map(lambda x, i=i: x.select(dim, i), struct) for i in range(length)]


def unflatten(struct: T, dim: int, sizes: tuple[int, ...]) -> T:
    """Reshape axis `dim` of every tensor into `sizes`."""
    return _map(lambda x: x.unflatten(dim, sizes), struct)


def flatten(struct: T, start: int, end: int) -> T:
    """Merge the axes `start` to `end` (inclusive, both counted from the front) of every tensor."""
    return _map(lambda x: x.flatten(start, end), struct)


def _children(node: Any) -> dict[Any, Any] | None:
    if isinstance(node, Struct):
        return {f.name: getattr(node, f.name) for f in dataclasses.fields(node)}
    if isinstance(node, dict):
        return node
    if isinstance(node, (tuple, list)):
        return dict(enumerate(node))
    return None


def _rebuild(node: Any, children: dict[Any, Any]) -> Any:
    if isinstance(node, Struct):
        return type(node)(**children)
    if isinstance(node, dict):
        return children
    return type(node)(children.values())


def _map(fn: Callable[[Tensor], Tensor], node: Any) -> Any:
    if isinstance(node, Tensor):
        return fn(node)
    children = _children(node)
    if children is None:
        return node
    return _rebuild(node, {key: _map(fn, child) for key, child in children.items()})


def _leaves(node: Any) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
        return
    for child in (_children(node) or {}).values():
        yield from _leaves(child)


def _zip(fn: Callable[..., Tensor], first: Any, *rest: Any) -> Any:
    if isinstance(first, Tensor):
        return fn(first, *rest)
    children = _children(first)
    if children is None:
        return first
    others = [_children(node) for node in rest]
    for other in others:
        if other is None or other.keys() != children.keys():
            raise ShapeError(
                f"cannot combine records of different structure: {sorted(map(str, children))} "
                f"and {sorted(map(str, other or {}))}"
            )
    merged = {k: _zip(fn, child, *(o[k] for o in others if o)) for k, child in children.items()}
    return _rebuild(first, merged)


def _combine(fn: Callable[[list[Tensor]], Tensor], items: Sequence[Any]) -> Any:
    if not items:
        raise ShapeError("cannot combine an empty list of records")
    return _zip(lambda *tensors: fn(list(tensors)), *items)
