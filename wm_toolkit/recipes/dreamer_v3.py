"""Dreamer V3: one fixed recipe for every domain (Hafner et al. 2025)."""

from __future__ import annotations

import dataclasses

from torch import nn

from wm_toolkit.encoders.observations import (
    ObservationEncoder,
    channels,
    image_keys,
    vector_widths,
)
from wm_toolkit.errors import ConfigError, did_you_mean
from wm_toolkit.heads.bernoulli import BernoulliHead
from wm_toolkit.heads.observations import ObservationHead
from wm_toolkit.heads.policy import BoxPolicy, ChoicePolicy
from wm_toolkit.heads.twohot import TwoHotHead
from wm_toolkit.models.dreamer import Dreamer
from wm_toolkit.models.rssm import RSSM, BlockCore, CategoricalBelief
from wm_toolkit.nn.conv import PoolEncoder, UpsampleDecoder
from wm_toolkit.nn.dense import dense, init_scaled, linear
from wm_toolkit.spaces import Spaces


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths of one published size; 32 categoricals and 8 groups always.

    Attributes:
        deter: D.
        units: U, of every hidden layer.
        classes: of a categorical.
        depth: unit of the convolutions' width.
    """

    deter: int
    units: int
    classes: int
    depth: int


SIZES = {
    "1m": Size(512, 64, 4, 4),
    "12m": Size(2048, 256, 16, 16),
    "25m": Size(3072, 384, 24, 24),
    "50m": Size(4096, 512, 32, 32),
    "100m": Size(6144, 768, 48, 48),
    "200m": Size(8192, 1024, 64, 64),
    "400m": Size(12288, 1536, 96, 96),
}
GROUPS, LATENTS = 8, 32


def size(name: str) -> Size:
    """A published size by name.

    Raises:
        ConfigError: with the names there are.
    """
    if name not in SIZES:
        raise ConfigError(f"no size {name!r}.{did_you_mean(name, SIZES)}")
    return SIZES[name]


def world_model(spaces: Spaces, size: Size, *, horizon: int = 333) -> Dreamer:
    """The world model; its "continue" head learns the discounted chance of going on."""
    belief = CategoricalBelief(LATENTS, size.classes)
    encoder = _encoder(spaces, size)
    width = size.deter + belief.width
    rssm = RSSM(
        BlockCore(
            belief.width,
            spaces.action_width,
            width=size.deter,
            hidden=size.units,
            groups=GROUPS,
        ),
        prior=_read(size.deter, size.units, 2, belief.inputs),
        posterior=_read(size.deter + encoder.width, size.units, 1, belief.inputs),
        belief=belief,
    )
    return Dreamer(
        spaces,
        rssm,
        encoder,
        decoder=_decoder(spaces, size, belief.width),
        reward=nn.Sequential(dense(width, size.units), TwoHotHead(size.units)),
        ending=_ending(width, size.units),
        discount=1 - 1 / horizon,
    )


def actor(spaces: Spaces, features: int, units: int) -> nn.Module:
    """Three layers to a policy over encoded actions; its first actions are nearly unguided."""
    width = spaces.action_width
    if spaces.discrete:
        net = _read(features, units, 3, width, scale=0.01)
        return ChoicePolicy(net, spaces.action_groups)
    return BoxPolicy(_read(features, units, 3, 2 * width, scale=0.01))


def critic(features: int, units: int) -> nn.Module:
    """Three layers to a two-hot distribution over returns, 0 at first."""
    return nn.Sequential(dense(features, units, 3), TwoHotHead(units))


def _encoder(spaces: Spaces, size: Size) -> ObservationEncoder:
    widths = vector_widths(spaces)
    return ObservationEncoder(
        spaces,
        image=PoolEncoder(channels(spaces), size.depth) if image_keys(spaces) else None,
        vector=dense(sum(widths.values()), size.units, 3) if widths else None,
        vector_width=size.units if widths else 0,
    )


def _decoder(spaces: Spaces, size: Size, stoch: int) -> ObservationHead:
    widths = vector_widths(spaces)
    shapes = {key: tuple(spaces.observation[key].shape or ()) for key in image_keys(spaces)}
    image = None
    if shapes:
        total, units = channels(spaces), size.units
        image = UpsampleDecoder(size.deter, stoch, total, depth=size.depth, units=units)
    return ObservationHead(
        images={key: shape[-1] for key, shape in shapes.items()},
        image=image,
        choices=frozenset(k for k in widths if not spaces.observation[k].shape),
        trunk=dense(size.deter + stoch, size.units, 3) if widths else None,
        reads={key: linear(size.units, width) for key, width in widths.items()},
    )


def _ending(features: int, units: int) -> nn.Module:
    head = BernoulliHead(units)
    last = head.net[-1]
    assert isinstance(last, nn.Linear)
    init_scaled(last.weight, units)
    nn.init.zeros_(last.bias)
    return nn.Sequential(dense(features, units), head)


def _read(width_in: int, units: int, layers: int, width_out: int, scale: float = 1.0) -> nn.Module:
    return nn.Sequential(dense(width_in, units, layers), linear(units, width_out, scale=scale))
