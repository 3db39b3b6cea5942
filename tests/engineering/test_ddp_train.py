"""The script that readers copy: on ranks, on two machines, killed, and broken on purpose."""

import re
import signal
import socket
import sys
import time
from pathlib import Path

import checks_ddp_train as checks
import pytest
import torch

from zhixing.engineering import ddp_train
from zhixing.engineering.launch import TORCHRUN, run_all, torchrun

SCRIPT = Path(ddp_train.__file__)


@pytest.mark.processes
@pytest.mark.parametrize("ranks", [2, 4], ids=lambda ranks: f"{ranks} ranks")
@pytest.mark.parametrize("check", checks.CHECKS)
def test_on_ranks(wrong_on_ranks, check, ranks):
    assert wrong_on_ranks("ddp_train", check, ranks) == ""


@pytest.mark.processes
@pytest.mark.mutation
@pytest.mark.parametrize("mutation", checks.MUTATIONS)
def test_broken_line_is_noticed(wrong_on_ranks, mutation):
    line, _, check = checks.MUTATIONS[mutation]
    assert SCRIPT.read_text().count(line) == 1
    assert wrong_on_ranks("ddp_train", check, 2) == "", "fails with the line as it is"
    assert wrong_on_ranks("ddp_train", mutation, 2), f"{check} does not notice"


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
def test_killed_rank_ends_all_and_a_fresh_run_on_one_machine_goes_on_to_the_same_loss(
    tmp_path, uninterrupted, still_there
):
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
