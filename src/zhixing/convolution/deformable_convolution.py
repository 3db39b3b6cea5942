"""Deformable convolution: a convolution whose taps read the image at learned positions.

Sources: Dai et al., Deformable Convolutional Networks, arXiv 1703.06211, section 2 (v1: offsets);
Zhu et al., Deformable ConvNets v2, arXiv 1811.11168, section 3.2 (v2: offsets and masks).

In a network, call `torchvision.ops.deform_conv2d`, which takes the same tensors. Left out are
groups of the weights, strides, paddings and dilations that differ between height and width, and
deformable RoI pooling.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zhixing.convolution.arguments import check_floats, integer, pair
from zhixing.foundations.autocast import autocast_off


def deform_conv2d(
    x: Float[Tensor, "b c h w"],
    offset: Float[Tensor, "b n2 ho wo"],
    weight: Float[Tensor, "o c kh kw"],
    bias: Float[Tensor, " o"] | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    mask: Float[Tensor, "b n ho wo"] | None = None,
) -> Float[Tensor, "b o ho wo"]:
    """Convolution whose taps are moved by `offset` and multiplied by `mask`.

    y(p) = Σ_k w_k m_k(p) x(p + p_k + Δ_k(p)), with x read by bilinear interpolation and 0 outside.
    The channels are divided into G groups of neighbours, each with offsets and masks of its own.
    At whole coordinates, the derivative with respect to an offset is that of a move to the right
    or downwards.

    Args:
        x: Images (B, C, H, W).
        offset: (B, G · KH · KW · 2, HO, WO) in pixels. The order is group, row of the kernel,
            column of the kernel, then (down, right). G is what the number of channels gives.
        weight: Kernels (O, C, KH, KW), as in `nn.Conv2d`.
        bias: One number for each output channel, or None.
        stride: As in `nn.Conv2d`, like `padding` and `dilation`.
        padding: Width of the border of zeros. Beyond it, zeros are read as well.
        dilation: Distance of the taps before they are moved.
        mask: (B, G · KH · KW, HO, WO), in the order of `offset`; None stands for ones.

    Returns:
        (B, O, HO, WO), in the type of `x`. All is computed in this type, or in float32 if it has
            fewer than 32 bits, also under autocast. Autocast around the backward pass, which torch
            advises against, rounds its products to 16 bits.

    Raises:
        ValueError: The tensors do not fit each other, or an option is out of range.

    Examples:
        A kernel of one tap, with weight 1, reads half a pixel further to the right.

        >>> import torch
        >>> x = torch.tensor([[[[1.0, 2.0, 4.0]]]])
        >>> offset = torch.tensor([0.0, 0.5]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
        >>> deform_conv2d(x, offset, torch.ones(1, 1, 1, 1)).tolist()
        [[[[1.5, 3.0, 2.0]]]]
    """
    stride, padding, dilation = _checked_options(stride, padding, dilation)
    groups = _check(x, offset, weight, bias, mask, stride, padding, dilation)
    kernel_size = weight.shape[2], weight.shape[3]
    wide = torch.promote_types(x.dtype, torch.float32)
    points = sampling_points(
        offset.to(wide), kernel_size, stride=stride, padding=padding, dilation=dilation
    )
    grouped = x.to(wide).unflatten(1, (groups, x.shape[1] // groups)).flatten(0, 1)
    points = points.unflatten(1, (groups, -1)).flatten(0, 1)  # b·g kh·kw ho wo 2
    taps = sample_bilinear(grouped, points.flatten(1, 3)).unflatten(2, points.shape[1:4])
    taps = taps.unflatten(0, (len(x), groups))  # b g c/g kh·kw ho wo
    if mask is not None:
        taps = taps * mask.to(wide).unflatten(1, (groups, 1, -1))
    with autocast_off(x):
        y = torch.einsum("ok,bkhw->bohw", weight.to(wide).flatten(1), taps.flatten(1, 3))
    if bias is not None:
        y = y + bias.to(wide)[:, None, None]
    return y.to(x.dtype)


def sampling_points(
    offset: Float[Tensor, "b n2 ho wo"],
    kernel_size: tuple[int, int] = (3, 3),
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Float[Tensor, "b n ho wo 2"]:
    """Where each tap reads, as (row, column) in pixels: p + p_k + Δ_k(p).

    Args:
        offset: (B, G · KH · KW · 2, HO, WO), see `deform_conv2d`.
        kernel_size: Rows and columns of the kernel.
        stride: As in `nn.Conv2d`, like `padding` and `dilation`.
        padding: Moves all points up and left.
        dilation: Distance of the taps before they are moved.

    Returns:
        (B, G · KH · KW, HO, WO, 2); (0, 0) is the centre of the first pixel. Offsets of fewer than
            32 bits give points in float32.

    Raises:
        ValueError: `offset` is not four-dimensional of a floating-point type, its channels are no
            multiple of 2 · KH · KW, or an option is out of range.

    Examples:
        Output pixel (0, 0) of a convolution with padding 1: the upper left tap, and the centre.

        >>> import torch
        >>> points = sampling_points(torch.zeros(1, 18, 4, 4), padding=1)
        >>> points[0, 0, 0, 0].tolist(), points[0, 4, 0, 0].tolist()
        ([-1.0, -1.0], [0.0, 0.0])
    """
    _check_four(offset=offset)
    stride, padding, dilation = _checked_options(stride, padding, dilation)
    kh, kw = pair(kernel_size, "kernel_size")
    _, channels, ho, wo = offset.shape
    if channels == 0 or channels % (2 * kh * kw):
        raise ValueError(
            f"a kernel of {kh} × {kw} needs a multiple of {2 * kh * kw} channels of offsets, "
            f"not {channels}"
        )
    offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
    like = {"dtype": offset.dtype, "device": offset.device}
    row = torch.arange(ho, **like) * stride - padding
    column = torch.arange(wo, **like) * stride - padding
    row = row[:, None] + torch.arange(kh, **like)[:, None, None, None] * dilation
    column = column + torch.arange(kw, **like)[:, None, None] * dilation
    grid = torch.stack(torch.broadcast_tensors(row, column))  # 2 kh kw ho wo
    taps = offset.unflatten(1, (channels // (2 * kh * kw), kh, kw, 2))
    moved = taps + grid.movedim(0, 2)
    return moved.flatten(1, 3).movedim(2, -1)


def sample_bilinear(
    x: Float[Tensor, "b c h w"], points: Float[Tensor, "b n 2"]
) -> Float[Tensor, "b c n"]:
    """Read images between their pixels: a mean of the four around each point, by nearness.

    Pixels outside count as 0, so the value falls to 0 within one pixel beyond the border. From
    there on, value and gradients are 0.

    Args:
        x: Images (B, C, H, W).
        points: (B, N, 2), as (row, column) in pixels from the centre of the first pixel. Their type
            may be another than that of `x`.

    Returns:
        (B, C, N), in the type of `x`. A coordinate NaN gives NaN; so does an infinite pixel, from
            one pixel around it.

    Raises:
        ValueError: An argument is not a floating-point tensor of these dimensions.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
        >>> points = torch.tensor([[[0.0, 0.25], [0.5, 0.5], [1.5, 0.0], [2.0, 0.0]]])
        >>> sample_bilinear(x, points).tolist()
        [[[1.0, 6.0, 4.0, 0.0]]]
    """
    _check_four(x=x)
    if not isinstance(points, Tensor) or points.ndim != 3 or points.shape[2] != 2:
        raise ValueError(f"needs points (b, n, 2), not {_describe(points)}")
    if len(points) != len(x) or not points.is_floating_point():
        raise ValueError(
            f"{len(x)} images need points for each in a floating-point type, "
            f"not {_describe(points)}"
        )
    h, w = x.shape[2:]
    zeros_around = F.pad(x, (2, 2, 2, 2)).flatten(2)
    row, column = points[..., 0].clamp(-2, h), points[..., 1].clamp(-2, w)
    top, left = row.detach().floor(), column.detach().floor()
    down, right = (share[:, None].to(x.dtype) for share in (row - top, column - left))
    corner = (top.nan_to_num().long() + 2) * (w + 4) + left.nan_to_num().long() + 2

    def read(step: int) -> Tensor:
        return zeros_around.gather(2, (corner + step)[:, None].expand(-1, x.shape[1], -1))

    upper = torch.lerp(read(0), read(1), right)
    lower = torch.lerp(read(w + 4), read(w + 5), right)
    return torch.lerp(upper, lower, down)


class DeformConv2d(nn.Module):
    """A deformable convolution that predicts its own offsets, and in v2 its masks, from its input.

    The prediction is a convolution of the same size that starts at zero. So the layer starts as
    an ordinary convolution; in v2 as half of it, unless `double_mask` is set. The parameters have
    the names and the layout of mmcv's `ModulatedDeformConv2dPack`. As in the second paper (the
    first uses the full rate), train those of `conv_offset` at a tenth of the learning rate.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Rows and columns of the kernel.
        stride: As in `nn.Conv2d`, like `padding`, `dilation` and `bias`.
        padding: Width of the border of zeros.
        dilation: Distance of the taps before they are moved.
        bias: Whether to add a learned number to each output channel.
        offset_groups: G, the number of groups of input channels with offsets of their own.
        modulated: Whether to predict masks as well (v2).
        double_mask: Whether to multiply the masks by 2, so that they start at 1.

    Raises:
        ValueError: A size is no positive integer (`padding`: nor 0), the groups do not divide
            the input channels, or the input is not (B, in_channels, H, W) of a floating-point type.

    Examples:
        >>> import torch
        >>> layer = DeformConv2d(16, 32, padding=1, stride=2)
        >>> layer(torch.rand(1, 16, 9, 9)).shape, layer.conv_offset.out_channels
        (torch.Size([1, 32, 5, 5]), 27)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
        offset_groups: int = 1,
        modulated: bool = True,
        double_mask: bool = False,
    ) -> None:
        super().__init__()
        in_channels = integer(in_channels, "in_channels")
        out_channels = integer(out_channels, "out_channels")
        kernel_size = integer(kernel_size, "kernel_size")
        offset_groups = integer(offset_groups, "offset_groups")
        if in_channels % offset_groups:
            raise ValueError(f"{offset_groups} groups do not divide {in_channels} channels")
        names = "stride", "padding", "dilation"
        values = _checked_options(stride, padding, dilation)
        self.options = dict(zip(names, values, strict=True))
        plain = nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias)
        self.weight, self.bias = plain.weight, plain.bias
        self.masks = offset_groups * kernel_size**2
        self.modulated, self.double_mask = modulated, double_mask
        predicted = (3 if modulated else 2) * self.masks
        self.conv_offset = nn.Conv2d(in_channels, predicted, kernel_size, **self.options)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o ho wo"]:
        """Predict offsets and masks from `x`, then convolve `x` with them."""
        check_floats(x, "x", "B", self.conv_offset.in_channels, "H", "W")
        predicted, mask = self.conv_offset(x), None
        if self.modulated:
            predicted, mask = predicted.split([2 * self.masks, self.masks], dim=1)
            mask = torch.sigmoid(mask) * (2 if self.double_mask else 1)
        return deform_conv2d(x, predicted, self.weight, self.bias, mask=mask, **self.options)


def _check(x, offset, weight, bias, mask, stride, padding, dilation) -> int:
    """Return the number of groups of offsets, or raise a ValueError."""
    _check_four(x=x, offset=offset, weight=weight)
    (b, c, *image), (o, c_weight, *kernel) = x.shape, weight.shape
    if c != c_weight:
        raise ValueError(f"x has {c} channels, but the weight is for {c_weight}")
    if 0 in (*image, *kernel):
        raise ValueError(f"an image of {image} and a kernel of {kernel} leave nothing to read")
    size = [
        (n + 2 * padding - dilation * (k - 1) - 1) // stride + 1
        for n, k in zip(image, kernel, strict=True)
    ]
    taps = kernel[0] * kernel[1]
    groups = offset.shape[1] // (2 * taps)
    if min(size) < 1 or groups < 1 or offset.shape != (b, 2 * groups * taps, *size):
        raise ValueError(
            f"needs offsets ({b}, G · {2 * taps}, {size[0]}, {size[1]}), not {tuple(offset.shape)}"
        )
    if c % groups:
        raise ValueError(f"offsets for {groups} groups do not divide {c} channels")
    if mask is not None:
        _check_four(mask=mask)
        if mask.shape != (b, groups * taps, *size):
            wanted = (b, groups * taps, *size)
            raise ValueError(f"needs a mask {wanted}, not {tuple(mask.shape)}")
    floats = isinstance(bias, Tensor) and bias.is_floating_point()
    if bias is not None and (not floats or bias.shape != (o,)):
        raise ValueError(f"needs a floating-point bias ({o},), not {_describe(bias)}")
    return groups


def _checked_options(stride: int, padding: int, dilation: int) -> tuple[int, int, int]:
    stride, dilation = integer(stride, "stride"), integer(dilation, "dilation")
    return stride, integer(padding, "padding", least=0), dilation


def _check_four(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.ndim != 4 or not tensor.is_floating_point():
            raise ValueError(
                f"needs {name} to be a floating-point tensor of four dimensions, "
                f"not {_describe(tensor)}"
            )


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} of {value.dtype}"
    return f"a {type(value).__name__}"
