"""Find in test files the tests of a module, and the libraries that they compare it with."""

from pathlib import Path

import pytest

from zhixing_copy.catalogue import installed, read_modules
from zhixing_site.site.evidence import files_that_test, functions_in, reference_libraries

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = {
    "src/zhixing/area/ruler.py": "def measure(x):\n    return abs(x)\n",
    "src/zhixing/area/line.py": "from zhixing.area.ruler import measure\n\n\ndef length(a):\n    return measure(a)\n",
    "src/zhixing/area/idle.py": "def nothing():\n    pass\n",
    "tests/area/test_line.py": """\
import math

import checks_line
import pytest

import zhixing.area.line
from zhixing_copy import catalogue


@pytest.fixture
def peer():
    import torchvision.ops
    from scipy import special


@pytest.mark.parametrize("a", [1, 2])
def test_length(a):
    assert True


@pytest.mark.mutation
def test_broken_line_is_noticed():
    assert True


def helper():
    pass
""",
    "tests/area/checks_line.py": "import json\n\nimport mpmath.libmp\nimport on_ranks\n",
    "tests/area/on_ranks.py": "import psutil\nimport shared\n",
    "tests/shared.py": "import torch\n",
}


@pytest.fixture
def project(tmp_path):
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def names_of(module, project):
    return [path.name for path in files_that_test(module, read_modules(project / "src/zhixing"), project)]


def test_own_test_file_is_preferred_to_importing_files_and_files_of_users(project):
    assert names_of("area/line", project) == ["test_line.py"]
    assert names_of("area/ruler", project) == ["test_line.py"]  # line uses it
    assert names_of("area/idle", project) == []
    (project / "tests/area/test_more.py").write_text("from zhixing.area.ruler import measure\n")
    assert names_of("area/ruler", project) == ["test_more.py"]
    (project / "tests/area/checks_idle.py").write_text("import zhixing.area.idle\n")
    (project / "tests/area/test_program.py").write_text('PROGRAM = "checks_idle.py"\n')
    assert names_of("area/idle", project) == ["test_program.py"]
    (project / "tests/area/test_ruler.py").write_text("")
    assert names_of("area/ruler", project) == ["test_ruler.py"]


def test_functions_exclude_helpers_and_mutation_tests(project):
    assert functions_in(project / "tests/area/test_line.py") == ["test_length"]


def test_reference_libraries_exclude_helpers_and_tools(project):
    assert reference_libraries(project / "tests/area/test_line.py") == {"mpmath", "scipy", "torch", "torchvision"}


@pytest.mark.parametrize("module", installed())
def test_module_of_the_library_is_tested(module):
    files = files_that_test(module, installed(), REPOSITORY)
    assert [name for path in files for name in functions_in(path)]
