"""Writes dino_wm_published.safetensors: a small DINO-WM of stable-worldmodel and its outputs.

Run by hand, where `stable-worldmodel==0.1.1` is installed; no test imports it. Its predictor and encoders
have the names of the original checkpoints. The frozen encoder is stood in for by given tokens, weights are
seeded, and every expected number is that package's own output.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from stable_worldmodel.wm.prejepa.module import CausalPredictor, Embedder
from stable_worldmodel.wm.prejepa.prejepa import PreJEPA

HERE = Path(__file__).parent
PATCHES, VISUAL, HISTORY, ACTION, PROPRIO = 4, 384, 3, 10, 4


class Given(torch.nn.Module):
    """Stands in for DINOv2: its "images" are tokens already, behind an empty class token."""

    def forward(self, tokens: torch.Tensor, **_) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=torch.nn.functional.pad(tokens, (0, 0, 1, 0)))


def seeded(generator: torch.Generator) -> PreJEPA:
    """The model with weights that are all different from zero and one."""
    predictor = CausalPredictor(
        num_patches=PATCHES,
        num_frames=HISTORY,
        dim=VISUAL + 20,
        depth=2,
        heads=2,
        dim_head=3,
        mlp_dim=6,
        dropout=0.1,
    )
    encoders = {"proprio": Embedder(in_chans=PROPRIO), "action": Embedder(in_chans=ACTION)}
    model = PreJEPA(Given(), predictor, torch.nn.ModuleDict(encoders), history_size=HISTORY)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            start = 1.0 if "norm.weight" in name or "net.0.weight" in name else 0.0
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(start + (0.5 if parameter.ndim == 1 else 0.1) * noise)
    return model.eval()


@torch.no_grad()
def outputs(model: PreJEPA, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Inputs and outputs: joined tokens of windows, predictions after each frame, plans dreamt."""
    tokens = torch.randn(2, HISTORY, PATCHES, VISUAL, generator=generator).half().float()
    proprio = torch.randn(2, HISTORY, PROPRIO, generator=generator)
    actions = torch.randn(2, HISTORY, ACTION, generator=generator)
    plans = torch.randn(1, 2, 5, ACTION, generator=generator)
    joined = model.encode({"pixels": tokens, "proprio": proprio, "action": actions})["emb"]
    seen = {"pixels": tokens[:1, None, :1], "proprio": proprio[:1, None, :1]}
    start = {name: value.expand(-1, 2, *value.shape[2:]) for name, value in seen.items()}
    start |= {name: torch.zeros(1, 2) for name in ("id", "step_idx")}
    dream = model.rollout(start, plans)["predicted_embedding"]
    return {
        "tokens": tokens.half(),
        "proprio": proprio,
        "actions": actions,
        "plans": plans,
        "joined": joined[:, :, 0, VISUAL:],
        "prediction": model.predict(joined),
        "short_prediction": model.predict(joined[:, :2]),
        "dream": dream[:, :, (2, 5)],
    }


def main() -> None:
    generator = torch.Generator().manual_seed(2)
    model = seeded(generator)
    expected = outputs(model, generator)
    parts = {"predictor": model.predictor}
    parts |= {f"{name}_encoder": part for name, part in model.extra_encoders.items()}
    tensors = {f"expected/{name}": value.contiguous() for name, value in expected.items()}
    for part, module in parts.items():
        for name, value in module.named_parameters():
            tensors[f"{part}/{name}"] = value.detach()
    save_file(tensors, HERE / "dino_wm_published.safetensors")


if __name__ == "__main__":
    main()
