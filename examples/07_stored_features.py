"""A frozen encoder's features, computed once and stored: the same training as on frames, much cheaper.

python examples/07_stored_features.py [--smoke] [--weights FILE.safetensors]    two minutes; --smoke: seconds
"""

import argparse
import shutil
import time
from pathlib import Path

import torch

from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.features import encode_features
from wm_toolkit.encoders.named import make_encoder
from wm_toolkit.errors import CheckpointError
from wm_toolkit.registry import recipe_config
from wm_toolkit.training import jobs
from wm_toolkit.training.run_folder import training_curves


def encoder_with(weights: str, **options):
    """DINOv2-S with these weights; random ones, whose features mean little, where the hub has none."""
    try:
        return make_encoder("dinov2_small", weights=weights, **options), weights
    except CheckpointError as error:
        if weights != "hub":
            raise
        print(f"no pretrained weights ({str(error).partition(':')[0]}); pass --weights FILE")
        return make_encoder("dinov2_small", weights="random", **options), "random"


def train(features: str, data: TrajectoryDataset, run: Path, **settings):
    """DINO-WM on frames or on stored features: the model, its losses and the CPU seconds."""
    config = recipe_config("dino_wm.small", features=features, decoder=False, **settings)
    began = time.process_time()
    agent, _ = jobs.train_offline("dino_wm.small", config, data, run / features)
    seconds = time.process_time() - began
    losses = [value for _, value in training_curves(run / features)["prediction loss"]]
    return agent.model, losses, seconds


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--weights", default="")
    args = parser.parse_args()

    run = Path("runs/stored_features")
    shutil.rmtree(run, ignore_errors=True)
    size, walks, updates = (56, 8, 5) if args.smoke else (98, 60, 40)
    options = {"image_size": size, "normalisation": "half", "resample": "original"}
    wanted = args.weights or ("random" if args.smoke else "hub")
    encoder, weights = encoder_with(wanted, block=8, **options)
    print(f"encoder: {encoder.name}, weights {encoder.weights[:14]}, block {encoder.block}")

    frames = jobs.prepare_two_rooms(run / "walks.h5", episodes=walks, steps=30)
    began = time.process_time()
    data = TrajectoryDataset.load(encode_features(frames, encoder, run / "features.h5"))
    encoding, column = time.process_time() - began, data.columns["features/image"]
    print(f"stored: {column.shape} {column.dtype} a frame, {column.nbytes / 1e6:.1f} MB", end=", ")
    print(f"{encoding:.1f} CPU s for {data.num_rows:,} frames")

    settings = {"encoder_weights": weights, "encoder_block": 8, **options}
    length = {"train.updates": updates, "train.batch_size": 8, "train.log_every": 1}
    found = {mode: train(mode, data, run, **settings, **length) for mode in ("frames", "stored")}
    for mode, (_, losses, seconds) in found.items():
        print(f"on {mode}: loss {losses[0]:.6f} ... {losses[-1]:.6f}, {seconds:.1f} CPU s")

    (one, a, slow), (two, b, fast) = found["frames"], found["stored"]
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    apart = max(float((p.float() - q.float()).abs().max()) for p, q in pairs)
    print(f"largest difference of losses: {max(abs(x - y) for x, y in zip(a, b, strict=True)):.1e}")
    print(f"largest difference of weights: {apart:.1e}")
    print(f"training: {slow / fast:.1f} times cheaper; encoding is paid back after", end=" ")
    print(f"{encoding / (slow - fast) * updates:.0f} updates")
