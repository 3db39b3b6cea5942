"""Smooth maximum and argmax, soft accuracy and F1, and the threshold of F1, against libraries and definitions."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tensors import assert_same_both_ways, leaf, normal
from torch.testing import assert_close

from zhixing.foundations.smooth_surrogates import (
    best_f1_threshold,
    smooth_max,
    soft_accuracy,
    soft_argmax,
    soft_f1,
)

SHAPES = pytest.mark.parametrize(
    ("shape", "dim"), [((7,), 0), ((3, 5), 1), ((3, 5), -2), ((2, 1, 4), 1), ((0, 3), 1)], ids=str
)
SHARPNESS = pytest.mark.parametrize("k", [0.5, 1.0, 7, 40.0])
LOW = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


@pytest.fixture(scope="module")
def spatial_soft_argmax2d():
    from kornia.geometry.subpix import spatial_soft_argmax2d

    return spatial_soft_argmax2d


@pytest.fixture(scope="module")
def sparsemax():
    from entmax import sparsemax

    return sparsemax


@pytest.fixture(scope="module")
def binary_f1_score():
    from torchmetrics.functional.classification import binary_f1_score

    return binary_f1_score


def labelled(n=200, seed=0, shift=1.0):
    """Probabilities and labels that depend on them."""
    prob = (normal(n, seed=seed) - shift).sigmoid()
    return prob, (normal(n, seed=seed + 1) < torch.logit(prob)).long()


# Maximum


@SHAPES
@SHARPNESS
def test_smooth_max_equals_logsumexp_and_scipys_both_ways(shape, dim, k):
    from scipy.special import logsumexp

    x = normal(*shape)
    assert_same_both_ways(lambda x: smooth_max(x, dim, k=k), lambda x: torch.logsumexp(x * k, dim) / k, x)
    if x.numel():
        expected = torch.as_tensor(logsumexp((k * x).numpy(), axis=dim) / k)
        assert_close(smooth_max(x, dim, k=k), expected)


@SHARPNESS
def test_gradient_of_smooth_max_is_softmax_without_a_factor(k):
    x = leaf(normal(4, 6))
    (gradient,) = torch.autograd.grad(smooth_max(x, 1, k=k).sum(), x)
    assert_close(gradient, torch.softmax(k * x.detach(), 1))
    (lost,) = torch.autograd.grad(torch.logsumexp(k * x, 1).sum(), x)  # the factor 1 / k is forgotten
    assert_close(lost, k * gradient)


@SHARPNESS
def test_smooth_max_is_the_maximum_over_the_simplex_with_entropy(k):
    x = normal(5)
    p = torch.softmax(k * x, 0)
    best = (p * x).sum() - torch.special.xlogy(p, p).sum() / k
    assert_close(smooth_max(x, 0, k=k), best)
    others = torch.distributions.Dirichlet(torch.ones(5, dtype=torch.float64)).sample((2000,))
    values = others @ x - torch.special.xlogy(others, others).sum(1) / k
    assert bool((values <= best + 1e-12).all())


def test_maximum_over_the_simplex_with_a_square_is_sparsemax(sparsemax):
    """On two inputs a ramp; on more, no point of the simplex is better."""
    k, x = 2.0, normal(400, 2)
    ramp = (0.5 + k * (x[:, 0] - x[:, 1]) / 2).clamp(0, 1)
    assert_close(sparsemax(k * x, dim=1)[:, 0], ramp)
    x = normal(5)
    p = sparsemax(k * x, dim=0)
    others = torch.distributions.Dirichlet(torch.ones(5, dtype=torch.float64)).sample((2000,))
    values = others @ x - others.square().sum(1) / (2 * k)
    assert bool((values <= (p * x).sum() - p.square().sum() / (2 * k) + 1e-12).all())
    assert bool((p == 0).any())


@SHARPNESS
@pytest.mark.parametrize("n", [1, 2, 9])
def test_smooth_max_is_at_most_log_n_over_k_above_the_maximum(k, n):
    x = normal(300, n)
    above = smooth_max(x, 1, k=k) - x.amax(1)
    assert bool((above >= -1e-12).all())
    assert bool((above <= math.log(n) / k + 1e-12).all())
    assert_close(smooth_max(torch.zeros(n, dtype=torch.float64), 0, k=k).item(), math.log(n) / k)


@SHARPNESS
def test_curvature_is_at_most_half_of_k_and_reaches_it(k):
    for seed in range(5):
        hessian = torch.autograd.functional.hessian(lambda x: smooth_max(x, 0, k=k), normal(4, seed=seed))
        eigenvalues = torch.linalg.eigvalsh(hessian)
        assert eigenvalues[0] > -1e-9
        assert eigenvalues[-1] <= k / 2 + 1e-9
    level = torch.autograd.functional.hessian(lambda x: smooth_max(x, 0, k=k), torch.zeros(2).double())
    assert_close(torch.linalg.eigvalsh(level)[-1].item(), k / 2)


def test_smooth_max_of_an_input_and_zero_is_softplus():
    x = normal(50)
    assert_close(smooth_max(torch.stack([x, torch.zeros_like(x)]), 0, k=3.0), F.softplus(x, beta=3.0))


@SHARPNESS
def test_gradient_falls_exponentially_below_the_largest(k):
    x = leaf(torch.tensor([1.0, 0.9, 0.2]).double())
    (gradient,) = torch.autograd.grad(smooth_max(x, 0, k=k), x)
    assert_close(gradient / gradient[0], torch.exp(-k * (x[0] - x)).detach())


def test_masked_entries_take_no_part():
    x = torch.tensor([1.0, -math.inf, 2.0], requires_grad=True)
    y = smooth_max(x, 0)
    assert_close(y, smooth_max(torch.tensor([1.0, 2.0]), 0))
    (gradient,) = torch.autograd.grad(y, x)
    assert gradient[1] == 0
    assert bool(gradient.isfinite().all())


# Argmax


@SHAPES
@SHARPNESS
def test_soft_argmax_equals_a_weighted_mean_of_positions_both_ways(shape, dim, k):
    def definition(x):
        weights = torch.exp(k * (x - x.amax(dim, keepdim=True).detach()))
        slices = weights.unbind(dim)
        return sum(i * part for i, part in enumerate(slices)) / sum(slices)

    assert_same_both_ways(lambda x: soft_argmax(x, dim, k=k), definition, normal(*shape))


@SHARPNESS
def test_soft_argmax_of_an_image_equals_kornias_both_ways(spatial_soft_argmax2d, k):
    """The weights of the columns are those of the smooth maxima over the rows."""

    def ours(x):
        columns = soft_argmax(smooth_max(x, 2, k=k), 2, k=k)
        return torch.stack([columns, soft_argmax(smooth_max(x, 3, k=k), 2, k=k)], 2)

    def theirs(x):
        return spatial_soft_argmax2d(x, temperature=1 / k, normalized_coordinates=False)

    assert_same_both_ways(ours, theirs, normal(2, 3, 5, 8))


def test_background_holds_half_of_the_weight_at_log_n_minus_1():
    n, at, k = 4096, 100, 2.0
    x = torch.zeros(n, dtype=torch.float64)
    x[at] = math.log(n - 1) / k
    rest = (n * (n - 1) / 2 - at) / (n - 1)
    assert_close(soft_argmax(x, 0, k=k).item(), (at + rest) / 2)
    assert abs(soft_argmax(3 * x, 0, k=k).item() - at) < 0.01


def test_soft_argmax_of_two_equal_peaks_is_between_them():
    x = torch.full((11,), -50.0)
    x[[2, 8]] = 50.0
    assert_close(soft_argmax(x, 0), torch.tensor(5.0))


def test_soft_argmax_misses_the_argmax_by_at_most_the_weight_elsewhere():
    k, x = 5.0, normal(200, 9)
    values, places = x.sort(1, descending=True)
    miss = (soft_argmax(x, 1, k=k) - places[:, 0]).abs()
    gap = values[:, 0] - values[:, 1]
    assert bool((miss <= 8 * 8 * torch.exp(-k * gap) + 1e-12).all())


@pytest.mark.parametrize("function", [smooth_max, soft_argmax])
def test_gradcheck_and_strided_views_and_large_numbers(function):
    x = leaf(normal(3, 4))
    assert torch.autograd.gradcheck(lambda x: function(x, 1, k=2.0), x)
    assert torch.autograd.gradgradcheck(lambda x: function(x, 1, k=2.0), x)
    view = normal(6, 10).t()[::2, 1::2]
    assert_close(function(view, 0), function(view.contiguous(), 0))
    assert_close(function(1e6 * normal(5), 0), function(1e9 * normal(5), 0) / (1e3 if function is smooth_max else 1))


@LOW
@pytest.mark.parametrize("function", [smooth_max, soft_argmax])
def test_low_precision_is_that_of_the_rounded_result(function, dtype):
    x = (30 * normal(4, 500)).to(dtype)  # k x overflows in float16
    y = function(x, 1, k=1e3)
    assert y.dtype == dtype
    assert_close(y, function(x.double(), 1, k=1e3).to(dtype))


# Accuracy


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (5, 3), (64, 10)], ids=str)
def test_soft_accuracy_is_one_minus_half_the_mean_absolute_error_both_ways(shape):
    target = (shape[1] - 1 - torch.arange(shape[0])) % shape[1]

    def theirs(logits):
        error = F.l1_loss(logits.softmax(1), F.one_hot(target, shape[1]).double(), reduction="none")
        return 1 - error.sum(1).mean() / 2

    assert_same_both_ways(lambda logits: soft_accuracy(logits, target), theirs, normal(*shape))


def test_gradient_of_soft_accuracy_is_that_of_cross_entropy_times_the_probability():
    logits, target = leaf(normal(20, 4)), torch.arange(20) % 4
    (ours,) = torch.autograd.grad(soft_accuracy(logits, target) * 20, logits)
    (theirs,) = torch.autograd.grad(F.cross_entropy(logits, target, reduction="sum"), logits)
    assert_close(ours, -theirs * logits.detach().softmax(1).gather(1, target[:, None]))


def test_soft_accuracy_is_the_expected_accuracy_of_drawn_classes():
    """Summed over all 3 ** 4 draws; and the exact policy gradient with the hit as reward is its gradient."""
    logits, target = leaf(normal(4, 3)), torch.tensor([0, 2, 1, 1])
    log_p = logits.log_softmax(1)
    expected, policy = 0.0, 0.0
    for classes in itertools.product(range(3), repeat=4):
        drawn = torch.tensor(classes)
        log_chance = log_p.gather(1, drawn[:, None]).sum()
        reward = (drawn == target).double().mean()
        expected += log_chance.exp().detach() * reward
        policy += log_chance.exp().detach() * reward * log_chance
    assert_close(soft_accuracy(logits, target).detach(), expected)
    assert_close(*(torch.autograd.grad(y, logits)[0] for y in (soft_accuracy(logits, target), policy)))


def test_sharp_soft_accuracy_is_accuracy():
    logits, target = normal(200, 5), torch.arange(200) % 5
    assert_close(soft_accuracy(1e9 * logits, target), (logits.argmax(1) == target).double().mean())


@LOW
def test_soft_accuracy_in_low_precision(dtype):
    logits, target = normal(4097, 7).to(dtype), torch.arange(4097) % 7
    y = soft_accuracy(logits, target)
    assert y.dtype == dtype
    assert_close(y, soft_accuracy(logits.double(), target).to(dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32], ids=str)
def test_soft_accuracy_takes_other_integers_and_views(dtype):
    logits, target = normal(3, 40).t()[::2], torch.arange(20) % 3
    assert_close(soft_accuracy(logits, target.to(dtype)), soft_accuracy(logits.contiguous(), target))
    assert torch.autograd.gradcheck(lambda x: soft_accuracy(x, target), leaf(logits))


# F1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [1, 2, 37, 400])
def test_soft_f1_of_decisions_is_f1(binary_f1_score, n, seed):
    from sklearn.metrics import f1_score

    decisions, target = (normal(2, n, seed=seed) > 0.3).double()
    ours = soft_f1(decisions, target)
    assert_close(ours.float(), binary_f1_score(decisions, target.long()))
    assert_close(ours.item(), float(f1_score(target.numpy(), decisions.numpy(), zero_division=0)))


def test_soft_f1_and_its_gradient_equal_counts_by_hand():
    prob, target = leaf(normal(3, 7).sigmoid()), normal(3, 7, seed=1) > 0
    hits = misses = false = 0.0
    for p, y in zip(prob.detach().flatten().tolist(), target.flatten().tolist(), strict=True):
        hits, misses, false = hits + p * y, misses + (1 - p) * y, false + p * (1 - y)
    f1 = 2 * hits / (2 * hits + misses + false)
    y = soft_f1(prob, target)
    assert_close(y.item(), f1)
    size = prob.detach().sum() + target.sum()
    assert_close(torch.autograd.grad(y, prob)[0], (2 * target.double() - f1) / size)
    assert torch.autograd.gradcheck(lambda p: soft_f1(p, target), prob)
    assert torch.autograd.gradgradcheck(lambda p: soft_f1(p, target), prob)


def test_gradient_of_soft_f1_at_logits_gives_up_positives_that_are_most_wrong():
    """It has the factor p (1 - p), which cross-entropy has not: that pulls most where p is smallest."""
    logits = leaf(torch.tensor([-8.0, -4.0, 0.0] + 16 * [-4.0]).double())
    target = (torch.arange(19) < 3).double()
    p = logits.sigmoid()
    f1 = soft_f1(p, target)
    (pull,) = torch.autograd.grad(f1, logits, retain_graph=True)
    (direct,) = torch.autograd.grad(f1, p, retain_graph=True)
    assert_close(pull, direct * (p * (1 - p)).detach())
    assert 100 * pull[0] < 5 * pull[1] < pull[2]
    (ce,) = torch.autograd.grad(-F.binary_cross_entropy_with_logits(logits, target), logits)
    assert ce[0] > ce[1] > ce[2]


def test_several_labels_are_pooled_to_micro_f1():
    from sklearn.metrics import f1_score

    decisions, target = (normal(2, 40, 3) + torch.tensor([1.0, 0.0, -1.0]) > 0.3).double()
    pooled = soft_f1(decisions, target).item()
    assert_close(pooled, float(f1_score(target.numpy(), decisions.numpy(), average="micro")))
    labels = [soft_f1(d, t).item() for d, t in zip(decisions.T, target.T, strict=True)]
    macro = sum(labels) / 3
    assert_close(macro, float(f1_score(target.numpy(), decisions.numpy(), average="macro")))
    assert abs(pooled - macro) > 0.01


def test_mean_gradient_of_soft_f1_changes_sign_at_half_of_f1():
    """Label each of 100 equal probabilities in proportion: the push is up if and only if 2 p > F1."""
    prob = torch.arange(1, 100).double().div(100).repeat_interleave(100).requires_grad_()
    target = (torch.arange(100).repeat(99) < (100 * prob).round()).long()
    f1 = soft_f1(prob, target)
    (gradient,) = torch.autograd.grad(f1, prob)
    push = gradient.view(99, 100).mean(1)
    assert torch.equal(push > 0, torch.arange(1, 100).double() / 100 > f1.detach() / 2)


def test_without_positives_soft_f1_and_gradient_are_0_and_smoothing_rewards_empty_predictions():
    prob, target = leaf(torch.full((100,), 0.1, dtype=torch.float64)), torch.zeros(100)
    y = soft_f1(prob, target)
    assert y == 0
    assert torch.autograd.grad(y, prob)[0].abs().max() == 0
    smoothed = (2 * (prob * target).sum() + 1) / (prob.sum() + target.sum() + 1)
    (gradient,) = torch.autograd.grad(smoothed, prob)
    assert_close(gradient, torch.full_like(gradient, -1 / 11**2))
    for n, s in ((100, 1.0), (10_000, 1.0), (100, 0.1)):  # s / (Σ p + s)²
        few = leaf(torch.full((n,), 0.01, dtype=torch.float64))
        (gradient,) = torch.autograd.grad(s / (few.sum() + s), few)
        assert_close(gradient, torch.full_like(gradient, -s / (0.01 * n + s) ** 2))
    nothing = leaf(torch.zeros(4))
    y = soft_f1(nothing, torch.zeros(4))
    assert y == 0
    assert torch.autograd.grad(y, nothing)[0].abs().max() == 0


def test_f1_of_a_whole_is_not_the_mean_of_its_parts():
    prob, target = torch.tensor([0.9, 0.8, 0.1, 0.1]).double(), torch.tensor([1, 1, 0, 1])
    parts = [soft_f1(prob[i : i + 2], target[i : i + 2]) for i in (0, 2)]
    assert abs(soft_f1(prob, target) - sum(parts) / 2) > 0.1


def test_soft_f1_is_not_the_expected_f1_of_drawn_decisions():
    prob, target = torch.tensor([0.5, 0.5]).double(), torch.tensor([1, 0])
    expected = sum(soft_f1(torch.tensor(d).double(), target).item() for d in itertools.product((0, 1), repeat=2)) / 4
    assert_close(expected, (0 + 0 + 1 + 2 / 3) / 4)
    assert_close(soft_f1(prob, target).item(), 0.5)


@LOW
def test_soft_f1_in_low_precision_does_not_overflow(dtype):
    prob = normal(200_000).sigmoid().to(dtype)
    target = normal(200_000, seed=1) > 0
    y = soft_f1(prob, target)
    assert y.dtype == dtype
    assert_close(y, soft_f1(prob.double(), target).to(dtype))


def test_soft_f1_of_views_and_other_label_types():
    prob, target = normal(8, 6).sigmoid().t()[::2], normal(8, 6, seed=1).t()[::2] > 0
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float32):
        assert_close(soft_f1(prob, target.to(dtype)), soft_f1(prob.contiguous(), target.contiguous()))


# The threshold


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("digits", [1, 9], ids=["ties", "no ties"])
def test_threshold_has_the_best_f1_of_sklearns_curve(seed, digits):
    from sklearn.metrics import f1_score, precision_recall_curve

    prob, target = labelled(seed=seed)
    prob = prob.round(decimals=digits)
    threshold, f1 = best_f1_threshold(prob, target)
    precision, recall, _ = precision_recall_curve(target.numpy(), prob.numpy())
    curve = 2 * precision * recall / (precision + recall).clip(min=1e-300)
    assert_close(f1, float(curve.max()))
    assert_close(f1, float(f1_score(target.numpy(), (prob >= threshold).numpy())))


def test_threshold_is_the_largest_of_the_best():
    assert best_f1_threshold(torch.tensor([0.9, 0.6, 0.3]), torch.tensor([1, 0, 0]))[1] == 1.0
    # 1.0 alone has F1 2 · 1 / (1 + 2), and all four have 2 · 2 / (4 + 2)
    prob, target = torch.tensor([1.0, 0.75, 0.5, 0.25]), torch.tensor([1, 0, 0, 1])
    assert best_f1_threshold(prob, target) == (1.0, 2 / 3)


def test_equal_probabilities_are_decided_together():
    assert best_f1_threshold(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([1, 0, 0])) == (0.5, 0.5)


def test_uninformative_probabilities_call_everything_positive():
    """Section on uninformative classifiers of arXiv 1402.1892: F1 is then 2 b / (1 + b) for a share b of positives."""
    target = (torch.arange(1000) % 10 == 0).long()
    threshold, f1 = best_f1_threshold(torch.full((1000,), 0.1), target)
    assert (torch.full((1000,), 0.1) >= threshold).all()
    assert_close(f1, 2 * 0.1 / 1.1)


def test_threshold_of_calibrated_probabilities_is_half_of_the_best_f1():
    """arXiv 1402.1892: exactly, on probabilities j / 100 of each of which j in 100 labels are positive."""
    prob = torch.arange(101).double().div(100).repeat_interleave(100)
    target = (torch.arange(100).repeat(101) < (100 * prob).round()).long()
    threshold, f1 = best_f1_threshold(prob, target)
    assert threshold - 0.01 <= f1 / 2 <= threshold
    # uniform probabilities: t² - 3 t + 1 = 0
    assert abs(f1 / 2 - (3 - math.sqrt(5)) / 2) < 2e-3
    fine = (torch.arange(200_000).double() + 0.5) / 200_000
    expected = 2 * fine.flip(0).cumsum(0) / (torch.arange(1, 200_001) + 100_000.0)
    at = fine.flip(0)[expected.argmax()]
    assert abs(at - expected.max() / 2) < 1e-5
    assert abs(at - (3 - math.sqrt(5)) / 2) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_threshold_reproduces_its_f1_in_low_precision(binary_f1_score, dtype):
    prob, target = labelled()
    prob = prob.to(dtype)
    threshold, f1 = best_f1_threshold(prob.requires_grad_(), target)
    assert_close(soft_f1((prob >= threshold).double(), target).item(), f1)


def test_arguments_are_not_changed():
    prob, target = labelled()
    before = prob.clone(), target.clone()
    best_f1_threshold(prob, target)
    soft_f1(prob, target)
    smooth_max(prob, 0)
    assert torch.equal(prob, before[0])
    assert torch.equal(target, before[1])


def test_hard_metrics_have_no_gradient(binary_f1_score):
    prob, target = labelled()
    prob.requires_grad_()
    assert not binary_f1_score(prob, target).requires_grad
    assert not (prob >= 0.5).double().requires_grad
    assert not prob.argmax().is_floating_point()
    assert soft_f1(prob, target).requires_grad


# Wrong input


@pytest.mark.wrong_input
@pytest.mark.parametrize("function", [smooth_max, soft_argmax])
def test_wrong_entries_dimensions_and_sharpness_are_errors(function):
    x = torch.zeros(2, 3)
    for wrong in (torch.zeros(2, 3).long(), torch.tensor(1.0), [1.0], None):
        with pytest.raises(ValueError, match="floating-point numbers along a dimension"):
            function(wrong, 0)
    for dim in (2, -3, 0.5, None, True):
        with pytest.raises(ValueError, match="dim must be one of the 2 dimensions"):
            function(x, dim)
    with pytest.raises(ValueError, match="must have entries"):
        function(torch.zeros(2, 0), 1)
    for k in (0.0, -1.0, math.inf, math.nan, "1", None, True):
        with pytest.raises(ValueError, match="k must be a positive, finite number"):
            function(x, 1, k=k)


@pytest.mark.wrong_input
def test_wrong_logits_and_classes_are_errors():
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    for wrong in (logits.long(), logits[0], [[1.0]]):
        with pytest.raises(ValueError, match="logits must be"):
            soft_accuracy(wrong, target)
    for wrong in (target.float(), target[:1], target[:, None], [0, 1], target.bool()):
        with pytest.raises(ValueError, match=r"target must be integers of shape \(2,\)"):
            soft_accuracy(logits, wrong)
    for wrong in ([0, 3], [-100, 1], [0, 1, 2, 3, 0]):
        with pytest.raises(ValueError, match="classes must be from 0 to 2"):
            soft_accuracy(torch.zeros(len(wrong), 3), torch.tensor(wrong))
    with pytest.raises(ValueError, match="target must be"):
        soft_accuracy(logits[:0], target[:0])


@pytest.mark.wrong_input
@pytest.mark.parametrize("function", [soft_f1, best_f1_threshold])
def test_wrong_probabilities_and_labels_are_errors(function):
    prob, target = torch.tensor([0.2, 0.7]), torch.tensor([0, 1])
    for wrong in (prob.long(), prob[:0], [0.1], None):
        with pytest.raises(ValueError, match="prob must be floating-point"):
            function(wrong, target)
    for wrong in (target[:, None], target[:1], [0, 1], target.to(torch.complex64)):
        with pytest.raises(ValueError, match=r"target must be labels of the shape of prob, \(2,\)"):
            function(prob, wrong)
    for logits in ([-1.0, 3.0], [0.5, math.nan]):
        with pytest.raises(ValueError, match="apply sigmoid"):
            function(torch.tensor(logits), target)
    for labels in ([1, 2], [-1, 1], [0, 255]):
        with pytest.raises(ValueError, match="must be 0 or 1"):
            function(prob, torch.tensor(labels))


@pytest.mark.wrong_input
def test_no_positive_sample_leaves_no_threshold():
    with pytest.raises(ValueError, match="must have a positive sample"):
        best_f1_threshold(torch.tensor([0.2, 0.7]), torch.tensor([0, 0]))
