"""Test TITLE against torch."""

import pytest
import torch
from torch.testing import assert_close

from zhixing.AREA.ARTICLE import ARTICLE

INPUTS = {
    "grid": torch.linspace(-5, 5, 101, dtype=torch.float64),
    "empty": torch.empty(0, 3, dtype=torch.float64),
    "transposed": torch.linspace(-3, 3, 35, dtype=torch.float64).reshape(5, 7).T,
}


@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_value_and_gradient_match_torch(x):
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    ARTICLE(ours).sum().backward()
    torch.sin(theirs).sum().backward()
    assert_close(ARTICLE(x), torch.sin(x))
    assert_close(ours.grad, theirs.grad)


def test_gradient_passes_gradcheck():
    x = torch.linspace(-2, 2, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ARTICLE, x)


@pytest.mark.wrong_input
def test_integers_are_an_error():
    with pytest.raises(ValueError, match=r"floating-point tensor, but x is torch\.int64"):
        ARTICLE(torch.ones(2, dtype=torch.int64))
