"""One loss from the losses of many tasks, weighted by uncertainties that are learned or solved for.

Source: Kendall, Gal & Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
Geometry and Semantics, arXiv 1705.07115, section 3.2.

Left out: a variance for each sample, predicted by the network; gradients of single tasks.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def uncertainty_loss(
    losses: Float[Tensor, " t"],
    log_variances: Float[Tensor, " t"],
    *,
    classification: Bool[Tensor, " t"] | None = None,
) -> Float[Tensor, ""]:
    """The sum of ½ e^-s L + ½ s over the tasks, and of e^-s L + ½ s over those that classify.

    These are equations 7 and 10 of the paper, with s = log σ². With the mean squared error as L,
    the sum is the mean negative log likelihood of normal errors, less ½ log 2π for each task. Twice
    the sum, with s = log b and the mean absolute error, is that of Laplace errors, less log 2. The
    minimum over s is at log L, for a task that classifies at log 2L, and may be negative.

    Args:
        losses: One loss for each task, each a mean over its elements. Join them by `torch.stack`:
            `torch.tensor` would cut them off from the network.
        log_variances: s of each task, a parameter that the optimiser must know.
        classification: Which losses are cross-entropies; none of them, if left out.

    Raises:
        ValueError: The arguments are not tensors of one shape (T,), or of other types.

    Examples:
        >>> import torch
        >>> losses = torch.tensor([0.01, 100.0])
        >>> round(uncertainty_loss(losses, torch.zeros(2)).item(), 3)
        50.005
        >>> round(uncertainty_loss(losses, losses.log()).item(), 4)
        1.0
        >>> classification = torch.tensor([False, True])
        >>> total = uncertainty_loss(losses, torch.zeros(2), classification=classification)
        >>> round(total.item(), 3)
        100.005
    """
    _check_losses(losses)
    _check_floats(log_variances, "log_variances", (*losses.shape,))
    scale = 0.5
    if classification is not None:
        if not isinstance(classification, Tensor) or classification.dtype != torch.bool:
            raise ValueError(f"classification must be a tensor of bool, not {classification!r}")
        if classification.shape != losses.shape:
            shapes = f"{(*classification.shape,)}, but losses {(*losses.shape,)}"
            raise ValueError(f"classification has shape {shapes}")
        scale = 0.5 + 0.5 * classification
    return (scale * torch.exp(-log_variances) * losses + 0.5 * log_variances).sum()


class UncertaintyWeights(nn.Module):
    """`uncertainty_loss` with a parameter s = log σ² for each task, which starts at 0.

    Before the first step, copy log L of the first losses into `log_variances`, and log 2L for tasks
    that classify. Give the optimiser a group for it, without weight decay, and with a learning rate
    that lets s follow the losses, such as 0.01. At inference it is not needed.

    Args:
        tasks: T, the number of tasks, at least 1.
        classification: For each task, whether its loss is a cross-entropy.

    Raises:
        ValueError: tasks is not a positive integer, or classification not T booleans.

    Examples:
        >>> import torch
        >>> losses = torch.tensor([0.01, 100.0])  # in training, of the first batch
        >>> weights = UncertaintyWeights(2)
        >>> with torch.no_grad():
        ...     _ = weights.log_variances.copy_(losses.log())
        >>> group = {"params": weights.parameters(), "lr": 0.01, "weight_decay": 0.0}
        >>> optimizer = torch.optim.AdamW([group])  # and a group for the network
        >>> round(weights(losses).item(), 4)
        1.0
    """

    classification: Tensor

    def __init__(self, tasks: int, *, classification: Sequence[bool] | None = None) -> None:
        super().__init__()
        if not isinstance(tasks, int) or isinstance(tasks, bool) or tasks < 1:
            raise ValueError(f"tasks must be a positive integer, but is {tasks!r}")
        flags = [False] * tasks if classification is None else classification
        if not isinstance(flags, list | tuple) or [type(flag) for flag in flags] != [bool] * tasks:
            raise ValueError(f"classification must be {tasks} booleans, but is {flags!r}")
        self.log_variances = nn.Parameter(torch.zeros(tasks))
        self.register_buffer("classification", torch.tensor(flags), persistent=False)

    def forward(self, losses: Float[Tensor, " t"]) -> Float[Tensor, ""]:
        return uncertainty_loss(losses, self.log_variances, classification=self.classification)


def log_of_losses(losses: Float[Tensor, " t"]) -> Float[Tensor, ""]:
    """Half the sum of log L: up to a constant, `uncertainty_loss` at its minimum over s.

    Its gradient is the sum of ∇L / (2L), so a constant factor of a loss has no effect. There is no
    parameter. A loss of 0 makes it -∞ with an infinite gradient, a negative one makes it NaN.

    Args:
        losses: One positive loss for each task, joined by `torch.stack`.

    Raises:
        ValueError: losses is not a floating-point tensor (T,).

    Examples:
        >>> import torch
        >>> losses = torch.tensor([0.01, 100.0], requires_grad=True)
        >>> total = log_of_losses(losses)
        >>> round(abs(total.item()), 4)
        0.0
        >>> [round(x, 4) for x in torch.autograd.grad(total, losses)[0].tolist()]
        [50.0, 0.005]
    """
    _check_losses(losses)
    return 0.5 * losses.log().sum()


def tempered_cross_entropy(
    logits: Float[Tensor, "n k"], target: Int[Tensor, " n"], log_variance: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """The mean negative log likelihood of softmax(logits / σ²), equation 9 of the paper.

    `uncertainty_loss` replaces it by e^-s L + ½ s, with the cross-entropy L of the logits
    themselves. For all logits alike, the two agree at s = 0 only.

    Args:
        logits: For N samples and K classes; N is at least 1.
        target: The class of each sample, from 0 to K - 1, in int64.
        log_variance: s = log σ², where σ² is the temperature.

    Raises:
        ValueError: The arguments have other shapes or types.

    Examples:
        >>> import torch
        >>> logits, target = torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1])
        >>> for s in (0.0, 3.0):
        ...     print(f"{tempered_cross_entropy(logits, target, torch.tensor(s)):.3f}")
        2.018
        0.698
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2 or 0 in logits.shape:
        shape = (*logits.shape,) if isinstance(logits, Tensor) else logits
        raise ValueError(f"logits must be (N, K), with neither 0, but are {shape!r}")
    _check_floats(logits, "logits", (*logits.shape,))
    _check_floats(log_variance, "log_variance", ())
    if not isinstance(target, Tensor) or target.dtype != torch.int64:
        raise ValueError(f"target must be a tensor of int64, but is {target!r}")
    if target.shape != logits.shape[:1]:
        shapes = f"({len(logits)},), but has {(*target.shape,)}"
        raise ValueError(f"target must have shape {shapes}")
    return F.cross_entropy(logits * torch.exp(-log_variance), target)


def _check_losses(losses: Tensor) -> None:
    if not isinstance(losses, Tensor) or losses.ndim != 1:
        what = (*losses.shape,) if isinstance(losses, Tensor) else f"a {type(losses).__name__}"
        raise ValueError(f"losses must be a tensor (T,), as of torch.stack, but is {what}")
    _check_floats(losses, "losses", (*losses.shape,))


def _check_floats(x: Tensor, name: str, shape: tuple[int, ...]) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        what = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"{name} must be a floating-point tensor, but is {what}")
    if x.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, but has {(*x.shape,)}")
