"""The Performer against weights written out, against softmax attention, and against exact moments."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from tensors import normal
from torch.testing import assert_close

from zhixing.attention.linear_attention import recurrent_linear_attention
from zhixing.attention.performer import (
    orthogonal_gaussian,
    performer_attention,
    positive_features,
    relative_variance,
)
from zhixing.attention.softmax_attention import softmax_attention

# B, H, N, M, D, E
SHAPES = {
    "one element": (1, 1, 1, 1, 1, 1),
    "square": (2, 3, 7, 7, 5, 5),
    "wider values": (1, 2, 6, 6, 3, 7),
    "more keys": (1, 2, 3, 11, 4, 2),
    "more queries": (2, 1, 9, 5, 3, 3),
    "empty batch": (0, 2, 4, 4, 2, 3),
    "no heads": (1, 0, 4, 4, 2, 3),
    "no queries": (1, 2, 0, 4, 3, 2),
    "no values": (1, 2, 4, 4, 3, 0),
}
CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])


def drawn(m, d, seed=0):
    return orthogonal_gaussian(m, d, generator=torch.Generator().manual_seed(seed)).double()


def make(shape, dtype=torch.float64):
    b, h, n, m, d, e = shape
    q, k, v = normal(b, h, n, d), normal(b, h, m, d, seed=1), normal(b, h, m, e, seed=2)
    return [x.to(dtype) for x in (q, k, v, normal(2 * d + 1, d, seed=3))]


def with_gradients(function, *tensors):
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = function(*leaves)
    gradients = torch.autograd.grad(out, leaves, normal(*out.shape, seed=9, dtype=out.dtype), materialize_grads=True)
    return out.detach(), gradients


def written_out(q, k, v, projection, *, causal=False):
    """Torch's attention with the logarithm of Σ_ω e^(ω·x - x²/2) e^(ω·y - y²/2) as the logits."""
    x, y = q / q.shape[3] ** 0.25, k / k.shape[3] ** 0.25
    terms = (
        torch.einsum("bhnd,rd->bhnr", x, projection).unsqueeze(3)
        - x.square().sum(-1)[:, :, :, None, None] / 2
        + torch.einsum("bhmd,rd->bhmr", y, projection).unsqueeze(2)
        - y.square().sum(-1)[:, :, None, :, None] / 2
    )
    logits = terms.logsumexp(-1)
    if causal:
        logits = logits.masked_fill(torch.ones_like(logits).triu(1).bool(), -math.inf)
    return F.scaled_dot_product_attention(torch.zeros_like(q), torch.zeros_like(k), v, logits)


# Attention


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_outputs_and_all_gradients_are_those_of_the_weights_written_out(shape):
    tensors = make(shape)
    assert_close(with_gradients(performer_attention, *tensors), with_gradients(written_out, *tensors))


@pytest.mark.parametrize("n", [1, 2, 63, 65, 100])
def test_causal_form_is_so_too(n):
    tensors = make((1, 2, n, n, 3, 4))
    ours = with_gradients(lambda *x: performer_attention(*x, causal=True), *tensors)
    assert_close(ours, with_gradients(lambda *x: written_out(*x, causal=True), *tensors))


@CAUSAL
def test_passes_gradcheck(causal):
    tensors = [x.requires_grad_() for x in make((1, 1, 4, 4, 2, 2))]
    assert torch.autograd.gradcheck(lambda *x: performer_attention(*x, causal=causal), tensors)


@CAUSAL
def test_converges_to_softmax_attention_with_more_features(causal):
    q, k, v, _ = make((1, 2, 40, 40, 8, 8))
    q, k = q / 2, k / 2
    wanted = softmax_attention(q, k, v, causal=causal)
    errors = [
        ((performer_attention(q, k, v, drawn(m, 8), causal=causal) - wanted).norm() / wanted.norm()).item()
        for m in (64, 6400)
    ]
    # 100 times the features, about a tenth of the error.
    assert errors[1] < errors[0] / 3
    assert errors[1] < 0.05


def test_weights_before_the_division_are_softmaxs_in_the_mean_over_draws():
    x, y = normal(6, 4) / 2, normal(7, 4, seed=1) / 2
    draws = 4000
    estimates = torch.stack(
        [positive_features(x, w) @ positive_features(y, w).mT for w in (drawn(4, 4, seed) for seed in range(draws))]
    )
    wanted = (x @ y.mT).exp()
    allowed = 5 * wanted * (relative_variance(x[:, None], y, 4) / draws).sqrt()
    assert ((estimates.mean(0) - wanted).abs() <= allowed).all()


def test_equals_linear_attention_on_the_features():
    q, k, v, projection = make((1, 2, 9, 9, 4, 3))
    features = [positive_features(x / 4**0.25, projection) for x in (q, k)]
    out, _ = recurrent_linear_attention(*features, v, scale=1.0, normalize=True)
    assert_close(performer_attention(q, k, v, projection, causal=True), out)


@CAUSAL
def test_values_that_are_all_1_come_back_as_1(causal):
    """Without the division, as in lucidrains/performer-pytorch#13 and #40, they would not."""
    q, k, v, projection = make((2, 2, 70, 70, 5, 3), torch.float32)
    out = performer_attention(3 * q, 3 * k, torch.ones_like(v), projection, causal=causal)
    assert_close(out, torch.ones_like(v))


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0, 6.0])
@CAUSAL
def test_large_inputs_lose_no_digits_in_float32(causal, scale):
    q, k, v, _ = make((1, 2, 40, 40, 64, 8))
    projection = drawn(128, 64)
    wanted = written_out(scale * q, scale * k, v, projection, causal=causal)
    ours = performer_attention(*(x.float() for x in (scale * q, scale * k, v, projection)), causal=causal)
    # Exponents near 100 · scale², of which float32 keeps about 7 digits.
    assert_close(ours.double(), wanted, rtol=1e-4 * scale**2, atol=1e-4 * scale**2)


@CAUSAL
def test_magnitudes_of_1000_stay_finite(causal):
    q, k, v, projection = make((1, 2, 20, 20, 8, 4), torch.float32)
    out, gradients = with_gradients(lambda *x: performer_attention(*x, causal=causal), q, 30 * k, 1000 * v, projection)
    assert all(x.isfinite().all() for x in (out, *gradients))
    assert out.abs().max() <= 1000 * v.abs().max() * 1.001


@pytest.mark.parametrize("scale", [1, 10, 20, 30])
@CAUSAL
def test_long_opposite_queries_and_keys_stay_finite(causal, scale):
    """Exponents of q are high where those of k are low, by more than float32 holds."""
    _, k, v, _ = make((1, 2, 30, 30, 8, 4), torch.float32)
    projection = drawn(32, 8).float()
    out, gradients = with_gradients(
        lambda *x: performer_attention(*x, causal=causal), -scale * k, scale * k, v, projection
    )
    assert all(x.isfinite().all() for x in (out, *gradients))
    assert out.abs().max() <= v.abs().max() * 1.001
    if causal:
        assert_close(out[:, :, 0], v[:, :, 0])


@pytest.mark.parametrize(("dtype", "t"), [(torch.float32, 39.5), (torch.float64, 319.0)], ids=str)
@CAUSAL
def test_feature_that_is_tiny_in_all_keys_counts_where_it_is_as_large_in_a_query(causal, dtype, t):
    """Up to factors that cancel, φ is (1, e^-2t) for one key, (e^-2, e^-2t) for the other, and (1, e^2t) for q."""
    q, k, projection = torch.zeros(1, 1, 2, 16), torch.zeros(1, 1, 2, 16), torch.zeros(2, 16)
    q[..., 0], k[..., 0] = -2 * t, 2 * t  # x = q / 16^¼ is half of it
    k[..., 1, 1] = 4
    projection[:, 0] = torch.tensor([1, -1])
    projection[1, 1] = 1
    tensors = (x.to(dtype) for x in (q, k, torch.tensor([0.0, 1.0]).view(1, 1, 2, 1), projection))
    wanted = (math.exp(-2) + 1) / (math.exp(-2) + 1 + 2)
    assert_close(performer_attention(*tensors, causal=causal)[0, 0, 1].item(), wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("factor", [3, 30])
def test_no_output_depends_on_a_later_key(factor):
    q, k, v, projection = make((1, 2, 70, 70, 8, 4), torch.float32)
    longer = k.clone()
    longer[:, :, -1] *= factor
    before, after = (performer_attention(q, x, v, projection, causal=True)[:, :, :-1] for x in (k, longer))
    assert_close(after, before)
    # Nor its gradient.
    k.requires_grad_()
    early = performer_attention(q, k, v, projection, causal=True)[:, :, :30].sum()
    assert (torch.autograd.grad(early, k)[0][:, :, 30:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@CAUSAL
def test_low_precision_error_is_at_most_twice_that_of_rounding_once(causal, dtype):
    q, k, v, projection = (x.to(dtype) for x in make((1, 2, 100, 100, 8, 4)))
    out = performer_attention(q, k, v, projection, causal=causal)
    exact = performer_attention(*(x.double() for x in (q, k, v, projection)), causal=causal)
    assert out.dtype == dtype
    assert (out.double() - exact).abs().max() <= 2 * (exact.to(dtype).double() - exact).abs().max()


@CAUSAL
def test_autocast_changes_nothing(causal):
    tensors = make((1, 2, 20, 20, 4, 3), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = performer_attention(*tensors, causal=causal)
    assert torch.equal(inside, performer_attention(*tensors, causal=causal))


def test_runs_where_there_is_no_autocast():
    tensors = [x.to("meta") for x in make((1, 2, 5, 5, 4, 3))]
    assert performer_attention(*tensors).shape == (1, 2, 5, 3)


@CAUSAL
def test_takes_non_contiguous_input_and_leaves_arguments_alone(causal):
    tensors = make((2, 3, 6, 6, 4, 5))
    strided = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in tensors]
    copies = [x.clone() for x in strided]
    assert not any(x.is_contiguous() for x in strided)
    assert_close(performer_attention(*strided, causal=causal), performer_attention(*tensors, causal=causal))
    assert all(torch.equal(x, copy) for x, copy in zip(strided, copies, strict=True))


@CAUSAL
def test_without_keys_gives_zeros(causal):
    q, k, v, projection = make((1, 2, 0 if causal else 3, 0, 4, 5))
    assert torch.equal(performer_attention(q, k, v, projection, causal=causal), q.new_zeros(1, 2, q.shape[2], 5))


def test_another_projection_for_the_keys_gives_other_weights():
    """φ(q) and φ(k) must be drawn together; apart they estimate 1 for every pair."""
    x = F.normalize(normal(1, 4), dim=-1)
    products = [
        [(positive_features(x, drawn(4, 4, s)) * positive_features(x, drawn(4, 4, s + gap))).sum() for s in range(1500)]
        for gap in (0, 10_000)
    ]
    together, apart = (torch.tensor(of).mean().item() for of in products)
    assert abs(apart - 1) < 0.15
    assert abs(together - math.e) < 0.5


def test_forgetting_the_scale_is_another_temperature():
    q, k, v, projection = make((1, 1, 20, 20, 4, 4))
    unscaled = [positive_features(x, projection) for x in (q, k)]
    wrong, _ = recurrent_linear_attention(*unscaled, v, scale=1.0, normalize=True)
    assert_close(wrong, performer_attention(q * 4**0.25, k * 4**0.25, v, projection, causal=True))
    right = performer_attention(q, k, v, projection, causal=True)
    assert ((wrong - right).norm() / right.norm()) > 0.1


# The features


def test_features_are_the_definition():
    x, projection = normal(3, 4), normal(5, 4, seed=1)
    for i in range(3):
        for j in range(5):
            dot = sum(a * b for a, b in zip(x[i].tolist(), projection[j].tolist(), strict=True))
            wanted = math.exp(dot - sum(a * a for a in x[i].tolist()) / 2) / math.sqrt(5)
            assert_close(positive_features(x, projection)[i, j].item(), wanted)
    assert torch.autograd.gradcheck(positive_features, (x.requires_grad_(), projection.requires_grad_()))
    assert positive_features(torch.zeros(0, 4), torch.zeros(5, 4)).shape == (0, 5)


def test_rows_of_both_signs_are_the_hyperbolic_features():
    """Lemma 1: h = e^(-x²/2) / √2, f = e^u and e^-u, with 1/√m for m rows."""
    x, y, rows = normal(3, 4), normal(2, 4, seed=1), normal(5, 4, seed=2)
    both = torch.cat([rows, -rows])
    length = x.square().sum(-1, keepdim=True) / 2
    wanted = torch.cat([(x @ rows.mT - length).exp(), (-x @ rows.mT - length).exp()], -1) / math.sqrt(2 * 5)
    assert_close(positive_features(x, both), wanted)
    # The product is Λ cosh(ω · (x + y)), in the mean over the rows.
    z = x[:, None] + y
    cosh = torch.cosh(z @ rows.mT).mean(-1)
    shrink = (-(x.square().sum(-1)[:, None] + y.square().sum(-1)) / 2).exp()
    assert_close(positive_features(x, both) @ positive_features(y, both).mT, shrink * cosh)


# The variance

POINTS, WEIGHTS = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(150))


def expected(function):
    """E function(g) for a standard normal g, by Gauss-Hermite quadrature."""
    return (WEIGHTS * function(POINTS)).sum() / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("length", [0.0, 0.3, 1.0, 2.0, 3.0])
def test_relative_variance_is_that_of_the_exact_moments(length):
    """φ(x) · φ(y) / e^(x · y) is the mean of m numbers e^(g r - r²/2), with r = |x + y|."""
    x = torch.tensor([length, 0.0, 0.0], dtype=torch.float64)
    y = torch.zeros(3, dtype=torch.float64)
    mean = expected(lambda g: (g * length - length**2 / 2).exp())
    square = expected(lambda g: (2 * g * length - length**2).exp())
    assert_close(mean.item(), 1.0)
    assert_close(relative_variance(x, y, 7), (square - mean**2) / 7)
    # Both signs: the same with as many features, times 1 - e^(-r²).
    both = expected(lambda g: (torch.cosh(g * length) * math.exp(-(length**2) / 2)) ** 2) - 1
    assert_close(both / 3.5, relative_variance(x, y, 7) * (1 - math.exp(-(length**2))))


def test_relative_variance_is_lemma_2():
    x, y, m = normal(4, 1, 5), normal(3, 5, seed=1), 9
    kernel = (x * y).sum(-1).exp()
    length = (x + y).square().sum(-1)
    lemma = length.exp() * kernel**2 * (1 - (-length).exp()) / m
    assert_close(relative_variance(x, y, m) * kernel**2, lemma)
    assert torch.autograd.gradcheck(lambda x, y: relative_variance(x, y, m), (x.requires_grad_(), y.requires_grad_()))


def test_sine_and_cosine_have_the_variance_of_lemma_2_which_depends_on_the_difference():
    """cos(ω · (x - y)) e^((x² + y²) / 2): relative variance (1 - e^(-r²))² e^(r²) / 2m, r = |x - y|."""
    for r in (0.3, 1.0, 2.0):
        relative = expected(lambda g, r=r: (torch.cos(g * r) * math.exp(r * r / 2)) ** 2) - 1
        assert_close(relative.item(), (1 - math.exp(-r * r)) ** 2 * math.exp(r * r) / 2)


def test_opposite_vectors_are_estimated_exactly_and_equal_ones_worst():
    x = normal(4)
    assert relative_variance(x, -x, 1) == 0
    estimate = (positive_features(x, normal(3, 4, seed=5)) * positive_features(-x, normal(3, 4, seed=5))).sum()
    assert_close(estimate, (-x @ x).exp())
    assert_close(relative_variance(x, x, 1), torch.expm1(4 * x @ x))


def test_squared_length_of_the_sum_averages_twice_the_root_of_the_head_size():
    for d in (16, 64, 128):
        q, k = normal(4000, d), normal(4000, d, seed=1)
        assert abs(((q + k) / d**0.25).square().sum(-1).mean().item() / (2 * math.sqrt(d)) - 1) < 0.02


def orthogonal_relative_variance(squared, m, d):
    """For m ≤ d orthogonal rows, exactly, as a double series.

    E e^((ω + ω') · z) = Σ_ab (z²/2)^(a + b) / (a! b!) · (d/2)_a (d/2)_b / (d/2)_(a + b), as the components of
    two orthogonal directions along z have the moments of two coordinates of one uniform unit vector.
    """
    log = math.lgamma
    half, total = d / 2, 0.0
    for a in range(80):
        for b in range(80):
            rising = log(half + a) + log(half + b) - log(half) - log(half + a + b)
            total += math.exp((a + b) * math.log(squared / 2) - log(a + 1) - log(b + 1) + rising)
    covariance = total / math.exp(squared) - 1
    return (math.expm1(squared) + (m - 1) * covariance) / m, covariance


@pytest.mark.parametrize("squared", [0.25, 1.0])
def test_orthogonal_rows_have_the_exact_variance(squared):
    x = torch.zeros(8, dtype=torch.float64)
    x[0] = math.sqrt(squared)
    generator = torch.Generator().manual_seed(0)
    rows = torch.stack([orthogonal_gaussian(8, 8, generator=generator) for _ in range(8000)]).double()
    # Along a fixed axis that is no axis of the decomposition.
    axis = F.normalize(normal(8), dim=0)
    estimates = (rows @ axis * math.sqrt(squared) - squared / 2).exp().mean(-1)
    wanted, _ = orthogonal_relative_variance(squared, 8, 8)
    assert abs(estimates.var().item() / wanted - 1) < 0.05
    assert wanted < 0.95 * relative_variance(x, torch.zeros_like(x), 8).item()


def test_theorem_2_holds_and_its_earlier_form_does_not():
    """Version 4 subtracts 2 (m-1) / (m (d+2)) · (SM - Λ)², earlier versions (1 - 1/m) 2 / (d+2) · SM²."""
    d = m = 16
    for squared in (1e-3, 0.5, 4.0, 16.0):
        independent = math.expm1(squared) / m
        orthogonal, covariance = orthogonal_relative_variance(squared, m, d)
        factor = 2 * (m - 1) / (m * (d + 2))
        # Λ / SM = e^(-|x + y|² / 2).
        assert orthogonal <= independent - factor * (1 - math.exp(-squared / 2)) ** 2
        # Two positive numbers of mean 1 have a covariance of at least -1: at most 1 is gained.
        assert -1 <= covariance <= 0
    tiny = 1e-3
    assert math.expm1(tiny) / m - 2 * (1 - 1 / m) / (d + 2) < 0


# The projection


def test_rows_are_orthogonal_in_blocks():
    rows = drawn(11, 4)
    assert rows.shape == (11, 4)
    for start in (0, 4, 8):
        gram = rows[start : start + 4] @ rows[start : start + 4].mT
        assert_close(gram, torch.diag(gram.diagonal()), atol=1e-5, rtol=0)
    assert (rows[0] @ rows[4:].mT).abs().min() > 1e-4
    assert rows.norm(dim=-1).std() > 0.1


def test_each_row_is_standard_normal():
    """So the estimate is unbiased. Without the signs of R, the first entry is never positive."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([orthogonal_gaussian(6, 4, generator=generator) for _ in range(3000)])
    for row in (0, 1, 3, 5):
        for column in (0, 1, 3):
            assert stats.kstest(draws[:, row, column].numpy(), "norm").pvalue > 1e-3
        lengths = draws[:, row].norm(dim=-1).numpy()
        assert stats.kstest(lengths, "chi", args=(4,)).pvalue > 1e-3
        assert_close(draws[:, row].T.cov(), torch.eye(4), atol=0.12, rtol=0)
    # Lengths are independent of each other and of the directions.
    lengths = draws.norm(dim=-1)
    assert (torch.corrcoef(lengths.T) - torch.eye(6)).abs().max() < 0.1


def test_the_generator_decides():
    assert torch.equal(drawn(5, 3, 1), drawn(5, 3, 1))
    assert not torch.equal(drawn(5, 3, 1), drawn(5, 3, 2))
    for shape in (2, 3), (1, 3), (3, 1), (1, 1):
        assert orthogonal_gaussian(*shape).shape == shape


# Wrong input


def right(**changes):
    tensors = {
        "q": torch.zeros(2, 3, 5, 4),
        "k": torch.zeros(2, 3, 5, 4),
        "v": torch.zeros(2, 3, 5, 6),
        "projection": torch.zeros(7, 4),
    }
    return {**tensors, **changes}


WRONG = {
    "types": (right(k=torch.zeros(2, 3, 5, 4).double()), "one floating-point type"),
    "integers": ({name: x.long() for name, x in right().items()}, r"one floating-point type, but are torch\.int64"),
    "devices": (right(v=torch.zeros(2, 3, 5, 6, device="meta")), "on one device, but are on cpu, cpu, meta"),
    "three dimensions": (right(q=torch.zeros(3, 5, 4)), r"must be \(B, H, N, D\).* q \(3, 5, 4\)"),
    "grouped heads": (right(q=torch.zeros(2, 6, 5, 4)), r"must be \(B, H, N, D\).* q \(2, 6, 5, 4\)"),
    "head dimension": (right(q=torch.zeros(2, 3, 5, 7)), r"must be \(B, H, N, D\).* q \(2, 3, 5, 7\)"),
    "lengths of k and v": (right(v=torch.zeros(2, 3, 4, 6)), r"must be \(B, H, N, D\).* v \(2, 3, 4, 6\)"),
    "head dimension 0": (right(q=torch.zeros(2, 3, 5, 0), k=torch.zeros(2, 3, 5, 0)), "head size must be positive"),
    "projection transposed": (right(projection=torch.zeros(4, 7)), r"\(R, 4\), .* but is torch\.float32 and \(4, 7\)"),
    "projection a head": (right(projection=torch.zeros(3, 7, 4)), r"but is torch\.float32 and \(3, 7, 4\)"),
    "no features": (right(projection=torch.zeros(0, 4)), "where R is not 0"),
    "integer projection": (right(projection=torch.zeros(7, 4).long()), "projection must be floating-point"),
    "projection elsewhere": (right(projection=torch.zeros(7, 4, device="meta")), "must be on the device of the input"),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_refuses_wrong_tensors(arguments, said):
    with pytest.raises(ValueError, match=said):
        performer_attention(**arguments)


@pytest.mark.wrong_input
def test_refuses_what_only_one_function_takes():
    with pytest.raises(ValueError, match="causal needs as many queries as keys, but there are 4 and 5"):
        performer_attention(**right(q=torch.zeros(2, 3, 4, 4)), causal=True)
    with pytest.raises(ValueError, match=r"of one type, but are torch\.float64 and torch\.float32"):
        positive_features(torch.zeros(4).double(), torch.zeros(7, 4))
    for x, said in (torch.zeros(4), r"\(R, 4\)"), (torch.tensor(0.0), r"\(R, D\)"):
        with pytest.raises(ValueError, match=f"projection must be .* {said}"):
            positive_features(x, torch.zeros(7, 3))
    for sizes in ((0, 4), (4, 0)):
        with pytest.raises(ValueError, match="m and d must be 1 or larger"):
            orthogonal_gaussian(*sizes)
    with pytest.raises(ValueError, match="m must be 1 or larger, but is 0"):
        relative_variance(torch.zeros(4), torch.zeros(4), 0)
    for sizes in ((4,), (3,)), ((3,), (4,)), ((), (4,)), ((4,), ()):
        with pytest.raises(ValueError, match=re.escape(f"with one D, but are {sizes[0]} and {sizes[1]}")):
            relative_variance(*map(torch.zeros, sizes), 5)
