# %% setup
import math

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from zhixing.optimization.adamw import (
    Adam,
    AdamW,
    adam_update,
    adamw_update,
    decay_groups,
)

torch.set_num_threads(1)  # tensors as small as here gain nothing from a second one
pixels, digit = load_digits(return_X_y=True)  # 1797 pictures of 8 × 8 pixels
pixels = torch.tensor(pixels / 16, dtype=torch.float32)
digit = torch.tensor(digit)

# %% shrinkage
import matplotlib.pyplot as plt


def kept(update, sigma, steps, lr, weight_decay, copies=200):
    generator = torch.Generator().manual_seed(0)
    theta = torch.ones(2, copies, len(sigma), dtype=torch.float64)
    theta[1] = -1
    m = v = torch.zeros_like(theta)
    left = [torch.ones(len(sigma))]
    for t in range(1, steps + 1):
        g = sigma * torch.randn(theta[0].shape, generator=generator, dtype=theta.dtype)
        settings = {"t": t, "lr": lr, "weight_decay": weight_decay}
        theta, m, v = update(theta, g.expand_as(theta), m, v, **settings)
        left.append((theta[0] - theta[1]).mean(0) / 2)
    return torch.stack(left)


sigma = torch.tensor([10.0, 1.0, 0.1, 0.01])
figure, panels = plt.subplots(1, 2, sharey=True, figsize=(5.6, 3.0))
remains = {}
for axes, (name, update) in zip(
    panels, {"Adam + L2": adam_update, "AdamW": adamw_update}.items(), strict=True
):
    remains[name] = kept(update, sigma, steps=2000, lr=0.01, weight_decay=0.1)
    for i, line in enumerate(remains[name].T):
        dashes = "-" if name == "Adam + L2" else (4 * i, (4, 12))  # four take turns
        axes.plot(line, ls=dashes, label=rf"$\sigma = {sigma[i]:g}$")
    axes.set(title=name, xlabel="step", xticks=[0, 1000, 2000], ylim=(-0.03, 1.05))
panels[0].set_ylabel("what is left of the start")
panels[0].legend(loc=(0.5, 0.38))

# %% shrinkage_holds tags=["hidden"]
adamw_left, l2_left = remains["AdamW"], remains["Adam + L2"]
expected = (1 - 0.001) ** torch.arange(2001, dtype=torch.float64)
torch.testing.assert_close(
    adamw_left.double(), expected[:, None].expand(-1, 4), rtol=1e-6, atol=1e-7
)
adamw_end, noisy_left = adamw_left[-1, 0].item(), l2_left[-1, 0].item()
assert abs(noisy_left - math.exp(-0.2)) < 0.02
assert abs(l2_left[-1, 1].item() - adamw_end) < 0.01
quiet_gone = (l2_left[:, 3] < 0.05).nonzero()[0].item()
adamw_gone = math.log(0.05) / math.log(1 - 0.001)
assert quiet_gone < 200 < 2900 < adamw_gone


# %% one_network
def train(made, steps=100):
    torch.manual_seed(0)
    layers = nn.Linear(64, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 10)
    model = nn.Sequential(*layers).double()
    optimizer = made(decay_groups(model, weight_decay=0.1), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    images = pixels.double()
    for _ in range(steps):
        rows = torch.randint(1200, (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(images[rows]), digit[rows]).backward()
        optimizer.step()
        schedule.step()
    right = model(images[1200:]).argmax(1) == digit[1200:]
    return right.double().mean(), nn.utils.parameters_to_vector(model.parameters())


(ours, our_weights), (theirs, their_weights) = train(AdamW), train(torch.optim.AdamW)
print(f"unseen digits recognised: ours {ours:.1%}, torch's {theirs:.1%}")
gap = (our_weights - their_weights).abs().max()
print("largest difference of a weight below 1e-12:", (gap < 1e-12).item())

# %% one_network_holds tags=["hidden"]
assert gap < 1e-12
assert ours > 0.6

# %% recorded
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = Adam(model.parameters())
recorded = []
for _ in range(60):
    rows = torch.randint(len(digit), (32,))
    optimizer.zero_grad()
    F.cross_entropy(model(pixels[rows]), digit[rows]).backward()
    optimizer.step()
    recorded.append(model[0].weight.grad.double())
recorded = torch.stack(recorded)  # 60 gradients of 32 × 64 weights


def replay(update, start, gradients, lr=2e-4, weight_decay=1e-2):
    theta = torch.full_like(gradients[0], start)
    m = v = torch.zeros_like(theta)
    for t, g in enumerate(gradients, 1):
        theta, m, v = update(theta, g, m, v, t=t, lr=lr, weight_decay=weight_decay)
    return theta


rms = recorded.square().mean(0).sqrt()
figure, axes = plt.subplots()
effective = {}
for name, update in {"Adam + L2": adam_update, "AdamW": adamw_update}.items():
    left = (replay(update, 0.1, recorded) - replay(update, -0.1, recorded)) / 0.2
    effective[name] = -left.log() / (60 * 2e-4)
    color = f"C{len(effective) - 1}"
    x, y = rms.clamp(min=1e-6).flatten()[::5], effective[name].flatten()[::5]
    axes.plot(x, y, ".", ms=3.5, color=color)
    axes.plot([], [], ".", ms=8, color=color, label=name)
grid = torch.logspace(-6, -1, 200)
axes.plot(grid, 0.01 / grid.hypot(torch.tensor(0.001)), ":", color="0.5")
axes.set(xscale="log", yscale="log", xlabel="size of the gradient")
axes.set_ylabel("effective decay")
axes.legend(loc="center left")

# %% recorded_holds tags=["hidden"]
l2_decay = effective["Adam + L2"]
torch.testing.assert_close(
    effective["AdamW"],
    torch.full_like(rms, -math.log(1 - 2e-4 * 0.01) / 2e-4),
    rtol=1e-6,
    atol=0,
)
lowest, highest = l2_decay.min().item(), l2_decay.max().item()
assert 0 < lowest < 0.2
assert 9 < highest < 12
dead_share = (rms == 0).double().mean().item()
assert 0.05 < dead_share < 0.2
assert (rms[l2_decay < 0.1] > rms.quantile(0.6)).all()
# Where the gradient keeps its sign, L2 is felt less than the dotted line says.
against_line = l2_decay * rms.hypot(torch.tensor(0.001).double()) / 0.01
one_way = recorded.mean(0).abs() / rms > 0.5
both_ways = recorded.mean(0).abs() / rms < 0.2
loud = rms > 0.005
assert (
    against_line[loud & one_way].median()
    < 0.75 * against_line[loud & both_ways].median()
)
assert 0.75 < against_line[loud & both_ways].median() < 1.25
one = torch.ones((), dtype=torch.float64)
constant = [one * 3.0] * 500
left = (replay(adam_update, 0.1, constant) - replay(adam_update, -0.1, constant)) / 0.2
assert abs(left - 1) < 1e-6

# %% start_up
t = torch.arange(1, 5001, dtype=torch.float64)
correction1, correction2 = 1 - 0.9**t, 1 - 0.999**t
figure, axes = plt.subplots()
uncorrected = correction1 / correction2.sqrt()
late = (correction1 / (1 - 0.9 ** (t + 1))) / (
    correction2 / (1 - 0.999 ** (t + 1))
).sqrt()
axes.plot(t, uncorrected, label="no correction")
axes.plot(t, torch.ones_like(t), label="corrected")
axes.plot(t, late, "--", label="one step late")
axes.plot(t, correction1, label=r"$v$ alone corrected")
axes.set(xscale="log", xlabel="step", ylabel=r"step size / $\alpha$")
axes.legend()
print(f"without correction: {uncorrected[0]:.2f} α at step 1, ", end="")
print(f"at most {uncorrected.max():.2f} α at step {t[uncorrected.argmax()]:.0f}")

# %% start_up_holds tags=["hidden"]
first_step, worst_step = uncorrected[0].item(), uncorrected.max().item()
worst_at = int(t[uncorrected.argmax()])
late_first = late[0].item()
one = torch.ones((), dtype=torch.float64)
theta = m = v = torch.zeros_like(one)
for i in range(1, 40):
    settings = {"lr": 1.0, "eps": 0.0}
    never, _, _ = adam_update(theta, one, m, v, t=10**7, **settings)
    later, _, _ = adam_update(theta, one, m, v, t=i + 1, **settings)
    moved, m, v = adam_update(theta, one, m, v, t=i, **settings)
    for end, expected in ((never, uncorrected), (later, late), (moved, t / t)):
        torch.testing.assert_close(theta - end, expected[i - 1])
    theta = torch.zeros_like(one)
settled = int(t[uncorrected < 1.05][0])


# %% step_bounds
def last_step(gradients, betas=(0.9, 0.999)):
    theta = m = v = torch.zeros((), dtype=torch.float64)
    for i, g in enumerate(gradients):
        before, g = theta, torch.tensor(g, dtype=torch.float64)
        settings = {"lr": 1.0, "betas": betas, "eps": 0.0}
        theta, m, v = adam_update(theta, g, m, v, t=10**5 + i, **settings)
    return (before - theta).item()


beta1, beta2 = 0.9, 0.999
print(f"after 100,000 zeros: {last_step([1.0]):.4f} α")
print(f"section 2.1:         {(1 - beta1) / math.sqrt(1 - beta2):.4f} α")
growing = [(beta2 / beta1) ** i for i in range(300)]
print(f"growing gradients:   {last_step(growing):.4f} α")
largest = (1 - beta1) / math.sqrt((1 - beta2) * (1 - beta1**2 / beta2))
print(f"Cauchy–Schwarz:      {largest:.4f} α")

# %% step_bounds_hold tags=["hidden"]
paper_bound = (1 - beta1) / math.sqrt(1 - beta2)
assert math.isclose(last_step([1.0]), paper_bound)
assert math.isclose(last_step(growing), largest, rel_tol=1e-9)

# %% equilibrium
sizes = torch.tensor([[0.25], [1.0], [4.0]])
generator = torch.Generator().manual_seed(0)
walks = {
    update: (torch.zeros(3, 2000), torch.zeros(3, 2000), torch.zeros(3, 2000))
    for update in (adamw_update, adam_update)
}
for t in range(1, 1501):
    g = sizes * torch.randn(3, 2000, generator=generator)
    for update, (theta, m, v) in walks.items():
        walks[update] = update(theta, g, m, v, t=t, lr=0.04, weight_decay=0.1)
found = [theta.square().mean(1).sqrt() for theta, _, _ in walks.values()]
expected = math.sqrt(0.04 / (2 * 0.1))
print("   σ   AdamW  √(α/2λ)   Adam + L2  √(ασ/2λ)")
for size, by_adamw, by_l2 in zip(sizes.flatten(), *found, strict=True):
    print(f"{size:4g}   {by_adamw:.3f}   {expected:.3f}       ", end="")
    print(f"{by_l2:.3f}     {expected * size.sqrt():.3f}")

# %% equilibrium_holds tags=["hidden"]
assert (found[0] / expected - 1).abs().max() < 0.05
assert (found[1] / (expected * sizes.flatten().sqrt()) - 1).abs().max() < 0.05


# %% tune
def tune(update, lr, decay, steps=200, normalised=True, size=1100, wrong=0.0, seed=0):
    lr, decay = (x.reshape(-1, 1, 1, 1) for x in torch.broadcast_tensors(lr, decay))
    repeats, width = 2, 16 if normalised else 32
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(digit), generator=generator) for _ in range(repeats)]
    training, unseen = torch.stack(orders).split([size, len(digit) - size], dim=1)
    mistaken = torch.rand(digit.shape, generator=generator) < wrong
    anything = torch.randint(10, digit.shape, generator=generator)
    gain = 1 if normalised else math.sqrt(2)
    theta = [
        gain * torch.randn(repeats, *shape, generator=generator) / math.sqrt(shape[0])
        for shape in ((64, width), (width, width), (width, 10))
    ]
    theta = [weight.repeat(len(lr), 1, 1, 1) for weight in theta]
    m, v = ([torch.zeros_like(weight) for weight in theta] for _ in range(2))

    def losses(theta, rows, labels):
        hidden = pixels[rows]
        for layer, weight in enumerate(theta):
            hidden = (hidden if layer == 0 else hidden.relu()) @ weight
            if normalised:
                hidden = F.layer_norm(hidden, hidden.shape[-1:])
        logits = (3 * hidden if normalised else hidden).movedim(-1, 1)
        labels = labels[rows].expand(len(lr), -1, -1)
        return F.cross_entropy(logits, labels, reduction="none").mean(-1)

    for t in range(1, steps + 1):
        drawn = torch.randint(size, (repeats, 32), generator=generator)
        theta = [weight.requires_grad_() for weight in theta]
        labels = torch.where(mistaken, anything, digit)
        loss = losses(theta, training.gather(1, drawn), labels).sum()
        gradients = torch.autograd.grad(loss, theta)
        eta = 0.5 * (1 + math.cos(math.pi * (t - 1) / steps))
        with torch.no_grad():
            moved = [
                update(*tensors, t=t, lr=eta * lr, weight_decay=decay)
                for tensors in zip(theta, gradients, m, v, strict=True)
            ]
        theta, m, v = (list(tensors) for tensors in zip(*moved, strict=True))
    with torch.no_grad():
        return losses(theta, unseen, digit).mean(1)  # one loss for each setting


# %% grid
from matplotlib.colors import LogNorm

lrs = torch.logspace(-3, -1, 5)[:, None]
decays = {
    "Adam + L2": torch.logspace(-2.5, 1, 8),
    "AdamW, torch": torch.logspace(-1, 2.5, 8),
    "AdamW, paper": torch.logspace(-4, -0.5, 8),
}
labels = [r"$\lambda$", r"$\lambda$", r"$\lambda_{\mathrm{paper}} = \alpha\lambda$"]
figure, panels = plt.subplots(1, 3, sharey=True, figsize=(5.6, 3.3))
tables, best = {}, {}
for axes, label, (name, decay) in zip(panels, labels, decays.items(), strict=True):
    update = adam_update if name == "Adam + L2" else adamw_update
    given = decay / lrs if name == "AdamW, paper" else decay
    tables[name] = tune(update, lrs, given).reshape(5, -1).nan_to_num(9)
    best[name] = decay[tables[name].argmin(1)]
    norm = LogNorm(0.125, 2.5)
    half = 10**0.25  # from the middle of a cell to its edge
    edges = [torch.cat([x / half, x[-1:] * half]).numpy() for x in (decay, lrs[:, 0])]
    image = axes.pcolormesh(*edges, tables[name].numpy(), norm=norm, cmap="viridis_r")
    axes.plot(best[name], lrs[:, 0], "o", ms=6, color="#ffffff", mec="#000000")
    axes.set(xscale="log", yscale="log", title=name, xlabel=label)
    ticks = [power for power in (-3, -1, 1) if decay[0] < 10**power < decay[-1]]
    axes.set_xticks([10.0**power for power in ticks])
    axes.minorticks_off()
    axes.grid(False)
panels[0].set_ylabel(r"learning rate $\alpha$")
bar = figure.colorbar(image, ax=panels, label="test loss")
bar.set_ticks([0.15, 0.5, 1, 2], labels=["0.15", "0.5", "1", "2"])
bar.ax.minorticks_off()
for_all = tables["AdamW, paper"].max(0).values.min()
print(f"one decay of the paper for all learning rates: worst test loss {for_all:.1g}")


# %% grid_holds tags=["hidden"]
def slope(name):
    x, y = lrs[:, 0].log(), best[name].log()
    return ((x - x.mean()) @ (y - y.mean()) / (x - x.mean()).square().sum()).item()


slope_torch, slope_paper = slope("AdamW, torch"), slope("AdamW, paper")
assert slope_torch < -0.6
assert abs(slope_paper) < 0.6
for name in ("AdamW, torch", "AdamW, paper"):  # no optimum lies at an edge
    assert decays[name][0] < best[name].min()
    assert best[name].max() < decays[name][-1]
l2, by_torch, by_paper = tables.values()
# What one decay reaches at every learning rate, and what the best one does at each.
one_torch, one_paper = (x.max(0).values.min().item() for x in (by_torch, by_paper))
worst_l2, worst_adamw = (x.min(1).values.max().item() for x in (l2, by_paper))
assert one_torch > 2 * one_paper
assert worst_l2 > 3 * worst_adamw

# %% plain
faster = torch.logspace(-2, -1, 3)[:, None]
lambdas = torch.logspace(-1.5, 0.5, 5)
setting = {"steps": 300, "normalised": False, "size": 200, "wrong": 0.2}
losses = tune(adamw_update, faster, lambdas, **setting).reshape(3, 5)
of_torch = lambdas[losses.argmin(1)]
print("learning rate  ", "  ".join(f"{rate:.3f}" for rate in faster[:, 0]))
print("best λ of torch", "  ".join(f"{value:.3f}" for value in of_torch))
print("best αλ        ", "  ".join(f"{x:.3f}" for x in of_torch * faster[:, 0]))

# %% plain_holds tags=["hidden"]
of_paper = of_torch * faster[:, 0]
spread_paper = (of_paper.max() / of_paper.min()).item()
assert of_torch.max() / of_torch.min() < 4 < 5 < spread_paper  # in steps of √10
assert lambdas[0] < of_torch.min()
assert of_torch.max() < lambdas[-1]

# %% groups
layer = nn.TransformerEncoderLayer(d_model=16, nhead=2, dim_feedforward=32)
names = {theta: name for name, theta in layer.named_parameters()}
for group in decay_groups(layer, weight_decay=0.1):
    print(f"weight_decay={group['weight_decay']}:")
    for theta in group["params"]:
        print(f"    {names[theta]}")

# %% groups_hold tags=["hidden"]
decayed, spared = decay_groups(layer, weight_decay=0.1)
assert all(theta.ndim == 2 for theta in decayed["params"])
assert len(decayed["params"]) + len(spared["params"]) == len(names)

# %% nothing_to_learn
print("gradient   Adam, weight_decay=0.01   AdamW, weight_decay=0.01")
for name, gradient in {"None": None, "zeros": torch.zeros(1)}.items():
    print(f"{name:8}", end="")
    for made in (torch.optim.Adam, torch.optim.AdamW):
        theta = torch.ones(1, requires_grad=True)
        theta.grad = gradient
        optimizer = made([theta], lr=1e-3, weight_decay=0.01)
        for _ in range(1000):
            optimizer.step()
        print(f"{theta.item():15.4f}{'':12}", end="")
    print()

# %% nothing_to_learn_holds tags=["hidden"]
ends = []
for made in (Adam, AdamW):
    theta = torch.ones(1, requires_grad=True)
    theta.grad = torch.zeros(1)
    optimizer = made([theta], lr=1e-3, weight_decay=0.01)
    for _ in range(1000):
        optimizer.step()
    ends.append(theta.item())
l2_left_still, adamw_left_still = ends
assert l2_left_still < 0.3
assert adamw_left_still > 0.98

# %% rescaled
for name, update in {"Adam + L2": adam_update, "AdamW": adamw_update}.items():
    once, scaled = (replay(update, 0.1, factor * recorded) for factor in (1, 128))
    print(f"{name:9}: weights differ by up to {(once - scaled).abs().max():.0e}")


# %% rescaled_holds tags=["hidden"]
def rescaled(update):
    once, scaled = (replay(update, 0.1, factor * recorded) for factor in (1, 128))
    return (once - scaled).abs().max().item()


assert rescaled(adam_update) > 1e-3
assert rescaled(adamw_update) < 1e-4

# %% epsilon
print(" first gradient  outside   inside   hat")
eps = 1e-8
for g in (1e-2, 1e-4, 1e-6, 1e-8):
    outside, inside = g / (g + eps), g / math.sqrt(g**2 + eps)
    hat = math.sqrt(1 - 0.999) * g / (math.sqrt((1 - 0.999) * g**2) + eps)
    print(f"{g:14.0e}   {outside:.4f}   {inside:.4f}   {hat:.4f}")

# %% epsilon_holds tags=["hidden"]
zero = torch.zeros((), dtype=torch.float64)
for g in (1e-2, 1e-4, 1e-6, 1e-8):
    moved, _, _ = adam_update(zero, zero + g, zero, zero, t=1, lr=1.0)
    assert math.isclose(-moved.item(), g / (g + eps), rel_tol=1e-6)
    moved, _, _ = adam_update(
        zero, zero + g, zero, zero, t=1, lr=1.0, eps=eps / math.sqrt(1 - 0.999)
    )
    hat = math.sqrt(1 - 0.999) * g / (math.sqrt((1 - 0.999) * g**2) + eps)
    assert math.isclose(-moved.item(), hat, rel_tol=1e-6)

# %% bfloat16
for dtype in (torch.float32, torch.bfloat16):
    theta = torch.ones(1, dtype=dtype, requires_grad=True)
    optimizer = torch.optim.AdamW([theta], lr=1e-3, weight_decay=0.1)
    for step in range(1000):
        theta.grad = torch.full_like(theta, 1e-3 if step < 10 else 0.0)
        optimizer.step()
        if step in (9, 999):
            v = optimizer.state[theta]["exp_avg_sq"].item()
            print(
                f"{dtype!s:15} step {step + 1:4}: θ = {theta.item():.4f}, v = {v:.1e}"
            )

# %% bfloat16_holds tags=["hidden"]
assert theta.item() == 1.0
assert v > 9e-9
threshold = 2.0**-9  # half the distance from 1 to the bfloat16 below it
kept_one, lost_some = (
    torch.tensor(1 - factor * threshold, dtype=torch.bfloat16)
    for factor in (0.99, 1.01)
)
assert kept_one == 1 > lost_some


# %% rounding
def after(made, dtype, **loop):
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(1000, generator=generator).to(dtype).requires_grad_()
    optimizer = made([theta], lr=3e-3, weight_decay=0.1, **loop)
    for _ in range(200):
        theta.grad = torch.randn(1000, generator=generator).to(dtype)
        optimizer.step()
    return theta.detach().double()


theirs = torch.optim.AdamW
exact = after(theirs, torch.float64)
runs = {
    "ours, float64": after(AdamW, torch.float64),
    "ours, float32": after(AdamW, torch.float32),
    "torch, float32, foreach=False": after(theirs, torch.float32, foreach=False),
    "torch, float32, fused=True": after(theirs, torch.float32, fused=True),
}
for name, run in runs.items():
    gap = (run - exact).abs().max()
    size = f"about 1e{gap.log10().round():.0f}" if gap > 1e-12 else "below 1e-12"
    print(f"{name:30} {size}")
for decay in (1e-5, 1e-6, 1e-7, 1e-8):
    factor = torch.tensor(1 - decay, dtype=torch.float32).double()
    print(f"αλ = {decay:.0e} decays by {1 - factor.item():.2e} a step in float32")

# %% rounding_holds tags=["hidden"]
assert (after(AdamW, torch.float64) - exact).abs().max() < 1e-12
errors = {name: (run - exact).abs().max().item() for name, run in runs.items()}
assert all(error > 1e-7 for name, error in errors.items() if "float32" in name)
assert errors["torch, float32, foreach=False"] > 2 * errors["ours, float32"]

# %% schedules
steps, lr, weight_decay = 10_000, 1e-3, 0.1
step = torch.arange(steps, dtype=torch.float64)
for name, eta in {
    "constant": torch.ones_like(step),
    "cosine": 0.5 * (1 + torch.cos(math.pi * step / steps)),
    "linear": 1 - step / steps,
}.items():
    by_torch = (1 - eta * lr * weight_decay).prod()
    print(f"{name:8}  {by_torch:.3f} of a weight is left", end="")
    print(f", exp(−λ Σ α) = {math.exp(-weight_decay * lr * eta.sum()):.3f}")

# %% schedules_hold tags=["hidden"]
assert math.isclose(by_torch, math.exp(-0.5), rel_tol=1e-2)
default_lost = 1 - (1 - 1e-3 * 1e-2) ** 10_000
half_cosine = (1 - 0.5 * (1 + torch.cos(math.pi * step / steps)) * 1e-4).prod().item()

# %% cost
from torch.utils._python_dispatch import TorchDispatchMode


class Calls(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        Calls.count += 1
        return function(*args, **(kwargs or {}))


model = nn.TransformerEncoder(layer, num_layers=6, enable_nested_tensor=False)
parameters, calls = list(model.parameters()), {}
for name, made, loop in (
    ("ours", AdamW, {}),
    ("torch, foreach=False", torch.optim.AdamW, {"foreach": False}),
    ("torch, foreach=True", torch.optim.AdamW, {"foreach": True}),
    ("torch, fused=True", torch.optim.AdamW, {"fused": True}),
):
    optimizer = made(parameters, **loop)
    for theta in parameters:
        theta.grad = torch.ones_like(theta)
    optimizer.step()
    Calls.count = 0
    with Calls():
        optimizer.step()
    state = sum(
        x.nbytes for s in optimizer.state.values() for x in s.values() if x.ndim
    )
    ratio = state / sum(theta.nbytes for theta in parameters)
    calls[name] = Calls.count
    print(f"{name:20}  state {ratio:.0f} × parameters", end="")
    print(f", {Calls.count / len(parameters):5.1f} operations a tensor and step")

# %% cost_holds tags=["hidden"]
assert calls["ours"] > calls["torch, foreach=False"] > calls["torch, foreach=True"]
assert calls["torch, fused=True"] < 10
assert ratio == 2
ours_calls = calls["ours"] / len(parameters)


# %% adam_fails tags=["hidden"]
def online(amsgrad, steps=2000):
    x = torch.zeros(1, requires_grad=True)
    settings = {"lr": 0.03, "betas": (0.9, 0.99), "amsgrad": amsgrad, "fused": True}
    optimizer = torch.optim.Adam([x], **settings)
    for step in range(1, steps + 1):
        x.grad = torch.full_like(x, 1010.0 if step % 101 == 1 else -10.0)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(-1, 1)
    return x.item()


adam_end, amsgrad_end = online(False), online(True)
assert adam_end > 0.8
assert amsgrad_end < -0.03
