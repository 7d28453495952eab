"""What members are worth in a real environment: a few episodes at a time, with the same results."""

from __future__ import annotations

import gc

import pytest
import torch

from wm_toolkit.agents.fitness import EnvFitness
from wm_toolkit.batch import Batch
from wm_toolkit.envs.dodge import DodgeVector
from wm_toolkit.errors import ConfigError
from wm_toolkit.heads.controller import Controller
from wm_toolkit.models.mdn_rnn import MDNRNN
from wm_toolkit.spaces import Spaces

NO_BATCH = Batch({}, torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.bool))


class Watched(DodgeVector):
    """Notes how many rows were opened, reset with which seeds, and closed."""

    opened: list[Watched]

    def __init__(self, rows: int) -> None:
        super().__init__(rows, max_episode_steps=30)
        self.seeds, self.closed_times = [], 0
        self.opened.append(self)

    def reset(self, *, seed=None, options=None):
        assert options is None
        self.seeds.append(list(seed))
        return super().reset(seed=seed, options=options)

    def close_extras(self, **kwargs):
        self.closed_times += 1


@pytest.fixture
def envs(monkeypatch) -> list[Watched]:
    found: list[Watched] = []
    monkeypatch.setattr(Watched, "opened", found, raising=False)
    return found


@pytest.fixture
def model() -> MDNRNN:
    """Its features are mostly the noise of z, so that what a member does hangs on it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = MDNRNN(Spaces.of(DodgeVector(1)), latent=4, width=6, depth=2, choices="level").eval()
        made.heads["policy"] = Controller(made.spaces, made.features_width, squash="level")
    return made


@pytest.mark.parametrize("group", [1, 3, 7])
def test_a_members_worth_does_not_depend_on_how_many_play_at_once(model, envs, rng, group):
    members = 3 * torch.randn(5, 11, generator=rng)
    together = EnvFitness(model, Watched, episodes=3, group=100)
    apart = EnvFitness(model, Watched, episodes=3, group=group)
    worth = together(members, NO_BATCH, seed=1)
    assert torch.equal(apart(members, NO_BATCH, seed=1), worth)
    assert worth.unique().numel() > 2
    assert [env.num_envs for env in envs] == [15, group]
    assert (apart.steps, apart.played) == (together.steps, together.played)


def test_steps_and_episodes_of_all_members_are_counted(model, envs, rng):
    fitness = EnvFitness(model, Watched, episodes=1, group=4)
    members = 3 * torch.randn(6, 11, generator=rng)
    worth = torch.stack([fitness(members, NO_BATCH, seed=seed) for seed in (1, 2)])
    hit = worth < 30  # the step of the hit pays nothing, every other one pays 1
    assert hit.any()
    assert (fitness.steps, fitness.played) == (int((worth + hit).sum()), 12)


def test_the_same_environments_play_all_groups_of_all_generations(model, envs, rng):
    fitness = EnvFitness(model, Watched, episodes=2, group=3)
    members = torch.randn(4, 11, generator=rng)
    for _ in range(2):
        fitness(members, NO_BATCH, seed=5)
    fitness(members[:1], NO_BATCH, seed=6)
    (only,) = envs
    a, b = only.seeds[0][:2]
    rounds = [[a, b, a], [b, a, b], [a, b, b]]
    assert only.seeds[:6] == rounds * 2
    c, d = only.seeds[6][:2]
    assert only.seeds[6:] == [[c, d, d]]
    assert len({a, b, c, d}) == 4


def test_more_environments_are_opened_only_if_too_few_are_open(model, envs, rng):
    fitness = EnvFitness(model, Watched, episodes=1, group=3)
    members = torch.randn(5, 11, generator=rng)
    for count in (2, 5, 3):
        fitness(members[:count], NO_BATCH, seed=0)
    assert [(env.num_envs, env.closed_times) for env in envs] == [(2, 1), (3, 0)]


def test_environments_are_closed_when_asked_and_opened_again_when_needed(model, envs, rng):
    fitness, members = EnvFitness(model, Watched, episodes=2), torch.randn(2, 11, generator=rng)
    fitness.close()
    worth = fitness(members, NO_BATCH, seed=0)
    fitness.close()
    fitness.close()
    assert torch.equal(fitness(members, NO_BATCH, seed=0), worth)
    assert [env.closed_times for env in envs] == [1, 0]


def test_nobody_leaves_environments_open_behind(model, envs, rng):
    fitness = EnvFitness(model, Watched, episodes=2)
    fitness(torch.randn(2, 11, generator=rng), NO_BATCH, seed=0)
    del fitness
    gc.collect()
    assert [env.closed_times for env in envs] == [1]


def test_environments_that_do_not_fit_the_model_are_closed(model, envs):
    class Other(Watched):
        def __init__(self, rows: int) -> None:
            super().__init__(rows)
            self.single_observation_space = Spaces.of(DodgeVector(1, size=80)).observation["image"]

    fitness = EnvFitness(model, Other)
    with pytest.raises(ValueError, match=r"\(80, 80, 3\)"):
        fitness(torch.zeros(2, 11), NO_BATCH, seed=0)
    del fitness
    gc.collect()
    assert [env.closed_times for env in envs] == [1]


def test_a_group_of_nobody_is_refused(model):
    with pytest.raises(ConfigError, match="group 0"):
        EnvFitness(model, Watched, group=0)
