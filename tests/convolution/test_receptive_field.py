"""Receptive fields against autograd, torchvision's networks, loops from the definition, and published tables."""

import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from zhixing.convolution.receptive_field import effective_std, nan_probe, receptive_field

CONV, POOL = (3, 1, 1, 1), (2, 2, 0, 1)
RESNET_STEM = [(7, 2, 3, 1), (3, 2, 1, 1)]
CHAINS = {
    "one pixel": [(1, 1, 0, 1)],
    "even kernel": [(4, 1, 1, 1), (2, 1, 0, 1)],
    "stride first": [(5, 3, 2, 1), (3, 2, 0, 1), (3, 1, 1, 1)],
    "stride without overlap": [(2, 2, 0, 1), (2, 2, 0, 1), (4, 4, 0, 1)],
    "stride with holes": [(1, 2, 0, 1), (1, 3, 0, 1), (3, 1, 1, 1)],
    "dilated": [(3, 1, 1, 1), (3, 1, 2, 2), (3, 2, 4, 4), (5, 1, 0, 3)],
    "much padding": [(3, 2, 5, 1), (3, 1, 7, 2)],
}
EACH_CHAIN = pytest.mark.parametrize("layers", CHAINS.values(), ids=CHAINS)


def averages(layers):
    """Return a network of convolutions whose kernels are uniform and positive."""
    net = nn.Sequential()
    for kernel, stride, padding, dilation in layers:
        net.append(nn.Conv1d(1, 1, kernel, stride, padding, dilation, bias=False, dtype=torch.float64))
        nn.init.constant_(net[-1].weight, 1 / kernel)
    return net.eval()


def gradient(net, image, unit):
    """Return the gradient of one output column with respect to each input column."""
    leaf = image.clone().requires_grad_()
    net(leaf)[..., unit].sum().backward()
    return leaf.grad.sum(dim=tuple(range(leaf.ndim - 1)))


def extent(columns):
    seen = columns.nonzero()
    return seen.min().item(), seen.max().item()


def paths(layers, unit):
    """Return the pixels at which all paths from the unit down to the input end, from the definition."""
    ends = [unit]
    for kernel, stride, padding, dilation in reversed(layers):
        ends = [end * stride - padding + tap * dilation for end in ends for tap in range(kernel)]
    return ends


@EACH_CHAIN
@pytest.mark.parametrize("unit", [0, 1, 5])
def test_field_contains_the_ends_of_all_paths(layers, unit):
    ends = paths(layers, unit)
    size, stride, centre = receptive_field(layers)
    assert centre + unit * stride - (size - 1) / 2 == min(ends)
    assert centre + unit * stride + (size - 1) / 2 == max(ends)


@EACH_CHAIN
def test_probe_equals_gradient_equals_recurrence(layers):
    net, image = averages(layers), torch.ones(1, 1, 240, dtype=torch.float64)
    size, stride, centre = receptive_field(layers)
    unit = net(image).shape[-1] // 2
    first, last = nan_probe(net, (1, 240), unit=unit)
    assert (first, last) == extent(gradient(net, image, unit))
    assert last - first + 1 == size
    assert (first + last) / 2 == centre + unit * stride


@EACH_CHAIN
def test_effective_std_is_that_of_the_gradient_of_averages(layers):
    net, image = averages(layers), torch.ones(1, 1, 240, dtype=torch.float64)
    weights, position = gradient(net, image, net(image).shape[-1] // 2), torch.arange(240.0, dtype=torch.float64)
    assert_close(weights.sum().item(), 1.0)
    mean = (weights * position).sum()
    std = (weights * (position - mean) ** 2).sum().sqrt().item()
    assert abs(std - effective_std(layers)) < 1e-12 * max(1, std)


def test_effective_std_is_that_of_all_paths():
    layers = CHAINS["dilated"]
    ends = torch.tensor(paths(layers, 0), dtype=torch.float64)
    assert_close(ends.std(correction=0).item(), effective_std(layers))


def test_mean_squares_of_random_kernels_have_the_effective_std():
    layers, networks = [(3, 1, 0, 1), (3, 2, 0, 1), (5, 1, 0, 2)], 10000
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(1, networks, 40, dtype=torch.float64, requires_grad=True)
    y = image  # each network is one group of channels
    for kernel, stride, padding, dilation in layers:
        weight = torch.randn(networks, 1, kernel, dtype=torch.float64, generator=generator)
        y = F.conv1d(y, weight, None, stride, padding, dilation, networks)
    y[..., 3].sum().backward()
    squares = image.grad.square().mean(dim=(0, 1))
    position = torch.arange(squares.numel(), dtype=torch.float64)
    weights = squares / squares.sum()
    std = (weights * (position - (weights * position).sum()) ** 2).sum().sqrt().item()
    assert abs(std / effective_std(layers) - 1) < 0.03


def test_effective_std_is_luos_closed_form():
    for n, k in itertools.product((1, 5, 20, 40), (1, 2, 3, 5)):
        assert_close(effective_std([(k, 1, k // 2, 1)] * n), math.sqrt(n * (k**2 - 1) / 12))


def test_no_layers_see_one_pixel():
    assert receptive_field([]) == (1, 1, 0)
    assert effective_std([]) == 0
    assert nan_probe(lambda x: x, (7,)) == (3, 3)


def test_layers_may_come_from_a_generator():
    assert receptive_field(layer for layer in [CONV, POOL]) == receptive_field([CONV, POOL])


def test_recurrence_from_the_top_gives_the_same_size():
    random.seed(0)
    for _ in range(50):
        layers = [tuple(random.randint(1, 4) for _ in range(4)) for _ in range(random.randint(1, 8))]
        size = 1
        for kernel, stride, _, dilation in reversed(layers):
            size = (size - 1) * stride + (kernel - 1) * dilation + 1
        assert receptive_field(layers).size == size


@pytest.mark.parametrize(
    ("layers", "published"),
    {  # size, stride and padding in google-research/receptive_field, RECEPTIVE_FIELD_TABLE.md, with explicit padding
        "vgg_a/pool5": ([CONV, POOL] * 2 + [CONV, CONV, POOL] * 3, (150, 32, 59)),
        "vgg_16/conv3_2": ([CONV, CONV, POOL] * 2 + [CONV, CONV], (32, 4, 14)),
        "vgg_16/pool3": ([CONV, CONV, POOL] * 2 + [CONV] * 3 + [POOL], (44, 8, 18)),
        "vgg_16/pool5": ([CONV, CONV, POOL] * 2 + ([CONV] * 3 + [POOL]) * 3, (212, 32, 90)),
        "alexnet_v2/pool5": (
            [(11, 4, 0, 1), (3, 2, 0, 1), (5, 1, 2, 1), (3, 2, 0, 1), *[CONV] * 3, (3, 2, 0, 1)],
            (195, 32, 64),
        ),
    }.values(),
    ids=["vgg_a/pool5", "vgg_16/conv3_2", "vgg_16/pool3", "vgg_16/pool5", "alexnet_v2/pool5"],
)
def test_equals_googles_table(layers, published):
    size, stride, centre = receptive_field(layers)
    assert (size, stride, (size - 1) / 2 - centre) == published


def test_resnet_50_of_the_paper_and_of_slim_have_the_published_size():
    of_the_paper = [*RESNET_STEM, *[CONV] * 3]
    for blocks in (4, 6, 3):
        of_the_paper += [(1, 2, 0, 1)] + [CONV] * blocks
    last_strided = [CONV, CONV, (3, 2, 1, 1)] + [CONV] * 3 + [(3, 2, 1, 1)] + [CONV] * 5 + [(3, 2, 1, 1)] + [CONV] * 3
    assert receptive_field(of_the_paper).size == 483
    assert receptive_field(RESNET_STEM + last_strided).size == 483


def last_blocks(net):
    """Return a torchvision network without global pooling and classifier."""
    heads = ("avgpool", "fc", "dropout", "classifier", "head", "norm", "permute", "flatten")
    return nn.Sequential(*(child for name, child in net.named_children() if not name.startswith(heads)))


def positive(net):
    """Replace maxima by means and weights by positive ones, so that no gradient vanishes or cancels."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, pool.eval())
    for name, value in itertools.chain(net.named_parameters(), net.named_buffers()):
        scale = 0.5 / value[0].numel() if value.ndim > 1 else 0 if name.endswith(("bias", "running_mean")) else 1
        nn.init.constant_(value, scale)
    return net


# name: size of the input, and the field's size where it is published or follows from the recurrence
FINITE = {
    "alexnet": ((3, 63, 320), 195),
    "vgg11": ((3, 32, 224), 150),
    "resnet50": ((3, 1, 544), 427),
    "googlenet": ((3, 16, 480), None),
    "mobilenet_v2": ((3, 1, 576), 491),
    "squeezenet1_1": ((3, 31, 288), None),
    "shufflenet_v2_x0_5": ((3, 1, 640), None),
}
TIMM_FINITE = {"efficientnet_lite0": 1200, "regnetx_002": 900, "repvgg_a0": 900}
TIMM_INFINITE = {"ese_vovnet19b_dw": (3, 32, 96), "seresnet18": (3, 32, 96), "vit_tiny_patch16_224": (3, 224, 224)}


@pytest.fixture(scope="module")
def torchvision_network():
    import torchvision

    def make(name):
        with torch.device("meta"):  # the initial weights would take longer than the probe
            options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
            return getattr(torchvision.models, name)(**options)

    return make


@pytest.fixture(scope="module")
def timm_network():
    import timm  # which needs torchvision

    def make(name):
        with torch.device("meta"):
            net = timm.create_model(name, num_classes=0, global_pool="")
        return net.to_empty(device="cpu").eval()

    return make


@pytest.mark.torchvision
@pytest.mark.parametrize("name", TIMM_FINITE)
def test_probe_of_timms_network_equals_its_gradient(name, timm_network):
    net, size = positive(timm_network(name)), (3, 1, TIMM_FINITE[name])
    first, last = nan_probe(net, size)
    columns = net(torch.zeros(1, *size)).shape[-1]
    assert (first, last) == extent(gradient(net, torch.ones(1, *size), columns // 2))
    assert 0 < first < last < size[-1] - 1


@pytest.mark.torchvision
def test_probe_of_timms_convnext_equals_the_recurrence(timm_network):
    """Its layer normalisation works on the channels of each pixel, so the field is finite."""
    net = positive(timm_network("convnext_atto"))
    layers = [(4, 4, 0, 1)]
    for stage, blocks in enumerate((2, 2, 6, 2)):
        layers += [(2, 2, 0, 1)] * (stage > 0) + [(7, 1, 3, 1)] * blocks
    field = receptive_field(layers)
    first, last = nan_probe(net, (3, 32, 1216), unit=19)
    assert last - first + 1 == field.size
    assert (first + last) / 2 == field.centre + 19 * field.stride


@pytest.mark.torchvision
@pytest.mark.parametrize("name", TIMM_INFINITE)
def test_probe_finds_timms_global_pooling_and_attention(name, timm_network):
    size = TIMM_INFINITE[name]
    assert nan_probe(positive(timm_network(name)), size) == (0, size[-1] - 1)


@pytest.mark.torchvision
@pytest.mark.parametrize("name", FINITE)
def test_probe_of_torchvisions_network_equals_its_gradient(name, torchvision_network):
    net = last_blocks(torchvision_network(name)).to_empty(device="cpu").eval()
    size, published = FINITE[name]
    first, last = nan_probe(positive(net), size)
    columns = net(torch.zeros(1, *size)).shape[-1]
    assert (first, last) == extent(gradient(net, torch.ones(1, *size), columns // 2))
    assert 0 < first < last < size[-1] - 1
    assert published in (None, last - first + 1)


@pytest.mark.torchvision
@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1"])
def test_probe_of_torchvisions_network_ignores_the_weights(name, torchvision_network):
    net = last_blocks(torchvision_network(name)).to_empty(device="cpu").eval()
    size, _ = FINITE[name]
    size = (*size[:-1], size[-1] // 2)
    expected = nan_probe(positive(net), size)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
    assert nan_probe(net, size) == expected


@pytest.mark.torchvision
@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v3_small"])
def test_probe_finds_global_pooling(name, torchvision_network):
    net = positive(torchvision_network(name).to_empty(device="cpu")).eval().features
    for parameter in net.parameters():
        nn.init.constant_(parameter, 1e-3)
    assert nan_probe(net, (3, 32, 96)) == (0, 95)


def tiny(*layers):
    return nn.Sequential(*layers).eval()


def test_probe_takes_any_number_of_dimensions():
    assert nan_probe(tiny(nn.Conv1d(1, 1, 5, padding=2)), (1, 21), unit=7) == (5, 9)
    assert nan_probe(tiny(nn.Conv2d(1, 1, 5, padding=2)), (1, 3, 21), unit=7) == (5, 9)
    assert nan_probe(tiny(nn.Conv3d(1, 1, 5, padding=2)), (1, 2, 3, 21), unit=7) == (5, 9)


def test_probe_takes_units_from_both_ends():
    net = tiny(nn.Conv1d(1, 1, 3))
    assert nan_probe(net, (1, 12)) == nan_probe(net, (1, 12), unit=5) == nan_probe(net, (1, 12), unit=-5) == (5, 7)
    assert nan_probe(net, (1, 12), unit=0) == (0, 2)
    assert nan_probe(net, (1, 12), unit=-1) == (9, 11)


def test_probe_of_one_column():
    assert nan_probe(tiny(nn.Conv1d(1, 1, 3, padding=1)), (1, 1)) == (0, 0)


def test_probe_follows_the_networks_type():
    net = tiny(nn.Conv1d(1, 2, 3, padding=1), nn.BatchNorm1d(2), nn.ReLU(), nn.Conv1d(2, 2, 3, padding=1))
    assert nan_probe(net.double(), (1, 16)) == (6, 10)


def test_probe_takes_the_first_floating_point_parameter():
    net = tiny(nn.Conv1d(1, 1, 3, padding=1).double())
    net.register_parameter("levels", nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False))
    assert next(net.parameters()).dtype == torch.int64
    assert nan_probe(net, (1, 16)) == (7, 9)


def test_branches_take_the_union():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.near, self.wide = nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(1, 1, 3, padding=4, dilation=4)

        def forward(self, x):
            return self.near(x)[..., 6:] + self.wide(x)[..., :-6]  # near is 6 columns ahead

    near, wide = receptive_field([CONV]), receptive_field([(3, 1, 4, 4)])
    assert near.centre == wide.centre == 0
    first, last = -(wide.size // 2), 6 + near.size // 2
    assert nan_probe(Branches().eval(), (1, 40), unit=10) == (10 + first, 10 + last) == (6, 17)


def test_field_is_that_of_all_channels_and_rows():
    net = tiny(nn.Conv1d(1, 1, 3, padding=1))
    assert nan_probe(lambda x: torch.cat([x, net(x)], dim=1), (1, 9)) == (3, 5)
    assert nan_probe(lambda x: torch.stack([x, net(x)], dim=2), (1, 9)) == (3, 5)


def test_skip_connection_adds_nothing_that_the_block_does_not_see():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Conv1d(2, 2, 3, padding=1)

        def forward(self, x):
            return x + self.block(x)

    assert nan_probe(tiny(Residual(), Residual()), (2, 20), unit=9) == (7, 11)


def test_field_after_upsampling_depends_on_the_unit():
    net = tiny(nn.Conv1d(1, 1, 3, padding=1), nn.MaxPool1d(2), nn.Upsample(scale_factor=2))
    assert [nan_probe(net, (1, 40), unit=unit) for unit in (20, 21, 22)] == [(19, 22), (19, 22), (21, 24)]


def test_probe_sees_through_max_pooling_and_dead_units_where_the_gradient_does_not():
    torch.manual_seed(0)
    net = tiny(nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool1d(4))
    nn.init.constant_(net[0].bias, -100.0)  # no unit fires
    image = torch.rand(1, 1, 64)
    assert gradient(net, image, 8).count_nonzero() == 0
    assert nan_probe(net, (1, 64), unit=8) == (31, 36)


def test_connection_of_weight_zero_counts():
    net = tiny(nn.Conv1d(1, 1, 5, padding=2))
    nn.init.zeros_(net[0].weight)
    assert nan_probe(net, (1, 20), unit=9) == (7, 11)


def causal_attention(x):
    tokens = x.transpose(-2, -1)
    return F.scaled_dot_product_attention(tokens, tokens, tokens, is_causal=True).transpose(-2, -1)


@pytest.mark.parametrize(
    ("net", "size", "unit", "probed", "seen"),
    {
        "causal attention": (causal_attention, (4, 32), 16, (0, 31), (0, 16)),
        "interpolation at a pixel": (
            lambda x: F.interpolate(x, size=16, mode="linear"),
            (1, 48),
            5,
            (16, 17),
            (16, 16),
        ),
    }.values(),
    ids=["causal attention", "interpolation at a pixel"],
)
def test_gradient_leaves_out_what_is_multiplied_by_zero(net, size, unit, probed, seen):
    image = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    assert nan_probe(net, size, unit=unit) == probed
    assert extent(gradient(net, image, unit)) == seen


@pytest.mark.parametrize(
    "norm",
    [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.AdaptiveAvgPool2d(4), nn.BatchNorm2d(4, track_running_stats=False)],
    ids=lambda norm: type(norm).__name__,
)
def test_statistics_over_the_input_see_all_of_it(norm):
    for width in (32, 64):
        net = tiny(nn.Conv2d(1, 4, 3, padding=1), norm, nn.AdaptiveAvgPool2d(1))
        assert nan_probe(net, (1, 2, width)) == (0, width - 1)


def test_input_of_probe_is_not_constant():
    def standardise(x):
        return (x - x.mean(dim=-1, keepdim=True)) / x.std(dim=-1, keepdim=True)

    assert nan_probe(lambda x: standardise(x)[..., 3:4], (1, 10)) == (0, 9)


def test_probe_changes_neither_network_nor_generator():
    net = tiny(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state, enabled = torch.get_rng_state(), torch.backends.cudnn.enabled
    nan_probe(net, (1, 1, 16))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.cudnn.enabled == enabled


def test_probe_records_no_graph():
    net = tiny(nn.Conv1d(1, 1, 3, padding=1))

    def watched(x):
        assert not net(x).requires_grad
        return net(x)

    assert nan_probe(watched, (1, 9)) == (3, 5)
    assert torch.is_grad_enabled()


def test_number_of_runs_grows_with_the_logarithm_of_the_width():
    for power in (4, 8, 12):
        runs = 0

        def net(x):
            nonlocal runs
            runs += 1
            return x

        nan_probe(net, (2**power,))
        assert runs <= 2 * power + 4


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
def test_winograd_convolutions_do_not_widen_the_field():
    if not torch.backends.nnpack.is_available():
        pytest.skip("needs NNPACK")
    conv = nn.Conv2d(16, 16, 3, padding=1).eval()

    def in_batches(x):  # NNPACK takes batches of 16 images and more
        return conv(x.expand(16, -1, -1, -1))

    with torch.backends.mkldnn.flags(enabled=False):
        assert nan_probe(in_batches, (16, 32, 64), unit=20) == (19, 21)


def test_function_may_pick_an_output():
    net = tiny(nn.Conv1d(1, 1, 3, padding=1))
    assert nan_probe(lambda x: {"out": net(x)}["out"], (1, 9)) == (3, 5)


def test_tiles_with_this_margin_give_the_whole():
    torch.manual_seed(0)
    layers = [CONV, CONV, POOL, (5, 1, 2, 1), (3, 2, 1, 1), (3, 1, 2, 2)]
    net, channels = nn.Sequential(), 1
    for kernel, stride, padding, dilation in layers:
        net.append(nn.Conv1d(channels, 4, kernel, stride, padding, dilation, dtype=torch.float64)).append(nn.GELU())
        channels = 4
    image = torch.randn(1, 1, 256, dtype=torch.float64)
    size, stride, centre = receptive_field(layers)
    left, right = (size - 1) / 2 - centre, size - stride - ((size - 1) / 2 - centre)
    margin = math.ceil(max(left, right) / stride) * stride
    for start in range(margin, 256 - 32 - margin + 1, 32):
        tile = net(image[..., start - margin : start + 32 + margin])
        core = tile[..., margin // stride : (margin + 32) // stride]
        assert_close(core, net(image)[..., start // stride : (start + 32) // stride])


def exact_right_of(cut, net, image, margin):
    """Return whether the tile from `margin` before the cut on gives the whole's outputs on 40 pixels after it."""
    whole, tile = net(image), net(image[..., cut - margin :])
    stride = image.shape[-1] // whole.shape[-1]
    first = -(-cut // stride)
    begin = round(first - (cut - margin) / stride)
    length = 40 // stride
    return torch.allclose(tile[..., begin : begin + length], whole[..., first : first + length])


@pytest.mark.parametrize("cut", [80, 82])
def test_tile_must_start_on_the_grid(cut):
    torch.manual_seed(0)
    net = nn.Sequential()
    for layer in [CONV, CONV, POOL] * 2 + [CONV, CONV]:
        net.append(nn.Conv1d(4, 4, 3, padding=1, dtype=torch.float64) if layer == CONV else nn.MaxPool1d(2))
    image = torch.randn(4, 4, 160, dtype=torch.float64)
    exact = [margin for margin in range(14, 25) if exact_right_of(cut, net, image, margin)]
    assert exact == [margin for margin in range(14, 25) if (cut - margin) % 4 == 0]


def test_tile_must_start_on_the_grid_of_the_way_down_if_the_network_upsamples():
    torch.manual_seed(0)
    convs = [nn.Conv1d(4, 4, 3, padding=1, dtype=torch.float64) for _ in range(4)]
    net = tiny(convs[0], nn.MaxPool1d(2), convs[1], nn.MaxPool1d(2), convs[2], nn.Upsample(scale_factor=4), convs[3])
    probes = [nan_probe(net, (4, 160), unit=unit) for unit in range(80, 84)]
    reach = max(max(unit - first, last - unit) for unit, (first, last) in enumerate(probes, 80))
    assert reach == 11
    image = torch.randn(4, 4, 160, dtype=torch.float64)
    assert [margin for margin in range(11, 25) if exact_right_of(80, net, image, margin)] == [12, 16, 20, 24]


@pytest.mark.wrong_input
@pytest.mark.parametrize("function", [receptive_field, effective_std], ids=lambda function: function.__name__)
@pytest.mark.parametrize(
    "layer",
    [
        (3, 1, 1),
        (3, 1, 1, 1, 1),
        (0, 1, 0, 1),
        (3, 0, 1, 1),
        (3, 1, -1, 1),
        (3, 1, 1, 0),
        (3.0, 1, 1, 1),
        ((3, 3), (1, 1), (1, 1), (1, 1)),
        nn.Conv2d(1, 1, 3),
        3,
    ],
    ids=str,
)
def test_refuses_what_is_not_a_layer(function, layer):
    with pytest.raises(ValueError, match=r"expected \(kernel, stride, padding, dilation\), but a layer is"):
        function([CONV, layer])


@pytest.mark.wrong_input
@pytest.mark.parametrize("size", [(), (1, 0), (1, -3), (1, 2.0)], ids=str)
def test_probe_refuses_what_is_not_a_size(size):
    with pytest.raises(ValueError, match="expected the input's shape without the batch"):
        nan_probe(lambda x: x, size)


@pytest.mark.wrong_input
def test_probe_refuses_training_mode_which_would_poison_batch_norm():
    net = nn.Sequential(nn.Conv1d(1, 1, 3), nn.BatchNorm1d(1))
    with pytest.raises(ValueError, match=r"expected a network in evaluation mode: call net.eval\(\) first"):
        nan_probe(net, (1, 9))
    assert net[1].running_mean.isfinite().all()
    net.eval()[1].train()
    with pytest.raises(ValueError, match="expected a network in evaluation mode"):
        nan_probe(net, (1, 9))


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("net", "message"),
    {
        "dict": (lambda x: {"out": x}, "returns one tensor, but got dict"),
        "tuple": (lambda x: (x, x), "returns one tensor, but got tuple"),
        "number": (lambda x: x.sum(), "expected an output with columns, but got a single number"),
        "NaN for numbers": (lambda x: x / 0 * 0, "expected an output without NaN for an input without NaN"),
        "no NaN for NaN": (lambda x: x.nan_to_num(), "the network replaces it, or sees nothing"),
        "comparison": (lambda x: (x > 0).float(), "the network replaces it, or sees nothing"),
        "argmax": (lambda x: x.argmax(dim=1), "the network replaces it, or sees nothing"),
    }.values(),
    ids=["dict", "tuple", "number", "NaN for numbers", "no NaN for NaN", "comparison", "argmax"],
)
def test_probe_refuses_a_network_that_it_cannot_read(net, message):
    with pytest.raises(ValueError, match=message):
        nan_probe(net, (2, 9))


@pytest.mark.torchvision
def test_all_layers_in_the_order_of_modules_give_a_wrong_size(torchvision_network):
    layers = []
    for module in torchvision_network("resnet50").modules():
        if isinstance(module, nn.Conv2d):
            values = module.kernel_size, module.stride, module.padding, module.dilation
            layers.append(tuple(value[0] for value in values))
        elif isinstance(module, nn.MaxPool2d):
            layers.append((module.kernel_size, module.stride, module.padding, module.dilation))
    chain = [layer for layer in layers if layer[:2] != (1, 2)]  # without the shortcuts
    assert receptive_field(layers) != receptive_field(chain) == (427, 32, 0)
    assert receptive_field(layers).stride == 256


@pytest.mark.wrong_input
@pytest.mark.parametrize("unit", [9, 10, 90, -10, 1.5, "3"])
def test_probe_refuses_a_unit_that_does_not_exist(unit):
    with pytest.raises(ValueError, match=f"unit .*, but (unit )?is {unit!r}"):
        nan_probe(lambda x: x, (1, 9), unit=unit)


@pytest.mark.wrong_input
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_probe_refuses_half_precision_whose_kernels_multiply_neighbours_by_zero(dtype):
    net = tiny(nn.Conv1d(1, 1, 3, padding=1)).to(dtype)
    with pytest.raises(ValueError, match=rf"expected at least 32 bits, but a parameter is {dtype}: net.float"):
        nan_probe(net, (1, 9))
    assert nan_probe(net.float(), (1, 9)) == (3, 5)


@pytest.mark.wrong_input
def test_probe_refuses_an_output_without_columns():
    with pytest.raises(ValueError, match="expected a unit among 0 columns"):
        nan_probe(lambda x: x[..., :0], (1, 9))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_probe_is_not_misled_by_autocast_around_it(dtype):
    """In 16 bits, oneDNN multiplies neighbouring columns by 0, and NaN spreads to them."""
    net = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)).eval()
    with torch.autocast("cpu", dtype=dtype):
        assert nan_probe(net, (1, 64)) == (30, 34)


@pytest.mark.wrong_input
def test_probe_counts_units_by_any_integer():
    assert nan_probe(lambda x: x, (1, 9), unit=torch.tensor(3)) == (3, 3)
    assert nan_probe(lambda x: x, (1, 9), unit=True) == (1, 1)
