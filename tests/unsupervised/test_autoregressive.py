"""Autoregressive models against enumeration, loops from the definitions, torch's Bernoulli and zuko's masked MLP."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from tensors import assert_same_both_ways, normal
from torch import nn
from torch.autograd.functional import jacobian
from torch.distributions import Bernoulli, Independent
from torch.testing import assert_close

from zhixing.unsupervised.autoregressive import (
    MADE,
    fvbn_logits,
    log_prob,
    made_masks,
    masked_mlp,
    mixture_log_prob,
    nade_logits,
    path_counts,
    sample,
)


def bits(*shape, seed=0, dtype=torch.float64):
    return (normal(*shape, seed=seed) > 0).to(dtype)


def every(d, dtype=torch.float64):
    """All 2^D vectors."""
    return ((torch.arange(2**d)[:, None] >> torch.arange(d)) & 1).to(dtype)


def nade_weights(d, h):
    return normal(h, d, seed=1), normal(h, seed=2), normal(d, h, seed=3), normal(d, seed=4)


def made(d, hidden, seed=0):
    torch.manual_seed(seed)
    return MADE(d, hidden).double()


def permutation(d, seed=0):
    return torch.randperm(d, generator=torch.Generator().manual_seed(seed))


# Probabilities


@pytest.mark.parametrize("d", [1, 2, 5, 10])
def test_probabilities_of_all_vectors_sum_to_1(d):
    x = every(d)
    models = [
        fvbn_logits(x, normal(d, d), normal(d, seed=1)),
        nade_logits(x, *nade_weights(d, 7)),
        made(d, [])(x),
        made(d, [3])(x),
        made(d, [16, 20])(x),
        made(d, [16, 20], seed=1)(x, permutation(d)),
    ]
    for logits in models:
        assert_close(log_prob(logits, x).exp().sum(), torch.tensor(1.0, dtype=torch.float64))


def test_marginals_of_prefixes_are_products_of_the_first_conditionals():
    """The sum over the last D - k variables is the product of the first k conditionals."""
    d, k = 7, 3
    x = every(d)
    model = made(d, [20])
    logits = model(x)
    summed = log_prob(logits, x).exp().view(2 ** (d - k), 2**k).sum(0)
    first = log_prob(logits[: 2**k, :k], x[: 2**k, :k]).exp()
    assert_close(summed, first)


def test_log_prob_and_gradients_equal_the_independent_bernoulli_of_torch():
    x = bits(5, 9)
    assert_same_both_ways(
        lambda logits: log_prob(logits, x),
        lambda logits: Independent(Bernoulli(logits=logits), 1).log_prob(x),
        3 * normal(5, 9),
    )


def test_log_prob_is_the_sum_over_variables_not_their_mean():
    x = bits(4, 784)
    logits = torch.zeros(4, 784, dtype=torch.float64)
    assert_close(log_prob(logits, x), torch.full((4,), -784 * math.log(2), dtype=torch.float64))
    mean = F.binary_cross_entropy_with_logits(logits, x)
    assert_close(-log_prob(logits, x).mean() / 784, mean)


def test_log_prob_of_large_logits_is_finite_and_linear():
    logits = torch.tensor([[1e4, -1e4, 1e4]], dtype=torch.float64)
    assert_close(log_prob(logits, torch.zeros_like(logits)), torch.tensor([-2e4], dtype=torch.float64))


# FVBN and NADE


def test_fvbn_and_gradients_equal_a_loop_over_logistic_regressions():
    def loop(x, w, b):
        return torch.stack([x[:, :d] @ w[d, :d] + b[d] for d in range(len(b))], 1)

    assert_same_both_ways(fvbn_logits, loop, bits(5, 6), normal(6, 6), normal(6, seed=1))


def test_fvbn_ignores_weights_on_and_above_the_diagonal():
    x, w, b = bits(5, 6), normal(6, 6), normal(6, seed=1)
    assert_close(fvbn_logits(x, w, b), fvbn_logits(x, w + normal(6, 6, seed=2).triu(), b))


def nade_loop(x, w, c, v, b):
    """The definition: a hidden layer of its own for each variable."""
    logits = [v[d] @ torch.sigmoid(c[:, None] + w[:, :d] @ x[:, :d].T) + b[d] for d in range(len(b))]
    return torch.stack(logits, 1)


@pytest.mark.parametrize(("d", "h"), [(1, 1), (6, 4), (9, 31)])
def test_nade_and_gradients_equal_a_loop_over_hidden_layers(d, h):
    assert_same_both_ways(nade_logits, nade_loop, bits(5, d), *nade_weights(d, h))


def test_nade_without_weights_into_the_hidden_layer_is_a_product_of_bernoullis():
    x, (w, c, v, b) = bits(5, 6), nade_weights(6, 4)
    expected = (v @ torch.sigmoid(c) + b).expand(5, 6)
    assert_close(nade_logits(x, 0 * w, c, v, b), expected)


def test_numbers_of_parameters_for_784_pixels():
    """FVBN has 307,720, and NADE with 500 hidden units 785,284; without shared weights it is more than 150 million."""
    d, h = 784, 500
    assert d * (d - 1) // 2 + d == 307_720
    weights = [torch.empty(shape) for shape in ((h, d), (h,), (d, h), (d,))]
    assert nade_logits(torch.zeros(1, d), *(x.zero_() for x in weights)).shape == (1, d)
    assert sum(x.numel() for x in weights) == 785_284
    assert sum(h * before + h + h + 1 for before in range(d)) > 150e6


# Masks


def test_masks_equal_loops_from_the_definition():
    inputs, first, second = permutation(5) + 1, torch.tensor([1, 4, 2, 2, 3, 1]), torch.tensor([3, 1, 4])
    expected = []
    for before, after, strict in ((inputs, first, False), (first, second, False), (second, inputs, True)):
        rows = [[(m > n if strict else m >= n) for n in before.tolist()] for m in after.tolist()]
        expected.append(torch.tensor(rows))
    assert_close(made_masks([inputs, first, second]), expected)


def test_number_of_paths_equals_a_loop_over_hidden_units():
    masks = made_masks([permutation(4) + 1, torch.tensor([1, 3, 2, 2, 1]), torch.tensor([3, 1, 2])])
    expected = torch.zeros(4, 4, dtype=torch.int64)
    for i in range(4):
        for j in range(4):
            for first in range(5):
                for second in range(3):
                    expected[i, j] += int(masks[0][first, j] & masks[1][second, first] & masks[2][i, second])
    assert_close(path_counts(masks), expected)


def test_masks_without_a_hidden_layer_are_those_of_an_fvbn():
    assert_close(made_masks([torch.arange(1, 6)]), [torch.ones(5, 5, dtype=torch.bool).tril(-1)])


@pytest.mark.parametrize(("d", "hidden"), [(2, [1]), (6, [5]), (6, [17, 5, 8]), (10, [64, 64])])
def test_each_output_sees_exactly_the_variables_before_it(d, hidden):
    """With D - 1 units in each layer, or more."""
    order = permutation(d, seed=d)
    counts = path_counts(MADE(d, hidden).masks(order))[order][:, order]
    assert_close(counts > 0, torch.ones(d, d, dtype=torch.bool).tril(-1))


def test_degrees_of_hidden_units_are_spread_evenly_from_1_to_d_minus_1():
    first, last = MADE(6, [20]).masks(permutation(6))
    assert_close(first.sum(1).bincount(minlength=6), torch.tensor([0, 4, 4, 4, 4, 4]))
    assert_close(last.sum(0).bincount(minlength=6), torch.tensor([0, 4, 4, 4, 4, 4]))


def test_random_degrees_may_leave_an_output_without_inputs():
    """All hidden units of the highest degree: only the last output sees any input."""
    counts = path_counts(made_masks([torch.arange(1, 6), torch.full((50,), 4)]))
    assert_close((counts > 0).sum(1), torch.tensor([0, 0, 0, 0, 4]))


def test_greater_or_equal_in_the_last_mask_lets_each_output_see_its_own_input():
    degrees = [torch.arange(1, 6), torch.arange(1, 5)]
    masks = [made_masks(degrees)[0], degrees[0][:, None] >= degrees[1]]
    assert (path_counts(masks).diagonal() > 0).sum() == 4


# MADE


def test_jacobian_of_made_is_strictly_triangular_in_the_order_with_full_paths_below():
    model, order, x = made(6, [40, 40]), permutation(6), normal(6)
    slopes = jacobian(lambda x: model(x[None], order)[0], x)[order][:, order]
    assert (slopes.triu() == 0).all()
    assert ((slopes != 0).sum(1) == torch.arange(6)).all()


def test_jacobian_of_dead_units_shows_fewer_dependencies_than_the_masks():
    model, x = made(5, [20]), bits(5)
    with torch.no_grad():
        model.layers[0].bias -= 100
    slopes = jacobian(lambda x: model(x[None])[0], x)
    assert not slopes.any()
    assert path_counts(model.masks(torch.arange(5))).count_nonzero() == 10


@pytest.mark.parametrize("hidden", [[16], [13, 32], []], ids=["one layer", "two layers", "none"])
def test_masked_mlp_and_gradients_equal_those_of_zuko(hidden):
    from zuko.nn import MaskedMLP

    d = 5
    adjacency = torch.ones(d, d, dtype=torch.bool).tril(-1)
    theirs = MaskedMLP(adjacency, hidden).double()
    linear = [layer for layer in theirs if isinstance(layer, nn.Linear)]
    masks = [layer.mask for layer in linear]
    x = normal(7, d)
    names = [f"{i}.{kind}" for i, layer in enumerate(theirs) if layer in linear for kind in ("weight", "bias")]
    values = [dict(theirs.named_parameters())[name] for name in names]

    def ours(x, *values):
        return masked_mlp(x, values[::2], values[1::2], masks)

    def reference(x, *values):
        return torch.func.functional_call(theirs, dict(zip(names, values, strict=True)), (x,))

    assert_same_both_ways(ours, reference, x, *values)
    assert_close(path_counts(masks) > 0, adjacency)


def test_hundreds_of_layers_of_ones_masked_to_the_identity_keep_positive_numbers():
    x, n = normal(3, 2).abs(), 300
    y = masked_mlp(x, [torch.ones(2, 2).double()] * n, [torch.zeros(2).double()] * n, [torch.eye(2) > 0] * n)
    assert_close(y, x)


def test_made_equals_a_loop_that_zeroes_what_each_output_may_not_see():
    """A network without masks of inputs to come: set them to anything, and its logit stays."""
    model, x, order = made(6, [12, 12]), bits(4, 6), permutation(6)
    logits = model(x, order)
    for place, index in enumerate(order.tolist()):
        unseen = x.clone()
        unseen[:, order[place:]] = normal(4, 6 - place, seed=place)
        assert_close(model(unseen, order)[:, index], logits[:, index])


def test_order_of_made_is_a_permutation_of_its_variables():
    """With the weights of the first and last layer permuted, the order permutes the variables."""
    model, order, x = made(6, [12]), permutation(6), bits(4, 6)
    permuted = made(6, [12])
    with torch.no_grad():
        permuted.layers[0].weight[:, order] = model.layers[0].weight.clone()
        permuted.layers[1].weight[order] = model.layers[1].weight.clone()
        permuted.layers[1].bias[order] = model.layers[1].bias.clone()
    assert_close(permuted(x, order)[:, order], model(x[:, order]))


@pytest.mark.parametrize("d", [1, 6, 784])
def test_natural_order_is_the_default(d):
    model, x = made(d, [12]), bits(4, d)
    assert_close(model(x), model(x, torch.arange(d)))


def test_gradcheck_of_all_parameters():
    model, x = made(4, [5, 5]), normal(2, 4)
    names, values = zip(*model.named_parameters(), strict=True)

    def call(*values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, values)
    inputs = [value.requires_grad_() for value in (normal(2, 4), *nade_weights(4, 3))]
    assert torch.autograd.gradcheck(nade_logits, inputs)


def test_masked_weights_get_no_gradient():
    model = made(5, [9])
    model(bits(4, 5)).sum().backward()
    for layer, mask in zip(model.layers, model.masks(torch.arange(5)), strict=True):
        assert not layer.weight.grad[~mask].any()


# Samples


def test_samples_have_the_frequencies_of_the_enumerated_probabilities():
    d, n, order = 3, 20_000, torch.tensor([1, 2, 0])
    model = made(d, [8], seed=3)
    with torch.no_grad():
        for layer in model.layers:
            layer.weight *= 4
        p = log_prob(model(every(d), order), every(d)).exp()
    generator = torch.Generator().manual_seed(0)
    drawn = sample(lambda x: model(x, order), bits(n, d), order, generator=generator)
    share = torch.bincount((drawn @ (2.0 ** torch.arange(d, dtype=drawn.dtype))).long(), minlength=2**d) / n
    deviation = (p * (1 - p) / n).sqrt()
    assert ((share - p).abs() < 5 * deviation).all()
    assert p.max() > 0.2 > 0.05 > p.min()


def test_samples_of_certain_logits_follow_the_order():
    """A chain: each variable copies the one before it, and the first is given."""
    chain = torch.tensor([3, 0, 2, 1])

    def logits(x):
        out = torch.zeros_like(x)
        for before, after in pairwise(chain.tolist()):
            out[:, after] = 100 * x[:, before] - 50
        return out

    x = torch.zeros(2, 4)
    x[1, 3] = 1
    assert_close(sample(logits, x, chain[1:]), torch.tensor([[0.0] * 4, [1.0] * 4]))
    assert sample(logits, x, chain.flip(0)[:3])[1].sum() < 4  # in another order


def test_sample_leaves_its_argument_and_what_is_known():
    x = bits(3, 5)
    before = x.clone()
    drawn = sample(made(5, [8]), x, torch.arange(2, 5))
    assert_close(x, before)
    assert_close(drawn[:, :2], x[:, :2])
    assert ((drawn == 0) | (drawn == 1)).all()
    assert not drawn.requires_grad


def test_sampling_takes_a_pass_for_each_variable():
    calls = []

    def logits(x):
        calls.append(1)
        return torch.zeros_like(x)

    sample(logits, torch.zeros(2, 7), torch.arange(7))
    assert len(calls) == 7


# Many orders


def test_mixture_over_orders_sums_to_1():
    x, model = every(6), made(6, [30])
    orders = torch.stack([permutation(6, seed) for seed in range(5)])
    assert_close(mixture_log_prob(model, x, orders).exp().sum(), torch.tensor(1.0, dtype=torch.float64))


def test_averaged_logits_of_two_orders_see_every_variable_and_sum_to_2():
    """Two bits, one a copy of the other: averaged, each bit predicts the other."""

    def copies(x, order):
        first, last = order.tolist()
        out = torch.zeros_like(x)
        out[:, last] = 200 * x[:, first] - 100
        return out

    x, orders = every(2), torch.tensor([[0, 1], [1, 0]])
    expected = torch.tensor([0.5, 0.0, 0.0, 0.5], dtype=torch.float64)
    assert_close(mixture_log_prob(copies, x, orders).exp(), expected)
    averaged = torch.stack([copies(x, order) for order in orders]).mean(0)
    assert_close(log_prob(averaged, x).exp(), 2 * expected)


def test_mixture_equals_the_mean_of_probabilities():
    x, model = bits(4, 6), made(6, [10])
    orders = torch.stack([permutation(6, seed) for seed in range(3)])
    each = torch.stack([log_prob(model(x, order), x).exp() for order in orders])
    assert_close(mixture_log_prob(model, x, orders), each.mean(0).log())
    assert_close(mixture_log_prob(model, x, orders[:1]), each[0].log())


def test_mixture_of_improbable_vectors_does_not_underflow():
    x = torch.ones(1, 800, dtype=torch.float64)
    orders = torch.stack([torch.arange(800), torch.arange(800)])
    assert_close(mixture_log_prob(lambda x, order: -2 * x, x, orders), log_prob(-2 * x, x))


# Shapes and types


def test_empty_batches():
    x = torch.zeros(0, 5)
    assert log_prob(MADE(5, [8])(x), x).shape == (0,)
    assert nade_logits(x.double(), *nade_weights(5, 3)).shape == (0, 5)
    assert fvbn_logits(x, torch.zeros(5, 5), torch.zeros(5)).shape == (0, 5)
    assert sample(MADE(5, [8]), x, torch.arange(5)).shape == (0, 5)


def test_non_contiguous_input():
    x, (w, c, v, b) = bits(6, 5).T, nade_weights(6, 4)
    model = made(6, [8])
    for function in (model, lambda x: nade_logits(x, w.T.contiguous().T, c, v, b)):
        assert_close(function(x), function(x.contiguous()))
    assert_close(log_prob(model(x), x), log_prob(model(x), x.contiguous()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_error_of_nade_in_half_precision_is_at_most_twice_that_of_the_loop(dtype):
    x = bits(64, 30, dtype=torch.float32)
    weights = [value.float() for value in nade_weights(30, 20)]
    exact = nade_loop(x, *weights)
    rounded = [value.to(dtype) for value in weights]
    ours = nade_logits(x.to(dtype), *rounded)
    assert ours.dtype == dtype
    naive = nade_loop(x.to(dtype), *rounded)
    assert (ours.float() - exact).abs().mean() < 2 * (naive.float() - exact).abs().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_made_and_samples_keep_the_type(dtype):
    model, x = MADE(5, [8]).to(dtype), bits(3, 5, dtype=dtype)
    assert model(x).dtype == dtype
    assert sample(model, x, torch.arange(5)).dtype == dtype


@pytest.mark.compiled
def test_compiled_made_equals_the_eager_one():
    model, x = MADE(5, [8]), bits(3, 5, dtype=torch.float32)
    assert_close(torch.compile(model, backend="eager")(x), model(x))


# Wrong input


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("logits", "x", "match"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), r"x must be \(B, 3\), but its shape is \(2, 4\)"),
        (torch.zeros(2, 3), torch.zeros(1, 3), "x has 1 vectors, but logits 2"),
        (torch.zeros(2, 3), torch.full((2, 3), 0.5), "x must hold zeros and ones only"),
        (torch.zeros(2, 3), torch.full((2, 3), math.nan), "x must hold zeros and ones only"),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64), "x must be a floating-point tensor"),
        (torch.zeros(3), torch.zeros(3), r"logits must be \(B, D\)"),
    ],
    ids=["widths", "numbers", "grey", "nan", "integers", "one vector"],
)
def test_vectors_that_do_not_fit_the_logits_are_an_error(logits, x, match):
    with pytest.raises(ValueError, match=match):
        log_prob(logits, x)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("place", "shape", "match"),
    [
        (0, (5, 6, 1), r"x must be \(B, D\)"),
        (1, (4, 5), r"w must be \(H, 6\)"),
        (2, (5,), r"c must be \(4\)"),
        (3, (4, 6), r"v must be \(6, 4\)"),
        (4, (4,), r"b must be \(6\)"),
    ],
    ids=["x", "w", "c", "v", "b"],
)
def test_arguments_of_nade_that_do_not_fit_are_an_error(place, shape, match):
    arguments = [bits(5, 6), *nade_weights(6, 4)]
    arguments[place] = normal(*shape)
    with pytest.raises(ValueError, match=match):
        nade_logits(*arguments)


@pytest.mark.wrong_input
def test_arguments_of_an_fvbn_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match=r"w must be \(3, 3\)"):
        fvbn_logits(torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"b must be \(3\)"):
        fvbn_logits(torch.zeros(2, 3), torch.zeros(3, 3), torch.zeros(2))


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("degrees", "match"),
    [
        ([], "degrees must hold those of the inputs at least"),
        ([torch.arange(1, 4), [1, 2]], "degrees must be one-dimensional, of int64, but is"),
        ([torch.ones(3)], "degrees must be one-dimensional, of int64, but is"),
        ([torch.ones(3, 1, dtype=torch.int64)], "degrees must be one-dimensional, of int64, but is"),
        ([torch.arange(3)], r"degrees must be 1 or more, but is \[0, 1, 2\]"),
    ],
    ids=["none", "list", "floats", "two axes", "from zero"],
)
def test_degrees_that_are_none_are_an_error(degrees, match):
    with pytest.raises(ValueError, match=match):
        made_masks(degrees)


@pytest.mark.wrong_input
def test_no_masks_and_unequal_numbers_are_an_error():
    with pytest.raises(ValueError, match="masks must hold one mask at least"):
        path_counts([])
    with pytest.raises(ValueError, match="must be equally many, but are 1, 1 and 0"):
        masked_mlp(torch.zeros(1, 2), [torch.zeros(2, 2)], [torch.zeros(2)], [])
    with pytest.raises(ValueError, match="orders must hold one order at least"):
        mixture_log_prob(MADE(2, []), torch.zeros(1, 2), torch.zeros(0, 2, dtype=torch.int64))


@pytest.mark.wrong_input
@pytest.mark.parametrize(("d", "hidden"), [(0, [3]), (2.5, [3]), (3, [0]), (3, [4, "5"])], ids=str)
def test_sizes_of_made_that_are_none_are_an_error(d, hidden):
    with pytest.raises(ValueError, match="must be a positive integer, but is"):
        MADE(d, hidden)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("order", "match"),
    [
        (torch.tensor([0, 1, 1]), r"order must hold different indices below 3, but is \[0, 1, 1\]"),
        (torch.tensor([0, 1, 3]), r"order must hold different indices below 3, but is \[0, 1, 3\]"),
        (torch.tensor([-1, 1, 0]), r"order must be 0 or more, but is \[-1, 1, 0\]"),
        (torch.tensor([0.0, 1.0, 2.0]), "order must be one-dimensional, of int64"),
        ([0, 1, 2], "order must be one-dimensional, of int64"),
    ],
    ids=["twice", "too large", "negative", "floats", "list"],
)
def test_orders_that_are_none_are_an_error(order, match):
    model = MADE(3, [4])
    for call in (lambda: model(torch.zeros(1, 3), order), lambda: sample(model, torch.zeros(1, 3), order)):
        with pytest.raises(ValueError, match=match):
            call()


@pytest.mark.wrong_input
def test_order_of_some_variables_or_vectors_of_another_length_are_an_error_for_made():
    with pytest.raises(ValueError, match="order must hold all 3 indices, but holds 2"):
        MADE(3, [4])(torch.zeros(1, 3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"x must be \(B, 3\)"):
        MADE(3, [4])(torch.zeros(1, 4))
