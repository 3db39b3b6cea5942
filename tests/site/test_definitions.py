"""Definitions as pages show them: the code without the docstring."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhixing_site.content.definitions import definition

# The text of a file, and what a page shows of its definition `f`.
SHOWN = {
    "one line": ('def f(x): "Doc."; return x * x', "def f(x): return x * x"),
    "one line with Chinese": ('def f(x): "文档。"; return "知"', 'def f(x): return "知"'),
    "one line of a class": ('class f: "Doc."; x = 1; y = 2', "class f: x = 1; y = 2"),
    "docstring alone": ('def f(x): "Doc."', 'def f(x): "Doc."'),
    "docstring alone below": ('class f(ValueError):\n    """Doc."""', 'class f(ValueError):\n    """Doc."""'),
    "statement after the docstring": (
        'def f(x):\n    """D.\n    """; y = x\n    return y',
        "def f(x):\n    y = x\n    return y",
    ),
    "semicolon after the docstring": ('async def f(x):\n    "Doc.";\n    return x', "async def f(x):\n    return x"),
    "continued line": ('def f(x): \\\n  "Doc."; \\\n  return x', "def f(x): \\\n  return x"),
    "several lines": (
        'def f(x):\n    """Doc.\n\n    More.\n    """\n    return x\n\n\nx = 1',
        "def f(x):\n    return x",
    ),
    "comments": (
        'def f(x):\n    # a\n    "Doc."  # b\n    # c\n    return x',
        "def f(x):\n    # a\n    # c\n    return x",
    ),
    "decorators": ('@one\n@two\ndef f(x):\n    "Doc."\n\n    return x', "@one\n@two\ndef f(x):\n\n    return x"),
    "no docstring": ("def f(x):\n    return x", "def f(x):\n    return x"),
    "string that is no docstring": ('def f(x): f"{x}"; return x', 'def f(x): f"{x}"; return x'),
    "characters that end lines elsewhere": (
        'a = "\u2028"\n\n\ndef f(x):\n    "D\u2029c."\n    return "\u2028"\n',
        'def f(x):\n    return "\u2028"',
    ),
}


@pytest.mark.parametrize("case", SHOWN)
def test_definition_is_shown_without_its_docstring(tmp_path, case):
    source, shown = SHOWN[case]
    (tmp_path / "a.py").write_text(source)
    assert definition("a.py", "f", tmp_path) == shown


def test_method_is_shown_without_its_docstring(tmp_path):
    (tmp_path / "a.py").write_text('class A:\n    "A."\n\n    def f(self): "Doc."; return 1\n')
    assert definition("a.py", "A.f", tmp_path) == "def f(self): return 1"
    assert definition("a.py", "A", tmp_path) == 'class A:\n\n    def f(self): "Doc."; return 1'


HEADS = st.sampled_from(["def f(x):", "async def f(知, x=(1,\n 2)):", "class f(A):", "@d\ndef f(x):"])
DOCSTRINGS = st.sampled_from(['"D."', "'''D.\n\n  é\n'''", '("D."\n    "e")', 'r"""\n"""', '"知" "e"'])
STATEMENTS = st.lists(st.sampled_from(["x = 1", "y = 2", "y = '知'", "x = [1,\n2]", '"text"']), max_size=3)


@given(
    HEADS, DOCSTRINGS, STATEMENTS, st.sampled_from([" ", "\n    ", " \\\n  "]), st.sampled_from(["; ", ";", ";\n    "])
)
def test_any_definition_is_shown_as_valid_code(tmp_path_factory, head, docstring, statements, start, between):
    """The rest of its body is unchanged; a docstring alone stays."""
    if "\n " not in start or "\\" in start:
        between = between.replace("\n    ", "")
    source = head + start + between.join([docstring, *statements])
    folder = tmp_path_factory.mktemp("definitions")
    (folder / "a.py").write_text(f"é = 1\n{source}\nz = 2\n")
    (before,), (after,) = ast.parse(source).body, ast.parse(definition("a.py", "f", folder)).body
    if statements:
        del before.body[0]
    assert ast.dump(after) == ast.dump(before)
