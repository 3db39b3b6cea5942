# %% setup
import math

import torch
import torch.nn.functional as F
from torch import nn

from zhixing.activations.gelu import gelu, gelu_sigmoid
from zhixing.activations.glu import gated_feed_forward, gated_hidden_size, glu, swiglu
from zhixing.activations.history import (
    elu,
    leaky_relu,
    mish,
    relu,
    selu,
    sigmoid,
    silu,
    softplus,
    squared_relu,
    tanh,
    threshold,
)


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
    "GELU": gelu,
    "SiLU": silu,
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
torch_version = torch.__version__.partition("+")[0]
selu_at_zero, torchs_selu_at_zero = (
    derivative(form, torch.zeros(1)).item() for form in (selu, F.selu)
)
assert derivative(relu, torch.zeros(1)) == 0
assert derivative(elu, torch.zeros(1)) == 1

# %% selu_constants
below_0 = math.sqrt(math.e) * 0.5 * math.erfc(1 / math.sqrt(2))  # E[exp(Z); Z < 0]
below_0_squared = math.e**2 * 0.5 * math.erfc(math.sqrt(2))  # E[exp(2Z); Z < 0]
alpha = 1 / math.sqrt(2 * math.pi) / (0.5 - below_0)
scale = (0.5 + alpha**2 * (below_0_squared - 2 * below_0 + 0.5)) ** -0.5
print(f"α = {alpha:.10f}, λ = {scale:.10f}")

# %% selu_constants_hold tags=["hidden"]
assert round(alpha, 4) == 1.6733
assert round(scale, 4) == 1.0507
assert math.isclose(selu_at_zero, alpha * scale, rel_tol=1e-6)
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
generator = torch.Generator().manual_seed(0)
samples, upstream = torch.randn(2, batch, width, generator=generator)
weights = torch.randn(depth, width, width, generator=generator) / math.sqrt(width)
z = torch.linspace(-10, 10, 4000, dtype=torch.float64)  # a kink at 0 falls between
density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def mean(values):
    return torch.trapezoid(values * density, z).item()


def network(form, gain):
    layers = [samples.clone().requires_grad_()]
    for layer in range(depth):
        layers.append(form((gain if layer else 1) * layers[-1] @ weights[layer]))
    return layers


def measured(form, gain):
    layers = network(form, gain)
    gradients = torch.autograd.grad(layers[-1], layers, upstream)
    return torch.stack([gradient.norm() for gradient in gradients]) / upstream.norm()


def predicted(form, gain):
    variance, factor = 1.0, 1.0
    for layer in range(depth):
        std = math.sqrt(variance)
        slope = mean(derivative(form, std * z) ** 2)
        factor *= (gain**2 if layer else 1) * slope
        variance = gain**2 * mean(form(std * z) ** 2)
    return math.sqrt(factor)


def he_gain(form):
    return 1 / math.sqrt(mean(form(z) ** 2))


forms = {"sigmoid": sigmoid, "tanh": tanh, "SELU": selu, "softplus": softplus}
forms |= {"ReLU": relu, "leaky ReLU": leaky_relu, "ELU": elu}
forms |= {"GELU": gelu, "SiLU": silu, "Mish": mish}
gains = {name: he_gain(form) for name, form in forms.items()}
gains |= {"sigmoid": 1.0, "tanh": 1.0, "SELU": 1.0}
own = {name: measured(forms[name], gain) for name, gain in gains.items()}
lecun = {name: measured(forms[name], 1.0) for name in gains}
for name, gain in gains.items():
    print(
        f"{name:10} gain {gain:.3f}: measured {own[name][0]:8.2g}, predicted "
        f"{predicted(forms[name], gain):8.2g};  gain 1: measured {lecun[name][0]:8.2g}"
    )

# %% gradient_flow_holds tags=["hidden"]
at_input = {name: norms[0].item() for name, norms in own.items()}
for name in gains.keys() - {"GELU", "SiLU", "Mish"}:
    assert 2 / 3 < at_input[name] / predicted(forms[name], gains[name]) < 1.5, name
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

# %% two_fates
for name in ("ReLU", "SELU", "GELU", "SiLU"):
    size = (network(forms[name], gains[name])[-1] ** 2).mean(dim=1)
    print(
        f"{name:5} mean square over the samples: {size.min():.1e} to {size.max():.1e}"
    )

# %% two_fates_hold tags=["hidden"]
silu_small, silu_large = size.min().item(), size.max().item()
assert silu_large > 1e4 * silu_small


def growth(form, step=1e-5):
    """The factor by which a layer multiplies a small error in the second moment."""
    above, below = (mean(form(math.sqrt(1 + sign * step) * z) ** 2) for sign in (1, -1))
    return he_gain(form) ** 2 * (above - below) / (2 * step)


for form in (gelu, silu):
    variances = torch.logspace(-4, 4, 33, dtype=torch.float64).tolist()
    ratios = [mean(form(math.sqrt(q) * z) ** 2) / q for q in variances]
    assert ratios == sorted(ratios)
    assert 0.25 < ratios[0] < 0.26
    assert 0.49 < ratios[-1] < 0.5
gelu_growth, silu_growth, mish_growth = growth(gelu), growth(silu), growth(mish)
elu_growth = growth(elu)
assert elu_growth < 1 < mish_growth < gelu_growth < silu_growth
assert max(growth(form) for form in (sigmoid, tanh, softplus, selu)) < 1
assert math.isclose(growth(relu), 1, rel_tol=1e-6)

# %% gradient_flow_picture
figure, panels = plt.subplots(1, 2, sharey=True, figsize=(5.6, 3.7))
titles = ("each with its own weights", "all with variance $1/n$")
for axes, flows, title in zip(panels, (own, lecun), titles, strict=True):
    for name in ("sigmoid", "softplus", "tanh", "ReLU", "SELU", "GELU"):
        axes.semilogy(range(depth + 1), flows[name], label=name)
    axes.set_title(title)
    axes.set(xlabel="layer", xlim=(0, depth), ylim=(1e-20, 1e3))
panels[0].set_ylabel("gradient norm, output = 1")
figure.legend(
    *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3
)

# %% dead_units
torch.set_num_threads(1)  # operations this small only lose time to more
generator = torch.Generator().manual_seed(0)
points = 4 * torch.rand(128, 2, generator=generator) - 2
heights = torch.sin(2 * points[:, :1]) * torch.cos(2 * points[:, 1:])


def flat(form, preactivations):
    # The share of units whose slope is below 0.001 at every training point.
    slopes = derivative(form, preactivations).abs()
    return (slopes.amax(dim=1) < 1e-3).float().mean().item()


def train(form, learning_rate, *, networks=5, first_bias=0.0, steps=50, every=50):
    generator = torch.Generator().manual_seed(0)
    parameters = []
    for inputs, outputs in ((2, 64), (64, 64), (64, 1)):
        weight = torch.randn(networks, inputs, outputs, generator=generator)
        bias = torch.full((networks, 1, outputs), 0.0 if parameters else first_bias)
        parameters += [weight * math.sqrt(2 / inputs), bias]
    w1, b1, w2, b2, w3, b3 = [tensor.requires_grad_() for tensor in parameters]
    optimiser = torch.optim.Adam([w1, b1, w2, b2, w3, b3], learning_rate, fused=True)
    history = []
    for step in range(steps + 1):
        inner = points @ w1 + b1
        outer = form(inner) @ w2 + b2
        errors = (form(outer) @ w3 + b3 - heights) ** 2
        if step % every == 0:
            history.append((flat(form, inner), flat(form, outer), errors.mean().item()))
        optimiser.zero_grad()
        errors.mean(dim=(1, 2)).sum().backward()  # each network has its own gradient
        optimiser.step()
    return history


forms = {"ReLU": F.relu, "leaky ReLU": F.leaky_relu, "ELU": F.elu, "GELU": F.gelu}
rates = [0.001, 0.01, 0.1, 1]
dead = {}
for name, form in forms.items():
    for rate in rates:
        inner, outer, _ = train(form, rate)[-1]
        dead[name, rate] = (inner + outer) / 2
    print(f"{name:10}", "  ".join(f"{dead[name, rate]:5.1%}" for rate in rates))

# %% dead_units_hold tags=["hidden"]
(inner, outer, _), *_ = train(F.relu, 0.001, steps=0)
relu_dead_start = (inner + outer) / 2
assert 0 < relu_dead_start < 0.1
assert dead["ReLU", 0.001] < 0.1
assert dead["ReLU", 0.1] > 0.35
assert all(dead["leaky ReLU", rate] == 0 for rate in rates)
assert dead["ELU", 0.01] == dead["GELU", 0.01] == 0
assert min(dead["ELU", 1], dead["GELU", 1]) > 0.15
relu_dead_slow, relu_dead_fast = dead["ReLU", 0.001], dead["ReLU", 0.1]
elu_dead, gelu_dead = dead["ELU", 1], dead["GELU", 1]

# %% revival
late = {
    name: train(form, 0.01, networks=2, first_bias=-6.0, steps=500, every=25)
    for name, form in forms.items()
}
for name, history in late.items():
    (start, _, _), (end, _, loss) = history[0], history[-1]
    print(f"{name:10} dead {start:4.0%} → {end:4.0%}", end=", ")
    print(f"mean squared error below {math.ceil(10 * loss) / 10:.1f}")

# %% revival_holds tags=["hidden"]
relu_before, relu_after = late["ReLU"][0][0], late["ReLU"][-1][0]
gelu_before, gelu_after = late["GELU"][0][0], late["GELU"][-1][0]
losses = {name: history[-1][2] for name, history in late.items()}
relu_loss = losses.pop("ReLU")
others_bound = math.ceil(10 * max(losses.values())) / 10
assert relu_after >= relu_before > 0.9
assert gelu_before > 0.25
assert gelu_after < 0.5 * gelu_before
assert relu_loss > 2 * max(losses.values())

# %% dead_units_picture
figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(5.6, 3.5))
for name in forms:
    style = "--" if name == "ELU" else "-"  # it covers the leaky ReLU
    shares = [dead[name, rate] for rate in rates]
    left.semilogx(rates, shares, style, marker=".", label=name)
    shares = [inner for inner, _, _ in late[name]]
    right.plot(range(0, 501, 25), shares, style, label=name)
left.set(xlabel="learning rate", ylabel="dead units", title="after 50 steps")
right.set(xlabel="step", title="first layer, bias −6", ylim=(-0.03, 1.03))
figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4)

# %% parameter_counts
for model, multiple in ((768, 1), (4096, 256)):
    hidden = 4 * model
    gated = gated_hidden_size(hidden, multiple_of=multiple)
    two, three = 2 * model * hidden, 3 * model * gated
    print(f"2 × {model} × {hidden} = {two:,};  3 × {model} × {gated} = {three:,}")

# %% parameter_counts_hold tags=["hidden"]
assert 3 * gated_hidden_size(3072) == 2 * 3072
llama_hidden = gated_hidden_size(4 * 4096, multiple_of=256)
assert llama_hidden == 11008

# %% half_order
x = torch.tensor([[1.0, 2.0, -3.0, 4.0]])
first, second = x.chunk(2, dim=-1)
print("F.glu(x)           ", F.glu(x))
print("glu(first, second) ", glu(first, second))
print("glu(second, first) ", glu(second, first))

# %% half_order_holds tags=["hidden"]
assert close(F.glu(x), glu(second, first))
assert not torch.equal(F.glu(x), glu(first, second))
generator = torch.Generator().manual_seed(0)
x, w, v, w2 = (
    torch.randn(size, generator=generator) for size in ((5, 6), (6, 8), (6, 8), (8, 6))
)
assert close(gated_feed_forward(x, w, v, w2), (F.silu(x @ w) * (x @ v)) @ w2)
tenfold = torch.tensor(10.0)
assert swiglu(10 * tenfold, 10 * tenfold) > 99 * swiglu(tenfold, tenfold)


# %% saved_for_backward
def saved(layer, *tensors):
    weights = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(*tensors)
    return sum(kept.values()) / tensors[0].numel()


def matrix(rows, columns):
    return torch.randn(rows, columns, requires_grad=True)


tokens = matrix(64, 96)
ungated = saved(
    lambda x, w1, w2: F.relu(x @ w1) @ w2, tokens, matrix(96, 384), matrix(384, 96)
)
with_gate = saved(
    lambda x, w, v, w2: (F.silu(x @ w) * (x @ v)) @ w2,
    tokens,
    matrix(96, 256),
    matrix(96, 256),
    matrix(256, 96),
)
print(
    f"kept for the backward pass, × input: ReLU {ungated:.1f}, SwiGLU {with_gate:.1f}"
)

# %% saved_values tags=["hidden"]
assert ungated == 4
assert math.isclose(with_gate, 4 * 8 / 3)
saved_ratio = with_gate / ungated
for form in (F.relu, F.elu, F.selu, F.softplus, F.gelu, F.silu, F.mish):
    kept = saved(lambda x, w, form=form: form(x @ w), tokens, matrix(96, 384))
    assert kept == 4, form


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

# %% softplus_threshold
x = torch.tensor([19.0, 21.0], dtype=torch.float64)
for name, form in {"F.softplus": F.softplus, "softplus": softplus}.items():
    print(f"{name:10} - x:", *(f"{difference:.1e}" for difference in form(x) - x))

# %% softplus_threshold_holds tags=["hidden"]
assert F.softplus(x)[1] == x[1] < softplus(x)[1]
softplus_gap = math.log1p(math.exp(-20))
curved = torch.tensor(21.0, dtype=torch.float64, requires_grad=True)
(slope,) = torch.autograd.grad(F.softplus(curved), curved, create_graph=True)
assert slope == 1
assert torch.autograd.grad(slope, curved)[0] == 0
assert derivative(softplus, curved) < 1

# %% products_in_half_precision
x = torch.tensor([200.0, 300.0], dtype=torch.float16)
print("squared ReLU:", squared_relu(x).tolist(), " SwiGLU:", swiglu(x, x).tolist())

# %% products_overflow tags=["hidden"]
assert squared_relu(x).tolist() == swiglu(x, x).tolist() == [40000, math.inf]


# %% clamped_gate
def oai_swiglu(gate, value, alpha=1.702, limit=7.0):
    gate, value = gate.clamp(max=limit), value.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (value + 1)


grid = torch.linspace(-8, 7, 15_001, dtype=torch.float64)
gate = oai_swiglu(grid, torch.zeros_like(grid))
for name, form in {"GELU": gelu, "SiLU": silu}.items():
    print(
        f"largest distance of the gate to {name}: {(gate - form(grid)).abs().max():.3f}"
    )

# %% clamped_gate_holds tags=["hidden"]
to_gelu, to_silu = ((gate - form(grid)).abs().max().item() for form in (gelu, silu))
assert to_gelu < 0.0204 < 5 * to_gelu < to_silu
assert close(gate, gelu_sigmoid(grid))
