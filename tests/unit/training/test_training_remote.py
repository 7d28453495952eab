"""Actors as one collector: what they are asked and when, whose rows go where, and what they are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from wm_toolkit.agents.actors import NoisyActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.errors import ActorError, ConfigError
from wm_toolkit.recipes.dreamer_v3 import DreamerV3Config, Size
from wm_toolkit.registry import build, recipe_config
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.experience import PIECE, Experience
from wm_toolkit.training.remote import RemoteCollectors, actor_jobs, beside
from wm_toolkit.training.worker import ActorJob, Copy, Worker, one_env, packed

RECIPE, ENV = "dreamer_v3.nano", "CartPole-v1"


class Here:
    """A line to a worker in this process, which notes what was asked."""

    def __init__(self, job: ActorJob) -> None:
        self.worker, self.asked = Worker(job), []
        self._pending: Any = None

    def ask(self, method: str, *args: Any) -> None:
        assert self._pending is None, "asked again before the answer was taken"
        self.asked.append((method, *args))
        self._pending = (method, args)

    def answer(self) -> Any:
        method, args = self._pending
        self._pending = None
        return getattr(self.worker, method)(*args)

    def close(self) -> None:
        self.worker.close()


def config(**changes: Any) -> DreamerV3Config:
    tiny = {
        "size": Size(deter=16, units=8, classes=3, depth=1, latents=2, groups=2),
        "envs": 3,
        "burst": 1,
        "actors": "process",
        "actor_processes": 2,
    }
    return recipe_config(RECIPE, **{**tiny, **changes})


def experience(*, ahead: bool, sync_every: int = 1, burst: int = 1, prefill: int = 24, **changes):
    """Three environments at two actors, six rows an update; the experience and the lines."""
    settings = config(**changes)
    spaces = Spaces.of(one_env(ENV, settings))
    torch.manual_seed(0)
    agent = build(RECIPE, spaces, settings)
    lines = [Here(job) for job in actor_jobs(RECIPE, settings, spaces, ENV)]
    collectors = RemoteCollectors(agent, lines, num_envs=3, sync_every=sync_every)
    assert isinstance(agent.learner, ModelLearner)
    columns = agent.learner.program.latent_columns()
    replay = ReplayBuffer(
        spaces, capacity=900, streams=3, batch_size=3, length=4, context=1, extras=columns
    )
    options = {"train_ratio": 2.0, "prefill": prefill, "burst": burst, "ahead": ahead}
    return Experience(collectors, replay, **options), lines


def questions(line: Here) -> list[tuple[int, bool, bool]]:
    """(steps, random, with weights) of every question for rows."""
    return [
        (steps, random, weights is not None)
        for method, steps, random, weights in (q for q in line.asked if q[0] == "collect")
    ]


def rows_of(source: Experience) -> dict[str, np.ndarray]:
    rings = source.replay.rings
    return {name: column[:, : len(rings)].copy() for name, column in rings.columns.items()}


def test_actors_share_the_environments_out_and_draw_apart():
    settings = config(envs=5)
    spaces = Spaces.of(one_env(ENV, settings))
    one, two = actor_jobs(RECIPE, settings, spaces, ENV)
    assert (one.rows, two.rows) == (range(3), range(3, 5))
    assert two.name == "actor 1 (environments 3 to 4 of 'CartPole-v1')"
    assert one.seed == settings.train.seed  # as of an agent that acts alone
    assert two.seed != one.seed
    assert actor_jobs(RECIPE, config(envs=2), spaces, ENV)[1].name.startswith(
        "actor 1 (environment 1 "
    )


def test_rows_lie_in_the_streams_of_the_environments_they_come_from():
    source, lines = experience(ahead=False)
    next(source)
    seen = rows_of(source)["obs/vector"]
    for stream in range(3):
        env = one_env(ENV, config(), stream)
        assert np.array_equal(seen[stream, 0], env.reset()[0])
    assert source.collector is not None
    assert source.collector.steps == sum(line.worker.collector.steps for line in lines)


def test_without_ahead_rows_are_asked_for_when_they_are_due_with_the_newest_weights():
    source, (line, _) = experience(ahead=False)
    for _ in range(3):
        next(source)
    assert questions(line) == [(8, True, True), (2, False, True), (2, False, True)]


def test_ahead_the_rows_of_the_next_update_are_asked_for_before_this_one():
    source, (line, _) = experience(ahead=True)
    next(source)
    assert questions(line) == [
        (8, True, True),
        (2, False, False),
    ]  # the same weights: no update yet
    assert source.rows == 24
    next(source)
    assert questions(line)[2:] == [(2, False, True)]
    assert source.rows == 30


def test_ahead_a_burst_is_asked_for_while_the_one_before_it_is_learnt_from():
    source, (line, _) = experience(ahead=True, burst=3)
    seen = []
    for _ in range(7):
        next(source)
        seen.append((source.rows, sum(steps for steps, _, _ in questions(line))))
    assert seen == [(24, 14)] * 3 + [(42, 20)] * 3 + [(60, 26)]


def test_a_long_prefill_is_asked_for_in_pieces():
    source, (line, _) = experience(ahead=False, prefill=3 * (PIECE + 5))
    next(source)
    assert questions(line) == [(PIECE, True, True), (5, True, False)]


def test_weights_are_sent_every_so_many_updates_and_are_those_of_the_learner():
    source, (line, other) = experience(ahead=True, sync_every=3)
    for update in range(8):
        next(source)
        with torch.no_grad():
            _agent(source).model.heads["policy"].get_parameter(
                next(n for n, _ in _agent(source).model.heads["policy"].named_parameters())
            ).fill_(update)
    sent = [weights for _, _, weights in questions(line)]
    assert sent == [True, False, False, False, True, False, False, True, False]
    name = next(n for n, _ in _agent(source).model.named_parameters() if "policy" in n)
    values = [load(q[3].weights)[name].flatten()[0].item() for q in other.asked if q[3] is not None]
    assert values[1:] == [2.0, 5.0]  # after three and six updates


def _agent(source: Experience) -> Agent:
    assert isinstance(source.collector, RemoteCollectors)
    return source.collector.agent


def test_what_falls_with_the_updates_falls_in_actors_too():
    settings = recipe_config(
        "dreamer_v1.discrete", deter=8, stoch=4, units=8, hidden=8, actors="process"
    )
    spaces = Spaces.of(one_env(ENV, settings))
    (job,) = actor_jobs("dreamer_v1.discrete", settings, spaces, ENV)
    worker, agent = Worker(job), build("dreamer_v1.discrete", spaces, settings)
    chance = worker.collector.agent.actor
    assert isinstance(agent.learner, ModelLearner)
    assert isinstance(chance, NoisyActor)
    for updates, expected in ((0, 0.4), (100_000, 0.25), (900_000, 0.1)):
        agent.learner.updates = updates
        worker.collect(1, False, Copy.of(agent))
        assert chance.random() == pytest.approx(expected)
    own, given = agent.model.state_dict(), worker.collector.agent.model.state_dict()
    assert all(torch.equal(own[name], given[name]) for name in own)
    worker.close()


@pytest.mark.parametrize("ahead", [False, True])
def test_a_resumed_source_goes_on_with_every_actor_in_its_episodes(tmp_path, ahead):
    whole, _ = experience(ahead=ahead, sync_every=4)
    for _ in range(6):
        next(whole)
    whole.save(tmp_path / "source")
    again, lines = experience(ahead=ahead, sync_every=4)
    again.load(tmp_path / "source")
    for _ in range(9):
        one, two = next(whole), next(again)
        assert torch.equal(one.obs["vector"], two.obs["vector"])
        assert torch.equal(one.action, two.action)
    assert questions(lines[0])[0][2]  # weights come first
    assert whole.progress() == again.progress()
    rows, others = rows_of(whole), rows_of(again)
    assert all(np.array_equal(rows[name], others[name]) for name in rows)


def test_episodes_of_all_actors_are_cut_where_those_of_one_cannot_be_repeated(tmp_path):
    source, lines = experience(ahead=False)
    next(source)
    lines[1].worker.collector.repeatable = False
    rows = source.rows
    source.save(tmp_path / "source")
    assert source.rows == rows + 3
    kept = rows_of(source)
    assert (kept["truncated"][:, -1] | kept["terminated"][:, -1] | kept["is_first"][:, -1]).all()
    assert [line.worker.collector.parts for line in lines] == [1, 1]


def test_an_actor_that_fails_ends_it(tmp_path):
    source, lines = experience(ahead=True)
    next(source)

    def fail() -> None:
        raise ActorError("actor 1 failed")

    lines[1].answer = fail
    with pytest.raises(ActorError, match="actor 1 failed"):
        next(source)


def test_rows_of_several_collectors_are_put_side_by_side():
    def part(rows: Sequence[float]) -> dict[str, Any]:
        column = np.asarray(rows)
        return {"obs": {"a": column[:, None]}, "reward": column}

    whole = beside([part([1.0, 2.0]), part([3.0])])
    assert whole["obs"]["a"].tolist() == [[1.0], [2.0], [3.0]]
    assert whole["reward"].tolist() == [1.0, 2.0, 3.0]


def test_weights_of_half_precision_and_shared_ones_can_be_sent():
    tensor = torch.arange(3.0).bfloat16()
    sent = load(packed({"a": tensor, "b": tensor}))
    assert sent["a"].dtype == torch.bfloat16
    assert torch.equal(sent["b"], tensor)


def test_actors_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="actor_processes is 4, but there are 3 environments"):
        config(actor_processes=4)
    with pytest.raises(ConfigError, match="actors is 'inline'"):
        config(actors="inline")
    with pytest.raises(ConfigError, match="vectorisation is 'async' and actors 'process'"):
        config(vectorisation="async")
    with pytest.raises(ConfigError, match="sync_every is 0"):
        config(sync_every=0)
