"""Writes lewm_published.safetensors and .json: a small LeWorldModel of stable-worldmodel and its outputs.

Run by hand, where `stable-worldmodel==0.1.1`, `transformers==4.57.6` and `hydra-core` are installed; no test
imports any of them. The model is built and saved by that package, at a small size, with seeded weights and
batch-norm statistics; every expected number is its own output.
"""

from __future__ import annotations

import json
import sys
import tempfile
import types
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file
from stable_worldmodel.wm.utils import save_pretrained
from transformers import ViTConfig, ViTModel

HERE = Path(__file__).parent
WIDTH, SIZE, ACTION = 12, 28, 10
MODULE = "stable_worldmodel.wm.lewm.module"
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def vit_hf(size: str, patch_size: int, image_size: int, **options) -> ViTModel:
    """The encoder as stable-pretraining builds it, which is a heavy package for one call."""
    for name in ("pretrained", "use_mask_token"):
        assert options.pop(name) is False
    config = ViTConfig(image_size=image_size, patch_size=patch_size, **options)
    return ViTModel(config, add_pooling_layer=False, use_mask_token=False)


def stand_in() -> None:
    """Let hydra find `vit_hf` where published configurations say it is."""
    parts = ("stable_pretraining", "backbone", "utils")
    modules = [types.ModuleType(".".join(parts[: i + 1])) for i in range(3)]
    for parent, child, name in zip(modules, modules[1:], parts[1:]):
        setattr(parent, name, child)
    sys.modules.update({module.__name__: module for module in modules})
    modules[-1].vit_hf = vit_hf


def projector() -> dict:
    norm = {"_target_": "torch.nn.BatchNorm1d", "_partial_": True}
    sizes = {"input_dim": WIDTH, "hidden_dim": 24, "output_dim": WIDTH}
    return {"_target_": f"{MODULE}.MLP", **sizes, "norm_fn": norm}


CONFIG = {
    "_target_": "stable_worldmodel.wm.lewm.LeWM",
    "embed_dim": WIDTH,
    "history_size": 3,
    "encoder": {
        "_target_": "stable_pretraining.backbone.utils.vit_hf",
        "size": "tiny",
        "patch_size": 14,
        "image_size": SIZE,
        "pretrained": False,
        "use_mask_token": False,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 4 * WIDTH,
    },
    "predictor": {
        "_target_": f"{MODULE}.Predictor",
        "num_frames": 3,
        "input_dim": WIDTH,
        "hidden_dim": WIDTH,
        "output_dim": WIDTH,
        "depth": 2,
        "heads": 4,
        "mlp_dim": 20,
        "dim_head": 5,
        "dropout": 0.1,
        "emb_dropout": 0.0,
    },
    "action_encoder": {"_target_": f"{MODULE}.Embedder", "input_dim": ACTION, "emb_dim": WIDTH},
    "projector": projector(),
    "pred_proj": projector(),
}


def seeded(generator: torch.Generator) -> torch.nn.Module:
    """The model with weights and running statistics that no shortcut would get right."""
    torch.manual_seed(0)
    model = instantiate(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
            if name.endswith("running_var"):
                buffer.copy_(0.3 + torch.rand(buffer.shape, generator=generator))
            if name.endswith("num_batches_tracked"):
                buffer.fill_(1234)
    return model.eval()


@torch.no_grad()
def outputs(model: torch.nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Inputs and what the package makes of them: embeddings, predictions, rollouts from 1 and 3 frames."""
    frames = torch.randint(0, 256, (2, 5, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    actions = torch.randn(2, 3, ACTION, generator=generator)
    plans = torch.randn(2, 3, 6, ACTION, generator=generator)
    pixels = ((frames / 255 - MEAN) / STD).permute(0, 1, 4, 2, 3).contiguous()
    embedding = model.encode({"pixels": pixels})["emb"]
    condition = model.action_encoder(actions)
    start = pixels[:, None].expand(-1, 3, -1, -1, -1, -1)
    return {
        "frames": frames,
        "actions": actions,
        "plans": plans,
        "embedding": embedding,
        "prediction": model.predict(embedding[:, :3], condition),
        "short_prediction": model.predict(embedding[:, :2], condition[:, :2]),
        "rollout_1": model.rollout({"pixels": start[:, :, :1]}, plans)["predicted_emb"],
        "rollout_3": model.rollout({"pixels": start[:, :, :3]}, plans)["predicted_emb"],
    }


def main() -> None:
    stand_in()
    generator = torch.Generator().manual_seed(1)
    model = seeded(generator)
    expected = outputs(model, generator)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, "run", OmegaConf.create(CONFIG), cache_dir=folder)
        run = Path(folder) / "checkpoints" / "run"
        state = torch.load(run / "weights.pt", weights_only=True)
        config = json.loads((run / "config.json").read_text())
    tensors = {f"weights/{name}": value for name, value in state.items()}
    tensors |= {f"expected/{name}": value.contiguous() for name, value in expected.items()}
    save_file(tensors, HERE / "lewm_published.safetensors")
    (HERE / "lewm_published.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
