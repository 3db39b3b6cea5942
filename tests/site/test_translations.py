"""Which differences between translations count, and how a review is recorded."""

import contextlib
import shutil

import pytest

from zhixing_site import cli
from zhixing_site.content.page import Page
from zhixing_site.content.translations import compare

REVIEWED = "docs/reviewed"


def errors(english: str, chinese: str) -> list[str]:
    pages = Page("docs/en/area/trial.md", english), Page("docs/zh/area/trial.md", chinese)
    return [str(error) for error in compare(*pages)]


ALIKE = {
    "words": ("# A { #a }\n\nOne.", "# 甲 { #a }\n\n一。"),
    "order of formulas in a sentence": ("From $a$ to $b$.", "到 $b$，自 $a$。"),
    "a repeated formula": ("From $a$ to $a$.", "自 $a$。"),
    "order of values": ("{{ x }} of {{ y }}", "{{ y }}中的{{ x }}"),
    "format of a value": ("{{ x:.2f }}", "{{ x:.1f }}"),
    "order of links": ("[a](a.md), [b](b.md)", "[乙](b.md)、[甲](a.md)"),
    "caption": ("![A curve.](a/b.py:c)", "![曲线。](a/b.py:c)"),
    "white space in a formula": ("$$\na = b\n$$", "$$a=b$$"),
    "words in a formula": (r"$$x \text{ if even}$$", r"$$x \text{，若为偶数}$$"),
    "code in sentences": ("`f` here", "此处"),
    "comment": ("<!-- $x$ -->", ""),
    "escaped dollar": (r"\$5", "五元"),
}


@pytest.mark.parametrize(("english", "chinese"), ALIKE.values(), ids=ALIKE)
def test_translations_may_differ_in(english, chinese):
    assert errors(english, chinese) == []
    assert errors(chinese, english) == []


def test_each_kind_of_difference_is_reported():
    found = errors('$a$ {{ b }} [c](d.md)\n\n$$e$$\n\n--8<-- "f"', "nothing")
    assert len(found) == 5


def test_message_names_both_lines_and_what_differs():
    (message,) = errors("# A { #a }\n\n## B { #b }\n\n$x^2$", "# 甲 { #a }\n\n一。\n\n## 乙 { #b }\n\n$x^3$")
    assert message.startswith("docs/zh/area/trial.md:5: ")
    assert "docs/en/area/trial.md:3 has x^2" in message
    assert "docs/zh/area/trial.md:5 has x^3" in message


def test_format_of_a_value_in_a_formula_must_be_the_same():
    """A formula is compared as written, with the formats of its values."""
    assert errors("$x = {{ y:.2f }}$", "$x = {{ y:.1f }}$")


def test_first_heading_that_differs_is_named():
    (message,) = errors("# A { #a }\n## B { #b }\n## C { #c }", "# 甲 { #a }\n## 丙 { #c }\n## 乙 { #b }")
    assert message == "docs/zh/area/trial.md:2: heading #c has no counterpart at this place"


@pytest.fixture
def reviewed(project):
    """Return a function that reads the recorded reviews: {page#section: digests}, in the order of each file."""

    def read() -> dict[str, str]:
        folder, found = project.root / REVIEWED, {}
        for path in sorted(folder.rglob("*.txt")):
            name = path.relative_to(folder).with_suffix("").as_posix()
            found |= {name + line.partition(" ")[0]: line.partition(" ")[2] for line in path.read_text().splitlines()}
        return found

    return read


def test_accept_records_a_digest_for_each_side_of_each_section(project, reviewed):
    assert {"index#", "index#home", "area/squares#table", "area/roots#roots"} < set(reviewed())
    assert all(len(set(digests.split())) == 2 for name, digests in reviewed().items() if not name.endswith("#"))
    assert list(reviewed()) == sorted(reviewed())
    assert sorted(path.name for path in (project.root / REVIEWED / "area").iterdir()) == ["roots.txt", "squares.txt"]


def test_accept_of_one_page_does_not_change_the_others(project, reviewed):
    before, other = reviewed(), project.root / REVIEWED / "area/squares.txt"
    written = other.stat().st_mtime_ns
    for page in ("roots", "squares"):
        project.replace(f"docs/en/area/{page}.md", " }\n", " }\n\nMore.\n")
    assert project.command("accept", "area/roots") == (0, "")
    changed = {name for name, digests in reviewed().items() if digests != before[name]}
    assert changed == {"area/roots#roots"}
    assert other.stat().st_mtime_ns == written
    code, messages = project.build()
    assert code == 1
    assert "area/squares#table" in messages
    assert "area/roots" not in messages


def test_accept_lists_new_sections(project, capsys):
    project.replace("docs/zh/area/roots.md", " }\n", " }\n\nMore.\n")
    for output in "accepted area/roots#roots\n", "no section has changed\n":
        with contextlib.chdir(project.root):
            assert cli.main(["accept"]) == 0
        assert capsys.readouterr().out == output


def test_accept_without_arguments_accepts_all_pages(project):
    for page in ("roots", "squares"):
        project.replace(f"docs/en/area/{page}.md", " }\n", " }\n\nMore.\n")
    assert project.command("accept") == (0, "")
    assert project.build() == (0, "")


def test_accept_removes_the_records_of_deleted_sections(project, reviewed):
    for language in ("en", "zh"):
        (project.root / f"docs/{language}/area/roots.md").unlink()
        project.replace(f"docs/{language}/area/squares.md", "{ #table }", "{ #list }")
    assert project.command("accept") == (0, "")
    assert {name for name in reviewed() if name.startswith("area")} == {
        "area/squares#",
        "area/squares#squares",
        "area/squares#list",
    }
    assert not (project.root / REVIEWED / "area/roots.txt").exists()


DAMAGES = {
    "of a merge": lambda text: b"<<<<<<< HEAD\n" + text + b"=======\n>>>>>>> other\n",
    "with line ends of Windows": lambda text: b"\xef\xbb\xbf\r\n" + text.replace(b"\n", b"\r\n"),
    "with empty lines": lambda text: text.replace(b"\n", b"\n\n"),
    "that is empty": lambda text: b"",
    "cut short": lambda text: text[: len(text) // 2],
    "with lines cut short": lambda text: b"#roots abc\n#\n" + text[:5],
    "in another encoding": lambda text: text.decode().encode("utf-16"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_accept_replaces_a_record(project, reviewed, damage):
    before, record = reviewed(), project.root / REVIEWED / "area/roots.txt"
    record.write_bytes(damage(record.read_bytes()))
    code, messages = project.build()
    assert "area/roots#roots changed" in messages if code else messages == ""
    assert project.command("accept") == (0, "")
    assert reviewed() == before


def test_accept_of_an_unknown_page_is_an_error(project, reviewed):
    before = reviewed()
    code, messages = project.command("accept", "area/roots", "area/nothing")
    assert code == 1
    assert "area/nothing" in messages
    assert "area/roots" not in messages
    assert reviewed() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [("{ #table }", "{ #tables }"), ("$$\nx^2", "$$\nx^3"), ("## Table { #table }", ""), ("{ #table }", "")],
    ids=["id", "formula", "heading", "no id"],
)
def test_accept_of_translations_that_differ_is_an_error(project, reviewed, old, new):
    before = reviewed()
    project.replace("docs/en/area/squares.md", old, new)
    code, messages = project.command("accept", "area/squares")
    assert code == 1
    assert "area/squares.md" in messages
    assert reviewed() == before


def test_undone_change_needs_no_review(project):
    text = project.read("docs/en/area/roots.md")
    project.write("docs/en/area/roots.md", text + "\nMore.\n")
    assert project.build()[0] == 1
    project.write("docs/en/area/roots.md", text)
    assert project.build() == (0, "")


def test_project_without_reviews_does_not_build(project):
    shutil.rmtree(project.root / REVIEWED)
    code, messages = project.build()
    assert code == 1
    assert all(name in messages for name in ("index#home", "area/squares#table", "area/roots#roots"))


def test_heading_without_id_is_an_error_of_its_page():
    (error,) = errors("# A { #a }", "# 甲")
    assert error.startswith("docs/zh/area/trial.md:1: a heading without an id")
