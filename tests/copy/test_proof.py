"""Test that the proof of copied files detects every kind of change, in files of a small package."""

from pathlib import Path

import pytest
from proof import Source, find_errors, ties, undefined_names

from zhixing_copy.catalogue import read_modules
from zhixing_copy.standalone import standalone


def errors_after(package: Path, definition: str, change=lambda text: text) -> list[str]:
    """Return the errors in the file of plane/shapes, or of one of its definitions, after a change."""
    modules = read_modules(package)
    sources = {name: Source(module.source) for name, module in modules.items()}
    text = standalone(modules, "plane/shapes", definition).text
    return find_errors(change(text), "plane/shapes", definition, sources)


def replaced(old: str, new: str):
    def change(text: str) -> str:
        assert text.count(old) == 1
        return text.replace(old, new)

    return change


@pytest.mark.parametrize("definition", ["", "circle", "triangle", "both"])
def test_unchanged_file_has_no_errors(package, definition):
    assert errors_after(package, definition) == []


def errors_without(statement: str, package: Path) -> list[str]:
    """Return the errors in the file of circle if its module also has this statement, which the file omits."""
    text = standalone(read_modules(package), "plane/shapes", "circle").text
    path = package / "plane/shapes.py"
    path.write_text(f"{path.read_text()}\n\n{statement}\n")
    sources = {name: Source(module.source) for name, module in read_modules(package).items()}
    return find_errors(text, "plane/shapes", "circle", sources)


BROKEN = {
    "a statement left out of a module": ("", replaced("UNUSED = 3\n", ""), "left out: UNUSED = 3"),
    "a statement changed": ("circle", replaced("PI * r**2", "PI * r**3"), "no module has this statement"),
    "a statement added": ("circle", lambda text: f"{text}\nmore = 1\n", "no module has this statement"),
    "a default changed": ("triangle", replaced("= torch.abs", "= torch.sign"), "no module has this statement"),
    "statements out of order": (
        "",
        lambda text: text.replace("UNUSED = 3\n", "").replace("import math\n", "import math\n\nUNUSED = 3\n"),
        "no module has this statement after the preceding ones: PI",
    ),
    "a side effect left out": (
        "both",
        replaced("\n\n\n@both.register\ndef _(r):\n    return r", ""),
        "left out, though it acts on both: @both.register",
    ),
    "the definition itself left out": (
        "circle",
        lambda text: text[: text.index("def circle")],
        "circle is not defined by a statement of plane/shapes",
    ),
    "another import": (
        "circle",
        replaced("import math\n", "import cmath as math\n"),
        "math is not the same import as in plane/shapes",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_file_is_detected(package, broken):
    definition, change, message = BROKEN[broken]
    assert any(message in error for error in errors_after(package, definition, change))


@pytest.mark.parametrize(
    "statement",
    [
        "circle.unit = 'm²'",
        "PI += 0",
        "PI = 22 / 7",
        "setattr(circle, 'unit', 1)",
        "known = registered(circle)",
        "circle.cache_clear()",
        "for each in (circle,):\n    each.unit = 1",
        "del circle.unit",
        "@circle.register\ndef square(x):\n    return x",
        "class Square:\n    circle.unit = 1",
        "class Square:\n    @circle.register\n    def area(self):\n        pass",
        "try:\n    from fast import circle\nexcept ImportError:\n    pass",
    ],
)
def test_omitted_statement_that_acts_on_a_kept_name_is_detected(package, statement):
    (error,) = errors_without(statement, package)
    assert error.startswith("left out, though it acts on")


@pytest.mark.parametrize(
    "statement",
    [
        "def square(x):\n    circle.unit = 1\n    return register(circle)",
        "ALL = {'circle': circle}",
        "class Square:\n    area = staticmethod(circle)\n\n    def more(self):\n        circle.unit = 1",
        "if __name__ == '__main__':\n    circle(1)",
        "later = lambda: circle.cache_clear()",
    ],
)
def test_omitted_statement_that_only_refers_to_a_name_is_no_error(package, statement):
    assert errors_without(statement, package) == []


def test_name_in_two_modules_must_come_from_the_imported_one(package):
    """The same definition is also in another module, which the copied definition does not use."""
    (package / "plane/late.py").write_text("def check(x):\n    pass\n")
    text = standalone(read_modules(package), "plane/shapes", "circle").text
    start, end = text.index("def check"), text.index("PI = ")
    text = f"{text[:start]}def check(x):\n    pass\n\n\n# As good as it gets.\n{text[end:]}"
    sources = {name: Source(module.source) for name, module in read_modules(package).items()}
    assert find_errors(text, "plane/shapes", "circle", sources) == ["check of plane/tools is bound by plane/late"]


def test_statement_in_two_modules_is_the_imported_ones(package):
    (package / "plane/a.py").write_text((package / "plane/tools.py").read_text())
    assert errors_after(package, "circle") == []


def test_omitted_definition_with_the_name_of_a_builtin_is_detected(package):
    path = package / "plane/shapes.py"
    path.write_text(path.read_text().replace("check", "min"))
    tools = package / "plane/tools.py"
    tools.write_text(tools.read_text().replace("check", "min"))
    assert errors_after(package, "circle") == []
    assert errors_after(package, "circle", lambda text: text[: text.index("def min")] + text[text.index("# As") :]) == [
        "min of plane/tools is bound by something else"
    ]


def test_undefined_redefined_and_unused_names_are_detected(tmp_path):
    (tmp_path / "good.py").write_text("import math\n\nPI = math.pi\n")
    (tmp_path / "bad.py").write_text("import math\nimport os\n\n\ndef f():\n    return PI\n\n\ndef f():\n    os\n")
    found = undefined_names(tmp_path)
    assert list(found) == ["bad.py"]
    text = " ".join(found["bad.py"])
    for word in "Undefined name `PI`", "`math` imported but unused", "unused `f`":
        assert word in text


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from zhixing.plane import late", 1),
        ("import zhixing.plane.late as late", 1),
        ("from . import late", 1),
        ("PROGRAM = 'import zhixing'", 1),
        ("PROGRAM = f'from zhixing.plane import {names}'", 1),
        ("late = importlib.import_module('zhixing.plane.late')", 1),
        ("def root():\n    return Path(__file__).parents[2]", 1),
        ("name = __package__", 1),
        ('def root():\n    """See zhixing.plane."""', 0),
        ("if __name__ == '__main__':\n    main()", 0),
    ],
)
def test_file_that_is_tied_to_its_package_is_detected(line, found):
    assert len(ties(f'"""Of zhixing."""\n\n{line}\n', "zhixing")) == found
