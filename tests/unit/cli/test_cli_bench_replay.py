"""What `wm bench replay` compares: batches of a replay with a copy of as many bytes."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest

from wm_toolkit.cli.benchmarks import replay as bench
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces


@pytest.mark.parametrize("latents", [{}, bench.LATENTS])
def test_every_content_is_measured_beside_its_copies(latents, monkeypatch):
    monkeypatch.setattr(bench, "MANY", 1)
    content = bench.Content(gym.spaces.Box(-1.0, 1.0, (3,), np.float32), 1200, latents)
    monkeypatch.setattr(bench, "CONTENTS", {"three numbers": content})
    (case,) = bench.run(quick=True)
    assert case.case == "16 x 64 rows of three numbers"
    assert case.ours > 0
    assert case.floor is not None
    assert case.floor > 0
    assert "times the floor" in case.note


def test_nothing_is_fresh_in_the_measured_replay_and_every_row_was_written():
    content = bench.CONTENTS["vectors of 24 with the latents of Dreamer V3 size1m"]
    replay = bench.full(dataclasses.replace(content, rows=400))
    assert replay.rings.written > replay.rings.size == 100
    assert not len(replay._online()[0])
    batch = next(replay)
    assert {name: rows.shape for name, rows in batch.extras.items()} == {
        "deter": (16, 65, 512),
        "stoch": (16, 65, 32),
    }
    assert all((leaf[:, 1:] == 1).all() for leaf in (*batch.obs.values(), *batch.extras.values()))


def test_the_stored_latents_are_those_of_the_named_preset():
    content = bench.CONTENTS["vectors of 24 with the latents of Dreamer V3 size1m"]
    spaces = Spaces({"seen": content.seen}, gym.spaces.Box(-1.0, 1.0, (6,), np.float32))
    agent = build("dreamer_v3.size1m", spaces)
    assert agent.learner.program.latent_columns() == bench.LATENTS
