"""R-FCN against torchvision, loops from the definition, torch's adaptive pooling, and numbers of the paper."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tensors import assert_same_both_ways, normal
from torch import nn
from torch.testing import assert_close

from zhixing.detection.r_fcn import MAX_LOG_RATIO, RFCNHead, decode, encode, ps_pool, rfcn_loss, vote


def regions(count, *, batch=2, size=(200, 150), seed=0, least=1.0, most=80.0):
    """Boxes (N, 5) inside an image of this width and height."""
    generator = torch.Generator().manual_seed(seed)
    limits = torch.tensor(size, dtype=torch.float64)
    sides = least + (most - least) * torch.rand(count, 2, generator=generator, dtype=torch.float64)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * (limits - sides)
    image = torch.randint(batch, (count, 1), generator=generator)
    return torch.cat([image, corner, corner + sides], 1)


@pytest.fixture(scope="module")
def vision():
    from torchvision import ops

    return ops


CASES = {  # k, scale, sides of the regions
    "paper": (7, 1 / 16, (30, 149)),
    "3 × 3": (3, 1 / 8, (1, 100)),
    "one part": (1, 1 / 16, (1, 100)),
    "fewer pixels than parts": (5, 1 / 16, (1, 20)),
    "scale without an exact inverse": (4, 0.3, (1, 100)),
}


def padded(maps):
    """With one more row and column, torchvision reads the last of the map's own."""
    return F.pad(maps, (0, 1, 0, 1))


@pytest.mark.torchvision
@pytest.mark.parametrize(("k", "scale", "sides"), CASES.values(), ids=CASES)
def test_equals_torchvision(k, scale, sides, vision):
    boxes = regions(30, least=sides[0], most=sides[1])
    maps = normal(2, 3 * k**2, math.ceil(150 * scale) + 1, math.ceil(200 * scale) + 1)
    assert_same_both_ways(
        lambda maps: ps_pool(maps, boxes, k=k, scale=scale),
        lambda maps: vision.ps_roi_pool(padded(maps), boxes, k, scale),
        maps,
    )


@pytest.mark.torchvision
def test_halves_are_rounded_away_from_zero_as_in_torchvision(vision):
    """Half a pixel of the map is 8 pixels of the image, so halves are frequent."""
    corners = torch.tensor([-56.0, -40, -24, -8, 8, 24, 40, 56, 72, 88])
    left, right = torch.combinations(corners, 2).T
    boxes = torch.stack([0 * left, left, left, right, right], 1).double()
    maps = normal(1, 4, 7, 7)
    assert_close(ps_pool(maps, boxes, k=2), vision.ps_roi_pool(padded(maps), boxes, 2, 1 / 16))


@pytest.mark.torchvision
def test_regions_over_the_border_equal_torchvision_in_value(vision):
    boxes = regions(40, most=100.0)
    boxes[:, 1:] += 90 * normal(40, 2, seed=3).repeat(1, 2)
    maps = normal(2, 2 * 9, 11, 14)
    assert_close(ps_pool(maps, boxes, k=3), vision.ps_roi_pool(padded(maps), boxes, 3, 1 / 16))


def by_loops(maps, boxes, k, scale):
    """The definition: the mean over the pixels of each bin."""
    _, channels, h, w = maps.shape
    pooled = maps.new_zeros(len(boxes), channels // k**2, k, k)

    def whole(x):  # halves away from 0
        return int(math.copysign(math.floor(abs(x) + 0.5), x))

    for n, (image, *corners) in enumerate(boxes.tolist()):
        x1, y1, x2, y2 = (whole(c * scale) for c in corners)
        width, height = max(x2 - x1, 1), max(y2 - y1, 1)
        for c, i, j in itertools.product(range(channels // k**2), range(k), range(k)):
            values = [
                maps[int(image), (c * k + i) * k + j, row, column]
                for row in range(y1 + i * height // k, y1 + math.ceil((i + 1) * height / k))
                for column in range(x1 + j * width // k, x1 + math.ceil((j + 1) * width / k))
                if 0 <= row < h and 0 <= column < w
            ]
            if values:
                pooled[n, c, i, j] = sum(values) / len(values)
    return pooled


@pytest.mark.parametrize("k", [1, 2, 3])
def test_equals_loops(k):
    boxes = regions(12, size=(120, 100), most=90.0)
    boxes[:4, 1:] += torch.tensor([[-60.0, 0], [0, -60], [70, 0], [0, 70]]).repeat(1, 2)
    maps = normal(2, 2 * k**2, 6, 7)
    assert_same_both_ways(lambda maps: ps_pool(maps, boxes, k=k), lambda maps: by_loops(maps, boxes, k, 1 / 16), maps)


def test_passes_gradcheck_at_the_border():
    boxes = torch.tensor([[0, 0.0, 0, 96, 80], [0, -40, 16, 60, 90], [0, 90, 70, 140, 130]])
    maps = normal(1, 8, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: ps_pool(maps, boxes, k=2), maps)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_equal_maps_give_adaptive_average_pooling(k):
    """The bins are those of `F.adaptive_avg_pool2d`."""
    x = normal(1, 4, 17, 12)
    box = torch.tensor([[0, 2.0, 3, 11, 16]])
    pooled = ps_pool(x.repeat_interleave(k * k, 1), box, k=k, scale=1)
    assert_close(pooled, F.adaptive_avg_pool2d(x[:, :, 3:16, 2:11], k))


def test_maps_and_vote_equal_pooling_and_a_linear_layer():
    """Averaging commutes with a 1 × 1 convolution."""
    boxes = regions(20, most=90.0)
    head = RFCNHead(6, 4, k=3).double()
    nn.init.normal_(head.rfcn_cls.bias)
    features = normal(2, 6, 11, 14)

    def other_way_round(features):
        average = ps_pool(features.repeat_interleave(9, 1), boxes, k=3)
        weight = head.rfcn_cls.weight.view(5, 3, 3, 6) / 9
        return torch.einsum("cijf,nfij->nc", weight, average) + head.rfcn_cls.bias.view(5, 9).mean(1)

    assert_same_both_ways(lambda f: head(f, boxes)[0], other_way_round, features)


@pytest.mark.torchvision
def test_the_theorem_holds_for_roi_align_too(vision):
    """With sampling points instead of pixels, and corners that are not rounded."""
    boxes = regions(20, most=90.0)
    conv = nn.Conv2d(6, 5 * 9, 1).double()
    features = normal(2, 6, 11, 14)
    with torch.no_grad():
        by_maps = vote(vision.ps_roi_align(conv(features), boxes, 3, 1 / 16, 2))
        average = vision.roi_align(features, boxes, 3, 1 / 16, 2, aligned=True)
        by_layer = torch.einsum("cijf,nfij->nc", conv.weight.view(5, 3, 3, 6) / 9, average)
    assert_close(by_maps, by_layer + conv.bias.view(5, 9).mean(1))


def test_a_bin_outside_the_map_loses_the_bias():
    """The vote still divides by all k² bins."""
    box = torch.tensor([[0, -48.0, 0, 48, 96]])
    assert vote(ps_pool(torch.ones(1, 4, 6, 6), box, k=2)).item() == 0.5


def test_last_row_and_column_are_read():
    maps = torch.zeros(1, 1, 6, 6)
    maps[..., -1] = 1
    box = torch.tensor([[0, 0.0, 0, 6, 6]])
    assert_close(ps_pool(maps, box, k=1, scale=1).item(), 1 / 6)


def test_channels_are_class_then_row_then_column():
    """The commonest misuse when weights are ported: classes within parts."""
    maps = torch.arange(2.0 * 9).view(1, 18, 1, 1).expand(1, 18, 12, 12)
    pooled = ps_pool(maps, torch.tensor([[0, 16.0, 16, 160, 160]]), k=3)
    assert_close(pooled[0], torch.arange(18.0).view(2, 3, 3))


@pytest.mark.parametrize("shape", [(2, 18, 6, 7), (0, 18, 6, 7), (1, 9, 1, 1)], ids=["batch", "no image", "one pixel"])
def test_no_region(shape):
    maps = torch.zeros(shape, requires_grad=True)
    pooled = ps_pool(maps, torch.zeros(0, 5), k=3)
    assert pooled.shape == (0, shape[1] // 9, 3, 3)
    assert vote(pooled).shape == (0, shape[1] // 9)
    pooled.sum().backward()
    assert not maps.grad.any()


def test_all_regions_outside():
    maps = torch.ones(1, 9, 4, 4, requires_grad=True)
    pooled = ps_pool(maps, torch.tensor([[0, 200.0, 200, 300, 300], [0, -300, -300, -200, -200]]), k=3)
    pooled.sum().backward()
    assert not pooled.any()
    assert not maps.grad.any()


def test_a_region_of_no_size_reads_one_pixel():
    maps = normal(1, 4, 5, 5)
    pooled = ps_pool(maps, torch.tensor([[0, 32.0, 16, 32, 16], [0, 32, 16, 16, 0]]), k=2)
    assert_close(pooled, maps[:, :, 1, 2].view(1, 1, 2, 2).expand(2, 1, 2, 2))


def test_a_huge_region_reads_the_whole_map():
    """Its corners do not fit into int64."""
    maps = normal(1, 1, 5, 5)
    pooled = ps_pool(maps, torch.tensor([[0, -1e30, -1e30, 1e30, 1e30]]), k=1)
    assert_close(pooled, maps.mean((2, 3), keepdim=True))


def test_nan_stays_in_its_bins():
    maps = torch.ones(1, 4, 4, 4)
    maps[0, 1, 0, 3] = math.nan
    pooled = ps_pool(maps, torch.tensor([[0, 0.0, 0, 4, 4]]), k=2, scale=1)
    assert pooled.isnan().nonzero().tolist() == [[0, 0, 0, 1]]


def test_takes_any_memory_layout_and_changes_nothing():
    boxes = regions(10)
    maps = normal(2, 18, 11, 14)
    expected = ps_pool(maps, boxes, k=3)
    for other in (maps.to(memory_format=torch.channels_last), maps.repeat_interleave(2, 3)[..., ::2]):
        assert not other.is_contiguous()
        assert_close(ps_pool(other, boxes.T.contiguous().T, k=3), expected)
    assert_close(maps, normal(2, 18, 11, 14))
    assert_close(boxes, regions(10))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_rounds_once(dtype):
    boxes, maps = regions(10), normal(2, 18, 11, 14, dtype=dtype)
    pooled = ps_pool(maps, boxes, k=3)
    assert pooled.dtype == dtype
    assert_close(pooled, ps_pool(maps.double(), boxes, k=3).to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_gradients_of_many_regions_add_up_in_float32():
    """In float16 the sum of sixteenths would stop at 128."""
    maps = torch.zeros(1, 1, 4, 4, dtype=torch.float16, requires_grad=True)
    ps_pool(maps, torch.tensor([[0, 0.0, 0, 4, 4]]).expand(3000, 5), k=1, scale=1).sum().backward()
    assert_close(maps.grad, torch.full_like(maps, 187.5))


def test_large_values_keep_their_precision():
    """A table of sums over the whole map would lose the small ones."""
    maps = torch.full((1, 1, 8, 8), 1e-3)
    maps[0, 0, 0, 0] = 1e30
    box = torch.tensor([[0, 4.0, 4, 8, 8]])
    assert_close(ps_pool(maps, box, k=1, scale=1).item(), 1e-3)


def test_head_of_the_paper():
    """R-FCN on VOC: 1029 = 21 · 7² maps for 20 classes, and 196 = 4 · 7² for boxes (the authors' code has 392)."""
    torch.manual_seed(0)
    head = RFCNHead(1024, 20)
    assert {name: tuple(p.shape) for name, p in head.named_parameters()} == {
        "rfcn_cls.weight": (1029, 1024, 1, 1),
        "rfcn_cls.bias": (1029,),
        "rfcn_bbox.weight": (196, 1024, 1, 1),
        "rfcn_bbox.bias": (196,),
    }
    assert_close(head.rfcn_cls.weight.std().item(), 0.01, rtol=0.02, atol=0)
    assert not head.rfcn_bbox.bias.any()


def test_head_pools_with_its_own_options():
    boxes, features = regions(9), normal(2, 6, 40, 52, dtype=torch.float32)
    head = RFCNHead(6, 4, k=2, scale=1 / 4)
    logits, deltas = head(features, boxes)
    assert_close(logits, ps_pool(head.rfcn_cls(features), boxes, k=2, scale=1 / 4).mean((2, 3)))
    assert_close(deltas, ps_pool(head.rfcn_bbox(features), boxes, k=2, scale=1 / 4).mean((2, 3)))


@pytest.mark.torchvision
def test_faster_rcnn_would_share_91_of_101_layers():
    """Convolutions up to conv4, and after them conv5 and the classifier, without the shortcuts."""
    from torchvision.models import resnet101

    with torch.device("meta"):
        net = resnet101()
    layers = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "downsample" not in n]
    behind = [name for name in layers if name.startswith(("layer4", "fc"))]
    assert (len(layers) - len(behind), len(behind)) == (91, 10)


@pytest.mark.torchvision
@pytest.mark.parametrize(
    ("dilated", "size", "regions", "billions"),
    [(False, (14, 14), 300, 243), (True, (38, 63), 1, 36)],
    ids=["regions", "image"],
)
def test_conv5_costs_what_the_article_counts(dilated, size, regions, billions):
    from torchvision.models import resnet101

    products = 0

    def count(convolution, _, output):
        nonlocal products
        products += convolution.weight.numel() * output.shape[2] * output.shape[3]

    with torch.device("meta"):
        conv5 = resnet101(replace_stride_with_dilation=[False, False, dilated]).layer4
        for module in conv5.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(count)
        conv5(torch.empty(1, 1024, *size))
    assert round(regions * products / 1e9) == billions


@pytest.fixture(scope="module")
def coder():
    from torchvision.models.detection._utils import BoxCoder

    return BoxCoder((1.0, 1.0, 1.0, 1.0))


@pytest.mark.torchvision
def test_encode_and_decode_equal_torchvision(coder):
    boxes, targets = regions(20)[:, 1:], regions(20, seed=1)[:, 1:]
    assert_same_both_ways(encode, lambda b, t: coder.encode_single(t, b), boxes, targets)
    deltas = normal(20, 4)
    deltas[0, 2], deltas[1, 3] = 9, 1e4
    assert_same_both_ways(decode, lambda b, d: coder.decode_single(d, b), boxes, deltas)


def test_decode_is_the_inverse_of_encode():
    boxes, targets = regions(20)[:, 1:], regions(20, seed=1)[:, 1:]
    assert_close(decode(boxes, encode(boxes, targets)), targets)
    wide = torch.tensor([[0.0, 0, 4, 4]])
    assert decode(wide, torch.tensor([[0.0, 0, 1e6, 0]])).isfinite().all()
    assert_close(MAX_LOG_RATIO, math.log(62.5))


def test_loss_equals_loops():
    labels = torch.tensor([0, 2, 1, 0, 2])

    def loops(logits, deltas, targets):
        total = 0
        for n, label in enumerate(labels.tolist()):
            total = total + torch.logsumexp(logits[n], 0) - logits[n, label]
            if label > 0:
                for d in (deltas - targets)[n]:
                    total = total + 0.7 * (d**2 / 2 if d.abs() < 1 else d.abs() - 0.5)
        return total / 5

    assert_same_both_ways(
        lambda logits, deltas, targets: rfcn_loss(logits, deltas, labels, targets, weight=0.7),
        loops,
        *(normal(5, 3), 2 * normal(5, 4, seed=1), normal(5, 4, seed=2)),
    )


def test_loss_ignores_boxes_of_the_background_even_nan():
    logits, deltas = normal(3, 2).requires_grad_(), normal(3, 4, seed=1).requires_grad_()
    loss = rfcn_loss(logits, deltas, torch.zeros(3, dtype=torch.long), torch.full((3, 4), math.nan).double())
    loss.backward()
    assert_close(loss, F.cross_entropy(logits, torch.zeros(3, dtype=torch.long)))
    assert not deltas.grad.any()


def test_loss_of_no_region_is_zero():
    empty = torch.zeros(0, dtype=torch.long)
    assert rfcn_loss(torch.zeros(0, 3), torch.zeros(0, 4), empty, torch.zeros(0, 4)).item() == 0


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("maps", "boxes", "options", "message"),
    [
        (torch.ones(1, 8, 4, 4), torch.zeros(1, 5), {"k": 3}, "multiple of 9"),
        (torch.ones(9, 4, 4), torch.zeros(1, 5), {"k": 3}, "maps must be"),
        (torch.ones(1, 9, 4, 4).int(), torch.zeros(1, 5), {"k": 3}, "maps must be"),
        (torch.ones(1, 9, 4, 4), torch.zeros(1, 4), {"k": 3}, "boxes must be"),
        (torch.ones(1, 9, 4, 4), torch.zeros(1, 5).int(), {"k": 3}, "boxes must be"),
        (torch.ones(1, 9, 4, 4), torch.tensor([[1.0, 0, 0, 9, 9]]), {"k": 3}, "batch of 1"),
        (torch.ones(1, 9, 4, 4), torch.tensor([[2.0, 0, 0, 9, 9]]), {"k": 3}, "batch of 1"),
        (torch.ones(1, 9, 4, 4), torch.tensor([[-1.0, 0, 0, 9, 9]]), {"k": 3}, "batch of 1"),
        (torch.ones(2, 9, 4, 4), torch.tensor([[0.5, 0, 0, 9, 9]]), {"k": 3}, "batch of 2"),
        (torch.ones(1, 9, 4, 4), torch.tensor([[0, 0, 0, math.nan, 9]]), {"k": 3}, "finite"),
        (torch.ones(1, 9, 4, 4), torch.zeros(1, 5), {"k": 0}, "k must be"),
        (torch.ones(1, 9, 4, 4), torch.zeros(1, 5), {"k": 1.5}, "k must be"),
        (torch.ones(1, 9, 4, 4), torch.zeros(1, 5), {"k": 3, "scale": 0}, "scale must be"),
        (torch.ones(1, 9, 4, 4), torch.zeros(1, 5), {"k": 3, "scale": math.nan}, "scale must be"),
    ],
    ids=[
        *("channels", "three dimensions", "integers", "no image", "integer boxes", "image 1 of 1", "image 2 of 1"),
        *("image -1", "half an image", "nan", "k zero", "k fraction", "scale zero", "scale nan"),
    ],
)
def test_wrong_input_of_the_pooling(maps, boxes, options, message):
    with pytest.raises(ValueError, match=message):
        ps_pool(maps, boxes, **options)


ONE = torch.tensor([[0.0, 0, 4, 4]])


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vote(torch.ones(2, 3, 3)), "pooled must be"),
        (lambda: vote(torch.ones(1, 2, 3, 3).int()), "pooled must be"),
        (lambda: encode(torch.tensor([[4.0, 0, 0, 4]]), ONE), "x1 < x2"),
        (lambda: encode(ONE, torch.tensor([[0.0, 4, 4, 4]])), "y1 < y2"),
        (lambda: encode(ONE, ONE.repeat(2, 1)), "1 and 2 rows"),
        (lambda: encode(torch.tensor([[0, 0, math.inf, 1]]), ONE), "finite"),
        (lambda: decode(ONE, torch.zeros(1, 8)), "deltas must be"),
        (lambda: decode(ONE.repeat(2, 1), torch.zeros(1, 4)), "2 and 1 rows"),
        (lambda: RFCNHead(0, 3), "channels must be"),
        (lambda: RFCNHead(8, 0), "classes must be"),
        (lambda: RFCNHead(8, 3, k=0), "k must be"),
        (lambda: RFCNHead(8, 3, scale=-1), "scale must be"),
        (lambda: RFCNHead(8, 3)(torch.ones(1, 7, 4, 4), torch.zeros(1, 5)), "features must be"),
    ],
    ids=[
        *("vote dimensions", "vote integers", "x reversed", "no height", "lengths", "infinite", "eight deltas"),
        *("delta lengths", "no channel", "no class", "no part", "negative scale", "features"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("labels", "deltas", "weight", "message"),
    [
        ([0, 3], torch.zeros(2, 4), 1, "from 0 to 2"),
        ([-1, 0], torch.zeros(2, 4), 1, "from 0 to 2"),
        ([0], torch.zeros(2, 4), 1, "2 integers"),
        ([0.0, 1.0], torch.zeros(2, 4), 1, "2 integers"),
        ([0, 1], torch.zeros(2, 8), 1, "deltas must be"),
        ([0, 1], torch.zeros(3, 4), 1, "2 and 3 rows"),
        ([0, 1], torch.zeros(2, 4), 0, "weight must be"),
    ],
    ids=["too large", "negative", "too few", "floats", "eight deltas", "three deltas", "no weight"],
)
def test_wrong_input_of_the_loss(labels, deltas, weight, message):
    with pytest.raises(ValueError, match=message):
        rfcn_loss(torch.zeros(2, 3), deltas, torch.tensor(labels), torch.zeros(2, 4), weight=weight)
