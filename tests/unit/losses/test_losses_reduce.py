import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_toolkit.errors import ConfigError, ShapeError
from wm_toolkit.losses.reduce import reduce, surprise

VALID = torch.tensor([[1.0, 1.0, 0.0], [2.0, 0.0, 0.0]])


def test_a_term_is_the_weighted_mean_over_real_rows():
    term = torch.tensor([[1.0, 2.0, 50.0], [4.0, 60.0, 70.0]])
    total, metrics = reduce({"a": term}, VALID)
    assert float(total) == pytest.approx((1 + 2 + 2 * 4) / 4)
    assert float(metrics["loss/a"]) == float(total) == float(metrics["loss"])


def test_a_shorter_term_belongs_to_the_last_rows():
    term = torch.tensor([[3.0, 100.0], [5.0, 100.0]])
    assert float(reduce({"a": term}, VALID)[0]) == 3.0


def test_scales_weigh_terms_and_statistics_stay_as_they_are():
    losses = {"a": torch.ones(2, 3), "statistic": torch.tensor(7.0), "reported": torch.ones(2, 3)}
    total, metrics = reduce(losses, VALID, {"statistic": 0.5, "reported": 0.0})
    assert float(total) == 1 + 3.5
    assert float(metrics["loss/statistic"]) == 7.0
    assert float(metrics["loss/reported"]) == 1.0


def test_a_nan_in_padding_does_not_reach_the_loss_or_its_gradient():
    term = torch.tensor([[1.0, 2.0, torch.nan], [4.0, torch.nan, torch.inf]], requires_grad=True)
    total, _ = reduce({"a": term}, VALID)
    total.backward()
    assert float(total.detach()) == pytest.approx(11 / 4)
    assert torch.equal(term.grad, VALID / 4)


def test_a_batch_without_a_real_row_has_no_loss():
    assert float(reduce({"a": torch.ones(2, 3)}, torch.zeros(2, 3))[0]) == 0.0


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_pieces_add_up_to_the_whole_batch(seed, cut):
    generator = torch.Generator().manual_seed(seed)
    term = torch.randn(7, 4, generator=generator)
    valid = torch.rand(7, 4, generator=generator) * (torch.rand(7, 4, generator=generator) > 0.4)
    rows = valid.sum(0)
    whole, _ = reduce({"a": term}, valid)
    parts = [
        reduce({"a": term[part]}, valid[part], row_weight=rows)[0]
        for part in (slice(0, cut), slice(cut, 7))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_a_surprise_is_half_the_mean_and_half_the_worst_row():
    losses = {
        "image": torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, float("nan")]]),
        "reward": torch.tensor(
            [[1.0, 1.0], [2.0, 9.0]], requires_grad=True
        ),  # of the last two rows
        "statistic": torch.tensor(100.0),
    }
    valid = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    found = surprise(losses, valid, {"reward": 2.0})
    # Rows 1, 4, 8, and 0, 4 before the padding.
    assert found.tolist() == pytest.approx([(13 / 3 + 8) / 2, (2 + 4) / 2])
    assert not found.requires_grad


def test_an_unknown_scale_names_the_closest_term():
    with pytest.raises(ConfigError, match=r"'sigrag'.*mean 'sigreg'"):
        reduce({"sigreg": torch.tensor(1.0)}, VALID, {"sigrag": 0.1})


def test_a_term_of_another_shape_is_refused_by_name():
    with pytest.raises(ShapeError, match="'a' has shape \\(2, 4\\)"):
        reduce({"a": torch.ones(2, 4)}, VALID)
