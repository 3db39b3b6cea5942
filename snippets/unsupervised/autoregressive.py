# %% quick_start
import torch

from zhixing.unsupervised.autoregressive import MADE, log_prob, sample

model = MADE(10, [64, 64])  # untrained
x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 10)
p = log_prob(model(x), x).exp()
print(f"{len(x):,} vectors, sum of probabilities {p.sum():.5f}")

drawn = sample(model, torch.zeros(3, 10), torch.arange(10))
print(f"{len(drawn)} samples of {drawn.shape[1]} bits")

# %% quick_start_holds tags=["hidden"]
assert len(x) == 1024
assert abs(p.sum().item() - 1) < 1e-5
assert ((drawn == 0) | (drawn == 1)).all()

# %% setup
import math

import matplotlib.pyplot as plt

from zhixing.unsupervised.autoregressive import (
    fvbn_logits,
    made_masks,
    masked_mlp,
    mixture_log_prob,
    nade_logits,
    path_counts,
)

torch.set_num_threads(1)

# %% masks
degrees = [torch.arange(1, 6), torch.tensor([1, 1, 2, 2, 3, 3, 4, 4])]
first, last = made_masks(degrees)

# %% masks_drawn
counts = path_counts([first, last])
figure, axes = plt.subplots(1, 3, figsize=(7, 3.2), layout="constrained")
titles = "first mask", "last mask", "number of paths"
places, hidden = ("input", degrees[0]), ("degree of hidden unit", degrees[1])
outputs = ("output", degrees[0])
axes_of = (places, hidden), (hidden, outputs), (places, outputs)
for ax, matrix, title, ((x_label, x_ticks), (y_label, y_ticks)) in zip(
    axes, (first, last, counts), titles, axes_of, strict=True
):
    rows, columns = matrix.shape
    shown = (matrix > 0) * 0.75 + (matrix == 0) * 0.1
    ax.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    ax.set(title=title, xlabel=x_label, ylabel=y_label)
    ax.grid(False)
    ax.set_xticks(range(columns), x_ticks.tolist())
    ax.set_yticks(range(rows), y_ticks.tolist())
    for i in range(rows):
        for j in range(columns):
            colour = "#fafafa" if matrix[i, j] else "#0a0a0a"  # on both grounds
            ax.text(j, i, int(matrix[i, j]), ha="center", va="center", color=colour)

# %% masks_hold tags=["hidden"]
assert ((counts > 0) == torch.ones(5, 5).tril(-1).bool()).all()
assert counts[4].tolist() == [8, 6, 4, 2, 0]


# %% train
def fit(logits, parameters, x, *, epochs, lr, decay=0.0, batch=50):
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=decay)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            loss = -log_prob(logits(x[rows]), x[rows]).mean()
            loss.backward()
            optimizer.step()


def nats(logits, x):
    with torch.no_grad():
        return -log_prob(logits(x), x).mean().item()


# %% models
def fvbn(d):
    w, b = torch.zeros(d, d, requires_grad=True), torch.zeros(d, requires_grad=True)
    return lambda x: fvbn_logits(x, w, b), [w, b]


def nade(d, h, scale):
    w, v = scale * torch.randn(h, d), scale * torch.randn(d, h)
    parameters = [x.requires_grad_() for x in (w, torch.zeros(h), v, torch.zeros(d))]
    return lambda x: nade_logits(x, *parameters), parameters


def leaky(model):  # MADE with >= for >: each output gets the mask of the next
    *masks, last = model.masks(torch.arange(model.d))
    masks.append(torch.cat([last[1:], torch.ones_like(last[:1])]))
    weights = [layer.weight for layer in model.layers]
    biases = [layer.bias for layer in model.layers]
    return lambda x: masked_mlp(x, weights, biases, masks)


# %% bits
def xor_bits():  # the third is the XOR of the first two, the sixth of the others
    a, b, c, d = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).T
    return torch.stack([a, b, (a != b).float(), c, d, (c != d).float()], 1)


def compare(seed):
    torch.manual_seed(seed)
    x, every = xor_bits(), torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6)
    one, other = MADE(6, [128]), MADE(6, [128])
    models = {
        "FVBN": fvbn(6),
        "NADE": nade(6, 16, 0.5),
        "MADE": (one, list(one.parameters())),
        "MADE, >=": (leaky(other), list(other.parameters())),
    }
    found = {}
    for name, (logits, parameters) in models.items():
        fit(logits, parameters, x, epochs=250, lr=0.03)
        with torch.no_grad():
            found[name] = nats(logits, x), log_prob(logits(every), every).exp().sum()
    return found, models


found, models = compare(seed=0)
made = models["MADE"][0]
print("model       nats   sum over all 64 vectors")
for name, (loss, total) in found.items():
    print(f"{name:9} {loss:6.2f}   {total:.1f}")
print(f"4 log 2 = {4 * math.log(2):.2f}, 6 log 2 = {6 * math.log(2):.2f}")

# %% bits_hold tags=["hidden"]
for seed in range(2):
    loss, total = zip(*(compare(seed)[0] if seed else found).values(), strict=True)
    assert abs(loss[0] - 6 * math.log(2)) < 0.01
    assert all(4 * math.log(2) - 0.001 < x < 4 * math.log(2) + 0.1 for x in loss[1:3])
    assert loss[3] < 0.05
    assert all(abs(x.item() - 1) < 1e-3 for x in total[:3])
    assert total[3] > 30


# %% wrong_order
def valid(x):  # the share of samples that satisfy both XORs
    a, b, c, d, e, f = x.bool().T
    return ((c == a ^ b) & (f == d ^ e)).float().mean()


for name, order in ("in order", torch.arange(6)), ("reversed", torch.arange(5, -1, -1)):
    share = valid(sample(made, torch.zeros(4000, 6), order))
    print(f"{name}: {share:.0%} of the samples satisfy both XORs")

# %% wrong_order_holds tags=["hidden"]
assert valid(sample(made, torch.zeros(4000, 6), torch.arange(6))) > 0.99
assert abs(share - 0.25) < 0.05

# %% digits
from sklearn.datasets import load_digits

torch.manual_seed(0)
digits = (torch.tensor(load_digits().data) > 7).float()[torch.randperm(1797)]
train, test = digits[:1400], digits[1400:]

mean = train.mean(0).clamp(0.001, 0.999)
wide = MADE(64, [512])
models = {
    "independent": (lambda x: mean.logit().expand_as(x), None, {}),
    "FVBN": (*fvbn(64), {"lr": 0.03}),
    "NADE": (*nade(64, 64, 0.05), {"lr": 0.03}),
    "MADE": (wide, wide.parameters(), {"lr": 0.01, "decay": 0.1}),
}
for name, (logits, parameters, options) in models.items():
    if parameters:
        fit(logits, parameters, train, epochs=20, **options)
    loss = nats(logits, test)
    print(f"{name:12} {loss:5.1f} nats, {loss / 64 / math.log(2):.2f} bits per pixel")


# %% digits_hold tags=["hidden"]
def paired(worse, better):  # the mean difference of nats, and its standard error
    with torch.no_grad():
        one, other = (log_prob(models[name][0](test), test) for name in (worse, better))
    difference = other - one
    return difference.mean().item(), difference.std().item() / math.sqrt(len(test))


gain, error = paired("FVBN", "NADE")
gain_of_made, error_of_made = paired("FVBN", "MADE")
assert gain > 0.5
assert gain > 4 * error
assert gain_of_made > 0.5
assert gain_of_made > 4 * error_of_made
assert paired("independent", "FVBN")[0] > 3
assert abs(paired("NADE", "MADE")[0]) < 0.6

# %% samples_drawn
known = test[:9].clone()
known[:, 32:] = 0  # the lower half, which is to be drawn
blank, order = torch.zeros(9, 64), torch.arange(64)
rows = {
    "test digits": test[:9],
    "completed": sample(wide, known, order[32:]),
    "MADE": sample(wide, blank, order),
    "FVBN": sample(models["FVBN"][0], blank, order),
    "independent": sample(models["independent"][0], blank, order),
}
figure, axes = plt.subplots(5, 1, figsize=(7, 3.4), layout="constrained")
for ax, (name, images) in zip(axes, rows.items(), strict=True):
    framed = torch.nn.functional.pad(images.view(9, 8, 8), (1, 1, 1, 1), value=0.5)
    ax.imshow(framed.permute(1, 0, 2).flatten(1), cmap="gray", vmin=0, vmax=1)
    ax.set_ylabel(name, rotation=0, ha="right", va="center")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)

# %% samples_hold tags=["hidden"]
assert (rows["completed"][:, :32] == test[:9, :32]).all()

# %% orders
orders = torch.stack([torch.randperm(64) for _ in range(8)])
shared = MADE(64, [512])


def random_order(x):
    return shared(x, orders[torch.randint(8, ())])


fit(random_order, shared.parameters(), train, epochs=30, lr=0.01, decay=0.1)
with torch.no_grad():
    logits = torch.stack([shared(test, order) for order in orders])
    each = torch.stack([-log_prob(one, test).mean() for one in logits])
    mixture = -mixture_log_prob(shared, test, orders).mean()
    averaged = -log_prob(logits.mean(0), test).mean()
print(f"one order, mean of 8  {each.mean():.1f} nats")
print(f"mixture of 8 orders   {mixture:.1f} nats")
print(f"averaged logits       {averaged:.1f}, which are not nats")

# %% orders_hold tags=["hidden"]
assert mixture < each.mean() - 0.5
assert mixture < each.min()
assert averaged < mixture - 1
pretended = (mixture - averaged).item()

# %% average
x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
first, second = 40 * x[:, 0] - 20, 40 * x[:, 1] - 20  # each a copy of the other
one = torch.stack([torch.zeros(4), first], 1)
other = torch.stack([second, torch.zeros(4)], 1)
for name, logits in ("one order", one), ("averaged", (one + other) / 2):
    p = log_prob(logits, x).exp()
    print(f"{name}: 00 and 11 have {p[0]:.2f} and {p[3]:.2f}, sum {p.sum():.2f}")

# %% average_holds tags=["hidden"]
assert abs(p.sum() - 2) < 0.05

# %% parameters tags=["hidden"]
parameters_fvbn = 784 * 783 // 2 + 784
parameters_nade = 2 * 784 * 500 + 500 + 784
assert (parameters_fvbn, parameters_nade) == (307_720, 785_284)
coin_mnist = 784 * math.log(2)
