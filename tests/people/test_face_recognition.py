"""Alignment against scikit-image and SciPy, accuracy and rates against scikit-learn and loops from the definitions."""

import itertools
import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from tensors import assert_same_both_ways, leaf, normal
from torch.testing import assert_close

from zhixing.people.face_recognition import (
    TEMPLATE,
    align,
    fold_accuracy,
    similarity_transform,
    tar_at_far,
    warp,
)


def template(dtype=torch.float64):
    return torch.tensor(TEMPLATE, dtype=dtype)


def similarity(scale, angle, shift):
    a, b = scale * math.cos(angle), scale * math.sin(angle)
    return torch.tensor([[a, -b, shift[0]], [b, a, shift[1]]], dtype=torch.float64)


def apply(matrix, points):
    return points @ matrix[..., :2].mT + matrix[..., None, :, 2]


def umeyama(source, target):
    """Equations 40 to 42 of the paper, by an SVD; for points that no mirror has moved."""
    x_mean, y_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    x, y = source - x_mean, target - y_mean
    u, d, vh = torch.linalg.svd(y.mT @ x)
    sign = torch.ones_like(d)
    sign[..., -1] = torch.linalg.det(u @ vh).sign().detach()
    rotation = u @ (sign[..., None] * vh)
    scale = (d * sign).sum(-1) / x.square().sum((-2, -1))
    linear = scale[..., None, None] * rotation
    return torch.cat([linear, y_mean.mT - linear @ x_mean.mT], -1)


# The similarity


@pytest.mark.parametrize("points", [2, 3, 5, 68])
def test_similarity_equals_that_of_scikit_image(points):
    from skimage.transform import SimilarityTransform

    source, target = 50 * normal(points, 2), 30 * normal(points, 2, seed=1)
    expected = SimilarityTransform.from_estimate(source.numpy(), target.numpy())
    assert_close(similarity_transform(source, target), torch.from_numpy(expected.params[:2]))


def test_values_and_gradients_equal_umeyamas_svd():
    source, target = 40 * normal(6, 5, 2), template() + 3 * normal(6, 5, 2, seed=1)
    source = template() * 1.7 + 0.1 * source
    assert_same_both_ways(similarity_transform, umeyama, source, target)


def test_mirrored_points_give_umeyamas_corrected_solution():
    source, target = template() * torch.tensor([-1.0, 1.0]), template()
    assert_close(similarity_transform(source, target), umeyama(source, target))


def test_similarity_is_undone_exactly():
    matrix = similarity(0.4, 2.5, (30, -70))
    assert_close(similarity_transform(template(), apply(matrix, template())), matrix)


def test_no_other_similarity_is_closer():
    source, target = normal(5, 2), normal(5, 2, seed=1)
    matrix = leaf(similarity_transform(source, target))
    loss = (apply(matrix, source) - target).square().sum()
    (gradient,) = torch.autograd.grad(loss, matrix)
    # The directions in which a similarity can move: scale, angle and shift.
    assert_close(gradient[0, 0] + gradient[1, 1], torch.zeros((), dtype=torch.float64), atol=1e-12, rtol=0)
    assert_close(gradient[1, 0] - gradient[0, 1], torch.zeros((), dtype=torch.float64), atol=1e-12, rtol=0)
    assert_close(gradient[:, 2], torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)


def test_leading_dimensions_are_broadcast():
    source = normal(3, 4, 5, 2)
    found = similarity_transform(source, template())
    assert found.shape == (3, 4, 2, 3)
    for i in range(3):
        for j in range(4):
            assert_close(found[i, j], similarity_transform(source[i, j], template()))
    assert similarity_transform(source[:0], template()).shape == (0, 4, 2, 3)
    assert_close(
        similarity_transform(template(), source),
        torch.stack([torch.stack([similarity_transform(template(), x) for x in row]) for row in source]),
    )


def test_similarity_passes_gradcheck():
    assert torch.autograd.gradcheck(similarity_transform, (leaf(normal(2, 5, 2)), leaf(normal(2, 5, 2, seed=1))))


def test_points_far_from_the_origin_keep_their_precision():
    source = template(torch.float32) + 4096
    matrix = similarity_transform(source, template(torch.float32))
    assert_close(matrix[:, :2], torch.eye(2), rtol=0, atol=1e-5)


def test_swapped_eyes_collapse_the_scale_and_not_an_error():
    """(g1 - g2) / (g1 + g2), with the eigenvalues of the template's scatter."""
    mirrored = template() * torch.tensor([-1.0, 1.0]) + torch.tensor([112.0, 0.0])
    found = similarity_transform(mirrored, template())[:, :2].det().sqrt()
    centred = template() - template().mean(0)
    small, large = torch.linalg.eigvalsh(centred.mT @ centred)
    assert_close(found, (large - small) / (large + small))
    assert abs(found.item() - 0.2253) < 1e-4
    right = similarity_transform(mirrored[[1, 0, 2, 4, 3]], template())[:, :2].det().sqrt()
    assert abs(right.item() - 1) < 0.01


def test_residuals_of_similarity_and_affine_map_are_6_and_4_variances():
    """2 n - 4 and 2 n - 6 for five points; at the true points, it is 4 and 6."""
    sigma, n = 0.3, 8000
    found = template() + sigma * normal(n, 5, 2)
    ones = torch.ones(n, 5, 1, dtype=torch.float64)
    affine = torch.linalg.lstsq(torch.cat([found, ones], -1), template().expand(n, 5, 2)).solution.mT
    for matrix, residual, error in ((similarity_transform(found, template()), 6, 4), (affine, 4, 6)):
        held = (apply(matrix, found) - template()).square().sum((1, 2)).mean() / sigma**2
        off = (apply(matrix, template()) - template()).square().sum((1, 2)).mean() / sigma**2
        assert abs(held.item() - residual) < 0.25
        assert abs(off.item() - error) < 0.25


# Crops


@pytest.mark.parametrize(("height", "width", "size"), [(9, 9, 9), (7, 12, 5), (1, 6, 4), (5, 1, 3), (1, 1, 1)])
def test_warp_equals_map_coordinates(height, width, size):
    from scipy.ndimage import map_coordinates

    images = normal(2, 3, height, width)
    matrix = torch.stack([similarity(0.9, 0.3, (1, -0.5)), similarity(1.4, -0.8, (0.2, 2))])
    matrix[1, 0, 1] += 0.3  # affine
    found = warp(images, matrix, size=size)
    rows, columns = numpy.mgrid[:size, :size]
    crop = numpy.stack([columns.ravel(), rows.ravel(), numpy.ones(size * size)])
    for b in range(2):
        square = numpy.vstack([matrix[b].numpy(), [0, 0, 1]])
        x, y, _ = numpy.linalg.inv(square) @ crop
        for c in range(3):
            # A border of zeros, since grid_sample blends with the zeros outside.
            padded = numpy.pad(images[b, c].numpy(), 1)
            read = map_coordinates(padded, [y + 1, x + 1], order=1, mode="constant", cval=0.0)
            assert_close(found[b, c].flatten(), torch.from_numpy(read))


def test_warp_equals_scikit_images():
    from skimage.transform import AffineTransform
    from skimage.transform import warp as skimage_warp

    image, matrix = normal(1, 1, 30, 30), similarity(1.1, 0.2, (2, -3))
    transform = AffineTransform(matrix=numpy.vstack([matrix.numpy(), [0, 0, 1]]))
    expected = skimage_warp(image[0, 0].numpy(), transform.inverse, output_shape=(20, 20), order=1)
    found = warp(image, matrix[None], size=20)[0, 0]
    places = apply(
        torch.from_numpy(numpy.linalg.inv(transform.params)[:2]),
        torch.cartesian_prod(*[torch.arange(20.0)] * 2).double(),
    )
    inside = ((places > 0) & (places < 29)).all(1).view(20, 20).T
    assert inside.sum() > 200
    assert_close(found[inside], torch.from_numpy(expected)[inside])


def test_whole_shift_moves_pixels_and_fills_with_zeros():
    image = normal(1, 2, 6, 6)
    matrix = similarity(1, 0, (2, -1))[None]
    found = warp(image, matrix, size=6)
    assert_close(found[:, :, :5, 2:], image[:, :, 1:, :4])
    assert (found[:, :, :, :2] == 0).all()
    assert (found[:, :, 5] == 0).all()


def test_mirror_flips_the_image():
    image = normal(1, 2, 5, 5)
    matrix = torch.tensor([[[-1.0, 0.0, 4.0], [0.0, 1.0, 0.0]]], dtype=torch.float64)
    assert_close(warp(image, matrix, size=5), image.flip(3))


def test_warp_passes_gradcheck():
    matrix = leaf(torch.stack([similarity(0.9, 0.3, (1.03, -0.52)), similarity(1.37, -0.8, (0.21, 2.1))]))
    assert torch.autograd.gradcheck(lambda x, m: warp(x, m, size=3), (leaf(normal(2, 1, 5, 6)), matrix))


def test_align_and_its_gradients_equal_umeyama_and_grid_sample():
    images = normal(2, 3, 60, 50)
    landmarks = torch.stack(
        [
            apply(similarity(0.4, 0.3, (10, 2)), template()),
            apply(similarity(0.3, -0.4, (5, 20)), template()),
        ]
    ) + 0.5 * normal(2, 5, 2, seed=3)

    def theirs(images, landmarks):
        matrix = umeyama(landmarks, template() * 20 / 112)
        inverse = torch.linalg.inv(matrix[:, :, :2])
        inverse = torch.cat([inverse, -inverse @ matrix[:, :, 2:]], -1)
        grid = torch.stack(torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="xy"), -1).double()
        points = apply(inverse, grid.view(1, 400, 2)).view(-1, 20, 20, 2)
        scale = torch.tensor([49.0, 59.0], dtype=torch.float64)
        return F.grid_sample(images, 2 * points / scale - 1, align_corners=True)

    assert_same_both_ways(lambda x, p: align(x, p, size=20), theirs, images, landmarks)


def test_landmarks_land_on_the_template():
    """A bright dot at each landmark of a turned face is found at the template's place."""
    matrix = similarity(2.0, 0.5, (60, 10))
    landmarks = apply(matrix, template())
    y, x = torch.meshgrid(torch.arange(300.0), torch.arange(300.0), indexing="ij")
    for point, wanted in zip(landmarks, template(), strict=True):
        image = torch.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / 50)[None, None]
        crop = align(image, landmarks[None].float())[0, 0]
        weights = crop / crop.sum()
        centre = torch.stack(
            [(weights.sum(0) * torch.arange(112.0)).sum(), (weights.sum(1) * torch.arange(112.0)).sum()]
        )
        assert_close(centre, wanted.float(), atol=0.1, rtol=0)


def test_template_is_scaled_with_the_crop():
    landmarks = template(torch.float32)[None] * 3
    images = torch.rand(1, 1, 336, 336)
    small, large = (align(images, landmarks, size=size) for size in (112, 224))
    half = warp(large, torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]]), size=112)
    assert F.mse_loss(small, half) < 0.25 * small.var()
    assert_close(large[:, :, ::2, ::2], small)


def test_template_is_the_published_one():
    """Eyes 35.24 pixels apart; shifted to the left by 8 pixels, it is the form for crops of 112 × 96."""
    points = template()
    assert abs((points[1] - points[0]).norm().item() - 35.24) < 0.005
    narrow = [(30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041)]
    assert_close(points - torch.tensor([8.0, 0.0]), torch.tensor(narrow, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_costs_the_rounding_of_the_inputs_only(dtype):
    images = normal(1, 3, 40, 40).to(dtype)
    landmarks = apply(similarity(0.3, 0.2, (2, 3)), template())[None].to(dtype)
    found = align(images, landmarks, size=16)
    assert found.dtype == dtype
    assert_close(found, align(images.float(), landmarks.float(), size=16).to(dtype))
    assert similarity_transform(landmarks, landmarks).dtype == torch.float32


def test_autocast_leaves_places_exact():
    images, landmarks = normal(2, 1, 60, 60, dtype=torch.float32), (30 + 9 * normal(2, 5, 2)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = align(images, landmarks, size=20)
    assert_close(found, align(images, landmarks, size=20))


def test_strided_images_and_landmarks_are_read_in_order():
    images, landmarks = normal(40, 40, 3, 4).permute(3, 2, 0, 1)[::2], (20 + 8 * normal(5, 2, 4)).permute(2, 0, 1)[::2]
    assert not images.is_contiguous()
    assert_close(align(images, landmarks, size=9), align(images.contiguous(), landmarks.contiguous(), size=9))


def test_no_images_give_no_crops():
    assert align(torch.zeros(0, 3, 8, 8), torch.zeros(0, 5, 2), size=7).shape == (0, 3, 7, 7)


def test_arguments_are_not_changed():
    images, landmarks = normal(1, 1, 20, 20), 10 + 5 * normal(1, 5, 2)
    before = images.clone(), landmarks.clone()
    align(images, landmarks, size=8)
    assert torch.equal(images, before[0])
    assert torch.equal(landmarks, before[1])


# Pairs


def loop_accuracies(scores, same, folds):
    """KFold of scikit-learn, and every threshold between two scores."""
    from sklearn.model_selection import KFold

    scores, same = scores.double().numpy(), same.numpy()
    found = []
    for train, held in KFold(folds).split(scores):
        values = sorted(set(scores[train]))
        thresholds = [-math.inf, *((low + high) / 2 for low, high in itertools.pairwise(values)), math.inf]
        best, kept = -1, None
        for threshold in thresholds:
            accuracy = sum((scores[train] > threshold) == same[train])
            if accuracy > best:
                best, kept = accuracy, threshold
        found.append(sum((scores[held] > kept) == same[held]) / len(held))
    return found


@pytest.mark.parametrize(("pairs", "folds"), [(60, 10), (47, 5), (2, 2), (13, 13)])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_fold_accuracy_equals_a_loop(pairs, folds, ties):
    same = normal(pairs, seed=1) > 0
    scores = normal(pairs) + same
    if ties:
        scores = (2 * scores).round() / 2
    found = fold_accuracy(scores, same, folds=folds)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(loop_accuracies(scores, same, folds))


def test_folds_without_one_kind_of_pairs_are_judged_too():
    scores = torch.arange(8.0)
    assert fold_accuracy(scores, scores > -1, folds=4).tolist() == [1, 1, 1, 1]
    assert fold_accuracy(scores, scores > 99, folds=4).tolist() == [1, 1, 1, 1]


def test_accuracy_is_blind_to_increasing_functions_of_separated_scores():
    same = torch.arange(40) % 2 == 0
    scores = torch.where(same, 2.0, -2.0) + normal(40).clamp(-1, 1)
    assert fold_accuracy(scores, same).tolist() == [1] * 10
    assert fold_accuracy(scores.sigmoid(), same).tolist() == [1] * 10


def test_distances_in_place_of_scores_are_wrong_more_often_than_right():
    same = torch.arange(200) % 2 == 0
    distances = torch.where(same, 1.0, 3.0) + normal(200)
    assert fold_accuracy(-distances, same).mean() > 0.75
    assert fold_accuracy(distances, same).mean() < 0.6


def test_thresholds_of_the_test_folds_gain_on_pairs_of_chance():
    """Scores that say nothing: honest folds are right half of the time, folds with hindsight more often."""
    same = torch.arange(600) % 2 == 0
    scores = normal(600)
    honest = fold_accuracy(scores, same).mean()
    tuned = [
        max(((part > t) == kind).double().mean() for t in part)
        for part, kind in zip(scores.chunk(10), same.chunk(10), strict=True)
    ]
    assert torch.stack(tuned).mean() > honest + 0.03


def test_published_accuracy_of_lfw_is_5986_of_6000_pairs():
    """0.99767 in deepinsight/insightface#1908; the standard errors of FaceNet are close to the binomial ones."""
    same = torch.arange(6000) % 600 < 300
    scores = same.double() + 0.1 * normal(6000).clamp(-1, 1)
    wrong = torch.arange(14) * 420
    scores[wrong] = 1 - scores[wrong]
    assert f"{fold_accuracy(scores, same).mean():.5f}" == "0.99767"
    for accuracy, error in ((98.87, 0.15), (99.63, 0.09)):
        assert abs(math.sqrt(accuracy * (100 - accuracy) / 6000) - error) < 0.02


@pytest.mark.parametrize("far", [0, 0.001, 0.013, 0.1, 0.29, 0.5, 1, 1.0])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_tar_equals_the_roc_curve_of_scikit_learn(far, ties):
    from sklearn.metrics import roc_curve

    genuine, impostor = normal(300) + 2, normal(1000, seed=1)
    if ties:
        genuine, impostor = ((4 * x).round() / 4 for x in (genuine, impostor))
    labels = [1] * 300 + [0] * 1000
    rates, accepts, _ = roc_curve(labels, torch.cat([genuine, impostor]).numpy(), drop_intermediate=False)
    assert tar_at_far(genuine, impostor, far) == pytest.approx(accepts[rates <= far + 1e-9].max())


@pytest.mark.parametrize("pairs", [1, 3, 7, 49, 100, 3000])
def test_each_whole_number_of_impostors_can_be_asked_for(pairs):
    """far = k / N is k impostors, although k / N · N may be a little below k."""
    impostor = torch.arange(pairs, dtype=torch.float64)
    genuine = impostor + 0.5
    for k in range(pairs):
        assert tar_at_far(genuine, impostor, k / pairs) == pytest.approx((k + 1) / pairs)


def test_order_and_strides_of_scores_do_not_matter():
    genuine, impostor = normal(40) + 1, normal(50, seed=1)
    expected = tar_at_far(genuine, impostor, 0.1)
    assert tar_at_far(genuine.flip(0), impostor.flip(0), 0.1) == expected
    double = torch.stack([impostor, -impostor], 1)[:, 0]
    assert not double.is_contiguous()
    assert tar_at_far(genuine, double, 0.1) == expected
    same = torch.arange(50) % 3 == 0
    assert torch.equal(fold_accuracy(double, same), fold_accuracy(impostor, same))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_rounded_scores_are_judged_as_they_are(dtype):
    genuine, impostor = (normal(200) + 2).to(dtype), normal(300, seed=1).to(dtype)
    assert tar_at_far(genuine, impostor, 0.1) == tar_at_far(genuine.double(), impostor.double(), 0.1)
    scores, same = torch.cat([genuine, impostor]), torch.arange(500) < 200
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    scores, same = scores[order], same[order]
    assert torch.equal(fold_accuracy(scores, same), fold_accuracy(scores.double(), same))


# Wrong input

POINTS = torch.tensor(TEMPLATE)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("source", "target", "match"),
    [
        (TEMPLATE, POINTS, "source must be a floating-point tensor .*, but is a tuple"),
        (POINTS.long(), POINTS, "source must be a floating-point tensor .*, but is torch.int64"),
        (POINTS, POINTS.numpy(), "target must be a floating-point tensor .*, but is a ndarray"),
        (POINTS[:1], POINTS[:1], r"source must be .* with N ≥ 2, but is \(1, 2\)"),
        (POINTS[0], POINTS, r"source must be .*, but is \(2,\)"),
        (POINTS.T, POINTS, r"source must be .*, but is \(2, 5\)"),
        (POINTS[:, :1], POINTS, r"source must be .*, but is \(5, 1\)"),
        (POINTS[:4], POINTS, "4 source points, but 5 targets"),
        (POINTS, POINTS[:4], "5 source points, but 4 targets"),
        (torch.ones(5, 2), POINTS, "all source points of a face are equal"),
        (torch.full((7, 2), 0.1), POINTS[[0, 1, 2, 3, 4, 0, 1]], "all source points of a face are equal"),
        (POINTS + math.inf, POINTS, "not finite"),
        (POINTS * math.nan, POINTS, "not finite"),
        (POINTS, POINTS * math.nan, "not finite"),
        (torch.stack([POINTS, torch.zeros(5, 2)]), POINTS, "all source points of a face are equal"),
    ],
    ids=[
        "tuple",
        "integers",
        "numpy",
        "one point",
        "no points",
        "transposed",
        "one coordinate",
        "fewer",
        "more",
        "equal",
        "equal with a rounded mean",
        "infinite",
        "NaN",
        "NaN target",
        "one equal",
    ],
)
def test_points_that_do_not_fit_are_an_error(source, target, match):
    with pytest.raises(ValueError, match=match):
        similarity_transform(source, target)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("images", "landmarks", "size", "match"),
    [
        (torch.zeros(3, 8, 8), torch.zeros(1, 5, 2), 112, r"images must be \(B, C, H, W\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), POINTS[None], 112, "images must be a floating-point tensor"),
        (torch.zeros(1, 3, 8, 8), POINTS, 112, r"landmarks must be \(B, 5, 2\)"),
        (torch.zeros(2, 3, 8, 8), POINTS[None], 112, "2 images, but landmarks of 1"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 68, 2), 112, r"landmarks must be \(B, 5, 2\)"),
        (torch.zeros(1, 3, 8, 8), POINTS[None], 0, "size must be a positive integer"),
        (torch.zeros(1, 3, 8, 8), POINTS[None], (112, 96), "size must be a positive integer"),
        (torch.zeros(1, 3, 8, 8), POINTS[None], 112.0, "size must be a positive integer"),
        (torch.zeros(1, 3, 0, 8), POINTS[None], 112, "only B may be 0"),
    ],
    ids=["one image", "bytes", "one face", "another number", "68 points", "no size", "two sizes", "float", "no rows"],
)
def test_images_that_do_not_fit_are_an_error(images, landmarks, size, match):
    with pytest.raises(ValueError, match=match):
        align(images, landmarks, size=size)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (torch.zeros(1, 2, 3), r"a matrix has no inverse: the determinants are \[0.0\]"),
        (torch.full((1, 2, 3), math.nan), "a matrix has no inverse"),
        (torch.eye(3)[None], r"matrix must be \(B, 2, 3\)"),
        (torch.eye(2, 3), r"matrix must be \(B, 2, 3\)"),
        (None, "matrix must be a floating-point tensor"),
    ],
    ids=["zero", "NaN", "square", "one", "None"],
)
def test_matrices_that_do_not_fit_are_an_error(matrix, match):
    with pytest.raises(ValueError, match=match):
        warp(torch.zeros(1, 1, 4, 4), matrix, size=4)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("scores", "same", "folds", "match"),
    [
        (torch.zeros(4, 1), torch.zeros(4).bool(), 2, r"scores must be \(N\)"),
        ([0.1, 0.2], torch.zeros(2).bool(), 2, "scores must be a floating-point tensor"),
        (torch.tensor([0.0, math.nan]), torch.zeros(2).bool(), 2, "scores must be finite"),
        (torch.zeros(4), torch.zeros(4), 2, "same must be a tensor of bool"),
        (torch.zeros(4), [True] * 4, 2, "same must be a tensor of bool"),
        (torch.zeros(4), torch.zeros(3).bool(), 2, "same must be a tensor of bool"),
        (torch.zeros(4), torch.zeros(4).bool(), 1, "folds must be an integer of at least 2"),
        (torch.zeros(4), torch.zeros(4).bool(), 2.5, "folds must be an integer of at least 2"),
        (torch.zeros(4), torch.zeros(4).bool(), 5, "4 pairs are too few for 5 folds"),
        (torch.zeros(0), torch.zeros(0).bool(), 2, "only B may be 0"),
    ],
    ids=[
        "matrix",
        "list",
        "NaN",
        "float flags",
        "list of flags",
        "fewer flags",
        "one fold",
        "half",
        "too many",
        "none",
    ],
)
def test_pairs_that_do_not_fit_are_an_error(scores, same, folds, match):
    with pytest.raises(ValueError, match=match):
        fold_accuracy(scores, same, folds=folds)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("genuine", "impostor", "far", "match"),
    [
        (
            torch.zeros(3),
            torch.zeros(3000),
            1e-4,
            "far = 0.0001 needs at least 10000 impostor pairs, but there are 3000",
        ),
        (torch.zeros(3), torch.zeros(9), 0.1, "far = 0.1 needs at least 10 impostor pairs, but there are 9"),
        (torch.zeros(3), torch.zeros(9), -0.1, "far must be a number from 0 to 1"),
        (torch.zeros(3), torch.zeros(9), 1.5, "far must be a number from 0 to 1"),
        (torch.zeros(3), torch.zeros(9), math.nan, "far must be a number from 0 to 1"),
        (torch.zeros(3), torch.zeros(9), "0.1", "far must be a number from 0 to 1"),
        (torch.zeros(0), torch.zeros(9), 0.5, "only B may be 0"),
        (torch.zeros(3), torch.zeros(0), 0.5, "only B may be 0"),
        (torch.zeros(3), torch.full((9,), math.inf), 0.5, "impostor must be finite"),
        (torch.full((3,), math.nan), torch.zeros(9), 0.5, "genuine must be finite"),
        ([0.5], torch.zeros(9), 0.5, "genuine must be a floating-point tensor"),
        (torch.zeros(3), torch.zeros(9).long(), 0.5, "impostor must be a floating-point tensor"),
    ],
    ids=[
        "of 3000",
        "of 9",
        "negative",
        "large",
        "NaN",
        "text",
        "no genuine",
        "no impostor",
        "infinite",
        "NaN score",
        "list",
        "integers",
    ],
)
def test_rates_that_cannot_be_observed_are_an_error(genuine, impostor, far, match):
    with pytest.raises(ValueError, match=match):
        tar_at_far(genuine, impostor, far)
