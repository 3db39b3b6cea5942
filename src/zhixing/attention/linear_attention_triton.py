"""Chunked linear attention's kernels in Triton: states, outputs, and the gradients of all inputs.

Sources: Katharopoulos et al., arXiv 2006.16236, equations 16 to 20 (the recurrence); Sun et al.,
arXiv 2307.08621, equation 7 (chunks with decay); Yang et al., arXiv 2312.06635, section 4 (states
first, then all chunks in parallel). Symbols: S the state, z the sum of decayed keys, c the sum of
a chunk's log decays up to and with a row; the weight of row j in row i is exp(c_i - c_j).

`_carry` alone goes through a sequence, one program for each tile of the state; it keeps the state
at each chunk's border. The other kernels have a program for each chunk, and need no other chunk.
No two programs write to one place, so there are no atomic sums.

Some helpers are those of `flash_attention_triton` under other names: imported from there, they
would bring along its error without Triton, which names flash attention.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

try:
    import triton
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "fused_linear_attention needs Triton, available for Linux: pip install triton",
        name="triton",
    ) from None
else:
    tl = triton.language

INTERPRETER: tl.constexpr = tl.constexpr(triton.knobs.runtime.interpret)
EPSILON: tl.constexpr = tl.constexpr(1e-10)
# exp of less is 0 in float32: such a decay resets the state, as -inf does.
RESET: tl.constexpr = tl.constexpr(-104.0)


@triton.jit(do_not_specialize=["heads", "n", "bucket"])
def _carry(
    a,
    b,
    log_decay,
    first,
    first_sums,
    divisors,
    d_divisors,
    states,
    sums,
    last,
    last_sums,
    a_strides,
    b_strides,
    decay_strides,
    heads,
    n,
    scale,
    bucket,
    SIZE_D: tl.constexpr,
    SIZE_E: tl.constexpr,
    REVERSED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """A tile of the state at each chunk's beginning, from a = K, b = V; and the last one.

    If reversed, a tile of the gradient of the state at each chunk's end, from a = Q, b = dO.
    """
    across = tl.cdiv(SIZE_E, BLOCK_E)
    tile, head, batch = _place(tl.cdiv(SIZE_D, BLOCK_D) * across, heads)
    d = tile // across * BLOCK_D + tl.arange(0, BLOCK_D)
    e = tile % across * BLOCK_E + tl.arange(0, BLOCK_E)
    sequence = batch * heads + head
    a += batch * a_strides[0] + head * a_strides[1]
    b += batch * b_strides[0] + head * b_strides[1]

    s = tl.zeros([BLOCK_D, BLOCK_E], tl.float32)
    if first is not None:
        s = _load_state(first, sequence, d, e, SIZE_D, SIZE_E)
    z = tl.zeros([BLOCK_D], tl.float32)
    if first_sums is not None:
        z = tl.load(first_sums + sequence * SIZE_D + d, d < SIZE_D, 0.0)
    chunks = tl.cdiv(n, CHUNK)
    for step in tl.range(0, chunks):
        chunk = chunks - 1 - step if REVERSED else step
        _store_state(states, sequence * chunks + chunk, d, e, s, SIZE_D, SIZE_E)
        rows = chunk * CHUNK + tl.arange(0, CHUNK)
        c, resets = _decays(log_decay, decay_strides, batch, head, rows, n)
        a_tile = _load_rows(a, a_strides, rows, n, d, SIZE_D).to(tl.float32)
        b_tile = _load_rows(b, b_strides, rows, n, e, SIZE_E)
        weights = scale * _from_start(c, resets) if REVERSED else _to_end(c, resets)
        through = _through(c, resets)
        if sums is not None:
            place = (sequence * chunks + chunk) * SIZE_D + d
            tl.store(sums + place, z, (d < SIZE_D) & (tile % across == 0))
            of_sum = weights
            if REVERSED:
                of_sum *= tl.load(d_divisors + sequence * n + rows, rows < n, 0.0)
                weights /= tl.load(divisors + sequence * n + rows, rows < n, 1.0)
            z = z * through + tl.sum(a_tile * of_sum[:, None], 0)
        weighted = _rounded(a_tile * weights[:, None], b_tile.dtype)
        s = _product(tl.trans(weighted), b_tile, s * through)

    _store_state(last, sequence, d, e, s, SIZE_D, SIZE_E)
    if sums is not None:
        tl.store(last_sums + sequence * SIZE_D + d, z, (d < SIZE_D) & (tile % across == 0))


@triton.jit(do_not_specialize=["heads", "n", "bucket"])
def _outputs(
    q,
    k,
    v,
    log_decay,
    states,
    sums,
    out,
    divisors,
    q_strides,
    k_strides,
    v_strides,
    decay_strides,
    out_strides,
    heads,
    n,
    scale,
    bucket,
    SIZE_D: tl.constexpr,
    SIZE_E: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """A tile of a chunk's outputs: the chunk's own rows, and the state at its beginning."""
    tile, e, chunk, chunks, head, batch = _chunk_tile(n, heads, SIZE_E, CHUNK, BLOCK_E)
    rows = chunk * CHUNK + tl.arange(0, CHUNK)
    sequence = batch * heads + head
    q += batch * q_strides[0] + head * q_strides[1]
    k += batch * k_strides[0] + head * k_strides[1]
    v += batch * v_strides[0] + head * v_strides[1]
    out += batch * out_strides[0] + head * out_strides[1]

    p = tl.zeros([CHUNK, CHUNK], tl.float32)
    acc = tl.zeros([CHUNK, BLOCK_E], tl.float32)
    total = tl.zeros([CHUNK], tl.float32)
    for start in tl.range(0, SIZE_D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        query = _load_rows(q, q_strides, rows, n, d, SIZE_D)
        key = _load_rows(k, k_strides, rows, n, d, SIZE_D)
        s = _load_state(states, sequence * chunks + chunk, d, e, SIZE_D, SIZE_E)
        p = _product(query, tl.trans(key), p)
        acc = _state_product(query, s, acc)
        if sums is not None:
            place = (sequence * chunks + chunk) * SIZE_D + d
            z = tl.load(sums + place, d < SIZE_D, 0.0)
            total += tl.sum(query.to(tl.float32) * z[None, :], 1)

    c, resets = _decays(log_decay, decay_strides, batch, head, rows, n)
    before = scale * _from_start(c, resets)
    p *= scale * _between(c, resets)
    value = _load_rows(v, v_strides, rows, n, e, SIZE_E)
    acc = _product(_rounded(p, value.dtype), value, acc * before[:, None])
    if sums is not None:
        total = total * before + tl.sum(p, 1) + EPSILON
        acc /= total[:, None]
        tl.store(divisors + sequence * n + rows, total, (rows < n) & (tile == 0))
    _store_rows(out, out_strides, rows, n, e, acc, SIZE_E)


@triton.jit(do_not_specialize=["heads", "n", "bucket"])
def _divisor_gradients(
    out,
    d_out,
    divisors,
    d_divisors,
    out_strides,
    d_out_strides,
    heads,
    n,
    scale,
    bucket,
    SIZE_D: tl.constexpr,
    SIZE_E: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Of each row's divisor: -(dO · O) / divisor."""
    chunk, head, batch = _place(tl.cdiv(n, CHUNK), heads)
    rows = chunk * CHUNK + tl.arange(0, CHUNK)
    out += batch * out_strides[0] + head * out_strides[1]
    d_out += batch * d_out_strides[0] + head * d_out_strides[1]
    acc = tl.zeros([CHUNK, BLOCK_E], tl.float32)
    for start in tl.range(0, SIZE_E, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        out_tile = _load_rows(out, out_strides, rows, n, e, SIZE_E).to(tl.float32)
        d_out_tile = _load_rows(d_out, d_out_strides, rows, n, e, SIZE_E).to(tl.float32)
        acc += out_tile * d_out_tile
    place = (batch * heads + head) * n + rows
    divisor = tl.load(divisors + place, rows < n, 1.0)
    tl.store(d_divisors + place, -tl.sum(acc, 1) / divisor, rows < n)


@triton.jit(do_not_specialize=["heads", "n", "bucket"])
def _gradients_qk(
    q,
    k,
    v,
    d_out,
    log_decay,
    states,
    sums,
    d_states,
    d_sums,
    divisors,
    d_divisors,
    d_q,
    d_k,
    d_decay,
    q_strides,
    k_strides,
    v_strides,
    d_out_strides,
    decay_strides,
    d_q_strides,
    d_k_strides,
    heads,
    n,
    scale,
    bucket,
    SIZE_D: tl.constexpr,
    SIZE_E: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """A tile of a chunk's dQ and dK, and what its columns add to the gradient of the log decays."""
    tile, d, chunk, chunks, head, batch = _chunk_tile(n, heads, SIZE_D, CHUNK, BLOCK_D)
    rows = chunk * CHUNK + tl.arange(0, CHUNK)
    sequence = batch * heads + head
    v += batch * v_strides[0] + head * v_strides[1]
    d_out += batch * d_out_strides[0] + head * d_out_strides[1]

    d_p = tl.zeros([CHUNK, CHUNK], tl.float32)
    q_acc = tl.zeros([CHUNK, BLOCK_D], tl.float32)
    k_acc = tl.zeros([CHUNK, BLOCK_D], tl.float32)
    d_through = tl.zeros([BLOCK_D], tl.float32)
    for start in tl.range(0, SIZE_E, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        d_o = _load_rows(d_out, d_out_strides, rows, n, e, SIZE_E)
        value = _load_rows(v, v_strides, rows, n, e, SIZE_E)
        s = _load_state(states, sequence * chunks + chunk, d, e, SIZE_D, SIZE_E)
        d_s = _load_state(d_states, sequence * chunks + chunk, d, e, SIZE_D, SIZE_E)
        d_p = _product(d_o, tl.trans(value), d_p)
        q_acc = _state_product(d_o, tl.trans(s), q_acc)
        k_acc = _state_product(value, tl.trans(d_s), k_acc)
        if log_decay is not None:
            d_through += tl.sum(s * d_s, 1)

    c, resets = _decays(log_decay, decay_strides, batch, head, rows, n)
    before = scale * _from_start(c, resets)
    after = _to_end(c, resets)
    if sums is not None:
        # z is the state, and the divisors the outputs, of a column of ones appended to V.
        place = (sequence * chunks + chunk) * SIZE_D + d
        z = tl.load(sums + place, d < SIZE_D, 0.0)
        d_z = tl.load(d_sums + place, d < SIZE_D, 0.0)
        divisor = tl.load(divisors + sequence * n + rows, rows < n, 1.0)[:, None]
        d_divisor = tl.load(d_divisors + sequence * n + rows, rows < n, 0.0)[:, None]
        d_p = d_p / divisor + d_divisor
        q_acc = q_acc / divisor + d_divisor * z[None, :]
        k_acc += d_z[None, :]
        d_through += z * d_z

    q += batch * q_strides[0] + head * q_strides[1]
    k += batch * k_strides[0] + head * k_strides[1]
    query = _load_rows(q, q_strides, rows, n, d, SIZE_D)
    key = _load_rows(k, k_strides, rows, n, d, SIZE_D)
    d_p *= scale * _between(c, resets)
    # A row's own product does not decay; apart, its rounding stays out of the log decay's gradient.
    diagonal = tl.arange(0, CHUNK)[:, None] == tl.arange(0, CHUNK)[None, :]
    own = tl.sum(tl.where(diagonal, d_p, 0.0), 1)[:, None]
    d_p = _rounded(tl.where(diagonal, 0.0, d_p), query.dtype)
    q_acc *= before[:, None]
    k_acc *= after[:, None]
    q_inside = _product(d_p, key)
    k_inside = _product(tl.trans(d_p), query)
    query = query.to(tl.float32)
    key = key.to(tl.float32)
    d_q += batch * d_q_strides[0] + head * d_q_strides[1]
    d_k += batch * d_k_strides[0] + head * d_k_strides[1]
    _store_rows(d_q, d_q_strides, rows, n, d, q_inside + q_acc + own * key, SIZE_D)
    _store_rows(d_k, d_k_strides, rows, n, d, k_inside + k_acc + own * query, SIZE_D)

    if log_decay is not None:
        # What goes through row l: from rows j < l, or the state before, to rows i ≥ l, or after.
        to_rows = tl.sum(query * (q_inside + q_acc) - key * k_inside, 1)
        to_end = tl.sum(key * k_acc, 1)
        through = tl.sum(d_through, 0) * _through(c, resets)
        passed = tl.cumsum(to_rows, 0, reverse=True) + (tl.cumsum(to_end, 0) - to_end) + through
        log_decay += batch * decay_strides[0] + head * decay_strides[1]
        g = tl.load(log_decay + rows.to(tl.int64) * decay_strides[2], rows < n, 0.0)
        # Through a reset nothing goes but what rounding left over.
        passed = tl.where(g < RESET, 0.0, passed)
        place = (sequence * tl.cdiv(SIZE_D, BLOCK_D) + tile) * n + rows
        tl.store(d_decay + place, passed, rows < n)


@triton.jit(do_not_specialize=["heads", "n", "bucket"])
def _gradients_v(
    q,
    k,
    d_out,
    log_decay,
    d_states,
    divisors,
    d_v,
    q_strides,
    k_strides,
    d_out_strides,
    decay_strides,
    d_v_strides,
    heads,
    n,
    scale,
    bucket,
    SIZE_D: tl.constexpr,
    SIZE_E: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """A tile of a chunk's dV."""
    _, e, chunk, chunks, head, batch = _chunk_tile(n, heads, SIZE_E, CHUNK, BLOCK_E)
    rows = chunk * CHUNK + tl.arange(0, CHUNK)
    sequence = batch * heads + head
    q += batch * q_strides[0] + head * q_strides[1]
    k += batch * k_strides[0] + head * k_strides[1]

    p = tl.zeros([CHUNK, CHUNK], tl.float32)
    acc = tl.zeros([CHUNK, BLOCK_E], tl.float32)
    for start in tl.range(0, SIZE_D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        query = _load_rows(q, q_strides, rows, n, d, SIZE_D)
        key = _load_rows(k, k_strides, rows, n, d, SIZE_D)
        d_s = _load_state(d_states, sequence * chunks + chunk, d, e, SIZE_D, SIZE_E)
        p = _product(query, tl.trans(key), p)
        acc = _state_product(key, d_s, acc)

    c, resets = _decays(log_decay, decay_strides, batch, head, rows, n)
    p *= scale * _between(c, resets)
    if divisors is not None:
        p /= tl.load(divisors + sequence * n + rows, rows < n, 1.0)[:, None]
    d_out += batch * d_out_strides[0] + head * d_out_strides[1]
    d_o = _load_rows(d_out, d_out_strides, rows, n, e, SIZE_E)
    acc = _product(tl.trans(_rounded(p, d_o.dtype)), d_o, acc * _to_end(c, resets)[:, None])
    d_v += batch * d_v_strides[0] + head * d_v_strides[1]
    _store_rows(d_v, d_v_strides, rows, n, e, acc, SIZE_E)


# Which tile is whose.


@triton.jit
def _place(tiles, heads):
    """This program's tile, head and batch entry; neighbours share a head, and what they read."""
    program = tl.program_id(0)
    head = program // tiles
    return program % tiles, (head % heads).to(tl.int64), (head // heads).to(tl.int64)


@triton.jit
def _chunk_tile(n, heads, SIZE: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr):
    """This program's tile of columns and these, its chunk of so many, head and batch entry."""
    tiles = tl.cdiv(SIZE, BLOCK)
    chunks = tl.cdiv(n, CHUNK)
    tile, head, batch = _place(tiles * chunks, heads)
    columns = tile % tiles * BLOCK + tl.arange(0, BLOCK)
    return tile % tiles, columns, tile // tiles, chunks, head, batch


# Decay.


@triton.jit
def _decays(log_decay, strides, batch, head, rows, n):
    """For each row of a chunk, the sum of the log decays up to it, and how many reset the state.

    Resets are counted and left out of the sums, since -inf - -inf is not a number. Beyond the end
    nothing decays. The sums are in float64, because weights are made of their differences.
    """
    c = tl.zeros(rows.shape, tl.float64)
    resets = tl.zeros(rows.shape, tl.int32)
    if log_decay is not None:
        log_decay += batch * strides[0] + head * strides[1]
        g = tl.load(log_decay + rows.to(tl.int64) * strides[2], rows < n, 0.0)
        c = tl.cumsum(tl.where(g < RESET, 0.0, g).to(tl.float64), 0)
        resets = tl.cumsum((g < RESET).to(tl.int32), 0)
    return c, resets


@triton.jit
def _from_start(c, resets):
    """The weight in each row of the state before the chunk."""
    return tl.exp(tl.where(resets == 0, c.to(tl.float32), float("-inf")))


@triton.jit
def _to_end(c, resets):
    """The weight of each row in the state after the chunk."""
    rest = (_last(c) - c).to(tl.float32)
    return tl.exp(tl.where(resets == tl.max(resets, 0), rest, float("-inf")))


@triton.jit
def _through(c, resets):
    """The weight of the state before the chunk in the state after it."""
    return tl.exp(tl.where(tl.max(resets, 0) == 0, _last(c).to(tl.float32), float("-inf")))


@triton.jit
def _last(x):
    row = tl.arange(0, x.shape[0])
    return tl.sum(tl.where(row == x.shape[0] - 1, x, 0.0), 0)


@triton.jit
def _between(c, resets):
    """The weight of each row (a column here) in each row: 0 in earlier ones, and across a reset.

    Masked before the exponential, which would overflow above the diagonal. A difference of two
    float32 sums would lose digits; their rests make up for it.
    """
    row = tl.arange(0, c.shape[0])
    high = c.to(tl.float32)
    low = (c - high).to(tl.float32)
    rest = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    seen = (row[:, None] >= row[None, :]) & (resets[:, None] == resets[None, :])
    return tl.exp(tl.where(seen, rest, float("-inf")))


# Memory.


@triton.jit
def _load_rows(pointer, strides, rows, n, columns, SIZE: tl.constexpr):
    places = rows[:, None].to(tl.int64) * strides[2] + columns[None, :] * strides[3]
    return tl.load(pointer + places, (rows < n)[:, None] & (columns < SIZE)[None, :], 0.0)


@triton.jit
def _store_rows(pointer, strides, rows, n, columns, x, SIZE: tl.constexpr):
    places = rows[:, None].to(tl.int64) * strides[2] + columns[None, :] * strides[3]
    x = _rounded(x, pointer.dtype.element_ty)
    tl.store(pointer + places, x, (rows < n)[:, None] & (columns < SIZE)[None, :])


@triton.jit
def _load_state(pointer, index, d, e, SIZE_D: tl.constexpr, SIZE_E: tl.constexpr):
    places = index * SIZE_D * SIZE_E + d[:, None] * SIZE_E + e[None, :]
    return tl.load(pointer + places, (d < SIZE_D)[:, None] & (e < SIZE_E)[None, :], 0.0)


@triton.jit
def _store_state(pointer, index, d, e, s, SIZE_D: tl.constexpr, SIZE_E: tl.constexpr):
    places = index * SIZE_D * SIZE_E + d[:, None] * SIZE_E + e[None, :]
    tl.store(pointer + places, s, (d < SIZE_D)[:, None] & (e < SIZE_E)[None, :])


# Arithmetic.


@triton.jit
def _product(a, b, acc=None):
    """a b + acc, in float32, not TF32. The interpreter cannot multiply bfloat16."""
    if INTERPRETER:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def _state_product(a, s, acc):
    """a S + acc. S may exceed float16: where a has 16 bits, S is rounded to TF32, not to them."""
    if a.dtype == tl.float32:
        acc = tl.dot(a, s, acc, input_precision="ieee")
    else:
        acc = tl.dot(a.to(tl.float32), s, acc, input_precision="tf32")
    return acc


@triton.jit
def _rounded(x, dtype: tl.constexpr):
    """x in a type, to the nearest, ties to even. The interpreter cuts off what bfloat16 lacks."""
    if INTERPRETER and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = bits.to(tl.float32, bitcast=True)
    return x.to(dtype)


# Launches.


class _Launch(NamedTuple):
    """What the autotuner chooses: warps; loads in flight."""

    warps: int
    stages: int
    since: int = 80  # the lowest compute capability where it is worth trying


# Rows of a chunk, which are also the most columns of a tile.
CHUNKS = {torch.float16: 64, torch.bfloat16: 64, torch.float32: 32}
INTERPRETED_CHUNK = 16
# {kernel: what is worth trying}
TRIED = {
    "_carry": (_Launch(4, 2), _Launch(4, 3)),
    "_outputs": (_Launch(4, 2), _Launch(8, 2)),
    "_divisor_gradients": (_Launch(4, 2),),
    "_gradients_qk": (_Launch(8, 2), _Launch(4, 2, since=90)),
    "_gradients_v": (_Launch(4, 2), _Launch(8, 2)),
}


def _launch_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor | None,
    sums: Tensor | None,
    scale: float,
    normalize: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The output, the last state and its sums, and what the rows were divided by, (B, H, N).

    The last two are empty if nothing is normalised.

    Examples:
        Keys of 1 add all values up. Set TRITON_INTERPRET=1 where no GPU is.

        >>> device = "cuda" if torch.cuda.is_available() else "cpu"
        >>> q = k = torch.ones(1, 1, 4, 1, device=device)
        >>> v = torch.arange(4.0, device=device).view(1, 1, 4, 1)
        >>> out, last, *_ = _launch_forward(q, k, v, None, None, None, 1.0, False)
        >>> out.flatten().tolist(), last.item()
        ([0.0, 1.0, 3.0, 6.0], 6.0)
    """
    out = torch.empty_like(v)
    divisors = _floats(q, *(q.shape[:3] if normalize else (0,)))
    states, all_sums, last, last_sums = _carried(
        k, v, log_decay, state, sums, None, None, scale, normalize
    )
    tensors = (q, k, v, log_decay, states, all_sums, out, divisors)
    _launch_kernel(_outputs, q, v, tensors, (q, k, v, log_decay, out), scale)
    return out, last, _floats(q, 0) if last_sums is None else last_sums, divisors


def _launch_backward(
    d_out: Tensor,
    d_last: Tensor,
    d_last_sums: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor | None,
    sums: Tensor | None,
    out: Tensor,
    divisors: Tensor,
    scale: float,
    normalize: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v, log_decay (empty if None), the first state and its sums.

    The last is empty if nothing is normalised.

    Examples:
        The first of two values is added to both rows. Set TRITON_INTERPRET=1 where no GPU is.

        >>> device = "cuda" if torch.cuda.is_available() else "cpu"
        >>> x, s = torch.ones(1, 1, 2, 1, device=device), torch.zeros(1, 1, 1, 1, device=device)
        >>> none = torch.zeros(0, device=device)
        >>> given = (x, s, none, x, x, x, None, None, None, x, none, 1.0, False)
        >>> d_q, d_k, d_v, *_ = _launch_backward(*given)
        >>> d_v.flatten().tolist()
        [2.0, 1.0]
    """
    d_q, d_k, d_v = (torch.empty_like(x) for x in (q, k, v))
    d_divisors = None
    if normalize:
        d_divisors = torch.empty_like(divisors)
        tensors = (out, d_out, divisors, d_divisors)
        _launch_kernel(_divisor_gradients, q, v, tensors, (out, d_out), scale)
    else:
        divisors = d_last_sums = None
    states, all_sums, _, _ = _carried(k, v, log_decay, state, sums, None, None, scale, normalize)
    d_states, d_sums, d_first, d_first_sums = _carried(
        q, d_out, log_decay, d_last, d_last_sums, divisors, d_divisors, scale, normalize, True
    )
    d_decay = None
    if log_decay is not None:
        tiles = triton.cdiv(q.shape[3], _blocks(_gradients_qk, q, v)["BLOCK_D"])
        d_decay = _floats(q, *q.shape[:2], tiles, q.shape[2])
    tensors = (q, k, v, d_out, log_decay, states, all_sums, d_states, d_sums, divisors, d_divisors)
    _launch_kernel(
        _gradients_qk,
        q,
        v,
        (*tensors, d_q, d_k, d_decay),
        (q, k, v, d_out, log_decay, d_q, d_k),
        scale,
    )
    tensors = (q, k, d_out, log_decay, d_states, divisors, d_v)
    _launch_kernel(_gradients_v, q, v, tensors, (q, k, d_out, log_decay, d_v), scale)
    d_decay = _floats(q, 0) if d_decay is None else d_decay.sum(2)
    d_first_sums = _floats(q, 0) if d_first_sums is None else d_first_sums
    return d_q, d_k, d_v, d_decay, d_first, d_first_sums


def _carried(
    a: Tensor,
    b: Tensor,
    log_decay: Tensor | None,
    first: Tensor | None,
    first_sums: Tensor | None,
    divisors: Tensor | None,
    d_divisors: Tensor | None,
    scale: float,
    normalize: bool,
    reverse: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """What `_carry` writes: the states and sums at the chunks' borders, and the last of each.

    Examples:
        >>> device = "cuda" if torch.cuda.is_available() else "cpu"
        >>> x = torch.ones(1, 1, 3, 1, device=device)
        >>> states, _, last, _ = _carried(x, x, None, None, None, None, None, 1.0, False)
        >>> states.flatten().tolist(), last.item()
        ([0.0], 3.0)
    """
    batch, heads, n, size_d, size_e = *a.shape, b.shape[3]
    chunks = triton.cdiv(n, _blocks(_carry, a, b)["CHUNK"])
    states = _floats(a, batch, heads, chunks, size_d, size_e)
    last = _floats(a, batch, heads, size_d, size_e)
    sums, last_sums = None, None
    if normalize:
        sums, last_sums = _floats(a, batch, heads, chunks, size_d), _floats(a, batch, heads, size_d)
    first, first_sums = (x if x is None else x.contiguous() for x in (first, first_sums))
    given = (a, b, log_decay, first, first_sums, divisors, d_divisors)
    tensors = (*given, states, sums, last, last_sums)
    _launch_kernel(_carry, a, b, tensors, (a, b, log_decay), scale, REVERSED=reverse)
    return states, sums, last, last_sums


def _launch_kernel(
    kernel: triton.KernelInterface,
    q: Tensor,
    v: Tensor,
    tensors: tuple[Tensor | None, ...],
    strides: tuple[Tensor | None, ...],
    scale: float,
    **constants: bool,
) -> None:
    (batch, heads, n, size_d), size_e = q.shape, v.shape[3]
    blocks = _blocks(kernel, q, v)
    chunks, across_d, across_e = (
        triton.cdiv(size, block)
        for size, block in zip((n, size_d, size_e), blocks.values(), strict=True)
    )
    programs = (
        {
            _carry: across_d * across_e,
            _outputs: chunks * across_e,
            _divisor_gradients: chunks,
            _gradients_qk: chunks * across_d,
            _gradients_v: chunks * across_e,
        }[kernel]
        * batch
        * heads
    )
    if programs == 0:
        return
    # The doublings of batch · heads and of the length: what is fastest depends on both.
    bucket = 64 * (batch * heads).bit_length() + n.bit_length()
    with torch.cuda.device_of(q):
        _tuned(kernel, q.device)[(programs,)](
            *tensors,
            *(None if x is None else x.stride() for x in strides),
            heads,
            n,
            scale,
            bucket,
            SIZE_D=size_d,
            SIZE_E=size_e,
            **constants,
            **blocks,
        )


def _blocks(kernel: triton.KernelInterface, q: Tensor, v: Tensor) -> dict[str, int]:
    """The rows of a chunk, and the columns of a tile of Q and K and of a tile of V.

    Examples:
        >>> _blocks(_carry, torch.zeros(1, 1, 1, 100), torch.zeros(1, 1, 1, 3))["BLOCK_E"]
        16
    """
    chunk = INTERPRETED_CHUNK if INTERPRETER else CHUNKS[q.dtype]
    # Three tiles for the gradients of q and k at a time: whole ones would spill.
    widest = chunk // 2 if kernel is _gradients_qk else chunk
    columns = (
        max(16, min(most, triton.next_power_of_2(x.shape[3])))
        for most, x in ((widest, q), (chunk, v))
    )
    return dict(zip(("CHUNK", "BLOCK_D", "BLOCK_E"), (chunk, *columns), strict=True))


@cache
def _tuned(kernel: triton.KernelInterface, device: torch.device) -> triton.KernelInterface:
    """The kernel, which tries its launches at the first call of each pair of head sizes and
    doubling of batch · heads and of the length, and stays with the fastest.
    """
    if INTERPRETER:
        tried = (_Launch(1, 1),)
    else:
        major, minor = torch.cuda.get_device_capability(device)
        tried = _launches_to_try(kernel.__name__, 10 * major + minor)
    configurations = [
        triton.Config({}, num_warps=each.warps, num_stages=each.stages) for each in tried
    ]
    key = [x for x in ("bucket", "SIZE_D", "SIZE_E", "REVERSED") if x in kernel.arg_names]
    return triton.autotune(configurations, key=key)(kernel)


def _launches_to_try(kernel: str, capability: int) -> tuple[_Launch, ...]:
    """What the autotuner may choose from for a kernel.

    Raises:
        RuntimeError: The GPU's compute capability is below 80: it has no products of bfloat16.
    """
    if capability < 80:
        raise RuntimeError(
            "fused_linear_attention needs a GPU of compute capability 8.0 or later (A100, RTX 30), "
            f"but this one has {capability // 10}.{capability % 10}"
        )
    return tuple(each for each in TRIED[kernel] if each.since <= capability)


def _floats(x: Tensor, *shape: int) -> Tensor:
    return x.new_empty(shape, dtype=torch.float32)
