"""CMA-ES: optima it must find, its exact resume, and what members are worth in dreams."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

pytest.importorskip("cma")

from wm_toolkit.agents.evolution import CMAES, EvolutionLearner
from wm_toolkit.agents.fitness import DreamFitness, EnvFitness, member_actions
from wm_toolkit.batch import Batch
from wm_toolkit.envs.dodge import DodgeVector
from wm_toolkit.envs.imagined import WorldModelVectorEnv
from wm_toolkit.errors import CheckpointError, ConfigError
from wm_toolkit.heads.controller import Controller
from wm_toolkit.models.mdn_rnn import MDNRNN
from wm_toolkit.planning.objective import Survival
from wm_toolkit.spaces import Spaces

BEST = torch.tensor([0.5, -1.0, 2.0, 0.0])
NO_BATCH = Batch({}, torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.bool))


def quadratic(members, batch, *, seed):
    """Best at BEST, with axes of very different steepness."""
    return -((members - BEST).square() * torch.tensor([1.0, 10.0, 100.0, 1.0])).sum(-1)


def learner(fitness=quadratic, **fields) -> EvolutionLearner:
    module = nn.Linear(4, 1, bias=False)
    nn.init.zeros_(module.weight)
    options = {"population": 12, "sigma": 0.5, "remeasure": 5} | fields
    return EvolutionLearner(module, module, fitness, **options)


def vector(made: EvolutionLearner) -> torch.Tensor:
    return parameters_to_vector(made.module.parameters())


# -- evolution ---------------------------------------------------------------------------------------
def test_evolution_finds_the_optimum_of_a_quadratic():
    made = learner()
    for _ in range(100):
        metrics = made.learn(NO_BATCH)
    torch.testing.assert_close(vector(made), BEST, atol=1e-2, rtol=0)
    assert made.champion == metrics["fitness/champion"]
    assert made.champion == pytest.approx(0, abs=1e-3)
    assert metrics["sigma"] < 0.1


def test_the_module_holds_the_mean_until_there_is_a_champion():
    made = learner(remeasure=3)
    made.learn(NO_BATCH)
    torch.testing.assert_close(vector(made), made.evolution.mean.float())
    assert made.champion is None
    made.learn(NO_BATCH)
    made.learn(NO_BATCH)
    assert made.champion == pytest.approx(
        quadratic(vector(made)[None], None, seed=0).item(), rel=1e-4
    )


def test_a_champion_is_replaced_only_by_a_better_one():
    luck = iter([0.0, 5.0, 0.0, 3.0, 0.0, 7.0])
    made = learner(
        lambda members, batch, *, seed: torch.full((len(members),), next(luck)), remeasure=1
    )
    held = []
    for _ in range(3):
        made.learn(NO_BATCH)
        held.append((made.champion, vector(made).clone()))
    assert [value for value, _ in held] == [5.0, 5.0, 7.0]
    assert torch.equal(held[0][1], held[1][1])
    assert not torch.equal(held[1][1], held[2][1])


def test_every_generation_and_every_remeasuring_has_chances_of_its_own():
    seeds = []

    def note(members, batch, *, seed):
        seeds.append(seed)
        return members.sum(-1)

    made = learner(note, remeasure=2)
    for _ in range(4):
        made.learn(NO_BATCH)
    assert len(seeds) == len(set(seeds)) == 6


def test_a_resumed_evolution_equals_an_uninterrupted_one():
    whole, half = learner(), learner()
    for _ in range(7):
        whole.learn(NO_BATCH)
        half.learn(NO_BATCH)
    resumed = learner()
    resumed.module.load_state_dict(half.module.state_dict())  # holds the champion, not the start
    resumed.load_state_dict(half.state_dict())
    for _ in range(4):
        one, two = whole.learn(NO_BATCH), resumed.learn(NO_BATCH)
        assert one == two
    assert torch.equal(vector(whole), vector(resumed))


def test_evolution_leaves_the_global_generators_alone():
    evolution = CMAES(torch.zeros(3), sigma=0.1, population=6)
    drawn = []
    for evolve in (False, True):
        np.random.seed(0)  # noqa: NPY002 (what must not be touched)
        if evolve:
            members = evolution.ask()
            evolution.tell(members, members.sum(-1))
        drawn.append(np.random.random())  # noqa: NPY002
    assert drawn[0] == drawn[1]


def test_the_same_seed_asks_for_the_same_members_and_another_one_does_not():
    one, two, other = (
        CMAES(torch.zeros(3), sigma=0.1, population=6, seed=s).ask() for s in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_an_evolution_of_another_size_is_not_continued():
    saved = learner()
    saved.learn(NO_BATCH)
    with pytest.raises(CheckpointError, match="12 members of 4 numbers, this one has 10"):
        learner(population=10).load_state_dict(saved.state_dict())


@pytest.mark.parametrize("field", [{"population": 3}, {"sigma": 0.0}, {"remeasure": 0}])
def test_numbers_out_of_range_are_refused(field):
    with pytest.raises(ConfigError, match=f"{next(iter(field))} "):
        learner(**field)


# -- fitness -----------------------------------------------------------------------------------------
@pytest.fixture
def model() -> MDNRNN:
    spaces = Spaces.of(DodgeVector(1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = MDNRNN(spaces, latent=4, width=6, depth=2, ending=True, choices="level").eval()
        made.heads["policy"] = Controller(spaces, made.features_width, squash="level")
        return made


def starts(rows: int, rng) -> Batch:
    image = torch.randint(0, 256, (rows, 1, 64, 64, 3), generator=rng, dtype=torch.uint8)
    return Batch({"image": image}, torch.zeros(rows, 1, 3), torch.ones(rows, 1, dtype=torch.bool))


def test_every_member_decides_with_its_own_parameters(model, rng):
    head = model.heads["policy"]
    members = torch.randn(3, 11, generator=rng)
    features = torch.randn(6, 10, generator=rng)
    together = member_actions(head, members, features)
    for member in range(3):
        torch.nn.utils.vector_to_parameters(members[member], head.parameters())
        rows = slice(2 * member, 2 * member + 2)
        torch.testing.assert_close(together[rows], head(features[rows]).mode)


def test_what_a_member_is_worth_does_not_depend_on_who_is_measured_beside_it(model, rng):
    """A batch of dreams equals the dreams one by one, where nothing is left to chance."""
    model.temperature = 1e-8
    model.encoder.log_variance.weight.data.zero_()
    model.encoder.log_variance.bias.data.fill_(-40.0)
    members, batch = torch.randn(4, 11, generator=rng), starts(3, rng)
    fitness = DreamFitness(model, Survival(), horizon=8, termination="likely")
    together = fitness(members, batch, seed=1)
    alone = torch.cat([fitness(member[None], batch, seed=1) for member in members])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert together.unique().numel() > 1


def test_a_dream_pays_the_chance_of_going_on_until_it_ends(model, rng):
    head = model.heads["continue"].head.net[-1]
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, np.log(3))  # goes on with a chance of 3/4, likelier than not
    likely = DreamFitness(model, Survival(), horizon=8, termination="likely")
    worth = likely(torch.zeros(4, 11), starts(3, rng), seed=1)
    assert worth.tolist() == pytest.approx([6.0] * 4, rel=1e-5)
    nn.init.constant_(head.bias, -0.01)
    assert likely(torch.zeros(4, 11), starts(3, rng), seed=1).tolist() == pytest.approx(
        [0.4975] * 4
    )


def test_an_ending_is_dreamt_when_the_done_logit_is_above_zero(model, rng):
    head = model.heads["continue"].head.net[-1]
    nn.init.zeros_(head.weight)
    options = {"model": model, "objective": Survival(), "starts": starts(2, rng), "horizon": 5}
    for going_on, ends in ((0.01, False), (-0.01, True)):
        nn.init.constant_(head.bias, going_on)
        envs = WorldModelVectorEnv(2, **options, termination="likely")
        envs.reset(seed=0)
        assert envs.step(np.ones(2, int))[2].tolist() == [ends] * 2


def test_real_episodes_are_the_same_for_all_members(model, rng):
    opened = []

    def open_envs(rows: int) -> gym.vector.VectorEnv:
        opened.append(rows)
        return DodgeVector(rows, max_episode_steps=40)

    fitness = EnvFitness(model, open_envs, episodes=3)
    members = torch.zeros(4, 11)
    members[2:, -1] = 3.0  # the bias: always to the right
    worth = fitness(members, NO_BATCH, seed=0)
    assert worth[0] == worth[1]
    assert worth[2] == worth[3]
    assert worth[0] != worth[2]
    assert torch.equal(fitness(members, NO_BATCH, seed=0), worth)
    assert opened == [12]
