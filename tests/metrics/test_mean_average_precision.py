"""Mean average precision against pycocotools, torchmetrics, loops from VOC's definitions, and published numbers."""

import contextlib
import io
import itertools
import math
from fractions import Fraction

import numpy
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from zhixing.metrics.mean_average_precision import (
    COCO_THRESHOLDS,
    average_precision,
    average_precisions,
    box_iou,
    match,
    mean_average_precision,
    precision_recall,
)

EACH_RULE = pytest.mark.parametrize("rule", ["voc07", "voc10", "coco", "linear"])


def tensors(prediction, target):
    """Return one image from rows (x1, y1, x2, y2, label, score) and (x1, y1, x2, y2, label, flag[, area])."""
    prediction = torch.tensor(prediction, dtype=torch.float64).reshape(-1, 6)
    target = torch.tensor(target, dtype=torch.float64)
    target = target.reshape(len(target), -1) if len(target) else torch.empty(0, 7, dtype=torch.float64)
    boxes, labels, scores = prediction[:, :4], prediction[:, 4].long(), prediction[:, 5]
    objects = {"boxes": target[:, :4], "labels": target[:, 4].long(), "flag": target[:, 5].bool()}
    if target.shape[1] == 7:
        objects["area"] = target[:, 6]
    return {"boxes": boxes, "labels": labels, "scores": scores}, objects


def as_rule(targets, rule):
    """Name the flag as the rule does."""
    name = "difficult" if rule.startswith("voc") else "iscrowd"
    return [{(name if key == "flag" else key): value for key, value in target.items()} for target in targets]


# pycocotools


@pytest.fixture(scope="module")
def pycocotools():
    """Return a function like average_precisions that calls COCOeval."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def index(images, annotations):
        coco = COCO()
        categories = [{"id": label} for label in sorted({a["category_id"] for a in annotations})]
        coco.dataset = {"images": images, "annotations": annotations, "categories": categories}
        coco.createIndex()
        return coco

    def annotation(image, box, label, **others):
        x1, y1, x2, y2 = box
        xywh = [x1, y1, x2 - x1, y2 - y1]
        return {"image_id": image, "bbox": xywh, "category_id": label, "area": xywh[2] * xywh[3], **others}

    def evaluate(predictions, targets, *, max_detections=100, area_range=(0, 1e10)):
        found, wanted = [], []
        for image, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
            for *row, score in zip(*(prediction[key].tolist() for key in ("boxes", "labels", "scores")), strict=True):
                found.append(annotation(image, *row, score=score, id=len(found) + 1))
            crowd = target.get("iscrowd", torch.zeros_like(target["labels"]))
            for g, row in enumerate(zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)):
                area = {"area": target["area"][g].item()} if "area" in target else {}
                wanted.append(annotation(image, *row, iscrowd=int(crowd[g]), id=len(wanted) + 1, **area))
        images = [{"id": image} for image in range(len(targets))]
        with contextlib.redirect_stdout(io.StringIO()):
            run = COCOeval(index(images, wanted), index(images, found), "bbox")
            run.params.maxDets, run.params.areaRng = [max_detections], [list(area_range)]
            run.evaluate()
            run.accumulate()
        precision = torch.from_numpy(run.eval["precision"])[..., 0, 0]  # threshold, level, class
        return {
            label: precision[:, :, k].mean(1) for k, label in enumerate(run.params.catIds) if precision[0, 0, k] > -1
        }

    return evaluate


def random_images(seed, *, images=12, classes=5, most=12, size=128):
    """Return images with objects, and detections of which about half are near an object."""
    random = torch.Generator().manual_seed(seed)

    def integers(*shape, low=0, high):
        return torch.randint(low, high, shape, generator=random)

    def boxes(n):
        corner = integers(n, 2, high=size)
        return torch.cat([corner, corner + integers(n, 2, low=4, high=size)], 1).double()

    predictions, targets = [], []
    for _ in range(images):
        objects = boxes(int(integers(high=most)))
        near = objects.repeat_interleave(2, 0) + integers(2 * len(objects), 4, low=-2, high=3)
        found = torch.cat([near, boxes(int(integers(high=most)))])
        labels = integers(len(objects), high=classes)
        found_labels = torch.cat([labels.repeat_interleave(2), integers(len(found) - len(near), high=classes)])
        scores = integers(len(found), high=20) / 20
        predictions.append({"boxes": found, "labels": found_labels, "scores": scores})
        targets.append({"boxes": objects, "labels": labels, "flag": integers(len(objects), high=5) == 0})
    return predictions, targets


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for label in ours:
        assert_close(ours[label], theirs[label], rtol=0, atol=1e-12)


AREA_RANGES = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
AREAS = st.sampled_from([0.0, 1023.5, 1024.0, 1024.5, 9215.5, 9216.0, 9216.5])
LABELS = st.integers(0, 2)


@st.composite
def box(draw):
    """Draw a box on a coarse grid, so that IoUs are often equal, at a threshold, or 0, and areas at a border."""
    x, y = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    width, height = draw(st.sampled_from([0, 4, 16, 31, 32, 33, 96])), draw(st.sampled_from([4, 20, 32, 96]))
    return [4.0 * x, 4.0 * y, 4.0 * x + width, 4.0 * y + height]


def images(flag):
    prediction = st.tuples(box(), LABELS, st.sampled_from([0.125, 0.5, 0.75])).map(lambda row: [*row[0], *row[1:]])
    target = st.tuples(box(), LABELS, flag, AREAS).map(lambda row: [*row[0], *row[1:]])
    image = st.tuples(st.lists(prediction, max_size=8), st.lists(target, max_size=5))
    return st.lists(image, min_size=1, max_size=4)


EXAMPLES = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@EXAMPLES
@given(
    images=images(st.booleans()),
    area_range=st.sampled_from(list(AREA_RANGES.values())),
    max_detections=st.sampled_from([1, 3, 100]),
    own_area=st.booleans(),
)
def test_coco_equals_pycocotools_on_awkward_images(pycocotools, images, area_range, max_detections, own_area):
    predictions, targets = zip(*(tensors(*image) for image in images), strict=True)
    targets = as_rule(targets, "coco")
    if not own_area:
        targets = [{key: value for key, value in target.items() if key != "area"} for target in targets]
    options = {"max_detections": max_detections, "area_range": area_range}
    assert_same(
        average_precisions(predictions, targets, **options),
        pycocotools(predictions, targets, **options),
    )


@pytest.mark.parametrize("area", AREA_RANGES)
@pytest.mark.parametrize("seed", range(3))
def test_coco_equals_pycocotools_on_random_images(pycocotools, seed, area):
    predictions, targets = random_images(seed)
    targets = as_rule(targets, "coco")
    theirs = pycocotools(predictions, targets, area_range=AREA_RANGES[area])
    assert_same(average_precisions(predictions, targets, area_range=AREA_RANGES[area]), theirs)
    ours = mean_average_precision(predictions, targets, area_range=AREA_RANGES[area])
    assert_close(ours, torch.cat(list(theirs.values())).mean().item())


def test_limit_is_per_class_and_image_as_in_pycocotools(pycocotools):
    corners = 20.0 * torch.arange(160).reshape(-1, 1).expand(-1, 4).double()
    boxes = corners + torch.tensor([0.0, 0.0, 10.0, 10.0], dtype=torch.float64)
    labels = torch.ones(160, dtype=torch.int64)
    both = {"boxes": boxes.repeat(2, 1), "labels": torch.cat([labels, 2 * labels])}
    prediction = {**both, "scores": torch.linspace(1, 0, 320)}
    ours = average_precisions([prediction], [both])
    assert_same(ours, pycocotools([prediction], [both]))
    # 63 of the 101 levels of recall are at most 100/160.
    assert_close(ours[1], torch.full_like(ours[1], 63 / 101))
    assert_close(ours[2], ours[1])
    assert mean_average_precision([prediction], [both], max_detections=160) == 1
    limited = mean_average_precision([prediction], [both], rule="linear", max_detections=100)
    assert mean_average_precision([prediction], [both], rule="linear") == limited
    assert mean_average_precision([prediction], [both], rule="voc10") == 1


@pytest.mark.parametrize("hits", [34, 35, 36, 70, 95])
def test_level_of_recall_is_rounded_as_in_pycocotools(pycocotools, hits):
    corners = 20.0 * torch.arange(100).reshape(-1, 1).expand(-1, 4).double()
    boxes = corners + torch.tensor([0.0, 0.0, 10.0, 10.0], dtype=torch.float64)
    target = {"boxes": boxes, "labels": torch.ones(100, dtype=torch.int64)}
    prediction = {**{key: value[:hits] for key, value in target.items()}, "scores": torch.ones(hits)}
    assert_same(average_precisions([prediction], [target]), pycocotools([prediction], [target]))


def test_of_equally_near_objects_the_last_is_taken_as_in_pycocotools(pycocotools):
    # The first box lies between both objects; the second fits one of them only.
    found = [[2, 0, 12, 10, 1, 0.9], [0, 0, 10, 10, 1, 0.8]]
    prediction, target = tensors(found, [[0, 0, 10, 10, 1, False], [4, 0, 14, 10, 1, False]])
    ours = average_precisions([prediction], [target])
    assert ours[1][0] == 1
    assert_same(ours, pycocotools([prediction], [target]))
    assert match(box_iou(prediction["boxes"], target["boxes"]), prediction["scores"]).tolist() == [1, 0]


@pytest.mark.parametrize("own_area", [True, False], ids=["area given", "area of the box"])
@pytest.mark.parametrize(("area", "labels"), [("small", {1}), ("medium", {1, 2}), ("large", {2})])
def test_areas_on_a_border_belong_to_both_ranges_as_in_pycocotools(pycocotools, area, labels, own_area):
    found, wanted = [], []
    for label, side in {1: 32, 2: 96}.items():
        wanted.append([0, 0, side, side, label, False, side**2])
        # A better score for a box of the same size that finds nothing: precision is 1/2.
        found += [[500, 500, 500 + side, 500 + side, label, 0.9], [0, 0, side, side, label, 0.5]]
    prediction, target = tensors(found, wanted if own_area else [row[:6] for row in wanted])
    ours = average_precisions([prediction], [target], area_range=AREA_RANGES[area])
    assert_same(ours, pycocotools([prediction], [target], area_range=AREA_RANGES[area]))
    assert ours.keys() == labels
    assert_close(list(ours.values()), [torch.full((10,), 0.5, dtype=torch.float64)] * len(labels))


def test_thresholds_are_those_of_pycocotools():
    from pycocotools.cocoeval import Params

    assert list(COCO_THRESHOLDS) == Params("bbox").iouThrs.tolist()
    assert Params("bbox").maxDets == [1, 10, 100]
    assert Params("bbox").areaRng[1:3] == [list(AREA_RANGES["small"]), list(AREA_RANGES["medium"])]


def coco_numbers(image_ids, annotations, detections):
    """Return pycocotools' twelve numbers for dicts as in COCO's files; boxes are (x, y, width, height)."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": image_id} for image_id in image_ids],
        "categories": [{"id": label} for label in {a["category_id"] for a in annotations}],
        "annotations": [{**a} for a in annotations],  # their "id" must be different and not 0
    }
    truth.createIndex()
    run = COCOeval(truth, truth.loadRes([{**d} for d in detections]), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.stats


def test_numbers_of_pycocotools_summary_leave_the_input_alone(capsys):
    box = {"image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10]}
    annotations, detections = [{**box, "id": 1, "area": 100, "iscrowd": 0}], [{**box, "score": 0.5}]
    before = [{**annotations[0]}, {**detections[0]}]
    assert_close(coco_numbers([7], annotations, detections)[0].item(), 1.0)
    assert "Average Precision" in capsys.readouterr().out
    assert [*annotations, *detections] == before


def test_numbers_of_pycocotools_summary_are_ours(capsys):
    predictions, targets = random_images(3)
    annotations, detections = [], []
    for image, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        for rows, entry in ((annotations, target), (detections, prediction)):
            for i, (x1, y1, x2, y2) in enumerate(entry["boxes"].tolist()):
                row = {"image_id": image, "category_id": entry["labels"][i].item(), "bbox": [x1, y1, x2 - x1, y2 - y1]}
                rows.append(row)
                if entry is prediction:
                    row["score"] = entry["scores"][i].item()
                else:
                    row |= {"id": len(rows), "iscrowd": int(entry["flag"][i]), "area": (x2 - x1) * (y2 - y1)}
    theirs = coco_numbers(range(len(targets)), annotations, detections).tolist()
    assert "Average Precision" in capsys.readouterr().out
    targets = as_rule(targets, "coco")
    ours = [mean_average_precision(predictions, targets)]
    ours += [mean_average_precision(predictions, targets, iou_thresholds=[threshold]) for threshold in (0.5, 0.75)]
    ours += [
        mean_average_precision(predictions, targets, area_range=AREA_RANGES[size])
        for size in ("small", "medium", "large")
    ]
    assert_close(ours, theirs[:6], rtol=0, atol=1e-12)


# torchmetrics, which rounds its default thresholds to float32


@pytest.fixture(scope="module")
def torchmetrics_map():
    """Return a function that calls torchmetrics' MeanAveragePrecision."""
    from torchmetrics.detection import MeanAveragePrecision

    def evaluate(predictions, targets):
        levels = numpy.linspace(0, 1, 101).tolist()
        metric = MeanAveragePrecision(iou_thresholds=list(COCO_THRESHOLDS), rec_thresholds=levels)
        with contextlib.redirect_stdout(io.StringIO()):
            metric.update(predictions, targets)
            return {key: value.item() for key, value in metric.compute().items() if value.ndim == 0}

    return evaluate


@pytest.mark.torchvision
def test_coco_equals_torchmetrics(torchmetrics_map):
    predictions, targets = random_images(0)
    targets = as_rule(targets, "coco")
    theirs = torchmetrics_map(predictions, targets)
    assert_close(mean_average_precision(predictions, targets), theirs["map"], rtol=0, atol=1e-6)
    for threshold in (50, 75):
        ours = mean_average_precision(predictions, targets, iou_thresholds=[threshold / 100])
        assert_close(ours, theirs[f"map_{threshold}"], rtol=0, atol=1e-6)
    for size in ("small", "medium", "large"):
        ours = mean_average_precision(predictions, targets, area_range=AREA_RANGES[size])
        assert_close(ours, theirs[f"map_{size}"], rtol=0, atol=1e-6)


# VOC, by loops in exact fractions


def exact_iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return Fraction(0)
    areas = sum((Fraction(c[2]) - Fraction(c[0])) * (Fraction(c[3]) - Fraction(c[1])) for c in (a, b))
    return Fraction(width) * Fraction(height) / (areas - Fraction(width) * Fraction(height))


def voc_curve(images, label):
    """Return the points (recall, precision) of one class as VOC's development kit says, or None without objects."""
    wanted = [[row for row in target if row[4] == label] for _, target in images]
    to_find = sum(not row[5] for rows in wanted for row in rows)
    if not to_find:
        return None
    found = [(image, row) for image, (prediction, _) in enumerate(images) for row in prediction if row[4] == label]
    found.sort(key=lambda entry: -entry[1][5])
    taken, right, wrong, points = set(), 0, 0, []
    for image, row in found:
        overlaps = [exact_iou(row, other) for other in wanted[image]]
        best = overlaps.index(max(overlaps)) if overlaps else None
        if best is None or overlaps[best] < Fraction(1, 2):
            wrong += 1
        elif wanted[image][best][5]:
            continue  # difficult: neither right nor wrong
        elif (image, best) in taken:
            wrong += 1
        else:
            taken.add((image, best))
            right += 1
        points.append((Fraction(right, to_find), Fraction(right, right + wrong)))
    return points


def voc07_area(points):
    return sum(max((p for r, p in points if r >= Fraction(i, 10)), default=0) for i in range(11)) / Fraction(11)


def voc10_area(points):
    recalls = sorted({Fraction(0)} | {r for r, _ in points})
    return sum((r - before) * max(p for other, p in points if other >= r) for before, r in itertools.pairwise(recalls))


@EXAMPLES
@given(images=images(st.booleans()))
def test_voc_equals_loops_over_its_definition(images):
    predictions, targets = zip(*(tensors(*image) for image in images), strict=True)
    curves = {label: curve for label in range(3) if (curve := voc_curve(images, label)) is not None}
    for rule, area in {"voc07": voc07_area, "voc10": voc10_area}.items():
        ours = average_precisions(predictions, as_rule(targets, rule), rule=rule)
        expected = {label: torch.tensor([float(area(curve))], dtype=torch.float64) for label, curve in curves.items()}
        assert_same(ours, expected)


def test_second_box_at_a_taken_object_is_a_miss_in_voc_and_takes_the_next_in_coco():
    found = [[0, 0, 10, 10, 1, 0.9], [0, 0, 10, 10, 1, 0.8]]
    wanted = [[0, 0, 10, 10, 1, False], [2, 0, 12, 10, 1, False]]  # of IoU 2/3 with the first
    prediction, target = tensors(found, wanted)
    assert float(voc10_area(voc_curve([(found, wanted)], 1))) == 0.5
    for rule, area in {"voc10": 0.5, "coco": 1.0}.items():
        ours = mean_average_precision([prediction], as_rule([target], rule), rule=rule, iou_thresholds=[0.5])
        assert_close(ours, area)


@pytest.mark.parametrize("seed", range(3))
def test_voc_equals_loops_on_random_images(seed):
    predictions, targets = random_images(seed)
    images = [
        (
            [[*box, *rest] for box, *rest in zip(*(p[k].tolist() for k in ("boxes", "labels", "scores")), strict=True)],
            [[*box, *rest] for box, *rest in zip(*(t[k].tolist() for k in ("boxes", "labels", "flag")), strict=True)],
        )
        for p, t in zip(predictions, targets, strict=True)
    ]
    for rule, area in {"voc07": voc07_area, "voc10": voc10_area}.items():
        expected = [area(voc_curve(images, label)) for label in range(5)]
        ours = mean_average_precision(predictions, as_rule(targets, rule), rule=rule)
        assert_close(ours, float(sum(expected) / 5), rtol=0, atol=1e-12)


# The published example: persons in seven images, (x, y, width, height), https://github.com/rafaelpadilla/Object-Detection-Metrics

PERSONS = [
    [(25, 16, 38, 56), (129, 123, 41, 62)],
    [(123, 11, 43, 55), (38, 132, 59, 45)],
    [(16, 14, 35, 48), (123, 30, 49, 44), (99, 139, 47, 47)],
    [(53, 42, 40, 52), (154, 43, 31, 34)],
    [(59, 31, 44, 51), (48, 128, 34, 52)],
    [(36, 89, 52, 76), (62, 58, 44, 67)],
    [(28, 31, 55, 63), (58, 67, 50, 58)],
]
FOUND = [
    [(0.88, 5, 67, 31, 48), (0.70, 119, 111, 40, 67), (0.80, 124, 9, 49, 67)],
    [(0.71, 64, 111, 64, 58), (0.54, 26, 140, 60, 47), (0.74, 19, 18, 43, 35)],
    [
        (0.18, 109, 15, 77, 39),
        (0.67, 86, 63, 46, 45),
        (0.38, 160, 62, 36, 53),
        (0.91, 105, 131, 47, 47),
        (0.44, 18, 148, 40, 44),
    ],
    [(0.35, 83, 28, 28, 26), (0.78, 28, 68, 42, 67), (0.45, 87, 89, 25, 39), (0.14, 10, 155, 60, 26)],
    [(0.62, 50, 38, 28, 46), (0.44, 95, 11, 53, 28), (0.95, 29, 131, 72, 29), (0.23, 29, 163, 72, 29)],
    [(0.45, 43, 48, 74, 38), (0.84, 17, 155, 29, 35), (0.43, 95, 110, 25, 42)],
    [(0.48, 16, 20, 101, 88), (0.95, 33, 116, 37, 49)],
]


def published_example():
    predictions, targets = [], []
    for persons, found in zip(PERSONS, FOUND, strict=True):
        # The last pixel belongs to the box, as in VOC.
        prediction = [[x, y, x + w + 1, y + h + 1, 1, score] for score, x, y, w, h in found]
        target = [[x, y, x + w + 1, y + h + 1, 1, False] for x, y, w, h in persons]
        prediction, target = tensors(prediction, target)
        predictions.append(prediction)
        targets.append(target)
    return predictions, targets


@pytest.mark.parametrize(("rule", "published"), [("voc07", 0.2684), ("voc10", 0.2456)])
def test_published_example_has_the_published_values(rule, published):
    ours = mean_average_precision(*published_example(), rule=rule, iou_thresholds=[0.3])
    assert abs(ours - published) < 1e-4  # the README cuts the second one off


# One curve, four areas


def curve(seed, n=30, objects=20):
    random = torch.Generator().manual_seed(seed)
    hits = (torch.rand(n, generator=random) < 0.6) & (torch.arange(n) < 2 * objects)
    hits &= hits.cumsum(0) <= objects
    return precision_recall(hits, torch.rand(n, generator=random), objects)


@pytest.mark.parametrize("seed", range(20))
def test_linear_area_equals_interpolation_by_numpy(seed):
    recall, precision = curve(seed, n=1 + 2 * seed, objects=1 + seed)
    envelope = numpy.flip(numpy.maximum.accumulate(numpy.flip(precision.numpy())))
    levels = numpy.linspace(0, 1, 101)
    values = numpy.interp(levels, [0, *recall.numpy(), 1], [1, *envelope, 0])
    expected = ((values[1:] + values[:-1]) / 2 * numpy.diff(levels)).sum()
    assert_close(average_precision(recall, precision, rule="linear").item(), expected)


@pytest.mark.parametrize("seed", range(20))
def test_areas_equal_loops_over_the_points(seed):
    recall, precision = curve(seed)
    points = [(Fraction(round(20 * r), 20), p) for r, p in zip(recall.tolist(), precision.tolist(), strict=True)]
    assert_close(average_precision(recall, precision, rule="voc07").item(), float(voc07_area(points)))
    assert_close(average_precision(recall, precision, rule="voc10").item(), float(voc10_area(points)))


def test_one_of_two_objects_by_hand():
    recall, precision = torch.tensor([0.5]), torch.tensor([1.0])
    expected = {"voc07": 6 / 11, "voc10": 1 / 2, "coco": 51 / 101, "linear": 3 / 4}
    for rule, area in expected.items():
        assert_close(average_precision(recall, precision, rule=rule).item(), area)


def test_linear_area_starts_at_precision_one():
    area = average_precision(torch.tensor([0.5]), torch.tensor([0.5]), rule="linear")
    assert_close(area.item(), 0.5)


def test_perfect_detector_scores_995_by_the_linear_rule():
    recall, precision = torch.tensor([0.5, 1.0]), torch.tensor([1.0, 1.0])
    assert [average_precision(recall, precision, rule=rule).item() for rule in ("voc07", "voc10", "coco")] == [1] * 3
    assert_close(average_precision(recall, precision, rule="linear").item(), 0.995)


@EACH_RULE
def test_area_of_nothing_is_nothing(rule):
    nothing = torch.empty(0)
    assert average_precision(nothing, nothing, rule=rule) == 0
    assert average_precision(torch.zeros(3), torch.zeros(3), rule=rule) == 0


@EACH_RULE
def test_only_the_order_of_scores_counts(rule):
    predictions, targets = random_images(5)
    targets = as_rule(targets, rule)
    before = mean_average_precision(predictions, targets, rule=rule)
    changed = [{**prediction, "scores": 7 * prediction["scores"] ** 3 - 100} for prediction in predictions]
    assert mean_average_precision(changed, targets, rule=rule) == before


@pytest.mark.parametrize("rule", ["voc07", "voc10", "coco"])
def test_boxes_below_the_last_hit_change_nothing(rule):
    recall, precision = torch.tensor([0.25, 0.5, 0.5]), torch.tensor([1.0, 1.0, 2 / 3])
    more = torch.cat([recall, torch.full((50,), 0.5)]), torch.cat([precision, 2 / torch.arange(4, 54)])
    assert_close(average_precision(*more, rule=rule), average_precision(recall, precision, rule=rule))


def test_threshold_on_scores_never_helps_but_by_the_linear_rule():
    hits, scores = torch.tensor([True, False, False, True]), torch.tensor([0.9, 0.8, 0.7, 0.6])
    whole, cut = precision_recall(hits, scores, 2), precision_recall(hits[:1], scores[:1], 2)
    for rule in ("voc07", "voc10", "coco"):
        assert average_precision(*cut, rule=rule) < average_precision(*whole, rule=rule)
    assert average_precision(*cut, rule="linear") > average_precision(*whole, rule="linear")


def test_mean_of_image_values_is_not_the_pooled_value():
    rows = {"box": [0, 0, 10, 10], "far": [50, 50, 60, 60]}
    first = tensors([[*rows["box"], 1, 0.9]], [[*rows["box"], 1, False]])
    second = tensors([[*rows["far"], 1, 0.95], [*rows["box"], 1, 0.1]], [[*rows["box"], 1, False]])
    alone = [mean_average_precision([p], [t], rule="voc10") for p, t in (first, second)]
    pooled = mean_average_precision(*zip(first, second, strict=True), rule="voc10")
    assert_close(alone, [1.0, 0.5])
    assert_close(pooled, 2 / 3)


# Matching


def hits_of_yolov5(ious, threshold):
    """Return the hits by pairs sorted by IoU: the first pair of each box, then the first box of each object."""
    pairs = [(iou, d, g) for d, row in enumerate(ious) for g, iou in enumerate(row) if iou >= threshold]
    objects, boxes = {}, {}
    for _, d, g in sorted(pairs, reverse=True):
        objects.setdefault(d, g)
    for d, g in sorted(objects.items()):  # boxes come in descending order of their scores
        boxes.setdefault(g, d)
    return {*boxes.values()}


def test_matching_of_yolov5_equals_that_of_voc():
    random, like_coco = torch.Generator().manual_seed(0), []
    for _ in range(200):
        detections, objects = torch.randint(1, 7, (2,), generator=random).tolist()
        ious, scores = torch.rand(detections, objects, generator=random), torch.linspace(1, 0, detections)
        expected = hits_of_yolov5(ious.tolist(), 0.5)
        found = [match(ious, scores, second_choice=second_choice) for second_choice in (False, True)]
        found = [set((matched >= 0).nonzero().flatten().tolist()) for matched in found]
        assert found[0] == expected
        like_coco.append(found[1] == expected)
    assert not all(like_coco)


def test_ap_jumps_where_two_overlaps_of_one_box_change_places():
    wanted = [[0, 0, 10, 10, 1, False], [4, 0, 14, 10, 1, False]]
    for x, area in {1.99: 51 / 101, 2.01: 1.0}.items():
        prediction, target = tensors([[x, 0, x + 10, 10, 1, 0.9], [0, 0, 10, 10, 1, 0.8]], wanted)
        ious = box_iou(prediction["boxes"], target["boxes"])
        assert (ious[0] > 0.6).all()
        assert_close(mean_average_precision([prediction], [target], iou_thresholds=[0.5]), area)


def test_each_object_is_found_once():
    ious, scores = torch.full((3, 1), 0.9), torch.tensor([0.1, 0.9, 0.5])
    for second_choice in (False, True):
        assert match(ious, scores, second_choice=second_choice).tolist() == [-1, 0, -1]


def test_order_of_scores_decides_not_the_overlap():
    ious, scores = torch.tensor([[0.6], [0.9]]), torch.tensor([0.8, 0.7])
    assert match(ious, scores).tolist() == [0, -1]


def test_of_equal_scores_the_first_chooses_first():
    assert match(torch.tensor([[0.6], [0.9]]), torch.ones(2)).tolist() == [0, -1]


def test_crowd_is_found_any_number_of_times_but_only_if_nothing_else_is_near():
    ious, scores = torch.tensor([[0.9, 0.5], [0.9, 0.8], [0.9, 0.0]]), torch.tensor([0.9, 0.8, 0.7])
    crowd = torch.tensor([True, False])
    assert match(ious, scores, ignore=crowd, crowd=crowd).tolist() == [1, 0, 0]
    assert match(ious, scores, ignore=crowd).tolist() == [1, 0, -1]


def test_threshold_itself_is_enough_and_one_forgives_rounding():
    assert match(torch.tensor([[0.5]]), torch.ones(1), threshold=0.5).tolist() == [0]
    assert match(torch.tensor([[0.5]]), torch.ones(1), threshold=0.5 + 1e-6).tolist() == [-1]
    assert match(torch.tensor([[1 - 1e-11]], dtype=torch.float64), torch.ones(1), threshold=1.0).tolist() == [0]


@pytest.mark.parametrize("second_choice", [True, False])
def test_no_boxes_and_no_objects_match_nothing(second_choice):
    assert match(torch.empty(0, 3), torch.empty(0), second_choice=second_choice).tolist() == []
    assert match(torch.empty(2, 0), torch.ones(2), second_choice=second_choice).tolist() == [-1, -1]


def test_inputs_are_not_changed():
    predictions, targets = random_images(1)
    before = [{key: value.clone() for key, value in image.items()} for image in predictions + targets]
    mean_average_precision(predictions, targets)
    for image, copy in zip(predictions + targets, before, strict=True):
        assert all(torch.equal(image[key], copy[key]) for key in copy)


# Overlaps


def some_boxes(n, seed, dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    corner, size = (torch.rand(n, 2, generator=random, dtype=torch.float64) for _ in range(2))
    return torch.cat([corner, corner + size], 1).to(dtype)


def test_iou_equals_exact_fractions():
    boxes, objects = some_boxes(7, 0), some_boxes(5, 1)
    expected = [[float(exact_iou(a, b)) for b in objects.tolist()] for a in boxes.tolist()]
    assert_close(box_iou(boxes, objects), torch.tensor(expected, dtype=torch.float64))


@pytest.fixture(scope="module")
def torchvision_iou():
    from torchvision.ops import box_iou as theirs

    return theirs


@pytest.mark.torchvision
@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (0, 3), (4, 0)], ids=str)
def test_iou_and_gradients_equal_torchvision(torchvision_iou, shape):
    results = []
    for function in (box_iou, torchvision_iou):
        boxes, objects = some_boxes(shape[0], 0).requires_grad_(), some_boxes(shape[1], 1).requires_grad_()
        ious = function(boxes, objects)
        weight = torch.linspace(1, 2, ious.numel()).reshape(ious.shape)
        results.append([ious, *torch.autograd.grad((ious * weight).sum(), [boxes, objects])])
    assert_close(*results)


def test_crowd_divides_by_the_box_as_pycocotools_does():
    from pycocotools import mask

    boxes, objects, crowd = some_boxes(6, 2), some_boxes(4, 3), torch.tensor([True, False, True, False])

    def xywh(corners):
        return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).numpy()

    theirs = mask.iou(xywh(boxes), xywh(objects), crowd.int().tolist())
    assert_close(box_iou(boxes, objects, crowd=crowd), torch.from_numpy(theirs))


@pytest.mark.parametrize("crowd", [None, torch.tensor([True, False, False])], ids=["plain", "crowd"])
def test_iou_passes_gradcheck(crowd):
    boxes, objects = some_boxes(4, 4).requires_grad_(), some_boxes(3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: box_iou(a, b, crowd=crowd), (boxes, objects))


def test_boxes_without_area_overlap_nothing_and_have_a_finite_gradient():
    point = torch.tensor([[1.0, 1.0, 1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    ious = box_iou(point, torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 2.0, 2.0]]))
    ious.sum().backward()
    assert ious.tolist() == [[0, 0]]
    assert point.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_low_precision_boxes_are_taken_as_they_are(dtype):
    boxes, objects = 512 * some_boxes(5, 6).to(dtype), 512 * some_boxes(4, 7).to(dtype)
    ious = box_iou(boxes, objects)
    assert ious.dtype == torch.float64
    assert_close(ious, box_iou(boxes.double(), objects.double()), rtol=0, atol=0)


@EACH_RULE
def test_types_and_strides_of_the_input_do_not_matter(rule):
    predictions, targets = random_images(2)
    targets = as_rule(targets, rule)
    expected = mean_average_precision(predictions, targets, rule=rule)
    strided = [{key: value.repeat_interleave(2, 0)[::2] for key, value in image.items()} for image in predictions]
    assert not strided[0]["boxes"].is_contiguous()
    assert mean_average_precision(strided, targets, rule=rule) == expected
    half = [{**image, "boxes": image["boxes"].half(), "scores": image["scores"].float()} for image in predictions]
    assert mean_average_precision(half, targets, rule=rule) == expected


@EACH_RULE
def test_nothing_to_find_is_nan_and_classes_without_objects_are_left_out(rule):
    prediction, target = tensors([[0, 0, 10, 10, 1, 0.9]], [])
    assert math.isnan(mean_average_precision([prediction], [target], rule=rule))
    assert math.isnan(mean_average_precision([], [], rule=rule))
    _, target = tensors([], [[0, 0, 10, 10, 2, False], [0, 0, 10, 10, 3, True]])
    ours = average_precisions([prediction], as_rule([target], rule), rule=rule)
    assert {label: values.mean().item() for label, values in ours.items()} == {2: 0}


# Wrong input


GOOD = tensors([[0, 0, 10, 10, 1, 0.9]], [[0, 0, 10, 10, 1, False]])
WRONG = {
    "rule": ({}, {}, {"rule": "coco17"}, "one of voc07, voc10, coco, linear, but is 'coco17'"),
    "boxes as x, y, w, h": ({"boxes": torch.tensor([[50.0, 50.0, 10.0, 10.0]])}, {}, {}, r"is this \(x, y, w, h\)"),
    "objects as x, y, w, h": ({}, {"boxes": torch.tensor([[50.0, 50.0, 10.0, 10.0]])}, {}, r"is this \(x, y, w, h\)"),
    "NaN in a box": ({"boxes": torch.tensor([[0.0, 0.0, math.nan, 1.0]])}, {}, {}, "boxes must be"),
    "NaN in a score": ({"scores": torch.tensor([math.nan])}, {}, {}, "score is NaN"),
    "too few scores": ({"scores": torch.empty(0)}, {}, {}, "1 boxes, but scores is"),
    "too many labels": ({}, {"labels": torch.ones(2).long()}, {}, "1 boxes, but labels is"),
    "too many flags": ({}, {"iscrowd": torch.ones(2).long()}, {}, "1 boxes, but iscrowd is"),
    "five columns": ({"boxes": torch.ones(1, 5)}, {}, {}, r"boxes must be \(N, 4\)"),
    "crowd in VOC": ({}, {"iscrowd": torch.tensor([True])}, {"rule": "voc07"}, "no objects that are iscrowd"),
    "difficult in COCO": ({}, {"difficult": torch.tensor([True])}, {}, "no objects that are difficult"),
    "area range in VOC": ({}, {}, {"rule": "voc10", "area_range": (0, 1024)}, "no area ranges"),
    "no thresholds": ({}, {}, {"iou_thresholds": []}, "nothing to count"),
    "no detections": ({}, {}, {"max_detections": 0}, "nothing to count"),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize(("prediction", "target", "options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_images_are_an_error(prediction, target, options, message):
    with pytest.raises(ValueError, match=message):
        mean_average_precision([{**GOOD[0], **prediction}], [{**GOOD[1], **target}], **options)


def test_different_numbers_of_images_are_an_error():
    with pytest.raises(ValueError, match="2 predictions, but 1 targets"):
        mean_average_precision([GOOD[0]] * 2, [GOOD[1]])


@pytest.mark.wrong_input
def test_wrong_curves_are_an_error():
    with pytest.raises(ValueError, match="recall decreases"):
        average_precision(torch.tensor([0.5, 0.2]), torch.ones(2))
    with pytest.raises(ValueError, match="2 values of recall, but 1"):
        average_precision(torch.ones(2), torch.ones(1))
    with pytest.raises(ValueError, match="one of voc07"):
        average_precision(torch.ones(2), torch.ones(2), rule="VOC07")
    with pytest.raises(ValueError, match="2 hits, but 1 scores"):
        precision_recall(torch.ones(2).bool(), torch.ones(1), 2)
    with pytest.raises(ValueError, match="2 hits of 1 objects"):
        precision_recall(torch.ones(2).bool(), torch.ones(2), 1)
    with pytest.raises(ValueError, match="0 hits of 0 objects"):
        precision_recall(torch.zeros(2).bool(), torch.ones(2), 0)
    with pytest.raises(ValueError, match="2 × 1 IoUs, but 3 scores"):
        match(torch.ones(2, 1), torch.ones(3))
    with pytest.raises(ValueError, match="2 flags ignore"):
        match(torch.ones(2, 1), torch.ones(2), ignore=torch.ones(2).bool())


BOX, ONE = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([1])
TARGET, PREDICTION = {"boxes": BOX, "labels": ONE}, {"boxes": BOX, "labels": ONE, "scores": torch.ones(1)}


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    "boxes",
    [
        [[0.0, 0.0, 1.0, 1.0]],
        None,
        BOX.numpy(),
        BOX[0],
        BOX[:, :3],
        BOX > 1,
        BOX + 0j,
        torch.tensor([[0.0, 0.0, torch.inf, 1.0]]),
        torch.tensor([[-torch.inf, 0.0, torch.inf, 1.0]]),
        torch.tensor([[0.0, 0.0, 1e200, 1e200]], dtype=torch.float64),
    ],
    ids=["list", "nothing", "array", "vector", "three", "bool", "complex", "infinite", "all", "area overflows"],
)
def test_boxes_without_a_finite_area_are_an_error(boxes):
    for call in (
        lambda: box_iou(boxes, BOX),
        lambda: box_iou(BOX, boxes),
        lambda: mean_average_precision([{**PREDICTION, "boxes": boxes}], [TARGET]),
        lambda: mean_average_precision([PREDICTION], [{**TARGET, "boxes": boxes}]),
    ):
        with pytest.raises(ValueError, match=r"boxes must be"):
            call()


@pytest.mark.wrong_input
@pytest.mark.parametrize("wrong", [[1], None, torch.tensor([0.5]), torch.tensor([torch.nan]), ONE * 1j], ids=str)
@pytest.mark.parametrize("key", ["labels", "iscrowd"])
def test_labels_and_flags_that_are_no_integers_are_an_error(key, wrong):
    with pytest.raises(ValueError, match=f"{key} must"):
        mean_average_precision([PREDICTION], [{**TARGET, key: wrong}])
    if key == "labels":
        with pytest.raises(ValueError, match="labels must"):
            mean_average_precision([{**PREDICTION, key: wrong}], [TARGET])


@pytest.mark.wrong_input
def test_whole_labels_may_be_floats():
    for kind in (torch.float16, torch.float64, torch.uint8):
        assert mean_average_precision([PREDICTION], [{**TARGET, "labels": ONE.to(kind)}]) == 1.0


@pytest.mark.wrong_input
@pytest.mark.parametrize("key", ["boxes", "labels", "scores"])
def test_a_missing_key_is_named(key):
    without = {name: value for name, value in PREDICTION.items() if name != key}
    with pytest.raises(ValueError, match=f"no {key}"):
        mean_average_precision([without], [TARGET])
    if key != "scores":
        with pytest.raises(ValueError, match=f"no {key}"):
            mean_average_precision([PREDICTION], [{name: TARGET[name] for name in TARGET if name != key}])


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    "options",
    [
        {"iou_thresholds": 0.5},
        {"iou_thresholds": [torch.nan]},
        {"iou_thresholds": ["0.5"]},
        {"iou_thresholds": [-1.0]},
        {"max_detections": torch.nan},
        {"max_detections": "3"},
        {"area_range": 5},
        {"area_range": (1, 0)},
        {"area_range": (torch.nan, 1)},
        {"rule": None},
        {"rule": []},
    ],
    ids=str,
)
def test_options_that_count_nothing_are_an_error(options):
    with pytest.raises(ValueError, match=r"must be|nothing to count"):
        mean_average_precision([PREDICTION], [TARGET], **options)


@pytest.mark.wrong_input
@pytest.mark.parametrize("ious", [[[0.5]], torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([[[0.5]]])], ids=str)
def test_ious_that_are_no_matrix_are_an_error(ious):
    with pytest.raises(ValueError, match=r"ious must be a tensor \(D, G\)"):
        match(ious, torch.tensor([0.5]))


@pytest.mark.wrong_input
@pytest.mark.parametrize("values", [[0.5], 0.5, torch.tensor(0.5), torch.tensor([[0.5]]), torch.tensor([torch.nan])])
def test_curves_that_are_no_vectors_of_numbers_are_an_error(values):
    right = torch.tensor([0.5])
    for call in (
        lambda: average_precision(values, right),
        lambda: average_precision(right, values),
        lambda: precision_recall(torch.tensor([True]), values, 1),
        lambda: match(torch.tensor([[0.5]]), values),
    ):
        with pytest.raises(ValueError, match=r"tensor of one dimension|one is NaN"):
            call()
    for value in (-0.5, 1.5, torch.inf):
        with pytest.raises(ValueError, match="between 0 and 1"):
            average_precision(torch.tensor([value]), right)
    for threshold in (-1.0, torch.nan):
        with pytest.raises(ValueError, match="threshold must not be negative"):
            match(torch.tensor([[0.5]]), right, threshold=threshold)
