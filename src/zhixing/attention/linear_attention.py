"""Linear attention: without the softmax, all that was read fits into one D × E state.

Sources: Katharopoulos et al., Transformers are RNNs, arXiv 2006.16236, equations 7 to 12 and 16 to
20; the decay: Sun et al., Retentive Network, arXiv 2307.08621, section 2; the delta rule: Schlag et
al., Linear Transformers Are Secretly Fast Weight Programmers, arXiv 2102.11174, section 4.2.

Plain torch, to be read. Left out: dropout, several query heads to a key head, a decay for each
channel, and a delta rule in chunks. Sums are kept in float32 for types of fewer bits, also under
autocast.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zhixing.attention.arguments import check_features, widened
from zhixing.attention.softmax_attention import causal_mask
from zhixing.foundations.autocast import autocast_off

State = Float[Tensor, "b h d e"] | tuple[Float[Tensor, "b h d e"], Float[Tensor, "b h d"]]


def linear_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h m d"],
    v: Float[Tensor, "b h m e"],
    *,
    causal: bool = False,
    key_mask: Bool[Tensor, "b m"] | None = None,
) -> Float[Tensor, "b h n e"]:
    """The mean of the values, weighted by φ(q) · φ(k) with φ(x) = elu(x) + 1.

    Equation 5 of arXiv 2006.16236, and 9 to 12 where causal. The time grows with N + M, not with
    N M. There is no factor 1/√D: scale q and k before if you want one.

    Args:
        q: Queries (B, H, N, D), in a floating-point type.
        k: Keys (B, H, M, D).
        v: Values (B, H, M, E).
        causal: Query i sees the keys j ≤ i. Needs N = M; with a cache, use
            `recurrent_linear_attention`.
        key_mask: (B, M), False where a key is padding, which no query sees.

    Returns:
        (B, H, N, E), of the type of v. A query that sees no key gives 0.

    Raises:
        ValueError: Shapes, types or devices do not fit; or `causal`, and N ≠ M.

    Examples:
        The features of 0 are 1, so all visible keys have equal weights.

        >>> import torch
        >>> q = k = torch.zeros(1, 1, 4, 1)
        >>> v = torch.arange(4.0).view(1, 1, 4, 1)
        >>> linear_attention(q, k, v, causal=True).flatten()
        tensor([0.0000, 0.5000, 1.0000, 1.5000])
    """
    check_features(q, k, v)
    if causal and q.shape[2] != k.shape[2]:
        raise ValueError(
            f"causal needs as many queries as keys, but there are {q.shape[2]} and {k.shape[2]}: "
            "give recurrent_linear_attention the state of the earlier keys"
        )
    dtype = v.dtype
    q, k, v = widened(q, k, v)
    q, k = elu_plus_one(q), elu_plus_one(k)
    if key_mask is not None:
        if key_mask.shape != (k.shape[0], k.shape[2]) or key_mask.dtype != torch.bool:
            raise ValueError(
                f"key_mask must be boolean and of shape {(k.shape[0], k.shape[2])}, "
                f"but is {key_mask.dtype} and {(*key_mask.shape,)}"
            )
        # After φ, since φ(0) = 1; and not v alone, which would leave padding in the denominator.
        k = k.masked_fill(~key_mask[:, None, :, None], 0)
    # A value that is always 1 collects the denominator.
    v = _with_ones(v)
    if causal:
        out, _ = chunked_linear_attention(q, k, v, scale=1.0)
    else:
        with autocast_off(q):
            out = q @ (k.mT @ v)
    numerator, denominator = out[..., :-1], out[..., -1:]
    return (numerator / denominator.masked_fill(denominator == 0, 1)).to(dtype)


def elu_plus_one(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """elu(x) + 1: x + 1 where x > 0, and e^x elsewhere. Equation 7 of arXiv 2006.16236.

    It is positive until e^x underflows. `F.elu(x) + 1` would round e^x - 1 before it adds 1, and in
    bfloat16 give 0 at -7.

    Examples:
        >>> import torch
        >>> elu_plus_one(torch.tensor([-7.0, 0.0, 2.0], dtype=torch.bfloat16))
        tensor([9.1171e-04, 1.0000e+00, 3.0000e+00], dtype=torch.bfloat16)
    """
    positive = x > 0
    # e^x of a large x would overflow, and its gradient be NaN though x is not chosen.
    return torch.where(positive, x + 1, x.masked_fill(positive, 0).exp())


def recurrent_linear_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n e"],
    *,
    log_decay: Float[Tensor, "b h n"] | None = None,
    state: State | None = None,
    scale: float | None = None,
    normalize: bool = False,
) -> tuple[Float[Tensor, "b h n e"], State]:
    """Causal linear attention token by token: S ← e^{log_decay} S + k vᵀ, then o = scale · Sᵀ q.

    Equations 16 to 20 of arXiv 2006.16236, for features q and k that the caller has computed.
    For generation: one token and the state give the next output. With log_decay it equals fla's
    `chunk_simple_gla`, with normalize its `chunk_linear_attn`, in our layout.

    Args:
        q: Features of the queries (B, H, N, D), in a floating-point type.
        k: Features of the keys (B, H, N, D).
        v: Values (B, H, N, E).
        log_decay: (B, H, N), at most 0: the natural logarithm of the factor that multiplies the
            state before token i is added. -inf empties it. None: no decay.
        state: S (B, H, D, E), what an earlier call returned; with `normalize`, the pair (S, z),
            where z (B, H, D) is the sum of the keys. None: 0.
        scale: The factor before q; 1/√D by default.
        normalize: Divide by scale · q · z + 1e-10, so that the outputs are means if q · k ≥ 0.

    Returns:
        The outputs (B, H, N, E) of the type of v, and the state after the last token: in float64
        for float64 inputs, in float32 for all others.

    Raises:
        ValueError: Shapes, types or devices do not fit; a decay is above 1; or the state is a pair
            without `normalize`, or no pair with it.

    Examples:
        Each step keeps half of the sum.

        >>> import torch
        >>> one = torch.ones(1, 1, 3, 1)
        >>> halved = torch.full((1, 1, 3), 0.5).log()
        >>> out, state = recurrent_linear_attention(one, one, one, log_decay=halved)
        >>> out.flatten()
        tensor([1.0000, 1.5000, 1.7500])
        >>> recurrent_linear_attention(one, one, one, log_decay=halved, state=state)[0].flatten()
        tensor([1.8750, 1.9375, 1.9688])
    """
    dtype = v.dtype
    q, k, v, log_decay, s = _prepared(q, k, v, log_decay, state, scale, normalize)
    outputs = [v[:, :, :0]]
    with autocast_off(v):
        for i in range(q.shape[2]):
            if log_decay is not None:
                s = log_decay[:, :, i, None, None].exp() * s
            s = s + k[:, :, i, :, None] * v[:, :, i, None, :]
            outputs.append(q[:, :, i : i + 1] @ s)
    return _finished(torch.cat(outputs, dim=2), s, dtype, normalize)


def chunked_linear_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n e"],
    *,
    log_decay: Float[Tensor, "b h n"] | None = None,
    state: State | None = None,
    scale: float | None = None,
    normalize: bool = False,
    chunk: int = 64,
) -> tuple[Float[Tensor, "b h n e"], State]:
    """`recurrent_linear_attention` in matrix products: `chunk` tokens at a time.

    Within a chunk, the C × C products of q and k under the causal mask; from all chunks before, the
    state. Same arguments, results and errors as `recurrent_linear_attention`. For training and for
    reading a prompt: N / C steps instead of N, and N / C states are kept for the backward pass.

    Args:
        q: Features of the queries (B, H, N, D), in a floating-point type.
        k: Features of the keys (B, H, N, D).
        v: Values (B, H, N, E).
        log_decay: (B, H, N), at most 0: the natural logarithm of the factor that multiplies the
            state before token i is added. -inf empties it. None: no decay.
        state: S (B, H, D, E); with `normalize`, the pair (S, z). None: 0.
        scale: The factor before q; 1/√D by default.
        normalize: Divide by scale · q · z + 1e-10.
        chunk: C, the tokens of a chunk. The length need not be a multiple.

    Returns:
        The outputs (B, H, N, E) of the type of v, and the state after the last token.

    Raises:
        ValueError: As `recurrent_linear_attention`; or the chunk is smaller than 1.

    Examples:
        >>> import torch
        >>> one = torch.ones(1, 1, 3, 1)
        >>> out, state = chunked_linear_attention(one, one, one, chunk=2)
        >>> out.flatten(), state.flatten()
        (tensor([1., 2., 3.]), tensor([3.]))
    """
    if chunk < 1:
        raise ValueError(f"chunk must be 1 or larger, but is {chunk}")
    dtype = v.dtype
    q, k, v, log_decay, s = _prepared(q, k, v, log_decay, state, scale, normalize)
    outputs = [v[:, :, :0]]
    with autocast_off(v):
        for start in range(0, q.shape[2], chunk):
            q_c, k_c, v_c = (x[:, :, start : start + chunk] for x in (q, k, v))
            if log_decay is None:
                outputs.append(q_c @ s + (q_c @ k_c.mT).tril() @ v_c)
                s = s + k_c.mT @ v_c
            else:
                from_start, between, to_end = _decays(log_decay[:, :, start : start + chunk])
                within = between * (q_c @ k_c.mT)
                outputs.append(from_start * (q_c @ s) + within @ v_c)
                s = from_start[:, :, -1:] * s + (to_end * k_c).mT @ v_c
    return _finished(torch.cat(outputs, dim=2), s, dtype, normalize)


def delta_rule(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n e"],
    beta: Float[Tensor, "b h n"],
    *,
    state: Float[Tensor, "b h d e"] | None = None,
    scale: float | None = None,
) -> tuple[Float[Tensor, "b h n e"], Float[Tensor, "b h d e"]]:
    """Causal, token by token: replace the value stored at k, S ← S + β k (v - Sᵀ k)ᵀ, o = Sᵀ q.

    Section 4.2 of arXiv 2102.11174, without its sum normalisation. With keys of length 1, β = 1
    stores v at k exactly; β = 0 changes nothing. Keys are taken as they are: normalise them, since
    with β |k|² above 2 the state can grow without bound. Equals fla's `delta_rule_recurrence`.

    Args:
        q: Queries (B, H, N, D), in a floating-point type.
        k: Keys (B, H, N, D), of length 1 as a rule.
        v: Values (B, H, N, E).
        beta: Writing strengths (B, H, N), between 0 and 1 as a rule.
        state: S (B, H, D, E), what an earlier call returned. None: 0.
        scale: The factor before q; 1/√D by default.

    Returns:
        The outputs (B, H, N, E) of the type of v, and the state after the last token: in float64
        for float64 inputs, in float32 for all others.

    Raises:
        ValueError: Shapes, types or devices do not fit.

    Examples:
        The second value replaces the first, where linear attention would add them up.

        >>> import torch
        >>> one, v = torch.ones(1, 1, 2, 1), torch.tensor([1.0, 5.0]).view(1, 1, 2, 1)
        >>> delta_rule(one, one, v, torch.ones(1, 1, 2))[0].flatten()
        tensor([1., 5.])
    """
    dtype = v.dtype
    _check_per_token(beta, "beta", q)
    q, k, v, _, s = _prepared(q, k, v, None, state, scale, False)
    beta = beta.to(q.dtype)
    outputs = [v[:, :, :0]]
    with autocast_off(v):
        for i in range(q.shape[2]):
            k_i, v_i = k[:, :, i : i + 1], v[:, :, i : i + 1]
            s = s + beta[:, :, i, None, None] * k_i.mT @ (v_i - k_i @ s)
            outputs.append(q[:, :, i : i + 1] @ s)
    return torch.cat(outputs, dim=2).to(dtype), s


def _decays(log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From the chunk's start to each token, from token j to token i, from each token to the end."""
    c = log_decay.shape[-1]
    visible = causal_mask(c, c, device=log_decay.device)
    # Sum over j < l ≤ i. A difference of cumulative sums would be NaN after a decay of -inf.
    steps = log_decay[..., None].masked_fill(visible.mT, 0)
    between = steps.cumsum(dim=-2).masked_fill(~visible, -math.inf).exp()
    return log_decay.cumsum(dim=-1).exp().unsqueeze(-1), between, between[..., -1, :, None]


def _prepared(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: State | None,
    scale: float | None,
    normalize: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """The inputs in float32 or float64, q scaled, and v and S with a column for z if wanted."""
    check_features(q, k, v)
    if q.shape[2] != k.shape[2]:
        raise ValueError(
            f"there must be as many queries as keys, but there are {q.shape[2]} and {k.shape[2]}"
        )
    if log_decay is not None:
        _check_per_token(log_decay, "log_decay", q)
        if (log_decay > 0).any():
            raise ValueError(
                "log_decay must be the logarithm of a decay of at most 1, so at most 0, "
                f"but its largest element is {log_decay.max().item():.3g}"
            )
    shape = *k.shape[:2], k.shape[3], v.shape[3]
    q, k, v = widened(q, k, v)
    if state is None:
        s = v.new_zeros(shape)
        z = v.new_zeros(shape[:3])
    else:
        if isinstance(state, tuple) != normalize:
            raise ValueError("state must be the pair (S, z) with normalize, and S without")
        s, z = state if normalize else (state, None)
        if s.shape != shape or (normalize and z.shape != shape[:3]):
            raise ValueError(
                f"the state must be S of shape {shape}, with normalize and z of shape {shape[:3]}, "
                f"but is {(*s.shape,)}" + (f" and {(*z.shape,)}" if normalize else "")
            )
        s = s.to(v.dtype)
    if normalize:
        # z is the state of a value that is always 1.
        v, s = _with_ones(v), torch.cat([s, z.to(v.dtype).unsqueeze(-1)], dim=-1)
    log_decay = None if log_decay is None else log_decay.to(v.dtype)
    return (q.shape[-1] ** -0.5 if scale is None else scale) * q, k, v, log_decay, s


def _finished(out: Tensor, s: Tensor, dtype: torch.dtype, normalize: bool) -> tuple[Tensor, State]:
    """The outputs in their type, divided by the last column if wanted, and the state."""
    if not normalize:
        return out.to(dtype), s
    return (out[..., :-1] / (out[..., -1:] + 1e-10)).to(dtype), (s[..., :-1], s[..., -1])


def _with_ones(v: Tensor) -> Tensor:
    """v and a last column of ones."""
    return torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)


def _check_per_token(x: Tensor, name: str, q: Tensor) -> None:
    if x.shape != q.shape[:3] or not x.is_floating_point():
        raise ValueError(
            f"{name} must be floating-point and of shape (B, H, N) = {(*q.shape[:3],)}, "
            f"but is {x.dtype} and {(*x.shape,)}"
        )
