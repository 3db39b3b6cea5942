"""Functions for the engine of `zhixing.foundations.autograd`, each with its derivative rule.

At points where a function has no derivative the rules follow torch's conventions.
"""

import torch
from jaxtyping import Bool
from torch import Tensor

from zhixing.foundations.autograd import Variable


def exp(x: Variable) -> Variable:
    """eˣ, elementwise."""
    y = Variable(x.value.exp())
    return y.record((x, lambda g: g * y))


def log(x: Variable) -> Variable:
    """The natural logarithm, elementwise."""
    return Variable(x.value.log()).record((x, lambda g: g / x))


def sin(x: Variable) -> Variable:
    """The sine, elementwise."""
    return Variable(x.value.sin()).record((x, lambda g: g * cos(x)))


def cos(x: Variable) -> Variable:
    """The cosine, elementwise."""
    return Variable(x.value.cos()).record((x, lambda g: -g * sin(x)))


def tanh(x: Variable) -> Variable:
    """The hyperbolic tangent, elementwise."""
    y = Variable(x.value.tanh())
    return y.record((x, lambda g: g * (1 - y * y)))


def sqrt(x: Variable) -> Variable:
    """The square root, elementwise; its slope at 0 is infinite."""
    y = Variable(x.value.sqrt())
    return y.record((x, lambda g: g / (2 * y)))


def absolute(x: Variable) -> Variable:
    """|x|, elementwise; its slope at 0 is taken to be 0."""
    sign = Variable(x.value.sign())
    return Variable(x.value.abs()).record((x, lambda g: g * sign))


def where(condition: Bool[Tensor, "..."], a: Variable, b: Variable) -> Variable:
    """`a` where the condition holds, elsewhere `b`; the other one's gradient is 0 there."""
    zero = a.lift(0.0)
    return Variable(torch.where(condition, a.value, b.value)).record(
        (a, lambda g: where(condition, g, zero)), (b, lambda g: where(condition, zero, g))
    )


def relu(x: Variable) -> Variable:
    """max(x, 0), elementwise; its slope at 0 is taken to be 0."""
    return where(x.value > 0, x, x.lift(0.0))


def maximum(a: Variable, b: Variable) -> Variable:
    """The larger one, elementwise; where they are equal, each gets half the gradient."""
    tie = (a.value == b.value).to(a.value.dtype) / 2
    to_a, to_b = Variable((a.value > b.value) + tie), Variable((a.value < b.value) + tie)
    return Variable(torch.maximum(a.value, b.value)).record(
        (a, lambda g: g * to_a), (b, lambda g: g * to_b)
    )


def largest(x: Variable, dim: int | None = None, *, keepdim: bool = False) -> Variable:
    """The largest element of all, or those along one dimension.

    Where several are largest, they share the gradient evenly if `dim` is None, as in
    `torch.max(x)` and `torch.amax`; else a single one gets all of it, as in `torch.max(x, dim)`.
    """
    if dim is None:
        y = x.value.max()
        share = (x.value == y).to(y.dtype)
        share = Variable(share / share.sum())
        return Variable(y).record((x, lambda g: g * share))
    y, index = x.value.max(dim, keepdim=True)
    share = Variable(torch.zeros_like(x.value).scatter_(dim, index, 1.0))
    kept = Variable(y).record((x, lambda g: g * share))
    return kept if keepdim else kept.sum(dim)


def logsumexp(x: Variable, dim: int, *, keepdim: bool = False) -> Variable:
    """log Σ eˣ along a dimension, without overflow; its gradient is the softmax."""
    y = Variable(x.value.logsumexp(dim, keepdim=True))
    y.record((x, lambda g: g * exp(x - y)))
    return y if keepdim else y.sum(dim)
