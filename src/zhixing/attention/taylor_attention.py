"""Taylor attention: e^t is replaced by 1 + t, so all pixels attend to all others in linear time.

Source: Li et al., Linear Attention Mechanism: An Efficient Attention for Semantic Segmentation,
arXiv 2007.14902. `TaylorAttention2d` has the parameters of the authors' `PositionLinearAttention`,
so that weights can be loaded.

Left out: masks (for a causal mask, give the features to `chunked_linear_attention`), dropout, and
several heads in the module. Sums are kept in float32 for types of fewer bits, also under autocast.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zhixing.attention.arguments import check_features, widened
from zhixing.foundations.autocast import autocast_off


def taylor_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h m d"],
    v: Float[Tensor, "b h m e"],
) -> Float[Tensor, "b h n e"]:
    """The mean of the values, weighted by 1 + the cosine of q and k.

    The authors' formula, without their constant in the denominator. Only the directions of q and
    k count, and weights lie between 0 and 2 before they are divided by their sum. A vector of
    zeros has no direction, and its cosines are taken as 0; then its gradient is 0, too.

    The products are taken in the cheaper order: with many positions, keys times values first, so
    that time and memory grow with N + M; with more features than positions, as when the positions
    are the channels of an image, queries times keys first.

    Args:
        q: Queries (B, H, N, D), in a floating-point type.
        k: Keys (B, H, M, D).
        v: Values (B, H, M, E).

    Returns:
        (B, H, N, E), of the type of v. Where the sum of the weights is 0 up to rounding, because
        there are no keys or all point away from the query, 0.

    Raises:
        ValueError: Shapes, types or devices do not fit.

    Examples:
        The cosines are 1, 0 and -1, so the weights are 2/3, 1/3 and 0.

        >>> import torch
        >>> q = torch.tensor([[[[5.0, 0.0]]]])
        >>> k = torch.tensor([[[[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]]])
        >>> v = torch.tensor([[[[3.0], [6.0], [9.0]]]])
        >>> taylor_attention(q, k, v)
        tensor([[[[4.]]]])
    """
    check_features(q, k, v)
    dtype, (n, d), (m, e) = v.dtype, q.shape[2:], v.shape[2:]
    q, k, v = widened(q, k, v)
    q, k = direction(q), direction(k)
    with autocast_off(v):
        keys_first = (n + m) * d * e < n * m * (d + e)
        mixed = q @ (k.mT @ v) if keys_first else (q @ k.mT) @ v
        numerator = v.sum(dim=2, keepdim=True) + mixed
        denominator = m + q @ k.sum(dim=2).unsqueeze(-1)
    # Of the sum of M weights, rounding may leave this much where it should be 0.
    none = denominator <= 16 * m * torch.finfo(v.dtype).eps
    out = numerator.masked_fill(none, 0) / denominator.masked_fill(none, 1)
    return out.to(dtype)


def direction(x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """x / |x| along the last axis, and 0 with gradient 0 for a vector of zeros.

    `torch.nn.functional.normalize` has a gradient of 1e12 there, and NaN in float16. Neither large
    nor small elements are squared, so that lengths neither overflow nor underflow.

    Raises:
        ValueError: The type is not floating-point, or the last axis is empty.

    Examples:
        >>> import torch
        >>> direction(torch.tensor([[3e30, 4e30], [0.0, 0.0], [0.0, -1e-30]]))
        tensor([[ 0.6000,  0.8000],
                [ 0.0000,  0.0000],
                [ 0.0000, -1.0000]])
    """
    if not x.is_floating_point() or x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(
            "x must hold vectors of at least one floating-point number, "
            f"but is {x.dtype} and {(*x.shape,)}"
        )
    # Directions do not depend on this factor, so gradients do not either.
    largest = x.detach().abs().amax(dim=-1, keepdim=True)
    zero = largest == 0
    scaled = x / largest.masked_fill(zero, 1)
    # The length of 0 has no gradient: leave 1 there, and 0 over it.
    length = scaled.masked_fill(zero, 1).norm(dim=-1, keepdim=True)
    return (scaled / length).masked_fill(zero, 0)


class TaylorAttention2d(nn.Module):
    """x + γ · attention of all pixels to all pixels; with γ = 0 at first, the identity.

    Queries, keys and values are 1 × 1 convolutions of x, and the one head has
    C // reduction features. The parameters are those of the authors' `PositionLinearAttention`.

    Args:
        channels: C, the number of channels of the maps.
        reduction: Queries and keys have C // reduction features.

    Raises:
        ValueError: No feature is left, or the input is not (B, C, H, W).

    Examples:
        >>> import torch
        >>> block = TaylorAttention2d(64)
        >>> x = torch.rand(2, 64, 24, 40)
        >>> torch.equal(block(x), x)
        True
        >>> for name, parameter in block.named_parameters():
        ...     print(name, tuple(parameter.shape))
        gamma (1,)
        query_conv.weight (8, 64, 1, 1)
        query_conv.bias (8,)
        key_conv.weight (8, 64, 1, 1)
        key_conv.bias (8,)
        value_conv.weight (64, 64, 1, 1)
        value_conv.bias (64,)
    """

    def __init__(self, channels: int, *, reduction: int = 8):
        super().__init__()
        if reduction < 1 or channels < reduction:
            raise ValueError(
                "queries and keys need a feature: reduction must be between 1 and "
                f"channels, but is {reduction} with {channels} channels"
            )
        features = channels // reduction
        self.gamma = nn.Parameter(torch.zeros(1))
        self.query_conv = nn.Conv2d(channels, features, 1)
        self.key_conv = nn.Conv2d(channels, features, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        channels = self.value_conv.in_channels
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"x must be (B, {channels}, H, W), but has shape {(*x.shape,)}")
        q, k, v = (
            # (B, C, H, W) to (B, 1, H · W, C): one head, and the pixels row by row.
            convolution(x).flatten(2).mT.unsqueeze(1)
            for convolution in (self.query_conv, self.key_conv, self.value_conv)
        )
        mixed = taylor_attention(q, k, v).squeeze(1).mT.unflatten(2, x.shape[2:])
        return x + self.gamma * mixed
