"""Swish, which is SiLU at β = 1: the function, its derivative and its minimum.

Source: Ramachandran, Zoph & Le, Searching for Activation Functions, arXiv 1710.05941, section 4;
for β = 1 Elfwing, Uchibe & Doya, arXiv 1702.03118.

The functions are composed of elementwise operations of torch. At β = 1
`torch.nn.functional.silu` is one fused operation, which is faster and keeps less memory for the
backward pass.
"""

import math
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from zhixing.activations.widen import widen

# W(1/e), Lambert's function: the solution w of w exp(w) = 1/e, equally of w + ln(w) = -1.
LAMBERT_W = 0.2784645427610738


def swish(
    x: Float[Tensor, "*shape"], *, beta: float | Float[Tensor, "..."] = 1.0
) -> Float[Tensor, "*shape"]:
    """Swish, x σ(β x) with σ the logistic function, elementwise.

    `torch.nn.functional.silu(x)` at β = 1, x / 2 at β = 0, near ReLU for large β. Differentiable
    twice in `x` and in `beta`. Where β x is below about -87 in float32 (-708 in float64), σ is
    too small for the type and the result goes to 0; NaN where `x` is infinite, unless β x is +inf.

    Args:
        x: Values of any shape, in a floating-point type; those of fewer than 32 bits are
            computed in float32.
        beta: β, a number, or a floating-point tensor that broadcasts to the shape of `x`. For one
            β per channel of images (B, C, H, W) its shape is (C, 1, 1); (C,) would go along the
            width.

    Returns:
        A tensor of the shape, type and device of `x`.

    Raises:
        ValueError: `x` is not a tensor of a floating-point type, `beta` is neither a number nor
            such a tensor, or the shape of `beta` does not broadcast to that of `x`.

    Examples:
        >>> import torch
        >>> x = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
        >>> [round(value, 4) for value in swish(x).tolist()]
        [-0.2689, 0.0, 0.7311]
        >>> swish(x, beta=0.0).tolist()
        [-0.5, 0.0, 0.5]
    """
    wide = widen(x)
    return (wide * torch.sigmoid(_steepness(beta, x) * wide)).to(x.dtype)


def swish_derivative(
    x: Float[Tensor, "*shape"], *, beta: float | Float[Tensor, "..."] = 1.0
) -> Float[Tensor, "*shape"]:
    """The derivative of Swish in x, σ(z) (1 + z σ(-z)) with z = β x, elementwise.

    At β = 1 Elfwing et al. call it dSiLU and use it as an activation in its own right.

    Args:
        x: Values of any shape, in a floating-point type; those of fewer than 32 bits are
            computed in float32.
        beta: β, a number, or a floating-point tensor that broadcasts to the shape of `x`.

    Returns:
        A tensor of the shape, type and device of `x`; its values lie between -0.0999 and
            1.0999, before they are rounded to the type. NaN where β x is ±inf.

    Raises:
        ValueError: `x` is not a tensor of a floating-point type, `beta` is neither a number nor
            such a tensor, or the shape of `beta` does not broadcast to that of `x`.

    Examples:
        >>> import torch
        >>> slope = swish_derivative(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
        >>> [round(value, 4) for value in slope.tolist()]
        [0.0723, 0.5, 0.9277]
    """
    wide = widen(x)
    z = _steepness(beta, x) * wide
    return (torch.sigmoid(z) * (1 + z * torch.sigmoid(-z))).to(x.dtype)


def swish_minimum(beta: float = 1.0) -> tuple[float, float]:
    """The minimum of Swish, at x = -(1 + w) / β with the value -w / β, where w = W(1/e).

    There, and at the mirror image -x, Swish is farthest from ReLU, by w / β.

    Args:
        beta: β, positive and finite. (Swish has no minimum at a negative β, but a maximum.)

    Returns:
        The minimum's x and y.

    Raises:
        ValueError: `beta` is not a number, or not positive and finite.

    Examples:
        >>> x, y = swish_minimum()
        >>> round(x, 4), round(y, 4)
        (-1.2785, -0.2785)
    """
    if not (isinstance(beta, Real) and 0 < beta < math.inf):
        raise ValueError(f"a minimum needs a positive and finite beta, but beta is {beta}")
    return -(1 + LAMBERT_W) / beta, -LAMBERT_W / beta


def _steepness(beta: float | Tensor, x: Tensor) -> float | Tensor:
    """Return `beta`; check that it is a number, or floats that broadcast to the shape of `x`."""
    if isinstance(beta, Real):
        return beta
    if not isinstance(beta, Tensor) or not beta.is_floating_point():
        kind = beta.dtype if isinstance(beta, Tensor) else f"a {type(beta).__name__}"
        raise ValueError(f"beta must be a number or a floating-point tensor, but is {kind}")
    pairs = zip(reversed(beta.shape), reversed(x.shape), strict=False)
    if beta.ndim > x.ndim or any(size not in (1, of_x) for size, of_x in pairs):
        raise ValueError(
            f"beta must broadcast to the shape of x, but has {(*beta.shape,)}, x {(*x.shape,)}"
        )
    return beta
