"""A look at dreams: numbers that are known, pictures that show what they say, files that come back."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from dreamer_toys import SPACES, Drift, categorical_dreamer, drifting, gaussian_dreamer, sequences
from PIL import Image
from torch import nn

from wm_toolkit.errors import CheckpointError, ShapeError
from wm_toolkit.heads.normal import Regression
from wm_toolkit.render import dreams
from wm_toolkit.render.dream_page import dream_sections
from wm_toolkit.render.dreams import load_look, look, save_look
from wm_toolkit.render.open_loop import open_loop
from wm_toolkit.render.rollout import dream_films, film, strip
from wm_toolkit.render.video import GOOD, GREY


def ends_at(limit: float, **options):
    """Sequences of a drifting point that end beyond `limit`, and the model that knows it."""
    batch = drifting(rows=6, length=8)
    return Drift(limit=limit, **options), batch.replace(terminated=batch.obs["x"][..., 0] >= limit)


def test_a_model_that_knows_everything_is_calibrated():
    model, batch = ends_at(2.0, discount=0.9)
    found = look(model, batch, context=2).dreams
    assert [name for name, _ in found.rewards] == ["dreamt", "filtered"]
    for _, reward in found.rewards:
        assert reward.r2 == pytest.approx(1)
        assert reward.bias == pytest.approx(0, abs=1e-5)
    for _, ending in found.endings:
        assert 0 < ending.rate < 1
        assert ending.ece == pytest.approx(0, abs=1e-5), "the discount is not a mistake"


def test_a_model_that_believes_too_little_motion_is_biased_in_the_dream_only():
    batch = drifting(rows=6, length=8)
    found = look(Drift(gain=0.0), batch, context=2).dreams
    dreamt, filtered = dict(found.rewards)["dreamt"], dict(found.rewards)["filtered"]
    x = batch.obs["x"][..., 0]
    assert dreamt.bias == pytest.approx(float((x[:, 1:2] - x[:, 2:]).mean()), rel=1e-4)
    assert filtered.bias == pytest.approx(0, abs=1e-6)


class Tanh(nn.Module):
    """Reads tanh of the place."""

    def forward(self, features):
        return Regression(features[..., 0].tanh(), torch.ones(features.shape[:-1]), 0)


def test_rewards_are_compared_as_the_head_learnt_them():
    batch = drifting()
    model = Drift()
    model.squash_reward = True
    model.heads["reward"] = Tanh()
    found = look(model, batch, context=2).dreams
    assert dict(found.rewards)["dreamt"].r2 == pytest.approx(1)


def test_the_log_gets_errors_at_some_horizons_beside_their_baseline():
    found = look(Drift(0.5), drifting(length=8), context=2).dreams
    logged = found.metrics()
    assert logged["dream/latent_error/1"] == found.latent.model[0]
    assert logged["dream/latent_error_copy/5"] == found.latent.copy[4]
    assert logged["dream/kl/5"] == found.belief.model[4]
    assert "dream/latent_error/15" not in logged
    expected = {"x_error", "view_error", "reward_r2", "reward_bias", "reward_mse"}
    expected |= {"continue_ece", "continue_brier", "kl", "kl_copy", "latent_error"}
    assert expected <= {name.split("/")[1] for name in logged}


def test_curves_show_the_context_as_seen_and_the_dream_as_dreamt():
    batch = drifting(rows=1)
    found = look(Drift(0.0), batch, context=3).dreams
    curves = {trace.name: trace for trace in found.traces}
    x = batch.obs["x"][0, :, 0].tolist()
    assert curves["x[0]"].truth == pytest.approx(x)
    assert curves["x[0]"].dream == pytest.approx(x[:3] + [x[2]] * 5)
    assert curves["reward"].dream == pytest.approx(curves["x[0]"].dream)
    assert curves["chance of going on"].truth == (1.0,) * 8


def test_strips_show_truth_dream_and_where_they_differ():
    batch = drifting(rows=2)
    (films,) = dream_films(Drift(0.0), open_loop(Drift(0.0), batch, context=3)).values()
    truth = batch.obs["view"].expand(2, 8, 4, 4, 3).numpy()
    np.testing.assert_array_equal(films.truth, truth)
    np.testing.assert_allclose(films.dream[:, :3], truth[:, :3].astype(int), atol=1)
    np.testing.assert_array_equal(films.dream[:, 7], films.dream[:, 2])
    gap = np.abs(films.dream.astype(int) - truth)
    np.testing.assert_array_equal(films.error, 255 - gap)
    picture = strip(films)
    assert picture.shape == (2 * (3 * 4 + 2 * 3) + 12, 8 * 4 + 7 * 2, 3)
    np.testing.assert_array_equal(picture[:4, :4], truth[0, 0])
    moving = film(films, context=3)
    assert moving.shape == (8, 2 * 8 + 4, 3 * 4 + 2 * 2 + 4, 3)
    assert (moving[2, 0, 0] == GOOD).all()
    assert (moving[3, 0, 0] == GREY).all()


def test_behind_the_end_of_an_episode_pictures_are_white():
    batch = drifting(rows=2)
    first = batch.is_first.clone()
    first[1, 5] = True
    loop = open_loop(Drift(), batch.replace(is_first=first), context=2)
    (films,) = dream_films(Drift(), loop).values()
    for part in films:
        assert (part[1, 5:] == 255).all()
    np.testing.assert_array_equal(films.truth[0], batch.obs["view"].expand(2, 8, 4, 4, 3)[0])


def test_every_model_of_the_family_can_be_looked_at(rng):
    for name, model in {
        "vector": categorical_dreamer(),
        "image": categorical_dreamer("image"),
        "several": categorical_dreamer("several"),
        "gaussian": gaussian_dreamer(),
    }.items():
        spaces = SPACES["vector" if name == "gaussian" else name]
        found = look(model, sequences(spaces, rng, length=7), context=2, examples=2)
        assert found.dreams.belief is not None
        assert dict(found.dreams.observations).keys() == spaces.observation.keys()
        images = [key for key, space in spaces.observation.items() if space.dtype == np.uint8]
        assert list(found.strips) == list(found.films) == images
        for data in found.strips.values():
            picture = Image.open(io.BytesIO(data))
            assert picture.size == (7 * 64 + 6 * 2, 2 * (3 * 64 + 2 * 3) + 12)
        names = {trace.name for trace in found.dreams.traces}
        if name == "several":
            assert {"joints[0]", "joints[1]", "joints[2]", "mode", "reward"} <= names
        page = dream_sections(found)
        assert ("Dream beside reality" in page) == bool(images)
        assert "Calibration" in page


def test_a_model_without_a_decoder_has_numbers_and_no_pictures(rng):
    model = categorical_dreamer()
    del model.heads["decoder"]
    found = look(model, sequences(SPACES["vector"], rng), context=2)
    assert found.strips == {}
    assert found.dreams.observations == ()
    assert [trace.name for trace in found.dreams.traces] == ["reward", "chance of going on"]
    page = dream_sections(found)
    assert "Latent state" in page
    assert "<img" not in page


def test_a_model_without_rewards_or_ends_and_data_without_them_are_fine(rng):
    model, batch = gaussian_dreamer(), sequences(SPACES["vector"], rng)
    bare = look(model, batch.replace(reward=None, terminated=None), context=2).dreams
    assert (bare.rewards, bare.endings) == ((), ())
    del model.heads["reward"], model.heads["continue"]
    assert look(model, batch, context=2).dreams.rewards == ()


def test_a_look_comes_back_from_its_folder_and_the_newest_replaces_the_last(tmp_path):
    assert load_look(tmp_path) is None
    for gain in (0.5, 1.0):
        made = look(Drift(gain), drifting(), context=2)
        save_look(made, tmp_path)
        assert load_look(tmp_path) == made
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dreams"]


def test_a_look_that_could_not_be_written_leaves_the_last_one_whole(tmp_path, monkeypatch):
    made = look(Drift(), drifting(), context=2)
    save_look(made, tmp_path)

    def full(path, data):
        raise OSError("no space left")

    monkeypatch.setattr(dreams, "save_json", full)
    with pytest.raises(OSError, match="no space"):
        save_look(look(Drift(0.5), drifting(), context=2), tmp_path)
    assert load_look(tmp_path) == made
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dreams"]


def test_a_damaged_folder_is_named(tmp_path):
    save_look(look(Drift(), drifting(), context=2), tmp_path)
    (tmp_path / "dreams" / "strip_0.png").unlink()
    with pytest.raises(CheckpointError, match="dreams is damaged"):
        load_look(tmp_path)


def test_a_model_that_draws_another_size_is_told():
    batch = drifting()
    small = {**batch.obs, "view": batch.obs["view"][:, :, :2]}
    with pytest.raises(ShapeError, match="the decoder draws"):
        look(Drift(), batch.replace(obs=small), context=2)


def test_the_page_says_how_many_rows_were_seen_and_shows_the_diagonal():
    model, batch = ends_at(2.0)
    page = dream_sections(look(model, batch, context=2))
    assert "The model sees 2 rows" in page
    assert page.count("as predicted") >= 2
    assert "dream begins" in page
    assert dream_sections(None) == ""
