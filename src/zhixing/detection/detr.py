"""Object detection as prediction of a set: one query for each object, found by optimal assignment.

Source: Carion et al., End-to-End Object Detection with Transformers, arXiv 2005.12872, sections 3.1
and 3.2 and appendix A.4.

Boxes of the network and of the targets are (cx, cy, w, h), centre, width and height, divided by the
width or height of the image; `to_centers` and `detections` convert. The last class means "no
object". Left out: masks, padded images, several processes (DETR divides the losses of boxes by the
mean number of objects over all of them), and the network itself.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from zhixing.convolution.arguments import check_floats, factor, integer, pair


def match(
    logits: Float[Tensor, "q k"],
    boxes: Float[Tensor, "q 4"],
    labels: Int[Tensor, " n"],
    targets: Float[Tensor, "n 4"],
    *,
    class_cost: int | float = 1,
    l1_cost: int | float = 5,
    giou_cost: int | float = 2,
) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Which query answers for which object of one image: the assignment of least total cost.

    The cost of a pair is -p + 5 L1 - 2 gIoU by default, with the probability p of the object's
    class (equation 1 and section 3.1 of the paper). No gradient passes through the choice.

    Args:
        logits: Of Q queries for K classes, the last of which is "no object".
        boxes: (cx, cy, w, h) of each query, from 0 to 1.
        labels: The class of each of N objects, from 0 to K - 2, in int64.
        targets: The box of each object, (cx, cy, w, h), from 0 to 1.
        class_cost: The weight of -p.
        l1_cost: The weight of the sum of the four absolute differences.
        giou_cost: The weight of -gIoU.

    Returns:
        The positions of the queries in ascending order, and of their objects. There are M, the
            smaller one of Q and N: surplus queries and surplus objects are left out.

    Raises:
        ValueError: The arguments have other shapes, types or ranges, or a cost is not finite.

    Examples:
        Both queries lie nearer to the first object.

        >>> import torch
        >>> boxes = torch.tensor([[0.3, 0.5, 0.2, 0.2], [0.4, 0.5, 0.2, 0.2]])
        >>> targets = torch.tensor([[0.35, 0.5, 0.2, 0.2], [0.8, 0.5, 0.2, 0.2]])
        >>> match(torch.zeros(2, 3), boxes, torch.tensor([1, 1]), targets)
        (tensor([0, 1]), tensor([0, 1]))
    """
    check_floats(logits, "logits", "Q", "K")
    check_floats(boxes, "boxes", len(logits), 4)
    _check_target(labels, targets)
    image, weights = torch.zeros_like(labels), (class_cost, l1_cost, giou_cost)
    costs = _costs(logits[None], boxes[None], image, labels, targets, weights=weights)
    return assign(costs.T)


def set_loss(
    logits: Float[Tensor, "b q k"],
    boxes: Float[Tensor, "b q 4"],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    class_weight: int | float = 1,
    l1_weight: int | float = 5,
    giou_weight: int | float = 2,
    eos_weight: int | float = 0.1,
    rule: Callable | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """The loss of a predicted set: cross-entropy of all queries, L1 and gIoU of the matched ones.

    The weights are also those of the costs in `match`. For auxiliary losses, call it on the output
    of each layer of the decoder, which also matches each layer anew, and add the totals.

    Args:
        logits: Of Q queries in each of B images for K classes, the last of which is "no object".
        boxes: (cx, cy, w, h) of each query, from 0 to 1.
        targets: For each image "labels" (N,), from 0 to K - 2 in int64, and "boxes" (N, 4),
            (cx, cy, w, h) from 0 to 1. Other keys are left alone.
        class_weight: The weight of the cross-entropy.
        l1_weight: The weight of the absolute differences.
        giou_weight: The weight of 1 - gIoU.
        eos_weight: The weight of "no object" in the cross-entropy, a weighted mean over all
            queries (the paper's factor of 10, section 3.1).
        rule: Another choice than `assign`, which it replaces: from the costs (N, Q) of one image
            to the positions of objects and of queries, pair by pair, with repetitions if it wants.

    Returns:
        "class", "l1" and "giou" without their weights, and "total". The losses of boxes are sums
            over the matched pairs, divided by the number of objects in all images, or by 1.

    Raises:
        ValueError: See `match`; or the number of targets is not B.

    Examples:
        >>> import torch
        >>> logits, boxes = torch.zeros(1, 4, 3), torch.full((1, 4, 4), 0.5)
        >>> target = {"labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.5, 0.25]])}
        >>> losses = set_loss(logits, boxes, [target])
        >>> {name: round(loss.item(), 3) for name, loss in losses.items()}
        {'class': 1.099, 'l1': 0.25, 'giou': 0.5, 'total': 3.349}
    """
    _check_outputs(logits, boxes)
    if len(targets) != len(logits) or not len(logits):
        raise ValueError(f"{len(logits)} images and {len(targets)} targets")
    for target in targets:
        _check_target(target["labels"], target["boxes"])
    labels = torch.cat([target["labels"] for target in targets])
    wanted = torch.cat([target["boxes"] for target in targets]).to(boxes.dtype)
    numbers = [len(target["labels"]) for target in targets]
    image = torch.arange(len(logits)).repeat_interleave(torch.tensor(numbers)).to(logits.device)
    costs = _costs(
        logits, boxes, image, labels, wanted, weights=(class_weight, l1_weight, giou_weight)
    )
    # On the CPU, where `assign` reads single numbers.
    pairs = [(rule or assign)(rows) for rows in costs.cpu().split(numbers)]
    starts = [sum(numbers[:i]) for i in range(len(numbers))]
    objects = torch.cat([rows + start for (rows, _), start in zip(pairs, starts, strict=True)])
    objects = objects.to(logits.device)
    queries = torch.cat([columns for _, columns in pairs]).to(logits.device)
    image = image[objects]
    none = logits.shape[2] - 1
    classes = labels.new_full(logits.shape[:2], none)
    classes[image, queries] = labels[objects]
    found, wanted = boxes[image, queries], wanted[objects]
    number = max(1, len(labels))
    weights = torch.ones(none + 1, dtype=logits.dtype, device=logits.device)
    weights[none] = eos_weight
    losses = {
        "class": F.cross_entropy(logits.flatten(0, 1), classes.flatten(), weights),
        "l1": (found - wanted).abs().sum() / number,
        "giou": (1 - generalized_iou(to_corners(found), to_corners(wanted))).sum() / number,
    }
    total = class_weight * losses["class"]
    total = total + l1_weight * losses["l1"] + giou_weight * losses["giou"]
    return {**losses, "total": total}


def assign(cost: Float[Tensor, "n m"]) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Pairs of a row and a column, no row or column twice, with the least sum of costs.

    The Hungarian method with shortest augmenting paths, as `scipy.optimize.linear_sum_assignment`:
    rows enter one by one, and each may push earlier ones to other columns. It runs in Python on the
    CPU, in float64. Of equal sums, it may take another one than scipy.

    Args:
        cost: Of N rows and M columns.

    Returns:
        The K = min(N, M) rows in ascending order, and the column of each.

    Raises:
        ValueError: cost is not (N, M), or not finite.

    Examples:
        The cheapest pair, (0, 0), would cost 1 + 10.

        >>> import torch
        >>> assign(torch.tensor([[1.0, 2.0], [3.0, 10.0]]))
        (tensor([0, 1]), tensor([1, 0]))
    """
    if not isinstance(cost, Tensor) or cost.ndim != 2:
        shape = (*cost.shape,) if isinstance(cost, Tensor) else f"a {type(cost).__name__}"
        raise ValueError(f"cost must be (N, M), but is {shape}")
    if not cost.isfinite().all():
        raise ValueError("cost must be finite: look for NaN in logits and boxes")
    if cost.shape[0] > cost.shape[1]:
        columns, rows = assign(cost.T)
        order = rows.argsort()
        return rows[order], columns[order]
    columns = _assign(cost.detach().double().tolist())
    columns = torch.tensor(columns, dtype=torch.int64, device=cost.device)
    return torch.arange(len(columns), device=cost.device), columns


def _assign(costs: list[list[float]]) -> list[int]:
    """The column of each row; there are at least as many columns as rows."""
    width = len(costs[0]) if costs else 0
    u, v = [0.0] * len(costs), [0.0] * width  # cost - u - v is never negative, and 0 for pairs
    row_of, column_of = [-1] * width, [-1] * len(costs)
    for start in range(len(costs)):
        # Dijkstra's shortest path from the new row to a free column, over the taken ones.
        distance, before = [math.inf] * width, [start] * width
        row, least, ahead, passed = start, 0.0, list(range(width)), []
        while True:
            for j in ahead:
                reached = least + costs[row][j] - u[row] - v[j]
                if reached < distance[j]:
                    distance[j], before[j] = reached, row
            column = min(ahead, key=distance.__getitem__)
            least, row = distance[column], row_of[column]
            if row < 0:
                break
            ahead.remove(column)
            passed.append(column)
        u[start] += least
        for j in passed:
            u[row_of[j]] += least - distance[j]
            v[j] -= least - distance[j]
        # Each row on the path takes the next column.
        while row != start:
            row = before[column]
            row_of[column] = row
            column, column_of[row] = column_of[row], column
    return column_of


def generalized_iou(a: Float[Tensor, "*n 4"], b: Float[Tensor, "*m 4"]) -> Float[Tensor, "*k"]:
    """The generalised IoU, from -1 to 1, of boxes and boxes, with broadcasting.

    The IoU, less the share of the smallest box around both that neither of them covers (Rezatofighi
    et al., arXiv 1902.09630). Unlike the IoU, it has a gradient where the boxes lie apart.

    Args:
        a: (…, 4), (x1, y1, x2, y2) with x1 ≤ x2 and y1 ≤ y2, which is not checked.
        b: (…, 4). The shapes broadcast: (Q, 1, 4) and (N, 4) give (Q, N).

    Returns:
        (…), in the type of the boxes. A quotient 0 / 0, of boxes without area, counts as 0.

    Raises:
        ValueError: The last dimension is not 4, or the type is not a floating-point type.

    Examples:
        >>> import torch
        >>> a = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        >>> b = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.5, 1.0], [3.0, 0.0, 4.0, 1.0]])
        >>> [round(value, 3) for value in generalized_iou(a, b).tolist()]
        [1.0, 0.333, -0.5]
    """
    for name, boxes in ("a", a), ("b", b):
        _check_boxes(boxes, name)
    inner = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    outer = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    shared, hull = inner.clamp(min=0).prod(-1), outer.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    iou = shared / torch.where(union > 0, union, 1)
    return iou - (hull - union) / torch.where(hull > 0, hull, 1)


def to_corners(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """(cx, cy, w, h) as (x1, y1, x2, y2), in the same unit.

    Args:
        boxes: (…, 4), centre, width and height.

    Raises:
        ValueError: The last dimension is not 4, or the type is not a floating-point type.

    Examples:
        >>> import torch
        >>> to_corners(torch.tensor([0.5, 0.5, 0.5, 0.25]))
        tensor([0.2500, 0.3750, 0.7500, 0.6250])
    """
    _check_boxes(boxes, "boxes")
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], -1)


def to_centers(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """(x1, y1, x2, y2) as (cx, cy, w, h), in the same unit.

    For targets of `set_loss`, divide pixels by the size of the image, (width, height, width,
    height).

    Args:
        boxes: (…, 4), left, upper, right and lower edge.

    Raises:
        ValueError: The last dimension is not 4, or the type is not a floating-point type.

    Examples:
        >>> import torch
        >>> to_centers(torch.tensor([16.0, 24.0, 48.0, 40.0]) / 64)
        tensor([0.5000, 0.5000, 0.5000, 0.2500])
    """
    _check_boxes(boxes, "boxes")
    first, last = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(first + last) / 2, last - first], -1)


def detections(
    logits: Float[Tensor, "b q k"], boxes: Float[Tensor, "b q 4"], *, size: tuple[int, int]
) -> list[dict[str, Tensor]]:
    """One detection for each query: its likeliest class apart from "no object", and its box.

    All Q are returned, however small their scores: metrics such as the average precision want them
    all, and for a picture a threshold is needed.

    Args:
        logits: Of Q queries in each of B images for K classes, the last of which is "no object".
        boxes: (cx, cy, w, h) of each query, from 0 to 1.
        size: Height and width of the images in pixels.

    Returns:
        For each image "scores" (Q,), "labels" (Q,) from 0 to K - 2, and "boxes" (Q, 4),
            (x1, y1, x2, y2) in pixels; in the order of the queries.

    Raises:
        ValueError: The arguments have other shapes or types, or K is 1.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[[0.0, 1.0, 1.0]]])
        >>> boxes = torch.tensor([[[0.5, 0.5, 0.5, 0.25]]])
        >>> (found,) = detections(logits, boxes, size=(64, 128))
        >>> found["labels"], found["boxes"]
        (tensor([1]), tensor([[32., 24., 96., 40.]]))
    """
    _check_outputs(logits, boxes)
    if logits.shape[2] < 2:
        raise ValueError("logits must have a class besides no object, but K is 1")
    height, width = pair(size, "size")
    scores, labels = logits.softmax(2)[..., :-1].max(2)
    corners = to_corners(boxes) * boxes.new_tensor([width, height, width, height])
    return [
        {"scores": s, "labels": c, "boxes": b}
        for s, c, b in zip(scores, labels, corners, strict=True)
    ]


def position_encoding(
    height: int, width: int, channels: int, *, temperature: int | float = 10000
) -> Float[Tensor, "c h w"]:
    """Sines and cosines of each pixel's place, half of the channels for y and half for x.

    Each coordinate counts pixels from 1 and is scaled so that the last pixel is at 2π, as in the
    paper's code. Channel 2i of a half is the sine of the coordinate divided by
    temperature^(4i / C), and channel 2i + 1 the cosine. DETR adds the encoding to queries and keys
    of each layer of the encoder, and to the keys that the decoder reads.

    Args:
        height: H, the number of pixels of the feature map.
        width: W.
        channels: C, divisible by 4.
        temperature: About the ratio of the longest wave to the shortest one.

    Returns:
        (C, H, W), in float32.

    Raises:
        ValueError: A number is not positive, or C is not divisible by 4.

    Examples:
        >>> position_encoding(2, 3, 4)[3].round(decimals=3)  # cosine of x
        tensor([[-0.5000, -0.5000,  1.0000],
                [-0.5000, -0.5000,  1.0000]])
    """
    height, width = integer(height, "height"), integer(width, "width")
    if integer(channels, "channels") % 4:
        raise ValueError(f"channels must be divisible by 4, but is {channels}")
    i = torch.arange(channels // 4, dtype=torch.float64)
    waves = factor(temperature, "temperature") ** (4 * i / channels)
    halves = []
    for length in height, width:
        place = torch.arange(1, length + 1, dtype=torch.float64) / length * 2 * math.pi
        angles = place / waves[:, None]
        halves.append(torch.stack([angles.sin(), angles.cos()], 1).flatten(0, 1))
    y = halves[0][:, :, None].expand(-1, height, width)
    x = halves[1][:, None, :].expand(-1, height, width)
    return torch.cat([y, x]).float()


@torch.no_grad()
def _costs(
    logits: Float[Tensor, "b q k"],
    boxes: Float[Tensor, "b q 4"],
    image: Int[Tensor, " n"],
    labels: Int[Tensor, " n"],
    targets: Float[Tensor, "n 4"],
    *,
    weights: tuple[int | float, ...],
) -> Float[Tensor, "n q"]:
    """The cost of each object with each query of its image, in float32 at least."""
    last = logits.shape[2] - 1
    if len(labels) and not 0 <= labels.min() <= labels.max() < last:
        raise ValueError(
            f"labels must be from 0 to {last - 1}, since {last} means no object, but are from "
            f"{labels.min()} to {labels.max()}"
        )
    if not ((targets >= 0) & (targets <= 1)).all():
        raise ValueError("targets must be (cx, cy, w, h) from 0 to 1, divided by the image's size")
    logits, boxes, targets = (
        x if x.dtype == torch.float64 else x.float() for x in (logits, boxes, targets)
    )
    p = logits.softmax(2)[image, :, labels]
    boxes, targets = boxes[image], targets[:, None]
    l1 = (boxes - targets).abs().sum(2)
    giou = generalized_iou(to_corners(boxes), to_corners(targets))
    return -weights[0] * p + weights[1] * l1 - weights[2] * giou


def _check_outputs(logits: Tensor, boxes: Tensor) -> None:
    check_floats(logits, "logits", "B", "Q", "K")
    check_floats(boxes, "boxes", "B", logits.shape[1], 4)
    if len(logits) != len(boxes):
        raise ValueError(f"logits of {len(logits)} images, but boxes of {len(boxes)}")


def _check_boxes(boxes: Tensor, name: str) -> None:
    if not (isinstance(boxes, Tensor) and boxes.is_floating_point() and boxes.shape[-1:] == (4,)):
        what = (*boxes.shape,) if isinstance(boxes, Tensor) else f"a {type(boxes).__name__}"
        raise ValueError(f"{name} must be a floating-point tensor (…, 4), but is {what}")


def _check_target(labels: Tensor, boxes: Tensor) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise ValueError(f"labels must be a tensor (N,) of int64, but is {labels!r}")
    _check_boxes(boxes, "boxes of a target")
    if boxes.shape != (len(labels), 4):
        raise ValueError(f"{len(labels)} labels, but boxes {(*boxes.shape,)}")
