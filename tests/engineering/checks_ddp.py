"""Checks of minimal DDP on several ranks at once, beside torch's."""

import contextlib
import copy
import itertools
import re
import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from on_ranks import LIMIT, Checks, Place, built, data, perceptron, shard
from torch import Tensor, nn
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint
from torch.utils.data.distributed import DistributedSampler

CHECKS = Checks()
ON_FOUR_RANKS = (  # the beginnings of their names
    "each_step_equals_torch-convolution, some",
    "each_step_equals_torch-perceptron, some, SGD",
    "ranks_with_batch_b_equal_one_process",
    "unequal_shards_need_weights",
    "construction_takes_over_rank_0",
    "no_sync_adds_up",
    "buckets_are_reduced_in_one_order",
    "layers_in_reentrant_checkpoints",
    "unequal_modules_are_named_on_all_ranks-shape",
    "join_divides",
    "sampler_pads",
)


class Tied(nn.Module):
    """One weight used twice, and a parameter that no optimizer sees."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * torch.tanh(x @ self.weight) @ self.weight.T + self.frozen


class Convolution(nn.Sequential):
    """In channels_last: parameters that are not contiguous, and buffers of two types."""

    def __init__(self):
        super().__init__(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten())
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 12)).reshape(-1, 1, 4, 4)).contiguous()


class Empty(nn.Module):
    """A parameter without elements."""

    def __init__(self):
        super().__init__()
        self.linear, self.nothing = nn.Linear(4, 4), nn.Parameter(torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.nothing.sum()


MODELS = {"perceptron": perceptron, "tied": Tied, "convolution": Convolution, "empty": Empty}


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def minimal(place: Place, module: nn.Module, **sizes: int) -> nn.Module:
    return place.module.MinimalDDP(module, group=place.group, **sizes)


def both(place: Place) -> tuple[Callable, Callable]:
    return partial(minimal, place), partial(DistributedDataParallel, process_group=place.group)


@CHECKS.each(
    **{
        f"{model}, {sizes}, {optimizer}": (MODELS[model], values, getattr(torch.optim, optimizer))
        for (model, (sizes, values), optimizer) in itertools.product(
            MODELS,
            {"default": {}, "one a bucket": {"first": 1, "size": 1}, "some": {"first": 64, "size": 250}}.items(),
            ("AdamW",),
        )
    }
    | {"perceptron, some, SGD": (perceptron, {"first": 64, "size": 250}, torch.optim.SGD)}
)
def each_step_equals_torch(place: Place, case: tuple) -> None:
    model, sizes, optimizer = case
    ours, theirs = built(model, place.rank), built(model, place.rank)
    wrapped = minimal(place, ours, **sizes), DistributedDataParallel(theirs, process_group=place.group)
    optimizers = [optimizer([p for p in m.parameters() if p.requires_grad], lr=0.1) for m in (ours, theirs)]
    for step in range(6):
        x, y = (shard(tensor, place) for tensor in data(4 * place.ranks, step))
        for replica, steps in zip(wrapped, optimizers, strict=True):
            steps.zero_grad()
            F.mse_loss(replica(x), y).backward()
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert (mine.grad is None) == (other.grad is None)
            if mine.grad is not None:
                assert_close(mine.grad, other.grad, **place.exact)
        for steps in optimizers:
            steps.step()
        assert_close(wrapped[0].state_dict(), wrapped[1].state_dict(), **place.exact)


def train(
    place: Place, replica: nn.Module, inner: nn.Module, cut: Callable, *, steps: int = 5, lr: float = 0.1
) -> list[dict[str, Tensor]]:
    """The state after each step; `cut` takes from a batch what this rank trains on."""
    optimizer, states = torch.optim.SGD(inner.parameters(), lr=lr, momentum=0.9), []
    for step in range(steps):
        x, y = (cut(tensor) for tensor in data(4 * place.ranks, step))
        optimizer.zero_grad()
        F.mse_loss(replica(x), y).backward()
        optimizer.step()
        states.append(state(inner))
    return states


@CHECKS.add
def ranks_with_batch_b_equal_one_process_with_all(place: Place) -> None:
    ours, alone = built(perceptron, 7), built(perceptron, 7)
    parallel = train(place, minimal(place, ours, first=64, size=250), ours, lambda tensor: shard(tensor, place))
    assert_close(parallel, train(place, alone, alone, lambda tensor: tensor))
    # The oracle: the gradient of the full batch by loops over its samples, in one process.
    torch.manual_seed(3)
    linear = nn.Linear(4, 4).double()
    replica, (x, y) = minimal(place, linear), data(4 * place.ranks)
    F.mse_loss(replica(shard(x, place)), shard(y, place)).backward()
    by_hand = torch.zeros_like(linear.weight)
    for sample, target in zip(x, y, strict=True):
        error = linear.weight.detach() @ sample + linear.bias.detach() - target
        by_hand += 2 * torch.outer(error, sample) / y.numel()
    assert_close(linear.weight.grad, by_hand)


@CHECKS.add
def batch_normalisation_breaks_the_equality(place: Place) -> None:
    def model():
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))

    ours, alone = built(model, 7), built(model, 7)
    parallel = train(place, minimal(place, ours), ours, lambda tensor: shard(tensor, place))[-1]
    single = train(place, alone, alone, lambda tensor: tensor)[-1]
    assert (parallel["0.weight"] - single["0.weight"]).abs().max() > 1e-3


@CHECKS.add
def unequal_shards_need_weights(place: Place) -> None:
    x, y = data(3 * place.ranks + 1)
    cuts = [2 * place.ranks + 1, *[1] * (place.ranks - 1)]
    counts = [*cuts[:-1], len(x) - sum(cuts[:-1])]
    mine, target = x.split(counts)[place.rank], y.split(counts)[place.rank]
    wanted = built(perceptron, 7)
    F.mse_loss(wanted(x), y).backward()
    gradients = {}
    for name, factor in {"plain": 1.0, "weighted": place.ranks * len(mine) / len(x)}.items():
        model = built(perceptron, 7)
        (factor * F.mse_loss(minimal(place, model)(mine), target)).backward()
        gradients[name] = [parameter.grad for parameter in model.parameters()]
    assert_close(gradients["weighted"], [parameter.grad for parameter in wanted.parameters()])
    gap = max((a - b.grad).abs().max() for a, b in zip(gradients["plain"], wanted.parameters(), strict=True))
    assert gap > 1e-3


@CHECKS.add
def a_summed_loss_gives_the_gradient_of_one_process_divided_by_the_ranks(place: Place) -> None:
    x, y = data(4 * place.ranks)
    for wrap in both(place):
        model, alone = built(perceptron, 7), built(perceptron, 7)
        replica = wrap(model)
        F.mse_loss(replica(shard(x, place)), shard(y, place), reduction="sum").backward()
        F.mse_loss(alone(x), y, reduction="sum").backward()
        for mine, whole in zip(model.parameters(), alone.parameters(), strict=True):
            assert_close(mine.grad, whole.grad / place.ranks)


@CHECKS.add
def construction_takes_over_rank_0(place: Place) -> None:
    def model():
        module = Convolution()
        module.register_buffer("mask", torch.rand(5) < 0.5)
        module.register_buffer("count", torch.randint(1000, ()))
        module.register_buffer("strided", torch.randn(4, 6).T)
        module.register_buffer("holes", torch.randn(4, 6)[:, ::2])
        module.register_buffer("nothing", torch.empty(0))
        return module

    mine, first = built(model, place.rank), built(model, 0)
    pointers = [tensor.data_ptr() for tensor in mine.state_dict().values()]
    replica = minimal(place, mine)
    assert_close(mine.state_dict(), first.state_dict(), rtol=0, atol=0)
    assert pointers == [tensor.data_ptr() for tensor in mine.state_dict().values()]
    assert list(replica.state_dict()) == [f"module.{name}" for name in first.state_dict()]


@CHECKS.add
def forward_takes_over_buffers_of_rank_0(place: Place) -> None:
    module = nn.BatchNorm1d(4).double()
    replica = minimal(place, module)
    x, _ = data(4, salt=place.rank)
    replica(x).sum().backward()
    means = place.gather(module.running_mean)
    assert not torch.equal(means[0], means[1])
    module.eval()
    replica(x)
    for mean in place.gather(module.running_mean):
        assert_close(mean, means[0], rtol=0, atol=0)


@CHECKS.add
def no_sync_adds_up_and_the_next_backward_averages(place: Place) -> None:
    x, y = data(12 * place.ranks)
    micro = [shard(tensor, place).chunk(3) for tensor in (x, y)]
    models = {name: built(perceptron, 7) for name in ("ours", "torch", "one process")}
    F.mse_loss(models["one process"](x), y).backward()
    ours = minimal(place, models["ours"], first=64, size=250)
    theirs = DistributedDataParallel(models["torch"], process_group=place.group)
    calls, all_reduce = [], dist.all_reduce
    dist.all_reduce = lambda tensor, *args, **named: calls.append(tensor.numel()) or all_reduce(tensor, *args, **named)
    try:
        for replica in (theirs, ours):  # torch's does not call what Python calls
            for number, (a, b) in enumerate(zip(*micro, strict=True)):
                with contextlib.nullcontext() if number == 2 else replica.no_sync():
                    (F.mse_loss(replica(a), b) / 3).backward()
                if number < 2:
                    assert not calls, "communicates within no_sync"
    finally:
        dist.all_reduce = all_reduce
    assert len(calls) == len(ours.buckets) > 1
    assert sum(calls) == sum(parameter.numel() for parameter in models["ours"].parameters())
    for mine, other, alone in zip(*(model.parameters() for model in models.values()), strict=True):
        assert_close(mine.grad, other.grad, **place.exact)
        assert_close(mine.grad, alone.grad)


@CHECKS.add
def gradients_that_are_kept_are_averaged_with_the_new_ones(place: Place) -> None:
    models = [built(perceptron, 7) for _ in range(2)]
    replicas = minimal(place, models[0]), DistributedDataParallel(models[1], process_group=place.group)
    for model in models:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, place.rank)
    for step in range(2):  # without zero_grad between them
        x, y = (shard(tensor, place) for tensor in data(4 * place.ranks, step))
        for replica in replicas:
            F.mse_loss(replica(x), y).backward()
    for mine, other in zip(*(model.parameters() for model in models), strict=True):
        assert_close(mine.grad, other.grad, **place.exact)


@CHECKS.add
def calls_past_the_wrapper_are_not_averaged(place: Place) -> None:
    x, y = (shard(tensor, place) for tensor in data(4 * place.ranks))
    for wrap in both(place):
        model = built(perceptron, 7)
        replica = wrap(model)
        F.mse_loss(replica(x), y).backward()
        model.zero_grad()
        events = list(getattr(replica, "events", ()))
        F.mse_loss(replica.module(x), y).backward()
        assert list(getattr(replica, "events", ())) == events
        gradients = place.gather(model[0].weight.grad)
        assert not torch.allclose(gradients[0], gradients[1])


@CHECKS.add
def only_the_first_backward_of_a_forward_is_averaged(place: Place) -> None:
    x, y = (shard(tensor, place) for tensor in data(4 * place.ranks))
    gradients = []
    for wrap in both(place):
        model = built(perceptron, 7)
        loss = F.mse_loss(wrap(model)(x), y)
        loss.backward(retain_graph=True)
        model.zero_grad()
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert_close(*gradients, rtol=0, atol=0)
    first, second = place.gather(gradients[0][0])[:2]
    assert not torch.allclose(first, second)


@CHECKS.each(no_grad=lambda replica: torch.no_grad(), no_sync=lambda replica: replica.no_sync())
def a_forward_between_leaves_the_pending_backward_alone(place: Place, quiet: Callable) -> None:
    x, y = (shard(tensor, place) for tensor in data(4 * place.ranks))
    for wrap in both(place):
        model = built(perceptron, 7)
        replica = wrap(model)
        loss = F.mse_loss(replica(x), y)
        with quiet(replica):
            replica(x)
        loss.backward()
        gradients = place.gather(model[0].weight.grad)
        assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@CHECKS.add
def evaluation_without_gradients_is_silent_and_changes_nothing(place: Place) -> None:
    model = nn.Sequential(built(perceptron, 7), nn.BatchNorm1d(4).double())
    replica, (x, y) = minimal(place, model), (shard(tensor, place) for tensor in data(4 * place.ranks))
    model.eval()
    if place.rank == 1:  # alone: whatever it sent or waited for would meet nothing
        broadcast, dist.broadcast = dist.broadcast, None
        with torch.no_grad():
            assert_close(replica(x), model(x))
        dist.broadcast = broadcast
    model.train()
    F.mse_loss(replica(x), y).backward()
    gradients = place.gather(model[0][0].weight.grad)
    assert_close(gradients[0], gradients[1], rtol=0, atol=0)


class Crossed(nn.Module):
    """The order in which the two gradients come depends on the rank."""

    def __init__(self, rank: int):
        super().__init__()
        self.a, self.b, self.rank = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3)), rank

    def forward(self, x: Tensor) -> Tensor:
        inner, outer = (self.a, self.b) if self.rank % 2 else (self.b, self.a)
        held = x * inner
        return (held.sin() * outer).sum()


@CHECKS.add
def buckets_are_reduced_in_one_order_on_all_ranks(place: Place) -> None:
    model = Crossed(place.rank).double()
    replica = minimal(place, model, first=1, size=1)
    x = torch.arange(1.0, 4.0, dtype=torch.float64) + place.rank
    replica(x).backward()
    orders = place.gather(torch.tensor([event.index for event in replica.events if event.kind == "gradient"]))
    assert not torch.equal(orders[0], orders[1]), "the gradients came in one order, which shows nothing"
    local = Crossed(place.rank).double()
    local(x).backward()
    for ours, mine in zip(model.parameters(), local.parameters(), strict=True):
        assert_close(ours.grad, sum(place.gather(mine.grad)) / place.ranks)


class Many(nn.Module):
    """Hundreds of parameters, each with the input for its gradient."""

    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList(torch.zeros(1) for _ in range(300))

    def forward(self, x: Tensor) -> Tensor:
        return x * sum(self.weights)


@CHECKS.add
def hundreds_of_buckets_are_averaged(place: Place) -> None:
    model = Many()
    replica = minimal(place, model, first=1, size=1)
    replica(torch.tensor([place.rank + 1.0])).sum().backward()
    assert len(replica.buckets) == 300
    mean = torch.tensor([(place.ranks + 1) / 2])
    assert_close([weight.grad for weight in model.weights], [mean] * 300)


@CHECKS.add
def mean_does_not_overflow_where_the_sum_would(place: Place) -> None:
    model = nn.Linear(2, 1, bias=False).half()
    minimal(place, model)(torch.full((1, 2), 40_000.0, dtype=torch.float16)).sum().backward()
    assert_close(model.weight.grad, torch.full((1, 2), 40_000.0, dtype=torch.float16), rtol=0, atol=0)


@CHECKS.add
def events_tell_what_happened_in_order(place: Place) -> None:
    model = built(perceptron, 7)
    replica = minimal(place, model, first=64, size=250)
    x, y = (shard(tensor, place) for tensor in data(4 * place.ranks))
    for _ in range(2):
        F.mse_loss(replica(x), y).backward()
    moments = {(event.kind, event.index): event.seconds for event in replica.events}
    assert len(moments) == len(replica.events) == 6 + 2 * len(replica.buckets)
    assert len(replica.buckets) == 3
    for number, bucket in enumerate(replica.buckets):
        last = max(moments["gradient", index] for index in bucket.indices)
        assert last <= moments["launch", number] <= moments["done", number]
        if number:
            assert moments["launch", number - 1] <= moments["launch", number]


class Held(torch.autograd.Function):
    """The identity, whose backward pass waits until the first all-reduce has ended."""

    replica = None

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        end = time.monotonic() + 5
        while not any(event.kind == "done" for event in Held.replica.events):
            if time.monotonic() > end:
                raise TimeoutError("no all-reduce ended during the backward pass")
            time.sleep(0.001)
        return gradient


@CHECKS.add
def an_all_reduce_begins_and_ends_amid_the_backward_pass(place: Place) -> None:
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.early, self.late = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x):
            return self.late(Held.apply(self.early(x)))

    model = built(Model, 7)
    Held.replica = minimal(place, model, first=1, size=1000)
    x, y = (shard(tensor, place) for tensor in data(4 * place.ranks))
    F.mse_loss(Held.replica(x), y).backward()
    kinds = [(event.kind, event.index) for event in Held.replica.events]
    assert kinds.index(("done", 0)) < kinds.index(("gradient", 1))


class Branches(nn.Module):
    """Two layers, of which the second takes part only where `both` says so."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)
        self.both = False

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x) + self.idle(x) if self.both else self.used(x)


@CHECKS.add
def a_parameter_without_gradient_is_named_by_the_next_forward(place: Place) -> None:
    x, _ = data(4)
    for wrap in both(place):
        replica = wrap(built(Branches, 7))
        replica(x).sum().backward()
        with pytest.raises(RuntimeError):  # what torch says is torch's
            replica(x)
    model = built(Branches, 7)
    replica = minimal(place, model, first=1, size=1)
    replica(x).sum().backward()
    with pytest.raises(RuntimeError, match=r"no gradient came for idle\.bias, idle\.weight in the backward pass"):
        replica(x)
    model.both = True
    replica(x).sum().backward()
    gradients = place.gather(model.idle.weight.grad)
    assert_close(gradients[0], gradients[1], rtol=0, atol=0)


class Scaled(nn.Module):
    """A buffer that the backward pass needs, and batch normalisation, which changes buffers."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.register_buffer("scale", torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x) * self.scale).tanh()


@CHECKS.add
def two_forwards_and_one_backward_equal_torch(place: Place) -> None:
    one, two = (shard(tensor, place) for tensor in data(4 * place.ranks))
    gradients = []
    for wrap in both(place):
        model = built(Scaled, 7)
        replica = wrap(model)
        (replica(one).sum() + replica(two).sum()).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert_close(*gradients, **place.exact)


@CHECKS.add
def of_two_forwards_and_two_backwards_only_the_first_is_averaged(place: Place) -> None:
    one, two = (shard(tensor, place) for tensor in data(4 * place.ranks))
    gradients = []
    for wrap in both(place):
        model = built(perceptron, 7)
        replica = wrap(model)
        losses = replica(one).sum(), replica(two).sum()
        for loss in losses:
            model.zero_grad()
            loss.backward()
            gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert_close(gradients[:2], gradients[2:], **place.exact)
    (first, other), (mine, theirs) = (place.gather(kind[0])[:2] for kind in gradients[:2])
    assert_close(first, other, rtol=0, atol=0)
    assert not torch.allclose(mine, theirs)


class Recomputed(nn.Module):
    """Each layer in a checkpoint, whose backward pass is one within the other; the second layer so many times."""

    def __init__(self, times: int = 1):
        super().__init__()
        self.layers, self.times = nn.ModuleList(nn.Linear(4, 4) for _ in range(3)), times

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.layers
        x = x.clone().requires_grad_()
        for layer in (first, *[second] * self.times, third):
            x = checkpoint(nn.Sequential(layer, nn.Tanh()), x, use_reentrant=True)
        return x


@CHECKS.add
def layers_in_reentrant_checkpoints_equal_torch(place: Place) -> None:
    x, y = (shard(tensor, place) for tensor in data(4 * place.ranks))
    gradients = []
    for wrap in (partial(minimal, place, first=1, size=1), both(place)[1]):
        model = built(Recomputed, 7)
        replica = wrap(model)
        for _ in range(2):
            F.mse_loss(replica(x), y).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert_close(*gradients, **place.exact)


@CHECKS.add
def two_gradients_in_one_backward_are_an_error(place: Place) -> None:
    model = built(partial(Recomputed, times=2), 7)
    replica, (x, _) = minimal(place, model), data(4)
    with pytest.raises(RuntimeError, match=r"layers\.1\.(weight|bias) got two gradients in one backward pass"):
        replica(x).sum().backward()


@CHECKS.add
def a_deep_copy_averages_and_leaves_the_original_alone(place: Place) -> None:
    x, y = (shard(tensor, place) for tensor in data(4 * place.ranks))
    model = built(perceptron, 7).eval()
    replica = minimal(place, model, first=64, size=250).train()
    model[0].eval()
    copied = copy.deepcopy(replica)
    assert [module.training for module in copied.modules()] == [module.training for module in replica.modules()]
    assert [bucket.indices for bucket in copied.buckets] == [bucket.indices for bucket in replica.buckets]
    F.mse_loss(copied(x), y).backward()
    assert model[0].weight.grad is None
    F.mse_loss(replica(x), y).backward()
    for mine, other in zip(model.parameters(), copied.module.parameters(), strict=True):
        assert_close(mine.grad, other.grad, rtol=0, atol=0)
        assert mine.grad is not other.grad
    gradients = place.gather(copied.module[0].weight.grad)
    assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@CHECKS.each(
    shape=(lambda: nn.Linear(4, 1), lambda: nn.Linear(5, 1), "weight: torch.float32 [1, 5]"),
    type=(lambda: nn.Linear(4, 1), lambda: nn.Linear(4, 1).double(), "weight: torch.float64 [1, 4]"),
    name=(lambda: nn.Linear(4, 1), lambda: nn.Sequential(nn.Linear(4, 1)), "0.weight: torch.float32 [1, 4]"),
    more=(lambda: nn.Linear(4, 1, bias=False), lambda: nn.Linear(4, 1), "bias: torch.float32 [1]"),
    fewer=(lambda: nn.Linear(4, 1), lambda: nn.Linear(4, 1, bias=False), "buckets of"),
    frozen=(lambda: nn.Linear(4, 1), lambda: frozen_bias(), "bias: torch.float32 [1], requires_grad=False"),
    all_frozen=(
        lambda: nn.Linear(4, 1),
        lambda: nn.Linear(4, 1).requires_grad_(False),
        "weight: torch.float32 [1, 4], requires_grad=False",
    ),
    empty=(lambda: nn.Linear(4, 1), lambda: nn.Identity(), "buckets of"),
    buffer=(lambda: nn.BatchNorm1d(4), lambda: nn.BatchNorm1d(4, track_running_stats=False), "buckets of"),
)
def unequal_modules_are_named_on_all_ranks(place: Place, case: tuple) -> None:
    first, other, named = case
    module = other() if place.rank == 1 else first()
    with pytest.raises(ValueError, match=rf"^rank 1 has \({re.escape(named)}.*\) where rank 0 has \("):
        minimal(place, module)


@CHECKS.add
def unequal_buckets_are_named_on_all_ranks(place: Place) -> None:
    sizes = ({}, {"first": 8}, {"size": 1}, {"first": 0}, {})[place.rank]
    with pytest.raises(ValueError, match=r"^rank 1 has \(buckets of 8 and \d+ bytes\) where rank 0 has \(buckets of"):
        minimal(place, nn.Linear(4, 1), **sizes)


def frozen_bias() -> nn.Module:
    module = nn.Linear(4, 1)
    module.bias.requires_grad_(False)
    return module


@CHECKS.add
def a_parameter_unfrozen_after_wrapping_is_not_averaged(place: Place) -> None:
    x, _ = (shard(tensor, place) for tensor in data(4 * place.ranks))
    for wrap in both(place):
        model = built(perceptron, 7)
        model[0].weight.requires_grad_(False)
        replica = wrap(model)
        model[0].weight.requires_grad_()
        replica(x).sum().backward()
        (first, other), (one, two) = (place.gather(p.grad)[:2] for p in (model[0].bias, model[0].weight))
        assert_close(first, other, rtol=0, atol=0)
        assert not torch.allclose(one, two)


@CHECKS.add
def backward_does_not_wait_for_a_silent_rank_beyond_the_limit(place: Place) -> None:
    group = place.short_group()
    replica = place.module.MinimalDDP(built(perceptron, 7), group=group)
    begun = time.perf_counter()
    if place.rank:
        with pytest.raises(RuntimeError):  # what it says is gloo's
            replica(data(4)[0]).sum().backward()
        assert time.perf_counter() - begun < LIMIT.total_seconds()


# What the page says about torch's


@CHECKS.add
def torch_begins_with_a_bucket_of_1_mib_and_then_takes_25(place: Place) -> None:
    assert (place.module.FIRST_BUCKET, place.module.BUCKET) == (2**20, 25 * 2**20)
    model = nn.Sequential(*(nn.Linear(500, 500, bias=False) for _ in range(32)))
    replica, sizes = DistributedDataParallel(model, process_group=place.group), []

    def note(_, bucket):
        sizes[-1].append(bucket.buffer().nbytes)
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    replica.register_comm_hook(None, note)
    for _ in range(2):
        sizes.append([])
        replica(torch.ones(1, 500)).sum().backward()
    megabytes = 10**6  # what one of the weights takes; a bucket passes its size by at most that
    assert sizes == [[32 * megabytes], [2 * megabytes, 27 * megabytes, 3 * megabytes]]
    ours = place.module.assign_buckets(list(model.parameters()))
    assert [megabytes * len(bucket) for bucket in ours] == sizes[1]


@CHECKS.add
def torch_averages_a_forward_outside_of_no_sync(place: Place) -> None:
    x, y = (shard(tensor, place) for tensor in data(4 * place.ranks))
    for wrap in both(place):
        model = built(perceptron, 7)
        replica = wrap(model)
        loss = F.mse_loss(replica(x), y)
        with replica.no_sync():
            loss.backward()
        gradients = place.gather(model[0].weight.grad)
        assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@CHECKS.each(all=True, active=False)
def join_divides_by_all_ranks_or_by_those_left(place: Place, by_all: bool) -> None:
    """Rank 0 has one batch more than the others: with `join`, its last gradient is divided by p, or by 1."""
    model = built(perceptron, 7)
    replica = DistributedDataParallel(model, process_group=place.group)
    batches = [data(4, salt) for salt in range(2 if place.rank == 0 else 1)]
    before, last = None, None
    with Join([replica], divide_by_initial_world_size=by_all):
        for x, y in batches:
            model.zero_grad()
            F.mse_loss(replica(x), y).backward()
            before, last = state(model), model[0].weight.grad.clone()
    if place.rank == 0:
        alone = built(perceptron, 7)
        alone.load_state_dict(before)
        F.mse_loss(alone(batches[-1][0]), batches[-1][1]).backward()
        assert_close(last, alone[0].weight.grad / (place.ranks if by_all else 1))


@CHECKS.add
def sampler_pads_and_repeats(place: Place) -> None:
    dataset = list(range(4 * place.ranks - 1))
    sampler = DistributedSampler(dataset, place.ranks, place.rank, shuffle=True, seed=5)
    drawn = torch.tensor(list(sampler))
    everyones = torch.cat(place.gather(drawn)).bincount(minlength=len(dataset))
    assert len(drawn) == 4
    assert sorted(everyones.tolist()) == [1] * (len(dataset) - 1) + [2]
    assert list(sampler) == drawn.tolist(), "another order without set_epoch"
    sampler.set_epoch(1)
    assert list(sampler) != drawn.tolist()


# Lines broken on purpose: {what: (what stands there, what is put there, the check that must fail)}
MUTATIONS = {
    "no division by the world size": (
        "bucket.flat.div_(dist.get_world_size(self.group))",
        "pass",
        "ranks_with_batch_b_equal_one_process_with_all",
    ),
    "a hook that fires before accumulation ends": (
        "parameters[index].register_post_accumulate_grad_hook(hook)",
        "parameters[index].register_hook(lambda _, hook=hook, parameter=parameters[index]: hook(parameter))",
        "gradients_that_are_kept_are_averaged_with_the_new_ones",
    ),
    "hooks that fire within no_sync": (
        "if self._synchronise and torch.is_grad_enabled():",
        "if torch.is_grad_enabled():",
        "no_sync_adds_up_and_the_next_backward_averages",
    ),
    "a forward without gradients that disarms": (
        "if self._synchronise and torch.is_grad_enabled():",
        "self._armed = self._synchronise and torch.is_grad_enabled()\n        if self._armed:",
        "a_forward_between_leaves_the_pending_backward_alone-no_grad",
    ),
    "buckets reduced as they fill": (
        "while self._next < len(self.buckets) and not self.buckets[self._next].missing:",
        "for self._next in [self.buckets.index(bucket)] * (not bucket.missing):",
        "buckets_are_reduced_in_one_order_on_all_ranks",
    ),
    "no broadcast of the parameters": (
        "_broadcast([*module.parameters(), *module.buffers()], group)",
        "_broadcast([*module.buffers()], group)",
        "construction_takes_over_rank_0",
    ),
    "no broadcast of the buffers": (
        "_broadcast(list(self.module.buffers()), self.group)",
        "pass",
        "forward_takes_over_buffers_of_rank_0",
    ),
    "a broadcast that the graph notices": (
        "data = tensor.data",
        "data = tensor.detach()",
        "two_forwards_and_one_backward_equal_torch",
    ),
    "an end with the first backward pass": (
        "if self._next == len(self.buckets):",
        "if self._next == 1:",
        "layers_in_reentrant_checkpoints_equal_torch",
    ),
    "a second gradient that goes unnoticed": (
        "if index not in bucket.missing:",
        "if False:",
        "two_gradients_in_one_backward_are_an_error",
    ),
    "copies without hooks": (
        "def __deepcopy__(self",
        "def _unused(self",
        "a_deep_copy_averages_and_leaves_the_original_alone",
    ),
    "modules that nobody compares": (
        "if one != other:",
        "if False:",
        "unequal_modules_are_named_on_all_ranks-frozen",
    ),
    "communication when all is over": (
        "            self._launch(self.buckets[self._next], self._next)",
        "            Variable._execution_engine.queue_callback("
        "partial(self._launch, self.buckets[self._next], self._next))",
        "an_all_reduce_begins_and_ends_amid_the_backward_pass",
    ),
}
