"""The proof of copied files: what it must notice, clause by clause, in files of a small package."""

from pathlib import Path

import pytest
from proof import Source, undefined_names, wrong

from zhixing_copy.catalogue import read_modules
from zhixing_copy.standalone import standalone


def errors(package: Path, definition: str, change=lambda text: text) -> list[str]:
    """What is wrong with the file of plane/shapes, or of a definition of it, after a change."""
    modules = read_modules(package)
    sources = {name: Source(module.source) for name, module in modules.items()}
    text = standalone(modules, "plane/shapes", definition).text
    return wrong(change(text), "plane/shapes", definition, sources)


def replaced(old: str, new: str):
    def change(text: str) -> str:
        assert text.count(old) == 1
        return text.replace(old, new)

    return change


@pytest.mark.parametrize("definition", ["", "circle", "triangle", "both"])
def test_file_as_it_is_written_is_proven(package, definition):
    assert errors(package, definition) == []


def without(statement: str, package: Path) -> list[str]:
    """What is wrong with the file of a circle that leaves out this statement of its module."""
    text = standalone(read_modules(package), "plane/shapes", "circle").text
    path = package / "plane/shapes.py"
    path.write_text(f"{path.read_text()}\n\n{statement}\n")
    sources = {name: Source(module.source) for name, module in read_modules(package).items()}
    return wrong(text, "plane/shapes", "circle", sources)


BROKEN = {
    "a statement left out of a module": ("", replaced("UNUSED = 3\n", ""), "left out: UNUSED = 3"),
    "a statement changed": ("circle", replaced("PI * r**2", "PI * r**3"), "no module has this statement"),
    "a statement of nobody": ("circle", lambda text: f"{text}\nmore = 1\n", "no module has this statement"),
    "a default changed": ("triangle", replaced("= torch.abs", "= torch.sign"), "no module has this statement"),
    "statements out of order": (
        "",
        lambda text: text.replace("UNUSED = 3\n", "").replace("import math\n", "import math\n\nUNUSED = 3\n"),
        "no module has this statement, after those before it: PI",
    ),
    "an effect dropped": (
        "both",
        replaced("\n\n\n@both.register\ndef _(r):\n    return r", ""),
        "left out, though it acts on both: @both.register",
    ),
    "the definition itself left out": (
        "circle",
        lambda text: text[: text.index("def circle")],
        "circle is not defined by a statement of plane/shapes",
    ),
    "an import of another thing": (
        "circle",
        replaced("import math\n", "import cmath as math\n"),
        "math is imported as another thing than in plane/shapes",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_file_is_noticed(package, broken):
    definition, change, said = BROKEN[broken]
    assert any(said in error for error in errors(package, definition, change))


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
def test_left_out_statement_that_acts_on_what_is_kept_is_noticed(package, statement):
    (error,) = without(statement, package)
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
def test_left_out_statement_that_only_refers_is_none(package, statement):
    assert without(statement, package) == []


def test_name_of_two_modules_is_of_the_one_that_is_meant(package):
    """The same words in another module, of which the definition does not speak."""
    (package / "plane/late.py").write_text("def check(x):\n    pass\n")
    text = standalone(read_modules(package), "plane/shapes", "circle").text
    start, end = text.index("def check"), text.index("PI = ")
    text = f"{text[:start]}def check(x):\n    pass\n\n\n# As good as it gets.\n{text[end:]}"
    sources = {name: Source(module.source) for name, module in read_modules(package).items()}
    assert wrong(text, "plane/shapes", "circle", sources) == ["check of plane/tools comes from plane/late"]


def test_name_of_a_builtin_that_is_left_out_is_noticed(package):
    path = package / "plane/shapes.py"
    path.write_text(path.read_text().replace("check", "min"))
    tools = package / "plane/tools.py"
    tools.write_text(tools.read_text().replace("check", "min"))
    assert errors(package, "circle") == []
    assert errors(package, "circle", lambda text: text[: text.index("def min")] + text[text.index("# As") :]) == [
        "min of plane/tools comes from elsewhere"
    ]


def test_undefined_doubled_and_idle_names_are_noticed(tmp_path):
    (tmp_path / "good.py").write_text("import math\n\nPI = math.pi\n")
    (tmp_path / "bad.py").write_text("import math\nimport os\n\n\ndef f():\n    return PI\n\n\ndef f():\n    os\n")
    found = undefined_names(tmp_path)
    assert list(found) == ["bad.py"]
    text = " ".join(found["bad.py"])
    for word in "Undefined name `PI`", "`math` imported but unused", "unused `f`":
        assert word in text
