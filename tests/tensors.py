"""Tensors that tests of several modules make, and comparisons of gradients."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.testing import assert_close


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """The same standard normal numbers for each type, but rounded to it."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def make_qkv(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of the sizes B, H, N, M, D, E."""
    b, h, n, m, d, e = shape
    return (
        normal(b, h, n, d, dtype=dtype),
        normal(b, h, m, d, seed=1, dtype=dtype),
        normal(b, h, m, e, seed=2, dtype=dtype),
    )


def assert_same_both_ways(ours: Callable, theirs: Callable, *inputs: Tensor) -> None:
    """Compare values and the gradients with respect to all inputs."""
    mine, reference = ([leaf(x) for x in inputs] for _ in range(2))
    value, expected = ours(*mine), theirs(*reference)
    assert_close(value, expected)
    weights = normal(*expected.shape, seed=9)
    assert_close(torch.autograd.grad(value, mine, weights), torch.autograd.grad(expected, reference, weights))


def with_gradients(function: Callable, *tensors: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs, and the gradients of a fixed random combination of them."""
    leaves = [leaf(x) for x in tensors]
    outputs = flat(function(*leaves))
    weights = [normal(*x.shape, seed=10 + i, dtype=x.dtype) for i, x in enumerate(outputs)]
    gradients = torch.autograd.grad(outputs, leaves, weights, allow_unused=True, materialize_grads=True)
    return [x.detach() for x in outputs], list(gradients)


def flat(result: Tensor | tuple | list) -> list[Tensor]:
    """A tensor or nested tuples of tensors as a list."""
    return [result] if isinstance(result, Tensor) else [x for part in result for x in flat(part)]
