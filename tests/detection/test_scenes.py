"""Test the drawn scenes: boxes fit their shapes, and the options do what they say."""

import math

import pytest
import torch
from torch.testing import assert_close

from zhixing.detection.scenes import CLASSES, draw_scenes, inside


def scenes(count=40, seed=0, **options):
    return draw_scenes(count, generator=torch.Generator().manual_seed(seed), **options)


def test_shapes_and_types():
    images, targets = scenes(3, size=48)
    assert images.shape == (3, 3, 48, 48)
    assert images.dtype == torch.float32
    assert ((images >= 0) & (images <= 1)).all()
    for target in targets:
        assert target["boxes"].shape == (len(target["labels"]), 4)
        assert target["labels"].dtype == torch.int64


def test_counts_and_classes_take_all_values_of_their_ranges():
    _, targets = scenes(200, objects=(0, 3), size=96)
    assert {len(target["labels"]) for target in targets} == {0, 1, 2, 3}
    assert {label for target in targets for label in target["labels"].tolist()} == set(range(len(CLASSES)))


def test_boxes_lie_in_the_image_with_sides_in_their_range():
    _, targets = scenes(100, sides=(9, 20), size=64)
    boxes = torch.cat([target["boxes"] for target in targets])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert ((boxes >= 0) & (boxes <= 64)).all()
    assert sides.min() >= 9 - 1e-4
    assert sides.max() <= 20 + 1e-4
    assert sides.max() > 18  # the range is used
    assert sides.min() < 11
    assert boxes[:, :2].min() < 4  # and so is the whole image
    assert boxes[:, 2:].max() > 60


@pytest.mark.parametrize("max_iou", [0.0, 0.3])
@pytest.mark.torchvision
def test_boxes_overlap_at_most_as_much_as_allowed(max_iou):
    from torchvision.ops import box_iou

    _, targets = scenes(100, objects=(4, 4), max_iou=max_iou)
    overlaps = [box_iou(t["boxes"], t["boxes"]).fill_diagonal_(0).max().item() for t in targets]
    assert max(overlaps) <= max_iou + 1e-6
    assert max(overlaps) >= max_iou / 2  # the limit is reached


def test_places_that_do_not_exist_leave_objects_out():
    _, targets = scenes(5, objects=(9, 9), sides=(30, 40), max_iou=0.0)
    assert all(1 <= len(target["labels"]) < 9 for target in targets)


def test_shapes_touch_all_sides_of_their_boxes():
    _, targets = scenes(60, objects=(1, 1))
    for target in targets:
        box, label = target["boxes"][0], int(target["labels"][0])
        rows, columns = inside(box, label, 64).nonzero(as_tuple=True)
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        # A tip may pass between two centres; a triangle of 10 × 28 pixels is thinnest.
        assert (seen - box).abs().max() <= 3.0


@pytest.mark.parametrize(
    ("label", "share"), [(0, 1.0), (1, math.pi / 4), (2, 0.5)], ids=["rectangle", "ellipse", "triangle"]
)
def test_areas_of_large_shapes(label, share):
    mask = inside(torch.tensor([100.0, 50.0, 900.0, 650.0]), label, 1000)
    assert_close(mask.sum() / (800 * 600), torch.tensor(share), atol=0.004, rtol=0)


@pytest.mark.parametrize(
    ("label", "widths"),
    [(0, [5, 5, 5, 5, 5]), (1, [1, 3, 5, 3, 1]), (2, [1, 1, 3, 3, 5])],
    ids=["rectangle", "ellipse", "triangle"],
)
def test_pixels_with_their_centre_on_the_border_belong_to_the_shape(label, widths):
    mask = inside(torch.tensor([1.5, 0.5, 5.5, 4.5]), label, 7)
    expected = torch.zeros(7, 7, dtype=torch.bool)
    for row, width in enumerate(widths):
        expected[row, 3 - width // 2 : 4 + width // 2] = True
    assert torch.equal(mask, expected)


@pytest.mark.parametrize("noise", [0, 1])
def test_ends_of_all_ranges_are_allowed(noise):
    _, targets = scenes(3, size=16, objects=(2, 2), sides=(16, 16), max_iou=1, noise=noise)
    for target in targets:
        assert target["boxes"].tolist() == [[0.0, 0.0, 16.0, 16.0]] * 2


def test_shapes_are_brighter_than_the_ground():
    images, targets = scenes(30, noise=0)
    for image, target in zip(images, targets, strict=True):
        masks = [inside(b, int(k), 64) for b, k in zip(target["boxes"], target["labels"], strict=True)]
        covered = torch.stack(masks).any(0)
        assert image[:, ~covered].max() <= 0.3 + 1e-6
        assert image[:, covered].min() >= 0.4 - 1e-6


def test_without_noise_a_scene_has_one_colour_for_each_object_and_the_ground():
    images, targets = scenes(30, noise=0, max_iou=0.0)
    for image, target in zip(images, targets, strict=True):
        colours = image.flatten(1).unique(dim=1).shape[1]
        assert colours == 1 + len(target["labels"])


def test_larger_shapes_lie_behind_smaller_ones():
    images, targets = scenes(200, noise=0, objects=(2, 2), max_iou=0.6, sides=(10, 40))
    checked = 0
    for image, target in zip(images, targets, strict=True):
        masks = [inside(b, int(k), 64) for b, k in zip(target["boxes"], target["labels"], strict=True)]
        small = int((target["boxes"][:, 2:] - target["boxes"][:, :2]).prod(1).argmin())
        assert image[:, masks[small]].unique(dim=1).shape[1] == 1
        checked += bool((masks[0] & masks[1]).any())
    assert checked > 20


def test_of_equally_large_shapes_the_last_lies_in_front():
    images, targets = scenes(20, noise=0, size=16, objects=(40, 40), sides=(16, 16), max_iou=1)
    for image, target in zip(images, targets, strict=True):
        mask = inside(target["boxes"][-1], int(target["labels"][-1]), 16)
        assert image[:, mask].unique(dim=1).shape[1] == 1


def test_noise_is_uniform_of_the_given_width():
    still, _ = scenes(20, noise=0)
    noisy, _ = scenes(20, noise=0.1)
    difference = (noisy - still)[(still > 0.1) & (still < 0.9)]
    assert difference.abs().max() <= 0.1 + 1e-6
    assert_close(difference.std(), torch.tensor(0.1 / math.sqrt(3)), rtol=0.02, atol=0)


def test_a_seed_gives_the_same_scenes_and_another_seed_others():
    first, again, other = scenes(4)[0], scenes(4)[0], scenes(4, seed=1)[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_scene_and_no_object():
    images, targets = scenes(0)
    assert images.shape == (0, 3, 64, 64)
    assert targets == []
    images, targets = scenes(2, objects=(0, 0))
    assert [tuple(target["boxes"].shape) for target in targets] == [(0, 4)] * 2


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objects": (3, 1)}, "objects must be a range"),
        ({"objects": (-1, 1)}, "objects must be a range"),
        ({"sides": (20, 10)}, "sides must be a range"),
        ({"sides": (0, 10)}, "do not fit"),
        ({"sides": (10, 80)}, "do not fit"),
        ({"sides": (10, math.nan)}, "sides must be a range"),
        ({"max_iou": 1.5}, "max_iou"),
        ({"noise": math.nan}, "noise"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value),
)
def test_wrong_input(options, message):
    with pytest.raises(ValueError, match=message):
        scenes(1, **options)


@pytest.mark.wrong_input
def test_negative_count():
    with pytest.raises(ValueError, match="count"):
        scenes(-1)
