"""The selective scan against sums written out, mambapy, transformers, and torch's associative scan."""

import math

import pytest
import torch
import torch.nn.functional as F
from tensors import normal, with_gradients
from torch import nn
from torch.testing import assert_close

from zhixing.attention.linear_attention import chunked_linear_attention
from zhixing.sequence.selective_scan import MambaBlock, combine, scan, selective_scan

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
LENGTHS = pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 13, 33])
EITHER_B = pytest.mark.parametrize("exact_b", [False, True], ids=["Euler", "exact"])


def make(length, *, batch=2, channels=3, n=4, dtype=torch.float64):
    """u, dt, a, b, c, d, z and state."""
    return [
        x.to(dtype)
        for x in (
            normal(batch, length, channels),
            F.softplus(normal(batch, length, channels, seed=1)),
            -normal(channels, n, seed=2).exp(),
            normal(batch, length, n, seed=3),
            normal(batch, length, n, seed=4),
            normal(channels, seed=5),
            normal(batch, length, channels, seed=6),
            normal(batch, channels, n, seed=7),
        )
    ]


def ours(u, dt, a, b, c, d, z, state):
    return selective_scan(u, dt, a, b, c, d=d, z=z, state=state)


def by_sums(u, dt, a, b, c, d, z, state):
    """h_t = e^{a (Δ_1 + … + Δ_t)} h_0 + Σ_s e^{a (Δ_{s+1} + … + Δ_t)} Δ_s b_s u_s: L² terms, no recurrence."""
    outputs, h = [u[:, :0]], state
    for t in range(u.shape[1]):
        h = (dt[:, : t + 1].sum(1)[..., None] * a).exp() * state
        for s in range(t + 1):
            decay = (dt[:, s + 1 : t + 1].sum(1)[..., None] * a).exp()
            h = h + decay * (dt[:, s] * u[:, s])[..., None] * b[:, s, None]
        outputs.append(((h * c[:, t, None]).sum(-1) + d * u[:, t])[:, None])
    return torch.cat(outputs, 1) * (z * torch.sigmoid(z)), h


# The scan against sums and libraries


@LENGTHS
def test_outputs_states_and_all_gradients_are_those_of_sums(length):
    tensors = make(length)
    assert_close(with_gradients(ours, *tensors), with_gradients(by_sums, *tensors))


def test_without_d_z_and_state_they_are_0_absent_and_0():
    u, dt, a, b, c, d, z, state = make(6)
    y, last = selective_scan(u, dt, a, b, c)
    full, end = ours(u, dt, a, b, c, 0 * d, z, 0 * state)
    assert_close(y * F.silu(z), full)
    assert_close(last, end)
    assert_close(selective_scan(u, dt, a, b, c, d=d)[0], y + d * u)
    assert_close(selective_scan(u, dt, a, b, c, z=z)[0], y * F.silu(z))


@pytest.fixture(scope="module")
def mambapys():
    """mambapy's module, in plain torch; its scan works in place, with gradients of its own."""
    import mambapy.mamba

    return mambapy.mamba


@LENGTHS
def test_outputs_and_all_gradients_are_mambapys(mambapys, length):
    u, dt, a, b, c, d, _, _ = make(length)
    ours = with_gradients(lambda u, dt, a, b, c, d: selective_scan(u, dt, a, b, c, d=d)[:1], u, dt, a, b, c, d)
    theirs = with_gradients(lambda *x: [mambapys.MambaBlock.selective_scan(None, *x)], u, dt, a, b, c, d)
    assert_close(ours, theirs)


@pytest.fixture(scope="module")
def transformers_mamba():
    """The module of transformers' Mamba, which takes seconds to import."""
    from transformers.models.mamba import modeling_mamba

    return modeling_mamba


@pytest.mark.torchvision
@pytest.mark.parametrize("length", [1, 7])
def test_outputs_states_and_all_gradients_are_those_of_transformers(transformers_mamba, length):
    """In float32, to which theirs rounds b and u. Theirs is (B, D, L) and (B, N, L), and has no first state."""
    u, dt, a, b, c, d, z, _ = make(length, dtype=torch.float32)

    def theirs(u, dt, a, b, c, d, z):
        y, state = transformers_mamba.mamba_selective_scan(
            u.mT, dt.mT, a, b.mT, c.mT, d, z.mT, return_last_state=True, use_associative_scan=False
        )
        return y.mT, state

    tensors = u, dt, a, b, c, d, z
    mine = with_gradients(lambda *x: selective_scan(*x[:5], d=x[5], z=x[6]), *tensors)
    assert_close(mine, with_gradients(theirs, *tensors))


@LENGTHS
def test_scan_is_torchs_associative_scan(length):
    from torch._higher_order_ops.associative_scan import associative_scan

    steps = normal(2, length, 3).sigmoid(), normal(2, length, 3, seed=1)
    _, wanted = associative_scan(combine, steps, dim=1, combine_mode="generic")
    assert_close(scan(*steps), wanted)


def test_scan_of_ones_counts_and_of_factors_multiplies():
    ones = torch.ones(1, 11, 2)
    assert torch.equal(scan(ones, ones), ones.cumsum(1))
    first = F.one_hot(torch.zeros(1, 2, dtype=torch.long), 11).mT.float()
    assert torch.equal(scan(0.5 * ones, first), 2 * (0.5 * ones).cumprod(1))


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 1000, 1024])
def test_scan_combines_fewer_than_l_pairs_in_log_l_rounds(monkeypatch, length):
    from zhixing.sequence import selective_scan as module

    combined = []

    def counting(left, right):
        combined.append(left[0].shape[1])
        return combine(left, right)

    monkeypatch.setattr(module, "combine", counting)
    module.scan(torch.ones(1, length), torch.ones(1, length))
    assert len(combined) == int(math.log2(length))
    assert sum(combined) < length


def test_combine_is_associative_but_not_commutative():
    first, second, third = ((normal(5, seed=i), normal(5, seed=i + 3)) for i in range(3))
    assert_close(combine(combine(first, second), third), combine(first, combine(second, third)))
    assert_close(combine(first, second)[0], combine(second, first)[0])
    assert ((combine(first, second)[1] - combine(second, first)[1]).abs() > 0.01).all()


def test_combine_applies_the_left_step_first():
    (f, g), (p, q) = (2.0, 1.0), (3.0, 5.0)
    factor, term = combine((torch.tensor(f), torch.tensor(g)), (torch.tensor(p), torch.tensor(q)))
    h = 7.0
    assert factor * h + term == p * (f * h + g) + q


# Discretisation


def by_matrix_exponential(u, dt, a, b, c, state):
    """h' = a h + b u with u constant during each Δ: the exponential of Δ [[a, b u], [0, 0]] at (h, 1)."""
    h, outputs = state, []
    for t in range(u.shape[1]):
        written = b[:, t, None] * u[:, t, :, None]
        rows = torch.stack([a.expand_as(written), written], -1)
        generator = dt[:, t, :, None, None, None] * torch.stack([rows, torch.zeros_like(rows)], -2)
        step = torch.linalg.matrix_exp(generator)
        h = step[..., 0, 0] * h + step[..., 0, 1]
        outputs.append((h * c[:, t, None]).sum(-1))
    return torch.stack(outputs, 1), h


@pytest.mark.parametrize("slowed", [1.0, 0.1, 1e-3, 1e-9], ids=lambda x: f"a times {x}")
def test_exact_b_is_the_solution_of_the_differential_equation(slowed):
    u, dt, a, b, c, _, _, state = make(5)
    tensors = u, dt, slowed * a, b, c, state
    mine = with_gradients(lambda *x: selective_scan(*x[:5], state=x[5], exact_b=True), *tensors)
    assert_close(mine, with_gradients(by_matrix_exponential, *tensors))


def test_exact_b_with_a_of_0_is_euler():
    u, dt, a, b, c, _, _, _ = make(5)
    exact = with_gradients(lambda *x: selective_scan(x[0], x[1], 0 * a, *x[2:], exact_b=True), u, dt, b, c)
    euler = with_gradients(lambda *x: selective_scan(x[0], x[1], 0 * a, *x[2:]), u, dt, b, c)
    assert_close(exact[0], euler[0])
    assert_close(exact[1][0], euler[1][0])


@pytest.mark.parametrize("length", [1, 9])
def test_theorem_1_one_state_with_exact_b_is_a_gated_unit(length):
    """N = 1, a = -1, b = 1, Δ = softplus(s): h ← (1 - g) h + g u with g = sigmoid(s)."""
    u, s, ones = normal(1, length, 2), normal(1, length, 2, seed=1), torch.ones(1, length, 1, dtype=torch.float64)
    a = -torch.ones(2, 1, dtype=torch.float64)
    y, _ = selective_scan(u, F.softplus(s), a, ones, ones, exact_b=True)
    h, gates = torch.zeros(1, 2, dtype=torch.float64), torch.sigmoid(s)
    for t in range(length):
        h = (1 - gates[:, t]) * h + gates[:, t] * u[:, t]
        assert_close(y[:, t], h)
    euler, _ = selective_scan(u, F.softplus(s), a, ones, ones)
    assert (euler - y).abs().max() > 0.05


def test_a_constant_input_gains_delta_over_1_minus_its_exponential_with_eulers_b():
    ones = torch.ones(1, 400, 1, dtype=torch.float64)
    a = -torch.ones(1, 1, dtype=torch.float64)
    for delta in 0.1, 1.0, 3.0:
        assert_close(selective_scan(ones, delta * ones, a, ones, ones, exact_b=True)[1].item(), 1.0)
        wanted = delta / (1 - math.exp(-delta))
        assert_close(selective_scan(ones, delta * ones, a, ones, ones)[1].item(), wanted)


# Linear attention


def test_one_rate_and_one_step_for_all_is_linear_attention_with_decay():
    """Mamba-2: the channels of a head share Δ and a scalar a. q = c, k = b, v = Δ u, decay e^{Δa}."""
    u, dt, _, b, c, _, _, state = make(20)
    shared, rate = dt[..., :1], -0.7
    a = torch.full((3, 4), rate, dtype=torch.float64)
    mine = selective_scan(u, shared.expand_as(u), a, b, c, state=state)
    out, last = chunked_linear_attention(
        *(x[:, None] for x in (c, b, shared * u)),
        log_decay=rate * shared[:, None, :, 0],
        state=state.mT[:, None],
        scale=1.0,
        chunk=6,
    )
    assert_close(mine, (out[:, 0], last[:, 0].mT))


# States


@pytest.mark.parametrize("cut", [0, 1, 5, 10, 11])
def test_two_calls_with_the_state_passed_on_equal_one(cut):
    u, dt, a, b, c, d, z, state = make(11)
    whole, last = ours(u, dt, a, b, c, d, z, state)
    early, late = ([x[:, part] for x in (u, dt, b, c, z)] for part in (slice(cut), slice(cut, None)))
    first, middle = selective_scan(early[0], early[1], a, *early[2:4], d=d, z=early[4], state=state)
    second, end = selective_scan(late[0], late[1], a, *late[2:4], d=d, z=late[4], state=middle)
    assert_close(torch.cat([first, second], 1), whole)
    assert_close(end, last)


def test_a_step_of_0_holds_the_state_and_zeroed_inputs_let_it_decay():
    """Padding on the right: mask Δ, not u."""
    u, dt, a, b, c, _, _, _ = make(10)
    padding = torch.arange(10) >= 6
    _, wanted = selective_scan(u[:, :6], dt[:, :6], a, b[:, :6], c[:, :6])
    _, held = selective_scan(u, dt.masked_fill(padding[:, None], 0), a, b, c)
    assert_close(held, wanted)
    _, faded = selective_scan(u.masked_fill(padding[:, None], 0), dt, a, b, c)
    assert faded.norm() < 0.5 * wanted.norm()


def test_a_very_long_step_forgets_all_before_it():
    u, dt, a, b, c, _, _, state = make(4)
    dt[:, 2], a = 1e4, a - 1
    outputs, gradients = with_gradients(
        lambda *x: selective_scan(*x[:5], state=x[5], exact_b=True), u, dt, a, b, c, state
    )
    assert all(x.isfinite().all() for x in (*outputs, *gradients))
    fresh = selective_scan(u[:, 2:], dt[:, 2:], a, b[:, 2:], c[:, 2:], exact_b=True)
    assert_close(outputs[0][:, 2:], fresh[0])
    assert_close(outputs[1], fresh[1])


@EITHER_B
def test_first_and_second_derivative_pass_gradcheck(exact_b):
    u, dt, a, b, c, d, z, state = (x.requires_grad_() for x in make(3, batch=1, channels=2, n=2))

    def function(u, dt, a, b, c, d, z, state):
        return selective_scan(u, dt, a, b, c, d=d, z=z, state=state, exact_b=exact_b)

    assert torch.autograd.gradcheck(function, (u, dt, a, b, c, d, z, state))
    assert torch.autograd.gradgradcheck(function, (u, dt, a, b, c, d, z, state))


SIZES = {
    "empty batch": {"length": 3, "batch": 0},
    "no tokens": {"length": 0},
    "no channels": {"length": 3, "channels": 0},
    "no states": {"length": 3, "n": 0},
    "one element": {"length": 1, "batch": 1, "channels": 1, "n": 1},
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_sizes_of_zero_and_one(size):
    tensors = make(**size)
    assert_close(with_gradients(ours, *tensors), with_gradients(by_sums, *tensors))


@HALVES
def test_low_precision_error_is_at_most_twice_that_of_rounding_once(dtype):
    u, dt, a, b, c, d, z, state = make(100)
    u, b, c, z = (x.to(dtype) for x in (u, b, c, z))
    dt, a, d, state = (x.float() for x in (dt, a, d, state))
    y, last = ours(u, dt, a, b, c, d, z, state)
    assert (y.dtype, last.dtype) == (dtype, torch.float32)
    exact, end = ours(*(x.double() for x in (u, dt, a, b, c, d, z, state)))
    assert (y.double() - exact).abs().max() <= 2 * (exact.to(dtype).double() - exact).abs().max()
    assert_close(last, end.float())


def test_small_steps_survive_in_bfloat16():
    """e^{-0.001} is 1 in bfloat16, so that a state computed in it would never decay."""
    ones = torch.ones(1, 1000, 1, dtype=torch.bfloat16)
    dt, a = torch.full((1, 1000, 1), 0.001, dtype=torch.bfloat16), -torch.ones(1, 1, dtype=torch.bfloat16)
    _, last = selective_scan(0 * ones, dt, a, ones, ones, state=torch.ones(1, 1, 1))
    assert abs(last.item() - math.exp(-1)) < 0.01
    assert (dt[0, 0] * a).exp() == 1


def test_autocast_changes_nothing():
    tensors = make(9, dtype=torch.float32)
    wanted = ours(*tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ours(*tensors)
    assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))


def test_takes_non_contiguous_input_and_leaves_arguments_alone():
    tensors = make(6)
    strided = [x.mT.contiguous().mT if x.ndim > 1 else x.repeat_interleave(2)[::2] for x in tensors]
    copies = [x.clone() for x in strided]
    assert not any(x.is_contiguous() for x in strided)
    assert_close(ours(*strided), ours(*tensors))
    assert all(torch.equal(x, copy) for x, copy in zip(strided, copies, strict=True))


def test_factors_and_inverse_factors_fail_where_the_scan_does_not():
    """cumsum(term / product) · product: at the default rates and steps most products underflow."""
    length = 2048
    dt = torch.exp(torch.linspace(math.log(0.001), math.log(0.1), 8)).expand(1, length, 8)
    a = -torch.arange(1.0, 17).expand(8, 16)
    ones, u = torch.ones(1, length, 16), normal(1, length, 8, dtype=torch.float32)
    products = (dt[..., None] * a).cumsum(1).exp()
    assert not (dt[..., None] * u[..., None] / products).cumsum(1).mul(products).isfinite().all()
    y, _ = selective_scan(u, dt, a, ones, ones)
    exact, _ = selective_scan(*(x.double() for x in (u, dt, a, ones, ones)))
    assert_close(y, exact.float())


# The block


def shaken(module, scale=0.1):
    """Move every parameter, so that zeros and ones are not special."""
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p += scale * normal(*p.shape, seed=100 + i, dtype=p.dtype)
    return module


@pytest.fixture(scope="module")
def mixers(transformers_mamba):
    """Return a function that makes transformers' mixer."""
    from transformers import MambaConfig

    def make(width, **settings):
        config = MambaConfig(hidden_size=width, num_hidden_layers=1, use_associative_scan=False, **settings)
        torch.manual_seed(0)
        return shaken(transformers_mamba.MambaMixer(config, layer_idx=0))

    return make


BLOCKS = {
    "defaults": (32, {}, {}),
    "odd": (19, {"state": 3, "conv": 2, "expand": 3}, {"state_size": 3, "conv_kernel": 2, "expand": 3}),
    "one of each": (1, {"state": 1, "conv": 1, "expand": 1}, {"state_size": 1, "conv_kernel": 1, "expand": 1}),
}


@pytest.mark.torchvision
@pytest.mark.parametrize(("width", "settings", "theirs"), BLOCKS.values(), ids=BLOCKS)
def test_block_is_transformers_mixer_in_outputs_and_all_gradients(mixers, width, settings, theirs):
    mixer = mixers(width, **theirs)
    block = MambaBlock(width, **settings)
    block.load_state_dict(mixer.state_dict())
    x = normal(2, 9, width, dtype=torch.float32)
    results = []
    for module in block, mixer:
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        names, parameters = zip(*module.named_parameters(), strict=True)
        gradients = torch.autograd.grad(y, (leaf, *parameters), normal(*y.shape, seed=1, dtype=y.dtype))
        results.append({"y": y.detach(), **dict(zip(("x", *names), gradients, strict=True))})
    assert_close(*results)


@pytest.mark.torchvision
def test_steps_are_transformers_steps(mixers):
    from transformers import DynamicCache

    mixer = mixers(32).eval()
    block = MambaBlock(32)
    block.load_state_dict(mixer.state_dict())
    x, theirs = normal(2, 6, 32, dtype=torch.float32), DynamicCache(config=mixer.config)
    with torch.no_grad():
        wanted = [mixer(x[:, :3], cache=theirs), *(mixer(x[:, i : i + 1], cache=theirs) for i in (3, 4, 5))]
        y, cache = block.step(x[:, :3])
        found = [y]
        for i in (3, 4, 5):
            y, cache = block.step(x[:, i : i + 1], cache)
            found.append(y)
    assert_close(found, wanted)


def test_block_with_mambapys_weights_gives_its_outputs_and_steps(mambapys):
    torch.manual_seed(0)
    theirs = shaken(mambapys.MambaBlock(mambapys.MambaConfig(d_model=20, n_layers=1, d_state=5))).double()
    block = MambaBlock(20, state=5).double()
    block.load_state_dict(theirs.state_dict())
    x = normal(2, 7, 20)
    # It rounds a and D to float32.
    assert_close(block(x), theirs(x), rtol=1e-5, atol=1e-6)
    kept, cache = (torch.zeros(2, 40, 5).double(), torch.zeros(2, 40, 3).double()), None
    for i in range(7):
        wanted, kept = theirs.step(x[:, i], kept)
        found, cache = block.step(x[:, i : i + 1], cache)
        assert_close(found[:, 0], wanted, rtol=1e-5, atol=1e-6)
    assert_close(cache[0].mT, kept[1])


@pytest.mark.parametrize("conv", [1, 2, 4])
@pytest.mark.parametrize("parts", [[1] * 9, [2, 5, 2], [0, 9], [9, 0], [8, 1]], ids=str)
def test_steps_of_any_length_equal_the_whole(conv, parts):
    torch.manual_seed(0)
    block = shaken(MambaBlock(6, state=3, conv=conv)).double()
    x, cache, found = normal(2, 9, 6), None, []
    for part in x.split(parts, dim=1):
        y, cache = block.step(part, cache)
        found.append(y)
    assert_close(torch.cat(found, 1), block(x))
    assert cache[0].shape == (2, conv - 1, 12)
    assert cache[1].shape == (2, 12, 3)


def test_block_is_causal():
    torch.manual_seed(0)
    block, x = shaken(MambaBlock(5)), normal(1, 8, 5, dtype=torch.float32)
    changed = x.clone()
    changed[:, 4] += 1
    moved = (block(changed) - block(x)).abs().amax(-1)[0]
    assert (moved[:4] == 0).all()
    assert (moved[4:] > 0).all()


def test_block_starts_with_steps_between_a_thousandth_and_a_tenth_and_rates_1_to_n():
    torch.manual_seed(0)
    block = MambaBlock(256)
    steps = F.softplus(block.dt_proj.bias).detach()
    assert 0.00099 < steps.min() < 0.002
    assert 0.05 < steps.max() < 0.101
    assert abs(steps.log().mean() - math.log(0.01)) < 0.2
    assert_close(block.A_log.exp()[17], torch.arange(1.0, 17))
    assert (block.D == 1).all()
    assert block.dt_proj.weight.abs().max() <= 0.25


# Width and number of blocks; parameters of the released models.
RELEASED = {
    "130M": (768, 24, 129_135_360),
    "370M": (1024, 48, 371_516_416),
    "790M": (1536, 48, 793_204_224),
    "1.4B": (2048, 48, 1_372_178_432),
    "2.8B": (2560, 64, 2_768_345_600),
}


@pytest.mark.parametrize(("width", "blocks", "parameters"), RELEASED.values(), ids=RELEASED)
def test_parameters_of_the_released_models(width, blocks, parameters):
    """An embedding of 50280 tokens that is also the output layer, a norm before each block and one at the end."""
    with torch.device("meta"):
        block = MambaBlock(width)
    count = sum(p.numel() for p in block.parameters())
    assert blocks * (count + width) + width + 50280 * width == parameters


@HALVES
def test_block_in_16_bits_and_under_autocast(dtype):
    torch.manual_seed(0)
    block, x = MambaBlock(16), normal(1, 30, 16, dtype=torch.float32)
    exact = block(x)
    with torch.autocast("cpu", dtype=dtype):
        y, (recent, state) = block.step(x)
    assert (y.dtype, recent.dtype, state.dtype) == (dtype, dtype, torch.float32)
    halved = block.to(dtype)(x.to(dtype))
    assert halved.dtype == dtype
    for found in y, halved:
        assert (found.float() - exact).norm() < 0.05 * exact.norm()


def test_block_trains_and_deep_copies():
    import copy

    torch.manual_seed(0)
    block = copy.deepcopy(MambaBlock(8))
    optimizer = torch.optim.Adam(block.parameters(), lr=0.01)
    x = normal(4, 12, 8, dtype=torch.float32)
    target = x.roll(1, 1)
    losses = []
    for _ in range(30):
        loss = F.mse_loss(block(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in block.parameters())


def test_two_layers_with_frozen_input():
    """No gradient to the input, as in the first layer of a network."""
    torch.manual_seed(0)
    net = nn.Sequential(MambaBlock(4), MambaBlock(4))
    net(torch.zeros(1, 3, 4)).sum().backward()
    assert net[0].conv1d.bias.grad is not None


# Wrong input


def right(**changes):
    tensors = {
        "u": torch.zeros(2, 5, 3),
        "dt": torch.ones(2, 5, 3),
        "a": -torch.ones(3, 4),
        "b": torch.zeros(2, 5, 4),
        "c": torch.zeros(2, 5, 4),
    }
    return {**tensors, **changes}


WRONG = {
    "one sequence without batch": (right(u=torch.zeros(5, 3)), r"u must be \(B, L, D\).* are \(5, 3\) and \(3, 4\)"),
    "a vector a": (right(a=-torch.ones(4)), r"and a \(D, N\), but they are \(2, 5, 3\) and \(4,\)"),
    "channels before time": (right(dt=torch.ones(2, 3, 5)), r"dt must be of shape \(2, 5, 3\).* is \(2, 3, 5\)"),
    "a of other channels": (right(a=-torch.ones(5, 4)), r"a must be of shape \(3, 4\).* is \(5, 4\)"),
    "b for each channel": (right(b=torch.zeros(2, 5, 3, 4)), r"b must be of shape \(2, 5, 4\).* is \(2, 5, 3, 4\)"),
    "c of another length": (right(c=torch.zeros(2, 6, 4)), r"c must be of shape \(2, 5, 4\).* is \(2, 6, 4\)"),
    "d for each state": (right(d=torch.ones(4)), r"d must be of shape \(3,\).* is \(4,\)"),
    "z of another batch": (right(z=torch.zeros(1, 5, 3)), r"z must be of shape \(2, 5, 3\).* is \(1, 5, 3\)"),
    "state transposed": (right(state=torch.zeros(2, 4, 3)), r"state must be of shape \(2, 3, 4\).* is \(2, 4, 3\)"),
    "integers": (right(u=torch.zeros(2, 5, 3).long()), r"u must be of a floating-point type, but is torch\.int64"),
    "complex a": (right(a=-torch.ones(3, 4).cfloat()), r"a must be of a floating-point type, but is torch\.complex64"),
    "devices": (right(b=torch.zeros(2, 5, 4, device="meta")), "b is on meta, but u on cpu"),
    "dt before softplus": (right(dt=torch.full((2, 5, 3), -3.0)), r"dt must be at least 0.* smallest element is -3"),
    "one dt below 0": (
        right(dt=torch.tensor([1.0, 1.0, -0.25]).expand(2, 5, 3)),
        r"dt must be at least 0.* smallest element is -0\.25",
    ),
    "A_log": (
        right(a=torch.full((3, 4), 2.5)),
        r"a must be at most 0, usually .* largest element is 2\.5",
    ),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize(("tensors", "said"), WRONG.values(), ids=WRONG)
def test_refuses_wrong_tensors(tensors, said):
    with pytest.raises(ValueError, match=said):
        selective_scan(**tensors)


@pytest.mark.wrong_input
@pytest.mark.parametrize("name", ["width", "state", "conv", "expand"])
@pytest.mark.parametrize("size", [0, -1, 2.0, True], ids=str)
def test_block_refuses_wrong_sizes(name, size):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer, but is {size}"):
        MambaBlock(**{"width": 8, name: size})


@pytest.mark.wrong_input
def test_block_refuses_wrong_input_and_caches():
    block = MambaBlock(8)
    for x in torch.zeros(2, 3, 9), torch.zeros(3, 8), torch.zeros(2, 3, 8).long():
        with pytest.raises(ValueError, match=r"x must be floating-point and of shape \(B, L, 8\), but is"):
            block(x)
    _, (recent, state) = block.step(torch.zeros(2, 3, 8))
    with pytest.raises(ValueError, match=r"3 inputs of 16 channels for each of 1 sequences, but is of shape \(2, 3"):
        block.step(torch.zeros(1, 1, 8), (recent, state))
    with pytest.raises(ValueError, match=r"3 inputs of 16 channels for each of 2 sequences, but is of shape \(2, 2"):
        block.step(torch.zeros(2, 1, 8), (recent[:, 1:], state))
    with pytest.raises(ValueError, match=r"state must be of shape \(2, 16, 16\)"):
        block.step(torch.zeros(2, 1, 8), (recent, state[:1]))
