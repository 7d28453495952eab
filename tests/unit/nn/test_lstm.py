"""The LSTM against torch's own cell."""

from __future__ import annotations

import torch

from wm_toolkit.nn.lstm import LSTM


def test_it_is_torchs_cell_with_one_bias_and_the_forget_gate_open(rng):
    ours = LSTM(3, 4)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, generator=rng)
    theirs = torch.nn.LSTMCell(3, 4)

    def reordered(x: torch.Tensor) -> torch.Tensor:
        i, g, f, o = x.chunk(4)
        return torch.cat([i, f, g, o])

    theirs.load_state_dict(
        {
            "weight_ih": reordered(ours.read.weight),
            "weight_hh": reordered(ours.recur.weight),
            "bias_ih": reordered(ours.read.bias),
            "bias_hh": torch.cat([torch.zeros(4), torch.ones(4), torch.zeros(8)]),
        }
    )
    x, h, c = (torch.randn(2, n, generator=rng) for n in (3, 4, 4))
    for mine, other in zip(ours(ours.read(x), h, c), theirs(x, (h, c)), strict=True):
        torch.testing.assert_close(mine, other)


def test_at_first_it_keeps_most_of_its_cell():
    lstm = LSTM(3, 4)
    _, c = lstm(lstm.read(torch.zeros(1, 3)), torch.zeros(1, 4), torch.ones(1, 4))
    torch.testing.assert_close(c, torch.full((1, 4), 1.0).mul(torch.tensor(1.0).sigmoid()))
