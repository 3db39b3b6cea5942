"""Upsampling by interpolation, by transposed convolution and by pixel shuffle.

Sources: Dumoulin & Visin, A guide to convolution arithmetic for deep learning, arXiv 1603.07285;
Shi et al., Real-time single image and video super-resolution using an efficient sub-pixel
convolutional neural network, arXiv 1609.05158; Aitken et al., Checkerboard artifact free sub-pixel
convolution, arXiv 1707.02937.

The functions take images (b, c, h, w). They leave out what torch's do besides: groups, dilation,
bias, strides that differ between height and width, one and three dimensions, antialiasing.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zhixing.convolution.arguments import integer, pair
from zhixing.foundations.autocast import autocast_off


def source_positions(
    n_in: int, n_out: int, *, align_corners: bool = False
) -> Float[Tensor, " {n_out}"]:
    """Where in the input each output pixel of a resize lies, along one axis.

    Both are counted in pixels from the centre of the first pixel. Without `align_corners`, the
    outer edges of both images coincide: (i + 1/2) n_in / n_out - 1/2. With it, the centres of
    their outermost pixels do: i (n_in - 1) / (n_out - 1), and 0 where `n_out` is 1.

    Args:
        n_in: Number of input pixels, at least 1.
        n_out: Number of output pixels, at least 1.
        align_corners: Which of the two conventions.

    Returns:
        The positions in float64. Some may lie up to half an input pixel outside the range from 0
            to n_in - 1.

    Raises:
        ValueError: A number of pixels is not a positive integer.

    Examples:
        >>> source_positions(4, 8).tolist()
        [-0.25, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25]
        >>> source_positions(4, 7, align_corners=True).tolist()
        [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    """
    n_in, n_out = integer(n_in, "n_in"), integer(n_out, "n_out")
    i = torch.arange(n_out, dtype=torch.float64)
    if align_corners:
        return i * (n_in - 1) / max(n_out - 1, 1)
    return (i + 0.5) * n_in / n_out - 0.5


def resize_linear(
    x: Float[Tensor, "b c h w"], size: tuple[int, int], *, align_corners: bool = False
) -> Float[Tensor, "b c {size[0]} {size[1]}"]:
    """Resize images by bilinear interpolation, as `F.interpolate(x, size, mode="bilinear")`.

    Each output pixel is a mean of the four input pixels around its source position, which are
    weighted by nearness. Positions outside are moved to the border. To shrink images, smooth them
    first: a mean of four pixels ignores all others.

    Args:
        x: Images in a floating-point type; types of fewer than 32 bits are computed in float32.
        size: Height and width of the result.
        align_corners: See `source_positions`.

    Returns:
        The images in the type of `x`.

    Raises:
        ValueError: `x` is not four-dimensional of a floating-point type, has no pixels, or `size`
            is not two positive integers.

    Examples:
        >>> import torch
        >>> resize_linear(torch.tensor([[[[0.0, 4.0]]]]), (1, 4)).tolist()
        [[[[0.0, 1.0, 3.0, 4.0]]]]
    """
    _check_images(x)
    if 0 in x.shape[2:]:
        raise ValueError(f"a resize needs at least one pixel, but x is {tuple(x.shape)}")
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    for dim, n_out in zip((2, 3), pair(size, "size"), strict=True):
        n_in = y.shape[dim]
        position = source_positions(n_in, n_out, align_corners=align_corners)
        position = position.clamp(min=0).to(x.device)
        before = position.floor().long()
        after = (before + 1).clamp(max=n_in - 1)
        share = (position - before).to(y.dtype).view(-1, *[1] * (3 - dim))
        y = torch.lerp(y.index_select(dim, before), y.index_select(dim, after), share)
    return y.to(x.dtype)


def conv_transpose2d(
    x: Float[Tensor, "b c_in h w"],
    weight: Float[Tensor, "c_in c_out kh kw"],
    *,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
) -> Float[Tensor, "b c_out hs ws"]:
    """Transposed convolution: each input pixel adds a copy of the kernel to the output.

    Its matrix is the transpose of that of `F.conv2d` with the same weight, stride and padding. A
    side of h pixels gets (h - 1) stride + kh - 2 padding + output_padding of them.

    Args:
        x: Images in a floating-point type; types of fewer than 32 bits are computed in float32,
            also under autocast.
        weight: Kernels in the layout of `torch.nn.ConvTranspose2d`, in the type of `x`.
        stride: Distance of the copies in the output, at least 1.
        padding: Number of pixels cut off at each side of the result.
        output_padding: Number of pixels that are cut off less, or added, at the right and at the
            bottom; less than `stride`.

    Returns:
        The images in the type of `x`.

    Raises:
        ValueError: The tensors do not fit each other, an option is out of range, or no pixel
            would be left.

    Examples:
        >>> import torch
        >>> ones = torch.ones(1, 1, 1, 3)
        >>> conv_transpose2d(ones, ones, stride=2).tolist()
        [[[[1.0, 1.0, 2.0, 1.0, 2.0, 1.0, 1.0]]]]
    """
    _check_images(x)
    _check_images(weight, name="weight")
    if weight.shape[0] != x.shape[1] or weight.dtype != x.dtype:
        raise ValueError(
            f"x {tuple(x.shape)} of {x.dtype} needs a weight ({x.shape[1]}, c_out, kh, kw) "
            f"of the same type, but it is {tuple(weight.shape)} of {weight.dtype}"
        )
    stride = integer(stride, "stride")
    padding = integer(padding, "padding", least=0)
    output_padding = integer(output_padding, "output_padding", least=0)
    if output_padding >= stride:
        raise ValueError(
            f"output_padding must be less than stride, but they are {output_padding} and {stride}"
        )
    (h, w), (kh, kw) = x.shape[2:], weight.shape[2:]
    height = (h - 1) * stride + kh - 2 * padding + output_padding
    width = (w - 1) * stride + kw - 2 * padding + output_padding
    if 0 in (h, w, kh, kw) or min(height, width) < 1:
        raise ValueError(f"{h} × {w} pixels would become {height} × {width}")
    wide = torch.promote_types(x.dtype, torch.float32)
    # Each column holds the copies of the kernel that one input pixel adds, for all channels.
    with autocast_off(x):
        columns = weight.to(wide).flatten(1).T @ x.to(wide).flatten(2)
    y = F.fold(columns, (height, width), (kh, kw), padding=padding, stride=stride)
    return y.to(x.dtype)


def phase_sums(
    weight: Float[Tensor, "c_in c_out kh kw"], stride: int
) -> Float[Tensor, "c_in c_out {stride} {stride}"]:
    """What a transposed convolution with this weight makes of a constant 1, far from the border.

    The output repeats with period `stride`. Output pixel (y, x) gets the sum of the weights whose
    row is y + padding and whose column is x + padding, modulo `stride`. Each constant
    image stays constant if and only if the sums of each pair of channels are equal.

    Args:
        weight: Kernels in the layout of `torch.nn.ConvTranspose2d`.
        stride: The stride of the transposed convolution, at least 1.

    Returns:
        The sums, by input channel, output channel, row and column of the phase.

    Raises:
        ValueError: `weight` is not four-dimensional of a floating-point type, or `stride` is not a
            positive integer.

    Examples:
        >>> import torch
        >>> phase_sums(torch.ones(1, 1, 3, 3), 2).tolist()
        [[[[4.0, 2.0], [2.0, 1.0]]]]
        >>> phase_sums(torch.ones(1, 1, 4, 4), 2).tolist()
        [[[[4.0, 4.0], [4.0, 4.0]]]]
    """
    _check_images(weight, name="weight")
    stride = integer(stride, "stride")
    kh, kw = weight.shape[2:]
    whole = F.pad(weight, (0, -kw % stride, 0, -kh % stride))
    return whole.unflatten(3, (-1, stride)).unflatten(2, (-1, stride)).sum((2, 4))


def pixel_shuffle(
    x: Float[Tensor, "b c_in h w"],
    r: int,
) -> Float[Tensor, "b c_out h*{r} w*{r}"]:
    """Place r² channels in each square of r × r output pixels, as `F.pixel_shuffle`.

    Output channel c takes its pixel (i, j) of each square from input channel c r² + i r + j.

    Args:
        x: Images whose number of channels is a multiple of r².
        r: The factor by which height and width grow, at least 1.

    Returns:
        Images with a factor r² fewer channels.

    Raises:
        ValueError: `x` is not four-dimensional of a floating-point type, `r` is not a positive
            integer, or r² does not divide the number of channels.

    Examples:
        >>> import torch
        >>> pixel_shuffle(torch.arange(4.0).view(1, 4, 1, 1), 2).tolist()
        [[[[0.0, 1.0], [2.0, 3.0]]]]
    """
    _check_images(x)
    r = integer(r, "r")
    if x.shape[1] % r**2:
        raise ValueError(f"needs r² dividing {x.shape[1]} channels, not r = {r}")
    squares = x.unflatten(1, (x.shape[1] // r**2, r, r))
    return squares.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


def icnr_(weight: Float[Tensor, "n ..."], r: int) -> Float[Tensor, "n ..."]:
    """Make the r² channels of each square of a pixel shuffle equal, in place.

    The first channel of each group of r² is copied over the others, so that the initialisation
    that `weight` already has decides its scale. Apply it to the weight and to the bias of the
    convolution before the pixel shuffle, before training.

    Args:
        weight: The weight or bias of that convolution; the first dimension counts channels.
        r: The factor of the pixel shuffle, at least 1.

    Returns:
        `weight` itself.

    Raises:
        ValueError: `weight` is not a tensor, `r` is not a positive integer, or r² does not divide
            the number of channels.

    Examples:
        >>> import torch
        >>> icnr_(torch.arange(8.0), 2).tolist()
        [0.0, 0.0, 0.0, 0.0, 4.0, 4.0, 4.0, 4.0]
    """
    if not isinstance(weight, Tensor):
        raise ValueError(f"needs weight to be a tensor, but it is a {type(weight).__name__}")
    r = integer(r, "r")
    if weight.ndim < 1 or weight.shape[0] % r**2:
        shape = tuple(weight.shape)
        raise ValueError(f"needs r² dividing the length of {shape}, not r = {r}")
    with torch.no_grad():
        return weight.copy_(weight[:: r**2].repeat_interleave(r**2, dim=0))


def _check_images(x: Tensor, *, name: str = "x") -> None:
    if not isinstance(x, Tensor):
        raise ValueError(f"needs {name} to be a tensor, but it is a {type(x).__name__}")
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(
            f"needs {name} of four dimensions in a floating-point type, "
            f"but it is {tuple(x.shape)} of {x.dtype}"
        )
