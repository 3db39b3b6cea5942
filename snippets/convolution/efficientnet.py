# %% quick_start
import torch
from torch.utils.flop_counter import FlopCounterMode

from zhixing.convolution.efficientnet import COEFFICIENTS, EfficientNet


def cost(width, depth, pixels):
    """Count parameters and multiplications for one image, from shapes alone."""
    with torch.device("meta"), torch.no_grad():
        net = EfficientNet(width=width, depth=depth).eval()
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 3, pixels, pixels))
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() / 2


costs = {}
for name, (width, depth, pixels, _) in COEFFICIENTS.items():
    parameters, products = costs[name] = cost(width, depth, pixels)
    print(f"{name}: width {width}, depth {depth}, {pixels} pixels", end="; ")
    print(f"{parameters / 1e6:4.1f} M parameters, {products / 1e9:5.2f} G products")

# %% quick_start_holds tags=["hidden"]
printed = {  # table 2 of the paper
    "B0": (5.3, 0.39),
    "B1": (7.8, 0.70),
    "B2": (9.2, 1.0),
    "B3": (12, 1.8),
    "B4": (19, 4.2),
    "B5": (30, 9.9),
    "B6": (43, 19),
    "B7": (66, 37),
}
for name, (millions, billions) in printed.items():
    parameters, products = costs[name]
    digits = 1 if millions < 10 else 0
    assert (round(parameters / 1e6, digits) == millions) == (name != "B2")
    assert abs(products / 1e9 / billions - 1) < 0.05
b2_parameters, b4_products = costs["B2"][0] / 1e6, costs["B4"][1] / 1e9
b5_ratio = costs["B5"][1] / costs["B4"][1]

# %% setup
from torch import nn

from zhixing.convolution.efficientnet import (
    STAGES,
    MBConv,
    round_channels,
    round_repeats,
    same_padding,
    stochastic_depth,
)
from zhixing.convolution.receptive_field import nan_probe

# %% doubling
base = costs["B0"][1]
doubled = {
    "depth": cost(1, 2, 224)[1] / base,
    "width": cost(2, 1, 224)[1] / base,
    "resolution": cost(1, 1, 448)[1] / base,
}
for what, factor in doubled.items():
    print(f"twice the {what}: {factor:.2f} times the products")

# %% doubling_holds tags=["hidden"]
linear = fixed = (
    0  # products linear in the width; products that do not grow with the image
)
with torch.device("meta"):
    b0 = EfficientNet().eval()


def tally(module, inputs, output):
    global linear, fixed
    if isinstance(module, nn.Conv2d):
        made = output.numel() * module.weight[0].numel()
        linear += made if module.groups > 1 or module.in_channels == 3 else 0
        fixed += made if module.bias is not None else 0  # squeeze-and-excitation
    elif isinstance(module, nn.Linear):
        linear += module.weight.numel()
        fixed += module.weight.numel()


for module in b0.modules():
    module.register_forward_hook(tally)
b0(torch.empty(1, 3, 224, 224, device="meta"))
linear_share, fixed_share = linear / base, fixed / base
assert abs(doubled["width"] - (4 - 2 * linear_share)) < 1e-9
assert abs(doubled["resolution"] - (4 - 3 * fixed_share)) < 1e-9
assert 2 < doubled["depth"] < 2.05


# %% rounding
def plan(width, depth):
    """Return the channels and the numbers of blocks of all stages."""
    channels = [round_channels(c, width) for c in (32, *(s[3] for s in STAGES))]
    return channels, [round_repeats(s[4], depth) for s in STAGES]


ratios = {}
for name, (width, depth, pixels, _) in COEFFICIENTS.items():
    product = depth * width**2 * (pixels / 224) ** 2
    blocks = sum(plan(width, depth)[1])
    ratios[name] = product, costs[name][1] / base
    print(f"{name}: {blocks} blocks ({16 * depth:4.1f} unrounded)", end=", ")
    print("d·w²·r² = {:5.2f}, products × {:5.2f}".format(*ratios[name]))

# %% rounding_holds tags=["hidden"]
assert plan(1.0, 1.1)[1] == plan(1.1, 1.2)[1] == [2, 3, 3, 4, 4, 5, 2]
assert all(actual > product for product, actual in list(ratios.values())[1:])
b1_product, b1_ratio = ratios["B1"]
gaps = [actual / product for product, actual in ratios.values()]
assert max(gaps) == gaps[1]
b1_gap, b6_gap = gaps[1], gaps[6]
assert min(gaps[1:]) == b6_gap

# %% phi
import math

grid = [i / 1000 for i in range(8001)]
plans = [plan(1.1**phi, 1.2**phi) for phi in grid]
fits = {}
for name, (width, depth, pixels, _) in COEFFICIENTS.items():
    channels, blocks = plan(width, depth)
    ranges = [
        [phi for phi, (c, _) in zip(grid, plans, strict=True) if c == channels],
        [phi for phi, (_, b) in zip(grid, plans, strict=True) if b == blocks],
        [phi for phi, p in zip(grid, plans, strict=True) if p == (channels, blocks)],
    ]
    fits[name] = *ranges, math.log(pixels / 224) / math.log(1.15)
    shown = [f"{r[0]:.2f}–{r[-1]:.2f}" if r else "none" for r in ranges]
    print("{}: channels {}, blocks {}, both {:9}".format(name, *shown), end=" | ")
    print(f"{pixels} pixels {fits[name][-1]:.2f}")

# %% phi_holds tags=["hidden"]
assert {name for name, (_, _, both, _) in fits.items() if not both} == {
    "B5",
    "B6",
    "B7",
}
for name, (_, _, both, resolution) in fits.items():
    if both and name != "B0":
        assert resolution > both[-1] + 0.02
assert plan(1.1**2, 1.2**2) == plan(1.2, 1.4)
literal = cost(1.1**3, 1.2**3, round(224 * 1.15**3))
literal_parameters = literal[0] / 1e6
literal_ratio = literal[1] / costs["B3"][1]
half_products = cost(1 / 1.1, 1 / 1.2, round(224 / 1.15))[1] / base
assert plan(1 / 1.1, 1 / 1.2)[1] == plan(1, 1)[1]
assert literal_ratio > 1.5
assert half_products > 0.6
growth = 1.2 * 1.1**2 * 1.15**2

# %% picture
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
for row, (channels, blocks, _, resolution) in enumerate(fits.values()):
    for part, (where, colour) in enumerate([(channels, "C0"), (blocks, "C1")]):
        width = max(where[-1] - where[0], 0.04)
        axes.barh(row - 0.26 + 0.26 * part, width, 0.24, left=where[0], color=colour)
    axes.plot(resolution, row + 0.28, "D", color="C2", markersize=4)
for label, colour in ("channels", "C0"), ("blocks", "C1"):
    axes.barh(0, 0, color=colour, label=label)
axes.plot([], [], "D", color="C2", markersize=4, label="resolution")
axes.set(xlabel=r"exponent $\varphi$", yticks=range(8), xlim=(-0.2, 8))
axes.set_yticklabels(fits)
axes.invert_yaxis()
axes.legend(loc="lower left")

# %% drop
torch.manual_seed(0)
y = stochastic_depth(torch.ones(100_000, 1), 0.2, training=True)
print("values", y.unique().tolist(), f"mean {y.mean():.2f}")

# %% drop_holds tags=["hidden"]
assert y.unique().tolist() == [0.0, 1.25]
assert abs(y.mean().item() - 1) < 0.005
with torch.device("meta"):
    b5 = EfficientNet(width=1.6, depth=2.2)
rates = [module.drop for module in b5.modules() if isinstance(module, MBConv)]
b5_blocks, last_rate = len(rates), rates[-1]
unscaled = sum(stage[4] for stage in STAGES)
wrong_rate = 0.2 * (b5_blocks - 1) / unscaled
assert abs(last_rate - 0.195) < 1e-3
assert abs(wrong_rate - 0.475) < 1e-3

# %% paddings
for size in 224, 225:
    print(f"{size} pixels, stride 2:", end=" ")
    print(*(f"kernel {k}: {same_padding(size, k, 2)}" for k in (3, 5)), sep=", ")

# %% paddings_hold tags=["hidden"]
assert [same_padding(224, k, 2) for k in (3, 5)] == [(0, 1), (1, 2)]
assert [same_padding(225, k, 2) for k in (3, 5)] == [(1, 1), (2, 2)]


# %% centres
def without_excitation(same):
    """Return the convolutions of B0, each of whose units sees a window."""
    net = EfficientNet(same=same)
    for module in net.modules():
        if isinstance(module, MBConv):
            module.block[-2] = nn.Identity()
    return net.features.eval()


probed = {}
for same, sizes in (False, [928]), (True, [928, 929]):
    net = without_excitation(same)
    for size in sizes:
        first, last = probed[same, size] = nan_probe(net, (3, 1, size), unit=14)
        print("SAME" if same else "symmetric", f"padding, {size} pixels:", end=" ")
        print(f"columns {first}–{last}, centre 32 · 14 + {(first + last) / 2 - 448:g}")

# %% centres_hold tags=["hidden"]
assert {key: sum(value) / 2 - 448 for key, value in probed.items()} == {
    (False, 928): 0,
    (True, 928): 31,
    (True, 929): 0,
}
field = last - first + 1
assert field == 851


# %% shifts
def shift(size):
    """Return by how many pixels SAME padding moves the grid."""
    total = 0
    for i in range(5):
        total += 2**i if size % 2 == 0 else 0
        size = -(-size // 2)  # rounded up
    return total


shifts = {name: shift(pixels) for name, (_, _, pixels, _) in COEFFICIENTS.items()}
print(*(f"{name} {pixels}" for name, pixels in shifts.items()), sep=", ")

# %% shifts_hold tags=["hidden"]
assert shifts["B0"] == 31
assert [size for size in range(1, 400) if shift(size) == 0] == list(range(1, 400, 32))
assert min(shifts.values()) > 0

# %% excitation tags=["hidden"]
excess = 0  # parameters, if the excitation squeezed the expanded channels to a quarter
for module in b0.modules():
    if isinstance(module, MBConv):
        squeezed, wide = module.block[-2].fc1.weight.shape[:2]
        excess += (wide // 4 - squeezed) * (2 * wide + 1)
wide_parameters = (costs["B0"][0] + excess) / 1e6
b0_parameters = costs["B0"][0] / 1e6
assert wide_parameters > 1.3 * b0_parameters
eps_factor = math.sqrt((1e-3 + 1e-5) / (1e-3 + 1e-3))
