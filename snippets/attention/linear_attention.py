# %% quick_start
import torch

from zhixing.attention.linear_attention import (
    chunked_linear_attention,
    elu_plus_one,
    recurrent_linear_attention,
)

generator = torch.Generator().manual_seed(0)
# (batch, heads, positions, head dimension)
q, k, v = torch.randn(3, 1, 8, 1000, 64, generator=generator)
q, k = elu_plus_one(q), elu_plus_one(k)
out, state = chunked_linear_attention(q, k, v, normalize=True)
print(tuple(out.shape), [tuple(part.shape) for part in state])

# Generation: the next token, here the last one again.
token = q[:, :, -1:], k[:, :, -1:], v[:, :, -1:]
out, state = recurrent_linear_attention(*token, state=state, normalize=True)
print(tuple(out.shape), [tuple(part.shape) for part in state])

# %% picture
import matplotlib.pyplot as plt

INK, GREY, WITHIN, BEFORE = "#24292f", "#6b7280", "#c2410c", "#0b62b8"
figure, axes = plt.subplots(figsize=(5.0, 4.3))
size, chunks = 3, 4
for c in range(chunks):
    top = size * c
    if c:
        axes.add_patch(
            plt.Rectangle((0, top), top, size, color=BEFORE, alpha=0.18, lw=0)
        )
        axes.text(
            top / 2, top + size / 2, f"$Q_{c + 1} S_{c}$", ha="center", va="center"
        )
    for i in range(size):
        axes.add_patch(
            plt.Rectangle((top, top + i), i + 1, 1, color=WITHIN, alpha=0.3, lw=0)
        )
    axes.add_patch(
        plt.Rectangle((top, top), size, size, fill=False, edgecolor=GREY, lw=0.8)
    )
    middle = size * (c + 0.5)
    axes.text(-0.25, middle, f"$Q_{c + 1}$", ha="right", va="center")
    axes.text(middle, 12.55, f"$K_{c + 1}, V_{c + 1}$", ha="center", va="center")
    arrow = {"arrowstyle": "->", "color": INK}
    axes.annotate("", (middle, 14.05), (middle, 12.95), arrowprops=arrow)
    axes.text(middle, 14.55, f"$S_{c + 1}$", ha="center", va="center", color=BEFORE)
    if c < chunks - 1:
        axes.annotate(
            "", (middle + 2.4, 14.55), (middle + 0.6, 14.55), arrowprops=arrow
        )
axes.text(7.7, 0.9, "weights within a chunk", color=WITHIN, fontsize=9, va="center")
axes.text(7.7, 2.1, "all chunks before", color=BEFORE, fontsize=9, va="center")
axes.set(xlim=(-1.3, 13.6), ylim=(15.2, -0.3), xticks=[], yticks=[], aspect="equal")
axes.grid(visible=False)
axes.spines[:].set_visible(False)

# %% setup
import math

import torch.nn.functional as F

from zhixing.attention.linear_attention import delta_rule, linear_attention
from zhixing.attention.softmax_attention import softmax_attention


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def apart(gap):
    """A gap without the digits of rounding, in which processors differ."""
    return "less than 1e-12" if gap < 1e-12 else f"{gap:.2f}"


def error(found, wanted):
    """The relative error."""
    return ((found - wanted).norm() / wanted.norm()).item()


# %% two_orders
q, k, v = normal(3, 1, 2, 500, 16)
weights = (F.elu(q) + 1) @ (F.elu(k) + 1).mT  # 500 × 500
weights = weights / weights.sum(dim=-1, keepdim=True)
gap = (linear_attention(q, k, v) - weights @ v).abs().max()
print(f"keys times values first: {apart(gap)} from weights first")

# %% two_orders_hold tags=["hidden"]
assert gap < 1e-12
# The two softmaxes of Shen et al.: rows of weights have sum 1.
by_features, by_positions = torch.softmax(q, dim=-1), torch.softmax(k, dim=-2)
row_sums = (by_features @ by_positions.mT).sum(-1)
assert torch.allclose(row_sums, torch.ones_like(row_sums))

# %% forms
q, k, v = normal(3, 1, 2, 500, 16)
q, k = elu_plus_one(q), elu_plus_one(k)
log_decay = F.logsigmoid(3 + normal(1, 2, 500))  # decays mostly between 0.7 and 1
loop, last = recurrent_linear_attention(q, k, v, log_decay=log_decay)
gaps = []
for chunk in 1, 64, 500:
    out, state = chunked_linear_attention(q, k, v, log_decay=log_decay, chunk=chunk)
    gaps.append(max((out - loop).abs().max(), (state - last).abs().max()))
    print(f"chunks of {chunk:3}: {apart(gaps[-1])} from the loop")

# %% forms_hold tags=["hidden"]
assert max(gaps) < 1e-12
# What the prose says of the decays.
share = ((log_decay.exp() > 0.7) & (log_decay.exp() < 1)).double().mean().item()
assert share > 0.95


# %% recall
def recalled(keys, v):
    """Store n pairs in each head, read each key once; the errors of the values."""
    unit = F.normalize(keys, dim=-1)
    _, added = recurrent_linear_attention(unit, unit, v)
    _, replaced = delta_rule(unit, unit, v, torch.ones(unit.shape[:3]).double())
    return {
        "sum": error(unit @ added, v),
        "delta rule": error(unit @ replaced, v),
        "ELU + 1": error(linear_attention(keys, keys, v), v),
        "softmax": error(softmax_attention(keys, keys, v), v),
    }


d, counts, seeds = 32, (2, 4, 8, 16, 32, 64), range(5)
errors = {
    n: [recalled(*normal(2, 1, 100, n, d, seed=seed)) for seed in seeds] for n in counts
}
means = {
    n: {name: sum(e[name] for e in of_n) / len(seeds) for name in of_n[0]}
    for n, of_n in errors.items()
}

# %% recall_figure
figure, axes = plt.subplots(figsize=(5.0, 3.5))
for name, marker in (
    ("sum", "o"),
    ("delta rule", "s"),
    ("ELU + 1", "^"),
    ("softmax", "v"),
):
    axes.plot(counts, [means[n][name] for n in counts], marker, label=name, ls="-")
many = torch.linspace(2, 64, 200)
axes.plot(many, ((many - 1) / d).sqrt(), ":", color=GREY, label="$\\sqrt{(n - 1)/D}$")
axes.axhline(1, color=GREY, lw=0.8, ls="--")
axes.text(8, 1.02, "answering 0", color=GREY, fontsize=9, va="bottom")
axes.set_xscale("log", base=2)
axes.set(xlabel="pairs stored, $n$", ylabel="relative error of the values")
axes.set_xticks(counts, [str(n) for n in counts])
axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)

# %% recall_holds tags=["hidden"]
for n, of_n in errors.items():
    for e in of_n:
        assert e["softmax"] < 0.8 * min(e["sum"], e["ELU + 1"], e["delta rule"])
        assert e["delta rule"] < 0.95 * e["sum"]
        assert abs(e["sum"] / math.sqrt((n - 1) / d) - 1) < 0.3 / math.sqrt(n)
        assert n < 8 or 0.8 < e["ELU + 1"] < 1
    assert means[n]["ELU + 1"] < math.sqrt(1 - 1 / n)
assert means[d]["delta rule"] < 0.85 * means[d]["sum"]
for seed in seeds:
    keys, v = normal(2, 1, 100, 2 * d, d, seed=seed)
    unit = F.normalize(keys, dim=-1)
    _, replaced = delta_rule(unit, unit, v, torch.ones(unit.shape[:3]).double())
    read = unit @ replaced
    assert error(read[:, :, -1], v[:, :, -1]) < 1e-12
    assert error(read[:, :, 0], v[:, :, 0]) > 1
    # Some state recalls D pairs exactly, since their keys are linearly independent.
    unit, v = unit[:, :, :d], v[:, :, :d]
    assert error(unit @ torch.linalg.solve(unit, v), v) < 1e-6
assert means[2 * d]["sum"] > 1.3
assert all(0.9 < e["delta rule"] < 1.2 for e in errors[2 * d])
# Keys ten times as long sharpen the softmax, but not elu + 1.
longer = [
    recalled(10 * k, v) for k, v in (normal(2, 1, 100, 8, d, seed=s) for s in seeds)
]
assert max(e["softmax"] for e in longer) < 0.05
assert min(e["ELU + 1"] for e in longer) > 0.65
elu_at_8 = means[8]["ELU + 1"]
longer_elu = sum(e["ELU + 1"] for e in longer) / len(seeds)
delta_at_d, sum_at_d, softmax_at_d = (
    means[d][name] for name in ("delta rule", "sum", "softmax")
)
# Keys of length 1 flatten the softmax: the weights are almost those of a mean.
flat = []
for seed in seeds:
    keys, v = normal(2, 1, 100, d, d, seed=seed)
    unit = F.normalize(keys, dim=-1)
    flat.append(error(softmax_attention(unit, unit, v), v))
assert min(flat) > 0.95
unit_softmax_at_d = sum(flat) / len(seeds)


# %% rewriting
def read_first(times, seed):
    """Write key 0 that many times, then seven others; the error of its last value."""
    order = [0] * times + list(range(1, 8))
    keys = F.normalize(normal(1, 1, 8, d, seed=seed), dim=-1)[:, :, order]
    v = normal(1, 1, len(order), d, seed=100 + seed)
    first, wanted = keys[:, :, :1], v[:, :, times - 1 : times]
    ones = torch.ones(keys.shape[:3]).double()
    states = {
        "sum": recurrent_linear_attention(keys, keys, v)[1],
        "decay 0.9": recurrent_linear_attention(
            keys, keys, v, log_decay=(0.9 * ones).log()
        )[1],
        "delta rule": delta_rule(keys, keys, v, ones)[1],
    }
    read = {name: first @ state for name, state in states.items()}
    read["softmax"] = softmax_attention(d**0.5 * first, d**0.5 * keys, v)
    return {name: error(found, wanted) for name, found in read.items()}


rewritten = {t: [read_first(t, seed) for seed in range(8)] for t in (1, 8)}
for name in rewritten[1][0]:
    once, often = (sum(e[name] for e in rewritten[t]) / 8 for t in (1, 8))
    print(f"{name:>10}: written once {once:.2f}, eight times {often:.2f}")

# %% rewriting_holds tags=["hidden"]
for once, often in zip(rewritten[1], rewritten[8], strict=True):
    assert often["sum"] > 2 * often["delta rule"]
    assert often["sum"] > 2 * once["sum"]
    assert often["softmax"] > 5 * once["softmax"]
    assert often["decay 0.9"] < often["sum"] / 1.5
means_of = {
    (t, name): sum(e[name] for e in rewritten[t]) / 8
    for t in (1, 8)
    for name in rewritten[1][0]
}
assert means_of[8, "delta rule"] < 1.3 * means_of[1, "delta rule"]
assert means_of[1, "decay 0.9"] > 1.2 * means_of[1, "sum"]

# %% costs
n, d_head = 8192, 64
costs = {"all weights": (n * 2 * d_head, n, 1)}
for chunk in 16, 64, 256:
    multiplied = chunk * 2 * d_head + 2 * d_head**2
    kept = chunk + d_head**2 // chunk
    costs[f"chunks of {chunk}"] = multiplied, kept, n // chunk
costs["token by token"] = 2 * d_head**2, d_head**2, n
print("multiply-adds and numbers kept, both for each token; steps in a row")
for form, (multiplied, kept, steps) in costs.items():
    print(f"{form:>14} {multiplied:9,} {kept:6,} {steps:6,}")

# %% costs_hold tags=["hidden"]
from torch.utils.flop_counter import FlopCounterMode

small = normal(3, 1, 1, 512, d_head, dtype=torch.float32)
for chunk in 16, 64, 256:
    with FlopCounterMode(display=False) as counter:
        chunked_linear_attention(*small, chunk=chunk)
    assert counter.get_total_flops() == 2 * 512 * (chunk * 2 * d_head + 2 * d_head**2)
with FlopCounterMode(display=False) as counter:
    softmax_attention(*small, causal=True)
assert counter.get_total_flops() == 2 * 512 * 512 * 2 * d_head
fewer = costs["all weights"][0] / costs["chunks of 64"][0]
assert fewer == n / (2 * d_head)
# Fused causal attention computes half of the weights.
fewer_than_fused = costs["all weights"][0] / 2 / costs["chunks of 64"][0]
assert fewer_than_fused == n / (4 * d_head)
assert costs["chunks of 64"][0] == 2 * costs["token by token"][0]
assert min(costs, key=lambda form: costs[form][1]) == "chunks of 64"

# %% compiled
import json
from importlib.resources import files

recorded = files("zhixing") / "results"
table = json.loads((recorded / "linear_attention_compiled.json").read_text())
compiled = {
    (gpu, bits): [
        row
        for row in table["rows"]
        if row["capability"] == capability
        and (row["dtype"] == "float32") == (bits == 32)
    ]
    for bits in (16, 32)
    for capability, gpu in ((80, "A100"), (90, "H100"), (100, "B200"))
}
print("bits, GPU, configurations, spilled; most registers, shared memory; products by")
for (gpu, bits), rows in compiled.items():
    spilled = sum(row["stack"] > 0 for row in rows)
    registers, shared = (max(row[of] for row in rows) for of in ("registers", "shared"))
    numbers = f"{len(rows):3} {spilled:2} {registers:4} {shared / 1024:3.0f} KB"
    matrix = {row["matrix"] for row in rows} - {None} or {"ordinary units"}
    print(bits, gpu, numbers, *matrix)

# %% compiled_holds tags=["hidden"]
halves = [row for (_, bits), rows in compiled.items() if bits == 16 for row in rows]
singles = [row for (_, bits), rows in compiled.items() if bits == 32 for row in rows]
assert len(halves) + len(singles) == len(table["rows"])
instructions = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}
for row in halves:
    products = row["kernel"] != "_divisor_gradients"
    assert row["matrix"] == (instructions[row["capability"]] if products else None)
assert not any(row["stack"] for row in halves)
assert not any(row["matrix"] or row["tf32"] for row in singles)
assert any(row["tf32"] for row in halves)
half_count, single_count = len(halves), len(singles)
single_spilled = sum(row["stack"] > 0 for row in singles)
most_shared = max(row["shared"] for row in table["rows"]) / 1024
assert most_shared <= 99

# %% gpu
paths = sorted(recorded.glob("linear-attention-*.json"))
records = [json.loads(path.read_text()) for path in paths]
for of_gpu in records:
    print(f"{of_gpu['device']}, torch {of_gpu['torch']}: {of_gpu['unit']}")
    for row in of_gpu["rows"]:
        case = f"{row['pass']:8} D {row['head_size']:3} N {row['length']:5}"
        print(case, *(f"{name} {ms}" for name, ms in row["milliseconds"].items()))
if not records:
    print("not timed on any GPU yet")

# %% lost_features
x = torch.tensor([-4.0, -5.0, -6.0, -7.0], dtype=torch.bfloat16)
naive, ours = F.elu(x) + 1, elu_plus_one(x)
for at, wrong, right in zip(x.tolist(), naive.tolist(), ours.tolist(), strict=True):
    print(f"{at}: F.elu + 1 {wrong:.5f}, exp {right:.5f}, exact {math.exp(at):.5f}")

# %% lost_features_hold tags=["hidden"]
assert naive[-1] == 0
assert abs(naive[2].item() / math.exp(-6) - 1.58) < 0.01
assert ((ours.double() / x.double().exp() - 1).abs() < 0.01).all()

# %% lost_sums
one = torch.ones(1, 1, 1000, 1, dtype=torch.bfloat16)
state = torch.zeros(1, 1, dtype=torch.bfloat16)
for i in range(1000):
    state = state + one[0, 0, i]
print("state in bfloat16:", state.item())
_, ours = recurrent_linear_attention(one, one, one)
print("state in float32: ", ours.item())

# %% lost_sums_hold tags=["hidden"]
assert state.item() == 256
assert ours.item() == 1000

# %% padding
q, k, v = normal(3, 4, 8, 100, 32)
key_mask = (torch.arange(100) < 50).expand(4, 100)  # the second half is padding
hidden = ~key_mask[:, None, :, None]
right = linear_attention(q, k, v, key_mask=key_mask)
without = linear_attention(q, k[:, :, :50], v[:, :, :50])
print(f"φ(k) masked: {apart((right - without).abs().max())} from no padding")
off = {
    "v alone masked": linear_attention(q, k, v.masked_fill(hidden, 0)),
    "k and v masked before φ": linear_attention(
        q, k.masked_fill(hidden, 0), v.masked_fill(hidden, 0)
    ),
}
for name, wrong in off.items():
    print(f"{name}: off by {error(wrong, right):.0%}")

# %% padding_holds tags=["hidden"]
assert (right - without).abs().max() < 1e-12
assert all(0.3 < error(wrong, right) < 0.7 for wrong in off.values())


# %% factored
def factored(q, k, v, log_decay):
    """Weights e^(c_i - c_j) as e^(c_i) times e^(-c_j), as one is tempted to write."""
    c = log_decay.cumsum(-1)[..., None]
    return ((c.exp() * q) @ ((-c).exp() * k).mT).tril() @ v / q.shape[-1] ** 0.5


q, k, v = normal(3, 1, 1, 64, 16, dtype=torch.float32)
for decay in 0.9, 0.5, 0.1, 0.0:
    log_decay = torch.full((1, 1, 64), decay).log()
    wanted, _ = recurrent_linear_attention(q, k, v, log_decay=log_decay)
    broken = ~factored(q, k, v, log_decay).isfinite().all(-1)
    ours, _ = chunked_linear_attention(q, k, v, log_decay=log_decay)
    print(
        f"decay {decay}: {broken.sum().item():2} of 64 outputs not finite;",
        "in chunks",
        "right" if error(ours, wanted) < 1e-5 else "wrong",
    )

# %% factored_holds tags=["hidden"]
for decay, expected in (0.9, False), (0.5, False), (0.1, True), (0.0, True):
    log_decay = torch.full((1, 1, 64), decay).log()
    finite = factored(q, k, v, log_decay).isfinite().all(-1)
    assert bool((~finite).any()) == expected
    ours, _ = chunked_linear_attention(q, k, v, log_decay=log_decay)
    wanted, _ = recurrent_linear_attention(q, k, v, log_decay=log_decay)
    assert error(ours, wanted) < 1e-5
