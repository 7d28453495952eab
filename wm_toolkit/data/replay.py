"""Experience of running environments: kept, sampled, corrected, saved, and turned into a data set."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_toolkit.batch import Batch
from wm_toolkit.data.rings import DEFAULT_MEMORY, Rings, load_array
from wm_toolkit.data.samplers import Mix, SumTree, places, recent, unit
from wm_toolkit.data.tables import FLAGS, ColumnSpec, specs_of
from wm_toolkit.data.trajectory import OBS, Trajectory
from wm_toolkit.errors import DataError
from wm_toolkit.spaces import Spaces

PRIORITIES = "priorities"


class ReplayBuffer:
    """Sequences of what N environments saw side by side (a `Source` and a sink).

    Every `add` writes one row of each environment: what it handed over, and the action taken in response.
    Sequences may run across the end of an episode into the next one, whose first row says `is_first`.
    With `online`, every fresh sequence of each environment is shown once before older ones are drawn.

    Args:
        spaces: observation and action spaces; actions are kept encoded.
        capacity: rows kept, of all environments together.
        streams: N.
        batch_size: B.
        length: T.
        context: rows that come with a sequence and lie before it, so that it can begin with a state that
            was kept: batches then hold context + T rows.
        seed: of the draws.
        mix: how sequences are drawn.
        online: show fresh sequences first.
        memory: bytes that may be held in memory; a larger buffer lies in files.
        folder: where; by default a temporary folder.
        extras: further columns, such as latents to start from.
        expected: rows that will be written, of all environments together, if that is known.
        copies: how often they will lie on the disk, those in checkpoints counted.

    Attributes:
        span: rows of one sequence with its context.

    Raises:
        DataError: if the capacity cannot hold a sequence.

    Example:
        >>> replay = ReplayBuffer(Spaces.of(envs), capacity=100_000, streams=envs.num_envs)
        >>> replay.add(obs, action, reward=r, is_first=first, terminated=te, truncated=tr)
        >>> batch = next(replay)
    """

    def __init__(
        self,
        spaces: Spaces,
        *,
        capacity: int,
        streams: int = 1,
        batch_size: int = 16,
        length: int = 64,
        context: int = 0,
        seed: int = 0,
        mix: Mix | None = None,
        online: bool = False,
        memory: int = DEFAULT_MEMORY,
        folder: str | Path | None = None,
        extras: Mapping[str, ColumnSpec] | None = None,
        expected: int | None = None,
        copies: int = 1,
    ) -> None:
        size = capacity // streams
        if size < length + context:
            raise DataError(
                f"capacity {capacity} of {streams} streams keeps {size} rows of each, fewer than the "
                f"{length + context} of a sequence; keep more, or show shorter ones"
            )
        self.spaces, self.batch_size = spaces, batch_size
        self.length, self.context, self.span = length, context, length + context
        self.mix, self.online, self.extras = mix or Mix(), online, dict(extras or {})
        specs = {**specs_of(spaces), **self.extras}
        rows = None if expected is None else -(-expected // streams)
        where: dict[str, Any] = {"memory": memory, "folder": folder, "copies": copies}
        self.rings = Rings(specs, streams=streams, size=size, expected=rows, **where)
        self.rng = np.random.default_rng(seed)
        self.fresh = np.zeros(streams, np.int64)  # first row of each stream that was never shown
        self.tree = SumTree(streams * size) if self.mix.priority else None
        self.highest = 1.0

    def __len__(self) -> int:
        """Rows kept, of all environments together."""
        return len(self.rings) * self.rings.streams

    # -- writing -----------------------------------------------------------------------------------
    def add(
        self,
        obs: Mapping[str, Any],
        action: Any,
        *,
        reward: Any,
        is_first: Any,
        terminated: Any,
        truncated: Any,
        **extras: Any,
    ) -> None:
        """Write one row of every environment.

        Args:
            obs: [N, ...] per key.
            action: [N, A] encoded, taken in response; any where the row is an episode's last.
            reward: [N] that arrived with `obs`; 0 on an episode's first row.
            is_first: [N].
            terminated: [N] the episode ended in `obs` for a reason of the task.
            truncated: [N] it was cut there from outside.
            extras: [N, ...] further columns.

        Raises:
            DataError: naming a column that does not fit.
        """
        rows = {OBS + key: value for key, value in obs.items()}
        flags = dict(zip(FLAGS, (is_first, terminated, truncated), strict=True))
        self.rings.add({**rows, "action": action, "reward": reward, **flags, **extras})
        if self.tree is not None:
            self._admit(self.tree)

    def _admit(self, tree: SumTree) -> None:
        """Give the start that has just become possible the highest priority, and the lost one none."""
        number, streams = self.rings.written - self.span, np.arange(self.rings.streams)
        newest = (self.rings.written - 1) % self.rings.size  # where the lost one began
        tree.set(streams * self.rings.size + newest, 0.0)
        if number >= self.rings.oldest:
            tree.set(streams * self.rings.size + number % self.rings.size, self.highest)

    # -- reading -----------------------------------------------------------------------------------
    @property
    def starts(self) -> int:
        """Possible first rows of a sequence in each stream."""
        return max(0, len(self.rings) - self.span + 1)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """[B, context + T]; `index` is what `write` and `prioritise` take.

        Raises:
            DataError: while there are too few rows for one sequence.
        """
        if self.rings.written < self.span:
            raise DataError(
                f"{len(self.rings)} rows of each environment are fewer than the {self.span} of a "
                "sequence; collect more before training"
            )
        if not (self.online and self._waiting()):
            return self.gather(*self._draw(self.batch_size))
        fresh = self._online()
        drawn = self._draw(self.batch_size - len(fresh[0]))
        return self.gather(*map(np.concatenate, zip(fresh, drawn, strict=True)))

    def gather(self, stream: np.ndarray, start: np.ndarray) -> Batch:
        """Sequences [B, context + T] of streams [B] that begin at rows [B]."""
        rows = self.rings.sequences(stream, start, self.span)
        read = {name: torch.from_numpy(value) for name, value in rows.items()}
        return Batch.unchecked(
            obs={key: read[OBS + key] for key in self.spaces.observation},
            action=read["action"],
            is_first=read["is_first"],
            reward=read["reward"],
            terminated=read["terminated"],
            truncated=read["truncated"],
            mask=None,
            weight=None,
            index=torch.from_numpy(start * self.rings.streams + stream),
            extras={name: read[name] for name in self.extras},
        )

    def _waiting(self) -> bool:
        """Whether a fresh sequence is to be shown."""
        return bool(self.fresh.min() <= self.rings.written - self.span)

    def _online(self) -> tuple[np.ndarray, np.ndarray]:
        """Streams and first rows of fresh sequences, at most a batch of them, oldest first."""
        self.fresh = np.maximum(self.fresh, self.rings.oldest)
        ready = self.rings.written - self.context - self.fresh
        waiting = np.maximum(0, ready) // self.length
        stream = np.repeat(np.arange(self.rings.streams), waiting)
        turn = np.arange(len(stream)) - np.repeat(np.cumsum(waiting) - waiting, waiting)
        start = self.fresh[stream] + turn * self.length
        first = np.argsort(start, kind="stable")[: self.batch_size]
        np.add.at(self.fresh, stream[first], self.length)
        return stream[first], start[first]

    def _draw(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Streams and first rows [count] by the mixture."""
        chance, stream, start = places(self.rng, count, self.rings.streams, self.starts)
        start += self.rings.oldest
        if self.mix.uniform < 1:
            self._redraw(unit(chance), stream, start)
        return stream, self._finished(stream, start) if self.mix.ends else start

    def _redraw(self, kind: np.ndarray, stream: np.ndarray, start: np.ndarray) -> None:
        """Draw anew, in place, those that `kind` [B] in [0, 1) leaves to recency or priority."""
        late = kind >= self.mix.uniform + self.mix.priority
        if late.any():
            age = recent(self.rng, int(late.sum()), self.starts, self.mix.decay)
            start[late] = self.rings.written - self.span - age
        chosen = (kind >= self.mix.uniform) & ~late
        if self.tree is not None and chosen.any():
            leaf = self.tree.find(self.rng.random(int(chosen.sum())))
            stream[chosen], slot = np.divmod(leaf, self.rings.size)
            ahead = (slot - self.rings.oldest) % self.rings.size
            start[chosen] = self.rings.oldest + ahead

    def _finished(self, stream: np.ndarray, start: np.ndarray) -> np.ndarray:
        """First rows [B], moved back where an episode ends within the sequence, to end with it."""
        number = start[:, None] + np.arange(self.context + 1, self.span)
        begins = self.rings.read("is_first", stream, number)
        behind = np.where(begins.any(1), self.length - 1 - begins.argmax(1), 0)
        return np.maximum(start - behind, self.rings.oldest)

    # -- correcting --------------------------------------------------------------------------------
    def write(self, index: Tensor, values: Mapping[str, Tensor]) -> None:
        """Overwrite extra columns of sequences that were drawn, such as latents made anew.

        Args:
            index: [B] of the batch; rows that were overwritten since are left alone.
            values: [B, T, ...] per column; rows of the context stay as they are.

        Raises:
            DataError: naming a column whose values are of another shape.
        """
        start, stream = np.divmod(index.numpy(), self.rings.streams)
        for name, value in values.items():
            expected = (len(index), self.length, *self.rings.specs[name].shape)
            if value.shape != expected:
                raise DataError(f"{name} has shape {tuple(value.shape)}, expected {expected}")
            self.rings.write(name, stream, start + self.context, value.detach().cpu().numpy())

    def prioritise(self, index: Tensor, priority: Tensor) -> None:
        """Set the priorities [B], above 0, of sequences that were drawn.

        Raises:
            DataError: if the buffer does not draw by priority, or one is not above 0.
        """
        if self.tree is None:
            raise DataError("this buffer draws without priorities; give it mix=Mix(priority=...)")
        weight = priority.detach().cpu().double().numpy() ** self.mix.exponent
        if not (np.isfinite(weight).all() and (weight > 0).all()):
            raise DataError(f"priorities must be finite and above 0, got {priority.tolist()}")
        start, stream = np.divmod(index.numpy(), self.rings.streams)
        kept = start >= self.rings.oldest
        leaf = stream * self.rings.size + start % self.rings.size
        self.tree.set(leaf[kept], weight[kept])
        self.highest = max(self.highest, float(weight.max()))

    # -- from and to data sets ---------------------------------------------------------------------
    def fill(self, episodes: Iterable[Mapping[str, np.ndarray]], rows: int) -> None:
        """Write recorded episodes into an empty buffer, one behind the other, shared out over the streams.

        Streams are of equal length, so some end in the middle of an episode: the row there counts as
        truncated, the next stream's first as a beginning. What does not fit is left out, oldest first.

        Args:
            episodes: columns of every episode in the row convention, with environment actions, as
                `TrajectoryDataset.rows` gives them.
            rows: of all of them together.

        Raises:
            DataError: if the buffer is not empty, or the episodes lack a column.
        """
        if self.rings.written:
            raise DataError(
                f"only an empty buffer can be filled, this one holds {len(self):,} rows"
            )
        streams = self.rings.streams
        share = min(self.rings.size, rows // streams)
        self.rings.require_room(share)
        self.rings.written = share
        # Of the next row in the line of all; before 0 it is left out.
        place = share * streams - rows
        for episode in episodes:
            columns = self._columns(episode)
            stop = place + len(columns["is_first"])
            for stream in range(max(0, place) // share, -(-max(0, stop) // share)):
                low = max(place, stream * share)
                part = slice(low - place, min(stop, (stream + 1) * share) - place)
                self._put(
                    stream, low - stream * share, {n: v[part] for n, v in columns.items()}, share
                )
            place = stop
        self.fresh[:] = share
        if self.tree is not None:
            slots = np.arange(streams)[:, None] * self.rings.size + np.arange(self.starts)
            self.tree.set(slots.ravel(), self.highest)

    def _columns(self, episode: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All columns of one recorded episode; extra ones it lacks are 0."""
        length = len(episode["action"])
        # Copied, as what is mapped from a file cannot be written, of which torch warns.
        action = self.spaces.encode_action(np.array(episode["action"])).numpy()
        action[-1] = 0.0  # a filler stands there
        first = np.arange(length) == 0
        found = {**episode, "action": action, "is_first": first}
        for name, spec in self.extras.items():
            found.setdefault(name, np.zeros((length, *spec.shape), spec.dtype))
        missing = sorted(self.rings.specs.keys() - found.keys())
        if missing:
            raise DataError(
                f"recorded episodes have columns {sorted(episode)} and lack {', '.join(missing)}, which "
                "this buffer keeps"
            )
        return {name: np.asarray(found[name]) for name in self.rings.specs}

    def _put(self, stream: int, first: int, rows: Mapping[str, np.ndarray], share: int) -> None:
        """Rows of one episode from row `first` of a stream of `share` rows on."""
        flags = {name: rows[name].copy() for name in ("is_first", "truncated")}
        flags["is_first"][0] |= first == 0
        if first + len(flags["truncated"]) == share:
            flags["truncated"][-1] |= not rows["terminated"][-1]
        for name, value in {**rows, **flags}.items():
            self.rings.write(name, np.array([stream]), np.array([first]), value[None])

    # -- keeping -----------------------------------------------------------------------------------
    def save(self, folder: str | Path, previous: str | Path | None = None) -> None:
        """Write everything an exact resume needs into a folder.

        Args:
            folder: where to.
            previous: where it was saved to before, if it still lies there: what has not changed since is
                linked, not written again.
        """
        about = {
            "spaces": self.spaces.to_dict(),
            "rng": self.rng.bit_generator.state,
            "fresh": self.fresh.tolist(),
            "highest": self.highest,
        }
        arrays = {} if self.tree is None else {PRIORITIES: self.tree.weights}
        self.rings.save(folder, about, previous, arrays)

    def load(self, folder: str | Path) -> None:
        """Go on where `save` stopped.

        Raises:
            CheckpointError: if the folder is damaged or of another layout.
        """
        about = self.rings.load(folder)
        self.rng.bit_generator.state = about["rng"]
        self.fresh = np.asarray(about["fresh"], np.int64)
        self.highest = float(about["highest"])
        if self.tree is not None:
            self.tree.weights = load_array(folder, PRIORITIES)

    def trajectories(self) -> Iterator[Trajectory]:
        """Every whole or begun episode that is kept, with environment actions: a data set's content.

        The oldest episode of a stream may have lost its beginning, the newest not be over: it counts as
        truncated.
        """
        names = [name for name in self.rings.specs if name not in self.extras]
        for stream, first, stop in self._episodes():
            number = np.arange(first, stop)[None]
            rows = {name: self.rings.read(name, np.array([stream]), number)[0] for name in names}
            yield self._episode(rows)

    @property
    def num_episodes(self) -> int:
        """How many `trajectories` there are."""
        return sum(1 for _ in self._episodes())

    def _episodes(self) -> Iterator[tuple[int, int, int]]:
        """Stream, first row and the row behind the last of every episode with a step in it."""
        number = np.arange(self.rings.oldest, self.rings.written)
        for stream in range(self.rings.streams):
            begins = self.rings.read("is_first", np.array([stream]), number[None])[0]
            bounds = np.unique([self.rings.oldest, *number[begins], self.rings.written])
            for first, stop in itertools.pairwise(bounds.tolist()):
                if stop - first > 1:
                    yield stream, first, stop

    def _episode(self, rows: Mapping[str, np.ndarray]) -> Trajectory:
        terminated, truncated = rows["terminated"][1:].copy(), rows["truncated"][1:].copy()
        truncated[-1] |= not terminated[-1]
        action = self.spaces.decode_action(torch.from_numpy(rows["action"][:-1]))
        return Trajectory(
            {n.removeprefix(OBS): v for n, v in rows.items() if n.startswith(OBS)},
            np.asarray(action),
            rows["reward"][1:],
            terminated,
            truncated,
        )
