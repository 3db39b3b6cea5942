"""Test the command `zhixing`: copying, checking and merging files, and its errors."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zhixing_copy
from zhixing_copy import cli
from zhixing_copy.catalogue import addresses, entries, find, read_modules, shortest
from zhixing_copy.project import File


@pytest.fixture
def zhixing(package, project, capsys):
    """Return a function that runs the command and returns its exit code, standard output and standard error."""

    def zhixing(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(list(arguments))
        return code, *capsys.readouterr()

    return zhixing


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def truncate(path: Path) -> None:
    path.write_text(path.read_text()[:-40])


def append_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\xff")


def remove_header(path: Path) -> None:
    path.write_text(path.read_text().partition("\n\n")[2])


def edit_original(path: Path) -> None:
    edit(path, "PI * r**2", "PI * r**3")


def test_copy_writes_a_file_and_prints_its_source(zhixing, project):
    code, output, error = zhixing("copy", "circle")
    assert (code, error) == (0, "")
    assert "plane/shapes.circle" in output
    assert "needs torch" in output
    text = (project / "circle.py").read_text()
    assert text.startswith("# plane/shapes.circle, from 知行 Zhixing ")
    assert f"\n# Source: {addresses()['Source']}blob/main/src/zhixing/plane/shapes.py\n" in text
    assert (project / ".zhixing/circle.py").read_text() == text


@pytest.mark.parametrize(
    ("to", "path"),
    [
        (".", "circle.py"),
        ("./", "circle.py"),
        ("lib", "lib/circle.py"),
        ("lib/.", "lib/circle.py"),
        ("lib/new/..", "lib/circle.py"),
        ("lib/deep", "lib/deep/circle.py"),
        ("lib/deep//", "lib/deep/circle.py"),
        ("lib/ring.py", "lib/ring.py"),
        ("my.pkg", "my.pkg/circle.py"),
        ("my.pkg/", "my.pkg/circle.py"),
        ("lib/v1.2", "lib/v1.2/circle.py"),
        (".hidden/", ".hidden/circle.py"),
        ("new.py/", "new.py/circle.py"),
        ("package.py", "package.py/circle.py"),
        ("a b/圆 ring's.py", "a b/圆 ring's.py"),
    ],
)
def test_copy_writes_to_the_given_path(zhixing, project, to, path):
    (project / "lib").mkdir()
    (project / "package.py").mkdir()
    assert zhixing("copy", "circle", "--to", to)[0] == 0
    assert (project / path).is_file()
    assert (project / ".zhixing" / path).is_file()
    assert zhixing("check", path) == (0, f"{path}: unchanged\n", "")


@pytest.mark.parametrize("to", ["README", "README/", "script.py/", "README/deep", "script.py/ring.py"])
def test_file_in_the_place_of_a_folder_is_an_error(zhixing, project, to):
    for name in "README", "script.py":
        (project / name).write_text("mine\n")
    for force in [], ["--force"]:
        code, output, error = zhixing("copy", "circle", "--to", to, *force)
        assert (code, output, error.count("\n")) == (2, "", 1)
    assert {path.name: path.read_text() for path in project.iterdir() if path.is_file()} == {
        "README": "mine\n",
        "script.py": "mine\n",
    }


def test_copy_to_a_place_outside_the_project(zhixing, project, package):
    zhixing("copy", "half")
    for to in "../other/", str(project.parent / "third"):
        assert zhixing("copy", "circle", "--to", to)[0] == 0
        path = Path(to, "circle.py")
        assert Path(to, ".zhixing/circle.py").is_file()
        edit(path, "# As", "# as")
        edit(package / "plane/shapes.py", "r**2", "r**2.0" if to.startswith(".") else "r**4 / r**2")
        assert zhixing("update", str(path))[1] == f"{path}: updated, with your changes\n"


@pytest.mark.parametrize(
    ("to", "note"),
    [
        ("class.py", "class is not a name in Python"),
        ("my-circle.py", "my-circle is not a name in Python"),
        ("2d.py", "2d is not a name in Python"),
        ("random.py", "hides the module random"),
        ("lib/torch.py", "hides the module torch"),
        ("圆.py", ""),
        ("match.py", ""),
    ],
)
def test_name_under_which_a_file_cannot_be_imported_is_noted(zhixing, to, note):
    code, output, error = zhixing("copy", "circle", "--to", to)
    assert (code, error.count("\n")) == (0, bool(note))
    assert note in error
    assert output.startswith(f"{to}: ")


def test_project_is_the_nearest_folder_with_originals(zhixing, project, monkeypatch):
    (project / "inner").mkdir()
    zhixing("copy", "circle")
    monkeypatch.chdir(project / "inner")
    zhixing("copy", "half")
    assert (project / ".zhixing/inner/half.py").is_file()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("circle", "plane/shapes.circle"),
        ("shapes", "plane/shapes"),
        ("plane/shapes", "plane/shapes"),
        ("plane/shapes.py", "plane/shapes"),
        ("plane/shapes.both", "plane/shapes.both"),
        ("Layer", "plane/tools.Layer"),
    ],
)
def test_names(package, name, found):
    assert find(name, read_modules(package)).name == found


def test_shortest_name_finds_its_entry(package):
    (package / "plane/more.py").write_text("def circle():\n    pass\n\n\ndef tools():\n    pass\n")
    modules = read_modules(package)
    names = {entry.name: shortest(entry, modules) for entry in entries(modules)}
    assert {name: find(short, modules).name for name, short in names.items()} == {name: name for name in names}
    assert names["plane/shapes.circle"] == "plane/shapes.circle"
    assert names["plane/shapes.triangle"] == "triangle"
    assert names["plane/tools"] == "plane/tools"
    assert names["plane/more.tools"] == "tools"
    assert names["plane/late"] == "late"


def test_unknown_name_suggests_similar_names(zhixing):
    code, output, error = zhixing("copy", "circl")
    assert (code, output) == (2, "")
    assert error == "zhixing: there is no circl; did you mean plane/shapes.circle?\n"
    assert "see `zhixing list`" in zhixing("copy", "xyzzy")[2]


def test_ambiguous_name_is_an_error_that_lists_all_matches(zhixing, package):
    (package / "plane/more.py").write_text("def circle():\n    pass\n")
    code, _, error = zhixing("copy", "circle")
    assert code == 2
    assert "plane/more.circle, plane/shapes.circle" in error
    assert zhixing("copy", "plane/more.circle")[0] == 0


def test_definition_precedes_the_module_with_its_name(zhixing, package):
    (package / "plane/disc.py").write_text("def disc():\n    pass\n\n\ndef other():\n    pass\n")
    assert find("disc", read_modules(package)).name == "plane/disc.disc"


def test_copy_overwrites_an_unchanged_copy_and_nothing_else(zhixing, project, package):
    path = project / "circle.py"
    zhixing("copy", "circle")
    assert zhixing("copy", "circle")[0] == 0
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    assert zhixing("copy", "circle")[0] == 0
    assert "PI * r * r" in path.read_text()
    path.write_text("mine\n")
    code, _, error = zhixing("copy", "circle")
    assert (code, path.read_text()) == (2, "mine\n")
    assert error.count("\n") == 1
    assert "--force" in error
    assert zhixing("copy", "circle", "--force")[0] == 0
    assert "PI * r * r" in path.read_text()


def test_check_shows_where_a_file_was_changed(zhixing, project):
    zhixing("copy", "circle")
    path = project / "circle.py"
    line = path.read_text().splitlines().index("    check(r)") + 1
    edit(path, "    check(r)\n    return", "    check(2 * r)\n    r = r + 1\n    return")
    code, output, _ = zhixing("check", "circle.py")
    assert (code, output) == (1, f"circle.py: changed by hand: lines {line} to {line + 1}\n")
    edit(path, "    check(2 * r)\n    r = r + 1\n", "")
    assert zhixing("check", ".")[1] == f"circle.py: changed by hand: lines removed before line {line}\n"
    edit(path, "# Page", "# page")
    assert zhixing("check", "circle.py")[1] == f"circle.py: changed by hand: line 3, lines removed before line {line}\n"


@pytest.mark.parametrize("damage", [Path.unlink, truncate, append_byte, remove_header, edit_original])
def test_original_that_is_missing_or_damaged(zhixing, project, package, damage):
    """It is known from the file if that is unchanged, and from the package if that is of the same version."""
    zhixing("copy", "circle")
    path, line = project / "circle.py", 25
    damage(project / ".zhixing/circle.py")
    assert zhixing("check", "circle.py") == (0, "circle.py: unchanged\n", "")
    edit(path, "check(r)", "check(-r)")
    assert zhixing("check", "circle.py") == (1, f"circle.py: changed by hand: line {line}\n", "")
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    assert "its original is not in .zhixing/ or damaged" in zhixing("check", "circle.py")[1]
    before = path.read_text()
    code, output, error = zhixing("update", "circle.py")
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert "`zhixing copy plane/shapes.circle --to circle.py --force` overwrites your changes" in error
    assert path.read_text() == before
    assert zhixing("copy", "plane/shapes.circle", "--to", "circle.py", "--force")[0] == 0
    assert zhixing("check", ".") == (0, "circle.py: unchanged\n", "")


def test_unchanged_file_is_updated_without_its_original(zhixing, project, package):
    zhixing("copy", "circle")
    (project / ".zhixing/circle.py").unlink()
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    assert zhixing("update", "circle.py") == (0, "circle.py: updated\n", "")
    assert (project / ".zhixing/circle.py").read_text() == (project / "circle.py").read_text()


def test_moved_file_is_merged_with_the_original_of_its_old_place(zhixing, project, package):
    zhixing("copy", "circle")
    (project / "deep/in").mkdir(parents=True)
    edit(project / "circle.py", "# As", "# as")
    (project / "circle.py").rename(project / "deep/in/ring.py")
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    assert zhixing("update", "deep/in/ring.py") == (0, "deep/in/ring.py: updated, with your changes\n", "")
    assert (project / ".zhixing/deep/in/ring.py").is_file()


def test_check_reports_other_installed_code(zhixing, project, package):
    zhixing("copy", "circle"), zhixing("copy", "half")
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    code, output, _ = zhixing("check", ".")
    assert code == 1
    assert output.splitlines()[0].startswith("circle.py: differs from the installed code: ")
    assert output.splitlines()[1] == "half.py: unchanged"
    edit(package / "plane/shapes.py", "def circle", "def disc")
    assert "circle.py: plane/shapes.circle no longer exists" in zhixing("check", "circle.py")[1]


def test_update_merges_both_sides(zhixing, project, package):
    zhixing("copy", "circle")
    path = project / "circle.py"
    edit(path, "# As good as it gets.", "# Good enough.")
    assert zhixing("update", "circle.py")[1] == "circle.py: is the newest version, changed by hand\n"
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    assert zhixing("update", "circle.py") == (0, "circle.py: updated, with your changes\n", "")
    text = path.read_text()
    assert "# Good enough." in text
    assert "PI * r * r" in text
    assert zhixing("check", "circle.py")[1].startswith("circle.py: changed by hand: line ")
    assert zhixing("update", "circle.py")[1] == "circle.py: is the newest version, changed by hand\n"


def test_update_marks_a_conflict(zhixing, project, package):
    zhixing("copy", "circle")
    path = project / "circle.py"
    edit(path, "PI * r**2", "3 * r**2")
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    code, _, error = zhixing("update", "circle.py")
    assert (code, error) == (1, "circle.py has 1 conflict, between <<<<<<< and >>>>>>>\n")
    text = path.read_text()
    assert "<<<<<<< yours\n    return 3 * r**2\n=======\n    return PI * r * r\n>>>>>>> newest\n" in text


def test_update_of_an_unchanged_file(zhixing, project, package):
    zhixing("copy", "circle")
    assert zhixing("update", "circle.py")[1] == "circle.py: is the newest version\n"
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    assert zhixing("update", "circle.py")[1] == "circle.py: updated\n"
    assert zhixing("check", "circle.py")[0] == 0


def test_update_without_git(zhixing, project, package, monkeypatch):
    zhixing("copy", "circle")
    edit(project / "circle.py", "# As", "# as")
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    monkeypatch.setenv("PATH", str(project))
    before = (project / "circle.py").read_text()
    code, _, error = zhixing("update", "circle.py")
    assert (code, error) == (2, "zhixing: update needs git, which is not installed\n")
    assert (project / "circle.py").read_text() == before


@pytest.mark.parametrize("command", ["check", "update"])
@pytest.mark.parametrize("content", [None, b"", b"x = 1\n", b"\xff\xfe", b"# plane/shapes.circle, from nowhere\n"])
def test_file_that_was_not_copied_is_an_error_of_one_line(zhixing, project, command, content):
    if content is not None:
        (project / "file.py").write_bytes(content)
    code, output, error = zhixing(command, "file.py")
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert error.startswith("zhixing: ")
    assert "file.py" in error


def test_folder_without_copied_files_is_an_error(zhixing, project):
    (project / "file.py").write_text("x = 1\n")
    assert zhixing("check", ".")[0] == 2


def test_path_that_cannot_be_written(zhixing, project):
    (project / "file").write_text("")
    code, output, error = zhixing("copy", "circle", "--to", "file/circle.py")
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert (project / "file").read_text() == ""


def test_list_has_a_line_for_each_entry_by_area(zhixing):
    code, output, _ = zhixing("list")
    lines = output.splitlines()
    assert (code, lines[0]) == (0, "plane:")
    assert next(line for line in lines if "shapes.circle" in line).endswith("Area of a circle.")
    assert zhixing("list", "AREA", "triangle")[1].count("\n") == 2
    assert zhixing("list", "xyzzy")[0] == 2


def test_recorded_versions_are_the_installed_ones():
    """If this fails, write the installed versions into verified.json once the tests pass with them."""
    recorded = json.loads((Path(zhixing_copy.__file__).parent / "verified.json").read_text())
    installed = {"Python": ".".join(map(str, sys.version_info[:2]))}
    installed |= {name: version(name).partition("+")[0] for name in recorded if name != "Python"}
    assert recorded == installed


def test_a_new_user(tmp_path):
    """Copy into an empty folder, then use the file in a program of three lines, without the package."""
    command = [str(Path(sys.executable).parent / "zhixing"), "copy", "gelu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "needs torch" in done.stdout
    program = "import torch\nfrom gelu import gelu\nprint(gelu(torch.tensor([1.0])))\n"
    (tmp_path / "program.py").write_text(program)
    # Block the package, which is installed here next to torch.
    block = "import sys; sys.modules['zhixing'] = None; import program"
    command = [sys.executable, "-c", block]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "tensor([0.8413])\n"


FORMS = {
    "CRLF": lambda content: content.replace(b"\n", b"\r\n"),
    "CR": lambda content: content.replace(b"\n", b"\r"),
    "CRLF in the second half": lambda content: content[:700] + content[700:].replace(b"\n", b"\r\n"),
    "CRLF in the header": lambda content: content.replace(b"\n", b"\r\n", 8),
    "a byte-order mark": lambda content: b"\xef\xbb\xbf" + content,
    "a byte-order mark and CRLF": lambda content: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"),
    "no last line end": lambda content: content.removesuffix(b"\n"),
    "CRLF and no last line end": lambda content: content.removesuffix(b"\n").replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("stored", [False, True], ids=["", "original too"])
@pytest.mark.parametrize("form", FORMS)
def test_line_ends_and_byte_order_mark_are_no_change_and_remain(zhixing, project, package, form, stored):
    formed = FORMS[form]
    for to in "lib/plain.py", "lib/edited.py", "lib/other.py":
        zhixing("copy", "circle", "--to", to)
    plain, edited = project / "lib/plain.py", project / "lib/edited.py"
    for path in plain, edited, *[project / ".zhixing/lib" / each.name for each in (plain, edited) if stored]:
        path.write_bytes(formed(path.read_bytes()))
    unchanged = "".join(f"lib/{name}.py: unchanged\n" for name in ("edited", "other", "plain"))
    assert zhixing("check", "lib/") == (0, unchanged, "")
    assert zhixing("copy", "circle", "--to", "lib/plain.py")[0] == 0
    edited.write_bytes(edited.read_bytes().replace(b"# As", b"# as"))
    assert zhixing("check", "lib/edited.py")[1] == "lib/edited.py: changed by hand: line 19\n"
    assert zhixing("update", "lib/plain.py")[1] == "lib/plain.py: is the newest version\n"
    edit(package / "plane/shapes.py", "    return PI * r**2", "    return PI * r * r")
    assert zhixing("update", "lib/plain.py")[1] == "lib/plain.py: updated\n"
    assert zhixing("update", "lib/edited.py")[1] == "lib/edited.py: updated, with your changes\n"
    zhixing("update", "lib/other.py")
    newest = formed((project / "lib/other.py").read_bytes())
    assert plain.read_bytes() == newest
    assert edited.read_bytes() == newest.replace(b"# As", b"# as")


@given(st.lists(st.tuples(st.text(), st.sampled_from(["\n", "\r\n", "\r"]))), st.text(), st.booleans())
def test_each_line_keeps_its_end(lines, last, mark):
    content = ("\ufeff" * mark + "".join(map("".join, lines)) + last).encode()
    file = File(Path("x.py"), content)
    assert file.formatted(file.text) == content
    assert "\r" not in file.text
    assert file.formatted("new\n" + file.text).endswith(content.removeprefix(b"\xef\xbb\xbf"))


def test_change_in_a_line_with_odd_line_separators_is_found_where_editors_show_it(zhixing, project):
    zhixing("copy", "circle")
    path = project / "circle.py"
    edit(path, "# As", "# \f \v \x1c \x85 \u2028 As")
    edit(path, "check(r)", "check(-r)")
    assert zhixing("check", "circle.py")[1] == "circle.py: changed by hand: line 19, line 25\n"


CHANGES = {
    "a comment above": lambda content: b"# mine\n" + content,
    "a program's first line": lambda content: b"#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n\n" + content,
    "a docstring above": lambda content: b'"""Mine."""\n\n' + content,
    "an import above": lambda content: b"import os\n" + content,
    "two byte-order marks": lambda content: b"\xef\xbb\xbf\xef\xbb\xbf" + content,
    "the header removed": lambda content: content.partition(b"\n\n")[2],
    "a line of the header removed": lambda content: content.replace(b"# Copyright", b"#", 1),
    "another name in the header": lambda content: content.replace(b"authors\n", b"authors and I\n"),
    "the header indented": lambda content: content.replace(b"# ", b"#  ", 6),
    "no empty line after the header": lambda content: content.replace(b"\n\n", b"\n", 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_header_is_found_and_kept(zhixing, project, package, change):
    zhixing("copy", "circle", "--to", "lib/"), zhixing("copy", "half", "--to", "lib/")
    path = project / "lib/circle.py"
    path.write_bytes(CHANGES[change](path.read_bytes()))
    code, output, error = zhixing("check", "lib")
    assert (code, error) == (1, "")
    first, second = output.splitlines()
    assert first.startswith("lib/circle.py: changed by hand: line")
    assert second == "lib/half.py: unchanged"
    assert zhixing("copy", "circle", "--to", "lib")[0] == 2
    before = path.read_text()
    edit(package / "plane/shapes.py", "    return PI * r**2", "    return PI * r * r")
    assert zhixing("update", "lib/circle.py") == (0, "lib/circle.py: updated, with your changes\n", "")
    after, digest = before.replace("PI * r**2", "PI * r * r"), re.compile("[0-9a-f]{64}")
    assert digest.sub("", path.read_text()) == digest.sub("", after)
    assert zhixing("update", "lib/circle.py")[1] == "lib/circle.py: is the newest version, changed by hand\n"


@pytest.mark.parametrize("length", [0, 40, 300, 500])
def test_file_that_was_cut_is_not_left_out(zhixing, project, length):
    zhixing("copy", "circle"), zhixing("copy", "half")
    path = project / "circle.py"
    path.write_bytes(path.read_bytes()[:length])
    assert [line.partition(": ")[0] for line in zhixing("check", ".")[1].splitlines()] == ["circle.py", "half.py"]
    (project / ".zhixing/circle.py").write_bytes(b"\xb0\xa1 GB18030")
    code, output, error = zhixing("check", ".")
    assert (code, output) == ((2, "half.py: unchanged\n") if length < 500 else (1, output))
    assert (
        error.startswith("zhixing: circle.py has no header of a copied file") or "circle.py: changed by hand" in output
    )


BYTES = {
    "0xff at the end": (lambda content: content + b"\xff", "is not UTF-8 text: line 27"),
    "latin-1": (lambda content: content.replace(b"# As", b"# \xe4s"), "is not UTF-8 text: line 19"),
    "GBK": (lambda content: content.decode().encode("gbk"), "is not UTF-8 text: line 1"),
    "UTF-16": (lambda content: content.decode().encode("utf-16"), "is not UTF-8 text: line 1"),
    "UTF-16, CRLF": (
        lambda content: content.decode().replace("\n", "\r\n").encode("utf-16"),
        "is not UTF-8 text: line 1",
    ),
    "a NUL byte": (lambda content: content.replace(b"# As", b"# \0As"), "contains a NUL byte: line 19"),
    "a surrogate": (lambda content: content + b"# \xed\xb3\xbf\n", "is not UTF-8 text: line 27"),
}


@pytest.mark.parametrize("kind", BYTES)
def test_bytes_that_are_no_text_are_named_and_not_merged(zhixing, project, package, kind):
    change, fault = BYTES[kind]
    zhixing("copy", "circle"), zhixing("copy", "half")
    path = project / "circle.py"
    path.write_bytes(before := change(path.read_bytes()))
    code, output, error = zhixing("check", ".")
    assert (code, error) == (1, "")
    assert output.startswith(f"circle.py: {fault}; changed by hand: ")
    assert output.endswith("half.py: unchanged\n")
    edit(package / "plane/shapes.py", "    return PI * r**2", "    return PI * r * r")
    assert zhixing("update", "circle.py") == (2, "", f"zhixing: circle.py {fault}\n")
    assert zhixing("copy", "circle")[0] == 2
    assert path.read_bytes() == before
    assert zhixing("copy", "circle", "--force")[0] == 0
    assert zhixing("check", ".")[0] == 0


def test_check_reports_all_files_though_one_cannot_be_read(zhixing, project):
    zhixing("copy", "circle"), zhixing("copy", "half")
    (project / ".zhixing/circle.py").unlink()
    edit(project / "circle.py", "# Page", "# page")
    code, output, error = zhixing("check", "missing.py", ".", "half.py")
    assert (code, output) == (2, "half.py: unchanged\n" * 2)
    assert error.splitlines() == [
        "zhixing: missing.py: No such file or directory",
        "zhixing: circle.py has no header of a copied file, or a damaged one",
    ]


def test_check_ignores_what_is_no_file(zhixing, project):
    zhixing("copy", "circle")
    os.mkfifo(project / "pipe.py")
    (project / "folder.py").mkdir()
    (project / "nowhere.py").symlink_to("missing.py")
    (project / "itself.py").symlink_to("itself.py")
    assert zhixing("check", ".") == (0, "circle.py: unchanged\n", "")
    assert [zhixing("check", name)[0] for name in ("pipe.py", "nowhere.py", "itself.py")] == [2, 2, 2]
    assert zhixing("copy", "circle", "--to", "pipe.py", "--force") == (2, "", "zhixing: pipe.py is not a file\n")


@pytest.mark.parametrize("form", ["", "CRLF", "no last line end"])
def test_update_refuses_while_a_conflict_is_marked(zhixing, project, package, form):
    zhixing("copy", "circle")
    path = project / "circle.py"
    if form:
        path.write_bytes(FORMS[form](path.read_bytes()))
    path.write_bytes(path.read_bytes().replace(b"PI * r**2", b"3 * r**2").replace(b"# As", b"# as"))
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    assert zhixing("update", "circle.py")[0] == 1
    marked = path.read_bytes()
    assert (b"\r\n" in marked, b"\r\n".join(marked.split(b"\r\n")).count(b"\n")) == (
        form == "CRLF",
        marked.count(b"\r\n") if form == "CRLF" else marked.count(b"\n"),
    )
    edit(package / "plane/shapes.py", "PI * r * r", "PI * abs(r) * r")
    for unresolved in (
        marked,
        marked.replace(b">>>>>>> newest", b""),
        marked.replace(b"<<<<<<< yours", b""),
        marked.replace(b"<<<<<<< yours", b"<<<<<<<"),
        marked.replace(b"<<<<<<< yours", b"<<<<<<< HEAD"),
    ):
        path.write_bytes(unresolved)
        message = "circle.py still has 1 conflict, between <<<<<<< and >>>>>>>: edit these lines first\n"
        assert zhixing("update", "circle.py") == (1, "", message)
        assert path.read_bytes() == unresolved
        assert zhixing("check", ".")[1].startswith("circle.py: has 1 conflict, between <<<<<<< and >>>>>>>; changed by")
    resolved = re.sub("<<<<<<< .*>>>>>>> newest", "    return PI * r * r", marked.decode(), flags=re.DOTALL)
    path.write_bytes(resolved.encode())
    assert zhixing("update", "circle.py") == (0, "circle.py: updated, with your changes\n", "")


def test_file_that_is_a_link_is_written_where_it_leads(zhixing, project, package):
    (project / "shared").mkdir()
    (project / "link.py").symlink_to("shared/circle.py")
    (project / "second.py").symlink_to("link.py")
    (project / "linked").symlink_to("shared")
    assert zhixing("copy", "circle", "--to", "linked/")[0] == 0
    real = project / "shared/circle.py"
    assert real.is_file()
    assert (project / ".zhixing/shared/circle.py").is_file()
    everywhere = ["link.py", "second.py", "linked/circle.py", "shared/circle.py", str(project / "linked/circle.py")]
    edit(real, "# As", "# as")
    for number, path in enumerate(everywhere):
        assert zhixing("check", path)[1] == f"{path}: changed by hand: line 19\n"
        old, new = f"r**{number + 2}", f"r**{number + 3}"
        edit(package / "plane/shapes.py", old, new)
        assert zhixing("update", path)[1] == f"{path}: updated, with your changes\n"
        assert new in real.read_text()
    assert (project / "link.py").readlink() == Path("shared/circle.py")
    assert (project / "second.py").readlink() == Path("link.py")
    assert (project / "linked").readlink() == Path("shared")
    assert zhixing("copy", "circle", "--to", "second.py", "--force")[0] == 0
    assert (project / "second.py").is_symlink()
    assert zhixing("check", ".")[0] == 0


def test_links_to_folders_are_followed_once(zhixing, project):
    (project / "../outside").mkdir()
    zhixing("copy", "circle", "--to", "../outside/")
    (project / "link").symlink_to("../outside")
    (project / "../outside/back").symlink_to(project)
    (project / "again").symlink_to(".")
    assert zhixing("check", ".") == (0, "link/circle.py: unchanged\n", "")
    edit(project / "link/circle.py", "# As", "# as")
    assert zhixing("check", ".")[1] == "link/circle.py: changed by hand: line 19\n"


def test_working_directory_below_a_link(zhixing, project, monkeypatch):
    (project / "../link").symlink_to(project)
    monkeypatch.chdir(project / "../link")
    assert zhixing("copy", "circle", "--to", f"{project}/../link/lib/")[0] == 0
    assert (project / ".zhixing/lib/circle.py").is_file()
    edit(project / "lib/circle.py", "# As", "# as")
    assert zhixing("check", "lib")[1] == "lib/circle.py: changed by hand: line 19\n"


def test_copy_of_another_definition_is_not_overwritten(zhixing, project, package):
    (package / "plane/more.py").write_text("def circle():\n    pass\n")
    zhixing("copy", "shapes.circle")
    before = (project / "circle.py").read_text()
    code, output, error = zhixing("copy", "more.circle")
    assert (code, output) == (2, "")
    assert "circle.py is a copy of plane/shapes.circle; --to" in error
    assert (project / "circle.py").read_text() == before
    assert zhixing("copy", "more.circle", "--force")[0] == 0
    assert zhixing("check", ".") == (0, "circle.py: unchanged\n", "")


def test_read_only_file_is_not_replaced(zhixing, project, package):
    zhixing("copy", "circle")
    path = project / "circle.py"
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    before = path.read_text()
    path.chmod(0o444)
    for arguments in ["update", "circle.py"], ["copy", "circle"], ["copy", "circle", "--force"]:
        code, output, error = zhixing(*arguments)
        assert (code, output, error) == (2, "", "zhixing: circle.py cannot be written: it is read-only\n")
    assert path.read_text() == before
    assert zhixing("check", ".")[1].startswith("circle.py: differs from the installed code")
    path.chmod(0o640)
    assert zhixing("update", "circle.py")[0] == 0
    assert path.stat().st_mode & 0o777 == 0o640


def test_neither_file_nor_original_is_written_if_one_cannot_be(zhixing, project, package):
    zhixing("copy", "circle")
    edit(project / "circle.py", "# As", "# as")
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    for name in "circle.py", ".zhixing/circle.py":
        (project / name).chmod(0o444)
        before = {path: path.read_text() for path in project.rglob("*") if path.is_file()}
        assert zhixing("update", "circle.py")[0] == 2
        assert {path: path.read_text() for path in project.rglob("*") if path.is_file()} == before
        (project / name).chmod(0o644)
    assert zhixing("update", "circle.py")[1] == "circle.py: updated, with your changes\n"


@pytest.mark.parametrize("place", ["circle.py", ".zhixing/circle.py"])
def test_interrupted_update_is_finished_by_the_next(zhixing, project, package, monkeypatch, place):
    """The interrupt comes before this file is replaced."""
    zhixing("copy", "circle")
    edit(project / "circle.py", "# As", "# as")
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    replace = os.replace

    def interrupted(source, target):
        if target == str(project / place):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zhixing("update", "circle.py")
    monkeypatch.setattr(os, "replace", replace)
    assert {path.name for path in project.rglob("*")} == {"circle.py", ".zhixing"}
    assert "changed by hand: line 19" in zhixing("check", ".")[1]
    assert zhixing("update", "circle.py")[0] == 0
    edit(package / "plane/shapes.py", "PI * r * r", "PI * r**2 * 1")
    assert zhixing("update", "circle.py")[1] == "circle.py: updated, with your changes\n"
    assert zhixing("check", ".")[1] == "circle.py: changed by hand: line 19\n"


def test_disk_that_is_full(zhixing, project, package):
    zhixing("copy", "circle")
    before = (project / "circle.py").read_text()
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignore = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        code = cli.main(["update", "circle.py"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignore)
    assert code == 2
    assert (project / "circle.py").read_text() == before
    assert {path.name for path in project.rglob("*")} == {"circle.py", ".zhixing"}


def test_copies_at_once_leave_whole_files(tmp_path):
    command = str(Path(sys.executable).parent / "zhixing")
    names = ["gelu.gelu", "gelu.gelu_tanh", "activations/gelu"]
    running = [
        subprocess.Popen([command, "copy", name, "--to", to, "--force"], cwd=tmp_path, stdout=subprocess.DEVNULL)
        for name in names
        for to in ("same.py", "lib/")
    ]
    assert [process.wait(60) for process in running] == [0] * len(running)
    done = subprocess.run([command, "check", "."], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "same.py: unchanged\nlib/gelu.py: unchanged\nlib/gelu_tanh.py: unchanged\n"
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 6


def test_file_names_and_summaries_that_cannot_be_printed(tmp_path):
    script = """\
import os
from zhixing_copy import cli
name = os.fsdecode(b"\\xff\\xe7.py")
commands = ["copy", "gelu", "--to", name], ["check", name, "."], ["list"], ["copy", name]
print([cli.main(command) for command in commands])
"""
    for encoding in "ascii", "utf-8", "gbk":
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.endswith(b"[0, 0, 0, 2]\n"), done.stderr
