"""Image matching against kornia, scikit-image, SciPy, NumPy's histogram, loops, and the benchmark's published runs."""

import math

import numpy
import pytest
import torch
from tensors import assert_same_both_ways, normal
from torch.testing import assert_close

from zhixing.matching.image_matching import (
    calibrate,
    eight_point,
    mean_average_accuracy,
    mutual_matches,
    pose_error,
    ransac,
    relative_pose,
    sample_count,
    sampson,
)

K = torch.tensor([[500.0, 3.0, 320.0], [0.0, 480.0, 240.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def rotation(*axis):
    """Return the rotation about an axis whose length is the angle in radians."""
    x, y, z = axis
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    return torch.linalg.matrix_exp(cross)


def skew(t):
    x, y, z = t.tolist()
    return torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)


def two_views(points=30, *, seed=0, noise=0.0):
    """Return matches of two calibrated cameras, with the rotation and the translation between them."""
    r, t = rotation(0.1, -0.3, 0.05), torch.tensor([0.8, 0.1, -0.3], dtype=torch.float64)
    world = normal(points, 3, seed=seed) + torch.tensor([0.0, 0.0, 6.0], dtype=torch.float64)
    seen = world @ r.T + t
    x, y = world[:, :2] / world[:, 2:], seen[:, :2] / seen[:, 2:]
    return x + noise * normal(points, 2, seed=8), y + noise * normal(points, 2, seed=9), r, t


def pixels(x):
    return torch.cat([x, torch.ones_like(x[..., :1])], -1) @ K.T[:, :2]


def up_to_scale(f):
    f = f / f.norm(dim=(-2, -1), keepdim=True)
    return f * f[..., 2, 1].sign()[..., None, None]


@pytest.fixture(scope="module")
def kornia():
    import kornia.feature
    import kornia.geometry

    return kornia


# Matches


@pytest.mark.parametrize("seed", range(3))
def test_mutual_matches_are_those_of_kornia(kornia, seed):
    a, b = normal(40, 8, seed=seed, dtype=torch.float32), normal(31, 8, seed=seed + 10, dtype=torch.float32)
    a[:20] = b[:20] + 0.2 * a[:20]
    expected = kornia.feature.match_mnn(a, b)[1]
    assert 20 < len(expected) < 31
    assert sorted(mutual_matches(a, b).tolist()) == sorted(expected.tolist())
    for ratio in (0.3, 0.6, 0.8, 0.95):
        expected = kornia.feature.match_smnn(a, b, ratio)[1]
        ours = mutual_matches(a, b, ratio=ratio)
        assert sorted(ours.tolist()) == sorted(expected.tolist())
        assert ours[:, 0].tolist() == sorted(ours[:, 0].tolist())


def test_mutual_matches_are_those_of_scikit_image_and_of_a_loop():
    from skimage.feature import match_descriptors

    a, b = normal(25, 6), normal(18, 6, seed=1)
    assert mutual_matches(a, b).tolist() == match_descriptors(a.numpy(), b.numpy(), cross_check=True).tolist()
    expected = []
    for i in range(25):
        there = sorted(((a[i] - b[j]).norm().item(), j) for j in range(18))
        j = there[0][1]
        back = sorted(((a[k] - b[j]).norm().item(), k) for k in range(25))
        if back[0][1] == i and there[0][0] <= 0.9 * there[1][0] and back[0][0] <= 0.9 * back[1][0]:
            expected.append([i, j])
    assert 0 < len(expected) < len(mutual_matches(a, b))
    assert mutual_matches(a, b, ratio=0.9).tolist() == expected


def test_ratio_test_also_looks_from_the_second_image():
    # From the first image the match is clear; in the second another one is nearly as near.
    a, b = torch.tensor([[0.0], [2.2]]), torch.tensor([[1.0], [9.0]])
    assert mutual_matches(a, b, ratio=0.9).tolist() == [[0, 0]]
    assert mutual_matches(a, b, ratio=0.8).tolist() == []
    assert mutual_matches(b, a, ratio=0.8).tolist() == []


def test_equal_descriptors_have_ratio_one():
    a, b = torch.zeros(2, 3), torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert mutual_matches(a, b, ratio=0.99).shape == (0, 2)
    assert len(mutual_matches(a, b)) == 1


def test_matches_far_from_zero_keep_small_distances():
    # Distances near 0.01 between numbers near 1000: a product of matrices would lose them.
    a = torch.stack([1000 + 0.01 * torch.arange(6), torch.full((6,), 1000.0)], 1)
    b = a.flip(0) + torch.tensor([0.002, 0.0])
    assert mutual_matches(a, b).tolist() == [[i, 5 - i] for i in range(6)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_matches_of_half_precision_are_those_of_the_same_numbers(dtype):
    a, b = normal(30, 8, dtype=dtype), normal(20, 8, seed=1, dtype=dtype)
    assert mutual_matches(a, b, ratio=0.95).tolist() == mutual_matches(a.double(), b.double(), ratio=0.95).tolist()


def test_matches_of_transposed_memory():
    a, b = normal(8, 30).T, normal(8, 20, seed=1).T
    assert not a.is_contiguous()
    assert mutual_matches(a, b).tolist() == mutual_matches(a.contiguous(), b.contiguous()).tolist()


# Geometry


def test_calibrate_inverts_the_camera(kornia):
    x = normal(3, 5, 2)
    assert_close(calibrate(pixels(x), K), x)
    wide = torch.diag(torch.tensor([0.5, 0.25, 1.0]).double())  # focal lengths below one pixel
    assert_close(calibrate(x / 4, wide), torch.stack([x[..., 0] / 2, x[..., 1]], -1))
    plain = torch.diag(K.diagonal())
    plain[:2, 2] = K[:2, 2]
    x = pixels(x)
    assert_close(calibrate(x, plain), kornia.geometry.normalize_points_with_intrinsics(x, plain))


@pytest.mark.parametrize("points", [8, 9, 30])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_eight_point_is_that_of_kornia(kornia, points, noise):
    x, y, _, _ = two_views(points, noise=noise)
    x, y = pixels(x), pixels(y)
    ours = eight_point(x, y)
    assert_close(ours.norm().item(), 1.0)
    assert_close(
        up_to_scale(ours), up_to_scale(kornia.geometry.find_fundamental(x[None], y[None])[0]), rtol=1e-5, atol=1e-9
    )


@pytest.mark.parametrize("points", [8, 30])
def test_eight_point_without_noise_is_that_of_scikit_image(points):
    from skimage.transform import FundamentalMatrixTransform

    # It scales to a root mean square of √2 instead of a mean: with noise, its result is another.
    x, y = (pixels(v) for v in two_views(points)[:2])
    theirs = torch.from_numpy(FundamentalMatrixTransform.from_estimate(x.numpy(), y.numpy()).params)
    assert_close(up_to_scale(eight_point(x, y)), up_to_scale(theirs), rtol=1e-5, atol=1e-9)


def test_eight_point_gradients_are_those_of_kornia(kornia):
    x, y, _, _ = two_views(12, noise=1e-2)

    def ours(x, y):
        return up_to_scale(eight_point(x, y))

    def theirs(x, y):
        return up_to_scale(kornia.geometry.find_fundamental(x[None], y[None])[0])

    assert_same_both_ways(ours, theirs, x, y)


def test_eight_point_finds_the_matrix_of_the_cameras():
    x, y, r, t = two_views()
    assert_close(up_to_scale(eight_point(x, y)), up_to_scale(skew(t) @ r))
    f = eight_point(pixels(x), pixels(y))
    assert_close(up_to_scale(K.T @ f @ K), up_to_scale(skew(t) @ r))


def test_eight_point_has_rank_two_and_batches():
    x, y, _, _ = two_views(20, noise=0.01)
    f = eight_point(x, y)
    s = torch.linalg.svdvals(f)
    assert s[2] < 1e-12 < s[1]
    batch = eight_point(torch.stack([x, y]), torch.stack([y, x]))
    assert_close(up_to_scale(batch[0]), up_to_scale(f))
    # With both images exchanged, F is transposed.
    assert_close(up_to_scale(batch[1]), up_to_scale(f.T))


def test_normalisation_makes_eight_point_ignore_similarity_transforms():
    x, y, _, _ = two_views(15, noise=0.01)
    move = torch.tensor([[300.0, -400.0, 1000.0], [400.0, 300.0, -50.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    moved = torch.cat([x, torch.ones(15, 1).double()], 1) @ move.T[:, :2]
    assert_close(up_to_scale(eight_point(moved, y) @ move), up_to_scale(eight_point(x, y)))


def test_eight_equal_points_do_not_fail():
    x = torch.ones(8, 2, dtype=torch.float64)
    assert eight_point(x, normal(8, 2)).isfinite().all()


def test_sampson_is_that_of_kornia_with_gradients(kornia):
    x, y, _, _ = two_views(9, noise=0.05)
    f = normal(3, 3, seed=4)

    def theirs(f, x, y):
        return kornia.geometry.sampson_epipolar_distance(x[None], y[None], f[None], squared=False)[0]

    assert_same_both_ways(sampson, theirs, f, x, y)
    assert torch.autograd.gradcheck(sampson, [v.clone().requires_grad_() for v in (f, x, y)])


def test_sampson_is_that_of_scikit_image_and_scales_with_the_unit():
    from skimage.transform import FundamentalMatrixTransform

    x, y, r, t = two_views(11, noise=0.05)
    e = skew(t) @ r
    expected = FundamentalMatrixTransform(e.numpy()).residuals(x.numpy(), y.numpy())
    assert_close(sampson(e, x, y), torch.from_numpy(expected))
    assert_close(sampson(-7 * e, x, y), sampson(e, x, y))
    larger = torch.diag(torch.tensor([0.1, 0.1, 1.0], dtype=torch.float64))
    assert_close(sampson(larger @ e @ larger, 10 * x, 10 * y), 10 * sampson(e, x, y))
    assert sampson(e, x[:0], y[:0]).shape == (0,)


def test_sampson_is_about_the_least_move_that_fulfils_the_equation():
    x, y, r, t = two_views(6, noise=1e-3)
    e = skew(t) @ r
    # Newton steps along the gradient reach the nearest point of the surface.
    moved = torch.cat([x, y], 1)
    for _ in range(5):
        point = moved.clone().requires_grad_()
        ones = torch.ones(6, 1, dtype=torch.float64)
        value = ((torch.cat([point[:, 2:], ones], 1) @ e) * torch.cat([point[:, :2], ones], 1)).sum(1)
        (slope,) = torch.autograd.grad(value.sum(), point)
        moved = moved - value.detach()[:, None] * slope / (slope**2).sum(1, keepdim=True)
    assert_close(sampson(e, x, y), (moved - torch.cat([x, y], 1)).norm(dim=1), rtol=1e-3, atol=1e-9)


def test_sampson_is_zero_at_the_epipoles():
    e = skew(torch.tensor([0.0, 0.0, 1.0]))  # a camera that moves along its axis
    zero = torch.zeros(1, 2, dtype=torch.float64)
    assert sampson(e, zero, zero).tolist() == [0.0]


# RANSAC


def test_sample_count_is_the_least_that_reaches_the_confidence():
    for w in (0.3, 0.5, 0.6, 0.9, 0.999):
        for size in (1, 5, 7, 8):
            for p in (0.5, 0.99, 0.999999):
                count = sample_count(w, size, confidence=p)
                assert 1 - (1 - w**size) ** count >= p - 1e-9
                assert count == 1 or 1 - (1 - w**size) ** (count - 1) < p + 1e-9
    assert sample_count(1.0, 8) == sample_count(0.1, 8, confidence=0) == 1


def test_sample_count_is_that_of_scikit_image_and_of_the_textbook():
    from skimage.measure.fit import _dynamic_max_trials

    for inliers in (60, 75, 90):
        for size in (5, 7, 8):
            assert sample_count(inliers / 100, size) == math.ceil(_dynamic_max_trials(inliers, 100, size, 0.99))
    # Hartley and Zisserman, table 4.3: rows s = 2, 7, 8, columns 5%, 20%, 50% of outliers.
    table = {2: (2, 5, 17), 7: (4, 20, 588), 8: (5, 26, 1177)}
    for size, counts in table.items():
        assert tuple(sample_count(w, size) for w in (0.95, 0.8, 0.5)) == counts


def with_wrong(points=60, wrong=20, noise=0.0):
    x, y, r, t = two_views(points, noise=noise)
    y[:wrong] = normal(wrong, 2, seed=5) / 3
    return x, y, r, t


def test_ransac_finds_the_right_matches():
    x, y, r, t = with_wrong()
    e, inliers = ransac(x, y, threshold=1e-6, samples=400, generator=torch.Generator().manual_seed(0))
    assert inliers[20:].all()
    assert inliers[:20].sum() == 0
    assert_close(up_to_scale(e), up_to_scale(skew(t) @ r))


def test_ransac_chooses_the_most_inliers_of_its_samples():
    x, y, _, _ = with_wrong(noise=2e-3)
    drawn = torch.multinomial(torch.ones(50, 60), 8, generator=torch.Generator().manual_seed(3))
    most = max(((sampson(eight_point(x[i], y[i]), x, y) <= 0.005) for i in drawn), key=lambda kept: kept.sum())
    e, inliers = ransac(x, y, threshold=0.005, samples=50, generator=torch.Generator().manual_seed(3))
    assert inliers.tolist() == most.tolist()
    assert 20 < inliers.sum() < 60
    assert_close(up_to_scale(e), up_to_scale(eight_point(x[most], y[most])))


def test_ransac_keeps_the_sample_when_too_few_agree():
    x, y = normal(12, 2), normal(12, 2, seed=1)
    e, inliers = ransac(x, y, threshold=1e-9, samples=5, generator=torch.Generator().manual_seed(0))
    assert inliers.sum() < 8
    assert_close(torch.linalg.det(e).abs().item(), 0.0)


def test_ransac_finds_as_many_inliers_as_kornia(kornia):
    x, y, r, t = with_wrong(noise=2e-3)
    torch.manual_seed(0)
    theirs = kornia.geometry.RANSAC("fundamental_8pt", inl_th=0.01, batch_size=256, max_iter=2, max_lo_iters=0)
    _, kept = theirs(x, y)
    e, inliers = ransac(x, y, threshold=0.01, samples=512, generator=torch.Generator().manual_seed(0))
    assert abs(int(inliers.sum()) - int(kept.sum())) <= 5
    assert pose_error(*relative_pose(e, x[inliers], y[inliers]), r, t) < 5


# Pose


@pytest.mark.parametrize("seed", range(4))
def test_relative_pose_is_that_of_kornia_and_of_the_cameras(kornia, seed):
    x, y, r, t = two_views(10, seed=seed)
    identity = torch.eye(3, dtype=torch.float64)
    choose = kornia.geometry.motion_from_essential_choose_solution
    for e in (skew(t) @ r, -3 * skew(t) @ r):
        ours = relative_pose(e, x, y)
        theirs = choose(e[None], identity[None], identity[None], x[None], y[None])
        assert_close(ours[0], theirs[0][0])
        assert_close(ours[1], theirs[1][0, :, 0] / theirs[1].norm())
        assert_close(ours[0], r)
        assert_close(ours[1], t / t.norm())


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("turned", [False, True])
def test_each_of_the_four_poses_is_found(sign, turned):
    r, t = rotation(0.0, 0.2, 0.0), torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    half = 2 * torch.outer(t, t) / (t @ t) - torch.eye(3, dtype=torch.float64)  # a half turn about t
    r, t = (half @ r if turned else r), sign * t
    # Points in front of both cameras: of many, those with both depths positive.
    world = 5 * normal(4000, 3)
    seen = world @ r.T + t
    front = (world[:, 2] > 0.1) & (seen[:, 2] > 0.1)
    world, seen = world[front], seen[front]
    assert len(world) > 5
    ours = relative_pose(skew(t) @ r, world[:, :2] / world[:, 2:], seen[:, :2] / seen[:, 2:])
    assert_close(ours[0], r)
    assert_close(ours[1], t / t.norm())


def test_relative_pose_of_a_matrix_that_is_not_quite_essential(kornia):
    x, y, r, t = two_views(20, noise=1e-3)
    e = eight_point(x, y)
    ours = relative_pose(e, x, y)
    nearest = kornia.geometry.epipolar.project_to_essential(e[None])[0]
    assert not torch.allclose(nearest / nearest.norm(), e)
    assert_close(ours, relative_pose(nearest, x, y))
    assert_close(torch.linalg.det(ours[0]).item(), 1.0)
    assert pose_error(*ours, r, t) < 3


def test_five_points_determine_the_matrix_of_a_plane_but_eight_do_not(kornia):
    r, t = rotation(0.1, -0.3, 0.05), torch.tensor([0.8, 0.1, -0.3], dtype=torch.float64)
    world = torch.cat([normal(8, 2), torch.full((8, 1), 5.0)], 1) @ rotation(0.2, 0.3, 0.0).T
    seen = world @ r.T + t
    x, y = world[:, :2] / world[:, 2:], seen[:, :2] / seen[:, 2:]
    e = up_to_scale(skew(t) @ r)
    candidates = up_to_scale(kornia.geometry.find_essential(x[None, :5], y[None, :5])[0])
    distances = (candidates - e).norm(dim=(1, 2))
    assert distances[distances.isfinite()].min() < 1e-6  # unused places are 0 / 0
    rows = (torch.cat([y, torch.ones(8, 1)], 1)[:, :, None] * torch.cat([x, torch.ones(8, 1)], 1)[:, None]).flatten(1)
    s = torch.linalg.svdvals(rows)
    assert s[6] < 1e-12 < 1e-3 < s[5]  # 9 - 6 = 3 dimensions of matrices fit
    assert sampson(e, x, y).max() < 1e-12


def test_pose_error_is_that_of_scipy():
    from scipy.spatial.transform import Rotation

    r = torch.stack([rotation(*row) for row in normal(20, 3).tolist()])
    true = torch.stack([rotation(*row) for row in normal(20, 3, seed=1).tolist()])
    t, t_true = normal(20, 3, seed=2), normal(20, 3, seed=3)
    angles = (Rotation.from_matrix(r.numpy()).inv() * Rotation.from_matrix(true.numpy())).magnitude()
    cosine = (t * t_true).sum(1).abs() / t.norm(dim=1) / t_true.norm(dim=1)
    expected = numpy.maximum(angles, cosine.arccos().numpy())
    assert_close(pose_error(r, t, true, t_true), torch.from_numpy(numpy.degrees(expected)))
    same = r, t_true, r, t_true
    assert (pose_error(*same) < 1e-6).all()


@pytest.mark.parametrize("degrees", [1e-6, 1e-3, 90, 179.9])
def test_pose_error_keeps_small_and_large_angles(degrees):
    turn = rotation(0.0, 0.0, math.radians(degrees))
    t = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    identity = torch.eye(3, dtype=torch.float64)
    assert_close(pose_error(turn, t, identity, t).item(), float(degrees), rtol=1e-6, atol=0)


def test_sign_of_the_translation_does_not_count_but_that_of_the_rotation_does():
    identity, t = torch.eye(3, dtype=torch.float64), torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64)
    assert pose_error(identity, -5 * t, identity, t) == 0
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    assert_close(pose_error(half_turn, t, identity, t).item(), 180.0)
    across = torch.tensor([4.0, -3.0, 0.0], dtype=torch.float64)
    assert_close(pose_error(identity, across, identity, t).item(), 90.0)


def test_pose_error_has_the_gradient_of_the_angle():
    identity, t = torch.eye(3, dtype=torch.float64), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    estimate = torch.tensor([1.0, 0.2, 0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: pose_error(rotation(0.0, 0.0, 0.01), v, identity, t), estimate)


# Score


def benchmark_score(errors):
    """Return the score of ubc-vision/image-matching-benchmark, utils/pack_helper.py, from its formula."""
    histogram, _ = numpy.histogram(numpy.minimum(errors, 1e6), numpy.arange(11))
    return numpy.mean(numpy.cumsum(histogram / len(errors)))


def test_mean_average_accuracy_is_that_of_the_benchmark():
    errors = torch.cat([12 * normal(200).abs(), torch.tensor([0.0, 1.0, 9.0, math.inf], dtype=torch.float64)])
    assert_close(mean_average_accuracy(errors).item(), benchmark_score(errors.numpy()).item())
    steps = [(errors < limit).double().mean().item() for limit in range(1, 11)]
    assert_close(mean_average_accuracy(errors).item(), sum(steps) / 10)
    assert_close(mean_average_accuracy(errors, limit=5).item(), sum(steps[:5]) / 5)


def test_only_an_error_of_exactly_ten_differs_from_the_benchmark():
    ten = torch.tensor([10.0], dtype=torch.float64)
    assert mean_average_accuracy(ten) == 0
    assert_close(benchmark_score(ten.numpy()).item(), 0.1)
    assert_close(mean_average_accuracy(ten - 1e-9).item(), 0.1)


def test_published_scores_follow_from_the_published_histograms():
    # example/results/val, stereo, all sequences, qt_01_10_th_0.1 and qt_auc_10_th_0.1.
    published = {  # inlier threshold of 0.5 pixels, of 5 pixels
        0.5755826162745776: (
            *(0.3007428126056198, 0.13777591890350996, 0.07868900031223718, 0.05098380369968075),
            *(0.03483741748803851, 0.02586232009707763, 0.022459589697221033, 0.017275301817592795),
            *(0.014472738473799672, 0.01307029155944387),
        ),
        0.2685125995312365: (
            *(0.06471601494050493, 0.0816439121304869, 0.06338424299535464, 0.04371138495969271),
            *(0.03148101014603475, 0.025654724063531125, 0.02019215816041603, 0.01682215745368791),
            *(0.01418797887798362, 0.01334625409968899),
        ),
    }
    for score, shares in published.items():
        worth = [mean_average_accuracy(torch.tensor([degree + 0.5])).item() for degree in range(10)]
        assert_close(sum(w * share for w, share in zip(worth, shares, strict=True)), score)


def test_score_exceeds_the_area_by_the_mean_fractional_part():
    errors = torch.tensor([0.25, 3.75, 9.5, 12.0], dtype=torch.float64)
    area = (10 - errors).clamp(min=0).mean().item() / 10
    fractions = (0.25 + 0.75 + 0.5) / 4
    assert_close(mean_average_accuracy(errors).item() - area, fractions / 10)
    assert mean_average_accuracy(torch.tensor([0.0, 1.0])).item() == pytest.approx(0.95)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_score_of_low_precision(dtype):
    errors = torch.tensor([0.5, 1.5, 20.0], dtype=dtype)
    assert_close(mean_average_accuracy(errors).item(), (1 + 0.9) / 3)


def test_float32_goes_through_the_pipeline():
    x, y, r, t = (v.float() for v in with_wrong(noise=1e-3))
    e, inliers = ransac(x, y, threshold=0.01, samples=300, generator=torch.Generator().manual_seed(0))
    pose = relative_pose(e, x[inliers], y[inliers])
    assert e.dtype == pose[0].dtype == pose[1].dtype == torch.float32
    assert pose_error(*pose, r, t) < 5


# Wrong input

X = torch.zeros(9, 2, dtype=torch.float64)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 5), "b must be"),
        (torch.zeros(1, 4), torch.zeros(3, 4), "two descriptors or more"),
        (torch.zeros(3, 4, dtype=torch.uint8), torch.zeros(3, 4), "floating-point"),
        ([[1.0]], torch.zeros(3, 4), "floating-point"),
    ],
    ids=["widths", "one", "integers", "list"],
)
def test_descriptors_that_do_not_fit_are_an_error(a, b, message):
    with pytest.raises(ValueError, match=message):
        mutual_matches(a, b)


@pytest.mark.wrong_input
@pytest.mark.parametrize("ratio", [-0.1, 1.1, math.nan, "0.9"], ids=str)
def test_ratio_outside_is_an_error(ratio):
    with pytest.raises(ValueError, match="ratio must be between 0 and 1"):
        mutual_matches(torch.zeros(3, 4), torch.zeros(3, 4), ratio=ratio)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, X[:8], "both be"),
        (X[:, :1], X[:, :1], "both be"),
        (X[:7], X[:7], "8 matches or more"),
        (X.half(), X.half(), "both float32 or both float64"),
        (X.long(), X.long(), "both float32 or both float64"),
        (X.float(), X, "both float32 or both float64"),
        (X.numpy(), X, "both float32 or both float64"),
        (X / 0, X, "infinity and NaN"),
        (X, X / 0, "infinity and NaN"),
        (X[0], X[0], r"\(…, N, 2\)"),
    ],
    ids=["lengths", "widths", "seven", "half", "integers", "types", "array", "NaN", "NaN in y", "one point"],
)
def test_matches_that_do_not_fit_are_an_error(x, y, message):
    with pytest.raises(ValueError, match=message):
        eight_point(x, y)


@pytest.mark.wrong_input
def test_options_of_ransac_that_mean_nothing_are_an_error():
    for threshold in (0, -1.0, math.nan, math.inf, "1"):
        with pytest.raises(ValueError, match="threshold must be positive"):
            ransac(X, X, threshold=threshold)
    for samples in (0, 2.5):
        with pytest.raises(ValueError, match="samples must be a positive integer"):
            ransac(X, X, threshold=1, samples=samples)
    with pytest.raises(ValueError, match=r"both be \(N, 2\)"):
        ransac(X[None], X[None], threshold=1)
    with pytest.raises(ValueError, match="8 matches or more"):
        ransac(X[:7], X[:7], threshold=1)


@pytest.mark.wrong_input
def test_counts_that_do_not_exist_are_an_error():
    cases = (0, "more than"), (1e-50, "more than"), (1e-40, "more than"), (1.5, "between"), (math.nan, "between")
    for ratio, message in cases:
        with pytest.raises(ValueError, match=message):
            sample_count(ratio, 8)
    with pytest.raises(ValueError, match="less than 1"):
        sample_count(0.5, 8, confidence=1)
    with pytest.raises(ValueError, match="size must be a positive integer"):
        sample_count(0.5, 0)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    "k",
    [
        torch.eye(3) * 2,
        torch.eye(4),
        torch.diag(torch.tensor([1.0, 0.0, 1.0])),
        torch.eye(3).long(),
        torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    ],
    ids=["scaled", "four", "no focal length", "integers", "entry below"],
)
def test_camera_that_is_none_is_an_error(k):
    with pytest.raises(ValueError, match="K must be"):
        calibrate(X.float(), k)
    with pytest.raises(ValueError, match="x must be"):
        calibrate(torch.zeros(3, 3), torch.eye(3))


@pytest.mark.wrong_input
def test_poses_and_errors_that_do_not_fit_are_an_error():
    identity, t = torch.eye(3), torch.tensor([1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="no direction"):
        pose_error(identity, 0 * t, identity, t)
    with pytest.raises(ValueError, match="no direction"):
        pose_error(identity, t, identity, 0 * t)
    with pytest.raises(ValueError, match="r must end"):
        pose_error(t, t, identity, t)
    with pytest.raises(ValueError, match="t_true must end"):
        pose_error(identity, t, identity, identity[:, :2])
    with pytest.raises(ValueError, match="one floating-point type, but r_true is"):
        pose_error(identity, t, identity.double(), t)
    with pytest.raises(ValueError, match="one floating-point type"):
        pose_error(identity.long(), t.long(), identity.long(), t.long())
    with pytest.raises(ValueError, match="1 matches or more"):
        relative_pose(identity, X[:0].float(), X[:0].float())
    for f in (torch.zeros(2, 3).double(), torch.eye(3), [[1.0]]):
        with pytest.raises(ValueError, match=r"the matrix must be \(…, 3, 3\)"):
            sampson(f, X, X)
    for e in (torch.eye(3), torch.eye(3).double()[None]):
        with pytest.raises(ValueError, match=r"the matrix must be \(3, 3\)"):
            relative_pose(e, X, X)
    for errors in (torch.tensor([-1.0]), torch.tensor([math.nan])):
        with pytest.raises(ValueError, match="negative or NaN"):
            mean_average_accuracy(errors)
    with pytest.raises(ValueError, match="limit must be a positive integer"):
        mean_average_accuracy(torch.tensor([1.0]), limit=0)
    with pytest.raises(ValueError, match="errors"):
        mean_average_accuracy(torch.zeros(0))
