"""Taylor attention against loops over the formula, torch's attention, and linear attention with the features (1, q̂)."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tensors import make_qkv, normal
from torch.testing import assert_close

from zhixing.attention.linear_attention import chunked_linear_attention
from zhixing.attention.softmax_attention import softmax_attention
from zhixing.attention.taylor_attention import TaylorAttention2d, direction, taylor_attention

# B, H, N, M, D, E
SHAPES = {
    "one element": (1, 1, 1, 1, 1, 1),
    "square": (2, 3, 7, 7, 5, 5),
    "many keys, so keys first": (1, 2, 9, 40, 2, 3),
    "many features, so queries first": (1, 2, 3, 4, 30, 20),
    "more queries": (2, 1, 9, 5, 3, 3),
    "one feature": (1, 2, 6, 5, 1, 4),
    "empty batch": (0, 2, 4, 4, 2, 3),
    "no heads": (1, 0, 4, 4, 2, 3),
    "no queries": (1, 2, 0, 4, 3, 2),
    "no keys": (1, 2, 4, 0, 3, 2),
    "no values": (1, 2, 4, 4, 3, 0),
}
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def with_gradients(function, *tensors):
    """The output, and the gradients of a fixed random combination of its elements."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = function(*leaves)
    weights = normal(*out.shape, seed=10, dtype=out.dtype)
    gradients = torch.autograd.grad(out, leaves, weights, allow_unused=True, materialize_grads=True)
    return out.detach(), *gradients


def by_loops(q, k, v):
    """The formula, one query and one key after the other. A vector of zeros has the cosine 0."""
    rows = []
    for b, h, i in itertools.product(*map(range, q.shape[:3])):
        total, weights = torch.zeros_like(v[b, h, :0].sum(0)), 0.0
        for j in range(k.shape[2]):
            x, y = q[b, h, i], k[b, h, j]
            lengths = x.norm() * y.norm()
            weight = 1 + (x @ y / lengths if lengths > 0 else 0.0)
            total, weights = total + weight * v[b, h, j], weights + weight
        rows.append(total / weights if weights > 1e-9 else 0 * total)
    shape = *q.shape[:3], v.shape[3]
    out = torch.stack(rows).view(shape) if rows else v.new_zeros(shape)
    return out + 0 * (q.sum() + k.sum() + v.sum())  # so that there are gradients where sizes are 0


@EACH_SHAPE
def test_is_the_mean_weighted_by_1_plus_the_cosine(shape):
    qkv = make_qkv(shape)
    assert_close(with_gradients(taylor_attention, *qkv), with_gradients(by_loops, *qkv))


@pytest.mark.parametrize("shape", [(2, 3, 7, 7, 5, 5), (1, 1, 4, 90, 3, 3)], ids=str)
def test_is_torchs_attention_with_the_logarithms_of_the_weights(shape):
    def by_torch(q, k, v):
        cosines = F.cosine_similarity(q.unsqueeze(3), k.unsqueeze(2), dim=-1)
        return F.scaled_dot_product_attention(torch.zeros_like(q), torch.zeros_like(k), v, cosines.log1p())

    qkv = make_qkv(shape)
    assert_close(with_gradients(taylor_attention, *qkv), with_gradients(by_torch, *qkv))


def features(x):
    unit = x / x.norm(dim=-1, keepdim=True)
    return torch.cat([torch.ones_like(unit[..., :1]), unit], -1)


def test_is_linear_attention_with_the_features_1_and_direction():
    """The state after all keys, of D + 1 rows, is all that a query needs."""
    q, k, v = make_qkv((2, 3, 6, 50, 4, 5))
    _, (s, z) = chunked_linear_attention(features(k), features(k), v, normalize=True)
    assert s.shape == (2, 3, 5, 5)
    expected = (features(q) @ s) / (features(q) @ z.unsqueeze(-1))
    assert_close(taylor_attention(q, k, v), expected)


def test_causal_form_is_chunked_linear_attention_with_these_features():
    q, k, v = make_qkv((1, 2, 9, 9, 3, 4))
    out, _ = chunked_linear_attention(features(q), features(k), v, normalize=True, scale=1.0, chunk=4)
    for i in range(9):
        alone = taylor_attention(q[:, :, i : i + 1], k[:, :, : i + 1], v[:, :, : i + 1])
        assert_close(out[:, :, i : i + 1], alone, rtol=1e-7, atol=1e-7)


def test_rank_of_the_weights_is_at_most_head_size_plus_1():
    q, k, _ = make_qkv((1, 1, 40, 40, 3, 1))
    weights = taylor_attention(q, k, torch.eye(40, dtype=torch.float64)[None, None])
    assert torch.linalg.matrix_rank(weights).item() == 4


def test_only_directions_count():
    q, k, v = make_qkv((1, 2, 5, 6, 3, 2))
    lengths = normal(1, 2, 6, 1, seed=5).exp()
    assert_close(taylor_attention(1e6 * q, lengths * k, v), taylor_attention(q, k, v))


@pytest.mark.parametrize("d", [8, 128])
def test_is_near_the_softmax_of_the_cosines_and_nearer_the_mean(d):
    """Total variation: 1 / √(2πd) to the mean of all keys, about 1 / (4d) to softmax(cos)."""
    q, k = (F.normalize(normal(1, 1, n, d, seed=n), dim=-1) for n in (32, 2000))
    values = torch.eye(2000, dtype=torch.float64)[None, None]
    ours, softmax = taylor_attention(q, k, values), softmax_of(q, k, 1.0)
    to_mean, to_softmax = ((ours - other).abs().sum(-1).mean() / 2 for other in (1 / 2000, softmax))
    assert abs(to_mean * math.sqrt(2 * math.pi * d) - 1) < 0.06
    assert abs(to_softmax * 4 * d - 1) < 0.2


def softmax_of(q, k, scale):
    """The weights, from our reference with the values 1 of one key at a time, D keys to a call."""
    m, d = k.shape[2], k.shape[3]
    identity = F.pad(torch.eye(m, dtype=torch.float64), (0, -m % d))[None, None]
    parts = [softmax_attention(q, k, part, scale=scale) for part in identity.split(d, dim=-1)]
    return torch.cat(parts, -1)[..., :m]


# The theorem: over all queries, the largest weights of the keys add up to 2.


def largest_weights(k):
    """For each unit key, the query that gives it most, and how much."""
    n, total = k.shape[0], k.sum(0)
    largest = 2 * (n - k @ total) / (n**2 - total @ total)
    return k - largest[:, None] * total, largest


@pytest.mark.parametrize(("n", "d"), [(2, 1), (5, 1), (7, 2), (64, 8), (5, 64)], ids=str)
def test_largest_weights_of_all_keys_add_up_to_2(n, d):
    k = F.normalize(normal(n, d, seed=4), dim=-1)
    k[-1] = -k[0]  # so that not all keys are equal, also with one feature
    q, largest = largest_weights(k)
    weights = taylor_attention(q[None, None], k[None, None], torch.eye(n, dtype=torch.float64)[None, None])[0, 0]
    assert_close(weights.diagonal(), largest)
    assert_close(largest.sum().item(), 2.0)
    # No other query gives any key more.
    others = taylor_attention(normal(1, 1, 3000, d, seed=6), k[None, None], torch.eye(n).double()[None, None])
    assert (others[0, 0].amax(0) <= largest + 1e-12).all()


def test_keys_of_k_groups_at_the_corners_of_a_simplex_get_2_in_k():
    """The centred unit vectors of k groups: weights 2 within, 1 - 1 / (k - 1) between."""
    for groups in (2, 3, 10):
        corners = torch.eye(groups, dtype=torch.float64) - 1 / groups
        corners = corners[None, None].repeat_interleave(5, dim=2)
        members = torch.eye(groups, dtype=torch.float64)[None, None].repeat_interleave(5, dim=2)
        own = (taylor_attention(corners, corners, members) * members).sum(-1)
        assert_close(own, torch.full_like(own, 2 / groups))


# Zeros, opposite keys, large and small


def test_vector_of_zeros_weighs_all_alike_and_has_gradient_0():
    q, k, v = make_qkv((1, 1, 3, 4, 3, 2))
    q[0, 0, 1], k[0, 0, 2] = 0, 0
    out, dq, dk, _ = with_gradients(taylor_attention, q, k, v)
    assert_close(out, by_loops(q, k, v))
    assert_close(out[0, 0, 1], v[0, 0].mean(0))
    assert (dq[0, 0, 1] == 0).all()
    assert (dk[0, 0, 2] == 0).all()
    for x in (dq, dk):
        assert x.isfinite().all()
    naive = (k / k.norm(dim=-1, keepdim=True)).sum(2)
    assert naive.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_query_whose_keys_are_all_opposite_gives_0(dtype):
    """In many heads, since rounding leaves a sum of either sign."""
    q = normal(1, 64, 5, 7, dtype=dtype)
    k = (-q[:, :, :1]).expand(1, 64, 500, 7)
    out, *gradients = with_gradients(taylor_attention, q, k, normal(1, 64, 500, 3, seed=1, dtype=dtype))
    assert (out[:, :, 0] == 0).all()
    assert (out[:, :, 1:] != 0).all()
    assert (gradients[0][:, :, 0] == 0).all()
    assert all(x.isfinite().all() for x in gradients)


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e30])
def test_lengths_neither_overflow_nor_underflow(size):
    q, k, v = make_qkv((1, 1, 5, 6, 4, 3), torch.float32)
    assert_close(taylor_attention(size * q, k / size, v), taylor_attention(q, k, v), rtol=1e-4, atol=1e-5)


def test_direction_and_its_gradient_are_those_of_normalize():
    x = normal(6, 3)
    assert_close(with_gradients(direction, x), with_gradients(lambda x: F.normalize(x, dim=-1), x))
    assert torch.autograd.gradcheck(direction, x.requires_grad_())
    assert torch.autograd.gradgradcheck(direction, x)
    half = torch.tensor([[0.0, 0.0], [3e-7, 4e-7], [6e4, -6e4]], dtype=torch.float16)
    assert direction(half).isfinite().all()
    assert F.normalize(half, dim=-1)[0].isnan().all()  # its epsilon of 1e-12 is 0 in float16


@pytest.mark.parametrize("shape", [(1, 1, 3, 20, 2, 2), (1, 2, 2, 3, 4, 3)], ids=["keys first", "queries first"])
def test_passes_gradcheck(shape):
    qkv = [x.requires_grad_() for x in make_qkv(shape)]
    assert torch.autograd.gradcheck(taylor_attention, qkv)
    if shape[1] == 2:
        assert torch.autograd.gradgradcheck(taylor_attention, qkv)


@HALVES
@pytest.mark.parametrize("shape", [(1, 2, 9, 300, 4, 5), (1, 1, 5, 7, 30, 40)], ids=["keys first", "queries first"])
def test_low_precision_error_is_at_most_twice_that_of_rounding_once(dtype, shape):
    q, k, v = make_qkv(shape, dtype)
    out = taylor_attention(q, k, v)
    exact = taylor_attention(q.double(), k.double(), v.double())
    assert out.dtype == dtype
    assert (out.double() - exact).abs().max() <= 2 * (exact.to(dtype).double() - exact).abs().max()


def test_65536_keys_in_float16_are_not_too_many():
    """65536 is infinite in float16, and 1 / 65536 of a sum that overflows is lost."""
    k = torch.ones(1, 1, 65536, 1, dtype=torch.float16)
    assert (torch.ones((), dtype=torch.float16) + 256 * 256).isinf()
    assert taylor_attention(k[:, :, :1], k, 2 * k).item() == 2


def test_takes_non_contiguous_input_and_leaves_arguments_alone():
    qkv = make_qkv((2, 3, 6, 6, 4, 4))
    strided = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in qkv]
    copies = [x.clone() for x in strided]
    assert not any(x.is_contiguous() for x in strided)
    assert_close(taylor_attention(*strided), taylor_attention(*qkv))
    assert all(torch.equal(x, copy) for x, copy in zip(strided, copies, strict=True))


def test_multiplies_in_the_cheaper_order():
    from torch.utils.flop_counter import FlopCounterMode

    for n, m, d, e in (512, 512, 8, 64), (16, 16, 4096, 4096), (1, 100, 8, 8):
        q, k, v = make_qkv((1, 1, n, m, d, e), torch.float32)
        with FlopCounterMode(display=False) as counter:
            taylor_attention(q, k, v)
        products = min((n + m) * d * e, n * m * (d + e))
        assert counter.get_total_flops() == 2 * (products + n * d)


# Of an image


def block_of(channels, reduction=8, dtype=torch.float64, gamma=0.7):
    """A block whose parameters are random, and γ given."""
    block = TaylorAttention2d(channels, reduction=reduction).to(dtype)
    for i, parameter in enumerate(block.parameters()):
        parameter.data = normal(*parameter.shape, seed=20 + i, dtype=dtype)
    block.gamma.data.fill_(gamma)
    return block


def by_pixels(block, x):
    """The block pixel by pixel: projections as products of matrices, weights in loops."""
    b, c, h, w = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(b, 1, h * w, c)
    q, k, v = (
        pixels @ layer.weight[:, :, 0, 0].mT + layer.bias
        for layer in (block.query_conv, block.key_conv, block.value_conv)
    )
    mixed = by_loops(q, k, v).reshape(b, h, w, c).permute(0, 3, 1, 2)
    return x + block.gamma * mixed


SIZES = {"wide": (3, 5), "high": (5, 2), "square": (4, 4), "a row": (1, 6), "a column": (6, 1), "a pixel": (1, 1)}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_block_attends_over_the_pixels_of_maps_of_any_size(size):
    block, x = block_of(8, reduction=3), normal(2, 8, *size)
    parameters = list(block.parameters())
    outputs = [function(x.requires_grad_()) for function in (block, lambda x: by_pixels(block, x))]
    weights = normal(*outputs[0].shape, seed=9)
    gradients = [torch.autograd.grad(out, [x, *parameters], weights) for out in outputs]
    assert_close(outputs[0], outputs[1])
    assert_close(*gradients)


def test_block_on_empty_batch_and_channels_last():
    block, x = block_of(16), normal(2, 16, 5, 7)
    assert block(x[:0]).shape == (0, 16, 5, 7)
    assert_close(block(x.to(memory_format=torch.channels_last)), block(x))
    assert_close(block(x.transpose(2, 3)).transpose(2, 3), block(x))  # it does not know where a pixel is


def test_fresh_block_is_the_identity_and_trains_only_gamma():
    """Then any error in the attention is invisible, so test with another γ."""
    block, x = TaylorAttention2d(16), normal(1, 16, 4, 6, dtype=torch.float32)
    out = block(x)
    assert torch.equal(out, x)
    out.square().sum().backward()
    for name, parameter in block.named_parameters():
        assert (parameter.grad != 0).any() == (name == "gamma"), name


def test_parameters_are_those_of_the_authors_block():
    """For 64 channels, 8 features: two layers of 64 · 8 + 8, one of 64 · 64 + 64, and γ."""
    state = TaylorAttention2d(64).state_dict()
    assert {name: (*x.shape,) for name, x in state.items()} == {
        "gamma": (1,),
        "query_conv.weight": (8, 64, 1, 1),
        "query_conv.bias": (8,),
        "key_conv.weight": (8, 64, 1, 1),
        "key_conv.bias": (8,),
        "value_conv.weight": (64, 64, 1, 1),
        "value_conv.bias": (64,),
    }
    assert sum(x.numel() for x in state.values()) == 2 * 520 + 4160 + 1


def test_equal_values_come_back():
    """Weights have sum 1. Code that mixes up queries and keys, or divides by another number, fails here."""
    q, k, _ = make_qkv((1, 2, 9, 9, 3, 1))
    assert_close(taylor_attention(q, k, torch.full_like(q, 5.0)), torch.full_like(q, 5.0))
    x = normal(1, 1, 1, 35).expand(1, 1, 6, 35)  # six equal channels of 35 pixels
    assert_close(taylor_attention(x, x, x), x)


def test_two_sums_take_the_place_of_16_gib():
    """256 × 256 pixels: N² weights in float32, against D + 1 rows of E + 1 numbers."""
    assert (256 * 256) ** 2 * 4 == 16 * 2**30
    block, x = TaylorAttention2d(64), torch.zeros(1, 64, 256, 256)
    assert block(x).shape == x.shape


@HALVES
def test_block_in_low_precision_and_under_autocast(dtype):
    block, x = block_of(16, dtype=torch.float32), normal(1, 16, 6, 5, dtype=torch.float32)
    exact = block(x)
    low = block_of(16, dtype=torch.float32).to(dtype)
    assert low(x.to(dtype)).dtype == dtype
    assert_close(low(x.to(dtype)).float(), exact, rtol=0.1, atol=0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(block(x).float(), exact, rtol=0.1, atol=0.2)
        q, k, v = make_qkv((1, 1, 4, 50, 3, 3), torch.float32)
        assert_close(taylor_attention(q, k, v), by_loops(q.double(), k.double(), v.double()).float())


# Wrong input


def right(**changes):
    tensors = {"q": torch.zeros(2, 3, 5, 4), "k": torch.zeros(2, 3, 7, 4), "v": torch.zeros(2, 3, 7, 6)}
    return {**tensors, **changes}


WRONG = {
    "types": (right(k=torch.zeros(2, 3, 7, 4).double()), r"one floating-point type, but are torch\.float32, tor"),
    "integers": ({name: x.long() for name, x in right().items()}, r"one floating-point type, but are torch\.int64"),
    "devices": (right(v=torch.zeros(2, 3, 7, 6, device="meta")), "on one device, but are on cpu, cpu, meta"),
    "an image": (right(q=torch.zeros(3, 5, 4)), r"must be \(B, H, N, D\).* \(3, 5, 4\)"),
    "batch": (right(q=torch.zeros(1, 3, 5, 4)), r"must be \(B, H, N, D\).* \(1, 3, 5, 4\)"),
    "heads": (right(v=torch.zeros(2, 1, 7, 6)), r"must be \(B, H, N, D\).* \(2, 1, 7, 6\)"),
    "head size": (right(q=torch.zeros(2, 3, 5, 7)), r"must be \(B, H, N, D\).* \(2, 3, 5, 7\)"),
    "lengths of k and v": (right(v=torch.zeros(2, 3, 4, 6)), r"must be \(B, H, N, D\).* \(2, 3, 4, 6\)"),
    "head size 0": (right(q=torch.zeros(2, 3, 5, 0), k=torch.zeros(2, 3, 7, 0)), "head size must be positive"),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize(("qkv", "said"), WRONG.values(), ids=WRONG)
def test_refuses_wrong_tensors(qkv, said):
    with pytest.raises(ValueError, match=said):
        taylor_attention(**qkv)


@pytest.mark.wrong_input
def test_block_and_direction_refuse_wrong_input():
    for channels, reduction in (4, 8), (4, 0), (0, 1):
        with pytest.raises(ValueError, match=f"is {reduction} with {channels} channels"):
            TaylorAttention2d(channels, reduction=reduction)
    for shape in (8, 4, 4), (1, 4, 8, 8):
        with pytest.raises(ValueError, match=r"x must be \(B, 8, H, W\)"):
            TaylorAttention2d(8)(torch.zeros(shape))
    for x in (torch.ones(2, 3).long(), torch.zeros(2, 0), torch.zeros(())):
        with pytest.raises(ValueError, match="vectors of at least one floating-point number"):
            direction(x)
