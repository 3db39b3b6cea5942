"""The engine against torch's autograd on random expressions, and against numbers worked by hand."""

import copy
import gc
import inspect
import math
import threading
import types
import weakref

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensors import normal
from torch.testing import assert_close

from zhixing.foundations import autograd
from zhixing.foundations.autograd import Variable, grad, no_grad, recording, topological
from zhixing.foundations.elementary import (
    absolute,
    cos,
    exp,
    largest,
    log,
    logsumexp,
    maximum,
    relu,
    sin,
    sqrt,
    tanh,
    where,
)

ON_RANDOM_EXPRESSIONS = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def leaf(*values: float, shape: tuple[int, ...] | None = None) -> Variable:
    value = torch.tensor(values, dtype=torch.float64)
    return Variable(value.reshape((len(values),) if shape is None else shape), requires_grad=True)


# Random expressions: what a step does in the engine and in torch.

ELEMENTWISE = {
    "sin": (sin, torch.sin),
    "cos": (cos, torch.cos),
    "tanh": (tanh, torch.tanh),
    "exp": (lambda x: exp(tanh(x)), lambda x: torch.exp(torch.tanh(x))),
    "log": (lambda x: log(x * x + 1), lambda x: torch.log(x * x + 1)),
    "sqrt": (lambda x: sqrt(x**2 + 1), lambda x: torch.sqrt(x**2 + 1)),
    "relu": (relu, torch.relu),
    "abs": (absolute, torch.abs),
    "negative": (lambda x: -x, lambda x: -x),
    "cube": (lambda x: x**3, lambda x: x**3),
    "one": (lambda x: x**0, lambda x: x**0),
    "root": (lambda x: (1 + x * x) ** -0.5, lambda x: (1 + x * x) ** -0.5),
    "numbers": (  # 3 / x is a tensor's reciprocal in torch, rounded otherwise
        lambda x: 2 - 3 / (x * x + 1) + 0.1 * x / 2 - 1,
        lambda x: 2 - torch.full_like(x, 3) / (x * x + 1) + 0.1 * x / 2 - 1,
    ),
    "clone": (lambda x: x.clone(), lambda x: x.clone()),
}
PAIRED = {
    "add": (lambda a, b: a + b, lambda a, b: a + b),
    "subtract": (lambda a, b: a - b, lambda a, b: a - b),
    "multiply": (lambda a, b: a * b, lambda a, b: a * b),
    "divide": (lambda a, b: a / (b * b + 1), lambda a, b: a / (b * b + 1)),
    "maximum": (maximum, torch.maximum),
    "where": (lambda a, b: where(a.value > b.value, a, b * 2), lambda a, b: torch.where(a > b, a, b * 2)),
}
REDUCTIONS = {
    "sum": (lambda x, dim, keepdim: x.sum(dim, keepdim=keepdim), torch.sum),
    "mean": (lambda x, dim, keepdim: x.mean(dim, keepdim=keepdim), torch.mean),
    "largest": (
        lambda x, dim, keepdim: largest(x, dim, keepdim=keepdim),
        lambda x, dim, keepdim: torch.max(x, dim, keepdim=keepdim).values,
    ),
    "logsumexp": (lambda x, dim, keepdim: logsumexp(x, dim, keepdim=keepdim), torch.logsumexp),
}
WHOLE = {
    "sum": (lambda x: x.sum(), torch.sum),
    "mean": (lambda x: x.mean(), torch.mean),
    "largest": (largest, torch.max),
}
INDICES = {
    "new axis": lambda shape: (None, ...),
    "first": lambda shape: (0,),
    "last": lambda shape: (..., -1),
    "every second": lambda shape: (slice(None, None, 2),),
    "but the first": lambda shape: (..., slice(1, None)),
    "repeated": lambda shape: (torch.tensor([0, shape[0] - 1, 0]),),
    "two lists": lambda shape: (..., torch.tensor([[0], [shape[-1] - 1]]), None),
    "mask": lambda shape: (torch.arange(math.prod(shape)).reshape(shape) % 2 == 0,),
}
SHAPES = [(), (1,), (3,), (2, 3), (1, 3), (3, 1), (3, 3), (2, 1, 3), (2, 3, 2), (4, 1, 1, 3)]


def random_expression(draw):
    """Leaves in the engine and in torch, and what the same random program makes of both: one number."""
    leaves = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(st.sampled_from(SHAPES))
        # Halves between -2 and 2, so that there are zeros and ties.
        count = math.prod(shape)
        halves = draw(st.lists(st.integers(-4, 4), min_size=count, max_size=count))
        value = torch.tensor(halves, dtype=torch.float64).reshape(shape) / 2
        leaves.append((Variable(value, requires_grad=True), value.clone().requires_grad_()))
    pool = list(leaves)
    for _ in range(draw(st.integers(3, 14))):
        pool.append(step(draw, pool))
    (ours, theirs), *others = reversed(pool)
    for _ in range(draw(st.integers(0, 2))):  # more than one way down
        other, of_torch = draw(st.sampled_from(others))
        ours, theirs = ours.sum() + sin(other).sum(), theirs.sum() + of_torch.sin().sum()
    weights = torch.linspace(-1, 2, theirs.numel(), dtype=torch.float64).reshape(theirs.shape)
    return leaves, (ours * Variable(weights)).sum(), (theirs * weights).sum()


def step(draw, pool):
    ours, theirs = draw(st.sampled_from(pool[-3:]))  # late ones, so that expressions grow long
    shape = tuple(theirs.shape)
    kinds = [("elementwise", name) for name in ELEMENTWISE] + [("paired", name) for name in PAIRED]
    kinds += [("whole", name) for name in WHOLE] + [("matmul", "")] * 4
    kinds += [("index", name) for name in (INDICES if shape else ["new axis"])]
    kinds += [("reshape", ""), ("expand", "")]
    if shape:
        kinds += [("dims", "")] + [("dim", name) for name in REDUCTIONS]
    if len(shape) > 1:
        kinds += [("mT", "")]
    kind, name = draw(st.sampled_from(kinds))
    if kind == "elementwise":
        engine, of_torch = ELEMENTWISE[name]
        result = engine(ours), of_torch(theirs)
    elif kind == "whole":
        engine, of_torch = WHOLE[name]
        result = engine(ours), of_torch(theirs)
    elif kind == "dim":
        engine, of_torch = REDUCTIONS[name]
        dim, keepdim = draw(st.integers(-len(shape), len(shape) - 1)), draw(st.booleans())
        result = engine(ours, dim, keepdim), of_torch(theirs, dim, keepdim)
    elif kind == "dims":
        dims = tuple(draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True)))
        keepdim = draw(st.booleans())
        result = ours.mean(dims, keepdim=keepdim), theirs.mean(dims, keepdim=keepdim)
    elif kind == "index":
        index = INDICES[name](shape)
        result = ours[index], theirs[index]
    elif kind == "reshape":
        result = ours.reshape((1, -1)), theirs.reshape(1, -1)
    elif kind == "expand":
        result = ours.expand((2, *shape)), theirs.expand(2, *shape)
    elif kind == "mT":
        result = ours.mT, theirs.mT
    else:
        fits = {"paired": broadcasts, "matmul": multiplies}[kind]
        partners = [pair for pair in pool if fits(shape, tuple(pair[1].shape))]
        if not partners:
            return sin(ours), theirs.sin()
        other, their_other = draw(st.sampled_from(partners))
        if kind == "matmul":
            result = ours @ other, theirs @ their_other
        else:
            engine, of_torch = PAIRED[name]
            result = engine(ours, other), of_torch(theirs, their_other)
    ours, theirs = result
    if theirs.numel() == 0 or theirs.numel() > 300:
        ours, theirs = ours.sum(), theirs.sum()
    if theirs.abs().max() > 5:
        ours, theirs = tanh(ours), theirs.tanh()
    return rounded_alike(ours, theirs), theirs


def rounded_alike(ours: Variable, theirs: torch.Tensor) -> Variable:
    """`ours`, whose value must be that of `theirs`, from here on to the last bit, so that ties are ties in both."""
    if not torch.equal(ours.value, theirs):  # products of matrices depend on how they are cut up
        assert_close(ours.value, theirs.detach())
        ours.value.data.copy_(theirs.detach())  # unseen by the version counter
    return ours


def broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(n == m or 1 in (n, m) for n, m in zip(reversed(a), reversed(b), strict=False))


def multiplies(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return bool(a and b) and a[-1] == (b[-2] if len(b) > 1 else b[0]) and broadcasts(a[:-2], b[:-2])


@given(st.data())
@ON_RANDOM_EXPRESSIONS
def test_value_and_first_and_second_derivatives_equal_torchs_on_random_expressions(data):
    leaves, ours, theirs = random_expression(data.draw)
    assert_close(ours.value, theirs.detach())
    ours.backward(retain_graph=True)
    theirs.backward(retain_graph=True)
    for mine, tensor in leaves:
        assert (mine.grad is None) == (tensor.grad is None)
    used = [pair for pair in leaves if pair[0].grad is not None]
    for mine, tensor in used:
        assert_close(mine.grad.value, tensor.grad)
        mine.grad = tensor.grad = None
    slopes = grad(ours, [mine for mine, _ in used], create_graph=True)
    of_torch = torch.autograd.grad(theirs, [tensor for _, tensor in used], create_graph=True)
    penalty = sum(((slope * slope).sum() for slope in slopes), start=0.0 * ours)
    of_penalty = sum(((slope * slope).sum() for slope in of_torch), start=0.0 * theirs)
    assert_close(penalty.value, of_penalty.detach())
    penalty.backward()
    of_penalty.backward()
    for mine, tensor in used:
        assert_close(mine.grad.value, tensor.grad)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3,), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3,)),
        ((2, 3), (3, 4)),
        ((3,), (5, 3, 2)),
        ((5, 2, 3), (3,)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((5, 1, 2, 3), (4, 3, 2)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
        ((1, 1), (1, 1)),
    ],
    ids=str,
)
def test_matmul_gradients_equal_torchs_in_every_case(a, b):
    a, b = normal(*a), normal(*b, seed=1)
    ours = Variable(a, requires_grad=True), Variable(b, requires_grad=True)
    theirs = a.clone().requires_grad_(), b.clone().requires_grad_()
    (product,), (of_torch,) = ([x @ y] for x, y in (ours, theirs))
    weights = normal(*of_torch.shape, seed=2)
    assert_close(product.value, of_torch.detach())
    product.backward(Variable(weights))
    of_torch.backward(weights)
    for mine, tensor in zip(ours, theirs, strict=True):
        assert_close(mine.grad.value, tensor.grad)


def test_example_of_baydin_et_al_has_their_values_and_adjoints():
    # arXiv 1502.05767, table 3: y = ln(x1) + x1 x2 - sin(x2) at (2, 5), to three decimals.
    x1, x2 = leaf(2.0, shape=()), leaf(5.0, shape=())
    v1, v2, v3 = log(x1), x1 * x2, sin(x2)
    v4 = v1 + v2
    y = v4 - v3
    nodes = [x1, x2, v1, v2, v3, v4, y]
    assert [round(node.value.item(), 3) for node in nodes] == [2, 5, 0.693, 10, -0.959, 10.693, 11.652]
    adjoints = grad(y, nodes)
    assert [round(adjoint.value.item(), 3) for adjoint in adjoints] == [5.5, 1.716, 1, 1, -1, 1, 1]
    assert_close(adjoints[1].value.item(), 2 - math.cos(5))


def test_product_and_its_gradient_take_three_times_the_multiplications_of_the_product():
    for count in (2, 3, 10, 100):
        factors = [leaf(1 + 1 / number, shape=()) for number in range(1, count + 1)]
        product = factors[0]
        for factor in factors[1:]:
            product = product * factor
        slopes = grad(product, factors, create_graph=True)
        multiplied = {node for y in (product, *slopes) for node in topological(y) if node.operation == "mul"}
        assert len(multiplied) == 3 * (count - 1)
        # 1 + 1/1, 1 + 1/2, … telescope to count + 1; each derivative leaves one factor out.
        assert_close(product.value.item(), count + 1.0)
        for slope, factor in zip(slopes, factors, strict=True):
            assert_close(slope.value.item(), (count + 1) / factor.value.item())


# Accumulation and the life of a graph.


def test_a_node_used_many_times_collects_from_each_use():
    x = leaf(3.0, shape=())
    y = x * x
    z = y * y + y + x  # x⁴ + x² + x
    z.backward()
    assert x.grad.value.item() == 4 * 27 + 2 * 3 + 1


def test_exponentially_many_paths_are_walked_once():
    x = leaf(1.0, shape=())
    y = x
    for _ in range(200):
        y = y + y
    y.backward()
    assert x.grad.value.item() == 2.0**200


def test_backward_adds_to_the_gradient_that_is_there():
    x = leaf(1.0, 2.0)
    for times in (1, 2, 3):
        (x * x).sum().backward()
        assert_close(x.grad.value, times * torch.tensor([2.0, 4.0], dtype=torch.float64))
    x.grad = None
    (x * x).sum().backward()
    assert_close(x.grad.value, torch.tensor([2.0, 4.0], dtype=torch.float64))


def test_grad_leaves_the_leaves_alone_and_takes_variables_on_the_way():
    x = leaf(1.0, 2.0)
    y = x * 3
    z = (y * y).sum()
    of_y, of_x, of_z = grad(z, [y, x, z], retain_graph=True)
    assert_close(of_y.value, 2 * y.value)
    assert_close(of_x.value, 18 * x.value)
    assert of_z.value == 1
    assert x.grad is None
    assert y.grad is None
    (x * y).sum().backward()
    assert x.grad is not None
    assert y.grad is None
    (alone,) = grad(sin(x).sum(), x)  # and one variable without a list
    assert_close(alone.value, x.value.cos())
    number = leaf(2.0, shape=())
    assert [slope.value.item() for slope in grad(number**3, number)] == [12]


def test_gradients_of_two_leaves_share_no_memory():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    given = Variable(torch.tensor([1.0, 1.0], dtype=torch.float64))
    (a + b).backward(given)
    a.grad.value.mul_(10)
    assert b.grad.value.tolist() == [1, 1]
    assert given.value.tolist() == [1, 1]
    c = leaf(1.0, 2.0)
    c.sum().backward()
    c.grad.value.mul_(torch.tensor([2, 3]))  # not an expanded 1
    assert c.grad.value.tolist() == [2, 3]


def test_backward_frees_the_graph_unless_told_otherwise():
    x = leaf(2.0, shape=())
    y = exp(x)
    y.backward(retain_graph=True)
    y.backward()
    assert_close(x.grad.value.item(), 2 * math.exp(2))
    with pytest.raises(RuntimeError, match="freed by an earlier backward pass"):
        y.backward()
    with pytest.raises(RuntimeError, match="freed by an earlier backward pass"):
        (y * 2).backward()
    y = exp(x)
    grad(y, [x], create_graph=True)
    y.backward(retain_graph=False, create_graph=True)
    with pytest.raises(RuntimeError, match="freed"):
        y.backward()


def test_a_freed_graph_gives_its_values_back_without_the_garbage_collector():
    x = leaf(2.0, shape=())
    hidden = exp(x)
    kept = weakref.ref(hidden)
    y = hidden * hidden
    del hidden
    gc.disable()
    try:
        assert kept() is not None
        y.backward()
        assert kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "form",
    [
        *(ELEMENTWISE[name][0] for name in ELEMENTWISE),
        exp,
        sqrt,
        largest,
        *(lambda x, f=f: f(x, x * 2) for f, _ in PAIRED.values()),
        lambda x: logsumexp(x, 0, keepdim=True),
        lambda x: logsumexp(x, 0),
        lambda x: largest(x, 0),
        lambda x: x[None] @ x[:, None],
        lambda x: x.mean().expand((2, 3)).reshape((3, 2)).mT[::2],
    ],
    ids=[*ELEMENTWISE, "bare exp", "bare sqrt", "largest", *PAIRED, *("logsumexp", "squeezed", "along", "@", "moves")],
)
def test_a_result_that_is_not_differentiated_is_freed_without_the_garbage_collector(form):
    gc.disable()
    try:
        x = leaf(0.5, 2.0)
        y = form(x)
        values = [weakref.ref(node) for node in topological(y) if node is not x]
        del y
        assert not [value() for value in values if value() is not None]
    finally:
        gc.enable()


def test_a_chain_may_be_longer_than_pythons_stack():
    x = leaf(1.0, shape=())
    y = x
    for _ in range(3_000):
        y = y * 1.0 + 0.0
    y.backward(retain_graph=True)
    assert x.grad.value.item() == 1
    del y


def test_topological_order_puts_every_parent_first():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    a = x * w
    y = (tanh(a) * a + exp(x)).sum()
    order = topological(y)
    assert order[-1] is y
    assert len(set(order)) == len(order)
    place = {node: number for number, node in enumerate(order)}
    assert all(place[edge.parent] < place[node] for node in order for edge in node.edges)
    assert {x, w, a} <= set(order)


# What is recorded.


def test_constants_are_not_recorded():
    x, c = leaf(1.0), Variable(torch.ones(1, dtype=torch.float64))
    assert not (c * c).requires_grad
    assert (c * c).edges == ()
    assert [edge.parent for edge in (c * x).edges] == [x]
    assert (x * c).requires_grad
    (x * c).backward()
    assert c.grad is None


def test_nothing_is_recorded_without_grad():
    x = leaf(1.0)
    with no_grad():
        y = x * 2
        assert not y.requires_grad
        with recording(True):
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (x * 2).requires_grad


def test_no_grad_is_a_threads_own():
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append((leaf(1.0) * 2).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]


def test_gradients_are_constants_unless_asked_for():
    x = leaf(2.0)
    (x**3).backward()
    assert not x.grad.requires_grad
    assert not grad(x**3, [x])[0].requires_grad
    y = leaf(2.0)
    (y**3).backward(create_graph=True)
    assert y.grad.requires_grad
    (y**3).backward(create_graph=True)  # the sum of both is recorded as well
    assert_close(grad(y.grad, [y])[0].value.item(), 2 * 6 * 2.0)


def test_detach_cuts_and_shares_memory():
    x = leaf(3.0)
    cut = x.detach()
    (x * cut).backward()
    assert x.grad.value.item() == 3
    assert not cut.requires_grad
    assert cut.value.data_ptr() == x.value.data_ptr()


def test_nth_derivative_by_n_passes():
    x = leaf(0.7, shape=())
    y = sin(x)
    for expected in (math.cos(0.7), -math.sin(0.7), -math.cos(0.7), math.sin(0.7), math.cos(0.7)):
        (y,) = grad(y, [x], create_graph=True)
        assert_close(y.value.item(), expected)


def test_rows_of_the_jacobian_are_vector_jacobian_products():
    x = leaf(0.5, -1.0, 2.0)
    y = sin(x[:2] * x[1:])
    rows = [grad(y, [x], Variable(row), retain_graph=True)[0].value for row in torch.eye(2, dtype=torch.float64)]
    expected = torch.autograd.functional.jacobian(lambda t: (t[:2] * t[1:]).sin(), x.value)
    assert_close(torch.stack(rows), expected)


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda x: exp(x), lambda x, y: y.value.mul_(2)),
        (lambda x: x * x, lambda x, y: x.value.add_(1)),
        (lambda x: sin(x), lambda x, y: x.value.zero_()),
        (lambda x: x * x[:], lambda x, y: x.value[0].add_(1)),
        (lambda x: x * x.detach(), lambda x, y: x.detach().value.add_(1)),
        (lambda x: absolute(x) * x, lambda x, y: x.value.neg_()),
    ],
    ids=["result", "operand", "argument", "view", "detached", "one of two"],
)
def test_a_value_changed_in_place_is_noticed_if_a_rule_reads_it(make, change):
    x = leaf(1.0, 2.0)
    y = make(x)
    change(x, y)
    with pytest.raises(RuntimeError, match=r"at version 0, which was changed in place and is at version 1"):
        y.sum().backward()


@pytest.mark.parametrize("form", [lambda x: x * x, exp, lambda x: logsumexp(x, 0)], ids=["product", "exp", "logsumexp"])
def test_a_value_replaced_is_noticed_if_a_rule_reads_it(form):
    x = leaf(1.0, 2.0)
    y = form(x)
    x.value, y.value = x.value + 1, y.value + 1
    with pytest.raises(RuntimeError, match="at version 0, which was replaced by another"):
        y.sum().backward()
    x = leaf(1.0, 2.0)
    y = 3 * x  # reads the 3 alone
    x.value = x.value + 1
    y.sum().backward()
    assert x.grad.value.tolist() == [3, 3]


@pytest.mark.parametrize("operator", ["+=", "-=", "*=", "/=", "**="])
def test_a_leaf_refuses_to_become_a_result_and_other_variables_do_not(operator):
    names = {"w": leaf(1.0, 2.0), "y": leaf(1.0, 2.0) * 1, "c": leaf(1.0, 2.0).detach()}
    w, y = names["w"], names["y"]
    for context in (recording(True), no_grad()):
        with context, pytest.raises(RuntimeError, match="would replace a leaf by a result"):
            exec(f"w {operator} 2.0", names)
        assert names["w"] is w
    exec(f"y {operator} 2.0; c {operator} 2.0", names)
    assert y.value.tolist() == [1, 2]  # bound to another name it would not change, either
    expected = eval(f"t {operator[:-1]} 2.0", {"t": torch.tensor([1.0, 2.0], dtype=torch.float64)})
    assert_close(names["y"].value, expected)
    assert_close(names["c"].value, expected)
    assert names["y"].requires_grad


@pytest.mark.parametrize("index", [lambda rows: rows, lambda rows: (rows, None)], ids=["alone", "in a tuple"])
def test_an_index_changed_in_place_is_noticed(index):
    x, rows = leaf(1.0, 2.0), torch.tensor([1, 0])
    y = x[index(rows)]
    rows.zero_()
    with pytest.raises(RuntimeError, match=r"at version 0, which was changed in place and is at version 1"):
        y.sum().backward()


@pytest.mark.parametrize(
    "kind",
    [list, np.array, lambda rows: (rows,), lambda rows: (None, rows)],
    ids=["list", "array", "tuple", "with None"],
)
def test_an_index_that_is_no_tensor_may_change_afterwards(kind):
    x, rows = leaf(1.0, 2.0), [1]
    index = kind(rows)
    y = x[index]
    for part in index if isinstance(index, tuple) else (index,):
        if part is not None:
            part[0] = 0
    y.sum().backward()
    assert x.grad.value.tolist() == [0, 1]


def test_a_value_changed_in_place_does_no_harm_if_no_rule_reads_it():
    x = leaf(1.0, 2.0)
    y = (x + 1) * 3  # reads neither x nor x + 1
    x.value.add_(1)
    y.sum().backward()
    assert x.grad.value.tolist() == [3, 3]
    sum_first = sin(x).sum()
    sum_first.value.zero_()
    sum_first.backward()


def test_only_what_rules_read_is_saved():
    x, c = leaf(1.0, 2.0), Variable(normal(2))

    def saved(y: Variable) -> list[int]:
        return [tensor.data_ptr() for edge in y.edges for tensor, _ in edge.saved]

    y = exp(x)
    assert saved(y) == [y.value.data_ptr()]
    assert saved(x * c) == [c.value.data_ptr()]
    assert saved(sin(x)) == [x.value.data_ptr()]
    for free in (x + c, x - 1, -x, x.sum(), x.mean(0, keepdim=True), x[None], x.reshape((2, 1)), x.clone()):
        assert not [tensor for tensor in saved(free) if tensor in (x.value.data_ptr(), c.value.data_ptr())]
    assert not any(saved(y) for y in (x + c, -x, x.sum(), x[:1], x[None].mT, x.expand((3, 2))))


# Values of every kind.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_type_is_kept_by_values_gradients_and_numbers(dtype):
    x = Variable(torch.tensor([0.5, 2.0], dtype=dtype), requires_grad=True)
    y = (1 - 0.1 * x / 3 + x**2).mean()
    y.backward()
    assert y.value.dtype == x.grad.value.dtype == dtype
    leaf = x.value.clone().requires_grad_()
    (1 - 0.1 * leaf / 3 + leaf**2).mean().backward()
    assert_close(x.grad.value, leaf.grad)


def test_empty_and_strided_tensors():
    empty = Variable(torch.empty(0, 3, dtype=torch.float64), requires_grad=True)
    (empty * empty).sum().backward()
    assert empty.grad.shape == (0, 3)
    empty.grad = None
    (empty.mean(1).sum() + empty[:0].sum()).backward()
    assert empty.grad.shape == (0, 3)
    assert empty.mean().value.isnan()
    assert empty.mean(0).value.isnan().all()
    value = normal(4, 6).T[::2]
    x = Variable(value, requires_grad=True)
    ((x @ x.mT).sum() + x[1].sum() + x.reshape((-1,))[::5].sum()).backward()
    tensor = value.clone().requires_grad_()
    ((tensor @ tensor.mT).sum() + tensor[1].sum() + tensor.reshape(-1)[::5].sum()).backward()
    assert_close(x.grad.value, tensor.grad)


def test_large_values_pass_through_logsumexp():
    x = Variable(torch.tensor([-1e4, 0.0, 1e4], dtype=torch.float64), requires_grad=True)
    y = logsumexp(x, 0)
    y.backward()
    assert y.value == 1e4
    assert x.grad.value.tolist() == [0, 0, 1]


@pytest.mark.parametrize("form", [Variable.sum, Variable.mean, largest, logsumexp])
def test_reductions_leave_their_dimension_out_unless_told_otherwise(form):
    x = Variable(normal(2, 3))
    assert form(x, 1).shape == (2,)
    assert form(x, 0).shape == (3,)
    assert form(x, 1, keepdim=True).shape == (2, 1)


@pytest.mark.parametrize(
    ("values", "shares"),
    [((1.0, 3.0, 3.0), [0, 1 / 2, 1 / 2]), ((2.0, 2.0, 2.0), [1 / 3] * 3), ((-math.inf, 0.0, -1.0), [0, 1, 0])],
    ids=str,
)
def test_ties_share_the_gradient_in_max_and_give_it_to_one_in_max_along_a_dimension(values, shares):
    # Worked by hand: whose slope is taken at a tie is torch's choice, which has changed.
    for form, expected in ((largest, shares), (lambda x: maximum(x, x.detach()).sum(), [1 / 2] * 3)):
        x = leaf(*values)
        form(x).backward()
        assert_close(x.grad.value, torch.tensor(expected, dtype=torch.float64))
    x = leaf(*values)
    y = largest(x, 0)
    y.backward()
    assert y.value == max(values)
    assert sorted(x.grad.value.tolist()) == [0, 0, 1]
    assert x.value[x.grad.value.argmax()] == max(values)


def test_not_a_number_stays_that():
    # Worked by hand: every element whose value is not a number could be the largest.
    nan = math.nan
    for form, expected, slopes in (
        (relu, [nan, 0, 2], [1, 0, 1]),
        (lambda x: maximum(x, 1.0), [nan, 1, 2], [1, 0, 1]),
        (lambda x: maximum(1.0, x), [nan, 1, 2], [1, 0, 1]),
        (lambda x: where(x.value > 1, x, nan), [nan, nan, 2], [0, 0, 1]),
    ):
        x = leaf(nan, -1.0, 2.0)
        y = form(x)
        y.sum().backward()
        assert_close(y.value, torch.tensor(expected, dtype=torch.float64), equal_nan=True)
        assert x.grad.value.tolist() == slopes
    a, b = leaf(nan, 1.0), leaf(1.0, nan)
    maximum(a, b).sum().backward()
    assert a.grad.value.tolist() == b.grad.value.tolist() == [1, 1]
    x = leaf(nan, 3.0, nan)
    y = largest(x)
    y.backward()
    assert y.value.isnan()
    assert x.grad.value.tolist() == [0.5, 0, 0.5]
    x.grad = None
    largest(x, 0).backward()
    assert x.grad.value.isnan().sum() == 0
    assert x.grad.value.sum() == 1
    assert x.grad.value[1] == 0


@pytest.mark.parametrize("form", [relu, lambda x: maximum(x, 0.0), lambda x: maximum(0.0, x)], ids=["relu", "a", "b"])
def test_an_infinite_gradient_does_not_reach_what_was_not_chosen(form):
    x = leaf(-1.0, 4.0)
    sqrt(form(x)).sum().backward()  # the slope of the root at 0 is infinite
    assert x.grad.value.tolist() == [0, 0.25]
    x = leaf(-1.0, 0.0)
    sqrt(largest(x)).backward()
    assert x.grad.value.tolist() == [0, math.inf]
    x = leaf(-1.0, 0.0)
    sqrt(largest(x, 0)).backward()
    assert x.grad.value.tolist() == [0, math.inf]


def test_numbers_of_numpy_are_numbers():
    x = leaf(1.0, 2.0)
    y = np.float64(2.0) * x
    assert isinstance(y, Variable)
    y.sum().backward()
    assert x.grad.value.tolist() == [2, 2]


def test_where_and_sqrt_give_not_a_number_at_zero_as_in_torch():
    x = leaf(0.0, 4.0)
    where(x.value > 0, sqrt(x), x.lift(0.0)).sum().backward()
    assert x.grad.value[0].isnan()
    assert x.grad.value[1] == 0.25
    y = leaf(0.0, 0.0)
    sqrt((y * y).sum()).backward()
    assert y.grad.value.isnan().all()


def test_power_zero_has_slope_zero_even_at_zero():
    x = leaf(0.0, 2.0)
    (x**0).sum().backward()
    assert x.grad.value.tolist() == [0, 0]
    y = leaf(0.0)
    (slope,) = grad(y**1, [y], create_graph=True)
    assert grad(slope, [y])[0].value.item() == 0


def test_repr_tells_value_and_origin():
    x = leaf(2.0, shape=())
    assert "requires_grad=True)" in repr(x)
    names = {"mul": x * x, "add": x + 1, "truediv": x / 2, "matmul": x[None, None] @ x[None, None], "exp": exp(x)}
    names |= {"getitem": x[None], "sum": x.sum(), "neg": -x, "pow": x**2, "mT": x[None, None].mT}
    for name, y in names.items():
        assert y.operation == name
        assert f"operation={name})" in repr(y)
    assert x.operation == ""


def test_training_a_network_gives_torchs_losses_step_by_step():
    points, labels = normal(40, 2), torch.arange(40) % 3
    shapes = [(2, 8), (8,), (8, 3), (3,)]
    start = [normal(*shape, seed=seed) for seed, shape in enumerate(shapes, 1)]
    ours = [Variable(value.clone(), requires_grad=True) for value in start]
    theirs = [value.clone().requires_grad_() for value in start]
    optimizer = torch.optim.SGD(theirs, lr=0.1)
    inputs, rows = Variable(points), torch.arange(40)
    for _ in range(30):
        w1, b1, w2, b2 = ours
        logits = tanh(inputs @ w1 + b1) @ w2 + b2
        loss = (logsumexp(logits, -1) - logits[rows, labels]).mean()
        v1, c1, v2, c2 = theirs
        of_torch = torch.nn.functional.cross_entropy((points @ v1 + c1).tanh() @ v2 + c2, labels)
        assert_close(loss.value, of_torch.detach())
        loss.backward()
        optimizer.zero_grad()
        of_torch.backward()
        optimizer.step()
        for parameter in ours:
            parameter.value -= 0.1 * parameter.grad.value
            parameter.grad = None


# The checks above notice what they are there for: each is run on a source with one line broken.


def engine_with(line: str = "", broken: str = "") -> types.ModuleType:
    """The engine, in which `line`, which stands in it once, is replaced."""
    source = inspect.getsource(autograd)
    assert not line or source.count(line) == 1
    module = types.ModuleType("engine")
    exec(compile(source.replace(line, broken) if line else source, "engine", "exec"), module.__dict__)
    return module


def check_reused_node(engine: types.ModuleType) -> None:
    x = engine.Variable(torch.tensor(3.0), requires_grad=True)
    y = x * x
    (y * y + y + x).backward()
    assert_close(x.grad.value, torch.tensor(4.0 * 27 + 2 * 3 + 1))


def check_two_passes(engine: types.ModuleType) -> None:
    x = engine.Variable(torch.tensor(3.0), requires_grad=True)
    for _ in range(2):
        (x * x).backward()
    assert_close(x.grad.value, torch.tensor(12.0))


def check_broadcast(engine: types.ModuleType) -> None:
    inputs, weights, bias = normal(5, 3), normal(3, 2, seed=1), normal(2, seed=2)
    ours = [engine.Variable(value, requires_grad=True) for value in (inputs, weights, bias)]
    theirs = [value.clone().requires_grad_() for value in (inputs, weights, bias)]
    for x, w, b in (ours, theirs):
        (((x @ w + b) * b) * (x @ w)).sum().backward()
    for mine, tensor in zip(ours, theirs, strict=True):
        assert_close(mine.grad.value, tensor.grad)


@pytest.mark.parametrize(
    ("check", "line", "broken"),
    [
        (
            check_reused_node,
            "grads[edge.parent] = part if known is None else known + part",
            "grads[edge.parent] = part",
        ),
        (
            check_two_passes,
            "leaf.grad = part.clone() if leaf.grad is None else leaf.grad + part",
            "leaf.grad = part.clone()",
        ),
        (
            check_broadcast,
            "part = edge.rule(grads[node]).sum_to(edge.parent.shape)",
            "part = edge.rule(grads[node])",
        ),
    ],
    ids=["overwritten where a node is reused", "overwritten by the next pass", "broadcast gradient not summed back"],
)
@pytest.mark.mutation
def test_a_broken_engine_fails_its_check(check, line, broken):
    check(autograd)
    check(engine_with())
    with pytest.raises(AssertionError):
        check(engine_with(line, broken))


# Wrong input.


@pytest.mark.wrong_input
@pytest.mark.parametrize("value", [torch.ones(2, dtype=torch.int64), torch.ones(1, dtype=torch.complex64), 1.0, [1.0]])
def test_refuses_what_is_no_floating_point_tensor(value):
    what = getattr(value, "dtype", type(value).__name__)
    with pytest.raises(ValueError, match=f"needs a floating-point tensor, but got {what}"):
        Variable(value)


@pytest.mark.wrong_input
@pytest.mark.parametrize("other", [torch.ones(2), np.ones(2), "2", [1.0]], ids=["tensor", "array", "text", "list"])
def test_refuses_operands_that_are_neither_variable_nor_number(other):
    x = leaf(1.0, 2.0)
    for form in (
        lambda: x * other,
        lambda: other * x,
        lambda: other + x,
        lambda: other - x,
        lambda: other / x,
        lambda: x @ other,
        lambda: where(x.value > 1, x, other),
        lambda: maximum(other, x),
        lambda: x.backward(other),
    ):
        with pytest.raises(ValueError, match=f"a Variable or a number, not {type(other).__name__}"):
            form()
    with pytest.raises(ValueError, match=f"an exponent is a number, not {type(other).__name__}"):
        x**other
    with pytest.raises((TypeError, ValueError)):
        other @ x


@pytest.mark.wrong_input
@pytest.mark.parametrize("form", [exp, log, sin, cos, tanh, sqrt, absolute, relu, largest, lambda x: logsumexp(x, 0)])
def test_functions_refuse_what_is_no_variable(form):
    for value in (torch.ones(2), 1.0, [1.0]):
        with pytest.raises(ValueError, match=f"needs a Variable, not {type(value).__name__}"):
            form(value)


@pytest.mark.wrong_input
def test_one_operand_at_least_must_be_a_variable():
    with pytest.raises(ValueError, match="maximum needs a Variable, but got float and Tensor"):
        maximum(1.0, torch.ones(1))
    with pytest.raises(ValueError, match="where needs a Variable, but got int and int"):
        where(torch.ones(1, dtype=torch.bool), 1, 2)
    with pytest.raises(ValueError, match="a Variable or a number, not Tensor"):
        leaf(1.0).value -= leaf(1.0)  # where `.value` is missing on the right


@pytest.mark.wrong_input
def test_refuses_two_types_in_one_expression():
    single = Variable(torch.ones(2))
    for mix in (lambda: leaf(1.0) + single, lambda: single * leaf(1.0)):
        with pytest.raises(ValueError, match=r"a single type, but has torch.float32 and torch.float64"):
            mix()


@pytest.mark.wrong_input
def test_refuses_to_differentiate_what_cannot_be():
    x, other = leaf(1.0, 2.0), leaf(1.0)
    y = x * x
    with pytest.raises(ValueError, match=r"output of shape \(2,\) needs a gradient of that shape"):
        y.backward()
    with pytest.raises(ValueError, match=r"output of shape \(0,\) needs a gradient of that shape"):
        y[:0].backward()
    with pytest.raises(ValueError, match=r"\(2,\)\) like the output, but is .*\(1,\)"):
        y.backward(Variable(torch.ones(1, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"float64, \(2,\)\) like the output, but is \(torch.float32, \(2,\)\)"):
        y.backward(Variable(torch.ones(2)))
    with pytest.raises(ValueError, match=r"does not depend on the inputs number \[1\]"):
        grad(y.sum(), [x, other])
    for constant in (x.detach(), Variable(torch.ones(1))):
        with pytest.raises(ValueError, match="requires no gradient"):
            constant.backward()
    y.sum().backward()  # none of these has freed it


@pytest.mark.wrong_input
@pytest.mark.parametrize("output", [2.0, torch.ones(()), torch.nn.Parameter(torch.ones(1)), None, [1.0]], ids=str)
def test_refuses_to_differentiate_what_is_no_variable(output):
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=f"must be a Variable, not {type(output).__name__}"):
        grad(output, [x])
    with pytest.raises(ValueError, match=r"does not depend on the inputs number \[0\]"):
        grad(x.sum(), [output])


@pytest.mark.wrong_input
@pytest.mark.parametrize("shape", [(1,), (2,), (1, 1)], ids=str)
def test_matmul_with_a_single_number_is_an_error_as_in_torch(shape):
    number, x = leaf(2.0, shape=()), Variable(normal(*shape))
    for a, b in ((number, x), (x, number), (number, number), (number.value, x.value), (x.value, number.value)):
        with pytest.raises(RuntimeError):
            a @ b
    for form in (lambda: 2.0 @ x, lambda: x @ 2.0):
        with pytest.raises(RuntimeError):
            form()


@pytest.mark.wrong_input
@pytest.mark.parametrize("other", [2, 2.0, torch.ones(2), np.ones(2), [1.0]], ids=lambda x: type(x).__name__)
def test_refuses_a_variable_as_an_exponent_and_anything_else_before_a_product(other):
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match="an exponent is a number, not Variable"):
        other**x
    if not isinstance(other, int | float):
        with pytest.raises(ValueError, match="a Variable or a number, not"):
            other @ x


@pytest.mark.wrong_input
def test_inputs_of_grad_may_come_from_a_generator():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    gradients = grad((x * y).sum(), (leaf for leaf in (x, y)))
    assert [g.value.tolist() for g in gradients] == [[3, 4], [1, 2]]


def test_leaves_can_be_deepcopied_and_results_cannot():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    twin = copy.deepcopy({"w": [x, x]})["w"]
    assert twin[0] is twin[1]
    (3 * twin[0]).sum().backward()
    assert (x.grad.value.tolist(), twin[0].grad.value.tolist()) == ([2, 4], [5, 7])
    twin[0].value.zero_()
    assert x.value.tolist() == [1, 2]
    for result in (exp(x), -x, x[:1]):
        with pytest.raises(RuntimeError, match="a result cannot be deepcopied"):
            copy.deepcopy(result)
    assert copy.deepcopy(exp(x).detach()).value.tolist() == exp(x).value.tolist()


@pytest.mark.parametrize(
    "form", [exp, tanh, lambda x: x * x, lambda x: logsumexp(x, 0)], ids=["exp", "tanh", "product", "logsumexp"]
)
def test_records_in_torchs_inference_mode_too(form):
    x, y = leaf(0.5, 2.0), leaf(0.5, 2.0)
    form(y).sum().backward()
    with torch.inference_mode():
        form(x).sum().backward()
        assert_close(x.grad.value.tolist(), y.grad.value.tolist())


@pytest.mark.wrong_input
def test_autocast_which_would_mix_types_is_refused():
    x = Variable(torch.rand(3, 3), requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match="needs a single type"):
        x @ x


def test_sum_over_no_named_dimension_and_iteration_are_torchs():
    x = leaf(1.0, 2.0, shape=(1, 2))
    assert x.sum(()).shape == x.value.sum(()).shape == ()
    assert x.mean(()).value.item() == 1.5
    assert [row.value.tolist() for row in x] == [[1, 2]]
    with pytest.raises(TypeError):
        list(x.sum())
