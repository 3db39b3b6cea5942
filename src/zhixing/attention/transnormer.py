"""TransNormer: linear attention with a norm in place of its denominator, and attention in blocks.

Sources: Qin et al., The Devil in Linear Transformer, arXiv 2210.10340; the norm without weights:
Qin et al., TransNormerLLM, arXiv 2307.14995, where it is called SRMSNorm.

Left out: projections, output gates, dropout, a mask for padding, positional encodings, and a state
to generate with. `recurrent_linear_attention` has one: with scale=1, and then `srms_norm` over the
merged heads, it gives what `norm_attention` gives. Sums are kept in float32 for types of fewer
bits, also under autocast.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from zhixing.attention.arguments import check_features, widened
from zhixing.attention.linear_attention import chunked_linear_attention
from zhixing.attention.softmax_attention import check_qkv, softmax_attention
from zhixing.foundations.autocast import autocast_off


def norm_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h m d"],
    v: Float[Tensor, "b h m e"],
    *,
    causal: bool = False,
    eps: float = 1e-6,
) -> Float[Tensor, "b h n e"]:
    """NormAttention: RMSNorm(Q (Kᵀ V)), one norm for all heads of a position, no denominator.

    Equation 14 of arXiv 2210.10340. Queries and keys are features: apply a feature map before.
    It may be signed, such as `F.elu` or `F.silu`, since nothing is divided by a sum of scores.

    Args:
        q: Features of the queries (B, H, N, D), in a floating-point type.
        k: Features of the keys (B, H, M, D). Set those of padding to 0.
        v: Values (B, H, M, E).
        causal: Query i sees the keys j ≤ i. Needs N = M.
        eps: Added to the mean square of the H · E sums of a position, before the root. It bounds
            the gradients with respect to the scores.

    Returns:
        (B, H, N, E), of the type of v. The mean square over H and E is just below 1 at each
        position, except where the sums are not large compared with √eps.

    Raises:
        ValueError: Shapes, types or devices do not fit; `causal`, and N ≠ M; or eps is negative.

    Examples:
        Only the ratios between the sums remain: here 3 to 4 at the first position.

        >>> import torch
        >>> q = torch.tensor([1.0, -9.0]).view(1, 1, 2, 1)
        >>> k = torch.ones(1, 1, 1, 1)
        >>> v = torch.tensor([30.0, 40.0]).view(1, 1, 1, 2)
        >>> norm_attention(q, k, v)
        tensor([[[[ 0.8485,  1.1314],
                  [-0.8485, -1.1314]]]])
    """
    check_features(q, k, v)
    if causal and q.shape[2] != k.shape[2]:
        raise ValueError(
            f"causal needs as many queries as keys, but there are {q.shape[2]} and {k.shape[2]}"
        )
    dtype = v.dtype
    q, k, v = widened(q, k, v)
    if causal:
        # Keys times values first would add up all positions, the future too.
        out, _ = chunked_linear_attention(q, k, v, scale=1.0)
    else:
        with autocast_off(q):
            out = q @ (k.mT @ v)
    # In float32 up to the norm: in float16 the sums overflow.
    merged = srms_norm(out.transpose(1, 2).flatten(2), eps=eps)
    return merged.unflatten(2, (v.shape[1], v.shape[3])).transpose(1, 2).to(dtype)


def srms_norm(x: Float[Tensor, "*batch d"], *, eps: float = 1e-6) -> Float[Tensor, "*batch d"]:
    """SimpleRMSNorm: x divided by its root mean square over the last dimension, without weights.

    x / (|x| / √d) in arXiv 2307.14995, here with eps under the root. Equals
    `F.rms_norm(x, x.shape[-1:], eps=eps)`.

    Args:
        x: (…, D), in a floating-point type.
        eps: Added to the mean square. With 0, a row of zeros gives NaN.

    Returns:
        Of the shape and type of x.

    Raises:
        ValueError: x is not a floating-point tensor with a dimension, or eps is negative.

    Examples:
        The mean square is 1, not the length.

        >>> import torch
        >>> srms_norm(torch.tensor([2.0, 2.0, 2.0, -2.0]))
        tensor([ 1.0000,  1.0000,  1.0000, -1.0000])
    """
    if x.ndim == 0 or not x.is_floating_point():
        raise ValueError(
            f"x must be of a floating-point type and shape (…, D), but is {x.dtype}, {(*x.shape,)}"
        )
    if not eps >= 0:
        raise ValueError(f"eps must not be negative, but is {eps}")
    (wide,) = widened(x)
    return (wide * (wide.square().mean(dim=-1, keepdim=True) + eps).rsqrt()).to(x.dtype)


def block_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g n d"],
    v: Float[Tensor, "b g n d"],
    *,
    block: int,
    causal: bool = False,
) -> Float[Tensor, "b h n d"]:
    """DiagAttention: softmax attention within blocks of positions that do not overlap.

    For the early layers of TransNormer (arXiv 2210.10340). The time grows with N · block, not with
    N². No position sees beyond the borders of its block; under `causal`, the first of a block sees
    only itself.

    Args:
        q: Queries (B, H, N, D), in a floating-point type.
        k: Keys (B, G, N, D), where G divides H.
        v: Values (B, G, N, D).
        block: Positions of a block. The last block is shorter if N is not a multiple.
        causal: Query i sees the keys j ≤ i of its block.

    Returns:
        (B, H, N, D), of the type and device of q.

    Raises:
        ValueError: `check_qkv` rejects the inputs; there are more or fewer queries than keys; or
            block is not a whole number from 1 on.

    Examples:
        Equal logits give the mean of the block.

        >>> import torch
        >>> q = k = torch.zeros(1, 1, 5, 1)
        >>> v = torch.arange(5.0).view(1, 1, 5, 1)
        >>> block_attention(q, k, v, block=2).flatten()
        tensor([0.5000, 0.5000, 2.5000, 2.5000, 4.0000])
    """
    check_qkv(q, k, v)
    b, _, n, _ = q.shape
    if n != k.shape[2]:
        raise ValueError(
            f"there must be as many queries as keys, but there are {n} and {k.shape[2]}"
        )
    if not isinstance(block, int) or block < 1:
        raise ValueError(f"block must be a whole number from 1 on, but is {block}")
    blocks = n // block
    whole = blocks * block
    # Whole blocks join the batch, which attention never mixes. What is left is one shorter block.
    q_b, k_b, v_b = (
        x[:, :, :whole].unflatten(2, (blocks, block)).transpose(1, 2).flatten(0, 1)
        for x in (q, k, v)
    )
    out = softmax_attention(q_b, k_b, v_b, causal=causal)
    out = out.unflatten(0, (b, blocks)).transpose(1, 2).flatten(2, 3)
    rest = softmax_attention(*(x[:, :, whole:] for x in (q, k, v)), causal=causal)
    return torch.cat([out, rest], dim=2)
