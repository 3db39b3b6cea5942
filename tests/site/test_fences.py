"""Tests that docs/conftest.py makes from pages: their Python runs as shown, and errors name the page's line."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import lxml.etree
import pytest

from zhixing_site.content.expand import Expander
from zhixing_site.content.page import Page, read_pages
from zhixing_site.execution.runner import ENVIRONMENT
from zhixing_site.execution.snippet import read_snippet
from zhixing_site.project import LANGUAGES

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = {language: read_pages(REPOSITORY, language) for language in LANGUAGES}


def fence(include: str) -> str:
    return f'```python\n--8<-- "{include}"\n```\n'


# Snippets; their pages show each cell that is not hidden in a separate fence.
RIGHT = {
    "shares_names": "# %% one\nx = 1\n\n# %% two\nassert x == 1\n",
    "raises": '# %% raises raises="KeyError"\n{}["a"]\n\n# %% continues\nassert True\n',
    "quits": '# %% quits raises="SystemExit"\nraise SystemExit\n',
    "warns": '# %% warns warns="UserWarning"\nimport warnings\n\nwarnings.warn("hot")\n',
    "ignores_warnings_of_other_packages": "# %% imports\nimport sys\n\nsys.path.append('{elsewhere}')\nimport heated\n",
    "prints": '# %% prints\nprint("much")\n',
    "draws": "# %% draws\nimport matplotlib.pyplot as plt\n\nplt.figure()\n\n# %% later\n"
    'assert not plt.get_fignums() and plt.get_backend() == "svg"\n',
    "changes_the_default_type": "# %% double\nimport torch\n\ntorch.set_default_dtype(torch.float64)\n",
    "has_the_default_type": "# %% single\nimport torch\n\nassert torch.get_default_dtype() == torch.float32\n",
    "has_one_thread": '# %% thread\nimport os\n\nassert os.environ["OMP_NUM_THREADS"] == "1"\n',
    "interprets_kernels": '# %% kernels\nimport os\n\nassert os.environ["TRITON_INTERPRET"] == "1"\n',
    "has_an_empty_folder": "# %% folder\nimport os\n\nassert not os.listdir()\n",
    "pickles": "# %% pickles\nimport pickle\n\n\nclass Point:\n    pass\n\n\npickle.dumps(Point())\n",
    "finds_its_source": "# %% source\nimport inspect\n\n\ndef one():\n    return 1\n\n\n"
    'assert inspect.getsource(one) == "def one():\\n    return 1\\n"\n',
}

# Snippets whose cell `wrong` fails in the line marked `# here`, and the message below that line.
WRONG = {
    "raises": ("# %% fine\nx = 1\n\n# %% wrong\ny = 0\nx / y  # here\n", "ZeroDivisionError: division by zero"),
    "raises_in_src": (
        "# %% wrong\nfrom things.power import square\n\nsquare(None)  # here\n",
        'src/things/power.py", line 3, in square\n    return x * x',
    ),
    "raises_another_error": ('# %% wrong raises="LookupError"\n{}["a"]  # here\n', "KeyError: 'a'"),
    "raises_once": (
        '# %% wrong\nif "tried" not in globals():\n    tried = True\n    raise TypeError("once")  # here\n',
        "TypeError: once",
    ),
    "needs_a_hidden_cell": (
        '# %% hidden tags=["hidden"]\nx = 1\n\n# %% wrong\ny = x  # here\n',
        "NameError: name 'x' is not defined",
    ),
}

# Snippets whose only cell contradicts its header, as reported for the line marked `# here`.
CONTRADICTED = {
    "does_not_raise": ('# %% wrong raises="KeyError"\nx = 1  # here\n', "should raise KeyError, but does not"),
    "warns": ('# %% wrong\nimport warnings\n\nwarnings.warn("hot")  # here\n', "warns UserWarning: hot"),
    "does_not_warn": ('# %% wrong warns="UserWarning"\nx = 1  # here\n', "should warn UserWarning, but does not"),
    "warns_twice": (
        '# %% wrong warns="UserWarning"\nimport warnings\n\nwarnings.warn("x")\n'
        'warnings.warn("y", FutureWarning)  # here\n',
        "warns FutureWarning: y",
    ),
    "warns_in_src": ("# %% wrong\nimport things.hot  # here\n", "warns UserWarning: hot"),
}

# An exception that the cell cannot catch.
UNCAUGHT = """\
# %% wrong
import threading

thread = threading.Thread(target=lambda: 1 / 0)  # here
thread.start()
thread.join()
"""

CELLS = "# %% fine\nx = 1\n\n# %% needs\ny = x\n\n# %% fails\n1 / 0\n"
FINE, NEEDS, FAILS = (fence(f"area/cells.py:{cell}") for cell in ("fine", "needs", "fails"))
BROKEN = "def broken():\n    return 1\n\n\n1 / 0\n"
HOT = "import warnings\n\nwarnings.warn('hot')\n"

# Pages with such a fence, and a part of the failing line.
FAILING = {
    "in_a_box": ("??? question\n\n" + textwrap.indent(FAILS, "    "), ":fails"),
    "in_a_tab": ('=== "One"\n\n' + textwrap.indent(FAILS, "    "), ":fails"),
    "in_a_list": ("1. One\n\n" + textwrap.indent(FAILS, "    "), ":fails"),
    "below_another_language": ("```text\nx =\n```\n\n" + FAILS, ":fails"),
    "above_what_it_needs": (NEEDS + "\n" + FINE, ":needs"),
    "needs_what_a_figure_hides": ("![A.](area/cells.py:fine)\n\n" + NEEDS, ":needs"),
    "names_no_cell": (fence("area/cells.py:none"), ":none"),
    "defined_in_what_fails": (fence("src/things/broken.py:broken"), ":broken"),
    "whole_file_that_fails": (fence("src/things/broken.py"), "broken.py"),
    "typed": (FINE + "\n~~~ python\nx = 1\n~~~\n", "~~~ python"),
    "in_a_quotation": ("> ```py\n> x = 1\n> ```\n\n" + FINE, "> ```py"),
    "after_a_bullet": ("- ``` {.python}\n  x = 1\n  ```\n\n" + FINE, "- ```"),
}

# A definition that counts its runs, so that the cell below it notices a second one.
COUNTED = "CALLS = []\n\n\n@CALLS.append\ndef counted():\n    return 1\n"
COUNTS = "# %% counts\nfrom things.counted import CALLS\n\nassert len(CALLS) == 1\nassert 'counted' not in globals()\n"


@pytest.fixture(scope="module")
def pages(pristine, tmp_path_factory):
    """A project with all these pages, and with the conftest.py that makes them tests."""
    project, elsewhere = pristine.copy(tmp_path_factory.mktemp("fences") / "project"), tmp_path_factory.mktemp("other")
    (elsewhere / "heated.py").write_text(HOT)
    for path in "pyproject.toml", "docs/conftest.py":
        shutil.copy(REPOSITORY / path, project.root / path)
    right = {f"right/{name}": text.replace("{elsewhere}", str(elsewhere)) for name, text in RIGHT.items()}
    project.articles(right | {f"wrong/{name}": text for name, (text, _) in (WRONG | CONTRADICTED).items()})
    project.article("wrong/in_a_thread", UNCAUGHT)
    project.write("snippets/area/cells.py", CELLS)
    for name, module in {"broken": BROKEN, "counted": COUNTED, "hot": HOT}.items():
        project.write(f"src/things/{name}.py", module)
    failing = {f"failing/{name}": page for name, (page, _) in FAILING.items()}
    project.pages(failing | {"right/whole": fence("src/things/counted.py")})
    project.article("right/defines", COUNTS, fence("src/things/counted.py:counted") + fence("right/defines.py:counts"))
    return project


@pytest.fixture(scope="module")
def failures(pages) -> dict[str, str]:
    """{page: its error, or an empty text}"""
    command = [sys.executable, "-m", "pytest", "--markdown-docs", "docs/en", "--junitxml=results.xml"]
    environment = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}  # set by a build
    environment["PYTHONPATH"] = os.pathsep.join([str(pages.root / "src"), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(command, cwd=pages.root, env=environment, capture_output=True, text=True)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "much" not in result.stdout
    cases = lxml.etree.parse(pages.root / "results.xml").iter("testcase")
    return {case.get("classname").removeprefix("docs.en."): "".join(case.itertext()) for case in cases}


@pytest.mark.parametrize("name", [*RIGHT, "defines"])
def test_page_passes(failures, name):
    assert failures[f"right.{name}.md"] == ""


@pytest.mark.parametrize("name", WRONG)
def test_traceback_names_the_page_and_the_snippet(pages, failures, name):
    places = {f"docs/en/wrong/{name}.md": ":wrong", f"snippets/wrong/{name}.py": "# here"}
    frames = [
        f'  File "{pages.root / path}", line {pages.line(path, part)}, in <module>' for path, part in places.items()
    ]
    lines = failures[f"wrong.{name}.md"].splitlines()
    assert [lines[0], lines[2]] == frames
    assert WRONG[name][1] in "\n".join(lines[3:])


def test_exception_in_a_thread_fails_the_page(pages, failures):
    line = pages.line("snippets/wrong/in_a_thread.py", "# here")
    assert f'snippets/wrong/in_a_thread.py", line {line}, in <lambda>' in failures["wrong.in_a_thread.md"]
    assert "ZeroDivisionError" in failures["wrong.in_a_thread.md"]


@pytest.mark.parametrize("name", CONTRADICTED)
def test_contradicted_header_is_an_error(pages, failures, name):
    path = f"docs/en/wrong/{name}.md"
    assert f'{path}", line {pages.line(path, ":wrong")}, in <module>' in failures[f"wrong.{name}.md"]
    snippet = f"snippets/wrong/{name}.py"
    assert (
        f"{snippet}:{pages.line(snippet, '# here')}, cell wrong: {CONTRADICTED[name][1]}"
        in failures[f"wrong.{name}.md"]
    )


@pytest.mark.parametrize("name", FAILING)
def test_every_fence_is_tested(pages, failures, name):
    path = f"docs/en/failing/{name}.md"
    assert f'{path}", line {pages.line(path, FAILING[name][1])}, in <module>' in failures[f"failing.{name}.md"]


def test_page_without_python_is_not_tested(failures):
    assert "area.squares.md" in failures
    assert "index.md" not in failures


def shown(page: Page, root: Path) -> list[str]:
    """Return the page's fences as readers see them, without their output."""
    names = {use.path for use in page.uses if not use.is_definition}
    snippets = [read_snippet(root / "snippets" / name, root) for name in sorted(names)]
    cells = {s.name: [{"id": cell.name, "source": cell.source, "outputs": []} for cell in s.cells] for s in snippets}
    expander = Expander(page, {name: {"cells": each} for name, each in cells.items()}, root, {})
    return [expander.replace(mark) for mark in page.marks if mark["fence"]]


@pytest.mark.parametrize("name", PAGES["en"] | PAGES["zh"])
def test_chinese_page_shows_the_same_code(name):
    assert shown(PAGES["en"][name], REPOSITORY) == shown(PAGES["zh"][name], REPOSITORY)


CHANGES = {
    "cell": (':table"', ':values"'),
    "order": (':setup"\n--8<-- "area/squares.py:table"', ':table"\n--8<-- "area/squares.py:setup"'),
    "definition": ('"src/things/power.py:square"', '"src/things/root.py:root"'),
}


@pytest.mark.parametrize(("old", "new"), CHANGES.values(), ids=CHANGES)
def test_different_code_on_the_chinese_page_is_detected(project, old, new):
    project.replace("docs/zh/area/squares.md", old, new)
    english, chinese = (read_pages(project.root, language)["area/squares"] for language in LANGUAGES)
    assert shown(english, project.root)[0].startswith("```python\nimport matplotlib")
    assert shown(english, project.root) != shown(chinese, project.root)
