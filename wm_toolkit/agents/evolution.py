"""Evolution of a small module: CMA-ES (Hansen and Ostermeier 2001) on its parameter vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from wm_toolkit.agents.fitness import Fitness
from wm_toolkit.batch import Batch, Metrics
from wm_toolkit.errors import CheckpointError, ConfigError, require
from wm_toolkit.nn.distributed import mean_over_processes, rank

WEYL = 0x9E3779B1  # odd, so that the seeds of neighbouring generations do not overlap


class CMAES:
    """Covariance matrix adaptation by the package `cma`, maximising, with a state that can be saved.

    The state is what the strategy was told; loading it tells a fresh one the same again, which gives
    the same numbers and needs no look inside the package.

    Args:
        start: [n] mean of the first generation.
        sigma: its deviation.
        population: P.
        seed: of the draws; no global generator is touched.

    Raises:
        MissingPackageError: without the package `cma`.
    """

    def __init__(self, start: Tensor, *, sigma: float, population: int, seed: int = 0) -> None:
        self.start = start.detach().cpu().double().numpy()
        self.sigma, self.population, self.seed = sigma, population, seed
        self.told: list[Tensor] = []
        self._begin()

    def _begin(self) -> None:
        cma = require("cma", "cma")
        generator = np.random.default_rng(self.seed)
        options = {
            "popsize": self.population,
            "randn": lambda *shape: generator.standard_normal(shape),
            "seed": np.nan,
            "verbose": -9,
        }
        self._strategy = cma.CMAEvolutionStrategy(self.start, self.sigma, options)

    @property
    def mean(self) -> Tensor:
        """[n] centre of the next generation."""
        return torch.from_numpy(np.array(self._strategy.mean))

    @property
    def deviation(self) -> float:
        """Overall step size."""
        return float(self._strategy.sigma)

    def ask(self) -> Tensor:
        """[P, n] the next generation."""
        return torch.from_numpy(np.stack(self._strategy.ask()))

    def tell(self, members: Tensor, worth: Tensor) -> None:
        """Learn what the members [P, n] of this generation are worth [P]."""
        worth = worth.detach().cpu().double()
        self.told.append(worth)
        self._strategy.tell(list(members.numpy()), (-worth).tolist())

    def state_dict(self) -> dict[str, Any]:
        """What it was told so far, [generations, P]."""
        empty = torch.zeros(0, self.population, dtype=torch.float64)
        return {
            "told": torch.stack(self.told) if self.told else empty,
            "start": self.start.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Live through the saved generations again.

        Raises:
            CheckpointError: if they were of another size.
        """
        told = state["told"]
        if told.shape[-1] != self.population or len(state["start"]) != len(self.start):
            raise CheckpointError(
                f"the saved evolution had {told.shape[-1]} members of {len(state['start'])} numbers, this "
                f"one has {self.population} of {len(self.start)}"
            )
        self.start, self.told = np.array(state["start"]), []
        self._begin()
        for worth in told:
            self.tell(self.ask(), worth)


class EvolutionLearner:
    """One generation per batch: ask CMA-ES for members, measure them, tell.

    Every `remeasure` generations the best member and the mean of the next generation are measured again,
    each in half of the dreams (or episodes); the better of them becomes the champion if it beats the one
    before. The module holds the champion, or the mean as long as there is none.

    Under several processes each measures the whole population on its own share of the batch.

    Args:
        model: what is moved to the device, and what the fitness looks at.
        module: the part of it that is evolved; its parameters need no gradient.
        fitness: what members are worth.
        population: P, at least 4.
        sigma: deviation of the first generation.
        remeasure: generations from one champion to the next.
        seed: of evolution and fitness.

    Attributes:
        updates: generations so far.
        champion: what the champion was worth, None before there is one.

    Raises:
        ConfigError: for a number out of range.

    Example:
        >>> dreams = DreamFitness(model, Survival(), horizon=500)
        >>> learner = EvolutionLearner(model, model.heads["policy"], dreams)
        >>> metrics = learner.learn(starts)
    """

    def __init__(
        self,
        model: nn.Module,
        module: nn.Module,
        fitness: Fitness,
        *,
        population: int = 64,
        sigma: float = 0.1,
        remeasure: int = 25,
        seed: int = 0,
    ) -> None:
        if population < 4 or sigma <= 0 or remeasure < 1:
            raise ConfigError(
                f"population is {population}, sigma {sigma}, remeasure {remeasure}; expected at least 4, "
                "above 0, at least 1"
            )
        self.model, self.module, self.fitness = model, module.requires_grad_(False), fitness
        self.population, self.sigma, self.remeasure = population, sigma, remeasure
        self.seed, self.updates = seed, 0
        self.champion: float | None = None
        self._evolution: CMAES | None = None

    def prepare(self, accelerator: Accelerator) -> None:
        """Move the model to the accelerator's device."""
        self.model.to(accelerator.device)

    @property
    def evolution(self) -> CMAES:
        """The search, begun at the module's present parameters."""
        if self._evolution is None:
            start = parameters_to_vector(self.module.parameters())
            self._evolution = CMAES(
                start, sigma=self.sigma, population=self.population, seed=self.seed
            )
        return self._evolution

    @torch.no_grad()
    def learn(self, batch: Batch) -> Metrics:
        """One generation on this process's share [R, T] of the batch.

        Returns:
            "fitness/mean", "fitness/best", "fitness/champion" (from the first remeasuring on) and
            "sigma".
        """
        members = self.evolution.ask()
        worth = self._measure(members, batch, again=False)
        self.evolution.tell(members, worth)
        self.updates += 1
        if self.updates % self.remeasure == 0:
            self._crown(torch.stack([members[worth.argmax()], self.evolution.mean]), batch)
        if self.champion is None:
            self._hold(self.evolution.mean)
        found: Metrics = {
            "fitness/mean": worth.mean(),
            "fitness/best": worth.max(),
            "sigma": self.evolution.deviation,
        }
        return found if self.champion is None else found | {"fitness/champion": self.champion}

    def _measure(self, members: Tensor, batch: Batch, *, again: bool) -> Tensor:
        """[P] worth of members [P, n], with chances of their own in every generation."""
        number = 2 * (self.updates - again) + again
        seed = (self.seed + WEYL * (number + 1) + 7919 * rank()) % 2**63
        own = self.fitness(members.float(), batch, seed=seed).double()
        device = next(self.module.parameters()).device  # where processes of several GPUs can meet
        return mean_over_processes(own.to(device)).cpu()

    def _crown(self, contestants: Tensor, batch: Batch) -> None:
        """Measure both again, each in the places of half of the population."""
        half = self.population // 2
        members = contestants.repeat_interleave(half, 0)
        worth = self._measure(members, batch, again=True).view(2, half).mean(-1)
        best = int(worth.argmax())
        if self.champion is None or float(worth[best]) > self.champion:
            self.champion = float(worth[best])
            self._hold(contestants[best])

    def _hold(self, vector: Tensor) -> None:
        like = next(self.module.parameters())
        vector_to_parameters(vector.to(like), self.module.parameters())

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """The module always holds the weights to evaluate and to save."""
        yield

    def state_dict(self) -> dict[str, Any]:
        """Generations, champion, and what evolution was told."""
        return {
            "updates": self.updates,
            "champion": self.champion,
            "evolution": self.evolution.state_dict() if self.updates else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: if it was saved by an evolution of another size.
        """
        self.updates, self.champion = state["updates"], state["champion"]
        self._evolution = None
        if state["evolution"] is not None:
            self.evolution.load_state_dict(state["evolution"])
