"""A DINO-WM checkpoint in the released form gives the same numbers after conversion."""

from __future__ import annotations

import copy
import dataclasses
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from published_dino_wm import ProprioceptiveEmbedding, ViTPredictor, at_their_paths
from safetensors.torch import load_file
from torch import nn

from wm_toolkit import Agent
from wm_toolkit.batch import Batch
from wm_toolkit.checkpoint import before_loading
from wm_toolkit.errors import CheckpointError, ConfigError
from wm_toolkit.models.dino_wm import FEATURES
from wm_toolkit.models.window_model import FRAMES
from wm_toolkit.recipes.published.artefact import Numbers, Origin
from wm_toolkit.recipes.published.dino_wm import (
    ACTIONS,
    PROPRIO,
    convert_dino_wm,
    dino_wm_agent,
    dino_wm_config,
    read_parts,
)
from wm_toolkit.recipes.published.settings import Settings

DATA = Path(__file__).parent / "data"
PATCHES, VISUAL, ACTION = 4, 384, 10
ORIGIN = Origin(action=ACTIONS["pusht"], proprio=Numbers((0.0,) * 4, (1.0,) * 4))
# What `hydra.yaml` says; images of 32 px become 28 px, two patches a side.
HYDRA = """
img_size: 32
frameskip: 5
concat_dim: 1
num_hist: 3
num_pred: 1
num_action_repeat: 1
num_proprio_repeat: 1
training: {epochs: 100, batch_size: 32, encoder_lr: 1e-6}
env: {name: pusht, dataset: {_target_: datasets.pusht_dset.load_pusht_slice_train_val}}
encoder: {_target_: models.dino.DinoV2Encoder, name: dinov2_vits14, feature_key: x_norm_patchtokens}
predictor: {_target_: models.vit.ViTPredictor, depth: 6, heads: 2, mlp_dim: 2048, dropout: 0.1, emb_dropout: 0}
"""


@pytest.fixture(scope="module")
def stored():
    """Weights and outputs of another package's DINO-WM; see data/make_dino_wm_published.py."""
    return load_file(DATA / "dino_wm_published.safetensors")


@pytest.fixture
def expected(stored):
    return {n.removeprefix("expected/"): v for n, v in stored.items() if n.startswith("expected/")}


def published_modules(stored) -> dict[str, nn.Module]:
    modules: dict[str, nn.Module] = {
        "predictor": ViTPredictor(404, 2, 6, heads=2, width=3, patches=PATCHES, frames=3),
        "action_encoder": ProprioceptiveEmbedding(ACTION, 10),
        "proprio_encoder": ProprioceptiveEmbedding(4, 10),
    }
    for name, module in modules.items():
        own = {n.removeprefix(f"{name}/"): v for n, v in stored.items() if n.startswith(f"{name}/")}
        module.load_state_dict(own)
        module.eval()
    return modules


def write(path: Path, modules: dict) -> Path:
    """A checkpoint as the published trainer writes it: whole modules, their optimiser, the epoch."""
    optimizer = torch.optim.AdamW(modules["predictor"].parameters())
    with at_their_paths():
        torch.save({**modules, "predictor_optimizer": optimizer, "epoch": 2}, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(stored, tmp_path_factory):
    return write(tmp_path_factory.mktemp("published") / "model_2.pth", published_modules(stored))


def settings(**changes) -> Settings:
    return Settings({**yaml.safe_load(HYDRA), **changes}, "hydra.yaml")


def converted(path: Path) -> Agent:
    parts = read_parts(path)
    config = dino_wm_config(settings(), parts, encoder_weights="random")
    config = dataclasses.replace(config, encoder_block=0)
    with before_loading():
        return dino_wm_agent(config, parts, ORIGIN, frame_size=32)


@pytest.fixture(scope="module")
def model(checkpoint):
    """The converted model; its encoder has no numbers, for the checkpoint does not hold it."""
    return converted(checkpoint).model


@pytest.fixture
def frames(model, expected):
    """[2, 3, P, E] joined tokens of windows, from stored visual tokens and raw proprioception."""
    batch = Batch(
        obs={"proprio": expected["proprio"]},
        action=expected["actions"],
        is_first=torch.zeros(2, 3, dtype=torch.bool),
        extras={FEATURES + "image": expected["tokens"]},
    )
    return model.frames(batch).detach()


def assert_close(actual: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_released_form_is_what_the_stored_reference_computes(stored, expected):
    """The plain modules that the checkpoint is written from agree with the other package."""
    modules = published_modules(stored)
    proprio = modules["proprio_encoder"](expected["proprio"])
    action = modules["action_encoder"](expected["actions"])
    assert_close(torch.cat([proprio, action], -1), expected["joined"])
    extra = torch.cat([proprio, action], -1).unsqueeze(2).expand(-1, -1, PATCHES, -1)
    joined = torch.cat([expected["tokens"].float(), extra], -1)
    for name, length in (("prediction", 3), ("short_prediction", 2)):
        out = modules["predictor"](joined[:, :length].flatten(1, 2))
        assert_close(out.unflatten(1, (length, PATCHES)), expected[name])


def test_reading_leaves_no_published_module_behind(checkpoint):
    assert "models.vit" not in sys.modules
    assert set(read_parts(checkpoint).action) == {"patch_embed.weight", "patch_embed.bias"}
    assert "models.vit" not in sys.modules


def test_the_mask_and_the_optimisers_are_no_weights(checkpoint):
    names = set(read_parts(checkpoint).predictor)
    assert len(names) == 3 + 2 * 11
    assert "transformer.layers.0.0.bias" not in names


def test_frames_are_joined_as_published(frames, expected):
    assert_close(frames[..., :VISUAL], expected["tokens"].float())
    for patch in range(PATCHES):
        assert_close(frames[:, :, patch, VISUAL:], expected["joined"][..., :10])


@pytest.mark.parametrize(("name", "length"), [("prediction", 3), ("short_prediction", 2)])
@torch.no_grad()
def test_it_predicts_after_every_frame_of_full_and_short_windows(
    model, frames, expected, name, length
):
    action = model.action_encoder(expected["actions"][:, :length])
    known = frames[:, :length]
    assert_close(model.following(known, model.predictor(known, action)), expected[name][..., :-10])


@torch.no_grad()
def test_it_dreams_plans_beyond_its_history(model, frames, expected):
    start = model.observe(model.initial(1), torch.zeros(1, ACTION), {FRAMES: frames[:1, 0]})
    dream = model.rollout(start, expected["plans"])
    for place, step in enumerate((1, 4)):
        assert_close(dream.newest[:, :, step], expected["dream"][:, :, place, ..., :-10])


def test_sizes_come_from_the_tensors_and_the_rest_from_the_settings(checkpoint):
    config = dino_wm_config(settings(), read_parts(checkpoint), encoder_weights="hub")
    assert (config.layers, config.heads, config.head_width, config.hidden) == (2, 2, 3, 6)
    assert (config.history, config.frame_skip, config.image_size) == (3, 5, 28)
    assert (config.proprio_width, config.action_width) == (10, 10)
    assert (config.normalisation, config.resample, config.encoder_block) == (
        "half",
        "original",
        None,
    )
    assert config.feature_dtype == "float32"


def test_planner_and_goals_follow_the_environment(checkpoint):
    parts = read_parts(checkpoint)
    maze = dino_wm_config(settings(env={"name": "point_maze"}), parts, encoder_weights="hub")
    pusht = dino_wm_config(settings(), parts, encoder_weights="hub")
    assert (maze.alpha, maze.planner.iterations, maze.evaluation.goals) == (0.0, 10, "env")
    assert (pusht.alpha, pusht.planner.iterations, pusht.evaluation.goals) == (1.0, 30, "dataset")


@torch.no_grad()
def test_the_artefact_acts_on_frames_and_keeps_the_constants_of_push_t(
    checkpoint, tmp_path, frames, expected
):
    """From the two files to an agent, with the whole encoder and Push-T's published statistics."""
    hydra = tmp_path / "hydra.yaml"
    hydra.write_text(HYDRA)
    convert_dino_wm(checkpoint, hydra, tmp_path / "ours", origin=Origin(), encoder_weights="random")
    agent = Agent.from_pretrained(tmp_path / "ours")
    assert agent.recipe == "dino_wm"
    assert agent.spaces.mean == pytest.approx(ACTIONS["pusht"].mean)
    assert agent.spaces.observation["image"].shape == (32, 32, 3)
    assert set(agent.info["converted"]) == {"model_2.pth", "hydra.yaml"}
    mean, std = torch.tensor(PROPRIO["pusht"].mean), torch.tensor(PROPRIO["pusht"].std)
    raw = mean + std * expected["proprio"][0]
    image = torch.zeros(3, 32, 32, 3, dtype=torch.uint8)
    tokens = agent.model.tokens({"image": image, "proprio": raw})
    assert_close(tokens[:, 0, VISUAL:], frames[0, :, 0, VISUAL:])


def test_a_mask_that_was_saved_as_a_buffer_is_left_out(stored, tmp_path):
    modules = published_modules(stored)
    for attention, _ in modules["predictor"].transformer.layers:
        mask = attention.bias
        del attention.bias
        attention.register_buffer("bias", mask)
    path = write(tmp_path / "model.pth", modules)
    assert "transformer.layers.1.0.bias" in read_parts(path).predictor
    assert converted(path).config.layers == 2


# -- what is refused ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hist": None}, "does not say 'num_hist'"),
        ({"img_size": "${img}"}, "img_size is '${img}', expected int"),
        ({"concat_dim": 0}, "concat_dim is 0, expected 1"),
        ({"num_proprio_repeat": 7}, "num_proprio_repeat is 7, expected 1"),
        ({"num_hist": 2}, "has 12 positions, but 2 frames of 2 x 2 patches make 8"),
        ({"encoder": {"name": "resnet18"}}, "encoder.name is 'resnet18'"),
        ({"encoder": {"name": "dinov2_vits14", "feature_key": "x_norm_clstoken"}}, "feature_key"),
        ({"predictor": {"heads": 4}}, "6 numbers cannot be shared by 4 heads"),
    ],
)
def test_settings_of_another_model_are_refused_by_name(checkpoint, changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        dino_wm_config(settings(**changes), read_parts(checkpoint), encoder_weights="random")


def test_a_checkpoint_without_a_predictor_says_what_it_has(stored, tmp_path):
    with at_their_paths():
        torch.save({"epoch": 1, "action_encoder": nn.Linear(2, 2)}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"has no 'predictor'.*action_encoder, epoch"):
        read_parts(tmp_path / "model.pth")


def test_an_encoder_that_was_trained_as_well_is_refused(stored, tmp_path):
    modules = published_modules(stored)
    path = write(tmp_path / "model.pth", {**modules, "encoder": nn.Linear(2, 2)})
    with pytest.raises(CheckpointError, match="holds an 'encoder' of its own"):
        read_parts(path)


def test_a_tensor_of_another_shape_is_named(stored, tmp_path):
    modules = published_modules(stored)
    modules["predictor"].transformer.layers[1][1].net[1] = nn.Linear(404, 8)
    path = write(tmp_path / "model.pth", modules)
    with pytest.raises(CheckpointError, match=r"layers\.1\.1\.net\.1\.weight \(8, 404\) instead"):
        converted(path)


def test_a_predictor_with_more_than_ours_is_refused(stored, tmp_path):
    modules = published_modules(stored)
    modules["predictor"].shift_head = nn.Linear(2, 2)
    path = write(tmp_path / "model.pth", modules)
    with pytest.raises(CheckpointError, match=r"no place for: shift_head\.weight"):
        converted(path)


def test_a_missing_block_is_named(stored, tmp_path):
    modules = copy.deepcopy(published_modules(stored))
    del modules["predictor"].transformer.layers[1][0].to_qkv
    path = write(tmp_path / "model.pth", modules)
    with pytest.raises(
        CheckpointError, match=r"lacks 1 .*transformer\.layers\.1\.0\.to_qkv\.weight"
    ):
        converted(path)


def test_statistics_that_are_not_known_are_asked_for(checkpoint):
    parts = read_parts(checkpoint)
    config = dino_wm_config(settings(), parts, encoder_weights="random")
    with pytest.raises(ConfigError, match=r"deviation of the actions.*--mean, --std"):
        dino_wm_agent(config, parts, Origin(), frame_size=32)
    with (
        before_loading(),
        pytest.raises(ConfigError, match=r"of the proprioception.*--proprio-mean"),
    ):
        dino_wm_agent(config, parts, Origin(action=ACTIONS["pusht"]), frame_size=32)
    wrong = Origin(action=ACTIONS["pusht"], proprio=Numbers((0.0,), (1.0,)))
    with pytest.raises(
        ConfigError, match="reads 4 numbers of proprioception, the statistics are of 1"
    ):
        dino_wm_agent(config, parts, wrong, frame_size=32)
