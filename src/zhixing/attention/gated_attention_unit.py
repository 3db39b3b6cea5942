"""FLASH: gated attention units, one layer for attention and feed-forward, and mixed chunks.

Source: Hua et al., Transformer Quality in Linear Time, arXiv 2202.10447. FLASH stands for Fast
Linear Attention with a Single Head: it is not FlashAttention, which computes softmax attention.

Left out: the norm before and the residual connection around a unit, dropout, absolute and rotary
positions, token shift, and a cache to generate with. Attention is computed in float32 for types of
fewer bits, also under autocast; its result has the type of the values.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zhixing.activations.history import squared_relu
from zhixing.attention.arguments import check_features, widened
from zhixing.attention.softmax_attention import causal_mask
from zhixing.foundations.autocast import autocast_off

# Tokens at least so far apart share one bias on each side.
MAX_DISTANCE = 128


def squared_relu_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h m d"],
    v: Float[Tensor, "b h m e"],
    *,
    length: int | float,
    bias: Float[Tensor, "..."] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h n e"]:
    """A v with A = max(q kᵀ / length + bias, 0)², without a softmax and without a denominator.

    As in the code that arXiv 2202.10447 prints in its appendix, the division is inside the square.
    For max(q kᵀ, 0)² / (M D), which Su proposes, give √(M D) and no bias.

    Args:
        q: Queries (B, H, N, D), in a floating-point type.
        k: Keys (B, H, M, D).
        v: Values (B, H, M, E). Set those of padding to 0: nothing else of a key counts.
        length: The number to divide by. For inputs shorter than in training, keep that of training.
        bias: Added to the scores after the division; of a shape that broadcasts to (B, H, N, M).
        causal: Query i sees the keys j ≤ i. Needs N = M.

    Returns:
        (B, H, N, E), of the type of v. The weights of a query need not have sum 1.

    Raises:
        ValueError: Shapes, types or devices do not fit; length is not positive and finite; or
            `causal`, and N ≠ M.

    Examples:
        Scores 3 and -3 for a length of 2: weights 2.25 and 0.

        >>> import torch
        >>> q, k = torch.tensor([3.0]).view(1, 1, 1, 1), torch.tensor([1.0, -1.0]).view(1, 1, 2, 1)
        >>> squared_relu_attention(q, k, torch.ones(1, 1, 2, 1), length=2).item()
        2.25
    """
    _check_all(q, k, v)
    if not (isinstance(length, int | float) and 0 < length < math.inf):
        raise ValueError(f"length must be a positive finite number, but is {length}")
    if causal and q.shape[2] != k.shape[2]:
        raise ValueError(
            f"causal needs as many queries as keys, but there are {q.shape[2]} and {k.shape[2]}"
        )
    shape = (*q.shape[:3], k.shape[2])
    if bias is not None:
        _check_bias(bias, shape, q)
    dtype = v.dtype
    q, k, v = widened(q, k, v)
    with autocast_off(q):
        scores = q @ k.mT / length
        if bias is not None:
            scores = scores + bias
        weights = squared_relu(scores)
        if causal:
            weights = weights.masked_fill(~causal_mask(*shape[2:], device=q.device), 0)
        return (weights @ v).to(dtype)


def mixed_chunk_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h n d"],
    q_linear: Float[Tensor, "b h n f"],
    k_linear: Float[Tensor, "b h n f"],
    v: Float[Tensor, "b h n e"],
    *,
    chunk: int = 256,
    bias: Float[Tensor, "c c"] | None = None,
    causal: bool = False,
    key_mask: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b h n e"]:
    """Squared-ReLU attention within chunks, plus linear attention: N · chunk weights, not N².

    Mixed chunk attention of arXiv 2202.10447, with the divisors of lucidrains' FLASH-pytorch: the
    chunk within chunks and for causal sums, else the number of tokens. So the causal linear part
    grows with the number of chunks before: train with inputs as long as those in use.

    Args:
        q: Queries within chunks (B, H, N, D), in a floating-point type.
        k: Keys within chunks (B, H, N, D).
        q_linear: Queries of the linear part (B, H, N, F), taken as they are.
        k_linear: Keys of the linear part (B, H, N, F).
        v: Values (B, H, N, E), for both parts.
        chunk: Tokens of a chunk. The length need not be a multiple.
        bias: (chunk, chunk), added to the scores within each chunk.
        causal: Query i sees the keys j ≤ i: those of its chunk within it, and those of all chunks
            before through the linear part. Else the linear part sees all tokens.
        key_mask: (B, N), False where a token is padding. Its value counts as 0, and it does not
            count as a token.

    Returns:
        (B, H, N, E), of the type of v.

    Raises:
        ValueError: Shapes, types or devices do not fit, or chunk is not a whole number from 1 on.

    Examples:
        All queries and keys are 1, so each chunk of two adds 2 · (1/2)² and its sum over 2.

        >>> import torch
        >>> one = torch.ones(1, 1, 6, 1)
        >>> mixed_chunk_attention(one, one, one, one, one, chunk=2, causal=True).flatten()
        tensor([0.2500, 0.5000, 1.2500, 1.5000, 2.2500, 2.5000])
    """
    _check_all(q, k, v)
    _check_all(q_linear, k_linear, v)
    if q.shape != k.shape or q_linear.shape != k_linear.shape:
        raise ValueError(
            f"there must be as many queries as keys, but q is {(*q.shape,)}, k {(*k.shape,)}, "
            f"q_linear {(*q_linear.shape,)}, k_linear {(*k_linear.shape,)}"
        )
    if not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"chunk must be a whole number from 1 on, but is {chunk}")
    if bias is not None:
        _check_bias(bias, (chunk, chunk), q)
        bias = bias.expand(chunk, chunk)
    b, h, n, _ = v.shape
    dtype = v.dtype
    q, k, q_linear, k_linear, v = widened(q, k, q_linear, k_linear, v)
    tokens = max(n, 1)
    if key_mask is not None:
        _check_mask(key_mask, v)
        v = v.masked_fill(~key_mask[:, None, :, None], 0)
        tokens = key_mask.sum(dim=1).clamp(min=1).repeat_interleave(h).view(-1, 1, 1, 1)
    # A short input needs no whole chunk, but its scores are divided by the chunk all the same.
    c = min(chunk, max(n, 1))
    groups = -(-n // c)
    # Chunks become heads (B · H, groups, C, …). Values of 0 fill the last chunk.
    q, k, q_linear, k_linear, v = (
        F.pad(x, (0, 0, 0, groups * c - n)).reshape(b * h, groups, c, x.shape[3])
        for x in (q, k, q_linear, k_linear, v)
    )
    bias = None if bias is None else bias.to(v.dtype)[:c, :c]
    out = squared_relu_attention(q, k, v, length=chunk, bias=bias, causal=causal)
    with autocast_off(v):
        sums = k_linear.mT @ v
        if causal:
            # The sums of the chunks before, without a chunk's own.
            sums = F.pad(sums.cumsum(dim=1), (0, 0, 0, 0, 1, 0))[:, :groups] / chunk
        else:
            sums = sums.sum(dim=1, keepdim=True) / tokens
        out = out + q_linear @ sums
    return out.reshape(b, h, groups * c, v.shape[3])[:, :, :n].to(dtype)


class GatedAttentionUnit(nn.Module):
    """(U ⊙ A V) W_o: one layer in place of attention and feed-forward, with a single head.

    Figure 2 of arXiv 2202.10447. U and V are projections after SiLU, with a hidden
    size of expansion · width. Queries and keys are scaled and shifted copies of one third
    projection. The scores get a learned bias for each query position minus key position; from
    128 on, all share one on each side.

    Put a norm before it and a residual connection around it, and use two units for one attention
    and one feed-forward layer. `to_hidden` (values first, then gates) and `to_qk` are named as in
    lucidrains' FLASH-pytorch.

    Args:
        width: Features d of a token.
        expansion: Hidden size over width.
        head_size: Features s of queries and keys.
        chunk: Tokens of a chunk for `mixed_chunk_attention`; None for `squared_relu_attention`
            over all tokens.
        length: The number that scores are divided by if `chunk` is None. For inputs shorter than in
            training, keep that of training.
        causal: A token sees only those up to itself.

    Raises:
        ValueError: A size is not a positive whole number.

    Examples:
        >>> import torch
        >>> unit = GatedAttentionUnit(512)
        >>> unit(torch.zeros(2, 100, 512)).shape
        torch.Size([2, 100, 512])
        >>> linear = [part for part in unit.modules() if isinstance(part, torch.nn.Linear)]
        >>> sum(layer.weight.numel() for layer in linear) == 3 * 512 * 1024 + 512 * 128
        True
    """

    def __init__(
        self,
        width: int,
        *,
        expansion: int = 2,
        head_size: int = 128,
        chunk: int | None = None,
        length: int = 512,
        causal: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"width": width, "expansion": expansion, "head_size": head_size, "length": length}
        for name, size in (sizes if chunk is None else sizes | {"chunk": chunk}).items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a positive whole number, but is {size}")
        self.width, self.chunk, self.length, self.causal = width, chunk, length, causal
        hidden = expansion * width
        self.to_hidden = nn.Sequential(nn.Linear(width, 2 * hidden), nn.SiLU())
        self.to_qk = nn.Sequential(nn.Linear(width, head_size), nn.SiLU())
        # Rows: q, k, and with chunks q_linear, k_linear.
        rows = 2 if chunk is None else 4
        self.gamma = nn.Parameter(0.02 * torch.randn(rows, head_size))
        self.beta = nn.Parameter(torch.zeros(rows, head_size))
        self.distance_bias = nn.Parameter(0.02 * torch.randn(2 * MAX_DISTANCE + 1))
        self.to_out = nn.Linear(hidden, width)

    def forward(
        self, x: Float[Tensor, "b n d"], *, key_mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Map tokens (B, N, width) to outputs of the same shape.

        Args:
            x: Tokens, normalised as a rule.
            key_mask: (B, N), False where a token is padding, which no other token sees.

        Raises:
            ValueError: x or key_mask has another shape or type.
        """
        if x.ndim != 3 or x.shape[2] != self.width:
            raise ValueError(f"x must be (B, N, {self.width}), but its shape is {(*x.shape,)}")
        v, gate = self.to_hidden(x).chunk(2, dim=-1)
        z = self.to_qk(x)
        rows = (z.unsqueeze(1) * self.gamma.unsqueeze(1) + self.beta.unsqueeze(1)).to(v.dtype)
        # One head: (B, 1, N, …).
        q, k, *linear = rows.split(1, dim=1)
        v = v.unsqueeze(1)
        if self.chunk is None:
            if key_mask is not None:
                _check_mask(key_mask, x)
                v = v.masked_fill(~key_mask[:, None, :, None], 0)
            bias = self.bias(x.shape[1])
            out = squared_relu_attention(q, k, v, length=self.length, bias=bias, causal=self.causal)
        else:
            out = mixed_chunk_attention(
                *(q, k, *linear, v),
                chunk=self.chunk,
                bias=self.bias(self.chunk),
                causal=self.causal,
                key_mask=key_mask,
            )
        return self.to_out(gate * out.squeeze(1))

    def bias(self, n: int) -> Float[Tensor, "n n"]:
        """The bias of each of n queries to each of n keys, by the difference of their positions."""
        position = torch.arange(n, device=self.distance_bias.device)
        distance = (position[:, None] - position).clamp(-MAX_DISTANCE, MAX_DISTANCE)
        return self.distance_bias[distance + MAX_DISTANCE]


def _check_all(q: Tensor, k: Tensor, v: Tensor) -> None:
    if not all(isinstance(x, Tensor) for x in (q, k, v)):
        kinds = ", ".join(type(x).__name__ for x in (q, k, v))
        raise ValueError(f"queries, keys and values must be tensors, but are {kinds}")
    check_features(q, k, v)


def _check_bias(bias: Tensor, shape: tuple[int, ...], q: Tensor) -> None:
    fits = isinstance(bias, Tensor) and bias.is_floating_point() and bias.ndim <= len(shape)
    # From the last dimension on, each must be 1 or that of the scores.
    if not fits or any(
        a not in (1, b) for a, b in zip(bias.shape[::-1], shape[::-1], strict=False)
    ):
        came = f"{bias.dtype}, {(*bias.shape,)}" if isinstance(bias, Tensor) else type(bias)
        raise ValueError(
            f"bias must be floating-point and broadcast to the scores {shape}, but is {came}"
        )
    if bias.device != q.device:
        raise ValueError(f"bias must be on {q.device}, but is on {bias.device}")


def _check_mask(key_mask: Tensor, x: Tensor) -> None:
    wanted = x.shape[0], x.shape[-2]
    if not isinstance(key_mask, Tensor) or key_mask.shape != wanted or key_mask.dtype != torch.bool:
        came = (key_mask.dtype, (*key_mask.shape,)) if isinstance(key_mask, Tensor) else key_mask
        raise ValueError(f"key_mask must be boolean and of shape {wanted}, but is {came}")
