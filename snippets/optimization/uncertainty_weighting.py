# %% quick_start
import torch

from zhixing.optimization.uncertainty_weighting import UncertaintyWeights, log_of_losses

network = torch.nn.Linear(8, 2)  # stands for yours
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
losses = torch.tensor([0.001, 20.0])  # in training: torch.stack([one_loss, another])

total = log_of_losses(losses)
print(f"without parameters: {total:.2f}")

weights = UncertaintyWeights(2)  # an s = log σ² for each task
with torch.no_grad():  # once, before the first step
    weights.log_variances.copy_(losses.log())
group = {"params": weights.parameters(), "lr": 0.01, "weight_decay": 0.0}
optimizer.add_param_group(group)
total = weights(losses)
print(f"with parameters:    {total:.2f}")

# %% quick_start_holds tags=["hidden"]
assert abs(total.item() - (1 + log_of_losses(losses).item())) < 1e-4
assert total < 0
assert [g["weight_decay"] for g in optimizer.param_groups][1:] == [0.0]
total.backward()
assert (weights.log_variances.grad.abs() < 1e-6).all()  # it starts at the minimum

# %% setup
import math

import torch.nn.functional as F

from zhixing.optimization.uncertainty_weighting import (
    log_of_losses,
    tempered_cross_entropy,
    uncertainty_loss,
)

torch.set_default_dtype(torch.float64)  # so that other processors print the same

# %% valleys
import matplotlib.pyplot as plt

s = torch.linspace(-8, 8, 201)
figure, axes = plt.subplots(figsize=(5.2, 3.4))
for L, name in (0.01, "L = 1/100"), (1.0, "L = 1"), (100.0, "L = 100"):
    axes.plot(s, 0.5 * (torch.exp(-s) * L + s), label=name)
    axes.plot(math.log(L), 0.5 + 0.5 * math.log(L), "o", color="gray")
axes.plot(s, 0.5 + 0.5 * s, ":", color="gray", label="minima")
axes.set(xlabel="s = log σ²", ylabel="term of the total", ylim=(-4, 6))
axes.legend()

# %% valleys_hold tags=["hidden"]
from scipy.optimize import minimize_scalar

for L in (0.01, 1.0, 100.0):
    found = minimize_scalar(lambda s, loss=L: 0.5 * (math.exp(-s) * loss + s), (-1, 1))
    assert math.isclose(found.x, math.log(L), abs_tol=1e-5)
    assert math.isclose(found.fun, 0.5 + 0.5 * math.log(L), abs_tol=1e-9)


# %% temperature
def best_temperature(logits, target):
    s = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([s], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = tempered_cross_entropy(logits, target, s)
        loss.backward()
        return loss

    optimizer.step(closure)
    return s.exp().item()


generator = torch.Generator().manual_seed(0)
logits = 2 * torch.randn(4000, 5, generator=generator)
target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
for factor in 0.1, 1.0, 10.0:
    exact = best_temperature(factor * logits, target)
    approximate = 2 * F.cross_entropy(factor * logits, target)
    print(f"logits × {factor:4}: σ² = {exact:4.1f} (exact), {approximate:4.1f} (2L)")


# %% temperature_holds tags=["hidden"]
for seed in range(3):
    generator = torch.Generator().manual_seed(seed)
    drawn = 2 * torch.randn(4000, 5, generator=generator)
    labels = torch.multinomial(drawn.softmax(1), 1, generator=generator)[:, 0]
    once = best_temperature(drawn, labels)
    assert abs(once - 1) < 0.1
    doubled = []
    for factor in 0.1, 1.0, 10.0:
        assert math.isclose(
            best_temperature(factor * drawn, labels), factor * once, rel_tol=1e-3
        )
        doubled.append(2 * F.cross_entropy(factor * drawn, labels).item())
    assert (
        doubled[0] > 1.3 * doubled[1] < doubled[2]
    )  # neither proportional nor monotone

# %% approximation
s = torch.linspace(-1.5, 5, 131)
figure, axes = plt.subplots(figsize=(5.2, 3.4))
for size, name in (1.0, "entropy 1.3"), (4.0, "entropy 0.5"), (16.0, "entropy 0.1"):
    f = size * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
    log_p = f.log_softmax(1)
    second = [(log_p * torch.exp(-x)).logsumexp(1).mean() for x in s]
    axes.plot(s, second, label=name)
axes.plot(s, s / 2, ":", color="gray", label="the paper's log σ")
axes.axhline(math.log(5), color="gray", linestyle="--", label="log 5")
axes.set(xlabel="s = log σ²", ylabel="second term", ylim=(-1.5, 2.5))
axes.legend()

# %% approximation_holds tags=["hidden"]
for size, wanted in (1.0, 1.3), (4.0, 0.5), (16.0, 0.1):
    f = size * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
    entropy = torch.distributions.Categorical(logits=f).entropy().mean().item()
    assert abs(entropy - wanted) < 0.04


# %% tasks
def truth(x):
    a, b, c, d = x.unbind(-1)
    return torch.stack([torch.sin(2 * a) * b, torch.cos(2 * c) + a * d], -1)


noise = torch.tensor([0.1, 1.0])  # a quiet and a noisy task
factors = torch.tensor([[1.0, 1.0]] * 3 + [[1.0, 1024.0]] * 3)  # six runs: three seeds


def train(combine, informed=False, steps=800, width=24):
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]

    def draw(*shape):  # the same for both factors
        drawn = [torch.randn(shape, generator=generator) for generator in generators]
        return torch.stack(drawn + drawn)

    sizes = (4, width), (width, width), (width, 2)
    weights = [draw(m, n) / math.sqrt(m) for m, n in sizes]
    biases = [torch.zeros(6, 1, n) for _, n in sizes]
    s = torch.zeros(6, 2)
    parameters = [x.requires_grad_() for x in (*weights, *biases, s)]
    optimizer = torch.optim.Adam(parameters, lr=0.02)

    def predict(x):
        for weight, bias in zip(weights[:2], biases[:2], strict=True):
            x = torch.tanh(x @ weight + bias)
        return x @ weights[2] + biases[2]

    unseen, path = draw(500, 4), []
    for step in range(steps):
        x = draw(64, 4)
        y = truth(x) + noise * draw(64, 2)
        losses = factors * (predict(x) - y).square().mean(1)
        if informed and step == 0:
            s.data = losses.detach().log()
        optimizer.zero_grad()
        combine(losses.flatten(), s.flatten()).backward()  # the runs do not interact
        optimizer.step()
        if step % 50 == 49:
            with torch.no_grad():
                errors = (predict(unseen) - truth(unseen)).square().mean(1)
            path.append((errors, s.detach().clone()))
    return path


# %% run
paths = {
    "equal weights": train(lambda losses, s: losses.sum()),
    "learned, s from 0": train(uncertainty_loss),
    "learned, s from log L": train(uncertainty_loss, informed=True),
    "log form": train(lambda losses, s: log_of_losses(losses)),
}
print("mean square error, three seeds     quiet task          noisy task")
for name, path in paths.items():
    for factor, errors in zip((1, 1024), path[-1][0].split(3), strict=True):
        quiet, noisy = ("  ".join(f"{x:.2f}" for x in column) for column in errors.T)
        print(f"{name:22} × {factor:<4}   {quiet}    {noisy}")

# %% run_holds tags=["hidden"]
quiet = {name: path[-1][0][:, 0].view(2, 3) for name, path in paths.items()}
noisy = {name: path[-1][0][:, 1].view(2, 3) for name, path in paths.items()}
for name, ratio in ("equal weights", 5), ("learned, s from 0", 2):
    assert (quiet[name][1] > ratio * quiet[name][0]).all(), name
for errors in quiet, noisy:
    torch.testing.assert_close(*errors["log form"], rtol=1e-9, atol=0)
    torch.testing.assert_close(*errors["learned, s from log L"], rtol=1e-3, atol=0)
once = {name: errors[0].mean() for name, errors in noisy.items()}
assert min(once, key=once.get) == "equal weights"
assert 1.2 * once.pop("equal weights") < min(once.values())
error_once, error_scaled = quiet["equal weights"].mean(1).tolist()
assert abs(error_scaled - 0.5) < 0.1  # of the output 0: the mean of sin² 2a · b² is ½
climbed = paths["learned, s from 0"][-1][1][3:, 1]
wanted = math.log(1024)
assert (climbed < wanted - 1).all()
reached = climbed.mean().item()
least_steps = wanted / 0.02


# %% memory_holds tags=["hidden"]
def after(steps, beta2):
    s = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([s], lr=0.02, betas=(0.9, beta2))
    for _ in range(steps):
        optimizer.zero_grad()
        uncertainty_loss(torch.tensor([1024.0]), s).backward()
        optimizer.step()
    return s.item()


long_memory, short_memory = (after(round(least_steps), beta2) for beta2 in (0.999, 0.9))
assert long_memory < 4
assert short_memory > 6


def pull_after_a_fall(lr):  # of the loss by e⁴, from s = log L
    s = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([s], lr=lr)
    for step in range(1000):
        losses = torch.tensor([math.exp(-min(step / 200, 4))])
        optimizer.zero_grad()
        uncertainty_loss(losses, s).backward()
        optimizer.step()
    return (torch.exp(-s) * losses).item()


assert pull_after_a_fall(1e-4) < 0.05
assert abs(pull_after_a_fall(0.01) - 1) < 0.1

# %% paths_drawn
figure, (left, right) = plt.subplots(1, 2, figsize=(5.2, 4), layout="constrained")
step = torch.arange(50, 801, 50)
for i, (name, path) in enumerate(paths.items()):
    style = {"color": f"C{i}", "linestyle": ("-", "--", "-.", ":")[i]}
    left.plot(step, [errors[3:, 0].mean() for errors, _ in path], **style, label=name)
    if "learned" in name:
        right.plot(step, [s[3:, 1].mean() for _, s in path], **style)
right.axhline(math.log(1024), color="gray", linestyle=":", label="log 1024")
left.set(xlabel="step", ylabel="error of the quiet task", yscale="log", ylim=(0.01, 1))
right.set(xlabel="step", ylabel="s of the noisy task", ylim=(0, 9))
right.legend(loc="lower right")
figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)

# %% positive
s = torch.linspace(-12, 12, 240_001)
L = torch.tensor([0.01, 1.0, 100.0])
penalties = {
    "s": (s, s),
    "s >= 0": (s.clamp(min=0), s.clamp(min=0)),
    "|s|": (s.abs(), s.abs()),
    "2 log(1 + σ²)": (s, 2 * torch.log1p(s.exp())),
}
print("penalty          pull of a loss of 0.01, 1 and 100")
for name, (used, penalty) in penalties.items():
    total = torch.exp(-used)[:, None] * L + penalty[:, None]
    pull = torch.exp(-used[total.argmin(0)]) * L
    print(f"{name:15}", *(f"{x:6.2f}" for x in pull))

# %% positive_holds tags=["hidden"]
u = (L + (L * L + 8 * L).sqrt()) / 4
torch.testing.assert_close(pull, L / u, rtol=1e-3, atol=0)


# %% perfect
def distances(floor, steps=1000, lr=0.01):
    theta = 1.0
    for _ in range(steps):
        gradient = theta / (theta * theta + floor)  # of ½ log(θ² + floor)
        theta -= lr * gradient
        yield abs(theta)


for floor in 0.0, 0.0001, 0.01:
    farthest = max(list(distances(floor))[500:])
    print(f"floor {floor:6}: up to {farthest:6.3f} from the minimum, after 500 steps")

# %% perfect_holds tags=["hidden"]
assert farthest < 1e-6
for lr in 0.003, 0.01, 0.03:
    assert max(list(distances(0.0, lr=lr))[500:]) > 0.1
    assert max(list(distances(0.01 * lr, lr=lr))[500:]) > 0.1
    assert max(list(distances(1.5 * lr, lr=lr))[900:]) < 0.01
