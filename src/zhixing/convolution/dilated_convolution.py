"""Dilated convolution: what a stack of rates sees, by phases, causal, and as a context module.

Sources: Yu & Koltun, Multi-Scale Context Aggregation by Dilated Convolutions, arXiv 1511.07122;
van den Oord et al., WaveNet, arXiv 1609.03499, section 2.1.

In a network, call torch's `Conv2d(..., dilation=d)`: `dilated_conv2d` shows how dilation works.
Left out: strides, groups, other paddings than zeros, and streaming of a causal convolution.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from zhixing.convolution.arguments import check_floats, integer


def has_holes(rates: Sequence[int], *, kernel_size: int = 3) -> bool:
    """Whether a stack of dilated convolutions misses pixels inside its receptive field.

    There are no holes if and only if each rate, in ascending order, is at most the receptive field
    of the smaller ones, 1 + (K - 1) times their sum. The order of the layers does not matter.
    Two-dimensional layers are judged along one axis, and have holes if the axis has.

    Args:
        rates: The dilation rate of every convolution on the path, at stride 1.
        kernel_size: K, the same for all of them, at least 2.

    Raises:
        ValueError: A rate is not a positive integer, or the kernel size is below 2.

    Examples:
        >>> has_holes([2, 2, 2]), has_holes([1, 2, 4]), has_holes([1, 3, 9]), has_holes([1, 3, 10])
        (True, False, False, True)
    """
    rates, kernel_size = _checked(rates), integer(kernel_size, "the kernel size", least=2)
    receptive_field = 1
    for rate in sorted(rates):
        if rate > receptive_field:
            return True
        receptive_field += (kernel_size - 1) * rate
    return False


def path_counts(rates: Sequence[int], *, kernel_size: int = 3) -> Int[Tensor, " r"]:
    """The number of paths from each input pixel to one output pixel, through a stack of layers.

    Entry r // 2 belongs to the input pixel under the output pixel, if K is odd; a zero is a hole.
    In two dimensions the counts are the products of those along the axes.

    Args:
        rates: The dilation rate of every convolution on the path, at stride 1.
        kernel_size: K, the same for all of them, at least 2.

    Returns:
        (R,), where R = 1 + (K - 1) · (sum of the rates) is the receptive field; sums to
            K to the power of the number of layers.

    Raises:
        ValueError: A rate is not a positive integer, the kernel size is below 2, or there may be
            2⁶³ paths or more.

    Examples:
        >>> path_counts([2, 2]).tolist()
        [1, 0, 2, 0, 3, 0, 2, 0, 1]
        >>> path_counts([1, 3]).tolist()
        [1, 1, 1, 1, 1, 1, 1, 1, 1]
    """
    rates, kernel_size = _checked(rates), integer(kernel_size, "the kernel size", least=2)
    if kernel_size ** len(rates) >= 2**63:
        raise ValueError(f"{kernel_size}^{len(rates)} paths are too many to count in int64")
    counts = torch.ones(1, dtype=torch.int64)
    for rate in rates:
        longer = counts.new_zeros(len(counts) + (kernel_size - 1) * rate)
        for tap in range(kernel_size):
            longer[tap * rate : tap * rate + len(counts)] += counts
        counts = longer
    return counts


def dilated_conv2d(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "o c kh kw"],
    bias: Float[Tensor, " o"] | None = None,
    *,
    dilation: int,
) -> Float[Tensor, "b o h w"]:
    """A dilated convolution as an ordinary one on each of the d² phases of the image.

    Equals `F.conv2d(x, weight, bias, padding="same", dilation=dilation)` up to rounding. A phase is
    the image that remains if only every d-th row and column is kept.

    Args:
        x: Images (B, C, H, W), H and W at least 1.
        weight: Kernels (O, C, KH, KW) with odd KH and KW, as in `nn.Conv2d`.
        bias: One number for each output channel, or None.
        dilation: The rate d, along both axes.

    Returns:
        (B, O, H, W); beyond the border the images count as zero.

    Raises:
        ValueError: An argument is not a floating-point tensor of these dimensions, the number of
            channels differs, a kernel has an even side, or the rate is not a positive integer.

    Examples:
        A kernel that copies its right neighbour copies the pixel d further to the right.

        >>> import torch
        >>> x = torch.arange(1.0, 6.0).view(1, 1, 1, 5)
        >>> weight = torch.tensor([0.0, 0.0, 1.0]).view(1, 1, 1, 3)
        >>> dilated_conv2d(x, weight, dilation=2).flatten().tolist()
        [3.0, 4.0, 5.0, 0.0, 0.0]
    """
    d = integer(dilation, "the dilation rate")
    check_floats(x, "x", "B", "C", "H", "W")
    check_floats(weight, "weight", "O", "C", "KH", "KW")
    if bias is not None:
        check_floats(bias, "bias", len(weight))
    if x.shape[1] != weight.shape[1]:
        raise ValueError(f"x has {x.shape[1]} channels, but the weight is for {weight.shape[1]}")
    kernel = weight.shape[2:]
    if any(side % 2 == 0 for side in kernel):
        raise ValueError(f"the sides of the kernel must be odd, but are {tuple(kernel)}")
    height, width = x.shape[2:]
    x = F.pad(x, (0, -width % d, 0, -height % d))
    phases = x.unflatten(3, (-1, d)).unflatten(2, (-1, d))  # b c h/d d w/d d
    phases = phases.permute(3, 5, 0, 1, 2, 4)
    y = F.conv2d(phases.flatten(0, 2), weight, bias, padding=[side // 2 for side in kernel])
    y = y.unflatten(0, phases.shape[:3]).permute(2, 3, 4, 0, 5, 1)  # b o h/d d w/d d
    return y.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]


def causal_conv1d(
    x: Float[Tensor, "b l c"],
    weight: Float[Tensor, "o c k"],
    bias: Float[Tensor, " o"] | None = None,
    *,
    dilation: int = 1,
) -> Float[Tensor, "b l o"]:
    """A dilated convolution over time: step t sees t, t - d, …, t - (K - 1) d, and nothing later.

    Args:
        x: Sequences (B, L, C), L at least 1, time before channels. `nn.Conv1d` has (B, C, L): if
            you port from it, pass `x.transpose(1, 2)`.
        weight: Kernels (O, C, K), as in `nn.Conv1d`; the last entry belongs to the present.
        bias: One number for each output channel, or None.
        dilation: The rate d.

    Returns:
        (B, L, O); before the first step the sequences count as zero.

    Raises:
        ValueError: An argument is not a floating-point tensor of these dimensions, the number of
            channels differs, or the rate is not a positive integer.

    Examples:
        >>> import torch
        >>> x = torch.arange(1.0, 6.0).view(1, 5, 1)
        >>> weight = torch.tensor([1.0, 10.0]).view(1, 1, 2)
        >>> causal_conv1d(x, weight, dilation=2).flatten().tolist()
        [10.0, 20.0, 31.0, 42.0, 53.0]
    """
    d = integer(dilation, "the dilation rate")
    check_floats(x, "x", "B", "L", "C")
    check_floats(weight, "weight", "O", "C", "K")
    if bias is not None:
        check_floats(bias, "bias", len(weight))
    if x.shape[2] != weight.shape[1]:
        raise ValueError(
            f"x (B, L, C) has {x.shape[2]} channels, but the weight is for {weight.shape[1]}"
        )
    past = (weight.shape[2] - 1) * d
    return F.conv1d(F.pad(x.mT, (past, 0)), weight, bias, dilation=d).mT


class ContextModule(nn.Module):
    """Yu & Koltun's basic context module: eight convolutions that see 67 × 67 pixels.

    Seven are 3 × 3 at rates 1, 1, 2, 4, 8, 16 and 1, each before a ReLU, and the last is 1 × 1
    (arXiv 1511.07122, section 3 and table 1). The maps keep their size: they are padded once, by 33
    zeros on each side, so no layer sees zeros in place of another layer's output. The weights start
    as in equation 4: every channel passes through, so the new module is the ReLU.

    Left out: the paper's large module, with up to 32 times as many channels.

    Args:
        channels: C, the number of channels of input and output, at least 1; there are 64 C² weights
            and 8 C biases.

    Raises:
        ValueError: `channels` is not a positive integer, or the input is not (B, C, H, W) of a
            floating-point type.

    Examples:
        >>> import torch
        >>> context = ContextModule(2)
        >>> maps = torch.rand(1, 2, 5, 5)
        >>> torch.equal(context(maps), maps)
        True
    """

    rates = (1, 1, 2, 4, 8, 16, 1)

    def __init__(self, channels: int):
        super().__init__()
        channels = integer(channels, "channels")
        self.layers = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, dilation=rate) for rate in self.rates
        )
        self.layers.append(nn.Conv2d(channels, channels, 1))
        for layer in self.layers:
            nn.init.dirac_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        check_floats(x, "x", "B", self.layers[0].in_channels, "H", "W")
        x = F.pad(x, [sum(self.rates)] * 4)
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)


def _checked(rates: Sequence[int]) -> list[int]:
    """The rates as a list; ValueError if one is not a positive integer."""
    if not isinstance(rates, Iterable):
        raise ValueError(f"rates must be a sequence of positive integers, but are {rates!r}")
    return [integer(rate, "a dilation rate") for rate in rates]
