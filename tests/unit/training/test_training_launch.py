import pytest
import torch
import torch.distributed as dist

from wm_toolkit.errors import ConfigError
from wm_toolkit.training.launch import launch, make_accelerator, world


def write_world(folder):
    rank, processes = world()
    (folder / str(rank)).write_text(f"{processes} {dist.get_world_size()} {dist.get_backend()}")


def fail(folder):
    raise ValueError(f"process {world()[0]} gave up")


def test_launch_runs_as_many_real_processes_as_asked(tmp_path):
    launch(write_world, 2, tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"0": "2 2 gloo", "1": "2 2 gloo"}


def test_processes_for_the_cpu_need_no_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="2 processes were asked for, but there are 1 GPUs"):
        launch(write_world, 2, tmp_path)
    launch(write_world, 2, tmp_path, device="cpu")
    assert {p.read_text() for p in tmp_path.iterdir()} == {"2 2 gloo"}


def test_an_error_in_a_process_reaches_the_caller(tmp_path):
    with pytest.raises(Exception, match="gave up"):
        launch(fail, 2, tmp_path)


def test_one_process_runs_here(tmp_path):
    seen = []
    launch(seen.append, 1, "here")
    assert seen == ["here"]
    assert world() == (0, 1)


def test_launch_refuses_fewer_processes_than_asked(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(ConfigError, match="2 processes were asked for, but there are 1"):
        launch(print, 2)


def test_a_run_refuses_fewer_processes_than_its_config_says():
    with pytest.raises(ConfigError, match="3 processes were asked for, but there are 1"):
        make_accelerator("no", 3)


def test_half_precision_on_a_cpu_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="needs a GPU"):
        make_accelerator("fp16", 1)
