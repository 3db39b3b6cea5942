"""Exact probabilities of binary vectors from networks that predict each variable from those before.

Sources: Larochelle & Murray, The Neural Autoregressive Distribution Estimator, AISTATS 2011, for
FVBN and NADE; Germain et al., MADE: Masked Autoencoder for Distribution Estimation, arXiv
1502.03509.

Left out: real-valued variables, direct connections from inputs to outputs, connectivity drawn anew.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zhixing.convolution.arguments import check_floats, integer


def log_prob(logits: Float[Tensor, "b d"], x: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """log p(x) in nats: the sum over d of the log probability of x_d, given the logits.

    It is a log probability only if the d-th logit depends on nothing but earlier variables. Divide
    by -D log 2 for bits per variable.

    Args:
        logits: Of the probability that x_d is 1, given the variables before it.
        x: Vectors of zeros and ones.

    Raises:
        ValueError: The arguments are not floating-point tensors of one shape (B, D), or x has other
            values than 0 and 1.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
        >>> log_prob(torch.zeros(2, 3), x).exp().tolist()  # fair coins
        [0.125, 0.125]
    """
    check_floats(logits, "logits", "B", "D")
    check_floats(x, "x", "B", logits.shape[1])
    if len(x) != len(logits):
        raise ValueError(f"x has {len(x)} vectors, but logits {len(logits)}")
    if not ((x == 0) | (x == 1)).all():
        raise ValueError("x must hold zeros and ones only: binarise it first")
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)


def fvbn_logits(
    x: Float[Tensor, "b d"], w: Float[Tensor, "d d"], b: Float[Tensor, " d"]
) -> Float[Tensor, "b d"]:
    """A logistic regression of each variable on those before it: the fully visible belief network.

    Args:
        x: Vectors of zeros and ones.
        w: Weights, of which only those below the diagonal are used.
        b: Biases.

    Raises:
        ValueError: The arguments are not floating-point tensors of these shapes.

    Examples:
        >>> import torch
        >>> x, w = torch.tensor([[1.0, 1.0, 0.0]]), torch.full((3, 3), 2.0)
        >>> fvbn_logits(x, w, torch.zeros(3)).tolist()
        [[0.0, 2.0, 4.0]]
    """
    check_floats(x, "x", "B", "D")
    d = x.shape[1]
    check_floats(w, "w", d, d)
    check_floats(b, "b", d)
    return F.linear(x, w.tril(-1), b)


def nade_logits(
    x: Float[Tensor, "b d"],
    w: Float[Tensor, "h d"],
    c: Float[Tensor, " h"],
    v: Float[Tensor, "d h"],
    b: Float[Tensor, " d"],
) -> Float[Tensor, "b d"]:
    """NADE: hidden layers h_d = σ(c + W_{:,<d} x_{<d}) that share W; logit d is V_d h_d + b_d.

    The sums over earlier variables are running sums, so that all D hidden layers take O(DH)
    operations for each vector, and D·H numbers of memory.

    Args:
        x: Vectors of zeros and ones.
        w: Weights W from the inputs to the hidden units.
        c: Biases of the hidden units, the same for all d.
        v: Weights V from the hidden layer of each d to its logit.
        b: Biases of the logits.

    Raises:
        ValueError: The arguments are not floating-point tensors of these shapes.

    Examples:
        >>> import torch
        >>> x, w = torch.tensor([[1.0, 0.0, 1.0]]), torch.full((2, 3), 100.0)
        >>> nade_logits(x, w, torch.zeros(2), torch.ones(3, 2), torch.zeros(3)).tolist()
        [[1.0, 2.0, 2.0]]
    """
    check_floats(x, "x", "B", "D")
    d = x.shape[1]
    check_floats(w, "w", "H", d)
    check_floats(c, "c", len(w))
    check_floats(v, "v", d, len(w))
    check_floats(b, "b", d)
    terms = x[:, :-1, None] * w.t()[:-1]
    sums = F.pad(terms.cumsum(1), (0, 0, 1, 0))  # the first hidden layer sees nothing
    return (torch.sigmoid(c + sums) * v).sum(2) + b


def made_masks(degrees: Sequence[Int[Tensor, " _"]]) -> list[Bool[Tensor, "_ _"]]:
    """MADE's masks of the weights: a unit sees units of its own degree or a lower one.

    For outputs the degree must be lower. The masks have torch's layout, outputs × inputs, one for
    each layer of weights.

    Args:
        degrees: m of the inputs first, which is the place of each variable in the order, from 1 to
            D; then m of each hidden layer, from 1 to D - 1. The outputs have those of the inputs.

    Raises:
        ValueError: degrees is empty, or its members are not one-dimensional tensors of int64, from
            1 on.

    Examples:
        >>> import torch
        >>> first, last = made_masks([torch.tensor([1, 2, 3]), torch.tensor([1, 2])])
        >>> first.int().tolist(), last.int().tolist()
        ([[1, 0, 0], [1, 1, 0]], [[0, 0], [1, 0], [1, 1]])
    """
    if not degrees:
        raise ValueError("degrees must hold those of the inputs at least, but is empty")
    for m in degrees:
        _check_indices(m, "degrees", 1)
    masks = [m[:, None] >= before for before, m in pairwise(degrees)]
    return [*masks, degrees[0][:, None] > degrees[-1]]


def path_counts(masks: Sequence[Bool[Tensor, "_ _"]]) -> Int[Tensor, "d d"]:
    """The number of paths from each input (column) to each output (row): the masks' product.

    Where it is 0, no weights can make the output depend on the input. In the order of the
    variables, it must be strictly lower triangular.

    Args:
        masks: Of each layer, in torch's layout, from the input to the output.

    Raises:
        ValueError: masks is empty.

    Examples:
        >>> import torch
        >>> first = torch.tensor([[1, 0, 0], [1, 1, 0]]) > 0
        >>> last = torch.tensor([[0, 0], [1, 0], [1, 1]]) > 0
        >>> path_counts([first, last]).tolist()
        [[0, 0, 0], [1, 0, 0], [2, 1, 0]]
    """
    if not masks:
        raise ValueError("masks must hold one mask at least, but is empty")
    product = masks[0].long()
    for mask in masks[1:]:
        product = mask.long() @ product
    return product


def masked_mlp(
    x: Float[Tensor, "b _"],
    weights: Sequence[Float[Tensor, "_ _"]],
    biases: Sequence[Float[Tensor, " _"]],
    masks: Sequence[Bool[Tensor, "_ _"]],
) -> Float[Tensor, "b _"]:
    """A multilayer perceptron with ReLU, whose weights are multiplied by masks.

    Args:
        x: Inputs.
        weights: Of each layer, outputs × inputs.
        biases: Of each layer.
        masks: Of each layer, in the shape of its weights.

    Raises:
        ValueError: The numbers of weights, biases and masks differ, or x is not (B, D).

    Examples:
        >>> import torch
        >>> masks = [torch.tensor([[True, False]]), torch.tensor([[False], [True]])]
        >>> weights, biases = [torch.ones(1, 2), torch.ones(2, 1)], [torch.zeros(1), torch.zeros(2)]
        >>> masked_mlp(torch.tensor([[3.0, 5.0]]), weights, biases, masks).tolist()
        [[0.0, 3.0]]
    """
    check_floats(x, "x", "B", "D")
    if not len(weights) == len(biases) == len(masks):
        numbers = f"{len(weights)}, {len(biases)} and {len(masks)}"
        raise ValueError(f"weights, biases and masks must be equally many, but are {numbers}")
    for index, (weight, bias, mask) in enumerate(zip(weights, biases, masks, strict=True)):
        x = F.linear(F.relu(x) if index else x, weight * mask, bias)
    return x


class MADE(nn.Module):
    """A perceptron with MADE's masks: (B, D) zeros and ones to the (B, D) logits of each, given
    those before it in the order.

    The degrees of hidden units are spread evenly from 1 to D - 1. If each layer has D - 1 units or
    more, each output sees all variables before it.

    Args:
        d: D, the number of variables.
        hidden: The widths of the hidden layers.

    Raises:
        ValueError: d or a width is not a positive integer; in the call, x is not (B, D), or order
            not a permutation of 0 … D - 1.

    Examples:
        >>> import torch
        >>> model, x = MADE(4, [16, 16]), torch.zeros(1, 4)
        >>> changed = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
        >>> (model(x) == model(changed)).tolist()  # the third affects the fourth only
        [[True, True, True, False]]
        >>> order = torch.tensor([2, 0, 3, 1])  # the third first: it affects the others
        >>> (model(x, order) == model(changed, order)).tolist()
        [[False, False, True, False]]
    """

    def __init__(self, d: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.d = integer(d, "d")
        sizes = [self.d, *(integer(width, "hidden") for width in hidden), self.d]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))

    def masks(self, order: Int[Tensor, " d"]) -> list[Bool[Tensor, "_ _"]]:
        """The masks for an order: order[0] is the index of the variable that comes first."""
        degrees = [torch.argsort(order) + 1]  # the inverse permutation: places
        for layer in self.layers[:-1]:
            unit = torch.arange(layer.out_features, device=order.device)
            degrees.append(1 + unit * (self.d - 1) // len(unit))
        return made_masks(degrees)

    def forward(
        self, x: Float[Tensor, "b d"], order: Int[Tensor, " d"] | None = None
    ) -> Float[Tensor, "b d"]:
        check_floats(x, "x", "B", self.d)
        if order is None:
            order = torch.arange(self.d, device=x.device)
        elif _check_order(order, self.d) != self.d:
            raise ValueError(f"order must hold all {self.d} indices, but holds {len(order)}")
        weights = [layer.weight for layer in self.layers]
        biases = [layer.bias for layer in self.layers]
        return masked_mlp(x, weights, biases, self.masks(order))


@torch.no_grad()
def sample(
    logits: Callable[[Tensor], Tensor],
    x: Float[Tensor, "b d"],
    order: Int[Tensor, " k"],
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b d"]:
    """Draw the variables of `order` one after another; each takes a pass through the network.

    Args:
        logits: From vectors (B, D) to logits (B, D), such as a `MADE`.
        x: What is known. It stays where `order` does not point, and is overwritten elsewhere, so
            begin with zeros to draw all variables.
        order: Indices in the order of the model: all, or the last of them.
        generator: Of random numbers.

    Raises:
        ValueError: x is not (B, D), or order does not hold different indices from 0 to D - 1.

    Examples:
        >>> import torch
        >>> def copies(x):  # of the first variable
        ...     return torch.stack([torch.zeros(len(x)), 100 * x[:, 0] - 50], 1)
        >>> drawn = sample(copies, torch.zeros(9, 2), torch.tensor([0, 1]))
        >>> (drawn[:, 0] == drawn[:, 1]).all().item()
        True
        >>> sample(copies, torch.tensor([[1.0, 0.0]]), torch.tensor([1])).tolist()
        [[1.0, 1.0]]
    """
    check_floats(x, "x", "B", "D")
    _check_order(order, x.shape[1])
    x = x.clone()
    for index in order.tolist():
        x[:, index] = torch.bernoulli(torch.sigmoid(logits(x)[:, index]), generator=generator)
    return x


def mixture_log_prob(
    model: Callable[[Tensor, Tensor], Tensor], x: Float[Tensor, "b d"], orders: Int[Tensor, "k d"]
) -> Float[Tensor, " b"]:
    """log of the mean, over K orders, of p(x): an ensemble whose probabilities sum to 1 as well.

    Args:
        model: From vectors (B, D) and an order (D,) to logits, such as a `MADE`.
        x: Vectors of zeros and ones.
        orders: Permutations of 0 … D - 1, at least one.

    Raises:
        ValueError: orders is empty, or x not (B, D) zeros and ones.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> def copies(x, order):  # the second in the order equals the first
        ...     logits = torch.zeros_like(x)
        ...     logits[:, order[1]] = 100 * x[:, order[0]] - 50
        ...     return logits
        >>> orders = torch.tensor([[0, 1], [1, 0]])
        >>> mixture_log_prob(copies, x, orders).exp().round(decimals=3).tolist()
        [0.5, 0.0, 0.0, 0.5]
    """
    if not len(orders):
        raise ValueError("orders must hold one order at least, but is empty")
    each = torch.stack([log_prob(model(x, order), x) for order in orders])
    return each.logsumexp(0) - math.log(len(orders))


def _check_indices(indices: Tensor, name: str, least: int) -> None:
    if not isinstance(indices, Tensor) or indices.dtype != torch.int64 or indices.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, of int64, but is {indices!r}")
    if (indices < least).any():
        raise ValueError(f"{name} must be {least} or more, but is {indices.tolist()}")


def _check_order(order: Tensor, d: int) -> int:
    _check_indices(order, "order", 0)
    values = order.tolist()
    if len(set(values)) != len(values) or any(value >= d for value in values):
        raise ValueError(f"order must hold different indices below {d}, but is {values}")
    return len(values)
