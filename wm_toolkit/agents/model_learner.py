"""Trains a world model on its own losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wm_toolkit.agents.probe_learner import ProbeLearner
from wm_toolkit.agents.program import Program
from wm_toolkit.agents.recorded import Record, Recorded
from wm_toolkit.batch import Batch, Losses, Metrics
from wm_toolkit.errors import CheckpointError, ConfigError
from wm_toolkit.losses.reduce import reduce, surprise
from wm_toolkit.models.base import WorldModel
from wm_toolkit.nn.distributed import mean_over_processes, processes
from wm_toolkit.nn.ema import EMA

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Schedule = Callable[[int], float]


class ModelLearner:
    """Minimises the sum of a model's scaled losses, one optimiser step per batch.

    Works by itself (`agent.learn(batch)`, on whatever device accelerate finds) or under a `Trainer`.
    Nothing in a step waits for the device: metrics come back as tensors.

    Args:
        model: the model; parameters that need no gradient stay as they are.
        optimizer: builds the optimiser for the trained parameters, e.g. `training.optimizer.adamw(...)`
            or `functools.partial(torch.optim.Adam, lr=1e-3)`.
        schedule: factor on the learning rate as a function of the updates made so far.
        scales: weight of each loss term in the total; 1 where absent.
        clip: largest norm of the gradient over all trained parameters; None leaves it as it is. A group of
            the optimiser that holds a "max_norm" is clipped by itself, and counts for none of this.
        accumulation: split every batch into so many pieces to save memory. The result is that of the
            whole batch: means are over its total of rows, and a model with statistics of the whole
            batch recomputes by itself (`WorldModel.microbatches`).
        ema: decay of an exponential moving average of the weights, used to evaluate and to save.
        probes: heads trained beside the model on detached features; never touches the model.
        program: what computes the losses of a batch, a module with the model as its attribute `model`;
            by default the model alone. Its `after_update(n)` is called after every update, and its own
            buffers and frozen parameters are part of `state_dict`.
        record: how everything from the batch to the optimiser's step is recorded and then replayed at
            every update (`recorded.cuda_graph`); None runs it anew.

    Attributes:
        updates: made so far.
        surprises: [B] of the newest batch, piece by piece, see `losses.reduce.surprise`; None while nobody
            has asked for them by putting a list here.

    Raises:
        ConfigError: if nothing is left to train, or a number is out of range.

    Example:
        >>> learner = ModelLearner(model, optimizer=adamw(1e-3), scales={"sigreg": 0.09}, clip=1.0)
        >>> metrics = learner.learn(batch)
    """

    def __init__(
        self,
        model: WorldModel,
        *,
        optimizer: MakeOptimizer,
        schedule: Schedule | None = None,
        scales: Mapping[str, float] | None = None,
        clip: float | None = None,
        accumulation: int = 1,
        ema: float | None = None,
        probes: ProbeLearner | None = None,
        program: Program | None = None,
        record: Record | None = None,
    ) -> None:
        if accumulation < 1 or (clip is not None and clip <= 0):
            raise ConfigError(
                f"accumulation is {accumulation} and clip {clip}; expected at least 1, and above 0"
            )
        self.model, self.schedule, self.scales = model, schedule, dict(scales or {})
        self.clip, self.accumulation, self.probes = clip, accumulation, probes
        self.program: Program = Program(model) if program is None else program
        self.updates = 0
        self.surprises: list[Tensor] | None = None
        self._make_optimizer, self._decay, self._record = optimizer, ema, record
        self._recomputes = accumulation > 1 and model.microbatches(accumulation)
        self._accelerator: Accelerator | None = None
        self._ema: EMA | None = None
        beside = {id(p) for p in probes.parameters} if probes else set()
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._beside = [n for n, p in named.items() if id(p) in beside]
        self.parameters = [p for p in named.values() if id(p) not in beside]
        if not self.parameters:
            raise ConfigError(f"{type(model).__name__} has no parameter that needs a gradient")

    # -- set-up ----------------------------------------------------------------------------------
    def prepare(self, accelerator: Accelerator) -> None:
        """Place the model on the accelerator's device and wrap it for its precision and processes.

        Raises:
            ConfigError: if the accelerator was told to accumulate gradients too.
        """
        if accelerator.gradient_accumulation_steps != 1:
            raise ConfigError(
                "the Accelerator has gradient_accumulation_steps="
                f"{accelerator.gradient_accumulation_steps}, which would scale gradients twice; "
                "leave it at 1 and give accumulation to the learner"
            )
        self._accelerator = accelerator
        self.model.to(accelerator.device)
        self.program.to(accelerator.device)
        inner = _Forward(self.program)
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            inner, [f"program.model.{name}" for name in self._beside]
        )
        self._forward = accelerator.prepare_model(inner)
        self._optimizer = accelerator.prepare_optimizer(self._make_optimizer(self.parameters))
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._step = self._update
        if self._record is not None:
            self._refuse_recording(accelerator)
            self._start_recording(self._record)
        if self._decay is not None:
            self._ema = EMA(self.model, self._decay)
        if self.probes is not None:
            self.probes.prepare(accelerator)

    # -- one update --------------------------------------------------------------------------------
    def learn(self, batch: Batch) -> Metrics:
        """One update on this process's share [B, T] of the batch.

        Returns:
            "loss", "loss/<term>", "grad_norm" (before clipping), "learning_rate", averaged over
            processes, on the device.

        Raises:
            ConfigError: if `scales` names an unknown term, or a term cannot be accumulated.
        """
        accelerator = self._ready()
        self.model.train()
        rate = self._set_rate()
        if (
            self.probes is not None
        ):  # which read it too; else it goes to the device where it is used
            batch = batch.to(accelerator.device)
        metrics = self._step(batch)
        norm = metrics.pop("grad_norm")
        self.updates += 1
        self.program.after_update(self.updates)
        if self._ema is not None:
            self._ema.update()
        self.model.eval()  # ready to act and to be probed, which then need not switch over every time
        if self.probes is not None:
            metrics |= self.probes.learn(batch)
        return _averaged(metrics) | {"grad_norm": norm, "learning_rate": rate}

    def _update(self, batch: Batch) -> Metrics:
        """What every update does in the same way: losses, gradients, the optimiser's step."""
        accelerator = self._ready()
        self._optimizer.zero_grad()
        metrics = self._backward(batch.to(accelerator.device))
        accelerator.unscale_gradients(self._optimizer)
        norm = self._clip()
        self._optimizer.step()
        return metrics | {"grad_norm": norm}

    def _backward(self, batch: Batch) -> Metrics:
        """Gradients of the whole batch, piece by piece; returns the losses of the whole batch."""
        accelerator = self._ready()
        pieces = [batch] if self._recomputes else _split(batch, self.accumulation)
        row_weight = mean_over_processes(batch.valid.sum(0))
        found: list[Metrics] = []
        surprises = []
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            with nullcontext() if last else accelerator.no_sync(self._forward):
                losses = self._forward(piece)
                if len(pieces) > 1:
                    _refuse_statistics(self.model, losses)
                total, metrics = reduce(losses, piece.valid, self.scales, row_weight=row_weight)
                accelerator.backward(total)
            found.append(metrics)
            if self.surprises is not None:
                of_model = {n: x for n, x in losses.items() if n not in self.program.own_terms}
                surprises.append(surprise(of_model, piece.valid, self.scales))
        if self.surprises is not None:
            self.surprises = surprises
        return {name: sum(cast(Tensor, part[name]) for part in found) for name in found[0]}

    def _clip(self) -> Tensor:
        """Norm of the whole gradient before clipping."""
        apart = [g for g in self._optimizer.param_groups if g.get("max_norm") is not None]
        norms = [_clipped(group["params"], group["max_norm"]) for group in apart]
        known = {id(p) for group in apart for p in group["params"]}
        if shared := [p for p in self.parameters if id(p) not in known]:
            norms.append(_clipped(shared, self.clip))
        return norms[0] if len(norms) == 1 else torch.stack(norms).norm()

    def _set_rate(self) -> float:
        factor = self.schedule(self.updates) if self.schedule else 1.0
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * factor)
            else:
                group["lr"] = rate * factor
        return self._rates[0] * factor

    # -- recording ---------------------------------------------------------------------------------
    def _refuse_recording(self, accelerator: Accelerator) -> None:
        """An update is recorded whole, on one device."""
        against = {
            f"{accelerator.num_processes} processes": accelerator.num_processes > 1,
            f"accumulation={self.accumulation}": self.accumulation > 1,
            "fp16, whose scale is looked at by the host": accelerator.scaler is not None,
        }
        if found := [name for name, holds in against.items() if holds]:
            raise ConfigError(
                f"updates cannot be recorded with {' and '.join(found)}; leave cuda_graphs off, or use "
                "one process, accumulation=1 and bf16 or float32"
            )

    def _start_recording(self, record: Record) -> None:
        """Run the next updates to be recorded, and record anew, as what was recorded may lie elsewhere now."""
        self._count_on_device()
        self._step = Recorded(self._update, self.program, record, self._ready().device)

    def _count_on_device(self) -> None:
        """Let the optimiser read its rates from the device, and count its steps there."""
        device = self._ready().device
        for group in self._optimizer.param_groups:
            if "capturable" not in group:
                inner = getattr(self._optimizer, "optimizer", self._optimizer)
                raise ConfigError(
                    f"updates of {type(inner).__name__} cannot be recorded, as it counts "
                    "its steps on the host; use LaProp or AdamW, or leave cuda_graphs off"
                )
            group["capturable"] = True
            group["lr"] = torch.tensor(float(group["lr"]), device=device)

    # -- evaluation and resume -----------------------------------------------------------------------
    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Let the model hold the weights to evaluate and to save: the average, if there is one."""
        with nullcontext() if self._ema is None else self._ema.swapped():
            yield

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact resume needs beside the model's parameters."""
        accelerator = self._ready()
        scaler = accelerator.scaler
        return {
            "updates": self.updates,
            "optimizer": self._optimizer.state_dict(),
            "rates": self._rates,
            "ema": self._ema.state_dict() if self._ema else None,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "probes": self.probes.state_dict() if self.probes else None,
            "program": self.program.own_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any], *, own_rates: bool = False) -> None:
        """Restore what `state_dict` returned.

        Args:
            state: of a learner with the same options.
            own_rates: keep this learner's learning rates, for a new run that begins where another ended.

        Raises:
            CheckpointError: if it was saved by a learner with other options.
        """
        accelerator = self._ready()
        for name, here in (("ema", self._ema), ("probes", self.probes)):
            if (state[name] is None) != (here is None):
                raise CheckpointError(
                    f"the saved learner has {'no ' if state[name] is None else ''}{name}, this one "
                    f"{'no' if here is None else 'has'}; build it with the config it was saved with"
                )
        self.updates, rates = state["updates"], list(state["rates"])
        self._rates = self._rates if own_rates else rates
        self._load_optimizer(state["optimizer"])
        if self._ema is not None:
            self._ema.load_state_dict(state["ema"])
        if self.probes is not None:
            self.probes.load_state_dict(state["probes"])
        self.program.load_own_state(state.get("program") or {})
        if accelerator.scaler is not None and state["scaler"] is not None:
            accelerator.scaler.load_state_dict(state["scaler"])

    def _load_optimizer(self, state: Mapping[str, Any]) -> None:
        """Steps are counted where this learner counts them, whatever the saved one did."""
        capturable = {"capturable": self._record is not None}
        groups = [
            {**group, **capturable, "lr": float(group["lr"])} if "capturable" in group else group
            for group in state["param_groups"]
        ]
        self._optimizer.load_state_dict({**state, "param_groups": groups})
        if self._record is not None:
            self._start_recording(self._record)

    def _ready(self) -> Accelerator:
        if self._accelerator is None:
            self.prepare(Accelerator())
        assert self._accelerator is not None
        return self._accelerator


class _Forward(nn.Module):
    """What accelerate wraps: keeps its patched `forward` off the program and the user's model."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program

    def forward(self, batch: Batch) -> Losses:
        """The unreduced losses of [B, T] windows."""
        return self.program(batch)


def _clipped(parameters: list[nn.Parameter], most: float | None) -> Tensor:
    """Norm of these parameters' gradients before they were clipped to at most `most`."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if most is not None:
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def _split(batch: Batch, pieces: int) -> list[Batch]:
    """Cut a batch [B, T] into at most `pieces` batches of nearly equal size."""
    size = -(-len(batch) // pieces)
    return [batch[start : start + size] for start in range(0, len(batch), size)]


def _refuse_statistics(model: WorldModel, losses: Losses) -> None:
    for name, term in losses.items():
        if term.ndim == 0:
            raise ConfigError(
                f"loss term {name!r} is a statistic of the whole batch, so accumulating it over "
                f"smaller ones would change it. Use accumulation=1, or let {type(model).__name__} "
                "recompute in pieces (WorldModel.microbatches)"
            )


def _averaged(metrics: Metrics) -> Metrics:
    """Mean of every [] metric over all processes, in one message."""
    if processes() == 1:
        return metrics
    values = torch.stack([cast(Tensor, value).float() for value in metrics.values()])
    return dict(zip(metrics, mean_over_processes(values).unbind(), strict=True))
