"""Packed weights give the products that torch gives."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from wm_toolkit.nn.packed import PackedWeights, can_pack

pytestmark = pytest.mark.skipif(not can_pack(), reason="torch was built without oneDNN")

ROWS, WIDTH, OUT = 64, 192, 768


def packings(monkeypatch):
    """The weights that are packed from here on, in turn."""
    packed = []
    pack = torch.ops.mkldnn._reorder_linear_weight

    def spy(weight, rows):
        packed.append(weight)
        return pack(weight, rows)

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", spy)
    return packed


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_gives_the_same_up_to_rounding(rng, monkeypatch, bias):
    layer, x = nn.Linear(WIDTH, OUT, bias=bias), torch.randn(4, ROWS, WIDTH, generator=rng)
    packed = packings(monkeypatch)
    with torch.no_grad():
        expected = layer(x)
        with PackedWeights():
            torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert len(packed) == 1


def test_a_weight_is_packed_once_a_block_and_anew_in_the_next(rng, monkeypatch):
    layer, x = nn.Linear(WIDTH, OUT), torch.randn(ROWS, WIDTH, generator=rng)
    packed = packings(monkeypatch)
    with torch.no_grad():
        with PackedWeights():
            layer(x)
            layer(2 * x)
        layer.weight.mul_(2)
        with PackedWeights():
            torch.testing.assert_close(
                layer(x), x @ layer.weight.T + layer.bias, rtol=1e-5, atol=1e-5
            )
    assert len(packed) == 2


def test_parts_of_one_weight_are_packed_apart(rng):
    weight, x = torch.randn(3 * OUT, WIDTH, generator=rng), torch.randn(ROWS, WIDTH, generator=rng)
    with torch.no_grad(), PackedWeights():
        for rows in (slice(0, OUT), slice(0, 2 * OUT), slice(OUT, 3 * OUT)):
            found = functional.linear(x, weight[rows])
            torch.testing.assert_close(found, x @ weight[rows].T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("case", ["gradient", "double", "autocast", "small", "view"])
def test_what_it_cannot_do_or_would_not_pay_is_left_to_torch(rng, monkeypatch, case):
    kind = torch.float64 if case == "double" else torch.float32
    x = torch.randn(2 if case == "small" else ROWS, WIDTH, generator=rng).to(kind)
    weight = torch.randn(OUT, WIDTH, generator=rng).to(kind)
    if case == "view":
        weight = torch.randn(WIDTH, OUT, generator=rng).T
    packed = packings(monkeypatch)
    grad, cast = torch.set_grad_enabled(case == "gradient"), case == "autocast"
    with grad, torch.autocast("cpu", torch.bfloat16, enabled=cast):
        expected = functional.linear(x, weight)
        with PackedWeights():
            assert torch.equal(functional.linear(x, weight), expected)
    assert not packed
