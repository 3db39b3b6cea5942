"""Biases: where they start, which of them do nothing, and where batch normalisation puts them.

Sources: Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002, sections 3.3 and 4.1,
for the start at the prior; Ioffe & Szegedy, Batch Normalization, arXiv 1502.03167, section 3.2, for
the bias that normalisation cancels.

Left out: transposed convolutions and reparametrised weights, which are refused, and biases that are
not parameters with "bias" in their name.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def prior_bias(counts: Real[Tensor, " c"]) -> Float[Tensor, " c"]:
    """The bias whose softmax is the share of each class: the logarithm of the shares.

    Of all logits that do not depend on the input, these have the smallest mean cross-entropy, the
    entropy of the shares. For a single logit and a sigmoid, take the difference of the two entries,
    or `torch.logit(share)`, which also serves many labels that do not exclude each other.

    Args:
        counts: How often each class occurs, all positive. If the loss weights the classes, or a
            sampler balances them, count what the loss sees: counts times weights.

    Returns:
        One logit for each class, in the type of `counts`, or in torch's default type for integers.

    Raises:
        ValueError: `counts` is not a vector of positive and finite numbers. For a class that never
            occurs the logarithm is infinite: add a small number to each count.

    Examples:
        >>> import torch
        >>> prior_bias(torch.tensor([80, 15, 5])).softmax(0)
        tensor([0.8000, 0.1500, 0.0500])
        >>> b = prior_bias(torch.tensor([99, 1]))
        >>> round((b[1] - b[0]).item(), 3)
        -4.595
    """
    if not isinstance(counts, Tensor) or counts.dtype == torch.bool or counts.is_complex():
        kind = counts.dtype if isinstance(counts, Tensor) else f"a {type(counts).__name__}"
        raise ValueError(f"counts must be a tensor of real numbers, but is {kind}")
    if counts.ndim != 1 or len(counts) == 0:
        raise ValueError(f"counts must be a vector (C,), but its shape is {(*counts.shape,)}")
    if not bool(((counts > 0) & torch.isfinite(counts)).all()):
        raise ValueError(
            "counts must be positive and finite, one for each class "
            f"(torch.bincount counts labels), but are {counts.tolist()}"
        )
    dtype = counts.dtype if counts.is_floating_point() else torch.get_default_dtype()
    # In half precision, a sum of counts overflows at 65,520.
    log = counts.to(torch.promote_types(dtype, torch.float32)).log()
    return log.log_softmax(0).to(dtype)


def idle_biases(model: nn.Module, *inputs: Any) -> dict[str, int]:
    """How many directions of each bias do nothing: along them the outputs stay the same.

    A bias of C numbers has C independent directions. Its Jacobian, the derivative of all outputs
    with respect to it, sends the idle directions to 0, so their number is C minus the rank. The
    rank is that of C + 8 random combinations of its rows, in float64. All of these gradients are
    kept, and one more backward pass measures the scale of rounding: C + 9 for the largest bias.

    The model is run once, on a copy, in the mode that it is in. The answer holds for these inputs
    and parameters, to first order: a unit whose ReLU is off for all inputs counts as idle, too.
    Each bias is judged alone: of two that are always added, neither is idle. Only the outputs are
    judged, not the loss: for the last bias of a classifier, append its softmax to the model. Parts
    of the model that compute in float32 leave noise that hides idle directions.

    Args:
        model: The module. A bias is a parameter with "bias" in the last part of its name.
        inputs: Its positional inputs; floating-point tensors are converted to float64.

    Returns:
        The number of idle directions of each bias, in the order of `model.named_parameters()`.

    Raises:
        ValueError: The model returns no floating-point tensor, or fewer numbers than the largest
            bias has, so that some directions cannot show: pass more samples.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
        >>> x = torch.linspace(-1, 1, 48).sin().view(16, 3)
        >>> idle_biases(model, x)["0.bias"], idle_biases(model.eval(), x)["0.bias"]
        (4, 0)
    """
    with torch.inference_mode(False), torch.enable_grad():
        model = copy.deepcopy(model).double()
        parameters = {n: p for n, p in model.named_parameters() if p.is_floating_point()}
        biases = {n: p for n, p in parameters.items() if "bias" in n.rpartition(".")[2]}
        for parameter in parameters.values():
            parameter.requires_grad_()
        outputs = _floats(model(*(_double(x) for x in inputs)))
        if not outputs:
            raise ValueError("the model returns no floating-point tensor that depends on it")
        output = torch.cat([y.flatten().double() for y in outputs])
        count = max((b.numel() for b in biases.values()), default=0)
        if output.numel() < count:
            raise ValueError(
                f"the outputs are {output.numel()} numbers, too few to tell apart the directions "
                f"of a bias of {count}: pass more samples"
            )
        generator = torch.Generator().manual_seed(0)

        def gradients(tensors: list[Tensor]) -> tuple[Tensor, ...]:
            mix = torch.randn(output.numel(), generator=generator, dtype=torch.float64)
            return torch.autograd.grad(
                output,
                tensors,
                mix.to(output.device),
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )

        # Rounding noise is small compared with the gradients of other parameters in the layer.
        sizes: dict[str, list[float]] = {}
        for name, g in zip(parameters, gradients(list(parameters.values())), strict=True):
            sizes.setdefault(name.rpartition(".")[0], []).append(_largest(g))
        overall = max((size for layer in sizes.values() for size in layer), default=0.0)
        rows = [gradients(list(biases.values())) for _ in range(count + 8 if biases else 0)]

    idle = {}
    for name, columns in zip(biases, zip(*rows, strict=True), strict=True):
        layer = sizes[name.rpartition(".")[0]]
        size = max(layer) if len(layer) > 1 else overall
        singular = torch.linalg.svdvals(torch.stack(columns).flatten(1))
        rank = (singular > max(1e-9 * size, 1e-14 * overall)).sum().item()
        idle[name] = biases[name].numel() - rank
    return idle


def fold_batch_norm(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """One layer that computes a layer and the batch normalisation after it, for inference.

    With s = γ / √(σ² + ε) for each output channel, the weight becomes s W, and the bias becomes
    β + s (b - μ), where μ and σ² are the running statistics and b is 0 if there is no bias.

    Nothing may stand between the two, and the result no longer follows the statistics of a batch.

    Args:
        layer: `nn.Linear`, which must return (B, C) here, or a convolution that is not transposed.
        norm: Its batch normalisation, with running statistics, in `eval()` mode.

    Returns:
        A copy of the layer, always with a bias. The arguments are not changed.

    Raises:
        ValueError: The layer is of another kind or has reparametrised weights, the normalisation is
            another or in training mode, has no running statistics, or as many channels do not fit.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> conv, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0).eval()
        >>> for tensor, value in (
        ...     (conv.weight, 3.0), (norm.running_mean, 5.0), (norm.running_var, 4.0)
        ... ):
        ...     _ = nn.init.constant_(tensor, value)
        >>> folded = fold_batch_norm(conv, norm)
        >>> folded.weight.item(), folded.bias.item()
        (1.5, -2.5)
    """
    if not isinstance(layer, _LAYERS):
        wanted = "a linear layer or a convolution that is not transposed"
        raise ValueError(f"layer must be {wanted}, but is {type(layer).__name__}")
    if not {"weight", "bias"} <= set(layer._parameters):
        raise ValueError("layer has reparametrised weights: make them plain parameters first")
    if not isinstance(norm, _NORMS):
        raise ValueError(f"norm must be a batch normalisation, but is {type(norm).__name__}")
    if norm.training:
        raise ValueError("norm is in training mode, where the batch decides: call eval() first")
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("norm has no running statistics: it normalises by the batch in any mode")
    channels = layer.weight.shape[0]
    if norm.num_features != channels:
        raise ValueError(f"norm has {norm.num_features} channels, but layer makes {channels}")

    folded = copy.deepcopy(layer)
    dtype = layer.weight.dtype
    with torch.no_grad():
        wide = torch.promote_types(dtype, torch.float32)
        scale = (norm.running_var.to(wide) + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = -norm.running_mean.to(wide)
        if layer.bias is not None:
            shift = shift + layer.bias
        bias = scale * shift
        if norm.bias is not None:
            bias = bias + norm.bias
        weight = layer.weight * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    trained = layer.weight.requires_grad
    folded.weight = nn.Parameter(weight.to(dtype), requires_grad=trained)
    folded.bias = nn.Parameter(bias.to(dtype), requires_grad=trained)
    return folded


def _double(x: Any) -> Any:
    """A copy in float64 of a floating-point tensor, and anything else as it is."""
    if isinstance(x, Tensor) and x.is_floating_point():
        return x.detach().to(torch.float64, copy=True)
    return x


def _floats(output: Any) -> list[Tensor]:
    """All floating-point tensors in an output that depend on the parameters."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() and output.requires_grad else []
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, tuple | list):
        return [y for part in output for y in _floats(part)]
    return []


def _largest(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0
