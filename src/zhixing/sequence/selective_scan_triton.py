"""The selective scan's kernels in Triton: outputs and last state, and the gradients of all inputs.

Source: Gu and Dao, Mamba, arXiv 2312.00752, section 3.3 and appendix D. Symbols: h the state of a
channel, N numbers; Δ the size of a step, at which h decays by exp(Δ A) and Δ B u is added to it.

A program has a block of channels of one batch entry, and goes through the sequence chunk by chunk,
forward or backward. A chunk is a tile (steps, channels, N), which a parallel scan turns into the
states after each step. The backward pass first runs the forward one again, for the states at the
chunks' beginnings, and then computes those inside. No two programs write to one place: what several
blocks of channels add to the gradients of B and C is added up afterwards, so there are no atomic
sums.
"""

from functools import cache

import torch
from torch import Tensor

try:
    import triton
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "fused_selective_scan needs Triton, available for Linux: pip install triton",
        name="triton",
    ) from None
else:
    tl = triton.language

INTERPRETER: tl.constexpr = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit(do_not_specialize=["channels", "groups", "n", "bucket"])
def _forward(
    u,
    dt,
    a,
    b,
    c,
    d,
    z,
    dt_bias,
    first,
    y,
    states,
    last,
    u_strides,
    dt_strides,
    b_strides,
    c_strides,
    z_strides,
    y_strides,
    channels,
    groups,
    n,
    bucket,
    SOFTPLUS: tl.constexpr,
    SIZE: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """A block's last state; its outputs, and its states at the chunks' beginnings, where wanted."""
    _, channel, exists, group, batch = _place(channels, groups, BLOCK_D)
    places, inside = _in_state(channel, exists, SIZE, BLOCK_N)
    A = tl.load(a + places, inside, 0.0)
    skip = _load_channels(d, channel, exists)
    bias = _load_channels(dt_bias, channel, exists)
    h = tl.zeros([BLOCK_D, BLOCK_N], tl.float32)
    if first is not None:
        h = tl.load(first + batch * channels * SIZE + places, inside, 0.0)

    step = tl.arange(0, CHUNK)
    chunks = tl.cdiv(n, CHUNK)
    for chunk in tl.range(0, chunks):
        if states is not None:
            tl.store(states + (batch * chunks + chunk) * channels * SIZE + places, h, inside)
        rows = chunk * CHUNK + step
        x = _load_rows(u, u_strides, batch, rows, n, channel, exists)
        t = _load_rows(dt, dt_strides, batch, rows, n, channel, exists)
        B = _load_group(b, b_strides, batch, group, rows, n, SIZE, BLOCK_N)
        delta = _step_sizes(t, bias, rows, n, SOFTPLUS)
        decay = tl.exp(delta[:, :, None] * A)
        added = (delta * x)[:, :, None] * B[:, None, :]
        added += tl.where((step == 0)[:, None, None], decay * h, 0.0)
        all_h = _scan(decay, added)
        h = _row(all_h, CHUNK - 1)
        if y is not None:
            C = _load_group(c, c_strides, batch, group, rows, n, SIZE, BLOCK_N)
            out = tl.sum(all_h * C[:, None, :], 2) + skip * x
            if z is not None:
                gate = _load_rows(z, z_strides, batch, rows, n, channel, exists)
                out *= gate * _sigmoid(gate)
            _store_rows(y, y_strides, batch, rows, n, channel, exists, out)
    tl.store(last + batch * channels * SIZE + places, h, inside)


@triton.jit(do_not_specialize=["channels", "groups", "n", "bucket"])
def _backward(
    d_y,
    d_last,
    u,
    dt,
    a,
    b,
    c,
    d,
    z,
    dt_bias,
    states,
    d_u,
    d_dt,
    d_a,
    d_b,
    d_c,
    d_d,
    d_z,
    d_bias,
    d_first,
    d_y_strides,
    u_strides,
    dt_strides,
    b_strides,
    c_strides,
    z_strides,
    d_u_strides,
    d_dt_strides,
    d_z_strides,
    channels,
    groups,
    n,
    bucket,
    SOFTPLUS: tl.constexpr,
    SIZE: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """All gradients of a block of channels; for A, B, C, d and the bias, what it adds to them."""
    block, channel, exists, group, batch = _place(channels, groups, BLOCK_D)
    places, inside = _in_state(channel, exists, SIZE, BLOCK_N)
    A = tl.load(a + places, inside, 0.0)
    skip = _load_channels(d, channel, exists)
    bias = _load_channels(dt_bias, channel, exists)
    # Of the state at a chunk's end, through all that comes later.
    d_h = tl.load(d_last + batch * channels * SIZE + places, inside, 0.0)
    A_sum = tl.zeros([BLOCK_D, BLOCK_N], tl.float32)
    skip_sum = tl.zeros([BLOCK_D], tl.float32)
    bias_sum = tl.zeros([BLOCK_D], tl.float32)

    step = tl.arange(0, CHUNK)
    starts = (step == 0)[:, None, None]
    ends = (step == CHUNK - 1)[:, None, None]
    chunks = tl.cdiv(n, CHUNK)
    for later in tl.range(0, chunks):
        chunk = chunks - 1 - later
        rows = chunk * CHUNK + step
        # The states before each step: those after the steps one row earlier.
        x = _load_rows(u, u_strides, batch, rows - 1, n, channel, exists)
        t = _load_rows(dt, dt_strides, batch, rows - 1, n, channel, exists)
        B = _load_group(b, b_strides, batch, group, rows - 1, n, SIZE, BLOCK_N)
        delta = _step_sizes(t, bias, rows - 1, n, SOFTPLUS)
        h = tl.load(states + (batch * chunks + chunk) * channels * SIZE + places, inside, 0.0)
        decay = tl.exp(delta[:, :, None] * A)
        added = tl.where(starts, h, (delta * x)[:, :, None] * B[:, None, :])
        before = _scan(decay, added)

        x = _load_rows(u, u_strides, batch, rows, n, channel, exists)
        t = _load_rows(dt, dt_strides, batch, rows, n, channel, exists)
        B = _load_group(b, b_strides, batch, group, rows, n, SIZE, BLOCK_N)
        C = _load_group(c, c_strides, batch, group, rows, n, SIZE, BLOCK_N)
        g = _load_rows(d_y, d_y_strides, batch, rows, n, channel, exists)
        delta = _step_sizes(t, bias, rows, n, SOFTPLUS)
        slope = _slopes(t, bias, rows, n, SOFTPLUS)
        decay = tl.exp(delta[:, :, None] * A)
        decayed = decay * before
        all_h = decayed + (delta * x)[:, :, None] * B[:, None, :]
        if z is not None:
            gate = _load_rows(z, z_strides, batch, rows, n, channel, exists)
            open = _sigmoid(gate)
            out = tl.sum(all_h * C[:, None, :], 2) + skip * x
            d_gate = g * out * open * (1 + gate * (1 - open))
            _store_rows(d_z, d_z_strides, batch, rows, n, channel, exists, d_gate)
            g *= gate * open
        of_c = tl.sum(all_h * g[:, :, None], 1)

        # The gradients of the states after each step decay as the step one row later says.
        t = _load_rows(dt, dt_strides, batch, rows + 1, n, channel, exists)
        next_delta = _step_sizes(t, bias, rows + 1, n, SOFTPLUS)
        next_decay = tl.exp(next_delta[:, :, None] * A)
        added = g[:, :, None] * C[:, None, :] + tl.where(ends, d_h, 0.0)
        all_d_h = _scan(next_decay, added, True)
        d_h = _row(all_d_h * decay, 0)

        of_b = tl.sum(all_d_h * (delta * x)[:, :, None], 1)
        of_product = tl.sum(all_d_h * B[:, None, :], 2)
        of_exponent = all_d_h * decayed
        A_sum += tl.sum(of_exponent * delta[:, :, None], 0)
        of_delta = (tl.sum(of_exponent * A, 2) + of_product * x) * slope
        bias_sum += tl.sum(of_delta, 0)
        skip_sum += tl.sum(g * x, 0)
        of_u = g * skip + of_product * delta
        _store_rows(d_u, d_u_strides, batch, rows, n, channel, exists, of_u)
        _store_rows(d_dt, d_dt_strides, batch, rows, n, channel, exists, of_delta)
        _store_group(d_b, block, batch, group, groups, rows, n, channels, of_b, SIZE, BLOCK_D)
        _store_group(d_c, block, batch, group, groups, rows, n, channels, of_c, SIZE, BLOCK_D)

    tl.store(d_first + batch * channels * SIZE + places, d_h, inside)
    tl.store(d_a + batch * channels * SIZE + places, A_sum, inside)
    if d is not None:
        tl.store(d_d + batch * channels + channel, skip_sum, exists)
    if dt_bias is not None:
        tl.store(d_bias + batch * channels + channel, bias_sum, exists)


# Which channels are whose.


@triton.jit
def _place(channels, groups, BLOCK_D: tl.constexpr):
    """This program's block in its group, channels, which of these exist, group and batch entry."""
    of_group = channels // groups
    blocks = tl.cdiv(of_group, BLOCK_D)
    program = tl.program_id(0)
    group = program // blocks
    block = program % blocks
    in_group = block * BLOCK_D + tl.arange(0, BLOCK_D)
    channel = (group % groups * of_group + in_group).to(tl.int64)
    batch = (group // groups).to(tl.int64)
    return block, channel, in_group < of_group, group % groups, batch


@triton.jit
def _in_state(channel, exists, SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    """Where these channels' numbers lie in a tensor (D, N), and which of them exist."""
    state = tl.arange(0, BLOCK_N)[None, :]
    return channel[:, None] * SIZE + state, exists[:, None] & (state < SIZE)


# Steps.


@triton.jit
def _combine(decay, added, next_decay, next_added):
    """Two stretches as one: h → decay h + added, then the next. Associative, not commutative."""
    return decay * next_decay, next_decay * added + next_added


@triton.jit
def _scan(decay, added, REVERSE: tl.constexpr = False):
    """The states after each step of a chunk, from what each adds; reversed, from the end."""
    return tl.associative_scan((decay, added), 0, _combine, REVERSE)[1]


@triton.jit
def _step_sizes(dt, bias, rows, n, SOFTPLUS: tl.constexpr):
    """Δ; 0 beyond the end, so that the state holds."""
    delta = _softplus(dt + bias) if SOFTPLUS else dt + bias
    return tl.where(((rows >= 0) & (rows < n))[:, None], delta, 0.0)


@triton.jit
def _slopes(dt, bias, rows, n, SOFTPLUS: tl.constexpr):
    """The derivative of Δ by dt; 0 beyond the end."""
    slope = _sigmoid(dt + bias) if SOFTPLUS else tl.full(dt.shape, 1.0, tl.float32)
    return tl.where((rows < n)[:, None], slope, 0.0)


@triton.jit
def _softplus(x):
    """log(1 + e^x) = max(x, 0) + log(1 + s), where s = e^{-|x|}.

    1 + s is rounded; the quotient of s and what was really added makes up for it.
    """
    s = tl.exp(-tl.abs(x))
    rounded = 1 + s
    really = rounded - 1
    logarithm = tl.log(rounded) * (s / tl.where(really == 0, 1.0, really))
    return tl.maximum(x, 0.0) + tl.where(really == 0, s, logarithm)


@triton.jit
def _sigmoid(x):
    s = tl.exp(-tl.abs(x))
    return tl.where(x < 0, s, 1.0) / (1 + s)


@triton.jit
def _row(x, ROW: tl.constexpr):
    row = tl.arange(0, x.shape[0])[:, None, None]
    return tl.sum(tl.where(row == ROW, x, 0.0), 0)


# Memory.


@triton.jit
def _load_channels(pointer, channel, exists):
    x = tl.zeros(channel.shape, tl.float32)
    if pointer is not None:
        x = tl.load(pointer + channel, exists, 0.0)
    return x


@triton.jit
def _load_rows(pointer, strides, batch, rows, n, channel, exists):
    pointer += batch * strides[0]
    places = rows[:, None].to(tl.int64) * strides[1] + channel[None, :] * strides[2]
    inside = ((rows >= 0) & (rows < n))[:, None] & exists[None, :]
    return tl.load(pointer + places, inside, 0.0).to(tl.float32)


@triton.jit
def _load_group(pointer, strides, batch, group, rows, n, SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    state = tl.arange(0, BLOCK_N)
    pointer += batch * strides[0] + group.to(tl.int64) * strides[2]
    places = rows[:, None].to(tl.int64) * strides[1] + state[None, :] * strides[3]
    inside = ((rows >= 0) & (rows < n))[:, None] & (state < SIZE)[None, :]
    return tl.load(pointer + places, inside, 0.0).to(tl.float32)


@triton.jit
def _store_rows(pointer, strides, batch, rows, n, channel, exists, x):
    pointer += batch * strides[0]
    places = rows[:, None].to(tl.int64) * strides[1] + channel[None, :] * strides[2]
    x = _rounded(x, pointer.dtype.element_ty)
    tl.store(pointer + places, x, (rows < n)[:, None] & exists[None, :])


@triton.jit
def _store_group(
    pointer,
    block,
    batch,
    group,
    groups,
    rows,
    n,
    channels,
    x,
    SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Into a tensor (B, L, G, blocks of channels, N)."""
    state = tl.arange(0, x.shape[1])
    blocks = tl.cdiv(channels // groups, BLOCK_D)
    row = ((batch * n + rows) * groups + group) * blocks + block
    places = row[:, None] * SIZE + state[None, :]
    tl.store(pointer + places, x, (rows < n)[:, None] & (state < SIZE)[None, :])


@triton.jit
def _rounded(x, dtype: tl.constexpr):
    """x in a type, to the nearest, ties to even. The interpreter cuts off what bfloat16 lacks."""
    if INTERPRETER and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = bits.to(tl.float32, bitcast=True)
    return x.to(dtype)


# Launches.


# Steps of a chunk: few, since a thread has all of them, of each of its numbers, in registers.
CHUNK = 8
# {kernel: warps worth trying}
TRIED = {"_forward": (4, 8), "_backward": (4, 8)}


def _launch_forward(
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor | None,
    softplus: bool,
) -> tuple[Tensor, Tensor]:
    """The outputs and the last state; b and c are (B, L, G, N).

    Examples:
        Nothing decays where A is 0. Set TRITON_INTERPRET=1 where no GPU is.

        >>> device = "cuda" if torch.cuda.is_available() else "cpu"
        >>> u = torch.arange(4.0, device=device).view(1, 4, 1)
        >>> one = torch.ones(1, 4, 1, 1, device=device)
        >>> a, none = torch.zeros(1, 1, device=device), (None,) * 4
        >>> y, last = _launch_forward(u, one[..., 0], a, one, one, *none, False)
        >>> y.flatten().tolist(), last.item()
        ([0.0, 1.0, 3.0, 6.0], 6.0)
    """
    y = torch.empty_like(u)
    last = _floats(u, u.shape[0], *a.shape)
    _launch_scan(u, dt, a, b, c, d, z, dt_bias, state, y, None, last, softplus)
    return y, last


def _launch_backward(
    d_y: Tensor,
    d_last: Tensor,
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor | None,
    softplus: bool,
) -> tuple[Tensor, ...]:
    """The gradients of u, dt, a, b, c, d, z, dt_bias and state.

    Those of d, z and dt_bias are empty if these are None.

    Examples:
        The first of three inputs is added to all outputs. Set TRITON_INTERPRET=1 where no GPU is.

        >>> device = "cuda" if torch.cuda.is_available() else "cpu"
        >>> one = torch.ones(1, 3, 1, 1, device=device)
        >>> u, a = one[..., 0], torch.zeros(1, 1, device=device)
        >>> given = (u, torch.zeros(1, 1, 1, device=device), u, u, a, one, one, *(None,) * 4, False)
        >>> _launch_backward(*given)[0].flatten().tolist()
        [3.0, 2.0, 1.0]
    """
    batch, n, channels, groups, size = *u.shape, *b.shape[2:]
    blocks = _blocks(size)
    chunks = triton.cdiv(n, blocks["CHUNK"])
    of_group = triton.cdiv(channels // groups, blocks["BLOCK_D"])
    states = _floats(u, batch, chunks, channels, size)
    last = torch.empty_like(d_last)
    _launch_scan(u, dt, a, b, c, d, z, dt_bias, state, None, states, last, softplus)

    d_u, d_dt = torch.empty_like(u), torch.empty_like(dt)
    d_z = _floats(u, 0) if z is None else torch.empty_like(z)
    d_a = _floats(u, batch, channels, size)
    d_b, d_c = (_floats(u, batch, n, groups, of_group, size) for _ in range(2))
    d_d, d_bias = (_floats(u, batch, 0 if x is None else channels) for x in (d, dt_bias))
    d_first = _floats(u, batch, channels, size)
    a, d, dt_bias, d_last = _contiguous(a, d, dt_bias, d_last)
    gradients = (d_u, d_dt, d_a, d_b, d_c, d_d, d_z, d_bias, d_first)
    tensors = (d_y, d_last, u, dt, a, b, c, d, z, dt_bias, states, *gradients)
    _launch_kernel(_backward, tensors, (d_y, u, dt, b, c, z, d_u, d_dt, d_z), u, b, softplus)
    d_b, d_c = (d_x.sum(3).to(x.dtype) for d_x, x in ((d_b, b), (d_c, c)))
    return d_u, d_dt, d_a.sum(0), d_b, d_c, d_d.sum(0), d_z, d_bias.sum(0), d_first


def _launch_scan(
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor | None,
    y: Tensor | None,
    states: Tensor | None,
    last: Tensor,
    softplus: bool,
) -> None:
    """Write the last state, and, unless they are None, the outputs or the states of the chunks."""
    a, d, dt_bias, state = _contiguous(a, d, dt_bias, state)
    tensors = (u, dt, a, b, c, d, z, dt_bias, state, y, states, last)
    _launch_kernel(_forward, tensors, (u, dt, b, c, z, y), u, b, softplus)


def _launch_kernel(
    kernel: triton.KernelInterface,
    tensors: tuple[Tensor | None, ...],
    strides: tuple[Tensor | None, ...],
    u: Tensor,
    b: Tensor,
    softplus: bool,
) -> None:
    batch, n, channels, groups, size = *u.shape, *b.shape[2:]
    blocks = _blocks(size)
    programs = batch * groups * triton.cdiv(channels // groups, blocks["BLOCK_D"])
    if programs == 0:
        return
    # The doublings of the programs and of the length: what is fastest depends on both.
    bucket = 64 * programs.bit_length() + n.bit_length()
    with torch.cuda.device_of(u):
        _tuned(kernel, u.device)[(programs,)](
            *tensors,
            *(None if x is None else x.stride() for x in strides),
            channels,
            groups,
            n,
            bucket,
            SOFTPLUS=softplus,
            SIZE=size,
            **blocks,
        )


def _blocks(size: int) -> dict[str, int]:
    """The steps of a chunk, the channels of a program, and N, up to a power of 2.

    Examples:
        >>> _blocks(17)["BLOCK_N"]
        32
    """
    padded = triton.next_power_of_2(size)
    chunk, channels = (4, 2) if INTERPRETER else (CHUNK, min(64, 256 // padded))
    return {"CHUNK": chunk, "BLOCK_D": channels, "BLOCK_N": padded}


@cache
def _tuned(kernel: triton.KernelInterface, device: torch.device) -> triton.KernelInterface:
    """The kernel, which tries numbers of warps at the first call of each N and doubling of its
    programs and of the length, and stays with the fastest.
    """
    if INTERPRETER:
        tried = (1,)
    else:
        major, minor = torch.cuda.get_device_capability(device)
        tried = _warps_to_try(kernel.__name__, 10 * major + minor)
    configurations = [triton.Config({}, num_warps=warps) for warps in tried]
    return triton.autotune(configurations, key=["bucket", "SIZE", "SOFTPLUS"])(kernel)


def _warps_to_try(kernel: str, capability: int) -> tuple[int, ...]:
    """What the autotuner may choose from for a kernel.

    Raises:
        RuntimeError: The GPU's compute capability is below 80, which Triton does not support.
    """
    if capability < 80:
        raise RuntimeError(
            "fused_selective_scan needs a GPU of compute capability 8.0 or later (A100, RTX 30), "
            f"but this one has {capability // 10}.{capability % 10}"
        )
    return TRIED[kernel]


def _contiguous(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if x is None else x.contiguous() for x in tensors)


def _floats(x: Tensor, *shape: int) -> Tensor:
    return x.new_empty(shape, dtype=torch.float32)
