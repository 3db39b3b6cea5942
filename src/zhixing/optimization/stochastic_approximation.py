"""Stochastic approximation: find a root of a function from noisy observations, one at a time.

Sources: Robbins & Monro, A Stochastic Approximation Method, Annals of Mathematical Statistics 22,
1951; Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM Journal on
Control and Optimization 30, 1992.

To train a network, use `torch.optim.SGD` with `torch.optim.swa_utils.AveragedModel`: what is here
keeps every iterate, in order to show them.
"""

import math
import operator
from collections.abc import Callable
from numbers import Real

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Number = int | float | Tensor


def robbins_monro(
    observe: Callable[[Tensor], Tensor], x0: Float[Tensor, "*shape"], steps: Float[Tensor, " n"]
) -> Float[Tensor, " m *shape"]:
    """The iterates x_k = x_(k-1) - a_k Y(x_(k-1)), where Y is a noisy observation of h.

    Looks for the root of an increasing h. If h decreases, observe its negative. With Y the gradient
    of a random batch, this is SGD. Several copies can run at once, one for each element of x. The
    result is differentiable in x0, the step sizes, and what `observe` depends on.

    Left out: keeping x in a set. If h grows faster than linearly, the iterates can explode.

    Args:
        observe: Y, which maps x to a tensor of the same shape and type: h(x) plus noise of mean 0.
        x0: The start, of any shape, in a floating-point type.
        steps: The step sizes a_1, …, a_n (n), not negative.

    Returns:
        All iterates (n + 1, …), the start first.

    Raises:
        ValueError: x0 is not a floating-point tensor; the steps are not a floating-point tensor of
            one dimension, or one of them is negative or not finite; or an observation has another
            shape or type than x.

    Examples:
        >>> import torch
        >>> y = iter(torch.tensor([3.0, 1.0, 5.0]))
        >>> steps = 1 / torch.arange(1.0, 4.0)
        >>> robbins_monro(lambda x: x - next(y), torch.tensor(0.0), steps)  # running means
        tensor([0., 3., 2., 3.])
    """
    _check_floats(x0, "x0")
    _check_floats(steps, "steps")
    if steps.ndim != 1:
        raise ValueError(f"steps must have one dimension, but their shape is {(*steps.shape,)}")
    if not bool((steps.isfinite() & (steps >= 0)).all()):
        raise ValueError("steps must be finite and not negative, but are not")
    xs = [x0]
    for a in steps:
        x = xs[-1]
        y = observe(x)
        # Another shape would broadcast without a word, for example (100, 1) to (100, 100).
        if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype != x.dtype:
            what = f"{(*y.shape,)} of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
            wanted = f"{(*x.shape,)} of {x.dtype}"
            raise ValueError(f"an observation must be {wanted} like x, but is {what}")
        xs.append(x - a.to(x) * y)
    return torch.stack(xs)


def power_steps(n: int, *, a: int | float = 1.0, alpha: int | float = 1.0) -> Float[Tensor, " n"]:
    """The step sizes a / k^α for k = 1, …, n, in float64.

    Args:
        n: The number of steps, at least 0.
        a: The first step size, positive and finite.
        alpha: α, not negative and finite: 0 gives constant steps. The conditions of Robbins and
            Monro hold for 1/2 < α ≤ 1.

    Raises:
        ValueError: n, a or alpha is not such a number.

    Examples:
        >>> power_steps(4, a=2.0, alpha=0.5)
        tensor([2.0000, 1.4142, 1.1547, 1.0000], dtype=torch.float64)
    """
    try:
        count = int(operator.index(n))
    except TypeError:
        count = -1
    if count < 0:
        raise ValueError(f"n must be an integer of at least 0, but is {n!r}")
    if not (isinstance(a, Real) and 0 < a < math.inf):
        raise ValueError(f"a must be positive and finite, but is {a!r}")
    if not (isinstance(alpha, Real) and 0 <= alpha < math.inf):
        raise ValueError(f"alpha must be finite and not negative, but is {alpha!r}")
    return a / torch.arange(1, count + 1, dtype=torch.float64) ** alpha


def polyak_average(xs: Float[Tensor, " n *shape"]) -> Float[Tensor, " n *shape"]:
    """The running means of iterates: element k is the mean of the first k + 1.

    The start is no estimate: leave it out, `polyak_average(xs[1:])`. The sums of half-precision
    iterates are in float32.

    Args:
        xs: The iterates (n, …), in a floating-point type.

    Returns:
        The running means (n, …).

    Raises:
        ValueError: xs is not a floating-point tensor with at least one dimension.

    Examples:
        >>> import torch
        >>> polyak_average(torch.tensor([4.0, 2.0, 3.0]))
        tensor([4., 3., 3.])
    """
    _check_floats(xs, "xs")
    if xs.ndim == 0:
        raise ValueError("xs must have a first dimension of iterates, but has no dimension")
    dtype = torch.promote_types(xs.dtype, torch.float32)
    count = torch.arange(1, len(xs) + 1, device=xs.device, dtype=dtype)
    sums = xs.cumsum(0, dtype=dtype)
    return (sums / count.view(-1, *[1] * (xs.ndim - 1))).to(xs.dtype)


def quantile_step(
    q: Float[Tensor, "*shape"], y: Float[Tensor, "*shape"], level: Number, step: Number
) -> Float[Tensor, "*shape"]:
    """One step towards a quantile: up by step · level if y is above q, else down.

    The step of `robbins_monro` with the observation [y ≤ q] - level, whose mean is F(q) - level for
    the distribution function F of y. A y of NaN counts as above. In each step, q moves by at most
    `step`, so outliers do no harm.

    Args:
        q: The estimate, of any shape, in a floating-point type.
        y: New values, of the same shape.
        level: The share of values below the quantile, between 0 and 1: 0.5 for the median. A
            number, or a tensor that broadcasts to q.
        step: The step size, in the unit of y, not negative: a number, or a tensor like `level`.

    Returns:
        The new estimate.

    Raises:
        ValueError: q or y is not a floating-point tensor, their shapes differ, the level is not
            between 0 and 1, or the step is negative.

    Examples:
        >>> import torch
        >>> q = torch.zeros(2)
        >>> quantile_step(q, torch.tensor([7.0, -7.0]), level=0.75, step=0.1)
        tensor([ 0.0750, -0.0250])
    """
    _check_floats(q, "q")
    _check_floats(y, "y")
    if q.shape != y.shape:
        raise ValueError(f"q and y must have one shape, but have {(*q.shape,)}, {(*y.shape,)}")
    level, step = (torch.as_tensor(number).to(q) for number in (level, step))
    if not _all((level > 0) & (level < 1)):
        raise ValueError(f"level must be between 0 and 1, but is {level}")
    if not _all(step >= 0):
        raise ValueError(f"step must not be negative, but is {step}")
    below = (y <= q).to(q.dtype)
    return q - step * (below - level)


def _check_floats(x: Tensor, name: str) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"{name} must be a floating-point tensor, but is {kind}")


def _all(condition: Bool[Tensor, "..."]) -> bool:
    return bool(condition.all())
