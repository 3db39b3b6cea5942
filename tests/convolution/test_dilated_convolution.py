"""Dilated convolution against torch, zero-stuffed kernels, brute force, and torchvision's dilated ResNet."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tensors import normal
from torch import nn
from torch.testing import assert_close

from zhixing.convolution.dilated_convolution import (
    ContextModule,
    causal_conv1d,
    dilated_conv2d,
    has_holes,
    path_counts,
)


def stuffed(weight, dilation):
    """Return the kernel with rows and columns of zeros between its entries."""
    *channels, rows, columns = weight.shape
    long = weight.new_zeros(*channels, (rows - 1) * dilation + 1, (columns - 1) * dilation + 1)
    long[..., ::dilation, ::dilation] = weight
    return long


def reached(rates, kernel_size):
    """Return the offsets that a stack reaches, with the number of paths to each, path by path."""
    counts = {}
    for taps in itertools.product(range(kernel_size), repeat=len(rates)):
        offset = sum(tap * rate for tap, rate in zip(taps, rates, strict=True))
        counts[offset] = counts.get(offset, 0) + 1
    return counts


# Which rates leave no holes


@pytest.mark.parametrize("kernel_size", [2, 3, 5])
def test_no_holes_if_and_only_if_each_rate_is_within_the_field_of_the_smaller(kernel_size):
    stacks = 0
    for layers in range(5):
        for rates in itertools.combinations_with_replacement(range(1, 13), layers):
            offsets = {0}
            for rate in rates:
                offsets = {offset + tap * rate for offset in offsets for tap in range(kernel_size)}
            complete = len(offsets) == 1 + (kernel_size - 1) * sum(rates)
            assert has_holes(rates, kernel_size=kernel_size) is not complete, rates
            stacks += 1
    assert stacks == math.comb(16, 4)


def test_order_of_the_layers_does_not_matter():
    for rates in itertools.permutations([1, 2, 5, 9]):
        assert not has_holes(rates)
        assert has_holes([*rates, 36])
        assert_close(path_counts(rates), path_counts(sorted(rates)))


def test_boundary_of_the_condition_is_the_receptive_field():
    for kernel_size in (2, 3, 5, 7):
        rates = [kernel_size**layer for layer in range(5)]
        assert not has_holes(rates, kernel_size=kernel_size)
        assert has_holes([*rates[:-1], rates[-1] + 1], kernel_size=kernel_size)


def test_empty_stack_sees_its_own_pixel():
    assert not has_holes([])
    assert path_counts([]).tolist() == [1]


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 5])
@pytest.mark.parametrize("rates", [(1,), (2, 2, 2), (1, 2, 4), (3, 1, 2, 9), (5, 1)], ids=str)
def test_path_counts_equal_the_paths_one_by_one(rates, kernel_size):
    counts = path_counts(rates, kernel_size=kernel_size)
    expected = reached(rates, kernel_size)
    assert counts.tolist() == [expected.get(offset, 0) for offset in range(1 + (kernel_size - 1) * sum(rates))]
    assert counts.sum() == kernel_size ** len(rates)
    assert bool((counts == 0).any()) is has_holes(rates, kernel_size=kernel_size)


@pytest.mark.parametrize("rates", [(2, 2, 2), (1, 2, 4), (2, 3, 5)], ids=str)
def test_path_counts_are_the_gradient_of_a_stack_of_ones(rates):
    size = 1 + 2 * sum(rates)
    image = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    out = image
    for rate in rates:
        out = F.conv2d(out, torch.ones(1, 1, 3, 3, dtype=torch.float64), dilation=rate)
    out.sum().backward()
    counts = path_counts(rates).double()
    assert_close(image.grad[0, 0], torch.outer(counts, counts))


def test_powers_of_the_kernel_size_give_one_path_to_each_pixel():
    for kernel_size in (2, 3, 5):
        counts = path_counts([1, kernel_size, kernel_size**2], kernel_size=kernel_size)
        assert counts.tolist() == [1] * kernel_size**3


def test_doubled_rates_begin_like_sterns_diatomic_sequence():
    stern = [0, 1]
    for n in range(2, 65):
        stern.append(stern[n // 2] + (stern[n // 2 + 1] if n % 2 else 0))
    counts = path_counts([1, 2, 4, 8, 16, 32]).tolist()
    assert counts[:64] == stern[1:]
    assert counts == counts[::-1]


def test_wavenets_block_sees_1024_steps_with_one_path_each():
    rates = [2**layer for layer in range(10)]
    assert path_counts(rates, kernel_size=2).tolist() == [1] * 1024
    assert not has_holes(rates, kernel_size=2)


def test_two_convolutions_a_block_double_what_a_temporal_network_sees_beyond_the_present():
    blocks = [1, 2, 4, 8]
    twice = [rate for rate in blocks for _ in range(2)]
    assert len(path_counts(twice, kernel_size=2)) == 1 + 2 * sum(blocks)


@pytest.mark.wrong_input
@pytest.mark.parametrize("function", [has_holes, path_counts], ids=lambda function: function.__name__)
@pytest.mark.parametrize(
    ("rates", "kernel_size", "match"),
    [
        ([1, 0], 3, "positive integer, but is 0"),
        ([-1], 3, "positive integer, but is -1"),
        ([1.5], 3, r"positive integer, but is 1\.5"),
        (["2"], 3, "positive integer, but is '2'"),
        ([1, 2], 1, "at least 2, but is 1"),
        (2, 3, "must be a sequence"),
        ([1, 2], (3, 3), r"at least 2, but is \(3, 3\)"),
    ],
    ids=["zero", "negative", "fraction", "text", "kernel of one", "one rate", "kernel of two"],
)
def test_rates_that_are_no_rates_are_an_error(function, rates, kernel_size, match):
    with pytest.raises(ValueError, match=match):
        function(rates, kernel_size=kernel_size)


@pytest.mark.wrong_input
def test_numbers_of_other_libraries_count_as_numbers():
    expected = path_counts([1, 2, 4])
    assert torch.equal(path_counts(torch.tensor([1, 2, 4]), kernel_size=torch.tensor(3)), expected)
    assert torch.equal(path_counts(np.array([1, 2, 4]), kernel_size=np.int64(3)), expected)
    assert torch.equal(path_counts(rate for rate in (1, 2, 4)), expected)


def test_more_paths_than_an_integer_holds_are_an_error():
    assert path_counts([1] * 39).sum() == 3**39
    with pytest.raises(ValueError, match=r"3\^40 paths"):
        path_counts([1] * 40)
    assert path_counts([1] * 62, kernel_size=2).sum() == 2**62
    with pytest.raises(ValueError, match=r"2\^63 paths"):
        path_counts([1] * 63, kernel_size=2)


# The operation

SHAPES = {
    "odd": (normal(2, 3, 7, 10), normal(4, 3, 3, 5, seed=1), normal(4, seed=2)),
    "without bias": (normal(1, 2, 9, 9), normal(3, 2, 3, 3, seed=1), None),
    "one pixel": (normal(1, 1, 1, 1), normal(1, 1, 3, 3, seed=1), normal(1, seed=2)),
    "one row": (normal(1, 2, 1, 11), normal(2, 2, 1, 3, seed=1), normal(2, seed=2)),
    "empty batch": (normal(0, 3, 7, 10), normal(4, 3, 3, 3, seed=1), normal(4, seed=2)),
    "kernel of one": (normal(2, 2, 5, 4), normal(3, 2, 1, 1, seed=1), normal(3, seed=2)),
    "many channels": (normal(1, 300, 3, 4), normal(2, 300, 3, 1, seed=1), normal(2, seed=2)),
}
SHAPES["not contiguous"] = (
    normal(2, 8, 6, 3).transpose(1, 3)[:, :, :, ::2],
    normal(3, 3, 4, 3, seed=1)[:, :, :3],
    normal(6, seed=2)[::2],
)


def leaves(*tensors):
    return [None if tensor is None else tensor.detach().clone().requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("dilation", [1, 2, 3, 20])
@pytest.mark.parametrize("inputs", SHAPES.values(), ids=SHAPES)
def test_convolving_the_phases_equals_the_dilated_convolution_of_torch(inputs, dilation):
    ours, theirs = leaves(*inputs), leaves(*inputs)
    y = dilated_conv2d(*ours, dilation=dilation)
    expected = F.conv2d(*theirs, padding="same", dilation=dilation)
    assert_close(y, expected)
    weights = normal(*y.shape, seed=3)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        if a is not None:
            assert_close(a.grad, b.grad)


def test_strided_views_are_read_as_they_are():
    x, weight, bias = SHAPES["not contiguous"]
    assert not x.is_contiguous()
    assert_close(dilated_conv2d(x, weight, bias, dilation=2), F.conv2d(x, weight, bias, padding="same", dilation=2))


@pytest.mark.parametrize("dilation", [1, 2, 5])
def test_dilation_equals_stuffing_the_kernel_with_zeros(dilation):
    x, weight, bias = SHAPES["odd"]
    expected = F.conv2d(x, stuffed(weight, dilation), bias, padding="same")
    assert_close(dilated_conv2d(x, weight, bias, dilation=dilation), expected)


def test_gradients_pass_gradcheck():
    inputs = leaves(normal(1, 2, 4, 5), normal(2, 2, 3, 3, seed=1), normal(2, seed=2))
    assert torch.autograd.gradcheck(lambda *leaf: dilated_conv2d(*leaf, dilation=2), inputs)
    sequence = leaves(normal(1, 5, 2), normal(2, 2, 3, seed=1), normal(2, seed=2))
    assert torch.autograd.gradcheck(lambda *leaf: causal_conv1d(*leaf, dilation=2), sequence)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_error_is_at_most_twice_torchs(dtype):
    x, weight, bias = (tensor.to(dtype) for tensor in (normal(2, 8, 12, 12), normal(4, 8, 3, 3, seed=1), normal(4)))
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding="same", dilation=2)
    ours = dilated_conv2d(x, weight, bias, dilation=2)
    assert ours.dtype == dtype
    theirs = F.conv2d(x, weight, bias, padding="same", dilation=2)
    assert (ours - exact).abs().max() <= 2 * (theirs - exact).abs().max()


def test_large_and_infinite_pixels_stay_in_their_phase():
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 3, 4] = math.inf
    y = dilated_conv2d(x, torch.ones(1, 1, 3, 3), dilation=2)
    seen = y.isinf()[0, 0].nonzero()
    assert sorted(map(tuple, seen.tolist())) == [(i, j) for i in (1, 3, 5) for j in (2, 4, 6)]


def test_same_rates_keep_the_phases_apart():
    image = normal(1, 1, 12, 12).requires_grad_()
    out = image
    for seed in range(3):
        out = torch.tanh(F.conv2d(out, normal(1, 1, 3, 3, seed=seed), padding="same", dilation=2))
    out[0, 0, 6, 7].backward()
    rows, columns = image.grad[0, 0].nonzero().T
    assert set((rows % 2).tolist()) == {0}
    assert set((columns % 2).tolist()) == {1}


@pytest.mark.wrong_input
def test_wrong_channels_kernels_and_rates_are_errors():
    x, weight = torch.ones(1, 3, 8, 9), torch.ones(2, 3, 5, 7)
    with pytest.raises(ValueError, match="x has 8 channels, but the weight is for 3"):
        dilated_conv2d(x.movedim(1, 3), weight, dilation=2)
    with pytest.raises(ValueError, match=r"must be odd, but are \(2, 7\)"):
        dilated_conv2d(x, weight[:, :, :2], dilation=2)
    with pytest.raises(ValueError, match="positive integer, but is 0"):
        dilated_conv2d(x, weight, dilation=0)
    with pytest.raises(ValueError, match=r"positive integer, but is \(2, 2\)"):
        dilated_conv2d(x, weight, dilation=(2, 2))


# Causal


@pytest.mark.parametrize("dilation", [1, 2, 9])
@pytest.mark.parametrize("kernel_size", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 7])
def test_causal_equals_loops_over_the_definition(length, kernel_size, dilation):
    x, weight, bias = normal(2, length, 3), normal(4, 3, kernel_size, seed=1), normal(4, seed=2)
    expected = torch.zeros(2, length, 4, dtype=torch.float64)
    for t in range(length):
        expected[:, t] = bias
        for k in range(kernel_size):
            if (then := t - (kernel_size - 1 - k) * dilation) >= 0:
                expected[:, t] += x[:, then] @ weight[:, :, k].T
    assert_close(causal_conv1d(x, weight, bias, dilation=dilation), expected)


@pytest.mark.parametrize("channels", [3, 300])
def test_causal_value_and_gradients_equal_cutting_off_the_end_of_a_padded_convolution(channels):
    inputs = normal(2, 9, channels), normal(4, channels, 3, seed=1), normal(4, seed=2)
    ours, theirs = leaves(*inputs), leaves(*inputs)
    y = causal_conv1d(*ours, dilation=2)
    x, weight, bias = theirs
    expected = F.conv1d(x.transpose(1, 2), weight, bias, padding=4, dilation=2)[:, :, :-4].transpose(1, 2)
    assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.grad, b.grad)


def test_no_step_sees_the_future():
    x = normal(1, 12, 2).requires_grad_()
    y = causal_conv1d(causal_conv1d(x, normal(2, 2, 3), dilation=1), normal(2, 2, 3, seed=1), dilation=3)
    y[0, 7].sum().backward()
    seen = x.grad[0].abs().sum(1).nonzero().flatten().tolist()
    assert seen == list(range(8))


def test_causal_reads_strided_views_and_keeps_low_precision():
    x, weight = normal(2, 6, 10)[:, ::2, ::3], normal(3, 4, 2, seed=1)
    assert_close(causal_conv1d(x, weight, dilation=2), causal_conv1d(x.contiguous(), weight, dilation=2))
    half = causal_conv1d(x.bfloat16(), weight.bfloat16(), dilation=2)
    assert half.dtype == torch.bfloat16
    assert_close(half.double(), causal_conv1d(x, weight, dilation=2), rtol=0, atol=0.1)


@pytest.mark.wrong_input
def test_channels_before_time_are_an_error():
    with pytest.raises(ValueError, match=r"x \(B, L, C\) has 9 channels, but the weight is for 3"):
        causal_conv1d(torch.ones(1, 3, 9), torch.ones(2, 3, 2), dilation=2)
    with pytest.raises(ValueError, match="positive integer, but is 0"):
        causal_conv1d(torch.ones(1, 9, 3), torch.ones(2, 3, 2), dilation=0)


# The context module


def test_receptive_fields_are_those_of_the_papers_table():
    sizes = [len(path_counts(ContextModule.rates[: layer + 1])) for layer in range(7)]
    assert sizes == [3, 5, 9, 17, 33, 65, 67]
    assert not has_holes(ContextModule.rates)


@pytest.mark.parametrize("channels", [1, 5, 21])
def test_has_as_many_weights_as_the_paper_says(channels):
    weights = [parameter for name, parameter in ContextModule(channels).named_parameters() if "weight" in name]
    assert sum(weight.numel() for weight in weights) == 64 * channels**2


def test_new_module_is_the_rectifier():
    maps = normal(2, 3, 9, 7).float()
    assert_close(ContextModule(3)(maps), F.relu(maps))


def test_module_sees_67_by_67_pixels():
    module = ContextModule(1).double()
    with torch.no_grad():
        for layer in module.layers:
            layer.weight.fill_(0.1)
    image = torch.ones(1, 1, 81, 75, dtype=torch.float64, requires_grad=True)
    module(image)[0, 0, 40, 37].backward()
    rows, columns = image.grad[0, 0].nonzero().T
    assert (rows.min(), rows.max()) == (40 - 33, 40 + 33)
    assert (columns.min(), columns.max()) == (37 - 33, 37 + 33)
    assert len(rows) == 67**2


def test_module_equals_zero_stuffed_kernels_on_the_padded_image():
    module = ContextModule(2).double()
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.add_(normal(*parameter.shape, seed=seed) / 10)
    maps = normal(1, 2, 6, 5).requires_grad_()
    out = F.pad(maps, (33, 33, 33, 33))
    for layer, rate in zip(module.layers[:7], (1, 1, 2, 4, 8, 16, 1), strict=True):
        out = F.conv2d(out, stuffed(layer.weight, rate), layer.bias).clamp(min=0)
    out = torch.einsum("oc,bchw->bohw", module.layers[7].weight[:, :, 0, 0], out)
    out = out + module.layers[7].bias[:, None, None]
    leaf = [maps, *module.parameters()]
    assert_close(module(maps), out)
    ours = torch.autograd.grad(module(maps).square().sum(), leaf)
    theirs = torch.autograd.grad(out.square().sum(), leaf)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b)


def test_module_accepts_an_empty_batch():
    assert ContextModule(2)(torch.empty(0, 2, 4, 4)).shape == (0, 2, 4, 4)


@pytest.mark.wrong_input
def test_wrong_number_of_channels_is_an_error():
    with pytest.raises(ValueError, match="channels must be a positive integer, but is 0"):
        ContextModule(0)
    with pytest.raises(ValueError, match=r"x must be \(B, 2, H, W\), but its shape is \(1, 3, 4, 4\)"):
        ContextModule(2)(torch.ones(1, 3, 4, 4))


# From stride to dilation


def test_stride_then_dilation_equals_sampling_of_dilation_multiplied():
    x, first, second = normal(1, 2, 21, 18), normal(3, 2, 3, 3, seed=1), normal(2, 3, 3, 3, seed=2)
    for stride in (2, 3):
        coarse = F.conv2d(F.conv2d(x, first, stride=stride, padding=1), second, padding=2, dilation=2)
        fine = F.conv2d(x, first, padding=1)
        fine = F.conv2d(fine, second, padding=2 * stride, dilation=2 * stride)
        assert_close(fine[:, :, ::stride, ::stride], coarse)


def test_stride_then_pooling_equals_sampling_of_dilated_pooling():
    x, weight = normal(1, 2, 21, 18), normal(3, 2, 3, 3, seed=1)
    for stride in (2, 3):
        coarse = F.max_pool2d(F.conv2d(x, weight, stride=stride, padding=1), 3, stride=1, padding=1)
        fine = F.pad(F.conv2d(x, weight, padding=1), [stride] * 4, value=-math.inf)
        fine = F.max_pool2d(fine, 3, stride=1, dilation=stride)
        assert_close(fine[:, :, ::stride, ::stride], coarse)


@pytest.fixture(scope="module")
def resnets():
    """Return the maps of three ResNet-50s with the same weights: strided; dilated; first blocks dilated too."""
    from torchvision.models import resnet50

    def body(net, image):
        out = net.maxpool(net.relu(net.bn1(net.conv1(image))))
        return net.layer4(net.layer3(net.layer2(net.layer1(out))))

    torch.manual_seed(0)
    strided = resnet50(weights=None)
    for module in strided.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    nets = {"strided": strided}
    for name in ("dilated", "first blocks too"):
        nets[name] = resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
        nets[name].load_state_dict(strided.state_dict())
    for stage, rate in ((nets["first blocks too"].layer3, 2), (nets["first blocks too"].layer4, 4)):
        stage[0].conv2.dilation = stage[0].conv2.padding = (rate, rate)
    image = torch.randn(1, 3, 97, 130)
    with torch.no_grad():
        return {name: body(net.eval(), image) for name, net in nets.items()}


@pytest.mark.torchvision
def test_torchvisions_dilated_resnet_sampled_equals_the_strided_one(resnets):
    difference = resnets["dilated"][:, :, ::4, ::4] - resnets["strided"]
    assert difference.norm() < 1e-5 * resnets["strided"].norm()


@pytest.mark.torchvision
def test_dilating_the_first_blocks_too_changes_the_output(resnets):
    difference = resnets["first blocks too"][:, :, ::4, ::4] - resnets["strided"]
    assert difference.norm() > 0.1 * resnets["strided"].norm()
