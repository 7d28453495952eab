"""Connects a source of batches with an agent: the loop of updates and all that surrounds it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from accelerate.utils import broadcast_object_list, gather_object
from safetensors.torch import load_file

from wm_toolkit.agents.agent import Agent, Learner
from wm_toolkit.batch import Metrics
from wm_toolkit.checkpoint import load_state, replace_file, save_tensors, sweep
from wm_toolkit.config import to_dict
from wm_toolkit.data.source import Source, StoredSource
from wm_toolkit.errors import CheckpointError, ConfigError
from wm_toolkit.training import seeding
from wm_toolkit.training.checkpoints import SOURCE, Checkpoint, Checkpoints, load_checkpoint
from wm_toolkit.training.config import TrainConfig
from wm_toolkit.training.guard import NaNGuard
from wm_toolkit.training.hooks import Hook
from wm_toolkit.training.launch import make_accelerator
from wm_toolkit.training.logging import RunLog, RunRecord

MODEL, BEST, NAN, CHECKPOINTS = "model", "best.safetensors", "nan", "checkpoints"
ABOUT = ("data", "experience", "evaluation")
"""What a run's config says of its agent's `info`."""
FIXED = ("seed", "batch_size", "processes", "precision", "accumulation", "clip", "ema")

Evaluate = Callable[[Agent], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        update: updates made in all.
        ended: "finished" all updates, or stopped "early".
        results: of the last evaluation.
        best: the best value of the config's metric, None without evaluations.
        best_update: the update after which it was measured, 0 without evaluations.
    """

    update: int
    ended: Literal["finished", "early"]
    results: dict[str, float]
    best: float | None
    best_update: int = 0


class Trainer:
    """Trains an agent on a source and keeps a run folder about it.

    The folder holds config.json and record.json (what would repeat the run, what happened),
    metrics.jsonl and tensorboard/, checkpoints/, and model/, the artefact. A folder with checkpoints is
    continued from the newest, with the very numbers an uninterrupted run would have given.

    Args:
        agent: with a learner.
        source: yields this process's share of every batch; one that lies in files is saved and restored
            by the first process, which then trains alone.
        run_dir: the run folder.
        config: how long and how carefully.
        evaluate: agent to named numbers, {} while there are none yet; runs in the first process only.
        hooks: called at fixed points, in order.

    Attributes:
        update: updates made so far.
        measured: the newest value of everything hooks have measured.
        results: of the last evaluation.
        best: the best value of the config's metric so far.
        best_update: the update after which it was measured.

    Raises:
        ConfigError: if the agent has no learner, or the config needs an evaluation or a device that is
            missing.

    Example:
        >>> trainer = Trainer(agent, loader, run_dir="runs/1", config=TrainConfig(updates=600))
        >>> trainer.train()
    """

    def __init__(
        self,
        agent: Agent,
        source: Source | StoredSource,
        *,
        run_dir: str | Path,
        config: TrainConfig,
        evaluate: Evaluate | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        if agent.learner is None:
            raise ConfigError("this agent has no learner; build it from a recipe to train it")
        if evaluate is None and (config.patience is not None or config.keep == "best"):
            raise ConfigError(
                f"patience={config.patience} and keep={config.keep!r} need an evaluation to go by; give "
                "evaluate, or train to the end with patience=None and keep='last'"
            )
        self.agent, self.source, self.config = agent, source, config
        self.learner: Learner = agent.learner
        self.run_dir, self.evaluate, self.hooks = Path(run_dir), evaluate, list(hooks)
        self.accelerator = make_accelerator(config.precision, config.processes)
        if config.cuda_graphs and self.accelerator.device.type != "cuda":
            raise ConfigError(
                f"cuda_graphs needs a CUDA device, and this run is on {self.accelerator.device.type}; leave "
                "it off"
            )
        self.checkpoints = Checkpoints(self.run_dir / CHECKPOINTS, config.keep_checkpoints)
        self.update = self.best_update = self._evaluations_since_best = 0
        self.best: float | None = None
        self.results: dict[str, float] = {}
        self.measured: Metrics = {}
        self._log: RunLog | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.accelerator.is_main_process

    @property
    def ended(self) -> Literal["finished", "early"] | None:
        """Why there is nothing left to do, or None while there is."""
        if self.update >= self.config.updates:
            return "finished"
        patience = self.config.patience
        return "early" if patience and self._evaluations_since_best >= patience else None

    # -- the loop --------------------------------------------------------------------------------
    def train(self) -> TrainResult:
        """Train to the end, from the newest checkpoint if there is one.

        Raises:
            NonFiniteError: if a loss stops being a number; the message names it and the saved batch.
            CheckpointError, ConfigError: if the run folder does not fit this run.
        """
        rank = self.accelerator.process_index
        with seeding.own_stream(self.config.seed, rank=rank):
            self.learner.prepare(self.accelerator)
            self._restore()
            record = self._open_log()
            guard = NaNGuard(
                self.run_dir / NAN,
                self.accelerator.device,
                rank=rank,
                scaled=self.config.precision == "fp16",
            )
            try:
                self._each_hook("before_training")
                while self.ended is None:
                    self._one_update(guard)
                self._settle()
            finally:
                self._each_hook("after_training")
                if self._log is not None:
                    self._log.close()
        assert self.ended is not None
        if record is not None:
            record.end(update=self.update, how=self.ended, results=self.results)
        self.agent.model.eval()
        return TrainResult(self.update, self.ended, self.results, self.best, self.best_update)

    def _one_update(self, guard: NaNGuard) -> None:
        began = time.perf_counter()
        batch = next(self.source)
        waited = time.perf_counter() - began
        metrics = self.agent.learn(batch)
        self.update += 1
        guard.watch(self.update, batch, metrics)
        if self._log is not None:
            self._log.count(waited)
        extra = self._measure(metrics)
        last = self.update >= self.config.updates
        if last or extra or self.update % self.config.log_every == 0:
            guard.check()
            self._write({**metrics, **extra}, speed=True)
        if last or self._due(self.config.eval_every):
            guard.check()
            self._evaluate()
        if self.ended or self._due(self.config.checkpoint_every):
            guard.check()
            self._save_checkpoint()

    def _measure(self, metrics: Metrics) -> Metrics:
        """What the hooks have to say about this update."""
        extra: Metrics = {}
        with seeding.preserved():
            for hook in self.hooks:
                found = hook.after_update(self, metrics)
                extra |= found
                self.measured = self.measured | found
        return extra

    def _due(self, every: int) -> bool:
        return every > 0 and self.update % every == 0

    def _each_hook(self, method: str, *args: Any) -> None:
        with seeding.preserved():
            for hook in self.hooks:
                getattr(hook, method)(self, *args)

    def _named_hooks(self) -> dict[str, Hook]:
        """Hooks by class and number, so that a progress bar may come and go between two starts."""
        named: dict[str, Hook] = {}
        for hook in self.hooks:
            kind = type(hook).__name__
            same = sum(name.startswith(f"{kind} ") for name in named)
            named[f"{kind} {same + 1}"] = hook
        return named

    # -- evaluation ----------------------------------------------------------------------------------
    def _evaluate(self) -> None:
        """Evaluate, note the best, and write the artefact, all with the weights meant for that."""
        with self.learner.evaluation_weights(), seeding.preserved():
            self._each_hook("before_evaluation")
            if self.evaluate is not None:
                self.results = self._evaluated()
                if self.results or self.ended:
                    self._write({f"eval/{name}": value for name, value in self.results.items()})
                    self._judge()
            if self.config.keep == "last":
                self._save_artefact()
        if self.evaluate is not None and self.results:
            self._each_hook("at_evaluation", self.results)

    def _evaluated(self) -> dict[str, float]:
        """The first process's results, in every process."""
        results: list[Any] = [None]
        if self.is_main:
            assert self.evaluate is not None
            self.agent.model.eval()
            results = [{name: float(value) for name, value in self.evaluate(self.agent).items()}]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(results)
        return results[0]

    def _judge(self) -> None:
        """Compare with the best so far; keep the weights if they are it and shall be kept."""
        metric = self.config.metric or next(iter(self.results), "")
        if metric not in self.results:
            if self.config.patience is None and self.config.keep == "last":
                return
            raise ConfigError(
                f"the evaluation gave no {metric!r} to stop or keep by; it gave {sorted(self.results)}"
            )
        value = self.results[metric]
        sign = 1 if self.config.better == "higher" else -1
        if self.best is not None and sign * value <= sign * self.best:
            self._evaluations_since_best += 1
            return
        self.best, self.best_update, self._evaluations_since_best = value, self.update, 0
        if self.config.keep == "best" and self.is_main:
            with replace_file(self.run_dir / BEST) as temporary:
                save_tensors(temporary, self.agent.model.state_dict())

    def _settle(self) -> None:
        """Leave the agent with the weights of its artefact: the best ones, or the last (averaged)."""
        # A process that was killed while it replaced the artefact of a finished run left none.
        lost = bool(self.agent.recipe) and not (self.run_dir / MODEL).exists()
        self.accelerator.wait_for_everyone()
        if self.config.keep == "last":
            with self.learner.evaluation_weights():
                if lost:
                    self._each_hook("before_evaluation")
                    self._save_artefact()
                last = {k: v.clone() for k, v in self.agent.model.state_dict().items()}
            self.agent.model.load_state_dict(last)
            return
        load_state(self.agent.model, load_file(self.run_dir / BEST), str(self.run_dir / BEST))
        self._save_artefact()

    def _save_artefact(self) -> None:
        # A hand-made agent could not be rebuilt from an artefact; its weights are in the checkpoints.
        if not self.is_main or not self.agent.recipe:
            return
        kept = self.best_update if self.config.keep == "best" else self.update
        self.agent.info["training"] = {**to_dict(self.config), "updates": self.update, "kept": kept}
        if self.results:
            self.agent.info["results"] = self.results
        self.agent.save_pretrained(self.run_dir / MODEL)

    # -- checkpoints ---------------------------------------------------------------------------------
    def _save_checkpoint(self) -> None:
        source, save_source = None, None
        if isinstance(self.source, StoredSource):
            save_source = self.source.save
        else:
            source = self.source.state_dict()
        mine = {"source": source, "stream": seeding.stream_state()}
        everyone = gather_object([mine])
        if self.is_main:
            state = {
                "learner": self.learner.state_dict(),
                "hooks": {name: hook.state_dict() for name, hook in self._named_hooks().items()},
                "processes": everyone,
            }
            facts = {
                "update": self.update,
                "best": self.best,
                "best_update": self.best_update,
                "evaluations_since_best": self._evaluations_since_best,
                "results": self.results,
                "train": to_dict(self.config),
                "agent": self._agent_facts(),
            }
            whole = Checkpoint(self.agent.model.state_dict(), state, facts)
            self.checkpoints.save(whole, save_source)
        self.accelerator.wait_for_everyone()

    def _restore(self) -> None:
        path = self.checkpoints.latest()
        self.accelerator.wait_for_everyone()
        if self.is_main:
            self.checkpoints.clean()
            sweep(self.run_dir)
        if path is None:
            return
        saved = load_checkpoint(path)
        self._refuse_other_run(path, saved)
        load_state(self.agent.model, saved.model, str(path))
        self.learner.load_state_dict(saved.state["learner"])
        hooks = self._named_hooks()
        for name, state in saved.state["hooks"].items():
            if state:
                hooks[name].load_state_dict(state)
        mine = saved.state["processes"][self.accelerator.process_index]
        if isinstance(self.source, StoredSource):
            self.source.load(path / SOURCE)
        else:
            self.source.load_state_dict(mine["source"])
        seeding.load_stream_state(mine["stream"])
        self.update, self.best = saved.facts["update"], saved.facts["best"]
        self.best_update = saved.facts["best_update"]
        self._evaluations_since_best = saved.facts["evaluations_since_best"]
        self.results = saved.facts["results"]

    def _refuse_other_run(self, path: Path, saved: Checkpoint) -> None:
        now = to_dict(self.config)
        changed = [
            f"{name} was {saved.facts['train'][name]} and is {now[name]}"
            for name in FIXED
            if saved.facts["train"][name] != now[name]
        ]
        agent = self._agent_facts()
        was = saved.facts.get("agent", agent)
        changed += [
            f"{name} was {was.get(name)} and is {agent.get(name)}"
            for name in sorted(was.keys() | agent.keys())
            if was.get(name) != agent.get(name)
        ]
        if changed:
            raise ConfigError(
                f"{path} belongs to another run: {'; '.join(changed)}. Continue with the old values, or "
                "choose another run folder"
            )
        remembered = {name for name, state in saved.state["hooks"].items() if state}
        missing = sorted(remembered - self._named_hooks().keys())
        if missing:
            raise CheckpointError(
                f"{path} holds the memory of hooks that this run lacks: {', '.join(missing)}; give the "
                "same hooks to continue it"
            )

    def _agent_facts(self) -> dict[str, Any]:
        """The agent's recipe and hyper-parameters as JSON knows them: what a resumed run must keep."""
        config = to_dict(self.agent.config) if dataclasses.is_dataclass(self.agent.config) else {}
        own = {k: v for k, v in config.items() if k not in ("train", "evaluation")}
        env = self.agent.info.get("experience", {}).get("env")
        return json.loads(json.dumps({"recipe": self.agent.recipe, "env": env, **own}))

    # -- logs ----------------------------------------------------------------------------------------
    def _open_log(self) -> RunRecord | None:
        """In the first process: write config and record, open the logs."""
        if not self.is_main:
            return None
        agent = self.agent
        settings = {
            "recipe": agent.recipe,
            "config": to_dict(agent.config) if agent.config is not None else None,
            "train": to_dict(self.config),
            **{name: agent.info[name] for name in ABOUT if name in agent.info},
        }
        facts = {"seed": self.config.seed, "data": agent.info.get("data")}
        record = RunRecord(self.run_dir, settings, facts)
        self._log = RunLog(self.run_dir, self.update)
        return record

    def picture(self, name: str, png: bytes) -> None:
        """Put a picture into the log, in the first process."""
        if self._log is not None:
            self._log.picture(self.update, name, png)

    def _write(self, metrics: Metrics, *, speed: bool = False) -> None:
        if self._log is not None:
            self._log.write(self.update, {**metrics, **(self._log.speed() if speed else {})})
