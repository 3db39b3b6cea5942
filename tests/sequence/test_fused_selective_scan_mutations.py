"""The kernels against the recurrence, which notices mistakes: each is made on purpose, in a copy of the kernels."""

import importlib.util
import inspect
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.nn.functional import silu, softplus
from torch.testing import assert_close

from zhixing.sequence import selective_scan_triton
from zhixing.sequence.selective_scan_triton import _blocks

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZE, GROUPS = 3, 2
N = _blocks(SIZE)["CHUNK"] + 1  # a chunk, and one row of a second
CHANNELS = GROUPS * (_blocks(SIZE)["BLOCK_D"] + 1)  # a block of each group, and one channel of a second

# {mistake: (kernel, or function of kernels, text that stands there once, what it is replaced by)}
MUTATIONS = {
    "first state left out": ("_forward", "first is not None", "first is None"),
    "decay of the state between chunks left out": ("_forward", "decay * h, 0.0", "h + 0 * decay, 0.0"),
    "last state from the beginning of a chunk": ("_forward", "_row(all_h, CHUNK - 1)", "_row(all_h, 0)"),
    "path past the state left out": ("_forward", " + skip * x", ""),
    "gate without its input": ("_forward", "out *= gate * ", "out *= "),
    "Δ left out of what is added": ("_forward", "(delta * x)", "x"),
    "states before a step taken after it": ("_backward", "rows - 1, n, SIZE", "rows, n, SIZE"),
    "Δ before a step taken after it": ("_backward", "(dt, dt_strides, batch, rows - 1", "(dt, dt_strides, batch, rows"),
    "state at the chunk's beginning left out": ("_backward", "tl.where(starts, h,", "tl.where(starts, 0 * h,"),
    "gradient of the last state left out": ("_backward", "tl.where(ends, d_h, 0.0)", "tl.where(ends, 0 * d_h, 0.0)"),
    "chunks in the wrong order": ("_backward", "chunk = chunks - 1 - later", "chunk = later"),
    "decay of the step before": ("_backward", "dt_strides, batch, rows + 1", "dt_strides, batch, rows"),
    "gradients scanned from the start": ("_backward", "_scan(next_decay, added, True)", "_scan(next_decay, added)"),
    "decay of the first step left out": ("_backward", "_row(all_d_h * decay, 0)", "_row(all_d_h, 0)"),
    "gate left out of the gradient": ("_backward", "g *= gate * open", "g *= open"),
    "slope of the gate wrong": ("_backward", "(1 + gate * (1 - open))", "(1 + gate * open)"),
    "path past the state left out of the gate's gradient": ("_backward", " + skip * x", ""),
    "path past the state left out of the gradient": ("_backward", "g * skip + ", ""),
    "Δ left out of the gradient of b": ("_backward", "tl.sum(all_d_h * (delta * x)", "tl.sum(all_d_h * x"),
    "Δ left out of the gradient of a": ("_backward", "of_exponent * delta[:, :, None]", "of_exponent"),
    "Δ's gradient without what is added": ("_backward", " + of_product * x", ""),
    "Δ's gradient without the decay": ("_backward", "tl.sum(of_exponent * A, 2) + ", ""),
    "slope of the softplus left out": ("_backward", ") * slope", ")"),
    "gradient of d without the gate": ("_backward", "skip_sum += tl.sum(g * x, 0)", "skip_sum += tl.sum(x, 0)"),
    "channels of the first group": ("_place", "group % groups * of_group + in_group", "in_group"),
    "numbers beyond N": ("_load_group", "(state < SIZE)", "(state >= 0)"),
    "operands of the scan swapped": ("_combine", "next_decay * added + next_added", "decay * next_added + added"),
    "Δ beyond the end": ("_step_sizes", "(rows < n)", "(rows < n + 1)"),
    "slope beyond the end": ("_slopes", "(rows < n)", "(rows >= 0)"),
    "softplus of |x|": ("_softplus", "tl.maximum(x, 0.0)", "tl.abs(x)"),
    "group left out of the address": ("_load_group", " + group.to(tl.int64) * strides[2]", ""),
    "group left out of the gradient's address": ("_store_group", "* groups + group)", "* groups)"),
    "blocks in one place": ("_store_group", "* blocks + block", "* blocks"),
}


@cache
def case() -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """The inputs, gradients of what is returned, and that and all gradients by the recurrence in float64."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    rows, of_groups, of_state = (1, N, CHANNELS), (1, N, GROUPS, SIZE), (1, CHANNELS, SIZE)
    inputs = [normal(*rows), normal(*rows), -normal(CHANNELS, SIZE).abs(), normal(*of_groups), normal(*of_groups)]
    inputs += [normal(CHANNELS), normal(*rows), normal(CHANNELS), normal(*of_state)]
    along = [normal(*rows), normal(*of_state)]

    u, dt, a, b, c, d, z, bias, h = exact = [x.double().requires_grad_() for x in inputs]
    delta = softplus(dt + bias)
    ys = []
    for i in range(N):
        b_row, c_row = (x[:, i].repeat_interleave(CHANNELS // GROUPS, 1) for x in (b, c))
        h = (delta[:, i, :, None] * a).exp() * h + (delta * u)[:, i, :, None] * b_row
        ys.append(((c_row * h).sum(-1) + d * u[:, i]) * silu(z[:, i]))
    expected = [torch.stack(ys, 1), h]
    expected += torch.autograd.grad(expected, exact, [x.double() for x in along])
    inputs, along = ([x.to(DEVICE) for x in of] for of in (inputs, along))
    return inputs, along, [x.detach().float().to(DEVICE) for x in expected]


def check(kernels) -> None:
    inputs, along, expected = case()
    assert_close([*kernels._launch_forward(*inputs, True)], expected[:2])
    assert_close([*kernels._launch_backward(*along, *inputs, True)], expected[2:])


def mutant(folder: Path, function: str, text: str, by: str):
    """The module with the text replaced; in a file, since Triton reads it."""
    source = inspect.getsource(selective_scan_triton)
    part = inspect.getsource(getattr(selective_scan_triton, function).fn)
    assert (source.count(part), part.count(text)) == (1, 1)
    path = folder / "mutant.py"
    path.write_text(source.replace(part, part.replace(text, by)))
    specification = importlib.util.spec_from_file_location("mutant", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_kernels_equal_the_recurrence():
    check(selective_scan_triton)


@pytest.mark.mutation
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's about NaN and infinity, in the interpreter
@pytest.mark.parametrize(("function", "text", "by"), MUTATIONS.values(), ids=MUTATIONS)
def test_comparison_with_the_recurrence_notices(function, text, by, tmp_path):
    kernels = mutant(tmp_path, function, text, by)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        check(kernels)
