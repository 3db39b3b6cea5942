"""The Gaussian error linear unit, its derivative and its two approximations.

Source: Hendrycks & Gimpel, Gaussian Error Linear Units, arXiv 1606.08415, section 2.

The functions are composed of elementwise operations of torch. They leave out what
`torch.nn.functional.gelu` does besides: one fused operation, which is faster and keeps less memory
for the backward pass.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from zhixing.activations.widen import widen


def gelu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """GELU, x Φ(x) with Φ the standard normal's distribution function, elementwise.

    Keeps its relative accuracy in the left tail, where x (1 + erf(x / √2)) / 2 cancels to zero:
    below -2 the error is at most x² times the type's epsilon, until the result itself underflows
    (below -13 in float32, -37 in float64). Twice differentiable. NaN at -inf.

    Args:
        x: Values of any shape, in a floating-point type; those of fewer than 32 bits are
            computed in float32.

    Returns:
        A tensor of the same shape, type and device.

    Raises:
        ValueError: `x` is not a tensor of a floating-point type.

    Examples:
        >>> import torch
        >>> y = gelu(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
        >>> [round(value, 4) for value in y.tolist()]
        [-0.1587, 0.0, 0.8413]
    """
    wide = widen(x)
    return (0.5 * wide * torch.erfc(-wide / math.sqrt(2))).to(x.dtype)


def gelu_derivative(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The derivative of GELU, Φ(x) + x φ(x) with φ the standard normal's density, elementwise.

    Args:
        x: Values of any shape, in a floating-point type; those of fewer than 32 bits are
            computed in float32.

    Returns:
        A tensor of the same shape, type and device; its values lie between -0.129 and
            1.129. NaN at ±inf.

    Raises:
        ValueError: `x` is not a tensor of a floating-point type.

    Examples:
        >>> import torch
        >>> slope = gelu_derivative(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
        >>> [round(value, 4) for value in slope.tolist()]
        [-0.0833, 0.5, 1.0833]
    """
    wide = widen(x)
    distribution = 0.5 * torch.erfc(-wide / math.sqrt(2))
    density = torch.exp(-0.5 * wide**2) / math.sqrt(2 * math.pi)
    return (distribution + wide * density).to(x.dtype)


def gelu_tanh(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The tanh approximation, x (1 + tanh u) / 2 with u = √(2/π) (x + 0.044715 x³), elementwise.

    GPT-2 and `torch.nn.functional.gelu(x, approximate="tanh")` compute it. It differs from GELU by
    at most 0.00048. NaN at -inf. Its gradient is NaN where x² overflows: from about |x| = 1e19 on
    in float32, never in float16, which is computed in float32.

    Args:
        x: Values of any shape, in a floating-point type; those of fewer than 32 bits are
            computed in float32.

    Returns:
        A tensor of the same shape, type and device.

    Raises:
        ValueError: `x` is not a tensor of a floating-point type.

    Examples:
        >>> import torch
        >>> y = gelu_tanh(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
        >>> [round(value, 4) for value in y.tolist()]
        [-0.1588, 0.0, 0.8412]
    """
    wide = widen(x)
    u = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    # (1 + tanh u) / 2 = sigmoid(2u), which does not cancel for negative u.
    return (wide * torch.sigmoid(2 * u)).to(x.dtype)


def gelu_sigmoid(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sigmoid approximation, x σ(1.702 x), elementwise.

    Called QuickGELU in CLIP. It differs from GELU by at most 0.0204. NaN at -inf.

    Args:
        x: Values of any shape, in a floating-point type; those of fewer than 32 bits are
            computed in float32.

    Returns:
        A tensor of the same shape, type and device.

    Raises:
        ValueError: `x` is not a tensor of a floating-point type.

    Examples:
        >>> import torch
        >>> y = gelu_sigmoid(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
        >>> [round(value, 4) for value in y.tolist()]
        [-0.1542, 0.0, 0.8458]
    """
    wide = widen(x)
    return (wide * torch.sigmoid(1.702 * wide)).to(x.dtype)
