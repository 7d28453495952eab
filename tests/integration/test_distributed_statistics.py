"""SIGReg and batch norm over two processes are, in value and gradient, those of one with all the data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from wm_toolkit.losses.sigreg import SIGReg, sigreg
from wm_toolkit.nn.distributed import processes
from wm_toolkit.nn.norm import BatchNorm
from wm_toolkit.training.launch import launch, make_accelerator, world

ROWS, WIDTH = 12, 5
Results = dict[str, Tensor]


def share(rank: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [T, B / size, D] of this process, the weights [D, D] and directions [D, M] of all."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, ROWS, WIDTH, generator=rng) * 2 + 1
    weight = torch.randn(WIDTH, WIDTH, generator=rng)
    directions = torch.randn(WIDTH, 16, generator=rng)
    own = x[:, rank * ROWS // size : (rank + 1) * ROWS // size]
    return own, weight.requires_grad_(), directions / directions.norm(dim=0)


def averaged(grad: Tensor | None) -> Tensor:
    """A gradient as data-parallel training leaves it: the mean over processes."""
    assert grad is not None
    if processes() > 1:
        dist.all_reduce(grad)
    return grad / processes()


def measure_sigreg(rank: int, size: int, autocast: bool) -> Results:
    found: Results = {}
    for estimator in ("statistic", "unbiased"):
        x, weight, directions = share(rank, size)
        value = sigreg(x @ weight, directions, estimator=estimator)
        value.backward()
        found |= {f"{estimator}": value.detach(), f"{estimator} gradient": averaged(weight.grad)}
    # Every process draws directions of its own, and the first one's count.
    drawn = SIGReg(slices=8)(x @ weight, torch.Generator().manual_seed(rank))
    return found | {"drawn": drawn.detach()}


def measure_batch_norm(rank: int, size: int, autocast: bool) -> Results:
    x, weight, _ = share(rank, size)
    norm = BatchNorm(WIDTH)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = norm(x @ weight)
        (out.float().sigmoid() * torch.arange(WIDTH)).mean().backward()
    parts = [out.detach().float()]
    if size > 1:
        parts = [torch.empty_like(parts[0]) for _ in range(size)]
        dist.all_gather(parts, out.detach().float().contiguous())
    return {
        "value": torch.cat(parts, 1),
        "gradient": averaged(weight.grad),
        "gain": averaged(norm.weight.grad),
        **{name: buffer.clone().float() for name, buffer in norm.named_buffers()},
        "at evaluation": norm.eval()(torch.ones(1, WIDTH)).detach(),
    }


MEASURES = {"sigreg": measure_sigreg, "batch norm": measure_batch_norm}


def measure(folder: Path, what: str, size: int, autocast: bool) -> None:
    make_accelerator("no", size)
    rank, _ = world()
    found = MEASURES[what](rank, size, autocast)
    if rank == 0:
        torch.save(found, folder / f"{size}.pt")


def one_and_two(folder: Path, what: str, autocast: bool = False) -> tuple[Results, Results]:
    for size in (1, 2):
        launch(measure, size, folder, what, size, autocast)
    return torch.load(folder / "1.pt"), torch.load(folder / "2.pt")


@pytest.mark.parametrize("what", MEASURES)
def test_two_processes_equal_one(what, tmp_path):
    one, two = one_and_two(tmp_path, what)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert all(bool(value.any()) for value in one.values())


def test_two_processes_keep_batch_statistics_in_full_precision(tmp_path):
    one, two = one_and_two(tmp_path, "batch norm", autocast=True)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-6, msg=name)
    torch.testing.assert_close(two["value"], one["value"], rtol=1e-2, atol=1e-2)
