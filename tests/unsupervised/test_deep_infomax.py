"""Estimators against torch's losses, info-nce-pytorch, loops, and all batches of small distributions."""

import itertools
import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from info_nce import InfoNCE
from tensors import assert_same_both_ways, leaf, normal, with_gradients
from torch.distributions import MultivariateNormal, kl_divergence
from torch.testing import assert_close

from zhixing.unsupervised.deep_infomax import (
    donsker_varadhan,
    gaussian_mi,
    info_nce,
    jsd,
    local_info_nce,
    nwj,
)

ESTIMATORS = pytest.mark.parametrize("estimator", [info_nce, donsker_varadhan, nwj, jsd], ids=lambda f: f.__name__)
SIZES = pytest.mark.parametrize("n", [2, 3, 17])


def loop(name, scores):
    """The estimate from its formula, a combination at a time."""
    n = len(scores)
    pairs = [scores[i, i] for i in range(n)]
    others = [scores[i, j] for i in range(n) for j in range(n) if i != j]
    joint = sum(pairs) / n
    if name == "info_nce":
        terms = [pairs[i] - torch.log(sum(torch.exp(scores[i, j]) for j in range(n)) / n) for i in range(n)]
        return sum(terms) / n
    if name == "donsker_varadhan":
        return joint - torch.log(sum(torch.exp(t) for t in others) / len(others))
    if name == "nwj":
        return joint - sum(torch.exp(t - 1) for t in others) / len(others)
    negative = sum(torch.log(1 + torch.exp(t)) for t in others) / len(others)
    return -sum(torch.log(1 + torch.exp(-t)) for t in pairs) / n - negative


@ESTIMATORS
@SIZES
def test_estimate_and_gradient_equal_a_loop(estimator, n):
    assert_same_both_ways(estimator, lambda scores: loop(estimator.__name__, scores), 2 * normal(n, n))


@SIZES
def test_info_nce_is_log_n_minus_the_cross_entropy_of_the_diagonal(n):
    assert_same_both_ways(info_nce, lambda s: math.log(n) - F.cross_entropy(s, torch.arange(n)), 3 * normal(n, n))


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_info_nce_of_cosines_equals_info_nce_pytorch(temperature):
    theirs = InfoNCE(temperature=temperature)

    def ours(query, key):
        return info_nce(F.normalize(query) @ F.normalize(key).T / temperature)

    assert_same_both_ways(ours, lambda q, k: math.log(13) - theirs(q, k), normal(13, 5), normal(13, 5, seed=1))


@SIZES
def test_jsd_is_minus_two_balanced_losses_of_a_logistic_classifier(n):
    def theirs(scores):
        label = torch.eye(n, dtype=scores.dtype)
        weight = label / n + (1 - label) / (n * (n - 1))
        return -F.binary_cross_entropy_with_logits(scores, label, weight, reduction="sum")

    assert_same_both_ways(jsd, theirs, 3 * normal(n, n))


# Every batch of a small distribution, with its probability


def joint(rows=2, columns=3, seed=0):
    return normal(rows, columns, seed=seed).flatten().softmax(0).view(rows, columns)


def log_ratio(p):
    return (p / p.sum(1, keepdim=True) / p.sum(0)).log()


def information(p):
    return (p * log_ratio(p)).sum()


def over_batches(estimator, p, critic, n):
    """The exact mean of the estimate over all batches of n pairs."""
    total = 0.0
    pairs = p.nonzero().tolist()
    for batch in itertools.product(pairs, repeat=n):
        x, y = torch.tensor(batch).T
        total = total + p[x, y].prod() * estimator(critic[x][:, y])
    return total


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("best", [True, False], ids=["best critic", "random critic"])
def test_mean_of_info_nce_over_all_batches_is_a_lower_bound(seed, best):
    p = joint(seed=seed)
    critic = log_ratio(p) if best else normal(2, 3, seed=seed + 9)
    assert over_batches(info_nce, p, critic, 3) < information(p)


@pytest.mark.parametrize("seed", range(4))
def test_best_score_of_info_nce_is_the_log_ratio_plus_any_function_of_x(seed):
    p = joint(seed=seed)
    best = over_batches(info_nce, p, log_ratio(p), 3)
    assert_close(over_batches(info_nce, p, log_ratio(p) + normal(2, 1), 3), best)
    conditional = (p / p.sum(1, keepdim=True)).log()
    assert over_batches(info_nce, p, conditional, 3) < best


@pytest.mark.parametrize("seed", range(4))
def test_nwj_is_unbiased_for_a_lower_bound_that_its_best_critic_reaches(seed):
    p = joint(seed=seed)
    product = p.sum(1, keepdim=True) * p.sum(0)
    for critic in (1 + log_ratio(p), normal(2, 3, seed=seed + 9)):
        population = (p * critic).sum() - (product * (critic - 1).exp()).sum()
        assert_close(over_batches(nwj, p, critic, 3), population)
        assert population < information(p) + 1e-12
    assert_close(over_batches(nwj, p, 1 + log_ratio(p), 3), information(p))


@pytest.mark.parametrize("seed", range(4))
def test_mean_of_donsker_varadhan_over_all_batches_exceeds_its_population_value(seed):
    p = joint(seed=seed)
    product = p.sum(1, keepdim=True) * p.sum(0)
    for critic in (log_ratio(p), normal(2, 3, seed=seed + 9)):
        population = (p * critic).sum() - (product * critic.exp()).sum().log()
        assert population < information(p) + 1e-12
        assert over_batches(donsker_varadhan, p, critic, 3) > population
    # so with the best critic the mean is above the mutual information itself
    assert over_batches(donsker_varadhan, p, log_ratio(p), 3) > information(p)


@pytest.mark.parametrize("seed", range(4))
def test_mean_of_jsd_over_all_batches_is_at_most_twice_the_divergence_less_log_4(seed):
    p = joint(seed=seed)
    product = p.sum(1, keepdim=True) * p.sum(0)
    middle = (p + product) / 2
    divergence = ((p * (p / middle).log()).sum() + (product * (product / middle).log()).sum()) / 2
    best = over_batches(jsd, p, log_ratio(p), 2)
    assert_close(best, 2 * divergence - math.log(4))
    assert over_batches(jsd, p, normal(2, 3, seed=seed + 9), 2) < best < 0


@pytest.mark.parametrize("estimator", [info_nce, nwj, jsd], ids=lambda f: f.__name__)
def test_gradient_over_all_batches_vanishes_at_the_best_critic(estimator):
    p = joint()
    critic = leaf(log_ratio(p) + (estimator is nwj))
    (gradient,) = torch.autograd.grad(over_batches(estimator, p, critic, 3), critic)
    assert_close(gradient, torch.zeros_like(p))


@pytest.mark.parametrize("symbols", [2, 3, 5])
def test_jsd_of_equal_variables_goes_to_0_while_the_mutual_information_grows(symbols):
    p = torch.eye(symbols, dtype=torch.float64) / symbols
    critic = torch.full_like(p, -math.inf).fill_diagonal_(math.log(symbols))
    found = over_batches(jsd, p, critic, 2)
    expected = -math.log(1 + 1 / symbols) - math.log(1 + symbols) / symbols
    assert math.isclose(found.item(), expected, rel_tol=1e-12)


# Properties


@SIZES
def test_info_nce_is_at_most_log_n_and_reaches_it(n):
    assert info_nce(20 * normal(n, n)) < math.log(n)
    assert_close(info_nce(1000 * torch.eye(n)), torch.tensor(math.log(n)))


def test_scores_that_say_nothing_give_an_estimate_of_0():
    for constant in (-7.0, 0.0, 7.0):
        scores = torch.full((6, 6), constant)
        assert_close(info_nce(scores), torch.tensor(0.0))
        assert_close(donsker_varadhan(scores), torch.tensor(0.0), rtol=0, atol=1e-5)
    assert_close(nwj(torch.ones(6, 6)), torch.tensor(0.0))
    assert_close(jsd(torch.zeros(6, 6)), torch.tensor(-math.log(4)))


def test_free_functions_of_the_best_scores():
    """A constant for each row in InfoNCE, one constant in Donsker-Varadhan, none in the others."""
    scores, rows = normal(7, 7), normal(7, 1, seed=1)
    assert_close(info_nce(scores + rows), info_nce(scores))
    assert abs(info_nce(scores + rows.T) - info_nce(scores)) > 0.01
    assert_close(donsker_varadhan(scores + 3), donsker_varadhan(scores))
    assert abs(donsker_varadhan(scores + rows) - donsker_varadhan(scores)) > 0.01
    assert abs(nwj(scores + 1) - nwj(scores)) > 0.01
    assert abs(jsd(scores + 1) - jsd(scores)) > 0.01


def test_nwj_is_at_most_donsker_varadhan():
    for seed in range(20):
        scores = normal(5, 5, seed=seed)
        assert nwj(scores) <= donsker_varadhan(scores)


def test_second_moment_of_the_ratio_of_densities_is_e_to_twice_the_information():
    """By quadrature over two correlated normal variables: why the variance of NWJ explodes."""
    nodes, weights = numpy.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    for rho in (0.2, 0.5):
        x, y = numpy.meshgrid(nodes, nodes)
        log_r = (rho * x * y - rho**2 * (x**2 + y**2) / 2) / (1 - rho**2) - math.log(1 - rho**2) / 2
        product = numpy.outer(weights, weights)
        assert math.isclose((product * numpy.exp(log_r)).sum(), 1, rel_tol=1e-6)
        second = (product * numpy.exp(2 * log_r)).sum()
        assert math.isclose(second, math.exp(2 * gaussian_mi(rho, 1)), rel_tol=1e-6)


@ESTIMATORS
def test_estimators_pass_gradcheck(estimator):
    assert torch.autograd.gradcheck(estimator, leaf(normal(4, 4)))


@ESTIMATORS
def test_strided_scores_are_read_in_order(estimator):
    scores = normal(6, 12).mT[::2]
    assert not scores.is_contiguous()
    assert_close(with_gradients(estimator, scores), with_gradients(estimator, scores.contiguous()))


@ESTIMATORS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_estimate_follows_the_type_of_the_scores(estimator, dtype):
    scores = normal(9, 9).to(dtype)
    estimate = estimator(scores)
    assert estimate.dtype == dtype
    assert_close(estimate.double(), estimator(scores.double()), rtol=0.03, atol=0.03)


@pytest.mark.parametrize("estimator", [info_nce, donsker_varadhan, jsd], ids=lambda f: f.__name__)
def test_large_scores_neither_overflow_nor_lose_their_gradient(estimator):
    scores = leaf(1e4 * normal(5, 5, dtype=torch.float32) - 1e5)
    value = estimator(scores)
    assert value.isfinite()
    assert torch.autograd.grad(value, scores)[0].isfinite().all()


def test_scores_are_not_changed():
    scores = normal(4, 4)
    before = scores.clone()
    for estimator in (info_nce, donsker_varadhan, nwj, jsd):
        estimator(scores)
    assert torch.equal(scores, before)


# Places


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (3, 4, 2, 5), (5, 2, 3, 1)], ids=str)
def test_local_estimate_and_gradients_equal_a_loop_over_images_and_places(shape):
    def theirs(y, maps):
        b, _, h, w = maps.shape
        total = 0.0
        for r, c in itertools.product(range(h), range(w)):
            for i in range(b):
                scores = torch.stack([y[i] @ maps[j, :, r, c] for j in range(b)])
                total = total + scores[i] - torch.log(scores.exp().mean())
        return total / (b * h * w)

    assert_same_both_ways(local_info_nce, theirs, normal(*shape[:2]), normal(*shape, seed=1))


def test_local_estimate_is_the_mean_of_the_estimates_of_the_places():
    y, maps = normal(6, 3), normal(6, 3, 2, 4, seed=1)
    places = [info_nce(y @ place.T) for place in maps.flatten(2).unbind(2)]
    assert_close(local_info_nce(y, maps), sum(places) / 8)


def test_local_estimate_of_strided_maps():
    maps = normal(4, 5, 6, 3, seed=1).movedim(3, 1)
    assert not maps.is_contiguous()
    y = normal(4, 3)
    assert_close(with_gradients(local_info_nce, y, maps), with_gradients(local_info_nce, y, maps.contiguous()))


def test_local_estimate_passes_gradcheck():
    assert torch.autograd.gradcheck(local_info_nce, (leaf(normal(3, 2)), leaf(normal(3, 2, 2, 1, seed=1))))


# The closed form


@pytest.mark.parametrize("rho", [-0.9, 0.0, 0.3, 0.99])
@pytest.mark.parametrize("d", [1, 3])
def test_mutual_information_is_the_divergence_of_the_joint_distribution_from_the_product(rho, d):
    identity = torch.eye(d, dtype=torch.float64)
    cross = rho * identity
    covariance = torch.cat([torch.cat([identity, cross], 1), torch.cat([cross, identity], 1)])
    zero = torch.zeros(2 * d, dtype=torch.float64)
    both = MultivariateNormal(zero, covariance)
    product = MultivariateNormal(zero, torch.eye(2 * d, dtype=torch.float64))
    assert math.isclose(gaussian_mi(rho, d), kl_divergence(both, product).item(), rel_tol=1e-9, abs_tol=1e-12)


def test_published_information_of_128_pairs():
    """The readme of McAllester and Stratos' code prints I(X,Y): 18.41 and ln(128): 4.85."""
    assert round(gaussian_mi(0.5, 128), 2) == 18.41
    assert round(info_nce(1e3 * torch.eye(128, dtype=torch.float64)).item(), 2) == 4.85


def test_small_correlations_keep_their_digits():
    assert math.isclose(gaussian_mi(1e-10, 2), 1e-20, rel_tol=1e-9)


# Misuse


def test_a_mask_before_the_exponential_counts_ones():
    """Donsker-Varadhan does not depend on a constant in T, but the masked sum does."""

    def masked(scores):
        others = 1 - torch.eye(8, dtype=scores.dtype)
        return scores.diagonal().mean() - (scores * others).flatten().logsumexp(0) + math.log(56)

    scores = normal(8, 8)
    right = donsker_varadhan(scores)
    assert_close(donsker_varadhan(scores - 20), right)
    assert abs(masked(scores) - right) < 0.3
    assert masked(scores - 20) < right - 15


def test_a_maximum_subtracted_along_the_wrong_axis_is_no_longer_the_log_of_a_sum():
    scores = 3 * normal(8, 8)
    largest = scores.amax(1)
    right = largest + (scores - largest[:, None]).exp().sum(1).log()
    wrong = largest + (scores - largest).exp().sum(1).log()
    assert_close(right, scores.logsumexp(1))
    assert (wrong - right).abs().max() > 1


def test_partners_gathered_in_another_order_give_no_positive_estimate():
    x = F.normalize(normal(32, 8))
    right = info_nce(10 * x @ x.T)
    shifted = info_nce(10 * x @ x.roll(1, 0).T)
    assert right > 2
    assert shifted < 0


def test_gathered_partners_without_gradient_halve_the_gradient_of_a_shared_encoder():
    x = normal(16, 4)
    weight = leaf(normal(3, 4, seed=1))

    def gradient(detach):
        y = x @ weight.T
        partners = y.detach() if detach else y
        return torch.autograd.grad(info_nce(y @ partners.T), weight)[0]

    assert abs(gradient(True).norm() / gradient(False).norm() - 1) > 0.1


@pytest.mark.wrong_input
@ESTIMATORS
@pytest.mark.parametrize(
    ("scores", "match"),
    [
        (torch.zeros(3, 4), r"scores must be \(N, N\), with N of at least 2, but its shape is \(3, 4\)"),
        (torch.zeros(1, 1), r"but its shape is \(1, 1\)"),
        (torch.zeros(0, 0), r"its shape is \(0, 0\)"),
        (torch.zeros(3), r"its shape is \(3,\)"),
        (torch.zeros(3, 3, dtype=torch.int64), "is torch.int64"),
        ([[0.0]], "is a list"),
    ],
    ids=["oblong", "one pair", "empty", "vector", "integers", "list"],
)
def test_scores_of_a_wrong_shape_or_type_are_an_error(estimator, scores, match):
    with pytest.raises(ValueError, match=match):
        estimator(scores)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("y", "maps", "match"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 5, 2, 2), r"maps must be \(3, 4, H, W\)"),
        (torch.zeros(3, 4), torch.zeros(2, 4, 2, 2), r"maps must be \(3, 4, H, W\)"),
        (torch.zeros(3, 4), torch.zeros(3, 4, 2), r"maps must be \(3, 4, H, W\)"),
        (torch.zeros(3, 4), torch.zeros(3, 4, 0, 2), "its shape is"),
        (torch.zeros(3, 4, 1), torch.zeros(3, 4, 2, 2), r"y must be \(N, D\)"),
        (torch.zeros(1, 4), torch.zeros(1, 4, 2, 2), "at least 2 images, but are of 1"),
    ],
    ids=["channels", "images", "no width", "no places", "y of three axes", "one image"],
)
def test_maps_that_do_not_fit_the_vectors_are_an_error(y, maps, match):
    with pytest.raises(ValueError, match=match):
        local_info_nce(y, maps)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("rho", "d", "match"),
    [
        (1.0, 2, "rho must be between -1 and 1, but is 1.0"),
        (-1, 2, "but is -1"),
        (math.nan, 2, "but is nan"),
        (True, 2, "but is True"),
        ("0.5", 2, "but is '0.5'"),
        (0.5, 0, "d must be a positive integer, but is 0"),
        (0.5, 1.5, "d must be a positive integer, but is 1.5"),
    ],
)
def test_impossible_correlations_and_dimensions_are_an_error(rho, d, match):
    with pytest.raises(ValueError, match=match):
        gaussian_mi(rho, d)


@pytest.mark.compiled
def test_compiled_graph_has_no_break_and_gives_the_same():
    def all_of_them(scores, y, maps):
        return info_nce(scores) + donsker_varadhan(scores) + nwj(scores) + jsd(scores) + local_info_nce(y, maps)

    arguments = normal(5, 5), normal(4, 3), normal(4, 3, 2, 2)
    compiled = torch.compile(all_of_them, backend="eager", fullgraph=True)
    assert_close(compiled(*arguments), all_of_them(*arguments))
