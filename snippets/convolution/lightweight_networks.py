# %% quick_start
import torch
from torch import nn

dense = nn.Conv2d(512, 512, 3, padding=1, bias=False)
separable = nn.Sequential(
    nn.Conv2d(512, 512, 3, padding=1, groups=512, bias=False),  # depthwise
    nn.Conv2d(512, 512, 1, bias=False),  # pointwise
)
x = torch.randn(1, 512, 14, 14)
for name, layer in ("dense", dense), ("separable", separable):
    weights = sum(weight.numel() for weight in layer.parameters())
    millions = weights * 14 * 14 / 1e6  # each weight is used once at each pixel
    print(f"{name:9} {tuple(layer(x).shape)}, {weights:9,} weights", end=", ")
    print(f"{millions:5.1f} million multiplications")

# %% quick_start_holds tags=["hidden"]
assert (round(millions, 1), weights) == (52.3, 266_752)
assert dense(x).shape == separable(x).shape == x.shape

# %% setup
import math

from zhixing.convolution.lightweight_networks import (
    InvertedResidual,
    MobileNetV1,
    channel_shuffle,
    collapse_probability,
    conv_cost,
    layer_costs,
    mobilenet_v1,
    round_channels,
)

# %% picture
import matplotlib.pyplot as plt
import numpy as np

channels = torch.arange(6)
together = {
    "dense": torch.ones(6, 6),
    "three groups": channels[:, None] // 2 == channels // 2,
    "depthwise": torch.eye(6),
    "pointwise": torch.ones(6, 6),
}
figure, panels = plt.subplots(1, 4, figsize=(5.2, 1.75), layout="constrained")
for panel, (name, mask) in zip(panels, together.items(), strict=True):
    kernel = torch.ones(3, 3)
    if name == "pointwise":
        kernel = torch.zeros(3, 3)
        kernel[1, 1] = 1
    cells = torch.kron(mask.float(), nn.functional.pad(kernel, (0, 1, 0, 1)))
    shown = np.ma.masked_equal(cells[:-1, :-1].numpy(), 0)
    panel.imshow(shown, cmap="viridis", vmin=0, vmax=2, interpolation="nearest")
    panel.set(title=name, xticks=[], yticks=[])
    panel.title.set_fontsize(9)
panels[0].set(xlabel="6 input channels", ylabel="6 output channels")

# %% inception
size = 28, 28
direct = conv_cost(192, 32, kernel_size=5, size=size)
reduced = [
    conv_cost(192, 16, kernel_size=1, size=size),
    conv_cost(16, 32, kernel_size=5, size=size),
]
reduced_macs = sum(cost.macs for cost in reduced)
print(f"5 × 5 from 192 channels:  {direct.macs / 1e6:5.1f} million")
print(f"by way of 16 channels:    {reduced_macs / 1e6:5.1f} million")

# %% inception_holds tags=["hidden"]
assert (direct.macs, reduced_macs) == (120_422_400, 12_443_648)


# %% shares
def total(costs, field):
    return sum(getattr(cost, field) for _, cost in costs)


with torch.device("meta"):  # shapes without numbers
    net = mobilenet_v1()
costs = layer_costs(net, (3, 224, 224), batch=32)
fields = "parameters", "macs", "moved"
share = {}
print("              weights     MACs    moved   MACs per number")
for kind in "conv_stem", "conv_dw", "conv_pw", "classifier":
    part = [(name, cost) for name, cost in costs if name.endswith(kind)]
    share[kind] = [total(part, field) / total(costs, field) for field in fields]
    intensity = total(part, "macs") / total(part, "moved")
    print(f"{kind:12}", *(f"{number:8.2%}" for number in share[kind]), end="")
    print(f"{intensity:14.1f}")
print(f"{total(costs, 'macs') / 32 / 1e6:.0f} million MACs an image")

# %% shares_hold tags=["hidden"]
printed = {"conv_stem": (0.02, 1.91), "conv_dw": (1.06, 3.06)}
printed |= {"conv_pw": (74.59, 94.86), "classifier": (24.33, 0.18)}
for kind, (weights_share, macs_share) in printed.items():
    assert round(100 * share[kind][0], 2) == weights_share
    assert round(100 * share[kind][1], 2) == macs_share
assert sum(p.numel() for p in net.parameters()) == 4_231_976
_, dw_macs, dw_moved = share["conv_dw"]
assert 0.4 < dw_moved < 0.55


# %% counterpart
def dense_mobilenet():
    """MobileNet with a dense 3 × 3 convolution in place of each separable one."""
    layers = [nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)]
    for stage in MobileNetV1.stages:
        for channels, stride in stage:
            before = layers[-1].out_channels
            layers.append(nn.Conv2d(before, channels, 3, stride, 1, bias=False))
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000)
    return nn.Sequential(*layers, *head)


with torch.device("meta"):
    dense_net = dense_mobilenet()
moved_ratio = {}
print("batch   MACs, dense : separable   numbers moved, millions")
for batch in 1, 8, 32:
    pair = [layer_costs(each, (3, 224, 224), batch=batch) for each in (dense_net, net)]
    (d, s), (dense, separable) = ([total(c, f) / 1e6 for c in pair] for f in fields[1:])
    moved_ratio[batch] = dense / separable
    print(f"{batch:5} {d:9,.0f} : {s:6,.0f} = {d / s:.2f}", end="")
    print(f"{dense:11.0f} : {separable:3.0f} = {moved_ratio[batch]:.2f}")

# %% counterpart_holds tags=["hidden"]
dense_costs = layer_costs(dense_net, (3, 224, 224))
assert round(total(dense_costs, "macs") / 1e6) == 4867
assert round(total(dense_costs, "parameters") / 1e6, 1) == 29.3
moved_one, macs_ratio = moved_ratio[1], d / s
gpu = [
    conv_cost(32, 32, kernel_size=3, size=(512, 512), groups=g, batch=2)
    for g in (1, 32)
]
gpu_dense, gpu_depthwise = gpu[0].moved, gpu[1].moved
gpu_speed = 4 * gpu_depthwise / 1.02e-3 / 1e9  # GB/s
assert gpu[0].macs == 32 * gpu[1].macs
assert moved_one > 2.4
assert moved_ratio[8] < 0.95
assert moved_ratio[32] < 0.72

# %% intensity
figure, axes = plt.subplots(figsize=(5.2, 2.9), layout="constrained")
pair = [layer_costs(each, (3, 224, 224), batch=32) for each in (dense_net, net)]
series = {
    "dense": [cost for name, cost in pair[0][1:-1]],
    "pointwise": [cost for name, cost in pair[1] if name.endswith("conv_pw")],
    "depthwise": [cost for name, cost in pair[1] if name.endswith("conv_dw")],
}
for (name, layers), marker in zip(series.items(), "os^", strict=True):
    values = [cost.macs / cost.moved for cost in layers]
    axes.plot(range(1, 14), values, marker=marker, markersize=5, label=name)
axes.set(yscale="log", xlabel="block", ylabel="MACs per number moved")
axes.set(xticks=range(1, 14), ylim=(1, 4000))
figure.legend(loc="outside upper center", ncols=3)

# %% intensity_holds tags=["hidden"]
ratios = {name: [c.macs / c.moved for c in part] for name, part in series.items()}
assert max(ratios["depthwise"]) < 4.5
assert min(ratios["depthwise"]) > 1.7
assert min(ratios["dense"]) > 150
assert all(d > p for d, p in zip(ratios["dense"], ratios["pointwise"], strict=True))


# %% reach
def reach(channels, groups, dealt=1):
    """Count the inputs that reach the first output of two grouped convolutions."""
    weight = torch.ones(channels, channels // groups, 1, 1)
    x = torch.ones(1, channels, 1, 1, requires_grad=True)
    hidden = nn.functional.conv2d(x, weight, groups=groups)
    y = nn.functional.conv2d(channel_shuffle(hidden, dealt), weight, groups=groups)
    y[0, 0].sum().backward()
    return int((x.grad != 0).sum())


pairs = (240, 3), (384, 8), (64, 16)
for channels, groups in pairs:
    alone, shuffled = reach(channels, groups), reach(channels, groups, dealt=groups)
    print(f"{channels:3} channels, {groups:2} groups: {alone:2} inputs", end=", ")
    print(f"with the shuffle {shuffled:3}")

# %% reach_holds tags=["hidden"]
for channels, groups in pairs:
    everywhere = min(channels, channels**2 // groups**2)
    assert reach(channels, groups) == channels // groups
    assert reach(channels, groups, dealt=groups) == everywhere
    assert reach(channels, groups, dealt=channels // groups) == everywhere

# %% expansions
for expansion in 1, 2, 3, 4, 6:
    p = collapse_probability(16 * expansion, 16)
    print(f"16 dimensions, {16 * expansion:2} directions: {p:.5g}")

# %% expansions_hold tags=["hidden"]
assert collapse_probability(16, 16) > 0.9999
assert abs(collapse_probability(32, 16) - 0.43) < 0.005
assert collapse_probability(96, 16) < 1e-11

# %% spiral
angle = torch.linspace(1, 6 * math.pi, 400, dtype=torch.float64)
spiral = angle[:, None] / angle[-1] * torch.stack([angle.cos(), angle.sin()], 1)


def through_relu(n, seed):
    """Send the spiral through n random directions; return what a readout sees."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    y = (spiral @ directions.T).relu()
    readout = 2 * y @ torch.linalg.pinv(directions).T
    active = (y > 0).double()
    collapsed = active.sum(1) < 2
    # Where two directions are active or more, they are equations for the point.
    solved = torch.linalg.pinv(active[..., None] * directions) @ y[..., None]
    assert torch.allclose(solved[~collapsed, :, 0], spiral[~collapsed], atol=1e-6)
    return readout, collapsed


# %% lost
lost, linear = {}, {}
print("directions   collapsed   (n + 1) / 2ⁿ   readout error   2 / √n")
for n in 2, 3, 5, 15, 30:
    draws = [through_relu(n, seed) for seed in range(40)]
    lost[n] = torch.cat([collapsed for _, collapsed in draws]).double().mean().item()
    errors = [(readout - spiral).norm() / spiral.norm() for readout, _ in draws]
    linear[n] = torch.stack(errors).median().item()
    print(f"{n:10}  {lost[n]:10.2f}  {(n + 1) / 2**n:13.2f}", end="")
    print(f"  {linear[n]:14.2f}  {2 / math.sqrt(n):7.2f}")

# %% lost_hold tags=["hidden"]
for n in lost:
    assert math.isclose(collapse_probability(n, 2), (n + 1) / 2**n)
    assert abs(lost[n] - (n + 1) / 2**n) < 0.1
    assert 0.6 < linear[n] * math.sqrt(n) / 2 < 1.4
assert lost[30] == 0
assert linear[30] > 0.2

# %% spirals
figure, panels = plt.subplots(2, 3, figsize=(5.2, 3.6), layout="constrained")
panels[0, 0].plot(*spiral.T, color="C0")
panels[0, 0].set_title("input")
for panel, n in zip(panels.flat[1:], (2, 3, 5, 15, 30), strict=True):
    readout, collapsed = through_relu(n, seed=3)
    for part, style in (~collapsed, "C0-"), (collapsed, "C1:"):
        kept = torch.where(part[:, None], readout, torch.nan)
        panel.plot(*kept.T, style, linewidth=3 if style == "C1:" else None)
    panel.set_title(f"{n} directions")
for panel in panels.flat:
    panel.set(xticks=[], yticks=[], aspect="equal")
    panel.margins(0.1)

# %% spirals_hold tags=["hidden"]
assert not any(through_relu(n, seed=3)[1].any() for n in (15, 30))
assert all(through_relu(n, seed=3)[1].any() for n in (2, 3))

# %% flops
from torch.utils.flop_counter import FlopCounterMode

with FlopCounterMode(display=False) as counter, torch.no_grad():
    net.eval()(torch.empty(1, 3, 224, 224, device="meta"))
flops = counter.get_total_flops()
macs = total(costs, "macs") / 32  # of one image
print(f"{flops / 1e6:,.0f} million FLOPs, {macs / 1e6:,.0f} million MACs")

# %% flops_hold tags=["hidden"]
assert flops == 2 * macs

# %% widths
for width in 1.0, 1.3, 1.4:
    wanted = [channels * width for channels in (16, 24, 32, 64)]
    rounded = [round_channels(channels) for channels in wanted]
    print(
        f"{width}: {', '.join(f'{channels:.1f}' for channels in wanted)} -> {rounded}"
    )

# %% widths_hold tags=["hidden"]
assert rounded == [24, 32, 48, 88]

# %% strides
settings = (16, 1), (24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1)


def mobilenet_v2(strides, expand_first=False):
    """MobileNetV2 with a stride for each of the seven rows of its table."""
    layers, channels = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)], 32
    if expand_first:
        layers.append(nn.Conv2d(32, 32, 1, bias=False))
    for (out_channels, repeats), stride in zip(settings, strides, strict=True):
        for i in range(repeats):
            t = 1 if out_channels == 16 else 6
            step = 1 if i else stride
            block = InvertedResidual(
                channels, out_channels, stride=step, expand_ratio=t
            )
            layers.append(block)
            channels = out_channels
    layers += [nn.Conv2d(320, 1280, 1, bias=False), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1280, 1000))


right, wrong = (1, 2, 2, 2, 1, 2, 1), (1, 2, 2, 1, 2, 2, 1)
v2_macs = {}
cases = {
    "stride 2 in the row of 64": (right, False),
    "stride 2 in the row of 96": (wrong, False),
    "and a widening layer first": (wrong, True),
}
for name, (strides, first) in cases.items():
    with torch.device("meta"):
        built = mobilenet_v2(strides, expand_first=first)
    v2_macs[name] = total(layer_costs(built, (3, 224, 224)), "macs") / 1e6
    print(f"{name}: {v2_macs[name]:.0f} million MACs")

# %% strides_hold tags=["hidden"]
assert [round(macs) for macs in v2_macs.values()] == [301, 416, 429]
v2_right = v2_macs["stride 2 in the row of 64"]

# %% transposed
order = torch.arange(12).view(1, 12, 1)
print("three groups:", channel_shuffle(order, 3).flatten().tolist())
print("transposed:  ", channel_shuffle(order, 4).flatten().tolist())
for channels, groups in pairs:
    reached = reach(channels, groups, dealt=channels // groups)
    print(f"transposed, {channels} channels, {groups} groups: {reached} inputs")

# %% transposed_holds tags=["hidden"]
assert not torch.equal(channel_shuffle(order, 3), channel_shuffle(order, 4))
assert torch.equal(channel_shuffle(channel_shuffle(order, 3), 4), order)
