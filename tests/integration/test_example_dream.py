"""The example that looks at dreams prints what it promises, and leaves its page behind."""

from __future__ import annotations

from test_examples import EXAMPLES, numbers, run

__all__ = ["run"]  # the fixture


def test_dreams_are_measured_entered_and_searched(run, tmp_path):
    assert (EXAMPLES / "12_dream_beside_reality.py").exists()
    said = run("12")
    _, own, random = said.partition("page:")[0].split("episodes of")
    assert "the agent" in own
    assert "random play" in random
    for part in (own, random):
        for name in ("latent_error", "vector_error", "kl"):
            line = rf"{name}: ([\d.]+), repeating what was last seen ([\d.]+)"
            assert min(numbers(line, part)) > 0
        for where in ("dreamt", "filtered"):
            (error,) = numbers(rf"{where} states: squared error ([\d.]+), bias", part)
            assert error > 0
    assert numbers(r"random actions in the dream: (-?[\d.]+) in 12 steps", said)[0] < 0
    for planner in ("random", "CEM", "MPPI", "gradient"):
        assert numbers(rf"(?m)^{planner} plans: (-?[\d.]+)$", said)[0] < 0
    page = (tmp_path / "runs/dream/report.html").read_text()
    for title in ("Return", "Training", "Dream by horizon", "Calibration", "row by row"):
        assert title in page
