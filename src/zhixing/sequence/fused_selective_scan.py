"""Mamba's selective scan on a GPU, without its states (B, L, D, N) in memory.

Source: Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv
2312.00752, section 3.3.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

TYPES = (torch.float16, torch.bfloat16, torch.float32)
LARGEST_STATE = 256


def fused_selective_scan(
    u: Float[Tensor, "b l d"],
    dt: Float[Tensor, "b l d"],
    a: Float[Tensor, "d n"],
    b: Float[Tensor, "b l n"] | Float[Tensor, "b l g n"],
    c: Float[Tensor, "b l n"] | Float[Tensor, "b l g n"],
    *,
    d: Float[Tensor, " d"] | None = None,
    z: Float[Tensor, "b l d"] | None = None,
    dt_bias: Float[Tensor, " d"] | None = None,
    dt_softplus: bool = False,
    state: Float[Tensor, "b d n"] | None = None,
) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b d n"]]:
    """`selective_scan` by Triton kernels: h ← e^{Δa} h + Δ b u, then y = (c · h + d u) silu(z).

    The same as mamba-ssm's `selective_scan_fn` for real A, which a model can replace by

        lambda u, dt, A, B, C, D, z, bias, softplus: fused_selective_scan(
            u.mT, dt.mT, A, B.movedim(-1, 1), C.movedim(-1, 1),
            d=D, z=z.mT, dt_bias=bias, dt_softplus=softplus,
        )[0].mT

    without copies, since any strides will do. What it has not: a first state, and the gradient
    through the last one.

    Differentiable once, in all tensors, through the outputs and the last state, by backward; not in
    forward mode, nor by `torch.func.grad`. Works under `torch.compile`; autocast leaves the types
    alone. All is computed in float32, and only y and the gradients are rounded to the types of u
    and the others. The backward pass computes the states again, and keeps one of 8 while it runs.
    Once a shape has been called, which tunes the kernels, the same call gives the same bits.

    Left out: complex a; the product of equation 4 of the paper for b, where the code and this have
    Δ b; sequences of several lengths in one call; float64. One token costs as much as eight.

    Args:
        u: Inputs (B, L, D), float16, bfloat16 or float32. Each of the others is of one of these
            types too; neither they nor u need be contiguous.
        dt: Step sizes (B, L, D): Δ, or what it is computed from. Where Δ = 0 the state stays as it
            is; Δ < 0 is not checked.
        a: Rates (D, N), N at most 256, at most 0, which is not checked: -exp(A_log) of a model.
        b: How each token is written, (B, L, N), or (B, L, G, N) where G divides D: channel i has
            group i // (D / G).
        c: How each token reads, of the same shape.
        d: Weights (D,) of the path past the state. None: 0.
        z: Gates (B, L, D): y is multiplied by silu(z). None: no gate.
        dt_bias: (D,), added to dt. None: 0.
        dt_softplus: Δ = softplus(dt + dt_bias); dt + dt_bias without.
        state: (B, D, N), what an earlier call returned. None: 0.

    Returns:
        The outputs (B, L, D), of u's type and laid out in memory as u is, and the state after the
        last token, in float32.

    Raises:
        ValueError: Shapes, types or devices do not fit; or N is not between 1 and 256.
        RuntimeError: There is neither a GPU nor Triton's interpreter; or the GPU's compute
            capability is below 8.0.
        ModuleNotFoundError: There is no Triton.
        NotImplementedError: Forward-mode differentiation, as in `torch.func.jvp`.

    Examples:
        Δ a = ln ½ halves the state at each step. Δ = 0 holds it, whatever the input.

        >>> import torch
        >>> device = "cuda" if torch.cuda.is_available() else "cpu"  # TRITON_INTERPRET=1 without
        >>> u = torch.tensor([[[4.0], [9.0], [9.0]]], device=device)
        >>> dt = torch.tensor([[[1.0], [0.0], [0.0]]], device=device)
        >>> a, b = torch.tensor([[0.5]], device=device).log(), torch.ones_like(u)
        >>> y, state = fused_selective_scan(u, dt, a, b, b)
        >>> y.flatten().tolist()
        [4.0, 4.0, 4.0]
        >>> y, _ = fused_selective_scan(0 * u, b, a, b, b, state=state)
        >>> [round(x, 4) for x in y.flatten().tolist()]
        [2.0, 1.0, 0.5]
    """
    _check(u, dt, a, b, c, d, z, dt_bias, state)
    a, d, dt_bias, state = (None if x is None else x.float() for x in (a, d, dt_bias, state))
    b, c = (x if x.ndim == 4 else x[:, :, None] for x in (b, c))
    given = (u, dt, a, b, c, d, z, dt_bias, state)
    # A custom operator drops tangents silently.
    if any(x is not None and unpack_dual(x).tangent is not None for x in given):
        raise NotImplementedError(
            "fused_selective_scan has no forward mode (torch.func.jvp, jacfwd): call selective_scan"
        )
    return _fused_forward(*given, dt_softplus)


def _check(
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor | None,
) -> None:
    if u.ndim != 3 or a.ndim != 2 or b.ndim not in (3, 4):
        raise ValueError(
            "u must be (B, L, D), a (D, N) and b (B, L, N) or (B, L, G, N), "
            f"but they are {(*u.shape,)}, {(*a.shape,)} and {(*b.shape,)}"
        )
    (batch, length, channels), n = u.shape, a.shape[1]
    groups = b.shape[2:-1]
    wanted = {
        "u": (u, (batch, length, channels)),
        "dt": (dt, (batch, length, channels)),
        "a": (a, (channels, n)),
        "b": (b, (batch, length, *groups, n)),
        "c": (c, (batch, length, *groups, n)),
        "d": (d, (channels,)),
        "z": (z, (batch, length, channels)),
        "dt_bias": (dt_bias, (channels,)),
        "state": (state, (batch, channels, n)),
    }
    for name, (x, shape) in wanted.items():
        if x is None:
            continue
        if x.shape != shape:
            raise ValueError(
                f"{name} must be of shape {shape} for u {(*u.shape,)}, a {(*a.shape,)} and b "
                f"{(*b.shape,)}, but is {(*x.shape,)}"
            )
        if x.dtype not in TYPES:
            raise ValueError(
                f"{name} must be float16, bfloat16 or float32, but is {x.dtype}: for float64, call "
                "selective_scan"
            )
        if x.device != u.device:
            raise ValueError(f"{name} is on {x.device}, but u on {u.device}")
    if not 0 < n <= LARGEST_STATE:
        raise ValueError(f"N must be between 1 and {LARGEST_STATE}, but is {n}")
    if groups and (groups[0] == 0 or channels % groups[0]):
        raise ValueError(
            f"the number of groups of b and c must divide the {channels} channels, but is "
            f"{groups[0]}"
        )


# Custom operators: torch.compile does not trace into them, but knows their shapes and gradients.


@torch.library.custom_op("zhixing::fused_selective_scan", mutates_args=())
def _fused_forward(
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor | None,
    softplus: bool,
) -> tuple[Tensor, Tensor]:
    """The outputs and the last state; b and c are (B, L, G, N), and float32 is what need be."""
    _check_on_gpu(u)
    from zhixing.sequence.selective_scan_triton import _launch_forward

    return _launch_forward(u, dt, a, b, c, d, z, dt_bias, state, softplus)


@torch.library.custom_op("zhixing::fused_selective_scan_backward", mutates_args=())
def _fused_backward(
    d_y: Tensor,
    d_last: Tensor,
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor | None,
    softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the tensors of `_fused_forward`; those of None are of no use."""
    from zhixing.sequence.selective_scan_triton import _launch_backward

    return _launch_backward(d_y, d_last, u, dt, a, b, c, d, z, dt_bias, state, softplus)


@_fused_forward.register_fake
def _(u, dt, a, b, c, d, z, dt_bias, state, softplus):
    return torch.empty_like(u), _new(u, u.shape[0], *a.shape)


@_fused_backward.register_fake
def _(d_y, d_last, u, dt, a, b, c, d, z, dt_bias, state, softplus):
    of_z = _new(u, 0) if z is None else torch.empty_like(z)
    of_d, of_bias = (_new(u, 0 if x is None else a.shape[0]) for x in (d, dt_bias))
    of_b, of_c = (x.new_empty(x.shape) for x in (b, c))
    of_u, of_dt = torch.empty_like(u), torch.empty_like(dt)
    return of_u, of_dt, _new(u, *a.shape), of_b, of_c, of_d, of_z, of_bias, _new(u, *d_last.shape)


def _new(x, *shape):
    return x.new_empty(shape, dtype=torch.float32)


def _keep(ctx, inputs, output):
    *tensors, ctx.softplus = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx, d_y, d_last):
    tensors = ctx.saved_tensors
    gradients = _fused_backward(d_y, d_last, *tensors, ctx.softplus)
    wanted = (None if x is None else d_x for x, d_x in zip(tensors, gradients, strict=True))
    return *wanted, None


_fused_forward.register_autograd(_gradients, setup_context=_keep)


def _check_on_gpu(u: Tensor) -> None:
    from zhixing.sequence.selective_scan_triton import INTERPRETER

    if u.device.type != "cuda" and not INTERPRETER:
        raise RuntimeError(
            f"fused_selective_scan runs on a GPU, but u is on {u.device}: move all tensors to one "
            "with u.to('cuda'); or set TRITON_INTERPRET=1 before Python starts, and Triton's "
            "interpreter runs the kernels on the CPU, slowly; or call selective_scan"
        )
