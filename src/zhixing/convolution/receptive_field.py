"""The receptive field of a unit: from a list of layers, from a network, and its effective width.

Sources: Araujo, Norris & Sim, Computing receptive fields of convolutional neural networks, Distill
2019, for size and position; Luo et al., Understanding the effective receptive field in deep
convolutional neural networks, arXiv 1701.04128, for the effective width.

All positions are along one axis, in pixels of the input, and the first pixel is at 0. The list of
layers leaves out branches, transposed convolutions and interpolation, which `nan_probe` covers.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zhixing.convolution.arguments import integer
from zhixing.foundations.autocast import autocast_off


class ReceptiveField(NamedTuple):
    """The fields of all units of a layer: unit u sees `size` pixels around `centre + u * stride`.

    Examples:
        >>> field = ReceptiveField(size=4, stride=2, centre=0.5)
        >>> [field.centre + u * field.stride for u in range(3)]
        [0.5, 2.5, 4.5]
    """

    size: int
    stride: int
    centre: float


def receptive_field(layers: Iterable[tuple[int, int, int, int]]) -> ReceptiveField:
    """The size, stride and first centre of the receptive fields after a chain of layers.

    A field may extend beyond the input, where its units see padding.

    Args:
        layers: Convolutions and poolings from the input on, each as its kernel size, stride,
            padding (on the left) and dilation. Elementwise layers are left out.

    Returns:
        The size, the distance between neighbouring centres, and the centre of unit 0.

    Raises:
        ValueError: A layer does not have these four integers, or one of them is out of range.

    Examples:
        >>> conv, pool = (3, 1, 1, 1), (2, 2, 0, 1)
        >>> receptive_field([conv, conv, pool])
        ReceptiveField(size=6, stride=2, centre=0.5)
    """
    size, jump, centre = 1, 1, 0.0
    for kernel, stride, padding, dilation in map(_checked, layers):
        reach = (kernel - 1) * dilation
        size += reach * jump
        centre += (reach / 2 - padding) * jump
        jump *= stride
    return ReceptiveField(size, jump, centre)


def effective_std(layers: Iterable[tuple[int, int, int, int]]) -> float:
    """The standard deviation, in pixels, of a unit's weights on the input under uniform kernels.

    The mean squares of the weights have the same standard deviation if the entries of each kernel
    are random: independent, with mean 0 and one variance. Trained kernels are neither.

    Args:
        layers: As in `receptive_field`; the padding has no effect.

    Returns:
        The standard deviation along one axis.

    Raises:
        ValueError: As in `receptive_field`.

    Examples:
        >>> round(effective_std([(3, 1, 1, 1)] * 20), 2)
        3.65
    """
    variance, jump = 0.0, 1
    for kernel, stride, _, dilation in map(_checked, layers):
        variance += (kernel**2 - 1) / 12 * (dilation * jump) ** 2
        jump *= stride
    return math.sqrt(variance)


def nan_probe(
    net: Callable[[Tensor], Tensor], size: tuple[int, ...], *, unit: int | None = None
) -> tuple[int, int]:
    """The first and last input column that a unit of a network sees, found by marking with NaN.

    Columns run along the last axis of input and output. Columns 0 to m are set to NaN; the smallest
    m for which the unit becomes NaN is the first column that it sees. The last is found likewise,
    each in about log2(columns) runs on one input, without autocast.

    Whatever is multiplied by 0 counts as seen, so masked convolutions, causal attention, and
    interpolation exactly at a pixel get too large a field. For these, use a gradient.

    If the first column is 0 or the last is the input's last, the field may be larger than the
    input: make the input wider. A field that covers every input is infinite.

    Args:
        net: A module in evaluation mode, or a function, which maps one tensor to one tensor, in
            float32 or float64. It must not replace NaN: `nan_to_num`, `argmax` and comparisons do.
        size: Shape of the input without the batch, such as (channels, height, width). The height
            may be as small as the network allows.
        unit: Index along the output's last axis, which may be negative; the default is the middle.

    Returns:
        The first and last column, both inclusive.

    Raises:
        ValueError: The size is not one of positive integers; the network is in training mode, where
            batch normalisation would keep the NaN, or in half precision; it returns no tensor; it
            has no such unit; its output is NaN without our NaN, or a number with nothing but NaN.

    Examples:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        >>> nan_probe(net.eval(), (1, 2, 32), unit=5)
        (9, 12)
    """
    image = _image(net, size)
    clean = _output(net, image)
    columns, width = clean.shape[-1], size[-1]
    at = columns // 2 if unit is None else integer(unit, "unit", least=-columns)
    if at >= columns:
        raise ValueError(f"expected a unit among {columns} columns, but unit is {at}")

    def sees(first: int, stop: int) -> bool:
        x = image.clone()
        x[..., first:stop] = torch.nan
        return bool(_output(net, x)[..., at].isnan().any())

    if sees(0, 0):
        raise ValueError("expected an output without NaN for an input without NaN")
    if not sees(0, width):
        raise ValueError("expected NaN for NaN, but the network replaces it, or sees nothing")
    first = bisect_left(range(width), True, key=lambda m: sees(0, m + 1))
    behind = bisect_left(range(width), True, key=lambda m: sees(width - 1 - m, width))
    return first, width - 1 - behind


def _image(net: Callable[[Tensor], Tensor], size: tuple[int, ...]) -> Tensor:
    """An input of this size on the network's device and in its type, if the probe can read it."""
    if (
        not isinstance(size, Sequence)
        or not size
        or not all(type(length) is int and length > 0 for length in size)
    ):
        raise ValueError(f"expected the input's shape without the batch, but size is {size}")
    module = net if isinstance(net, nn.Module) else nn.Module().eval()
    if any(part.training for part in module.modules()):
        raise ValueError("expected a network in evaluation mode: call net.eval() first")
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    # Some kernels of lower precision multiply neighbouring columns by 0, which makes them NaN.
    if like.itemsize < 4:
        raise ValueError(f"expected at least 32 bits, but a parameter is {like.dtype}: net.float()")
    # Not constant, which normalisation could divide by 0; the global generator stays as it is.
    return torch.rand(1, *size, generator=torch.Generator().manual_seed(0)).to(like)


def _output(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The network's output, without the algorithms that would spread NaN to other columns."""
    nnpack, cudnn = torch.backends.nnpack.flags, torch.backends.cudnn.flags
    # They may choose Winograd or Fourier transforms.
    with torch.no_grad(), nnpack(enabled=False), cudnn(enabled=False), autocast_off(x):
        y = net(x)
    if not isinstance(y, Tensor):
        raise ValueError(f"expected a network that returns one tensor, but got {type(y).__name__}")
    if y.ndim == 0:
        raise ValueError("expected an output with columns, but got a single number")
    return y


def _checked(layer: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The layer, if it is a kernel size, a stride, a padding and a dilation."""
    least = (1, 1, 0, 1)
    numbers = isinstance(layer, tuple) and all(type(number) is int for number in layer)
    if not numbers or len(layer) != 4 or any(a < b for a, b in zip(layer, least, strict=True)):
        raise ValueError(f"expected (kernel, stride, padding, dilation), but a layer is {layer}")
    return layer
