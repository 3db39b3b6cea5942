"""The running maximum and sum against torch, and the merge of two partial results as an algebra."""

import functools
import math

import pytest
import torch
from torch.testing import assert_close

from zhixing.attention.online_softmax import (
    Partial,
    finish,
    finite,
    mean_in_one_pass,
    mean_in_three_passes,
    mean_in_two_passes,
    merge,
    nothing,
    part,
    running_max_and_sum,
)

# A machine that is lent for its GPU need not have it.
hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")
given, settings = hypothesis.given, hypothesis.settings

PASSES = pytest.mark.parametrize(
    "mean", [mean_in_three_passes, mean_in_two_passes, mean_in_one_pass], ids=lambda mean: mean.__name__
)
LOGITS = {
    "one": [0.3],
    "rising": [-2.0, -1.0, 0.0, 1.0, 5.0],
    "falling": [5.0, 1.0, 0.0, -1.0, -2.0],
    "equal": [0.7] * 4,
    "large": [1e4, -1e4, 1e4 - 1, 3.0],
    "hidden first": [-math.inf, -math.inf, 1.0, 2.0],
    "hidden in the middle": [1.0, -math.inf, 2.0],
    "hidden last": [1.0, 2.0, -math.inf],
}
EACH = pytest.mark.parametrize("x", [torch.tensor(x, dtype=torch.float64) for x in LOGITS.values()], ids=LOGITS)


def values(n, d=3):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


@PASSES
@EACH
def test_mean_and_its_gradients_equal_torchs_softmax(mean, x):
    results = []
    for function in (mean, lambda x, v: torch.softmax(x, dim=0) @ v):
        leaves = x.clone().requires_grad_(), values(len(x)).requires_grad_()
        out = function(*leaves)
        results.append((out.detach(), *torch.autograd.grad(out @ out.detach().exp(), leaves)))
    assert_close(*results)


@EACH
def test_running_maximum_and_sum_equal_torchs_scans(x):
    m, ell = running_max_and_sum(x)
    assert_close(m, torch.cummax(x, dim=0).values)
    assert_close(m + ell.log(), torch.logcumsumexp(x, dim=0))


def test_running_maximum_and_sum_of_rows_not_contiguous_and_empty():
    x = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).permute(2, 1, 0)
    m, ell = running_max_and_sum(x)
    assert_close(m, torch.cummax(x, dim=-1).values)
    assert_close(m + ell.log(), torch.logcumsumexp(x, dim=-1))
    for shape in ((0,), (2, 0), (0, 4)):
        assert [y.shape for y in running_max_and_sum(torch.empty(shape))] == [shape, shape]


def test_every_step_of_the_scan_is_a_merge():
    x = torch.tensor([0.5, -math.inf, 3.0, 3.0, -7.0], dtype=torch.float64)
    m, ell = running_max_and_sum(x)
    v = torch.zeros(1, dtype=torch.float64)
    seen = nothing(v)
    for j, x_j in enumerate(x):
        seen = merge(seen, Partial(x_j, (x_j > -math.inf).double(), v))
        assert_close((seen.m, seen.ell), (m[j], ell[j]))


def test_merge_of_logits_0_and_ln_3_worked_by_hand():
    one, three = torch.tensor(0.0), torch.tensor(3.0).log()
    first = Partial(one, torch.tensor(1.0), torch.tensor([1.0, 0.0]))
    second = Partial(three, torch.tensor(1.0), torch.tensor([0.0, 1.0]))
    for merged in (merge(first, second), merge(second, first)):
        assert_close(merged, Partial(three, torch.tensor(4 / 3), torch.tensor([1 / 3, 1.0])))


def test_mean_and_log_sum_exp_of_logits_0_and_ln_3_worked_by_hand():
    seen = Partial(torch.tensor(3.0).log(), torch.tensor(4 / 3), torch.tensor([1 / 3, 1.0]))
    assert_close(finish(seen), (torch.tensor([0.25, 0.75]), torch.tensor(4.0).log()))


def test_nothing_has_a_maximum_below_all_and_sums_of_0():
    assert_close(nothing(torch.ones(2, 3)), Partial(torch.full((2,), -math.inf), torch.zeros(2), torch.zeros(2, 3)))


def test_finite_replaces_minus_infinity_alone():
    m = torch.tensor([-math.inf, -1e38, 0.0, math.inf])
    assert_close(finite(m), torch.tensor([0.0, -1e38, 0.0, math.inf]))


# A block of two queries' logits: anything from nothing but -inf to 1e4 in size.
logit = st.one_of(st.just(-math.inf), st.floats(-1e4, 1e4), st.floats(-3, 3))
block = st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(logit, min_size=n, max_size=n), min_size=2, max_size=2))


def partial(rows):
    x = torch.tensor(rows, dtype=torch.float64)
    return part(x, values(x.shape[-1]))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(block, block, block)
def test_merge_is_associative_and_commutative(a, b, c):
    a, b, c = map(partial, (a, b, c))
    assert_close(merge(merge(a, b), c), merge(a, merge(b, c)))
    assert_close(merge(a, b), merge(b, a))


@settings(deadline=None, max_examples=40, derandomize=True)
@given(block)
def test_nothing_is_the_neutral_element(rows):
    a = partial(rows)
    empty = nothing(a.acc)
    for merged in (merge(a, empty), merge(empty, a)):
        assert_close(merged, a, rtol=0, atol=0)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.lists(logit, min_size=1, max_size=12), st.data())
def test_any_cut_into_blocks_gives_the_softmax_of_all(x, data):
    x = torch.tensor(x, dtype=torch.float64)
    v = values(len(x))
    sizes = []
    while sum(sizes) < len(x):
        sizes.append(data.draw(st.integers(1, len(x) - sum(sizes))))
    blocks = map(part, x.split(sizes), v.split(sizes))
    mean, lse = finish(functools.reduce(merge, blocks))
    assert_close(mean, torch.softmax(x, dim=0).nan_to_num(0) @ v)
    assert_close(lse, torch.logsumexp(x, dim=0))


def test_merged_log_sum_exp_and_gradients_equal_torchs():
    x = torch.tensor([[1.0, -math.inf, 3.0, 2.0], [-math.inf, -math.inf, 0.5, 0.1]], dtype=torch.float64)
    results = []
    for whole in (False, True):
        leaves = x.clone().requires_grad_(), values(4).requires_grad_()
        if whole:
            mean, lse = torch.softmax(leaves[0], dim=-1) @ leaves[1], torch.logsumexp(leaves[0], dim=-1)
        else:
            mean, lse = finish(merge(*map(part, leaves[0].split(2, dim=-1), leaves[1].split(2))))
        loss = (mean * torch.arange(6).reshape(2, 3)).sum() + (lse * torch.tensor([1.0, 2.0])).sum()
        results.append((mean.detach(), lse.detach(), *torch.autograd.grad(loss, leaves)))
    assert_close(*results)


def test_nothing_seen_is_zero_with_zero_gradients():
    x = torch.full((2, 3), -math.inf, dtype=torch.float64).requires_grad_()
    v = values(3).requires_grad_()
    seen = merge(merge(nothing(values(2)), part(x, v)), part(x, v))
    mean, lse = finish(seen)
    assert torch.equal(mean, torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(lse, torch.full((2,), -math.inf, dtype=torch.float64))
    for gradient in torch.autograd.grad(mean.sum(), (x, v)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_sum_of_the_paper_stays_between_1_and_n():
    """Milakov & Gimelshein, section 3: 1 ≤ d_j ≤ j, so that float32 cannot overflow for n < 1.7e37."""
    x = 1e4 * torch.randn(3, 257, generator=torch.Generator().manual_seed(1))
    _, ell = running_max_and_sum(x)
    assert (ell >= 1).all()
    assert (ell <= torch.arange(1, 258)).all()
    assert_close(running_max_and_sum(torch.full((257,), 1e4))[1], torch.arange(1.0, 258))


@PASSES
@pytest.mark.wrong_input
@pytest.mark.parametrize("n", [2, 4])
def test_means_refuse_more_or_fewer_values_than_logits(mean, n):
    with pytest.raises(ValueError, match="argument"):  # Python's own words about a strict zip
        mean(torch.zeros(3), torch.zeros(n, 2))


@pytest.mark.wrong_input
def test_refuses_an_empty_block():
    with pytest.raises(ValueError, match=r"at least one logit, but x is of shape \(2, 0\)"):
        part(torch.empty(2, 0), torch.empty(0, 3))
