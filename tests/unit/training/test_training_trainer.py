import json

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_toys import Toy, ToySource, toy_agent, toy_batch

from wm_toolkit.errors import CheckpointError, ConfigError, NonFiniteError
from wm_toolkit.training import seeding
from wm_toolkit.training.checkpoints import Checkpoints
from wm_toolkit.training.config import TrainConfig
from wm_toolkit.training.guard import NaNGuard, load_batch
from wm_toolkit.training.hooks import Hook
from wm_toolkit.training.logging import MetricsLog, read_metrics
from wm_toolkit.training.trainer import Trainer


def make(run_dir, *, agent=None, evaluate=None, hooks=(), **config):
    settings = {"updates": 12, "batch_size": 8, "checkpoint_every": 4, "log_every": 3} | config
    return Trainer(
        agent or toy_agent(),
        ToySource(),
        run_dir=run_dir,
        config=TrainConfig(**settings),
        evaluate=evaluate,
        hooks=hooks,
    )


def updates_of(run_dir):
    return sorted(int(p.name.removeprefix("update_")) for p in (run_dir / "checkpoints").iterdir())


def test_training_lowers_the_loss_and_says_how_it_ended(tmp_path):
    result = make(tmp_path, updates=60, log_every=1).train()
    losses = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert (result.update, result.ended) == (60, "finished")
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_the_run_folder_holds_config_record_metrics_and_events(tmp_path):
    trainer = make(tmp_path)
    trainer.agent.info["data"] = {"name": "toy", "checksum": "abc"}
    trainer.train()
    config = json.loads((tmp_path / "config.json").read_text())
    record = json.loads((tmp_path / "record.json").read_text())
    assert config["train"]["updates"] == 12
    assert config["data"]["checksum"] == record["data"]["checksum"] == "abc"
    assert record["seed"] == 0
    assert record["how"] == "finished"
    assert record["started"] <= record["ended"]
    assert {"torch", "wm_toolkit"} <= record["versions"].keys()
    assert {"command", "git_commit", "hardware"} <= record.keys()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["update"] for line in lines] == [3, 6, 9, 12]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    points = [(e.step, pytest.approx(e.value)) for e in events.Scalars("loss/prediction")]
    assert points == [(line["update"], line["loss/prediction"]) for line in lines]


def test_the_newest_checkpoints_are_kept(tmp_path):
    make(tmp_path, keep_checkpoints=2).train()
    assert updates_of(tmp_path) == [8, 12]


def test_a_finished_run_is_not_trained_again(tmp_path):
    make(tmp_path).train()
    before = load_file(tmp_path / "checkpoints/update_00000012/model.safetensors")
    agent = toy_agent(seed=5)
    result = make(tmp_path, agent=agent).train()
    assert result.update == 12
    assert all(torch.equal(agent.model.state_dict()[k], v) for k, v in before.items())


def test_the_callers_random_stream_is_left_alone(tmp_path):
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(7)
        expected = torch.rand(3)
        torch.default_generator.manual_seed(7)
        make(tmp_path, agent=toy_agent(dropout=0.5)).train()
        assert torch.equal(torch.rand(3), expected)


def test_hooks_and_evaluation_do_not_move_the_training_stream(tmp_path):
    class Draws(Hook):
        def after_update(self, trainer, metrics):
            torch.rand(trainer.update)
            return {}

    def evaluate(agent):
        return {"success_rate": float(torch.rand(()))}

    plain, watched = toy_agent(dropout=0.5), toy_agent(dropout=0.5)
    make(tmp_path / "a", agent=plain).train()
    make(tmp_path / "b", agent=watched, hooks=[Draws()], evaluate=evaluate, eval_every=2).train()
    both = zip(plain.model.parameters(), watched.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in both)


def test_two_seeds_draw_different_noise(tmp_path):
    one, two = toy_agent(dropout=0.5), toy_agent(dropout=0.5)
    make(tmp_path / "a", agent=one, seed=0).train()
    make(tmp_path / "b", agent=two, seed=1).train()
    assert not torch.equal(one.model.encoder.weight, two.model.encoder.weight)


def test_half_precision_of_the_forward_pass_still_learns(tmp_path):
    kinds = []

    class Look(Hook):
        def before_training(self, trainer):
            trainer.agent.model.predictor.register_forward_hook(
                lambda m, i, o: kinds.append(o.dtype)
            )

    agent = toy_agent()
    result = make(tmp_path, agent=agent, hooks=[Look()], precision="bf16").train()
    assert result.ended == "finished"
    assert set(kinds) == {torch.bfloat16}
    assert {p.dtype for p in agent.model.parameters()} == {torch.float32}
    assert "forward" not in vars(agent.model)


# -- evaluation -----------------------------------------------------------------------------------
def scores(*values):
    left = list(values)
    return lambda agent: {"success_rate": left.pop(0)}


def test_training_stops_when_patience_runs_out(tmp_path):
    evaluate = scores(0.1, 0.5, 0.4, 0.3, 0.9)
    result = make(tmp_path, evaluate=evaluate, eval_every=2, patience=2).train()
    assert (result.update, result.ended, result.best) == (8, "early", 0.5)
    assert updates_of(tmp_path)[-1] == 8
    again = make(tmp_path, evaluate=scores(), eval_every=2, patience=2).train()
    assert (again.update, again.ended) == (8, "early")


def test_lower_can_be_better(tmp_path):
    evaluate = scores(0.5, 0.4, 0.45, 0.3, 0.35, 0.2)
    assert make(tmp_path, evaluate=evaluate, eval_every=2, better="lower").train().best == 0.2


def test_the_best_weights_are_kept_on_demand(tmp_path):
    seen = []

    def evaluate(agent):
        seen.append(agent.model.encoder.weight.detach().clone())
        return {"success_rate": [0.2, 0.8, 0.4][len(seen) - 1]}

    agent = toy_agent()
    result = make(tmp_path, agent=agent, evaluate=evaluate, eval_every=4, keep="best").train()
    assert torch.equal(agent.model.encoder.weight, seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert (result.update, result.best, result.best_update) == (12, 0.8, 8)


def test_evaluation_sees_the_averaged_weights(tmp_path):
    agent, seen = toy_agent(ema=0.5), []

    def evaluate(agent):
        seen.append(agent.model.encoder.weight.detach().clone())
        return {}

    make(tmp_path, agent=agent, evaluate=evaluate).train()
    trained = load_file(tmp_path / "checkpoints/update_00000012/model.safetensors")
    assert torch.equal(seen[-1], agent.learner.state_dict()["ema"]["encoder.weight"])
    assert not torch.equal(seen[-1], trained["encoder.weight"])


def test_training_leaves_the_agent_with_the_weights_it_was_evaluated_with(tmp_path):
    agent, seen = toy_agent(ema=0.5), []
    evaluate = lambda a: seen.append(a.model.encoder.weight.detach().clone()) or {}  # noqa: E731
    make(tmp_path, agent=agent, evaluate=evaluate).train()
    assert torch.equal(agent.model.encoder.weight, seen[-1])
    again = toy_agent(ema=0.5)
    make(tmp_path, agent=again, evaluate=evaluate).train()
    assert torch.equal(again.model.encoder.weight, seen[-1])


def test_without_a_named_metric_the_first_number_of_the_evaluation_counts(tmp_path):
    rows = iter([(-3.0, 9.0), (-1.0, 8.0), (-2.0, 7.0)])
    evaluate = lambda agent: dict(zip(("return_mean", "length_mean"), next(rows), strict=True))  # noqa: E731
    result = make(tmp_path, evaluate=evaluate, eval_every=4, keep="best").train()
    assert result.best == -1.0


def test_a_missing_metric_or_evaluation_is_refused(tmp_path):
    lacking = {"metric": "success_rate", "eval_every": 2, "patience": 1}
    trainer = make(tmp_path, evaluate=lambda agent: {"r2": 1.0}, **lacking)
    with pytest.raises(
        ConfigError, match="no 'success_rate' to stop or keep by; it gave \\['r2'\\]"
    ):
        trainer.train()
    with pytest.raises(ConfigError, match="need an evaluation"):
        make(tmp_path, keep="best")
    agent = toy_agent()
    agent.learner = None
    with pytest.raises(ConfigError, match="no learner"):
        make(tmp_path, agent=agent)


# -- failures -------------------------------------------------------------------------------------
def test_a_hook_that_fails_before_the_first_update_leaves_no_log_open(tmp_path):
    closed = []

    class Failing(Hook):
        def before_training(self, trainer):
            trainer._log._logs.append(Spy())
            raise OSError("no terminal")

    class Spy:
        def close(self):
            closed.append(True)

    with pytest.raises(OSError, match="no terminal"):
        make(tmp_path, hooks=[Failing()]).train()
    assert closed == [True]


class Poison(ToySource):
    def __next__(self):
        batch = super().__next__()
        if self.drawn == 7:
            batch.obs["vector"][0, 0, 0] = torch.nan
        return batch


def test_a_nan_stops_the_run_names_its_loss_and_leaves_batch_and_checkpoint(tmp_path):
    trainer = make(tmp_path)
    trainer.source = Poison()
    with pytest.raises(NonFiniteError, match="update 7: loss/prediction and loss/size") as error:
        trainer.train()
    path = tmp_path / "nan" / "update_00000007_process_0.safetensors"
    assert str(path) in str(error.value)
    batch, facts = load_batch(path)
    assert batch.obs["vector"][0, 0, 0].isnan()
    assert batch.obs["vector"].isnan().sum() == 1
    assert facts["update"] == 7
    assert facts["not_finite"][0] == "loss/prediction"
    assert updates_of(tmp_path) == [4]
    model = load_file(tmp_path / "checkpoints/update_00000004/model.safetensors")
    assert all(tensor.isfinite().all() for tensor in model.values())


def test_a_guard_on_a_device_looks_in_groups_and_finds_the_first(tmp_path, rng):
    guard = NaNGuard(tmp_path, torch.device("meta"))
    for update in range(1, 16):
        loss = torch.tensor(torch.inf if update >= 5 else 1.0)
        guard.watch(update, toy_batch(rng), {"loss": loss, "loss/a": loss})
    with pytest.raises(NonFiniteError, match="update 5: loss/a and loss became inf"):
        guard.check()


def test_a_gradient_scaler_may_meet_infinite_gradients(tmp_path, rng):
    metrics = {"loss": torch.tensor(1.0), "grad_norm": torch.tensor(torch.inf)}
    NaNGuard(tmp_path, torch.device("cpu"), scaled=True).watch(1, toy_batch(rng), metrics)
    with pytest.raises(NonFiniteError, match="grad_norm became inf"):
        NaNGuard(tmp_path, torch.device("cpu")).watch(1, toy_batch(rng), metrics)


def test_a_saved_batch_is_read_back_whole(tmp_path, rng):
    from wm_toolkit.training.guard import save_batch

    batch = toy_batch(rng).replace(extras={"a/b": torch.ones(8, 4)})
    save_batch(tmp_path / "b.safetensors", batch, {"x": 1})
    found, facts = load_batch(tmp_path / "b.safetensors")
    assert facts == {"x": 1}
    assert found.reward is None
    for one, two in zip(batch.leaves(), found.leaves(), strict=True):
        assert torch.equal(one, two)


def test_weights_that_are_no_numbers_are_never_saved(tmp_path):
    class Break(Hook):
        def after_update(self, trainer, metrics):
            if trainer.update == 8:
                torch.nn.init.constant_(trainer.agent.model.encoder.bias, torch.nan)
            return {}

    with pytest.raises(
        NonFiniteError, match=r"encoder.bias holds NaN.*update_00000004 is unharmed"
    ):
        make(tmp_path, hooks=[Break()]).train()
    assert updates_of(tmp_path) == [4]


def test_a_full_disk_keeps_the_older_checkpoints_and_says_so(tmp_path, monkeypatch):
    make(tmp_path, updates=4).train()

    def full(state, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"older checkpoints are unharmed.*disk full\?"):
        make(tmp_path, updates=8).train()
    monkeypatch.undo()
    assert updates_of(tmp_path) == [4]
    assert make(tmp_path, updates=8).train().update == 8


def test_a_run_folder_of_another_run_is_refused(tmp_path):
    make(tmp_path).train()
    with pytest.raises(ConfigError, match="seed was 0 and is 3"):
        make(tmp_path, seed=3).train()
    with pytest.raises(CheckpointError, match=r"does not fit this model.*missing 5"):
        make(tmp_path, agent=toy_agent(norm=True)).train()


class Remembers(Hook):
    def __init__(self):
        self.seen = 0

    def after_update(self, trainer, metrics):
        self.seen += 1
        return {}

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_hooks_find_their_memory_again_though_others_come_and_go(tmp_path):
    make(tmp_path, updates=5, hooks=[Hook(), Remembers()]).train()
    hook, fresh = Remembers(), Remembers()
    make(tmp_path, updates=7, hooks=[hook, fresh]).train()
    assert (hook.seen, fresh.seen) == (7, 2)
    with pytest.raises(CheckpointError, match="memory of hooks that this run lacks: Remembers 1"):
        make(tmp_path).train()


def test_a_damaged_checkpoint_says_what_to_do(tmp_path):
    make(tmp_path).train()
    (tmp_path / "checkpoints/update_00000012/state.pt").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(
        CheckpointError, match=r"update_00000012 cannot be read.*Remove this folder"
    ):
        make(tmp_path).train()


def test_what_a_killed_writer_left_is_removed_and_ignored(tmp_path):
    make(tmp_path, updates=4).train()
    (tmp_path / "checkpoints" / ".update_00000008.abcd1234.tmp").mkdir()
    (tmp_path / ".config.json.abcd1234.tmp").write_text("half")
    assert Checkpoints(tmp_path / "checkpoints").latest().name == "update_00000004"
    make(tmp_path).train()
    assert updates_of(tmp_path) == [8, 12]
    assert not list(tmp_path.glob(".*"))


def test_a_longer_run_goes_on_where_the_shorter_one_ended(tmp_path):
    make(tmp_path / "long", agent=(long := toy_agent())).train()
    make(tmp_path / "run", updates=5).train()
    make(tmp_path / "run", agent=(agent := toy_agent())).train()
    assert torch.equal(agent.model.encoder.weight, long.model.encoder.weight)


# -- logs and streams -----------------------------------------------------------------------------
def test_a_resumed_log_drops_later_lines_and_half_a_line(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    for update in (1, 2, 3):
        log.write(update, {"loss": float(update)})
    log.close()
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write('{"update": 4, "lo')
    log = MetricsLog(tmp_path / "m.jsonl", update=2)
    log.write(3, {"loss": float("nan")})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert lines == [
        {"update": 1, "loss": 1},
        {"update": 2, "loss": 2},
        {"update": 3, "loss": None},
    ]


def test_a_stream_goes_on_from_its_saved_state():
    with seeding.own_stream(3):
        torch.rand(5)
        saved = seeding.stream_state()
        expected = torch.rand(4)
        with seeding.preserved():
            torch.rand(100)
        seeding.load_stream_state(saved)
        assert torch.equal(torch.rand(4), expected)
    with seeding.own_stream(3, rank=1):
        other = torch.rand(5)
    with seeding.own_stream(3):
        assert not torch.equal(torch.rand(5), other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"updates": 0}, "updates is 0"),
        ({"patience": 2}, "patience is 2 with eval_every 0"),
        ({"batch_size": 5, "processes": 2}, "5 cannot be shared by 2"),
    ],
)
def test_a_config_out_of_range_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**changes)


def test_the_model_is_in_evaluation_mode_after_training(tmp_path):
    agent = toy_agent()
    make(tmp_path, agent=agent).train()
    assert isinstance(agent.model, Toy)
    assert not agent.model.training
