"""Optimisers and learning-rate schedules, as plain functions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import nn

from wm_toolkit.errors import ConfigError

Schedule = Callable[[int], float]
"""Factor on the learning rate as a function of the updates made so far."""


def constant(warmup: int = 0) -> Schedule:
    """1, after a linear rise over the first `warmup` updates."""
    return lambda update: min(1.0, (update + 1) / warmup) if warmup else 1.0


def warmup_cosine(total: int, warmup: int = 0, *, last: float = 0.0) -> Schedule:
    """Linear rise over `warmup` updates, then half a cosine from 1 to `last` at update `total`.

    The first update already moves (factor 1 / warmup); from `total` on the factor is `last`.

    Raises:
        ConfigError: unless 0 <= warmup < total.
    """
    if not 0 <= warmup < total:
        raise ConfigError(f"warmup is {warmup} of {total} updates; expected 0 <= warmup < total")

    def factor(update: int) -> float:
        if update < warmup:
            return (update + 1) / warmup
        done = min((update - warmup) / (total - warmup), 1.0)
        return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * done))

    return factor


def cooldown(total: int, share: float = 1 / 6) -> Schedule:
    """1, then a straight line to 0 over the last `share` of `total` updates.

    Raises:
        ConfigError: unless 0 < share <= 1.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share is {share}, expected above 0 and at most 1")
    return lambda update: min(1.0, max(0.0, (total - update) / (share * total)))


def adamw(
    lr: float,
    *,
    weight_decay: float = 0.0,
    decay: Literal["all", "matrices"] = "matrices",
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> Callable[[Iterable[nn.Parameter]], torch.optim.AdamW]:
    """A builder of AdamW (Loshchilov and Hutter 2019) for a learner's `optimizer` argument.

    Args:
        lr: learning rate.
        weight_decay: decoupled decay per unit of learning rate.
        decay: "matrices" spares biases, norm scales and every other parameter with fewer than two
            axes; "all" decays everything.
        betas: of the two moments.
        eps: added to the root of the second moment.
    """

    def build(parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        parameters = list(parameters)
        decayed = [p for p in parameters if decay == "all" or p.ndim >= 2]
        kept = {id(p) for p in decayed}
        spared = [p for p in parameters if id(p) not in kept]
        groups = [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps)

    return build


@dataclasses.dataclass(frozen=True)
class AdamPart:
    """Adam's settings for one part of an agent.

    Attributes:
        lr: learning rate.
        eps: added to the root of the second moment.
        clip: largest norm of the part's gradient; None leaves it as it is.
        decay: share by which every weight shrinks at every update, whatever the learning rate (Dreamer
            V2's code).
    """

    lr: float
    eps: float = 1e-8
    clip: float | None = 100.0
    decay: float = 0.0


def adam_parts(
    parts: Sequence[tuple[nn.Module, AdamPart]],
) -> Callable[[Iterable[nn.Parameter]], torch.optim.AdamW]:
    """A builder of one Adam whose parts learn at rates, and are clipped at norms, of their own.

    Args:
        parts: modules and their settings; a parameter belongs to the first module that holds it.

    Raises:
        ConfigError: when called with a parameter that belongs to none of them.
    """

    def build(parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        left = {id(p): p for p in parameters}
        groups = []
        for module, part in parts:
            own = [left.pop(id(p)) for p in module.parameters() if id(p) in left]
            shrink = part.decay / part.lr  # AdamW multiplies it by the learning rate
            settings = {"lr": part.lr, "eps": part.eps, "weight_decay": shrink}
            groups.append({"params": own, "max_norm": part.clip, **settings})
        if left:
            shapes = [tuple(p.shape) for p in left.values()]
            raise ConfigError(f"parameters of shapes {shapes} belong to no part of the optimiser")
        return torch.optim.AdamW([group for group in groups if group["params"]])

    return build
