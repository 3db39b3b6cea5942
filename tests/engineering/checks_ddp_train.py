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
from torch.testing import assert_close

CHECKS = Checks()


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
def script_refuses_a_batch_that_the_ranks_cannot_share(place: Place) -> None:
    with pytest.raises(ValueError, match=f"^{place.ranks} ranks cannot share a batch of 7 evenly$"):
        script_losses(place, 1, 7, "/nowhere")


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
        'optimizer.load_state_dict(saved[0]["optimizer"])',
        "pass",
        "script_equals_a_plain_loop_in_one_process",
    ),
    "a loss of rank 0 alone": (
        "dist.all_reduce(total)",
        "pass",
        "script_equals_a_plain_loop_in_one_process",
    ),
}
