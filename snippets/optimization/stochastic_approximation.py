# %% quick_start
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
average = AveragedModel(model)  # equal weights; a copy of the parameters
inputs = torch.randn(256, 8)
for step in range(200):
    rows = torch.randint(256, (32,))
    optimizer.zero_grad()
    (model(inputs[rows]) - inputs[rows, :1]).square().mean().backward()
    optimizer.step()
    if step >= 100:  # once the start is forgotten
        average.update_parameters(model)
# its own statistics for batch norm, each batch with equal weight
update_bn(inputs[torch.randperm(256)].split(32), average)
average.eval()  # in training mode, batches would change these statistics

# %% quick_start_holds tags=["hidden"]
assert average.n_averaged == 100
assert average.module[1].num_batches_tracked == 8
assert not average.training

# %% setup
import math

import matplotlib.pyplot as plt

from zhixing.optimization.stochastic_approximation import (
    polyak_average,
    power_steps,
    quantile_step,
    robbins_monro,
)

torch.set_num_threads(1)  # tensors as small as here gain nothing from a second one


def uniform_noise(*shape, seed=0):
    """Draw noise of mean 0 and variance 1."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(shape, generator=generator, dtype=torch.float64)
    return math.sqrt(12) * (unit - 0.5)


# %% paths tags=["hidden"]
noise = uniform_noise(1000, seed=3)
lines = {}
for name, steps in {
    "constant 0.5": power_steps(1000, a=0.5, alpha=0.0),
    "0.1 / n": power_steps(1000, a=0.1),
    "1 / n^0.6": power_steps(1000, alpha=0.6),
}.items():
    draws = iter(noise)
    start = torch.tensor(3.0, dtype=torch.float64)
    lines[name] = robbins_monro(lambda x, draws=draws: x + next(draws), start, steps)
lines["average"] = polyak_average(lines["1 / n^0.6"][1:])

figure, panels = plt.subplots(2, 1, figsize=(5.2, 4.2), sharex=True)
shown = {
    "constant 0.5": ("a constant step of 0.5", "C1", 0.6),
    "0.1 / n": ("step sizes $0.1/n$", "C2", 2.0),
    "1 / n^0.6": (r"step sizes $n^{-0.6}$", "C0", 0.6),
    "average": (r"$n^{-0.6}$, average of iterates", "C3", 2.0),
}
for axes, names in zip(panels, (list(shown)[:2], list(shown)[2:]), strict=True):
    for name in names:
        label, color, width = shown[name]
        at = torch.arange(len(lines[name])) + (name == "average")
        axes.plot(at, lines[name], color=color, lw=width, label=label)
    axes.axhline(0, color="0.5", ls=":", lw=1)
    axes.set(ylabel=r"$x_n$", ylim=(-2, 3.9))
    axes.legend(loc="upper right")
panels[1].set_xlabel(r"step $n$")

# %% paths_hold tags=["hidden"]
for seed in range(5):
    ends = {}
    for name, steps in {
        "constant": power_steps(1000, a=0.5, alpha=0.0),
        "short": power_steps(1000, a=0.1),
        "slow": power_steps(1000, alpha=0.6),
    }.items():
        draws = iter(uniform_noise(1000, seed=seed))
        path = robbins_monro(lambda x, draws=draws: x + next(draws), start, steps)
        ends[name] = path
    assert ends["constant"][500:].square().mean().sqrt() > 0.4
    assert ends["short"][-1] > 1
    assert polyak_average(ends["slow"][1:])[-1].abs() < 0.15

# %% running_mean
y = torch.tensor([3.0, 1.0, 5.0, 7.0])
draws = iter(y)
means = robbins_monro(lambda x: x - next(draws), torch.tensor(100.0), power_steps(4))
print("running means:", means[1:].tolist())
print("of all:", y.mean().item())

# %% running_mean_holds tags=["hidden"]
assert torch.allclose(means[1:], y.cumsum(0) / torch.arange(1, 5))

# %% short tags=["hidden"]
billion_left = math.exp(
    math.lgamma(1e9 + 0.8) - math.lgamma(1e9 + 1) - math.lgamma(0.8)
)
million = sum(math.log1p(-1 / (5 * k)) for k in range(1, 10**6 + 1))
formula = math.lgamma(1e6 + 0.8) - math.lgamma(1e6 + 1) - math.lgamma(0.8)
assert math.isclose(million, formula, rel_tol=1e-6)
assert 0.0125 < billion_left < 0.0145


# %% expected_errors
def expected_errors(steps, curvature):
    """E[x²] of the last iterate and of the average, from 1, for noise of variance 1."""
    mean, variance = 1.0, 0.0
    sum_mean = sum_variance = covariance = 0.0
    last, average = [], []
    for n, a in enumerate(steps.tolist(), 1):
        shrink = 1 - a * curvature
        mean, variance = shrink * mean, shrink**2 * variance + a**2
        covariance *= shrink  # of the iterate and the sum of those before it
        sum_mean += mean
        sum_variance += 2 * covariance + variance
        covariance += variance
        last.append(mean**2 + variance)
        average.append((sum_mean**2 + sum_variance) / n**2)
    return tuple(torch.tensor(x, dtype=torch.float64) for x in (last, average))


# %% five_rules
n = 10_000
rules = {
    "1 / n": power_steps(n),
    "10 / n": power_steps(n, a=10.0),
    "0.1": power_steps(n, a=0.1, alpha=0.0),
    "n^-0.6": power_steps(n, alpha=0.6),
}
errors = {}
for curvature in (1.0, 0.1):
    for name, steps in rules.items():
        last, mean = expected_errors(steps, curvature)
        errors[name, curvature] = last
        if name == "n^-0.6":
            errors["average", curvature] = mean
print("n λ² MSE   λ = 1: n = 1000   10,000   λ = 0.1: n = 1000   10,000")
for name in [*rules, "average"]:
    at = [
        i * curvature**2 * errors[name, curvature][i - 1].item()
        for curvature in (1.0, 0.1)
        for i in (1000, n)
    ]
    print(f"{name:8}{at[0]:18.2f}{at[1]:9.2f}{at[2]:20.2f}{at[3]:9.2f}")

# %% five_rules_drawn tags=["hidden"]
copies, simulated = 400, 1000
dots = {}
for curvature in (1.0, 0.1):
    for name in rules:
        draws = iter(uniform_noise(simulated, copies, seed=1))
        start = torch.ones(copies, dtype=torch.float64)
        xs = robbins_monro(
            lambda x, c=curvature, draws=draws: c * x + next(draws),
            start,
            rules[name][:simulated],
        )[1:]
        dots[name, curvature] = xs.square().mean(1)
        if name == "n^-0.6":
            dots["average", curvature] = polyak_average(xs).square().mean(1)
figure, panels = plt.subplots(1, 2, figsize=(5.2, 3.9), sharex=True)
labels = {
    "1 / n": r"$1/n$",
    "10 / n": r"$10/n$",
    "0.1": "constant 0.1",
    "n^-0.6": r"$n^{-0.6}$",
    "average": r"$n^{-0.6}$, average of iterates",
}
marks = [1, 3, 10, 30, 100, 300, 1000]
for axes, curvature in zip(panels, (1.0, 0.1), strict=True):
    at = torch.arange(1, n + 1)
    optimum = 1 / (curvature**2 * at)
    axes.plot(
        at,
        optimum,
        color="0.5",
        ls="--",
        lw=1.2,
        zorder=5,
        label=r"$\sigma^2/(n\lambda^2)$",
    )
    for i, name in enumerate(labels):
        width = 4 if name == "1 / n" else 1.5  # it lies beneath another in one panel
        line = errors[name, curvature]
        shape = {"color": f"C{i}", "marker": "osD^v"[i], "ms": 4}
        # The line has no marks of its own, but its legend shows the simulation's.
        axes.plot(at, line, lw=width, markevery=[], label=labels[name], **shape)
        axes.plot(
            marks,
            [dots[name, curvature][k - 1] for k in marks],
            ls="none",
            **shape,
        )
    axes.set(xscale="log", yscale="log", xlabel=r"step $n$")
    axes.set_title(rf"$\lambda = {curvature:g}$")
panels[0].set(ylabel="mean square error", ylim=(5e-5, 1e6))
panels[1].set(ylim=(5e-3, 200))
figure.legend(
    *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3
)

# %% five_rules_hold tags=["hidden"]
for key, found in dots.items():
    for k in (100, 300, 1000):  # the standard error is 5 % to 7 %
        assert abs(found[k - 1] / errors[key][k - 1] - 1) < 0.35, key


def times_best(name, curvature, i=n):
    return i * curvature**2 * errors[name, curvature][i - 1].item()


average_flat = times_best("average", 0.1)
average_steep = times_best("average", 1.0)
best = times_best("1 / n", 1.0)
flat_too_small = times_best("1 / n", 0.1)
steep_too_large = times_best("10 / n", 1.0)
assert math.isclose(best, 1, rel_tol=1e-9)
assert abs(steep_too_large - 100 / 19) < 0.01
assert flat_too_small > 30
assert average_steep < 1.05
assert average_flat < 1.3
assert times_best("average", 0.1, 1000) > 1.3 * times_best("n^-0.6", 0.1, 1000)
for curvature in (1.0, 0.1):
    floor = 0.1 / (curvature * (2 - 0.1 * curvature))
    assert math.isclose(errors["0.1", curvature][-1].item(), floor, rel_tol=1e-3)
# The exponent of 1 / n at λ = 0.1 is 2 a λ = 0.2.
slope = math.log(errors["1 / n", 0.1][999] / errors["1 / n", 0.1][9999]) / math.log(10)
assert abs(slope - 0.2) < 0.01
# With a tenth of the steps, the average has not yet forgotten the start at λ = 0.1.
_, mean = expected_errors(power_steps(n, a=0.1, alpha=0.6), 0.1)
average_small_steps = n * 0.01 * mean[-1].item()
assert average_small_steps > 10

# %% median
generator = torch.Generator().manual_seed(0)
streams = torch.randn(4000, 1000, generator=generator, dtype=torch.float64)
print("n × mean square error   averaged steps   sorting all   limit")
ratios = {}
for level in (0.5, 0.9):
    truth = torch.special.ndtri(torch.tensor(level, dtype=torch.float64))
    density = math.exp(-(truth**2) / 2) / math.sqrt(2 * math.pi)
    q = average = torch.zeros(1000, dtype=torch.float64)
    for k, y in enumerate(streams, 1):
        q = quantile_step(q, y, level, step=2 / k**0.6)
        average = average + (q - average) / k
    limit = level * (1 - level) / density**2
    both = [
        4000 * (estimate - truth).square().mean().item()
        for estimate in (average, streams.quantile(level, 0))
    ]
    ratios[level] = *both, limit
    print(f"{level:.0%} quantile{both[0]:26.1f}{both[1]:14.1f}{limit:8.2f}")

# %% median_holds tags=["hidden"]
assert math.isclose(ratios[0.5][2], math.pi / 2)
for averaged, sorting, limit in ratios.values():
    assert abs(sorting / limit - 1) < 0.2
    assert 0.85 < averaged / limit < 1.4
scales = torch.tensor([[0.2], [20.0]], dtype=torch.float64)
q = average = torch.zeros(2, 1000, dtype=torch.float64)
for k, y in enumerate(streams, 1):
    q = quantile_step(q, y.expand(2, -1), 0.9, step=scales / k**0.6)
    average = average + (q - average) / k
high_averaged = ratios[0.9][0]
small_scale, large_scale = (4000 * (average - truth).square().mean(1)).tolist()
assert small_scale > 10 * ratios[0.9][0]
assert large_scale > 5 * ratios[0.9][0]

# %% softmax_regression
from sklearn.datasets import load_digits

pixels, digit = load_digits(return_X_y=True)  # 1797 pictures of 8 × 8 pixels
x = torch.tensor(pixels / 16)
x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)  # 65 inputs, with a bias
target = torch.nn.functional.one_hot(torch.tensor(digit), 10).to(x.dtype)


def loss(w):
    logits = x @ w
    cross_entropy = (logits.logsumexp(-1) - (logits * target).sum(-1)).mean(-1)
    return cross_entropy + 0.5e-3 * w.square().sum((-1, -2))


w = torch.zeros(65, 10, dtype=x.dtype, requires_grad=True)
newton = torch.optim.LBFGS([w], max_iter=100, line_search_fn="strong_wolfe")


def closure():
    newton.zero_grad()
    value = loss(w)
    value.backward()
    return value


newton.step(closure)
smallest = loss(w.detach())

# %% softmax_regression_holds tags=["hidden"]
closure()
assert w.grad.norm() < 1e-3
with torch.no_grad():  # the Hessian at the minimum, for its curvatures
    p = (x @ w).softmax(-1)
    spread = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    outer = (x[:, :, None] * x[:, None, :]).flatten(1)
    hessian = (outer.T @ spread.flatten(1)) / len(x)
    hessian = hessian.view(65, 65, 10, 10).transpose(1, 2).reshape(650, 650)
    curvatures = torch.linalg.eigvalsh(hessian) + 1e-3
    seen = curvatures > 1.001e-3  # the others are hardly more than the penalty's
    seen_count = seen.sum().item()
    flat_share = (curvatures[seen] < 0.01).double().mean().item()
assert flat_share > 0.8
assert 300 < seen_count < 600
assert 2 / curvatures.max() > 0.3


# %% averaging
def train(steps, seeds=3, batch=8):
    """SGD for each row of step sizes and three seeds at once; last, mean, half."""
    rules, total = steps.shape
    rows = torch.randint(
        len(x), (total, seeds, batch), generator=torch.Generator().manual_seed(0)
    )
    w = mean = half = torch.zeros(rules, seeds, 65, 10, dtype=x.dtype)
    for i in range(total):
        inputs, labels = x[rows[i]], target[rows[i]]
        difference = (inputs @ w).softmax(-1) - labels
        gradient = inputs.mT @ difference / batch + 1e-3 * w
        w = w - steps[:, i, None, None, None] * gradient
        mean = mean + (w - mean) / (i + 1)
        if i >= total // 2:
            half = half + (w - half) / (i - total // 2 + 1)
    return [loss(weights) - smallest for weights in (w, mean, half)]


total = 6000
ramp = 1 - torch.arange(total, dtype=x.dtype) / total
schedules = {
    "constant 1": torch.ones(total, dtype=x.dtype),
    "constant 0.3": torch.full((total,), 0.3, dtype=x.dtype),
    "constant 0.1": torch.full((total,), 0.1, dtype=x.dtype),
    "1 falling to 0": ramp,
    "10 / n, at most 1": power_steps(total, a=10.0).clamp(max=1),
    "100 / n, at most 1": power_steps(total, a=100.0).clamp(max=1),
    "n^-0.6": power_steps(total, alpha=0.6),
    "10 n^-0.6, at most 1": power_steps(total, a=10.0, alpha=0.6).clamp(max=1),
}
excess = train(torch.stack(list(schedules.values())))
print("excess loss × 1000     last iterate    mean of all    second half")
for name, *found in zip(schedules, *excess, strict=True):
    ranges = [f"{1000 * seeds.min():.1f}–{1000 * seeds.max():.1f}" for seeds in found]
    print(f"{name:20}", *(f"{text:>14}" for text in ranges))

# %% averaging_holds tags=["hidden"]
last, mean, half = (dict(zip(schedules, found, strict=True)) for found in excess)
assert (last["constant 0.3"] > 4 * half["constant 0.3"]).all()
assert (last["constant 1"] > 4 * half["constant 1"]).all()
assert (half["constant 1"] > 2 * half["constant 0.3"]).all()
assert (mean["constant 1"] < 0.8 * mean["constant 0.3"]).all()
for name in ("10 / n, at most 1", "n^-0.6"):
    assert (last[name] > 20 * half["constant 0.3"]).all()
    assert (half[name] > last[name]).all()
for name in ("100 / n, at most 1", "10 n^-0.6, at most 1"):
    assert (last[name] > 2 * half["constant 0.3"]).all()
    assert (mean[name] > 1.3 * last[name]).all()
    assert (half[name] > 0.6 * last[name]).all()
sums = {name: steps.sum().item() for name, steps in schedules.items()}
sum_over_n, sum_slow = sums["10 / n, at most 1"], sums["n^-0.6"]
assert max(sum_over_n, sum_slow) < 100
assert (mean["constant 0.1"] > 2 * last["constant 0.1"]).all()
assert (half["constant 0.1"] > 0.9 * last["constant 0.1"]).all()
assert (last["1 falling to 0"] < 2.2 * half["constant 0.3"]).all()
falling_ratio = (last["1 falling to 0"].mean() / half["constant 0.3"].mean()).item()
assert (half["1 falling to 0"] < 0.9 * last["1 falling to 0"]).all()

# %% asgd
print("after four gradients of 1, with lr=1:    parameter      ax")
for settings in ({}, {"t0": 0, "lambd": 0.0}):
    theta = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.ASGD([theta], lr=1.0, **settings)
    for _ in range(4):
        theta.grad = torch.ones(1)
        optimizer.step()
    name = ", ".join(f"{key}={value}" for key, value in settings.items())
    print(f"ASGD({name})".ljust(40), end="")
    print(f"{theta.item():10.3f}{optimizer.state[theta]['ax'].item():8.3f}")

# %% low_precision
from torch.optim.swa_utils import get_ema_avg_fn, get_swa_avg_fn

print("weights in       averages in       EMA    equal weights")
single, brain = torch.float32, torch.bfloat16
for weights, averages in ((single, single), (brain, brain), (brain, single)):
    layer = nn.Linear(1, 1, bias=False, dtype=weights)
    nn.init.ones_(layer.weight)
    ema = AveragedModel(layer, avg_fn=get_ema_avg_fn(0.999)).to(averages)
    equal = AveragedModel(layer, avg_fn=get_swa_avg_fn()).to(averages)
    for _ in range(1000):
        for copy in (ema, equal):
            copy.update_parameters(layer)
        nn.init.constant_(layer.weight, 1.5)  # from the second step on
    found = [copy.module.weight.item() for copy in (ema, equal)]
    print(f"{weights!s:16} {averages!s:15} {found[0]:.2f}    {found[1]:.2f}")

# %% low_precision_holds tags=["hidden"]
one = torch.tensor(1.0, dtype=torch.bfloat16)
assert one + (1 - 0.999) * (1.5 - one) == one
assert one + (1 - 0.999) * (4.8 - one) == one
assert one + (1 - 0.999) * (5.0 - one) > one
exact_ema = 1.5 - 0.5 * 0.999**999
assert abs(found[0] - exact_ema) < 0.02
assert abs(found[1] - 1.5) < 0.01

# %% sorted_batches
two = torch.cat([uniform_noise(500, 1), uniform_noise(500, 1, seed=1) + 4]).float()
shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
orders = {"sorted": torch.arange(1000), "shuffled": shuffled}
print(f"all data:                   mean {two.mean():5.1f}, variance {two.var():.1f}")
found = {}
for name, order in orders.items():
    for momentum in (0.1, None):
        layer = nn.BatchNorm1d(1, momentum=momentum)
        for batch in two[order].split(50):
            layer(batch)
        found[name, momentum] = layer.running_mean.item(), layer.running_var.item()
        mean, variance = found[name, momentum]
        text = f"{name}, momentum={momentum}:"
        print(f"{text:27} mean {mean:5.1f}, variance {variance:.1f}")

# %% sorted_batches_hold tags=["hidden"]
assert abs(found["sorted", None][0] - two.mean()) < 1e-3
assert abs(found["sorted", None][1] - 1) < 0.2
assert abs(found["shuffled", None][1] - two.var()) < 0.4
assert found["sorted", 0.1][0] > two.mean() + 0.5
assert abs(found["sorted", 0.1][1] - 1) < 0.2

# %% cubic
start = torch.tensor(2.0, dtype=torch.float64)
for name, observe in {
    "x³": lambda x: x**3,
    "x³, clipped": lambda x: (x**3).clamp(-1, 1),
}.items():
    xs = robbins_monro(observe, start, power_steps(1000))
    print(f"{name:12}", *(f"{x:9.3g}" for x in xs[:5]), f"… {xs[-1]:.2f}")

# %% cubic_holds tags=["hidden"]
assert not robbins_monro(lambda x: x**3, start, power_steps(1000))[-1].isfinite()
assert xs[-1].abs() < 0.4
# y > 0 has density e^-y, so 0 = E[max(x - y, -1)] = x - 1 + e^-(x + 1).
clipped_mean = 1.0
for _ in range(50):
    clipped_mean = 1 - math.exp(-clipped_mean - 1)
generator = torch.Generator().manual_seed(0)
draws = iter(-torch.rand(1000, 200, generator=generator, dtype=torch.float64).log())
ends = robbins_monro(
    lambda x: (x - next(draws)).clamp(-1, 1),
    torch.zeros(200, dtype=torch.float64),
    power_steps(1000),
)[-1]
assert abs(ends.mean() - clipped_mean) < 0.02
assert clipped_mean < 0.9

# %% kiefer_wolfowitz tags=["hidden"]
# (c² f'''/6)² + σ²/(2 c² n) is smallest where c falls as n^(-1/6).
at_best = []
for i in (10**3, 10**6):
    widths = torch.logspace(-3, 1, 4001, dtype=torch.float64)
    at_best.append((widths**4 / 36 + 1 / (2 * widths**2 * i)).min().item())
assert abs(math.log10(at_best[0] / at_best[1]) / 3 - 2 / 3) < 0.01
ema_window = (1 + 0.999) / (1 - 0.999)
