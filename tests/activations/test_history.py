"""The activations of one variable, against torch, mpmath and the papers' numbers."""

import math

import mpmath
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from torch.testing import assert_close

from zhixing.activations import history

REFERENCES = {
    history.sigmoid: torch.sigmoid,
    history.tanh: torch.tanh,
    history.softplus: lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    history.relu: F.relu,
    history.leaky_relu: F.leaky_relu,
    history.elu: F.elu,
    history.selu: F.selu,
    history.mish: F.mish,
    history.squared_relu: lambda x: F.relu(x) ** 2,
}
INPUTS = {
    "grid": torch.linspace(-8, 8, 1600, dtype=torch.float64),  # without 0, where some have a kink
    "zeros": torch.tensor([0.0, -0.0], dtype=torch.float64),
    "empty": torch.empty(0, 3, dtype=torch.float64),
    "scalar": torch.tensor(0.3, dtype=torch.float64),
    "transposed": torch.linspace(-3, 3, 35, dtype=torch.float64).reshape(5, 7).T,
    "large": torch.tensor([-1e4, -800.0, -100.0, 100.0, 800.0, 1e4], dtype=torch.float64),
}
FORMS = pytest.mark.parametrize("form", REFERENCES, ids=lambda form: form.__name__)
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def value_and_gradients(form, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    y = form(*leaves)
    weight = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)
    return y, *torch.autograd.grad(y, leaves, weight)


@FORMS
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_value_and_gradient_equal_torch(form, x):
    ours, theirs = value_and_gradients(form, x), value_and_gradients(REFERENCES[form], x)
    assert_close(ours[0], theirs[0])
    away = x != 0  # a slope at a kink is a convention, which torch has changed
    assert_close(ours[1][away], theirs[1][away])


@pytest.mark.parametrize(
    ("form", "slope"),
    [
        (history.sigmoid, 0.25),
        (history.tanh, 1.0),
        (history.softplus, 0.5),
        (history.relu, 0.0),
        (history.leaky_relu, 0.01),
        (history.elu, 1.0),
        (history.selu, history.SELU_SCALE * history.SELU_ALPHA),
        (history.mish, 0.6),  # tanh(log 2)
        (history.squared_relu, 0.0),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_slope_at_zero_is_that_of_the_left_side(form, slope):
    zeros = INPUTS["zeros"].clone().requires_grad_()
    assert_close(derivative_of(form)(zeros), torch.full_like(zeros, slope))


@FORMS
def test_nan_and_infinity_pass_as_in_torch(form):
    x = torch.tensor([math.nan, -math.inf, math.inf])
    assert_close(form(x), REFERENCES[form](x), equal_nan=True)


@FORMS
def test_large_float32_inputs_have_torchs_values_and_gradients(form):
    x = torch.tensor([-1e4, -200.0, -90.0, -30.0, 30.0, 90.0, 200.0, 1e4])
    assert_close(value_and_gradients(form, x), value_and_gradients(REFERENCES[form], x))


@FORMS
def test_first_and_second_derivative_pass_gradcheck(form):
    x = torch.linspace(-4, 4, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(form, x)
    assert torch.autograd.gradgradcheck(form, x)


@pytest.mark.parametrize("form", [history.sigmoid, history.tanh, history.softplus], ids=lambda form: form.__name__)
def test_smooth_functions_are_smooth_at_zero(form):
    """They are put together from two halves, and the seam must not show."""
    at_zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    beside = torch.tensor([-1e-9, 0.0, 1e-9], dtype=torch.float64, requires_grad=True)
    for _ in range(3):
        (slope,) = torch.autograd.grad(form(at_zero).sum(), at_zero, create_graph=True)
        (slope_beside,) = torch.autograd.grad(form(beside).sum(), beside, create_graph=True)
        assert_close(slope_beside, slope, rtol=0, atol=1e-8)
        form = derivative_of(form)


def derivative_of(form):
    return lambda x: torch.autograd.grad(form(x).sum(), x, create_graph=True)[0]


@pytest.mark.parametrize(
    ("form", "exact"),
    [
        (history.sigmoid, lambda x: 1 / (1 + mpmath.exp(-x))),
        (history.tanh, mpmath.tanh),
        (history.softplus, lambda x: mpmath.log(1 + mpmath.exp(x))),
        (history.elu, lambda x: x if x > 0 else mpmath.exp(x) - 1),
        (history.mish, lambda x: x * mpmath.tanh(mpmath.log(1 + mpmath.exp(x)))),
    ],
    ids=["sigmoid", "tanh", "softplus", "elu", "mish"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_keeps_relative_accuracy_from_tail_to_tail(form, exact, dtype):
    tiny = torch.tensor([-1e-3, -1e-6, 1e-6, 1e-3], dtype=dtype)
    x = torch.cat([torch.linspace(-80, 80, 321, dtype=dtype), tiny])
    for at, ours in zip(x.tolist(), form(x).tolist(), strict=True):
        with mpmath.workdps(60):
            true = exact(mpmath.mpf(at))
            error = abs(ours - true) / (abs(true) or 1)
        assert error < 8 * torch.finfo(dtype).eps, f"relative error {float(error):.1e} at {at}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_slope_of_elu_keeps_relative_accuracy_in_the_left_tail(dtype):
    x = torch.linspace(-80, -1e-3, 321, dtype=dtype, requires_grad=True)
    slopes = derivative_of(history.elu)(x)
    for at, ours in zip(x.tolist(), slopes.tolist(), strict=True):
        assert math.isclose(ours, math.exp(at), rel_tol=8 * torch.finfo(dtype).eps), at


@FORMS
@HALVES
def test_low_precision_stays_near_torch_with_finite_gradients(form, dtype):
    """Torch's own functions round once, ours in each step: the two are two units in the last place apart at most."""
    x = torch.cat([torch.linspace(-6, 6, 1200), torch.tensor([-1e4, -300.0, -20.0, 20.0, 200.0])]).to(dtype)
    ours, theirs = value_and_gradients(form, x), value_and_gradients(REFERENCES[form], x)
    assert ours[0].dtype == dtype
    assert ours[1].isfinite().all()
    step = torch.finfo(dtype).eps
    assert_close(ours[0], theirs[0], rtol=2 * step, atol=1e-5)
    assert_close(ours[1], theirs[1], rtol=2 * step, atol=2 * step)


@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_threshold_equals_heaviside_and_has_no_gradient(x):
    assert_close(history.threshold(x), torch.heaviside(x, torch.ones((), dtype=x.dtype)))
    assert not history.threshold(x.clone().requires_grad_()).requires_grad


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.5, -0.3])
def test_leaky_relu_takes_its_slope(slope):
    x = INPUTS["grid"]
    ours = value_and_gradients(lambda x: history.leaky_relu(x, negative_slope=slope), x)
    assert_close(ours, value_and_gradients(lambda x: F.leaky_relu(x, slope), x))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_elu_takes_its_alpha(alpha):
    x = INPUTS["grid"]
    ours = value_and_gradients(lambda x: history.elu(x, alpha=alpha), x)
    assert_close(ours, value_and_gradients(lambda x: F.elu(x, alpha), x))


PRELU_SHAPES = pytest.mark.parametrize(
    ("shape", "slopes"),
    [((4, 3), 3), ((4, 3), 1), ((2, 3, 5), 3), ((2, 3, 5, 4), 3), ((2, 3, 5, 4), 1), ((7,), 1), ((0, 3), 3)],
    ids=str,
)


@PRELU_SHAPES
def test_prelu_equals_torch_with_the_gradient_of_its_slopes(shape, slopes):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    slope = torch.linspace(-0.5, 0.7, slopes, dtype=torch.float64)
    assert_close(value_and_gradients(history.prelu, x, slope), value_and_gradients(F.prelu, x, slope))


def test_prelu_passes_gradcheck():
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(2, 3, 2).requires_grad_()
    slope = torch.tensor([0.25, -0.5, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(history.prelu, (x, slope))


@HALVES
def test_prelu_keeps_low_precision(dtype):
    x, slope = torch.linspace(-3, 3, 61).to(dtype), torch.tensor([0.25], dtype=dtype)
    assert_close(history.prelu(x, slope), F.prelu(x, slope))


def expectation(function):
    """E[function(Z)] for a standard normal Z, by scipy, with the kink at 0 at the end of an interval."""

    def integrand(z: float) -> float:
        return function(torch.tensor(z, dtype=torch.float64)).item() * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    return quad(integrand, -12, 0, epsabs=1e-13)[0] + quad(integrand, 0, 12, epsabs=1e-13)[0]


def test_selu_constants_solve_the_papers_closed_form():
    """Klambauer et al., appendix, equation 14."""
    with mpmath.workdps(40):
        root2, e, pi = mpmath.sqrt(2), mpmath.e, mpmath.pi
        alpha = -mpmath.sqrt(2 / pi) / (mpmath.erfc(1 / root2) * mpmath.sqrt(e) - 1)
        second = mpmath.mpf(1) / 2 + alpha**2 / 2 * (
            mpmath.erfc(root2) * e**2 - 2 * mpmath.erfc(1 / root2) * mpmath.sqrt(e) + 1
        )
        assert_close(history.SELU_ALPHA, float(alpha))
        assert_close(history.SELU_SCALE, float(1 / mpmath.sqrt(second)))
    assert round(history.SELU_ALPHA, 4) == 1.6733
    assert round(history.SELU_SCALE, 4) == 1.0507


def test_selu_has_a_fixed_point_at_mean_0_and_variance_1():
    assert_close(expectation(history.selu), 0.0, rtol=0, atol=1e-12)
    assert_close(expectation(lambda z: history.selu(z) ** 2), 1.0)


def test_selu_jacobian_at_the_fixed_point_is_the_papers():
    """Klambauer et al., equation 6: ((0, 0.088834), (0, 0.782648)), spectral norm 0.7877."""
    step = 1e-4

    def moments(variance: float) -> tuple[float, float]:
        mean = expectation(lambda z: history.selu(math.sqrt(variance) * z))
        return mean, expectation(lambda z: history.selu(math.sqrt(variance) * z) ** 2) - mean**2

    (mean_up, variance_up), (mean_down, variance_down) = moments(1 + step), moments(1 - step)
    to_mean, to_variance = (mean_up - mean_down) / (2 * step), (variance_up - variance_down) / (2 * step)
    assert abs(to_mean - 0.088834) < 1e-6
    assert round(to_variance, 6) == 0.782648
    assert round(math.hypot(to_mean, to_variance), 4) == 0.7877


@pytest.mark.parametrize(
    ("form", "second_moment"),
    [(history.relu, 0.5), (lambda z: history.leaky_relu(z, negative_slope=0.2), 0.52), (history.squared_relu, 1.5)],
    ids=["relu", "leaky_relu", "squared_relu"],
)
def test_second_moments_that_the_initialisations_rest_on(form, second_moment):
    assert_close(expectation(lambda z: form(z) ** 2), second_moment)


def test_softplus_is_linear_nowhere():
    x = torch.tensor([20.5], dtype=torch.float64)
    assert_close((history.softplus(x) - x).item(), math.log1p(math.exp(-20.5)), rtol=1e-6, atol=0)


def test_derivative_of_softplus_is_sigmoid():
    x = INPUTS["grid"]
    assert_close(derivative_of(history.softplus)(x.clone().requires_grad_()), torch.sigmoid(x))


def test_minimum_of_mish_is_where_it_is_said_to_be():
    """Misra, section 3: about -0.31 at about -1.19."""
    found = minimize_scalar(
        lambda x: history.mish(torch.tensor(x, dtype=torch.float64)).item(),
        bounds=(-3, 0),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert round(found.fun, 6) == -0.308843
    assert abs(found.x + 1.192431) < 2e-6


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    "form",
    [*REFERENCES, history.threshold, lambda x: history.prelu(x, torch.ones(1))],
    ids=lambda form: form.__name__,
)
@pytest.mark.parametrize(
    ("x", "came"),
    [
        (torch.ones(2, dtype=torch.int64), "torch.int64"),
        (torch.ones(2, dtype=torch.bool), "torch.bool"),
        (torch.ones(2, dtype=torch.complex64), "torch.complex64"),
        ([1.0, 2.0], "list"),
        (1.0, "float"),
    ],
    ids=["int64", "bool", "complex64", "list", "float"],
)
def test_refuses_what_is_no_floating_point_tensor(form, x, came):
    with pytest.raises(ValueError, match=rf"floating-point tensor, but x is {came}"):
        form(x)


@pytest.mark.wrong_input
@pytest.mark.parametrize(("shape", "slopes"), [((4, 3), 4), ((4, 3), 0), ((3,), 3), ((2, 5, 3), 3)], ids=str)
def test_prelu_refuses_slopes_that_fit_no_channel(shape, slopes):
    with pytest.raises(ValueError, match=rf"slope must have 1 entry or .* shape is \({slopes},\)"):
        history.prelu(torch.zeros(shape), torch.ones(slopes))


@pytest.mark.wrong_input
@pytest.mark.parametrize("slope", [[0.25], 0.25, None, torch.ones(1).long(), torch.ones(1) + 0j], ids=str)
def test_prelu_refuses_slopes_that_are_no_real_tensor(slope):
    with pytest.raises(ValueError, match="floating-point tensor, but slope is"):
        history.prelu(torch.ones(2, 3), slope)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (0, 3)], ids=str)
def test_prelu_keeps_type_and_shape_of_x_whatever_the_type_of_the_slopes(dtype, shape):
    y = history.prelu(-torch.ones(shape, dtype=dtype), torch.tensor([0.25]))
    assert (y.dtype, y.shape) == (dtype, shape)
    assert (y == -0.25).all()
