# %% quick_start
import torch
import torch.nn.functional as F

from zhixing.activations.gated_linear_units import GatedFeedForward, gated_hidden_size

torch.manual_seed(0)
layer = GatedFeedForward(768, gated_hidden_size(3072))
x = torch.randn(2, 16, 768)
by_hand = layer.down_proj(F.silu(layer.gate_proj(x)) * layer.up_proj(x))
for name, weight in layer.named_parameters():
    print(name, (*weight.shape,))
same = torch.allclose(layer(x), by_hand, atol=1e-5)
print("one line of torch computes the same:", same)

# %% setup
from zhixing.activations.gated_linear_units import clamped_swiglu, glu, swiglu

# %% quick_start_holds tags=["hidden"]
import math

from zhixing.activations.gated_linear_units import gated_feed_forward

assert same
assert torch.allclose(layer(x), gated_feed_forward(x, *layer.parameters()), atol=1e-5)

# %% slopes
import matplotlib.pyplot as plt

value = torch.linspace(-3, 3, 61, dtype=torch.float64)
figure, panels = plt.subplots(1, 2, sharex=True, sharey=True, figsize=(5.6, 3.5))
for axes, name, unit in zip(panels, ("GLU", "SwiGLU"), (glu, swiglu), strict=True):
    for gate, style in {3.0: "-", 1.0: "--", 0.0: "-.", -1.0: ":"}.items():
        output = unit(torch.full_like(value, gate), value)
        axes.plot(value, output, style, label=f"$g = {gate:.0f}$")
    axes.set(title=name, xlabel="value $v$", xlim=(-3, 3), ylim=(-4, 4))
panels[0].set_ylabel("output")
figure.legend(
    *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4
)

# %% slopes_hold tags=["hidden"]
assert torch.allclose(output, F.silu(torch.tensor(gate)) * value)

# %% two_units_multiply
g, v = torch.randn(2, 1000, dtype=torch.float64)
product = swiglu(g, v) - swiglu(-g, v)
print("equal to 1e-12:", torch.allclose(product, g * v, atol=1e-12))

# %% two_units_multiply_holds tags=["hidden"]
assert torch.allclose(product, g * v, atol=1e-12)

# %% parameter_counts
for model, multiple in ((768, 1), (4096, 256)):
    hidden = 4 * model
    gated = gated_hidden_size(hidden, multiple_of=multiple)
    two, three = 2 * model * hidden, 3 * model * gated
    print(f"2 × {model} × {hidden} = {two:,};  3 × {model} × {gated} = {three:,}")

# %% parameter_counts_hold tags=["hidden"]
assert 3 * gated_hidden_size(3072) == 2 * 3072
llama_hidden = gated_hidden_size(4 * 4096, multiple_of=256)
assert llama_hidden == 11008

# %% outliers
print("scale    ReLU   SwiGLU  clamped")
for scale in (1.0, 10.0, 100.0):
    x = torch.tensor(scale)
    outputs = F.relu(x), swiglu(x, x), clamped_swiglu(x, x)
    print(f"{scale:5.0f}", *(f"{output:8.1f}" for output in outputs))

# %% outliers_hold tags=["hidden"]
assert outputs[1] == 10_000
assert 55.9 < outputs[2] < 56

# %% clamped_gate
grid = torch.linspace(-8, 7, 15_001, dtype=torch.float64)
gate = clamped_swiglu(grid, torch.zeros_like(grid))
for name, form in {"GELU": F.gelu, "SiLU": F.silu}.items():
    distance = (gate - form(grid)).abs().max()
    print(f"largest distance of the gate to {name}: {distance:.3f}")

# %% clamped_gate_holds tags=["hidden"]
to_gelu, to_silu = ((gate - form(grid)).abs().max() for form in (F.gelu, F.silu))
assert to_gelu < 0.0204 < 5 * to_gelu < to_silu
to_gelu, to_silu = to_gelu.item(), to_silu.item()


# %% saved_values tags=["hidden"]
def saved(layer, *tensors):
    weights = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(*tensors)
    return sum(kept.values()) / tensors[0].nbytes


def matrix(rows, columns, dtype=torch.float32):
    return torch.randn(rows, columns, dtype=dtype, requires_grad=True)


def hidden_tensors(unit, dtype):
    shapes = (64, 96), narrow, narrow, narrow[::-1]
    tensors = [matrix(*shape, dtype) for shape in shapes]
    kept = saved(lambda x, w, v, w2: unit(x @ w, x @ v) @ w2, *tensors)
    return kept / (narrow[1] / narrow[0])


def one_line(gate, value):
    return F.silu(gate) * value


tokens, narrow, wide = matrix(64, 96), (96, 256), (96, 384)
ungated = saved(
    lambda x, w1, w2: F.relu(x @ w1) @ w2, tokens, matrix(*wide), matrix(*wide[::-1])
)
assert ungated == 4  # one hidden tensor, four times as wide as the input
for dtype in (torch.float32, torch.bfloat16):
    assert math.isclose(hidden_tensors(one_line, dtype), 4)
kept_by_ours = hidden_tensors(swiglu, torch.float32)
kept_in_bfloat16 = hidden_tensors(swiglu, torch.bfloat16)
assert 4.5 < kept_by_ours < kept_in_bfloat16
saved_ratio = 4 * narrow[1] / (1 * wide[1])

# %% half_order
x = torch.tensor([[1.0, 2.0, -3.0, 4.0]])
first, second = x.chunk(2, dim=-1)
print("F.glu(x)           ", F.glu(x))
print("glu(first, second) ", glu(first, second))
print("glu(second, first) ", glu(second, first))

# %% half_order_holds tags=["hidden"]
assert torch.allclose(F.glu(x), glu(second, first))
assert not torch.allclose(F.glu(x), glu(first, second))

# %% products_in_half_precision
x = torch.tensor([200.0, 300.0])
for dtype in (torch.float16, torch.bfloat16):
    half = x.to(dtype)
    print(f"{dtype!s:15}", swiglu(half, half).tolist())

# %% products_overflow tags=["hidden"]
assert swiglu(x.half(), x.half()).tolist() == [40000, math.inf]
assert swiglu(half, half).isfinite().all()
