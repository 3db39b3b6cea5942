"""Data parallelism in its smallest form: equal replicas, whose gradients are averaged in buckets.

Source: Li et al., PyTorch Distributed: Experiences on Accelerating Data Parallel Training,
arXiv 2006.15704, section 3.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Variable

# In bytes, what torch takes if it is told nothing: 1 MiB and 25 MiB.
FIRST_BUCKET = 2**20
BUCKET = 25 * 2**20


def assign_buckets(
    tensors: Sequence[Tensor], *, first: int = FIRST_BUCKET, size: int = BUCKET
) -> list[list[int]]:
    """Which tensors share a bucket: lists of indices, last tensor first, as gradients arrive.

    A bucket is closed as soon as it holds at least its size, which it may pass, and where the next
    tensor is of another type or on another device, since it is one tensor itself.

    Args:
        tensors: Parameters in the order in which the forward pass uses them.
        first: Size of the first bucket in bytes; small, so that communication begins early.
        size: Size of the others in bytes.

    Raises:
        ValueError: A size is not positive.

    Examples:
        >>> import torch
        >>> assign_buckets([torch.empty(10) for _ in range(5)], first=40, size=80)
        [[4], [3, 2], [1, 0]]
    """
    if min(first, size) <= 0:
        raise ValueError(f"buckets need a positive size, but first is {first} and size is {size}")
    buckets, room, before = [], 0, None
    for index, tensor in reversed(list(enumerate(tensors))):
        kind = tensor.dtype, tensor.device
        if room <= 0 or kind != before:
            room, before = size if buckets else first, kind
            buckets.append([])
        buckets[-1].append(index)
        room -= tensor.nbytes
    return buckets


@dataclass(frozen=True)
class Event:
    """What happened when: a parameter's gradient was complete, a bucket's all-reduce began, ended.

    On a GPU, where the host runs ahead, these are the times of the host.

    Examples:
        >>> Event("launch", 0, 1.5)
        Event(kind='launch', index=0, seconds=1.5)
    """

    kind: str  # "gradient", "launch" or "done"
    index: int  # of the parameter, or of the bucket
    seconds: float  # of `time.perf_counter`, which the processes of a machine share


class Bucket:
    """Gradients that are sent as one tensor, `flat`; `views` are its parts, one a parameter.

    Examples:
        >>> import torch
        >>> two, three = (torch.nn.Parameter(torch.full((n,), 1.0 * n)) for n in (2, 3))
        >>> bucket = Bucket([1, 0], [three, two])
        >>> bucket.flat, [len(view) for view in bucket.views]
        (tensor([3., 3., 3., 2., 2.]), [3, 2])
    """

    def __init__(self, indices: list[int], parameters: list[nn.Parameter]):
        self.indices, self.parameters = indices, parameters
        self.flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        parts = self.flat.split([parameter.numel() for parameter in parameters])
        self.views = [
            part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)
        ]
        self.missing = set(indices)
        self.work: dist.Work | None = None
        self.noted: torch.futures.Future | None = None


class MinimalDDP(nn.Module):
    """Wraps the replica of one rank; after each backward pass all ranks hold the mean gradient.

    A small `torch.nn.parallel.DistributedDataParallel`, with the same results. It leaves out what
    that does for parameters without a gradient, sparse gradients, uneven inputs (`join`), several
    types in one bucket and pickling (save `module.state_dict()`), and it does not reorder its
    buckets after the first step. A parameter that several reentrant checkpoints share is not
    supported. As in torch:

    - the last forward decides: of two forwards followed by two backward passes, the first backward
      is averaged and the second is not. Add the losses, and call `backward` once;
    - a parameter that is unfrozen after wrapping is not averaged: wrap again;
    - a parameter without gradient is noticed by the next forward, not by its backward pass.

    Args:
        module: Of the same structure on all ranks; takes over rank 0's parameters and buffers, in
            place.
        first: Size of the first bucket in bytes.
        size: Size of the others in bytes.
        group: The ranks that take part; all of them if None.

    Attributes:
        module: What was wrapped.
        buckets: In the order in which they are reduced.
        events: What happened since the last forward that ended in averaged gradients.

    Raises:
        ValueError: No parameter requires a gradient, a size is not positive, or a rank's module or
            sizes differ from rank 0's; then all ranks raise it.
        RuntimeError: From `forward`, where a parameter got no gradient in the backward pass before;
            from `backward`, where one got two; from any of the communication, where a rank is gone
            or silent for longer than the group's time limit.

    Examples:
        One rank alone; torchrun starts as many as you like.

        >>> import torch
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> replica = MinimalDDP(torch.nn.Linear(2, 1))
        >>> replica(torch.ones(3, 2)).sum().backward()
        >>> replica.module.weight.grad
        tensor([[3., 3.]])
        >>> dist.destroy_process_group()
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        first: int = FIRST_BUCKET,
        size: int = BUCKET,
        group: dist.ProcessGroup | None = None,
    ):
        super().__init__()
        # Before this rank refuses anything by itself, since the others would wait for it.
        if dist.is_initialized():
            _require_equal_modules(module, first, size, group)
        self._prepare(module, first, size, group)
        _broadcast([*module.parameters(), *module.buffers()], group)

    def forward(self, *inputs, **named):
        """The module's own; rank 0's buffers go to all ranks before it, if gradients will after."""
        # Otherwise nothing is disarmed: a pass without gradients may come before the backward pass.
        if self._synchronise and torch.is_grad_enabled():
            begun = self._armed and any(event.kind == "gradient" for event in self.events)
            missing = [self.names[i] for b in self.buckets for i in sorted(b.missing)]
            self._armed, self._next, self.events = True, 0, []
            for bucket in self.buckets:
                bucket.missing = set(bucket.indices)
            if begun:
                raise RuntimeError(
                    f"no gradient came for {', '.join(missing)} in the backward pass before: each "
                    "parameter must take part in the loss, or be frozen before it is wrapped"
                )
            _broadcast(list(self.module.buffers()), self.group)
        return self.module(*inputs, **named)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within, gradients add up on each rank; the next backward pass averages the sum."""
        before, self._synchronise = self._synchronise, False
        try:
            yield
        finally:
            self._synchronise = before

    def _on_gradient(self, bucket: Bucket, index: int, view: Tensor, parameter: Tensor) -> None:
        """Called by autograd during the backward pass, when `parameter.grad` is complete."""
        if not self._armed:
            return
        if index not in bucket.missing:
            self._armed = False
            raise RuntimeError(f"{self.names[index]} got two gradients in one backward pass")
        self._note("gradient", index)
        view.copy_(parameter.grad)
        bucket.missing.remove(index)
        # In order, even if a later bucket is full first: all ranks must reduce the same one.
        while self._next < len(self.buckets) and not self.buckets[self._next].missing:
            self._launch(self.buckets[self._next], self._next)
            self._next += 1
        if self._next == len(self.buckets):
            Variable._execution_engine.queue_callback(self._finish)

    def _launch(self, bucket: Bucket, number: int) -> None:
        # Before the sum, which could overflow in half precision where the mean does not.
        bucket.flat.div_(dist.get_world_size(self.group))
        self._note("launch", number)
        bucket.work = dist.all_reduce(bucket.flat, group=self.group, async_op=True)
        bucket.noted = bucket.work.get_future().then(lambda _: self._note("done", number))

    def _finish(self) -> None:
        """Called by autograd when the backward pass is over: put the means in place."""
        self._armed = False
        for bucket in self.buckets:
            bucket.work.wait()
            bucket.noted.wait()
            for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
                parameter.grad.copy_(view)

    def _prepare(
        self, module: nn.Module, first: int, size: int, group: dist.ProcessGroup | None
    ) -> None:
        """What needs no other rank: buckets, and a hook at each parameter that learns."""
        self.module, self.first, self.size, self.group = module, first, size, group
        learned = {n: p for n, p in module.named_parameters() if p.requires_grad}
        if not learned:
            raise ValueError("no parameter requires a gradient: there is nothing to average")
        self.names, parameters = list(learned), list(learned.values())
        self.buckets = [
            Bucket(indices, [parameters[index] for index in indices])
            for indices in assign_buckets(parameters, first=first, size=size)
        ]
        self.events: list[Event] = []
        # Whether a forward arms the hooks, whether they are armed; the bucket to be reduced next.
        self._synchronise, self._armed, self._next = True, False, 0
        for bucket in self.buckets:
            for index, view in zip(bucket.indices, bucket.views, strict=True):
                hook = partial(self._on_gradient, bucket, index, view)
                parameters[index].register_post_accumulate_grad_hook(hook)

    # Parameters are copied without their hooks, so the copy needs hooks of its own.
    def __deepcopy__(self, memo: dict) -> "MinimalDDP":
        twin = type(self).__new__(type(self))
        nn.Module.__init__(twin)
        twin._prepare(copy.deepcopy(self.module, memo), self.first, self.size, self.group)
        twin.training = self.training
        return twin

    def _note(self, kind: str, index: int) -> None:
        self.events.append(Event(kind, index, time.perf_counter()))


def _require_equal_modules(
    module: nn.Module, first: int, size: int, group: dist.ProcessGroup | None
) -> None:
    """Unequal ones would send messages of unequal lengths, which crashes or gives wrong sums."""
    mine = [
        f"{name}: {tensor.dtype} {[*tensor.shape]}, requires_grad={tensor.requires_grad}"
        for name, tensor in chain(module.named_parameters(), module.named_buffers())
    ]
    mine.append(f"buckets of {first} and {size} bytes")
    everyones = [mine] * dist.get_world_size(group)
    dist.all_gather_object(everyones, mine, group=group)
    for rank, theirs in enumerate(everyones):
        for one, other in zip_longest(theirs, everyones[0], fillvalue="nothing"):
            if one != other:
                raise ValueError(f"rank {rank} has ({one}) where rank 0 has ({other})")


def _broadcast(tensors: list[Tensor], group: dist.ProcessGroup | None) -> None:
    for tensor in tensors:
        # `data` has a version counter of its own: a graph that holds a buffer for its backward pass
        # must not take the next forward's broadcast for a change in place.
        data = tensor.data
        # Communication wants contiguous memory, which a parameter need not have.
        dense = data.contiguous()
        dist.broadcast(dense, group=group, group_src=0)
        data.copy_(dense)
