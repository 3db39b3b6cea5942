# %% quick_start
import torch

from zhixing.detection.yolo import decode, nms

anchors = torch.tensor([[30.0, 61.0], [62.0, 45.0], [59.0, 119.0]])  # pixels
raw = torch.randn(1, 3 * (5 + 80), 26, 26)  # v3's middle layer: 3 anchors, 80 classes
boxes, objectness, classes = decode(raw, anchors, stride=16)
scores = objectness.sigmoid()[..., None] * classes.sigmoid()
best, labels = scores[0].max(dim=1)
found = best > 0.9
keep = nms(boxes[0, found], best[found], labels[found], iou=0.5)
# or torchvision.ops.batched_nms(boxes[0, found], best[found], labels[found], 0.5)
print(tuple(boxes.shape), tuple(classes.shape))

# %% setup
import matplotlib.pyplot as plt
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import nn

from zhixing.detection.scenes import CLASSES, draw_scenes
from zhixing.detection.yolo import assign, iou_kmeans, shape_iou, yolo_v3_loss
from zhixing.metrics.mean_average_precision import box_iou, mean_average_precision

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)  # so that all processors print the same

# %% published_counts tags=["hidden"]
from zhixing.detection.yolo import flatten

nine = torch.ones(9, 2)
layers = [(13, nine[6:]), (26, nine[3:6]), (52, nine[:3])]
rows = [flatten(torch.zeros(1, 3 * 85, side, side), three) for side, three in layers]
v3_boxes = sum(layer.shape[1] for layer in rows)
assert v3_boxes == 10647
assert rows[0].shape[2] * 3 == 255
assert flatten(torch.zeros(1, 5 * 25, 13, 13), torch.ones(5, 2)).shape[1] == 845
assert (7 * 7 * 2, 7 * 7 * (2 * 5 + 20), 7 * 7 * (3 * 5 + 20)) == (98, 1470, 1715)


# %% shared_cells
def lost(objects, cells):
    """The expected share of objects that find their cell taken."""
    return 1 - cells / objects * (1 - (1 - 1 / cells) ** objects)


generator = torch.Generator().manual_seed(0)
print("objects  grid     formula  drawn")
for objects in 5, 30:
    for side in 7, 13, 52:
        cell = torch.randint(side**2, (20000, objects), generator=generator)
        distinct = 1 + (cell.sort().values.diff() > 0).sum(dim=1)
        drawn = 1 - distinct.double().mean().item() / objects
        share = lost(objects, side**2)
        print(f"{objects:7}  {side:2} × {side:2}  {share:7.1%}  {drawn:5.1%}")

# %% shared_cells_hold tags=["hidden"]
lost_thirty = 100 * lost(30, 49)
assert abs(lost_thirty - 24.7) < 0.05
for objects in 5, 30:
    for side in 7, 13, 52:
        cell = torch.randint(side**2, (20000, objects), generator=generator)
        distinct = 1 + (cell.sort().values.diff() > 0).sum(dim=1)
        assert (
            abs(1 - distinct.double().mean() / objects - lost(objects, side**2)) < 0.005
        )
# Clustered centres lose more: all in a quarter of the cells.
assert lost(30, 49 / 4) > 2 * lost(30, 49)


# %% sizes
def photo_sizes(seed, count=600):
    """Widths and heights that spread widely, in images of 416 pixels."""
    generator = torch.Generator().manual_seed(seed)
    area, shape = torch.randn(2, count, generator=generator)
    log_size = torch.stack(
        [0.8 * area + 0.35 * shape, 0.8 * area - 0.35 * shape], dim=1
    )
    return (4.3 + log_size).exp().clamp(max=416)


def anchors_by(method, sizes, seed):
    if method == "Euclidean":
        clusters = KMeans(5, n_init=3, random_state=seed).fit(sizes.numpy())
        return torch.from_numpy(clusters.cluster_centers_)
    generator = torch.Generator().manual_seed(seed)
    tries = [iou_kmeans(sizes, 5, generator=generator, center=method) for _ in range(3)]
    return max(tries, key=lambda a: shape_iou(sizes, a).amax(dim=1).mean())


# %% rival_anchors
METHODS = {"Euclidean": "Euclidean", "mean": "IoU, means", "median": "IoU, medians"}
fit, fit_small = {}, {}
for method in METHODS:
    overall, small = [], []
    for seed in range(6):
        sizes = photo_sizes(seed)
        ious = shape_iou(sizes, anchors_by(method, sizes, seed)).amax(dim=1)
        area = sizes.prod(dim=1)
        overall.append(ious.mean())
        small.append(ious[area < area.quantile(0.25)].mean())
    fit[method], fit_small[method] = torch.stack(overall), torch.stack(small)
print("distance       mean IoU  smallest quarter")
for method, name in METHODS.items():
    print(f"{name:13} {fit[method].mean():9.2f} {fit_small[method].mean():17.2f}")

# %% rival_anchors_hold tags=["hidden"]
assert (fit["median"] - fit["Euclidean"]).min() > 0.02
assert (fit_small["median"] - fit_small["Euclidean"]).min() > 0.06
assert (fit_small["mean"] - fit_small["Euclidean"]).min() > 0.03
assert (fit["mean"] - fit["Euclidean"]).mean() > 0.01
assert (fit["median"] - fit["mean"]).min() > 0.005

# %% data
generator = torch.Generator().manual_seed(1)
images, targets = draw_scenes(300, generator=generator)
test_images, test_targets = draw_scenes(
    100, generator=torch.Generator().manual_seed(1001)
)
sizes = torch.cat([t["boxes"][:, 2:] - t["boxes"][:, :2] for t in targets])
anchors = iou_kmeans(sizes, 3, generator=generator)


# %% net
def block(inputs, outputs):
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))


torch.manual_seed(1)
net = nn.Sequential(
    *(block(3, 6), nn.MaxPool2d(2)),
    *(block(6, 16), nn.MaxPool2d(2)),
    *(block(16, 32), nn.MaxPool2d(2)),  # 8 × 8 cells of 8 pixels
    *(block(32, 48), block(48, 48)),
    nn.Conv2d(48, len(anchors) * (5 + len(CLASSES)), 1),
)

# %% train
STEPS = 130
optimizer = torch.optim.Adam(net.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=STEPS)
for _ in range(STEPS):
    batch = torch.randint(len(images), (8,), generator=generator)
    wanted = [targets[i] for i in batch.tolist()]
    raw = net(images[batch])
    loss = yolo_v3_loss(raw, wanted, anchors, stride=8) / len(batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()

# %% detect
net.eval()
with torch.no_grad():
    boxes, objectness, classes = decode(net(test_images), anchors, stride=8)
scores, labels = (objectness.sigmoid()[..., None] * classes.sigmoid()).max(dim=2)


def detections(suppress):
    found = []
    for b, s, k in zip(boxes, scores, labels, strict=True):
        keep = s > 0.01
        b, s, k = b[keep], s[keep], k[keep]
        if suppress:
            keep = nms(b, s, k, iou=0.5)
            b, s, k = b[keep], s[keep], k[keep]
        found.append({"boxes": b, "scores": s, "labels": k})
    return found


ap = {}
for name, suppress in {"all boxes": False, "after NMS": True}.items():
    found = detections(suppress)
    ap[name] = [
        mean_average_precision(found, test_targets, iou_thresholds=[t])
        for t in (0.5, 0.75)
    ]
    count = sum(len(f["boxes"]) for f in found) / len(found)
    print(f"{name}: {count:4.1f} an image, AP50 {ap[name][0]:.2f}", end=", ")
    print(f"AP75 {ap[name][1]:.2f}")

# %% best_scored tags=["hidden"]
agree, chance, chosen, attainable, average = [], [], [], [], []
for found, target in zip(detections(False), test_targets, strict=True):
    ious = box_iou(found["boxes"], target["boxes"])
    for g, label in enumerate(target["labels"].tolist()):
        rivals = (ious[:, g] >= 0.5) & (found["labels"] == label)
        if rivals.sum() > 1:
            fits, trust = ious[rivals, g], found["scores"][rivals]
            agree.append(int(fits.argmax() == trust.argmax()))
            chance.append(1 / len(fits))
            chosen.append(fits[trust.argmax()].item())
            attainable.append(fits.max().item())
            average.append(fits.mean().item())
several = len(agree)
agreement, random_agreement = 100 * sum(agree) / several, 100 * sum(chance) / several
chosen_iou, attainable_iou = sum(chosen) / several, sum(attainable) / several
average_iou = sum(average) / several
ap50 = ap["after NMS"][0]
ap50_gain = 100 * (ap["after NMS"][0] - ap["all boxes"][0])
ap75_gain = 100 * (ap["after NMS"][1] - ap["all boxes"][1])

# %% detect_holds tags=["hidden"]
assert ap50 > 0.4
assert ap50_gain > 3
assert ap75_gain < 2
assert several > 80
# Better than a random choice, worse than the best one.
assert random_agreement + 10 < agreement < 80
assert chosen_iou - average_iou > 0.025
assert attainable_iou - chosen_iou > 0.015

# %% picture tags=["hidden"]


def outline(axes, box, **style):
    x1, y1, x2, y2 = box.tolist()
    style = {"fill": False, "linewidth": 1.6} | style
    axes.add_patch(plt.Rectangle((x1, y1), x2 - x1, y2 - y1, **style))


def show(axes, image):
    # Pale in light pages, dark in dark ones, so that lines of all colours stand out.
    axes.imshow(image.permute(1, 2, 0), extent=(0, 64, 64, 0), alpha=0.45)
    axes.set(xlim=(0, 64), ylim=(64, 0))
    axes.grid(visible=False)
    axes.title.set_fontsize("medium")


INK = plt.rcParams["text.color"]
PICTURE = 9
image, target = test_images[PICTURE], test_targets[PICTURE]
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.7), sharey=True)
for axes in left, right:
    show(axes, image)
    axes.set(xlabel="x (pixels)", xticks=range(0, 65, 16), yticks=range(0, 65, 16))
    for line in range(8, 64, 8):
        axes.axhline(line, color=INK, linewidth=0.3, alpha=0.4)
        axes.axvline(line, color=INK, linewidth=0.3, alpha=0.4)
left.set(ylabel="y (pixels)", title="cell and anchor of each object")
right.set(title="targets of the objectness")
index, _ = assign(target["boxes"], anchors, (8, 8), stride=8)
for box, position in zip(target["boxes"], index.tolist(), strict=True):
    row, column = divmod(position % 64, 8)
    corner = torch.tensor([column, row]) * 8.0
    cell = torch.cat([corner, corner + 8])
    outline(left, cell, fill=True, color="C1", alpha=0.45, linewidth=0)
    for n, anchor in enumerate(anchors):
        middle = (box[:2] + box[2:]) / 2
        shape = torch.cat([middle - anchor / 2, middle + anchor / 2])
        if n == position // 64:
            outline(left, shape, color="C1", zorder=3)
        else:
            outline(left, shape, color=INK, linestyle=":", linewidth=1.1)
    outline(left, box, color="C0", linewidth=2.2)
overlap = box_iou(boxes[PICTURE], target["boxes"]).amax(dim=1)
ignored = (overlap > 0.7).index_fill(0, index, False)
centers = (boxes[PICTURE, :, :2] + boxes[PICTURE, :, 2:]) / 2
other = ~ignored.index_fill(0, index, True)
right.plot(*centers[other].T, "o", color=INK, markersize=1.8, label="0")
right.plot(*centers[ignored].T, "D", color="C2", markersize=5, label="ignored")
right.plot(*centers[index].T, "o", color="C1", markersize=6, label="1")
for position in ignored.nonzero()[:, 0].tolist():
    outline(right, boxes[PICTURE, position], color="C2", linestyle="--", linewidth=1)
for position in index.tolist():
    outline(right, boxes[PICTURE, position], color="C1")
right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
handles = [
    plt.Line2D([], [], color="C0", linewidth=2.2, label="object"),
    plt.Line2D([], [], color="C1", label="best anchor"),
    plt.Line2D([], [], color=INK, linestyle=":", label="other anchors"),
]
left.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
picture_ignored = int(ignored.sum())
assert picture_ignored > 0

# %% results tags=["hidden"]
figure, axes_grid = plt.subplots(1, 4, figsize=(7.5, 2.5), sharey=True)
after = detections(True)
for axes, n in zip(axes_grid, (5, 35, 33, 36), strict=True):
    show(axes, test_images[n])
    axes.set(xticks=[0, 32, 64], yticks=[0, 32, 64], xlabel="x (pixels)")
    for box in test_targets[n]["boxes"]:
        outline(axes, box, color="C0", linewidth=2)
    for box, score in zip(after[n]["boxes"], after[n]["scores"], strict=True):
        if score > 0.2:
            outline(axes, box, color="C1", linestyle="--")
            x, y = (
                box[0].clamp(min=1, max=50).item(),
                box[1].clamp(min=1, max=58).item(),
            )
            label = axes.text(x, y, f"{score:.2f}", color="white", fontsize=7, va="top")
            label.set_bbox(
                {"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 1}
            )
axes_grid[0].set(ylabel="y (pixels)")

# %% roots
w = torch.tensor(-0.01, requires_grad=True)  # a linear output, a little below 0
truth = torch.tensor(0.04)
for name, root in {"the root of the output": w.sqrt(), "the output itself": w}.items():
    error = (root - truth.sqrt()).square()
    (gradient,) = torch.autograd.grad(error, w)
    print(f"{name:23} error {error.item():.3f}, gradient {gradient.item():.2f}")

# %% roots_hold tags=["hidden"]
assert w.sqrt().isnan()
assert abs(gradient.item() + 0.42) < 1e-6

# %% units_hold tags=["hidden"]
all_sizes = photo_sizes(0)
in_pixels = anchors_by("median", all_sizes, 0)
in_cells = in_pixels / 32
assert (shape_iou(in_pixels, in_cells).diag() * 1024 - 1).abs().max() < 1e-6
large = all_sizes[(all_sizes > in_cells.amax(dim=0)).all(dim=1)]
assert len(large) > 500
assert (shape_iou(large, in_cells).argmax(dim=1) == 4).all()  # the largest anchor

# %% exercises_hold tags=["hidden"]
assert 3 * (19**2 + 38**2 + 76**2) == 22743
assert abs(torch.tensor(0.99).logit().item() - 4.595) < 1e-3
logit = torch.tensor(4.0, requires_grad=True)
wanted = torch.tensor(0.5)
cross_entropy = F.binary_cross_entropy_with_logits(logit, wanted)
squares = (logit.sigmoid() - wanted).square() / 2
slopes = [torch.autograd.grad(x, logit)[0].item() for x in (cross_entropy, squares)]
share = torch.tensor(4.0).sigmoid().item()
assert abs(slopes[1] / slopes[0] - share * (1 - share)) < 1e-5
