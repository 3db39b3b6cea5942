"""R-FCN: each part of a region is read from a map of its own, and the means of the parts vote.

Source: Dai et al., R-FCN: Object Detection via Region-based Fully Convolutional Networks,
arXiv 1605.06409, section 2.

In a network, `torchvision.ops.ps_roi_pool` and `ps_roi_align` pool in the same way, see the article
for how they differ. Left out are the region proposals, the backbone and its reduction to 1024
channels, the choice of hard examples, and non-maximum suppression.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from zhixing.convolution.arguments import check_floats, factor, integer

# A region is enlarged at most by this factor, as in torchvision: exp of a wild number is infinite.
MAX_LOG_RATIO = math.log(1000 / 16)


def ps_pool(
    maps: Float[Tensor, "b ckk h w"],
    boxes: Float[Tensor, "n 5"],
    *,
    k: int = 7,
    scale: int | float = 1 / 16,
) -> Float[Tensor, "n c {k} {k}"]:
    """Position-sensitive pooling: bin (i, j) of a region is the mean of map (c, i, j) over it.

    The corners of a region are scaled and rounded to whole pixels of the map, halves away from 0,
    as in torchvision. Bin i of w pixels runs from i · w / k, rounded down, to (i + 1) · w / k,
    rounded up, so neighbours share at most one pixel if k ≤ w.

    Args:
        maps: Score maps (B, C · k², H, W). The order of channels is class, row, column:
            channel (c · k + i) · k + j belongs to bin (i, j) of class c.
        boxes: Regions (N, 5): position of the image in the batch, x1, y1, x2, y2 in pixels of the
            image. They get no gradient.
        k: The number of bins along each side.
        scale: Pixels of the map per pixel of the image.

    Returns:
        (N, C, k, k) in the type of `maps`, computed in it, or in float32 if it has fewer than 32
            bits. Bins outside the map are 0.

    Raises:
        ValueError: The tensors do not have these shapes, a box is not finite or names no image, or
            an option is out of range.

    Examples:
        One class and 2 × 2 bins: each of the four maps is constant, and each bin reads its own.

        >>> import torch
        >>> maps = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1).expand(1, 4, 8, 8)
        >>> ps_pool(maps, torch.tensor([[0.0, 16.0, 16.0, 80.0, 80.0]]), k=2)
        tensor([[[[1., 2.],
                  [3., 4.]]]])
    """
    k, scale = integer(k, "k"), factor(scale, "scale")
    check_floats(maps, "maps", "B", "C", "H", "W")
    _check_boxes(boxes, 5)
    b, channels, h, w = maps.shape
    if channels % k**2:
        raise ValueError(f"maps must have a multiple of {k**2} channels, but have {channels}")
    image = boxes[:, 0].long()
    if not ((boxes[:, 0] == image) & (image >= 0) & (image < b)).all():
        raise ValueError(f"boxes must begin with a position in a batch of {b}: image, x1, y1, …")
    corners = boxes[:, 1:].double() * scale
    corners = corners.sign() * (corners.abs() + 0.5).floor()
    corners = corners.clamp(-1e9, 1e9).long()  # products with k must fit into int64
    left, right = _bins(corners[:, 0], corners[:, 2], k, w)
    top, bottom = _bins(corners[:, 1], corners[:, 3], k, h)
    top, bottom = top[:, :, None], bottom[:, :, None]  # n k 1
    left, right = left[:, None, :], right[:, None, :]  # n 1 k

    # The number of each pixel that a bin reads, bin after bin.
    height, width = (bottom - top).expand(-1, k, k), (right - left).expand(-1, k, k)
    count = (height.clamp(min=0) * width.clamp(min=0)).flatten()
    bin_of = torch.arange(len(count), device=maps.device).repeat_interleave(count)
    first = count.cumsum(0) - count
    place = torch.arange(len(bin_of), device=maps.device) - first[bin_of]
    part = torch.arange(k * k, device=maps.device).view(k, k) + image[:, None, None] * k * k
    origin = ((part * h + top) * w + left).flatten()
    width = width.flatten()[bin_of]
    pixels = origin[bin_of] + place // width * w + place % width

    values = maps.to(torch.promote_types(maps.dtype, torch.float32)).unflatten(1, (-1, k * k))
    values = values.movedim(1, -1).flatten(0, 3)  # b·k²·h·w c
    pooled = F.embedding_bag(pixels, values, first, mode="mean")  # n·k² c; 0 without pixels
    return pooled.unflatten(0, (-1, k, k)).movedim(-1, 1).to(maps.dtype)


def vote(pooled: Float[Tensor, "n c k k2"]) -> Float[Tensor, "n c"]:
    """The score of each class: the mean of its k² bins.

    Args:
        pooled: (N, C, k, k), from `ps_pool`.

    Raises:
        ValueError: `pooled` is not a floating-point tensor of four dimensions.

    Examples:
        >>> import torch
        >>> vote(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
        tensor([[2.5000]])
    """
    if not isinstance(pooled, Tensor) or not pooled.is_floating_point() or pooled.ndim != 4:
        raise ValueError("pooled must be a floating-point tensor (N, C, k, k)")
    return pooled.mean((2, 3))


class RFCNHead(nn.Module):
    """Score maps from the features of an image, then a vote for each region.

    Two 1 × 1 convolutions make k² maps for each class and the background, and 4 k² maps for the
    box, which all classes share. They start as in the authors' code: weights with standard
    deviation 0.01, biases 0. Nothing is learned behind the pooling.

    Args:
        channels: Number of channels of the features.
        classes: Number of classes, without the background.
        k: The number of bins along each side of a region.
        scale: Pixels of the features per pixel of the image.

    Raises:
        ValueError: An option is out of range, or see `ps_pool`.

    Examples:
        >>> import torch
        >>> head = RFCNHead(1024, 20)
        >>> head.rfcn_cls.out_channels, head.rfcn_bbox.out_channels
        (1029, 196)
        >>> boxes = torch.tensor([[0, 32.0, 32.0, 160.0, 96.0]])
        >>> logits, deltas = head(torch.rand(1, 1024, 14, 14), boxes)
        >>> logits.shape, deltas.shape
        (torch.Size([1, 21]), torch.Size([1, 4]))
    """

    def __init__(
        self, channels: int, classes: int, *, k: int = 7, scale: int | float = 1 / 16
    ) -> None:
        super().__init__()
        channels, classes = integer(channels, "channels"), integer(classes, "classes")
        self.k, self.scale = integer(k, "k"), factor(scale, "scale")
        self.rfcn_cls = nn.Conv2d(channels, (classes + 1) * self.k**2, 1)
        self.rfcn_bbox = nn.Conv2d(channels, 4 * self.k**2, 1)
        for convolution in (self.rfcn_cls, self.rfcn_bbox):
            nn.init.normal_(convolution.weight, std=0.01)
            nn.init.zeros_(convolution.bias)

    def forward(
        self, features: Float[Tensor, "b c h w"], boxes: Float[Tensor, "n 5"]
    ) -> tuple[Float[Tensor, "n classes"], Float[Tensor, "n 4"]]:
        """Logits (N, classes + 1), the background first, and deltas (N, 4) for `decode`."""
        check_floats(features, "features", "B", self.rfcn_cls.in_channels, "H", "W")
        maps = self.rfcn_cls(features), self.rfcn_bbox(features)
        logits, deltas = (vote(ps_pool(m, boxes, k=self.k, scale=self.scale)) for m in maps)
        return logits, deltas


def encode(boxes: Float[Tensor, "n 4"], targets: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """What leads from a region to its target: (dx / w, dy / h, log of both ratios of sides).

    Args:
        boxes: Regions (N, 4), x1, y1, x2, y2; their sides must be positive.
        targets: A box for each region.

    Raises:
        ValueError: An argument is not (N, 4) with finite numbers and positive sides, or they differ
            in length.

    Examples:
        The target lies half a width to the right, and is twice as high.

        >>> import torch
        >>> boxes, targets = torch.tensor([[[0.0, 0.0, 4.0, 4.0]], [[2.0, -2.0, 6.0, 6.0]]])
        >>> encode(boxes, targets)
        tensor([[0.5000, 0.0000, 0.0000, 0.6931]])
    """
    center, sides = _center_and_sides(boxes)
    target_center, target_sides = _center_and_sides(targets)
    _check_lengths(boxes, targets)
    return torch.cat([(target_center - center) / sides, (target_sides / sides).log()], 1)


def decode(boxes: Float[Tensor, "n 4"], deltas: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """The box that `deltas` make of a region: the inverse of `encode`.

    Args:
        boxes: Regions (N, 4) with positive sides.
        deltas: (N, 4). Above `MAX_LOG_RATIO` a logarithm counts as this number.

    Raises:
        ValueError: `boxes` is not as for `encode`, or `deltas` is not (N, 4).

    Examples:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
        >>> decode(boxes, torch.tensor([[0.5, 0.0, 0.0, 0.0]]))
        tensor([[2., 0., 6., 4.]])
    """
    center, sides = _center_and_sides(boxes)
    check_floats(deltas, "deltas", "B", 4)
    _check_lengths(boxes, deltas)
    center = center + deltas[:, :2] * sides
    half = deltas[:, 2:].clamp(max=MAX_LOG_RATIO).exp() * sides / 2
    return torch.cat([center - half, center + half], 1)


def rfcn_loss(
    logits: Float[Tensor, "n classes"],
    deltas: Float[Tensor, "n 4"],
    labels: Int[Tensor, " n"],
    targets: Float[Tensor, "n 4"],
    *,
    weight: int | float = 1,
) -> Float[Tensor, ""]:
    """L_cls + λ [c* > 0] L_reg, the mean over regions (section 2 of the paper).

    L_cls is the cross-entropy, L_reg the smooth L1 distance of the deltas, summed over the four.

    Args:
        logits: (N, C + 1), the background first.
        deltas: (N, 4).
        labels: c*, (N,): 0 for the background.
        targets: The deltas that are wanted (N, 4); those of the background do not count, and may
            be NaN.
        weight: λ.

    Returns:
        A scalar; 0 if there is no region.

    Raises:
        ValueError: The tensors do not fit together, a label is no class, or λ is not positive.

    Examples:
        >>> import torch
        >>> logits, deltas = torch.zeros(2, 2), torch.zeros(2, 4)
        >>> rfcn_loss(logits, deltas, torch.tensor([0, 1]), torch.ones(2, 4))  # log 2 + 4 · ½ / 2
        tensor(1.6931)
    """
    weight = factor(weight, "weight")
    check_floats(logits, "logits", "B", "C")
    n, classes = logits.shape
    for name, tensor in {"deltas": deltas, "targets": targets}.items():
        check_floats(tensor, name, "B", 4)
        _check_lengths(logits, tensor)
    if not isinstance(labels, Tensor) or labels.shape != (n,) or labels.is_floating_point():
        raise ValueError(f"labels must be {n} integers")
    if ((labels < 0) | (labels >= classes)).any():
        raise ValueError(f"labels must be from 0 to {classes - 1}")
    objects = labels > 0
    classification = F.cross_entropy(logits, labels.long(), reduction="sum")
    regression = F.smooth_l1_loss(deltas[objects], targets[objects], reduction="sum")
    return (classification + weight * regression) / max(n, 1)


def _bins(start: Tensor, stop: Tensor, k: int, size: int) -> tuple[Tensor, Tensor]:
    """First pixel, and the first that no longer belongs, of k bins (N, k) within 0 … size."""
    start, length = start[:, None], (stop - start).clamp(min=1)[:, None]
    i = torch.arange(k, device=start.device)
    first, last = start + i * length // k, start - (-(i + 1) * length // k)
    first = first.clamp(0, size)
    return first, last.clamp(0, size)


def _center_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    _check_boxes(boxes, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    if not (sides > 0).all():
        raise ValueError("boxes must be x1, y1, x2, y2 with x1 < x2 and y1 < y2")
    return boxes[:, :2] + sides / 2, sides


def _check_boxes(boxes: Tensor, columns: int) -> None:
    check_floats(boxes, "boxes", "B", columns)
    if not boxes.isfinite().all():
        raise ValueError("boxes must be finite")


def _check_lengths(first: Tensor, second: Tensor) -> None:
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} rows do not belong together")
