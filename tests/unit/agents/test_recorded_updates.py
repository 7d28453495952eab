"""Updates that are recorded once and replayed equal those that are run anew."""

import dataclasses
import re
from collections.abc import Callable
from itertools import product

import pytest
import torch
from dreamer_toys import SMALL, SPACES, sequences
from tape import TapeRecorder
from torch import Tensor

from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.agents.recorded import Record, cuda_graph
from wm_toolkit.batch import Batch
from wm_toolkit.errors import ConfigError
from wm_toolkit.losses.reduce import reduce
from wm_toolkit.recipes.dreamer_v3 import DreamerV3Config
from wm_toolkit.registry import build
from wm_toolkit.training.optimizer import adamw
from wm_toolkit.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _unseen_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device that the host does not wait for."""
    monkeypatch.setattr(Batch, "restarts", lambda self: [True] * self.is_first.shape[1])


def agent_of(record: Record | None, name: str = "vector") -> Agent:
    """A small Dreamer V3 that starts with the same weights every time."""
    torch.manual_seed(0)
    config = DreamerV3Config(size=SMALL, lr=1e-3, warmup=4)
    agent = build("dreamer_v3", SPACES[name], config)
    learner = agent.learner
    assert isinstance(learner, ModelLearner)
    learner._record = record
    if (
        record is None
    ):  # rounds as what is recorded does; `LaProp` itself is compared in its own tests
        learner._ready()
        learner._count_on_device()
    return agent


def batches(name: str, count: int) -> list[Batch]:
    """Sequences with a row of context and stored states, in some of which an episode begins."""
    rng, found = torch.Generator().manual_seed(1), []
    for _ in range(count):
        batch = sequences(SPACES[name], rng, rows=3, length=5)
        batch.is_first[1, 3] = bool(torch.rand((), generator=rng) < 0.5)
        stored = {
            "deter": torch.randn(3, 5, 16, generator=rng).half(),
            "stoch": torch.randint(0, 3, (3, 5, 32), generator=rng, dtype=torch.uint8),
        }
        found.append(batch.replace(extras=stored))
    return found


def trained(agent: Agent, given: list[Batch]) -> list[dict[str, float]]:
    """The metrics of an update on every batch, and the sums of the states it made anew."""
    torch.manual_seed(2)
    found = []
    for batch in given:
        metrics = {name: float(value) for name, value in agent.learn(batch).items()}
        assert isinstance(agent.learner, ModelLearner)
        latents = agent.learner.program.latents
        assert latents is not None
        found.append(metrics | {name: float(value.sum()) for name, value in latents.items()})
    return found


def weights(agent: Agent) -> dict[str, Tensor]:
    learner = agent.learner
    assert isinstance(learner, ModelLearner)
    return learner.program.state_dict()


@pytest.mark.parametrize("name", ["vector", "several"])
def test_replayed_updates_equal_those_run_anew(name: str) -> None:
    given = batches(name, 8)
    plain, recorder = agent_of(None, name), TapeRecorder()
    replayed = agent_of(recorder, name)
    expected, found = trained(plain, given), trained(replayed, given)
    assert len(recorder.tapes) == 1
    for update, (theirs, mine) in enumerate(zip(expected, found, strict=True)):
        assert mine == theirs, update
    for key, value in weights(plain).items():
        assert torch.equal(weights(replayed)[key], value), key


def test_metrics_of_one_update_stay_when_the_next_one_comes() -> None:
    agent, (*first, last) = agent_of(TapeRecorder()), batches("vector", 6)
    torch.manual_seed(2)
    kept = [agent.learn(batch) for batch in first][-1]
    before = {name: float(value) for name, value in kept.items()}
    agent.learn(last)
    assert {name: float(value) for name, value in kept.items()} == before


def test_batches_of_another_layout_are_recorded_by_themselves() -> None:
    recorder = TapeRecorder()
    whole = batches("vector", 6)
    given = [*whole[:4], *(batch[:2] for batch in whole), *whole[4:]]
    agent, plain = agent_of(recorder), agent_of(None)
    assert trained(agent, given) == trained(plain, given)
    assert len(recorder.tapes) == 2
    for key, value in weights(plain).items():
        assert torch.equal(weights(agent)[key], value), key


@pytest.mark.parametrize("saved_by", [None, TapeRecorder()])
def test_a_run_goes_on_recorded_or_not_whichever_it_was_before(saved_by: Record | None) -> None:
    given = batches("vector", 12)
    whole, first = agent_of(None), agent_of(saved_by)
    loaded_by = None if saved_by is not None else TapeRecorder()
    second = agent_of(loaded_by)
    torch.manual_seed(2)
    for batch in given:
        whole.learn(batch)
    torch.manual_seed(2)
    for batch in given[:6]:
        first.learn(batch)
    assert first.learner is not None
    assert second.learner is not None
    second.model.load_state_dict(first.model.state_dict())
    second.learner.load_state_dict(first.learner.state_dict())
    for batch in given[6:]:
        second.learn(batch)
    for key, value in weights(whole).items():
        torch.testing.assert_close(weights(second)[key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("planet.nano", "image"),
        *product(("dreamer_v1.nano", "dreamer_v2.nano", "dreamer_v3.nano"), ("image", "several")),
    ],
)
def test_gradients_are_made_on_a_device_that_the_host_cannot_look_at(
    recipe: str, name: str
) -> None:
    """Tensors of the device "meta" have no numbers: whoever reads one, or mixes in one of the CPU, fails."""
    spaces = SPACES[name]
    learner = build(recipe, spaces).learner
    assert isinstance(learner, ModelLearner)
    program = learner.program.to("meta")
    batch = sequences(spaces, torch.Generator().manual_seed(0)).map(lambda x: x.to("meta"))
    total, metrics = reduce(program(batch), batch.valid, learner.scales)
    total.backward()
    assert {value.device.type for value in metrics.values()} == {"meta"}  # type: ignore[union-attr]
    untaught = [n for n, p in program.named_parameters() if p.requires_grad and p.grad is None]
    assert not untaught


@pytest.mark.parametrize("recipe", ["lewm.small"])
def test_gradients_from_images_never_make_the_host_wait(recipe: str) -> None:
    learner = build(recipe, SPACES["image"]).learner
    assert isinstance(learner, ModelLearner)
    learner._ready()
    batch = sequences(SPACES["image"], torch.Generator().manual_seed(0), length=4)
    recorder = TapeRecorder()
    recorder(lambda: torch.stack([*learner._backward(batch).values()]))  # type: ignore[arg-type]
    assert recorder.tapes[0].read == []


def learner_with(agent: Agent, **options: object) -> ModelLearner:
    arguments = {"optimizer": adamw(1e-3), "record": cuda_graph, **options}
    return ModelLearner(agent.model, **arguments)  # type: ignore[arg-type]


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        make()
    return str(caught.value)


def test_what_cannot_be_recorded_is_refused_before_the_first_update() -> None:
    agent = agent_of(None)
    pieces = learner_with(agent, accumulation=2)
    assert "accumulation=2" in refused(pieces._ready)
    rough = learner_with(agent, optimizer=lambda p: torch.optim.Rprop(p))
    rough._make_optimizer = lambda p: torch.optim.LBFGS(p)
    assert re.search("LBFGS cannot be recorded", refused(rough._ready))


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a CUDA device")
def test_without_a_cuda_device_the_option_is_refused(tmp_path) -> None:
    agent = agent_of(None)
    config = DreamerV3Config(size=SMALL)
    train = dataclasses.replace(config.train, cuda_graphs=True, precision="no")
    start = lambda: Trainer(agent, iter([]), run_dir=tmp_path, config=train)  # type: ignore[arg-type]  # noqa: E731
    assert "this run is on cpu" in refused(start)
    assert "there is none" in refused(lambda: cuda_graph(lambda: torch.zeros(())))
