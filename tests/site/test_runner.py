"""Runs of snippets: shown output, recorded values, and isolation from each other."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

TRIAL = "snippets/area/trial.py"


def ran(project, snippet: str) -> dict:
    """Run a snippet that has no errors; return the executed notebook."""
    project.write(TRIAL, snippet)
    assert project.run(TRIAL) == (0, "")
    return project.notebook("area/trial")


def values(notebook: dict) -> dict:
    return notebook["metadata"]["zhixing"]["values"]


# Text that the page must show exactly as it was printed.
TEXTS = {
    "HTML": '<b>&amp;</code></pre><script>alert("x")</script>',
    "fences": "```\n````\n``` python\n~~~",
    "an include": '--8<-- "area/roots.py:root"',
    "marks": "$x$ {{ nothing }} $",
    "blocks": "</div>\n\n# Heading { #heading }\n\n* * *",
    "white space": "    indented\n\n\n- list\n  - deeper",
    "Markdown": "a  b\\_c *d* [e](f) ![g](h.py:i) | j | { .k } :l: ^m^ ~~n~~",
    "Unicode": "知行 ½ 🌱",
    "odd characters": "\u2028|\u2029|\xa0|\xad|\u200b|\ufeff|\u202e|e\u0301|\ue000|\U0010fffd",
    "a comment": "<!-- comment -->",
    "a hundred lines": "\n".join(map(str, range(100))),
}
# A snippet, and the blocks of output that its page shows.
SHOWN = {f"printed: {name}": (f"# %% one\nprint({text!r})\n", [f"{text}\n"]) for name, text in TEXTS.items()} | {
    "printed text of each cell": (
        "# %% one\nprint('a')\nprint('b')\n\n# %% two\nprint('c')\n",
        ["a\nb\n", "c\n"],
    ),
    "last value": ("# %% one\nprint('a')\n'b' * 3\n\n# %% two\nx = 1\nNone\n", ["a\n", "'bbb'\n"]),
    "displayed values in order": (
        "# %% one\nfrom IPython.display import display\n\nprint('a'); display(1, 'b'); print('c')\n"
        "display(None)\n'd'\n",
        ["a\n1\n'b'\nc\nNone\n", "'d'\n"],
    ),
    "displayed values by other names": (
        "# %% one\nimport IPython\nfrom IPython import display\n\nprint('a')\ndisplay.display([1], display_id=True)\n"
        "IPython.core.display_functions.display({2})\n",
        ["a\n[1]\n{2}\n"],
    ),
    "value that IPython could show otherwise": (
        "# %% one\nclass Both:\n    def _repr_html_(self):\n        return '<b>3</b>'\n\n    def __repr__(self):\n"
        "        return 'Both(3)'\n\n\nBoth()\n",
        ["Both(3)\n"],
    ),
    "exits": (
        '# %% one raises="SystemExit"\nimport sys\n\nprint("before")\nsys.exit(3)\n\n'
        '# %% two raises="SystemExit"\nraise SystemExit("bad")\n\n# %% three raises="SystemExit"\nexit()\n\n'
        "# %% four\nprint('after')\n",
        ["before\n", "SystemExit: 3\n", "SystemExit: bad\n", "SystemExit: None\n", "after\n"],
    ),
    "exceptions that few programs catch": (
        '# %% one raises="KeyboardInterrupt"\nraise KeyboardInterrupt("stop")\n\n'
        '# %% two raises="GeneratorExit"\nraise GeneratorExit\n\n'
        '# %% three raises="CancelledError"\nimport asyncio\n\nraise asyncio.CancelledError(1)\n',
        ["KeyboardInterrupt: stop\n", "GeneratorExit: \n", "CancelledError: 1\n"],
    ),
    "error of syntax in a text": (
        '# %% one raises="SyntaxError"\nexec("1 +")\n',
        ["SyntaxError: invalid syntax (<string>, line 1)\n"],
    ),
    "header inside a string": ('# %% one\nprint("""one\n#%% two\n""")\n', ["one\n#%% two\n"]),
    "annotations that are not evaluated": (
        "# %% one\nfrom __future__ import annotations\n\n# %% two\ndef f(x: nothing): ...\n\n\nf.__annotations__\n",
        ["{'x': 'nothing'}\n"],
    ),
    "standard error": ("# %% one\nimport sys\n\nprint('a', file=sys.stderr)\n", ["a\n"]),
    "nothing of a hidden cell": ('# %% one\nprint("a")\n\n# %% two tags=["hidden"]\nprint("b")\n', ["a\n"]),
    "expected error after what was printed": (
        '# %% one raises="ZeroDivisionError"\nprint("before")\n1 / 0\nprint("after")\n\n# %% two\nprint("next")\n',
        ["before\n", "ZeroDivisionError: division by zero\n", "next\n"],
    ),
    "expected warning": (
        '# %% one warns="UserWarning"\nimport warnings\n\nprint("before")\nwarnings.warn("too hot")\n',
        ["before\nUserWarning: too hot\n"],
    ),
    "expected error and warning": (
        '# %% one raises="KeyError" warns="UserWarning"\nimport warnings\n\nwarnings.warn("too hot")\n{}["a"]\n',
        ["UserWarning: too hot\n", "KeyError: 'a'\n"],
    ),
    "no figure of the cell before": (
        '# %% one tags=["hidden"]\nimport matplotlib.pyplot as plt\n\nplt.plot([1, 2])\n\n'
        "# %% two\nprint(plt.get_fignums())\n",
        ["[]\n"],
    ),
    "no figure of a cell that raises": (
        '# %% one tags=["hidden"] raises="KeyError"\nimport matplotlib.pyplot as plt\n\nplt.plot([1, 2])\n{}["a"]\n\n'
        "# %% two\nprint(plt.get_fignums())\n",
        ["[]\n"],
    ),
}
# The body of a cell whose output is too long to show.
LONG = {
    "a million lines one by one": "for number in range(1_000_000):\n    print(number)",
    "a million lines together": "print('\\n'.join(map(str, range(1_000_000))))",
    "a line without a newline": "print('x' * 10**6, end='')",
    "a line": "print('x' * 10**6)",
    "a value": "'x' * 10**6",
    "an exception": "raise ValueError('x' * 10**6)",
}
CODE = "text = '''\n```\n</code> & $x$ {{ y }}\n'''"


@pytest.fixture(scope="module")
def built(pristine, tmp_path_factory):
    """Build an article for each of the above; return a function that gives an article's page in one language."""
    project = pristine.copy(tmp_path_factory.mktemp("shown") / "project")
    snippets = {name: snippet for name, (snippet, _) in SHOWN.items()}
    for name, body in LONG.items():
        header = '# %% one raises="ValueError"' if body.startswith("raise") else "# %% one"
        snippets[name] = f"{header}\n{body}\n"
    snippets["code"] = f"# %% one\n{CODE}\n"
    for number, snippet in enumerate(snippets.values()):
        project.article(f"area/trial{number}", snippet)
    assert project.build() == (0, "")
    return lambda name, language: project.html(f"{language}/area/trial{list(snippets).index(name)}")


def outputs(html) -> list[str]:
    return [block.text_content() for block in html.xpath("//*[contains(@class, 'output')]")]


@pytest.mark.parametrize("name", SHOWN)
def test_page_shows_the_output(built, name):
    assert outputs(built(name, "en")) == SHOWN[name][1]
    assert outputs(built(name, "zh")) == SHOWN[name][1]


def test_code_is_shown_as_it_is(built):
    (block,) = built("code", "en").xpath("//code")
    assert block.text_content() == f"{CODE}\n"


@pytest.mark.parametrize("name", [name for name in LONG if "million" in name])
def test_a_million_lines_are_cut_with_a_note(built, name):
    (block,) = outputs(built(name, "en"))
    assert block.startswith("0\n1\n2\n")
    kept, _, note = block.rstrip("\n").rpartition("\n")
    assert len(kept) < 20_000
    missing = int(note.removeprefix("… and ").removesuffix(" more lines"))
    assert 1_000_000 - missing == len(kept.splitlines())


@pytest.mark.parametrize("name", [name for name in LONG if "million" not in name])
def test_a_long_line_is_cut_with_a_note(built, name):
    (block,) = outputs(built(name, "en"))
    kept, _, note = block.rstrip("\n").rpartition("\n")
    assert 1_000 < len(kept) < 20_000
    missing = int(note.removeprefix("… and ").removesuffix(" more characters"))
    assert len(kept) + missing - 10**6 in (0, 2, len("ValueError: "))  # the latter with its quotes, or its name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x" * 8_000 + "\n\n", "x" * 8_000 + "\n\n"),
        ("x" * 8_001, "x" * 8_000 + "\n… and 1 more character\n"),
        ("x" * 9_000 + "\ny", "x" * 8_000 + "\n… and 1002 more characters\n"),
        ("title\n" + "x" * 9_000 + "\n", "title\n… and 1 more line\n"),
        ("a\nb\n" + "x" * 8_000 + "\ny\nz\n", "a\nb\n… and 3 more lines\n"),
        ("\n" + "x" * 8_000, "\n" + "x" * 7_999 + "\n… and 1 more character\n"),
    ],
    ids=["short", "a character", "line after a long one", "a line", "lines", "empty line first"],
)
def test_note_says_how_much_is_left_out(project, text, shown):
    ran(project, f"# %% one\nprint({text!r}, end='')\n")
    assert project.printed("area/trial", "one") == shown


# What a cell does, with which the run fails, and the line and the cause in the message.
REFUSED = {
    "half of a surrogate pair": (r"print('a\ud800b')", 2, r"shows the character '\ud800'"),
    "half of a pair in a printed list": (r"print(*['a', '\udfff'])", 2, r"shows the character '\udfff'"),
    "a progress bar": ("import sys\n\nprint('1%\\r2%', file=sys.stderr)", 2, r"shows the character '\r'"),
    "colours of a terminal": (r"print('\x1b[31mred\x1b[0m')", 2, r"shows the character '\x1b'"),
    "a null character": (r"print('\0')", 2, r"shows the character '\x00'"),
    "a mark of Markdown's own": (r"print('\2wzxhzdk:0\3')", 2, r"shows the character '\x02'"),
    "a value with a control character": (
        "class A:\n    def __repr__(self):\n        return '\\b'\n\n\nA()",
        2,
        r"shows the character '\x08'",
    ),
    "Markdown": ("from IPython.display import Markdown\n\nMarkdown('# hi')", 2, "Markdown object>"),
    "displayed Markdown": (
        "from IPython.display import Markdown, display\n\ndisplay(1)\ndisplay(Markdown('# hi'))",
        5,
        "Markdown object>",
    ),
    "displayed HTML": ("from IPython import display\n\ndisplay.display('a', display.HTML('<b>'))", 4, "HTML object>"),
    "TeX": ("from IPython.display import Latex, Math\n\nLatex('$x$')", 2, "Latex object>"),
    "a picture": ("from PIL import Image\n\nImage.new('L', (2, 2))", 2, "<PIL.Image.Image image mode=L"),
    "a figure without pyplot": ("from matplotlib.figure import Figure\n\nFigure()", 2, "<Figure size"),
    "a displayed figure": (
        "import matplotlib.pyplot as plt\nfrom IPython.display import display\n\ndisplay(plt.figure())",
        5,
        "<Figure size",
    ),
    "an address": ("object()", 2, "<object at 0x"),
    "a step of a gradient": ("import torch\n\ntorch.ones(1, requires_grad=True).sum().grad_fn", 2, "<SumBackward0 "),
    "a later import from the future": (
        "x = 1\n\n# %% two\nfrom __future__ import annotations",
        5,
        "from __future__ imports must occur at the beginning of the file",
    ),
    "a wait outside functions": ("import asyncio\n\nawait asyncio.sleep(0)", 4, "'await' outside function"),
    "a return outside functions": ("return", 2, "'return' outside function"),
    "a global declaration after the assignment": ("x = 1\n\n# %% two\nglobal x", 5, "assigned to before global"),
    "a statement over two cells": ("for x in 1, 2:\n# %% two\n    print(x)", 2, "expected an indented block"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_page_or_program_can_contain_is_an_error(project, case):
    body, line, cause = REFUSED[case]
    project.write(TRIAL, f"# %% one\n{body}\n")
    code, messages = project.run(TRIAL)
    assert code == 1
    assert messages.startswith(f"{TRIAL}:{line}, cell {'two' if '%% two' in body and line == 5 else 'one'}: ")
    assert cause in messages
    assert "Traceback" not in messages


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("SyntaxError", "1 +"),
        ("SyntaxError", "x = ("),
        ("IndentationError", "if 1:\n2"),
        ("TabError", "if 1:\n\t2\n        3"),
    ],
)
def test_cell_that_is_to_be_no_python_is_an_error(project, name, body):
    project.write(TRIAL, f'# %% one raises="{name}"\n{body}\n\n# %% two\n1\n')
    code, messages = project.run(TRIAL)
    assert code == 1
    assert messages.startswith(f"{TRIAL}:")
    assert ", cell one: " in messages
    assert f"{name}: " in messages
    assert 'as text: exec("1 +")' in messages


def test_message_with_a_character_that_no_page_can_contain_is_an_error(project):
    project.write(TRIAL, '# %% one raises="ValueError"\nraise ValueError("\\ud800")\n')
    assert project.run(TRIAL)[1].startswith(rf"{TRIAL}:2, cell one: shows the character '\ud800'")


def test_text_with_a_character_that_no_page_can_contain_is_not_a_value(project):
    assert values(
        ran(
            project,
            r"""# %% one
half, bell, fine = "\ud800", "\a", "知"
""",
        )
    ) == {"fine": "知"}


def test_printed_text_in_a_box_is_shown_as_it_is(project):
    page = '# Trial { #trial }\n\n!!! note\n\n    ```python\n    --8<-- "area/trial.py:one"\n    ```\n\nEnd.\n'
    project.article("area/trial", "# %% one\nif True:\n    print('a\\n\\n    b```')\n", page)
    assert project.build() == (0, "")
    (box,) = project.html("en/area/trial").find_class("admonition")
    code, output = (block.text_content() for block in box.xpath(".//code"))
    assert code == "if True:\n    print('a\\n\\n    b```')\n"
    assert output == "a\n\n    b```\n"


MESSY = """\
# %% messy
import os
import random
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import things

os.environ["MESSY"] = "yes"
os.mkdir("folder")
os.chdir("folder")
random.seed(7)
np.random.seed(7)
torch.manual_seed(7)
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)
plt.rcParams["lines.linewidth"] = 9
plt.plot([1, 2])
warnings.simplefilter("ignore")
sys.path.insert(0, "/nowhere")
sys.argv = ["messy"]
things.messy = True
messy = True
"""

CLEAN = """\
# %% clean
import os
import random
import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch

import things

print(os.environ.get("MESSY"), os.listdir("."), torch.get_default_dtype(), torch.is_grad_enabled())
print(plt.rcParams["lines.linewidth"], plt.get_fignums())
print("/nowhere" in sys.path, "messy" in sys.argv, hasattr(things, "messy"), "messy" in globals())
with warnings.catch_warnings(record=True) as caught:
    warnings.warn("seen")
print(len(caught))
seeds = [torch.initial_seed() == 7, random.Random(7).random() == random.random()]
seeds.append(np.random.RandomState(7).rand() == np.random.rand())
print(seeds)
"""


def test_snippets_do_not_affect_each_other(project):
    project.write("snippets/area/messy.py", MESSY)
    project.write("snippets/area/clean.py", CLEAN)
    assert project.run("snippets/area/messy.py") == (0, "")
    assert project.run("snippets/area/clean.py") == (0, "")
    lines = project.printed("area/clean", "clean").splitlines()
    assert lines == [
        "None [] torch.float32 True",
        "1.8 []",
        "False False False False",
        "1",
        "[False, False, False]",
    ]


def test_warning_filters_of_one_cell_do_not_affect_the_next(project):
    ignore = "import warnings\n\nwarnings.simplefilter('ignore')\nwarnings.warn('unheard')"
    project.article("area/trial", f"# %% one\n{ignore}\n\n# %% two\nwarnings.warn('heard')\n")
    assert "cell two: warns UserWarning: heard" in project.build()[1]


def test_files_are_written_to_a_temporary_folder_that_is_removed(project):
    before = {path for path in project.root.rglob("*") if ".cache" not in path.parts}
    snippet = """\
# %% writes
import os
import subprocess
import sys
from pathlib import Path

Path("out.txt").write_text("x")
os.makedirs("deep/er")
os.chmod("deep", 0o500)
print(os.listdir("deep"))
here = os.getcwd()
"""
    notebook = ran(project, snippet)
    after = {path for path in project.root.rglob("*") if ".cache" not in path.parts}
    assert after - before == {project.root / TRIAL}
    assert project.printed("area/trial", "writes") == "['er']\n"
    assert not os.path.exists(values(notebook)["here"])


def test_temporary_folder_is_empty_at_the_start(project):
    ran(project, "# %% lists\nimport os\n\nprint(os.listdir('.'))\n")
    assert project.printed("area/trial", "lists") == "[]\n"


def test_file_variable_is_the_path_of_the_snippet(project):
    notebook = ran(project, "# %% one\nfile, name = __file__, __name__\n")
    assert values(notebook)["file"] == str(project.root / TRIAL)
    assert values(notebook)["name"] == "__main__"


def test_source_of_a_function_in_a_cell_can_be_read(project):
    ran(
        project,
        "# %% one\n1\n\n# %% two\nimport inspect\n\n\ndef f():\n    return 1\n\n\nprint(inspect.getsource(f))\n",
    )
    assert project.printed("area/trial", "two") == "def f():\n    return 1\n\n"


def test_comment_that_looks_like_a_magic_stays_a_comment(project):
    ran(project, "# %% one\n# %timeit and !ls are for notebooks\n# !pip install torch\nprint('a')  # %time\n")
    assert project.printed("area/trial", "one") == "a\n"


def test_values_are_the_finite_numbers_and_short_texts_at_the_end(project):
    snippet = """\
# %% one
import numpy as np
import torch

whole, real, true, text = 3, 0.1, True, "small"
scalar, half, size, empty = torch.tensor(2.5), np.float16(0.5), np.int64(7), ""
whole = 4
_private, infinite, nan, missing, long = 1, float("inf"), torch.tensor(float("nan")), None, "x" * 1000
vector, number, function = torch.ones(3), 1 + 2j, len
"""
    assert values(ran(project, snippet)) == {
        "whole": 4,
        "real": 0.1,
        "true": True,
        "text": "small",
        "scalar": 2.5,
        "half": 0.5,
        "size": 7,
        "empty": "",
    }


@pytest.mark.parametrize(
    "body",
    [
        "import torch\n\nodd = torch.tensor(1.0, device='meta')",
        "from unittest.mock import MagicMock\n\nodd = MagicMock(ndim=0)",
        "class Odd:\n    def __getattr__(self, name):\n        raise RuntimeError(name)\n\n\nodd = Odd()",
    ],
    ids=["meta tensor", "mock", "object whose attributes raise"],
)
def test_variable_that_cannot_be_read_is_not_a_value(project, body):
    assert "odd" not in values(ran(project, f"# %% one\n{body}\n"))


def test_runs_are_deterministic(project):
    set_by_the_builder = '[os.environ[name] for name in ("OMP_NUM_THREADS", "TRITON_INTERPRET")]'
    show = f'import os; print(hash("x"), {{"a", "b", "c", "d", "e", "f"}}, {set_by_the_builder})'
    fixed = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"}
    printed = subprocess.run([sys.executable, "-c", show], env=fixed, capture_output=True, text=True).stdout
    ran(project, f"# %% one\n{show}\n\n# %% two\nimport torch\n\nprint(torch.get_num_threads())\n")
    assert project.printed("area/trial", "one") == printed
    assert project.printed("area/trial", "two") == "1\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_snippet_can_start_processes_as_a_script_does(project, method):
    snippet = f"""\
# %% one
import multiprocessing
import os

from things.power import square


def own(x):
    return -x


if __name__ == "__main__":
    context = multiprocessing.get_context("{method}")
    with context.Pool(2) as pool:
        print(pool.map(square, [1, 2, 3]), pool.map(own, [1, 2, 3]))
        pool.close()
        pool.join()
    print(context.Process(target=os.getpid).exitcode)
"""
    ran(project, snippet)
    assert project.printed("area/trial", "one") == "[1, 4, 9] [-1, -2, -3]\nNone\n"


def test_garbage_is_collected(project):
    assert values(ran(project, "# %% one\nimport gc\n\nenabled = gc.isenabled()\n"))["enabled"] is True


def test_snippet_cannot_wait_for_input(project):
    notebook = ran(project, '# %% one raises="EOFError"\nimport sys\n\nprint(repr(sys.stdin.read()))\ninput()\n')
    assert [output["output_type"] for output in notebook["cells"][0]["outputs"]] == ["stream", "error"]


def test_killed_watcher_is_an_error(project):
    snippet = """\
# %% wrong
import os
import time

os.kill(os.getppid(), 9)
time.sleep(1)
"""
    project.write(TRIAL, snippet)
    code, messages = project.run(TRIAL)
    assert code == 1
    assert messages == f"{TRIAL}:2, cell wrong: the process that watches the run ended unexpectedly\n"


def test_runs_leave_no_process_and_no_folder(project, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    project.write(TRIAL, "# %% one\n1\n")
    project.run(TRIAL)  # starts the fork server, if this is the first test to run
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    for body in ("x = 1", "1 / 0", "import os\n\nos._exit(3)", "import os\n\nos.kill(os.getpid(), 11)"):
        project.write(TRIAL, f"# %% one\n{body}\n")
        project.run(TRIAL)
    after = {process.pid for process in psutil.Process().children(recursive=True)}
    assert after - before == set()
    assert not list(Path(tmp_path / "scratch").iterdir())


def test_only_chosen_snippets_run(project):
    for name in ("one", "two", "deep/three"):
        project.write(f"snippets/other/{name}.py", "# %% one\n1\n")
    project.run("snippets/other/one.py")
    assert project.ran == {"other/one.py"}
    project.run("snippets/other")
    assert project.ran == {"other/two.py", "other/deep/three.py"}
    project.run()
    assert project.ran == set()


def test_logging_set_up_in_one_cell_is_shown_in_the_next(project):
    ran(project, "# %% one\nimport logging\n\nlogging.basicConfig()\n\n# %% two\nlogging.warning('hot')\n")
    assert project.printed("area/trial", "two") == "WARNING:root:hot\n"


def test_value_without_a_repr_is_an_error(project):
    project.write(TRIAL, "# %% one\nclass Mute:\n    def __repr__(self):\n        return 1 / 0\n\n\nMute()\n")
    code, messages = project.run(TRIAL)
    assert code == 1
    assert f"{TRIAL}:4, cell one: ZeroDivisionError" in messages


def test_workers_of_a_data_loader_need_no_main_guard(project):
    notebook = ran(
        project,
        "# %% one\nimport torch\nfrom torch.utils.data import DataLoader, Dataset\n\n\n"
        "class Squares(Dataset):\n    def __len__(self):\n        return 6\n\n"
        "    def __getitem__(self, n):\n        return torch.tensor(n * n)\n\n\n"
        "total = sum(batch.sum().item() for batch in DataLoader(Squares(), batch_size=2, num_workers=2))\n",
    )
    assert values(notebook)["total"] == 55


@pytest.mark.parametrize(
    ("body", "call", "line"),
    [
        ("def f(x):\n    return 1 / x\n", "f(0)", 2),
        ("import torch\n\n\ndef f():\n    torch.ones(2) @ torch.ones(3)\n", "f()", 5),
        ("\n\nx = = 1\n", "", 3),
    ],
    ids=["in a function", "in a library that it calls", "of syntax"],
)
def test_error_in_an_imported_module_names_its_place(project, body, call, line):
    project.write("src/things/wrong.py", body)
    project.write(TRIAL, f"# %% one\nimport things.wrong\n\nthings.wrong.{call or 'x'}\n")
    code, messages = project.run(TRIAL)
    assert code == 1
    assert messages.startswith(f"{TRIAL}:{4 if call else 2}, cell one: ")
    assert f"(src/things/wrong.py:{line})" in messages
