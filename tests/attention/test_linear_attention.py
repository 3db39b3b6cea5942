"""Linear attention against torch's attention, and against the N × N weights written out in loops."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tensors import flat, make_qkv, normal, with_gradients
from torch.testing import assert_close

from zhixing.attention.linear_attention import (
    chunked_linear_attention,
    delta_rule,
    elu_plus_one,
    linear_attention,
    recurrent_linear_attention,
)

# B, H, N, M, D, E
SHAPES = {
    "one element": (1, 1, 1, 1, 1, 1),
    "square": (2, 3, 7, 7, 5, 5),
    "wider values": (1, 2, 6, 6, 3, 7),
    "more keys": (1, 2, 3, 11, 4, 2),
    "more queries": (2, 1, 9, 5, 3, 3),
    "empty batch": (0, 2, 4, 4, 2, 3),
    "no heads": (1, 0, 4, 4, 2, 3),
    "no tokens": (1, 2, 0, 0, 3, 2),
    "no values": (1, 2, 4, 4, 3, 0),
}
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


# The feature map


def test_feature_map_and_its_slope_are_those_of_torchs_elu():
    x = torch.tensor([-30.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 800.0], dtype=torch.float64)
    assert_close(with_gradients(elu_plus_one, x), with_gradients(lambda x: F.elu(x) + 1, x))
    assert torch.autograd.gradcheck(elu_plus_one, x[[0, 1, 2, 4, 5]].clone().requires_grad_())


@HALVES
def test_feature_map_keeps_its_digits_where_elu_plus_1_loses_them(dtype):
    x = torch.linspace(-9, 0, 200).to(dtype)
    exact = x.double().exp()
    off = ((elu_plus_one(x).double() - exact) / exact).abs()
    assert off.max() <= torch.finfo(dtype).eps
    naive = ((F.elu(x) + 1).double() - exact) / exact
    assert naive.abs().max() > 0.5


def test_elu_plus_1_in_bfloat16_is_58_percent_off_at_minus_6_and_0_at_minus_7():
    six, seven = (F.elu(torch.tensor([-6.0, -7.0], dtype=torch.bfloat16)) + 1).double().tolist()
    assert abs(six / math.exp(-6) - 1.58) < 0.005
    assert seven == 0
    assert elu_plus_one(torch.tensor(-7.0, dtype=torch.bfloat16)) > 0


def test_feature_map_of_large_and_empty_input():
    x = torch.tensor([1e4, -1e4, math.inf, -math.inf], requires_grad=True)
    y = elu_plus_one(x)
    assert_close(y, torch.tensor([10001.0, 0.0, math.inf, 0.0]))
    assert_close(torch.autograd.grad(y.sum(), x)[0], torch.tensor([1.0, 0.0, 1.0, 0.0]))
    assert elu_plus_one(torch.zeros(0, 3)).shape == (0, 3)


# Normalised, with the feature map


def by_torch(q, k, v, *, causal=False, key_mask=None):
    """Torch's softmax over the logarithms of the weights: equations 8 and 9, weights over their sum."""
    logits = ((F.elu(q) + 1) @ (F.elu(k) + 1).mT).log()
    if causal:
        logits = logits.masked_fill(torch.ones_like(logits).triu(1).bool(), -math.inf)
    if key_mask is not None:
        logits = logits.masked_fill(~key_mask[:, None, None], -math.inf)
    return F.scaled_dot_product_attention(torch.zeros_like(q), torch.zeros_like(k), v, logits)


@EACH_SHAPE
def test_is_softmax_attention_with_the_logarithms_of_the_weights(shape):
    qkv = make_qkv(shape)
    assert_close(with_gradients(linear_attention, *qkv), with_gradients(by_torch, *qkv))


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 130])
def test_causal_form_is_so_too(n):
    qkv = make_qkv((1, 2, n, n, 3, 4))
    ours = with_gradients(lambda *x: linear_attention(*x, causal=True), *qkv)
    assert_close(ours, with_gradients(lambda *x: by_torch(*x, causal=True), *qkv))


@CAUSAL
def test_key_mask_takes_padding_out_of_numerator_and_denominator(causal):
    q, k, v = make_qkv((3, 2, 6, 6, 4, 3))
    key_mask = torch.arange(6) < torch.tensor([[6], [4], [1]])
    ours = with_gradients(lambda *x: linear_attention(*x, causal=causal, key_mask=key_mask), q, k, v)
    assert_close(ours, with_gradients(lambda *x: by_torch(*x, causal=causal, key_mask=key_mask), q, k, v))
    # As if the padding were not there.
    assert_close(ours[0][0][1:2, :, :4], linear_attention(*(x[1:2, :, :4] for x in (q, k, v)), causal=causal))


def test_masking_the_values_alone_or_the_keys_before_the_map_is_another_result():
    q, k, v = make_qkv((1, 1, 8, 8, 4, 4))
    key_mask = torch.arange(8)[None] < 4
    right = linear_attention(q, k, v, key_mask=key_mask)
    hidden = ~key_mask[:, None, :, None]
    for wrong in (
        linear_attention(q, k, v.masked_fill(hidden, 0)),
        linear_attention(q, k.masked_fill(hidden, 0), v.masked_fill(hidden, 0)),
    ):
        assert ((wrong - right).norm() / right.norm()) > 0.2


@CAUSAL
def test_queries_that_see_no_key_give_zeros_and_zero_gradients(causal):
    q, k, v = make_qkv((2, 2, 5, 5, 3, 2))
    key_mask = torch.tensor([[False] * 5, [False, False, True, True, True]])
    outputs, gradients = with_gradients(lambda *x: linear_attention(*x, causal=causal, key_mask=key_mask), q, k, v)
    assert (outputs[0][0] == 0).all()
    assert (outputs[0][1, :, :2] == 0).all() == causal
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert (gradient[0] == 0).all()
    assert linear_attention(q, k[:, :, :0], v[:, :, :0]).eq(0).all()


def test_very_negative_features_still_give_means():
    """An ε beside e^-80 would pull them to 0."""
    q, k, v = make_qkv((1, 2, 6, 6, 3, 2), torch.float32)
    out = linear_attention(q - 40, k - 40, v, causal=True)
    assert_close(out, linear_attention(q.double() - 40, k.double() - 40, v.double(), causal=True).float())
    assert_close(out[:, :, 0], v[:, :, 0])


def test_equals_loops_over_equation_9():
    q, k, v = make_qkv((1, 2, 4, 4, 2, 3))
    out = linear_attention(q, k, v, causal=True)

    def phi(x):
        return [y + 1 if y > 0 else math.exp(y) for y in x]

    for h, i, c in itertools.product(range(2), range(4), range(3)):
        weights = [
            sum(a * b for a, b in zip(phi(q[0, h, i].tolist()), phi(k[0, h, j].tolist()), strict=True))
            for j in range(i + 1)
        ]
        wanted = sum(w * v[0, h, j, c].item() for j, w in enumerate(weights)) / sum(weights)
        assert_close(out[0, h, i, c].item(), wanted)


# Recurrence and chunks


def decays(*shape):
    """Logarithms of decays between e^-3 and 1."""
    return -3 * normal(*shape, seed=5).abs().clamp(max=1)


def by_loops(q, k, v, log_decay, s, *, scale, z=None):
    """o_i = Σ_{j ≤ i} scale (q_i · k_j) Π_{j < l ≤ i} decay_l v_j, and what the first state gives: N² of all."""
    factors = log_decay.exp()

    def product(first, last):
        return factors[:, :, first:last].prod(-1)

    n, outputs = q.shape[2], []
    for i in range(n):
        weights = [scale * (q[:, :, i] * k[:, :, j]).sum(-1) * product(j + 1, i + 1) for j in range(i + 1)]
        total = sum((w[..., None] * v[:, :, j] for j, w in enumerate(weights)), 0)
        total = total + scale * product(0, i + 1)[..., None] * torch.einsum("bhd,bhde->bhe", q[:, :, i], s)
        if z is not None:
            total = total / (sum(weights) + scale * product(0, i + 1) * (q[:, :, i] * z).sum(-1) + 1e-10)[..., None]
        outputs.append(total)
    left = [product(j + 1, n)[..., None] * k[:, :, j] for j in range(n)]
    s = product(0, n)[..., None, None] * s + sum(
        torch.einsum("bhd,bhe->bhde", x, v[:, :, j]) for j, x in enumerate(left)
    )
    if z is None:
        return torch.stack(outputs, 2), s
    return torch.stack(outputs, 2), (s, product(0, n)[..., None] * z + sum(left))


def features(n, *, b=1, h=2, d=3, e=4):
    """q and k positive, v, decays, S and z."""
    q, k, v = make_qkv((b, h, n, n, d, e))
    return q.abs() + 0.1, k.abs() + 0.1, v, decays(b, h, n), normal(b, h, d, e, seed=6), normal(b, h, d, seed=7).abs()


FORMS = {
    "recurrent": recurrent_linear_attention,
    "chunks of 1": lambda *x, **settings: chunked_linear_attention(*x, chunk=1, **settings),
    "chunks of 4": lambda *x, **settings: chunked_linear_attention(*x, chunk=4, **settings),
    "chunks of 64": chunked_linear_attention,
}
EACH_FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@EACH_FORM
@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 11])
def test_outputs_states_and_all_gradients_are_those_of_loops(form, n):
    q, k, v, g, s, _ = features(n)
    ours = with_gradients(lambda q, k, v, g, s: form(q, k, v, log_decay=g, state=s), q, k, v, g, s)
    assert_close(ours, with_gradients(lambda *x: by_loops(*x, scale=3**-0.5), q, k, v, g, s))


@EACH_FORM
@pytest.mark.parametrize("decaying", [False, True], ids=["no decay", "decay"])
def test_normalised_outputs_states_and_all_gradients_are_those_of_loops(form, decaying):
    q, k, v, g, s, z = features(9)
    g = g if decaying else torch.zeros_like(g)

    def normalised(q, k, v, g, s, z):
        return form(q, k, v, log_decay=g if decaying else None, state=(s, z), scale=0.7, normalize=True)

    ours, theirs = (
        with_gradients(function, q, k, v, g, s, z)
        for function in (normalised, lambda q, k, v, g, s, z: by_loops(q, k, v, g, s, scale=0.7, z=z))
    )
    assert_close(ours[0], theirs[0])
    for name, mine, other in zip("qkvgsz", ours[1], theirs[1], strict=True):
        if name != "g" or decaying:
            assert_close(mine, other)


@EACH_FORM
def test_no_decay_is_a_decay_of_1_and_no_state_is_a_state_of_0(form):
    q, k, v, _, s, z = features(6)
    ones = torch.zeros(1, 2, 6, dtype=torch.float64)
    assert_close(form(q, k, v), form(q, k, v, log_decay=ones, state=torch.zeros_like(s)))
    zeros = torch.zeros_like(s), torch.zeros_like(z)
    assert_close(form(q, k, v, normalize=True), form(q, k, v, state=zeros, normalize=True))


@EACH_FORM
def test_normalised_form_on_features_is_linear_attention(form):
    q, k, v = make_qkv((2, 2, 10, 10, 3, 4))
    out, _ = form(elu_plus_one(q), elu_plus_one(k), v, normalize=True)
    assert_close(out, linear_attention(q, k, v, causal=True))


@pytest.mark.parametrize("n", [2, 63, 64, 65, 100])
def test_chunks_equal_the_recurrence(n):
    q, k, v, g, s, _ = features(n)
    calls = [
        with_gradients(lambda *x, form=form: form(*x[:3], log_decay=x[3], state=x[4]), q, k, v, g, s)
        for form in (recurrent_linear_attention, chunked_linear_attention)
    ]
    assert_close(*calls)


@EACH_FORM
@pytest.mark.parametrize("normalize", [False, True], ids=["sums", "means"])
def test_two_calls_with_the_state_passed_on_equal_one(form, normalize):
    q, k, v, g, _, _ = features(11)
    whole, last = form(q, k, v, log_decay=g, normalize=normalize)
    first, state = form(q[:, :, :5], k[:, :, :5], v[:, :, :5], log_decay=g[:, :, :5], normalize=normalize)
    second, end = form(q[:, :, 5:], k[:, :, 5:], v[:, :, 5:], log_decay=g[:, :, 5:], state=state, normalize=normalize)
    assert_close(torch.cat([first, second], 2), whole)
    assert_close(flat(end), flat(last))


@EACH_FORM
def test_states_of_parts_add_up(form):
    """As the triples of online softmax merge; with decay the first part's is scaled."""
    q, k, v, g, _, _ = features(9)
    states = [
        form(q[:, :, p], k[:, :, p], v[:, :, p], log_decay=g[:, :, p])[1] for p in (slice(4), slice(4, 9), slice(9))
    ]
    assert_close(g[:, :, 4:].sum(-1).exp()[..., None, None] * states[0] + states[1], states[2])


@EACH_FORM
def test_decay_of_minus_infinity_empties_the_state(form):
    q, k, v, g, s, _ = features(7)
    g[:, :, [3, 4]] = -math.inf
    outputs, gradients = with_gradients(lambda *x: form(*x[:3], log_decay=x[3], state=x[4]), q, k, v, g, s)
    for x in (*outputs, *gradients):
        assert x.isfinite().all()
    fresh = form(q[:, :, 4:], k[:, :, 4:], v[:, :, 4:], log_decay=g[:, :, 4:])
    assert_close(outputs[0][:, :, 4:], fresh[0])
    assert_close(outputs[1], fresh[1])
    assert (gradients[4] != 0).any()  # the first three outputs read the first state
    assert (gradients[3][:, :, 3:5] == 0).all()


@EACH_FORM
def test_strong_decay_loses_no_digits(form):
    """k e^{-c}, as the formula may be factored, would overflow at c = -50 · 64."""
    q, k, v, _, s, _ = (x.float() for x in features(70))
    g = torch.full((1, 2, 70), -50.0)
    g[:, :, ::7] = -1e-3
    wanted = by_loops(*(x.double() for x in (q, k, v, g, s)), scale=3**-0.5)
    ours = form(q, k, v, log_decay=g, state=s)
    assert_close(flat(ours), [x.float() for x in flat(wanted)])


@EACH_FORM
def test_first_and_second_derivative_pass_gradcheck(form):
    q, k, v, g, s, z = (x.requires_grad_() for x in features(5, d=2, e=2, h=1))

    def function(q, k, v, g, s, z):
        return tuple(flat(form(q, k, v, log_decay=g, state=(s, z), normalize=True)))

    assert torch.autograd.gradcheck(function, (q, k, v, g, s, z))
    if form is recurrent_linear_attention:
        assert torch.autograd.gradgradcheck(function, (q, k, v, g, s, z))


@EACH_FORM
def test_sizes_of_zero(form):
    for shape in ("empty batch", "no heads", "no tokens", "no values"):
        q, k, v = make_qkv(SHAPES[shape])
        out, state = form(q, k, v)
        assert out.shape == v.shape
        assert state.shape == (*q.shape[:2], q.shape[3], v.shape[3])
        assert (state == 0).all() or shape != "no tokens"
    q, k, v = make_qkv(SHAPES["no tokens"])
    state = normal(1, 2, 3, 2)
    assert_close(form(q, k, v, log_decay=q[..., 0], state=state)[1], state)


@EACH_FORM
@HALVES
def test_low_precision_error_is_at_most_twice_that_of_rounding_once(form, dtype):
    q, k, v, g, _, _ = features(100)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    out, state = form(q, k, v, log_decay=g)
    exact, _ = form(q.double(), k.double(), v.double(), log_decay=g)
    assert out.dtype == dtype
    assert state.dtype == torch.float32
    assert (out.double() - exact).abs().max() <= 2 * (exact.to(dtype).double() - exact).abs().max()


def test_sums_of_ones_do_not_stop_at_256():
    """bfloat16 has 8 significant bits: 256 + 1 = 256."""
    one = torch.ones(1, 1, 1000, 1, dtype=torch.bfloat16)
    for form in FORMS.values():
        assert form(one, one, one)[1] == 1000
    naive = torch.zeros((), dtype=torch.bfloat16)
    for _ in range(1000):
        naive += 1
    assert naive == 256
    assert linear_attention(one - 1, one - 1, one, causal=True)[0, 0, -1] == 1


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_autocast_changes_nothing(causal):
    q, k, v = make_qkv((1, 2, 20, 20, 4, 3), torch.float32)
    expected = linear_attention(q, k, v, causal=causal)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(linear_attention(q, k, v, causal=causal), expected)
        sums = [form(q, k, v) for form in FORMS.values()]
        _, rewritten = delta_rule(q, F.normalize(k, dim=-1), v, q[..., 0].sigmoid())
    assert_close(rewritten, delta_rule(q, F.normalize(k, dim=-1), v, q[..., 0].sigmoid())[1])
    for out, state in sums:
        assert_close((out, state), recurrent_linear_attention(q, k, v))


@EACH_FORM
def test_takes_non_contiguous_input_and_leaves_arguments_alone(form):
    q, k, v, g, s, z = features(6, b=2)
    strided = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (q, k, v, g, s, z)]
    copies = [x.clone() for x in strided]
    assert not any(x.is_contiguous() for x in strided)
    ours = form(*strided[:3], log_decay=strided[3], state=(strided[4], strided[5]), normalize=True)
    assert_close(flat(ours), flat(form(q, k, v, log_decay=g, state=(s, z), normalize=True)))
    assert all(torch.equal(x, copy) for x, copy in zip(strided, copies, strict=True))


def test_one_decay_for_all_tokens_of_a_head_is_retnets():
    """A decay that depends on the head alone, broadcast by the caller: weights q_i · k_j γ^{i-j}."""
    q, k, v, _, _, _ = features(6)
    gamma = 1 - 2.0 ** (-5 - torch.arange(2, dtype=torch.float64))
    out, _ = chunked_linear_attention(q, k, v, log_decay=gamma.log()[None, :, None].expand(1, 2, 6), scale=1.0)
    distance = (torch.arange(6)[:, None] - torch.arange(6)).clamp(min=0)
    assert_close(out, ((q @ k.mT) * gamma[:, None, None] ** distance).tril() @ v)


def test_state_is_as_large_as_a_cache_of_half_the_head_size():
    q, k, v = make_qkv((1, 1, 40, 40, 16, 16))
    _, state = chunked_linear_attention(q, k, v)
    cached_for_one_token = k[:, :, 0].numel() + v[:, :, 0].numel()
    assert state.numel() / cached_for_one_token == 16 / 2


# The delta rule


def by_steps_of_gradient_descent(q, k, v, beta, s):
    """One step of length β on |Sᵀk - v|² / 2 for each token, by autograd."""
    outputs = []
    for i in range(q.shape[2]):
        with torch.enable_grad():
            loss = 0.5 * ((torch.einsum("bhde,bhd->bhe", s, k[:, :, i]) - v[:, :, i]) ** 2).sum()
            (slope,) = torch.autograd.grad(loss, s, create_graph=True)
        s = s - beta[:, :, i, None, None] * slope
        outputs.append(torch.einsum("bhde,bhd->bhe", s, q[:, :, i]) / q.shape[3] ** 0.5)
    return torch.stack(outputs, 2), s


def deltas(n, dtype=torch.float64):
    q, k, v, g, s, _ = features(n, b=2)
    return [x.to(dtype) for x in (q, F.normalize(k, dim=-1), v, g.exp(), s)]


def ruled(q, k, v, beta, s):
    return delta_rule(q, k, v, beta, state=s)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_delta_rule_is_one_step_of_gradient_descent_a_token(n):
    tensors = deltas(n)
    assert_close(with_gradients(ruled, *tensors), with_gradients(by_steps_of_gradient_descent, *tensors))


def test_delta_rule_passes_gradcheck():
    assert torch.autograd.gradcheck(ruled, [x[:1, :1].clone().requires_grad_() for x in deltas(4)])


def test_delta_rule_replaces_where_linear_attention_adds():
    _, k, v, _, _ = deltas(4)
    k = k[:, :, :1].expand_as(k)
    beta = torch.ones(k.shape[:3], dtype=torch.float64)
    out, _ = delta_rule(k, k, v, beta, scale=1.0)
    assert_close(out, v)
    assert_close(recurrent_linear_attention(k, k, v, scale=1.0)[0], v.cumsum(2))


def test_delta_rule_with_beta_0_writes_nothing():
    q, k, v, beta, s = deltas(5)
    out, state = delta_rule(q, k, v, torch.zeros_like(beta), state=s)
    assert_close(state, s)
    assert_close(out, q @ s / 3**0.5)


def test_orthogonal_keys_are_recalled_exactly_up_to_the_head_size():
    """Then the rules agree: nothing stored has a part along the new key. A state of D rows holds no more."""
    k = torch.linalg.qr(normal(1, 1, 8, 8)).Q
    v = normal(1, 1, 8, 3, seed=1)
    _, added = recurrent_linear_attention(k, k, v)
    _, replaced = delta_rule(k, k, v, torch.ones(1, 1, 8, dtype=torch.float64))
    assert_close(added, replaced)
    assert_close(k @ added, v)


def test_rules_agree_for_orthogonal_keys_of_any_lengths():
    k = torch.arange(1, 9).double().unsqueeze(-1) * torch.linalg.qr(normal(1, 1, 8, 8)).Q.mT
    v = normal(1, 1, 8, 3, seed=1)
    _, added = recurrent_linear_attention(k, k, v)
    _, replaced = delta_rule(k, k, v, torch.ones(1, 1, 8, dtype=torch.float64))
    assert_close(added, replaced)


def test_delta_rule_with_long_keys_grows_without_bound():
    _, k, v, beta, _ = deltas(60)
    sizes = [delta_rule(k, length * k, v, torch.ones_like(beta))[1].abs().max() for length in (1, 2)]
    assert sizes[0] < 100
    assert sizes[1] > 1e6


def test_delta_rule_chains_and_takes_halves_and_nothing():
    q, k, v, beta, s = deltas(9)
    whole = delta_rule(q, k, v, beta, state=s)
    first, state = delta_rule(q[:, :, :4], k[:, :, :4], v[:, :, :4], beta[:, :, :4], state=s)
    second, end = delta_rule(q[:, :, 4:], k[:, :, 4:], v[:, :, 4:], beta[:, :, 4:], state=state)
    assert_close((torch.cat([first, second], 2), end), whole)
    out, state = delta_rule(*(x.bfloat16() for x in (q, k, v, beta)))
    assert (out.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    exact, _ = delta_rule(*(x.bfloat16().double() for x in (q, k, v, beta)))
    assert (out.double() - exact).abs().max() <= 2 * (exact.bfloat16().double() - exact).abs().max()
    out, state = delta_rule(q[:, :, :0], k[:, :, :0], v[:, :, :0], beta[:, :, :0], state=s)
    assert out.shape == (2, 2, 0, 4)
    assert_close(state, s)


# Wrong input


def right(**changes):
    tensors = {"q": torch.zeros(2, 3, 5, 4), "k": torch.zeros(2, 3, 5, 4), "v": torch.zeros(2, 3, 5, 6)}
    return {**tensors, **changes}


WRONG = {
    "types": (right(k=torch.zeros(2, 3, 5, 4).double()), r"one floating-point type, but are torch\.float32, tor"),
    "integers": ({name: x.long() for name, x in right().items()}, r"one floating-point type, but are torch\.int64"),
    "devices": (right(v=torch.zeros(2, 3, 5, 6, device="meta")), "on one device, but are on cpu, cpu, meta"),
    "three dimensions": (right(q=torch.zeros(3, 5, 4)), r"must be \(B, H, N, D\).* q \(3, 5, 4\)"),
    "batch": (right(q=torch.zeros(1, 3, 5, 4)), r"must be \(B, H, N, D\).* q \(1, 3, 5, 4\)"),
    "grouped heads": (right(q=torch.zeros(2, 6, 5, 4)), r"must be \(B, H, N, D\).* q \(2, 6, 5, 4\)"),
    "head size": (right(q=torch.zeros(2, 3, 5, 7)), r"must be \(B, H, N, D\).* q \(2, 3, 5, 7\)"),
    "lengths of k and v": (right(v=torch.zeros(2, 3, 4, 6)), r"must be \(B, H, N, D\).* v \(2, 3, 4, 6\)"),
    "head size 0": (right(q=torch.zeros(2, 3, 5, 0), k=torch.zeros(2, 3, 5, 0)), "head size must be positive"),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize(("qkv", "said"), WRONG.values(), ids=WRONG)
def test_refuses_wrong_tensors(qkv, said):
    for function in (linear_attention, recurrent_linear_attention, chunked_linear_attention):
        with pytest.raises(ValueError, match=said):
            function(**qkv)


SETTINGS = {
    "lengths": ({"q": torch.zeros(2, 3, 4, 4)}, "as many queries as keys, but there are 4 and 5"),
    "a decay for each head alone": ({"log_decay": torch.zeros(3)}, r"log_decay must be .* \(2, 3, 5\), but .* \(3,\)"),
    "integer decay": ({"log_decay": torch.zeros(2, 3, 5, dtype=torch.long)}, "log_decay must be floating-point"),
    "the decay itself": ({"log_decay": torch.full((2, 3, 5), 0.9)}, r"logarithm of a decay .* largest element is 0\.9"),
    "state of another size": ({"state": torch.zeros(2, 3, 6, 4)}, r"S of shape \(2, 3, 4, 6\), .* is \(2, 3, 6, 4\)"),
    "a pair": ({"state": (torch.zeros(2, 3, 4, 6), torch.zeros(2, 3, 4))}, "the pair .* with normalize, and S without"),
    "no pair": ({"state": torch.zeros(2, 3, 4, 6), "normalize": True}, "the pair .* with normalize, and S without"),
    "z of another size": (
        {"state": (torch.zeros(2, 3, 4, 6), torch.zeros(2, 3, 6)), "normalize": True},
        r"z of shape \(2, 3, 4\), but is \(2, 3, 4, 6\) and \(2, 3, 6\)",
    ),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize(("settings", "said"), SETTINGS.values(), ids=SETTINGS)
def test_refuses_wrong_settings(settings, said):
    for form in (recurrent_linear_attention, chunked_linear_attention):
        with pytest.raises(ValueError, match=said):
            form(**right(**settings))


@pytest.mark.wrong_input
def test_refuses_what_only_one_function_takes():
    with pytest.raises(ValueError, match="chunk must be 1 or larger, but is 0"):
        chunked_linear_attention(**right(), chunk=0)
    with pytest.raises(ValueError, match="causal needs as many queries as keys, but there are 4 and 5"):
        linear_attention(**right(q=torch.zeros(2, 3, 4, 4)), causal=True)
    for key_mask in (torch.ones(2, 3, 5, dtype=torch.bool), torch.ones(2, 5)):
        with pytest.raises(ValueError, match=r"key_mask must be boolean and of shape \(2, 5\)"):
            linear_attention(**right(), key_mask=key_mask)
    with pytest.raises(ValueError, match=r"beta must be .* \(2, 3, 5\), but is torch\.float32 and \(2, 3, 5, 1\)"):
        delta_rule(**right(), beta=torch.ones(2, 3, 5, 1))
