# %% quick_start
import torch
import torch.nn.functional as F

levels = 6, 3, 2, 1
for height, width in (13, 13), (10, 10), (24, 9):
    maps = torch.randn(2, 256, height, width)
    pooled = [F.adaptive_max_pool2d(maps, n).flatten(1) for n in levels]
    print((height, width), "->", tuple(torch.cat(pooled, 1).shape))

# %% quick_start_holds tags=["hidden"]
assert torch.cat(pooled, 1).shape == (2, 50 * 256)

# %% setup
from torch import nn

from zhixing.convolution.spatial_pyramid_pooling import (
    ASPP,
    bins,
    paper_windows,
    spatial_pyramid_pool,
    sppf,
)


# %% scenes
def scenes(count, height, width, generator):
    """Draw a blob into a quadrant of noisy images; return images and quadrants."""
    quadrant = torch.randint(4, (count,), generator=generator)
    place = 0.3 + 0.4 * torch.rand(2, count, 1, 1, 1, generator=generator)
    half = torch.stack([quadrant // 2, quadrant % 2]).view(2, count, 1, 1, 1)
    row, column = (place + half) / 2
    rows, columns = torch.arange(height).view(-1, 1) + 0.5, torch.arange(width) + 0.5
    distance2 = (rows - height * row) ** 2 + (columns - width * column) ** 2
    noise = torch.randn(count, 1, height, width, generator=generator)
    return 4 * torch.exp(-distance2 / 2) + 0.3 * noise, quadrant


# %% picture
import matplotlib.pyplot as plt

figure, rows = plt.subplots(2, 4, figsize=(7.2, 3.8), layout="constrained")
for axes, (height, width) in zip(rows, [(24, 24), (18, 30)], strict=True):
    image, _ = scenes(1, height, width, torch.Generator().manual_seed(4))
    extent = (0, width, height, 0)
    axes[0].imshow(image[0, 0], extent=extent, vmin=-1, vmax=4.5)
    axes[0].set_title(f"map of {height} × {width}")
    for panel, n in zip(axes[1:], (4, 2, 1), strict=True):
        cells = F.adaptive_max_pool2d(image, n)[0, 0]
        panel.imshow(cells, extent=extent, vmin=-1, vmax=4.5)
        panel.set_title(f"{n} × {n} bins")
for panel in rows.flat:
    panel.set(xticks=[], yticks=[])

# %% against_torch
x = torch.randn(2, 3, 13, 10)
theirs = torch.cat([F.adaptive_max_pool2d(x, n).flatten(1) for n in levels], 1)
print("equal to torch:", torch.equal(spatial_pyramid_pool(x), theirs))
for size in 12, 13, 11:
    overlap = sum(stop - start for start, stop in bins(size, 4)) - size
    print(f"{size} pixels in 4 bins: {bins(size, 4)}, {overlap} pixels twice")

# %% against_torch_holds tags=["hidden"]
assert torch.equal(spatial_pyramid_pool(x), theirs)
for size in range(1, 60):
    for n in range(1, 13):
        readers = torch.zeros(size)
        for start, stop in bins(size, n):
            readers[start:stop] += 1
        assert readers.min() >= 1
        assert n > size or readers.max() <= 2

# %% rules
figure, rows = plt.subplots(2, 2, figsize=(7, 3.6), sharex=True, layout="constrained")
for axes, size in zip(rows, (10, 11), strict=True):
    for panel, rule in zip(axes, (bins, paper_windows), strict=True):
        intervals = rule(size, 4)
        for i, (start, stop) in enumerate(intervals):
            panel.barh(i + 1, stop - start, left=start, height=0.7, color=f"C{i % 2}")
        if (end := intervals[-1][1]) < size:
            panel.axvspan(
                end, size, color="gray", alpha=0.4, label="not read", zorder=0
            )
            panel.legend(loc="lower left")
        panel.axvline(size, color="gray", linestyle=":")
        panel.invert_yaxis()
        panel.set_yticks(range(1, len(intervals) + 1))
    axes[0].set(title=f"adaptive, {size} pixels", ylabel="bin")
    axes[1].set_title(f"window and stride, {size} pixels")
for panel in rows[-1]:
    panel.set(xlabel="pixel", xticks=range(0, 12, 2))

# %% rules_hold tags=["hidden"]
assert paper_windows(10, 4) == [(0, 3), (2, 5), (4, 7), (6, 9)]
assert len(paper_windows(11, 4)) == 5
assert bins(10, 4)[-1] == (7, 10)

# %% census
census = {}
for n in 2, 3, 4, 6:
    windows = {a: paper_windows(a, n) for a in range(n, 101)}
    too_many = sum(len(found) > n for found in windows.values())
    equal = sum(found == bins(a, n) for a, found in windows.items())
    census[n] = too_many, len(windows) - too_many - equal, equal
    print(f"n = {n}: {too_many:2} sizes with too many bins", end=", ")
    print(f"{census[n][1]:2} with unread pixels, {equal:2} as adaptive")

# %% census_holds tags=["hidden"]
for n in range(1, 11):
    for a in range(n, 200):
        q, r = divmod(a, n)
        found = paper_windows(a, n)
        assert len(found) == n + ((r - 1) // q if r else 0)
        assert a - found[-1][1] == ((r - 1) % q if r else 0)
        assert (found == bins(a, n)) == (r <= 1)
assert census[6][1] > census[6][2] > census[6][0] > 0
unread_share = census[6][1] / sum(census[6])

# %% papers_maps
for size in 13, 18, 10:
    made = [len(paper_windows(size, n)) for n in levels]
    print(f"{size} × {size}:", ", ".join(f"{m} × {m}" for m in made), end="")
    print(f", in total {sum(m * m for m in made)}")

# %% papers_maps_hold tags=["hidden"]
assert all(size % n <= 1 for size in (13, 18) for n in levels)
assert made == [9, 3, 2, 1]


# %% quadrant
test_sizes = (24, 24), (32, 20), (40, 56)


def accuracies(levels, seed):
    """Train on 24 × 24 to name the blob's quadrant; test there and at other sizes."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    convolution = nn.Conv2d(1, 4, 3)
    linear = nn.Linear(4 * sum(n * n for n in levels), 4)
    parameters = [*convolution.parameters(), *linear.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.02)

    def logits(images):
        return linear(spatial_pyramid_pool(F.relu(convolution(images)), levels=levels))

    for _ in range(60):
        images, quadrant = scenes(16, 24, 24, generator)
        optimizer.zero_grad()
        F.cross_entropy(logits(images), quadrant).backward()
        optimizer.step()
    shares = []
    for height, width in test_sizes:
        images, quadrant = scenes(400, height, width, generator)
        right = logits(images).detach().argmax(1) == quadrant
        shares.append(right.float().mean().item())
    return shares


found = {}
for tried in (1,), (2, 1), (4, 2, 1):
    found[tried] = [accuracies(tried, seed) for seed in range(3)]
    for (height, width), *shares in zip(test_sizes, *found[tried], strict=True):
        print(f"{tried!s:9} {height} × {width}", *(f"{share:5.2f}" for share in shares))

# %% quadrant_holds tags=["hidden"]
global_shares = [share for shares in found[1,] for share in shares]
pyramid_shares = [
    share for key in [(2, 1), (4, 2, 1)] for s in found[key] for share in s
]
assert 0.15 < min(global_shares) <= max(global_shares) < 0.35
assert min(pyramid_shares) > 0.9

# %% yolo
x = torch.randn(1, 8, 20, 20)  # the map of an image of 640 × 640 at stride 32
sizes = 5, 9, 13
windows = [F.max_pool2d(x, k, stride=1, padding=k // 2) for k in sizes]
print("SPPF equals 5, 9, 13:", torch.equal(sppf(x), torch.cat([x, *windows], 1)))

# %% yolo_holds tags=["hidden"]
assert torch.equal(sppf(x), torch.cat([x, *windows], 1))

# %% zeros
negative = -x.abs()
changed = {}
for k, right in zip(sizes, sppf(negative).chunk(4, 1)[1:], strict=True):
    padded = F.pad(negative, [k // 2] * 4)  # with zeros
    wrong = F.max_pool2d(padded, k, stride=1) != right
    changed[k] = wrong.float().mean().item()
    print(f"{k:2} × {k:2}: zeros win in {changed[k]:.0%} of the map")

# %% zeros_hold tags=["hidden"]
for k in sizes:
    assert abs(changed[k] - (1 - ((21 - k) / 20) ** 2)) < 1e-6

# %% aspp
module = ASPP(2048)
aspp_weights = sum(p.numel() for p in module.parameters() if p.ndim == 4)
print(f"{aspp_weights:,} weights in convolutions")
small = ASPP(8, out_channels=4).eval()
for height, width in (33, 33), (21, 40):
    print(tuple(small(torch.randn(1, 8, height, width)).shape))

# %% aspp_holds tags=["hidden"]
assert aspp_weights == (2 + 27) * 2048 * 256 + 5 * 256 * 256
pyramid_head, single_head = 50 * 256 * 4096, 256 * 4096
inside = 0.0  # mean number of taps of the three dilated kernels on a map of 33 × 33
for rate in 6, 12, 18:
    ones, kernel = torch.ones(1, 1, 33, 33), torch.ones(1, 1, 3, 3)
    taps = F.conv2d(ones, kernel, padding=rate, dilation=rate).mean().item()
    assert abs(taps - 9 * (1 - 2 * rate / (3 * 33)) ** 2) < 1e-3
    inside += taps
products = aspp_weights - 2048 * 256  # at each pixel; the mean is convolved only once
zero_share = (27 - inside) * 2048 * 256 / products

# %% two_images
torch.manual_seed(0)
pooling = ASPP(64, out_channels=4).convs[-1][:3]  # mean, convolution, normalisation
first, second = 10 * torch.rand(2, 64, 33, 33) * torch.rand(2, 64, 1, 1)
for factor in 1, 10, 100:
    values = pooling(torch.stack([first, factor * second])).flatten(1)
    print(f"second image × {factor:3}:", *(f"{value:5.2f}" for value in values[1]))

# %% two_images_hold tags=["hidden"]
for factor in 10, 100:
    pair = pooling(torch.stack([first, factor * second])).flatten(1)
    assert torch.allclose(pair.abs(), torch.ones_like(pair), atol=0.01)
    assert torch.allclose(pair[0], -pair[1], atol=1e-3)
    assert torch.allclose(pair[1], values[1], atol=0.01)
