"""Two processes with half of every batch each train what one process with the whole batch trains."""

import json
import shutil
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_toys import ToySource, toy_agent

from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.agents.probe_learner import ProbeLearner
from wm_toolkit.heads.normal import NormalHead
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.training import seeding
from wm_toolkit.training.config import TrainConfig
from wm_toolkit.training.launch import launch, world
from wm_toolkit.training.optimizer import adamw
from wm_toolkit.training.trainer import Trainer

UPDATES = 20
LEWM_UPDATES = 5  # each update doubles the rounding differences of a random transformer


def train(folder, processes, options):
    rank, found = world()
    assert found == processes
    agent = toy_agent(**options)
    if "ema" in options:
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(rank)  # unequal heads, made equal at the start
            agent.model.heads["position"] = NormalHead(4, 3)
        probes = ProbeLearner(
            agent.model, {"position": lambda b: b.obs["vector"]}, optimizer=adamw(0.01)
        )
        fresh = toy_agent(**options).learner
        agent.learner = type(fresh)(
            agent.model, optimizer=adamw(0.01), clip=1.0, ema=options["ema"], probes=probes
        )
    config = TrainConfig(
        updates=UPDATES, batch_size=8, processes=processes, checkpoint_every=10, log_every=5
    )
    source = ToySource(rank=rank, processes=processes)
    evaluate = lambda agent: {"weight": float(agent.model.encoder.weight.detach().sum())}  # noqa: E731
    Trainer(agent, source, run_dir=folder, config=config, evaluate=evaluate).train()


def result(folder, updates=UPDATES):
    model = load_file(Path(folder, "checkpoints", f"update_{updates:08d}", "model.safetensors"))
    lines = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    return model, lines


@pytest.mark.parametrize(
    "options",
    [{}, {"norm": True, "statistic": True}, {"accumulation": 2}, {"ema": 0.9, "norm": True}],
    ids=["masked rows", "batch statistics", "accumulation", "average and probe"],
)
def test_two_processes_equal_one(tmp_path, options):
    launch(train, 1, tmp_path / "one", 1, options)
    launch(train, 2, tmp_path / "two", 2, options)
    (model, lines), (model2, lines2) = result(tmp_path / "one"), result(tmp_path / "two")
    for name in model:
        torch.testing.assert_close(model2[name], model[name], atol=1e-5, rtol=0, msg=name)
    assert [line["update"] for line in lines2] == [line["update"] for line in lines]
    for line, line2 in zip(lines, lines2, strict=True):
        for name in line.keys() - {"updates_per_second", "data_wait"}:
            assert line2[name] == pytest.approx(line[name], abs=1e-5), name


def train_lewm(folder, processes, pieces):
    """LeWorldModel, whose BatchNorm and SIGReg are statistics of the whole batch."""
    rank, _ = world()
    image = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    spaces = Spaces({"image": image}, gym.spaces.Box(-1, 1, (2,), np.float32))
    small = {"image_size": 16, "patch": 8, "width": 24, "layers": 1, "embedding": 8, "slices": 32}
    with seeding.own_stream(0):
        agent = build("lewm.small", spaces, decoder=False, **small)
    agent.learner = ModelLearner(
        agent.model,
        # Adam would blow rounding up to full steps where the gradient is zero: biases before a norm.
        optimizer=partial(torch.optim.SGD, lr=0.03),
        scales={"sigreg": 0.09},
        clip=1.0,
        accumulation=pieces,
    )
    config = TrainConfig(
        updates=LEWM_UPDATES,
        batch_size=8,
        processes=processes,
        log_every=1,
        accumulation=pieces,
    )
    source = Images(rank=rank, processes=processes)
    Trainer(agent, source, run_dir=folder, config=config).train()


class Images(ToySource):
    """The toy's batches, with plain images of random colours instead of vectors."""

    def __next__(self):
        batch = super().__next__()
        colour = torch.randint(256, (self.size, 4, 1, 1, 3), generator=self.generator)
        image = colour.to(torch.uint8).expand(-1, -1, 16, 16, -1)
        share = len(batch)
        return batch.replace(obs={"image": image[self.rank * share : (self.rank + 1) * share]})


@pytest.mark.parametrize("pieces", [1, 2], ids=["whole", "recomputed in pieces"])
def test_two_processes_train_the_same_lewm_as_one(tmp_path, pieces):
    launch(train_lewm, 1, tmp_path / "one", 1, 1)
    launch(train_lewm, 2, tmp_path / "two", 2, pieces)
    model, lines = result(tmp_path / "one", LEWM_UPDATES)
    model2, lines2 = result(tmp_path / "two", LEWM_UPDATES)
    for name in model:
        torch.testing.assert_close(model2[name], model[name], atol=1e-5, rtol=1e-5, msg=name)
    for line, line2 in zip(lines, lines2, strict=True):
        for name in ("loss/prediction", "loss/sigreg"):
            assert line2[name] == pytest.approx(line[name], rel=1e-5, abs=1e-5), name
        # A batch norm over eight windows divides by small deviations, which magnifies rounding.
        assert line2["grad_norm"] == pytest.approx(line["grad_norm"], rel=5e-4)
    assert abs(lines[-1]["loss"] - lines[0]["loss"]) > 1e-3  # the updates were real ones


def resume(folder):
    train(folder, 2, {"dropout": 0.3})


def test_a_resumed_run_of_two_processes_equals_the_straight_one(tmp_path):
    launch(resume, 2, tmp_path / "run")
    straight, _ = result(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / f"update_{UPDATES:08d}")
    launch(resume, 2, tmp_path / "run")
    resumed, _ = result(tmp_path / "run")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
