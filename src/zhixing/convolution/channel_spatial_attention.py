"""Channel and spatial attention: gates for channels and for pixels, as in SE and CBAM.

Sources: Hu et al., Squeeze-and-Excitation Networks, arXiv 1709.01507, section 3; Woo et al., CBAM:
Convolutional Block Attention Module, arXiv 1807.06521, section 3.

The modules have the parameters of torchvision's `SqueezeExcitation` and of timm's `CbamModule`, so
that weights can be loaded, if the hidden layers are equally wide. `CBAM` makes C // 16 hidden units
and timm C / 16 rounded: where 16 does not divide C, pass timm's number as `hidden`. Left out: other
activations and gates than ReLU and the sigmoid (such as the hard sigmoid of MobileNetV3),
normalisation inside the MLP, and the convolutions around a gate.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zhixing.convolution.arguments import check_floats, integer


def squeeze_excite(
    x: Float[Tensor, "b c h w"],
    w1: Float[Tensor, "r c"],
    b1: Float[Tensor, " r"] | None,
    w2: Float[Tensor, "c r"],
    b2: Float[Tensor, " c"] | None,
) -> Float[Tensor, "b c h w"]:
    """Each channel times σ(w2 ReLU(w1 z + b1) + b2), where z holds the means of the channels.

    Args:
        x: Feature maps (B, C, H, W), H and W at least 1.
        w1: Weights (R, C) of the layer that reads the means, in the layout of `nn.Linear`.
        b1: Its biases (R,), or None.
        w2: Weights (C, R) of the layer that makes the gates.
        b2: Its biases (C,), or None.

    Raises:
        ValueError: `x` is not a floating-point tensor of four dimensions with pixels, or weights or
            biases do not fit it.

    Examples:
        Without weights, the bias alone sets the gates: σ(0) = 1/2.

        >>> import torch
        >>> x = torch.arange(8.0).view(1, 2, 2, 2)
        >>> squeeze_excite(x, torch.zeros(1, 2), None, torch.zeros(2, 1), torch.zeros(2))
        tensor([[[[0.0000, 0.5000],
                  [1.0000, 1.5000]],
        <BLANKLINE>
                 [[2.0000, 2.5000],
                  [3.0000, 3.5000]]]])
    """
    _check(x, w1, b1, w2, b2)
    squeezed = x.mean((2, 3))
    gates = F.linear(F.relu(F.linear(squeezed, w1, b1)), w2, b2).sigmoid()
    return x * gates[:, :, None, None]


def channel_gate(
    x: Float[Tensor, "b c h w"],
    w1: Float[Tensor, "r c"],
    b1: Float[Tensor, " r"] | None,
    w2: Float[Tensor, "c r"],
    b2: Float[Tensor, " c"] | None,
    *,
    pools: Sequence[str] = ("mean", "max"),
) -> Float[Tensor, "b c h w"]:
    """Each channel times σ(MLP(means) + MLP(maxima)), with MLP(z) = w2 ReLU(w1 z + b1) + b2.

    This is the channel attention of CBAM (section 3): one MLP reads both, and the sum comes before
    the sigmoid. A gradient of a maximum is shared equally by the pixels that hold it.

    Args:
        x: Feature maps (B, C, H, W), H and W at least 1.
        w1: Weights (R, C) of the first layer of the MLP, in the layout of `nn.Linear`.
        b1: Its biases (R,), or None.
        w2: Weights (C, R) of the second layer.
        b2: Its biases (C,), or None.
        pools: What the MLP reads: "mean", "max" or both.

    Raises:
        ValueError: `x` is not a floating-point tensor of four dimensions with pixels, weights or
            biases do not fit it, or `pools` is empty or names something else.

    Examples:
        The mean of four pixels is 1, the maximum 4; the gate is σ(1 + 4).

        >>> import torch
        >>> x, one = torch.tensor([0.0, 0, 0, 4]).view(1, 1, 2, 2), torch.ones(1, 1)
        >>> channel_gate(x, one, None, one, None)[0, 0, 1, 1] / 4, torch.sigmoid(torch.tensor(5.0))
        (tensor(0.9933), tensor(0.9933))
    """
    _check(x, w1, b1, w2, b2)
    _check_pools(pools)
    statistics = {"mean": x.mean, "max": x.amax}
    logits = sum(
        F.linear(F.relu(F.linear(statistics[pool]((2, 3)), w1, b1)), w2, b2) for pool in pools
    )
    return x * logits.sigmoid()[:, :, None, None]


class SqueezeExcite(nn.Module):
    """`squeeze_excite` with its weights, named and shaped as in torchvision and in timm.

    Args:
        channels: C, the number of channels of the maps.
        reduction: The hidden layer has C // reduction units.
        hidden: The number of hidden units, if another is wanted.

    Raises:
        ValueError: A number is no positive integer, there would be no hidden unit, or the input
            has another number of channels.

    Examples:
        >>> import torch
        >>> module = SqueezeExcite(64)
        >>> module(torch.rand(2, 64, 7, 5)).shape
        torch.Size([2, 64, 7, 5])
        >>> for name, parameter in module.named_parameters():
        ...     print(name, tuple(parameter.shape))
        fc1.weight (4, 64, 1, 1)
        fc1.bias (4,)
        fc2.weight (64, 4, 1, 1)
        fc2.bias (64,)
    """

    def __init__(self, channels: int, *, reduction: int = 16, hidden: int | None = None):
        super().__init__()
        channels, hidden = _widths(channels, reduction, hidden)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        w1, w2 = self.fc1.weight.flatten(1), self.fc2.weight.flatten(1)
        return squeeze_excite(x, w1, self.fc1.bias, w2, self.fc2.bias)


class ChannelGate(nn.Module):
    """`channel_gate` with its weights: the first half of CBAM.

    Args:
        channels: C, the number of channels of the maps.
        reduction: The hidden layer has C // reduction units.
        hidden: The number of hidden units, if another is wanted.
        pools: What the MLP reads: "mean", "max" or both.
        bias: Whether its layers have biases, as in the authors' code; timm's have none by default.

    Raises:
        ValueError: A number is no positive integer, there would be no hidden unit, or the input
            has another number of channels.

    Examples:
        >>> import torch
        >>> ChannelGate(32)(torch.rand(2, 32, 7, 5)).shape
        torch.Size([2, 32, 7, 5])
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        hidden: int | None = None,
        pools: Sequence[str] = ("mean", "max"),
        bias: bool = False,
    ):
        super().__init__()
        _check_pools(pools)
        channels, hidden = _widths(channels, reduction, hidden)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.pools = pools

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        w1, w2 = self.fc1.weight.flatten(1), self.fc2.weight.flatten(1)
        return channel_gate(x, w1, self.fc1.bias, w2, self.fc2.bias, pools=self.pools)


class SpatialGate(nn.Module):
    """Each pixel times σ(BN(k × k convolution of the channels' mean and maximum)).

    This is the spatial attention of CBAM (section 3), with the batch normalisation of the authors'
    code. The mean comes before the maximum, as in the paper and in timm; in the authors' code the
    maximum is first.

    Args:
        kernel_size: The size k of the convolution, odd.

    Raises:
        ValueError: The kernel size is no positive odd integer, or the input is not a floating-point
            tensor of four dimensions with pixels and channels.

    Examples:
        >>> import torch
        >>> SpatialGate()(torch.rand(2, 32, 7, 5)).shape
        torch.Size([2, 32, 7, 5])
    """

    def __init__(self, *, kernel_size: int = 7):
        super().__init__()
        kernel_size = integer(kernel_size, "kernel_size")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, but is {kernel_size}")
        convolution = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.conv = nn.ModuleDict({"conv": convolution, "bn": nn.BatchNorm2d(1)})

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        check_floats(x, "x", "B", "C", "H", "W")
        maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * self.conv["bn"](self.conv["conv"](maps)).sigmoid()


class CBAM(nn.Module):
    """A `ChannelGate` and then a `SpatialGate`, with the parameters of timm's `CbamModule`.

    The shapes agree if 16 divides the channels, or with the same `hidden`.

    Args:
        channels: C, the number of channels of the maps.
        reduction: The hidden layer of the channel gate has C // reduction units.
        hidden: The number of hidden units, if another is wanted.
        kernel_size: The size of the spatial gate's convolution, odd.
        bias: Whether the MLP has biases.

    Raises:
        ValueError: As in the two gates.

    Examples:
        >>> import torch
        >>> module = CBAM(64).eval()
        >>> module(torch.rand(2, 64, 7, 5)).shape
        torch.Size([2, 64, 7, 5])
        >>> sum(parameter.numel() for parameter in module.parameters())
        612
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        hidden: int | None = None,
        kernel_size: int = 7,
        bias: bool = False,
    ):
        super().__init__()
        self.channel = ChannelGate(channels, reduction=reduction, hidden=hidden, bias=bias)
        self.spatial = SpatialGate(kernel_size=kernel_size)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.spatial(self.channel(x))


def _widths(channels: int, reduction: int, hidden: int | None) -> tuple[int, int]:
    """The numbers of channels and of hidden units; ValueError if there is none."""
    channels = integer(channels, "channels")
    reduction = integer(reduction, "reduction")
    hidden = channels // reduction if hidden is None else integer(hidden, "hidden")
    if hidden < 1:
        raise ValueError(
            f"a gate needs a hidden unit, but {channels} // {reduction} = 0: "
            "pass a smaller reduction, or hidden"
        )
    return channels, hidden


def _check(x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None) -> None:
    """ValueError unless x is (B, C, H, W) with pixels, w1 (R, C), b1 (R,), w2 (C, R), b2 (C,)."""
    check_floats(x, "x", "B", "C", "H", "W")
    channels = x.shape[1]
    check_floats(w1, "w1", "R", channels)
    check_floats(w2, "w2", channels, len(w1))
    if b1 is not None:
        check_floats(b1, "b1", len(w1))
    if b2 is not None:
        check_floats(b2, "b2", channels)


def _check_pools(pools: Sequence[str]) -> None:
    names = list(pools) if isinstance(pools, tuple | list | set | frozenset) else []
    if not names or any(name not in ("mean", "max") for name in names):
        raise ValueError(f"pools must name 'mean', 'max' or both, but is {pools!r}")
