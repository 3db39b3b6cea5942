"""From descriptors to matches, to the relative pose of two cameras, and to the benchmark's score.

A point x of the first image and y (x' in papers) of the second match. A point X of the world, in
the axes of the first camera (x to the right, y down, z away from it), is R X + t in those of the
second. Calibrated points are `calibrate(pixels, k)`. Points are float32 or, better, float64.

Sources: Lowe, IJCV 2004 (ratio test); Hartley, TPAMI 1997 (eight points); Fischler and Bolles,
CACM 1981 (RANSAC); Hartley and Zisserman, Multiple View Geometry, second edition, sections 9.6 and
11.4; Jin et al., arXiv 2003.01587, and ubc-vision/image-matching-benchmark (mAA).

Left out: detection, description, learned matchers, the five-point solver, planar scenes (where
eight points do not determine E), local optimisation, and lens distortion.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from zhixing.convolution.arguments import check_floats, factor, integer, probability


def mutual_matches(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], *, ratio: float | int = 1.0
) -> Int[Tensor, "k 2"]:
    """The pairs of descriptors that are each other's nearest, and much nearer than the second.

    Args:
        a: (N, D), N ≥ 2.
        b: (M, D), M ≥ 2.
        ratio: The largest quotient of both distances, in both directions; 1 switches the test off.

    Returns:
        (matches, 2), the index in `a`, ascending, and the index in `b`.

    Raises:
        ValueError: The sizes do not fit, or the ratio is not between 0 and 1.

    Examples:
        The third of `a` is nearest to the second of `b`, which is nearer to another.

        >>> import torch
        >>> a = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 3.0]])
        >>> b = torch.tensor([[0.0, 1.0], [4.0, 1.0]])
        >>> mutual_matches(a, b).tolist()
        [[0, 0], [1, 1]]
        >>> mutual_matches(a, b, ratio=0.4).tolist()
        [[0, 0]]
    """
    check_floats(a, "a", "N", "D")
    check_floats(b, "b", "M", a.shape[1])
    probability(ratio, "ratio")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"two descriptors or more are needed, not {len(a)} and {len(b)}")
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    # A product of matrices would lose small distances.
    distance = torch.cdist(a.to(wide), b.to(wide), compute_mode="donot_use_mm_for_euclid_dist")
    near_b, forward = distance.topk(2, dim=1, largest=False)
    near_a, backward = distance.topk(2, dim=0, largest=False)
    index, partner = torch.arange(len(a), device=a.device), forward[:, 0]
    kept = backward[0, partner] == index
    kept &= near_b[:, 0] <= ratio * near_b[:, 1]
    kept &= (near_a[0] <= ratio * near_a[1])[partner]
    return torch.stack([index, partner], 1)[kept]


def calibrate(x: Float[Tensor, "*n 2"], k: Float[Tensor, "3 3"]) -> Float[Tensor, "*n 2"]:
    """The points K⁻¹ x of a camera with focal length 1, centred and without skew.

    Args:
        x: Points in pixels.
        k: The camera's matrix [[f_x, skew, c_x], [0, f_y, c_y], [0, 0, 1]].

    Raises:
        ValueError: The sizes are others, or K is not of this form.

    Examples:
        >>> import torch
        >>> k = torch.tensor([[500.0, 0.0, 320.0], [0.0, 500.0, 240.0], [0.0, 0.0, 1.0]])
        >>> calibrate(torch.tensor([[320.0, 240.0], [820.0, 490.0]]), k).tolist()
        [[0.0, 0.0], [1.0, 0.5]]
    """
    check_floats(k, "K", 3, 3)
    (fx, skew, _), (below, fy, _), last = k.tolist()
    if not isinstance(x, Tensor) or x.shape[-1:] != (2,):
        raise ValueError("x must be a tensor (…, 2)")
    if [below, *last] != [0, 0, 0, 1] or not (fx > 0 and fy > 0):
        raise ValueError(f"K must be [[f_x, skew, c_x], [0, f_y, c_y], [0, 0, 1]], but is {k}")
    u, v = ((x - k[:2, 2]) / k.diagonal()[:2]).unbind(-1)
    return torch.stack([u - skew / fx * v, v], -1)


def eight_point(x: Float[Tensor, "*b n 2"], y: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b 3 3"]:
    """The fundamental matrix F of eight or more matches: yᵀ F x = 0 (normalised eight-point).

    Args:
        x: (…, N, 2), the points of the first image.
        y: (…, N, 2), their matches in the second.

    Returns:
        (…, 3, 3), of rank 2 and norm 1; the sign is arbitrary. For calibrated points an estimate of
            E, whose two singular values differ.

    Raises:
        ValueError: The shapes or types differ, or N < 8.

    Examples:
        A camera that moves to the right: all points move to the left, by 1 / depth.

        >>> import torch
        >>> x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> y = x - torch.stack([torch.linspace(0.1, 0.5, 20), torch.zeros(20)], 1).double() ** 2
        >>> f = eight_point(x, y)
        >>> (f / f[2, 1]).round(decimals=6).abs().tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    _check_pairs(x, y, least=8)
    x, to_x = _normalise(x)
    y, to_y = _normalise(y)
    # Row by row the coefficients of yᵀ F x, the sum of F_ij y_i x_j.
    rows = (_homogeneous(y)[..., :, None] * _homogeneous(x)[..., None, :]).flatten(-2)
    # The eigenvector of the smallest eigenvalue minimises the sum of squares.
    f = torch.linalg.eigh(rows.mT @ rows).eigenvectors[..., 0].unflatten(-1, (3, 3))
    u, s, vt = torch.linalg.svd(f)
    f = (u[..., :2] * s[..., None, :2]) @ vt[..., :2, :]
    f = to_y.mT @ f @ to_x
    return f / torch.linalg.matrix_norm(f, keepdim=True)


def sampson(
    f: Float[Tensor, "*b 3 3"], x: Float[Tensor, "*b n 2"], y: Float[Tensor, "*b n 2"]
) -> Float[Tensor, "*b n"]:
    """The Sampson distance of each match: about how far it must move to fulfil yᵀ F x = 0.

    Args:
        f: (…, 3, 3), F for pixels, or E for calibrated points.
        x: (…, N, 2), the points of the first image.
        y: (…, N, 2), their matches in the second.

    Returns:
        (…, N), not squared, in the unit of the points.

    Raises:
        ValueError: The shapes or types do not fit.

    Examples:
        The match is 2 pixels too low; moving both points by 1 pixel would do.

        >>> import torch
        >>> f = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
        >>> x, y = torch.tensor([[5.0, 3.0]]), torch.tensor([[1.0, 5.0]])
        >>> round(sampson(f, x, y).item(), 4)
        1.4142
    """
    _check_pairs(x, y, f)
    x, y = _homogeneous(x), _homogeneous(y)
    line, back = x @ f.mT, y @ f  # F x and Fᵀ y
    slope = (line[..., :2] ** 2).sum(-1) + (back[..., :2] ** 2).sum(-1)
    # At both epipoles, where the slope is 0, the residual is 0 too.
    tiny = torch.finfo(slope.dtype).tiny
    return (y * line).sum(-1).abs() / slope.clamp(min=tiny).sqrt()


def sample_count(inlier_ratio: float | int, size: int, *, confidence: float | int = 0.99) -> int:
    """How many samples contain, with this confidence, at least one without wrong matches.

    Args:
        inlier_ratio: The share w of right matches, so large that wᵐ > 1e-300.
        size: The matches m of a sample.
        confidence: p, less than 1.

    Returns:
        The least k with 1 - (1 - wᵐ)ᵏ ≥ p, for samples with replacement.

    Raises:
        ValueError: w is not in (0, 1] or too small, m no positive integer, or p not in [0, 1).

    Examples:
        >>> [sample_count(0.6, size) for size in (5, 7, 8)]
        [57, 163, 272]
    """
    clean = probability(inlier_ratio, "inlier_ratio") ** integer(size, "size")
    if not clean > 1e-300:
        raise ValueError(f"inlier_ratio ** size must be more than 1e-300, but is {clean}")
    if probability(confidence, "confidence") == 1:
        raise ValueError("confidence must be less than 1")
    if clean == 1 or confidence == 0:
        return 1
    return max(1, math.ceil(math.log1p(-confidence) / math.log1p(-clean)))


def ransac(
    x: Float[Tensor, "n 2"],
    y: Float[Tensor, "n 2"],
    *,
    threshold: float | int,
    samples: int = 1000,
    generator: Generator | None = None,
) -> tuple[Float[Tensor, "3 3"], Bool[Tensor, " n"]]:
    """The matrix that agrees with most matches among those of random samples of eight, refitted.

    Args:
        x: (N, 2), the points of the first image, N ≥ 8.
        y: (N, 2), their matches, some of them wrong.
        threshold: The largest Sampson distance of an inlier, in the unit of the points: for
            calibrated ones, pixels divided by the focal length.
        samples: How many samples are drawn, see `sample_count`.
        generator: The source of random numbers.

    Returns:
        The matrix, fitted to the inliers of the best sample as in `eight_point` (that of the
            sample if it has fewer than 8), and (N,), which matches these inliers are.

    Raises:
        ValueError: There are fewer than 8 matches, the shapes or types differ, the threshold is
            not positive, or `samples` no positive integer.

    Examples:
        >>> import torch
        >>> random = torch.Generator().manual_seed(0)
        >>> x = torch.rand(40, 2, generator=random, dtype=torch.float64)
        >>> y = x - x[:, :1] ** 2 * torch.tensor([[1.0, 0.0]])
        >>> y[30:, 1] += 0.3  # the last ten are wrong
        >>> f, inliers = ransac(x, y, threshold=1e-6, samples=500, generator=random)
        >>> inliers.nonzero().flatten().tolist() == list(range(30))
        True
    """
    _check_pairs(x, y, least=8, batches=False)
    factor(threshold, "threshold")
    samples = integer(samples, "samples")
    weights = torch.ones(1, device=x.device).expand(samples, len(x))
    drawn = torch.multinomial(weights, 8, generator=generator)
    candidates = eight_point(x[drawn], y[drawn])
    every = samples, -1, -1
    agrees = sampson(candidates, x.expand(every), y.expand(every)) <= threshold
    best = agrees.sum(1).argmax()
    inliers = agrees[best]
    if inliers.sum() < 8:  # too few to fit again
        return candidates[best], inliers
    return eight_point(x[inliers], y[inliers]), inliers


def relative_pose(
    e: Float[Tensor, "3 3"], x: Float[Tensor, "n 2"], y: Float[Tensor, "n 2"]
) -> tuple[Float[Tensor, "3 3"], Float[Tensor, " 3"]]:
    """The rotation R and the direction t of an essential matrix E = [t]× R, by cheirality.

    Of the four poses with this E, the one that puts most points in front of both cameras.

    Args:
        e: (3, 3), of any scale and sign; its two larger singular values are taken as equal.
        x: (N, 2), calibrated points, N ≥ 1; wrong matches should be left out.
        y: (N, 2), their matches.

    Returns:
        R (3, 3) with determinant 1, and t (3,) of length 1.

    Raises:
        ValueError: The shapes or types do not fit.

    Examples:
        >>> import torch
        >>> e = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, -2.0, 0.0]])
        >>> x = torch.tensor([[0.0, 0.0], [0.5, 0.2], [0.1, -0.3]])
        >>> r, t = relative_pose(e, x, x - torch.tensor([0.25, 0.0]))
        >>> torch.allclose(r, torch.eye(3), atol=1e-6), [round(value) for value in t.tolist()]
        (True, [-1, 0, 0])
    """
    _check_pairs(x, y, e, least=1, batches=False)
    u, _, vt = torch.linalg.svd(e)
    u, vt = u * torch.linalg.det(u).sign(), vt * torch.linalg.det(vt).sign()  # rotations
    w = e.new_tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    poses = [(u @ m @ vt, sign * u[:, 2]) for m in (w, w.mT) for sign in (1, -1)]
    return max(poses, key=lambda pose: _in_front(*pose, x, y))


def pose_error(
    r: Float[Tensor, "*b 3 3"],
    t: Float[Tensor, "*b 3"],
    r_true: Float[Tensor, "*b 3 3"],
    t_true: Float[Tensor, "*b 3"],
) -> Float[Tensor, "*b"]:
    """The larger of the angles between both rotations and between the lines of both translations.

    Args:
        r: (…, 3, 3), the estimated rotation.
        t: (…, 3), the estimated translation; its length and sign do not count.
        r_true: (…, 3, 3), the true rotation.
        t_true: (…, 3), the true translation.

    Returns:
        (…) in degrees, from 0 to 180.

    Raises:
        ValueError: The sizes or types do not fit, or a translation is 0.

    Examples:
        >>> import torch
        >>> t, opposite = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([-2.0, 0.0, 0.0])
        >>> pose_error(torch.eye(3), opposite, torch.eye(3), t).item()
        0.0
        >>> half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
        >>> pose_error(half_turn, t, torch.eye(3), t).item()
        180.0
    """
    for name, value in {"r": r, "t": t, "r_true": r_true, "t_true": t_true}.items():
        sizes = (3,) if name.startswith("t") else (3, 3)
        if not isinstance(value, Tensor) or value.shape[-len(sizes) :] != sizes:
            raise ValueError(f"{name} must end in the sizes {sizes}")
        if value.dtype != r.dtype or not r.is_floating_point():
            raise ValueError(f"all must have one floating-point type, but {name} is {value.dtype}")
    if not (t.norm(dim=-1) > 0).all() or not (t_true.norm(dim=-1) > 0).all():
        raise ValueError("a translation is 0, which has no direction")
    turn = r.mT @ r_true
    # atan2 of 2 sin and 2 cos keeps small angles, which acos of the trace loses.
    sine = torch.linalg.matrix_norm(turn - turn.mT) / math.sqrt(2)
    rotation = torch.atan2(sine, turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1)
    sine = torch.linalg.cross(t, t_true).norm(dim=-1)
    translation = torch.atan2(sine, (t * t_true).sum(-1).abs())
    return torch.maximum(rotation, translation).rad2deg()


def mean_average_accuracy(errors: Float[Tensor, " n"], *, limit: int = 10) -> Float[Tensor, ""]:
    """mAA: the mean over 1°, 2°, …, `limit`° of the share of pairs with a smaller error.

    Args:
        errors: (N,), the pose error of each pair in degrees; infinite where there is no pose.
        limit: The largest threshold.

    Returns:
        The mean of max(0, limit - ⌊e⌋) / limit. An error of exactly `limit` scores 0; the
            benchmark's histogram, whose last bin is closed, gives 1 / limit.

    Raises:
        ValueError: There is no error, one is negative or NaN, or the limit no positive integer.

    Examples:
        >>> import torch
        >>> round(mean_average_accuracy(torch.tensor([0.4, 2.7, 9.9, 40.0])).item(), 4)
        0.475
    """
    check_floats(errors, "errors", "N")
    limit = integer(limit, "limit")
    if not (errors >= 0).all():
        raise ValueError("errors must not be negative or NaN")
    return (limit - errors.double().floor()).clamp(min=0).mean() / limit


def _check_pairs(
    x: Tensor, y: Tensor, f: Tensor | None = None, *, least: int = 0, batches: bool = True
) -> None:
    sizes = "…, " if batches else ""
    tensors = isinstance(x, Tensor) and isinstance(y, Tensor)
    if not tensors or x.dtype != y.dtype or x.dtype not in (torch.float32, torch.float64):
        raise ValueError("x and y must be tensors, both float32 or both float64")
    if x.shape != y.shape or x.ndim < 2 or x.shape[-1] != 2 or (x.ndim > 2 and not batches):
        shapes = f"{(*x.shape,)} and {(*y.shape,)}"
        raise ValueError(f"x and y must both be ({sizes}N, 2), but are {shapes}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("x and y must be without infinity and NaN")
    if x.shape[-2] < least:
        raise ValueError(f"{least} matches or more are needed, but there are {x.shape[-2]}")
    if f is not None and (
        not isinstance(f, Tensor)
        or f.dtype != x.dtype
        or f.shape[-2:] != (3, 3)
        or (f.ndim > 2 and not batches)
    ):
        raise ValueError(f"the matrix must be ({sizes}3, 3) and of the type of x, {x.dtype}")


def _homogeneous(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)


def _normalise(x: Tensor) -> tuple[Tensor, Tensor]:
    """The points with mean 0 and mean distance √2 from it, and the 3 × 3 matrix of this map."""
    centre = x.mean(-2, keepdim=True)
    distance = (x - centre).norm(dim=-1).mean(-1)[..., None, None]
    scale = math.sqrt(2) / torch.where(distance > 0, distance, 1)
    identity = torch.eye(3, dtype=x.dtype, device=x.device)
    matrix = torch.cat([scale * identity[:2, :2], -scale * centre.mT], -1)
    matrix = torch.cat([matrix, identity[2:].expand(*x.shape[:-2], 1, 3)], -2)
    return (x - centre) * scale, matrix


def _in_front(r: Tensor, t: Tensor, x: Tensor, y: Tensor) -> int:
    """How many points lie in front of both cameras, by least squares for both depths."""
    # Depths a, b with a R x + t = b y: times each direction, two equations in two unknowns.
    first, second = _homogeneous(x) @ r.mT, _homogeneous(y)
    pp, pq, qq = (first**2).sum(1), (first * second).sum(1), (second**2).sum(1)
    pt, qt = first @ t, second @ t
    # Both are multiplied by the same positive determinant.
    return ((pq * qt - qq * pt > 0) & (pp * qt - pq * pt > 0)).sum().item()
