"""A LeWorldModel that stable-worldmodel built and saved gives the same numbers after conversion."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from wm_toolkit import Agent
from wm_toolkit.errors import CheckpointError, ConfigError, SpaceError
from wm_toolkit.recipes.published.artefact import Numbers, Origin
from wm_toolkit.recipes.published.lewm import convert_lewm, lewm_from_state_dict

DATA = Path(__file__).parent / "data"
ORIGIN = Origin(action=Numbers((-0.0087, 0.0068), (0.2019, 0.2002)))


@pytest.fixture(scope="module")
def stored():
    """Weights, and the inputs and outputs of the package's own code; see data/make_lewm_published.py."""
    return load_file(DATA / "lewm_published.safetensors")


@pytest.fixture
def weights(stored):
    return {n.removeprefix("weights/"): v for n, v in stored.items() if n.startswith("weights/")}


@pytest.fixture
def config():
    return json.loads((DATA / "lewm_published.json").read_text())


@pytest.fixture
def expected(stored):
    return {n.removeprefix("expected/"): v for n, v in stored.items() if n.startswith("expected/")}


def published(folder: Path, weights, config) -> tuple[Path, Path]:
    """The two files as they are released."""
    torch.save(weights, folder / "weights.pt")
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "weights.pt", folder / "config.json"


@pytest.fixture
def agent(tmp_path, weights, config):
    convert_lewm(*published(tmp_path, weights, config), tmp_path / "ours", origin=ORIGIN)
    return Agent.from_pretrained(tmp_path / "ours")


def assert_close(actual: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def start(model, expected, plan: int, seen: int):
    """The state after the first frames, with the actions of one plan between them."""
    state, action = model.initial(2), torch.zeros(2, 10)
    for t in range(seen):
        state = model.observe(state, action, {"image": expected["frames"][:, t]})
        action = expected["plans"][:, plan, t]
    return state


@torch.no_grad()
def test_the_artefact_embeds_frames_as_the_published_code_does(agent, expected):
    assert_close(agent.model.encode(expected["frames"]), expected["embedding"])


@pytest.mark.parametrize(("name", "length"), [("prediction", 3), ("short_prediction", 2)])
@torch.no_grad()
def test_it_predicts_after_every_frame_of_full_and_short_windows(agent, expected, name, length):
    model = agent.model
    condition = model.action_encoder(expected["actions"][:, :length])
    hidden = model.predictor(expected["embedding"][:, :length], condition)
    assert_close(model.predicted(hidden), expected[name])


@torch.no_grad()
def test_it_dreams_from_one_frame_beyond_its_history(agent, expected):
    model = agent.model
    dream = model.rollout(start(model, expected, 0, 1), expected["plans"])
    assert_close(model.features(dream), expected["rollout_1"][:, :, 1:])


@torch.no_grad()
def test_it_dreams_from_a_whole_history(agent, expected):
    model = agent.model
    model.context = 3
    for plan in range(3):
        dream = model.rollout(
            start(model, expected, plan, 3), expected["plans"][:, plan : plan + 1, 2:]
        )
        assert_close(model.features(dream)[:, 0], expected["rollout_3"][:, plan, 3:])


def test_batch_norm_statistics_come_along(agent, weights):
    norm = agent.model.projector[1]
    assert torch.equal(norm.running_var, weights["projector.net.1.running_var"])
    assert norm.num_batches_tracked == 1234


def test_the_artefact_knows_its_sizes_actions_protocol_and_origin(agent):
    config = agent.config
    assert (config.image_size, config.patch, config.width, config.layers) == (28, 14, 12, 2)
    assert (config.history, config.predictor_heads, config.head_width) == (3, 4, 5)
    assert (agent.spaces.block, agent.spaces.action_width) == (5, 10)
    assert agent.spaces.encode_action([-0.0087, 0.0068] * 5).abs().max() < 1e-6
    assert agent.info["evaluation"]["goal_offset"] == 25
    assert set(agent.info["converted"]) == {"weights.pt", "config.json"}


def newer(name: str) -> str:
    """What version 5 of transformers calls a tensor of the encoder."""
    for old, new in (
        (r"encoder\.encoder\.layer\.", "encoder.layers."),
        (r"attention\.attention\.(.)\w+\.", r"attention.\1_proj."),
        (r"attention\.output\.dense", "attention.o_proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"(layers\.\d+)\.output\.dense", r"\1.mlp.fc2"),
    ):
        name = re.sub(old, new, name)
    return name


def test_names_of_newer_transformers_mean_the_same(weights, config, expected):
    renamed = {newer(name): value for name, value in weights.items()}
    assert "encoder.layers.1.attention.v_proj.bias" in renamed
    assert "encoder.layers.1.mlp.fc2.bias" in renamed
    model = lewm_from_state_dict(renamed, config).model
    assert_close(model.encode(expected["frames"]).detach(), expected["embedding"])


def test_a_trainers_checkpoint_gives_the_model_within_it(tmp_path, weights, config, expected):
    inside = {f"model.{name}": value for name, value in weights.items()}
    whole = {"epoch": 3, "state_dict": {**inside, "sigreg.t": torch.ones(17)}}
    convert_lewm(*published(tmp_path, whole, config), tmp_path / "ours", origin=ORIGIN)
    model = Agent.from_pretrained(tmp_path / "ours").model
    assert_close(model.encode(expected["frames"]).detach(), expected["embedding"])


def test_without_spaces_actions_are_taken_as_they_are(weights, config):
    spaces = lewm_from_state_dict(weights, config).spaces
    actions = torch.full((10,), 3.5)
    assert torch.equal(spaces.encode_action(actions), actions)


# -- what is refused ---------------------------------------------------------------------------------
def test_a_missing_tensor_is_named_as_the_file_names_it(weights, config):
    del weights["encoder.encoder.layer.1.attention.attention.key.bias"]
    with pytest.raises(
        CheckpointError, match=r"lacks 1 of 91 .*layer\.1\.attention\.attention\.key"
    ):
        lewm_from_state_dict(weights, config)


def test_a_tensor_without_a_place_is_named(weights, config):
    weights["predictor.transformer.input_proj.weight"] = torch.ones(3, 3)
    with pytest.raises(CheckpointError, match=r"no place for: predictor\.transformer\.input_proj"):
        lewm_from_state_dict(weights, config)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(weights, config):
    weights["pred_proj.net.0.weight"] = torch.ones(25, 12)
    with pytest.raises(CheckpointError, match=r"pred_proj\.net\.0\.weight \(25, 12\) instead"):
        lewm_from_state_dict(weights, config)


def test_weights_of_something_else_are_refused(config):
    with pytest.raises(CheckpointError, match="lacks 91 of 91 tensors"):
        lewm_from_state_dict({"weight": torch.ones(2)}, config)


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("predictor", "depth", None, "does not say 'predictor.depth'"),
        ("predictor", "depth", "6", "predictor.depth is '6', expected int"),
        ("predictor", "hidden_dim", 24, "predictor.hidden_dim is 24, expected 12"),
        ("encoder", "hidden_act", "relu", "encoder.hidden_act is not known"),
        ("encoder", "size", "tyni", "Did you mean 'tiny'"),
        ("encoder", "intermediate_size", 24, "expected 48"),
        ("pred_proj", "hidden_dim", 32, "pred_proj.hidden_dim is 32, expected 24"),
        ("projector", "norm_fn", {"_target_": "torch.nn.LayerNorm"}, "expected 'torch.nn.Batch"),
    ],
)
def test_a_config_of_another_model_is_refused_by_name(
    weights, config, section, name, value, message
):
    config = copy.deepcopy(config)
    config[section][name] = value
    with pytest.raises(ConfigError, match=re.escape(message)):
        lewm_from_state_dict(weights, config)


def test_without_action_statistics_it_says_where_to_get_them(tmp_path, weights, config):
    with pytest.raises(ConfigError, match=r"--data.*--mean, --std"):
        convert_lewm(*published(tmp_path, weights, config), tmp_path / "ours", origin=Origin())
    assert not (tmp_path / "ours").exists()


def test_another_frame_skip_does_not_fit(tmp_path, weights, config):
    files = published(tmp_path, weights, config)
    with pytest.raises(SpaceError, match=r"10 wide, but 2 actions of 2 numbers are 4 wide"):
        convert_lewm(*files, tmp_path / "ours", origin=ORIGIN, frame_skip=2)


def test_settings_that_are_no_json_are_refused(tmp_path, weights, config):
    files = published(tmp_path, weights, config)
    files[1].write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        convert_lewm(*files, tmp_path / "ours", origin=ORIGIN)
