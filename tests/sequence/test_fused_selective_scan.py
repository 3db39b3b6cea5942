"""fused_selective_scan against its recurrence in float64: on a GPU, or in Triton's interpreter without one."""

import warnings

import pytest
import torch
from torch.autograd import forward_ad
from torch.nn.functional import silu, softplus
from torch.testing import assert_close

from zhixing.sequence import fused_selective_scan as module
from zhixing.sequence import selective_scan
from zhixing.sequence.fused_selective_scan import fused_selective_scan
from zhixing.sequence.selective_scan import MambaBlock
from zhixing.sequence.selective_scan_triton import TRIED, _blocks, _forward, _launch_kernel, _tuned, _warps_to_try

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
C = _blocks(1)["CHUNK"]
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
REQUIRED = "u", "dt", "a", "b", "c"
OPTIONAL = "d", "z", "dt_bias", "state"
INPUTS = REQUIRED + OPTIONAL


def inputs(
    n=C + 3, channels=3, size=2, *, batch=1, groups=None, parts=OPTIONAL, dtype=torch.float32, seed=0
) -> dict[str, torch.Tensor]:
    """Those of INPUTS that are wanted; dt may be negative, since a softplus is expected to follow."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    shape = (batch, n, size) if groups is None else (batch, n, groups, size)
    x = {"u": normal(batch, n, channels), "dt": normal(batch, n, channels), "b": normal(*shape), "c": normal(*shape)}
    x = {name: of.to(dtype) for name, of in x.items()} | {"a": -2 * normal(channels, size).abs()}
    optional = {
        "d": normal(channels),
        "z": normal(batch, n, channels).to(dtype),
        "dt_bias": normal(channels),
        "state": normal(batch, channels, size),
    }
    return {name: (x | optional)[name].to(DEVICE) for name in INPUTS if name in REQUIRED or name in parts}


def fused(x, *, dt_softplus=True, function=fused_selective_scan) -> tuple[torch.Tensor, torch.Tensor]:
    optional = {name: x.get(name) for name in OPTIONAL}
    return function(*(x[name] for name in REQUIRED), **optional, dt_softplus=dt_softplus)


def defined(x, *, dt_softplus=True, wide=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """The same token by token: h ← e^{Δa} h + Δ b u, y = (c · h + d u) silu(z)."""
    x = {name: of.to(wide) for name, of in x.items()}
    batch, n, channels = x["u"].shape
    delta = x["dt"] + x["dt_bias"] if "dt_bias" in x else x["dt"]
    delta = softplus(delta) if dt_softplus else delta
    b, c = (of if of.ndim == 4 else of[:, :, None] for of in (x["b"], x["c"]))
    group = torch.arange(channels) // (channels // b.shape[2]) if channels else torch.arange(0)
    h = x.get("state", x["u"].new_zeros(batch, *x["a"].shape))
    rows = []
    for i in range(n):
        step = delta[:, i, :, None]
        h = (step * x["a"]).exp() * h + step * b[:, i, group] * x["u"][:, i, :, None]
        row = (c[:, i, group] * h).sum(-1)
        row = row + x["d"] * x["u"][:, i] if "d" in x else row
        rows.append(row * silu(x["z"][:, i]) if "z" in x else row)
    return torch.stack(rows, 1) if rows else x["u"].clone(), h


def results(function, x, **settings) -> dict[str, torch.Tensor]:
    """What the function returns, and the gradients of all inputs through all of it."""
    x = {name: of.detach().requires_grad_() for name, of in x.items()}
    outputs = function(x, **settings)
    random = torch.Generator().manual_seed(1)
    # the same numbers in each type
    along = [torch.randn(y.shape, generator=random).bfloat16().to(y) for y in outputs]
    reached = [pair for pair in zip(outputs, along, strict=True) if pair[0].requires_grad]
    of, along = zip(*reached, strict=True)
    gradients = torch.autograd.grad(of, [*x.values()], along, allow_unused=True, materialize_grads=True)
    returned = dict(zip(("y", "last state"), (y.detach() for y in outputs), strict=False))
    return returned | {f"gradient of {name}": of for name, of in zip(x, gradients, strict=True)}


def assert_results_close(ours, expected) -> None:
    assert ours.keys() == expected.keys()
    for name, mine in ours.items():
        assert_close(mine, expected[name].to(mine.dtype), msg=lambda said, name=name: f"{name}: {said}")


def check(x, **settings) -> None:
    assert_results_close(results(fused, x, **settings), results(defined, x, **settings))


@pytest.mark.parametrize("n", [1, C - 1, C, C + 1, 2 * C, 33], ids=str)
def test_lengths(n):
    check(inputs(n))


PARTS = {"none": (), "all": OPTIONAL} | {name: (name,) for name in OPTIONAL}


@pytest.mark.parametrize("dt_softplus", [False, True], ids=["plain", "softplus"])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_optional_parts(parts, dt_softplus):
    x = inputs(parts=parts)
    if not dt_softplus:
        x["dt"] = x["dt"].abs()
        if "dt_bias" in x:
            x["dt_bias"] = x["dt_bias"].abs()
    check(x, dt_softplus=dt_softplus)


@pytest.mark.parametrize(
    ("channels", "size"), [(1, 1), (2, 4), (70 if DEVICE == "cuda" else 5, 1), (5, 3), (1, 17), (2, 50)], ids=str
)
def test_sizes(channels, size):
    check(inputs(3, channels, size))


def test_largest_state():
    x = inputs(2, 1, 256)
    for mine, exact in zip(fused(x), defined(x), strict=True):
        assert_close(mine, exact.float())


@pytest.mark.parametrize(("channels", "groups"), [(6, 1), (6, 2), (3, 3)], ids=str)
def test_batch_and_groups(channels, groups):
    check(inputs(5, channels, batch=2, groups=groups))


def test_one_group_is_none():
    x = inputs()
    grouped = x | {name: x[name][:, :, None] for name in "bc"}
    ours, others = results(fused, x), results(fused, grouped)
    for name, mine in ours.items():
        assert torch.equal(mine, others[name].view_as(mine))


def mambapys(x) -> tuple[torch.Tensor]:
    from mambapy.mamba import MambaBlock

    x = {name: of.double() for name, of in x.items()}
    return (MambaBlock.selective_scan(None, *(x[name] for name in (*REQUIRED, "d"))),)


def test_equals_mambapy():
    x = inputs(16, batch=2, parts="d")
    x["dt"] = softplus(x["dt"])
    ours = results(lambda x: fused(x, dt_softplus=False)[:1], x)
    assert_results_close(ours, results(mambapys, x))


def test_adapter_of_the_docstring():
    text = fused_selective_scan.__doc__
    adapter = text[text.index("lambda") : text.index("without copies")]
    selective_scan_fn = eval(f"({adapter})", {"fused_selective_scan": fused_selective_scan})
    for groups in (None, 3):
        x = inputs(5, batch=2, groups=groups, parts=OPTIONAL[:3])
        u, dt, z = (x[name].mT.contiguous() for name in ("u", "dt", "z"))
        b, c = (x[name].movedim(1, -1).contiguous() for name in "bc")
        y = selective_scan_fn(u, dt, x["a"], b, c, x["d"], z, x["dt_bias"], True)
        assert_close(y, defined(x)[0].mT.float())


# Steps.


def test_step_of_zero_holds_the_state():
    x = inputs(parts=["state"])
    x["dt"] = torch.zeros_like(x["dt"])
    y, last = fused(x, dt_softplus=False)
    assert torch.equal(last, x["state"])
    assert_close(y, torch.einsum("bdn,bln->bld", x["state"], x["c"]))


@pytest.mark.parametrize("value", [-50.0, -103.0, -105.0, -1e4, -1e30])
def test_strong_decay(value):
    """One channel has nothing else, the others have it now and then: it reaches what came before, and no other row."""
    x = inputs(2 * C, channels=2)
    x["a"] = torch.tensor([[value, value], [-1.0, value]], device=DEVICE)
    x["dt"] = torch.full_like(x["dt"], 0.5)
    x["dt"][:, [2, C, C + 3], 1] = 1.0
    x["dt_bias"] = torch.zeros_like(x["dt_bias"])
    check(x, dt_softplus=False)


def test_decay_of_zero_forgets_what_came_before():
    x = inputs(C + 4)
    x["dt"] = x["dt"].abs()
    x["dt"][:, C + 1] = 1e6
    later = {name: of[:, C + 1 :] if of.ndim == 3 and name != "state" else of for name, of in x.items()}
    y, last = fused(x, dt_softplus=False)
    y_later, last_later = fused(later | {"state": torch.zeros_like(x["state"])}, dt_softplus=False)
    assert_close(y[:, C + 1 :], y_later)
    assert_close(last, last_later)


@pytest.mark.parametrize("sign", [-1, 1], ids=["small", "large"])
def test_softplus_and_its_derivative_keep_their_digits(sign):
    """From a state of 0 with b = c = u = 1 and one step, y = Δ."""
    dt = sign * torch.linspace(0, 80, 21).view(1, 1, 21).to(DEVICE)
    one = torch.ones(1, 1, 1, device=DEVICE)
    given = torch.ones_like(dt), dt.requires_grad_(), -torch.ones(21, 1, device=DEVICE), one, one
    y, _ = fused_selective_scan(*given, dt_softplus=True)
    (slope,) = torch.autograd.grad(y.sum(), dt)
    exact = dt.detach().double().requires_grad_()
    expected = exact.exp().log1p()
    (expected_slope,) = torch.autograd.grad(expected.sum(), exact)
    assert_close(y.double(), expected, rtol=4e-6, atol=0)
    assert_close(slope.double(), expected_slope, rtol=4e-6, atol=0)


def test_large_gates_open_and_close():
    x = inputs(3, parts=["d", "z"])
    x["z"] = torch.tensor([-1e4, 0.0, 1e4], device=DEVICE).expand(1, 3, 3)
    ours = results(fused, x)
    assert all(of.isfinite().all() for of in ours.values())
    assert_results_close(ours, results(defined, x))


# States.


@pytest.mark.parametrize("split", [1, C - 3, C])
def test_two_calls_equal_one(split):
    def in_two(x):
        over_time = ("u", "dt", "b", "c", "z")
        first, second = (
            x | {name: x[name][:, rows] for name in over_time} for rows in (slice(split), slice(split, None))
        )
        y, h = fused(first)
        rest, last = fused(second | {"state": h})
        return torch.cat([y, rest], 1), last

    x = inputs()
    assert_results_close(results(in_two, x), results(defined, x))


def test_steps_of_one_token_equal_a_sequence():
    x = inputs(C + 2)
    outputs, state = [], x["state"]
    for i in range(C + 2):
        token = {name: x[name][:, i : i + 1] for name in ("u", "dt", "b", "c", "z")}
        y, state = fused(x | token | {"state": state})
        outputs.append(y)
    for mine, other in zip((torch.cat(outputs, 1), state), fused(x), strict=True):
        assert_close(mine, other)


def test_mamba_block_may_call_it_in_place_of_selective_scan(monkeypatch):
    torch.manual_seed(0)
    block, x = MambaBlock(4, state=3).to(DEVICE), torch.randn(2, C + 3, 4, device=DEVICE)

    def of_two_calls():
        start, cache = block.step(x[:, :C])
        y = torch.cat([start, block.step(x[:, C:], cache)[0]], 1)
        return y, *torch.autograd.grad(y.square().sum(), [*block.parameters()])

    expected = of_two_calls()
    monkeypatch.setattr(selective_scan, "selective_scan", fused_selective_scan)
    assert_close(of_two_calls(), expected)


@HALVES
def test_state_is_float32_and_may_exceed_float16(dtype):
    n = 2 * C
    one = torch.ones(1, n, 1, dtype=dtype, device=DEVICE)
    zero = torch.zeros(1, 1, device=DEVICE)
    y, last = fused({"u": 64 * one, "dt": 64 * one, "a": zero, "b": 16 * one, "c": one / 1024}, dt_softplus=False)
    assert last.dtype == torch.float32
    assert last.item() == 65536 * n
    assert y[0, -1, 0] == 64 * n


def test_gradient_through_the_state_alone():
    x = inputs()
    ours, expected = (
        torch.autograd.grad(function(of)[1].square().sum(), [*of.values()], allow_unused=True, materialize_grads=True)
        for function, of in (
            (fused, {name: y.clone().requires_grad_() for name, y in x.items()}),
            (defined, {name: y.double().requires_grad_() for name, y in x.items()}),
        )
    )
    for name, mine, other in zip(x, ours, expected, strict=True):
        assert_close(mine, other.float())
        assert (mine == 0).all() == (name in {"c", "d", "z"})


# Precision.


@HALVES
def test_low_precision_rounds_only_what_is_returned(dtype):
    x = inputs(2 * C + 1, dtype=dtype)
    ours, exact = results(fused, x), results(defined, {name: of.double() for name, of in x.items()})
    wide = {"last state", *(f"gradient of {name}" for name in ("a", "d", "dt_bias", "state"))}
    for name, mine in ours.items():
        assert mine.dtype == (torch.float32 if name in wide else dtype)
        rounding = 0 if name in wide else torch.finfo(dtype).eps / 2
        assert_close(mine.double(), exact[name], rtol=rounding + 1e-5, atol=1e-5)


@HALVES
def test_low_precision_error_is_at_most_that_of_every_step_rounded(dtype):
    x = inputs(2 * C + 1, dtype=dtype)
    ours, eagers, truth = (
        function(x) for function in (fused, lambda x: defined(x, wide=dtype), lambda x: defined(x, wide=torch.float64))
    )
    for mine, eager, exact in zip(ours, eagers, truth, strict=True):
        error, allowed = ((y.double() - exact).abs().max().item() for y in (mine, eager))
        assert error <= allowed


def test_types_may_differ():
    types = [torch.bfloat16, torch.float32, torch.float16, torch.bfloat16, torch.float16]
    x = inputs(5)
    x |= {name: x[name].to(dtype) for name, dtype in zip(REQUIRED, types, strict=True)}
    x |= {name: x[name].bfloat16() for name in OPTIONAL}
    ours = results(fused, x)
    assert {name: ours[f"gradient of {name}"].dtype for name in x} == {name: of.dtype for name, of in x.items()}
    assert ours["y"].dtype == torch.bfloat16
    wide = results(fused, {name: of.float() for name, of in x.items()})
    for name, mine in ours.items():
        other = wide[name].to(mine.dtype)
        # The rounded y passes its rounded gradient on.
        assert_close(mine, other, rtol=2**-6, atol=2**-6)


# Memory, and what torch wants of an operator.


def wider(x):
    """A view into a wider tensor, as of one projection to several."""
    return x.repeat(*(1,) * (x.ndim - 1), 3)[..., : x.shape[-1]]


LAYOUTS = {
    "time last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "batch inside": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "part of a fused projection": wider,
    "every second token": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "one token for all": lambda x: x[:, :1].expand_as(x),
    "one batch entry for all": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layout_changes_nothing(layout):
    x = {name: layout(of) if of.ndim == 3 else of for name, of in inputs(3, batch=2).items()}
    ours = results(fused, x)
    of_contiguous = results(fused, {name: of.contiguous() for name, of in x.items()})
    assert all(torch.equal(ours[name], other) for name, other in of_contiguous.items())


def test_weights_need_not_be_contiguous():
    x = inputs(3)
    views = {"a": x["a"].mT.contiguous().mT} | {name: x[name].repeat_interleave(2)[::2] for name in ("d", "dt_bias")}
    ours, of_contiguous = results(fused, x | views), results(fused, x)
    assert all(torch.equal(ours[name], other) for name, other in of_contiguous.items())


def test_output_is_laid_out_as_the_inputs_are():
    x = {name: LAYOUTS["time last"](of) if of.ndim == 3 else of for name, of in inputs(5).items()}
    assert fused(x)[0].stride() == x["u"].stride()


def test_gradient_of_a_sum_which_is_one_number_everywhere():
    x = inputs(5)
    ours = results(lambda x: (fused(x)[0].sum(),), x)
    expected = results(lambda x: (defined(x)[0].sum(),), x)
    assert_results_close(ours, expected)


def test_arguments_are_left_alone():
    x = inputs(5)
    copies = {name: of.clone() for name, of in x.items()}
    results(fused, x)
    assert all(torch.equal(of, copies[name]) for name, of in x.items())


EMPTY = {"batch": {"batch": 0}, "tokens": {"n": 0}, "channels": {"channels": 0}}


@pytest.mark.parametrize("parts", [(), OPTIONAL], ids=["required", "all"])
@pytest.mark.parametrize("sizes", EMPTY.values(), ids=EMPTY)
def test_nothing_of(sizes, parts):
    check(inputs(**sizes, parts=parts))


def test_state_of_no_tokens_is_a_copy():
    x = inputs(0)
    _, last = fused(x)
    assert torch.equal(last, x["state"])
    assert last.data_ptr() != x["state"].data_ptr()


def test_repeated_call_gives_the_same_bits():
    x = inputs(C + 3, 70 if DEVICE == "cuda" else 5, 16 if DEVICE == "cuda" else 2, dtype=torch.float16)
    first, second = (results(fused, x) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_keeps_only_inputs_for_backward():
    x = {name: of.requires_grad_() for name, of in inputs(2 * C, groups=1).items()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda y: kept.append(y.data_ptr()) or y, lambda y: y):
        fused(x)
    assert kept == [of.data_ptr() for of in x.values()]


# torch hides its own warning where it looks at `.grad`, but not from a filter that makes errors of warnings.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning:torch")
@pytest.mark.parametrize("parts", [OPTIONAL, (), ("z", "state")], ids=str)
def test_is_an_operator_as_torch_wants_it(parts):
    x = {name: of.detach() for name, of in inputs(1, 2, batch=2, groups=1, parts=parts).items()}
    x |= {name: LAYOUTS["time last"](x[name]) for name in ("u", "dt", "b")}
    x = {name: of.requires_grad_() for name, of in x.items()}
    given = (*(x.get(name) for name in INPUTS), True)
    torch.library.opcheck(module._fused_forward, given)
    along = (torch.ones_like(y).detach() for y in module._fused_forward(*given))
    given = (y.detach() if isinstance(y, torch.Tensor) else y for y in given)
    torch.library.opcheck(module._fused_backward, (*along, *given))


@pytest.mark.compiled
def test_compiled_equals_eager():
    torch._dynamo.reset()
    compiled = torch.compile(fused_selective_scan, backend="aot_eager", fullgraph=True)
    for n in (3, C + 1):
        x = inputs(n)
        eagers = results(fused, x)
        ours = results(lambda x: fused(x, function=compiled), x)
        assert all(torch.equal(ours[name], other) for name, other in eagers.items())


@pytest.mark.parametrize("which", INPUTS)
def test_forward_mode_is_refused(which):
    x = inputs(1)
    with pytest.raises(NotImplementedError, match=r"no forward mode .* call selective_scan"):
        torch.func.jvp(lambda of: fused(x | {which: of})[0], (x[which],), (x[which],))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="no forward mode"):
        fused(x | {which: forward_ad.make_dual(x[which], x[which])})


def test_gradients_of_functions_are_refused():
    x = inputs(1)
    with pytest.raises(RuntimeError):
        torch.func.grad(lambda u: fused(x | {"u": u})[0].sum())(x["u"])


def test_vmap_over_the_batch():
    x = inputs(3, batch=2, parts=["z", "state"])
    of_entries = {name: of for name, of in x.items() if name != "a"}

    def of_one(entry):
        return fused({name: of[None] for name, of in entry.items()} | {"a": x["a"]})[0][0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that it loops
        mapped = torch.func.vmap(of_one)(of_entries)
    assert torch.equal(mapped, fused(x)[0])


def test_second_derivative_is_refused():
    x = {name: of.requires_grad_() for name, of in inputs(1).items()}
    (slope,) = torch.autograd.grad(fused(x)[0].sum(), x["u"], create_graph=True)
    with pytest.raises(RuntimeError, match="fused_selective_scan_backward"):
        slope.sum().backward()


def test_autocast_leaves_the_types_alone():
    x = inputs(5)
    with torch.autocast(DEVICE, torch.bfloat16):
        inside = results(fused, x)
    assert all(torch.equal(inside[name], other) for name, other in results(fused, x).items())


# Launches.


def test_launch_is_chosen_again_for_another_number_of_programs_or_size(monkeypatch):
    seen = []

    class Recorder:
        def __getitem__(self, grid):
            return lambda *arguments, **constants: seen.append((arguments[-1], *constants.values()))

    assert {"bucket", "SIZE", "SOFTPLUS"} <= {*_tuned(_forward, torch.device(DEVICE)).keys}
    monkeypatch.setitem(_launch_kernel.__globals__, "_tuned", lambda *of: Recorder())
    for sizes in ({}, {"batch": 3}, {"channels": 600}, {"size": 3}, {"n": 40 * C}, {"n": C + 2}):
        fused(inputs(**sizes))
    fused(inputs(), dt_softplus=False)
    assert len({*seen[:5], seen[6]}) == 6
    assert seen[5] == seen[0]


@pytest.mark.parametrize("kernel", TRIED)
def test_each_gpu_tries_powers_of_2_as_numbers_of_warps(kernel):
    for capability in 80, 90, 100:
        assert _warps_to_try(kernel, capability) == TRIED[kernel] != ()
    assert [warps for warps in TRIED[kernel] if warps & (warps - 1)] == []


def test_program_on_a_gpu_has_256_numbers_of_a_step_and_at_most_64_channels(monkeypatch):
    monkeypatch.setitem(_blocks.__globals__, "INTERPRETER", False)
    for size, channels, padded in (1, 64, 1), (4, 64, 4), (5, 32, 8), (16, 16, 16), (17, 8, 32), (256, 1, 256):
        assert _blocks(size) == {"CHUNK": 8, "BLOCK_D": channels, "BLOCK_N": padded}


# Wrong input.


def refuse(message, change, error=ValueError, **settings):
    x = inputs(4, 6, 3, batch=2, **settings)
    with pytest.raises(error, match=message):
        fused(x | change(x))


@pytest.mark.wrong_input
@pytest.mark.parametrize("which", INPUTS)
def test_refuses_what_does_not_fit(which):
    refuse(f"^{which} must be float16.* torch.float64", lambda x: {which: x[which].double()})
    refuse(f"^{which} must be float16.* torch.complex64", lambda x: {which: x[which].to(torch.complex64)})
    if which != "u":
        refuse(f"^{which} is on meta, but u on {DEVICE}", lambda x: {which: x[which].to("meta")})
    short = {"u": "^dt"}.get(which, f"^{which}")
    refuse(f"{short} must be of shape", lambda x: {which: x[which][:-1]})


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("u", r"u must be \(B, L, D\), .* but they are \(2, 24\), \(6, 3\) and \(2, 4, 3\)"),
        ("a", r"a \(D, N\) .* but they are \(2, 4, 6\), \(18,\)"),
        ("b", r"b \(B, L, N\) or \(B, L, G, N\), but .*\(2, 12\)$"),
        ("c", r"c must be of shape \(2, 4, 3\) .*, but is \(2, 12\)"),
        ("state", r"state must be of shape \(2, 6, 3\) .*, but is \(2, 18\)"),
    ],
)
def test_refuses_other_dimensions(which, message):
    refuse(message, lambda x: {which: x[which].flatten(-2)})


@pytest.mark.wrong_input
@pytest.mark.parametrize("which", OPTIONAL)
def test_refuses_an_optional_tensor_that_does_not_fit_where_the_others_are_left_out(which):
    refuse(f"^{which} must be of shape", lambda x: {which: x[which][:-1]}, parts=(which,))


@pytest.mark.wrong_input
def test_refuses_the_layout_of_mamba_ssm():
    refuse("must be of shape", lambda x: {name: x[name].mT for name in ("u", "dt", "z", "b", "c")})


@pytest.mark.wrong_input
@pytest.mark.parametrize("groups", [0, 4, 12])
def test_refuses_groups_that_do_not_divide_the_channels(groups):
    refuse(f"divide the 6 channels, but is {groups}", lambda x: {}, groups=groups)


@pytest.mark.wrong_input
@pytest.mark.parametrize("size", [0, 257])
def test_refuses_states_out_of_range(size):
    with pytest.raises(ValueError, match=f"between 1 and 256, but is {size}"):
        fused(inputs(2, size=size))


@pytest.mark.wrong_input
def test_cpu_is_refused_without_the_interpreter(monkeypatch):
    monkeypatch.setitem(_tuned.__wrapped__.__globals__, "INTERPRETER", False)
    with pytest.raises(RuntimeError, match="runs on a GPU, but u is on cpu"):
        fused({name: of.cpu() for name, of in inputs(2).items()})


@pytest.mark.wrong_input
def test_old_gpu_is_named(monkeypatch):
    new = _tuned.__wrapped__
    monkeypatch.setitem(new.__globals__, "INTERPRETER", False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(RuntimeError, match=r"compute capability 8\.0 or later .* has 7\.5"):
        new(_forward, torch.device("cuda"))
