"""Processes that are started: what they return, what is said of those that fail, and that none is left."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from zhixing.engineering.launch import TORCHRUN, end_all, launch, run_all, torchrun


@pytest.mark.processes
def test_launch_returns_what_each_rank_returned():
    def place():
        return [dist.get_rank(), dist.get_world_size(), torch.get_num_threads()]

    def total():
        x = torch.tensor([dist.get_rank() + 1.0])
        dist.all_reduce(x)
        return x

    # Names that the program itself could use.
    def run():
        return main() + sys()

    def main():
        return 1

    def sys():
        return 2

    found = launch(place, total, run, ranks=2, using=[main, sys])
    assert found == {"place": [[0, 2, 1], [1, 2, 1]], "total": [torch.tensor([3.0])] * 2, "run": [3, 3]}


@pytest.mark.processes
def test_fork_that_fails_is_told_of_and_ends_the_others(checked):
    assert "ArithmeticError: on purpose" in checked["failed"]
    assert "was not ended" not in checked["failed"]
    assert re.search(r"exit codes by rank: \{.*1: 1", checked["failed"])


@pytest.mark.processes
def test_program_that_fails_is_told_of_and_ends_the_other(tmp_path, still_there):
    code = "import sys, time; sys.argv[1] == '1' and sys.exit('on purpose'); time.sleep(100)"
    commands = [[sys.executable, "-c", f"{code}  # {tmp_path}", number] for number in "01"]
    with pytest.raises(RuntimeError, match=r"(?s)exit codes by process: \{1: 1\}.*process 1\non purpose"):
        run_all(commands, 500.0)
    assert still_there(str(tmp_path)) == []


@pytest.fixture
def given(monkeypatch) -> list[tuple]:
    """The commands, seconds and files of each start, where none takes place; 1 is what rank 0 returns."""
    starts = []

    def pretend(commands: list[list[str]], seconds: float, folder: str | None = None) -> list[str]:
        files = {path.name: path.read_text() for path in Path(folder).iterdir()} if folder else {}
        starts.append((commands, seconds, files))
        if folder:
            torch.save({"one": 1}, Path(folder, "0.pt"))
        return ["printed"]

    monkeypatch.setattr("zhixing.engineering.launch.run_all", pretend)
    return starts


def one() -> int:
    return 1


def test_launch_gives_one_rank_a_minute_and_a_collective_half_of_it(given):
    assert launch(one, ranks=1) == {"one": [1]}
    launch(one, ranks=1, seconds=8.0)
    assert [seconds for _, seconds, _ in given] == [60.0, 8.0]
    for (_, _, files), half in zip(given, ("30.0", "4.0"), strict=True):
        assert f"fork_ranks(run, 1, {half})" in files["program.py"]


def test_what_trains_imports_dynamo_before_it_is_forked(given):
    def steps():
        torch.optim.SGD([torch.zeros(1)]).step()

    def replicates():
        nn.parallel.DistributedDataParallel(nn.Linear(1, 1))

    for function in one, steps, replicates:
        launch(function, ranks=1)
    assert ["import torch._dynamo" in files["functions.py"] for _, _, files in given] == [False, True, True]


def test_torchrun_returns_what_its_one_command_prints_within_a_minute(given):
    assert torchrun("train.py", "--epochs", "3", ranks=2) == "printed"
    assert given == [([[*TORCHRUN, "--standalone", "--nproc-per-node=2", "train.py", "--epochs", "3"]], 60.0, {})]


class Deaf(subprocess.Popen):
    """No process, but what is done to one that does not end by SIGTERM."""

    def __init__(self) -> None:
        self.pid, self.done = -1, []

    def wait(self, timeout: float | None = None) -> int:
        self.done.append(timeout)
        if signal.SIGKILL not in self.done:
            raise subprocess.TimeoutExpired("deaf", timeout)
        return -signal.SIGKILL


def test_process_has_ten_seconds_to_end_before_it_is_killed(monkeypatch):
    process = Deaf()
    monkeypatch.setattr("os.killpg", lambda _, number: process.done.append(number))
    end_all([process])
    assert process.done == [signal.SIGTERM, 10, signal.SIGKILL, None]


def typed() -> object:
    """A function as from a prompt that keeps no source."""
    space = {}
    exec("def typed():\n    return 1\n", space)
    return space["typed"]


def with_a_closure() -> object:
    secret = 1

    def uses_secret():
        return secret

    return uses_secret


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("functions", "ranks", "message"),
    [
        ([with_a_closure], 0, "got 0 ranks and 1 functions"),
        ([], 2, "got 2 ranks and 0 functions"),
        ([typed()], 2, "typed cannot be sent, as its source is not known: define it in a file or a notebook"),
        ([lambda: 1], 2, "only functions made by `def` can"),
        ([with_a_closure()], 2, "uses_secret uses secret of the function around it"),
        ([with_a_closure, with_a_closure], 2, "two functions have one name: with_a_closure"),
    ],
    ids=["no rank", "no function", "no source", "lambda", "closure", "one name"],
)
def test_launch_refuses_what_it_cannot_send(functions, ranks, message):
    with pytest.raises(ValueError, match=message):
        launch(*functions, ranks=ranks)


@pytest.mark.processes
def test_launch_ends_what_takes_too_long(tmp_path, still_there):
    commands = [[sys.executable, "-c", f"import time; time.sleep(100)  # {tmp_path}"]] * 2
    with pytest.raises(TimeoutError, match="not done after 1 s"):
        run_all(commands, 1.0)
    assert still_there(str(tmp_path)) == []


SLEEPER = """\
import os, signal, time
if os.environ["RANK"] == "1":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(__file__ + os.environ["RANK"], "w")
time.sleep(100)
"""


@pytest.mark.processes
def test_torchrun_that_is_ended_ends_its_ranks_even_one_that_would_not(tmp_path, still_there):
    script = tmp_path / "sleeps.py"
    script.write_text(SLEEPER)
    command = [*TORCHRUN, "--standalone", "--nproc-per-node=2", str(script)]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("sleeps.py?"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    assert len(still_there(str(script))) == 3
    end_all([process])
    assert still_there(str(script)) == []
