# %% quick_start
import torch

from zhixing.foundations.smooth_surrogates import best_f1_threshold, soft_f1

torch.manual_seed(0)
prob = torch.rand(200_000) ** 4  # what a network trained with cross-entropy says,
target = torch.rand(200_000) < prob  # on held-out data, if its probabilities are right
threshold, f1 = best_f1_threshold(prob, target)
print(f"F1 at threshold 0.50: {soft_f1((prob >= 0.5).float(), target):.2f}")
print(f"F1 at threshold {threshold:.2f}: {f1:.2f}")

loss = 1 - soft_f1(prob, target)  # a loss to train on, if you must

# %% quick_start_holds tags=["hidden"]
assert abs(threshold - f1 / 2) < 0.03
assert f1 > soft_f1((prob >= 0.5).float(), target) + 0.02
held_f1, held_threshold = f1, threshold

# %% setup
import itertools

import matplotlib.pyplot as plt
import torch.nn.functional as F

from zhixing.foundations.smooth_surrogates import (
    smooth_max,
    soft_accuracy,
    soft_argmax,
)

# %% picture tags=["hidden"]
x = torch.linspace(-2, 2, 401, dtype=torch.float64)
pairs = torch.stack([x, torch.zeros_like(x)])
figure, (left, right) = plt.subplots(1, 2, figsize=(5.2, 2.7), layout="constrained")
left.plot(x, x.clamp(min=0), color="gray", linestyle="--", label="maximum")
right.plot(x, (x > 0).double(), color="gray", linestyle="--")
for k in 1, 3, 10:
    left.plot(x, smooth_max(pairs, 0, k=k), label=f"$K = {k}$")
    right.plot(x, torch.softmax(k * pairs, 0)[0])
ramp = (0.5 + 3 * x / 2).clamp(0, 1)
right.plot(x, ramp, color="black", linestyle=":", label="sparsemax, $K = 3$")
left.set(xlabel="$x$", title="of $x$ and 0")
right.set(xlabel="$x$", title="gradient")
left.legend(loc="upper left")
right.legend(loc="upper left", fontsize="small")
right.set_ylim(-0.05, 1.35)

# %% trade
x = torch.tensor([1.0, 0.9, 0.2, 0.0], dtype=torch.float64)
for k in 1, 10, 100:
    above = smooth_max(x, 0, k=k) - x.max()
    hessian = torch.autograd.functional.hessian(lambda x: smooth_max(x, 0, k=k), x)
    curvature = torch.linalg.eigvalsh(hessian)[-1]
    where = soft_argmax(x, 0, k=k)
    print(f"K = {k:3}: {above:.4f} above, ", end="")
    print(f"curvature {curvature:5.2f}, soft argmax {where:.3f}")

# %% trade_holds tags=["hidden"]
for k in 1, 10, 100:
    above = smooth_max(x, 0, k=k) - x.max()
    assert 0 < above < torch.log(torch.tensor(4.0)) / k
    level = torch.autograd.functional.hessian(
        lambda x: smooth_max(x, 0, k=k), torch.zeros(2, dtype=torch.float64)
    )
    assert abs(torch.linalg.eigvalsh(level)[-1] - k / 2) < 1e-9

# %% pulls
logits = torch.tensor([[5.0, 0.0, 0.0], [0.5, 0.0, 0.0], [-5.0, 0.0, 0.0]])
logits.requires_grad_()
target = torch.zeros(3, dtype=torch.long)  # class 0 is right
right = logits.softmax(1)[:, 0]
(soft,) = torch.autograd.grad(3 * soft_accuracy(logits, target), logits)
(ce,) = torch.autograd.grad(-F.cross_entropy(logits, target, reduction="sum"), logits)
for p, a, b in zip(right, ce[:, 0], soft[:, 0], strict=True):
    print(f"p = {p:.3f}: cross-entropy {a:.3f}, soft accuracy {b:.3f}")

# %% pulls_hold tags=["hidden"]
assert torch.allclose(soft, right[:, None] * ce)

# %% networks
runs = 5  # five sets of data, and a network for each, side by side


def network(sizes, generator):
    """Return the parameters of a network for each run, and a function for its outputs."""
    parameters = []
    for n, m in itertools.pairwise(sizes):
        weight = torch.randn(runs, n, m, generator=generator).double() / n**0.5
        parameters += [weight, torch.zeros(runs, 1, m).double()]
    for parameter in parameters:
        parameter.requires_grad_()

    def outputs(x):
        for i in range(0, len(parameters) - 2, 2):
            x = torch.tanh(x @ parameters[i] + parameters[i + 1])
        return x @ parameters[-2] + parameters[-1]

    return parameters, outputs


# %% noise
def clusters(classes, count, centres, generator):
    """Draw points around the centres of their classes, in 20 dimensions."""
    y = torch.randint(classes, (runs, count), generator=generator)
    x = centres.gather(1, y[..., None].expand(-1, -1, 20))
    return x + torch.randn(x.shape, generator=generator).double(), y


def accuracies(criterion, classes, redrawn):
    """Train on 1000 samples, a share of them with redrawn labels; test on right ones."""
    generator = torch.Generator().manual_seed(0)
    centres = 1.5 * torch.randn(runs, classes, 20, generator=generator).double()
    x, y = clusters(classes, 1000, centres, generator)
    wrong = torch.rand(runs, 1000, generator=generator) < redrawn
    noise = torch.randint(classes, (runs, 1000), generator=generator)
    y = torch.where(wrong, noise, y).flatten()
    test_x, test_y = clusters(classes, 1000, centres, generator)
    parameters, outputs = network((20, 32, classes), generator)
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    found = []
    for step in range(301):
        if step in (20, 100, 300):
            hits = outputs(test_x).detach().argmax(2) == test_y
            found.append(hits.double().mean(1))
        optimizer.zero_grad()
        (runs * criterion(outputs(x).flatten(0, 1), y)).backward()
        optimizer.step()
    return found


criteria = {
    "cross-entropy": F.cross_entropy,
    "soft accuracy": lambda logits, target: 1 - soft_accuracy(logits, target),
}
found = {}
for classes, redrawn in (10, 0.4), (50, 0.0):
    print(f"{classes} classes, {redrawn:.0%} of the labels redrawn")
    for name, criterion in criteria.items():
        found[name, classes] = accuracies(criterion, classes, redrawn)
        early, middle, late = (share.mean() for share in found[name, classes])
        print(f"  {name}: {early:.2f} after 20 steps, ", end="")
        print(f"{middle:.2f} after 100, {late:.2f} after 300")

# %% noise_holds tags=["hidden"]
for (name, classes), shares in found.items():
    print(name, classes, [f"{s.min():.3f} {s.max():.3f}" for s in shares])
