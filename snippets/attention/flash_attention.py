# %% quick_start
import torch
import torch.nn.functional as F

generator = torch.Generator().manual_seed(0)
# (batch, heads, positions, head dimension); four query heads share a head of k and v
q = torch.randn(1, 8, 1000, 64, generator=generator)
k, v = torch.randn(2, 1, 2, 1000, 64, generator=generator)
out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
print(tuple(out.shape))

# %% memory_loop
import matplotlib.pyplot as plt

INK, GREY, ONCE, OFTEN = "#24292f", "#6b7280", "#0b62b8", "#c2410c"
figure, axes = plt.subplots(figsize=(5.8, 3.2))


def box(x, y, width, height, colour, name="", alpha=0.25):
    axes.add_patch(
        plt.Rectangle((x, y), width, height, color=colour, alpha=alpha, lw=0)
    )
    axes.text(x + width / 2, y + height / 2, name, ha="center", va="center", fontsize=9)


def frame(x, width, y, height, title):
    axes.add_patch(
        plt.Rectangle((x, y), width, height, fill=False, edgecolor=INK, lw=0.8)
    )
    axes.text(x + width / 2, y + height + 0.2, title, ha="center", fontsize=8)


def arrow(start, end, colour, text):
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour})
    middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.12
    axes.text(*middle, text, color=colour, ha="center", fontsize=8)


frame(0, 4, 0, 5.2, "main memory (HBM): large and slow")
for column, (name, colour, now) in enumerate(
    (("$Q$", ONCE, 1), ("$K$", OFTEN, 2), ("$V$", OFTEN, 2), ("$O$", ONCE, 1))
):
    x = 0.3 + 0.95 * column
    axes.text(x + 0.3, 4.75, name, ha="center", va="center", fontsize=10)
    for row in range(4):
        is_now = row == now
        box(x, 3.5 - 1.05 * row, 0.6, 0.9, colour if is_now else GREY)
frame(7.0, 5, 0, 5.2, "on the chip (SRAM): small and fast")
box(7.3, 3.5, 0.9, 0.9, ONCE, "$Q_i$")
box(7.3, 2.05, 0.9, 0.9, OFTEN, "$K_j$")
box(8.4, 2.05, 0.9, 0.9, OFTEN, "$V_j$")
box(8.4, 3.5, 0.9, 0.9, GREY, "$S_{ij}$")
box(7.3, 0.4, 2.0, 0.9, ONCE, "$m$, $\\ell$, $O_i$")
axes.text(9.5, 3.95, "a tile of logits,\nused and dropped", va="center", fontsize=8)
axes.text(9.5, 2.5, "next $j$", va="center", fontsize=8)
axes.text(9.5, 0.85, "kept over all $j$", va="center", fontsize=8)
arrow((4.05, 3.95), (6.95, 3.95), ONCE, "once for each $i$")
arrow((4.05, 2.5), (6.95, 2.5), OFTEN, "for each $i$ and each $j$")
arrow((6.95, 0.85), (4.05, 0.85), ONCE, "once for each $i$")
axes.set(xlim=(-0.1, 12.1), ylim=(-0.1, 5.8), xticks=[], yticks=[])
axes.grid(visible=False)
axes.spines[:].set_visible(False)

# %% setup
import math

from zhixing.attention.softmax_attention import causal_mask, softmax_attention


def qkv(heads, key_heads, n, m, d, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = (1, heads, n, d), (1, key_heads, m, d), (1, key_heads, m, d)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def apart(gap):
    """A gap without the digits of rounding, in which processors differ."""
    return "less than 1e-12" if gap < 1e-12 else f"{gap:.2f}"


# %% tiles_figure frames="current tile" poster="3"
from zhixing.attention.online_softmax import merge, nothing, part

generator = torch.Generator().manual_seed(3)
logits = (1.5 * torch.randn(6, 6, generator=generator)).round(decimals=1)
logits = logits.masked_fill(~causal_mask(6, 6), -math.inf)
frames, shown = [], {}
for rows in ((0, 1), (2, 3), (4, 5)):
    seen = nothing(torch.zeros(2, 1))
    for columns in ((0, 1), (2, 3), (4, 5)):
        if columns[0] > rows[-1]:
            break
        seen = merge(seen, part(logits[rows, :][:, columns], torch.zeros(2, 1)))
        shown = shown | dict(zip(rows, zip(seen.m, seen.ell, strict=True), strict=True))
        frames.append((rows, columns, shown))

for number, (rows, columns, state) in enumerate(frames):
    figure, axes = plt.subplots(figsize=(4.5, 3.6), num=f"{number + 1}")
    for i, j, colour, alpha in (
        *((r[0], c[0], "#6b7280", 0.25) for r, c, _ in frames[:number]),
        (rows[0], columns[0], "#0b62b8", 0.3),
    ):
        axes.add_patch(plt.Rectangle((j, i), 2, 2, color=colour, alpha=alpha, lw=0))
    for i in rows:
        for j in columns:
            text = "$-\\infty$" if j > i else f"{logits[i, j]:.1f}".replace("-", "−")
            axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=9)
    for i, (m, ell) in state.items():
        colour = "#0b62b8" if i in rows else "#6b7280"
        for x, value in ((6.8, f"{m:.1f}"), (8.3, f"{ell:.2f}")):
            axes.text(
                x,
                i + 0.5,
                value.replace("-", "−"),
                color=colour,
                ha="center",
                va="center",
                fontsize=9,
            )
    for x, name in ((3, "keys"), (6.8, "$m$"), (8.3, "$\\ell$")):
        axes.text(x, -0.5, name, ha="center", va="center")
    axes.text(-0.5, 3, "queries", ha="center", va="center", rotation=90)
    axes.plot([0, 0, 6, 6, 0], [0, 6, 6, 0, 0], color="#24292f", lw=0.8)
    axes.set(xlim=(-1, 9), ylim=(6, -1), xticks=[], yticks=[], aspect="equal")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)

# %% tiles_hold tags=["hidden"]
from itertools import pairwise

assert len(frames) == 6
(m_before, sum_before), (m_after, _) = (frames[tile][2][3] for tile in (1, 2))
m_before, sum_before, m_after = m_before.item(), sum_before.item(), m_after.item()
m_rise = m_after - m_before
assert m_rise > 0.5
for i, (m, ell) in frames[-1][2].items():
    assert abs(m + ell.log() - torch.logsumexp(logits[i], dim=0)) < 1e-5
for before, after in pairwise(state for _, _, state in frames):
    assert all(after[i][0] >= m for i, (m, _) in before.items())

# %% roofline
from zhixing.attention.memory_traffic import standard_traffic, tiled_traffic

DEVICES = {  # dense FLOP/s of bfloat16 matrix products, bytes a second from main memory
    "A100": (312e12, 1.555e12),
    "H100": (989e12, 3.35e12),
}
BYTES = 2  # of a bfloat16 number


def standard_intensity(n, d):
    return 4 * n**2 * d / (BYTES * standard_traffic(n, d))


def tiled_intensity(n, d, block_q):
    return 4 * n**2 * d / (BYTES * tiled_traffic(n, d, block_q))


for device, (peak, bandwidth) in DEVICES.items():
    reach = standard_intensity(8192, 64) * bandwidth
    print(
        f"{device}: at most {reach / 1e12:.0f} of {peak / 1e12:.0f} TFLOP/s;",
        f"the peak needs {peak / bandwidth:.0f} FLOP/byte",
    )
print(f"standard attention has {standard_intensity(8192, 64):.0f} FLOP/byte")

# %% roofline_holds tags=["hidden"]
standard_at = standard_intensity(8192, 64)
tiled_at, once_at = (tiled_intensity(8192, 64, block) for block in (128, 8192))
assert abs(standard_at / 32 - 1) < 0.01
assert abs(tiled_at / 128 - 1) < 0.05
ridge = {name: peak / bandwidth for name, (peak, bandwidth) in DEVICES.items()}
share = standard_at / ridge["A100"]
assert 0.1 < share < 0.2
assert once_at > 2 * max(ridge.values())

# %% roofline_figure
figure, axes = plt.subplots(figsize=(5.6, 3.5))
reach = torch.logspace(0.6, 3.8, 200)
for device, (peak, bandwidth) in DEVICES.items():
    style = "-" if device == "A100" else "--"
    axes.loglog(reach, (reach * bandwidth).clamp(max=peak) / 1e12, style, label=device)
for number, (name, where, marker) in enumerate(
    (
        ("standard", [standard_intensity(8192, 64)], "v"),
        (
            "tiles, from no cache to a perfect one",
            [tiled_intensity(8192, 64, block) for block in (128, 8192)],
            "o",
        ),
    )
):
    for peak, bandwidth in DEVICES.values():
        span = torch.linspace(where[0], where[-1], 50)
        heights = (span * bandwidth).clamp(max=peak) / 1e12
        colour = f"C{number + 2}"
        axes.plot(span, heights, color=colour, lw=5, alpha=0.35)
        axes.plot(
            where, heights[[0, -1]][: len(where)], marker, color=colour, ms=6, ls=""
        )
    axes.plot([], [], marker, color=colour, ls="", label=name)
axes.set(xlabel="arithmetic intensity (FLOP/byte)", ylabel="attainable TFLOP/s")
axes.legend(loc="lower right")

# %% overflow
x = torch.tensor([89.0, 90.0])
print("as written:        ", x.exp() / x.exp().sum())
print("maximum subtracted:", (x - 90).exp() / (x - 90).exp().sum())

# %% overflow_holds tags=["hidden"]
assert (x.exp() / x.exp().sum()).isnan().all()

# %% passes
from zhixing.attention.online_softmax import (
    mean_in_one_pass,
    mean_in_three_passes,
    mean_in_two_passes,
    running_max_and_sum,
)

_, k, v = qkv(1, 1, 1, 60, 4)
x, values = 10 * k[0, 0, :, 0], v[0, 0]
wanted = torch.softmax(x, dim=0) @ values
gaps = []
for mean in (mean_in_three_passes, mean_in_two_passes, mean_in_one_pass):
    gaps.append((mean(x, values) - wanted).abs().max().item())
    print(f"{mean.__name__:>20}: {apart(gaps[-1])} from torch's")

# %% passes_hold tags=["hidden"]
assert max(gaps) < 1e-12

# %% stream_figure
m, ell = running_max_and_sum(x)
figure, panels = plt.subplots(2, 1, sharex=True, figsize=(5.6, 3.6))
seen = torch.arange(1, len(x) + 1)
panels[0].plot(seen, x, ".", color="C5", label="logit $x_j$")
panels[0].step(seen, m, where="post", label="running maximum $m_j$")
panels[0].legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2)
panels[1].step(seen, ell, where="post", color="C1")
panels[1].set(xlabel="logits seen, $j$", ylabel="running sum $\\ell_j$")

# %% merging
from functools import reduce

from zhixing.attention.online_softmax import finish, merge, part

blocks = [part(*block) for block in zip(x.split(7), values.split(7), strict=True)]
orders = {
    "from the left": reduce(merge, blocks),
    "from the right": reduce(lambda right, left: merge(left, right), blocks[::-1]),
    "halves first": merge(reduce(merge, blocks[:4]), reduce(merge, blocks[4:])),
}
for order, total in orders.items():
    mean, lse = finish(total)
    gap = (mean - wanted).abs().max()
    print(f"{order:>14}: log-sum-exp {lse:.4f}, mean {apart(gap)} from torch's")

# %% merging_holds tags=["hidden"]
for total in orders.values():
    mean, lse = finish(total)
    assert torch.allclose(mean, wanted, rtol=0, atol=1e-12)
    assert abs(lse - torch.logsumexp(x, dim=0)) < 1e-12

# %% against_torch
from zhixing.attention.tiled_attention import tiled_attention


def results(function, *tensors, **settings):
    """The output, and the gradients of q, k and v for one direction of the output."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    out = function(*leaves, **settings)
    return out, *torch.autograd.grad(out, leaves, torch.ones_like(out).cumsum(-1))


q, k, v = qkv(heads=4, key_heads=2, n=300, m=333, d=16)
ours = results(tiled_attention, q, k, v, causal=True)
mask = causal_mask(300, 333)
torchs = results(
    F.scaled_dot_product_attention, q, k, v, attn_mask=mask, enable_gqa=True
)
for name, a, b in zip(("out", "dq", "dk", "dv"), ours, torchs, strict=True):
    print(f"{name:>3}: {apart((a - b).abs().max())} from torch's")

# %% against_torch_holds tags=["hidden"]
for a, b in zip(ours, torchs, strict=True):
    assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)

# %% traffic
from zhixing.attention.memory_traffic import flash_traffic

d, on_chip = 64, 192 * 1024 // BYTES  # an A100's multiprocessor, in numbers
for n in (1024, 8192, 65536):
    moved = (
        standard_traffic(n, d),
        flash_traffic(n, d, on_chip),
        tiled_traffic(n, d, 128),
    )
    print(
        f"N = {n:5}: standard {moved[0]:.1e},",
        f"FlashAttention {moved[0] / moved[1]:.1f} times less,",
        f"128 queries a tile {moved[0] / moved[2]:.1f} times less",
    )

# %% traffic_holds tags=["hidden"]
long, times_less = 2**20, on_chip / (3 * d**2)
counted = standard_traffic(long, d) / flash_traffic(long, d, on_chip)
assert abs(counted / times_less - 1) < 0.05
assert (
    abs(standard_traffic(long, d) / tiled_traffic(long, d, 128) / (2 * 128 / d) - 1)
    < 0.01
)


# %% kept
def kept(function, *tensors):
    """What autograd keeps for the backward pass, in multiples of q."""
    storages = {}
    hooks = torch.autograd.graph.saved_tensors_hooks
    with hooks(lambda x: storages.setdefault(x.data_ptr(), x), lambda x: x):
        function(*(tensor.requires_grad_() for tensor in tensors))
    return sum(x.numel() for x in storages.values()) / tensors[0].numel()


kept_by = {}
for n in (256, 512, 1024):
    for function in (softmax_attention, tiled_attention):
        kept_by[function.__name__, n] = kept(function, *qkv(1, 1, n, n, 64))
        print(f"{n:5} {function.__name__:>18}: {kept_by[function.__name__, n]:5.2f}")

# %% kept_holds tags=["hidden"]
assert kept_by["tiled_attention", 1024] == kept_by["tiled_attention", 256] == 4 + 1 / 64
assert kept_by["softmax_attention", 1024] > 1024 / 64

# %% kernel
import os

os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: on the CPU
from zhixing.attention.flash_attention import flash_attention

gaps = {}
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    q, k, v = qkv(heads=2, key_heads=1, n=21, m=37, d=24, dtype=dtype)
    ours = results(flash_attention, q, k, v, causal=True)
    exact = results(softmax_attention, q.double(), k.double(), v.double(), causal=True)
    pairs = zip(ours, exact, strict=True)
    gaps[dtype] = [((a - b).abs().max() / b.abs().max()).item() for a, b in pairs]
    power = math.ceil(math.log10(max(gaps[dtype])))
    print(f"{dtype}: all errors below {10.0**power:.0e}")

# %% kernel_holds tags=["hidden"]
for dtype, bound in {
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
}.items():
    assert max(gaps[dtype]) < bound

# %% compiled
import json
from importlib.resources import files

recorded = files("zhixing") / "results"
compiled = json.loads((recorded / "attention_compiled.json").read_text())["rows"]
GPUS = {80: "A100", 90: "H100", 100: "B200"}


def configuration(row):
    tile = f"{row['queries']}×{row['keys']}"
    name = row["kernel"].removeprefix("_")
    return (
        f"{name:11} {row['head_size']:3} {row['dtype']:8}"
        f" {tile:>7} {row['warps']:2} {row['stages']:2}"
    )


table = {}
for row in compiled:
    cells = table.setdefault(configuration(row), {})
    cells[row["capability"]] = (
        f"{row['registers']:5}{row['stack']:5}{row['shared'] >> 10:5}"
    )
print("kernel, D, type, tile, warps, stages; registers, stack, shared memory (KB) on")
print(" " * 39, *(f"{name:>16}" for name in GPUS.values()))
for name, cells in table.items():
    print(f"{name:39}", *(f"{cells.get(capability, ''):>16}" for capability in GPUS))
for capability, gpu in GPUS.items():
    of_it = [row for row in compiled if row["capability"] == capability]
    used = {row["matrix"] for row in of_it if row["dtype"] != "float32"}
    print(f"{gpu}: 16-bit products by", ", ".join(sorted(map(str, used))))

# %% compiled_holds tags=["hidden"]
assert len(compiled) <= 60
halves = [row for row in compiled if row["dtype"] != "float32"]
matrix = {80: {"mma.sync"}, 90: {"wgmma.mma_async"}, 100: {"tcgen05.mma"}}
for capability, wanted in matrix.items():
    found = {row["matrix"] for row in halves if row["capability"] == capability}
    assert found == wanted, found
assert not any(row["tf32"] for row in compiled)
assert not any(row["stack"] for row in halves)
room = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
assert all(row["shared"] <= room[row["capability"]] for row in compiled)
singles = [row for row in compiled if row["dtype"] == "float32"]
single_count, spilled = len(singles), sum(row["stack"] > 0 for row in singles)
assert {row["matrix"] for row in singles} == {None}

# %% cpu_costs
from statistics import median

cpu = json.loads((recorded / "attention_cpu.json").read_text())
cost = {(row["function"], row["passes"], row["length"]): row for row in cpu["rows"]}
cpu_lengths = sorted({row["length"] for row in cpu["rows"]})


def seconds(name, n, passes="both"):
    return median(cost[name, passes, n]["seconds"])


def mib(name, n, passes="both"):
    return cost[name, passes, n]["peak_bytes"] / 2**20


print("time, as multiples of torch's; peak memory in MiB")
print("     N   plain   tiled      plain   tiled   torch")
for n in cpu_lengths:
    times = [seconds(name, n) / seconds("torch", n) for name in ("plain", "tiled")]
    peaks = [mib(name, n) for name in ("plain", "tiled", "torch")]
    print(f"{n:6}", *(f"{t:7.2f}" for t in times), "  ", *(f"{p:7.0f}" for p in peaks))

# %% cpu_costs_hold tags=["hidden"]
cpu_heads, cpu_head_size = cpu["heads"], cpu["head_size"]
cpu_torch = cpu["machine"]["torch"]
cpu_repeats = len(cpu["rows"][0]["seconds"])
longest, half_longest = cpu_lengths[-1], cpu_lengths[-1] // 2
memory_ratio = mib("plain", longest) / mib("tiled", longest)
tiled_time = seconds("tiled", longest) / seconds("plain", longest)
torch_time = seconds("torch", longest) / seconds("plain", longest)
growth = mib("plain", longest) / mib("plain", half_longest)
tiled_growth = mib("tiled", longest) / mib("tiled", half_longest)
assert growth > 3.5
assert tiled_growth < 2.5
assert memory_ratio > 50

# %% cpu_figure
figure, panels = plt.subplots(1, 2, figsize=(7.2, 3.2))
for axes, of, label in zip(
    panels, (seconds, mib), ("seconds", "peak memory (MiB)"), strict=True
):
    for number, name in enumerate(("plain", "tiled", "torch")):
        values_of = [of(name, n) for n in cpu_lengths]
        axes.loglog(cpu_lengths, values_of, "osv"[number] + "-", ms=5, label=name)
    axes.set(xlabel="length $N$", ylabel=label, xticks=cpu_lengths)
    axes.set_xticklabels([str(n) for n in cpu_lengths], fontsize=8)
    axes.minorticks_off()
panels[0].legend()

# %% gpu
records = [json.loads(path.read_text()) for path in recorded.glob("attention-*.json")]
for of_gpu in records:
    print(f"{of_gpu['device']}, torch {of_gpu['torch']}: {of_gpu['unit']}")
    for row in of_gpu["rows"]:
        case = f"{row['pass']:8} D {row['head_size']:3} N {row['length']:5}"
        speeds = [f"{name} {speed:.0f}" for name, speed in row["tflops"].items()]
        print(case, "causal" if row["causal"] else "full  ", *speeds)
if not records:
    print("not timed on any GPU yet")

# %% nothing_seen
hidden_block = torch.full((3,), -math.inf)
visible_block = torch.tensor([0.5, 1.0, 2.0])


def unguarded(blocks):
    m, ell = torch.tensor(-math.inf), torch.tensor(0.0)
    for x in blocks:
        m_new = torch.maximum(m, x.max())
        ell = torch.exp(m - m_new) * ell + torch.exp(x - m_new).sum()
        m = m_new
    return m + ell.log()


def guarded(blocks):
    seen = [part(x, torch.zeros(3, 1)) for x in blocks]
    return finish(reduce(merge, seen))[1]


for name, stream in {
    "hidden block last": [visible_block, hidden_block],
    "hidden block first": [hidden_block, visible_block],
    "nothing but hidden": [hidden_block, hidden_block],
}.items():
    print(f"{name}: unguarded {unguarded(stream):.3f}, guarded {guarded(stream):.3f}")

# %% nothing_seen_holds tags=["hidden"]
assert unguarded([hidden_block, visible_block]).isnan()
right = torch.logsumexp(visible_block, dim=0)
assert torch.isclose(guarded([hidden_block, visible_block]), right)
assert torch.isclose(guarded([visible_block, hidden_block]), right)
assert guarded([hidden_block, hidden_block]) == -math.inf

# %% finfo_min
q, k, v = qkv(1, 1, 2, 3, 4, torch.float32)
least = torch.finfo(torch.float32).min
mask = torch.tensor([[True, True, False], [False, False, False]])
added = torch.zeros(2, 3).masked_fill(~mask, least)
filled = torch.softmax(q @ k.mT / 2 + added, dim=-1) @ v
print("second row:    ", filled[0, 0, 1])
print("mean of V:     ", v[0, 0].mean(dim=0))
boolean = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
print("boolean mask:  ", boolean[0, 0, 1])
lowest = torch.tensor(torch.finfo(torch.float16).min, dtype=torch.float16)
print("in float16, its sum with -20:", (lowest + torch.tensor(-20.0).half()).item())

# %% finfo_min_holds tags=["hidden"]
assert torch.allclose(filled[0, 0, 1], v[0, 0].mean(dim=0))
assert (lowest + torch.tensor(-20.0).half()).item() == -math.inf

# %% last_tile
q, k, v = qkv(1, 1, 4, 5, 8)
exact = softmax_attention(q, k, v)
k_padded, v_padded = (F.pad(tensor, (0, 0, 0, 3)) for tensor in (k, v))
padded = softmax_attention(q, k_padded, v_padded)
print(f"three keys too many: wrong by {(padded - exact).abs().max():.2f}")
ratio = (padded / exact).mean(dim=-1)
print("ratio, a query:", [round(each, 3) for each in ratio.flatten().tolist()])

# %% last_tile_holds tags=["hidden"]
assert (padded / exact).std(dim=-1).max() < 1e-12
assert (ratio < 1).all()

# %% corners
from torch.nn.attention.bias import causal_lower_right

q, k, v = qkv(1, 1, 2, 5, 4)
print(causal_mask(2, 5).int())
bottom_right = softmax_attention(q, k, v, causal=True)
for name, settings in {
    "is_causal=True": {"is_causal": True},
    "causal_lower_right": {"attn_mask": causal_lower_right(2, 5)},
}.items():
    out = F.scaled_dot_product_attention(q, k, v, **settings)
    print(f"{name:>18}: {apart((out - bottom_right).abs().max())} from ours")

# %% corners_hold tags=["hidden"]
assert torch.allclose(out, bottom_right)
top_left = F.scaled_dot_product_attention(q, k, v, is_causal=True)
assert torch.allclose(top_left[0, 0, 0], v[0, 0, 0])
