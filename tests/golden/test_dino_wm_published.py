"""DINO-WM against the published description: sizes, settings, and the work of one rollout."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import wm_toolkit
from wm_toolkit.heads.patch_decoder import PatchDecoder
from wm_toolkit.models.dino_wm import DinoWM
from wm_toolkit.models.predictor import Predictor
from wm_toolkit.models.window import Window
from wm_toolkit.planning.cem import CEM
from wm_toolkit.recipes.dino_wm import DinoWMConfig
from wm_toolkit.registry import recipe_config
from wm_toolkit.spaces import Spaces


def spaces(proprio: int | None = 4, size: int = 224) -> Spaces:
    seen: dict[str, gym.Space] = {"image": gym.spaces.Box(0, 255, (size, size, 3), np.uint8)}
    if proprio:
        seen["proprio"] = gym.spaces.Box(-np.inf, np.inf, (proprio,), np.float32)
    return Spaces(seen, gym.spaces.Box(-1, 1, (2,), np.float32)).blocked(5)


def published(name: str = "dino_wm", proprio: int | None = 4, **changes) -> DinoWM:
    """The whole model without a number in it."""
    with torch.device("meta"):
        model = wm_toolkit.build(name, spaces(proprio), **changes).model
    assert isinstance(model, DinoWM)
    return model


def count(module: nn.Module | None) -> int:
    assert module is not None
    return sum(p.numel() for p in module.parameters())


def test_the_push_t_predictor_has_20_122_600_parameters():
    model = published()
    assert count(model.predictor) == 20_122_600
    assert count(model.action_encoder) == 110
    assert count(model.proprio_encoder) == 50
    assert model.predictor.width == 404
    assert model.frame == (196, 394)
    assert not count(model.output)


def test_without_proprioception_tokens_are_ten_numbers_narrower():
    assert published(proprio=None).predictor.width == 394


def test_the_decoder_has_the_published_layers():
    """3x3 convolution, four residual blocks of 128, two transposed convolutions; twice: 14 -> 56 -> 224."""
    decoder = published(decoder=True).heads["decoder"]
    assert isinstance(decoder, PatchDecoder)
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    shapes = [
        (m.in_channels, m.out_channels, m.kernel_size[0])
        for m in decoder.modules()
        if isinstance(m, kinds)
    ]
    residual = 4 * [(384, 128, 3), (128, 384, 1)]
    one = [(384, 384, 3), *residual, (384, 192, 4), (192, 384, 4)]
    assert shapes == [*one, *one[:-1], (192, 3, 4)]
    assert decoder.background is None
    with torch.device("meta"):
        assert decoder(torch.zeros(2, 5, 196 * 394)).mean.shape == (2, 5, 224, 224, 3)
        assert decoder.net[0](torch.zeros(1, 384, 14, 14)).shape == (1, 384, 56, 56)


def written_out(predictor: Predictor, z: Tensor, action: Tensor) -> Tensor:
    """The published predictor, one head at a time, with a block-triangular mask over all tokens."""
    frames, tokens = z.shape[1], z.shape[2]
    x = torch.cat([z, action.unsqueeze(2).expand(-1, -1, tokens, -1)], -1).flatten(1, 2)
    assert predictor.positions is not None
    x = x + predictor.positions[:, : x.shape[1]]
    frame = torch.arange(frames).repeat_interleave(tokens)
    hidden_from = frame.unsqueeze(-1) < frame
    for block in predictor.blocks:
        own = block.attention
        h = functional.layer_norm(x, x.shape[-1:], block.norm1.weight, block.norm1.bias)
        q, k, v = (h @ own.qkv.weight.T).chunk(3, -1)
        width = q.shape[-1] // own.heads
        heads = []
        for i in range(own.heads):
            cut = slice(i * width, (i + 1) * width)
            match = q[..., cut] @ k[..., cut].mT / width**0.5
            heads.append(match.masked_fill(hidden_from, -torch.inf).softmax(-1) @ v[..., cut])
        x = x + torch.cat(heads, -1) @ own.out.weight.T + own.out.bias
        h = functional.layer_norm(x, x.shape[-1:], block.norm2.weight, block.norm2.bias)
        up, down = block.mlp[1], block.mlp[4]
        h = functional.gelu(h @ up.weight.T + up.bias)
        x = x + h @ down.weight.T + down.bias
    x = functional.layer_norm(x, x.shape[-1:], predictor.norm.weight, predictor.norm.bias)
    return x.unflatten(1, (frames, tokens))


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_the_predictor_computes_what_is_published(frames, rng):
    predictor = Predictor(
        12, tokens=4, conditioning="concat", condition=5, layers=2, heads=3, head_width=6, hidden=20
    ).eval()
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=rng))
        z = torch.randn(2, frames, 4, 12, generator=rng)
        action = torch.randn(2, frames, 5, generator=rng)
        expected = written_out(predictor, z, action)
        torch.testing.assert_close(predictor(z, action), expected, rtol=1e-4, atol=1e-5)
        real = torch.full((2,), frames)
        torch.testing.assert_close(predictor(z, action, real), expected, rtol=1e-4, atol=1e-5)


def test_the_predictor_has_the_published_parts():
    predictor = published().predictor
    assert predictor.positions is not None
    assert predictor.positions.shape == (1, 3 * 196, 404)
    assert len(predictor.blocks) == 6
    for block in predictor.blocks:
        assert block.attention.qkv.bias is None
        assert (block.attention.heads, block.attention.qkv.out_features) == (16, 3 * 16 * 64)
        assert (block.attention.dropout, block.mlp[3].p, block.mlp[5].p) == (0.1, 0.1, 0.1)
        assert block.mlp[1].out_features == 2048
        assert {block.norm1.eps, block.norm2.eps, predictor.norm.eps} == {1e-5}


def multiply_adds(work) -> float:
    """Billions of multiply-adds, attention included, counted by torch."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops() / 2e9


def official(model: DinoWM, context: int, horizon: int, history: int = 3) -> float:
    """The released rollout: all layers over all of the last frames at every step, masked."""
    frames = torch.zeros(1, context, *model.frame, device="meta")
    actions = torch.zeros(1, context + horizon - 1, model.spaces.action_width, device="meta")

    def work() -> None:
        z = frames
        for _ in range(horizon):
            seen = z[:, -history:]
            now = actions[:, max(0, z.shape[1] - history) : z.shape[1]]
            everything = torch.full((1,), seen.shape[1], device="meta")
            out = model.predictor(seen, model.action_encoder(now), everything)
            z = torch.cat([z, model.following(seen, out)[:, -1:]], 1)

    return multiply_adds(work)


def fast(model: DinoWM, context: int, horizon: int) -> float:
    """`rollout` per candidate, as 100 of them share what was seen."""
    width, history = model.spaces.action_width, model.history
    state = Window(
        torch.zeros(1, history, *model.frame, device="meta"),
        torch.zeros(1, history - 1, width, device="meta"),
        torch.full((1,), context),
    )
    plans = torch.zeros(1, 100, horizon, width, device="meta")
    return multiply_adds(lambda: model.rollout(state, plans)) / 100


def test_one_frame_and_three_frames_cost_what_was_computed_by_hand():
    model = published()
    assert official(model, 1, 1) == pytest.approx(4.36, abs=0.01)
    assert official(model, 3, 1) == pytest.approx(15.9, abs=0.05)
    assert official(model, 1, 5) == pytest.approx(61.8, abs=0.1)


@pytest.mark.parametrize(("context", "horizon"), [(1, 5), (1, 6), (2, 6), (3, 5)])
def test_the_exact_rollout_does_at_least_1_4_times_less_than_the_released_one(context, horizon):
    model = published(context=None)
    assert official(model, context, horizon) / fast(model, context, horizon) > 1.4


def test_the_rotary_rollout_does_at_least_2_5_times_less_than_the_released_one():
    """Two frames seen, six dreamt; the released one computes the last three frames at every step."""
    model = published("dino_wm.jepa_wms")
    assert official(model, 2, 6) / fast(model, 2, 6) > 2.5


def test_training_and_planning_defaults_are_the_published_ones():
    config = DinoWMConfig()
    assert (config.frame_skip, config.history, config.window, config.image_size) == (5, 3, 4, 196)
    assert (config.normalisation, config.resample, config.encoder_block) == (
        "half",
        "original",
        None,
    )
    assert (config.proprio_width, config.action_width) == (10, 10)
    assert (config.lr, config.weight_decay, config.dropout) == (5e-4, 0.01, 0.1)
    train = config.train
    assert (train.batch_size, train.precision, train.clip, train.seed) == (32, "no", None, 0)
    assert config.planner == CEM(horizon=5, samples=300, elites=30, iterations=30)
    planner = dataclasses.asdict(config.planner)
    expected = {"init_std": 1.0, "min_std": 0.0, "momentum": 0.0, "execute": "mean"}
    assert {name: planner[name] for name in expected} == expected
    assert (config.replan_every, config.goal_mode, config.context) == (5, "last", 1)
    assert config.alpha == 1
    assert config.last_action == "real"  # a window takes (history + 1) * frame_skip steps


def test_the_presets_differ_from_push_t_where_the_paper_does():
    maze, wall = recipe_config("dino_wm.point_maze"), recipe_config("dino_wm.wall")
    assert (maze.alpha, maze.history, maze.planner.iterations) == (0, 3, 10)
    assert (wall.alpha, wall.history, wall.planner.iterations) == (1, 1, 10)
    rope = recipe_config("dino_wm.deformable")
    assert (rope.history, rope.frame_skip, rope.evaluation.frame_skip) == (1, 1, 1)
    jepa = recipe_config("dino_wm.jepa_wms")
    assert (jepa.normalisation, jepa.proprio_width, jepa.rollout_steps) == ("imagenet", 16, 2)
    assert (jepa.window, jepa.attention_window, jepa.context, jepa.alpha) == (4, 3, 2, 0.1)
    assert jepa.context + jepa.planner.horizon <= jepa.history
    assert (jepa.planner.elites, jepa.planner.horizon, jepa.replan_every) == (10, 6, 6)
    assert (jepa.evaluation.episodes, jepa.evaluation.budget) == (96, 30)


def test_jepa_wms_begins_with_open_gates_and_rescaled_residual_branches():
    shape = {"heads": 2, "head_width": 8, "hidden": 256, "dropout": 0.0}
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        plain = Predictor(64, **shape, layers=3)  # type: ignore[arg-type]
        torch.random.default_generator.manual_seed(0)
        scaled = Predictor(64, **shape, layers=3, rescale=True)  # type: ignore[arg-type]
        open_gates = Predictor(64, **shape, modulation_std=0.2)  # type: ignore[arg-type]
    for number, (one, two) in enumerate(zip(plain.blocks, scaled.blocks, strict=True), 1):
        factor = (2 * number) ** 0.5
        torch.testing.assert_close(one.attention.out.weight / factor, two.attention.out.weight)
        torch.testing.assert_close(one.mlp[4].weight / factor, two.mlp[4].weight)
        assert torch.equal(one.mlp[1].weight, two.mlp[1].weight)
    deviation = open_gates.blocks[0].modulation[1].weight.std().item()
    assert deviation == pytest.approx(0.2, rel=0.02)
    assert not open_gates.blocks[0].modulation[1].bias.any()
