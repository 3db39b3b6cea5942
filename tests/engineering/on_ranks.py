"""Run checks on several ranks at once: `python checks_ddp.py RANKS FOLDER MODULE`, as conftest.py starts it.

Each check runs on all ranks; after one that fails the next ones run in a new process group, which it cannot disturb.
"""

import sys
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
import torch._dynamo  # torch's DDP and optimizers do, at first use: once for all ranks, as these are forks
import torch.distributed as dist
from torch import Tensor, nn

LIMIT = timedelta(seconds=20)


@dataclass
class Place:
    """Where a check runs: its rank among how many, their group, and the module that is checked."""

    rank: int
    ranks: int
    group: dist.ProcessGroup | None
    module: types.ModuleType

    @property
    def exact(self) -> dict[str, float]:
        """Two summands have one sum; with more, the order in which they are added shows in the last bits."""
        return {"rtol": 0, "atol": 0} if self.ranks == 2 else {}

    def gather(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.ranks)]
        dist.all_gather(found, tensor.detach().contiguous(), group=self.group)
        return found

    def short_group(self, seconds: float = 1.0) -> dist.ProcessGroup:
        dist.barrier()  # the ranks meet within the limit, too
        return dist.new_group(timeout=timedelta(seconds=seconds))


Check = Callable[[Place], None]


class Checks(dict[str, Check]):
    """{name: check}"""

    def add(self, function: Check) -> Check:
        self[function.__name__] = function
        return function

    def each(self, **cases: object) -> Callable:
        """The check once for each case, which is its second argument."""

        def register(function: Callable) -> Callable:
            for name, case in cases.items():
                self[f"{function.__name__}-{name}"] = partial(lambda place, case: function(place, case), case=case)
            return function

        return register


# What is trained, and on what: the same on all ranks


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4))


def built(model: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return model().double()


def data(count: int, salt: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 + salt)
    return tuple(torch.randn(count, 4, dtype=torch.float64, generator=generator) for _ in range(2))


def shard(tensor: Tensor, place: Place) -> Tensor:
    return tensor.chunk(place.ranks)[place.rank]


# Running


def broken(module: types.ModuleType, old: str, new: str) -> types.ModuleType:
    """The module, with one piece of its source replaced."""
    mutated = types.ModuleType("mutated")
    sys.modules[mutated.__name__] = mutated  # where its dataclasses look for their types
    exec(compile(Path(module.__file__).read_text().replace(old, new), "mutated.py", "exec"), vars(mutated))
    return mutated


def run(place: Place, check: Check) -> str:
    """What went wrong; nothing if nothing did. If anything did on any rank, the next check gets a group of its own."""
    place.group = place.group or dist.new_group(timeout=LIMIT)
    wrong = ""
    try:
        check(place)
    except (Exception, pytest.fail.Exception):
        wrong = traceback.format_exc()
    failures = torch.tensor(float(bool(wrong)))
    dist.all_reduce(failures)
    if failures:
        dist.destroy_process_group(place.group)
        place.group = None
    return wrong
