"""flash_attention against torch's own: on a GPU, or in Triton's interpreter without one."""

import re
import warnings
from contextvars import copy_context

import pytest
import torch
import torch.nn.functional as F
import triton
from torch.autograd import forward_ad
from torch.testing import assert_close

from zhixing.attention import flash_attention as module
from zhixing.attention.flash_attention import flash_attention
from zhixing.attention.flash_attention_triton import (
    HALF_PRECISION,
    SINGLE_PRECISION,
    _describable,
    _forward,
    _launch_kernel,
    _tiles_to_try,
    _tuned,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The interpreter's tiles are of 32 queries and 16 keys; on a GPU lengths that are as odd go over as many tiles.
STRETCH = 7 if DEVICE == "cuda" else 1
CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
NAMES = ("out", "gradient of q", "gradient of k", "gradient of v")


def inputs(
    n_q=37, n_k=53, head_size=16, *, batch=1, heads=2, key_heads=1, dtype=torch.float32, seed=0
) -> list[torch.Tensor]:
    """q, k, v, and a gradient of the output."""
    random = torch.Generator().manual_seed(seed)
    shapes = [(batch, h, n * STRETCH, head_size) for h, n in ((heads, n_q), (key_heads, n_k), (key_heads, n_k))]
    return [torch.randn(shape, generator=random).to(DEVICE, dtype) for shape in (*shapes, shapes[0])]


def results(attention, q, k, v, d_out, **settings) -> list[torch.Tensor]:
    """The output and the three gradients."""
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    out = attention(q, k, v, **settings)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), d_out)]


def torchs(q, k, v, *, causal=False, scale=None) -> torch.Tensor:
    mask = bottom_right(q, k) if causal else None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)


def bottom_right(q, k) -> torch.Tensor:
    """Which keys each query sees under the causal mask."""
    n, m = q.shape[2], k.shape[2]
    return torch.ones(n, m, dtype=torch.bool, device=q.device).tril(m - n)


def exact(*tensors, **settings) -> list[torch.Tensor]:
    """Torch's results in float64, where a row that attends to nothing is 0 as well."""
    return results(torchs, *(x.double() for x in tensors), **settings)


def assert_results_close(ours, expected) -> None:
    for name, mine, other in zip(NAMES[-len(ours) :], ours, expected, strict=True):
        assert_close(mine, other.to(mine.dtype), msg=lambda said, name=name: f"{name}: {said}")


def check(*tensors, **settings) -> None:
    assert_results_close(results(flash_attention, *tensors, **settings), exact(*tensors, **settings))


@pytest.mark.parametrize("head_size", [1, 3, 24, 64, 128, 255, 256])
def test_head_sizes(head_size):
    check(*inputs(head_size=head_size))


LENGTHS = [(1, 1), (1, 40), (40, 1), (16, 16), (17, 16), (16, 17), (31, 65), (65, 31), (48, 16), (16, 48)]


@pytest.mark.parametrize(("n_q", "n_k"), LENGTHS[:6])
def test_lengths(n_q, n_k):
    check(*inputs(n_q, n_k))


@pytest.mark.parametrize(("n_q", "n_k"), LENGTHS)
def test_lengths_under_the_causal_mask(n_q, n_k):
    check(*inputs(n_q, n_k), causal=True)


@pytest.mark.parametrize(
    ("heads", "key_heads", "causal"), [(1, 1, False), (3, 1, True), (4, 2, False), (4, 2, True)], ids=str
)
def test_grouped_queries(heads, key_heads, causal):
    check(*inputs(21, 19, batch=2, heads=heads, key_heads=key_heads), causal=causal)


def eager(q, k, v, *, causal) -> torch.Tensor:
    """As one writes it, every step in the type of q."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    logits = q.shape[3] ** -0.5 * q @ k.mT
    if causal:
        logits = logits.masked_fill(~bottom_right(q, k), -torch.inf)
    return logits.softmax(-1) @ v


@pytest.mark.parametrize(("head_size", "causal"), [(16, False), (24, True), (80, True), (128, False)], ids=str)
@HALVES
def test_low_precision_error_is_at_most_twice_eagers(dtype, head_size, causal):
    tensors = inputs(head_size=head_size, dtype=dtype)
    ours, eagers = (results(attention, *tensors, causal=causal) for attention in (flash_attention, eager))
    for name, mine, other, truth in zip(NAMES, ours, eagers, exact(*tensors, causal=causal), strict=True):
        assert mine.dtype == dtype
        error, allowed = ((x.double() - truth).abs().max().item() for x in (mine, other))
        assert error <= 2 * allowed, f"{name}: {error:.1e}, eager {allowed:.1e}"


@HALVES
def test_low_precision_output_is_the_rounded_exact_one_where_a_row_sees_one_key(dtype):
    q, k, v, _ = inputs(40, 1, dtype=dtype)
    assert torch.equal(flash_attention(q, k[:, :, :1], v[:, :, :1]), v[:, :, :1].expand_as(q))


def fused(x):
    """A view into a wider tensor, as of one projection to queries, keys and values."""
    return x.transpose(1, 2).repeat(1, 1, 1, 3)[..., : x.shape[3]].transpose(1, 2)


def shifted(x):
    """A view that begins one element after an aligned address."""
    wide = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)
    return wide[1:].view(x.shape).copy_(x)


LAYOUTS = {
    "heads inside": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "lengths inside": lambda x: x.mT.contiguous().mT,
    "part of a fused projection": fused,
    "every second row": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
    "at an odd address": shifted,
    "one row for all": lambda x: x[:, :, :1].expand_as(x),
    "one head for all": lambda x: x[:, :1].expand_as(x),
}


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, torch.float16) for name in LAYOUTS), ("at an odd address", torch.float32)], ids=str
)
def test_layout_changes_nothing(name, dtype):
    tensors = [LAYOUTS[name](x) for x in inputs(21, 19, batch=2, key_heads=2, dtype=dtype)]
    ours = results(flash_attention, *tensors)
    for mine, of_contiguous in zip(ours, results(flash_attention, *(x.contiguous() for x in tensors)), strict=True):
        assert torch.equal(mine, of_contiguous)


def test_output_is_laid_out_as_the_queries_are():
    q, k, v, _ = (LAYOUTS["heads inside"](x) for x in inputs())
    assert flash_attention(q, k, v).stride() == q.stride()


def test_gradient_of_a_sum_which_is_one_number_everywhere():
    q, k, v, _ = inputs()
    ours = results(lambda *x: flash_attention(*x).sum(), q, k, v, torch.ones((), device=DEVICE))
    assert_results_close(ours[1:], exact(q, k, v, torch.ones_like(q))[1:])


@pytest.mark.parametrize(("scale", "causal"), [(0.01, True), (0.5, True), (1.0, False)])
def test_scale(scale, causal):
    check(*inputs(), causal=causal, scale=scale)


def test_arguments_are_left_alone():
    tensors = inputs()
    copies = [x.clone() for x in tensors]
    results(flash_attention, *tensors)
    assert all(torch.equal(x, copy) for x, copy in zip(tensors, copies, strict=True))


@CAUSAL
def test_logsumexp_is_that_of_the_logits(causal):
    q, k, v, _ = inputs(53, 37)
    _, lse = torch.ops.zhixing.flash_attention(q, k, v, causal, 0.5)
    logits = 0.5 * q.double() @ k.double().mT
    if causal:
        logits = logits.masked_fill(~bottom_right(q, k), -torch.inf)
    assert_close(lse, logits.logsumexp(-1).float())


@pytest.mark.parametrize(
    ("n_q", "n_k", "dtype"),
    [*((53, 37, dtype) for dtype in module.TYPES), (48, 16, torch.float32), (40, 1, torch.float32)],
    ids=str,
)
def test_rows_that_may_attend_to_nothing_are_zero_and_so_are_their_gradients(n_q, n_k, dtype):
    tensors = inputs(n_q, n_k, dtype=dtype)
    ours = results(flash_attention, *tensors, causal=True)
    assert all(x.isfinite().all() for x in ours)
    blind = (n_q - n_k) * STRETCH
    assert (ours[0][:, :, :blind] == 0).all()
    assert (ours[1][:, :, :blind] == 0).all()
    assert (ours[0][:, :, blind:] != 0).any(-1).all()
    seeing = [x[:, :, blind:] if x.shape[2] == n_q * STRETCH else x for x in tensors]
    assert_close(ours[2:], results(flash_attention, *seeing, causal=True)[2:])


EMPTY = {
    "batch": {"batch": 0},
    "queries": {"n_q": 0},
    "keys": {"n_k": 0},
    "query heads": {"heads": 0},
}


@CAUSAL
@pytest.mark.parametrize("sizes", EMPTY.values(), ids=EMPTY)
def test_nothing_of(sizes, causal):
    tensors = inputs(**sizes)
    ours = results(flash_attention, *tensors, causal=causal)
    for mine, like in zip(ours, (tensors[0], *tensors[:3]), strict=True):
        assert_close(mine, torch.zeros_like(like))


@pytest.mark.parametrize(
    ("dtype", "causal"), [(torch.float32, False), (torch.float16, True), (torch.bfloat16, True)], ids=str
)
def test_large_logits_stay_finite(dtype, causal):
    q, k, v, d_out = inputs(dtype=dtype)
    largest = (q.float() @ k.float().mT).abs().max().item()
    ours = results(flash_attention, q, k, v, d_out, causal=causal, scale=1e4 / largest)
    assert all(x.isfinite().all() for x in ours)
    truth = exact(q, k, v, d_out, causal=causal, scale=1e4 / largest)
    assert_close(ours[0], truth[0].to(dtype), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("sign", [-1, 1], ids=["rising", "falling"])
@pytest.mark.parametrize("dtype", module.TYPES, ids=str)
def test_large_logits_in_order(dtype, sign):
    """The running maximum moves with every tile, by more than exp can span; or never after the first."""
    n = 50 * STRETCH
    q, k = torch.ones(1, 1, 4, 16), torch.linspace(sign * 600, -sign * 600, n)[:, None].expand(1, 1, n, 16)
    q, k, v = (x.to(DEVICE, dtype) for x in (q, k, torch.randn(1, 1, n, 16)))
    out = flash_attention(q, k, v, scale=1.0)
    assert_close(out, v[:, :, [-1 if sign < 0 else 0]].expand(1, 1, 4, 16))


def test_repeated_call_gives_the_same_bits():
    tensors = inputs(21, 19, heads=4, key_heads=2, dtype=torch.float16)
    first, second = (results(flash_attention, *tensors, causal=True) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_keeps_no_matrix_for_backward():
    q, k, v, _ = inputs(64, 64, heads=1, key_heads=1)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        flash_attention(*(x.requires_grad_() for x in (q, k, v)))
    assert kept == [q.shape, k.shape, v.shape, q.shape, q.shape[:3]]


# torch hides its own warning where it looks at `.grad`, but not from a filter that makes errors of warnings.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning:torch")
@pytest.mark.parametrize(
    ("layout", "causal"), [("lengths inside", False), ("part of a fused projection", True)], ids=["full", "causal"]
)
def test_is_an_operator_as_torch_wants_it(layout, causal):
    q, k, v, d_out = (LAYOUTS[layout](x) for x in inputs(3, 5))
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    torch.library.opcheck(module._flash_forward, (q, k, v, causal, 0.25))
    saved = [x.detach() for x in (d_out, q, k, v, *module._flash_forward(q, k, v, causal, 0.25))]
    torch.library.opcheck(module._flash_backward, (*saved, causal, 0.25))


@pytest.mark.compiled
def test_compiled_equals_eager():
    torch._dynamo.reset()
    compiled = torch.compile(flash_attention, backend="aot_eager", fullgraph=True)
    for n_q, n_k in ((20, 23), (37, 23), (53, 16)):
        tensors = inputs(n_q, n_k)
        for mine, eager in zip(
            results(compiled, *tensors, causal=True), results(flash_attention, *tensors, causal=True), strict=True
        ):
            assert torch.equal(mine, eager)


@pytest.mark.parametrize("which", range(3), ids=NAMES[1:])
def test_forward_mode_is_refused(which):
    tensors = inputs(5, 7)[:3]

    def of_one(x):
        return flash_attention(*tensors[:which], x, *tensors[which + 1 :])

    x = tensors[which]
    with pytest.raises(NotImplementedError, match=r"no forward mode .* call softmax_attention"):
        torch.func.jvp(of_one, (x,), (torch.ones_like(x),))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="no forward mode"):
        of_one(forward_ad.make_dual(x, torch.ones_like(x)))


@pytest.mark.parametrize(
    "differentiate",
    [
        lambda f, x: torch.func.jacfwd(f)(x),
        lambda f, x: torch.func.linearize(f, x)[1](x),
        lambda f, x: torch.autograd.functional.jacobian(f, x, vectorize=True, strategy="forward-mode"),
    ],
    ids=["jacfwd", "linearize", "jacobian"],
)
def test_every_way_into_forward_mode_is_refused(differentiate):
    q, k, v, _ = inputs(5, 7)
    with torch.no_grad(), pytest.raises(NotImplementedError, match="no forward mode"):
        differentiate(lambda q: flash_attention(q, k, v), q)


def test_gradients_of_functions_are_refused():
    q, k, v, _ = inputs(5, 7)
    with pytest.raises(RuntimeError):
        torch.func.grad(lambda q: flash_attention(q, k, v).sum())(q)


def test_vmap_over_the_batch():
    q, k, v, _ = inputs(5, 7, batch=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that it loops
        mapped = torch.func.vmap(lambda *one: flash_attention(*(x[None] for x in one))[0])(q, k, v)
    assert torch.equal(mapped, flash_attention(q, k, v))


def test_second_derivative_is_refused():
    q, k, v, _ = (x.requires_grad_() for x in inputs(16, 16))
    (slope,) = torch.autograd.grad(flash_attention(q, k, v).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="flash_attention_backward"):
        slope.sum().backward()


def test_logsumexp_has_no_gradient():
    q, k, v, _ = (x.requires_grad_() for x in inputs(16, 16))
    assert not torch.ops.zhixing.flash_attention(q, k, v, False, 1.0)[1].requires_grad


def test_autocast_leaves_the_types_alone():
    tensors = inputs(5, 7)
    with torch.autocast(DEVICE, torch.bfloat16):
        inside = results(flash_attention, *tensors)
    assert all(torch.equal(x, y) for x, y in zip(inside, results(flash_attention, *tensors), strict=True))


# Launches.


def test_allocator_of_the_caller_stays():
    def allocator(size, alignment, stream):
        return torch.empty(size, dtype=torch.int8, device=DEVICE)

    def of_this_thread() -> None:
        triton.set_allocator(allocator)
        results(flash_attention, *inputs(5, 7))
        assert triton.runtime._allocation._allocator.get() is allocator

    copy_context().run(of_this_thread)


def test_tiles_are_chosen_again_for_another_number_of_heads_or_group(monkeypatch):
    seen = []

    class Recorder:
        def __getitem__(self, grid):
            return lambda *arguments, **constants: seen.append((arguments[-1], constants["GROUP"]))

    keys = _tuned(_forward, 16, torch.float32, torch.device(DEVICE)).keys
    assert {"bucket", "GROUP", "HEAD_SIZE", "CAUSAL"} <= {*keys}
    monkeypatch.setitem(_launch_kernel.__globals__, "_tuned", lambda *of: Recorder())
    for sizes in ({}, {"batch": 3}, {"heads": 8}, {"key_heads": 2}, {"n_k": 400}, {"n_k": 60}):
        flash_attention(*inputs(**sizes)[:3])
    assert len({*seen[:5]}) == 5
    assert seen[5] == seen[0]


@pytest.mark.parametrize("kernel", HALF_PRECISION)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_each_gpu_tries_the_tiles_that_it_has_room_for(kernel, dtype):
    table = (SINGLE_PRECISION if dtype == torch.float32 else HALF_PRECISION)[kernel]
    for largest, tiles in table.items():
        tried = {capability: _tiles_to_try(kernel, largest, dtype, capability) for capability in (80, 89, 90, 100)}
        assert tried[90] == tried[100] == tiles
        assert tried[80] == tried[89] == tuple(each for each in tiles if each.since == 80) != ()


@pytest.mark.parametrize("table", [HALF_PRECISION, SINGLE_PRECISION], ids=["half", "single"])
def test_tiles_and_warps_are_powers_of_2_as_triton_requires(table):
    numbers = {n for tiles in table.values() for each in sum(tiles.values(), ()) for n in each[:3]}
    assert max(numbers) <= 128
    assert [n for n in numbers if n & (n - 1)] == []


def test_only_rows_that_cannot_be_described_are_copied():
    x = torch.randn(2, 3, 8, 16, dtype=torch.float16)
    for whole in x, x.transpose(1, 2), x[..., 8:]:  # rows begin at multiples of 16 bytes
        assert _describable(whole) is whole
    for other in x[..., 1:9], x[..., ::2], x[..., :1].expand_as(x), torch.randn(2, 3, 8, 3).half():
        copy = _describable(other)
        assert torch.equal(copy, other)
        assert copy.stride(3) == 1
        assert [size for size in copy.stride()[:3] if size % 8] == []


# Wrong input.


@pytest.mark.wrong_input
@pytest.mark.parametrize("which", [0, 1, 2], ids="qkv")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.half(), r"one floating-point type, but are .*torch.float16"),
        (lambda x: x.to("meta"), r"on one device, but are on .*meta"),
        (lambda x: x[0], r"of shape \(B, H, N, D\), but are .*\(4, 8, 16\)"),
        (lambda x: x[..., :8], r"but are .*\(2, 4, 8, 8\)"),
        (lambda x: x[:1], r"but are .*\(1, 4, 8, 16\)"),
        (lambda x: x[:, :3], r"but (are|there are) .*3"),
    ],
    ids=["type", "device", "dimensions", "head size", "batch", "heads"],
)
def test_refuses_a_mix(which, change, message):
    tensors = [torch.zeros(2, 4, 8, 16, device=DEVICE) for _ in range(3)]
    tensors[which] = change(tensors[which])
    with pytest.raises(ValueError, match=message):
        flash_attention(*tensors)


@pytest.mark.wrong_input
@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.complex64], ids=str)
def test_refuses_other_types(dtype):
    with pytest.raises(ValueError, match=f"float.*{dtype}"):
        flash_attention(*torch.zeros(3, 1, 1, 4, 16, dtype=dtype, device=DEVICE))


@pytest.mark.wrong_input
def test_refuses_large_heads():
    with pytest.raises(ValueError, match="at most 256, but is 257"):
        flash_attention(*torch.zeros(3, 1, 1, 4, 257, device=DEVICE))


@pytest.mark.wrong_input
@pytest.mark.parametrize("scale", [0.0, -1.0, torch.inf, torch.nan, 1e-300, 1e300])
def test_refuses_a_scale_that_is_not_positive_and_finite(scale):
    with pytest.raises(ValueError, match=re.escape(f"positive and finite, but is {scale}")):
        flash_attention(*torch.zeros(3, 1, 1, 4, 16, device=DEVICE), scale=scale)


@pytest.mark.wrong_input
@pytest.mark.parametrize("requires_grad", [False, True])
def test_refuses_a_scale_whose_gradient_would_be_lost(requires_grad):
    scale = torch.tensor(0.5, requires_grad=requires_grad)
    with pytest.raises(ValueError, match="must be a number, not a tensor: multiply q by it"):
        flash_attention(*torch.zeros(3, 1, 1, 4, 16, device=DEVICE), scale=scale)


@pytest.mark.wrong_input
def test_cpu_is_refused_without_the_interpreter(monkeypatch):
    monkeypatch.setitem(_tuned.__wrapped__.__globals__, "INTERPRET", False)
    with pytest.raises(RuntimeError, match="flash_attention runs on a GPU, but q is on cpu"):
        flash_attention(*torch.zeros(3, 1, 1, 4, 16))


@pytest.mark.wrong_input
def test_gpu_without_bfloat16_is_named(monkeypatch):
    new = _tuned.__wrapped__
    monkeypatch.setitem(new.__globals__, "INTERPRET", False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(RuntimeError, match=r"compute capability 8\.0 or later .* has 7\.5"):
        new(_forward, 64, torch.float16, torch.device("cuda"))
