"""Activation functions of one variable, from the threshold to squared ReLU, to be read.

Every function works elementwise on a tensor of a floating-point type and of any shape, in the type
of its input; anything else raises `ValueError`. In a network use torch's own functions, which give
the same values: they compute float16 and bfloat16 in float32, and keep one tensor for the backward
pass. GELU, SiLU and the gated units have modules of their own.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# Klambauer et al., arXiv 1706.02515, equation 14.
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def split(
    x: Float[Tensor, "*shape"],
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """max(x, 0) and min(x, 0), the parts from which the piecewise functions are built.

    Neither exp(min(x, 0)) nor exp(-max(x, 0)) can overflow, so nothing that a formula does not need
    becomes inf, nor does its gradient become NaN. At 0 the gradient is that of the left side. For
    NaN the first part is NaN and the second is 0.

    Examples:
        >>> import torch
        >>> positive, negative = split(torch.tensor([-2.0, 0.0, 3.0]))
        >>> positive.tolist(), negative.tolist()
        ([0.0, 0.0, 3.0], [-2.0, 0.0, 0.0])
    """
    left = _floating(x) <= 0
    return torch.where(left, 0, x), torch.where(left, x, 0)


def threshold(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """1 where x ≥ 0, else 0 (McCulloch & Pitts 1943). It has no gradient.

    Examples:
        >>> import torch
        >>> threshold(torch.tensor([-2.0, 0.0, 3.0])).tolist()
        [0.0, 1.0, 1.0]
    """
    return (_floating(x) >= 0).to(x.dtype)


def sigmoid(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The logistic function, 1 / (1 + exp(-x)); to be read, as torch.sigmoid computes the same.

    Examples:
        >>> import torch
        >>> y = sigmoid(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
        >>> [round(value, 4) for value in y.tolist()]
        [0.2689, 0.5, 0.7311]
    """
    positive, negative = split(x)
    # Both terms of the fraction are multiplied by exp(min(x, 0)).
    rising, falling = torch.exp(negative), torch.exp(-positive)
    return rising / (rising + falling)


def tanh(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)); to be read, as torch.tanh computes the same.

    Examples:
        >>> import torch
        >>> y = tanh(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
        >>> [round(value, 4) for value in y.tolist()]
        [-0.7616, 0.0, 0.7616]
    """
    positive, negative = split(2 * _floating(x))
    # Both terms of the fraction are multiplied by exp(-|x|).
    difference = torch.expm1(negative) - torch.expm1(-positive)
    return difference / (torch.exp(negative) + torch.exp(-positive))


def softplus(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(1 + exp(x)) (Dugas et al. 2000), whose derivative is the logistic function.

    Examples:
        >>> import torch
        >>> y = softplus(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
        >>> [round(value, 4) for value in y.tolist()]
        [0.3133, 0.6931, 1.3133]
    """
    positive, negative = split(x)
    return positive + torch.log1p(torch.exp(negative - positive))


def relu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The rectified linear unit, max(x, 0); its gradient at 0 is 0.

    Examples:
        >>> import torch
        >>> relu(torch.tensor([-2.0, 0.0, 3.0])).tolist()
        [0.0, 0.0, 3.0]
    """
    return split(x)[0]


def leaky_relu(
    x: Float[Tensor, "*shape"],
    *,
    negative_slope: float = 0.01,
) -> Float[Tensor, "*shape"]:
    """x where x > 0, else negative_slope · x (Maas et al. 2013).

    Examples:
        >>> import torch
        >>> leaky_relu(torch.tensor([-2.0, 0.0, 3.0]), negative_slope=0.25).tolist()
        [-0.5, 0.0, 3.0]
    """
    positive, negative = split(x)
    return positive + negative_slope * negative


def prelu(
    x: Float[Tensor, "*shape"],
    slope: Float[Tensor, " channels"],
) -> Float[Tensor, "*shape"]:
    """Leaky ReLU with learned slopes (He et al. 2015, arXiv 1502.01852, equation 1).

    Args:
        x: Values; the channels are its second dimension, in (B, L, C) too, so move them there.
        slope: One slope for all channels, or one for each; converted to the type of `x`.

    Raises:
        ValueError: `slope` is not a floating-point tensor with one entry or as many as `x` has
            channels.

    Examples:
        >>> import torch
        >>> prelu(torch.tensor([[-2.0, -2.0]]), torch.tensor([0.25, 0.5])).tolist()
        [[-0.5, -1.0]]
    """
    positive, negative = split(x)
    channels = x.shape[1] if x.ndim > 1 else 1
    if _floating(slope, "slope").shape not in ((1,), (channels,)):
        raise ValueError(
            f"slope must have 1 entry or one for each of {channels} channels, "
            f"but its shape is {tuple(slope.shape)}"
        )
    slope = slope.to(x.dtype).reshape([-1, *[1] * (x.ndim - 2)] if x.ndim else [])
    return positive + slope * negative


def elu(x: Float[Tensor, "*shape"], *, alpha: float = 1.0) -> Float[Tensor, "*shape"]:
    """x where x > 0, else alpha · (exp(x) - 1) (Clevert et al. 2015, arXiv 1511.07289).

    Examples:
        >>> import torch
        >>> y = elu(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
        >>> [round(value, 4) for value in y.tolist()]
        [-0.6321, 0.0, 1.0]
    """
    positive, negative = split(x)
    # Near 0 exp(x) - 1 cancels; far left the slope that torch gives expm1, its result + 1, does.
    left = torch.where(negative < -1, torch.exp(negative) - 1, torch.expm1(negative))
    return positive + alpha * left


def selu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """1.0507 · elu(x, alpha=1.6733) (Klambauer et al. 2017, arXiv 1706.02515, equation 2).

    Keeps mean 0 and variance 1 from layer to layer if the weights are drawn with variance
    1 / (number of inputs), which is not the default of `nn.Linear`, and dropout is alpha dropout.

    Examples:
        >>> import torch
        >>> y = selu(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
        >>> [round(value, 4) for value in y.tolist()]
        [-1.1113, 0.0, 1.0507]
    """
    return SELU_SCALE * elu(x, alpha=SELU_ALPHA)


def mish(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """x · tanh(softplus(x)) (Misra 2019, arXiv 1908.08681).

    Examples:
        >>> import torch
        >>> y = mish(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
        >>> [round(value, 4) for value in y.tolist()]
        [-0.3034, 0.0, 0.8651]
    """
    return x * tanh(softplus(x))


def squared_relu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """max(x, 0)² (So et al. 2021, arXiv 2109.08668). In float16 it overflows from x = 256 on.

    Examples:
        >>> import torch
        >>> squared_relu(torch.tensor([-2.0, 0.0, 3.0])).tolist()
        [0.0, 0.0, 9.0]
    """
    return split(x)[0] ** 2


def _floating(x: Tensor, name: str = "x") -> Tensor:
    """Return `x`; check that it is a tensor of a floating-point type."""
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        came = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"an activation needs a floating-point tensor, but {name} is {came}")
    return x
