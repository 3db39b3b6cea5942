"""FlashAttention on a GPU: exact softmax attention without its N × M matrix in memory.

Source: Dao et al., FlashAttention, arXiv 2205.14135; Dao, FlashAttention-2, arXiv 2307.08691.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from zhixing.attention.softmax_attention import check_qkv

TYPES = (torch.float16, torch.bfloat16, torch.float32)
LARGEST_HEAD = 256


def flash_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m d"],
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "b h n d"]:
    """`softmax_attention(q, k, v)` by Triton kernels, in memory that grows as N + M, not N · M.

    Heads come before positions, as in `scaled_dot_product_attention`. flash-attn has (B, N, H, D):
    if you port from it, pass `x.transpose(1, 2)`, since no check can tell N from H.

    Differentiable once, in q, k and v, by backward; not in forward mode, nor by `torch.func.grad`.
    Works under `torch.compile`; autocast leaves the types alone. float32 products are computed
    in float32, not TF32. A row that attends to nothing is 0, and so is its gradient. NaN in a key
    or value may reach rows that do not see it. Once the tiles for a shape are chosen, which the
    first call does, the same call gives the same bits.

    Left out: dropout; a bias or mask of one's own, such as ALiBi; a softcap; sliding windows;
    sequences of several lengths in one call; a cache of keys and values; FP8.

    Args:
        q: Queries (B, H, N, D), D at most 256, float16, bfloat16 or float32. Neither these nor
            k and v need be contiguous.
        k: Keys (B, G, M, D), where G divides H: query head h reads head h // (H / G).
        v: Values (B, G, M, D).
        causal: Let a query see the keys up to its own position, where the last query is aligned
            with the last key (bottom right): query i sees the keys j ≤ i + M - N.
        scale: The factor before the softmax, a positive number; 1/√D by default.

    Returns:
        (B, H, N, D), laid out in memory as q is.

    Raises:
        ValueError: `check_qkv` rejects the inputs; or the type or head size is none of those above,
            or the scale is no number, or not positive and finite in float32.
        RuntimeError: There is neither a GPU nor Triton's interpreter; or the GPU's compute
            capability is below 8.0.
        ModuleNotFoundError: There is no Triton.
        NotImplementedError: Forward-mode differentiation, as in `torch.func.jvp`.

    Examples:
        Logits of 0 give all visible keys equal weights. Without a GPU, set TRITON_INTERPRET=1.

        >>> import torch
        >>> device = "cuda" if torch.cuda.is_available() else "cpu"
        >>> q = k = torch.zeros(1, 1, 4, 1, device=device)
        >>> v = torch.arange(4.0, device=device).view(1, 1, 4, 1)
        >>> flash_attention(q, k, v, causal=True).flatten().tolist()
        [0.0, 0.5, 1.0, 1.5]
    """
    check_qkv(q, k, v)
    if q.dtype not in TYPES:
        raise ValueError(f"flash_attention needs float16, bfloat16 or float32, but got {q.dtype}")
    if q.shape[3] > LARGEST_HEAD:
        raise ValueError(f"the head size must be at most {LARGEST_HEAD}, but is {q.shape[3]}")
    scale = q.shape[3] ** -0.5 if scale is None else scale
    if isinstance(scale, Tensor):
        raise ValueError("scale must be a number, not a tensor: multiply q by it instead")
    # Between the extremes of float32, in which the kernels compute.
    if not 1.2e-38 < scale < 3.4e38:
        raise ValueError(f"scale must be positive and finite, but is {scale} in float32")
    # A custom operator drops tangents silently.
    if any(unpack_dual(x).tangent is not None for x in (q, k, v)):
        raise NotImplementedError(
            "flash_attention has no forward mode (torch.func.jvp, jacfwd): call softmax_attention"
        )
    out, _ = _flash_forward(q, k, v, causal, scale)
    return out


# Custom operators: torch.compile does not trace into them, but knows their shapes and gradients.


@torch.library.custom_op("zhixing::flash_attention", mutates_args=())
def _flash_forward(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """The output, and the logarithm of the sum of each row's exponentials, (B, H, N)."""
    _check_device(q)
    from zhixing.attention.flash_attention_triton import _launch_forward

    return _launch_forward(q, k, v, causal, scale)


@torch.library.custom_op("zhixing::flash_attention_backward", mutates_args=())
def _flash_backward(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v."""
    from zhixing.attention.flash_attention_triton import _launch_backward

    return _launch_backward(d_out, q, k, v, out, lse, causal, scale)


@_flash_forward.register_fake
def _(q, k, v, causal, scale):
    return torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@_flash_backward.register_fake
def _(d_out, q, k, v, out, lse, causal, scale):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx, inputs, output):
    q, k, v, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx, d_out, _):
    return *_flash_backward(d_out, *ctx.saved_tensors, ctx.causal, ctx.scale), None, None


_flash_forward.register_autograd(_gradients, setup_context=_keep)


def _check_device(q: Tensor) -> None:
    from zhixing.attention.flash_attention_triton import INTERPRET

    if q.device.type != "cuda" and not INTERPRET:
        raise RuntimeError(
            f"flash_attention runs on a GPU, but q is on {q.device}: move q, k and v to one with "
            "q.to('cuda'); or set TRITON_INTERPRET=1 before Python starts, and Triton's "
            "interpreter runs the kernels on the CPU, slowly; or call softmax_attention"
        )
