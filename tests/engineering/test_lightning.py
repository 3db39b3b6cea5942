"""Unknown hooks, unloadable values and weights of means, against Lightning, torch, torchmetrics and scikit-learn."""

import argparse
import contextlib
import dataclasses
import enum
import fractions
import functools
import io
import logging
import math
import pathlib
import pickle
import threading
import types
import warnings
from collections import Counter, OrderedDict, defaultdict

import numpy
import pytest
import torch
from tensors import assert_same_both_ways, leaf, normal
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from zhixing.engineering.lightning import unknown_hooks, unloadable, weighted_mean

QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@contextlib.contextmanager
def quietly():
    """Without the warnings of Lightning, which come and go with its version and that of torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def pl():
    with quietly():
        import pytorch_lightning

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    return pytorch_lightning


@pytest.fixture(scope="module")
def linear(pl):
    """A LightningModule with one layer, and hyperparameters."""

    class Linear(pl.LightningModule):
        def __init__(self, value=None, other=1):
            super().__init__()
            self.save_hyperparameters()
            self.layer = nn.Linear(1, 1)

        def training_step(self, batch, batch_idx):
            return self.layer(batch[0]).mean()

        def validation_step(self, batch, batch_idx):
            return self.layer(batch[0]).mean()

        def test_step(self, batch, batch_idx):
            return self.layer(batch[0]).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Linear


def loader(*tensors, size):
    return DataLoader(TensorDataset(*tensors), batch_size=size)


# Hooks


class Base:
    attribute = 1

    def on_train_epoch_end(self): ...
    def on_test_epoch_end(self): ...
    def training_step(self): ...
    def configure_optimizers(self): ...


def names_of(methods, base=Base):
    return unknown_hooks(type("Model", (base,), methods), base)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("on_epoch_end", ["on_test_epoch_end", "on_train_epoch_end"]),
        ("on_training_epoch_end", ["on_train_epoch_end"]),
        ("on_train_epoch_ends", ["on_train_epoch_end"]),
        ("training_epoch_end", ["on_train_epoch_end"]),
        ("training_step_end", ["training_step"]),
        ("train_step", ["training_step"]),
        ("configure_optimiser", ["configure_optimizers"]),
        ("configure_optimizer", ["configure_optimizers"]),
        ("Training_step", ["training_step"]),
    ],
)
def test_slips_are_found_with_the_nearest_name(name, nearest):
    assert names_of({name: lambda self: None}) == {name: nearest}


@pytest.mark.parametrize("name", ["forward", "encode", "loss", "shared_step", "__len__", "_on_epoch_end", "once"])
def test_other_names_are_left_alone(name):
    assert names_of({name: lambda self: None}) == {}


def test_hooks_that_are_spelt_right_are_left_alone():
    assert names_of({"on_train_epoch_end": lambda self: None, "training_step": lambda self: None}) == {}


@pytest.mark.parametrize(
    "attribute",
    [property(lambda self: 1), 3, functools.partial(print), None],
    ids=["property", "int", "partial", "none"],
)
def test_attributes_that_are_no_functions_are_left_alone(attribute):
    assert names_of({"on_epoch_end": attribute}) == {}


@pytest.mark.parametrize("wrap", [staticmethod, classmethod], ids=lambda wrap: wrap.__name__)
def test_static_and_class_methods_are_found(wrap):
    assert list(names_of({"on_epoch_end": wrap(lambda *arguments: None)})) == ["on_epoch_end"]


def test_inherited_slips_are_found_in_the_order_of_their_names():
    class Mixin:
        def train_step(self): ...

    class Parent(Base):
        def on_epoch_end(self): ...

    class Model(Mixin, Parent):
        pass

    assert list(unknown_hooks(Model, Base)) == ["on_epoch_end", "train_step"]


def test_a_base_without_methods_is_near_to_nothing():
    assert unknown_hooks(type("Model", (), {"on_end": lambda self: None, "end": print}), object) == {"on_end": []}


def test_methods_of_torch_modules_are_no_hooks():
    class Module(nn.Module):
        def training_step(self): ...

    assert names_of({"get_params": lambda self: None, "load_states": lambda self: None}, Module) == {}


def test_lightnings_own_classes_have_no_unknown_hooks(pl):
    from pytorch_lightning.demos import boring_classes

    callbacks = [kind for kind in vars(pl.callbacks).values() if isinstance(kind, type)]
    assert len(callbacks) > 15
    assert {kind.__name__: unknown_hooks(kind, pl.Callback) for kind in callbacks} == {
        kind.__name__: {} for kind in callbacks
    }
    for kind in (boring_classes.BoringModel, boring_classes.DemoModel, boring_classes.ManualOptimBoringModel):
        assert unknown_hooks(kind, pl.LightningModule) == {}
    assert unknown_hooks(boring_classes.BoringDataModule, pl.LightningDataModule) == {}


def test_hooks_that_the_changelog_names_as_removed_are_found(pl):
    """1.8 replaced each by the hooks of the three or four stages."""
    found = names_of({name: lambda *arguments: None for name in ("on_epoch_end", "on_batch_start")}, pl.Callback)
    assert {"on_train_epoch_end", "on_validation_epoch_end", "on_test_epoch_end"} <= set(found["on_epoch_end"])
    assert {"on_train_batch_start", "on_validation_batch_start"} <= set(found["on_batch_start"])
    steps = ["test_step_end", "training_step_end", "validation_step_end"]  # 2.0
    assert list(names_of({name: lambda *arguments: None for name in steps}, pl.LightningModule)) == steps


def test_the_trainer_calls_no_unknown_hook_and_the_nearest_of_each(pl, linear):
    called = set()

    def record(name):
        return lambda self, *arguments, **options: called.add(name)

    slips = {
        "on_training_start": "on_train_start",
        "on_val_epoch_end": "on_validation_epoch_end",
        "on_train_batch_ends": "on_train_batch_end",
        "on_fit_started": "on_fit_start",
    }
    kind = type("Recorder", (pl.Callback,), {name: record(name) for pair in slips.items() for name in pair})
    assert unknown_hooks(kind, pl.Callback) == {slip: [right] for slip, right in slips.items()}
    with quietly():
        batches = loader(torch.ones(4, 1), size=2)
        pl.Trainer(**QUIET, max_epochs=1, callbacks=[kind()]).fit(linear(), batches, batches)
    assert called == set(slips.values())


# Hyperparameters


@dataclasses.dataclass
class Config:
    width: int = 1


class Mode(enum.Enum):
    FAST = 1


LOADABLE = {
    "int": 1,
    "large int": 2**70,
    "float": 0.1,
    "complex": 1j,
    "bool": True,
    "str": "a",
    "bytes": b"a",
    "none": None,
    "list": [1, "a"],
    "tuple": (1, 2),
    "dict": {"a": {"b": 1}},
    "json": {"a": [1.5, None, True, {"b": "c"}], "": []},
    "set": {1},
    "ordered dict": OrderedDict(a=1),
    "tensor": torch.zeros(2, 3).T,
    "parameter": nn.Parameter(torch.zeros(2)),
    "dtype": torch.bfloat16,
    "device": torch.device("cpu"),
    "size": torch.Size([1]),
}
REFUSED = {
    "path": (pathlib.PurePosixPath("a"), "PurePosixPath"),
    "namespace": (argparse.Namespace(a=1), "argparse.Namespace"),
    "simple namespace": (types.SimpleNamespace(a=1), "SimpleNamespace"),
    "numpy float": (numpy.float64(0.1), "numpy"),
    "numpy int": (numpy.int64(3), "numpy"),
    "numpy array": (numpy.zeros(2), "numpy"),
    "module": (nn.ReLU(), "torch.nn.modules.activation.ReLU"),
    "loss": (nn.MSELoss(), "torch.nn.modules.loss.MSELoss"),
    "class": (nn.ReLU, "torch.nn.modules.activation.ReLU"),
    "function": (nn.functional.mse_loss, "mse_loss"),
    "partial": (functools.partial(torch.relu), "functools.partial"),
    "dataclass": (Config(), "Config"),
    "enum": (Mode.FAST, "Mode"),
    "fraction": (fractions.Fraction(1, 2), "fractions.Fraction"),
    "defaultdict": (defaultdict(int), "int"),
    "range": (range(3), "builtins.range"),
    "frozenset": (frozenset([1]), "builtins.frozenset"),
    "huge int": (2**3000, "int"),
    "nested": ({"a": [argparse.Namespace(a=1)]}, "argparse.Namespace"),
}


class Unwilling:
    def __reduce__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("value", LOADABLE.values(), ids=LOADABLE)
def test_values_that_torch_loads_are_left_alone(value):
    assert unloadable({"value": value}) == {}


@pytest.mark.parametrize(("value", "reason"), REFUSED.values(), ids=REFUSED)
def test_values_that_torch_refuses_are_named_with_the_reason(value, reason):
    found = unloadable({"lr": 0.1, "value": value, "seed": 1})
    assert list(found) == ["value"]
    assert reason in found["value"]


@pytest.mark.parametrize(
    "value",
    [lambda: None, threading.Lock(), Unwilling(), (x for x in [1])],
    ids=["lambda", "lock", "unwilling", "generator"],
)
def test_values_that_cannot_be_saved_are_named(value):
    assert unloadable({"value": value, "lr": 1}) == {"value": "not picklable"}


def test_no_hyperparameters_are_all_loadable():
    assert unloadable({}) == {}
    assert unloadable(types.MappingProxyType({"lr": 0.1})) == {}


def test_all_refused_values_are_named_in_their_order():
    assert list(unloadable({"b": Mode.FAST, "lr": 1, "a": Config()})) == ["b", "a"]


def test_all_types_of_a_value_are_named_each_once():
    assert unloadable({"v": [argparse.Namespace(), argparse.Namespace(), functools.partial(print)]}) == {
        "v": "argparse.Namespace, builtins.print, functools.partial"
    }


def test_types_that_the_process_allows_are_loadable():
    hparams = {"value": argparse.Namespace(a=1)}
    with torch.serialization.safe_globals([argparse.Namespace]):
        assert unloadable(hparams) == {}
    assert list(unloadable(hparams)) == ["value"]


def test_a_counter_follows_torch():
    file = io.BytesIO()
    torch.save(Counter("aab"), file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
    except pickle.UnpicklingError:
        assert unloadable({"value": Counter("aab")})
    else:
        assert unloadable({"value": Counter("aab")}) == {}


def test_a_checkpoint_of_lightning_loads_exactly_if_nothing_is_named(pl, linear, tmp_path):
    """For each value the file is written by the trainer and read as torch's own default reads it."""
    values = LOADABLE | {name: value for name, (value, _) in REFUSED.items()}
    path = tmp_path / "model.ckpt"
    batches = loader(torch.ones(2, 1), size=2)
    with quietly():
        trainer = pl.Trainer(**QUIET, max_epochs=1, default_root_dir=tmp_path)
        trainer.fit(linear(), batches)
        for name, value in values.items():
            trainer.strategy.connect(linear(value))
            trainer.save_checkpoint(path)
            named = unloadable({"value": value, "other": 1})
            with contextlib.nullcontext() if not named else pytest.raises(pickle.UnpicklingError):
                torch.load(path, weights_only=True)
            assert bool(named) == (name in REFUSED), name
            linear.load_from_checkpoint(path, weights_only=False)


def test_hparams_of_a_lightning_module_are_a_mapping(linear):
    assert unloadable(linear(value=[1, 2]).hparams) == {}
    assert list(unloadable(linear(value=Config()).hparams)) == ["value"]


# Means

SIZES = {
    "equal": [4, 4, 4],
    "a small last batch": [4, 4, 2],
    "odd": [7, 1, 3, 11, 5],
    "one batch": [3],
    "an empty batch": [3, 0, 2],
    "large": [1000, 999, 3],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_mean_and_gradient_equal_those_over_all_samples(sizes):
    n = torch.tensor(sizes)
    assert_same_both_ways(lambda v: weighted_mean(v, n), lambda v: v.repeat_interleave(n).mean(), normal(len(sizes)))


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_mean_equals_numpys_and_torchmetrics(sizes):
    from torchmetrics import MeanMetric

    values = normal(len(sizes))
    assert_close(weighted_mean(values, torch.tensor(sizes)).item(), numpy.average(values.numpy(), weights=sizes))
    metric = MeanMetric().set_dtype(torch.float64)
    for value, size in zip(values, sizes, strict=True):
        metric.update(value, weight=size)
    assert_close(weighted_mean(values, torch.tensor(sizes)), metric.compute())


def test_mean_equals_what_lightning_reports(pl):
    values = normal(10, dtype=torch.float32)

    class Logger(pl.LightningModule):
        def validation_step(self, batch, batch_idx):
            self.log("mean", batch[0].mean())
            self.log("weighed", batch[0].mean(), batch_size=batch_idx + 1)

    with quietly():
        (found,) = pl.Trainer(**QUIET).validate(Logger(), loader(values, size=4), verbose=False)
    means = torch.stack([part.mean() for part in values.split(4)])
    assert_close(weighted_mean(means, torch.tensor([4, 4, 2])).item(), found["mean"])
    assert_close(weighted_mean(means, torch.tensor([4, 4, 2])), values.mean())
    assert_close(weighted_mean(means, torch.tensor([1, 2, 3])).item(), found["weighed"])


def test_gradcheck():
    assert torch.autograd.gradcheck(lambda v: weighted_mean(v, torch.tensor([4, 0, 2])), [leaf(normal(3))])


def test_f1_of_all_samples_is_the_mean_weighted_by_denominators():
    """Batches of unequal sizes, one of them without positives, against torchmetrics and scikit-learn."""
    from sklearn.metrics import f1_score
    from torchmetrics.functional.classification import binary_f1_score

    generator = torch.Generator().manual_seed(0)
    predicted, truth = (torch.rand(37, generator=generator) < 0.4 for _ in range(2))
    predicted[5:10] = truth[5:10] = False
    sizes = [5, 5, 16, 11]
    pairs = list(zip(predicted.int().split(sizes), truth.int().split(sizes), strict=True))
    scores = torch.stack([binary_f1_score(p, t) for p, t in pairs])
    denominators = torch.stack([p.sum() + t.sum() for p, t in pairs])  # 2TP + FP + FN
    assert denominators[1] == 0
    found = weighted_mean(scores, denominators)
    assert_close(found, binary_f1_score(predicted.int(), truth.int()))
    assert_close(found.item(), f1_score(truth, predicted), rtol=1e-6, atol=0)
    assert abs(found - weighted_mean(scores, torch.tensor(sizes))) > 0.02


def test_published_number_of_true_positives():
    """torchmetrics issue 845: 228 true positives in 19 batches of 100 were reported as 12."""
    counts = torch.full((19,), 10.0)
    counts[:19] += torch.arange(19) % 5
    counts[-1] += 228 - counts.sum()
    assert counts.sum() == 228
    assert weighted_mean(counts, torch.full((19,), 100)) == 12


def test_float_and_boolean_sizes_are_weights_too():
    values = torch.tensor([1.0, 2.0, 6.0])
    assert_close(weighted_mean(values, torch.tensor([0.5, 0.25, 0.25])), torch.tensor(2.5))
    assert_close(weighted_mean(values, torch.tensor([True, False, True])), torch.tensor(3.5))


def test_mean_of_tensors_that_are_not_contiguous():
    values, sizes = normal(6), torch.tensor([1, 9, 2, 9, 3, 9])
    assert_close(weighted_mean(values[::2], sizes[::2]), weighted_mean(values[::2].clone(), torch.tensor([1, 2, 3])))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_added_up_in_float32(dtype):
    values, sizes = normal(301, dtype=dtype) + 3, torch.arange(301)
    exact = weighted_mean(values.double(), sizes)
    error = (weighted_mean(values, sizes).double() - exact).abs()
    assert weighted_mean(values, sizes).dtype == dtype
    assert error <= torch.finfo(dtype).eps * exact
    assert_close(
        weighted_mean(torch.full((3,), 6e4, dtype=dtype), torch.full((3,), 1000)).item(), 6e4, rtol=1e-2, atol=0
    )


def test_a_nan_stays_also_with_weight_0():
    assert math.isnan(weighted_mean(torch.tensor([1.0, math.nan]), torch.tensor([3, 0])))


def test_arguments_are_left_as_they_are():
    values, sizes, hparams = torch.tensor([1.0, 2.0]), torch.tensor([1, 2]), {"a": Config()}
    weighted_mean(values, sizes)
    unloadable(hparams)
    assert values.tolist() == [1, 2]
    assert sizes.tolist() == [1, 2]
    assert hparams == {"a": Config()}


# Wrong input


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("values", "sizes", "message"),
    [
        ([1.0, 2.0], torch.tensor([1, 2]), "values must be a tensor, but is a list"),
        (torch.ones(2), [1, 2], "sizes must be a tensor, but is a list"),
        (torch.ones(2), torch.tensor([1, 2, 3]), r"one shape \(n,\), but have \(2,\) and \(3,\)"),
        (torch.ones(2), torch.tensor(1), "one shape"),
        (torch.tensor(1.0), torch.tensor(1), "one shape"),
        (torch.ones(2, 2), torch.ones(2, 2), "one shape"),
        (torch.tensor([1, 2]), torch.tensor([1, 2]), "floating-point type, but are torch.int64"),
        (torch.ones(2), torch.tensor([1, -1]), "not negative"),
        (torch.ones(2), torch.tensor([1, math.nan]), "finite"),
        (torch.ones(2), torch.tensor([1, math.inf]), "finite"),
        (torch.ones(2), torch.tensor([1, 1j]), "finite"),
        (torch.ones(2), torch.tensor([0, 0]), "greater than 0"),
        (torch.ones(0), torch.ones(0), "greater than 0"),
    ],
    ids=str,
)
def test_wrong_values_and_sizes(values, sizes, message):
    with pytest.raises(ValueError, match=message):
        weighted_mean(values, sizes)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("cls", "base", "message"),
    [
        (Base(), Base, "cls must be a class, but is a Base"),
        (Base, Base(), "base must be a class, but is a Base"),
        (nn.Module, Base, "Module is not derived from Base"),
    ],
    ids=["instance", "instance as base", "another class"],
)
def test_wrong_classes(cls, base, message):
    with pytest.raises(ValueError, match=message):
        unknown_hooks(cls, base)


@pytest.mark.wrong_input
@pytest.mark.parametrize("hparams", [[1], argparse.Namespace(a=1), None], ids=str)
def test_wrong_hyperparameters(hparams):
    with pytest.raises(ValueError, match="hparams must be a mapping"):
        unloadable(hparams)
