"""LeWorldModel: causal, exact in pieces, right at evaluation."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import wm_toolkit
from wm_toolkit.batch import Batch
from wm_toolkit.errors import ConfigError, ShapeError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.models.lewm import LeWorldModel
from wm_toolkit.models.window import Window
from wm_toolkit.spaces import Spaces

TINY = {
    "image_size": 16, "patch": 8, "width": 12, "layers": 1, "embedding": 8, "projector_hidden": 16,
    "action_hidden": 8, "predictor_width": 12, "predictor_layers": 2, "predictor_heads": 2,
    "head_width": 4, "predictor_hidden": 16, "slices": 8, "decoder": False,
}  # fmt: skip


def make(**changes) -> LeWorldModel:
    image = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    spaces = Spaces({"image": image}, gym.spaces.Box(-1, 1, (2,), np.float32)).blocked(2)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = wm_toolkit.build("lewm.small", spaces, **(TINY | changes)).model
        # Blocks start as the identity; give them something to say.
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return model  # type: ignore[return-value]


@pytest.fixture
def batch(rng) -> Batch:
    frames = torch.randint(0, 256, (6, 4, 16, 16, 3), generator=rng, dtype=torch.uint8)
    first = torch.zeros(6, 4, dtype=torch.bool)
    return Batch({"image": frames}, torch.randn(6, 4, 4, generator=rng), first)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        yield


def gradients(model: LeWorldModel, batch: Batch) -> tuple[dict, list[torch.Tensor]]:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(1)
        losses = model(batch)
    total = losses["prediction"].mean() + 0.09 * losses["sigreg"]
    return losses, list(torch.autograd.grad(total, list(model.parameters())))


def test_the_loss_is_the_squared_error_of_teacher_forced_predictions(batch):
    model = make().eval()
    losses = model(batch)
    z = model.encode(batch.obs["image"])
    for t in range(3):
        window = model.initial(6)
        for i in range(t + 1):
            previous = batch.action[:, i - 1] if i else torch.zeros(6, 4)
            window = model.observe(window, previous, {"image": batch.obs["image"][:, i]})
        predicted = model.features(model.imagine(window, batch.action[:, t]))
        error = (predicted - z[:, t + 1]).square().mean(-1)
        torch.testing.assert_close(losses["prediction"][:, t], error, atol=1e-5, rtol=1e-4)


def test_the_target_is_not_detached(batch):
    """Both sides of the prediction error train the encoder: no stop-gradient (LeWorldModel)."""
    model, seen = make(), []

    def keep(module, args, out):
        out.retain_grad()
        seen.append(out)

    model.projector.register_forward_hook(keep)
    model(batch)["prediction"].mean().backward()
    grad = seen[0].grad.view(6, 4, -1)
    assert grad[:, 0].abs().sum() > 0  # the first frame is only ever an input
    assert grad[:, -1].abs().sum() > 0  # the last frame is only ever a target


def test_encoding_in_pieces_gives_the_same_loss_and_gradient(batch):
    whole, pieces = make(), make()
    assert pieces.microbatches(4)
    losses, grads = gradients(whole, batch)
    other, other_grads = gradients(pieces, batch)
    for name in losses:
        torch.testing.assert_close(losses[name], other[name], rtol=1e-5, atol=1e-6)
    for one, two in zip(grads, other_grads, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def aged(model: LeWorldModel, batch: Batch) -> Window:
    """Six windows that hold 0, 1, 2, 3, 3 and 1 frames."""
    state = model.initial(6)
    for t, rows in enumerate(([0], [0, 1, 5], [0, 1, 5, 2])):
        keep = torch.ones(6, dtype=torch.bool)
        keep[rows] = False
        action = batch.action[:, t - 1] if t else torch.zeros(6, 4)
        seen = model.observe(state, action, {"image": batch.obs["image"][:, t]})
        state = seen.where(keep, state)
    return state


@pytest.mark.parametrize("rows", [[0], [1, 5], [2], [3, 4], [0, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("history", [1, 2, 3])
def test_a_rollout_equals_the_plain_loop_whatever_the_rows_have_seen(history, rows, batch, rng):
    model = make(history=history).eval()
    state = aged(model, batch)[torch.tensor(rows)]
    actions = torch.randn(len(rows), 3, 5, 4, generator=rng)
    with torch.no_grad():
        fast = model.rollout(state, actions)
        slow = WorldModel.rollout(model, state, actions)
    for one, two in zip(fast.leaves(), slow.leaves(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_rollout_is_that_of_the_plain_loop(batch, rng):
    model = make().eval()
    state = aged(model, batch).detach()
    actions = torch.randn(6, 2, 5, 4, generator=rng).requires_grad_()
    grads = [
        torch.autograd.grad(model.features(rollout(model, state, actions)).square().sum(), actions)
        for rollout in (LeWorldModel.rollout, WorldModel.rollout)
    ]
    torch.testing.assert_close(grads[0][0], grads[1][0], rtol=1e-3, atol=1e-4)
    assert grads[0][0].abs().sum() > 0


def test_a_rollout_computes_no_frame_twice_that_the_sliding_window_does_not_move(batch, rng):
    """One frame seen, history 3: 1 + 1 + 1 frames while the window grows, then 3 and 3."""
    model, passes = make().eval(), []
    block = model.predictor.blocks[0]
    block.mlp.register_forward_hook(lambda module, args, out: passes.append(args[0].shape[:2]))
    state = model.observe(model.initial(6), torch.zeros(6, 4), {"image": batch.obs["image"][:, 0]})
    with torch.no_grad():
        model.rollout(state, torch.randn(6, 3, 5, 4, generator=rng))
    assert [tuple(shape) for shape in passes] == [(18, 1), (18, 1), (18, 1), (18, 3), (18, 3)]


def test_frames_seen_before_the_plan_are_computed_once_for_all_plans_of_a_row(batch, rng):
    model, passes = make().eval(), []
    block = model.predictor.blocks[0]
    block.mlp.register_forward_hook(lambda module, args, out: passes.append(args[0].shape[:2]))
    state = aged(model, batch)[3:5]
    with torch.no_grad():
        model.rollout(state, torch.randn(2, 3, 3, 4, generator=rng))
    assert [tuple(s) for s in passes] == [(2, 2), (6, 1), (2, 1), (6, 2), (6, 3)]


def test_a_context_limits_what_a_dream_starts_from_but_not_what_it_grows_to(batch, rng):
    images = batch.obs["image"]
    narrow, wide = make(context=1).eval(), make(context=None).eval()
    no_action, actions = torch.zeros(6, 4), torch.randn(6, 2, 4, 4, generator=rng)
    with torch.no_grad():
        seen = narrow.observe(narrow.initial(6), no_action, {"image": images[:, 0]})
        seen = narrow.observe(seen, batch.action[:, 0], {"image": images[:, 1]})
        only = wide.observe(wide.initial(6), no_action, {"image": images[:, 1]})
        torch.testing.assert_close(
            narrow.features(narrow.rollout(seen, actions)),
            wide.features(wide.rollout(only, actions)),
        )
        assert int(narrow.rollout(seen, actions).count.max()) == narrow.history


def test_a_context_longer_than_the_history_is_refused():
    with pytest.raises(ConfigError, match="context is 4, expected 1 to history = 3"):
        make(context=4)


def test_what_lies_in_the_padding_changes_nothing(batch):
    model = make().eval()
    state = model.observe(model.initial(6), torch.zeros(6, 4), {"image": batch.obs["image"][:, 0]})
    dirty = state.replace(
        tokens=torch.cat([state.tokens[:, :-1] + 100, state.tokens[:, -1:]], 1),
        actions=state.actions + 100,
    )
    clean = model.features(model.imagine(state, batch.action[:, 0]))
    torch.testing.assert_close(clean, model.features(model.imagine(dirty, batch.action[:, 0])))


def test_calibration_makes_evaluation_agree_with_the_training_data(batch):
    model = make()
    model.calibrate([batch])
    model.eval()
    z = model.encode(batch.obs["image"]).flatten(0, 1)
    hidden = model.projector[1](model.projector[0](model.encoder(images(batch))))
    gain, bias = model.projector[1].weight, model.projector[1].bias
    normal = (hidden - bias) / gain
    torch.testing.assert_close(normal.mean(0), torch.zeros(16), atol=1e-4, rtol=0)
    # BatchNorm divides by the biased deviation in training and tracks the unbiased one.
    ratio = (23 / 24) ** 0.5
    torch.testing.assert_close(
        normal.std(0, correction=0), torch.full((16,), ratio), atol=0.02, rtol=0
    )
    assert torch.isfinite(z).all()


def images(batch: Batch) -> torch.Tensor:
    from wm_toolkit.nn.image import to_float

    frames = batch.obs["image"].flatten(0, 1)
    return to_float(frames, size=16, mean=(1.0, 1.0, 1.0), std=(0.5, 0.5, 0.5))


def test_the_decoder_reads_the_model_and_never_shapes_it(batch):
    model = make(decoder=True)
    image = model.heads["decoder"](model.encode(batch.obs["image"]))
    assert image.uint8.shape == batch.obs["image"].shape
    assert image.uint8.dtype == torch.uint8
    model(batch)["prediction"].mean().backward()
    assert all(p.grad is None for p in model.heads["decoder"].parameters())


def test_a_window_longer_than_the_history_is_refused(batch):
    model = make(history=2)
    with pytest.raises(ShapeError, match="windows of 2 to 3 frames, got 4"):
        model(batch)


def test_the_average_of_the_weights_is_a_training_option(batch):
    image = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    spaces = Spaces({"image": image}, gym.spaces.Box(-1, 1, (2,), np.float32)).blocked(2)
    agent = wm_toolkit.build("lewm.small", spaces, **TINY, train__ema=0.5)
    before = agent.model.projector[0].weight.detach().clone()
    agent.learn(batch)
    after = agent.model.projector[0].weight.detach().clone()
    with agent.learner.evaluation_weights():
        averaged = agent.model.projector[0].weight.detach().clone()
    torch.testing.assert_close(averaged, (before + after) / 2)
    assert not torch.equal(before, after)
