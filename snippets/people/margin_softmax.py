# %% quick_start
import torch
import torch.nn.functional as F

from zhixing.people.margin_softmax import arcface

torch.manual_seed(0)
network = torch.nn.Linear(64, 32)  # stands for yours
weight = torch.nn.Parameter(torch.randn(1000, 32))  # a direction for each person
optimizer = torch.optim.SGD([*network.parameters(), weight], lr=0.1)

images, labels = torch.randn(8, 64), torch.randint(1000, (8,))
loss = F.cross_entropy(arcface(network(images), weight, labels, s=64, m=0.5), labels)
optimizer.zero_grad()
loss.backward()
optimizer.step()  # and so on, for all batches

one, other = network(images[:2])  # after training: two photos of people it never saw
similarity = F.cosine_similarity(one, other, dim=0)
print(f"the same person, if {similarity:.2f} exceeds the threshold")

# %% quick_start_holds tags=["hidden"]
assert loss.isfinite()
assert weight.grad.abs().sum() > 0
assert network.weight.grad.abs().sum() > 0

# %% setup
import math

from torch import nn

from zhixing.people.face_recognition import tar_at_far
from zhixing.people.margin_softmax import arcface, cosface, normface_floor, sphereface

torch.set_default_dtype(torch.float64)  # so that other processors print the same
torch.set_num_threads(1)


def at_angles(theta):  # features of length 1, and two classes at a right angle
    features = torch.stack([theta.cos(), theta.sin()], 1)
    return features, torch.eye(2), torch.zeros(len(theta), dtype=torch.int64)


def target_logit(function, theta, **options):
    return function(*at_angles(theta), s=1, **options)[:, 0]


# %% curves
import matplotlib.pyplot as plt


theta = torch.linspace(0.001, math.pi - 0.001, 721)
degrees, edge = torch.rad2deg(theta), math.pi - 0.5
sphere = target_logit(sphereface, theta, m=4)
annealed = (5 * theta.cos() + sphere) / 6
arc = target_logit(arcface, theta)
arc_drawn = arc.masked_fill(
    (theta - edge).abs() < 0.003, math.nan
)  # a gap for the jump
figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.9), layout="constrained")
left.plot(degrees, theta.cos(), label="cosine")
left.plot(degrees, target_logit(cosface, theta), label="CosFace, m = 0.35")
left.plot(degrees, arc_drawn, label="ArcFace, m = 0.5")
left.plot(degrees, (theta + 0.5).cos(), ":", color="gray", label="cos(θ + 0.5)")
left.plot(degrees, sphere, label="SphereFace, m = 4")
left.plot(degrees, annealed, "--", label="SphereFace, λ = 5")
right.plot(degrees, theta.sin(), label="cosine")
right.plot(degrees, theta.sin(), "--", label="CosFace, m = 0.35")
slope = torch.where(theta < edge, (theta + 0.5).sin(), theta.sin())
right.plot(degrees, slope.masked_fill((theta - edge).abs() < 0.003, math.nan))
left.set(
    xlabel="angle θ (degrees)", ylabel="ψ(θ)", ylim=(-3, 1.1), xticks=range(0, 181, 45)
)
right.set(
    xlabel="angle θ (degrees)", ylabel="−dψ/dθ", ylim=(0, 1.1), xticks=range(0, 181, 45)
)
figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)

# %% curves_hold tags=["hidden"]
x = theta.clone().requires_grad_()
(found,) = torch.autograd.grad(target_logit(arcface, x).sum(), x)
torch.testing.assert_close(-found, slope)
assert (arc.diff() < 0).all()
assert (
    (theta + 0.5).cos().diff()[theta[1:] > edge + 0.01] > 0
).all()  # the equation rises
fall = -math.cos(0.5) - 0.5 * math.sin(0.5)
assert -1.12 < fall < -1.11
acute = theta < math.pi / 2
distance = {
    m: (annealed - (m * theta).cos())[acute].abs().max().item() for m in (1, 1.5, 2)
}
assert 2 * distance[1.5] < min(distance[1], distance[2])
even = math.degrees((math.pi - 0.5) / 2)
stretch = math.sin(math.radians(30) + 0.5) / math.sin(math.radians(30))

# %% floor
for s in (1, 8, 16, 64):
    print(f"s = {s:2}: at least {normface_floor(10_575, s):.2g}")

# %% floor_holds tags=["hidden"]
assert 8.26 < normface_floor(10_575, 1) < 8.27
plain_gap, margin_gap = (math.log(10_574) / 64 + m for m in (0, 0.35))
plain_angle, margin_angle = (
    math.degrees(math.acos(gap)) for gap in (plain_gap, margin_gap)
)  # where all other cosines are 0
small_gap = math.log(199) / 4
large_gap = math.log(199) / 64
guess = math.log(10_575)
adacos = math.sqrt(2) * math.log(85_741)
assert 16.05 < adacos < 16.07
logits_mb = 512 * 85_742 * 4 / 2**20
normface_p = (10_575 - 1) / 10_575 * math.log(10_574 * 0.9 / 0.1)
probability = 1 / (1 + 10_574 * math.exp(-normface_p * 10_575 / 10_574))
assert abs(probability - 0.9) < 1e-9


# %% no_grad
def arcface_no_grad(features, weight, labels, *, s=64.0, m=0.5):
    cosine = F.linear(F.normalize(features), F.normalize(weight))
    with torch.no_grad():  # new values in place, which autograd does not see
        cosine.acos_()
        cosine[torch.arange(len(labels)), labels] += m
        cosine.cos_()
    return s * cosine


# %% released
print("angle   logit     slope, equation   slope, no_grad")
for angle in (10, 30, 60, 90, 120):
    x = torch.tensor([math.radians(angle)], requires_grad=True)
    logits = [target_logit(function, x) for function in (arcface, arcface_no_grad)]
    slopes = [torch.autograd.grad(logit, x)[0].item() for logit in logits]
    print(f"{angle:4}°  {logits[1].item():6.3f}  {slopes[0]:13.3f}  {slopes[1]:16.3f}")

# %% released_holds tags=["hidden"]
generator = torch.Generator().manual_seed(0)
vectors = [torch.randn(n, 16, generator=generator).requires_grad_() for n in (40, 30)]
target = torch.randint(30, (40,), generator=generator)
plain = cosface(*vectors, target, m=0)
papers = arcface(*vectors, target)
through = plain + (papers - plain).detach()  # straight through
in_place = arcface_no_grad(*vectors, target)
assert (F.cosine_similarity(vectors[0], vectors[1][target]) > -math.cos(0.5)).all()
torch.testing.assert_close(in_place, papers)
gradients = [
    torch.autograd.grad(F.cross_entropy(logits, target), vectors, retain_graph=True)
    for logits in (in_place, through, papers)
]
torch.testing.assert_close(gradients[0], gradients[1])
assert (gradients[0][0] - gradients[2][0]).norm() > 0.01 * gradients[2][0].norm()


# %% nan
def naive(features, weight, labels):
    cosine = F.linear(F.normalize(features), F.normalize(weight))
    return 64 * torch.cos(torch.acos(cosine) + 0.5 * F.one_hot(labels, len(weight)))


for function in naive, arcface:
    features = torch.tensor([[1.0, 0.0]], requires_grad=True)  # on its class
    loss = F.cross_entropy(
        function(features, torch.eye(2), torch.tensor([0])), torch.tensor([0])
    )
    (gradient,) = torch.autograd.grad(loss, features)
    print(f"{function.__name__:8} {[round(g, 6) for g in gradient[0].tolist()]}")

# %% nan_holds tags=["hidden"]
assert (
    torch.autograd.grad(
        arcface(features, torch.eye(2), torch.tensor([0]))[0, 0], features
    )[0]
    .isfinite()
    .all()
)


# %% people
def photos(people=350, each=20, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    who = normal(people, 1, 16).expand(
        -1, each, -1
    )  # the same in all photos of a person
    how = normal(people, each, 16)  # pose and light
    mixed = (
        torch.tanh(torch.cat([who, how], 2) @ normal(32, 64) / 4) @ normal(64, 64) / 8
    )
    return mixed + 0.1 * normal(people, each, 64)


def train(logits, x, y, *, steps, width=128, seed=0):
    torch.manual_seed(seed)
    layers = nn.Linear(x.shape[1], width), nn.ReLU(), nn.Linear(width, 32)
    network = nn.Sequential(*layers)
    weight = nn.Parameter(torch.randn(int(y.max()) + 1, 32))
    optimizer = torch.optim.Adam([*network.parameters(), weight], lr=0.01)
    for _ in range(steps):
        batch = torch.randint(len(x), (64,))
        loss = F.cross_entropy(logits(network(x[batch]), weight, y[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        cosine = F.cosine_similarity(network(x), weight[y])
    return network, torch.rad2deg(cosine.clamp(-1, 1).acos()).mean().item()


def accepted(network, x, y, far):  # over all pairs of photos
    with torch.no_grad():
        features = F.normalize(network(x))
    cosine, same = features @ features.T, y[:, None] == y
    once = torch.ones_like(same).triu(1)
    return tar_at_far(cosine[same & once], cosine[~same & once], far)


# %% run
x, y = photos(), torch.arange(350)[:, None].expand(-1, 20)
seen, labels = x[:200].flatten(0, 1), y[:200].flatten()
unseen = x[200:, :8].flatten(0, 1), y[200:, :8].flatten()

family = {
    "no margin": lambda *inputs, s: cosface(*inputs, s=s, m=0),
    "CosFace": cosface,
    "ArcFace": arcface,
    "ArcFace, no_grad": arcface_no_grad,
}
print("TAR of unseen people (angle to the class of seen photos)")
print("loss                s = 4       s = 64")
rates, angles = {}, {}
for name, function in family.items():
    for s in (4, 64):

        def logits(*inputs, function=function, s=s):
            return function(*inputs, s=s)

        network, angles[name, s] = train(logits, seen, labels, steps=300)
        rates[name, s] = accepted(network, *unseen, far=1e-3)
    row = (f"{rates[name, s]:.2f} ({angles[name, s]:.0f}°)" for s in (4, 64))
    print(f"{name:17}", "  ".join(row))

# %% run_holds tags=["hidden"]
margins = [name for name in family if name != "no margin"]
assert max(abs(rates[name, 4] - rates["no margin", 4]) for name in margins) < 0.06
assert min(rates[name, 64] - rates["no margin", 64] for name in margins) > 0.03
assert rates["no margin", 4] > rates["no margin", 64] + 0.06
assert rates["no margin", 4] > max(rates[name, 64] for name in margins) - 0.03
assert abs(rates["ArcFace, no_grad", 64] - rates["CosFace", 64]) < 0.03
assert angles["no margin", 64] > angles["no margin", 4] + 20
assert all(angles[name, 64] < angles["no margin", 64] - 15 for name in margins)
for s in (4, 64):
    assert angles["ArcFace", s] < angles["CosFace", s] < angles["no margin", s] + 0.5
gain = rates["ArcFace", 64] - rates["no margin", 64]

# %% digits
from sklearn.datasets import load_digits

images, digits = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
images, known = images / 16, digits < 6
results = []
for seed in range(12):
    for m in (0, 0.5):

        def logits(*inputs, m=m):
            return arcface(*inputs, s=16, m=m)

        network, angle = train(
            logits, images[known], digits[known], steps=60, width=32, seed=seed
        )
        rate = accepted(network, images[~known], digits[~known], far=0.01)
        results.append((angle, rate))
results = torch.tensor(results).view(12, 2, 2)
for m, (angle, rate) in zip((0, 0.5), results.mean(0).tolist(), strict=True):
    print(
        f"m = {m:3}: 0 to 5 at {angle:.0f}° from their class, TAR of 6 to 9 {rate:.2f}"
    )
change = results[:, 1, 1] - results[:, 0, 1]
print(f"change of TAR: {change.mean():.3f} ± {change.std() / 12**0.5:.3f}")

# %% digits_hold tags=["hidden"]
tighter = results.mean(0)[:, 0]
assert tighter[1] < 0.6 * tighter[0]
assert change.mean() < -2 * change.std() / 12**0.5
worse = int((change < 0).sum())
assert worse >= 8
