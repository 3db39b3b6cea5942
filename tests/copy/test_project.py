"""Test the command `zhixing`: copying, checking and merging files, and its errors."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import zhixing_copy
from zhixing_copy import cli
from zhixing_copy.catalogue import addresses, entries, find, read_modules, shortest


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


def test_check_reports_a_newer_version(zhixing, project, package):
    zhixing("copy", "circle"), zhixing("copy", "half")
    edit(package / "plane/shapes.py", "PI * r**2", "PI * r * r")
    code, output, _ = zhixing("check", ".")
    assert code == 1
    assert output.splitlines()[0].startswith("circle.py: newer version available: ")
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
