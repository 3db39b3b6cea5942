# %% quick_start
import pytorch_lightning as pl
import torch
from torch import nn
from torchmetrics.classification import BinaryF1Score

from zhixing.engineering.lightning import unknown_hooks, unloadable


class Classifier(pl.LightningModule):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Dropout(), nn.Linear(8, 1))
        self.f1 = BinaryF1Score()

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.binary_cross_entropy_with_logits(self.net(x)[:, 0], y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.f1(self.net(x)[:, 0].sigmoid(), y)  # probabilities, not logits
        self.log("f1", self.f1)  # the metric itself, not its value

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), self.hparams.lr)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.hparams.lr, steps, cycle_momentum=False
        )
        inner = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": inner}


model = Classifier().train()  # fit() keeps the mode that it finds
print("unknown hooks:", unknown_hooks(Classifier, pl.LightningModule))
print("hyperparameters that will not load:", unloadable(model.hparams))

# %% quick_start_holds tags=["hidden"]
version = pl.__version__
assert unknown_hooks(Classifier, pl.LightningModule) == unloadable(model.hparams) == {}

# %% setup
import logging

from torch.utils.data import DataLoader, TensorDataset

from zhixing.engineering.lightning import weighted_mean

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
quiet = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def loader(*tensors, size):
    return DataLoader(TensorDataset(*tensors), batch_size=size)


torch.manual_seed(0)
x = torch.randn(12, 2)
y = (x.sum(1) > 0).float()

# %% record
calls = []


class Recorder(pl.Callback):
    """Write down each hook when the trainer calls it."""


def write_down(name):
    return lambda self, *arguments: calls.append(name)


for name in dir(pl.Callback):
    if name.startswith("on_"):
        setattr(Recorder, name, write_down(name))


class EachEpoch(Classifier):
    """The same model, with a schedule that moves once in each epoch."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), self.hparams.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    def lr_scheduler_step(self, *arguments):
        calls.append("lr_scheduler_step")
        super().lr_scheduler_step(*arguments)


trainer = pl.Trainer(**quiet, max_epochs=1, callbacks=[Recorder()])
trainer.fit(EachEpoch(), loader(x, y, size=4), loader(x, y, size=4))
print(len(calls), "calls, the first:", ", ".join(calls[:3]))

# %% record_holds tags=["hidden"]
first_training = calls.index("on_train_start")
sanity_batches = calls[:first_training].count("on_validation_batch_start")
batches = calls.count("on_train_batch_start")
assert calls.index("on_validation_start") < first_training
assert sanity_batches == 2 < batches == 3
last_validation = len(calls) - 1 - calls[::-1].index("on_validation_end")
last_batch_end = len(calls) - 1 - calls[::-1].index("on_train_batch_end")
assert last_validation < calls.index("on_train_epoch_end")
assert batches == calls[: calls.index("lr_scheduler_step")].count(
    "on_train_batch_start"
)
assert calls.index("lr_scheduler_step") < last_batch_end < last_validation

# %% timeline
import matplotlib.pyplot as plt

lanes = {
    "fit": "fit()",
    "sanity_check": "sanity check",
    "train": "training",
    "train_epoch": "training epoch",
    "train_batch": "training batch",
    "validation": "validation",
    "validation_batch": "validation batch",
}
figure, axes = plt.subplots(figsize=(5.2, 3.1), layout="constrained")
for lane, name in enumerate(lanes):
    starts = [i for i, call in enumerate(calls) if call == f"on_{name}_start"]
    ends = [i for i, call in enumerate(calls) if call == f"on_{name}_end"]
    for start, end in zip(starts, ends, strict=True):
        axes.barh(lane, end - start, left=start, height=0.6, color="C0")
for call, lane, style, label in (
    ("on_before_optimizer_step", 4, "oC1", "optimiser steps"),
    ("lr_scheduler_step", 3, "DC2", "schedule steps"),
):
    steps = [i for i, found in enumerate(calls) if found == call]
    axes.plot(steps, [lane] * len(steps), style, label=label, markeredgecolor="white")
axes.set_yticks(range(len(lanes)), lanes.values())
axes.invert_yaxis()
axes.set_xlabel("calls of hooks, in their order")
figure.legend(loc="outside upper center", ncols=2)


# %% misspelt
ran = []


class Misspelt(Classifier):
    def on_validation_epoch_end(self):
        ran.append("on_validation_epoch_end")

    def on_val_epoch_end(self):
        ran.append("on_val_epoch_end")

    def on_epoch_end(self):  # a hook until version 1.8
        ran.append("on_epoch_end")


data = loader(x, y, size=4)
pl.Trainer(**quiet, max_epochs=1).fit(Misspelt(), data, data)
print("ran:", *sorted(set(ran)))
unknown = unknown_hooks(Misspelt, pl.LightningModule)
for name, nearest in unknown.items():
    print(f"{name} never ran; near:", *nearest, sep="\n    ")

# %% misspelt_holds tags=["hidden"]
assert set(ran) == {"on_validation_epoch_end"}
assert list(unknown) == ["on_epoch_end", "on_val_epoch_end"]
assert unknown["on_val_epoch_end"] == ["on_validation_epoch_end"]


# %% logged
class Losses(Classifier):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        number = batch[0].mean()
        self.log("default", number)
        self.log("epoch", number, on_step=False, on_epoch=True)
        return loss


numbers = torch.arange(10.0)[:, None].expand(10, 2)
trainer = pl.Trainer(**quiet, max_epochs=1)
trainer.fit(Losses(), loader(numbers, torch.zeros(10), size=4))
logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
means, sizes = torch.tensor([1.5, 5.5, 8.5]), torch.tensor([4, 4, 2])
print("after the epoch:", logged)
print("Σ nᵢvᵢ / Σ nᵢ =", weighted_mean(means, sizes).item())

# %% logged_holds tags=["hidden"]
assert logged["epoch"] == weighted_mean(means, sizes) == 4.5
last_batch, plain_mean = means[-1].item(), means.mean().item()

# %% f1
from torchmetrics.functional.classification import binary_f1_score


class F1(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.f1, self.parts = BinaryF1Score(), []

    def validation_step(self, batch, batch_idx):
        predicted, truth = batch
        score = binary_f1_score(predicted, truth)
        self.parts.append((score, (predicted + truth).sum()))
        self.f1(predicted, truth)
        self.log("value", score)
        self.log("metric", self.f1)


def rare(generator):
    """Labels, 1 of 20 positive, and predictions that find 3 of 4, with false alarms."""
    truth = torch.rand(1024, generator=generator) < 0.05
    chance = torch.where(truth, 0.75, 0.025)
    return (torch.rand(1024, generator=generator) < chance).int(), truth.int()


predicted, truth = rare(torch.Generator().manual_seed(0))
reported = {}
for size in 16, 64, 256, 1024:
    scores = F1()
    batches_of_size = loader(predicted, truth, size=size)
    found = pl.Trainer(**quiet).validate(scores, batches_of_size, verbose=False)[0]
    values, denominators = (
        torch.stack(part) for part in zip(*scores.parts, strict=True)
    )
    by_denominator = weighted_mean(values, denominators).item()
    reported[size] = found["value"], found["metric"], by_denominator
    print(f"batches of {size:4}: logged value {found['value']:.3f}", end=", ")
    print(f"metric {found['metric']:.3f}, by denominators {by_denominator:.3f}")

# %% f1_holds tags=["hidden"]
f1_of_all = binary_f1_score(predicted, truth).item()
for _, metric, by_denominator in reported.values():
    assert abs(metric - f1_of_all) < 1e-6
    assert abs(by_denominator - f1_of_all) < 1e-6
for seed in range(5):  # the moral does not depend on the seed
    p, t = rare(torch.Generator().manual_seed(seed))
    pairs = list(zip(p.split(16), t.split(16), strict=True))
    mean16 = torch.stack([binary_f1_score(*pair) for pair in pairs]).mean()
    assert mean16 < 0.75 * binary_f1_score(p, t)
samples, small_batches = len(truth), len(truth.split(16))
empty = sum(
    int((p + t).sum() == 0)
    for p, t in zip(predicted.split(16), truth.split(16), strict=True)
)
assert empty > 10
small_value, all_metric = reported[16][:2]


# %% schedule warns="RuntimeWarning"
class Traced(Classifier):
    """Return the schedule in this form, and record the learning rate of each step."""

    def __init__(self, form):
        super().__init__()
        self.form, self.rates = form, []

    def configure_optimizers(self):
        inside = super().configure_optimizers()
        schedule = inside["lr_scheduler"]["scheduler"]
        if self.form == "inside":
            return inside
        optimizer = inside["optimizer"]  # and beside:
        return {"optimizer": optimizer, "lr_scheduler": schedule, "interval": "step"}

    def on_train_batch_start(self, batch, batch_idx):
        self.rates.append(self.optimizers().param_groups[0]["lr"])


rates = {}
for batches_per_epoch in 3, 12:
    for form in "inside", "beside":
        traced = Traced(form)
        data = loader(x, y, size=12 // batches_per_epoch)
        pl.Trainer(**quiet, max_epochs=10).fit(traced, data)
        rates[batches_per_epoch, form] = traced.rates

# %% schedule_holds tags=["hidden"]
for n in 3, 12:
    inside, beside = rates[n, "inside"], rates[n, "beside"]
    assert len(inside) == len(beside) == 10 * n
    assert max(inside) > 0.09 > 0.001 > inside[-1]
    assert all(abs(beside[i] - inside[i // n]) < 1e-9 for i in range(10 * n))
assert rates[3, "beside"][-1] > 0.09
assert rates[12, "beside"][-1] < 0.03

# %% rates_drawn
figure, panels = plt.subplots(
    2, 1, figsize=(5.2, 3.6), sharey=True, layout="constrained"
)
for axes, n in zip(panels, (3, 12), strict=True):
    axes.plot(rates[n, "inside"], label="interval inside")
    axes.plot(rates[n, "beside"], "--", drawstyle="steps-post", label="interval beside")
    axes.set(title=f"{n} batches in an epoch", ylabel="learning rate")
panels[1].set_xlabel("step")
panels[1].legend()


# %% accumulated
class Weight(pl.LightningModule):
    """One weight, whose gradient is −1 in every batch."""

    def __init__(self):
        super().__init__()
        self.weight, self.path = nn.Parameter(torch.zeros(())), []

    def training_step(self, batch, batch_idx):
        return -self.weight

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.path.append(self.weight.item())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


weight = Weight()
six = loader(torch.zeros(6), size=1)
pl.Trainer(**quiet, max_epochs=1, accumulate_grad_batches=4).fit(weight, six)
print("weight after each of six batches:", weight.path)

# %% accumulated_values tags=["hidden"]
full_step, last_step = weight.path[3], weight.path[5] - weight.path[3]


# %% counted
class Two(pl.LightningModule):
    """Two optimisers, such as those of a generator and a discriminator."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization, self.batches = False, 0
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 1)])

    def training_step(self, batch, batch_idx):
        self.batches += 1
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.layers[1](self.layers[0](batch[0])).mean())
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(layer.parameters(), 0.1) for layer in self.layers]


two = Two()
trainer = pl.Trainer(**quiet, max_steps=4)
trainer.fit(two, loader(x, size=3))
print("max_steps=4:", two.batches, "batches, global_step", trainer.global_step)

once = Weight()
trainer = pl.Trainer(**quiet, max_epochs=1)
trainer.fit(once, six)
trainer.fit(again := Weight(), six)
print("batches of the first fit:", len(once.path), "| of the second:", len(again.path))

# %% counted_values tags=["hidden"]
two_batches, second_batches = two.batches, len(again.path)

# %% modes
model = Classifier()
model.net.eval()  # as from_pretrained leaves a network


class Modes(pl.Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0:
            off = [name for name, part in module.named_modules() if not part.training]
            print(f"epoch {trainer.current_epoch}, in evaluation mode:", off)


data = loader(x, y, size=6)
pl.Trainer(**quiet, max_epochs=2, callbacks=[Modes()]).fit(model, data, data)
print("after model.train():")
model.train()
pl.Trainer(**quiet, max_epochs=1, callbacks=[Modes()]).fit(model, data, data)

# %% checkpoint
import pickle
import tempfile
from pathlib import Path


class WithFolder(Classifier):
    def __init__(self, folder, lr=0.1):
        super().__init__(lr)
        self.save_hyperparameters()


def loads(folder):
    """Train, save, and say whether the checkpoint loads with the default settings."""
    with tempfile.TemporaryDirectory() as place:
        trainer = pl.Trainer(**quiet, max_epochs=1, default_root_dir=place)
        trainer.fit(WithFolder(folder), loader(x, y, size=6))
        trainer.save_checkpoint(f"{place}/model.ckpt")
        try:
            WithFolder.load_from_checkpoint(f"{place}/model.ckpt")
        except pickle.UnpicklingError:
            return False
        return True


for folder in Path("images"), "images":
    refused = list(unloadable({"folder": folder}))
    print(f"{folder!r:20} loads: {loads(folder)}, unloadable: {refused}")

# %% checkpoint_values tags=["hidden"]
assert not unloadable({"folder": "images"})
assert loads("images")


# %% sizes warns="UserWarning"
class Graphs(pl.LightningModule):
    def validation_step(self, batch, batch_idx):
        loss = batch["target"].mean()
        self.log("inferred", loss)
        self.log("given", loss, batch_size=len(batch["target"]))


graphs = [
    {"edges": torch.zeros(2, 5), "target": part} for part in torch.arange(10.0).split(4)
]
found = pl.Trainer(**quiet).validate(
    Graphs(), DataLoader(graphs, batch_size=None), verbose=False
)[0]
print(f"inferred sizes: {found['inferred']:.2f}, given sizes: {found['given']:.2f}")

# %% sizes_hold tags=["hidden"]
inferred, given = found["inferred"], found["given"]
assert abs(found["given"] - 4.5) < 1e-6
