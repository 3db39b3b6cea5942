"""Checks of all-reduce on several ranks at once."""

import time
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from on_ranks import LIMIT, Checks, Place, built, data, perceptron, shard
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

CHECKS = Checks()
ON_FOUR_RANKS = (  # the beginnings of their names
    "ring_and_star_equal_all_reduce-fewer",
    "ring_and_star_equal_all_reduce-prime",
    "ring_and_star_give_all_ranks_the_same_bits",
    "ring_sends_the_traffic",
    "star_sends_as_much",
    "ring_notes_its_steps",
    "ring_and_star_among_some",
    "torch_with_our_ring",
)


def seeded(place: Place, *shape: int, dtype: torch.dtype = torch.float64, salt: int = 0) -> Tensor:
    """Another tensor on each rank; small integers, whose sums are exact."""
    generator = torch.Generator().manual_seed(100 * salt + place.rank)
    return torch.randint(-8, 9, shape, generator=generator).to(dtype)


def reductions(place: Place) -> tuple[Callable, Callable]:
    return place.module.ring_all_reduce, place.module.star_all_reduce


SHAPES = {
    "empty": (0,),
    "empty matrix": (3, 0),
    "scalar": (),
    "one": (1,),
    "fewer than ranks": (3,),
    "odd": (7,),
    "prime": (1009,),
    "image": (2, 3, 5, 4),
    "large": (300_000,),
}


@CHECKS.each(**SHAPES)
def ring_and_star_equal_all_reduce(place: Place, shape: tuple[int, ...]) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8):
        x = seeded(place, *shape, dtype=dtype)
        wanted = x.clone()
        dist.all_reduce(wanted, group=place.group)
        for reduce in reductions(place):
            assert_close(reduce(x, group=place.group), wanted, rtol=0, atol=0)


@CHECKS.add
def ring_and_star_equal_all_reduce_of_real_numbers(place: Place) -> None:
    generator = torch.Generator().manual_seed(place.rank)
    for scale in (1e-300, 1.0, 1e300):
        x = scale * torch.randn(101, 3, dtype=torch.float64, generator=generator)
        wanted = x.clone()
        dist.all_reduce(wanted, group=place.group)
        for reduce in reductions(place):
            assert_close(reduce(x, group=place.group), wanted, rtol=1e-12, atol=scale * 1e-13)


@CHECKS.add
def ring_and_star_give_all_ranks_the_same_bits(place: Place) -> None:
    generator = torch.Generator().manual_seed(place.rank)
    x = torch.randn(997, generator=generator) * 10 ** (6 * torch.rand(997, generator=generator))
    for reduce in reductions(place):
        for other in place.gather(reduce(x, group=place.group)):
            assert_close(other, reduce(x, group=place.group), rtol=0, atol=0)


@CHECKS.add
def ring_and_star_take_what_is_not_contiguous(place: Place) -> None:
    whole = seeded(place, 6, 10)
    for x in (whole.T, whole[::2, 1::3], whole[:0], whole.reshape(2, 3, 2, 5).to(memory_format=torch.channels_last)):
        before, wanted = x.clone(), x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(wanted, group=place.group)
        for reduce in reductions(place):
            assert_close(reduce(x, group=place.group), wanted, rtol=0, atol=0)
            assert_close(x, before, rtol=0, atol=0)


@CHECKS.add
def ring_leaves_its_argument_and_the_graph_alone(place: Place) -> None:
    x = seeded(place, 5).requires_grad_()
    for reduce in reductions(place):
        total = reduce(x, group=place.group)
        assert not total.requires_grad
        assert_close(x.detach(), seeded(place, 5), rtol=0, atol=0)


@CHECKS.add
def ring_sends_the_traffic_of_the_closed_form(place: Place) -> None:
    # The lower bound of Patarasuk & Yuan: in any all-reduce of n elements some rank sends at least 2 (p - 1) / p n.
    p = place.ranks
    for n in (0, 1, 3, 12, 60, 1009):
        sent = []
        batch = dist.batch_isend_irecv

        def counting(pair, sent=sent, batch=batch):
            sent.extend((op.tensor.numel(), op.group_peer) for op in pair if op.op is dist.isend)
            return batch(pair)

        dist.batch_isend_irecv = counting
        log = []
        try:
            place.module.ring_all_reduce(seeded(place, n), group=place.group, log=log)
        finally:
            dist.batch_isend_irecv = batch
        assert [(transfer.elements, (place.rank + 1) % p) for transfer in log] == sent
        assert len(sent) == 2 * (p - 1)
        mine = sum(elements for elements, _ in sent)
        everyones = int(sum(place.gather(torch.tensor(mine))))
        assert everyones == 2 * (p - 1) * n
        assert abs(mine - 2 * (p - 1) / p * n) <= 2
        if n % p == 0:
            assert mine == 2 * (p - 1) * n // p


@CHECKS.add
def star_sends_as_much_but_half_of_it_from_rank_0(place: Place) -> None:
    p, n, log, begun = place.ranks, 60, [], time.perf_counter()
    place.module.star_all_reduce(seeded(place, n), group=place.group, log=log)
    assert {(transfer.step, transfer.chunk) for transfer in log} == {(0, 0)}
    assert all(begun <= transfer.start <= transfer.end <= time.perf_counter() for transfer in log)
    assert sum(transfer.elements for transfer in log) == ((p - 1) * n if place.rank == 0 else n)


@CHECKS.add
def ring_notes_its_steps_in_order(place: Place) -> None:
    p, log, begun = place.ranks, [], time.perf_counter()
    place.module.ring_all_reduce(seeded(place, 4 * p), group=place.group, log=log)
    assert [transfer.step for transfer in log] == list(range(2 * (p - 1)))
    assert [transfer.chunk for transfer in log] == [(place.rank - step) % p for step in range(2 * (p - 1))]
    times = [moment for transfer in log for moment in (transfer.start, transfer.end)]
    assert times == sorted(times)
    assert begun <= times[0] <= times[-1] <= time.perf_counter()


@CHECKS.add
def ring_and_star_among_some_of_the_ranks(place: Place) -> None:
    members = [place.ranks - 1, 0] if place.ranks == 2 else [3, 1, 2]
    group = dist.new_group(members, timeout=LIMIT)
    if place.rank in members:
        x = seeded(place, 7)
        wanted = sum(seeded(Place(rank, 0, None, place.module), 7) for rank in members)
        for reduce in reductions(place):
            assert_close(reduce(x, group=group), wanted, rtol=0, atol=0)


@CHECKS.add
def ring_does_not_wait_for_a_silent_neighbour_beyond_the_limit(place: Place) -> None:
    group = place.short_group()
    begun = time.perf_counter()
    if place.rank:
        with pytest.raises(RuntimeError):  # what it says is gloo's
            place.module.ring_all_reduce(torch.ones(1 << 20), group=group)
        assert time.perf_counter() - begun < LIMIT.total_seconds()


@CHECKS.add
def torch_with_our_ring_equals_torch(place: Place) -> None:
    def around_the_ring(group, bucket):
        done = torch.futures.Future()
        done.set_result(place.module.ring_all_reduce(bucket.buffer() / place.ranks, group=group))
        return done

    models = [built(perceptron, 7) for _ in range(2)]
    replicas = [DistributedDataParallel(model, process_group=place.group) for model in models]
    replicas[1].register_comm_hook(place.group, around_the_ring)
    for step in range(3):
        x, y = (shard(tensor, place) for tensor in data(4 * place.ranks, step))
        for replica in replicas:
            replica.zero_grad()
            F.mse_loss(replica(x), y).backward()
        for plain, ring in zip(*(model.parameters() for model in models), strict=True):
            assert_close(ring.grad, plain.grad, **place.exact)


# Lines broken on purpose: {what: (what stands there, what is put there, the check that must fail)}
MUTATIONS = {
    "chunks that are not added": (
        "incoming += arrived",
        "incoming.copy_(arrived)",
        "ring_and_star_equal_all_reduce-odd",
    ),
    "one step too few": (
        "for step in range(2 * (p - 1)):",
        "for step in range(2 * (p - 1) - 1):",
        "ring_and_star_equal_all_reduce-odd",
    ),
}
