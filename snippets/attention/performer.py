# %% quick_start
import torch

from zhixing.attention.performer import orthogonal_gaussian, performer_attention

generator = torch.Generator().manual_seed(0)
# (batch, heads, positions, head dimension)
q, k, v = torch.randn(3, 1, 8, 1000, 64, generator=generator)
# D ln D = 266 rows, a common number; keep them in a buffer of the model.
projection = orthogonal_gaussian(266, 64, generator=generator)
out = performer_attention(q, k, v, projection, causal=True)
print(tuple(out.shape))

# %% picture
import matplotlib.pyplot as plt

INK, GREY, DRAWN, WANTED = "#24292f", "#6b7280", "#c2410c", "#0b62b8"
figure, panels = plt.subplots(2, 1, figsize=(5.0, 4.2), sharex=True, sharey=True)
at = torch.linspace(-4, 7.5, 400)
draws = torch.randn(266, generator=torch.Generator().manual_seed(0))
for axes, r in zip(panels, (1, 4), strict=True):
    for middle, style, colour, name in (
        (0, "-", DRAWN, "what is drawn"),
        (r, "--", WANTED, "where the mean comes from"),
    ):
        curve = (-((at - middle) ** 2) / 2).exp() / (2 * torch.pi) ** 0.5
        axes.fill_between(at, curve, color=colour, alpha=0.22, lw=0)
        axes.plot(at, curve, style, color=colour, lw=1.4, label=name)
    axes.plot(draws, torch.full_like(draws, -0.02), "|", color=DRAWN, ms=5, mew=0.5)
    axes.text(7.4, 0.2, f"$r = {r}$", ha="right", va="center", color=INK)
    axes.set(ylabel="density", ylim=(-0.045, 0.56))
panels[0].legend(loc="upper right", ncols=1)
panels[1].set(xlabel="$g = \\omega \\cdot z / r$")

# %% setup
import math

from zhixing.attention.performer import positive_features
from zhixing.attention.softmax_attention import softmax_attention


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def drawn(m, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return orthogonal_gaussian(m, d, generator=generator).double()


def error(found, wanted):
    """The relative error."""
    return ((found - wanted).norm() / wanted.norm()).item()


# %% reported
def library_features(x, projection, *, is_query, eps=1e-4):
    """As performer-pytorch computes them. Google's code has a smaller ε, 1e-6."""
    x = x / x.shape[-1] ** 0.25
    dots = x @ projection.mT
    largest = dots.amax(dim=-1 if is_query else (-1, -2), keepdim=True)
    return (dots - x.square().sum(-1, keepdim=True) / 2 - largest).exp() + eps


def library_attention(q, k, v, projection, eps=1e-4, causal=False):
    q = library_features(q, projection, is_query=True, eps=eps)
    k = library_features(k, projection, is_query=False, eps=eps)
    weights = q @ k.mT
    weights = weights.tril() if causal else weights
    return weights @ v / weights.sum(dim=-1, keepdim=True)


q, k, v = normal(3, 1, 1, 24, 128)
projection = drawn(1024, 128)
wanted = softmax_attention(q, k, v)


def reported(found):
    """The measure of the question: the ratio of two means of absolute values."""
    return ((found - wanted).abs().mean() / wanted.abs().mean()).item()


average = v.mean(dim=2, keepdim=True).expand_as(v)
rows = {
    "with the library's ε": library_attention(q, k, v, projection),
    "mean of all values": average,
    "without ε": performer_attention(q, k, v, projection),
}
for name, found in rows.items():
    print(f"{name:>21}: off by {reported(found):.0%}")

# %% reported_holds tags=["hidden"]
library_off, average_off, ours_off = (reported(found) for found in rows.values())
assert abs(library_off - average_off) < 0.02
assert 0.6 < average_off < 0.85
assert ours_off > 1.1
for seed in range(1, 4):
    q, k, v = normal(3, 1, 1, 24, 128, seed=seed)
    projection = drawn(1024, 128, seed)
    wanted = softmax_attention(q, k, v)
    average = v.mean(dim=2, keepdim=True).expand_as(v)
    found = library_attention(q, k, v, projection)
    assert abs(reported(found) - reported(average)) < 0.02
    assert reported(performer_attention(q, k, v, projection)) > 1.1
    # The library without ε is the same function.
    same = library_attention(q, k, v, projection, eps=0)
    assert error(same, performer_attention(q, k, v, projection)) < 1e-10
typical = math.expm1(2 * math.sqrt(128)) / 1024
assert 5e6 < typical < 8e6
typical = round(typical, -5)

# %% variances
from zhixing.attention.performer import relative_variance

print("squared length of x + y: relative variance of a weight, 266 features")
for squared in 0.25, 1, 4, 16:
    x = torch.tensor([squared**0.5], dtype=torch.float64)
    print(f"{squared:5}: {relative_variance(x, 0 * x, 266).item():11,.4f}")

# %% variances_hold tags=["hidden"]
q, k = normal(2, 4000, 64)
mean_squared = ((q + k).square().sum(-1) / 8).mean().item()
assert abs(mean_squared - 16) < 0.3
beyond = 1 - torch.special.ndtr(torch.tensor(4.0, dtype=torch.float64)).item()
one_in = 1 / beyond
assert 31_000 < one_in < 32_000
# Half of the mean comes from g > r, where no draw of 266 lies for r = 4.
assert draws.max() < 4
assert (draws > 1).sum() > 20


worst = relative_variance(torch.tensor([4.0]), torch.tensor([0.0]), 266).item()
short, longer_by_eight = (
    math.sqrt(math.log(1 + m) / (2 * math.sqrt(64))) for m in (266, 8 * 266)
)
at_most = torch.tensor([math.sqrt(2 * short**2 * math.sqrt(64))])
assert abs(relative_variance(at_most, 0 * at_most, 266).item() - 1) < 1e-3


# %% refinements
def variances(squared, *, d=16, draws=20_000):
    """Measured relative variances of a weight, times the number of features."""
    generator = torch.Generator().manual_seed(0)
    free = torch.randn(draws, d, d, generator=generator)
    shape = (draws * d, d)  # each block of d rows is orthogonal
    straight = orthogonal_gaussian(*shape, generator=generator).view(draws, d, d)
    both = torch.cat([free[:, : d // 2], -free[:, : d // 2]], dim=1)
    # Column i of the rows is ω · (x + y) for x + y along axis i, if its length is 1.
    return [
        d * (squared**0.5 * rows.double() - squared / 2).exp().mean(1).var().item()
        for rows in (free, straight, both)
    ]


print("squared length of x + y: independent, orthogonal, of both signs")
measured = {squared: variances(squared) for squared in (0.25, 1, 2)}
for squared, found in measured.items():
    print(f"{squared:5}: " + ", ".join(f"{x:.2f}" for x in found))

# %% refinements_hold tags=["hidden"]
for squared, (independent, orthogonal, both) in measured.items():
    assert abs(independent / math.expm1(squared) - 1) < 0.1
    assert abs(both / (math.expm1(squared) * (1 - math.exp(-squared))) - 1) < 0.1
    assert orthogonal < independent
    assert independent - orthogonal < 15  # at most m - 1, times m / m
kept = {s: f[2] / f[0] for s, f in measured.items()}
assert kept[0.25] < 0.3 < kept[1] < kept[2]
of_quarter, of_1, of_2 = (1 - f[1] / f[0] for f in measured.values())
assert of_quarter < 0.15 < min(of_1, of_2) < max(of_1, of_2) < 0.3


# %% scales
def errors_at(scale, *, n=256, d=64, more=1, seed=0):
    """Relative errors of the output, for q and k of this standard deviation."""
    q, k, v = normal(3, 1, 2, n, d, seed=seed)
    q, k = scale * q, scale * k
    projection = drawn(more * int(d * math.log(d)), d, seed)
    wanted = softmax_attention(q, k, v)
    return {
        "Performer": error(performer_attention(q, k, v, projection), wanted),
        "with the library's ε": error(library_attention(q, k, v, projection), wanted),
        "mean of all values": error(v.mean(2, keepdim=True).expand_as(v), wanted),
    }


scales, seeds = (0.15, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4), range(6)
of_64 = {scale: [errors_at(scale, seed=seed) for seed in seeds] for scale in scales}

# %% others
others = {
    "0.25, 8 times the features": (0.25, {"more": 8}),
    "0.7, 8 times the features": (0.7, {"more": 8}),
    "1, 8 times the features": (1.0, {"more": 8}),
    "1, D = 16": (1.0, {"d": 16}),
    "1, 1024 keys": (1.0, {"n": 1024}),
}
print("means over three seeds")
off = {}
for case, (scale, changes) in others.items():
    off[case] = [errors_at(scale, seed=seed, **changes) for seed in range(3)]
    performer, mean = (
        sum(e[name] for e in off[case]) / 3
        for name in ("Performer", "mean of all values")
    )
    print(f"{case:>26}: Performer {performer:.2g}, mean of all values {mean:.2g}")

# %% scales_figure
figure, axes = plt.subplots(figsize=(5.0, 3.6))
means = {
    name: [sum(e[name] for e in of_64[scale]) / len(seeds) for scale in scales]
    for name in of_64[1.0][0]
}
for (name, values), marker in zip(means.items(), "osv", strict=True):
    axes.plot(scales, values, marker, ls="-", label=name)


def predicted(scale, m, d=64):
    """The root of the mean of A² (e^(|x + y|²) - 1) / m over that of A² = e^(2 x·y)."""
    s = scale**2 / d**0.5  # the variance of the entries of x and of y
    # E e^(a |x|² + a |y|² + 2 b x·y) = ((1 - 2 a s)² - (2 b s)²)^(-D/2)
    with_noise, without = (
        (1 - 2 * a * s) ** 2 - (2 * b * s) ** 2 for a, b in ((1, 2), (0, 1))
    )
    return math.sqrt(((with_noise / without) ** (-d / 2) - 1) / m)


fine = torch.linspace(0.15, 0.66, 60).tolist()
axes.plot(
    fine,
    [predicted(s, 266) for s in fine],
    ":",
    color=GREY,
    label="predicted, without the division",
)
axes.set(
    xscale="log",
    yscale="log",
    xlabel="standard deviation of q and k",
    ylabel="relative error",
    ylim=(0.01, 6),
)
axes.set_xticks(scales, [str(s) for s in scales])
axes.xaxis.minorticks_off()
axes.legend(loc="lower right")


# %% scales_hold tags=["hidden"]
for scale, of_seeds in of_64.items():
    # The mean of all values: √(1 - e^(-s⁴)), for many keys.
    formula = math.sqrt(1 - math.exp(-(scale**4)))
    assert abs(means["mean of all values"][scales.index(scale)] / formula - 1) < 0.1
    for e in of_seeds:
        if scale >= 0.5:
            assert e["Performer"] > 1.2 * e["mean of all values"]
        if scale >= 1:
            assert e["Performer"] > 1.7 * e["mean of all values"]
            assert abs(e["with the library's ε"] - e["mean of all values"]) < 0.04
at_one = means["Performer"][scales.index(1.0)]
mean_at_one = means["mean of all values"][scales.index(1.0)]
ours, averages = means["Performer"], means["mean of all values"]
quarter, quarter_mean = ours[1], averages[1]
assert quarter < quarter_mean
assert ours[2] < averages[2]
assert ours[0] > averages[0]
more_quarter, more_seven, more_one = (
    sum(e["Performer"] for e in of_seeds) / 3 for of_seeds in list(off.values())[:3]
)
limits = (0.5, None), (None, 1.2), (None, 2), (None, 1.2), (None, 1.2)
for (below, above), of_seeds in zip(limits, off.values(), strict=True):
    for e in of_seeds:
        ratio = e["Performer"] / e["mean of all values"]
        assert ratio < below if below else ratio > above
# The exact output is larger at 1.4 than at 1: its weights concentrate.
q, k, v = normal(3, 1, 2, 256, 64)
lengths = [softmax_attention(s * q, s * k, v).norm().item() for s in (1.0, 1.4)]
assert lengths[1] > 1.7 * lengths[0]
# Before the division the noise is larger: the part that all keys share is still there.
for scale in (0.15, 0.25, 0.35, 0.5):
    assert predicted(scale, 266) > 1.2 * means["Performer"][scales.index(scale)]

# %% leak
q, k, v = normal(3, 1, 1, 64, 64)
projection = drawn(266, 64)
longer = k.clone()
longer[:, :, -1] *= 3  # the last key alone
moved = {}
for name, attention in (
    ("library", library_attention),
    ("ours", performer_attention),
):
    before, after = (attention(q, x, v, projection, causal=True) for x in (k, longer))
    moved[name] = (after - before)[:, :, :-1].abs().max().item()
    shown = f"{moved[name]:.2f}" if moved[name] > 1e-12 else "nothing"
    print(f"{name:>9}: earlier outputs moved by {shown}")

# %% leak_holds tags=["hidden"]
assert moved["library"] > 0.1
assert moved["ours"] < 1e-12


# %% trigonometric
def trigonometric_weights(q, k, projection):
    """e^((|x|² + |y|²) / 2) times the mean of cos(ω · (x - y))."""
    x, y = (each / each.shape[-1] ** 0.25 for each in (q, k))
    of_x, of_y = x @ projection.mT, y @ projection.mT
    product = of_x.cos() @ of_y.cos().mT + of_x.sin() @ of_y.sin().mT
    grown = [(each.square().sum(-1) / 2).exp() for each in (x, y)]
    return grown[0][..., None] * grown[1][..., None, :] * product / len(projection)


q, k, v = normal(3, 1, 8, 256, 64)
negative = {}
for scale in 0.5, 1.0:
    sums = trigonometric_weights(scale * q, scale * k, projection).sum(-1)
    negative[scale] = (sums < 0).double().mean().item()
    print(f"standard deviation {scale}: {negative[scale]:.0%} of the sums are negative")

# %% trigonometric_holds tags=["hidden"]
assert negative[0.5] == 0
assert 0.3 < negative[1.0] < 0.6

# %% signs
generator = torch.Generator().manual_seed(0)
blocks = torch.randn(4000, 8, 8, generator=generator)
plain = torch.linalg.qr(blocks).Q.mT * torch.randn_like(blocks).norm(dim=-1)[..., None]
ours = orthogonal_gaussian(4000 * 8, 8, generator=generator).view(4000, 8, 8)
for name, rows in ("plain QR", plain), ("ours", ours):
    positive = (rows[:, 0, 0] > 0).double().mean().item()
    # For x + y = (1, 0, …): the estimate over the exact weight, in the mean
    ratio = (rows[..., 0] - 0.5).exp().mean().item()
    print(f"{name:>8}: first entry positive in {positive:.0%},", end=" ")
    print(f"estimate {ratio:.1f} of the weight")

# %% signs_hold tags=["hidden"]
assert abs((ours[:, 0, 0] > 0).double().mean().item() - 0.5) < 0.03
assert abs((ours[..., 0] - 0.5).exp().mean().item() - 1) < 0.02

# %% undivided
q, k = normal(2, 1, 1, 64, 64) / 2
ones = torch.ones_like(q)
features = [positive_features(x / 64**0.25, projection) for x in (q, k)]
undivided = features[0] @ (features[1].mT @ ones)
right = performer_attention(q, k, ones, projection)
print(f"without the division: from {undivided.min():.0f} to {undivided.max():.0f}")
print(f"with it:              from {right.min():.0f} to {right.max():.0f}")

# %% undivided_holds tags=["hidden"]
assert (right - 1).abs().max() < 1e-12
assert undivided.min() > 20
# Multiply-adds of the form without a mask: 2 m (D + E + 1) a token.
from torch.utils.flop_counter import FlopCounterMode

with FlopCounterMode(display=False) as counter:
    performer_attention(q, k, ones, projection)
assert counter.get_total_flops() == 2 * 64 * 2 * 266 * (64 + 64 + 1)
# Token by token: the sums of weights must stay far above what the division adds, 1e-10.
from zhixing.attention.linear_attention import recurrent_linear_attention

holds_to, fails_from = 1.5, 2.5
for seed in range(3):
    generator = torch.Generator().manual_seed(seed)
    for scale in (0.5, 1.0, holds_to, fails_from):
        q, k, v = torch.randn(3, 1, 2, 64, 64, generator=generator)
        q, k = scale * q, scale * k
        rows = orthogonal_gaussian(266, 64, generator=generator)
        features = [positive_features(x / 64**0.25, rows) for x in (q, k)]
        stepped, _ = recurrent_linear_attention(*features, v, normalize=True)
        off_by = error(stepped, performer_attention(q, k, v, rows, causal=True))
        assert off_by < 0.01 if scale <= holds_to else off_by > 0.1
