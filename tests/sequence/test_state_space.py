"""State-space models against scipy's systems, numpy's Legendre series, and loops from the definitions."""

import copy
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch
import torch.nn.functional as F
from numpy.polynomial import legendre
from tensors import normal, with_gradients
from torch.testing import assert_close

from zhixing.sequence.state_space import (
    S4D,
    causal_convolution,
    discretize,
    hippo_legs,
    legs_basis,
    legs_memory,
    legs_normal_plus_low_rank,
    s4_kernel,
    s4d_kernel,
    ssm_kernel,
    ssm_recurrence,
)

METHODS = pytest.mark.parametrize("method", ["euler", "bilinear", "zoh"])
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
SCIPY = {"euler": "euler", "bilinear": "bilinear", "zoh": "zoh"}


def stable_system(n, seed=0):
    """A matrix with eigenvalues left of -0.1, and B and C."""
    a = normal(n, n, seed=seed)
    a = a - torch.eye(n, dtype=a.dtype) * (torch.linalg.eigvals(a).real.max() + 0.1)
    return a, normal(n, seed=seed + 1), normal(n, seed=seed + 2)


# HiPPO-LegS


def legendre_series(i):
    """√(2i + 1) P_i(2s - 1), by numpy."""
    return np.sqrt(2 * i + 1) * legendre.Legendre.basis(i, domain=[0, 1])


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_basis_is_numpys_and_orthonormal(n):
    s = torch.linspace(0, 1, 23, dtype=torch.float64)
    expected = np.stack([legendre_series(i)(s.numpy()) for i in range(n)], -1)
    assert_close(legs_basis(s, n), torch.from_numpy(expected))
    nodes, weights = legendre.leggauss(12)
    at_nodes = legs_basis(torch.from_numpy((nodes + 1) / 2), n)
    products = at_nodes.mT @ (torch.from_numpy(weights / 2)[:, None] * at_nodes)
    assert_close(products, torch.eye(n, dtype=torch.float64))


def test_basis_of_any_shape_and_type():
    s = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    assert legs_basis(s, 4).shape == (2, 3, 4)
    assert legs_basis(s, 4).dtype == torch.float32
    assert legs_basis(s[:0], 4).shape == (0, 3, 4)
    assert torch.autograd.gradcheck(lambda s: legs_basis(s, 5), s.double().requires_grad_())


def test_matrix_entries_are_the_papers():
    """Equation 2 of S4, entry by entry, and B below it."""
    a, b = hippo_legs(5)
    for n in range(5):
        assert b[n].item() == pytest.approx(math.sqrt(2 * n + 1))
        for k in range(5):
            expected = math.sqrt(2 * n + 1) * math.sqrt(2 * k + 1) if n > k else n + 1 if n == k else 0
            assert a[n, k].item() == pytest.approx(-expected)


def test_matrix_is_the_derivative_of_a_projection():
    """d/dt of the coefficients of u on [0, t], by central differences, is (A x + B u) / t."""

    def coefficients(t, n=6):
        nodes, weights = legendre.leggauss(40)
        s = (nodes + 1) / 2
        u = np.sin(3 * s * t) + (s * t) ** 2
        return np.array([(weights / 2 * u * legendre_series(i)(s)).sum() for i in range(n)])

    t, h = 1.7, 1e-4
    slope = (coefficients(t + h) - coefficients(t - h)) / (2 * h)
    a, b = (x.numpy() for x in hippo_legs(6))
    u = np.sin(3 * t) + t**2
    np.testing.assert_allclose(slope, (a @ coefficients(t) + b * u) / t, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 32])
def test_eigenvalues_are_minus_1_to_minus_n_and_a_constant_is_at_rest(n):
    a, b = hippo_legs(n)
    assert_close(a.triu(1), torch.zeros_like(a))
    assert_close(a.diagonal(), -torch.arange(1, n + 1, dtype=torch.float64))
    assert_close(a[:, 0], -b)
    assert hippo_legs(n, dtype=torch.float32)[0].dtype == torch.float32


def test_eigenvectors_have_the_binomial_entries_of_lemma_3_2():
    """V[i, j] = C(i + j, i - j), in the basis without the factors √(2i + 1) and with signs (-1)^i."""
    n = 8
    a, b = (x.numpy() for x in hippo_legs(n))
    v = np.array([[math.comb(i + j, i - j) if i >= j else 0 for j in range(n)] for i in range(n)], dtype=float)
    signs = (-1.0) ** np.arange(n)
    v = b[:, None] * signs[:, None] * v
    np.testing.assert_allclose(a @ v, v * -np.arange(1, n + 1), atol=1e-6)
    assert math.comb(4 * 8, 2 * 8) > 5e8  # V[3i, i] at i = 8


@pytest.mark.parametrize(("n", "at_least"), [(16, 1e10), (32, 1e16)], ids=["16", "32"])
def test_scaled_eigenvectors_are_hopelessly_conditioned(n, at_least):
    _, vectors = np.linalg.eig(hippo_legs(n)[0].numpy())
    assert np.linalg.cond(vectors) > at_least


# The memory


def projected(u, n):
    """The exact coefficients of a signal that is constant in each step, by numpy's integrals."""
    borders = np.linspace(0, 1, len(u) + 1)
    integrals = [np.diff(legendre_series(i).integ()(borders)) for i in range(n)]
    return torch.from_numpy(np.stack(integrals)) @ u


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_memory_is_the_projection_after_each_sample(length):
    u = normal(2, length, 3)
    states = legs_memory(u, 6)
    assert states.shape == (2, length, 3, 6)
    for k in range(length):
        for b in range(2):
            assert_close(states[b, k], projected(u[b, : k + 1], 6).mT)


def test_memory_is_close_to_the_least_squares_fit_of_the_samples():
    t = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    u = torch.sin(9 * t) + t
    state = legs_memory(u[None, :, None], 12)[0, -1, 0]
    fit = torch.linalg.lstsq(legs_basis(t, 12), u[:, None]).solution[:, 0]
    assert (state - fit).norm() < 1e-3 * fit.norm()
    assert (legs_basis(t, 12) @ state - u).norm() < 1e-2 * u.norm()


def test_memory_of_a_slower_signal_is_the_same():
    """The dilation invariance of HiPPO, proposition 3: exact for the exact step."""
    u = normal(1, 60, 2)
    slower = u.repeat_interleave(3, dim=1)
    assert_close(legs_memory(slower, 16)[:, -1], legs_memory(u, 16)[:, -1])
    for method in ("bilinear", "euler"):
        off = legs_memory(slower, 16, method=method)[:, -1] - legs_memory(u, 16, method=method)[:, -1]
        assert off.norm() > 1e-4


@METHODS
def test_memory_steps_are_scipys_in_logarithmic_time(method):
    """In τ = ln t the equation is time-invariant."""
    a, b = (x.numpy() for x in hippo_legs(5))
    u = normal(1, 9, 1)
    x = np.eye(5)[0] * u[0, 0, 0].item()
    for k in range(1, 9):
        system = (a, b[:, None], np.zeros((1, 5)), np.zeros((1, 1)))
        a_bar, b_bar, *_ = scipy.signal.cont2discrete(system, math.log((k + 1) / k), SCIPY[method])
        x = a_bar @ x + b_bar[:, 0] * u[0, k, 0].item()
    assert_close(legs_memory(u, 5, method=method)[0, -1, 0], torch.from_numpy(x))


def test_memory_is_differentiable_and_takes_what_is_odd():
    assert torch.autograd.gradcheck(lambda u: legs_memory(u, 4), normal(2, 5, 2).requires_grad_())
    assert legs_memory(normal(2, 0, 3), 4).shape == (2, 0, 3, 4)
    assert legs_memory(normal(0, 5, 3), 4).shape == (0, 5, 3, 4)
    assert_close(legs_memory(normal(1, 1, 1), 1)[0, 0], normal(1, 1, 1)[0])
    u = normal(5, 7, 3).transpose(0, 2)  # (3, 7, 5)
    assert_close(legs_memory(u, 4), legs_memory(u.contiguous(), 4))


@HALVES
def test_memory_in_16_bits_is_that_of_float32_rounded_once(dtype):
    u = normal(1, 100, 2, dtype=dtype)
    states = legs_memory(u, 8)
    assert states.dtype == dtype
    assert_close(states, legs_memory(u.float(), 8).to(dtype))


# Discretisation


@METHODS
@pytest.mark.parametrize("n", [1, 4])
def test_discretisation_of_a_matrix_is_scipys(method, n):
    a, b, c = stable_system(n)
    system = (a.numpy(), b.numpy()[:, None], c.numpy()[None], np.zeros((1, 1)))
    a_bar, b_bar, *_ = scipy.signal.cont2discrete(system, 0.3, SCIPY[method])
    assert_close(discretize(a, b, 0.3, method=method), (torch.from_numpy(a_bar), torch.from_numpy(b_bar[:, 0])))
    dt = torch.tensor(0.3, dtype=torch.float64)
    assert_close(discretize(a, b, dt, method=method), discretize(a, b, 0.3, method=method))


@METHODS
def test_discretisation_of_diagonals_is_that_of_their_matrices(method):
    """Each row with its own step."""
    a = torch.complex(-normal(3, 4).abs() - 0.1, 5 * normal(3, 4, seed=1))
    b = torch.complex(normal(3, 4, seed=2), normal(3, 4, seed=3))
    dt = torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64)[:, None]
    a_bar, b_bar = discretize(a, b, dt, method=method)
    for i in range(3):
        full_a, full_b = discretize(torch.diag(a[i]), b[i], dt[i, 0], method=method)
        assert_close((torch.diag(a_bar[i]), b_bar[i]), (full_a, full_b))


@METHODS
@pytest.mark.parametrize("diagonal", [False, True], ids=["matrix", "diagonal"])
def test_discretisation_passes_gradcheck(method, diagonal):
    a, b, _ = stable_system(3)
    if diagonal:
        a = torch.complex(a[0], a[1])
        b = torch.complex(b, a[0].real)
    dt = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    inputs = a.requires_grad_(), b.requires_grad_(), dt
    assert torch.autograd.gradcheck(lambda a, b, dt: discretize(a, b, dt, method=method), inputs)


def test_a_wider_step_does_not_change_the_type():
    a, dt = torch.full((2, 3), -1.0), torch.full((2, 1), 0.1, dtype=torch.float64)
    for method in ("euler", "bilinear", "zoh"):
        assert {x.dtype for x in discretize(a, a, dt, method=method)} == {torch.float32}


def test_default_is_bilinear():
    a, b, _ = stable_system(3)
    assert_close(discretize(a, b, 0.1), discretize(a, b, 0.1, method="bilinear"))


def test_hold_of_an_integrator_is_the_step_itself():
    """A = 0 has no inverse."""
    zero = torch.zeros(2, 2, dtype=torch.float64)
    one = torch.ones(2, dtype=torch.float64)
    a_bar, b_bar = discretize(zero, one, 0.25, method="zoh")
    assert_close((a_bar, b_bar), (torch.eye(2, dtype=torch.float64), 0.25 * one))
    a_bar, b_bar = discretize(zero, zero + 1, 0.25, method="zoh")
    assert_close((a_bar, b_bar), (zero + 1, zero + 0.25))
    _, gradients = with_gradients(lambda a: discretize(a, zero + 1, 0.25, method="zoh")[1], zero)
    assert gradients[0].isfinite().all()


def test_hold_of_a_slow_state_keeps_its_digits_in_float32():
    a = torch.tensor([[-0.5 + 0j]]) * 1e-4
    _, b_bar = discretize(a, torch.ones_like(a), 1e-3, method="zoh")
    exact = torch.expm1(a.to(torch.complex128) * 1e-3) / a.to(torch.complex128)
    assert abs(b_bar.item() / exact.item() - 1) < 1e-6
    naive = (torch.exp(a * 1e-3) - 1) / a
    assert abs(naive.item() / exact.item() - 1) > 0.1


def test_forward_euler_blows_up_where_the_others_do_not():
    """LegS with N = 64 and Δ = 0.1: 1 - 64 Δ = -5.4."""
    a, b = hippo_legs(64)
    radius = {m: np.abs(np.diag(discretize(a, b, 0.1, method=m)[0])).max() for m in ("euler", "bilinear", "zoh")}
    assert radius["euler"] == pytest.approx(5.4)
    assert radius["bilinear"] < 1
    assert radius["zoh"] < 1


# Recurrence and convolution


def dlsim(u, a_bar, b_bar, c):
    """scipy's simulation. Its output sees u one step late, so that step is made up by C Ā and C B̄."""
    a_bar, b_bar, c = a_bar.numpy(), b_bar.numpy()[:, None], c.numpy()[None]
    system = scipy.signal.dlti(a_bar, b_bar, c @ a_bar, c @ b_bar)
    y = [[scipy.signal.dlsim(system, u[i, :, j].numpy())[1][:, 0] for j in range(u.shape[2])] for i in range(len(u))]
    return torch.from_numpy(np.array(y)).transpose(1, 2)


def convolved(u, kernel):
    """numpy.convolve for each channel, cut to the length of u."""
    y = [[np.convolve(u[i, :, j], kernel[:, j])[: u.shape[1]] for j in range(u.shape[2])] for i in range(u.shape[0])]
    return torch.from_numpy(np.array(y)).transpose(1, 2)


@METHODS
@pytest.mark.parametrize("length", [1, 2, 13])
def test_recurrence_is_scipys_simulation(method, length):
    a, b, c = stable_system(4)
    a_bar, b_bar = discretize(a, b, 0.2, method=method)
    u = normal(2, length, 3, seed=5)
    y, _ = ssm_recurrence(u, a_bar, b_bar, c)
    assert_close(y, dlsim(u, a_bar, b_bar, c))


@pytest.mark.parametrize("length", [1, 2, 13, 64])
def test_recurrence_equals_convolution(length):
    a, b, c = stable_system(4)
    u = normal(2, length, 3, seed=5)

    def by_recurrence(u, a, b, c):
        return ssm_recurrence(u, *discretize(a, b, 0.2), c)[0]

    def by_convolution(u, a, b, c):
        kernel = ssm_kernel(*discretize(a, b, 0.2), c, length)
        return causal_convolution(u, kernel[:, None].expand(-1, 3))

    assert_close(with_gradients(by_recurrence, u, a, b, c), with_gradients(by_convolution, u, a, b, c))


def test_recurrence_goes_on_from_a_state_and_passes_gradcheck():
    a, b, c = stable_system(3)
    system = *discretize(a, b, 0.2), c
    u = normal(2, 9, 2, seed=5)
    whole, end = ssm_recurrence(u, *system)
    first, state = ssm_recurrence(u[:, :4], *system)
    second, last = ssm_recurrence(u[:, 4:], *system, state=state)
    assert_close((torch.cat([first, second], 1), last), (whole, end))
    nothing, same = ssm_recurrence(u[:, :0], *system, state=state)
    assert nothing.shape == (2, 0, 2)
    assert_close(same, state)

    def function(u, a_bar, b_bar, c, state):
        return ssm_recurrence(u, a_bar, b_bar, c, state=state)

    inputs = [x.clone().requires_grad_() for x in (u[:1, :3], *system, state[:1])]
    assert torch.autograd.gradcheck(function, inputs)


def test_autocast_does_not_round_the_state():
    a, b, c = (x.float() for x in stable_system(4))
    system = *discretize(a, b, 0.2), c
    u = normal(1, 30, 2, dtype=torch.float32)
    plain = ssm_recurrence(u, *system)[0], ssm_kernel(*system, 30), legs_memory(u, 4)
    layer = S4D(2, state=8)
    output = layer(u)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close((ssm_recurrence(u, *system)[0], ssm_kernel(*system, 30), legs_memory(u, 4)), plain)
        assert_close(layer(u), output)


def test_kernel_is_scipys_impulse_response():
    a, b, c = stable_system(5)
    a_bar, b_bar = discretize(a, b, 0.2)
    impulse = torch.zeros(1, 20, 1, dtype=torch.float64)
    impulse[0, 0] = 1
    assert_close(ssm_kernel(a_bar, b_bar, c, 20), dlsim(impulse, a_bar, b_bar, c)[0, :, 0])
    assert ssm_kernel(a_bar, b_bar, c, 0).shape == (0,)


LENGTHS = {"one": (1, 1), "equal": (8, 8), "odd": (13, 13), "shorter kernel": (20, 7), "longer kernel": (7, 20)}


@pytest.mark.parametrize(("length", "taps"), LENGTHS.values(), ids=LENGTHS)
def test_convolution_is_numpys_and_conv1ds(length, taps):
    u, kernel = normal(2, length, 3), normal(taps, 3, seed=1)
    assert_close(causal_convolution(u, kernel), convolved(u, kernel))

    def by_torch(u, kernel):
        padded = F.pad(u.mT, (len(kernel) - 1, 0))
        return F.conv1d(padded, kernel.flip(0).mT[:, None], groups=u.shape[2]).mT

    assert_close(with_gradients(causal_convolution, u, kernel), with_gradients(by_torch, u, kernel))


def test_convolution_passes_gradcheck_and_takes_what_is_odd():
    assert torch.autograd.gradcheck(
        causal_convolution, (normal(1, 4, 2).requires_grad_(), normal(3, 2).requires_grad_())
    )
    for b, n, d in ((0, 3, 2), (2, 0, 2), (2, 3, 0)):
        assert causal_convolution(normal(b, n, d), normal(3, d)).shape == (b, n, d)
    assert (causal_convolution(normal(1, 3, 2), normal(0, 2)) == 0).all()
    u, kernel = normal(3, 5, 2).transpose(0, 2), normal(3, 4).mT
    assert_close(causal_convolution(u, kernel), causal_convolution(u.contiguous(), kernel.contiguous()))


def test_convolution_keeps_memory_that_grows_like_the_lengths():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        causal_convolution(normal(1, 300, 1).requires_grad_(), normal(200, 1, seed=1).requires_grad_())
    assert kept
    assert max(kept) <= 500


@HALVES
def test_convolution_in_16_bits_is_that_of_float32_rounded_once(dtype):
    u, kernel = normal(2, 50, 3, dtype=dtype), normal(50, 3, seed=1, dtype=dtype)
    y = causal_convolution(u, kernel)
    assert y.dtype == dtype
    assert_close(y, causal_convolution(u.float(), kernel.float()).to(dtype))


def test_a_transform_of_length_l_wraps_around():
    """The commonest mistake: without zeros, the end of the product is added to the beginning."""
    u, kernel = normal(1, 16, 1), normal(16, 1, seed=1)

    def transformed(size):
        product = torch.fft.rfft(u, size, dim=1) * torch.fft.rfft(kernel, size, dim=0)
        return torch.fft.irfft(product, size, dim=1)[:, :16]

    right = causal_convolution(u, kernel)
    assert_close(transformed(31), right)
    wrapped = transformed(16)
    assert (wrapped - right).norm() > 0.5 * right.norm()
    assert_close(wrapped[:, -1], right[:, -1])


# S4: diagonal minus rank one


@pytest.mark.parametrize("n", [1, 2, 5, 64])
def test_legs_is_normal_minus_rank_one(n):
    """Theorem 1 of S4."""
    eigenvalues, p, b, v = legs_normal_plus_low_rank(n)
    a, b_real = (x.to(v.dtype) for x in hippo_legs(n))
    assert_close(v @ v.mH, torch.eye(n, dtype=v.dtype))
    assert_close(v @ (torch.diag(eigenvalues) - torch.outer(p, p.conj())) @ v.mH, a)
    assert_close(v @ b, b_real)
    assert_close(eigenvalues.real, torch.full((n,), -0.5, dtype=torch.float64))
    assert_close(eigenvalues.imag, -eigenvalues.imag.flip(0))
    expected = np.linalg.eigvals((a + torch.outer(*[(torch.arange(n) + 0.5).sqrt().to(a.dtype)] * 2)).numpy())
    assert_close(eigenvalues.imag, torch.from_numpy(np.sort(expected.imag)), atol=1e-8, rtol=1e-8)


def test_the_real_diagonal_left_in_makes_no_difference_to_eigh():
    """Reported in state-spaces/s4#159: `eigh` takes the diagonal of a Hermitian matrix to be real."""
    eigenvalues, *_ = legs_normal_plus_low_rank(16)
    a, _ = hippo_legs(16)
    p = (torch.arange(16, dtype=torch.float64) + 0.5).sqrt()
    assert_close(torch.linalg.eigvalsh(-1j * (a + torch.outer(p, p))), eigenvalues.imag)


@pytest.mark.parametrize("length", [1, 2, 7, 100])
@pytest.mark.parametrize("n", [1, 2, 8, 32])
def test_s4_kernel_is_the_impulse_response(n, length):
    eigenvalues, p, b, v = legs_normal_plus_low_rank(n)
    c = normal(n)
    a, b_real = hippo_legs(n)
    expected = ssm_kernel(*discretize(a, b_real, 0.05), c, length)
    assert_close(s4_kernel(eigenvalues, p, b, c.to(v.dtype) @ v, 0.05, length), expected, atol=1e-9, rtol=1e-7)


def test_s4_kernel_passes_gradcheck_and_takes_length_0():
    eigenvalues, p, b, v = legs_normal_plus_low_rank(3)
    c = normal(3).to(v.dtype) @ v
    inputs = [x.clone().requires_grad_() for x in (eigenvalues, p, b, c)]
    assert torch.autograd.gradcheck(lambda *x: s4_kernel(*x, 0.1, 6), inputs)
    assert s4_kernel(eigenvalues, p, b, c, 0.1, 0).shape == (0,)


# S4D


def by_loops(a, c, dt, length):
    """The recurrence of each state and of its conjugate, with held inputs, by scipy's exponential."""
    kernel = np.zeros((length, a.shape[0]))
    for d in range(a.shape[0]):
        for m in range(a.shape[1]):
            for pair in (lambda x: x, np.conj):
                a_m, c_m = pair(a[d, m].item()), pair(c[d, m].item())
                block = scipy.linalg.expm(dt[d].item() * np.array([[a_m, 1], [0, 0]]))
                for k in range(length):
                    kernel[k, d] += (c_m * block[0, 0] ** k * block[0, 1]).real
    return torch.from_numpy(kernel)


def s4d_inputs():
    a = torch.complex(-normal(3, 4).abs() - 0.1, 5 * normal(3, 4, seed=1))
    c = torch.complex(normal(3, 4, seed=2), normal(3, 4, seed=3))
    return a, c, torch.tensor([0.01, 0.1, 0.7], dtype=torch.float64)


@pytest.mark.parametrize("length", [0, 1, 2, 11])
def test_s4d_kernel_is_the_sum_over_both_conjugates(length):
    assert_close(s4d_kernel(*s4d_inputs(), length), by_loops(*s4d_inputs(), length))


def test_s4d_kernel_passes_gradcheck():
    inputs = [x.requires_grad_() for x in s4d_inputs()]
    assert torch.autograd.gradcheck(lambda *x: s4d_kernel(*x, 5), inputs)


def test_half_of_the_spectrum_without_the_factor_2_is_half_of_the_kernel():
    a, c, dt = s4d_inputs()
    b_bar = torch.expm1(dt[:, None] * a) / a
    powers = torch.exp(dt[:, None, None] * a[..., None] * torch.arange(6))
    one_of_each_pair = torch.einsum("dm, dml -> ld", c * b_bar, powers).real
    assert_close(2 * one_of_each_pair, s4d_kernel(a, c, dt, 6))


def test_sign_of_the_imaginary_part_is_no_bug():
    """Reported in state-spaces/s4#120: with conjugates of both A and C, the real part is the same."""
    a, c, dt = s4d_inputs()
    assert_close(s4d_kernel(a.conj(), c.conj(), dt, 6), s4d_kernel(a, c, dt, 6))


@pytest.mark.parametrize("omega", [0.0, 0.7, 5.0])
def test_newest_value_of_the_memory_is_the_input_up_to_omega_over_n(omega):
    """For u = e^{iωt} since ever, |u - Bᵀx| = ω / √(N² + ω²)."""
    for n in (1, 5, 40):
        a, b = hippo_legs(n)
        x = torch.linalg.solve(1j * omega * torch.eye(n, dtype=a.dtype) - a, b.to(torch.complex128))
        assert abs(1 - b.to(x.dtype) @ x).item() == pytest.approx(omega / math.hypot(n, omega), abs=1e-9)


def test_s4d_legs_answers_each_frequency_as_legs_does_in_the_limit_of_many_states():
    """Theorem 3 of S4D: A's normal part with half of B. With Bᵀx for u, both are the same equation."""
    gaps = []
    for n in (64, 512):
        eigenvalues, _, b, v = legs_normal_plus_low_rank(n)
        a, b_real = (x.to(v.dtype) for x in hippo_legs(n))
        for omega in (0.7, 5.0):
            ours = v @ (b / 2 / (1j * omega - eigenvalues))
            expected = torch.linalg.solve(1j * omega * torch.eye(n, dtype=a.dtype) - a, b_real)
            gaps.append(((ours - expected).norm() / expected.norm()).item())
    assert gaps[0] < 0.05
    assert gaps[1] < 0.2
    assert gaps[2] < gaps[0] / 2
    assert gaps[3] < gaps[1] / 2


def test_legs_without_its_1_over_t_has_exponentially_warped_kernels():
    """e^{tA} B = e^{-t} √(2i + 1) P_i(2e^{-t} - 1): what S4 remembers of age t."""
    a, b = hippo_legs(8)
    for t in (0.0, 0.3, 2.0):
        s = torch.tensor(math.exp(-t), dtype=torch.float64)
        assert_close(torch.from_numpy(scipy.linalg.expm(t * a.numpy())) @ b, s * legs_basis(s, 8))


def test_layer_is_the_sum_of_its_parts():
    torch.manual_seed(0)
    layer = S4D(3, state=8).double()
    u = normal(2, 17, 3)
    a, c, dt = layer.system()
    expected = convolved(u, by_loops(a, c, dt, 17).numpy()) + u * layer.D
    assert_close(layer(u), expected)


def test_layer_by_step_equals_convolution():
    torch.manual_seed(0)
    layer = S4D(3, state=8).double()
    u = normal(2, 17, 3)
    outputs, state = [], None
    for k in range(17):
        y, state = layer.step(u[:, k], state)
        outputs.append(y)
    assert_close(torch.stack(outputs, 1), layer(u))
    assert state.shape == (2, 3, 4)


def test_layer_gradients_reach_all_parameters_and_pass_gradcheck():
    torch.manual_seed(0)
    layer = S4D(2, state=4, dt_min=0.05).double()
    names, values = zip(*layer.named_parameters(), strict=True)

    def function(u, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), u)

    assert torch.autograd.gradcheck(function, (normal(1, 5, 2).requires_grad_(), *values))
    layer(normal(1, 5, 2)).sum().backward()
    assert all((p.grad != 0).any() for p in layer.parameters())


def test_layer_starts_as_s4d_lin_with_log_uniform_steps():
    torch.manual_seed(0)
    layer = S4D(2000)
    a, c, dt = layer.system()
    assert a.shape == c.shape == (2000, 32)
    assert_close(a.real, torch.full_like(a.real, -0.5))
    assert_close(a.imag[0], math.pi * torch.arange(32.0))
    assert dt.min() >= 0.001
    assert dt.max() <= 0.1001
    assert abs(dt.log().mean() - math.log(0.01)) < 0.15
    assert abs(c.abs().square().mean() - 1) < 0.02
    names = {"log_dt", "C", "log_A_real", "A_imag", "D"}
    assert {name for name, _ in layer.named_parameters()} == names
    assert sum(p.numel() for p in layer.parameters()) == 2000 * (2 * 64 + 2)


def test_layer_stays_stable_whatever_its_parameters():
    layer = S4D(2, state=4)
    with torch.no_grad():
        layer.log_A_real.fill_(5)
        layer.log_dt.fill_(3)
    assert (layer.system()[0].real < 0).all()
    assert layer(normal(1, 50, 2, dtype=torch.float32)).isfinite().all()


@HALVES
def test_layer_takes_16_bits(dtype):
    torch.manual_seed(0)
    layer = S4D(3, state=8)
    u = normal(2, 40, 3, dtype=dtype)
    exact = layer(u.float())
    y = layer(u)
    assert y.dtype == dtype
    assert (y.float() - exact).abs().max() <= 2 * (exact.to(dtype).float() - exact).abs().max() + 1e-6
    rounded = copy.deepcopy(layer).to(dtype)
    assert rounded(u).dtype == dtype
    y, state = rounded.step(u[:, 0])
    assert (y.dtype, state.dtype) == (dtype, torch.complex64)


def test_layer_takes_nothing():
    layer = S4D(3, state=4)
    for b, n in ((0, 5), (2, 0), (2, 1)):
        assert layer(torch.zeros(b, n, 3)).shape == (b, n, 3)


# Wrong input

A, B = torch.eye(3), torch.ones(3)
U = torch.zeros(2, 5, 3)
Z = torch.zeros(3, dtype=torch.complex64)
ZZ = torch.zeros(3, 4, dtype=torch.complex64)
WRONG = {
    "n of 0": (lambda: hippo_legs(0), "n must be 1 or larger, but is 0"),
    "no polynomials": (lambda: legs_basis(B, 0), "n must be 1 or larger, but is 0"),
    "integer s": (lambda: legs_basis(torch.arange(3), 2), r"s must be floating-point, but is torch\.int64"),
    "no states": (lambda: legs_normal_plus_low_rank(0), "n must be 1 or larger, but is 0"),
    "integer A": (lambda: discretize(A.long(), B.long(), 0.1), r"of one type, .* torch\.int64 and torch\.int64"),
    "types": (lambda: discretize(A, B.double(), 0.1), r"of one type, .* torch\.float32 and torch\.float64"),
    "A in 16 bits": (lambda: discretize(A.bfloat16(), B.bfloat16(), 0.1), "at least 32 bits a number"),
    "B as a column": (lambda: discretize(A, B[:, None], 0.1), r"two diagonals .* but are \(3, 3\) and \(3, 1\)"),
    "batch of matrices": (lambda: discretize(A[None], B[None], 0.1), r"but are \(1, 3, 3\) and \(1, 3\)"),
    "a step for each row": (lambda: discretize(A, B, B), r"dt must be real, and for a matrix a number .* \(3,\)"),
    "complex step": (lambda: discretize(B, B, Z), r"dt must be real, .* torch\.complex64"),
    "scipy's name": (
        lambda: discretize(A, B, 0.1, method="gbt"),
        'must be "euler", "bilinear" or "zoh", but is \'gbt\'',
    ),
    "method of the memory": (lambda: legs_memory(U[:, :0], 2, method="exact"), "but is 'exact'"),
    "one sequence": (lambda: legs_memory(U[0], 2), r"u must be floating-point and \(B, L, D\), but .* \(5, 3\)"),
    "integer signal": (
        lambda: legs_memory(U.long(), 2),
        r"u must be floating-point and \(B, L, D\), but is torch\.int64",
    ),
    "no coefficients": (lambda: legs_memory(U, 0), "n must be 1 or larger, but is 0"),
    "C of another size": (lambda: ssm_recurrence(U, A, B, B[:2]), r"must be \(N, N\), \(N,\) and \(N,\)"),
    "C of another type": (lambda: ssm_kernel(A, B, B.double(), 3), r"of one type .* torch\.float64"),
    "system in 16 bits": (lambda: ssm_kernel(A.half(), B.half(), B.half(), 3), "at least 32 bits a number"),
    "u of another type": (lambda: ssm_recurrence(U.double(), A, B, B), r"the type of the system, torch\.float32"),
    "state of another size": (
        lambda: ssm_recurrence(U, A, B, B, state=torch.zeros(2, 3)),
        r"the state must be \(B, D, N\) = \(2, 3, 3\) .* but is \(2, 3\)",
    ),
    "negative length": (lambda: ssm_kernel(A, B, B, -1), "length must not be negative, but is -1"),
    "negative length of S4": (lambda: s4_kernel(Z, Z, Z, Z, 0.1, -1), "length must not be negative, but is -1"),
    "negative length of S4D": (lambda: s4d_kernel(ZZ, ZZ, B, -1), "length must not be negative, but is -1"),
    "one kernel for all": (lambda: causal_convolution(U, torch.ones(5, 1)), r"kernel must be \(K, D\) with D = 3"),
    "kernel of no channel": (lambda: causal_convolution(U, torch.ones(5)), r"kernel must be \(K, D\) .* but is \(5,\)"),
    "kernel (D, L)": (lambda: causal_convolution(U, torch.ones(3, 5)), r"kernel must be \(K, D\) with D = 3"),
    "complex kernel": (lambda: causal_convolution(U, ZZ.mT), r"kernel must be floating-point, but is torch\.complex64"),
    "real vectors": (lambda: s4_kernel(B, B, B, B, 0.1, 4), r"of one complex type, but are \(3,\) torch\.float32"),
    "vectors of two sizes": (lambda: s4_kernel(Z, Z, Z, Z[:2], 0.1, 4), r"must be \(N,\) and of one complex type"),
    "Δ for each state": (lambda: s4d_kernel(ZZ, ZZ, B[:2], 4), r"dt \(D,\), but are \(3, 4\), \(3, 4\), \(2,\)"),
    "wider Δ": (lambda: s4d_kernel(ZZ, ZZ, B.double(), 4), r"dt of its real type, but are .* torch\.float64"),
    "width": (lambda: S4D(0), "width must be 1 or larger, but is 0"),
    "odd state": (lambda: S4D(3, state=5), "state must be even and at least 2, but is 5"),
    "steps": (lambda: S4D(3, dt_min=0.2), r"0 < dt_min ≤ dt_max is needed, but they are 0\.2 and 0\.1"),
    "channels first": (lambda: S4D(3)(U.mT), r"u must have 3 channels, but is \(2, 3, 5\)"),
    "sequence to step": (lambda: S4D(3).step(U), r"u must be floating-point and \(B, D\), but is .* \(2, 5, 3\)"),
    "real state": (
        lambda: S4D(3).step(U[:, 0], U),
        r"the state must be complex and \(2, 3, 32\), but is torch\.float32",
    ),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize(("call", "said"), WRONG.values(), ids=WRONG)
def test_refuses(call, said):
    with pytest.raises(ValueError, match=said):
        call()
