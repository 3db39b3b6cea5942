# %% quick_start
import torch

from zhixing.detection.anchor_free import decode_centers, draw_centers

boxes = torch.tensor([[6.0, 10.0, 30.0, 44.0], [35.0, 20.0, 61.0, 40.0]])
labels = torch.tensor([0, 2])
heat, offset, sides = draw_centers(boxes, labels, (16, 16), classes=3)
found, classes, scores = decode_centers(heat[None], offset[None], sides[None], k=2)
for i in classes[0].argsort():
    print(f"class {classes[0, i]}, score {scores[0, i]:.1f}, box", found[0, i].tolist())

# %% quick_start_holds tags=["hidden"]
order = classes[0].argsort()
assert torch.allclose(found[0, order], boxes, atol=1e-4)
assert classes[0, order].tolist() == [0, 2]
assert scores.tolist() == [[1.0, 1.0]]

# %% setup
import matplotlib.pyplot as plt
from torch import nn

from zhixing.detection.anchor_free import (
    center_focal_loss,
    centerness,
    corner_radii,
    fcos_targets,
    gaussian_radius,
    grid_points,
)
from zhixing.detection.scenes import draw_scenes
from zhixing.metrics.mean_average_precision import (
    COCO_THRESHOLDS,
    average_precisions,
    box_iou,
    match,
)

torch.set_num_threads(1)

# %% radii
square = torch.tensor([0.0, 0.0, 10.0, 10.0], dtype=torch.float64)
moves = torch.tensor([[1.0, 1, 1, 1], [1, 1, -1, -1], [-1, -1, 1, 1]])
side = torch.tensor(10.0, dtype=torch.float64)
radii = corner_radii(side, side, min_overlap=0.7)
moved = square + radii[:, None] * moves
overlaps = box_iou(moved, square[None])[:, 0]
for name, r, overlap in zip(("shift", "shrink", "grow"), radii, overlaps, strict=True):
    print(f"{name:7} r = {r:.3f}  IoU = {overlap:.3f}")

# %% radii_hold tags=["hidden"]
import math

assert torch.allclose(overlaps, torch.full_like(overlaps, 0.7), atol=1e-9)
sizes = torch.arange(1, 100, dtype=torch.float64)
high, wide = torch.meshgrid(sizes, sizes, indexing="ij")
for t in 0.1, 0.3, 0.5, 0.7, 0.9:
    assert (corner_radii(high, wide, min_overlap=t).argmin(-1) == 1).all()
    least = gaussian_radius(sizes, sizes, min_overlap=t)
    assert torch.allclose(least, sizes * (1 - t**0.5) / 2)
assert (gaussian_radius(sizes, sizes, min_overlap=0.7) >= 1).tolist().index(True) == 12
assert (gaussian_radius(sizes, sizes) >= 1).tolist().index(True) == 4

# %% picture_data tags=["hidden"]
generator = torch.Generator().manual_seed(3)
_, scene_targets = draw_scenes(1, generator=generator, objects=(3, 3), sides=(20, 40))
scene_targets = scene_targets[0]
scene_maps = draw_centers(
    scene_targets["boxes"], scene_targets["labels"], (16, 16), classes=3
)
fine = grid_points((96, 96), stride=1) * (2 / 3)
owner, ltrb = fcos_targets(
    fine, scene_targets["boxes"], torch.tensor([0.0, 64.0]).expand(96 * 96, 2)
)
central = centerness(ltrb).where(owner >= 0, torch.nan).reshape(96, 96)


# %% picture tags=["hidden"]
def outline(axes, box, **style):
    x1, y1, x2, y2 = box.tolist()
    axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], **style)


figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.6, 3.6))
extent = (0, 64, 64, 0)
heat = scene_maps[0].amax(0)
heat = heat.where(heat > 0, torch.nan)
left.imshow(heat, extent=extent, cmap="viridis", vmin=0, vmax=1)
middle.imshow(central, extent=extent, cmap="viridis", vmin=0, vmax=1)
for axes in (left, middle):
    for box in scene_targets["boxes"]:
        outline(axes, box, color="C1", linewidth=1.5)
    axes.set(xlabel="$x$ (pixels)", xticks=range(0, 65, 16), yticks=range(0, 65, 16))
    axes.grid(False)
middles = (scene_targets["boxes"][:, :2] + scene_targets["boxes"][:, 2:]) / 2
for color, length, thickness in ("#f5f5f5", 11, 4), ("#111111", 9, 2):
    cross = {"color": color, "markersize": length, "markeredgewidth": thickness}
    left.plot(*middles.T, "+", **cross)
left.set(ylabel="$y$ (pixels)", title="heat map, stride 4")
middle.set(title="centre-ness")
largest = (scene_targets["boxes"][:, 2:] - scene_targets["boxes"][:, :2]).prod(1)
x1, y1, x2, y2 = scene_targets["boxes"][largest.argmax()].tolist()
x, y = x1 + 0.3 * (x2 - x1), y1 + 0.4 * (y2 - y1)
for end in (x1, y), (x, y1), (x2, y), (x, y2):
    arrow = {"arrowstyle": "->", "color": "#f5f5f5", "linewidth": 1.5}
    middle.annotate("", end, (x, y), arrowprops=arrow)
unit = torch.tensor([0.0, 0.0, 10.0, 10.0])
right.fill([0, 10, 10, 0], [0, 0, 10, 10], color="C1", alpha=0.25)
wide_radii = corner_radii(torch.tensor(10.0), torch.tensor(10.0), min_overlap=0.3)
styles = ("--", "C0"), ("-", "C3"), (":", "C2")
for name, r, move, (line, color) in zip(
    ("shift", "shrink", "grow"), wide_radii, moves, styles, strict=True
):
    outline(right, unit + r * move, label=name, linestyle=line, color=color)
right.set(title="IoU 0.3", xlim=(-5, 15.5), ylim=(20.5, -5), xlabel="$x$ (cells)")
right.set(ylabel="$y$ (cells)", aspect="equal")
right.legend(loc="lower center", ncols=3, fontsize=8, handlelength=1.6)

# %% mean_centerness tags=["hidden"]
dots = grid_points((200, 300), stride=1)
whole = torch.tensor([[0.0, 0.0, 300.0, 200.0]])
_, distances = fcos_targets(dots, whole, torch.tensor([0.0, 999.0]).expand(60000, 2))
mean_centerness = centerness(distances).mean().item()
assert abs(mean_centerness - (math.pi / 2 - 1) ** 2) < 0.002


# %% network
def layer(inputs, outputs, stride=1):
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def center_net():
    """Of each cell of 4 × 4 pixels: 3 logits, the offset and the size."""
    last = nn.Conv2d(32, 7, 1)
    nn.init.constant_(last.bias[:3], -3.0)  # few cells are centres
    layers = layer(3, 16, 2), layer(16, 32, 2), *(layer(32, 32) for _ in range(3))
    return nn.Sequential(*layers, last)


def center_loss(outputs, heat, offset, sides):
    here = sides[:, :1] > 0  # cells with a centre
    # Sizes are a few cells, offsets a fraction of one: sizes get a smaller weight.
    errors = torch.cat([outputs[:, 3:5] - offset, 0.2 * (outputs[:, 5:] - sides)], 1)
    regression = (errors.abs() * here).sum() / here.sum().clamp(min=1)
    return center_focal_loss(outputs[:, :3], heat) + regression


# %% training
def train(images, targets, steps=180, batch=16):
    cases = [
        draw_centers(target["boxes"], target["labels"], (16, 16), classes=3)
        for target in targets
    ]
    maps = [torch.stack(maps) for maps in zip(*cases, strict=True)]
    net = center_net()
    optimizer = torch.optim.AdamW(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch,))
        loss = center_loss(net(images[chosen]), *(x[chosen] for x in maps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)
net = train(*draw_scenes(400, generator=generator))


# %% reading
def read(outputs, offset):
    """The 20 best boxes of each image, with this offset of the centres."""
    detections = decode_centers(outputs[:, :3].sigmoid(), offset, outputs[:, 5:], k=20)
    names = "boxes", "labels", "scores"
    return [
        dict(zip(names, image, strict=True)) for image in zip(*detections, strict=True)
    ]


images, targets = draw_scenes(100, generator=generator)
with torch.no_grad():
    outputs = net(images)
    outputs[:, 5:].clamp_(min=0.1)  # a size below 0 would be no box
offsets = {
    "learned": outputs[:, 3:5],
    "middle": torch.full_like(outputs[:, 3:5], 0.5),
    "corner": torch.zeros_like(outputs[:, 3:5]),
}
readings = {name: read(outputs, offset) for name, offset in offsets.items()}
aps = {}
for name, reading in readings.items():
    by_class = average_precisions(reading, targets)
    aps[name] = torch.stack([*by_class.values()]).mean(0)  # at IoU 0.5, 0.55, …, 0.95


# %% pairs
def centers(reading):
    """The centres of the detections that find an object, and of these objects."""
    pairs = []
    for best, mine, target in zip(readings["learned"], reading, targets, strict=True):
        ious = box_iou(best["boxes"], target["boxes"])
        ious[best["labels"][:, None] != target["labels"]] = 0
        chosen = match(ious, best["scores"])
        hits = chosen >= 0
        corners = torch.stack([mine["boxes"][hits], target["boxes"][chosen[hits]]])
        pairs.append((corners[..., :2] + corners[..., 2:]) / 2)
    return torch.cat(pairs, 1)


errors = {}
for name, reading in readings.items():
    found, true = centers(reading)
    errors[name] = (found - true).norm(dim=1).mean().item()

# %% table
for name, error in errors.items():
    print(f"{name:8} centre off by about {error:.0f} px")

# %% table_holds tags=["hidden"]
assert aps["learned"][0] > 0.7
assert abs(aps["learned"][0] - aps["middle"][0]) < 0.08
assert aps["corner"][5] < 0.15
assert aps["learned"][5] > aps["middle"][5] + 0.1 > aps["corner"][5] + 0.2
mean_distance = (2**0.5 + math.log(1 + 2**0.5)) / 6  # from the middle of a unit square
assert 0.9 * 4 * mean_distance < errors["middle"] < 1.5 * 4 * mean_distance
assert 0.9 * 8 * mean_distance < errors["corner"] < 1.3 * 8 * mean_distance
found, true = centers(readings["middle"])
elsewhere = (found / 4).floor() != (true / 4).floor()
assert 0.1 < elsewhere.any(1).float().mean() < 0.5  # in a neighbouring cell
assert errors["learned"] + 0.3 < errors["middle"] < errors["corner"] - 0.5

# %% detections tags=["hidden"]
figure, (*rows, last) = plt.subplots(1, 3, figsize=(9.6, 3.6))
for i, axes in zip((5, 7), rows, strict=True):
    axes.imshow(images[i].permute(1, 2, 0), extent=extent)
    for box in targets[i]["boxes"]:
        outline(axes, box, color="#f5f5f5", linewidth=2.5)
    kept = readings["learned"][i]["scores"] > 0.3
    pairs = (readings["learned"][i][key][kept] for key in ("boxes", "scores"))
    taken = []
    for box, score in zip(*pairs, strict=True):
        outline(axes, box, color="C1", linestyle="--", linewidth=1.8)
        x1, y1, x2, y2 = box.clamp(1, 63).tolist()
        # The first corner of the box where no other score stands.
        for x, y in (x1, y1 - 1), (x2 - 7, y2 - 1), (x1, y2 - 1), (x2 - 7, y1 - 1):
            x, y = min(x, 55), min(max(y, 5), 63)
            if all(abs(x - a) > 9 or abs(y - b) > 6 for a, b in taken):
                break
        taken.append((x, y))
        shade = {"facecolor": "#111111", "alpha": 0.85, "pad": 0.8, "linewidth": 0}
        axes.text(x, y, f"{score:.2f}", color="#f5f5f5", fontsize=9, bbox=shade)
    axes.set(xlim=(0, 64), ylim=(64, 0), xlabel="$x$ (pixels)")
    axes.grid(False)
    axes.set(xticks=range(0, 65, 16), yticks=range(0, 65, 16))
rows[0].set(ylabel="$y$ (pixels)")
names = "learned offset", "middle of the cell", "corner of the cell"
for name, values, line in zip(names, aps.values(), ("o-", "s--", "^:"), strict=True):
    last.plot(COCO_THRESHOLDS, values, line, label=name, markersize=4)
last.set(xlabel="IoU threshold", ylabel="AP", ylim=(-0.3, 1.02))
last.set(yticks=[0, 0.25, 0.5, 0.75, 1])
last.legend(loc="lower left", fontsize=8)


# %% levels
def pyramid(size, strides):
    """Points of all levels of FCOS, and the distances that each answers for."""
    points = [grid_points((size // s, size // s), stride=s) for s in strides]
    ends = [0.0, *(8.0 * s for s in strides[:-1]), torch.inf]
    ranges = [
        torch.tensor([low, high]).expand(len(level), 2)
        for low, high, level in zip(ends, ends[1:], points, strict=False)
    ]
    return torch.cat(points), torch.cat(ranges)


def ambiguous(boxes, points, ranges):
    """Of the points that answer for a box, the share with more than one to choose."""
    ones = [fcos_targets(points, box[None], ranges)[0] >= 0 for box in boxes]
    choices = torch.stack(ones).sum(0)
    return ((choices > 1).sum() / (choices > 0).sum()).item()


def random_boxes(count, size, generator):
    """Sides from 16 to 512 pixels, uniform on a logarithmic scale, anywhere."""
    sides = 16 * 32 ** torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (size - sides)
    return torch.cat([corner, corner + sides], 1)


generator = torch.Generator().manual_seed(1)
crowds = [random_boxes(12, 1024, generator) for _ in range(20)]
shares = {}
for strides in (8,), (8, 16, 32, 64, 128):
    grid = pyramid(1024, strides)
    shares[strides] = sum(ambiguous(boxes, *grid) for boxes in crowds) / len(crowds)
    print(f"{len(strides)} level(s): {100 * shares[strides]:.0f} % have a choice")

# %% levels_hold tags=["hidden"]
one_level, five_levels = shares.values()
assert five_levels < one_level / 2
pyramid_points = len(pyramid(1024, (8, 16, 32, 64, 128))[0])
assert pyramid_points == 128**2 + 64**2 + 32**2 + 16**2 + 8**2


# %% wrong_radius
def copied_radius(n, t):
    """CornerNet's first formula for a square: the third root without its divisor."""
    return (((4 * t * n) ** 2 + 16 * t * (1 - t) * n**2) ** 0.5 - 4 * t * n) / 2


print("cells  copied 0.7  right 0.7  right 0.3")
for n in 5.0, 10.0, 20.0, 40.0:
    right = [gaussian_radius(*torch.tensor([n, n]), min_overlap=t) for t in (0.7, 0.3)]
    print(f"{n:5.0f} {copied_radius(n, 0.7):11.2f}", *(f"{r:10.2f}" for r in right))

# %% fractional
cells = torch.arange(8.0)
for center in 3.0, 3.2:
    target = torch.exp(-((cells - center) ** 2) / 2)
    losses = []
    for logit in 5.0, -5.0:  # the cell of the centre found, or nothing found
        logits = torch.full((8,), -5.0)
        logits[3] = logit
        losses.append(center_focal_loss(logits, target).item())
    count = int((target == 1).sum())
    print(f"at {center}: {count} centre(s), losses {losses[0]:.3f}, {losses[1]:.3f}")

# %% traps_hold tags=["hidden"]
for n in 5.0, 10.0, 40.0:
    r = copied_radius(n, 0.7)
    assert (
        abs(r - 4 * 0.7 * corner_radii(*torch.tensor([n, n]), min_overlap=0.7)[2])
        < 1e-4
    )
    assert 3.3 < r / gaussian_radius(*torch.tensor([n, n]), min_overlap=0.7) < 3.4
    assert 1.2 < r / gaussian_radius(*torch.tensor([n, n]), min_overlap=0.3) < 1.22
    assert abs((n - 2 * r) ** 2 / n**2 - 0.206) < 0.001
# Of a long box the copied radius is even further off.
shapes = torch.stack([torch.ones(50), torch.linspace(1, 50, 50)]).double()
thirds = corner_radii(*shapes, min_overlap=0.7)[:, 2]
ratios = 4 * 0.7 * thirds / gaussian_radius(*shapes, min_overlap=0.7)
assert (ratios.diff() > 0).all()
assert 3.3 < ratios[0] < 3.4 < ratios[-1] < 4
assert count == 0
assert losses[1] < 0.001
