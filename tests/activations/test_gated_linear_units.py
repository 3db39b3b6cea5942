"""The gated units and the feed-forward layer, against torch's functions and layers, loops and published sizes."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from zhixing.activations.gated_linear_units import (
    GatedFeedForward,
    clamped_swiglu,
    gated_feed_forward,
    gated_hidden_size,
    geglu,
    glu,
    swiglu,
)

UNITS = {
    glu: lambda gate, value: F.glu(torch.cat([value[None], gate[None]]), dim=0)[0],
    geglu: lambda gate, value: F.gelu(gate) * value,
    swiglu: lambda gate, value: F.silu(gate) * value,
}
GATES = {
    "grid": torch.linspace(-8, 8, 1601, dtype=torch.float64),
    "zeros": torch.tensor([0.0, -0.0], dtype=torch.float64),
    "empty": torch.empty(0, 3, dtype=torch.float64),
    "scalar": torch.tensor(0.3, dtype=torch.float64),
    "transposed": torch.linspace(-3, 3, 35, dtype=torch.float64).reshape(5, 7).T,
    "large": torch.tensor([-1e4, -600.0, -100.0, 100.0, 600.0, 1e4], dtype=torch.float64),
}
GATED = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.__name__)
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def value_and_gradients(form, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    y = form(*leaves)
    weight = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)
    return y, *torch.autograd.grad(y, leaves, weight)


@GATED
@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_value_and_both_gradients_equal_torch(unit, gate):
    value = gate.flip(0) / 3 + 0.1 if gate.ndim else gate / 3 + 0.1
    assert_close(value_and_gradients(unit, gate, value), value_and_gradients(UNITS[unit], gate, value))


@GATED
@HALVES
def test_keeps_low_precision(unit, dtype):
    gate, value = torch.linspace(-6, 6, 121).to(dtype), torch.linspace(3, -2, 121).to(dtype)
    assert_close(value_and_gradients(unit, gate, value), value_and_gradients(UNITS[unit], gate, value))


@pytest.mark.parametrize("unit", [*UNITS, clamped_swiglu], ids=lambda unit: unit.__name__)
def test_passes_gradcheck(unit):
    gate = torch.linspace(-3, 3, 12, dtype=torch.float64, requires_grad=True)
    value = torch.linspace(2, -1, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, (gate, value))
    assert torch.autograd.gradgradcheck(unit, (gate, value))


def test_first_argument_is_the_second_half_of_torchs_glu():
    """Which half is the gate: the commonest mistake when two matrices are fused into one."""
    fused = random(5, 8)
    first, second = fused.chunk(2, dim=-1)
    assert_close(glu(second, first), F.glu(fused))
    assert not torch.allclose(glu(first, second), F.glu(fused))


def test_two_swiglu_units_multiply():
    """SiLU(g) - SiLU(-g) = g, so the difference of two units is the product g v."""
    g, v = random(100, seed=1), random(100, seed=2)
    assert_close(swiglu(g, v) - swiglu(-g, v), g * v)


def test_clamped_swiglu_is_the_loop_of_gpt_oss():
    """Over interleaved columns, gate, value, gate, value, as its weights are stored."""
    fused = 12 * random(7, 10)
    expected = torch.empty(7, 5, dtype=torch.float64)
    for row in range(7):
        for unit in range(5):
            gate = min(fused[row, 2 * unit].item(), 7.0)
            value = max(-7.0, min(fused[row, 2 * unit + 1].item(), 7.0))
            expected[row, unit] = gate / (1 + math.exp(-1.702 * gate)) * (value + 1)
    assert_close(clamped_swiglu(fused[:, ::2], fused[:, 1::2]), expected)


def test_clamped_swiglu_with_deepseeks_numbers():
    gate, value = 12 * random(200), 12 * random(200, seed=1)
    ours = clamped_swiglu(gate, value, beta=1.0, limit=10.0, shift=0.0)
    assert_close(ours, F.silu(torch.clamp(gate, max=10)) * torch.clamp(value, -10, 10))
    assert ours.abs().max() < 100


def test_clamped_swiglu_without_limit_is_swiglu():
    gate, value = 12 * random(200), 12 * random(200, seed=1)
    assert_close(clamped_swiglu(gate, value, beta=1.0, limit=math.inf, shift=0.0), swiglu(gate, value))


def test_clamped_swiglu_does_not_overflow_where_swiglu_does():
    x = torch.tensor([300.0], dtype=torch.float16)
    assert swiglu(x, x).isinf().all()
    assert_close(clamped_swiglu(x, x), torch.tensor([56.0], dtype=torch.float16))


def layers(model, hidden, seed=0, dtype=torch.float64):
    """Three layers of torch, with the weights that a checkpoint would bring."""
    torch.manual_seed(seed)
    sizes = {"gate_proj": (model, hidden), "up_proj": (model, hidden), "down_proj": (hidden, model)}
    return nn.ModuleDict({name: nn.Linear(*size, bias=False, dtype=dtype) for name, size in sizes.items()})


@GATED
@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)], ids=str)
def test_gated_feed_forward_equals_linear_layers(unit, batch):
    x, reference = random(*batch, 6), layers(6, 4)
    weights = [layer.weight for layer in reference.values()]

    def written_out(x, *weights):
        gate, up, down = weights
        return F.linear(UNITS[unit](F.linear(x, gate), F.linear(x, up)), down)

    ours = value_and_gradients(lambda *tensors: gated_feed_forward(*tensors, unit=unit), x, *weights)
    assert_close(ours, value_and_gradients(written_out, x, *weights))


def test_gated_feed_forward_is_equation_6():
    """Loops over the paper's matrices, (in, out): the sum over hidden units of SiLU(xW) · xV · W₂."""
    x, w, v, w2 = random(3), random(3, 4, seed=1), random(3, 4, seed=2), random(4, 3, seed=3)
    expected = torch.zeros(3, dtype=torch.float64)
    for hidden in range(4):
        gate = sum(x[i] * w[i, hidden] for i in range(3))
        value = sum(x[i] * v[i, hidden] for i in range(3))
        for out in range(3):
            expected[out] += gate / (1 + torch.exp(-gate)) * value * w2[hidden, out]
    assert_close(gated_feed_forward(x, w.T, v.T, w2.T), expected)


@GATED
@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)], ids=str)
def test_layer_loads_weights_and_has_the_layers_output_and_gradients(unit, batch):
    """The names and shapes of transformers' LlamaMLP: nothing is renamed or transposed."""
    reference, layer = layers(6, 4), GatedFeedForward(6, 4, unit=unit).double()
    layer.load_state_dict(reference.state_dict())
    x = random(*batch, 6).requires_grad_()
    theirs = reference["down_proj"](UNITS[unit](reference["gate_proj"](x), reference["up_proj"](x)))
    ours = layer(x)
    assert_close(ours, theirs)
    upstream = random(*batch, 6, seed=9)
    expected = torch.autograd.grad(theirs, [x, *reference.parameters()], upstream)
    assert_close(torch.autograd.grad(ours, [x, *layer.parameters()], upstream), expected)


def test_layer_equals_the_function_of_its_weights():
    layer, x = GatedFeedForward(6, 4), random(5, 6, dtype=torch.float32)
    assert_close(layer(x), gated_feed_forward(x, *layer.parameters()))


def test_layer_is_swiglu_unless_told():
    layer, x = GatedFeedForward(6, 4), random(5, 6, dtype=torch.float32)
    assert_close(layer(x), layer.down_proj(F.silu(layer.gate_proj(x)) * layer.up_proj(x)))


def test_layer_refuses_a_checkpoint_with_biases_or_other_names():
    layer = GatedFeedForward(6, 4)
    with_bias = layer.state_dict() | {"gate_proj.bias": torch.zeros(4)}
    metas = dict(zip(("w1.weight", "w3.weight", "w2.weight"), layer.state_dict().values(), strict=True))
    for state in (with_bias, metas):
        with pytest.raises(RuntimeError):
            layer.load_state_dict(state)


def test_layer_has_no_parameter_but_the_three_matrices():
    parameters = {name: tuple(weight.shape) for name, weight in GatedFeedForward(6, 4).named_parameters()}
    assert parameters == {"gate_proj.weight": (4, 6), "up_proj.weight": (4, 6), "down_proj.weight": (6, 4)}


def test_what_replaces_a_projection_takes_part():
    """A low-rank adapter takes the place of a layer: the output must be that of the sum of the weights."""

    class Adapter(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.weight = base, base.weight  # as adapters do, so that the weight is found
            self.update = random(*base.weight.shape, dtype=torch.float32)

        def forward(self, x):
            return self.base(x) + F.linear(x, self.update)

    for name in ("gate_proj", "up_proj", "down_proj"):
        layer, x = GatedFeedForward(6, 4), random(5, 6, dtype=torch.float32)
        merged, adapter = copy.deepcopy(layer), Adapter(getattr(layer, name))
        getattr(merged, name).weight.data += adapter.update
        setattr(layer, name, adapter)
        assert_close(layer(x), merged(x))


@HALVES
def test_layer_in_half_precision_is_as_near_to_float32_as_torchs(dtype):
    layer, x = GatedFeedForward(64, 48), random(32, 64, dtype=torch.float32)
    exact, half = layer(x), copy.deepcopy(layer).to(dtype)
    low = x.to(dtype)
    eager = half.down_proj(F.silu(half.gate_proj(low)) * half.up_proj(low))
    ours, theirs = ((y - exact).abs().max() for y in (half(low), eager))
    assert ours <= 2 * theirs


def test_two_thirds_of_the_hidden_size_keep_the_parameters():
    """Shazeer, section 3.1: d_model = 768, d_ff = 3072 becomes 2048."""
    hidden = gated_hidden_size(3072)
    assert hidden == 2048
    parameters = sum(weight.numel() for weight in GatedFeedForward(768, hidden).parameters())
    assert parameters == 2 * 768 * 3072


@pytest.mark.parametrize(
    ("model", "hidden"), [(4096, 11008), (5120, 13824), (6656, 17920), (8192, 22016)], ids=["7B", "13B", "33B", "65B"]
)
def test_llama_hidden_sizes_follow_the_rule(model, hidden):
    """The intermediate sizes of the first LLaMA models, in multiples of 256."""
    assert gated_hidden_size(4 * model, multiple_of=256) == hidden


@pytest.mark.parametrize("hidden", range(1, 40))
def test_gated_hidden_size_is_never_far_from_two_thirds_and_never_0(hidden):
    rounded = gated_hidden_size(hidden, multiple_of=8)
    assert abs(gated_hidden_size(hidden) - 2 * hidden / 3) < 1
    assert gated_hidden_size(hidden) >= 1
    assert rounded % 8 == 0
    assert rounded >= 8
    assert 0 <= rounded - 2 * hidden // 3 <= 8


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    "shapes",
    [
        ((5, 6), (4, 6), (3, 6), (6, 4)),
        ((5, 6), (4, 7), (4, 7), (6, 4)),
        ((5, 6), (4, 6), (4, 6), (6, 3)),
        ((5, 6), (4, 6), (4, 6), (7, 4)),
        ((5, 6), (6, 4), (6, 4), (4, 6)),
    ],
    ids=["up", "x", "down's columns", "down's rows", "all transposed, as in the paper"],
)
def test_gated_feed_forward_refuses_matrices_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match="do not fit"):
        gated_feed_forward(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.wrong_input
@pytest.mark.parametrize("unit", [glu, geglu, swiglu, clamped_swiglu], ids=lambda unit: unit.__name__)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_refuses_a_gate_that_is_not_floating_point(unit, dtype):
    with pytest.raises(ValueError, match=rf"floating-point tensors, but the gate is {dtype}"):
        unit(torch.ones(2, dtype=dtype), torch.ones(2, dtype=dtype))


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("hidden", "multiple"),
    [(0, 1), (-3, 1), (12, 0), (1.5, 1), (math.nan, 1), (math.inf, 1), (12, 1.5), ("12", 1), (12, None)],
    ids=str,
)
def test_gated_hidden_size_refuses_what_is_no_positive_integer(hidden, multiple):
    with pytest.raises(ValueError, match="must be positive integers, but one is"):
        gated_hidden_size(hidden, multiple_of=multiple)


@pytest.mark.wrong_input
@pytest.mark.parametrize("unit", [glu, geglu, swiglu, clamped_swiglu], ids=lambda unit: unit.__name__)
@pytest.mark.parametrize("wrong", [[1.0, 2.0], 1.0, None, torch.ones(2).long()], ids=lambda x: type(x).__name__)
def test_refuses_gates_and_values_that_are_no_real_tensors(unit, wrong):
    with pytest.raises(ValueError, match="floating-point tensors, but the gate is"):
        unit(wrong, torch.ones(2))
    with pytest.raises(ValueError, match="floating-point tensors, but the value is"):
        unit(torch.ones(2), wrong)
    for shape in ((), (1,), (2, 2), (3,)):
        with pytest.raises(ValueError, match="must have one shape"):
            unit(torch.ones(2), torch.ones(shape))


@pytest.mark.wrong_input
@pytest.mark.parametrize("wrong", [[[1.0]], 1.0, None, torch.ones(3, 2).long(), torch.ones(())], ids=str)
@pytest.mark.parametrize("place", range(4))
def test_gated_feed_forward_refuses_what_is_no_real_matrix(wrong, place):
    arguments = [torch.ones(5, 2), torch.ones(3, 2), torch.ones(3, 2), torch.ones(2, 3)]
    arguments[place] = wrong
    with pytest.raises(ValueError, match=r"floating-point tensors, but one is|do not fit together"):
        gated_feed_forward(*arguments)


@pytest.mark.wrong_input
@pytest.mark.parametrize("wrong", [0, -1, 2.0, "2", None, (2,)], ids=str)
def test_layer_refuses_sizes_that_are_no_sizes(wrong):
    for sizes in ((wrong, 3), (3, wrong)):
        with pytest.raises(ValueError, match="sizes must be positive integers"):
            GatedFeedForward(*sizes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_layer_runs_under_autocast(dtype):
    layer, x = GatedFeedForward(8, 6), random(2, 5, 8, dtype=torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        y = layer(x)
    assert y.dtype == dtype
    assert_close(y.float(), layer(x), rtol=0.05, atol=0.05)
