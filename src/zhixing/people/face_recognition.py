"""Face recognition around the network: alignment by landmarks, and accuracy on pairs of faces.

Sources: Umeyama, Least-squares estimation of transformation parameters between two point patterns,
TPAMI 1991, equations 40 to 42; Huang et al., Labeled Faces in the Wild, technical report 07-49,
2007 (ten folds); Wang & Deng, Deep Face Recognition: A Survey, arXiv 1804.06655.

Points are (x, y) in pixels, and (0, 0) is the centre of the first pixel. Left out: the detector of
faces and landmarks, the network that embeds a crop, rectangular crops, and smoothing before faces
are shrunk.
"""

import math
from numbers import Real

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zhixing.convolution.arguments import check_floats, integer
from zhixing.foundations.autocast import autocast_off

# The left eye in the image, the right eye, the tip of the nose, the left and the right corner of
# the mouth, in a crop of 112 × 112 pixels. These are the numbers of deepinsight/insightface.
TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)


def align(
    images: Float[Tensor, "b c h w"], landmarks: Float[Tensor, "b 5 2"], *, size: int = 112
) -> Float[Tensor, "b c {size} {size}"]:
    """Crops in which a similarity has brought the landmarks as close to `TEMPLATE` as possible.

    Args:
        images: One face each.
        landmarks: Two eyes, nose and corners of the mouth, in the order of `TEMPLATE`: left and
            right are those of the image, not of the person.
        size: Height and width of the crops. The template is multiplied by size / 112.

    Returns:
        The crops in the type of the images, 0 where they reach beyond them.

    Raises:
        ValueError: The shapes are others, the types no floating-point types, or see
            `similarity_transform`.

    Examples:
        >>> import torch
        >>> landmarks = 2 * torch.tensor([TEMPLATE])
        >>> align(torch.rand(1, 3, 240, 240), landmarks).shape
        torch.Size([1, 3, 112, 112])
    """
    size = integer(size, "size")
    check_floats(images, "images", "B", "C", "H", "W")
    check_floats(landmarks, "landmarks", "B", len(TEMPLATE), 2)
    _check_batch(images, landmarks, "landmarks")
    target = torch.tensor(TEMPLATE, dtype=torch.float64, device=landmarks.device) * (size / 112)
    wide = torch.promote_types(landmarks.dtype, torch.float32)
    return warp(images, similarity_transform(landmarks.to(wide), target.to(wide)), size=size)


def similarity_transform(
    source: Float[Tensor, "*b n 2"], target: Float[Tensor, "*c n 2"]
) -> Float[Tensor, "... 2 3"]:
    """The rotation, scale and shift that move `source` closest to `target`, in least squares.

    With x and y the points less their means, as complex numbers, it is z → a z with
    a = Σ conj(x) y / Σ |x|². In the plane, this is Umeyama's solution, without an SVD. It never
    mirrors: for points that a mirror has moved, the scale |a| is far too small.

    Args:
        source: N points, with any leading dimensions; N is at least 2.
        target: As many points. Leading dimensions are broadcast.

    Returns:
        Matrices (2, 3): `matrix[:, :2] @ point + matrix[:, 2]` is the moved point.

    Raises:
        ValueError: The shapes or types are others, or all source points of a face are equal, or a
            coordinate is not finite.

    Examples:
        A quarter turn, doubled and shifted.

        >>> import torch
        >>> source = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> target = torch.tensor([[5.0, 0.0], [5.0, 2.0], [3.0, 0.0]])
        >>> (similarity_transform(source, target) + 0.0).round(decimals=4).tolist()
        [[0.0, -2.0, 5.0], [2.0, 0.0, 0.0]]
    """
    _check_points(source, "source")
    _check_points(target, "target")
    if source.shape[-2] != target.shape[-2]:
        raise ValueError(f"{source.shape[-2]} source points, but {target.shape[-2]} targets")
    wide = torch.promote_types(source.dtype, torch.float32)
    source, target = torch.broadcast_tensors(source.to(wide), target.to(wide))
    x_mean, y_mean = source.mean(-2), target.mean(-2)
    x, y = source - x_mean[..., None, :], target - y_mean[..., None, :]
    spread = x.square().sum((-2, -1))
    # Not x: the mean of equal numbers may be rounded to another number.
    differ = (source != source[..., :1, :]).any(-1).any(-1)
    if not (differ & (spread > 0) & (spread < math.inf) & y.isfinite().all(-1).all(-1)).all():
        raise ValueError("all source points of a face are equal, or a point is not finite")
    real = (x * y).sum((-2, -1)) / spread
    imaginary = (x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]).sum(-1) / spread
    linear = torch.stack([real, -imaginary, imaginary, real], -1).unflatten(-1, (2, 2))
    shift = y_mean - (linear * x_mean[..., None, :]).sum(-1)
    return torch.cat([linear, shift[..., None]], -1)


def warp(
    images: Float[Tensor, "b c h w"], matrix: Float[Tensor, "b 2 3"], *, size: int = 112
) -> Float[Tensor, "b c {size} {size}"]:
    """Crops whose pixel `matrix @ (x, y, 1)` shows the pixel (x, y) of the image.

    Each pixel of a crop is read from the image by bilinear interpolation, at the place that the
    inverse of the matrix gives, and is 0 outside. Shrinking by more than 2 skips pixels; smooth
    the image first.

    Args:
        images: In a floating-point type; types of fewer than 32 bits are computed in float32.
        matrix: From image to crop, as of `similarity_transform`; may be affine.
        size: Height and width of the crops.

    Raises:
        ValueError: The shapes or types are others, or a matrix has no inverse.

    Examples:
        Shifted to the right by half a pixel.

        >>> import torch
        >>> image, matrix = torch.tensor([[[[2.0, 4.0], [6.0, 8.0]]]]), torch.eye(2, 3)[None]
        >>> matrix[0, 0, 2] = 0.5
        >>> warp(image, matrix, size=2).tolist()
        [[[[1.0, 3.0], [3.0, 7.0]]]]
    """
    size = integer(size, "size")
    check_floats(images, "images", "B", "C", "H", "W")
    check_floats(matrix, "matrix", "B", 2, 3)
    _check_batch(images, matrix, "matrices")
    wide = torch.promote_types(images.dtype, torch.float32)
    matrix = matrix.to(wide)
    (a, b), (c, d) = matrix[:, 0, :2].unbind(1), matrix[:, 1, :2].unbind(1)
    determinant = a * d - b * c
    if not ((determinant != 0) & determinant.isfinite()).all():
        raise ValueError(f"a matrix has no inverse: the determinants are {determinant.tolist()}")
    inverse = torch.stack([d, -b, -c, a], 1).unflatten(1, (2, 2)) / determinant[:, None, None]
    shift = -(inverse * matrix[:, None, :, 2]).sum(2)
    # In the units of grid_sample, -1 and 1 are the outer edges of the image.
    edges = torch.tensor([images.shape[3], images.shape[2]], dtype=wide, device=images.device)
    inverse, shift = 2 * inverse / edges[:, None], (2 * shift + 1) / edges - 1
    pixel = torch.arange(size, dtype=wide, device=images.device)
    pixels = torch.stack(torch.meshgrid(pixel, pixel, indexing="xy"), -1).flatten(0, 1)
    with autocast_off(images):
        grid = torch.baddbmm(shift[:, None], pixels.expand(len(images), -1, 2), inverse.mT)
    grid = grid.unflatten(1, (size, size))
    return F.grid_sample(images.to(wide), grid, align_corners=False).to(images.dtype)


def fold_accuracy(
    scores: Float[Tensor, " n"], same: Bool[Tensor, " n"], *, folds: int = 10
) -> Float[Tensor, " {folds}"]:
    """The accuracy on each fold of pairs, with the threshold that is best on all other folds.

    A pair is accepted if its score is above the threshold, which lies halfway between two scores,
    or is ±∞. Of several best thresholds, the lowest is taken.

    Args:
        scores: Of N pairs, larger for more similar faces; of distances, pass the negative.
        same: Whether the two faces of a pair show one person.
        folds: Into how many consecutive parts the pairs are cut, as evenly as possible. The pairs
            of LFW come in ten folds of 600, and no person is in two of them.

    Returns:
        (folds,) in float64. Report the mean, and as its standard error the standard deviation
            divided by √folds.

    Raises:
        ValueError: The shapes or types are others, a score is not finite, or there are fewer than
            two folds or fewer pairs than folds.

    Examples:
        >>> import torch
        >>> scores = torch.tensor([0.9, 0.2, 0.8, 0.7, 0.6, 0.1])
        >>> same = torch.tensor([True, False, True, False, True, False])
        >>> fold_accuracy(scores, same, folds=3).tolist()
        [1.0, 0.5, 0.5]
    """
    folds = integer(folds, "folds", least=2)
    _check_scores(scores, "scores")
    if not isinstance(same, Tensor) or same.dtype != torch.bool or same.shape != scores.shape:
        what = f"{same.dtype} {(*same.shape,)}" if isinstance(same, Tensor) else repr(same)
        raise ValueError(f"same must be a tensor of bool {(*scores.shape,)}, but is {what}")
    if len(scores) < folds:
        raise ValueError(f"{len(scores)} pairs are too few for {folds} folds")
    scores, indices = scores.double(), torch.arange(len(scores), device=scores.device)
    accuracies = []
    for fold in indices.tensor_split(folds):
        rest = (indices < fold[0]) | (indices > fold[-1])
        threshold = _best_threshold(scores[rest], same[rest])
        accuracies.append(((scores[fold] > threshold) == same[fold]).double().mean())
    return torch.stack(accuracies)


def tar_at_far(
    genuine: Float[Tensor, " g"], impostor: Float[Tensor, " i"], far: float | int
) -> float:
    """The largest share of genuine pairs accepted while at most `far` of the impostors are.

    Args:
        genuine: Scores of pairs of one person, larger for more similar faces.
        impostor: Scores of pairs of two persons, at least 1 / far of them.
        far: The false accept rate, from 0 to 1. With 0, the threshold is the best impostor.

    Returns:
        The true accept rate, from 0 to 1.

    Raises:
        ValueError: The scores are not vectors of finite floating-point numbers, or empty; far is
            outside; or the impostors are too few to observe it.

    Examples:
        >>> import torch
        >>> genuine, impostor = torch.tensor([0.9, 0.7, 0.5, 0.3]), torch.arange(10) / 16
        >>> tar_at_far(genuine, impostor, 0.1)
        0.5
        >>> tar_at_far(genuine, impostor, 0.01)
        Traceback (most recent call last):
        ValueError: far = 0.01 needs at least 100 impostor pairs, but there are 10
    """
    _check_scores(genuine, "genuine")
    _check_scores(impostor, "impostor")
    if not isinstance(far, Real) or not 0 <= far <= 1:
        raise ValueError(f"far must be a number from 0 to 1, but is {far!r}")
    # Products such as 0.29 · 100 may be just below the whole number that is meant.
    accepted = math.floor(far * len(impostor) * (1 + 1e-9))
    if far > 0 and accepted == 0:
        needed = math.ceil((1 - 1e-9) / far)
        raise ValueError(
            f"far = {far} needs at least {needed} impostor pairs, but there are {len(impostor)}"
        )
    if accepted == len(impostor):
        return 1.0
    threshold = impostor.sort(descending=True).values[accepted]
    return (genuine > threshold).double().mean().item()


def _best_threshold(scores: Tensor, same: Tensor) -> Tensor:
    order = scores.argsort()
    scores, same = scores[order], same[order].double()
    # After k rejections: correct are the pairs of two persons before, and of one person after.
    correct = torch.cat([same.sum()[None], same.sum() + (1 - 2 * same).cumsum(0)])
    correct[1:-1] = correct[1:-1].where(scores[1:] > scores[:-1], -1)  # equal ones stay together
    end = scores.new_tensor([math.inf])
    return torch.cat([-end, (scores[1:] + scores[:-1]) / 2, end])[correct.argmax()]


def _check_batch(images: Tensor, others: Tensor, name: str) -> None:
    if len(images) != len(others):
        raise ValueError(f"{len(images)} images, but {name} of {len(others)}")


def _check_points(points: Tensor, name: str) -> None:
    if not isinstance(points, Tensor) or not points.is_floating_point():
        what = points.dtype if isinstance(points, Tensor) else f"a {type(points).__name__}"
        raise ValueError(f"{name} must be a floating-point tensor (…, N, 2), but is {what}")
    if points.ndim < 2 or points.shape[-1] != 2 or points.shape[-2] < 2:
        raise ValueError(f"{name} must be (…, N, 2) with N ≥ 2, but is {(*points.shape,)}")


def _check_scores(scores: Tensor, name: str) -> None:
    check_floats(scores, name, "N")
    if not scores.isfinite().all():
        raise ValueError(f"{name} must be finite")
