"""Tiled attention against torch's scaled_dot_product_attention, and its memory and work against the paper's."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from zhixing.attention.tiled_attention import tiled_attention, tiled_backward, tiled_forward

# B, H, G, N, M, D
SHAPES = {
    "one element": (1, 1, 1, 1, 1, 1),
    "square": (2, 3, 3, 7, 7, 5),
    "more keys": (1, 2, 2, 3, 11, 4),
    "more queries": (2, 2, 2, 9, 5, 3),
    "grouped": (2, 6, 2, 5, 8, 3),
    "one key head": (1, 4, 1, 6, 6, 2),
    "empty batch": (0, 2, 1, 3, 4, 2),
    "no queries": (1, 2, 2, 0, 4, 3),
    "no keys": (1, 2, 1, 4, 0, 3),
}
LONG = (1, 2, 1, 150, 133, 4)
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
BLOCKS = pytest.mark.parametrize("block", [(128, 128), (1, 1), (2, 3), (4, 2), (5, 64)], ids=str)


def make(shape, dtype=torch.float64, seed=0):
    b, h, g, n, m, d = shape
    generator = torch.Generator().manual_seed(seed)
    sizes = (b, h, n, d), (b, g, m, d), (b, g, m, d)
    return tuple(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in sizes)


def by_torch(q, k, v, *, causal=False, scale=None):
    mask = torch.tril(torch.ones(q.shape[2], k.shape[2], dtype=torch.bool), k.shape[2] - q.shape[2])
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, k, v, mask if causal else None, scale=scale, enable_gqa=True)


def step_by_step(q, k, v, *, causal):
    """Each step rounded to the type, where torch's own computes 16 bits in float32 throughout."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    s = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        s = s.masked_fill(torch.ones_like(s, dtype=torch.bool).triu(k.shape[2] - q.shape[2] + 1), -math.inf)
    return torch.softmax(s, dim=-1).nan_to_num(0) @ v


def with_gradients(function, q, k, v, **settings):
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = function(*leaves, **settings)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(out.dtype)
    return out.detach(), *torch.autograd.grad(out, leaves, weights)


@CAUSAL
@BLOCKS
@EACH_SHAPE
def test_value_and_gradients_equal_torchs(shape, block, causal):
    qkv = make(shape)
    ours = with_gradients(tiled_attention, *qkv, causal=causal, block_q=block[0], block_k=block[1])
    assert_close(ours, with_gradients(by_torch, *qkv, causal=causal))


def test_all_queries_see_all_keys_by_default():
    qkv = make(SHAPES["grouped"])
    assert_close(tiled_attention(*qkv), by_torch(*qkv))


@CAUSAL
def test_longer_than_a_block_of_the_default_size_equals_torchs(causal):
    qkv = make(LONG)
    ours = with_gradients(tiled_attention, *qkv, causal=causal)
    assert_close(ours, with_gradients(by_torch, *qkv, causal=causal))


@CAUSAL
@pytest.mark.parametrize("scale", [0.0, 0.3, -1.0, 2.0])
def test_scale_is_torchs(scale, causal):
    qkv = make(SHAPES["grouped"])
    ours = with_gradients(tiled_attention, *qkv, causal=causal, scale=scale, block_q=2, block_k=3)
    assert_close(ours, with_gradients(by_torch, *qkv, causal=causal, scale=scale))


@CAUSAL
@BLOCKS
def test_log_sum_exp_equals_that_of_torchs_flash_attention(block, causal):
    q, k, v = make((2, 3, 3, 13, 13, 16))
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    wanted = flash(q, k, v, 0.0, causal, scale=0.7)
    assert_close(tiled_forward(q, k, v, causal, 0.7, *block), wanted)


def test_log_sum_exp_is_minus_infinity_where_nothing_is_seen():
    q, k, v = make(SHAPES["more queries"])
    _, lse = tiled_forward(q, k, v, True, 1.0, 2, 2)
    assert (lse[..., :4] == -math.inf).all()
    assert lse[..., 4:].isfinite().all()


def test_rows_that_attend_to_nothing_are_zero_and_so_are_their_gradients():
    q, k, v = make(SHAPES["more queries"])
    for block in (1, 2, 3, 64):
        out, dq, dk, dv = with_gradients(tiled_attention, q, k, v, causal=True, block_q=block, block_k=block)
        assert (out[:, :, :4] == 0).all()
        assert (dq[:, :, :4] == 0).all()
        rest = with_gradients(tiled_attention, q[:, :, 4:], k, v, causal=True)
        # The same weights on the outputs, but drawn for another shape: compare values alone.
        assert_close(out[:, :, 4:], rest[0])
        assert dk.isfinite().all()
        assert dv.isfinite().all()


@CAUSAL
@pytest.mark.parametrize(("block_q", "block_k"), [(2, 3), (3, 2)])
@pytest.mark.parametrize(("n", "m"), [(5, 3), (3, 5)], ids=["more queries", "more keys"])
def test_gradients_pass_gradcheck(n, m, block_q, block_k, causal):
    qkv = [x.requires_grad_() for x in make((1, 2, 1, n, m, 2))]
    settings = {"causal": causal, "block_q": block_q, "block_k": block_k}
    assert torch.autograd.gradcheck(lambda q, k, v: tiled_attention(q, k, v, **settings), qkv)


@CAUSAL
def test_second_derivatives_pass_gradcheck(causal):
    qkv = [x.requires_grad_() for x in make((1, 2, 1, 4, 3, 2))]
    settings = {"causal": causal, "block_q": 3, "block_k": 2}
    assert torch.autograd.gradgradcheck(lambda q, k, v: tiled_attention(q, k, v, **settings), qkv)


@CAUSAL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape", [SHAPES["grouped"], SHAPES["more queries"], LONG], ids=["grouped", "more queries", "long"]
)
def test_low_precision_error_is_at_most_twice_eagers(shape, dtype, causal):
    qkv = make(shape, dtype)
    exact = with_gradients(by_torch, *(x.double() for x in qkv), causal=causal)
    eager = with_gradients(step_by_step, *qkv, causal=causal)
    ours = with_gradients(tiled_attention, *qkv, causal=causal, block_q=32, block_k=16)
    for found, peer, wanted in zip(ours, eager, exact, strict=True):
        assert found.dtype == dtype
        assert (found - wanted).abs().max() <= 2 * (peer - wanted).abs().max()


@CAUSAL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_logits_of_1e4_stay_finite_and_right(dtype, causal):
    q, k, v = make(SHAPES["more queries"], dtype)
    scale = 1e4 / (q.double() @ k.double().mT).abs().max().item()
    for result in with_gradients(tiled_attention, q, k, v, causal=causal, scale=scale, block_q=2, block_k=2):
        assert result.isfinite().all()
    q, k, v = make(SHAPES["more queries"])
    ours = with_gradients(tiled_attention, q, k, v, causal=causal, scale=scale, block_q=2, block_k=2)
    assert_close(ours, with_gradients(by_torch, q, k, v, causal=causal, scale=scale), atol=1e-6, rtol=1e-6)


@CAUSAL
def test_takes_non_contiguous_input_and_gradient(causal):
    qkv = make(SHAPES["grouped"])
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in qkv]
    assert not any(x.is_contiguous() for x in strided)
    for function in (tiled_attention, by_torch):
        leaves = [x.requires_grad_() for x in strided]
        # The gradient of a sum is expanded: every stride is 0.
        found = torch.autograd.grad(function(*leaves, causal=causal).sum(), leaves)
        if function is tiled_attention:
            ours = found
    assert_close(ours, found)
    assert_close(tiled_attention(*strided, causal=causal), by_torch(*qkv, causal=causal))


@pytest.mark.parametrize(("forward", "backward"), [(True, False), (False, True)], ids=["forward", "backward"])
def test_autocast_around_one_pass_changes_nothing(forward, backward):
    leaves = [6 * x.requires_grad_() for x in make(SHAPES["grouped"], torch.float32)]
    out = tiled_attention(*leaves)
    expected = torch.autograd.grad(out, leaves, out.detach())
    with torch.autocast("cpu", torch.bfloat16, enabled=forward):
        cast = tiled_attention(*leaves)
    with torch.autocast("cpu", torch.bfloat16, enabled=backward):
        gradients = torch.autograd.grad(cast, leaves, out.detach())
    assert_close((cast, *gradients), (out, *expected), rtol=0, atol=0)


def test_runs_where_there_is_no_autocast():
    q, k, v = (x.to("meta") for x in make(SHAPES["grouped"]))
    assert tiled_attention(q, k, v).shape == q.shape


def test_forward_mode_is_refused():
    q, k, v = make(SHAPES["grouped"])
    with forward_ad.dual_level(), pytest.raises(RuntimeError):
        tiled_attention(forward_ad.make_dual(q, q), k, v)


def test_inputs_are_left_alone_and_need_no_gradient_of_their_own():
    q, k, v = make(SHAPES["grouped"])
    before = [x.clone() for x in (q, k, v)]
    v.requires_grad_()
    tiled_attention(q, k, v).sum().backward()
    assert_close((q, k, v.detach()), tuple(before), rtol=0, atol=0)
    assert q.grad is None
    assert v.grad is not None


class Largest(TorchDispatchMode):
    """The elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.numel())
        return out


@CAUSAL
def test_no_tensor_grows_faster_than_the_input(causal):
    for n in (64, 128, 256):
        qkv = make((1, 1, 1, n, n, 8))
        with Largest() as ours:
            with_gradients(tiled_attention, *qkv, causal=causal, block_q=16, block_k=16)
        assert ours.elements == n * 8
        with Largest() as plain:
            with_gradients(by_torch, *qkv, causal=causal)
        assert plain.elements == n * n


def test_kept_for_the_backward_pass_are_inputs_output_and_one_number_a_query():
    q, k, v = (x.requires_grad_() for x in make((2, 4, 2, 50, 60, 8), torch.float16))
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.setdefault(id(x), x), lambda x: x):
        out = tiled_attention(q, k, v)
    sizes = sorted(x.numel() for x in kept.values())
    assert sizes == sorted([q.numel(), k.numel(), v.numel(), out.numel(), 2 * 4 * 50])


def test_backward_does_two_and_a_half_times_the_work_of_forward():
    """FlashAttention-2, section 4.1: forward 4 N² D a head, backward 2.5 times that."""
    b, h, n, d = 2, 3, 64, 16
    q, k, v = make((b, h, h, n, n, d))
    settings = (False, 1.0, 16, 32)
    with FlopCounterMode(display=False) as forward:
        out, lse = tiled_forward(q, k, v, *settings)
    with FlopCounterMode(display=False) as backward:
        tiled_backward(out, lse, q, k, v, out, lse, *settings)
    assert forward.get_total_flops() == 4 * n**2 * d * b * h
    assert backward.get_total_flops() == 2.5 * forward.get_total_flops()


def test_causal_leaves_out_the_tiles_above_the_diagonal():
    n, d, block = 64, 4, 8
    q, k, v = make((1, 1, 1, n, n, d))
    tiles = n // block
    for causal, visited in ((False, tiles**2), (True, tiles * (tiles + 1) // 2)):
        with FlopCounterMode(display=False) as counter:
            tiled_forward(q, k, v, causal, 1.0, block, block)
        assert counter.get_total_flops() == 4 * block**2 * d * visited


@pytest.mark.wrong_input
@pytest.mark.parametrize("block", [(0, 16), (16, -1), (1.5, 16), (16, "2"), (None, 16)], ids=str)
def test_refuses_blocks_without_a_row_or_column(block):
    with pytest.raises(ValueError, match=f"1 or larger, but are {block[0]} and {block[1]}"):
        tiled_attention(*make(SHAPES["square"]), block_q=block[0], block_k=block[1])


@pytest.mark.wrong_input
def test_refuses_what_the_definition_refuses():
    q, k, v = make(SHAPES["grouped"])
    with pytest.raises(ValueError, match=r"must divide those of q, but there are 2 and 5"):
        tiled_attention(q[:, :5], k, v)
    with pytest.raises(ValueError, match=r"one floating-point type"):
        tiled_attention(q.float(), k, v)


@pytest.mark.wrong_input
@pytest.mark.parametrize("scale", [torch.tensor(0.5), torch.tensor(0.5, requires_grad=True), torch.ones(1)], ids=str)
def test_refuses_a_scale_whose_gradient_would_be_lost(scale):
    q, k, v = make(SHAPES["square"])
    with pytest.raises(ValueError, match="must be a number, not a tensor: multiply q by it"):
        tiled_attention(q, k, v, scale=scale)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint_under_autocast_recomputes_the_same(reentrant):
    tensors = [x.float().requires_grad_() for x in make(SHAPES["square"])]
    twins = [x.detach().clone().requires_grad_() for x in tensors]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = checkpoint(tiled_attention, *tensors, use_reentrant=reentrant)
    out.square().sum().backward()
    tiled_attention(*twins).square().sum().backward()
    assert_close([x.grad for x in tensors], [x.grad for x in twins], rtol=0, atol=0)
