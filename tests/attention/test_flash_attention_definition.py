"""flash_attention equals the definition. In a file of its own: the definition's copies are held to it as well."""

import pytest
import torch
from torch.testing import assert_close

from zhixing.attention.flash_attention import flash_attention
from zhixing.attention.softmax_attention import softmax_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(
    ("n_q", "n_k", "head_size", "causal"),
    [(35, 35, 24, True), (21, 37, 16, False), (21, 37, 24, True), (37, 21, 16, True)],
)
def test_flash_attention_equals_softmax_attention(n_q, n_k, head_size, causal):
    random = torch.Generator().manual_seed(0)
    shapes = (1, 2, n_q, head_size), (1, 1, n_k, head_size), (1, 1, n_k, head_size), (1, 2, n_q, head_size)
    q, k, v, d_out = (torch.randn(shape, generator=random).to(DEVICE) for shape in shapes)
    ours, exact = ([x.to(dtype).requires_grad_() for x in (q, k, v)] for dtype in (torch.float32, torch.float64))
    out, expected = flash_attention(*ours, causal=causal), softmax_attention(*exact, causal=causal)
    assert_close(out, expected.float())
    gradients = torch.autograd.grad(out, ours, d_out), torch.autograd.grad(expected, exact, d_out.double())
    for mine, other in zip(*gradients, strict=True):
        assert_close(mine, other.float())
