"""DINO-WM: teacher forcing as written, causal, frozen where it must be, goals as published."""

from __future__ import annotations

import copy
import functools

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import wm_toolkit
from wm_toolkit.batch import Batch
from wm_toolkit.checkpoint import before_loading
from wm_toolkit.encoders import dinov2_weights
from wm_toolkit.encoders.dinov2 import DINOv2
from wm_toolkit.errors import ConfigError, ShapeError, SpaceError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.models.dino_wm import DinoWM
from wm_toolkit.models.predictor import Predictor
from wm_toolkit.models.window import Window
from wm_toolkit.planning.objective import Goal
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import cat

TINY = {
    "encoder_weights": "random", "encoder_block": 0, "image_size": 28, "layers": 2, "heads": 2,
    "head_width": 8, "hidden": 16, "decoder": False, "dropout": 0.0,
}  # fmt: skip
CONCAT = {"conditioning": "concat", "positions": "learned", "width": None}
ROTARY = {
    "conditioning": "adaln", "positions": "rotary", "width": 24, "modulation_std": 0.2,
    "attention_window": 3, "history": 8, "train_history": 3, "rollout_steps": 2, "context": 2,
}  # fmt: skip
FORMS = {"concat": CONCAT, "rotary": ROTARY, "mixed": ROTARY | {"positions": "mixed"}}


def spaces(proprio: bool = True) -> Spaces:
    seen: dict[str, gym.Space] = {"image": gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)}
    if proprio:
        seen["proprio"] = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    return Spaces(seen, gym.spaces.Box(-1, 1, (2,), np.float32)).blocked(2)


def make(proprio: bool = True, **changes) -> DinoWM:
    return copy.deepcopy(_made(proprio, tuple(changes.items())))


@functools.cache
def encoder() -> DINOv2:
    return DINOv2(image_size=28, block=0, weights="random", normalisation="half")


@functools.cache
def _made(proprio: bool, changes: tuple) -> DinoWM:
    with before_loading(), torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = wm_toolkit.build("dino_wm", spaces(proprio), **(TINY | dict(changes))).model
        # Half of what a fresh network says is far smaller than the rest; let all parts speak.
        with torch.no_grad():
            for name, p in model.named_parameters():
                if not name.startswith("encoder."):
                    p.add_(0.05 * torch.randn_like(p))
    assert isinstance(model, DinoWM)
    model.encoder.load_state_dict(encoder().state_dict())  # drawn once for all tests
    return model.eval()


def windows(rows: int, length: int, proprio: bool = True, seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    obs = {
        "image": torch.randint(0, 256, (rows, length, 16, 16, 3), generator=rng, dtype=torch.uint8)
    }
    if proprio:
        obs["proprio"] = torch.randn(rows, length, 4, generator=rng)
    first = torch.zeros(rows, length, dtype=torch.bool)
    return Batch(obs, torch.randn(rows, length, 4, generator=rng), first)


def at(batch: Batch, t: int) -> dict[str, torch.Tensor]:
    return {key: value[:, t] for key, value in batch.obs.items()}


def aged(model: DinoWM, batch: Batch, ages: list[int]) -> Window:
    """Rows of windows that hold so many frames each."""
    states = []
    for row, age in enumerate(ages):
        one = batch[row : row + 1]
        state = model.initial(1)
        for t in range(age):
            action = one.action[:, t - 1] if t else torch.zeros(1, 4)
            state = model.observe(state, action, at(one, t))
        states.append(state)
    return cat(states)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("proprio", [True, False])
def test_teacher_forcing_is_the_error_of_imagining_from_every_prefix(form, proprio):
    model, batch = make(proprio, **(FORMS[form] | {"context": None})), windows(3, 4, proprio)
    term = model(batch)["prediction"]
    target = model.frames(batch)
    for t in range(3):
        window = model.initial(3)
        for i in range(t + 1):
            previous = batch.action[:, i - 1] if i else torch.zeros(3, 4)
            window = model.observe(window, previous, at(batch, i))
        guess = model.imagine(window, batch.action[:, t]).newest
        error = (guess - target[:, t + 1]).square().mean((-2, -1))
        torch.testing.assert_close(term[:, t], error, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_later_frame_never_changes_an_earlier_prediction(form):
    model, batch = make(**FORMS[form]), windows(2, 4)
    x, actions = model.frames(batch)[:, :3], model.action_encoder(batch.action[:, :3])
    for j in range(3):
        changed, other = x.clone(), actions.clone()
        changed[:, j, 1] += 1
        other[:, j] += 1
        one, two = model.predictor(x, actions), model.predictor(changed, other)
        torch.testing.assert_close(one[:, :j], two[:, :j], rtol=0, atol=1e-6)
        assert ((one - two)[:, j:].abs().amax((0, 2, 3)) > 1e-4).all()


def test_attention_with_a_window_of_three_looks_back_no_further():
    model, batch = make(**(ROTARY | {"layers": 1})), windows(2, 7)
    x, actions = model.frames(batch), model.action_encoder(batch.action)
    changed = x.clone()
    changed[:, 1] += 1
    difference = model.predictor(x, actions) - model.predictor(changed, actions)
    reached = difference.abs().amax((0, 2, 3)) > 1e-5
    assert reached.tolist() == [False, True, True, True, False, False, False]


def test_rotary_positions_make_a_prediction_depend_on_differences_of_time_only():
    model, batch = make(**ROTARY), windows(2, 3)
    x = model.frames(batch)
    conditions = model.predictor.conditions(model.action_encoder(batch.action))
    early, _ = model.predictor.extend(x, conditions, None, 0, newest=False)
    late, _ = model.predictor.extend(x, conditions, None, 4, newest=False)
    torch.testing.assert_close(early, late, rtol=1e-4, atol=1e-5)
    patches = x.flip(2)  # the same tokens at other places of the grid are another frame
    moved, _ = model.predictor.extend(patches, conditions, None, 0, newest=False)
    assert (moved.flip(2) - early).abs().max() > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_predictor_and_embeddings_but_neither_encoder_nor_target(form):
    model, batch = make(**FORMS[form]).train(), windows(2, 4)
    seen = []

    def keep(module, args, out):
        out.retain_grad()
        seen.append(out)

    model.proprio_encoder.register_forward_hook(keep)
    sum(term.mean() for term in model(batch).values()).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("encoder."):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert seen[0].grad[:, :3].abs().sum() > 0
    assert not seen[0].grad[:, 3].any()  # the last frame is only ever a target


def test_the_second_rollout_step_continues_every_prefix_from_its_own_prediction():
    model, batch = make(**(ROTARY | {"context": None})), windows(3, 4)
    losses = model(batch)
    target = model.frames(batch)
    assert set(losses) == {"prediction", "rollout_2"}
    for t in range(2):
        window = model.initial(3)
        for i in range(t + 1):
            previous = batch.action[:, i - 1] if i else torch.zeros(3, 4)
            window = model.observe(window, previous, at(batch, i))
        for step in range(2):
            window = model.imagine(window, batch.action[:, t + step])
        error = (window.newest - target[:, t + 2]).square().mean((-2, -1))
        torch.testing.assert_close(losses["rollout_2"][:, t], error, atol=1e-5, rtol=1e-4)


def test_no_gradient_flows_from_one_rollout_step_into_the_one_before():
    """The last block's output of frame 0 enters the second step through the prediction alone."""
    model, batch = make(**(ROTARY | {"layers": 1})), windows(2, 3)
    made, real = [], model.following

    def following(frames, predicted):
        predicted.retain_grad()
        made.append(predicted)
        return real(frames, predicted)

    model.following = following
    model(batch)["rollout_2"].mean().backward()
    assert made[0].grad is None
    assert made[1].grad.abs().sum() > 0


@pytest.mark.parametrize("ages", [[1], [2, 2], [3], [0, 1, 2, 3]])
@pytest.mark.parametrize("history", [1, 2, 3])
def test_a_rollout_equals_the_plain_loop_whatever_the_rows_have_seen(history, ages, rng):
    model = make(**CONCAT, history=history, context=None)
    state = aged(model, windows(len(ages), 4), ages)
    actions = torch.randn(len(ages), 3, 5, 4, generator=rng)
    with torch.no_grad():
        fast = model.rollout(state, actions)
        slow = WorldModel.rollout(model, state, actions)
    for one, two in zip(fast.leaves(), slow.leaves(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", ["rotary", "mixed"])
@pytest.mark.parametrize("window", [1, 3, None])
@pytest.mark.parametrize(("ages", "horizon"), [([1, 2], 6), ([2, 2], 6), ([5, 1], 3), ([2], 9)])
def test_a_rotary_rollout_equals_the_plain_loop_within_and_beyond_the_history(
    positions, window, ages, horizon, rng
):
    options = {"positions": positions, "attention_window": window, "context": None}
    model = make(**(ROTARY | options))
    state = aged(model, windows(len(ages), 5), ages)
    actions = torch.randn(len(ages), 2, horizon, 4, generator=rng)
    with torch.no_grad():
        fast = model.rollout(state, actions)
        slow = WorldModel.rollout(model, state, actions)
    for one, two in zip(fast.leaves(), slow.leaves(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_a_rotary_rollout_computes_only_the_newest_frame(rng):
    model, passes = make(**ROTARY), []
    block = model.predictor.blocks[0]
    block.mlp.register_forward_hook(lambda module, args, out: passes.append(tuple(args[0].shape)))
    state = aged(model, windows(2, 2), [2, 2])
    passes.clear()
    with torch.no_grad():
        model.rollout(state, torch.randn(2, 3, 6, 4, generator=rng))
    assert passes == [(2, 1, 4, 24)] + 6 * [(6, 1, 4, 24)]


def test_the_windows_of_a_rollout_are_views_of_one_buffer(rng):
    model = make(**ROTARY)
    state = aged(model, windows(1, 2), [2])
    with torch.no_grad():
        along = model.rollout(state, torch.randn(1, 3, 6, 4, generator=rng))
    buffer = along.tokens.untyped_storage().nbytes()
    assert buffer == 3 * (8 + 6) * 4 * 394 * 4
    assert along.newest.untyped_storage().data_ptr() == along.tokens.untyped_storage().data_ptr()


@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0])
def test_the_distance_to_a_goal_is_the_published_objective(alpha, rng):
    model, batch = make(**CONCAT, alpha=alpha, context=None), windows(2, 2)
    start = model.observe(model.initial(2), torch.zeros(2, 4), at(batch, 0))
    obs = {f"goal/{key}": value for key, value in at(batch, 1).items()}
    actions = torch.randn(2, 3, 2, 4, generator=rng)
    with torch.no_grad():
        dream = model.rollout(start, actions)
        score = Goal(mode="last").bind(model, obs).score(model, actions, dream)
        goal = model.tokens(at(batch, 1))[:, None]
    last = dream.newest[:, :, -1]
    visual = (last[..., :384] - goal[..., :384]).square().mean((-2, -1))
    proprio = (last[..., 0, 384:] - goal[..., 0, 384:]).square().mean(-1)
    torch.testing.assert_close(-score, visual + alpha * proprio, rtol=1e-4, atol=1e-6)


def test_without_proprioception_tokens_are_the_visual_ones():
    model, batch = make(False, **CONCAT, feature_dtype="float32"), windows(2, 4, False)
    assert model.predictor.width == 394  # 384 + 10 of the action
    assert torch.equal(model.tokens(at(batch, 0)), model.encoder(batch.obs["image"][:, 0]).patches)


def test_observing_a_sequence_encodes_once_and_equals_the_loop():
    model, batch = make(**CONCAT, context=2), windows(3, 5)
    broken = batch.replace(is_first=torch.tensor([[1, 0, 0, 1, 0]] * 2 + [[0] * 5]).bool())
    for given in (batch, broken):
        fast, slow = model.observe_sequence(given), WorldModel.observe_sequence(model, given)
        for one, two in zip(fast.leaves(), slow.leaves(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_stored_features_give_the_numbers_that_frames_give():
    model, batch = make(**CONCAT, feature_dtype="float16", standardise_features=True), windows(2, 4)
    model.fit_inputs({}, [batch])
    stored = model.encoder(batch.obs["image"]).patches.half()
    column, identity = next(iter(model.stored_features().items()))
    without = {key: value for key, value in batch.obs.items() if key != "image"}
    instead = batch.replace(obs=without, extras={column: stored})
    assert column == "features/image"
    assert identity == model.encoder.identity | {"key": "image", "dtype": "float16"}
    torch.testing.assert_close(model(instead)["prediction"], model(batch)["prediction"])
    one, two = model.observe_sequence(instead), model.observe_sequence(batch)
    torch.testing.assert_close(model.features(one), model.features(two))


def test_inputs_are_standardised_with_what_was_fitted_and_it_is_saved():
    model, batch = make(**CONCAT, standardise_features=True), windows(8, 4)
    mean, std = torch.tensor([1.0, 2, 3, 4]), torch.tensor([2.0, 2, 2, 0])
    model.fit_inputs({"obs/proprio": (mean, std)}, [batch])
    visual = model.encode(batch.obs["image"]).flatten(0, 1)
    torch.testing.assert_close(visual.mean(0), torch.zeros(4, 384), atol=1e-4, rtol=0)
    channels = visual.var(0).mean(0)
    torch.testing.assert_close(channels, torch.ones(384), atol=1e-3, rtol=0)
    proprio = batch.obs["proprio"][:, 0]
    expected = model.proprio_encoder((proprio - mean) / torch.tensor([2.0, 2, 2, 1e-6]))
    torch.testing.assert_close(model.tokens(at(batch, 0))[:, 2, 384:], expected)
    other = make(**CONCAT, standardise_features=True)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.tokens(at(batch, 0)), model.tokens(at(batch, 0)))


def test_an_artefact_needs_neither_hub_nor_file_and_keeps_the_encoders_identity(
    tmp_path, monkeypatch
):
    real = make(**CONCAT)
    weights = tmp_path / "vit.safetensors"
    full = DINOv2(image_size=28, weights="random").vit.state_dict()
    save_file({key: value + 0.01 for key, value in full.items()}, weights)
    agent = wm_toolkit.build("dino_wm", spaces(), **(TINY | {"encoder_weights": str(weights)}))
    saved = agent.save_pretrained(tmp_path / "model")
    weights.unlink()
    monkeypatch.setattr(dinov2_weights, "from_hub", None)
    loaded = wm_toolkit.Agent.from_pretrained(saved)
    assert loaded.model.stored_features() == agent.model.stored_features()
    assert loaded.model.encoder.weights.startswith("sha256:")
    batch = windows(2, 4)
    agent.model.eval()
    assert torch.equal(loaded.model(batch)["prediction"], agent.model(batch)["prediction"])
    assert not torch.equal(loaded.model.tokens(at(batch, 0)), real.tokens(at(batch, 0)))


def test_training_and_the_decoder_beside_it_leave_encoder_and_model_alone():
    options = TINY | {"decoder": True, "decoder_width": 8, "decoder_inner": 4}
    agent = wm_toolkit.build("dino_wm", spaces(), **options)
    before = {k: v.clone() for k, v in agent.model.state_dict().items()}
    batch = windows(4, 4)
    first = agent.learn(batch)
    for _ in range(20):
        metrics = agent.learn(batch)
    after = agent.model.state_dict()
    changed = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"predictor", "action_encoder", "proprio_encoder", "heads"}
    assert float(metrics["loss/prediction"]) < float(first["loss/prediction"])
    assert float(metrics["probe/decoder"]) < float(first["probe/decoder"])
    picture = agent.model.predict("decoder", agent.model.observe_sequence(batch))
    assert picture.uint8.shape == batch.obs["image"].shape


def test_what_does_not_fit_is_refused():
    model = make(**CONCAT)
    with pytest.raises(ShapeError, match="windows of 2 to 4 frames, got 5"):
        model(windows(2, 5))
    with pytest.raises(SpaceError, match=r"reads 'proprio' beside the image.*got \['image'\]"):
        model.tokens({"image": windows(2, 1).obs["image"]})
    with pytest.raises(ConfigError, match="make 4 of 388"):
        DinoWM(spaces(), model.encoder, model.predictor, proprio_width=4)
    with pytest.raises(ConfigError, match="feature_dtype is 'int8'"):
        DinoWM(spaces(), model.encoder, model.predictor, feature_dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="conditioning is 'film'"):
        Predictor(8, conditioning="film")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="5 patches make no square"):
        Predictor(8, tokens=5, positions="rotary")
