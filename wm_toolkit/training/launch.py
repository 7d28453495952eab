"""Starts a function in several processes that train together, and never in fewer than asked."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch.multiprocessing.spawn import start_processes

from wm_toolkit.errors import ConfigError
from wm_toolkit.training.config import Precision


def launch(
    fn: Callable[..., Any], processes: int, *args: Any, device: Literal["any", "cpu"] = "any"
) -> None:
    """Call `fn(*args)` once in each of `processes` processes on this machine and wait for them.

    Processes are forked, so `fn` may be any function; they work on one GPU each, or on the CPU over
    gloo where there is none or `device` is "cpu". Under `torchrun` the processes exist already and `fn`
    is called directly.

    Raises:
        ConfigError: if fewer processes would run than asked.
    """
    if "WORLD_SIZE" in os.environ:
        _refuse_fewer(int(os.environ["WORLD_SIZE"]), processes)
        _call(fn, args)
        return
    if processes == 1:
        fn(*args)
        return
    cpu = device == "cpu" or _on_cpu()
    devices = torch.cuda.device_count()
    if devices and not cpu:
        _refuse_fewer(devices, processes, "GPUs")
    if torch.cuda.is_initialized():
        raise ConfigError(
            "the GPU is in use by this process already, so it cannot be shared with forked ones; call "
            "launch before anything touches the GPU, or start with `torchrun --nproc_per_node "
            f"{processes}`"
        )
    work = (fn, args, processes, _free_port(), cpu)
    start_processes(_worker, work, nprocs=processes, start_method="fork")


def world() -> tuple[int, int]:
    """(rank, processes) of this process in the run it belongs to; (0, 1) alone."""
    if not PartialState._shared_state and "WORLD_SIZE" not in os.environ:
        return 0, 1
    state = _process_state()
    return state.process_index, state.num_processes


def make_accelerator(precision: Precision, processes: int) -> Accelerator:
    """The accelerator of a run.

    Raises:
        ConfigError: if another number of processes is running, or the device lacks the precision.
    """
    # accelerate remembers the precision of the first accelerator of a process for ever; a notebook or
    # a test that trains twice must be able to choose anew.
    AcceleratorState._reset_state()
    if precision == "fp16" and _on_cpu():
        raise ConfigError("precision 'fp16' needs a GPU; use 'bf16' or 'no' on a CPU")
    accelerator = Accelerator(mixed_precision=precision, cpu=_on_cpu())
    _refuse_fewer(accelerator.num_processes, processes)
    return accelerator


def _worker(
    rank: int,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    processes: int,
    port: int,
    cpu: bool,
) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    if cpu:
        # Without these gloo looks for a route to the host's name, and processes fight for cores.
        os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        os.environ["ACCELERATE_USE_CPU"] = "true"
        torch.set_num_threads(1)
    _refuse_fewer(_process_state().num_processes, processes)
    _call(fn, args)


def _call(fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Run one process's part, and leave the group of processes properly."""
    try:
        fn(*args)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _on_cpu() -> bool:
    wanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return wanted or not torch.accelerator.is_available()


def _process_state() -> PartialState:
    # accelerate runs one process on a CPU, whatever it was asked for, unless told so by this argument.
    return PartialState(cpu=_on_cpu())


def _refuse_fewer(found: int, asked: int, what: str = "processes") -> None:
    if (what == "processes" and found != asked) or found < asked:
        raise ConfigError(
            f"{asked} processes were asked for, but there are {found} {what}. Set processes to "
            f"{found}, or start the run with `torchrun --nproc_per_node {asked}`"
        )


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
