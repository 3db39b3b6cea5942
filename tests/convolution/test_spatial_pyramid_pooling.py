"""Spatial pyramid pooling against torch and brute force, SPPF against larger windows, ASPP against torchvision."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tensors import leaf, normal
from torch import nn
from torch.testing import assert_close

from zhixing.convolution.spatial_pyramid_pooling import (
    ASPP,
    bins,
    paper_windows,
    spatial_pyramid_pool,
    sppf,
)


def adaptive(x, levels=(6, 3, 2, 1)):
    """Return torch's adaptive maxima of each level, concatenated."""
    return torch.cat([F.adaptive_max_pool2d(x, n).flatten(1) for n in levels], 1)


SIZES = [(size, n) for n in range(1, 11) for size in range(1, 200)]


# Along one axis


def test_bins_are_what_adaptive_average_pooling_averages():
    for size in range(1, 41):
        identity = torch.eye(size, dtype=torch.float64)
        for n in range(1, 13):
            weights = F.adaptive_avg_pool1d(identity, n).T
            expected = torch.zeros(n, size, dtype=torch.float64)
            for row, (start, stop) in zip(expected, bins(size, n), strict=True):
                row[start:stop] = 1 / (stop - start)
            assert_close(weights, expected)


def test_bins_round_outwards_as_fractions_do():
    from fractions import Fraction

    for size, n in SIZES:
        edges = [Fraction(i * size, n) for i in range(n + 1)]
        expected = [(math.floor(edges[i]), math.ceil(edges[i + 1])) for i in range(n)]
        assert bins(size, n) == expected


def test_bins_cover_every_pixel_and_share_at_most_one_with_a_neighbour():
    for size, n in SIZES:
        intervals = bins(size, n)
        assert set().union(*(range(*interval) for interval in intervals)) == set(range(size))
        if n <= size:
            assert all(0 <= a[1] - b[0] <= 1 for a, b in itertools.pairwise(intervals))


def test_bins_read_size_plus_n_minus_gcd_pixels():
    for size, n in SIZES:
        assert sum(stop - start for start, stop in bins(size, n)) == size + n - math.gcd(size, n)


def test_floating_point_quotients_give_other_bins():
    # 1/49 · 49 rounds to less than 1: the division must come last, and in integers.
    assert math.floor(1 / 49 * 49) == 0
    assert bins(49, 49)[1] == (1, 2)
    assert math.ceil(7 * (29 / 7)) == 30
    assert bins(29, 7)[-1] == (24, 29)


def walk(size, n):
    """Return the windows that fit, moving one window step by step."""
    window, stride = math.ceil(size / n), math.floor(size / n)
    windows, start = [], 0
    while start + window <= size:
        windows.append((start, start + window))
        start += stride
    return windows


def test_windows_of_the_printed_rule_are_those_that_fit():
    for size, n in SIZES:
        if n <= size:
            assert paper_windows(size, n) == walk(size, n)


def test_printed_rule_makes_n_plus_floor_of_r_minus_1_over_q_windows():
    for size, n in SIZES:
        if n <= size:
            q, r = divmod(size, n)
            assert len(walk(size, n)) == n + ((r - 1) // q if r else 0)


def test_printed_rule_leaves_r_minus_1_modulo_q_pixels_unread():
    for size, n in SIZES:
        if n <= size:
            q, r = divmod(size, n)
            assert size - walk(size, n)[-1][1] == ((r - 1) % q if r else 0)


def test_printed_rule_equals_the_bins_if_and_only_if_the_remainder_is_at_most_1():
    for size, n in SIZES:
        if n <= size:
            assert (walk(size, n) == bins(size, n)) is (size % n <= 1)


def test_printed_rule_is_safe_from_n_times_n_minus_1_and_not_before():
    for n in range(2, 11):
        assert all(len(walk(size, n)) == n for size in range(n * (n - 1), 200))
        if n > 2:
            assert len(walk(n * (n - 1) - 1, n)) == n + 1


@pytest.mark.parametrize("size", [10, 11, 13, 18, 23])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_pooling_layer_of_torch_has_the_windows_of_the_printed_rule(size, n):
    x = normal(1, 1, size)
    pooled = F.max_pool1d(x, math.ceil(size / n), stride=size // n)[0, 0]
    assert pooled.tolist() == [x[0, 0, a:b].max().item() for a, b in paper_windows(size, n)]


@pytest.mark.parametrize("n", range(2, 9))
def test_rounding_up_the_number_of_windows_makes_n_plus_ceiling_of_r_minus_1_over_q(n):
    for size in range(n, 100):
        q, r = divmod(size, n)
        pooled = F.max_pool1d(torch.zeros(1, 1, size), math.ceil(size / n), stride=q, ceil_mode=True)
        assert pooled.shape[2] == n + (math.ceil((r - 1) / q) if r else 0)


def test_padding_both_sides_of_disjoint_windows_is_refused_for_small_maps_only():
    # Kernel and stride ⌈a / n⌉, padding ⌈(n⌈a / n⌉ - a) / 2⌉, as in Caffe: it fits from n(n - 1) on.
    for n in range(2, 11):
        kernels = {size: math.ceil(size / n) for size in range(n, 200)}
        pads = {size: math.ceil((n * kernel - size) / 2) for size, kernel in kernels.items()}
        assert all(pads[size] <= kernels[size] // 2 for size in range(n * (n - 1), 200))
        if n == 4:
            assert pads[5] == kernels[5] == 2
    with pytest.raises(RuntimeError):
        F.max_pool1d(torch.zeros(1, 1, 5), 2, stride=2, padding=2)


def test_issue_of_lasagne_gets_25_bins_for_16():
    assert len(paper_windows(11, 4)) ** 2 == 25
    assert len(bins(11, 4)) ** 2 == 16


def test_papers_map_of_13_agrees_at_every_level_and_its_map_of_10_does_not():
    for n in (6, 3, 2, 1):
        assert paper_windows(13, n) == bins(13, n)
        assert paper_windows(18, n) == bins(18, n)
    assert [len(paper_windows(10, n)) for n in (6, 3, 2, 1)] == [9, 3, 2, 1]


@pytest.mark.wrong_input
@pytest.mark.parametrize("function", [bins, paper_windows], ids=lambda function: function.__name__)
@pytest.mark.parametrize(
    ("size", "n", "match"),
    [
        (0, 1, "size must be a positive integer, but is 0"),
        (-3, 1, "size must be a positive integer, but is -3"),
        (7.5, 2, "size must be a positive integer, but is 7.5"),
        (7, 0, "n must be a positive integer, but is 0"),
        (7, (2, 2), r"n must be a positive integer, but is \(2, 2\)"),
    ],
    ids=["no pixels", "negative", "fraction", "no bins", "pair"],
)
def test_sizes_that_are_no_sizes_are_an_error(function, size, n, match):
    with pytest.raises(ValueError, match=match):
        function(size, n)


def test_more_windows_than_pixels_have_no_stride():
    assert len(paper_windows(6, 6)) == 6
    with pytest.raises(ValueError, match="at most size = 5, or the stride is 0, but n is 6"):
        paper_windows(5, 6)
    assert bins(2, 3) == [(0, 1), (0, 2), (1, 2)]


# The pyramid

MAPS = {
    "odd": normal(2, 3, 13, 10),
    "one pixel": normal(2, 3, 1, 1),
    "one row": normal(1, 2, 1, 17),
    "smaller than a level": normal(2, 2, 4, 5),
    "empty batch": normal(0, 3, 7, 9),
    "not contiguous": normal(2, 16, 9, 3).transpose(1, 3)[:, :, :, ::2],
    "rectified, with ties": normal(2, 3, 13, 10).clamp(min=1),
    "large": 1e300 * normal(1, 2, 7, 7),
    "infinite": normal(1, 2, 7, 7).masked_fill(normal(1, 2, 7, 7, seed=1) > 0, -math.inf),
}


@pytest.mark.parametrize("x", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("levels", [(6, 3, 2, 1), (1,), (2, 5)], ids=str)
def test_pyramid_and_its_gradient_equal_torchs_adaptive_pooling(x, levels):
    ours, theirs = leaf(x), leaf(x)
    y, expected = spatial_pyramid_pool(ours, levels=levels), adaptive(theirs, levels)
    assert torch.equal(y, expected)
    weights = normal(*y.shape, seed=2)
    y.backward(weights)
    expected.backward(weights)
    assert_close(ours.grad, theirs.grad)


def test_not_contiguous_map_is_not():
    assert not MAPS["not contiguous"].is_contiguous()


def test_pyramid_equals_loops_over_the_definition():
    x = normal(2, 3, 7, 5)
    expected = []
    for image in x:
        row = []
        for n in (3, 1):
            for channel in image:
                for i in range(n):
                    for j in range(n):
                        rows = range(math.floor(i * 7 / n), math.ceil((i + 1) * 7 / n))
                        columns = range(math.floor(j * 5 / n), math.ceil((j + 1) * 5 / n))
                        row.append(max(channel[p, q].item() for p in rows for q in columns))
        expected.append(row)
    assert spatial_pyramid_pool(x, levels=(3, 1)).tolist() == expected


def test_pyramid_passes_gradcheck():
    assert torch.autograd.gradcheck(lambda x: spatial_pyramid_pool(x, levels=(3, 1)), leaf(normal(2, 2, 5, 4)))


@pytest.mark.parametrize("size", [(13, 13), (10, 10), (37, 8), (3, 4)], ids=str)
def test_pyramid_has_12800_numbers_for_256_channels_at_any_size(size):
    assert spatial_pyramid_pool(torch.zeros(1, 256, *size)).shape == (1, 12_800)
    assert spatial_pyramid_pool(torch.zeros(1, 256, *size), levels=(4, 3, 2, 1)).shape == (1, 30 * 256)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_maxima_are_exact(dtype):
    x = normal(2, 3, 9, 8).to(dtype)
    y = spatial_pyramid_pool(x)
    assert y.dtype == dtype
    assert torch.equal(y, adaptive(x.double()).to(dtype))


def test_nan_reaches_every_bin_that_holds_it():
    x = torch.zeros(1, 1, 6, 6)
    x[0, 0, 0, 5] = math.nan
    assert spatial_pyramid_pool(x, levels=(2, 1)).isnan().tolist() == [[False, True, False, False, True]]


def test_map_is_not_changed():
    x = normal(1, 2, 5, 5)
    before = x.clone()
    spatial_pyramid_pool(x).zero_()
    assert torch.equal(x, before)


def test_other_order_of_levels_is_another_vector():
    x = normal(1, 2, 7, 7)
    ascending = spatial_pyramid_pool(x, levels=(1, 2))
    assert torch.equal(ascending, torch.cat(spatial_pyramid_pool(x, levels=(2, 1)).split([8, 2], 1)[::-1], 1))
    assert not torch.equal(ascending, spatial_pyramid_pool(x, levels=(2, 1)))


def test_level_finer_than_the_map_repeats_pixels():
    x = normal(1, 1, 2, 2)
    fine = spatial_pyramid_pool(x, levels=(4,)).view(4, 4)
    assert torch.equal(fine, x[0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_weighting_by_pixels_undoes_what_averages_of_bins_count_twice():
    x = normal(1, 1, 11, 11)
    means = F.adaptive_avg_pool2d(x, 4)
    assert (means.mean() - x.mean()).abs() > 1e-4
    assert_close(F.adaptive_avg_pool2d(x[:, :, :8, :8], 4).mean(), x[:, :, :8, :8].mean())


@pytest.mark.parametrize("size", [10, 14], ids=["wrong number", "unread pixels"])
def test_printed_rule_fails_loudly_or_silently(size):
    n = 4 if size == 10 else 6
    q, r = divmod(size, n)
    x = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    pooled = F.avg_pool2d(x, math.ceil(size / n), stride=q)
    pooled.sum().backward()
    unread = (r - 1) % q
    assert pooled.shape[2] == n + (r - 1) // q
    assert bool((x.grad[:, :, size - unread :] == 0).all())
    assert bool((x.grad[:, :, : size - unread, : size - unread] > 0).all())


@pytest.mark.wrong_input
def test_wrong_maps_and_levels_are_errors():
    x = torch.zeros(1, 2, 5, 5)
    with pytest.raises(ValueError, match=r"must be \(B, C, H, W\), but its shape is \(2, 5, 5\)"):
        spatial_pyramid_pool(x[0])
    with pytest.raises(ValueError, match="at least one, but are"):
        spatial_pyramid_pool(x, levels=())
    with pytest.raises(ValueError, match="n must be a positive integer, but is 0"):
        spatial_pyramid_pool(x, levels=(2, 0))
    with pytest.raises(ValueError, match="only B may be 0"):
        spatial_pyramid_pool(x[:, :, :0])


# SPPF


def three_poolings(x, kernels):
    return torch.cat([x, *(F.max_pool2d(x, k, stride=1, padding=k // 2) for k in kernels)], 1)


@pytest.mark.parametrize("name", [name for name in MAPS if name != "rectified, with ties"])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_pooling_thrice_equals_three_larger_windows(name, kernel):
    ours, theirs = leaf(MAPS[name]), leaf(MAPS[name])
    y, expected = sppf(ours, kernel=kernel), three_poolings(theirs, (kernel, 2 * kernel - 1, 3 * kernel - 2))
    assert torch.equal(y, expected)
    if name != "infinite":  # there maxima tie, and the gradient may go to another of them
        weights = normal(*y.shape, seed=2)
        y.backward(weights)
        expected.backward(weights)
        assert_close(ours.grad, theirs.grad)


def test_default_windows_are_those_of_yolo():
    x = normal(1, 2, 19, 15)
    assert torch.equal(sppf(x), three_poolings(x, (5, 9, 13)))


def test_sppf_equals_loops_that_ignore_what_lies_beyond_the_border():
    x = -normal(1, 1, 4, 6).abs()
    expected = torch.empty(4, 4, 6, dtype=torch.float64)
    for channel, reach in enumerate((0, 1, 2, 3)):
        for i in range(4):
            for j in range(6):
                near = x[0, 0, max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1]
                expected[channel, i, j] = near.max()
    assert torch.equal(sppf(x, kernel=3)[0], expected)
    padded = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride=1)  # zeros win over negative maps
    assert bool((padded[0, 0, 0] == 0).all())


def test_with_ties_outputs_are_equal_and_gradients_may_reach_another_maximum():
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[0, 0, 1, 8] = x[0, 0, 2, 0] = 1
    ours, theirs = leaf(x), leaf(x)
    y, expected = sppf(ours), three_poolings(theirs, (5, 9, 13))
    assert torch.equal(y, expected)
    y[0, 2, 4, 4].backward()
    expected[0, 2, 4, 4].backward()
    assert theirs.grad.nonzero()[:, 2:].tolist() == [[1, 8]]  # the first in reading order
    assert ours.grad.nonzero()[:, 2:].tolist() == [[2, 0]]  # of the first window that holds one


def test_averaging_thrice_is_not_averaging_over_larger_windows():
    x = normal(1, 1, 30, 30)
    twice = F.avg_pool2d(F.avg_pool2d(x, 5, stride=1), 5, stride=1)
    assert (twice - F.avg_pool2d(x, 9, stride=1)).abs().max() > 0.01


def test_sppf_keeps_the_size_so_it_is_no_pyramid_of_bins():
    assert sppf(torch.zeros(1, 3, 16, 8)).shape == (1, 12, 16, 8)
    assert spatial_pyramid_pool(torch.zeros(1, 3, 16, 8)).shape == (1, 150)


def test_sppf_passes_gradcheck_and_keeps_low_precision():
    assert torch.autograd.gradcheck(lambda x: sppf(x, kernel=3), leaf(normal(1, 2, 4, 5)))
    half = normal(1, 2, 6, 6).bfloat16()
    assert sppf(half).dtype == torch.bfloat16
    assert torch.equal(sppf(half), sppf(half.double()).bfloat16())


@pytest.mark.wrong_input
def test_even_kernel_is_an_error():
    with pytest.raises(ValueError, match="must be odd, but is 4"):
        sppf(torch.zeros(1, 1, 5, 5), kernel=4)
    with pytest.raises(ValueError, match=r"positive integer, but is 2\.5"):
        sppf(torch.zeros(1, 1, 5, 5), kernel=2.5)


# ASPP


def shaken(module):
    """Return the module in double precision with known parameters and statistics."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.double().state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) / 4
                tensor.copy_(values.abs() + 0.5 if "running_var" in name else values)
    return module


def normalise(x, norm, training):
    """Return batch normalisation written out."""
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    else:
        mean, variance = norm.running_mean, norm.running_var
    x = (x - mean[:, None, None]) / (variance[:, None, None] + norm.eps).sqrt()
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_aspp_equals_its_branches_written_out(training):
    module = shaken(ASPP(3, rates=(2, 4), out_channels=5)).train(training)
    x = normal(2, 3, 9, 7)
    branches = []
    for index, rate in enumerate((None, 2, 4)):
        weight, norm = module.convs[index][0].weight, module.convs[index][1]
        convolved = F.conv2d(x, weight) if rate is None else F.conv2d(x, weight, padding=rate, dilation=rate)
        branches.append(normalise(convolved, norm, training).clamp(min=0))
    pooled = torch.einsum("bc,oc->bo", x.mean((2, 3)), module.convs[3][1].weight[:, :, 0, 0])
    pooled = normalise(pooled[:, :, None, None], module.convs[3][2], training).clamp(min=0)
    branches.append(pooled * torch.ones(9, 7, dtype=torch.float64))
    expected = torch.einsum("bchw,oc->bohw", torch.cat(branches, 1), module.project[0].weight[:, :, 0, 0])
    expected = normalise(expected, module.project[1], training).clamp(min=0)
    assert_close(module(x), expected)


@pytest.fixture(scope="module")
def torchvisions():
    """Return torchvision's module, with the dropout off, and ours with its weights."""
    from torchvision.models.segmentation import deeplabv3

    theirs = shaken(deeplabv3.ASPP(4, [6, 12, 18], out_channels=5))
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    ours = ASPP(4, out_channels=5).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.torchvision
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_aspp_and_all_gradients_equal_torchvisions_with_its_weights(torchvisions, training):
    outputs = []
    for module in torchvisions:
        module.train(training)
        x = leaf(normal(2, 4, 20, 13))
        y = module(x)
        gradients = torch.autograd.grad(y.square().sum(), [x, *module.parameters()])
        outputs.append((y.detach(), *gradients))
    for a, b in zip(*outputs, strict=True):
        assert_close(a, b)


def test_aspp_of_the_paper_has_as_many_weights_as_counted_by_hand():
    module = ASPP(2048)
    weights = sum(parameter.numel() for parameter in module.parameters() if parameter.ndim == 4)
    assert weights == 2 * 2048 * 256 + 3 * 9 * 2048 * 256 + 5 * 256 * 256


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (3, 4, 2, 9), (0, 4, 5, 5)], ids=str)
def test_aspp_keeps_the_size(shape):
    assert ASPP(4, out_channels=6).eval()(torch.zeros(shape)).shape == (shape[0], 6, *shape[2:])


def test_aspp_reads_strided_views():
    module = shaken(ASPP(3, rates=(2,), out_channels=4)).eval()
    x = normal(2, 16, 9, 3).transpose(1, 3)[:, :, :, ::2]
    assert_close(module(x), module(x.contiguous()))


def test_aspp_keeps_low_precision():
    module = shaken(ASPP(3, rates=(2,), out_channels=4)).eval()
    x = normal(2, 3, 8, 8)
    exact = module(x)
    half = module.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.double() - exact).norm() < 0.05 * exact.norm()


def test_two_images_are_normalised_to_plus_and_minus_one():
    torch.manual_seed(0)
    module = ASPP(8, out_channels=16).double()
    seen = []
    module.convs[4][2].register_forward_hook(lambda module, inputs, output: seen.append(output))
    module(1e6 * normal(2, 8, 5, 5))  # the variances dwarf eps
    (normalised,) = seen
    assert_close(normalised.abs(), torch.ones_like(normalised), rtol=0, atol=1e-3)
    assert_close(normalised[0], -normalised[1])


@pytest.mark.wrong_input
def test_one_image_in_training_and_wrong_channels_are_errors():
    module = ASPP(4, out_channels=6)
    with pytest.raises(ValueError, match="the mean of a single image cannot be normalised"):
        module(torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r"x must be \(B, 4, H, W\), but its shape is \(2, 5, 4, 4\)"):
        module(torch.zeros(2, 5, 4, 4))


def test_one_image_can_be_trained_on_with_frozen_statistics():
    module = ASPP(4, out_channels=6)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    module(torch.rand(1, 4, 5, 5)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.wrong_input
@pytest.mark.parametrize("levels", [3, None, (), (2, 1.5), "21", [[2]]], ids=str)
def test_what_is_no_level_is_an_error(levels):
    with pytest.raises(ValueError, match=r"levels must be|n must be a positive integer"):
        spatial_pyramid_pool(torch.zeros(1, 2, 5, 5), levels=levels)


@pytest.mark.wrong_input
@pytest.mark.parametrize("wrong", [0, -1, 1.5, "3", None, (2, 2)], ids=str)
def test_sizes_of_the_module_that_are_no_sizes_are_an_error(wrong):
    message = "must be a positive integer, but is"
    for make in (
        lambda: ASPP(wrong),
        lambda: ASPP(4, out_channels=wrong),
        lambda: ASPP(4, rates=(6, wrong)),
    ):
        with pytest.raises(ValueError, match=message):
            make()
