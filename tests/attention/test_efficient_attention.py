"""Windows, patterns and projections against torch's attention under a mask, flex_attention, and loops."""

import itertools
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from tensors import normal
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from zhixing.attention.efficient_attention import (
    cache_elements,
    latent_cache_elements,
    projected_attention,
    reach,
    strided_attention,
    strided_mask,
    window_attention,
    window_mask,
)
from zhixing.attention.softmax_attention import causal_mask, softmax_attention

# B, H, G, N, D
SHAPES = {
    "one element": (1, 1, 1, 1, 1),
    "odd": (2, 3, 3, 11, 5),
    "grouped heads": (1, 6, 2, 9, 4),
    "one key head": (2, 4, 1, 8, 3),
    "empty batch": (0, 2, 2, 5, 3),
    "no tokens": (1, 2, 2, 0, 3),
}
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def make(shape, dtype=torch.float64):
    b, h, g, n, d = shape
    return normal(b, h, n, d, dtype=dtype), *(normal(b, g, n, d, seed=seed, dtype=dtype) for seed in (1, 2))


def with_gradients(function, *tensors):
    """The output, and the gradients of a fixed random combination of it."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, normal(*out.shape, seed=9, dtype=out.dtype))]


def band(n, window):
    """The mask by torch's own triangles."""
    return torch.ones(n, n, dtype=torch.bool).tril().triu(1 - window)


def by_torch(q, k, v, window, scale=None):
    return F.scaled_dot_product_attention(q, k, v, band(q.shape[2], window), scale=scale, enable_gqa=True)


# Windows


@EACH_SHAPE
@pytest.mark.parametrize("window", [1, 2, 3, 5, 8, 100])
def test_window_attention_is_torchs_attention_under_the_mask(shape, window):
    qkv = make(shape)
    ours = with_gradients(lambda *x: window_attention(*x, window=window), *qkv)
    if shape[3] == 0:
        assert [x.shape for x in ours] == [qkv[0].shape, *(x.shape for x in qkv)]
    else:
        assert_close(ours, with_gradients(lambda *x: by_torch(*x, window), *qkv))


@pytest.mark.parametrize("n", [63, 64, 65, 130])
def test_lengths_around_a_multiple_of_the_window(n):
    qkv = make((1, 2, 1, n, 4))
    ours = with_gradients(lambda *x: window_attention(*x, window=64, scale=0.7), *qkv)
    assert_close(ours, with_gradients(lambda *x: by_torch(*x, 64, 0.7), *qkv))


def test_window_attention_is_flex_attentions():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, k, v = make((1, 4, 2, 150, 16), torch.float32)
    block_mask = create_block_mask(lambda b, h, i, j: (i >= j) & (i - j < 20), None, None, 150, 150, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is meant to be compiled
        wanted = flex_attention(q, k, v, block_mask=block_mask, enable_gqa=True)
    assert_close(window_attention(q, k, v, window=20), wanted)


def test_equals_loops_over_the_definition():
    q, k, v = make((1, 2, 1, 6, 2))
    out = window_attention(q, k, v, window=3)
    for h, i, c in itertools.product(range(2), range(6), range(2)):
        seen = range(max(0, i - 2), i + 1)
        weights = [math.exp((q[0, h, i] @ k[0, 0, j]).item() / math.sqrt(2)) for j in seen]
        wanted = sum(w * v[0, 0, j, c].item() for w, j in zip(weights, seen, strict=True)) / sum(weights)
        assert_close(out[0, h, i, c].item(), wanted)


def test_window_as_long_as_the_sequence_is_causal_attention():
    qkv = make((2, 2, 2, 10, 3))
    for window in (10, 11, 10**9):
        assert_close(window_attention(*qkv, window=window), softmax_attention(*qkv, causal=True))
    assert_close(window_attention(*qkv, window=1), qkv[2])


def test_first_and_second_derivative_pass_gradcheck():
    qkv = [x.requires_grad_() for x in make((1, 2, 1, 5, 2))]
    assert torch.autograd.gradcheck(lambda *x: window_attention(*x, window=2), qkv)
    assert torch.autograd.gradgradcheck(lambda *x: window_attention(*x, window=2), qkv)


def test_last_query_needs_the_last_keys_of_the_cache_and_no_mask():
    """Decoding: with no mask, torch's attention of one query on `window` keys."""
    q, k, v = make((2, 4, 2, 23, 3))
    last = F.scaled_dot_product_attention(q[:, :, -1:], k[:, :, -7:], v[:, :, -7:], enable_gqa=True)
    assert_close(window_attention(q, k, v, window=7)[:, :, -1:], last)


def test_what_is_outside_the_window_changes_nothing():
    q, k, v = make((1, 1, 1, 12, 3))
    out = window_attention(q, k, v, window=4)
    k[:, :, 5] += 100
    v[:, :, 5] -= 100
    changed = (window_attention(q, k, v, window=4) != out).any(-1).flatten()
    assert changed.nonzero().flatten().tolist() == [5, 6, 7, 8]


def test_large_logits_do_not_overflow():
    q, k, v = make((1, 2, 2, 13, 4), torch.float32)
    out = window_attention(1e4 * q, k, v, window=5)
    assert out.isfinite().all()
    assert_close(out, by_torch(1e4 * q, k, v, 5))


@HALVES
def test_low_precision_error_is_at_most_twice_that_of_torch(dtype):
    q, k, v = make((1, 4, 2, 100, 16), dtype)
    exact = by_torch(q.double(), k.double(), v.double(), 16)
    out = window_attention(q, k, v, window=16)
    assert out.dtype == dtype
    eager = torch.softmax((q @ k.repeat_interleave(2, 1).mT / 4).masked_fill(~band(100, 16), -math.inf), -1)
    eager = eager @ v.repeat_interleave(2, 1)
    assert (out.double() - exact).abs().max() <= 2 * (eager.double() - exact).abs().max()


def test_takes_non_contiguous_input_and_leaves_arguments_alone():
    qkv = make((2, 3, 3, 9, 4))
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in qkv]
    copies = [x.clone() for x in strided]
    assert not any(x.is_contiguous() for x in strided)
    assert_close(window_attention(*strided, window=4), window_attention(*qkv, window=4))
    assert all(torch.equal(x, copy) for x, copy in zip(strided, copies, strict=True))


def test_multiply_adds_grow_with_n_times_the_window():
    counts = {}
    for n, window in itertools.product((256, 512), (16, 32)):
        q, k, v = make((1, 1, 1, n, 8))
        with FlopCounterMode(display=False) as counter:
            window_attention(q, k, v, window=window)
        counts[n, window] = counter.get_total_flops() // 2
    # Two products, of each query and the 2 · window keys of its block.
    assert counts == {(n, window): n * 2 * window * 2 * 8 for n, window in counts}


# Strides


def by_loops(n, stride):
    return torch.tensor([[j in range(i, -1, -stride) for j in range(n)] for i in range(n)])


@EACH_SHAPE
@pytest.mark.parametrize("stride", [1, 2, 3, 5, 8, 10**9])
def test_strided_attention_is_torchs_attention_under_the_mask(shape, stride):
    q, k, v = make(shape)
    ours = with_gradients(lambda *x: strided_attention(*x, stride=stride, scale=0.7), q, k, v)
    if shape[3] == 0:
        assert [x.shape for x in ours] == [x.shape for x in (q, q, k, v)]
    else:
        mask = by_loops(shape[3], stride)
        wanted = with_gradients(
            lambda *x: F.scaled_dot_product_attention(*x, mask, scale=0.7, enable_gqa=True), q, k, v
        )
        assert_close(ours, wanted)


@pytest.mark.parametrize("n", [63, 64, 65, 130])
def test_lengths_around_a_multiple_of_the_stride(n):
    q, k, v = make((1, 2, 1, n, 4))
    wanted = F.scaled_dot_product_attention(q, k, v, by_loops(n, 16), enable_gqa=True)
    assert_close(strided_attention(q, k, v, stride=16), wanted)


def test_strided_attention_passes_gradcheck():
    qkv = [x.requires_grad_() for x in make((1, 2, 1, 5, 2))]
    assert torch.autograd.gradcheck(lambda *x: strided_attention(*x, stride=2), qkv)


def test_last_query_needs_every_strideth_key_of_the_cache_and_no_mask():
    q, k, v = make((2, 4, 2, 23, 3))
    seen = [x[:, :, (23 - 1) % 4 :: 4] for x in (k, v)]
    last = F.scaled_dot_product_attention(q[:, :, -1:], *seen, enable_gqa=True)
    assert_close(strided_attention(q, k, v, stride=4)[:, :, -1:], last)


@HALVES
def test_strided_attention_in_low_precision(dtype):
    q, k, v = make((1, 4, 2, 65, 16), dtype)
    out = strided_attention(q, k, v, stride=8)
    exact = strided_attention(*(x.double() for x in (q, k, v)), stride=8)
    eager = F.scaled_dot_product_attention(q, k, v, by_loops(65, 8), enable_gqa=True)
    assert out.dtype == dtype
    assert (out.double() - exact).abs().max() <= 2 * (eager.double() - exact).abs().max()


def test_strided_attention_takes_non_contiguous_input_and_leaves_arguments_alone():
    qkv = make((2, 3, 3, 9, 4))
    transposed = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in qkv]
    copies = [x.clone() for x in transposed]
    assert_close(strided_attention(*transposed, stride=4), strided_attention(*qkv, stride=4))
    assert all(torch.equal(x, copy) for x, copy in zip(transposed, copies, strict=True))


def test_multiply_adds_of_a_stride_shrink_with_the_stride():
    counts = {}
    for n, stride in itertools.product((256, 512), (8, 16)):
        q, k, v = make((1, 1, 1, n, 8))
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            strided_attention(q, k, v, stride=stride)
        counts[n, stride] = counter.get_total_flops() // 2
    assert counts == {(n, stride): 2 * n * n // stride * 8 for n, stride in counts}


@pytest.mark.parametrize("stride", [1, 64, 127, 128, 255])
def test_stride_below_256_leaves_no_causal_block_of_128_empty(stride):
    """Why flex_attention, which skips blocks of 128 × 128, saves nothing there."""
    block = (8, 128)

    def blocks(mask):
        return mask.unflatten(1, block).unflatten(0, block).any(3).any(1)

    assert blocks(strided_mask(1024, stride=stride)).equal(causal_mask(8, 8))
    assert not blocks(strided_mask(1024, stride=256)).equal(causal_mask(8, 8))


# Patterns


@pytest.mark.parametrize("n", [0, 1, 5, 12])
@pytest.mark.parametrize("size", [1, 3, 20])
def test_masks_equal_loops(n, size):
    window, strided = window_mask(n, window=size), strided_mask(n, stride=size)
    assert window.dtype == strided.dtype == torch.bool
    assert window.equal(band(n, size))
    for i, j in itertools.product(range(n), range(n)):
        assert window[i, j] == (j in range(i - size + 1, i + 1))
        assert strided[i, j] == (j in range(i, -1, -size))


def test_flash_attns_left_sees_one_key_more():
    """Its documentation: keys from i - left to i + right, both included."""
    left = 4
    theirs = torch.tensor([[i - left <= j <= i for j in range(12)] for i in range(12)])
    assert window_mask(12, window=left + 1).equal(theirs)
    assert window_mask(12, window=left).sum(1).max() == theirs.sum(1).max() - 1


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_windows_reach_one_key_less_than_themselves_a_layer(layers):
    reached = reach(*[window_mask(40, window=6)] * layers)
    assert reached.equal(band(40, layers * 5 + 1))


@pytest.mark.parametrize("order", [1, -1], ids=["window first", "stride first"])
def test_two_layers_reach_everything_if_the_window_fills_the_stride(order):
    for window in (3, 4, 5):
        masks = [window_mask(17, window=window), strided_mask(17, stride=4)][::order]
        assert reach(*masks).equal(causal_mask(17, 17)) == (window >= 4)


def test_reach_equals_a_search_for_paths():
    masks = [normal(7, 7, seed=seed) > 0.8 for seed in range(4)]
    reached = reach(*masks)
    for output in range(7):
        sources = {output}
        for mask in reversed(masks):  # from the last layer down
            sources = {j for i in sources for j in range(7) if mask[i, j]}
        assert reached[output].nonzero().flatten().tolist() == sorted(sources)
    assert not reach(*masks).equal(reach(*masks[::-1]))
    assert reach(masks[0]).equal(masks[0])
    assert reach(masks[0][:0, :0]).shape == (0, 0)


def test_cheapest_stride_is_the_root_of_the_length():
    n = 256
    seen = {s: int((window_mask(n, window=s) | strided_mask(n, stride=s)).sum(1).max()) for s in (4, 8, 16, 32, 64)}
    assert min(seen, key=seen.get) == 16
    assert seen[16] == 16 + n // 16 - 1  # its own position is in both


# Projections


@EACH_SHAPE
@pytest.mark.parametrize("r", [1, 3])
def test_projected_attention_is_torchs_attention_on_mixed_keys(shape, r):
    q, k, v = make(shape)
    e, f = normal(r, shape[3], seed=3), normal(r, shape[3], seed=4)

    def wanted(q, k, v, e, f):
        return F.scaled_dot_product_attention(
            q, torch.einsum("rm,bgmd->bgrd", e, k), torch.einsum("rm,bgmd->bgrd", f, v), scale=0.9, enable_gqa=True
        )

    ours = with_gradients(lambda *x: projected_attention(*x, scale=0.9), q, k, v, e, f)
    if shape[3] == 0:
        assert ours[0].shape == q.shape
    else:
        assert_close(ours, with_gradients(wanted, q, k, v, e, f))


def test_identity_as_projection_is_softmax_attention():
    q, k, v = make((2, 4, 2, 6, 3))
    eye = torch.eye(6, dtype=torch.float64)
    assert_close(projected_attention(q, k, v, eye, eye), softmax_attention(q, k, v))
    assert_close(projected_attention(q[:, :, :2], k, v, eye, eye), softmax_attention(q[:, :, :2], k, v))


def test_projected_attention_passes_gradcheck():
    q, k, v = make((1, 2, 1, 4, 2))
    tensors = [x.requires_grad_() for x in (q, k, v, normal(2, 4, seed=3), normal(2, 4, seed=4))]
    assert torch.autograd.gradcheck(projected_attention, tensors)


@HALVES
def test_projected_attention_in_low_precision(dtype):
    q, k, v = make((1, 2, 2, 64, 8), dtype)
    e, f = (normal(8, 64, seed=seed, dtype=dtype) / 8 for seed in (3, 4))
    out = projected_attention(q, k, v, e, f)
    exact = projected_attention(*(x.double() for x in (q, k, v, e, f)))
    eager = F.scaled_dot_product_attention(q, e @ k, f @ v)
    assert out.dtype == dtype
    assert (out.double() - exact).abs().max() <= 2 * (eager.double() - exact).abs().max()


def weights(e, f, q, k):
    """The N × N weights: the outputs for the identity as values."""
    n = k.shape[2]
    return projected_attention(
        F.pad(q, (0, n - q.shape[3])),
        F.pad(k, (0, n - k.shape[3])),
        torch.eye(n)[None, None].double(),
        e,
        f,
        scale=q.shape[3] ** -0.5,
    )


def test_weights_have_rank_r():
    q, k, _ = make((1, 1, 1, 20, 4))
    p = weights(normal(5, 20, seed=3), normal(5, 20, seed=4), q, k)
    assert torch.linalg.matrix_rank(p[0, 0]) == 5


def test_future_leaks_through_the_projection():
    """The misuse: to generate token by token, or to hope that a mask on the r keys makes it causal."""
    q, k, v = make((1, 1, 1, 10, 4))
    e, f = normal(3, 10, seed=3), normal(3, 10, seed=4)
    before = projected_attention(q, k, v, e, f)
    k[:, :, -1] += 1
    v[:, :, -1] += 1
    assert ((projected_attention(q, k, v, e, f) - before).abs().amax(-1) > 1e-3).all()


def test_dimension_of_theorem_1_exceeds_the_length_for_small_errors():
    """k = 5 ln n / (ε² - ε³) of arXiv 2006.04768."""
    wanted = {0.5: 333, 0.1: 4621}
    for error, dimension in wanted.items():
        assert round(5 * math.log(4096) / (error**2 - error**3)) == dimension


# Caches


def test_cache_holds_the_keys_and_values():
    for heads in (8, 2, 1):
        k, v = torch.zeros(2, 1, heads, 30, 16)
        assert cache_elements(n=30, key_heads=heads, head_size=16) == k.numel() + v.numel()
        last = k[:, :, -7:].numel() + v[:, :, -7:].numel()
        assert cache_elements(30, key_heads=heads, head_size=16, window=7) == last
    assert cache_elements(3, key_heads=2, head_size=16, window=7) == cache_elements(3, key_heads=2, head_size=16)
    assert cache_elements(0, key_heads=1, head_size=1) == latent_cache_elements(0, latent=1, rotary=1) == 0


def test_deepseek_v2_caches_4_5_heads_or_2_25_groups():
    """Table 1 of arXiv 2405.04434, and 4 · 128 + 128 / 2 numbers for each token and layer."""
    ours = latent_cache_elements(1000, latent=4 * 128, rotary=128 // 2)
    assert ours == 4.5 * 128 * 1000
    assert ours == 2.25 * cache_elements(1000, key_heads=1, head_size=128)


def test_deepseek_v2_caches_93_3_percent_less_than_67b():
    """60 layers and 6 bits against 95 layers, 8 key heads of dimension 128 and 16 bits."""
    ours = 6 * 60 * latent_cache_elements(1, latent=512, rotary=64)
    theirs = 16 * 95 * cache_elements(1, key_heads=8, head_size=128)
    assert round(100 * (1 - ours / theirs), 1) == 93.3


# Wrong input

ZEROS = torch.zeros(1, 2, 4, 3)
WRONG = {
    "types": (lambda: window_attention(ZEROS, ZEROS.double(), ZEROS, window=2), "one floating-point type"),
    "key heads": (lambda: window_attention(ZEROS[:, :1], ZEROS, ZEROS, window=2), "must divide those of q"),
    "a cache": (lambda: window_attention(ZEROS[:, :, -1:], ZEROS, ZEROS, window=2), "but there are 1 and 4; a single"),
    "a cache with a stride": (
        lambda: strided_attention(ZEROS[:, :, -1:], ZEROS, ZEROS, stride=2),
        "but there are 1 and 4; a single query needs only every `stride`-th key",
    ),
    "types with a stride": (
        lambda: strided_attention(ZEROS, ZEROS.double(), ZEROS, stride=2),
        "one floating-point type",
    ),
    "stride 0": (lambda: strided_attention(ZEROS, ZEROS, ZEROS, stride=0), "stride must be .* but is 0"),
    "window 0": (lambda: window_attention(ZEROS, ZEROS, ZEROS, window=0), "window must be .* at least 1, but is 0"),
    "window 2.0": (lambda: window_attention(ZEROS, ZEROS, ZEROS, window=2.0), r"window must be .* but is 2\.0"),
    "mask's window": (lambda: window_mask(4, window=-1), "window must be .* but is -1"),
    "stride": (lambda: strided_mask(4, stride=0), "stride must be .* but is 0"),
    "length": (lambda: window_mask(-1, window=2), "n must be an integer of at least 0, but is -1"),
    "no masks": (lambda: reach(), "reach needs boolean masks"),
    "not square": (lambda: reach(torch.ones(2, 3, dtype=torch.bool)), "reach needs boolean masks"),
    "two sizes": (lambda: reach(causal_mask(2, 2), causal_mask(3, 3)), r"reach needs boolean masks .*\(3, 3\)"),
    "float mask": (lambda: reach(torch.ones(2, 2)), r"reach needs boolean masks .*float32"),
    "projection's length": (
        lambda: projected_attention(ZEROS, ZEROS, ZEROS, torch.ones(2, 5), torch.ones(2, 5)),
        r"\(R, M\) with M = 4 keys, .* \(2, 5\)",
    ),
    "transposed": (
        lambda: projected_attention(ZEROS, ZEROS, ZEROS, torch.ones(4, 2), torch.ones(4, 2)),
        r"with M = 4 keys, .* are \(4, 2\)",
    ),
    "vectors": (
        lambda: projected_attention(ZEROS, ZEROS, ZEROS, torch.ones(4), torch.ones(4)),
        r"\(R, M\) with M = 4 keys, .* are \(4,\) and \(4,\)",
    ),
    "two ranks": (
        lambda: projected_attention(ZEROS, ZEROS, ZEROS, torch.ones(2, 4), torch.ones(3, 4)),
        r"\(2, 4\) and \(3, 4\)",
    ),
    "projection's type": (
        lambda: projected_attention(ZEROS, ZEROS, ZEROS, torch.ones(2, 4).double(), torch.ones(2, 4)),
        r"of type torch\.float64 and torch\.float32",
    ),
    "tokens": (lambda: cache_elements(-1, key_heads=1, head_size=1), "n must be .* but is -1"),
    "heads": (lambda: cache_elements(1, key_heads=0, head_size=1), "key_heads must be .* but is 0"),
    "head size": (lambda: cache_elements(1, key_heads=1, head_size=0), "head_size must be .* but is 0"),
    "cache's window": (lambda: cache_elements(1, key_heads=1, head_size=1, window=0), "window must be .* but is 0"),
    "latent": (lambda: latent_cache_elements(1, latent=0, rotary=1), "latent must be .* but is 0"),
    "rotary": (lambda: latent_cache_elements(1, latent=1, rotary=None), "rotary must be .* but is None"),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize(("call", "said"), WRONG.values(), ids=WRONG)
def test_refuses_wrong_input(call, said):
    with pytest.raises(ValueError, match=said):
        call()
