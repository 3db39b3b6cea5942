"""Segmentation scores against scikit-learn, torchmetrics, loops over pixels, and the tables of the FCN paper."""

import math

import numpy
import pytest
import torch
from sklearn import metrics as sklearn
from torch.testing import assert_close

from zhixing.metrics.segmentation_metrics import (
    confusion_matrix,
    frequency_weighted_iou,
    iou,
    mean_iou,
    mean_pixel_accuracy,
    pixel_accuracy,
)

SCORES = [pixel_accuracy, mean_pixel_accuracy, mean_iou, frequency_weighted_iou]


def labels(*shape, classes=4, seed=0, share_right=0.7):
    """Return predicted and true classes that agree in about `share_right` of the pixels."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, shape, generator=generator)
    noise = torch.randint(classes, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < share_right, target, noise), target


def counted(prediction, target, num_classes, ignore_index=None):
    """Count pixel by pixel, as the definition says."""
    matrix = [[0] * num_classes for _ in range(num_classes)]
    for predicted, true in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if true != ignore_index:
            matrix[true][predicted] += 1
    return matrix


def by_sets(prediction, target, num_classes):
    """Return the IoU of each class from sets of positions, without a matrix."""
    scores = []
    for c in range(num_classes):
        ours = {i for i, label in enumerate(prediction.flatten().tolist()) if label == c}
        theirs = {i for i, label in enumerate(target.flatten().tolist()) if label == c}
        scores.append(len(ours & theirs) / len(ours | theirs) if ours | theirs else math.nan)
    return torch.tensor(scores, dtype=torch.float64)


def scalar(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.fixture(scope="module")
def torchmetrics():
    import torchmetrics
    import torchmetrics.segmentation

    return torchmetrics


# The matrix

SHAPES = {
    "one pixel": labels(1),
    "no dimension": labels(),
    "odd": labels(2, 7, 5),
    "no pixel": labels(0, 3),
    "one class": labels(6, classes=1),
    "three axes": labels(2, 3, 5, 7, classes=30),
}
SHAPES["not contiguous"] = tuple(x.transpose(0, 2)[::2, 1:] for x in labels(6, 5, 9))


@pytest.mark.parametrize("pair", SHAPES.values(), ids=SHAPES)
def test_matrix_equals_counting_pixel_by_pixel(pair):
    classes = 30 if pair[0].ndim == 4 else 4
    matrix = confusion_matrix(*pair, classes)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == counted(*pair, classes)
    assert matrix.sum() == pair[0].numel()


@pytest.mark.parametrize("ignore_index", [255, 0, 3, None], ids=str)
def test_matrix_equals_sklearns_and_torchmetrics(torchmetrics, ignore_index):
    prediction, target = labels(3, 8, 9, classes=5)
    if ignore_index == 255:
        target[:, 2] = 255
    matrix = confusion_matrix(prediction, target, 5, ignore_index=ignore_index)
    keep = target != ignore_index if ignore_index is not None else torch.ones_like(target, dtype=torch.bool)
    expected = sklearn.confusion_matrix(target[keep], prediction[keep], labels=range(5))
    assert matrix.tolist() == expected.tolist()
    theirs = torchmetrics.classification.MulticlassConfusionMatrix(5, ignore_index=ignore_index)
    assert matrix.tolist() == theirs(prediction, target).tolist()


def test_rows_are_the_truth_and_columns_the_prediction():
    target, prediction = torch.tensor([0, 0, 0]), torch.tensor([1, 1, 0])
    assert confusion_matrix(prediction, target, 2).tolist() == [[1, 2], [0, 0]]


def test_swapped_arguments_transpose_the_matrix():
    prediction, target = labels(20, 20)
    prediction[0] = 3
    matrix, swapped = confusion_matrix(prediction, target, 4), confusion_matrix(target, prediction, 4)
    assert_close(swapped, matrix.T)
    for unchanged in (pixel_accuracy, mean_iou):
        assert_close(unchanged(swapped), unchanged(matrix))
    for changed in (mean_pixel_accuracy, frequency_weighted_iou):
        assert (changed(swapped) - changed(matrix)).abs() > 1e-3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32], ids=str)
def test_small_integer_types_do_not_wrap(dtype):
    prediction, target = labels(40, 40, classes=100)
    expected = confusion_matrix(prediction, target, 100)
    assert_close(confusion_matrix(prediction.to(dtype), target.to(dtype), 100), expected)
    assert_close(confusion_matrix(prediction, target.to(dtype), 100), expected)


def test_class_18_of_19_in_uint8_is_counted_at_the_end_of_the_diagonal():
    last = torch.tensor([18], dtype=torch.uint8)
    assert confusion_matrix(last, last, 19)[18, 18] == 1


def test_label_minus_one_does_not_ignore_255_in_uint8():
    target = torch.tensor([0, 255], dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"the target must hold classes 0 to 1 where .* holds 0 to 255"):
        confusion_matrix(torch.zeros(2, dtype=torch.uint8), target, 2, ignore_index=-1)


def test_masks_of_booleans_are_two_classes():
    prediction, target = (x.bool() for x in labels(9, 9, classes=2))
    assert_close(confusion_matrix(prediction, target, 2), confusion_matrix(prediction.int(), target.int(), 2))


def test_what_is_predicted_at_ignored_pixels_does_not_matter():
    prediction, target = labels(10, 10)
    target[3:5] = 255
    expected = confusion_matrix(prediction, target, 4)
    prediction[3:5] = 77
    assert_close(confusion_matrix(prediction, target, 4), expected)
    assert expected.sum() == 80


def test_inputs_are_not_changed():
    prediction, target = labels(5, 5)
    before = prediction.clone(), target.clone()
    confusion_matrix(prediction, target, 4)
    assert torch.equal(prediction, before[0])
    assert torch.equal(target, before[1])


def test_matrix_of_all_images_is_the_sum_of_theirs():
    prediction, target = labels(7, 6, 5)
    total = sum(confusion_matrix(p, t, 4) for p, t in zip(prediction, target, strict=True))
    assert_close(total, confusion_matrix(prediction, target, 4))


@pytest.mark.wrong_input
def test_wrong_labels_and_shapes_are_errors():
    prediction, target = labels(4, 6, 6)
    with pytest.raises(ValueError, match=r"\(4, 3, 6, 6\) and \(4, 6, 6\); take the argmax of logits"):
        confusion_matrix(torch.zeros(4, 3, 6, 6), target, 4)
    with pytest.raises(ValueError, match=r"prediction must hold integer classes, but is torch\.float32"):
        confusion_matrix(prediction.float(), target, 4)
    with pytest.raises(ValueError, match=r"target must hold integer classes, but is torch\.float16"):
        confusion_matrix(prediction, target.half(), 4)
    with pytest.raises(ValueError, match=r"prediction must hold classes 0 to 2 where .* holds 0 to 3"):
        confusion_matrix(prediction, target.clamp(max=2), 3)
    with pytest.raises(ValueError, match=r"target must hold classes 0 to 3 where .* holds -1 to 3"):
        confusion_matrix(prediction, target.masked_fill(target == 0, -1), 4)
    with pytest.raises(ValueError, match=r"must be a positive integer, but is 4\.0"):
        confusion_matrix(prediction, target, 4.0)
    with pytest.raises(ValueError, match="must be a positive integer, but is 0"):
        confusion_matrix(prediction, target, 0)


# The scores


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 5, 21])
def test_scores_equal_sklearns(classes, seed):
    prediction, target = labels(60, 61, classes=classes, seed=seed)
    matrix, y, x = confusion_matrix(prediction, target, classes), target.flatten(), prediction.flatten()
    assert_close(pixel_accuracy(matrix), scalar(sklearn.accuracy_score(y, x)))
    assert_close(mean_pixel_accuracy(matrix), scalar(sklearn.balanced_accuracy_score(y, x)))
    assert_close(iou(matrix), torch.from_numpy(sklearn.jaccard_score(y, x, average=None)))
    assert_close(mean_iou(matrix), scalar(sklearn.jaccard_score(y, x, average="macro")))
    assert_close(frequency_weighted_iou(matrix), scalar(sklearn.jaccard_score(y, x, average="weighted")))


@pytest.mark.parametrize("void", [False, True], ids=["all pixels", "ignored pixels"])
def test_scores_equal_torchmetrics(torchmetrics, void):
    prediction, target = labels(2, 30, 31, classes=6)
    if void:
        target[:, :5] = 255
    matrix = confusion_matrix(prediction, target, 6)

    def theirs(average):
        jaccard = torchmetrics.classification.MulticlassJaccardIndex(6, average=average, ignore_index=255)
        return jaccard(prediction, target).double()

    assert_close(iou(matrix), theirs("none"), rtol=1e-6, atol=0)
    assert_close(mean_iou(matrix), theirs("macro"), rtol=1e-6, atol=0)
    assert_close(frequency_weighted_iou(matrix), theirs("weighted"), rtol=1e-6, atol=0)
    micro = pixel_accuracy(matrix) / (2 - pixel_accuracy(matrix))
    assert_close(micro, theirs("micro"), rtol=1e-6, atol=0)
    accuracy = torchmetrics.classification.MulticlassAccuracy(6, average="macro", ignore_index=255)
    assert_close(mean_pixel_accuracy(matrix), accuracy(prediction, target).double(), rtol=1e-6, atol=0)


def test_mean_of_image_scores_equals_torchmetrics_mean_iou_where_each_image_has_each_class(torchmetrics):
    prediction, target = labels(5, 20, 20, classes=3)
    theirs = torchmetrics.segmentation.MeanIoU(num_classes=3, input_format="index")
    for half in (slice(0, 2), slice(2, 5)):
        theirs.update(prediction[half], target[half])
    images = [mean_iou(confusion_matrix(p, t, 3)) for p, t in zip(prediction, target, strict=True)]
    assert_close(torch.stack(images).mean(), theirs.compute().double(), rtol=1e-6, atol=0)


def test_iou_equals_intersection_over_union_of_sets():
    prediction, target = labels(9, 11, classes=7)
    prediction[prediction == 6], target[target == 6] = 0, 1
    ours = iou(confusion_matrix(prediction, target, 7))
    assert_close(ours, by_sets(prediction, target, 7), equal_nan=True)
    assert ours[6].isnan()


def test_dice_is_twice_the_iou_over_one_plus_the_iou(torchmetrics):
    prediction, target = labels(1, 30, 30, classes=4)
    scores = iou(confusion_matrix(prediction, target, 4))
    dice = torchmetrics.segmentation.DiceScore(num_classes=4, average="none", input_format="index")
    assert_close(2 * scores / (1 + scores), dice(prediction, target).double().flatten(), rtol=1e-6, atol=0)


def test_torchmetrics_mean_iou_averages_over_pairs_of_image_and_class(torchmetrics):
    target = torch.tensor([[[0, 0], [0, 0]], [[0, 0], [1, 2]]])
    prediction = torch.tensor([[[0, 0], [0, 0]], [[0, 1], [1, 2]]])
    theirs = torchmetrics.segmentation.MeanIoU(num_classes=3, input_format="index")(prediction, target)
    images = [iou(confusion_matrix(p, t, 3)) for p, t in zip(prediction, target, strict=True)]
    assert_close(torch.cat(images).nanmean(), theirs.double())
    assert_close(theirs, torch.tensor((1 + 1 / 2 + 1 / 2 + 1) / 4))
    assert_close(torch.stack([image.nanmean() for image in images]).mean(), scalar((1 + 2 / 3) / 2))


def test_mean_iou_and_mean_dice_can_disagree():
    first, second = torch.tensor([[9, 5], [4, 9]]), torch.tensor([[1176, 12], [12, 1]])
    assert_close(iou(first), torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert_close(iou(second), torch.tensor([0.98, 0.04], dtype=torch.float64))

    def mean_dice(matrix):
        prediction, target = pixels(matrix)
        return scalar(sklearn.f1_score(target, prediction, average="macro"))

    assert_close(mean_dice(first), scalar(2 / 3))
    assert_close(mean_dice(second), scalar((1.96 / 1.98 + 0.08 / 1.04) / 2))
    assert mean_iou(second) > mean_iou(first)
    assert mean_dice(second) < mean_dice(first) - 0.1


def test_scores_by_hand():
    # Truth: 6 pixels of class 0 and 2 of class 1. Of these, 1 and 1 are wrong.
    matrix = torch.tensor([[5, 1], [1, 1]])
    assert_close(pixel_accuracy(matrix), scalar(6 / 8))
    assert_close(mean_pixel_accuracy(matrix), scalar((5 / 6 + 1 / 2) / 2))
    assert_close(iou(matrix), torch.tensor([5 / 7, 1 / 3], dtype=torch.float64))
    assert_close(mean_iou(matrix), scalar((5 / 7 + 1 / 3) / 2))
    assert_close(frequency_weighted_iou(matrix), scalar((6 * 5 / 7 + 2 / 3) / 8))


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.__name__)
def test_perfect_prediction_scores_one_and_wrong_everywhere_zero(score):
    _, target = labels(10, 10)
    assert score(confusion_matrix(target, target, 4)) == 1
    assert score(confusion_matrix((target + 1) % 4, target, 4)) == 0


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.__name__)
def test_without_a_counted_pixel_the_score_is_not_a_number(score):
    nothing = confusion_matrix(torch.zeros(3, dtype=torch.int64), torch.full((3,), 255), 4)
    assert score(nothing).isnan()
    assert score(nothing).shape == ()
    assert iou(nothing).isnan().all()


@pytest.mark.parametrize("score", [*SCORES, iou], ids=lambda score: score.__name__)
def test_integer_types_and_transposed_matrices_of_counts_are_read(score):
    matrix = confusion_matrix(*labels(20, 20), 4)
    assert_close(score(matrix.int()), score(matrix))
    assert_close(score(matrix.T.contiguous().T), score(matrix))
    assert score(matrix.int()).dtype == torch.float64


def test_counts_beyond_what_float32_holds_are_exact():
    matrix = torch.tensor([[2**40 + 1, 1], [0, 2**40]])
    assert 1 - pixel_accuracy(matrix) > 0
    assert_close(1 - iou(matrix)[1], scalar(1 / (2**40 + 1)), rtol=1e-3, atol=0)


# Absent classes

ABSENT = torch.tensor(
    [
        [6, 0, 2, 0, 0, 0],  # class 0: IoU 6 / 8
        [0, 4, 0, 0, 0, 0],  # class 1: found whole
        [0, 0, 0, 0, 0, 0],  # class 2: predicted, never true
        [0, 0, 0, 0, 0, 0],  # class 3: nowhere
        [0, 0, 1, 0, 0, 0],  # classes 4 and 5: true, never predicted
        [0, 0, 1, 0, 0, 0],
    ]
)


def test_absent_classes_by_hand():
    scores = iou(ABSENT)
    assert_close(scores[[0, 1, 2, 4, 5]], torch.tensor([0.75, 1, 0, 0, 0], dtype=torch.float64))
    assert scores[3].isnan()
    assert_close(mean_iou(ABSENT), scalar(1.75 / 5))
    assert_close(mean_iou(ABSENT, absent="skip"), scalar(1.75 / 5))
    assert_close(mean_iou(ABSENT, absent="truth"), scalar(1.75 / 4))
    assert_close(mean_iou(ABSENT, absent="zero"), scalar(1.75 / 6))
    assert_close(mean_pixel_accuracy(ABSENT), scalar((6 / 8 + 1 + 0 + 0) / 4))
    assert_close(frequency_weighted_iou(ABSENT), scalar((8 * 0.75 + 4 + 0 + 0) / 14))


def pixels(matrix):
    """Return predicted and true labels that have this confusion matrix."""
    target, prediction = matrix.nonzero().T
    counts = matrix[target, prediction]
    return prediction.repeat_interleave(counts), target.repeat_interleave(counts)


def test_absent_classes_as_in_sklearn_and_torchmetrics(torchmetrics):
    prediction, target = pixels(ABSENT)
    assert_close(confusion_matrix(prediction, target, 6), ABSENT)

    def theirs(classes):
        score = sklearn.jaccard_score(target, prediction, labels=classes, average="macro", zero_division=0)
        return scalar(score)

    assert_close(mean_iou(ABSENT, absent="skip"), theirs([0, 1, 2, 4, 5]))
    assert_close(mean_iou(ABSENT, absent="truth"), theirs([0, 1, 4, 5]))
    assert_close(mean_iou(ABSENT, absent="zero"), theirs(range(6)))
    macro = torchmetrics.classification.MulticlassJaccardIndex(6, average="macro")
    assert_close(mean_iou(ABSENT), macro(prediction, target).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("absent", ["skip", "truth"])
def test_more_classes_than_there_are_change_nothing_unless_they_count_as_zero(absent):
    prediction, target = labels(12, 12)
    exact, wide = confusion_matrix(prediction, target, 4), confusion_matrix(prediction, target, 9)
    assert_close(mean_iou(wide, absent=absent), mean_iou(exact, absent=absent))
    assert_close(mean_iou(wide, absent="zero"), mean_iou(exact) * 4 / 9)
    for score in SCORES:
        assert_close(score(wide), score(exact))


def test_ignoring_the_background_turns_the_iou_into_recall():
    target, prediction = torch.tensor([1, 1, 0, 0, 0, 0]), torch.tensor([1, 1, 1, 1, 1, 1])
    assert_close(iou(confusion_matrix(prediction, target, 2))[1], scalar(1 / 3))
    matrix = confusion_matrix(prediction, target, 2, ignore_index=0)
    recall = sklearn.recall_score(target, prediction)
    assert_close(iou(matrix)[1], scalar(recall))


def test_ignoring_the_background_leaves_false_alarms_among_several_foreground_classes():
    target, prediction = torch.tensor([1, 1, 2, 2, 0, 0]), torch.tensor([1, 1, 1, 2, 1, 2])
    scores = iou(confusion_matrix(prediction, target, 3, ignore_index=0))
    recall = torch.from_numpy(sklearn.recall_score(target, prediction, average=None))
    assert_close(recall[1:], torch.tensor([1, 1 / 2], dtype=torch.float64))
    assert_close(scores[1:], torch.tensor([2 / 3, 1 / 2], dtype=torch.float64))


# Wrong matrices


@pytest.mark.wrong_input
@pytest.mark.parametrize("score", [*SCORES, iou], ids=lambda score: score.__name__)
def test_what_is_not_a_square_matrix_of_counts_is_an_error(score):
    with pytest.raises(ValueError, match=r"must be square, but is \(2, 3\)"):
        score(torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"must be square, but is \(4, 4, 4\)"):
        score(torch.ones(4, 4, 4, dtype=torch.int64))
    # The sum in a matrix of torch.zeros(4, 4), and a matrix divided by its rows.
    for wrong in (torch.zeros(4, 4), torch.eye(4, dtype=torch.float64), torch.eye(4) > 0):
        with pytest.raises(ValueError, match=f"must hold integer counts, but is {wrong.dtype}"):
            score(wrong)


@pytest.mark.wrong_input
def test_unknown_treatment_of_absent_classes_is_an_error():
    with pytest.raises(ValueError, match='must be "skip", "truth" or "zero", but is \'ones\''):
        mean_iou(torch.eye(2, dtype=torch.int64), absent="ones")


# Theorems


def random_matrices():
    generator = numpy.random.default_rng(0)
    for classes in (1, 2, 3, 8):
        for exponent in (0.3, 1, 3, 8):  # from about equal to very unequal counts
            counts = (10 ** (exponent * generator.random((classes, classes)))).astype(int)
            yield torch.from_numpy(counts * (generator.random((classes, classes)) < 0.8))


def test_frequency_weighted_iou_lies_between_squared_accuracy_and_accuracy():
    checked = 0
    for matrix in random_matrices():
        if matrix.sum() == 0:
            continue
        accuracy, weighted = pixel_accuracy(matrix), frequency_weighted_iou(matrix)
        assert accuracy**2 - 1e-12 <= weighted <= accuracy + 1e-12
        assert mean_iou(matrix, absent="truth") <= mean_pixel_accuracy(matrix) + 1e-12
        checked += 1
    assert checked > 12


@pytest.mark.parametrize("classes", [1, 2, 21])
def test_constant_prediction_scores_b_and_1_over_k_and_b_over_k_and_b_squared(classes):
    target = torch.arange(classes).repeat(10)
    target[: 5 * classes] = 0
    share = (target == 0).double().mean()
    matrix = confusion_matrix(torch.zeros_like(target), target, classes)
    assert_close(pixel_accuracy(matrix), share)
    assert_close(mean_pixel_accuracy(matrix), scalar(1 / classes))
    assert_close(mean_iou(matrix), share / classes)
    assert_close(frequency_weighted_iou(matrix), share**2)


def test_pooled_iou_of_all_classes_is_a_function_of_the_accuracy():
    matrix = confusion_matrix(*labels(30, 30), 4)
    hits = matrix.diagonal()
    unions = matrix.sum(0) + matrix.sum(1) - hits
    accuracy = pixel_accuracy(matrix)
    assert_close(hits.sum().double() / unions.sum(), accuracy / (2 - accuracy))


# Tables 2, 4, 5 and 6 of arXiv 1411.4038v2, in percent: pixel accuracy, mean accuracy, mean IU, f.w. IU.
FCN = {
    "VOC2011, 32s fixed": (83.0, 59.7, 45.4, 72.0),
    "VOC2011, 32s": (89.1, 73.3, 59.4, 81.4),
    "VOC2011, 16s": (90.0, 75.7, 62.4, 83.0),
    "VOC2011, 8s": (90.3, 75.9, 62.7, 83.2),
    "NYUDv2, 32s RGB": (60.0, 42.2, 29.2, 43.9),
    "NYUDv2, 32s RGBD": (61.5, 42.4, 30.5, 45.5),
    "NYUDv2, 32s HHA": (57.1, 35.2, 24.2, 40.4),
    "NYUDv2, 32s RGB-HHA": (64.3, 44.9, 32.8, 48.0),
    "NYUDv2, 16s RGB-HHA": (65.4, 46.1, 34.0, 49.5),
    "SIFT Flow, 16s": (85.2, 51.7, 39.5, 76.1),
    "Context 59, 32s": (63.8, 42.7, 31.8, 48.3),
    "Context 59, 16s": (65.7, 46.2, 34.8, 50.7),
    "Context 59, 8s": (65.9, 46.5, 35.1, 51.0),
    "Context 33, 32s": (69.8, 65.1, 50.4, 54.9),
    "Context 33, 16s": (71.8, 68.0, 53.4, 57.5),
    "Context 33, 8s": (71.8, 67.6, 53.5, 57.7),
}


@pytest.mark.parametrize("row", FCN.values(), ids=FCN)
def test_published_tables_obey_the_inequalities(row):
    accuracy, mean_accuracy, mean, weighted = (value / 100 for value in row)
    assert accuracy**2 < weighted < accuracy
    assert mean < mean_accuracy


@pytest.mark.parametrize("data_set", ["VOC2011", "NYUDv2", "Context 59", "Context 33"])
def test_published_accuracy_and_mean_iou_rise_together_on_one_data_set(data_set):
    rows = sorted(row for name, row in FCN.items() if name.startswith(data_set))
    assert len(rows) >= 3
    means = [mean for _, _, mean, _ in sorted(rows, key=lambda row: (row[0], row[2]))]
    assert means == sorted(means)


# Disks


@pytest.mark.parametrize("radius", [4, 8, 16, 32, 64])
def test_disk_off_by_one_pixel_scores_as_the_areas_say(radius):
    axis = torch.arange(-79.5, 80)

    def disk(radius, shift=0):
        return ((axis[:, None] ** 2 + (axis - shift) ** 2) <= radius**2).long()

    def score(mask):
        return iou(confusion_matrix(mask, disk(radius), 2))[1].item()

    assert abs(score(disk(radius + 1)) - radius**2 / (radius + 1) ** 2) < 0.05
    assert abs(score(disk(radius, shift=1)) - (math.pi * radius - 2) / (math.pi * radius + 2)) < 0.05


@pytest.mark.parametrize("score", [pixel_accuracy, mean_pixel_accuracy, iou, mean_iou, frequency_weighted_iou])
@pytest.mark.parametrize("large", [2**62, 2**63 - 1])
def test_counts_whose_sum_exceeds_int64_are_scored(score, large):
    expected = score(torch.full((3, 3), 5))
    assert_close(score(torch.full((3, 3), large)), expected)


def test_a_class_is_in_the_truth_even_if_its_sum_would_overflow():
    matrix = torch.tensor([[2**62, 2**62], [0, 1]])
    assert_close(mean_iou(matrix, absent="truth"), iou(matrix).mean())


@pytest.mark.wrong_input
@pytest.mark.parametrize("score", [pixel_accuracy, mean_pixel_accuracy, iou, mean_iou, frequency_weighted_iou])
@pytest.mark.parametrize("matrix", [[[1, 0], [0, 1]], None, numpy.eye(2, dtype=int), 3], ids=lambda x: type(x).__name__)
def test_scores_refuse_what_is_no_tensor_and_negative_counts(score, matrix):
    with pytest.raises(ValueError, match=f"must be a tensor, but is a {type(matrix).__name__}"):
        score(matrix)
    with pytest.raises(ValueError, match=r"must hold counts, but its least is -1"):
        score(torch.tensor([[1, -1], [0, 1]]))


@pytest.mark.wrong_input
@pytest.mark.parametrize("wrong", [[0, 1], 1, None, numpy.array([0, 1])], ids=lambda x: type(x).__name__)
def test_matrix_refuses_what_is_no_tensor(wrong):
    right = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="the prediction must be a tensor"):
        confusion_matrix(wrong, right, 2)
    with pytest.raises(ValueError, match="the target must be a tensor"):
        confusion_matrix(right, wrong, 2)


@pytest.mark.wrong_input
@pytest.mark.parametrize("label", [[0], (0, 255), 1.5, math.nan, "0"], ids=str)
def test_what_is_not_one_label_ignores_nothing_without_a_word_no_more(label):
    right = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="ignore_index must be one label or None, but is"):
        confusion_matrix(right, right, 2, ignore_index=label)


@pytest.mark.wrong_input  # the hook would refuse NumPy's numbers
def test_numbers_of_other_libraries_count_as_numbers():
    right = torch.tensor([0, 1, 7])
    for two, seven in ((numpy.int64(2), numpy.uint8(7)), (torch.tensor(2), torch.tensor(7))):
        assert confusion_matrix(right, right, two, ignore_index=seven).tolist() == [[1, 0], [0, 1]]
