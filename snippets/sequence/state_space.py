# %% quick_start
import torch

from zhixing.sequence.state_space import S4D

torch.manual_seed(0)
layer = S4D(16)  # 16 channels, each with 32 complex numbers of state: 64 real ones
u = torch.randn(2, 1000, 16)  # (batch, positions, channels)
y = layer(u)  # to train: one long convolution
state = None
with torch.no_grad():
    for k in range(1000):  # to generate: one step for each position
        last, state = layer.step(u[:, k], state)
print(tuple(y.shape), tuple(state.shape), torch.allclose(last, y[:, -1], atol=1e-4))

# %% setup
import math

from zhixing.sequence.state_space import (
    causal_convolution,
    discretize,
    hippo_legs,
    legs_basis,
    legs_memory,
    legs_normal_plus_low_rank,
    s4_kernel,
    ssm_kernel,
    ssm_recurrence,
)


def signals(length, count=8, waves=20, seed=0):
    """Sums of sine waves with random heights and phases: (1, length, count)."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(2, count, waves, generator=generator, dtype=torch.float64)
    t = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    angles = math.pi * t[:, None, None] * torch.arange(1, waves + 1) + 9 * draws[1]
    return (draws[0] * angles.sin()).sum(dim=-1)[None]


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def apart(gap):
    """A gap without the digits of rounding, in which processors differ."""
    return "less than 1e-9" if gap < 1e-9 else f"{gap:.1e}"


def error(found, wanted):
    """The largest relative error of the states of all channels."""
    return ((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max().item()


# %% picture
import matplotlib.pyplot as plt

GREY, OURS, OTHER = "#6b7280", "#c2410c", "#0b62b8"
u, n = signals(1000), 64
ages = torch.arange(999.5, 0, -1, dtype=torch.float64)
# All history alike, x' = (A x + B u) / t: where in [0, 1] each sample lies.
everything = legs_memory(u, n)[0, -1]
stretched = legs_basis(1 - ages / 1000, n) @ everything.mT
# The recent best, x' = A x + B u.
a_bar, b_bar = discretize(*hippo_legs(n), 0.02)
_, recent = ssm_recurrence(u, a_bar, b_bar, torch.zeros(n).double())
warped = legs_basis(torch.exp(-0.02 * ages), n) @ recent[0].mT

figure, axes = plt.subplots(2, 1, figsize=(5.2, 4.4), sharex=True)
forgetful = "x' = Ax + Bu"
panels = (stretched, "x' = (Ax + Bu) / t", OURS), (warped, forgetful, OTHER)
for ax, (rebuilt, equation, color) in zip(axes, panels, strict=True):
    ax.plot(u[0, :, 0], color=GREY, lw=2.5, alpha=0.5, label="signal")
    ax.plot(rebuilt[:, 0], color=color, lw=1.2, label=f"from 64 numbers: ${equation}$")
    ax.set(ylim=(-10, 14), yticks=[])
    ax.legend(loc="upper left", ncols=2, fontsize=9)
axes[1].set(xlabel="sample")

# %% picture_holds tags=["hidden"]
assert ((stretched - u[0]).norm(dim=0) / u[0].norm(dim=0)).max() < 0.02
for part, least, most in (slice(800, 1000), 0, 0.1), (slice(0, 400), 0.5, math.inf):
    missed = (warped - u[0])[part].norm(dim=0) / u[0][part].norm(dim=0)
    assert missed.min() > least
    assert missed.max() < most


# %% smooth tags=["hidden"]
def missed_by_best_fit(u, n=64):
    """What the best fit of n polynomials misses, relative to the signals together."""
    at = (torch.arange(len(u), dtype=torch.float64) + 0.5) / len(u)
    basis = legs_basis(at, n)
    rest = u - basis @ torch.linalg.lstsq(basis, u).solution
    return (rest.norm() / u.norm()).item()


rough = missed_by_best_fit(signals(1000, waves=60)[0])
noise = missed_by_best_fit(normal(1000, 8))
for seed in range(3):
    assert missed_by_best_fit(signals(1000, seed=seed)[0]) < 1e-9
    assert missed_by_best_fit(signals(1000, waves=60, seed=seed)[0]) > 0.2
    assert missed_by_best_fit(normal(1000, 8, seed=seed)) > 0.9


# %% steps
def in_steps_of_1_over_k(u, n, method):
    """The state after the last sample, with steps 1/k instead of ln((k + 1) / k)."""
    a, b = hippo_legs(n)
    x = u[0, 0, :, None] * torch.eye(n)[0]
    for k in range(1, u.shape[1]):
        a_bar, b_bar = discretize(a, b, 1 / k, method=method)
        x = x @ a_bar.mT + u[0, k, :, None] * b_bar
    return x


def last_states(u, n=32):
    return {
        "exact": legs_memory(u, n)[0, -1],
        "bilinear, Δ = ln((k + 1)/k)": legs_memory(u, n, method="bilinear")[0, -1],
        "bilinear, Δ = 1/k": in_steps_of_1_over_k(u, n, "bilinear"),
        "Euler, Δ = 1/k": in_steps_of_1_over_k(u, n, "euler"),
    }


u = signals(1000)
states, slower = last_states(u), last_states(u[:, :500].repeat_interleave(2, dim=1))
half = last_states(u[:, :500])
print(f"{'relative error of the state':29}   of 1000 | signal at half speed")
for name, x in states.items():
    off = apart(error(x, states["exact"])) if name != "exact" else "reference"
    print(f"{name:29} {off:>9} | {apart(error(slower[name], half[name]))}")

# %% steps_hold tags=["hidden"]
_, log_time, published, _ = (error(x, states["exact"]) for x in states.values())
closer = published / log_time
for length, waves, seed in (1000, 20, 0), (300, 20, 1), (300, 60, 2):
    if seed:
        states = last_states(signals(length, waves=waves, seed=seed))
    e = {name: error(x, states["exact"]) for name, x in states.items()}
    exact, log_time, published, euler = e.values()
    assert euler > 5 * published > 7 * log_time > 0
    assert exact == 0
exact, log_time, published, euler = (error(slower[m], half[m]) for m in half)
assert exact < 1e-9
assert euler > 2 * published > 6 * log_time > 1e-5
assert torch.allclose(
    -torch.linalg.solve(*hippo_legs(32)), torch.eye(32, dtype=torch.float64)[0]
)


# %% horizon
from itertools import pairwise


def by_age(u, dt, n=64):
    """The relative error, for each age, of the signal rebuilt from x' = A x + B u."""
    system = *discretize(*hippo_legs(n), dt), torch.zeros(n).double()
    _, x = ssm_recurrence(u, *system)
    ages = torch.arange(u.shape[1]) + 0.5
    rebuilt = legs_basis(torch.exp(-dt * ages).double(), n) @ x[0].mT
    past = u[0].flip(0)  # the newest sample first
    bins = [slice(*ages) for ages in pairwise((0, 3, 10, 30, 100, 300, 1000))]
    return torch.stack([(rebuilt - past)[i].norm() / past[i].norm() for i in bins])


u = signals(1000, waves=40)
errors = {dt: by_age(u, dt) for dt in (0.1, 0.01, 0.001)}

# %% horizon_figure
figure, axes = plt.subplots(figsize=(5.2, 3.4))
borders = torch.tensor([1, 3, 10, 30, 100, 300, 1000])
styles = zip(errors.items(), ("o-", "s--", "^:"), (OURS, OTHER, "#0f766e"), strict=True)
for (dt, off), style, color in styles:
    middles = (borders[1:] * borders[:-1]).sqrt()
    axes.plot(middles, off, style, color=color, label=f"Δ = {dt}")
    axes.axvline(1 / dt, color=color, lw=0.8, ls=":")
axes.set(xscale="log", yscale="log", xlim=(1, 1200))
axes.set(xlabel="age of the sample, in steps", ylabel="relative error")
axes.legend()

# %% horizon_holds tags=["hidden"]
for waves, seed, size in (40, 0, 64), (40, 1, 64), (20, 2, 64), (40, 3, 32):
    others = (
        by_age(signals(1000, waves=waves, seed=seed), dt, size)[[0, 4, 5]]
        for dt in errors
    )
    fast, middle, slow = (off.tolist() for off in others)
    assert fast[0] < middle[0] / 2 < slow[0] / 2
    assert middle[1] < fast[1] / 2
    assert slow[2] < middle[2] < fast[2]
    assert fast[1] > 0.8

# %% two_views
u = normal(2, 500, 3)
a_bar, b_bar = discretize(*hippo_legs(16), 0.01)
c = normal(16)
step_by_step, _ = ssm_recurrence(u, a_bar, b_bar, c)
kernel = ssm_kernel(a_bar, b_bar, c, 500)
at_once = causal_convolution(u, kernel[:, None].expand(-1, 3))
print(apart((step_by_step - at_once).abs().max()), "apart")

# %% two_views_hold tags=["hidden"]
assert (step_by_step - at_once).abs().max() < 1e-9

# %% diagonal
for n in 16, 32, 64:
    pairs = ((i, j) for i in range(n) for j in range(i + 1))
    largest = max(math.comb(i + j, i - j) for i, j in pairs)
    eigenvalues, p, b, v = legs_normal_plus_low_rank(n)
    a, _ = hippo_legs(n)
    again = v @ (torch.diag(eigenvalues) - torch.outer(p, p.conj())) @ v.mH
    print(
        f"N = {n}: A's eigenvectors up to {largest:.0e};",
        f"V unitary, and A again: {apart((again - a).abs().max())} off",
    )

# %% diagonal_holds tags=["hidden"]
assert torch.allclose(v @ v.mH, torch.eye(64).to(v.dtype))
assert (again - a).abs().max() < 1e-9
for i in range(20):
    assert math.comb(4 * i, 2 * i) <= max(
        math.comb(3 * i + j, 3 * i - j) for j in range(3 * i + 1)
    )

# %% woodbury
n, length = 64, 1000
eigenvalues, p, b, v = legs_normal_plus_low_rank(n)
c = normal(n)
fast = s4_kernel(eigenvalues, p, b, c.to(v.dtype) @ v, 0.01, length)
a_bar, b_bar = discretize(*hippo_legs(n), 0.01)
print(apart((fast - ssm_kernel(a_bar, b_bar, c, length)).abs().max()), "apart")

# %% woodbury_holds tags=["hidden"]
assert (fast - ssm_kernel(a_bar, b_bar, c, length)).abs().max() < 1e-9
# The exercise: for a wave that has lasted forever, Bᵀx misses u by ω / √(N² + ω²).
for omega in 0.5, 5.0:
    a, b_real = hippo_legs(n)
    x = torch.linalg.solve(1j * omega * torch.eye(n).double() - a, b_real + 0j)
    assert abs(abs(1 - (b_real * x).sum()) - omega / math.hypot(n, omega)) < 1e-9

# %% wrap
u, kernel = normal(1, 1000, 1), normal(1000, 1, seed=1)
right = causal_convolution(u, kernel)
for size in 1000, 1999:
    product = torch.fft.rfft(u, size, dim=1) * torch.fft.rfft(kernel, size, dim=0)
    y = torch.fft.irfft(product, size, dim=1)[:, :1000]
    off = (y - right).norm() / right.norm()
    print(f"transform of {size:4}: off by", apart(off) if off < 1e-9 else f"{off:.0%}")

# %% wrap_holds tags=["hidden"]
assert off < 1e-9
offs = []
for seed in range(5):
    u, kernel = normal(1, 1000, 1, seed=seed), normal(1000, 1, seed=50 + seed)
    right = causal_convolution(u, kernel)
    y = torch.fft.irfft(
        torch.fft.rfft(u, dim=1) * torch.fft.rfft(kernel, dim=0), 1000, dim=1
    )
    offs.append(((y - right).norm() / right.norm()).item())
assert min(offs) > 0.5

# %% conjugates
a = torch.complex(torch.full((32,), -0.5), math.pi * torch.arange(32)).cdouble()
c = torch.complex(normal(32), normal(32, seed=1))
t = 0.01 * torch.arange(1000, dtype=torch.float64)
half = torch.exp(t[:, None] * a) @ c
whole = torch.exp(t[:, None] * torch.cat([a, a.conj()])) @ torch.cat([c, c.conj()])
print("64 states, imaginary part:", apart(whole.imag.abs().max()))
print(f"32 states, real part: {(half.real / whole.real).median():.2f} of that of 64")

# %% conjugates_hold tags=["hidden"]
assert torch.allclose(2 * half.real, whole.real)
# Conjugating A and C together changes nothing; conjugating A alone does.
both = torch.exp(t[:, None] * a.conj()) @ c.conj()
assert torch.allclose(both.real, half.real)
for seed in range(3):
    drawn = torch.complex(normal(32, seed=seed), normal(32, seed=seed + 9))
    right, wrong = ((torch.exp(t[:, None] * x) @ drawn).real for x in (a, a.conj()))
    assert (wrong - right).norm() > 0.5 * right.norm()


# %% euler
def largest(method, dt, steps):
    """The largest number that the state takes on the way, from 0."""
    a_bar, b_bar = discretize(*hippo_legs(64), dt, method=method)
    x, most = torch.zeros(64, dtype=torch.float64), 0.0
    for _ in range(steps):
        x = a_bar @ x + b_bar
        most = max(most, x.abs().max().item())
    return most


for method, dt, steps in (
    ("euler", 0.1, 20),
    ("bilinear", 0.1, 20),
    ("zoh", 0.1, 20),
    ("euler", 0.02, 400),
):
    most = largest(method, dt, steps)
    print(f"{method:8} Δ = {dt:4}, {steps:3} steps: up to {most:.2g}")

# %% euler_holds tags=["hidden"]
eigenvalues = 1 - 0.1 * torch.arange(1, 65)
assert abs(eigenvalues.abs().max() - 5.4) < 1e-6
assert (1 - 0.02 * torch.arange(1, 65)).abs().max() < 1
assert largest("euler", 0.02, 400) > 1e12
a_bar, b_bar = discretize(*hippo_legs(64), 0.02, method="euler")
x = torch.zeros(64, dtype=torch.float64)
for _ in range(3000):
    x = a_bar @ x + b_bar
assert torch.allclose(x, torch.eye(64, dtype=torch.float64)[0], atol=1e-3)

# %% weight_decay
layer = S4D(16, dt_min=0.001, dt_max=0.001)
optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01, weight_decay=0.1)
for parameter in layer.parameters():
    parameter.grad = torch.zeros_like(parameter)  # no loss, so decay alone
for _ in range(1000):
    optimizer.step()
drifted = layer.log_dt[0].exp().item()
print(f"Δ after 1,000 steps: {drifted:.3f} instead of 0.001")

model = torch.nn.Sequential(S4D(16), torch.nn.GELU(), torch.nn.Linear(16, 16), S4D(16))
slow, others = [], []
for name, parameter in model.named_parameters():  # "0.log_dt" and so on
    last_part = name.rsplit(".", 1)[-1]
    is_slow = last_part in {"log_dt", "log_A_real", "A_imag"}
    (slow if is_slow else others).append(parameter)
groups = [{"params": others}, {"params": slow, "weight_decay": 0.0, "lr": 1e-3}]
optimizer = torch.optim.AdamW(groups, lr=4e-3, weight_decay=0.05)

# %% weight_decay_holds tags=["hidden"]
assert abs(drifted - 0.001 ** (1 - 1e-3) ** 1000) < 1e-3
assert (len(others), len(slow)) == (6, 6)
for part in model[0], model[3]:
    for wanted in part.log_dt, part.log_A_real, part.A_imag:
        assert any(wanted is parameter for parameter in slow)
