"""Does a source of batches keep the contract?"""

from __future__ import annotations

import json
from collections.abc import Callable

import torch

from wm_toolkit.batch import Batch
from wm_toolkit.data.source import Source
from wm_toolkit.testing.checks import Checks, equal_structs


def check_source(make: Callable[[], Source], *, batches: int = 4) -> list[str]:
    """Check a data source.

    Args:
        make: builds the source anew, seeded the same each time.
        batches: how many batches to compare.

    Returns:
        the names of the checks that passed.

    Raises:
        CheckError: listing every check that failed.
    """
    checks, probe = Checks(type(make()).__name__), _Probe(make, batches)
    checks.run("batches fit the spaces", probe.fits)
    checks.run("the same seed gives the same batches", probe.repeats)
    checks.run("batches differ from each other", probe.moves_on)
    checks.run("it resumes where it stopped", probe.resumes)
    return checks.finish()


class _Probe:
    """The checks, each on sources of its own."""

    def __init__(self, make: Callable[[], Source], batches: int) -> None:
        self.make, self.batches = make, batches

    def take(self, source: Source) -> list[Batch]:
        """The next batches [B, T]."""
        return [next(source) for _ in range(self.batches)]

    def fits(self) -> None:
        """Shapes and types."""
        source = self.make()
        batch, spaces = next(source), source.spaces
        width, wanted = batch.action.shape[-1], spaces.action_width
        assert width == wanted, f"actions are {width} wide, not {wanted}"
        assert batch.action.dtype == torch.float32, f"actions are {batch.action.dtype}"
        assert batch.is_first.dtype == torch.bool, f"is_first is {batch.is_first.dtype}"
        for key, space in spaces.observation.items():
            if key in batch.obs:
                shape = tuple(batch.obs[key].shape[2:])
                assert shape == tuple(space.shape or ()), (
                    f"obs {key!r} is {shape}, not {space.shape}"
                )

    def repeats(self) -> None:
        """A seed fixes the stream."""
        for one, two in zip(self.take(self.make()), self.take(self.make()), strict=True):
            equal_structs(one, two, 0.0, "batches of one seed")

    def moves_on(self) -> None:
        """The stream is not one batch for ever."""
        first, *rest = self.take(self.make())
        assert not all(_same(first, other) for other in rest), "every batch is the same"

    def resumes(self) -> None:
        """A position survives JSON and is gone on from exactly."""
        source, again = self.make(), self.make()
        self.take(source)
        saved = json.loads(json.dumps(source.state_dict()))
        expected = self.take(source)
        again.load_state_dict(saved)
        for one, two in zip(self.take(again), expected, strict=True):
            equal_structs(one, two, 0.0, "a batch after resuming")


def _same(one: Batch, two: Batch) -> bool:
    pairs = zip(one.leaves(), two.leaves(), strict=True)
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)
