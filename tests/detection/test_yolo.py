"""YOLO against torchvision, loops transcribed from the papers and from Darknet, and published counts."""

import itertools
import math

import pytest
import torch
from tensors import normal, with_gradients
from torch.testing import assert_close

from zhixing.detection.yolo import (
    assign,
    decode,
    flatten,
    iou_kmeans,
    nms,
    shape_iou,
    yolo_v1_loss,
    yolo_v3_loss,
)


@pytest.fixture(scope="module")
def vision():
    from torchvision import ops

    return ops


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_boxes(count, *, size=64.0, seed=0, dtype=torch.float64):
    """Boxes with sides from 2 to 32 whose centres lie in the image."""
    numbers = torch.rand(count, 4, generator=generator(seed), dtype=torch.float64)
    center, half = numbers[:, :2] * size, 1 + 15 * numbers[:, 2:]
    return torch.cat([center - half, center + half], 1).to(dtype)


ANCHORS = torch.tensor([[8.0, 16.0], [20.0, 9.0], [25.0, 27.0]], dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def iou(a, b):
    """The IoU of two lists (x1, y1, x2, y2)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


# decode and flatten


def test_decode_equals_loops_from_the_definition():
    raw = normal(2, 3 * 7, 2, 3)
    boxes, objectness, classes = decode(raw, ANCHORS, stride=16)
    position = itertools.product(range(3), range(2), range(3))
    for n, (a, row, column) in enumerate(position):
        for b in range(2):
            tx, ty, tw, th, o, *k = raw[b, 7 * a : 7 * a + 7, row, column].tolist()
            x, y = 16 * (sigmoid(tx) + column), 16 * (sigmoid(ty) + row)
            w, h = ANCHORS[a, 0].item() * math.exp(tw), ANCHORS[a, 1].item() * math.exp(th)
            expected = torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dtype=torch.float64)
            assert_close(boxes[b, n], expected)
            assert objectness[b, n] == o
            assert classes[b, n].tolist() == k
            assert flatten(raw, ANCHORS)[b, n].tolist() == [tx, ty, tw, th, o, *k]


def test_decode_passes_gradcheck():
    raw = normal(1, 2 * 6, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: decode(r, ANCHORS[:2], stride=8), raw)


def test_decode_takes_any_layout_and_no_image():
    raw = normal(2, 24, 4, 4)
    assert_close(decode(raw.to(memory_format=torch.channels_last), ANCHORS, stride=8), decode(raw, ANCHORS, stride=8))
    boxes, objectness, classes = decode(raw[:0], ANCHORS, stride=8)
    assert (boxes.shape, objectness.shape, classes.shape) == ((0, 48, 4), (0, 48), (0, 48, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_decode_in_half_precision_is_as_exact_as_the_type(dtype):
    raw = normal(1, 24, 4, 4, dtype=torch.float32)
    boxes, _, _ = decode(raw.to(dtype), ANCHORS.float(), stride=8)
    assert boxes.dtype == dtype
    exact, _, _ = decode(raw.to(dtype).float(), ANCHORS.float(), stride=8)
    assert (boxes - exact).abs().max() <= 16 * torch.finfo(dtype).eps * exact.abs().max()


def test_counts_of_the_papers():
    """v2: 13² · 5 boxes of 125 numbers a cell; v3: 10,647 boxes, 255 numbers a cell."""
    assert flatten(torch.zeros(1, 125, 13, 13), torch.ones(5, 2)).shape == (1, 845, 25)
    layers = [flatten(torch.zeros(1, 255, side, side), torch.ones(3, 2)) for side in (13, 26, 52)]
    assert sum(layer.shape[1] for layer in layers) == 10647
    assert {layer.shape[2] for layer in layers} == {85}


# assign and shape_iou


def test_assign_and_decode_are_inverse():
    boxes = random_boxes(30)
    index, wanted = assign(boxes, ANCHORS, (8, 8), stride=8)
    for box, position, (x, y, tw, th) in zip(boxes, index.tolist(), wanted.tolist(), strict=True):
        raw = torch.zeros(1, 3, 5, 8, 8, dtype=torch.float64)
        a, row, column = position // 64, position // 8 % 8, position % 8
        raw[0, a, :4, row, column] = torch.tensor([math.log(x / (1 - x)), math.log(y / (1 - y)), tw, th])
        decoded, _, _ = decode(raw.flatten(1, 2), ANCHORS, stride=8)
        assert_close(decoded[0, position], box)


def test_assign_takes_the_cell_of_the_centre_and_the_anchor_with_the_largest_iou():
    boxes = random_boxes(40, seed=1)
    index, wanted = assign(boxes, ANCHORS, (4, 4), stride=16)
    for box, position, target in zip(boxes.tolist(), index.tolist(), wanted.tolist(), strict=True):
        x, y, w, h = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
        ious = [iou([0, 0, w, h], [0, 0, *anchor]) for anchor in ANCHORS.tolist()]
        a = ious.index(max(ious))
        assert position == a * 16 + int(y // 16) * 4 + int(x // 16)
        expected = [x / 16 % 1, y / 16 % 1, math.log(w / ANCHORS[a, 0]), math.log(h / ANCHORS[a, 1])]
        assert_close(target, expected)


def test_assign_on_a_grid_that_is_no_square():
    box = torch.tensor([[30.0, 1.0, 34.0, 3.0]])
    index, _ = assign(box, torch.tensor([[4.0, 2.0], [100.0, 100.0]]), (2, 5), stride=8)
    assert index.tolist() == [4]
    box = torch.tensor([[1.0, 8.0, 101.0, 108.0]])
    index, _ = assign(box, torch.tensor([[4.0, 2.0], [100.0, 100.0]]), (10, 20), stride=8)
    assert index.tolist() == [200 + 7 * 20 + 6]


def test_centre_on_the_last_edge_belongs_to_the_last_cell():
    box = torch.tensor([[60.0, 60.0, 68.0, 68.0]])
    index, wanted = assign(box, torch.tensor([[8.0, 8.0]]), (8, 8), stride=8)
    assert index.tolist() == [63]
    assert wanted.tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_objects_in_one_cell_with_one_anchor_share_a_position():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 11.0, 11.0], [0.0, 0.0, 10.0, 2.0]])
    index, _ = assign(boxes, torch.tensor([[10.0, 10.0], [10.0, 3.0]]), (2, 2), stride=16)
    assert index.tolist() == [0, 0, 4]


def test_assign_without_objects():
    index, wanted = assign(torch.empty(0, 4), ANCHORS.float(), (8, 8), stride=8)
    assert index.shape == (0,)
    assert wanted.shape == (0, 4)


@pytest.mark.torchvision
def test_shape_iou_equals_torchvision_for_boxes_with_one_corner(vision):
    sizes = 1 + 20 * torch.rand(50, 2, generator=generator())
    corner = torch.zeros(50, 2)
    theirs = vision.box_iou(torch.cat([corner, sizes], 1), torch.cat([corner[:3], ANCHORS.float()], 1))
    assert_close(shape_iou(sizes, ANCHORS.float()), theirs)


def test_anchor_in_cells_instead_of_pixels_has_an_iou_of_1_in_1024():
    v2_anchors = torch.tensor([[0.738768, 0.874946], [12.6868, 11.8741]], dtype=torch.float64)
    assert_close(shape_iou(32 * v2_anchors, v2_anchors).diag(), torch.full((2,), 1 / 1024, dtype=torch.float64))


# iou_kmeans


def loop_kmeans(sizes, start, center):
    anchors, nearest = [list(row) for row in start], None
    while True:
        previous = nearest
        nearest = []
        for w, h in sizes:
            ious = [iou([0, 0, w, h], [0, 0, *anchor]) for anchor in anchors]
            nearest.append(ious.index(max(ious)))
        if nearest == previous:
            return sorted(anchors, key=math.prod)
        for i in range(len(anchors)):
            members = [size for size, n in zip(sizes, nearest, strict=True) if n == i]
            for axis in range(2 * bool(members)):
                values = sorted(member[axis] for member in members)
                middle = values[(len(values) - 1) // 2]
                anchors[i][axis] = middle if center == "median" else sum(values) / len(values)


@pytest.mark.parametrize("center", ["median", "mean"])
def test_kmeans_equals_loops(center):
    sizes = (3 + normal(60, 2)).exp()
    start = sizes[torch.randperm(60, generator=generator(3))[:4]].tolist()
    expected = torch.tensor(loop_kmeans(sizes.tolist(), start, center), dtype=torch.float64)
    assert_close(iou_kmeans(sizes, 4, generator=generator(3), center=center), expected)


def test_kmeans_finds_clusters_that_are_far_apart():
    centers = torch.tensor([[10.0, 12.0], [20.0, 80.0], [150.0, 60.0]])
    sizes = (centers.repeat(20, 1) + torch.rand(60, 2, generator=generator())).double()
    found = max(
        (iou_kmeans(sizes, 3, generator=generator(seed)) for seed in range(5)),
        key=lambda anchors: shape_iou(sizes, anchors).amax(1).mean().item(),
    )
    assert (found - centers[[0, 1, 2]]).abs().max() < 1.0
    assert shape_iou(sizes, found).amax(1).mean() > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_iou_distance_serves_small_boxes_better_than_euclidean_distance(seed):
    from sklearn.cluster import KMeans

    area, shape = normal(2, 400, seed=seed)
    sizes = (4.3 + torch.stack([0.8 * area + 0.35 * shape, 0.8 * area - 0.35 * shape], 1)).exp()
    small = sizes.prod(1) < sizes.prod(1).quantile(0.25)
    euclidean = torch.from_numpy(KMeans(5, n_init=3, random_state=seed).fit(sizes.numpy()).cluster_centers_)
    random = generator(seed)
    tries = [iou_kmeans(sizes, 5, generator=random) for _ in range(3)]
    best = max(shape_iou(sizes[small], anchors).amax(1).mean().item() for anchors in tries)
    assert best > shape_iou(sizes[small], euclidean).amax(1).mean() + 0.03


def test_kmeans_with_as_many_anchors_as_boxes_returns_the_boxes():
    sizes = torch.tensor([[4.0, 5.0], [1.0, 2.0], [9.0, 3.0]])
    assert iou_kmeans(sizes, 3, generator=generator()).tolist() == [[1.0, 2.0], [4.0, 5.0], [9.0, 3.0]]


def test_cluster_without_boxes_stays_and_the_input_is_left_alone():
    sizes = torch.tensor([[4.0, 4.0]]).repeat(5, 1)
    before = sizes.clone()
    assert iou_kmeans(sizes, 3, generator=generator()).tolist() == [[4.0, 4.0]] * 3
    assert_close(sizes, before)


# The loss of version 1


def v1_case(*, boxes=2, classes=3, side=4, images=2, seed=0):
    pred = normal(images, side, side, 5 * boxes + classes, seed=seed) / 2
    random = torch.rand(images, side, side, 4, generator=generator(seed), dtype=torch.float64)
    target = torch.zeros(images, side, side, 5 + classes, dtype=torch.float64)
    for n, (b, i, j) in enumerate(itertools.product(range(images), range(side), range(side))):
        if n % 3 == 0:
            target[b, i, j, :4], target[b, i, j, 4], target[b, i, j, 5 + n % classes] = random[b, i, j], 1, 1
    return pred, target


def v1_loop(pred, target, *, coord=5.0, noobj=0.5):
    """Equation 3, term by term."""
    images, side, _, channels = target.shape
    boxes = (pred.shape[3] - (channels - 5)) // 5
    loss = 0
    for b, i, j in itertools.product(range(images), range(side), range(side)):
        cell, truth = pred[b, i, j], target[b, i, j]
        x, y, w, h, here = truth[:5].tolist()
        true = [x / side - w / 2, y / side - h / 2, x / side + w / 2, y / side + h / 2]
        ious = []
        for n in range(boxes):
            px, py, rw, rh = cell[5 * n : 5 * n + 4].tolist()
            ious.append(
                iou([px / side - rw**2 / 2, py / side - rh**2 / 2, px / side + rw**2 / 2, py / side + rh**2 / 2], true)
            )

        def distance(n, cell=cell, x=x, y=y, w=w, h=h):
            px, py, rw, rh = cell[5 * n : 5 * n + 4].tolist()
            return math.dist([px / side, py / side, rw**2, rh**2], [x / side, y / side, w, h])

        # As in detection_layer.c of Darknet.
        best = ious.index(max(ious)) if max(ious) > 0 else min(range(boxes), key=distance)
        for n in range(boxes):
            px, py, rw, rh, confidence = cell[5 * n : 5 * n + 5]
            if here and n == best:
                loss += coord * ((px - x) ** 2 + (py - y) ** 2)
                loss += coord * ((rw - math.sqrt(w)) ** 2 + (rh - math.sqrt(h)) ** 2)
                loss += (confidence - ious[n]) ** 2
            else:
                loss += noobj * confidence**2
        if here:
            loss += ((cell[5 * boxes :] - truth[5:]) ** 2).sum()
    return loss


@pytest.mark.parametrize("boxes", [1, 2, 3])
def test_v1_loss_equals_loops(boxes):
    pred, target = v1_case(boxes=boxes)
    ours = with_gradients(lambda p: yolo_v1_loss(p, target), pred)
    assert_close(ours, with_gradients(lambda p: v1_loop(p, target), pred))
    weights = {"coord": 2, "noobj": 0.1}
    assert_close(yolo_v1_loss(pred, target, **weights), v1_loop(pred, target, **weights))


def test_v1_box_nearest_to_an_object_that_none_overlaps_is_responsible():
    target = torch.zeros(1, 1, 1, 5)
    target[..., :5] = torch.tensor([0.9, 0.9, 0.04, 0.04, 1.0])
    pred = torch.zeros(1, 1, 1, 10)
    pred[..., 5:7] = 0.7
    pred.requires_grad_()
    (gradient,) = torch.autograd.grad(yolo_v1_loss(pred, target), pred)
    assert (gradient[..., :5] == 0).all()
    assert (gradient[..., 5:9] < 0).all()


def test_v1_confidence_aims_at_the_iou_of_the_predicted_box():
    target = torch.zeros(1, 7, 7, 25)
    target[0, 3, 3, [0, 1, 2, 3, 4, 9]] = torch.tensor([0.5, 0.5, 0.25, 0.25, 1.0, 1.0])
    pred = torch.zeros(1, 7, 7, 30)
    # Twice as wide as the object: IoU 1/2.
    pred[0, 3, 3, [0, 1, 2, 3, 4, 14]] = torch.tensor([0.5, 0.5, 0.5**0.5, 0.5, 0.5, 1.0])
    error = 5 * (0.5**0.5 - 0.5) ** 2
    assert_close(yolo_v1_loss(pred, target).item(), error, rtol=1e-5, atol=1e-6)
    pred[0, 3, 3, 4] = 1.0
    assert_close(yolo_v1_loss(pred, target).item(), error + 0.25, rtol=1e-5, atol=1e-6)


def test_v1_loss_is_finite_where_the_output_for_a_root_is_negative():
    pred, target = v1_case()
    pred[..., [2, 3, 7, 8]] = -pred[..., [2, 3, 7, 8]].abs()
    (loss,), (gradient,) = with_gradients(lambda p: yolo_v1_loss(p, target), pred)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_v1_loss_of_no_image_and_of_no_object():
    pred, target = v1_case()
    assert yolo_v1_loss(pred[:0], target[:0]) == 0
    confidence = pred[..., [4, 9]]
    assert_close(yolo_v1_loss(pred, 0 * target), 0.5 * confidence.square().sum())


def test_v1_output_of_the_paper_has_1470_numbers():
    assert 7 * 7 * (2 * 5 + 20) == 1470
    assert yolo_v1_loss(torch.zeros(1, 7, 7, 30), torch.zeros(1, 7, 7, 25)) == 0


# The loss of version 3


def v3_case(*, seed=0, objects=(3, 0, 4), classes=3, side=4):
    targets = []
    for n, count in enumerate(objects):
        boxes = random_boxes(count, size=16.0 * side, seed=seed + n)
        labels = torch.randint(classes, (count,), generator=generator(seed + n))
        targets.append({"boxes": boxes, "labels": labels})
    return normal(len(objects), 3 * (5 + classes), side, side, seed=seed) / 2, targets


def darknet_gradient(raw, targets, anchors, stride, ignore):
    """The deltas of yolo_layer.c, with the sign of a gradient; x and y of its boxes are shares of the image."""
    images, channels, rows, columns = raw.shape
    per = channels // len(anchors)
    classes = per - 5
    gradient = torch.zeros_like(raw)
    for b in range(images):
        truths = list(zip(targets[b]["boxes"].tolist(), targets[b]["labels"].tolist(), strict=True))
        for a, j, i in itertools.product(range(len(anchors)), range(rows), range(columns)):
            tx, ty, tw, th, o = raw[b, a * per : a * per + 5, j, i].tolist()
            x, y = (sigmoid(tx) + i) * stride, (sigmoid(ty) + j) * stride
            w, h = anchors[a, 0].item() * math.exp(tw), anchors[a, 1].item() * math.exp(th)
            pred = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
            best = max((iou(pred, box) for box, _ in truths), default=0)
            gradient[b, a * per + 4, j, i] = 0 if best > ignore else sigmoid(o)
        for (x1, y1, x2, y2), label in truths:
            w, h = x2 - x1, y2 - y1
            x, y = (x1 + x2) / 2 / stride, (y1 + y2) / 2 / stride
            i, j = int(x), int(y)
            ious = [iou([0, 0, w, h], [0, 0, *anchor]) for anchor in anchors.tolist()]
            a = ious.index(max(ious))
            cell = raw[b, a * per : (a + 1) * per, j, i].tolist()
            delta = gradient[b, a * per : (a + 1) * per, j, i]
            scale = 2 - w * h / (rows * columns * stride**2)
            delta[0] = scale * (sigmoid(cell[0]) - (x - i))
            delta[1] = scale * (sigmoid(cell[1]) - (y - j))
            delta[2] = scale * (cell[2] - math.log(w / anchors[a, 0]))
            delta[3] = scale * (cell[3] - math.log(h / anchors[a, 1]))
            delta[4] = sigmoid(cell[4]) - 1
            if delta[5 + label]:
                delta[5 + label] = sigmoid(cell[5 + label]) - 1
                # Darknet returns here if the class has a delta already: a second object in this position.
                continue
            for k in range(classes):
                delta[5 + k] = sigmoid(cell[5 + k]) - (k == label)
    return gradient


@pytest.mark.parametrize("ignore", [0.2, 0.7])
@pytest.mark.parametrize("seed", range(3))
def test_gradient_of_v3_loss_is_darknets(seed, ignore):
    raw, targets = v3_case(seed=10 * seed)
    raw.requires_grad_()
    (ours,) = torch.autograd.grad(yolo_v3_loss(raw, targets, ANCHORS, stride=16, ignore=ignore), raw)
    assert_close(ours, darknet_gradient(raw.detach(), targets, ANCHORS, 16, ignore))


def test_of_two_objects_in_a_position_the_last_gives_the_box_and_both_give_their_class():
    anchors = torch.tensor([[10.0, 10.0]], dtype=torch.float64)
    boxes = torch.tensor([[1.0, 1.0, 11.0, 11.0], [3.0, 2.0, 11.0, 12.0]], dtype=torch.float64)
    target = {"boxes": boxes, "labels": torch.tensor([0, 1])}
    raw = normal(1, 8, 2, 2).requires_grad_()
    loss = yolo_v3_loss(raw, [target], anchors, stride=16)
    (gradient,) = torch.autograd.grad(loss, raw)
    last = {"boxes": boxes[1:], "labels": torch.tensor([1])}
    (alone,) = torch.autograd.grad(yolo_v3_loss(raw, [last], anchors, stride=16), raw)
    assert_close(gradient[0, :4, 0, 0], alone[0, :4, 0, 0])
    expected = raw[0, 5:, 0, 0].sigmoid() - torch.tensor([1, 1, 0])
    assert_close(gradient[0, 5:, 0, 0], expected.detach())


def test_v3_loss_passes_gradcheck():
    raw, targets = v3_case(side=2, objects=(2,))
    assert torch.autograd.gradcheck(lambda r: yolo_v3_loss(r, targets, ANCHORS, stride=32), raw.requires_grad_())


def test_prediction_that_fits_has_no_box_loss_and_its_neighbours_are_ignored():
    anchors = torch.tensor([[16.0, 16.0], [17.0, 17.0]], dtype=torch.float64)
    target = {
        "boxes": torch.tensor([[4.0, 4.0, 20.0, 20.0]], dtype=torch.float64),
        "labels": torch.tensor([0]),
    }
    raw = torch.zeros(1, 12, 3, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(yolo_v3_loss(raw, [target], anchors, stride=8), raw)
    assert (gradient[0, :4] == 0).all()
    assert gradient[0, 4, 1, 1] == -0.5
    assert gradient[0, 10, 1, 1] == 0  # the other anchor of the cell: IoU 0.89
    assert gradient[0, 10, 0, 0] == 0.5


def test_v3_loss_of_no_image_and_of_no_object():
    raw, targets = v3_case(objects=(0, 0))
    expected = torch.nn.functional.softplus(flatten(raw, ANCHORS)[..., 4]).sum()
    assert_close(yolo_v3_loss(raw, targets, ANCHORS, stride=16), expected)
    assert yolo_v3_loss(raw[:0], [], ANCHORS, stride=16) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_in_half_precision_are_those_of_the_rounded_output_in_float32(dtype):
    """In bfloat16, 410.2 and 410.9 are the same number; in float16, the sums overflow."""
    boxes = torch.tensor([[410.2, 300.1, 410.9, 301.3], [50.3, 60.7, 100.9, 200.1]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 0])}
    raw = (30 * normal(1, 21, 26, 26, dtype=torch.float32)).to(dtype)
    ours = yolo_v3_loss(raw, [target], ANCHORS.float(), stride=16)
    assert_close(ours, yolo_v3_loss(raw.float(), [target], ANCHORS.float(), stride=16))
    pred, target = v1_case()
    pred, target = (40 * pred).to(dtype), target.to(dtype)
    assert_close(yolo_v1_loss(pred, target), yolo_v1_loss(pred.float(), target.float()))


def test_v3_loss_in_float32_is_near_float64():
    raw, targets = v3_case()
    single = [{**t, "boxes": t["boxes"].float()} for t in targets]
    ours = yolo_v3_loss(raw.float(), single, ANCHORS.float(), stride=16)
    assert_close(ours.double(), yolo_v3_loss(raw, targets, ANCHORS, stride=16), rtol=1e-5, atol=1e-5)


# nms


@pytest.mark.torchvision
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(3))
def test_nms_equals_torchvision(vision, seed, threshold):
    boxes = random_boxes(150, seed=seed)
    scores = torch.rand(150, generator=generator(seed))
    labels = torch.randint(4, (150,), generator=generator(seed))
    theirs = vision.batched_nms(boxes, scores.double(), labels, threshold)
    assert nms(boxes, scores, labels, iou=threshold).tolist() == theirs.tolist()
    theirs = vision.nms(boxes, scores.double(), threshold)
    assert nms(boxes, scores, iou=threshold).tolist() == theirs.tolist()


def test_nms_equals_the_greedy_loop_with_equal_scores():
    boxes, scores = random_boxes(60), torch.randint(4, (60,), generator=generator()) / 4
    kept = []
    for i in sorted(range(60), key=lambda n: -scores[n].item()):
        if all(iou(boxes[i].tolist(), boxes[j].tolist()) <= 0.4 for j in kept):
            kept.append(i)
    assert nms(boxes, scores, iou=0.4).tolist() == kept


def test_box_that_is_dropped_drops_no_other():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 0.0, 13.0, 10.0], [6.0, 0.0, 16.0, 10.0]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), iou=0.5).tolist() == [0, 2]


def test_nms_keeps_a_box_exactly_at_the_threshold_and_boxes_without_area():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0], [0.0, 0.0, 4.0, 1.0]])
    assert nms(boxes, torch.tensor([0.9, 0.8]), iou=0.5).tolist() == [0, 1]
    boxes = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    assert nms(boxes, torch.tensor([0.5, 0.9])).tolist() == [1, 0]


@pytest.mark.parametrize("count", [0, 1])
def test_nms_of_few_boxes(count):
    assert nms(random_boxes(count), torch.ones(count)).tolist() == list(range(count))


# Wrong input


WRONG = {
    "channels": (lambda: decode(torch.zeros(1, 20, 4, 4), ANCHORS, stride=8), "channels do not fit"),
    "too few channels": (lambda: decode(torch.zeros(1, 12, 4, 4), ANCHORS, stride=8), "channels do not fit"),
    "no grid": (lambda: decode(torch.zeros(1, 24, 4), ANCHORS, stride=8), "raw must be"),
    "stride 0": (lambda: decode(torch.zeros(1, 24, 4, 4), ANCHORS, stride=0), "stride must be positive"),
    "NaN stride": (lambda: decode(torch.zeros(1, 24, 4, 4), ANCHORS, stride=math.nan), "stride must be positive"),
    "anchor of 0": (lambda: decode(torch.zeros(1, 24, 4, 4), 0 * ANCHORS, stride=8), "anchors must be positive"),
    "flat anchors": (lambda: flatten(torch.zeros(1, 24, 4, 4), torch.ones(6)), "anchors must be"),
    "xywh": (
        lambda: assign(torch.tensor([[20.0, 20.0, 8.0, 8.0]]), ANCHORS, (8, 8), stride=8),
        "x1 < x2",
    ),
    "outside": (
        lambda: assign(torch.tensor([[60.0, 0.0, 80.0, 8.0]]), ANCHORS, (8, 8), stride=8),
        "outside",
    ),
    "NaN box": (lambda: assign(torch.full((1, 4), math.nan), ANCHORS, (8, 8), stride=8), "x1 < x2"),
    "grid": (lambda: assign(torch.ones(0, 4), ANCHORS, (8, 0), stride=8), "grid must be a positive"),
    "integers": (lambda: shape_iou(torch.ones(3, 2, dtype=torch.int64), ANCHORS), "floating-point"),
    "size 0": (lambda: shape_iou(torch.zeros(3, 2), ANCHORS), "sizes must be positive"),
    "too many anchors": (lambda: iou_kmeans(ANCHORS, 4, generator=generator()), "too few for 4"),
    "k 0": (lambda: iou_kmeans(ANCHORS, 0, generator=generator()), "k must be a positive"),
    "center": (lambda: iou_kmeans(ANCHORS, 1, generator=generator(), center="mode"), "'median' or 'mean'"),
    "v1 channels": (lambda: yolo_v1_loss(torch.zeros(1, 7, 7, 29), torch.zeros(1, 7, 7, 25)), "do not fit"),
    "v1 no box": (lambda: yolo_v1_loss(torch.zeros(1, 7, 7, 20), torch.zeros(1, 7, 7, 25)), "holds no box"),
    "v1 grid": (lambda: yolo_v1_loss(torch.zeros(1, 7, 6, 30), torch.zeros(1, 7, 6, 25)), "do not fit"),
    "v1 cells": (lambda: yolo_v1_loss(torch.zeros(1, 7, 7, 30), torch.zeros(1, 6, 6, 25)), "do not fit"),
    "v1 negative": (lambda: yolo_v1_loss(torch.zeros(1, 1, 1, 5), -torch.ones(1, 1, 1, 5)), "negative"),
    "v3 images": (lambda: yolo_v3_loss(torch.zeros(2, 24, 4, 4), [], ANCHORS, stride=8), "2 images"),
    "v3 label": (
        lambda: yolo_v3_loss(
            torch.zeros(1, 24, 4, 4),
            [{"boxes": torch.tensor([[0.0, 0.0, 8.0, 8.0]]), "labels": torch.tensor([3])}],
            ANCHORS,
            stride=8,
        ),
        "labels from 0 to 2",
    ),
    "v3 labels missing": (
        lambda: yolo_v3_loss(
            torch.zeros(1, 24, 4, 4),
            [{"boxes": torch.ones(2, 4), "labels": torch.tensor([1])}],
            ANCHORS,
            stride=8,
        ),
        "2 boxes must have labels",
    ),
    "v3 ignore": (
        lambda: yolo_v3_loss(torch.zeros(0, 24, 4, 4), [], ANCHORS, stride=8, ignore=70),
        "ignore must be between",
    ),
    "nms scores": (lambda: nms(torch.zeros(2, 4), torch.zeros(3)), "2 boxes, but scores"),
    "nms labels": (lambda: nms(torch.zeros(2, 4), torch.zeros(2), torch.zeros(1)), "2 boxes, but labels"),
    "nms NaN": (lambda: nms(torch.zeros(1, 4), torch.tensor([math.nan])), "NaN"),
    "nms percent": (lambda: nms(torch.zeros(1, 4), torch.zeros(1), iou=50), "iou must be between"),
    "nms no boxes": (lambda: nms(torch.zeros(2, 5), torch.zeros(2)), "boxes must be"),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
