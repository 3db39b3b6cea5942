"""Mamba: a recurrence whose decay, writing and reading are computed from the input.

Sources: Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv
2312.00752, equations 2 and 4, algorithm 2 and section 3.4; the scan: Blelloch, Prefix Sums and
Their Applications, 1990.

Plain torch, to be read. Left out: complex a, B and C in groups, masks for padding, and the fused
kernel, which keeps the states (B, L, D, N) out of memory. Here they are all kept. States are in
float32 for types of fewer bits, also under autocast.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zhixing.foundations.autocast import autocast_off

Cache = tuple[Float[Tensor, "b k e"], Float[Tensor, "b e n"]]


def selective_scan(
    u: Float[Tensor, "b l d"],
    dt: Float[Tensor, "b l d"],
    a: Float[Tensor, "d n"],
    b: Float[Tensor, "b l n"],
    c: Float[Tensor, "b l n"],
    *,
    d: Float[Tensor, " d"] | None = None,
    z: Float[Tensor, "b l d"] | None = None,
    state: Float[Tensor, "b d n"] | None = None,
    exact_b: bool = False,
) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b d n"]]:
    """h ← e^{Δa} h + Δ b u, then y = c · h + d u: one state of N numbers for each channel.

    Equation 2 of arXiv 2312.00752 with Δ, b and c of each token, all tokens in 2 log₂ L steps.
    Equals mamba_ssm's `selective_scan_fn` for real A, in our layout: dt is Δ itself, so the bias
    and softplus of the original are up to the caller.

    Args:
        u: Inputs (B, L, D), in a floating-point type.
        dt: Step sizes Δ (B, L, D), at least 0. Where Δ = 0 the state stays as it is.
        a: Rates (D, N), at most 0: -exp(A_log) of a Mamba model.
        b: How each token is written (B, L, N), the same for all channels.
        c: How each token reads (B, L, N).
        d: Weights (D,) of the path past the state. None: 0.
        z: Gates (B, L, D): y is multiplied by silu(z). None: no gate.
        state: (B, D, N), what an earlier call returned. None: 0.
        exact_b: Multiply b u by (e^{Δa} - 1) / a, as in equation 4 of the paper, and not by Δ,
            as in its code.

    Returns:
        The outputs (B, L, D) of the type of u, and the state after the last token: in float64 for
        u in float64, in float32 for all others.

    Raises:
        ValueError: Shapes, types or devices do not fit; a step is negative; or a rate is positive.

    Examples:
        Δ a = ln ½ halves the state at each step. Δ = 0 holds it, whatever the input.

        >>> import torch
        >>> u, b = torch.tensor([[[4.0], [9.0], [9.0]]]), torch.ones(1, 3, 1)
        >>> dt, a = torch.tensor([[[1.0], [0.0], [0.0]]]), torch.tensor([[0.5]]).log()
        >>> y, state = selective_scan(u, dt, a, b, b)
        >>> y.flatten(), state.flatten()
        (tensor([4., 4., 4.]), tensor([4.]))
        >>> selective_scan(0 * u, dt + 1, a, b, b, state=state)[0].flatten()
        tensor([1.0000, 0.5000, 0.2500])
    """
    _check(u, dt, a, b, c, d, z, state)
    dtype = u.dtype
    wide = torch.promote_types(dtype, torch.float32)
    u, dt, a, b, c = (x.to(wide) for x in (u, dt, a, b, c))
    with autocast_off(u):
        # Factors and terms (B, L, D, N) of the recurrence h ← factor · h + term.
        exponents = dt[..., None] * a
        step = dt[..., None] * _mean_of_exp(exponents) if exact_b else dt[..., None]
        factors, terms = exponents.exp(), step * b[:, :, None] * u[..., None]
        if state is None:
            state = u.new_zeros(u.shape[0], *a.shape)
        else:
            state = state.to(wide)
            first = factors[:, :1] * state[:, None] + terms[:, :1]
            terms = torch.cat([first, terms[:, 1:]], dim=1)
        states = scan(factors, terms)
        y = (states @ c[..., None]).squeeze(-1)
        if d is not None:
            y = y + d.to(wide) * u
        if z is not None:
            y = y * F.silu(z.to(wide))
    return y.to(dtype), states[:, -1] if u.shape[1] else state


def combine(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two steps h ← factor · h + term, `left` first, as a single step of the same form.

    Associative, so that a scan may combine in any grouping; not commutative.

    Args:
        left: Factor and term of the earlier step, tensors of one shape.
        right: Factor and term of the later step.

    Returns:
        The factor and the term of both steps together.

    Examples:
        Doubling and adding 1, then tripling and adding 1; and the other way round.

        >>> import torch
        >>> double, triple = torch.tensor([2.0, 1.0]).unbind(), torch.tensor([3.0, 1.0]).unbind()
        >>> combine(double, triple), combine(triple, double)
        ((tensor(6.), tensor(4.)), (tensor(6.), tensor(3.)))
    """
    return right[0] * left[0], right[0] * left[1] + right[1]


def scan(
    factors: Float[Tensor, "b l ..."], terms: Float[Tensor, "b l ..."]
) -> Float[Tensor, "b l ..."]:
    """The states of L steps h ← factor · h + term from h = 0, along dimension 1.

    Pairs of neighbours make a problem of half the length; its states are those after every second
    step. Each state in between takes one step more. In 2 log₂ L rounds, not in L (Blelloch).

    Args:
        factors: (B, L, ...).
        terms: Of the same shape.

    Returns:
        The states after each step (B, L, ...).

    Examples:
        >>> import torch
        >>> scan(torch.full((1, 4), 0.5), torch.ones(1, 4))
        tensor([[1.0000, 1.5000, 1.7500, 1.8750]])
    """
    length = terms.shape[1]
    if length < 2:
        return terms
    even, odd = ((factors[:, start::2], terms[:, start::2]) for start in (0, 1))
    pairs = combine((even[0][:, : length // 2], even[1][:, : length // 2]), odd)
    after_odd = scan(*pairs)
    # Each even step but the first starts from the state after the odd one before it.
    rest = even[0][:, 1:] * after_odd[:, : (length - 1) // 2] + even[1][:, 1:]
    after_even = torch.cat([even[1][:, :1], rest], dim=1)
    return _interleaved(after_even, after_odd)


class MambaBlock(nn.Module):
    """Mamba's mixer: a short causal convolution, a selective scan and a gate.

    Figure 3 of arXiv 2312.00752, without the norm and the residual connection around it.
    Parameters have the names of transformers' `MambaMixer` and mamba_ssm's `Mamba`, whose weights
    it accepts. A_log, D and the bias of dt_proj should have no weight decay.

    Args:
        width: Channels of inputs and outputs.
        state: N, the numbers in the state of each inner channel.
        conv: Taps of the convolution.
        expand: The inner channels E are `expand` · width.

    Raises:
        ValueError: An argument is not a positive integer; when called, `x` is not (B, L, width) of
            a floating-point type, or the cache does not fit.

    Examples:
        >>> import torch
        >>> block = MambaBlock(32)
        >>> x = torch.randn(2, 10, 32)
        >>> y = block(x)
        >>> first, cache = block.step(x[:, :9])
        >>> last, cache = block.step(x[:, 9:], cache)
        >>> y.shape, torch.allclose(y[:, 9:], last, atol=1e-6)
        (torch.Size([2, 10, 32]), True)
    """

    def __init__(self, width: int, *, state: int = 16, conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        for name, size in (("width", width), ("state", state), ("conv", conv), ("expand", expand)):
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{name} must be a positive integer, but is {size!r}")
        inner, rank = expand * width, math.ceil(width / 16)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, conv, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():
            # The bias makes Δ = softplus(bias) log-uniform between 0.001 and 0.1.
            dt = torch.empty(inner).uniform_(math.log(0.001), math.log(0.1)).exp()
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x: Float[Tensor, "b l w"]) -> Float[Tensor, "b l w"]:
        return self.step(x)[0]

    def step(
        self, x: Float[Tensor, "b l w"], cache: Cache | None = None
    ) -> tuple[Float[Tensor, "b l w"], Cache]:
        """The outputs of one or more tokens, and the cache for the tokens after them.

        Args:
            x: (B, L, width): a whole prompt, or one token with L = 1.
            cache: What the call for the tokens before returned: the last inputs of the convolution
                (B, conv - 1, E) and the state of the scan (B, E, N). None: there were none.
        """
        width, inner = self.in_proj.in_features, self.D.shape[0]
        if x.ndim != 3 or x.shape[2] != width or not x.is_floating_point():
            raise ValueError(
                f"x must be floating-point and of shape (B, L, {width}), "
                f"but is {x.dtype} and {(*x.shape,)}"
            )
        recent, state = cache or (x.new_zeros(len(x), self.conv1d.kernel_size[0] - 1, inner), None)
        if recent.shape != (len(x), self.conv1d.kernel_size[0] - 1, inner):
            raise ValueError(
                f"the cache must hold {self.conv1d.kernel_size[0] - 1} inputs of {inner} channels "
                f"for each of {len(x)} sequences, but is of shape {(*recent.shape,)}"
            )
        u, z = self.in_proj(x).chunk(2, dim=-1)
        seen = torch.cat([recent.to(u.dtype), u], dim=1)
        if x.shape[1]:  # torch's convolution refuses fewer inputs than taps
            u = F.silu(self.conv1d(seen.mT).mT)
        n = self.A_log.shape[1]
        low, b, c = self.x_proj(u).split([self.dt_proj.in_features, n, n], dim=-1)
        # As in the original, Δ and a are computed in float32 also in a model of 16 bits.
        wide = torch.promote_types(u.dtype, torch.float32)
        dt = F.softplus(F.linear(low, self.dt_proj.weight).to(wide) + self.dt_proj.bias.to(wide))
        a = -self.A_log.to(wide).exp()
        y, state = selective_scan(u, dt, a, b, c, d=self.D, z=z, state=state)
        return self.out_proj(y), (seen[:, x.shape[1] :], state)


def _interleaved(even: Tensor, odd: Tensor) -> Tensor:
    """even[0], odd[0], even[1], … along dimension 1; `even` may have one entry more."""
    both = torch.stack([even[:, : odd.shape[1]], odd], dim=2).flatten(1, 2)
    return torch.cat([both, even[:, odd.shape[1] :]], dim=1)


def _mean_of_exp(x: Tensor) -> Tensor:
    """(e^x - 1) / x, the mean of the exponential between 0 and x; 1 at 0."""
    small = x.abs() < 0.05
    # 1 + x/2 + x²/6 + …: near 0, the derivative of the quotient would lose its digits.
    near, series = x.masked_fill(~small, 0), torch.ones_like(x)
    for k in range(9, 1, -1):
        series = 1 + near / k * series
    far = x.masked_fill(small, 1)
    return torch.where(small, series, far.expm1() / far)


def _check(
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None,
    z: Tensor | None,
    state: Tensor | None,
) -> None:
    if u.ndim != 3 or a.ndim != 2:
        raise ValueError(
            f"u must be (B, L, D) and a (D, N), but they are {(*u.shape,)} and {(*a.shape,)}"
        )
    (batch, length, channels), n = u.shape, a.shape[1]
    wanted = {
        "u": (u, (batch, length, channels)),
        "dt": (dt, (batch, length, channels)),
        "a": (a, (channels, n)),
        "b": (b, (batch, length, n)),
        "c": (c, (batch, length, n)),
        "d": (d, (channels,)),
        "z": (z, (batch, length, channels)),
        "state": (state, (batch, channels, n)),
    }
    for name, (x, shape) in wanted.items():
        if x is None:
            continue
        if x.shape != shape:
            raise ValueError(
                f"{name} must be of shape {shape} for u {(*u.shape,)} and a {(*a.shape,)}, "
                f"but is {(*x.shape,)}"
            )
        if not x.is_floating_point():
            raise ValueError(f"{name} must be of a floating-point type, but is {x.dtype}")
        if x.device != u.device:
            raise ValueError(f"{name} is on {x.device}, but u on {u.device}")
    if (dt < 0).any():
        raise ValueError(
            "dt must be at least 0, usually a softplus, "
            f"but its smallest element is {dt.min().item():.3g}"
        )
    if (a > 0).any():
        raise ValueError(
            "a must be at most 0, usually -exp(A_log), "
            f"but its largest element is {a.max().item():.3g}"
        )
