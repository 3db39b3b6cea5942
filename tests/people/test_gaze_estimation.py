"""Test the gaze geometry against SciPy's rotations and mpmath, the losses against scikit-learn and loops."""

import math

import mpmath
import numpy as np
import pytest
import torch
from tensors import normal, with_gradients
from torch.autograd import gradcheck
from torch.testing import assert_close

from zhixing.people.gaze_estimation import (
    angles_to_vector,
    angular_error,
    decode_bins,
    normalizing_rotation,
    pinball_loss,
    vector_to_angles,
)


def angles(*shape, seed=0, dtype=torch.float64):
    """Yaws from -pi to pi and pitches from -pi/2 to pi/2, without the ends."""
    numbers = torch.rand(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    yaw, pitch = (2 * numbers - 1) * 0.99 * torch.tensor([math.pi, math.pi / 2]).view(2, *[1] * len(shape))
    return yaw.to(dtype), pitch.to(dtype)


# Angles and vectors


def test_vectors_are_rotations_of_the_gaze_into_the_camera():
    from scipy.spatial.transform import Rotation

    yaw, pitch = angles(50)
    # With y down, pitch turns about -x, and yaw about y.
    turns = Rotation.from_euler("YX", np.stack([yaw, -pitch], 1))
    assert_close(angles_to_vector(yaw, pitch), torch.from_numpy(turns.apply([0.0, 0.0, -1.0])))


@pytest.mark.parametrize(
    ("yaw", "pitch", "vector"),
    [(0, 0, (0, 0, -1)), (90, 0, (-1, 0, 0)), (0, 90, (0, -1, 0)), (180, 0, (0, 0, 1)), (-90, 0, (1, 0, 0))],
    ids=["camera", "left", "up", "away", "right"],
)
def test_named_directions(yaw, pitch, vector):
    ours = angles_to_vector(torch.deg2rad(torch.tensor(float(yaw))), torch.deg2rad(torch.tensor(float(pitch))))
    assert_close(ours, torch.tensor(vector, dtype=torch.float32), atol=1e-6, rtol=0)


def test_gaze360s_axes_differ_in_two_signs_alone():
    # The formula of spherical2cartesial in Gaze360's code.
    yaw, pitch = angles(20)
    theirs = torch.stack([pitch.cos() * yaw.sin(), pitch.sin(), -pitch.cos() * yaw.cos()], -1)
    assert_close(angles_to_vector(yaw, pitch) * torch.tensor([-1, -1, 1]), theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_round_trip(dtype):
    yaw, pitch = angles(3, 7, dtype=dtype)
    vector = angles_to_vector(yaw, pitch)
    assert_close(torch.linalg.vector_norm(vector, dim=-1), torch.ones(3, 7, dtype=dtype))
    for scale in (1, 1e-3, 1e3):
        assert_close(vector_to_angles(scale * vector), (yaw, pitch))


def test_gradients_of_angles_and_vectors():
    yaw, pitch = (x.requires_grad_() for x in angles(6))
    assert gradcheck(angles_to_vector, (yaw, pitch))
    assert gradcheck(vector_to_angles, (normal(6, 3).requires_grad_(),))


# The angle between directions


@pytest.mark.parametrize("exponent", [0, -1, -4, -8, -12])
def test_angular_error_is_accurate_where_it_is_tiny(exponent):
    mpmath.mp.dps = 50
    a = normal(3, seed=1)
    b = a + 10.0**exponent * normal(3, seed=2)
    x, y = ([mpmath.mpf(v) for v in each.tolist()] for each in (a, b))
    dot = sum(p * q for p, q in zip(x, y, strict=True))
    lengths = mpmath.sqrt(sum(p * p for p in x) * sum(q * q for q in y))
    expected = float(mpmath.acos(dot / lengths))
    assert abs(angular_error(a, b).item() - expected) <= 1e-4 * expected + 1e-15
    assert abs(angular_error(a, -b).item() - (math.pi - expected)) <= 1e-12


def test_clipped_arccosine_has_a_floor():
    floor = math.degrees(math.acos(0.9999999))
    assert 0.0256 < floor < 0.0257
    a, b = torch.tensor([0.0, 0.0, -1.0]), torch.tensor([1e-4, 0.0, -1.0])
    assert_close(angular_error(a, b).item(), 1e-4, rtol=1e-3, atol=0)


def test_angular_error_is_symmetric_scale_free_and_at_most_the_sum_of_steps():
    a, b, c = normal(3, 40, 3)
    for first, second in ((1, 1), (1e300, 1e300), (1e-300, 1e-300), (1e-300, 1e300)):
        assert_close(angular_error(a, b), angular_error(first * b, second * a))
    assert (angular_error(a, c) <= angular_error(a, b) + angular_error(b, c) + 1e-12).all()
    assert_close(angular_error(a, -a), torch.full((40,), math.pi, dtype=torch.float64))


def test_angular_error_has_gradients_that_are_finite_also_at_zero():
    a, b = normal(5, 3).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
    assert gradcheck(angular_error, (a, b))
    values, gradients = with_gradients(angular_error, a, a)
    assert_close(values[0], torch.zeros(5, dtype=torch.float64))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_error_of_two_small_errors_is_their_root_sum_of_squares():
    # One degree each in yaw and pitch: sqrt(2) degrees, not their mean.
    one = torch.deg2rad(torch.tensor(1.0, dtype=torch.float64))
    pitch = torch.deg2rad(torch.tensor([0.0, 60.0], dtype=torch.float64))
    zero = torch.zeros(2, dtype=torch.float64)
    error = torch.rad2deg(angular_error(angles_to_vector(zero, pitch), angles_to_vector(zero + one, pitch + one)))
    expected = torch.hypot(torch.ones(2, dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64))
    assert_close(error, expected, atol=0.02, rtol=0)


# Bins


def test_decode_bins_is_the_expectation_of_centres():
    logits = normal(2, 5, 28)
    probabilities = logits.softmax(-1)
    loop = torch.zeros(2, 5, dtype=torch.float64)
    for i in range(28):
        loop += probabilities[..., i] * (-42 + 3 * i + 1.5)
    assert_close(decode_bins(logits, width=3, start=-42), loop)
    assert gradcheck(lambda z: decode_bins(z, width=3, start=-42), (logits.requires_grad_(),))


@pytest.mark.parametrize(("bins", "width", "start"), [(90, 4, -180), (28, 3, -42)], ids=["gaze360", "mpiigaze"])
def test_a_sure_bin_is_its_centre_and_l2cs_reads_its_left_edge(bins, width, start):
    for i in (0, bins // 2, bins - 1):
        logits = torch.full((bins,), -200.0, dtype=torch.float64)
        logits[i] = 200.0
        edge = (logits.softmax(0) * torch.arange(bins)).sum() * width + start
        assert_close(decode_bins(logits, width=width, start=start), edge + width / 2)
    # The author's formula, w times the sum of p_i (i - (1 + b) / 2) for i from 1, has centres.
    logits = normal(bins)
    author = width * (logits.softmax(0) * (torch.arange(1, bins + 1) - (1 + bins) / 2)).sum()
    assert_close(decode_bins(logits, width=width, start=start), author)


def test_bins_of_l2cs_for_gaze360_are_the_default():
    logits = normal(90)
    edges = 4 * (logits.softmax(0) * torch.arange(90)).sum() - 180
    assert_close(decode_bins(logits), edges + 2)
    # Its released weights were trained with left edges.
    assert_close(decode_bins(logits, start=-182), edges)


# Quantiles


@pytest.mark.parametrize("q", [0.1, 0.25])
def test_pinball_loss_equals_scikit_learns(q):
    from sklearn.metrics import mean_pinball_loss

    mean, width, target = normal(50), normal(50, seed=1).abs(), normal(50, seed=2)
    expected = mean_pinball_loss(target, mean - width, alpha=q) + mean_pinball_loss(target, mean + width, alpha=1 - q)
    assert_close(pinball_loss(mean, width, target, q=q).item(), expected)


def test_pinball_loss_equals_loops_and_has_gradients():
    mean, width, target = normal(2, 7), normal(2, 7, seed=1).abs(), normal(2, 7, seed=2)
    total = 0.0
    for m, w, t in zip(mean.flatten(), width.flatten(), target.flatten(), strict=True):
        for quantile, level in ((m - w, 0.1), (m + w, 0.9)):
            d = t - quantile
            total += (level * d if d > 0 else (level - 1) * d) / mean.numel()
    assert_close(pinball_loss(mean, width, target), total)
    assert gradcheck(pinball_loss, (mean.requires_grad_(), width.requires_grad_(), target.requires_grad_()))


def test_smallest_pinball_loss_is_at_the_quantiles():
    target = torch.arange(1.0, 1001.0, dtype=torch.float64)
    levels = torch.tensor([0.1, 0.9], dtype=torch.float64)
    low, high = torch.quantile(target, levels)
    best = ((high + low) / 2, (high - low) / 2)
    value = pinball_loss(best[0].expand(1000), best[1].expand(1000), target)
    for mean, width in ((10, 0), (-10, 0), (0, 10), (0, -10)):
        assert pinball_loss((best[0] + mean).expand(1000), (best[1] + width).expand(1000), target) > value


def test_angles_that_share_a_width_lie_outside_with_probability_2_q_on_average():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(2, 20_000, generator=generator, dtype=torch.float64) * torch.tensor([[10.0], [3.0]])
    widths = torch.linspace(5, 15, 401, dtype=torch.float64)
    losses = [pinball_loss(torch.zeros_like(target), width.expand_as(target), target) for width in widths]
    outside = (target.abs() > widths[int(torch.stack(losses).argmin())]).double().mean(1)
    assert abs(outside.mean() - 0.2) < 0.01
    assert outside[0] > 0.3
    assert outside[1] < 0.1


# The normalised camera


def test_normalised_camera_looks_at_the_face_and_sees_no_roll():
    face, right = normal(20, 3), normal(20, 3, seed=1)
    rotation = normalizing_rotation(face, right)
    assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(20, 3, 3))
    assert_close(torch.linalg.det(rotation), torch.ones(20, dtype=torch.float64))
    seen = (rotation @ face[..., None]).squeeze(-1)
    assert_close(seen[:, 2], torch.linalg.vector_norm(face, dim=-1))
    assert_close(seen[:, :2], torch.zeros(20, 2, dtype=torch.float64))
    axis = (rotation @ right[..., None]).squeeze(-1)
    assert_close(axis[:, 1], torch.zeros(20, dtype=torch.float64))
    assert (axis[:, 0] > 0).all()
    assert_close(normalizing_rotation(1e300 * face, 1e-300 * right), rotation)


def test_normalised_camera_of_a_face_straight_ahead_is_the_camera():
    face, right = torch.tensor([0.0, 0.0, 600.0]), torch.tensor([1.0, 0.0, 0.0])
    assert_close(normalizing_rotation(face, right), torch.eye(3))
    # A rolled head turns the camera with it.
    tilted = torch.tensor([math.cos(0.3), math.sin(0.3), 0.0])
    assert_close(normalizing_rotation(face, tilted)[0], tilted)


def test_rotation_keeps_angles_and_is_differentiable():
    face, right, a, b = normal(4, 6, 3)
    rotation = normalizing_rotation(face, right)
    turned = ((rotation @ v[..., None]).squeeze(-1) for v in (a, b))
    assert_close(angular_error(*turned), angular_error(a, b))
    assert gradcheck(normalizing_rotation, (face.requires_grad_(), right.requires_grad_()))


# Shapes and types


def test_empty_scalar_and_noncontiguous():
    empty = torch.empty(0)
    assert angles_to_vector(empty, empty).shape == (0, 3)
    assert angular_error(torch.empty(0, 3), torch.empty(0, 3)).shape == (0,)
    assert decode_bins(torch.empty(0, 90)).shape == (0,)
    assert angles_to_vector(torch.tensor(0.1), torch.tensor(0.2)).shape == (3,)
    vectors = normal(3, 5).mT
    assert_close(vector_to_angles(vectors), vector_to_angles(vectors.contiguous()))
    assert_close(angular_error(vectors, vectors.flip(0)), angular_error(vectors.contiguous(), vectors.flip(0)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_type(dtype):
    yaw, pitch = angles(9, dtype=dtype)
    vector = angles_to_vector(yaw, pitch)
    assert vector.dtype == decode_bins(normal(4, 90, dtype=dtype)).dtype == dtype
    assert_close(vector.float(), angles_to_vector(yaw.float(), pitch.float()), atol=0.02, rtol=0)
    # Only the result is rounded.
    logits = 3 * normal(200, 90, dtype=dtype)
    assert_close(decode_bins(logits).float(), decode_bins(logits.float()), atol=1e-4, rtol=torch.finfo(dtype).eps)


# Wrong input


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: angles_to_vector(torch.zeros(2), torch.zeros(3)), "yaw is"),
        (lambda: angles_to_vector(torch.tensor(1), torch.tensor(2)), "yaw must be a floating-point"),
        (lambda: vector_to_angles(torch.zeros(3, 2)), r"vector must be \(\.\.\., 3\)"),
        (lambda: vector_to_angles(torch.tensor(1.0)), r"vector must be \(\.\.\., 3\)"),
        (lambda: angular_error(torch.zeros(2, 3), torch.zeros(3)), "a is"),
        (lambda: angular_error([0, 0, 1], torch.zeros(3)), "a must be a floating-point"),
        (lambda: decode_bins(torch.zeros(2, 0)), "logits are"),
        (lambda: decode_bins(torch.zeros(90), width=0), "0 degrees wide"),
        (lambda: decode_bins(torch.zeros(90), width=math.nan), "nan degrees wide"),
        (lambda: decode_bins(torch.zeros(90), start=math.nan), "start must be finite"),
        (lambda: pinball_loss(torch.zeros(2), torch.zeros(1), torch.zeros(2)), "same shape"),
        (lambda: pinball_loss(*[torch.zeros(0)] * 3), "same shape"),
        (lambda: pinball_loss(*[torch.zeros(2)] * 3, q=0.9), "q must lie"),
        (lambda: normalizing_rotation(torch.zeros(3), torch.zeros(2, 3)), "face is"),
    ],
    ids=[
        "angles of two shapes",
        "integer angles",
        "vectors of two numbers",
        "a number as vector",
        "vectors of two shapes",
        "a list",
        "no bins",
        "no width",
        "a width that is no number",
        "a start that is no number",
        "a width for both angles",
        "no angles",
        "quantiles that cross",
        "one face and two axes",
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
