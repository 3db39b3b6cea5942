# %% quick_start
import torch
from torch import nn

counts = torch.tensor([970, 20, 10])  # of each class in the training set
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, bias=False),  # batch norm has a bias of its own
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(16, len(counts)),
)
with torch.no_grad():
    # start at the logarithm of the shares; no count may be 0
    model[-1].bias.copy_((counts / counts.sum()).log())

# %% quick_start_holds tags=["hidden"]
from zhixing.foundations.bias import prior_bias

assert torch.allclose(model[-1].bias, prior_bias(counts))
assert torch.allclose(model[-1].bias.softmax(0), counts / 1000)

# %% setup
import itertools
import math

import torch.nn.functional as F
from sklearn.datasets import load_digits

from zhixing.foundations.bias import fold_batch_norm, idle_biases, prior_bias

torch.set_num_threads(1)  # tensors as small as here gain nothing from a second one


# %% homogeneous
def network(bias):
    torch.manual_seed(10)
    hidden, head = nn.Linear(2, 16, bias=bias), nn.Linear(16, 1, bias=bias)
    return nn.Sequential(hidden, nn.ReLU(), head).double()


x = torch.tensor([1.0, 2.0], dtype=torch.float64)
for bias in False, True:
    f = network(bias)
    ratios = [(f(a * x) / f(x)).item() for a in (0, 0.5, 2, 3)]
    print(f"bias={bias!s:5}", *(f"{ratio:6.2f}" for ratio in ratios))

# %% homogeneous_holds tags=["hidden"]
f, g = network(False), network(True)
for a in (0.0, 0.5, 2.0, 3.0, 100.0):
    assert torch.allclose(f(a * x), a * f(x))
    assert a == 1 or (g(a * x) - a * g(x)).abs() > 0.01

# %% picture
import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(5.2, 2.7), layout="constrained")
axis = torch.tensor([-0.4, 1.5])
left.plot(axis, 1.5 - axis, color="C0", label="with bias")
left.plot(axis, -axis, "--", color="C1", label="without bias")
left.fill_between(axis, 1.5 - axis, 2, color="C0", alpha=0.15, lw=0)
for first, second in (0, 0), (0, 1), (1, 0), (1, 1):
    filled = "#24292f" if first and second else "none"
    left.plot(first, second, "o", ms=8, color="#24292f", mfc=filled)
left.set(xlabel="$x_1$", ylabel="$x_2$", xlim=(-0.4, 1.5), ylim=(-0.4, 1.5))
left.set(xticks=[0, 1], yticks=[0, 1], title="AND", aspect="equal")
ray = torch.linspace(-3, 3, 301, dtype=torch.float64)[:, None]
with torch.no_grad():
    right.plot(ray, network(True)(ray * x), color="C0", label="with bias")
    right.plot(ray, network(False)(ray * x), "--", color="C1", label="without bias")
right.plot(0, 0, "o", color="C1", ms=5)
right.set(xlabel="$a$", ylabel="$f(ax)$", title="along a line through 0")
right.legend()

# %% table
followers = {
    "batch norm, training": nn.BatchNorm2d(12),
    "batch norm, frozen": nn.BatchNorm2d(12).eval(),
    "instance norm": nn.InstanceNorm2d(12),
    "group norm, 3 groups": nn.GroupNorm(3, 12),
    "layer norm": nn.LayerNorm([12, 6, 6]),
    "RMSNorm": nn.RMSNorm([12, 6, 6]),
    "softmax over channels": nn.Softmax(dim=1),
}
torch.manual_seed(0)
images = torch.rand(8, 4, 8, 8)
idle = {}
for name, follower in followers.items():
    layers = nn.Sequential(nn.Conv2d(4, 12, 3), follower)
    idle[name] = idle_biases(layers, images)["0.bias"]
    print(f"{name:21} {idle[name]:2} of 12 idle")
attention, tokens = nn.MultiheadAttention(12, 3, batch_first=True), torch.rand(4, 7, 12)
projections = idle_biases(attention, tokens, tokens, tokens)["in_proj_bias"]
print(f"attention's q, k, v   {projections:2} of 36 idle")

# %% table_holds tags=["hidden"]
assert list(idle.values()) == [12, 0, 12, 3, 1, 0, 1]
assert projections == 12

# %% drift
pixels, digit = load_digits(return_X_y=True)  # 1797 pictures of 8 × 8 pixels
pixels, digit = torch.tensor(pixels / 16), torch.tensor(digit)


def drift(make, dtype, seed, depth=1, steps=200):
    """Train; return how far a bias before batch norm has moved after each step."""
    torch.manual_seed(seed)
    layers, width = [], 64
    for _ in range(depth):
        layers += [nn.Linear(width, 32), nn.BatchNorm1d(32), nn.ReLU()]
        width = 32
    model = nn.Sequential(*layers, nn.Linear(32, 10)).to(dtype)
    optimizer = make(model.parameters())
    bias, moved = model[0].bias, []
    start = bias.detach().clone()
    for _ in range(steps):
        rows = torch.randint(len(digit), (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(pixels[rows].to(dtype)), digit[rows]).backward()
        optimizer.step()
        moved.append((bias - start).abs().max().item())
    return moved


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-3)


runs = {
    "Adam, float32": (adam, torch.float32),
    "SGD, float32": (sgd, torch.float32),
    "Adam, float64": (adam, torch.float64),
}
moved = {name: [drift(*run, seed) for seed in range(2)] for name, run in runs.items()}

# %% drift_drawn tags=["hidden"]
figure, axes = plt.subplots(figsize=(5.2, 2.9), layout="constrained")
for color, (name, paths) in zip(("C1", "C0", "C2"), moved.items(), strict=True):
    for i, path in enumerate(paths):
        seen = [value or math.nan for value in path]  # 0 has no place on this axis
        axes.plot(range(1, 201), seen, color=color, label=name if i == 0 else None)
axes.set(yscale="log", ylim=(1e-13, 1), xlabel="step")
axes.set_ylabel(r"largest $|b - b_0|$")
axes.legend(loc="center right", bbox_to_anchor=(1, 0.66))

# %% drift_holds tags=["hidden"]
ends = {name: [path[-1] for path in paths] for name, paths in moved.items()}
assert max(ends["SGD, float32"]) < 1e-5
assert min(ends["Adam, float32"]) > 5e-3
assert max(ends["Adam, float32"]) < 9e-2
assert max(ends["Adam, float64"]) < 1e-8
assert drift(adam, torch.float32, 0, depth=3, steps=40)[-1] > 2e-3
assert drift(sgd, torch.float32, 0, depth=3, steps=40)[-1] < 1e-5

# %% folding
torch.manual_seed(0)
conv, norm = nn.Conv2d(4, 12, 3), nn.BatchNorm2d(12)
state = norm.weight, norm.bias, norm.running_mean, norm.running_var
with torch.no_grad():  # biases, scales and statistics at random, as if trained
    for tensor in conv.bias, *state:
        tensor.uniform_(0.2, 2)
norm.eval()
folded = fold_batch_norm(conv, norm)
gap = (folded(images) - norm(conv(images))).abs().max().item()
print("equal outputs:", gap < 1e-5, "| idle:", idle_biases(folded, images)["bias"])

# %% folding_holds tags=["hidden"]
assert gap < 1e-5
assert idle_biases(folded, images) == {"bias": 0}

# %% wrong_folds
scale = norm.weight / (norm.running_var + norm.eps).sqrt()
plain = nn.Conv2d(4, 12, 3, bias=False)
wrong = {
    "bias not scaled": (conv, norm.bias + conv.bias - scale * norm.running_mean),
    "no bias, so μ and β lost": (plain, torch.zeros(12)),
}
mistakes = {}
for name, (layer, bias) in wrong.items():
    error = (bias - fold_batch_norm(layer, norm).bias).detach().square().mean().sqrt()
    mistakes[name] = error.item() / norm(layer(images)).std().item()
    print(f"{name}: off by {mistakes[name]:.1f} standard deviations of the output")

# %% wrong_folds_hold tags=["hidden"]
assert min(mistakes.values()) > 0.05


# %% rare
def rare(count, generator):
    """One percent of the samples are positive, and lie further along two axes."""
    y = (torch.rand(3, count, generator=generator) < 0.01).float()
    x = torch.randn(3, count, 20, generator=generator)
    x[..., 0] += 2.5 * y
    x[..., 1] += 1.25 * y
    return x.repeat(2, 1, 1), y.repeat(2, 1)


def losses(make, lr, depth, steps=(0, 30, 300)):
    """Train three networks from 0 and from the prior, all six at once.

    Returns their losses on new samples: two starts, three networks, after some steps.
    """
    generator = torch.Generator().manual_seed(0)
    theta, sizes = [], [20, *depth * [32], 1]
    for n, m in itertools.pairwise(sizes):
        for rows in n, 1:  # weights, bias
            drawn = torch.rand(3, rows, m, generator=generator) * 2 - 1
            theta.append((drawn.repeat(2, 1, 1) / n**0.5).requires_grad_())
    with torch.no_grad():
        theta[-1][:3] = 0
        theta[-1][3:] = math.log(0.01 / 0.99)

    def loss(x, y):
        for i in range(0, len(theta), 2):
            x = torch.baddbmm(theta[i + 1], x.relu() if i else x, theta[i])
        loss = F.binary_cross_entropy_with_logits(x[..., 0], y, reduction="none")
        return loss.mean(1)

    optimizer, held_out, found = make(theta, lr=lr), rare(4000, generator), []
    for step in range(steps[-1] + 1):
        if step in steps:
            with torch.no_grad():
                found.append(loss(*held_out))
        optimizer.zero_grad()
        loss(*rare(128, generator)).sum().backward()
        optimizer.step()
    return torch.stack(found, 1).view(2, 3, len(steps))


# %% starts
optimizers = {"SGD": (torch.optim.SGD, 0.3), "Adam": (torch.optim.Adam, 3e-3)}
curves = {}
print("mean loss after 0, 30 and 300 steps")
for name, (make, lr) in optimizers.items():
    for depth in 1, 3:
        curves[name, depth] = losses(make, lr, depth)
        for start, curve in zip(("0", "prior"), curves[name, depth], strict=True):
            means = "  ".join(f"{loss:.3f}" for loss in curve.mean(0))
            layers = f"{depth} hidden layer{'s' if depth > 1 else ''}"
            print(f"{name:4}  {layers:15}  from {start:5}  {means}")

# %% starts_hold tags=["hidden"]
entropy = -(0.01 * math.log(0.01) + 0.99 * math.log(0.99))
uniform = math.log(2)
for zero, prior in curves.values():
    assert (prior[:, 0] < 0.1).all()
    assert (zero[:, 0] > 0.5).all()
zero, prior = curves["Adam", 1]
assert (prior[:, 2] < 0.8 * zero[:, 2]).all()
zero, prior = curves["Adam", 3].mean(1)[..., 2]
assert prior < zero
zero, prior = curves["SGD", 1].mean(1)[..., 2]
assert prior < zero
# SGD, three layers: still at the first loss, and behind
zero, prior = curves["SGD", 3]
assert (prior[:, 2] > 1.15 * zero[:, 2]).all()
assert (prior[:, 2] > 0.95 * prior[:, 0]).all()
# … and level after twice as many steps, each longer
zero, prior = losses(torch.optim.SGD, 1.0, 3, steps=(600,)).mean(1)[:, 0]
assert 0.8 < prior / zero < 1.2

# %% two_biases
lstm = nn.LSTM(8, 16)  # gates in the order input, forget, cell, output
with torch.no_grad():
    for name, parameter in lstm.named_parameters():
        if "bias" in name:
            parameter[16:32] = 1
added = lstm.bias_ih_l0[16:32] + lstm.bias_hh_l0[16:32]
for what, bias in ("0", 0.0), ("1", 1.0), ("1 in both", added[0].item()):
    gate = torch.tensor(bias, dtype=torch.float64).sigmoid()
    print(
        f"{what:9}: gate {gate:.2f}, after 20 steps {gate**20:.0e} of the cell is left"
    )
with torch.no_grad():  # how to start at 1
    lstm.bias_ih_l0[16:32] = 1
    lstm.bias_hh_l0[16:32] = 0

# %% two_biases_hold tags=["hidden"]
assert (added == 2).all()
assert (lstm.bias_ih_l0[16:32] + lstm.bias_hh_l0[16:32] == 1).all()


# %% rotary
def turned(x):
    """Turn each pair of channels by as many radians as the token's position."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None]
    return torch.view_as_real(
        pairs * torch.polar(torch.ones_like(angle), angle)
    ).flatten(-2)


class Head(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(12, 12) for _ in range(3))
        self.change = change  # of queries and keys

    def forward(self, x):
        q, k = self.change(self.q(x)), self.change(self.k(x))
        return F.scaled_dot_product_attention(q, k, self.v(x))


def unit(x):
    return F.normalize(x, dim=-1)


heads = {"plain": nn.Identity(), "rotary": turned, "normalised": unit}
idle_keys = {
    name: idle_biases(Head(change), tokens)["k.bias"] for name, change in heads.items()
}
with_zero = nn.MultiheadAttention(12, 3, add_zero_attn=True, batch_first=True)
idle_keys["a zero key added"] = idle_biases(with_zero, tokens, tokens, tokens)[
    "in_proj_bias"
]
for name, number in idle_keys.items():
    print(f"{name:16} {number:2} of 12 idle")

# %% rotary_holds tags=["hidden"]
assert list(idle_keys.values()) == [12, 0, 0, 0]

# %% balanced
for name, seen in ("as they are", [990.0, 10.0]), ("balanced", [500.0, 500.0]):
    share = torch.tensor(seen) / 1000
    for start in [990.0, 10.0], [500.0, 500.0]:
        loss = F.cross_entropy(prior_bias(torch.tensor(start))[None], share[None])
        print(f"classes {name}, start at {start[1] / 1000:.2f}: loss {loss:.2f}")

# %% balanced_holds tags=["hidden"]
doubly = F.cross_entropy(
    prior_bias(torch.tensor([990.0, 10.0]))[None], share[None]
).item()
assert doubly > 3 * uniform

# %% bert tags=["hidden"]
hidden, layers_of_bert = 768, 12
# q, k, v and output; two norms; the wide layer and the one after it
bert_biases = layers_of_bert * (4 + 2 + 4 + 1) * hidden + 2 * hidden
bert_share = bert_biases / 109_482_240
assert bert_biases == 102_912
# idle_biases keeps the gradients of all biases in float64; the largest bias has 3,072
bert_gigabytes = (4 * hidden + 8) * bert_biases * 8 / 1e9
torch.manual_seed(0)
spread = nn.Linear(100, 5000).bias
assert 0.098 < spread.abs().max() <= 0.1
untouched = nn.Linear(100, 10)
before = untouched.bias.detach().clone()
nn.init.kaiming_normal_(untouched.weight)
assert torch.equal(untouched.bias, before)
