"""Lines to actors in processes of their own: on this machine, or wherever Ray has put them."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol

from wm_toolkit.errors import ActorError, require
from wm_toolkit.training.worker import ActorJob, Worker

log = logging.getLogger(__name__)

GRACE_SECONDS = 10
"""What an actor is given to close its environments."""


class Line(Protocol):
    """Calls methods of a `Worker` elsewhere: every question is answered before the next."""

    def ask(self, method: str, *args: Any) -> None:
        """Call a method, without waiting for it."""
        ...

    def answer(self) -> Any:
        """What it returned.

        Raises:
            ActorError: if it raised, or its process died; with its traceback, if there is one.
        """
        ...

    def close(self) -> None:
        """End the actor and its environments."""
        ...


@contextmanager
def open_lines(kind: Literal["process", "ray"], jobs: Sequence[ActorJob]) -> Iterator[list[Line]]:
    """Start an actor for each job; behind the block, however it ends, none is left.

    Args:
        kind: "process" starts processes on this machine, "ray" actors in the Ray cluster this process is
            connected to, or in one of this machine alone that is started and shut down for it.
        jobs: what each of them does.

    Raises:
        MissingPackageError: if Ray is asked for and not installed.
    """
    with ExitStack() as stack:
        if kind == "ray":
            stack.enter_context(_cluster(len(jobs)))
        line = ProcessLine if kind == "process" else RayLine
        yield [stack.enter_context(closing(line(job))) for job in jobs]


class ProcessLine:
    """An actor in a process on this machine, at the other end of a pipe.

    Args:
        job: what it does.
    """

    def __init__(self, job: ActorJob) -> None:
        self.name = job.name
        # A forked process would inherit threads that hold locks.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, job), name=f"wm-actor-{job.number}", daemon=True
        )
        self.process.start()
        theirs.close()  # now a dead actor is heard of

    def ask(self, method: str, *args: Any) -> None:
        """Call a method, without waiting for it."""
        with suppress(OSError):  # of a dead process; what it died of comes as the answer
            self._pipe.send((method, args))

    def answer(self) -> Any:
        """What it returned.

        Raises:
            ActorError: as `Line.answer`.
        """
        try:
            fine, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join(GRACE_SECONDS)
            raise ActorError(
                f"{self.name} died with exit code {self.process.exitcode}; out of memory, or a crash of "
                "its environment?"
            ) from error
        if not fine:
            raise ActorError(f"{self.name} failed:\n{value}")
        return value

    def close(self) -> None:
        """Hang up, which ends it; kill it if it does not."""
        self._pipe.close()
        self.process.join(GRACE_SECONDS)
        if self.process.exitcode is None:
            log.warning("%s does not end, so it is killed", self.name)
            self.process.kill()
            self.process.join()


def _serve(pipe: Connection, job: ActorJob) -> None:
    """The actor's process: answer until the learner hangs up or is gone."""
    # Ctrl-C reaches every process of a terminal; the learner says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with closing(Worker(job)) as worker:
            while (asked := _heard(pipe)) is not None:
                method, args = asked
                _say(pipe, True, getattr(worker, method)(*args))
    except Exception:  # whatever it is, the learner raises it
        _say(pipe, False, traceback.format_exc())


def _heard(pipe: Connection) -> tuple[str, tuple[Any, ...]] | None:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


def _say(pipe: Connection, fine: bool, value: Any) -> None:
    with suppress(OSError):  # nobody listens any more, which `_heard` will find
        pipe.send((fine, value))


class RayLine:
    """An actor of a Ray cluster.

    Args:
        job: what it does.
    """

    def __init__(self, job: ActorJob) -> None:
        self._ray = require("ray", "ray")
        self.name = job.name
        self._worker = self._ray.remote(Worker).remote(job)
        self._asked: Any = None

    def ask(self, method: str, *args: Any) -> None:
        """Call a method, without waiting for it."""
        self._asked = getattr(self._worker, method).remote(*args)

    def answer(self) -> Any:
        """What it returned.

        Raises:
            ActorError: as `Line.answer`.
        """
        try:
            return self._ray.get(self._asked)
        except self._ray.exceptions.RayError as error:
            raise ActorError(f"{self.name} failed:\n{error}") from error

    def close(self) -> None:
        """Ask it to close its environments, and end it."""
        with suppress(self._ray.exceptions.RayError):  # of one that is dead already, or too slow
            self._ray.get(self._worker.close.remote(), timeout=GRACE_SECONDS)
        self._ray.kill(self._worker)


@contextmanager
def _cluster(actors: int) -> Iterator[None]:
    """The cluster there is, or one of this machine with room for so many actors."""
    ray = require("ray", "ray")
    if ray.is_initialized():
        yield
        return
    ray.init(num_cpus=actors, include_dashboard=False)
    try:
        yield
    finally:
        ray.shutdown()
