# %% quick_start
from torch import nn

from zhixing.convolution.dilated_convolution import has_holes

layer = nn.Conv2d(64, 64, kernel_size=3, dilation=4, padding=4)  # keeps the size
for rates in [2, 2, 2], [1, 2, 4], [1, 3, 9], [1, 2, 9]:
    print(rates, "holes" if has_holes(rates) else "no holes")

# %% setup
import itertools
import math

import torch
import torch.nn.functional as F

from zhixing.convolution.dilated_convolution import (
    ContextModule,
    causal_conv1d,
    dilated_conv2d,
    path_counts,
)

# %% picture
import matplotlib.pyplot as plt

figure, rows = plt.subplots(3, 1, figsize=(5.2, 4.6), sharex=True)
for axes, rates in zip(rows, [(2, 2, 2), (1, 2, 4), (1, 3, 9)], strict=True):
    counts = path_counts(rates)
    offsets = torch.arange(len(counts)) - len(counts) // 2
    axes.bar(offsets, counts, width=0.8, label="paths")
    holes = offsets[counts == 0]
    if len(holes):
        axes.plot(holes, 0 * holes + 0.25, "x", color="C1", label="holes")
        axes.legend(loc="upper right")
    axes.set(
        title=f"rates {rates[0]}, {rates[1]}, {rates[2]}",
        ylabel="paths",
        yticks=[0, counts.max()],
    )
rows[-1].set(xlabel="position relative to the output pixel (pixels)")

# %% picture_holds tags=["hidden"]
assert len(path_counts([2, 2, 2])) == 13
assert (path_counts([2, 2, 2]) == 0).sum() == 6
assert path_counts([2, 2, 2]).max() == 7
assert path_counts([1, 2, 4]).tolist() == [1, 1, 2, 1, 3, 2, 3, 1, 3, 2, 3, 1, 2, 1, 1]
assert path_counts([1, 3, 9]).tolist() == [1] * 27
assert not has_holes([1, 2, 7])
assert has_holes([1, 2, 8])

# %% phases
generator = torch.Generator().manual_seed(0)
x = torch.randn(2, 3, 13, 18, generator=generator, dtype=torch.float64)
weight = torch.randn(4, 3, 3, 3, generator=generator, dtype=torch.float64)
for d in 2, 3, 5:
    theirs = F.conv2d(x, weight, padding="same", dilation=d)
    difference = (dilated_conv2d(x, weight, dilation=d) - theirs).abs().max()
    print(f"rate {d}: {d * d:2} phases, equal to 1e-12: {bool(difference < 1e-12)}")

# %% phases_agree tags=["hidden"]
for d in 2, 3, 5:
    theirs = F.conv2d(x, weight, padding="same", dilation=d)
    assert (dilated_conv2d(x, weight, dilation=d) - theirs).abs().max() < 1e-12

# %% growth
schedules = {"all 1": lambda i: 1, "doubled": lambda i: 2**i, "tripled": lambda i: 3**i}
for name, rate in schedules.items():
    stacks = [path_counts([rate(i) for i in range(n)]) for n in range(1, 6)]
    fields = "".join(f"{len(counts):5}" for counts in stacks)
    print(f"{name:8} fields{fields}   most paths to a pixel {stacks[-1].max():3}")

# %% growth_holds tags=["hidden"]
for n in range(1, 9):
    assert len(path_counts([1] * n)) == 2 * n + 1
    assert len(path_counts([2**i for i in range(n)])) == 2 ** (n + 1) - 1
    assert path_counts([3**i for i in range(n)]).tolist() == [1] * 3**n
most_ones = path_counts([1] * 5).max().item()
most_doubled = path_counts([2**i for i in range(5)]).max().item()


# %% neighbour
def accuracy(rates, seed, steps=80):
    """Train a stack to tell the sign of each pixel's right neighbour."""
    torch.manual_seed(seed)
    stack = nn.Sequential()
    for d in rates:
        stack.extend([nn.LazyConv2d(8, 3, dilation=d, padding=d), nn.ReLU()])
    stack.append(nn.LazyConv2d(1, 1))
    stack(torch.zeros(1, 1, 16, 16))  # makes the weights
    optimizer = torch.optim.Adam(stack.parameters(), lr=0.02)
    for _ in range(steps):
        image = torch.randn(16, 1, 16, 16).sign()
        logits, positive = stack(image)[..., :-1], image[..., 1:] > 0
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(logits, positive.float()).backward()
        optimizer.step()
    image = torch.randn(1000, 1, 16, 16).sign()
    right = (stack(image).detach()[..., :-1] > 0) == (image[..., 1:] > 0)
    return right.float().mean().item()


found = {
    rates: [accuracy(rates, seed) for seed in range(3)]
    for rates in [(2, 2, 2), (1, 2, 3)]
}
for rates, accuracies in found.items():
    print(rates, "".join(f"{value:6.2f}" for value in accuracies))

# %% neighbour_holds tags=["hidden"]
chance_lowest, chance_highest = min(found[2, 2, 2]), max(found[2, 2, 2])
learned_lowest = min(found[1, 2, 3])
assert 0.49 < chance_lowest <= chance_highest < 0.51
assert learned_lowest > 0.95


# %% hdc
def second_distance(rates):
    """M₂ of Wang et al., from M_n = d_n."""
    distance = rates[-1]
    for rate in reversed(rates[1:-1]):
        distance = max(distance - 2 * rate, 2 * rate - distance, rate)
    return distance


def passes(rates, kernel_size=3):
    """The rule of Wang et al.: M₂ ≤ K, and no common factor above 1."""
    return second_distance(rates) <= kernel_size and math.gcd(*rates) == 1


for rates in [1, 2, 5], [1, 2, 9], [2, 2, 2], [2, 3, 5]:
    verdict = "passes" if passes(rates) else "denied"
    truth = "holes" if has_holes(rates) else "no holes"
    print(rates, f"M₂ = {second_distance(rates)}, {verdict}, {truth}")
stacks = list(itertools.combinations_with_replacement(range(1, 13), 4))
print(f"of {len(stacks)} stacks:")
for K in 2, 3, 4, 5:
    accepted = {r for r in stacks if passes(r, K)}
    holed = {r for r in stacks if has_holes(r, kernel_size=K)}
    wrong, from_1 = accepted & holed, sum(r[0] == 1 for r in accepted & holed)
    print(
        f"K = {K}: {len(wrong):3} pass with holes, {from_1:2} of them from 1", end=", "
    )
    print(f"{len(set(stacks) - accepted - holed):2} denied without holes")

# %% hdc_holds tags=["hidden"]
offsets = torch.arange(21) - 10
missed_offsets = offsets[path_counts([2, 3, 5]) == 0].tolist()
assert missed_offsets == [-9, 9]
# {(kernel size, whether it passes)} of misjudged stacks, by first rate
wrong_from_1, wrong_from_above = set(), set()
for K in 2, 3, 4, 5:
    for layers in 2, 3, 4, 5:
        for r in itertools.combinations_with_replacement(range(1, 13), layers):
            if passes(r, K) == has_holes(r, kernel_size=K):
                wrong = wrong_from_1 if r[0] == 1 else wrong_from_above
                wrong.add((K, passes(r, K)))
# From rate 1, K = 3 is right, K = 2 passes holes, K = 4 and 5 deny good stacks.
assert wrong_from_1 == {(2, True), (4, False), (5, False)}
# Every stack that starts above 1 has holes, but may pass at each K.
assert wrong_from_above == {(2, True), (3, True), (4, True), (5, True)}
assert second_distance([2, 2, 2]) <= 3
assert not passes([2, 2, 2])
assert not passes([1, 3, 1])  # denied, since it does not ascend
assert not has_holes([1, 3, 1])

# %% context
module = ContextModule(21)
fields = [len(path_counts(module.rates[: n + 1])) for n in range(7)]
weights = sum(layer.weight.numel() for layer in module.layers)
print("receptive fields", fields)
print(f"{weights} weights = 64 · 21²: {weights == 64 * 21**2}")

# %% context_holds tags=["hidden"]
assert fields == [3, 5, 9, 17, 33, 65, 67]
assert weights == 64 * 21**2


# %% stride
def features(image, kernels, strides, dilations):
    for kernel, stride, d in zip(kernels, strides, dilations, strict=True):
        image = F.relu(F.conv2d(image, kernel, stride=stride, padding=d, dilation=d))
    return image


torch.manual_seed(0)
kernels = [torch.randn(16, 16, 3, 3, dtype=torch.float64) / 12 for _ in range(4)]
image = torch.randn(1, 16, 64, 64, dtype=torch.float64)
coarse = features(image, kernels, (2, 1, 2, 1), (1, 1, 1, 1))
changes = {}
for name, rates in {"right": (1, 2, 2, 4), "a layer early": (2, 2, 4, 4)}.items():
    sampled = features(image, kernels, (1, 1, 1, 1), rates)[..., ::4, ::4]
    changes[name] = ((sampled - coarse).norm() / coarse.norm()).item()
    print(f"{name:13} rates {rates}, relative difference {changes[name]:.2f}")

# %% stride_holds tags=["hidden"]
assert changes["right"] < 1e-12
early_change = changes["a layer early"]
assert early_change > 0.3

# %% future
series = torch.randn(1, 16, 4, requires_grad=True)  # batch, time, channels
first, second = (torch.randn(4, 4, 3) for _ in range(2))


def symmetric(x, weight, dilation):
    return F.conv1d(x.mT, weight, padding=dilation, dilation=dilation).mT


for conv in symmetric, causal_conv1d:
    step_8 = conv(conv(series, first, dilation=1), second, dilation=2)[0, 8]
    (gradient,) = torch.autograd.grad(step_8.sum(), series)
    seen = gradient[0].abs().sum(1).nonzero().flatten().tolist()
    print(f"{conv.__name__:13} step 8 sees {seen}")

# %% future_holds tags=["hidden"]
assert seen == list(range(2, 9))
step_8 = symmetric(symmetric(series, first, 1), second, 2)[0, 8]
(gradient,) = torch.autograd.grad(step_8.sum(), series)
assert gradient[0].abs().sum(1).nonzero().flatten().tolist() == list(range(5, 12))

# %% taps
figure, axes = plt.subplots(figsize=(5.2, 3.3))
rate = torch.arange(1, 37)
for size, style in (65, "-"), (33, "--"), (21, "-."):
    inside = ((1 + 2 * (1 - rate / size).clamp(min=0)) / 3) ** 2
    axes.plot(rate, inside, style, label=f"map of {size} × {size}")
axes.axhline(1 / 9, linestyle=":", color="gray", label="only the middle tap")
axes.set(xlabel="rate $d$", ylabel="share of the kernel on the map", ylim=(0, 1))
axes.legend()

# %% taps_hold tags=["hidden"]


def share(rate, size):
    ones = torch.ones(1, 1, size, size, dtype=torch.float64)
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    return F.conv2d(ones, kernel, padding=rate, dilation=rate).mean().item() / 9


for size in 65, 33, 21:
    for d in 1, 6, 18, 36:
        formula = ((1 + 2 * max(0, 1 - d / size)) / 3) ** 2
        assert abs(share(d, size) - formula) < 1e-12
share_large, share_small = share(18, 33), share(18, 21)
assert share_small < share_large / 2
