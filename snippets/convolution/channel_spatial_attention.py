# %% quick_start
import torch

# or torchvision.ops.SqueezeExcitation(64, 4) and timm.layers.cbam.CbamModule(64)
from zhixing.convolution.channel_spatial_attention import CBAM, SqueezeExcite

x = torch.rand(2, 64, 28, 28)
for attention in SqueezeExcite(64), CBAM(64):
    parameters = sum(p.numel() for p in attention.parameters())
    print(tuple(attention(x).shape), parameters, "parameters")

# %% quick_start_holds tags=["hidden"]
assert attention(x).shape == x.shape
assert parameters == 2 * 64 * 4 + 98 + 2

# %% setup
import math

import matplotlib.pyplot as plt
import torch.nn.functional as F
from torch import nn

from zhixing.convolution.channel_spatial_attention import ChannelGate


# %% scenes
size, peak, rise = 24, 8.0, 0.25


def scenes(cue, count, generator):
    """Draw noise, half of it with a cue; return images, and labels for each pixel."""
    noise = torch.randn(count, 1, size, size, generator=generator)
    present = torch.randint(2, (count, 1, 1, 1), generator=generator)
    labels = (noise > 0) ^ (present == 1)  # the pixel's sign, flipped by the cue
    if cue == "spread":
        images = noise + rise * present  # a little on every pixel
    else:
        pixel = torch.randint(size * size, (count,), generator=generator)
        at = F.one_hot(pixel, size * size).view_as(noise) * present
        images = torch.where(at == 1, peak, noise)  # all of it on one pixel
    return images, labels.float()


# %% picture tags=["hidden"]
generator = torch.Generator().manual_seed(0)
figure, rows = plt.subplots(2, 2, figsize=(5.2, 3.8), layout="constrained")
noise = torch.randn(1000, size * size, generator=generator)
shown = {"peak": noise.clone(), "spread": noise + rise}
shown["peak"][:, 0] = peak
overlap = {}
for axes, (cue, images) in zip(rows, shown.items(), strict=True):
    plain = torch.randn(1000, size * size, generator=generator)
    for panel, statistic in zip(axes, ("mean", "max"), strict=True):
        reduce = torch.mean if statistic == "mean" else torch.amax
        without, found = reduce(plain, 1), reduce(images, 1)
        edges = (-0.2, 0.45, 40) if statistic == "mean" else (2, 9, 22)
        edges = torch.linspace(*edges).numpy()
        for values, name in (without, "no cue"), (found, f"{cue} cue"):
            panel.hist(values.numpy(), edges, density=True, alpha=0.6, label=name)
        panel.set_yticks([])
        # The share that the best threshold gets right; half of the images have a cue.
        edges = torch.cat([without, found])[:, None]
        right = (without < edges).float().mean(1) + (found >= edges).float().mean(1)
        overlap[cue, statistic] = right.max().item() / 2
    axes[1].legend()
    axes[0].set_ylabel("density")
rows[1, 0].set_xlabel("mean of the pixels")
rows[1, 1].set_xlabel("maximum of the pixels")

# %% picture_holds tags=["hidden"]
assert overlap["peak", "max"] > 0.99
assert overlap["spread", "mean"] > 0.98
assert overlap["peak", "mean"] < 0.65
assert overlap["spread", "max"] < 0.75
pixels = size * size
deviation = math.pi / math.sqrt(12 * math.log(pixels))
mean_peak, mean_spread = peak / size, rise * size
limit_max = math.sqrt(2 * math.log(pixels))
max_peak = (peak - limit_max) / deviation
max_spread = rise / deviation
# The distribution function of the maximum is that of one pixel to the power N.
points = torch.linspace(-8, 8, 100_001, dtype=torch.float64)
below = torch.special.ndtr(points) ** pixels
exact_max = ((points[1:] + points[:-1]) / 2 @ below.diff()).item()
assert 3 < exact_max < 3.2 < limit_max < 3.6
best = 1 - math.erf(rise / math.sqrt(2)) / 4  # half of the images lose some signs

# %% against_torch
torch.manual_seed(0)
x = torch.randn(2, 64, 14, 14)
attention = SqueezeExcite(64)
gates = nn.Sequential(
    nn.AdaptiveAvgPool2d(1), attention.fc1, nn.ReLU(), attention.fc2, nn.Sigmoid()
)
print("equal:", torch.allclose(attention(x), x * gates(x)))
print(f"gates of fresh weights: {gates(x).min():.2f} to {gates(x).max():.2f}")

# %% against_torch_holds tags=["hidden"]
assert torch.allclose(attention(x), x * gates(x))
assert (gates(x) - 0.5).abs().max() < 0.25

# %% counts
resnet50 = 25_557_032
blocks = {256: 3, 512: 4, 1024: 6, 2048: 3}  # channels of the output, blocks
added = sum(n * 2 * channels**2 // 16 for channels, n in blocks.items())
last_stage = blocks[2048] * 2 * 2048**2 // 16
biases = sum(n * (channels // 16 + channels) for channels, n in blocks.items())
print(f"MLPs {added:,}, of which the last stage {last_stage:,}; biases {biases:,}")
print(f"SE   {(resnet50 + added + biases) / 1e6:.2f} M")
print(f"CBAM {(resnet50 + added + 16 * 100) / 1e6:.2f} M", end=", ")
print(f"with biases {(resnet50 + added + biases + 16 * 100) / 1e6:.2f} M")

# %% counts_hold tags=["hidden"]
modules = [SqueezeExcite(c) for c, n in blocks.items() for _ in range(n)]
assert sum(p.numel() for m in modules for p in m.parameters()) == added + biases
modules = [CBAM(c) for c, n in blocks.items() for _ in range(n)]
assert sum(p.numel() for m in modules for p in m.parameters()) == added + 16 * 100
assert f"{(resnet50 + added + biases) / 1e6:.2f}" == "28.09"
last_share = last_stage / added


# %% classify
readout = torch.tensor([4.0, -4.0, -4.0, 4.0]).view(4, 1, 1)


def classify(gate, images):
    """Logits for each pixel: its own value, or minus its value, as the gates decide."""
    x = F.relu(torch.cat([images, -images, images, -images], 1))
    return (readout * gate(x)).sum(1, keepdim=True)


def accuracies(gate, seed, checkpoints):
    """Train on both cues; return the shares of correct pixels for each cue."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.03, fused=True)
    shares = []
    for step in range(max(checkpoints) + 1):
        if step in checkpoints:
            for cue in "peak", "spread":
                images, labels = scenes(cue, 200, generator)
                right = (classify(gate, images).detach() > 0) == (labels == 1)
                shares.append(right.float().mean().item())
        drawn = [scenes(cue, 5, generator) for cue in ("peak", "spread")]
        images, labels = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        optimizer.zero_grad()
        logits = classify(gate, images)
        F.binary_cross_entropy_with_logits(logits, labels).backward()
        optimizer.step()
    return shares


# %% distant_cue
checkpoints = 100, 400
results = {}
for pools in ("mean",), ("max",), ("mean", "max"):
    runs = []
    for seed in range(3):
        torch.manual_seed(seed)
        gate = ChannelGate(4, hidden=16, pools=pools, bias=True)
        runs.append(accuracies(gate, seed, checkpoints))
    results[pools] = torch.tensor(runs).view(3, len(checkpoints), 2)
    for i, steps in enumerate(checkpoints):
        for j, cue in enumerate(("peak", "spread")):
            row = "  ".join(f"{share:.2f}" for share in results[pools][:, i, j])
            print(f"{'+'.join(pools):8} {steps} steps, {cue:6}  {row}")

# %% distant_cue_holds tags=["hidden"]
mean, maximum, both = results.values()
first_steps, last_steps = checkpoints
assert mean[:, :, 0].max() < 0.75
assert mean[:, -1, 1].min() > 0.65
assert maximum[:, :, 1].max() < 0.8
assert maximum[:, -1, 0].min() > 0.75
assert both[:, -1].min() > 0.85
assert mean[:, -1, 0].max() < both[:, -1, 0].min()
assert maximum[:, -1, 1].max() < both[:, -1, 1].min()
assert both[:, 0, 1].min() < 0.85 < both[:, -1, 1].min()


# %% two_mlps tags=["hidden"]
class TwoMLPs(nn.Module):
    """A channel gate with one MLP for the means and another for the maxima."""

    def __init__(self):
        super().__init__()
        layers = [(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4)) for _ in range(2)]
        self.mlps = nn.ModuleList(nn.Sequential(*mlp) for mlp in layers)

    def forward(self, x):
        logits = self.mlps[0](x.mean((2, 3))) + self.mlps[1](x.amax((2, 3)))
        return x * logits.sigmoid()[:, :, None, None]


separate = []
for seed in range(3):
    torch.manual_seed(seed)
    separate.append(accuracies(TwoMLPs(), seed, checkpoints[:1]))
lowest_separate = min(spread for _, spread in separate)
assert lowest_separate > 0.85 > both[:, 0, 1].max()

# %% without_biases tags=["hidden"]
torch.manual_seed(0)
assert accuracies(ChannelGate(4, hidden=16), 0, checkpoints)[-1] < both[:, -1, 1].min()

# %% bugs
torch.manual_seed(0)
gate = ChannelGate(64, hidden=16)
mlp = nn.Sequential(gate.fc1, nn.ReLU(), gate.fc2)
mean, maximum = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
variants = {
    "as published": lambda x: (mlp(mean(x)) + mlp(maximum(x))).sigmoid(),
    "not pooled": lambda x: (2 * mlp(x)).sigmoid(),
    "mean twice": lambda x: (mlp(mean(x)) + mlp(mean(x))).sigmoid(),
    "no sigmoid": lambda x: mlp(mean(x)) + mlp(maximum(x)),
}
image = torch.randn(1, 64, 8, 8)
far, raised = image.clone(), image.clone()
far[..., 7, 7] += 20
raised[..., 7, 7] += 20  # a peak and a trough …
raised[..., 7, 6] -= 20  # … that leave the mean as it is
answers = {}
for name, gates in variants.items():
    here = [gates(x)[..., 0, 0] for x in (image, far, raised)]
    answers[name] = [
        not torch.allclose(here[0], here[1], atol=1e-4),
        not torch.allclose(here[0], here[2], atol=1e-4),
        bool(((here[0] > 0) & (here[0] < 1)).all()),
    ]
    far_pixel, peak_alone, inside = ("yes" if a else "NO" for a in answers[name])
    print(f"{name:12} far pixel {far_pixel:3}  peak {peak_alone:3}  in (0, 1) {inside}")

# %% bugs_hold tags=["hidden"]
assert torch.allclose(gate(image), image * variants["as published"](image), atol=1e-6)
assert list(answers.values()) == [
    [True, True, True],
    [False, False, True],
    [True, False, True],
    [True, True, False],
]

# %% authors_order
torch.manual_seed(0)
attention = CBAM(64, bias=True).eval()
spatial = attention.spatial.conv["conv"]
image = torch.randn(1, 64, 14, 14)
right = attention(image)
with torch.no_grad():
    spatial.weight.copy_(spatial.weight.flip(1))  # as the authors' code would save it
wrong = attention(image)
print(f"the other order: {(wrong - right).norm() / right.norm():.0%} off")
with torch.no_grad():
    spatial.weight.copy_(spatial.weight.flip(1))  # what a loader has to do
print("flipped back:", torch.equal(attention(image), right))

# %% authors_order_holds tags=["hidden"]
assert torch.equal(attention(image), right)
assert (wrong - right).norm() > 0.02 * right.norm()

# %% into_trained
torch.manual_seed(0)
image = torch.randn(2, 64, 14, 14)
norm, attention = nn.BatchNorm2d(64).eval(), CBAM(64).eval()
before = norm(image)
left = attention(norm(image)).norm() / before.norm()
print(f"fresh: {left:.2f} of the branch is left")
with torch.no_grad():
    attention.channel.fc2.weight.zero_()  # both gates are now exactly 1/2 …
    attention.spatial.conv["bn"].weight.zero_()
    norm.weight.mul_(4)  # … and a factor of 4 makes up for them
    norm.bias.mul_(4)
print("halved twice and scaled: equal is", torch.equal(attention(norm(image)), before))

# %% into_trained_holds tags=["hidden"]
assert torch.equal(attention(norm(image)), before)
assert 0.15 < left < 0.4

# %% padded
torch.manual_seed(0)
image = torch.rand(1, 64, 20, 20)
padded = F.pad(image, (0, 20, 0, 20))  # into a batch with larger images
for name, pool in ("mean", F.adaptive_avg_pool2d), ("max", F.adaptive_max_pool2d):
    ratio = (pool(padded, 1) / pool(image, 1)).mean()
    print(f"{name:4} of the padded image: {ratio:.2f} times the original")

# %% padded_holds tags=["hidden"]
assert torch.allclose(padded.mean((2, 3)), image.mean((2, 3)) / 4)
assert torch.equal(padded.amax((2, 3)), image.amax((2, 3)))
