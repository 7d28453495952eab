import io

from rich.console import Console
from training_toys import ToySource, toy_agent, toy_batch

from wm_toolkit.training.config import TrainConfig
from wm_toolkit.training.hooks import CollapseMonitor
from wm_toolkit.training.progress import ProgressBar
from wm_toolkit.training.trainer import Trainer


def test_the_bar_shows_losses_and_what_monitors_measured(tmp_path, rng):
    drawn = io.StringIO()
    bar = ProgressBar(Console(file=drawn, width=200, force_terminal=True), every=2)
    monitor = CollapseMonitor(toy_batch(rng), ("vector",), every=5)
    config = TrainConfig(updates=6, batch_size=8)
    Trainer(toy_agent(), ToySource(), run_dir=tmp_path, config=config, hooks=[monitor, bar]).train()
    text = drawn.getvalue()
    assert "6/6" in text
    for shown in ("prediction", "size", "spread", "effective_rank", "probe_r2/vector"):
        assert shown in text
