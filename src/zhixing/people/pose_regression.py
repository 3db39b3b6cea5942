"""Keypoints from heat maps, and from regression with residual log-likelihood estimation (RLE).

Sources: RLE, Li et al., Human Pose Regression with Residual Log-likelihood Estimation, arXiv
2107.11291; the flow, Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP, arXiv
1605.08803, equations 7 and 8; decoding by the logarithm, Zhang et al., Distribution-Aware
Coordinate Representation for Human Pose Estimation, arXiv 1910.06278; by the mean, Sun et al.,
Integral Human Pose Regression, arXiv 1711.08229.

Left out: the networks, the smoothing of heat maps before decoding, flows of other dimensions.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zhixing.convolution.arguments import check_floats, integer


def rle_loss(
    mean: Float[Tensor, "*b 2"],
    sigma: Float[Tensor, "*b 2"],
    target: Float[Tensor, "*b 2"],
    flow: "RealNVP",
    *,
    residual: bool = True,
) -> Float[Tensor, "*b"]:
    """Minus log Q(x̄)/σ minus log G(x̄)/σ for each keypoint, x̄ = (target - mean) / σ.

    Q is the Laplace density exp(-|x̄|) / 2 of each coordinate, and G that of the flow, counted once.
    The normaliser log s of the paper is left out, as in the released code, which has this loss up
    to constants and the scale of Q, but counts log G twice.

    Args:
        mean: The predicted keypoints (..., 2). Only these are needed at inference.
        sigma: The predicted scale of each coordinate (..., 2), positive: `logits.sigmoid()`, if
            targets are in units of the image size. A negative one gives NaN.
        target: The labelled keypoints (..., 2).
        flow: G. Give its parameters to the optimiser too.
        residual: Whether to add Q. Without it, the mean is learned only up to a constant shift.

    Returns:
        One number for each keypoint, which may be negative. Average those of visible keypoints.

    Raises:
        ValueError: The tensors are not floating-point numbers of one shape (..., 2).

    Examples:
        >>> import torch
        >>> mean, target = torch.zeros(5, 17, 2), torch.full((5, 17, 2), 0.1)
        >>> sigma = torch.full((5, 17, 2), 0.1)
        >>> loss = rle_loss(mean, sigma, target, RealNVP())  # of a flow before its first step
        >>> loss.shape
        torch.Size([5, 17])
        >>> round(loss.mean().item(), 3)
        -2.986
    """
    _check_points(mean, "mean")
    for x, name in ((sigma, "sigma"), (target, "target")):
        _check_points(x, name)
        if x.shape != mean.shape:
            raise ValueError(f"{name} must be {(*mean.shape,)}, as mean, but is {(*x.shape,)}")
    mean, sigma, target = (_wide(x) for x in (mean, sigma, target))
    error = (target - mean) / sigma
    log_sigma = sigma.log().sum(-1)
    loss = log_sigma - flow.log_prob(error)
    if residual:
        loss = loss + log_sigma + (error.abs() + math.log(2)).sum(-1)
    return loss


class RealNVP(nn.Module):
    """A density of points in the plane: a standard normal z, sent through affine couplings.

    A coupling keeps one coordinate a and turns the other into b exp(s(a)) + t(a), so the logarithm
    of its Jacobian determinant is s(a). Parameters have the names and shapes of the flow that was
    released with RLE. Each s and t starts at 0, so the flow starts as the standard normal.

    Args:
        layers: The number of couplings, which keep the second and the first coordinate in turn.
        hidden: The width of the two hidden layers of each s and t.

    Raises:
        ValueError: `layers` or `hidden` is no positive integer.

    Examples:
        >>> import torch
        >>> flow = RealNVP()
        >>> sum(p.numel() for p in flow.parameters())
        53784
        >>> flow(torch.zeros(3, 2)).detach()
        tensor([-1.8379, -1.8379, -1.8379])
    """

    mask: Tensor

    def __init__(self, *, layers: int = 6, hidden: int = 64) -> None:
        super().__init__()
        layers, hidden = integer(layers, "layers"), integer(hidden, "hidden")
        kept = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        self.register_buffer("mask", kept[torch.arange(layers) % 2])
        self.s = nn.ModuleList([_network(hidden, nn.Tanh()) for _ in range(layers)])
        self.t = nn.ModuleList([_network(hidden) for _ in range(layers)])

    def log_prob(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
        """The logarithm of the density at points x (..., 2), computed in the flow's own type.

        Raises:
            ValueError: x is no floating-point tensor (..., 2).
        """
        _check_points(x, "x")
        z = x.reshape(-1, 2).to(self.mask.dtype)
        log_det = z.new_zeros(len(z))
        for mask, s, t in reversed(list(zip(self.mask, self.s, self.t, strict=True))):
            a = mask * z
            log_scale, shift = (1 - mask) * s(a), (1 - mask) * t(a)
            z = (z - shift) * torch.exp(-log_scale)
            log_det = log_det - log_scale.sum(1)
        log_normal = -0.5 * z.square().sum(1) - math.log(2 * math.pi)
        return (log_normal + log_det).reshape(x.shape[:-1]).to(x.dtype)

    forward = log_prob

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "{n} 2"]:
        """Draw n points (n, 2), without gradients.

        Raises:
            ValueError: n is no integer of at least 0.
        """
        shape = (integer(n, "n", least=0), 2)
        like = {"dtype": self.mask.dtype, "device": self.mask.device}
        x = torch.randn(shape, generator=generator, **like)
        for mask, s, t in zip(self.mask, self.s, self.t, strict=True):
            a = mask * x
            x = a + (1 - mask) * (x * torch.exp(s(a)) + t(a))
        return x


def decode_heatmap(
    heat: Float[Tensor, "b k h w"], *, method: str = "dark"
) -> Float[Tensor, "b k 2"]:
    """The position (x, y) of the peak of each heat map, in pixels of the map, from 0.

    Args:
        heat: Heat maps (B, K, H, W) of K keypoints.
        method: `"argmax"`, the largest pixel; `"quarter"`, from there a quarter of a pixel along
            each axis, towards the larger neighbour; `"dark"`, from there to the maximum of a
            parabola through the logarithms of the 3 × 3 pixels around it, which is exact for a
            Gaussian; `"expectation"`, the mean position, weighted by the heat. At the border,
            `"quarter"` and `"dark"` return the largest pixel; so does `"dark"` where the parabola
            has no maximum. On a nearly flat map, its maximum may lie far away.

    For `"dark"`, numbers up to 0 count as the smallest positive one. The code released with the
    paper takes second differences between pixels at a distance of 2 in place of 1, which agrees
    on a Gaussian, and smooths the map before.

    Returns:
        Positions (B, K, 2) in float32, or in float64 for heat in float64. There is a gradient for
        `"dark"` and `"expectation"`.

    Raises:
        ValueError: `heat` is not of this form, `method` is another, or `"expectation"` gets a
            negative number or a map of zeros. For logits, apply softmax to each map first.

    Examples:
        >>> import torch
        >>> y, x = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
        >>> heat = torch.exp(-((x - 20.3) ** 2 + (y - 30.4) ** 2) / 8)[None, None]
        >>> for method in ("argmax", "quarter", "dark", "expectation"):
        ...     print([round(v, 2) for v in decode_heatmap(heat, method=method)[0, 0].tolist()])
        [20.0, 30.0]
        [20.25, 30.25]
        [20.3, 30.4]
        [20.3, 30.4]
    """
    check_floats(heat, "heat", "B", "K", "H", "W")
    methods = ("argmax", "quarter", "dark", "expectation")
    if method not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}, but is {method!r}")
    heat = _wide(heat)
    h, w = heat.shape[2:]
    if method == "expectation":
        return _mean_position(heat)
    index = heat.flatten(2).argmax(2)
    x, y = index % w, index // w
    peak = torch.stack([x, y], 2).to(heat.dtype)
    if method == "argmax":
        return peak
    around = F.pad(heat, (1, 1, 1, 1)).flatten(2)

    def at(dx: int, dy: int) -> Tensor:
        return around.gather(2, ((y + 1 + dy) * (w + 2) + x + 1 + dx)[..., None])[..., 0]

    inside = (x > 0) & (x < w - 1) & (y > 0) & (y < h - 1)
    if method == "quarter":
        shift = torch.stack([at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)], 2).sign() / 4
    else:
        shift, has_maximum = _parabola_maximum(at)
        inside = inside & has_maximum
    return torch.where(inside[..., None], peak + shift, peak)


def _parabola_maximum(at) -> tuple[Tensor, Tensor]:
    """Where the parabola through the logarithms has its maximum, and whether it has one."""
    log = {(i, j): _log(at(i, j)) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    gx, gy = (log[1, 0] - log[-1, 0]) / 2, (log[0, 1] - log[0, -1]) / 2
    hxx = log[1, 0] - 2 * log[0, 0] + log[-1, 0]
    hyy = log[0, 1] - 2 * log[0, 0] + log[0, -1]
    hxy = (log[1, 1] - log[1, -1] - log[-1, 1] + log[-1, -1]) / 4
    det = hxx * hyy - hxy * hxy
    has_maximum = (hxx < 0) & (det > 0)
    det = torch.where(has_maximum, det, 1.0)
    return torch.stack([hxy * gy - hyy * gx, hxy * gx - hxx * gy], 2) / det[..., None], has_maximum


def _mean_position(heat: Tensor) -> Tensor:
    total = heat.sum((2, 3))
    if (heat < 0).any() or (total == 0).any():
        raise ValueError("heat must be at least 0, and not 0 in all of a map, for expectation")
    x, y = (torch.arange(n, dtype=heat.dtype, device=heat.device) for n in (*heat.shape[:1:-1],))
    return torch.stack([(heat.sum(2) * x).sum(2), (heat.sum(3) * y).sum(2)], 2) / total[..., None]


def _log(x: Tensor) -> Tensor:
    return x.clamp(min=torch.finfo(x.dtype).tiny).log()


def _wide(x: Tensor) -> Tensor:
    """The tensor in float32, or in its own type if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _network(hidden: int, *last: nn.Module) -> nn.Sequential:
    output = nn.Linear(hidden, 2)
    nn.init.zeros_(output.weight)
    nn.init.zeros_(output.bias)
    first, second = nn.Linear(2, hidden), nn.Linear(hidden, hidden)
    return nn.Sequential(first, nn.LeakyReLU(), second, nn.LeakyReLU(), output, *last)


def _check_points(x: Tensor, name: str) -> None:
    """Raise an error unless x holds points in the plane."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.shape[-1:] != (2,):
        what = f"{x.dtype} {(*x.shape,)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"{name} must be floating-point points (..., 2), but is {what}")
