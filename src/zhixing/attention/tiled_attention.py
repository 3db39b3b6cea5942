"""Softmax attention tile by tile, forward and backward, without a matrix of N × M.

Source: Dao, FlashAttention-2, arXiv 2307.08691, algorithms 1 and 2; the idea: Dao et al.,
FlashAttention, arXiv 2205.14135. Plain torch, to be read alongside the paper.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from zhixing.attention.online_softmax import finite
from zhixing.attention.softmax_attention import check_qkv
from zhixing.foundations.autocast import autocast_off


def tiled_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m d"],
    *,
    causal: bool = False,
    scale: float | None = None,
    block_q: int = 128,
    block_k: int = 128,
) -> Float[Tensor, "b h n d"]:
    """`softmax_attention` with memory that grows with N, not with N².

    Beyond the output it keeps one number per query for the backward pass, which recomputes the
    weights, and at any time only tiles of block_q × block_k logits. Types of fewer than 32 bits
    are computed in float32, a tile at a time; autocast changes nothing. A second derivative does
    keep all tiles. NaN in a value may reach rows that do not see it. To be read, not for speed; it
    has no dropout, no mask but the causal one, no forward mode, and no `torch.func.grad` or `vmap`.

    Args:
        q: Queries (B, H, N, D), in a floating-point type.
        k: Keys (B, G, M, D), where G divides H: query head h reads head h // (H / G).
        v: Values (B, G, M, D).
        causal: Let query i see the keys j ≤ i + M - N; a query that sees none gives 0.
        scale: The factor before the softmax, a number; 1/√D by default.
        block_q: B_r, the queries of a tile.
        block_k: B_c, its keys.

    Returns:
        (B, H, N, D), of the type and device of q.

    Raises:
        ValueError: `check_qkv` rejects the inputs; the scale is a tensor, whose gradient would be
            lost; or a block is not a positive integer.

    Examples:
        Logits of 0 give all visible keys equal weights.

        >>> import torch
        >>> q = k = torch.zeros(1, 1, 4, 1)
        >>> v = torch.arange(4.0).view(1, 1, 4, 1)
        >>> tiled_attention(q, k, v, causal=True, block_q=2, block_k=2).flatten()
        tensor([0.0000, 0.5000, 1.0000, 1.5000])
    """
    check_qkv(q, k, v)
    if not all(isinstance(block, int) and block >= 1 for block in (block_q, block_k)):
        raise ValueError(f"blocks must be integers, 1 or larger, but are {block_q} and {block_k}")
    if isinstance(scale, Tensor):
        raise ValueError("scale must be a number, not a tensor: multiply q by it instead")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return TiledAttention.apply(q, k, v, causal, scale, block_q, block_k)[0]


class TiledAttention(torch.autograd.Function):
    """Keeps the inputs, the output and the log-sum-exp for the backward pass.

    Examples:
        >>> import torch
        >>> q = k = torch.zeros(1, 1, 4, 1)
        >>> v = torch.arange(4.0).view(1, 1, 4, 1)
        >>> out, lse = TiledAttention.apply(q, k, v, True, 1.0, 2, 2)
        >>> out.flatten()
        tensor([0.0000, 0.5000, 1.0000, 1.5000])
    """

    @staticmethod
    def forward(ctx, q, k, v, causal, scale, block_q, block_k):
        with autocast_off(q):
            out, lse = tiled_forward(q, k, v, causal, scale, block_q, block_k)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.settings = causal, scale, block_q, block_k
        # An output as well, so that second derivatives go through it.
        return out, lse

    @staticmethod
    def backward(ctx, d_out, d_lse):
        with autocast_off(d_out):
            gradients = tiled_backward(d_out, d_lse, *ctx.saved_tensors, *ctx.settings)
        return *gradients, None, None, None, None


def tiled_forward(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m d"],
    causal: bool,
    scale: float,
    block_q: int,
    block_k: int,
) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b h n"]]:
    """The output, and the log-sum-exp of each query's logits: -inf where it sees no key.

    Examples:
        >>> import torch
        >>> q = k = torch.zeros(1, 1, 4, 1)
        >>> v = torch.arange(4.0).view(1, 1, 4, 1)
        >>> out, lse = tiled_forward(q, k, v, True, 1.0, 2, 2)
        >>> lse.flatten()  # of 1, 2, 3 and 4 logits of 0
        tensor([0.0000, 0.6931, 1.0986, 1.3863])
    """
    q, k, v = _in_groups(q, k, v)
    n, keys = q.shape[-2], k.shape[-2]
    wide = torch.promote_types(q.dtype, torch.float32)
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:-1], dtype=wide)
    for rows in _blocks(n, block_q):
        q_i = q[..., rows, :].to(wide)
        acc = torch.zeros_like(q_i)
        ell = acc[..., :1]
        m = torch.full_like(ell, -math.inf)
        for columns in _blocks(keys, block_k):
            if causal and _beyond(rows, columns, keys - n):
                break
            k_j, v_j = k[..., columns, :].to(wide), v[..., columns, :].to(wide)
            s = _logits(q_i, k_j, scale, causal, rows, columns, keys - n)
            m_new = torch.maximum(m, s.amax(dim=-1, keepdim=True))
            p = torch.exp(s - finite(m_new))
            alpha = torch.exp(m - finite(m_new))
            ell = alpha * ell + p.sum(dim=-1, keepdim=True)
            acc = alpha * acc + p @ v_j
            m = m_new
        ell = ell.masked_fill(ell == 0, 1)
        out[..., rows, :] = acc / ell
        lse[..., rows] = (m + torch.log(ell)).squeeze(-1)
    return out.flatten(1, 2), lse.flatten(1, 2)


def tiled_backward(
    d_out: Float[Tensor, "b h n d"],
    d_lse: Float[Tensor, "b h n"],
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g m d"],
    v: Float[Tensor, "b g m d"],
    out: Float[Tensor, "b h n d"],
    lse: Float[Tensor, "b h n"],
    causal: bool,
    scale: float,
    block_q: int,
    block_k: int,
) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b g m d"], Float[Tensor, "b g m d"]]:
    """The gradients of q, k and v; the weights are recomputed from the log-sum-exp.

    Examples:
        Each of two queries gives each of two values the weight 1/2.

        >>> import torch
        >>> q = k = v = out = torch.zeros(1, 1, 2, 1)
        >>> d_out, d_lse = torch.ones(1, 1, 2, 1), torch.zeros(1, 1, 2)
        >>> lse = torch.full((1, 1, 2), 2.0).log()
        >>> dq, dk, dv = tiled_backward(d_out, d_lse, q, k, v, out, lse, False, 1.0, 2, 2)
        >>> dv.flatten()
        tensor([1., 1.])
    """
    groups, wide = k.shape[1], lse.dtype
    # The gradient of the log-sum-exp is P, so that of the logits is P (dP - δ) + P d_lse.
    delta = (d_out.to(wide) * out.to(wide)).sum(dim=-1) - d_lse
    delta, lse = (x.unflatten(1, (groups, -1)).unsqueeze(-1) for x in (delta, finite(lse)))
    d_out = d_out.unflatten(1, (groups, -1))
    q, k, v = _in_groups(q, k, v)
    n, keys = q.shape[-2], k.shape[-2]
    dq, dk, dv = torch.zeros_like(q, dtype=wide), torch.empty_like(k), torch.empty_like(v)
    for columns in _blocks(keys, block_k):
        k_j, v_j = k[..., columns, :].to(wide), v[..., columns, :].to(wide)
        dk_j, dv_j = torch.zeros_like(k_j), torch.zeros_like(v_j)
        for rows in _blocks(n, block_q):
            if causal and _beyond(rows, columns, keys - n):
                continue
            q_i, d_out_i = q[..., rows, :].to(wide), d_out[..., rows, :].to(wide)
            s = _logits(q_i, k_j, scale, causal, rows, columns, keys - n)
            p = torch.exp(s - lse[..., rows, :])
            dv_j += (p.mT @ d_out_i).sum(dim=2, keepdim=True)
            dp = d_out_i @ v_j.mT
            ds = scale * p * (dp - delta[..., rows, :])
            dq[..., rows, :] += ds @ k_j
            dk_j += (ds.mT @ q_i).sum(dim=2, keepdim=True)
        dk[..., columns, :], dv[..., columns, :] = dk_j, dv_j
    return dq.flatten(1, 2).to(q.dtype), dk.squeeze(2), dv.squeeze(2)


def _in_groups(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q as (B, G, H / G, N, D), and k and v as (B, G, 1, M, D), to be broadcast."""
    return q.unflatten(1, (k.shape[1], q.shape[1] // k.shape[1])), k.unsqueeze(2), v.unsqueeze(2)


def _blocks(length: int, size: int) -> list[slice]:
    """Slices of `size` that cover `length`; the last may be shorter."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _beyond(rows: slice, columns: slice, shift: int) -> bool:
    """Whether no query of the tile may see any of its keys: the last not even the first."""
    return columns.start > rows.stop - 1 + shift


def _logits(
    q_i: Tensor, k_j: Tensor, scale: float, causal: bool, rows: slice, columns: slice, shift: int
) -> Tensor:
    """scale · q_i k_jᵀ; with `causal`, -inf where key j > query i + shift."""
    s = scale * q_i @ k_j.mT
    # A tile that the diagonal does not cross needs no mask: its first query sees its last key.
    if not causal or columns.stop - 1 <= rows.start + shift:
        return s
    i = torch.arange(rows.start, rows.stop, device=s.device).unsqueeze(1)
    j = torch.arange(columns.start, columns.stop, device=s.device)
    return s.masked_fill(j > i + shift, -math.inf)
