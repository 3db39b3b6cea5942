"""Smooth surrogates of what has no gradient: maximum, argmax, accuracy and F1; and F1's threshold.

Sources: the entropy-regularised maximum, Niculae & Blondel, A Regularized Framework for Sparse and
Structured Neural Attention, arXiv 1705.07704, section 2; soft counts, Bénédict et al., sigmoidF1,
arXiv 2108.10566; the threshold, Lipton, Elkan & Narayanaswamy, Thresholding Classifiers to Maximize
F1 Score, arXiv 1402.1892.

Sums are computed in float32 at least, results have the type of the input.
Left out: weights of samples or classes, masks, several classes in one F1, and F-measures other than
F1. The checks of values wait for a GPU.
"""

import math
from numbers import Real

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def smooth_max(x: Float[Tensor, "..."], dim: int, *, k: int | float = 1.0) -> Float[Tensor, "..."]:
    """The smooth maximum (1 / k) log Σ exp(k x) along a dimension; its gradient is softmax(k x).

    It lies above the maximum, by at most (log n) / k for n entries, and its second derivative in
    any direction of length 1 is at most k / 2.

    Args:
        x: Any shape. Entries of -inf are left out, if another one is finite.
        dim: The dimension of the n ≥ 1 entries; the result lacks it.
        k: The sharpness, a positive number. To learn it, multiply `x` by a parameter instead.

    Raises:
        ValueError: `x` is not a floating-point tensor with entries along `dim`, or `k` is not
            positive and finite.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0, 3.0]])
        >>> smooth_max(x, 1)
        tensor([3.1698])
        >>> smooth_max(x, 1, k=10.0)
        tensor([3.])
    """
    _check(x, dim, k)
    return (torch.logsumexp(k * _wide(x), dim) / k).to(x.dtype)


def soft_argmax(x: Float[Tensor, "..."], dim: int, *, k: int | float = 1.0) -> Float[Tensor, "..."]:
    """The mean position Σ i p_i along a dimension, under the weights p = softmax(k x).

    Positions count from 0. The mean is the position of the maximum only if nearly all of the weight
    is there: n - 1 entries of 0 outweigh one of height h if k h < log(n - 1).

    Args:
        x: Any shape.
        dim: The dimension of the n ≥ 1 entries; the result lacks it.
        k: The sharpness, a positive number.

    Returns:
        Numbers from 0 to n - 1. In bfloat16 not every integer above 256 exists.

    Raises:
        ValueError: As for `smooth_max`.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0, 3.0]])
        >>> soft_argmax(x, 1)
        tensor([1.8018])
        >>> soft_argmax(x, 1, k=10.0)
        tensor([2.])
    """
    _check(x, dim, k)
    weights = torch.softmax(k * _wide(x), dim).movedim(dim, -1)
    positions = torch.arange(weights.shape[-1], dtype=weights.dtype, device=x.device)
    return (weights * positions).sum(-1).to(x.dtype)


def soft_accuracy(logits: Float[Tensor, "b c"], target: Shaped[Tensor, " b"]) -> Float[Tensor, ""]:
    """The mean probability of the right class: the expected accuracy of classes drawn from softmax.

    Train on `1 - soft_accuracy(logits, target)`. This is half the absolute error Σ |e - p|, summed
    over classes, between the one-hot label e and the probabilities p, in the mean over samples.

    Args:
        logits: Scores (B, C) before softmax, of B ≥ 1 samples.
        target: The right class of each sample (B,), integers from 0 to C - 1.

    Raises:
        ValueError: A shape or type is wrong, there is no sample, or a class is out of range.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[0.0, 2.0], [0.0, 2.0], [1.0, 0.0]])
        >>> soft_accuracy(logits, torch.tensor([1, 0, 0]))
        tensor(0.5770)
    """
    _check_classes(logits, target)
    probabilities = torch.softmax(logits, 1)
    return probabilities.gather(1, target.long()[:, None]).mean().to(logits.dtype)


def soft_f1(prob: Float[Tensor, "*shape"], target: Shaped[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """F1 with probabilities p for decisions, 2 Σ p y / (Σ p + Σ y), also called soft Dice.

    Train on `1 - soft_f1(prob, target)` over as many samples as fit: the F1 of a whole is not the
    mean of the F1 of its parts. Without a positive sample it is 0, with a gradient of 0; with 0 in
    all of `prob` too, it is 0, as in torchmetrics. After sigmoid the gradient has a factor
    p (1 - p), so a positive with p near 0 hardly learns: train with cross-entropy first, or too.

    Args:
        prob: Probabilities, after sigmoid, of any shape; all are pooled: micro F1, if there are
            several labels.
        target: Labels of the same shape, 1 for positive and 0 for negative.

    Raises:
        ValueError: A shape or type is wrong, there is no sample, a probability is outside [0, 1],
            or a label is neither 0 nor 1.

    Examples:
        >>> import torch
        >>> prob = torch.tensor([0.9, 0.4, 0.2, 0.1])
        >>> soft_f1(prob, torch.tensor([1, 1, 0, 0]))
        tensor(0.7222)
    """
    _check_labelled(prob, target)
    p, y = _wide(prob), _wide(target)
    tiny = torch.finfo(p.dtype).tiny  # 0 / 0 becomes 0
    return (2 * (p * y).sum() / (p.sum() + y.sum()).clamp(min=tiny)).to(prob.dtype)


def best_f1_threshold(
    prob: Float[Tensor, "*shape"], target: Shaped[Tensor, "*shape"]
) -> tuple[float, float]:
    """The threshold t for which the decisions `prob >= t` have the largest F1, and this F1.

    Choose t on samples that neither train the network nor report its score. For calibrated
    probabilities, t is half of the F1, up to sampling (arXiv 1402.1892).

    Args:
        prob: Probabilities of any shape; all are pooled, several labels too.
        target: Labels of the same shape, 1 for positive and 0 for negative.

    Returns:
        One of the probabilities, the largest of those with the best F1; and the F1, which is too
        high, as t was chosen on the same samples.

    Raises:
        ValueError: As for `soft_f1`, or no label is 1: then every threshold has an F1 of 0.

    Examples:
        >>> import torch
        >>> prob = torch.tensor([0.75, 0.5, 0.25, 0.125])
        >>> best_f1_threshold(prob, torch.tensor([1, 0, 1, 0]))
        (0.25, 0.8)
    """
    _check_labelled(prob, target)
    prob, order = prob.detach().flatten().sort(descending=True)
    hits = target.flatten()[order].double().cumsum(0)
    if hits[-1] == 0:
        raise ValueError("target must have a positive sample, or every threshold has an F1 of 0")
    above = torch.arange(1, len(prob) + 1, device=prob.device)
    f1 = 2 * hits / (above + hits[-1])
    f1[:-1][prob[1:] == prob[:-1]] = -1.0  # equal probabilities are decided together
    best = f1.argmax()
    return prob[best].item(), f1[best].item()


def _wide(x: Tensor) -> Tensor:
    """The tensor in float32, or in its own type if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _named(x: object) -> str:
    """What was given, for a message."""
    return f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else repr(x)


def _check(x: Tensor, dim: int, k: int | float) -> None:
    """Raise an error unless x has entries along `dim` and k is a sharpness."""
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim):
        raise ValueError(f"x must be floating-point numbers along a dimension, but is {_named(x)}")
    if isinstance(dim, bool) or not isinstance(dim, int) or not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim must be one of the {x.ndim} dimensions of x, but is {dim!r}")
    if x.shape[dim] == 0:
        raise ValueError(f"x must have entries along dim, but its shape is {tuple(x.shape)}")
    if isinstance(k, bool) or not isinstance(k, Real) or not 0 < k < math.inf:
        raise ValueError(f"k must be a positive, finite number, but is {k!r}")


def _check_classes(logits: Tensor, target: Tensor) -> None:
    """Raise an error unless these are scores of classes and the right class of each sample."""
    if not (isinstance(logits, Tensor) and logits.is_floating_point() and logits.ndim == 2):
        raise ValueError(f"logits must be floating-point numbers (B, C), but are {_named(logits)}")
    integers = isinstance(target, Tensor) and target.dtype in (
        torch.uint8,
        torch.int32,
        torch.int64,
    )
    if not integers or target.shape != logits.shape[:1] or len(target) == 0:
        raise ValueError(
            f"target must be integers of shape ({len(logits)},), one for each sample, "
            f"of which there must be one, but is {_named(target)}"
        )
    if not ((target >= 0) & (target < logits.shape[1])).all():
        raise ValueError(f"classes must be from 0 to {logits.shape[1] - 1}, but one is not")


def _check_labelled(prob: Tensor, target: Tensor) -> None:
    """Raise an error unless these are probabilities and as many labels."""
    if not (isinstance(prob, Tensor) and prob.is_floating_point() and prob.numel()):
        raise ValueError(f"prob must be floating-point numbers, one at least, not {_named(prob)}")
    if not isinstance(target, Tensor) or target.shape != prob.shape or target.is_complex():
        raise ValueError(
            f"target must be labels of the shape of prob, {tuple(prob.shape)}, "
            f"but is {_named(target)}"
        )
    if not ((prob >= 0) & (prob <= 1)).all():
        raise ValueError("prob must be in [0, 1]: apply sigmoid to logits first")
    if not ((target == 0) | (target == 1)).all():
        raise ValueError("target must be 0 or 1, but holds something else")
