"""What SIGReg does: the constants it is known by, and a LeWorldModel trained with and without it.

python examples/02_leworldmodel_and_sigreg.py            a minute
python examples/02_leworldmodel_and_sigreg.py --smoke    seconds
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from wm_toolkit import build
from wm_toolkit.data.loader import Loader
from wm_toolkit.losses.sigreg import SIGReg
from wm_toolkit.registry import recipe_config
from wm_toolkit.training import representation as measure
from wm_toolkit.training.jobs import OfflineData, monitor_batch, offline_data, prepare_two_rooms

PUBLISHED_WEIGHT = 0.09


def main(updates: int, episodes: int) -> None:
    """Print the constants, then two trainings side by side."""
    # SIGReg asks of every projection of the embeddings: does it look like N(0, 1)?
    rng, sigreg = torch.Generator().manual_seed(0), SIGReg(slices=64)
    collapsed = sigreg(torch.zeros(64, 32), rng) / 64
    gaussian = [sigreg(torch.randn(64, 32, generator=rng), rng) for _ in range(500)]
    print(f"all embeddings equal: SIGReg = {collapsed:.3f} N (closed form 0.402 N)")
    print(f"truly Gaussian: SIGReg = {sum(gaussian) / 500:.3f} (closed form 1.0525)\n")

    # A JEPA may predict perfectly by mapping every picture to one point. SIGReg forbids it.
    walks = prepare_two_rooms(f"runs/walks-{episodes}.h5", episodes=episodes)
    ready = offline_data(walks, recipe_config("lewm.small"))
    print(f"{updates} updates     prediction    spread    effective rank    SIGReg    position R2")
    for weight in (0.0, PUBLISHED_WEIGHT):
        print(f"weight {weight:<5}" + report(*train(weight, ready, updates)))


def train(weight: float, ready: OfflineData, updates: int) -> tuple[float, Tensor, Tensor]:
    """Train with a weight on SIGReg: last prediction loss, held-out embeddings and positions."""
    torch.manual_seed(0)
    options = {"sigreg_weight": weight, "decoder": False, "train__updates": updates}
    agent = build("lewm.small", ready.spaces, **options)
    loader = Loader(ready.windows(ready.train, 4), batch_size=16, seed=0)
    metrics = {}
    for _ in range(updates):
        metrics = agent.learn(next(loader))
    agent.model.calibrate([next(loader) for _ in range(4)])
    held_out = monitor_batch(ready, 4).to(agent.model.device)
    with torch.no_grad():
        features = agent.model.eval().features(agent.model.observe_sequence(held_out))
    positions = held_out.obs["position"].flatten(0, 1)
    return float(metrics["loss/prediction"]), features.flatten(0, 1).cpu(), positions.cpu()


def report(prediction: float, features: Tensor, positions: Tensor) -> str:
    """The numbers that tell a healthy representation from a collapsed one."""
    rank, r2 = measure.effective_rank(features), measure.probe_r2(features, positions, split=256)
    # Of 128 samples, as many as the published batch: the statistic grows with their number.
    score = SIGReg(slices=1024)(torch.stack(features.split(128)), torch.Generator().manual_seed(0))
    return f"{prediction:18.1e}{measure.spread(features):10.2f}{rank:18.1f}{score:10.2f}{r2:15.2f}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    smoke = parser.parse_args().smoke
    main(updates=40 if smoke else 300, episodes=60 if smoke else 1000)
