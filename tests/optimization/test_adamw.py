"""Adam and AdamW against torch's, against loops from the papers' algorithms, and against closed forms."""

import copy
import inspect
import math
import types

import numpy
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from zhixing.optimization import adamw
from zhixing.optimization.adamw import Adam, AdamW, adam_update, adamw_update, decay_groups

PAIRS = pytest.mark.parametrize(("ours", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)], ids=str)
UPDATES = pytest.mark.parametrize("update", [adam_update, adamw_update], ids=lambda update: update.__name__)
TIGHT = {"rtol": 1e-12, "atol": 1e-12}
SETTINGS = {
    "defaults": {},
    "decay": {"lr": 1e-2, "weight_decay": 0.1},
    "strong decay": {"lr": 0.3, "weight_decay": 2.0},
    "no decay": {"weight_decay": 0.0},
    "large eps": {"eps": 0.1, "weight_decay": 0.3},
    "other betas": {"betas": (0.5, 0.7), "weight_decay": 0.05},
    "no momentum": {"betas": (0.0, 0.99)},
    "no memory": {"betas": (0.9, 0.0)},
    "lr 0": {"lr": 0.0, "weight_decay": 0.5},
}
SHAPES = {
    "matrix": (3, 5),
    "vector": (7,),
    "scalar": (),
    "one element": (1,),
    "empty": (0, 4),
    "kernel": (2, 3, 3, 3),
    "large": (1001, 7),
}


def gradients(shape, steps=100, seed=0):
    """Normal, of a size that differs from element to element by orders of magnitude, and in places 0."""
    generator = torch.Generator().manual_seed(seed)
    scale = 10 ** (3 * torch.randn(shape, dtype=torch.float64, generator=generator))
    for _ in range(steps):
        g = scale * torch.randn(shape, dtype=torch.float64, generator=generator)
        yield torch.where(torch.rand(shape, generator=generator) < 0.1, 0.0, g)


def start(shape, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def trace(optimizer_class, shape=(3, 5), settings=SETTINGS["decay"], steps=100):
    """The parameter after each step, from the same start and with the same gradients."""
    theta = start(shape).requires_grad_()
    optimizer = optimizer_class([theta], **settings)
    path = []
    for g in gradients(shape, steps):
        theta.grad = g
        optimizer.step()
        path.append(theta.detach().clone())
    return torch.stack(path)


@PAIRS
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_equals_torchs_to_1e_12_over_100_steps(ours, theirs, settings):
    assert_close(trace(ours, settings=settings), trace(theirs, settings=settings), **TIGHT)


@PAIRS
@pytest.mark.parametrize("loop", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
def test_equals_torchs_whichever_loop_it_runs(ours, theirs, loop):
    assert_close(trace(ours), trace(theirs, settings=SETTINGS["decay"] | loop), **TIGHT)


@PAIRS
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_torchs_for_any_shape(ours, theirs, shape):
    assert_close(trace(ours, shape, steps=20), trace(theirs, shape, steps=20), **TIGHT)


@PAIRS
def test_defaults_are_torchs(ours, theirs):
    theta = torch.zeros(1, requires_grad=True)
    group, expected = (made([theta]).param_groups[0] for made in (ours, theirs))
    for name in ("lr", "betas", "eps", "weight_decay"):
        assert group[name] == expected[name]
    names = list(inspect.signature(ours).parameters)
    assert names == list(inspect.signature(theirs).parameters)[: len(names)]
    update = {Adam: adam_update, AdamW: adamw_update}[ours]
    for name in ("lr", "betas", "eps", "weight_decay"):
        assert inspect.signature(update).parameters[name].default == expected[name]


@PAIRS
def test_equals_torchs_on_non_contiguous_tensors_and_moves_them_in_place(ours, theirs):
    path = []
    for made in (ours, theirs):
        storage = start((6, 4))
        theta = storage.T.requires_grad_()
        optimizer = made([theta], **SETTINGS["decay"])
        for g in gradients((4, 12), 20):
            theta.grad = g[:, ::2]
            optimizer.step()
        assert_close(storage.T, theta.detach(), rtol=0, atol=0)
        path.append(theta.detach())
    assert_close(*path, **TIGHT)


def train(optimizer_class, steps=100, *, schedule=False, groups=False, device="cpu"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.Tanh(), nn.Linear(9, 3)).double().to(device)
    x, y = torch.randn(2, 40, 6, dtype=torch.float64).to(device)
    params = decay_groups(model, weight_decay=0.2) if groups else model.parameters()
    optimizer = optimizer_class(params, lr=2e-3, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        ((model(x) - y[:, :3]) ** 2).mean().backward()
        optimizer.step()
        if schedule:
            scheduler.step()
    return torch.cat([theta.detach().flatten() for theta in model.parameters()])


@PAIRS
@pytest.mark.parametrize("how", [{}, {"schedule": True}, {"groups": True}, {"schedule": True, "groups": True}], ids=str)
def test_trains_a_network_to_torchs_parameters(ours, theirs, how):
    assert (train(ours, **how) - train(theirs, **how)).abs().max() < 1e-12


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@PAIRS
def test_trains_a_network_to_torchs_parameters_on_a_gpu(ours, theirs):
    assert (train(ours, device="cuda") - train(theirs, device="cuda")).abs().max() < 1e-12


def by_the_papers_algorithm(theta, gs, lr, beta1, beta2, eps, decay, decoupled):
    """Algorithm 2 of arXiv 1711.05101 for one number, in plain floats; its own λ is lr · decay, its η 1."""
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        if not decoupled:
            g = g + decay * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        step = lr * (m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + eps)
        theta = theta - (step + (lr * decay * theta if decoupled else 0.0))
    return theta


@UPDATES
def test_equals_the_papers_algorithm_in_plain_floats(update):
    gs = torch.stack(list(gradients((20,), 50)))
    theta, m, v = start((20,)), *torch.zeros(2, 20, dtype=torch.float64)
    expected = [
        by_the_papers_algorithm(theta[i].item(), gs[:, i].tolist(), 0.05, 0.8, 0.97, 1e-6, 0.4, update is adamw_update)
        for i in range(20)
    ]
    for t, g in enumerate(gs, 1):
        theta, m, v = update(theta, g, m, v, t=t, lr=0.05, betas=(0.8, 0.97), eps=1e-6, weight_decay=0.4)
    assert_close(theta, torch.tensor(expected, dtype=torch.float64), **TIGHT)


def test_one_step_worked_by_hand():
    # θ = 2, g = 3, zero moments, t = 1, λ = 1/2. Adam's gradient is 3 + 1 = 4, so it moves by α · 4 / (4 + ε), ε = 1.
    # AdamW moves by α (3 / (3 + 1) + 1/2 · 2).
    theta, g, zero = (torch.tensor(value, dtype=torch.float64) for value in (2.0, 3.0, 0.0))
    adam = adam_update(theta, g, zero, zero, t=1, lr=0.1, eps=1.0, weight_decay=0.5)
    adamw = adamw_update(theta, g, zero, zero, t=1, lr=0.1, eps=1.0, weight_decay=0.5)
    assert_close([x.item() for x in adam], [2 - 0.1 * 0.8, 0.4, 0.016])
    assert_close([x.item() for x in adamw], [2 - 0.1 * 1.75, 0.3, 0.009])


@UPDATES
def test_mutates_no_argument(update):
    tensors = [start((4,)), start((4,), 2), start((4,), 3), start((4,), 4).abs()]
    before = copy.deepcopy(tensors)
    update(*tensors, t=3, weight_decay=0.1)
    assert_close(tensors, before, rtol=0, atol=0)


@UPDATES
def test_gradcheck_of_all_tensors_and_settings(update):
    theta, g, m = (start((3, 2), seed).requires_grad_() for seed in (1, 2, 3))
    v = (start((3, 2), 4) ** 2 + 0.1).requires_grad_()
    lr = torch.tensor([[0.3], [0.1], [0.2]], dtype=torch.float64, requires_grad=True)
    decay = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def function(theta, g, m, v, lr, decay):
        return update(theta, g, m, v, t=4, lr=lr, weight_decay=decay, eps=1e-3)

    assert torch.autograd.gradcheck(function, (theta, g, m, v, lr, decay))


@UPDATES
def test_learning_rate_and_decay_broadcast_to_a_grid(update):
    lrs, decays = torch.tensor([0.1, 0.01]).reshape(2, 1, 1), torch.tensor([0.0, 0.1, 1.0]).reshape(3, 1)
    theta = start((2, 3, 4))
    m = v = torch.zeros_like(theta)
    moved, _, _ = update(theta, start((2, 3, 4), 2), m, v, t=1, lr=lrs, weight_decay=decays)
    for i in range(2):
        for j in range(3):
            alone, _, _ = update(
                theta[i, j],
                start((2, 3, 4), 2)[i, j],
                m[i, j],
                v[i, j],
                t=1,
                lr=lrs[i].item(),
                weight_decay=decays[j].item(),
            )
            assert_close(moved[i, j], alone)


@PAIRS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_low_precision_keeps_its_type_and_errs_at_most_twice_as_much_as_torchs(ours, theirs, dtype):
    generator = torch.Generator().manual_seed(0)
    begin, *gs = torch.randn(6, 4000, generator=generator).to(dtype)

    def end(made, dtype):
        theta = begin.to(dtype, copy=True).requires_grad_()
        optimizer = made([theta], lr=0.1, weight_decay=0.1, eps=1e-3)
        for g in gs:
            theta.grad = g.to(dtype)
            optimizer.step()
        assert {x.dtype for x in optimizer.state[theta].values() if x.ndim} == {theta.dtype} == {dtype}
        return theta.detach().double()

    exact = end(theirs, torch.float64)
    assert (end(ours, dtype) - exact).abs().mean() <= 2 * (end(theirs, dtype) - exact).abs().mean()


@PAIRS
@pytest.mark.parametrize(
    ("dtype", "size"),
    [(torch.float16, 300.0), (torch.bfloat16, 1e20), (torch.float32, 1e20), (torch.float64, 1e155)],
    ids=str,
)
def test_gradients_whose_square_overflows_move_the_parameter_like_others(ours, theirs, dtype, size):
    # pytorch#8860: an infinite second moment would freeze the parameter for good.
    def end(made, dtype):
        theta = torch.ones(1, dtype=dtype, requires_grad=True)
        optimizer = made([theta], lr=0.01)
        for g in (size, size, size, 1.0, 1.0, 1.0):
            theta.grad = torch.full_like(theta, g)
            optimizer.step()
        assert optimizer.state[theta]["exp_avg_sq"].isfinite().all()
        return theta.item()

    exact = 0.949 if ours is Adam else 0.9484  # by hand: α (1 + 1 + 1 + .82 + .69 + .6), and a decay of 0.0006
    assert abs(end(ours, dtype) - exact) <= max(2 * abs(end(theirs, dtype) - exact), 1e-3)


@PAIRS
def test_where_float16_does_not_suffice_torchs_does_not_either(ours, theirs):
    for gradient, frozen in ((1e4, True), (0.0, False)):
        for made in (ours, theirs):
            theta = torch.ones(1, dtype=torch.float16, requires_grad=True)
            theta.grad = torch.full_like(theta, gradient)
            made([theta], lr=0.1, weight_decay=0.0).step()
            assert theta.item() == 1 if frozen else theta.isnan().all()


@pytest.mark.compiled
@PAIRS
@pytest.mark.parametrize("lr", [0.01, torch.tensor([0.01])], ids=str)
def test_compiled_step_equals_torchs_for_parameters_of_one_shape(ours, theirs, lr):
    # pytorch#185382: a counter read as a number is taken for a constant, and steps are left out or made twice.
    shapes = ((2, 3), (2, 3), ())

    def end(made, compiled):
        thetas = [start(shape, seed).float().requires_grad_() for seed, shape in enumerate(shapes)]
        optimizer = made(thetas, lr=lr if compiled else 0.01, weight_decay=0.1)
        torch.compiler.reset()
        step = torch.compile(optimizer.step, backend="aot_eager") if compiled else optimizer.step
        for t in range(4):
            for seed, theta in enumerate(thetas):
                theta.grad = start(theta.shape, 10 * t + seed).float()
            step()
        assert [state["step"].item() for state in optimizer.state.values()] == [4] * len(shapes)
        assert {x.dtype for state in optimizer.state.values() for x in state.values()} == {torch.float32}
        return [theta.detach() for theta in thetas]

    assert_close(end(ours, True), end(theirs, False))


@PAIRS
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)], ids=str)
def test_learning_rate_may_be_a_tensor_with_one_element(ours, theirs, shape):
    for parameter in ((), (3, 5), (0, 2)):
        expected = trace(theirs, parameter, {"lr": 0.01, "weight_decay": 0.1}, steps=5)
        settings = {"lr": torch.full(shape, 0.01, dtype=torch.float64), "weight_decay": 0.1}
        assert_close(trace(ours, parameter, settings, steps=5), expected, **TIGHT)


@PAIRS
@pytest.mark.parametrize("to_torch", [True, False], ids=["ours to torch's", "torch's to ours"])
def test_state_dict_goes_to_torchs_and_back_in_the_middle_of_training(ours, theirs, to_torch):
    first, second = (ours, theirs) if to_torch else (theirs, ours)
    theta = start((3, 5)).requires_grad_()
    optimizer = first([theta], **SETTINGS["decay"])
    for step, g in enumerate(gradients((3, 5))):
        if step == 40:
            state = optimizer.state_dict()
            optimizer = second([theta])
            optimizer.load_state_dict(state)
        theta.grad = g
        optimizer.step()
    assert_close(theta.detach(), trace(theirs)[-1], **TIGHT)
    assert optimizer.state[theta]["step"] == 100


@PAIRS
def test_state_may_count_steps_with_a_number_as_torchs_once_did(ours, theirs):
    ends = []
    for made in (ours, theirs):
        theta = start((3, 5)).requires_grad_()
        optimizer = made([theta])
        for g in gradients((3, 5), 10):
            theta.grad = g
            optimizer.step()
            state = optimizer.state_dict()
            for values in state["state"].values():
                values["step"] = int(values["step"])
            (optimizer := made([theta])).load_state_dict(state)
        ends.append(theta.detach())
    assert_close(*ends, **TIGHT)


@PAIRS
def test_state_has_torchs_names_and_values(ours, theirs):
    states = []
    for made in (ours, theirs):
        theta = start((3, 5)).requires_grad_()
        optimizer = made([theta], **SETTINGS["decay"])
        for g in gradients((3, 5), 7):
            theta.grad = g
            optimizer.step()
        states.append(dict(optimizer.state[theta]))
    assert_close(*states, **TIGHT)


@pytest.mark.parametrize("made", [Adam, AdamW], ids=str)
def test_groups_keep_their_settings_and_parameters_without_gradient_stay(made):
    fast, slow, still = (start((2,), seed).requires_grad_() for seed in (1, 2, 3))
    optimizer = made([{"params": [fast], "lr": 0.5}, {"params": [slow, still], "weight_decay": 0.0}], weight_decay=0.1)
    optimizer.add_param_group({"params": [later := start((2,), 4).requires_grad_()], "betas": (0.5, 0.6)})
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 1e-3, 1e-3]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0, 0.1]
    for theta in (fast, slow, later):
        theta.grad = torch.tensor([5.0, -5.0], dtype=torch.float64)
    optimizer.step()
    decay = 0.1 * start((2,)) if made is AdamW else 0.0
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64)
    assert_close(fast.detach(), start((2,)) - 0.5 * (sign + decay), rtol=1e-6, atol=1e-6)
    assert_close(slow.detach(), start((2,), 2) - 1e-3 * sign, rtol=1e-6, atol=1e-6)
    assert_close(still.detach(), start((2,), 3), rtol=0, atol=0)
    assert not optimizer.state[still]
    assert_close(
        optimizer.state[later]["exp_avg_sq"].mean(), torch.tensor(0.4 * 25, dtype=torch.float64), rtol=0.1, atol=0
    )


def test_step_returns_what_the_closure_returns_and_computes_its_gradient():
    theta = torch.tensor([3.0], requires_grad=True)
    optimizer = AdamW([theta], lr=0.1, weight_decay=0.0)

    def closure():
        optimizer.zero_grad()
        loss = (theta**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9
    assert_close(theta.detach(), torch.tensor([2.9]))
    assert optimizer.step() is None


def test_closes_in_on_the_minimum_of_a_quadratic():
    theta = torch.tensor([5.0, -3.0], dtype=torch.float64, requires_grad=True)
    optimizer = Adam([theta], lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        ((theta - torch.tensor([1.0, 2.0])) ** 2 * torch.tensor([1.0, 100.0])).sum().backward()
        optimizer.step()
    assert_close(theta.detach(), torch.tensor([1.0, 2.0], dtype=torch.float64), rtol=0, atol=1e-6)


# What the papers state, and what follows from their equations.


@UPDATES
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_first_step_is_the_learning_rate_times_the_sign(update, size):
    g = size * torch.tensor([1.0, -3.0, 0.5], dtype=torch.float64)
    zeros = torch.zeros_like(g)
    moved, _, _ = update(zeros, g, zeros, zeros, t=1, lr=0.1, eps=0.0, weight_decay=0.3)
    assert_close(moved, -0.1 * g.sign())


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.95), (0.5, 0.999)], ids=str)
def test_step_after_long_silence_is_that_of_section_2_1(betas):
    # Kingma & Ba: at most α (1 - β1) / sqrt(1 - β2), reached when only the current gradient is not zero.
    zero = torch.zeros((), dtype=torch.float64)
    moved, _, _ = adam_update(zero, zero + 7.0, zero, zero, t=100_000, lr=1.0, eps=0.0, betas=betas)
    assert_close(-moved.item(), (1 - betas[0]) / math.sqrt(1 - betas[1]))
    if betas == (0.9, 0.999):
        assert round(-moved.item(), 2) == 3.16


def test_growing_gradients_exceed_section_2_1_up_to_the_bound_of_cauchy_and_schwarz():
    beta1, beta2 = 0.9, 0.999
    theta = m = v = torch.zeros((), dtype=torch.float64)
    for t in range(300):
        before = theta
        g = torch.tensor((beta2 / beta1) ** t, dtype=torch.float64)
        theta, m, v = adam_update(theta, g, m, v, t=100_000 + t, lr=1.0, eps=0.0)
    bound = (1 - beta1) / math.sqrt((1 - beta2) * (1 - beta1**2 / beta2))
    assert_close((before - theta).item(), bound)
    assert bound > 2 * (1 - beta1) / math.sqrt(1 - beta2)


def test_equal_betas_bound_the_step_by_the_learning_rate():
    # By Jensen's inequality: m-hat and v-hat are then means of g and g² with the same weights.
    theta, m, v = torch.zeros(3, 5, dtype=torch.float64)
    for t, g in enumerate(gradients((5,), 200), 1):
        before = theta
        theta, m, v = adam_update(theta, g**3, m, v, t=t, lr=0.1, eps=1e-300, betas=(0.9, 0.9))
        assert (theta - before).abs().max() <= 0.1 * (1 + 1e-12)


def test_corrected_moments_of_constant_gradients_are_exact_from_the_first_step():
    # E[m_t] = (1 - β1^t) E[g]: for a constant gradient without the expectation.
    g = torch.tensor([3.0, -0.2], dtype=torch.float64)
    theta = m = v = torch.zeros_like(g)
    for t in range(1, 30):
        before = theta
        theta, m, v = adam_update(theta, g, m, v, t=t, lr=0.1, eps=0.0)
        assert_close(m, (1 - 0.9**t) * g)
        assert_close(v, (1 - 0.999**t) * g**2)
        assert_close(before - theta, 0.1 * g.sign())


def test_without_decay_both_are_one():
    assert_close(
        trace(Adam, (3, 5), {"weight_decay": 0.0}), trace(AdamW, (3, 5), {"weight_decay": 0.0}), rtol=0, atol=0
    )


def test_rescaled_gradients_leave_adamw_alone_but_not_l2():
    def end(made, factor):
        theta = start((6,)).requires_grad_()
        optimizer = made([theta], lr=0.01, weight_decay=0.5, eps=0.0)
        for g in gradients((6,), 50, seed=3):
            theta.grad = factor * g + torch.where(g == 0, 1e-300, 0.0)
            optimizer.step()
        return theta.detach()

    assert_close(end(AdamW, 128.0), end(AdamW, 1.0), **TIGHT)
    assert (end(Adam, 128.0) - end(Adam, 1.0)).abs().max() > 0.01


def test_difference_of_two_starts_shrinks_under_adamw_by_lr_times_decay_whatever_the_gradients():
    lr, decay = 0.01, 0.3
    plus, minus, zeros = (
        torch.ones(50, dtype=torch.float64),
        -torch.ones(50, dtype=torch.float64),
        torch.zeros(50).double(),
    )
    states = {"plus": (plus, zeros, zeros), "minus": (minus, zeros, zeros)}
    for t, g in enumerate(gradients((50,)), 1):
        states = {
            name: adamw_update(theta, g, m, v, t=t, lr=lr, weight_decay=decay) for name, (theta, m, v) in states.items()
        }
    half = (states["plus"][0] - states["minus"][0]) / 2
    assert_close(half, torch.full_like(half, (1 - lr * decay) ** 100))


@pytest.mark.parametrize(("sigma", "kept"), [(1e-5, 1 - 0.01 * 60), (1.0, 0.99**6), (10.0, 0.999**6)], ids=str)
def test_difference_of_two_starts_shrinks_under_l2_by_the_size_of_the_gradients(sigma, kept):
    # Quiet: the decay is all of the gradient, and its size is normalised away; α a step is lost. Noisy: λ/σ acts for λ.
    generator = torch.Generator().manual_seed(0)
    plus, minus = torch.ones(4000, dtype=torch.float64), -torch.ones(4000, dtype=torch.float64)
    m_plus = v_plus = m_minus = v_minus = torch.zeros_like(plus)
    for t in range(1, 61):
        g = sigma * torch.randn(4000, dtype=torch.float64, generator=generator)
        plus, m_plus, v_plus = adam_update(plus, g, m_plus, v_plus, t=t, lr=0.01, weight_decay=0.1)
        minus, m_minus, v_minus = adam_update(minus, g, m_minus, v_minus, t=t, lr=0.01, weight_decay=0.1)
    half = (plus - minus).mean().item() / 2
    assert abs(math.log(half) / math.log(kept) - 1) < 0.25


def test_random_walk_settles_at_the_equilibrium_of_kosson_et_al():
    # arXiv 2305.17212: a norm of sqrt(η C / 2λ), that is sqrt(η / 2λ) for each of C elements, whatever their σ.
    # Exactly, it is the root of η² (1 - β1)² (1 + a β1) / ((1 - a²) (1 - β1²) (1 - a β1)) with a = 1 - ηλ.
    lr, decay, sigma = 0.05, 0.2, torch.tensor([[1e-3], [1.0], [1e3]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    theta = m = v = torch.zeros(3, 2000, dtype=torch.float64)
    squares = []
    for t in range(1, 601):
        g = sigma * torch.randn(3, 2000, dtype=torch.float64, generator=generator)
        theta, m, v = adamw_update(theta, g, m, v, t=t, lr=lr, weight_decay=decay)
        squares.append(theta.square().mean(1))
    rms = torch.stack(squares[300:]).mean(0).sqrt()
    a, beta1 = 1 - lr * decay, 0.9
    exact = lr * (1 - beta1) * math.sqrt((1 + a * beta1) / ((1 - a**2) * (1 - beta1**2) * (1 - a * beta1)))
    assert abs(exact / math.sqrt(lr / (2 * decay)) - 1) < 0.05
    assert (rms / exact - 1).abs().max() < 0.02


def test_parameters_under_adamw_stay_within_the_inverse_of_the_decay():
    # arXiv 2404.04454: with a constant gradient the parameter ends where decay balances the largest step, at 1/λ.
    theta = torch.tensor([0.3, -0.1], dtype=torch.float64, requires_grad=True)
    optimizer = AdamW([theta], lr=0.1, weight_decay=0.5)
    for _ in range(300):
        theta.grad = torch.tensor([-4.0, 0.01], dtype=torch.float64)
        optimizer.step()
    assert_close(theta.detach(), torch.tensor([2.0, -2.0], dtype=torch.float64), rtol=1e-5, atol=0)


# Groups.


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.convolution = nn.Conv1d(4, 4, 3)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 10)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Linear(4, 4)
        self.frozen.requires_grad_(False)
        self.temperature = nn.Parameter(torch.tensor(1.0))


def test_groups_split_by_dimension_name_each_parameter_once_and_leave_out_frozen_ones():
    model = Model()
    names = {theta: name for name, theta in model.named_parameters()}
    decayed, spared = decay_groups(model, weight_decay=0.1)
    assert [names[theta] for theta in decayed["params"]] == ["embedding.weight", "convolution.weight"]
    assert [names[theta] for theta in spared["params"]] == [
        "temperature",
        "convolution.bias",
        "norm.weight",
        "norm.bias",
        "head.bias",
    ]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)


def test_groups_of_a_module_without_parameters_are_empty():
    assert [group["params"] for group in decay_groups(nn.ReLU(), weight_decay=0.1)] == [[], []]


# The suite notices the mistakes that the page warns of: each is made on purpose, in a copy of the module.


def mutant(function: str, line: str, by: str) -> types.ModuleType:
    """The module with one line of one of its functions replaced; the line must stand there exactly once."""
    source, part = inspect.getsource(adamw), inspect.getsource(getattr(adamw, function))
    assert source.count(part) == 1
    assert part.count(line) == 1
    module = types.ModuleType("mutant")
    exec(compile(source.replace(part, part.replace(line, by)), "mutant", "exec"), vars(module))
    return module


def check(module: types.ModuleType) -> None:
    """Both optimisers against torch's, over 100 steps with decay."""
    for ours, theirs in ((module.Adam, torch.optim.Adam), (module.AdamW, torch.optim.AdamW)):
        assert_close(trace(ours), trace(theirs), **TIGHT)


DIRECTION = "theta - lr * (m_hat / (root + eps) + weight_decay * theta)"
CORRECTED = "root = v.sqrt() / (1 - beta2**t) ** 0.5"
MUTATIONS = {
    "decoupled decay put into the gradient": (
        "adamw_update",
        "    beta1, beta2 = betas\n",
        "    beta1, beta2 = betas\n    g, weight_decay = g + weight_decay * theta, 0.0\n",
    ),
    "decay divided by the root, with the gradient": (
        "adamw_update",
        DIRECTION,
        "theta - lr * (m_hat + weight_decay * theta) / (root + eps)",
    ),
    "decay not multiplied by the learning rate": (
        "adamw_update",
        DIRECTION,
        "theta - lr * m_hat / (root + eps) - weight_decay * theta",
    ),
    "decay of the moved parameter": (
        "adamw_update",
        f"    theta = {DIRECTION}\n",
        "    theta = theta - lr * m_hat / (root + eps)\n    theta = theta - lr * weight_decay * theta\n",
    ),
    "correction of m one step late": ("adam_update", "m / (1 - beta1**t)", "m / (1 - beta1 ** (t + 1))"),
    "correction of v one step late": ("adam_update", CORRECTED, "root = v.sqrt() / (1 - beta2 ** (t + 1)) ** 0.5"),
    "correction of m one step late in AdamW": ("adamw_update", "m / (1 - beta1**t)", "m / (1 - beta1 ** (t + 1))"),
    "correction of v one step late in AdamW": (
        "adamw_update",
        CORRECTED,
        "root = v.sqrt() / (1 - beta2 ** (t + 1)) ** 0.5",
    ),
    "no correction": ("adamw_update", CORRECTED, "root = v.sqrt()"),
    "epsilon inside the root": ("adam_update", "(root + eps)", "(root**2 + eps).sqrt()"),
    "epsilon before the correction": ("adam_update", "(root + eps)", "(root + eps / (1 - beta2**t) ** 0.5)"),
    "steps not counted": ("Adam", "else step.item()", "else 1"),
}


@pytest.mark.mutation
@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_comparison_with_torch_notices(mutation):
    check(mutant(*mutation[:2], mutation[1]))
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        check(mutant(*mutation))


# Wrong input.


@pytest.mark.wrong_input
@UPDATES
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], ids=str)
@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_refuses_what_is_not_real(update, dtype, which):
    tensors = [torch.zeros(2) for _ in range(4)]
    tensors[which] = torch.zeros(2, dtype=dtype)
    name = ("parameter", "gradient", "m", "v")[which]
    with pytest.raises(ValueError, match=rf"dense tensors of real numbers, but {name} is torch.strided of {dtype}"):
        update(*tensors, t=1)


@pytest.mark.wrong_input
@UPDATES
@pytest.mark.parametrize("shape", [(3,), (1,), (1, 2), ()], ids=str)
def test_refuses_tensors_of_other_shapes(update, shape):
    tensors = [torch.zeros(2) for _ in range(4)]
    for which, name in ((1, "gradient"), (2, "m"), (3, "v")):
        given = [*tensors[:which], torch.zeros(shape), *tensors[which + 1 :]]
        with pytest.raises(ValueError, match=rf"parameter has \(2,\), {name} \("):
            update(*given, t=1)


@pytest.mark.wrong_input
@UPDATES
def test_refuses_to_count_from_0(update):
    with pytest.raises(ValueError, match="counted from 1, but t is 0"):
        update(*torch.zeros(4, 2), t=0)


@pytest.mark.wrong_input
@pytest.mark.parametrize("made", [Adam, AdamW], ids=str)
def test_refuses_sparse_gradients_and_complex_parameters(made):
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    first = torch.ones(2, requires_grad=True)
    first.grad = torch.ones(2)
    optimizer = made([first, *embedding.parameters()])
    with pytest.raises(ValueError, match=r"gradient is torch.sparse_coo of torch.float32"):
        optimizer.step()
    assert_close(first.detach(), torch.ones(2), rtol=0, atol=0)  # nothing has moved
    assert not optimizer.state
    theta = torch.zeros(2, dtype=torch.complex64, requires_grad=True)
    theta.abs().sum().backward()
    with pytest.raises(ValueError, match=r"parameter is torch.strided of torch.complex64"):
        made([theta]).step()


@pytest.mark.wrong_input
@pytest.mark.parametrize("made", [Adam, AdamW], ids=str)
@pytest.mark.parametrize("later", [False, True], ids=["at once", "in a group added later"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr must not be negative, but is -1.0"),
        ({"lr": math.nan}, "lr must not be negative, but is nan"),
        ({"eps": -1e-8}, "eps must not be negative, but is -1e-08"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative, but is -0.1"),
        ({"betas": (1.0, 0.999)}, r"betas must be two numbers in \[0, 1\), but are \(1.0, 0.999\)"),
        ({"betas": (0.9, -0.1)}, r"betas must be two numbers in \[0, 1\), but are \(0.9, -0.1\)"),
        ({"betas": (0.9, 0.99, 0.999)}, "betas must be two numbers"),
        ({"betas": 0.9}, "betas must be two numbers"),
        ({"lr": torch.tensor(-1.0)}, "lr must not be negative"),
        ({"lr": torch.tensor([0.1, 0.2])}, r"lr must be one number, but is a tensor of shape \(2,\)"),
        ({"lr": "0.1"}, "lr must be one number, but is '0.1'"),
        ({"lr": None}, "lr must be one number, but is None"),
        ({"lr": numpy.array([0.1])}, "lr must be one number, but is array"),
        ({"eps": 1j}, "eps must be one number, but is 1j"),
        ({"weight_decay": [0.1]}, r"weight_decay must be one number, but is \[0.1\]"),
        ({"betas": ("0.9", "0.999")}, "betas must be two numbers"),
        ({"betas": (torch.ones(2), 0.9)}, "betas must be two numbers"),
        ({"betas": (0.9, math.nan)}, "betas must be two numbers"),
        ({"weight_decay": torch.zeros(0)}, r"weight_decay must be one number, but is a tensor of shape \(0,\)"),
    ],
    ids=str,
)
def test_refuses_settings_out_of_range(made, settings, message, later):
    first, second = torch.zeros(2, 3)
    add = made([first]).add_param_group if later else lambda group: made([group])
    with pytest.raises(ValueError, match=message):
        add({"params": [second]} | settings)
    if not later:
        with pytest.raises(ValueError, match=message):
            made([first], **settings)


@pytest.mark.wrong_input
@PAIRS
@pytest.mark.parametrize("name", ["amsgrad", "maximize", "differentiable"])
def test_refuses_what_is_left_to_torch(ours, theirs, name):
    theta = torch.zeros(2, requires_grad=True)
    message = f"{name} is left to torch.optim"
    with pytest.raises(ValueError, match=message):
        ours([{"params": [theta], name: True}])
    with pytest.raises(ValueError, match=message):
        ours([theta]).load_state_dict(theirs([theta], **{name: True}).state_dict())


@pytest.mark.wrong_input
def test_adam_refuses_a_state_with_decoupled_decay():
    theta = torch.zeros(2, requires_grad=True)
    state = torch.optim.AdamW([theta]).state_dict()
    with pytest.raises(ValueError, match=r"decoupled_weight_decay is left to torch.optim"):
        Adam([theta]).load_state_dict(state)
    AdamW([theta]).load_state_dict(torch.optim.Adam([theta]).state_dict())


@pytest.mark.wrong_input
@pytest.mark.parametrize("made", [Adam, AdamW], ids=str)
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (torch.optim.SGD, "lacks .'betas', 'eps'."),
        (torch.optim.RMSprop, "lacks .'betas'."),
        (torch.optim.Adamax, "not exp_avg, exp_inf, step"),
        (torch.optim.NAdam, "not exp_avg, exp_avg_sq, mu_product, step"),
    ],
    ids=str,
)
def test_refuses_a_state_of_another_algorithm(made, other, message):
    theta = torch.zeros(2, requires_grad=True)
    theta.grad = torch.ones(2)
    (stepped := other([theta])).step()
    with pytest.raises(ValueError, match=message):
        made([theta]).load_state_dict(stepped.state_dict())


@pytest.mark.wrong_input
@PAIRS
def test_refuses_a_list_for_a_group_as_torch_does(ours, theirs):
    messages = set()
    for made in (ours, theirs):
        optimizer = made([torch.zeros(2, requires_grad=True)])
        with pytest.raises(TypeError) as error:
            optimizer.add_param_group([torch.zeros(2, requires_grad=True)])
        messages.add(str(error.value))
        assert len(optimizer.param_groups) == 1
    assert len(messages) == 1


@pytest.mark.wrong_input
@UPDATES
@pytest.mark.parametrize("wrong", [[1.0], 1.0, None, numpy.ones(1)], ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("which", range(4))
def test_refuses_what_is_no_tensor(update, wrong, which):
    tensors = [torch.ones(1)] * 4
    tensors[which] = wrong
    with pytest.raises(ValueError, match=f"needs dense tensors of real numbers, but .* is a {type(wrong).__name__}"):
        update(*tensors, t=1)


@pytest.mark.wrong_input
@UPDATES
@pytest.mark.parametrize("t", [-1, 0.5, math.nan, "1", None], ids=str)
def test_refuses_to_count_by_anything_but_numbers_from_1_on(update, t):
    with pytest.raises(ValueError, match="steps are counted from 1, but t is"):
        update(*[torch.ones(1)] * 4, t=t)


@pytest.mark.wrong_input
@pytest.mark.parametrize("made", [Adam, AdamW], ids=str)
def test_refuses_a_state_of_another_model_or_of_none(made):
    """Before any parameter has moved, and without a change to the optimiser."""
    first, second, other = torch.zeros(2, requires_grad=True), torch.zeros(3), torch.zeros(4)
    states = []
    for pair in ((first, second), (first, other)):
        for theta in pair:
            theta.grad = torch.ones_like(theta)
        states.append(made(pair))
        states[-1].step()
    with pytest.raises(ValueError, match=r"parameter 1 has shape \(4,\), but the state \(3,\)"):
        states[1].load_state_dict(states[0].state_dict())
    for nothing in ({}, torch.nn.Linear(1, 1).state_dict(), None, [1]):
        with pytest.raises(ValueError, match="has state and param_groups; is it a model's"):
            states[1].load_state_dict(nothing)
    assert states[1].state[other]["exp_avg"].shape == (4,)


@pytest.mark.wrong_input
@PAIRS
@pytest.mark.parametrize("number", [1, 3])
def test_refuses_a_state_of_fewer_or_more_parameters_as_torch_does(ours, theirs, number):
    messages = set()
    for made in (ours, theirs):
        thetas = [torch.ones(2, requires_grad=True) for _ in range(number)]
        for theta in thetas:
            theta.grad = torch.ones(2)
        (stepped := made(thetas)).step()
        optimizer = made([torch.ones(2, requires_grad=True) for _ in range(2)])
        with pytest.raises(ValueError, match=r"\w") as error:
            optimizer.load_state_dict(stepped.state_dict())
        messages.add(str(error.value))
        assert not optimizer.state
    assert len(messages) == 1


@PAIRS
def test_step_in_other_contexts_equals_torchs(ours, theirs):
    """Autocast and inference mode change nothing; a copy moves the copied parameters alone."""
    moved = []
    for made, contexts in (
        (ours, (torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode(), torch.enable_grad())),
        (theirs, (torch.no_grad(),) * 3),
    ):
        theta = torch.tensor([1.0, -2.0], requires_grad=True)
        optimizer = made([theta], lr=0.1)
        for context in contexts:
            theta.grad = torch.tensor([3.0, 4.0])
            with context:
                optimizer.step()
        twin = copy.deepcopy(optimizer)
        before = theta.detach().clone()
        twin.step()
        assert torch.equal(theta, before)
        moved.append(twin.param_groups[0]["params"][0].detach())
    assert_close(*moved)
