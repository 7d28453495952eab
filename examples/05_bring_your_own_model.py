"""Your own world model in one file: five methods and a recipe; training, planning and saving are given.

python examples/05_bring_your_own_model.py [--smoke]    half a minute, with --smoke seconds
"""

import dataclasses
import sys

import torch

from wm_toolkit import CEM, Agent, Batch, Goal, Spaces, Struct, WorldModel, evaluate
from wm_toolkit.agents.actors import PlanningActor
from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.nn.mlp import mlp
from wm_toolkit.registry import recipe
from wm_toolkit.testing import check_world_model
from wm_toolkit.training import jobs
from wm_toolkit.training.config import EvaluationConfig, OfflineConfig, TrainConfig
from wm_toolkit.training.optimizer import adamw


@dataclasses.dataclass(frozen=True)
class Place(Struct):
    xy: torch.Tensor  # [..., 2] where the dot is, in [-1, 1]: the whole latent state


class Residual(WorldModel[Place]):
    """Sees positions and dreams them on: xy' = xy + f(xy, action)."""

    def __init__(self, spaces: Spaces) -> None:
        super().__init__(spaces)
        self.move = mlp(2 + spaces.action_width, [128, 128], 2)

    def initial(self, batch_size: int) -> Place:
        return Place(torch.zeros(batch_size, 2, device=self.device))

    def observe(self, state: Place, action: torch.Tensor, obs: dict, *, generator=None):
        return Place(obs["position"] / 32 - 1)

    def imagine(self, state: Place, action: torch.Tensor, *, generator=None) -> Place:
        return Place(state.xy + self.move(torch.cat([state.xy, action], -1)))

    def features(self, state: Place) -> torch.Tensor:
        return state.xy

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        seen = self.observe_sequence(batch)
        dreamt = self.imagine(seen[:, :-1], batch.action[:, :-1])
        return {"prediction": (dreamt.xy - seen[:, 1:].xy).square().mean(-1)}


@dataclasses.dataclass(frozen=True)
class Config(OfflineConfig):  # whatever a run depends on; it is saved with the agent
    window: int = 2
    frame_skip: int = 5
    observations: tuple[str, ...] = ("position",)
    evaluation: EvaluationConfig = EvaluationConfig(frame_skip=5, env_options={"obs_mode": "both"})
    planner: CEM = CEM(horizon=8, samples=64, elites=8, iterations=3, noise_exponent=3.0)


@recipe("residual", Config)
def residual(spaces: Spaces, config: Config) -> Agent:
    """A small network that learns how an action moves the dot."""
    model = Residual(spaces)
    learner = ModelLearner(model, optimizer=adamw(3e-3))
    return Agent(model, PlanningActor(model, config.planner, Goal(mode="closest")), learner)


if __name__ == "__main__":
    torch.set_num_threads(1)
    updates, run = (300, "runs/smoke") if "--smoke" in sys.argv else (1500, "runs/residual")
    config = Config(train=TrainConfig(updates=updates, batch_size=256))
    data = jobs.prepare_two_rooms(f"{run}/walks.h5", episodes=100)
    ready = jobs.offline_data(data, config)
    passed = check_world_model(Residual(ready.spaces), jobs.monitor_batch(ready, config.window))
    print(f"the model keeps its contract: {len(passed)} checks passed")
    jobs.train_offline("residual", config, data, run)
    found = evaluate(Agent.from_pretrained(run), ready.held_out)
    print(f"planning in it reaches {found.success_rate:.0%} of {found.episodes} held-out goals")
