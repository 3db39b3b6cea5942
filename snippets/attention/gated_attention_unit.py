# %% quick_start
import torch
from torch import nn

from zhixing.attention.gated_attention_unit import GatedAttentionUnit

torch.manual_seed(0)
norm, unit = nn.RMSNorm(512), GatedAttentionUnit(512, chunk=256, causal=True)
x = torch.randn(2, 1000, 512)  # (batch, tokens, width)
x = x + unit(norm(x))
print(tuple(x.shape))

# %% quick_start_holds tags=["hidden"]
assert x.shape == (2, 1000, 512)

# %% picture
import matplotlib.pyplot as plt

from zhixing.attention.gated_attention_unit import mixed_chunk_attention

size, tokens = 6, 24
# Smooth queries and keys, so that neighbours are alike.
time = torch.arange(tokens) / 5
fast = 1.4 * torch.stack(
    [torch.cos(3 * time), torch.sin(3 * time), torch.cos(5 * time)], -1
)
slow = 0.8 * torch.stack([torch.cos(time / 2), torch.sin(time / 3)], -1)
fast, slow = fast.expand(1, 1, -1, -1), slow.expand(1, 1, -1, -1)
ink = "#222222"  # stays dark on a dark page, as the colours of the weights stay
colours = plt.get_cmap("RdBu_r").with_extremes(bad="#c3c8cf")
figure, panels = plt.subplots(1, 2, figsize=(5.2, 3.0), layout="constrained")
for axes, causal in zip(panels, (False, True), strict=True):
    # Values that are the identity show the weights.
    identity = torch.eye(tokens).expand(1, 1, -1, -1)
    weights = mixed_chunk_attention(
        fast, fast, slow, slow, identity, chunk=size, causal=causal
    )[0, 0]
    # The linear part is divided by 24 here and by 6 there: as dark on both sides.
    limit = 0.15 if causal else 0.0375
    later = torch.ones(tokens, tokens).triu(1).bool() & causal
    shown = weights.masked_fill(later, torch.nan)
    axes.imshow(shown, cmap=colours, vmin=-limit, vmax=limit)
    for start in range(0, tokens, size):
        corner = start - 0.5, start - 0.5
        axes.add_patch(plt.Rectangle(corner, size, size, fill=False, ec=ink))
    axes.set_title("causal" if causal else "full")
    axes.set(xlabel="key", xticks=[], yticks=[])
panels[0].set_ylabel("query")
panels[1].text(17.5, 4, "not seen", ha="center", va="center", color=ink)

# %% picture_holds tags=["hidden"]
# Outside its blocks the causal matrix is linear (signed) below, and 0 above.
assert (weights[:6, 6:] == 0).all()
assert (weights[18:, :6] < 0).any()
assert (weights[:6, :6] >= 0).all()

# %% setup
import math

import torch.nn.functional as F

from zhixing.attention.gated_attention_unit import (
    mixed_chunk_attention,
    squared_relu_attention,
)
from zhixing.attention.softmax_attention import softmax_attention


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def apart(a, b):
    """The largest gap, without the digits of rounding, in which processors differ."""
    gap = (a - b).abs().max().item()
    return "less than 1e-12" if gap < 1e-12 else f"{gap:.2f}"


# %% extremes
v, gate = normal(2, 1, 1, 8, 4)
zero = torch.zeros_like(v)
identity = torch.eye(8, dtype=torch.float64)
attended = squared_relu_attention(zero, zero, v, length=8, bias=identity)
print("A = I leaves a gated linear unit:", apart(gate * attended, gate * v), "off")

unit = GatedAttentionUnit(512)  # e = 1024, s = 128
weights = sum(p.weight.numel() for p in unit.modules() if isinstance(p, nn.Linear))
print(f"two units: {2 * weights:,} weights; attention and MLP: {12 * 512**2:,}")

# %% extremes_hold tags=["hidden"]
assert torch.equal(attended, v)
assert weights == 3 * 512 * 1024 + 512 * 128
assert 2 * weights == 12 * 512**2 + 2 * 512 * 128


# %% lengths
def attend(q, k, v, rule):
    """One of four rules; 64 is the length of training, 16 the head size."""
    if rule == "softmax":
        return softmax_attention(q, k, v, scale=1.0)
    n, s = k.shape[2], k.shape[3]
    length = {"N, at hand": n, "root of Ns": math.sqrt(n * s), "64, fixed": 64}[rule]
    return squared_relu_attention(q, k, v, length=length)


q, k, v = normal(3, 1, 1, 64, 16)
q = q[:, :, :1]
away = (-10 * F.normalize(q, dim=-1)).expand_as(k)  # keys that q should not see
doubled = torch.cat([k, k], 2), torch.cat([v, v], 2)
diluted = torch.cat([k, away], 2), torch.cat([v, normal(1, 1, 64, 16, seed=9)], 2)
print("divided by    each token twice   64 irrelevant tokens more")
ratios = {}
for rule in "N, at hand", "root of Ns", "64, fixed", "softmax":
    before = attend(q, k, v, rule).norm()
    ratios[rule] = [
        (attend(q, *more, rule).norm() / before).item() for more in (doubled, diluted)
    ]
    print(f"{rule:<10} {ratios[rule][0]:>16.2f} {ratios[rule][1]:>20.2f}")

# %% lengths_hold tags=["hidden"]
expected = {
    "N, at hand": (0.5, 0.25),
    "root of Ns": (1, 0.5),
    "64, fixed": (2, 1),
    "softmax": (1, 1),
}
for seed in range(8):
    q, k, v = normal(3, 1, 1, 64, 16, seed=seed)
    q = q[:, :, :1]
    away = (-10 * F.normalize(q, dim=-1)).expand_as(k)
    for rule, wanted in expected.items():
        before = attend(q, k, v, rule)
        twice = attend(q, torch.cat([k, k], 2), torch.cat([v, v], 2), rule)
        more = attend(q, torch.cat([k, away], 2), torch.cat([v, v], 2), rule)
        assert (twice - wanted[0] * before).norm() < 1e-9 * before.norm()
        assert (more - wanted[1] * before).norm() < 1e-6 * before.norm()


# %% initialisation
def fresh(width, length, seed, head_size=128):
    """Scores and biases of a new unit, for tokens of variance 1."""
    torch.manual_seed(seed)
    unit = GatedAttentionUnit(width, head_size=head_size, length=length)
    with torch.no_grad():
        z = unit.to_qk(torch.randn(length, width))
        q, k = (z * g + b for g, b in zip(unit.gamma, unit.beta, strict=True))
        return q, k, q @ k.T / length, unit.bias(length)


print("seed  mean |score|  mean |bias|  due to content  not 0 in float16")
facts = []
for seed in range(3):
    q, k, scores, bias = fresh(512, 512, seed)
    by_position = torch.relu(bias).square()
    weights = torch.relu(scores + bias).square()
    content = ((weights - by_position).norm() / weights.norm()).item()
    half = torch.relu(q.half() @ k.half().T / 512).square()
    alive = half.count_nonzero().item()
    facts.append((scores.abs().mean().item(), bias.abs().mean().item(), content, alive))
    print(
        f"{seed:4} {facts[-1][0]:13.0e} {facts[-1][1]:12.0e} {content:14.0e} {alive:17}"
    )

# %% initialisation_holds tags=["hidden"]
for score, bias_size, content, alive in facts:
    assert 2e-7 < score < 3e-6
    assert 0.004 < bias_size < 0.05
    assert content < 3e-4
    assert alive == 0
# In other sizes too.
for width, length, head_size in (128, 128, 64), (1024, 1024, 128), (256, 64, 128):
    q, k, scores, bias = fresh(width, length, 0, head_size)
    weights = torch.relu(scores + bias).square()
    assert (torch.relu(q.half() @ k.half().T / length).square() == 0).all()
    content = (weights - torch.relu(bias).square()).norm() / weights.norm()
    assert content < 2e-3
# Without a bias the weights are about the square of the scores.
largest_weight = torch.relu(fresh(512, 512, 0)[2]).square().max().item()
assert largest_weight < 6e-9  # half precision rounds below 3e-8 to 0
# A distance whose bias is negative has no weight, and no gradient.
torch.manual_seed(0)
unit = GatedAttentionUnit(512)
unit(torch.randn(1, 512, 512)).square().sum().backward()
silent = unit.distance_bias.grad == 0
silent_share = silent.float().mean().item()
assert torch.equal(silent, unit.distance_bias < 0)
assert 0.35 < silent_share < 0.65
silent_pairs = (unit.bias(512) < 0).float().mean().item()


def gamma_gradient(seed, with_bias):
    """The norm of the gradient of gamma in a new unit, for a mean squared error."""
    torch.manual_seed(seed)
    unit = GatedAttentionUnit(512)
    if not with_bias:
        torch.nn.init.zeros_(unit.distance_bias)
    tokens, target = torch.randn(2, 1, 512, 512)
    (unit(tokens) - target).square().mean().backward()
    return unit.gamma.grad.norm().item()


fewer = [gamma_gradient(seed, True) / gamma_gradient(seed, False) for seed in range(3)]
assert min(fewer) > 1000
weaker = round(sum(fewer) / 3, -3)
# Without a bias the outputs round to 0 in float16. In bfloat16 they do not.
q, k, *_ = fresh(512, 512, 0)
q, k, v = q[None, None], k[None, None], normal(1, 1, 512, 1024, dtype=torch.float32)
for dtype in torch.float16, torch.bfloat16:
    attended = squared_relu_attention(q.to(dtype), k.to(dtype), v.to(dtype), length=512)
    assert (attended == 0).all() == (dtype == torch.float16)
in_bfloat16 = torch.relu(q.bfloat16() @ k.bfloat16().mT / 512).square()
assert (in_bfloat16 != 0).float().mean() > 0.2

# %% chunks
from zhixing.attention.linear_attention import chunked_linear_attention

q, k, q_linear, k_linear, v = normal(5, 1, 1, 96, 16)
zero = torch.zeros_like(q)
mixed = mixed_chunk_attention(zero, zero, q_linear, k_linear, v, chunk=32, causal=True)
before, _ = chunked_linear_attention(
    torch.cat([torch.zeros_like(zero[:, :, :64]), q_linear[:, :, 64:]], 2),
    torch.cat([k_linear[:, :, :64], zero[:, :, 64:]], 2),
    v,
    scale=1 / 32,
)
print(
    "without squares, the third chunk sees linear attention over the first two:",
    apart(mixed[:, :, 64:], before[:, :, 64:]),
    "off",
)
ones = torch.ones(1, 1, 96, 1)
linear = mixed_chunk_attention(0 * ones, ones, ones, ones, ones, chunk=32, causal=True)
print("of ones, the linear part of each chunk is", linear[0, 0, ::32, 0].tolist())
one = mixed_chunk_attention(q, k, q_linear, k_linear, v, chunk=96, causal=True)
whole = squared_relu_attention(q, k, v, length=96, causal=True)
print("one chunk is squared ReLU over all tokens:", apart(one, whole), "off")
two = mixed_chunk_attention(q, k, q_linear, k_linear, v, chunk=48, causal=True)
print("two chunks are another layer:", apart(two, whole), "off")

# %% chunks_hold tags=["hidden"]
assert (mixed[:, :, 64:] - before[:, :, 64:]).abs().max() < 1e-12
assert (one - whole).abs().max() < 1e-12
assert (two - whole).abs().max() > 1
assert linear[0, 0, ::32, 0].tolist() == [0, 1, 2]

# %% costs
d, e, s, C = 512, 1024, 128, 256
projections = 3 * d * e + d * s
print("for each token        8 heads + MLP    two units    in chunks")
costs = {}
for n in 512, 4096, 32768:
    attention = 12 * d * d + n * 2 * d
    units = 2 * (projections + n * (s + e))
    chunks = 2 * (projections + C * (s + e) + 2 * s * e)
    costs[n] = attention, units, chunks
    print(f"{n:6} multiply-adds {attention:14,} {units:12,} {chunks:12,}")
    print(f"{n:6} scores        {8 * n:14,} {2 * n:12,} {2 * C:12,}")

# %% costs_hold tags=["hidden"]
from torch.utils.flop_counter import FlopCounterMode


def multiplied(call, n):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // (2 * n)


n = 512
x = torch.zeros(1, n, d)
assert 2 * multiplied(lambda: GatedAttentionUnit(d)(x), n) == costs[n][1]
assert 2 * multiplied(lambda: GatedAttentionUnit(d, chunk=C)(x), n) == costs[n][2]
q8 = torch.zeros(1, 8, n, d // 8)
assert multiplied(lambda: softmax_attention(q8, q8, q8), n) == n * 2 * d
break_even = C + 2 * s * e / (s + e)
assert costs[512][2] < costs[512][1]
# For attention and MLP: 12 d² + 2 d N = the cost in chunks.
break_even_pair = (costs[512][2] - 12 * d * d) / (2 * d)
assert costs[512][2] > costs[512][0]
assert costs[4096][2] < costs[4096][0]
sum_entries = s * e / C
assert sum_entries > C
more_units = costs[32768][1] / costs[32768][0]
fewer_chunks = costs[32768][1] / costs[32768][2]
assert costs[512][1] > costs[512][0]

# %% prefix
q, k, v = normal(3, 1, 1, 512, 16)
first = q[:, :, :256], k[:, :, :256], v[:, :, :256]
whole = squared_relu_attention(q, k, v, length=512, causal=True)[:, :, :256]
at_hand = squared_relu_attention(*first, length=256, causal=True)
fixed = squared_relu_attention(*first, length=512, causal=True)
print("length at hand:", (at_hand.norm() / whole.norm()).item(), "times as large")
print("length fixed:", apart(fixed, whole), "off")

# %% prefix_holds tags=["hidden"]
assert torch.equal(at_hand, 4 * whole) or (at_hand - 4 * whole).abs().max() < 1e-12
assert (fixed - whole).abs().max() < 1e-12

# %% padding
q, k, q_linear, k_linear, v = normal(5, 1, 1, 512, 16)
alone = mixed_chunk_attention(*(x[:, :, :128] for x in (q, k, q_linear, k_linear, v)))
real = torch.arange(512)[None] < 128
hidden = v.masked_fill(~real[:, None, :, None], 0)
masked = mixed_chunk_attention(q, k, q_linear, k_linear, hidden)[:, :, :128]
counted = mixed_chunk_attention(q, k, q_linear, k_linear, v, key_mask=real)[:, :, :128]
print("values of 0, and padding counted:", apart(masked, alone), "off")
print("with key_mask:", apart(counted, alone), "off")

# %% padding_holds tags=["hidden"]
assert (counted - alone).abs().max() < 1e-12
assert (masked - alone).abs().max() > 0.1
quadratic = squared_relu_attention(q, k, hidden, length=512)[:, :, :128]
without = squared_relu_attention(*(x[:, :, :128] for x in (q, k, v)), length=512)
assert (quadratic - without[:, :, :128]).abs().max() < 1e-12


# %% laplace
def laplace(x, sigma):
    return (1 + torch.erf((x - math.sqrt(0.5)) / (sigma * math.sqrt(2)))) / 2


at = torch.tensor(0.5, dtype=torch.float64).sqrt().requires_grad_()
slopes = {}
for name, sigma in (
    ("√(1/4π)", 1 / math.sqrt(4 * math.pi)),
    ("√(π/4)", math.sqrt(math.pi / 4)),
):
    y = laplace(at, sigma)
    (slopes[name],) = torch.autograd.grad(y, at)
    at_zero = laplace(torch.tensor(0.0, dtype=torch.float64), sigma).item()
    print(f"σ = {name:<8} {y.item():.3f} at √½, slope {slopes[name]:.3f},", end=" ")
    print(f"{at_zero:.3f} at 0")
print(f"squared ReLU {at.item() ** 2:.3f} at √½, slope {2 * at.item():.3f}, 0.000 at 0")

# %% laplace_holds tags=["hidden"]
assert abs(slopes["√(1/4π)"] - math.sqrt(2)) < 1e-12
assert abs(slopes["√(π/4)"] - math.sqrt(2) / math.pi) < 1e-12
assert laplace(torch.tensor(0.0), math.sqrt(math.pi / 4)) > 0.2
