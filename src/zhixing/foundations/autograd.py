"""A reverse-mode automatic differentiation engine over tensors, for gradients of any order.

Values are torch tensors; torch's own autograd takes no part. Each derivative rule is written in the
engine's operations, so that a gradient is an expression like any other, and can be differentiated.

Source: Baydin, Pearlmutter, Radul & Siskind, Automatic Differentiation in Machine Learning: a
Survey, arXiv 1502.05767, section 3.2; names and conventions follow torch.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple
from weakref import ref

import torch
from jaxtyping import Float
from torch import Tensor

Number = int | float

_recording = ContextVar("recording", default=True)


class Edge(NamedTuple):
    """An edge from a result to one of its parents.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor(3.0), requires_grad=True)
        >>> edge = Edge(x, lambda g: g * 2, saved=[])
        >>> edge.rule(Variable(torch.tensor(1.0))).value.item()
        2.0
    """

    parent: "Variable"
    rule: Callable[["Variable"], "Variable"]  # the gradient of the result ↦ that of the parent
    saved: list[tuple[Tensor, int]]  # what the rule reads, with the version it had when recorded


class Variable:
    """A tensor, its gradient, and edges to the variables that it was computed from.

    Operands of one expression have one floating-point type and one device. Python numbers may
    be mixed in. `+ - * / ** @` and indexing mean what they mean in torch; an exponent is a
    number. Left out: hooks, comparisons, and operations in place. `y += z` binds the name `y` to a
    new result, and a leaf refuses it; change its `value` in place, after the backward pass. Results
    cannot be deepcopied, leaves can. Autocast would mix types: an expression under it is refused.
    As in torch, a change through `.data`, in memory shared with NumPy, or of a tensor made in
    `torch.inference_mode`, is not noticed.

    Attributes:
        value: The tensor; it shares its memory and its version counter with the one given.
        requires_grad: Whether gradients flow into it.
        grad: The sum of the gradients from `backward` so far; only leaves have it.
        edges: Empty for a leaf, None once a backward pass has freed the graph.

    Args:
        value: A tensor of any shape, in a floating-point type.
        requires_grad: Whether it is a leaf for which `backward` accumulates the gradient.

    Raises:
        ValueError: `value` is not a tensor of a floating-point type.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor([1.0, 2.0]), requires_grad=True)
        >>> (x * x + 3 * x).sum().backward()
        >>> x.grad.value.tolist()
        [5.0, 7.0]
    """

    __array_ufunc__ = None  # NumPy leaves `array * variable` to us, and `lift` refuses it

    def __init__(self, value: Float[Tensor, "..."], *, requires_grad: bool = False):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            what = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"a variable needs a floating-point tensor, but got {what}")
        self.value = value.detach()
        self.requires_grad = requires_grad
        self.grad: Variable | None = None
        self.edges: tuple[Edge, ...] | None = ()

    def record(self, *rules: tuple["Variable", Callable[["Variable"], "Variable"]]) -> "Variable":
        """Record for each parent how its gradient follows from that of `self`; return `self`.

        A rule may return a gradient of any shape to which the parent broadcasts. What it closes
        over counts as saved: it must not change before the backward pass. It holds `self` by a
        weak reference, since otherwise only the garbage collector could free the two.
        """
        for parent, _ in rules:
            if parent.value.dtype != self.value.dtype:
                types = f"{parent.value.dtype} and {self.value.dtype}"
                raise ValueError(f"an expression needs a single type, but has {types}")
        if _recording.get():
            self.edges = tuple(
                Edge(parent, rule, [(tensor, _version(tensor)) for tensor in _read_by(rule)])
                for parent, rule in rules
                if parent.requires_grad
            )
            self.requires_grad = bool(self.edges)
        return self

    def backward(
        self,
        gradient: "Variable | None" = None,
        *,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> None:
        """Add to the `grad` of each leaf its gradient; arguments and errors are those of `grad`."""
        leaves = [node for node in topological(self) if not node.edges]
        options = {"retain_graph": retain_graph, "create_graph": create_graph}
        for leaf, part in zip(leaves, grad(self, leaves, gradient, **options), strict=True):
            with recording(create_graph):
                leaf.grad = part.clone() if leaf.grad is None else leaf.grad + part

    def detach(self) -> "Variable":
        """The same value, as a constant."""
        return Variable(self.value)

    def lift(self, other: "Variable | Number") -> "Variable":
        """`other`; a number becomes a constant of the type and device of `self`."""
        if isinstance(other, Variable):
            return other
        if not isinstance(other, Number):
            raise ValueError(f"an operand is a Variable or a number, not {type(other).__name__}")
        return Variable(torch.tensor(other, dtype=self.value.dtype, device=self.value.device))

    def __deepcopy__(self, memo: dict) -> "Variable":
        if self.edges != ():
            raise RuntimeError("a result cannot be deepcopied, as its graph cannot: detach it")
        twin = memo[id(self)] = Variable(copy.deepcopy(self.value, memo))
        twin.requires_grad, twin.grad = self.requires_grad, copy.deepcopy(self.grad, memo)
        return twin

    @property
    def shape(self) -> torch.Size:
        return self.value.shape

    @property
    def operation(self) -> str:
        """The operation that computed it, such as `mul`; empty if nothing was recorded."""
        if not self.edges:
            return ""
        return self.edges[0].rule.__qualname__.split(".<locals>")[0].split(".")[-1].strip("_")

    def __repr__(self) -> str:
        source = f", operation={self.operation}" if self.edges else ""
        return f"Variable({self.value}, requires_grad={self.requires_grad}{source})"

    # Arithmetic. A rule can ignore broadcasting: `grad` sums its result to the parent's shape.

    def __add__(self, other: "Variable | Number") -> "Variable":
        other = self.lift(other)
        return Variable(self.value + other.value).record((self, lambda g: g), (other, lambda g: g))

    def __mul__(self, other: "Variable | Number") -> "Variable":
        a, b = self, self.lift(other)
        return Variable(a.value * b.value).record((a, lambda g: g * b), (b, lambda g: g * a))

    def __truediv__(self, other: "Variable | Number") -> "Variable":
        a, b = self, self.lift(other)
        return Variable(a.value / b.value).record(
            (a, lambda g: g / b), (b, lambda g: -g * (a / b / b))
        )

    def __pow__(self, p: Number) -> "Variable":
        if not isinstance(p, Number):
            raise ValueError(f"an exponent is a number, not {type(p).__name__}")
        if p == 0:  # the rule below would multiply 0 by an infinity at 0
            return Variable(self.value**0).record((self, lambda g: g * 0.0))
        return Variable(self.value**p).record((self, lambda g: g * (p * self ** (p - 1))))

    def __neg__(self) -> "Variable":
        return Variable(-self.value).record((self, lambda g: -g))

    def __sub__(self, other: "Variable | Number") -> "Variable":
        return self + -self.lift(other)

    def __rsub__(self, other: Number) -> "Variable":
        return self.lift(other) - self

    def __rtruediv__(self, other: Number) -> "Variable":
        return self.lift(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def _result_in_place_of_leaf(self, *_: Any) -> "Variable":
        if self.requires_grad and not self.edges:
            raise RuntimeError(
                "`w += …` would replace a leaf by a result: change `w.value` instead"
            )
        return NotImplemented  # Python goes on with `y = y + z`

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = _result_in_place_of_leaf
    __imatmul__ = _result_in_place_of_leaf

    def __rmatmul__(self, other: Any) -> "Variable":
        return self.lift(other) @ self

    def __rpow__(self, _: Any) -> "Variable":
        raise ValueError("an exponent is a number, not Variable")

    def __matmul__(self, other: "Variable") -> "Variable":
        a, b = self, self.lift(other)
        if a.value.ndim == 1:  # a row; times a single column it gives a number
            return (a[None] @ b)[..., 0, :] if b.value.ndim > 1 else (a[None] @ b)[0]
        if b.value.ndim == 1:
            return (a @ b[:, None])[..., 0]
        return Variable(a.value @ b.value).record((a, lambda g: g @ b.mT), (b, lambda g: a.mT @ g))

    # Moving, copying and adding elements: linear maps, each with its transpose.

    def __iter__(self) -> Iterator["Variable"]:
        return map(self.__getitem__, range(len(self.value)))  # of a single number: TypeError

    def __getitem__(self, index: Any) -> "Variable":
        index, shape = _frozen(index), self.shape
        return Variable(self.value[index]).record((self, lambda g: g.put(index, shape)))

    def put(self, index: Any, shape: Sequence[int]) -> "Variable":
        """Zeros of `shape` with `self` added at [index]; repeated indices accumulate."""
        zeros = self.value.new_zeros(shape)
        places = torch.arange(zeros.numel(), device=zeros.device).reshape(zeros.shape)[index]
        value = zeros.put_(places, self.value, accumulate=True)
        return Variable(value).record((self, lambda g: g[index]))

    def expand(self, shape: Sequence[int]) -> "Variable":
        """`self`, broadcast to `shape`."""
        return Variable(self.value.expand(shape)).record((self, lambda g: g))

    def sum_to(self, shape: Sequence[int]) -> "Variable":
        """The sum over all copies that broadcasting from `shape` to the shape of `self` made."""
        if self.shape == shape:
            return self
        wide = self.shape
        return Variable(self.value.sum_to_size(shape)).record((self, lambda g: g.expand(wide)))

    def sum(self, dim: int | tuple[int, ...] | None = None, *, keepdim: bool = False) -> "Variable":
        """The sum along the dimensions `dim`, or of all elements."""
        dims = tuple(range(self.value.ndim)) if dim is None or dim == () else dim
        total, wide = self.value.sum(dims, keepdim=True), self.shape
        ones = total.shape
        return Variable(total if keepdim else total.squeeze(dims)).record(
            (self, lambda g: g.reshape(ones).expand(wide))
        )

    def mean(
        self, dim: int | tuple[int, ...] | None = None, *, keepdim: bool = False
    ) -> "Variable":
        """The mean along the dimensions `dim`, or of all elements."""
        total = self.sum(dim, keepdim=keepdim)
        return total / (self.value.numel() / max(total.value.numel(), 1))

    def reshape(self, shape: Sequence[int]) -> "Variable":
        """The same elements in `shape`."""
        old = self.shape
        return Variable(self.value.reshape(shape)).record((self, lambda g: g.reshape(old)))

    @property
    def mT(self) -> "Variable":  # noqa: N802, torch's name
        """The last two dimensions exchanged."""
        return Variable(self.value.mT).record((self, lambda g: g.mT))

    def clone(self) -> "Variable":
        """A copy in separate memory."""
        return Variable(self.value.clone()).record((self, lambda g: g))


def grad(
    output: Variable,
    inputs: Variable | Sequence[Variable],
    gradient: Variable | None = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> list[Variable]:
    """The vector–Jacobian product of `gradient` with the derivative of `output` in each input.

    Args:
        output: What is differentiated.
        inputs: Leaves, or any variables that `output` was computed from; one, or several.
        gradient: The vector, of the shape and type of `output`; 1 where that has one element.
        retain_graph: Whether the graph is kept for another pass; by default as `create_graph`.
        create_graph: Whether the gradients are recorded, to be differentiated in turn.

    Returns:
        For each input a gradient of its shape and type.

    Raises:
        ValueError: `output` is no `Variable`, requires no gradient, does not depend on an input,
            or does not have exactly one element, while `gradient` is None; or `gradient` has
            another shape or type.
        RuntimeError: The graph was freed, or a value that a rule needs was changed or replaced.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor(2.0), requires_grad=True)
        >>> (slope,) = grad(x**3, [x], create_graph=True)
        >>> slope.value.item(), grad(slope, [x])[0].value.item()
        (12.0, 12.0)
    """
    if not isinstance(output, Variable):
        raise ValueError(f"the output must be a Variable, not {type(output).__name__}")
    if not output.requires_grad:
        raise ValueError("the output requires no gradient: it depends on no leaf that does")
    if gradient is None and output.value.numel() != 1:
        raise ValueError(f"an output of shape {(*output.shape,)} needs a gradient of that shape")
    ones = torch.ones_like(output.value)
    gradient = Variable(ones) if gradient is None else output.lift(gradient)
    given, wanted = ((x.value.dtype, (*x.shape,)) for x in (gradient, output))
    if given != wanted:
        raise ValueError(f"the gradient must be {wanted} like the output, but is {given}")
    inputs = [inputs] if isinstance(inputs, Variable) else list(inputs)
    order = topological(output)
    reached = {id(node) for node in order}
    if strangers := [number for number, x in enumerate(inputs) if id(x) not in reached]:
        raise ValueError(f"the output does not depend on the inputs number {strangers}")
    grads = {output: gradient}
    with recording(create_graph):
        for node in reversed(order):
            for edge in node.edges:
                _check_saved(node, edge)
                part = edge.rule(grads[node]).sum_to(edge.parent.shape)
                known = grads.get(edge.parent)
                grads[edge.parent] = part if known is None else known + part
    if not (create_graph if retain_graph is None else retain_graph):
        for node in order:
            if node.edges:
                node.edges = None
    return [grads[x] for x in inputs]


def topological(output: Variable) -> list[Variable]:
    """All variables that `output` was computed from, parents before children, `output` last.

    Raises:
        RuntimeError: A backward pass has freed a part of the graph.

    Examples:
        >>> import torch
        >>> x = Variable(torch.tensor(2.0), requires_grad=True)
        >>> [node.operation for node in topological(-(x * x))]
        ['', 'mul', 'neg']
    """
    order, seen, stack = [], set(), [(output, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            if node.edges is None:
                raise RuntimeError("freed by an earlier backward pass without retain_graph=True")
            stack.append((node, True))
            stack.extend((edge.parent, False) for edge in node.edges)
    return order


@contextmanager
def recording(enabled: bool) -> Iterator[None]:
    """Set whether operations inside record what they were computed from.

    Examples:
        >>> with recording(False):
        ...     _recording.get()
        False
    """
    token = _recording.set(enabled)
    try:
        yield
    finally:
        _recording.reset(token)


def no_grad():
    """A context in which all results are constants: `with no_grad():`.

    Examples:
        >>> with no_grad():
        ...     _recording.get()
        False
        >>> _recording.get()
        True
    """
    return recording(False)


def _read_by(rule: Callable) -> list[Tensor]:
    """The tensors that a rule closes over: alone, in an index, or behind a weak reference."""
    contents = [cell.cell_contents for cell in rule.__closure__ or ()]
    contents += [part for index in contents if isinstance(index, tuple) for part in index]
    contents = [part() if isinstance(part, ref) else part for part in contents]
    values = (x.value if isinstance(x, Variable) else x for x in contents)
    return [value for value in values if isinstance(value, Tensor)]


def _version(tensor: Tensor) -> int:
    """How often it was changed; a tensor made in inference mode does not count."""
    return 0 if tensor.is_inference() else tensor._version


def _frozen(index: Any) -> Any:
    """The index, with copies of lists and arrays, which nobody would see changed."""
    if isinstance(index, tuple):
        return tuple(map(_frozen, index))
    return index if isinstance(index, Tensor) else copy.deepcopy(index)


def _check_saved(node: Variable, edge: Edge) -> None:
    for (tensor, version), now in zip(edge.saved, _read_by(edge.rule), strict=True):
        if now is not tensor or _version(now) != version:
            how = f"changed in place and is at version {_version(now)}"
            raise RuntimeError(
                f"{node.operation} saved a tensor of shape {(*tensor.shape,)} at version {version}"
                f", which was {how if now is tensor else 'replaced by another'}"
            )
