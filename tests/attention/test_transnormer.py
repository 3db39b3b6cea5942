"""NormAttention and attention in blocks, against torch's norm and attention with all weights."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tensors import make_qkv, normal
from torch.testing import assert_close

from zhixing.attention.linear_attention import (
    chunked_linear_attention,
    elu_plus_one,
    linear_attention,
    recurrent_linear_attention,
)
from zhixing.attention.transnormer import block_attention, norm_attention, srms_norm

# B, H, N, M, D, E
SHAPES = {
    "one element": (1, 1, 1, 1, 1, 1),
    "square": (2, 3, 7, 7, 5, 5),
    "wider values": (1, 2, 6, 6, 3, 7),
    "more keys": (1, 2, 3, 11, 4, 2),
    "more queries": (2, 1, 9, 5, 3, 3),
    "no keys": (1, 2, 4, 0, 3, 2),
    "empty batch": (0, 2, 4, 4, 2, 3),
    "no heads": (1, 0, 4, 4, 2, 3),
    "no tokens": (1, 2, 0, 0, 3, 2),
    "no values": (1, 2, 4, 4, 3, 0),
}
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def with_gradients(function, *tensors):
    """The output, and the gradients of a fixed random combination of its elements."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = function(*leaves)
    weights = normal(*out.shape, seed=10, dtype=out.dtype)
    return out.detach(), torch.autograd.grad(out, leaves, weights, allow_unused=True, materialize_grads=True)


def error(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


# NormAttention


def by_torch(q, k, v, *, causal=False, eps=1e-6):
    """F.rms_norm over the merged heads of the N × M scores times the values."""
    scores = torch.einsum("bhnd,bhmd->bhnm", q, k)
    if causal:
        scores = scores * torch.ones_like(scores).tril()
    sums = torch.einsum("bhnm,bhme->bnhe", scores, v)
    return F.rms_norm(sums, sums.shape[2:], eps=eps).permute(0, 2, 1, 3)


@EACH_SHAPE
def test_outputs_and_gradients_are_those_of_torchs_norm_over_explicit_scores(shape):
    if 0 in (shape[1], shape[5]):
        pytest.skip("torch normalises over no empty dimension")
    qkv = make_qkv(shape)
    assert_close(with_gradients(norm_attention, *qkv), with_gradients(by_torch, *qkv))


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 100])
def test_causal_outputs_and_gradients_are_too(n):
    qkv = make_qkv((2, 2, n, n, 3, 4))
    ours = with_gradients(lambda *x: norm_attention(*x, causal=True), *qkv)
    assert_close(ours, with_gradients(lambda *x: by_torch(*x, causal=True), *qkv))


@pytest.mark.parametrize("eps", [0.0, 1e-12, 1.0])
def test_eps_is_added_to_the_mean_square(eps):
    qkv = make_qkv((1, 2, 5, 5, 3, 4))
    assert_close(norm_attention(*qkv, eps=eps), by_torch(*qkv, eps=eps))


def test_equals_loops():
    q, k, v = make_qkv((1, 2, 3, 3, 2, 2))
    out = norm_attention(q, k, v, causal=True)
    for i in range(3):
        sums = [
            sum(
                sum(q[0, h, i, c].item() * k[0, h, j, c].item() for c in range(2)) * v[0, h, j, e].item()
                for j in range(i + 1)
            )
            for h, e in itertools.product(range(2), range(2))
        ]
        root = math.sqrt(sum(t * t for t in sums) / 4 + 1e-6)
        assert_close(out[0, :, i].flatten().tolist(), [t / root for t in sums])


@CAUSAL
def test_passes_gradcheck(causal):
    qkv = [x.requires_grad_() for x in make_qkv((1, 2, 4, 4, 2, 2))]
    assert torch.autograd.gradcheck(lambda *x: norm_attention(*x, causal=causal), qkv)
    assert torch.autograd.gradgradcheck(lambda *x: norm_attention(*x, causal=causal), qkv)


@CAUSAL
def test_norm_per_head_makes_the_denominator_irrelevant(causal):
    """Scale-free: t / z and t have the same direction, so outputs and all gradients agree, without eps."""
    qkv = make_qkv((2, 3, 9, 9, 4, 5))

    def divided(q, k, v):
        return srms_norm(linear_attention(q, k, v, causal=causal), eps=0.0)

    def undivided(q, k, v):
        heads = (x.flatten(0, 1).unsqueeze(1) for x in (elu_plus_one(q), elu_plus_one(k), v))
        return norm_attention(*heads, causal=causal, eps=0.0).view(v.shape)

    assert_close(with_gradients(divided, *qkv), with_gradients(undivided, *qkv))


def test_denominator_z_under_a_norm_per_head_is_eps_times_z_squared():
    """And a negative one turns the sign."""
    t, z = normal(50, 8), normal(50, 1, seed=1)
    ours = srms_norm(t / z, eps=0.1)
    wanted = torch.stack([z.sign()[i] * srms_norm(t[i], eps=0.1 * z[i].item() ** 2) for i in range(50)])
    assert_close(ours, wanted)


def test_merged_heads_see_the_denominator():
    q, k, v = make_qkv((1, 4, 20, 20, 8, 8))
    q, k = elu_plus_one(q), elu_plus_one(k)
    per_head = norm_attention(*(x.flatten(0, 1).unsqueeze(1) for x in (q, k, v))).view(v.shape)
    assert error(norm_attention(q, k, v), per_head) > 0.05
    doubled = q * torch.tensor([2.0, 1.0, 1.0, 1.0], dtype=torch.float64)[:, None, None]
    assert error(norm_attention(doubled, k, v), norm_attention(q, k, v)) > 0.05


def test_scale_of_all_scores_does_not_matter_and_their_gradient_grows_as_its_inverse():
    q, k, v = make_qkv((1, 2, 6, 6, 3, 4))
    out, (d_q, d_k, d_v) = with_gradients(lambda *x: norm_attention(*x, eps=0.0), q, k, v)
    small, (s_q, s_k, s_v) = with_gradients(lambda *x: norm_attention(*x, eps=0.0), 1e-3 * q, k, v)
    assert_close(small, out)
    assert_close((s_q, s_k, s_v), (1e3 * d_q, d_k, d_v))


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4, 1e-8, 0.0])
def test_gradient_with_respect_to_a_score_is_at_most_the_value_over_the_root_of_eps(scale):
    """Tighter by 3d/2 than equation 15 of arXiv 2210.10340, 3 c₁ c₂ d / (2 √eps)."""
    v, eps = normal(1, 1, 10, 8), 1e-6
    scores = (scale * normal(1, 1, 10, 10, seed=1)).requires_grad_()
    # Features that are the scores themselves: q = s and k = 1.
    out = norm_attention(scores, torch.eye(10, dtype=torch.float64)[None, None], v, eps=eps)
    upstream = F.normalize(normal(*out.shape, seed=2), dim=-1)  # c₁ = 1
    (slope,) = torch.autograd.grad(out, scores, upstream)
    bound = v.norm(dim=-1).max() / math.sqrt(eps)
    assert slope.abs().max() <= bound
    if scale <= 1e-4:
        assert slope.abs().max() > 0.1 * bound  # it is reached within a factor of ten


def test_first_causal_output_of_one_head_depends_on_the_sign_of_its_score_alone():
    q, k, v = make_qkv((1, 1, 3, 3, 4, 5))
    out = norm_attention(q, k, v, causal=True, eps=0.0)[0, 0, 0]
    assert_close(out, (q[0, 0, 0] @ k[0, 0, 0]).sign() * srms_norm(v[0, 0, 0], eps=0.0))


@CAUSAL
def test_features_of_0_take_padding_out(causal):
    q, k, v = make_qkv((1, 2, 6, 6, 4, 3))
    k[:, :, 4:] = 0
    out = norm_attention(q, k, v, causal=causal)[:, :, :4]
    assert_close(out, norm_attention(*(x[:, :, :4] for x in (q, k, v)), causal=causal))


@pytest.mark.parametrize("of", [chunked_linear_attention, recurrent_linear_attention], ids=["chunks", "recurrence"])
@pytest.mark.parametrize("c", [1.0, 0.01], ids=["unit scores", "small scores"])
def test_linear_attention_of_scale_1_and_a_norm_over_merged_heads_equals_causal_norm_attention(of, c):
    q, k, v = make_qkv((2, 3, 70, 70, 16, 5))
    q, k = F.silu(c * q), F.silu(c * k)
    expected = norm_attention(q, k, v, causal=True)
    head, state = of(*(x[:, :, :40] for x in (q, k, v)), scale=1.0)
    tail, _ = of(*(x[:, :, 40:] for x in (q, k, v)), scale=1.0, state=state)
    merged = torch.cat([head, tail], dim=2).transpose(1, 2).flatten(2)
    assert_close(srms_norm(merged).unflatten(2, (3, 5)).transpose(1, 2), expected)
    # The default scale divides the sums by √D, so that eps counts D times as much.
    sums, _ = of(q, k, v)
    scaled = srms_norm(sums.transpose(1, 2).flatten(2), eps=1e-6).unflatten(2, (3, 5)).transpose(1, 2)
    assert_close(scaled, norm_attention(q, k, v, causal=True, eps=16e-6))
    if c < 1:
        assert error(scaled, expected) > 0.1


def test_later_tokens_change_no_earlier_output():
    q, k, v = make_qkv((1, 2, 70, 70, 3, 4))
    out = norm_attention(q, k, v, causal=True)
    k[:, :, 66:], v[:, :, 66:] = 9, 9
    assert_close(norm_attention(q, k, v, causal=True)[:, :, :66], out[:, :, :66])
    assert error((q @ (k.mT @ v))[:, :, :66], ((q @ k.mT).tril() @ v)[:, :, :66]) > 0.1


@CAUSAL
@HALVES
def test_low_precision_error_is_at_most_twice_that_of_rounding_once(causal, dtype):
    q, k, v = (x.to(dtype) for x in make_qkv((1, 2, 80, 80, 8, 8)))
    out = norm_attention(q, k, v, causal=causal)
    exact = norm_attention(q.double(), k.double(), v.double(), causal=causal)
    assert out.dtype == dtype
    assert (out.double() - exact).abs().max() <= 2 * (exact.to(dtype).double() - exact).abs().max()


def test_sums_beyond_float16_are_finite_after_the_norm():
    q, k, v = (100 * x for x in make_qkv((1, 2, 200, 200, 16, 16), torch.float16))
    assert not ((q @ k.mT) @ v).isfinite().all()
    out, gradients = with_gradients(lambda *x: norm_attention(*x, causal=True), q, k, v)
    assert_close(out.double(), by_torch(q.double(), k.double(), v.double(), causal=True), rtol=2e-3, atol=2e-3)
    assert all(g.isfinite().all() for g in gradients)


@CAUSAL
def test_autocast_changes_nothing(causal):
    qkv = make_qkv((1, 2, 20, 20, 4, 3), torch.float32)
    expected = norm_attention(*qkv, causal=causal)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(norm_attention(*qkv, causal=causal), expected)


@pytest.mark.parametrize("shape", [SHAPES["no heads"], SHAPES["no values"]], ids=["no heads", "no values"])
def test_norm_over_nothing_is_nothing(shape):
    q, k, v = make_qkv(shape)
    assert norm_attention(q, k, v).shape == v.shape
    assert norm_attention(q, k, v, causal=True).shape == v.shape


def test_takes_non_contiguous_input_and_leaves_arguments_alone():
    q, k, v = make_qkv((2, 3, 6, 6, 5, 5))
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    copies = [x.clone() for x in strided]
    assert not any(x.is_contiguous() for x in strided)
    assert_close(norm_attention(*strided), norm_attention(q, k, v))
    assert_close(block_attention(*strided, block=4), block_attention(q, k, v, block=4))
    assert_close(srms_norm(q.mT), srms_norm(q.mT.contiguous()))
    assert all(torch.equal(x, copy) for x, copy in zip(strided, copies, strict=True))


# How steep the weights are


def weights(f, s):
    return f(s) / f(s).sum(-1, keepdim=True)


def test_two_equal_scores_have_slope_one_over_4s_and_one_quarter_in_logarithms():
    """Equation of arXiv 2210.10340: ∂p/∂s = f'(s)/f(s) (p - p²), with f = exp and f = identity."""
    for s in 1.0, 0.1, 1e-4:
        scores = torch.full((2,), s, dtype=torch.float64)
        slopes = torch.autograd.functional.jacobian(lambda x: weights(torch.abs, x), scores)
        assert_close(slopes, torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double() / (4 * s))
        slopes = torch.autograd.functional.jacobian(lambda x: weights(torch.exp, x), scores.log())
        assert_close(slopes, torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double() / 4)


@pytest.mark.parametrize("shift", [-4, 0, 4, 30])
def test_with_elu_plus_one_no_weight_has_a_slope_above_one_quarter_in_any_query_or_key(shift):
    q, k = normal(6, 3) * 3 - shift, normal(6, 3, seed=1) * 3 - shift
    for of in 0, 1:
        slopes = torch.autograd.functional.jacobian(
            lambda q, k: weights(lambda s: s, elu_plus_one(q) @ elu_plus_one(k).mT), (q, k)
        )[of]
        assert slopes.abs().max() <= 0.25
    # The scores themselves can be as small as wanted, so their slopes as large.
    assert shift < 30 or (elu_plus_one(q) @ elu_plus_one(k).mT).max() < 1e-10


def test_the_quarter_is_reached():
    k = torch.full((2, 1), -3.0, dtype=torch.float64)
    slopes = torch.autograd.functional.jacobian(
        lambda k: weights(lambda s: s, elu_plus_one(k).mT).squeeze(0), k
    ).squeeze(-1)
    assert_close(slopes, torch.tensor([[0.25, -0.25], [-0.25, 0.25]]).double())


# The norm alone


@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3, 7), (0, 4), (4, 1)], ids=str)
@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_srms_norm_is_torchs_rms_norm_without_weights(shape, eps):
    x = normal(*shape)
    ours = with_gradients(lambda x: srms_norm(x, eps=eps), x)
    assert_close(ours, with_gradients(lambda x: F.rms_norm(x, x.shape[-1:], eps=eps), x))


def test_srms_norm_divides_by_the_length_over_root_d_and_not_by_length_and_root_d():
    """(x/|x|)/√d is d times smaller."""
    x = normal(3, 256)
    right, misread = srms_norm(x, eps=0.0), F.normalize(x, dim=-1) / 256**0.5
    assert_close(right.square().mean(-1), torch.ones(3).double())
    assert_close(right, 256 * misread)


def test_srms_norm_passes_gradcheck_also_at_0():
    assert torch.autograd.gradcheck(srms_norm, normal(3, 4).requires_grad_())
    x = torch.zeros(2, 3, requires_grad=True)
    assert_close(torch.autograd.grad(srms_norm(x).sum(), x)[0], torch.full((2, 3), 1000.0))


@HALVES
def test_srms_norm_in_halves(dtype):
    x = (3 * normal(4, 100)).to(dtype)
    assert srms_norm(x).dtype == dtype
    assert_close(srms_norm(x), srms_norm(x.double()).to(dtype))
    # The squares of large inputs exceed float16.
    assert_close(srms_norm(torch.full((4,), 6e4, dtype=torch.float16)), torch.ones(4).half())


# Blocks


def block_diagonal(n, block, causal):
    """True where two positions share a block, by the definition."""
    return torch.tensor(
        [[i // block == j // block and not (causal and j > i) for j in range(n)] for i in range(n)]
    ).reshape(n, n)


@CAUSAL
@pytest.mark.parametrize(("n", "block"), [(1, 1), (6, 1), (6, 3), (7, 3), (8, 4), (5, 9), (20, 7)], ids=str)
def test_blocks_are_torchs_attention_under_a_block_diagonal_mask(n, block, causal):
    qkv = make_qkv((2, 3, n, n, 4, 4))
    mask = block_diagonal(n, block, causal)
    ours = with_gradients(lambda *x: block_attention(*x, block=block, causal=causal), *qkv)
    theirs = with_gradients(lambda *x: F.scaled_dot_product_attention(*x, attn_mask=mask), *qkv)
    assert_close(ours, theirs)


def test_blocks_take_grouped_heads():
    q, (_, k, v) = normal(2, 4, 7, 3), make_qkv((2, 2, 7, 7, 3, 3))
    mask = block_diagonal(7, 3, False)
    ours = with_gradients(lambda *x: block_attention(*x, block=3), q, k, v)
    theirs = with_gradients(lambda *x: F.scaled_dot_product_attention(*x, attn_mask=mask, enable_gqa=True), q, k, v)
    assert_close(ours, theirs)


@CAUSAL
def test_blocks_pass_gradcheck(causal):
    qkv = [x.requires_grad_() for x in make_qkv((1, 1, 5, 5, 2, 2))]
    assert torch.autograd.gradcheck(lambda *x: block_attention(*x, block=2, causal=causal), qkv)


@pytest.mark.parametrize("shape", ["empty batch", "no tokens"])
def test_blocks_of_nothing(shape):
    b, h, n, _, d, _ = SHAPES[shape]
    q, k, v = make_qkv((b, h, n, n, d, d))
    assert block_attention(q, k, v, block=3).shape == q.shape


@HALVES
def test_blocks_in_halves(dtype):
    q, k, v = (x.to(dtype) for x in make_qkv((1, 2, 20, 20, 8, 8)))
    exact = block_attention(q.double(), k.double(), v.double(), block=6)
    eager = F.scaled_dot_product_attention(q, k, v, attn_mask=block_diagonal(20, 6, False))
    ours = block_attention(q, k, v, block=6)
    assert ours.dtype == dtype
    assert (ours - exact).abs().max() <= 2 * max((eager - exact).abs().max(), torch.finfo(dtype).eps)


@pytest.mark.parametrize("block", [1, 4, 9])
def test_a_query_of_a_causal_block_sees_half_a_block_and_a_half_key_on_average(block):
    seen = block_diagonal(5 * block, block, True).sum(-1).double()
    assert seen.mean() == (block + 1) / 2
    assert block_diagonal(5 * block, block, False).sum(-1).double().mean() == block


# Wrong input


def right(**changes):
    tensors = {"q": torch.zeros(2, 3, 5, 4), "k": torch.zeros(2, 3, 5, 4), "v": torch.zeros(2, 3, 5, 4)}
    return {**tensors, **changes}


WRONG = {
    "types": (right(k=torch.zeros(2, 3, 5, 4).double()), r"one floating-point type, but are torch\.float32, tor"),
    "integers": ({name: x.long() for name, x in right().items()}, r"one floating-point type, but are torch\.int64"),
    "devices": (right(v=torch.zeros(2, 3, 5, 4, device="meta")), "on one device, but are on cpu, cpu, meta"),
    "three dimensions": (right(q=torch.zeros(3, 5, 4)), r"must be .*\(B, H, N, D\).* q \(3, 5, 4\)"),
    "head size": (right(q=torch.zeros(2, 3, 5, 7)), r"q \(2, 3, 5, 7\)"),
    "head size 0": (right(**{x: torch.zeros(2, 3, 5, 0) for x in "qkv"}), "head size must be positive"),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize(("qkv", "said"), WRONG.values(), ids=WRONG)
def test_refuses_wrong_tensors(qkv, said):
    with pytest.raises(ValueError, match=said):
        norm_attention(**qkv)
    with pytest.raises(ValueError, match=said):
        block_attention(**qkv, block=2)


@pytest.mark.wrong_input
def test_refuses_wrong_settings():
    fewer = right(q=torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match="causal needs as many queries as keys, but there are 4 and 5"):
        norm_attention(**fewer, causal=True)
    for n in 4, 6:
        with pytest.raises(ValueError, match=f"as many queries as keys, but there are {n} and 5"):
            block_attention(**right(q=torch.zeros(2, 3, n, 4)), block=2)
    for block in 0, -1, 2.0, None:
        with pytest.raises(ValueError, match=f"block must be a whole number from 1 on, but is {block}"):
            block_attention(**right(), block=block)
    with pytest.raises(ValueError, match="the heads of k and v must divide those of q"):
        block_attention(**right(q=torch.zeros(2, 4, 5, 4)), block=2)
    with pytest.raises(ValueError, match="eps must not be negative, but is -1"):
        norm_attention(**right(), eps=-1.0)
    for eps in -1.0, math.nan:
        with pytest.raises(ValueError, match="eps must not be negative"):
            srms_norm(torch.ones(3), eps=eps)
    for x in torch.ones(3, dtype=torch.long), torch.tensor(1.0):
        with pytest.raises(ValueError, match="x must be of a floating-point type and shape"):
            srms_norm(x)
