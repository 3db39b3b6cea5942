"""Scores of semantic segmentation, all from one confusion matrix: PA, MPA, IoU, mIoU and FWIoU.

Source: Long, Shelhamer & Darrell, Fully Convolutional Networks for Semantic Segmentation,
arXiv 1411.4038, section 5. The matrix n has the truth in its rows: n[i, j] pixels of class i were
given class j. Matrices of images, batches and processes are added, and scored once at the end.

Left out: scores of single images or objects, scores of the boundary, several ignored labels at
once, and gradients, since counting has none. Scores are float64, which Apple's MPS lacks: move the
matrix to the CPU first.
"""

import operator
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor


def confusion_matrix(
    prediction: Integer[Tensor, "*shape"] | Bool[Tensor, "*shape"],
    target: Integer[Tensor, "*shape"] | Bool[Tensor, "*shape"],
    num_classes: int,
    *,
    ignore_index: int | None = 255,
) -> Int[Tensor, "k k"]:
    """Count the pixels of each true class (row) that were given each class (column).

    If the arguments are swapped, the matrix is transposed: PA, IoU and mIoU stay as they are, but
    MPA and FWIoU change.

    Args:
        prediction: Predicted classes, of any shape and integer type: the argmax of the logits.
        target: True classes, of the same shape.
        num_classes: K; the classes are 0, …, K - 1.
        ignore_index: Pixels with this label in `target` are not counted, whatever was predicted.
            None counts all pixels.

    Returns:
        (K, K), int64, on the device of the prediction. Its sum is the number of counted pixels.

    Raises:
        ValueError: An argument is not a tensor of integers, the shapes differ, a counted pixel has
            a label outside 0, …, K - 1, K is not a positive integer, or `ignore_index` is not one
            label.

    Examples:
        >>> import torch
        >>> target = torch.tensor([0, 0, 0, 1, 1, 255])
        >>> prediction = torch.tensor([0, 0, 1, 1, 1, 0])
        >>> confusion_matrix(prediction, target, 2).tolist()
        [[2, 1], [0, 2]]
    """
    num_classes = _integer(num_classes, "num_classes must be a positive integer")
    if num_classes < 1:
        raise ValueError(f"num_classes must be a positive integer, but is {num_classes}")
    if ignore_index is not None:
        ignore_index = _integer(ignore_index, "ignore_index must be one label or None")
    for name, labels in {"prediction": prediction, "target": target}.items():
        if not isinstance(labels, Tensor):
            raise ValueError(f"the {name} must be a tensor, but is a {type(labels).__name__}")
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must have the same shape, but have {(*prediction.shape,)} "
            f"and {(*target.shape,)}; take the argmax of logits over the classes"
        )
    for name, labels in {"prediction": prediction, "target": target}.items():
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(f"the {name} must hold integer classes, but is {labels.dtype}")
    # Before any arithmetic: in uint8, row 18 of 19 classes would start at 342 - 256 = 86.
    prediction, target = prediction.long(), target.long()
    if ignore_index is not None:
        counted = target != ignore_index
        prediction, target = prediction[counted], target[counted]
    for name, labels in {"prediction": prediction, "target": target}.items():
        if labels.numel() and not 0 <= labels.min() <= labels.max() < num_classes:
            raise ValueError(
                f"the {name} must hold classes 0 to {num_classes - 1} where the target is not "
                f"{ignore_index}, but holds {labels.min()} to {labels.max()}"
            )
    cells = num_classes * target + prediction
    counts = torch.bincount(cells.flatten(), minlength=num_classes**2)
    return counts.view(num_classes, num_classes)


def pixel_accuracy(matrix: Int[Tensor, "k k"]) -> Float[Tensor, ""]:
    """PA, the share of pixels that have the right class: Σ n_ii / Σ t_i.

    Args:
        matrix: Counts (K, K), truth in the rows.

    Returns:
        A scalar in float64; NaN if no pixel was counted.

    Raises:
        ValueError: The matrix is not a square tensor of counts.

    Examples:
        >>> import torch
        >>> pixel_accuracy(torch.tensor([[2, 1], [0, 2]])).item()
        0.8
    """
    hits, truth, _ = _marginals(matrix)
    return hits.sum() / truth.sum()


def mean_pixel_accuracy(matrix: Int[Tensor, "k k"]) -> Float[Tensor, ""]:
    """MPA, the mean over classes of the share of their pixels that were found: n_ii / t_i.

    Args:
        matrix: Counts (K, K), truth in the rows.

    Returns:
        A scalar in float64; classes without a true pixel are left out. NaN if no pixel was counted.

    Raises:
        ValueError: The matrix is not a square tensor of counts.

    Examples:
        >>> import torch
        >>> round(mean_pixel_accuracy(torch.tensor([[2, 1], [0, 2]])).item(), 4)
        0.8333
    """
    hits, truth, _ = _marginals(matrix)
    return (hits / truth).nanmean()


def iou(matrix: Int[Tensor, "k k"]) -> Float[Tensor, " k"]:
    """The intersection over union of each class: n_ii / (t_i + p_i - n_ii).

    Args:
        matrix: Counts (K, K), truth in the rows.

    Returns:
        (K,) in float64; NaN for a class that neither truth nor prediction contains, 0 for a class
            that only one of them contains.

    Raises:
        ValueError: The matrix is not a square tensor of counts.

    Examples:
        >>> import torch
        >>> [round(value, 4) for value in iou(torch.tensor([[2, 1], [0, 2]])).tolist()]
        [0.6667, 0.6667]
    """
    hits, truth, predicted = _marginals(matrix)
    return hits / (truth + predicted - hits)


def mean_iou(
    matrix: Int[Tensor, "k k"], *, absent: Literal["skip", "truth", "zero"] = "skip"
) -> Float[Tensor, ""]:
    """MIoU, the mean of the IoU over classes.

    Args:
        matrix: Counts (K, K), truth in the rows, of the whole test set.
        absent: Which classes count. "skip" leaves out those that neither truth nor prediction
            contains; "truth" leaves out all that the truth does not contain, even if they were
            predicted; "zero" leaves out none, and an undefined IoU counts as 0.

    Returns:
        A scalar in float64; NaN if no pixel was counted, unless `absent` is "zero".

    Raises:
        ValueError: The matrix is not a square tensor of counts, or `absent` is something else.

    Examples:
        Class 2 is predicted once and never true; class 3 is nowhere.

        >>> import torch
        >>> matrix = torch.tensor([[3, 0, 1, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
        >>> [round(mean_iou(matrix, absent=a).item(), 4) for a in ("skip", "truth", "zero")]
        [0.5833, 0.875, 0.4375]
    """
    scores, (_, truth, _) = iou(matrix), _marginals(matrix)
    if absent == "skip":
        return scores.nanmean()
    if absent == "truth":
        return scores[truth > 0].mean()
    if absent == "zero":
        return scores.nan_to_num(0.0).mean()
    raise ValueError(f'absent must be "skip", "truth" or "zero", but is {absent!r}')


def frequency_weighted_iou(matrix: Int[Tensor, "k k"]) -> Float[Tensor, ""]:
    """FWIoU, the mean of the IoU over classes, weighted by their number of true pixels t_i.

    Lies between the square of the pixel accuracy and the pixel accuracy.

    Args:
        matrix: Counts (K, K), truth in the rows.

    Returns:
        A scalar in float64; NaN if no pixel was counted.

    Raises:
        ValueError: The matrix is not a square tensor of counts.

    Examples:
        >>> import torch
        >>> round(frequency_weighted_iou(torch.tensor([[2, 1], [0, 2]])).item(), 4)
        0.6667
    """
    _, truth, _ = _marginals(matrix)
    return (truth * iou(matrix)).nansum() / truth.sum()


def _marginals(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Right pixels n_ii, true pixels t_i and predicted pixels p_i of each class, in float64."""
    if not isinstance(matrix, Tensor):
        raise ValueError(f"the confusion matrix must be a tensor, but is a {type(matrix).__name__}")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"the confusion matrix must be square, but is {tuple(matrix.shape)}")
    if matrix.is_floating_point() or matrix.is_complex() or matrix.dtype == torch.bool:
        raise ValueError(
            f"the confusion matrix must hold integer counts, but is {matrix.dtype}: float32 rounds "
            "counts beyond 2²⁴, and a matrix divided by its rows no longer has the counts"
        )
    matrix = matrix.double()  # before any sum, which could overflow
    if (matrix < 0).any():
        raise ValueError(f"the confusion matrix must hold counts, but its least is {matrix.min()}")
    return matrix.diagonal(), matrix.sum(1), matrix.sum(0)


def _integer(number: int, wanted: str) -> int:
    try:
        return operator.index(number)
    except TypeError:
        raise ValueError(f"{wanted}, but is {number!r}") from None
