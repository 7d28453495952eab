"""timm imports beside whatever torchvision there is."""

from __future__ import annotations

import torch

from wm_toolkit.nn.timm_import import import_timm


def test_timm_builds_a_dinov2_backbone_here():
    timm = import_timm()
    assert "vit_small_patch14_dinov2" in timm.list_models("vit_small_patch14_dinov2*")
    with torch.device("meta"):
        model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=98)
    # Twelve blocks of width 384 with biases, LayerScale and an MLP four times as wide.
    assert sum(p.numel() for p in model.blocks.parameters()) == 12 * 1_775_232


def test_importing_twice_declares_nothing_twice():
    assert import_timm() is import_timm()
    assert hasattr(torch.ops.torchvision, "nms")
