"""Minimal DDP on real processes: against torch's, against one process, with a rank that stays silent, lines broken."""

import random
from pathlib import Path

import checks_ddp as checks
import pytest
import torch
import torch.distributed as dist
from torch import nn

from zhixing.engineering import ddp
from zhixing.engineering.ddp import BUCKET, FIRST_BUCKET, Event, MinimalDDP, assign_buckets


@pytest.mark.processes
def test_on_ranks(wrong_on_ranks, check, ranks):
    assert wrong_on_ranks("ddp", check, ranks) == ""


@pytest.mark.processes
@pytest.mark.mutation
@pytest.mark.parametrize("mutation", checks.MUTATIONS)
def test_broken_line_is_noticed(wrong_on_ranks, mutation):
    line, _, check = checks.MUTATIONS[mutation]
    assert Path(ddp.__file__).read_text().count(line) == 1
    assert wrong_on_ranks("ddp", check, 2) == "", "fails with the line as it is"
    assert wrong_on_ranks("ddp", mutation, 2), f"{check} does not notice"


def test_events_cannot_be_changed():
    event = Event("launch", 0, 1.5)
    with pytest.raises(AttributeError):
        event.seconds = 2.5
    assert {event: "equal"}[Event("launch", 0, 1.5)] == "equal"


# Buckets


def test_buckets_equal_those_of_torch():
    draw = random.Random(0)
    for _ in range(200):
        tensors = [torch.empty(draw.choice([0, 1, 3, 10, 50])) for _ in range(draw.randint(1, 12))]
        first, size = draw.randint(1, 300), draw.randint(1, 300)
        reverse, _ = dist._compute_bucket_assignment_by_size(tensors[::-1], [first, size])
        wanted = [[len(tensors) - 1 - index for index in bucket] for bucket in reverse]
        assert assign_buckets(tensors, first=first, size=size) == wanted


def test_default_buckets_of_a_model_worked_by_hand():
    # 4 bytes · 2**18 are 1 MiB: the last weight fills the first bucket, 25 more fill the second.
    weights = [torch.empty(2**9, 2**9, device="meta") for _ in range(30)]
    assert [len(bucket) for bucket in assign_buckets(weights)] == [1, 25, 4]
    assert (FIRST_BUCKET, BUCKET) == (1_048_576, 26_214_400)
    assert dist._DEFAULT_FIRST_BUCKET_BYTES == FIRST_BUCKET


def test_bucket_holds_one_type_only():
    tensors = [torch.empty(2, dtype=dtype) for dtype in (torch.float32, torch.float16, torch.float16, torch.float32)]
    assert assign_buckets(tensors) == [[3], [2, 1], [0]]
    assert assign_buckets([]) == []


@pytest.mark.wrong_input
@pytest.mark.parametrize(("first", "size"), [(0, 1), (1, 0), (-1, -1)])
def test_refuses_buckets_without_a_size(first, size):
    with pytest.raises(ValueError, match=f"positive size, but first is {first} and size is {size}"):
        assign_buckets([torch.ones(1)], first=first, size=size)


@pytest.mark.wrong_input
@pytest.mark.parametrize("module", [nn.ReLU(), nn.Linear(2, 2).requires_grad_(False)], ids=["none", "frozen"])
def test_refuses_a_module_that_learns_nothing(module):
    with pytest.raises(ValueError, match="no parameter requires a gradient"):
        MinimalDDP(module)
