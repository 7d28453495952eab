"""How long a plan takes."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from wm_toolkit.cli.benchmarks import Case, benchmark
from wm_toolkit.cli.benchmarks.measure import Spent, compare, matrix_rate, operations, spent
from wm_toolkit.cli.benchmarks.rival import (
    ACTION,
    CONFIG,
    FRAME_SKIP,
    SIZE,
    rival_image,
    rival_lewm,
    rival_module,
    rival_name,
)
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.objective import Goal
from wm_toolkit.planning.rollout import score
from wm_toolkit.recipes.lewm import LeWMConfig
from wm_toolkit.recipes.published.lewm import lewm_from_state_dict
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.seeding import own_stream

SEARCHES = ((1, 5, 5), (1, 30, 1), (16, 30, 1))
"""(environments, iterations, repeats); the peer takes a second or more for each iteration and environment, so that
the last takes half an hour."""
PUBLISHED = LeWMConfig().planner
FAST_ITERATIONS = 6
"""What `CEM.fast` needs on average in TwoRooms at equal success (5.7; see `wm bench decision`)."""
SEED = 0


@benchmark("plan")
def run(quick: bool) -> Iterator[Case]:
    """CPU seconds per plan of CEM in LeWorldModel at the published size, with the same weights."""
    theirs = rival_lewm()
    ours = _ours(theirs)
    rates = {"float32": matrix_rate(), "bf16": matrix_rate(torch.bfloat16)}
    for environments, iterations, repeats in ((1, 1, 1),) if quick else SEARCHES:
        planner = dataclasses.replace(PUBLISHED, iterations=iterations)
        pair = Pair(ours, theirs, planner, environments)
        yield from pair.measure(rates, repeats)


def _ours(theirs: Any) -> WorldModel:
    """Our model with the peer's weights; with weights of its own where there is no peer."""
    if theirs is not None:
        return lewm_from_state_dict(theirs.state_dict(), CONFIG, frame_skip=FRAME_SKIP).model
    image = gym.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    action = gym.spaces.Box(-np.inf, np.inf, (ACTION // FRAME_SKIP,), np.float32)
    with own_stream(SEED):
        return build("lewm", Spaces({"image": image}, action).blocked(FRAME_SKIP)).model.eval()


@dataclasses.dataclass
class Pair:
    """The same search by both, from the same images to the same goals with the same noise."""

    ours: WorldModel
    theirs: Any
    planner: CEM
    environments: int

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(SEED)
        shape = (2, self.environments, SIZE, SIZE, 3)
        self.image, self.goal = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    def measure(self, rates: dict[str, float], repeats: int) -> Iterator[Case]:
        """Both precisions of ours beside the peer's float32; they take turns."""
        plans: dict[str, Tensor] = {}

        def keeping(name: str, plan: Callable[[], Tensor]) -> Callable[[], None]:
            def work() -> None:
                plans[name] = plan()

            return work

        works = {
            "float32": keeping("float32", lambda: self.our_plan("float32")),
            "bf16": keeping("bf16", lambda: self.our_plan("bf16")),
        }
        if self.theirs is not None:
            works["theirs"] = keeping("theirs", self.their_plan)
        taken = compare(works, repeats, warm_up=0 if repeats == 1 else 1)
        count, planner = self.operations(), self.planner
        search = f"CEM {planner.samples}x{planner.iterations}x{planner.horizon}"
        for name in ("float32", "bf16"):
            peer = taken.get("theirs")
            yield Case(
                f"{search}, {self.environments} environments, {name}",
                "CPU s",
                taken[name].cpu,
                count / rates[name],
                f"{rival_name()}, float32",
                None if peer is None else peer.cpu,
                taken[name].wall,
                None if peer is None else peer.wall,
                self.compared(plans[name], plans.get("theirs")),
            )
        if planner.iterations == PUBLISHED.iterations:
            yield from self.decisions(taken.get("theirs"))

    def operations(self) -> float:
        """Of our whole search; every iteration after the first takes as many as the second."""

        def of(iterations: int) -> float:
            planner = dataclasses.replace(self.planner, iterations=iterations)
            short = dataclasses.replace(self, planner=planner)
            # Not in float32, whose packed products the counter does not know.
            return operations(lambda: short.our_plan("bf16"))

        first = of(1)
        return first + (self.planner.iterations - 1) * (of(2) - first)

    def decisions(self, peer: Spent | None) -> Iterator[Case]:
        """A decision of ours that stops early beside the peer's whole search.

        How early is taken from a trained model: random weights have no goal to reach.
        """
        fast = dataclasses.replace(
            self, planner=dataclasses.replace(self.planner, iterations=FAST_ITERATIONS)
        )
        for precision in ("float32", "bf16"):
            taken = spent(lambda precision=precision: fast.our_plan(precision))
            yield Case(
                f"one decision, {self.environments} environments, {precision}",
                "CPU s",
                taken.cpu,
                None,
                f"{rival_name()}, float32, all {self.planner.iterations} iterations",
                None if peer is None else peer.cpu,
                taken.wall,
                None if peer is None else peer.wall,
                f"{FAST_ITERATIONS} iterations, what CEM.fast takes in TwoRooms (wm bench decision)",
            )

    @torch.no_grad()
    def our_plan(self, precision: Literal["float32", "bf16"]) -> Tensor:
        """[B, H, A], images encoded anew."""
        generator = torch.Generator().manual_seed(SEED)
        planner = dataclasses.replace(self.planner, precision=precision)
        plan = planner.plan(self.ours, self._state(), self._goal(), generator=generator)
        return plan.actions

    def _state(self) -> Any:
        model, size = self.ours, self.environments
        action = torch.zeros(size, model.spaces.action_width)
        return model.observe(model.initial(size), action, {"image": self.image})

    def _goal(self) -> Goal:
        return Goal().bind(self.ours, {"goal/image": self.goal})

    def their_plan(self) -> Tensor:
        """[B, H, A] by its solver as it ships, one environment after the other.

        Its generator goes on from one environment to the next: only the first sees our noise.
        """
        solver, policy = rival_module("solver"), rival_module("policy")
        assert solver is not None
        assert policy is not None
        size, planner = self.environments, self.planner
        search = solver.CEMSolver(
            self.theirs,
            num_samples=planner.samples,
            n_steps=planner.iterations,
            topk=planner.elites,
            seed=SEED,
        )
        config = policy.PlanConfig(
            horizon=planner.horizon, receding_horizon=planner.horizon, action_block=FRAME_SKIP
        )
        action = gym.spaces.Box(-1, 1, (size, ACTION // FRAME_SKIP))
        search.configure(action_space=action, n_envs=size, config=config)
        seen = {
            "pixels": rival_image(self.image),
            "goal": rival_image(self.goal),
            "action": torch.zeros(size, 1, ACTION),
        }
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it took
            return search.solve(seen)["actions"]

    @torch.no_grad()
    def compared(self, plan: Tensor, theirs: Tensor | None) -> str:
        """Where our plan [B, H, A] leads in float32, and how far it is from one made with the same noise."""
        state = self._state()
        distance = [
            -score(self.ours, state, actions[:, None], self._goal()).mean().item()
            for actions in (plan, theirs)
            if actions is not None
        ]
        if theirs is None:
            return f"distance to the goal {distance[0]:.4g}"
        reached = f"distance to the goal {distance[0]:.4g}, the peer's {distance[1]:.4g}"
        if len(plan) > 1:
            return reached
        return f"plans differ by at most {(plan - theirs).abs().max().item():.1g}; {reached}"
