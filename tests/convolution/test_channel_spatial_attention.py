"""SE against torchvision and timm, CBAM against timm, both against loops; the counts of ResNet-50."""

import math

import pytest
import torch
import torch.nn.functional as F
from tensors import leaf, normal
from torch import nn
from torch.testing import assert_close

from zhixing.convolution.channel_spatial_attention import (
    CBAM,
    ChannelGate,
    SpatialGate,
    SqueezeExcite,
    channel_gate,
    squeeze_excite,
)


def shaken(module):
    """Return the module in double precision with known parameters and statistics."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.double().state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(values.abs() + 0.5 if "running_var" in name else values)
    return module


def same_with_the_same_weights(ours, theirs, x):
    """Check output, gradients and, in training, updated statistics of two modules."""
    ours.double().load_state_dict(theirs.state_dict())
    weights, results = normal(*x.shape, seed=3), []
    for module in (ours, theirs):
        image = leaf(x)
        y = module(image)
        gradients = torch.autograd.grad((y * weights).sum(), [image, *module.parameters()])
        results.append((y.detach(), *gradients, *module.buffers()))
    for a, b in zip(*results, strict=True):
        assert_close(a, b)


MAPS = {
    "odd": normal(2, 6, 5, 7),
    "one pixel": normal(3, 6, 1, 1),
    "one row": normal(2, 6, 1, 9),
    "rectified, with ties": normal(2, 6, 4, 4).clamp(min=0.5),
    "not contiguous": normal(2, 8, 5, 6).transpose(1, 3)[:, :, :, ::2],
    "empty batch": normal(0, 6, 4, 5),
    "large": 1e3 * normal(2, 6, 4, 5),
}
WEIGHTS = normal(3, 6, seed=1), normal(3, seed=2), normal(6, 3, seed=3), normal(6, seed=4)


def test_not_contiguous_maps_are_not():
    assert not MAPS["not contiguous"].is_contiguous()


# Against loops from the definition


def sigmoid(number):
    return 1 / (1 + math.exp(-number))


def mlp(z, w1, b1, w2, b2):
    """Return the logits of one image as a list of numbers."""
    hidden = [max(0.0, sum(w * v for w, v in zip(row, z, strict=True)) + b) for row, b in zip(w1, b1, strict=True)]
    return [sum(w * h for w, h in zip(row, hidden, strict=True)) + b for row, b in zip(w2, b2, strict=True)]


def means_and_maxima(image):
    """Return the mean and the maximum of each channel, pixel by pixel."""
    means, maxima = [], []
    for channel in image.tolist():
        pixels = [pixel for row in channel for pixel in row]
        means.append(sum(pixels) / len(pixels))
        maxima.append(max(pixels))
    return means, maxima


@pytest.mark.parametrize("name", [name for name in MAPS if name not in ("large", "empty batch")])
def test_squeeze_excite_equals_loops(name):
    x, (w1, b1, w2, b2) = MAPS[name], (tensor.tolist() for tensor in WEIGHTS)
    expected = torch.empty_like(x)
    for image, result in zip(x, expected, strict=True):
        means, _ = means_and_maxima(image)
        for channel, logit in enumerate(mlp(means, w1, b1, w2, b2)):
            result[channel] = image[channel] * sigmoid(logit)
    assert_close(squeeze_excite(x, *WEIGHTS), expected)


@pytest.mark.parametrize("pools", [("mean",), ("max",), ("mean", "max")], ids="+".join)
@pytest.mark.parametrize("name", [name for name in MAPS if name not in ("large", "empty batch")])
def test_channel_gate_equals_loops(name, pools):
    x, (w1, b1, w2, b2) = MAPS[name], (tensor.tolist() for tensor in WEIGHTS)
    expected = torch.empty_like(x)
    for image, result in zip(x, expected, strict=True):
        means, maxima = means_and_maxima(image)
        logits = [0.0] * 6
        for pool, z in (("mean", means), ("max", maxima)):
            if pool in pools:
                logits = [a + b for a, b in zip(logits, mlp(z, w1, b1, w2, b2), strict=True)]
        for channel, logit in enumerate(logits):
            result[channel] = image[channel] * sigmoid(logit)
    assert_close(channel_gate(x, *WEIGHTS, pools=pools), expected)


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_spatial_gate_equals_loops(kernel_size):
    gate, x = shaken(SpatialGate(kernel_size=kernel_size)).eval(), normal(2, 3, 5, 4)
    kernel, norm, reach = gate.conv["conv"].weight[0], gate.conv["bn"], kernel_size // 2
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    expected = torch.empty_like(x)
    for b in range(2):
        for i in range(5):
            for j in range(4):
                total = 0.0
                for p in range(max(i - reach, 0), min(i + reach + 1, 5)):
                    for q in range(max(j - reach, 0), min(j + reach + 1, 4)):
                        pixel = x[b, :, p, q].tolist()
                        maps = sum(pixel) / 3, max(pixel)
                        for m in (0, 1):
                            total += maps[m] * kernel[m, p - i + reach, q - j + reach].item()
                logit = (total - norm.running_mean.item()) * scale.item() + norm.bias.item()
                expected[b, :, i, j] = x[b, :, i, j] * sigmoid(logit)
    assert_close(gate(x), expected)


def test_cbam_applies_the_channel_gate_first():
    module, x = shaken(CBAM(6, hidden=3)).eval(), normal(2, 6, 5, 7)
    assert_close(module(x), module.spatial(module.channel(x)))
    assert (module(x) - module.channel(module.spatial(x))).abs().max() > 0.01


# Against torchvision and timm, with their weights


@pytest.fixture(scope="module")
def torchvision_se():
    from torchvision.ops import SqueezeExcitation

    return shaken(SqueezeExcitation(6, 3))


@pytest.fixture(scope="module")
def timm_layers():
    import timm.layers
    import timm.layers.cbam

    return timm.layers


@pytest.mark.torchvision
@pytest.mark.parametrize("x", MAPS.values(), ids=MAPS)
def test_se_equals_torchvisions(torchvision_se, x):
    same_with_the_same_weights(SqueezeExcite(6, hidden=3), torchvision_se, x)


@pytest.mark.torchvision
def test_fresh_weights_of_torchvision_give_the_same_output():
    from torchvision.ops import SqueezeExcitation

    torch.manual_seed(0)
    theirs, ours = SqueezeExcitation(96, 4), SqueezeExcite(96, reduction=24)
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 96, 9, 8)
    assert_close(ours(x), theirs(x))


@pytest.mark.torchvision
@pytest.mark.parametrize("x", MAPS.values(), ids=MAPS)
def test_se_equals_timms(timm_layers, x):
    same_with_the_same_weights(SqueezeExcite(6, hidden=3), shaken(timm_layers.SEModule(6, rd_channels=3)), x)


@pytest.mark.torchvision
@pytest.mark.parametrize(
    ("name", "training"), [(name, mode) for name in MAPS for mode in (False, True) if name != "empty batch" or not mode]
)
def test_cbam_equals_timms(timm_layers, name, training):
    ours, theirs = CBAM(6, hidden=3), shaken(timm_layers.cbam.CbamModule(6, rd_channels=3))
    same_with_the_same_weights(ours.train(training), theirs.train(training), MAPS[name])


@pytest.mark.torchvision
@pytest.mark.parametrize("kernel_size", [3, 7])
def test_spatial_gate_equals_timms(timm_layers, kernel_size):
    theirs = shaken(timm_layers.cbam.SpatialAttn(kernel_size))
    same_with_the_same_weights(SpatialGate(kernel_size=kernel_size), theirs, MAPS["odd"])


@pytest.mark.torchvision
def test_channel_gate_equals_timms(timm_layers):
    same_with_the_same_weights(ChannelGate(32), shaken(timm_layers.cbam.ChannelAttn(32)), normal(2, 32, 5, 4))


@pytest.mark.torchvision
def test_cbam_with_biases_and_another_kernel_equals_timms(timm_layers):
    theirs = shaken(timm_layers.cbam.CbamModule(32, mlp_bias=True, spatial_kernel_size=3))
    same_with_the_same_weights(CBAM(32, bias=True, kernel_size=3), theirs, normal(2, 32, 5, 4))


@pytest.mark.torchvision
def test_fresh_weights_of_timm_give_the_same_output(timm_layers):
    torch.manual_seed(0)
    theirs, ours = timm_layers.cbam.CbamModule(64).eval(), CBAM(64).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 64, 9, 8)
    assert_close(ours(x), theirs(x))


# Published counts


BLOCKS = {256: 3, 512: 4, 1024: 6, 2048: 3}  # of ResNet-50: channels of the output, number of blocks


def test_se_adds_two_and_a_half_million_weights_to_resnet_50():
    weights = sum(n * (2 * c * c // 16) for c, n in BLOCKS.items())
    assert weights == 2_514_944
    modules = [SqueezeExcite(c) for c, n in BLOCKS.items() for _ in range(n)]
    assert sum(p.numel() for m in modules for p in m.parameters() if p.ndim > 1) == weights
    assert sum(p.numel() for m in modules for p in m.parameters()) == 28_088_024 - 25_557_032


def test_cbam_adds_a_hundred_numbers_a_block_to_the_weights_of_se():
    modules = [CBAM(c) for c, n in BLOCKS.items() for _ in range(n)]
    assert sum(p.numel() for m in modules for p in m.parameters()) == 2_514_944 + 16 * 100
    modules = [CBAM(c, bias=True) for c, n in BLOCKS.items() for _ in range(n)]
    total = 25_557_032 + sum(p.numel() for m in modules for p in m.parameters())
    assert f"{total / 1e6:.2f}" == f"{28_088_024 / 1e6:.2f}" == "28.09"


@pytest.mark.torchvision
def test_counts_are_those_of_timms_networks():
    import timm

    def count(name, **options):
        with torch.device("meta"):
            return sum(p.numel() for p in timm.create_model(name, **options).parameters())

    plain = count("resnet50")
    assert plain == 25_557_032
    modules = [SqueezeExcite(c) for c, n in BLOCKS.items() for _ in range(n)]
    assert count("seresnet50") - plain == sum(p.numel() for m in modules for p in m.parameters())
    modules = [CBAM(c) for c, n in BLOCKS.items() for _ in range(n)]
    cbam = count("resnet50", block_args={"attn_layer": "cbam"})
    assert cbam - plain == sum(p.numel() for m in modules for p in m.parameters())


@pytest.mark.torchvision
def test_timms_se_rounds_the_hidden_width_to_a_multiple_of_eight(timm_layers):
    assert timm_layers.SEModule(64).fc1.out_channels == 8
    assert SqueezeExcite(64).fc1.out_channels == 4


@pytest.mark.torchvision
@pytest.mark.parametrize(("channels", "theirs", "ours"), [(24, 2, 1), (40, 3, 2), (72, 5, 4)])
def test_timms_cbam_rounds_the_hidden_width_to_the_nearest(timm_layers, channels, theirs, ours):
    reference = timm_layers.cbam.CbamModule(channels)
    assert reference.channel.fc1.out_channels == theirs
    assert CBAM(channels).channel.fc1.out_channels == ours
    with pytest.raises(RuntimeError):
        CBAM(channels).load_state_dict(reference.state_dict())
    same_with_the_same_weights(CBAM(channels, hidden=theirs), shaken(reference), normal(2, channels, 5, 4))


# Gradients and precision


def test_functions_pass_gradcheck():
    x = leaf(normal(2, 4, 3, 3))
    weights = [leaf(normal(*shape, seed=seed)) for seed, shape in enumerate([(2, 4), (2,), (4, 2), (4,)], 1)]
    assert torch.autograd.gradcheck(squeeze_excite, (x, *weights))
    assert torch.autograd.gradcheck(channel_gate, (x, *weights))


def test_modules_pass_gradcheck_and_use_every_parameter():
    for module in (SqueezeExcite(4, hidden=2), CBAM(4, hidden=2, kernel_size=3)):
        module = shaken(module)
        assert torch.autograd.gradcheck(module, leaf(normal(2, 4, 3, 3)))
        module(normal(2, 4, 5, 5)).square().sum().backward()
        assert all(bool(p.grad.abs().sum() > 0) for p in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("make", [SqueezeExcite, CBAM], ids=["SE", "CBAM"])
def test_low_precision_is_kept_and_close(make, dtype):
    torch.manual_seed(0)
    module, x = make(32).eval(), normal(2, 32, 8, 8).to(dtype)
    exact = module.double()(x.double())
    y = module.to(dtype)(x)
    assert y.dtype == dtype
    assert (y.double() - exact).norm() < 0.02 * exact.norm()


def test_maps_are_not_changed():
    x = normal(2, 6, 5, 7)
    before = x.clone()
    squeeze_excite(x, *WEIGHTS).zero_()
    shaken(CBAM(6, hidden=3))(x).zero_()
    assert torch.equal(x, before)


def test_gradient_of_a_maximum_is_shared_by_the_pixels_that_hold_it():
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, 1, dtype=torch.float64)
    image = x + torch.tensor([1.0, 1, 0, 0]).view(1, 1, 2, 2)
    channel_gate(image, one, None, one, None, pools=("max",))[0, 0, 1, 1].backward()
    assert torch.equal(x.grad.flatten()[:2], x.grad.flatten()[:2].flip(0))
    assert_close(x.grad.flatten()[3], torch.sigmoid(one[0, 0]))


# What a gate sees, and the bugs that keep the shape


def test_channel_gates_ignore_where_pixels_are():
    x, order = normal(1, 6, 4, 5), torch.randperm(20, generator=torch.Generator().manual_seed(0))
    shuffled = x.flatten(2)[:, :, order].view_as(x)
    for function in (squeeze_excite, channel_gate):
        assert_close(function(shuffled, *WEIGHTS), function(x, *WEIGHTS).flatten(2)[:, :, order].view_as(x))


def test_every_pixel_moves_every_output_of_se():
    x, positive = normal(1, 6, 4, 5), [tensor.abs() + 0.1 for tensor in WEIGHTS]
    jacobian = torch.autograd.functional.jacobian(lambda x: squeeze_excite(x, *positive)[0, 0], x.abs() + 0.1)
    assert bool((jacobian != 0).all())


def test_a_peak_moves_the_mean_of_n_pixels_by_one_nth_and_the_maximum_fully():
    x, one = torch.zeros(1, 1, 10, 10, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    x[0, 0, 3, 4] = 5
    for pool, z in (("mean", 0.05), ("max", 5.0), (("mean", "max"), 5.05)):
        pools = pool if isinstance(pool, tuple) else (pool,)
        assert channel_gate(x, one, None, one, None, pools=pools)[0, 0, 3, 4].item() == pytest.approx(5 * sigmoid(z))


def test_se_is_the_channel_gate_that_reads_the_mean_alone():
    x = normal(2, 6, 5, 7)
    assert torch.equal(squeeze_excite(x, *WEIGHTS), channel_gate(x, *WEIGHTS, pools=("mean",)))


@pytest.mark.parametrize("pools", [("mean",), ("max",), ("mean", "max")], ids="+".join)
def test_channel_gate_passes_on_its_weights_and_pools(pools):
    module, x = shaken(ChannelGate(6, hidden=3, pools=pools, bias=True)), normal(2, 6, 5, 7)
    weights = [parameter.detach().view(parameter.shape[:2]) for parameter in (module.fc1.weight, module.fc2.weight)]
    expected = channel_gate(x, weights[0], module.fc1.bias, weights[1], module.fc2.bias, pools=pools)
    assert_close(module(x), expected)


def test_summing_before_the_mlp_or_after_the_sigmoid_is_something_else():
    x, (w1, b1, w2, b2) = normal(2, 6, 5, 7), WEIGHTS
    mean, maximum = x.mean((2, 3)), x.amax((2, 3))

    def logits(z):
        return F.linear(F.relu(F.linear(z, w1, b1)), w2, b2)

    y = channel_gate(x, *WEIGHTS)
    for gates in (
        logits(mean + maximum).sigmoid(),
        logits(mean).sigmoid() + logits(maximum).sigmoid(),
        logits(2 * mean).sigmoid(),
    ):
        assert (y - x * gates[:, :, None, None]).abs().max() > 0.01


def test_every_gate_lies_between_0_and_1():
    x = normal(2, 6, 5, 7)
    for y in (squeeze_excite(x, *WEIGHTS), channel_gate(x, *WEIGHTS), shaken(SpatialGate())(x)):
        assert bool(((y / x > 0) & (y / x < 1)).all())


def test_maximum_comes_second():
    gate, x = shaken(SpatialGate()).eval(), normal(2, 6, 9, 9)
    y = gate(x)
    with torch.no_grad():
        gate.conv["conv"].weight.copy_(gate.conv["conv"].weight.flip(1))
    flipped = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
    assert_close(x * gate.conv["bn"](gate.conv["conv"](flipped)).sigmoid(), y)
    assert (gate(x) - y).abs().max() > 0.01


def test_gates_of_one_half_and_a_factor_of_four_restore_the_block_exactly():
    torch.manual_seed(0)
    x, norm, attention = normal(2, 16, 5, 5).float(), nn.BatchNorm2d(16).eval(), CBAM(16, hidden=8).eval()
    before = norm(x)
    with torch.no_grad():
        attention.channel.fc2.weight.zero_()
        attention.spatial.conv["bn"].weight.zero_()
        norm.weight.mul_(4)
        norm.bias.mul_(4)
    y = attention(norm(x))
    assert torch.equal(y, before)
    y.square().sum().backward()
    assert attention.channel.fc2.weight.grad.abs().sum() > 0
    assert attention.spatial.conv["bn"].weight.grad.abs().sum() > 0


def test_zeros_around_the_image_move_the_mean_and_not_the_maximum_of_positive_maps():
    x, weights = normal(1, 6, 5, 5).abs(), [tensor.abs() / 10 for tensor in WEIGHTS]
    padded = F.pad(x, (0, 5))
    assert (squeeze_excite(padded, *weights)[..., :5] - squeeze_excite(x, *weights)).abs().max() > 0.01
    before, after = (channel_gate(y, *weights, pools=("max",)) for y in (x, padded))
    assert_close(after[..., :5], before)


# Wrong input


@pytest.mark.wrong_input
@pytest.mark.parametrize("function", [squeeze_excite, channel_gate], ids=["SE", "channel gate"])
def test_wrong_maps_and_weights_are_errors(function):
    w1, w2 = torch.zeros(2, 6), torch.zeros(6, 2)
    for shape, message in (((6, 5, 5), r"must be \(B, C, H, W\)"), ((1, 6, 0, 5), "only B may be 0")):
        with pytest.raises(ValueError, match=message):
            function(torch.zeros(shape), w1, None, w2, None)
    for one, two in ((w2, w1), (w1[:, :5], w2), (torch.zeros(2, 6, 1, 1), w2), ([[1.0]], w2)):
        with pytest.raises(ValueError, match=r"w1 must be .*\(R, 6\)"):
            function(torch.zeros(1, 6, 5, 5), one, None, two, None)
    for two in (w2[:5], w2[:, :1], w2.long(), None):
        with pytest.raises(ValueError, match=r"w2 must be .*\(6, 2\)"):
            function(torch.zeros(1, 6, 5, 5), w1, None, two, None)


@pytest.mark.wrong_input
@pytest.mark.parametrize("function", [squeeze_excite, channel_gate], ids=["SE", "channel gate"])
@pytest.mark.parametrize(
    "bias", [torch.ones(2, 1), torch.ones(()), torch.ones(1), torch.ones(7), torch.ones(2).long(), [1.0]], ids=str
)
def test_biases_that_would_only_be_broadcast_are_an_error(function, bias):
    """A bias (2, 1) would be another one for each of two images."""
    x, w1, w2 = torch.rand(2, 6, 5, 5), torch.ones(2, 6), torch.ones(6, 2)
    with pytest.raises(ValueError, match=r"b1 must be .*\(2\)"):
        function(x, w1, bias, w2, None)
    with pytest.raises(ValueError, match=r"b2 must be .*\(6\)"):
        function(x, w1, None, w2, bias)


@pytest.mark.wrong_input
@pytest.mark.parametrize("pools", [(), ("avg",), ("mean", "median"), "mean", None, [["mean"]]], ids=str)
def test_unknown_pools_are_an_error(pools):
    with pytest.raises(ValueError, match="must name 'mean', 'max' or both"):
        channel_gate(torch.zeros(1, 6, 5, 5), torch.zeros(2, 6), None, torch.zeros(6, 2), None, pools=pools)
    with pytest.raises(ValueError, match="must name 'mean', 'max' or both"):
        ChannelGate(32, pools=pools)


@pytest.mark.wrong_input
@pytest.mark.parametrize("make", [SqueezeExcite, ChannelGate, CBAM], ids=["SE", "channel gate", "CBAM"])
def test_modules_refuse_other_channels_and_no_hidden_unit(make):
    with pytest.raises(ValueError, match=r"needs a hidden unit, but 8 // 16 = 0"):
        make(8)
    with pytest.raises(ValueError, match="hidden must be a positive integer"):
        make(8, hidden=0)
    with pytest.raises(ValueError, match=r"x must be \(B, 32, H, W\)|w1 must be \(R, 5\)"):
        make(32)(torch.zeros(2, 5, 4, 4))
    assert make(8, hidden=1)(torch.zeros(2, 8, 4, 4)).shape == (2, 8, 4, 4)


@pytest.mark.wrong_input
def test_spatial_gate_refuses_even_kernels_and_maps_without_channels():
    with pytest.raises(ValueError, match="must be odd, but is 4"):
        SpatialGate(kernel_size=4)
    for kernel_size in (0, -1, 1.5, "3", None):
        with pytest.raises(ValueError, match=f"must be a positive integer, but is {kernel_size!r}"):
            SpatialGate(kernel_size=kernel_size)
    with pytest.raises(ValueError, match=r"must be \(B, C, H, W\), but its shape is \(6, 5, 5\)"):
        SpatialGate()(torch.zeros(6, 5, 5))
    with pytest.raises(ValueError, match="only B may be 0"):
        SpatialGate()(torch.zeros(2, 0, 5, 5))


def test_hidden_layer_of_width_zero_would_make_a_constant_gate():
    with pytest.warns(UserWarning, match="zero-element"):
        mlp = nn.Sequential(nn.Linear(8, 8 // 16), nn.ReLU(), nn.Linear(8 // 16, 8))
    assert torch.equal(mlp(torch.rand(1, 8)), mlp(torch.rand(1, 8)))
