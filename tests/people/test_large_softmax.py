"""Sampled and sharded softmax against torch's cross-entropy, enumerations of all samples, and loops."""

import itertools
import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from tensors import assert_same_both_ways, leaf, normal
from torch import nn
from torch.testing import assert_close

from zhixing.people.large_softmax import (
    LocallyConnected2d,
    sample_classes,
    sampled_softmax_loss,
    sharded_cross_entropy,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ints(*values):
    return torch.tensor(values, dtype=torch.int64)


# The sample


@pytest.mark.parametrize("rate", [0.001, 0.07, 0.5, 1, 1.0], ids=str)
def test_sample_has_the_labels_no_class_twice_and_the_size_asked_for(rate):
    labels = torch.randint(1001, (37,), generator=seeded())
    index, positions, log_q = sample_classes(labels, 1001, rate=rate, generator=seeded(1))
    assert len(index) == max(round(rate * 1001), len(labels.unique()))
    assert (index.diff() > 0).all()
    assert index.min() >= 0
    assert index.max() <= 1000
    assert torch.equal(index[positions], labels)
    assert log_q.shape == index.shape
    certain = torch.isin(index, labels)
    assert (log_q[certain] == 0).all()
    if rate == 0.07:
        others = 1001 - certain.sum()
        expected = math.log((len(index) - certain.sum()) / others)
        assert_close(log_q[~certain], torch.full_like(log_q[~certain], expected))
    if rate == 1:
        assert_close(log_q, torch.zeros(1001))


def test_each_other_class_is_drawn_as_often_as_log_q_says():
    labels, times = ints(3, 0, 3), 2000
    generator, drawn = seeded(), torch.zeros(9)
    for _ in range(times):
        index, _, log_q = sample_classes(labels, 9, rate=0.5, generator=generator)
        drawn[index] += 1
    assert len(index) == 4
    assert_close(log_q.exp().sort().values, torch.tensor([2 / 7, 2 / 7, 1, 1]))
    assert drawn[0] == drawn[3] == times
    rare = drawn[ints(1, 2, 4, 5, 6, 7, 8)] / times
    assert ((rare - 2 / 7).abs() < 0.05).all()  # five standard errors


def test_sample_follows_the_generator_and_leaves_the_labels_alone():
    labels = ints(5, 1, 5)
    kept = labels.clone()
    one, two, other = (sample_classes(labels, 200, rate=0.1, generator=seeded(s))[0] for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(labels, kept)
    torch.manual_seed(0)
    assert len(sample_classes(labels, 200, rate=0.1)[0]) == 20


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_default_type_changes_neither_the_sample_nor_log_q(dtype):
    index, _, log_q = sample_classes(ints(5, 1), 5000, rate=0.1, generator=seeded())
    torch.set_default_dtype(dtype)
    try:
        other, _, other_q = sample_classes(ints(5, 1), 5000, rate=0.1, generator=seeded())
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(index, other)
    assert torch.equal(log_q, other_q)
    assert other_q.dtype == torch.float32


def test_sample_of_no_labels_and_of_a_single_class():
    index, positions, log_q = sample_classes(ints(), 10, rate=0.3, generator=seeded())
    assert (len(index), len(positions)) == (3, 0)
    assert_close(log_q.exp(), torch.full((3,), 0.3))
    index, positions, log_q = sample_classes(ints(0, 0), 1, rate=0.5)
    assert (index.tolist(), positions.tolist(), log_q.tolist()) == ([0], [0, 0], [0.0])


def test_labels_of_every_class_make_the_sample_whole():
    index, positions, log_q = sample_classes(torch.arange(6).flip(0), 6, rate=0.2)
    assert index.tolist() == list(range(6))
    assert positions.tolist() == [5, 4, 3, 2, 1, 0]
    assert log_q.tolist() == [0.0] * 6


# The sampled loss


def test_all_classes_give_the_cross_entropy():
    labels = torch.randint(31, (9,), generator=seeded())
    for samples in (torch.arange(31), torch.randperm(31, generator=seeded())):
        assert_same_both_ways(
            lambda x, w, samples=samples: sampled_softmax_loss(x, w, labels, samples=samples),
            lambda x, w: F.cross_entropy(x @ w.T, labels),
            normal(9, 5),
            normal(31, 5, seed=1),
        )


def test_corrected_loss_and_gradients_equal_the_corrected_softmax_over_the_sample():
    labels = torch.randint(40, (7,), generator=seeded())
    index, positions, log_q = sample_classes(labels, 40, rate=0.4, generator=seeded(2))
    assert_same_both_ways(
        lambda x, w: sampled_softmax_loss(x, w, labels, samples=index, log_count=log_q),
        lambda x, w: F.cross_entropy(x @ w[index].T - log_q, positions),
        normal(7, 5),
        normal(40, 5, seed=1),
    )


def test_loss_equals_a_loop_for_draws_with_replacement():
    labels, samples = ints(2, 0, 4), ints(4, 1, 1, 2, 4, 4)
    log_count = normal(6, seed=3)
    x, w = normal(3, 4), normal(5, 4, seed=1)

    def loop(x, w):
        total = 0.0
        for row, y in zip(x, labels.tolist(), strict=True):
            terms = [row @ w[y]]
            for j, c in zip(samples.tolist(), log_count, strict=True):
                if j != y:
                    terms.append(row @ w[j] - c)
            total = total - terms[0] + sum(t.exp() for t in terms).log()
        return total / 3

    assert_same_both_ways(
        lambda x, w: sampled_softmax_loss(x, w, labels, samples=samples, log_count=log_count), loop, x, w
    )


def test_estimated_sum_is_unbiased_and_the_loss_too_small():
    """Over all samples that contain the label's class."""
    x, w, y = normal(1, 3), 2 * normal(6, 3, seed=1), ints(4)
    z = (x @ w.T)[0]
    sums, losses = [], []
    for others in itertools.combinations((0, 1, 2, 3, 5), 2):
        samples = ints(4, *others)
        log_count = torch.tensor([1.0, 2 / 5, 2 / 5], dtype=torch.float64).log()
        loss = sampled_softmax_loss(x, w, y, samples=samples, log_count=log_count)
        losses.append(loss)
        sums.append((loss + z[4]).exp())
    assert_close(torch.stack(sums).mean(), z.exp().sum())
    assert torch.stack(losses).mean() < F.cross_entropy(z[None], y) - 0.01


def test_log_count_of_draws_with_replacement_makes_the_sum_unbiased():
    """Over all pairs of draws from Q, with the target's class among the drawn ones left out."""
    x, w, y, q = normal(1, 3), normal(4, 3, seed=1), ints(1), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    z, mean = (x @ w.T)[0], 0.0
    for i, j in itertools.product(range(4), repeat=2):
        samples = ints(i, j)
        loss = sampled_softmax_loss(x, w, y, samples=samples, log_count=(2 * q[samples]).log())
        mean = mean + q[i] * q[j] * (loss + z[1]).exp()
    assert_close(mean, z.exp().sum())


def test_softmax_over_a_uniform_sample_has_its_minimum_at_the_true_probabilities():
    """The mean over labels and samples; without correction, for any size of the sample."""
    p = torch.tensor([0.45, 0.25, 0.15, 0.1, 0.05], dtype=torch.float64)
    w, x = leaf(p.log()[:, None]), torch.ones(1, 1, dtype=torch.float64)
    total = 0.0
    for y in range(5):
        for others in itertools.combinations([c for c in range(5) if c != y], 2):
            total = total + p[y] / 6 * sampled_softmax_loss(x, w, ints(y), samples=ints(y, *others))
    (gradient,) = torch.autograd.grad(total, w)
    assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_corrected_loss_over_a_small_sample_has_its_minimum_elsewhere(size):
    p = torch.tensor([0.45, 0.25, 0.15, 0.1, 0.05], dtype=torch.float64)
    w, x = leaf(p.log()[:, None]), torch.ones(1, 1, dtype=torch.float64)
    log_count = torch.tensor([1.0] + [size / 4] * size, dtype=torch.float64).log()
    total, number = 0.0, math.comb(4, size)
    for y in range(5):
        for others in itertools.combinations([c for c in range(5) if c != y], size):
            samples = ints(y, *others)
            loss = sampled_softmax_loss(x, w, ints(y), samples=samples, log_count=log_count)
            total = total + p[y] / number * loss
    (gradient,) = torch.autograd.grad(total, w)
    assert gradient[0] < -0.01


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
def test_classes_of_the_batch_shift_the_minimum_if_they_are_not_equally_frequent(equal):
    """A batch of two and one more class; the labels are drawn by frequency."""
    p = torch.full((5,), 0.2) if equal else torch.tensor([0.45, 0.25, 0.15, 0.1, 0.05])
    p = p.double()
    w, x = leaf(p.log()[:, None]), torch.ones(1, 1, dtype=torch.float64)
    total = 0.0
    for y, b in itertools.product(range(5), repeat=2):
        batch = sorted({y, b})
        rest = [c for c in range(5) if c not in batch]
        for other in rest:
            loss = sampled_softmax_loss(x, w, ints(y), samples=ints(*batch, other))
            total = total + p[y] * p[b] / len(rest) * loss
    (gradient,) = torch.autograd.grad(total, w)
    if equal:
        assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    else:
        assert gradient[0] > 0.03


def test_popular_draws_without_correction_do_not():
    p = torch.tensor([0.45, 0.25, 0.15, 0.1, 0.05], dtype=torch.float64)
    w, x = leaf(p.log()[:, None]), torch.ones(1, 1, dtype=torch.float64)
    total = 0.0
    for y in range(5):
        for i, j in itertools.product(range(5), repeat=2):
            total = total + p[y] * p[i] * p[j] * sampled_softmax_loss(x, w, ints(y), samples=ints(i, j))
    (gradient,) = torch.autograd.grad(total, w)
    assert gradient[0] > 0.02  # the popular class is pushed down


def test_uncorrected_loss_is_that_of_a_target_raised_by_log_1_over_r():
    labels = torch.randint(20_000, (64,), generator=seeded())
    w = F.normalize(normal(20_000, 64), dim=1)
    x = F.normalize(w[labels] + 0.35 * normal(64, 64, seed=1), dim=1)
    z = 32 * x @ w.T
    index, _, _ = sample_classes(labels, 20_000, rate=0.1, generator=seeded())
    sampled = sampled_softmax_loss(x, 32 * w, labels, samples=index)
    full = F.cross_entropy(z, labels)
    z[range(64), labels] += math.log(10)
    assert abs(sampled - F.cross_entropy(z, labels)) < 0.5
    assert full - sampled > 1.5


def test_cosine_margin_shrinks_by_log_1_over_r_over_s():
    cosines, s, m, r = 0.3 * normal(5, 8).tanh(), 64, 0.4, 0.1
    labels = ints(0, 3, 7, 7, 2)
    hot = F.one_hot(labels, 8)
    assert round(math.log(1 / r) / s, 3) == 0.036
    raised = F.cross_entropy(s * (cosines - m * hot) + math.log(1 / r) * hot, labels)
    assert_close(raised, F.cross_entropy(s * (cosines - (m - math.log(1 / r) / s) * hot), labels))


def test_gradcheck_of_the_sampled_loss():
    labels, samples, log_count = ints(0, 2), ints(1, 2, 2, 3), normal(4, seed=4)
    torch.autograd.gradcheck(
        lambda x, w: sampled_softmax_loss(x, w, labels, samples=samples, log_count=log_count),
        (leaf(normal(2, 3)), leaf(normal(4, 3, seed=1))),
    )


def test_large_logits_stay_finite_and_classes_outside_get_no_gradient():
    x, w = leaf(1000 * normal(4, 3)), leaf(normal(9, 3, seed=1))
    loss = sampled_softmax_loss(x, w, ints(0, 1, 0, 1), samples=ints(0, 5))
    loss.backward()
    assert loss.isfinite()
    assert x.grad.isfinite().all()
    assert (w.grad[ints(2, 3, 4, 6, 7, 8)] == 0).all()
    assert (w.grad[ints(0, 1, 5)] != 0).any(1).all()


def test_a_sample_of_the_target_alone_costs_nothing():
    loss = sampled_softmax_loss(normal(3, 2), normal(5, 2, seed=1), ints(2, 2, 2), samples=ints(2))
    assert_close(loss, torch.zeros((), dtype=torch.float64))


# Shards


@pytest.mark.parametrize("sizes", [(12,), (5, 7), (5, 3, 4), (1, 1, 10), (4, 4, 4), (1,) * 12], ids=str)
def test_shards_give_the_cross_entropy_of_the_joined_logits(sizes):
    labels = torch.randint(12, (17,), generator=seeded())
    assert_same_both_ways(
        lambda x: sharded_cross_entropy(x.split(sizes, 1), labels),
        lambda x: F.cross_entropy(x, labels),
        5 * normal(17, 12),
    )


def test_shards_are_leaves_of_their_own():
    labels = ints(0, 3, 4)
    shards = [leaf(normal(3, 2)), leaf(normal(3, 3, seed=1))]
    joined = leaf(torch.cat([x.detach() for x in shards], 1))
    gradients = torch.autograd.grad(sharded_cross_entropy(shards, labels), shards)
    (expected,) = torch.autograd.grad(F.cross_entropy(joined, labels), joined)
    assert_close(torch.cat(gradients, 1), expected)


def test_shards_of_very_different_sizes_of_logits():
    logits = torch.tensor([[1e4, -1e4, 0.0, 3.0], [-math.inf, -math.inf, 2.0, 1.0], [-1e4, -1e4, -1e4, -1e4]])
    labels = ints(0, 3, 2)
    leaves = leaf(logits)
    loss = sharded_cross_entropy(leaves.split(2, 1), labels)
    assert_close(loss, F.cross_entropy(logits, labels))
    (gradient,) = torch.autograd.grad(loss, leaves)
    assert gradient.isfinite().all()


def test_gradcheck_of_shards():
    labels = ints(2, 0)
    torch.autograd.gradcheck(
        lambda a, b: sharded_cross_entropy((a, b), labels), (leaf(normal(2, 2)), leaf(normal(2, 3, seed=1)))
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_errs_at_most_twice_as_much_as_torch(dtype):
    logits, labels = 4 * normal(256, 96, dtype=torch.float32), torch.randint(96, (256,), generator=seeded())
    low = logits.to(dtype)
    exact = F.cross_entropy(low.float(), labels)
    ours = sharded_cross_entropy(low.split(32, 1), labels)
    assert ours.dtype == dtype
    step = torch.finfo(dtype).eps * exact
    assert (ours.float() - exact).abs() <= 2 * max((F.cross_entropy(low, labels).float() - exact).abs(), step)
    x, w = normal(32, 16, dtype=dtype), normal(96, 16, seed=1, dtype=dtype)
    loss = sampled_softmax_loss(x, w, labels[:32], samples=torch.arange(96))
    assert loss.dtype == dtype
    assert_close(loss, F.cross_entropy(x @ w.T, labels[:32]), rtol=4 * torch.finfo(dtype).eps, atol=0)


def test_other_types_of_log_count_do_not_change_the_type_of_the_loss():
    loss = sampled_softmax_loss(
        normal(2, 3, dtype=torch.float32),
        normal(5, 3, dtype=torch.float32),
        ints(0, 1),
        samples=ints(2, 3),
        log_count=normal(2),
    )
    assert loss.dtype == torch.float32


def test_non_contiguous_input():
    labels = torch.randint(10, (6,), generator=seeded()).repeat_interleave(2)[::2]
    x, w = normal(5, 6).T, normal(10, 10, seed=1)[:, ::2]
    assert not x.is_contiguous()
    assert not w.is_contiguous()
    assert_close(
        sampled_softmax_loss(x, w, labels, samples=torch.arange(20)[::2] // 2),
        F.cross_entropy(x @ w.T, labels),
    )
    logits = normal(10, 6).T
    assert_close(sharded_cross_entropy([logits[:, :4], logits[:, 4:]], labels), F.cross_entropy(logits, labels))


def test_empty_batch_is_nan_as_in_torch():
    x, w, none = normal(0, 3), normal(4, 3), ints()
    for loss in (
        F.cross_entropy(x @ w.T, none),
        sampled_softmax_loss(x, w, none, samples=ints(1)),
        sharded_cross_entropy([x, x], none),
    ):
        assert loss.isnan()


# The adaptive softmax of torch, which the article describes


def test_adaptive_softmax_sums_to_1_and_saves_parameters():
    torch.manual_seed(0)
    layer = nn.AdaptiveLogSoftmaxWithLoss(32, 1000, [100, 400], div_value=4.0).double()
    x, y = normal(5, 32), ints(0, 99, 100, 399, 999)
    log_p = layer.log_prob(x)
    assert_close(log_p.exp().sum(1), torch.ones(5, dtype=torch.float64))
    assert_close(layer(x, y).output, log_p.gather(1, y[:, None])[:, 0])
    head, tails = 32 * (100 + 2), 32 * 8 + 8 * 300 + 32 * 2 + 2 * 600
    assert sum(p.numel() for p in layer.parameters()) == head + tails < 32 * 1000 / 4


# Locally connected layers


@pytest.mark.parametrize(("stride", "size"), [(1, (7, 7)), (2, (9, 8)), (3, (5, 11))], ids=str)
def test_one_kernel_everywhere_makes_a_convolution(stride, size):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, stride=stride).double()
    layer = LocallyConnected2d(3, 4, size, kernel_size=3, stride=stride).double()
    with torch.no_grad():
        layer.weight.copy_(conv.weight)
        layer.bias.copy_(conv.bias[:, None, None])
    x = normal(2, 3, *size)
    assert_same_both_ways(layer, conv, x)
    layer(x).square().sum().backward()
    conv(x).square().sum().backward()
    assert_close(layer.weight.grad.sum((0, 1)), conv.weight.grad)
    assert_close(layer.bias.grad.sum((1, 2)), conv.bias.grad)


def test_locally_connected_layer_equals_loops():
    layer = LocallyConnected2d(2, 3, (5, 6), kernel_size=2, stride=2).double()
    x = normal(2, 2, 5, 6)
    expected = torch.zeros(2, 3, 2, 3, dtype=torch.float64)
    for b, o, i, j in itertools.product(range(2), range(3), range(2), range(3)):
        patch = x[b, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        expected[b, o, i, j] = (patch * layer.weight[i, j, o]).sum() + layer.bias[o, i, j]
    assert_close(layer(x), expected)
    assert_close(layer(x.mT.contiguous().mT), expected)
    assert layer(x[:0]).shape == (0, 3, 2, 3)


def test_initial_weights_are_as_wide_as_those_of_a_convolution():
    torch.manual_seed(0)
    layer, conv = LocallyConnected2d(16, 16, (9, 9), kernel_size=5), nn.Conv2d(16, 16, 5)
    for ours, theirs in ((layer.weight, conv.weight), (layer.bias, conv.bias)):
        bound = 1 / math.sqrt(16 * 25)
        assert ours.abs().max() <= bound
        assert theirs.abs().max() <= bound
        assert ours.max() > 0.9 * bound
        assert ours.min() < -0.9 * bound
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_parameters_of_deepface():
    """The layer sizes of reimplementations; the abstract says more than 120 million."""
    with torch.device("meta"):
        net = nn.Sequential(
            nn.Conv2d(3, 32, 11),
            nn.MaxPool2d(3, 2, padding=1),
            nn.Conv2d(32, 16, 9),
            LocallyConnected2d(16, 16, (63, 63), kernel_size=9),
            LocallyConnected2d(16, 16, (55, 55), kernel_size=7, stride=2),
            LocallyConnected2d(16, 16, (25, 25), kernel_size=5),
            nn.Flatten(),
            nn.Linear(16 * 21 * 21, 4096),
            nn.Linear(4096, 4030),
        )
        assert net(torch.empty(1, 3, 152, 152)).shape == (1, 4030)
    assert sum(p.numel() for p in net.parameters()) == 118_923_774
    assert sum(p.numel() for p in net[3].parameters()) == 62_774_800
    assert round(math.log(4030), 2) == 8.3


def test_ten_million_classes_need_20_gigabytes():
    with torch.device("meta"):
        layer = nn.Linear(512, 10**7, bias=False)
        logits = layer(torch.empty(512, 512))
    for x in (layer.weight, logits):
        assert x.numel() * x.element_size() == 20_480_000_000


# Wrong input


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([0, 1], r"labels must be int64 \(B,\), but is a list"),
        (numpy.zeros(2, dtype=int), r"but is a ndarray"),
        (torch.zeros(2), r"but is torch.float32 \(2,\)"),
        (torch.zeros(2, dtype=torch.int32), r"but is torch.int32 \(2,\)"),
        (torch.zeros(2, 1, dtype=torch.int64), r"but is torch.int64 \(2, 1\)"),
        (torch.tensor(1), r"but is torch.int64 \(\)"),
        (ints(0, 10), "labels must be from 0 to 9, but are from 0 to 10"),
        (ints(-1, 3), "labels must be from 0 to 9, but are from -1 to 3"),
    ],
    ids=["list", "numpy", "floats", "int32", "column", "scalar", "too large", "negative"],
)
def test_labels_of_other_kinds_are_an_error(labels, match):
    with pytest.raises(ValueError, match=match):
        sample_classes(labels, 10, rate=0.5)
    match = match.replace(r"\(B,\)", r"\(2,\)")
    with pytest.raises(ValueError, match=match):
        sampled_softmax_loss(torch.ones(2, 3), torch.ones(10, 3), labels, samples=ints(0))
    with pytest.raises(ValueError, match=match):
        sharded_cross_entropy([torch.ones(2, 3), torch.ones(2, 7)], labels)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    "rate", [0, 0.0, -0.1, 1.1, 2, math.nan, math.inf, True, "1", None, torch.tensor(0.5)], ids=str
)
def test_rates_outside_the_range_are_an_error(rate):
    with pytest.raises(ValueError, match="rate must be above 0 and at most 1, but is"):
        sample_classes(ints(0), 10, rate=rate)


@pytest.mark.wrong_input
@pytest.mark.parametrize("classes", [0, -1, 2.5, "3", None], ids=str)
def test_a_number_of_classes_that_is_none_is_an_error(classes):
    with pytest.raises(ValueError, match="classes must be a positive integer"):
        sample_classes(ints(0), classes, rate=0.5)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"features": torch.ones(3)}, r"features must be \(B, D\)"),
        ({"features": torch.ones(3, 2)}, r"weight must be \(C, 2\), but its shape is \(4, 5\)"),
        ({"features": torch.ones(3, 5, dtype=torch.int64)}, "features must be a floating-point tensor"),
        ({"weight": torch.ones(5, 4)}, r"weight must be \(C, 5\)"),
        ({"labels": ints(0, 1)}, r"labels must be int64 \(3,\), but has 2 entries"),
        ({"samples": ints(0, 4)}, "samples must be from 0 to 3, but are from 0 to 4"),
        ({"samples": torch.tensor([True, False])}, "samples must be int64"),
        ({"samples": 2}, "samples must be int64 .B,., but is a int"),
        ({"log_count": torch.zeros(3)}, r"log_count must be \(2\), but its shape is \(3,\)"),
        ({"log_count": ints(0, 0)}, "log_count must be a floating-point tensor"),
    ],
    ids=[
        "one axis",
        "width",
        "integers",
        "transposed weight",
        "labels",
        "class",
        "mask",
        "number",
        "counts",
        "integer counts",
    ],
)
def test_arguments_of_the_sampled_loss_that_do_not_fit_are_an_error(change, match):
    arguments = {
        "features": torch.ones(3, 5),
        "weight": torch.ones(4, 5),
        "labels": ints(0, 1, 3),
        "samples": ints(1, 2),
    } | change
    with pytest.raises(ValueError, match=match):
        sampled_softmax_loss(arguments.pop("features"), arguments.pop("weight"), arguments.pop("labels"), **arguments)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("shards", "match"),
    [
        ([], "shards must be a list of at least one tensor"),
        (torch.ones(2, 4), "shards must be a list of at least one tensor"),
        ([torch.ones(2, 2), torch.ones(3, 2)], r"shards\[1\] has 3 samples, but shards\[0\] 2"),
        ([torch.ones(2, 2), torch.ones(2)], r"shards\[1\] must be"),
        ([torch.ones(2, 2), torch.ones(2, 0)], r"in shards\[1\]"),
        ([torch.ones(2, 2, dtype=torch.int64)], r"shards\[0\] must be a floating-point tensor"),
        ([torch.ones(2, 1), torch.ones(2, 1)], "labels must be from 0 to 1, but are from 0 to 2"),
        ([torch.ones(3, 9)], r"labels must be int64 \(3,\), but has 2 entries"),
    ],
    ids=["none", "tensor", "rows", "one axis", "empty", "integers", "label", "labels"],
)
def test_shards_that_do_not_fit_are_an_error(shards, match):
    with pytest.raises(ValueError, match=match):
        sharded_cross_entropy(shards, ints(0, 2))


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"channels": 0}, "channels must be a positive integer"),
        ({"out_channels": 1.5}, "out_channels must be a positive integer"),
        ({"size": 5}, "size must be two positive integers"),
        ({"kernel_size": 0}, "kernel_size must be a positive integer"),
        ({"kernel_size": 5}, "kernel_size must be at most 4, but is 5"),
        ({"stride": 0}, "stride must be a positive integer"),
    ],
    ids=["channels", "out", "size", "kernel", "too large", "stride"],
)
def test_options_of_the_layer_out_of_range_are_an_error(options, match):
    arguments = {"channels": 2, "out_channels": 3, "size": (6, 4), "kernel_size": 3, "stride": 1} | options
    with pytest.raises(ValueError, match=match):
        LocallyConnected2d(arguments.pop("channels"), arguments.pop("out_channels"), arguments.pop("size"), **arguments)


@pytest.mark.wrong_input
def test_images_of_another_size_are_an_error():
    layer = LocallyConnected2d(2, 3, (6, 4), kernel_size=3)
    for x in (torch.ones(1, 2, 4, 6), torch.ones(1, 1, 6, 4), torch.ones(2, 6, 4)):
        with pytest.raises(ValueError, match=r"x must be \(B, 2, 6, 4\)"):
            layer(x)
