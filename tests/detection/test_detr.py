"""The set loss against transformers', assignments against scipy and all permutations, boxes against torchvision."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from tensors import assert_same_both_ways, leaf, normal
from torch import nn
from torch.testing import assert_close

from zhixing.detection.detr import (
    assign,
    detections,
    generalized_iou,
    match,
    position_encoding,
    set_loss,
    to_centers,
    to_corners,
)


def uniform(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def corners(*shape, seed=0, dtype=torch.float64):
    """Boxes (x1, y1, x2, y2) with an area, some of them apart."""
    first, size = uniform(*shape, 2, seed=seed), uniform(*shape, 2, seed=seed + 50)
    return torch.cat([first, first + 0.05 + size / 2], -1).to(dtype)


def sets(numbers, queries=7, classes=4, *, seed=0, dtype=torch.float64):
    """Logits, boxes, and targets with these numbers of objects."""
    logits = 2 * normal(len(numbers), queries, classes, seed=seed, dtype=dtype)
    boxes = uniform(len(numbers), queries, 4, seed=seed, dtype=dtype)
    targets = [
        {
            "labels": torch.randint(classes - 1, (n,), generator=torch.Generator().manual_seed(i)),
            "boxes": uniform(n, 4, seed=10 + i, dtype=dtype),
        }
        for i, n in enumerate(numbers)
    ]
    return logits, boxes, targets


NUMBERS = {
    "some objects": (2, 5, 1),
    "no object in one image": (0, 3),
    "no object at all": (0, 0),
    "more objects than queries": (9, 4),
    "one image": (3,),
}
SETS = pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS.keys())


# Assignment


@pytest.mark.parametrize(
    "shape", [(1, 1), (4, 4), (3, 8), (8, 3), (1, 6), (6, 1), (0, 4), (4, 0), (0, 0), (30, 41)], ids=str
)
def test_assignment_equals_scipy(shape):
    for seed in range(5):
        costs = normal(*shape, seed=seed)
        rows, columns = assign(costs)
        expected = linear_sum_assignment(costs.numpy())
        assert rows.tolist() == expected[0].tolist()
        assert columns.tolist() == expected[1].tolist()
        assert rows.dtype == columns.dtype == torch.int64


@pytest.mark.parametrize("n", range(1, 7))
def test_assignment_is_the_cheapest_permutation(n):
    for seed in range(4):
        costs = normal(n, n, seed=seed)
        rows, columns = assign(costs)
        totals = [costs[range(n), list(order)].sum() for order in itertools.permutations(range(n))]
        assert_close(costs[rows, columns].sum(), torch.stack(totals).min())


def test_ties_and_large_numbers_reach_the_optimum():
    for seed in range(10):
        costs = torch.randint(0, 3, (6, 9), generator=torch.Generator().manual_seed(seed)).double()
        for scaled in costs, 1e12 * costs - 5e12, costs - 100, 1e-12 * costs:
            rows, columns = assign(scaled)
            expected = linear_sum_assignment(scaled.numpy())
            assert_close(scaled[rows, columns].sum(), scaled[expected].sum())
            assert len(set(columns.tolist())) == 6


def test_a_constant_added_to_a_row_or_column_changes_no_square_assignment():
    costs = normal(7, 7)
    shifted = costs + normal(7, 1, seed=1) + normal(1, 7, seed=2)
    assert assign(costs)[1].tolist() == assign(shifted)[1].tolist()


def test_transposed_costs_give_the_same_pairs():
    costs = normal(5, 8)
    rows, columns = assign(costs)
    columns_too, rows_too = assign(costs.T)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == sorted(
        zip(rows_too.tolist(), columns_too.tolist(), strict=True)
    )


def test_random_costs_approach_the_sum_of_inverse_squares():
    """Parisi's formula, proven by Linusson and Wästlund."""
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 6):
        drawn = torch.empty(1500, n, n, dtype=torch.float64).exponential_(generator=generator)
        mean = sum(costs[assign(costs)].sum().item() for costs in drawn) / len(drawn)
        assert abs(mean - sum(1 / k**2 for k in range(1, n + 1))) < 0.15


def test_assignment_keeps_its_argument_and_takes_strided_and_low_precision_costs():
    costs = normal(12, 10)[::2, 1::3]
    before = costs.clone()
    pairs = assign(costs)
    assert_close(costs, before)
    assert pairs[1].tolist() == assign(costs.contiguous())[1].tolist()
    for dtype in (torch.float16, torch.bfloat16):
        low = costs.to(dtype)
        assert assign(low)[1].tolist() == linear_sum_assignment(low.double().numpy())[1].tolist()


# Boxes


@pytest.fixture(scope="module")
def boxes_of_vision():
    from torchvision import ops

    return ops


@pytest.mark.torchvision
def test_generalized_iou_and_gradients_equal_torchvision(boxes_of_vision):
    a, b = corners(6), corners(9, seed=1)
    assert_same_both_ways(lambda a, b: generalized_iou(a[:, None], b), boxes_of_vision.generalized_box_iou, a, b)
    assert (generalized_iou(a[:, None], b) < 0).any()


@pytest.mark.torchvision
def test_loss_of_pairs_equals_torchvision(boxes_of_vision):
    a, b = corners(20), corners(20, seed=1)
    assert_same_both_ways(
        lambda a, b: 1 - generalized_iou(a, b),
        lambda a, b: boxes_of_vision.generalized_box_iou_loss(a, b, eps=0),
        *(a, b),
    )


@pytest.mark.torchvision
def test_conversions_equal_torchvision(boxes_of_vision):
    boxes = corners(3, 5)
    assert_same_both_ways(to_centers, lambda b: boxes_of_vision.box_convert(b, "xyxy", "cxcywh"), boxes)
    assert_same_both_ways(to_corners, lambda b: boxes_of_vision.box_convert(b, "cxcywh", "xyxy"), boxes)
    assert_close(to_corners(to_centers(boxes)), boxes)


def test_generalized_iou_by_counting_pixels():
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(0, 9, (2, 2, 2), generator=generator).sort(1).values
        a, b = drawn.flatten(1).double()
        grid = torch.zeros(2, 9, 9)
        for plane, (x1, y1, x2, y2) in zip(grid, drawn.flatten(1).tolist(), strict=True):
            plane[y1:y2, x1:x2] = 1
        union, shared = (grid.sum(0) > 0).sum().item(), (grid.sum(0) > 1).sum().item()
        low, high = drawn.amin((0, 1)), drawn.amax((0, 1))
        hull = (high - low).prod().item()
        expected = (shared / union if union else 0) - ((hull - union) / hull if hull else 0)
        assert math.isclose(generalized_iou(a, b).item(), expected, abs_tol=1e-12)


def test_boxes_without_area_have_finite_values_and_gradients():
    """Where torchvision's quotient 0 / 0 is NaN."""
    point = torch.tensor([0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
    line = torch.tensor([0.5, 0.2, 0.5, 0.9], dtype=torch.float64)
    for a, b in itertools.product((point, line, corners()), repeat=2):
        x = leaf(a)
        value = generalized_iou(x, b)
        assert -1 <= value <= 1
        assert torch.autograd.grad(value, x)[0].isfinite().all()
    assert generalized_iou(point, point) == 0


def test_generalized_iou_gradcheck():
    assert torch.autograd.gradcheck(generalized_iou, (leaf(corners(3)), leaf(corners(3, seed=1))))


def test_generalized_iou_pulls_boxes_together_that_lie_apart():
    a = leaf(torch.tensor([0.0, 0.0, 1.0, 1.0]))
    generalized_iou(a, torch.tensor([5.0, 0.0, 6.0, 1.0])).backward()
    assert a.grad[2] > 0
    assert generalized_iou(a, torch.tensor([9.0, 9.0, 9.1, 9.1])) > -1


# Matching and the loss


@pytest.fixture(scope="module")
def theirs():
    from transformers.loss import loss_for_object_detection

    return loss_for_object_detection


def renamed(targets):
    return [{"class_labels": target["labels"], "boxes": target["boxes"]} for target in targets]


@pytest.mark.torchvision
@SETS
@pytest.mark.parametrize("costs", [(1, 5, 2), (2.5, 0.5, 4), (0, 1, 0)], ids=["paper", "others", "L1 alone"])
def test_matches_equal_transformers(numbers, costs, theirs):
    logits, boxes, targets = sets(numbers)
    matcher = theirs.HungarianMatcher(*costs)
    expected = matcher({"logits": logits, "pred_boxes": boxes}, renamed(targets))
    for i, (queries, objects) in enumerate(expected):
        ours = match(
            logits[i],
            boxes[i],
            targets[i]["labels"],
            targets[i]["boxes"],
            class_cost=costs[0],
            l1_cost=costs[1],
            giou_cost=costs[2],
        )
        assert ours[0].tolist() == queries.tolist()
        assert ours[1].tolist() == objects.tolist()


@pytest.mark.torchvision
@SETS
@pytest.mark.parametrize("weights", [(1, 5, 2), (2.5, 0.5, 4)], ids=["paper", "others"])
def test_losses_and_gradients_equal_transformers(numbers, weights, theirs):
    logits, boxes, targets = sets(numbers)
    # 1/8, since theirs keeps the weights in float32.
    criterion = theirs.ImageLoss(theirs.HungarianMatcher(*weights), 3, 0.125, ["labels", "boxes"]).double()
    names = "class_weight", "l1_weight", "giou_weight"

    def ours(logits, boxes):
        losses = set_loss(logits, boxes, targets, eos_weight=0.125, **dict(zip(names, weights, strict=True)))
        return torch.stack([*losses.values()])

    def reference(logits, boxes):
        losses = criterion({"logits": logits, "pred_boxes": boxes}, renamed(targets))
        parts = torch.stack([losses[name] for name in ("loss_ce", "loss_bbox", "loss_giou")])
        return torch.cat([parts, parts.new_tensor(weights) @ parts[:, None]])

    assert_same_both_ways(ours, reference, logits, boxes)


@SETS
def test_loss_by_loops_over_all_choices_of_queries(numbers):
    """Of each image, the cheapest of all ordered choices of queries; then equation 2 term by term."""
    logits, boxes, targets = sets(numbers, queries=4)
    targets = [{key: value[:4] for key, value in target.items()} for target in targets]
    p = logits.softmax(2)
    weighted, weight, l1, giou, count = 0.0, 0.0, 0.0, 0.0, 0
    for i, target in enumerate(targets):
        n = len(target["labels"])

        def terms(query, thing, i=i, target=target):
            b, t = boxes[i, query], target["boxes"][thing]
            return (b - t).abs().sum(), generalized_iou(to_corners(b), to_corners(t))

        def cost(choice, i=i, target=target, terms=terms):
            total = 0.0
            for thing, query in enumerate(choice):
                distance, overlap = terms(query, thing)
                total += 5 * distance - p[i, query, target["labels"][thing]] - 2 * overlap
            return float(total)

        best = min(itertools.permutations(range(4), n), key=cost)
        for query in range(4):
            label = target["labels"][best.index(query)] if query in best else 3
            w = 1 if query in best else 0.1
            weighted, weight = weighted - w * p[i, query, label].log(), weight + w
        for thing, query in enumerate(best):
            distance, overlap = terms(query, thing)
            l1, giou = l1 + distance, giou + 1 - overlap
        count += n
    losses = set_loss(logits, boxes, targets)
    assert math.isclose(losses["class"], weighted / weight)
    assert math.isclose(losses["l1"], l1 / max(1, count), abs_tol=1e-12)
    assert math.isclose(losses["giou"], giou / max(1, count), abs_tol=1e-12)
    assert math.isclose(losses["total"], losses["class"] + 5 * losses["l1"] + 2 * losses["giou"])


def test_order_of_queries_and_of_objects_does_not_matter():
    logits, boxes, targets = sets((4, 2))
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    turned = [{key: value.flip(0) for key, value in target.items()} for target in targets]
    expected = set_loss(logits, boxes, targets)
    assert_close(set_loss(logits[:, order], boxes[:, order], turned), expected)


def test_gradcheck():
    logits, boxes, targets = sets((2, 0, 1), queries=3)
    assert torch.autograd.gradcheck(
        lambda logits, boxes: set_loss(logits, boxes, targets)["total"], (leaf(logits), leaf(boxes))
    )


def test_unmatched_queries_learn_no_box():
    logits, boxes, targets = sets((2,))
    x = leaf(boxes)
    set_loss(logits, x, targets)["total"].backward()
    queries, _ = match(logits[0], boxes[0], targets[0]["labels"], targets[0]["boxes"])
    others = [i for i in range(7) if i not in queries.tolist()]
    assert (x.grad[0, others] == 0).all()
    assert (x.grad[0, queries] != 0).any(1).all()


def test_seven_objects_of_a_hundred_have_43_percent_of_the_class_weight():
    """The gradient of the class loss shows the share: it is that of a weighted mean."""
    targets = [{"labels": torch.zeros(7, dtype=torch.int64), "boxes": uniform(7, 4)}]
    logits = leaf(torch.zeros(1, 100, 92, dtype=torch.float64))
    loss = set_loss(logits, uniform(1, 100, 4, seed=1), targets)["class"]
    assert math.isclose(loss.item(), math.log(92))
    loss.backward()
    assert math.isclose(-logits.grad[0, :, 0].min() * 7 * 92 / 91, 7 / 16.3)


def test_another_rule_may_pair_an_object_with_two_queries():
    logits, boxes, targets = sets((2, 1))

    def two(costs):
        assert costs.shape == (len(costs), 7)
        queries = costs.topk(2, largest=False).indices
        return torch.arange(len(costs)).repeat_interleave(2), queries.flatten()

    losses = set_loss(logits, boxes, targets, rule=two)
    l1 = 0.0
    for i, target in enumerate(targets):
        for label, box in zip(target["labels"], target["boxes"], strict=True):
            distance = (boxes[i] - box).abs().sum(1)
            overlap = generalized_iou(to_corners(boxes[i]), to_corners(box))
            cost = 5 * distance - logits[i].softmax(1)[:, label] - 2 * overlap
            l1 += distance[cost.argsort()[:2]].sum()
    assert_close(losses["l1"], l1 / 3)
    assert_close(set_loss(logits, boxes, targets, rule=assign), set_loss(logits, boxes, targets))


def test_takes_any_memory_layout_and_keeps_its_arguments():
    logits, boxes, targets = sets((3, 2))
    copies = [x.clone() for x in (logits, boxes, targets[0]["boxes"])]
    strided = logits.transpose(1, 2).contiguous().transpose(1, 2), boxes.flip(0).flip(0)
    assert_close(set_loss(*strided, targets), set_loss(logits, boxes, targets))
    for x, copy in zip((logits, boxes, targets[0]["boxes"]), copies, strict=True):
        assert_close(x, copy)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_low_precision_matches_like_float32(dtype):
    """Also where the costs of many queries differ by less than low precision resolves."""
    logits, boxes, targets = sets((9, 8, 7, 9), queries=60, dtype=dtype)
    boxes = (0.5 + boxes / 8).to(dtype)
    wide = [{**target, "boxes": target["boxes"].float()} for target in targets]
    losses = set_loss(logits, boxes, targets)
    expected = set_loss(logits.float(), boxes.float(), wide)
    for name, loss in losses.items():
        assert loss.dtype == dtype
        assert_close(loss.float(), expected[name], rtol=3e-2, atol=3e-2)
    for i, target in enumerate(targets):
        ours = match(logits[i], boxes[i], target["labels"], target["boxes"])
        theirs = match(logits[i].float(), boxes[i].float(), target["labels"], wide[i]["boxes"])
        assert [x.tolist() for x in ours] == [x.tolist() for x in theirs]


def test_targets_in_another_precision_are_converted():
    logits, boxes, targets = sets((3, 2), dtype=torch.float32)
    doubled = [{**target, "boxes": target["boxes"].double()} for target in targets]
    assert_close(set_loss(logits, boxes, doubled), set_loss(logits, boxes, targets))


def test_large_logits_stay_finite():
    logits, boxes, targets = sets((3, 2))
    assert all(loss.isfinite() for loss in set_loss(1e4 * logits, boxes, targets).values())


# Detections


def test_detections_by_loops():
    logits, boxes, _ = sets((0, 0))
    found = detections(logits, boxes, size=(48, 64))
    assert len(found) == 2
    for i, image in enumerate(found):
        assert image["boxes"].shape == (7, 4)
        for q in range(7):
            p = logits[i, q].softmax(0).tolist()
            assert math.isclose(image["scores"][q], max(p[:3]))
            assert image["labels"][q] == p[:3].index(max(p[:3]))
            cx, cy, w, h = boxes[i, q].tolist()
            expected = [64 * (cx - w / 2), 48 * (cy - h / 2), 64 * (cx + w / 2), 48 * (cy + h / 2)]
            assert_close(image["boxes"][q], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.torchvision
def test_detections_equal_transformers():
    from transformers import DetrImageProcessor
    from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput

    logits, boxes, _ = sets((0, 0))
    output = DetrObjectDetectionOutput(logits=logits, pred_boxes=boxes)
    processor = DetrImageProcessor()
    expected = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(48, 64)] * 2)
    for ours, other in zip(detections(logits, boxes, size=(48, 64)), expected, strict=True):
        for key in ("scores", "labels", "boxes"):
            assert_close(ours[key], other[key], check_dtype=False)


def test_detections_keep_queries_whose_likeliest_class_is_no_object():
    logits = torch.tensor([[[0.0, -1.0, 5.0]]])
    (found,) = detections(logits, torch.full((1, 1, 4), 0.5), size=(8, 8))
    assert found["labels"].tolist() == [0]
    assert found["scores"] < 0.01


def test_no_image_gives_no_detections():
    assert detections(torch.zeros(0, 3, 2), torch.zeros(0, 3, 4), size=(8, 8)) == []


# Position encoding


@pytest.mark.torchvision
@pytest.mark.parametrize("size", [(5, 8), (1, 1), (25, 34)], ids=str)
@pytest.mark.parametrize("channels", [4, 32])
def test_position_encoding_equals_transformers(size, channels):
    from transformers.models.detr.modeling_detr import DetrSinePositionEmbedding

    module = DetrSinePositionEmbedding(channels // 2, normalize=True)
    expected = module(torch.Size([1, 3, *size]), torch.device("cpu"), torch.float64)
    expected = expected.transpose(1, 2).reshape(channels, *size) if expected.ndim == 3 else expected[0]
    # Theirs adds 1e-6 to the size.
    assert_close(position_encoding(*size, channels).double(), expected, rtol=0, atol=1e-5)


def test_position_encoding_by_loops():
    encoding = position_encoding(3, 5, 8, temperature=100)
    for y, x in itertools.product(range(3), range(5)):
        for start, place in ((0, (y + 1) / 3), (4, (x + 1) / 5)):
            for i in range(2):
                angle = 2 * math.pi * place / 100 ** (4 * i / 8)
                assert_close(encoding[start + 2 * i, y, x], torch.tensor(math.sin(angle)))
                assert_close(encoding[start + 2 * i + 1, y, x], torch.tensor(math.cos(angle)))
    assert encoding.dtype == torch.float32


# A number of the paper: 41 million parameters (table 1)


def parameters(classes, backbone):
    """Trainable ones: conv1 and layer1 of ResNet-50 and all batch normalisations are frozen."""
    width = 256
    encoder = nn.TransformerEncoderLayer(width, 8, 2048)
    decoder = nn.TransformerDecoderLayer(width, 8, 2048)
    heads = nn.ModuleList(
        [
            nn.Conv2d(2048, width, 1),
            nn.Embedding(100, width),
            nn.LayerNorm(width),  # after the decoder; none after the encoder, where nn.Transformer has one
            nn.Linear(width, classes + 1),
            *(nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4)),
        ]
    )
    count = sum(p.numel() for p in heads.parameters())
    count += 6 * sum(p.numel() for layer in (encoder, decoder) for p in layer.parameters())
    kept = "layer2", "layer3", "layer4"
    for name, p in backbone.named_parameters():
        count += p.numel() if name.startswith(kept) and p.ndim == 4 else 0
    return count


@pytest.mark.torchvision
def test_parameters_are_those_of_the_training_logs():
    """ "number of params" of COCO's 91 ids, and of 13 in facebookresearch/detr#258."""
    from torchvision.models import resnet50

    with torch.device("meta"):
        backbone = resnet50()
        assert parameters(91, backbone) == 41_302_368
        assert parameters(13, backbone) == 41_282_322


# Wrong input


def wrong_sets():
    logits, boxes, targets = sets((2, 1))
    target = targets[0]

    def changed(**values):
        return logits, boxes, [{**target, **values}, targets[1]]

    return {
        "labels from 1": (changed(labels=torch.tensor([1, 3])), "last|means no object"),
        "negative label": (changed(labels=torch.tensor([-1, 0])), "from 0 to 2"),
        "labels of floats": (changed(labels=torch.tensor([1.0, 0.0])), "int64"),
        "more labels than boxes": (changed(labels=torch.tensor([1, 0, 0])), "3 labels"),
        "pixels": (changed(boxes=64 * target["boxes"]), "divided by the image's size"),
        "corners for centres": (changed(boxes=target["boxes"] - 1), "from 0 to 1"),
        "NaN in a target": (changed(boxes=target["boxes"] / 0 * 0), "from 0 to 1"),
        "more boxes than labels": (changed(labels=torch.tensor([1])), "1 labels"),
        "no boxes (N, 4)": (changed(boxes=target["boxes"][:, :3]), "of a target"),
        "NaN in the logits": ((logits * math.nan, boxes, targets), "finite"),
        "infinite boxes": ((logits, boxes / 0, targets), "finite"),
        "a target too few": ((logits, boxes, targets[:1]), "2 images and 1 targets"),
        "no images": ((logits[:0], boxes[:0], []), "0 images"),
        "logits of one image": ((logits[0], boxes, targets), "logits must be"),
        "boxes of other queries": ((logits, boxes[:, 1:], targets), "boxes must be"),
        "boxes of other images": ((logits, boxes[1:], targets), "boxes of 1"),
        "logits of other images": ((logits[1:], boxes, targets[1:]), "logits of 1 images, but boxes of 2"),
        "integer boxes": ((logits, boxes.long(), targets), "boxes must be"),
    }


@pytest.mark.wrong_input
@pytest.mark.parametrize(("arguments", "message"), wrong_sets().values(), ids=wrong_sets().keys())
def test_wrong_sets_say_what_is_wanted(arguments, message):
    with pytest.raises(ValueError, match=message):
        set_loss(*arguments)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("call", "message"),
    {
        "match: queries differ": (
            lambda: match(torch.zeros(2, 3), torch.zeros(3, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)),
            "boxes must be",
        ),
        "match: label is no object": (
            lambda: match(torch.zeros(2, 3), torch.zeros(2, 4), torch.tensor([2]), torch.zeros(1, 4)),
            "2 means no object",
        ),
        "assign: vector": (lambda: assign(torch.zeros(3)), r"\(N, M\)"),
        "assign: list": (lambda: assign([[1.0]]), "a list"),
        "assign: infinite": (lambda: assign(torch.tensor([[math.inf]])), "finite"),
        "generalized_iou: integers": (lambda: generalized_iou(torch.ones(4).long(), torch.ones(4)), "a must be"),
        "generalized_iou: three": (lambda: generalized_iou(torch.ones(4), torch.ones(3)), "b must be"),
        "to_corners: scalar": (lambda: to_corners(torch.tensor(1.0)), "boxes must be"),
        "to_centers: list": (lambda: to_centers([0, 0, 1, 1]), "a list"),
        "detections: no class": (
            lambda: detections(torch.zeros(1, 2, 1), torch.zeros(1, 2, 4), size=(8, 8)),
            "besides no object",
        ),
        "detections: size": (lambda: detections(torch.zeros(1, 2, 2), torch.zeros(1, 2, 4), size=8), "size"),
        "position_encoding: channels": (lambda: position_encoding(2, 2, 6), "divisible by 4"),
        "position_encoding: no pixel": (lambda: position_encoding(0, 2, 4), "height"),
        "position_encoding: temperature": (lambda: position_encoding(2, 2, 4, temperature=math.nan), "temperature"),
    }.values(),
    ids=[
        *("match: queries differ", "match: label is no object", "assign: vector", "assign: list"),
        *("assign: infinite", "generalized_iou: integers", "generalized_iou: three", "to_corners: scalar"),
        *("to_centers: list", "detections: no class", "detections: size", "position_encoding: channels"),
        *("position_encoding: no pixel", "position_encoding: temperature"),
    ],
)
def test_wrong_arguments_say_what_is_wanted(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.torchvision
def test_transformers_trains_the_last_label_as_no_object(theirs):
    """The trap: with one class too few, theirs takes the highest id for "no object" and says nothing."""
    logits, boxes, _ = sets((1,))
    target = {"class_labels": torch.tensor([3]), "boxes": uniform(1, 4)}
    criterion = theirs.ImageLoss(theirs.HungarianMatcher(1, 5, 2), 3, 0.125, ["labels"]).double()
    loss = criterion({"logits": logits, "pred_boxes": boxes}, [target])["loss_ce"]
    assert_close(loss, F.cross_entropy(logits[0], torch.full((7,), 3)))
