"""A run may begin with the weights of another in which other parameters learnt."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from test_training_online import ENV, RECIPE, config, run

from wm_toolkit.agents.agent import Agent
from wm_toolkit.training import jobs
from wm_toolkit.training.hooks import Hook

__all__ = ["run"]  # the fixture


class Begun(Hook):
    """Keeps what a run begins with."""

    def before_training(self, trainer: Any) -> None:
        self.model = {k: v.clone() for k, v in trainer.agent.model.state_dict().items()}
        slow = trainer.learner.program.slow
        self.slow = {k: v.clone() for k, v in slow.state_dict().items()}
        self.updates = trainer.learner.updates


def test_a_frozen_model_comes_from_a_whole_run_and_a_whole_run_goes_on_from_it(run, tmp_path):
    for name, frozen, init in (("behaviour", True, run), ("all", False, tmp_path / "behaviour")):
        begun = Begun()
        options = {"env": ENV, "init": init, "hooks": [begun]}
        jobs.train(RECIPE, config(frozen_model=frozen), tmp_path / name, **options)
        known = Agent.from_pretrained(init).model
        assert all(torch.equal(v, begun.model[k]) for k, v in known.state_dict().items())
        critic = known.heads["value"].state_dict()
        assert all(torch.equal(v, begun.slow[k]) for k, v in critic.items()), (
            "nothing older is left"
        )
        assert begun.updates == 0, "the optimiser begins anew"


class Rates(Hook):
    """Keeps the learning rates that the optimiser begins with."""

    def after_update(self, trainer: Any, metrics: Any) -> dict[str, Any]:
        self.seen = [*getattr(self, "seen", []), metrics["learning_rate"]]
        return {}


def test_a_run_that_goes_on_from_another_has_the_learning_rate_it_was_given(run, tmp_path):
    rates, slower = Rates(), dataclasses.replace(config(), lr=1e-7, warmup=0)
    jobs.train(RECIPE, slower, tmp_path / "slow", env=ENV, init=run, hooks=[rates])
    assert set(rates.seen) == {1e-7}
