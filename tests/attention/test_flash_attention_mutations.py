"""The kernels against torch's attention, which notices mistakes: each is made on purpose, in a copy of the kernels."""

import importlib.util
import inspect
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from zhixing.attention import flash_attention_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The interpreter's tiles are of 32 queries and 16 keys; on a GPU lengths that are as odd go over as many tiles.
STRETCH = 7 if DEVICE == "cuda" else 1
SCALE = 0.25

# (queries, keys, causal)
CASES = {"causal, with blind rows": (37, 21, True), "causal": (21, 37, True), "full": (21, 37, False)}

# {mistake: (kernel, or function of kernels, text that stands there once, what it is replaced by)}
MUTATIONS = {
    "accumulator not rescaled": ("_forward", "acc * alpha[:, None]", "acc"),
    "sum not rescaled": ("_forward", "l * alpha", "l"),
    "no guard at m = -inf": ("_forward", "tl.where(new_m == -INFINITY, 0.0, new_m)", "new_m"),
    "no guard at l = 0": ("_forward", "tl.where(l == 0.0, 1.0, l)", "l"),
    "no guard at lse = -inf": ("_shift", "tl.where(lse == -INFINITY, INFINITY, lse * LOG2_E)", "lse * LOG2_E"),
    "scale left out of dQ": ("_backward_q", "acc * scale", "acc"),
    "scale to base 2 in dK": ("_backward_kv", "k_acc * scale", "k_acc * (scale * LOG2_E)"),
    "delta left out of dQ": ("_backward_q", "(d_p - d[:, None])", "d_p"),
    "last partial tile unmasked": ("_visible", "columns < n_k", "columns >= 0"),
    "causal diagonal shifted by one": ("_visible", "columns <= rows", "columns < rows"),
    "causal mask aligned to the top left": ("_visible", "rows + (n_k - n_q)", "rows"),
    "a tile too many taken for seen by all": ("_visible_keys", "row + 1 +", "row + BLOCK_Q +"),
    "a tile too few taken for seen": ("_visible_keys", "row + BLOCK_Q +", "row +"),
    "a tile too many taken for seeing all": ("_seeing_queries", "column + BLOCK_K - 1 -", "column -"),
    "two heads of a group swapped": ("_row_tile", "head // GROUP", "head % (heads // GROUP)"),
    "queries of other groups in dK and dV": (
        "_backward_kv",
        "key_head * GROUP + member",
        "member * (heads // GROUP) + key_head",
    ),
    "sums of another head in dK and dV": ("_backward_kv", "(batch * heads + head) * n_q", "batch * heads * n_q"),
}


def check(kernels, n_q: int, n_k: int, causal: bool) -> None:
    """The output and the three gradients of four query heads, of which two share a key head."""
    random = torch.Generator().manual_seed(0)
    shapes = [(1, heads, n * STRETCH, 16) for heads, n in ((4, n_q), (2, n_k), (2, n_k), (4, n_q))]
    q, k, v, d_out = (torch.randn(shape, generator=random).to(DEVICE) for shape in shapes)
    out, lse = kernels._launch_forward(q, k, v, causal, SCALE)
    ours = (out, *kernels._launch_backward(d_out, q, k, v, out, lse, causal, SCALE))
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=DEVICE)
    mask = mask.tril(k.shape[2] - q.shape[2]) if causal else mask
    expected = F.scaled_dot_product_attention(*exact, attn_mask=mask, scale=SCALE, enable_gqa=True)
    gradients = torch.autograd.grad(expected, exact, d_out.double())
    for mine, other in zip(ours, (expected.detach(), *gradients), strict=True):
        assert_close(mine, other.float())


def check_all(kernels) -> None:
    for case in CASES.values():
        check(kernels, *case)


def mutant(folder: Path, function: str, text: str, by: str):
    """The module with the text replaced; in a file, since Triton reads it."""
    source = inspect.getsource(flash_attention_triton)
    part = inspect.getsource(getattr(flash_attention_triton, function).fn)
    assert (source.count(part), part.count(text)) == (1, 1)
    path = folder / "mutant.py"
    path.write_text(source.replace(part, part.replace(text, by)))
    specification = importlib.util.spec_from_file_location("mutant", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_kernels_equal_torchs(case):
    check(flash_attention_triton, *case)


@pytest.mark.mutation
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's about NaN, in the interpreter
@pytest.mark.parametrize(("function", "text", "by"), MUTATIONS.values(), ids=MUTATIONS)
def test_comparison_with_torch_notices(function, text, by, tmp_path):
    kernels = mutant(tmp_path, function, text, by)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        check_all(kernels)
