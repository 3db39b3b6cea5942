"""FLASH against the definitions in loops, against lucidrains' FLASH-pytorch, and against linear attention."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from tensors import normal, with_gradients
from torch import nn
from torch.testing import assert_close

from zhixing.attention.gated_attention_unit import (
    GatedAttentionUnit,
    mixed_chunk_attention,
    squared_relu_attention,
)
from zhixing.attention.linear_attention import chunked_linear_attention

CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
CHUNK = pytest.mark.parametrize("chunk", [None, 8], ids=["all tokens", "chunks"])


# Squared ReLU over all tokens


def by_loops(q, k, v, bias, *, length, causal):
    """The sum over the visible keys of max(q · k / length + bias, 0)² v, one pair at a time."""
    rows = []
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                row = torch.zeros(v.shape[3], dtype=v.dtype)
                for j in range(k.shape[2]):
                    score = (q[b, h, i] * k[b, h, j]).sum() / length + bias[b, h, i, j]
                    if score > 0 and not (causal and j > i):
                        row = row + score * score * v[b, h, j]
                rows.append(row)
    return torch.stack(rows).view(*q.shape[:3], v.shape[3])


# B, H, N, M, D, E
SHAPES = {
    "one element": (1, 1, 1, 1, 1, 1),
    "square": (2, 2, 5, 5, 3, 3),
    "wider values": (1, 2, 4, 4, 2, 5),
    "fewer keys": (1, 1, 5, 3, 4, 2),
}


@CAUSAL
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_squared_relu_attention_and_all_gradients_equal_loops(shape, causal):
    b, h, n, m, d, e = shape
    if causal:
        m = n
    inputs = normal(b, h, n, d), normal(b, h, m, d, seed=1), normal(b, h, m, e, seed=2), normal(b, h, n, m, seed=3)
    ours = with_gradients(
        lambda q, k, v, bias: squared_relu_attention(q, k, v, length=2.5, bias=bias, causal=causal), *inputs
    )
    assert_close(ours, with_gradients(lambda *x: by_loops(*x, length=2.5, causal=causal), *inputs))


@CAUSAL
def test_both_functions_pass_gradcheck(causal):
    q, k, q_linear, k_linear, v = (normal(1, 1, 5, 2, seed=seed).requires_grad_() for seed in range(5))
    bias = normal(2, 2, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: squared_relu_attention(*x, length=1, causal=causal), (q, k, v))
    assert torch.autograd.gradcheck(
        lambda *x: mixed_chunk_attention(*x[:5], chunk=2, bias=x[5], causal=causal),
        (q, k, q_linear, k_linear, v, bias),
    )


def test_a_length_of_root_n_d_is_sus_divisor():
    q, k, v = (normal(2, 1, 10, 4, seed=seed) for seed in range(3))
    expected = (q @ k.mT).clamp(min=0) ** 2 / (10 * 4) @ v
    assert_close(squared_relu_attention(q, k, v, length=math.sqrt(10 * 4)), expected)


def test_weights_that_are_the_identity_leave_a_gated_linear_unit():
    v, gate = normal(1, 1, 6, 3), normal(1, 1, 6, 3, seed=1)
    zero = torch.zeros_like(v)
    attended = squared_relu_attention(zero, zero, v, length=6, bias=torch.eye(6).double())
    assert_close(gate * attended, gate * v)


def test_a_bias_of_minus_infinity_hides_a_key_and_its_gradients():
    q, k, v = (normal(1, 2, 4, 3, seed=seed) for seed in range(3))
    bias = torch.tensor([0, -math.inf, 0, -math.inf], dtype=torch.float64)
    ours = with_gradients(lambda *x: squared_relu_attention(*x, length=2, bias=bias), q, k, v)
    seen = with_gradients(lambda *x: squared_relu_attention(x[0], x[1][:, :, ::2], x[2][:, :, ::2], length=2), q, k, v)
    assert_close(ours, seen)


@CAUSAL
def test_values_of_zero_hide_keys_since_there_is_no_denominator(causal):
    q, k, v = (normal(1, 1, 6, 3, seed=seed) for seed in range(3))
    v[:, :, 4:] = 0
    without = squared_relu_attention(q[:, :, :4], k[:, :, :4], v[:, :, :4], length=6, causal=causal)
    assert_close(squared_relu_attention(q, k, v, length=6, causal=causal)[:, :, :4], without)


def test_scaling_scores_scales_outputs_by_the_square_so_half_the_length_gives_four_times():
    q, k, v = (normal(1, 1, 6, 3, seed=seed) for seed in range(3))
    assert_close(
        squared_relu_attention(q, k, v, length=3), 4 * squared_relu_attention(q, k, v, length=6), rtol=1e-12, atol=0
    )


def test_inputs_without_gradient_and_unmutated():
    q, k, v = (normal(1, 1, 6, 3, seed=seed) for seed in range(3))
    before = [x.clone() for x in (q, k, v)]
    out = squared_relu_attention(q, k, v, length=6)
    mixed_chunk_attention(q, k, q, k, v, chunk=4, key_mask=torch.tensor([[True, False] * 3]))
    assert not out.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(before, (q, k, v), strict=True))


# Mixed chunks


def mixed_by_loops(q, k, q_linear, k_linear, v, bias, *, chunk, causal):
    """One pair of tokens at a time: quadratic in the same chunk, linear with chunks before or all tokens."""
    b, h, n, e = v.shape
    rows = []
    for x in range(b * h):
        for i in range(n):
            row = torch.zeros(e, dtype=v.dtype)
            for j in range(n):
                at = (x // h, x % h)
                if i // chunk == j // chunk and not (causal and j > i):
                    score = (q[at][i] * k[at][j]).sum() / chunk + bias[i % chunk, j % chunk]
                    row = row + score.clamp(min=0) ** 2 * v[at][j]
                if j // chunk < i // chunk or not causal:
                    row = row + (q_linear[at][i] * k_linear[at][j]).sum() / (chunk if causal else n) * v[at][j]
            rows.append(row)
    return torch.stack(rows).view(b, h, n, e)


@CAUSAL
@pytest.mark.parametrize(("n", "chunk"), [(1, 1), (6, 3), (7, 3), (5, 8), (6, 1)], ids=str)
def test_mixed_chunks_and_all_gradients_equal_loops(n, chunk, causal):
    inputs = [normal(2, 2, n, d, seed=d) for d in (3, 3, 2, 2, 4)]
    inputs[1:4:2] = normal(2, 2, n, 3, seed=8), normal(2, 2, n, 2, seed=9)
    bias = normal(chunk, chunk, seed=5)
    ours = with_gradients(
        lambda *x: mixed_chunk_attention(*x[:5], chunk=chunk, bias=x[5], causal=causal), *inputs, bias
    )
    assert_close(ours, with_gradients(lambda *x: mixed_by_loops(*x, chunk=chunk, causal=causal), *inputs, bias))


def test_linear_part_is_linear_attention_of_the_chunks_before():
    q, k, v = normal(1, 2, 12, 3), normal(1, 2, 12, 3, seed=1), normal(1, 2, 12, 5, seed=2)
    none = torch.zeros_like(q)
    ours = mixed_chunk_attention(none, none, q, k, v, chunk=4, causal=True)
    for start in range(0, 12, 4):
        _, state = chunked_linear_attention(*(x[:, :, :start] for x in (q, k, v)))
        assert_close(ours[:, :, start : start + 4], q[:, :, start : start + 4] @ state.double() / 4)


def test_chunks_of_one_are_causal_linear_attention_without_the_token_itself():
    q, k, v = normal(1, 2, 9, 3), normal(1, 2, 9, 3, seed=1), normal(1, 2, 9, 5, seed=2)
    none = torch.zeros_like(q)
    everything, _ = chunked_linear_attention(q, k, v, scale=1.0)
    own = (q * k).sum(-1, keepdim=True) * v
    assert_close(mixed_chunk_attention(none, none, q, k, v, chunk=1, causal=True), everything - own)


def test_one_causal_chunk_is_squared_relu_attention():
    q, k, q_linear, k_linear, v = (normal(2, 1, 7, 3, seed=seed) for seed in range(5))
    mixed = mixed_chunk_attention(q, k, q_linear, k_linear, v, chunk=7, causal=True)
    assert_close(mixed, squared_relu_attention(q, k, v, length=7, causal=True))


@CAUSAL
@pytest.mark.parametrize("tokens", [1, 7], ids=str)
def test_padding_that_the_mask_names_changes_nothing(tokens, causal):
    inputs = [normal(2, 2, 10, 3, seed=seed) for seed in range(5)]
    key_mask = torch.arange(10) < torch.tensor([[10], [tokens]])
    masked = with_gradients(
        lambda *x: mixed_chunk_attention(*x, chunk=4, causal=causal, key_mask=key_mask)[1:, :, :tokens], *inputs
    )
    without = with_gradients(
        lambda *x: mixed_chunk_attention(*(y[1:, :, :tokens] for y in x), chunk=4, causal=causal), *inputs
    )
    assert_close(masked, without)


def test_a_sample_of_padding_alone_gives_zeros():
    inputs = [normal(2, 1, 6, 3, seed=seed) for seed in range(5)]
    key_mask = torch.tensor([[True] * 6, [False] * 6])
    for causal in False, True:
        out = mixed_chunk_attention(*inputs, chunk=4, causal=causal, key_mask=key_mask)
        assert bool((out[1] == 0).all())
        assert bool((out[0] != 0).any())


def test_tokens_see_the_last_by_default():
    x = normal(1, 1, 10, 6)
    changed = x.clone()
    changed[:, :, -1] += 1
    for sees in (
        lambda y: squared_relu_attention(y, y, y, length=10),
        lambda y: mixed_chunk_attention(y, y, y, y, y, chunk=4),
        lambda y: unit(length=10)(y[:, 0]),
        lambda y: unit(chunk=4)(y[:, 0]),
    ):
        assert (sees(changed) - sees(x))[..., :-1, :].abs().max() > 1e-3


@CAUSAL
@pytest.mark.parametrize("shape", [(0, 2, 4), (2, 0, 4), (1, 2, 0)], ids=["no batch", "no heads", "no tokens"])
def test_empty_inputs_give_empty_outputs(shape, causal):
    q, v = normal(*shape, 3), normal(*shape, 5)
    assert mixed_chunk_attention(q, q, q, q, v, chunk=3, causal=causal).shape == v.shape
    assert squared_relu_attention(q, q, v, length=3, causal=causal).shape == v.shape


def test_no_keys_give_zeros():
    v = torch.zeros(1, 1, 0, 2)
    assert torch.equal(squared_relu_attention(torch.ones(1, 1, 3, 4), torch.ones(1, 1, 0, 4), v, length=3),
                       torch.zeros(1, 1, 3, 2))  # fmt: skip


@CAUSAL
def test_strided_views_give_the_same(causal):
    views = [normal(2, 11, 6, 2, seed=seed).transpose(1, 3)[:, :, ::2] for seed in range(5)]
    assert not any(x.is_contiguous() for x in views)
    dense = [x.contiguous() for x in views]
    assert_close(
        mixed_chunk_attention(*views, chunk=2, causal=causal), mixed_chunk_attention(*dense, chunk=2, causal=causal)
    )
    assert_close(
        squared_relu_attention(*views[:3], length=2, causal=causal),
        squared_relu_attention(*dense[:3], length=2, causal=causal),
    )


@HALVES
@CAUSAL
def test_low_precision_only_rounds_the_result(dtype, causal):
    inputs = [normal(1, 2, 70, 16, seed=seed, dtype=dtype) for seed in range(5)]
    ours = mixed_chunk_attention(*inputs, chunk=16, causal=causal)
    exact = mixed_chunk_attention(*(x.double() for x in inputs), chunk=16, causal=causal)
    assert ours.dtype == dtype
    assert ((ours.double() - exact).abs() <= torch.finfo(dtype).eps * exact.abs() + 1e-5).all()
    small = squared_relu_attention(*(x / 40 for x in inputs[:3]), length=70, causal=causal)
    assert small.dtype == dtype


def test_tiny_scores_survive_in_float16_where_the_formula_gives_zero():
    q = torch.full((1, 1, 4, 16), 0.02, dtype=torch.float16)
    v = torch.full((1, 1, 4, 1), 1000.0, dtype=torch.float16)
    naive = torch.relu(q @ q.mT / 64).square() @ v
    assert bool((naive == 0).all())
    assert bool((squared_relu_attention(q, q, v, length=64) > 0).all())


def test_results_below_float16_round_to_zero_in_its_type_and_not_in_bfloat16():
    q, v = torch.full((1, 1, 4, 16), 0.002), torch.ones(1, 1, 4, 1)
    half, brain = (
        squared_relu_attention(q.to(t), q.to(t), v.to(t), length=512) for t in (torch.float16, torch.bfloat16)
    )
    assert bool((half == 0).all())
    assert bool((brain > 0).all())


def test_large_scores_do_not_overflow_before_the_last_cast():
    q = torch.full((1, 1, 2, 16), 100.0, dtype=torch.float16)
    v = torch.full((1, 1, 2, 1), 0.1, dtype=torch.float16)
    out = squared_relu_attention(q, q, v, length=512)  # scores of 160,000, above what float16 can hold
    assert_close(out.float(), torch.full((1, 1, 2, 1), 2 * 312.5**2 * 0.1), rtol=1e-3, atol=0)


# Against lucidrains' FLASH-pytorch


@pytest.fixture(scope="module")
def theirs():
    import flash_pytorch.flash_pytorch as reference

    return reference


def leaves_of(module):
    return dict(module.named_parameters())


def copied(ours, reference, *, scale, order, causal, offset):
    """Copy their parameters, the bias of each distance from their buckets; return which bucket each uses."""
    far = torch.arange(-128, 129)  # query minus key, as in distance_bias
    buckets = reference.rel_pos_bias._relative_position_bucket(-far, causal=causal)
    with torch.no_grad():
        ours.distance_bias.copy_(scale * reference.rel_pos_bias.relative_attention_bias.weight[buckets, 0])
        ours.gamma.copy_(offset.gamma[order])
        ours.beta.copy_(offset.beta[order])
        ours.to_hidden.load_state_dict(reference.to_hidden.state_dict())
        ours.to_qk.load_state_dict(reference.to_qk.state_dict())
        out = reference.to_out if isinstance(reference.to_out, nn.Linear) else reference.to_out[0]
        ours.to_out.load_state_dict(out.state_dict())
    return buckets


def shaken(module):
    """Parameters large enough that every path matters."""
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=index) / 2)
    return module


def compared(ours, reference, offset, order, buckets, scale, x):
    """Compare outputs and all gradients, those of the bias gathered into their buckets."""
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    a, b = ours(x1), reference(x2) - x2
    assert_close(a, b)
    weights = normal(*a.shape, seed=77)
    (a * weights).sum().backward()
    (b * weights).sum().backward()
    assert_close(x1.grad, x2.grad)
    assert_close(ours.gamma.grad, offset.gamma.grad[order])
    assert_close(ours.beta.grad, offset.beta.grad[order])
    for name in "to_hidden", "to_qk":
        for p, q in zip(getattr(ours, name).parameters(), getattr(reference, name).parameters(), strict=True):
            assert_close(p.grad, q.grad)
    for p, q in zip(ours.to_out.parameters(), reference.to_out.parameters(), strict=True):
        assert_close(p.grad, q.grad)
    gathered = torch.zeros(32, dtype=torch.float64).index_add(0, buckets, scale * ours.distance_bias.grad)
    assert_close(gathered, reference.rel_pos_bias.relative_attention_bias.weight.grad[:, 0])


@CAUSAL
@pytest.mark.parametrize("n", [24, 21, 5], ids=str)
def test_unit_in_chunks_equals_flash_with_its_weights(theirs, n, causal):
    reference = theirs.FLASH(dim=6, group_size=8, query_key_dim=4, causal=causal, norm_klass=lambda _: nn.Identity())
    reference = shaken(reference.double())
    ours = GatedAttentionUnit(6, head_size=4, chunk=8, causal=causal).double()
    order, offset = [0, 2, 1, 3], reference.qk_offset_scale  # theirs: q, q_linear, k, k_linear
    scale = 4**0.5
    buckets = copied(ours, reference, scale=scale, order=order, causal=causal, offset=offset)
    compared(ours, reference, offset, order, buckets, scale, normal(2, n, 6))


@CAUSAL
def test_unit_over_all_tokens_equals_gau_which_divides_the_bias_too(theirs, causal):
    reference = shaken(theirs.GAU(dim=6, query_key_dim=4, causal=causal, norm_klass=lambda _: nn.Identity()).double())
    ours = GatedAttentionUnit(6, head_size=4, length=140, causal=causal).double()
    scale = 6**0.5 / 140  # its own scale, and the length, which it divides by after adding the bias
    buckets = copied(ours, reference, scale=scale, order=[0, 1], causal=causal, offset=reference.offsetscale)
    compared(ours, reference, reference.offsetscale, [0, 1], buckets, scale, normal(2, 140, 6))


def test_gau_of_half_the_input_is_four_times_as_large_and_flash_does_not_change(theirs):
    """Recorded of version 0.1.9: cutting the future off must not change a causal output."""
    norm = {"norm_klass": lambda _: nn.Identity()}
    gau = shaken(theirs.GAU(dim=6, query_key_dim=4, causal=True, add_residual=False, **norm).double())
    flash = shaken(theirs.FLASH(dim=6, query_key_dim=4, causal=True, group_size=8, **norm).double())
    gau.to_out[0].bias.data.zero_()
    x = normal(1, 32, 6)
    assert_close(gau(x[:, :16]), 4 * gau(x)[:, :16], rtol=1e-12, atol=0)
    assert_close(flash(x[:, :16]), flash(x)[:, :16])


def test_gau_has_a_bias_whatever_its_switch_says(theirs):
    """Recorded of version 0.1.9."""
    gau = theirs.GAU(dim=6, query_key_dim=4, rel_pos_bias=False)
    assert isinstance(gau.rel_pos_bias, theirs.T5RelativePositionBias)


@CAUSAL
def test_padding_at_the_end_changes_flash_only_without_the_causal_mask(theirs, causal):
    """Recorded of version 0.1.9."""
    norm = {"norm_klass": lambda _: nn.Identity()}
    flash = shaken(theirs.FLASH(dim=6, query_key_dim=4, group_size=8, causal=causal, **norm).double())
    x, mask = normal(1, 32, 6), torch.arange(32)[None] < 16
    gap = (flash(x, mask=mask)[:, :16] - flash(x[:, :16])).abs().max()
    assert gap < 1e-12 if causal else gap > 0.01


def test_padding_weakens_their_linear_part_and_not_ours(theirs):
    norm = {"norm_klass": lambda _: nn.Identity()}
    reference = shaken(theirs.FLASH(dim=6, query_key_dim=4, group_size=8, **norm).double())
    ours = GatedAttentionUnit(6, head_size=4, chunk=8).double()
    copied(ours, reference, scale=2.0, order=[0, 2, 1, 3], causal=False, offset=reference.qk_offset_scale)
    x, mask = normal(1, 32, 6), torch.arange(32)[None] < 16
    assert (reference(x, mask=mask)[:, :16] - reference(x[:, :16])).abs().max() > 0.01
    assert_close(ours(x, key_mask=mask)[:, :16], ours(x[:, :16]))


def test_laplace_function_touches_squared_relu_at_the_root_of_one_half(theirs):
    x = torch.tensor(math.sqrt(0.5), dtype=torch.float64, requires_grad=True)
    y = theirs.LaplacianAttnFn()(x)
    (slope,) = torch.autograd.grad(y, x)
    assert_close(y.detach(), x.detach() ** 2)
    assert_close(slope, 2 * x.detach())


# The unit


def unit(**settings):
    return shaken(GatedAttentionUnit(6, head_size=4, **settings).double())


@CHUNK
@CAUSAL
def test_unit_equals_its_formula_written_out(chunk, causal):
    module, x = unit(chunk=chunk, length=20, causal=causal), normal(2, 19, 6)
    projected = F.silu(x @ module.to_hidden[0].weight.T + module.to_hidden[0].bias)
    v, u = projected[..., :12], projected[..., 12:]
    z = F.silu(x @ module.to_qk[0].weight.T + module.to_qk[0].bias)
    rows = [(z * g + b)[:, None] for g, b in zip(module.gamma, module.beta, strict=True)]
    size = 19 if chunk is None else chunk
    bias = torch.stack([torch.stack([module.distance_bias[128 + i - j] for j in range(size)]) for i in range(size)])
    if chunk is None:
        attended = by_loops(rows[0], rows[1], v[:, None], bias.expand(2, 1, 19, 19), length=20, causal=causal)
    else:
        attended = mixed_by_loops(*rows, v[:, None], bias, chunk=8, causal=causal)
    expected = (u * attended[:, 0]) @ module.to_out.weight.T + module.to_out.bias
    assert_close(module(x), expected)


@CHUNK
def test_cutting_the_future_off_changes_no_causal_output(chunk):
    module, x = unit(chunk=chunk, length=20, causal=True), normal(2, 21, 6)
    out = module(x)
    for n in 1, 7, 8, 13, 16, 20:
        assert_close(module(x[:, :n]), out[:, :n])


def test_the_causal_linear_part_of_ones_is_the_number_of_chunks_before():
    ones = torch.ones(1, 1, 20, 1)
    linear = mixed_chunk_attention(0 * ones, ones, ones, ones, ones, chunk=4, causal=True)
    assert linear.flatten().tolist() == [i // 4 for i in range(20)]


def test_an_inclusive_sum_of_chunks_would_see_the_future():
    q, k, q_linear, k_linear, v = (normal(1, 1, 8, 3, seed=seed) for seed in range(5))
    changed = v.clone()
    changed[:, :, 3] += 1
    before, after = (mixed_chunk_attention(q, k, q_linear, k_linear, x, chunk=4, causal=True) for x in (v, changed))
    assert_close(before[:, :, :3], after[:, :, :3])
    sums = (k_linear.unflatten(2, (2, 4)).mT @ v.unflatten(2, (2, 4))).cumsum(2)
    sums_changed = (k_linear.unflatten(2, (2, 4)).mT @ changed.unflatten(2, (2, 4))).cumsum(2)
    assert (q_linear[:, :, :3] @ (sums_changed - sums)[:, :, 0]).abs().max() > 0.01


@CHUNK
@CAUSAL
def test_unit_does_not_see_padding(chunk, causal):
    module, x = unit(chunk=chunk, length=20, causal=causal), normal(2, 19, 6)
    key_mask = torch.arange(19) < torch.tensor([[19], [11]])
    out = module(x, key_mask=key_mask)
    assert_close(out[:1], module(x[:1]))
    assert_close(out[1:, :11], module(x[1:, :11]))


def test_distances_beyond_128_share_a_bias():
    module = unit()
    bias = module.bias(200)
    assert bias.shape == (200, 200)
    assert bool((bias[150:, 0] == bias[150, 0]).all())
    assert bias[127, 0] != bias[128, 0]
    assert bias[5, 3] == bias[105, 103] != bias[3, 5]


@pytest.mark.parametrize("d", [512, 768], ids=str)
def test_two_units_have_the_weights_of_attention_and_feed_forward(d):
    with torch.device("meta"):
        linear = [part for part in GatedAttentionUnit(d).modules() if isinstance(part, nn.Linear)]
    weights = sum(part.weight.numel() for part in linear)
    e, s = 2 * d, 128
    assert weights == 3 * d * e + d * s
    assert 1 < 2 * weights / (12 * d * d) < 1.05


@CHUNK
def test_every_parameter_gets_a_gradient(chunk):
    module = unit(chunk=chunk, length=20)
    module(normal(1, 19, 6)).sum().backward()
    assert all(bool((p.grad != 0).any()) for p in module.parameters())


def test_linear_rows_learn_nothing_from_texts_of_a_single_causal_chunk():
    module = unit(chunk=8, causal=True)
    module(normal(2, 8, 6)).sum().backward()
    assert bool((module.gamma.grad[2:] == 0).all() and (module.beta.grad[2:] == 0).all())
    assert bool((module.gamma.grad[:2] != 0).any())


@CHUNK
@HALVES
def test_unit_in_low_precision_and_under_autocast(chunk, dtype):
    torch.manual_seed(0)
    module, x = GatedAttentionUnit(16, head_size=8, chunk=chunk, length=20), normal(2, 19, 16, dtype=torch.float32)
    exact = module(x)
    with torch.autocast("cpu", dtype=dtype):
        mixed = module(x)
    half = module.to(dtype)(x.to(dtype))
    assert mixed.dtype == half.dtype == dtype
    for out in mixed, half:
        assert (out.float() - exact).norm() < 0.03 * exact.norm()


def test_gamma_and_bias_start_with_a_standard_deviation_of_0_02():
    module = GatedAttentionUnit(6, head_size=1000, chunk=8)
    for parameter in module.gamma, module.distance_bias:
        assert 0.015 < parameter.std() < 0.025
    assert not module.beta.any()


@CHUNK
def test_smallest_unit_equals_its_formula_in_numbers(chunk):
    chunk = chunk and 1
    module = shaken(GatedAttentionUnit(1, expansion=1, head_size=1, chunk=chunk, length=1).double())
    x = torch.tensor(0.7).double()
    v, u = F.silu(x * module.to_hidden[0].weight[:, 0] + module.to_hidden[0].bias)
    z = F.silu(x * module.to_qk[0].weight[0, 0] + module.to_qk[0].bias)
    q, k, *linear = (z * module.gamma[:, 0] + module.beta[:, 0]).unbind()
    weight = (q * k + module.distance_bias[128]).clamp(min=0) ** 2 + (math.prod(linear) if linear else 0)
    expected = u * weight * v * module.to_out.weight[0, 0] + module.to_out.bias
    assert_close(module(x.view(1, 1, 1)), expected.view(1, 1, 1))


def test_unit_of_no_tokens_and_no_batch():
    for chunk in None, 8:
        module = unit(chunk=chunk)
        assert module(torch.zeros(2, 0, 6).double()).shape == (2, 0, 6)
        assert module(torch.zeros(0, 5, 6).double()).shape == (0, 5, 6)


# Wrong input


def right(**changes):
    return {"q": torch.zeros(2, 3, 5, 4), "k": torch.zeros(2, 3, 5, 4), "v": torch.zeros(2, 3, 5, 6)} | changes


WRONG = {
    "types": (right(q=torch.zeros(2, 3, 5, 4).double()), "must be of one floating-point type"),
    "integers": ({name: x.long() for name, x in right().items()}, "must be of one floating-point type"),
    "list": (right(k=[[1.0]]), "must be tensors, but are Tensor, list, Tensor"),
    "three dimensions": (right(q=torch.zeros(2, 5, 4)), r"must be \(B, H, N, D\)"),
    "head sizes": (right(k=torch.zeros(2, 3, 5, 3)), r"must be \(B, H, N, D\)"),
    "devices": (right(v=torch.zeros(2, 3, 5, 6, device="meta")), "must be on one device"),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize(("qkv", "said"), WRONG.values(), ids=WRONG)
def test_refuses_wrong_tensors(qkv, said):
    with pytest.raises(ValueError, match=said):
        squared_relu_attention(**qkv, length=5)
    with pytest.raises(ValueError, match=said):
        mixed_chunk_attention(qkv["q"], qkv["k"], qkv["q"], qkv["k"], qkv["v"])


@pytest.mark.wrong_input
def test_refuses_wrong_settings():
    for length in 0, -1, math.inf, math.nan, None, "5":
        with pytest.raises(ValueError, match="length must be a positive finite number, but is"):
            squared_relu_attention(**right(), length=length)
    for n, other in ("4 and 5", right(q=torch.zeros(2, 3, 4, 4))), ("6 and 5", right(q=torch.zeros(2, 3, 6, 4))):
        with pytest.raises(ValueError, match=f"causal needs as many queries as keys, but there are {n}"):
            squared_relu_attention(**other, length=5, causal=True)
    for bias in torch.zeros(4), torch.zeros(2, 5, 5), torch.zeros(5, 5).long(), 0.5, torch.zeros(1, 2, 3, 5, 5):
        with pytest.raises(ValueError, match="bias must be floating-point and broadcast to the scores"):
            squared_relu_attention(**right(), length=5, bias=bias)
    with pytest.raises(ValueError, match="bias must be on cpu, but is on meta"):
        squared_relu_attention(**right(), length=5, bias=torch.zeros(5, 5, device="meta"))


@pytest.mark.wrong_input
def test_refuses_wrong_chunks_masks_and_linear_parts():
    q, k, v = right().values()
    for chunk in 0, -2, 2.0, None:
        with pytest.raises(ValueError, match=f"chunk must be a whole number from 1 on, but is {chunk}"):
            mixed_chunk_attention(q, k, q, k, v, chunk=chunk)
    with pytest.raises(ValueError, match=r"broadcast to the scores \(256, 256\)"):
        mixed_chunk_attention(q, k, q, k, v, bias=torch.zeros(5, 5))
    fewer = torch.zeros(2, 3, 4, 4)
    for queries in (fewer, k, q, k), (q, k, fewer, k):
        with pytest.raises(ValueError, match="there must be as many queries as keys"):
            mixed_chunk_attention(*queries, v)
    for mask in torch.ones(2, 5), torch.ones(2, 4).bool(), torch.ones(2, 1, 5).bool(), [True]:
        with pytest.raises(ValueError, match=r"key_mask must be boolean and of shape \(2, 5\)"):
            mixed_chunk_attention(q, k, q, k, v, key_mask=mask)


@pytest.mark.wrong_input
@pytest.mark.parametrize("name", ["width", "expansion", "head_size", "chunk", "length"])
def test_unit_refuses_sizes_that_are_no_sizes(name):
    for wrong in 0, -1, 1.5, "3":
        with pytest.raises(ValueError, match=f"{name} must be a positive whole number, but is {wrong}"):
            GatedAttentionUnit(**({"width": 6} | {name: wrong}))


@pytest.mark.wrong_input
@CHUNK
def test_unit_refuses_other_widths_and_masks(chunk):
    module = unit(chunk=chunk)
    for shape in (2, 4, 5), (4, 6), (2, 4, 6, 6):
        with pytest.raises(ValueError, match=re.escape(f"x must be (B, N, 6), but its shape is {shape}")):
            module(torch.zeros(shape).double())
    for mask in torch.ones(2, 4), torch.ones(2, 5).bool():
        with pytest.raises(ValueError, match=r"key_mask must be boolean and of shape \(2, 4\)"):
            module(torch.zeros(2, 4, 6).double(), key_mask=mask)
