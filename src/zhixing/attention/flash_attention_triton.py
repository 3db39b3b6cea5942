"""FlashAttention's kernels in Triton: the forward pass, dQ, and dK with dV.

Source: Dao et al., FlashAttention, arXiv 2205.14135, algorithms 1, 2 and 4; Dao, FlashAttention-2,
arXiv 2307.08691, algorithms 1 and 2. Symbols as there: S = scale Q Kᵀ, m and l the running maximum
and sum of a row, P = softmax(S), D (here delta) the sum of dO ∘ O over a row.

One program owns a tile of rows of what it writes, and walks over the tiles of what these need. No
two programs write to one place, so there are no atomic sums, and a repeated call gives the same
bits. Exponentials are powers of two, exp(x) = exp2(x log2 e), with log2 e folded into the scale.
Tiles that are walked over come through tensor descriptors: the tensor memory accelerator from
compute capability 9.0 on, masked loads before, zeros beyond the ends in both.
"""

import math
from contextvars import copy_context
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

try:
    import triton
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "flash_attention needs Triton, available for Linux: pip install triton", name="triton"
    ) from None
else:
    tl = triton.language

INTERPRET: tl.constexpr = tl.constexpr(triton.knobs.runtime.interpret)
LOG2_E: tl.constexpr = tl.constexpr(math.log2(math.e))
LN_2: tl.constexpr = tl.constexpr(math.log(2))
INFINITY: tl.constexpr = tl.constexpr(math.inf)


@triton.jit(do_not_specialize=["n_q", "n_k", "bucket"])
def _forward(
    q,
    k,
    v,
    out,
    lse,
    q_strides,
    k_strides,
    v_strides,
    out_strides,
    heads,
    n_q,
    n_k,
    scale,
    bucket,
    GROUP: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A tile of rows of the output, and the logarithm of their sums."""
    tile, head, key_head, batch = _row_tile(n_q, heads, GROUP, BLOCK_Q, CAUSAL)
    rows = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    q_tile = _load_rows(_head(q, q_strides, batch, head), q_strides, rows, n_q, HEAD_SIZE, BLOCK_D)
    k = _head(k, k_strides, batch, key_head)
    v = _head(v, v_strides, batch, key_head)
    keys = _described(k, k_strides, n_k, HEAD_SIZE, BLOCK_K, BLOCK_D)
    values = _described(v, v_strides, n_k, HEAD_SIZE, BLOCK_K, BLOCK_D)

    m = tl.full([BLOCK_Q], -INFINITY, tl.float32)
    l = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    seen_by_all, seen = _visible_keys(tile * BLOCK_Q, n_q, n_k, BLOCK_Q, BLOCK_K, CAUSAL)
    for MASKED in tl.static_range(2):
        first, last = (seen_by_all, seen) if MASKED else (0, seen_by_all)
        for start in tl.range(first, last, BLOCK_K):
            s = _dot(q_tile, keys.load([start, 0]).T)
            if MASKED:
                columns = start + tl.arange(0, BLOCK_K)
                visible = _visible(rows[:, None], columns[None, :], n_q, n_k, CAUSAL)
                s = tl.where(visible, s, -INFINITY)
            new_m = tl.maximum(m, tl.max(s, 1) * (scale * LOG2_E))
            # A row that has seen nothing yet has m = -inf, and -inf - -inf is not a number.
            shift = tl.where(new_m == -INFINITY, 0.0, new_m)
            p = tl.exp2(s * (scale * LOG2_E) - shift[:, None])
            alpha = tl.exp2(m - shift)
            l = l * alpha + tl.sum(p, 1)
            value = values.load([start, 0])
            acc = _dot(_round(p, value.dtype), value, acc * alpha[:, None])
            m = new_m

    # A row that may attend to nothing has l = 0: its output is 0, its lse -inf.
    l = tl.where(l == 0.0, 1.0, l)
    out = _head(out, out_strides, batch, head)
    _store_rows(out, out_strides, rows, n_q, acc / l[:, None], HEAD_SIZE, BLOCK_D)
    tl.store(lse + (batch * heads + head) * n_q + rows, (m + tl.log2(l)) * LN_2, rows < n_q)


@triton.jit(do_not_specialize=["n_q", "n_k", "bucket"])
def _backward_q(
    q,
    k,
    v,
    out,
    d_out,
    lse,
    delta,
    d_q,
    q_strides,
    k_strides,
    v_strides,
    out_strides,
    d_out_strides,
    d_q_strides,
    heads,
    n_q,
    n_k,
    scale,
    bucket,
    GROUP: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A tile of rows of dQ; on the way delta, which dK needs as well."""
    tile, head, key_head, batch = _row_tile(n_q, heads, GROUP, BLOCK_Q, CAUSAL)
    rows = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    out = _head(out, out_strides, batch, head)
    d_out = _head(d_out, d_out_strides, batch, head)
    out_tile = _load_rows(out, out_strides, rows, n_q, HEAD_SIZE, BLOCK_D)
    d_out_tile = _load_rows(d_out, d_out_strides, rows, n_q, HEAD_SIZE, BLOCK_D)
    row_sums = (batch * heads + head) * n_q + rows
    d = tl.sum(out_tile.to(tl.float32) * d_out_tile.to(tl.float32), 1)
    tl.store(delta + row_sums, d, rows < n_q)
    shift = _shift(tl.load(lse + row_sums, rows < n_q, 0.0))
    q_tile = _load_rows(_head(q, q_strides, batch, head), q_strides, rows, n_q, HEAD_SIZE, BLOCK_D)
    k = _head(k, k_strides, batch, key_head)
    v = _head(v, v_strides, batch, key_head)
    keys = _described(k, k_strides, n_k, HEAD_SIZE, BLOCK_K, BLOCK_D)
    values = _described(v, v_strides, n_k, HEAD_SIZE, BLOCK_K, BLOCK_D)

    acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    seen_by_all, seen = _visible_keys(tile * BLOCK_Q, n_q, n_k, BLOCK_Q, BLOCK_K, CAUSAL)
    for MASKED in tl.static_range(2):
        first, last = (seen_by_all, seen) if MASKED else (0, seen_by_all)
        for start in tl.range(first, last, BLOCK_K):
            key = keys.load([start, 0])
            s = _dot(q_tile, key.T)
            if MASKED:
                columns = start + tl.arange(0, BLOCK_K)
                visible = _visible(rows[:, None], columns[None, :], n_q, n_k, CAUSAL)
                s = tl.where(visible, s, -INFINITY)
            p = tl.exp2(s * (scale * LOG2_E) - shift[:, None])
            d_p = _dot(d_out_tile, values.load([start, 0]).T)
            d_s = p * (d_p - d[:, None])
            acc = _dot(_round(d_s, key.dtype), key, acc)

    d_q = _head(d_q, d_q_strides, batch, head)
    _store_rows(d_q, d_q_strides, rows, n_q, acc * scale, HEAD_SIZE, BLOCK_D)


@triton.jit(do_not_specialize=["n_q", "n_k", "bucket"])
def _backward_kv(
    q,
    k,
    v,
    d_out,
    lse,
    delta,
    d_k,
    d_v,
    q_strides,
    k_strides,
    v_strides,
    d_out_strides,
    d_k_strides,
    d_v_strides,
    heads,
    n_q,
    n_k,
    scale,
    bucket,
    GROUP: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A tile of rows of dK and of dV, summed over the query heads that share them.

    S and P are transposed here: a row is a key, a column a query.
    """
    tile, key_head, batch = _locate(tl.cdiv(n_k, BLOCK_K), heads // GROUP)
    columns = tile * BLOCK_K + tl.arange(0, BLOCK_K)
    k = _head(k, k_strides, batch, key_head)
    v = _head(v, v_strides, batch, key_head)
    key = _load_rows(k, k_strides, columns, n_k, HEAD_SIZE, BLOCK_D)
    value = _load_rows(v, v_strides, columns, n_k, HEAD_SIZE, BLOCK_D)

    k_acc = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    v_acc = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    sees, sees_all = _seeing_queries(tile * BLOCK_K, n_q, n_k, BLOCK_Q, BLOCK_K, CAUSAL)
    for member in range(GROUP):
        head = key_head * GROUP + member
        row_sums = (batch * heads + head) * n_q
        of_head = _head(q, q_strides, batch, head)
        queries = _described(of_head, q_strides, n_q, HEAD_SIZE, BLOCK_Q, BLOCK_D)
        of_head = _head(d_out, d_out_strides, batch, head)
        d_outs = _described(of_head, d_out_strides, n_q, HEAD_SIZE, BLOCK_Q, BLOCK_D)
        for MASKED in tl.static_range(2):
            first, last = (sees, sees_all) if MASKED else (sees_all, n_q)
            for start in tl.range(first, last, BLOCK_Q):
                rows = start + tl.arange(0, BLOCK_Q)
                query = queries.load([start, 0])
                shift = _shift(tl.load(lse + row_sums + rows, rows < n_q, 0.0))
                s = _dot(key, query.T)
                if MASKED:
                    visible = _visible(rows[None, :], columns[:, None], n_q, n_k, CAUSAL)
                    s = tl.where(visible, s, -INFINITY)
                p = tl.exp2(s * (scale * LOG2_E) - shift[None, :])
                d_o = d_outs.load([start, 0])
                v_acc = _dot(_round(p, d_o.dtype), d_o, v_acc)
                d = tl.load(delta + row_sums + rows, rows < n_q, 0.0)
                d_s = p * (_dot(value, d_o.T) - d[None, :])
                k_acc = _dot(_round(d_s, query.dtype), query, k_acc)

    d_k = _head(d_k, d_k_strides, batch, key_head)
    d_v = _head(d_v, d_v_strides, batch, key_head)
    _store_rows(d_k, d_k_strides, columns, n_k, k_acc * scale, HEAD_SIZE, BLOCK_D)
    _store_rows(d_v, d_v_strides, columns, n_k, v_acc, HEAD_SIZE, BLOCK_D)


# Which tile is whose, and what it may see.


@triton.jit
def _locate(tiles, heads):
    """This program's tile, head and batch entry; neighbours share a head, and what they read."""
    program = tl.program_id(0)
    head = program // tiles
    return program % tiles, (head % heads).to(tl.int64), (head // heads).to(tl.int64)


@triton.jit
def _row_tile(n_q, heads, GROUP: tl.constexpr, BLOCK_Q: tl.constexpr, CAUSAL: tl.constexpr):
    """This program's tile, query head, the key head that it shares, and batch entry."""
    tiles = tl.cdiv(n_q, BLOCK_Q)
    tile, head, batch = _locate(tiles, heads)
    if CAUSAL:
        # The last rows see the most keys; the longest work goes first.
        tile = tiles - 1 - tile
    return tile, head, head // GROUP, batch


@triton.jit
def _visible(rows, columns, n_q, n_k, CAUSAL: tl.constexpr):
    """Which queries see which keys; under the causal mask the last query sees the last key."""
    visible = columns < n_k
    if CAUSAL:
        visible &= columns <= rows + (n_k - n_q)
    return visible


@triton.jit
def _visible_keys(
    row, n_q, n_k, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, CAUSAL: tl.constexpr
):
    """Where the tiles of keys end that a tile of rows sees whole, and where those that it sees."""
    by_all, by_any = n_k, n_k
    if CAUSAL:
        by_all = tl.minimum(tl.maximum(row + 1 + (n_k - n_q), 0), n_k)
        by_any = tl.minimum(tl.maximum(row + BLOCK_Q + (n_k - n_q), 0), n_k)
    return by_all // BLOCK_K * BLOCK_K, by_any


@triton.jit
def _seeing_queries(
    column, n_q, n_k, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, CAUSAL: tl.constexpr
):
    """Where the tiles of rows begin that see a tile of keys, and those that see the whole of it."""
    sees, sees_all = 0, 0
    if CAUSAL:
        sees = tl.maximum(column - (n_k - n_q), 0) // BLOCK_Q * BLOCK_Q
        whole = tl.maximum(column + BLOCK_K - 1 - (n_k - n_q), 0)
        sees_all = tl.minimum(tl.cdiv(whole, BLOCK_Q) * BLOCK_Q, n_q)
    return sees, sees_all


# Memory.


@triton.jit
def _head(pointer, strides, batch, head):
    return pointer + batch * strides[0] + head * strides[1]


@triton.jit
def _described(
    pointer, strides, n, HEAD_SIZE: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr
):
    return tl.make_tensor_descriptor(pointer, [n, HEAD_SIZE], [strides[2], 1], [BLOCK, BLOCK_D])


@triton.jit
def _load_rows(pointer, strides, rows, n, HEAD_SIZE: tl.constexpr, BLOCK_D: tl.constexpr):
    columns = tl.arange(0, BLOCK_D)
    places = rows[:, None].to(tl.int64) * strides[2] + columns[None, :] * strides[3]
    return tl.load(pointer + places, (rows < n)[:, None] & (columns < HEAD_SIZE)[None, :], 0.0)


@triton.jit
def _store_rows(pointer, strides, rows, n, x, HEAD_SIZE: tl.constexpr, BLOCK_D: tl.constexpr):
    columns = tl.arange(0, BLOCK_D)
    places = rows[:, None].to(tl.int64) * strides[2] + columns[None, :] * strides[3]
    x = _round(x, pointer.dtype.element_ty)
    tl.store(pointer + places, x, (rows < n)[:, None] & (columns < HEAD_SIZE)[None, :])


# Arithmetic.


@triton.jit
def _shift(lse):
    """What is taken from logits to base 2; a row that may attend to nothing gets weights of 0."""
    return tl.where(lse == -INFINITY, INFINITY, lse * LOG2_E)


@triton.jit
def _dot(a, b, acc=None):
    """a b + acc, in float32, not TF32. The interpreter cannot multiply bfloat16."""
    if INTERPRET:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def _round(x, dtype: tl.constexpr):
    """x in a type, to the nearest, ties to even. The interpreter cuts off what bfloat16 lacks."""
    if INTERPRET and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = bits.to(tl.float32, bitcast=True)
    return x.to(dtype)


# Launches.


class _Tiles(NamedTuple):
    """What the autotuner chooses: rows of a tile of queries, of keys; warps; loads in flight."""

    queries: int
    keys: int
    warps: int
    stages: int
    since: int = 80  # the lowest compute capability where it is worth trying


# {kernel: {head size: tiles}}, for the smallest head size that is not below.
HALF_PRECISION = {
    "_forward": {
        64: (_Tiles(128, 64, 4, 3), _Tiles(128, 128, 8, 3)),
        128: (_Tiles(128, 64, 8, 3), _Tiles(128, 128, 8, 2, since=90)),
        256: (_Tiles(64, 32, 8, 2), _Tiles(128, 64, 8, 2, since=90)),
    },
    "_backward_q": {
        64: (_Tiles(64, 64, 4, 2), _Tiles(128, 64, 8, 2)),
        128: (_Tiles(64, 64, 4, 2), _Tiles(128, 64, 8, 2, since=90)),
        256: (_Tiles(64, 16, 8, 2), _Tiles(64, 32, 8, 2), _Tiles(64, 64, 8, 2, since=90)),
    },
    "_backward_kv": {
        64: (_Tiles(32, 64, 4, 2), _Tiles(64, 128, 8, 2), _Tiles(64, 64, 4, 2, since=90)),
        128: (_Tiles(64, 64, 8, 2), _Tiles(32, 128, 8, 2, since=90)),
        256: (_Tiles(16, 64, 8, 2),),
    },
}
SINGLE_PRECISION = {
    "_forward": {128: (_Tiles(32, 32, 8, 2),), 256: (_Tiles(16, 16, 8, 2),)},
    "_backward_q": {64: (_Tiles(32, 32, 8, 2),), 256: (_Tiles(16, 16, 8, 2),)},
    "_backward_kv": {64: (_Tiles(16, 32, 8, 2),), 256: (_Tiles(16, 16, 8, 2),)},
}


def _tiles_to_try(
    kernel: str, head_size: int, dtype: torch.dtype, capability: int
) -> tuple[_Tiles, ...]:
    """What the autotuner may choose from for a kernel.

    Raises:
        RuntimeError: The GPU's compute capability is below 80: it has no products of bfloat16.
    """
    if capability < 80:
        raise RuntimeError(
            "flash_attention needs a GPU of compute capability 8.0 or later (A100, RTX 30), but "
            f"this one has {capability // 10}.{capability % 10}"
        )
    table = SINGLE_PRECISION if dtype == torch.float32 else HALF_PRECISION
    tiles = next(tiles for largest, tiles in table[kernel].items() if head_size <= largest)
    return tuple(each for each in tiles if each.since <= capability)


def _launch_forward(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """The output, laid out in memory as q is, and the logarithm of each row's sum, (B, H, N).

    Examples:
        Logits of 0 give all keys that are seen the same weight. TRITON_INTERPRET=1 where no GPU is.

        >>> device = "cuda" if torch.cuda.is_available() else "cpu"
        >>> q = k = torch.zeros(1, 1, 4, 1, device=device)
        >>> v = torch.arange(4.0, device=device).view(1, 1, 4, 1)
        >>> out, lse = _launch_forward(q, k, v, True, 1.0)
        >>> out.flatten().tolist(), lse.exp().round().flatten().tolist()
        ([0.0, 0.5, 1.0, 1.5], [1.0, 2.0, 3.0, 4.0])
    """
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)
    if 0 in (out.numel(), k.numel()):
        return out.zero_(), lse.fill_(-math.inf)
    q, k, v = map(_describable, (q, k, v))
    tensors, strides = (q, k, v, out, lse), (q, k, v, out)
    _launch_kernel(_forward, q, k, tensors, strides, causal, scale)
    return out, lse


def _launch_backward(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, laid out in memory as these are.

    Examples:
        Each of two queries gives each of two values the weight 1/2. TRITON_INTERPRET=1 where no
        GPU is.

        >>> device = "cuda" if torch.cuda.is_available() else "cpu"
        >>> q = k = v = torch.zeros(1, 1, 2, 1, device=device)
        >>> out, lse = q, torch.full((1, 1, 2), 2.0, device=device).log()
        >>> d_q, d_k, d_v = _launch_backward(torch.ones_like(q), q, k, v, out, lse, False, 1.0)
        >>> [round(x, 5) for x in d_v.flatten().tolist()]
        [1.0, 1.0]
    """
    d_q, d_k, d_v = (torch.empty_like(x) for x in (q, k, v))
    if 0 in (q.numel(), k.numel()):
        return d_q.zero_(), d_k.zero_(), d_v.zero_()
    q, k, v, d_out = map(_describable, (q, k, v, d_out))
    delta = torch.empty_like(lse)
    tensors, strides = (q, k, v, out, d_out, lse, delta, d_q), (q, k, v, out, d_out, d_q)
    _launch_kernel(_backward_q, q, k, tensors, strides, causal, scale)
    tensors, strides = (q, k, v, d_out, lse, delta, d_k, d_v), (q, k, v, d_out, d_k, d_v)
    _launch_kernel(_backward_kv, q, k, tensors, strides, causal, scale)
    return d_q, d_k, d_v


def _launch_kernel(
    kernel: triton.KernelInterface,
    q: Tensor,
    k: Tensor,
    tensors: tuple[Tensor, ...],
    strides: tuple[Tensor, ...],
    causal: bool,
    scale: float,
) -> None:
    (batch, heads, n_q, head_size), (_, key_heads, n_k, _) = q.shape, k.shape
    block_d = max(16, triton.next_power_of_2(head_size))
    # The doublings of batch · heads and of the length; which tiles are fastest depends on both.
    bucket = 64 * (batch * heads).bit_length() + max(n_q, n_k).bit_length()

    def grid(meta: dict) -> tuple[int]:
        if kernel is _backward_kv:
            return (batch * key_heads * triton.cdiv(n_k, meta["BLOCK_K"]),)
        return (batch * heads * triton.cdiv(n_q, meta["BLOCK_Q"]),)

    def launch() -> None:
        triton.set_allocator(_scratch)
        with torch.cuda.device_of(q):
            _tuned(kernel, block_d, q.dtype, q.device)[grid](
                *tensors,
                *(x.stride() for x in strides),
                heads,
                n_q,
                n_k,
                scale,
                bucket,
                GROUP=heads // key_heads,
                HEAD_SIZE=head_size,
                BLOCK_D=block_d,
                CAUSAL=causal,
            )

    # The allocator is a context variable: the caller's own stays as it is.
    copy_context().run(launch)


@cache
def _tuned(
    kernel: triton.KernelInterface, head_size: int, dtype: torch.dtype, device: torch.device
) -> triton.KernelInterface:
    """The kernel, which tries its tiles at the first call of each head size, group and doubling of
    batch · heads and of the length, causal and not, and stays with the fastest.
    """
    if INTERPRET:
        tiles = (_Tiles(32, 16, 1, 1),)
    else:
        major, minor = torch.cuda.get_device_capability(device)
        tiles = _tiles_to_try(kernel.__name__, head_size, dtype, 10 * major + minor)
    configurations = [
        triton.Config(
            {"BLOCK_Q": each.queries, "BLOCK_K": each.keys},
            num_warps=each.warps,
            num_stages=each.stages,
        )
        for each in tiles
    ]
    return triton.autotune(configurations, key=["bucket", "HEAD_SIZE", "CAUSAL", "GROUP"])(kernel)


def _describable(x: Tensor) -> Tensor:
    """x, or a copy where no descriptor can be made: rows must begin at multiples of 16 bytes."""
    aligned = 16 // x.element_size()
    outer = x.stride()[:3]
    if (
        x.stride(3) == 1
        and x.data_ptr() % 16 == 0
        and all(s > 0 and s % aligned == 0 for s in outer)
    ):
        return x
    width = triton.cdiv(x.shape[3], aligned) * aligned
    return x.new_empty(*x.shape[:3], width)[..., : x.shape[3]].copy_(x)


def _scratch(size: int, alignment: int, stream: int | None) -> Tensor:
    """Memory for the descriptors that a kernel makes."""
    return torch.empty(size, dtype=torch.int8, device="cuda")
