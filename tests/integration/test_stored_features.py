"""Features are stored once by the command line, and training on them is training on the frames."""

from __future__ import annotations

import json

import pytest
import torch

from wm_toolkit.agents.agent import Agent
from wm_toolkit.cli.main import main
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.encoders.dinov2 import DINOv2
from wm_toolkit.errors import DataError
from wm_toolkit.registry import recipe_config
from wm_toolkit.training import jobs, measure
from wm_toolkit.training.hooks import CollapseMonitor
from wm_toolkit.training.inputs import learning_columns

COLUMN = "features/image"
OPTIONS = ["image_size=28", "normalisation=half", "block=1", "resample=original", "weights=random"]


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    """Frames alone, with features, and features alone."""
    folder = tmp_path_factory.mktemp("walks")
    jobs.prepare_two_rooms(folder / "frames.h5", episodes=8, steps=30)
    encode = ["--encode", "dinov2_small", "--device", "cpu", "--encode-set", *OPTIONS]
    frames, both, alone = (str(folder / f"{n}.h5") for n in ("frames", "features", "alone"))
    assert main(["convert", frames, both, *encode]) == 0
    assert main(["convert", frames, alone, *encode, "--drop-frames"]) == 0
    return folder


def config(features: str, **changes):
    """A DINO-WM of a few thousand parameters that reads image and position."""
    small = {
        "encoder_weights": "random",
        "encoder_block": 1,
        "image_size": 28,
        "normalisation": "half",
        "resample": "original",
        "feature_dtype": "float16",
        "observations": ("image", "position"),
        "width": 16,
        "layers": 1,
        "heads": 2,
        "head_width": 8,
        "hidden": 16,
        "dropout": 0.1,
        "train.updates": 6,
        "train.batch_size": 6,
        "train.log_every": 1,
        "train.checkpoint_every": 3,
        "evaluation.holdout": 0.25,
    }
    return recipe_config("dino_wm.small", **{**small, "features": features, **changes})


def train(data, run, settings):
    agent, _ = jobs.train_offline("dino_wm.small", settings, TrajectoryDataset.load(data), run)
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    return agent, [line["loss"] for line in lines if "loss" in line]


@pytest.fixture
def looks(monkeypatch):
    """Counts the images that DINOv2 encodes."""
    seen = []
    forward = DINOv2.forward

    def watched(self, images):
        seen.append(images[..., 0, 0, 0].numel())
        return forward(self, images)

    monkeypatch.setattr(DINOv2, "forward", watched)
    return seen


@pytest.mark.parametrize("changes", [{}, {"decoder": True}, {"train.precision": "bf16"}])
def test_training_on_stored_features_equals_training_on_frames(walks, tmp_path, looks, changes):
    changes = {"decoder": False, **changes}
    on_frames, losses = train(walks / "features.h5", tmp_path / "a", config("frames", **changes))
    assert sum(looks) >= 6 * 6 * 4
    looks.clear()
    on_features, same = train(walks / "features.h5", tmp_path / "b", config("auto", **changes))
    assert looks == []
    assert len(losses) == 6
    torch.testing.assert_close(losses, same, rtol=1e-5, atol=1e-7)
    one, two = on_frames.model.state_dict(), on_features.model.state_dict()
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
    identity = on_features.model.stored_features()[COLUMN]
    assert on_features.info["data"]["features"] == {COLUMN: identity}
    assert on_frames.info["data"]["features"] == {}


def test_frames_that_were_dropped_are_not_missed(walks, tmp_path, looks):
    _, losses = train(walks / "features.h5", tmp_path / "a", config("auto", decoder=False))
    agent, same = train(walks / "alone.h5", tmp_path / "b", config("auto", decoder=False))
    assert losses == same
    assert agent.spaces.observation["image"].shape == (64, 64, 3)
    ready = jobs.agent_data(Agent.from_pretrained(tmp_path / "b"))
    batch = jobs.monitor_batch(ready, 4, agent=agent)
    assert sorted(batch.obs) == ["position"]
    assert sorted(batch.extras) == [COLUMN]
    agent.model.observe_sequence(batch)
    assert looks == []


def test_a_representation_is_watched_through_features_as_through_frames(walks, tmp_path, looks):
    settings = config("stored", decoder=False, **{"train.updates": 1})
    agent, _ = train(walks / "features.h5", tmp_path, settings)
    ready = jobs.offline_data(TrajectoryDataset.load(walks / "features.h5"), settings)
    batch = jobs.monitor_batch(ready, 4, count=8, agent=agent)
    found = CollapseMonitor(batch, ("position",)).measure(agent.model)
    assert looks == []
    framed = CollapseMonitor(jobs.monitor_batch(ready, 4, count=8), ("position",))
    torch.testing.assert_close(found, framed.measure(agent.model), rtol=1e-3, atol=0)
    assert looks == [8 * 4]


def test_a_run_on_features_that_was_stopped_goes_on_alike(walks, tmp_path):
    _, whole = train(walks / "features.h5", tmp_path / "a", config("stored"))
    train(walks / "features.h5", tmp_path / "b", config("stored", **{"train.updates": 3}))
    again, losses = train(walks / "features.h5", tmp_path / "b", config("stored"))
    assert losses == whole
    assert again.model.proprio_mean.abs().sum() > 0


def test_the_position_is_standardised_over_the_training_part(walks, tmp_path):
    settings = config("stored", decoder=False, **{"train.updates": 1})
    agent, _ = train(walks / "features.h5", tmp_path / "a", settings)
    ready = jobs.offline_data(TrajectoryDataset.load(walks / "features.h5"), settings)
    rows = torch.cat([torch.from_numpy(e.obs["position"].copy()) for e in ready.train])
    torch.testing.assert_close(agent.model.proprio_mean, rows.mean(0))
    torch.testing.assert_close(agent.model.proprio_std, rows.std(0, correction=0))


def test_features_that_differ_in_any_field_are_refused(walks):
    data, settings = TrajectoryDataset.load(walks / "features.h5"), config("auto", decoder=False)
    agent = jobs.offline_agent("dino_wm.small", settings, jobs.offline_data(data, settings))
    identity = data.metadata["features"][COLUMN]
    assert COLUMN in learning_columns(agent, data)
    for name in [*identity, "unheard of"]:
        data.metadata["features"] = {COLUMN: {**identity, name: "another"}}
        with pytest.raises(DataError, match=f"{name} is 'another', needed"):
            learning_columns(agent, data)
        data.metadata["features"] = {COLUMN: {n: v for n, v in identity.items() if n != name}}
        if name in identity:
            with pytest.raises(DataError, match=f"{name} is None, needed"):
                learning_columns(agent, data)


def test_another_encoders_features_are_refused_and_the_frames_are_a_way_out(walks, tmp_path):
    other = config("auto", encoder_block=0, decoder=False)
    with pytest.raises(DataError, match="block is 1, needed 0"):
        train(walks / "features.h5", tmp_path / "a", other)
    published = config("auto", feature_dtype="float32", decoder=False)
    with pytest.raises(DataError, match="dtype is 'float16', needed 'float32'"):
        train(walks / "features.h5", tmp_path / "a", published)
    train(walks / "features.h5", tmp_path / "b", config("frames", encoder_block=0, decoder=False))


def test_a_run_on_features_is_measured_without_encoding_recorded_frames(walks, tmp_path, looks):
    changes = {"evaluation.episodes": 2, "evaluation.budget": 5, "train.updates": 1}
    settings = config("stored", decoder=False, **changes, **{"planner.samples": 8})
    train(walks / "alone.h5", tmp_path, settings)
    agent = Agent.from_pretrained(tmp_path)
    agent.info["evaluation"]["env_options"] = {"obs_mode": "both"}
    rows = measure.measure_run(tmp_path, {"model": agent}, jobs.agent_data(agent))
    assert rows["model"]["episodes"] == 2
    assert 0 < sum(looks) <= 2 * (1 + 2 * 5)  # starts, frames and goals of acting alone


def test_the_command_says_what_it_will_take_and_refuses_what_makes_no_sense(
    walks, tmp_path, capsys
):
    source, target = str(walks / "frames.h5"), str(tmp_path / "x.h5")
    encode = ["--encode", "dinov2_small", "--encode-set", "weights=random", "image_size=14"]
    assert main(["convert", source, target, *encode, "dtype=float32", "--json"]) == 0
    said = capsys.readouterr()
    assert "features/image: 248 rows x 1 patches x 384 float32 numbers = 0.4 MB" in said.err
    card = str(tmp_path / "x.card.md")
    expected = {"path": target, "format": "hdf5", "episodes": 8, "card": card}
    assert json.loads(said.out) == expected
    assert TrajectoryDataset.load(target).metadata["features"][COLUMN]["dtype"] == "float32"
    wrong = {
        "--encode dinov2_smal": "Did you mean 'dinov2_small'",
        "--encode-set block=2": "need --encode",
        "--drop-frames": "need --encode",
        "--encode dinov2_small --encode-set blok=2": "Did you mean 'block'",
        "--encode dinov2_small --encode-set weights=random --device nowhere": "no device 'nowhere'",
        "--encode dinov2_small --encode-set weights=random --encode-key x": "no observation 'x'",
    }
    for words, message in wrong.items():
        assert main(["convert", source, str(tmp_path / "y.h5"), *words.split()]) == 2
        assert message in capsys.readouterr().err
