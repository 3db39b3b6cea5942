"""Cheaper attention: windows, strides and what they reach, projected keys, and sizes of caches.

Source: Child et al., Generating Long Sequences with Sparse Transformers, arXiv 1904.10509,
section 4; Wang et al., Linformer, arXiv 2006.04768, equation 7; DeepSeek-AI, DeepSeek-V2, arXiv
2405.04434, table 1.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zhixing.attention.softmax_attention import check_qkv, softmax_attention


def window_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g n d"],
    v: Float[Tensor, "b g n d"],
    *,
    window: int,
    scale: float | None = None,
) -> Float[Tensor, "b h n d"]:
    """Softmax attention in which each query sees the last `window` keys, its own included.

    Exact, in time and memory that grow with N · window: equals `scaled_dot_product_attention` with
    `attn_mask=window_mask(N, window=window)`, which computes all N² logits. Queries are cut into
    blocks of W = `window`, and each block meets its own keys and those of the block before, 2 W of
    them. To be read: it writes N · 2 W logits for each head, which a GPU kernel does not. For
    training, or for reading a prompt; it has no dropout and no mask of padding. With a cache, keep
    its last `window` keys, and one query needs no mask.

    Args:
        q: Queries (B, H, N, D), in a floating-point type.
        k: Keys (B, G, N, D), where G divides H: query head h reads head h // (H / G).
        v: Values (B, G, N, D).
        window: The number of keys that a query sees, as `sliding_window` in transformers. What
            flash-attn calls `window_size=(left, 0)` is `window=left + 1`.
        scale: The factor before the softmax; 1/√D by default.

    Returns:
        (B, H, N, D), of the type and device of q.

    Raises:
        ValueError: `check_qkv` rejects the inputs; there are not as many queries as keys; or the
            window is not an integer of at least 1.

    Examples:
        Logits of 0 give the visible keys equal weights.

        >>> import torch
        >>> q = k = torch.zeros(1, 1, 5, 1)
        >>> v = torch.arange(5.0).view(1, 1, 5, 1)
        >>> window_attention(q, k, v, window=2).flatten()
        tensor([0.0000, 0.5000, 1.5000, 2.5000, 3.5000])
    """
    check_qkv(q, k, v)
    _check_positive("window", window)
    _check_one_length(q, k, "the last keys")
    n = q.shape[2]
    if n == 0:
        return softmax_attention(q, k, v)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    w = min(window, n)
    blocks = -(-n // w)
    extra = blocks * w - n
    q = F.pad(scale * q, (0, 0, 0, extra)).unflatten(2, (blocks, w))
    # Block c of the keys: positions (c - 1) w to (c + 1) w - 1, as a last dimension of 2 w.
    k, v = (F.pad(x, (0, 0, w, extra)).unfold(2, 2 * w, w) for x in (k, v))
    logits = q @ k
    visible = _visible_in_blocks(blocks, w, q.device)
    p = torch.softmax(logits.masked_fill(~visible, -math.inf), dim=-1)
    return (p @ v.mT).flatten(2, 3)[:, :, :n]


def strided_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g n d"],
    v: Float[Tensor, "b g n d"],
    *,
    stride: int,
    scale: float | None = None,
) -> Float[Tensor, "b h n d"]:
    """Softmax attention in which each query sees its own key, and every `stride`-th before it.

    Exact, in work that grows with N² / stride: equals `scaled_dot_product_attention` with
    `attn_mask=strided_mask(N, stride=stride)`, which computes all N² logits. Positions with the
    same remainder form a sequence of their own, which gets plain causal attention. The second half
    of the strided pattern in section 4.3 of arXiv 1904.10509; the first is `window_attention`. It
    has no dropout and no mask of padding.

    Args:
        q: Queries (B, H, N, D), in a floating-point type.
        k: Keys (B, G, N, D), where G divides H: query head h reads head h // (H / G).
        v: Values (B, G, N, D).
        stride: The distance between the keys that a query sees.
        scale: The factor before the softmax; 1/√D by default.

    Returns:
        (B, H, N, D), of the type and device of q.

    Raises:
        ValueError: `check_qkv` rejects the inputs; there are not as many queries as keys; or the
            stride is not an integer of at least 1.

    Examples:
        Logits of 0 give the visible keys equal weights.

        >>> import torch
        >>> q = k = torch.zeros(1, 1, 5, 1)
        >>> v = torch.arange(5.0).view(1, 1, 5, 1)
        >>> strided_attention(q, k, v, stride=2).flatten()
        tensor([0., 1., 1., 2., 2.])
    """
    check_qkv(q, k, v)
    _check_positive("stride", stride)
    _check_one_length(q, k, "every `stride`-th key, back from the last,")
    batch, _, n, _ = q.shape
    if n == 0:
        return softmax_attention(q, k, v)
    s = min(stride, n)
    rows = -(-n // s)
    # (B, H, N, D) → (B · S, H, N / S, D). Padding comes last, so the causal mask hides it.
    q, k, v = (
        F.pad(x, (0, 0, 0, rows * s - n)).unflatten(2, (rows, s)).movedim(3, 1).flatten(0, 1)
        for x in (q, k, v)
    )
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
    return out.unflatten(0, (batch, s)).movedim(1, 3).flatten(2, 3)[:, :, :n]


def window_mask(n: int, *, window: int, device: torch.device | str = "cpu") -> Bool[Tensor, "n n"]:
    """True where a query sees a key: the last `window` keys up to its own position.

    Raises:
        ValueError: n is not an integer of at least 0, or the window not one of at least 1.

    Examples:
        >>> window_mask(4, window=2).int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    """
    _check_positive("window", window)
    distance = _distances(n, device)
    return (distance >= 0) & (distance < window)


def strided_mask(n: int, *, stride: int, device: torch.device | str = "cpu") -> Bool[Tensor, "n n"]:
    """True where a query sees a key: its own, and those a multiple of `stride` before it.

    The second half of the strided pattern in section 4.3 of arXiv 1904.10509.

    Raises:
        ValueError: n is not an integer of at least 0, or the stride not one of at least 1.

    Examples:
        >>> strided_mask(4, stride=2).int().tolist()
        [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]
    """
    _check_positive("stride", stride)
    distance = _distances(n, device)
    return (distance >= 0) & (distance % stride == 0)


def reach(*masks: Bool[Tensor, "n n"]) -> Bool[Tensor, "n n"]:
    """Which inputs (columns) can reach which outputs (rows) through layers with these masks.

    The first mask is that of the first layer. A residual connection changes nothing as long as
    each position sees itself. What is reachable need not arrive: the weights decide.

    Raises:
        ValueError: No mask is given, or they are not square boolean matrices of one size.

    Examples:
        Two windows of 2 reach as far as one of 3.

        >>> import torch
        >>> two = torch.ones(3, 3, dtype=torch.bool).tril().triu(-1)
        >>> reach(two, two).int().tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    if not masks or any(
        x.dtype != torch.bool or x.ndim != 2 or len({*x.shape, masks[0].shape[0]}) > 1
        for x in masks
    ):
        raise ValueError(
            "reach needs boolean masks of one shape (N, N), but got "
            f"{[(x.dtype, (*x.shape,)) for x in masks]}"
        )
    reached = masks[0]
    for mask in masks[1:]:
        # Sums of zeros and ones, so above 0 where there is a path.
        reached = mask.float() @ reached.float() > 0
    return reached


def projected_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m d"],
    e: Float[Tensor, "r m"],
    f: Float[Tensor, "r m"],
    *,
    scale: float | None = None,
) -> Float[Tensor, "b h n d"]:
    """Linformer's attention: softmax(scale · q (e k)ᵀ) f v, so that a query meets r mixed keys.

    Equation 7 of arXiv 2006.04768. The length M is fixed by e and f, which are parameters. Each of
    the r keys mixes all positions, so no mask makes it causal; nor can it hide padding, except by
    setting k and v to 0 there. All heads share e and f here; the paper also has one for each head.

    Args:
        q: Queries (B, H, N, D), in a floating-point type.
        k: Keys (B, G, M, D), where G divides H.
        v: Values (B, G, M, D).
        e: The projection of the keys (R, M).
        f: The projection of the values (R, M).
        scale: The factor before the softmax; 1/√D by default.

    Returns:
        (B, H, N, D), of the type and device of q. For R = 0 it is 0.

    Raises:
        ValueError: `check_qkv` rejects the inputs, or e or f do not fit k.

    Examples:
        Two keys, each the mean of two positions; logits of 0 give both equal weights.

        >>> import torch
        >>> q = k = torch.zeros(1, 1, 4, 1)
        >>> v = torch.arange(4.0).view(1, 1, 4, 1)
        >>> halves = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
        >>> projected_attention(q, k, v, halves, halves).flatten()
        tensor([1.5000, 1.5000, 1.5000, 1.5000])
    """
    check_qkv(q, k, v)
    fit = e.ndim == f.ndim == 2 and e.shape == f.shape and e.shape[1] == k.shape[2]
    if not fit or {e.dtype, f.dtype} != {k.dtype} or {e.device, f.device} != {k.device}:
        raise ValueError(
            f"e and f must be (R, M) with M = {k.shape[2]} keys, of type {k.dtype} and on "
            f"{k.device}, but are {(*e.shape,)} and {(*f.shape,)}, of type {e.dtype} and "
            f"{f.dtype}, on {e.device} and {f.device}"
        )
    return softmax_attention(q, e @ k, f @ v, scale=scale)


def cache_elements(n: int, *, key_heads: int, head_size: int, window: int | None = None) -> int:
    """The numbers that one layer keeps of n tokens: a key and a value for each of its key heads.

    Multi-head attention has as many key heads as query heads, grouped-query attention fewer, and
    multi-query attention one. With a window, only its last tokens are kept.

    Raises:
        ValueError: n is not an integer of at least 0, or another argument not one of at least 1.

    Examples:
        Llama 3 8B has 8 key heads of dimension 128 in each layer; in 16 bits, 4096 bytes a token.

        >>> cache_elements(1, key_heads=8, head_size=128)
        2048
        >>> cache_elements(100_000, key_heads=8, head_size=128, window=1024)
        2097152
    """
    _check_length(n)
    _check_positive("key_heads", key_heads)
    _check_positive("head_size", head_size)
    if window is not None:
        _check_positive("window", window)
        n = min(n, window)
    return 2 * key_heads * head_size * n


def latent_cache_elements(n: int, *, latent: int, rotary: int) -> int:
    """The numbers that one layer of multi-head latent attention keeps of n tokens.

    For each token one vector from which keys and values of all heads are made, and one part of the
    keys that carries the position and is common to all heads. Table 1 of arXiv 2405.04434.

    Raises:
        ValueError: n is not an integer of at least 0, or another argument not one of at least 1.

    Examples:
        DeepSeek-V2.

        >>> latent_cache_elements(1, latent=512, rotary=64)
        576
    """
    _check_length(n)
    _check_positive("latent", latent)
    _check_positive("rotary", rotary)
    return (latent + rotary) * n


def _visible_in_blocks(blocks: int, w: int, device: torch.device) -> Bool[Tensor, "c w two_w"]:
    """Which of the 2 w keys of its block each of w queries sees."""
    a = torch.arange(w, device=device)[:, None]
    b = torch.arange(2 * w, device=device)
    visible = ((a < b) & (b <= a + w)).repeat(blocks, 1, 1)
    # Nothing comes before the first block.
    visible[0, :, :w] = False
    return visible


def _distances(n: int, device: torch.device | str) -> Tensor:
    """How many positions before query i (row) key j (column) lies."""
    _check_length(n)
    positions = torch.arange(n, device=device)
    return positions[:, None] - positions


def _check_one_length(q: Tensor, k: Tensor, wanted: str) -> None:
    if q.shape[2] != k.shape[2]:
        raise ValueError(
            f"there must be as many queries as keys, but there are {q.shape[2]} and "
            f"{k.shape[2]}; a single query needs only {wanted} of a cache, and no mask"
        )


def _check_length(n: int) -> None:
    if not isinstance(n, int) or n < 0:
        raise ValueError(f"n must be an integer of at least 0, but is {n!r}")


def _check_positive(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, but is {value!r}")
