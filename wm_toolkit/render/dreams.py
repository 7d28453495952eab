"""A look at a model's dreams: numbers, curves and pictures, kept in a folder of the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wm_toolkit.batch import Batch
from wm_toolkit.checkpoint import load_json, replace_folder, save_json
from wm_toolkit.config import from_dict, to_dict
from wm_toolkit.errors import CheckpointError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.render.calibration import Fit, Reliability, fit, reliability
from wm_toolkit.render.open_loop import (
    HorizonError,
    OpenLoop,
    belief_error,
    latent_error,
    observation_errors,
    open_loop,
)
from wm_toolkit.render.rollout import dream_films, evenly, film, shown_states, strip
from wm_toolkit.render.video import gif_bytes, png_bytes

FOLDER, HEAD, STRIP, FILM = "dreams", "dreams.json", "strip", "film"
HORIZONS = (1, 5, 15, 50)
"""Steps ahead whose errors are logged; the page draws all of them."""
MOST_NUMBERS = 4  # components of a vector that get a curve
FPS = 8.0


@dataclasses.dataclass(frozen=True)
class Trace:
    """One quantity of one window, row by row: the context as it was filtered, then the dream.

    Attributes:
        name: such as "vector[2]" or "reward".
        truth, dream: [t] up to the end of the window or of its episode.
    """

    name: str
    truth: tuple[float, ...]
    dream: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Dreams:
    """What was found, JSON-ready. What a model or the data does not have is empty.

    Attributes:
        context: rows observed before every dream.
        windows: how many were dreamt.
        latent: error of the states.
        belief: KL(posterior || dreamt prior), nats.
        observations: error of what is decoded, by key.
        rewards: predicted against received, "dreamt" and "filtered" on the same rows.
        endings: likewise, the probability that the episode goes on.
        traces: curves of one window.
    """

    context: int
    windows: int
    latent: HorizonError
    belief: HorizonError | None = None
    observations: tuple[tuple[str, HorizonError], ...] = ()
    rewards: tuple[tuple[str, Fit], ...] = ()
    endings: tuple[tuple[str, Reliability], ...] = ()
    traces: tuple[Trace, ...] = ()

    def metrics(self) -> dict[str, float]:
        """The numbers to log, under "dream/"."""
        curves = {"latent": self.latent, **dict(self.observations)}
        found = {}
        for name, error in curves.items():
            found |= _at_horizons(f"{name}_error", error)
        if self.belief is not None:
            found |= _at_horizons("kl", self.belief)
        for where, reward in self.rewards:
            found[f"reward_bias/{where}"] = reward.bias
            found[f"reward_mse/{where}"] = reward.mse
            if reward.r2 is not None:
                found[f"reward_r2/{where}"] = reward.r2
        for where, ending in self.endings:
            found[f"continue_ece/{where}"] = ending.ece
            found[f"continue_brier/{where}"] = ending.brier
        return {f"dream/{name}": value for name, value in found.items()}


@dataclasses.dataclass(frozen=True)
class Look:
    """Dreams with their pictures.

    Attributes:
        dreams: the numbers.
        strips: PNG by observation key: truth, dream, error.
        films: GIF by key, the same in motion.
    """

    dreams: Dreams
    strips: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    films: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


@torch.no_grad()
def look(
    model: WorldModel,
    batch: Batch,
    *,
    context: int = 5,
    examples: int = 3,
    generator: torch.Generator | None = None,
) -> Look:
    """Dream along recorded windows and compare with what happened.

    Works for every world model, with or without decoder, reward and continue heads.

    Args:
        model: any world model.
        batch: [B, T] held-out windows.
        context: rows observed before the dream begins.
        examples: windows in every picture, evenly spaced over the batch.
        generator: for stochastic models; by default one that is seeded with 0.

    Raises:
        ShapeError: if the windows leave nothing to dream.
    """
    loop = open_loop(model, batch, context=context, generator=generator)
    found = Dreams(
        context=context,
        windows=len(batch),
        latent=latent_error(model, loop),
        belief=belief_error(loop),
        observations=tuple(observation_errors(model, loop).items()),
        rewards=_rewards(model, loop),
        endings=_endings(model, loop),
        traces=_traces(model, evenly(loop, 1)),
    )
    if "decoder" not in model.heads:
        return Look(found)
    films = dream_films(model, evenly(loop, examples))
    return Look(
        found,
        {key: png_bytes(strip(one)) for key, one in films.items()},
        {k: gif_bytes(film(one, context), fps=FPS, hold_seconds=1.0) for k, one in films.items()},
    )


def save_look(found: Look, run_dir: str | Path) -> Path:
    """Write the newest look into a run folder; the one before stays whole until this one is."""
    folder = Path(run_dir) / FOLDER
    with replace_folder(folder) as target:
        names = {key: f"{i}" for i, key in enumerate(found.strips)}
        for key, name in names.items():
            (target / f"{STRIP}_{name}.png").write_bytes(found.strips[key])
            (target / f"{FILM}_{name}.gif").write_bytes(found.films[key])
        save_json(target / HEAD, {"dreams": to_dict(found.dreams), "pictures": names})
    return folder


def load_look(run_dir: str | Path) -> Look | None:
    """The newest look of a run; None if nobody looked.

    Raises:
        CheckpointError: if its folder is damaged.
    """
    folder = Path(run_dir) / FOLDER
    if not folder.exists():
        return None
    head = load_json(folder / HEAD)
    names: dict[str, str] = head["pictures"]
    try:
        return Look(
            from_dict(Dreams, head["dreams"]),
            {key: (folder / f"{STRIP}_{name}.png").read_bytes() for key, name in names.items()},
            {key: (folder / f"{FILM}_{name}.gif").read_bytes() for key, name in names.items()},
        )
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is damaged: {error}") from error


def _at_horizons(name: str, error: HorizonError) -> dict[str, float]:
    steps = [k for k in HORIZONS if k <= len(error.model)]
    return {f"{name}/{k}": error.model[k - 1] for k in steps} | {
        f"{name}_copy/{k}": error.copy[k - 1] for k in steps
    }


def _states(loop: OpenLoop) -> dict[str, Any]:
    """States [n] of the rows that can be compared, as they were dreamt and as they were filtered."""
    return {
        "dreamt": loop.dreamt[loop.ahead],
        "filtered": loop.seen[:, loop.context :][loop.ahead],
    }


def _rewards(model: WorldModel, loop: OpenLoop) -> tuple[tuple[str, Fit], ...]:
    received = loop.batch.reward
    if "reward" not in model.heads or received is None or not loop.ahead.any():
        return ()
    came = _learnt(model, received)[:, loop.context :][loop.ahead]
    states = _states(loop).items()
    return tuple((name, fit(model.predict("reward", state).mean, came)) for name, state in states)


def _learnt(model: WorldModel, reward: Tensor) -> Tensor:
    """Rewards as the model's head learns them."""
    return reward.tanh() if model.squash_reward else reward


def _endings(model: WorldModel, loop: OpenLoop) -> tuple[tuple[str, Reliability], ...]:
    ended = loop.batch.terminated
    if "continue" not in model.heads or ended is None or not loop.ahead.any():
        return ()
    went_on = ~ended[:, loop.context :][loop.ahead]
    states = _states(loop).items()
    return tuple((name, reliability(model.continues(state), went_on)) for name, state in states)


def _traces(model: WorldModel, loop: OpenLoop) -> tuple[Trace, ...]:
    """Curves of the first window."""
    states = shown_states(loop)[0]
    rows = loop.context + int(loop.ahead[0].sum())
    found: list[Trace] = []

    def add(name: str, truth: Tensor, dream: Tensor) -> None:
        found.append(Trace(name, *(tuple(x[:rows].double().tolist()) for x in (truth, dream))))

    if "decoder" in model.heads:
        for key, drawn in model.decode(states).items():
            if key not in loop.batch.obs or drawn.ndim > 2:
                continue  # an image
            truth, dream = (x.reshape(len(x), -1) for x in (loop.batch.obs[key][0], drawn))
            for i in range(min(MOST_NUMBERS, truth.shape[1])):
                add(f"{key}[{i}]" if drawn.ndim > 1 else key, truth[:, i], dream[:, i])
    if "reward" in model.heads and loop.batch.reward is not None:
        add("reward", _learnt(model, loop.batch.reward[0]), model.predict("reward", states).mean)
    if "continue" in model.heads and loop.batch.terminated is not None:
        add("chance of going on", ~loop.batch.terminated[0], model.continues(states))
    return tuple(found)
