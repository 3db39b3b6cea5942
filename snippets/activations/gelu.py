# %% setup
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from zhixing.activations.gelu import gelu, gelu_derivative, gelu_sigmoid, gelu_tanh

# %% shape
grid = torch.linspace(-4, 4, 801, dtype=torch.float64)
figure, (value, slope) = plt.subplots(1, 2, figsize=(7.4, 3.3), sharex=True)
value.plot(grid, gelu(grid), label="GELU")
value.plot(grid, F.relu(grid), "--", label="ReLU")
value.set(xlabel="$x$", ylabel="value", ylim=(-0.5, 4))
value.legend()
slope.plot(grid, gelu_derivative(grid), label="GELU")
slope.plot(grid, (grid > 0).double(), "--", label="ReLU")
slope.set(xlabel="$x$", ylabel="derivative")

# %% random_mask
generator = torch.Generator().manual_seed(0)
z = torch.randn(1_000_000, generator=generator)
for value in (-1.0, 0.5, 2.0):
    masked = value * (z < value)
    exact = gelu(torch.tensor(value))
    print(f"x = {value:4}  mean of x·m {masked.mean():7.4f}  gelu(x) {exact:7.4f}")

# %% random_mask_agrees tags=["hidden"]
for value in (-1.0, 0.5, 2.0):
    masked = value * (z < value)
    assert abs(masked.mean() - gelu(torch.tensor(value))) < 4 * masked.std() / 1000

# %% landmarks
x = torch.tensor(-0.75, dtype=torch.float64)
for _ in range(5):  # Newton's method on the derivative
    curvature = (2 - x**2) * torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    x = x - gelu_derivative(x) / curvature
x_min, y_min = x.item(), gelu(x).item()
steepest = gelu_derivative(torch.tensor(math.sqrt(2), dtype=torch.float64)).item()
print(f"minimum {y_min:.6f} at x = {x_min:.6f}")
print(f"steepest slope {steepest:.6f} at x = √2")

# %% landmarks_hold tags=["hidden"]
fine = torch.linspace(-8, 8, 1_600_001, dtype=torch.float64)
assert abs(fine[gelu(fine).argmin()] - x_min) < 1e-5
assert torch.isclose(gelu(fine).min(), torch.tensor(y_min, dtype=torch.float64))
assert abs(fine[gelu_derivative(fine).argmax()] - math.sqrt(2)) < 1e-5
assert math.isclose(
    steepest, (1 + math.erf(1)) / 2 + math.exp(-1) / math.sqrt(math.pi)
)
assert math.isclose(gelu_derivative(fine).min().item(), 1 - steepest, rel_tol=1e-9)
relu_gap = (F.relu(fine) - gelu(fine)).abs()
relu_gap_max, x_min_distance = relu_gap.max().item(), -x_min
assert math.isclose(relu_gap_max, -y_min, rel_tol=1e-9)
assert math.isclose(
    fine[relu_gap.argmax()].abs().item(), x_min_distance, rel_tol=1e-4
)
assert torch.allclose(gelu(fine) - gelu(-fine), fine)
flattest = 1 - steepest
tail_ratio = (
    gelu(fine[0]) / -(torch.exp(-(fine[0] ** 2) / 2) / math.sqrt(2 * math.pi))
).item()
assert abs(tail_ratio - (1 - 1 / 64)) < 1e-3

# %% moments
z = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
mean = torch.trapezoid(gelu(z) * density, z).item()
mean_square = torch.trapezoid(gelu(z) ** 2 * density, z).item()
gain = 1 / math.sqrt(mean_square)
print(f"E[GELU(Z)] = {mean:.6f}, E[GELU(Z)²] = {mean_square:.6f}, gain {gain:.4f}")

# %% moments_hold tags=["hidden"]
assert math.isclose(mean, 1 / (2 * math.sqrt(math.pi)), rel_tol=1e-9)
assert math.isclose(
    mean_square, 1 / 3 + 1 / (2 * math.pi * math.sqrt(3)), rel_tol=1e-9
)
relu_gain = math.sqrt(2)

# %% approximation_errors
x = torch.linspace(-6, 6, 1_200_001, dtype=torch.float64)
for name, form in {"tanh": gelu_tanh, "sigmoid": gelu_sigmoid}.items():
    error = form(x) - gelu(x)
    worst = error.abs().argmax()
    print(
        f"{name:8} largest error {error[worst]:+.6f} at |x| = {abs(x[worst]):.3f}"
    )

# %% approximation_values tags=["hidden"]
tanh_error, sigmoid_error = (
    (form(x) - gelu(x)).abs().max().item() for form in (gelu_tanh, gelu_sigmoid)
)
tanh_error_at, sigmoid_error_at = (
    x[(form(x) - gelu(x)).abs().argmax()].abs().item()
    for form in (gelu_tanh, gelu_sigmoid)
)
error_ratio = sigmoid_error / tanh_error
assert 30 < error_ratio < 50
at_minus_five = torch.tensor(-5.0, dtype=torch.float64)
tanh_tail = (gelu_tanh(at_minus_five) / gelu(at_minus_five)).item()
sigmoid_tail = (gelu_sigmoid(at_minus_five) / gelu(at_minus_five)).item()
assert tanh_tail < 0.2
assert sigmoid_tail > 100

# %% errors
grid = torch.linspace(-5, 5, 2001, dtype=torch.float64)
figure, axes = plt.subplots()
for label, form in {
    "ReLU": F.relu,
    "sigmoid form": gelu_sigmoid,
    "tanh form": gelu_tanh,
}.items():
    axes.semilogy(grid, (form(grid) - gelu(grid)).abs(), label=label)
axes.set(xlabel="$x$", ylabel="distance to GELU", ylim=(1e-7, 1))
axes.legend()

# %% best_constants
x = torch.linspace(0, 6, 2001, dtype=torch.float64)
distribution = 0.5 * torch.erfc(-x / math.sqrt(2))
slopes = torch.arange(1.69, 1.72, 1e-4, dtype=torch.float64)[:, None]
cubics = torch.arange(0.044, 0.046, 1e-6, dtype=torch.float64)[:, None]
by_sigmoid = torch.sigmoid(slopes * x)
by_tanh = 0.5 + 0.5 * torch.tanh(math.sqrt(2 / math.pi) * (x + cubics * x**3))
best_slope = slopes[(by_sigmoid - distribution).abs().amax(dim=1).argmin()].item()
best_cubic = cubics[(by_tanh - distribution).abs().amax(dim=1).argmin()].item()
print(f"best slope {best_slope:.4f}, best cubic coefficient {best_cubic:.6f}")

# %% constants_are_the_papers tags=["hidden"]
assert round(best_slope, 3) == 1.702
assert round(best_cubic, 6) == 0.044715
taylor_cubic = (4 - math.pi) / (6 * math.pi)
x = torch.linspace(-6, 6, 1_200_001, dtype=torch.float64)
by_taylor = (
    0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + taylor_cubic * x**3)))
)
taylor_error = (by_taylor - gelu(x)).abs().max().item()
assert taylor_error > tanh_error

# %% left_tail
x = torch.tensor([-2.0, -4.0, -5.0, -6.0, -8.0])
exact = gelu(x.double())
for name, value in {
    "x·(1 + erf)/2": 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "x·ndtr(x)": x * torch.special.ndtr(x),
    "F.gelu": F.gelu(x),
    "x·erfc/2 (ours)": gelu(x),
}.items():
    relative = (value.double() / exact - 1).abs()
    print(f"{name:16}", "  ".join(f"{error:.0e}" for error in relative))

# %% left_tail_holds tags=["hidden"]
assert ((gelu(x).double() / exact - 1).abs() < 1e-5).all()
assert F.gelu(x)[-1] == 0
assert (x * torch.special.ndtr(x))[-1] == 0
absolute = (F.gelu(fine.float()).double() - gelu(fine)).abs().max().item()
assert absolute < 2e-6

# %% wrong_form
torch.manual_seed(0)
layers = [torch.randn(512, 512) * gain / math.sqrt(512) for _ in range(24)]


def output(form, dtype=torch.float32):
    hidden = torch.randn(256, 512, generator=torch.Generator().manual_seed(1)).to(
        dtype
    )
    for weight in layers:
        hidden = form(hidden @ weight.to(dtype))
    return hidden.float()


for name, form in {"tanh": gelu_tanh, "sigmoid": gelu_sigmoid}.items():
    change = (output(form) - output(gelu)).norm() / output(gelu).norm()
    print(f"{name:8} relative change of the output after 24 layers {change:.1e}")

# %% wrong_form_values tags=["hidden"]
tanh_change, sigmoid_change = (
    ((output(form) - output(gelu)).norm() / output(gelu).norm()).item()
    for form in (gelu_tanh, gelu_sigmoid)
)
bfloat16_change = (
    (output(gelu, torch.bfloat16) - output(gelu)).norm() / output(gelu).norm()
).item()
assert tanh_change < bfloat16_change < sigmoid_change / 3

# %% half_precision
x = torch.tensor(150.0, dtype=torch.float16, requires_grad=True)
u = math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))
naive = 0.5 * x * (1 + torch.tanh(u))
naive.backward()
print(f"pow in float16: value {naive.item()}, gradient {x.grad.item()}")

x.grad = None
gelu_tanh(x).backward()
print(f"gelu_tanh:      gradient {x.grad.item()}")

# %% half_precision_holds tags=["hidden"]
assert x.grad.item() == 1
assert naive.item() == 150


# %% saved_for_backward
def saved(form):
    x = torch.randn(100_000, requires_grad=True)
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = form(x)
    return sum(tensor.numel() for tensor in storages.values()) / y.numel()


for name, form in {
    "F.gelu": F.gelu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "gelu_sigmoid": gelu_sigmoid,
}.items():
    print(f"{name:12} keeps {saved(form):.0f} × its input for the backward pass")

# %% saved_values tags=["hidden"]
saved_by_torch, saved_by_ours = saved(F.gelu), saved(gelu)
assert saved_by_torch == 1
assert saved_by_ours > 1
