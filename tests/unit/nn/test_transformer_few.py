"""What blocks do on a CPU without gradients to be faster."""

import pytest
import torch
from torch.nn import functional

from wm_toolkit.nn.transformer import GELU, Attention, Frames


def test_gelu_overwrites_its_input_only_without_gradients(rng):
    x = torch.randn(4, 8, generator=rng)
    expected, kept = functional.gelu(x), x.clone()
    assert torch.equal(GELU()(x), expected)
    assert torch.equal(x, kept)
    with torch.no_grad():
        found = GELU()(x)
    torch.testing.assert_close(found, expected)
    assert found.data_ptr() == x.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_that_come_one_by_one_see_what_they_see_together(rng, dtype):
    attention = Attention(16, 2, head_width=8, frames=Frames(window=3)).to(dtype)
    x = torch.randn(5, 6, 16, generator=rng).to(dtype)
    with torch.no_grad():
        expected = attention(x.float() if dtype == torch.float32 else x, causal=True)
        past, found = None, []
        for token in x.split(1, 1):
            mixed, past = attention.extend(token, past)
            found.append(mixed)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(torch.cat(found, 1), expected, rtol=tolerance, atol=tolerance)
