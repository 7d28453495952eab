"""The agent: model + actor + learner, composed and never subclassed."""

from __future__ import annotations

import dataclasses
import platform
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from wm_toolkit import checkpoint
from wm_toolkit.agents.actors import Actor, Decision
from wm_toolkit.agents.card import evaluation_text, training_text
from wm_toolkit.batch import Batch, Metrics
from wm_toolkit.config import from_dict, to_dict
from wm_toolkit.errors import CheckpointError, ConfigError, SpaceError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.nn.modes import evaluating
from wm_toolkit.registry import RECIPES, build
from wm_toolkit.spaces import Spaces, flat_obs
from wm_toolkit.structs import Struct


class Learner(Protocol):
    """Turns batches into better parameters. Owns optimisers, target networks and averages."""

    def prepare(self, accelerator: Any) -> None:
        """Place the model on the accelerator's device and wrap it for its processes."""
        ...

    def learn(self, batch: Batch) -> Metrics:
        """One update; the metrics stay on the device."""
        ...

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """Let the model hold the weights to evaluate and to save (an average of them, say)."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact resume needs beside the model's parameters."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ...


@dataclasses.dataclass(frozen=True)
class AgentState(Struct):
    """What an agent carries from one step to the next.

    Attributes:
        model: [B] latent state.
        action: [B, A] the last action.
        actor: the actor's memory.
    """

    model: Any
    action: Tensor
    actor: Any

    def __getitem__(self, index: Any) -> AgentState:
        actor = None if self.actor is None else self.actor[index]
        return AgentState(self.model[index], self.action[index], actor)


class Agent:
    """A world model, an actor that uses it and a learner that improves it.

    Args:
        model: the world model.
        actor: how to act with it.
        learner: how to train it; None for a model that is only used.

    Attributes:
        recipe: the registered name it was built from, or "" for a hand-made agent.
        config: the recipe's config.
        info: JSON-ready facts that travel with the artefact: "evaluation" protocol, "data" (name,
            checksum, frame skip, statistics), "training" (its config, "updates" made, the update whose
            weights were "kept"), "results" by the protocol, "baselines" (their rows by name).

    Example:
        >>> agent = Agent.from_pretrained("lewm-tworooms")
        >>> state = agent.initial(env.num_envs)
        >>> decision, state = agent.act(obs, state, is_first=is_first)
    """

    def __init__(self, model: WorldModel, actor: Actor, learner: Learner | None = None) -> None:
        self.model, self.actor, self.learner = model, actor, learner
        self.recipe: str = ""
        self.config: Any = None
        self.info: dict[str, Any] = {}

    @property
    def spaces(self) -> Spaces:
        """What the agent sees and does."""
        return self.model.spaces

    def initial(self, batch_size: int) -> AgentState:
        """The state before the first step of `batch_size` episodes."""
        action = torch.zeros(batch_size, self.spaces.action_width, device=self.model.device)
        return AgentState(self.model.initial(batch_size), action, self.actor.initial(batch_size))

    @torch.no_grad()
    def act(
        self,
        obs: Any,
        state: AgentState,
        *,
        is_first: Any,
        explore: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[Decision, AgentState]:
        """Observe and choose.

        Args:
            obs: a vector environment's observation: array or (nested) dict of arrays [B, ...]. Or that of one
                environment, without the batch axis: the state is then of one row, and the decision has no
                batch axis either.
            state: from the previous step, or `initial`.
            is_first: [B] bool, rows whose episode begins with this observation; for one environment a bool.
            explore: act to learn rather than to score.
            generator: source of randomness, on the model's device.

        Returns:
            the decision ([B, A], decode with `agent.spaces.decode_action`) and the next state.

        Raises:
            SpaceError: if the observation or `is_first` does not fit.

        Example:
            >>> obs, _ = env.reset(seed=0)
            >>> decision, state = agent.act(obs, agent.initial(1), is_first=True)
            >>> obs, *_ = env.step(agent.spaces.decode_action(decision.action))
            >>> decision, state = agent.act(obs, state, is_first=False)
        """
        device, latent, action = self.model.device, state.model, state.action
        rows, first, alone = self._rows(obs, is_first, len(action))
        seen = {key: value.to(device) for key, value in rows.items()}
        if bool(first.any()):
            latent = latent.where(~first, self.model.initial(len(first)))
            action = action * ~first.to(device).unsqueeze(-1)
        with evaluating(self.model):
            latent = self.model.observe(latent, action, seen, generator=generator)
            decision, memory = self.actor.act(
                latent,
                seen,
                state.actor,
                is_first=first.to(device),
                explore=explore,
                generator=generator,
            )
        return decision[0] if alone else decision, AgentState(latent, decision.action, memory)

    def _rows(self, obs: Any, is_first: Any, size: int) -> tuple[dict[str, Tensor], Tensor, bool]:
        """Observations and `is_first` as a batch of `size` rows, and whether they had no batch axis."""
        flat, first = flat_obs(obs), torch.as_tensor(is_first, dtype=torch.bool)
        known = self.spaces.observation.items()
        alone = all(key in flat and np.shape(flat[key]) == space.shape for key, space in known)
        if alone:
            flat = {key: np.asarray(value)[None] for key, value in flat.items()}
            first = first.reshape(-1)
            if size != 1:
                raise SpaceError(
                    f"the observation is that of one environment, but the state is of {size} rows; begin "
                    "with initial(1)"
                )
        encoded = self.spaces.encode_obs(flat)
        if first.shape != (size,):
            raise SpaceError(
                f"is_first has shape {tuple(first.shape)}, but the state is of {size} rows; expected one "
                "truth value for each"
            )
        return encoded, first, alone

    def learn(self, batch: Batch) -> Metrics:
        """One update on a batch [B, T].

        Raises:
            ConfigError: if the agent has no learner.
        """
        if self.learner is None:
            raise ConfigError("this agent has no learner; build it from a recipe to train it")
        return self.learner.learn(batch)

    # -- artefact ------------------------------------------------------------------------------------
    def save_pretrained(self, path: str | Path, card: str | None = None) -> Path:
        """Write the agent as an artefact folder; see `wm_toolkit.checkpoint`.

        Raises:
            ConfigError: for a hand-made agent, which could not be rebuilt on loading.
        """
        if not self.recipe:
            raise ConfigError(
                "only an agent built from a registered recipe can be saved, because loading builds "
                "it again. Register a build function with @recipe and use wm_toolkit.build(name, ...)"
            )
        config = {
            "kind": "agent",
            "recipe": self.recipe,
            "config": to_dict(self.config),
            "spaces": self.spaces.to_dict(),
            **self.info,
            "versions": versions(),
        }
        return checkpoint.save_artefact(
            path, config, self.model.state_dict(), card or self.default_card()
        )

    def push_to_hub(self, name: str, *, private: bool = False, card: str | None = None) -> str:
        """Upload the agent to the Hugging Face hub as "owner/name"; returns its address.

        Raises:
            ConfigError: for a hand-made agent.
            CheckpointError: if the hub cannot be reached or refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = self.save_pretrained(Path(folder) / "model", card)
            return checkpoint.push_to_hub(path, name, private=private)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, revision: str | None = None, device: str = "cpu"
    ) -> Agent:
        """Load an artefact: a folder, a run, a catalog name, or "owner/name" on the hub.

        Raises:
            CheckpointError: if it is missing, damaged, or does not fit its recipe.
            UnknownNameError: if its recipe is not registered; import the module that registers it.
            ConfigError: if there is no such device.
        """
        folder, config, tensors = checkpoint.load_artefact(name_or_path, revision=revision)
        if config.get("kind") != "agent":
            raise CheckpointError(f"{folder} holds a {config.get('kind')!r}, not an agent")
        for key in ("recipe", "config", "spaces"):
            if key not in config:
                raise CheckpointError(f"{folder / checkpoint.CONFIG} lacks {key!r}")
        base = RECIPES[config["recipe"].partition(".")[0]]
        settings = from_dict(base.config, config["config"])
        with checkpoint.before_loading():
            agent = build(config["recipe"], Spaces.from_dict(config["spaces"]), settings)
        checkpoint.load_state(agent.model, tensors, str(folder))
        known = {"format", "kind", "recipe", "config", "spaces", "versions"}
        agent.info = {key: value for key, value in config.items() if key not in known}
        try:
            agent.model.to(device).eval()
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"there is no device {device!r} here: {error}") from error
        return agent

    def default_card(self) -> str:
        """Markdown that says what this is, how it was trained, and how it was or will be measured."""
        size = sum(p.numel() for p in self.model.parameters())
        parts = [
            f"# {self.recipe}\n",
            f"{RECIPES[self.recipe.partition('.')[0]].summary}\n",
            f'{size:,} parameters. Load it with `wm_toolkit.Agent.from_pretrained("PATH")`.\n',
            training_text(self.info),
            evaluation_text(self.info, self.recipe),
        ]
        return "\n".join(part for part in parts if part)


def versions() -> dict[str, str]:
    """Versions of Python and of every package that can change a number."""
    found = {"python": platform.python_version()}
    for package in ("wm_toolkit", "torch", "numpy", "gymnasium", "timm", "accelerate"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
