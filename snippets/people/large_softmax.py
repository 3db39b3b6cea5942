# %% quick_start
import torch
import torch.nn.functional as F

from zhixing.people.large_softmax import sample_classes, sampled_softmax_loss

torch.set_default_dtype(torch.float64)  # so that other processors print the same
generator = torch.Generator().manual_seed(0)
classes = 20_000
features = torch.randn(64, 128, generator=generator)  # of your network
weight = torch.randn(classes, 128, generator=generator) / 128**0.5  # of the last layer
labels = torch.randint(classes, (64,), generator=generator)

index, _, log_q = sample_classes(labels, classes, rate=0.1, generator=generator)
loss = sampled_softmax_loss(features, weight, labels, samples=index, log_count=log_q)
full = F.cross_entropy(features @ weight.T, labels)
print(f"{len(index):5} classes: {loss:.2f}\n{classes:5} classes: {full:.2f}")

# %% quick_start_holds tags=["hidden"]
assert len(index) == 2000
for seed in range(5):
    drawn = torch.Generator().manual_seed(seed)
    i, _, log = sample_classes(labels, classes, rate=0.1, generator=drawn)
    estimate = sampled_softmax_loss(features, weight, labels, samples=i, log_count=log)
    assert abs(estimate - full) < 0.05

# %% setup
import math

from zhixing.people.large_softmax import LocallyConnected2d

torch.set_num_threads(1)

# %% estimates
import matplotlib.pyplot as plt

s, names = 32, ("corrected", "uncorrected")
centres = F.normalize(torch.randn(classes, 64, generator=generator), dim=1)
noise = torch.randn(64, 64, generator=generator)
faces = F.normalize(centres[labels] + 0.35 * noise, dim=1)
logits = s * faces @ centres.T
full = F.cross_entropy(logits, labels)


def estimate(rate):
    index, positions, log_q = sample_classes(
        labels, classes, rate=rate, generator=generator
    )
    drawn = logits[:, index]
    return [F.cross_entropy(z, positions) for z in (drawn - log_q, drawn)]


def raised(rate):  # all classes, and log(1 / r) added to the target
    one_hot = F.one_hot(labels, classes)
    return F.cross_entropy(logits - math.log(rate) * one_hot, labels)


rates = [0.005, 0.01, 0.03, 0.1, 0.3, 1.0]
means = [torch.tensor([estimate(r) for _ in range(8)]).mean(0) for r in rates]
figure, axes = plt.subplots(figsize=(5.2, 3.4))
axes.axhline(full, color="gray", linestyle=":", label="all classes")
for name, line, marker in zip(names, torch.stack(means).T, "os", strict=True):
    axes.plot(rates, line, marker=marker, label=name)
axes.plot(rates, [raised(r) for r in rates], "--", color="gray", label="target raised")
axes.set(xlabel="rate r", ylabel="loss", xscale="log", ylim=(0, None))
axes.legend()

# %% estimates_hold tags=["hidden"]
for rate, (corrected, uncorrected) in zip(rates, means, strict=True):
    assert corrected < full + 0.1
    assert uncorrected < full + 1e-6
    if 0.01 <= rate < 1:
        assert full - uncorrected > 0.35 * math.log(1 / rate)
        assert rate < 0.1 or abs(uncorrected - raised(rate)) < 0.5
        assert uncorrected < corrected
at_tenth = means[rates.index(0.1)]
assert abs(full - at_tenth[0]) < 0.6
assert full - at_tenth[1] > 1.2
corrected_tenth, uncorrected_tenth = at_tenth.tolist()
assert full - means[1][0] > 2 * (full - at_tenth[0])  # the corrected loss falls, too


# %% world
def world(seed, identities):
    draw = torch.Generator().manual_seed(seed)
    known = torch.randn(identities, 12, generator=draw)  # seen in training
    unseen = torch.randn(1000, 12, generator=draw)
    mixing = torch.randn(20, 64, generator=draw) / 20**0.5

    def image(identity):  # with noise, and with eight numbers that do not matter
        noise = torch.randn(identity.shape, generator=draw)
        rest = torch.randn(len(identity), 8, generator=draw)
        return torch.tanh(torch.cat([identity + 0.3 * noise, rest], 1) @ mixing)

    return draw, known, unseen, image


def train(rate, correct, seed=0, identities=1200, steps=800, batch=32, s=16):
    draw, known, unseen, image = world(seed, identities)
    torch.manual_seed(seed)
    layers = torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 16)
    net = torch.nn.Sequential(*layers)
    weight = torch.nn.Parameter(0.1 * torch.randn(identities, 16))
    optimizer = torch.optim.Adam([*net.parameters(), weight], lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        labels = torch.randint(identities, (batch,), generator=draw)
        x = F.normalize(net(image(known[labels])), dim=1)
        index, positions, log_q = sample_classes(labels, identities, rate=rate)
        logits = s * x @ F.normalize(weight[index], dim=1).T
        loss = F.cross_entropy(logits - log_q if correct else logits, positions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return test(net, weight, loss, draw, known, unseen, image, s)


@torch.no_grad()
def test(net, weight, loss, draw, known, unseen, image, s):
    labels = torch.randint(len(known), (2000,), generator=draw)
    x = F.normalize(net(image(known[labels])), dim=1)
    logits = s * x @ F.normalize(weight, dim=1).T
    one, other = (F.normalize(net(image(unseen)), dim=1) for _ in range(2))
    nearest = (one @ other.T).argmax(1)
    return {
        "reported": loss.item(),
        "true": F.cross_entropy(logits, labels).item(),
        "accuracy": (logits.argmax(1) == labels).double().mean().item(),
        "retrieval": (nearest == torch.arange(len(unseen))).double().mean().item(),
    }


# %% run
runs = {
    "all classes": train(1.0, False),
    "a tenth": train(0.1, False),
    "a tenth, corrected": train(0.1, True),
}
print(f"{'':18}  reported   true  accuracy  retrieval")
for name, run in runs.items():
    print(f"{name:18} {run['reported']:8.1f} {run['true']:8.1f}", end="")
    print(f"{run['accuracy']:9.2f} {run['retrieval']:9.2f}")

# %% run_holds tags=["hidden"]
whole, plain, corrected = runs.values()
assert plain["reported"] < 0.5 * plain["true"]
assert abs(math.log(corrected["reported"] / corrected["true"])) < 0.6
assert whole["true"] + 0.05 < corrected["true"] < plain["true"] - 0.1
assert plain["accuracy"] + 0.02 < corrected["accuracy"] < whole["accuracy"] - 0.03
assert plain["retrieval"] + 0.01 < corrected["retrieval"] < whole["retrieval"]
assert plain["retrieval"] < whole["retrieval"] - 0.02
reported, true = plain["reported"], plain["true"]

# %% popular
frequency = 1 / torch.arange(1.0, 501)  # Zipf's law
frequency /= frequency.sum()
log_count = (50 * frequency).log()  # of 50 draws with replacement
corrections = {"subtracted": log_count, "left out": 0 * log_count, "added": -log_count}
slopes = {}
for name, correction in corrections.items():
    z = torch.zeros(500, 1, requires_grad=True)
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(400):
        labels, samples = frequency.multinomial(562, True).split([512, 50])
        loss = sampled_softmax_loss(
            torch.ones(512, 1),
            z,
            labels,
            samples=samples,
            log_count=correction[samples],
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    common = torch.stack([z[:50, 0], frequency[:50].log()])
    covariance = common.detach().cov()
    slopes[name] = (covariance[0, 1] / covariance[1, 1]).item()
    print(f"log S·Q {name:10}: slope {slopes[name]:4.1f}")

# %% popular_holds tags=["hidden"]
for name, wanted in ("subtracted", 1), ("left out", 0), ("added", -1):
    assert abs(slopes[name] - wanted) < 0.3
assert (z[:, 0].topk(5).indices >= 50).all()  # added: rare classes first

# %% deepface
with torch.device("meta"):  # shapes only
    layers = {
        "C1": torch.nn.Conv2d(3, 32, 11),  # of 152 × 152 pixels; then max pooling
        "C3": torch.nn.Conv2d(32, 16, 9),
        "L4": LocallyConnected2d(16, 16, (63, 63), kernel_size=9),
        "L5": LocallyConnected2d(16, 16, (55, 55), kernel_size=7, stride=2),
        "L6": LocallyConnected2d(16, 16, (25, 25), kernel_size=5),
        "F7": torch.nn.Linear(16 * 21 * 21, 4096),
        "F8": torch.nn.Linear(4096, 4030),
    }
counts = {name: sum(p.numel() for p in layers[name].parameters()) for name in layers}
total = sum(counts.values())
print(" ".join(f"{name} {count / total:.1%}" for name, count in counts.items()))
print(f"of {total:,} parameters; first loss about log 4030 = {math.log(4030):.2f}")

# %% deepface_holds tags=["hidden"]
assert total == 118_923_774
assert 0.52 < counts["L4"] / total < 0.53
