"""Does a world model keep the contract? For our own tests and for people who bring a model."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wm_toolkit.batch import Batch
from wm_toolkit.errors import MissingHeadError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.structs import stack, unbind
from wm_toolkit.testing.checks import Checks, close, equal_structs


def check_world_model(
    model: WorldModel,
    batch: Batch,
    *,
    horizon: int = 3,
    candidates: int = 2,
    tolerance: float = 1e-4,
) -> list[str]:
    """Check a model against the contract of `WorldModel` with a batch of its data.

    Args:
        model: any world model; it is copied, nothing of it changes.
        batch: [B, T] windows it can train on, B at least 2.
        horizon: length of the dreams that are compared.
        candidates: number of dreams per row.
        tolerance: largest relative difference between two ways to the same numbers.

    Returns:
        the names of the checks that passed.

    Raises:
        CheckError: listing every check that failed, with the numbers.
    """
    model = copy.deepcopy(model)
    checks = Checks(type(model).__name__)
    frozen = copy.deepcopy(model).eval()
    probe = _Probe(frozen, batch, horizon, candidates, tolerance)
    checks.run("the first state has one row per episode", probe.initial_rows)
    checks.run("features are [..., F] for any leading axes", probe.any_leading_axes)
    checks.run("rows do not influence each other", probe.row_independence)
    checks.run("rollout equals the plain loop over imagine", probe.rollout_equals_loop)
    checks.run("observe_sequence equals the plain loop over observe", probe.sequence_equals_loop)
    checks.run("an episode's start forgets what came before", probe.is_first_resets)
    checks.run("the same seed gives the same dream", probe.same_seed_same_dream)
    checks.run("a missing head is named", probe.missing_head)
    checks.run("weights saved and loaded give the same numbers", probe.save_and_load)
    checks.run("losses are [B, t] or []", lambda: _loss_shapes(model, batch))
    checks.run("gradients reach every trainable parameter", lambda: _gradients(model, batch))
    return checks.finish()


class _Probe:
    """The checks that run in evaluation mode, sharing one filtered state."""

    def __init__(
        self, model: WorldModel, batch: Batch, horizon: int, candidates: int, tolerance: float
    ) -> None:
        self.model, self.batch, self.tolerance = model, batch, tolerance
        shape = (len(batch), candidates, horizon, model.spaces.action_width)
        recorded = batch.action.reshape(-1, shape[-1])
        pick = torch.arange(shape[0] * shape[1] * shape[2]) * 7 % len(recorded)
        self.actions = recorded[pick.to(recorded.device)].reshape(shape)

    def generator(self) -> torch.Generator:
        """The same source of randomness every time."""
        return torch.Generator(self.model.device).manual_seed(0)

    @torch.no_grad()
    def state(self) -> Any:
        """States [B] after each row's first observation."""
        obs = {key: value[:, 0] for key, value in self.batch.obs.items()}
        first = torch.zeros_like(self.batch.action[:, 0])
        start = self.model.initial(len(self.batch))
        return self.model.observe(start, first, obs, generator=self.generator())

    @torch.no_grad()
    def initial_rows(self) -> None:
        """`initial(n)` has n rows."""
        for leaf in self.model.initial(3).leaves():
            assert len(leaf) == 3, f"a tensor of initial(3) has shape {tuple(leaf.shape)}"

    @torch.no_grad()
    def any_leading_axes(self) -> None:
        """Features of [B, 3, 2] states are those of [B] states."""
        state = self.state()
        plain = self.model.features(state)
        assert plain.ndim == 2, f"features of [B] states have shape {tuple(plain.shape)}"
        deep = self.model.features(stack([stack([state, state], 1)] * 3, 1))
        assert deep.shape == (len(plain), 3, 2, plain.shape[-1]), (
            f"features of [B, 3, 2] states have shape {tuple(deep.shape)}"
        )
        close(deep[:, 2, 1], plain, self.tolerance, "features of the same state, deeper")

    @torch.no_grad()
    def row_independence(self) -> None:
        """A row alone comes out as within a batch."""
        if self.model.stochastic:
            return  # one generator serves all rows, so a row alone draws other numbers
        together = self._step(slice(None))
        for row in range(2):
            alone = self._step(slice(row, row + 1))
            close(alone[0], together[row], self.tolerance, f"row {row} alone against in a batch")

    def _step(self, rows: slice) -> Tensor:
        obs = {key: value[rows, 0] for key, value in self.batch.obs.items()}
        action = self.batch.action[rows, 0]
        start = self.model.initial(len(action))
        seen = self.model.observe(start, torch.zeros_like(action), obs)
        return self.model.features(self.model.imagine(seen, action))

    @torch.no_grad()
    def rollout_equals_loop(self) -> None:
        """An overridden `rollout` equals the given one."""
        state = self.state()
        fast = self.model.rollout(state, self.actions, generator=self.generator())
        slow = WorldModel.rollout(self.model, state, self.actions, generator=self.generator())
        equal_structs(fast, slow, self.tolerance, "rollout")

    @torch.no_grad()
    def sequence_equals_loop(self) -> None:
        """An overridden `observe_sequence` equals the given one."""
        fast = self.model.observe_sequence(self.batch, generator=self.generator())
        slow = WorldModel.observe_sequence(self.model, self.batch, generator=self.generator())
        equal_structs(fast, slow, self.tolerance, "observe_sequence")

    @torch.no_grad()
    def is_first_resets(self) -> None:
        """After `is_first` the state is that of a fresh episode."""
        if self.model.stochastic or self.batch.action.shape[1] < 2:
            return
        split = self.batch.is_first.clone()
        split[:, 1] = True
        states = self.model.observe_sequence(self.batch.replace(is_first=split))
        second = unbind(states, 1)[1]
        obs = {key: value[:, 1] for key, value in self.batch.obs.items()}
        start = self.model.initial(len(self.batch))
        fresh = self.model.observe(start, torch.zeros_like(self.batch.action[:, 0]), obs)
        equal_structs(second, fresh, self.tolerance, "the state after is_first")

    @torch.no_grad()
    def same_seed_same_dream(self) -> None:
        """The generator is the only source of randomness."""
        state, action = self.state(), self.actions[:, 0, 0]
        one = self.model.imagine(state, action, generator=self.generator())
        two = self.model.imagine(state, action, generator=self.generator())
        equal_structs(one, two, 0.0, "two dreams of one seed")

    def missing_head(self) -> None:
        """Asking for a head there is not names it."""
        message = ""
        try:
            self.model.predict("no such head", self.state())
        except MissingHeadError as error:
            message = str(error)
        assert "no such head" in message, f"no MissingHeadError that names it: {message!r}"

    @torch.no_grad()
    def save_and_load(self) -> None:
        """Parameters and buffers are all there is to a model."""
        other = copy.deepcopy(self.model)
        for parameter in other.parameters():
            parameter.zero_()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.safetensors"
            save_file({k: v.contiguous() for k, v in self.model.state_dict().items()}, file)
            other.load_state_dict(load_file(file))
        state = self.state()
        one = self.model.imagine(state, self.actions[:, 0, 0], generator=self.generator())
        two = other.imagine(state, self.actions[:, 0, 0], generator=self.generator())
        equal_structs(one, two, 0.0, "a dream after loading")


def _loss_shapes(model: WorldModel, batch: Batch) -> None:
    rows, length = batch.action.shape[:2]
    losses = model(batch)
    assert losses, "loss returned no terms"
    for name, term in losses.items():
        fits = term.ndim == 0 or (term.shape[0] == rows and 0 < term.shape[1] <= length)
        assert fits, f"loss {name!r} has shape {tuple(term.shape)}, expected [{rows}, t] or []"
        assert bool(torch.isfinite(term).all()), f"loss {name!r} is not finite"


def _gradients(model: WorldModel, batch: Batch) -> None:
    model.train()
    # A layer that starts at exactly zero hides the gradient of the layers before it.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.add_(0.01)
    sum(term.mean() for term in model(batch).values()).backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert parameter.grad.any(), f"{name} gets a gradient of zero"
        else:
            assert parameter.grad is None, f"{name} is frozen but gets a gradient"
