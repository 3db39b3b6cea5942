# %% quick_start
import torch

from zhixing.attention.taylor_attention import TaylorAttention2d

generator = torch.Generator().manual_seed(0)
x = torch.randn(1, 64, 256, 256, generator=generator)  # (batch, channels, H, W)
block = TaylorAttention2d(64)  # its 65,536 pixels attend to each other
with torch.no_grad():
    print(tuple(block(x).shape))

# %% picture
import math

import matplotlib.pyplot as plt
import numpy as np

GREY, OURS, SOFT, SHARP = "#6b7280", "#c2410c", "#0b62b8", "#0f766e"
cosine = np.linspace(-1, 1, 401)
figure, axes = plt.subplots(figsize=(5.0, 3.4))
density = (1 - cosine**2) ** ((64 - 3) / 2)
axes.fill_between(cosine, 0, density, color=GREY, alpha=0.2, lw=0)
axes.text(0.27, 0.27, "cosines of random\nvectors, $D = 64$", color=GREY)
axes.plot(cosine, 1 + cosine, color=OURS)
axes.plot(cosine, np.exp(cosine), "--", color=SOFT)
steep = np.exp(8 * cosine)
axes.plot(cosine[steep < 3], steep[steep < 3], "-.", color=SHARP)
axes.text(0.62, 1.36, "$1 + c$", color=OURS, fontsize=12)
axes.text(0.70, 2.22, "$e^c$", color=SOFT, ha="right", fontsize=13)
axes.text(0.09, 2.65, "$e^{\\sqrt{D}\\, c}$", color=SHARP, ha="right", fontsize=13)
axes.set(xlim=(-1, 1), ylim=(0, 3))
axes.set(xlabel="cosine $c$ of query and key", ylabel="weight of the key")

# %% setup
import torch.nn.functional as F

from zhixing.attention.linear_attention import chunked_linear_attention
from zhixing.attention.taylor_attention import direction, taylor_attention


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def apart(gap):
    """A gap without the digits of rounding, in which processors differ."""
    return "less than 1e-12" if gap < 1e-12 else f"{gap:.2f}"


# %% two_ways
q, k, v = normal(3, 1, 2, 500, 16)
cosines = F.cosine_similarity(q.unsqueeze(3), k.unsqueeze(2), dim=-1)  # 500 × 500
weights = (1 + cosines) / (1 + cosines).sum(dim=-1, keepdim=True)
ours = taylor_attention(q, k, v)
gap = (ours - weights @ v).abs().max()
print(f"{apart(gap)} from the weights written out")


def features(x):
    return torch.cat([torch.ones_like(x[..., :1]), direction(x)], dim=-1)


_, (s, z) = chunked_linear_attention(features(k), features(k), v, normalize=True)
linear = (features(q) @ s) / (features(q) @ z.unsqueeze(-1))
print(
    f"{apart((ours - linear).abs().max())} from linear attention; S: {tuple(s.shape)}"
)

# %% two_ways_hold tags=["hidden"]
assert max(gap, (ours - linear).abs().max()) < 1e-12
assert torch.linalg.matrix_rank(weights[0, 0]).item() == 17
# Keys whose directions add up to 0: the mean, and a matrix times the query's direction.
centred = torch.cat([k, -k], dim=2)
values = torch.cat([v, normal(*v.shape, seed=3)], dim=2)
matrix = values.mT @ direction(centred) / 1000
expected = values.mean(dim=2, keepdim=True) + direction(q) @ matrix.mT
assert (taylor_attention(q, centred, values) - expected).abs().max() < 1e-12


# %% nearness
def apart_by(p, other):
    """Total variation distance: the share of the weight that lies on other keys."""
    return ((p - other).abs().sum(dim=-1) / 2).mean().item()


dimensions, seeds = (8, 16, 32, 64, 128), range(5)
distances = {"to the mean": [], "to softmax(cos)": [], "to softmax(√D cos)": []}
for d in dimensions:
    found = []
    for seed in seeds:
        q = direction(normal(64, d, seed=seed))
        k = direction(normal(2000, d, seed=100 + seed))
        c = q @ k.T
        taylor = (1 + c) / (1 + c).sum(dim=-1, keepdim=True)
        others = torch.full_like(c, 1 / 2000), c.softmax(-1), (d**0.5 * c).softmax(-1)
        found.append([apart_by(taylor, other) for other in others])
    for row, values in zip(distances.values(), zip(*found, strict=True), strict=True):
        row.append(values)

# %% nearness_figure
figure, axes = plt.subplots(figsize=(5.0, 3.5))
marks = ((SHARP, "v"), (OURS, "o"), (SOFT, "s"))
names = "to softmax(√D cos)", "to the mean", "to softmax(cos)"
for name, (colour, marker) in zip(names, marks, strict=True):
    means = [sum(values) / len(values) for values in distances[name]]
    label = name.replace("√D ", "$\\sqrt{D}\\,$")
    axes.plot(dimensions, means, marker, color=colour, label=label, ls="-")
wide = np.geomspace(8, 128, 50)
axes.plot(wide, 1 / np.sqrt(2 * np.pi * wide), ":", color=GREY)
axes.text(21, 0.1, "$1/\\sqrt{2\\pi D}$", color=GREY, fontsize=12)
axes.plot(wide, 1 / (4 * wide), ":", color=GREY)
axes.text(20, 0.0145, "$1/(4D)$", color=GREY, fontsize=12)
axes.set_xscale("log", base=2)
axes.set_yscale("log")
axes.set(
    xlabel="head dimension $D$", ylabel="total variation distance", ylim=(0.0012, 0.8)
)
axes.set_xticks(dimensions, [str(d) for d in dimensions])
axes.legend(loc="lower left")

# %% nearness_holds tags=["hidden"]
for i, d in enumerate(dimensions):
    for seed in seeds:
        mean, soft, sharp = (distances[name][i][seed] for name in distances)
        assert abs(mean * math.sqrt(2 * math.pi * d) - 1) < 0.06
        assert 0.8 < soft * 4 * d < 1.1
        assert 0.2 < sharp < 0.42
        assert soft < mean / 2 < sharp
tv_mean, tv_soft, tv_sharp = (
    sum(distances[name][dimensions.index(64)]) / len(seeds) for name in distances
)

# %% limit
k = direction(normal(64, 8))  # 64 keys
total = k.sum(dim=0)
largest = 2 * (64 - k @ total) / (64**2 - total @ total)
best = k - largest[:, None] * total  # for each key, the query that gives it most
everything = torch.eye(64, dtype=torch.float64)  # these values show the weights
weights = taylor_attention(best[None, None], k[None, None], everything[None, None])
gap = (weights[0, 0].diagonal() - largest).abs().max()
print(f"largest weights of 64 keys: {apart(gap)} from the formula")
print(f"from {largest.min():.3f} to {largest.max():.3f}, sum {largest.sum():.6f}")

# %% limit_holds tags=["hidden"]
assert gap < 1e-12
assert abs(largest.sum() - 2) < 1e-12
tried = taylor_attention(
    normal(1, 1, 20000, 8, seed=1), k[None, None], everything[None, None]
)
assert (tried[0, 0].amax(0) <= largest + 1e-12).all()
assert tried[0, 0].amax(0).sum() > 1.9


# %% own
def own_weights(n, seed, d=64):
    """Each of n random keys is its own query. The sum of the weights on itself."""
    k = direction(normal(n, d, seed=seed, dtype=torch.float32))
    c = k @ k.T
    sums = {}
    for name, w in {
        "1 + cos": 1 + c,
        "exp(cos)": c.exp(),
        "exp(√D cos)": (d**0.5 * c).exp(),
    }.items():
        sums[name] = (w.diagonal() / w.sum(dim=-1)).sum().item()
    return sums


own = {n: [own_weights(n, seed) for seed in seeds] for n in (64, 4096)}
for name in own[64][0]:
    few, many = (sum(sums[name] for sums in own[n]) / len(seeds) for n in own)
    print(f"{name:>11}: of 64 keys {few:5.1f}, of 4096 keys {many:7.1f}")

# %% own_holds tags=["hidden"]
for n, of_n in own.items():
    for sums in of_n:
        assert 1.9 < sums["1 + cos"] < 2
        assert 2.5 < sums["exp(cos)"] < math.e
        assert sums["exp(√D cos)"] > (60 if n == 64 else 1200)
own_taylor, own_soft = (
    sum(sums[name] for sums in own[4096]) / len(seeds)
    for name in ("1 + cos", "exp(cos)")
)

# %% channel
x = normal(1, 64, 24, 40)
channels = x.flatten(2).unsqueeze(1)  # 64 channels of 960 pixels each
mixed = taylor_attention(channels, channels, channels).squeeze(1).view_as(x)
print(tuple(mixed.shape))

# %% channel_holds tags=["hidden"]
equal = normal(1, 1, 1, 960).expand(1, 1, 64, 960)
assert (taylor_attention(equal, equal, equal) - equal).abs().max() < 1e-12

# %% costs
c, d = 64, 8
print("multiply-adds")
print("pixels     all weights       sums  1 × 1 convolutions")
costs = {}
for side in 32, 64, 128, 256:
    n = side**2
    costs[side] = n**2 * (d + c), 2 * n * d * c, n * c * (2 * d + c)
    print(f"{n:6,} {costs[side][0]:15,} {costs[side][1]:10,} {costs[side][2]:19,}")

# %% costs_hold tags=["hidden"]
from torch.utils.flop_counter import FlopCounterMode

with FlopCounterMode(display=False) as counter, torch.no_grad():
    TaylorAttention2d(c)(torch.zeros(1, c, 32, 32))
n = 32**2
assert counter.get_total_flops() == 2 * (costs[32][1] + costs[32][2] + n * d)
fewer = costs[256][0] / costs[256][1]
kept = (d + 1) * (c + 1)
gib = (256 * 256) ** 2 * 4 / 2**30
assert gib == 16
assert costs[256][2] == 5 * costs[256][1]
assert costs[32][0] > 10 * costs[32][2]

# %% height_width
for h, w in (3, 5), (1, 5):
    x, mixed = torch.zeros(1, 1, h, w), torch.arange(h * w).view(1, 1, h * w)
    try:
        height, width = (x + mixed.view(1, 1, w, h)).shape[2:]
        print(f"H × W = {h} × {w}: the sum is {height} × {width}")
    except RuntimeError:
        print(f"H × W = {h} × {w}: the shapes do not fit")

# %% height_width_holds tags=["hidden"]
assert (torch.zeros(1, 1, 1, 5) + torch.zeros(1, 1, 5, 1)).shape == (1, 1, 5, 5)


# %% zero_pixel
def with_unit_vectors(unit, dtype):
    q, k, v = normal(3, 1, 1, 100, 8, dtype=dtype)
    k[0, 0, 7] = 0  # one pixel without data
    k.requires_grad_()
    k_hat = unit(k)
    out = v.sum(2, keepdim=True) + unit(q) @ (k_hat.mT @ v)
    out = out / (100 + unit(q) @ k_hat.sum(2).unsqueeze(-1))
    (gradient,) = torch.autograd.grad(out.square().mean(), k)
    return out.isnan().any(-1).sum().item(), gradient[0, 0, 7].norm().item()


for name, unit in {
    "x / |x|": lambda x: x / x.norm(dim=-1, keepdim=True),
    "F.normalize": lambda x: F.normalize(x, dim=-1),
    "direction": direction,
}.items():
    for dtype in torch.float32, torch.float16:
        broken, slope = with_unit_vectors(unit, dtype)
        print(f"{name:>11}, {dtype}: {broken:3} outputs NaN, gradient {slope:.0e}")

# %% zero_pixel_holds tags=["hidden"]
assert with_unit_vectors(direction, torch.float32) == (0, 0)
assert with_unit_vectors(direction, torch.float16) == (0, 0)
assert (
    with_unit_vectors(lambda x: x / x.norm(dim=-1, keepdim=True), torch.float32)[0]
    == 100
)
assert with_unit_vectors(lambda x: F.normalize(x, dim=-1), torch.float32)[1] > 1e6
assert with_unit_vectors(lambda x: F.normalize(x, dim=-1), torch.float16)[0] == 100

# %% half
denominator = 256 * 256 + torch.ones((), dtype=torch.float16)
print(denominator.item(), (1 / denominator).item())
one = torch.ones(1, 1, 256 * 256, 8, dtype=torch.float16)
print(taylor_attention(one[:, :, :1], one, one).unique().item())

# %% half_holds tags=["hidden"]
assert denominator.isinf()
assert (taylor_attention(one[:, :, :1], one, one) == 1).all()

# %% fresh
x = normal(1, 64, 24, 40, dtype=torch.float32)
block = TaylorAttention2d(64)
out = block(x)
out.square().sum().backward()
trained = [name for name, p in block.named_parameters() if (p.grad != 0).any()]
print("output equal to input:", torch.equal(out, x), "- gradient not 0:", trained)

# %% fresh_holds tags=["hidden"]
assert torch.equal(out, x)
assert trained == ["gamma"]

# %% mixed_up
q, k = direction(normal(2, 1, 1, 960, 8))
ones = torch.ones(1, 1, 960, 1, dtype=torch.float64)
swapped = (960 + k @ (q.mT @ ones)) / (960 + q @ k.sum(2).unsqueeze(-1))
print(f"values of 1 become {swapped.min():.2f} to {swapped.max():.2f}")
ours = taylor_attention(q, k, ones)
print(f"and here: {apart((ours - 1).abs().max())} from 1")

# %% mixed_up_holds tags=["hidden"]
assert swapped.min() < 0.97
assert swapped.max() > 1.03
assert (ours - 1).abs().max() < 1e-12
# The published channel form, C = 64 and N = 4096: ones come back as 1 / 2 + C / (2N).
channels = torch.ones(64, 4096, dtype=torch.float64)
unit = direction(channels.T).T  # along the channels
numerator = channels.sum(0) + (channels @ unit.T) @ unit
published = numerator / (4096 + unit @ unit.sum(0))[:, None]
shrunk = published.mean().item()
assert (published - (1 / 2 + 64 / (2 * 4096))).abs().max() < 1e-12
