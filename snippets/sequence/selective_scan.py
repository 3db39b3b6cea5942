# %% quick_start
import torch

from zhixing.sequence.selective_scan import selective_scan

generator = torch.Generator().manual_seed(0)
u, dt = torch.randn(2, 1, 1000, 64, generator=generator)  # (batch, time, channels)
b, c = torch.randn(2, 1, 1000, 16, generator=generator)  # (batch, time, state)
dt = torch.nn.functional.softplus(dt)
a = -torch.arange(1.0, 17).expand(64, 16)  # (channels, state)
y, state = selective_scan(u, dt, a, b, c)
print(tuple(y.shape), tuple(state.shape))

# %% setup
import math

import torch.nn.functional as F

from zhixing.attention.linear_attention import chunked_linear_attention
from zhixing.sequence.selective_scan import MambaBlock, combine


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def apart(gap):
    """A gap without the digits of rounding, in which processors differ."""
    return "less than 1e-12" if gap < 1e-12 else f"{gap:.2f}"


# %% marks
def marked(length, p, seed):
    """Values, marks with probability p, and at each time the last marked value."""
    v = normal(length, seed=seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    marks = torch.rand(length, generator=generator) < p
    marks[0] = True
    last = torch.where(marks, torch.arange(length), 0).cummax(0).values
    return v, marks, v[last]


def held(v, marks):
    """One channel, one number of state: Δ = 25 at marks and 0 elsewhere."""
    dt = torch.where(marks, 25.0, 0.0).double()[None, :, None]
    ones = torch.ones_like(dt)
    a = -torch.ones(1, 1).double()
    y, _ = selective_scan(v[None, :, None], dt, a, ones, ones, exact_b=True)
    return y[0, :, 0]


def windows(x, taps):
    return torch.cat([x.new_zeros(taps - 1), x]).unfold(0, taps, 1)


def filtered(p, seed, taps=100, length=20_000):
    """The best filter of v · mark, fitted to one sequence and applied to another."""
    v, marks, wanted = marked(length, p, seed)
    fitted = torch.linalg.lstsq(windows(v * marks, taps), wanted[:, None]).solution
    v, marks, wanted = marked(length, p, 100 + seed)
    return windows(v * marks, taps) @ fitted[:, 0], held(v, marks), wanted


# %% picture
import matplotlib.pyplot as plt

INK, GREY, SCAN, FILTER = "#24292f", "#6b7280", "#0b62b8", "#c2410c"
v, marks, wanted = marked(60, 0.1, seed=2854)
time = torch.arange(60)
smeared = windows(v * marks, 60) @ 0.9 ** torch.arange(59.0, -1, -1).double()
figure, axes = plt.subplots(figsize=(5.0, 3.3))
axes.plot(time[~marks], v[~marks], ".", color=GREY, ms=4, label="not marked")
axes.plot(time[marks], v[marks], "o", color=INK, ms=6, label="marked")
axes.step(time, held(v, marks), where="post", color=SCAN, label="selective scan")
axes.plot(time, smeared, "--", color=FILTER, label="best filter")
axes.set(xlabel="time", ylabel="value")
axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.24))

# %% picture_holds tags=["hidden"]
assert (held(v, marks) - wanted).abs().max() < 1e-6
one = torch.ones(1, 1, 1).double()
euler, _ = selective_scan(v[:1].view(1, 1, 1), 25 * one, -one[0], one, one)
assert abs(euler.item() / v[0] - 25) < 1e-6

# %% filters
rows, seeds = {}, range(5)
for p in 0.05, 0.2, 0.5:
    trials = [filtered(p, seed) for seed in seeds]
    rows[p] = [((f - w) ** 2).mean() / (w**2).mean() for f, _, w in trials]
    scan_off = max((h - w).abs().max() for _, h, w in trials)
    mean = sum(rows[p]) / len(seeds)
    limit = (1 - p) / (2 - p)
    print(f"p = {p:4}: filter {mean:.2f}, its limit {limit:.2f};", end=" ")
    print("scan less than 1e-6" if scan_off < 1e-6 else f"scan {scan_off:.2f}")

# %% filters_hold tags=["hidden"]
for p, errors in rows.items():
    limit = (1 - p) / (2 - p)
    assert abs(sum(errors) / len(seeds) / limit - 1) < 0.1
    assert all(0.85 < e / limit < 1.2 for e in errors)
# The best filter is e^(-Δt) with e^(-Δ) = 1 - p.
p = 0.2
v, marks, wanted = marked(20_000, p, 0)
fitted = torch.linalg.lstsq(windows(v * marks, 30), wanted[:, None]).solution[:, 0]
assert (fitted.flip(0) - (1 - p) ** torch.arange(30.0)).abs().max() < 0.1

# %% gate
s, u = normal(1, 500, 8), normal(1, 500, 8, seed=1)
ones, a = torch.ones(1, 500, 1).double(), -torch.ones(8, 1).double()
gate, h, wanted = torch.sigmoid(s), torch.zeros(1, 8).double(), []
for t in range(500):
    h = (1 - gate[:, t]) * h + gate[:, t] * u[:, t]
    wanted.append(h)
wanted = torch.stack(wanted, dim=1)
for exact_b in True, False:
    y, _ = selective_scan(u, F.softplus(s), a, ones, ones, exact_b=exact_b)
    gap = ((y - wanted).norm() / wanted.norm()).item()
    print(f"exact_b={exact_b}: relative error {apart(gap)}")

# %% gate_holds tags=["hidden"]
y, _ = selective_scan(u, F.softplus(s), a, ones, ones, exact_b=True)
assert (y - wanted).abs().max() < 1e-12
assert 0.5 < gap < 1.2
gains = {delta: delta / (1 - math.exp(-delta)) for delta in (0.1, 1, 1.6, 3)}
many = torch.ones(1, 400, 1).double()
for delta in 0.1, 1, 3:
    _, final = selective_scan(many, delta * many, a[:1], many, many)
    assert abs(final.item() / gains[delta] - 1) < 1e-9
_, final = selective_scan(many, 0.1 * many, 16 * a[:1], many, many)
assert abs(16 * final.item() / gains[1.6] - 1) < 1e-9
_, final = selective_scan(many, 0.1 * many, 16 * a[:1], many, many, exact_b=True)
assert abs(16 * final.item() - 1) < 1e-9
gain_small, gain_one, gain_start = gains[0.1] - 1, gains[1] - 1, gains[1.6] - 1

# %% loop
u, dt = normal(2, 300, 8), F.softplus(normal(2, 300, 8, seed=1))
b, c = normal(2, 2, 300, 4, seed=3)
a = -torch.arange(1.0, 5).expand(8, 4).double()
h, wanted = torch.zeros(2, 8, 4).double(), []
for t in range(300):
    term = (dt[:, t] * u[:, t])[..., None] * b[:, t, None]
    h = (dt[:, t, :, None] * a).exp() * h + term
    wanted.append((h * c[:, t, None]).sum(-1))
y, state = selective_scan(u, dt, a, b, c)
gap = max((y - torch.stack(wanted, dim=1)).abs().max(), (state - h).abs().max())
print(f"scan: {apart(gap)} from the loop")

# %% loop_holds tags=["hidden"]
assert gap < 1e-12

# %% duality
u, dt = normal(1, 300, 64), F.softplus(normal(1, 300, 1, seed=1))
b, c = normal(2, 1, 300, 16, seed=2)
rate = -0.5
y, _ = selective_scan(u, dt.expand_as(u), torch.full((64, 16), rate).double(), b, c)
out, _ = chunked_linear_attention(
    c[:, None],
    b[:, None],
    (dt * u)[:, None],
    log_decay=rate * dt[:, None, :, 0],
    scale=1.0,
)
print(f"linear attention: {apart((out[:, 0] - y).abs().max())} from the scan")

# %% duality_holds tags=["hidden"]
assert (out[:, 0] - y).abs().max() < 1e-12

# %% block
torch.manual_seed(0)
block = MambaBlock(64).double()
x = normal(1, 120, 64)
y, cache = block.step(x[:, :100])  # the prompt
for t in range(100, 120):  # one token after the other
    token, cache = block.step(x[:, t : t + 1], cache)
    y = torch.cat([y, token], dim=1)
print(f"steps: {apart((y - block(x)).abs().max())} from all tokens at once")

# %% block_holds tags=["hidden"]
assert (y - block(x)).abs().max() < 1e-12

# %% size
with torch.device("meta"):  # shapes without memory
    block = MambaBlock(2560)
blocks, width, state, words = 64, 2560, 16, 50280
parameters = blocks * (sum(p.numel() for p in block.parameters()) + width)
parameters += width + words * width  # last norm; embedding, also the output layer
state_bytes = blocks * 2 * width * state * 4  # float32
token_bytes = 32 * 2 * width * 2  # a key and a value in each of 32 layers, bfloat16
print(f"parameters: {parameters:,}")
state_mib, tokens = state_bytes / 2**20, state_bytes // token_bytes
print(f"states: {state_mib:.0f} MiB, the cache of {tokens} tokens")

# %% size_holds tags=["hidden"]
assert parameters == 2_768_345_600
assert state_bytes == 64 * token_bytes

# %% gpu
import json
from importlib.resources import files

paths = sorted((files("zhixing") / "results").glob("selective-scan-*.json"))
records = [json.loads(path.read_text()) for path in paths]
for of_gpu in records:
    print(f"{of_gpu['device']}, torch {of_gpu['torch']}: {of_gpu['unit']}")
    for row in of_gpu["rows"]:
        case = f"{row['pass']:8} B {row['batch']} L {row['length']:5}"
        times = (f"{name} {ms}" for name, ms in row["milliseconds"].items())
        print(f"{case} D {row['channels']}", *times)
if not records:
    print("not timed on any GPU yet")

# %% order
steps = [(normal(seed=10 + i).sigmoid(), normal(seed=i)) for i in range(3)]
first, second, third = steps
left = combine(combine(first, second), third)[1]
right = combine(first, combine(second, third))[1]
swapped = combine(combine(third, second), first)[1]
print(f"grouped otherwise: {apart((left - right).abs())}")
print(f"operands swapped: {apart((left - swapped).abs())}")

# %% order_holds tags=["hidden"]
assert (left - right).abs() < 1e-12
assert (left - swapped).abs() > 0.05

# %% factored
length = 2048
dt = torch.exp(torch.linspace(math.log(0.001), math.log(0.1), 1536))
exponents = length * dt[:, None] * torch.arange(1.0, 17)  # at the end, for each state
for dtype in torch.float32, torch.float64:
    broken = (exponents.to(dtype).exp() == math.inf).double().mean().item()
    print(f"{dtype}: 1 / product overflows in {broken:.0%} of the states")

# %% factored_holds tags=["hidden"]
shares = [
    (exponents.to(dtype).exp() == math.inf).double().mean().item()
    for dtype in (torch.float32, torch.float64)
]
assert 0.5 < shares[0] < 0.7
assert 0.15 < shares[1] < 0.4

# %% padding
u, dt = normal(1, 200, 8), F.softplus(normal(1, 200, 8, seed=1) - 3)
b, c = normal(2, 1, 200, 4, seed=2)
padding = torch.arange(200)[:, None] >= 150
_, wanted = selective_scan(u[:, :150], dt[:, :150], a, b[:, :150], c[:, :150])
_, zero_u = selective_scan(u.masked_fill(padding, 0), dt, a, b, c)
_, zero_dt = selective_scan(u, dt.masked_fill(padding, 0), a, b, c)
for name, found in ("u", zero_u), ("Δ", zero_dt):
    size = (found.norm() / wanted.norm()).item()
    gap = apart((found - wanted).abs().max())
    print(f"{name} masked: the state has {size:.0%} of its size, {gap} away")

# %% padding_holds tags=["hidden"]
assert (zero_dt - wanted).abs().max() < 1e-12
assert zero_u.norm() < 0.3 * wanted.norm()

# %% weight_decay
torch.manual_seed(0)
block = MambaBlock(64)
optimizer = torch.optim.AdamW(block.parameters(), lr=1e-3, weight_decay=0.1)
bias = block.dt_proj.bias
rate, slowest = -block.A_log[0, -1].exp().item(), F.softplus(bias).min().item()
block.A_log.grad, bias.grad = torch.zeros_like(block.A_log), torch.zeros_like(bias)
for _ in range(10_000):
    optimizer.step()
print(f"fastest rate: {rate:.1f} → {-block.A_log[0, -1].exp().item():.1f}")
print(f"smallest softplus(bias): {slowest:.4f} → {F.softplus(bias).min().item():.3f}")

# %% weight_decay_holds tags=["hidden"]
after = -block.A_log[0, -1].exp().item()
assert abs(after + 16 ** ((1 - 1e-4) ** 10_000)) < 0.01
shrunk = math.log(math.expm1(slowest)) * (1 - 1e-4) ** 10_000
faster = F.softplus(bias).min().item() / slowest
assert abs(F.softplus(bias).min().item() - math.log1p(math.exp(shrunk))) < 1e-3
assert faster > 30
