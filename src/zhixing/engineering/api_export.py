"""Public names for private functions: a decorator that records them, and lookups both ways.

TensorFlow's `api_export` rebuilt in pure Python, together with the `partial` that makes
`tf_export` of it.
"""

import keyword
import types
from collections.abc import Callable
from typing import Any

# For each API, from public name to symbol.
_EXPORTS: dict[str, dict[str, Any]] = {}


class api_export:  # noqa: N801 (its calls look like those of a function)
    """Decorator that gives a function or class its public names, and returns it unchanged.

    The names are stored twice: in an attribute of the symbol, as in TensorFlow, and in the table
    that `namespace` reads. A definition that runs again (the cell of a notebook, a reloaded module)
    replaces the old one if they share a name; otherwise the old names stay. A constant replaces one
    of the same type and text: of long arrays, numpy abbreviates the text. Left out are TensorFlow's
    second list of names for version 1, its deprecated names and `overrides`, its search through
    wrappers for the innermost function, packages reserved for other APIs, and locks for threads.

    Args:
        names: Dotted names such as "nn.relu". The first is the canonical one.
        api: The API that the names belong to. Each API has its own names.
        under: If given, all names must lie under this package.

    Raises:
        ValueError: A name is missing, repeated, malformed or outside of `under`. When called: the
            symbol has names in this API already, or cannot have any; or a name belongs to another
            symbol, or would have to be a symbol and a package at once. Nothing is stored then.

    Examples:
        >>> @api_export("nn.relu", "relu", api="demo")
        ... def _relu_v2(x):
        ...     return max(x, 0)
        >>> _relu_v2.__name__, _relu_v2(-3)
        ('_relu_v2', 0)
        >>> _relu_v2._demo_api_names
        ('nn.relu', 'relu')
    """

    def __init__(self, *names: str, api: str, under: str = "") -> None:
        _check_name(api)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"an export needs one or several different names, but has {names}")
        for name in names:
            _check_name(name)
            # With its dot: "estimators.x" begins with "estimator" too.
            if under and not name.startswith(f"{under}."):
                raise ValueError(f"all names of {api} lie under {under}., but one is {name}")
        self.names, self.api = names, api

    def __call__(self, symbol: Any) -> Any:
        """Record the names of `symbol`, a function or class, and return it."""
        attribute = _attribute(self.api)
        if not callable(symbol) or isinstance(symbol, staticmethod):
            raise ValueError(f"only functions and classes carry names; {symbol!r} is neither")
        # Not hasattr, which also finds what a class inherits.
        if attribute in getattr(symbol, "__dict__", {}):
            known = getattr(symbol, attribute)
            raise ValueError(f"{_title(symbol)} is exported to {self.api} already, as {known}")
        freed = self._check_owners(symbol)
        try:
            setattr(symbol, attribute, self.names)
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{_title(symbol)} takes no attributes, so no names") from error
        self._store(symbol, freed)
        return symbol

    def constant(self, value: Any) -> Any:
        """Record the names of a value that cannot carry them, such as a number, and return it.

        Such a value is found by its names, but its names are not found by the value.
        """
        self._store(value, self._check_owners(value))
        return value

    def _check_owners(self, symbol: Any) -> set[str]:
        """The names of an earlier version of the same definition; any other owner raises."""
        table = _EXPORTS.get(self.api, {})
        freed: set[str] = set()
        for name in table.keys() & set(self.names):
            old = table[name]
            if not _same_definition(old, symbol):
                raise ValueError(f"{name} is a name of {_title(old)} in {self.api} already")
            freed |= {name, *getattr(old, "__dict__", {}).get(_attribute(self.api), ())}
        for name in self.names:
            for other in (table.keys() - freed) | set(self.names):
                if name.startswith(f"{other}.") or other.startswith(f"{name}."):
                    raise ValueError(f"{name}, {other}: a symbol cannot be a package")
        return freed

    def _store(self, symbol: Any, freed: set[str]) -> None:
        table = _EXPORTS.setdefault(self.api, {})
        for name in freed:
            table.pop(name, None)
        table |= dict.fromkeys(self.names, symbol)


def canonical_name(symbol: Any, *, api: str) -> str | None:
    """The first public name of a function or class, or None if it was not exported itself.

    A subclass does not inherit the name of its parent. A wrapper made with `functools.wraps` does
    answer with the name of what it wraps, since `wraps` copies attributes.

    Args:
        symbol: Anything.
        api: The API whose name is wanted.

    Examples:
        >>> class Layer: ...
        >>> class Dense(Layer): ...
        >>> Layer._demo_api_names = "layers.Layer", "Layer"  # as api_export does
        >>> canonical_name(Layer, api="demo"), canonical_name(Dense, api="demo")
        ('layers.Layer', None)
    """
    names = getattr(symbol, "__dict__", {}).get(_attribute(api))
    return names[0] if names else None


def namespace(api: str) -> dict[str, Any]:
    """All public names of an API with their symbols, in alphabetical order.

    Only modules that were imported have exported anything.

    Args:
        api: The API.

    Raises:
        ValueError: Nothing was exported to this API.

    Examples:
        >>> _EXPORTS["numbers"] = {"pi": 3.14159, "e": 2.71828}  # as api_export does
        >>> namespace("numbers")
        {'e': 2.71828, 'pi': 3.14159}
    """
    if api not in _EXPORTS:
        known = ", ".join(sorted(_EXPORTS)) or "none"
        raise ValueError(f"{api} has no exports; were its modules imported? There are: {known}")
    return dict(sorted(_EXPORTS[api].items()))


def public_module(api: str) -> types.ModuleType:
    """The names of an API as a tree of modules, so that attributes reach every symbol.

    The modules are not in `sys.modules`: `public.nn.relu` works, `import public.nn` does not.

    Args:
        api: The API, also the name of the module at the root.

    Raises:
        ValueError: Nothing was exported to this API.

    Examples:
        >>> _EXPORTS["tree"] = {"math.square": lambda x: x * x}  # as api_export does
        >>> public_module("tree").math.square(3)
        9
    """
    root = types.ModuleType(api)
    for name, symbol in namespace(api).items():
        *packages, last = name.split(".")
        module = root
        for package in packages:
            if not hasattr(module, package):
                setattr(module, package, types.ModuleType(f"{module.__name__}.{package}"))
            module = getattr(module, package)
        setattr(module, last, symbol)
    return root


class partial:  # noqa: N801
    """A function with some of its arguments stored, as `functools.partial`.

    Arguments of the call follow the stored ones; keywords of the call override the stored ones. A
    partial of a partial stores the arguments of both and calls the function itself. As in Python
    3.13 and before, a partial that is an attribute of a class receives no `self`; from 3.14 on that
    of functools does. Unlike in functools, an inner partial is merged even if it has attributes of
    its own, which are lost. Left out are, among others, the signature of what remains, a readable
    `repr`, the recognition of coroutine functions and, of Python 3.14, `Placeholder`.

    Args:
        func: The function, or anything else that can be called.
        args: Its first arguments.
        keywords: Its keyword arguments.

    Raises:
        ValueError: `func` cannot be called.

    Examples:
        >>> binary = partial(int, base=2)
        >>> binary("101"), binary("101", base=10)
        (5, 101)
        >>> power = partial(partial(pow, 2), 10)
        >>> power.func, power.args, power()
        (<built-in function pow>, (2, 10), 1024)
    """

    def __init__(self, func: Callable[..., Any], /, *args: Any, **keywords: Any) -> None:
        if not callable(func):
            raise ValueError(f"partial needs something that can be called, not {func!r}")
        if isinstance(func, partial):
            args = func.args + args
            keywords = func.keywords | keywords
            func = func.func
        self.func, self.args, self.keywords = func, args, keywords

    def __call__(self, /, *args: Any, **keywords: Any) -> Any:
        return self.func(*self.args, *args, **(self.keywords | keywords))


def _attribute(api: str) -> str:
    return f"_{api}_api_names"


def _check_name(name: str) -> None:
    parts = name.split(".") if isinstance(name, str) else [""]
    for part in parts:
        # Every module has __name__, __doc__ and others of its own.
        if (
            not part.isidentifier()
            or keyword.iskeyword(part)
            or hasattr(types.ModuleType(""), part)
        ):
            raise ValueError(f"a public name consists of identifiers and dots, but is {name!r}")


def _same_definition(old: Any, new: Any) -> bool:
    """Whether both come from one place of one module. Not so all functions of a factory."""
    if not callable(new):
        return type(old) is type(new) and repr(old) == repr(new)
    places = [(getattr(x, "__module__", None), getattr(x, "__qualname__", "<")) for x in (old, new)]
    return places[0] == places[1] and "<" not in places[0][1]


def _title(symbol: Any) -> str:
    return f"{getattr(symbol, '__module__', '')}.{getattr(symbol, '__qualname__', repr(symbol))}"
