# %% quick_start
from torch import nn

from zhixing.convolution.receptive_field import nan_probe, receptive_field

# VGG16's layers: kernel, stride, padding, dilation
conv, pool = (3, 1, 1, 1), (2, 2, 0, 1)
vgg16 = [conv, conv, pool] * 2 + [conv, conv, conv, pool] * 3
print(receptive_field(vgg16))

# from the network: the first and last column that output unit 8 sees
stem = nn.Sequential(nn.Conv2d(3, 8, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1))
print(nan_probe(stem.eval(), (3, 1, 64), unit=8))

# %% quick_start_holds tags=["hidden"]
vgg16_size, vgg16_stride, vgg16_centre = receptive_field(vgg16)
assert (vgg16_size, vgg16_stride, vgg16_centre) == (212, 32, 15.5)
stem_first, stem_last = nan_probe(stem, (3, 1, 64), unit=8)
assert (stem_first, stem_last) == (27, 37)
vgg16_margin = (vgg16_size - 1) / 2 - vgg16_centre
assert vgg16_margin == vgg16_size - vgg16_stride - vgg16_margin == 90

# %% pyramid
import matplotlib.pyplot as plt

chain = [(3, 1, 1, 1), (2, 2, 0, 1), (3, 1, 1, 1)]
figure, axes = plt.subplots(figsize=(4.4, 2.8))
seen = {2}  # the unit whose field is drawn
for depth in range(3, 0, -1):
    kernel, stride, padding, _ = chain[depth - 1]
    upper, lower = receptive_field(chain[:depth]), receptive_field(chain[: depth - 1])
    below = {u * stride - padding + tap for u in seen for tap in range(kernel)}
    for u in seen:
        for tap in range(kernel):
            ends = [
                f.centre + i * f.stride
                for f, i in ((upper, u), (lower, u * stride - padding + tap))
            ]
            axes.plot(ends, [depth, depth - 1], color="#999", linewidth=0.8, zorder=1)
    seen = below
    for field, row in ((upper, depth), (lower, depth - 1)):
        marks = [field.centre + u * field.stride for u in range(14 // field.stride)]
        axes.scatter(
            marks, [row] * len(marks), s=16, facecolors="none", edgecolors="#888"
        )
seen = {2}
for depth in range(3, -1, -1):
    field = receptive_field(chain[:depth])
    marks = [field.centre + u * field.stride for u in seen]
    axes.scatter(marks, [depth] * len(marks), s=34, color="#0b62b8", zorder=2)
    if depth:
        kernel, stride, padding, _ = chain[depth - 1]
        seen = {u * stride - padding + tap for u in seen for tap in range(kernel)}
rows = ["input", "kernel 3", "kernel 2, stride 2", "kernel 3"]
axes.set(xlabel="position (pixels)", yticks=range(4), yticklabels=rows)
axes.spines[["top", "right", "left"]].set_visible(False)

# %% pyramid_holds tags=["hidden"]
pyramid = receptive_field(chain)
pyramid_size, pyramid_centre = pyramid.size, pyramid.centre + 2 * pyramid.stride
assert pyramid == (8, 2, 0.5)
assert len(seen) == pyramid.size
assert sum(seen) / len(seen) == pyramid_centre

# %% stages
for depth in (3, 6, 10, 14, 18):
    size, stride, centre = receptive_field(vgg16[:depth])
    print(f"{size:3} pixels, one every {stride:2} pixels, the first at {centre}")

# %% stages_are_published tags=["hidden"]
sizes = [receptive_field(vgg16[:depth]).size for depth in (3, 6, 10, 14, 18)]
assert sizes == [6, 16, 44, 100, 212]

# %% upsampling
unet = nn.Sequential(
    nn.Conv2d(1, 4, 3, padding=1),
    nn.MaxPool2d(2),
    nn.Conv2d(4, 4, 3, padding=1),
    nn.Upsample(scale_factor=2),
    nn.Conv2d(4, 4, 3, padding=1),
).eval()
for unit in (16, 17):
    first, last = nan_probe(unet, (1, 4, 32), unit=unit)
    print(f"unit {unit} sees {unit - first} to its left, {last - unit} to its right")

# %% upsampling_holds tags=["hidden"]
reaches = []
for unit in (16, 17):
    first, last = nan_probe(unet, (1, 4, 32), unit=unit)
    reaches.append((unit - first, last - unit))
assert reaches == [(5, 4), (4, 5)]

# %% gaussian
import torch
import torch.nn.functional as F

from zhixing.convolution.receptive_field import effective_std

torch.set_num_threads(1)  # operations this small only lose time to more
deep = [conv] * 20
x = torch.zeros(1, 1, 101, dtype=torch.float64, requires_grad=True)
y = x
for _ in deep:
    y = F.avg_pool1d(y, 3, stride=1, padding=1)
y[0, 0, 50].backward()
weights, offsets = x.grad[0, 0], torch.arange(101) - 50
std = (weights * offsets**2).sum().sqrt()
size = receptive_field(deep).size
print(f"size {size}, σ {std:.4f}, formula {effective_std(deep):.4f}")
print(f"share of the weights within 2σ: {weights[offsets.abs() < 2 * std].sum():.1%}")

# %% gaussian_holds tags=["hidden"]
deep_size, deep_std = receptive_field(deep).size, effective_std(deep)
deep_reach = deep_size // 2
within = weights[offsets.abs() < 2 * std].sum().item()
assert deep_size == 41
assert abs(std.item() - deep_std) < 1e-12
assert abs(deep_std - (20 * 8 / 12) ** 0.5) < 1e-12
assert (weights > 0).sum() == 41
assert 0.94 < within < 0.97
vgg16_std = effective_std(vgg16)


# %% random_network
def conv_net(depth, channels, seed, dtype):
    torch.manual_seed(seed)
    layers = []
    for inputs in [1] + [channels] * (depth - 1):
        layer = nn.Conv1d(inputs, channels, 3, padding=1, dtype=dtype)
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers)


# %% cue
def accuracy(depth, distance, seed):
    net = nn.Sequential(conv_net(depth, 16, seed, torch.float32), nn.Conv1d(16, 1, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3, fused=True)
    generator = torch.Generator().manual_seed(seed)
    for step in range(101):
        images = 4 if step < 100 else 64  # the last ones test
        bits = torch.randint(0, 2, (images, 1, 80), generator=generator).float()
        logits = net(2 * bits - 1)[..., : 80 - distance]
        answers = bits[..., distance:]
        if step < 100:
            loss = F.binary_cross_entropy_with_logits(logits, answers)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return ((logits > 0) == (answers > 0.5)).float().mean().item()


accuracies = {}
for depth, distance in ((6, 6), (12, 8), (12, 12)):
    accuracies[depth, distance] = [accuracy(depth, distance, seed) for seed in range(3)]
    shown = " ".join(f"{value:.1f}" for value in accuracies[depth, distance])
    sigmas = distance / effective_std([conv] * depth)
    print(f"{depth:2} layers, distance {distance:2} = {sigmas:.1f}σ: {shown}")

# %% cue_holds tags=["hidden"]
edge, deep_edge = (depth / effective_std([conv] * depth) for depth in (6, 12))
assert [receptive_field([conv] * depth).size for depth in (6, 12)] == [13, 25]
assert min(accuracies[6, 6] + accuracies[12, 8]) > 0.9
assert max(accuracies[12, 12]) < 0.6


# %% seams
@torch.no_grad()
def seam_error(net, image, margin, stride=1):
    """Largest error over columns, root mean square over channels and images."""
    middle, whole = image.shape[-1] // 2, net(image)
    left = net(image[..., : middle + margin])[..., : middle // stride]
    right = net(image[..., middle - margin :])[..., margin // stride :]
    error = torch.cat([left, right], dim=-1) - whole
    return (error.square().mean((0, 1)).max() / whole.square().mean()).sqrt().item()


torch.manual_seed(0)
image = torch.rand(8, 1, 120, dtype=torch.float64) - 0.5
nets = [conv_net(20, 24, seed, torch.float64) for seed in range(3)]
errors = {m: [seam_error(net, image, m) for net in nets] for m in range(22)}
for margin in (0, 5, 10, 15, 19, 20, 21):
    shown = (f"{e:6.0e}" if e > 1e-12 else "     0" for e in errors[margin])
    print(f"margin {margin:2}:", *shown)

# %% seams_hold tags=["hidden"]
for seed in range(3):
    assert 0.3 < errors[0][seed] < 2
    assert 0.004 < errors[10][seed] < 0.3
    assert 1e-6 < errors[19][seed] < 1e-3
    assert errors[20][seed] < 1e-12
    assert errors[21][seed] < 1e-12

# %% seam_figure
import math

figure, axes = plt.subplots(figsize=(5.6, 3.2))
for seed in range(3):
    label = "measured, three networks" if seed == 0 else None
    shown = [errors[m][seed] for m in range(20)]
    axes.semilogy(shown, "o", color="#0b62b8", markersize=3, label=label)
tail = [math.erfc((m + 0.5) / (deep_std * math.sqrt(2))) ** 0.5 for m in range(26)]
axes.semilogy(
    range(26), tail, "--", color="#c2410c", label="√erfc, from a Gaussian tail"
)
axes.axvline(20, color="#777", linewidth=1)
axes.annotate("reach: from here on 0", (20, 1e-3), (20.3, 1e-2), ha="left")
axes.set(
    xlabel="margin (pixels)",
    ylabel="relative error at the seam",
    xlim=(-1, 30),
    ylim=(1e-7, 3),
)
axes.legend(loc="lower left")

# %% seam_figure_holds tags=["hidden"]
for margin in range(11):
    for error in errors[margin]:
        assert 0.25 < error / tail[margin] < 4

# %% strided
layers = [conv, conv, pool] * 2 + [conv, conv]
modules = {conv: lambda: nn.Conv1d(8, 8, 3, padding=1), pool: lambda: nn.MaxPool1d(2)}
torch.manual_seed(0)
net = nn.Sequential(*(modules[layer]() for layer in layers)).double()
size, stride, centre = receptive_field(layers)
to_left = (size - 1) / 2 - centre
to_right = size - stride - to_left
print(f"left {to_left:.0f}, right {to_right:.0f}, stride {stride}")
image = torch.rand(8, 8, 160, dtype=torch.float64) - 0.5
for margin in (12, 14, 16, 18, 20):
    error = seam_error(net, image, margin, stride)
    print(f"margin {margin}:", "exact" if error < 1e-12 else f"error {error:.0e}")

# %% strided_holds tags=["hidden"]
assert (to_left, to_right, stride) == (14, 14, 4)
for margin in (12, 13, 14, 15, 17, 18, 19):
    assert seam_error(net, image, margin, stride) > 1e-5, margin
for margin in (16, 20, 24):
    assert seam_error(net, image, margin, stride) < 1e-12
misaligned = seam_error(net, image, 18, stride)
assert misaligned > 5 * seam_error(net, image, 12, stride)


# %% top_down
size = 1
for kernel, stride, _, _ in reversed(vgg16):  # from the top
    size = (size - 1) * stride + kernel
print("from the top:  ", size)
size = 1
for kernel, stride, _, _ in vgg16:  # wrong: the same formula from the input
    size = (size - 1) * stride + kernel
print("from the input:", size)

# %% top_down_holds tags=["hidden"]
wrong_way = size
assert wrong_way == 308

# %% two_resnets
start = [(7, 2, 3, 1), (3, 2, 1, 1)]
square = (3, 1, 1, 1)
variants = {
    "3×3 of a stage's first block": lambda n: [(3, 2, 1, 1)] + [square] * (n - 1),
    "1×1 of a stage's first block": lambda n: [(1, 2, 0, 1)] + [square] * n,
}
resnets = {}
for strided, stage in variants.items():
    layers = start + [square] * 3 + stage(4) + stage(6) + stage(3)
    resnets[strided] = receptive_field(layers)
    print(f"stride in the {strided}:", resnets[strided])
earlier = start + ([square] * 2 + [(3, 2, 1, 1)]) + ([square] * 3 + [(3, 2, 1, 1)])
earlier += [square] * 5 + [(3, 2, 1, 1)] + [square] * 3
resnets["slim"] = receptive_field(earlier)
print("stride in the 3×3 of a stage's last block: ", resnets["slim"])

# %% two_resnets_hold tags=["hidden"]
torchvision_size, he_size, slim_size = (field.size for field in resnets.values())
assert (torchvision_size, he_size, slim_size) == (427, 483, 483)
assert {field[1:] for field in resnets.values()} == {(32, 0.0)}

# %% gradient_probe
ramp = torch.arange(96.0).expand(1, 1, 8, 96).clone().requires_grad_()
net = nn.Sequential()
for _ in range(3):
    for _ in range(2):
        net.append(nn.Conv2d(1, 1, 3, padding=1, bias=False))
        nn.init.constant_(net[-1].weight, 1 / 9)
    net.append(nn.MaxPool2d(2))
net.eval()(ramp)[..., 6].sum().backward()
columns = ramp.grad.sum((0, 1, 2)).nonzero()
print("gradient:", columns.min().item(), "to", columns.max().item())
print("NaN:     ", *nan_probe(net, (1, 8, 96), unit=6))

# %% gradient_probe_holds tags=["hidden"]
by_gradient = (columns.min().item(), columns.max().item())
by_nan = nan_probe(net, (1, 8, 96), unit=6)
gradient_size, nan_size = (last - first + 1 for first, last in (by_gradient, by_nan))
assert nan_size == receptive_field([conv, conv, pool] * 3).size == 36
assert gradient_size == 29
assert by_gradient[1] == by_nan[1]

# %% infinite
for norm in (nn.BatchNorm2d(8), nn.GroupNorm(4, 8)):
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm).eval()
    print(
        f"{type(norm).__name__}:", [nan_probe(net, (3, 1, width)) for width in (32, 64)]
    )

# %% infinite_holds tags=["hidden"]
assert nan_probe(net, (3, 1, 64)) == (0, 63)
assert nan_probe(nn.Sequential(net[0], nn.BatchNorm2d(8)).eval(), (3, 1, 64)) == (
    31,
    33,
)
