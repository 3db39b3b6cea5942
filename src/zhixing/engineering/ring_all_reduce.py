"""All-reduce by sends and receives: around a ring, and through one rank for comparison.

Source: Patarasuk & Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations,
Journal of Parallel and Distributed Computing 69 (2), 117-124, 2009.
"""

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor


@dataclass(frozen=True)
class Transfer:
    """One message that this rank sent: in which step, which chunk, how large, from when to when.

    Examples:
        >>> Transfer(step=0, chunk=1, elements=60, start=0.5, end=0.75).elements
        60
    """

    step: int
    chunk: int
    elements: int
    start: float  # seconds of `time.perf_counter`, which a machine's processes share
    end: float  # when this rank had sent its message and received the one of the step


def ring_all_reduce(
    x: Shaped[Tensor, "*shape"],
    *,
    group: dist.ProcessGroup | None = None,
    log: list[Transfer] | None = None,
) -> Shaped[Tensor, "*shape"]:
    """The sum of all p ranks' `x`, by 2 (p - 1) steps in each of which a rank passes one chunk on.

    Each rank sends to the next one only. In the first p - 1 steps (reduce-scatter) a chunk gathers
    one more summand on each rank that it visits; in the last p - 1 (all-gather) the finished chunks
    go round. Every chunk is summed in one place, hence the result is the same on all ranks to the
    last bit. With n elements, all ranks together send 2 (p - 1) n; where p divides n, each sends
    2 (p - 1) / p · n.

    Args:
        x: Of one shape and type on all ranks, which nothing checks: other shapes end in an error or
            a crash, other types in a wrong sum, as with `dist.all_reduce`. It may be empty, or have
            fewer than p elements.
        group: The ranks that take part; all of them if None. Each must call.
        log: Where each message of this rank is noted.

    Returns:
        A new tensor of the shape, type and device of `x`. It is no part of the autograd graph.

    Raises:
        RuntimeError: A neighbour is gone, or silent for longer than the time limit of the group.

    Examples:
        One rank alone; torchrun starts as many as you like.

        >>> import torch
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> ring_all_reduce(torch.arange(3.0))
        tensor([0., 1., 2.])
        >>> dist.destroy_process_group()
    """
    rank, p = dist.get_rank(group), dist.get_world_size(group)
    total = x.detach().clone(memory_format=torch.contiguous_format)
    # Views of `total`, one a rank; the first ones are the longest, by one element.
    chunks = total.view(-1).tensor_split(p)
    arriving = torch.empty_like(chunks[0])
    for step in range(2 * (p - 1)):
        outgoing, incoming = chunks[(rank - step) % p], chunks[(rank - step - 1) % p]
        arrived = arriving[: len(incoming)]
        start = time.perf_counter()
        _exchange(outgoing, (rank + 1) % p, arrived, (rank - 1) % p, group)
        if log is not None:
            end = time.perf_counter()
            log.append(Transfer(step, (rank - step) % p, len(outgoing), start, end))
        if step < p - 1:
            incoming += arrived
        else:
            incoming.copy_(arrived)
    return total


def star_all_reduce(
    x: Shaped[Tensor, "*shape"],
    *,
    group: dist.ProcessGroup | None = None,
    log: list[Transfer] | None = None,
) -> Shaped[Tensor, "*shape"]:
    """The same sum through rank 0, which receives n elements from each of the others and answers.

    All ranks together send as much as in the ring, 2 (p - 1) n elements, but half of it leaves
    from rank 0, and the other half arrives there. Arguments, result and errors are those of
    `ring_all_reduce`.

    Examples:
        One rank alone; torchrun starts as many as you like.

        >>> import torch
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> star_all_reduce(torch.arange(3.0))
        tensor([0., 1., 2.])
        >>> dist.destroy_process_group()
    """
    rank, p = dist.get_rank(group), dist.get_world_size(group)
    total = x.detach().clone(memory_format=torch.contiguous_format)
    flat, start = total.view(-1), time.perf_counter()
    if rank == 0:
        arriving = torch.empty_like(flat)
        for other in range(1, p):
            dist.recv(arriving, group=group, group_src=other)
            flat += arriving
        for other in range(1, p):
            dist.send(flat, group=group, group_dst=other)
    else:
        dist.send(flat, group=group, group_dst=0)
        dist.recv(flat, group=group, group_src=0)
    if log is not None:
        messages = p - 1 if rank == 0 else 1
        log.extend([Transfer(0, 0, len(flat), start, time.perf_counter())] * messages)
    return total


def _exchange(
    outgoing: Tensor, to: int, arriving: Tensor, source: int, group: dist.ProcessGroup | None
) -> None:
    """Send and receive at once: if all ranks first sent and then received, all could wait."""
    pair = [
        dist.P2POp(dist.isend, outgoing, group=group, group_peer=to),
        dist.P2POp(dist.irecv, arriving, group=group, group_peer=source),
    ]
    for work in dist.batch_isend_irecv(pair):
        work.wait()
