"""What a dream is worth: the conventions in which the Dreamer generations count returns."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor

from wm_toolkit.config import check_ranges
from wm_toolkit.errors import ConfigError
from wm_toolkit.heads.base import Output
from wm_toolkit.losses.returns import lambda_return
from wm_toolkit.structs import Struct

Estimator = Literal["auto", "reinforce", "dynamics", "both"]


@dataclasses.dataclass(frozen=True)
class BehaviourConfig:
    """How actor and critic learn; the defaults are Dreamer V3's (Hafner et al. 2025 and its code).

    Attributes:
        horizon: H, dreamt steps.
        lam: of the lambda-return.
        discount: factor on the predicted chance of going on; 1 where that is discounted already.
        returns: where a state's return begins: with the "next" state's reward (V3); with the state's
            "own" reward (V2's code), so that an action is judged by the return of the state it leads to;
            or so, but counting "dreamt" states only, not those a dream begins with (V1's code).
        start: whether the state that a dream begins with goes on: as "predicted" (V3), or as "recorded"
            (V2, V3's preprint).
        go_on: what of the "continue" head counts: its "mean", the probability; or its "mode" (V3's
            preprint).
        but_last: no dream begins with a sequence's last state, which may be terminal; None leaves that to
            the recipe (V1's code: where it predicts endings; all others begin with every state).
        estimator: gradient of the actor: "reinforce", "dynamics" through the model, or a mixture of
            "both"; "auto" is "reinforce" for choices and "dynamics" for numbers (V2's code, V3's preprint).
        mix: share of "reinforce" in "both" (V2's code: 0.9).
        dynamics_of: what is raised through the model: the "return" (V1, V2), or the "advantage", whose
            baseline moves with the dream, too (V3's preprint).
        entropy: weight of the policy's entropy.
        normalise: divide advantages by the running range of the returns.
        slow_rate: share by which the slow critic follows.
        slow_every: updates between two steps of the slow critic.
        slow_targets: returns and baseline come from the slow critic (V2).
        slow_pull: weight of the critic's pull towards the slow critic (V3).
        replay_value: weight of the critic's loss along the replayed sequence, which also shapes the
            model (V3); 0 has none. Its discount is `replay_discount`.
        replay_discount: gamma of the replayed sequence; None takes that of the dreams.

    Raises:
        ConfigError: for a number out of range, or options that exclude each other.
    """

    horizon: int = 15
    lam: float = 0.95
    discount: float = 1.0
    returns: Literal["next", "own", "dreamt"] = "next"
    start: Literal["predicted", "recorded"] = "predicted"
    go_on: Literal["mean", "mode"] = "mean"
    but_last: bool | None = None
    estimator: Estimator = "reinforce"
    mix: float = 0.9
    dynamics_of: Literal["return", "advantage"] = "return"
    entropy: float = 3e-4
    normalise: bool = True
    slow_rate: float = 0.02
    slow_every: int = 1
    slow_targets: bool = False
    slow_pull: float = 1.0
    replay_value: float = 0.3
    replay_discount: float | None = None

    def __post_init__(self) -> None:
        least = 1 if self.returns == "next" else 2  # the others need a state to judge an action by
        check_ranges(
            self,
            horizon=f"[{least}, inf)",
            lam="[0, 1]",
            discount="(0, 1]",
            mix="[0, 1]",
            entropy="[0, inf)",
            slow_rate="[0, 1]",
            slow_every="[1, inf)",
            slow_pull="[0, inf)",
            replay_value="[0, inf)",
            replay_discount="(0, 1]",
        )
        if self.but_last and self.replay_value:
            raise ConfigError(
                "replay_value needs a dream from every state, so it cannot go with but_last=True"
            )

    def resolved(self, discount: float) -> BehaviourConfig:
        """These settings with a `replay_discount`, which is the dreams' gamma where none was given.

        Args:
            discount: what the model's "continue" head learns for a state that is not terminal.
        """
        if self.replay_discount is not None:
            return self
        return dataclasses.replace(self, replay_discount=self.discount * discount)

    def reinforced(self, *, discrete: bool) -> float:
        """The share of "reinforce" in the actor's gradient."""
        if self.estimator == "auto":
            return float(discrete)
        return {"reinforce": 1.0, "dynamics": 0.0, "both": self.mix}[self.estimator]


@dataclasses.dataclass(frozen=True)
class Dream(Struct):
    """What was dreamt from M states; index 0 is the state it began with.

    Attributes:
        features: [M, H + 1, F]; `Choices` where no gradient passes through the dream.
        actions: [M, H, A] taken in states 0 ... H - 1.
        reward: [M, H + 1] on arriving in states 0 ... H.
        go_on: [M, H + 1] discounted chance of going on from states 0 ... H.
        policies: what the actor said in states 0 ... H - 1, over [M] each.
    """

    features: Any
    actions: Tensor
    reward: Tensor
    go_on: Tensor
    policies: tuple[Output, ...] = ()


@dataclasses.dataclass(frozen=True)
class Score(Struct):
    """What is to be learnt from a dream.

    Attributes:
        returns: [M, n] of states `first` ... `first` + n - 1.
        weight: [M, n] discounted chance that the dream gets that far; without gradient.
        aims: [M, m] what actions 0 ... m - 1 are judged by.
        aim_weight: [M, m] their weights.
        first: the first state that has a return.
    """

    returns: Tensor
    weight: Tensor
    aims: Tensor
    aim_weight: Tensor
    first: int = 0


def score(dream: Dream, values: Tensor, config: BehaviourConfig) -> Score:
    """Lambda-returns of a dream, in the convention that `config.returns` names.

        "next"           R_t = r_{t+1} + c_{t+1} ((1 - lam) v_{t+1} + lam R_{t+1}),  w_t = c_0 ... c_t / gamma
        "own", "dreamt"  R_t = r_t + c_t ((1 - lam) v_{t+1} + lam R_{t+1}),          w_t = c_first ... c_{t-1}

    with R_H = v_H. Action t is judged by R_t in the first, and by R_{t+1} in the others, with the weight of
    state t ("own") or t + 1 ("dreamt").

    Args:
        dream: of H steps.
        values: [M, H + 1] of its states.
        config: names the convention, lam, and gamma where it is a factor of its own.
    """
    if config.returns == "next":
        returns = lambda_return(dream.reward[:, 1:], dream.go_on[:, 1:], values[:, 1:], config.lam)
        weight = dream.go_on[:, :-1].detach().cumprod(1) / config.discount
        return Score(returns, weight, returns, weight)
    first = int(config.returns == "dreamt")
    reward, go_on = dream.reward[:, first:-1], dream.go_on[:, first:-1]
    returns = lambda_return(reward, go_on, values[:, first + 1 :], config.lam)
    reached = go_on.detach().cumprod(1)
    weight = torch.cat([torch.ones_like(reached[:, :1]), reached[:, :-1]], 1)
    if first:
        return Score(returns, weight, returns, weight, first)
    return Score(returns, weight, returns[:, 1:], weight[:, :-1])
