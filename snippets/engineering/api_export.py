# %% quick_start
import functools
import math

from zhixing.engineering.api_export import api_export, canonical_name, public_module

tf_export = functools.partial(api_export, api="tensorflow")


@tf_export("math.softplus", "nn.softplus")
def _softplus(x):
    """A smooth ReLU."""
    return math.log1p(math.exp(x))


tf = public_module("tensorflow")
print("by its public names:", tf.math.softplus is tf.nn.softplus is _softplus)
print("its canonical name: ", canonical_name(_softplus, api="tensorflow"))
print("what Python says:   ", tf.math.softplus.__name__)

# %% quick_start_holds tags=["hidden"]
assert tf.math.softplus is tf.nn.softplus is _softplus
assert canonical_name(_softplus, api="tensorflow") == "math.softplus"

# %% picture tags=["hidden"]
import matplotlib.pyplot as plt

from zhixing.engineering.api_export import namespace


def _relu6(x):
    return x


class DatasetV2:
    pass


for symbol, names in {
    _relu6: ("nn.relu6",),
    _softplus: ("math.softplus", "nn.softplus"),
    DatasetV2: ("data.Dataset",),
}.items():
    api_export(*names, api="picture")(symbol)

files = {"_impl/ops_v2.py": [_relu6, _softplus], "_impl/data.py": [DatasetV2]}
figure, axes = plt.subplots(figsize=(4.8, 2.6), layout="constrained")
axes.set(xlim=(0, 10), ylim=(0.5, 6.9))
axes.set_axis_off()
mono = {"family": "monospace", "fontsize": 9.5, "va": "center"}
titles = {0: "private files", 4.1: "table of names", 8: "public modules"}
for x, title in titles.items():
    axes.text(x, 6.5, title, fontsize=9.5, va="center", weight="bold")
left, row = {}, 5.6
for file, symbols in files.items():
    axes.text(0, row, file, **mono)
    for symbol in symbols:
        row -= 0.9
        axes.text(0.4, row, symbol.__name__, **mono)
        left[symbol] = row
    row -= 1.3
table = namespace("picture")
row = 5.6
for package in "nn", "math", "data":
    axes.text(8, row, f"tf.{package}", **mono)
    for name, symbol in table.items():
        if name.startswith(f"{package}."):
            row -= 0.8
            axes.text(4.1, row, name, **mono)
            axes.text(8.4, row, name.split(".")[1], **mono)
            style = "-" if canonical_name(symbol, api="picture") == name else "--"
            line = {"color": f"C{list(left).index(symbol)}", "lw": 1.5, "ls": style}
            axes.plot([2.35, 3.95], [left[symbol], row], **line)
            axes.plot([6.55, 8.25], [row, row], **line)
    row -= 0.9


# %% two_calls
def _relu6(x):
    """Zero for negative numbers, and at most six."""
    return min(max(x, 0), 6)


decorator = tf_export("nn.relu6")  # first call: makes an object
print(type(decorator).__name__, decorator.names, decorator.api)
exported = decorator(_relu6)  # second call: hands it the function
print("returned unchanged:", exported is _relu6)

# %% two_calls_hold tags=["hidden"]
assert exported is _relu6
assert namespace("tensorflow")["nn.relu6"] is _relu6

# %% partials
from zhixing.engineering.api_export import partial


def show(*args, **keywords):
    return args, keywords


inner = partial(show, 1, color="red")
outer = partial(inner, 2, size=3)
print("stored:", outer.func is show, outer.args, outer.keywords)
print("called:", outer(4, color="blue"))

# %% partials_hold tags=["hidden"]
import random

draw = random.Random(0)
for _ in range(300):
    ours = theirs = show
    for _ in range(draw.randint(1, 5)):
        args = draw.sample(range(9), draw.randint(0, 3))
        keywords = {key: draw.randint(0, 9) for key in "abc" if draw.random() < 0.5}
        ours = partial(ours, *args, **keywords)
        theirs = functools.partial(theirs, *args, **keywords)
    stored = [(each.func, each.args, each.keywords) for each in (ours, theirs)]
    assert stored[0] == stored[1]
    assert ours(1, a=2) == theirs(1, a=2)

# %% late
looked_up, stored = [], []
for step in range(3):
    looked_up.append(lambda: step)  # noqa: B023, on purpose
    stored.append(functools.partial(int, step))
print("lambdas: ", [call() for call in looked_up])
print("partials:", [call() for call in stored])

numbers = []
total = functools.partial(sum, numbers)
numbers += [1, 2]  # the list itself is stored, not what was in it
print("sum:     ", total())

# %% late_holds tags=["hidden"]
assert [call() for call in looked_up] == [2, 2, 2]
assert [call() for call in stored] == [0, 1, 2]
assert total() == 3

# %% library
from zhixing.engineering.api_export import namespace

export = functools.partial(api_export, api="tiny")


@export("layers.Layer", "Layer")
class Layer:
    """What all layers share."""


@export("layers.Conv")
class Conv(Layer):
    pass


class _Scratch(Layer):
    """A subclass that is not exported."""


@export("nn.relu")
def _relu(x):
    """Zero for negative numbers."""
    return max(x, 0)


export("consts.EPSILON").constant(1e-7)

for name, symbol in namespace("tiny").items():
    print(f"{name:15} {getattr(symbol, '__name__', symbol)}")
print("name of _Scratch:", canonical_name(_Scratch, api="tiny"))
undocumented = [
    name
    for name, symbol in namespace("tiny").items()
    if callable(symbol) and not symbol.__doc__
]
print("undocumented:", undocumented)

# %% library_holds tags=["hidden"]
public = namespace("tiny")
assert list(public) == sorted(public)
assert len(public) == 5
assert canonical_name(_Scratch, api="tiny") is None
assert canonical_name(Conv, api="tiny") == "layers.Conv"
assert undocumented == ["layers.Conv"]

# %% refused
attempts = {
    "a second time": lambda: export("nn.relu_v2")(_relu),
    "a taken name": lambda: export("nn.relu")(_softplus),
    "also a package": lambda: export("nn")(_softplus),
    "a number": lambda: export("consts.ONE")(1),
    "no attributes": lambda: export("math.length")(len),
}
for what, attempt in attempts.items():
    try:
        attempt()
    except ValueError as error:
        print(f"{what + ':':16}{error}")

# %% refused_holds tags=["hidden"]
import contextlib

for attempt in attempts.values():
    with contextlib.suppress(ValueError):
        attempt()
        raise AssertionError
assert namespace("tiny") == public

# %% prefix
estimator_export = functools.partial(api_export, api="estimator", under="estimator")
for name in "estimator.DNN", "estimators.DNN":
    try:
        estimator_export(name)
        ours = "accepted"
    except ValueError:
        ours = "refused"
    print(f"{name:15} startswith: {name.startswith('estimator')}, ours: {ours}")

# %% prefix_holds tags=["hidden"]
assert ours == "refused"
assert estimator_export("estimator.DNN").names == ("estimator.DNN",)

# %% method
import types


class BoundPartial(partial):
    """As functools.partial since Python 3.14."""

    def __get__(self, instance, owner=None):
        return self if instance is None else types.MethodType(self, instance)


class Model:
    before = partial(show, "stored")
    since = BoundPartial(show, "stored")
    static = staticmethod(BoundPartial(show, "stored"))
    method = functools.partialmethod(show, "stored")


for name in "before", "since", "static", "method":
    args, _ = getattr(Model(), name)("given")
    print(f"{name:8}", [each if isinstance(each, str) else "self" for each in args])

# %% method_holds tags=["hidden"]
import sys

names = "before", "since", "static", "method"
counts = [len(getattr(Model(), name)("given")[0]) for name in names]
assert counts == [2, 3, 2, 3]
model = Model()
assert model.since("given")[0] == ("stored", model, "given")
assert model.method("given")[0] == (model, "stored", "given")
if sys.version_info >= (3, 14):
    Model.theirs = functools.partial(show, "stored")
    assert len(Model().theirs("given")[0]) == 3


# %% order
def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        print(f"{function.__name__} is called")
        return function(*args)

    return wrapper


@logged
@export("math.square")
def square(x):
    return x * x


print("name of the wrapper:", canonical_name(square, api="tiny"))
print("public is the wrapper:", public_module("tiny").math.square is square)
print("result without a log:", public_module("tiny").math.square(3))

# %% order_holds tags=["hidden"]
assert canonical_name(square, api="tiny") == "math.square"
assert public_module("tiny").math.square is not square

# %% pickles
import pickle

import numpy as np
import torch

for name, symbol in {
    "np.errstate": np.errstate,
    "torch.nn.Linear": torch.nn.Linear,
}.items():
    module, qualname, *_ = pickle.dumps(symbol, protocol=0).decode()[1:].split()
    print(f"{name:16} is stored as {module}.{qualname}")

# %% pickles_hold tags=["hidden"]
offered = [getattr(np, name) for name in np.__all__]
offered = [each for each in offered if callable(each) and hasattr(each, "__module__")]
numpy_names = sum(each.__module__ == "numpy" for each in offered)
numpy_offered = len(offered)
