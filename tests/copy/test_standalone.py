"""Files that stand alone: what they hold, and what they refuse."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from zhixing_copy.catalogue import entries, installed, read_modules, write
from zhixing_copy.standalone import standalone

# The package, and anything of it under another name, is not there; nor are shapes.
BLOCK = "import sys; sys.modules.update(dict.fromkeys(['zhixing', 'zhixing_copy', 'jaxtyping'])); "


def names(text: str) -> list[str]:
    """What the file's top level defines, in order."""
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
    """A function: the text of a module, or of a definition of it."""

    def alone(module: str, definition: str = "") -> str:
        return standalone(read_modules(package), module, definition).text

    return alone


def test_definition_brings_what_it_refers_to_and_nothing_more(alone):
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


def test_module_is_whole_after_what_it_needs(alone):
    text = alone("plane/shapes")
    assert text.startswith('"""Areas of shapes."""\n\nimport itertools\nimport math\n')
    assert names(text) == ["twice", "check", "half", "_two", "PI", "UNUSED", "circle", "triangle", "both", "_"]


def test_import_inside_of_a_function_is_taken_out(alone):
    text = alone("plane/shapes", "both")
    assert names(text) == ["twice", "check", "PI", "circle", "both", "_"]
    assert "zhixing" not in text


def test_shapes_are_comments(alone):
    text = alone("plane/shapes")
    assert "def circle(r: Tensor) -> Tensor:  # r: Float (*shape), returns Float (*shape)\n" in text
    assert "    base: Tensor,  # Float (*shape)\n" in text
    assert ") -> tuple[Tensor, Tensor]:  # Float (*shape), Float ()\n" in text
    assert "jaxtyping" not in text


def test_shapes_of_a_long_line_stand_above_it(alone, package):
    path = package / "plane/shapes.py"
    path.write_text(path.read_text().replace("def circle(r: ", "def circle(r_that_has_a_long_name_for_a_radius: "))
    note = "# r_that_has_a_long_name_for_a_radius: Float (*shape), returns Float (*shape)"
    assert f"\n\n{note}\ndef circle(r_that_has_a_long_name_for_a_radius: Tensor) -> Tensor:\n" in alone("plane/shapes")


def test_name_of_a_builtin_is_the_modules_own(alone, package):
    (package / "plane/late.py").write_text("def sum(x):\n    return x\n\n\ndef total(x):\n    return sum(x)\n")
    assert names(alone("plane/late", "total")) == ["sum", "total"]


def test_result_computes_the_same(alone):
    space = {}
    exec(alone("plane/shapes", "triangle"), space)
    import torch

    area, _ = space["triangle"](torch.tensor(-3.0), torch.tensor(4.0))
    assert area == 6


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("import check, half", "import check as half", "as they are called there"),
        (
            "from zhixing.plane.tools import check, half",
            "from zhixing.plane import tools as half",
            "as they are called",
        ),
        ("from zhixing.plane.tools import check, half", "from zhixing.nowhere import half", "as they are called there"),
        ("PI = math.pi", "check = math.pi", "check comes from plane/"),
        ("from torch import Tensor", "from torch import FloatTensor as Tensor", "Tensor comes from"),
        ("def circle(r: Float[Tensor,", "def circle(r: Float[\n    Tensor,", "goes over several lines"),
        ("return PI * r**2", "return PI * r**2 if Float else r", "used otherwise than for a shape"),
    ],
)
def test_what_would_not_work_is_refused(alone, package, old, new, said):
    path = package / "plane/shapes.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=said):
        alone("plane/shapes")


def test_modules_that_import_from_each_other_are_refused(alone, package):
    path = package / "plane/late.py"
    path.write_text("from zhixing.plane.shapes import PI\n\n\ndef twice(x):\n    return 2 * x * PI\n")
    with pytest.raises(ValueError, match="import from each other: plane/"):
        alone("plane/shapes")


def test_definition_that_is_not_there(alone):
    with pytest.raises(ValueError, match="plane/shapes defines no square"):
        alone("plane/shapes", "square")


ENTRIES = list(entries(installed()))


def test_everything_there_is_imports_without_the_package(tmp_path):
    """Each file of the real package in a process of its own."""
    assert len(ENTRIES) > 30
    program = f"{BLOCK}import importlib, os\n"
    program += (
        "import torch\n"  # before the fork: it is most of the time
        "for name in sys.argv[1:]:\n"
        "    if not (child := os.fork()):\n"
        "        importlib.import_module(name)\n"
        "        os._exit(0)\n"
        "    if os.waitpid(child, 0)[1]:\n"
        "        sys.exit(name)\n"
    )
    names = []
    for number, entry in enumerate(ENTRIES):
        names.append(f"file_{number}_{entry.stem}")
        (tmp_path / f"{names[-1]}.py").write_text(write(entry, installed()))
    done = subprocess.run(
        [sys.executable, "-c", program, *names], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_file_defines_what_it_is_called_after(entry):
    text = write(entry, installed())
    module = Path(installed()[entry.module].path).read_text()
    wanted = [entry.definition] if entry.definition else names(module)
    assert set(wanted) <= {*names(text), "_"}
    assert "zhixing." not in "\n".join(imports(text))
