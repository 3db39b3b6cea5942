"""fused_linear_attention against its recurrence in float64: on a GPU, or in Triton's interpreter without one."""

import warnings

import pytest
import torch
from torch.autograd import forward_ad
from torch.testing import assert_close

from zhixing.attention import fused_linear_attention as module
from zhixing.attention.fused_linear_attention import fused_linear_attention
from zhixing.attention.linear_attention_triton import (
    CHUNKS,
    INTERPRETED_CHUNK,
    TRIED,
    _blocks,
    _carry,
    _gradients_qk,
    _launch_kernel,
    _launches_to_try,
    _tuned,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
C = CHUNKS[torch.float32] if DEVICE == "cuda" else INTERPRETED_CHUNK
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
NORMALIZE = pytest.mark.parametrize("normalize", [False, True], ids=["plain", "normalized"])
INPUTS = "q", "k", "v", "log_decay", "s", "z"


def inputs(
    n=2 * C + 5, d=16, e=16, *, b=1, h=1, decay=True, start=True, normalize=False, dtype=torch.float32, seed=0
) -> dict[str, torch.Tensor]:
    """Those of INPUTS that are wanted."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    x = {"q": normal(b, h, n, d), "k": normal(b, h, n, d), "v": normal(b, h, n, e)}
    if normalize:  # features, so that the divisors stay away from 0
        x |= {"q": x["q"].abs() + 0.1, "k": x["k"].abs() + 0.1}
    x = {name: of.to(dtype) for name, of in x.items()}
    if decay:
        x["log_decay"] = -0.2 * normal(b, h, n).abs()
    if start:
        x["s"] = normal(b, h, d, e)
    if start and normalize:
        x["z"] = normal(b, h, d).abs()
    return {name: of.to(DEVICE) for name, of in x.items()}


def fused(x, *, scale=None, normalize=False, function=fused_linear_attention) -> tuple[torch.Tensor, ...]:
    """The outputs, the last S, and the last z if there is one."""
    state = (x["s"], x["z"]) if "z" in x else x.get("s")
    settings = {"log_decay": x.get("log_decay"), "state": state, "scale": scale, "normalize": normalize}
    out, last = function(x["q"], x["k"], x["v"], **settings)
    return (out, *last) if normalize else (out, last)


def defined(x, *, scale=None, normalize=False) -> tuple[torch.Tensor, ...]:
    """The same in float64, token by token: S ← e^g S + k vᵀ, o = scale Sᵀ q, divided by scale q · z + 1e-10."""
    x = {name: of.double() for name, of in x.items()}
    q, k, v = x["q"], x["k"], x["v"]
    b, h, n, d = q.shape
    scale = d**-0.5 if scale is None else scale
    s, z = x.get("s", q.new_zeros(b, h, d, v.shape[3])), x.get("z", q.new_zeros(b, h, d))
    rows = []
    for i in range(n):
        decay = x["log_decay"][:, :, i].exp() if "log_decay" in x else q.new_ones(b, h)
        s = decay[..., None, None] * s + k[:, :, i, :, None] * v[:, :, i, None, :]
        z = decay[..., None] * z + k[:, :, i]
        row = scale * torch.einsum("bhd,bhde->bhe", q[:, :, i], s)
        rows.append(row / (scale * (q[:, :, i] * z).sum(-1, keepdim=True) + 1e-10) if normalize else row)
    out = torch.stack(rows, 2) if rows else v.clone()
    return (out, s, z) if normalize else (out, s)


def results(function, x, **settings) -> dict[str, torch.Tensor]:
    """What the function returns, and the gradients of all inputs through all of it."""
    x = {name: of.detach().requires_grad_() for name, of in x.items()}
    outputs = function(x, **settings)
    random = torch.Generator().manual_seed(1)
    along = [torch.randn(y.shape, generator=random).to(y) for y in outputs]
    reached = [pair for pair in zip(outputs, along, strict=True) if pair[0].requires_grad]
    of, along = zip(*reached, strict=True)
    gradients = torch.autograd.grad(of, [*x.values()], along, allow_unused=True, materialize_grads=True)
    names = ("out", "last s", "last z")[: len(outputs)]
    returned = dict(zip(names, (y.detach() for y in outputs), strict=True))
    return returned | {f"gradient of {name}": of for name, of in zip(x, gradients, strict=True)}


def assert_results_close(ours, expected) -> None:
    assert ours.keys() == expected.keys()
    for name, mine in ours.items():
        assert_close(mine, expected[name].to(mine.dtype), msg=lambda said, name=name: f"{name}: {said}")


def check(x, **settings) -> None:
    assert_results_close(results(fused, x, **settings), results(defined, x, **settings))


@pytest.mark.parametrize("n", [1, C - 1, C, C + 1, 2 * C, 100], ids=str)
def test_lengths(n):
    check(inputs(n))


@pytest.mark.parametrize("start", [False, True], ids=["from nothing", "from a state"])
@pytest.mark.parametrize("decay", [False, True], ids=["kept", "decaying"])
@NORMALIZE
def test_decay_state_and_normalization(decay, start, normalize):
    check(inputs(C + 5, decay=decay, start=start, normalize=normalize), normalize=normalize)


@pytest.mark.parametrize(("d", "e"), [(1, 1), (3, 17), (33, 16), (16, 50), (64, 48), (256, 1), (16, 256)], ids=str)
def test_head_sizes(d, e):
    normalize = d < 50
    check(inputs(C + 2 if d < 50 else 5, d, e, normalize=normalize), normalize=normalize)


def test_batch_and_heads():
    check(inputs(3, b=2, h=3, normalize=True), normalize=True)


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5])
def test_scale(scale):
    check(inputs(C + 2), scale=scale)


def test_scale_cancels_where_normalized():
    check(inputs(C + 2, normalize=True), scale=8.0, normalize=True)


def test_is_not_normalized_by_default():
    x = inputs(3, start=False, decay=False)
    out, _ = fused_linear_attention(x["q"], x["k"], x["v"])
    assert_close(out.double(), defined(x)[0], rtol=1e-4, atol=1e-4)


def test_row_without_weight_is_zero_where_normalized():
    x = inputs(3, decay=False, start=False, normalize=True)
    x["q"] = torch.zeros_like(x["q"])
    assert (fused(x, normalize=True)[0] == 0).all()


# Decay.


def test_no_decay_is_a_decay_of_one():
    x = inputs(C + 2, decay=False)
    ours, ones = (fused(each) for each in (x, x | {"log_decay": torch.zeros_like(x["q"][..., 0])}))
    assert all(torch.equal(a, b) for a, b in zip(ours, ones, strict=True))


def with_decays(of_rows: dict[int, float], n=2 * C + 5, **settings) -> dict[str, torch.Tensor]:
    x = inputs(n, **settings)
    for row, value in of_rows.items():
        x["log_decay"][:, :, row] = value
    return x


RESETS = {
    "first row": [0],
    "last row of a chunk": [C - 1],
    "first row of a chunk": [C],
    "last row": [2 * C + 4],
    "two in a chunk": [3, 7],
    "every row": range(2 * C + 5),
}


@pytest.mark.parametrize("rows", RESETS.values(), ids=RESETS)
def test_decay_of_zero_forgets_what_came_before(rows):
    x = with_decays(dict.fromkeys(rows, -torch.inf), normalize=True)
    check(x, normalize=True)
    start = max(rows)
    later = {name: of[:, :, start:] for name, of in x.items() if name not in "sz"} | {"log_decay": None}
    later["log_decay"] = x["log_decay"][:, :, start:].clone()
    later["log_decay"][:, :, 0] = 0.0
    for mine, other in zip(fused(x, normalize=True), fused(later, normalize=True), strict=True):
        assert_close(mine[:, :, start:] if mine.ndim == 4 and mine.shape == x["v"].shape else mine, other)


def test_gradient_of_a_decay_of_zero_is_zero():
    x = with_decays({3: -torch.inf, 7: -torch.inf, C + 1: -200.0}, seed=1)
    gradient = results(fused, x)["gradient of log_decay"]
    assert (gradient[:, :, [3, 7, C + 1]] == 0).all()
    assert (gradient[:, :, 4:7] != 0).all()


@pytest.mark.parametrize("value", [-50.0, -103.0, -105.0, -1e4, torch.finfo(torch.float32).min])
def test_strong_decay(value):
    check(with_decays({2: value, 5: value, C + 3: value}))


def test_weak_decays_between_strong_ones_keep_their_digits():
    """A difference of float32 sums near -50 C would be wrong in the fifth digit."""
    check(with_decays(dict.fromkeys(range(0, 2 * C + 5, 2), -50.0)))


def test_weights_are_masked_before_the_exponential():
    """Above the diagonal they would be e^100 and more, and infinity times 0 is not a number."""
    ours = results(fused, with_decays(dict.fromkeys(range(2 * C + 5), -100.0)))
    assert all(x.isfinite().all() for x in ours.values())


def test_one_decay_for_each_head_gets_one_gradient():
    x = inputs(C + 3, h=2)
    of_heads = x["log_decay"][0, :, 0].clone()

    def shared(function, of_heads):
        return function(x | {"log_decay": of_heads[None, :, None].expand(1, 2, C + 3)})[0]

    ours, expected = (of_heads.clone().requires_grad_(), of_heads.double().requires_grad_())
    shared(fused, ours).square().sum().backward()
    shared(defined, expected).square().sum().backward()
    assert_close(ours.grad, expected.grad.float())


# States.


@pytest.mark.parametrize("split", [1, C - 3, C])
@NORMALIZE
def test_two_calls_equal_one(split, normalize):
    def in_two(x):
        parts = [
            {name: of[:, :, rows] for name, of in x.items() if name not in "sz"}
            for rows in (slice(split), slice(split, None))
        ]
        first = fused(parts[0] | {name: x[name] for name in "sz" if name in x}, normalize=normalize)
        second = fused(parts[1] | dict(zip("sz", first[1:], strict=False)), normalize=normalize)
        return torch.cat([first[0], second[0]], 2), *second[1:]

    x = inputs(C + 5, normalize=normalize)
    assert_results_close(results(in_two, x), results(defined, x, normalize=normalize))


def test_steps_of_one_token_equal_the_chunks():
    x = inputs(C + 2, start=False, normalize=True)
    outputs, state = [], {}
    for i in range(C + 2):
        token = {name: of[:, :, i : i + 1] for name, of in x.items()}
        out, *last = fused(token | state, normalize=True)
        outputs.append(out)
        state = dict(zip("sz", last, strict=True))
    for mine, other in zip((torch.cat(outputs, 2), *state.values()), fused(x, normalize=True), strict=True):
        assert_close(mine, other)


@HALVES
def test_state_is_float32_and_may_exceed_float16(dtype):
    n = 4 * C
    ones = torch.ones(1, 1, n, 16, dtype=dtype, device=DEVICE)
    out, s, z = fused({"q": ones, "k": 64 * ones, "v": 64 * ones}, normalize=True)
    assert s.dtype == z.dtype == torch.float32
    assert s.min() == s.max() == 4096 * n
    assert (out == 64).all()


def test_state_of_16_bits_is_widened():
    x = inputs(5, normalize=True, dtype=torch.bfloat16)
    x |= {name: x[name].bfloat16() for name in ("s", "z", "log_decay")}
    ours = results(fused, x, normalize=True)
    for name in ("s", "z", "log_decay"):
        assert ours[f"gradient of {name}"].dtype == torch.bfloat16
        x[name] = x[name].float()
    for name, wide in results(fused, x, normalize=True).items():
        assert_close(ours[name], wide.to(ours[name].dtype), rtol=0, atol=0)


def test_gradient_through_the_state_alone():
    x = inputs(C + 2)
    ours, expected = (
        torch.autograd.grad(function(of)[1].square().sum(), [*of.values()], allow_unused=True)
        for function, of in (
            (fused, {name: y.clone().requires_grad_() for name, y in x.items()}),
            (defined, {name: y.double().requires_grad_() for name, y in x.items()}),
        )
    )
    assert (ours[0] == 0).all()
    for mine, other in zip(ours[1:], expected[1:], strict=True):
        assert_close(mine, other.float())


# Precision.


def eager(x, *, scale=None, normalize=False) -> tuple[torch.Tensor, ...]:
    """All weights at once, as one writes it, every step in the type of q."""
    q, k, v, g = x["q"], x["k"], x["v"], x["log_decay"]
    n = q.shape[2]
    c = g.cumsum(-1)
    rest = (c[..., :, None] - c[..., None, :]).masked_fill(
        ~torch.ones(n, n, dtype=torch.bool).to(g.device).tril(), -torch.inf
    )
    decay = rest.exp().to(q.dtype)
    q = (q.shape[3] ** -0.5 if scale is None else scale) * q
    s, from_start = x["s"].to(q.dtype), c.exp().to(q.dtype)[..., None]
    weights = decay * (q @ k.mT)
    out = weights @ v + from_start * (q @ s)
    last = from_start[:, :, -1:] * s + (decay[:, :, -1, :, None] * k).mT @ v
    if not normalize:
        return out, last
    z = x["z"].to(q.dtype)[..., None]
    last_z = from_start[:, :, -1] * z[..., 0] + (decay[:, :, -1, :, None] * k).sum(2)
    return out / (weights.sum(-1, keepdim=True) + from_start * (q @ z)), last, last_z


@pytest.mark.parametrize(("d", "e", "normalize"), [(16, 24, False), (24, 16, True)], ids=str)
@HALVES
def test_low_precision_error_is_at_most_twice_eagers(dtype, d, e, normalize):
    x = inputs(2 * C + 5, d, e, normalize=normalize, dtype=dtype)
    ours, eagers, truth = (results(function, x, normalize=normalize) for function in (fused, eager, defined))
    for name, exact in truth.items():
        assert ours[name].dtype == (torch.float32 if name[-1] in "szy" else dtype)
        error, allowed = ((y[name].double() - exact).abs().max().item() for y in (ours, eagers))
        assert error <= 2 * allowed, f"{name}: {error:.1e}, eager {allowed:.1e}"


@HALVES
def test_low_precision_output_of_one_token_is_rounded_once(dtype):
    x = inputs(1, decay=False, start=False, dtype=dtype)
    x["q"], x["k"] = (torch.zeros_like(x["q"]) for _ in range(2))
    x["q"][..., 0] = x["k"][..., 0] = 1.0
    assert torch.equal(fused(x, scale=1.0)[0], x["v"])


# Memory, and what torch wants of an operator.


def part(x):
    """A view into a wider tensor, as of one projection to queries, keys and values."""
    return x.transpose(1, 2).repeat(1, 1, 1, *(3,) * (x.ndim - 3))[..., : x.shape[-1]].transpose(1, 2)


LAYOUTS = {
    "heads inside": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "last axes swapped": lambda x: x.mT.contiguous().mT,
    "part of a fused projection": part,
    "every second row": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
    "one row for all": lambda x: x[:, :, :1].expand_as(x),
    "one head for all": lambda x: x[:, :1].expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layout_changes_nothing(layout):
    x = {name: layout(of) for name, of in inputs(C // 2, h=2, normalize=True).items()}
    ours = results(fused, x, normalize=True)
    of_contiguous = results(fused, {name: of.contiguous() for name, of in x.items()}, normalize=True)
    assert all(torch.equal(ours[name], other) for name, other in of_contiguous.items())


def test_output_is_laid_out_as_the_values_are():
    x = {name: LAYOUTS["heads inside"](of) for name, of in inputs(5, h=2).items()}
    assert fused(x)[0].stride() == x["v"].stride()


def test_gradient_of_a_sum_which_is_one_number_everywhere():
    x = inputs(5)
    ours = results(lambda x: (fused(x)[0].sum(),), x)
    expected = results(lambda x: (defined(x)[0].sum(),), x)
    assert_results_close(ours, expected)


def test_arguments_are_left_alone():
    x = inputs(5, normalize=True)
    copies = {name: of.clone() for name, of in x.items()}
    results(fused, x, normalize=True)
    assert all(torch.equal(of, copies[name]) for name, of in x.items())


EMPTY = {"batch": {"b": 0}, "tokens": {"n": 0}, "heads": {"h": 0}}


@pytest.mark.parametrize("start", [False, True], ids=["from nothing", "from a state"])
@pytest.mark.parametrize("sizes", EMPTY.values(), ids=EMPTY)
@NORMALIZE
def test_nothing_of(sizes, start, normalize):
    x = inputs(**sizes, start=start, normalize=normalize)
    check(x, normalize=normalize)


def test_state_of_no_tokens_is_a_copy():
    x = inputs(0)
    _, last = fused(x)
    assert torch.equal(last, x["s"])
    assert last.data_ptr() != x["s"].data_ptr()


def test_repeated_call_gives_the_same_bits():
    x = inputs(C + 3, 24, 24, normalize=True, dtype=torch.float16)
    first, second = (results(fused, x, normalize=True) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_keeps_only_inputs_and_rows_for_backward():
    x = {name: of.requires_grad_() for name, of in inputs(3 * C, 16, 24, normalize=True).items()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda y: kept.append(y.shape) or y, lambda y: y):
        fused(x, normalize=True)
    assert kept == [*(of.shape for of in x.values()), x["v"].shape, x["v"].shape[:3]]


# torch hides its own warning where it looks at `.grad`, but not from a filter that makes errors of warnings.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning:torch")
@pytest.mark.parametrize(
    ("decay", "start", "normalize"), [(True, True, True), (False, False, False), (True, False, True)], ids=str
)
def test_is_an_operator_as_torch_wants_it(decay, start, normalize):
    x = inputs(3, 5, 4, decay=decay, start=start, normalize=normalize)
    x = {name: LAYOUTS["heads inside"](of).detach().requires_grad_() for name, of in x.items()}
    given = (*(x.get(name) for name in INPUTS), 0.25, normalize)
    torch.library.opcheck(module._fused_forward, given)
    out, s, z, divisors = (y.detach() for y in module._fused_forward(*given))
    *tensors, _, _ = (y.detach() if isinstance(y, torch.Tensor) else y for y in given)
    along = torch.ones_like(out), torch.ones_like(s), torch.ones_like(z)
    torch.library.opcheck(module._fused_backward, (*along, *tensors, out, divisors, 0.25, normalize))


@pytest.mark.compiled
def test_compiled_equals_eager():
    torch._dynamo.reset()
    compiled = torch.compile(fused_linear_attention, backend="aot_eager", fullgraph=True)
    for n in (3, C + 1):
        x = inputs(n, normalize=True)
        eagers = results(fused, x, normalize=True)
        ours = results(lambda x: fused(x, normalize=True, function=compiled), x)
        assert all(torch.equal(ours[name], other) for name, other in eagers.items())


@pytest.mark.parametrize("which", INPUTS)
def test_forward_mode_is_refused(which):
    x = inputs(3, normalize=True)
    with pytest.raises(NotImplementedError, match=r"no forward mode .* call chunked_linear_attention"):
        torch.func.jvp(lambda of: fused(x | {which: of}, normalize=True)[0], (x[which],), (x[which],))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="no forward mode"):
        fused(x | {which: forward_ad.make_dual(x[which], x[which])}, normalize=True)


def test_gradients_of_functions_are_refused():
    x = inputs(3)
    with pytest.raises(RuntimeError):
        torch.func.grad(lambda q: fused(x | {"q": q})[0].sum())(x["q"])


def test_vmap_over_the_batch():
    x = inputs(3, b=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that it loops
        mapped = torch.func.vmap(lambda x: fused({name: of[None] for name, of in x.items()})[0][0])(x)
    assert torch.equal(mapped, fused(x)[0])


def test_second_derivative_is_refused():
    x = {name: of.requires_grad_() for name, of in inputs(3).items()}
    (slope,) = torch.autograd.grad(fused(x)[0].sum(), x["q"], create_graph=True)
    with pytest.raises(RuntimeError, match="fused_linear_attention_backward"):
        slope.sum().backward()


def test_divisors_have_no_gradient():
    x = {name: of.requires_grad_() for name, of in inputs(3, normalize=True).items()}
    operator = torch.ops.zhixing.fused_linear_attention
    assert not operator(*(x[name] for name in INPUTS), 1.0, True)[3].requires_grad
    _, _, z, divisors = operator(*(x[name] for name in INPUTS[:5]), None, 1.0, False)
    assert not z.requires_grad
    assert not divisors.requires_grad


def test_autocast_leaves_the_types_alone():
    x = inputs(5)
    with torch.autocast(DEVICE, torch.bfloat16):
        inside = results(fused, x)
    assert all(torch.equal(inside[name], other) for name, other in results(fused, x).items())


# Launches.


def test_launch_is_chosen_again_for_another_number_of_heads_or_size(monkeypatch):
    seen = []

    class Recorder:
        def __getitem__(self, grid):
            return lambda *arguments, **constants: seen.append((arguments[-1], *constants.values()))

    assert {"bucket", "SIZE_D", "SIZE_E", "REVERSED"} <= {*_tuned(_carry, torch.device(DEVICE)).keys}
    monkeypatch.setitem(_launch_kernel.__globals__, "_tuned", lambda *of: Recorder())
    for sizes in ({}, {"b": 3}, {"h": 8}, {"d": 17}, {"e": 17}, {"n": 40 * C}, {"n": 2 * C + 6}):
        fused(inputs(**sizes))
    carried = seen[::2]
    assert len({*carried[:6]}) == 6
    assert carried[6] == carried[0]


@pytest.mark.parametrize("kernel", TRIED)
def test_each_gpu_tries_the_launches_that_it_has_room_for(kernel):
    tried = {capability: _launches_to_try(kernel, capability) for capability in (80, 89, 90, 100)}
    assert tried[90] == tried[100] == TRIED[kernel]
    assert tried[80] == tried[89] == tuple(each for each in TRIED[kernel] if each.since == 80) != ()
    assert [each for each in TRIED[kernel] if each.warps & (each.warps - 1)] == []  # powers of 2, as Triton requires


@pytest.mark.parametrize("dtype", CHUNKS, ids=str)
def test_tiles_on_a_gpu_are_powers_of_2_from_16_columns_to_a_chunk(dtype, monkeypatch):
    monkeypatch.setitem(_blocks.__globals__, "INTERPRETER", False)
    chunk = 32 if dtype == torch.float32 else 64
    for size, columns in {1: 16, 16: 16, 17: 32, 33: 64, 256: 64}.items():
        q, v = torch.zeros(1, 1, 1, size, dtype=dtype), torch.zeros(1, 1, 1, 1, dtype=dtype)
        wanted = {"CHUNK": chunk, "BLOCK_D": min(columns, chunk), "BLOCK_E": 16}
        assert _blocks(_carry, q, v) == wanted
        assert _blocks(_carry, v, q) == {"CHUNK": chunk, "BLOCK_D": 16, "BLOCK_E": min(columns, chunk)}
        assert _blocks(_gradients_qk, q, v) == wanted | {"BLOCK_D": min(columns, chunk // 2)}


# Wrong input.


def refuse(message, change, error=ValueError, **settings):
    x = inputs(4, 16, 8, b=2, h=4, normalize=settings.get("normalize", False))
    with pytest.raises(error, match=message):
        fused(x | change(x), **settings)


@pytest.mark.wrong_input
@pytest.mark.parametrize("which", INPUTS[:3])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.half(), r"one floating-point type, but are .*torch.float16"),
        (lambda x: x.to("meta"), r"on one device, but are on .*meta"),
        (lambda x: x[0], r"but are .*\(4, 4, \d+\)"),
        (lambda x: x[:1], r"but are .*\(1, 4, 4, \d+\)"),
        (lambda x: x[:, :3], r"but are .*\(2, 3, 4, \d+\)"),
        (lambda x: x[:, :, :3], r"but (there )?are "),
    ],
    ids=["type", "device", "dimensions", "batch", "heads", "length"],
)
def test_refuses_a_mix(which, change, message):
    refuse(message, lambda x: {which: change(x[which])})


@pytest.mark.wrong_input
@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.complex64], ids=str)
def test_refuses_other_types(dtype):
    refuse(f"float.*{dtype}", lambda x: {name: x[name].to(dtype) for name in "qkv"})


@pytest.mark.wrong_input
@pytest.mark.parametrize("size", [0, 257])
def test_refuses_head_sizes_out_of_range(size):
    refuse("head size", lambda x: {name: x[name].new_zeros(2, 4, 4, size) for name in "qk"})
    refuse(f"between 1 and 256, but are 16 and {size}", lambda x: {"v": x["v"].new_zeros(2, 4, 4, size)})


@pytest.mark.wrong_input
@pytest.mark.parametrize("scale", [torch.inf, -torch.inf, torch.nan])
def test_refuses_a_scale_that_is_not_finite(scale):
    refuse(f"finite, but is {scale}", lambda x: {}, scale=scale)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g[..., None], r"of shape \(B, H, N\) = \(2, 4, 4\), but is .*\(2, 4, 4, 1\)"),
        (lambda g: g.transpose(1, 2)[:, :3], r"\(2, 3, 4\)"),
        (lambda g: g.long(), "torch.int64"),
        (lambda g: g.to("meta"), "but is on meta"),
    ],
    ids=["for each channel", "tokens before heads", "type", "device"],
)
def test_refuses_a_decay_that_does_not_fit(change, message):
    refuse(message, lambda x: {"log_decay": change(x["log_decay"])})


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.mT, r"of shape \(2, 4, 16, 8\) .*, but is .*\(2, 4, 8, 16\)"),
        (lambda s: s[:1], r"\(1, 4, 16, 8\)"),
        (lambda s: s.long(), "torch.int64"),
        (lambda s: s.to("meta"), "on meta"),
    ],
    ids=["transposed", "batch", "type", "device"],
)
def test_refuses_a_state_that_does_not_fit(change, message):
    refuse(message, lambda x: {"s": change(x["s"])})
    refuse(message, lambda x: {"s": change(x["s"])}, normalize=True)


@pytest.mark.wrong_input
def test_refuses_sums_that_do_not_fit():
    refuse(r"z of the state .* \(2, 4, 16\) .*\(2, 4, 1, 16\)", lambda x: {"z": x["z"][:, :, None]}, normalize=True)


@pytest.mark.wrong_input
@pytest.mark.parametrize("n", [3, 5])
def test_refuses_fewer_and_more_keys_than_queries(n):
    refuse(
        f"as many queries as keys, but there are 4 and {n}",
        lambda x: {name: torch.cat([x[name], x[name]], 2)[:, :, :n] for name in ("k", "v")},
    )


@pytest.mark.wrong_input
def test_cpu_is_refused_without_the_interpreter(monkeypatch):
    monkeypatch.setitem(_tuned.__wrapped__.__globals__, "INTERPRETER", False)
    refuse("runs on a GPU, but q is on cpu", lambda x: {name: of.cpu() for name, of in x.items()}, RuntimeError)


@pytest.mark.wrong_input
@NORMALIZE
def test_refuses_a_state_of_the_other_kind(normalize):
    refuse("the pair", lambda x: {"z": x["s"][..., 0]} if "z" not in x else {"s": x["s"]}, normalize=False)
    x = inputs(3, normalize=False)
    with pytest.raises(ValueError, match="the pair"):
        fused_linear_attention(x["q"], x["k"], x["v"], state=x["s"], normalize=True)


@pytest.mark.wrong_input
def test_gpu_without_bfloat16_is_named(monkeypatch):
    new = _tuned.__wrapped__
    monkeypatch.setitem(new.__globals__, "INTERPRETER", False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(RuntimeError, match=r"compute capability 8\.0 or later .* has 7\.5"):
        new(_carry, torch.device("cuda"))
