"""Margin logits against pytorch-metric-learning, loops over angles, other ways to write ArcFace, and closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from tensors import assert_same_both_ways, leaf, normal
from torch.testing import assert_close

from zhixing.people.margin_softmax import arcface, cosface, l_softmax, normface_floor, sphereface

FAMILY = {"cosface": cosface, "arcface": arcface, "sphereface": sphereface, "l_softmax": l_softmax}


@pytest.fixture(params=FAMILY, ids=str)
def member(request):
    return FAMILY[request.param]


def drawn(b=33, c=7, d=5, dtype=torch.float64):
    labels = torch.randint(c, (b,), generator=torch.Generator().manual_seed(2))
    return normal(b, d, dtype=dtype), normal(c, d, seed=1, dtype=dtype), labels


def at_angles(theta):
    """Features of length 1 in the plane, at these angles from the first of two classes at a right angle."""
    features = torch.stack([theta.cos(), theta.sin()], 1)
    return features, torch.eye(2, dtype=theta.dtype), torch.zeros(len(theta), dtype=torch.int64)


def target_logits(function, theta, **options):
    return function(*at_angles(theta), **options)[:, 0]


# Other implementations


@pytest.mark.parametrize(
    ("ours", "name", "options", "theirs"),
    [
        (cosface, "CosFaceLoss", {}, {}),
        (cosface, "CosFaceLoss", {"s": 30, "m": 0.1}, {"scale": 30, "margin": 0.1}),
        (arcface, "ArcFaceLoss", {"m": math.radians(28.6)}, {}),
        (arcface, "ArcFaceLoss", {"s": 10, "m": 1.2}, {"scale": 10, "margin": math.degrees(1.2)}),
        (sphereface, "SphereFaceLoss", {}, {}),
        (sphereface, "SphereFaceLoss", {"s": 0.5, "m": 3}, {"scale": 0.5, "margin": 3}),
        (sphereface, "SphereFaceLoss", {"m": 1}, {"margin": 1}),
        (l_softmax, "LargeMarginSoftmaxLoss", {}, {}),
        (l_softmax, "LargeMarginSoftmaxLoss", {"s": 2, "m": 2}, {"scale": 2, "margin": 2}),
        (l_softmax, "LargeMarginSoftmaxLoss", {"m": 7}, {"margin": 7}),
    ],
    ids=["cos", "cos 0.1", "arc", "arc 1.2", "sphere 4", "sphere 3", "sphere 1", "large 4", "large 2", "large 7"],
)
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept")  # a tensor in its call of scipy
def test_loss_and_gradients_equal_pytorch_metric_learning(ours, name, options, theirs):
    from pytorch_metric_learning import losses

    features, weight, labels = drawn(b=200)
    # directions near the true class and opposite to it, besides those all around
    features[:40] = weight[labels[:40]] + 0.1 * features[:40]
    features[40:80] = -weight[labels[40:80]] + 0.3 * features[40:80]

    def reference(features, weight):
        loss = getattr(losses, name)(num_classes=7, embedding_size=5, **theirs).double()
        del loss.W
        loss.W = weight.mT
        loss.cast_types = lambda dtype, device: None
        for attribute in ("margin_choose_n", "alternating", "cos_powers", "n_range"):
            if hasattr(loss, attribute):
                setattr(loss, attribute, getattr(loss, attribute).double())
        return loss(features, labels)

    def mine(features, weight):
        return F.cross_entropy(ours(features, weight, labels, **options), labels)

    assert_same_both_ways(mine, reference, features, weight)


def test_logits_equal_a_loop_over_angles(member):
    features, weight, labels = drawn()
    logits = member(features, weight, labels)
    for b, x in enumerate(features):
        for c, w in enumerate(weight):
            lengths = x.norm().item(), w.norm().item()
            theta = math.acos((x @ w).item() / math.prod(lengths))
            true = c == labels[b].item()
            if member is cosface:
                expected = 64 * (math.cos(theta) - 0.35 * true)
            elif member is arcface:
                beyond = math.cos(theta) - 0.5 * math.sin(0.5)
                expected = 64 * (beyond if true and theta + 0.5 > math.pi else math.cos(theta + 0.5 * true))
            else:
                k = math.floor(theta / (math.pi / 4))
                psi = (-1) ** k * math.cos(4 * theta) - 2 * k if true else math.cos(theta)
                expected = psi * lengths[0] * (lengths[1] if member is l_softmax else 1)
            assert math.isclose(logits[b, c], expected, rel_tol=1e-9, abs_tol=1e-9)


def test_arcface_with_the_margin_under_no_grad_has_the_value_of_arcface_and_the_gradient_of_a_cosine():
    """As in insightface since its commit 657ae30, which writes angles and cosines into the logits in place."""
    features, weight, labels = drawn()
    s, m = 64.0, 0.5

    def in_place(features, weight):
        cosine = F.linear(F.normalize(features), F.normalize(weight))
        with torch.no_grad():
            cosine.arccos_()
            cosine[torch.arange(len(labels)), labels] += m
            cosine.cos_()
        return cosine * s

    def straight_through(features, weight):
        cosine = cosface(features, weight, labels, s=s, m=0)
        return cosine + (arcface(features, weight, labels, s=s, m=m) - cosine).detach()

    cosine = F.cosine_similarity(features, weight[labels])
    features = torch.where((cosine < 0)[:, None], -features, features)  # so that θ + m stays below π
    assert_same_both_ways(in_place, straight_through, features, weight)
    leaves = leaf(features), leaf(weight)
    (gradient,) = torch.autograd.grad(F.cross_entropy(in_place(*leaves), labels), leaves[:1])
    (papers,) = torch.autograd.grad(F.cross_entropy(arcface(*leaves, labels), labels), leaves[:1])
    assert (gradient - papers).norm() > 0.02 * papers.norm()


def test_arcface_without_the_gradient_of_its_margin_is_cosface_with_a_margin_for_each_sample():
    features, weight, labels = drawn()
    cosine = cosface(features, weight, labels, s=1, m=0)
    moving = (cosine - arcface(features, weight, labels, s=1)).detach().sum(1)

    def straight_through(features, weight):
        plain = cosface(features, weight, labels, m=0)
        return plain + (arcface(features, weight, labels) - plain).detach()

    def as_cosface(features, weight):
        rows = zip(features[:, None], labels[:, None], moving.tolist(), strict=True)
        return torch.cat([cosface(x, weight, label, m=m) for x, label, m in rows])

    assert (moving > 0).all()
    assert_same_both_ways(straight_through, as_cosface, features, weight)


# The family


def test_all_members_agree_without_margin():
    features, weight, labels = drawn()
    plain = F.linear(features, weight)
    assert_close(l_softmax(features, weight, labels, m=1), plain)
    assert_close(sphereface(features, weight, labels, m=1), plain / weight.norm(dim=1))
    cosine = plain / weight.norm(dim=1) / features.norm(dim=1, keepdim=True)
    assert_close(cosface(features, weight, labels, m=0), 64 * cosine)
    assert_close(arcface(features, weight, labels, m=0), 64 * cosine)


@pytest.mark.parametrize("m", [0.1, 0.5, 1.0, 1.5], ids=str)
def test_target_logit_of_arcface_falls_all_the_way_and_jumps_down_where_theta_plus_m_is_pi(m):
    theta = torch.linspace(0, math.pi, 3001, dtype=torch.float64)
    logits = target_logits(arcface, theta, s=1, m=m)
    assert (logits.diff() < 0).all()
    edge = torch.tensor([-1e-9, 1e-9], dtype=torch.float64) + math.pi - m
    before, after = target_logits(arcface, edge, s=1, m=m).tolist()
    assert math.isclose(before, -1, abs_tol=1e-9)
    assert math.isclose(after, -math.cos(m) - m * math.sin(m), abs_tol=1e-8)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5], ids=str)
def test_psi_falls_from_1_to_1_minus_2m_without_a_jump(m):
    theta = torch.linspace(0, math.pi, 3001, dtype=torch.float64)
    logits = target_logits(sphereface, theta, m=m)
    assert (logits.diff() < 0).all()
    assert logits.diff().abs().max() < 2 * m * math.pi / 3000
    assert_close(logits[[0, -1]], torch.tensor([1.0, 1.0 - 2 * m], dtype=torch.float64))


@pytest.mark.parametrize("m", [2, 3, 4], ids=str)
def test_psi_and_its_gradient_at_multiples_of_pi_over_m(m):
    theta = leaf(torch.arange(m + 1, dtype=torch.float64) * math.pi / m)
    logits = target_logits(sphereface, theta, m=m)
    assert_close(logits, 1 - 2 * torch.arange(m + 1, dtype=torch.float64))
    (slope,) = torch.autograd.grad(logits.sum(), theta)
    assert slope.abs().max() < 1e-6


def test_slope_of_arcface_is_sin_theta_plus_m_over_sin_theta_times_that_of_a_cosine():
    theta = torch.linspace(0.1, math.pi - 0.6, 40, dtype=torch.float64)
    slopes = []
    for function, m in ((arcface, 0.5), (cosface, 0.35), (cosface, 0.0)):
        x = leaf(theta)
        slopes += torch.autograd.grad(target_logits(function, x, s=1, m=m).sum(), x)
    assert_close(slopes[0] / slopes[2], (theta + 0.5).sin() / theta.sin())
    assert_close(slopes[1], slopes[2])


def test_length_of_features_and_weights_counts_where_it_should():
    features, weight, labels = drawn()
    for function in (cosface, arcface):
        logits = function(features, weight, labels)
        assert_close(function(3 * features, weight, labels), logits)
        assert_close(function(features, 3 * weight, labels), logits)
    assert_close(sphereface(3 * features, weight, labels), 3 * sphereface(features, weight, labels))
    assert_close(sphereface(features, 3 * weight, labels), sphereface(features, weight, labels))
    assert_close(l_softmax(features, 3 * weight, labels), 3 * l_softmax(features, weight, labels))


def test_other_logits_have_no_margin(member):
    features, weight, labels = drawn()
    logits = member(features, weight, labels)
    plain = member(features, weight, labels, m=0 if member in (cosface, arcface) else 1)
    true = F.one_hot(labels, 7).bool()
    assert_close(logits[~true], plain[~true])
    assert (logits[true] < plain[true]).all()


def test_gradients_pass_gradcheck(member):
    features, weight, labels = drawn(b=4, c=3, d=3)
    assert torch.autograd.gradcheck(lambda x, w: member(x, w, labels, s=2), (leaf(features), leaf(weight)))


# NormFace, scales and margins


def test_floor_for_the_classes_of_casia_webface_without_scale():
    assert math.isclose(normface_floor(10_575, 1), 8.27, abs_tol=0.005)


@pytest.mark.parametrize(("classes", "s"), [(2, 1), (4, 0.5), (5, 3), (9, 8)], ids=str)
def test_floor_is_reached_by_a_simplex(classes, s):
    simplex = torch.eye(classes, dtype=torch.float64) - 1 / classes
    labels = torch.arange(classes)
    loss = F.cross_entropy(cosface(simplex, simplex, labels, s=s, m=0), labels)
    assert math.isclose(loss.item(), normface_floor(classes, s), rel_tol=1e-9)


def test_no_features_and_weights_found_by_an_optimiser_lie_below_the_floor():
    labels = torch.arange(4)

    def loss(numbers):
        x = torch.tensor(numbers, requires_grad=True)
        value = F.cross_entropy(cosface(*x.view(2, 4, 3), labels, s=2, m=0), labels)
        return value.item(), torch.autograd.grad(value, x)[0].numpy()

    found = min(minimize(loss, normal(24, seed=seed).numpy(), jac=True).fun for seed in range(3))
    assert math.isclose(found, normface_floor(4, 2), rel_tol=1e-6)


def test_mean_gap_never_exceeds_that_of_a_simplex():
    """Over all classes; a single sample's may reach 2, where all other classes are opposite."""
    for classes, size in ((2, 3), (5, 2), (5, 7)):
        labels = torch.arange(classes)
        for seed in range(20):
            weight = F.normalize(normal(classes, size, seed=seed))
            best = classes * weight - weight.sum(0)  # the features that make the mean gap the largest
            cosine = cosface(best, weight, labels, s=1, m=0)
            others = (cosine.sum(1) - cosine.diagonal()) / (classes - 1)
            assert (cosine.diagonal() - others).mean() <= classes / (classes - 1) + 1e-12
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    assert_close(cosface(opposite[:1], opposite, torch.tensor([0]), s=1, m=0), torch.tensor([[1.0, -1.0, -1.0]]))


def test_cosface_of_a_simplex_is_even_at_its_largest_margin():
    for classes in (2, 3, 8):
        simplex = torch.eye(classes, dtype=torch.float64) - 1 / classes
        logits = cosface(simplex, simplex, torch.arange(classes), s=1, m=classes / (classes - 1) - 1e-12)
        assert_close(logits, torch.full_like(logits, -1 / (classes - 1)))


def test_largest_margin_of_eight_classes_in_the_plane_is_the_papers():
    """CosFace, section 3.4: about 0.29."""
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    weight = torch.stack([angle.cos(), angle.sin()], 1)
    cosine = cosface(weight, weight, torch.arange(8), s=1, m=0)
    margin = 1 - cosine.fill_diagonal_(-1).max().item()
    assert math.isclose(margin, 0.29, abs_tol=0.005)
    assert math.isclose(margin, 1 - math.cos(2 * math.pi / 8), rel_tol=1e-9)


def test_scale_of_adacos_gives_half_the_probability_at_45_degrees():
    classes = 1000
    s = math.sqrt(2) * math.log(classes - 1)
    cosine = torch.zeros(classes, dtype=torch.float64)
    cosine[0] = math.cos(math.pi / 4)
    assert math.isclose((s * cosine).softmax(0)[0].item(), 0.5, rel_tol=1e-9)


# Numbers


def test_features_on_their_class_or_opposite_to_it_have_finite_gradients(member):
    for dtype in (torch.float32, torch.float64):
        weight = torch.cat([torch.eye(3, dtype=dtype), normal(60, 3, dtype=dtype)])
        labels = torch.arange(63)
        for sign in (1, -1):
            leaves = leaf(sign * weight), leaf(weight)
            logits = member(*leaves, labels)
            assert logits.isfinite().all()
            gradients = torch.autograd.grad(F.cross_entropy(logits, labels), leaves)
            assert all(x.isfinite().all() for x in gradients)
            assert all(x.abs().max() < 1000 for x in gradients)


def test_target_logit_at_0_and_pi_is_exact():
    theta = torch.tensor([0.0, math.pi], dtype=torch.float64)
    assert_close(target_logits(arcface, theta, s=1), torch.tensor([math.cos(0.5), -1 - 0.5 * math.sin(0.5)]).double())
    assert_close(target_logits(cosface, theta, s=1), torch.tensor([0.65, -1.35]).double())


def test_arcface_follows_its_equation_where_the_angle_and_the_margin_make_pi():
    """Features of length 2, whose cosine is -1/2 exactly in float32, as is that of π - m."""
    features, weight = torch.tensor([[-1.0, 1.0, 1.0, 1.0]]), torch.eye(4)
    logits = arcface(features, weight, torch.tensor([0]), s=1, m=math.pi / 3)
    assert_close(logits, torch.tensor([[-1.0, 0.5, 0.5, 0.5]]))


def test_features_of_zero_give_logits_of_a_right_angle(member):
    _, weight, labels = drawn(b=3)
    zeros = leaf(torch.zeros(3, 5, dtype=torch.float64))
    logits = member(zeros, weight, labels)
    true = logits[torch.arange(3), labels]
    expected = {cosface: -0.35 * 64, arcface: -math.sin(0.5) * 64, sphereface: 0.0, l_softmax: 0.0}[member]
    assert_close(true, torch.full_like(true, expected))
    assert torch.autograd.grad(logits.sum(), zeros)[0].isfinite().all()


def test_no_samples_give_no_logits(member):
    features, weight, labels = drawn(b=0)
    assert member(features, weight, labels).shape == (0, 7)


def test_one_sample_of_one_class(member):
    features, weight, labels = drawn(b=1, c=1, d=1)
    logits = member(features, weight, labels)
    assert logits.shape == (1, 1)
    assert F.cross_entropy(logits, labels) == 0


def test_strided_tensors_give_the_same(member):
    features, weight, labels = drawn()
    strided = features.mT.contiguous().mT, weight.repeat_interleave(2, 0)[::2], labels.repeat_interleave(2)[::2]
    assert not any(x.is_contiguous() for x in strided)
    assert_close(member(*strided), member(features, weight, labels))


def test_arguments_are_not_changed(member):
    arguments = drawn()
    before = [x.clone() for x in arguments]
    member(*arguments)
    assert all(torch.equal(x, y) for x, y in zip(arguments, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_widened_to_float32(member, dtype):
    features, weight, labels = drawn(dtype=dtype)
    logits = member(features, weight, labels)
    assert logits.dtype == torch.float32
    assert_close(logits, member(features.float(), weight.float(), labels))
    assert member(*drawn(dtype=torch.float32)).dtype == torch.float32
    assert member(*drawn()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_changes_nothing(member, dtype):
    """Cosines in 16 bits, times 64, would be wrong by some tenths."""
    features, weight, labels = drawn(dtype=torch.float32)

    def both_ways(enabled):
        leaves = leaf(features), leaf(weight)
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            logits = member(*leaves, labels)
        return logits, *torch.autograd.grad(logits.square().sum(), leaves)

    assert_close(both_ways(True), both_ways(False))


def test_long_features_in_float16_do_not_overflow(member):
    features, weight, labels = drawn(dtype=torch.float16)
    long = 10_000 * features  # squares exceed 65504
    assert member(long, weight, labels).isfinite().all()


def test_options_may_be_whole_numbers():
    features, weight, labels = drawn()
    assert_close(cosface(features, weight, labels, s=64, m=1), cosface(features, weight, labels, s=64.0, m=1.0))
    assert_close(arcface(features, weight, labels, s=64, m=1), arcface(features, weight, labels, s=64.0, m=1.0))
    assert normface_floor(10, 4) == normface_floor(10, 4.0)


# Misuse


def test_degrees_given_as_radians_are_refused():
    with pytest.raises(ValueError, match="m, the margin of the angle in radians, must be from 0 to"):
        arcface(*drawn(), m=28.6)


@pytest.mark.parametrize("label", [-1, -100, 7], ids=str)
def test_labels_outside_are_refused_where_indexing_would_take_the_last_class(member, label):
    features, weight, labels = drawn()
    labels[3] = label
    with pytest.raises(RuntimeError):
        member(features, weight, labels)


def test_inverted_condition_makes_arcface_a_cosface_of_margin_m_sin_m():
    """TreB1eN/InsightFace_Pytorch#6: where(θ + m > π, …) with the branches swapped, below π - m."""
    theta = torch.linspace(0.01, math.pi - 0.51, 20, dtype=torch.float64)
    m = 0.5
    inverted = torch.where(theta > math.pi - m, (theta + m).cos(), theta.cos() - m * math.sin(m))
    assert_close(inverted, target_logits(cosface, theta, s=1, m=m * math.sin(m)))


def test_annealed_sphereface_of_margin_4_resembles_a_margin_of_one_and_a_half():
    """wy1iu/sphereface#11, with λ = 5, between 0 and 90 degrees."""
    theta = torch.linspace(0, math.pi / 2, 91, dtype=torch.float64)
    annealed = (5 * theta.cos() + target_logits(sphereface, theta, m=4)) / 6
    distance = {m: (annealed - (m * theta).cos()).abs().max().item() for m in (1, 1.5, 2)}
    assert min(distance, key=distance.get) == 1.5


# Wrong input


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"features": torch.zeros(3, 5, 1)}, r"features must be \(B, D\), but its shape is \(3, 5, 1\)"),
        ({"features": torch.zeros(3, 5, dtype=torch.int64)}, "features must be a floating-point tensor"),
        ({"features": [[0.0] * 5] * 3}, "but is a list"),
        ({"weight": torch.zeros(5, 7)}, r"weight must be \(C, 5\), but its shape is \(5, 7\)"),
        ({"weight": torch.zeros(0, 5)}, r"only B may be 0 in weight"),
        ({"labels": torch.zeros(3)}, "labels must be a tensor of int64, but is torch.float32"),
        ({"labels": torch.zeros(3, dtype=torch.int32)}, "but is torch.int32"),
        ({"labels": [0, 1, 2]}, "labels must be a tensor of int64, but is a list"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, r"labels must be \(3,\), but its shape is \(4,\)"),
        ({"labels": torch.zeros(3, 7, dtype=torch.int64)}, r"labels must be \(3,\), but its shape is \(3, 7\)"),
        ({"s": 0}, "s must be positive and finite, but is 0"),
        ({"s": math.nan}, "s must be positive and finite, but is nan"),
        ({"m": -1}, "m"),
        ({"m": math.nan}, "m"),
    ],
    ids=[
        "three axes",
        "integers",
        "lists",
        "transposed weight",
        "no class",
        "labels float",
        "labels int32",
        "labels list",
        "labels too many",
        "labels one-hot",
        "s 0",
        "s NaN",
        "m negative",
        "m NaN",
    ],
)
def test_wrong_arguments_are_an_error(member, change, match):
    arguments = {"features": torch.ones(3, 5), "weight": torch.ones(7, 5), "labels": torch.tensor([0, 3, 6])} | change
    with pytest.raises(ValueError, match=match):
        member(**arguments)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("function", "m", "match"),
    [
        (cosface, 2, "m, the margin of the cosine, must be from 0 to 2, but is 2"),
        (cosface, 28.6, "but is 28.6"),
        (arcface, 1.6, "m, the margin of the angle in radians, must be from 0 to 1.571, but is 1.6"),
        (sphereface, 1.35, "m must be a positive integer, but is 1.35"),
        (l_softmax, 0, "m must be a positive integer, but is 0"),
    ],
    ids=["cos 2", "cos degrees", "arc", "sphere fraction", "large 0"],
)
def test_margins_out_of_range_are_an_error(function, m, match):
    with pytest.raises(ValueError, match=match):
        function(torch.ones(3, 5), torch.ones(7, 5), torch.tensor([0, 3, 6]), m=m)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("classes", "s", "match"),
    [
        (1, 1.0, "classes must be an integer of at least 2, but is 1"),
        (2.5, 1.0, "classes must be an integer of at least 2, but is 2.5"),
        (10, 0.0, "s must be positive and finite, but is 0.0"),
        (10, math.inf, "s must be positive and finite, but is inf"),
    ],
    ids=["one class", "fraction", "s 0", "s infinite"],
)
def test_floor_of_wrong_arguments_is_an_error(classes, s, match):
    with pytest.raises(ValueError, match=match):
        normface_floor(classes, s)


@pytest.mark.compiled
@pytest.mark.parametrize("function", [arcface, l_softmax], ids=["arcface", "l_softmax"])
def test_compiled_graph_has_no_break_and_gives_the_same(function):
    arguments = drawn()
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    assert_close(compiled(*arguments), function(*arguments))
