"""Softmax-weighted means in three passes, two and one, and the merge of two partial ones.

Source: Milakov & Gimelshein, Online normalizer calculation for softmax, arXiv 1805.02867,
algorithms 2 and 3 and section 3.1; the mean carried along and divided at the end: Rabe & Staats,
Self-attention Does Not Need O(n²) Memory, arXiv 2112.05682, sections 2 and 3, and Dao,
FlashAttention-2, arXiv 2307.08691, section 3.1. The first FlashAttention divides in every step.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


def mean_in_three_passes(x: Float[Tensor, " n"], v: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Σ softmax(x)_j v_j by safe softmax: find the maximum, then the sum, then the mean.

    Args:
        x: The logits of one query, not all of them -inf.
        v: As many values.

    Examples:
        >>> import torch
        >>> mean_in_three_passes(torch.tensor([1e3, 1e3]), torch.tensor([[1.0], [3.0]]))
        tensor([2.])
    """
    m = -math.inf
    for x_j in x:
        m = max(m, x_j)
    ell = 0.0
    for x_j in x:
        ell = ell + torch.exp(x_j - m)
    out = torch.zeros_like(v[0])
    for x_j, v_j in zip(x, v, strict=True):
        out = out + torch.exp(x_j - m) / ell * v_j
    return out


def mean_in_two_passes(x: Float[Tensor, " n"], v: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """The same: find maximum and sum in one pass, then the mean.

    Examples:
        >>> import torch
        >>> mean_in_two_passes(torch.tensor([1e3, 1e3]), torch.tensor([[1.0], [3.0]]))
        tensor([2.])
    """
    m, ell = running_max_and_sum(x)
    out = torch.zeros_like(v[0])
    for x_j, v_j in zip(x, v, strict=True):
        out = out + torch.exp(x_j - m[-1]) / ell[-1] * v_j
    return out


def mean_in_one_pass(x: Float[Tensor, " n"], v: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """The same: carry the maximum, the sum and the unnormalised mean along; divide at the end.

    Examples:
        >>> import torch
        >>> mean_in_one_pass(torch.tensor([1e3, 1e3]), torch.tensor([[1.0], [3.0]]))
        tensor([2.])
    """
    seen = nothing(v[0])
    for x_j, v_j in zip(x, v, strict=True):
        seen = merge(seen, Partial(x_j, torch.ones_like(x_j), v_j))
    return finish(seen)[0]


def running_max_and_sum(
    x: Float[Tensor, "*rows n"],
) -> tuple[Float[Tensor, "*rows n"], Float[Tensor, "*rows n"]]:
    """After each element of the last dimension: the maximum so far, and Σ exp(x_j - maximum).

    Examples:
        >>> import torch
        >>> running_max_and_sum(torch.tensor([5.0, 5.0, -torch.inf]))
        (tensor([5., 5., 5.]), tensor([1., 2., 2.]))
    """
    m, ell = [], []
    m_old = torch.full_like(x[..., :1], -math.inf)
    ell_old = torch.zeros_like(m_old)
    for x_j in x.split(1, dim=-1):
        m_new = torch.maximum(m_old, x_j)
        ell_new = torch.exp(m_old - finite(m_new)) * ell_old + torch.exp(x_j - finite(m_new))
        m.append(m_new)
        ell.append(ell_new)
        m_old, ell_old = m_new, ell_new
    return torch.cat(m, dim=-1), torch.cat(ell, dim=-1)


class Partial(NamedTuple):
    """The state of a softmax-weighted mean after the logits x_j and values v_j seen so far.

    Examples:
        >>> import torch
        >>> Partial(m=torch.tensor(5.0), ell=torch.tensor(2.0), acc=torch.tensor([4.0])).ell
        tensor(2.)
    """

    m: Float[Tensor, "*rows"]  # the maximum of x_j; -inf if there was none
    ell: Float[Tensor, "*rows"]  # Σ exp(x_j - m)
    acc: Float[Tensor, "*rows d"]  # Σ exp(x_j - m) v_j


def nothing(like: Float[Tensor, "*rows d"]) -> Partial:
    """The neutral element of `merge`: no logit seen, for means of the shape of `like`.

    Examples:
        >>> import torch
        >>> nothing(torch.ones(2))
        Partial(m=tensor(-inf), ell=tensor(0.), acc=tensor([0., 0.]))
    """
    rows = torch.zeros_like(like[..., 0])
    return Partial(torch.full_like(rows, -math.inf), rows, torch.zeros_like(like))


def part(x: Float[Tensor, "*rows n"], v: Float[Tensor, "n d"]) -> Partial:
    """The state after one block of logits and values.

    Raises:
        ValueError: The block is empty; use `nothing` instead.

    Examples:
        >>> import torch
        >>> part(torch.tensor([5.0, 5.0]), torch.tensor([[1.0], [3.0]]))
        Partial(m=tensor(5.), ell=tensor(2.), acc=tensor([4.]))
    """
    if x.shape[-1] == 0:
        raise ValueError(f"a block needs at least one logit, but x is of shape {(*x.shape,)}")
    m = x.amax(dim=-1)
    p = torch.exp(x - finite(m).unsqueeze(-1))
    return Partial(m, p.sum(dim=-1), p @ v)


def merge(a: Partial, b: Partial) -> Partial:
    """The state after all that a and b have seen; associative and commutative.

    Both are rescaled to the common maximum. Where neither has seen a logit above -inf, that is
    -inf, and -inf - -inf would be NaN; `finite` replaces it with 0.

    Examples:
        >>> import torch
        >>> seen = Partial(torch.tensor(5.0), torch.tensor(2.0), torch.tensor([4.0]))
        >>> merge(seen, seen)
        Partial(m=tensor(5.), ell=tensor(4.), acc=tensor([8.]))
    """
    m = torch.maximum(a.m, b.m)
    of_a, of_b = torch.exp(a.m - finite(m)), torch.exp(b.m - finite(m))
    return Partial(
        m,
        of_a * a.ell + of_b * b.ell,
        of_a.unsqueeze(-1) * a.acc + of_b.unsqueeze(-1) * b.acc,
    )


def finish(seen: Partial) -> tuple[Float[Tensor, "*rows d"], Float[Tensor, "*rows"]]:
    """The weighted mean, and log Σ exp(x_j), the log-sum-exp; 0 and -inf if nothing was seen.

    Examples:
        >>> import torch
        >>> finish(Partial(torch.tensor(5.0), torch.tensor(2.0), torch.tensor([4.0])))
        (tensor([2.]), tensor(5.6931))
    """
    ell = seen.ell.masked_fill(seen.ell == 0, 1)
    return seen.acc / ell.unsqueeze(-1), seen.m + torch.log(ell)


def finite(m: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
    """A maximum to subtract: 0 in place of -inf.

    Examples:
        >>> import torch
        >>> finite(torch.tensor([5.0, -torch.inf]))
        tensor([5., 0.])
    """
    return m.masked_fill(m == -math.inf, 0)
