"""Trains heads beside a model: they read its features and never change it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from wm_toolkit.batch import Batch, Losses, Metrics
from wm_toolkit.errors import MissingHeadError
from wm_toolkit.losses.reduce import reduce
from wm_toolkit.models.base import WorldModel
from wm_toolkit.nn.distributed import mean_over_processes, same_everywhere
from wm_toolkit.nn.modes import evaluating

Target = Callable[[Batch], Tensor]


class ProbeLearner:
    """Fits heads such as a decoder or a position probe to detached features.

    The model filters the batch in evaluation mode and without gradients, so neither its parameters nor
    its BatchNorm statistics can change. Usable by itself on a finished model, or as
    `ModelLearner(probes=...)` while the model trains.

    Args:
        model: with the heads in `model.heads`.
        targets: for every head, what it should read off: Batch [B, T] to values [B, T, *event].
        optimizer: builds the optimiser of the heads' parameters.
        schedule: factor on the learning rate as a function of the batches seen so far.
        every: train on every so-many-th batch only, to save the extra pass over the encoder.
        windows: train on the first so many windows of a process's batch only, for the same reason.

    Raises:
        MissingHeadError: if the model lacks one of the heads.

    Example:
        >>> model.heads["position"] = NormalHead(192, 2)
        >>> probes = ProbeLearner(model, {"position": lambda b: b.extras["position"]}, optimizer=adamw(1e-3))
    """

    def __init__(
        self,
        model: WorldModel,
        targets: Mapping[str, Target],
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        schedule: Callable[[int], float] | None = None,
        every: int = 1,
        windows: int | None = None,
    ) -> None:
        for head in targets:
            if head not in model.heads:
                raise MissingHeadError(
                    f"no head {head!r} to train (there are: {', '.join(model.heads) or 'none'}). "
                    f'Attach it first: model.heads["{head}"] = ...'
                )
        self.model, self.targets, self.every = model, dict(targets), every
        self.windows, self.schedule = windows, schedule
        self.parameters = [p for head in targets for p in model.heads[head].parameters()]
        self._make_optimizer = optimizer
        self._optimizer: torch.optim.Optimizer | None = None
        self._batches = 0

    def prepare(self, accelerator: Accelerator) -> None:
        """Place the model on the accelerator's device and start all processes from equal heads."""
        self.model.to(accelerator.device)
        for parameter in self.parameters:
            same_everywhere(parameter.data)
        self._optimizer = self._make_optimizer(self.parameters)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        # Its own stream, because draws from the global one would change what the model learns.
        self._noise = torch.Generator(accelerator.device).manual_seed(0)

    def learn(self, batch: Batch) -> Metrics:
        """One update of the heads on [B, T] windows, or none between two `every`-th batches.

        Returns:
            "probe/<head>" losses; empty where the batch was passed over.
        """
        optimizer = self._ready()
        self._batches += 1
        if (self._batches - 1) % self.every:
            return {}
        if self.schedule is not None:
            factor = self.schedule(self._batches - 1)
            for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
        batch = batch[: self.windows].to(self.model.device)
        losses = self._losses(batch)
        row_weight = mean_over_processes(batch.valid.sum(0))
        total, metrics = reduce(losses, batch.valid, row_weight=row_weight)
        grads = torch.autograd.grad(total, self.parameters)
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = mean_over_processes(grad)
        optimizer.step()
        optimizer.zero_grad()
        return {f"probe/{head}": metrics[f"loss/{head}"] for head in losses}

    def _losses(self, batch: Batch) -> Losses:
        """[B, T] loss of every head."""
        with evaluating(self.model), torch.no_grad():
            states = self.model.observe_sequence(batch, generator=self._noise)
            features = self.model.features(states)
        return {
            head: self.model.heads[head](features).loss(target(batch))
            for head, target in self.targets.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact resume needs beside the model's parameters."""
        optimizer = self._ready().state_dict()
        noise = self._noise.get_state()
        return {"optimizer": optimizer, "batches": self._batches, "noise": noise}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._ready().load_state_dict(state["optimizer"])
        self._batches = state["batches"]
        self._noise.set_state(state["noise"])

    def _ready(self) -> torch.optim.Optimizer:
        if self._optimizer is None:
            self.prepare(Accelerator())
        assert self._optimizer is not None
        return self._optimizer
