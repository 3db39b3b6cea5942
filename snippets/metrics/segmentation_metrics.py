# %% quick_start
import torch

from zhixing.metrics.segmentation_metrics import (
    confusion_matrix,
    frequency_weighted_iou,
    iou,
    mean_iou,
    mean_pixel_accuracy,
    pixel_accuracy,
)


def disk(radius, *, shift=0, size=64):
    axis = torch.arange(size) - (size - 1) / 2
    return (axis[:, None] ** 2 + (axis - shift) ** 2 <= radius**2).long()


target, prediction = disk(8), disk(9)  # one pixel too wide
matrix = confusion_matrix(prediction, target, num_classes=2)
print(f"truth in the rows: {matrix.tolist()}")
print(f"PA    {pixel_accuracy(matrix):.3f}")
print(f"MPA   {mean_pixel_accuracy(matrix):.3f}")
print(f"IoU   {iou(matrix)[1]:.3f} of the disk, {iou(matrix)[0]:.3f} of the background")
print(f"mIoU  {mean_iou(matrix):.3f}")
print(f"FWIoU {frequency_weighted_iou(matrix):.3f}")

# %% quick_start_holds tags=["hidden"]
disk_iou = iou(matrix)[1].item()
disk_accuracy = pixel_accuracy(matrix).item()
assert abs(disk_iou - 0.8) < 0.05
assert disk_accuracy > 0.98
assert mean_pixel_accuracy(matrix) > 0.98
assert frequency_weighted_iou(matrix) > 0.97

# %% picture
import math

import matplotlib.pyplot as plt

radii = torch.arange(4, 65)
scores = {"pixel accuracy, grown": [], "IoU, shifted": [], "IoU, grown": []}
for r in radii.tolist():
    truth = disk(r, size=256)
    grown = confusion_matrix(disk(r + 1, size=256), truth, 2)
    shifted = confusion_matrix(disk(r, shift=1, size=256), truth, 2)
    scores["pixel accuracy, grown"].append(pixel_accuracy(grown))
    scores["IoU, shifted"].append(iou(shifted)[1])
    scores["IoU, grown"].append(iou(grown)[1])

figure, axes = plt.subplots()
for name, values in scores.items():
    axes.plot(radii, values, label=name)
axes.plot(
    radii,
    (math.pi * radii - 2) / (math.pi * radii + 2),
    ":",
    color="gray",
    label="formulas",
)
axes.plot(radii, radii**2 / (radii + 1) ** 2, ":", color="gray")
axes.set(xlabel="radius of the disk $r$ (pixels)", ylabel="score", ylim=(0.55, 1.02))
axes.legend()

# %% picture_holds tags=["hidden"]
figure_accuracy = min(scores["pixel accuracy, grown"]).item()
smallest, largest = scores["IoU, grown"][0].item(), scores["IoU, grown"][-1].item()
assert figure_accuracy > 0.99
assert smallest < 0.7
assert largest > 0.95
for name, formula in {
    "IoU, shifted": (math.pi * radii - 2) / (math.pi * radii + 2),
    "IoU, grown": radii**2 / (radii + 1) ** 2,
}.items():
    difference = (torch.stack(scores[name]) - formula).abs()
    assert difference.max() < 0.05
    assert difference[radii >= 8].max() < 0.03
for values in scores.values():
    assert values[-1] > 0.96
growth_share = 1 / math.sqrt(0.8) - 1  # of the radius, at an IoU of 0.8
assert abs(growth_share - 0.118) < 1e-3

# %% background
classes = 21  # of PASCAL VOC, the background included
counts = torch.tensor([60_000] + [1000] * 20)  # true pixels: 3/4 are background
truth = torch.arange(classes).repeat_interleave(counts)
everywhere = confusion_matrix(torch.zeros_like(truth), truth, classes)
for score in pixel_accuracy, mean_pixel_accuracy, mean_iou, frequency_weighted_iou:
    print(f"{score.__name__:22} {score(everywhere):.3f}")

# %% background_holds tags=["hidden"]
assert abs(pixel_accuracy(everywhere) - 0.75) < 1e-12
assert abs(mean_pixel_accuracy(everywhere) - 1 / 21) < 1e-12
assert abs(frequency_weighted_iou(everywhere) - 0.75**2) < 1e-12
assert abs(mean_iou(everywhere) - 0.75 / 21) < 1e-12

# %% published
PUBLISHED = [  # pixel acc., mean acc., mean IU, f.w. IU: tables 2, 4, 5, 6 of the paper
    *[(83.0, 59.7, 45.4, 72.0), (89.1, 73.3, 59.4, 81.4), (90.0, 75.7, 62.4, 83.0)],
    *[(90.3, 75.9, 62.7, 83.2), (60.0, 42.2, 29.2, 43.9), (61.5, 42.4, 30.5, 45.5)],
    *[(57.1, 35.2, 24.2, 40.4), (64.3, 44.9, 32.8, 48.0), (65.4, 46.1, 34.0, 49.5)],
    *[(85.2, 51.7, 39.5, 76.1), (63.8, 42.7, 31.8, 48.3), (65.7, 46.2, 34.8, 50.7)],
    *[(65.9, 46.5, 35.1, 51.0), (69.8, 65.1, 50.4, 54.9), (71.8, 68.0, 53.4, 57.5)],
    *[(71.8, 67.6, 53.5, 57.7)],
]
accuracy, mean_accuracy, mean, weighted = (torch.tensor(PUBLISHED) / 100).T
grid = torch.linspace(0.5, 1, 100)
figure, axes = plt.subplots()
axes.fill_between(grid, grid**2, grid, alpha=0.2, label="possible for FWIoU")
axes.plot(grid, grid / (2 - grid), ":", color="gray", label="IoU, pooled over classes")
axes.plot(accuracy, weighted, "o", label="FWIoU")
axes.plot(accuracy, mean, "x", label="mIoU")
axes.set(xlabel="pixel accuracy PA", ylabel="score", xlim=(0.5, 1), ylim=(0.2, 1))
axes.legend()

# %% published_holds tags=["hidden"]
assert (accuracy**2 < weighted).all()
assert (weighted < accuracy).all()
assert (mean < mean_accuracy).all()
assert (mean < weighted).all()
micro_gap = (weighted - accuracy / (2 - accuracy)).abs().max().item()
assert micro_gap < 0.02


# %% pooled
def noisy_maps(seed, images=200):
    """A disk in each image, a square in a quarter; 6 % of the pixels relabelled."""
    generator = torch.Generator().manual_seed(seed)
    radii = torch.randint(3, 13, (images,), generator=generator)
    truth = torch.stack([disk(r, size=32) for r in radii])
    truth[: images // 4, :10, :10] = 2
    truth = truth[torch.randperm(images, generator=generator)]
    labels = torch.randint(3, truth.shape, generator=generator)
    noisy = torch.rand(truth.shape, generator=generator) < 0.06
    return torch.where(noisy, labels, truth), truth


def batched_score(batch, seed, absent):
    pairs = zip(*(maps.split(batch) for maps in noisy_maps(seed)), strict=True)
    matrices = [confusion_matrix(prediction, truth, 3) for prediction, truth in pairs]
    return torch.stack([mean_iou(matrix, absent=absent) for matrix in matrices]).mean()


batched = {}
for batch in 1, 2, 5, 20, 200:
    print(f"batches of {batch:3}", end="")
    for absent in "skip", "truth":
        found = [batched_score(batch, seed, absent).item() for seed in range(3)]
        print(f"   {absent}", *(f"{score:.3f}" for score in found), end="")
        batched[batch, absent] = found
    print()

# %% pooled_holds tags=["hidden"]
for seed in range(3):
    skip = [batched[batch, "skip"][seed] for batch in (1, 2, 5, 20, 200)]
    assert skip == sorted(skip)
    assert skip[-1] - skip[0] > 0.06
    for batch in 20, 200:  # such batches have all classes
        assert batched[batch, "truth"][seed] == batched[batch, "skip"][seed]
    assert batched[1, "truth"][seed] - skip[-1] > 0.04
image_skip, image_truth, pooled = (  # means over the seeds
    sum(batched[key]) / 3 for key in ((1, "skip"), (1, "truth"), (200, "skip"))
)

# %% wrap
row, column, K = torch.tensor([18]), torch.tensor([18]), 19  # as in Cityscapes
for dtype in torch.int64, torch.uint8:
    cell = (K * row.to(dtype) + column.to(dtype)).item()
    true, given = divmod(cell, K)
    print(f"{dtype!s:12} cell {cell:3}: truth {true:2}, predicted {given:2}")

# %% wrap_holds tags=["hidden"]
assert cell == 104
assert (true, given) == (5, 9)
assert confusion_matrix(row.byte(), column.byte(), K)[18, 18] == 1

# %% absent
few = torch.tensor(  # class 2 is predicted at 2 pixels, but never true
    [[90, 0, 2, 0], [0, 8, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
)
print("IoU", *(f"{score:.2f}" for score in iou(few)))
for absent in "skip", "truth", "zero":
    print(f"mIoU {mean_iou(few, absent=absent):.2f} with absent={absent!r}")

# %% absent_holds tags=["hidden"]
absent_skip, absent_truth, absent_zero = (
    mean_iou(few, absent=absent).item() for absent in ("skip", "truth", "zero")
)
assert absent_zero < 0.5 < absent_skip < 0.7 < 0.95 < absent_truth

# %% ignored
truth, all_ones = disk(8), torch.ones(64, 64, dtype=torch.int64)
for ignore_index in 255, 0:
    found = confusion_matrix(all_ones, truth, 2, ignore_index=ignore_index)
    print(f"ignore_index={ignore_index:3}: IoU of the disk {iou(found)[1]:.2f}")

# %% ignored_holds tags=["hidden"]
ignored_iou = iou(confusion_matrix(all_ones, truth, 2))[1].item()
assert ignored_iou < 0.06
assert iou(found)[1] == 1

# %% resized
import torch.nn.functional as F

row = torch.tensor([0, 0, 15, 15]).view(1, 1, 1, 4)  # two classes
for mode in "bilinear", "nearest-exact":
    wide = F.interpolate(row.float(), size=(1, 8), mode=mode)
    print(f"{mode:14}", wide.round().long().flatten().tolist())

# %% resized_holds tags=["hidden"]
bilinear = F.interpolate(row.float(), size=(1, 8), mode="bilinear").round().flatten()
assert bilinear.tolist() == [0, 0, 0, 4, 11, 15, 15, 15]
