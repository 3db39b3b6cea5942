# %% quick_start
import torch

from zhixing.people.gaze_estimation import angles_to_vector, angular_error

# (yaw, pitch) of two people, in degrees
predicted = torch.tensor([[10.0, -5.0], [175.0, 0.0]])
true = torch.tensor([[12.0, -5.0], [-175.0, 0.0]])
a, b = (angles_to_vector(*torch.deg2rad(each).T) for each in (predicted, true))
print("angle between the gazes:", torch.rad2deg(angular_error(a, b)).round(decimals=1))
print("difference in yaw:      ", (predicted - true)[:, 0].abs())

# %% setup
import math

import matplotlib.pyplot as plt
import torch.nn.functional as F
from torch import nn

from zhixing.people.gaze_estimation import (
    decode_bins,
    normalizing_rotation,
    vector_to_angles,
)

torch.set_num_threads(1)
torch.manual_seed(0)


def degrees(a, b):
    """The angle between two directions in degrees."""
    return torch.rad2deg(angular_error(a, b))


# %% picture tags=["hidden"]
# Camera at the origin, head 4 units away; seen from above and from the side.
figure, panels = plt.subplots(1, 2, figsize=(7, 3.3))


def view(axes, page, name, letter, camera, head):
    """Camera, head and gaze; `page` takes (side, distance) to the page."""
    turn = torch.deg2rad(torch.tensor(40.0))

    def arrow(start, end, color):
        style = {"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", page(*end), page(*start), arrowprops=style)

    def text(point, content, color):
        axes.text(*page(*point), content, color=color, ha="center", va="center")

    axes.plot(*page(torch.zeros(2), torch.tensor([0.0, 4.0])), ":", color="gray")
    axes.plot(*page(0.0, 0.0), "s", color="gray", markersize=8)
    axes.add_patch(plt.Circle(page(0.0, 4.0), 0.45, color="C0", alpha=0.35))
    arrow((0, 4), (2.6 * turn.sin().item(), 4 - 2.6 * turn.cos().item()), "C1")
    steps = torch.linspace(0, turn.item(), 30)
    axes.plot(*page(1.5 * steps.sin(), 4 - 1.5 * steps.cos()), color="C1", linewidth=1)
    middle = (2.1 * (turn / 2).sin().item(), 4 - 2.1 * (turn / 2).cos().item())
    text(middle, name, "C1")
    arrow((0, 0), (-1.3, 0), "C2")
    arrow((0, 0), (0, 1.3), "C2")
    text((-1.6, 0), letter, "C2")
    text((-0.3, 1.2), "z", "C2")
    text(camera, "camera", "gray")
    text(head, "head", "C0")
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


view(panels[0], lambda left, z: (-left, z), "yaw", "x", (0.9, 0), (-1.0, 4))
view(panels[1], lambda up, z: (z, up), "pitch", "y", (0.5, 0.1), (-0.8, 4))
panels[0].set(title="from above", xlim=(-2.6, 2.6), ylim=(-0.6, 4.7))
panels[1].set(title="from the side", xlim=(-0.6, 4.7), ylim=(-2.6, 2.6))

# %% conventions
yaw, pitch = torch.deg2rad(torch.tensor([30.0, 10.0]))
opencv = angles_to_vector(yaw, pitch)  # x right, y down, z away from the camera
gaze360 = opencv * torch.tensor([-1.0, -1.0, 1.0])  # x left, y up, z away
swapped = angles_to_vector(pitch, yaw)
print("OpenCV: ", opencv.round(decimals=2))
print("Gaze360:", gaze360.round(decimals=2))
wrong = torch.rad2deg(angular_error(opencv, swapped))
print(f"yaw and pitch swapped: wrong by {wrong:.0f}°")

# %% conventions_hold tags=["hidden"]
assert torch.allclose(torch.stack(vector_to_angles(opencv)), torch.stack([yaw, pitch]))
swapped_error = degrees(opencv, swapped).item()
assert swapped_error > 25
# Small angles: an error of (1°, 1°) is √2 degrees, at a pitch of 60° less.
one = torch.deg2rad(torch.tensor(1.0))
for at, expected in ((0.0, math.sqrt(2)), (60.0, math.sqrt(1.25))):
    start = torch.deg2rad(torch.tensor(at))
    moved = angles_to_vector(one, start + one)
    error = degrees(angles_to_vector(torch.zeros(()), start), moved)
    assert abs(error - expected) < 0.03

# %% screen
face = torch.tensor([200.0, 100.0, 600.0])  # mm, in the camera's coordinates
right = torch.tensor([1.0, 0.0, 0.0])  # the head is upright
rotation = normalizing_rotation(face, right)


def on_screen(gaze):
    """Where the ray from the face meets the plane z = 0 of camera and screen, in mm."""
    return (face - face[2] / gaze[2] * gaze)[:2]


estimate = angles_to_vector(torch.tensor(0.1), torch.tensor(0.2))
right_point, wrong_point = on_screen(rotation.T @ estimate), on_screen(estimate)
print("rotated back:", right_point.round())
print("forgotten:   ", wrong_point.round())

# %% screen_holds tags=["hidden"]
off = (right_point - wrong_point).norm().item()
assert off > 150
assert torch.allclose(rotation @ face, torch.tensor([0, 0, face.norm()]), atol=1e-3)
# Four degrees at 600 mm straight ahead.
four_degrees = 600 * math.tan(math.radians(4))
assert 41 < four_degrees < 43


# %% training
def predict(output, kind):
    """Directions (B, 3) from the network's output."""
    if kind == "vector":
        return F.normalize(output, dim=-1)
    if kind == "angles":
        yaw, pitch = output.T
    else:
        yaw = torch.deg2rad(decode_bins(output[:, :90]))
        pitch = torch.deg2rad(decode_bins(output[:, 90:], start=-48))
    return angles_to_vector(yaw, pitch)


def loss_of(output, kind, yaw, pitch):
    if kind == "vector":
        true = angles_to_vector(yaw, pitch)
        return (predict(output, kind) - true).norm(dim=-1).mean()
    if kind == "angles":
        return F.l1_loss(output, torch.stack([yaw, pitch], -1))
    loss = 0
    for logits, angle, start in (
        (output[:, :90], torch.rad2deg(yaw), -180),
        (output[:, 90:], torch.rad2deg(pitch), -48),
    ):
        bins = ((angle - start) / 4).long().clamp(0, logits.shape[1] - 1)
        loss += F.cross_entropy(logits, bins)
        loss += F.mse_loss(decode_bins(logits, start=start), angle)
    return loss


def draw(count, mixing, generator):
    """Noisy features (B, 24) of random directions, with their angles."""
    yaw, pitch = 2 * torch.rand(2, count, generator=generator) - 1
    yaw, pitch = math.pi * yaw, math.pi / 4 * pitch
    signal = angles_to_vector(yaw, pitch) @ mixing
    noise = torch.rand(signal.shape, generator=generator) - 0.5
    return torch.tanh(signal + 0.35 * noise), yaw, pitch


def train(kind, seed, steps=400):
    """Absolute yaws of a test set, in degrees, and the errors there."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(3, 24, generator=generator)
    outputs = {"angles": 2, "bins": 90 + 24, "vector": 3}[kind]
    hidden = [nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    network = nn.Sequential(*hidden, nn.Linear(64, outputs))
    optimizer = torch.optim.Adam(network.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    for _ in range(steps):
        features, yaw, pitch = draw(256, mixing, generator)
        optimizer.zero_grad()
        loss_of(network(features), kind, yaw, pitch).backward()
        optimizer.step()
        rate.step()
    with torch.no_grad():
        features, yaw, pitch = draw(10_000, mixing, generator)
        directions = predict(network(features), kind)
    return torch.rad2deg(yaw).abs(), degrees(directions, angles_to_vector(yaw, pitch))


# %% losses
seeds = range(3)
results = {
    kind: [train(kind, seed) for seed in seeds] for kind in ("angles", "bins", "vector")
}
print("         |yaw| < 170°   |yaw| > 170°")
for kind, runs in results.items():
    yaw, errors = (torch.cat(each) for each in zip(*runs, strict=True))
    front, back = errors[yaw < 170].mean(), errors[yaw > 170].mean()
    print(f"{kind:8} {front:8.0f}° {back:12.0f}°")

# %% losses_hold tags=["hidden"]
for seed in seeds:
    behind = {
        kind: runs[seed][1][runs[seed][0] > 170].mean()
        for kind, runs in results.items()
    }
    ahead = {
        kind: runs[seed][1][runs[seed][0] < 170].mean()
        for kind, runs in results.items()
    }
    for kind in ("angles", "bins"):
        assert behind[kind] > 2 * behind["vector"]
        assert behind[kind] > 2 * ahead[kind]
        assert abs(ahead[kind] - ahead["vector"]) < 2.5  # degrees: close
    assert behind["vector"] < 1.5 * ahead["vector"]

# %% by_yaw tags=["hidden"]
edges = torch.arange(0, 181, 10)
figure, axes = plt.subplots(figsize=(6, 3.2))
for kind, style in (("angles", "-"), ("bins", "--"), ("vector", "-.")):
    yaw, errors = (torch.cat(each) for each in zip(*results[kind], strict=True))
    means = [
        errors[(yaw >= low) & (yaw < low + 10)].mean().item() for low in edges[:-1]
    ]
    axes.plot(edges[:-1] + 5, means, style, label=kind)
axes.set(xlabel="absolute yaw (°)", ylabel="mean angular error (°)", ylim=(0, None))
axes.set_xticks(range(0, 181, 30))
axes.legend()

# %% calibration
offset_sd, noise_sd = 4.0, 3.0  # degrees, in yaw and in pitch


def calibrated_error(k, *, shrink, people=40_000):
    """Mean angular error of people whose offset is estimated from k samples each."""
    offset = offset_sd * torch.randn(people, 2)
    estimate = torch.zeros(people, 2)
    if k:
        estimate = (offset + noise_sd * torch.randn(k, people, 2)).mean(0)
    if k and shrink:
        estimate = estimate * offset_sd**2 / (offset_sd**2 + noise_sd**2 / k)
    return (
        (offset + noise_sd * torch.randn(people, 2) - estimate)
        .norm(dim=1)
        .mean()
        .item()
    )


samples = [0, 1, 2, 3, 5, 9, 16]
plain = [calibrated_error(k, shrink=False) for k in samples]
shrunk = [calibrated_error(k, shrink=True) for k in samples]
for k in (0, 1, 9):
    i = samples.index(k)
    print(f"{k} samples: {plain[i]:.1f}°, shrunk {shrunk[i]:.1f}°")

# %% calibration_drawn tags=["hidden"]
counts = torch.linspace(1, 16, 200)
plain_theory = math.sqrt(math.pi / 2) * noise_sd * (1 + 1 / counts).sqrt()
shrunk_theory = (
    math.sqrt(math.pi / 2)
    * (noise_sd**2 + 1 / (1 / offset_sd**2 + counts / noise_sd**2)).sqrt()
)
without = math.sqrt(math.pi / 2) * math.hypot(offset_sd, noise_sd)
limit = math.sqrt(math.pi / 2) * noise_sd
figure, axes = plt.subplots(figsize=(6, 3.2))
axes.plot(counts, plain_theory, color="C0", label="offset subtracted")
axes.plot(samples[1:], plain[1:], "o", color="C0")
axes.plot(
    counts, shrunk_theory, "--", color="C1", label="offset shrunk, then subtracted"
)
axes.plot(samples[1:], shrunk[1:], "s", color="C1")
axes.axhline(without, color="gray", linestyle=":", label="no calibration")
axes.axhline(limit, color="C2", linestyle="-.", label="offset known")
axes.set(
    xlabel="samples of the person",
    ylabel="mean angular error (°)",
    ylim=(3, 7),
    xlim=(0, 16.5),
)
axes.set_xticks(samples)
axes.legend()

# %% calibration_holds tags=["hidden"]
for i, k in enumerate(samples):
    if k:
        expected = math.sqrt(math.pi / 2) * noise_sd * math.sqrt(1 + 1 / k)
        assert abs(plain[i] - expected) < 0.1
        rest = noise_sd**2 + 1 / (1 / offset_sd**2 + k / noise_sd**2)
        assert abs(shrunk[i] - math.sqrt(math.pi / 2 * rest)) < 0.1
assert abs(plain[0] - without) < 0.1
assert plain[1] - shrunk[1] > 0.3  # with one sample, shrinking helps
assert plain[5] - shrunk[5] < 0.1  # with nine, hardly
nine = plain[5]


# %% far_bins
def best_masses(angle, shift):
    """The masses on 90 bins of 4° that minimise cross-entropy plus squared error."""
    bin_angles = -180 + 4 * torch.arange(90.0, dtype=torch.float64) + shift
    label = int((angle + 180) // 4)
    logits = torch.zeros(90, dtype=torch.float64)
    logits[label] = 8.0
    logits.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=2000, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        error = (logits.softmax(0) * bin_angles).sum() - angle
        loss = -logits.log_softmax(0)[label] + error**2
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits.softmax(0).detach(), label


for name, shift in (("left edges", 0), ("centres", 2)):
    masses, label = best_masses(2.0, shift)
    print(
        f"{name:10}: {masses[label]:6.1%} on 0° to 4°, {masses[-1]:.1%} on 176° to 180°"
    )

# %% far_bins_hold tags=["hidden"]
edge_masses, label = best_masses(2.0, 0)
far = edge_masses[-1].item()
assert abs(far - 2 / (176 - 0)) < 5e-4  # d / D
assert edge_masses[label] + edge_masses[-1] > 0.999
spread = 176 * math.sqrt(far * (1 - far))  # of two masses, 176° apart
assert 18 < spread < 19.5
centre_masses, label = best_masses(2.0, 2)
assert centre_masses[label] > 0.999
seam = torch.full((90,), -100.0)
seam[0] = seam[-1] = 100.0
assert decode_bins(seam).abs() < 1e-3
# Half a bin lower, the left edges that L2CS-Net's weights were trained with.
sure = torch.full((90,), -100.0)
sure[45] = 100.0
assert abs(decode_bins(sure, start=-182)) < 1e-3
