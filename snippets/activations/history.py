# %% calls
import torch
import torch.nn.functional as F

x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
for call in (F.relu, F.gelu, F.silu):
    print(f"F.{call.__name__}", *(f"{y:6.2f}" for y in call(x).tolist()))

# %% setup
import functools
import math

from torch import nn

from zhixing.activations.history import (
    elu,
    leaky_relu,
    mish,
    relu,
    selu,
    sigmoid,
    softplus,
    squared_relu,
    tanh,
    threshold,
)
from zhixing.optimization.adamw import adam_update

torch.set_num_threads(1)  # operations this small only lose time to more


def derivative(form, x):
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(form(leaf).sum(), leaf)[0]


# %% curves
import matplotlib.pyplot as plt

grid = torch.linspace(-4, 4, 801, dtype=torch.float64)
curves = {
    "threshold": threshold,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "softplus": softplus,
    "ReLU": relu,
    "leaky ReLU, slope 0.1": lambda x: leaky_relu(x, negative_slope=0.1),
    "ELU": elu,
    "SELU": selu,
    "GELU": F.gelu,
    "SiLU": F.silu,
    "Mish": mish,
    "ReLU²": squared_relu,
}
figure, panels = plt.subplots(4, 3, sharex=True, sharey=True, figsize=(5.6, 6.4))
for axes, (name, form) in zip(panels.flat, curves.items(), strict=True):
    parts = [grid[grid < 0], grid[grid > 0]]
    for part in parts:
        slope = torch.zeros_like(part) if form is threshold else derivative(form, part)
        axes.plot(part, form(part), color="#0b62b8", label="function")
        axes.plot(part, slope, "--", color="#c2410c", label="derivative")
    axes.set_title(name)
    axes.set(xlim=(-4, 4), ylim=(-2, 3), xticks=[-3, 0, 3], yticks=[-2, -1, 0, 1, 2, 3])
for axes in panels[-1]:
    axes.set_xlabel("$x$")
handles, labels = panels[0, 0].get_legend_handles_labels()
figure.legend(handles[:2], labels[:2], loc="outside upper center", ncols=2)

# %% xor
inputs = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
either = threshold(inputs.sum(dim=1) - 0.5)
both = threshold(inputs.sum(dim=1) - 1.5)
print("x1 XOR x2:", threshold(either - both - 0.5).tolist())

# %% xor_is_out_of_reach tags=["hidden"]
assert threshold(either - both - 0.5).tolist() == [0, 1, 1, 0]
# The four inequalities of the exercise, and a search that finds no single unit.
weights = torch.arange(-3, 3.01, 0.25)
w1, w2, bias = torch.meshgrid(weights, weights, weights, indexing="ij")
outputs = torch.stack([threshold(w1 * a + w2 * b + bias) for a, b in inputs])
target = torch.tensor([0.0, 1.0, 1.0, 0.0])[:, None, None, None]
assert not (outputs == target).all(dim=0).any()
target = torch.tensor([0.0, 1.0, 1.0, 1.0])[:, None, None, None]
assert (outputs == target).all(dim=0).any()

# %% no_gradient
x = torch.tensor([-0.5, 0.2, 3.0], requires_grad=True)
print("threshold(x) has a gradient:", threshold(x).requires_grad)
passed = x + (threshold(x) - x).detach()
passed.sum().backward()
print("straight through: value", passed.tolist(), "gradient", x.grad.tolist())


# %% no_gradient_holds tags=["hidden"]
def close(ours, theirs):
    # Not torch.testing.assert_close, which takes a second to import SymPy.
    tolerance = 100 * torch.finfo(ours.dtype).eps
    return torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance)


assert not threshold(x).requires_grad
assert close(passed, torch.tensor([0.0, 1.0, 1.0]))
z = torch.cat([grid[grid < -1e-3], grid[grid > 1e-3]])
assert x.grad.tolist() == [1, 1, 1]
best_case = 0.25**30
assert derivative(sigmoid, torch.zeros(1)).item() == 0.25 > derivative(sigmoid, z).max()
assert derivative(tanh, torch.zeros(1)).item() == 1.0 > derivative(tanh, z).max()
assert close(tanh(grid), 2 * sigmoid(2 * grid) - 1)


# %% naive_formulas
def naive_elu(x):
    return torch.where(x > 0, x, torch.exp(x) - 1)


def naive_softplus(x):
    return torch.log(1 + torch.exp(x))


def naive_sigmoid(x):
    return 1 / (1 + torch.exp(-x))


x = torch.tensor([-100.0, 100.0])
for naive, ours in (
    (naive_elu, elu),
    (naive_softplus, softplus),
    (naive_sigmoid, sigmoid),
):
    slopes = [[f"{slope:.0g}" for slope in derivative(f, x)] for f in (naive, ours)]
    print(f"{naive.__name__:14} values {naive(x).tolist()}", end="  ")
    print("gradients", *slopes[0], " ours", *slopes[1])

# %% naive_formulas_fail tags=["hidden"]
assert derivative(naive_elu, x)[1].isnan()
assert derivative(naive_softplus, x)[1].isnan()
assert derivative(naive_sigmoid, x)[0].isnan()
assert all(derivative(form, x).isfinite().all() for form in (elu, softplus, sigmoid))
x = torch.tensor([-80.0, -17.0, -2.0])
for form, true in ((elu, x.exp()), (softplus, torch.sigmoid(x))):
    assert torch.allclose(derivative(form, x), true, rtol=1e-5, atol=0)

# %% selu_constants
below_0 = math.sqrt(math.e) * 0.5 * math.erfc(1 / math.sqrt(2))  # E[exp(Z); Z < 0]
below_0_squared = math.e**2 * 0.5 * math.erfc(math.sqrt(2))  # E[exp(2Z); Z < 0]
alpha = 1 / math.sqrt(2 * math.pi) / (0.5 - below_0)
scale = (0.5 + alpha**2 * (below_0_squared - 2 * below_0 + 0.5)) ** -0.5
print(f"α = {alpha:.10f}, λ = {scale:.10f}")

# %% selu_constants_hold tags=["hidden"]
assert round(alpha, 4) == 1.6733
assert round(scale, 4) == 1.0507
assert math.isclose(derivative(selu, torch.zeros(1)), alpha * scale, rel_tol=1e-6)
selu_slope = scale**2 * (0.5 + alpha**2 * below_0_squared)  # E[selu'(Z)²]
z = torch.linspace(-12, 12, 24_000, dtype=torch.float64)
density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def mean(values):
    return torch.trapezoid(values * density, z).item()


assert math.isclose(mean(derivative(selu, z) ** 2), selu_slope, rel_tol=1e-6)
leaf = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)  # the variance
next_variance = torch.trapezoid(selu(leaf.sqrt() * z) ** 2 * density, z)
damping = torch.autograd.grad(next_variance, leaf)[0].item()
assert round(damping, 4) == 0.7826
assert abs(mean(selu(z))) < 1e-6
assert math.isclose(mean(selu(z) ** 2), 1, rel_tol=1e-6)


# %% selu_layers
def through_30_layers(std, start=1.0, dropout=None):
    torch.manual_seed(0)
    hidden = start * torch.randn(256, 256)
    for _ in range(30):
        hidden = selu(hidden @ (std / math.sqrt(256) * torch.randn(256, 256)))
        if dropout:
            hidden = dropout(hidden, 0.1, training=True)
    return hidden.mean().item(), hidden.var().item()


runs = {
    "LeCun, variance 1/n": through_30_layers(1),
    "the same, inputs tripled": through_30_layers(1, start=3),
    "nn.Linear's default": through_30_layers(math.sqrt(1 / 3)),
    "kaiming, 'selu'": through_30_layers(nn.init.calculate_gain("selu")),
    "He, variance 2/n": through_30_layers(math.sqrt(2)),
    "LeCun, F.dropout": through_30_layers(1, dropout=F.dropout),
    "LeCun, F.alpha_dropout": through_30_layers(1, dropout=F.alpha_dropout),
}
for name, statistics in runs.items():
    print(f"{name:24} mean {statistics[0]:6.3f}  variance {statistics[1]:.2g}")

# %% selu_layers_hold tags=["hidden"]
for name in (
    "LeCun, variance 1/n",
    "the same, inputs tripled",
    "LeCun, F.alpha_dropout",
):
    assert abs(runs[name][0]) < 0.05
    assert abs(runs[name][1] - 1) < 0.1
linear = nn.Linear(512, 512)
assert abs(linear.weight.var() * 512 - 1 / 3) < 0.01
assert runs["nn.Linear's default"][1] < 1e-5
kaiming_variance = runs["kaiming, 'selu'"][1]
he_variance = runs["He, variance 2/n"][1]
dropout_variance = runs["LeCun, F.dropout"][1]
assert kaiming_variance < 0.1
assert he_variance > 50
assert dropout_variance > 1.3

# %% gradient_flow
depth, width, batch = 30, 256, 128
z = torch.linspace(-10, 10, 4000, dtype=torch.float64)  # a kink at 0 falls between
density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def mean(values):  # over a standard normal variable
    return torch.trapezoid(values * density, z).item()


@functools.cache
def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    samples, upstream = torch.randn(2, batch, width, generator=generator)
    weights = torch.randn(depth, width, width, generator=generator)
    return samples, weights / math.sqrt(width), upstream


def network(form, gain, seed=0):
    samples, weights, upstream = drawn(seed)
    layers = [samples.clone().requires_grad_()]
    for layer in range(depth):
        layers.append(form((gain if layer else 1) * layers[-1] @ weights[layer]))
    return layers, upstream


@functools.cache
def measured(form, gain, seed=0):
    layers, upstream = network(form, gain, seed)
    gradients = torch.autograd.grad(layers[-1], layers, upstream)
    return torch.stack([gradient.norm() for gradient in gradients]) / upstream.norm()


def predicted(form, gain):
    q, factor = 1.0, 1.0
    for layer in range(depth):
        slope = mean(derivative(form, math.sqrt(q) * z) ** 2)
        factor *= (gain**2 if layer else 1) * slope
        q = gain**2 * mean(form(math.sqrt(q) * z) ** 2)
    return math.sqrt(factor)


def he_gain(form):
    return 1 / math.sqrt(mean(form(z) ** 2))


forms = {"sigmoid": sigmoid, "tanh": tanh, "SELU": selu, "softplus": softplus}
forms |= {"ReLU": relu, "leaky ReLU": leaky_relu, "ELU": elu}
forms |= {"GELU": F.gelu, "SiLU": F.silu, "Mish": mish}
gains = {name: he_gain(form) for name, form in forms.items()}
gains |= {"sigmoid": 1.0, "tanh": 1.0, "SELU": 1.0}
own = {name: measured(forms[name], gain) for name, gain in gains.items()}
lecun = {name: measured(forms[name], 1.0) for name in gains}
for name, gain in gains.items():
    print(
        f"{name:10} gain {gain:.3f}: measured {own[name][0]:7.2g}, predicted "
        f"{predicted(forms[name], gain):7.2g};  gain 1: measured {lecun[name][0]:7.2g}"
    )

# %% gradient_flow_holds tags=["hidden"]
at_input = {name: norms[0].item() for name, norms in own.items()}
expected = {name: predicted(forms[name], gains[name]) for name in gains}
soft_gates = ("GELU", "SiLU", "Mish")
for seed in range(2):
    for name in gains.keys() - set(soft_gates):
        norm = measured(forms[name], gains[name], seed)[0] if seed else at_input[name]
        assert 2 / 3 < norm / expected[name] < 1.5, (name, seed)
gelu_excess, silu_excess, mish_excess = (
    at_input[name] / expected[name] for name in soft_gates
)
assert silu_excess > 4
assert gelu_excess > 1.5 > mish_excess > 2 / 3
assert measured(mish, gains["Mish"], 6)[0] < expected["Mish"] / 1.5
selu_flow = at_input["SELU"]
assert math.isclose(predicted(selu, 1.0), selu_slope**15, rel_tol=1e-3)
sigmoid_flow, tanh_flow = at_input["sigmoid"], at_input["tanh"]
softplus_flow, relu_flow = at_input["softplus"], at_input["ReLU"]
relu_flow_lecun = lecun["ReLU"][0].item()
assert sigmoid_flow < best_case
assert mean(softplus(z)) ** 2 > 0.6 * mean(softplus(z) ** 2)
assert relu_flow_lecun < 1e-4
assert lecun["GELU"][0] < 1e-8
vanishing = ("sigmoid", "softplus")
assert all(0.1 < at_input[name] < 100 for name in gains if name not in vanishing)
xavier_factor = 2**-14.5  # the first layer's weights are the same in both
assert math.isclose(relu_flow_lecun / relu_flow, xavier_factor, rel_tol=1e-3)

# %% gradient_flow_picture
figure, panels = plt.subplots(1, 2, sharey=True, figsize=(5.6, 3.7))
titles = ("each with its own weights", "all with variance $1/n$")
for axes, flows, title in zip(panels, (own, lecun), titles, strict=True):
    names = ("sigmoid", "softplus", "tanh", "ReLU", "SELU", "GELU")
    for i, (name, marker) in enumerate(zip(names, "os^vDx", strict=True)):
        # Every sixth layer, each function at others, so that no mark hides another.
        marks = {"marker": marker, "markevery": (i, 6), "markersize": 4.5}
        axes.semilogy(range(depth + 1), flows[name], label=name, **marks)
    axes.set_title(title)
    axes.set(xlabel="layer", xlim=(0, depth), ylim=(1e-20, 1e3))
panels[0].set_ylabel("gradient norm, output = 1")
figure.legend(
    *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3
)


# %% unstable_fixed_point
def growth(form, step=1e-5):
    above, below = (mean(form(math.sqrt(1 + sign * step) * z) ** 2) for sign in (1, -1))
    return he_gain(form) ** 2 * (above - below) / (2 * step)


for name in ("SELU", "ELU", "ReLU", "Mish", "GELU", "SiLU"):
    layers, _ = network(forms[name], he_gain(forms[name]))
    size = (layers[-1] ** 2).mean(dim=1)
    print(
        f"{name:4} an error is multiplied by {growth(forms[name]):.2f} per layer;  "
        f"mean square of a sample's outputs: {size.min():.0e} to {size.max():.0e}"
    )

# %% unstable_fixed_point_holds tags=["hidden"]
silu_small, silu_large = size.min().item(), size.max().item()
for seed in range(2):
    for name, spread in {"GELU": 1e5, "SiLU": 1e5, "Mish": 300}.items():
        size = (network(forms[name], gains[name], seed)[0][-1] ** 2).mean(dim=1)
        assert size.max() > spread * size.min(), (name, seed)
    for name in ("SELU", "ELU", "ReLU"):
        size = (network(forms[name], gains[name], seed)[0][-1] ** 2).mean(dim=1)
        assert size.max() < 50 * size.min(), (name, seed)
for form in (F.gelu, F.silu):
    variances = torch.logspace(-4, 4, 33, dtype=torch.float64).tolist()
    ratios = [mean(form(math.sqrt(q) * z) ** 2) / q for q in variances]
    assert ratios == sorted(ratios)
    assert 0.25 < ratios[0] < 0.26
    assert 0.49 < ratios[-1] < 0.5
gelu_growth, silu_growth, mish_growth = (growth(forms[name]) for name in soft_gates)
elu_growth = growth(elu)
assert elu_growth < 1 < mish_growth < gelu_growth < silu_growth
assert max(growth(form) for form in (sigmoid, tanh, softplus, selu)) < 1
assert math.isclose(growth(relu), 1, rel_tol=1e-6)
closed = 1 + he_gain(F.gelu) ** 2 / (3 * math.pi * math.sqrt(3))
assert math.isclose(gelu_growth, closed, rel_tol=1e-6)
assert math.isclose(he_gain(relu), math.sqrt(2), rel_tol=1e-4)

# %% fixed_points
figure, axes = plt.subplots(figsize=(5.6, 3.4))
variances = torch.logspace(-2, 2, 81, dtype=torch.float64)
for name in ("tanh", "SELU", "ReLU", "GELU", "SiLU"):
    form, gain = forms[name], he_gain(forms[name])
    ratio = [gain**2 * mean(form(math.sqrt(q) * z) ** 2) / q for q in variances]
    style = "--" if name in ("SELU", "GELU") else "-"
    axes.semilogx(variances, ratio, style, label=name)
axes.axvline(1, color="gray", linewidth=0.8)
axes.set(xlabel="$q_l$", ylabel="$q_{l+1}\\,/\\,q_l$", xlim=(0.01, 100), ylim=(0, 2.5))
axes.legend()

# %% dead_units
generator = torch.Generator().manual_seed(0)
points = 4 * torch.rand(128, 2, generator=generator) - 2
heights = torch.sin(2 * points[:, :1]) * torch.cos(2 * points[:, 1:])


def flat(form, preactivations):
    # The share of units whose slope is below 0.001 at every training point.
    slopes = derivative(form, preactivations).abs()
    return (slopes.amax(dim=1) < 1e-3).float().mean().item()


def train(form, learning_rate, *, networks=3, first_bias=0.0, steps=50, every=50):
    generator = torch.Generator().manual_seed(0)
    parameters, shapes = [], [(2, 64), (1, 64), (64, 64), (1, 64), (64, 1), (1, 1)]
    for inputs, outputs in shapes[::2]:
        weight = torch.randn(networks, inputs, outputs, generator=generator)
        bias = torch.full((networks, outputs), 0.0 if parameters else first_bias)
        parameters += [(weight * math.sqrt(2 / inputs)).flatten(1), bias]
    # One row for each network, so that a step of Adam is a single call.
    theta = torch.cat(parameters, dim=1)
    m, v, history = torch.zeros_like(theta), torch.zeros_like(theta), []
    for step in range(steps + 1):
        parts = theta.requires_grad_().split([a * b for a, b in shapes], dim=1)
        w1, b1, w2, b2, w3, b3 = map(torch.Tensor.unflatten, parts, [1] * 6, shapes)
        inner = points @ w1 + b1
        outer = form(inner) @ w2 + b2
        errors = (form(outer) @ w3 + b3 - heights) ** 2
        if step % every == 0:
            history.append((flat(form, inner), flat(form, outer), errors.mean().item()))
        loss = errors.mean(dim=(1, 2)).sum()  # each network has its own gradient
        (g,) = torch.autograd.grad(loss, theta)
        with torch.no_grad():
            theta, m, v = adam_update(theta, g, m, v, t=step + 1, lr=learning_rate)
    return history


forms = {"ReLU": F.relu, "leaky ReLU": F.leaky_relu, "ELU": F.elu, "GELU": F.gelu}
rates = [0.001, 0.01, 0.1, 1]
dead = {}
for name, form in forms.items():
    for rate in rates:
        inner, outer, _ = train(form, rate)[-1]
        dead[name, rate] = (inner + outer) / 2
    print(f"{name:10}", "  ".join(f"{dead[name, rate]:4.0%}" for rate in rates))

# %% dead_units_hold tags=["hidden"]
(inner, outer, _), *_ = train(F.relu, 0.001, steps=0)
relu_dead_start = (inner + outer) / 2
assert 0 < relu_dead_start < 0.1
assert dead["ReLU", 0.001] < 0.1
assert dead["ReLU", 0.1] > 0.35
assert all(dead["leaky ReLU", rate] == 0 for rate in rates)
assert dead["ELU", 0.01] == dead["GELU", 0.01] == dead["GELU", 0.1] == 0
assert dead["ELU", 0.1] > 0
assert min(dead["ELU", 1], dead["GELU", 1]) > 0.15
assert dead["ReLU", 0.1] < 0.75

# %% revival
late = {
    name: train(forms[name], 0.01, networks=1, first_bias=-6.0, steps=500, every=25)
    for name in ("ReLU", "ELU", "GELU")
}
for name, history in late.items():
    (start, _, _), (end, _, error) = history[0], history[-1]
    print(f"{name:4} dead {start:.1f} → {end:.1f}, mean squared error {error:.1f}")

# %% revival_holds tags=["hidden"]
errors = {name: history[-1][2] for name, history in late.items()}
relu_error = errors.pop("ReLU")
assert late["ReLU"][-1][0] >= late["ReLU"][0][0] > 0.9
assert late["GELU"][0][0] > 0.25
assert late["GELU"][-1][0] < 0.5 * late["GELU"][0][0]
assert late["ELU"][0][0] == 0
assert relu_error > 0.15 > 3 * max(errors.values())
elu_slope_there = math.exp(-6)
assert elu_slope_there > 2 * 1e-3

# %% dead_units_picture
figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(5.6, 3.5))
for name, style, marker in zip(forms, ("-", ":", "--", "-."), "osv^", strict=True):
    shares = [dead[name, rate] for rate in rates]
    left.semilogx(rates, shares, style, marker=marker, ms=4.5, label=name)
    shares = [inner for inner, _, _ in late.get(name, [])]
    right.plot(range(0, 25 * len(shares), 25), shares, style, label=name)
left.set(xlabel="learning rate", ylabel="share of dead units", title="after 50 steps")
right.set(xlabel="step", title="first layer, bias −6", ylim=(-0.03, 1.03))
figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4)

# %% at_zero
zero, nothing = torch.zeros(1, requires_grad=True), torch.zeros(1)
for name, rectified in {
    "F.relu(x)": F.relu(zero),
    "torch.maximum(x, 0)": torch.maximum(zero, nothing),
    "x.clamp(min=0)": zero.clamp(min=0),
    "(x + |x|) / 2": (zero + zero.abs()) / 2,
    "where(x > 0, x, 0)": torch.where(zero > 0, zero, 0),
    "where(x >= 0, x, 0)": torch.where(zero >= 0, zero, 0),
}.items():
    (slope,) = torch.autograd.grad(rectified, zero)
    print(f"{name:20} gradient at 0: {slope.item():.1f}")

# %% at_zero_holds tags=["hidden"]
assert derivative(relu, torch.zeros(1)) == 0
assert derivative(elu, torch.zeros(1)) == 1
assert math.isclose(derivative(selu, torch.zeros(1)), 1.7580993, rel_tol=1e-6)
