"""stable-worldmodel, the closest peer, as its users run it."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wm_toolkit.cli.benchmarks.measure import installed
from wm_toolkit.errors import MissingPackageError, require
from wm_toolkit.nn.image import IMAGENET_MEAN, IMAGENET_STD
from wm_toolkit.nn.timm_import import import_timm
from wm_toolkit.training.seeding import own_stream

RIVAL = "stable-worldmodel"
SIZE, ACTION, FRAME_SKIP = 224, 10, 5
MODULATION_STD = 0.05  # AdaLN-zero begins as the identity; a trained model does not

CONFIG: dict[str, Any] = {
    "encoder": {"size": "tiny", "patch_size": 14, "image_size": SIZE},
    "predictor": {
        "num_frames": 3,
        "depth": 6,
        "heads": 16,
        "mlp_dim": 2048,
        "input_dim": 192,
        "hidden_dim": 192,
        "output_dim": 192,
        "dim_head": 64,
        "dropout": 0.1,
    },
    "action_encoder": {"input_dim": ACTION, "smoothed_dim": 10, "emb_dim": 192},
    "projector": {"input_dim": 192, "hidden_dim": 2048, "output_dim": 192},
    "pred_proj": {"input_dim": 192, "hidden_dim": 2048, "output_dim": 192},
}
"""LeWorldModel at the published size, as its checkpoints describe it."""


def rival_name() -> str:
    """Its name and version."""
    found = installed(RIVAL)
    return f"{RIVAL} {found}" if found else RIVAL


def rival_module(name: str) -> Any | None:
    """One of its modules ("solver", "data"), or None where it or what it needs is not installed."""
    import_timm()  # it imports torchvision too, which needs the same help beside a CPU-only torch
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # about environments that nobody asks for here
            return require(f"stable_worldmodel.{name}", "bench")
    except MissingPackageError:
        return None


def rival_lewm() -> nn.Module | None:
    """Its LeWorldModel at the published size with seeded random weights; None if it is not there."""
    package = rival_module("wm.lewm.module")
    if package is None or installed("transformers") is None:
        return None
    lewm: Any = rival_module("wm.lewm")
    with own_stream(0):
        model = lewm.LeWM(
            _encoder(),
            package.Predictor(**CONFIG["predictor"]),
            package.Embedder(**CONFIG["action_encoder"]),
            package.MLP(**CONFIG["projector"], norm_fn=nn.BatchNorm1d),
            package.MLP(**CONFIG["pred_proj"], norm_fn=nn.BatchNorm1d),
        )
        for name, parameter in model.named_parameters():
            if "adaLN_modulation" in name:
                nn.init.normal_(parameter, std=MODULATION_STD)
    return model.eval()


def _encoder() -> nn.Module:
    """ViT-Tiny of transformers, which its training script takes."""
    transformers: Any = require("transformers", "bench")
    config = transformers.ViTConfig(
        hidden_size=192,
        num_hidden_layers=12,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=SIZE,
        patch_size=CONFIG["encoder"]["patch_size"],
    )
    return transformers.ViTModel(config, add_pooling_layer=False)


def rival_image(image: Tensor) -> Tensor:
    """Images [B, h, w, 3] uint8 as it takes them: [B, 1, 3, h, w] float32, normalised."""
    channels = (1, 3, 1, 1)
    pixels = image.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(value).view(channels) for value in (IMAGENET_MEAN, IMAGENET_STD))
    return ((pixels - mean) / std).unsqueeze(1)


class RivalWindows:
    """One of its data sets, opened anew in every worker process.

    A worker that is spawned (as its Lance reader asks for) would otherwise import its package before
    `rival_module` has made that possible.

    Args:
        reader: name of the class, "HDF5Dataset" or "LanceDataset".
        path: the file or folder.
        length: frames of a window.
        frame_skip: rows from one frame to the next.
    """

    def __init__(self, reader: str, path: Path, *, length: int, frame_skip: int) -> None:
        self.reader, self.path = reader, path
        self.options = {"num_steps": length, "frameskip": frame_skip}
        self._opened: Any = None

    @property
    def opened(self) -> Any:
        """Its data set itself."""
        if self._opened is None:
            package = rival_module("data")
            self._opened = getattr(package, self.reader)(path=self.path, **self.options)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __len__(self) -> int:
        return len(self.opened)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """The windows of a batch, at once where its reader can."""
        if hasattr(self.opened, "__getitems__"):
            return self.opened.__getitems__(indices)
        return [self.opened[i] for i in indices]

    def __getitem__(self, index: int) -> Any:
        return self.opened[index]
