"""Summarize the module in one line.

Source: Author et al., Title, arXiv 0000.00000, section 0, equation 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def ARTICLE(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Summarize the function, with its symbols: the sine of x, elementwise.

    Args:
        x: Angles in radians, of any shape, in a floating-point type.

    Returns:
        A tensor of the same shape and type; its values lie between -1 and 1.

    Raises:
        ValueError: `x` does not have a floating-point type.
    """
    if not x.is_floating_point():
        raise ValueError(f"ARTICLE needs a floating-point tensor, but x is {x.dtype}")
    return (torch.exp(1j * x)).imag
