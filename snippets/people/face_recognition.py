# %% quick_start
import torch
from skimage.transform import SimilarityTransform

from zhixing.people.face_recognition import TEMPLATE, align

image = torch.rand(1, 3, 480, 640)  # a photograph, and what a detector found in it
landmarks = [(310, 205), (366, 195), (345, 235), (325, 271), (368, 264)]
crop = align(image, torch.tensor([landmarks], dtype=torch.float32), size=112)

fit = SimilarityTransform.from_estimate(landmarks, TEMPLATE)
# For skimage.transform.warp, pass fit.inverse and output_shape=(112, 112).
print(f"{(*crop.shape,)}, scale {fit.scale:.2f}, turned by {fit.rotation:.2f} radians")

# %% quick_start_holds tags=["hidden"]
import numpy as np
import skimage.transform

from zhixing.people.face_recognition import similarity_transform

ours = similarity_transform(
    torch.tensor(landmarks, dtype=torch.float64),
    torch.tensor(TEMPLATE, dtype=torch.float64),
)
assert np.allclose(ours, fit.params[:2])
pixels = image[0, 0].double().numpy()
read = skimage.transform.warp(pixels, fit.inverse, output_shape=(112, 112))
assert np.allclose(read, crop[0, 0], atol=1e-3)
wrong = skimage.transform.warp(pixels, fit, output_shape=(112, 112))
assert np.abs(wrong - crop[0, 0].numpy()).mean() > 0.1

# %% setup
import math

import matplotlib.pyplot as plt
import torch.nn.functional as F
from skimage.data import lfw_subset

from zhixing.people.face_recognition import (
    fold_accuracy,
    similarity_transform,
    tar_at_far,
    warp,
)

torch.set_default_dtype(torch.float64)  # so that other processors print the same
torch.set_num_threads(1)
template = torch.tensor(TEMPLATE)


# %% affine
def affine_transform(source, target):
    ones = torch.ones_like(source[..., :1])
    return torch.linalg.lstsq(torch.cat([source, ones], -1), target).solution.mT


def apply(matrix, points):
    return points @ matrix[..., :2].mT + matrix[..., None, :, 2]


# %% residuals
sigma, faces_drawn = 0.5, 20_000
generator = torch.Generator().manual_seed(0)
found = template + sigma * torch.randn(faces_drawn, 5, 2, generator=generator)
pixels = torch.cartesian_prod(torch.arange(112.0), torch.arange(112.0))[::50]
print("                     squared distance in units of σ²")
print("             found landmarks    true ones    mean pixel of the crop")
for fit in similarity_transform, affine_transform:
    matrix = fit(found, template.expand_as(found))
    residual = (apply(matrix, found) - template).square().sum((1, 2)).mean()
    error = (apply(matrix, template) - template).square().sum((1, 2)).mean()
    crop_error = (apply(matrix, pixels) - pixels).square().sum(2).mean()
    measured = (x / sigma**2 for x in (residual, error, crop_error))
    print(f"{fit.__name__:20}", *(f"{x:9.1f}" for x in measured))

# %% residuals_hold tags=["hidden"]
centred = template - template.mean(0)
spread = centred.square().sum()
at = pixels - template.mean(0)
for fit, held, freedom, gram in (
    (similarity_transform, 6, 4, spread / 2 * torch.eye(2)),
    (affine_transform, 4, 6, centred.mT @ centred),
):
    matrix = fit(found, template.expand_as(found))
    residual = (apply(matrix, found) - template).square().sum((1, 2)).mean()
    error = (apply(matrix, template) - template).square().sum((1, 2)).mean()
    crop_error = (apply(matrix, pixels) - pixels).square().sum(2).mean()
    assert abs(residual / sigma**2 - held) < 0.3
    assert abs(error / sigma**2 - freedom) < 0.3
    weight = 1 if fit is affine_transform else 0.5
    formula = 2 * (1 / 5 + weight * ((at @ torch.linalg.inv(gram)) * at).sum(1))
    assert abs(crop_error / sigma**2 / formula.mean() - 1) < 0.05
    if fit is similarity_transform:
        per_pixel = formula
    else:
        assert (formula > per_pixel).all()

# %% photographs
faces = torch.from_numpy(lfw_subset()[:100, None])  # the other 100 are no faces
placed = 0.255 * template - torch.tensor([3.75, 5.2])  # the template on their mean
VIEWS = 5


def photograph(seed, squeeze=0.0, noise=0.5):
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(100 * VIEWS, *shape, generator=generator)

    angle, scale = uniform(-0.35, 0.35), uniform(0.8, 1.2)
    a, b = scale * angle.cos(), scale * angle.sin()
    linear = torch.stack([a, -b, b, a], 1).unflatten(1, (2, 2))
    width = 1 - uniform(0, squeeze)
    linear = linear * torch.stack([width, torch.ones_like(width)], 1)[:, None]
    shift = 20 + uniform(-3, 3, 2) - linear.sum(2) * 12  # the centre, in 40 × 40
    matrix = torch.cat([linear, shift[..., None]], 2)
    landmarks = apply(matrix, placed)
    landmarks += noise * torch.randn(landmarks.shape, generator=generator)
    return warp(faces.repeat_interleave(VIEWS, 0), matrix, size=40), landmarks


# %% photographs_hold tags=["hidden"]
noise_percent = 100 * 0.5 / (placed[1] - placed[0]).norm().item()
assert 5 < noise_percent < 6  # of the distance between the eyes

# %% methods
target = template / 4  # for crops of 28 × 28


def middle(landmarks, target):  # shifts only; all faces get the mean scale
    matrix = torch.eye(2, 3).repeat(len(landmarks), 1, 1) / (4 * 0.255)
    matrix[:, :, 2] = target.mean(0) - landmarks.mean(1) / (4 * 0.255)
    return matrix


methods = {
    "shift": middle,
    "eyes": lambda points, target: similarity_transform(points[:, :2], target[:2]),
    "affine": lambda points, target: affine_transform(points, target.expand_as(points)),
    "similarity": similarity_transform,
}


def crops(photographs, landmarks, method):
    matrix = methods[method](landmarks, target)
    return warp(photographs, matrix, size=28)[:, 0, 7:26, 6:26]  # without the borders


# %% picture
figure, axes = plt.subplots(2, 4, figsize=(6.4, 3.1), layout="constrained")
photographs, landmarks = photograph(0)
for (above, below), method in zip(axes.T, methods, strict=True):
    shown = crops(photographs, landmarks, method)
    spread = shown.unflatten(0, (100, VIEWS)).std(1).square().mean(0).sqrt()
    place = (5.5, 25.5, 25.5, 6.5)
    above.imshow(shown.mean(0), cmap="gray", vmin=0.2, vmax=0.7, extent=place)
    above.plot(*target.T, ".", color="tab:orange")
    image = below.imshow(spread, cmap="viridis", vmin=0, vmax=0.16, extent=place)
    above.set_title(method)
for panel in axes.flat:
    panel.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("mean")
axes[1, 0].set_ylabel("spread")
bar = figure.colorbar(image, ax=axes[1], pad=0.02)
bar.set_label("grey level, 0 to 1")


# %% picture_holds tags=["hidden"]
for seed in range(3):
    drawn = photograph(seed)
    spreads = [
        crops(*drawn, method).unflatten(0, (100, VIEWS)).std(1).square().mean().sqrt()
        for method in methods
    ]
    shift, eyes, affine, similar = spreads
    assert shift > 1.2 * eyes
    assert eyes > 1.1 * affine
    assert affine > 1.1 * similar


# %% verification
def true_accepts(photographs, landmarks, method, far=1e-3):
    x = crops(photographs, landmarks, method).flatten(1)
    x = F.normalize(x - x.mean(1, keepdim=True), dim=1)
    cosines = x @ x.T
    who = torch.arange(100).repeat_interleave(VIEWS)
    same, once = who[:, None] == who, torch.ones_like(cosines).triu(1).bool()
    return tar_at_far(cosines[same & once], cosines[~same & once], far)


print("TAR at FAR 0.001   ", *(f"{method:>10}" for method in methods))
for squeeze in 0.0, 0.5:
    photographs, landmarks = photograph(0, squeeze)
    rates = [true_accepts(photographs, landmarks, method) for method in methods]
    print(f"squeezed by ≤ {squeeze:3.0%}  ", *(f"{rate:10.2f}" for rate in rates))

# %% verification_holds tags=["hidden"]
for seed in range(3):
    for squeeze in 0.0, 0.5:
        drawn = photograph(seed, squeeze)
        shift, eyes, affine, similar = (true_accepts(*drawn, m) for m in methods)
        if squeeze:
            assert affine > similar + 0.1
            assert affine > 0.4 > similar
        else:
            assert shift + 0.1 < eyes < affine - 0.1
            assert affine + 0.05 < similar
            assert 0.8 < similar < 0.95
    drawn = photograph(seed, squeeze=0.25)
    affine, similar = (true_accepts(*drawn, m) for m in ("affine", "similarity"))
    assert abs(affine - similar) < 0.1
    drawn = photograph(seed, squeeze=0.25, noise=0.25)
    affine, similar = (true_accepts(*drawn, m) for m in ("affine", "similarity"))
    assert affine > similar + 0.05


# %% lfw_size
def draw_pairs(generator, pairs=6000, accuracy=0.996):
    same = torch.arange(pairs) % (pairs // 10) < pairs // 20  # in each fold, first
    gap = 2 * torch.distributions.Normal(0, 1).icdf(torch.tensor(accuracy))
    return torch.randn(pairs, generator=generator) + gap * same, same


def with_hindsight(scores, same):  # the best threshold of the fold itself
    correct = (scores > scores[:, None]) == same
    return correct.double().mean(1).max()


generator = torch.Generator().manual_seed(0)
rows = []
for _ in range(10):
    scores, same = draw_pairs(generator)
    honest = fold_accuracy(scores, same)
    tuned = torch.stack(list(map(with_hindsight, scores.chunk(10), same.chunk(10))))
    rows.append([honest.mean(), tuned.mean(), honest.max()])
rows = 100 * torch.tensor(rows)
names = "thresholds of the other folds", "of the fold itself", "best of ten folds"
for name, mean, sd in zip(names, rows.mean(0), rows.std(0), strict=True):
    print(f"{name:30} {mean:5.2f} %   sd over test sets {sd:.2f}")

# %% lfw_size_holds tags=["hidden"]
honest_mean, tuned_mean, best_fold = rows.mean(0).tolist()
gain = tuned_mean - honest_mean
assert (rows[:, 1] > rows[:, 0]).all()
assert best_fold > tuned_mean + 0.05
assert 0.05 < gain < 0.35
assert abs(honest_mean - 99.6) < 0.15
binomial = 100 * math.sqrt(0.996 * 0.004 / 6000)
assert abs(rows[:, 0].std() - binomial) < 0.06
assert round(0.99767 * 6000) == 5986  # 14 pairs are wrong
assert f"{5986 / 6000:.5f}" == "0.99767"
pair_value, error_998 = 100 / 6000, 100 * math.sqrt(0.998 * 0.002 / 6000)
error_crop, error_aligned = (
    100 * math.sqrt(p * (1 - p) / 6000) for p in (0.9887, 0.9963)
)
assert abs(error_crop - 0.15) < 0.02
assert abs(error_aligned - 0.09) < 0.02
small = [fold_accuracy(*draw_pairs(generator, 600, 0.9)).mean() for _ in range(3)]
assert abs(torch.stack(small).mean() - 0.9) < 0.04

# %% gallery
rates = 1e-3, 1e-4, 1e-6
print("f                   ", *(f"{f:9.4%}" for f in rates))
for size in 100, 10_000, 1_000_000:
    found = (1 - (1 - f) ** size for f in rates)
    print(f"gallery of {size:9,}", *(f"{share:9.2%}" for share in found))

# %% gallery_holds tags=["hidden"]
one_in_many = 1 - (1 - 1e-4) ** 10_000
assert abs(one_in_many - (1 - math.exp(-1))) < 1e-3

# %% wrong_size
photographs, landmarks = torch.rand(1, 1, 480, 640), template[None] * 2 + 50
for target_size, factor in (112, 1), (224, 1), (224, 2):
    matrix = similarity_transform(landmarks, factor * template)
    wide = warp(photographs, matrix, size=target_size)
    eyes = apply(matrix, landmarks)[0, :2]
    share = (eyes[1] - eyes[0]).norm() / target_size
    print(
        f"crop of {wide.shape[-1]}, template × {factor}: eyes {share:.2f} of it apart"
    )

# %% mirrored
mirrored = template * torch.tensor([-1.0, 1.0]) + torch.tensor([112.0, 0.0])
for name, order in ("as they come", [0, 1, 2, 3, 4]), ("swapped", [1, 0, 2, 4, 3]):
    matrix = similarity_transform(mirrored[order], template)
    scale = matrix[:, :2].det().sqrt()
    off = (apply(matrix, mirrored[order]) - template).square().sum(1).mean().sqrt()
    print(f"eyes {name:12}: scale {scale:.3f}, {off:4.1f} pixels off")

# %% mirrored_holds tags=["hidden"]
g = torch.linalg.eigvalsh(centred.mT @ centred)
matrix = similarity_transform(mirrored, template)
mirrored_scale = matrix[:, :2].det().sqrt().item()
assert math.isclose(mirrored_scale, ((g[1] - g[0]) / (g[1] + g[0])).item())
assert math.isclose(mirrored_scale, 0.2253, abs_tol=1e-4)
assert abs(matrix[1, 0]) < 0.1 * mirrored_scale  # nearly upright
cross = (template - template.mean(0)).mT @ (mirrored - mirrored.mean(0))
u, _, vh = torch.linalg.svd(cross)
assert torch.linalg.det(u @ vh) < 0
assert affine_transform(mirrored, template)[:, :2].det() < 0
assert abs((template[1] - template[0]).norm() - 35.24) < 0.005

# %% too_few
print("TAR at FAR 0.001, mean and sd over 30 test sets")
generator = torch.Generator().manual_seed(0)
for impostors in 3000, 30_000, 300_000:
    rates = []
    for _ in range(30):
        genuine = 4 + torch.randn(3000, generator=generator)
        impostor = torch.randn(impostors, generator=generator)
        rates.append(tar_at_far(genuine, impostor, 1e-3))
    mean, sd = torch.tensor(rates).mean(), torch.tensor(rates).std()
    print(f"{impostors:7,} impostor pairs: {mean:.2f} ± {sd:.2f}")

# %% too_few_hold tags=["hidden"]
assert 0.8 < mean < 0.84
assert sd < 0.015
first = [
    tar_at_far(
        4 + torch.randn(3000, generator=generator),
        torch.randn(3000, generator=generator),
        1e-3,
    )
    for _ in range(60)
]
assert torch.tensor(first).std() > 0.025
