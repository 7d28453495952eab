"""A list of checks that runs to the end and then says everything that failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wm_toolkit.errors import WmError


class CheckError(WmError, AssertionError):
    """Something does not keep its contract; the message lists every failed check."""


class Checks:
    """Collects the outcome of named checks.

    Args:
        subject: what is checked, for messages.
    """

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.passed: list[str] = []
        self.failed: list[str] = []

    def run(self, name: str, check: Callable[[], None]) -> None:
        """Run one check; any exception counts as its failure and is reported at the end."""
        try:
            check()
        except Exception as error:  # a broken subject may raise anything, and it is all reported
            self.failed.append(f"{name}: {type(error).__name__}: {error}")
        else:
            self.passed.append(name)

    def finish(self) -> list[str]:
        """The names of the checks that passed.

        Raises:
            CheckError: if any failed.
        """
        if self.failed:
            lines = "\n".join(f"  - {line}" for line in self.failed)
            total = len(self.failed) + len(self.passed)
            raise CheckError(f"{self.subject} fails {len(self.failed)} of {total} checks:\n{lines}")
        return self.passed


def close(one: Tensor, two: Tensor, tolerance: float, what: str) -> None:
    """Assert that two tensors (equal shapes) agree to a tolerance relative to their size."""
    assert one.shape == two.shape, f"{what}: shapes {tuple(one.shape)} and {tuple(two.shape)}"
    if not one.numel():
        return
    one, two = one.double(), two.double()
    difference = float((one - two).abs().max())
    allowed = tolerance * max(1.0, float(two.abs().max()))
    assert difference <= allowed, f"{what}: differs by {difference:.3g}, allowed {allowed:.3g}"


def equal_structs(one: Any, two: Any, tolerance: float, what: str) -> None:
    """Assert that two records agree leaf by leaf (shapes and, to a tolerance, values)."""
    leaves = list(one.leaves()), list(two.leaves())
    assert len(leaves[0]) == len(leaves[1]), f"{what}: records of different structure"
    for number, (a, b) in enumerate(zip(*leaves, strict=True)):
        close(torch.as_tensor(a), torch.as_tensor(b), tolerance, f"{what}, tensor {number}")
