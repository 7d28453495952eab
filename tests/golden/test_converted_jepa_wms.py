"""State dicts as JEPA-WMs releases them: its DINO-WM baselines are converted, other predictors refused."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from wm_toolkit.batch import Batch
from wm_toolkit.checkpoint import before_loading
from wm_toolkit.errors import CheckpointError, ConfigError
from wm_toolkit.models.dino_wm import FEATURES
from wm_toolkit.recipes.published.artefact import Numbers, Origin
from wm_toolkit.recipes.published.dino_wm import ACTIONS, dino_wm_agent, sized
from wm_toolkit.recipes.published.jepa_wms import jepa_wms_config, read_parts, shortened
from wm_toolkit.recipes.published.settings import Settings

DATA = Path(__file__).parent / "data"
ORIGIN = Origin(action=ACTIONS["pusht"], proprio=Numbers((0.0,) * 4, (1.0,) * 4))
SETTINGS = {
    "data": {
        "datasets": ["PushT"],
        "img_size": 28,
        "custom": {"frameskip": 5, "action_skip": 1, "num_hist": 3, "num_pred": 1},
    },
    "data_aug": {"normalize": [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], "reprob": 0.0},
    "model": {
        "tubelet_size_enc": 1,
        "action_conditioning": "feature",
        "visual_encoder": {"enc_type": "dino", "enc_version": "dinov2_vits14"},
        "predictor": {"pred_type": "dino_wm", "pred_num_heads": 2, "use_rope": True},
        "wm_encoding": {"normalize_reps": False},
    },
}


@pytest.fixture(scope="module")
def stored():
    return load_file(DATA / "dino_wm_published.safetensors")


def content(stored) -> dict:
    """A released checkpoint: wrapped names, and positions for one frame more than are ever used."""
    parts = {
        part: {
            f"module.{name.removeprefix(f'{part}/')}": value
            for name, value in stored.items()
            if name.startswith(f"{part}/")
        }
        for part in ("predictor", "action_encoder", "proprio_encoder")
    }
    table = parts["predictor"]["module.pos_embedding"]
    parts["predictor"]["module.pos_embedding"] = torch.cat([table, table[:, :4] + 9], 1)
    return {**parts, "opt": {"state": {0: {"exp_avg": torch.ones(3)}}}, "scaler": None, "epoch": 49}


def changed(name: str, value) -> Settings:
    values = copy.deepcopy(SETTINGS)
    *path, last = name.split(".")
    section = values
    for part in path:
        section = section[part]
    section[last] = value
    return Settings(values, "pt.yaml")


def converted(path: Path, settings: Settings):
    config = jepa_wms_config(settings, encoder_weights="random")
    parts = shortened(read_parts(path), config)
    config = dataclasses.replace(sized(config, parts, "pt.yaml"), encoder_block=0)
    with before_loading():  # the encoder is not in the file, and not looked at
        return dino_wm_agent(config, parts, ORIGIN, frame_size=28)


@torch.no_grad()
def test_a_dino_wm_baseline_predicts_as_published(stored, tmp_path):
    torch.save(content(stored), tmp_path / "jepa-latest.pth.tar")
    agent = converted(tmp_path / "jepa-latest.pth.tar", Settings(SETTINGS, "pt.yaml"))
    model = agent.model
    batch = Batch(
        obs={"proprio": stored["expected/proprio"]},
        action=stored["expected/actions"],
        is_first=torch.zeros(2, 3, dtype=torch.bool),
        extras={FEATURES + "image": stored["expected/tokens"]},
    )
    frames = model.frames(batch)
    out = model.following(frames, model.predictor(frames, model.action_encoder(batch.action)))
    torch.testing.assert_close(out, stored["expected/prediction"][..., :-10], rtol=0, atol=1e-5)
    assert (agent.config.history, agent.config.context, agent.config.normalisation) == (
        3,
        2,
        "half",
    )
    assert (agent.config.planner.horizon, agent.config.replan_every, agent.config.alpha) == (
        6,
        6,
        0.1,
    )


def test_a_baseline_without_proprioception_has_none(stored, tmp_path):
    """The predictor's tokens are ten numbers narrower, then."""
    whole = content(stored)
    whole["proprio_encoder"] = None
    keep = [*range(384), *range(394, 404)]
    for name, value in whole["predictor"].items():
        for axis in range(value.ndim):
            if value.shape[axis] == 404:
                value = value.index_select(axis, torch.tensor(keep))
        whole["predictor"][name] = value
    torch.save(whole, tmp_path / "jepa.pth.tar")
    agent = converted(tmp_path / "jepa.pth.tar", Settings(SETTINGS, "pt.yaml"))
    assert list(agent.spaces.observation) == ["image"]
    assert agent.model.proprio_encoder is None
    assert agent.model.predictor.width == 394


def test_imagenet_normalisation_is_recognised():
    given = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]
    config = jepa_wms_config(changed("data_aug.normalize", given), encoder_weights="hub")
    assert config.normalisation == "imagenet"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model.predictor.pred_type", "AdaLN", "pred_type is 'AdaLN'; only DINO-WM predictors"),
        ("model.predictor.pred_type", "vjepa2_ac", "Train the preset dino_wm.jepa_wms instead"),
        ("model.predictor.pred_num_heads", None, "does not say 'model.predictor.pred_num_heads'"),
        ("model.visual_encoder.enc_type", "vjepa", "enc_type is 'vjepa', expected 'dino'"),
        ("model.visual_encoder.enc_version", "dinov3_vitl16", "enc_version is 'dinov3_vitl16'"),
        ("model.wm_encoding.normalize_reps", True, "normalize_reps is True, expected False"),
        ("data_aug.normalize", [[0, 0, 0], [1, 1, 1]], "data_aug.normalize is [[0, 0, 0]"),
        ("data_aug.normalize", None, "data_aug.normalize is None"),
        ("data.custom.action_skip", 2, "action_skip is 2, expected 1"),
    ],
)
def test_settings_of_another_model_are_refused_by_name(name, value, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        jepa_wms_config(changed(name, value), encoder_weights="hub")


def test_a_predictor_of_other_tensors_is_no_dino_wm(tmp_path):
    torch.save(
        {
            "predictor": {"module.predictor_blocks.0.attn.qkv.weight": torch.ones(3, 1)},
            "action_encoder": {"module.patch_embed.weight": torch.ones(1, 1, 1)},
        },
        tmp_path / "jepa.pth.tar",
    )
    with pytest.raises(CheckpointError, match="has no 'pos_embedding'; it holds no DINO-WM"):
        read_parts(tmp_path / "jepa.pth.tar")


def test_too_few_positions_are_counted(stored, tmp_path):
    torch.save(content(stored), tmp_path / "jepa.pth.tar")
    config = jepa_wms_config(changed("data.custom.num_hist", 5), encoder_weights="hub")
    with pytest.raises(CheckpointError, match="has 16 positions, fewer than the 20 of 5 frames"):
        shortened(read_parts(tmp_path / "jepa.pth.tar"), config)
