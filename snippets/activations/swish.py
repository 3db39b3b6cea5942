# %% quick_start
import torch
import torch.nn.functional as F

x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
print("SiLU      ", F.silu(x))  # as torch.nn.SiLU()(x)
print("hard Swish", F.hardswish(x))  # as torch.nn.Hardswish()(x)

# %% setup
import math

from zhixing.activations.swish import LAMBERT_W, swish, swish_derivative, swish_minimum

fine = torch.linspace(-20, 20, 200_001, dtype=torch.float64)

# %% family frames="β" poster="1"
import matplotlib.pyplot as plt

grid = torch.linspace(-4, 4, 801, dtype=torch.float64)
for beta in (0, 0.1, 0.25, 0.5, 1, 1.7, 2.5, 4, 8, 16):
    figure, (left, right) = plt.subplots(1, 2, figsize=(5.2, 2.6), num=f"{beta}")
    for other in (0, 0.5, 1, 4):
        thin = {"color": "#6b7280", "alpha": 0.6, "lw": 0.8, "zorder": 1}
        left.plot(grid, torch.sigmoid(other * grid), **thin)
        right.plot(grid, swish(grid, beta=other), **thin)
    left.plot(grid, (grid > 0).double(), "--", color="#6b7280", label="ReLU")
    right.plot(grid, F.relu(grid), "--", color="#6b7280")
    left.plot(grid, torch.sigmoid(beta * grid), lw=2, label=rf"$\beta = {beta}$")
    right.plot(grid, swish(grid, beta=beta), lw=2)
    left.set(xlabel="$x$", ylabel="gate", ylim=(-0.05, 1.05))
    right.set(xlabel="$x$", ylabel="$x$ times gate", ylim=(-1.2, 3.2))
    left.legend(loc="upper left")

# %% absorbed
generator = torch.Generator().manual_seed(0)
x, into, out = (
    torch.randn(*size, dtype=torch.float64, generator=generator)
    for size in ((5, 8), (8, 16), (16, 3))
)
beta = torch.rand(16, dtype=torch.float64, generator=generator) + 0.5
by_swish = swish(x @ into, beta=beta) @ out
by_silu = F.silu(x @ (into * beta)) @ (out / beta[:, None])
print("equal to 1e-12:", torch.allclose(by_swish, by_silu, rtol=1e-12, atol=1e-12))


# %% absorbed_holds tags=["hidden"]
def close(ours, theirs):
    # Not torch.testing.assert_close, which takes a second to import SymPy.
    tolerance = 100 * torch.finfo(ours.dtype).eps
    return torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance)


assert torch.allclose(by_swish, by_silu, rtol=1e-12, atol=1e-12)
assert close(swish(fine, beta=-0.7), -swish(-fine, beta=0.7))
assert close(swish(fine, beta=-0.7), fine - swish(fine, beta=0.7))
small = 1e-3
series = fine / 2 + small * fine**2 / 4
assert torch.allclose(swish(fine, beta=small), series, rtol=1e-4, atol=1e-9)

# %% landmarks
x_min, y_min = swish_minimum()
u = 1.2
for _ in range(5):  # Newton's method on u tanh u = 1
    u -= (u * math.tanh(u) - 1) / (math.tanh(u) + u / math.cosh(u) ** 2)
print(f"minimum {y_min:.6f} at x = {x_min:.6f}")
print(f"slope between {(1 - u) / 2:.6f} and {(1 + u) / 2:.6f}, at x = ∓{2 * u:.6f}")

# %% landmarks_hold tags=["hidden"]
w = LAMBERT_W
assert math.isclose(w * math.exp(w), 1 / math.e, rel_tol=1e-15)
silu, slope = swish(fine), swish_derivative(fine)
assert abs(fine[silu.argmin()] - x_min) < 1e-4
assert math.isclose(silu.min(), y_min, rel_tol=1e-8)
assert abs(fine[slope.argmax()] - 2 * u) < 1e-4
assert math.isclose(slope.max(), (1 + u) / 2, rel_tol=1e-8)
assert math.isclose(slope.min(), (1 - u) / 2, rel_tol=1e-8)
at_mirror = swish_derivative(torch.tensor(-x_min, dtype=torch.float64)).item()
assert math.isclose(at_mirror, 1)
slope_one = -x_min
steepest, flattest, inflection = (1 + u) / 2, (1 - u) / 2, 2 * u
assert close(slope + swish_derivative(-fine), torch.ones_like(fine))
for beta in (0.5, 1.0, 2.0, 4.0):
    distance = (F.relu(fine) - swish(fine, beta=beta)).abs()
    assert math.isclose(distance.max(), w / beta, rel_tol=1e-7)
    assert abs(fine[distance.argmax()].abs() * beta - (1 + w)) < 1e-3
    assert close(distance, distance.flip(0))

# %% gains
z = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def gain(form):
    return 1 / math.sqrt(torch.trapezoid(form(z) ** 2 * density, z).item())


for beta in (0.0, 0.5, 1.0, 4.0, 100.0):
    print(f"β = {beta:5g}  gain {gain(lambda x, beta=beta: swish(x, beta=beta)):.4f}")

# %% gains_hold tags=["hidden"]
for beta in (0.0, 0.5, 1.0, 4.0):
    gate_slope = torch.sigmoid(beta * z) * torch.sigmoid(-beta * z)
    second = 0.5 - torch.trapezoid(z**2 * gate_slope * density, z).item()
    this_gain = gain(lambda x, beta=beta: swish(x, beta=beta))
    assert math.isclose(this_gain, 1 / math.sqrt(second), rel_tol=1e-9)
assert math.isclose(gain(lambda x: swish(x, beta=0.0)), 2, rel_tol=1e-9)
assert math.isclose(gain(lambda x: swish(x, beta=1e6)), math.sqrt(2), rel_tol=1e-6)
silu_gain = gain(swish)
silu_shrink = 2 / silu_gain**2


# %% spirals
def spirals(networks, count, generator):
    # Double precision: in single, another processor's rounding changes the errors.
    options = {"dtype": torch.float64, "generator": generator}
    radius = torch.rand(networks, count, **options).sqrt()
    label = torch.arange(count) % 2
    angle = 2.5 * math.pi * radius + math.pi * label
    points = 2 * radius[..., None] * torch.stack([angle.cos(), angle.sin()], -1)
    noise = 0.05 * torch.randn(points.shape, **options)
    return points + noise, label.double().expand(networks, -1)


def spiral_errors(form, gain, rate, beta=None, networks=40, width=32):
    generator = torch.Generator().manual_seed(0)
    train, test = (spirals(networks, count, generator) for count in (100, 1000))
    weights, biases = [], []
    for fan_in, fan_out, g in ((2, width, 1), (width, width, gain), (width, 1, gain)):
        size = networks, fan_in, fan_out
        weight = torch.randn(size, dtype=torch.float64, generator=generator)
        weights.append(weight * g / math.sqrt(fan_in))
        biases.append(torch.zeros(networks, 1, fan_out, dtype=torch.float64))
    learned = [*weights, *biases] + ([] if beta is None else [beta])
    optimizer = torch.optim.Adam([p.requires_grad_() for p in learned], lr=rate)

    def logits(hidden):
        hidden = form(hidden @ weights[0] + biases[0], 0)
        hidden = form(hidden @ weights[1] + biases[1], 1)
        return (hidden @ weights[2] + biases[2]).squeeze(-1)

    for _ in range(100):
        loss = F.binary_cross_entropy_with_logits(
            logits(train[0]), train[1], reduction="none"
        )
        optimizer.zero_grad()
        loss.mean(1).sum().backward()
        optimizer.step()
    with torch.no_grad():
        wrong = (logits(test[0]) > 0) != test[1].bool()
    return 100 * wrong.double().mean(1)


# %% contest
def sharp(x):
    return F.silu(4 * x) / 4


torch.set_num_threads(1)  # operations this small only lose time to more
results, betas = {}, {}
for rate in (0.01, 0.05):
    beta = betas[rate] = torch.ones(2, 40, 1, 32, dtype=torch.float64)
    print(f"learning rate {rate}: errors in %, SiLU's minus these")
    for name, form, g, learns in (
        ("SiLU", lambda h, layer: F.silu(h), gain(swish), None),
        ("ReLU", lambda h, layer: F.relu(h), math.sqrt(2), None),
        ("β = 4", lambda h, layer: sharp(h), gain(sharp), None),
        ("learned β", lambda h, i, b=beta: swish(h, beta=b[i]), gain(swish), beta),
    ):
        error = results[name, rate] = spiral_errors(form, g, rate, learns)
        more = results["SiLU", rate] - error  # one difference for each network
        standard_error = more.std() / math.sqrt(len(more))
        result = f"{error.mean():.1f}  {more.mean():z4.1f} ± {standard_error:.1f}"
        print(f"  {name:9} {result}")

# %% contest_values tags=["hidden"]
slow, fast = 0.01, 0.05
relu_slow, silu_slow, sharp_slow = (
    results[name, slow].mean().item() for name in ("ReLU", "SiLU", "β = 4")
)


def excess(better, worse, rate):
    more = results[worse, rate] - results[better, rate]
    return more.mean().item(), more.std().item() / math.sqrt(len(more))


def standard_errors(better, worse, rate):
    more, standard_error = excess(better, worse, rate)
    return more / standard_error


relu_to_sharp, relu_to_sharp_error = excess("β = 4", "ReLU", slow)


# Twice the two standard errors that each of these claims needs.
assert standard_errors("ReLU", "SiLU", slow) > 4
for worse in ("SiLU", "ReLU", "learned β"):
    assert standard_errors("β = 4", worse, slow) > 4, worse
at_fast = [error.mean().item() for (_, rate), error in results.items() if rate == fast]
assert max(at_fast) - min(at_fast) < 0.5  # the page says 1
beta_moved = (betas[slow] - 1).abs().max().item()
assert beta_moved < 2


# %% saved_for_backward
def quotient(x):
    return x / (1 + torch.exp(-x))


def product(x):
    return x * torch.sigmoid(x)


def saved(form, dtype):
    x = torch.randn(100_000, dtype=dtype, requires_grad=True)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = form(x)
    return sum(tensor.nbytes for tensor in kept.values()) / y.nbytes


beta = torch.ones(1, requires_grad=True)
for name, form in {
    "F.silu(x)": F.silu,
    "x * sigmoid(x)": product,
    "x / (1 + exp(-x))": quotient,
    "swish(x)": swish,
    "swish(x, beta=beta)": lambda x: swish(x, beta=beta),
    "F.silu(beta * x) / beta": lambda x: (F.silu(beta * x) / beta).to(x.dtype),
}.items():
    float32, bfloat16 = saved(form, torch.float32), saved(form, torch.bfloat16)
    print(f"{name:23} × input: {float32:.0f} in float32, {bfloat16:.0f} in bfloat16")

# %% saved_values tags=["hidden"]
saved_product, saved_quotient, saved_by_ours, saved_in_bfloat16 = (
    saved(product, torch.float32),
    saved(quotient, torch.float32),
    saved(swish, torch.float32),
    saved(swish, torch.bfloat16),
)
assert saved(F.silu, torch.float32) == saved(F.silu, torch.bfloat16) == 1
for dtype in (torch.float32, torch.bfloat16):
    ours = saved(lambda x: swish(x, beta=beta), dtype)
    assert ours < saved(lambda x: (F.silu(beta * x) / beta).to(x.dtype), dtype)

# %% hard_swish tags=["hidden"]
hard = F.hardswish(fine)
assert close(hard, fine * ((fine + 3) / 6).clamp(0, 1))
to_silu = (hard - silu).abs()
hard_gap = to_silu.max().item()
assert math.isclose(hard_gap, 3 / (1 + math.exp(3)), rel_tol=1e-9)
assert math.isclose(fine[to_silu.argmax()].abs(), 3, rel_tol=1e-9)


# %% naive_gradient
for dtype, points in (
    (torch.float16, [-8.0, -9.0, -10.0, -11.0, -12.0]),
    (torch.float32, [-20.0, -50.0, -60.0, -85.0, -90.0]),
):
    print(dtype, "x =", *(f"{point:9.0f}" for point in points))
    for form in (quotient, swish):
        x = torch.tensor(points, dtype=dtype, requires_grad=True)
        form(x).sum().backward()
        print(f"{form.__name__:>17}", *(f"{slope:9.1e}" for slope in x.grad.tolist()))


# %% naive_gradient_holds tags=["hidden"]
def every(dtype):
    values = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    return values[values.isfinite()].sort().values


def slopes(form, x):
    leaf = x.detach().clone().requires_grad_()
    form(leaf).sum().backward()
    return leaf.grad


# Where the sign turns, and where the slope is no number any more.
edges = {}
for dtype, x in {
    torch.float16: every(torch.float16),
    torch.float32: torch.arange(-100, 0, 2**-10),
}.items():
    wrong = (slopes(quotient, x) > 0) & (slopes(swish, x.double()) < 0)
    edges[dtype] = x[wrong].max().item(), x[slopes(quotient, x).isnan()].max().item()
    assert wrong[(x > edges[dtype][1]) & (x <= edges[dtype][0])].all()
    assert not wrong[x > edges[dtype][0]].any()
    assert slopes(swish, x).isfinite().all()
    assert slopes(F.silu, x).isfinite().all()
    right = x[(x > edges[dtype][1]) & (x < -1)]
    tolerance = 4 * torch.finfo(dtype).eps
    assert torch.allclose(quotient(right), F.silu(right), rtol=tolerance, atol=0)
(half_sign, half_nan), (single_sign, single_nan) = edges.values()

# %% decay tags=["hidden"]
untouched = (1 - 1e-3 * 0.05) ** 100_000
assert untouched < 0.01
beta = torch.ones(1, dtype=torch.float64, requires_grad=True)
beta.grad = torch.zeros_like(beta)
optimizer = torch.optim.AdamW([beta], lr=1e-3, weight_decay=0.05)
for _ in range(100):
    optimizer.step()
assert math.isclose(beta.item(), untouched ** (100 / 100_000), rel_tol=1e-12)
