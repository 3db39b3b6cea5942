"""Files as editors and systems leave them: encodings, line ends, locks, copies, links, names."""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhixing_site.content.page import read_pages
from zhixing_site.errors import BuildError, BuildErrors
from zhixing_site.files import decode, find_files, read_text

BOM = b"\xef\xbb\xbf"
TEXT = "# 平方 { #squares }\n\n平方，squares。\n"
TRIAL = "# Trial { #trial }\n"


@given(
    text=st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn"), exclude_characters="\ufeff") | st.just("\n")),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from([b"", BOM]),
)
def test_text_is_the_same_however_an_editor_saves_it(text, end, mark):
    assert decode(mark + text.replace("\n", end).encode(), "x.md") == text


@pytest.mark.parametrize("encoding", ["gbk", "big5", "shift_jis", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_in_another_encoding_is_an_error_with_its_line(encoding):
    text = "# Squares\n\n平方\n"
    with pytest.raises(BuildError, match="UTF-8") as error:
        decode(text.encode(encoding), "docs/en/index.md")
    assert re.match(r"docs/en/index\.md:[13]: ", str(error.value))


@pytest.mark.parametrize("text", ["a\nnaïve\n", "a\n“x” – y\n", "a\n50 €\n"])
def test_western_encoding_is_an_error_with_its_line(text):
    with pytest.raises(BuildError, match=r"^x\.md:2: the file is not UTF-8") as error:
        decode(text.encode("cp1252"), "x.md")
    assert "save it in UTF-8" in str(error.value)


@pytest.mark.parametrize("character", ["\0", "\b", "\v", "\x1b", "\x7f", "\x85", "\ufeff"], ids=ascii)
def test_character_that_no_editor_shows_is_an_error_with_its_line(character):
    with pytest.raises(BuildError, match=rf"^x\.md:2: contains U\+{ord(character):04X}"):
        decode(f"a\nb{character}\n".encode(), "x.md")


LEFTOVERS = [
    "._squares.md",
    ".squares.md.swp",
    ".DS_Store",
    "squares.md~",
    "#squares.md#",
    "squares.md.bak",
    "squares.md.orig",
    "squares.md.rej",
    "Thumbs.db",
    "desktop.ini",
    ".ipynb_checkpoints/squares-checkpoint.md",
    ".idea/squares.md",
    "old.bak/squares.md",
]


def test_leftovers_of_editors_and_systems_are_no_files_of_the_project(tmp_path):
    for name in ("squares.md", "picture.png", *LEFTOVERS):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff")
    (tmp_path / ".#squares.md").symlink_to("me@host.1:1")  # a lock of Emacs
    (tmp_path / "folder.md").mkdir()
    assert [path.name for path in find_files(tmp_path, tmp_path)] == ["picture.png", "squares.md"]
    assert find_files(tmp_path / "nothing", tmp_path) == []


ODD = {
    "a link that leads nowhere": (lambda path: path.symlink_to("nowhere"), "the link to 'nowhere' cannot be read"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "cannot be read"),
    "a pipe": (os.mkfifo, "is not a file"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "is not a file"),
    "a link to a folder": (lambda path: path.symlink_to("."), "a link to a folder, which is not followed"),
}


@pytest.mark.parametrize(("make", "cause"), ODD.values(), ids=ODD)
def test_page_that_cannot_be_read_is_an_error(tmp_path, make, cause):
    (tmp_path / "docs/en/area").mkdir(parents=True)
    make(tmp_path / "docs/en/area/trial.md")
    with pytest.raises(BuildErrors) as error:
        read_pages(tmp_path, "en")
    assert re.match(rf"docs/en/area/trial\.md: .*{re.escape(cause)}", str(error.value))


def test_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    """Which otherwise would have no pages; the superuser can read all, so the system's answer is made here."""

    def scandir(path):
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BuildErrors, match=r"^docs: the folder cannot be read: Permission denied$"):
        find_files(tmp_path / "docs", tmp_path)


def test_all_pages_that_cannot_be_read_are_reported_together(tmp_path):
    (tmp_path / "docs/en").mkdir(parents=True)
    for name in ("one", "two"):
        (tmp_path / f"docs/en/{name}.md").write_bytes(TEXT.encode("gbk"))
    with pytest.raises(BuildErrors) as error:
        read_pages(tmp_path, "en")
    assert [each.path for each in error.value.errors] == ["docs/en/one.md", "docs/en/two.md"]


NAMES = [
    "线性回归.md",
    "my page.md",
    "squares copy.md",
    "squares (1).md",
    "Squares.md",
    "README.md",
    "squares.MD",
    "squares.markdown",
    "é.md",
    "50%.md",
    "a#b.md",
    "a?b.md",
    "v1.5.md",
    "-x.md",
    "ｗide.md",
]


@pytest.mark.parametrize("name", NAMES)
def test_page_name_that_is_no_plain_address_is_an_error(tmp_path, name):
    (tmp_path / "docs/en/area").mkdir(parents=True)
    (tmp_path / "docs/en/area" / name).write_text(TRIAL)
    with pytest.raises(BuildErrors, match=r"the name of a page is its address: .*area/linear_regression\.md") as error:
        read_pages(tmp_path, "en")
    assert str(error.value).startswith(f"docs/en/area/{name}: ")


@pytest.mark.parametrize("name", ["index.md", "area/index.md", "area/adam_w.md", "area/x2.md", "area/on-line.md"])
def test_plain_page_name_is_accepted(tmp_path, name):
    (tmp_path / "docs/en" / name).parent.mkdir(parents=True)
    (tmp_path / "docs/en" / name).write_text(TRIAL)
    assert list(read_pages(tmp_path, "en")) == [name.removesuffix(".md")]


def test_two_pages_with_one_address_are_an_error(tmp_path):
    (tmp_path / "docs/en/area").mkdir(parents=True)
    for name in ("area.md", "area/index.md"):
        (tmp_path / "docs/en" / name).write_text(TRIAL)
    with pytest.raises(BuildErrors, match=r"^docs/en/area\.md: has the same address as docs/en/area/index\.md$"):
        read_pages(tmp_path, "en")


# Names that differ between systems, and how a message shows the file.
STRANGE = {
    "e\u0301.png": "e\u0301.png",
    "a\nb.png": r"a\nb.png",
    "a\u200bb.png": r"a\u200bb.png",
    os.fsdecode(b"\xff.png"): r"\udcff.png",
}


@pytest.mark.parametrize(("name", "shown"), STRANGE.items(), ids=map(ascii, STRANGE))
def test_name_that_differs_between_systems_is_an_error(tmp_path, name, shown):
    (tmp_path / name).touch()
    with pytest.raises(BuildErrors) as error:
        find_files(tmp_path, tmp_path)
    assert str(error.value) == f"{shown}: the name {name!a} differs between systems; rename it"


@pytest.mark.parametrize("names", [("a.png", "A.png"), ("squares.py", "Squares.py"), ("图é.svg", "图É.svg")])
def test_names_that_differ_in_case_alone_are_an_error(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(BuildErrors, match=r"on systems that ignore case, .* has the same name"):
        find_files(tmp_path, tmp_path)


def test_chinese_name_of_a_picture_is_accepted(tmp_path):
    (tmp_path / "图 1.png").touch()
    assert find_files(tmp_path, tmp_path) == [tmp_path / "图 1.png"]


# The whole tool


def test_leftovers_do_not_change_the_site(project):
    before = project.site()
    for folder in ("docs/en/area", "docs/zh", "docs/reviewed/area", "snippets/area", "src/zhixing/area", "src/things"):
        for name in ("squares.md", "squares.py", "squares.txt"):
            (project.root / folder).mkdir(parents=True, exist_ok=True)
            (project.root / folder / f".#{name}").symlink_to("me@host.1:1")
            (project.root / folder / f"._{name}").write_bytes(b"\0\5\x16\7\xff")
            (project.root / folder / f"{name}~").write_bytes(b"\xff")
    (project.root / "docs/en/area/draft.md").mkdir()
    (project.root / "snippets/area/draft.py").mkdir()
    (project.root / "docs/reviewed/area/draft.txt").mkdir()
    assert project.command("accept") == (0, "")
    assert project.build() == (0, "")
    assert project.site() == before
    assert (project.root / "docs/reviewed/area/.#squares.txt").is_symlink()


@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["of Windows", "of Unix"])
def test_byte_order_marks_and_line_ends_do_not_change_the_site(project, end):
    before = project.site()
    for pattern in ("docs/*/**/*.md", "docs/*.html", "snippets/**/*.*", "src/**/*.py"):
        for path in project.root.glob(pattern):
            path.write_bytes(BOM + path.read_bytes().replace(b"\n", end))
    assert project.build() == (0, "")
    assert project.site() == before


# Files in GBK, and the start of the message.
GBK = {
    "docs/zh/area/squares.md": "docs/zh/area/squares.md:1: the file is not UTF-8",
    "docs/index.html": "docs/index.html:3: the file is not UTF-8",
    "docs/zh/area/picture.html": "docs/zh/area/picture.html:1: the file is not UTF-8",
    "snippets/area/roots.py": "snippets/area/roots.py:5: the file is not UTF-8",
    "snippets/area/squares.toml": "snippets/area/squares.py:11, cell curve: the figure cannot be drawn: "
    "snippets/area/squares.toml:5: the file is not UTF-8",
    "src/things/power.py": "src/things/power.py:4: the file is not UTF-8",
    "src/zhixing/area/roots.py": "src/zhixing/area/roots.py:1: the file is not UTF-8",
    "theme/images/logo.svg": "theme/images/logo.svg:2: the file is not UTF-8",
}


@pytest.mark.parametrize("path", GBK)
def test_file_in_another_encoding_stops_the_build_with_its_name(project, path):
    file, before = project.root / path, project.site()
    file.parent.mkdir(parents=True, exist_ok=True)
    text = file.read_text() if file.exists() else ""
    file.write_bytes(text.encode("gbk") + "# 平方\n".encode("gbk"))
    code, messages = project.build()
    assert code == 1
    assert messages.startswith(GBK[path])
    assert "Traceback" not in messages
    assert project.site() == before


def test_module_that_is_no_python_stops_the_build_with_its_line(project):
    project.write("src/zhixing/area/roots.py", "def root(x):\n    return = x\n")
    code, messages = project.build()
    assert (code, messages) == (1, "src/zhixing/area/roots.py:2: SyntaxError: invalid syntax\n")


CATALOGUES = [
    'text = "x"',
    "[text]\nvalue = 1",
    '[names]\nkeep = "Square"',
    "[names]\nkeep = [1]",
    "names = 1",
    "[tex]",
]


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_labels_of_another_form_are_an_error_that_names_the_file(project, catalogue):
    project.write("snippets/area/squares.toml", catalogue + "\n")
    code, messages = project.run("snippets/area/squares.py")
    assert code == 1
    assert "snippets/area/squares.toml may contain [text], with lines" in messages


def test_snippet_that_is_a_link_runs_by_either_name(project):
    target = project.root.parent / "elsewhere.py"
    (project.root / "snippets/area/roots.py").rename(target)
    (project.root / "snippets/area/roots.py").symlink_to(target)
    assert project.run("snippets/area/roots.py") == (0, "")
    assert project.run("snippets/area") == (0, "")
    assert project.run("snippets/../docs")[0] == 1


def test_system_that_refuses_is_an_error_without_a_traceback(project):
    (project.root / "docs/reviewed/area/roots.txt").unlink()
    (project.root / "docs/reviewed/area/roots.txt").mkdir()
    code, messages = project.command("accept")
    assert code == 1
    assert "docs/reviewed/area/roots.txt" in messages
    assert "Traceback" not in messages


def test_text_of_a_link_is_that_of_its_target(tmp_path):
    (tmp_path / "target").write_text(TEXT)
    (tmp_path / "link").symlink_to("target")
    assert read_text(tmp_path / "link", tmp_path) == TEXT
