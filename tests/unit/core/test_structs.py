"""Records of tensors behave like one tensor."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from wm_toolkit.errors import ShapeError
from wm_toolkit.structs import Struct, cat, flatten, stack, unbind, unflatten


@dataclasses.dataclass(frozen=True)
class Inner(Struct):
    x: Tensor
    maybe: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Outer(Struct):
    inner: Inner
    named: dict[str, Tensor]
    pair: tuple[Tensor, Tensor]
    label: str = "kept"


def outer(rows: int, start: float = 0.0) -> Outer:
    x = torch.arange(rows * 2, dtype=torch.float32).view(rows, 2) + start
    return Outer(Inner(x), {"a": x + 10}, (x + 20, x[:, 0] + 30))


def test_every_leaf_is_visited_once_and_structure_is_kept():
    doubled = outer(3).map(lambda x: 2 * x)
    assert len(list(outer(3).leaves())) == 4
    assert torch.equal(doubled.pair[1], 2 * outer(3).pair[1])
    assert doubled.inner.maybe is None
    assert doubled.label == "kept"


def test_indexing_selects_rows_of_every_leaf():
    part = outer(4)[torch.tensor([2, 0])]
    assert torch.equal(part.inner.x, torch.tensor([[4.0, 5.0], [0.0, 1.0]]))
    assert len(part) == 2


def test_copies_of_a_row_lie_side_by_side():
    assert torch.equal(outer(2).repeat(3).pair[1], torch.tensor([30.0, 30, 30, 32, 32, 32]))


def test_where_mixes_rows_of_two_records():
    mixed = outer(2).where(torch.tensor([True, False]), outer(2, start=100.0))
    assert torch.equal(mixed.inner.x, torch.tensor([[0.0, 1.0], [102.0, 103.0]]))
    assert torch.equal(mixed.pair[1], torch.tensor([30.0, 132.0]))


def test_stack_and_unbind_are_inverse():
    items = [outer(2, start=float(i)) for i in range(3)]
    for one, two in zip(unbind(stack(items, 1), 1), items, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.leaves(), two.leaves(), strict=True))


def test_flatten_and_unflatten_are_inverse():
    x = stack([outer(2), outer(2)], 1)
    back = unflatten(flatten(x, 0, 1), 0, (2, 2))
    assert torch.equal(back.named["a"], x.named["a"])


def test_cat_appends_rows():
    assert len(cat([outer(2), outer(3)])) == 5


def test_records_of_different_structure_do_not_mix():
    with pytest.raises(ShapeError, match="different structure"):
        stack([Outer(Inner(torch.ones(1)), {"a": torch.ones(1)}, (torch.ones(1),) * 2),
               Outer(Inner(torch.ones(1)), {"b": torch.ones(1)}, (torch.ones(1),) * 2)])  # fmt: skip


def test_an_empty_list_of_records_is_an_error():
    with pytest.raises(ShapeError, match="empty list"):
        stack([])


def test_a_record_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        outer(1).label = "changed"  # type: ignore[misc]
