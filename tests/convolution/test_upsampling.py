"""Upsampling against torch's own, against loops from the definitions, and against the papers' formulas."""

import itertools
import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from tensors import assert_same_both_ways, normal
from torch.testing import assert_close

from zhixing.convolution.upsampling import (
    conv_transpose2d,
    icnr_,
    phase_sums,
    pixel_shuffle,
    resize_linear,
    source_positions,
)

IMAGES = {
    "odd": normal(2, 3, 5, 7),
    "one pixel": normal(1, 2, 1, 1),
    "one row": normal(1, 1, 1, 6),
    "no image": normal(0, 2, 4, 3),
    "no channel": normal(1, 0, 4, 3),
    "transposed": normal(2, 3, 7, 5).transpose(2, 3),
    "channels last": normal(2, 3, 5, 7).to(memory_format=torch.channels_last),
    "large": 1e8 * normal(1, 1, 4, 6),
}
IMAGE = pytest.mark.parametrize("x", IMAGES.values(), ids=IMAGES)
ALIGN = pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])


@IMAGE
@ALIGN
@pytest.mark.parametrize("size", [(10, 14), (13, 9), (1, 1), (3, 20), (5, 7)], ids=str)
def test_linear_resize_equals_torch(x, size, align_corners):
    def theirs(x):
        if 0 in x.shape:  # torch's refuses images without channels
            return x.sum((2, 3), keepdim=True).expand(*x.shape[:2], *size)
        return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)

    assert_same_both_ways(lambda x: resize_linear(x, size, align_corners=align_corners), theirs, x)


@ALIGN
def test_linear_resize_passes_gradcheck(align_corners):
    x = normal(1, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: resize_linear(x, (5, 7), align_corners=align_corners), x)


@ALIGN
@pytest.mark.parametrize("n_in", [1, 2, 5, 8])
@pytest.mark.parametrize("n_out", [1, 2, 7, 24])
def test_source_position_is_where_a_ramp_is_read(n_in, n_out, align_corners):
    ramp = torch.arange(n_in, dtype=torch.float64).view(1, 1, n_in)
    read = F.interpolate(ramp, n_out, mode="linear", align_corners=align_corners).flatten()
    position = source_positions(n_in, n_out, align_corners=align_corners)
    assert_close(position.clamp(0, n_in - 1), read)
    assert position.min() >= -0.5
    assert position.max() <= n_in - 0.5


def test_source_positions_keep_their_conventions():
    edges = source_positions(5, 9)
    assert_close(edges + edges.flip(0), torch.full_like(edges, 4.0))  # about the centre of the image
    assert_close(edges.diff(), torch.full((8,), 5 / 9, dtype=torch.float64))
    corners = source_positions(5, 9, align_corners=True)
    assert_close(corners[[0, -1]].tolist(), [0.0, 4.0])


def test_sampling_a_grid_at_the_source_positions_equals_linear_resize():
    """`F.grid_sample` counts from -1 to 1, in the same two conventions."""
    x = normal(2, 3, 5, 7)
    for align_corners in (False, True):
        axes = []
        for n_in, n_out in ((5, 12), (7, 10)):
            position = source_positions(n_in, n_out, align_corners=align_corners)
            axes.append(2 * position / (n_in - 1) - 1 if align_corners else (2 * position + 1) / n_in - 1)
        grid = torch.stack(torch.meshgrid(axes[1], axes[0], indexing="xy"), dim=-1).expand(2, -1, -1, -1)
        sampled = F.grid_sample(x, grid, padding_mode="border", align_corners=align_corners)
        assert_close(resize_linear(x, (12, 10), align_corners=align_corners), sampled)


TRANSPOSED = {
    "plain": ((3, 4, 3, 3), {}),
    "uneven": ((3, 4, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "even": ((3, 2, 4, 4), {"stride": 2, "padding": 1}),
    "kernel smaller than stride": ((3, 2, 2, 1), {"stride": 3, "output_padding": 2}),
    "oblong": ((3, 1, 5, 2), {"stride": 2, "padding": 1}),
    "output padding without padding": ((3, 2, 3, 3), {"stride": 2, "output_padding": 1}),
}
OPTIONS = pytest.mark.parametrize(("shape", "options"), TRANSPOSED.values(), ids=TRANSPOSED)


@OPTIONS
@pytest.mark.parametrize("size", [(5, 7), (2, 2), (6, 3)], ids=str)
def test_transposed_convolution_equals_torch(size, shape, options):
    x, weight = normal(2, 3, *size), normal(*shape, seed=1)
    assert_same_both_ways(
        lambda x, weight: conv_transpose2d(x, weight, **options),
        lambda x, weight: F.conv_transpose2d(x, weight, **options),
        x,
        weight,
    )


@OPTIONS
def test_transposed_convolution_equals_loops(shape, options):
    """Each input pixel adds a copy of the kernel, and the padding is cut off."""
    x, weight = normal(1, 3, 2, 3), normal(*shape, seed=1)
    s, p, extra = options.get("stride", 1), options.get("padding", 0), options.get("output_padding", 0)
    _, c_out, kh, kw = shape
    height, width = (x.shape[i] * s - s - 2 * p + k + extra for i, k in ((2, kh), (3, kw)))
    expected = torch.zeros(1, c_out, height, width, dtype=x.dtype)
    for c, o, i, j in itertools.product(range(3), range(c_out), range(2), range(3)):
        for m, n in itertools.product(range(kh), range(kw)):
            y, z = s * i + m - p, s * j + n - p
            if 0 <= y < height and 0 <= z < width:
                expected[0, o, y, z] += x[0, c, i, j] * weight[c, o, m, n]
    assert_close(conv_transpose2d(x, weight, **options), expected)


@pytest.mark.parametrize("kind", ["transposed", "channels last", "no image"])
def test_transposed_convolution_takes_any_memory_layout(kind):
    x = IMAGES[kind]
    weight = normal(4, 5, 3, x.shape[1], seed=1).permute(3, 1, 2, 0)  # not contiguous either
    ours = conv_transpose2d(x, weight, stride=2, padding=1)
    assert_close(ours, F.conv_transpose2d(x, weight, stride=2, padding=1))


def test_transposed_convolution_passes_gradcheck():
    x, weight = normal(1, 2, 2, 3).requires_grad_(), normal(2, 1, 3, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, weight: conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1), (x, weight)
    )


@pytest.mark.parametrize("size", [7, 8])
def test_transposed_convolution_is_the_gradient_of_convolution(size):
    """The output padding says which of two input sizes the convolution had."""
    weight, image = normal(3, 2, 3, 3), normal(1, 2, size, size, seed=1).requires_grad_()
    small = F.conv2d(image, weight, stride=2, padding=1)
    assert small.shape[2:] == (4, 4)
    above = normal(*small.shape, seed=2)
    (gradient,) = torch.autograd.grad(small, image, above)
    assert_close(conv_transpose2d(above, weight, stride=2, padding=1, output_padding=(size + 1) % 2), gradient)


def test_transposed_convolution_is_the_convolution_of_an_input_stuffed_with_zeros():
    x, weight, s, p = normal(2, 3, 4, 5), normal(3, 2, 4, 4, seed=1), 3, 1
    stuffed = torch.zeros(2, 3, (4 - 1) * s + 1, (5 - 1) * s + 1, dtype=x.dtype)
    stuffed[:, :, ::s, ::s] = x
    convolved = F.conv2d(stuffed, weight.transpose(0, 1).flip(2, 3), padding=4 - 1 - p)
    assert_close(conv_transpose2d(x, weight, stride=s, padding=p), convolved)


@pytest.mark.parametrize(("k", "r"), [(1, 2), (3, 2), (3, 3), (5, 2)])
def test_subpixel_convolution_is_a_transposed_convolution_with_a_kernel_of_rk(k, r):
    x, weight = normal(2, 3, 5, 4), normal(2 * r * r, 3, k, k, seed=1)
    # Tap m of the kernel for pixel i of the square lands r(k - 1 - m) + i after the first.
    large = weight.view(2, r, r, 3, k, k).flip(4, 5).permute(3, 0, 4, 1, 5, 2).reshape(3, 2, r * k, r * k)
    transposed = conv_transpose2d(x, large, stride=r, padding=r * (k - 1) // 2)
    shuffled = pixel_shuffle(F.conv2d(x, weight, padding=k // 2), r)
    assert_close(shuffled, transposed, rtol=0, atol=1e-13)


def test_nearest_resize_then_convolution_is_a_transposed_convolution_with_tied_weights():
    x, (a, b, c) = normal(1, 1, 1, 9), normal(3, seed=1).tolist()
    line = torch.tensor([a, b, c], dtype=torch.float64).view(1, 1, 1, 3)
    resized = F.conv2d(x.repeat_interleave(2, dim=3), line, padding=(0, 1))
    tied = torch.tensor([c, b + c, a + b, a], dtype=torch.float64).view(1, 1, 1, 4)
    transposed = conv_transpose2d(x, tied, stride=2)[..., 1:-1]
    assert_close(resized, transposed)


def test_on_a_ramp_nearest_then_convolution_has_a_pattern_and_linear_none():
    ramp, weight = torch.arange(12.0, dtype=torch.float64).expand(1, 1, 12, 12), normal(1, 1, 3, 3, seed=1)
    nearest = ramp.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    linear = resize_linear(ramp, (24, 24))
    increments = F.conv2d(nearest, weight)[0, 0, 9, 4:-4].diff()
    left, middle, right = weight.sum(2).flatten().tolist()
    assert_close(increments[::2], torch.full_like(increments[::2], middle))
    assert_close(increments[1::2], torch.full_like(increments[1::2], left + right))
    assert abs(left + right - middle) > 0.1
    increments = F.conv2d(linear, weight)[0, 0, 9, 4:-4].diff()
    assert_close(increments, torch.full_like(increments, weight.sum().item() / 2))


@pytest.mark.parametrize("r", [2, 3, 4])
def test_transposed_convolution_with_fcns_kernel_is_linear_resize(r):
    """The kernel of FCN's code: 1 - |i - centre| / factor, of size 2 r - r mod 2."""
    size, factor = 2 * r - r % 2, (2 * r - r % 2 + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    line = 1 - (torch.arange(size, dtype=torch.float64) - centre).abs() / factor
    kernel = (line[:, None] * line)[None, None]
    x = normal(1, 1, 6, 7)
    up = conv_transpose2d(x, kernel, stride=r, padding=math.ceil((r - 1) / 2))
    inside = (..., slice(r, -r), slice(r, -r))
    assert_close(up[inside], resize_linear(x, (6 * r, 7 * r))[inside])
    sums = phase_sums(kernel, r)
    assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize("k", range(1, 8))
@pytest.mark.parametrize("s", range(1, 5))
def test_overlap_is_even_exactly_if_the_stride_divides_the_kernel(k, s):
    """Odena, Dumoulin & Olah 2016, section Deconvolution & Overlap."""
    counts = phase_sums(torch.ones(1, 1, k, k), s).flatten()
    assert bool((counts == counts[0]).all()) == (k % s == 0)
    assert counts.sum() == k**2


@OPTIONS
def test_phase_sums_are_the_response_to_a_constant(shape, options):
    weight, s, p = normal(*shape), options.get("stride", 1), options.get("padding", 0)
    for channel in range(3):
        constant = torch.zeros(1, 3, 12, 12, dtype=torch.float64)
        constant[:, channel] = 1
        response = F.conv_transpose2d(constant, weight, **options)[0]
        sums = phase_sums(weight, s)
        for y, x in itertools.product(range(3 * s, 6 * s), repeat=2):
            assert_close(response[:, y, x], sums[channel, :, (y + p) % s, (x + p) % s])


def test_phase_sums_pass_gradcheck_and_keep_the_type():
    assert torch.autograd.gradcheck(lambda w: phase_sums(w, 2), normal(2, 1, 3, 5).requires_grad_())
    assert phase_sums(torch.ones(1, 1, 3, 3, dtype=torch.bfloat16), 2).dtype == torch.bfloat16


@pytest.mark.parametrize("r", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 18, 3, 5), (1, 36, 1, 1), (0, 36, 2, 2), (1, 36, 0, 2)], ids=str)
def test_pixel_shuffle_equals_torch(shape, r):
    x = normal(*shape[:1], shape[1] * r * r // math.gcd(shape[1], r * r), *shape[2:])
    if x.numel():
        assert_same_both_ways(lambda x: pixel_shuffle(x, r), lambda x: F.pixel_shuffle(x, r), x)
    flipped = x.transpose(2, 3)
    assert_close(pixel_shuffle(flipped, r), F.pixel_shuffle(flipped, r))


def test_pixel_shuffle_passes_gradcheck_and_is_undone():
    x = normal(1, 8, 2, 3)
    assert torch.autograd.gradcheck(lambda x: pixel_shuffle(x, 2), x.requires_grad_())
    assert_close(F.pixel_unshuffle(pixel_shuffle(x, 2), 2), x)


@pytest.mark.parametrize(("channels", "same"), [(1, True), (3, False)])
def test_papers_channel_order_is_torchs_for_one_channel_only(channels, same):
    """ESPCN, equation 4: PS(T)[x, y, c] = T[x // r, y // r, C r (y mod r) + C (x mod r) + c]."""
    r, x = 2, normal(1, channels * 4, 3, 5)
    papers = torch.empty(1, channels, 6, 10, dtype=x.dtype)
    for c, row, column in itertools.product(range(channels), range(6), range(10)):
        index = channels * r * (row % r) + channels * (column % r) + c
        papers[0, c, row, column] = x[0, index, row // r, column // r]
    assert torch.equal(papers, pixel_shuffle(x, r)) == same
    # Sorting the channels by output channel first turns the paper's order into torch's.
    reordered = x.unflatten(1, (r * r, channels)).transpose(1, 2).flatten(1, 2)
    assert torch.equal(papers, pixel_shuffle(reordered, r))


def test_icnr_is_the_nearest_resize_of_a_convolution():
    """Aitken et al. 2017: with equal kernels in a square, all its pixels are equal."""
    conv = torch.nn.Conv2d(3, 5 * 9, 3, padding=1, dtype=torch.float64)
    first = conv.weight[::9].clone(), conv.bias[::9].clone()
    icnr_(conv.weight, 3)
    icnr_(conv.bias, 3)
    x = normal(2, 3, 4, 5)
    nearest = F.interpolate(F.conv2d(x, *first, padding=1), scale_factor=3, mode="nearest-exact")
    assert_close(pixel_shuffle(conv(x), 3), nearest)


def test_icnr_of_the_weight_alone_leaves_a_checkerboard():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 4, 3, padding=1)
    icnr_(conv.weight, 2)
    assert pixel_shuffle(conv(torch.zeros(1, 3, 4, 4)), 2).std() > 0.01
    icnr_(conv.bias, 2)
    assert pixel_shuffle(conv(torch.zeros(1, 3, 4, 4)), 2).std() < 1e-6


def test_icnr_changes_its_argument_alone_and_can_be_trained():
    weight = torch.nn.Parameter(normal(8, 3, 3, 3))
    before = weight.detach().clone()
    assert icnr_(weight, 2) is weight
    assert weight.requires_grad
    assert weight.is_leaf
    assert_close(weight.detach(), before[[0, 0, 0, 0, 4, 4, 4, 4]])
    assert icnr_(torch.empty(0, 3), 2).shape == (0, 3)
    assert torch.equal(icnr_(before.clone(), 1), before)
    backwards = normal(3, 8).T  # not contiguous
    assert_close(icnr_(backwards.clone().T.contiguous().T, 2), backwards[[0, 0, 0, 0, 4, 4, 4, 4]])


LOW = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


@LOW
def test_linear_resize_is_at_most_twice_as_wrong_as_torch_in_low_precision(dtype):
    x = normal(2, 3, 9, 11, dtype=dtype)
    exact = F.interpolate(x.double(), (20, 17), mode="bilinear")
    eager = F.interpolate(x, (20, 17), mode="bilinear")
    ours = resize_linear(x, (20, 17))
    assert ours.dtype == dtype
    assert (ours.double() - exact).abs().max() <= 2 * (eager.double() - exact).abs().max()
    assert_close(ours, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


@LOW
def test_transposed_convolution_is_at_most_twice_as_wrong_as_torch_in_low_precision(dtype):
    x, weight = normal(2, 16, 9, 11, dtype=dtype), normal(16, 4, 4, 4, seed=1, dtype=dtype)
    exact = F.conv_transpose2d(x.double(), weight.double(), stride=2, padding=1)
    eager = F.conv_transpose2d(x, weight, stride=2, padding=1)
    ours = conv_transpose2d(x, weight, stride=2, padding=1)
    assert ours.dtype == dtype
    assert (ours.double() - exact).abs().max() <= 2 * (eager.double() - exact).abs().max()


def test_results_keep_the_type_and_inputs_are_left_as_they_were():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x, weight = normal(1, 4, 3, 3, dtype=dtype), normal(4, 2, 3, 3, seed=1, dtype=dtype)
        kept = x.clone(), weight.clone()
        results = resize_linear(x, (5, 5)), conv_transpose2d(x, weight, stride=2), pixel_shuffle(x, 2)
        assert [y.dtype for y in results] == [dtype] * 3
        assert torch.equal(x, kept[0])
        assert torch.equal(weight, kept[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_around_the_forward_pass_changes_nothing(dtype):
    """Neither the value nor a gradient; products in 16 bits would be wrong by about 0.3%."""

    def both_ways(enabled):
        x, weight = (normal(2, 4, 5, 5, seed=seed, dtype=torch.float32).requires_grad_() for seed in (0, 1))
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            y = conv_transpose2d(x, weight.repeat(2, 1, 1, 1), stride=2)
        return y, *torch.autograd.grad(y.square().sum(), (x, weight))

    assert_close(both_ways(True), both_ways(False))


def test_shrinking_ignores_most_pixels():
    """The commonest misuse: at a factor of 8, a mean of four pixels misses the other sixty."""
    x = normal(1, 1, 32, 32).requires_grad_()
    resize_linear(x, (4, 4)).sum().backward()
    assert (x.grad != 0).sum() == 4 * 16


X, W = torch.ones(1, 4, 3, 3), torch.ones(4, 2, 3, 3)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("call", "message"),
    {
        "no pixels in": (lambda: source_positions(0, 4), "n_in must be a positive integer, but is 0"),
        "no pixels out": (lambda: source_positions(4, 0), "n_out must be a positive integer, but is 0"),
        "three dimensions": (lambda: resize_linear(X[0], (2, 2)), r"four dimensions.*\(4, 3, 3\)"),
        "five dimensions": (lambda: pixel_shuffle(X[None], 2), r"four dimensions.*\(1, 1, 4, 3, 3\)"),
        "integers": (lambda: resize_linear(X.long(), (2, 2)), "int64"),
        "no pixels": (lambda: resize_linear(X[:, :, :0], (2, 2)), r"at least one pixel, but x is \(1, 4, 0, 3\)"),
        "size 0": (lambda: resize_linear(X, (2, 0)), "size must be a positive integer, but is 0"),
        "one size": (lambda: resize_linear(X, (2,)), "size must be two positive integers"),
        "weights of a convolution": (lambda: conv_transpose2d(X, W.transpose(0, 1)), r"\(4, c_out, kh, kw\).*2, 4"),
        "other type": (lambda: conv_transpose2d(X, W.double()), "float64"),
        "weights of a line": (lambda: conv_transpose2d(X, W[0]), r"needs weight of four.*\(2, 3, 3\)"),
        "image without batch": (lambda: conv_transpose2d(X[0], W), r"\(4, 3, 3\)"),
        "stride 0": (lambda: conv_transpose2d(X, W, stride=0), "stride must be a positive integer, but is 0"),
        "negative padding": (
            lambda: conv_transpose2d(X, W, padding=-1),
            "padding must be an integer of at least 0, but is -1",
        ),
        "output padding": (
            lambda: conv_transpose2d(X, W, stride=2, output_padding=2),
            "less than stride, but they are 2 and 2",
        ),
        "no pixels to copy to": (lambda: conv_transpose2d(X[:, :, :0], W), "0 × 3 pixels would become 2 × 5"),
        "all cut off": (lambda: conv_transpose2d(X[:, :, :1], W, padding=2), "1 × 3 pixels would become -1 × 1"),
        "phases of a line": (lambda: phase_sums(W[0], 2), "needs weight of four"),
        "phases of stride 0": (lambda: phase_sums(W, 0), "stride must be a positive integer, but is 0"),
        "half a pixel": (lambda: source_positions(3, 1.5), "n_out must be a positive integer, but is 1.5"),
        "not a number": (lambda: source_positions(float("nan"), 3), "n_in must be a positive integer, but is nan"),
        "size of a float": (lambda: resize_linear(X, (1.5, 3)), "size must be a positive integer, but is 1.5"),
        "size of one number": (lambda: resize_linear(X, 4), "size must be two positive integers, but is 4"),
        "stride pair": (lambda: conv_transpose2d(X, W, stride=(2, 2)), r"stride must be .* is \(2, 2\)"),
        "shuffle by a float": (lambda: pixel_shuffle(X, 2.0), "r must be a positive integer, but is 2.0"),
        "ICNR by text": (lambda: icnr_(torch.ones(8), "2"), "r must be a positive integer, but is '2'"),
        "too few channels": (lambda: pixel_shuffle(X, 3), "4 channels, not r = 3"),
        "shuffle by 0": (lambda: pixel_shuffle(X, 0), "r must be a positive integer, but is 0"),
        "shuffle of a line": (lambda: pixel_shuffle(X[0], 2), r"\(4, 3, 3\)"),
        "ICNR of too few": (lambda: icnr_(torch.ones(6, 3), 2), r"of \(6, 3\), not r = 2"),
        "ICNR of a number": (lambda: icnr_(torch.ones(()), 1), r"of \(\), not r = 1"),
    }.values(),
    ids=lambda value: "" if callable(value) else value[:20],
)
def test_refuses_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.wrong_input
@pytest.mark.parametrize("x", [1.0, [1.0, 2.0], numpy.ones((1, 4, 2, 2))], ids=["number", "list", "array"])
def test_refuses_what_is_not_a_tensor(x):
    for call in (
        lambda: resize_linear(x, (2, 2)),
        lambda: conv_transpose2d(x, W),
        lambda: conv_transpose2d(X, x),
        lambda: phase_sums(x, 2),
        lambda: pixel_shuffle(x, 2),
        lambda: icnr_(x, 2),
    ):
        with pytest.raises(ValueError, match=f"to be a tensor, but it is a {type(x).__name__}"):
            call()


@pytest.mark.torchvision
def test_shrinking_with_torchvision_antialiases_unless_told_otherwise():
    from torchvision.transforms import functional

    x = normal(1, 1, 32, 32)
    assert_close(functional.resize(x, [8, 8], antialias=False), resize_linear(x, (8, 8)))
    assert functional.resize(x, [8, 8]).std() < 0.6 * resize_linear(x, (8, 8)).std()
