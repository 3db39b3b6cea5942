"""Time each article's main function and its reference: `python benchmarks/articles.py [article …]`.

Forward and backward on this CPU with one thread. The unit is milliseconds of processor time, which other programs
affect the least. The two alternate, so that disturbances affect both. An article adds a function under `@row`, in the
order of articles' names. It returns two calls without arguments that compute the same: ours, and the reference. All
rows together are saved in results/articles.json.
"""

import argparse
import contextlib
import io
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from measure import Row, Table
from torch import Tensor, distributions, nn

from zhixing.activations.gated_linear_units import gated_feed_forward
from zhixing.activations.gelu import gelu
from zhixing.activations.history import selu
from zhixing.activations.swish import swish
from zhixing.attention.efficient_attention import window_attention, window_mask
from zhixing.attention.gated_attention_unit import mixed_chunk_attention
from zhixing.attention.linear_attention import chunked_linear_attention, elu_plus_one
from zhixing.attention.performer import orthogonal_gaussian, performer_attention, positive_features
from zhixing.attention.taylor_attention import taylor_attention
from zhixing.attention.tiled_attention import tiled_attention
from zhixing.attention.transnormer import norm_attention
from zhixing.convolution.channel_spatial_attention import CBAM
from zhixing.convolution.deformable_convolution import deform_conv2d
from zhixing.convolution.dilated_convolution import dilated_conv2d
from zhixing.convolution.efficientnet import EfficientNet
from zhixing.convolution.lightweight_networks import InvertedResidual
from zhixing.convolution.receptive_field import nan_probe
from zhixing.convolution.spatial_pyramid_pooling import spatial_pyramid_pool
from zhixing.convolution.upsampling import conv_transpose2d
from zhixing.detection.anchor_free import center_focal_loss
from zhixing.detection.detr import set_loss
from zhixing.detection.r_fcn import ps_pool
from zhixing.detection.yolo import yolo_v3_loss
from zhixing.engineering.ddp import MinimalDDP
from zhixing.engineering.launch import torchrun
from zhixing.foundations.autograd import Variable
from zhixing.foundations.bias import fold_batch_norm
from zhixing.foundations.elementary import logsumexp, tanh
from zhixing.foundations.smooth_surrogates import smooth_max, soft_argmax
from zhixing.matching.aslfeat import peakiness
from zhixing.matching.image_matching import eight_point, sampson
from zhixing.matching.raft import correlation_pyramid, lookup, pixel_grid
from zhixing.metrics.mean_average_precision import mean_average_precision
from zhixing.metrics.segmentation_metrics import confusion_matrix
from zhixing.optimization.adamw import AdamW
from zhixing.optimization.stochastic_approximation import polyak_average
from zhixing.optimization.uncertainty_weighting import uncertainty_loss
from zhixing.people.face_recognition import TEMPLATE, align
from zhixing.people.gaze_estimation import angular_error
from zhixing.people.large_softmax import sample_classes, sampled_softmax_loss
from zhixing.people.margin_softmax import arcface
from zhixing.people.pose_regression import RealNVP
from zhixing.reinforcement.policy_gradient import gae, ppo_loss
from zhixing.sequence.selective_scan import selective_scan
from zhixing.sequence.state_space import causal_convolution
from zhixing.unsupervised.autoregressive import MADE
from zhixing.unsupervised.deep_infomax import info_nce

RESULT = Path(__file__).parent / "results/articles.json"
TURNS = 21  # after a warm-up

Call = Callable[[], object]


@dataclass(frozen=True)
class Pair:
    """One article's row: its description, the two calls to compare, and the number of processes."""

    what: str
    calls: Callable[[], tuple[Call, Call]]
    ranks: int


PAIRS: dict[str, Pair] = {}


def row(article: str, what: str, *, ranks: int = 1) -> Callable:
    """Register the function that makes the two calls of this article; with several ranks, on each of them."""

    def register(calls: Callable[[], tuple[Call, Call]]) -> Callable[[], tuple[Call, Call]]:
        PAIRS[article] = Pair(what, calls, ranks)
        return calls

    return register


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def both_ways(function: Callable[..., Tensor], *inputs: Tensor) -> Call:
    """Return a call that computes the function and its gradients with respect to all inputs."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    weights = normal(*function(*leaves).shape, seed=1)
    return lambda: torch.autograd.grad(function(*leaves), leaves, weights)


@row("activations/gated_linear_units", "feed-forward, torch's, 256 × 384")
def _() -> tuple[Call, Call]:
    x, gate, up = normal(256, 384), normal(1024, 384, seed=1) / 20, normal(1024, 384, seed=2) / 20
    down = normal(384, 1024, seed=3) / 32

    def reference(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)

    return both_ways(gated_feed_forward, x, gate, up, down), both_ways(reference, x, gate, up, down)


@row("activations/gelu", "gelu, F.gelu of 1e6")
def _() -> tuple[Call, Call]:
    x = normal(1000, 1000)
    return both_ways(gelu, x), both_ways(F.gelu, x)


@row("activations/history", "selu, F.selu of 1e6")
def _() -> tuple[Call, Call]:
    x = normal(1000, 1000)
    return both_ways(selu, x), both_ways(F.selu, x)


@row("activations/swish", "swish, F.silu of 1e6")
def _() -> tuple[Call, Call]:
    x = normal(1000, 1000)
    return both_ways(swish, x), both_ways(F.silu, x)


@row("attention/efficient_attention", "window of 128, torch's with a mask, N = 1024")
def _() -> tuple[Call, Call]:
    qkv, mask = [normal(1, 2, 1024, 64, seed=seed) for seed in range(3)], window_mask(1024, window=128)

    def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return both_ways(lambda *x: window_attention(*x, window=128), *qkv), both_ways(reference, *qkv)


@row("attention/flash_attention", "tiled, torch's, N = 1024")
def _() -> tuple[Call, Call]:
    qkv = [normal(1, 2, 1024, 64, seed=seed) for seed in range(3)]
    return both_ways(tiled_attention, *qkv), both_ways(F.scaled_dot_product_attention, *qkv)


@row("attention/gated_attention_unit", "mixed chunks of 128, all weights, N = 1024")
def _() -> tuple[Call, Call]:
    quadratic = [normal(1, 4, 1024, 64, seed=seed) for seed in range(2)]
    linear = [normal(1, 4, 1024, 64, seed=seed) for seed in range(2, 5)]
    place = torch.arange(1024) // 128
    before, same = place[:, None] > place, (place[:, None] == place) & torch.ones(1024, 1024).tril().bool()

    def all_weights(q: Tensor, k: Tensor, q_linear: Tensor, k_linear: Tensor, v: Tensor) -> Tensor:
        squares = F.relu(q @ k.mT / 128).square().where(same, 0)
        return (squares + (q_linear @ k_linear.mT / 128).where(before, 0)) @ v

    ours = both_ways(lambda *x: mixed_chunk_attention(*x, chunk=128, causal=True), *quadratic, *linear)
    return ours, both_ways(all_weights, *quadratic, *linear)


@row("attention/linear_attention", "in chunks, all weights, N = 1024")
def _() -> tuple[Call, Call]:
    qkv = [normal(1, 2, 1024, 64, seed=seed) for seed in range(3)]

    # Means of the values, as in the article. Sums without a division reach 100 here, and float32 rounds them to 1e-5.
    def in_chunks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return chunked_linear_attention(elu_plus_one(q), elu_plus_one(k), v, normalize=True)[0]

    def all_weights(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = ((F.elu(q) + 1) @ (F.elu(k) + 1).mT).tril()
        return weights / weights.sum(dim=-1, keepdim=True) @ v

    return both_ways(in_chunks, *qkv), both_ways(all_weights, *qkv)


@row("attention/performer", "266 features, N × N weights, N = 1024")
def _() -> tuple[Call, Call]:
    q, k, v = (normal(1, 2, 1024, 64, seed=seed) / 2 for seed in range(3))
    projection = orthogonal_gaussian(266, 64, generator=torch.Generator().manual_seed(0))

    def all_weights(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = (positive_features(x / 64**0.25, projection) for x in (q, k))
        weights = q @ k.mT
        return weights @ v / weights.sum(-1, keepdim=True)

    return both_ways(lambda q, k, v: performer_attention(q, k, v, projection), q, k, v), both_ways(all_weights, q, k, v)


@row("attention/taylor_attention", "sums, all weights, N = 1024")
def _() -> tuple[Call, Call]:
    qkv = [normal(1, 2, 1024, 64, seed=seed) for seed in range(3)]

    def all_weights(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = 1 + F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        return weights / weights.sum(dim=-1, keepdim=True) @ v

    return both_ways(taylor_attention, *qkv), both_ways(all_weights, *qkv)


@row("attention/transnormer", "norm_attention, all scores, N = 1024")
def _() -> tuple[Call, Call]:
    qkv = [normal(1, 8, 1024, 64, seed=seed) for seed in range(3)]

    def all_scores(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sums = ((q @ k.mT).tril() @ v).transpose(1, 2).flatten(2)
        return F.rms_norm(sums, sums.shape[2:], eps=1e-6).unflatten(2, (8, 64)).transpose(1, 2)

    return both_ways(lambda q, k, v: norm_attention(q, k, v, causal=True), *qkv), both_ways(all_scores, *qkv)


@row("convolution/channel_spatial_attention", "CBAM, timm's, 256 channels")
def _() -> tuple[Call, Call]:
    from timm.layers.cbam import CbamModule  # here, since other rows do not need it

    theirs, ours = CbamModule(256).eval(), CBAM(256).eval()
    ours.load_state_dict(theirs.state_dict())
    x = normal(4, 256, 28, 28)
    return both_ways(ours, x), both_ways(theirs, x)


@row("convolution/deformable_convolution", "deform_conv2d, torchvision's, 32 channels")
def _() -> tuple[Call, Call]:
    from torchvision import ops  # here, since other rows do not need it

    x, weight = normal(4, 32, 32, 32) / 64, normal(32, 32, 3, 3, seed=1) / 16  # results of size 1 or less
    offset, mask = normal(4, 18, 32, 32, seed=2), normal(4, 9, 32, 32, seed=3).sigmoid()

    def calls(function: Callable[..., Tensor]) -> Call:
        inputs = x, offset, weight, mask
        return both_ways(lambda x, offset, weight, mask: function(x, offset, weight, padding=1, mask=mask), *inputs)

    return calls(deform_conv2d), calls(ops.deform_conv2d)


@row("convolution/dilated_convolution", "by phases, F.conv2d, 64 × 64, rate 4")
def _() -> tuple[Call, Call]:
    # Small, since the gradient of a weight is a sum over all pixels, and rounded in another order.
    x, weight = normal(4, 32, 64, 64) / 1000, normal(32, 32, 3, 3, seed=1)

    def phases(x: Tensor, weight: Tensor) -> Tensor:
        return dilated_conv2d(x, weight, dilation=4)

    def reference(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, padding=4, dilation=4)

    return both_ways(phases, x, weight), both_ways(reference, x, weight)


@row("convolution/efficientnet", "B0, torchvision's, 4 × 96 × 96")
def _() -> tuple[Call, Call]:
    from torchvision import models  # here, since other rows do not need it

    torch.manual_seed(0)
    theirs = models.efficientnet_b0(num_classes=10).eval()  # without random masks
    ours = EfficientNet(num_classes=10).eval()
    ours.load_state_dict(theirs.state_dict())
    return both_ways(ours, normal(4, 3, 96, 96)), both_ways(theirs, normal(4, 3, 96, 96))


@row("convolution/lightweight_networks", "InvertedResidual, torchvision's, 32 channels")
def _() -> tuple[Call, Call]:
    from torchvision.models.mobilenetv2 import InvertedResidual as Theirs

    torch.manual_seed(0)
    x, ours, theirs = normal(4, 32, 28, 28), InvertedResidual(32, 32), Theirs(32, 32, 1, 6)
    theirs.load_state_dict(ours.state_dict())

    def calls(net: nn.Module) -> Call:
        names, values = zip(*net.named_parameters(), strict=True)

        def function(x: Tensor, *values: Tensor) -> Tensor:
            return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (x,))

        return both_ways(function, x, *values)

    return calls(ours), calls(theirs)


@row("convolution/receptive_field", "nan_probe, gradient, width 256")
def _() -> tuple[Call, Call]:
    net, channels = nn.Sequential(), 3
    for _ in range(4):
        net.extend([nn.Conv2d(channels, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.AvgPool2d(2)])
        channels = 16
    for parameter in net.eval().parameters():
        nn.init.constant_(parameter, 0.01)  # positive, so that no gradient cancels

    def reference() -> list[Tensor]:
        image = torch.ones(1, 3, 16, 256, requires_grad=True)
        net(image)[..., 8].sum().backward()
        return [image.grad.sum((0, 1, 2)).nonzero()[[0, -1], 0]]

    return lambda: [torch.tensor(nan_probe(net, (3, 16, 256)))], reference


@row("convolution/spatial_pyramid_pooling", "50 bins by slices, adaptive_max_pool2d")
def _() -> tuple[Call, Call]:
    x, levels = normal(4, 256, 13, 13), (6, 3, 2, 1)

    def theirs(x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(x, n).flatten(1) for n in levels], 1)

    return both_ways(lambda x: spatial_pyramid_pool(x, levels=levels), x), both_ways(theirs, x)


@row("convolution/upsampling", "conv_transpose2d, torch's, 32 channels")
def _() -> tuple[Call, Call]:
    x, weight = normal(4, 32, 32, 32) / 64, normal(32, 32, 4, 4, seed=1) / 16  # results of size 1 or less

    def calls(function: Callable[..., Tensor]) -> Call:
        return both_ways(lambda x, weight: function(x, weight, stride=2, padding=1), x, weight)

    return calls(conv_transpose2d), calls(F.conv_transpose2d)


@row("detection/anchor_free", "center_focal_loss, torchvision's focal loss, 80 × 128 × 128")
def _() -> tuple[Call, Call]:
    from torchvision.ops import sigmoid_focal_loss  # here, since other rows do not need it

    target = (normal(80, 128, 128, seed=1) > 4).float()  # centres only, where the two losses agree

    def reference(logits: Tensor) -> Tensor:
        return sigmoid_focal_loss(logits, target, alpha=-1, gamma=2, reduction="sum") / target.sum()

    logits = normal(80, 128, 128)
    return both_ways(lambda logits: center_focal_loss(logits, target), logits), both_ways(reference, logits)


@row("detection/detr", "set_loss, transformers', 8 images, 100 queries, 7 objects each")
def _() -> tuple[Call, Call]:
    from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

    logits, boxes = normal(8, 100, 92), normal(8, 100, 4, seed=1).sigmoid()
    objects = normal(8, 7, 4, seed=2).sigmoid()
    targets = [{"labels": torch.arange(7), "boxes": found, "class_labels": torch.arange(7)} for found in objects]
    criterion = ImageLoss(HungarianMatcher(1, 5, 2), 91, 0.1, ["labels", "boxes"])

    def ours(logits: Tensor, boxes: Tensor) -> Tensor:
        return set_loss(logits, boxes, targets)["total"]

    def reference(logits: Tensor, boxes: Tensor) -> Tensor:
        losses = criterion({"logits": logits, "pred_boxes": boxes}, targets)
        return losses["loss_ce"] + 5 * losses["loss_bbox"] + 2 * losses["loss_giou"]

    return both_ways(ours, logits, boxes), both_ways(reference, logits, boxes)


@row("detection/r_fcn", "ps_pool, torchvision's, 1029 maps, 300 regions")
def _() -> tuple[Call, Call]:
    from torchvision import ops  # here, since other rows do not need it

    maps = normal(1, 1029, 38, 63) / 64  # gradients of size 1 or less
    # Regions of 32 to 256 pixels inside the image, away from the last row and column of the map.
    generator = torch.Generator().manual_seed(0)
    sides = 32 + 224 * torch.rand(300, 2, generator=generator)
    corner = torch.rand(300, 2, generator=generator) * (torch.tensor([960, 560]) - sides)
    boxes = torch.cat([torch.zeros(300, 1), corner, corner + sides], 1)
    return both_ways(lambda x: ps_pool(x, boxes), maps), both_ways(lambda x: ops.ps_roi_pool(x, boxes, 7, 1 / 16), maps)


@row("detection/yolo", "v3 loss of 26 × 26 cells, F.binary_cross_entropy_with_logits of gathered rows")
def _() -> tuple[Call, Call]:
    from torchvision.ops import box_iou

    anchors, stride = torch.tensor([[30.0, 61.0], [62.0, 45.0], [59.0, 119.0]]), 16
    generator = torch.Generator().manual_seed(0)
    center = 30 + 356 * torch.rand(8, 10, 2, generator=generator)
    half = 10 + 20 * torch.rand(8, 10, 2, generator=generator)
    labels = torch.randint(80, (8, 10), generator=generator)
    boxes = torch.cat([center - half, center + half], 2)
    targets = [{"boxes": b, "labels": k} for b, k in zip(boxes, labels, strict=True)]

    def reference(raw: Tensor) -> Tensor:
        t = raw.unflatten(1, (3, 85)).permute(0, 1, 3, 4, 2)  # (B, A, H, W, 85)
        with torch.no_grad():
            column, row = torch.arange(26).view(1, 26), torch.arange(26).view(26, 1)
            x, y = (t[..., 0].sigmoid() + column) * stride, (t[..., 1].sigmoid() + row) * stride
            w, h = t[..., 2].exp() * anchors[:, 0].view(3, 1, 1), t[..., 3].exp() * anchors[:, 1].view(3, 1, 1)
            found = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
            counts = torch.stack([box_iou(f.reshape(-1, 4), b).amax(1) for f, b in zip(found, boxes, strict=True)])
            counts = (counts <= 0.7).view(t.shape[:4])
            sizes = boxes[..., 2:] - boxes[..., :2]
            corner = torch.zeros(80, 2)
            shapes = torch.cat([corner, sizes.view(80, 2)], 1), torch.cat([corner[:3], anchors], 1)
            best = box_iou(*shapes).argmax(1)
            image = torch.arange(8).repeat_interleave(10)
            place = ((boxes[..., :2] + boxes[..., 2:]) / (2 * stride)).view(80, 2)
            i, j = place.long().unbind(1)
            wanted = torch.cat([place - place.floor(), (sizes.view(80, 2) / anchors[best]).log()], 1)
            scale = (2 - sizes.prod(2).view(80, 1) / 416**2).expand(80, 2)
            one_hot, objectness = F.one_hot(labels.view(80), 80).float(), torch.zeros(t.shape[:4])
            objectness[image, best, j, i], counts[image, best, j, i] = 1, True
        rows = t[image, best, j, i]
        cross_entropy = F.binary_cross_entropy_with_logits
        loss = cross_entropy(rows[:, :2], wanted[:, :2], weight=scale, reduction="sum")
        loss = loss + (scale * (rows[:, 2:4] - wanted[:, 2:]).square()).sum() / 2
        loss = loss + cross_entropy(rows[:, 5:], one_hot, reduction="sum")
        return loss + cross_entropy(t[..., 4], objectness, weight=counts.float(), reduction="sum")

    def ours(raw: Tensor) -> Tensor:
        return yolo_v3_loss(raw, targets, anchors, stride=stride)

    raw = normal(8, 255, 26, 26) / 2
    return both_ways(ours, raw), both_ways(reference, raw)


@row("engineering/ddp", "MinimalDDP, torch's, 2 processes", ranks=2)
def _() -> tuple[Call, Call]:
    def training(wrap: Callable[[nn.Module], nn.Module]) -> Call:
        torch.manual_seed(0)
        model = wrap(nn.Sequential(*(nn.Linear(512, 512) for _ in range(4))))
        inputs = normal(64, 512, seed=dist.get_rank())

        def step() -> list[Tensor]:
            model.zero_grad()
            model(inputs).square().mean().backward()
            return [parameter.grad.clone() for parameter in model.parameters()]

        return step

    return training(MinimalDDP), training(nn.parallel.DistributedDataParallel)


@row("foundations/autograd", "two layers, torch's")
def _() -> tuple[Call, Call]:
    images, labels, rows = normal(128, 64), torch.arange(128) % 10, torch.arange(128)
    weights = [normal(64, 32, seed=1) / 8, normal(32, 10, seed=2) / 6]

    def ours() -> list[Tensor]:
        w1, w2 = (Variable(weight, requires_grad=True) for weight in weights)
        logits = tanh(Variable(images) @ w1) @ w2
        (logsumexp(logits, -1) - logits[rows, labels]).mean().backward()
        return [w1.grad.value, w2.grad.value]

    def reference() -> list[Tensor]:
        w1, w2 = (weight.clone().requires_grad_() for weight in weights)
        F.cross_entropy(torch.tanh(images @ w1) @ w2, labels).backward()
        return [w1.grad, w2.grad]

    return ours, reference


@row("foundations/bias", "fold_batch_norm, torch's, 256 channels (no backward)")
def _() -> tuple[Call, Call]:
    conv, norm = nn.Conv2d(256, 256, 3, bias=False).eval(), nn.BatchNorm2d(256).eval()

    def parameters(fold: Callable[..., nn.Module]) -> Call:
        return lambda: list(fold(conv, norm).parameters())

    return parameters(fold_batch_norm), parameters(nn.utils.fuse_conv_bn_eval)


@row("foundations/smooth_surrogates", "soft argmax of 64 maps of 64 × 64, kornia's")
def _() -> tuple[Call, Call]:
    from kornia.geometry.subpix import spatial_soft_argmax2d

    maps = normal(8, 8, 64, 64)

    def ours(x: Tensor) -> Tensor:
        return torch.stack([soft_argmax(smooth_max(x, dim), 2) for dim in (2, 3)], 2)

    return both_ways(ours, maps), both_ways(lambda x: spatial_soft_argmax2d(x, normalized_coordinates=False), maps)


@row("matching/aslfeat", "peakiness, with torch's avg_pool2d, 32 × 128 × 128")
def _() -> tuple[Call, Call]:
    features = normal(2, 32, 128, 128) / 64

    def reference(y: Tensor) -> Tensor:
        near = F.avg_pool2d(F.pad(y, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
        return (F.softplus(y - near) * F.softplus(y - y.mean(1, keepdim=True))).amax(1, keepdim=True)

    return both_ways(peakiness, features), both_ways(reference, features)


@row("matching/image_matching", "eight points and Sampson distance, kornia's, 200 samples")
def _() -> tuple[Call, Call]:
    from kornia.geometry.epipolar import find_fundamental, sampson_epipolar_distance

    world = normal(200, 100, 3).double() + torch.tensor([0.0, 0.0, 6.0])
    x, y = (v[..., :2] / v[..., 2:] for v in (world, world + torch.tensor([1.0, 0.5, 0.2])))
    y = y + 0.01 * normal(200, 100, 2, seed=1).double()

    def ours(x: Tensor, y: Tensor) -> Tensor:
        return sampson(eight_point(x, y), x, y) ** 2

    def reference(x: Tensor, y: Tensor) -> Tensor:
        return sampson_epipolar_distance(x, y, find_fundamental(x, y))

    return both_ways(ours, x, y), both_ways(reference, x, y)


@row("matching/raft", "pyramid and lookup, torchvision's CorrBlock, 32 × 40 cells")
def _() -> tuple[Call, Call]:
    from torchvision.models.optical_flow.raft import CorrBlock  # here, since other rows do not need it

    f, g = normal(1, 64, 32, 40) / 64, normal(1, 64, 32, 40, seed=1) / 64  # results of size 1 or less
    coords = pixel_grid(1, 32, 40) + 0.375

    def ours(f: Tensor, g: Tensor) -> Tensor:
        return lookup(correlation_pyramid(f, g), coords)

    def theirs(f: Tensor, g: Tensor) -> Tensor:
        block = CorrBlock()
        block.build_pyramid(f, g)
        return block.index_pyramid(coords)

    return both_ways(ours, f, g), both_ways(theirs, f, g)


@row("metrics/mean_average_precision", "COCO's rule, pycocotools', 60 images (no backward)")
def _() -> tuple[Call, Call]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    random = torch.Generator().manual_seed(0)
    predictions, targets, found, wanted = [], [], [], []
    for image in range(60):
        corner = torch.randint(400, (8, 2), generator=random)
        boxes = torch.cat([corner, corner + torch.randint(20, 200, (8, 2), generator=random)], 1).double()
        near = boxes.repeat(5, 1) + torch.randint(-9, 10, (40, 4), generator=random)
        labels, scores = torch.arange(8) // 2, torch.rand(40, generator=random)
        targets.append({"boxes": boxes, "labels": labels})
        predictions.append({"boxes": near, "labels": labels.repeat(5), "scores": scores})
        for rows, entry in ((wanted, targets[-1]), (found, predictions[-1])):
            for box, label in zip(entry["boxes"].tolist(), entry["labels"].tolist(), strict=True):
                xywh = [*box[:2], box[2] - box[0], box[3] - box[1]]
                row = {"id": len(rows) + 1, "image_id": image, "category_id": label, "bbox": xywh, "iscrowd": 0}
                rows.append(row | {"area": xywh[2] * xywh[3]})
        for row, score in zip(found[-40:], scores.tolist(), strict=True):
            row["score"] = score

    def index(rows: list[dict]) -> COCO:
        coco = COCO()
        coco.dataset = {"annotations": rows, "images": [{"id": image} for image in range(60)]}
        coco.dataset["categories"] = [{"id": label} for label in range(4)]
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return coco

    truth, detections = index(wanted), index(found)

    def theirs() -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            run = COCOeval(truth, detections, "bbox")
            run.params.maxDets, run.params.areaRng = [100], [[0, 1e10]]
            run.evaluate()
            run.accumulate()
        return [run.eval["precision"].mean().item()]

    return lambda: [mean_average_precision(predictions, targets)], theirs


@row("metrics/segmentation_metrics", "confusion_matrix, torchmetrics', 2^20")
def _() -> tuple[Call, Call]:
    # Forward only: counting has no gradient.
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    prediction, target = (normal(4, 512, 512, seed=seed).abs().mul(6).long().clamp(max=20) for seed in range(2))
    target[:, :64] = 255

    def ours() -> Tensor:
        return confusion_matrix(prediction, target, 21)

    def reference() -> Tensor:
        return multiclass_confusion_matrix(prediction, target, 21, ignore_index=255)

    return ours, reference


@row("optimization/adamw", "a step of 20 matrices, torch's")
def _() -> tuple[Call, Call]:
    def stepping(optimizer_class: type[torch.optim.Optimizer]) -> Call:
        matrices = [normal(256, 256, seed=seed).requires_grad_() for seed in range(20)]
        optimizer = optimizer_class(matrices, lr=1e-3, weight_decay=0.1)
        for matrix in matrices:
            matrix.grad = matrix.detach().sin()

        def step() -> list[Tensor]:
            optimizer.step()
            return [matrix.detach() for matrix in matrices]

        return step

    return stepping(AdamW), stepping(torch.optim.AdamW)


@row("optimization/stochastic_approximation", "running means of 1,000 iterates, torch's cumsum, 1,000 × 1,000")
def _() -> tuple[Call, Call]:
    xs = normal(1000, 1000)
    count = torch.arange(1.0, 1001.0)[:, None]
    return both_ways(polyak_average, xs), both_ways(lambda xs: xs.cumsum(0) / count, xs)


@row("optimization/uncertainty_weighting", "three tasks, torch's Normal, 2^18 outputs each")
def _() -> tuple[Call, Call]:
    prediction, y, log_variances = normal(3, 2**18), normal(3, 2**18, seed=1), normal(3, seed=2)

    def ours(prediction: Tensor, log_variances: Tensor) -> Tensor:
        return uncertainty_loss((prediction - y).square().mean(1), log_variances)

    def reference(prediction: Tensor, log_variances: Tensor) -> Tensor:
        likelihood = torch.distributions.Normal(prediction, (log_variances / 2).exp()[:, None])
        return -likelihood.log_prob(y).mean(1).sum() - 1.5 * math.log(2 * math.pi)

    return both_ways(ours, prediction, log_variances), both_ways(reference, prediction, log_variances)


@row("people/face_recognition", "align, an SVD and kornia's warp, 32 images")
def _() -> tuple[Call, Call]:
    from kornia.geometry.transform import warp_affine  # here, since other rows do not need it

    template = torch.tensor(TEMPLATE)
    # Smooth and small, since the places are rounded in another order, and the gradients are sums over many pixels.
    images = F.interpolate(normal(32, 3, 9, 9), (240, 240), mode="bicubic") / 100
    landmarks = 2 * template + normal(32, 5, 2, seed=1)

    def ours(images: Tensor, landmarks: Tensor) -> Tensor:
        return align(images, landmarks) / 100

    def reference(images: Tensor, landmarks: Tensor) -> Tensor:
        x_mean = landmarks.mean(1, keepdim=True)
        x, y = landmarks - x_mean, template - template.mean(0)
        u, d, vh = torch.linalg.svd(y.mT @ x)
        scale = d.sum(1) / x.square().sum((1, 2))  # for faces that are no mirror images
        linear = scale[:, None, None] * (u @ vh)
        shift = template.mean(0)[:, None] - linear @ x_mean.mT
        return warp_affine(images, torch.cat([linear, shift], 2), (112, 112)) / 100

    return both_ways(ours, images, landmarks), both_ways(reference, images, landmarks)


@row("people/gaze_estimation", "angular_error, acos of cosine_similarity, 2^18 vectors")
def _() -> tuple[Call, Call]:
    a, b = normal(2**18, 3).double(), normal(2**18, 3, seed=1).double()  # acos needs them

    def reference(a: Tensor, b: Tensor) -> Tensor:
        return torch.acos(F.cosine_similarity(a, b, dim=-1))

    return both_ways(angular_error, a, b), both_ways(reference, a, b)


@row("people/large_softmax", "sampled softmax, torch's on the same tenth of 20,000 classes")
def _() -> tuple[Call, Call]:
    features, weight = normal(64, 128), normal(20_000, 128, seed=1) / 128**0.5
    labels = torch.arange(0, 19_200, 300)
    index, positions, log_q = sample_classes(labels, 20_000, rate=0.1, generator=torch.Generator().manual_seed(0))

    def ours(features: Tensor, weight: Tensor) -> Tensor:
        return sampled_softmax_loss(features, weight, labels, samples=index, log_count=log_q)

    def reference(features: Tensor, weight: Tensor) -> Tensor:
        return F.cross_entropy(features @ weight[index].T - log_q, positions)

    return both_ways(ours, features, weight), both_ways(reference, features, weight)


@row("people/margin_softmax", "ArcFace, pytorch-metric-learning's, 256 of 5,000 classes, 128 numbers")
def _() -> tuple[Call, Call]:
    from pytorch_metric_learning.losses import ArcFaceLoss

    features, weight, labels = normal(256, 128), normal(5000, 128, seed=1), torch.arange(256) * 19
    module = ArcFaceLoss(num_classes=5000, embedding_size=128, margin=math.degrees(0.5))
    module.W.data = weight.mT.contiguous()
    leaf, factor = features.clone().requires_grad_(), normal(seed=1)

    def ours(features: Tensor, weight: Tensor) -> Tensor:
        return F.cross_entropy(arcface(features, weight, labels), labels)

    def reference() -> tuple[Tensor, Tensor]:
        by_features, by_weight = torch.autograd.grad(module(leaf, labels), (leaf, module.W), factor)
        return by_features, by_weight.mT

    return both_ways(ours, features, weight), reference


@row("people/pose_regression", "the flow's log_prob, torch.distributions', 4,096 points")
def _() -> tuple[Call, Call]:
    flow, x = RealNVP(), normal(4096, 2)
    eye, zeros = torch.eye(2), torch.zeros(2)

    class Coupling(distributions.Transform):
        bijective, domain, codomain = True, *[distributions.constraints.real_vector] * 2

        def __init__(self, mask: Tensor, s: nn.Module, t: nn.Module) -> None:
            super().__init__()
            self.mask, self.s, self.t = mask, s, t

        def _inverse(self, x: Tensor) -> Tensor:
            a = self.mask * x
            self.log_scale = (1 - self.mask) * self.s(a)
            return a + (1 - self.mask) * (x - self.t(a)) * torch.exp(-self.log_scale)

        def log_abs_det_jacobian(self, z: Tensor, x: Tensor) -> Tensor:
            return self.log_scale.sum(-1)

    parts = [Coupling(*part) for part in zip(flow.mask, flow.s, flow.t, strict=True)]
    theirs = distributions.TransformedDistribution(distributions.MultivariateNormal(zeros, eye), parts)
    x.requires_grad_()

    def call(density: Callable[[Tensor], Tensor]) -> Call:
        return lambda: torch.autograd.grad(density(x).sum(), [x, *flow.parameters()])

    return call(flow.log_prob), call(theirs.log_prob)


@row("reinforcement/policy_gradient", "gae and ppo_loss, stable-baselines3's, 64 environments, 256 steps")
def _() -> tuple[Call, Call]:
    import gymnasium
    from stable_baselines3.common.buffers import RolloutBuffer

    b, t = 64, 256
    r, v = normal(b, t), normal(b, t, seed=1)
    v_next = torch.cat([v[:, 1:], normal(b, 1, seed=2)], 1)
    terminated = normal(b, t, seed=3) > 2
    none = torch.zeros_like(terminated)
    logp, logp_old = 0.2 * normal(b, t, seed=4), 0.2 * normal(b, t, seed=5)

    spaces = gymnasium.spaces.Box(-1, 1, (1,)), gymnasium.spaces.Discrete(2)
    buffer = RolloutBuffer(t, *spaces, gamma=0.99, gae_lambda=0.95, n_envs=b)
    buffer.rewards[:], buffer.values[:] = r.T.numpy(), v.T.numpy()
    buffer.episode_starts[1:] = terminated.T[:-1].numpy()

    def ours(logp: Tensor) -> Tensor:
        return ppo_loss(logp, logp_old, gae(r, v, v_next, terminated, none))

    def reference(logp: Tensor) -> Tensor:
        buffer.compute_returns_and_advantage(v_next[:, -1], terminated[:, -1].numpy())
        advantages = torch.from_numpy(buffer.advantages).T
        ratio = torch.exp(logp - logp_old)
        return -torch.min(advantages * ratio, advantages * torch.clamp(ratio, 0.8, 1.2)).mean()

    return both_ways(ours, logp), both_ways(reference, logp)


@row("sequence/selective_scan", "scan, mambapy's, 1024 × 64, 16 states")
def _() -> tuple[Call, Call]:
    from mambapy.mamba import MambaBlock

    u, dt = normal(1, 1024, 64), F.softplus(normal(1, 1024, 64, seed=1) - 3)
    a, d = -torch.arange(1.0, 17).repeat(64, 1), normal(64, seed=2)
    b, c = normal(1, 1024, 16, seed=3) / 4, normal(1, 1024, 16, seed=4) / 4

    def ours(u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return selective_scan(u, dt, a, b, c, d=d)[0]

    def reference(*tensors: Tensor) -> Tensor:
        return MambaBlock.selective_scan(None, *tensors)

    return both_ways(ours, u, dt, a, b, c, d), both_ways(reference, u, dt, a, b, c, d)


@row("sequence/state_space", "causal convolution by FFT, F.conv1d, L = 1024")
def _() -> tuple[Call, Call]:
    u, kernel = normal(2, 1024, 16) / 16, normal(1024, 16, seed=1) / 16

    def reference(u: Tensor, kernel: Tensor) -> Tensor:
        return F.conv1d(F.pad(u.mT, (1023, 0)), kernel.flip(0).mT[:, None], groups=16).mT

    return both_ways(causal_convolution, u, kernel), both_ways(reference, u, kernel)


@row("unsupervised/autoregressive", "MADE, zuko's masked MLP, 784 pixels, 500 hidden units, 100 vectors")
def _() -> tuple[Call, Call]:
    from zuko.nn import MaskedMLP  # here, since other rows do not need it

    theirs = MaskedMLP(torch.ones(784, 784, dtype=torch.bool).tril(-1), [500])
    made, x = MADE(784, [500]), (normal(100, 784) > 0).float()
    masks = made.masks(torch.arange(784))
    with torch.no_grad():  # the same network: zuko gives hidden units the degrees in another order
        for layer, linear, mask in zip((theirs[0], theirs[2]), made.layers, masks, strict=True):
            layer.load_state_dict({**linear.state_dict(), "mask": mask})

    def both(network: nn.Module) -> Call:
        weights = normal(100, 784, seed=1)
        return lambda: torch.autograd.grad(network(x), list(network.parameters()), weights)

    return both(made), both(theirs)


@row("unsupervised/deep_infomax", "InfoNCE of 1,024 pairs, F.cross_entropy")
def _() -> tuple[Call, Call]:
    scores, partner = normal(1024, 1024), torch.arange(1024)
    return both_ways(info_nce, scores), both_ways(
        lambda scores: math.log(len(scores)) - F.cross_entropy(scores, partner), scores
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("articles", nargs="*", metavar="article", help="default: all, which are saved")
    parser.add_argument("--rank-of", help="used internally, by the processes of a row with several ranks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.rank_of:
        on_rank(options.rank_of)
        return
    if unknown := set(options.articles) - set(PAIRS):
        parser.error(f"no row for {', '.join(sorted(unknown))}; choose from {', '.join(PAIRS)}")
    table = Table()
    table.title("Forward and backward, in milliseconds of processor time; the result is our time divided by the other.")
    for article in options.articles or PAIRS:
        table.add(measure_row(article))
    if not options.articles:
        table.save(RESULT, threads=1, turns=TURNS)


def measure_row(article: str) -> Row:
    pair = PAIRS[article]
    if pair.ranks == 1:
        ours, other = in_turns(*pair.calls())
    else:
        output = torchrun(__file__, "--rank-of", article, ranks=pair.ranks, seconds=240)
        ours, other = json.loads(output.splitlines()[-1])
    ratio = statistics.median(ours) / statistics.median(other)
    return Row(f"{article.partition('/')[2]}: {pair.what}", ours, other, "ms", f"{ratio:.2f} ×")


def on_rank(article: str) -> None:
    """Time the calls on this rank; rank 0 prints its times."""
    dist.init_process_group("gloo")
    times = in_turns(*PAIRS[article].calls())
    if dist.get_rank() == 0:
        print(json.dumps(times))
    dist.destroy_process_group()


def in_turns(*calls: Call) -> list[list[float]]:
    """Run the calls alternately; return the milliseconds of each turn, for each call."""
    times = [[] for _ in calls]
    for turn in range(TURNS + 1):
        for call, taken in zip(calls, times, strict=True):
            started = time.process_time()
            call()
            if turn:
                taken.append(1000 * (time.process_time() - started))
    return times


if __name__ == "__main__":
    main()
