"""The critic's loss along replayed sequences: where episodes end, are cut or abandoned, and padding."""

from __future__ import annotations

import pytest
import torch
from behaviour_toys import batch_of, behaviour, program
from torch.testing import assert_close

from wm_toolkit.errors import DataError
from wm_toolkit.losses.reduce import reduce


@pytest.mark.parametrize("said_by", ["truncated", "is_first"])
def test_a_replayed_return_bootstraps_where_an_episode_was_cut_and_skips_the_cut_row(said_by):
    """A cut row says so itself; that of an abandoned episode is known by the row behind it."""
    ac = behaviour(slow_pull=0.0)
    batch = batch_of(last=True)
    batch = batch.replace(terminated=torch.zeros_like(batch.is_first))
    if said_by == "is_first":
        batch = batch.replace(truncated=torch.zeros_like(batch.is_first))
    posterior = ac.model.observe_sequence(batch)
    bootstrap = torch.arange(15.0).view(3, 5)
    loss = ac._replayed(batch, posterior, bootstrap)
    g, lam, r = 1 - 1 / 333, 0.95, batch.reward
    last = r[:, 4] + g * bootstrap[:, 4]
    cut = r[:, 2] + g * bootstrap[:, 2]  # row 2 is an episode's last: nothing behind it counts
    first = r[:, 1] + g * ((1 - lam) * bootstrap[:, 1] + lam * cut)
    value = ac.model.heads["value"](ac.model.features(posterior))
    assert loss.shape == (3, 4)
    assert not loss[:, 2].any()
    for row, target in ((0, first), (1, cut), (3, last)):
        each = type(value)(value.logits[:, row], value.bins, value.squash)
        assert_close(loss[:, row], each.loss(target))


def test_rewards_behind_an_abandoned_episode_are_none_of_its_own():
    ac = behaviour(slow_pull=0.0)
    batch = batch_of()[:1, :4]
    never, first = torch.zeros(1, 4, dtype=torch.bool), torch.tensor([[True, False, True, False]])
    reward = torch.tensor([[0.0, 1.0, 0.0, 50.0]])
    batch = batch.replace(is_first=first, reward=reward, terminated=never, truncated=never)
    posterior = ac.model.observe_sequence(batch)
    loss = ac._replayed(batch, posterior, torch.zeros(1, 4))
    value = ac.model.heads["value"](ac.model.features(posterior)[:, :3])
    expected = value.loss(torch.tensor([[1.0, 0.0, 50.0]])) * torch.tensor([1.0, 0.0, 1.0])
    assert_close(loss, expected)


@pytest.mark.parametrize("real", [slice(0, 3), slice(2, 5)])
def test_padding_before_or_behind_a_window_is_no_part_of_the_replayed_value(real):
    ac = behaviour()
    batch = batch_of()
    mask = torch.zeros_like(batch.is_first)
    mask[:, real] = True
    posterior, bootstrap = ac.model.observe_sequence(batch), torch.arange(15.0).view(3, 5)
    whole, short = [], batch[:, real]
    alone = ac._replayed(short, posterior[:, real], bootstrap[:, real])
    for padding in (0.0, 1000.0):
        reward = torch.where(mask, batch.reward, padding)
        ended = torch.where(mask, batch.terminated, padding > 0)
        padded = batch.replace(mask=mask, reward=reward, terminated=ended, truncated=ended)
        values = torch.where(mask, bootstrap, padding)
        whole.append(ac._replayed(padded, posterior, values))
        assert_close(whole[-1].sum(), alone.sum())
        assert_close(whole[-1][:, real.start : real.stop - 1], alone)
    assert torch.equal(*whole)
    if real.start == 0:  # as many rows are judged as in the window without its padding
        of = [reduce({"a": a}, b.valid)[0] for a, b in ((whole[0], padded), (alone, short))]
        assert_close(*of)


def test_a_replayed_value_asks_for_the_ends_of_episodes():
    ac = program("dreamer_v1", behaviour__replay_value=0.3)
    assert ac(batch_of())["replay_value"].shape == (3, 4)
    with pytest.raises(
        DataError, match=r"Batch\.terminated is None.*set behaviour\.replay_value to 0"
    ):
        ac(batch_of().replace(terminated=None))
