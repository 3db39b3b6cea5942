# %% quick_start
import torch
from skimage import data

from zhixing.matching.aslfeat import detect, peakiness, refine

torch.manual_seed(0)
layer = torch.nn.Conv2d(1, 16, 5, padding=2)  # stands for a trained network
image = torch.tensor(data.camera() / 255).float()
with torch.no_grad():
    features = layer(image[None, None]).relu()
score = peakiness(features / features.amax())[0, 0]
points = detect(score, threshold=0.0)[:200]  # whole pixels (x, y), best first
points = refine(score, points)
print(tuple(score.shape), tuple(points.shape))

# %% setup
import math

import matplotlib.pyplot as plt
import torch.nn.functional as F

from zhixing.convolution.deformable_convolution import deform_conv2d, sample_bilinear
from zhixing.matching.aslfeat import combine_levels, similarity_offsets

torch.set_num_threads(1)


def photograph(name):
    """Grey values (1, 1, H, W) of an image of scikit-image, mean 0 and variance 1."""
    x = torch.tensor(getattr(data, name)()).float()
    x = x.mean(dim=2) if x.ndim == 3 else x
    return ((x - x.mean()) / x.std())[None, None]


def move(points, size, angle, scale):
    """Turn points (x, y) about the centre of an image, from x to y, and enlarge."""
    centre = (torch.tensor([size[1], size[0]]) - 1) / 2
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, -sin], [sin, cos]])
    return centre + scale * (points - centre) @ turn.T


def warp(x, angle, scale):
    """The image whose content is moved in this way; the border is reflected."""
    h, w = x.shape[2:]
    pixels = torch.cartesian_prod(torch.arange(float(w)), torch.arange(float(h)))
    source = move(pixels, (h, w), -angle, 1 / scale).view(w, h, 2).transpose(0, 1)
    grid = 2 * source / torch.tensor([w - 1.0, h - 1.0]) - 1
    return F.grid_sample(x, grid[None], "bicubic", "reflection", align_corners=True)


def blur(x, width):
    line = torch.arange(-4.0 * width, 4 * width + 1)
    line = torch.exp(-(line**2) / (2 * width**2))
    line, r = line / line.sum(), len(line) // 2
    x = F.pad(x, (r, r, r, r), mode="reflect")
    return F.conv2d(F.conv2d(x, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))


# %% levels
def features(x):
    """Positive and negative parts of gradient and Laplacian; the largest value is 1."""
    x = F.pad(blur(x, 1), (1, 1, 1, 1), mode="reflect")
    left, right, middle = x[..., 1:-1, :-2], x[..., 1:-1, 2:], x[..., 1:-1, 1:-1]
    above, below = x[..., :-2, 1:-1], x[..., 2:, 1:-1]
    dx, dy = (right - left) / 2, (below - above) / 2
    bump = left + right + above + below - 4 * middle
    y = torch.cat([dx, -dx, dy, -dy, bump, -bump], dim=1).relu()
    return y / y.amax()


STRIDES, DILATIONS = (1, 2, 4), (3, 2, 1)


def score_levels(x, score=peakiness):
    """Three levels; cell i of a level is pixel stride · i."""
    small = [x, blur(x, 1)[..., ::2, ::2], blur(x, 2)[..., ::4, ::4]]
    return [
        score(features(s), dilation=d) for s, d in zip(small, DILATIONS, strict=True)
    ]


# %% picture tags=["hidden"]
ANGLE, SCALE = 0.5, 1.15
camera = photograph("camera")
SIZE = tuple(camera.shape[2:])
turned = warp(camera, ANGLE, SCALE)


def summed(x):
    return combine_levels(score_levels(x), SIZE)[0, 0]


def best(score, n=250, border=16):
    return refine(score, detect(score, threshold=0, border=border)[:n])


maps = [
    combine_levels([s], SIZE, strides=(stride,), weights=(1,))[0, 0]
    for s, stride in zip(score_levels(camera), STRIDES, strict=True)
]
total = summed(camera)
here, there = best(total), best(summed(turned))
expected = move(here, SIZE, ANGLE, SCALE)
X, Y, WIDE = 205, 85, 90  # a window of the photograph
figure, panels = plt.subplots(2, 3, figsize=(7, 5.2))
for axes, image, title in zip(
    panels.flat,
    [*maps, total, camera[0, 0], turned[0, 0]],
    ["stride 1", "stride 2", "stride 4", "weighted sum", "keypoints", "after the warp"],
    strict=True,
):
    axes.imshow(image, cmap="gray")
    axes.set(xlim=(X, X + WIDE), ylim=(Y + WIDE, Y), xticks=[], yticks=[])
    axes.set_title(title, fontsize="medium")
panels[1, 1].plot(*here.T, ".", color="C1", markersize=5)
window = move(torch.tensor([[X + WIDE / 2, Y + WIDE / 2]]), SIZE, ANGLE, SCALE)[0]
panels[1, 2].set(
    xlim=(window[0] - WIDE / 2, window[0] + WIDE / 2),
    ylim=(window[1] + WIDE / 2, window[1] - WIDE / 2),
)
panels[1, 2].plot(*expected.T, "o", color="C1", markersize=7, fillstyle="none")
panels[1, 2].plot(*there.T, ".", color="C0", markersize=4)


# %% repeat
def compare(a, b, size, angle, scale, border=16):
    """Repeatability within 3 pixels, and the median error of the repeated points."""
    a = move(a, size, angle, scale)
    limit = torch.tensor([size[1], size[0]]) - 1 - border
    a = a[((a >= border) & (a <= limit)).all(dim=1)]  # seen in both images
    distance = torch.cdist(a, b)
    nearest, partner = distance.min(dim=1)
    mutual = distance.argmin(dim=0)[partner] == torch.arange(len(a))
    repeated = mutual & (nearest <= 3)
    return repeated.float().mean().item(), nearest[repeated].median().item()


def d2_score(y, *, dilation=1):
    """D2-Net: softmax over 3 × 3 pixels, times the ratio to the largest channel."""
    h, w, d = *y.shape[2:], dilation
    e = F.pad(y.exp(), (d, d, d, d), mode="reflect")
    near = sum(
        e[..., i : i + h, j : j + w] for i in (0, d, 2 * d) for j in (0, d, 2 * d)
    )
    ratio = y / (y.amax(dim=1, keepdim=True) + 1e-6)
    return (y.exp() / near * ratio).amax(dim=1, keepdim=True)


def candidates(x, n=200):
    """Keypoints (x, y) of six detectors, each at most n."""
    size, levels = tuple(x.shape[2:]), score_levels(x)
    single = {s: {"strides": (s,), "weights": (1,)} for s in STRIDES}
    maps = {
        f"stride {s}": combine_levels([level], size, **single[s])[0, 0]
        for s, level in zip(STRIDES, levels, strict=True)
    }
    maps["weighted sum"] = combine_levels(levels, size)[0, 0]
    maps["stride 1, D2-Net's score"] = score_levels(x, d2_score)[0][0, 0]
    found = {}
    for name, score in maps.items():
        found[name] = refine(score, detect(score, threshold=0, border=16)[:n])
    coarse = levels[2][0, 0]
    cells = detect(coarse, threshold=0, border=4)[:n]
    found["stride 4, refined in cells"] = 4 * refine(coarse, cells)
    return found


IMAGES = ["astronaut", "brick", "camera", "coins", "gravel", "moon", "page", "text"]
results = {}
generator = torch.Generator().manual_seed(1)
for name in IMAGES:
    x = photograph(name)
    before = candidates(x)
    for _ in range(2):  # up to 60 degrees, and up to a factor of exp(0.25)
        angle, zoom = (2 * torch.rand(2, generator=generator) - 1).tolist()
        angle, scale = math.pi / 3 * angle, math.exp(0.25 * zoom)
        after = candidates(warp(x, angle, scale))
        for detector, points in before.items():
            pair = compare(points, after[detector], x.shape[2:], angle, scale)
            results.setdefault(detector, []).append(pair)

print(f"{'':27}repeatability   error (pixels)")
for detector, pairs in results.items():
    repeatability, error = torch.tensor(pairs).mean(dim=0).tolist()
    print(f"{detector:27}{repeatability:8.2f}{error:16.1f}")

# %% repeat_holds tags=["hidden"]
table = {k: torch.tensor(v) for k, v in results.items()}
by_image = {k: v[:, 1].view(-1, 2).mean(dim=1) for k, v in table.items()}
mean_error = {k: v[:, 1].mean().item() for k, v in table.items()}
mean_share = {k: v[:, 0].mean().item() for k, v in table.items()}
enlarged, in_cells = mean_error["stride 4"], mean_error["stride 4, refined in cells"]
# Means over sixteen pairs; single images may differ.
assert len(results["stride 1"]) == 16
assert (by_image["weighted sum"] < by_image["stride 4"]).sum() >= 6
assert mean_error["weighted sum"] > 1.2 * mean_error["stride 1"]
assert mean_error["stride 2"] > 1.4 * mean_error["stride 1"]
assert mean_error["stride 4"] > 1.4 * mean_error["stride 2"]
assert mean_error["weighted sum"] < 0.65 * mean_error["stride 4"]
assert mean_error["stride 4, refined in cells"] < 0.93 * mean_error["stride 4"]
assert mean_error["stride 1, D2-Net's score"] < mean_error["stride 1"]
assert abs(mean_share["stride 1, D2-Net's score"] - mean_share["stride 1"]) < 0.08
assert mean_share["weighted sum"] < mean_share["stride 1"] + 0.04


# %% shape
def describe(x, offset, weights):
    """Unit descriptors of each pixel, from three deformable layers."""
    for weight in weights[:-1]:
        x = deform_conv2d(x, offset, weight, padding=1).relu()
    return F.normalize(deform_conv2d(x, offset, weights[-1], padding=1))


def right_matches(a, b, p, q):
    """How many points find their own image by the largest cosine."""
    rows = [sample_bilinear(m, r.flip(1)[None])[0].T for m, r in ((a, p), (b, q))]
    best = (rows[0] @ rows[1].T).argmax(dim=1)
    return (best == torch.arange(len(p))).float().mean().item()


SIDE = 160
photo = blur(photograph("camera"), 1)[..., 60 : 60 + SIDE, 180 : 180 + SIDE]
torch.manual_seed(0)
weights = [torch.randn(16, c, 3, 3) * (2 / (9 * c)) ** 0.5 for c in (1, 16, 16)]
where = detect(peakiness(features(photo))[0, 0], threshold=0, window=7).float()
inside = (where - (SIDE - 1) / 2).norm(dim=1) < SIDE / 2 - 8
where = where[inside][:100]
one, none = torch.ones(1, SIDE, SIDE), torch.zeros(1, SIDE, SIDE)
plain = similarity_offsets(one, none)  # an ordinary convolution
original = describe(photo, plain, weights)
DEGREES = (0, 10, 20, 30, 45, 60, 90, 135, 180)
matched = {"square kernels": [], "kernels turned by the true angle": []}
for degrees in DEGREES:
    angle = math.radians(degrees)
    seen, target = warp(photo, angle, 1), move(where, (SIDE, SIDE), angle, 1)
    turned_taps = similarity_offsets(one, none + angle)
    for name, offset in zip(matched, (plain, turned_taps), strict=True):
        b = describe(seen, offset, weights)
        matched[name].append(right_matches(original, b, where, target))

# %% shape_figure tags=["hidden"]
figure, axes = plt.subplots(figsize=(6, 3.2))
for (name, values), style in zip(matched.items(), ("o--", "o-"), strict=True):
    axes.plot(DEGREES, values, style, label=name)
axes.set(xlabel="rotation (degrees)", ylabel="share of right matches", ylim=(0, 1.05))
axes.set_xticks(range(0, 181, 30))
axes.legend(loc="center right")
square, true = matched.values()
at_45, at_90 = square[DEGREES.index(45)], square[DEGREES.index(90)]
least = min(true)
assert len(where) == 100
assert least > 0.75
assert square[0] > 0.98
assert at_45 < 0.5
assert max(square[DEGREES.index(90) :]) < 0.3


# %% cells
def down_padding_1(x):
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride=2)


def down_tensorflow(x):  # "SAME" for an even size: padding at the right and below
    return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 3, stride=2)


def down_pooling(x):
    return F.avg_pool2d(x, 2)


x = torch.zeros(1, 1, 64, 64, requires_grad=True)
pixels = torch.arange(64.0)
centres = {}
for down in (down_padding_1, down_pooling, down_tensorflow):
    (seen,) = torch.autograd.grad(down(down(x))[0, 0, 8, 8], x)
    centres[down.__name__] = (seen[0, 0].sum(dim=0) * pixels).sum().item()
    print(
        f"{down.__name__:16} cell 8 of stride 4 sees pixel {centres[down.__name__]:.1f}"
    )

# %% cells_hold tags=["hidden"]
for name, value in {"padding_1": 32, "pooling": 33.5, "tensorflow": 35}.items():
    assert abs(centres[f"down_{name}"] - value) < 1e-3
shift = torch.tensor([[3.0, 3.0]])
for degrees in (30.0, 90.0, 180.0):
    turn = math.radians(degrees)
    moved = move(shift, (1, 1), turn, 1) - shift
    assert abs(moved.norm().item() - 2 * 18**0.5 * math.sin(turn / 2)) < 1e-4

# %% order
offset = similarity_offsets(torch.full((1, 1, 1), 2.0), torch.zeros(1, 1, 1))
pairs = offset.view(9, 2)  # (down, right)
taps = torch.cartesian_prod(torch.arange(-1.0, 2), torch.arange(-1.0, 2))
for name, moves in {"(down, right)": pairs, "(right, down)": pairs.flip(1)}.items():
    places = (taps + moves).unique(dim=0)
    print(f"{name}: {len(places)} places, {places.int().tolist()}")

# %% order_holds tags=["hidden"]
assert len((taps + pairs).unique(dim=0)) == 9
collapsed = (taps + pairs.flip(1)).unique(dim=0)
assert len(collapsed) == 5
assert (collapsed[:, 0] == collapsed[:, 1]).all()

# %% threshold
zeros = torch.zeros(1, 8, 32, 32)
print(f"a flat image scores {peakiness(zeros).max().item():.4f}")
y = features(photograph("camera"))
counts = []
for gain in (0.1, 1, 10):
    counts.append(len(detect(peakiness(gain * y)[0, 0])))
    print(
        f"features times {gain:4}: about {round(counts[-1], -2):5} keypoints above 0.5"
    )

# %% threshold_holds tags=["hidden"]
assert abs(peakiness(zeros).max().item() - math.log(2) ** 2) < 1e-6
assert counts[0] * 2 < counts[1]
assert counts[1] * 1.2 < counts[2]

# %% ties
peak = torch.zeros(15, 15)
peak[7, 6:10] = 1.0  # four equal neighbours
pooled = F.max_pool2d(peak[None, None], 3, 1, 1)[0, 0]
equal = (peak == pooled) & (peak > 0.5)
print(
    "equal to the maximum:", equal.sum().item(), " detect:", len(detect(peak, edge=100))
)

x, y = torch.arange(-7.0, 8), torch.arange(-7.0, 8)[:, None]
edge = 3 - (x - 2 * y) ** 2 / 10 + (2 * x + y) ** 2 / 1000  # rises on both sides
print("largest of its window:", (edge[6:9, 6:9].max() == edge[7, 7]).item())
xx, yy, xy = -2 / 10 + 8 / 1000, -8 / 10 + 2 / 1000, 4 / 10 + 4 / 1000
ratio = (xx + yy) ** 2 / (xx * yy - xy**2)
print(f"ratio {ratio:.0f}, limit {11**2 / 10:.1f}; detect: {len(detect(edge))}")

# %% ties_hold tags=["hidden"]
assert equal.sum() == 4
assert detect(peak, edge=100).tolist() in ([], [[6, 7]])
assert ratio < -50
assert len(detect(edge)) == 0
assert edge[6:9, 6:9].flatten().argmax() == 4

# %% cost tags=["hidden"]
# The authors' layers: channels in and out, stride; the last three are deformable.
LAYERS = [
    (1, 32, 1),
    (32, 32, 1),
    (32, 64, 2),
    (64, 64, 2),
    (64, 128, 4),
    (128, 128, 4),
]
LAYERS += 3 * [(128, 128 + 27, 4)]  # 18 offsets and 9 masks
weight_counts = [9 * c * o for c, o, _ in LAYERS]
per_pixel = [9 * c * o / s**2 for c, o, s in LAYERS]
millions = (sum(weight_counts) + 3 * 27) / 1e6
billions = 512**2 * sum(per_pixel) / 1e9
coarse_share = sum(per_pixel[4:]) / sum(per_pixel)
assert sum(weight_counts) == 728_352 + 93_312
