"""Functions for the engine of `zhixing.foundations.autograd`, each with its derivative rule.

At points where a function has no derivative the rules follow torch's conventions.
"""

import torch
from jaxtyping import Bool
from torch import Tensor

from zhixing.foundations.autograd import Variable


def exp(x: Variable) -> Variable:
    """eˣ, elementwise.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor(0.0), requires_grad=True)
        >>> y = exp(x)
        >>> y.backward()
        >>> round(y.value.item(), 4), round(x.grad.value.item(), 4)
        (1.0, 1.0)
    """
    y = Variable(x.value.exp())
    return y.record((x, lambda g: g * y))


def log(x: Variable) -> Variable:
    """The natural logarithm, elementwise.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor(4.0), requires_grad=True)
        >>> y = log(x)
        >>> y.backward()
        >>> round(y.value.item(), 4), round(x.grad.value.item(), 4)
        (1.3863, 0.25)
    """
    return Variable(x.value.log()).record((x, lambda g: g / x))


def sin(x: Variable) -> Variable:
    """The sine, elementwise.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor(0.0), requires_grad=True)
        >>> y = sin(x)
        >>> y.backward()
        >>> round(y.value.item(), 4), round(x.grad.value.item(), 4)
        (0.0, 1.0)
    """
    return Variable(x.value.sin()).record((x, lambda g: g * cos(x)))


def cos(x: Variable) -> Variable:
    """The cosine, elementwise.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor(1.0), requires_grad=True)
        >>> y = cos(x)
        >>> y.backward()
        >>> round(y.value.item(), 4), round(x.grad.value.item(), 4)
        (0.5403, -0.8415)
    """
    return Variable(x.value.cos()).record((x, lambda g: -g * sin(x)))


def tanh(x: Variable) -> Variable:
    """The hyperbolic tangent, elementwise.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor(0.5), requires_grad=True)
        >>> y = tanh(x)
        >>> y.backward()
        >>> round(y.value.item(), 4), round(x.grad.value.item(), 4)
        (0.4621, 0.7864)
    """
    y = Variable(x.value.tanh())
    return y.record((x, lambda g: g * (1 - y * y)))


def sqrt(x: Variable) -> Variable:
    """The square root, elementwise; its slope at 0 is infinite.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor(4.0), requires_grad=True)
        >>> y = sqrt(x)
        >>> y.backward()
        >>> round(y.value.item(), 4), round(x.grad.value.item(), 4)
        (2.0, 0.25)
    """
    y = Variable(x.value.sqrt())
    return y.record((x, lambda g: g / (2 * y)))


def absolute(x: Variable) -> Variable:
    """|x|, elementwise; its slope at 0 is taken to be 0.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor(-2.0), requires_grad=True)
        >>> y = absolute(x)
        >>> y.backward()
        >>> round(y.value.item(), 4), round(x.grad.value.item(), 4)
        (2.0, -1.0)
    """
    sign = Variable(x.value.sign())
    return Variable(x.value.abs()).record((x, lambda g: g * sign))


def where(condition: Bool[Tensor, "..."], a: Variable, b: Variable) -> Variable:
    """`a` where the condition holds, elsewhere `b`; the other one's gradient is 0 there.

    Examples:
        >>> import torch
        >>> a = Variable(torch.tensor([1.0, 2.0]), requires_grad=True)
        >>> y = where(a.value > 1, 3 * a, a.lift(0.0))
        >>> y.sum().backward()
        >>> y.value.tolist(), a.grad.value.tolist()
        ([0.0, 6.0], [0.0, 3.0])
    """
    zero = a.lift(0.0)
    return Variable(torch.where(condition, a.value, b.value)).record(
        (a, lambda g: where(condition, g, zero)), (b, lambda g: where(condition, zero, g))
    )


def relu(x: Variable) -> Variable:
    """max(x, 0), elementwise; its slope at 0 is taken to be 0.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor([-1.0, 0.0, 2.0]), requires_grad=True)
        >>> y = relu(x)
        >>> y.sum().backward()
        >>> y.value.tolist(), x.grad.value.tolist()
        ([0.0, 0.0, 2.0], [0.0, 0.0, 1.0])
    """
    return where(x.value > 0, x, x.lift(0.0))


def maximum(a: Variable, b: Variable) -> Variable:
    """The larger one, elementwise; where they are equal, each gets half the gradient.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor([1.0, 2.0, 3.0]), requires_grad=True)
        >>> y = maximum(x, Variable(torch.tensor([2.0, 2.0, 2.0])))
        >>> y.sum().backward()
        >>> y.value.tolist(), x.grad.value.tolist()
        ([2.0, 2.0, 3.0], [0.0, 0.5, 1.0])
    """
    tie = (a.value == b.value).to(a.value.dtype) / 2
    to_a, to_b = Variable((a.value > b.value) + tie), Variable((a.value < b.value) + tie)
    return Variable(torch.maximum(a.value, b.value)).record(
        (a, lambda g: g * to_a), (b, lambda g: g * to_b)
    )


def largest(x: Variable, dim: int | None = None, *, keepdim: bool = False) -> Variable:
    """The largest element of all, or those along one dimension.

    Where several are largest, they share the gradient evenly if `dim` is None, as in
    `torch.max(x)` and `torch.amax`; else a single one gets all of it, as in `torch.max(x, dim)`.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor([1.0, 3.0, 3.0]), requires_grad=True)
        >>> largest(x).backward()
        >>> x.grad.value.tolist()
        [0.0, 0.5, 0.5]
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
    """log Σ eˣ along a dimension, without overflow; its gradient is the softmax.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor([1e4, -1e4]), requires_grad=True)
        >>> y = logsumexp(x, 0)
        >>> y.backward()
        >>> y.value.item(), x.grad.value.tolist()
        (10000.0, [1.0, 0.0])
    """
    y = Variable(x.value.logsumexp(dim, keepdim=True))
    y.record((x, lambda g: g * exp(x - y)))
    return y if keepdim else y.sum(dim)
