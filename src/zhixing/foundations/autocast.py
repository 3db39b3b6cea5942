"""Compute in the types of the arguments, whatever autocast would choose."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_off(x: Tensor) -> AbstractContextManager:
    """No autocast on the device of `x`, so that products are computed in the types given.

    Examples:
        >>> import torch
        >>> x = torch.ones(2, 2)
        >>> with torch.autocast("cpu", dtype=torch.bfloat16), autocast_off(x):
        ...     (x @ x).dtype
        torch.float32
    """
    if not torch.amp.is_autocast_available(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)
