"""One-hot vectors kept as the indices of their ones: a linear layer then adds rows, and multiplies no zeros."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class Choices(Struct):
    """Stands for rows [..., D + G K]: D numbers, then G one-hot vectors of K classes.

    Linear layers take it as they take the tensor it stands for (`functional.linear` gathers), so does
    `torch.cat` behind plain tensors; any other function of torch is given the tensor itself. Gradients
    reach the weights of layers, never the rows.

    Attributes:
        front: [..., D] the plain numbers, or None (D = 0).
        index: [..., G] class of every one-hot vector.
        classes: K.
    """

    front: Tensor | None
    index: Tensor
    classes: int

    @classmethod
    def of(cls, one_hot: Tensor, classes: int) -> Choices:
        """From one-hot vectors [..., G K]."""
        return cls(None, one_hot.detach().unflatten(-1, (-1, classes)).argmax(-1), classes)

    @property
    def tensor(self) -> Tensor:
        """[..., D + G K] what it stands for."""
        flat = self._rows()
        shape = (*self.index.shape[:-1], self.index.shape[-1] * self.classes)
        dtype = torch.get_default_dtype() if self.front is None else self.front.dtype
        one_hot = torch.zeros(shape, dtype=dtype, device=flat.device).scatter_(-1, flat, 1.0)
        return one_hot if self.front is None else torch.cat([self.front, one_hot], -1)

    def _rows(self) -> Tensor:
        """[..., G] where the ones stand among all G K columns."""
        starts = torch.arange(self.index.shape[-1], device=self.index.device) * self.classes
        return self.index + starts

    @property
    def requires_grad(self) -> bool:
        """Never: indices have no gradient."""
        return False

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """[..., U] the rows times `weight` [U, D + G K], plus `bias` [U]."""
        rows = self._rows()
        skip = weight.shape[1] - rows.shape[-1] * self.classes
        table = weight[:, skip:].t().contiguous()
        found = functional.embedding_bag(rows.flatten(0, -2), table, mode="sum")
        found = found.view(*rows.shape[:-1], -1)
        if self.front is None:
            return found if bias is None else found + bias
        return found + functional.linear(self.front, weight[:, :skip], bias)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear and isinstance(args[0], Choices):
            return args[0].linear(*args[1:], **kwargs)
        if func is torch.cat and _behind(args, kwargs):
            *plain, last = args[0]
            front = torch.cat([*plain, *([] if last.front is None else [last.front])], -1)
            return last.replace(front=front)
        return func(*map(_plain, args), **{key: _plain(value) for key, value in kwargs.items()})


def _behind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the arguments of `cat` put one `Choices` behind plain tensors, along the last axis."""
    parts, dim = args[0], args[1] if len(args) > 1 else kwargs.get("dim", 0)
    return dim == -1 and isinstance(parts[-1], Choices) and all(map(torch.is_tensor, parts[:-1]))


def _plain(value: Any) -> Any:
    if isinstance(value, Choices):
        return value.tensor
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
