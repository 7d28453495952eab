"""Block-diagonal layers against dense ones with a masked weight; published sizes; initial scales."""

from __future__ import annotations

import torch
from torch import nn
from torch.testing import assert_close

from wm_toolkit.nn.dense import BlockLinear, dense, linear
from wm_toolkit.nn.gru import BlockGRU, NormGRU


def masked_dense(layer: BlockLinear) -> nn.Linear:
    """The same map as one full matrix that is zero outside the blocks."""
    groups, own_in, own_out = layer.weight.shape
    full = nn.Linear(groups * own_in, groups * own_out)
    full.weight.data.copy_(torch.block_diag(*layer.weight.detach()).T)
    full.bias.data.copy_(layer.bias.detach())
    return full


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_a_block_linear_layer_is_a_dense_one_with_a_masked_weight(rng):
    layer = BlockLinear(12, 20, 4)
    layer.bias.data.normal_(generator=rng)
    x = torch.randn(3, 5, 4, 3, generator=rng)
    assert_close(layer(x).flatten(-2), masked_dense(layer)(x.flatten(-2)))


def test_the_scale_of_a_block_counts_the_whole_input():
    torch.manual_seed(0)
    weight = BlockLinear(4096, 512, 8).weight
    assert abs(weight.std().item() * 4096**0.5 - 1) < 0.01
    assert weight.abs().max() <= 2 * 1.1368 * 4096**-0.5


def test_an_output_scale_of_zero_starts_at_zero():
    layer = linear(8, 3, scale=0.0)
    assert not layer.weight.any()
    assert not layer.bias.any()


def test_a_block_gru_step_follows_its_formula_group_by_group(rng):
    gru = BlockGRU(6, 16, groups=4)
    x, h = torch.randn(3, 6, generator=rng), torch.randn(3, 16, generator=rng)
    # W1 acts on [h_g, x] of every group.
    groups = [torch.cat([h[:, 4 * g : 4 * g + 4], x], -1) @ gru.mix.weight[g] for g in range(4)]
    y = gru.norm(torch.cat(groups, -1) + gru.mix.bias)
    expected = []
    for g in range(4):
        bias = gru.gates.bias[12 * g : 12 * g + 12]
        r, c, u = (y[:, 4 * g : 4 * g + 4] @ gru.gates.weight[g] + bias).split(4, -1)
        u = torch.sigmoid(u - 1)
        expected.append(u * torch.tanh(r.sigmoid() * c) + (1 - u) * h[:, 4 * g : 4 * g + 4])
    assert_close(gru(x, h), torch.cat(expected, -1))


def test_dreamer_v3_size1m_core_has_its_published_parameters():
    core = [dense(512, 64), dense(32 * 4, 64), dense(6, 64), BlockGRU(3 * 64, 512)]
    assert parameters(*core) == 273_664


def test_dreamer_v3_size12m_core_has_its_published_parameters():
    core = [dense(2048, 256), dense(32 * 16, 256), dense(6, 256), BlockGRU(3 * 256, 2048)]
    assert parameters(*core) == 4_338_688


def test_a_fresh_norm_gru_keeps_most_of_its_state(rng):
    gru = NormGRU(4, 8)
    nn.init.zeros_(gru.project.weight)
    nn.init.zeros_(gru.project.bias)
    h = torch.randn(2, 8, generator=rng)
    kept = 1 - torch.sigmoid(torch.tensor(-1.0))
    assert_close(gru(torch.randn(2, 4, generator=rng), h), kept * h)


def test_a_norm_gru_keeps_quiet_inputs_quiet_as_keras_does(rng):
    # The published layer norm adds 1e-3 to the variance, which weighs where inputs are small.
    gru = NormGRU(4, 8)
    x, h = 0.01 * torch.randn(2, 4, generator=rng), 0.01 * torch.randn(2, 8, generator=rng)
    parts = gru.project(torch.cat([x, h], -1))
    parts = parts - parts.mean(-1, keepdim=True)
    parts = parts / (parts.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    reset, cand, update = parts.chunk(3, -1)
    u = (update - 1).sigmoid()
    expected = u * (reset.sigmoid() * cand).tanh() + (1 - u) * h
    torch.testing.assert_close(gru(x, h), expected)
