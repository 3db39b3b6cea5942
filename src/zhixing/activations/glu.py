"""Gated linear units, and the feed-forward layer of a Transformer that is built from one.

Source: Shazeer, GLU Variants Improve Transformer, arXiv 2002.05202, equations 4 to 6.
"""

import math
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from zhixing.activations.gelu import gelu
from zhixing.activations.history import sigmoid, silu


def glu(
    gate: Float[Tensor, "*shape"],
    value: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """sigmoid(gate) · value (Dauphin et al. 2016, arXiv 1612.08083, equation 1).

    The gate comes first, as in Shazeer's paper; `torch.nn.functional.glu` expects it in the second
    half of its input.

    Args:
        gate: The projection xW that opens and closes.
        value: The projection xV that is let through.

    Examples:
        >>> import torch
        >>> gate, value = torch.tensor([[0.0, 1.0], [3.0, 2.0]], dtype=torch.float64)
        >>> [round(entry, 4) for entry in glu(gate, value).tolist()]
        [1.5, 1.4621]
    """
    return sigmoid(gate) * value


def geglu(
    gate: Float[Tensor, "*shape"],
    value: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """gelu(gate) · value, with the exact GELU; arguments as in `glu`.

    Examples:
        >>> import torch
        >>> gate, value = torch.tensor([[0.0, 1.0], [3.0, 2.0]], dtype=torch.float64)
        >>> [round(entry, 4) for entry in geglu(gate, value).tolist()]
        [0.0, 1.6827]
    """
    return gelu(gate) * value


def swiglu(
    gate: Float[Tensor, "*shape"],
    value: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """silu(gate) · value; arguments as in `glu`.

    Examples:
        >>> import torch
        >>> gate, value = torch.tensor([[0.0, 1.0], [3.0, 2.0]], dtype=torch.float64)
        >>> [round(entry, 4) for entry in swiglu(gate, value).tolist()]
        [0.0, 1.4621]
    """
    return silu(gate) * value


def gated_feed_forward(
    x: Float[Tensor, "*batch model"],
    w: Float[Tensor, "model hidden"],
    v: Float[Tensor, "model hidden"],
    w2: Float[Tensor, "hidden model"],
    *,
    unit: Callable[[Tensor, Tensor], Tensor] = swiglu,
) -> Float[Tensor, "*batch model"]:
    """unit(xW, xV) W₂, without biases (equation 6); with `swiglu` it is the paper's FFN_SwiGLU.

    Raises:
        ValueError: The matrices do not fit each other or `x`.

    Examples:
        >>> import torch
        >>> x, w, v, w2 = torch.ones(5, 6), torch.ones(6, 4), torch.ones(6, 4), torch.ones(4, 6)
        >>> gated_feed_forward(x, w, v, w2).shape
        torch.Size([5, 6])
    """
    if not (x.shape[-1] == len(w) and w.shape == v.shape == w2.T.shape):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (x, w, v, w2))
        raise ValueError(f"x, w, v, w2 of shapes {shapes} do not fit together")
    return unit(x @ w, x @ v) @ w2


def gated_hidden_size(hidden: int, *, multiple_of: int = 1) -> int:
    """The hidden size that gives a gated layer the parameters of an ungated one (section 2).

    Three matrices instead of two, hence two thirds, cut off to an integer.

    Args:
        hidden: Hidden size of the layer without a gate.
        multiple_of: Round the result up to a multiple of this; LLaMA's first sizes take 256.

    Raises:
        ValueError: A number is not positive.

    Examples:
        >>> gated_hidden_size(3072)
        2048
        >>> gated_hidden_size(4 * 4096, multiple_of=256)
        11008
    """
    if hidden < 1 or multiple_of < 1:
        raise ValueError(f"sizes must be positive, but they are {hidden} and {multiple_of}")
    return multiple_of * math.ceil(2 * hidden // 3 / multiple_of)
