"""The one documented place that touches torch's global generators.

Library code takes a `torch.Generator`. Dropout and the noise inside a loss have no such argument, and draw
from torch's global generators; a run gives those a seeded stream of their own, keeps it in its
checkpoints, and hands the caller's back untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


def _devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []


@contextmanager
def own_stream(seed: int, *, rank: int = 0) -> Iterator[None]:
    """Seed the global generators inside the block; restore the caller's stream behind it.

    Args:
        seed: of the run.
        rank: of this process; every process draws its own dropout masks.
    """
    with torch.random.fork_rng(devices=_devices()):
        torch.default_generator.manual_seed(seed + rank)
        for device in _devices():
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed + rank)
        yield


@contextmanager
def preserved() -> Iterator[None]:
    """Draw as you like inside the block: the stream goes on behind it as if nothing had happened."""
    with torch.random.fork_rng(devices=_devices()):
        yield


def stream_state() -> dict[str, Any]:
    """State of the global generators, for a checkpoint."""
    return {"cpu": torch.get_rng_state(), "gpus": [torch.cuda.get_rng_state(d) for d in _devices()]}


def load_stream_state(state: Mapping[str, Any]) -> None:
    """Restore what `stream_state` returned; streams of devices that are absent here are passed over."""
    torch.set_rng_state(state["cpu"])
    for device, stream in zip(_devices(), state["gpus"], strict=False):
        torch.cuda.set_rng_state(stream, device)
