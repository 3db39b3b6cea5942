"""EfficientNet against torchvision and timm, its counts against the paper, its padding against brute force."""

import functools
import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from tensors import leaf, normal
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from zhixing.convolution.efficientnet import (
    COEFFICIENTS,
    STAGES,
    EfficientNet,
    MBConv,
    round_channels,
    round_repeats,
    same_padding,
    stochastic_depth,
)
from zhixing.convolution.receptive_field import nan_probe, receptive_field


def shaken(module):
    """Return the module in double precision with known parameters and statistics."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.double().state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                if "running_var" in name:
                    tensor.copy_(values.abs() + 0.5)
                elif tensor.ndim > 1:
                    tensor.copy_(2 * values / math.sqrt(tensor[0].numel()))
                else:
                    tensor.copy_(values / 8 + ("weight" in name))
    return module


def both_ways(module, x, seed=0):
    """Return the output, and the gradients of x and of all parameters, with a fixed seed."""
    x = leaf(x)
    torch.manual_seed(seed)
    y = module(x)
    weights = normal(*y.shape, seed=5)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *module.parameters()])]


@functools.cache
def meta(name):
    """Return a member of the family without numbers."""
    width, depth, *_ = COEFFICIENTS[name]
    with torch.device("meta"):
        return EfficientNet(width=width, depth=depth).eval()


def multiplications(net, size):
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, size, size))
    return counter.get_total_flops() / 2


# Rounding


def test_channels_are_the_nearest_multiple_of_8_not_below_90_percent():
    multiples = [8 * k for k in range(1, 54)]
    for channels in range(1, 100):
        for eighths in range(1, 33, 5):  # the product is exact
            exact = Fraction(channels * eighths, 8)
            nearest = min(multiples, key=lambda m: (abs(m - exact), -m))
            expected = nearest if nearest >= exact * Fraction(9, 10) else nearest + 8
            assert round_channels(channels, eighths / 8) == expected


@pytest.mark.torchvision
def test_channels_and_repeats_equal_torchvisions():
    from torchvision.models._utils import _make_divisible
    from torchvision.models.efficientnet import MBConvConfig

    for width in (0.1, 0.35, 0.5, 1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0, 4.3):
        for channels in range(1, 330, 7):
            assert round_channels(channels, width) == _make_divisible(channels * width, 8)
    for depth in (0.5, 1.0, 1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1, 5.3):
        for repeats in range(1, 20):
            assert round_repeats(repeats, depth) == MBConvConfig.adjust_depth(repeats, depth)


def test_small_channels_can_grow_by_almost_80_percent():
    assert round_channels(9, 1.0) == 16
    assert max(round_channels(c, 1.0) / c for c in range(8, 400)) == 16 / 9


def test_repeats_round_the_floating_point_product():
    assert round_repeats(25, 2.2) == 56
    assert math.ceil(25 * Fraction(22, 10)) == 55
    for _, depth, *_ in COEFFICIENTS.values():  # nowhere in the family does this matter
        for *_, repeats in STAGES:
            assert round_repeats(repeats, depth) == math.ceil(repeats * Fraction(str(depth)))


def test_b1_and_b2_have_the_same_23_blocks():
    repeats = {n: [round_repeats(s[4], COEFFICIENTS[n][1]) for s in STAGES] for n in ("B0", "B1", "B2")}
    assert repeats["B1"] == repeats["B2"] == [2, 3, 3, 4, 4, 5, 2]
    assert sum(repeats["B0"]) == 16


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: round_channels(0, 1.0), "channels must be a positive integer, but is 0"),
        (lambda: round_channels(16.5, 1.0), r"channels must be a positive integer, but is 16\.5"),
        (lambda: round_channels(16, 0.0), r"width must be positive and finite, but is 0\.0"),
        (lambda: round_channels(16, math.nan), "width must be positive and finite, but is nan"),
        (lambda: round_repeats(-1, 1.0), "repeats must be a positive integer, but is -1"),
        (lambda: round_repeats(2, math.inf), "depth must be positive and finite, but is inf"),
        (lambda: same_padding(0, 3, 1), "size must be a positive integer, but is 0"),
        (lambda: same_padding(5, 0, 1), "kernel must be a positive integer, but is 0"),
        (lambda: same_padding(5, 3, 0), "stride must be a positive integer, but is 0"),
        (lambda: MBConv(8, 8, kernel=4), "kernel must be odd, but is 4"),
        (lambda: MBConv(8, 8, expand=0), "expand must be a positive integer, but is 0"),
        (lambda: MBConv(8, 0), "out_channels must be a positive integer, but is 0"),
        (lambda: MBConv(8, 8)(torch.zeros(1, 4, 5, 5)), r"must be \(B, 8, H, W\), but its shape is \(1, 4, 5, 5\)"),
        (lambda: EfficientNet(width=-1.0), r"width must be positive and finite, but is -1\.0"),
        (lambda: stochastic_depth(torch.ones(2), 1.5, training=True), r"between 0 and 1, but is 1\.5"),
        (lambda: stochastic_depth(torch.ones(2), -0.1, training=False), r"between 0 and 1, but is -0\.1"),
        (lambda: stochastic_depth(torch.tensor(1.0), 0.5, training=True), "batch dimension, but is a scalar"),
        (lambda: stochastic_depth([1.0], 0.5, training=True), "floating-point tensor, but is a list"),
        (lambda: stochastic_depth(torch.ones(2).long(), 0.0, training=True), r"but is torch\.int64"),
        (lambda: stochastic_depth(torch.ones(2), "0.5", training=True), "between 0 and 1, but is '0.5'"),
        (lambda: round_channels(16, "1.1"), "width must be positive and finite, but is '1.1'"),
        (lambda: round_repeats(2, None), "depth must be positive and finite, but is None"),
        (lambda: MBConv(8, 8, drop=-1.0), r"drop must be between 0 and 1, but is -1\.0"),
        (lambda: MBConv(8, 8, stride=0.5), r"stride must be a positive integer, but is 0\.5"),
        (lambda: EfficientNet(num_classes=0), "num_classes must be a positive integer, but is 0"),
        (lambda: EfficientNet(dropout=math.nan), "dropout must be between 0 and 1, but is nan"),
        (lambda: EfficientNet(stochastic_depth_prob=1.5), r"stochastic_depth_prob must be .*, but is 1\.5"),
    ],
)
def test_wrong_input_is_an_error(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.wrong_input
def test_grey_and_unbatched_images_are_errors():
    with torch.device("meta"):
        net = EfficientNet().eval()
        for shape in (1, 1, 64, 64), (3, 64, 64):
            with pytest.raises(ValueError, match=r"must be \(B, 3, H, W\)"):
                net(torch.empty(shape))


@pytest.mark.parametrize("p", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_dropped_sample_is_0_even_where_it_is_not_finite(p, value):
    x = torch.full((200, 2), value)
    y = stochastic_depth(x, p, training=True)
    dropped = (y == 0).all(1)
    assert dropped.any()
    assert_close(y[~dropped], x[: int((~dropped).sum())], equal_nan=True)


# SAME padding


SIZES = [(n, k, s) for n in range(1, 18) for k in (1, 2, 3, 5) for s in (1, 2, 3)]


def test_same_padding_is_the_least_that_gives_size_over_stride_outputs():
    for size, kernel, stride in SIZES:
        before, after = same_padding(size, kernel, stride)
        wanted = math.ceil(size / stride)
        if (wanted - 1) * stride + kernel <= size:  # the last window fits without padding
            least = 0
        else:
            least = next(p for p in range(99) if p + size >= kernel and (p + size - kernel) // stride + 1 == wanted)
        assert (before + after, after - before) == (least, least % 2)


@pytest.mark.torchvision
def test_same_padding_equals_timms():
    from timm.layers import pad_same

    for size, kernel, stride in SIZES:
        before, after = same_padding(size, kernel, stride)
        x = torch.arange(1.0, size + 1).expand(1, 1, size, size)
        expected = pad_same(x, [kernel, kernel], [stride, stride])
        assert_close(F.pad(x, (before, after, before, after)), expected)


def test_same_padding_equals_torchs_where_torch_has_it():
    for size, kernel, _ in SIZES:
        if kernel % 2:  # torch puts the additional zero of an even kernel elsewhere
            x, weight = normal(1, 1, size), normal(1, 1, kernel)
            padded = F.pad(x, same_padding(size, kernel, 1))
            assert_close(F.conv1d(padded, weight), F.conv1d(x, weight, padding="same"))


def mobilenet_v1(size):
    """Return the layers of MobileNetV1 for `receptive_field`, with SAME padding at this size."""
    layers = []
    for stride in (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1):  # Conv2d_0, then 13 depthwise
        layers.append((3, stride, same_padding(size, 3, stride)[0], 1))
        size = math.ceil(size / stride)
    return layers


@pytest.mark.parametrize(("size", "padding"), [(224, 126), (321, 157)])
def test_google_table_of_mobilenet_v1_has_padding_126_at_224_and_157_at_321(size, padding):
    field = receptive_field(mobilenet_v1(size))
    assert (field.size, field.stride) == (315, 32)
    assert (field.size - 1) / 2 - field.centre == padding


def without_excitation(net):
    """Return the convolutions of a network, without the global means."""
    for module in net.modules():
        if isinstance(module, MBConv):
            module.block[-2] = nn.Identity()
    return net.eval()


@pytest.mark.parametrize(("size", "shift"), [(1120, 31), (1140, 19)])
def test_same_padding_shifts_the_grid_by_2_to_the_i_for_each_even_map(size, shift):
    even, side = 0, size
    for i in range(5):
        even += (side % 2 == 0) << i
        side = math.ceil(side / 2)
    assert even == shift
    net = without_excitation(EfficientNet(same=True)).features
    first, last = nan_probe(net, (3, 1, size), unit=17)
    assert (last - first + 1, (first + last) / 2) == (851, 32 * 17 + shift)


def test_symmetric_padding_centres_unit_u_at_32_u():
    net = without_excitation(EfficientNet()).features
    assert nan_probe(net, (3, 1, 1120), unit=17) == (32 * 17 - 425, 32 * 17 + 425)


def test_same_padding_equals_symmetric_padding_of_a_shifted_image_away_from_the_border():
    x = normal(1, 3, 1, 1408)
    net = without_excitation(shaken(EfficientNet()))
    same = without_excitation(shaken(EfficientNet(same=True)))
    with torch.no_grad():
        shifted = net.features(x.roll(-31, -1))
        ours = same.features(x)
    error = (ours - shifted).abs().mean((0, 1, 2)) / ours.std(-1).mean()
    assert error[14:29].max() < 1e-9
    assert error[:5].min() > 1e-3


# Stochastic depth


@pytest.mark.torchvision
@pytest.mark.parametrize("p", [0.0, 0.2, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(6,), (5, 3), (4, 3, 2, 2), (0, 3), (1, 0, 2)], ids=str)
def test_stochastic_depth_and_its_gradient_equal_torchvisions(p, shape):
    from torchvision import ops

    results = []
    for function in (
        lambda x: stochastic_depth(x, p, training=True),
        lambda x: ops.stochastic_depth(x, p, "row"),
    ):
        x = leaf(normal(*shape))
        torch.manual_seed(3)
        y = function(x)
        results.append((y.detach(), *torch.autograd.grad(y.sum(), x)))
    assert_close(*results)


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    y = stochastic_depth(torch.ones(20_000, 2, 3), 0.2, training=True)
    assert_close(y.amin((1, 2)), y.amax((1, 2)))
    assert y.unique().tolist() == [0.0, 1.25]
    assert abs(y[:, 0, 0].mean().item() - 1) < 5 * math.sqrt(0.25 / 20_000)


def test_stochastic_depth_does_nothing_in_evaluation_and_reads_views():
    x = normal(4, 6, 3).transpose(0, 1)
    assert stochastic_depth(x, 0.9, training=False) is x
    torch.manual_seed(1)
    y = stochastic_depth(x, 0.5, training=True)
    kept = y[:, 0, 0] != 0
    assert_close(y, torch.where(kept[:, None, None], 2 * x, 0))
    assert 0 < kept.sum() < 6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_stochastic_depth_keeps_low_precision(dtype):
    torch.manual_seed(0)
    y = stochastic_depth(torch.ones(100, 2, dtype=dtype), 0.2, training=True)
    assert y.dtype == dtype
    assert set(y.unique().tolist()) == {0.0, 1.25}


def test_rates_rise_over_the_scaled_blocks_and_the_last_is_not_reached():
    with torch.device("meta"):
        net = EfficientNet(width=1.6, depth=2.2)  # B5
    rates = [module.drop for module in net.modules() if isinstance(module, MBConv)]
    assert rates == pytest.approx([0.2 * i / 39 for i in range(39)])
    assert rates[-1] == pytest.approx(0.195, abs=1e-3)
    unscaled = sum(blocks for *_, blocks in STAGES)
    assert 0.2 * 38 / unscaled == pytest.approx(0.475)  # as reported for a port


# The block


BLOCKS = {
    "adds its input": {"in_channels": 8, "out_channels": 8},
    "other channels": {"in_channels": 8, "out_channels": 16},
    "strided": {"in_channels": 8, "out_channels": 8, "kernel": 5, "stride": 2},
    "without expansion": {"in_channels": 8, "out_channels": 8, "expand": 1},
    "drops samples": {"in_channels": 8, "out_channels": 8, "drop": 0.5},
    "drops nothing": {"in_channels": 8, "out_channels": 16, "drop": 0.5},
}


@pytest.fixture
def torchvisions_block():
    from torchvision.models.efficientnet import MBConv as TheirBlock
    from torchvision.models.efficientnet import MBConvConfig

    def build(in_channels, out_channels, *, expand=6, kernel=3, stride=1, drop=0.0):
        config = MBConvConfig(expand, kernel, stride, in_channels, out_channels, 1)
        return TheirBlock(config, drop, functools.partial(nn.BatchNorm2d, eps=1e-5))

    return build


@pytest.mark.torchvision
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("options", BLOCKS.values(), ids=BLOCKS)
def test_block_and_all_gradients_equal_torchvisions_with_its_weights(torchvisions_block, options, training):
    theirs = shaken(torchvisions_block(**options)).train(training)
    ours = MBConv(**options).double().train(training)
    ours.load_state_dict(theirs.state_dict())
    x = normal(4, 8, 7, 6)
    for mine, other in zip(both_ways(ours, x), both_ways(theirs, x), strict=True):
        assert_close(mine, other)
    assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))


@pytest.mark.parametrize("same", [False, True], ids=["symmetric", "same"])
def test_block_equals_its_layers_written_out(same):
    module = shaken(MBConv(4, 6, expand=3, stride=2, same=same, eps=1e-3)).eval()
    x = normal(2, 4, 6, 5)
    weights = dict(module.named_parameters())
    buffers = dict(module.named_buffers())

    def normalise(x, name):
        mean, variance = (buffers[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var"))
        scale, bias = (weights[f"{name}.{key}"][:, None, None] for key in ("weight", "bias"))
        return (x - mean) / (variance + 1e-3).sqrt() * scale + bias

    y = torch.einsum("bchw,oc->bohw", x, weights["block.0.0.weight"][:, :, 0, 0])
    y = normalise(y, "block.0.1")
    y = y * y.sigmoid()
    y = F.pad(y, (1, 1, 0, 1) if same else (1, 1, 1, 1))  # width 5 is odd, height 6 is even
    windows = y.unfold(2, 3, 2).unfold(3, 3, 2)
    y = torch.einsum("bchwij,cij->bchw", windows, weights["block.1.0.weight"][:, 0])
    y = normalise(y, "block.1.1")
    y = y * y.sigmoid()
    squeezed = y.mean((2, 3)) @ weights["block.2.fc1.weight"][:, :, 0, 0].T + weights["block.2.fc1.bias"]
    assert squeezed.shape == (2, 1)  # a quarter of the 4 channels that enter the block, not of 12
    squeezed = squeezed * squeezed.sigmoid()
    gate = squeezed @ weights["block.2.fc2.weight"][:, :, 0, 0].T + weights["block.2.fc2.bias"]
    y = y * gate.sigmoid()[:, :, None, None]
    y = torch.einsum("bchw,oc->bohw", y, weights["block.3.0.weight"][:, :, 0, 0])
    assert_close(module(x), normalise(y, "block.3.1"))


def test_block_passes_gradcheck():
    module = shaken(MBConv(2, 2, expand=2)).train()
    names, values = zip(*((name, leaf(value)) for name, value in module.named_parameters()), strict=True)

    def output(x, *values):
        return functional_call(module, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, (leaf(normal(2, 2, 3, 2)), *values))


def test_block_reads_views_and_leaves_its_input_alone():
    module = shaken(MBConv(3, 3)).eval()
    x = normal(2, 12, 9, 3).transpose(1, 3)[:, :, :, ::2]
    before = x.clone()
    assert_close(module(x), module(x.contiguous()))
    assert torch.equal(x, before)


@pytest.mark.parametrize("same", [False, True], ids=["symmetric", "same"])
def test_block_keeps_low_precision(same):
    module = shaken(MBConv(8, 8, same=same)).eval()
    x = normal(2, 8, 6, 6)
    exact = module(x)
    half = module.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.double() - exact).norm() < 0.05 * exact.norm()


def test_frozen_block_and_input_without_gradient_work():
    module = MBConv(8, 8).requires_grad_(False)
    x = torch.rand(2, 8, 5, 5, requires_grad=True)
    module(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert not module(x.detach()).requires_grad


# The network


@pytest.fixture(scope="module")
def torchvisions():
    """Return torchvision's B0 with known weights, and ours with the same."""
    from torchvision.models import efficientnet_b0

    theirs = shaken(efficientnet_b0(num_classes=7))
    ours = EfficientNet(num_classes=7).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.torchvision
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_b0_and_all_gradients_equal_torchvisions_with_its_weights(torchvisions, training):
    results = [both_ways(module.train(training), normal(2, 3, 34, 33)) for module in torchvisions]
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, rtol=1e-6, atol=1e-6 * max(1, theirs.abs().max().item()))


@pytest.mark.torchvision
@pytest.mark.parametrize("name", ["B0", "B3", "B7"])  # the test of table 2 has all
def test_names_and_shapes_equal_torchvisions(name):
    from torchvision import models

    with torch.device("meta"):
        theirs = getattr(models, f"efficientnet_{name.lower()}")()
    ours = meta(name)
    shapes = [{key: value.shape for key, value in module.state_dict().items()} for module in (ours, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.torchvision
@pytest.mark.parametrize("name", COEFFICIENTS)
def test_dropout_is_as_in_torchvision(name, monkeypatch):
    from torchvision.models import efficientnet as theirs

    monkeypatch.setattr(theirs, "_efficientnet", lambda stages, dropout, *rest, **settings: dropout)
    assert COEFFICIENTS[name][3] == getattr(theirs, f"efficientnet_{name.lower()}")()


@pytest.mark.torchvision
def test_torchvisions_b5_has_another_eps_than_b4():
    from torchvision import models

    with torch.device("meta"):
        eps = [getattr(models, f"efficientnet_{name}")().features[0][1].eps for name in ("b4", "b5")]
    assert eps == [1e-5, 1e-3]
    narrow = [EfficientNet(width=0.1, depth=0.1, eps=e).features[0][1].eps for e in eps]
    assert narrow == eps


@pytest.mark.parametrize("size", [193, 224, 225, 260, 301, 380])
def test_grids_lie_as_far_left_with_symmetric_padding_as_right_with_same(size):
    units, moved = size, 0
    for i in range(5):
        moved += 2**i * (1 - same_padding(units, 3, 2)[0])
        units = -(-units // 2)
    symmetric = 32 * (units - 1) / 2  # the centre of the grid; unit u lies at 32 u
    image = (size - 1) / 2
    assert image - symmetric == symmetric + moved - image == moved / 2


@pytest.mark.torchvision
def test_same_padding_network_equals_timms():
    import timm

    with torch.device("meta"):
        theirs = timm.create_model("tf_efficientnet_b0", pretrained=False, num_classes=5)
    theirs = shaken(theirs.to_empty(device="cpu")).eval()
    ours = EfficientNet(num_classes=5, same=True, eps=1e-3).double().eval()
    pairs = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)  # the same order
    ours.load_state_dict(dict(pairs))
    x = normal(2, 3, 75, 66)  # even and odd maps along both axes
    with torch.no_grad():
        expected = theirs(x)
        assert_close(ours(x), expected)
        symmetric = EfficientNet(num_classes=5, eps=1e-3).double().eval()
        symmetric.load_state_dict(ours.state_dict())  # fits, and computes something else
        assert not torch.allclose(symmetric(x), expected, rtol=0.01)


def test_table_1_of_the_paper():
    channels_and_layers = [(16, 1), (24, 2), (40, 2), (80, 3), (112, 3), (192, 4), (320, 1)]
    assert [stage[3:] for stage in STAGES] == channels_and_layers


# Table 2 of the paper: millions of parameters, billions of multiplications.
TABLE = {
    "B0": ("5.3", 0.39),
    "B1": ("7.8", 0.70),
    "B2": ("9.1", 1.0),  # the paper prints 9.2
    "B3": ("12", 1.8),
    "B4": ("19", 4.2),
    "B5": ("30", 9.9),
    "B6": ("43", 19),
    "B7": ("66", 37),
}


@pytest.mark.parametrize("name", TABLE)
def test_table_2_of_the_paper(name):
    digits, billions = TABLE[name]
    net = meta(name)
    parameters = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    assert f"{parameters:.{1 if '.' in digits else 0}f}" == digits
    if name in ("B0", "B4", "B7"):  # counting takes long
        assert multiplications(net, COEFFICIENTS[name][2]) / 1e9 == pytest.approx(billions, rel=0.05)


def test_doubling_the_width_costs_4_less_2_times_the_share_that_is_linear_in_it():
    with torch.device("meta"):
        nets = EfficientNet().eval(), EfficientNet(width=2.0).eval()
    counts = []
    linear = []

    def count(module, inputs, output):
        if isinstance(module, nn.Conv2d) and (module.groups > 1 or module.in_channels == 3):
            linear.append(output[0].numel() * module.weight[0].numel())

    hooks = [module.register_forward_hook(count) for module in nets[0].modules()]
    for net in nets:
        counts.append(multiplications(net, 224))
    for hook in hooks:
        hook.remove()
    share = (sum(linear) + 1280 * 1000) / counts[0]
    assert counts[1] / counts[0] == pytest.approx(4 - 2 * share, rel=1e-12)


def test_doubling_the_depth_repeats_the_last_block_of_each_stage():
    counts = []
    for depth in (1.0, 2.0):
        with torch.device("meta"):
            net = EfficientNet(depth=depth).eval()
        counts.append(multiplications(net, 224))
    sizes = {}
    for stage in net.features[1:-1]:
        stage[-1].register_forward_hook(lambda module, inputs, output: sizes.update({module: inputs[0].shape}))
    with torch.device("meta"), torch.no_grad():
        net(torch.empty(1, 3, 224, 224))
    repeated = 0
    for stage, (*_, blocks) in zip(net.features[1:-1], STAGES, strict=True):
        assert len(stage) == 2 * blocks
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            stage[-1](torch.empty(sizes[stage[-1]], device="meta"))
        repeated += blocks * counter.get_total_flops() / 2
    assert counts[1] / counts[0] == pytest.approx(1 + repeated / counts[0], rel=1e-12)


def test_phi_of_1_and_2_builds_b2_and_b3():
    for name, phi in ("B2", 1.0), ("B3", 2.0):
        with torch.device("meta"):
            net = EfficientNet(width=1.1**phi, depth=1.2**phi)
        ours = {key: value.shape for key, value in net.state_dict().items()}
        assert ours == {key: value.shape for key, value in meta(name).state_dict().items()}


def test_head_follows_the_rounded_channels_of_the_last_stage():
    with torch.device("meta"):
        assert EfficientNet(width=0.35).classifier[1].in_features == 4 * 112  # as torchvision
    assert round_channels(1280, 0.35) == 448
    with torch.device("meta"):
        assert EfficientNet(width=0.33).classifier[1].in_features == 416
    assert round_channels(1280, 0.33) == 424  # as the code of the paper


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 33, 7), (0, 3, 32, 32)], ids=str)
def test_network_accepts_any_size_in_evaluation(shape):
    net = EfficientNet(width=0.1, depth=0.1, num_classes=4).eval()
    assert net(torch.zeros(shape)).shape == (shape[0], 4)


def test_rates_are_passed_on():
    with torch.device("meta"):
        net = EfficientNet(dropout=0.5, stochastic_depth_prob=0.8)
    assert net.classifier[0].p == 0.5
    rates = [module.drop for module in net.modules() if isinstance(module, MBConv)]
    assert rates == pytest.approx([0.8 * i / 16 for i in range(16)])


def test_training_is_random_and_evaluation_is_not():
    torch.manual_seed(0)
    net = EfficientNet(width=0.1, depth=2.0, num_classes=4, dropout=0.0, stochastic_depth_prob=0.9)
    x = torch.rand(8, 3, 32, 32)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_initialisation_has_the_variance_of_the_paper_s_code():
    torch.manual_seed(0)
    net = EfficientNet()
    weight = net.features[8][0].weight  # 1 × 1, to 1280 channels: variance 2 / fan-out
    assert weight.var().item() == pytest.approx(2 / 1280, rel=0.02)
    linear = net.classifier[1].weight
    assert linear.abs().max().item() == pytest.approx(1 / math.sqrt(1000), rel=1e-3)
    assert net.classifier[1].bias.abs().max() == 0
    assert net.features[1][0].block[1].fc1.bias.abs().max() == 0
