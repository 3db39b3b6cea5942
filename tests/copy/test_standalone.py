"""Test standalone files: their contents, and the errors for code that cannot be copied."""

import ast

import pytest

from zhixing_copy.catalogue import read_modules
from zhixing_copy.standalone import standalone


def names(text: str) -> list[str]:
    """Return the names that the file defines at its top level, in order."""
    body = ast.parse(text).body
    return [
        getattr(node, "name", None) or node.targets[0].id
        for node in body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign))
    ]


def imports(text: str) -> list[str]:
    return [ast.unparse(node) for node in ast.parse(text).body if isinstance(node, (ast.Import, ast.ImportFrom))]


@pytest.fixture
def alone(package):
    """Return a function that makes the standalone text of a module, or of one of its definitions."""

    def alone(module: str, definition: str = "") -> str:
        return standalone(read_modules(package), module, definition).text

    return alone


def test_definition_includes_exactly_what_it_refers_to(alone):
    text = alone("plane/shapes", "circle")
    assert names(text) == ["check", "PI", "circle"]
    assert imports(text) == ["import math", "from torch import Tensor"]
    assert "# As good as it gets.\nPI" in text
    text = alone("plane/shapes", "triangle")
    assert names(text) == ["half", "_two", "triangle"]
    assert imports(text) == [
        "import itertools",
        "from collections.abc import Callable",
        "import torch",
        "from torch import Tensor",
    ]


def test_module_is_complete_and_follows_its_dependencies(alone):
    text = alone("plane/shapes")
    assert text.startswith('"""Areas of shapes."""\n\nimport itertools\nimport math\n')
    assert names(text) == ["twice", "check", "half", "_two", "PI", "UNUSED", "circle", "triangle", "both", "_"]


def test_import_inside_a_function_is_removed(alone):
    text = alone("plane/shapes", "both")
    assert names(text) == ["twice", "check", "PI", "circle", "both", "_"]
    assert "zhixing" not in text


def test_shapes_are_comments(alone):
    text = alone("plane/shapes")
    assert "def circle(r: Tensor) -> Tensor:  # r: Float (*shape), returns Float (*shape)\n" in text
    assert "    base: Tensor,  # Float (*shape)\n" in text
    assert ") -> tuple[Tensor, Tensor]:  # Float (*shape), Float ()\n" in text
    assert "jaxtyping" not in text


def test_shapes_of_a_long_line_are_above_it(alone, package):
    path = package / "plane/shapes.py"
    path.write_text(path.read_text().replace("def circle(r: ", "def circle(r_that_has_a_long_name_for_a_radius: "))
    note = "# r_that_has_a_long_name_for_a_radius: Float (*shape), returns Float (*shape)"
    assert f"\n\n{note}\ndef circle(r_that_has_a_long_name_for_a_radius: Tensor) -> Tensor:\n" in alone("plane/shapes")


def test_definition_with_the_name_of_a_builtin_is_included(alone, package):
    (package / "plane/late.py").write_text("def sum(x):\n    return x\n\n\ndef total(x):\n    return sum(x)\n")
    assert names(alone("plane/late", "total")) == ["sum", "total"]


def test_annotation_in_quotes_is_a_reference(alone, package):
    (package / "plane/late.py").write_text('class Edge:\n    node: "Node | None"\n\n\nclass Node:\n    pass\n')
    assert names(alone("plane/late", "Edge")) == ["Edge", "Node"]


def test_result_computes_the_same(alone):
    space = {}
    exec(alone("plane/shapes", "triangle"), space)
    import torch

    area, _ = space["triangle"](torch.tensor(-3.0), torch.tensor(4.0))
    assert area == 6


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("import check, half", "import check as half", "without renaming them"),
        (
            "from zhixing.plane.tools import check, half",
            "from zhixing.plane import tools as half",
            "without renaming them",
        ),
        ("from zhixing.plane.tools import check, half", "from zhixing.nowhere import half", "without renaming them"),
        ("PI = math.pi", "check = math.pi", "check is defined by both plane/"),
        ("from torch import Tensor", "from torch import FloatTensor as Tensor", "Tensor is defined by both"),
        ("def circle(r: Float[Tensor,", "def circle(r: Float[\n    Tensor,", "spans several lines"),
        ("return PI * r**2", "return PI * r**2 if Float else r", "used for something other than a shape"),
    ],
)
def test_code_that_would_not_work_is_an_error(alone, package, old, new, message):
    path = package / "plane/shapes.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        alone("plane/shapes")


def test_circular_imports_are_an_error(alone, package):
    path = package / "plane/late.py"
    path.write_text("from zhixing.plane.shapes import PI\n\n\ndef twice(x):\n    return 2 * x * PI\n")
    with pytest.raises(ValueError, match="import from each other: plane/"):
        alone("plane/shapes")


def test_unknown_definition_is_an_error(alone):
    with pytest.raises(ValueError, match="plane/shapes defines no square"):
        alone("plane/shapes", "square")


FAST = """\
try:
    import triton
except ImportError:
    triton = None
"""


@pytest.mark.parametrize(
    ("statement", "needs"),
    [
        (FAST, ("triton",)),
        ("if True:\n    import triton\nelse:\n    triton = None\n", ("triton",)),
        ("import contextlib\n\nwith contextlib.suppress(ImportError):\n    import triton\n", ("triton",)),
        ("for _ in range(1):\n    from fast.deep import kernel as triton\n", ("fast",)),
        ("try:\n    import tomllib as triton\nexcept ImportError:\n    import tomli as triton\n", ("tomli",)),
        ("try:\n    import json as triton\nfinally:\n    pass\n", ()),
    ],
)
def test_import_inside_a_statement_is_included_and_needed(package, statement, needs):
    text = f"{statement}\n\ndef twice(x):\n    return triton or 2 * x\n\n\ndef other(x):\n    return x\n"
    (package / "plane/late.py").write_text(text)
    file = standalone(read_modules(package), "plane/late", "twice")
    assert "triton" in file.text.partition("def twice")[0]
    assert "def other" not in file.text
    assert file.needs == needs
    assert "triton" not in standalone(read_modules(package), "plane/late", "other").text
    assert "triton" in standalone(read_modules(package), "plane/shapes", "both").text


def test_import_inside_a_function_is_needed(package):
    (package / "plane/late.py").write_text("def twice(x):\n    import triton\n\n    return triton.twice(x)\n")
    assert standalone(read_modules(package), "plane/late", "twice").needs == ("triton",)
    assert standalone(read_modules(package), "plane/shapes", "both").needs == ("torch", "triton")


TOOLS = "from zhixing.plane.tools import half"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (f"try:\n    {TOOLS}\nexcept ImportError:\n    half = None", "late:2: import from zhixing at the top"),
        (f"if True:\n    {TOOLS}\n    print()", "late:2: import from zhixing at the top"),
        (f"class A:\n    {TOOLS}\n    b = 1", "late:2: import from zhixing at the top"),
        (f"def f(x):\n    if x:\n        {TOOLS}\n    return x", "late:3: .* not alone in a block"),
        (f"def f(x):\n    try:\n        {TOOLS}\n    except ImportError:\n        pass", "late:3: .* not alone"),
        (f"def f(x):\n    y = x; {TOOLS}\n    return half(y)", "late:2: .* on lines of their own"),
        (f"def f(x):\n    {TOOLS}; y = x\n    return half(y)", "late:2: .* on lines of their own"),
        (f"def f(x): {TOOLS}", "late:1: "),
        ("from .tools import half\nhalf", "not `from .tools import half`"),
        ("from . import tools\ntools", "not `from . import tools`"),
        ("from math import *\npi", r"not `from math import \*`"),
        ("from __future__ import annotations\nx = 1", "not `from __future__ import annotations`"),
        ("if True:\n    from math import *", r"not `from math import \*`"),
        ("def f():\n    from . import tools", "not `from . import tools`"),
        ("try:\n    from jaxtyping import Float\nexcept ImportError:\n    Float = 1", "import jaxtyping at the top"),
    ],
)
def test_import_that_a_file_cannot_contain_is_an_error(alone, package, code, message):
    (package / "plane/late.py").write_text(f"{code}\n")
    with pytest.raises(ValueError, match=message):
        alone("plane/late")


def test_comment_after_an_import_inside_a_function_goes_with_it(alone, package):
    code = f"def f(x):\n    {TOOLS}  # late\n    from zhixing.plane.tools import (\n        check,\n    )\n"
    (package / "plane/late.py").write_text(f"{code}\n    return half(x)\n")
    assert alone("plane/late", "f").endswith("def f(x):\n\n    return half(x)\n")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "byte-order mark"])
@pytest.mark.parametrize("odd", ["", "\f", "\x0b\x1c\x85\u2028"], ids=["", "form feed", "separators"])
def test_module_is_read_as_python_reads_it(alone, package, end, mark, odd):
    code = f"# {odd}\nA = '''{odd}\n'''\n\n\n# Of f: {odd}.\ndef f(x):\n    return x + A  # {odd}\n"
    (package / "plane/late.py").write_bytes(mark + code.encode().replace(b"\n", end))
    assert alone("plane/late", "f") == code.replace("'''\n\n\n#", "'''\n\n\n#")
