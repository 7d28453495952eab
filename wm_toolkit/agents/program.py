"""What computes the losses of an update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from wm_toolkit.batch import Batch, Losses
from wm_toolkit.data.tables import ColumnSpec
from wm_toolkit.errors import CheckpointError
from wm_toolkit.models.base import WorldModel


class Program(nn.Module):
    """Computes the losses of a batch; this one leaves that to the model.

    A subclass may hold networks and statistics of its own beside the model, such as a slow critic.
    Nothing of its own is trained by gradients.

    A program may want its model's states kept with the rows of a replay (Dreamer V3): it says as what in
    `latent_columns`. Sequences then begin one row early, with the state known there, and the states made
    anew are found in `latents`.

    Attributes:
        latents: [B, T, ...] per column, states of the newest batch's rows but the first, to be stored in
            place of the old ones; None where there are none.
        pieces: the same of every piece of that batch, as `forward` made them.
        taught: heads of the model that learn from terms of the program's own.
        own_terms: those terms; the others tell how well the model predicts.
    """

    taught: tuple[str, ...] = ()
    own_terms: tuple[str, ...] = ()
    latents: dict[str, Tensor] | None = None

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model
        self.pieces: list[dict[str, Tensor]] = []

    def forward(self, batch: Batch) -> Losses:
        """The unreduced losses of [B, T] windows."""
        return self.model(batch)

    def latent_columns(self) -> dict[str, ColumnSpec]:
        """What of a state is stored with its row; here nothing."""
        return {}

    def latents_of(self, state: Any) -> dict[str, Tensor]:
        """States [B] in the form in which they are stored, [B, ...] per column."""
        return {}

    def after_update(self, update: int) -> None:
        """Called after every update with their number so far; here there is nothing to follow up."""

    def restart(self) -> None:
        """Called when the model was given other weights: what follows them begins there; here nothing."""

    def own_state(self) -> dict[str, Tensor]:
        """What is not the model's."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("model.")}

    def load_own_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `own_state` returned.

        Raises:
            CheckpointError: if it was saved by another program.
        """
        if state.keys() != self.own_state().keys():
            raise CheckpointError(
                f"the saved learner's program holds {sorted(state)}, this one {sorted(self.own_state())}"
            )
        self.load_state_dict(dict(state), strict=False)
