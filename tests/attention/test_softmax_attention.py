"""The definition of attention against torch's scaled_dot_product_attention, and against loops."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from zhixing.attention.softmax_attention import causal_mask, softmax_attention

# B, H, G, N, M, D
SHAPES = {
    "one element": (1, 1, 1, 1, 1, 1),
    "square": (2, 3, 3, 7, 7, 5),
    "more keys": (1, 2, 2, 3, 11, 4),
    "more queries": (2, 2, 2, 9, 5, 3),
    "grouped": (2, 6, 2, 5, 8, 3),
    "one key head": (1, 4, 1, 6, 6, 2),
    "empty batch": (0, 2, 1, 3, 4, 2),
    "large batch": (300, 2, 1, 2, 3, 1),
    "no queries": (1, 2, 2, 0, 4, 3),
    "no keys": (1, 2, 1, 4, 0, 3),
}
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])


def make(shape, dtype=torch.float64, seed=0):
    b, h, g, n, m, d = shape
    generator = torch.Generator().manual_seed(seed)
    sizes = (b, h, n, d), (b, g, m, d), (b, g, m, d)
    return tuple(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in sizes)


def by_torch(q, k, v, *, causal=False, scale=None):
    mask = torch.tril(torch.ones(q.shape[2], k.shape[2], dtype=torch.bool), k.shape[2] - q.shape[2])
    return F.scaled_dot_product_attention(q, k, v, mask if causal else None, scale=scale, enable_gqa=True)


def with_gradients(function, q, k, v, **settings):
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = function(*leaves, **settings)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(out.dtype)
    return out.detach(), *torch.autograd.grad(out, leaves, weights)


@CAUSAL
@EACH_SHAPE
def test_value_and_gradients_equal_torchs(shape, causal):
    qkv = make(shape)
    assert_close(with_gradients(softmax_attention, *qkv, causal=causal), with_gradients(by_torch, *qkv, causal=causal))


@CAUSAL
@pytest.mark.parametrize("scale", [0.0, 0.3, -1.0, 2.0])
def test_scale_is_torchs(scale, causal):
    qkv = make(SHAPES["grouped"])
    assert_close(softmax_attention(*qkv, causal=causal, scale=scale), by_torch(*qkv, causal=causal, scale=scale))


def test_all_queries_see_all_keys_by_default():
    qkv = make(SHAPES["square"])
    assert_close(softmax_attention(*qkv), F.scaled_dot_product_attention(*qkv))


def test_equals_loops_over_the_definition():
    q, k, v = make((2, 4, 2, 5, 3, 2))
    out = softmax_attention(q, k, v, causal=True)
    for b, h, i in itertools.product(range(2), range(4), range(5)):
        keys, values = k[b, h // 2].tolist(), v[b, h // 2].tolist()
        seen = range(max(0, i + 3 - 5 + 1))
        logits = [sum(x * y for x, y in zip(q[b, h, i].tolist(), keys[j], strict=True)) / math.sqrt(2) for j in seen]
        total = sum(math.exp(x) for x in logits)
        wanted = [sum((math.exp(logits[j]) / total * values[j][c] for j in seen), 0.0) for c in range(2)]
        assert_close(out[b, h, i].tolist(), wanted)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (2, 5), (5, 2), (1, 4), (4, 0)])
def test_causal_mask_lets_the_last_query_see_all_and_each_before_it_one_key_less(n, m):
    seen = causal_mask(n, m).sum(dim=1).tolist()
    assert seen == [max(0, m - n + 1 + i) for i in range(n)]
    # What is seen lies at the front.
    assert torch.equal(causal_mask(n, m), torch.arange(m) < torch.tensor(seen).unsqueeze(1))


def test_causal_differs_from_torchs_is_causal_where_lengths_do():
    qkv = make(SHAPES["square"])
    assert_close(softmax_attention(*qkv, causal=True), F.scaled_dot_product_attention(*qkv, is_causal=True))
    q, k, v = make(SHAPES["more keys"])
    top_left = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert_close(top_left[:, :, 0], v[:, :, 0])
    assert (softmax_attention(q, k, v, causal=True) - top_left).abs().max() > 0.1


def test_rows_that_attend_to_nothing_are_zero_and_so_are_their_gradients():
    q, k, v = make(SHAPES["more queries"])
    out, dq, dk, dv = with_gradients(softmax_attention, q, k, v, causal=True)
    lonely = 9 - 5
    assert (out[:, :, :lonely] == 0).all()
    assert (dq[:, :, :lonely] == 0).all()
    assert (out[:, :, lonely:] != 0).all()
    # They leave no trace in the gradients of the others.
    rest = with_gradients(softmax_attention, q[:, :, lonely:], k, v, causal=True)
    assert_close(out[:, :, lonely:], rest[0])
    for gradient in (dq, dk, dv):
        assert gradient.isfinite().all()


def test_no_nan_comes_up_on_the_way_either():
    with torch.autograd.set_detect_anomaly(True):
        with_gradients(softmax_attention, *make(SHAPES["more queries"]), causal=True)


@CAUSAL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_logits_of_1e4_stay_finite(dtype, causal):
    q, k, v = make(SHAPES["more queries"], dtype)
    scale = 1e4 / (q @ k.mT).abs().max().item()
    for result in with_gradients(softmax_attention, q, k, v, causal=causal, scale=scale):
        assert result.isfinite().all()
        assert result.dtype == dtype


@CAUSAL
def test_takes_non_contiguous_input(causal):
    q, k, v = make(SHAPES["grouped"])
    strided = [x.mT.contiguous().mT for x in (q, k, v)]
    assert not any(x.is_contiguous() for x in strided)
    assert_close(softmax_attention(*strided, causal=causal), softmax_attention(q, k, v, causal=causal))


@CAUSAL
@pytest.mark.parametrize(("n", "m"), [(3, 3), (3, 2), (2, 3)])
def test_first_and_second_derivative_pass_gradcheck(n, m, causal):
    qkv = [x.requires_grad_() for x in make((1, 2, 1, n, m, 2))]
    assert torch.autograd.gradcheck(lambda q, k, v: softmax_attention(q, k, v, causal=causal), qkv)
    assert torch.autograd.gradgradcheck(lambda q, k, v: softmax_attention(q, k, v, causal=causal), qkv)


def wrong(**changes):
    right = {"q": torch.zeros(2, 4, 3, 8), "k": torch.zeros(2, 2, 5, 8), "v": torch.zeros(2, 2, 5, 8)}
    return {**right, **changes}


WRONG = {
    "types differ": (
        wrong(k=torch.zeros(2, 2, 5, 8).double()),
        r"one floating-point type, but are torch\.float32, tor",
    ),
    "no floating point": (
        {name: x.long() for name, x in wrong().items()},
        r"one floating-point type, but are torch\.int64",
    ),
    "devices differ": (wrong(v=torch.zeros(2, 2, 5, 8, device="meta")), "on one device, but are on cpu, cpu, meta"),
    "a list": (wrong(q=[[1.0]]), "must be tensors, but are list, Tensor, Tensor"),
    "an array": (wrong(v=np.zeros((2, 2, 5, 8))), "must be tensors, but are Tensor, Tensor, ndarray"),
    "nothing": (wrong(k=None), "must be tensors, but are Tensor, NoneType, Tensor"),
    "sparse": (wrong(k=torch.zeros(2, 2, 5, 8).to_sparse()), "must be dense tensors"),
    "three dimensions": (wrong(q=torch.zeros(4, 3, 8)), r"shape \(B, H, N, D\), but are q \(4, 3, 8\)"),
    "batch": (wrong(q=torch.zeros(1, 4, 3, 8)), r"agree in batch and head size, but are q \(1, 4, 3, 8\), k \(2,"),
    "head size": (wrong(q=torch.zeros(2, 4, 3, 7)), r"agree in batch and head size, but are q \(2, 4, 3, 7\)"),
    "head size 0": ({name: x[..., :0] for name, x in wrong().items()}, r"must be positive, but .* q \(2, 4, 3, 0\)"),
    "key and value lengths": (wrong(v=torch.zeros(2, 2, 4, 8)), r"k and v must be of one shape, .* v \(2, 2, 4, 8\)"),
    "heads do not divide": (wrong(q=torch.zeros(2, 3, 3, 8)), r"must divide those of q, but there are 2 and 3"),
    "no key heads": (
        wrong(k=torch.zeros(2, 0, 5, 8), v=torch.zeros(2, 0, 5, 8)),
        r"must divide those of q, but there are 0 and 4",
    ),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize(("qkv", "said"), WRONG.values(), ids=WRONG)
def test_refuses_wrong_input(qkv, said):
    with pytest.raises(ValueError, match=said):
        softmax_attention(**qkv)
