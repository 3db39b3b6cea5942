"""The Gaussian error linear unit, its derivative and its two approximations.

Source: Hendrycks & Gimpel, Gaussian Error Linear Units, arXiv 1606.08415, section 2.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from zhixing.activations.widen import widen


def gelu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """GELU, x Φ(x) with Φ the standard normal's distribution function, elementwise.

    Keeps its relative accuracy in the left tail, where `torch.nn.functional.gelu` returns zero:
    below -2 the error is at most x² times the type's epsilon, until the result itself underflows
    (below -13 in float32, -37 in float64). Twice differentiable. NaN at -inf, as in torch.

    Args:
        x: Values of any shape, in a floating-point type; those of fewer than 32 bits are
            computed in float32.

    Returns:
        A tensor of the same shape, type and device.

    Raises:
        ValueError: `x` is not of a floating-point type.
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
        ValueError: `x` is not of a floating-point type.
    """
    wide = widen(x)
    distribution = 0.5 * torch.erfc(-wide / math.sqrt(2))
    density = torch.exp(-0.5 * wide**2) / math.sqrt(2 * math.pi)
    return (distribution + wide * density).to(x.dtype)


def gelu_tanh(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The tanh approximation, x (1 + tanh u) / 2 with u = √(2/π) (x + 0.044715 x³), elementwise.

    What GPT-2 and `torch.nn.functional.gelu(x, approximate="tanh")` compute. It lies at most
    0.00048 from GELU.

    Args:
        x: Values of any shape, in a floating-point type; those of fewer than 32 bits are
            computed in float32.

    Returns:
        A tensor of the same shape, type and device.

    Raises:
        ValueError: `x` is not of a floating-point type.
    """
    wide = widen(x)
    u = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    # (1 + tanh u) / 2 = sigmoid(2u), which does not cancel for negative u.
    return (wide * torch.sigmoid(2 * u)).to(x.dtype)


def gelu_sigmoid(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sigmoid approximation, x σ(1.702 x), elementwise.

    Called QuickGELU in CLIP. It lies at most 0.0204 from GELU.

    Args:
        x: Values of any shape, in a floating-point type; those of fewer than 32 bits are
            computed in float32.

    Returns:
        A tensor of the same shape, type and device.

    Raises:
        ValueError: `x` is not of a floating-point type.
    """
    wide = widen(x)
    return (wide * torch.sigmoid(1.702 * wide)).to(x.dtype)
