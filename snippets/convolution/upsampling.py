# %% quick_start
import torch
from torch import nn

resize_convolution = nn.Sequential(
    nn.Upsample(scale_factor=2, mode="nearest"),
    nn.Conv2d(8, 4, 3, padding=1),
)
transposed = nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1)
subpixel = nn.Sequential(nn.Conv2d(8, 4 * 2**2, 3, padding=1), nn.PixelShuffle(2))

x = torch.rand(1, 8, 16, 16)
for layer in (resize_convolution, transposed, subpixel):
    count = sum(p.numel() for p in layer.parameters())
    print(f"{tuple(layer(x).shape)}, {count} parameters")

# %% copies
import matplotlib.pyplot as plt

KERNELS = {
    "kernel 3, all weights 1": [1.0, 1.0, 1.0],
    "kernel 4, unequal weights": [0.2, 0.9, 0.5, 0.4],
    "resize, then convolve": [0.3, 0.8, 0.7, 0.2],
}
figure, panels = plt.subplots(3, 1, figsize=(4, 5), sharex=True, sharey=True)
for axes, (title, kernel) in zip(panels, KERNELS.items(), strict=True):
    height = torch.zeros(2 * 5 + len(kernel))
    for pixel in range(6):
        covered = slice(2 * pixel, 2 * pixel + len(kernel))
        positions = range(covered.start, covered.stop)
        axes.bar(positions, kernel, bottom=height[covered], color=f"C{pixel % 2}")
        height[covered] += torch.tensor(kernel)
    axes.set_title(title, fontsize="medium")
panels[1].set(ylabel="sum of the copies")
panels[2].set(xlabel="output pixel")

# %% setup
import math

import torch.nn.functional as F

from zhixing.convolution.upsampling import (
    conv_transpose2d,
    icnr_,
    phase_sums,
    pixel_shuffle,
    resize_linear,
    source_positions,
)

torch.manual_seed(0)


def equal(ours, theirs):
    return torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


# %% adjoint
weight = torch.randn(3, 2, 3, 3, dtype=torch.float64)
for size in (7, 8):
    large = torch.randn(1, 2, size, size, dtype=torch.float64, requires_grad=True)
    small = F.conv2d(large, weight, stride=2, padding=1)
    arriving = torch.randn_like(small)
    (gradient,) = torch.autograd.grad(small, large, arriving)
    extra = 1 - size % 2
    ours = conv_transpose2d(arriving, weight, stride=2, padding=1, output_padding=extra)
    print(f"{size} → {small.shape[-1]} → {ours.shape[-1]}:", equal(ours, gradient))

# %% adjoint_holds tags=["hidden"]
assert equal(ours, gradient)
assert small.shape[-1] == 4
assert ours.shape[-1] == 8
stuffed = torch.zeros(1, 3, 7, 7, dtype=torch.float64)
stuffed[:, :, ::2, ::2] = arriving
flipped = weight.transpose(0, 1).flip(2, 3)
padded = F.pad(stuffed, (1, 2, 1, 2))  # k - 1 - p = 1, and one pixel of output padding
assert equal(ours, F.conv2d(padded, flipped))
theirs = F.conv_transpose2d(arriving, weight, stride=2, padding=1, output_padding=1)
assert equal(ours, theirs)

# %% phases
lines = {
    "kernel 3, all 1": torch.ones(3),
    "kernel 4, all 1": torch.ones(4),
    "kernel 4, uneven": torch.tensor([0.2, 0.9, 0.5, 0.4]),
    "kernel 3, linear": torch.tensor([0.5, 1.0, 0.5]),
    "kernel 4, tied": torch.tensor([0.3, 0.8, 0.7, 0.2]),
}
for name, line in lines.items():
    sums = phase_sums((line[:, None] * line)[None, None], 2).flatten()
    print(f"{name:16}", "  ".join(f"{value:.2f}" for value in sums))

# %% phases_hold tags=["hidden"]
uneven = {
    name: phase_sums((line[:, None] * line)[None, None], 2).std().item()
    for name, line in lines.items()
}
assert min(uneven["kernel 3, all 1"], uneven["kernel 4, uneven"]) > 0.1
even = uneven["kernel 4, all 1"], uneven["kernel 3, linear"], uneven["kernel 4, tied"]
assert max(even) < 1e-6

# %% subpixel
k, r, c_in, c_out = 3, 2, 5, 4
weight = torch.randn(c_out * r**2, c_in, k, k, dtype=torch.float64)
x = torch.randn(1, c_in, 6, 7, dtype=torch.float64)
shuffled = pixel_shuffle(F.conv2d(x, weight, padding=k // 2), r)

taps = weight.view(c_out, r, r, c_in, k, k).flip(4, 5)
large = taps.permute(3, 0, 4, 1, 5, 2).reshape(c_in, c_out, k * r, k * r)
transposed = conv_transpose2d(x, large, stride=r, padding=r * (k - 1) // 2)
print("equal to 1e-12:", equal(shuffled, transposed))

# %% subpixel_holds tags=["hidden"]
assert equal(shuffled, transposed)
assert equal(shuffled, F.pixel_shuffle(F.conv2d(x, weight, padding=k // 2), r))

# %% centres
for align in (False, True):
    positions = source_positions(4, 8, align_corners=align)
    print(f"align_corners={align!s:5}", [round(u, 2) for u in positions.tolist()])
x = torch.rand(1, 3, 10, 13, dtype=torch.float64)
for align in (False, True):
    ours = resize_linear(x, (25, 17), align_corners=align)
    theirs = F.interpolate(x, (25, 17), mode="bilinear", align_corners=align)
    print(f"align_corners={align!s:5} equal to 1e-12:", equal(ours, theirs))

# %% centres_hold tags=["hidden"]
for align in (False, True):
    ours = resize_linear(x, (25, 17), align_corners=align)
    theirs = F.interpolate(x, (25, 17), mode="bilinear", align_corners=align)
    assert equal(ours, theirs)
# At both ends the conventions differ by (1 - n_in / n_out) / 2 input pixels.
gap = source_positions(10, 25, align_corners=True) - source_positions(10, 25)
assert math.isclose(gap[0], (1 - 10 / 25) / 2)
assert math.isclose(gap[-1], -(1 - 10 / 25) / 2)

# %% ramp_holds tags=["hidden"]
# On a ramp, increments after nearest have period 2, and those after linear are equal.
ramp = torch.arange(12, dtype=torch.float64).expand(1, 1, 12, 12)
mean = torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64)
bent, straight = (
    F.conv2d(F.interpolate(ramp, scale_factor=2, mode=mode), mean)[0, 0, 9, 4:-4]
    for mode in ("nearest", "bilinear")
)
assert bent.diff(n=2).abs().min() > 0.3
assert straight.diff(n=2).abs().max() < 1e-9


# %% kinds
def shuffle(c_in, c_out, *, icnr=False):
    convolution = nn.Conv2d(c_in, 4 * c_out, 3, padding=1)
    if icnr:
        icnr_(convolution.weight, 2)
        icnr_(convolution.bias, 2)
    return nn.Sequential(convolution, nn.PixelShuffle(2))


def resize(c_in, c_out):
    convolution = nn.Conv2d(c_in, c_out, 3, padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2), convolution)


def transpose(c_in, c_out, kernel):
    extra = kernel % 2
    return nn.ConvTranspose2d(c_in, c_out, kernel, 2, padding=1, output_padding=extra)


KINDS = {
    "kernel 3": lambda c_in, c_out: transpose(c_in, c_out, 3),
    "kernel 4": lambda c_in, c_out: transpose(c_in, c_out, 4),
    "shuffle": shuffle,
    "shuffle, ICNR": lambda c_in, c_out: shuffle(c_in, c_out, icnr=True),
    "resize": resize,
}


# %% train
def smooth_images(generator):
    coarse = torch.rand(4, 1, 6, 6, generator=generator)
    return F.interpolate(coarse, 24, mode="bicubic")


def responses(kind, seed, steps=(0, 20, 100)):
    """Train to enlarge images; return the answers to a grey image at these steps."""
    torch.manual_seed(seed)
    up, generator = KINDS[kind], torch.Generator().manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), up(8, 8), nn.ReLU(), up(8, 1)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    grey, answers = torch.full((1, 1, 12, 12), 0.5), []
    for step in range(steps[-1] + 1):
        if step in steps:
            with torch.no_grad():
                answers.append(net(grey)[0, 0, 16:-16, 16:-16])  # far from the border
        images = smooth_images(generator)
        loss = F.mse_loss(net(F.avg_pool2d(images, 4)), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.stack(answers)


# %% checkerboard
answers = {kind: torch.stack([responses(kind, s) for s in range(3)]) for kind in KINDS}
print("standard deviation  at the start   after 20 steps   after 100")
for kind, answer in answers.items():
    spread = answer.std(dim=(2, 3))  # of the three seeds at the three steps
    ranges = zip(spread.amin(0).tolist(), spread.amax(0).tolist(), strict=True)
    print(f"{kind:19}", "     ".join(f"{a:.3f} to {b:.3f}" for a, b in ranges))

# %% checkerboard_holds tags=["hidden"]
# By kind, seed and step.
spreads = {kind: answer.std(dim=(2, 3)) for kind, answer in answers.items()}
assert spreads["resize"].max() < 1e-5
assert spreads["shuffle, ICNR"][:, 0].max() < 1e-5
for kind in KINDS.keys() - {"resize"}:
    assert spreads[kind][:, 2].min() > 0.004
    assert spreads[kind][:, 1].min() > 0.003
    assert kind == "shuffle, ICNR" or spreads[kind][:, 0].min() > 0.01
trained = torch.stack([spreads[kind][:, 2] for kind in KINDS if kind != "resize"])
least_trained, most_trained = trained.min().item(), trained.max().item()

# %% picture tags=["hidden"]
figure, grid = plt.subplots(5, 3, figsize=(4, 7))
for row, (kind, answer) in zip(grid, answers.items(), strict=True):
    row[0].set(ylabel=kind)
    for axes, image in zip(row, answer[0], strict=True):
        picture = axes.imshow(image - image.mean(), vmin=-0.2, vmax=0.2, cmap="gray")
        axes.set(xticks=[], yticks=[])
labels = "at the start", "after 20 steps", "after 100 steps"
for axes, label in zip(grid[0], labels, strict=True):
    axes.set_title(label, fontsize="small")
label = "output minus its mean"
figure.colorbar(picture, ax=grid, label=label, location="bottom", aspect=30)


# %% scale_factor
def resized(n):
    return F.interpolate(torch.zeros(1, 1, n), scale_factor=120 / n).shape[-1]


wrong = [n for n in range(1, 400) if resized(n) != 120]
print(f"88 pixels become {resized(88)}")
print(f"{len(wrong)} of 399 sizes do not become 120")

# %% scale_factor_values tags=["hidden"]
from_88 = resized(88)

# %% nearest
pixels = torch.arange(12.0).view(1, 1, 12)
for mode in ("nearest", "nearest-exact", "linear"):
    print(f"{mode:13}", F.interpolate(pixels, 4, mode=mode).flatten().tolist())
print("ours         ", source_positions(12, 4).tolist())

# %% nearest_holds tags=["hidden"]
assert source_positions(12, 4).tolist() == [1, 4, 7, 10]
assert F.interpolate(pixels, 4, mode="linear").flatten().tolist() == [1, 4, 7, 10]

# %% shrinking
noise = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
for antialias in (False, True):
    small = F.interpolate(noise, (32, 32), mode="bilinear", antialias=antialias)
    print(f"antialias={antialias!s:5}  standard deviation {small.std():.2f}")

# %% shrinking_holds tags=["hidden"]
plain = F.interpolate(noise, (32, 32), mode="bilinear").std().item()
smooth = F.interpolate(noise, (32, 32), mode="bilinear", antialias=True).std().item()
assert abs(plain - 0.5) < 0.06
assert smooth < plain / 3

# %% half_icnr
torch.manual_seed(0)
grey = torch.full((1, 8, 6, 6), 0.5)


def tile(weight):
    with torch.no_grad():
        weight.copy_(weight[: len(weight) // 4].repeat(4, *[1] * (weight.ndim - 1)))


for name, change in {
    "no ICNR": lambda c: None,
    "tiled": lambda c: (tile(c.weight), tile(c.bias)),
    "weight only": lambda c: icnr_(c.weight, 2),
    "weight and bias": lambda c: (icnr_(c.weight, 2), icnr_(c.bias, 2)),
}.items():
    convolution = nn.Conv2d(8, 4 * 4, 3)
    change(convolution)
    with torch.no_grad():
        spread = F.pixel_shuffle(convolution(grey), 2).std(dim=(2, 3)).mean()
    print(f"{name:15}  {spread:.3f}")

# %% half_icnr_holds tags=["hidden"]
assert spread < 1e-6
for change in (
    lambda c: None,
    lambda c: (tile(c.weight), tile(c.bias)),
    lambda c: icnr_(c.weight, 2),
):
    convolution = nn.Conv2d(8, 4 * 4, 3)
    change(convolution)
    assert F.pixel_shuffle(convolution(grey), 2).std(dim=(2, 3)).mean() > 0.01
