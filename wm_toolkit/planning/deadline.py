"""A latency budget that planners keep."""

from __future__ import annotations

import time

import torch

from wm_toolkit.planning.shared import agreed

clock = time.perf_counter


class Deadline:
    """Says when one more iteration would overrun the time allowed for a plan.

    The next iteration, and the scoring of the finished plan, are each assumed to take as long as the
    longest iteration so far.

    Args:
        seconds: time for one plan; None allows any.
        device: waited for before the clock is read, because accelerators work asynchronously.
    """

    def __init__(self, seconds: float | None, device: torch.device) -> None:
        self.seconds, self.device = seconds, device
        self.begun = self.last = clock() if seconds is not None else 0.0
        self.longest = 0.0

    def reached(self) -> bool:
        """Ask once after every iteration; where processes share candidates the first one's clock counts."""
        if self.seconds is None:
            return False
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        now = clock()
        self.longest = max(self.longest, now - self.last)
        self.last = now
        return agreed(now - self.begun + 2 * self.longest > self.seconds, self.device)
