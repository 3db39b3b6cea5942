# %% training_step
import torch
from torch import nn

model = nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
inputs, targets = torch.ones(4, 2), torch.zeros(4, 1)

loss = nn.functional.mse_loss(model(inputs), targets)
optimizer.zero_grad()  # forget the gradients of the step before
loss.backward()  # write the gradient of the loss into .grad of each parameter
optimizer.step()  # change the parameters, against their gradients
print({name: tuple(weight.grad.shape) for name, weight in model.named_parameters()})

# %% trace
from zhixing.foundations.autograd import Variable, grad, topological
from zhixing.foundations.elementary import exp, largest, log, logsumexp, sin, sqrt, tanh


def leaf(values):
    return Variable(torch.tensor(values, dtype=torch.float64), requires_grad=True)


x1, x2 = leaf(2.0), leaf(5.0)
v1, v2, v3 = log(x1), x1 * x2, sin(x2)
v4 = v1 + v2
y = v4 - v3

names = ["x1", "x2", "v1 = ln x1", "v2 = x1 x2", "v3 = sin x2", "v4 = v1 + v2", "y"]
nodes = [x1, x2, v1, v2, v3, v4, y]
adjoints = grad(y, nodes, retain_graph=True)
for name, node, adjoint in zip(names, nodes, adjoints, strict=True):
    value, slope = node.value.item(), adjoint.value.item()
    print(f"{name:13} value {value:7.3f}   gradient {slope:7.3f}")

# %% trace_holds tags=["hidden"]
import math

# Baydin et al., tables 2 and 3, to the three decimals printed there.
table = [2, 5, 0.693, 10, -0.959, 10.693, 11.652], [5.5, 1.716, 1, 1, -1, 1, 1]
assert [round(node.value.item(), 3) for node in nodes] == table[0]
assert [round(adjoint.value.item(), 3) for adjoint in adjoints] == table[1]
slope1, slope2 = (adjoint.value.item() for adjoint in adjoints[:2])
assert math.isclose(slope1, 1 / 2 + 5)
assert math.isclose(slope2, 2 - math.cos(5))

# %% picture tags=["hidden"]
import matplotlib.pyplot as plt

SYMBOLS = {"log": r"$\ln$", "mul": r"$\times$", "sin": r"$\sin$", "add": "$+$"}
SYMBOLS |= {"neg": "$-$", "exp": r"$\exp$", "pow": r"$(\,\cdot\,)^2$", "": ""}


def layers(order):
    """The column of each node: right of its parents; of a leaf, left of a use."""
    column = {}
    for node in order:
        column[node] = 1 + max((column[edge.parent] for edge in node.edges), default=-1)
    for node in order:
        if not node.edges:
            users = [column[n] for n in order if node in [e.parent for e in n.edges]]
            column[node] = min(users) - 1
    return column


def draw(axes, output, labels, gradients):
    order = topological(output)
    column = layers(order)
    place = {}
    for number in range(max(column.values()) + 1):
        members = [node for node in order if column[node] == number]
        if number:  # at the height of what it was computed from
            members.sort(key=lambda n: -sum(place[e.parent][1] for e in n.edges))
        else:
            members.sort(key=lambda n: labels[n])
        for rank, node in enumerate(members):
            place[node] = (number, (len(members) - 1) / 2 - rank)
    for node in order:
        for edge in node.edges:
            (x, height), (of_x, of_height) = place[node], place[edge.parent]
            axes.annotate(
                "",
                (x - 0.31, height),
                (of_x + 0.31, of_height),
                arrowprops={"arrowstyle": "-|>", "color": "#6b7280", "lw": 1.2},
            )
        x, height = place[node]
        box = plt.Rectangle(
            (x - 0.31, height - 0.36), 0.62, 0.72, fill=False, ec="#24292f", lw=1
        )
        axes.add_patch(box)
        axes.text(x, height + 0.19, labels[node], ha="center", va="center", fontsize=11)
        for shift, number, colour in (
            (-0.03, node.value.item(), "#0b62b8"),
            (-0.23, gradients[node].value.item(), "#c2410c"),
        ):
            axes.text(
                x,
                height + shift,
                f"{number:.3f}".replace("-", "−"),
                ha="center",
                va="center",
                color=colour,
            )
    heights = [height for _, height in place.values()]
    axes.set(
        xlim=(-0.4, max(column.values()) + 0.4),
        ylim=(min(heights) - 0.45, max(heights) + 0.45),
    )
    axes.axis("off")


order = topological(y)
labels = {node: SYMBOLS[node.operation] for node in order}
labels |= {x1: "$x_1$", x2: "$x_2$", v1: r"$v_1 = \ln x_1$", v2: r"$v_2 = x_1 x_2$"}
labels |= {v3: r"$v_3 = \sin x_2$", v4: "$v_4 = v_1 + v_2$", y: "$y = v_4 - v_3$"}
figure, axes = plt.subplots(figsize=(6.4, 3.6))
draw(axes, y, labels, dict(zip(order, grad(y, order, retain_graph=True), strict=True)))
axes.plot([], [], "s", color="#0b62b8", label="value")
axes.plot([], [], "s", color="#c2410c", label="gradient of $y$")
figure.legend(loc="outside upper right", ncols=2)

# %% not_a_scalar raises="RuntimeError"
x = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
y = torch.sin(x[:2] * x[1:])
y.backward()

# %% vjp_holds tags=["hidden"]
full = torch.func.jacrev(lambda x: torch.sin(x[:2] * x[1:]))(x.detach())
u = torch.tensor([2.0, -3.0], dtype=torch.float64)
(by_gradient,) = torch.autograd.grad(y, x, u, retain_graph=True)
(by_scalar,) = torch.autograd.grad((u * y).sum(), x, retain_graph=True)
torch.testing.assert_close(by_gradient, u @ full)
torch.testing.assert_close(by_scalar, u @ full)

# %% side_by_side
generator = torch.Generator().manual_seed(0)
points = torch.randn(200, 2, generator=generator, dtype=torch.float64)
labels = (points.norm(dim=1) > 1.2).long()
start = [
    torch.randn(*shape, generator=generator, dtype=torch.float64)
    for shape in ((2, 16), (16,), (16, 2), (2,))
]
ours = [Variable(value.clone(), requires_grad=True) for value in start]
theirs = [value.clone().requires_grad_() for value in start]
optimizer = torch.optim.SGD(theirs, lr=0.5)

for number in range(201):
    w1, b1, w2, b2 = ours
    logits = tanh(Variable(points) @ w1 + b1) @ w2 + b2
    loss = (logsumexp(logits, -1) - logits[torch.arange(200), labels]).mean()
    loss.backward()

    w1, b1, w2, b2 = theirs
    logits = torch.tanh(points @ w1 + b1) @ w2 + b2
    of_torch = nn.functional.cross_entropy(logits, labels)
    optimizer.zero_grad()
    of_torch.backward()

    if number % 50 == 0:
        print(f"step {number:3}: loss {loss.value:.6f}, torch's {of_torch:.6f}")
    optimizer.step()
    for parameter in ours:
        parameter.value -= 0.5 * parameter.grad.value
        parameter.grad = None

# %% side_by_side_holds tags=["hidden"]
for mine, tensor in zip(ours, theirs, strict=True):
    torch.testing.assert_close(mine.value, tensor.detach())
gap = abs(loss.value.item() - of_torch.item())
assert gap < 1e-12
assert loss.value < 0.25

# %% leaves warns="UserWarning"
weight = torch.randn(3, 2, requires_grad=True)
scaled = torch.randn(3, 2, requires_grad=True) * 0.1
(weight + scaled).sum().backward()
print("weight: leaf", weight.is_leaf, "| gradient", weight.grad is not None)
print("scaled: leaf", scaled.is_leaf, "| gradient", scaled.grad is not None)

# %% leaves_hold tags=["hidden"]
try:
    torch.optim.SGD([scaled])
except ValueError:
    pass
else:
    raise AssertionError("an optimiser took a tensor that is not a leaf")
first_scaled = (torch.randn(3, 2) * 0.1).requires_grad_()
(first_scaled.exp()).sum().backward()
assert first_scaled.is_leaf
assert first_scaled.grad is not None
assert not (first_scaled - 0.1 * first_scaled.grad).is_leaf
with torch.no_grad():
    replaced = first_scaled - 0.1 * first_scaled.grad
assert replaced.is_leaf
assert not replaced.requires_grad

# %% accumulates
x = torch.tensor(3.0, requires_grad=True)
for _ in range(3):
    (x * x).backward()
    print("gradient", x.grad.item())

# %% freed raises="RuntimeError"
x = torch.tensor(3.0, requires_grad=True)
y = x * x
y.backward(retain_graph=True)
y.backward()
print("gradient of both passes:", x.grad.item())
y.backward()

# %% version_counter raises="RuntimeError"
x = torch.tensor([1.0, 2.0], requires_grad=True)
y = x.exp()
print("exp saved its result at version", y._version)
y.mul_(2)
print("now version", y._version)
y.sum().backward()

# %% ours_notices raises="RuntimeError"
x = leaf([1.0, 2.0])
y = exp(x)
y.value.mul_(2)
y.sum().backward()

# %% in_place_holds tags=["hidden"]
x = torch.tensor([1.0, 2.0], requires_grad=True)
y = x + 1  # neither a sum nor a multiple saves its operand
z = 3 * y
y.mul_(2)
z.sum().backward()
assert x.grad.tolist() == [3, 3]
y = x.exp()
y.detach().mul_(2)  # shares memory and counter
assert y._version == 1
try:
    x -= 0.1
except RuntimeError:
    pass
else:
    raise AssertionError("a leaf was changed in place while operations were recorded")
with torch.no_grad():
    x -= 0.1
assert x.is_leaf


# %% cube_root
class CubeRoot(torch.autograd.Function):
    """The cube root of numbers other than 0, elementwise, by Newton's method."""

    @staticmethod
    def forward(ctx, x):
        y, tolerance = x.sign() * x.abs().clamp(min=1), 4 * torch.finfo(x.dtype).eps
        while ((step := (y - x / y**2) / 3).abs() > tolerance * y.abs()).any():
            y = y - step
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g / (3 * y**2)


x = torch.tensor([-8.0, 0.5, 27.0], dtype=torch.float64, requires_grad=True)
print([round(root, 6) for root in CubeRoot.apply(x).tolist()])
print("first derivative right: ", torch.autograd.gradcheck(CubeRoot.apply, x))
print("second derivative right:", torch.autograd.gradgradcheck(CubeRoot.apply, x))


# %% wrong_slope raises="GradcheckError"
class WrongSlope(CubeRoot):
    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g / (2 * y**2)


torch.autograd.gradcheck(WrongSlope.apply, x)

# %% cube_root_holds tags=["hidden"]
for dtype in (torch.float32, torch.float64):
    wide = torch.tensor([-1e30, -1e-30, 1e-3, 1, 7, 1e30], dtype=dtype)
    expected = wide.sign() * wide.abs() ** (1 / 3)
    torch.testing.assert_close(CubeRoot.apply(wide), expected)
root = CubeRoot.apply(x)
torch.testing.assert_close(root.detach() ** 3, x.detach())
torch.testing.assert_close(
    torch.autograd.grad(root.sum(), x)[0], x.detach().abs() ** (-2 / 3) / 3
)

# %% gradient_penalty
critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1)).double()
generator = torch.Generator().manual_seed(0)
with torch.no_grad():
    for parameter in critic.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
samples = torch.randn(64, 2, generator=generator, dtype=torch.float64)
optimizer = torch.optim.Adam(critic.parameters(), lr=0.02)
for number in range(101):
    x = samples.clone().requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    norm = slope.norm(dim=1)
    penalty = ((norm - 1) ** 2).mean()
    if number % 25 == 0:
        print(f"step {number:3}: slopes {norm.min():.2f} to {norm.max():.2f}")
    optimizer.zero_grad()
    penalty.backward()
    optimizer.step()

# %% penalty_holds tags=["hidden"]
assert penalty < 0.02
w1, b1, w2, b2 = (
    Variable(value.detach().clone(), requires_grad=True)
    for value in critic.parameters()
)
points = Variable(samples, requires_grad=True)
height = (tanh(points @ w1.mT + b1) @ w2.mT + b2).sum()
(slope,) = grad(height, [points], create_graph=True)
ours = ((sqrt((slope * slope).sum(1)) - 1) ** 2).mean()
ours.backward()
x = samples.clone().requires_grad_()
(of_torch,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
critic.zero_grad()
((of_torch.norm(dim=1) - 1) ** 2).mean().backward()
for mine, parameter in zip((w1, b1, w2), critic.parameters(), strict=False):
    torch.testing.assert_close(mine.grad.value, parameter.grad)
assert b2.grad is None
assert critic[2].bias.grad is None
# Without create_graph the slope is a constant.
x = samples.clone().requires_grad_()
assert not torch.autograd.grad(critic(x).sum(), x)[0].requires_grad


# %% functional
def loss_of(weight, x, label):
    return (torch.tanh(x @ weight) - label) ** 2


weight = torch.tensor([0.5, -1.0], dtype=torch.float64)
inputs, labels = samples[:5], torch.ones(5, dtype=torch.float64)
slope_of = torch.func.grad(loss_of)
each = torch.func.vmap(slope_of, in_dims=(None, 0, 0))(weight, inputs, labels)
print("a gradient for each example:", tuple(each.shape))
hessian = torch.func.hessian(loss_of)(weight, inputs[0], labels[0])
print("Hessian:", [[round(value, 3) for value in row] for row in hessian.tolist()])

# %% functional_holds tags=["hidden"]
for gradient, x, label in zip(each, inputs, labels, strict=True):
    w = weight.clone().requires_grad_()
    loss_of(w, x, label).backward()
    torch.testing.assert_close(gradient, w.grad)
torch.testing.assert_close(hessian, hessian.T)
w = leaf(weight.tolist())
ours = (tanh(Variable(inputs[0]) @ w) - 1) ** 2
(slope,) = grad(ours, [w], create_graph=True)
rows = [grad(slope[number], [w], retain_graph=True)[0].value for number in range(2)]
torch.testing.assert_close(torch.stack(rows), hessian)

# %% cheap_gradient
from torch.utils.flop_counter import FlopCounterMode


def flops(run, *arguments):
    with FlopCounterMode(display=False) as counter:
        run(*arguments)
    return counter.get_total_flops()


def network(x, weights):
    for weight in weights:
        x = torch.tanh(x @ weight)
    return x


ratios = {}
for depth in (1, 2, 4, 8):
    weights = [torch.randn(32, 32, requires_grad=True) for _ in range(depth)]
    x = torch.randn(4, 32)
    both = flops(lambda x, w: network(x, w).sum().backward(), x, weights)
    ratios[depth] = both / flops(network, x, weights)
    print(f"{depth} layers: value and gradient cost {ratios[depth]:.3f} × the value")

# %% modes
generator = torch.Generator().manual_seed(0)
n, sizes, forward_mode, reverse_mode = 16, [1, 2, 4, 8, 16, 32, 64], [], []
for m in sizes:
    shapes = (n, 32), (32, 32), (32, m)
    weights = [0.3 * torch.randn(*shape, generator=generator) for shape in shapes]
    x = torch.randn(1, n, generator=generator)

    def f(x, weights=weights):
        return network(x, weights)

    forward_mode.append(flops(torch.func.jacfwd(f), x) / flops(f, x))
    reverse_mode.append(flops(torch.func.jacrev(f), x) / flops(f, x))
    print(f"m = {m:2}: forward {forward_mode[-1]:.0f}, reverse {reverse_mode[-1]:.0f}")

# %% modes_figure
figure, axes = plt.subplots()
axes.plot(sizes, forward_mode, "o-", label="forward mode")
axes.plot(sizes, reverse_mode, "s-", label="reverse mode")
axes.axvline(n, ls=":", color="0.5", lw=1.2)
axes.set(xlabel="outputs $m$", ylabel="cost of the Jacobian / cost of $f$")
axes.set_xscale("log", base=2)
axes.set_yscale("log", base=2)
axes.set_xticks(sizes, [f"{size}" for size in sizes])
axes.set_yticks(sizes, [f"{size}" for size in sizes])
axes.legend()

# %% costs_hold tags=["hidden"]
assert ratios == {depth: 3 - 1 / depth for depth in ratios}
# The values once, and a pass for each column or row; torch may add a little.
assert all(n < cost < n + 4 for cost in forward_mode)
assert all(m < cost < m + 3 for m, cost in zip(sizes, reverse_mode, strict=True))
forward_rest, reverse_rest = forward_mode[-1] - n, reverse_mode[-1] - sizes[-1]


# %% checkpoint
class Checkpoint(torch.autograd.Function):
    """run(x), whose activations are computed again for the backward pass.

    Left out: random numbers of a GPU, autocast, several arguments, second derivatives.
    `x` must require a gradient; only `backward()` reaches the weights that `run` uses.
    """

    @staticmethod
    def forward(ctx, run, x):
        ctx.run, ctx.random_state = run, torch.get_rng_state()
        ctx.save_for_backward(x)
        return run(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.set_rng_state(ctx.random_state)  # the same dropout masks again
            y = ctx.run(x)
        y.backward(g)
        return None, x.grad


# %% segments
from collections import Counter
from functools import partial


def layer(x):
    global layers_run
    layers_run += 1
    return torch.sin(x)


def chain(x, count):
    for _ in range(count):
        x = layer(x)
    return x


def in_segments(x, count, size):
    for _ in range(count // size):
        x = Checkpoint.apply(partial(chain, count=size), x)
    return x


def cost(run, size=1000):
    """The most activations held at a time for the backward pass, and the layers run."""
    global layers_run
    layers_run, held, most = 0, Counter(), 0

    class Saved:
        def __init__(self, tensor):
            nonlocal most
            self.tensor, self.key = tensor, (tensor.data_ptr(), tensor.nbytes)
            held[self.key] += 1
            most = max(most, sum(size for (_, size), uses in held.items() if uses))

        def __del__(self):
            held[self.key] -= 1

    x = torch.randn(size, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        run(x).sum().backward()
    return most // x.nbytes, layers_run


# %% square_root_rule
depth = 64
whole, layers_once = cost(partial(chain, count=depth))
print(f"no checkpoints: {whole:2} activations, {layers_once:3} layers run")
peaks, layers_twice = {}, {}
for size in (1, 2, 4, 8, 16, 32, 64):
    run = partial(in_segments, count=depth, size=size)
    peaks[size], layers_twice[size] = cost(run)
    print(f"segments of {size:2}: {peaks[size]:2} activations,", end="")
    print(f" {layers_twice[size]:3} layers run")

# %% square_root_rule_holds tags=["hidden"]
assert (whole, layers_once) == (depth, depth)
assert peaks == {s: depth // s + s - 1 for s in peaks}
least = min(peaks.values())
assert least == peaks[8] == 2 * 8 - 1
assert set(layers_twice.values()) == {2 * depth}
# The exercise: a thousand layers in segments, and in segments of segments.
one_level = min(
    cost(partial(in_segments, count=1000, size=size))[0] for size in (20, 25, 40, 50)
)
assert one_level == 1000 / 25 + 25 - 1 == 1000 / 40 + 40 - 1


def nested(x):
    for _ in range(10):
        x = Checkpoint.apply(partial(in_segments, count=100, size=10), x)
    return x


two_levels, layers_thrice = cost(nested)
assert (two_levels, layers_thrice) == (3 * 10 - 2, 3000)

# %% checkpoint_holds tags=["hidden"]
from torch.utils.checkpoint import checkpoint


def noisy(x):
    return nn.functional.dropout(torch.sin(weight * x), 0.5)


class Forgetful(Checkpoint):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        ctx.random_state = torch.get_rng_state()
        return Checkpoint.backward(ctx, g)


def gradients(run):
    """Of x and of the weight, and the random number that follows."""
    torch.manual_seed(0)
    x = torch.linspace(-2, 2, 101, requires_grad=True)
    weight.grad = None
    run(run(x)).sum().backward()
    return x.grad, weight.grad, torch.rand(1)


weight = torch.tensor(1.5, requires_grad=True)
expected = gradients(noisy)
for run in (
    partial(Checkpoint.apply, noisy),
    partial(checkpoint, noisy, use_reentrant=False),
    partial(checkpoint, noisy, use_reentrant=True),
):
    torch.testing.assert_close(gradients(run), expected)
assert not torch.allclose(gradients(partial(Forgetful.apply, noisy))[0], expected[0])
# What it leaves out: an input without gradient, and `grad` of a weight.
assert not Checkpoint.apply(noisy, torch.ones(3)).requires_grad
x = torch.ones(3, requires_grad=True)
(missed,) = torch.autograd.grad(
    Checkpoint.apply(noisy, x).sum(), weight, allow_unused=True
)
assert missed is None

# %% memory_figure
figure, axes = plt.subplots()
axes.axhline(depth, ls="--", color="0.5", lw=1.2, label="no checkpoints")
fine = torch.linspace(1, 64, 400)
axes.plot(fine, depth / fine + fine - 1, color="#c2410c", lw=1.2, label="$L/s + s - 1$")
axes.plot(peaks.keys(), peaks.values(), "o", color="#0b62b8", label="measured")
axes.set_xscale("log", base=2)
axes.set_xticks(list(peaks), [f"{size}" for size in peaks])
axes.set(xlabel="layers in a segment, $s$", ylabel="activations held", ylim=(0, 75))
axes.legend(loc="lower right")


# %% where_trap
def slopes(form, values):
    x = torch.tensor(values, requires_grad=True)
    form(x).sum().backward()
    return x.grad.tolist()


def masked(x):
    return torch.where(x > 0, torch.sqrt(x), torch.zeros_like(x))


def masked_twice(x):
    safe = torch.where(x > 0, x, torch.ones_like(x))
    return torch.where(x > 0, torch.sqrt(safe), torch.zeros_like(x))


print("value         ", masked(torch.tensor([0.0, 4.0])).tolist())
print("masked once   ", slopes(masked, [0.0, 4.0]))
print("masked twice  ", slopes(masked_twice, [0.0, 4.0]))
print("norm by hand  ", slopes(lambda x: (x**2).sum().sqrt(), [0.0, 0.0]))
print("norm()        ", slopes(lambda x: x.norm(), [0.0, 0.0]))

# %% where_holds tags=["hidden"]
assert slopes(masked_twice, [0.0, 4.0]) == [0, 0.25]

# %% data_trap
for change in ("none", "y.data", "y.detach()"):
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x.exp()
    if change == "y.data":
        y.data.mul_(10)
    if change == "y.detach()":
        y.detach().mul_(10)
    try:
        y.sum().backward()
        print(f"{change:10} version {y._version}, gradient {x.grad}")
    except RuntimeError:
        print(f"{change:10} version {y._version}, refused")

# %% data_holds tags=["hidden"]
x = torch.tensor([1.0, 2.0], requires_grad=True)
y = x.exp()
y.data.mul_(10)
assert y._version == 0
y.sum().backward()
torch.testing.assert_close(x.grad, 10 * x.detach().exp())

# %% shapes_that_fit
prediction = torch.tensor([[1.0], [2.0], [3.0]], requires_grad=True)
target = torch.tensor([1.0, 2.0, 3.0])
loss = ((prediction - target) ** 2).mean()
loss.backward()
gradient = [round(slope, 3) for slope in prediction.grad.flatten().tolist()]
print(f"loss {loss:.3f}, gradient {gradient}")

# %% shapes_hold tags=["hidden"]
assert (prediction - target).shape == (3, 3)
wrong_loss = loss.item()
assert math.isclose(wrong_loss, 4 / 3, rel_tol=1e-6)

# %% ties
print("max()      ", slopes(lambda x: x.max(), [1.0, 3.0, 3.0]))
print("amax(0)    ", slopes(lambda x: x.amax(0), [1.0, 3.0, 3.0]))
print("max(0)     ", slopes(lambda x: x.max(0).values, [1.0, 3.0, 3.0]))
print("relu       ", slopes(torch.relu, [0.0]))
print("clamp      ", slopes(lambda x: x.clamp(min=0), [0.0]))
print("maximum    ", slopes(lambda x: torch.maximum(x, torch.zeros(1)), [0.0]))

# %% ties_hold tags=["hidden"]
# The choice of a slope is torch's, and may change: these are the engine's.
x = leaf([1.0, 3.0, 3.0])
largest(x).backward()
assert x.grad.value.tolist() == [0, 0.5, 0.5]
x.grad = None
largest(x, 0).backward()
assert sorted(x.grad.value.tolist()) == [0, 0, 1]

# %% exercises_hold tags=["hidden"]
x = leaf(1.0)
y = x
for _ in range(200):
    y = y + y
assert sum(len(node.edges) for node in topological(y)) == 400
y.backward()
assert x.grad.value == 2.0**200
matrix = torch.tensor([[2.0, 1.0], [-1.0, 3.0]], dtype=torch.float64)
g = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
inverse = torch.linalg.inv(matrix.requires_grad_())
(by_torch,) = torch.autograd.grad(inverse, matrix, g)
torch.testing.assert_close(by_torch, -inverse.mT @ g @ inverse.mT)
