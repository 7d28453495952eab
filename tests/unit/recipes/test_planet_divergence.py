"""PlaNet's divergence has a weight of its own, as its released code has one."""

from __future__ import annotations

import pytest
from dreamer_toys import small_agent


@pytest.mark.parametrize("weight", [1.0, 0.03])
def test_planets_divergence_weighs_what_kl_scale_says_and_the_reward_what_its_own_does(weight):
    learner = small_agent("planet", kl_scale=weight, reward_scale=2.0).learner
    assert learner is not None
    assert dict(learner.scales) == {"reward": 2.0, "divergence": weight}  # type: ignore[attr-defined]
