"""Mean average precision of object detectors, by the rules of VOC 2007, VOC 2010, COCO and YOLOv5.

Sources: Everingham et al., The Pascal Visual Object Classes (VOC) Challenge, IJCV 2010, and the
development kits of 2007 and 2010; Lin et al., Microsoft COCO, arXiv 1405.0312, and pycocotools.

Boxes are (x1, y1, x2, y2) in pixels, so a box is x2 - x1 wide. Whether a detection counts is
decided in float64. Only `box_iou` has a gradient. Left out: masks, keypoints, average recall,
and YOLOv5's matching, which is VOC's: here, "linear" differs from "coco" in the area only.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Rounded as in pycocotools: 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.8999999999999999, 0.95.
COCO_THRESHOLDS = tuple(0.5 + i * ((0.95 - 0.5) / 9) for i in range(10))

# Of each rule the IoU thresholds, and how many detections of one class count in one image.
PROTOCOLS = {
    "voc07": ((0.5,), math.inf),
    "voc10": ((0.5,), math.inf),
    "coco": (COCO_THRESHOLDS, 100),
    "linear": (COCO_THRESHOLDS, 100),
}


def mean_average_precision(
    predictions: Sequence[dict[str, Tensor]],
    targets: Sequence[dict[str, Tensor]],
    *,
    rule: str = "coco",
    iou_thresholds: Sequence[float] | None = None,
    max_detections: int | None = None,
    area_range: tuple[int | float, int | float] | None = None,
) -> float:
    """The mean of `average_precisions` over classes and thresholds: mAP.

    Args:
        predictions: See `average_precisions`, like all others.
        targets: One for each prediction.
        rule: "coco", "voc07", "voc10" or "linear".
        iou_thresholds: The thresholds; by default those of the rule.
        max_detections: The limit for each image and class; by default that of the rule.
        area_range: The least and the largest area of an object that counts.

    Returns:
        A number from 0 to 1; NaN if there is nothing to find, where pycocotools says -1.

    Raises:
        ValueError: See `average_precisions`.

    Examples:
        >>> import torch
        >>> target = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([3])}
        >>> shifted = target["boxes"] + torch.tensor([2.0, 0.0, 2.0, 0.0])  # IoU 2/3
        >>> prediction = {"boxes": shifted, "labels": torch.tensor([3]), "scores": torch.ones(1)}
        >>> round(mean_average_precision([prediction], [target]), 6)
        0.4
        >>> mean_average_precision([prediction], [target], rule="voc10")
        1.0
    """
    by_class = average_precisions(
        predictions,
        targets,
        rule=rule,
        iou_thresholds=iou_thresholds,
        max_detections=max_detections,
        area_range=area_range,
    )
    return torch.stack(list(by_class.values())).mean().item() if by_class else math.nan


def average_precisions(
    predictions: Sequence[dict[str, Tensor]],
    targets: Sequence[dict[str, Tensor]],
    *,
    rule: str = "coco",
    iou_thresholds: Sequence[float] | None = None,
    max_detections: int | None = None,
    area_range: tuple[int | float, int | float] | None = None,
) -> dict[int, Float[Tensor, " t"]]:
    """The average precision of each class at each IoU threshold, pooled over all images.

    With the rule "coco" it equals pycocotools' `COCOeval`, ties in scores included, if images come
    in ascending order of their ids. VOC's corners are whole pixels that belong to the box: add 1 to
    x2 and y2 first.

    Args:
        predictions: For each image "boxes" (D, 4), "labels" (D,) and "scores" (D,).
        targets: For each image "boxes" (G, 4) and "labels" (G,). COCO's rules also read "iscrowd"
            (G,), and "area" (G,), which is that of the box if it is missing; VOC's read "difficult"
            (G,). Other keys are left alone.
        rule: "coco", "voc07", "voc10" or "linear", as for `average_precision`. VOC's rules also
            count a detection whose best object is taken as wrong, see `match`.
        iou_thresholds: T thresholds; by default 0.5 for VOC, and 0.5, 0.55, …, 0.95 otherwise.
        max_detections: Of each class in each image, only so many detections with the largest scores
            count; by default all for VOC, and 100 otherwise.
        area_range: The least and the largest area, both included, of an object that counts;
            detections that find none, and are outside, do not count either. Not for VOC.

    Returns:
        For each class with an object that counts, T numbers in float64. Detections of other classes
            play no role.

    Raises:
        ValueError: The rule is unknown; the lists differ in length; boxes, labels, scores or flags
            of an image are missing, no tensors, or do not fit together; a box is not
            (x1, y1, x2, y2) or not finite; a label or flag is not an integer; a score is NaN; there
            are crowds or an area range under VOC's rules, difficult objects under others'.

    Examples:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
        >>> target = {"boxes": boxes, "labels": torch.tensor([1, 2])}
        >>> prediction = {**target, "scores": torch.tensor([0.9, 0.8])}
        >>> prediction["labels"] = torch.tensor([1, 1])  # the second one is wrong
        >>> average_precisions([prediction], [target], rule="voc10")
        {1: tensor([1.], dtype=torch.float64), 2: tensor([0.], dtype=torch.float64)}
    """
    _check_rule(rule)
    if len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions, but {len(targets)} targets")
    for prediction, target in zip(predictions, targets, strict=True):
        _check_image(prediction, target, rule)
    if area_range is not None and rule.startswith("voc"):
        raise ValueError("VOC has no area ranges")
    if area_range is not None and not _is_range(area_range):
        raise ValueError(f"area_range must be the least and the largest area, but is {area_range}")
    if iou_thresholds is not None and not isinstance(iou_thresholds, Iterable):
        raise ValueError(f"iou_thresholds must be a sequence, but is {iou_thresholds!r}")
    thresholds, limit = PROTOCOLS[rule]
    thresholds = thresholds if iou_thresholds is None else tuple(iou_thresholds)
    limit = limit if max_detections is None else max_detections
    if not all(isinstance(threshold, Real | Tensor) and threshold >= 0 for threshold in thresholds):
        raise ValueError(f"IoU thresholds must be numbers from 0 on, but are {thresholds}")
    if not isinstance(limit, Real | Tensor):
        raise ValueError(f"max_detections must be a number, but is {limit!r}")
    if not limit >= 1 or not thresholds:
        raise ValueError(f"nothing to count with {limit} detections, IoU thresholds {thresholds}")

    pooled = {}
    for prediction, target in zip(predictions, targets, strict=True):
        for label, scores, outcomes, objects in _judge(
            prediction, target, rule, thresholds, limit, area_range
        ):
            entry = pooled.setdefault(label, ([], [[] for _ in thresholds], []))
            entry[0].extend(scores)
            for pool, outcome in zip(entry[1], outcomes, strict=True):
                pool.extend(outcome)
            entry[2].append(objects)

    by_class = {}
    for label, (scores, outcomes, objects) in sorted(pooled.items()):
        if not sum(objects):
            continue
        scores = torch.tensor(scores, dtype=torch.float64, device=targets[0]["boxes"].device)
        areas = []
        for outcome in outcomes:
            counts = torch.tensor([hit is not None for hit in outcome], device=scores.device).bool()
            hits = torch.tensor([bool(hit) for hit in outcome], device=scores.device).bool()
            curve = precision_recall(hits[counts], scores[counts], sum(objects))
            areas.append(average_precision(*curve, rule=rule))
        by_class[label] = torch.stack(areas)
    return by_class


def box_iou(
    boxes: Float[Tensor, "d 4"],
    objects: Float[Tensor, "g 4"],
    *,
    crowd: Bool[Tensor, " g"] | None = None,
) -> Float[Tensor, "d g"]:
    """The intersection of each box with each object, divided by their union: IoU.

    Args:
        boxes: D boxes (x1, y1, x2, y2), x1 ≤ x2 and y1 ≤ y2.
        objects: G boxes.
        crowd: Which objects are crowds; there the divisor is the area of the box alone.

    Returns:
        (D, G) in float64, whatever the type of the boxes; 0 where the intersection has no area.

    Raises:
        ValueError: The boxes are not tensors (N, 4) of real numbers, a box has x1 > x2 or y1 > y2,
            or a coordinate or an area is not finite.

    Examples:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0]])
        >>> objects = torch.tensor([[2.0, 0.0, 6.0, 2.0]])
        >>> round(box_iou(boxes, objects).item(), 4)
        0.3333
        >>> box_iou(boxes, objects, crowd=torch.tensor([True])).item()
        0.5
    """
    _check_shape(boxes)
    _check_shape(objects)
    boxes, objects = boxes.double(), objects.double()
    _check_boxes(boxes)
    _check_boxes(objects)
    x1y1 = torch.maximum(boxes[:, None, :2], objects[:, :2])
    x2y2 = torch.minimum(boxes[:, None, 2:], objects[:, 2:])
    intersection = (x2y2 - x1y1).clamp(min=0).prod(2)
    box_area = (boxes[:, 2:] - boxes[:, :2]).prod(1)[:, None]
    object_area = (objects[:, 2:] - objects[:, :2]).prod(1)
    divisor = box_area + object_area - intersection
    if crowd is not None:
        divisor = torch.where(crowd, box_area, divisor)
    # Two boxes without area would give 0 / 0.
    return intersection / torch.where(intersection > 0, divisor, 1)


def match(
    ious: Float[Tensor, "d g"],
    scores: Float[Tensor, " d"],
    *,
    threshold: float = 0.5,
    ignore: Bool[Tensor, " g"] | None = None,
    crowd: Bool[Tensor, " g"] | None = None,
    second_choice: bool = True,
) -> Int[Tensor, " d"]:
    """Which object each detection finds: greedily in the order of scores, each object once.

    Args:
        ious: (D, G), from `box_iou`.
        scores: (D,); of equal ones the first chooses first.
        threshold: The least IoU of a detection and its object.
        ignore: Objects that nobody has to find; chosen only if there is no other.
        crowd: Those that any number of detections may find.
        second_choice: Whether a detection may take the best object that is still free, as COCO's
            may. If False, as in VOC, it takes the best of all objects or none.

    Returns:
        (D,), the index of the object; -1 where there is none. A match with an ignored object is
            neither right nor wrong.

    Raises:
        ValueError: The number of scores or flags is not D or G, a score is NaN, or the threshold is
            negative or NaN.

    Examples:
        The first detection takes object 0, so the second has to take object 1.

        >>> import torch
        >>> ious = torch.tensor([[0.9, 0.6], [0.8, 0.7]])
        >>> scores = torch.tensor([0.9, 0.5])
        >>> match(ious, scores).tolist()
        [0, 1]
        >>> match(ious, scores, second_choice=False).tolist()
        [0, -1]
    """
    _check_vectors(scores=scores)
    if not isinstance(ious, Tensor) or ious.ndim != 2:
        raise ValueError("ious must be a tensor (D, G), from box_iou")
    detections, objects = ious.shape
    if not threshold >= 0:
        raise ValueError(f"threshold must not be negative, but is {threshold}")
    ignore = [False] * objects if ignore is None else torch.as_tensor(ignore).tolist()
    crowd = [False] * objects if crowd is None else torch.as_tensor(crowd).tolist()
    if len(scores) != detections or not len(ignore) == len(crowd) == objects:
        raise ValueError(
            f"{detections} × {objects} IoUs, but {len(scores)} scores, {len(ignore)} flags ignore "
            f"and {len(crowd)} flags crowd"
        )
    order = scores.argsort(descending=True, stable=True).tolist()
    rows = ious[order].tolist() if detections else []
    matched = torch.empty(detections, dtype=torch.int64, device=ious.device)
    matched[order] = matched.new_tensor(_match(rows, threshold, ignore, crowd, second_choice))
    return matched


def precision_recall(
    hits: Bool[Tensor, " n"], scores: Float[Tensor, " n"], objects: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Recall and precision of the n best detections, for n = 1, …, N.

    Args:
        hits: (N,), whether each detection found an object.
        scores: (N,); of equal ones the first comes first.
        objects: How many objects there are to find.

    Returns:
        Recall (N,) and precision (N,), both in float64, in descending order of scores.

    Raises:
        ValueError: The lengths differ, a score is NaN, there is no object, or there are more hits
            than objects.

    Examples:
        >>> import torch
        >>> hits, scores = torch.tensor([False, True, True]), torch.tensor([0.5, 0.9, 0.1])
        >>> recall, precision = precision_recall(hits, scores, objects=4)
        >>> recall.tolist()
        [0.25, 0.25, 0.5]
        >>> [round(value, 3) for value in precision.tolist()]
        [1.0, 0.5, 0.667]
    """
    _check_vectors(hits=hits, scores=scores)
    if len(hits) != len(scores):
        raise ValueError(f"{len(hits)} hits, but {len(scores)} scores")
    if objects < max(1, hits.sum()):
        raise ValueError(f"{hits.sum()} hits of {objects} objects")
    found = hits[scores.argsort(descending=True, stable=True)].double().cumsum(0)
    return found / objects, found / torch.arange(1, len(hits) + 1, device=hits.device)


def average_precision(
    recall: Float[Tensor, " n"], precision: Float[Tensor, " n"], *, rule: str = "coco"
) -> Float[Tensor, ""]:
    """The area under the envelope of a curve of precision over recall, by one of four rules.

    Args:
        recall: (N,) in ascending order, from `precision_recall`. The area of no values is 0.
        precision: (N,).
        rule: "voc07", the mean of 11 values; "voc10", the area; "coco", the mean of 101 values;
            "linear", as in YOLOv5 since August 2021: 100 trapezoids under straight lines from point
            to point, and from the last one to recall 1 and precision 0.

    Returns:
        A number from 0 to 1, in float64.

    Raises:
        ValueError: The rule is unknown, the lengths differ, recall decreases, or a value is not
            between 0 and 1.

    Examples:
        One of two objects is found, and nothing else.

        >>> import torch
        >>> recall, precision = torch.tensor([0.5]), torch.tensor([1.0])
        >>> rules = "voc07", "voc10", "coco", "linear"
        >>> [round(average_precision(recall, precision, rule=rule).item(), 3) for rule in rules]
        [0.545, 0.5, 0.505, 0.75]
    """
    _check_rule(rule)
    _check_vectors(recall=recall, precision=precision)
    if len(recall) != len(precision):
        raise ValueError(f"{len(recall)} values of recall, but {len(precision)} of precision")
    recall, precision = recall.double(), precision.double()
    if not all(((x >= 0) & (x <= 1)).all() for x in (recall, precision)):
        raise ValueError("recall and precision must lie between 0 and 1")
    if (recall.diff() < 0).any():
        raise ValueError("recall decreases: sort the detections by score first")
    if not len(recall):
        return recall.sum()
    zero, one = recall.new_zeros(1), recall.new_ones(1)
    envelope = precision.flip(0).cummax(0).values.flip(0)
    if rule == "voc10":
        return (recall.diff(prepend=zero) * envelope).sum()
    steps = torch.arange(11 if rule == "voc07" else 101, device=recall.device)
    # Not steps / 100: pycocotools' levels are multiples of the rounded number 0.01.
    levels = steps.double() / 10 if rule == "voc07" else steps.double() * 0.01
    if rule != "linear":
        return torch.cat([envelope, zero])[torch.searchsorted(recall, levels)].mean()
    recall = torch.cat([zero, recall, one, 2 * one])
    envelope = torch.cat([one, envelope, zero, zero])
    left = torch.searchsorted(recall, levels, right=True) - 1
    slope = (envelope[left + 1] - envelope[left]) / (recall[left + 1] - recall[left])
    return torch.trapezoid(envelope[left] + slope * (levels - recall[left]), levels)


def _match(
    rows: list[list[float]],
    threshold: float,
    ignore: list[bool],
    crowd: list[bool],
    second_choice: bool,
) -> list[int]:
    """`match` for lists, where the rows of IoUs come in descending order of scores."""
    # As in pycocotools, a threshold of 1 forgives rounding.
    least = min(threshold, 1 - 1e-10)
    free, matched = [True] * len(ignore), []
    for row in rows:
        near = [g for g, iou in enumerate(row) if iou >= least]
        if second_choice:
            near = [g for g in near if free[g] or crowd[g]]
        best = -1
        if near and second_choice:
            # Of equal ones the last, as in pycocotools.
            best = max(near, key=lambda g, row=row: (not ignore[g], row[g], g))
        elif near:
            best = max(near, key=row.__getitem__)
            best = best if free[best] or crowd[best] else -1
        if best >= 0:
            free[best] = False
        matched.append(best)
    return matched


def _judge(
    prediction: dict[str, Tensor],
    target: dict[str, Tensor],
    rule: str,
    thresholds: tuple[float, ...],
    limit: int | float,
    area_range: tuple[int | float, int | float] | None,
) -> Iterator[tuple[int, list[float], list[list[bool | None]], int]]:
    """For each class in one image: label, scores, outcomes, and the number of objects to find.

    At each threshold, the outcome of a detection is a hit, a miss, or None if it does not count.
    """
    voc = rule.startswith("voc")
    boxes, objects = prediction["boxes"].double(), target["boxes"].double()
    crowd = target.get("difficult" if voc else "iscrowd", target["labels"].new_zeros(len(objects)))
    crowd = crowd.bool()
    ignore, outside = crowd, torch.zeros(len(boxes), dtype=torch.bool)
    if area_range is not None:
        least, largest = area_range
        area = target.get("area", (objects[:, 2:] - objects[:, :2]).prod(1)).double()
        ignore = crowd | (area < least) | (area > largest)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        outside = (area < least) | (area > largest)

    ious = box_iou(boxes, objects, crowd=None if voc else crowd).tolist()
    ignore, crowd, outside = ignore.tolist(), crowd.tolist(), outside.tolist()
    order = prediction["scores"].argsort(descending=True, stable=True).tolist()
    scores, guesses = prediction["scores"].tolist(), prediction["labels"].tolist()
    labels = target["labels"].tolist()
    for label in {*labels, *guesses}:
        mine = [d for d in order if guesses[d] == label]
        mine = mine[: int(min(limit, len(mine)))]
        theirs = [g for g, other in enumerate(labels) if other == label]
        rows = [[ious[d][g] for g in theirs] for d in mine]
        ignored, crowds = [ignore[g] for g in theirs], [crowd[g] for g in theirs]
        outcomes = []
        for threshold in thresholds:
            matched = _match(rows, threshold, ignored, crowds, second_choice=not voc)
            outcomes.append(
                [
                    (None if ignored[g] else True) if g >= 0 else (None if outside[d] else False)
                    for d, g in zip(mine, matched, strict=True)
                ]
            )
        yield label, [scores[d] for d in mine], outcomes, ignored.count(False)


def _check_rule(rule: str) -> None:
    if not isinstance(rule, str) or rule not in PROTOCOLS:
        raise ValueError(f"the rule must be one of {', '.join(PROTOCOLS)}, but is {rule!r}")


def _is_range(area_range: tuple[int | float, int | float]) -> bool:
    numbers = isinstance(area_range, tuple | list) and len(area_range) == 2
    numbers = numbers and all(isinstance(number, Real) for number in area_range)
    return numbers and area_range[0] <= area_range[1]


def _check_vectors(**vectors: Tensor) -> None:
    for name, vector in vectors.items():
        if not isinstance(vector, Tensor) or vector.ndim != 1:
            kind = (*vector.shape,) if isinstance(vector, Tensor) else f"a {type(vector).__name__}"
            raise ValueError(f"{name} must be a tensor of one dimension, but is {kind}")
        if vector.isnan().any():
            raise ValueError(f"{name} must be numbers, but one is NaN")


def _check_shape(boxes: Tensor) -> None:
    if not isinstance(boxes, Tensor) or boxes.is_complex() or boxes.dtype == torch.bool:
        kind = boxes.dtype if isinstance(boxes, Tensor) else f"a {type(boxes).__name__}"
        raise ValueError(f"boxes must be a tensor of real numbers, but are {kind}")
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be (N, 4), but are {tuple(boxes.shape)}")


def _check_boxes(boxes: Tensor) -> None:
    sides = boxes[:, 2:] - boxes[:, :2]
    # Of infinite boxes, and of those whose area overflows, no IoU can be computed.
    if not (boxes.isfinite().all() and sides.prod(1).isfinite().all()):
        raise ValueError("boxes must be finite, and their areas too, but one is not")
    if (sides < 0).any():
        raise ValueError(
            "boxes must be (x1, y1, x2, y2) with x1 ≤ x2, y1 ≤ y2; is this (x, y, w, h)?"
        )


def _check_values(values: Tensor, key: str, boxes: int) -> None:
    """ValueError unless there is a number for each box, an integer unless it is a score or area."""
    if not isinstance(values, Tensor):
        raise ValueError(f"{key} must be a tensor, but is a {type(values).__name__}")
    if values.shape != (boxes,):
        raise ValueError(f"{boxes} boxes, but {key} is {tuple(values.shape)}")
    if values.is_complex():
        raise ValueError(f"{key} must be real numbers, but is {values.dtype}")
    if key in ("scores", "area"):
        if values.isnan().any():
            raise ValueError("an area is NaN" if key == "area" else "a score is NaN")
    # Labels of 0.5 would never meet.
    elif (values.double() % 1 != 0).any():
        raise ValueError(f"{key} must hold integers, but is {values.tolist()}")


def _check_image(prediction: dict[str, Tensor], target: dict[str, Tensor], rule: str) -> None:
    """ValueError if the tensors of one image do not fit together, or the rule has no such flags."""
    for image, needed, keys in (
        (prediction, ("boxes", "labels", "scores"), ("labels", "scores")),
        (target, ("boxes", "labels"), ("labels", "iscrowd", "area", "difficult")),
    ):
        for key in needed:
            if not isinstance(image, Mapping) or key not in image:
                raise ValueError(f"an image must be a dict with {', '.join(needed)}: no {key}")
        _check_shape(image["boxes"])
        for key in (key for key in keys if key in image):
            _check_values(image[key], key, len(image["boxes"]))
    voc = rule.startswith("voc")
    if (flag := "iscrowd" if voc else "difficult") in target and target[flag].any():
        raise ValueError(f"the rule {rule} has no objects that are {flag}")
