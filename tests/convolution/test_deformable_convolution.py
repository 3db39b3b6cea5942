"""Deformable convolution against torchvision, torch's grid_sample and conv2d, and loops from the definition."""

import itertools
import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from tensors import assert_same_both_ways, normal
from torch import nn
from torch.testing import assert_close

from zhixing.convolution.deformable_convolution import (
    DeformConv2d,
    deform_conv2d,
    sample_bilinear,
    sampling_points,
)


def case(x_shape, weight_shape, *, groups=1, spread=1.0, **options):
    """Return inputs that fit each other, and the options."""
    x, weight = normal(*x_shape), normal(*weight_shape, seed=1)
    size = F.conv2d(x, weight, **options).shape[2:]
    taps = weight_shape[2] * weight_shape[3]
    offset = spread * normal(len(x), 2 * groups * taps, *size, seed=2)
    mask = normal(len(x), groups * taps, *size, seed=3)
    return (x, offset, weight, normal(weight_shape[0], seed=4), mask), options


CASES = {
    "plain": case((2, 3, 5, 7), (4, 3, 3, 3)),
    "all options": case((2, 4, 9, 8), (3, 4, 3, 2), groups=2, stride=2, padding=1, dilation=2),
    "one offset for each channel": case((1, 3, 6, 5), (2, 3, 3, 3), groups=3, padding=1),
    "far": case((2, 4, 5, 6), (3, 4, 3, 3), groups=2, spread=5.0, padding=2),
    "zero offset": case((2, 4, 5, 6), (3, 4, 3, 3), groups=2, spread=0.0, padding=2),
    "one tap": case((1, 2, 4, 5), (3, 2, 1, 1)),
    "one pixel": case((1, 2, 1, 1), (3, 2, 3, 3), padding=1),
    "one row": case((1, 1, 1, 7), (1, 1, 1, 4)),
    "padding larger than the kernel": case((1, 1, 3, 3), (1, 1, 2, 2), padding=4),
}
CASE = pytest.mark.parametrize(("inputs", "options"), CASES.values(), ids=CASES)


@pytest.fixture(scope="module")
def vision():
    from torchvision import ops

    return ops


@pytest.mark.torchvision
@CASE
def test_equals_torchvision(inputs, options, vision):
    """Also at whole coordinates, where the derivative has two sides."""
    assert_same_both_ways(
        lambda x, offset, weight, bias, mask: deform_conv2d(x, offset, weight, bias, mask=mask, **options),
        lambda x, offset, weight, bias, mask: vision.deform_conv2d(x, offset, weight, bias, mask=mask, **options),
        *inputs,
    )


@pytest.mark.torchvision
def test_equals_torchvision_without_bias_and_mask(vision):
    (x, offset, weight, *_), options = CASES["all options"]
    assert_same_both_ways(
        lambda x, offset, weight: deform_conv2d(x, offset, weight, **options),
        lambda x, offset, weight: vision.deform_conv2d(x, offset, weight, **options),
        *(x, offset, weight),
    )


@pytest.mark.torchvision
def test_whole_coordinates_in_and_out_of_the_image_equal_torchvision(vision):
    x = normal(1, 2, 4, 5)
    offset = torch.randint(-7, 8, (1, 2, 4, 5), generator=torch.Generator().manual_seed(1)).double()
    weight = normal(1, 2, 1, 1, seed=1)
    assert_same_both_ways(
        lambda x, offset: deform_conv2d(x, offset, weight),
        lambda x, offset: vision.deform_conv2d(x, offset, weight),
        *(x, offset),
    )


@pytest.mark.torchvision
def test_takes_any_memory_layout(vision):
    (x, offset, weight, bias, mask), options = CASES["all options"]
    tensors = [
        x.to(memory_format=torch.channels_last),
        offset.transpose(2, 3).contiguous().transpose(2, 3),
        weight.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
        bias[:, None].expand(-1, 2)[:, 1],
        mask.repeat_interleave(2, dim=1)[:, ::2],
    ]
    assert not any(t.is_contiguous() for t in (*tensors[:3], tensors[4]))
    ours = deform_conv2d(*tensors[:4], mask=tensors[4], **options)
    assert_close(ours, vision.deform_conv2d(x, offset, weight, bias, mask=mask, **options))


def by_loops(x, offset, weight, bias, mask, *, stride=1, padding=0, dilation=1):
    """The definition: each of the four pixels around a point counts max(0, 1 - |Δrow|) max(0, 1 - |Δcolumn|)."""
    (b, c, h, w), (kh, kw) = x.shape, weight.shape[2:]
    ho, wo = offset.shape[2:]
    groups = offset.shape[1] // (2 * kh * kw)
    y = bias[None, :, None, None].repeat(b, 1, ho, wo)
    for n, i, j, g, m, k in itertools.product(*map(range, (b, ho, wo, groups, kh, kw))):
        tap = (g * kh + m) * kw + k
        row = i * stride - padding + m * dilation + offset[n, 2 * tap, i, j].item()
        column = j * stride - padding + k * dilation + offset[n, 2 * tap + 1, i, j].item()
        for u, v in itertools.product(range(h), range(w)):
            share = max(0, 1 - abs(row - u)) * max(0, 1 - abs(column - v))
            if share == 0:
                continue
            for channel in range(g * c // groups, (g + 1) * c // groups):
                y[n, :, i, j] += share * mask[n, tap, i, j] * weight[:, channel, m, k] * x[n, channel, u, v]
    return y


@pytest.mark.parametrize("name", ["all options", "one offset for each channel", "one row"])
def test_equals_loops(name):
    (x, offset, weight, bias, mask), options = CASES[name]
    expected = by_loops(x, offset, weight, bias, mask, **options)
    assert_close(deform_conv2d(x, offset, weight, bias, mask=mask, **options), expected)


def test_one_tap_equals_grid_sample():
    """`F.grid_sample` counts from -1 to 1, columns first."""
    x, offset = normal(2, 3, 6, 7), 3 * normal(2, 2, 6, 7, seed=1)

    def theirs(x, offset):
        row = torch.arange(6.0, dtype=x.dtype)[:, None] + offset[:, 0]
        column = torch.arange(7.0, dtype=x.dtype) + offset[:, 1]
        grid = torch.stack([2 * column / 6 - 1, 2 * row / 5 - 1], dim=-1)
        return F.grid_sample(x, grid, padding_mode="zeros", align_corners=True)

    eye = torch.eye(3, dtype=x.dtype)[:, :, None, None]
    assert_same_both_ways(lambda x, offset: deform_conv2d(x, offset, eye), theirs, x, offset)


@CASE
def test_zero_offset_equals_convolution(inputs, options):
    x, offset, weight, bias, _ = inputs
    zero = torch.zeros_like(offset)
    assert_same_both_ways(
        lambda x, weight, bias: deform_conv2d(x, zero, weight, bias, **options),
        lambda x, weight, bias: F.conv2d(x, weight, bias, **options),
        *(x, weight, bias),
    )


def kernel_grid(kernel_size=3):
    """Return p_k as (9, 2): rows and columns counted from the centre."""
    along = torch.arange(kernel_size, dtype=torch.float64) - kernel_size // 2
    return torch.cartesian_prod(along, along)


@pytest.mark.parametrize("d", [2, 3])
def test_offsets_that_stretch_the_kernel_equal_dilation(d):
    x, weight = normal(2, 3, 8, 9), normal(4, 3, 3, 3, seed=1)
    offset = ((d - 1) * kernel_grid()).view(1, 18, 1, 1).expand(2, 18, 8, 9)
    stretched = deform_conv2d(x, offset, weight, padding=1)
    assert_close(stretched, F.conv2d(x, weight, padding=d, dilation=d))


def test_offsets_that_turn_the_kernel_by_a_quarter_equal_a_turned_kernel():
    x, weight = normal(1, 3, 8, 9), normal(4, 3, 3, 3, seed=1)
    quarter = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=x.dtype)  # right goes up, down goes right
    offset = (kernel_grid() @ quarter - kernel_grid()).view(1, 18, 1, 1).expand(1, 18, 8, 9)
    rows, columns = (kernel_grid() @ quarter).long().T + 1
    turned = torch.empty_like(weight)
    turned[:, :, rows, columns] = weight.flatten(2)
    assert_close(deform_conv2d(x, offset, weight, padding=1), F.conv2d(x, turned, padding=1))


def test_groups_of_channels_are_convolved_each_with_its_offsets():
    (x, offset, weight, _, mask), options = CASES["far"]
    halves = [
        deform_conv2d(x[:, a : a + 2], offset[:, 9 * a : 9 * a + 18], weight[:, a : a + 2], **options) for a in (0, 2)
    ]
    assert_close(deform_conv2d(x, offset, weight, **options), sum(halves))
    assert mask.shape[1] == 18


def off_the_kinks(offset):
    """Move offsets whose point lies close to a whole number, where no derivative exists."""
    fraction = offset - offset.floor()
    return offset.floor() + 0.2 + 0.6 * fraction


def test_passes_gradcheck_between_pixels():
    inputs, options = case((1, 2, 3, 3), (2, 2, 2, 1), groups=2, spread=2.0, stride=2, padding=1)
    x, offset, weight, bias, mask = inputs
    inputs = [t.requires_grad_() for t in (x, off_the_kinks(offset), weight, bias, mask)]
    assert torch.autograd.gradcheck(
        lambda x, offset, weight, bias, mask: deform_conv2d(x, offset, weight, bias, mask=mask, **options), inputs
    )


def test_sampling_points_and_readings_pass_gradcheck():
    offset = off_the_kinks(2 * normal(1, 8, 1, 2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda o: sampling_points(o, (2, 2), stride=2, padding=1, dilation=2), offset)
    points = off_the_kinks(2 * normal(2, 3, 2)).requires_grad_()
    inputs = normal(2, 2, 2, 3, seed=1).requires_grad_(), points
    assert torch.autograd.gradcheck(sample_bilinear, inputs)
    assert torch.autograd.gradgradcheck(sample_bilinear, inputs)


def test_derivative_is_the_difference_of_neighbours():
    """Along a row it is (1 - f)(right - left) of the upper pixels plus f times that of the lower pixels."""
    x = normal(1, 1, 4, 5)
    points = torch.tensor([[[1.25, 2.5]]], dtype=x.dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(sample_bilinear(x, points).sum(), points)
    (a, b), (c, d) = x[0, 0, 1:3, 2:4].tolist()
    expected = [0.5 * (c - a) + 0.5 * (d - b), 0.75 * (b - a) + 0.25 * (d - c)]
    assert_close(gradient.flatten().tolist(), expected)


def test_derivative_at_a_whole_coordinate_is_that_to_the_right_and_down():
    x = normal(1, 1, 4, 5)
    points = torch.tensor([[[1.0, 2.0]]], dtype=x.dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(sample_bilinear(x, points).sum(), points)
    assert_close(gradient.flatten(), torch.stack([x[0, 0, 2, 2] - x[0, 0, 1, 2], x[0, 0, 1, 3] - x[0, 0, 1, 2]]))


def test_at_zero_offset_padded_taps_get_a_gradient_on_the_left_and_above_only():
    """At -1 a move to the right enters the image; at the width, it does not."""
    x, weight = torch.ones(1, 1, 4, 5), torch.ones(1, 1, 3, 3)
    offset = torch.zeros(1, 18, 4, 5, requires_grad=True)
    deform_conv2d(x, offset, weight, padding=1).sum().backward()
    to_the_right = offset.grad.view(3, 3, 2, 4, 5)[1, :, 1, 2]  # of the middle row, by tap and column
    assert to_the_right.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 0, -1], [0, 0, 0, -1, 0]]


def test_far_outside_value_and_gradients_are_zero():
    """The commonest failure: no gradient leads back."""
    x, weight = normal(1, 1, 4, 4).requires_grad_(), normal(1, 1, 3, 3)
    for distance in (8.0, 1e3, 1e30, math.inf, -math.inf):
        offset = torch.full((1, 18, 4, 4), distance, dtype=x.dtype, requires_grad=True)
        y = deform_conv2d(x, offset, weight, padding=1)
        gradients = torch.autograd.grad(y.sum(), (x, offset))
        assert y.abs().max() == 0
        assert [g.abs().max() for g in gradients] == [0, 0]


def test_value_falls_to_zero_within_one_pixel_of_the_border():
    points = torch.tensor([[[0.0, -0.25], [0.0, -1.0], [0.75, 2.5], [2.0, 0.0]]], dtype=torch.float64)
    ones = torch.ones(1, 1, 2, 3, dtype=torch.float64)
    assert_close(sample_bilinear(ones, points).flatten().tolist(), [0.75, 0.0, 0.5, 0.0])


def test_nan_stays_where_it_is():
    offset = torch.zeros(1, 2, 3, 3)
    offset[0, 0, 0, 2] = offset[0, 1, 1, 1] = math.nan
    y = deform_conv2d(torch.ones(1, 1, 3, 3), offset, torch.ones(1, 1, 1, 1))
    assert y.isnan().nonzero().tolist() == [[0, 0, 0, 2], [0, 0, 1, 1]]


@pytest.mark.parametrize(("x_shape", "groups"), [((0, 4, 5, 5), 2), ((2, 0, 5, 5), 1)], ids=["no image", "no channel"])
def test_empty_input(x_shape, groups):
    x, weight = torch.ones(x_shape), torch.ones(3, x_shape[1], 3, 3)
    y = deform_conv2d(x, torch.zeros(x_shape[0], 18 * groups, 3, 3), weight, torch.ones(3))
    assert_close(y, torch.ones(x_shape[0], 3, 3, 3))


def test_sampling_points_are_grid_plus_offset():
    offset = normal(2, 2 * 3 * 6, 3, 4)
    points = sampling_points(offset, (3, 2), stride=2, padding=1, dilation=3)
    assert points.shape == (2, 18, 3, 4, 2)
    for g, m, k, i, j in itertools.product(*map(range, (3, 3, 2, 3, 4))):
        tap = (g * 3 + m) * 2 + k
        expected = torch.tensor([2 * i - 1 + 3 * m, 2 * j - 1 + 3 * k]) + offset[1, 2 * tap : 2 * tap + 2, i, j]
        assert_close(points[1, tap, i, j], expected)


def test_channels_are_down_and_right_of_each_tap_in_turn():
    """The commonest misuse takes the first half for rows and the second for columns."""
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 1, 4] = 1
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 2, 1] = 1  # tap 7, which reads the pixel below
    offset = torch.zeros(1, 18, 5, 5)
    offset[:, 14], offset[:, 15] = -2, 2  # two up, two to the right: from (3, 2) to (1, 4)
    y = deform_conv2d(x, offset, weight, padding=1)
    assert y.nonzero().tolist() == [[0, 0, 2, 2]]


LOW = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


@LOW
def test_low_precision_rounds_once(dtype):
    (x, offset, weight, bias, mask), options = case((2, 16, 9, 11), (4, 16, 3, 3), groups=4, padding=1)
    low = [t.to(dtype) for t in (x, offset, weight, bias, mask)]
    exact = deform_conv2d(*[t.double() for t in low[:4]], mask=low[4].double(), **options)
    ours = deform_conv2d(*low[:4], mask=low[4], **options)
    assert ours.dtype == dtype
    assert_close(ours, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.torchvision
def test_float16_is_at_most_twice_as_wrong_as_torchvision(vision):
    (x, offset, weight, bias, mask), options = case((2, 16, 9, 11), (4, 16, 3, 3), groups=4, padding=1)
    low = [t.half() for t in (x, offset, weight, bias, mask)]
    exact = deform_conv2d(*[t.double() for t in low[:4]], mask=low[4].double(), **options)
    ours, theirs = (f(*low[:4], mask=low[4], **options) for f in (deform_conv2d, vision.deform_conv2d))
    assert (ours.double() - exact).abs().max() <= 2 * (theirs.double() - exact).abs().max()


@LOW
def test_half_a_pixel_is_kept_far_from_the_origin_in_low_precision(dtype):
    """A coordinate above 1024 has no fraction in float16, above 128 none in bfloat16."""
    x = (torch.arange(2048) % 2).to(dtype).view(1, 1, 1, -1)
    offset = torch.tensor([0.0, 0.5], dtype=dtype).view(1, 2, 1, 1).expand(1, 2, 1, 2048)
    y = deform_conv2d(x, offset, torch.ones(1, 1, 1, 1, dtype=dtype))
    assert (y[..., :-1] == 0.5).all()
    assert sampling_points(offset, (1, 1))[0, 0, 0, 1500].tolist() == [0, 1500.5]


def test_mixed_types_are_allowed_and_the_result_has_that_of_x():
    (x, offset, weight, bias, mask), options = CASES["plain"]
    y = deform_conv2d(x.float(), offset.half(), weight.bfloat16(), bias, mask=mask, **options)
    assert y.dtype == torch.float32
    rounded = deform_conv2d(x, offset.half().double(), weight.bfloat16().double(), bias, mask=mask, **options)
    assert_close(y, rounded.float(), rtol=1e-5, atol=1e-5)


def test_inputs_are_left_as_they_were():
    inputs, options = CASES["all options"]
    kept = [t.clone() for t in inputs]
    deform_conv2d(*inputs[:4], mask=inputs[4], **options)
    assert all(map(torch.equal, inputs, kept))


# The layer


@pytest.mark.parametrize(("modulated", "channels"), [(False, 18), (True, 27)], ids=["v1", "v2"])
def test_layer_predicts_18_or_27_channels_from_zero(modulated, channels):
    """Dai et al., section 2.1: 2N channels of offsets. Zhu et al., section 3.2: 3K with the masks, zero at first."""
    layer = DeformConv2d(8, 4, modulated=modulated)
    assert layer.conv_offset.weight.shape == (channels, 8, 3, 3)
    assert layer.conv_offset.weight.count_nonzero() == layer.conv_offset.bias.count_nonzero() == 0


@pytest.mark.parametrize(
    ("options", "factor"),
    [({"modulated": False}, 1), ({}, 0.5), ({"double_mask": True}, 1)],
    ids=["v1", "v2 with masks of one half", "v2 with doubled masks"],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_layer_starts_as_a_convolution(options, factor, stride):
    """Zhu et al., section 3.2: the initial values of offset and mask are 0 and 0.5."""
    layer = DeformConv2d(6, 4, stride=stride, padding=2, dilation=2, offset_groups=3, **options).double()
    x = normal(2, 6, 9, 10)
    plain = F.conv2d(x, factor * layer.weight, layer.bias, stride=stride, padding=2, dilation=2)
    assert_close(layer(x), plain)


def test_four_half_masks_divide_by_sixteen():
    x = normal(1, 5, 8, 8, dtype=torch.float32)
    plain = nn.Sequential(*(nn.Conv2d(5, 5, 3, padding=1, bias=False) for _ in range(4)))
    halved = nn.Sequential(*(DeformConv2d(5, 5, padding=1, bias=False) for _ in range(4)))
    halved.load_state_dict(plain.state_dict(), strict=False)
    assert_close(halved(x), plain(x) / 16)


@pytest.mark.torchvision
@pytest.mark.parametrize("double_mask", [False, True])
def test_layer_equals_torchvision_with_its_predictions(double_mask, vision):
    torch.manual_seed(0)
    layer = DeformConv2d(4, 6, 3, stride=2, padding=1, offset_groups=2, double_mask=double_mask).double()
    nn.init.normal_(layer.conv_offset.weight)
    nn.init.normal_(layer.conv_offset.bias)
    x = normal(2, 4, 7, 8)
    predicted = F.conv2d(x, layer.conv_offset.weight, layer.conv_offset.bias, stride=2, padding=1)
    mask = torch.sigmoid(predicted[:, 36:]) * (1 + double_mask)
    theirs = vision.deform_conv2d(x, predicted[:, :36], layer.weight, layer.bias, stride=2, padding=1, mask=mask)
    assert_close(layer(x), theirs)


def test_layer_trains_all_its_parameters():
    torch.manual_seed(0)
    layer = DeformConv2d(4, 6, padding=1)
    layer(normal(2, 4, 6, 6, dtype=torch.float32)).square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())
    assert [name for name, _ in layer.named_parameters()] == [
        "weight",
        "bias",
        "conv_offset.weight",
        "conv_offset.bias",
    ]
    assert DeformConv2d(4, 6, bias=False).bias is None


def test_layer_runs_under_autocast():
    """The prediction is in bfloat16 then, and the image still in float32."""
    torch.manual_seed(0)
    layer, x = DeformConv2d(4, 6, padding=1), normal(2, 4, 6, 6, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32
    assert_close(y, layer(x), rtol=0.05, atol=0.05)


@LOW
def test_autocast_around_the_forward_pass_changes_nothing(dtype):
    """Neither the value nor a gradient; products in 16 bits would be wrong by about 0.3%."""
    (x, offset, weight, bias, mask), options = case((1, 16, 5, 6), (3, 16, 3, 3), padding=1)

    def both_ways(enabled):
        inputs = [t.float().requires_grad_() for t in (x, offset, weight, bias, mask)]
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            y = deform_conv2d(*inputs[:4], mask=inputs[4], **options)
        return y, *torch.autograd.grad(y.square().sum(), inputs)

    assert_close(both_ways(True), both_ways(False))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_positions_may_have_another_type_than_the_image(dtype):
    x, points = normal(2, 3, 5, 6), 5 * torch.rand(2, 7, 2)
    y = sample_bilinear(x.to(dtype), points)
    assert y.dtype == dtype
    assert_close(y.double(), sample_bilinear(x.to(dtype).double(), points.double()), rtol=0.02, atol=0.02)


X, D, W = torch.ones(2, 4, 5, 5), torch.zeros(2, 18, 5, 5), torch.ones(3, 4, 3, 3)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("call", "message"),
    {
        "image without batch": (lambda: deform_conv2d(X[0], D, W, padding=1), r"x to be.*\(4, 5, 5\)"),
        "integers": (lambda: deform_conv2d(X.long(), D, W, padding=1), "int64"),
        "weights of a line": (lambda: deform_conv2d(X, D, W[0], padding=1), r"weight to be.*\(4, 3, 3\)"),
        "other channels": (lambda: deform_conv2d(X[:, :3], D, W, padding=1), "3 channels.*for 4"),
        "masks among the offsets": (
            lambda: deform_conv2d(X, torch.zeros(2, 27, 5, 5), W, padding=1),
            r"offsets \(2, G · 18, 5, 5\), not \(2, 27, 5, 5\)",
        ),
        "too few offsets": (lambda: deform_conv2d(X, D[:, :9], W, padding=1), r"not \(2, 9, 5, 5\)"),
        "offsets of the input's size": (
            lambda: deform_conv2d(X[:, :, :3], D, W, padding=1, stride=2),
            r"offsets \(2, G · 18, 2, 3\), not \(2, 18, 5, 5\)",
        ),
        "offsets of one image": (lambda: deform_conv2d(X, D[:1], W, padding=1), r"not \(1, 18, 5, 5\)"),
        "groups": (lambda: deform_conv2d(X, D.repeat(1, 3, 1, 1), W, padding=1), "3 groups do not divide 4"),
        "mask": (lambda: deform_conv2d(X, D, W, padding=1, mask=D), r"mask \(2, 9, 5, 5\), not \(2, 18, 5, 5\)"),
        "mask of a line": (lambda: deform_conv2d(X, D, W, padding=1, mask=D[0]), r"mask to be.*\(18, 5, 5\)"),
        "bias": (lambda: deform_conv2d(X, D, W, torch.ones(4), padding=1), r"bias \(3,\), not \(4,\)"),
        "stride 0": (lambda: deform_conv2d(X, D, W, stride=0), "stride must be a positive integer, but is 0"),
        "a padding for each side": (
            lambda: deform_conv2d(X, D, W, padding=(1, 1)),
            r"padding must be an integer.*\(1, 1\)",
        ),
        "half a stride": (
            lambda: deform_conv2d(X, D, W, padding=1, stride=1.5),
            "stride must be a positive integer, but is 1.5",
        ),
        "points with a pair": (
            lambda: sampling_points(D, dilation=(1, 1)),
            r"dilation must be a positive integer, but is \(1, 1\)",
        ),
        "negative padding": (
            lambda: deform_conv2d(X, D, W, padding=-1),
            "padding must be an integer of at least 0, but is -1",
        ),
        "dilation 0": (lambda: deform_conv2d(X, D, W, dilation=0), "dilation must be a positive integer, but is 0"),
        "kernel larger than the image": (lambda: deform_conv2d(X, D, W, dilation=3), r"\(2, G · 18, -1, -1\)"),
        "no pixels": (lambda: deform_conv2d(X[:, :, :0], D, W, padding=1), "nothing to read"),
        "points of 17 channels": (lambda: sampling_points(D[:, :17]), "3 × 3 needs a multiple of 18.*not 17"),
        "points of no channel": (lambda: sampling_points(D[:, :0]), "not 0"),
        "points of a line": (lambda: sampling_points(D[0]), r"offset to be.*\(18, 5, 5\)"),
        "three coordinates": (lambda: sample_bilinear(X, torch.ones(2, 7, 3)), r"points \(b, n, 2\), not \(2, 7, 3\)"),
        "points of one image": (lambda: sample_bilinear(X, torch.ones(1, 7, 2)), "2 images need points for each"),
        "whole points": (lambda: sample_bilinear(X, torch.ones(2, 7, 2).long()), "int64"),
        "image of a line": (lambda: sample_bilinear(X[0], torch.ones(2, 7, 2)), r"\(4, 5, 5\)"),
        "layer's groups": (lambda: DeformConv2d(4, 4, offset_groups=3), "3 groups do not divide 4"),
        "no group": (lambda: DeformConv2d(4, 4, offset_groups=0), "offset_groups must be a positive integer"),
        "complex bias": (lambda: deform_conv2d(X, D, W, torch.ones(3) + 0j, padding=1), "complex64"),
        "whole bias": (lambda: deform_conv2d(X, D, W, torch.ones(3).long(), padding=1), "int64"),
        "a kernel of one number": (lambda: sampling_points(D, 3), "two positive integers, but is 3"),
        "a kernel of 0": (lambda: sampling_points(D, (0, 3)), "positive integer, but is 0"),
        "layer's stride": (lambda: DeformConv2d(4, 4, stride=0), "stride must be a positive integer"),
        "layer's kernel": (lambda: DeformConv2d(4, 4, (3, 3)), r"kernel_size must be .*\(3, 3\)"),
        "layer's channels": (lambda: DeformConv2d(0, 4), "in_channels must be a positive integer"),
        "layer's image": (lambda: DeformConv2d(4, 4)(X[0]), r"\(B, 4, H, W\), but its shape is \(4, 5, 5\)"),
    }.values(),
    ids=lambda value: "" if callable(value) else value[:20],
)
def test_refuses_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.wrong_input
@pytest.mark.parametrize("x", [1.0, [1.0, 2.0], numpy.ones((2, 4, 5, 5))], ids=["number", "list", "array"])
def test_refuses_what_is_not_a_tensor(x):
    for call in (
        lambda: deform_conv2d(x, D, W, padding=1),
        lambda: deform_conv2d(X, x, W, padding=1),
        lambda: deform_conv2d(X, D, x, padding=1),
        lambda: deform_conv2d(X, D, W, x, padding=1),
        lambda: deform_conv2d(X, D, W, padding=1, mask=x),
        lambda: sampling_points(x),
        lambda: sample_bilinear(x, torch.ones(2, 7, 2)),
        lambda: sample_bilinear(X, x),
    ):
        with pytest.raises(ValueError, match=f"not a {type(x).__name__}"):
            call()
