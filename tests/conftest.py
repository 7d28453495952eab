"""Every test runs on one torch thread, seeded, without a display or a network."""

from __future__ import annotations

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator: the only source of randomness of a test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Prepared data sets of a test lie in its own folder, never in the user's cache."""
    monkeypatch.setenv("WM_TOOLKIT_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def heard_log():
    """The command line keeps the log to itself; tests behind one that ran it hear it again."""
    yield
    logging.getLogger("wm_toolkit").propagate = True


def pytest_collection_modifyitems(items):
    """The longest tests begin first, so that none of them is left to run alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("learning") is None)
