"""Functions for the engine of `zhixing.foundations.autograd`, each with its derivative rule.

Not a number stays that, as in torch. At points where a function has no derivative, the rules
take the slope that the docstring names; torch's own choice can change with a release.
"""

from weakref import ref

import torch
from jaxtyping import Bool
from torch import Tensor

from zhixing.foundations.autograd import Number, Variable


def _value(x: Variable) -> Tensor:
    """The value of what must be a `Variable`."""
    if not isinstance(x, Variable):
        raise ValueError(f"a function of the engine needs a Variable, not {type(x).__name__}")
    return x.value


def _lifted(name: str, *operands: Variable | Number) -> list[Variable]:
    """The operands, of which one at least must be a `Variable`, all as variables."""
    for x in operands:
        if isinstance(x, Variable):
            return [x.lift(operand) for operand in operands]
    kinds = " and ".join(type(x).__name__ for x in operands)
    raise ValueError(f"{name} needs a Variable, but got {kinds}")


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
    y = Variable(_value(x).exp())
    result = ref(y)
    return y.record((x, lambda g: g * result()))


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
    return Variable(_value(x).log()).record((x, lambda g: g / x))


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
    return Variable(_value(x).sin()).record((x, lambda g: g * cos(x)))


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
    return Variable(_value(x).cos()).record((x, lambda g: -g * sin(x)))


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
    y = Variable(_value(x).tanh())
    result = ref(y)
    return y.record((x, lambda g: g * (1 - result() ** 2)))


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
    y = Variable(_value(x).sqrt())
    result = ref(y)
    return y.record((x, lambda g: g / (2 * result())))


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
    sign = Variable(_value(x).sign())
    return Variable(x.value.abs()).record((x, lambda g: g * sign))


def where(condition: Bool[Tensor, "..."], a: Variable | Number, b: Variable | Number) -> Variable:
    """`a` where the condition holds, elsewhere `b`; the other one's gradient is 0 there.

    One of `a` and `b` may be a number.

    Examples:
        >>> import torch
        >>> a = Variable(torch.tensor([1.0, 2.0]), requires_grad=True)
        >>> y = where(a.value > 1, 3 * a, 0.0)
        >>> y.sum().backward()
        >>> y.value.tolist(), a.grad.value.tolist()
        ([0.0, 6.0], [0.0, 3.0])
    """
    a, b = _lifted("where", a, b)
    return Variable(torch.where(condition, a.value, b.value)).record(
        (a, lambda g: where(condition, g, 0.0)), (b, lambda g: where(condition, 0.0, g))
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
    return where(_value(x) <= 0, 0.0, x)


def maximum(a: Variable | Number, b: Variable | Number) -> Variable:
    """The larger one, elementwise; where they are equal, each gets half the gradient.

    One of `a` and `b` may be a number. Where one of them is not a number, so is the result, and
    each gets the whole gradient.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor([1.0, 2.0, 3.0]), requires_grad=True)
        >>> y = maximum(x, 2.0)
        >>> y.sum().backward()
        >>> y.value.tolist(), x.grad.value.tolist()
        ([2.0, 2.0, 3.0], [0.0, 0.5, 1.0])
    """
    a, b = _lifted("maximum", a, b)
    a_smaller, b_smaller, equal = a.value < b.value, b.value < a.value, a.value == b.value
    return Variable(torch.maximum(a.value, b.value)).record(
        (a, lambda g: where(a_smaller, 0.0, where(equal, g / 2, g))),
        (b, lambda g: where(b_smaller, 0.0, where(equal, g / 2, g))),
    )


def largest(x: Variable, dim: int | None = None, *, keepdim: bool = False) -> Variable:
    """The largest element of all, or those along one dimension.

    Where several are largest, they share the gradient evenly if `dim` is None, as in
    `torch.max(x)` and `torch.amax`; else a single one gets all of it, as in `torch.max(x, dim)`.
    Elements that are not a number count as largest.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor([1.0, 3.0, 3.0]), requires_grad=True)
        >>> largest(x).backward()
        >>> x.grad.value.tolist()
        [0.0, 0.5, 0.5]
    """
    if dim is None:
        y = _value(x).max()
        chosen = (x.value == y) | x.value.isnan()
        count = chosen.sum().item()
        return Variable(y).record((x, lambda g: where(chosen, g / count, 0.0)))
    y, index = _value(x).max(dim, keepdim=True)
    chosen = torch.zeros_like(x.value, dtype=torch.bool).scatter_(dim, index, True)
    kept = Variable(y).record((x, lambda g: where(chosen, g, 0.0)))
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
    y = Variable(_value(x).logsumexp(dim, keepdim=True))
    result = ref(y)
    y.record((x, lambda g: g * exp(x - result())))
    return y if keepdim else y.sum(dim)
