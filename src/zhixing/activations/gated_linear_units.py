"""Gated linear units, and the feed-forward layer of a Transformer that is built from one.

Source: Shazeer, GLU Variants Improve Transformer, arXiv 2002.05202, equations 4 to 6.
"""

import operator
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zhixing.activations.gelu import gelu
from zhixing.activations.swish import swish

Unit = Callable[[Tensor, Tensor], Tensor]


def glu(
    gate: Float[Tensor, "*shape"],
    value: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """σ(gate) · value (Dauphin et al. 2016, arXiv 1612.08083, equation 1).

    The gate comes first, as in Shazeer's paper; `torch.nn.functional.glu` expects it in the second
    half of its input.

    Args:
        gate: The projection xW that opens and closes.
        value: The projection xV that is let through.

    Raises:
        ValueError: They are not floating-point tensors of one shape.

    Examples:
        >>> import torch
        >>> gate, value = torch.tensor([[0.0, 1.0], [3.0, 2.0]], dtype=torch.float64)
        >>> [round(entry, 4) for entry in glu(gate, value).tolist()]
        [1.5, 1.4621]
    """
    _check_projections(gate, value)
    return torch.sigmoid(gate) * value


def geglu(
    gate: Float[Tensor, "*shape"],
    value: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """GELU(gate) · value with the exact GELU, arguments and errors as in `glu`.

    T5 1.1 and Gemma have been trained with the tanh form of GELU instead.

    Examples:
        >>> import torch
        >>> gate, value = torch.tensor([[0.0, 1.0], [3.0, 2.0]], dtype=torch.float64)
        >>> [round(entry, 4) for entry in geglu(gate, value).tolist()]
        [0.0, 1.6827]
    """
    _check_projections(gate, value)
    return gelu(gate) * value


def swiglu(
    gate: Float[Tensor, "*shape"],
    value: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """SiLU(gate) · value, arguments and errors as in `glu`.

    The product grows with the square of the scale: in float16 it overflows from about 256 on. In
    training take `torch.nn.functional.silu(gate) * value`, which keeps fewer tensors.

    Examples:
        >>> import torch
        >>> gate, value = torch.tensor([[0.0, 1.0], [3.0, 2.0]], dtype=torch.float64)
        >>> [round(entry, 4) for entry in swiglu(gate, value).tolist()]
        [0.0, 1.4621]
    """
    _check_projections(gate, value)
    return swish(gate) * value


def clamped_swiglu(
    gate: Float[Tensor, "*shape"],
    value: Float[Tensor, "*shape"],
    *,
    beta: float = 1.702,
    limit: float = 7.0,
    shift: float = 1.0,
) -> Float[Tensor, "*shape"]:
    """g σ(beta g) · (v + shift) with g = min(gate, limit), v = value within ±limit.

    The defaults are those of gpt-oss; DeepSeek-V4 has `beta=1.0, limit=10.0, shift=0.0`. Gradients
    are 0 where the limit cuts. gpt-oss stores gates and values in turn, `h[..., ::2]` and
    `h[..., 1::2]`. Errors as in `glu`.

    Examples:
        >>> import torch
        >>> gate, value = torch.tensor([[0.0, 1.0, 100.0], [3.0, 2.0, 100.0]], dtype=torch.float64)
        >>> [round(entry, 4) for entry in clamped_swiglu(gate, value).tolist()]
        [0.0, 2.5374, 55.9996]
    """
    _check_projections(gate, value)
    gate, value = gate.clamp(max=limit), value.clamp(-limit, limit)
    return swish(gate, beta=beta) * (value + shift)


def gated_feed_forward(
    x: Float[Tensor, "*batch model"],
    gate_weight: Float[Tensor, "hidden model"],
    up_weight: Float[Tensor, "hidden model"],
    down_weight: Float[Tensor, "model hidden"],
    *,
    unit: Unit = swiglu,
) -> Float[Tensor, "*batch model"]:
    """unit(xW, xV) W₂, without biases and dropout (equation 6); with `swiglu`, FFN_SwiGLU.

    The weights lie as in `nn.Linear`, out × in: they are the transposes of the paper's W, V, W₂,
    and in LLaMA's own files w1, w3, w2. Gate and up have one shape: nothing notices if they change
    places, nor square matrices that are transposed.

    Raises:
        ValueError: An argument is not a floating-point tensor, or the matrices do not fit each
            other or `x`.

    Examples:
        >>> import torch
        >>> gate, up, down = torch.ones(4, 6), torch.ones(4, 6), torch.ones(6, 4)
        >>> gated_feed_forward(torch.ones(5, 6), gate, up, down).shape
        torch.Size([5, 6])
    """
    weights = gate_weight, up_weight, down_weight
    for tensor in (x, *weights):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
            raise ValueError(f"x and the weights must be floating-point tensors, but one is {kind}")
    shapes = {tuple(gate_weight.shape), tuple(up_weight.shape), tuple(down_weight.shape[::-1])}
    if x.ndim == 0 or gate_weight.ndim != 2 or shapes != {(len(gate_weight), x.shape[-1])}:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (x, *weights))
        raise ValueError(f"x and the weights (out × in) of shapes {shapes} do not fit together")
    return F.linear(unit(F.linear(x, gate_weight), F.linear(x, up_weight)), down_weight)


class GatedFeedForward(nn.Module):
    """The gated feed-forward layer with its weights, named as in transformers' `LlamaMLP`.

    Its `state_dict` is that of such a layer: gate_proj.weight, up_proj.weight, down_proj.weight.
    Left out: biases, dropout, the fused `gate_up_proj` of some models, initialisation other than
    that of `nn.Linear`.

    Args:
        model: Size of the input and the output.
        hidden: Size in between; `gated_hidden_size` gives one for a comparison with two matrices.
        unit: What is made of the gate and the value; the checkpoint has been trained with one.

    Raises:
        ValueError: A size is not a positive integer.

    Examples:
        >>> import torch
        >>> layer = GatedFeedForward(768, 2048)
        >>> layer(torch.ones(2, 5, 768)).shape
        torch.Size([2, 5, 768])
        >>> layer.gate_proj.weight.shape
        torch.Size([2048, 768])
    """

    def __init__(self, model: int, hidden: int, *, unit: Unit = swiglu) -> None:
        super().__init__()
        model, hidden = _size(model), _size(hidden)
        self.gate_proj = nn.Linear(model, hidden, bias=False)
        self.up_proj = nn.Linear(model, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, model, bias=False)
        self.unit = unit

    def forward(self, x: Float[Tensor, "*batch model"]) -> Float[Tensor, "*batch model"]:
        """Compute `gated_feed_forward` of `x` and the three weights."""
        # Through the layers, so that hooks, adapters and quantised layers in their place take part.
        return self.down_proj(self.unit(self.gate_proj(x), self.up_proj(x)))


def gated_hidden_size(hidden: int, *, multiple_of: int = 1) -> int:
    """The hidden size that gives a gated layer the parameters of an ungated one (section 2).

    Three matrices instead of two, hence two thirds, cut off to an integer, but at least 1.

    Args:
        hidden: Hidden size of the layer without a gate.
        multiple_of: Round the result up to a multiple of this; LLaMA's first sizes take 256.

    Raises:
        ValueError: A number is not a positive integer.

    Examples:
        >>> gated_hidden_size(3072)
        2048
        >>> gated_hidden_size(4 * 4096, multiple_of=256)
        11008
    """
    hidden, multiple_of = _size(hidden), _size(multiple_of)
    return multiple_of * -(-max(1, 2 * hidden // 3) // multiple_of)


def _check_projections(gate: Tensor, value: Tensor) -> None:
    for name, tensor in {"gate": gate, "value": value}.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
            raise ValueError(f"a unit needs floating-point tensors, but the {name} is {kind}")
    if gate.shape != value.shape:
        shapes = f"{(*gate.shape,)} and {(*value.shape,)}"
        raise ValueError(f"gate and value must have one shape, but have {shapes}")


def _size(number: int) -> int:
    try:
        size = int(operator.index(number))
    except TypeError:
        size = 0
    if size < 1:
        raise ValueError(f"sizes must be positive integers, but one is {number!r}")
    return size
