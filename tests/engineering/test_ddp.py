"""DDP and the ring on real processes: against torch's, against one process, killed, silent, and broken on purpose."""

import fcntl
import importlib.util
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from torch import nn

from zhixing.engineering import ddp_train
from zhixing.engineering.ddp import BUCKET, FIRST_BUCKET, MinimalDDP, assign_buckets
from zhixing.engineering.launch import TORCHRUN, end_all, launch, run_all, torchrun

HERE = Path(__file__).parent
CHECKS_FILE = HERE / "checks_on_ranks.py"
SCRIPT = Path(ddp_train.__file__)


def load_checks():
    specification = importlib.util.spec_from_file_location("checks_on_ranks", CHECKS_FILE)
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # where its dataclasses look for their types
    specification.loader.exec_module(module)
    return module


ON_RANKS = load_checks()


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable:
    """Computes what several tests look at once, also where they run in several workers of xdist."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def once(name: str, compute: Callable[[Path], object]) -> object:
        folder = root / name
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                folder.mkdir()
                try:
                    result = {"value": compute(folder)}
                except BaseException as error:  # also one that no test expects
                    result = {"error": repr(error)}
                (folder / "result.json").write_text(json.dumps(result))
        result = json.loads((folder / "result.json").read_text())
        assert "value" in result, result["error"]
        return result["value"]

    return once


@pytest.fixture(scope="session")
def results(once) -> Callable[[int], list[dict[str, str]]]:
    """What went wrong in each check, on each of so many ranks."""

    def compute(folder: Path, ranks: int) -> list[dict[str, str]]:
        run_all([[sys.executable, str(CHECKS_FILE), str(ranks), str(folder)]], 150.0, folder=str(folder))
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]

    return lambda ranks: once(f"ranks-{ranks}", lambda folder: compute(folder, ranks))


RANKS = pytest.mark.parametrize("ranks", [2, 4], ids=lambda ranks: f"{ranks} ranks")


@pytest.mark.processes
@RANKS
@pytest.mark.parametrize("check", ON_RANKS.CHECKS)
def test_on_ranks(results, check, ranks):
    wrong = {rank: found[check] for rank, found in enumerate(results(ranks)) if found[check]}
    assert not wrong, "\n".join(f"rank {rank}: {said}" for rank, said in wrong.items())


@pytest.mark.processes
@pytest.mark.mutation
@pytest.mark.parametrize("mutation", ON_RANKS.MUTATIONS)
def test_broken_line_is_noticed(results, mutation):
    file, line, _, check = ON_RANKS.MUTATIONS[mutation]
    assert (ON_RANKS.SOURCE / f"{ON_RANKS.FILES[file]}.py").read_text().count(line) == 1
    assert [found[check] for found in results(2)] == ["", ""], "fails with the line as it is"
    assert any(found[mutation] for found in results(2)), f"{check} does not notice"


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


# Launching


def still_there(word: str) -> list[str]:
    """The processes of this machine, but ours, that have the word in their command."""
    commands = {process.pid: process.info["cmdline"] for process in psutil.process_iter(["cmdline"])}
    return [" ".join(command) for pid, command in commands.items() if command and word in " ".join(command)]


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

    begun = time.monotonic()
    with pytest.raises(RuntimeError, match=r"(?s)ArithmeticError: on purpose.*exit codes by rank: \{.*1: 1"):
        launch(fails, ranks=2, seconds=60.0)
    assert time.monotonic() - begun < 30


@pytest.mark.processes
def test_launch_ends_what_takes_too_long(tmp_path):
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
def test_torchrun_that_is_ended_ends_its_ranks_even_one_that_would_not(tmp_path):
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


# The script that readers copy


def losses(printed: str) -> dict[int, float]:
    return {int(epoch): float(loss) for epoch, loss in re.findall(r"epoch (\d+): loss (\S+)", printed)}


@pytest.fixture(scope="session")
def uninterrupted(once) -> dict[int, float]:
    """The losses of five epochs on two ranks, each of a torchrun of its own, as on two machines.

    The torchruns know of each other by an address alone, and each would write where the other does not read.
    """

    def compute(folder: Path) -> str:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        meeting = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"]
        command = [*TORCHRUN, *meeting, "--rdzv-id=job", str(SCRIPT)]
        printed = run_all([[*command, f"--checkpoint={folder / name}"] for name in ("a.pt", "b.pt")], 100.0)
        assert len(list(folder.glob("?.pt"))) == 1
        return "".join(printed)

    return losses(once("uninterrupted", compute))


VICTIM = """\
import os, runpy, signal, sys
from torch.optim.optimizer import register_optimizer_step_post_hook

steps = 0

def step(*_):
    global steps
    steps += 1
    if steps == 21 and os.environ["RANK"] == {rank!r}:
        os.kill(os.getpid(), signal.SIGKILL)

register_optimizer_step_post_hook(step)
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.processes
def test_script_learns_on_two_machines(uninterrupted):
    assert list(uninterrupted) == [1, 2, 3, 4, 5]
    assert uninterrupted[5] < uninterrupted[1] / 10


@pytest.mark.processes
def test_killed_rank_ends_all_and_a_fresh_run_on_one_machine_goes_on_to_the_same_loss(tmp_path, uninterrupted):
    victim, checkpoint = tmp_path / "victim.py", tmp_path / "c.pt"
    victim.write_text(VICTIM.format(rank="1", script=str(SCRIPT)))
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match=rf"(?s)epoch 2: loss.*rank +: 1 .*exitcode *: -{signal.SIGKILL:d} ") as told:
        torchrun(str(victim), "--checkpoint", str(checkpoint), ranks=2, seconds=100.0)
    assert time.monotonic() - begun < 90
    assert still_there(str(victim)) == []
    assert torch.load(checkpoint)["epochs"] == 2
    printed = torchrun(str(SCRIPT), "--checkpoint", str(checkpoint), ranks=2, seconds=100.0)
    assert losses(str(told.value)) | losses(printed) == uninterrupted
    assert min(losses(printed)) == 3
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".new"] == []


def test_script_says_how_it_is_started(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit, match="2"):
        ddp_train.main()
    assert "torchrun --standalone --nproc-per-node=2" in capsys.readouterr().err
