"""The example that looks at dreams prints what it promises, and leaves its page behind."""

from __future__ import annotations

from test_examples import EXAMPLES, numbers, run

__all__ = ["run"]  # the fixture


def test_dreams_are_measured_entered_and_searched(run, tmp_path):
    assert (EXAMPLES / "12_dream_beside_reality.py").exists()
    said = run("12")
    for name in ("latent_error", "vector_error", "kl"):
        line = rf"{name} 15 steps ahead: ([\d.]+), repeating what was last seen ([\d.]+)"
        dream, copy = numbers(line, said)
        assert dream > 0
        assert copy > 0
    for where in ("dreamt", "filtered"):
        (error,) = numbers(rf"{where} states: squared error ([\d.]+), bias", said)
        assert error > 0
    assert numbers(r"random actions in the dream: (-?[\d.]+) in 12 steps", said)[0] < 0
    for planner in ("random", "CEM", "MPPI", "gradient"):
        assert numbers(rf"(?m)^{planner} plans: (-?[\d.]+)$", said)[0] < 0
    page = (tmp_path / "runs/dream/report.html").read_text()
    for title in ("Return", "Training", "Dream by horizon", "Calibration", "row by row"):
        assert title in page
