"""Frames of films by number, decoded from the nearest key frame on and not from the beginning.

A film stores most frames as differences to others, so a frame is reached by decoding from the key frame
before it. Which frame has which number is told from the time stamps of its packets, sorted: they are read
when the film is opened, without decoding anything. Frame counts and rates that a file claims are not
believed.

Films hold no checksums: damage that the decoder does not stumble over is not noticed.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from wm_toolkit.data.foreign import reading
from wm_toolkit.errors import require

NOWHERE = -1  # the decoder has to be led to a key frame first


class _Key(NamedTuple):
    """Where decoding can begin: the first frame it gives, and the time stamps to seek it by.

    Containers search by when a frame is shown or by when it is decoded.
    """

    number: int
    stamps: tuple[int, int]


class Film:
    """An opened film: its frames are numbered 0 ... len - 1 in the order in which they are shown.

    Frames that are asked for in rising order, in one call or in several, are decoded once each.

    Args:
        path: the file.
        column: of the data set, named in errors.
        episode: named in errors.

    Attributes:
        decoded: frames decoded since the film was opened.

    Raises:
        DataError: naming file and episode, if the film is damaged, cut off, or without time stamps.
        MissingPackageError: if PyAV is not installed.

    Example:
        >>> with Film(Path("obses/episode_000.mp4")) as film:
        ...     len(film), film.size, film.frames([40, 45, 50, 55]).shape
        (120, (224, 224), (4, 224, 224, 3))
    """

    def __init__(self, path: Path, *, column: str = "", episode: int | None = None) -> None:
        self.path, self.decoded, self._column = path, 0, column
        self._av: Any = require("av", "video")
        self._decoder: Iterator[Any] = iter(())
        self._stamps: list[int] = []
        self._next = NOWHERE  # number of the frame that the decoder delivers next
        with self._reading(episode):
            self._container = self._av.open(str(path))
            if not self._container.streams.video:
                raise ValueError("holds no pictures")
            self._stream = self._container.streams.video[0]
            self._stamps, self._keys = self._scan()
        self._number = {stamp: i for i, stamp in enumerate(self._stamps)}

    def __len__(self) -> int:
        return len(self._stamps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self._stream.codec_context.height, self._stream.codec_context.width

    @property
    def times(self) -> np.ndarray:
        """float64 [n] seconds from the first frame to every frame."""
        ticks = np.array(self._stamps, np.int64) - self._stamps[0]
        return ticks * float(self._stream.time_base)

    def frames(
        self, indices: Sequence[int] | np.ndarray, *, episode: int | None = None
    ) -> np.ndarray:
        """The frames of these numbers [n], in any order.

        Args:
            indices: from 0 on; repetitions are fine.
            episode: named in errors.

        Returns:
            uint8 [n, H, W, 3] RGB.

        Raises:
            DataError: naming file, episode and frame, if the film is too short or damaged there.
        """
        wanted = np.asarray(indices, np.int64).reshape(-1)
        found = np.empty((len(wanted), *self.size, 3), np.uint8)
        for number, places in _by_number(wanted):
            with self._reading(episode, number):
                found[places] = self._picture(number)
        return found

    def _picture(self, number: int) -> np.ndarray:
        """uint8 [H, W, 3] of one frame."""
        if not 0 <= number < len(self):
            raise ValueError(f"there are {len(self)} frames")
        before = self._keys[: bisect.bisect(self._keys, number, key=lambda key: key.number)]
        if not before[-1].number <= self._next <= number:
            self._seek(before.pop())
        frame = self._deliver(number)
        while frame is None and before:  # some films need more than one key frame to be whole again
            self._seek(before.pop())
            frame = self._deliver(number)
        if frame is None:
            raise ValueError("it, or one that it is a difference to, is missing or damaged")
        return self._pixels(frame)

    def _deliver(self, number: int) -> Any | None:
        """The frame of this number, or nothing if it, or one before, is not as it should be."""
        for frame in self._decoder:
            self.decoded += 1
            at = self._number.get(frame.pts, -1)
            if at < self._next:  # trimmed away, or it leans on what lies before the key frame
                continue
            if frame.is_corrupt or at > number:
                return None
            self._next = at + 1
            if at == number:
                return frame
        return None

    def _pixels(self, frame: Any) -> np.ndarray:
        if (frame.height, frame.width) != self.size:
            raise ValueError(f"it has {frame.height}x{frame.width} pixels, the film {self.size}")
        return frame.to_ndarray(format="rgb24")

    def _seek(self, wanted: _Key) -> None:
        """Let the decoder begin at a key frame, or at an earlier one where seeking misses it."""
        earlier = (key for key in reversed(self._keys) if key <= wanted)
        for stamp in itertools.chain.from_iterable(key.stamps for key in earlier):
            self._container.seek(stamp, stream=self._stream, backward=True)
            packets = self._container.demux(self._stream)
            first = next(packets)
            if first.is_keyframe and first.pts <= wanted.stamps[0]:
                self._next = bisect.bisect_left(self._stamps, first.pts)
                self._decoder = _decode(itertools.chain([first], packets))
                return
        raise ValueError("the key frame before it is not found")

    def _scan(self) -> tuple[list[int], list[_Key]]:
        """Time stamps of all frames in the order shown, and the key frames."""
        kind = self._container.format.name
        if kind == "avi" and self._stream.codec_context.has_b_frames:
            raise ValueError(
                "an AVI file does not say in which order frames are shown; make it an mp4"
            )
        if "mp4" in kind:
            _check_boxes(self.path)
        shown, stamps, seekable = 0, set(), []
        for packet in self._container.demux(self._stream):
            if packet.is_corrupt:
                raise ValueError(f"is cut off or damaged after {shown} frames")
            # What an editor has trimmed away is not shown, but frames may be differences to it.
            kept = packet.size > 0 and not packet.is_discard
            shown += kept
            if packet.pts is not None:
                stamps |= {packet.pts} if kept else set()
                dts = packet.pts if packet.dts is None else packet.dts
                seekable += [(packet.pts, dts)] if packet.is_keyframe else []
        if not shown or len(stamps) < shown:
            raise ValueError(f"{shown} frames have {len(stamps)} time stamps; make it an mp4")
        order = sorted(stamps)
        keys = sorted(_Key(bisect.bisect_left(order, both[0]), both) for both in seekable)
        if not keys or keys[0].number:
            raise ValueError("does not begin with a key frame")
        return order, keys

    @contextlib.contextmanager
    def _reading(self, episode: int | None, number: int | None = None) -> Iterator[None]:
        """Errors say which frame; after one, the decoder begins anew."""
        with reading(self.path, self._column, episode):
            try:
                yield
            except (self._av.FFmpegError, ValueError) as error:
                self._next = NOWHERE
                where = "" if number is None else f"frame {number}: "
                raise ValueError(f"{where}{error}") from error


def _by_number(wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Every number once, rising, and where it is wanted."""
    order = np.argsort(wanted, kind="stable")
    numbers, starts = np.unique(wanted[order], return_index=True)
    return zip(numbers.tolist(), np.split(order, starts[1:]), strict=False)


def _decode(packets: Iterable[Any]) -> Iterator[Any]:
    for packet in packets:
        yield from packet.decode()


def _check_boxes(path: Path) -> None:
    """An mp4 file is a row of boxes that begin with their size; what is cut off lacks a part of the last.

    The frames that are left in it cannot be told by number: later ones may lie before earlier ones.
    """
    place, end = 0, path.stat().st_size
    with path.open("rb") as file:
        while place < end:
            file.seek(place)
            head = file.read(16)
            size = int.from_bytes(head[:4], "big")
            if size == 1:  # too long for four bytes
                size = int.from_bytes(head[8:16], "big")
            elif size == 0:  # reaches to the end
                size = end - place
            if size < 8 or place + size > end:
                raise ValueError(f"is cut off: box {head[4:8]!r} at byte {place} is not all there")
            place += size
