import io

from rich.console import Console
from training_toys import ToySource, toy_agent, toy_batch

from wm_toolkit.training import progress
from wm_toolkit.training.config import TrainConfig
from wm_toolkit.training.hooks import CollapseMonitor
from wm_toolkit.training.progress import ProgressBar, what_learns
from wm_toolkit.training.trainer import Trainer


def test_the_bar_shows_losses_and_what_monitors_measured(tmp_path, rng):
    drawn = io.StringIO()
    bar = ProgressBar(Console(file=drawn, width=200, force_terminal=True), every=2)
    monitor = CollapseMonitor(toy_batch(rng), ("vector",), every=5)
    config = TrainConfig(updates=6, batch_size=8)
    Trainer(toy_agent(), ToySource(), run_dir=tmp_path, config=config, hooks=[monitor, bar]).train()
    text = drawn.getvalue()
    assert "6/6" in text
    parameters = sum(p.numel() for p in toy_agent().model.parameters())
    assert f"{parameters:,} parameters on cpu, 6 updates, reading vector\n" in text.replace(
        "\r", ""
    )
    for shown in ("prediction", "size", "spread", "effective_rank", "probe_r2/vector"):
        assert shown in text


def test_a_model_too_large_for_a_cpu_is_told_with_the_preset_that_is_not(tmp_path, monkeypatch):
    agent = toy_agent()
    trainer = Trainer(agent, ToySource(), run_dir=tmp_path, config=TrainConfig(updates=6))
    monkeypatch.setattr(progress, "MANY", 1)
    agent.recipe = "dreamer_v3.size200m"
    assert what_learns(trainer).endswith("(dreamer_v3.nano is the preset for a CPU)")
    trainer.update = 4
    assert "going on after 4" in what_learns(trainer)
