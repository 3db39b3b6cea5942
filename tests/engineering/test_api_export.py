"""Test exported names against what the definitions say, and our partial against functools'."""

import copy
import dataclasses
import functools
import importlib
import inspect
import pickle
import pkgutil
import random
import sys
import types
import uuid
from pathlib import Path

import numpy as np
import pytest

from zhixing.engineering.api_export import (
    api_export,
    canonical_name,
    namespace,
    partial,
    public_module,
)

tf_export = functools.partial(api_export, api="tensorflow")
estimator_export = functools.partial(api_export, api="estimator", under="estimator")


@pytest.fixture
def api():
    """The name of an API to which nothing was exported."""
    return f"api_{uuid.uuid4().hex}"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes a private module and imports it; afterwards it is forgotten."""
    names = []

    def write(source, name=None):
        name = name or f"private_{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(source)
        names.append(name)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for name in names:
        sys.modules.pop(name, None)


def relu(x):
    """Zero for negative numbers."""
    return max(x, 0)


def fresh():
    """A function that no other test has exported."""

    def f(x=3):
        return x + 1

    return f


# Lookups both ways


def test_names_are_found_from_the_symbol_and_the_symbol_from_its_names(api):
    f = fresh()
    assert api_export("nn.f", "f", "compat.v1.f", api=api)(f) is f
    assert canonical_name(f, api=api) == "nn.f"
    assert namespace(api) == {"compat.v1.f": f, "f": f, "nn.f": f}
    assert list(namespace(api)) == ["compat.v1.f", "f", "nn.f"]


def test_hundreds_of_names_belong_to_one_symbol(api):
    f, names = fresh(), [f"f{number}" for number in range(300)]
    api_export(*names, api=api)(f)
    assert namespace(api) == dict.fromkeys(names, f)


def test_order_of_the_names_decides_which_is_canonical(api):
    f, g = fresh(), fresh()
    api_export("a.f", "b.f", api=api)(f)
    api_export("b.g", "a.g", api=api)(g)
    assert [canonical_name(each, api=api) for each in (f, g)] == ["a.f", "b.g"]


def test_exporting_changes_nothing_but_one_attribute(api):
    f = fresh()
    before = {name: getattr(f, name) for name in dir(f) if name not in ("__dict__", "__dir__")}
    api_export("f", api=api)(f)
    assert f(4) == 5
    assert set(dir(f)) - set(before) - {"__dict__", "__dir__"} == {f"_{api}_api_names"}
    assert (f.__name__, f.__qualname__) == ("f", "fresh.<locals>.f")
    assert f.__module__ == __name__


def test_decorator_is_a_call_with_the_function(api):
    @api_export("by_syntax", api=api)
    def f():
        return 1

    g = fresh()
    g = api_export("by_call", api=api)(g)
    assert namespace(api) == {"by_call": g, "by_syntax": f}


def test_one_symbol_has_separate_names_in_each_api(api):
    f = fresh()
    api_export("f", api=api)(f)
    api_export("g", api=f"{api}.more")(f)
    assert canonical_name(f, api=api) == "f"
    assert canonical_name(f, api=f"{api}.more") == "g"
    assert canonical_name(f, api=f"{api}.other") is None


def test_result_of_namespace_is_a_copy(api):
    api_export("f", api=api)(fresh())
    namespace(api).clear()
    assert list(namespace(api)) == ["f"]


@pytest.mark.parametrize("symbol", [3, "text", None, len, int, [], relu, functools.partial(relu, 2)])
def test_what_was_not_exported_has_no_name(symbol):
    assert canonical_name(symbol, api="never used") is None


def test_bound_method_answers_with_the_name_of_its_function(api):
    class Layer:
        @api_export("layers.call", api=api)
        def call(self):
            return 1

    assert canonical_name(Layer().call, api=api) == canonical_name(Layer.call, api=api) == "layers.call"


# Classes


def test_subclass_inherits_no_name_and_may_have_one(api):
    class Layer:
        pass

    class Dense(Layer):
        pass

    class Hidden(Layer):
        pass

    api_export("layers.Layer", api=api)(Layer)
    api_export("layers.Dense", api=api)(Dense)
    assert hasattr(Hidden, f"_{api}_api_names")  # inherited, which must not count
    assert [canonical_name(each, api=api) for each in (Layer, Dense, Hidden)] == ["layers.Layer", "layers.Dense", None]


def test_exported_class_still_makes_instances_and_is_its_own_type(api):
    @api_export("Point", api=api)
    @dataclasses.dataclass
    class Point:
        x: int

    assert Point(3) == copy.deepcopy(Point(3))
    assert isinstance(Point(3), Point)
    assert canonical_name(Point(3), api=api) is None  # the name is the class's


def test_callable_object_can_be_exported(api):
    square = functools.partial(pow, exp=2)
    api_export("square", api=api)(square)
    assert canonical_name(square, api=api) == "square"
    assert namespace(api)["square"](3) == 9


# Constants


def test_constants_are_found_by_name_only(api):
    shared = []
    assert api_export("consts.pi", "pi", api=api).constant(3.14) == 3.14
    assert api_export("consts.shared", api=api).constant(shared) is shared
    assert namespace(api) == {"consts.pi": 3.14, "consts.shared": shared, "pi": 3.14}
    assert canonical_name(3.14, api=api) is None


def test_equal_constants_have_separate_names(api):
    for _ in range(2):  # a cell that runs again
        api_export("one", api=api).constant(1)
        api_export("un", api=api).constant(1)
    assert namespace(api) == {"one": 1, "un": 1}


# Conflicts


def taken(names, api):
    return {name: symbol for name, symbol in namespace(api).items() if name in names}


@pytest.mark.parametrize("names", [("nn.f",), ("new", "nn.f"), ("nn",), ("nn.f.g",), ("a", "a.b")], ids=repr)
def test_conflict_with_another_symbol_stores_nothing(api, names):
    f, g = fresh(), fresh()
    api_export("nn.f", api=api)(f)
    with pytest.raises(ValueError, match=r"is a name of .*fresh.* already|cannot be a package"):
        api_export(*names, api=api)(g)
    with pytest.raises(ValueError, match=r"already|cannot be a package"):
        api_export(*names, api=api).constant(3)
    assert namespace(api) == {"nn.f": f}
    assert vars(g) == {}
    api_export("nn.g", "nnf", "f", api=api)(g)  # similar names are free
    assert canonical_name(g, api=api) == "nn.g"


def test_second_export_of_one_symbol_is_refused(api):
    f = fresh()
    api_export("f", api=api)(f)
    for again in ("f", "g"):
        with pytest.raises(ValueError, match=r"is exported to .* already, as \('f',\)"):
            api_export(again, api=api)(f)
    assert namespace(api) == {"f": f}


def test_reloaded_module_replaces_its_exports_and_their_old_names(api, package):
    source = f"from zhixing.engineering.api_export import api_export\n\n@api_export('f', 'g', api={api!r})\ndef f():\n"
    module = package(f"{source}    return 1\n")
    first = module.f
    path = module.__file__
    with open(path, "w") as file:
        file.write(source.replace("'g'", "'h'") + "    return 'second'\n")
    module = importlib.reload(module)
    assert namespace(api) == {"f": module.f, "h": module.f}
    assert module.f is not first
    assert module.f() == "second"


def test_new_version_without_a_common_name_leaves_the_old_one(api, package):
    source = (
        "from zhixing.engineering.api_export import api_export\n\n@api_export({!r}, api={!r})\ndef f():\n    pass\n"
    )
    module = package(source.format("old", api))
    first = module.f
    Path(module.__file__).write_text(source.format("another", api))
    module = importlib.reload(module)
    assert namespace(api) == {"another": module.f, "old": first}
    assert module.f is not first


def test_constants_are_told_apart_by_their_text_only(api):
    first, second = np.zeros(5000), np.zeros(5000)
    second[2500] = 1  # which repr leaves out
    api_export("table", api=api).constant(first)
    api_export("table", api=api).constant(second)
    assert namespace(api)["table"] is second
    with pytest.raises(ValueError, match="already"):
        api_export("table", api=api).constant(first + 1)


def test_same_name_in_another_module_is_no_new_version(api, package):
    source = (
        f"from zhixing.engineering.api_export import api_export\n\n@api_export('f', api={api!r})\ndef f():\n    pass\n"
    )
    package(source)
    with pytest.raises(ValueError, match=r"f is a name of private_\w+\.f in"):
        package(source)


def test_functions_of_a_factory_are_no_versions_of_each_other(api):
    api_export("f", api=api)(fresh())
    with pytest.raises(ValueError, match="already"):
        api_export("f", api=api)(fresh())


def test_new_version_may_turn_a_name_into_a_package(api, package):
    source = "from zhixing.engineering.api_export import api_export\n\n@api_export({}, api={!r})\ndef f():\n    pass\n"
    module = package(source.format("'f', 'old'", api))
    Path(module.__file__).write_text(source.format("'f', 'old.f'", api) + "# of another size\n")
    importlib.reload(module)
    assert list(namespace(api)) == ["f", "old.f"]


# Wrong input


@pytest.mark.parametrize("wrong", ["", "a-b", "a..b"])
def test_malformed_api_is_an_error(wrong):
    with pytest.raises(ValueError, match="identifiers and dots"):
        api_export("f", api=wrong)


NAMES = {
    "none": (),
    "repeated": ("f", "f"),
    "empty": ("",),
    "empty part": ("nn..f",),
    "dot first": (".f",),
    "keyword": ("nn.lambda",),
    "digit": ("nn.2d",),
    "dash": ("a-b",),
    "module's own": ("nn.__name__",),
    "object's own": ("nn.__class__",),
    "space": ("nn. f",),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_malformed_names_are_errors(names, api):
    with pytest.raises(ValueError, match=r"different names|identifiers and dots"):
        api_export(*names, api=api)


@pytest.mark.wrong_input
@pytest.mark.parametrize("names", [(3,), (None,), (relu,)])
def test_names_that_are_no_text_are_errors(names, api):
    with pytest.raises(ValueError, match="identifiers and dots"):
        api_export(*names, api=api)


def test_forgotten_parentheses_are_an_error():
    with pytest.raises((ValueError, TypeError)):

        @tf_export
        def f():
            pass


@pytest.mark.parametrize("names", [("nn.f",), ("__internal__.f",), ("naïve", "数.平方")], ids=repr)
def test_any_identifiers_are_names(names, api):
    f = fresh()
    assert canonical_name(api_export(*names, api=api)(f), api=api) == names[0]


class Slots:
    __slots__ = ()

    def __call__(self):
        return 1


@pytest.mark.parametrize("symbol", [3, "text", None, [1]], ids=repr)
def test_constant_used_as_symbol_is_an_error(symbol, api):
    with pytest.raises(ValueError, match="only functions and classes"):
        api_export("f", api=api)(symbol)


@pytest.mark.parametrize("symbol", [len, int, Slots(), random.Random(0).random, Slots().__call__])
def test_symbol_that_takes_no_attributes_is_an_error_and_stores_nothing(symbol, api):
    with pytest.raises(ValueError, match="takes no attributes"):
        api_export("f", api=api)(symbol)
    with pytest.raises(ValueError, match="no exports"):
        namespace(api)


@pytest.mark.parametrize("wrapper", [staticmethod, classmethod, property])
def test_export_outside_of_staticmethod_and_its_like_is_an_error(wrapper, api):
    with pytest.raises(ValueError, match="only functions and classes"):
        api_export("f", api=api)(wrapper(fresh()))


@pytest.mark.parametrize("read", [namespace, public_module])
def test_api_without_exports_is_an_error_that_names_the_others(read, api):
    api_export("f", api=api)(fresh())
    with pytest.raises(ValueError, match=rf"were its modules imported\? There are: .*{api}"):
        read(f"{api}_mistyped")


# Components


@pytest.mark.parametrize("name", ["estimators.x", "estimator", "estimator_x", "x.estimator.y", "x"])
def test_prefix_is_compared_with_its_dot(name):
    with pytest.raises(ValueError, match=r"lie under estimator\."):
        estimator_export("estimator.good", name)


@pytest.mark.parametrize("make", [partial, functools.partial])
def test_partial_of_api_export_exports_to_the_stored_api(make, api):
    f = fresh()
    make(make(api_export, api="another"), api=api)("f")(f)
    assert canonical_name(f, api=api) == "f"
    assert canonical_name(f, api="another") is None


def test_tf_export_has_the_signature_of_api_export():
    assert str(inspect.signature(tf_export)) == "(*names: str, api: str = 'tensorflow', under: str = '') -> None"
    f = fresh()
    tf_export(f"test.{f.__name__}_{uuid.uuid4().hex}")(f)
    assert canonical_name(f, api="tensorflow").startswith("test.f_")
    assert canonical_name(f, api="estimator") is None


def test_stored_api_can_be_overridden_by_the_call(api):
    f = fresh()
    tf_export("f", api=api)(f)
    assert canonical_name(f, api=api) == "f"
    assert canonical_name(f, api="tensorflow") is None


# The tree


def test_tree_reaches_every_symbol_by_its_name(api):
    f, g = fresh(), fresh()
    api_export("a.b.f", "f", api=api)(f)
    api_export("a.g", api=api)(g)
    api_export("a.b.one", api=api).constant(1)
    tree = public_module(api)
    for name, symbol in namespace(api).items():
        assert functools.reduce(getattr, name.split("."), tree) is symbol
    assert {type(each) for each in (tree, tree.a, tree.a.b)} == {types.ModuleType}
    assert [each.__name__ for each in (tree, tree.a, tree.a.b)] == [api, f"{api}.a", f"{api}.a.b"]
    assert [name for name in dir(tree.a) if not name.startswith("__")] == ["b", "g"]


def test_tree_is_not_importable(api):
    api_export("a.f", api=api)(fresh())
    public_module(api)
    assert api not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{api}.a")


def test_module_that_is_not_imported_has_exported_nothing(api, package):
    source = (
        "from zhixing.engineering.api_export import api_export\n\n@api_export({!r}, api={!r})\ndef f():\n    pass\n"
    )
    package(source.format("a.f", api))
    assert list(namespace(api)) == ["a.f"]
    package(source.format("b.f", api))
    assert list(namespace(api)) == ["a.f", "b.f"]


# Where it goes wrong


def test_wrapper_made_by_wraps_carries_the_name_of_another_object(api):
    f = fresh()
    api_export("f", api=api)(f)

    @functools.wraps(f)
    def wrapper(x):
        return f(x)

    assert canonical_name(wrapper, api=api) == "f"
    assert namespace(api)["f"] is f
    with pytest.raises(ValueError, match="already"):
        api_export("f", api=api)(wrapper)


def test_export_inside_of_a_slotted_dataclass_names_a_class_that_nobody_uses(api):
    @dataclasses.dataclass(slots=True)
    @api_export("Point", api=api)
    class Point:
        x: int

    assert namespace(api)["Point"] is not Point
    assert canonical_name(Point, api=api) == "Point"


LIBRARY = """\
def f(x):
    return x + 1

class Layer:
    units = 3
"""


def test_export_keeps_pickle_and_source_working(api, package):
    private = package(LIBRARY)
    for symbol in (private.f, private.Layer):
        api_export(f"public.{symbol.__name__}", api=api)(symbol)
        assert pickle.loads(pickle.dumps(symbol)) is symbol
        assert private.__name__.encode() in pickle.dumps(symbol)
        assert inspect.getsource(symbol) in LIBRARY


def test_setting_module_breaks_pickle_until_attached_and_the_source_of_classes(api, package, monkeypatch):
    private = package(LIBRARY)
    f, layer = private.f, private.Layer
    public = types.ModuleType(api)
    for symbol in (f, layer):
        symbol.__module__ = api
        with pytest.raises(pickle.PicklingError):
            pickle.dumps(symbol)
    monkeypatch.setitem(sys.modules, api, public)
    public.f, public.Layer = f, layer
    assert pickle.loads(pickle.dumps(f)) is f
    assert pickle.loads(pickle.dumps(layer)) is layer
    assert private.__name__.encode() not in pickle.dumps(f)
    assert inspect.getsource(f) in LIBRARY  # of a function, the code knows its file
    with pytest.raises((OSError, TypeError)):
        inspect.getsource(layer)


def test_pickle_needs_the_public_qualname_too(api, package, monkeypatch):
    f = package("def _relu_v2(x):\n    return max(x, 0)\n")._relu_v2
    public = types.ModuleType(api)
    monkeypatch.setitem(sys.modules, api, public)
    public.relu, f.__module__ = f, api
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(f)
    f.__qualname__ = "relu"
    assert pickle.loads(pickle.dumps(f)) is f


def test_wrapper_can_be_pickled_but_not_what_it_wraps(package):
    module = package(
        "import functools\n\ndef logged(f):\n    @functools.wraps(f)\n    def wrapper():\n        return f()\n"
        "    return wrapper\n\n@logged\ndef f():\n    pass\n"
    )
    assert pickle.loads(pickle.dumps(module.f)) is module.f
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(module.f.__wrapped__)


def test_walking_packages_lists_modules_but_imports_only_packages(api, tmp_path, monkeypatch):
    source = f"from zhixing.engineering.api_export import api_export\n\n@api_export('f', api={api!r})\ndef f(): pass\n"
    root = f"package_{uuid.uuid4().hex}"
    (tmp_path / root / "sub").mkdir(parents=True)
    (tmp_path / root / "bad").mkdir()
    for name, text in {
        "__init__": "",
        "sub/__init__": "",
        "sub/leaf": source,
        "bad/__init__": "import _absent_",
    }.items():
        (tmp_path / root / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    path = importlib.import_module(root).__path__
    walked = [each.name for each in pkgutil.walk_packages(path, f"{root}.")]
    assert walked == [f"{root}.{name}" for name in ("bad", "sub", "sub.leaf")]
    with pytest.raises(ValueError, match="no exports"):
        namespace(api)
    with pytest.raises(ImportError):
        importlib.import_module(walked[0])
    importlib.import_module(walked[2])
    assert list(namespace(api)) == ["f"]


# Partial


def record(*args, **keywords):
    return args, keywords


def splits(seed):
    """Some arguments and keywords, cut at random into pieces: what each partial stores, and the call."""
    draw = random.Random(seed)
    pieces = draw.randint(3, 6)
    return [
        (
            tuple(draw.sample(range(9), draw.randint(0, 3))),
            {k: draw.randint(0, 9) for k in "abcd" if draw.random() < 0.4},
        )
        for _ in range(pieces)
    ]


def nested(make, pieces):
    function = record
    for args, keywords in pieces:
        function = make(function, *args, **keywords)
    return function


def test_partial_equals_functools_on_2000_nested_splits():
    for seed in range(2000):
        *stored, (args, keywords) = splits(seed)
        ours, theirs = (nested(make, stored)(*args, **keywords) for make in (partial, functools.partial))
        # The order of keywords, too, which a function sees.
        assert (ours, list(ours[1])) == (theirs, list(theirs[1]))


def test_partial_stores_what_functools_stores():
    for seed in range(200):
        pieces = splits(seed)
        ours, theirs = (nested(make, pieces) for make in (partial, functools.partial))
        assert (ours.func, ours.args, ours.keywords) == (theirs.func, theirs.args, theirs.keywords)
        assert ours.func is record


def test_partial_of_partial_calls_as_one_partial():
    whole = [x for args, _ in splits(3) for x in args]
    assert nested(partial, splits(3))() == (tuple(whole), nested(functools.partial, splits(3))()[1])


def test_inner_partial_with_attributes_is_merged_here_but_not_in_functools(api):
    for make in (partial, functools.partial):
        inner = make(record, 1)
        api_export(f"{make.__module__.split('.')[0]}.record", api=api)(inner)
        outer = make(inner, 2)
        assert outer(3) == ((1, 2, 3), {})
        assert outer.func is (record if make is partial else inner)
        assert canonical_name(outer, api=api) is None


def test_partial_leaves_the_inner_partial_as_it_was():
    inner = partial(record, 1, a=2)
    partial(inner, 3, a=4, b=5)
    assert (inner.args, inner.keywords) == ((1,), {"a": 2})
    assert inner(b=6) == ((1,), {"a": 2, "b": 6})
    assert inner(a=7) == ((1,), {"a": 7})
    assert inner() == ((1,), {"a": 2})


@pytest.mark.parametrize("make", [partial, functools.partial])
def test_keywords_may_have_any_names(make):
    assert make(record, self=1, func=2)(func=3, args=4) == ((), {"self": 1, "func": 3, "args": 4})


@pytest.mark.parametrize("make", [partial, functools.partial])
def test_stored_list_stays_shared(make):
    stored = []
    function = make(record, stored, key=stored)
    stored.append(1)
    args, keywords = function()
    assert args[0] is keywords["key"] is stored


@pytest.mark.parametrize("make", [partial, functools.partial])
def test_partial_has_no_name_of_its_own_and_survives_pickle(make):
    power = make(pow, 2)
    assert not hasattr(power, "__name__")
    assert pickle.loads(pickle.dumps(power))(10) == 1024


@pytest.mark.parametrize("make", [partial, functools.partial])
def test_static_partial_in_a_class_receives_no_self(make):
    class Model:
        static = staticmethod(make(record, 1))

    assert Model().static(2) == Model.static(2) == ((1, 2), {})


def test_plain_partial_in_a_class_receives_self_from_python_3_14_on():
    class Model:
        ours, theirs = partial(record, 1), functools.partial(record, 1)

    model = Model()
    assert model.ours(2) == ((1, 2), {})
    assert Model.theirs(2) == ((1, 2), {})
    if sys.version_info >= (3, 14):
        assert model.theirs(2) == ((1, model, 2), {})
    elif sys.version_info < (3, 13):  # 3.13 warns
        assert model.theirs(2) == ((1, 2), {})


@pytest.mark.wrong_input
@pytest.mark.parametrize("func", [3, None, "text", [relu]])
def test_partial_of_what_cannot_be_called_is_an_error(func):
    with pytest.raises(ValueError, match="can be called"):
        partial(func)
