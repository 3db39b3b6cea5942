"""Gaze estimation: angles and vectors, the angle between them, losses, and the normalised camera.

Coordinates are those of OpenCV's camera: x to the right of the image, y down, z away from the
camera. From a face on the camera's axis, a gaze into the camera is (0, 0, -1), with yaw and
pitch 0.

Sources: Zhang, Sugano and Bulling, Revisiting Data Normalization for Appearance-Based Gaze
Estimation, ETRA 2018; Kellnhofer et al., Gaze360, arXiv 1910.10088, section 4; Abdelrahman et al.,
L2CS-Net, arXiv 2203.03339, section 3.

Left out: finding face and head pose in the image, and warping the image to the normalised camera.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def angles_to_vector(yaw: Float[Tensor, "*n"], pitch: Float[Tensor, "*n"]) -> Float[Tensor, "*n 3"]:
    """The unit vector (-cos p sin y, -sin p, -cos p cos y) of a direction, as for MPIIGaze.

    Positive yaw looks to the left of the image, positive pitch up. For Gaze360's axes (x to the
    left, y up), change the signs of the first two coordinates.

    Args:
        yaw: In radians, any shape.
        pitch: In radians, of the same shape.

    Returns:
        (..., 3), of length 1.

    Raises:
        ValueError: The shapes differ, or a type is not floating-point.

    Examples:
        >>> import torch
        >>> yaw, pitch = torch.tensor([0.0, torch.pi / 2]), torch.zeros(2)
        >>> angles_to_vector(yaw, pitch).round(decimals=3) + 0
        tensor([[ 0.,  0., -1.],
                [-1.,  0.,  0.]])
    """
    if yaw.shape != pitch.shape:
        raise ValueError(f"yaw is {tuple(yaw.shape)}, but pitch is {tuple(pitch.shape)}")
    _check_floats(yaw=yaw, pitch=pitch)
    return -torch.stack([pitch.cos() * yaw.sin(), pitch.sin(), pitch.cos() * yaw.cos()], -1)


def vector_to_angles(
    vector: Float[Tensor, "*n 3"],
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Yaw and pitch of a direction, the inverse of `angles_to_vector`.

    Args:
        vector: (..., 3) of any length but 0. Straight up or down, the yaw is arbitrary, and the
            gradient NaN.

    Returns:
        Yaw from -pi to pi and pitch from -pi/2 to pi/2, in radians.

    Raises:
        ValueError: The last dimension is not 3, or the type is not floating-point.

    Examples:
        >>> import torch
        >>> yaw, pitch = vector_to_angles(torch.tensor([0.0, -2.0, -2.0]))
        >>> round(torch.rad2deg(pitch).item(), 3)
        45.0
    """
    _check_vectors(vector=vector)
    x, y, z = vector.unbind(-1)
    return torch.atan2(-x, -z), torch.atan2(-y, torch.hypot(x, z))


def angular_error(a: Float[Tensor, "*n 3"], b: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
    """The angle between two directions, atan2(|a × b|, a · b), accurate also if tiny.

    Args:
        a: (..., 3), of any length but 0.
        b: The same shape.

    Returns:
        (...), in radians, from 0 to pi. The gradient is finite also at 0.

    Raises:
        ValueError: The shapes differ, the last dimension is not 3, or a type is not floating-point.

    Examples:
        >>> import torch
        >>> a, b = torch.tensor([0.0, 0.0, -1.0]), torch.tensor([0.0, 3.0, -3.0])
        >>> round(torch.rad2deg(angular_error(a, b)).item(), 3)
        45.0
    """
    _check_vectors(a=a, b=b)
    if a.shape != b.shape:
        raise ValueError(f"a is {tuple(a.shape)}, but b is {tuple(b.shape)}")
    a, b = _scaled(a), _scaled(b)
    return torch.atan2(torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1), (a * b).sum(-1))


def decode_bins(
    logits: Float[Tensor, "*n bins"], *, width: int | float = 4, start: int | float = -180
) -> Float[Tensor, "*n"]:
    """The expected angle under a softmax over bins, each of which stands for its centre.

    Decode a network as it was trained. L2CS-Net's weights were trained with the left edges of the
    bins: for them, give `start` half a bin lower, as -182.

    Args:
        logits: (..., bins). Bin i goes from start + i · width to start + (i + 1) · width.
        width: Of a bin, in degrees; L2CS-Net uses 90 bins of 4° for Gaze360.
        start: The left edge of the first bin, in degrees.

    Returns:
        (...), in degrees.

    Raises:
        ValueError: There is no bin, the width is not positive, the start is not finite, or the
            type is not floating-point.

    Examples:
        The network is sure of the bin from 0° to 4°.

        >>> import torch
        >>> logits = torch.full((90,), -100.0)
        >>> logits[45] = 100.0
        >>> round(decode_bins(logits).item(), 3)
        2.0
    """
    _check_floats(logits=logits)
    if logits.ndim == 0 or not logits.shape[-1] or not 0 < width < math.inf:
        raise ValueError(f"logits are {tuple(logits.shape)}, and bins are {width} degrees wide")
    if not math.isfinite(start):
        raise ValueError(f"start must be finite, but is {start}")
    # Half precision would err by tenths of a degree.
    dtype = torch.promote_types(logits.dtype, torch.float32)
    bins = torch.arange(logits.shape[-1], dtype=dtype, device=logits.device)
    masses = logits.softmax(-1, dtype=dtype)
    return (masses * (start + width * (bins + 0.5))).sum(-1).to(logits.dtype)


def pinball_loss(
    mean: Float[Tensor, "*n"],
    width: Float[Tensor, "*n"],
    target: Float[Tensor, "*n"],
    *,
    q: int | float = 0.1,
) -> Float[Tensor, ""]:
    """The loss of Gaze360, smallest if mean ± width are the q and 1 - q quantiles of the target.

    Each quantile has the loss max(q d, (q - 1) d), where d is the target minus the quantile. If
    several angles share a width, they lie outside of mean ± width with probability 2 q on average,
    but not each of them.

    Args:
        mean: Predicted angles, any shape.
        width: Half the distance of the two quantiles, of the same shape. Gaze360 has one for yaw
            and pitch together, expanded to both.
        target: True angles, of the same shape and in the same unit.
        q: The lower quantile, between 0 and 1/2.

    Returns:
        The mean over all angles of the sum of both losses.

    Raises:
        ValueError: The shapes differ, a tensor is empty or not floating-point, or q is not
            between 0 and 1/2.

    Examples:
        >>> import torch
        >>> mean, width, target = torch.tensor([0.0, 0.0]), torch.ones(2), torch.tensor([0.0, 3.0])
        >>> round(pinball_loss(mean, width, target).item(), 3)
        1.2
    """
    _check_floats(mean=mean, width=width, target=target)
    if not mean.shape == width.shape == target.shape or not mean.numel():
        shapes = [tuple(each.shape) for each in (mean, width, target)]
        raise ValueError(f"mean, width and target must have the same shape, but are {shapes}")
    if not 0 < q < 0.5:
        raise ValueError(f"q must lie between 0 and 1/2, but is {q}")
    below, above = target - (mean - width), target - (mean + width)
    lower = torch.maximum(q * below, (q - 1) * below)
    upper = torch.maximum((1 - q) * above, -q * above)
    return (lower + upper).mean()


def normalizing_rotation(
    face: Float[Tensor, "*n 3"], right: Float[Tensor, "*n 3"]
) -> Float[Tensor, "*n 3 3"]:
    """The rotation R into the normalised camera, which looks at the face and sees no head roll.

    A direction g of the real camera is R g in the normalised one; the transpose takes an estimate
    back. The scaling of distance that images need is not applied to directions.

    Args:
        face: (..., 3), the centre of the face in the coordinates of the camera.
        right: (..., 3), the head's axis from its right to its left eye, in the same coordinates,
            not parallel to `face`. For a face that looks into the camera, it points to the right
            of the image.

    Returns:
        (..., 3, 3), whose rows are the axes of the normalised camera.

    Raises:
        ValueError: The shapes differ, the last dimension is not 3, or a type is not floating-point.

    Examples:
        >>> import torch
        >>> face, right = torch.tensor([3.0, 0.0, 4.0]), torch.tensor([1.0, 0.0, 0.0])
        >>> (normalizing_rotation(face, right) @ face).round(decimals=3) + 0
        tensor([0., 0., 5.])
    """
    _check_vectors(face=face, right=right)
    if face.shape != right.shape:
        raise ValueError(f"face is {tuple(face.shape)}, but right is {tuple(right.shape)}")
    z = F.normalize(_scaled(face), dim=-1)
    y = F.normalize(_scaled(torch.linalg.cross(z, right)), dim=-1)
    return torch.stack([torch.linalg.cross(y, z), y, z], -2)


def _scaled(vector: Tensor) -> Tensor:
    # Products of very long or short vectors would overflow or vanish. Directions do not depend on
    # the scale, which can therefore be a constant in the gradient.
    return vector / vector.detach().abs().amax(-1, keepdim=True)


def _check_floats(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{name} must be a floating-point tensor, but is {kind}")


def _check_vectors(**tensors: Tensor) -> None:
    _check_floats(**tensors)
    for name, tensor in tensors.items():
        if tensor.ndim == 0 or tensor.shape[-1] != 3:
            raise ValueError(f"{name} must be (..., 3), but is {tuple(tensor.shape)}")
