"""ASLFeat: peakiness, the sum over levels, detection, refinement, and offsets of a shape.

Source: Luo et al., ASLFeat: Learning Local Features of Accurate Shape and Localization,
arXiv 2003.10071, and the authors' code, github.com/lzx551402/ASLFeat.

Points are (x, y) in pixels, and the centre of the first pixel is (0, 0). Left out are the network,
its training, descriptors, and offsets of an affine map or a homography. The authors' test for edges
takes neighbours three pixels away, `detect` takes adjacent ones; and they cut the steps of the
refinement at half a pixel, `refine` at one.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from zhixing.convolution.arguments import check_floats, factor, integer

STEPS = (-1, 0, 1)


def peakiness(features: Float[Tensor, "b c h w"], *, dilation: int = 1) -> Float[Tensor, "b 1 h w"]:
    """Score of each pixel: how far a channel exceeds its neighbourhood and the other channels.

    For feature y, α = softplus(y - mean of 3 × 3 pixels of its channel), β = softplus(y - mean of
    all channels at its pixel). The score is the largest α β of all channels.

    Args:
        features: Feature maps (B, C, H, W). The score depends on their scale; the authors divide
            them by their largest value.
        dilation: Distance of the 3 × 3 pixels. The authors take 3, 2, 1 at strides 1, 2, 4.

    Returns:
        (B, 1, H, W), positive, in the type of `features`. Where all features of a neighbourhood are
            equal, it is (ln 2)², about 0.48. The map is continued by reflection.

    Raises:
        ValueError: `features` is not a floating-point tensor of four dimensions, or not higher and
            wider than `dilation`; or `dilation` is no positive integer.

    Examples:
        >>> import torch
        >>> features = torch.zeros(1, 1, 5, 5)
        >>> features[0, 0, 2, 2] = 9.0
        >>> score = peakiness(features)[0, 0]
        >>> round(score[2, 2].item(), 2), round(score[0, 0].item(), 2)
        (5.55, 0.48)
    """
    check_floats(features, "features", "B", "C", "H", "W")
    d = integer(dilation, "dilation")
    h, w = features.shape[2:]
    if min(h, w) <= d:
        raise ValueError(f"dilation {d} needs more than {d} rows and columns, not {h} × {w}")
    y = features.to(torch.promote_types(features.dtype, torch.float32))
    around = F.pad(y, (d, d, d, d), mode="reflect")
    taps = [around[..., i * d : i * d + h, j * d : j * d + w] for i in range(3) for j in range(3)]
    alpha = F.softplus(y - sum(taps) / 9)
    beta = F.softplus(y - y.mean(dim=1, keepdim=True))
    return (alpha * beta).amax(dim=1, keepdim=True).to(features.dtype)


def combine_levels(
    scores: list[Tensor] | tuple[Tensor, ...],
    size: tuple[int, int],
    *,
    strides: tuple[int, ...] = (1, 2, 4),
    weights: tuple[float | int, ...] = (1, 2, 3),
) -> Float[Tensor, "b 1 h w"]:
    """Weighted mean of the levels' scores, each enlarged to the image by linear interpolation.

    Pixel p of the image reads level l at p / stride. So cell i must stand for pixel stride · i, as
    after convolutions of 3 × 3 with padding 1. Beyond the last cell, its value is repeated.

    Args:
        scores: One map (B, 1, h, w) for each level, with h and w the image's size divided by the
            stride and rounded up.
        size: Height and width of the image.
        strides: Pixels between the cells of each level.
        weights: Positive weight of each level. The authors take 1, 2, 3.

    Returns:
        (B, 1, H, W), in the type of the first level.

    Raises:
        ValueError: The numbers of levels, strides and weights differ, a level has another size, or
            a stride or weight is not positive.

    Examples:
        >>> import torch
        >>> fine, coarse = torch.zeros(1, 1, 1, 5), torch.tensor([[[[0.0, 4.0, 8.0]]]])
        >>> combine_levels([fine, coarse], (1, 5), strides=(1, 2), weights=(1, 3)).tolist()
        [[[[0.0, 1.5, 3.0, 4.5, 6.0]]]]
    """
    if not 0 < len(scores) == len(strides) == len(weights):
        counts = f"{len(scores)} levels, {len(strides)} strides, {len(weights)} weights"
        raise ValueError(f"needs a stride and a weight for each level, not {counts}")
    total = 0.0
    for score, stride, weight in zip(scores, strides, weights, strict=True):
        cells = [-(-n // integer(stride, "stride")) for n in size]
        check_floats(score, f"the level of stride {stride}", "B", 1, *cells)
        level = score.to(torch.promote_types(score.dtype, torch.float32))
        for dim, n in zip((2, 3), size, strict=True):
            level = _enlarge(level, dim, n, stride)
        total = total + factor(weight, "weight") * level
    return (total / sum(weights)).to(scores[0].dtype)


def detect(
    score: Float[Tensor, "h w"],
    *,
    threshold: float | int = 0.5,
    window: int = 3,
    edge: float | int = 10,
    border: int = 5,
) -> Int[Tensor, "n 2"]:
    """Pixels that are the largest of their window, above a threshold, and not on an edge.

    With second differences d of the score, a pixel is on an edge unless the determinant
    dxx dyy - dxy² is positive and (dxx + dyy)² / determinant is at most (edge + 1)² / edge: the
    curvatures have one sign, and their ratio is at most `edge`.

    Args:
        score: Scores of one image (H, W).
        threshold: Scores must be greater.
        window: Odd width of the window. Of equal neighbours, the first from the top left is kept.
        edge: Largest ratio of the two curvatures, at least 1.
        border: Width of the frame without keypoints, at least 1.

    Returns:
        (N, 2), as (x, y) in whole pixels, the highest score first.

    Raises:
        ValueError: `score` is not a floating-point tensor of two dimensions, or an option is out of
            range.

    Examples:
        >>> import torch
        >>> score = torch.zeros(13, 13)
        >>> score[6, 7] = 2.0
        >>> detect(score).tolist()
        [[7, 6]]
    """
    check_floats(score, "score", "H", "W")
    if integer(window, "window", least=3) % 2 == 0:
        raise ValueError(f"window must be odd, but is {window}")
    integer(border, "border")
    if not factor(edge, "edge") >= 1:
        raise ValueError(f"edge must be at least 1, but is {edge}")
    if min(score.shape) <= 2 * border:
        return torch.empty(0, 2, dtype=torch.long, device=score.device)
    y = score.detach().to(torch.promote_types(score.dtype, torch.float32))
    _, first = F.max_pool2d(y[None, None], window, 1, window // 2, return_indices=True)
    kept = first[0, 0] == torch.arange(y.numel(), device=y.device).view(y.shape)
    _, _, dxx, dyy, dxy = _differences(y)
    determinant = dxx * dyy - dxy**2
    ratio = (edge + 1) ** 2 / edge
    inner = (determinant > 0) & ((dxx + dyy) ** 2 <= ratio * determinant)
    kept = kept & (y > threshold) & F.pad(inner, (1, 1, 1, 1))
    inside = torch.zeros_like(kept)
    inside[border:-border, border:-border] = True
    row, column = (kept & inside).nonzero(as_tuple=True)
    order = y[row, column].argsort(descending=True, stable=True)
    return torch.stack([column, row], dim=1)[order]


def refine(score: Float[Tensor, "h w"], points: Int[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Move each keypoint to the peak of a quadratic through its neighbourhood: p - H⁻¹ g.

    The gradient g and the Hessian H are central differences. A step is at most one pixel along each
    axis, and zero where H is singular.

    Args:
        score: Scores of one image (H, W).
        points: Whole pixels (N, 2) as (x, y), from `detect`; not in the outermost rows or columns.

    Returns:
        (N, 2) as (x, y) in pixels, in the type of `score`, or float32 if that has fewer bits.

    Raises:
        ValueError: The tensors have other dimensions or types, or a point has no neighbours.

    Examples:
        >>> import torch
        >>> x, y = torch.arange(9.0), torch.arange(7.0)[:, None]
        >>> score = -((x - 4.25) ** 2) - (y - 2.5) ** 2
        >>> refine(score, torch.tensor([[4, 3]])).tolist()
        [[4.25, 2.5]]
    """
    check_floats(score, "score", "H", "W")
    whole = isinstance(points, Tensor) and points.dtype in (torch.int32, torch.int64)
    if not whole or points.ndim != 2 or points.shape[1] != 2:
        kind = f"{tuple(points.shape)} of {points.dtype}" if isinstance(points, Tensor) else points
        raise ValueError(f"points must be (N, 2) of whole numbers, but are {kind}")
    h, w = score.shape
    column, row = points.long().unbind(dim=1)
    if ((column < 1) | (column > w - 2) | (row < 1) | (row > h - 2)).any():
        raise ValueError(f"points must lie inside the outermost pixels of {w} × {h}")
    y = score.to(torch.promote_types(score.dtype, torch.float32))
    dx, dy, dxx, dyy, dxy = (d[row - 1, column - 1] for d in _differences(y))
    determinant = dxx * dyy - dxy**2
    singular = determinant == 0
    determinant = determinant.masked_fill(singular, 1)
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=1) / determinant[:, None]
    return points.to(y.dtype) + step.masked_fill(singular[:, None], 0).clamp(-1, 1)


def similarity_offsets(
    scale: Float[Tensor, "b h w"], rotation: Float[Tensor, "b h w"]
) -> Float[Tensor, "b 18 h w"]:
    """Offsets for `deform_conv2d` that turn and enlarge a 3 × 3 kernel: Δ_k = λ R p_k - p_k.

    Args:
        scale: Positive factors λ (B, H, W). The authors' network gives exp(tanh(·)), from 1/e to e.
        rotation: Angles of R (B, H, W) in radians, from the x axis (right) towards the y axis
            (down).

    Returns:
        (B, 18, H, W), for tap 0, tap 1, … each (down, right), in the type of `scale`.

    Raises:
        ValueError: The tensors are not of one shape (B, H, W) and a floating-point type.

    Examples:
        Enlarged twice, the upper left tap moves one pixel up and one to the left.

        >>> import torch
        >>> offset = similarity_offsets(torch.full((1, 1, 1), 2.0), torch.zeros(1, 1, 1))
        >>> offset.flatten()[:4].tolist()
        [-1.0, -1.0, -1.0, 0.0]
    """
    check_floats(scale, "scale", "B", "H", "W")
    check_floats(rotation, "rotation", *scale.shape)
    cos, sin = scale * torch.cos(rotation), scale * torch.sin(rotation)
    offsets = []
    for y in STEPS:
        for x in STEPS:
            offsets += [sin * x + cos * y - y, cos * x - sin * y - x]  # (down, right)
    return torch.stack(offsets, dim=1).to(scale.dtype)


def _enlarge(level: Tensor, dim: int, size: int, stride: int) -> Tensor:
    """Read a map along one dimension at 0, 1 / stride, 2 / stride, …; the last cell is repeated."""
    position = torch.arange(size, device=level.device)
    low = position // stride
    high = (low + 1).clamp(max=level.shape[dim] - 1)
    shape = [1, 1, 1, 1]
    shape[dim] = size
    share = (position % stride).to(level.dtype).div(stride).view(shape)
    return level.index_select(dim, low) * (1 - share) + level.index_select(dim, high) * share


def _differences(y: Tensor) -> tuple[Tensor, ...]:
    """Central differences dx, dy, dxx, dyy, dxy of (H, W), without the outermost pixels."""
    h, w = y.shape

    def at(down: int, right: int) -> Tensor:
        return y[1 + down : h - 1 + down, 1 + right : w - 1 + right]

    dx, dy = (at(0, 1) - at(0, -1)) / 2, (at(1, 0) - at(-1, 0)) / 2
    dxx = at(0, 1) - 2 * at(0, 0) + at(0, -1)
    dyy = at(1, 0) - 2 * at(0, 0) + at(-1, 0)
    dxy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    return dx, dy, dxx, dyy, dxy
