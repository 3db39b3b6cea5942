"""GELU against torch's own, against mpmath where torch's own is wrong, and against the paper's numbers."""

import math

import mpmath
import numpy
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch.testing import assert_close

from zhixing.activations.gelu import gelu, gelu_derivative, gelu_sigmoid, gelu_tanh

REFERENCES = {
    gelu: F.gelu,
    gelu_tanh: lambda x: F.gelu(x, approximate="tanh"),
    gelu_sigmoid: lambda x: F.silu(1.702 * x) / 1.702,
}
INPUTS = {
    "grid": torch.linspace(-5, 5, 1001, dtype=torch.float64),
    "empty": torch.empty(0, 3, dtype=torch.float64),
    "scalar": torch.tensor(0.3, dtype=torch.float64),
    "transposed": torch.linspace(-3, 3, 35, dtype=torch.float64).reshape(5, 7).T,
    "large": torch.tensor([-1e4, -50.0, 50.0, 1e4], dtype=torch.float64),
}
FORMS = pytest.mark.parametrize("form", REFERENCES, ids=lambda form: form.__name__)


@FORMS
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_value_and_gradient_equal_torch(form, x):
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    form(ours).sum().backward()
    REFERENCES[form](theirs).sum().backward()
    assert_close(form(x), REFERENCES[form](x))
    assert_close(ours.grad, theirs.grad)


@FORMS
def test_first_and_second_derivative_pass_gradcheck(form):
    x = torch.linspace(-4, 4, 17, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(form, x)
    assert torch.autograd.gradgradcheck(form, x)


@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_derivative_equals_autograd_of_torch(x):
    leaf = x.clone().requires_grad_()
    F.gelu(leaf).sum().backward()
    assert_close(gelu_derivative(x), leaf.grad)


def test_derivative_of_derivative_equals_double_autograd_of_torch():
    x = torch.linspace(-4, 4, 81, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(F.gelu(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    (ours,) = torch.autograd.grad(gelu_derivative(x).sum(), x)
    assert_close(ours, curvature)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("form", [gelu, gelu_derivative], ids=lambda form: form.__name__)
def test_left_tail_keeps_relative_accuracy(form, dtype):
    exact = {
        gelu: lambda x: x * mpmath.ncdf(x),
        gelu_derivative: lambda x: mpmath.ncdf(x) + x * mpmath.npdf(x),
    }[form]
    x = torch.linspace(-13 if dtype == torch.float32 else -37, -2, 200, dtype=dtype)
    for at, ours in zip(x.tolist(), form(x).tolist(), strict=True):
        with mpmath.workdps(40):
            error = abs(ours / exact(mpmath.mpf(at)) - 1)
        assert error < at**2 * torch.finfo(dtype).eps, f"relative error {float(error):.1e} at {at}"


def test_gradient_in_the_left_tail_equals_the_derivative():
    x = torch.tensor([-4.0, -6.0, -8.0, -10.0], requires_grad=True)
    gelu(x).sum().backward()
    assert_close(x.grad, gelu_derivative(x.detach()), rtol=1e-5, atol=0)


@FORMS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_error_is_at_most_twice_eagers(form, dtype):
    x = torch.linspace(-6, 6, 1201).to(dtype)
    exact = REFERENCES[form](x.double())
    ours = (form(x).double() - exact).abs().max()
    eager = (REFERENCES[form](x).double() - exact).abs().max()
    assert form(x).dtype == dtype
    assert ours <= 2 * eager


@FORMS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_is_the_rounded_exact_value(form, dtype):
    x, step = torch.linspace(-3, 3, 601).to(dtype), torch.finfo(dtype)
    exact = REFERENCES[form](x.double()).to(dtype)
    assert_close(form(x), exact, rtol=step.eps, atol=step.smallest_normal * step.eps)


def test_derivative_keeps_low_precision():
    x = torch.linspace(-3, 3, 601).to(torch.bfloat16)
    leaf = x.double().requires_grad_()
    F.gelu(leaf).sum().backward()
    exact = leaf.grad.to(torch.bfloat16)
    assert_close(gelu_derivative(x), exact, rtol=torch.finfo(torch.bfloat16).eps, atol=0)


def test_approximations_lie_within_their_documented_bounds():
    x = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    assert 0.00047 < (gelu_tanh(x) - F.gelu(x)).abs().max() < 0.00048
    assert 0.0203 < (gelu_sigmoid(x) - F.gelu(x)).abs().max() < 0.0204


def test_derivative_lies_within_its_documented_bounds():
    slope = gelu_derivative(torch.linspace(-8, 8, 160_001, dtype=torch.float64))
    steepest = (1 + math.erf(1)) / 2 + math.exp(-1) / math.sqrt(math.pi)
    assert_close(slope.max().item(), steepest)
    assert_close(slope.min().item(), 1 - steepest)


def test_infinities_are_as_documented():
    infinite = torch.tensor([-math.inf, math.inf])
    assert gelu(infinite)[0].isnan()
    assert gelu(infinite)[1] == math.inf
    assert gelu_derivative(infinite).isnan().all()


def test_gradient_of_the_tanh_form_is_a_number_until_where_documented():
    x = torch.tensor([-1e18, -1e4, 1e4, 1e18], requires_grad=True)
    gelu_tanh(x).sum().backward()
    assert_close(x.grad, torch.tensor([0.0, 0.0, 1.0, 1.0]))
    beyond = torch.tensor([-1e20, 1e20], requires_grad=True)
    gelu_tanh(beyond).sum().backward()
    assert beyond.grad.isnan().all()
    assert_close(gelu_tanh(beyond.detach()), torch.tensor([-0.0, 1e20]))


@pytest.mark.parametrize("form", [*REFERENCES, gelu_derivative], ids=lambda form: form.__name__)
def test_gradient_at_every_float16_is_a_number(form):
    x = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16)
    x = x[x.isfinite()].requires_grad_()
    form(x).sum().backward()
    assert x.grad.isfinite().all()
    assert_close(x.grad[x > 8], torch.full_like(x[x > 8], form is not gelu_derivative))
    assert_close(x.grad[x < -12], torch.zeros_like(x[x < -12]), rtol=0, atol=1e-7)


def test_is_the_mean_of_a_randomly_masked_input():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1_000_000, dtype=torch.float64, generator=generator)
    for x in (-2.0, -0.5, 0.7, 1.9):
        masked = x * (z < x).double()
        standard_error = masked.std() / math.sqrt(z.numel())
        assert abs(masked.mean() - gelu(torch.tensor(x, dtype=torch.float64))) < 4 * standard_error


def test_differs_from_its_mirror_image_by_the_identity():
    x = torch.linspace(-8, 8, 161, dtype=torch.float64)
    assert_close(gelu(x) - gelu(-x), x)


def test_papers_constant_is_the_best_cubic_for_the_distribution_function():
    x = torch.linspace(0, 6, 60_001, dtype=torch.float64)

    def largest_error(c: float) -> float:
        u = math.sqrt(2 / math.pi) * (x + c * x**3)
        return (0.5 * (1 + torch.tanh(u)) - torch.special.ndtr(x)).abs().max().item()

    best = minimize_scalar(largest_error, bounds=(0.04, 0.05), method="bounded", options={"xatol": 1e-9}).x
    assert round(best, 6) == 0.044715


def test_papers_constant_is_the_best_slope_of_the_logistic_function():
    x = torch.linspace(0, 8, 80_001, dtype=torch.float64)

    def largest_error(k: float) -> float:
        return (torch.sigmoid(k * x) - torch.special.ndtr(x)).abs().max().item()

    best = minimize_scalar(largest_error, bounds=(1.6, 1.8), method="bounded", options={"xatol": 1e-9}).x
    assert round(best, 3) == 1.702


@pytest.mark.wrong_input
@pytest.mark.parametrize("form", [*REFERENCES, gelu_derivative], ids=lambda form: form.__name__)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_refuses_what_is_not_floating_point(form, dtype):
    with pytest.raises(ValueError, match=rf"floating-point tensor, but x is {dtype}"):
        form(torch.ones(2, dtype=dtype))


@pytest.mark.wrong_input
@pytest.mark.parametrize("form", [*REFERENCES, gelu_derivative], ids=lambda form: form.__name__)
@pytest.mark.parametrize("x", [1.0, [1.0, 2.0], numpy.ones(2)], ids=["number", "list", "array"])
def test_refuses_what_is_not_a_tensor(form, x):
    with pytest.raises(ValueError, match=f"floating-point tensor, but x is a {type(x).__name__}"):
        form(x)
