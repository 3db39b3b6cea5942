# %% quick_start
import torch

# or torchvision.ops.deform_conv2d, which also takes pairs such as padding=(1, 2)
from zhixing.convolution.deformable_convolution import deform_conv2d

x = torch.rand(1, 16, 32, 32)
weight = torch.rand(8, 16, 3, 3)
offset = torch.zeros(1, 18, 32, 32)  # (down, right) of tap 0, of tap 1, … of tap 8
offset[:, 2 * 5 + 1] = 4.0  # tap 5 reads four pixels further to the right
mask = torch.ones(1, 9, 32, 32)  # v2 only: a factor for each tap
y = deform_conv2d(x, offset, weight, padding=1, mask=mask)
print(tuple(y.shape))

# %% setup
import math

import matplotlib.pyplot as plt
import torch.nn.functional as F
from torch import nn

from zhixing.convolution.deformable_convolution import DeformConv2d, sampling_points

torch.manual_seed(0)


def equal(ours, theirs):
    return torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


# %% picture tags=["hidden"]
# A bar that is turned by 30 degrees, in an image of 25 × 25 pixels.
cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
rows, columns = torch.meshgrid(torch.arange(25.0), torch.arange(25.0), indexing="ij")
along = (columns - 12) * cos - (rows - 12) * sin
across = (columns - 12) * sin + (rows - 12) * cos
bar = torch.sigmoid(2 * (3.5 - across.abs())) * torch.sigmoid(2 * (10 - along.abs()))
p = torch.cartesian_prod(
    torch.arange(-1.0, 2.0), torch.arange(-1.0, 2.0)
)  # (row, column)
turned = (p * torch.tensor([2.0, 7.0])) @ torch.tensor([[cos, sin], [-sin, cos]])
turned[[6, 8]] += torch.tensor([4.0, 1.0])  # two taps that miss the bar
PANELS = {
    "convolution": (torch.zeros(9, 2), torch.ones(9)),
    "v1: offsets": (turned - p, torch.ones(9)),
    "v2: offsets and masks": (turned - p, torch.tensor([1.0] * 6 + [0.1, 1.0, 0.1])),
}
figure, panels = plt.subplots(1, 3, figsize=(7, 3), sharey=True)
for axes, (title, (offsets, masks)) in zip(panels, PANELS.items(), strict=True):
    offset = offsets.reshape(1, 18, 1, 1).expand(1, 18, 25, 25)
    points = sampling_points(offset, padding=1)[0, :, 12, 12]
    axes.imshow(bar, cmap="gray", alpha=0.5, vmin=-0.5, vmax=1.2)
    axes.grid(visible=False)
    for start, end in zip((p + 12).tolist(), points.tolist(), strict=True):
        axes.plot([start[1], end[1]], [start[0], end[0]], color="C0", linewidth=0.8)
    axes.scatter(points[:, 1], points[:, 0], s=25 * masks, color="C1", zorder=3)
    axes.set(title=title, xlabel="column", xticks=[0, 12, 24], yticks=[0, 12, 24])
    axes.title.set_fontsize("medium")
panels[0].set(ylabel="row")

# %% special_cases
x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
steps = torch.arange(-1, 2, dtype=torch.float64)
taps = torch.cartesian_prod(steps, steps)  # (row, column) of each tap, row by row


def everywhere(offsets):  # the same nine offsets at each pixel
    return offsets.reshape(1, 18, 1, 1).expand(2, 18, 9, 8)


ours = deform_conv2d(x, everywhere(0 * taps), weight, padding=1)
print("zero offsets are convolution:", equal(ours, F.conv2d(x, weight, padding=1)))
ours = deform_conv2d(x, everywhere(2 * taps), weight, padding=1)
theirs = F.conv2d(x, weight, padding=3, dilation=3)
print("offsets 2 p are dilation 3:  ", equal(ours, theirs))

# %% special_cases_hold tags=["hidden"]
assert equal(ours, theirs)
assert equal(
    deform_conv2d(x, everywhere(0 * taps), weight, padding=1),
    F.conv2d(x, weight, padding=1),
)


# %% textures
def textures(blur, count, size, seed=0):
    """Noise with standard deviation 1, blurred by a Gaussian of this width."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, size, size, generator=generator)
    if blur:
        distance = torch.arange(-3.0 * blur, 3 * blur + 1)
        line = torch.exp(-(distance**2) / (2 * blur**2))
        x = F.conv2d(x, line.view(1, 1, 1, -1), padding="same")
        x = F.conv2d(x, line.view(1, 1, -1, 1), padding="same")
    return x / x.std(dim=(2, 3), keepdim=True)


def loss_of_shift(x, offset, target):
    """Read every pixel of x with one offset; compare the inside with the target."""
    tap = torch.ones(1, 1, 1, 1)
    y = deform_conv2d(x, offset.expand(-1, -1, *x.shape[2:]), tap)
    return (y - target)[..., 8:-8, 8:-8].square().mean(dim=(1, 2, 3))


# %% landscape tags=["hidden"]
TRUE_SHIFT = 3
path = torch.linspace(-6, 8, 281)
figure, axes = plt.subplots(figsize=(6, 3.2))
curves = {}
for blur, style in {0: "-", 1: "--", 3: ":"}.items():
    x = textures(blur, 1, size=96)
    losses = [
        loss_of_shift(
            x, torch.tensor([0.0, s]).view(1, 2, 1, 1), x.roll(-TRUE_SHIFT, dims=3)
        ).item()
        for s in path.tolist()
    ]
    curves[blur] = torch.tensor(losses)
    label = f"blurred by {blur} px" if blur else "noise"
    axes.plot(path, losses, style, label=label)
axes.set(xlabel="offset to the right (pixels)", ylabel="loss")
axes.legend(loc="lower left")

# %% search
SHIFTS = (1, -1, 2, -2, 5)  # to the right


def learned_offsets(blur, count=3, steps=100):
    x = textures(blur, count, size=64).repeat(len(SHIFTS), 1, 1, 1)
    images = x.chunk(len(SHIFTS))
    moved = [i.roll(-s, dims=3) for i, s in zip(images, SHIFTS, strict=True)]
    target = torch.cat(moved)
    # All searches run side by side: each image has an offset of its own.
    offset = torch.zeros(len(x), 2, 1, 1, requires_grad=True)
    optimizer = torch.optim.Adam([offset], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of_shift(x, offset, target).sum().backward()
        optimizer.step()
    return offset.detach().view(len(SHIFTS), count, 2)


def show(pair):
    down, right = (round(2 * value) / 2 + 0.0 for value in pair)
    return f"{down:.1f}, {right:.1f}"


print("true shift       ", "".join(f"{f'0, {s}':>12}" for s in SHIFTS))
ends = {}
for blur in (0, 1, 3):
    ends[blur] = learned_offsets(blur)
    means = ends[blur].mean(dim=1).tolist()
    print(f"blurred by {blur} px   ", "".join(f"{show(mean):>12}" for mean in means))

# %% search_holds tags=["hidden"]
FOUND = {0: (1,), 1: (1, -1, 2, -2), 3: SHIFTS}
for blur, end in ends.items():
    for shift, offsets in zip(SHIFTS, end, strict=True):
        errors = (offsets - torch.tensor([0.0, shift])).abs().amax(dim=1)
        assert (errors < 0.05).all() if shift in FOUND[blur] else (errors > 1).all()
stuck = ends[0][1:]
assert (stuck - 0.5).abs().max() < 0.15
# For noise, far from the true shift, the loss is 1 + (1 - f)² + f².
for s in (-4, -2, 1, 6):
    whole, half = (curves[0][(path - t).abs().argmin()].item() for t in (s, s + 0.5))
    assert abs(whole - 2) < 0.25
    assert abs(half - 1.5) < 0.25
assert curves[3][(path - TRUE_SHIFT).abs().argmin()] < 1e-6


# %% content
def batch(images, generator, size=8):
    """The second channel says from which side, three pixels away, to copy the first."""
    x = images[torch.randint(len(images), (size,), generator=generator)]
    side = 2.0 * torch.randint(2, (size, 1, 1, 1), generator=generator) - 1
    target = torch.where(side > 0, x.roll(-3, dims=3), x.roll(3, dims=3))
    return torch.cat([x, side.expand_as(x)], dim=1), target


TRAINING, TEST = textures(3, 256, 24), textures(3, 32, 24, seed=1)


def test_error(net, seed):
    generator = torch.Generator().manual_seed(seed)

    def error(images, size=8):
        x, target = batch(images, generator, size)
        return F.mse_loss(net(x)[..., 4:-4, 4:-4], target[..., 4:-4, 4:-4])

    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(200):
        optimizer.zero_grad()
        error(TRAINING).backward()
        optimizer.step()
    with torch.no_grad():
        return error(TEST, 32).item()


NETS = {
    "convolution 7 × 7": lambda: nn.Conv2d(2, 1, 7, padding=3),
    "two layers, ReLU": lambda: nn.Sequential(
        nn.Conv2d(2, 8, 7, padding=3), nn.ReLU(), nn.Conv2d(8, 1, 1)
    ),
    "deformable 1 × 1": lambda: DeformConv2d(2, 1, 1, modulated=False),
}
errors = {}
for name, make in NETS.items():
    errors[name] = []
    for seed in range(3):
        torch.manual_seed(seed)
        net = make()
        errors[name].append(test_error(net, seed))
    count = sum(p.numel() for p in net.parameters())
    mean = sum(errors[name]) / len(errors[name])
    print(f"{name:18} {count:4} parameters, mean error {mean:.1f}")
print("offset to the right =", f"{net.conv_offset.weight[1, 1].item():.1f} × side")

# %% content_holds tags=["hidden"]
assert min(errors["convolution 7 × 7"]) > 0.3
assert max(errors["two layers, ReLU"]) < 0.1
assert max(errors["deformable 1 × 1"]) < 0.05
slope = net.conv_offset.weight[1, 1].item()
assert abs(slope - 3) < 0.05
content_parameters = sum(p.numel() for p in net.parameters())

# %% channel_order
x = torch.zeros(1, 1, 5, 5)
x[0, 0, 2, 4] = 1
weight = torch.zeros(1, 1, 3, 3)
weight[0, 0, 1, 1] = 1  # only tap 4 counts; it shall read two pixels to the right

right = torch.zeros(1, 18, 5, 5)
right[:, 2 * 4 + 1] = 2  # pairs: (down, right) of tap 4
wrong = torch.zeros(1, 18, 5, 5)
wrong[:, 9 + 4] = 2  # halves: nine numbers down, then nine to the right
for offset in (right, wrong):
    y = deform_conv2d(x, offset, weight, padding=1)
    print("pixel (2, 2) reads", y[0, 0, 2, 2].item())

# %% channel_order_holds tags=["hidden"]
assert deform_conv2d(x, right, weight, padding=1)[0, 0, 2, 2] == 1
assert deform_conv2d(x, wrong, weight, padding=1)[0, 0, 2, 2] == 0
# What the wrong channel moves: channel 13 is the column of tap 6.
assert (2 * 6 + 1) == 9 + 4

# %% half_masks
plain = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(4)))
x = torch.randn(1, 8, 16, 16)
for double_mask in (False, True):
    layers = (
        DeformConv2d(8, 8, padding=1, bias=False, double_mask=double_mask)
        for _ in range(4)
    )
    deformable = nn.Sequential(*layers)
    deformable.load_state_dict(plain.state_dict(), strict=False)
    share = deformable(x).std() / plain(x).std()
    print(f"double_mask={double_mask!s:5}  {share.item():.4f} of the output")

# %% half_masks_hold tags=["hidden"]
assert torch.allclose(deformable(x), plain(x), atol=1e-5)
halved = nn.Sequential(*(DeformConv2d(8, 8, padding=1, bias=False) for _ in range(4)))
halved.load_state_dict(plain.state_dict(), strict=False)
assert torch.allclose(16 * halved(x), plain(x), atol=1e-5)

# %% first_step
for channels in (16, 64, 256):
    torch.manual_seed(0)
    layer = DeformConv2d(channels, channels, padding=1)
    x = F.relu(torch.randn(2, channels, 16, 16))
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
    F.mse_loss(layer(x), torch.randn_like(x)).backward()
    optimizer.step()
    moved = layer.conv_offset(x)[:, :18].abs().mean().item()
    print(
        f"{channels:3} channels: after one step, the mean offset is {moved:.2f} pixels"
    )

# %% first_step_holds tags=["hidden"]
first_move = moved
assert 0.5 < first_move < 1.1

# %% outside
x = torch.rand(1, 1, 16, 16, requires_grad=True)
weight = torch.rand(1, 1, 3, 3)
for distance in (0.5, 8.5, 100.5):
    offset = torch.full((1, 18, 16, 16), distance, requires_grad=True)
    y = deform_conv2d(x, offset, weight, padding=1)
    (gradient,) = torch.autograd.grad(y.square().sum(), offset)
    print(
        f"offsets {distance:5}: {(gradient != 0).float().mean():4.0%} have a gradient"
    )

# %% outside_holds tags=["hidden"]
assert not gradient.any()
assert not y.any()
# Half of the image is too far: at most a third of the taps still have a gradient.
offset = torch.full((1, 18, 16, 16), 8.5, requires_grad=True)
y = deform_conv2d(x, offset, weight, padding=1)
(gradient,) = torch.autograd.grad(y.square().sum(), offset)
assert (gradient != 0).float().mean() < 1 / 3

# %% float16
columns = torch.tensor([100.5, 200.5, 1000.5, 1100.5, 1500.5])
for dtype in (torch.float16, torch.bfloat16):
    print(f"{dtype!s:15}", columns.to(dtype).tolist())

# %% float16_holds tags=["hidden"]
assert columns.half().tolist() == [100.5, 200.5, 1000.5, 1100, 1500]
assert columns.bfloat16().tolist()[1:] == [200, 1000, 1104, 1504]
x = (torch.arange(2048) % 2).half().view(1, 1, 1, -1)
offset = torch.tensor([0.0, 0.5]).half().view(1, 2, 1, 1).expand(1, 2, 1, 2048)
assert (deform_conv2d(x, offset, torch.ones(1, 1, 1, 1).half())[..., :-1] == 0.5).all()
