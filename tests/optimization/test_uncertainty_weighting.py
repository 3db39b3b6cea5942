"""Weights by uncertainty against torch's distributions, minima found by scipy, and loops from the definitions."""

import copy
import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from tensors import assert_same_both_ways, leaf, normal
from torch import nn
from torch.distributions import Categorical, Laplace, Normal
from torch.testing import assert_close

from zhixing.optimization.uncertainty_weighting import (
    UncertaintyWeights,
    log_of_losses,
    tempered_cross_entropy,
    uncertainty_loss,
)


def positive(*shape, seed=0, dtype=torch.float64):
    return normal(*shape, seed=seed).exp().to(dtype)


def mask(*flags):
    return torch.tensor(flags, dtype=torch.bool)


# Likelihoods


def test_sum_and_gradients_equal_the_likelihood_of_normal_errors():
    def ours(prediction, s, y):
        return uncertainty_loss((prediction - y).square().mean(1), s)

    def theirs(prediction, s, y):
        log_p = Normal(prediction, (s / 2).exp()[:, None]).log_prob(y).mean(1)
        return -log_p.sum() - 3 * 0.5 * math.log(2 * math.pi)

    assert_same_both_ways(ours, theirs, normal(3, 17), normal(3, seed=1), normal(3, 17, seed=2))


def test_twice_the_sum_equals_the_likelihood_of_laplace_errors():
    def ours(prediction, s, y):
        return 2 * uncertainty_loss((prediction - y).abs().mean(1), s)

    def theirs(prediction, s, y):
        return -Laplace(prediction, s.exp()[:, None]).log_prob(y).mean(1).sum() - 3 * math.log(2)

    assert_same_both_ways(ours, theirs, normal(3, 17), normal(3, seed=1), normal(3, 17, seed=2))


def test_tempered_cross_entropy_and_gradients_equal_the_likelihood_of_classes():
    target = torch.tensor([0, 3, 1, 1, 2])

    def theirs(logits, s):
        return -Categorical(logits=logits / s.exp()).log_prob(target).mean()

    for s in (-2.0, 0.0, 3.0):
        s = torch.tensor(s, dtype=torch.float64)
        assert_same_both_ways(lambda f, s: tempered_cross_entropy(f, target, s), theirs, normal(5, 4), s)


def test_equation_10_is_the_cross_entropy_divided_by_the_variance_plus_log_sigma():
    losses, sigma = positive(2), torch.tensor([0.7, 1.9], dtype=torch.float64)
    total = uncertainty_loss(losses, 2 * sigma.log(), classification=mask(False, True))
    expected = losses[0] / (2 * sigma[0] ** 2) + losses[1] / sigma[1] ** 2 + sigma[0].log() + sigma[1].log()
    assert_close(total, expected)


def test_equation_7_for_two_regressions():
    losses, sigma = positive(2), torch.tensor([0.7, 1.9], dtype=torch.float64)
    expected = losses[0] / (2 * sigma[0] ** 2) + losses[1] / (2 * sigma[1] ** 2) + (sigma[0] * sigma[1]).log()
    assert_close(uncertainty_loss(losses, 2 * sigma.log()), expected)


def test_exact_form_is_the_cross_entropy_divided_by_the_variance_plus_a_sum_of_powers():
    """The line of equation 10 before the approximation."""
    logits, target = 3 * normal(50, 6), torch.arange(50) % 6
    p = logits.softmax(1)
    for s in (-1.0, 0.5, 2.0):
        alpha = math.exp(-s)
        second = (p**alpha).sum(1).log().mean()
        exact = tempered_cross_entropy(logits, target, torch.tensor(s, dtype=torch.float64))
        assert_close(exact, alpha * F.cross_entropy(logits, target) + second)
        assert s < 0 or second <= math.log(6)


def test_approximation_agrees_at_s_0_in_value_and_at_an_entropy_of_one_half_in_slope():
    logits, target = normal(40, 5), torch.arange(40) % 5
    s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    exact = tempered_cross_entropy(logits, target, s)
    loss = F.cross_entropy(logits, target)
    approximate = uncertainty_loss(loss[None], s[None], classification=mask(True))
    assert_close(exact, approximate)
    slopes = [torch.autograd.grad(total, s)[0] for total in (exact, approximate)]
    p = logits.softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    assert_close(slopes[0] - slopes[1], entropy - 0.5)


def test_scaled_logits_scale_the_exact_temperature_alone():
    logits, target = normal(300, 4), torch.arange(300) % 4
    found = []
    for factor in (1.0, 3.0):

        def exact(s, factor=factor):
            return tempered_cross_entropy(factor * logits, target, torch.tensor(s, dtype=torch.float64)).item()

        found.append(minimize_scalar(exact, bounds=(-5, 9), method="bounded", options={"xatol": 1e-9}))
    assert math.isclose(found[1].fun, found[0].fun, rel_tol=1e-9)


# Minima


@pytest.mark.parametrize("loss", [1e-6, 0.3, 1.0, 42.0, 1e6])
@pytest.mark.parametrize("classifies", [False, True], ids=["regression", "classification"])
def test_minimum_over_s_lies_at_log_l_or_log_2l(loss, classifies):
    losses = torch.tensor([loss], dtype=torch.float64)

    def total(s):
        s = torch.tensor([s], dtype=torch.float64)
        return uncertainty_loss(losses, s, classification=mask(classifies)).item()

    found = minimize_scalar(total, bounds=(-20, 20), method="bounded", options={"xatol": 1e-9})
    best = 2 * loss if classifies else loss
    assert math.isclose(found.x, math.log(best), abs_tol=1e-4)
    assert math.isclose(found.fun, 0.5 + 0.5 * math.log(best), rel_tol=1e-9, abs_tol=1e-9)


def test_gradient_at_the_minimum_is_that_of_the_log_of_losses():
    """For tasks of both kinds: the factor of a loss changes s, not the gradient."""
    theta = normal(7).requires_grad_()
    losses = torch.stack([(theta - 1).square().mean(), 1000 * theta.exp().mean(), (theta[:3] + 2).abs().mean()])
    expected = torch.autograd.grad(log_of_losses(losses), theta, retain_graph=True)[0]
    for flags in (mask(False, False, False), mask(False, True, True)):
        s = (losses * (1 + flags.double())).log().detach()
        total = uncertainty_loss(losses, s, classification=flags)
        assert_close(torch.autograd.grad(total, theta, retain_graph=True)[0], expected)


def test_gradients_of_other_spellings_agree_if_coefficient_and_exponent_have_one_ratio():
    """a e^{-ks} L + b s has the gradient (b / k) ∇L / L at its minimum over s."""
    theta = normal(5).requires_grad_()
    loss = theta.square().mean()
    for a, k, b in ((0.5, 1, 0.5), (1.0, 1, 0.5), (1.0, 2, 1.0), (0.5, 2, 1.0), (1.0, 1, 1.0)):
        s = (k * a * loss / b).log().detach() / k
        (found,) = torch.autograd.grad(a * torch.exp(-k * s) * loss + b * s, theta)
        loss = theta.square().mean()
        (expected,) = torch.autograd.grad(loss.log(), theta)
        loss = theta.square().mean()
        assert_close(found, b / k * expected)


def test_log_of_losses_equals_a_loop_and_passes_its_gradient():
    assert_same_both_ways(log_of_losses, lambda x: sum(0.5 * torch.log(value) for value in x), positive(5))
    (gradient,) = torch.autograd.grad(log_of_losses(losses := leaf(positive(4))), losses)
    assert_close(gradient, 0.5 / losses.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_log_of_losses_is_blind_to_units(dtype):
    """With a power of two as the factor, not a bit of the gradient changes."""
    theta = normal(9, dtype=dtype).requires_grad_()
    found = []
    for factor in (1.0, 1024.0, 2.0**-20):
        losses = torch.stack([theta.square().mean(), factor * (theta - 1).square().mean()])
        found += torch.autograd.grad(log_of_losses(losses), theta)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_sums_in_place_of_means_do_not_change_the_log_of_losses_but_the_likelihood():
    residuals = leaf(normal(12))
    of_mean, of_sum = residuals.square().mean(), residuals.square().sum()
    gradients = [
        torch.autograd.grad(log_of_losses(loss[None]), residuals, retain_graph=True)[0] for loss in (of_mean, of_sum)
    ]
    assert_close(*gradients)
    sigma2 = of_mean.detach()
    likelihood = -Normal(residuals, sigma2.sqrt()).log_prob(torch.zeros(12, dtype=torch.float64)).sum()
    assert_close(torch.autograd.grad(likelihood, residuals)[0], 12 * gradients[0])


# The sum


@pytest.mark.parametrize("tasks", [0, 1, 2, 7])
def test_sum_and_gradients_equal_a_loop(tasks):
    flags = mask(*(i % 3 == 1 for i in range(tasks)))

    def loop(losses, s):
        total = torch.zeros((), dtype=losses.dtype) + 0 * (losses.sum() + s.sum())
        for loss, log_variance, classifies in zip(losses, s, flags.tolist(), strict=True):
            total = total + loss / log_variance.exp() * (1 if classifies else 0.5) + log_variance / 2
        return total

    inputs = positive(tasks), normal(tasks, seed=1)
    assert_same_both_ways(lambda losses, s: uncertainty_loss(losses, s, classification=flags), loop, *inputs)


def test_functions_pass_gradcheck():
    flags = mask(True, False, True)
    inputs = leaf(positive(3)), leaf(normal(3, seed=1))
    assert torch.autograd.gradcheck(lambda x, s: uncertainty_loss(x, s, classification=flags), inputs)
    assert torch.autograd.gradcheck(log_of_losses, leaf(positive(3)))
    target = torch.tensor([0, 2])
    s = leaf(torch.tensor(0.7, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x, s: tempered_cross_entropy(x, target, s), (leaf(normal(2, 3)), s))


def test_total_may_be_negative_and_is_bounded_where_losses_are():
    losses = torch.tensor([1e-4, 1e-3])
    assert uncertainty_loss(losses, losses.log()) < -6
    assert uncertainty_loss(losses, torch.tensor([-30.0, -30.0])) > 0


def test_strided_losses_are_read_in_order():
    losses, s = positive(6), normal(6, seed=1)
    strided = losses[::2]
    assert not strided.is_contiguous()
    assert_close(uncertainty_loss(strided, s[::2]), uncertainty_loss(strided.clone(), s[::2].clone()))
    assert_close(log_of_losses(strided), log_of_losses(strided.clone()))
    logits = normal(4, 10).mT[::2]
    target, zero = torch.arange(5) % 4, torch.tensor(0.3, dtype=torch.float64)
    assert_close(tempered_cross_entropy(logits, target, zero), tempered_cross_entropy(logits.clone(), target, zero))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_losses_in_low_precision_are_weighted_in_the_precision_of_s(dtype):
    losses = positive(3).to(dtype)
    s = torch.tensor([-12.0, 0.0, 12.0])  # e^12 exceeds float16
    total = uncertainty_loss(losses, s)
    assert total.dtype == torch.float32
    assert_close(total, uncertainty_loss(losses.float(), s))
    assert log_of_losses(losses).dtype == dtype
    assert_close(log_of_losses(losses).double(), log_of_losses(losses.double()), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_logits_in_low_precision_are_tempered_in_their_own(dtype):
    logits, target = normal(8, 5).to(dtype), torch.arange(8) % 5
    half = tempered_cross_entropy(logits, target, torch.tensor(0.5))
    assert_close(
        half.double(), tempered_cross_entropy(logits.double(), target, torch.tensor(0.5)), rtol=0.02, atol=0.02
    )


def test_arguments_are_not_changed():
    losses, s, flags = positive(3), normal(3), mask(True, False, True)
    before = [x.clone() for x in (losses, s, flags)]
    uncertainty_loss(losses, s, classification=flags)
    log_of_losses(losses)
    assert all(torch.equal(x, y) for x, y in zip((losses, s, flags), before, strict=True))


# Misuse


def test_a_perfect_task_has_an_unbounded_weight():
    losses = leaf(torch.tensor([0.0, 1.0]))
    assert log_of_losses(losses) == -math.inf
    assert torch.autograd.grad(log_of_losses(losses), losses)[0].tolist() == [math.inf, 0.5]
    s = torch.tensor([-80.0, 0.0])
    assert uncertainty_loss(losses, s) < -39  # and lower, the lower s is
    floored = torch.autograd.grad(log_of_losses(losses + 0.01), losses)[0]
    assert floored[0] < 51


def test_a_negative_loss_has_no_logarithm():
    assert log_of_losses(torch.tensor([-1.0, 1.0])).isnan()


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_torch_tensor_cuts_the_losses_off_and_torch_stack_does_not():
    theta = leaf(normal(3))
    losses = [theta.square().mean(), (theta - 1).square().mean()]
    assert not log_of_losses(torch.tensor([loss.item() for loss in losses])).requires_grad
    (gradient,) = torch.autograd.grad(log_of_losses(torch.stack(losses)), theta)
    assert (gradient != 0).all()


def test_a_floor_or_an_absolute_value_of_s_gives_all_losses_below_1_one_weight():
    losses = torch.tensor([0.01, 0.5, 100.0], dtype=torch.float64)
    s = torch.linspace(-9, 9, 18_001, dtype=torch.float64)
    for forced in (s.clamp(min=0), s.abs()):
        best = (torch.exp(-forced)[:, None] * losses + forced[:, None]).argmin(0)
        assert_close(torch.exp(-forced[best]), torch.tensor([1.0, 1.0, 0.01], dtype=torch.float64), rtol=1e-3, atol=0)


def test_a_clamped_s_stays_where_it_is_when_the_loss_rises_and_a_floor_of_the_loss_lets_it_follow():
    floor, found = 0.01, []
    for clamped in (True, False):
        s = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([s], lr=0.02)
        for loss in [1e-4] * 800 + [1.0] * 800:
            losses = torch.tensor([loss], dtype=torch.float64)
            optimizer.zero_grad()
            if clamped:
                uncertainty_loss(losses, s.clamp(min=math.log(floor))).backward()
            else:
                uncertainty_loss(losses + floor, s).backward()
            optimizer.step()
        found.append(s.item())
    assert found[0] < math.log(floor)  # for a loss of 1
    assert found[1] > -1


def test_cross_entropy_weighted_as_regression_shifts_s_and_not_the_gradient():
    theta = leaf(normal(4))
    loss = theta.square().mean()[None]
    gradients = []
    for flags, best in ((mask(False), loss), (mask(True), 2 * loss)):
        total = uncertainty_loss(loss, best.detach().log(), classification=flags)
        gradients += torch.autograd.grad(total, theta, retain_graph=True)
    assert_close(*gradients)


# The module


def test_module_learns_s_beside_a_network_and_saves_it_alone():
    total = UncertaintyWeights(3, classification=[False, True, False])
    assert [name for name, _ in total.named_parameters()] == ["log_variances"]
    assert list(total.state_dict()) == ["log_variances"]
    losses = positive(3, dtype=torch.float32)
    optimizer = torch.optim.Adam(total.parameters(), lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
    expected = (losses * torch.tensor([1.0, 2.0, 1.0])).log()
    assert_close(total.log_variances.detach(), expected, rtol=1e-3, atol=1e-3)
    assert_close(total(losses), uncertainty_loss(losses, expected, classification=total.classification))


def test_module_starts_at_s_0_and_moves_as_a_whole():
    total = UncertaintyWeights(2, classification=(True, False)).double()
    twin = copy.deepcopy(total)
    assert total.log_variances.tolist() == [0.0, 0.0]
    assert total.log_variances.dtype == torch.float64
    assert_close(
        total(positive(2)), uncertainty_loss(positive(2), twin.log_variances, classification=mask(True, False))
    )


def test_s_outside_the_optimiser_stays_where_it_is():
    network, total = nn.Linear(2, 2).double(), UncertaintyWeights(2).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    total(network(normal(5, 2)).square().mean(0)).backward()
    optimizer.step()
    assert total.log_variances.tolist() == [0.0, 0.0]
    assert (total.log_variances.grad != 0).all()  # the gradient is there, and nobody takes it


def test_weight_decay_pulls_s_towards_0():
    found = []
    for weight_decay in (0.0, 1.0):
        total = UncertaintyWeights(1).double()
        optimizer = torch.optim.AdamW(total.parameters(), lr=0.05, weight_decay=weight_decay)
        for _ in range(600):
            optimizer.zero_grad()
            total(torch.tensor([10.0], dtype=torch.float64)).backward()
            optimizer.step()
        found.append(total.log_variances.item())
    assert found[0] > math.log(10) - 0.1
    assert found[1] < math.log(10) - 0.5


# Wrong input


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("losses", "match"),
    [
        ([1.0, 2.0], "losses must be a tensor .T,., as of torch.stack, but is a list"),
        (1.0, "but is a float"),
        (numpy.ones(2), "but is a ndarray"),
        (torch.ones(2, 2), r"but is \(2, 2\)"),
        (torch.tensor(1.0), r"but is \(\)"),
        (torch.ones(2, dtype=torch.int64), "losses must be a floating-point tensor, but is torch.int64"),
    ],
    ids=["list", "number", "numpy", "matrix", "scalar", "integers"],
)
def test_losses_of_other_kinds_are_an_error(losses, match):
    for function in (log_of_losses, UncertaintyWeights(2), lambda losses: uncertainty_loss(losses, torch.zeros(2))):
        with pytest.raises(ValueError, match=match):
            function(losses)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("s", "flags", "match"),
    [
        (torch.zeros(3), None, r"log_variances must have shape \(2,\), but has \(3,\)"),
        (torch.zeros(()), None, r"log_variances must have shape \(2,\), but has \(\)"),
        (torch.zeros(1), None, r"log_variances must have shape \(2,\), but has \(1,\)"),
        ([0.0, 0.0], None, "log_variances must be a floating-point tensor, but is a list"),
        (torch.zeros(2, dtype=torch.int64), None, "log_variances must be a floating-point tensor, but is torch.int64"),
        (torch.zeros(2), [True, False], "classification must be a tensor of bool, not .True, False."),
        (torch.zeros(2), torch.zeros(2), "classification must be a tensor of bool"),
        (torch.zeros(2), mask(True), r"classification has shape \(1,\), but losses \(2,\)"),
    ],
    ids=["too many", "scalar", "one", "list", "integers", "list of flags", "floats", "one flag"],
)
def test_variances_and_flags_that_do_not_fit_are_an_error(s, flags, match):
    with pytest.raises(ValueError, match=match):
        uncertainty_loss(torch.ones(2), s, classification=flags)


@pytest.mark.wrong_input
@pytest.mark.parametrize("tasks", [0, -1, 2.0, "2", None, True], ids=str)
def test_a_number_of_tasks_that_is_none_is_an_error(tasks):
    with pytest.raises(ValueError, match="tasks must be a positive integer, but is"):
        UncertaintyWeights(tasks)


@pytest.mark.wrong_input
@pytest.mark.parametrize("flags", [[True], [True, False, True], [0, 1], "ab", True, []], ids=str)
def test_flags_that_are_not_one_a_task_are_an_error(flags):
    with pytest.raises(ValueError, match="classification must be 2 booleans, but is"):
        UncertaintyWeights(2, classification=flags)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("logits", "target", "s", "match"),
    [
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64), torch.zeros(()), r"logits must be \(N, K\)"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), torch.zeros(()), r"with neither 0, but are \(0, 3\)"),
        ([[0.0]], torch.zeros(1, dtype=torch.int64), torch.zeros(()), r"logits must be \(N, K\)"),
        (
            torch.zeros(2, 3, dtype=torch.int64),
            torch.zeros(2, dtype=torch.int64),
            torch.zeros(()),
            "logits must be a fl",
        ),
        (
            torch.zeros(2, 3),
            torch.zeros(3, dtype=torch.int64),
            torch.zeros(()),
            r"target must have shape \(2,\), but has",
        ),
        (
            torch.zeros(2, 3),
            torch.zeros(1, dtype=torch.int64),
            torch.zeros(()),
            r"target must have shape \(2,\), but has \(1,\)",
        ),
        (torch.zeros(2, 3), torch.zeros(2), torch.zeros(()), "target must be a tensor of int64"),
        (torch.zeros(2, 3), [0, 1], torch.zeros(()), "target must be a tensor of int64"),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.zeros(1), r"log_variance must have shape \(\)"),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), 0.0, "log_variance must be a floating-point tensor"),
    ],
    ids=[
        "one axis",
        "empty",
        "list",
        "integers",
        "targets",
        "one target",
        "float targets",
        "list of targets",
        "variances",
        "number",
    ],
)
def test_arguments_of_the_tempered_cross_entropy_that_do_not_fit_are_an_error(logits, target, s, match):
    with pytest.raises(ValueError, match=match):
        tempered_cross_entropy(logits, target, s)
