# %% quick_start
import torch

from zhixing.attention.efficient_attention import cache_elements, window_attention

generator = torch.Generator().manual_seed(0)
# (batch, heads, positions, head dimension); four query heads share a key head
q = torch.randn(1, 8, 4000, 64, generator=generator)
k, v = torch.randn(2, 1, 2, 4000, 64, generator=generator)
out = window_attention(q, k, v, window=256)  # each query sees the last 256 keys
print(tuple(out.shape))
whole = cache_elements(4000, key_heads=8, head_size=64)
ours = cache_elements(4000, key_heads=2, head_size=64, window=256)
print(f"numbers in the cache: {ours:,} instead of {whole:,}")

# %% picture
import matplotlib.pyplot as plt

from zhixing.attention.efficient_attention import strided_mask, window_mask
from zhixing.attention.softmax_attention import causal_mask

GREY, BLUE, ORANGE, GREEN = "#6b7280", "#0b62b8", "#c2410c", "#0f766e"
n = 16
buckets = torch.tensor([0, 1, 2, 0, 3, 1, 2, 2, 0, 3, 1, 0, 3, 2, 1, 0])
patterns = {
    "exact": causal_mask(n, n),
    "window": window_mask(n, window=4),
    "stride": window_mask(n, window=4) | strided_mask(n, stride=4),
    "hashing": (buckets[:, None] == buckets) & causal_mask(n, n),
}
figure, grid = plt.subplots(2, 3, figsize=(5.0, 3.7))
for axes, (name, mask) in zip(grid.flat, patterns.items(), strict=False):
    for i, j in mask.nonzero().tolist():
        axes.add_patch(plt.Rectangle((j, i), 1, 1, color=BLUE, alpha=0.65, lw=0.3))
    axes.set_title(name, fontsize=10)


def block(axes, x, y, width, height, color, label):
    axes.add_patch(plt.Rectangle((x, y), width, height, color=color, alpha=0.45, lw=0))
    axes.text(x + width / 2, y + height / 2, label, ha="center", va="center")


low_rank, linear = grid.flat[4:]
low_rank.set_title("low rank", fontsize=10)
block(low_rank, 0, 0, 4, n, ORANGE, "$N × r$")
block(low_rank, 5.5, 0, n - 5.5, 4, ORANGE, "$r × N$")
linear.set_title("linear", fontsize=10)
block(linear, 0, 0, 5, n, GREEN, "$N × D$")
block(linear, 7.5, 0, 5, 5, GREEN, "$D × D$")
for axes in grid.flat:
    axes.add_patch(plt.Rectangle((0, 0), n, n, fill=False, edgecolor=GREY, lw=0.8))
    axes.set(xlim=(-0.4, n + 0.4), ylim=(n + 0.4, -0.4), xticks=[], yticks=[])
    axes.set_aspect("equal")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)

# %% setup
import math
import warnings

import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.utils.flop_counter import FlopCounterMode

from zhixing.attention.efficient_attention import (
    latent_cache_elements,
    projected_attention,
    reach,
    strided_attention,
    strided_mask,
    window_mask,
)
from zhixing.attention.linear_attention import (
    chunked_linear_attention,
    elu_plus_one,
    linear_attention,
    recurrent_linear_attention,
)
from zhixing.attention.softmax_attention import causal_mask


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def multiply_adds(call):
    """Those of the matrix products that the call executes."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2


def apart(gap):
    """A gap without the digits of rounding, in which processors differ."""
    return "less than 1e-12" if gap < 1e-12 else f"{gap:.2f}"


# %% shares
width, heads, head_size = 4096, 32, 128
caches = {
    "MHA": lambda n: cache_elements(n, key_heads=32, head_size=128),
    "GQA": lambda n: cache_elements(n, key_heads=8, head_size=128),
    "MLA": lambda n: latent_cache_elements(n, latent=512, rotary=64),
    "window": lambda n: cache_elements(n, key_heads=8, head_size=128, window=1024),
    "state": lambda n: 2 * heads * head_size**2,  # float32, so 32 bits each
}
print("tokens, attention's share of the work, cache of a layer in MB (16 bits)")
print(f"{'':>9} {'share':>5}", *(f"{name:>7}" for name in caches))
for n in 4096, 32_768, 131_072, 1_048_576:
    share = n * width / (n * width + 12 * width**2)
    sizes = [2 * of(n) / 1e6 for of in caches.values()]
    print(f"{n:9,} {share:5.0%}", *(f"{size:7.1f}" for size in sizes))

# %% shares_hold tags=["hidden"]
# The count of 12 d² and of N d, on small layers.
small = torch.nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
x = normal(1, 128, 64, dtype=torch.float32)
layers_flops = multiply_adds(lambda: small(x.requires_grad_()))
assert layers_flops == 128 * (12 * 64**2 + 2 * 128 * 64)
_, state = chunked_linear_attention(*normal(3, 1, heads, 5, head_size).float())
assert 4 * state.numel() == 2 * caches["state"](10**6)
assert state.dtype == torch.float32
half_share = 12 * width
assert half_share * width == 12 * width**2
full_cache = 6 * width
assert caches["MHA"](full_cache) == 12 * width**2
assert caches["GQA"](4 * full_cache) == 12 * width**2
k, v = torch.zeros(2, 1, 8, 100, 128)
assert caches["GQA"](100) == k.numel() + v.numel()
# DeepSeek-V2: 60 layers, 576 numbers of 6 bits; 67B: 95 layers, 8 key heads, 16 bits.
mla, grouped = 60 * caches["MLA"](1), 95 * caches["GQA"](1)
assert caches["MLA"](1) == 4.5 * 128 == 2.25 * 2 * 128
mla_layer = 1 - caches["MLA"](1) / caches["GQA"](1)
mla_alone, with_six_bits = 1 - mla / grouped, 1 - 6 * mla / (16 * grouped)
assert round(with_six_bits, 3) == 0.933
# Five layers of six with a window of 1024.
tokens = 131_072
mixed = (5 * caches["window"](tokens) + caches["GQA"](tokens)) / (
    6 * caches["GQA"](tokens)
)
assert abs(mixed - (1 / 6 + 5 / 6 * 1024 / tokens)) < 1e-12

# %% exact
q, k, v = normal(1, 4, 1000, 16), *normal(2, 1, 2, 1000, 16, seed=1)
out = window_attention(q, k, v, window=64)
mask = window_mask(1000, window=64)
masked = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
print(f"window_attention: {apart((out - masked).abs().max())} from all logits, masked")
last = q[:, :, -1:], k[:, :, -64:], v[:, :, -64:]  # what decoding needs
decoded = F.scaled_dot_product_attention(*last, enable_gqa=True)
gap = (decoded - out[:, :, -1:]).abs().max()
print(f"last query with the last 64 keys, no mask: {apart(gap)}")

# %% exact_holds tags=["hidden"]
assert (out - masked).abs().max() < 1e-12
assert gap < 1e-12

# %% hops
n, every = 256, causal_mask(256, 256)
window, stride = window_mask(n, window=16), strided_mask(n, stride=16)
layers = 1
while not reach(*[window] * layers).equal(every):
    layers += 1
print(f"windows of 16: {layers} layers until the last token sees the first")
both = reach(window, stride).equal(every)
print(f"a window of 16, then a stride of 16: all after two layers? {both}")
print(f"keys of the last query: {window[-1].sum()} and {stride[-1].sum()}")

# %% hops_hold tags=["hidden"]
assert layers == (n - 1) / 15 == 17
assert both
assert reach(stride, window).equal(every)
assert not reach(window_mask(n, window=15), stride).equal(every)

# %% strides
positions = {
    "causal": lambda b, h, i, j: i >= j,
    "window": lambda b, h, i, j: (i >= j) & (i - j < 64),
    "stride": lambda b, h, i, j: (i >= j) & ((i - j) % 64 == 0),
}
for name, seen in positions.items():
    block_mask = create_block_mask(seen, None, None, 4096, 4096, device="cpu")
    print(f"{name}: flex_attention skips {block_mask.sparsity():.0f}% of the blocks")
q, k, v = normal(3, 1, 2, 1000, 16)
regrouped = strided_attention(q, k, v, stride=64)
mask = strided_mask(1000, stride=64)
masked = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
print(f"strided_attention: {apart((regrouped - masked).abs().max())} from all logits")

# %% strides_hold tags=["hidden"]
assert (regrouped - masked).abs().max() < 1e-12
# A block of 128 × 128 holds 255 distances in a row, so one of them is a multiple.
for stride, none_empty in {1: True, 64: True, 255: True, 256: False}.items():
    by_block = strided_mask(1024, stride=stride).unflatten(1, (8, 128))
    by_block = by_block.unflatten(0, (8, 128)).any(3).any(1)
    assert by_block.equal(causal_mask(8, 8)) == none_empty


# %% sharpness
def low_rank_error(p, r):
    """Relative error of the best matrix of rank r (Eckart and Young)."""
    squares = torch.linalg.svdvals(p) ** 2
    return (squares[..., r:].sum(-1) / squares.sum(-1)).sqrt()


def sparse_error(p, r):
    """Relative error if each row keeps its r largest weights."""
    squares = p.sort(dim=-1, descending=True).values ** 2
    return (squares[..., r:].sum((-2, -1)) / squares.sum((-2, -1))).sqrt()


def split_error(p, r):
    """r / 2 weights a row, then the best rank r / 2 for the rest."""
    smallest_kept = p.topk(r // 2, dim=-1).values[..., -1:]
    rest = p.masked_fill(p >= smallest_kept, 0)
    return low_rank_error(rest, r // 2) * rest.norm(dim=(-2, -1)) / p.norm(dim=(-2, -1))


n, r, seeds = 256, 16, 5
q, k = (normal(seeds, n, 64, seed=seed) for seed in (0, 1))
scales = (0.25, 0.5, 0.75, 1, 1.5, 2, 4)
weights = {c: torch.softmax(c * q @ k.mT / 8, dim=-1) for c in scales}
errors = {
    "low rank": {c: low_rank_error(p, r) for c, p in weights.items()},
    "sparse": {c: sparse_error(p, r) for c, p in weights.items()},
    "half of each": {c: split_error(p, r) for c, p in weights.items()},
}

# %% sharpness_figure
figure, axes = plt.subplots(figsize=(5.0, 3.4))
for (name, of_scale), marker in zip(errors.items(), "os^", strict=True):
    axes.plot(scales, [e.mean() for e in of_scale.values()], marker + "-", label=name)
axes.set_xscale("log", base=2)
axes.set_xticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
axes.set(xlabel="factor $c$ of the logits", ylabel="relative error of the weights")
axes.set_ylim(0, 1)
axes.legend()

# %% sharpness_holds tags=["hidden"]
low, sparse, split = errors.values()
assert (low[0.5] < sparse[0.5] / 2).all()
assert (sparse[2] < low[2] / 2).all()
for at_one in (low[1], sparse[1]):
    assert ((at_one > 0.5) & (at_one < 0.7)).all()
    assert (split[1] < 0.8 * at_one).all()
for c in scales:
    assert (split[c] < 0.47).all()
# The same for half and double the length, rank and other head dimensions.
for other_n, other_r, d in (128, 16, 64), (256, 8, 64), (256, 32, 64), (128, 8, 16):
    x, y = (normal(2, other_n, d, seed=seed) for seed in (2, 3))
    flat, sharp = (torch.softmax(c * x @ y.mT / d**0.5, dim=-1) for c in (0.5, 2))
    assert (low_rank_error(flat, other_r) < sparse_error(flat, other_r) / 2).all()
    assert (sparse_error(sharp, other_r) < low_rank_error(sharp, other_r) / 2).all()
# The two extremes of the text.
uniform = torch.full((n, n), 1 / n).double()
shift = torch.eye(n).double().roll(1, dims=0)
worst = math.sqrt(1 - r / n)
assert abs(sparse_error(uniform, r) - worst) < 1e-9
assert abs(low_rank_error(shift, r) - worst) < 1e-9
assert low_rank_error(uniform, 1) < 1e-6
assert sparse_error(shift, 1) == 0
drawn_n, drawn_r = n, r
low_flat, sparse_flat = low[0.5].mean().item(), sparse[0.5].mean().item()
low_as_is, sparse_as_is = low[1].mean().item(), sparse[1].mean().item()
split_as_is = split[1].mean().item()
low_sharp, sparse_sharp = low[2].mean().item(), sparse[2].mean().item()
# Projected keys give weights of rank r, whatever the projections are.
e, f = normal(r, n, seed=2), normal(r, n, seed=3)
query_weights = torch.softmax(q[0] @ (e @ k[0]).mT / 8, dim=-1) @ f
assert torch.linalg.matrix_rank(query_weights) == r
mine = projected_attention(q[None, :1], k[None, :1], k[None, 1:2], e, f)
assert (mine - query_weights @ k[1]).abs().max() < 1e-12
linformer_half, linformer_tenth = (
    5 * math.log(4096) / (eps**2 - eps**3) for eps in (0.5, 0.1)
)
assert linformer_tenth > 4096

# %% conventions
left = 4  # flash-attn's window_size=(left, 0): keys i - left … i, both included
i, j = torch.arange(12)[:, None], torch.arange(12)
theirs = (i - left <= j) & (j <= i)
print("keys a query sees:", theirs.sum(1).max().item(), "for left = 4;", end=" ")
print(window_mask(12, window=4).sum(1).max().item(), "for window=4")

# %% conventions_hold tags=["hidden"]
assert theirs.equal(window_mask(12, window=left + 1))

# %% mask_saves_nothing
q, k, v = normal(3, 1, 2, 512, 16)
for size in 16, 64:
    mask = window_mask(512, window=size)

    def masked(mask=mask):
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def windowed(size=size):
        return window_attention(q, k, v, window=size)

    counts = multiply_adds(masked), multiply_adds(windowed)
    print(f"window of {size}: {counts[0]:,} with a mask, {counts[1]:,} in blocks")

# %% mask_saves_nothing_holds tags=["hidden"]
assert counts[0] == 2 * 2 * 512 * 512 * 16
assert counts[1] == 2 * 2 * 512 * (2 * 64) * 16
assert (masked() - windowed()).abs().max() < 1e-12

# %% leak
q, k, v = normal(3, 1, 1, 100, 16)
e, f = normal(2, 8, 100, seed=1) / 10
before = projected_attention(q, k, v, e, f)
future = torch.cat([v[:, :, :-1], v[:, :, -1:] + 10], dim=2)  # another last value
after = projected_attention(q, k, future, e, f)
changed = ((after - before).abs().amax(-1) > 1e-6).sum().item()
print(f"earlier outputs that change with the last value: {changed - 1} of 99")

# %% leak_holds tags=["hidden"]
assert changed == 100

# %% recipe_runs tags=["hidden"]
q, k, v = normal(1, 4, 256, 16), *normal(2, 1, 2, 256, 16, seed=1)
every = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
# Generation: a single query sees all keys of the cache, and needs no mask.
last = F.scaled_dot_product_attention(q[:, :, -1:], k, v, enable_gqa=True)
assert (last - every[:, :, -1:]).abs().max() < 1e-9
block_mask = create_block_mask(
    lambda b, h, i, j: (i >= j) & (i - j < 16), None, None, 256, 256, device="cpu"
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it is not compiled
    found = flex_attention(q, k, v, block_mask=block_mask, enable_gqa=True)
ours = window_attention(q, k, v, window=16)
assert (found - ours).abs().max() < 1e-9
for call, mask in (
    (lambda: ours, window_mask(256, window=16)),
    (lambda: strided_attention(q, k, v, stride=16), strided_mask(256, stride=16)),
):
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    assert (call() - wanted).abs().max() < 1e-9
k, v = (x.repeat_interleave(2, dim=1) for x in (k, v))
e, f = normal(2, 8, 256, seed=2) / 16
assert projected_attention(q, k, v, e, f).shape == q.shape
features = elu_plus_one(q), elu_plus_one(k)
out, _ = chunked_linear_attention(*features, v, normalize=True)
assert (linear_attention(q, k, v, causal=True) - out).abs().max() < 1e-9
# Read all but the last token in chunks, then generate it with the state.
past, now = ([x[:, :, :-1] for x in features], [x[:, :, -1:] for x in features])
_, state = chunked_linear_attention(*past, v[:, :, :-1], normalize=True)
step, _ = recurrent_linear_attention(*now, v[:, :, -1:], state=state, normalize=True)
assert (step - out[:, :, -1:]).abs().max() < 1e-9
assert linear_attention(q, k, v).shape == q.shape
# Growth of what the recipe calls, from 512 to 1024 tokens: 2 or 4 times.
growth = {}
for name, call in {
    "exact": lambda *qkv: F.scaled_dot_product_attention(*qkv),
    "window": lambda *qkv: window_attention(*qkv, window=16),
    "linear": lambda *qkv: chunked_linear_attention(*qkv),
    "low rank": lambda *qkv: projected_attention(*qkv, *normal(2, 8, qkv[0].shape[2])),
}.items():
    counts = []
    for n in 512, 1024:
        qkv = normal(3, 1, 1, n, 16)
        with sdpa_kernel(SDPBackend.MATH):
            counts.append(multiply_adds(lambda call=call, qkv=qkv: call(*qkv)))
    growth[name] = counts[1] / counts[0]
assert growth == {"exact": 4, "window": 2, "linear": 2, "low rank": 2}
