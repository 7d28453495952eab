"""Observation and action spaces, and the one place where actions change their form.

Inside the toolkit an action is a float vector [..., A]: a Box is scaled to [-1, 1] (or standardised with
the data set's statistics), Discrete becomes one-hot, MultiDiscrete and MultiBinary are concatenated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces as gs
from torch import Tensor

from wm_toolkit.errors import SpaceError, did_you_mean

ActionScaling = Literal["scale", "standardise", "none"]


@dataclasses.dataclass(frozen=True)
class Spaces:
    """What goes into a model and what comes out of an agent.

    Attributes:
        observation: one space per observation key (nested dicts are joined by "/").
        action: the action space of the environment as the agent sees it; with frame skip k this is
            the block of k raw actions, see `block`.
        block: how many raw environment actions one action holds (frame skip).
        scaling: how a Box action is encoded: "scale" maps its bounds to [-1, 1], "standardise" uses
            `mean` and `std`, "none" leaves it as it is.
        mean: statistics of one raw Box action, for "standardise".
        std: likewise.

    Example:
        >>> spaces = Spaces.of(gym.make("CartPole-v1"))
        >>> spaces.encode_action(np.array([1, 0]))
        tensor([[0., 1.],
                [1., 0.]])
    """

    observation: Mapping[str, gym.Space]
    action: gym.Space
    block: int = 1
    scaling: ActionScaling = "scale"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        kinds = (gs.Box, gs.Discrete, gs.MultiDiscrete, gs.MultiBinary)
        if not isinstance(self.action, kinds):
            raise SpaceError(
                f"action space {self.action} is not supported; use Box, Discrete, MultiDiscrete or "
                "MultiBinary (flatten a Dict or Tuple of actions with a wrapper first)"
            )
        if self.scaling not in ("scale", "standardise", "none"):
            raise SpaceError(f"scaling is {self.scaling!r}; use 'scale', 'standardise' or 'none'")
        if self.scaling == "standardise" and (self.mean is None or self.std is None):
            raise SpaceError("scaling='standardise' needs mean and std of the raw action")

    @classmethod
    def of(cls, env: gym.Env | gym.vector.VectorEnv) -> Spaces:
        """The spaces of an environment (of one environment, if it is a vector)."""
        if isinstance(env, gym.vector.VectorEnv):
            return cls(flat_space(env.single_observation_space), env.single_action_space)
        return cls(flat_space(env.observation_space), env.action_space)

    # -- actions ---------------------------------------------------------------------------------
    @property
    def discrete(self) -> bool:
        """Whether an action is a choice (one-hot inside) rather than a number."""
        return not isinstance(self.action, gs.Box)

    @property
    def action_groups(self) -> tuple[int, ...]:
        """Widths of the one-hot groups of a discrete action; empty for Box and MultiBinary."""
        if isinstance(self.action, gs.Discrete):
            return (int(self.action.n),)
        if isinstance(self.action, gs.MultiDiscrete):
            return tuple(int(n) for n in self.action.nvec.ravel())
        return ()

    @property
    def action_width(self) -> int:
        """A: the width of an encoded action."""
        if self.action_groups:
            return sum(self.action_groups)
        return int(np.prod(self.action.shape or (1,)))

    @property
    def action_low(self) -> Tensor:
        """[A] lower bound of an encoded action (may be -inf)."""
        if self.discrete:
            return torch.zeros(self.action_width)
        assert isinstance(self.action, gs.Box)
        return self._encode_box(self.action.low.astype(np.float32))

    @property
    def action_high(self) -> Tensor:
        """[A] upper bound of an encoded action (may be inf)."""
        if self.discrete:
            return torch.ones(self.action_width)
        assert isinstance(self.action, gs.Box)
        return self._encode_box(self.action.high.astype(np.float32))

    def encode_action(self, action: np.ndarray | Tensor | int) -> Tensor:
        """Environment actions [..., *shape] to float vectors [..., A].

        Raises:
            SpaceError: if the trailing shape or a choice does not fit the action space.
        """
        shape = () if isinstance(self.action, gs.Discrete) else tuple(self.action.shape or ())
        raw = torch.as_tensor(action)
        lead = tuple(raw.shape[: raw.ndim - len(shape)])
        if tuple(raw.shape[len(lead) :]) != shape:
            raise SpaceError(f"actions of shape {tuple(raw.shape)} do not end with {shape}")
        if isinstance(self.action, gs.Box):
            return self._encode_box(raw.float())
        if isinstance(self.action, gs.MultiBinary):
            return raw.float().reshape(*lead, -1)
        start = torch.as_tensor(self._start(), dtype=torch.long)
        choice = raw.long().reshape(*lead, -1) - start
        width = torch.tensor(self.action_groups)
        if ((choice < 0) | (choice >= width)).any():
            raise SpaceError(f"an action lies outside {self.action}")
        hot = [
            torch.nn.functional.one_hot(choice[..., i], n) for i, n in enumerate(self.action_groups)
        ]
        return torch.cat(hot, -1).float()

    def decode_action(self, action: Tensor) -> np.ndarray:
        """Float vectors [..., A] to environment actions [..., *shape], clipped into the space."""
        action = action.detach().cpu().float()
        if action.shape[-1] != self.action_width:
            raise SpaceError(f"action of width {action.shape[-1]}, expected {self.action_width}")
        lead = tuple(action.shape[:-1])
        if isinstance(self.action, gs.Box):
            scale, shift = self._affine()
            raw = (action * scale + shift).numpy().reshape(lead + self.action.shape)
            return np.clip(raw, self.action.low, self.action.high).astype(self.action.dtype)
        if isinstance(self.action, gs.MultiBinary):
            flags = (action > 0.5).numpy().reshape(lead + self.action.shape)
            return flags.astype(self.action.dtype)
        choice = (
            torch.stack(
                [group.argmax(-1) for group in action.split(list(self.action_groups), -1)], -1
            ).numpy()
            + self._start()
        )
        if isinstance(self.action, gs.Discrete):
            return choice[..., 0].astype(self.action.dtype)
        assert isinstance(self.action, gs.MultiDiscrete)
        return choice.reshape(lead + self.action.shape).astype(self.action.dtype)

    def only(self, keys: Sequence[str]) -> Spaces:
        """These spaces with some observation keys only.

        Raises:
            SpaceError: naming a key there is not.
        """
        missing = [key for key in keys if key not in self.observation]
        if missing:
            raise SpaceError(
                f"no observation {missing[0]!r}.{did_you_mean(missing[0], self.observation)}"
            )
        return dataclasses.replace(self, observation={key: self.observation[key] for key in keys})

    def _start(self) -> np.ndarray:
        """[groups] the smallest choice of each group."""
        assert isinstance(self.action, (gs.Discrete, gs.MultiDiscrete))
        return np.asarray(self.action.start).ravel()

    def blocked(self, block: int) -> Spaces:
        """These spaces for an agent that chooses `block` raw actions at once (frame skip)."""
        if self.block != 1:
            raise SpaceError(f"these spaces already hold blocks of {self.block} actions")
        return dataclasses.replace(self, action=block_space(self.action, block), block=block)

    def standardised(self, mean: np.ndarray, std: np.ndarray) -> Spaces:
        """These spaces with Box actions standardised by statistics [A] of one raw action."""
        if self.discrete:
            return self
        return dataclasses.replace(
            self,
            scaling="standardise",
            mean=tuple(float(x) for x in np.ravel(mean)),
            std=tuple(max(float(x), 1e-6) for x in np.ravel(std)),
        )

    def _affine(self) -> tuple[Tensor, Tensor]:
        """[A] scale and shift of `raw = encoded * scale + shift`."""
        assert isinstance(self.action, gs.Box)
        if self.scaling == "none":
            return torch.ones(self.action_width), torch.zeros(self.action_width)
        if self.scaling == "standardise":
            assert self.mean is not None
            assert self.std is not None
            repeat = self.action_width // len(self.mean)
            return torch.tensor(self.std * repeat), torch.tensor(self.mean * repeat)
        # Copied: the bounds may lie in memory that cannot be written to, as in a Ray worker.
        low = torch.tensor(self.action.low, dtype=torch.float32).ravel()
        high = torch.tensor(self.action.high, dtype=torch.float32).ravel()
        bounded = torch.isfinite(low) & torch.isfinite(high) & (high > low)
        scale = torch.where(bounded, (high - low) / 2, 1.0)
        return scale, torch.where(bounded, (high + low) / 2, 0.0)

    def _encode_box(self, raw: np.ndarray | Tensor) -> Tensor:
        raw = torch.as_tensor(raw, dtype=torch.float32)
        scale, shift = self._affine()
        assert isinstance(self.action, gs.Box)
        lead = raw.shape[: raw.ndim - len(self.action.shape)]
        return (raw.reshape(*lead, -1) - shift) / scale

    # -- observations ----------------------------------------------------------------------------
    def encode_obs(self, obs: Any) -> dict[str, Tensor]:
        """One vectorised observation (array or nested dict of arrays) to {key: tensor [B, ...]}.

        Raises:
            SpaceError: naming a missing key or a wrong shape.
        """
        flat = flat_obs(obs)
        encoded = {}
        for key, space in self.observation.items():
            if key not in flat:
                raise SpaceError(f"observation lacks the key {key!r}; it has {sorted(flat)}")
            value = torch.as_tensor(np.asarray(flat[key]))
            if tuple(value.shape[1:]) != tuple(space.shape or ()):
                raise SpaceError(
                    f"observation {key!r} has shape {tuple(value.shape)}, expected (B, "
                    f"{', '.join(map(str, space.shape or ()))})"
                )
            encoded[key] = value.float() if value.dtype == torch.float64 else value
        return encoded | {
            key: torch.as_tensor(np.asarray(value))
            for key, value in flat.items()
            if key.startswith("goal/") and key not in encoded
        }

    # -- JSON --------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description; `Spaces.from_dict` reads it back."""
        return {
            "observation": {key: space_to_dict(space) for key, space in self.observation.items()},
            "action": space_to_dict(self.action),
            "block": self.block,
            "scaling": self.scaling,
            "mean": self.mean,
            "std": self.std,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Spaces:
        """Read what `to_dict` wrote."""
        return cls(
            {key: space_from_dict(space) for key, space in data["observation"].items()},
            space_from_dict(data["action"]),
            data.get("block", 1),
            data.get("scaling", "scale"),
            tuple(data["mean"]) if data.get("mean") else None,
            tuple(data["std"]) if data.get("std") else None,
        )

    def mismatch(self, other: Spaces) -> str | None:
        """Say in words how `other` differs, or None if a model for one can serve the other."""
        for key, space in self.observation.items():
            if key not in other.observation:
                return f"observation {key!r} is missing (there are {sorted(other.observation)})"
            theirs = other.observation[key]
            if theirs.shape != space.shape or theirs.dtype != space.dtype:
                return (
                    f"observation {key!r} is {theirs.shape} {theirs.dtype}, "
                    f"expected {space.shape} {space.dtype}"
                )
        if self.action != other.action:
            return f"action space is {other.action}, expected {self.action}"
        return None


def is_image(space: gym.Space) -> bool:
    """Whether a space holds uint8 images [h, w, C]."""
    return isinstance(space, gs.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def image_shape(space: gym.Space) -> tuple[int, int, int]:
    """(h, w, C) of the images in a space.

    Raises:
        SpaceError: if it holds none.
    """
    if not is_image(space) or space.shape is None:
        raise SpaceError(f"{space} holds no images, expected a Box of uint8 [h, w, C]")
    height, width, channels = space.shape
    return height, width, channels


def flat_space(space: gym.Space, prefix: str = "") -> dict[str, gym.Space]:
    """Flatten nested Dict spaces to {"a/b": space}; a bare space is named "image" or "vector"."""
    if isinstance(space, gs.Dict):
        flat: dict[str, gym.Space] = {}
        for key, child in space.spaces.items():
            flat |= flat_space(child, f"{prefix}{key}/")
        return flat
    if isinstance(space, gs.Tuple):
        raise SpaceError(f"a Tuple observation {space} has no names; use a Dict observation")
    return {prefix.rstrip("/") or ("image" if is_image(space) else "vector"): space}


def flat_obs(obs: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a nested dict of arrays as `flat_space` does its space.

    A bare array is named "image" when its last three axes are uint8 [h, w, C], else "vector".
    """
    if isinstance(obs, Mapping):
        flat: dict[str, Any] = {}
        for key, child in obs.items():
            flat |= flat_obs(child, f"{prefix}{key}/")
        return flat
    if prefix:
        return {prefix.rstrip("/"): obs}
    array = np.asarray(obs)
    return {"image" if array.dtype == np.uint8 and array.ndim >= 3 else "vector": obs}


def block_space(space: gym.Space, block: int) -> gym.Space:
    """The space of `block` actions of `space`, concatenated (frame skip as an action block)."""
    if block < 1:
        raise SpaceError(f"block is {block}, expected at least 1")
    if block == 1:
        return space
    if isinstance(space, gs.Box):
        low, high = np.tile(space.low.ravel(), block), np.tile(space.high.ravel(), block)
        return gs.Box(low, high, dtype=space.dtype.type)
    if isinstance(space, gs.Discrete):
        return gs.MultiDiscrete([int(space.n)] * block, start=[int(space.start)] * block)
    if isinstance(space, gs.MultiDiscrete):
        nvec, start = np.tile(space.nvec.ravel(), block), np.tile(space.start.ravel(), block)
        return gs.MultiDiscrete(nvec, start=start)
    if isinstance(space, gs.MultiBinary):
        return gs.MultiBinary(int(np.prod(space.shape)) * block)
    raise SpaceError(f"cannot make blocks of the action space {space}")


def space_to_dict(space: gym.Space) -> dict[str, Any]:
    """A JSON-ready description of a Box, Discrete, MultiDiscrete or MultiBinary space."""
    if isinstance(space, gs.Box):
        return {
            "type": "Box",
            "low": _bound_to_json(space.low),
            "high": _bound_to_json(space.high),
            "shape": list(space.shape),
            "dtype": str(space.dtype),
        }
    if isinstance(space, gs.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, gs.MultiDiscrete):
        return {
            "type": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
        }
    if isinstance(space, gs.MultiBinary):
        return {"type": "MultiBinary", "shape": list(space.shape)}
    raise SpaceError(
        f"cannot store the space {space}; known: Box, Discrete, MultiDiscrete, MultiBinary"
    )


def space_from_dict(data: Mapping[str, Any]) -> gym.Space:
    """Read what `space_to_dict` wrote."""
    kind = data.get("type")
    if kind == "Box":
        dtype, shape = np.dtype(data["dtype"]), tuple(data["shape"])
        low, high = (_bound_from_json(data[name], shape, dtype) for name in ("low", "high"))
        return gs.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        return gs.Discrete(data["n"], start=data.get("start", 0))
    if kind == "MultiDiscrete":
        return gs.MultiDiscrete(np.array(data["nvec"]), start=np.array(data["start"]))
    if kind == "MultiBinary":
        shape = tuple(data["shape"])
        return gs.MultiBinary(shape[0] if len(shape) == 1 else shape)
    raise SpaceError(
        f"unknown space type {kind!r}; known: Box, Discrete, MultiDiscrete, MultiBinary"
    )


def _bound_to_json(bound: np.ndarray) -> Any:
    """One number where all are equal; JSON has no infinity, so that becomes text."""
    values = [v if np.isfinite(v) else str(v) for v in bound.ravel().tolist()]
    return values[0] if len(set(values)) == 1 else values


def _bound_from_json(bound: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    values = np.array(bound, dtype=np.float64 if dtype.kind == "f" else dtype)
    full = np.broadcast_to(values, shape) if values.ndim == 0 else values.reshape(shape)
    return full.astype(dtype)
