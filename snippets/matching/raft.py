# %% quick_start
import torch
from torch import nn

# or torchvision.models.optical_flow.raft_large(weights="DEFAULT"), which is trained
from zhixing.matching.raft import RAFT


def encoder(channels):  # torchvision's is a residual network
    first = nn.Conv2d(3, 64, 7, stride=4, padding=3)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(64, channels, 2, stride=2))


net = RAFT(encoder(256), encoder(256))
image1, image2 = 2 * torch.rand(2, 1, 3, 128, 136) - 1  # from -1 to 1
with torch.no_grad():
    flows = net(image1, image2, updates=4)  # in pixels: (x, y), one after each update
print(len(flows), tuple(flows[-1].shape))

# %% setup
import math

import matplotlib.pyplot as plt
import torch.nn.functional as F

from zhixing.matching.raft import (
    convex_upsample,
    correlation_pyramid,
    lookup,
    pixel_grid,
    sequence_loss,
)

torch.manual_seed(0)
torch.set_num_threads(1)  # small tensors are faster with one


def blurred(noise, width):
    distance = torch.arange(-3.0 * width, 3 * width + 1)
    line = torch.exp(-(distance**2) / (2 * width**2))
    kernel = (line[:, None] * line).expand(noise.shape[1], 1, -1, -1)
    around = F.pad(noise, (3 * width,) * 4, mode="circular")
    x = F.conv2d(around, kernel, groups=noise.shape[1])
    return x / x.std()


# %% walk
def walk(pyramid, radius=4):
    """From coarse to fine, move each match to its best correlation."""
    side = 2 * radius + 1
    path = [pixel_grid(1, *pyramid[0].shape[1:3])]  # at first, nothing moves
    for level in reversed(range(len(pyramid))):
        windows = lookup(pyramid, path[-1], radius=radius).unflatten(1, (-1, side**2))
        best = windows[:, level].argmax(dim=1)
        step = torch.stack([best // side, best % side], dim=1) - radius  # (dx, dy)
        path.append(path[-1] + 2**level * step + (2**level - 1) // 2)
    return path


def walk_error(shift, levels, seed=1, size=64):
    noise = torch.randn(
        1, 64, size, size, generator=torch.Generator().manual_seed(seed)
    )
    f = blurred(noise, 2)
    g = f.roll((shift[1], shift[0]), dims=(2, 3))
    path = walk(correlation_pyramid(f, g, levels=levels))
    target = path[0] + torch.tensor(shift).view(1, 2, 1, 1)
    stays = ((target >= 0) & (target < size)).all(dim=1)  # what leaves has no match
    return (path[-1] - target).norm(dim=1)[stays].mean().item()


walk_errors = {}
for shift in ((11, -9), (20, -14), (36, -30)):
    walk_errors[shift] = [walk_error(shift, levels) for levels in (1, 2, 3, 4)]
    print(
        shift, "with 1 to 4 levels:", " ".join(f"{e:5.1f}" for e in walk_errors[shift])
    )

# %% walk_holds tags=["hidden"]
for (x, y), errors in walk_errors.items():
    for levels, error in enumerate(errors, 1):
        if max(abs(x), abs(y)) <= 4 * (2**levels - 1):
            assert error < 4
        else:
            assert error > 7
for shift in ((11, -9), (20, -14)):  # a fourth level is not needed
    assert walk_errors[shift][3] > walk_errors[shift][2]

# %% picture tags=["hidden"]
# One cell, its correlations on three levels, and where the search goes.
size, shift, start = 48, (20, -14), (14, 32)
noise = torch.randn(1, 64, size, size, generator=torch.Generator().manual_seed(0))
f = blurred(noise, 2)
pyramid = correlation_pyramid(f, f.roll((shift[1], shift[0]), dims=(2, 3)), levels=3)
path = [(match[0, 0, start[1], start[0]].item(), match[0, 1, start[1], start[0]].item())
        for match in walk(pyramid)]  # fmt: skip
figure, panels = plt.subplots(1, 3, figsize=(7.4, 3.5), sharey=True)
for axes, level, here, there in zip(
    panels, (2, 1, 0), path[:-1], path[1:], strict=True
):
    axes.imshow(
        pyramid[level][0, start[1], start[0]],
        extent=(-0.5, size - 0.5, size - 0.5, -0.5),
        cmap="gray",
        alpha=0.6,
    )
    axes.grid(visible=False)
    centre = [c + (2**level - 1) / 2 for c in here]
    reach = 4.5 * 2**level  # to the outer edges of the cells that are read
    left, right = centre[0] - reach, centre[0] + reach
    top, bottom = centre[1] - reach, centre[1] + reach
    axes.plot(
        [left, right, right, left, left], [top, top, bottom, bottom, top], color="C1"
    )
    axes.plot(*here, "o", color="C0", label="before")
    axes.plot(*there, "s", color="C3", label="after")
    target = [a + b for a, b in zip(start, shift, strict=True)]
    axes.plot(*target, "+", color="C2", markersize=11, label="true match")
    axes.set(title=f"level {level}", xlabel="x (cells)")
    axes.set(xlim=(-4, 52), ylim=(52, -4), xticks=[0, 20, 40], yticks=[0, 20, 40])
panels[0].set(ylabel="y (cells)")
handles = panels[0].get_legend_handles_labels()
figure.legend(*handles, loc="outside lower center", ncols=3)
reached = path[-1]
assert abs(reached[0] - target[0]) <= 1
assert abs(reached[1] - target[1]) <= 1

# %% off_centre
f = torch.eye(24 * 24).view(1, 24 * 24, 24, 24)  # each cell matches itself, no other
pyramid, grid = correlation_pyramid(f, f), pixel_grid(1, 24, 24)
moves = torch.arange(-16, 16.5, 0.5)  # away from the true match, to the right


def mean_correlation(move, level):
    moved = grid + torch.tensor([move, 0.0]).view(1, 2, 1, 1)
    windows = lookup(pyramid[: level + 1], moved, radius=1).unflatten(1, (-1, 9))
    return windows[0, level, 4, 8:16, 8:16].mean()  # the centre, away from the border


centres, curves = [], []
for level in range(4):
    curve = torch.stack([mean_correlation(move, level) for move in moves.tolist()])
    curves.append(curve)
    centres.append((moves * curve).sum() / curve.sum() / 2**level)
    print(f"level {level}: centre at {centres[-1]:7.4f} of its cells")

# %% off_centre_holds tags=["hidden"]
for level, centre in enumerate(centres):
    assert abs(centre + (2**level - 1) / 2 ** (level + 1)) < 1e-4
figure, axes = plt.subplots(figsize=(6, 3))
for level, style in enumerate(("-", "--", "-.", ":")):
    axes.plot(
        moves,
        curves[level] / curves[level].max(),
        style,
        color=f"C{level}",
        label=f"level {level}",
    )
    axes.plot(-(2**level - 1) / 2, 1.06, "v", color=f"C{level}")
axes.set(xlabel="move to the right (cells of level 0)", ylabel="correlation / maximum")
axes.legend(loc="upper left")


# %% cost tags=["hidden"]
def bytes_of_level_0(width, height):
    return 4 * (-(-width // 8) * (-(-height // 8))) ** 2


sintel_megabytes = bytes_of_level_0(1088, 440) / 1e6
full_hd_gigabytes = bytes_of_level_0(1920, 1080) / 1e9
assert 223 < sintel_megabytes < 225
assert 4.1 < full_hd_gigabytes < 4.3


# %% scenes
def scenes(count, generator, size=64, reach=8):
    """Pairs of textures in which a disc moves in another way than the background."""
    image2 = blurred(torch.randn(count, 3, size, size, generator=generator), 1)
    grid = pixel_grid(count, size, size)
    motion = (2 * torch.rand(count, 4, 1, 1, generator=generator) - 1) * reach
    centre = size * (0.25 + 0.5 * torch.rand(count, 2, 1, 1, generator=generator))
    disc = (grid - centre).square().sum(dim=1, keepdim=True) < (size / 4) ** 2
    flow = torch.where(disc, motion[:, :2], motion[:, 2:])
    points = (2 * (grid + flow).movedim(1, -1) + 1) / size - 1
    image1 = F.grid_sample(image2, (points + 1) % 2 - 1, align_corners=False)
    return image1, image2, flow


# %% train
def small_encoder(channels):
    first = nn.Conv2d(3, channels, 8, stride=4, padding=2)
    return nn.Sequential(first, nn.InstanceNorm2d(channels))


STEPS, BATCH = 50, 6


def train(seed):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    size = {"width": 16, "levels": 2, "radius": 2, "stride": 4}
    net = RAFT(small_encoder(64), nn.Conv2d(3, 32, 8, stride=4, padding=2), **size)
    for p in net.update_block.parameters():
        if p.ndim > 1:  # torch's own smaller values delay training
            nn.init.kaiming_normal_(p)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS)
    for _ in range(STEPS):
        image1, image2, flow = scenes(BATCH, generator)
        everywhere = torch.ones_like(flow[:, 0]).bool()
        optimizer.zero_grad()
        sequence_loss(net(image1, image2, updates=3), flow, everywhere).backward()
        optimizer.step()
        schedule.step()
    return net


net = train(seed=2)
image1, image2, flow = scenes(32, torch.Generator().manual_seed(99))
with torch.no_grad():
    flows = [torch.zeros_like(flow), *net(image1, image2, updates=12)]
errors = [(f - flow).norm(dim=1).mean().item() for f in flows]
for updates in range(4):
    print(f"{updates} updates: mean error {errors[updates]:.0f} pixels")
print("12 updates are worse than 3:", errors[12] > errors[3])

# %% train_holds tags=["hidden"]
assert errors[1] < 0.9 * errors[0]
assert errors[3] < 0.94 * errors[1]
assert errors[3] < 0.85 * errors[0]
assert errors[12] > 1.2 * errors[3]
error_still, error_one, error_three = errors[0], errors[1], errors[3]
network_parameters = sum(p.numel() for p in net.parameters())
training_pairs = STEPS * BATCH
# The error is largest around the disc's boundary and where the match leaves the image.
error = (flows[3] - flow).norm(dim=1)
matches = pixel_grid(*flow[:, 0].shape) + flow
leaves = ((matches < 0) | (matches > 63)).any(dim=1)
spread = F.max_pool2d(flow, 9, 1, 4) + F.max_pool2d(-flow, 9, 1, 4)
boundary = (spread.abs().sum(dim=1) > 1e-3) & ~leaves
rest = ~boundary & ~leaves
assert error[boundary].mean() > 1.14 * error[rest].mean()
assert error[leaves].mean() > 1.25 * error[rest].mean()
along = (flows[3] * flow).sum(dim=1) / flow.norm(dim=1)
assert along[leaves].mean() < 0.75 * flow.norm(dim=1)[leaves].mean()

# %% flows tags=["hidden"]
SCENE = 2
figure, panels = plt.subplots(1, 3, figsize=(7.4, 3.1), sharey=True)
grid = pixel_grid(1, 64, 64)[0, :, 4::8, 4::8]
FLOWS = {"true flow": flow, "after 1 update": flows[1], "after 3 updates": flows[3]}
for axes, (title, shown), color in zip(
    panels, FLOWS.items(), ("C0", "C1", "C1"), strict=True
):
    vectors = shown[SCENE, :, 4::8, 4::8]
    scale = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.008}
    axes.quiver(*grid, *vectors, color=color, **scale)
    axes.set(title=title, xlabel="x (pixels)", xticks=[0, 30, 60], yticks=[0, 30, 60])
    axes.set(xlim=(-4, 67), ylim=(67, -4), aspect="equal")
    axes.grid(visible=False)
panels[0].set(ylabel="y (pixels)")

# %% small
for w in (2, 1):
    x = torch.tensor([0.0, 0.5])  # positions in a map of w columns
    print(f"w = {w}:", (2 * x / (w - 1) - 1).tolist(), ((2 * x + 1) / w - 1).tolist())

# %% small_holds tags=["hidden"]
x = torch.zeros(1)
assert (2 * x / (1 - 1) - 1).isnan()
f = torch.randn(1, 8, 8, 8)
small = lookup(correlation_pyramid(f, f), pixel_grid(1, 8, 8))
assert small.isfinite().all()

# %% order
f = torch.eye(81).view(1, 81, 9, 9)
pyramid = correlation_pyramid(
    f, f.roll((0, 3), dims=(2, 3)), levels=1
)  # 3 to the right
best = lookup(pyramid, pixel_grid(1, 9, 9))[0, :, 4, 4].argmax().item()
print("channel", best, "is (dx, dy) =", (best // 9 - 4, best % 9 - 4))
print("read row by row, it would be", (best % 9 - 4, best // 9 - 4))

# %% order_holds tags=["hidden"]
assert divmod(best, 9) == (3 + 4, 0 + 4)

# %% border
flow = torch.ones(1, 2, 3, 4)  # one cell to the right and down, everywhere
fine = convex_upsample(flow, torch.zeros(1, 9 * 64, 3, 4))
print("x in one row:", [round(v, 2) for v in fine[0, 0, 12, ::8].tolist()])
print("corner:", round(fine[0, 0, 0, 0].item(), 2))

# %% border_holds tags=["hidden"]
assert torch.allclose(fine[0, 0, 12, ::8], torch.tensor([16 / 3, 8, 8, 16 / 3]))
assert math.isclose(fine[0, 0, 0, 0], 8 * 4 / 9, rel_tol=1e-5)

# %% direction
image1, image2, flow = scenes(4, torch.Generator().manual_seed(1))


def read(image, positions):
    points = (2 * positions.movedim(1, -1) + 1) / image.shape[-1] - 1
    return F.grid_sample(image, points, align_corners=False)


grid = pixel_grid(4, 64, 64)
inside = (slice(None), slice(None), slice(8, -8), slice(8, -8))
right = (read(image2, grid + flow) - image1)[inside].abs().mean()
wrong = (read(image1, grid + flow) - image2)[inside].abs().mean()
print(f"image 2 read at x + flow: {right:.2f}; image 1 read there: {wrong:.2f}")

# %% direction_holds tags=["hidden"]
assert right < 0.05
assert wrong > 0.5
