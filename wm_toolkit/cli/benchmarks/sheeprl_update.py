"""The same as `dreamer_update` by sheeprl (`dreamer_v3_5`): `PYTHON sheeprl_update.py vector`.

A script by itself, so that the peer can live in an environment of its own: it imports nothing of ours.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import torch

BATCH, LENGTH, ACTION, VECTOR = 16, 64, 6, 24
OVERRIDES = {
    "vector": [
        "algo.world_model.recurrent_model.recurrent_state_size=256",
        "algo.cnn_keys.encoder=[]",
        "algo.mlp_keys.encoder=[vector]",
    ],
    "image": ["algo.cnn_keys.encoder=[image]", "algo.mlp_keys.encoder=[]"],
}


def configuration(workload: str) -> Any:
    """Its settings for size 12m, or those of the vector workload."""
    import hydra  # type: ignore[import-not-found]
    from omegaconf import OmegaConf  # type: ignore[import-not-found]
    from sheeprl.utils.utils import dotdict  # type: ignore[import-not-found]

    chosen = ["exp=dreamer_v3_5", "algo=dreamer_v3_5_12M", "env=dummy", "metric.log_level=0"]
    with hydra.initialize_config_module(config_module="sheeprl.configs", version_base="1.3"):
        found = hydra.compose(config_name="config", overrides=chosen + OVERRIDES[workload])
    return dotdict(OmegaConf.to_container(found, resolve=True, throw_on_missing=False))


def noise(workload: str, config: Any) -> dict[str, torch.Tensor]:
    """[65, 16] rows of noise, time first: a row of context with a stored state, then 64 to learn from."""
    rng, shape = torch.Generator().manual_seed(0), (LENGTH + 1, BATCH)
    seen = torch.randn(*shape, VECTOR, generator=rng)
    if workload == "image":
        seen = torch.randint(0, 256, (*shape, 3, 64, 64), generator=rng, dtype=torch.uint8)
    width = config.algo.world_model.recurrent_model.recurrent_state_size
    never = torch.zeros(*shape, 1)
    return {
        workload: seen,
        "actions": torch.rand(*shape, ACTION, generator=rng) * 2 - 1,
        "rewards": torch.randn(*shape, 1, generator=rng),
        "terminated": never,
        "truncated": never,
        "is_first": never,
        "deter": torch.zeros(*shape, width, dtype=torch.float16),
        "stoch": torch.zeros(*shape, 32, dtype=torch.uint8),
    }


class Update:
    """One update of a workload, with the states it found written back where they came from."""

    def __init__(self, workload: str) -> None:
        import hydra  # type: ignore[import-not-found]
        from lightning.fabric import Fabric  # type: ignore[import-not-found]
        from sheeprl.algos.dreamer_v3_5 import dreamer_v3_5  # type: ignore[import-not-found]
        from sheeprl.algos.dreamer_v3_5.agent import build_agent  # type: ignore[import-not-found]
        from sheeprl.algos.dreamer_v3_5.utils import Moments  # type: ignore[import-not-found]

        torch.manual_seed(0)
        self.theirs, self.config = dreamer_v3_5, configuration(workload)
        self.fabric, algo = Fabric(accelerator="cpu", devices=1), self.config.algo
        space = {
            "vector": gym.spaces.Box(-np.inf, np.inf, (VECTOR,), np.float32),
            "image": gym.spaces.Box(0, 255, (3, 64, 64), np.uint8),
        }
        spaces = gym.spaces.Dict({workload: space[workload]})
        *parts, _ = build_agent(self.fabric, (ACTION,), True, self.config, spaces)
        self.parts, trained = parts, [p for part in parts[:3] for p in part.parameters()]
        self.parameters = sum(p.numel() for p in trained)
        optimizer = hydra.utils.instantiate(algo.optimizer, params=trained, _convert_="all")
        self.optimizer = self.fabric.setup_optimizers(optimizer)
        moments = algo.actor.moments
        shares = moments.percentile.low, moments.percentile.high
        self.moments = Moments(moments.decay, moments.max, *shares)
        self.batch = noise(workload, self.config)

    def __call__(self) -> None:
        """As the loop of its `main` does it."""
        arguments = self.fabric, self.config, *self.parts, self.optimizer, self.moments
        found = self.theirs.train(*arguments, dict(self.batch), None, (ACTION,))
        tau = self.config.algo.critic.tau
        self.theirs.update_target_critic(self.parts[2], self.parts[3], tau)
        self.batch["deter"][1:], self.batch["stoch"][1:] = found


def main() -> None:
    """Build the workload named on the command line; make an update for every line that comes in."""
    warnings.filterwarnings("ignore")  # of its dependencies, about nothing that matters here
    sys.path = [path for path in sys.path if not path.endswith("benchmarks")]
    torch.set_num_threads(1)
    update = Update(sys.argv[1])
    print(json.dumps({"parameters": update.parameters}), flush=True)
    for _ in sys.stdin:
        update()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"cpu": time.process_time(), "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
