"""Does a source of batches keep the contract?"""

from __future__ import annotations

import copy
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
    checks = Checks(type(make()).__name__)

    def take(source: Source, count: int) -> list[Batch]:
        return [next(source) for _ in range(count)]

    def fits() -> None:
        source = make()
        batch, spaces = next(source), source.spaces
        width = spaces.action_width
        assert batch.action.shape[-1] == width, (
            f"actions are {batch.action.shape[-1]} wide, not {width}"
        )
        assert batch.action.dtype == torch.float32, f"actions are {batch.action.dtype}"
        assert batch.is_first.dtype == torch.bool, f"is_first is {batch.is_first.dtype}"
        for key, space in spaces.observation.items():
            if key in batch.obs:
                shape = tuple(batch.obs[key].shape[2:])
                assert shape == tuple(space.shape or ()), (
                    f"obs {key!r} is {shape}, not {space.shape}"
                )

    def repeats() -> None:
        for one, two in zip(take(make(), batches), take(make(), batches), strict=True):
            equal_structs(one, two, 0.0, "batches of one seed")

    def moves_on() -> None:
        first, *rest = take(make(), batches)
        same = [
            all(
                a.shape == b.shape and torch.equal(a, b)
                for a, b in zip(first.leaves(), other.leaves(), strict=True)
            )
            for other in rest
        ]
        assert not all(same), "every batch is the same"

    def resumes() -> None:
        source = make()
        take(source, batches // 2)
        saved = copy.deepcopy(source.state_dict())
        expected = take(source, batches)
        again = make()
        again.load_state_dict(saved)
        for one, two in zip(take(again, batches), expected, strict=True):
            equal_structs(one, two, 0.0, "a batch after resuming")

    checks.run("batches fit the spaces", fits)
    checks.run("the same seed gives the same batches", repeats)
    checks.run("batches differ from each other", moves_on)
    checks.run("it resumes where it stopped", resumes)
    return checks.finish()
