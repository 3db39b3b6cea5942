"""YOLO from version 1 to 3: predictions to boxes, objects to predictions, losses, anchors and NMS.

Sources: Redmon et al., You Only Look Once, arXiv 1506.02640 (v1); Redmon & Farhadi, YOLO9000, arXiv
1612.08242 (v2), and YOLOv3, arXiv 1804.02767 (v3); where they are silent, the authors' program
Darknet.

Boxes are (x1, y1, x2, y2) in pixels, anchors (width, height) in pixels. Left out: networks, several
scales in one call, v2's loss, and the pull of v2's first steps towards the anchors.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from zhixing.convolution.arguments import check_floats, factor, integer, probability


def decode(
    raw: Float[Tensor, "b c h w"], anchors: Float[Tensor, "a 2"], *, stride: int | float
) -> tuple[Float[Tensor, "b n 4"], Float[Tensor, "b n"], Float[Tensor, "b n k"]]:
    """The boxes of a YOLO v2 or v3 layer, with the logits of their objectness and classes.

    The centre is (σ(t_x) + c_x, σ(t_y) + c_y) in cells, the size (p_w exp t_w, p_h exp t_h): v2,
    section 2, and v3, section 2.1.

    Args:
        raw: The output of the last convolution. Its A (5 + K) channels are t_x, t_y, t_w, t_h, the
            objectness and K classes of the first anchor, then those of the second, and so on.
        anchors: p_w and p_h of A anchors, in pixels of the input.
        stride: The side of a cell, in pixels.

    Returns:
        Boxes (B, N, 4), logits of the objectness (B, N) and of the classes (B, N, K), N = A H W:
            all cells of the first anchor, row by row, then those of the second, and so on.

    Raises:
        ValueError: The number of channels does not fit the anchors, an anchor or the stride is not
            positive, or a tensor has another shape or no floating-point type.

    Examples:
        >>> import torch
        >>> raw, anchors = torch.zeros(1, 7, 2, 3), torch.tensor([[20.0, 10.0]])
        >>> boxes, objectness, classes = decode(raw, anchors, stride=8)
        >>> boxes[0, 5]  # row 1, column 2: the centre of the cell is (20, 12)
        tensor([10.,  7., 30., 17.])
        >>> objectness.shape, classes.shape
        (torch.Size([1, 6]), torch.Size([1, 6, 2]))
    """
    factor(stride, "stride")
    t = flatten(raw, anchors)
    height, width = raw.shape[2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=raw.device),
        torch.arange(width, device=raw.device),
        indexing="ij",
    )
    corner = torch.stack([columns, rows], -1).flatten(0, 1).repeat(len(anchors), 1)
    prior = anchors.to(t).repeat_interleave(height * width, 0)
    center = (t[..., :2].sigmoid() + corner) * stride
    half = prior * t[..., 2:4].exp() / 2
    return torch.cat([center - half, center + half], -1), t[..., 4], t[..., 5:]


def flatten(raw: Float[Tensor, "b c h w"], anchors: Float[Tensor, "a 2"]) -> Float[Tensor, "b n d"]:
    """The output of a YOLO layer with one row for each anchor and cell, in the order of `decode`.

    Args:
        raw: (B, A (5 + K), H, W), see `decode`.
        anchors: (A, 2).

    Returns:
        (B, A H W, 5 + K), the rows t_x, t_y, t_w, t_h, objectness, classes.

    Raises:
        ValueError: See `decode`.

    Examples:
        >>> import torch
        >>> flatten(torch.zeros(2, 3 * 85, 13, 13), torch.ones(3, 2)).shape
        torch.Size([2, 507, 85])
    """
    check_floats(raw, "raw", "B", "A (5 + K)", "H", "W")
    _check_sizes(anchors, "anchors")
    count = len(anchors)
    if raw.shape[1] % count or raw.shape[1] < 5 * count:
        raise ValueError(f"{raw.shape[1]} channels do not fit {count} anchors of 5 + K numbers")
    return raw.unflatten(1, (count, -1)).permute(0, 1, 3, 4, 2).flatten(1, 3)


def assign(
    boxes: Float[Tensor, "n 4"],
    anchors: Float[Tensor, "a 2"],
    grid: tuple[int, int],
    *,
    stride: int | float,
) -> tuple[Int[Tensor, " n"], Float[Tensor, "n 4"]]:
    """Which prediction is responsible for each object, and what it should predict.

    It is the prediction of the cell that holds the centre, and of the anchor whose shape has the
    largest IoU with the object's. `decode` turns what it should predict into the box again, if the
    first two numbers take the place of σ(t_x) and σ(t_y).

    Args:
        boxes: N objects, whose centres lie in the image.
        anchors: A anchors (width, height), in pixels. Of equal IoUs, the first is taken.
        grid: The numbers of rows and of columns of cells, H and W.
        stride: The side of a cell, in pixels.

    Returns:
        The position (N,) of each object's prediction in the A H W rows of `decode`, and its targets
            (N, 4): the centre from the corner of its cell, in cells, and t_w, t_h. Objects that
            share a cell and an anchor get the same position.

    Raises:
        ValueError: A box has no area or a centre outside of the image, an anchor or the stride is
            not positive, or a tensor has another shape or no floating-point type.

    Examples:
        >>> import torch
        >>> anchors = torch.tensor([[8.0, 16.0], [16.0, 8.0]])
        >>> box = torch.tensor([[2.0, 2.0, 18.0, 10.0]])
        >>> index, targets = assign(box, anchors, (2, 3), stride=8)
        >>> index  # 6 cells of the first anchor, then cell (0, 1) of the second
        tensor([7])
        >>> targets
        tensor([[0.2500, 0.7500, 0.0000, 0.0000]])
    """
    check_floats(boxes, "boxes", *(("B", 4) if len(boxes) == 0 else ("N", 4)))
    _check_sizes(anchors, "anchors")
    rows, columns = (integer(number, "grid") for number in grid)
    factor(stride, "stride")
    sizes = boxes[:, 2:] - boxes[:, :2]
    center = (boxes[:, :2] + boxes[:, 2:]) / (2 * stride)
    limit = center.new_tensor([columns, rows])
    if not (sizes > 0).all():
        raise ValueError("each box must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2")
    if not ((center >= 0) & (center <= limit)).all():
        raise ValueError(
            f"a centre lies outside of the {rows} × {columns} cells of {stride} pixels"
        )
    # A centre on the right or lower edge of the image belongs to the last cell.
    cell = torch.minimum(center.floor(), limit - 1)
    best = shape_iou(sizes, anchors).argmax(1)
    column, row = cell.long().unbind(1)
    shape = (sizes / anchors.to(sizes)[best]).log()
    return (best * rows + row) * columns + column, torch.cat([center - cell, shape], 1)


def shape_iou(sizes: Float[Tensor, "n 2"], anchors: Float[Tensor, "a 2"]) -> Float[Tensor, "n a"]:
    """The IoU of each box with each anchor if their centres coincide.

    Args:
        sizes: N times (width, height).
        anchors: A times (width, height), in the same unit.

    Raises:
        ValueError: A size is not positive, or a tensor is not (N, 2) or has no floating-point type.

    Examples:
        >>> import torch
        >>> shape_iou(torch.tensor([[2.0, 4.0]]), torch.tensor([[4.0, 2.0], [4.0, 8.0]]))
        tensor([[0.3333, 0.2500]])
    """
    _check_sizes(sizes, "sizes", empty=True)
    _check_sizes(anchors, "anchors")
    anchors = anchors.to(sizes)
    shared = torch.minimum(sizes[:, None], anchors).prod(2)
    return shared / (sizes.prod(1)[:, None] + anchors.prod(1) - shared)


def iou_kmeans(
    sizes: Float[Tensor, "n 2"], k: int, *, generator: Generator, center: str = "median"
) -> Float[Tensor, "k 2"]:
    """k anchors by k-means with the distance 1 - IoU (v2, section 2), smallest area first.

    It starts with k of the boxes and ends when no box changes its cluster, or after 100 rounds. The
    result depends on the start: take the best of several calls with the same generator.

    Args:
        sizes: (width, height) of N boxes, such as those of all objects of the training set.
        k: The number of anchors, from 1 to N.
        generator: Where the start comes from, on the CPU.
        center: What a cluster moves to, separately for width and height: "median" (of an even
            number, the lower one) or "mean". The paper does not say.

    Returns:
        (K, 2).

    Raises:
        ValueError: There are fewer boxes than anchors, a size is not positive, or `center` is
            unknown.

    Examples:
        >>> import torch
        >>> sizes = torch.tensor([[10.0, 10.0], [12.0, 10.0], [11.0, 10.0], [40.0, 80.0]])
        >>> iou_kmeans(sizes, 2, generator=torch.Generator().manual_seed(1))
        tensor([[11., 10.],
                [40., 80.]])
    """
    _check_sizes(sizes, "sizes")
    if integer(k, "k") > len(sizes):
        raise ValueError(f"{len(sizes)} boxes are too few for {k} anchors")
    if center not in ("median", "mean"):
        raise ValueError(f"center must be 'median' or 'mean', but is {center!r}")
    anchors = sizes[torch.randperm(len(sizes), generator=generator)[:k].to(sizes.device)]
    nearest = None
    for _ in range(100):
        previous, nearest = nearest, shape_iou(sizes, anchors).argmax(1)
        if previous is not None and torch.equal(previous, nearest):
            break
        clusters = [sizes[nearest == i] for i in range(k)]
        moved = [
            c.median(0).values if center == "median" else c.mean(0) for c in clusters if len(c)
        ]
        # A cluster without boxes stays where it is.
        filled = torch.tensor([len(c) > 0 for c in clusters], device=sizes.device)
        anchors = anchors.clone()
        anchors[filled] = torch.stack(moved)
    return anchors[anchors.prod(1).argsort(stable=True)]


def yolo_v1_loss(
    pred: Float[Tensor, "b s s c"],
    target: Float[Tensor, "b s s d"],
    *,
    coord: int | float = 5.0,
    noobj: int | float = 0.5,
) -> Float[Tensor, ""]:
    """Equation 3 of YOLO v1, summed over the batch.

    In a cell with an object, the box with the largest IoU is responsible; if none overlaps the
    object, the box whose (x, y, w, h) is nearest, as in Darknet. Its confidence should be this IoU
    (section 2), through which no gradient flows. All other confidences should be 0. Half precision
    is computed in float32.

    Args:
        pred: S × S cells of an image, each with N boxes (x, y, √w, √h, confidence), then C classes.
            x and y go from 0 to 1 across the cell, w and h are shares of the image. As in the text
            of section 2.2 and in Darknet, the network predicts √w and √h themselves.
        target: Each cell's object (x, y, w, h, 1, one 1 among C classes), or zeros.
        coord: λ_coord, the weight of the boxes.
        noobj: λ_noobj, the weight of confidences without an object.

    Raises:
        ValueError: The numbers of channels or cells do not fit, w or h is negative, or a tensor has
            another shape or no floating-point type.

    Examples:
        A perfect prediction, and the same with a confidence of 0.

        >>> import torch
        >>> target = torch.zeros(1, 7, 7, 25)
        >>> target[0, 3, 3, [0, 1, 2, 3, 4, 9]] = torch.tensor([0.5, 0.5, 0.25, 0.25, 1.0, 1.0])
        >>> pred = torch.zeros(1, 7, 7, 30)
        >>> pred[0, 3, 3, [0, 1, 2, 3, 4, 14]] = torch.tensor([0.5, 0.5, 0.5, 0.5, 1.0, 1.0])
        >>> yolo_v1_loss(pred, target)
        tensor(0.)
        >>> pred[0, 3, 3, 4] = 0
        >>> yolo_v1_loss(pred, target)
        tensor(1.)
    """
    check_floats(pred, "pred", "B", "S", "S", "5 N + C")
    check_floats(target, "target", "B", "S", "S", "5 + C")
    pred, target = _at_least_single(pred), _at_least_single(target)
    classes = target.shape[3] - 5
    count = pred.shape[3] - classes
    square = pred.shape[1] == pred.shape[2]
    if not square or pred.shape[:3] != target.shape[:3] or classes < 0 or count % 5:
        raise ValueError(
            f"pred (B, S, S, 5 N + C) and target (B, S, S, 5 + C) do not fit: {(*pred.shape,)} and "
            f"{(*target.shape,)}"
        )
    if count < 5 or (target[..., 2:4] < 0).any():
        raise ValueError("pred holds no box, or w or h of the target is negative")
    boxes, probabilities = pred.split([count, classes], 3)
    boxes = boxes.unflatten(3, (-1, 5))  # (B, S, S, N, 5)
    truth = target[..., None, :4]
    side = pred.shape[1]

    def corners(box: Tensor) -> Tensor:
        return torch.cat([box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2], -1)

    with torch.no_grad():
        # Centres are measured from the corner of the cell, all numbers are shares of the image.
        found = torch.cat([boxes[..., :2] / side, boxes[..., 2:4].square()], -1)
        wanted = torch.cat([truth[..., :2] / side, truth[..., 2:]], -1)
        iou = _iou(corners(found), corners(wanted))
        nearest = (found - wanted).square().sum(-1).argmin(-1)
        best = torch.where((iou > 0).any(-1), iou.argmax(-1), nearest)
        object_here = target[..., 4:5]
        responsible = object_here * F.one_hot(best, count // 5)  # (B, S, S, N)
    roots = torch.cat([truth[..., :2], truth[..., 2:].sqrt()], -1)
    errors = (boxes[..., :4] - roots).square().sum(-1)
    confidence = boxes[..., 4]
    loss = coord * (responsible * errors).sum()
    loss = loss + (responsible * (confidence - iou).square()).sum()
    loss = loss + noobj * ((1 - responsible) * confidence.square()).sum()
    return loss + (object_here * (probabilities - target[..., 5:]).square()).sum()


def yolo_v3_loss(
    raw: Float[Tensor, "b c h w"],
    targets: list[dict[str, Tensor]],
    anchors: Float[Tensor, "a 2"],
    *,
    stride: int | float,
    ignore: int | float = 0.7,
) -> Float[Tensor, ""]:
    """The loss of one YOLO v3 layer, summed over the batch, whose gradient is Darknet's.

    Logistic cross-entropy for centre, objectness and classes, half the squared error for t_w and
    t_h. The four terms of a box have the weight 2 - area, with the area as a share of the image.
    All objectness should be 1 where `assign` puts an object, else 0; but there is no loss where the
    predicted box has an IoU above `ignore` with an object. If objects share a position, the last
    one counts for the box, and the classes of all should be 1. Half precision is computed in
    float32.

    It must not be added up over several layers: each would assign every object to itself, where
    YOLO v3 assigns it to the best anchor of all layers.

    Args:
        raw: See `decode`.
        targets: For each image `boxes` (N, 4), in pixels, and `labels` (N,), from 0 to K - 1.
        anchors: The A anchors of the layer, in pixels.
        stride: The side of a cell, in pixels.
        ignore: 0.5 in the paper, 0.7 in Darknet's configuration. 1 ignores nothing.

    Raises:
        ValueError: There is not one target for each image, a label is no class, or see `assign`.

    Examples:
        >>> import torch
        >>> anchors = torch.tensor([[16.0, 16.0]])
        >>> target = {"boxes": torch.tensor([[4.0, 4.0, 20.0, 20.0]]), "labels": torch.tensor([1])}
        >>> raw = torch.zeros(1, 7, 3, 3)
        >>> loss = yolo_v3_loss(raw, [target], anchors, stride=8)
        >>> round(loss.item(), 4)
        9.7811
    """
    probability(ignore, "ignore")
    check_floats(raw, "raw", "B", "A (5 + K)", "H", "W")
    raw = _at_least_single(raw)
    t = flatten(raw, anchors)
    if len(targets) != len(raw):
        raise ValueError(f"{len(raw)} images, but {len(targets)} targets")
    truths = [target["boxes"].to(raw) for target in targets]
    owner = [b for b, truth in enumerate(truths) for _ in range(len(truth))]
    truth = torch.cat([raw.new_zeros(0, 4), *truths])
    labels = [target["labels"].to(raw.device) for target in targets]
    labels = torch.cat([raw.new_zeros(0).long(), *labels]).long()
    classes = t.shape[2] - 5
    if labels.shape != truth.shape[:1] or not ((labels >= 0) & (labels < classes)).all():
        raise ValueError(f"{len(truth)} boxes must have labels from 0 to {classes - 1}: {labels}")
    index, wanted = assign(truth, anchors, (*raw.shape[2:],), stride=stride)
    index = index + index.new_tensor(owner) * t.shape[1]  # among the rows of all images

    with torch.no_grad():
        # Without the classes, which are most of the numbers.
        five = raw.unflatten(1, (len(anchors), -1))[:, :, :5].flatten(1, 2)
        boxes, _, _ = decode(five, anchors, stride=stride)
        overlaps = [
            (_iou(box[:, None], truth) > ignore).any(1)
            for box, truth in zip(boxes, truths, strict=True)
        ]
        counts = ~torch.cat([raw.new_zeros(0).bool(), *overlaps])
    # The rows with an object, the last object of each, and the classes of all.
    places, row = index.unique(return_inverse=True)
    numbers = torch.arange(len(row), device=row.device)
    last = torch.zeros_like(places).scatter_reduce(0, row, numbers, "amax")
    wanted, truth = wanted[last], truth[last]
    one_hot = t.new_zeros(len(places), classes)
    one_hot[row, labels] = 1
    object_here = t.new_zeros(len(counts))
    object_here[places], counts[places] = 1, True
    area = (truth[:, 2:] - truth[:, :2]).prod(1) / (raw.shape[2] * raw.shape[3] * stride**2)

    def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")

    t = t.flatten(0, 1)
    here = t[places]
    xy = cross_entropy(here[:, :2], wanted[:, :2]).sum(1)
    wh = (here[:, 2:4] - wanted[:, 2:]).square().sum(1) / 2
    loss = ((2 - area) * (xy + wh)).sum() + cross_entropy(here[:, 5:], one_hot).sum()
    return loss + (counts * cross_entropy(t[:, 4], object_here)).sum()


def nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    labels: Int[Tensor, " n"] | None = None,
    *,
    iou: int | float = 0.5,
) -> Int[Tensor, " m"]:
    """Non-maximum suppression: drop each box that overlaps a better one that is kept.

    Args:
        boxes: N boxes (x1, y1, x2, y2).
        scores: (N,); of equal ones the first is better.
        labels: (N,). Boxes of different classes leave each other alone; if left out, all belong to
            one class.
        iou: Boxes with an IoU above this overlap too much.

    Returns:
        The positions of the boxes that are kept, best first. The memory grows with N².

    Raises:
        ValueError: The numbers of boxes, scores and labels differ, a score is NaN, or iou is not
            between 0 and 1.

    Examples:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.0], [5.0, 5.0, 9.0, 9.0]])
        >>> nms(boxes, torch.tensor([0.6, 0.9, 0.3]))
        tensor([1, 2])
        >>> nms(boxes, torch.tensor([0.6, 0.9, 0.3]), torch.tensor([0, 1, 1]))
        tensor([1, 0, 2])
    """
    check_floats(boxes, "boxes", *(("B", 4) if len(boxes) == 0 else ("N", 4)))
    probability(iou, "iou")
    for name, values in {"scores": scores, "labels": labels}.items():
        if values is not None and (*values.shape,) != (len(boxes),):
            raise ValueError(f"{len(boxes)} boxes, but {name} is {(*values.shape,)}")
    if scores.isnan().any():
        raise ValueError("a score is NaN")
    order = scores.argsort(descending=True, stable=True)
    better = boxes[order]
    overlap = _iou(better[:, None], better) > iou
    if labels is not None:
        overlap &= labels[order][:, None] == labels[order]
    keep = torch.ones_like(order, dtype=torch.bool)
    for i in range(len(order)):
        if keep[i]:
            keep[i + 1 :] &= ~overlap[i, i + 1 :]
    return order[keep]


def _iou(a: Float[Tensor, "... 4"], b: Float[Tensor, "... 4"]) -> Float[Tensor, "..."]:
    """The IoU of boxes whose shapes broadcast; 0 if they share no area."""
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    shared = width * height
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    return torch.where(shared > 0, shared / torch.where(shared > 0, union, 1), 0)


def _at_least_single(x: Tensor) -> Tensor:
    """Half precision as float32, since it cannot hold pixels and sums."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_sizes(sizes: Tensor, name: str, *, empty: bool = False) -> None:
    check_floats(sizes, name, "B" if empty else "N", 2)
    if not (sizes > 0).all():
        raise ValueError(f"{name} must be positive widths and heights, but one is not")
