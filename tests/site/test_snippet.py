"""Parsing of snippets."""

import pytest

from zhixing_site.errors import BuildError
from zhixing_site.execution.snippet import read_snippet, snippet_paths


@pytest.fixture
def read(tmp_path):
    def read(text: str):
        path = tmp_path / "snippets/area/trial.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return read_snippet(path, tmp_path)

    return read


def test_cells_with_their_lines(read):
    snippet = read("# %% one\nx = 1\n\n\ny = 2\n\n# %% two\n\n\nprint(x)\n\n\n")
    assert snippet.name == "area/trial.py"
    assert [(cell.name, cell.source, cell.line) for cell in snippet.cells] == [
        ("one", "x = 1\n\n\ny = 2", 2),
        ("two", "print(x)", 10),
    ]


@pytest.mark.parametrize(
    ("header", "hidden", "raises", "warns"),
    [
        ("", False, "", ""),
        (' tags=["hidden"]', True, "", ""),
        (' raises="KeyError"', False, "KeyError", ""),
        (' warns="UserWarning"', False, "", "UserWarning"),
        (' tags=["hidden"] raises="KeyError" warns="UserWarning"', True, "KeyError", "UserWarning"),
        (' warns="UserWarning" raises="KeyError"', False, "KeyError", "UserWarning"),
    ],
    ids=["none", "hidden", "raises", "warns", "all", "another order"],
)
def test_header(read, header, hidden, raises, warns):
    (cell,) = read(f"# %% one{header}\nx = 1\n").cells
    assert (cell.hidden, cell.raises, cell.warns) == (hidden, raises, warns)


@pytest.mark.parametrize("name", ["x", "_x", "tanh_gap", "x2", "A", "class"])
def test_valid_name(read, name):
    assert [cell.name for cell in read(f"# %% {name}\n1\n").cells] == [name]


SOURCES = {
    "comment": "# comment\nx = 1",
    "comment like a magic": "# %timeit x\n# !ls",
    "comment like Markdown": "# # Title\n# text",
    "comment with a plus": "# +\nx = 1\n# -",
    "magic": "%timeit x",
    "nothing": "",
    "string over several lines": 'x = """\n\n  one\n\n"""',
    "decorator": "@f\ndef g():\n    pass",
    "white space at the ends of lines": "x = 1  \n\ny = 2",
    "Chinese": "x = '知行'",
    "tab": "if x:\n\ty = 1",
    "continued line": "x = 1 + \\\n    2",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_source_is_unchanged(read, source):
    (cell, _) = read(f"# %% one\n{source}\n\n# %% two\n1\n").cells
    assert cell.source == source


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_source_of_the_last_cell_is_unchanged(read, source):
    assert read(f"# %% one\n{source}\n").cells[0].source == source


STRINGS = {
    "string": 'x = """\n# %% two\n"""',
    "string in single quotes": "x = '''\n# %% two\n'''",
    "end of a string": 'x = """\n# %% two"""\ny = 1',
    "string with values": 'x = f"""{1}\n# %% two\n{2}\n# %% three\n"""',
    "bytes": 'x = rb"""\n#%% two\n"""',
    "docstring": 'def f():\n    """One.\n\n# %% two\n    """',
    "continued string": 'x = "\\\n# %% two\\\n"',
    "string below one that does not end": 'x = "\ny = """\n# %% two\n"""',
}


@pytest.mark.parametrize("source", STRINGS.values(), ids=STRINGS)
def test_header_inside_a_string_is_text(read, source):
    cells = read(f"# %% one\n{source}\n\n# %% last\n1\n").cells
    assert [(cell.name, cell.source) for cell in cells] == [("one", source), ("last", "1")]
    assert cells[1].line == source.count("\n") + 5


@pytest.mark.parametrize("source", ["x = (\n", 'x = """', "y = '", "if x:\n    y\n  z", "$"])
def test_header_after_an_error_of_syntax_starts_a_cell(read, source):
    """The error is found when the first cell runs."""
    assert [cell.name for cell in read(f"# %% one\n{source}\n\n# %% two\n1\n").cells] == ["one", "two"]


@pytest.mark.parametrize("character", ["\0", "\x02", "\x0c", "\x1b", "\x7f", "\x85", "\ufffe"])
def test_character_that_html_cannot_contain_is_an_error(read, character):
    with pytest.raises(BuildError, match=r"^snippets/area/trial\.py:3: contains U\+\w{4}, which no editor shows"):
        read(f"# %% one\n1\nx = '{character}'\n")


@pytest.mark.parametrize("end", ["\r\n", "\r"], ids=["Windows", "old Mac"])
def test_other_line_endings(read, end):
    one, two = read("# %% one\n\nx = 1\ny = 2\n# %% two\nz\n".replace("\n", end)).cells
    assert (one.source, one.line, two.line) == ("x = 1\ny = 2", 3, 6)


def test_file_that_is_not_utf8_is_an_error(read, tmp_path):
    read("# %% one\n")
    (tmp_path / "snippets/area/trial.py").write_bytes(b"# %% one\n\xff")
    with pytest.raises(BuildError, match=r"^snippets/area/trial\.py:2: the file is not UTF-8"):
        read_snippet(tmp_path / "snippets/area/trial.py", tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "# %% one two",
        "# %%one",
        "#%% one",
        "# %%% one",
        "# %% one # why",
        "# %% one raises=''",
        f"# %% {'x' * 65}",
    ],
)
def test_malformed_header_is_an_error(read, line):
    with pytest.raises(BuildError, match=r"^snippets/area/trial\.py:4: a cell starts with") as caught:
        read(f"# %% first\n1\n\n{line}\n2\n")
    assert f"`{line}`" in str(caught.value)


def test_snippets_are_all_python_files_below_the_folder(tmp_path):
    for path in ("b.py", "a/c.py", "a/data.txt", "a/b/d.py"):
        (tmp_path / "snippets" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "snippets" / path).write_text("")
    names = [path.relative_to(tmp_path).as_posix() for path in snippet_paths(tmp_path)]
    assert sorted(names) == ["snippets/a/b/d.py", "snippets/a/c.py", "snippets/b.py"]
