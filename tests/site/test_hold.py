"""Files to copy: held against the tests of their module, each in its place, and offered on the page."""

import json
import signal
import subprocess
import sys
import time

import pytest

from zhixing_copy.catalogue import read_modules
from zhixing_site import hold
from zhixing_site.fault import Fault
from zhixing_site.watch import Limits

AREAS = '''\
"""Areas."""

from zhixing.plane.tools import check

UNIT = 1


def square(side):
    """Of a square."""
    return check(side) * side


def circle(radius):
    """Nearly."""
    return 3 * square(radius) * UNIT


class Box:
    """A box."""
'''
TESTS = """\
import subprocess
import sys
import threading

import pytest

from zhixing.plane.areas import UNIT, Box, circle, square
from zhixing.plane.tools import TooSmall

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
WAYS = pytest.mark.parametrize("way", [square, circle])


def test_square():
    assert square(3) == 9


def test_circle_holds_three_squares():
    assert circle(2) == 3 * square(2) * UNIT


def test_square_of_less_than_nothing():
    with pytest.raises(ValueError, match="less"):
        square(-1)


@WAYS
def test_nothing(way):
    assert way(0) == 0


def test_kinds():
    assert isinstance(Box(), Box)


def test_of_something_else():
    assert 1 + 1 == 2


def test_source():
    import inspect

    assert "Nearly." in inspect.getsource(circle)


def test_in_a_thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(circle(1)))
    thread.start()
    thread.join()
    assert seen == [3]


def test_refused_by_the_same_class():
    with pytest.raises(TooSmall):
        square(-1)


@pytest.mark.mutation
def test_suite_notices():
    assert circle.__module__ == "never"


def test_constant():
    import torch

    torch.testing.assert_close(UNIT, 1)


@pytest.mark.processes
def test_in_other_processes():
    assert square(1) == 1


def test_in_another_process():
    program = "from zhixing.plane.areas import circle; print(circle(1))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "3\\n", done.stderr
"""
LONG = """

def test_long():
    import time
    from pathlib import Path

    Path(__file__).with_name("begun").touch()
    time.sleep(1000)
"""
FILES = {
    "pyproject.toml": "[tool.pytest.ini_options]\nmarkers = ['mutation', 'processes']\n",
    "src/zhixing/__init__.py": "",
    "src/zhixing/plane/__init__.py": "",
    "src/zhixing/plane/areas.py": AREAS,
    "src/zhixing/plane/tools.py": (
        'class TooSmall(ValueError):\n    """No error of a size."""\n\n\n'
        'def check(x):\n    """Itself."""\n    if x < 0:\n        raise TooSmall("less than nothing")\n    return x\n'
    ),
    "tests/plane/test_areas.py": TESTS,
}


@pytest.fixture
def plane(project):
    """A project with a module whose copies stand and pass."""
    for path, text in FILES.items():
        project.write(path, text)
    return project


@pytest.fixture
def held(plane):
    """Holds all: {file: the tests that it passed}, and how many modules were held anew. Raises the first fault."""

    def held() -> tuple[dict[str, list[str]], int]:
        modules = read_modules(plane.root / "src/zhixing")
        files, faults = hold.all_files(modules)
        results, more = hold.hold_all(files, modules, plane.root, lambda *_: None)
        for fault in faults + more:
            raise fault
        tests = {entry.name: tests for result in results.values() for entry, tests in result.tests.items()}
        short = {name: [test.partition("::test_")[2] for test in passed] for name, passed in tests.items()}
        return short, sum(result.seconds > 0 for result in results.values())

    return held


def test_files_pass_the_tests_that_need_only_them(held):
    tests, _ = held()
    square = ["square", "square_of_less_than_nothing", "nothing[square]", "refused_by_the_same_class"]
    assert tests == {
        "plane/areas": [
            "square",
            "circle_holds_three_squares",
            "square_of_less_than_nothing",
            "nothing[square]",
            "nothing[circle]",
            "kinds",
            "source",
            "in_a_thread",
            "refused_by_the_same_class",
            "constant",
            "in_other_processes",
            "in_another_process",
        ],
        "plane/areas.square": square,
        "plane/areas.circle": [
            "square",
            "circle_holds_three_squares",
            "square_of_less_than_nothing",
            "nothing[square]",
            "nothing[circle]",
            "source",
            "in_a_thread",
            "refused_by_the_same_class",
            "constant",
            "in_another_process",
        ],
        "plane/areas.Box": ["kinds"],
        # Without tests of its own, it is held by those of what uses it.
        "plane/tools": [test for test in tests["plane/areas"] if test not in ("kinds", "source", "constant")],
        # The same code as the module's.
        "plane/tools.check": tests["plane/tools"],
        "plane/tools.TooSmall": [],
    }


def test_what_is_the_same_is_not_held_again(held, plane):
    first, _ = held()
    assert held() == (first, 0)
    plane.replace("src/zhixing/plane/areas.py", "A box.", "A box")
    assert held() == (first, 2)  # the tests of tools run on areas
    plane.replace("tests/plane/test_areas.py", "square(3) == 9", "square(4) == 16")
    assert held() == (first, 2)
    plane.write("src/zhixing/plane/other.py", '"""Other."""\n')
    plane.write(
        "tests/plane/test_other.py",
        "import zhixing.plane.other as other\n\n\ndef test_it():\n    assert other.__doc__\n",
    )
    held()
    plane.write("src/zhixing/plane/other.py", '"""Others."""\n')
    assert held()[1] == 1


@pytest.mark.parametrize("damage", ["", "{", '{"key": "", "tests": []}'])
def test_damaged_record_is_held_again(held, plane, damage):
    first, _ = held()
    plane.write(".cache/held/plane/areas.Box.json", damage)
    assert held() == (first, 1)


WRONG = {
    "a test fails": (
        "tests/plane/test_areas.py",
        "square(3) == 9",
        "square(3) == 8",
        r"areas\.py: plane/areas for itself fails .*test_areas\.py::test_square\n.*assert 9 == 8",
    ),
    "the file alone fails it": (
        "src/zhixing/plane/areas.py",
        "return check(side) * side",
        "return check(side) * side * (check.__module__ == 'zhixing.plane.tools')",
        r"plane/areas for itself fails \S*test_square and \d others\n",
    ),
    "it needs the package": (
        "src/zhixing/plane/areas.py",
        "UNIT = 1",
        'UNIT = len([__import__("zhixing")])',
        r"plane/areas does not stand alone: .*zhixing",
    ),
    "it cannot be taken out": (
        "src/zhixing/plane/areas.py",
        "import check\n",
        "import check as check_it\n\ncheck = check_it\n",
        r"areas\.py: plane/areas cannot be copied: .*as they are called there",
    ),
    "the process ends": (
        "tests/plane/test_areas.py",
        "    assert square(3) == 9",
        "    __import__('os')._exit(3)",
        r"cannot be held against the tests",
    ),
}


@pytest.mark.parametrize(("path", "old", "new", "said"), WRONG.values(), ids=WRONG)
def test_file_that_fails_is_a_fault(held, plane, path, old, new, said):
    plane.replace(path, old, new)
    with pytest.raises(Fault, match=f"(?s){said}"):
        held()


def test_module_that_no_test_knows_is_a_fault(held, plane):
    plane.write("src/zhixing/plane/unknown.py", '"""Unknown."""\n')
    with pytest.raises(Fault, match=r"unknown\.py: no test below tests/"):
        held()


def test_tests_without_end_are_ended(held, plane, monkeypatch):
    monkeypatch.setattr(hold, "LIMITS", Limits(seconds=4))
    plane.replace("tests/plane/test_areas.py", "    assert square(3) == 9", "    while True:\n        pass")
    with pytest.raises(Fault, match="runs longer than 4 s"):
        held()


def test_interrupted_build_ends_the_tests_that_run(plane):
    plane.write("tests/plane/test_areas.py", TESTS + LONG)
    begun = plane.root / "tests/plane/begun"
    command = [sys.executable, "-m", "zhixing_site", "build"]
    build = subprocess.Popen(command, cwd=plane.root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while not begun.exists():
            assert build.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        build.send_signal(signal.SIGINT)
        assert (build.communicate(timeout=30)[1], build.returncode) == (b"", 130)
    finally:
        build.kill()
        build.communicate()


def test_build_offers_the_files_and_stops_where_one_fails(plane):
    plane.article("area/shown", "# %% one\n1\n", '# Shown { #shown }\n\n```python\n--8<-- "area/shown.py:one"\n```\n')
    text = '# Shown { #shown }\n\n```python\n--8<-- "src/zhixing/plane/areas.py:circle"\n```\n\n'
    text += '- In a list:\n\n    ```python\n    --8<-- "src/zhixing/plane/areas.py:UNIT"\n    ```\n\n'
    text += '```python\n--8<-- "src/zhixing/plane/areas.py"\n```\n\n```python\n--8<-- "area/shown.py:one"\n```\n'
    plane.page("area/shown", text)
    assert plane.build() == (0, "")
    for language, label in ("en", "Copy plane/areas.circle.py"), ("zh", "复制"):
        offers = plane.html(f"{language}/area/shown").find_class("take")
        assert [offer.find("code").text for offer in offers] == ["zhixing copy circle", "zhixing copy areas"]
        assert label.split()[0] in offers[0].find("button").text
        address = offers[0].find("a").get("href")
        assert address == "../../../code/plane/areas.circle.py"
        file = (plane.root / "site" / language / "area/shown" / address).resolve().read_text()
        assert file.startswith("# plane/areas.circle, from ")
        assert "def check" in file
    before = plane.site()
    assert len([path for path in before if path.startswith("code/")]) == 7
    plane.replace("tests/plane/test_areas.py", "square(3) == 9", "square(3) == 8")
    code, said = plane.build()
    assert code == 1
    assert "plane/areas for itself fails" in said
    assert plane.site() == before


def test_offers_do_not_get_into_the_search(plane):
    plane.article(
        "area/shown",
        "# %% one\n1\n",
        '# Shown { #shown }\n\n```python\n--8<-- "area/shown.py:one"\n```\n\n'
        '```python\n--8<-- "src/zhixing/plane/areas.py:circle"\n```\n',
    )
    assert plane.build() == (0, "")
    index = json.dumps(json.loads((plane.root / "site/en/search.json").read_text()))
    assert "def circle" in index
    assert "zhixing copy" not in index
