"""Detection by points instead of anchors: heat maps of centres, and distances to the four sides.

Sources: Law & Deng, CornerNet, arXiv 1808.01244 (radius and loss); Zhou, Wang & Krähenbühl,
Objects as Points, arXiv 1904.07850 (CenterNet); Tian et al., FCOS, arXiv 1904.01355.

Boxes are (x1, y1, x2, y2) in pixels, so a box is x2 - x1 wide. The cell (i, j) of a map covers the
pixels from stride · j to stride · (j + 1) horizontally, and those of row i vertically.

Left out: corners and their grouping, FCOS's sampling near the centre, and NMS, which FCOS needs.
CenterNet's code also rounds height and width up before it computes the radius.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from zhixing.convolution.arguments import check_floats, factor, integer, pair


def corner_radii(
    height: Float[Tensor, "*n"], width: Float[Tensor, "*n"], *, min_overlap: int | float = 0.3
) -> Float[Tensor, "*n 3"]:
    """How far both corners of a box may move until its IoU with the box is `min_overlap`.

    The corners move by r along both axes: one inwards and one outwards, both inwards, or both
    outwards. Each case is a quadratic equation, and r its smallest positive root.

    Args:
        height: Heights of boxes, in any unit.
        width: Their widths, in the same unit.
        min_overlap: The least IoU t, above 0 and at most 1.

    Returns:
        The radii of the three cases, in the same unit.

    Raises:
        ValueError: height and width are no floating-point tensors of one shape, or min_overlap is
            out of range.

    Examples:
        >>> import torch
        >>> corner_radii(torch.tensor(10.0), torch.tensor(10.0), min_overlap=0.7)
        tensor([0.9251, 0.8167, 0.9761])
    """
    for name, x in {"height": height, "width": width}.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise ValueError(f"{name} must be a floating-point tensor, but is {x!r}")
    if height.shape != width.shape:
        raise ValueError(f"heights are {(*height.shape,)}, but widths {(*width.shape,)}")
    t = factor(min_overlap, "min_overlap")
    if t > 1:
        raise ValueError(f"min_overlap must be at most 1, but is {t!r}")
    # In units of h + w, so that q = hw / (h + w)² cannot overflow in half precision.
    total = height + width
    q = (height / total) * (width / total)
    k = (1 - t) / (1 + t)
    shift = 2 * k * q / (1 + (1 - 4 * k * q).sqrt())
    shrink = (1 - t) * q / (1 + (1 - 4 * (1 - t) * q).sqrt())
    grow = (1 - t) * q / (t + (t**2 + 4 * t * (1 - t) * q).sqrt())
    return total[..., None] * torch.stack([shift, shrink, grow], -1)


def gaussian_radius(
    height: Float[Tensor, "*n"], width: Float[Tensor, "*n"], *, min_overlap: int | float = 0.3
) -> Float[Tensor, "*n"]:
    """The least of the three `corner_radii`: up to it, both corners may be off by r each.

    Args:
        height: Heights of boxes, in any unit, usually cells of the heat map.
        width: Their widths.
        min_overlap: The least IoU; CornerNet's is 0.3.

    Raises:
        ValueError: See `corner_radii`.

    Examples:
        >>> import torch
        >>> gaussian_radius(torch.tensor([10.0, 40.0]), torch.tensor([10.0, 10.0]))
        tensor([2.2614, 3.2129])
    """
    return corner_radii(height, width, min_overlap=min_overlap).amin(-1)


def draw_centers(
    boxes: Float[Tensor, "n 4"],
    labels: Int[Tensor, " n"],
    size: tuple[int, int],
    *,
    classes: int,
    stride: int = 4,
    min_overlap: int | float = 0.3,
) -> tuple[Float[Tensor, "c h w"], Float[Tensor, "2 h w"], Float[Tensor, "2 h w"]]:
    """CenterNet's targets for one image: heat map, offset and size.

    The heat map is 1 in the cell that holds the centre of a box of this class, and falls off around
    it like a Gaussian with σ = (2r + 1) / 6, cut off at r cells, where r is the `gaussian_radius`
    without its fraction. Gaussians of one class are joined by the maximum. Where two centres share
    a cell, offset and size are those of the smaller box.

    Args:
        boxes: N boxes in pixels, with centres inside the map.
        labels: Their classes, from 0 to C - 1.
        size: Height H and width W of the map in cells.
        classes: C.
        stride: Pixels on each side of a cell.
        min_overlap: The IoU that gives the radius.

    Returns:
        The heat map (C, H, W); the centre's place within its cell (2, H, W), x first, from 0 to 1;
            width and height in cells (2, H, W). The last two are 0 where there is no centre.

    Raises:
        ValueError: Boxes and labels do not fit together, a box has no area, a centre is outside the
            map, a label is none of the classes, or another argument is not positive.

    Examples:
        >>> import torch
        >>> boxes, labels = torch.tensor([[0.0, 1.0, 20.0, 21.0]]), torch.tensor([0])
        >>> heat, offset, sides = draw_centers(boxes, labels, (5, 5), classes=1)
        >>> heat[0, 2]
        tensor([0.0000, 0.1353, 1.0000, 0.1353, 0.0000])
        >>> offset[:, 2, 2].tolist(), sides[:, 2, 2].tolist()
        ([0.5, 0.75], [5.0, 5.0])
    """
    height, width = pair(size, "size")
    classes, stride = integer(classes, "classes"), integer(stride, "stride")
    _check_boxes(boxes)
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels must be a tensor of integers (N,), but are {labels!r}")
    if labels.shape != boxes.shape[:1]:
        raise ValueError(f"there are {len(boxes)} boxes, but labels are {(*labels.shape,)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"labels must be from 0 to {classes - 1}, but are {labels.tolist()}")

    heat = boxes.new_zeros(classes, height, width)
    offset, sides = boxes.new_zeros(2, 2, height, width)
    # In half precision a centre could move into another cell.
    cells = boxes.to(torch.promote_types(boxes.dtype, torch.float32)) / stride
    centers, extents = (cells[:, :2] + cells[:, 2:]) / 2, cells[:, 2:] - cells[:, :2]
    corners = centers.floor()
    limits = torch.tensor([width, height], device=boxes.device)
    if not ((corners >= 0) & (corners < limits)).all():
        raise ValueError(f"centres must be in {height} × {width} cells, but are {centers.tolist()}")
    radii = gaussian_radius(extents[:, 1], extents[:, 0], min_overlap=min_overlap).floor()
    rows = torch.arange(height, device=boxes.device)[:, None]
    columns = torch.arange(width, device=boxes.device)
    for n in extents.prod(1).argsort(descending=True, stable=True).tolist():
        x, y = (int(corner) for corner in corners[n])
        dx, dy, radius = columns - x, rows - y, radii[n]
        gaussian = torch.exp(-(dx**2 + dy**2) / (2 * ((2 * radius + 1) / 6) ** 2))
        gaussian = gaussian.where((dx.abs() <= radius) & (dy.abs() <= radius), 0)
        channel = heat[labels[n]]
        channel.copy_(torch.maximum(channel, gaussian.to(heat.dtype)))
        offset[:, y, x] = (centers[n] - corners[n]).to(heat.dtype)
        sides[:, y, x] = extents[n].to(heat.dtype)
    return heat, offset, sides


def center_focal_loss(
    logits: Float[Tensor, "*n"],
    target: Float[Tensor, "*n"],
    *,
    alpha: int | float = 2,
    beta: int | float = 4,
) -> Float[Tensor, ""]:
    """The focal loss of CornerNet and CenterNet, which forgives high values near a centre.

    With p = sigmoid(logits), a cell with target 1 costs -(1 - p)^α log p, another one with target y
    costs -(1 - y)^β p^α log(1 - p). The sum is divided by the number of cells with target 1.

    Args:
        logits: The heat map before the sigmoid, of any shape, usually (B, C, H, W).
        target: From 0 to 1, of the same shape. Only exactly 1 is a centre.
        alpha: How much less a cell counts that is already right.
        beta: How much less a cell counts that is near a centre.

    Returns:
        A scalar; without centres the sum.

    Raises:
        ValueError: The arguments are no floating-point tensors of one shape, or alpha or beta is
            not positive.

    Examples:
        >>> import torch
        >>> target = torch.tensor([1.0, 0.5, 0.0])
        >>> round(center_focal_loss(torch.zeros(3), target).item(), 4)  # log 2 · (1 + 1/16 + 1) / 4
        0.3574
    """
    factor(alpha, "alpha")
    factor(beta, "beta")
    for name, x in {"logits": logits, "target": target}.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise ValueError(f"{name} must be a floating-point tensor, but is {x!r}")
    if logits.shape != target.shape:
        raise ValueError(f"logits are {(*logits.shape,)}, but target {(*target.shape,)}")
    positive = target == 1
    # The log-odds of the right answer; their logarithm stays finite where p rounds to 0 or 1.
    right = logits.where(positive, -logits)
    weight = torch.ones_like(target).where(positive, (1 - target) ** beta)
    losses = -weight * F.sigmoid(-right) ** alpha * F.logsigmoid(right)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return (losses.sum(dtype=wide) / positive.sum().clamp(min=1)).to(logits.dtype)


def decode_centers(
    heat: Float[Tensor, "b c h w"],
    offset: Float[Tensor, "b 2 h w"],
    size: Float[Tensor, "b 2 h w"],
    *,
    stride: int = 4,
    k: int = 100,
) -> tuple[Float[Tensor, "b k 4"], Int[Tensor, "b k"], Float[Tensor, "b k"]]:
    """CenterNet's boxes: the k highest peaks of the heat map, with the offset and size found there.

    A peak is a cell that no cell of the same class exceeds in the 3 × 3 around it. Of equal
    neighbours both are peaks. There is no NMS.

    Args:
        heat: Scores from 0 to 1, after the sigmoid.
        offset: The centre's place within its cell, x first.
        size: Width and height in cells.
        stride: Pixels on each side of a cell.
        k: How many boxes are returned for each image, but at most C · H · W.

    Returns:
        Boxes (B, k, 4) in pixels, labels (B, k), and scores (B, k) in descending order. Where there
            are fewer than k peaks, the rest has score 0.

    Raises:
        ValueError: The maps do not fit together, heat is not from 0 to 1 (logits, for example), or
            stride or k is no positive integer.

    Examples:
        >>> import torch
        >>> heat, ones = torch.zeros(1, 1, 5, 5), torch.ones(1, 2, 5, 5)
        >>> heat[0, 0, 2, 1] = 0.9
        >>> decode_centers(heat, ones / 2, 2 * ones, k=1)
        (tensor([[[ 2.,  6., 10., 14.]]]), tensor([[0]]), tensor([[0.9000]]))
    """
    check_floats(heat, "heat", "B", "C", "H", "W")
    batch, channels, height, width = heat.shape
    check_floats(offset, "offset", "B", 2, height, width)
    check_floats(size, "size", "B", 2, height, width)
    if not batch == len(offset) == len(size):
        raise ValueError(f"B is {batch} in heat, but {len(offset)} in offset, {len(size)} in size")
    if not ((heat >= 0) & (heat <= 1)).all():
        low, high = heat.min().item(), heat.max().item()
        raise ValueError(f"heat must be from 0 to 1, after the sigmoid, but is {low} to {high}")
    stride, k = integer(stride, "stride"), min(integer(k, "k"), channels * height * width)
    peaks = heat.where(heat == F.max_pool2d(heat, 3, stride=1, padding=1), 0)
    scores, places = peaks.flatten(1).topk(k)
    labels, cells = places // (height * width), places % (height * width)
    x, y = cells % width, cells // width
    index = cells[:, None].expand(-1, 2, -1)
    centers = torch.stack([x, y], 1) + offset.flatten(2).gather(2, index)
    sides = size.flatten(2).gather(2, index)
    boxes = stride * torch.cat([centers - sides / 2, centers + sides / 2], 1)
    return boxes.mT, labels, scores


def grid_points(size: tuple[int, int], *, stride: int) -> Float[Tensor, "p 2"]:
    """The points (x, y) in pixels at the middles of all cells of a map, row by row.

    Args:
        size: Height H and width W of the map in cells.
        stride: s, the pixels on each side of a cell.

    Returns:
        (H · W, 2), with coordinates s/2 + s · j and s/2 + s · i.

    Raises:
        ValueError: An argument is no positive integer.

    Examples:
        >>> grid_points((1, 3), stride=8).tolist()
        [[4.0, 4.0], [12.0, 4.0], [20.0, 4.0]]
    """
    height, width = pair(size, "size")
    stride = integer(stride, "stride")
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return stride * (torch.stack([x, y], -1).flatten(0, 1) + 0.5)


def fcos_targets(
    points: Float[Tensor, "p 2"], boxes: Float[Tensor, "n 4"], ranges: Float[Tensor, "p 2"]
) -> tuple[Int[Tensor, " p"], Float[Tensor, "p 4"]]:
    """Which box each point answers for, and the point's distances to its four sides.

    A point may answer for a box that it lies in, borders excluded, if its greatest distance to a
    side is in the point's range, ends included. Of several such boxes it takes the smallest, of
    equally small ones the first.

    Args:
        points: P points (x, y) in pixels, of all levels together.
        boxes: N boxes in pixels.
        ranges: For each point the least and greatest distance that its level answers for.

    Returns:
        For each point the index of its box, or -1 for the background; and the distances (P, 4) to
            the left, top, right and lower side, in pixels, 0 for the background.

    Raises:
        ValueError: The arguments have other shapes or types, or a box has no area.

    Examples:
        >>> import torch
        >>> points = torch.tensor([[4.0, 4.0], [12.0, 4.0], [28.0, 4.0]])
        >>> boxes = torch.tensor([[0.0, 0.0, 24.0, 16.0], [8.0, 0.0, 16.0, 8.0]])
        >>> fcos_targets(points, boxes, torch.tensor([0.0, 64.0]).expand(3, 2))
        (tensor([ 0,  1, -1]), tensor([[ 4.,  4., 20., 12.],
                [ 4.,  4.,  4.,  4.],
                [ 0.,  0.,  0.,  0.]]))
    """
    _check_boxes(boxes)
    for name, x in {"points": points, "ranges": ranges}.items():
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.shape[1:] != (2,):
            raise ValueError(f"{name} must be a floating-point tensor (P, 2), but is {x!r}")
    if len(points) != len(ranges):
        raise ValueError(f"there are {len(points)} points, but {len(ranges)} ranges")
    if not len(boxes):
        none = points.new_full((len(points),), -1, dtype=torch.int64)
        return none, points.new_zeros(len(points), 4)
    # The area of 300 × 300 pixels overflows in float16.
    wide = torch.promote_types(points.dtype, torch.float32)
    corners, places = boxes.to(wide), points.to(wide)[:, None]
    ltrb = torch.cat([places - corners[:, :2], corners[:, 2:] - places], -1)
    low, high = ranges.to(wide)[:, :, None].unbind(1)
    furthest = ltrb.amax(-1)
    eligible = (ltrb.amin(-1) > 0) & (low <= furthest) & (furthest <= high)
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    least, index = areas.where(eligible, torch.inf).min(1)
    found = least.isfinite()
    ltrb = ltrb[torch.arange(len(points), device=index.device), index]
    return index.where(found, -1), ltrb.where(found[:, None], 0).to(points.dtype)


def centerness(ltrb: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """How central a point is in its box, from 0 on the border to 1 in the middle (FCOS, eq. 3).

    It is the root of min(l, r) / max(l, r) · min(t, b) / max(t, b). The mean over any box is
    (π/2 - 1)², about 0.326.

    Args:
        ltrb: Distances to the left, top, right and lower side, in any unit.

    Returns:
        From 0 to 1; 0 outside the box.

    Raises:
        ValueError: ltrb is no floating-point tensor with four numbers in the last dimension.

    Examples:
        >>> import torch
        >>> centerness(torch.tensor([[8.0, 8.0, 8.0, 8.0], [4.0, 8.0, 16.0, 8.0]]))
        tensor([1.0000, 0.5000])
    """
    if not isinstance(ltrb, Tensor) or not ltrb.is_floating_point() or ltrb.shape[-1:] != (4,):
        raise ValueError(f"ltrb must be a floating-point tensor (…, 4), but is {ltrb!r}")
    near = torch.minimum(ltrb[..., :2], ltrb[..., 2:]).clamp(min=0)
    far = torch.maximum(ltrb[..., :2], ltrb[..., 2:])
    return (near / far.where(far > 0, 1)).prod(-1).sqrt()


def _check_boxes(boxes: Float[Tensor, "n 4"]) -> None:
    if not isinstance(boxes, Tensor) or not boxes.is_floating_point() or boxes.shape[1:] != (4,):
        raise ValueError(f"boxes must be a floating-point tensor (N, 4), but are {boxes!r}")
    if not ((boxes[:, :2] < boxes[:, 2:]).all() and boxes.isfinite().all()):
        raise ValueError(f"boxes must be x1 < x2, y1 < y2 and finite, but are {boxes.tolist()}")
