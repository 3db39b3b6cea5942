"""Softmax attention by its definition, with the whole N × M matrix of logits.

Source: Vaswani et al., Attention Is All You Need, arXiv 1706.03762, equation 1; several query
heads to a key head: Ainslie et al., GQA, arXiv 2305.13245, section 2.2.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def softmax_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m d"],
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "b h n d"]:
    """softmax(scale · q kᵀ) v, one head at a time.

    Equals `scaled_dot_product_attention(q, k, v, enable_gqa=True)`, with
    `attn_mask=causal_mask(N, M)` if `causal`, except that a row that attends to nothing is 0
    everywhere, and so is its gradient. NaN in a value reaches all rows of its head, also those that
    do not see it, as in torch. For reference, not for use: it keeps N × M logits, and has no
    dropout and no mask but the causal one.

    Args:
        q: Queries (B, H, N, D), in a floating-point type.
        k: Keys (B, G, M, D), where G divides H: query head h reads head h // (H / G).
        v: Values (B, G, M, D).
        causal: Let a query see the keys up to its own position, where the last query is aligned
            with the last key (bottom right): query i sees the keys j ≤ i + M - N.
        scale: The factor before the softmax; 1/√D by default.

    Returns:
        (B, H, N, D), of the type and device of q.

    Raises:
        ValueError: `check_qkv` rejects the inputs.

    Examples:
        Logits of 0 give all visible keys equal weights.

        >>> import torch
        >>> q = k = torch.zeros(1, 1, 4, 1)
        >>> v = torch.arange(4.0).view(1, 1, 4, 1)
        >>> softmax_attention(q, k, v, causal=True).flatten()
        tensor([0.0000, 0.5000, 1.0000, 1.5000])
    """
    check_qkv(q, k, v)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    logits = scale * q @ k.mT
    if not causal:
        return torch.softmax(logits, dim=-1) @ v
    visible = causal_mask(q.shape[2], k.shape[2], device=q.device)
    # The softmax of a row of -inf would be NaN: leave such rows unmasked, and zero them afterwards.
    hidden = ~visible & visible.any(dim=-1, keepdim=True)
    p = torch.softmax(logits.masked_fill(hidden, -math.inf), dim=-1)
    return p.masked_fill(~visible, 0) @ v


def causal_mask(n: int, m: int, *, device: torch.device | str = "cpu") -> Bool[Tensor, "n m"]:
    """Which of m keys each of n queries sees, if the last query is aligned with the last key.

    Examples:
        >>> causal_mask(2, 3).int().tolist()
        [[1, 1, 0], [1, 1, 1]]
    """
    return torch.ones(n, m, dtype=torch.bool, device=device).tril(m - n)


def check_qkv(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Check that q can attend to k and v.

    Raises:
        ValueError: One of them is not a dense tensor of four dimensions; their types or devices
            differ, or the type is not floating-point; batch or head size differ, or the number or
            length of keys and values; the head size is 0; or the number of key heads does not
            divide that of query heads.

    Examples:
        >>> import torch
        >>> q, k = torch.zeros(1, 4, 2, 8), torch.zeros(1, 2, 3, 8)
        >>> check_qkv(q, k, k)
        >>> check_qkv(k, q, q)
        Traceback (most recent call last):
        ValueError: the heads of k and v must divide those of q, but there are 4 and 2
    """
    if not all(isinstance(x, Tensor) for x in (q, k, v)):
        kinds = ", ".join(type(x).__name__ for x in (q, k, v))
        raise ValueError(f"q, k and v must be tensors, but are {kinds}")
    if any(x.layout != torch.strided or x.is_nested for x in (q, k, v)):
        raise ValueError("q, k and v must be dense tensors, but one is sparse or nested")
    shapes = f"q {(*q.shape,)}, k {(*k.shape,)}, v {(*v.shape,)}"
    if len({q.dtype, k.dtype, v.dtype}) > 1 or not q.is_floating_point():
        raise ValueError(
            "q, k and v must be of one floating-point type, "
            f"but are {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if len({q.device, k.device, v.device}) > 1:
        raise ValueError(
            f"q, k and v must be on one device, but are on {q.device}, {k.device}, {v.device}"
        )
    if not q.ndim == k.ndim == v.ndim == 4:
        raise ValueError(f"q, k and v must be of shape (B, H, N, D), but are {shapes}")
    if k.shape != v.shape:
        raise ValueError(f"k and v must be of one shape, but are {shapes}")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"q and k must agree in batch and head size, but are {shapes}")
    if q.shape[3] == 0:
        raise ValueError(f"the head size must be positive, but the shapes are {shapes}")
    heads, key_heads = q.shape[1], k.shape[1]
    if key_heads == 0 or heads % key_heads:
        raise ValueError(
            f"the heads of k and v must divide those of q, but there are {key_heads} and {heads}"
        )
