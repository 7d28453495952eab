"""Tensors change their names and shapes and are never left behind; settings are asked for by name."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from wm_toolkit.errors import CheckpointError, ConfigError
from wm_toolkit.recipes.published.names import count, load_renamed, without_prefix
from wm_toolkit.recipes.published.settings import Settings, read_settings

RULES = [
    (r"0\.(\w+)", r"query.\1 key.\1"),
    (r"1\.weight", r"conv.kernel"),
    (r"1\.bias", r"conv.offset"),
]


def ours() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(12, 2))


def theirs() -> dict[str, torch.Tensor]:
    names = {"query": (2, 3), "key": (2, 3)}
    state = {f"{n}.weight": torch.rand(shape) for n, shape in names.items()}
    state |= {f"{n}.bias": torch.rand(2) for n in names}
    return {**state, "conv.kernel": torch.rand(2, 3, 2, 2), "conv.offset": torch.rand(2)}


def test_parts_are_concatenated_in_order_and_kernels_flattened():
    module, state = ours(), theirs()
    load_renamed(module, state, RULES, "file")
    x = torch.rand(5, 3)
    wanted = torch.cat(
        [x @ state[f"{n}.weight"].T + state[f"{n}.bias"] for n in ("query", "key")], 1
    )
    torch.testing.assert_close(module[0](x), wanted)
    image = torch.rand(1, 3, 2, 2)
    out = nn.functional.conv2d(image, state["conv.kernel"], state["conv.offset"])
    torch.testing.assert_close(module[1](image.flatten(1)), out.flatten(1))


def test_half_precision_becomes_single():
    module, state = ours(), {name: value.half() for name, value in theirs().items()}
    load_renamed(module, state, RULES, "file")
    assert module[1].weight.dtype == torch.float32
    assert torch.equal(module[1].bias, state["conv.offset"].float())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_training_that_had_failed_is_refused(bad):
    state = theirs()
    state["key.bias"][1] = bad
    with pytest.raises(CheckpointError, match=r"1 tensors with NaN or infinity: key\.bias"):
        load_renamed(ours(), state, RULES, "file")


def test_a_module_that_was_refused_is_as_it_was():
    module, state = ours(), theirs()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state["conv.kernel"] = torch.rand(2, 3, 3, 2)
    with pytest.raises(CheckpointError, match=r"conv\.kernel \(2, 3, 3, 2\) instead of \(2, 12\)"):
        load_renamed(module, state, RULES, "file")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_long_lists_of_names_are_cut():
    with pytest.raises(CheckpointError, match=r"lacks 6 of 6 tensors: [^,]+, [^,]+, [^,]+ \.\.\.;"):
        load_renamed(ours(), {}, RULES, "file")


def test_unused_tensors_are_told_from_unknown_ones():
    state = {**theirs(), "pooler.weight": torch.ones(1), "decoder.weight": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"has 1 tensors .* no place for: decoder\.weight"):
        load_renamed(ours(), state, RULES, "file", unused=[r"pooler\..+"])


@pytest.mark.parametrize("prefix", ["", "model.", "state_dict.model."])
def test_a_trainers_prefix_goes_with_everything_outside_it(prefix):
    inside = {"net.pos": torch.ones(1), "head.weight": torch.zeros(2)}
    state = {f"{prefix}{name}": value for name, value in inside.items()}
    if prefix:
        state["sigreg.knots"] = torch.ones(17)
    assert without_prefix(state, "net.pos").keys() == inside.keys()


def test_of_several_models_the_outermost_is_taken():
    state = {"net.pos": torch.ones(1), "ema.net.pos": torch.zeros(1)}
    assert without_prefix(state, "net.pos")["net.pos"] == 1


def test_blocks_are_counted_by_their_largest_number():
    names = ["layers.0.weight", "layers.11.weight", "layers.2.weight", "other.40.weight"]
    assert count(names, r"layers\.(\d+)\.") == 12
    assert count(names, r"blocks\.(\d+)\.") == 0


# -- settings ------------------------------------------------------------------------------------------
def test_settings_are_found_by_dotted_names_and_types():
    settings = Settings({"a": {"b": 3, "c": True, "d": None}}, "file.yaml")
    assert settings.get("a.b", int) == 3
    assert settings.get("a.b", float) == 3.0
    assert settings.get("a.d", int, 7) == 7
    assert settings.get("a.none.below", str, "x") == "x"
    for name, kind in (("a.c", int), ("a.b", str), ("a.b", bool)):
        with pytest.raises(
            ConfigError, match=rf"file.yaml: {name} is .*, expected {kind.__name__}"
        ):
            settings.get(name, kind)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "!!python/object/apply:os.system ['touch it_ran']", "a.yaml is not plain YAML"),
        ("a.yaml", "[1, 2]", "a.yaml holds a list, expected settings by name"),
        ("a.yaml", "a: [", "a.yaml is not plain YAML"),
        ("a.json", "3", "a.json holds a int"),
    ],
)
def test_settings_that_are_none_are_refused(tmp_path, monkeypatch, name, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        read_settings(tmp_path / name)
    assert not (tmp_path / "it_ran").exists()


def test_a_missing_file_of_settings_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.yaml does not exist"):
        read_settings(tmp_path / "none.yaml")
