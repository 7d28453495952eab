import pytest
import torch
from torch import nn

from wm_toolkit.errors import CheckpointError, ConfigError
from wm_toolkit.nn.ema import EMA


def test_the_average_follows_its_closed_form():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    ema = EMA(module, decay=0.9)
    nn.init.constant_(module.weight, 3.0)
    for _ in range(5):
        ema.update()
    assert float(ema.shadow["weight"]) == pytest.approx(3 - 2 * 0.9**5)


def test_swapped_holds_the_average_and_gives_the_weights_back():
    module = nn.Linear(2, 2)
    ema = EMA(module, decay=0.5)
    average = module.weight.detach().clone()
    nn.init.constant_(module.weight, 3.0)
    with ema.swapped():
        assert torch.equal(module.weight, average)
    assert torch.equal(module.weight, torch.full((2, 2), 3.0))
    assert torch.equal(ema.shadow["weight"], average)


def test_batch_norm_statistics_are_averaged_and_other_buffers_copied():
    module = nn.Sequential(nn.BatchNorm1d(1, affine=False))
    module.register_buffer("mask", torch.tensor([-torch.inf, 0.0]))
    ema = EMA(module, decay=0.75)
    module[0].running_mean.fill_(4.0)
    module[0].num_batches_tracked.fill_(9)
    module.mask[1] = 5.0
    ema.update()
    assert float(ema.shadow["0.running_mean"]) == 1.0
    assert int(ema.shadow["0.num_batches_tracked"]) == 9
    assert torch.equal(ema.shadow["mask"], torch.tensor([-torch.inf, 5.0]))


def test_frozen_parameters_are_left_alone():
    module = nn.Linear(2, 2)
    module.weight.requires_grad_(False)
    assert list(EMA(module, 0.9).shadow) == ["bias"]


def test_loading_another_modules_average_is_refused():
    with pytest.raises(CheckpointError, match="differ in \\['bias'\\]"):
        EMA(nn.Linear(2, 2, bias=False), 0.9).load_state_dict(
            EMA(nn.Linear(2, 2), 0.9).state_dict()
        )
    with pytest.raises(ConfigError, match="decay is 1"):
        EMA(nn.Linear(2, 2), 1.0)
