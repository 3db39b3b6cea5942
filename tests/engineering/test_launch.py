"""Processes that are started: what they return, what is said of those that fail, and that none is left."""

import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist

from zhixing.engineering.launch import TORCHRUN, end_all, launch, run_all


@pytest.mark.processes
def test_launch_returns_what_each_rank_returned():
    def place():
        return [dist.get_rank(), dist.get_world_size(), torch.get_num_threads()]

    def total():
        x = torch.tensor([dist.get_rank() + 1.0])
        dist.all_reduce(x)
        return x

    assert launch(place, total, ranks=2) == {"place": [[0, 2, 1], [1, 2, 1]], "total": [torch.tensor([3.0])] * 2}


@pytest.mark.processes
def test_launch_tells_of_the_rank_that_failed_and_ends_the_other():
    def fails():
        if dist.get_rank() == 1:
            raise ArithmeticError("on purpose")
        dist.barrier()

    # The first of them at once: the other alone would end with an error of its own, at half of the time.
    with pytest.raises(RuntimeError, match=r"(?s)ArithmeticError: on purpose.*exit codes by rank: \{.*1: 1"):
        launch(fails, ranks=2, seconds=500.0)


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
