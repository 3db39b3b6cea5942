"""The kernels against the recurrence, which notices mistakes: each is made on purpose, in a copy of the kernels."""

import importlib.util
import inspect
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from zhixing.attention import linear_attention_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Two chunks and a part of one; on a GPU a chunk of float32 has 32 rows, in the interpreter 16.
N = 70 if DEVICE == "cuda" else 37
SCALE = 0.25

# {mistake: (kernel, or function of kernels, text that stands there once, what it is replaced by, normalised)}
MUTATIONS = {
    "decay of the state left out": ("_carry", "s * through", "s", False),
    "decay of the sums left out": ("_carry", "z * through", "z", True),
    "chunks backward in their order": ("_carry", "chunks - 1 - step if REVERSED else step", "step", False),
    "scale left out of the states' gradients": ("_carry", "scale * _from_start", "_from_start", False),
    "divisor left out of the states' gradients": ("_carry", "weights /=", "divisor =", True),
    "first state left out": ("_carry", "first is not None", "first is None", False),
    "scale left out of what comes from the state": ("_outputs", "scale * _from_start", "_from_start", False),
    "decay within a chunk left out": ("_outputs", "p *= scale * _between(c, resets)", "p *= scale", False),
    "sums of the state left out of the divisor": ("_outputs", "total * before + ", "", True),
    "gradient of the divisors of the wrong sign": ("_divisor_gradients", "-tl.sum", "tl.sum", True),
    "own products counted twice": ("_gradients_qk", "tl.where(diagonal, 0.0, d_p)", "d_p", False),
    "own products left out": ("_gradients_qk", " + own * query", "", False),
    "divisor's gradient left out": ("_gradients_qk", "d_p / divisor + d_divisor", "d_p / divisor", True),
    "gradient of the sums left out of dK": ("_gradients_qk", "k_acc += d_z[None, :]", "k_acc += 0.0", True),
    "sums left out of what a decay passes": ("_gradients_qk", "d_through += z * d_z", "d_through += 0.0", True),
    "state left out of what a decay passes": ("_gradients_qk", "tl.sum(d_through, 0)", "0.0", False),
    "row counted among those before it": (
        "_gradients_qk",
        "(tl.cumsum(to_end, 0) - to_end)",
        "tl.cumsum(to_end, 0)",
        False,
    ),
    "what a decay passes summed from the start": ("_gradients_qk", ", reverse=True", "", False),
    "decay left out of dV": ("_gradients_v", "acc * _to_end(c, resets)[:, None]", "acc", False),
    "divisor left out of dV": ("_gradients_v", "p /=", "divisor =", True),
    "decay beyond the end": ("_decays", "rows < n, 0.0", "rows < n, -1.0", False),
    "resets summed": ("_decays", "tl.where(g < RESET, 0.0, g)", "g", False),
    "reset before the chunk not seen": ("_from_start", "resets == 0", "resets >= 0", False),
    "reset after a row not seen": ("_to_end", "resets == tl.max(resets, 0)", "resets >= 0", False),
    "reset between chunks not seen": ("_through", "tl.max(resets, 0) == 0", "c.shape[0] > 0", False),
    "reset between rows not seen": ("_between", "(resets[:, None] == resets[None, :])", "(row[:, None] >= 0)", False),
    "later rows seen": ("_between", "row[:, None] >= row[None, :]", "row[:, None] >= 0", False),
    "columns beyond the head size": ("_load_rows", "(columns < SIZE)", "(columns >= 0)", False),
}


@cache
def case(normalize: bool) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """The inputs of one head, gradients of what is returned, and that and all gradients by the recurrence in float64.

    Decays are between 0 and 1, but one of the first chunk is 0, and one of the last.
    """
    random = torch.Generator().manual_seed(0)
    d, e = 9, 16
    shapes = [(1, 1, N, d)] * 2 + [(1, 1, N, e), (1, 1, N), (1, 1, d, e), (1, 1, d)]
    q, k, v, g, s, z = (torch.randn(shape, generator=random) for shape in shapes)
    if normalize:
        q, k, z = q.abs() + 0.1, k.abs() + 0.1, z.abs()
    g = -0.2 * g.abs()
    g[..., 5] = g[..., N - 2] = -torch.inf
    inputs = [y.to(DEVICE) for y in (q, k, v, g, s, z)]
    along = [torch.randn(shape, generator=random).to(DEVICE) for shape in (shapes[2], *shapes[4:])]

    q, k, v, g, s, z = exact = [y.double().requires_grad_() for y in inputs]
    rows = []
    for i in range(N):
        s = g[:, :, i, None, None].exp() * s + k[:, :, i, :, None] * v[:, :, i, None, :]
        z = g[:, :, i, None].exp() * z + k[:, :, i]
        row = SCALE * torch.einsum("bhd,bhde->bhe", q[:, :, i], s)
        rows.append(row / (SCALE * (q[:, :, i] * z).sum(-1, keepdim=True) + 1e-10) if normalize else row)
    expected = [torch.stack(rows, 2), s, z][: 3 if normalize else 2]
    doubles = [y.double() for y in along[: len(expected)]]
    expected += torch.autograd.grad(expected, exact[: 6 if normalize else 5], doubles)
    return inputs, along, [y.detach().float() for y in expected]


def check(kernels, normalize: bool) -> None:
    inputs, along, expected = case(normalize)
    given = (*inputs[:5], inputs[5] if normalize else None)
    *returned, divisors = kernels._launch_forward(*given, SCALE, normalize)
    returned, forward = returned[: 3 if normalize else 2], 3 if normalize else 2
    assert_close(returned, expected[:forward])
    gradients = kernels._launch_backward(*along, *given, returned[0], divisors, SCALE, normalize)
    assert_close([*gradients[: len(expected) - forward]], expected[forward:])


def mutant(folder: Path, function: str, text: str, by: str):
    """The module with the text replaced; in a file, since Triton reads it."""
    source = inspect.getsource(linear_attention_triton)
    part = inspect.getsource(getattr(linear_attention_triton, function).fn)
    assert (source.count(part), part.count(text)) == (1, 1)
    path = folder / "mutant.py"
    path.write_text(source.replace(part, part.replace(text, by)))
    specification = importlib.util.spec_from_file_location("mutant", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("normalize", [False, True], ids=["plain", "normalized"])
def test_kernels_equal_the_recurrence(normalize):
    check(linear_attention_triton, normalize)


@pytest.mark.mutation
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's about NaN and infinity, in the interpreter
@pytest.mark.parametrize(("function", "text", "by", "normalize"), MUTATIONS.values(), ids=MUTATIONS)
def test_comparison_with_the_recurrence_notices(function, text, by, normalize, tmp_path):
    kernels = mutant(tmp_path, function, text, by)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        check(kernels, normalize)
