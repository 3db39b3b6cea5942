"""Spatial pyramid pooling: as many numbers from a map of any size; with SPPF and ASPP, its heirs.

Sources: He et al., Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition,
arXiv 1406.4729, section 2 and appendix A; Chen et al., Rethinking Atrous Convolution for Semantic
Image Segmentation, arXiv 1706.05587, section 3.3.

In a network, call torch's `F.adaptive_max_pool2d`: `spatial_pyramid_pool` shows what it computes.
Left out: other poolings than the maximum, windows of interest, and the convolutions around SPPF.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zhixing.convolution.arguments import check_floats, integer


def bins(size: int, n: int) -> list[tuple[int, int]]:
    """The n intervals [start, stop) that adaptive pooling reads along an axis of `size` pixels.

    Interval i runs from i · size / n, rounded down, to (i + 1) · size / n, rounded up, as in
    appendix A of the paper. The intervals cover every pixel; neighbours share at most one pixel if
    n ≤ size, and pixels are repeated if n > size.

    Args:
        size: The number of pixels, at least 1.
        n: The number of intervals, at least 1.

    Raises:
        ValueError: An argument is not a positive integer.

    Examples:
        >>> bins(11, 4)
        [(0, 3), (2, 6), (5, 9), (8, 11)]
        >>> bins(12, 4)
        [(0, 3), (3, 6), (6, 9), (9, 12)]
    """
    size, n = integer(size, "size"), integer(n, "n")
    return [(i * size // n, -(-(i + 1) * size // n)) for i in range(n)]


def paper_windows(size: int, n: int) -> list[tuple[int, int]]:
    """The intervals [start, stop) of a sliding window of ⌈size / n⌉ pixels and stride ⌊size / n⌋.

    This is the rule that section 2.3 of the paper gives for training. With size = q n + r and
    0 < r < n, there are n + ⌊(r - 1) / q⌋ windows, and the last (r - 1) mod q pixels are not read.
    The windows agree with `bins` if and only if r ≤ 1. Do not pool by this rule.

    Args:
        size: The number of pixels, at least n.
        n: The number of windows that are wanted, at least 1.

    Raises:
        ValueError: An argument is not a positive integer, or n > size: the stride would be 0.

    Examples:
        Four windows are wanted.

        >>> paper_windows(11, 4)
        [(0, 3), (2, 5), (4, 7), (6, 9), (8, 11)]
    """
    size, n = integer(size, "size"), integer(n, "n")
    if n > size:
        raise ValueError(f"n must be at most size = {size}, or the stride is 0, but n is {n}")
    window, stride = -(-size // n), size // n
    count = (size - window) // stride + 1
    return [(i * stride, i * stride + window) for i in range(count)]


def spatial_pyramid_pool(
    x: Float[Tensor, "b c h w"], *, levels: Sequence[int] = (6, 3, 2, 1)
) -> Float[Tensor, "b m"]:
    """The maxima over n × n bins of each map, for every level n: as many numbers at any size.

    Equals `F.adaptive_max_pool2d(x, n).flatten(1)` for each level, concatenated. A gradient goes to
    one pixel of a bin, the first in reading order of those that hold the maximum.

    Args:
        x: Feature maps (B, C, H, W), H and W at least 1.
        levels: The numbers of bins along each axis, in the order in which they are concatenated.

    Returns:
        (B, M · C), where M is the sum of n² over the levels, 50 by default: within a level, first
            all bins of the first channel in reading order, then those of the second.

    Raises:
        ValueError: `x` is not a floating-point tensor of four dimensions with pixels, there is no
            level, or a level is not a positive integer.

    Examples:
        >>> import torch
        >>> x = torch.arange(12.0).view(1, 1, 3, 4)
        >>> spatial_pyramid_pool(x, levels=(2, 1))
        tensor([[ 5.,  7.,  9., 11., 11.]])
        >>> spatial_pyramid_pool(torch.rand(2, 256, 13, 9)).shape
        torch.Size([2, 12800])
    """
    check_floats(x, "x", "B", "C", "H", "W")
    if not isinstance(levels, Iterable) or not (levels := list(levels)):
        raise ValueError(f"levels must be numbers of bins, at least one, but are {levels!r}")
    height, width = x.shape[2:]
    pooled = []
    for n in levels:
        cells = [
            x[:, :, top:bottom, left:right].flatten(2).max(2).values
            for top, bottom in bins(height, n)
            for left, right in bins(width, n)
        ]
        pooled.append(torch.stack(cells, 2).flatten(1))
    return torch.cat(pooled, 1)


def sppf(x: Float[Tensor, "b c h w"], *, kernel: int = 5) -> Float[Tensor, "b c4 h w"]:
    """The map and its sliding maxima over 5 × 5, 9 × 9 and 13 × 13 pixels, as in YOLO.

    For a kernel k the windows have k, 2k - 1 and 3k - 2 pixels a side: the maximum of maxima is the
    maximum over the larger window. Nothing beyond the border counts. Unlike spatial pyramid
    pooling, this keeps the size of the map.

    Args:
        x: Feature maps (B, C, H, W).
        kernel: k, odd.

    Returns:
        (B, 4 C, H, W): first the map, then the windows from small to large.

    Raises:
        ValueError: The kernel is not a positive odd integer, or `x` is not a floating-point tensor
            of four dimensions with pixels.

    Examples:
        >>> import torch
        >>> x = torch.tensor([0.0, 3, 1, 2, 5, 0]).view(1, 1, 1, 6)
        >>> sppf(x, kernel=3)[0, :, 0]
        tensor([[0., 3., 1., 2., 5., 0.],
                [3., 3., 3., 5., 5., 5.],
                [3., 3., 5., 5., 5., 5.],
                [3., 5., 5., 5., 5., 5.]])
    """
    kernel = integer(kernel, "kernel")
    if kernel % 2 == 0:
        raise ValueError(f"kernel must be odd, but is {kernel}")
    check_floats(x, "x", "B", "C", "H", "W")
    maps = [x]
    for _ in range(3):
        maps.append(F.max_pool2d(maps[-1], kernel, stride=1, padding=kernel // 2))
    return torch.cat(maps, 1)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: dilated convolutions side by side, and a mean over the map.

    A 1 × 1 convolution, a 3 × 3 convolution for each rate, and a 1 × 1 convolution of the mean of
    the whole map, each with batch normalisation and ReLU, are concatenated, and a 1 × 1 convolution
    with both brings them to `out_channels` (arXiv 1706.05587, section 3.3). Parameters have the
    names and shapes of torchvision's `ASPP`, so its weights can be loaded.

    Left out: the dropout that torchvision adds at the end.

    Args:
        in_channels: The number of channels of the map.
        rates: The dilation rates of the 3 × 3 convolutions.
        out_channels: The number of channels of each branch and of the output.

    Raises:
        ValueError: A rate or a number of channels is not a positive integer; the input is not
            (B, in_channels, H, W) of a floating-point type; or there is one image, and its mean is
            to be normalised by itself, in training.

    Examples:
        >>> import torch
        >>> ASPP(16, out_channels=8).eval()(torch.rand(1, 16, 33, 21)).shape
        torch.Size([1, 8, 33, 21])
    """

    def __init__(
        self, in_channels: int, *, rates: Sequence[int] = (6, 12, 18), out_channels: int = 256
    ):
        super().__init__()
        in_channels = integer(in_channels, "in_channels")
        out_channels = integer(out_channels, "out_channels")
        rates = [integer(rate, "a rate") for rate in rates]
        pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_block(in_channels, out_channels))
        self.convs = nn.ModuleList(
            [
                _block(in_channels, out_channels),
                *(_block(in_channels, out_channels, rate) for rate in rates),
                pooling,
            ]
        )
        self.project = _block(len(self.convs) * out_channels, out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        *convolutions, pooling = self.convs
        _, convolution, norm, _ = pooling
        check_floats(x, "x", "B", convolution.in_channels, "H", "W")
        if norm.training and x.shape[0] == 1:
            raise ValueError(
                "the mean of a single image cannot be normalised over the batch: "
                "pass two images or more, or set the batch normalisation to eval()"
            )
        branches = [branch(x) for branch in convolutions]
        branches.append(pooling(x).expand(-1, -1, *x.shape[2:]))
        return self.project(torch.cat(branches, 1))


def _block(in_channels: int, out_channels: int, rate: int | None = None) -> nn.Sequential:
    """A convolution, 1 × 1 or 3 × 3 at a dilation rate, with batch normalisation and ReLU."""
    if rate is None:
        convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    else:
        convolution = nn.Conv2d(
            in_channels, out_channels, 3, padding=rate, dilation=rate, bias=False
        )
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())
