"""Stochastic approximation against torch's optimisers and averages, NumPy's quantiles, and exact variances."""

import math

import numpy
import pytest
import torch
from tensors import assert_same_both_ways, leaf, normal
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close

from zhixing.optimization.stochastic_approximation import (
    polyak_average,
    power_steps,
    quantile_step,
    robbins_monro,
)

SHAPES = {"scalar": (), "vector": (7,), "matrix": (3, 5), "one element": (1,), "empty": (0, 4)}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def signs(*shape, seed=0):
    """Return -1 and 1 with equal probability: noise of mean 0 and variance 1."""
    return 2 * torch.randint(2, shape, generator=torch.Generator().manual_seed(seed)).double() - 1


def expected_error(steps, lam, start, noise=1.0):
    """Return E[x²] of the linear recursion after each step, and that of the running mean, from matrices."""
    n = len(steps)
    mean, sums = torch.zeros(n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    for k in range(n):  # x_k as a sum over the noise of each step
        factor = 1 - steps[k] * lam
        mean[k] = factor * (mean[k - 1] if k else start)
        if k:
            sums[k] = factor * sums[k - 1]
        sums[k, k] = -steps[k]
    means, averages = (x.cumsum(0) / torch.arange(1, n + 1).view(-1, *[1] * (x.ndim - 1)) for x in (mean, sums))
    return (
        mean**2 + noise**2 * sums.square().sum(1),
        means**2 + noise**2 * averages.square().sum(1),
    )


# Robbins–Monro


@shapes
def test_iterates_are_those_of_sgd_with_a_learning_rate_for_each_step(shape):
    target, steps = normal(*shape, seed=1), power_steps(20, a=0.1, alpha=0.6)
    noise = normal(20, *shape, seed=2)
    theta = leaf(normal(*shape))
    optimizer = torch.optim.SGD([theta], lr=1.0)
    expected = [theta.detach().clone()]
    for a, e in zip(steps, noise, strict=True):
        optimizer.zero_grad()
        ((theta - target) ** 4 / 4 + e * theta).sum().backward()
        optimizer.param_groups[0]["lr"] = a.item()
        optimizer.step()
        expected.append(theta.detach().clone())
    draws = iter(noise)
    xs = robbins_monro(lambda x: (x - target) ** 3 + next(draws), normal(*shape), steps)
    assert xs.shape == (21, *shape)
    assert_close(xs, torch.stack(expected))


def loop(target, x0, steps):
    x = x0
    for k in range(len(steps)):
        x = x - steps[k] * (torch.tanh(x) - target[k])
    return x


@shapes
def test_gradients_with_respect_to_observations_start_and_steps_match_a_loop(shape):
    def ours(target, x0, steps):
        draws = iter(target)
        return robbins_monro(lambda x: torch.tanh(x) - next(draws), x0, steps)[-1]

    assert_same_both_ways(ours, loop, normal(9, *shape), normal(*shape, seed=1), power_steps(9, alpha=0.5))


def test_gradcheck():
    target = normal(4, 3)

    def last(x0, steps):
        draws = iter(target)
        return robbins_monro(lambda x: torch.tanh(x) - next(draws), x0, steps)

    assert torch.autograd.gradcheck(last, (leaf(normal(3, seed=1)), leaf(power_steps(4))))
    assert torch.autograd.gradcheck(polyak_average, leaf(normal(5, 3)))


def test_step_1_over_n_gives_the_sample_means_whatever_the_start():
    y = normal(50, 4)
    for start in (0.0, 1e6):
        draws = iter(y)
        xs = robbins_monro(lambda x, draws=draws: x - next(draws), torch.full((4,), start).double(), power_steps(50))
        assert_close(xs[1:], torch.stack([y[:k].mean(0) for k in range(1, 51)]))


def test_constant_step_equals_torchs_exponential_moving_average():
    y = normal(30, 4)
    model = nn.Linear(4, 1, bias=False).double()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for row in torch.cat([torch.zeros(1, 4), y]):
        model.weight.data[0] = row
        average.update_parameters(model)
    draws = iter(y)
    xs = robbins_monro(lambda x: x - next(draws), torch.zeros(4).double(), power_steps(30, a=0.1, alpha=0))
    assert_close(xs[-1], average.module.weight.detach()[0])


@pytest.mark.parametrize("a", [0.6, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("lam", [1.0, 2.5])
def test_step_a_over_n_has_the_variance_of_chung_and_fabian(a, lam):
    steps = power_steps(1200, a=a / lam)
    error, _ = expected_error(steps.tolist(), lam, start=0.0)
    expected = (a / lam) ** 2 / (2 * a - 1)
    # The correction to the limit falls with n^(1 - 2a): slowest for a = 0.6, as n^(-0.2).
    gap = 0.25 if a == 0.6 else 0.01
    assert abs(1200 * error[-1] / expected - 1) < gap


@pytest.mark.parametrize(("a", "exponent"), [(0.05, 0.1), (0.25, 0.5), (0.4, 0.8)])
def test_too_small_a_step_a_over_n_is_slower_than_1_over_n(a, exponent):
    error, _ = expected_error(power_steps(1200, a=a).tolist(), 1.0, start=10.0)
    found = math.log(error[299] / error[1199]) / math.log(4)
    assert abs(found - exponent) < 0.02


def test_noise_free_error_of_step_a_over_n_is_a_ratio_of_gamma_functions():
    # The loss x² / 10 with a = 1, from 1: the product of 1 - 1 / (5k).
    x = robbins_monro(lambda x: x / 5, torch.tensor(1.0, dtype=torch.float64), power_steps(3000))[-1]
    assert_close(x.item(), math.exp(math.lgamma(3000.8) - math.lgamma(3001) - math.lgamma(0.8)))
    assert robbins_monro(lambda x: x / 5, torch.tensor(1.0), power_steps(1, a=5.0))[-1] == 0


@pytest.mark.parametrize("lam", [1.0, 0.3])
@pytest.mark.parametrize("a", [0.1, 0.5, 1.0])
def test_constant_step_settles_at_a_over_lambda_times_2_minus_a_lambda(a, lam):
    error, _ = expected_error([a] * 400, lam, start=3.0)
    assert_close(error[-1].item(), a / (lam * (2 - a * lam)), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("a", "lam"), [(1.0, 1.0), (0.3, 1.0), (1.0, 0.5), (2.0, 0.5)])
def test_average_reaches_sigma2_over_n_lambda2_for_any_a(a, lam):
    _, error = expected_error(power_steps(1200, a=a, alpha=0.6).tolist(), lam, start=0.0)
    assert 0.99 < 1200 * lam**2 * error[-1] < 1.15


@pytest.mark.parametrize(("alpha", "a"), [(1.0, 1.0), (0.6, 1.0), (0.0, 0.1)])
def test_simulated_errors_are_the_exact_ones(alpha, a):
    noise = signs(300, 4000)
    steps = power_steps(300, a=a, alpha=alpha)
    draws = iter(noise)
    xs = robbins_monro(lambda x: 0.7 * x + next(draws), torch.full((4000,), 2.0).double(), steps)[1:]
    last, mean = expected_error(steps.tolist(), 0.7, start=2.0)
    for k in (9, 99, 299):  # the standard error is 2 % to 3 %
        assert_close(xs[k].square().mean(), last[k], rtol=0.12, atol=0)
        assert_close(polyak_average(xs)[k].square().mean(), mean[k], rtol=0.12, atol=0)


def test_steps_with_a_finite_sum_stop_short():
    steps = power_steps(4000, a=0.5, alpha=2.0)
    x = robbins_monro(lambda x: x, torch.tensor(1.0, dtype=torch.float64), steps)[-1]
    # The product of 1 - z² / k² is sin(πz) / πz, with z² = 1/2.
    z = math.sqrt(0.5)
    assert_close(x.item(), math.sin(math.pi * z) / (math.pi * z), rtol=1e-3, atol=0)


def test_cubic_from_2_explodes_and_a_projection_cures_it():
    start = torch.tensor(2.0, dtype=torch.float64)
    assert not robbins_monro(lambda x: x**3, start, power_steps(20))[-1].isfinite()
    assert robbins_monro(lambda x: x.clamp(-1, 1) ** 3, start, power_steps(2000))[-1].abs() < 0.4
    assert robbins_monro(lambda x: (x**3).clamp(-1, 1), start, power_steps(2000))[-1].abs() < 0.4


def test_sign_turned_round_runs_away_from_the_root():
    xs = robbins_monro(lambda x: -x, torch.tensor(1.0), power_steps(50))
    assert xs[-1] > 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_type_follows_the_start_and_not_the_steps(dtype):
    noise = normal(20, 5, seed=3)

    def end(dtype):
        draws = iter(noise.to(dtype))
        return robbins_monro(lambda x: x - next(draws), normal(5).to(dtype), power_steps(20))[-1]

    found = end(dtype)
    assert found.dtype == dtype

    x = normal(5).to(dtype)
    for k, y in enumerate(noise.to(dtype), 1):
        x = x - (x - y) / k
    exact = noise.mean(0)
    assert (found - exact).abs().max() <= 2 * (x - exact).abs().max() + torch.finfo(dtype).eps


def test_no_steps_give_the_start_and_nothing_is_changed():
    x0, steps = normal(3), power_steps(5)
    before = x0.clone(), steps.clone()
    assert_close(robbins_monro(lambda x: x, x0, power_steps(0)), x0[None])
    robbins_monro(lambda x: x, x0, steps).zero_()
    assert torch.equal(x0, before[0])
    assert torch.equal(steps, before[1])


def test_noncontiguous_start_and_steps():
    x0, steps = normal(5, 3).T, power_steps(20)[::2]
    assert_close(robbins_monro(torch.tanh, x0, steps), robbins_monro(torch.tanh, x0.contiguous(), steps.contiguous()))


@pytest.mark.wrong_input
def test_observation_that_would_broadcast_is_an_error():
    x0 = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"must be \(3,\) of torch.float64 like x, but is \(3, 1\)"):
        robbins_monro(lambda x: x[:, None], x0, power_steps(2))
    with pytest.raises(ValueError, match=r"but is \(\) of"):
        robbins_monro(lambda x: x.mean(), x0, power_steps(2))
    with pytest.raises(ValueError, match=r"but is \(3,\) of torch.float32"):
        robbins_monro(lambda x: x.float(), x0, power_steps(2))
    with pytest.raises(ValueError, match="but is float"):
        robbins_monro(lambda x: 0.5, x0, power_steps(2))


@pytest.mark.wrong_input
def test_wrong_starts_and_steps_are_errors():
    x0 = torch.zeros(3)
    for wrong, what in ((torch.zeros(3, dtype=torch.int64), "torch.int64"), (0.0, "a float")):
        with pytest.raises(ValueError, match=f"x0 must be a floating-point tensor, but is {what}"):
            robbins_monro(lambda x: x, wrong, power_steps(2))
    with pytest.raises(ValueError, match="steps must be a floating-point tensor, but is a float"):
        robbins_monro(lambda x: x, x0, 0.1)
    with pytest.raises(ValueError, match=r"one dimension, but their shape is \(2, 1\)"):
        robbins_monro(lambda x: x, x0, power_steps(2)[:, None])
    for step in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite and not negative"):
            robbins_monro(lambda x: x, x0, torch.tensor([0.1, step]))


# Steps


def test_steps_are_a_over_k_to_the_alpha():
    assert power_steps(3).tolist() == [1, 1 / 2, 1 / 3]
    assert_close(power_steps(4, a=3.0, alpha=0.5), 3 / torch.tensor([1, 2, 3, 4]).double().sqrt())
    assert power_steps(3, a=0.1, alpha=0).tolist() == [0.1, 0.1, 0.1]
    assert power_steps(0).shape == (0,)
    assert power_steps(2).dtype == torch.float64


@pytest.mark.wrong_input
def test_wrong_numbers_for_steps_are_errors():
    for n in (-1, 2.0, "3"):
        with pytest.raises(ValueError, match="n must be an integer of at least 0"):
            power_steps(n)
    for a in (0.0, -1.0, math.inf, math.nan, "1"):
        with pytest.raises(ValueError, match="a must be positive and finite"):
            power_steps(3, a=a)
    for alpha in (-0.5, math.inf, math.nan):
        with pytest.raises(ValueError, match="alpha must be finite and not negative"):
            power_steps(3, alpha=alpha)


# Averages


@shapes
def test_average_matches_means_of_slices_with_gradients(shape):
    def theirs(xs):
        return torch.stack([xs[: k + 1].mean(0) for k in range(len(xs))])

    assert_same_both_ways(polyak_average, theirs, normal(9, *shape))


def test_average_equals_torchs_averaged_model():
    xs = normal(40, 6)
    model = nn.Linear(6, 1, bias=False).double()
    average = AveragedModel(model)
    for k, row in enumerate(xs):
        model.weight.data[0] = row
        average.update_parameters(model)
        assert_close(polyak_average(xs)[k], average.module.weight.detach()[0])


def test_average_equals_the_running_mean_of_batch_norm_without_momentum():
    xs = normal(12, 8, 3)  # batches of 8
    layer = nn.BatchNorm1d(3, momentum=None).double()
    for batch in xs:
        layer(batch)
    assert_close(polyak_average(xs.mean(1))[-1], layer.running_mean)
    assert_close(polyak_average(xs.var(1))[-1], layer.running_var)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_averages_are_summed_in_float32(dtype):
    xs = 300 + normal(2000, 3)
    half = xs.to(dtype)
    found = polyak_average(half)
    assert found.dtype == dtype
    assert_close(found, polyak_average(half.double()).to(dtype), rtol=torch.finfo(dtype).eps, atol=0)
    assert not half.cumsum(0)[-1].isfinite().all() or dtype == torch.bfloat16  # 600,000 in float16


def test_average_of_noncontiguous_and_of_no_iterates():
    xs = normal(3, 8).T
    assert_close(polyak_average(xs), polyak_average(xs.contiguous()))
    assert polyak_average(torch.zeros(0, 3)).shape == (0, 3)


def test_average_that_includes_the_start_is_off_by_it():
    xs = torch.tensor([100.0, 0.0, 0.0, 0.0])
    assert polyak_average(xs)[-1] == 25
    assert polyak_average(xs[1:])[-1] == 0


@pytest.mark.wrong_input
def test_wrong_iterates_are_errors():
    with pytest.raises(ValueError, match=r"floating-point tensor, but is torch\.int64"):
        polyak_average(torch.arange(3))
    with pytest.raises(ValueError, match="has no dimension"):
        polyak_average(torch.tensor(1.0))
    with pytest.raises(ValueError, match="but is a list"):
        polyak_average([1.0, 2.0])


# Quantiles


@shapes
def test_quantile_step_is_a_robbins_monro_step(shape):
    q, y, level = normal(*shape), normal(*shape, seed=1), 0.3
    expected = robbins_monro(lambda q: (y <= q).double() - level, q, torch.tensor([0.2], dtype=torch.float64))[1]
    assert_close(quantile_step(q, y, level, 0.2), expected)
    assert_close(quantile_step(q, q, level, 0.2), q - 0.2 * 0.7)  # a tie counts as below


def test_quantile_step_minimises_the_pinball_loss_by_its_gradient():
    q, y = leaf(normal(20)), normal(20, seed=1)
    level = torch.linspace(0.05, 0.95, 20, dtype=torch.float64)
    torch.maximum(level * (y - q), (level - 1) * (y - q)).sum().backward()
    assert_close(quantile_step(q.detach(), y, level, 0.1), q.detach() - 0.1 * q.grad)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_averaged_steps_find_the_quantile_of_numpy(level):
    y = normal(4000, 50)
    q, qs = torch.zeros(50, dtype=torch.float64), []
    for k, row in enumerate(y, 1):
        q = quantile_step(q, row, level, 2 / k**0.6)
        qs.append(q)
    expected = torch.tensor(numpy.quantile(y.numpy(), level, axis=0))
    assert (polyak_average(torch.stack(qs))[-1] - expected).abs().max() < 0.1


def test_median_of_normal_values_has_the_variance_pi_over_2n():
    y = normal(1000, 2000)
    q = mean = torch.zeros(2000, dtype=torch.float64)
    for k, row in enumerate(y, 1):
        q = quantile_step(q, row, 0.5, 2 / k**0.6)
        mean = mean + (q - mean) / k
    for estimate in (mean, y.quantile(0.5, 0)):  # the standard error of each is 3 %
        assert abs(1000 * estimate.square().mean() / (math.pi / 2) - 1) < 0.2


def test_gradients_of_a_quantile_step():
    q, y, level, step = (
        leaf(normal(6)),
        leaf(normal(6, seed=1)),
        leaf(torch.full((6,), 0.3).double()),
        leaf(torch.tensor(0.2).double()),
    )
    out = quantile_step(q, y, level, step)
    below = (y <= q).double()
    gq, glevel, gstep = torch.autograd.grad(out.sum(), (q, level, step))
    assert_close(gq, torch.ones(6).double())
    assert_close(glevel, torch.full((6,), 0.2).double())
    assert_close(gstep, (0.3 - below).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_quantile_step_keeps_the_type_and_resists_outliers_and_nan(dtype):
    q = torch.zeros(4, dtype=dtype)
    y = torch.tensor([1.0, 6e4, math.inf, math.nan], dtype=dtype)
    out = quantile_step(q, y, 0.5, torch.tensor(0.25, dtype=torch.float64))
    assert out.dtype == dtype
    assert out.tolist() == [0.125] * 4
    assert quantile_step(q, -y.nan_to_num(), 0.5, 0.25).tolist() == [-0.125] * 4


@pytest.mark.wrong_input
def test_wrong_quantiles_are_errors():
    q = torch.zeros(3)
    with pytest.raises(ValueError, match=r"one shape, but have \(3,\), \(3, 1\)"):
        quantile_step(q, q[:, None], 0.5, 0.1)
    with pytest.raises(ValueError, match=r"one shape, but have \(3,\), \(1,\)"):
        quantile_step(q, q[:1], 0.5, 0.1)
    for level in (0.0, 1.0, 50, math.nan):
        with pytest.raises(ValueError, match="level must be between 0 and 1"):
            quantile_step(q, q, level, 0.1)
    with pytest.raises(ValueError, match="step must not be negative"):
        quantile_step(q, q, 0.5, -0.1)
    with pytest.raises(ValueError, match="y must be a floating-point tensor"):
        quantile_step(q, torch.zeros(3, dtype=torch.bool), 0.5, 0.1)


# What the page says of torch


def test_asgd_at_t0_0_leaves_out_the_first_iterate_and_never_moves_the_parameter_to_the_average():
    def end(**settings):
        theta = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.ASGD([theta], lr=1.0, **settings)
        for _ in range(4):
            theta.grad = torch.ones(1)
            optimizer.step()
        return theta.item(), optimizer.state[theta]["ax"].item()

    theta, average = end(t0=0, lambd=0.0)
    assert theta == -4  # not the average, whatever that is
    assert average in (-3.0, -2.5)  # without the first iterate, or once torch includes it
    theta, average = end()
    assert theta == average
