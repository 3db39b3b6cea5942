"""Convolutions with fewer multiplications: separable, grouped and shuffled, inverted residual.

Sources: Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications, arXiv 1704.04861; Zhang et al., ShuffleNet, arXiv 1707.01083, section 3.1; Sandler et
al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, arXiv 1801.04381, section 3.

Left out: the initialisation and the dropout of the published networks (torch's defaults initialise,
nothing is dropped), and the asymmetric padding of TensorFlow's networks.
"""

import copy
import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from zhixing.convolution.arguments import check_floats, factor, integer, pair


class Cost(NamedTuple):
    """What a layer costs: its weights, its multiply-accumulates, and the numbers that it moves.

    Examples:
        >>> cost = Cost(parameters=9, macs=9 * 64, moved=9 + 2 * 64)
        >>> round(cost.macs / cost.moved, 1)
        4.2
    """

    parameters: int
    macs: int
    moved: int


def conv_cost(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: int,
    size: tuple[int, int],
    stride: int = 1,
    groups: int = 1,
    batch: int = 1,
) -> Cost:
    """The cost of a k × k convolution without bias, for an odd k and a padding of (k - 1) / 2.

    A group connects in_channels / groups inputs with out_channels / groups outputs. Products with
    the zeros of the padding count. Moved numbers are each input and weight, read once, and each
    output, written once. No program moves less between a large memory and an empty cache if the
    stride is at most (k + 1) / 2. With a larger stride some inputs, though counted, may not be
    needed.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: k, odd.
        size: Height and width of the input.
        stride: The step between neighbouring outputs, in pixels of the input.
        groups: 1 for a dense convolution, `in_channels` for a depthwise one.
        batch: The number of images.

    Returns:
        Weights, multiply-accumulates, and numbers read or written.

    Raises:
        ValueError: An argument is not a positive integer, or `size` not two, k is even, or the
            groups do not divide both numbers of channels.

    Examples:
        >>> conv_cost(512, 512, kernel_size=3, size=(14, 14))
        Cost(parameters=2359296, macs=462422016, moved=2560000)
        >>> conv_cost(512, 512, kernel_size=3, size=(14, 14), groups=512)
        Cost(parameters=4608, macs=903168, moved=205312)
    """
    in_channels = integer(in_channels, "in_channels")
    out_channels = integer(out_channels, "out_channels")
    kernel_size, stride = integer(kernel_size, "kernel_size"), integer(stride, "stride")
    groups, batch = integer(groups, "groups"), integer(batch, "batch")
    height, width = pair(size, "size")
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, but is {kernel_size}")
    _divides(groups, in_channels)
    _divides(groups, out_channels)
    parameters = out_channels * in_channels // groups * kernel_size**2
    pixels_out = math.ceil(height / stride) * math.ceil(width / stride)
    moved = batch * (in_channels * height * width + out_channels * pixels_out) + parameters
    return Cost(parameters, batch * parameters * pixels_out, moved)


def layer_costs(
    net: nn.Module, shape: tuple[int, int, int], *, batch: int = 1
) -> list[tuple[str, Cost]]:
    """The cost of each convolution and linear layer that a network applies to images, in order.

    Runs a float32 copy on torch's meta device, which knows shapes and holds no numbers. Biases,
    other layers, transposed convolutions and functional calls are not counted. A layer that is
    applied twice is listed twice.

    Args:
        net: The network. It is not changed.
        shape: (C, H, W) of an image.
        batch: The number of images.

    Returns:
        Pairs of the layer's name and its cost, as `conv_cost` defines it. All inputs count as read,
        also those that no output needs.

    Raises:
        ValueError: `net` is no module, or a size is not a positive integer.

    Examples:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Flatten(), nn.Linear(72, 10))
        >>> for name, cost in layer_costs(net, (3, 7, 7)):
        ...     print(name, cost)
        0 Cost(parameters=216, macs=1944, moved=435)
        2 Cost(parameters=720, macs=720, moved=802)
    """
    if not isinstance(net, nn.Module):
        raise ValueError(f"net must be a module, but is a {type(net).__name__}")
    sizes = [integer(number, "a size") for number in (batch, *shape)]
    net = copy.deepcopy(net).to("meta", torch.float32).eval()
    names = {module: name for name, module in net.named_modules()}
    costs = []

    def count(
        module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor
    ) -> None:
        (x, *_), weight = (*inputs, *named.values()), module.weight
        macs = output.numel() * weight[0].numel()
        moved = x.numel() + output.numel() + weight.numel()
        costs.append((names[module], Cost(weight.numel(), macs, moved)))

    for module in names:
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            module.register_forward_hook(count, with_kwargs=True)
    with torch.no_grad():
        net(torch.empty(sizes, device="meta"))
    return costs


class DepthwiseSeparable(nn.Module):
    """A 3 × 3 convolution of each channel by itself, then a 1 × 1 convolution across channels.

    Each is followed by batch normalisation and ReLU6, min(max(x, 0), 6), as in Google's code and
    in timm; the paper's figure 3 has ReLU. Parameters have the names of timm's
    `DepthwiseSeparableConv`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: The stride of the first convolution.

    Raises:
        ValueError: An argument is not a positive integer; when called, `x` is not
            (B, in_channels, H, W) of a floating-point type.

    Examples:
        >>> import torch
        >>> layer = DepthwiseSeparable(32, 64, stride=2)
        >>> layer(torch.rand(2, 32, 112, 112)).shape
        torch.Size([2, 64, 56, 56])
        >>> layer.conv_dw.weight.shape, layer.conv_pw.weight.shape
        (torch.Size([32, 1, 3, 3]), torch.Size([64, 32, 1, 1]))
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        in_channels = integer(in_channels, "in_channels")
        out_channels = integer(out_channels, "out_channels")
        stride = integer(stride, "stride")
        self.conv_dw = nn.Conv2d(
            in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False
        )
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        check_floats(x, "x", "B", self.conv_dw.in_channels, "H", "W")
        x = self.bn1(self.conv_dw(x)).clamp(0, 6)
        return self.bn2(self.conv_pw(x)).clamp(0, 6)


def round_channels(channels: float | int, *, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to a number of channels, raised if over 10% were lost.

    This is the rule of Google's code for MobileNets, which torchvision and timm follow; a tie goes
    up. At least `divisor`.

    Args:
        channels: The wanted number, often a product with a width multiplier.
        divisor: What must divide the result.

    Raises:
        ValueError: `channels` is not positive and finite, or `divisor` not a positive integer.

    Examples:
        >>> [round_channels(1.4 * channels) for channels in (16, 24, 32)]
        [24, 32, 48]
        >>> round_channels(11), round_channels(12)
        (16, 16)
    """
    divisor = integer(divisor, "divisor")
    channels = factor(channels, "channels")
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class MobileNetV1(nn.Module):
    """MobileNet: a dense convolution, 13 depthwise separable ones, their mean, a linear layer.

    Build it with `mobilenet_v1`. Parameters have the names of timm's `mobilenetv1_100`, whose
    weights it accepts.

    Args:
        width: The factor by which channels are multiplied.
        num_classes: The number of outputs.

    Raises:
        ValueError: `width` is not positive and finite, or `num_classes` not a positive integer;
            when called, `x` is not (B, 3, H, W) of a floating-point type.

    Examples:
        >>> net = MobileNetV1(num_classes=10)
        >>> len(net.blocks), sum(len(stage) for stage in net.blocks)
        (5, 13)
        >>> net.blocks[4][1].conv_pw.weight.shape
        torch.Size([1024, 1024, 1, 1])
    """

    # Output channels and stride of each block; the stages are timm's.
    stages = (
        ((64, 1),),
        ((128, 2), (128, 1)),
        ((256, 2), (256, 1)),
        ((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
        ((1024, 2), (1024, 1)),
    )

    def __init__(self, *, width: float | int = 1.0, num_classes: int = 1000) -> None:
        super().__init__()
        width = factor(width, "width")
        channels = round_channels(32 * width)
        self.conv_stem = nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.blocks = nn.Sequential()
        for stage in self.stages:
            blocks = nn.Sequential()
            for out_channels, stride in stage:
                out_channels = round_channels(out_channels * width)
                blocks.append(DepthwiseSeparable(channels, out_channels, stride=stride))
                channels = out_channels
            self.blocks.append(blocks)
        self.classifier = nn.Linear(channels, integer(num_classes, "num_classes"))

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        check_floats(x, "x", "B", 3, "H", "W")
        x = self.bn1(self.conv_stem(x)).clamp(0, 6)
        return self.classifier(self.blocks(x).mean((2, 3)))


def mobilenet_v1(*, width: float | int = 1.0, num_classes: int = 1000) -> MobileNetV1:
    """MobileNet (arXiv 1704.04861, table 1) with `width` times the channels, rounded to eights.

    Images of any size are accepted; at 224 × 224 pixels, width 1 needs 569 million
    multiply-accumulates. The last block has stride 1, as its output size in table 1 says,
    not 2, as the table's own column of strides says.

    Args:
        width: The factor by which channels are multiplied, α in the paper.
        num_classes: The number of outputs.

    Raises:
        ValueError: `width` is not positive and finite, or `num_classes` not a positive integer;
            when called, `x` is not (B, 3, H, W) of a floating-point type.

    Examples:
        >>> import torch
        >>> net = mobilenet_v1(width=0.25).eval()
        >>> net(torch.rand(1, 3, 96, 64)).shape
        torch.Size([1, 1000])
        >>> sum(p.numel() for p in net.parameters())
        470072
    """
    return MobileNetV1(width=width, num_classes=num_classes)


def channel_shuffle(
    x: Shaped[Tensor, "b c *space"],
    groups: int,
) -> Shaped[Tensor, "b c *space"]:
    """Deal the channels of `groups` equal groups out in turn, one of each group at a time.

    Channel j of group i comes to position j · groups + i: reshape the channels to (groups, C /
    groups), transpose, flatten. Equals `torch.nn.ChannelShuffle(groups)`. The inverse is the
    shuffle with C / groups groups.

    Args:
        x: Channels in the second dimension.
        groups: The number of groups of the convolution before.

    Raises:
        ValueError: `x` is no tensor of two dimensions or more, or `groups` no positive integer that
            divides the number of channels.

    Examples:
        >>> import torch
        >>> channel_shuffle(torch.arange(6).view(1, 6, 1), 2).flatten()
        tensor([0, 3, 1, 4, 2, 5])
    """
    if not isinstance(x, Tensor) or x.ndim < 2:
        found = (
            f"its shape is {(*x.shape,)}"
            if isinstance(x, Tensor)
            else f"it is a {type(x).__name__}"
        )
        raise ValueError(f"x must be a tensor (B, C, …), but {found}")
    groups, channels = integer(groups, "groups"), x.shape[1]
    _divides(groups, channels)
    return x.unflatten(1, (groups, channels // groups)).transpose(1, 2).flatten(1, 2)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen by 1 × 1, filter each channel by 3 × 3, narrow by 1 × 1.

    Batch normalisation follows each convolution, ReLU6 the first two only. The input is added if it
    has the shape of the output. With an expansion of 1 the widening convolution is left out.
    Parameters have the names of torchvision's `InvertedResidual`, whose weights it accepts.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: The stride of the 3 × 3 convolution, 1 or 2.
        expand_ratio: The expansion, t in the paper.

    Raises:
        ValueError: A number of channels or the expansion is not a positive integer, or the stride
            is neither 1 nor 2; when called, `x` is not (B, in_channels, H, W) of a floating-point
            type.

    Examples:
        >>> import torch
        >>> block = InvertedResidual(16, 24, stride=2)
        >>> block(torch.rand(2, 16, 112, 112)).shape
        torch.Size([2, 24, 56, 56])
        >>> block.conv[0][0].weight.shape
        torch.Size([96, 16, 1, 1])
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, expand_ratio: int = 6
    ) -> None:
        super().__init__()
        in_channels = integer(in_channels, "in_channels")
        out_channels = integer(out_channels, "out_channels")
        expand_ratio = integer(expand_ratio, "expand_ratio")
        hidden = in_channels * expand_ratio
        stride = integer(stride, "stride")
        if stride > 2:
            raise ValueError(f"stride must be 1 or 2, but is {stride}")
        layers = []
        if expand_ratio > 1:
            widen = nn.Conv2d(in_channels, hidden, 1, bias=False)
            layers.append(nn.Sequential(widen, nn.BatchNorm2d(hidden), nn.ReLU6()))
        depthwise = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        layers.append(nn.Sequential(depthwise, nn.BatchNorm2d(hidden), nn.ReLU6()))
        narrow = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.conv = nn.Sequential(*layers, narrow, nn.BatchNorm2d(out_channels))
        self.in_channels = in_channels
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        check_floats(x, "x", "B", self.in_channels, "H", "W")
        return x + self.conv(x) if self.adds_input else self.conv(x)


def collapse_probability(n: int, m: int) -> float:
    """The probability that fewer than m of n fair coins show heads, Σ_{k<m} C(n, k) / 2ⁿ.

    For x ≠ 0 in m dimensions and a random n × m matrix T, it is the probability that ReLU(T x) does
    not determine x, if the rows are independent, have a density, and are as likely as their
    negatives: a row is active, t · x > 0, with probability 1/2, and x is determined if and only if
    the active rows span the space. Without bias, and for ReLU, not ReLU6.

    Args:
        n: The number of directions.
        m: The number of dimensions.

    Raises:
        ValueError: An argument is not a positive integer.

    Examples:
        >>> [collapse_probability(n, 2) for n in (2, 3, 5)]
        [0.75, 0.5, 0.1875]
        >>> collapse_probability(6 * 16, 16) < 1e-11
        True
    """
    n, m = integer(n, "n"), integer(m, "m")
    return sum(math.comb(n, k) for k in range(min(m, n + 1))) / 2**n


def _divides(groups: int, channels: int) -> None:
    """ValueError if the channels cannot be divided into equal groups."""
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be divided into {groups} equal groups")
