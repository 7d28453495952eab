"""DINO-WM offline: from a released folder to the share of held-out goals that planning reaches.

python examples/06_dino_wm_from_a_release.py --data pusht_noise --weights FILE.safetensors
python examples/06_dino_wm_from_a_release.py [--smoke]    minutes; --smoke: seconds, on a tiny sample

Without --data it records some exploring pushes of its own, which are no release, and far too few: the
published model reached 8 % of its goals after 200 episodes, 92 % after 18,500. The weights are those of a
DINOv2-S ("hub" downloads them); random ones show that the path works, and nothing else.
"""

import argparse
from pathlib import Path

import torch

from wm_toolkit.agents.card import evaluation_text
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.features import encode_features
from wm_toolkit.encoders.named import make_encoder
from wm_toolkit.registry import recipe_config
from wm_toolkit.training import jobs
from wm_toolkit.training.baselines import contenders
from wm_toolkit.training.measure import measure_run
from wm_toolkit.training.prepare import prepare_push_t

SAMPLE = Path(__file__).parents[1] / "datasets/samples/pusht_noise"


def encoded(source: str | Path, encoder, target: Path) -> TrajectoryDataset:
    """The data with stored features instead of frames, encoded film by film; made once."""
    if not target.exists():
        encode_features(source, encoder, target, drop_frames=True)
    return TrajectoryDataset.load(target)


def settings(data: TrajectoryDataset, smoke: bool) -> dict:
    """What is asked of a run; the environment and its state are what the data names."""
    split = "released" if data.info and "split" in data.info[0] else "random"
    updates, batch_size, episodes = (2, 4, 2) if smoke else (300, 32, 20)
    train = {"train.updates": updates, "train.batch_size": batch_size}
    return {**train, "evaluation.episodes": episodes, "evaluation.split": split}


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="", help="a released folder or any other data set")
    parser.add_argument("--weights", default="random", help="hub, or a .safetensors file")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()

    source = Path(args.data or SAMPLE)
    if not args.data and not args.smoke:
        print("no --data: recording 50 explored Push-T episodes, which are no release")
        source = Path("runs/pushes.h5")
        prepare_push_t(source, episodes=50, steps=60)
    if args.weights == "random":
        print("the encoder's weights are random: what is measured below means nothing")

    options = {"image_size": 28 if args.smoke else 70, "weights": args.weights}
    encoder = make_encoder(
        "dinov2_small", block=8, normalisation="half", resample="original", **options
    )
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    run = Path("runs") / f"dino_wm_{source.stem}_{encoder.image_size}px"
    data = encoded(source, encoder.to(device or "cpu"), run / "features.h5")

    given = {"image_size": options["image_size"], "encoder_weights": args.weights, "decoder": False}
    config = recipe_config("dino_wm.small", **given, **settings(data, args.smoke))
    agent, _ = jobs.train_offline("dino_wm.small", config, data, run)
    ready = jobs.offline_data(data, config)
    print(f"{data.num_rows} frames; learnt from {len(ready.train)} episodes,", end=" ")
    print(f"held out {len(ready.held_out)}, split: {config.evaluation.split}")
    measure_run(run, contenders(agent, with_oracle=False), ready)
    print(evaluation_text(agent.info, agent.recipe))
