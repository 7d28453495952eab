"""LeWorldModel: causal, exact in pieces, right at evaluation."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import wm_toolkit
from wm_toolkit.batch import Batch
from wm_toolkit.errors import ShapeError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.models.lewm import LeWorldModel
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


def test_a_rollout_equals_the_plain_loop_for_rows_of_different_age(batch, rng):
    model = make().eval()
    frames = batch.obs["image"]
    window = model.observe(model.initial(6), torch.zeros(6, 4), {"image": frames[:, 0]})
    older = model.observe(window, batch.action[:, 0], {"image": frames[:, 1]})
    keep = torch.tensor([True, False, True, True, False, False])
    actions = torch.randn(6, 3, 5, 4, generator=rng)
    for state in (window, older, older.where(keep, window)):
        with torch.no_grad():
            fast = model.rollout(state, actions)
            slow = WorldModel.rollout(model, state, actions)
        for one, two in zip(fast.leaves(), slow.leaves(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


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
