"""Faster float32 matrix products on CPU, for many products with weights that stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LARGE, ROWS = 2**17, 16
"""Elements of a weight, and rows it is applied to, from which packing pays."""


def worth_packing(module: nn.Module) -> bool:
    """Whether `PackedWeights` makes a module faster: it costs a little on every function of torch."""
    return can_pack() and any(p.ndim == 2 and p.numel() >= LARGE for p in module.parameters())


def can_pack() -> bool:
    """Whether torch has been built with what `PackedWeights` needs."""
    operations = torch.ops.mkldnn
    return torch.backends.mkldnn.is_available() and all(
        hasattr(operations, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


class PackedWeights(TorchFunctionMode):
    """Within the block, linear layers take weights in the layout that oneDNN is fastest with.

    torch's own float32 product copies the weights into such a layout every time; here that happens once
    a block, so weights must not change within it. Results agree up to rounding. Whatever the packed
    product cannot do (other devices and types, autocast, gradients, small products) is left to torch.

    Example:
        >>> with torch.no_grad(), PackedWeights():
        ...     states = model.rollout(state, candidates)
    """

    def __init__(self) -> None:
        super().__init__()
        # The weight is kept beside its packed form, so that its address stays its own.
        self._packed: dict[tuple[int, torch.Size], tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What torch calls in place of each of its functions."""
        if func is functional.linear and not kwargs and _suits(args[0], args[1]):
            return self._linear(*args)
        return func(*args, **(kwargs or {}))

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """`functional.linear` with the packed weight."""
        key = (weight.data_ptr(), weight.shape)
        if key not in self._packed:
            rows = x.numel() // x.shape[-1]
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
            self._packed[key] = (weight, packed)
        return torch.ops.mkldnn._linear_pointwise(x, self._packed[key][1], bias, "none", [], "")


def _suits(x: Tensor, weight: Tensor) -> bool:
    """Whether the packed product is possible, and worthwhile."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and weight.numel() >= LARGE
        and x.numel() >= ROWS * x.shape[-1]
        and weight.is_contiguous()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )
