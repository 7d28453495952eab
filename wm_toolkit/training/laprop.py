"""LaProp with adaptive gradient clipping, the optimiser of Dreamer V3."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from wm_toolkit.errors import ConfigError

tensors: Any = torch  # its operations on lists of tensors are public in all but their names


class LaProp(torch.optim.Optimizer):
    """Momentum of RMS-scaled gradients (Ziyin et al. 2020), clipped tensor by tensor (Brock et al. 2021).

        g <- g min(1, clip max(least, |p|) / |g|)                 norms of the whole tensor
        nu <- b2 nu + (1 - b2) g^2,   u = g / (sqrt(nu / (1 - b2^t)) + eps)
        m <- b1 m + (1 - b1) u,       p <- p - lr m / (1 - b1^t)

    All parameters of a group are updated together, in a few calls whatever their number. A group that is
    `capturable`, as torch's own optimisers name it, reads a learning rate that is a tensor and counts its
    steps on the device, so that an update can be recorded and replayed.

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: (b1, b2) of momentum and second moment.
        eps: added to the root of the second moment.
        clip: largest gradient norm as a share of the parameter's; None does not clip.
        least: norm that a parameter counts for at least.

    Raises:
        ConfigError: for a number out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 4e-5,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
        clip: float | None = 0.3,
        least: float = 1e-3,
    ) -> None:
        if lr < 0 or not all(0 <= beta < 1 for beta in betas) or (clip is not None and clip <= 0):
            raise ConfigError(
                f"lr is {lr}, betas {betas}, clip {clip}; expected lr >= 0, betas in [0, 1), clip > 0"
            )
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "clip": clip,
                "least": least,
                "capturable": False,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            known = [p for p in group["params"] if p.grad is not None]
            if known:
                self._update(group, known)
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        (b1, b2), eps = group["betas"], group["eps"]
        step = self._counted(group, params[0].device)
        grads = _clipped(params, group["clip"], group["least"])
        second = self._moments(params, "nu")
        first = self._moments(params, "m")
        tensors._foreach_mul_(second, b2)
        tensors._foreach_addcmul_(second, grads, grads, 1 - b2)
        scale = tensors._foreach_div(second, 1 - b2**step)
        tensors._foreach_sqrt_(scale)
        tensors._foreach_add_(scale, eps)
        tensors._foreach_div_(grads, scale)
        tensors._foreach_lerp_(first, grads, 1 - b1)
        if isinstance(step, Tensor):
            tensors._foreach_add_(
                params, tensors._foreach_mul(first, -group["lr"] / (1 - b1**step))
            )
        else:
            tensors._foreach_add_(params, first, alpha=-group["lr"] / (1 - b1**step))

    def _counted(self, group: dict[str, Any], device: torch.device) -> int | Tensor:
        """The number of this step, on the device (double precision, which 1 - b2^t needs) where that is asked for."""
        step = group.get("step", 0)
        if not group.get("capturable"):
            group["step"] = int(step) + 1
            return group["step"]
        if not isinstance(step, Tensor):
            step = torch.tensor(float(step), dtype=torch.float64)
        group["step"] = step = step.to(device)
        return step.add_(1)

    def _moments(self, params: list[Tensor], name: str) -> list[Tensor]:
        for p in params:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in params]


def _clipped(params: list[Tensor], clip: float | None, least: float) -> list[Tensor]:
    """Copies of the gradients, none longer than its share of its parameter's norm."""
    grads = [p.grad for p in params if p.grad is not None]
    if clip is None:
        return [g.clone() for g in grads]
    longest = tensors._foreach_norm(params)
    tensors._foreach_clamp_min_(longest, least)
    tensors._foreach_mul_(longest, clip)
    norms = tensors._foreach_norm(grads)
    tensors._foreach_clamp_min_(norms, torch.finfo(torch.float32).tiny)
    tensors._foreach_div_(longest, norms)
    tensors._foreach_clamp_max_(longest, 1.0)
    return list(tensors._foreach_mul(grads, longest))


def laprop(lr: float, **options: Any) -> Callable[[Iterable[torch.nn.Parameter]], LaProp]:
    """A builder of `LaProp` for a learner's `optimizer` argument; options as its arguments."""
    return lambda parameters: LaProp(parameters, lr, **options)
