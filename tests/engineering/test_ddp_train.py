"""The script that readers copy: on ranks, killed, and broken on purpose."""

import re
import signal
import sys
from pathlib import Path

import checks_ddp_train as checks
import pytest
import torch
import torch.distributed as dist

from zhixing.engineering import ddp_train
from zhixing.engineering.launch import torchrun

SCRIPT = Path(ddp_train.__file__)


@pytest.mark.processes
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


def losses_of_one_process(epochs: int) -> dict[int, float]:
    """By a loop without torch's optimizer."""
    inputs, targets = ddp_train.make_dataset().tensors
    torch.manual_seed(0)
    model, found = ddp_train.make_model(), {}
    momenta = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for epoch in range(epochs):
        order = torch.randperm(512, generator=torch.Generator().manual_seed(epoch))
        total = 0.0
        for chosen in order.split(64):
            loss = (model(inputs[chosen]) - targets[chosen]).square().mean()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            for parameter, momentum, gradient in zip(model.parameters(), momenta, gradients, strict=True):
                momentum.mul_(0.9).add_(gradient)
                parameter.data -= 0.05 * momentum
            total += loss.item() * len(chosen)
        found[epoch + 1] = total / 512
    return found


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
def test_killed_rank_ends_all_and_one_process_goes_on_to_the_same_losses(tmp_path, still_there, capsys):
    victim, checkpoint = tmp_path / "victim.py", tmp_path / "new folder" / "c.pt"
    victim.write_text(VICTIM.format(rank="1", script=str(SCRIPT)))
    with pytest.raises(RuntimeError, match=rf"(?s)epoch 2: loss.*rank +: 1 .*exitcode *: -{signal.SIGKILL:d} ") as told:
        torchrun(str(victim), "--checkpoint", str(checkpoint), ranks=2, seconds=250.0)
    assert still_there(str(victim)) == []
    assert torch.load(checkpoint)["epochs"] == 2
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        ddp_train.train(5, 64, checkpoint, torch.device("cpu"))
    finally:
        dist.destroy_process_group()
    printed = capsys.readouterr().out
    assert list(losses(printed)) == [3, 4, 5]
    found = losses(str(told.value)) | losses(printed)
    assert found == pytest.approx(losses_of_one_process(5), rel=1e-4)
    assert found[5] < found[1] / 10
    assert [path.name for path in checkpoint.parent.iterdir()] == ["c.pt"]


def test_script_says_how_it_is_started(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit, match="2"):
        ddp_train.main()
    assert "torchrun --standalone --nproc-per-node=2" in capsys.readouterr().err


def test_each_rank_has_a_seed_of_its_own_in_each_epoch(monkeypatch, tmp_path):
    """Three ranks in one process, without what goes from one to another."""
    seed, seeds = torch.manual_seed, []
    monkeypatch.setattr(torch, "manual_seed", lambda number: seed(number) and seeds.append(torch.initial_seed()))
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 3)
    monkeypatch.setattr(dist, "all_reduce", lambda total: None)
    monkeypatch.setattr(ddp_train, "resume", lambda *of: 0)
    monkeypatch.setattr(ddp_train, "DistributedDataParallel", lambda model: model)
    for rank in range(3):
        monkeypatch.setattr(dist, "get_rank", lambda group=None, rank=rank: rank)
        ddp_train.train(3, 192, tmp_path / "c.pt", torch.device("cpu"))
    starts, epochs = seeds[::4], [number for i, number in enumerate(seeds) if i % 4]
    assert starts == [0, 0, 0]  # all make the same model
    assert len({*epochs}) == len(epochs) == 9
