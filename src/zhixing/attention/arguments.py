"""Checks and types of the arguments that attention of features shares."""

import torch
from torch import Tensor


def check_features(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Check that q is (B, H, N, D), k (B, H, M, D) and v (B, H, M, E), of one type on one device.

    Raises:
        ValueError: They are not, or D is 0.

    Examples:
        >>> import torch
        >>> x = torch.zeros(1, 2, 5, 3)
        >>> check_features(x, x, x[..., :2])
        >>> check_features(x[0], x, x)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: q, k and v must be (B, H, N, D), ..., v (1, 2, 5, 3)
    """
    if len({q.dtype, k.dtype, v.dtype}) > 1 or not q.is_floating_point():
        raise ValueError(
            "q, k and v must be of one floating-point type, "
            f"but are {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if len({q.device, k.device, v.device}) > 1:
        raise ValueError(
            f"q, k and v must be on one device, but are on {q.device}, {k.device}, {v.device}"
        )
    shapes = f"q {(*q.shape,)}, k {(*k.shape,)}, v {(*v.shape,)}"
    fit = (
        q.ndim == k.ndim == v.ndim == 4
        and q.shape[:2] == k.shape[:2]
        and k.shape[:3] == v.shape[:3]
    )
    if not fit or q.shape[3] != k.shape[3]:
        raise ValueError(
            f"q, k and v must be (B, H, N, D), (B, H, M, D) and (B, H, M, E), but are {shapes}"
        )
    if q.shape[3] == 0:
        raise ValueError(f"the head size must be positive, but the shapes are {shapes}")


def widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In float64 if they are, and else in float32.

    Examples:
        >>> import torch
        >>> half, double = widened(torch.ones(1).half(), torch.ones(1).double())
        >>> half.dtype, double.dtype
        (torch.float32, torch.float64)
    """
    return tuple(x.to(torch.promote_types(x.dtype, torch.float32)) for x in tensors)
