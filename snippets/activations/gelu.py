# %% quick_start
import torch
import torch.nn.functional as F

x = torch.tensor([-2.0, -1.0, -0.1, 0.1, 1.0, 2.0])
print("exact  ", F.gelu(x))  # as torch.nn.GELU()(x)
print("tanh   ", F.gelu(x, approximate="tanh"))  # torch.nn.GELU("tanh")(x)
print("sigmoid", x * torch.sigmoid(1.702 * x))  # QuickGELU

# %% setup
import math

from zhixing.activations.gelu import gelu, gelu_derivative, gelu_sigmoid, gelu_tanh

# %% shape
import matplotlib.pyplot as plt

grid = torch.linspace(-3, 3, 601, dtype=torch.float64)
figure, (left, right) = plt.subplots(1, 2, figsize=(6, 2.8))
left.plot(grid, torch.special.ndtr(grid), label="GELU")
left.plot(grid, (grid > 0).double(), "--", label="ReLU")
right.plot(grid, gelu(grid), label="GELU")
right.plot(grid, F.relu(grid), "--", label="ReLU")
left.set(xlabel="$x$", ylabel="gate")
right.set(xlabel="$x$", ylabel="$x$ times gate")
left.legend()
right.legend()

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
assert math.isclose(steepest, (1 + math.erf(1)) / 2 + math.exp(-1) / math.sqrt(math.pi))
assert math.isclose(gelu_derivative(fine).min().item(), 1 - steepest, rel_tol=1e-9)
relu_gap = (F.relu(fine) - gelu(fine)).abs()
relu_gap_max, x_min_distance = relu_gap.max().item(), -x_min
assert math.isclose(relu_gap_max, -y_min, rel_tol=1e-9)
assert math.isclose(fine[relu_gap.argmax()].abs().item(), x_min_distance, rel_tol=1e-4)
assert torch.allclose(gelu(fine) - gelu(-fine), fine)
flattest = 1 - steepest

# %% moments
z = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
mean = torch.trapezoid(gelu(z) * density, z).item()
mean_square = torch.trapezoid(gelu(z) ** 2 * density, z).item()
gain = 1 / math.sqrt(mean_square)
print(f"E[GELU(Z)] = {mean:.6f}, E[GELU(Z)²] = {mean_square:.6f}, gain {gain:.4f}")

# %% moments_hold tags=["hidden"]
assert math.isclose(mean, 1 / (2 * math.sqrt(math.pi)), rel_tol=1e-9)
assert math.isclose(mean_square, 1 / 3 + 1 / (2 * math.pi * math.sqrt(3)))
relu_gain = math.sqrt(2)

# %% approximation_errors
x = torch.linspace(-6, 6, 1_200_001, dtype=torch.float64)
for name, form in {"tanh": gelu_tanh, "sigmoid": gelu_sigmoid}.items():
    error = form(x) - gelu(x)
    worst = error.abs().argmax()
    print(f"{name:8} largest error {error[worst]:+.6f} at |x| = {abs(x[worst]):.3f}")

# %% approximation_values tags=["hidden"]
tanh_error, sigmoid_error = (
    (form(x) - gelu(x)).abs().max().item() for form in (gelu_tanh, gelu_sigmoid)
)
error_ratio = sigmoid_error / tanh_error
assert 30 < error_ratio < 50
assert sigmoid_error > 1.1 * relu_gap_max / 10
at_minus_five = torch.tensor(-5.0, dtype=torch.float64)
tanh_tail = (gelu_tanh(at_minus_five) / gelu(at_minus_five)).item()
sigmoid_tail = (gelu_sigmoid(at_minus_five) / gelu(at_minus_five)).item()
assert tanh_tail < 0.2
assert sigmoid_tail > 100
at_ends = torch.tensor(-10.0, dtype=torch.float64)  # as wrong as ReLU
assert abs((gelu_tanh(at_ends) - gelu(at_ends)) / -gelu(at_ends) - 1) < 1e-3

# %% errors
grid = torch.linspace(-5, 5, 2001, dtype=torch.float64)
figure, axes = plt.subplots()
forms = {"ReLU": F.relu, "sigmoid form": gelu_sigmoid, "tanh form": gelu_tanh}
for (label, form), style in zip(forms.items(), ("-", "--", "-."), strict=True):
    axes.semilogy(grid, (form(grid) - gelu(grid)).abs(), style, label=label)
axes.set(xlabel="$x$", ylabel="distance to GELU", ylim=(1e-7, 1))
axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)

# %% best_constants
x = torch.linspace(0, 6, 2001, dtype=torch.float64)
cdf = 0.5 * torch.erfc(-x / math.sqrt(2))
slopes = torch.arange(1.69, 1.79, 1e-4, dtype=torch.float64)
cubics = torch.arange(0.044, 0.046, 1e-6, dtype=torch.float64)


def best(constants, approximation, weight):
    error = weight * (approximation(constants[:, None]) - cdf).abs()
    largest = error.amax(dim=1)
    return constants[largest.argmin()].item(), largest.min().item()


def logistic(k):
    return torch.sigmoid(k * x)


def hyperbolic(c):
    return 0.5 + 0.5 * torch.tanh(math.sqrt(2 / math.pi) * (x + c * x**3))


for target, weight in {"the cdf": torch.ones_like(x), "GELU": x}.items():
    slope, slope_error = best(slopes, logistic, weight)
    cubic, cubic_error = best(cubics, hyperbolic, weight)
    print(f"best for {target:8} slope {slope:.4f}, error {slope_error:.1e}", end="; ")
    print(f"cubic {cubic:.6f}, error {cubic_error:.1e}")

# %% constants_are_the_papers tags=["hidden"]
ones = torch.ones_like(x)
assert round(best(slopes, logistic, ones)[0], 3) == 1.702
assert round(best(cubics, hyperbolic, ones)[0], 6) == 0.044715
gelu_slope, gelu_slope_error = best(slopes, logistic, x)
gelu_cubic, gelu_cubic_error = best(cubics, hyperbolic, x)
assert gelu_slope_error < 0.75 * sigmoid_error
assert gelu_cubic_error < 0.85 * tanh_error

# %% left_tail
x = torch.tensor([-2.0, -4.0, -6.0, -8.0])
exact = gelu(x.double())
for name, value in {
    "x * (1 + erf) / 2": 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "x * ndtr(x)": x * torch.special.ndtr(x),
    "F.gelu": F.gelu(x),
    "x * erfc / 2, ours": gelu(x),
}.items():
    relative = (value.double() / exact - 1).abs()
    print(f"{name:18}", "  ".join(f"{error:4.0%}" for error in relative))

# %% left_tail_holds tags=["hidden"]
torch_version = torch.__version__.partition("+")[0]
assert ((gelu(x).double() / exact - 1).abs() < 1e-5).all()
# Left of -1/2 float32 has multiples of 2^-24, so -1 is nearest while 2 cdf < 2^-25.
erf_cut_off = torch.special.ndtri(torch.tensor(2.0**-26, dtype=torch.float64)).item()
assert math.isclose(math.erfc(-erf_cut_off / math.sqrt(2)), 2.0**-25, rel_tol=1e-9)
# An erf that is wrong by one spacing moves the point no further right than this.
least = torch.special.ndtri(torch.tensor(2.0**-24, dtype=torch.float64))
assert -5.7 < erf_cut_off < least < -5.2
lost = -gelu(least).item()

# %% wrong_form
torch.manual_seed(0)
layers = [torch.randn(512, 512) / math.sqrt(512) for _ in range(24)]
inputs = torch.randn(256, 512)


def output(form, dtype=torch.float32):
    hidden = inputs.to(dtype)
    for weight in layers:
        hidden = form(F.layer_norm(hidden @ weight.to(dtype), (512,)))
    return hidden.float()


exact = output(gelu)
changes = {}
for name, changed in {
    "tanh form": output(gelu_tanh),
    "exact form in bfloat16": output(gelu, torch.bfloat16),
    "sigmoid form": output(gelu_sigmoid),
}.items():
    changes[name] = ((changed - exact).norm() / exact.norm()).item()
    print(f"{name:22} changes the output by {100 * changes[name]:.1g}%")

# %% wrong_form_values tags=["hidden"]
tanh_change, bfloat16_change, sigmoid_change = changes.values()
assert 5 * tanh_change < bfloat16_change < sigmoid_change / 1.5


# %% half_precision
def by_hand(x):
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))
    return 0.5 * x * (1 + torch.tanh(u))


for form in (by_hand, gelu_tanh):
    x = torch.tensor([30.0, 100.0, 150.0], dtype=torch.float16, requires_grad=True)
    form(x).sum().backward()
    left = form(torch.tensor([-3.0, -4.0], dtype=torch.bfloat16))
    print(f"{form.__name__:9} float16: slopes at 30, 100, 150: {x.grad.tolist()}")
    print(f"{'':9} bfloat16: values at -3, -4:", *(f"{y:.1e}" for y in left))

# %% half_precision_holds tags=["hidden"]
assert x.grad.tolist() == [1, 1, 1]
assert (left / gelu_tanh(torch.tensor([-3.0, -4.0])) - 1).abs().max() < 2.0**-7
x = torch.tensor([100.0, 150.0], dtype=torch.float16, requires_grad=True)
by_hand(x).sum().backward()
assert torch.pow(x, 3).isinf().all()
assert x.grad[0] == 1
assert x.grad[1].isnan()
by_hand_left = by_hand(torch.tensor([-3.0, -4.0], dtype=torch.bfloat16))
assert by_hand_left[0] / gelu_tanh(torch.tensor(-3.0)) > 1.3
assert by_hand_left[1] == 0
