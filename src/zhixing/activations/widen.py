"""Compute in a type that holds the intermediate values."""

from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """`x` itself, or in float32 where its floating-point type has fewer than 32 bits.

    Raises:
        ValueError: `x` is not a tensor of a floating-point type.

    Examples:
        >>> import torch
        >>> widen(torch.ones(2, dtype=torch.bfloat16)).dtype
        torch.float32
        >>> widen(torch.ones(2, dtype=torch.float64)).dtype
        torch.float64
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"an activation needs a floating-point tensor, but x is {kind}")
    return x.float() if x.dtype.itemsize < 4 else x
