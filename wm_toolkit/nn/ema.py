"""Exponential moving average of a module's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from wm_toolkit.errors import CheckpointError, ConfigError


class EMA:
    """A second set of weights that follows the trained ones: s <- decay * s + (1 - decay) * w.

    BatchNorm statistics are averaged like weights, so the averaged model is consistent; other buffers
    are copied, and frozen parameters left alone.

    Args:
        module: whose weights to follow; the average starts at its present ones.
        decay: in [0, 1); 0.999 averages over about the last 1,000 updates.

    Example:
        >>> ema = EMA(model, decay=0.999)
        >>> ema.update()
        >>> with ema.swapped():
        ...     evaluate(model)
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"EMA decay is {decay}, expected 0 <= decay < 1")
        self.module, self.decay = module, decay
        self.shadow = {name: tensor.detach().clone() for name, tensor in self._followed().items()}
        self._averaged = [n for n, p in module.named_parameters() if p.requires_grad] + [
            f"{prefix}.{name}".lstrip(".")
            for prefix, norm in module.named_modules()
            if isinstance(norm, nn.modules.batchnorm._BatchNorm)
            for name, buffer in norm.named_buffers()
            if buffer.is_floating_point()
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average one step towards the module's present weights."""
        followed = self._followed()
        averages = [self.shadow[name] for name in self._averaged]
        weights = [followed[name].detach() for name in self._averaged]
        get_ema_multi_avg_fn(self.decay)(averages, weights, None)
        for name in followed.keys() - set(self._averaged):
            self.shadow[name].copy_(followed[name])

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Let the module hold the averaged weights inside the block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def to(self, device: torch.device | str) -> EMA:
        """Move the average to the module's new device."""
        self.shadow = {name: tensor.to(device) for name, tensor in self.shadow.items()}
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged tensors by name."""
        return dict(self.shadow)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, tensors of any shape.

        Raises:
            CheckpointError: if the names differ from this module's.
        """
        if state.keys() != self.shadow.keys():
            raise CheckpointError(
                f"the saved average holds {len(state)} tensors, this model has {len(self.shadow)}; "
                f"they differ in {sorted(state.keys() ^ self.shadow.keys())[:3]}"
            )
        for name, tensor in state.items():
            self.shadow[name].copy_(tensor)

    def _followed(self) -> dict[str, Tensor]:
        trained = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        return trained | dict(self.module.named_buffers())

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, tensor in self._followed().items():
            kept = tensor.clone()
            tensor.copy_(self.shadow[name])
            self.shadow[name].copy_(kept)
