# %% quick_start
import torch

from zhixing.foundations.smooth_surrogates import best_f1_threshold, soft_f1

torch.manual_seed(0)
prob = torch.rand(200_000) ** 4  # what a network trained with cross-entropy says,
target = torch.rand(200_000) < prob  # on held-out data, if its probabilities are right
threshold, f1 = best_f1_threshold(prob, target)
plain = soft_f1((prob >= 0.5).float(), target)  # of decisions 0 and 1, this is F1
print(f"F1 at threshold 0.50: {plain:.2f}")
print(f"F1 at threshold {threshold:.2f}: {f1:.2f}")

loss = 1 - soft_f1(prob, target)  # to train on, if the threshold must stay at 0.5

# %% quick_start_holds tags=["hidden"]
assert abs(threshold - f1 / 2) < 0.03
assert f1 > plain + 0.02
half_f1, held_threshold = f1 / 2, threshold

# %% setup
import itertools
from functools import partial

import matplotlib.pyplot as plt
import torch.nn.functional as F

from zhixing.foundations.smooth_surrogates import (
    smooth_max,
    soft_accuracy,
    soft_argmax,
)

torch.set_num_threads(1)  # tensors as small as here gain nothing from a second one

# %% picture tags=["hidden"]
x = torch.linspace(-2, 2, 401, dtype=torch.float64)
pairs = torch.stack([x, torch.zeros_like(x)])
figure, (left, right) = plt.subplots(1, 2, figsize=(4.8, 2.7), layout="constrained")
left.plot(x, x.clamp(min=0), color="gray", linestyle="--", label="maximum")
right.plot(x, (x > 0).double(), color="gray", linestyle="--")
for k, line in (1, ":"), (3, "-."), (10, "-"):
    left.plot(x, smooth_max(pairs, 0, k=k), line, label=f"$K = {k}$")
    right.plot(x, torch.softmax(k * pairs, 0)[0], line)
left.set(xlabel="$x$", title="maximum of $x$ and 0")
right.set(xlabel="$x$", title="gradient")
left.legend(loc="upper left")

# %% trade
x = torch.tensor([1.0, 0.9, 0.2, 0.0], dtype=torch.float64)
for k in 1, 10, 100:
    above = smooth_max(x, 0, k=k) - x.max()
    hessian = torch.autograd.functional.hessian(partial(smooth_max, dim=0, k=k), x)
    curvature = torch.linalg.eigvalsh(hessian)[-1]
    where = soft_argmax(x, 0, k=k)
    print(f"K = {k:3}: {above:.4f} above, ", end="")
    print(f"curvature {curvature:5.2f}, soft argmax {where:.3f}")

# %% trade_holds tags=["hidden"]
for k in 1, 10, 100:
    above = smooth_max(x, 0, k=k) - x.max()
    assert 0 < above < torch.log(torch.tensor(4.0)) / k
    level = torch.autograd.functional.hessian(
        partial(smooth_max, dim=0, k=k), torch.zeros(2, dtype=torch.float64)
    )
    assert abs(torch.linalg.eigvalsh(level)[-1] - k / 2) < 1e-9

# %% pulls
logits = torch.tensor([[5.0, 0.0, 0.0], [0.5, 0.0, 0.0], [-5.0, 0.0, 0.0]])
logits.requires_grad_()
target = torch.zeros(3, dtype=torch.long)  # class 0 is right
right = logits.softmax(1)[:, 0]
(soft,) = torch.autograd.grad(3 * soft_accuracy(logits, target), logits)
(ce,) = torch.autograd.grad(-F.cross_entropy(logits, target, reduction="sum"), logits)
for p, a, b in zip(right, ce[:, 0], soft[:, 0], strict=True):
    print(f"p = {p:.3f}: cross-entropy {a:.3f}, soft accuracy {b:.3f}")

# %% pulls_hold tags=["hidden"]
assert torch.allclose(soft, right[:, None] * ce)

# %% networks
runs = 4  # four sets of data, and a network for each, side by side


def network(sizes, generator):
    """Return parameters of a network for each run, and the function they define."""
    parameters = []
    for n, m in itertools.pairwise(sizes):
        weight = torch.randn(runs, n, m, generator=generator).double() / n**0.5
        parameters += [weight, torch.zeros(runs, 1, m).double()]
    for parameter in parameters:
        parameter.requires_grad_()

    def outputs(x):
        for i in range(0, len(parameters) - 2, 2):
            x = torch.tanh(x @ parameters[i] + parameters[i + 1])
        return x @ parameters[-2] + parameters[-1]

    return parameters, outputs


# %% noise
def clusters(classes, count, centres, generator):
    """Draw points around the centres of their classes, in 20 dimensions."""
    y = torch.randint(classes, (runs, count), generator=generator)
    x = centres.gather(1, y[..., None].expand(-1, -1, 20))
    return x + torch.randn(x.shape, generator=generator).double(), y


def accuracies(criterion, classes, redrawn):
    """Train on 600 samples, a share of them with redrawn labels; test on right ones."""
    generator = torch.Generator().manual_seed(0)
    centres = 1.5 * torch.randn(runs, classes, 20, generator=generator).double()
    x, y = clusters(classes, 600, centres, generator)
    wrong = torch.rand(runs, 600, generator=generator) < redrawn
    noise = torch.randint(classes, (runs, 600), generator=generator)
    y = torch.where(wrong, noise, y).flatten()
    test_x, test_y = clusters(classes, 600, centres, generator)
    parameters, outputs = network((20, 32, classes), generator)
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    found = []
    for step in range(201):
        if step in (10, 20, 60, 200):
            hits = outputs(test_x).detach().argmax(2) == test_y
            found.append(hits.double().mean(1))
        optimizer.zero_grad()
        (runs * criterion(outputs(x).flatten(0, 1), y)).backward()
        optimizer.step()
    return found


criteria = {
    "cross-entropy": F.cross_entropy,
    "soft accuracy": lambda logits, target: 1 - soft_accuracy(logits, target),
}
found = {}
for classes, redrawn in (10, 0.4), (50, 0.0):
    print(f"{classes} classes, {redrawn:.0%} of the labels redrawn")
    for name, criterion in criteria.items():
        found[name, classes] = accuracies(criterion, classes, redrawn)
        first, early, middle, late = (share.mean() for share in found[name, classes])
        print(f"  {name}: {first:.2f} after 10 steps, {early:.2f} after 20, ", end="")
        print(f"{middle:.2f} after 60, {late:.2f} after 200")

# %% noise_holds tags=["hidden"]
in_time, early, _, late = found["cross-entropy", 10]
assert (in_time > 0.95).all()
assert (early > late + 0.2).all()
soft_late = found["soft accuracy", 10][-1]
assert (soft_late > early + 0.01).all()
in_time, soft_late = in_time.mean().item(), soft_late.mean().item()
gaps = [
    ce - soft
    for ce, soft in zip(
        found["cross-entropy", 50], found["soft accuracy", 50], strict=True
    )
]
assert (gaps[0] > 0.1).all()
assert (gaps[1] > 0.03).all()
assert gaps[-1].abs().max() < 0.05


# %% f1
def chance(x, curved):
    """The probability of a positive: it depends on a plane or on a curved surface."""
    plane = 2 * x[..., 0] + x[..., 1] - 4.2
    surface = 1.5 * x[..., 0] * x[..., 1] + x[..., 2] - 4
    return (surface if curved else plane).sigmoid()


def draw(count, curved, generator):
    """Draw inputs and rare labels."""
    x = torch.randn(runs, count, 10, generator=generator).double()
    return x, torch.rand(runs, count, generator=generator) < chance(x, curved)


def scores(loss, curved, hidden, steps, train_on_all=False):
    """Train and tune on 2000 samples; return test F1 at 0.5, tuned, and on a grid."""
    generator = torch.Generator().manual_seed(1)
    (x, y), (tune_x, tune_y), test = (
        draw(count, curved, generator) for count in (2000, 2000, 8000)
    )
    if train_on_all:
        x, y = torch.cat([x, tune_x], 1), torch.cat([y, tune_y], 1)
    parameters, outputs = network((10, *hidden, 1), generator)
    optimizer = torch.optim.Adam(parameters, lr=0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(map(loss, outputs(x)[..., 0], y)).backward()
        optimizer.step()
    with torch.no_grad():
        tune, prob = (outputs(x)[..., 0].sigmoid() for x in (tune_x, test[0]))
    rows = []
    for p, y, q, z in zip(tune, tune_y, prob, test[1], strict=True):
        thresholds = (0.5, best_f1_threshold(p, y)[0], *grid)
        rows.append([soft_f1((q >= t).double(), z).item() for t in thresholds])
    return torch.tensor(rows).T


def cross_entropy(logits, y):
    return F.binary_cross_entropy_with_logits(logits, y.double())


def weighted(logits, y):
    ratio = (~y).sum() / y.sum()  # positives weigh as much as negatives
    return F.binary_cross_entropy_with_logits(logits, y.double(), pos_weight=ratio)


def one_minus_soft_f1(logits, y):
    return 1 - soft_f1(logits.sigmoid(), y)


grid = torch.linspace(0.02, 0.98, 25).tolist()
settings = {
    "linear data, linear model": (False, (), 150),
    "curved data, linear model": (True, (), 150),
    "curved data, 16 units": (True, (16,), 100),
}
results = {}
for setting, arguments in settings.items():
    print(f"{setting:26} at 0.5  tuned")
    for loss in cross_entropy, weighted, one_minus_soft_f1:
        results[setting, loss] = scores(loss, *arguments)
        at_half, tuned = results[setting, loss][:2].mean(1)
        print(f"  {loss.__name__:24} {at_half:.2f}    {tuned:.2f}")

# %% f1_holds tags=["hidden"]
straight, misfit, flexible = (
    results[setting, one_minus_soft_f1][0] - results[setting, cross_entropy][1]
    for setting in settings
)
assert straight.abs().max() < 0.05
curve = results["linear data, linear model", one_minus_soft_f1][2:].mean(1)
middle = curve[[0.3 <= t <= 0.7 for t in grid]]
assert middle.max() - middle.min() < 0.06
for setting in settings:
    plain, soft = (
        results[setting, loss][0] for loss in (cross_entropy, one_minus_soft_f1)
    )
    assert (soft > plain + 0.03).all()
assert misfit.min() > 0.03
assert flexible.max() < -0.02
for setting in settings:
    at_half, tuned = results[setting, cross_entropy][:2]
    assert (tuned > at_half + 0.08).all()
*others, last = (
    results[setting, weighted][0] - results[setting, one_minus_soft_f1][0]
    for setting in settings
)
assert max(map(torch.max, others)) < -0.05
assert last.mean() > 0.02
tuned_ce = results["curved data, 16 units", cross_entropy][1].mean().item()
arguments = settings["curved data, 16 units"]
row = scores(one_minus_soft_f1, *arguments, train_on_all=True)[0]
all_labels = row.mean().item()
assert all_labels < tuned_ce - 0.01

# %% limits tags=["hidden"]
generator = torch.Generator().manual_seed(2)
x, y = draw(50_000, True, generator)
_, ceiling = best_f1_threshold(chance(x, True), y)
new_x, new_y = draw(25_000, False, generator)
new, returned, fresh = chance(new_x, False), [], []
for _ in range(25):
    x, y = draw(2000, False, generator)
    for p, z in zip(chance(x, False), y, strict=True):
        threshold, f1 = best_f1_threshold(p, z)
        returned.append(f1)
        fresh.append(soft_f1((new >= threshold).double(), new_y).item())
returned, fresh = sum(returned) / len(returned), sum(fresh) / len(fresh)
assert returned > fresh + 0.01

# %% thresholds tags=["hidden"]
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
names = "cross-entropy", "weighted cross-entropy", "soft F1"
for name, loss, line in zip(
    names, (cross_entropy, weighted, one_minus_soft_f1), ("-", "--", ":"), strict=True
):
    curve = results["linear data, linear model", loss][2:].mean(1)
    axes.plot(grid, curve, line, linewidth=2, label=name)
axes.set(xlabel="decision threshold", ylabel="F1 on test data", ylim=(0, 0.8))
axes.legend(loc="upper center")

# %% background
import math

heat = torch.zeros(64, 64)
heat[20, 50] = 1.0
for height in 1.0, math.log(64 * 64 - 1), 20.0:
    column = soft_argmax(smooth_max(height * heat, 0), 0)
    print(f"peak of height {height:4.1f} in column 50: soft argmax {column:.2f}")

# %% background_holds tags=["hidden"]
rest = (64 * 64 * 31.5 - 50) / (64 * 64 - 1)
column = soft_argmax(smooth_max(math.log(64 * 64 - 1) * heat, 0), 0)
assert abs(column - (50 + rest) / 2) < 1e-3

# %% batches
rare = torch.rand(64_000) ** 30  # 3% are positive
target = torch.rand(64_000) < rare
threshold, f1 = best_f1_threshold(rare, target)
decisions = (rare >= threshold).float()
pairs = zip(decisions.split(32), target.split(32), strict=True)
parts = torch.stack([soft_f1(p, y) for p, y in pairs])
print(f"F1 of 64,000 samples: {f1:.2f}")
print(f"mean F1 of batches of 32: {parts.mean():.2f}")

# %% batches_hold tags=["hidden"]
assert parts.mean() < f1 - 0.1
empty_share = (parts == 0).double().mean().item()
nothing = (decisions + target).view(-1, 32).sum(1) == 0
nothing_share = nothing.double().mean().item()
counted_as_1 = torch.where(nothing, 1.0, parts).mean().item()


# %% smoothing
def push(positives, s, n=100):
    """How hard a smoothed soft F1 pushes n probabilities of 0.01, the last first."""
    prob = torch.full((n,), 0.01, requires_grad=True)
    target = torch.arange(n) >= n - positives
    f1 = (2 * (prob * target).sum() + s) / (prob.sum() + target.sum() + s)
    (gradient,) = torch.autograd.grad(f1, prob)
    return gradient[-1].item(), gradient[0].item()


for s in 0, 1:
    up, down = push(5, s)
    print(f"s = {s}: 5 positives {up:.2f}, 95 negatives {down:.3f}; ", end="")
    print(f"in a batch without positives {push(0, s)[1]:.2f}")

# %% smoothing_hold tags=["hidden"]
assert push(0, 0)[1] == 0
assert abs(push(0, 1)[1] + 0.25) < 1e-5
assert push(0, 1)[1] < 10 * down
pull_ratio = -push(0, 1, 10_000)[1] / push(500, 1, 10_000)[0]
assert pull_ratio < 0.1 * -push(0, 1)[1] / up
