"""LeWorldModel against the published description: every constant, and the predictor written out again."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import wm_toolkit
from wm_toolkit.models.predictor import Predictor
from wm_toolkit.planning.cem import CEM
from wm_toolkit.recipes.lewm import LeWMConfig
from wm_toolkit.spaces import Spaces


def spaces(action: int = 2) -> Spaces:
    image = gym.spaces.Box(0, 255, (224, 224, 3), np.uint8)
    return Spaces({"image": image}, gym.spaces.Box(-1, 1, (action,), np.float32)).blocked(5)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        return wm_toolkit.build("lewm", spaces()).model


def of_kind(module: nn.Module, kind: type) -> list:
    return [part for part in module.modules() if isinstance(part, kind)]


def test_the_encoder_is_a_vit_tiny_with_exact_gelu_biases_and_the_published_epsilon(model):
    encoder = model.encoder
    assert (encoder.patch, encoder.width, len(encoder.blocks)) == (14, 192, 12)
    assert {block.attention.heads for block in encoder.blocks} == {3}
    assert {norm.eps for norm in of_kind(encoder, nn.LayerNorm)} == {1e-12}
    assert all(norm.elementwise_affine for norm in of_kind(encoder, nn.LayerNorm))
    assert {gelu.approximate for gelu in of_kind(encoder, nn.GELU)} == {"none"}
    assert all(linear.bias is not None for linear in of_kind(encoder, nn.Linear))
    assert {drop.p for drop in of_kind(encoder, nn.Dropout)} == {0.0}
    assert encoder.positions.shape == (1, 257, 192)


def test_the_encoder_starts_like_the_published_one(model):
    """Truncated normals of deviation 0.02, biases zero, norms one."""
    for linear in of_kind(model.encoder, nn.Linear):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not linear.bias.any()
    for parameter in (model.encoder.positions, model.encoder.token):
        assert parameter.std().item() == pytest.approx(0.02, rel=0.15)


def test_the_projectors_are_linear_batchnorm_gelu_linear(model):
    for part in (model.projector, model.predicted):
        first, norm, activation, last = part
        assert (first.in_features, first.out_features) == (192, 2048)
        assert (last.in_features, last.out_features) == (2048, 192)
        assert isinstance(norm, nn.BatchNorm1d)
        assert (norm.eps, norm.momentum, norm.affine) == (1e-5, 0.1, True)
        assert activation.approximate == "none"


@pytest.mark.parametrize("action", [2, 3])
def test_actions_are_mixed_to_ten_numbers_whatever_their_width(action):
    with torch.device("meta"):
        encoder = wm_toolkit.build("lewm", spaces(action)).model.action_encoder
    shapes = [(layer.in_features, layer.out_features) for layer in of_kind(encoder, nn.Linear)]
    assert shapes == [(5 * action, 10), (10, 768), (768, 192)]
    assert len(of_kind(encoder, nn.SiLU)) == 1


def test_the_predictor_has_the_published_norms_biases_and_dropout(model):
    predictor = model.predictor
    assert (predictor.history, len(predictor.blocks)) == (3, 6)
    assert predictor.positions.std().item() == pytest.approx(1, abs=0.1)
    assert predictor.norm.eps == 1e-5
    assert predictor.norm.elementwise_affine
    for block in predictor.blocks:
        outer, inner = (block.norm1, block.norm2), (block.attention.norm, block.mlp[0])
        assert {(norm.eps, norm.elementwise_affine) for norm in outer} == {(1e-6, False)}
        assert {(norm.eps, norm.elementwise_affine) for norm in inner} == {(1e-5, True)}
        assert block.attention.qkv.bias is None
        assert block.attention.out.bias is not None
        assert (block.attention.heads, block.attention.qkv.out_features) == (16, 3 * 16 * 64)
        assert (block.attention.dropout, block.mlp[3].p, block.mlp[5].p) == (0.1, 0.1, 0.1)
        assert block.mlp[2].approximate == "none"
        assert block.mlp[1].out_features == 2048
        assert not block.modulation[1].weight.any()
        assert not block.modulation[1].bias.any()


def test_the_state_has_303_tensors_but_for_fused_projections(model):
    """The released file keeps query, key and value of the encoder's twelve layers apart."""
    assert len(model.state_dict()) + 12 * 4 == 303


def written_out(predictor: Predictor, z: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    """The published predictor, one head and one frame at a time."""
    x = z + predictor.positions[0, : z.shape[1]]
    for block in predictor.blocks:
        parts = block.modulation[1](functional.silu(condition)).chunk(6, -1)
        shift, scale, gate, shift2, scale2, gate2 = parts
        hidden = functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
        own = block.attention
        hidden = functional.layer_norm(hidden, x.shape[-1:], own.norm.weight, own.norm.bias)
        q, k, v = (hidden @ own.qkv.weight.T).chunk(3, -1)
        mixed = torch.zeros_like(q)
        width = q.shape[-1] // own.heads
        for head in range(own.heads):
            columns = slice(head * width, (head + 1) * width)
            for t in range(x.shape[1]):
                past = k[:, : t + 1, columns]
                match = (past @ q[:, t, columns].unsqueeze(-1)).squeeze(-1) / width**0.5
                weight = match.softmax(-1).unsqueeze(-1)
                mixed[:, t, columns] = (weight * v[:, : t + 1, columns]).sum(1)
        x = x + gate * own.out(mixed)
        hidden = functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale2) + shift2
        norm, up, _, _, down, _ = block.mlp
        hidden = functional.layer_norm(hidden, x.shape[-1:], norm.weight, norm.bias)
        x = x + gate2 * down(functional.gelu(up(hidden)))
    return functional.layer_norm(x, x.shape[-1:], predictor.norm.weight, predictor.norm.bias)


def test_the_predictor_computes_what_the_paper_writes(rng):
    predictor = Predictor(12, layers=2, heads=3, head_width=5, hidden=20).eval()
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=rng))
        z, condition = torch.randn(2, 4, 3, 12, generator=rng)
        expected = written_out(predictor, z, condition)
        torch.testing.assert_close(predictor(z, condition), expected, rtol=1e-4, atol=1e-5)


def test_training_planning_and_evaluation_defaults_are_the_published_ones():
    config = LeWMConfig()
    assert (config.frame_skip, config.history, config.window) == (5, 3, 4)
    assert config.image_mean == (0.485, 0.456, 0.406)
    assert config.image_std == (0.229, 0.224, 0.225)
    assert config.action_scaling == "standardise"
    assert (config.sigreg_weight, config.slices, config.knots) == (0.09, 1024, 17)
    assert config.estimator == "statistic"
    assert (config.lr, config.weight_decay, config.warmup) == (5e-5, 1e-3, 0.01)
    train = config.train
    assert (train.batch_size, train.precision, train.clip, train.seed) == (128, "bf16", 1.0, 3072)
    assert config.planner == CEM(horizon=5, samples=300, elites=30, iterations=30)
    planner = dataclasses.asdict(config.planner)
    published = {"init_std": 1.0, "min_std": 0.0, "momentum": 0.0, "execute": "mean"}
    assert {name: planner[name] for name in published} == published
    assert planner["noise_exponent"] == 0
    assert (config.replan_every, config.goal_mode, config.context) == (5, "last", 1)
    evaluation = config.evaluation
    assert (evaluation.episodes, evaluation.seed) == (50, 42)
    assert (evaluation.goal_offset, evaluation.budget, evaluation.goals) == (25, 50, "dataset")
