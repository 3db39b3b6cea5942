"""Lightweight networks against torch, torchvision, timm and scipy, and against the papers' tables."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tensors import leaf, normal
from torch import nn
from torch.testing import assert_close

from zhixing.convolution.lightweight_networks import (
    DepthwiseSeparable,
    InvertedResidual,
    MobileNetV1,
    channel_shuffle,
    collapse_probability,
    conv_cost,
    layer_costs,
    mobilenet_v1,
    round_channels,
)


def shaken(module):
    """Return the module in double precision with known parameters and statistics."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.double().state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.3
                tensor.copy_(values.abs() + 0.5 if "running_var" in name else scale * values)
    return module


def outputs_and_gradients(module, x):
    """Return the output, the gradients of its square's sum, and the buffers afterwards."""
    x = leaf(x)
    y = module(x)
    gradients = torch.autograd.grad(y.square().sum(), [x, *module.parameters()])
    return y.detach(), *gradients, *module.buffers()


def assert_same(ours, theirs, x):
    for a, b in zip(outputs_and_gradients(ours, x), outputs_and_gradients(theirs, x), strict=True):
        assert_close(a, b)


def normalise(x, norm, training):
    """Return batch normalisation written out."""
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    else:
        mean, variance = norm.running_mean, norm.running_var
    x = (x - mean[:, None, None]) / (variance[:, None, None] + norm.eps).sqrt()
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]


# Costs

LAYERS = [
    (in_channels, out_channels, kernel_size, size, stride, groups, batch)
    for in_channels, out_channels, groups in [(6, 6, 1), (6, 4, 2), (6, 6, 6), (3, 6, 3), (1, 1, 1)]
    for kernel_size, size, stride, batch in [(1, (5, 8), 1, 1), (3, (7, 4), 2, 2), (5, (1, 9), 3, 1), (3, (6, 6), 2, 3)]
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_cost_equals_what_torch_counts(layer):
    from torch.utils.flop_counter import FlopCounterMode

    in_channels, out_channels, kernel_size, size, stride, groups, batch = layer
    with torch.device("meta"):
        net = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
        x = torch.empty(batch, in_channels, *size)
    with FlopCounterMode(display=False) as counter:
        y = net(x)
    cost = conv_cost(
        in_channels, out_channels, kernel_size=kernel_size, size=size, stride=stride, groups=groups, batch=batch
    )
    assert cost.macs == counter.get_total_flops() / 2
    assert cost.parameters == net.weight.numel()
    assert cost.moved == x.numel() + net.weight.numel() + y.numel()
    assert layer_costs(net, (in_channels, *size), batch=batch) == [("", cost)]


def test_table_3_of_mobilenets():
    dense = conv_cost(512, 512, kernel_size=3, size=(14, 14))
    assert (round(dense.macs / 1e6), round(dense.parameters / 1e6, 2)) == (462, 2.36)
    for width, macs, parameters in ((1, 52.3, 0.27), (0.75, 29.6, 0.15)):
        channels = int(512 * width)
        layers = [
            conv_cost(channels, channels, kernel_size=3, size=(14, 14), groups=channels),
            conv_cost(channels, channels, kernel_size=1, size=(14, 14)),
        ]
        assert round(sum(layer.macs for layer in layers) / 1e6, 1) == macs
        assert round(sum(layer.parameters for layer in layers) / 1e6, 2) == parameters


def test_separable_share_is_one_over_n_plus_one_over_k_squared():
    for in_channels, out_channels, k in itertools.product((4, 7), (1, 8, 100), (3, 5)):
        size = (6, 5)
        dense = conv_cost(in_channels, out_channels, kernel_size=k, size=size).macs
        separable = conv_cost(in_channels, in_channels, kernel_size=k, size=size, groups=in_channels).macs
        separable += conv_cost(in_channels, out_channels, kernel_size=1, size=size).macs
        assert math.isclose(separable / dense, 1 / out_channels + 1 / k**2)


def test_equal_widths_move_least_for_given_multiplications():
    moved = {
        c1: conv_cost(c1, 4096 // c1, kernel_size=1, size=(7, 9)).moved for c1 in (1, 2, 4, 8, 16, 32, 64, 128, 512)
    }
    assert min(moved, key=moved.get) == 64
    macs = 4096 * 63
    assert math.isclose(moved[64], 2 * math.sqrt(63 * macs) + macs / 63)


class Vectors(nn.Module):
    """A convolution, and one linear layer that is applied twice."""

    def __init__(self):
        super().__init__()
        self.convolution, self.linear = nn.Conv1d(2, 4, 1), nn.Linear(4, 4)

    def forward(self, x):
        x = self.convolution(x.flatten(2)).flatten(1)
        return self.linear(self.linear(x).relu())


def test_layers_are_counted_by_name_once_for_each_use():
    (first, cost), *linear = layer_costs(Vectors(), (2, 1, 1), batch=3)
    assert (first, cost) == ("convolution", (8, 24, 26))
    assert linear == 2 * [("linear", (16, 48, 40))]


class Named(nn.Module):
    """A convolution that is given its input by name."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.convolution(input=x)


def test_input_may_be_given_by_name():
    assert layer_costs(Named(), (3, 5, 6)) == [("convolution", (108, 12 * 108, 90 + 48 + 108))]


class MaskedConvolution(nn.Conv2d):
    """A convolution of the pixels that a mask leaves, as for images with holes."""

    def forward(self, x, mask):
        return super().forward(x * mask)


class Holes(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = MaskedConvolution(3, 4, 3)

    def forward(self, x):
        return self.convolution(x, x[:, :1] != 0)


def test_mask_beside_the_image_does_not_count():
    assert layer_costs(Holes(), (3, 5, 6)) == [("convolution", (108, 12 * 108, 90 + 48 + 108))]


def test_network_is_not_changed_by_counting():
    net = shaken(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    layer_costs(net, (3, 8, 8), batch=2)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert net.training
    assert not net[0]._forward_hooks


@pytest.mark.wrong_input
def test_wrong_costs_are_errors():
    with pytest.raises(ValueError, match="kernel_size must be odd, but is 2"):
        conv_cost(4, 4, kernel_size=2, size=(5, 5))
    with pytest.raises(ValueError, match="6 channels cannot be divided into 4 equal groups"):
        conv_cost(4, 6, kernel_size=1, size=(5, 5), groups=4)
    with pytest.raises(ValueError, match="6 channels cannot be divided into 4 equal groups"):
        conv_cost(6, 4, kernel_size=1, size=(5, 5), groups=4)
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "groups", "batch"):
        arguments = {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "size": (5, 5)} | {name: 0}
        with pytest.raises(ValueError, match=f"{name} must be a positive integer, but is 0"):
            conv_cost(**arguments)
    with pytest.raises(ValueError, match="size must be a positive integer, but is 0"):
        conv_cost(4, 4, kernel_size=3, size=(0, 5))
    with pytest.raises(ValueError, match="a size must be a positive integer, but is 0"):
        layer_costs(nn.Conv2d(3, 4, 3), (3, 5, 5), batch=0)


# MobileNet


@pytest.fixture(scope="module")
def meta():
    """Return MobileNet on the meta device."""
    with torch.device("meta"):
        return mobilenet_v1()


def test_class_has_the_defaults_of_its_function(meta):
    with torch.device("meta"):
        net = MobileNetV1()
    shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (net, meta)]
    assert shapes[0] == shapes[1]


def test_table_2_of_mobilenets(meta):
    macs, parameters = {}, {}
    for name, cost in layer_costs(meta, (3, 224, 224)):
        kind = name.split(".")[-1]
        macs[kind] = macs.get(kind, 0) + cost.macs
        parameters[kind] = parameters.get(kind, 0) + cost.parameters
    printed = {
        "conv_pw": (94.86, 74.59),
        "conv_dw": (3.06, 1.06),
        "conv_stem": (1.91, 0.02),  # the paper prints 1.19, and its column sums to 99.29
        "classifier": (0.18, 24.33),
    }
    for kind, (macs_share, parameters_share) in printed.items():
        assert round(100 * macs[kind] / sum(macs.values()), 2) == macs_share
        assert round(100 * parameters[kind] / sum(parameters.values()), 2) == parameters_share


def test_tables_4_6_and_7_of_mobilenets(meta):
    printed = {(1, 224): 569, (0.75, 224): 325, (0.5, 224): 149, (0.25, 224): 41, (1, 192): 418, (1, 128): 186}
    for (width, pixels), million in printed.items():
        with torch.device("meta"):
            net = mobilenet_v1(width=width)
        macs = sum(cost.macs for _, cost in layer_costs(net, (3, pixels, pixels)))
        assert round(macs / 1e6) == million
    assert sum(parameter.numel() for parameter in meta.parameters()) == 4_231_976


def test_dense_mobilenet_has_29_million_weights_and_4867_million_macs():
    layers = [nn.Conv2d(3, 32, 3, 2, 1, bias=False)]
    for channels, stride in itertools.chain(*MobileNetV1.stages):
        layers.append(nn.Conv2d(layers[-1].out_channels, channels, 3, stride, 1, bias=False))
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000))
    costs = [cost for _, cost in layer_costs(net, (3, 224, 224))]
    assert round(sum(cost.macs for cost in costs) / 1e6) == 4867
    assert round(sum(cost.parameters for cost in costs) / 1e6, 1) == 29.3


@pytest.fixture(scope="module")
def timms():
    """Return a function that makes timm's MobileNet of a width, in double precision."""
    import timm

    def make(width):
        name = {1.0: "mobilenetv1_100", 1.25: "mobilenetv1_125"}[width]
        return shaken(timm.create_model(name, num_classes=7))

    return make


@pytest.mark.torchvision
@pytest.mark.parametrize("width", [1.0, 1.25])
def test_timms_weights_give_timms_outputs(timms, width):
    theirs = timms(width).eval()
    ours = mobilenet_v1(width=width, num_classes=7).double().eval()
    ours.load_state_dict(theirs.state_dict())
    x = normal(1, 3, 65, 48)
    with torch.no_grad():
        y = ours(x)
        assert y.std() > 1e-3
        assert_close(y, theirs(x))


@pytest.mark.torchvision
def test_timms_block_and_all_gradients(timms):
    theirs = timms(1.0).blocks[2][0]
    ours = DepthwiseSeparable(128, 256, stride=2).double()
    ours.load_state_dict(theirs.state_dict())
    for training in (False, True):
        assert_same(ours.train(training), theirs.train(training), 3 * normal(2, 128, 7, 4))


def test_narrow_network_trains_on_two_images():
    net = mobilenet_v1(width=0.05, num_classes=3)
    net(torch.rand(2, 3, 64, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert net.conv_stem.out_channels == 8


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_separable_layer_equals_its_steps_written_out(training, stride):
    module = shaken(DepthwiseSeparable(3, 5, stride=stride)).train(training)
    x = 5 * normal(2, 3, 7, 6)
    filtered = torch.cat(
        [F.conv2d(x[:, [c]], module.conv_dw.weight[[c]], stride=stride, padding=1) for c in range(3)], 1
    )
    filtered = normalise(filtered, module.bn1, training).clamp(0, 6)
    mixed = torch.einsum("bchw,oc->bohw", filtered, module.conv_pw.weight[:, :, 0, 0])
    expected = normalise(mixed, module.bn2, training).clamp(0, 6)
    assert_close(module(x), expected)


def test_relu6_is_reached_on_both_sides():
    module = DepthwiseSeparable(2, 2).double().eval()
    with torch.no_grad():
        module.conv_dw.weight.fill_(1)
        module.conv_pw.weight.copy_(torch.tensor([[1.0, 1], [-1, -1]])[..., None, None])
    y = module(1e3 * normal(1, 2, 9, 9).abs())
    assert bool((y[:, 0] == 6).all())
    assert bool((y[:, 1] == 0).all())


def test_dense_convolution_is_separable_with_k_squared_kernels_per_channel():
    weight, x = normal(5, 4, 3, 3), normal(2, 4, 6, 7, seed=1)
    kernels = torch.eye(9, dtype=torch.float64).view(9, 1, 3, 3).repeat(4, 1, 1, 1)
    separable = F.conv2d(F.conv2d(x, kernels, padding=1, groups=4), weight.reshape(5, 36, 1, 1))
    assert_close(separable, F.conv2d(x, weight, padding=1))


def test_dense_convolution_is_separable_with_its_own_kernels_of_each_channel():
    weight, x = normal(5, 4, 3, 3), normal(2, 4, 6, 7, seed=1)
    kernels = weight.transpose(0, 1).reshape(20, 1, 3, 3)
    mixing = torch.eye(5, dtype=torch.float64).repeat(1, 4)[..., None, None]
    separable = F.conv2d(F.conv2d(x, kernels, padding=1, groups=4), mixing)
    assert_close(separable, F.conv2d(x, weight, padding=1))


def test_one_kernel_per_channel_gives_rank_one():
    kernel, mixing = normal(4, 3, 3), normal(5, 4, seed=1)
    dense = mixing[:, :, None, None] * kernel
    x = normal(2, 4, 6, 7, seed=2)
    separable = F.conv2d(F.conv2d(x, kernel[:, None], padding=1, groups=4), mixing[:, :, None, None])
    assert_close(separable, F.conv2d(x, dense, padding=1))
    assert all(torch.linalg.matrix_rank(dense[:, c].flatten(1)) == 1 for c in range(4))


@pytest.fixture(scope="module")
def divisible():
    """Return torchvision's rounding of channels."""
    from torchvision.models._utils import _make_divisible

    return _make_divisible


@pytest.mark.torchvision
def test_rounding_equals_torchvisions(divisible):
    for divisor in (1, 4, 8):
        for eighths in range(1, 3000):
            assert round_channels(eighths / 8, divisor=divisor) == divisible(eighths / 8, divisor)


def test_rounded_channels_are_divisible_and_lose_at_most_a_tenth():
    for channels in range(1, 2000):
        rounded = round_channels(channels)
        assert rounded % 8 == 0
        assert rounded >= 0.9 * channels
        assert rounded - channels < 8


@pytest.mark.wrong_input
def test_wrong_widths_and_images_are_errors():
    with pytest.raises(ValueError, match="width must be positive and finite, but is 0"):
        mobilenet_v1(width=0)
    with pytest.raises(ValueError, match="num_classes must be a positive integer, but is 0"):
        mobilenet_v1(width=0.1, num_classes=0)
    with pytest.raises(ValueError, match="channels must be positive and finite, but is nan"):
        round_channels(math.nan)
    with pytest.raises(ValueError, match="divisor must be a positive integer, but is 0"):
        round_channels(8, divisor=0)
    net = mobilenet_v1(width=0.1)
    with pytest.raises(ValueError, match=r"must be \(B, 3, H, W\), but its shape is \(3, 64, 64\)"):
        net(torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match=r"must be \(B, 3, H, W\), but its shape is \(1, 1, 64, 64\)"):
        net(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ValueError, match=r"must be \(B, 4, H, W\)"):
        DepthwiseSeparable(4, 8)(torch.zeros(1, 5, 4, 4))
    with pytest.raises(ValueError, match=r"stride must be a positive integer, but is 0"):
        DepthwiseSeparable(4, 8, stride=0)


# Groups and shuffles


@pytest.mark.parametrize(
    "shape", [(2, 12, 5, 4), (1, 12, 3), (0, 12, 2, 2), (3, 12, 0), (2, 12), (1, 12, 2, 3, 2)], ids=str
)
@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 12])
def test_shuffle_and_its_gradient_equal_loops(shape, groups):
    x = leaf(normal(*shape))
    order = [i * (12 // groups) + j for j in range(12 // groups) for i in range(groups)]
    y = channel_shuffle(x, groups)
    assert torch.equal(y, x[:, order])
    weights = normal(*shape, seed=1)
    y.backward(weights)
    assert torch.equal(x.grad[:, order], weights)
    if len(shape) > 2 and x.numel():
        assert torch.equal(y, nn.ChannelShuffle(groups)(x))


def test_shuffle_of_a_strided_view_in_low_precision():
    x = normal(2, 8, 5, 12).bfloat16().transpose(1, 3)[:, :, ::2]
    assert not x.is_contiguous()
    assert torch.equal(channel_shuffle(x, 3), channel_shuffle(x.contiguous(), 3))
    assert channel_shuffle(x, 3).dtype == torch.bfloat16


def test_shuffle_with_the_other_factor_is_the_inverse():
    x = normal(1, 12, 2)
    assert torch.equal(channel_shuffle(channel_shuffle(x, 3), 4), x)
    assert not torch.equal(channel_shuffle(x, 3), channel_shuffle(x, 4))
    assert torch.equal(
        channel_shuffle(x[:, :9], 3), channel_shuffle(channel_shuffle(channel_shuffle(x[:, :9], 3), 3), 3)
    )


def reach(channels, groups, shuffle):
    """Return how many inputs the first output of two grouped convolutions sees, as a share."""
    weight = torch.ones(channels, channels // groups, 1, 1)
    x = torch.ones(1, channels, 1, 1, requires_grad=True)
    hidden = F.conv2d(x, weight, groups=groups)
    F.conv2d(shuffle(hidden), weight, groups=groups)[0, 0].sum().backward()
    return (x.grad != 0).float().mean().item()


@pytest.mark.parametrize(("channels", "groups"), [(240, 3), (240, 16), (384, 8), (64, 8), (64, 16), (12, 12), (12, 1)])
def test_two_grouped_convolutions_reach_c_over_g_squared_of_the_inputs(channels, groups):
    assert math.isclose(reach(channels, groups, lambda x: x), 1 / groups, rel_tol=1e-6)
    expected = min(1, channels / groups**2)
    assert math.isclose(reach(channels, groups, lambda x: channel_shuffle(x, groups)), expected, rel_tol=1e-6)
    # The transposed shuffle mixes as well, but is another network.
    transposed = reach(channels, groups, lambda x: channel_shuffle(x, channels // groups))
    assert math.isclose(transposed, expected, rel_tol=1e-6)


@pytest.mark.wrong_input
def test_wrong_groups_are_errors():
    with pytest.raises(ValueError, match="6 channels cannot be divided into 4 equal groups"):
        channel_shuffle(torch.zeros(1, 6, 2), 4)
    with pytest.raises(ValueError, match="groups must be a positive integer, but is 0"):
        channel_shuffle(torch.zeros(1, 6, 2), 0)
    with pytest.raises(ValueError, match="its shape is"):
        channel_shuffle(torch.zeros(6), 2)


# Inverted residuals

BLOCKS = {
    "residual": (4, 4, 1, 6),
    "wider": (4, 6, 1, 2),
    "stride 2": (4, 4, 2, 3),
    "no expansion": (4, 4, 1, 1),
    "no expansion, wider": (4, 5, 2, 1),
}


@pytest.fixture(scope="module")
def torchvisions():
    """Return torchvision's block."""
    from torchvision.models.mobilenetv2 import InvertedResidual

    return InvertedResidual


@pytest.mark.torchvision
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_block_and_all_gradients_equal_torchvisions_with_its_weights(torchvisions, block, training):
    in_channels, out_channels, stride, expand_ratio = block
    theirs = shaken(torchvisions(*block)).train(training)
    ours = InvertedResidual(in_channels, out_channels, stride=stride, expand_ratio=expand_ratio)
    ours.double().train(training).load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, 10 * normal(2, 4, 7, 6))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_block_equals_its_steps_written_out(training):
    module = shaken(InvertedResidual(3, 3, expand_ratio=2)).train(training)
    x = 8 * normal(2, 3, 5, 4)
    widen, depthwise, narrow, norm = module.conv
    hidden = torch.einsum("bchw,oc->bohw", x, widen[0].weight[:, :, 0, 0])
    hidden = normalise(hidden, widen[1], training).clamp(0, 6)
    hidden = torch.cat([F.conv2d(hidden[:, [c]], depthwise[0].weight[[c]], padding=1) for c in range(6)], 1)
    hidden = normalise(hidden, depthwise[1], training).clamp(0, 6)
    narrowed = torch.einsum("bchw,oc->bohw", hidden, narrow.weight[:, :, 0, 0])
    expected = x + normalise(narrowed, norm, training)
    assert expected.min() < 0  # no ReLU at the end
    assert_close(module(x), expected)


@pytest.mark.parametrize("module", [InvertedResidual(4, 4), DepthwiseSeparable(4, 4)], ids=["inverted", "separable"])
def test_blocks_accept_empty_strided_and_low_precision_input(module):
    module = shaken(module).eval()
    assert module(torch.zeros(0, 4, 5, 5, dtype=torch.float64)).shape == (0, 4, 5, 5)
    assert module(torch.zeros(1, 4, 1, 1, dtype=torch.float64)).shape == (1, 4, 1, 1)
    x = normal(2, 8, 9, 4).transpose(1, 3)[:, :, ::2]
    assert not x.is_contiguous()
    exact = module(x)
    assert_close(exact, module(x.contiguous()))
    half = module.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.double() - exact).norm() < 0.05 * exact.norm()


def test_mobilenet_v2_has_300_million_macs_and_3_5_million_weights():
    with torch.device("meta"):
        nets = {width: mobilenet_v2(width) for width in (1.0, 1.4)}
    costs = {width: layer_costs(net, (3, 224, 224)) for width, net in nets.items()}
    counts = {width: sum(parameter.numel() for parameter in net.parameters()) for width, net in nets.items()}
    assert round(sum(cost.macs for _, cost in costs[1.0]) / 1e6) in (300, 301)
    assert round(counts[1.0] / 1e6, 1) == 3.5
    assert round(counts[1.4] / 1e6, 1) == 6.1


def mobilenet_v2(width):
    channels = round_channels(32 * width)
    layers = [nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels)]
    settings = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    for t, c, n, s in settings:
        for i in range(n):
            out_channels = round_channels(c * width)
            layers.append(InvertedResidual(channels, out_channels, stride=1 if i else s, expand_ratio=t))
            channels = out_channels
    last = round_channels(1280 * max(1, width))
    layers += [nn.Conv2d(channels, last, 1, bias=False), nn.BatchNorm2d(last), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(last, 1000))


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])  # up to 320 channels in equal blocks
def test_every_block_of_mobilenet_v2_that_repeats_another_adds_its_input(width):
    with torch.device("meta"):
        net = mobilenet_v2(width)
    assert sum(block.adds_input for block in net if isinstance(block, InvertedResidual)) == 0 + 1 + 2 + 3 + 2 + 2 + 0


@pytest.mark.wrong_input
def test_wrong_blocks_are_errors():
    with pytest.raises(ValueError, match="stride must be 1 or 2, but is 3"):
        InvertedResidual(4, 4, stride=3)
    with pytest.raises(ValueError, match="expand_ratio must be a positive integer, but is 0"):
        InvertedResidual(4, 4, expand_ratio=0)
    with pytest.raises(ValueError, match=r"must be \(B, 4, H, W\), but its shape is \(1, 3, 5, 5\)"):
        InvertedResidual(4, 4)(torch.zeros(1, 3, 5, 5))


# What ReLU forgets


def test_collapse_probability_equals_scipys_binomial():
    from scipy.stats import binom

    for n in (1, 2, 3, 16, 32, 96, 500):
        for m in (1, 2, 3, 16, 50, 600):
            assert math.isclose(collapse_probability(n, m), binom.cdf(m - 1, n, 0.5), rel_tol=1e-9)


def test_collapse_is_nearly_certain_at_expansion_1_and_never_seen_at_6():
    for m in (2, 5, 16):
        assert math.isclose(collapse_probability(m, m), 1 - 2.0**-m)
        assert math.isclose(collapse_probability(2 * m, m), (1 - math.comb(2 * m, m) / 4**m) / 2)
    assert 1e-12 < collapse_probability(96, 16) < 3e-12


@pytest.mark.parametrize(("n", "m"), [(3, 2), (6, 3), (5, 4)])
def test_share_of_points_that_relu_collapses(n, m):
    directions, x = normal(20_000, n, m), normal(m, seed=1)
    active = directions @ x > 0
    # The rank of the active rows is less than m for as many draws as the coins say.
    ranks = torch.linalg.matrix_rank(directions * active[..., None])
    assert torch.equal(ranks < m, active.sum(1) < m)
    p = collapse_probability(n, m)
    assert abs((ranks < m).double().mean() - p) < 4 * math.sqrt(p * (1 - p) / 20_000)


def test_collapsed_points_move_without_changing_relu():
    directions, x = normal(4, 3, seed=3), normal(3, seed=4)
    for signs in itertools.product((1, -1), repeat=4):
        t = directions * torch.tensor(signs)[:, None] * (directions @ x).sign()[:, None]
        active = t[t @ x > 0]
        if len(active) < 3:
            kernel = torch.linalg.svd(active, full_matrices=True)[2][-1] if len(active) else torch.eye(3)[0].double()
            step = 1e-3 * kernel
            assert_close(F.relu(t @ (x + step)), F.relu(t @ x))
        else:
            solved = torch.linalg.lstsq(active, (active @ x)[:, None]).solution[:, 0]
            assert_close(solved, x)


@pytest.mark.wrong_input
def test_wrong_counts_are_errors():
    with pytest.raises(ValueError, match="n must be a positive integer, but is 0"):
        collapse_probability(0, 2)
    with pytest.raises(ValueError, match=r"m must be a positive integer, but is 1\.5"):
        collapse_probability(3, 1.5)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: conv_cost(4, 4, kernel_size=3, size=5), "size must be two positive integers, but is 5"),
        (lambda: conv_cost(4, 4, kernel_size=3, size=(5, 5, 5)), "size must be two positive integers"),
        (lambda: conv_cost(4, 4, kernel_size=3, size=(5, "5")), "size must be a positive integer, but is '5'"),
        (lambda: round_channels(math.inf), "channels must be positive and finite, but is inf"),
        (lambda: round_channels("32"), "channels must be positive and finite, but is '32'"),
        (lambda: mobilenet_v1(width=math.inf), "width must be positive and finite, but is inf"),
        (lambda: InvertedResidual(4, 4, stride=(2, 2)), r"stride must be a positive integer, but is \(2, 2\)"),
        (lambda: channel_shuffle([1.0], 1), "but it is a list"),
        (lambda: layer_costs(lambda x: x, (3, 5, 5)), "must be a module, but is a function"),
    ],
)
def test_what_is_no_number_no_pair_or_no_network_is_an_error(call, match):
    with pytest.raises(ValueError, match=match):
        call()
