"""Checks of arguments that the modules on convolution share."""

import math
import operator
from numbers import Real

from torch import Tensor


def integer(number: int, name: str, *, least: int = 1) -> int:
    """The number as an `int`; integers of NumPy, and tensors that hold one, are accepted too.

    Raises:
        ValueError: It is no integer, or less than `least`.

    Examples:
        >>> integer(3, "stride")
        3
        >>> integer(2.5, "stride")
        Traceback (most recent call last):
        ValueError: stride must be a positive integer, but is 2.5
    """
    try:
        value = int(operator.index(number))
    except TypeError:
        value = None
    if value is None or value < least:
        wanted = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"{name} must be {wanted}, but is {number!r}")
    return value


def pair(numbers: tuple[int, int], name: str) -> tuple[int, int]:
    """Two positive integers, such as height and width.

    Raises:
        ValueError: They are not two, or one of them is no positive integer.

    Examples:
        >>> pair((3, 5), "size")
        (3, 5)
        >>> pair(3, "size")
        Traceback (most recent call last):
        ValueError: size must be two positive integers, but is 3
    """
    try:
        first, second = numbers
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be two positive integers, but is {numbers!r}") from None
    return integer(first, name), integer(second, name)


def factor(number: float | int, name: str) -> float | int:
    """A positive and finite number.

    Raises:
        ValueError: It is no number, or not positive and finite.

    Examples:
        >>> factor(1.5, "width")
        1.5
        >>> factor(0.0, "width")
        Traceback (most recent call last):
        ValueError: width must be positive and finite, but is 0.0
    """
    if not (isinstance(number, Real | Tensor) and 0 < number < math.inf):
        raise ValueError(f"{name} must be positive and finite, but is {number!r}")
    return number


def probability(number: float | int, name: str) -> float | int:
    """A number from 0 to 1.

    Raises:
        ValueError: It is no number, or outside.

    Examples:
        >>> probability(0.2, "p")
        0.2
        >>> probability(1.5, "p")
        Traceback (most recent call last):
        ValueError: p must be between 0 and 1, but is 1.5
    """
    if not (isinstance(number, Real | Tensor) and 0 <= number <= 1):
        raise ValueError(f"{name} must be between 0 and 1, but is {number!r}")
    return number


def check_floats(x: Tensor, name: str, *sizes: str | int) -> None:
    """Check that `x` is a floating-point tensor of these sizes; a letter stands for any size.

    Only B, the number of samples, may be 0.

    Raises:
        ValueError: It is not.

    Examples:
        >>> import torch
        >>> check_floats(torch.zeros(2, 3, 5, 5), "x", "B", 3, "H", "W")
        >>> check_floats(torch.zeros(3, 5, 5), "x", "B", 3, "H", "W")
        Traceback (most recent call last):
        ValueError: x must be (B, 3, H, W), but its shape is (3, 5, 5)
    """
    wanted = f"({', '.join(map(str, sizes))})"
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"{name} must be a floating-point tensor {wanted}, but is {kind}")
    shape = (*x.shape,)
    fits = len(shape) == len(sizes) and all(
        isinstance(size, str) or size == length for size, length in zip(sizes, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} must be {wanted}, but its shape is {shape}")
    if 0 in (length for size, length in zip(sizes, shape, strict=True) if size != "B"):
        raise ValueError(f"only B may be 0 in {name} {wanted}, but its shape is {shape}")
