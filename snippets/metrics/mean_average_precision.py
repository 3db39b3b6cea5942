# %% quick_start
import torch

from zhixing.metrics.mean_average_precision import mean_average_precision

boxes = torch.tensor([[0.0, 0, 40, 40], [50, 50, 90, 90]])  # x1, y1, x2, y2
target = {"boxes": boxes, "labels": torch.tensor([1, 1])}
shifted = torch.tensor([[2.0, 0, 42, 40], [10, 60, 40, 90], [50, 60, 90, 100]])
prediction = {
    "boxes": shifted,
    "labels": torch.tensor([1, 1, 1]),
    "scores": torch.tensor([0.9, 0.8, 0.7]),
}
for rule in "voc07", "voc10", "coco":
    value = mean_average_precision([prediction], [target], rule=rule)
    print(f"{rule:6}{value:.3f}")

# %% quick_start_holds tags=["hidden"]
ap50 = mean_average_precision([prediction], [target], iou_thresholds=[0.5])
quick = [
    mean_average_precision([prediction], [target], rule=r) for r in ("voc07", "voc10")
]
assert abs(quick[0] - (6 + 5 * 2 / 3) / 11) < 1e-12
assert abs(quick[1] - 5 / 6) < 1e-12
assert value < 0.7 < min(quick)

# %% setup
import matplotlib.pyplot as plt

from zhixing.metrics.mean_average_precision import (
    average_precision,
    box_iou,
    match,
    precision_recall,
)

RULES = "voc07", "voc10", "coco", "linear"

# %% example
persons = [  # in each of seven images: x, y, width, height
    [(25, 16, 38, 56), (129, 123, 41, 62)],
    [(123, 11, 43, 55), (38, 132, 59, 45)],
    [(16, 14, 35, 48), (123, 30, 49, 44), (99, 139, 47, 47)],
    [(53, 42, 40, 52), (154, 43, 31, 34)],
    [(59, 31, 44, 51), (48, 128, 34, 52)],
    [(36, 89, 52, 76), (62, 58, 44, 67)],
    [(28, 31, 55, 63), (58, 67, 50, 58)],
]
found = [  # score in percent, x, y, width, height
    [(88, 5, 67, 31, 48), (70, 119, 111, 40, 67), (80, 124, 9, 49, 67)],
    [(71, 64, 111, 64, 58), (54, 26, 140, 60, 47), (74, 19, 18, 43, 35)],
    [
        *[(18, 109, 15, 77, 39), (67, 86, 63, 46, 45), (38, 160, 62, 36, 53)],
        *[(91, 105, 131, 47, 47), (44, 18, 148, 40, 44)],
    ],
    [
        *[(35, 83, 28, 28, 26), (78, 28, 68, 42, 67)],
        *[(45, 87, 89, 25, 39), (14, 10, 155, 60, 26)],
    ],
    [
        *[(62, 50, 38, 28, 46), (44, 95, 11, 53, 28)],
        *[(95, 29, 131, 72, 29), (23, 29, 163, 72, 29)],
    ],
    [(45, 43, 48, 74, 38), (84, 17, 155, 29, 35), (43, 95, 110, 25, 42)],
    [(48, 16, 20, 101, 88), (95, 33, 116, 37, 49)],
]


def xyxy(rows, last):
    """Corners of the boxes; `last` is 1 if the last pixel belongs to the box."""
    x, y, w, h = torch.tensor(rows).double().T
    return torch.stack([x, y, x + w + last, y + h + last], 1)


def example(last=1):
    predictions, targets = [], []
    for objects, rows in zip(persons, found, strict=True):
        labels = torch.ones(len(objects) + len(rows), dtype=torch.int64)
        boxes = xyxy([row[1:] for row in rows], last)
        scores = torch.tensor([row[0] / 100 for row in rows])
        predictions.append(
            {"boxes": boxes, "scores": scores, "labels": labels[: len(rows)]}
        )
        targets.append({"boxes": xyxy(objects, last), "labels": labels[len(rows) :]})
    return predictions, targets


# %% same_boxes
def all_rules(predictions, targets):
    return [
        mean_average_precision(predictions, targets, rule=r, iou_thresholds=[0.3])
        for r in RULES
    ]


predictions, targets = example()
table = {
    "as published": all_rules(predictions, targets),
    "without the last pixel": all_rules(*example(last=0)),
    "images in reverse order": all_rules(predictions[::-1], targets[::-1]),
}
print(f"{'':24}", *(f"{rule:>7}" for rule in RULES))
for name, values in table.items():
    print(f"{name:24}", *(f"{value:7.3f}" for value in values))

# %% same_boxes_hold tags=["hidden"]
published_voc07, published_voc10, same_coco, same_linear = table["as published"]
pixel_voc10 = table["without the last pixel"][1]
reversed_voc10 = table["images in reverse order"][1]
assert abs(published_voc07 - 0.2684) < 5e-5
assert abs(published_voc10 - 0.2456) < 1e-4
assert abs(same_coco - published_voc10) < 1 / 101
assert same_linear - max(published_voc07, same_coco) > 0.05
assert pixel_voc10 < published_voc10 - 0.01
assert reversed_voc10 < published_voc10 - 0.01
assert sum(map(len, persons)) == 15
assert sum(map(len, found)) == 24
pairs = zip(predictions, targets, strict=True)
overlaps = torch.cat([box_iou(p["boxes"], t["boxes"]).flatten() for p, t in pairs])
pairs = zip(*example(last=0), strict=True)
without = torch.cat([box_iou(p["boxes"], t["boxes"]).flatten() for p, t in pairs])
assert ((overlaps >= 0.3) & (without < 0.3)).sum() == 1

# %% picture_data tags=["hidden"]
hits, scores = [], []
for p, t in zip(predictions, targets, strict=True):
    ious = box_iou(p["boxes"], t["boxes"])
    hits.append(match(ious, p["scores"], threshold=0.3, second_choice=False) >= 0)
    scores.append(p["scores"])
recall, precision = precision_recall(torch.cat(hits), torch.cat(scores), 15)
envelope = precision.flip(0).cummax(0).values.flip(0)

# %% picture tags=["hidden"]
names = "VOC 2007", "VOC 2010", "COCO", "YOLOv5"
figure, rows = plt.subplots(2, 2, figsize=(7.5, 5.6), sharex=True, sharey=True)
step_recall = torch.cat([torch.zeros(1), recall, recall[-1:], torch.ones(1)])
step_height = torch.cat([envelope[:1], envelope, torch.zeros(2)])
for axes, rule, name in zip(rows.flat, RULES, names, strict=True):
    area = average_precision(recall, precision, rule=rule).item()
    if rule == "voc10":
        axes.fill_between(step_recall, step_height, step="pre", alpha=0.3, color="C1")
    elif rule == "linear":
        corners = torch.cat([torch.zeros(1), recall, torch.ones(1)])
        heights = torch.cat([torch.ones(1), envelope, torch.zeros(1)])
        axes.fill_between(corners, heights, alpha=0.3, color="C1")
        axes.plot(corners, heights, color="C1")
    else:
        count = 11 if rule == "voc07" else 101
        levels = torch.linspace(0, 1, count, dtype=torch.float64)
        index = torch.searchsorted(recall, levels - 1e-9)
        heights = torch.cat([envelope, torch.zeros(1)])[index]
        axes.bar(levels, heights, width=0.9 / count, alpha=0.3, color="C1")
        axes.plot(levels, heights, ".", color="C1", markersize=40 / count + 2)
    axes.plot(recall, precision, color="C0", marker="o", markersize=3, linewidth=1)
    axes.set(title=f"{name}: {area:.3f}", xlim=(-0.05, 1.05), ylim=(0, 1.05))
for axes in rows[1]:
    axes.set(xlabel="recall $R$")
for axes in rows[:, 0]:
    axes.set(ylabel="precision $P$")


# %% detector
def detector(images, seed):
    """Scores and hits of 104 boxes an image; a box is right with chance `score`."""
    generator = torch.Generator().manual_seed(seed)
    clear = 2 + 1.5 * torch.randn(images, 4, generator=generator)
    clutter = -5 + torch.randn(images, 100, generator=generator)
    scores = torch.cat([clear, clutter], 1).sigmoid()
    return scores, torch.rand(scores.shape, generator=generator) < scores


def area(scores, hits, rule, threshold=0.0):
    """AP of the boxes whose score reaches the threshold; every hit is an object."""
    kept = scores >= threshold
    curve = precision_recall(hits[kept], scores[kept], int(hits.sum()))
    return average_precision(*curve, rule=rule).item()


# %% threshold
cuts = [0, 0.1, 0.25, 0.5, 0.7]
after_cut = {
    rule: [[area(*detector(500, seed), rule, cut) for cut in cuts] for seed in range(3)]
    for rule in ("coco", "linear")
}
print("scores from  ", *(f"{cut:6}" for cut in cuts))
for rule, runs in after_cut.items():
    for run in runs:
        print(f"{rule:13}", *(f"{value:6.2f}" for value in run))

# %% threshold_holds tags=["hidden"]
import itertools

for run in after_cut["coco"]:
    assert all(low < high - 0.005 for high, low in itertools.pairwise(run))
for run in after_cut["linear"]:
    assert min(run[1:4]) > run[0] + 0.01
for ours, theirs in zip(after_cut["coco"], after_cut["linear"], strict=True):
    assert abs(ours[0] - theirs[0]) < 0.01
    assert theirs[3] > ours[3] + 0.05
for rule in "voc07", "voc10":
    scores, hits = detector(500, 0)
    values = [area(scores, hits, rule, cut) for cut in cuts]
    assert values == sorted(values, reverse=True)

# %% noise
noise = {}
for images in 25, 100, 400:
    fresh = torch.tensor([area(*detector(images, 10 + s), "coco") for s in range(100)])
    guesses = []
    for seed in range(3):  # from one set of images each
        scores, hits = detector(images, seed)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(images, (100, images), generator=generator)
        again = torch.tensor([area(scores[d], hits[d], "coco") for d in drawn])
        guesses.append(again.std().item())
    noise[images] = (fresh.std().item(), guesses)
    print(f"{images:4} images: standard deviation {fresh.std():.3f}", end="")
    print("; guessed from one set:", *(f"{guess:.3f}" for guess in guesses))

# %% noise_holds tags=["hidden"]
scaled = [spread * images**0.5 for images, (spread, _) in noise.items()]
assert max(scaled) < 1.5 * min(scaled)
for spread, guesses in noise.values():
    assert all(spread / 2 < guess < 2 * spread for guess in guesses)
noise_constant = sum(scaled) / 3
noise_hundred = noise[100][0]

# %% crowded
corners = 20.0 * torch.arange(150)[:, None].expand(-1, 4)
many = {
    "boxes": corners + torch.tensor([0.0, 0, 10, 10]),
    "labels": torch.ones(150, dtype=torch.int64),
}
perfect = {**many, "scores": torch.linspace(1, 0, 150)}
limited = mean_average_precision([perfect], [many])
unlimited = mean_average_precision([perfect], [many], max_detections=150)
print(f"150 objects, 150 perfect boxes: {limited:.3f}; without the limit {unlimited}")

# %% crowded_holds tags=["hidden"]
assert abs(limited - 67 / 101) < 1e-12
assert unlimited == 1

# %% image_mean
box, far = torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([[50.0, 50, 59, 59]])
one = torch.tensor([1])
first = {"boxes": box, "labels": one, "scores": torch.tensor([0.6])}
second = {
    "boxes": torch.cat([far, box]),
    "labels": torch.tensor([1, 1]),
    "scores": torch.tensor([0.9, 0.3]),
}
truth = {"boxes": box, "labels": one}
alone = [mean_average_precision([p], [truth], rule="voc10") for p in (first, second)]
both = mean_average_precision([first, second], [truth, truth], rule="voc10")
print(f"each image alone: {alone}, mean {sum(alone) / 2}; pooled: {both:.3f}")

# %% image_mean_holds tags=["hidden"]
assert alone == [1.0, 0.5]
assert abs(both - 2 / 3) < 1e-12

# %% areas_differ_little tags=["hidden"]
for seed in range(20):
    generator = torch.Generator().manual_seed(seed)
    objects = int(torch.randint(1, 60, (), generator=generator))
    drawn = torch.rand(80, generator=generator) < 0.5
    drawn &= drawn.cumsum(0) <= objects
    curve = precision_recall(drawn, torch.rand(80, generator=generator), objects)
    exact = average_precision(*curve, rule="voc10")
    for rule, levels in {"coco": 101, "voc07": 11}.items():
        sampled = average_precision(*curve, rule=rule)
        assert abs(sampled - exact) <= 1 / levels + 1e-12
