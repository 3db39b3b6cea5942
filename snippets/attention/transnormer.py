# %% quick_start
import torch
import torch.nn.functional as F

from zhixing.attention.transnormer import norm_attention

generator = torch.Generator().manual_seed(0)
# (batch, heads, positions, head dimension)
q, k, v = torch.randn(3, 1, 8, 1000, 64, generator=generator)
out = norm_attention(F.silu(q), F.silu(k), v, causal=True)
print(tuple(out.shape), "mean square", round(out.square().mean().item(), 3))

# %% quick_start_holds tags=["hidden"]
assert torch.allclose(out.square().mean((1, 3)), torch.ones(1, 1000), atol=1e-3)

# %% picture
import matplotlib.pyplot as plt

from zhixing.attention.linear_attention import elu_plus_one

GREY = "#6b7280"
x = torch.linspace(-8, 4, 241, dtype=torch.float64)


def derivative(of):
    """Of the first of two equal weights, with respect to what `of` returns for it."""
    first, score = of(x.clone())
    (found,) = torch.autograd.grad((score / (score + score.detach())).sum(), first)
    return found.abs()


def by_score(x):
    score = elu_plus_one(x).requires_grad_()
    return score, score


def by_key(feature_map):
    def of(x):
        return x.requires_grad_(), feature_map(x)

    return of


figure, axes = plt.subplots(figsize=(5.0, 3.6))
axes.semilogy(x, derivative(by_score), label="by the score, ELU + 1")
relu = derivative(by_key(torch.relu)).masked_fill(x <= 0, torch.nan)
axes.semilogy(x, relu, "--", label="by the key, ReLU")
by_key_elu = derivative(by_key(elu_plus_one))
axes.semilogy(x, by_key_elu, "-.", label="by the key, ELU + 1")
axes.axhline(0.25, ls=":", color=GREY, label="softmax, by the logit")
axes.set(xlabel="key $x$", ylabel="derivative of a weight", ylim=(0.02, 2e3))
axes.legend()

# %% picture_holds tags=["hidden"]
assert torch.allclose(derivative(by_score), 1 / (4 * elu_plus_one(x)))
assert torch.allclose(relu[x > 0], 1 / (4 * x[x > 0]))
assert derivative(by_key(elu_plus_one)).max() <= 0.25
assert torch.allclose(
    derivative(by_key(elu_plus_one))[x < 0], torch.tensor(0.25).double()
)

# %% setup
from zhixing.attention.linear_attention import elu_plus_one, linear_attention
from zhixing.attention.transnormer import block_attention, srms_norm


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def apart(gap):
    """A gap without the digits of rounding, in which processors differ."""
    return "less than 1e-12" if gap < 1e-12 else f"{gap:.0%}"


def error(found, wanted):
    """The relative error."""
    return ((found - wanted).norm() / wanted.norm()).item()


# %% slopes
def weights(scores):
    return scores / scores.sum(-1, keepdim=True)


def steepest(of, *tensors):
    """The largest derivative of any weight, with respect to any element."""
    found = torch.autograd.functional.jacobian(of, tensors)
    return max(part.abs().max().item() for part in found)


steep = {}
for shift in 0, 4, 8:
    q, k = normal(2, 16, 8) - shift
    scores = elu_plus_one(q) @ elu_plus_one(k).mT
    by_scores = steepest(weights, scores)
    by_inputs = steepest(
        lambda q, k: weights(elu_plus_one(q) @ elu_plus_one(k).mT), q, k
    )
    steep[shift] = by_scores, by_inputs
    print(
        f"shift {shift}: by a score {by_scores:8.2g}, by a query or key {by_inputs:.2f}"
    )

# %% slopes_hold tags=["hidden"]
for seed in range(5):
    for shift in 0, 4, 8, 20:
        q, k = 2 * normal(2, 16, 8, seed=seed) - shift
        found = steepest(
            lambda q, k: weights(elu_plus_one(q) @ elu_plus_one(k).mT), q, k
        )
        assert found <= 0.25
assert steep[8][0] > 1e4
# The same for softplus; and the bound on its relative derivative.
y = torch.linspace(-20, 20, 401, dtype=torch.float64)
assert (y.sigmoid() <= F.softplus(y)).all()
assert steepest(lambda q, k: weights(F.softplus(q) @ F.softplus(k).mT), q, k) <= 0.25


# %% scales
def divided(q, k, v):
    """Scores over their sum, for any features."""
    return weights(q @ k.mT) @ v


def largest_gradient(attention, feature_map, q, k, v):
    """In any query, of a random unit combination of each output; a typical length."""
    q = q.clone().requires_grad_()
    out = attention(feature_map(q), feature_map(k), v)
    combination = F.normalize(normal(*out.shape, seed=99), dim=-1)
    (gradient,) = torch.autograd.grad(out, q, combination)
    return gradient.norm(dim=-1).max().item(), out.norm(dim=-1).median().item()


q, k, v = normal(3, 1, 4, 64, 16)
factors = torch.logspace(-5, 0, 26, dtype=torch.float64)
lines = {}
for name, attention in ("divided", divided), ("normed", norm_attention):
    lines[name] = [
        largest_gradient(attention, torch.relu, c * q, c * k, v) for c in factors
    ]

# %% scales_figure
figure, axes = plt.subplots(figsize=(5.0, 3.6))
for (name, found), style in zip(lines.items(), ("-", "--"), strict=True):
    axes.loglog(factors, [g for g, _ in found], style, label=f"{name}, gradient")
axes.loglog(factors, [size for _, size in lines["normed"]], ":", label="normed, output")
axes.set(xlabel="factor $c$ before queries and keys", ylabel="length")
axes.legend()

# %% scales_hold tags=["hidden"]
peaks, relative, longer = [], {"divided": [], "normed": []}, []
for seed in range(5):
    q, k, v = normal(3, 1, 4, 64, 16, seed=seed)
    by_c = {
        (name, c): largest_gradient(attention, torch.relu, c * q, c * k, v)
        for name, attention in (("divided", divided), ("normed", norm_attention))
        for c in (1, 0.1, 1e-4, 1e-5)
    }
    # 1/c for both, until eps takes over; then the outputs vanish as well.
    assert abs(by_c["divided", 1e-5][0] / by_c["divided", 1][0] / 1e5 - 1) < 1e-6
    assert 9 < by_c["normed", 0.1][0] / by_c["normed", 1][0] < 11
    assert abs(by_c["normed", 1e-5][0] / by_c["normed", 1e-4][0] / 0.1 - 1) < 0.1
    assert by_c["normed", 1e-4][1] < 0.01
    assert abs(by_c["normed", 1][1] / 4 - 1) < 0.25
    # The longer gradient is that of a longer output; by its length, neither is ahead.
    longer.append(by_c["normed", 1][1] / by_c["divided", 1][1])
    assert by_c["normed", 1][0] > by_c["divided", 1][0]
    for name in relative:
        relative[name].append(by_c[name, 1][0] / by_c[name, 1][1])
    peaks += [
        largest_gradient(norm_attention, torch.relu, c * q, c * k, v)[0]
        for c in factors
    ]
ratios = [n / d for n, d in zip(relative["normed"], relative["divided"], strict=True)]
assert min(ratios) < 1 < max(ratios)
least, most = min(ratios), max(ratios)
least_longer, most_longer = min(longer), max(longer)
assert least_longer > 2.5
peak = max(g for g, _ in lines["normed"])
assert all(p < 1500 for p in peaks)

# %% per_head
q, k, v = normal(3, 2, 4, 300, 16)
mapped = elu_plus_one(q), elu_plus_one(k), v
theirs = srms_norm(linear_attention(q, k, v), eps=0)
each_head = [x.flatten(0, 1).unsqueeze(1) for x in mapped]  # heads as a batch
ours = norm_attention(*each_head, eps=0).view_as(v)
print("a norm for each head, with and without denominator:")
print(apart((ours - theirs).abs().max()))

# %% per_head_holds tags=["hidden"]
assert (ours - theirs).abs().max() < 1e-12

# %% features
maps = {
    "ELU + 1": elu_plus_one,
    "ELU": F.elu,
    "SiLU": F.silu,
    "none": lambda x: x,
}
gradients, negative = {}, {}
for name, feature_map in maps.items():
    for seed in range(5):
        q, k, v = normal(3, 1, 4, 64, 16, seed=seed)
        gradients[name, seed] = []
        for attention in divided, norm_attention:
            gradient, length = largest_gradient(attention, feature_map, q, k, v)
            gradients[name, seed].append(gradient / length)
        sums = (feature_map(q) @ feature_map(k).mT).sum(-1)
        negative[name, seed] = (sums < 0).double().mean().item()
    share = sum(negative[name, seed] for seed in range(5)) / 5
    by_sum, by_norm = (
        sorted(gradients[name, seed][i] for seed in range(5))[2] for i in (0, 1)
    )
    print(
        f"{name:>7}: {share:3.0%} of sums negative; gradient over output",
        f"divided {by_sum:8,.2g}, normed {by_norm:.2g}",
    )

# %% features_hold tags=["hidden"]
for seed in range(5):
    for name in maps:
        by_sum, by_norm = gradients[name, seed]
        assert by_norm < 2
        if name == "ELU + 1":
            assert negative[name, seed] == 0
            assert by_sum < by_norm
        else:
            assert negative[name, seed] > 0.02
            assert by_sum > 20 * by_norm
by_sum, by_norm = (
    sorted(gradients["ELU + 1", seed][i] for seed in range(5))[2] for i in (0, 1)
)
tamer = by_norm / by_sum

# %% blocks
q, k, v = normal(3, 1, 2, 200, 16)
position = torch.arange(200)
same_block = position[:, None] // 64 == position // 64  # the last block has 8
mask = same_block & (position[:, None] >= position)
theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
gap = (block_attention(q, k, v, block=64, causal=True) - theirs).abs().max()
print(f"against a mask of 200 × 200: {apart(gap)}")
seen = mask[:192].sum(-1).double()
print(f"in whole blocks, a query sees {seen.mean():.1f} keys, from {seen.min():.0f} on")

# %% blocks_hold tags=["hidden"]
assert gap < 1e-12
assert seen.mean() == 32.5

# %% reach
heads, layers = 64, 80
rate = 2 ** (-8 * torch.arange(1, heads + 1, dtype=torch.float64) / heads)
reach = {}
print("sum of the decays, of the token itself and all before, for heads 1, 32, 64")
for layer in 0, 40, 78:
    per_token = rate * (1 - layer / (layers - 1))  # -ln of the decay
    reach[layer] = -1 / torch.expm1(-per_token)
    print(f"layer {layer:2}:", *(f"{reach[layer][h - 1]:9,.1f}" for h in (1, 32, 64)))

# %% reach_holds tags=["hidden"]
assert reach[0][0] < 2 < 80 < reach[78][0]
for h in 0, 31, 63:  # up to the middle twice as far, and then 20 times
    assert reach[40][h] < 2.1 * reach[0][h] < 2.1 * reach[78][h] / 20
assert all(far[63] > 100 * far[0] for far in reach.values())
# By explicit loops, for the first head of the first layer.
decay = torch.exp(-rate[0]).item()
assert abs(sum(decay**k for k in range(200)) - reach[0][0].item()) < 1e-9
assert abs(reach[0][63] / 256.5 - 1) < 1e-3

# %% costs
n, d, block = 8192, 64, 64
costs = {
    "softmax, all keys": 2 * n * d,
    "softmax, blocks": 2 * block * d,
    "normed, all positions": 2 * d * d,
    "normed, causal, chunks": 2 * 64 * d + 2 * d * d,
}
for form, multiplied in costs.items():
    print(f"{form:>22} {multiplied:9,}")

# %% costs_hold tags=["hidden"]
from torch.utils.flop_counter import FlopCounterMode

small = normal(3, 1, 1, 512, d, dtype=torch.float32)
calls = {
    "softmax, blocks": lambda: block_attention(*small, block=block),
    "normed, all positions": lambda: norm_attention(*small),
    "normed, causal, chunks": lambda: norm_attention(*small, causal=True),
}
for form, call in calls.items():
    with FlopCounterMode(display=False) as counter:
        call()
    assert counter.get_total_flops() == 2 * 512 * costs[form]

# %% heads
q, k, v = normal(3, 1, 8, 500, 16)
q, k = F.silu(q), F.silu(k)
merged = norm_attention(q, k, v)
grouped = torch.cat(
    [norm_attention(*(x[:, h : h + 4] for x in (q, k, v))) for h in (0, 4)], dim=1
)
single = torch.cat(
    [norm_attention(*(x[:, h : h + 1] for x in (q, k, v))) for h in range(8)], dim=1
)
print(f"groups of 4 heads: {error(grouped, merged):.0%} off")
print(f"each head alone:   {error(single, merged):.0%} off")

# %% heads_hold tags=["hidden"]
assert 0.02 < error(grouped, merged) < error(single, merged) < 0.5
lengths = merged[0].norm(dim=-1)
assert lengths.max(0).values.gt(1.3 * lengths.min(0).values).double().mean() > 0.5

# %% reading
x = normal(4, 512)
misread = F.normalize(x, dim=-1) * 512**-0.5
for name, y in ("x / (|x| / √d)", srms_norm(x)), ("(x / |x|) / √d", misread):
    print(f"{name}: root mean square {y.square().mean().sqrt():.4f}")

# %% reading_holds tags=["hidden"]
assert torch.allclose(512 * misread, srms_norm(x), atol=1e-5)

# %% future
q, k, v = normal(3, 1, 8, 500, 16)
q, k = F.silu(q), F.silu(k)
other_v = v.clone()
other_v[:, :, -1] += 10  # the last value alone


def keys_first(v):
    return norm_attention(q, k, v)


def masked(v):
    return norm_attention(q, k, v, causal=True)


for attention in keys_first, masked:
    changed = error(attention(other_v)[:, :, :-1], attention(v)[:, :, :-1])
    print(f"{attention.__name__}: outputs before it change by {apart(changed)}")

# %% future_holds tags=["hidden"]
leak, kept = (
    error(attention(other_v)[:, :, :-1], attention(v)[:, :, :-1])
    for attention in (keys_first, masked)
)
assert leak > 0.05
assert kept == 0

# %% halves
q, k, v = normal(3, 1, 8, 1024, 64, dtype=torch.float16)
q, k, v = elu_plus_one(q), elu_plus_one(k), 1 + v  # values with a mean of 1
sums = (q @ k.mT).tril() @ v
theirs = F.rms_norm(sums.transpose(1, 2).flatten(2), (8 * 64,), eps=1e-6)
ours = norm_attention(q, k, v, causal=True)
for name, y in ("sums in float16", theirs), ("norm_attention", ours):
    broken = (~y.isfinite()).double().mean().item()
    print(f"{name}: {broken:.0%} not finite")

# %% halves_hold tags=["hidden"]
assert (~theirs.isfinite()).double().mean() > 0.05
assert ours.isfinite().all()
exact = norm_attention(q.double(), k.double(), v.double(), causal=True)
assert error(ours.double(), exact) < 1e-3
