"""The Performer (FAVOR+): softmax attention estimated by linear attention with random features.

Source: Choromanski et al., Rethinking Attention with Performers, arXiv 2009.14794, version 4:
lemmas 1 and 2, section 2.4, appendix B.

Plain torch, to be read. Left out: dropout, a mask for padding, several query heads to a key head,
the regularised estimate, and the state for generation token by token. Sums are kept in float32 for
types of fewer bits, also under autocast. Nothing is redrawn: the caller keeps the projection.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from zhixing.attention.arguments import check_features, widened
from zhixing.attention.linear_attention import chunked_linear_attention
from zhixing.foundations.autocast import autocast_off


def performer_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h m d"],
    v: Float[Tensor, "b h m e"],
    projection: Float[Tensor, "r d"],
    *,
    causal: bool = False,
) -> Float[Tensor, "b h n e"]:
    """An estimate of softmax attention, in time that grows with N + M, not with N M.

    The mean of the values, weighted by φ(q / D^¼) · φ(k / D^¼) with the positive features φ of
    `positive_features`; equation 4 of arXiv 2009.14794. Each weight before the division is unbiased
    if the rows of the projection are standard normal; the output is not. Nothing is added to the
    features: their largest exponents are subtracted, which cancels in the division. Where `causal`,
    only exponents of past keys are, so that no output depends on a later key; then a feature that
    in all past keys is below e^-79 of their largest, or e^-638 in float64, may count too little.

    Args:
        q: Queries (B, H, N, D), in a floating-point type.
        k: Keys (B, H, M, D).
        v: Values (B, H, M, E).
        projection: (R, D), one for all queries and keys, as `orthogonal_gaussian` draws it. Keep it
            in a buffer of the model, so that it is saved and moved with the weights.
        causal: Query i sees the keys j ≤ i. Needs N = M.

    Returns:
        (B, H, N, E), of the type of v. Without keys, 0.

    Raises:
        ValueError: Shapes, types or devices do not fit; or `causal`, and N ≠ M.

    Examples:
        Queries of 0 give all visible keys of one length equal weights, whatever is drawn.

        >>> import torch
        >>> q, k = torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 4, 8)
        >>> v = torch.arange(4.0).view(1, 1, 4, 1)
        >>> projection = torch.randn(16, 8)  # or orthogonal_gaussian(16, 8)
        >>> performer_attention(q, k, v, projection, causal=True).flatten()
        tensor([0.0000, 0.5000, 1.0000, 1.5000])
    """
    check_features(q, k, v)
    _check_projection(q, projection)
    if causal and q.shape[2] != k.shape[2]:
        raise ValueError(
            f"causal needs as many queries as keys, but there are {q.shape[2]} and {k.shape[2]}"
        )
    if not k.shape[2]:
        return v.new_zeros(*q.shape[:3], v.shape[3])
    dtype, scale = v.dtype, q.shape[3] ** -0.25
    with autocast_off(v):
        q, k, v = widened(q, k, v)
        projection = projection.to(q.dtype)
        log_q, log_k = _exponents(scale * q, projection), _exponents(scale * k, projection)
        # A value that is always 1 collects the denominator.
        v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
        if not causal:
            # Each feature's largest key becomes 1, and each query's largest term.
            peak = log_k.detach().amax(dim=2, keepdim=True)
            log_q = log_q + peak
            log_q = log_q - log_q.detach().amax(dim=-1, keepdim=True)
            out = log_q.exp() @ ((log_k - peak).exp().mT @ v)
        else:
            # As online softmax: the state is divided by the largest exponent so far.
            peak = log_k.detach().cummax(dim=2).values
            top = peak.amax(dim=-1, keepdim=True)
            falls = -top.squeeze(-1).diff(dim=2, prepend=top[:, :, :1, 0])
            log_q = log_q + top - (log_q.detach() + peak).amax(dim=-1, keepdim=True)
            # Well below overflow, since ∞ · 0 would be NaN where the sums of keys are 0.
            limit = 0.9 * math.log(torch.finfo(log_q.dtype).max)
            out, _ = chunked_linear_attention(
                log_q.clamp(max=limit).exp(), (log_k - top).exp(), v, log_decay=falls, scale=1.0
            )
    out, denominator = out[..., :-1], out[..., -1:]
    return (out / denominator.masked_fill(denominator == 0, 1)).to(dtype)


def positive_features(
    x: Float[Tensor, "... d"], projection: Float[Tensor, "r d"]
) -> Float[Tensor, "... r"]:
    """φ(x) = exp(ω · x - |x|² / 2) / √R for the rows ω; on average, φ(x) · φ(y) is exp(x · y).

    Lemma 1 of arXiv 2009.14794. Nothing is scaled: for attention, x is q / D^¼ or k / D^¼. With
    rows ω and -ω, `torch.cat([projection, -projection])`, these are the paper's hyperbolic
    features. They can overflow where |ω|² / 2 is large, and become tiny for long x:
    `performer_attention` never computes them. To generate token by token, give them to
    `recurrent_linear_attention` with `normalize=True`. Its 1e-10 must stay far below the sums of
    weights.

    Args:
        x: (..., D).
        projection: (R, D), one for both x and y; R is not 0.

    Returns:
        Features (..., R), all positive unless they underflow.

    Raises:
        ValueError: The last sizes differ, there are no rows, or the types or devices differ.

    Examples:
        >>> import torch
        >>> x, projection = torch.tensor([1.0, 1.0]), torch.tensor([[1.0, 0.0]])
        >>> positive_features(x, projection)  # exp(1 - 1)
        tensor([1.])
    """
    _check_projection(x, projection)
    if x.dtype != projection.dtype:
        raise ValueError(
            f"x and projection must be of one type, but are {x.dtype} and {projection.dtype}"
        )
    return _exponents(x, projection).exp() / projection.shape[0] ** 0.5


def orthogonal_gaussian(
    m: int, d: int, *, generator: torch.Generator | None = None
) -> Float[Tensor, "m d"]:
    """m standard normal rows, of which each d in a row are orthogonal.

    Section 2.4 and appendix B.2 of arXiv 2009.14794: uniformly random orthogonal directions in
    blocks of d, times the lengths of independent normal vectors. Each single row is distributed as
    `torch.randn(d)`.

    Args:
        m: The number of rows.
        d: Their size.
        generator: Where the numbers are drawn from; the result is on its device.

    Raises:
        ValueError: m or d is smaller than 1.

    Examples:
        >>> import torch
        >>> rows = orthogonal_gaussian(5, 4, generator=torch.Generator().manual_seed(0))
        >>> rows.shape, abs(rows[0] @ rows[1]).item() < 1e-5
        (torch.Size([5, 4]), True)
    """
    if m < 1 or d < 1:
        raise ValueError(f"m and d must be 1 or larger, but are {m} and {d}")
    device = None if generator is None else generator.device
    blocks = torch.randn(-(-m // d), d, d, generator=generator, device=device)
    q, r = torch.linalg.qr(blocks)
    # The signs of a QR decomposition are the algorithm's. These make the directions uniform.
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    lengths = torch.randn(m, d, generator=generator, device=device).norm(dim=-1, keepdim=True)
    return q.mT.reshape(-1, d)[:m] * lengths


def relative_variance(
    x: Float[Tensor, "... d"], y: Float[Tensor, "... d"], m: int
) -> Float[Tensor, "..."]:
    """The variance of φ(x) · φ(y), divided by exp(x · y)²: (exp(|x + y|²) - 1) / m.

    For m independent standard normal rows; lemma 2 (equation 8) of arXiv 2009.14794. For attention,
    x is q / D^¼ and y is k / D^¼, so that |x + y|² is |q + k|² / √D.

    Args:
        x: (..., D).
        y: (..., D); the shapes broadcast.
        m: The number of rows.

    Raises:
        ValueError: The last sizes differ, or m is smaller than 1.

    Examples:
        The typical weight for D = 64 and unit variance, where |x + y|² is 16, with 266 rows:

        >>> import torch
        >>> x = torch.zeros(64)
        >>> x[0] = 2
        >>> f"{relative_variance(x, x, 266).item():,.0f}"
        '33,406'
    """
    if m < 1:
        raise ValueError(f"m must be 1 or larger, but is {m}")
    if x.ndim == 0 or y.ndim == 0 or x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"x and y must be (..., D) with one D, but are {(*x.shape,)} and {(*y.shape,)}"
        )
    return (x + y).square().sum(dim=-1).expm1() / m


def _exponents(x: Tensor, projection: Tensor) -> Tensor:
    """ω · x - |x|² / 2, the logarithms of the features without the factor 1/√R."""
    return x @ projection.mT - x.square().sum(dim=-1, keepdim=True) / 2


def _check_projection(x: Tensor, projection: Tensor) -> None:
    if (
        projection.ndim != 2
        or x.ndim == 0
        or projection.shape[-1] != x.shape[-1]
        or not projection.shape[0]
        or not projection.is_floating_point()
    ):
        size = x.shape[-1] if x.ndim else "D"
        raise ValueError(
            f"projection must be floating-point and (R, {size}), where R is not 0, "
            f"but is {projection.dtype} and {(*projection.shape,)}"
        )
    if projection.device != x.device:
        raise ValueError(
            f"projection must be on the device of the input, {x.device}, "
            f"but is on {projection.device}"
        )
