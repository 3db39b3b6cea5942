"""ASLFeat's scores, points and offsets against torch, SciPy, scikit-image, torchvision, and loops."""

import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from tensors import assert_same_both_ways, leaf, normal
from torch.testing import assert_close

from zhixing.convolution.deformable_convolution import deform_conv2d
from zhixing.matching.aslfeat import combine_levels, detect, peakiness, refine, similarity_offsets

LOW = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])


# peakiness


def by_unfold(y, dilation):
    """The definition, with the 3 × 3 pixels from `F.unfold`."""
    b, c, h, w = y.shape
    around = F.pad(y, (dilation,) * 4, mode="reflect")
    mean = F.unfold(around, 3, dilation=dilation).view(b, c, 9, h, w).mean(dim=2)
    alpha = torch.log1p(torch.exp(y - mean))
    beta = torch.log1p(torch.exp(y - y.mean(dim=1, keepdim=True)))
    return (alpha * beta).max(dim=1, keepdim=True).values


@pytest.mark.parametrize(
    ("shape", "dilation"),
    [((2, 5, 7, 6), 1), ((1, 3, 9, 8), 2), ((1, 4, 4, 9), 3), ((1, 1, 2, 2), 1), ((0, 3, 4, 4), 1)],
    ids=["plain", "dilation 2", "dilation 3, just high enough", "one channel", "no image"],
)
def test_peakiness_equals_unfold(shape, dilation):
    y = normal(*shape)
    assert_same_both_ways(lambda y: peakiness(y, dilation=dilation), lambda y: by_unfold(y, dilation), y)


def test_peakiness_equals_loops():
    y = normal(1, 3, 6, 5).abs()
    score = peakiness(y, dilation=2)
    for i in range(6):
        for j in range(5):
            best = 0.0
            for c in range(3):
                near = 0.0
                for u in (i - 2, i, i + 2):
                    for v in (j - 2, j, j + 2):
                        near += y[0, c, 5 - abs(5 - abs(u)), 4 - abs(4 - abs(v))].item() / 9
                value, mean = y[0, c, i, j].item(), sum(y[0, k, i, j].item() for k in range(3)) / 3
                best = max(best, math.log(1 + math.exp(value - near)) * math.log(1 + math.exp(value - mean)))
            assert abs(score[0, 0, i, j].item() - best) < 1e-12


def test_gradients_of_peakiness_are_right():
    assert torch.autograd.gradcheck(peakiness, normal(1, 3, 4, 5).requires_grad_())


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_flat_features_score_just_under_the_threshold(value):
    score = peakiness(torch.full((1, 4, 6, 6), value))
    assert_close(score, torch.full((1, 1, 6, 6), math.log(2) ** 2))
    assert score.max() < 0.5


def test_bound_for_features_between_zero_and_one():
    """The exercise: at most softplus(8/9) softplus(1 - 1/C), reached by one pixel in one channel."""
    y = torch.zeros(1, 8, 5, 5, dtype=torch.float64)
    y[0, 3, 2, 2] = 1
    bound = F.softplus(torch.tensor([8 / 9, 7 / 8], dtype=torch.float64)).prod().item()
    assert peakiness(y).max().item() == pytest.approx(bound)
    assert bound < 1.62
    random = torch.rand(4, 8, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert peakiness(random).max() < bound


@LOW
def test_peakiness_rounds_once(dtype):
    y = normal(1, 4, 6, 7).to(dtype)
    assert_close(peakiness(y), by_unfold(y.double(), 1).to(dtype), rtol=torch.finfo(dtype).eps, atol=0)


def test_peakiness_takes_any_memory_layout():
    y = normal(2, 5, 6, 7)
    assert_close(peakiness(y.to(memory_format=torch.channels_last)), peakiness(y))
    assert_close(peakiness(y.mT), peakiness(y).mT)


def test_inputs_are_left_as_they_were():
    y = normal(1, 3, 6, 6)
    kept = y.clone()
    peakiness(y), combine_levels([y[:, :1]], (6, 6), strides=(1,), weights=(1,))
    points = detect(y[0, 0], threshold=-9, border=1)
    before = points.clone()
    refine(y[0, 0], points)
    assert torch.equal(y, kept)
    assert torch.equal(points, before)


# levels


def pyramid(h, w, batch=2):
    return [normal(batch, 1, -(-h // s), -(-w // s), seed=s) for s in (1, 2, 4)]


def test_sum_equals_interpolate_with_aligned_corners():
    """Sizes of 4 n + 1: the last cell is the last pixel, as `align_corners` assumes."""
    levels = pyramid(9, 13)

    def theirs(*levels):
        enlarged = [F.interpolate(level, (9, 13), mode="bilinear", align_corners=True) for level in levels]
        return (enlarged[0] + 2 * enlarged[1] + 3 * enlarged[2]) / 6

    assert_same_both_ways(lambda *levels: combine_levels(levels, (9, 13)), theirs, *levels)


@pytest.mark.parametrize("size", [(8, 12), (7, 10), (1, 1), (3, 4)], ids=["even", "odd", "one pixel", "small"])
def test_sum_equals_scipy_at_each_size(size):
    from scipy.ndimage import map_coordinates

    levels = pyramid(*size, batch=1)
    row, column = numpy.meshgrid(range(size[0]), range(size[1]), indexing="ij")
    expected = sum(
        weight * map_coordinates(level[0, 0].numpy(), [row / s, column / s], order=1, mode="nearest")
        for level, s, weight in zip(levels, (1, 2, 4), (0.5, 1.0, 2.5), strict=True)
    )
    ours = combine_levels(levels, size, weights=(0.5, 1.0, 2.5))
    assert_close(ours[0, 0], torch.tensor(expected) / 4)


def test_one_level_of_stride_one_is_itself():
    level = normal(2, 1, 5, 6)
    assert_close(combine_levels([level], (5, 6), strides=(1,), weights=(7,)), level)


def test_cells_are_the_pixels_of_a_strided_convolution():
    """Two layers of 3 × 3 with padding 1 and stride 2: on a ramp, cell i has the value of pixel 4 i."""
    ramp = torch.arange(33.0).expand(1, 1, 33, 33)
    weight = torch.full((1, 1, 3, 3), 1 / 9)
    cells = F.conv2d(F.conv2d(ramp, weight, stride=2, padding=1), weight, stride=2, padding=1)
    enlarged = combine_levels([cells], (33, 33), strides=(4,), weights=(1,))
    assert_close(enlarged[..., 8:-8, 8:-8], ramp[..., 8:-8, 8:-8])


def test_enlarged_maxima_lie_at_cells():
    """The exercise: linear interpolation has no new maxima."""
    level = normal(1, 1, 9, 11)
    enlarged = combine_levels([level], (33, 41), strides=(4,), weights=(1,))[0, 0]
    points = detect(enlarged, threshold=-9, edge=1e9, border=1)
    assert len(points) > 3
    assert (points % 4 == 0).all()


def test_refining_an_enlarged_map_moves_too_few_pixels():
    """The number of the step is the same in pixels of the large map and in cells of the small one."""
    a, b = torch.tensor([1.0, 5.0, 3.0]).double(), torch.tensor([2.0, 6.0, 5.0]).double()
    level = (a[:, None] + b)[None, None]
    enlarged = combine_levels([level], (12, 12), strides=(4,), weights=(1,))[0, 0]
    in_cells = refine(level[0, 0], torch.tensor([[1, 1]])) - 1
    in_pixels = refine(enlarged, torch.tensor([[4, 4]])) - 4
    assert in_cells.abs().min() > 0.1
    assert_close(in_pixels, in_cells)


@LOW
def test_sum_rounds_once(dtype):
    levels = [level.to(dtype) for level in pyramid(6, 7)]
    exact = combine_levels([level.double() for level in levels], (6, 7))
    assert_close(combine_levels(levels, (6, 7)), exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


# detection


def passes(score, x, y, edge):
    """The edge test of SIFT by the eigenvalues of the Hessian: one sign, and a bounded ratio."""
    at = {(i, j): score[y + i, x + j].item() for i in (-1, 0, 1) for j in (-1, 0, 1)}
    dxx, dyy = at[0, 1] - 2 * at[0, 0] + at[0, -1], at[1, 0] - 2 * at[0, 0] + at[-1, 0]
    dxy = (at[1, 1] + at[-1, -1] - at[1, -1] - at[-1, 1]) / 4
    small, large = sorted(numpy.abs(numpy.linalg.eigvalsh([[dxx, dxy], [dxy, dyy]])))
    return dxx * dyy > dxy**2 and large <= edge * small


@pytest.mark.parametrize("window", [3, 7])
@pytest.mark.parametrize("border", [1, 5])
@pytest.mark.parametrize("edge", [2, 10, 1e9], ids=["edge 2", "edge 10", "no edge test"])
def test_keypoints_equal_scikit_image(window, border, edge):
    from skimage.feature import peak_local_max

    score = normal(31, 37)
    peaks = peak_local_max(
        score.numpy(), min_distance=window // 2, threshold_abs=0.2, exclude_border=border, p_norm=numpy.inf
    )
    kept = [(x, y) for y, x in peaks.tolist() if passes(score, x, y, edge)]
    ours = [tuple(p) for p in detect(score, threshold=0.2, window=window, edge=edge, border=border).tolist()]
    assert ours == sorted(kept, key=lambda p: -score[p[1], p[0]].item())
    assert ours


def test_keypoints_equal_loops():
    score = normal(20, 17, seed=1)
    found = []
    for y in range(2, 18):
        for x in range(2, 15):
            near = score[y - 2 : y + 3, x - 2 : x + 3]
            if score[y, x] == near.max() and score[y, x] > 0.5 and passes(score, x, y, 5):
                found.append((score[y, x].item(), x, y))
    ours = detect(score, threshold=0.5, window=5, edge=5, border=2)
    assert ours.tolist() == [[x, y] for _, x, y in sorted(found, reverse=True)]
    assert len(ours) > 2


def test_points_are_x_then_y():
    score = torch.zeros(12, 20)
    score[6, 13] = 1.0
    assert detect(score).tolist() == [[13, 6]]


def test_border_keeps_its_first_inner_pixel():
    score = torch.zeros(20, 20)
    score[5, 5], score[14, 14], score[4, 10], score[10, 15] = 1.0, 2.0, 3.0, 4.0
    assert detect(score).tolist() == [[14, 14], [5, 5]]


@pytest.mark.parametrize(("edge", "found"), [(3.9, 0), (4.1, 1)])
def test_edge_is_the_ratio_of_the_curvatures(edge, found):
    x, y = torch.arange(-7.0, 8), torch.arange(-7.0, 8)[:, None]
    assert len(detect(9 - 4 * x**2 - y**2, edge=edge)) == found


def test_slanted_edges_are_no_keypoints():
    """A saddle can be the largest pixel of its window; only the sign of the determinant tells."""
    x, y = torch.arange(-7.0, 8), torch.arange(-7.0, 8)[:, None]
    score = 3 - (x - 2 * y) ** 2 / 10 + (2 * x + y) ** 2 / 1000
    assert score[6:9, 6:9].flatten().argmax() == 4
    assert not passes(score, 7, 7, 10)
    assert len(detect(score)) == 0


def test_of_equal_neighbours_the_first_is_kept():
    score = torch.zeros(15, 15)
    score[7, 6:10] = 1.0
    assert detect(score, edge=100).tolist() == [[6, 7]]
    score[7, 8:10] = 0.0
    assert detect(score).tolist() == [[6, 7]]


def test_scores_must_exceed_the_threshold():
    score = torch.zeros(15, 15)
    score[7, 7] = 0.5
    assert len(detect(score, threshold=0.75)) == 0
    assert len(detect(score, threshold=0.5)) == 0
    assert len(detect(score, threshold=0.49)) == 1


def test_small_and_flat_maps_have_no_keypoints():
    assert detect(torch.ones(10, 30)).shape == (0, 2)
    assert detect(torch.ones(30, 30)).shape == (0, 2)
    assert refine(torch.ones(30, 30), detect(torch.ones(30, 30))).shape == (0, 2)


@LOW
def test_low_precision_finds_the_same_points(dtype):
    score = normal(24, 24).to(dtype)
    assert_close(detect(score, threshold=0), detect(score.double(), threshold=0))
    points = detect(score, threshold=0)
    assert refine(score, points).dtype == torch.float32
    assert_close(refine(score, points), refine(score.double(), points).float(), rtol=1e-4, atol=1e-4)


def test_detection_takes_any_memory_layout():
    score = normal(24, 30)
    flipped = detect(score.T.contiguous().T, threshold=0)
    assert_close(flipped, detect(score, threshold=0))
    assert sorted(detect(score.T, threshold=0).flip(1).tolist()) == sorted(flipped.tolist())


# refinement


@pytest.mark.parametrize("peak", [(5.3, 4.0), (4.75, 4.4), (5.0, 5.0), (4.6, 3.7)], ids=str)
def test_refinement_is_exact_on_quadratics(peak):
    x, y = torch.arange(11.0).double(), torch.arange(9.0).double()[:, None]
    dx, dy = x - peak[0], y - peak[1]
    score = 7 - 2 * dx**2 - dx * dy - dy**2
    start = torch.tensor([[round(peak[0]), round(peak[1])]])
    assert_close(refine(score, start), torch.tensor([peak]).double())


def test_refinement_equals_newton_steps_of_numpy():
    score = normal(12, 14).numpy()
    points = torch.tensor([[3, 4], [7, 2], [1, 1], [12, 10]])
    expected = []
    for x, y in points.tolist():
        s = score[y - 1 : y + 2, x - 1 : x + 2]
        g = numpy.array([s[1, 2] - s[1, 0], s[2, 1] - s[0, 1]]) / 2
        cross = (s[2, 2] - s[2, 0] - s[0, 2] + s[0, 0]) / 4
        hessian = [[s[1, 2] - 2 * s[1, 1] + s[1, 0], cross], [cross, s[2, 1] - 2 * s[1, 1] + s[0, 1]]]
        expected.append(numpy.array([x, y]) - numpy.linalg.solve(hessian, g).clip(-1, 1))
    assert_close(refine(torch.tensor(score), points), torch.tensor(numpy.array(expected)))


def test_steps_are_at_most_one_pixel_and_zero_without_curvature():
    x = torch.arange(9.0)
    slope = x.expand(9, 9)
    assert refine(slope, torch.tensor([[4, 4]])).tolist() == [[4, 4]]
    far = -((x - 7) ** 2) - (x[:, None] - 4) ** 2
    assert refine(far, torch.tensor([[4, 4]])).tolist() == [[5, 4]]


def test_gradients_of_refinement_are_right():
    x, y = torch.arange(7.0).double(), torch.arange(7.0).double()[:, None]
    score = -((x - 3.2) ** 2) - (y - 2.9) ** 2 + 0.05 * normal(7, 7)
    points = torch.tensor([[3, 3]])
    assert torch.autograd.gradcheck(lambda s: refine(s, points), leaf(score))


def test_a_known_shift_is_found():
    """A Gaussian bump between pixels: refinement leaves a tenth of a pixel at most."""
    x, y = torch.arange(21.0), torch.arange(21.0)[:, None]
    score = torch.exp(-((x - 10.4) ** 2 + (y - 9.7) ** 2) / 8)
    points = detect(score, threshold=0.1)
    assert points.tolist() == [[10, 10]]
    assert (refine(score, points) - torch.tensor([[10.4, 9.7]])).abs().max() < 0.1


# offsets


def fields(scale, degrees, size=(6, 7)):
    one = torch.ones(1, *size, dtype=torch.float64)
    return similarity_offsets(scale * one, math.radians(degrees) * one)


def both(offset, weight, expected, **options):
    x = normal(1, 3, 6, 7)
    assert_close(deform_conv2d(x, offset, weight, padding=1), F.conv2d(x, expected, **options))


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_turned_kernels(quarters):
    """From right to down is clockwise on the screen; reading tap R p with weight k(p) turns the kernel."""
    weight = normal(4, 3, 3, 3, seed=1)
    both(fields(1, 90 * quarters), weight, weight.rot90(-quarters, (2, 3)), padding=1)


def test_scale_two_is_dilation_two():
    weight = normal(4, 3, 3, 3, seed=1)
    both(fields(2, 0), weight, weight, padding=2, dilation=2)


def test_no_offset_without_scale_and_rotation():
    assert not fields(1, 0).any()


@pytest.mark.torchvision
def test_torchvision_reads_the_offsets_alike():
    from torchvision.ops import deform_conv2d as theirs

    offset, x = fields(1.3, 25), normal(1, 3, 6, 7)
    weight = normal(4, 3, 3, 3, seed=1)
    assert_close(deform_conv2d(x, offset, weight, padding=1), theirs(x, offset, weight, padding=1))


def test_offsets_differ_from_pixel_to_pixel_and_equal_loops():
    scale, angle = normal(2, 3, 4).exp(), normal(2, 3, 4, seed=1)
    offset = similarity_offsets(scale, angle)
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
        s, t = scale[b, i, j].item(), angle[b, i, j].item()
        for k in range(9):
            y, x = k // 3 - 1, k % 3 - 1
            place = s * (math.cos(t) * x - math.sin(t) * y), s * (math.sin(t) * x + math.cos(t) * y)
            assert offset[b, 2 * k + 1, i, j].item() == pytest.approx(place[0] - x)
            assert offset[b, 2 * k, i, j].item() == pytest.approx(place[1] - y)


def test_gradients_of_offsets_are_right():
    inputs = normal(1, 2, 2).exp().requires_grad_(), normal(1, 2, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(similarity_offsets, inputs)


def test_swapped_coordinates_collapse_the_kernel():
    """Read as (x, y), a scale of 2 puts all nine taps on a diagonal."""
    moves = fields(2, 0, (1, 1)).view(9, 2).flip(1)
    taps = torch.cartesian_prod(torch.arange(-1.0, 2), torch.arange(-1.0, 2)).double()
    places = (taps + moves).unique(dim=0)
    assert (places[:, 0] == places[:, 1]).all()
    assert len(places) == 5


def test_published_range_of_the_scale():
    """The authors' network: exp(tanh(·)) lies from 1/e to e, so a tap moves at most 1.72 cells a step."""
    extremes = torch.exp(torch.tanh(torch.tensor([-50.0, 0.0, 50.0]))).double()
    assert_close(extremes, torch.tensor([1 / math.e, 1.0, math.e]).double(), rtol=1e-6, atol=0)
    widest = similarity_offsets(extremes[2:].view(1, 1, 1), torch.zeros(1, 1, 1).double())
    assert widest.abs().max().item() == pytest.approx(math.e - 1, rel=1e-6)


Y, S, P = torch.ones(1, 3, 8, 8), torch.zeros(20, 20), torch.tensor([[3, 3]])
ONE = torch.ones(1, 2, 3)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("call", "message"),
    {
        "features of one image": (lambda: peakiness(Y[0]), r"\(B, C, H, W\)"),
        "whole features": (lambda: peakiness(Y.long()), "int64"),
        "dilation 0": (lambda: peakiness(Y, dilation=0), "dilation must be a positive integer"),
        "dilation of the size": (lambda: peakiness(Y, dilation=8), "more than 8 rows and columns, not 8 × 8"),
        "no level": (lambda: combine_levels([], (8, 8), strides=(), weights=()), "not 0 levels"),
        "two levels": (lambda: combine_levels([Y[:, :1]] * 2, (8, 8)), "2 levels, 3 strides, 3 weights"),
        "level of another size": (
            lambda: combine_levels([Y[:, :1], Y[:, :1]], (8, 8), strides=(1, 2), weights=(1, 1)),
            r"level of stride 2 must be \(B, 1, 4, 4\)",
        ),
        "two channels": (lambda: combine_levels([Y], (8, 8), strides=(1,), weights=(1,)), r"\(1, 3, 8, 8\)"),
        "weight 0": (lambda: combine_levels([Y[:, :1]], (8, 8), strides=(1,), weights=(0,)), "weight must be positive"),
        "weight NaN": (
            lambda: combine_levels([Y[:, :1]], (8, 8), strides=(1,), weights=(math.nan,)),
            "weight must be positive",
        ),
        "score with channels": (lambda: detect(Y[0]), r"score must be \(H, W\)"),
        "even window": (lambda: detect(S, window=4), "window must be odd"),
        "window 1": (lambda: detect(S, window=1), "at least 3"),
        "border 0": (lambda: detect(S, border=0), "border must be a positive integer"),
        "edge below 1": (lambda: detect(S, edge=0.5), "edge must be at least 1"),
        "edge NaN": (lambda: detect(S, edge=math.nan), "edge must be positive"),
        "points between pixels": (lambda: refine(S, P.float()), "whole numbers"),
        "points as a list": (lambda: refine(S, [[3, 3]]), "whole numbers"),
        "points of three": (lambda: refine(S, torch.ones(2, 3).long()), r"\(2, 3\)"),
        "point at the border": (lambda: refine(S, torch.tensor([[0, 3]])), "inside the outermost pixels of 20 × 20"),
        "point at the right": (lambda: refine(S, torch.tensor([[19, 3]])), "inside the outermost"),
        "point above": (lambda: refine(S, torch.tensor([[3, 0]])), "inside the outermost"),
        "point below": (lambda: refine(S, torch.tensor([[3, 19]])), "inside the outermost"),
        "score as a list": (lambda: refine([[0.0]], P), "a list"),
        "scale as a number": (lambda: similarity_offsets(2.0, ONE), "a float"),
        "angles of another size": (lambda: similarity_offsets(ONE, ONE[:, :1]), r"rotation must be \(1, 2, 3\)"),
    }.values(),
    ids=lambda value: "" if callable(value) else value[:20],
)
def test_refuses_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
