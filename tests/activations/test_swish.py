"""Swish against torch's SiLU, against mpmath and scipy, and against the papers' numbers."""

import math
import re

import mpmath
import numpy
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, lambertw
from torch.testing import assert_close

from zhixing.activations.gelu import gelu_sigmoid
from zhixing.activations.swish import LAMBERT_W, swish, swish_derivative, swish_minimum

INPUTS = {
    "grid": torch.linspace(-5, 5, 1001, dtype=torch.float64),
    "empty": torch.empty(0, 3, dtype=torch.float64),
    "scalar": torch.tensor(0.3, dtype=torch.float64),
    "transposed": torch.linspace(-3, 3, 35, dtype=torch.float64).reshape(5, 7).T,
    "large": torch.tensor([-1e30, -1e4, -50.0, 50.0, 1e4, 1e30], dtype=torch.float64),
}
BETAS = pytest.mark.parametrize("beta", [-1.5, 0.0, 0.25, 1.0, 1.702, 8.0])
FUNCTIONS = pytest.mark.parametrize("function", [swish, swish_derivative], ids=lambda function: function.__name__)
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def by_silu(x: torch.Tensor, beta: float) -> torch.Tensor:
    return F.silu(beta * x) / beta if beta else x / 2


def derivative_of_silu(x: torch.Tensor, beta: float = 1.0) -> torch.Tensor:
    leaf = x.clone().requires_grad_()
    by_silu(leaf, beta).sum().backward()
    return leaf.grad


@BETAS
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_value_and_gradient_equal_rescaled_silu(x, beta):
    leaf = x.clone().requires_grad_()
    swish(leaf, beta=beta).sum().backward()
    assert_close(swish(x, beta=beta), by_silu(x, beta))
    assert_close(leaf.grad, derivative_of_silu(x, beta))


@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_default_is_silu(x):
    assert_close(swish(x), F.silu(x))
    assert_close(swish_derivative(x), derivative_of_silu(x))


@BETAS
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_derivative_equals_autograd_of_rescaled_silu(x, beta):
    assert_close(swish_derivative(x, beta=beta), derivative_of_silu(x, beta))


def test_derivative_of_derivative_equals_double_autograd_of_silu():
    x = torch.linspace(-6, 6, 81, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(F.silu(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    (ours,) = torch.autograd.grad(swish_derivative(x).sum(), x)
    assert_close(ours, curvature)


@FUNCTIONS
def test_first_and_second_derivative_in_x_and_beta_pass_gradcheck(function):
    x = torch.linspace(-4, 4, 24, dtype=torch.float64).reshape(2, 3, 4).requires_grad_()
    for shape in ((), (1,), (3, 1), (2, 1, 4), (2, 3, 4)):
        beta = torch.linspace(-1, 2, math.prod(shape), dtype=torch.float64).reshape(shape).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, beta: function(x, beta=beta), (x, beta))
        assert torch.autograd.gradgradcheck(lambda x, beta: function(x, beta=beta), (x, beta))


def test_gradient_in_beta_is_summed_over_what_it_was_broadcast_along():
    x = torch.linspace(-4, 4, 24, dtype=torch.float64).reshape(2, 3, 2, 2)
    beta = torch.tensor([-0.5, 0.3, 2.0], dtype=torch.float64).reshape(3, 1, 1).requires_grad_()
    swish(x, beta=beta).sum().backward()
    for channel in range(3):
        # In β, x σ(β x) has the derivative x² σ(β x) σ(-β x).
        values, steepness = x[:, channel].numpy(), beta[channel].item()
        expected = (values**2 * expit(steepness * values) * expit(-steepness * values)).sum()
        assert_close(beta.grad[channel].item(), expected)


@FUNCTIONS
def test_beta_without_trailing_ones_goes_along_the_last_dimension(function):
    x = torch.linspace(-4, 4, 2 * 3 * 5 * 3).reshape(2, 3, 5, 3)
    beta = torch.tensor([-0.5, 0.3, 2.0])
    for each in range(3):
        assert_close(function(x, beta=beta)[..., each], function(x[..., each], beta=beta[each]))
        along_channels = function(x, beta=beta.reshape(3, 1, 1))
        assert_close(along_channels[:, each], function(x[:, each], beta=beta[each]))


@FUNCTIONS
def test_beta_as_a_tensor_equals_beta_as_a_number(function):
    x = torch.linspace(-5, 5, 101)
    for beta in (-1.5, 0.0, 1.702):
        assert_close(function(x, beta=torch.tensor(beta)), function(x, beta=beta))
        assert_close(function(x, beta=torch.full_like(x, beta)), function(x, beta=beta))


@FUNCTIONS
def test_keeps_type_and_shape_of_x_whatever_the_type_of_beta(function):
    for of_x in (torch.float16, torch.float32, torch.float64):
        for of_beta in (torch.bfloat16, torch.float32, torch.float64):
            x = torch.ones(2, 3, dtype=of_x)
            y = function(x, beta=torch.ones(3, dtype=of_beta))
            assert (y.dtype, y.shape) == (x.dtype, x.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@FUNCTIONS
def test_both_tails_keep_relative_accuracy(function, dtype):
    def exact(x):
        gate = 1 / (1 + mpmath.exp(-x))
        return x * gate if function is swish else gate * (1 + x * (1 - gate))

    end = 87 if dtype == torch.float32 else 708
    # Without the neighbourhood of the minimum, where the derivative is 0.
    x = torch.cat([torch.linspace(*ends, 200, dtype=dtype) for ends in ((-end, -2), (0, end), (0, 40))])
    x = x[x != 0]
    for at, ours in zip(x.tolist(), function(x).tolist(), strict=True):
        with mpmath.workdps(400):
            error = abs(ours / exact(mpmath.mpf(at)) - 1)
        assert error < 4 * torch.finfo(dtype).eps, f"relative error {float(error):.1e} at {at}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_gradient_in_the_left_tail_is_finite_and_equals_the_derivative(dtype):
    x = torch.tensor([-5.0, -10.0, -12.0, -60.0, -90.0, -750.0, -1e4], dtype=dtype, requires_grad=True)
    swish(x).sum().backward()
    limits = torch.finfo(dtype)
    assert_close(x.grad, swish_derivative(x.detach()), rtol=limits.eps, atol=limits.smallest_normal)
    assert_close(x.grad.double(), derivative_of_silu(x.detach().double()).to(dtype).double())


@FUNCTIONS
@HALVES
def test_low_precision_error_is_at_most_twice_eagers(function, dtype):
    x = torch.linspace(-8, 8, 1601).to(dtype)
    eagers = {swish: F.silu, swish_derivative: derivative_of_silu}[function]
    exact = eagers(x.double())
    assert function(x).dtype == dtype
    assert (function(x).double() - exact).abs().max() <= 2 * (eagers(x).double() - exact).abs().max()


@FUNCTIONS
@HALVES
def test_every_low_precision_value_is_the_rounded_exact_one(function, dtype):
    # All of them but the last stretch of bfloat16's tail, where exp overflows in float32.
    x = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    x = x[x.isfinite() & (x > -88)]
    exact = {swish: F.silu, swish_derivative: derivative_of_silu}[function](x.double()).to(dtype)
    limits = torch.finfo(dtype)
    assert_close(function(x), exact, rtol=limits.eps, atol=limits.smallest_normal * limits.eps)


def test_infinities_are_as_documented():
    infinite = torch.tensor([-math.inf, math.inf])
    same = {"equal_nan": True, "rtol": 0, "atol": 0}
    assert_close(swish(infinite), torch.tensor([math.nan, math.inf]), **same)
    assert_close(swish(infinite, beta=-1.0), torch.tensor([-math.inf, math.nan]), **same)
    assert_close(swish(infinite, beta=0.0), torch.tensor([math.nan, math.nan]), **same)
    for beta in (-1.0, 0.0, 1.0):
        assert swish_derivative(infinite, beta=beta).isnan().all()


@pytest.mark.parametrize(("dtype", "last", "gone"), [(torch.float32, -87, -110), (torch.float64, -708, -760)], ids=str)
def test_tail_goes_to_zero_where_documented(dtype, last, gone):
    """At `last` the sigmoid is a normal number, at `gone` its product with x is less than half the smallest one."""
    x = torch.tensor([last, gone] * 8, dtype=dtype)
    assert_close(swish(x) == 0, torch.tensor([False, True] * 8))
    # Between them a library may round to 0 at once, or to ever fewer digits.
    between = torch.linspace(gone, last, 101, dtype=dtype)
    assert (swish(between) <= 0).all()
    assert (swish(between) >= last * 2 * torch.finfo(dtype).smallest_normal).all()
    # β x decides, and a product that overflows counts as well.
    assert_close(swish(x / 4, beta=4.0) == 0, torch.tensor([False, True] * 8))
    assert swish(torch.tensor(-1e30), beta=1e30) == 0


def test_beta_zero_is_half_the_input():
    x = torch.linspace(-8, 8, 161, dtype=torch.float64)
    assert_close(swish(x, beta=0.0), x / 2)
    assert_close(swish_derivative(x, beta=0.0), torch.full_like(x, 0.5))


def test_beta_is_a_zoom():
    x = torch.linspace(-8, 8, 161, dtype=torch.float64)
    for beta in (0.3, 1.702, 7.0):
        assert_close(swish(x, beta=beta), swish(beta * x) / beta)


def test_negative_beta_is_the_point_reflection():
    x = torch.linspace(-8, 8, 161, dtype=torch.float64)
    for beta in (0.3, 1.702, 7.0):
        assert_close(swish(x, beta=-beta), -swish(-x, beta=beta))
        assert_close(swish(x, beta=-beta), x - swish(x, beta=beta))


def test_differs_from_its_mirror_image_by_the_identity():
    x = torch.linspace(-8, 8, 161, dtype=torch.float64)
    assert_close(swish(x) - swish(-x), x)
    assert_close(swish_derivative(x) + swish_derivative(-x), torch.ones_like(x))


def test_beta_1_702_is_the_sigmoid_form_of_gelu():
    x = torch.linspace(-8, 8, 161, dtype=torch.float64)
    assert_close(swish(x, beta=1.702), gelu_sigmoid(x))


def test_constant_is_the_float_nearest_to_lambert_w():
    with mpmath.workdps(40):
        assert float(mpmath.lambertw(mpmath.exp(-1))) == LAMBERT_W


@pytest.mark.parametrize("beta", [0.1, 1.0, 1.702, 25.0])
def test_minimum_equals_lambert_w_and_a_numerical_search(beta):
    w = lambertw(1 / math.e).real
    x_min, y_min = swish_minimum(beta)
    assert_close(x_min, -(1 + w) / beta)
    assert_close(y_min, -w / beta)
    found = minimize_scalar(lambda x: x * expit(beta * x), bracket=(-3 / beta, -1 / beta, 0), tol=1e-9)
    assert_close(found.fun, y_min)
    assert abs(found.x / x_min - 1) < 1e-6
    at = torch.tensor(x_min, dtype=torch.float64)
    assert_close(swish(at, beta=beta).item(), y_min)
    assert_close(swish_derivative(at, beta=beta).item(), 0.0)


@pytest.mark.parametrize("beta", [0.1, 1.0, 1.702, 25.0])
def test_distance_to_relu_is_the_depth_of_the_minimum(beta):
    x_min, y_min = swish_minimum(beta)
    x = torch.linspace(-20, 20, 400_001, dtype=torch.float64) / beta
    distance = (F.relu(x) - swish(x, beta=beta)).abs()
    assert_close(distance.max().item(), -y_min)
    assert abs(x[distance.argmax()].abs().item() / -x_min - 1) < 1e-4
    assert_close(distance, distance.flip(0))


@BETAS
def test_slope_is_extreme_where_u_tanh_u_is_one(beta):
    u = brentq(lambda u: u * math.tanh(u) - 1, 1, 2)
    if beta == 0:
        return
    x = torch.linspace(-10, 10, 400_001, dtype=torch.float64) / beta
    slope = swish_derivative(x, beta=beta)
    assert_close(slope.max().item(), (1 + u) / 2)
    assert_close(slope.min().item(), (1 - u) / 2)
    assert abs(x[slope.argmax()].item() * beta - 2 * u) < 1e-4
    assert abs(x[slope.argmin()].item() * beta + 2 * u) < 1e-4
    assert slope.max() < 1.0999
    assert slope.min() > -0.0999


def test_extremes_are_those_that_elfwing_et_al_state():
    x_min, y_min = swish_minimum()
    assert (round(x_min, 2), round(y_min, 2)) == (-1.28, -0.28)
    x = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    slope = swish_derivative(x)
    assert (round(slope.max().item(), 1), round(slope.min().item(), 1)) == (1.1, -0.1)
    assert (round(x[slope.argmax()].item(), 1), round(x[slope.argmin()].item(), 1)) == (2.4, -2.4)


def test_slope_is_one_at_the_mirror_image_of_the_minimum():
    # Ramachandran et al., section 4: below 1 for inputs "less than around 1.25".
    x_min, _ = swish_minimum()
    assert_close(swish_derivative(torch.tensor(-x_min, dtype=torch.float64)).item(), 1.0)
    below = torch.linspace(-10, -x_min - 1e-3, 10_001, dtype=torch.float64)
    assert (swish_derivative(below) < 1).all()
    assert abs(-x_min - 1.25) < 0.05


@pytest.mark.parametrize("beta", [0.1, 1.0, 8.0])
def test_moments_under_a_normal_input(beta):
    def gate_slope(z):
        return expit(beta * z) * expit(-beta * z)

    def mean(integrand):
        return 2 * quad(lambda z: integrand(z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi), 0, 20, epsabs=1e-12)[0]

    z = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    ours = swish(z, beta=beta)
    assert_close(torch.trapezoid(ours * density, z).item(), beta * mean(gate_slope))
    assert_close(torch.trapezoid(ours**2 * density, z).item(), 0.5 - mean(lambda z: z * z * gate_slope(z)))


@pytest.mark.wrong_input
@FUNCTIONS
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_refuses_what_is_not_floating_point(function, dtype):
    with pytest.raises(ValueError, match=rf"floating-point tensor, but x is {dtype}"):
        function(torch.ones(2, dtype=dtype))
    with pytest.raises(ValueError, match=rf"beta must be a number or a floating-point tensor, but is {dtype}"):
        function(torch.ones(2), beta=torch.ones(2, dtype=dtype))


@pytest.mark.wrong_input
@FUNCTIONS
@pytest.mark.parametrize("value", ["1", [1.0, 2.0], numpy.ones(2)], ids=["text", "list", "array"])
def test_refuses_what_is_neither_number_nor_tensor(function, value):
    for beta in (1.0, torch.ones(2)):
        with pytest.raises(ValueError, match=f"floating-point tensor, but x is a {type(value).__name__}"):
            function(value, beta=beta)
    with pytest.raises(
        ValueError, match=f"beta must be a number or a floating-point tensor, but is a {type(value).__name__}"
    ):
        function(torch.ones(2), beta=value)


@pytest.mark.wrong_input
@FUNCTIONS
@pytest.mark.parametrize("shape", [(3,), (2, 1), (1, 1, 4), (0,)], ids=str)
def test_refuses_a_beta_that_does_not_broadcast_to_x(function, shape):
    with pytest.raises(ValueError, match=r"beta must broadcast to the shape of x, but has \("):
        function(torch.ones(1, 4), beta=torch.ones(shape))


@pytest.mark.wrong_input
@pytest.mark.parametrize("beta", [0.0, -1.0, math.inf, math.nan, "1", None, [1.0]])
def test_minimum_refuses_a_beta_that_is_not_positive_and_finite(beta):
    with pytest.raises(ValueError, match=re.escape(f"positive and finite beta, but beta is {beta}")):
        swish_minimum(beta)
