"""EfficientNet: a small network scaled in depth, width and resolution, with rounding and padding.

Source: Tan & Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv
1905.11946, table 1 and equation 3. What the paper leaves open, such as rounding, the width of
squeeze-and-excitation and padding, follows its code, in tensorflow/tpu.

In practice, call `torchvision.models.efficientnet_b0` to `_b7`, which also load trained weights.
Left out: trained weights, the search for B0, AutoAugment, and the fused blocks of EfficientNetV2.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zhixing.convolution.arguments import check_floats, factor, integer, probability

# Width, depth, resolution and dropout of B0 to B7, as in the code of the paper.
COEFFICIENTS = {
    "B0": (1.0, 1.0, 224, 0.2),
    "B1": (1.0, 1.1, 240, 0.2),
    "B2": (1.1, 1.2, 260, 0.3),
    "B3": (1.2, 1.4, 300, 0.3),
    "B4": (1.4, 1.8, 380, 0.4),
    "B5": (1.6, 2.2, 456, 0.4),
    "B6": (1.8, 2.6, 528, 0.5),
    "B7": (2.0, 3.1, 600, 0.5),
}

# Expansion, kernel, stride, channels and blocks of the stages of B0, from table 1.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def round_channels(channels: int, width: float) -> int:
    """The multiple of 8 nearest to channels · width, and at least 8 and 90 % of it.

    Halfway, the larger multiple is taken. Where the nearest is below 90 %, the next one is taken,
    so a number above 8 can grow by almost 80 %, and one below 8 becomes 8.

    Raises:
        ValueError: `channels` is not a positive integer, or `width` not a positive finite number.

    Examples:
        >>> [round_channels(channels, 1.1) for channels in (16, 24, 40, 80)]
        [16, 24, 48, 88]
        >>> round_channels(9, 1.0)  # 8 is below 90 % of 9
        16
    """
    scaled = integer(channels, "channels") * factor(width, "width")
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def round_repeats(repeats: int, depth: float) -> int:
    """The number of blocks of a stage, repeats · depth, rounded up.

    The product is that of floating-point numbers: 25 · 2.2 is slightly more than 55, and gives 56.

    Raises:
        ValueError: `repeats` is not a positive integer, or `depth` not a positive finite number.

    Examples:
        >>> [round_repeats(repeats, 1.1) for repeats in (1, 2, 3, 4)]
        [2, 3, 4, 5]
    """
    return math.ceil(integer(repeats, "repeats") * factor(depth, "depth"))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """The zeros before and after an axis under TensorFlow's "SAME" padding.

    There are size / stride outputs, rounded up, and as few zeros as they need. If the number of
    zeros is odd, the additional one comes after.

    Args:
        size: The number of pixels along the axis, at least 1.
        kernel: The size of the kernel, without dilation.
        stride: The stride.

    Raises:
        ValueError: An argument is not a positive integer.

    Examples:
        An even and an odd size with stride 2.

        >>> same_padding(224, 3, 2), same_padding(225, 3, 2)
        ((0, 1), (1, 1))
    """
    size, kernel = integer(size, "size"), integer(kernel, "kernel")
    stride = integer(stride, "stride")
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def stochastic_depth(
    x: Float[Tensor, "b ..."], p: float, *, training: bool
) -> Float[Tensor, "b ..."]:
    """Each sample of the batch is set to 0 with probability p, and else divided by 1 - p.

    The mean stays the same. Apply it to the branch of a residual connection, before the addition:
    a dropped sample then skips the branch. It saves no time, since the branch has been computed.

    Args:
        x: (B, ...), the output of the branch.
        p: The probability of dropping a sample, from 0 to 1.
        training: If false, x is returned as it is.

    Raises:
        ValueError: `p` is not between 0 and 1, or `x` is not a floating-point tensor with a batch
            dimension.

    Examples:
        >>> import torch
        >>> y = stochastic_depth(torch.ones(1000, 2), 0.2, training=True)
        >>> y.unique()
        tensor([0.0000, 1.2500])
        >>> bool((y[:, 0] == y[:, 1]).all())  # whole samples
        True
    """
    p = probability(p, "p")
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"x must be a floating-point tensor, but is {kind}")
    if x.ndim == 0:
        raise ValueError("x must have a batch dimension, but is a scalar")
    if not training or p == 0:
        return x
    kept = x.new_empty(x.shape[:1] + (1,) * (x.ndim - 1)).bernoulli_(1 - p)
    # Not only x · 0, which would be NaN where x is infinite or NaN.
    return torch.where(kept > 0, x * (kept / (1 - p) if p < 1 else kept), 0)


class MBConv(nn.Module):
    """The block of EfficientNet: widen, convolve each channel, weigh the channels, narrow.

    A 1 × 1 convolution to `expand` times as many channels, a depthwise k × k convolution, a
    squeeze-and-excitation with a quarter of the block's *input* channels, and a 1 × 1 convolution
    without activation. The input is added if stride and number of channels allow it. Parameters
    have the names and shapes of torchvision's `MBConv`.

    Args:
        in_channels: The number of channels of the input.
        out_channels: The number of channels of the output.
        expand: The factor of the first convolution, which is left out for 1.
        kernel: The size k of the depthwise convolution, odd.
        stride: The stride of the depthwise convolution.
        drop: The probability of dropping a sample's branch; only where the input is added.
        eps: The constant in the denominator of batch normalisation.
        same: Pad as TensorFlow does, see `same_padding`; else (k - 1) / 2 zeros on both sides.

    Raises:
        ValueError: A size is not a positive integer, the kernel is even, `drop` is not between 0
            and 1, or the input is not (B, in_channels, H, W) of a floating-point type.

    Examples:
        >>> import torch
        >>> MBConv(16, 24, stride=2)(torch.rand(2, 16, 9, 8)).shape
        torch.Size([2, 24, 5, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expand: int = 6,
        kernel: int = 3,
        stride: int = 1,
        drop: float = 0.0,
        eps: float = 1e-5,
        same: bool = False,
    ):
        super().__init__()
        in_channels = integer(in_channels, "in_channels")
        out_channels = integer(out_channels, "out_channels")
        expand, stride = integer(expand, "expand"), integer(stride, "stride")
        wide = in_channels * expand
        layers = []
        if expand > 1:
            layers += [_conv(in_channels, wide, 1, eps=eps)]
        layers += [
            _conv(wide, wide, kernel, stride=stride, groups=wide, eps=eps, same=same),
            _SqueezeExcitation(wide, max(1, in_channels // 4)),
            _conv(wide, out_channels, 1, eps=eps, activation=False),
        ]
        self.block = nn.Sequential(*layers)
        self.in_channels, self.drop = in_channels, probability(drop, "drop")
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        check_floats(x, "x", "B", self.in_channels, "H", "W")
        branch = self.block(x)
        if not self.adds_input:
            return branch
        return x + stochastic_depth(branch, self.drop, training=self.training)


class EfficientNet(nn.Module):
    """EfficientNet of any width and depth: B0 has 1 and 1, `COEFFICIENTS` has those of B0 to B7.

    Parameters have the names and shapes of torchvision's `efficientnet_b0` to `_b7`, so their
    weights can be loaded. Weights hold neither `eps` nor the padding: torchvision's B5 to B7 need
    `eps=1e-3`, and weights that run with TensorFlow's padding need `same=True`, usually with
    `eps=1e-3`. In training, torchvision's B5 to B7 also update the running statistics with momentum
    0.01 instead of 0.1.

    The probability of dropping a block's branch grows linearly over all blocks, from 0 for the
    first; for the last of n blocks it is (n - 1) / n of `stochastic_depth_prob`.

    Args:
        width: The factor of all channels, which are rounded by `round_channels`.
        depth: The factor of the blocks of each stage, which are rounded by `round_repeats`.
        num_classes: The number of outputs.
        dropout: The rate of dropout before the last layer, 0.2 for B0 and 0.5 for B7.
        stochastic_depth_prob: The rate that the last block almost reaches.
        eps: The constant in the denominator of batch normalisation.
        same: Pad as TensorFlow does, see `same_padding`.

    Raises:
        ValueError: An argument is out of range, or the input is not (B, 3, H, W) of a
            floating-point type.

    Examples:
        >>> import torch
        >>> with torch.device("meta"):  # shapes only, no numbers
        ...     net = EfficientNet(width=1.0, depth=1.1)  # B1
        ...     net(torch.rand(8, 3, 240, 240)).shape
        torch.Size([8, 1000])
        >>> sum(parameter.numel() for parameter in net.parameters())
        7794184
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        num_classes: int = 1000,
        dropout: float = 0.2,
        stochastic_depth_prob: float = 0.2,
        eps: float = 1e-5,
        same: bool = False,
    ):
        super().__init__()
        num_classes, dropout = integer(num_classes, "num_classes"), probability(dropout, "dropout")
        drop_path = probability(stochastic_depth_prob, "stochastic_depth_prob")
        repeats = [round_repeats(blocks, depth) for *_, blocks in STAGES]
        channels = round_channels(32, width)
        features = [_conv(3, channels, 3, stride=2, eps=eps, same=same)]
        block = 0
        for (expand, kernel, stride, out, _), count in zip(STAGES, repeats, strict=True):
            stage = []
            for i in range(count):
                # Only the first block of a stage changes the resolution and the channels.
                options = {"expand": expand, "kernel": kernel, "stride": 1 if i else stride}
                drop = drop_path * block / sum(repeats)
                after = round_channels(out, width)
                stage.append(MBConv(channels, after, **options, drop=drop, eps=eps, same=same))
                channels, block = after, block + 1
            features.append(nn.Sequential(*stage))
        features.append(_conv(channels, 4 * channels, 1, eps=eps))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * channels, num_classes))
        self._initialise()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        check_floats(x, "x", "B", 3, "H", "W")
        return self.classifier(self.avgpool(self.features(x)).flatten(1))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                bound = 1 / math.sqrt(module.out_features)
                nn.init.uniform_(module.weight, -bound, bound)
                nn.init.zeros_(module.bias)


class _SqueezeExcitation(nn.Module):
    """Weigh each channel by a number from 0 to 1 that depends on the means of all channels."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        weights = self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * weights.sigmoid()


class _SameConv2d(nn.Conv2d):
    """A convolution whose padding depends on the size of its input, as in TensorFlow."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        top, bottom = same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
        return super().forward(F.pad(x, (left, right, top, bottom)))


def _conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    eps: float,
    same: bool = False,
    activation: bool = True,
) -> nn.Sequential:
    """A convolution without bias, with batch normalisation and, unless told otherwise, SiLU."""
    kernel = integer(kernel, "kernel")
    if kernel % 2 == 0:
        raise ValueError(f"kernel must be odd, but is {kernel}")
    options = {"stride": stride, "groups": groups, "bias": False}
    if same:
        convolution = _SameConv2d(in_channels, out_channels, kernel, **options)
    else:
        padding = kernel // 2
        convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, **options)
    layers = [convolution, nn.BatchNorm2d(out_channels, eps=eps)]
    return nn.Sequential(*layers, nn.SiLU()) if activation else nn.Sequential(*layers)
