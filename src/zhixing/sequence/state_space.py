"""State-space models: HiPPO's memory, its discretisation, and the layers S4 and S4D built on it.

Sources: Gu et al., HiPPO, arXiv 2008.07669, theorem 2; Gu et al., Efficiently Modeling Long
Sequences with Structured State Spaces (S4), arXiv 2111.00396, section 3; Gu et al., On the
Parameterization and Initialization of Diagonal State Space Models (S4D), arXiv 2206.11893.

A is negative here, as in S4: x' = A x + B u. Plain torch, to be read. Left out: the measures other
than LegS, A and Δ that depend on the input, bidirectional kernels, the state after a convolution,
and fused kernels: the diagonal layer keeps D · N/2 · L complex numbers for its backward pass.
"""

import math

import torch
from jaxtyping import Complex, Float, Inexact
from torch import Tensor, nn

from zhixing.foundations.autocast import autocast_off


def hippo_legs(
    n: int, *, dtype: torch.dtype = torch.float64
) -> tuple[Float[Tensor, "n n"], Float[Tensor, " n"]]:
    """HiPPO-LegS: A and B of x' = (A x + B u) / t, whose state is u's Legendre coefficients.

    Theorem 2 of arXiv 2008.07669, with A's sign as in equation 2 of arXiv 2111.00396:
    A[i, j] = -√(2i + 1) √(2j + 1) below the diagonal, -(i + 1) on it, 0 above; B[i] = √(2i + 1).

    Args:
        n: N, how many coefficients: polynomials up to degree N - 1.
        dtype: The floating-point type of the results.

    Returns:
        A (N, N) and B (N,).

    Raises:
        ValueError: n is smaller than 1.

    Examples:
        >>> a, b = hippo_legs(3)
        >>> (a**2).round().int()
        tensor([[ 1,  0,  0],
                [ 3,  4,  0],
                [ 5, 15,  9]], dtype=torch.int32)
        >>> (b**2).round().int()
        tensor([1, 3, 5], dtype=torch.int32)
    """
    _check_at_least_one(n, "n")
    degree = torch.arange(n, dtype=torch.float64)
    b = (2 * degree + 1).sqrt()
    a = -(torch.outer(b, b).tril(-1) + torch.diag(degree + 1))
    return a.to(dtype), b.to(dtype)


def legs_basis(s: Float[Tensor, "*k"], n: int) -> Float[Tensor, "*k {n}"]:
    """Legendre polynomials on [0, 1] with mean square 1: √(2i + 1) P_i(2s - 1) for i < n.

    A state x of LegS stands for the function s ↦ `legs_basis(s, n) @ x`, where s = 0 is the
    beginning of the signal and s = 1 is now.

    Args:
        s: Where to evaluate them.
        n: How many polynomials.

    Returns:
        (..., n), of the type of s.

    Raises:
        ValueError: n is smaller than 1, or s is not floating-point.

    Examples:
        >>> import torch
        >>> legs_basis(torch.tensor([0.0, 0.5, 1.0]), 2)
        tensor([[ 1.0000, -1.7321],
                [ 1.0000,  0.0000],
                [ 1.0000,  1.7321]])
    """
    _check_at_least_one(n, "n")
    _check_floating(s, "s")
    x = 2 * s - 1
    p = [torch.ones_like(x), x]
    for i in range(1, n - 1):
        p.append(((2 * i + 1) * x * p[i] - i * p[i - 1]) / (i + 1))
    return torch.stack([math.sqrt(2 * i + 1) * p[i] for i in range(n)], dim=-1)


def discretize(
    a: Inexact[Tensor, "..."],
    b: Inexact[Tensor, "..."],
    dt: float | Float[Tensor, "..."],
    *,
    method: str = "bilinear",
) -> tuple[Inexact[Tensor, "..."], Inexact[Tensor, "..."]]:
    """From x' = A x + B u to x[k] = Ā x[k-1] + B̄ u[k], with steps of length Δ.

    - euler: Ā = I + Δ A, B̄ = Δ B.
    - bilinear: Ā = (I - Δ/2 A)⁻¹ (I + Δ/2 A), B̄ = (I - Δ/2 A)⁻¹ Δ B; equation 3 of S4.
    - zoh (zero-order hold): Ā = e^{Δ A}, B̄ = A⁻¹ (Ā - I) B; exact if u is constant during a step.

    Ā and B̄ are those of `scipy.signal.cont2discrete`, which changes C and D too for "bilinear",
    and whose systems are one step late: there the state x[k+1] is the first to see u[k].

    Args:
        a: A: a matrix (N, N), or a diagonal of any shape (..., N).
        b: B: (N,) for a matrix, and for a diagonal of the same shape as it. Of the type of a.
        dt: Δ > 0: a number or a tensor of no dimensions; for a diagonal, also a real tensor that
            broadcasts with it. It is not checked to be positive.
        method: "euler", "bilinear" or "zoh".

    Returns:
        Ā and B̄, both of the type of a.

    Raises:
        ValueError: Types or shapes do not fit, or the method is unknown.

    Examples:
        x' = -x + u with steps of 1: the state keeps 1/e, roughly 1/3, or nothing at all.

        >>> import torch
        >>> a, b = torch.tensor([[-1.0]]), torch.tensor([1.0])
        >>> [discretize(a, b, 1.0, method=m)[0].item() for m in ("zoh", "bilinear", "euler")]
        [0.3678794503211975, 0.3333333432674408, 0.0]
    """
    _check_method(method)
    _check_equation(a, b, dt)
    diagonal = a.shape == b.shape
    if isinstance(dt, Tensor):
        dt = dt.to(a.real.dtype)
    if method == "euler":
        return (1 + dt * a if diagonal else _eye(a) + dt * a), dt * b
    if method == "bilinear":
        if diagonal:
            inverse = 1 / (1 - dt / 2 * a)
            return inverse * (1 + dt / 2 * a), inverse * dt * b
        both = torch.cat([_eye(a) + dt / 2 * a, (dt * b)[:, None]], dim=1)
        both = torch.linalg.solve(_eye(a) - dt / 2 * a, both)
        return both[:, :-1], both[:, -1]
    if diagonal:
        # expm1, since e^{ΔA} - 1 loses digits where ΔA is small; and its quotient 0/0 is Δ.
        zero = a == 0
        quotient = torch.expm1(dt * a) / a.masked_fill(zero, 1)
        integral = torch.where(zero, dt * torch.ones_like(a), quotient)
        return torch.exp(dt * a), integral * b
    # The exponential of [[ΔA, ΔB], [0, 0]] holds both, and needs no inverse of A.
    both = torch.cat([dt * a, (dt * b)[:, None]], dim=1)
    both = torch.linalg.matrix_exp(torch.cat([both, torch.zeros_like(both[:1])]))
    return both[:-1, :-1], both[:-1, -1]


def legs_memory(
    u: Float[Tensor, "b l d"], n: int, *, method: str = "zoh"
) -> Float[Tensor, "b l d {n}"]:
    """HiPPO-LegS of each channel: after each sample, the Legendre coefficients of all so far.

    In logarithmic time τ = ln t, x' = (A x + B u) / t is x' = A x + B u: the step from k samples to
    k + 1 is one of length Δ = ln((k + 1) / k). The first sample is a constant, so x = (u, 0, …, 0).

    Args:
        u: Samples (B, L, D); u[:, k] is the value from time k to time k + 1.
        n: N, how many coefficients.
        method: "zoh": exact for these steps. Or "bilinear" or "euler", as in `discretize`.
            The paper's Euler step takes Δ = 1/k, which is the same to first order.

    Returns:
        (B, L, D, N), of the type of u. `legs_basis(s, n) @ x` is the polynomial of degree N - 1
        nearest to the k samples, in mean square; s = (i + ½) / k is in the middle of sample i.

    Raises:
        ValueError: u is not (B, L, D) or not floating-point, n is smaller than 1, or the method is
            unknown.

    Examples:
        The first coefficient is the mean so far; the second, how the signal slopes.

        >>> import torch
        >>> u = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 4, 1)
        >>> x = legs_memory(u, 2)
        >>> x[0, :, 0, 0]
        tensor([0.0000, 0.5000, 1.0000, 1.5000])
        >>> x[0, -1, 0, 1] > 0
        tensor(True)
    """
    _check_signal(u)
    _check_at_least_one(n, "n")
    _check_method(method)
    a, b = (x.to(u.device) for x in hippo_legs(n, dtype=_wide(u.dtype)))
    samples = u.to(a.dtype)[..., None]
    constant = torch.eye(n, dtype=a.dtype, device=u.device)[0]
    states = [samples[:, :1] * constant]
    with autocast_off(u):
        for k in range(1, u.shape[1]):
            a_bar, b_bar = discretize(a, b, math.log((k + 1) / k), method=method)
            states.append(states[-1] @ a_bar.mT + samples[:, k : k + 1] * b_bar)
    return torch.cat(states, dim=1).to(u.dtype)


def ssm_recurrence(
    u: Float[Tensor, "b l d"],
    a_bar: Float[Tensor, "n n"],
    b_bar: Float[Tensor, " n"],
    c: Float[Tensor, " n"],
    *,
    state: Float[Tensor, "b d n"] | None = None,
) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b d n"]]:
    """Step by step: x[k] = Ā x[k-1] + B̄ u[k], y[k] = C x[k], the same system for each channel.

    Equation 3 of arXiv 2111.00396, without its D u[k].

    Args:
        u: Inputs (B, L, D), of the type of the matrices.
        a_bar: Ā (N, N), from `discretize`.
        b_bar: B̄ (N,).
        c: C (N,).
        state: x (B, D, N), what an earlier call returned. None: 0.

    Returns:
        The outputs (B, L, D), and the state after the last step.

    Raises:
        ValueError: Types or shapes do not fit.

    Examples:
        >>> import torch
        >>> half, one = torch.tensor([[0.5]]), torch.tensor([1.0])
        >>> y, state = ssm_recurrence(torch.ones(1, 3, 1), half, one, one)
        >>> y.flatten()
        tensor([1.0000, 1.5000, 1.7500])
        >>> ssm_recurrence(torch.ones(1, 1, 1), half, one, one, state=state)[0].flatten()
        tensor([1.8750])
    """
    _check_signal(u)
    _check_system(a_bar, b_bar, c)
    if u.dtype != a_bar.dtype:
        raise ValueError(f"u must be of the type of the system, {a_bar.dtype}, but is {u.dtype}")
    shape = u.shape[0], u.shape[2], len(c)
    if state is None:
        x = u.new_zeros(shape)
    elif state.shape != shape or state.dtype != u.dtype:
        raise ValueError(
            f"the state must be (B, D, N) = {shape} and of type {u.dtype}, "
            f"but is {(*state.shape,)} and {state.dtype}"
        )
    else:
        x = state
    outputs = [u[:, :0]]
    with autocast_off(u):
        for k in range(u.shape[1]):
            x = x @ a_bar.mT + u[:, k, :, None] * b_bar
            outputs.append((x @ c)[:, None])
    return torch.cat(outputs, dim=1), x


def ssm_kernel(
    a_bar: Inexact[Tensor, "n n"],
    b_bar: Inexact[Tensor, " n"],
    c: Inexact[Tensor, " n"],
    length: int,
) -> Inexact[Tensor, " {length}"]:
    """The impulse response: C B̄, C Ā B̄, C Ā² B̄, …; equation 5 of arXiv 2111.00396.

    `causal_convolution` with it is what `ssm_recurrence` computes from state 0. Each entry takes a
    product of matrix and vector; `s4_kernel` and `s4d_kernel` are the fast ways.

    Args:
        a_bar: Ā (N, N), from `discretize`.
        b_bar: B̄ (N,).
        c: C (N,).
        length: L, how many entries.

    Returns:
        (L,), of the type of the system.

    Raises:
        ValueError: Types or shapes do not fit, or the length is negative.

    Examples:
        >>> import torch
        >>> ssm_kernel(torch.tensor([[0.5]]), torch.tensor([1.0]), torch.tensor([3.0]), 4)
        tensor([3.0000, 1.5000, 0.7500, 0.3750])
    """
    _check_system(a_bar, b_bar, c)
    _check_length(length)
    x, entries = b_bar, []
    with autocast_off(c):
        for _ in range(length):
            entries.append(c @ x)
            x = a_bar @ x
    return torch.stack(entries) if entries else c[:0]


def causal_convolution(
    u: Float[Tensor, "b l d"], kernel: Float[Tensor, "k d"]
) -> Float[Tensor, "b l d"]:
    """y[k] = Σ kernel[j] u[k - j] over 0 ≤ j ≤ k, for each channel, by the fast Fourier transform.

    The transform has L + K entries: with only L, the end of the product would wrap around to its
    beginning.

    Args:
        u: Inputs (B, L, D), in a floating-point type.
        kernel: (K, D): a kernel for each channel, of any length. What goes beyond L is not used.

    Returns:
        (B, L, D), of the type of u. Types of fewer than 32 bits are computed in float32.

    Raises:
        ValueError: Types or shapes do not fit.

    Examples:
        >>> import torch
        >>> u, kernel = torch.tensor([1.0, 0.0, 2.0]).view(1, 3, 1), torch.tensor([[1.0], [0.5]])
        >>> causal_convolution(u, kernel).flatten().round(decimals=4)
        tensor([1.0000, 0.5000, 2.0000])
    """
    _check_signal(u)
    _check_floating(kernel, "kernel")
    if kernel.ndim != 2 or kernel.shape[1] != u.shape[2]:
        raise ValueError(f"kernel must be (K, D) with D = {u.shape[2]}, but is {(*kernel.shape,)}")
    length = u.shape[1]
    kernel = kernel[:length]
    if u.numel() == 0 or len(kernel) == 0:
        return torch.zeros_like(u)
    dtype = torch.promote_types(_wide(u.dtype), _wide(kernel.dtype))
    size = length + len(kernel)
    u_hat = torch.fft.rfft(u.to(dtype), size, dim=1)
    kernel_hat = torch.fft.rfft(kernel.to(dtype), size, dim=0)
    return torch.fft.irfft(u_hat * kernel_hat, size, dim=1)[:, :length].to(u.dtype)


def legs_normal_plus_low_rank(
    n: int,
) -> tuple[
    Complex[Tensor, " {n}"],
    Complex[Tensor, " {n}"],
    Complex[Tensor, " {n}"],
    Complex[Tensor, "{n} {n}"],
]:
    """LegS in a basis in which it is diagonal minus rank one: V* A V = diag(λ) - p p*.

    Theorem 1 of arXiv 2111.00396. A + P Pᵀ with P[i] = √(i + ½) is -½ I plus a skew-symmetric
    matrix, so it is normal, and V is unitary. λ alone is the diagonal of S4D-LegS.

    Args:
        n: N, the number of states.

    Returns:
        λ (N,) by increasing imaginary part, p = V* P (N,), V* B (N,), and V (N, N), in complex128.

    Raises:
        ValueError: n is smaller than 1.

    Examples:
        >>> eigenvalues, p, b, v = legs_normal_plus_low_rank(4)
        >>> eigenvalues.real
        tensor([-0.5000, -0.5000, -0.5000, -0.5000], dtype=torch.float64)
    """
    a, b = hippo_legs(n)
    p = (torch.arange(n, dtype=torch.float64) + 0.5).sqrt()
    skew = a + torch.outer(p, p) + 0.5 * _eye(a)
    # -i times a skew-symmetric matrix is Hermitian, so `eigh` finds a unitary V.
    frequencies, v = torch.linalg.eigh(-1j * skew)
    return -0.5 + 1j * frequencies, v.mH @ p.to(v.dtype), v.mH @ b.to(v.dtype), v


def s4_kernel(
    eigenvalues: Complex[Tensor, " n"],
    p: Complex[Tensor, " n"],
    b: Complex[Tensor, " n"],
    c: Complex[Tensor, " n"],
    dt: float,
    length: int,
) -> Float[Tensor, " {length}"]:
    """S4's kernel: of A = diag(λ) - p p*, discretised by the bilinear rule, in O(N L) and one FFT.

    Section 3.3 and algorithm 1 of arXiv 2111.00396: the generating function of the kernel at the L
    roots of unity, where Woodbury's identity leaves only sums over N.

    S4 learns C (I - Ā^L) in place of C. Here C is given, so Ā^L is computed, once.

    Args:
        eigenvalues: λ (N,).
        p: (N,).
        b: B in the eigenbasis, V* B (N,).
        c: C in the eigenbasis, C V (N,), of which no conjugate is taken.
        dt: Δ.
        length: L.

    Returns:
        (L,): the real parts of the kernel, which is real if A, B and C are, in some real basis.

    Raises:
        ValueError: Types or shapes do not fit, or the length is negative.

    Examples:
        >>> import torch
        >>> eigenvalues = torch.tensor([-1 + 2j, -1 - 2j], dtype=torch.complex128)
        >>> p = b = c = torch.ones(2, dtype=torch.complex128)
        >>> kernel = s4_kernel(eigenvalues, p, b, c, 0.1, 100)
        >>> half, eye = 0.05 * (eigenvalues.diag() - p.outer(p.conj())), torch.eye(2)
        >>> step = torch.linalg.solve(eye - half, eye + half)
        >>> first = torch.linalg.solve(eye - half, 0.1 * b)
        >>> slow = [(c @ step.matrix_power(k) @ first).real for k in range(100)]
        >>> torch.allclose(kernel, torch.stack(slow))
        True
    """
    vectors = eigenvalues, p, b, c
    one_type = len({(x.shape, x.dtype) for x in vectors}) == 1
    if not one_type or eigenvalues.ndim != 1 or not eigenvalues.is_complex():
        found = ", ".join(f"{(*x.shape,)} {x.dtype}" for x in vectors)
        raise ValueError(f"λ, p, B and C must be (N,) and of one complex type, but are {found}")
    _check_length(length)
    if length == 0:
        return eigenvalues.real[:0]
    a = torch.diag(eigenvalues) - torch.outer(p, p.conj())
    a_bar, _ = discretize(a, b, dt)
    c = c - c @ torch.linalg.matrix_power(a_bar, length)
    k = torch.arange(length, dtype=eigenvalues.real.dtype, device=eigenvalues.device)
    z = torch.exp(-2j * math.pi / length * k)[:, None]
    # (1 + z) times the resolvent of the paper's g(z) = 2/Δ (1 - z) / (1 + z): finite at z = -1.
    r = 1 / (2 / dt * (1 - z) - (1 + z) * eigenvalues)
    z = z[:, 0]
    through_p = (1 + z) * (r @ (c * p)) * (r @ (p.conj() * b))
    rank_one = through_p / (1 + (1 + z) * (r @ (p.conj() * p)))
    return torch.fft.ifft(2 * (r @ (c * b) - rank_one)).real


def s4d_kernel(
    a: Complex[Tensor, "d m"], c: Complex[Tensor, "d m"], dt: Float[Tensor, " d"], length: int
) -> Float[Tensor, "{length} d"]:
    """S4D's kernels, by zero-order hold: 2 Re Σ c (e^{Δa} - 1) / a · e^{Δ a k} for k = 0, …, L - 1.

    Section 3 of arXiv 2206.11893, with B = 1. a holds one eigenvalue of each conjugate pair, hence
    twice the real part.

    Args:
        a: Eigenvalues (D, M): D channels with N = 2 M states, half of which are listed.
        c: C · B (D, M), of the type of a.
        dt: Δ (D,), of the corresponding real type.
        length: L.

    Returns:
        (L, D).

    Raises:
        ValueError: Types or shapes do not fit, or the length is negative.

    Examples:
        >>> import torch
        >>> a = torch.tensor([[-0.5 + 0j]])  # one decay, no oscillation
        >>> kernel = s4d_kernel(a, torch.ones_like(a), torch.tensor([1.0]), 3)
        >>> kernel[1:] / kernel[:-1]
        tensor([[0.6065],
                [0.6065]])
    """
    if a.ndim != 2 or a.shape != c.shape or dt.shape != a.shape[:1]:
        raise ValueError(
            "a and c must be (D, M) and dt (D,), "
            f"but are {(*a.shape,)}, {(*c.shape,)}, {(*dt.shape,)}"
        )
    if not a.is_complex() or a.dtype != c.dtype or dt.dtype != a.real.dtype:
        raise ValueError(
            "a and c must be of one complex type and dt of its real type, "
            f"but are {a.dtype}, {c.dtype}, {dt.dtype}"
        )
    _check_length(length)
    _, b_bar = discretize(a, torch.ones_like(a), dt[:, None], method="zoh")
    steps = torch.arange(length, dtype=dt.dtype, device=a.device)
    powers = torch.exp((dt[:, None] * a)[..., None] * steps)
    return 2 * (c * b_bar).unsqueeze(-2).matmul(powers).squeeze(-2).real.mT


class S4D(nn.Module):
    """Diagonal state-space layer, S4D-Lin: a long convolution to train, a recurrence to generate.

    Sections 3 and 4 of arXiv 2206.11893. For each channel, y = 2 Re(C x) + D u of the diagonal
    system with A = -½ + iπn at first. The names of the parameters are those of the minimal `S4D`
    of state-spaces/s4 and of its `kernel`. This is its convolution and D u alone: no GELU, dropout
    or mixing of channels, which a block needs.

    A is -exp(log_A_real) + i A_imag, so that its real part stays negative, and Δ is exp(log_dt).
    Give log_A_real, A_imag and log_dt no weight decay, and a learning rate of at most 0.001.
    In a model, look for these names in the last part of each parameter's name.

    Args:
        width: D, the number of channels.
        state: N, the number of states of each channel, even; N/2 complex numbers are kept.
        dt_min: The smallest Δ drawn; they are log-uniform, a Δ for each channel. For inputs of more
            than some 1,000 steps, choose about 1/L.
        dt_max: The largest.

    Raises:
        ValueError: A size is not positive, the state is odd, or not 0 < dt_min ≤ dt_max.

    Examples:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> layer = S4D(8)
        >>> layer(torch.randn(2, 100, 8)).shape
        torch.Size([2, 100, 8])
    """

    def __init__(
        self, width: int, *, state: int = 64, dt_min: float = 0.001, dt_max: float = 0.1
    ) -> None:
        super().__init__()
        _check_at_least_one(width, "width")
        if state < 2 or state % 2:
            raise ValueError(f"state must be even and at least 2, but is {state}")
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"0 < dt_min ≤ dt_max is needed, but they are {dt_min} and {dt_max}")
        low, high = math.log(dt_min), math.log(dt_max)
        self.log_dt = nn.Parameter(low + (high - low) * torch.rand(width))
        self.C = nn.Parameter(torch.randn(width, state // 2, 2) * 0.5**0.5)
        self.log_A_real = nn.Parameter(torch.full((width, state // 2), 0.5).log())
        self.A_imag = nn.Parameter(math.pi * torch.arange(state // 2.0).repeat(width, 1))
        self.D = nn.Parameter(torch.randn(width))

    def system(
        self,
    ) -> tuple[Complex[Tensor, "d m"], Complex[Tensor, "d m"], Float[Tensor, " d"]]:
        """A and C, of which each entry stands for a conjugate pair, and Δ; in float32 or wider."""
        log_dt, c, log_a_real, a_imag = (
            x.to(_wide(x.dtype)) for x in (self.log_dt, self.C, self.log_A_real, self.A_imag)
        )
        return torch.complex(-log_a_real.exp(), a_imag), torch.view_as_complex(c), log_dt.exp()

    def forward(self, u: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """All outputs at once, by a convolution: (B, L, D) to (B, L, D). No state is returned."""
        _check_signal(u)
        self._check_width(u)
        wide = u.to(_wide(u.dtype))
        y = causal_convolution(wide, s4d_kernel(*self.system(), u.shape[1])) + self.D * wide
        return y.to(u.dtype)

    def step(
        self, u: Float[Tensor, "b d"], state: Complex[Tensor, "b d m"] | None = None
    ) -> tuple[Float[Tensor, "b d"], Complex[Tensor, "b d m"]]:
        """One step of the recurrence: the next input (B, D) to the next output, and the state."""
        if u.ndim != 2 or not u.is_floating_point():
            raise ValueError(
                f"u must be floating-point and (B, D), but is {u.dtype} and {(*u.shape,)}"
            )
        self._check_width(u)
        a, c, dt = self.system()
        shape = len(u), *a.shape
        if state is None:
            state = torch.zeros(shape, dtype=a.dtype, device=u.device)
        elif state.shape != shape or not state.is_complex():
            raise ValueError(
                f"the state must be complex and {shape}, but is {state.dtype} and {(*state.shape,)}"
            )
        a_bar, b_bar = discretize(a, torch.ones_like(a), dt[:, None], method="zoh")
        state = a_bar * state + b_bar * u[..., None]
        y = 2 * (c * state).sum(-1).real + self.D * u
        return y.to(u.dtype), state

    def _check_width(self, u: Tensor) -> None:
        if u.shape[-1] != len(self.D):
            raise ValueError(f"u must have {len(self.D)} channels, but is {(*u.shape,)}")


_TYPES = torch.float32, torch.float64, torch.complex64, torch.complex128


def _eye(a: Tensor) -> Tensor:
    return torch.eye(len(a), dtype=a.dtype, device=a.device)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """float64 for it, and float32 for all others."""
    return torch.promote_types(dtype, torch.float32)


def _check_at_least_one(n: int, name: str) -> None:
    if n < 1:
        raise ValueError(f"{name} must be 1 or larger, but is {n}")


def _check_floating(x: Tensor, name: str) -> None:
    if not x.is_floating_point():
        raise ValueError(f"{name} must be floating-point, but is {x.dtype}")


def _check_length(length: int) -> None:
    if length < 0:
        raise ValueError(f"length must not be negative, but is {length}")


def _check_method(method: str) -> None:
    if method not in ("euler", "bilinear", "zoh"):
        raise ValueError(f'method must be "euler", "bilinear" or "zoh", but is {method!r}')


def _check_equation(a: Tensor, b: Tensor, dt: float | Tensor) -> None:
    # In 16 bits, e^{Δ A} would round to 1 for many Δ.
    if a.dtype != b.dtype or a.dtype not in _TYPES:
        raise ValueError(
            "A and B must be of one type, real or complex, of at least 32 bits a number, "
            f"but are {a.dtype} and {b.dtype}"
        )
    diagonal = a.shape == b.shape
    if not (diagonal or (a.ndim == 2 and a.shape == (*b.shape, *b.shape))):
        raise ValueError(
            "A and B must be (N, N) and (N,), or two diagonals of the same shape, "
            f"but are {(*a.shape,)} and {(*b.shape,)}"
        )
    if isinstance(dt, Tensor) and not (dt.is_floating_point() and (diagonal or dt.ndim == 0)):
        raise ValueError(
            "dt must be real, and for a matrix a number or a tensor of no dimensions, "
            f"but is {dt.dtype} of shape {(*dt.shape,)}"
        )


def _check_signal(u: Tensor) -> None:
    if u.ndim != 3 or not u.is_floating_point():
        raise ValueError(
            f"u must be floating-point and (B, L, D), but is {u.dtype} and {(*u.shape,)}"
        )


def _check_system(a_bar: Tensor, b_bar: Tensor, c: Tensor) -> None:
    fit = b_bar.ndim == 1 and a_bar.shape == (len(b_bar), len(b_bar)) and c.shape == b_bar.shape
    if not fit or len({a_bar.dtype, b_bar.dtype, c.dtype}) > 1 or c.dtype not in _TYPES:
        found = ", ".join(f"{(*x.shape,)} {x.dtype}" for x in (a_bar, b_bar, c))
        raise ValueError(
            "Ā, B̄ and C must be (N, N), (N,) and (N,), of one type of at least 32 bits a number, "
            f"but are {found}"
        )
