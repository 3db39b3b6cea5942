"""Points instead of anchors against torchvision's FCOS, loops from the definitions, and boxes that are moved."""

import math
from types import SimpleNamespace

import pytest
import torch
from tensors import assert_same_both_ways, leaf, normal
from torch.testing import assert_close

from zhixing.detection.anchor_free import (
    center_focal_loss,
    centerness,
    corner_radii,
    decode_centers,
    draw_centers,
    fcos_targets,
    gaussian_radius,
    grid_points,
)
from zhixing.metrics.mean_average_precision import box_iou

HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])


def random_boxes(count, size=256, seed=0, least=8):
    random = torch.Generator().manual_seed(seed)
    sides = least + (size / 2 - least) * torch.rand(count, 2, generator=random, dtype=torch.float64)
    corner = torch.rand(count, 2, generator=random, dtype=torch.float64) * (size - sides)
    return torch.cat([corner, corner + sides], 1)


# Radii


SIZES = torch.tensor([[10.0, 10.0], [3.0, 40.0], [7.0, 5.0], [1.0, 1.0], [0.2, 900.0]], dtype=torch.float64)
MOVES = torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [-1, -1, 1, 1]], dtype=torch.float64)


@pytest.mark.parametrize("overlap", [0.1, 0.3, 0.7, 0.99])
def test_boxes_moved_by_each_radius_have_the_wanted_iou(overlap):
    for height, width in SIZES:
        box = torch.stack([height * 0, width * 0, width, height])
        radii = corner_radii(height, width, min_overlap=overlap)
        assert_close(box_iou(box + radii[:, None] * MOVES, box[None])[:, 0], torch.full_like(radii, overlap))


@pytest.mark.parametrize("overlap", [0.1, 0.3, 0.7, 0.99])
def test_least_radius_is_that_of_corners_that_move_inwards(overlap):
    radii = corner_radii(*SIZES.T, min_overlap=overlap)
    assert_close(gaussian_radius(*SIZES.T, min_overlap=overlap), radii[:, 1])
    assert (radii >= radii[:, 1:2]).all()


@pytest.mark.parametrize("overlap", [0.3, 0.7])
def test_all_moves_of_corners_up_to_the_radius_keep_the_iou(overlap):
    random = torch.Generator().manual_seed(0)
    for height, width in SIZES[:4]:
        box = torch.stack([height * 0, width * 0, width, height])
        radius = gaussian_radius(height, width, min_overlap=overlap)
        moves = radius * (2 * torch.rand(200, 4, generator=random, dtype=torch.float64) - 1)
        assert (box_iou(box + moves, box[None]) >= overlap - 1e-9).all()


def test_squares_of_13_cells_are_the_first_with_a_radius_of_one_at_overlap_seven_tenths():
    sides = torch.arange(1, 30, dtype=torch.float64)
    radii = gaussian_radius(sides, sides, min_overlap=0.7)
    assert_close(radii, sides * (1 - math.sqrt(0.7)) / 2)
    assert int(sides[radii >= 1][0]) == 13


def test_formula_that_was_copied_is_three_times_too_large():
    # https://github.com/princeton-vl/CornerNet/issues/37: 2.73 for a square of 10, whose IoU is 0.2.
    t, h, w = 0.7, 10.0, 10.0
    a, b, c = 4 * t, -2 * t * (h + w), (t - 1) * h * w
    copied = (b + math.sqrt(b**2 - 4 * a * c)) / 2
    assert round(copied, 2) == 2.73
    assert round((10 - 2 * copied) ** 2 / 100, 1) == 0.2
    assert_close(torch.tensor(copied / (4 * t)), corner_radii(*torch.tensor([h, w]), min_overlap=t)[2])


def test_whole_overlap_leaves_no_radius_and_single_numbers_work():
    assert corner_radii(torch.tensor(3.0), torch.tensor(4.0), min_overlap=1).tolist() == [0, 0, 0]
    assert gaussian_radius(torch.empty(0), torch.empty(0)).shape == (0,)
    assert gaussian_radius(normal(2, 3).abs() + 1, normal(2, 3, seed=1).abs() + 1).shape == (2, 3)


def test_radii_pass_gradcheck_and_scale_with_the_box():
    h, w = SIZES[:4].T.clone().requires_grad_()
    assert torch.autograd.gradcheck(corner_radii, (h, w))
    assert_close(corner_radii(3 * h, 3 * w), 3 * corner_radii(h, w))


@HALF
def test_radii_of_large_boxes_do_not_overflow_in_half_precision(dtype):
    h, w = torch.tensor([[512.0, 1000.0, 7.0], [512.0, 300.0, 5.0]], dtype=torch.float64)
    ours = corner_radii(h.to(dtype), w.to(dtype))
    assert ours.dtype == dtype
    assert_close(ours.double(), corner_radii(h.to(dtype).double(), w.to(dtype).double()), rtol=0.02, atol=0)


# Targets of centres


def drawn_by_loops(boxes, labels, size, classes, stride, overlap):
    """Each cell by the definition."""
    height, width = size
    heat = torch.zeros(classes, height, width, dtype=torch.float64)
    for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True):
        h, w = (y2 - y1) / stride, (x2 - x1) / stride
        shrink = (h + w - math.sqrt((h + w) ** 2 - 4 * (1 - overlap) * h * w)) / 4
        radius = int(shrink)
        sigma = (2 * radius + 1) / 6
        column, row = int((x1 + x2) / 2 / stride), int((y1 + y2) / 2 / stride)
        for i in range(height):
            for j in range(width):
                if max(abs(i - row), abs(j - column)) <= radius:
                    value = math.exp(-((i - row) ** 2 + (j - column) ** 2) / (2 * sigma**2))
                    heat[label, i, j] = max(heat[label, i, j], value)
    return heat


@pytest.mark.parametrize(("stride", "overlap"), [(4, 0.3), (4, 0.7), (8, 0.1), (3, 0.3)])
def test_heat_map_equals_loops(stride, overlap):
    boxes, labels = random_boxes(9, size=96), torch.arange(9) % 2
    size = (96 // stride, 96 // stride + 1)
    heat, _, _ = draw_centers(boxes, labels, size, classes=3, stride=stride, min_overlap=overlap)
    assert_close(heat, drawn_by_loops(boxes, labels, size, 3, stride, overlap))
    assert (heat[2] == 0).all()


def test_offset_and_size_stand_in_the_cells_of_the_centres_only():
    first = torch.tensor([[0.0, 0.0, 6.0, 5.0]], dtype=torch.float64)  # its centre is in the first cell
    boxes, labels = torch.cat([random_boxes(5, size=96, seed=2), first]), torch.arange(6)
    heat, offset, sides = draw_centers(boxes, labels, (24, 24), classes=6)
    cells = []
    for box, label in zip(boxes, labels, strict=True):
        (row, column) = (heat[label] == 1).nonzero()[0].tolist()
        center = (box[:2] + box[2:]) / 8
        assert_close(offset[:, row, column], center - torch.tensor([column, row]))
        assert_close(sides[:, row, column], (box[2:] - box[:2]) / 4)
        cells.append((row, column))
    assert len(set(cells)) == 6
    assert cells[-1] == (0, 0)
    assert (sides[0] > 0).sum() == (sides[1] > 0).sum() == 6
    assert ((offset >= 0) & (offset < 1)).all()


def test_of_two_boxes_with_one_centre_the_smaller_keeps_its_size():
    boxes = torch.tensor([[8.0, 8.0, 24.0, 24.0], [0.0, 0.0, 32.0, 32.0]])
    for order in ([0, 1], [1, 0]):
        heat, _, sides = draw_centers(boxes[order], torch.tensor([0, 0]), (8, 8), classes=1)
        assert sides[:, 4, 4].tolist() == [4, 4]
        assert (heat == 1).sum() == 1


def test_no_boxes_give_empty_maps():
    heat, offset, sides = draw_centers(torch.empty(0, 4), torch.empty(0).long(), (3, 5), classes=2)
    assert heat.shape == (2, 3, 5)
    assert offset.shape == sides.shape == (2, 3, 5)
    assert heat.abs().sum() + offset.abs().sum() + sides.abs().sum() == 0


def test_boxes_without_contiguous_memory_and_other_types_of_labels():
    boxes, labels = random_boxes(4, size=64), torch.tensor([0, 1, 1, 0])
    expected = draw_centers(boxes, labels, (16, 16), classes=2)
    strided = boxes.repeat_interleave(2, 1)[:, ::2]
    assert not strided.is_contiguous()
    for i, maps in enumerate(draw_centers(strided, labels.int(), (16, 16), classes=2)):
        assert_close(maps, expected[i])


@HALF
def test_centres_have_value_one_in_half_precision(dtype):
    boxes, labels = random_boxes(6, size=250, seed=5, least=60).to(dtype), torch.arange(6)
    heat, offset, sides = draw_centers(boxes, labels, (64, 64), classes=6)
    assert heat.dtype == offset.dtype == sides.dtype == dtype
    assert ((heat == 1).sum((1, 2)) == 1).all()
    exact = draw_centers(boxes.double(), labels, (64, 64), classes=6)
    for ours, expected in zip((heat, offset, sides), exact, strict=True):
        assert_close(ours.double(), expected, rtol=0.01, atol=0.005)


def test_input_is_not_changed():
    boxes, labels = random_boxes(3, size=64), torch.arange(3)
    before = boxes.clone()
    draw_centers(boxes, labels, (16, 16), classes=3)
    fcos_targets(grid_points((16, 16), stride=4).double(), boxes, torch.zeros(256, 2).double() + 64)
    assert torch.equal(boxes, before)


# The loss


def loss_by_loops(p, target, alpha=2, beta=4):
    """As in the paper, cell by cell, from probabilities."""
    total, centers = 0, 0
    for q, y in zip(p.flatten(), target.flatten().tolist(), strict=True):
        if y == 1:
            total = total - (1 - q) ** alpha * q.log()
            centers += 1
        else:
            total = total - (1 - y) ** beta * q**alpha * (1 - q).log()
    return total / max(centers, 1)


@pytest.mark.parametrize(("alpha", "beta"), [(2, 4), (1.5, 3), (2, 1)])
def test_loss_and_gradient_equal_loops(alpha, beta):
    target = normal(2, 3, 5).sigmoid()
    target[0, 0, 1] = target[1, 2, 4] = 1.0

    def ours(logits):
        return center_focal_loss(logits, target, alpha=alpha, beta=beta)

    def loops(logits):
        return loss_by_loops(logits.sigmoid(), target, alpha, beta)

    assert_same_both_ways(ours, loops, normal(2, 3, 5, seed=1))


@pytest.mark.torchvision
def test_without_values_between_it_is_torchvisions_focal_loss():
    from torchvision.ops import sigmoid_focal_loss

    target = (normal(3, 7) > 0.5).double()

    def theirs(logits):
        return sigmoid_focal_loss(logits, target, alpha=-1, gamma=2, reduction="sum") / target.sum()

    assert_same_both_ways(lambda logits: center_focal_loss(logits, target), theirs, normal(3, 7, seed=1))


def test_without_centres_the_loss_is_the_sum():
    target = normal(4, 4).sigmoid()
    logits = normal(4, 4, seed=1)
    assert_close(center_focal_loss(logits, target), loss_by_loops(logits.sigmoid(), target))
    assert center_focal_loss(torch.empty(0, 3), torch.empty(0, 3)) == 0


def test_value_just_below_one_is_no_centre():
    logits = torch.full((9,), -5.0)
    target = torch.zeros(9)
    target[4] = 1.0
    missed = center_focal_loss(logits, target)
    target[4] = 0.99
    assert center_focal_loss(logits, target) < missed / 1000


def test_loss_passes_gradcheck():
    target = normal(3, 4).sigmoid()
    target[1, 2] = 1.0
    assert torch.autograd.gradcheck(lambda logits: center_focal_loss(logits, target), leaf(normal(3, 4, seed=1)))


def test_wrong_logits_far_from_zero_keep_a_finite_gradient():
    logits, target = torch.tensor([-200.0, 200.0], requires_grad=True), torch.tensor([1.0, 0.0])
    loss = center_focal_loss(logits, target)
    loss.backward()
    assert_close(loss.detach(), torch.tensor(400.0))
    assert_close(logits.grad, torch.tensor([-1.0, 1.0]))


@HALF
def test_loss_of_many_cells_does_not_overflow_in_half_precision(dtype):
    target = torch.zeros(1_000_000, dtype=dtype)
    target[:100] = 1
    loss = center_focal_loss(torch.zeros_like(target), target)
    assert loss.dtype == dtype
    assert_close(loss.double(), torch.tensor(math.log(2) / 4 * 1e4).double(), rtol=0.02, atol=0)


# Boxes from maps


def decoded_by_loops(heat, offset, size, stride, k):
    """The boxes of one image, as (score, label, box)."""
    found = []
    for c, channel in enumerate(heat.tolist()):
        for i, row in enumerate(channel):
            for j, score in enumerate(row):
                around = [line[max(j - 1, 0) : j + 2] for line in channel[max(i - 1, 0) : i + 2]]
                if score == max(map(max, around)):
                    x, y = j + offset[0, i, j].item(), i + offset[1, i, j].item()
                    w, h = size[0, i, j].item(), size[1, i, j].item()
                    box = [stride * edge for edge in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)]
                    found.append((score, c, box))
    return sorted(found, reverse=True)[:k]


@pytest.mark.parametrize(("height", "width"), [(9, 7), (1, 1), (2, 13)])
def test_boxes_equal_loops(height, width):
    heat = normal(2, 3, height, width).sigmoid()
    offset, size = normal(2, 2, height, width, seed=1), normal(2, 2, height, width, seed=2).exp()
    boxes, labels, scores = decode_centers(heat, offset, size, stride=8, k=3)
    assert boxes.shape == (2, 3, 4)
    for i in range(2):
        expected = decoded_by_loops(heat[i], offset[i], size[i], 8, 3)
        assert_close(scores[i, : len(expected)].tolist(), [score for score, _, _ in expected])
        assert labels[i, : len(expected)].tolist() == [label for _, label, _ in expected]
        assert_close(boxes[i, : len(expected)].tolist(), [box for _, _, box in expected])


@pytest.mark.parametrize("stride", [1, 4, 5])
def test_decoding_inverts_drawing(stride):
    boxes, labels = random_boxes(6, size=120, seed=7), torch.arange(6)
    maps = draw_centers(boxes, labels, (120 // stride + 1,) * 2, classes=6, stride=stride)
    found, classes, scores = decode_centers(*(x[None] for x in maps), stride=stride, k=6)
    order = classes[0].argsort()
    assert scores.tolist() == [[1.0] * 6]
    assert classes[0, order].tolist() == labels.tolist()
    assert_close(found[0, order], boxes)


def test_images_of_a_large_batch_are_decoded_one_by_one():
    maps = normal(300, 1, 2, 3).sigmoid(), normal(300, 2, 2, 3, seed=1), normal(300, 2, 2, 3, seed=2)
    found = decode_centers(*maps, k=2)
    for i in (0, 150, 299):
        for ours, alone in zip(found, decode_centers(*(x[i : i + 1] for x in maps), k=2), strict=True):
            assert_close(ours[i : i + 1], alone)


def test_gradients_reach_all_maps():
    maps = normal(1, 2, 4, 4), normal(1, 2, 4, 4, seed=1), normal(1, 2, 4, 4, seed=2)
    heat, offset, size = (leaf(x) for x in maps)
    boxes, _, scores = decode_centers(heat.sigmoid(), offset, size, k=2)
    for output, inputs in ((boxes[..., 2:], (offset, size)), (scores, (heat,))):
        assert all((gradient != 0).any() for gradient in torch.autograd.grad(output.sum(), inputs, retain_graph=True))


def test_equal_neighbours_are_two_peaks_and_a_full_list_ends_with_zeros():
    heat = torch.zeros(1, 1, 4, 4)
    heat[0, 0, 1, 1] = heat[0, 0, 1, 2] = 0.8
    heat[0, 0, 2, 2] = 0.5
    flat = torch.zeros(1, 2, 4, 4)
    _, _, scores = decode_centers(heat, flat, flat, k=100)
    assert scores.shape == (1, 16)
    assert_close(scores[0, :4], torch.tensor([0.8, 0.8, 0.0, 0.0]))


def test_peaks_two_cells_apart_are_two_boxes_and_classes_do_not_compete():
    heat, flat = torch.zeros(1, 2, 5, 5), torch.ones(1, 2, 5, 5)
    heat[0, 0, 2, 1], heat[0, 0, 2, 3], heat[0, 1, 2, 2] = 0.9, 0.7, 0.5
    _, labels, scores = decode_centers(heat, flat, flat, k=4)
    assert_close(scores, torch.tensor([[0.9, 0.7, 0.5, 0.0]]))
    assert labels[0, :3].tolist() == [0, 0, 1]


def test_no_images_and_strided_maps():
    maps = torch.rand(0, 3, 4, 4), torch.rand(0, 2, 4, 4), torch.rand(0, 2, 4, 4)
    boxes, labels, scores = decode_centers(*maps, k=5)
    assert (boxes.shape, labels.shape, scores.shape) == ((0, 5, 4), (0, 5), (0, 5))
    maps = normal(2, 3, 4, 5).sigmoid(), normal(2, 2, 4, 5, seed=1), normal(2, 2, 4, 5, seed=2)
    strided = [x.to(memory_format=torch.channels_last) for x in maps]
    assert not strided[0].is_contiguous()
    for ours, expected in zip(decode_centers(*strided, k=4), decode_centers(*maps, k=4), strict=True):
        assert_close(ours, expected)


@HALF
def test_boxes_in_half_precision(dtype):
    # Whole numbers and quarters, which both types hold exactly.
    heat = torch.zeros(1, 1, 8, 8)
    heat[0, 0, 5, 2] = 0.5
    offset, size = torch.full((1, 2, 8, 8), 0.25), torch.full((1, 2, 8, 8), 3.0)
    boxes, _, _ = decode_centers(*(x.to(dtype) for x in (heat, offset, size)), k=1)
    assert boxes.dtype == dtype
    assert boxes[0, 0].tolist() == [3.0, 15.0, 15.0, 27.0]


# FCOS


def targets_by_loops(points, boxes, ranges):
    """The box and distances of each point."""
    index, ltrb = [], []
    for (x, y), (low, high) in zip(points.tolist(), ranges.tolist(), strict=True):
        best, found, distances = math.inf, -1, [0.0] * 4
        for n, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            sides = [x - x1, y - y1, x2 - x, y2 - y]
            area = (x2 - x1) * (y2 - y1)
            if min(sides) > 0 and low <= max(sides) <= high and area < best:
                best, found, distances = area, n, sides
        index.append(found)
        ltrb.append(distances)
    return torch.tensor(index), torch.tensor(ltrb, dtype=points.dtype).reshape(-1, 4)


def pyramid(size, strides=(8, 16, 32, 64, 128)):
    points = [grid_points((size // s, size // s), stride=s).double() for s in strides]
    ends = [0.0, *(8.0 * s for s in strides[:-1]), math.inf]
    ranges = [torch.tensor([ends[i], ends[i + 1]]).expand(len(level), 2) for i, level in enumerate(points)]
    return torch.cat(points), torch.cat(ranges).double(), [len(level) for level in points]


@pytest.mark.parametrize("seed", range(3))
def test_targets_equal_loops(seed):
    points, ranges, _ = pyramid(256)
    boxes = random_boxes(12, seed=seed)
    index, ltrb = fcos_targets(points, boxes, ranges)
    expected, distances = targets_by_loops(points, boxes, ranges)
    assert torch.equal(index, expected)
    assert_close(ltrb, distances)
    assert (index < 0).any()
    assert len(index.unique()) > 6


@pytest.mark.torchvision
@pytest.mark.parametrize("seed", range(3))
def test_targets_equal_torchvision_without_sampling_near_centres(seed):
    from torchvision.models.detection import FCOS

    points, ranges, counts = pyramid(256)
    boxes = random_boxes(12, seed=seed)
    half = torch.repeat_interleave(torch.tensor([4.0, 8, 16, 32, 64]).double(), torch.tensor(counts))[:, None]
    anchors = torch.cat([points - half, points + half], 1)
    caught = []
    head = SimpleNamespace(compute_loss=lambda targets, outputs, anchors, matched: caught.extend(matched))
    model = SimpleNamespace(center_sampling_radius=math.inf, head=head)
    FCOS.compute_loss(model, [{"boxes": boxes, "labels": torch.ones(12).long()}], {}, [anchors], counts)
    assert torch.equal(fcos_targets(points, boxes, ranges)[0], caught[0])


@pytest.mark.torchvision
def test_distances_equal_torchvisions_coder():
    from torchvision.models.detection._utils import BoxLinearCoder

    points, boxes = grid_points((5, 7), stride=8).double(), random_boxes(3, size=56)
    index, ltrb = fcos_targets(points, boxes, torch.tensor([0.0, 64.0]).double().expand(35, 2))
    anchors = torch.cat([points - 4, points + 4], 1)[index >= 0]
    coded = BoxLinearCoder(normalize_by_size=True).encode(anchors, boxes[index[index >= 0]])
    assert_close(8 * coded, ltrb[index >= 0])


def test_ends_of_a_range_are_included_and_borders_of_a_box_are_not():
    box = torch.tensor([[0.0, 0.0, 80.0, 20.0]])
    points = torch.tensor([[16.0, 10.0], [16.0, 20.0], [0.0, 10.0], [15.0, 10.0]])
    for low, high, expected in ((0, 64, [0, -1, -1, -1]), (64, 128, [0, -1, -1, 0]), (0, 63.9, [-1] * 4)):
        ranges = torch.tensor([float(low), float(high)]).expand(4, 2)
        assert fcos_targets(points, box, ranges)[0].tolist() == expected


def test_smallest_box_wins_and_of_equal_ones_the_first():
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 11.0, 11.0]])
    whole = torch.tensor([[0.0, 99.0]])
    assert fcos_targets(torch.tensor([[5.0, 5.0]]), boxes, whole)[0].item() == 1
    assert fcos_targets(torch.tensor([[5.0, 5.0]]), boxes[[0, 2, 1]], whole)[0].item() == 1
    assert fcos_targets(torch.tensor([[15.0, 5.0]]), boxes, whole)[0].item() == 0


def test_areas_that_differ_by_one_pixel_are_told_apart():
    boxes = torch.tensor([[0.0, 0.0, 1000.0, 1000.0], [0.0, 0.0, 1000.0, 999.999]])
    assert fcos_targets(torch.tensor([[9.0, 9.0]]), boxes, torch.tensor([[0.0, torch.inf]]))[0].item() == 1


@HALF
def test_large_boxes_keep_their_points_in_half_precision(dtype):
    # 512 × 512 and 640 × 448 overflow in float16; the points and corners are exact in both types.
    boxes = torch.tensor([[0.0, 0.0, 512.0, 512.0], [0.0, 0.0, 640.0, 448.0], [32.0, 32.0, 64.0, 64.0]])
    points = torch.tensor([[48.0, 40.0], [256.0, 256.0], [256.0, 480.0], [576.0, 64.0], [576.0, 576.0]])
    ranges = torch.tensor([0.0, torch.inf]).expand(5, 2)
    index, ltrb = fcos_targets(points.to(dtype), boxes.to(dtype), ranges.to(dtype))
    assert index.tolist() == [2, 0, 0, 1, -1]
    assert ltrb.dtype == dtype
    assert_close(ltrb.float(), fcos_targets(points, boxes, ranges)[1])


@HALF
def test_targets_of_rounded_boxes_equal_those_in_double_precision(dtype):
    points, ranges, _ = pyramid(256)
    boxes = random_boxes(12, seed=4).to(dtype)
    index, ltrb = fcos_targets(points.to(dtype), boxes, ranges.to(dtype))
    expected, distances = fcos_targets(points, boxes.double(), ranges)
    assert torch.equal(index, expected)
    assert_close(ltrb.double(), distances, rtol=0.01, atol=0)
    assert centerness(ltrb).dtype == dtype


def test_images_without_boxes_and_levels_without_points():
    index, ltrb = fcos_targets(torch.rand(3, 2), torch.empty(0, 4), torch.rand(3, 2))
    assert index.tolist() == [-1, -1, -1]
    assert index.dtype == torch.int64
    assert ltrb.tolist() == [[0.0] * 4] * 3
    index, ltrb = fcos_targets(torch.empty(0, 2), torch.rand(2, 4).cumsum(1), torch.empty(0, 2))
    assert (index.shape, ltrb.shape) == ((0,), (0, 4))


def test_distances_have_gradients():
    points, boxes = leaf(grid_points((4, 4), stride=8).double()), leaf(random_boxes(3, size=32))
    ranges = torch.tensor([0.0, 64.0]).double().expand(16, 2)
    index, _ = fcos_targets(points, boxes, ranges)
    assert torch.autograd.gradcheck(lambda p, b: fcos_targets(p, b, ranges)[1], (points, boxes))
    assert (index >= 0).sum() > 3


@pytest.mark.parametrize(("size", "stride"), [((2, 3), 8), ((1, 1), 1), ((3, 2), 5)])
def test_points_lie_in_the_middles_of_cells(size, stride):
    expected = [[stride * (j + 0.5), stride * (i + 0.5)] for i in range(size[0]) for j in range(size[1])]
    assert grid_points(size, stride=stride).tolist() == expected


def test_pyramid_of_800_by_1024_has_the_points_of_five_levels():
    sizes = [(math.ceil(800 / s), math.ceil(1024 / s)) for s in (8, 16, 32, 64, 128)]
    assert sum(len(grid_points(size, stride=1)) for size in sizes) == 100 * 128 + 50 * 64 + 25 * 32 + 13 * 16 + 7 * 8


# Centre-ness


def test_centerness_equals_the_definition():
    ltrb = normal(50, 4).exp()
    expected = [
        math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
        for left, top, right, bottom in ltrb.tolist()
    ]
    assert_close(centerness(ltrb), torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradcheck(centerness, leaf(ltrb[:5]))


@pytest.mark.parametrize(("width", "height"), [(1.0, 1.0), (300.0, 20.0)])
def test_mean_over_any_box_is_the_square_of_half_pi_less_one(width, height):
    u = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
    y, x = torch.meshgrid(height * u, width * u, indexing="ij")
    mean = centerness(torch.stack([x, y, width - x, height - y], -1)).mean()
    assert_close(mean.item(), (math.pi / 2 - 1) ** 2, rtol=0, atol=1e-3)


def test_centerness_is_zero_on_the_border_and_outside():
    ltrb = torch.tensor([[0.0, 5.0, 9.0, 5.0], [-1.0, 5.0, 9.0, 5.0], [0.0, 0.0, 0.0, 0.0], [-2.0, -2.0, -2.0, -2.0]])
    assert centerness(ltrb).tolist() == [0.0] * 4
    assert centerness(torch.empty(0, 4)).shape == (0,)
    assert centerness(ltrb.reshape(2, 2, 4)[:, ::2]).shape == (2, 1)


# Wrong input


@pytest.mark.wrong_input
@pytest.mark.parametrize("overlap", [0, -0.3, 1.5, math.nan, "0.7", None], ids=str)
def test_overlaps_outside_their_range_are_an_error(overlap):
    with pytest.raises(ValueError, match="min_overlap must be"):
        gaussian_radius(torch.ones(1), torch.ones(1), min_overlap=overlap)


@pytest.mark.wrong_input
def test_sides_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="heights are"):
        gaussian_radius(torch.ones(2), torch.ones(3))
    for wrong in (3.0, torch.ones(2).long(), None):
        with pytest.raises(ValueError, match=r"height must be a floating-point"):
            gaussian_radius(wrong, torch.ones(2))
        with pytest.raises(ValueError, match=r"width must be a floating-point"):
            gaussian_radius(torch.ones(2), wrong)


BOX, LABEL = torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([0])
WRONG_BOXES = {
    "x, y, w, h": torch.tensor([[50.0, 50.0, 10.0, 10.0]]),
    "no area": torch.tensor([[5.0, 5.0, 5.0, 9.0]]),
    "NaN": torch.tensor([[0.0, 0.0, math.nan, 8.0]]),
    "infinite": torch.tensor([[0.0, 0.0, math.inf, 8.0]]),
    "integers": torch.tensor([[0, 0, 8, 8]]),
    "vector": BOX[0],
    "five columns": torch.ones(1, 5),
    "list": [[0.0, 0.0, 8.0, 8.0]],
}


@pytest.mark.wrong_input
@pytest.mark.parametrize("boxes", WRONG_BOXES.values(), ids=WRONG_BOXES)
def test_wrong_boxes_are_an_error(boxes):
    with pytest.raises(ValueError, match="boxes must be"):
        draw_centers(boxes, LABEL, (4, 4), classes=1)
    with pytest.raises(ValueError, match="boxes must be"):
        fcos_targets(torch.ones(1, 2), boxes, torch.ones(1, 2))


@pytest.mark.wrong_input
def test_wrong_targets_are_an_error():
    for boxes in (BOX + 12, BOX - 8):
        with pytest.raises(ValueError, match="centres must be in 4 × 4 cells"):
            draw_centers(boxes, LABEL, (4, 4), classes=1)
    for labels in (LABEL + 1, LABEL - 1):
        with pytest.raises(ValueError, match="labels must be from 0 to 0"):
            draw_centers(BOX, labels, (4, 4), classes=1)
    for labels in (LABEL.float(), [0], None):
        with pytest.raises(ValueError, match="labels must be a tensor of integers"):
            draw_centers(BOX, labels, (4, 4), classes=1)
    with pytest.raises(ValueError, match="there are 1 boxes"):
        draw_centers(BOX, torch.tensor([0, 0]), (4, 4), classes=1)
    for options in ({"classes": 0}, {"classes": 1.5}, {"classes": 1, "stride": 0}, {"classes": 1, "stride": 2.5}):
        with pytest.raises(ValueError, match="must be a positive integer"):
            draw_centers(BOX, LABEL, (4, 4), **options)
    with pytest.raises(ValueError, match="size must be two"):
        draw_centers(BOX, LABEL, 4, classes=1)


@pytest.mark.wrong_input
def test_wrong_arguments_of_the_loss_are_an_error():
    with pytest.raises(ValueError, match="logits are"):
        center_focal_loss(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match="target must be a floating-point"):
        center_focal_loss(torch.ones(2), torch.ones(2).long())
    with pytest.raises(ValueError, match="logits must be a floating-point"):
        center_focal_loss([1.0], torch.ones(1))
    for options in ({"alpha": 0}, {"beta": -1}, {"alpha": math.nan}):
        with pytest.raises(ValueError, match="must be positive"):
            center_focal_loss(torch.ones(2), torch.ones(2), **options)


@pytest.mark.wrong_input
def test_maps_that_do_not_fit_are_an_error():
    heat, pair = torch.rand(1, 3, 4, 4), torch.rand(1, 2, 4, 4)
    with pytest.raises(ValueError, match="heat must be"):
        decode_centers(heat[0], pair, pair)
    with pytest.raises(ValueError, match="offset must be"):
        decode_centers(heat, heat, pair)
    with pytest.raises(ValueError, match="size must be"):
        decode_centers(heat, pair, pair[:, :, :3])
    with pytest.raises(ValueError, match="B is 1 in heat, but 0 in offset"):
        decode_centers(heat, pair[:0], pair)
    for wrong in (-0.001, 1.001, math.nan):
        with pytest.raises(ValueError, match="heat must be from 0 to 1"):
            decode_centers(torch.full_like(heat, wrong), pair, pair)
    for options in ({"k": 0}, {"stride": 0}, {"stride": 0.5}):
        with pytest.raises(ValueError, match="must be a positive integer"):
            decode_centers(heat, pair, pair, **options)


@pytest.mark.wrong_input
def test_wrong_points_are_an_error():
    with pytest.raises(ValueError, match="3 points, but 2 ranges"):
        fcos_targets(torch.ones(3, 2), BOX, torch.ones(2, 2))
    for wrong in (torch.ones(3), torch.ones(3, 2).long(), torch.ones(3, 3), [[1.0, 1.0]]):
        with pytest.raises(ValueError, match="points must be"):
            fcos_targets(wrong, BOX, torch.ones(3, 2))
        with pytest.raises(ValueError, match="ranges must be"):
            fcos_targets(torch.ones(3, 2), BOX, wrong)
    for wrong in (torch.ones(3, 3), torch.ones(4).long(), [1.0] * 4, torch.tensor(1.0)):
        with pytest.raises(ValueError, match="ltrb must be"):
            centerness(wrong)
    with pytest.raises(ValueError, match="stride must be a positive integer"):
        grid_points((2, 2), stride=0)
    with pytest.raises(ValueError, match="size must be two"):
        grid_points(4, stride=2)
