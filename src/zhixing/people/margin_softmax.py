"""Softmax logits with a margin between classes: L-Softmax, SphereFace, CosFace and ArcFace.

Each function returns logits for `torch.nn.functional.cross_entropy`. A margin lowers the logit of
the true class; all other logits are scaled cosines. At inference, compare features by the cosine
of their angle, without class weights, labels or margins.

Sources: Liu et al., arXiv 1612.02295 and 1704.08063; Wang et al., arXiv 1704.06369 and 1801.09414;
Deng et al., arXiv 1801.07698.

Left out: the annealing of the first two with plain logits, classes divided among several GPUs, and
labels to be ignored.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from zhixing.convolution.arguments import check_floats, factor, integer
from zhixing.foundations.autocast import autocast_off


def cosface(
    features: Float[Tensor, "b d"],
    weight: Float[Tensor, "c d"],
    labels: Int[Tensor, " b"],
    *,
    s: float | int = 64.0,
    m: float | int = 0.35,
) -> Float[Tensor, "b c"]:
    """Logits s (cos θ - m) for the true class and s cos θ for the others, equation 4 of CosFace.

    θ is the angle between features and the weights of a class. With m = 0, it is NormFace.

    Args:
        features: The network's output for B samples, of any length.
        weight: One vector for each of C classes, as in `torch.nn.Linear`; there is no bias.
        labels: The class of each sample, from 0 to C - 1, in int64.
        s: Scale of all logits. Half precision is widened to float32 first, also under autocast.
        m: Margin of the cosine, at least 0 and below 2.

    Raises:
        ValueError: Shapes or types do not fit, s is not positive, or m is out of range.
        RuntimeError: A label is no class, such as -100 (on the CPU; a GPU reports it later).

    Examples:
        >>> import torch
        >>> features, weight = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 3.0]])
        >>> cosface(features, weight, torch.tensor([0]), s=10, m=0.25)
        tensor([[7.5000, 0.0000]])
    """
    _check(features, weight, labels, s)
    _check_margin(m, 2.0, "the cosine")
    return s * _with_margin(features, weight, labels, lambda cosine: cosine - m)


def arcface(
    features: Float[Tensor, "b d"],
    weight: Float[Tensor, "c d"],
    labels: Int[Tensor, " b"],
    *,
    s: float | int = 64.0,
    m: float | int = 0.5,
) -> Float[Tensor, "b c"]:
    """Logits s cos(θ + m) for the true class and s cos θ for the others, equation 3 of ArcFace.

    Where θ + m exceeds π, cos(θ + m) would rise again. There the logit is s (cos θ - m sin m), as
    in older code of the authors; the equation has no such case. At θ = 0, where the gradient has no
    direction, it is that of cos m cos θ.

    Args:
        features: The network's output for B samples, of any length.
        weight: One vector for each of C classes, as in `torch.nn.Linear`; there is no bias.
        labels: The class of each sample, from 0 to C - 1, in int64.
        s: Scale of all logits. Half precision is widened to float32 first, also under autocast.
        m: Margin of the angle in radians, at least 0 and below π/2; 0.5 is 28.6 degrees.

    Raises:
        ValueError: Shapes or types do not fit, s is not positive, or m is out of range.
        RuntimeError: A label is no class, such as -100 (on the CPU; a GPU reports it later).

    Examples:
        >>> import torch
        >>> features, weight = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 3.0]])
        >>> arcface(features, weight, torch.tensor([0]), s=10)  # 10 cos 0.5
        tensor([[8.7758, 0.0000]])
    """
    _check(features, weight, labels, s)
    _check_margin(m, math.pi / 2, "the angle in radians")

    def psi(cosine: Tensor) -> Tensor:
        # rounded cosines may exceed 1, and the root has no slope at 0: below, clamp has the slope 0
        sine = (1 - cosine.square()).clamp(min=torch.finfo(cosine.dtype).tiny).sqrt()
        shifted = math.cos(m) * cosine - math.sin(m) * sine  # cos(θ + m), without an arccosine
        return torch.where(cosine >= -math.cos(m), shifted, cosine - m * math.sin(m))

    return s * _with_margin(features, weight, labels, psi)


def sphereface(
    features: Float[Tensor, "b d"],
    weight: Float[Tensor, "c d"],
    labels: Int[Tensor, " b"],
    *,
    s: float | int = 1.0,
    m: int = 4,
) -> Float[Tensor, "b c"]:
    """Logits s |x| ψ(θ) for the true class and s |x| cos θ for the others, as in SphereFace.

    ψ(θ) = (-1)^k cos mθ - 2k between kπ/m and (k + 1)π/m falls from 1 to 1 - 2m. The length |x| of
    the features counts, that of the weights does not.

    Args:
        features: The network's output for B samples.
        weight: One vector for each of C classes, as in `torch.nn.Linear`; there is no bias.
        labels: The class of each sample, from 0 to C - 1, in int64.
        s: Scale of all logits; the paper has none. Half precision is widened to float32 first.
        m: Factor of the angle, a positive integer.

    Raises:
        ValueError: Shapes or types do not fit, s is not positive, or m is no positive integer.
        RuntimeError: A label is no class, such as -100 (on the CPU; a GPU reports it later).

    Examples:
        >>> import torch
        >>> features, weight = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 3.0]])
        >>> sphereface(features, weight, torch.tensor([1]))  # ψ(π/2) = -3
        tensor([[ 2., -6.]])
    """
    _check(features, weight, labels, s)
    m = integer(m, "m")
    length = torch.linalg.vector_norm(_widen(features), dim=1, keepdim=True)
    return s * length * _with_margin(features, weight, labels, lambda c: _multiple_angle(c, m))


def l_softmax(
    features: Float[Tensor, "b d"],
    weight: Float[Tensor, "c d"],
    labels: Int[Tensor, " b"],
    *,
    s: float | int = 1.0,
    m: int = 4,
) -> Float[Tensor, "b c"]:
    """Logits s |W| |x| ψ(θ) for the true class and s W·x for the others, as in L-Softmax.

    ψ is that of `sphereface`, where the lengths |W| of the weights do not count. With s = 1 and
    m = 1, it is a linear layer without bias.

    Args:
        features: The network's output for B samples.
        weight: One vector for each of C classes, as in `torch.nn.Linear`; there is no bias.
        labels: The class of each sample, from 0 to C - 1, in int64.
        s: Scale of all logits; the paper has none. Half precision is widened to float32 first.
        m: Factor of the angle, a positive integer.

    Raises:
        ValueError: Shapes or types do not fit, s is not positive, or m is no positive integer.
        RuntimeError: A label is no class, such as -100 (on the CPU; a GPU reports it later).

    Examples:
        >>> import torch
        >>> features, weight = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 3.0]])
        >>> l_softmax(features, weight, torch.tensor([1]))
        tensor([[  6., -18.]])
    """
    logits = sphereface(features, weight, labels, s=s, m=m)
    return torch.linalg.vector_norm(_widen(weight), dim=1) * logits


def normface_floor(classes: int, s: float | int) -> float:
    """The least cross-entropy of so many classes of equal frequency with logits s cos θ.

    For C classes it is log(1 + (C - 1) exp(-s C / (C - 1))), the lower bound of NormFace, s = l².
    It is reached if each feature has the direction of its class, and all pairs of classes have the
    cosine -1 / (C - 1), for which the features need at least C - 1 dimensions.

    Args:
        classes: C, at least 2.
        s: Scale of the logits.

    Raises:
        ValueError: classes is no integer of at least 2, or s is not positive.

    Examples:
        >>> print(f"{normface_floor(10_575, 1):.2f}")  # the classes of CASIA-WebFace, without scale
        8.27
        >>> normface_floor(10_575, 64) < 1e-20
        True
    """
    others = integer(classes, "classes", least=2) - 1
    return math.log1p(others * math.exp(-factor(s, "s") * classes / others))


def _with_margin(
    features: Tensor, weight: Tensor, labels: Tensor, psi: Callable[[Tensor], Tensor]
) -> Tensor:
    with autocast_off(features):  # which would round the cosines to 16 bits
        cosine = F.linear(F.normalize(_widen(features)), F.normalize(_widen(weight)))
    index = labels[:, None]
    # scatter, unlike indexing, refuses negative labels
    return cosine.scatter(1, index, psi(cosine.gather(1, index)))


def _widen(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _multiple_angle(cosine: Tensor, m: int) -> Tensor:
    """(-1)^k cos mθ - 2k from cos θ, where k counts the multiples of π/m below θ."""
    before, now = torch.ones_like(cosine), cosine
    for _ in range(m - 1):  # cos (n + 1)θ = 2 cos θ cos nθ - cos (n - 1)θ, Chebyshev's recursion
        before, now = now, 2 * cosine * now - before
    k = sum((cosine < math.cos(j * math.pi / m)).to(cosine.dtype) for j in range(1, m))
    return (1 - 2 * (k % 2)) * now - 2 * k


def _check(features: Tensor, weight: Tensor, labels: Tensor, s: float | int) -> None:
    check_floats(features, "features", "B", "D")
    check_floats(weight, "weight", "C", features.shape[1])
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        kind = labels.dtype if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
        raise ValueError(f"labels must be a tensor of int64, but is {kind}")
    if labels.shape != features.shape[:1]:
        raise ValueError(f"labels must be ({len(features)},), but its shape is {(*labels.shape,)}")
    factor(s, "s")


def _check_margin(m: float | int, limit: float, of: str) -> None:
    if not 0 <= m < limit:  # so that NaN is refused
        raise ValueError(f"m, the margin of {of}, must be from 0 to {limit:.4g}, but is {m!r}")
