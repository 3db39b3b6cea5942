"""Find what PyTorch Lightning accepts silently: unknown hooks, unloadable values, wrong weights.

Nothing here imports Lightning: the base class, the hyperparameters and the batch sizes are
arguments. Seen to agree with pytorch-lightning 2.6. Source: its `Trainer`, `LightningModule.log`
and `LightningModule.save_hyperparameters`.
"""

import difflib
import inspect
import io
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def unknown_hooks(cls: type, base: type) -> dict[str, list[str]]:
    """Methods of a class that look like hooks of its base, but that the trainer does not know.

    A method counts if `base` has no such name, and it begins with `on_`, ends in `_step_end`, or
    resembles a method of `base`: a ratio of at least 0.8 in difflib, after each word is cut to
    three letters. This finds slips and proves nothing. A method that you call yourself may be
    among them. Missed are more distant names, such as `train_loader` for `train_dataloader`, and
    `tbptt_split_batch`, a hook until Lightning 2.0. Not looked at are arguments, functions
    assigned to an instance, and slips of the same name as something else in `base`.

    Args:
        cls: A subclass of `base`: your LightningModule, Callback or LightningDataModule.
        base: The class whose methods the trainer calls, such as `pl.LightningModule`.

    Returns:
        For each such method the nearest methods of `base`, several if they are equally near.

    Raises:
        ValueError: An argument is not a class, or `cls` is not derived from `base`.

    Examples:
        >>> class Base:
        ...     def on_test_epoch_end(self): ...
        ...     def on_train_epoch_end(self): ...
        ...     def training_step(self, batch): ...
        >>> class Model(Base):
        ...     def on_epoch_end(self): ...
        ...     def train_step(self, batch): ...
        ...     def encode(self, x): ...
        >>> for name, nearest in unknown_hooks(Model, Base).items():
        ...     print(name, nearest)
        on_epoch_end ['on_test_epoch_end', 'on_train_epoch_end']
        train_step ['training_step']
    """
    for name, argument in (("cls", cls), ("base", base)):
        if not inspect.isclass(argument):
            raise ValueError(f"{name} must be a class, but is a {type(argument).__name__}")
    if not issubclass(cls, base):
        raise ValueError(f"{cls.__name__} is not derived from {base.__name__}")
    # The trainer calls no method that every torch module has, except through the model itself.
    known = [name for name in _methods(base) if not hasattr(torch.nn.Module, name)]
    found = {}
    for name in sorted(set(_methods(cls)) - set(dir(base))):
        ratios = {
            other: difflib.SequenceMatcher(None, _cut(name), _cut(other)).ratio() for other in known
        }
        best = max(ratios.values(), default=0.0)
        if name.startswith("on_") or name.endswith("_step_end") or best >= 0.8:
            found[name] = [other for other, ratio in ratios.items() if ratio == best]
    return found


def _methods(cls: type) -> list[str]:
    return [name for name in dir(cls) if name[0] != "_" and inspect.isroutine(getattr(cls, name))]


def _cut(name: str) -> str:
    return "_".join(word[:3] for word in name.split("_"))


def unloadable(hparams: Mapping[str, Any]) -> dict[str, str]:
    """Hyperparameters that `torch.load(..., weights_only=True)` refuses, each with the reason.

    Lightning saves hyperparameters in the checkpoint and leaves this setting to torch, where it
    is True. One refused value makes the whole checkpoint unreadable. Types that the process has
    allowed, by `torch.serialization.add_safe_globals`, count as loadable. Each value is pickled
    in memory; do not call this for large models. The checkpoint also holds the hyperparameters
    of the data module, to be checked in the same way, and what callbacks store, which is left out.

    Args:
        hparams: Names and values, such as `model.hparams` or `datamodule.hparams`.

    Returns:
        For each refused value the names of what torch would have to import, or its type, if there
        are none; "not picklable" for what cannot even be saved.

    Raises:
        ValueError: `hparams` is not a mapping.

    Examples:
        >>> from argparse import Namespace
        >>> unloadable({"lr": 0.1, "sizes": [3, 4], "data": Namespace(root="images")})
        {'data': 'argparse.Namespace'}
        >>> unloadable({"lr": 0.1, "sizes": [3, 4], "data": {"root": "images"}})
        {}
    """
    if not isinstance(hparams, Mapping):
        raise ValueError(f"hparams must be a mapping, but is a {type(hparams).__name__}")
    refused = {}
    for name, value in hparams.items():
        file = io.BytesIO()
        try:
            torch.save(value, file)
        except Exception:  # whatever the value's own code raises
            refused[name] = "not picklable"
            continue
        file.seek(0)
        try:
            torch.load(file, weights_only=True)
        except pickle.UnpicklingError:
            refused[name] = ", ".join(_imports(file)) or type(value).__name__
    return refused


def _imports(file: io.BytesIO) -> list[str]:
    file.seek(0)
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except pickle.UnpicklingError:  # not the names are refused, but the form
        return []


def weighted_mean(values: Float[Tensor, " n"], sizes: Shaped[Tensor, " n"]) -> Float[Tensor, ""]:
    """The mean that `self.log(..., on_epoch=True)` reports: Σ nᵢvᵢ / Σ nᵢ.

    With batch sizes as weights it is the mean over all samples if each value is a mean over its
    batch. A ratio of counts, such as precision, recall or F1, needs its denominators as weights.
    Differentiable in `values`. Half precision is added up in float32, as in Lightning. A NaN of
    weight 0 makes the mean NaN, there and here. Left out: other reductions, several processes.

    Args:
        values: One number for each batch, of shape (n,).
        sizes: nᵢ, not negative and not all 0, of shape (n,), integers or floating point.

    Returns:
        The mean, without dimensions, in the type of `values`.

    Raises:
        ValueError: These are not tensors of one dimension and equal length, `values` is not of a
            floating-point type, a size is negative or not finite, or their sum is 0.

    Examples:
        >>> import torch
        >>> losses, sizes = torch.tensor([1.0, 1.0, 4.0]), torch.tensor([4, 4, 2])
        >>> weighted_mean(losses, sizes).item(), losses.mean().item()
        (1.600000023841858, 2.0)
    """
    for name, tensor in (("values", values), ("sizes", sizes)):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a tensor, but is a {type(tensor).__name__}")
    if values.ndim != 1 or values.shape != sizes.shape:
        shapes = f"{(*values.shape,)} and {(*sizes.shape,)}"
        raise ValueError(f"values and sizes must have one shape (n,), but have {shapes}")
    if not values.is_floating_point():
        raise ValueError(f"values must be of a floating-point type, but are {values.dtype}")
    if sizes.is_complex() or not (torch.isfinite(sizes) & (sizes >= 0)).all():
        raise ValueError("sizes must be finite and not negative")
    if not (sizes > 0).any():
        raise ValueError("at least one size must be greater than 0")
    wide = torch.promote_types(values.dtype, torch.float32)
    weights = sizes.to(wide)
    return ((weights * values.to(wide)).sum() / weights.sum()).to(values.dtype)
