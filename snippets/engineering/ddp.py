# %% quick_start
import json
from importlib.resources import files

from zhixing.engineering import ddp_train
from zhixing.engineering.launch import torchrun

recorded = json.loads((files("zhixing") / "results/ddp.json").read_text())


def quick_start():
    return torchrun(ddp_train.__file__, "--epochs=5", ranks=2)


print(recorded["quick_start"])

# %% recorded_on tags=["hidden"]
recorded_cores = recorded["cores"]
recorded_torch = recorded["torch"].partition("+")[0]


# %% quick_start_holds tags=["hidden"]
import re


def losses(printed):
    return dict(re.findall(r"epoch (\d+): loss (\S+)", printed))


uninterrupted = losses(recorded["quick_start"])
assert list(uninterrupted) == ["1", "2", "3", "4", "5"]
assert float(uninterrupted["5"]) < float(uninterrupted["1"]) / 10

# %% traffic
import torch
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


for name, p, elements in recorded["traffic"]:
    print(f"{name:>15}, p = {p}: {elements}")

# %% traffic_holds tags=["hidden"]
sent = {(name, p): elements for name, p, elements in recorded["traffic"]}
for p in (2, 3, 4):
    assert sent["ring_all_reduce", p] == [2 * (p - 1) * 60 // p] * p
    assert sent["star_all_reduce", p] == [(p - 1) * 60] + [60] * (p - 1)
    assert sum(sent["ring_all_reduce", p]) == sum(sent["star_all_reduce", p])

# %% traffic_figure
import matplotlib.pyplot as plt

figure, axes = plt.subplots()
many = torch.arange(2, 9)
for name, label, formula in (
    ("ring_all_reduce", "around a ring", 2 * (many - 1) / many),
    ("star_all_reduce", "through rank 0", many - 1),
):
    (line,) = axes.plot(many, formula, label=label)
    counted = [max(sent[name, p]) / 60 for p in (2, 3, 4)]
    axes.plot([2, 3, 4], counted, "o", color=line.get_color())
axes.axhline(2, ls="--", color="0.5", lw=1, zorder=1)
axes.set(xlabel="processes $p$", ylabel="sent by the busiest rank, in units of $n$")
axes.legend()


# %% ring_steps tags=["hidden"]
def ring_steps():
    """Each message of this rank, in ten sums of 4 million numbers."""
    from zhixing.engineering.ring_all_reduce import ring_all_reduce

    x, logs = torch.ones(4_000_000), []
    for _ in range(10):
        logs.append([])
        dist.barrier()
        ring_all_reduce(x, log=logs[-1])
    return [[(t.step, t.chunk, t.start, t.end) for t in log] for log in logs]


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

# %% network
import torch.nn.functional as F
from torch import nn


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
    ).double()


def batch(step, size):
    """The same on all ranks, which then take their shares."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(size, 8, dtype=torch.float64, generator=generator)
    return x, x.norm(dim=1, keepdim=True)


def descend(*models):
    """A step of SGD."""
    for model in models:
        for parameter in model.parameters():
            parameter.data -= 0.1 * parameter.grad
            parameter.grad = None


def distance(model, other):
    """The largest difference of two parameters."""
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


# %% accumulation
def accumulation():
    """The all-reduces of four micro-batches, and the error after a step."""
    from contextlib import nullcontext

    from zhixing.engineering.ddp import MinimalDDP

    found = {}
    x, y = (half.chunk(2)[dist.get_rank()] for half in batch(0, 32))
    for name in ("in each backward", "in the last one"):
        model, alone, launched = network(), network(), 0
        replica = MinimalDDP(model, first=1000, size=4000)
        for number in range(4):
            quiet = name == "in the last one" and number < 3
            with replica.no_sync() if quiet else nullcontext():
                part = slice(4 * number, 4 * number + 4)
                (F.mse_loss(replica(x[part]), y[part]) / 4).backward()
            if not quiet:
                launched += len(replica.buckets)
        F.mse_loss(alone(batch(0, 32)[0]), batch(0, 32)[1]).backward()
        descend(model, alone)
        found[name] = launched, distance(model, alone)
    return found


# %% timeline
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


for name, events in recorded["ddp"].items():
    order = [f"{kind[0]}{index}" for kind, index, _ in events if kind != "done"]
    print(f"{name:>16}: {' '.join(order)}")


# %% match_torch
def match_torch():
    from torch.nn.parallel import DistributedDataParallel

    from zhixing.engineering.ddp import MinimalDDP

    rank = dist.get_rank()
    ours, theirs = network(seed=rank), network(seed=rank)
    replicas = MinimalDDP(ours, first=1000, size=4000), DistributedDataParallel(theirs)
    distances = []
    for step in range(20):
        x, y = (half.chunk(2)[rank] for half in batch(step, 16))
        for replica in replicas:
            F.mse_loss(replica(x), y).backward()
        descend(*replicas)
        distances.append(distance(ours, theirs))
    return distances


# %% one_process
def gap(make, shares, weighted=False):
    """Between ranks that have so many samples each, and one process that has all."""
    from zhixing.engineering.ddp import MinimalDDP

    rank, alone, model = dist.get_rank(), make(), make()
    replica = MinimalDDP(model)
    for step in range(20):
        x, y = batch(step, sum(shares))
        share_x, share_y = x.split(shares)[rank], y.split(shares)[rank]
        loss = F.mse_loss(replica(share_x), share_y)
        if weighted:
            loss = loss * len(shares) * shares[rank] / sum(shares)
        loss.backward()
        F.mse_loss(alone(x), y).backward()
        descend(model, alone)
    return distance(model, alone)


def normalised():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Linear(32, 1)
    ).double()


def against_one_process():
    return {
        "8 + 8 samples": gap(network, [8, 8]),
        "8 + 8 samples, batch normalisation": gap(normalised, [8, 8]),
        "13 + 3 samples": gap(network, [13, 3]),
        "13 + 3 samples, losses weighted": gap(network, [13, 3], weighted=True),
    }


# %% equalities
from zhixing.engineering.launch import launch


def shown(apart):
    return "less than 1e-12" if apart < 1e-12 else f"{apart:.3f}"


helpers = network, batch, descend, distance, gap, normalised
found = launch(match_torch, against_one_process, accumulation, ranks=2, using=helpers)
print(f"to torch's DDP, in 20 steps: {max(found['match_torch'][0]):g}")
print("to one process, after 20 steps:")
for case, apart in found["against_one_process"][0].items():
    print(f"{case:>36}: {shown(apart)}")
print("four micro-batches, averaged")
for name, (count, apart) in found["accumulation"][0].items():
    print(f"{name:>36}: {count} all-reduces, {shown(apart)} from one process")

# %% equalities_hold tags=["hidden"]
to_torch = max(map(max, found["match_torch"]))
assert to_torch == 0
equal, normal, unequal, weighted = found["against_one_process"][0].values()
assert found["against_one_process"][0] == found["against_one_process"][1]
assert max(equal, weighted) < 1e-12
assert min(normal, unequal) > 1e-3
each, last = found["accumulation"][0].values()
assert each[0] == 4 * last[0]
assert max(each[1], last[1]) < 1e-12


# %% timeline_holds tags=["hidden"]
def ended_amid(events):
    """How many all-reduces ended before the last gradient was there."""
    last = max(at for kind, _, at in events if kind == "gradient")
    return sum(kind == "done" and at < last for kind, _, at in events)


early = ended_amid(recorded["ddp"]["a bucket a layer"])
assert early >= 3

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


# %% past_the_wrapper
def past_the_wrapper():
    """How far the gradients of two ranks are apart."""
    from torch.nn.parallel import DistributedDataParallel

    model, found = network(), {}
    replica = DistributedDataParallel(model)
    x, y = (half.chunk(2)[dist.get_rank()] for half in batch(0, 16))
    for name, call in {
        "replica(x)": replica,
        "replica.module(x)": replica.module,
    }.items():
        model.zero_grad()
        F.mse_loss(call(x), y).backward()
        mine = model[0].weight.grad
        both = [torch.empty_like(mine) for _ in range(2)]
        dist.all_gather(both, mine)
        found[name] = (both[0] - both[1]).abs().max().item()
    return found


for call, apart in recorded["past_the_wrapper"].items():
    print(f"{call}: gradients differ by {apart:.2g}")


# %% sampler
from torch.utils.data.distributed import DistributedSampler

for rank in range(4):
    sampler = DistributedSampler(range(10), 4, rank, shuffle=False)
    print(f"rank {rank}: {list(sampler)}")
sampler, orders = DistributedSampler(range(6), 1, 0), []
print("three epochs without set_epoch:", *(list(sampler) for _ in range(3)))
for epoch in range(3):
    sampler.set_epoch(epoch)
    orders.append(list(sampler))
print("three epochs with set_epoch:   ", *orders)


# %% uneven_end
def uneven_end():
    """With one batch on rank 1 and two on rank 0: its last gradient, beside its own."""
    from torch.nn.parallel import DistributedDataParallel

    found = {}
    for by_all in (True, False):
        model, own = network(), network()
        replica = DistributedDataParallel(model)
        with replica.join(divide_by_initial_world_size=by_all):
            for step in range(2 - dist.get_rank()):
                model.zero_grad()
                F.mse_loss(replica(batch(step, 4)[0]), batch(step, 4)[1]).backward()
        if dist.get_rank() == 0:
            F.mse_loss(own(batch(1, 4)[0]), batch(1, 4)[1]).backward()
            ratio = model[0].weight.grad / own[0].weight.grad
            assert torch.allclose(ratio, ratio.mean())
            found[str(by_all)] = ratio.mean().item()
    return found


def silent():
    """Rank 1 does not come; what rank 0 is told after a second."""
    from datetime import timedelta

    dist.barrier()
    group = dist.new_group(timeout=timedelta(seconds=1))
    if dist.get_rank() == 0:
        try:
            dist.all_reduce(torch.ones(1), group=group)
        except RuntimeError as error:
            return str(error).partition("] ")[2]
    return "nothing"


for by_all, ratio in recorded["uneven_end"].items():
    print(f"divide_by_initial_world_size={by_all}: {ratio:g} times its own gradient")
print(f"silent: {recorded['silent']}")

# %% uneven_end_holds tags=["hidden"]
assert abs(recorded["uneven_end"]["True"] - 0.5) < 1e-12
assert abs(recorded["uneven_end"]["False"] - 1) < 1e-12
told = recorded["silent"]
assert recorded["past_the_wrapper"]["replica(x)"] == 0
apart = recorded["past_the_wrapper"]["replica.module(x)"]
assert apart > 0.01


# %% killed
def killed():
    """What is printed of rank 1's end, in its 21st step."""
    import re
    from pathlib import Path

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


print(recorded["killed"])


# %% resumed
def resumed():
    return torchrun(ddp_train.__file__, "--checkpoint=killed.pt", ranks=2)


print(recorded["resumed"])

# %% resumed_holds tags=["hidden"]
kept = {epoch: uninterrupted[epoch] for epoch in ("1", "2")}
assert losses(recorded["killed"]) == kept
assert losses(recorded["resumed"]) == {
    epoch: uninterrupted[epoch] for epoch in ("3", "4", "5")
}
