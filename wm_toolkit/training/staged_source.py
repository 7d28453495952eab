"""The batches of training in stages: frames for vision, its codes for memory, beginnings for a controller."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_toolkit.agents.staged import stage_of
from wm_toolkit.batch import Batch
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.trajectory import OBS
from wm_toolkit.errors import DataError
from wm_toolkit.models.mdn_rnn import LATENT, MDNRNN
from wm_toolkit.nn.distributed import processes, rank
from wm_toolkit.spaces import Spaces

ENCODED_AT_ONCE = 256  # frames


@dataclasses.dataclass(frozen=True)
class StageData:
    """What the batches of one stage hold.

    Attributes:
        updates: of the stage; the last one takes what is left of `train.updates`.
        length: T.
        batch_size: B, over all processes.
        begin: windows begin at "any" row, or at the "first" of an episode.
        reads: the "frames", what V made of them ("codes"), or "both".
        dreams: the model learns to dream in this stage, or before it.
        plays: the stage needs the real environment.
    """

    updates: int
    length: int
    batch_size: int
    begin: Literal["any", "first"] = "any"
    reads: Literal["frames", "codes", "both"] = "frames"
    dreams: bool = True
    plays: bool = False


class StagedSource:
    """The batches that each stage asks for, drawn from (seed, position) alone (a `Source`).

    A window is T consecutive rows, across the ends of episodes: `is_first` says where one begins. So the
    rows that end an episode come up as often as any other.

    Args:
        data: recorded trajectories.
        model: makes codes of the frames, once, when a stage first asks for them.
        stages: in order; the last one goes on for ever.
        seed: of the draws.
    """

    def __init__(
        self, data: TrajectoryDataset, model: MDNRNN, stages: Sequence[StageData], *, seed: int = 0
    ) -> None:
        self.data, self.model, self.stages, self.seed = data, model, tuple(stages), seed
        self.position = 0
        lengths = data.episode_lengths
        begins = np.cumsum(lengths) - lengths
        self._rows = np.concatenate(
            [first + np.arange(n) for first, n in zip(data.episode_starts, lengths, strict=True)]
        )
        self._first = np.zeros(len(self._rows), bool)
        self._first[begins] = True
        self._begins = begins
        self._coded = self._places_to_encode()
        self._codes: Tensor | None = None
        for stage in self.stages:
            if len(self._rows) < stage.length or stage.batch_size % processes():
                raise DataError(
                    f"{len(self._rows)} rows cannot give {stage}, shared by {processes()} processes"
                )

    @property
    def spaces(self) -> Spaces:
        """What the batches hold."""
        return self.model.spaces

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        number, _ = stage_of([stage.updates for stage in self.stages], self.position)
        stage = self.stages[number]
        rng = np.random.default_rng([self.seed, self.position])
        self.position += 1
        if stage.begin == "first":
            allowed = self._beginnings(stage)
            starts = allowed[rng.integers(len(allowed), size=stage.batch_size)]
        else:
            starts = rng.integers(len(self._rows) - stage.length + 1, size=stage.batch_size)
        share = stage.batch_size // processes()
        return self._gather(starts[rank() * share :][:share], stage)

    def _beginnings(self, stage: StageData) -> NDArray[np.int64]:
        """Where episodes begin, with rows enough behind."""
        return self._begins[self._begins + stage.length <= len(self._rows)]

    def _places_to_encode(self) -> NDArray[np.int64]:
        """Places of the stream whose codes any stage may read, in order."""
        reading = [stage for stage in self.stages if stage.reads != "frames"]
        if any(stage.begin == "any" for stage in reading):
            return np.arange(len(self._rows))
        windows = [self._beginnings(s)[:, None] + np.arange(s.length) for s in reading]
        return np.unique(np.concatenate([w.ravel() for w in windows] or [np.zeros(0, np.int64)]))

    def _gather(self, starts: NDArray[np.int64], stage: StageData) -> Batch:
        """[B, T] the windows that begin at these places of the stream."""
        places = starts[:, None] + np.arange(stage.length)
        rows = self._rows[places]
        columns = self.data.columns
        key = self.model.encoder.key
        frames = {} if stage.reads == "codes" else {key: columns[OBS + key].array[rows]}
        codes = {} if stage.reads == "frames" else {LATENT: self._codes_at(places)}
        return Batch(
            obs={name: torch.from_numpy(np.asarray(x)) for name, x in frames.items()},
            action=self.spaces.encode_action(columns["action"].array[rows]),
            is_first=torch.from_numpy(self._first[places]),
            terminated=torch.from_numpy(np.asarray(columns["terminated"].array[rows])),
            index=torch.from_numpy(starts),
            extras=codes,
        )

    @torch.no_grad()
    def _codes_at(self, places: NDArray[np.int64]) -> Tensor:
        """[..., 2 Z] what V makes of the frames at these places; V no longer changes when it is asked."""
        if self._codes is None:
            encoder, found = self.model.encoder, []
            frames = self.data.columns[OBS + encoder.key].array
            for at in range(0, len(self._coded), ENCODED_AT_ONCE):
                chunk = np.asarray(frames[self._rows[self._coded[at : at + ENCODED_AT_ONCE]]])
                images = torch.from_numpy(chunk).to(self.model.device)
                statistics = encoder.statistics(encoder.pixels({encoder.key: images}))
                found.append(torch.cat(statistics, -1).float().cpu())
            self._codes = torch.cat(found)
        if len(self._coded) < len(self._rows):
            places = np.searchsorted(self._coded, places)
        return self._codes[torch.from_numpy(places)]

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there."""
        self.position = state["position"]
