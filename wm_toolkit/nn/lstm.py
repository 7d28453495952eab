"""The LSTM of World Models: one bias, and a forget gate that is open at first."""

from __future__ import annotations

from torch import Tensor, nn


class LSTM(nn.Module):
    """Long short-term memory, one step at a time.

        i, g, f, o = split(W x + b + U h)
        c' = sigmoid(f + 1) c + sigmoid(i) tanh(g),  h' = sigmoid(o) tanh(c')

    The input's part W x + b does not recur, so it is computed apart, for all steps of a sequence at once.

    Args:
        inputs: X, width of the input.
        width: H of the state.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.read = nn.Linear(inputs, 4 * width)
        self.recur = nn.Linear(width, 4 * width, bias=False)
        nn.init.xavier_uniform_(self.read.weight)
        nn.init.zeros_(self.read.bias)
        for gate in self.recur.weight.data.chunk(4):
            nn.init.orthogonal_(gate)

    def forward(self, read: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """What was read of the input [B, 4 H] and the state h, c [B, H] to the next h, c."""
        i, g, f, o = (read + self.recur(h)).chunk(4, -1)
        c = (f + 1).sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
