# %% train
import torch
import torch.nn.functional as F
from torch import nn


def train(model, batches, wrap=nn.parallel.DistributedDataParallel):
    """What each process does, with its own share of each batch."""
    replica = wrap(model)  # takes over the parameters of process 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in batches:
        loss = F.mse_loss(replica(x), y)
        optimizer.zero_grad()
        loss.backward()  # averages the gradients of all processes
        optimizer.step()
    return model


# %% mean_figure
import matplotlib.pyplot as plt

generator = torch.Generator().manual_seed(1)
inputs = torch.randn(8, 2, generator=generator)
targets = inputs @ torch.tensor([1.0, 0.0]) + torch.randn(8, generator=generator)
theta = torch.tensor([-1.0, 1.0])


def descent(x, y):
    """Minus the gradient of the mean squared error of a linear model."""
    return 2 * x.T @ (y - x @ theta) / len(x)


parts = [descent(inputs[:4], targets[:4]), descent(inputs[4:], targets[4:])]
whole = descent(inputs, targets)

figure, axes = plt.subplots(figsize=(5.6, 3.6))
first, second = torch.linspace(-1.6, 3, 80), torch.linspace(-2.2, 2.4, 80)
grid = torch.stack(torch.meshgrid(first, second, indexing="xy"), -1)
losses = (grid @ inputs.T - targets).square().mean(-1)
axes.contour(first, second, losses, levels=18, colors="0.7", linewidths=0.8)
axes.plot(*zip(*(theta + 0.5 * part for part in parts), strict=True), "--", color="0.5")
for name, step, color in (
    ("process 0", parts[0], "C0"),
    ("process 1", parts[1], "C1"),
    ("mean of both", whole, "C2"),
):
    tip = theta + 0.5 * step
    arrow = {"arrowstyle": "->", "color": color, "lw": 2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", tip.tolist(), theta.tolist(), arrowprops=arrow)
    axes.text(*(tip + 0.08).tolist(), name, color=color)
axes.plot(*theta.tolist(), "o", color="#000000", ms=4)
axes.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$")

# %% mean_holds tags=["hidden"]
assert torch.allclose(sum(parts) / 2, whole, atol=1e-5)

# %% recorded
import json
from importlib.resources import files

recorded = json.loads((files("zhixing") / "results/ddp.json").read_text())
for name, p, elements in recorded["traffic"]:
    print(f"{name:>15} of 60 numbers, {p} processes send {elements}")


# %% recorded_functions tags=["hidden"]
import torch.distributed as dist


def traffic():
    """How many elements this rank sends for a sum of 60, among 2, 3 and 4 ranks."""
    from zhixing.engineering.ring_all_reduce import ring_all_reduce, star_all_reduce

    found = {}
    for p in (2, 3, 4):
        group = dist.new_group(range(p))
        if dist.get_rank() < p:
            for reduce in (ring_all_reduce, star_all_reduce):
                log = []
                total = reduce(torch.arange(60.0), group=group, log=log)
                assert torch.equal(total, p * torch.arange(60.0))
                found[reduce.__name__, p] = sum(sent.elements for sent in log)
    return found


def ring_steps():
    """Each message of this rank, in ten sums of 4 million numbers."""
    from zhixing.engineering.ring_all_reduce import ring_all_reduce

    x, logs = torch.ones(4_000_000), []
    for _ in range(10):
        logs.append([])
        dist.barrier()
        ring_all_reduce(x, log=logs[-1])
    return [[(t.step, t.chunk, t.start, t.end) for t in log] for log in logs]


def timeline():
    """What happens when in five backward passes, with one bucket and with several."""
    from zhixing.engineering.ddp import MinimalDDP

    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(768, 768), nn.ReLU()) for _ in range(6)]
    x, found = torch.randn(256, 768), {}
    for name, size in {"one bucket": 2**40, "a bucket a layer": 768 * 768 * 4}.items():
        replica = MinimalDDP(nn.Sequential(*layers), first=size, size=size)
        found[name] = []
        for _ in range(5):
            dist.barrier()
            replica(x).sum().backward()
            found[name].append([(e.kind, e.index, e.seconds) for e in replica.events])
    return found


def quick_start():
    from zhixing.engineering import ddp_train
    from zhixing.engineering.launch import torchrun

    return torchrun(ddp_train.__file__, "--epochs=5", ranks=2)


def killed():
    """What is printed of rank 1's end, in its 21st step."""
    import re
    from pathlib import Path

    from zhixing.engineering import ddp_train
    from zhixing.engineering.launch import torchrun

    Path("victim.py").write_text(
        f"""
import os, runpy, signal
from torch.optim.optimizer import register_optimizer_step_post_hook

steps = []

def after_step(*_):
    steps.append(1)
    if len(steps) == 21 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)

register_optimizer_step_post_hook(after_step)
runpy.run_path({ddp_train.__file__!r}, run_name="__main__")
"""
    )
    try:
        torchrun("victim.py", "--checkpoint=killed.pt", ranks=2)
    except RuntimeError as error:
        pattern = r"epoch \d+: loss .*|rank +: 1 .*\n +exitcode +: -9\b"
        return "\n".join(re.findall(pattern, str(error)))


def resumed():
    from zhixing.engineering import ddp_train
    from zhixing.engineering.launch import torchrun

    return torchrun(ddp_train.__file__, "--checkpoint=killed.pt", ranks=2)


# %% traffic_holds tags=["hidden"]
recorded_cores = recorded["cores"]
sent = {(name, p): elements for name, p, elements in recorded["traffic"]}
for p in (2, 3, 4):
    assert sent["ring_all_reduce", p] == [2 * (p - 1) * 60 // p] * p
    assert sent["star_all_reduce", p] == [(p - 1) * 60] + [60] * (p - 1)
    assert sum(sent["ring_all_reduce", p]) == sum(sent["star_all_reduce", p])

# %% steps_figure frames="steps done" poster="3"
sums = [[{rank} for _ in range(4)] for rank in range(4)]  # whose summands a chunk has
for step in range(7):
    figure, axes = plt.subplots(figsize=(4.6, 2.9), num=f"{step}")
    for rank, log in enumerate(recorded["ring"]):
        for chunk, ranks in enumerate(sums[rank]):
            colour = "#1a7f37" if len(ranks) == 4 else "#6b7280"
            place = {"xy": (chunk - 0.5, rank - 0.5), "width": 1, "height": 1}
            axes.add_patch(
                plt.Rectangle(**place, color=colour, alpha=len(ranks) / 8, lw=0)
            )
            text = "+".join(map(str, sorted(ranks)))
            axes.text(chunk, rank, text, ha="center", va="center", fontsize=9)
        if step < 6:
            axes.annotate(
                "",
                (log[step][1] + 0.3, rank + 0.75),
                (log[step][1] + 0.3, rank + 0.25),
                arrowprops={"arrowstyle": "->", "color": "#24292f", "lw": 1.6},
            )
    axes.set(xlabel="chunk", ylabel="rank", xticks=range(4), yticks=range(4))
    axes.set(xlim=(-0.5, 3.5), ylim=(4, -0.5))
    axes.grid(visible=False)
    if step < 6:
        sent = [(rank, log[step][1]) for rank, log in enumerate(recorded["ring"])]
        arrived = [((rank + 1) % 4, chunk, sums[rank][chunk]) for rank, chunk in sent]
        for rank, chunk, ranks in arrived:
            sums[rank][chunk] = sums[rank][chunk] | ranks
assert all(len(ranks) == 4 for row in sums for ranks in row)

# %% ring_figure
figure, axes = plt.subplots(figsize=(5.6, 2.6))
for rank, log in enumerate(recorded["ring"]):
    for _, chunk, start, end in log:
        left, lasts = 1000 * start, 1000 * (end - start)
        bar = axes.barh(rank, lasts, left=left, height=0.7, color=f"C{chunk}")
        axes.bar_label(
            bar, [f"{chunk}"], label_type="center", color="#ffffff", fontsize=8
        )
axes.set(yticks=range(4), xlabel="ms since the first message", ylabel="rank")
axes.invert_yaxis()

# %% timeline
for name, events in recorded["ddp"].items():
    order = [f"{kind[0]}{index}" for kind, index, _ in events if kind != "done"]
    print(f"{name:>16}: {' '.join(order)}")


# %% timeline_holds tags=["hidden"]
def ended_before_the_last_gradient(events):
    """How many all-reduces."""
    last = max(at for kind, _, at in events if kind == "gradient")
    return sum(kind == "done" and at < last for kind, _, at in events)


early = ended_before_the_last_gradient(recorded["ddp"]["a bucket a layer"])
assert early >= 3
assert ended_before_the_last_gradient(recorded["ddp"]["one bucket"]) == 0

# %% timeline_figure
figure, panels = plt.subplots(2, 1, sharex=True, figsize=(5.6, 4.2))
for axes, (name, events) in zip(panels, recorded["ddp"].items(), strict=True):
    moments = {(kind, index): 1000 * at for kind, index, at in events}
    ready = [at for (kind, _), at in moments.items() if kind == "gradient"]
    count = sum(kind == "done" for kind, _ in moments)
    axes.plot(ready, [1] * len(ready), "|", ms=14, mew=1.8)
    for (kind, number), at in moments.items():
        if kind == "launch":
            lasts = moments["done", number] - at
            lane = 0.16 * ((count - 1) / 2 - number)  # several can be under way at once
            axes.barh(lane, lasts, left=at, height=0.14, color="C1")
    axes.set(yticks=[0, 1], ylim=(-0.6, 1.4))
    axes.set_yticklabels(["all-reduce", "gradients"])
    axes.set_title(name)
panels[-1].set(xlabel="ms since the first gradient")


# %% network
def network(*, normalised=False):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(32) if normalised else nn.Identity()
    return nn.Sequential(nn.Linear(8, 32), norm, nn.Tanh(), nn.Linear(32, 1)).double()


def batches(shares=None):
    """Twenty batches of 16 samples: this process's share of each, or all of it."""
    for step in range(20):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 8, dtype=torch.float64, generator=generator)
        y = x.norm(dim=1, keepdim=True)
        if shares:
            x, y = (part.split(shares)[dist.get_rank()] for part in (x, y))
        yield x, y


# %% equal
from zhixing.engineering.launch import launch


def compare():
    from zhixing.engineering.ddp import MinimalDDP

    def alone(model):
        return model

    def past_the_wrapper(model):
        return MinimalDDP(model).module

    def apart(model, other):
        pairs = zip(model.parameters(), other.parameters(), strict=True)
        return max((a - b).abs().max().item() for a, b in pairs)

    equal = list(batches([8, 8]))
    ours = train(network(), equal, MinimalDDP)
    one_process = train(network(), batches(), alone)
    normalised = (
        train(network(normalised=True), equal, MinimalDDP),
        train(network(normalised=True), batches(), alone),
    )
    unequal = train(network(), batches([13, 3]), MinimalDDP)
    past = train(network(), equal, past_the_wrapper)
    return {
        "torch's DDP and ours": apart(train(network(), equal), ours),
        "one process and ours": apart(one_process, ours),
        "with batch normalisation": apart(*normalised),
        "shares of 13 and 3 samples": apart(one_process, unequal),
        "called past the wrapper": apart(one_process, past),
    }


found = launch(compare, ranks=2, using=[train, network, batches])["compare"][0]
for case, gap in found.items():
    rounding = "less than 1e-12" if gap else "exactly 0"
    print(f"{case:>26}: {f'{gap:.1g}' if gap > 1e-12 else rounding}")

# %% equal_holds tags=["hidden"]
to_torch, to_one, *others = found.values()
assert to_torch == 0
assert to_one < 1e-12
assert min(others) > 1e-3

# %% quick_start
print(recorded["quick_start"])

# %% killed
print(recorded["killed"])

# %% resumed
print(recorded["resumed"])

# %% resumed_holds tags=["hidden"]
import re


def losses_in(printed):
    return dict(re.findall(r"epoch (\d+): loss (\S+)", printed))


uninterrupted = losses_in(recorded["quick_start"])
assert list(uninterrupted) == ["1", "2", "3", "4", "5"]
assert float(uninterrupted["5"]) < float(uninterrupted["1"]) / 10
before, after = losses_in(recorded["killed"]), losses_in(recorded["resumed"])
assert (list(before), list(after)) == (["1", "2"], ["3", "4", "5"])
assert before | after == uninterrupted

# %% sampler
from torch.utils.data.distributed import DistributedSampler

for rank in range(4):
    sampler = DistributedSampler(range(10), 4, rank, shuffle=False)
    print(f"process {rank}: {list(sampler)}")
sampler = DistributedSampler(range(6), 1, 0)
print("without set_epoch:", *(list(sampler) for _ in range(3)))
print("with set_epoch:   ", *(sampler.set_epoch(n) or list(sampler) for n in range(3)))

# %% sampler_holds tags=["hidden"]
drawn = [list(DistributedSampler(range(10), 4, r, shuffle=False)) for r in range(4)]
assert sorted(i for each in drawn for i in each) == sorted([*range(10), 0, 1])
