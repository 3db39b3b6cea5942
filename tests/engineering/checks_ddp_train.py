"""Checks of the script that readers copy, on several ranks at once."""

import contextlib
import io
import math
import re
import tempfile
from pathlib import Path

import pytest
import torch
from on_ranks import Checks, Place
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.testing import assert_close
from torch.utils.data import TensorDataset

CHECKS = Checks()
ON_FOUR_RANKS = "script_equals_a_plain_loop", "script_repeats_samples"


def script_losses(place: Place, epochs: int, batch: int, folder: str) -> dict[int, float]:
    """By epoch, as rank 0 prints them; only what rank 0 has on its disk counts."""
    printed = io.StringIO()
    checkpoint = Path(folder, "checkpoint.pt") if place.rank == 0 else Path("/nowhere/checkpoint.pt")
    with contextlib.redirect_stdout(printed):
        place.module.train(epochs, batch, checkpoint, torch.device("cpu"))
    found = re.findall(r"epoch (\d+): loss (\S+)\n", printed.getvalue())
    return {int(epoch): float(loss) for epoch, loss in found}


@CHECKS.add
def script_equals_a_plain_loop_in_one_process(place: Place) -> None:
    script = place.module
    inputs, targets = script.make_dataset().tensors
    torch.manual_seed(0)
    model = script.make_model()
    optimizer, wanted = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), {}
    for epoch in range(3):
        order = torch.randperm(512, generator=torch.Generator().manual_seed(epoch))
        losses = []
        for chosen in order.split(64):
            loss = (model(inputs[chosen]) - targets[chosen]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        wanted[epoch + 1] = sum(losses) / len(losses)
    with tempfile.TemporaryDirectory() as folder:
        found = script_losses(place, 2, 64, folder)
        found |= script_losses(place, 3, 64, folder)
    if place.rank == 0:
        assert list(found) == [1, 2, 3]
        for epoch, loss in found.items():
            assert math.isclose(loss, wanted[epoch], rel_tol=1e-5)
    else:
        assert found == {}


@CHECKS.add
def script_draws_the_same_after_a_pause_but_not_the_same_on_all_ranks(place: Place) -> None:
    masks, make_model = [], place.module.make_model

    def with_dropout():
        dropout = nn.Dropout()
        dropout.register_forward_hook(lambda _, inputs, output: masks.append(output.ne(0).double().mean()))
        return nn.Sequential(nn.Linear(16, 64), dropout, nn.Linear(64, 1))

    place.module.make_model = with_dropout
    try:
        with tempfile.TemporaryDirectory() as folder:
            whole = script_losses(place, 2, 64, folder)
        drawn = torch.stack(masks)
        with tempfile.TemporaryDirectory() as folder:
            paused = script_losses(place, 1, 64, folder) | script_losses(place, 2, 64, folder)
    finally:
        place.module.make_model = make_model
    assert whole == paused
    assert_close(torch.stack(masks[len(drawn) :]), drawn, rtol=0, atol=0)
    first, second = place.gather(drawn)[:2]
    assert not torch.equal(first, second)


@CHECKS.add
def script_that_is_interrupted_goes_on_to_the_same_losses(place: Place) -> None:
    """In the middle of the second epoch, and while rank 0 writes the checkpoint of the third."""
    save, steps, interrupted = torch.save, [], ArithmeticError

    def stop(*_):
        steps.append(1)
        if len(steps) == 11:
            raise interrupted

    def half(_, path):
        Path(path).write_bytes(b"half of it")
        raise interrupted

    with tempfile.TemporaryDirectory() as folder:
        whole = script_losses(place, 3, 64, folder)
    with tempfile.TemporaryDirectory() as folder:
        handle = register_optimizer_step_post_hook(stop)
        try:
            with pytest.raises(interrupted):
                script_losses(place, 3, 64, folder)
        finally:
            handle.remove()
        found = script_losses(place, 2, 64, folder)
        checkpoint = Path(folder, "checkpoint.pt")
        before = checkpoint.read_bytes() if place.rank == 0 else b""
        torch.save = half
        try:
            with pytest.raises(interrupted) if place.rank == 0 else contextlib.nullcontext():
                script_losses(place, 3, 64, folder)
        finally:
            torch.save = save
        # All ranks learn of it: if rank 0 failed alone, the others would wait for it in what comes next.
        same = torch.tensor(float(place.rank > 0 or checkpoint.read_bytes() == before))
        assert place.gather(same)[0] == 1
        found |= script_losses(place, 3, 64, folder)
    if place.rank == 0:
        assert list(found) == [2, 3]
        assert found == {epoch: whole[epoch] for epoch in (2, 3)}


@CHECKS.add
def script_refuses_a_batch_that_the_ranks_cannot_share(place: Place) -> None:
    with pytest.raises(ValueError, match=f"^{place.ranks} ranks cannot share a batch of 7 evenly$"):
        script_losses(place, 1, 7, "/nowhere")


@CHECKS.add
def script_sends_the_state_of_any_optimizer(place: Place) -> None:
    """AdamW has numbers on the CPU and tensors of the parameters' layout; SGD without momentum has no state."""
    rates = []
    for kind, settings in ((torch.optim.AdamW, {"amsgrad": True}), (torch.optim.SGD, {})):
        torch.manual_seed(place.rank)
        model = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
        optimizer = kind(model.parameters(), lr=0.1, **settings)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder, "c.pt") if place.rank == 0 else Path("/nowhere/c.pt")
            if place.rank == 0:
                model(torch.randn(1, 2, 4, 4)).sum().backward()
                optimizer.step()
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": 3}
                torch.save(state, checkpoint)
            fresh = kind(model.parameters(), lr=0.05, **settings)
            with contextlib.redirect_stdout(io.StringIO()):
                assert place.module.resume(checkpoint, model, fresh, torch.device("cpu")) == 3
        values = [value for state in fresh.state.values() for value in state.values()]
        assert len(values) == (8 if settings else 0)
        for value in values:
            gathered = place.gather(value)
            assert_close(gathered[1], gathered[0], rtol=0, atol=0)
        if place.rank == 0:
            kept = [value for state in optimizer.state.values() for value in state.values()]
            assert_close(values, kept, rtol=0, atol=0)
        rates.append(fresh.param_groups[0]["lr"])
    assert rates == [0.05, 0.05], "the file's"


@CHECKS.add
def script_repeats_samples_where_the_ranks_do_not_divide_the_data(place: Place) -> None:
    """501 points: the sampler fills up with the first ones, and a step's batch is what all ranks draw."""
    make_dataset, count = place.module.make_dataset, 501
    inputs, targets = (tensor[:count] for tensor in make_dataset().tensors)
    place.module.make_dataset = lambda: TensorDataset(inputs, targets)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = script_losses(place, 1, 64, folder)
    finally:
        place.module.make_dataset = make_dataset
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    order = torch.cat([order, order[: -count % place.ranks]])
    torch.manual_seed(0)
    model, losses = place.module.make_model(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for chosen in order.split(64):
        errors = (model(inputs[chosen]) - targets[chosen]).square()
        optimizer.zero_grad()
        errors.mean().backward()
        optimizer.step()
        losses.append(errors.detach())
    if place.rank == 0:
        assert math.isclose(found[1], torch.cat(losses).mean(), rel_tol=1e-5)


@CHECKS.add
def script_makes_the_folder_of_its_checkpoint(place: Place) -> None:
    with tempfile.TemporaryDirectory() as folder:
        script_losses(place, 1, 64, f"{folder}/runs/a")
        if place.rank == 0:
            assert [path.name for path in Path(folder, "runs/a").iterdir()] == ["checkpoint.pt"]


# Lines broken on purpose: {what: (what stands there, what is put there, the check that must fail)}
MUTATIONS = {
    "epochs in one order": (
        "sampler.set_epoch(epoch)",
        "pass",
        "script_equals_a_plain_loop_in_one_process",
    ),
    "one seed for all ranks": (
        "torch.manual_seed(epoch * ranks + rank)",
        "torch.manual_seed(epoch)",
        "script_draws_the_same_after_a_pause_but_not_the_same_on_all_ranks",
    ),
    "seeds that do not know the epoch": (
        "torch.manual_seed(epoch * ranks + rank)",
        "torch.manual_seed(rank) if epoch == done else None",
        "script_draws_the_same_after_a_pause_but_not_the_same_on_all_ranks",
    ),
    "an optimizer that begins anew": (
        'epochs, state = saved["epochs"], saved["optimizer"]["state"]',
        'epochs = saved["epochs"]',
        "script_equals_a_plain_loop_in_one_process",
    ),
    "the learning rate of the file": (
        'groups = optimizer.state_dict()["param_groups"]',
        'groups = saved["optimizer"]["param_groups"] if epochs and dist.get_rank() == 0 '
        'else optimizer.state_dict()["param_groups"]',
        "script_sends_the_state_of_any_optimizer",
    ),
    "tensors that are not sent": (
        "dist.broadcast(tensor, 0)",
        "pass",
        "script_sends_the_state_of_any_optimizer",
    ),
    "a checkpoint that is not written aside": (
        'aside := checkpoint.with_suffix(".new")',
        "aside := checkpoint",
        "script_that_is_interrupted_goes_on_to_the_same_losses",
    ),
    "a loss of rank 0 alone": (
        "dist.all_reduce(total)",
        "pass",
        "script_equals_a_plain_loop_in_one_process",
    ),
}
