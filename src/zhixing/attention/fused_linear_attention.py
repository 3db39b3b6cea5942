"""Chunked linear attention on a GPU, with a decay for each head and token: one kernel for many.

Linear attention (Katharopoulos et al., arXiv 2006.16236), RetNet (Sun et al., arXiv 2307.08621),
Lightning Attention-2 (Qin et al., arXiv 2401.04658) and Mamba-2 (Dao and Gu, arXiv 2405.21060) are
this computation with another decay, scale or normalisation.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from zhixing.attention.arguments import check_features
from zhixing.attention.linear_attention import State, _check_per_token

TYPES = (torch.float16, torch.bfloat16, torch.float32)
LARGEST_HEAD = 256


def fused_linear_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n e"],
    *,
    log_decay: Float[Tensor, "b h n"] | None = None,
    state: State | None = None,
    scale: float | None = None,
    normalize: bool = False,
) -> tuple[Float[Tensor, "b h n e"], State]:
    """`chunked_linear_attention` by Triton kernels: no chunk's products are written to memory.

    S ← e^{log_decay} S + k vᵀ, then o = scale · Sᵀ q, for each token. Features are the caller's:
    q and k are taken as they are. For RetNet, give a constant log decay for each head and q and k
    rotated by position, and normalise the output; for Mamba-2, q = C, k = B, v = Δ x and
    log_decay = Δ A, with scale=1.

    Differentiable once, in all tensors, through the outputs and the last state, by backward; not in
    forward mode, nor by `torch.func.grad`. Works under `torch.compile`; autocast leaves the types
    alone. States and sums are kept in float32, and a state is rounded to TF32 where it is
    multiplied by 16 bits. float32 products are computed in float32. The backward pass computes the
    states again instead of keeping them. Once a shape has been called, which tunes the kernels,
    the same call gives the same bits.

    Left out: the feature map; a key mask (set k to 0 after the features); fewer heads of k and v
    than of q; a decay for each channel; sequences of several lengths in one call; float64. One
    token costs as much as a chunk.

    Args:
        q: Features of the queries (B, H, N, D), D at most 256, float16, bfloat16 or float32.
            Neither these nor the others need be contiguous.
        k: Features of the keys (B, H, N, D).
        v: Values (B, H, N, E), E at most 256.
        log_decay: (B, H, N), at most 0, which is not checked: the natural logarithm of the factor
            that multiplies the state before token i is added. -inf empties it, as does anything
            below -104, where e^x is 0 in float32. None: no decay.
        state: S (B, H, D, E), what an earlier call returned; with `normalize`, the pair (S, z),
            where z (B, H, D) is the sum of the keys. None: 0.
        scale: The factor before q, finite; 1/√D by default.
        normalize: Divide by scale · q · z + 1e-10, so that the outputs are means if q · k ≥ 0.

    Returns:
        The outputs (B, H, N, E), laid out in memory as v is, and the state after the last token, in
        float32.

    Raises:
        ValueError: Shapes, types or devices do not fit; the type or a head size is none of those
            above; the scale is not finite; or the state is a pair without `normalize`, or no pair
            with it.
        RuntimeError: There is neither a GPU nor Triton's interpreter; or the GPU's compute
            capability is below 8.0.
        ModuleNotFoundError: There is no Triton.
        NotImplementedError: Forward-mode differentiation, as in `torch.func.jvp`.

    Examples:
        Each step keeps half of the sum. Without a GPU, set TRITON_INTERPRET=1.

        >>> import torch
        >>> device = "cuda" if torch.cuda.is_available() else "cpu"
        >>> one = torch.ones(1, 1, 3, 1, device=device)
        >>> halved = torch.full((1, 1, 3), 0.5, device=device).log()
        >>> out, state = fused_linear_attention(one, one, one, log_decay=halved)
        >>> [round(x, 4) for x in out.flatten().tolist()]
        [1.0, 1.5, 1.75]
        >>> out, _ = fused_linear_attention(one, one, one, log_decay=halved, state=state)
        >>> [round(x, 4) for x in out.flatten().tolist()]
        [1.875, 1.9375, 1.9688]
    """
    _check_fused(q, k, v, log_decay)
    s, z = _unpacked(state, k, v, normalize)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, but is {scale}")
    log_decay = None if log_decay is None else log_decay.float()
    given = (q, k, v, log_decay, s, z)
    # A custom operator drops tangents silently.
    if any(x is not None and unpack_dual(x).tangent is not None for x in given):
        raise NotImplementedError(
            "fused_linear_attention has no forward mode (torch.func.jvp, jacfwd): call "
            "chunked_linear_attention"
        )
    out, s, z, _ = _fused_forward(*given, scale, normalize)
    return out, (s, z) if normalize else s


def _check_fused(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None) -> None:
    check_features(q, k, v)
    if q.shape[2] != k.shape[2]:
        raise ValueError(
            f"there must be as many queries as keys, but there are {q.shape[2]} and {k.shape[2]}"
        )
    if q.dtype not in TYPES:
        raise ValueError(
            f"fused_linear_attention needs float16, bfloat16 or float32, but got {q.dtype}: call "
            "chunked_linear_attention"
        )
    if not 0 < v.shape[3] <= LARGEST_HEAD or q.shape[3] > LARGEST_HEAD:
        raise ValueError(
            f"the head sizes must be between 1 and {LARGEST_HEAD}, but are {q.shape[3]} and "
            f"{v.shape[3]}"
        )
    if log_decay is not None:
        _check_per_token(log_decay, "log_decay", q)
        if log_decay.device != q.device:
            raise ValueError(f"log_decay must be on {q.device}, but is on {log_decay.device}")


def _unpacked(
    state: State | None, k: Tensor, v: Tensor, normalize: bool
) -> tuple[Tensor | None, Tensor | None]:
    """S and z in float32, or None."""
    if state is None:
        return None, None
    if isinstance(state, tuple) != normalize:
        raise ValueError("state must be the pair (S, z) with normalize, and S without")
    parts = state if normalize else (state,)
    shapes = (*k.shape[:2], k.shape[3], v.shape[3]), (*k.shape[:2], k.shape[3])
    for name, x, shape in zip("Sz", parts, shapes, strict=False):
        if x.shape != shape or x.device != k.device or not x.is_floating_point():
            raise ValueError(
                f"{name} of the state must be floating-point, of shape {shape} and on {k.device}, "
                f"but is {x.dtype}, {(*x.shape,)} and on {x.device}"
            )
    s, z = parts if normalize else (state, None)
    return s.float(), None if z is None else z.float()


# Custom operators: torch.compile does not trace into them, but knows their shapes and gradients.


@torch.library.custom_op("zhixing::fused_linear_attention", mutates_args=())
def _fused_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor | None,
    sums: Tensor | None,
    scale: float,
    normalize: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The outputs, the last S and z, and the divisors (B, H, N).

    The last two are empty if nothing is normalised.
    """
    _check_on_gpu(q)
    from zhixing.attention.linear_attention_triton import _launch_forward

    return _launch_forward(q, k, v, log_decay, state, sums, scale, normalize)


@torch.library.custom_op("zhixing::fused_linear_attention_backward", mutates_args=())
def _fused_backward(
    d_out: Tensor,
    d_state: Tensor,
    d_sums: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor | None,
    sums: Tensor | None,
    out: Tensor,
    divisors: Tensor,
    scale: float,
    normalize: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the first six inputs of `_fused_forward`; those of None are of no use."""
    from zhixing.attention.linear_attention_triton import _launch_backward

    tensors = (d_out, d_state, d_sums, q, k, v, log_decay, state, sums, out, divisors)
    return _launch_backward(*tensors, scale, normalize)


@_fused_forward.register_fake
def _(q, k, v, log_decay, state, sums, scale, normalize):
    b, h, n, d = q.shape
    new = torch.empty_like(v), _new(q, b, h, d, v.shape[3])
    if normalize:
        return *new, _new(q, b, h, d), _new(q, b, h, n)
    return *new, _new(q, 0), _new(q, 0)


@_fused_backward.register_fake
def _(d_out, d_state, d_sums, q, k, v, log_decay, state, sums, out, divisors, scale, normalize):
    of_decay = _new(q, *(q.shape[:3] if log_decay is not None else (0,)))
    of_states = _new(q, *d_state.shape), _new(q, *d_sums.shape)
    return *(torch.empty_like(x) for x in (q, k, v)), of_decay, *of_states


def _new(x, *shape):
    return x.new_empty(shape, dtype=torch.float32)


def _keep(ctx, inputs, output):
    *tensors, ctx.scale, ctx.normalize = inputs
    out, _, sums, divisors = output
    ctx.save_for_backward(*tensors, out if ctx.normalize else None, divisors)
    ctx.mark_non_differentiable(divisors, *(() if ctx.normalize else (sums,)))


def _gradients(ctx, d_out, d_state, d_sums, _):
    *tensors, out, divisors = ctx.saved_tensors
    out = d_out if out is None else out
    gradients = _fused_backward(
        d_out, d_state, d_sums, *tensors, out, divisors, ctx.scale, ctx.normalize
    )
    wanted = (None if x is None else d_x for x, d_x in zip(tensors, gradients, strict=True))
    return *wanted, None, None


_fused_forward.register_autograd(_gradients, setup_context=_keep)


def _check_on_gpu(q: Tensor) -> None:
    from zhixing.attention.linear_attention_triton import INTERPRETER

    if q.device.type != "cuda" and not INTERPRETER:
        raise RuntimeError(
            f"fused_linear_attention runs on a GPU, but q is on {q.device}: move all tensors to "
            "one with q.to('cuda'); or set TRITON_INTERPRET=1 before Python starts, and Triton's "
            "interpreter runs the kernels on the CPU, slowly; or call chunked_linear_attention"
        )
