"""Parsing of pages: marks, and sections with their ids."""

import pytest

from zhixing_site.content.page import Page, Use, read_pages
from zhixing_site.content.translations import contents
from zhixing_site.errors import BuildError


def page(text: str) -> Page:
    return Page("docs/en/area/trial.md", text)


def marks(text: str) -> dict[str, list[str]]:
    """Return {kind: contents in order} of the marks of all sections."""
    found = contents(mark for section in page(text).sections for mark in section.marks)
    return {kind: values for kind, values in found.items() if values}


MARKS = {
    "formula": ("So $x^2$ is.", {"inline": ["x^2"]}),
    "formulas": ("$a$ and $b$, then ($c$).", {"inline": ["a", "b", "c"]}),
    "formula over two lines": ("So $x +\ny$ is.", {"inline": ["x+y"]}),
    "formula between Chinese": ("令$x$为", {"inline": ["x"]}),
    "formula with a dollar": (r"So $x = \$5$ is.", {"inline": [r"x=\$5"]}),
    "escaped dollar": (r"It costs \$5 or \$6.", {}),
    "blocks": ("$$\nx\n$$\n\n$$y$$", {"block": ["x", "y"]}),
    "block over many lines": (
        "$$\n\\begin{aligned}\na &= b \\\\\n  &= c\n\\end{aligned}\n$$",
        {"block": [r"\begin{aligned}a&=b\\&=c\end{aligned}"]},
    ),
    "words in a formula": (r"$x \text{ if even}$", {"inline": [r"x\text{}"]}),
    "figure": ("![A curve.](area/a.py:b)", {"figure": ["area/a.py:b"]}),
    "figure over two lines": ("![A\ncurve.](area/a.py:b)", {"figure": ["area/a.py:b"]}),
    "figure with marks in its caption": (
        "![At $x$ and {{ y }}, [see](z.md).](area/a.py:b)",
        {"figure": ["area/a.py:b"], "inline": ["x"], "value": ["y"], "link": ["z.md"]},
    ),
    "value": ("{{ x }} and {{ y:.2f }}.", {"value": ["x", "y"]}),
    "value in a formula": ("$a = {{ x:.1e }}$", {"inline": ["a={{x:.1e}}"], "value": ["x"]}),
    "links": ("[a](b.md) and [c](d.md#e), [f](https://g.org).", {"link": ["b.md", "d.md#e", "https://g.org"]}),
    "image": ("![alt](picture.png)", {"link": ["picture.png"]}),
    "fence": ("```text\n$x$ [a](b.md)\n# Heading\n```", {"fence": ["text\n$x$ [a](b.md)\n# Heading\n"]}),
    "fence between tildes": ("~~~\n```\n~~~", {"fence": ["\n```\n"]}),
    "fence in a fence": ("````text\n```\nx\n```\n````", {"fence": ["text\n```\nx\n```\n"]}),
    "empty fence": ("```text\n```", {"fence": ["text\n"]}),
    "two fences": ("```a\n1\n```\n\n```b\n2\n```", {"fence": ["a\n1\n", "b\n2\n"]}),
    "indented fence": ("!!! note\n\n    ```a\n    1\n    ```", {"fence": ["a\n    1\n"]}),
    "code": ("`$x$` and ``[a](b.md) ` {{ c }}``", {}),
    "code over two lines": ("`$x\ny$`", {}),
    "comment": ("<!-- $x$\n\n# Heading\n\n{{ y }} -->", {}),
    "escaped code": (r"\`$x$\`", {"inline": ["x"]}),
    "nothing": ("", {}),
}


@pytest.mark.parametrize(("text", "wanted"), MARKS.values(), ids=MARKS)
def test_marks(text, wanted):
    assert marks(text) == wanted


KINDS = {
    "matter": "---\na: 1\n---\n",
    "comment": "<!-- a -->",
    "fence": "```text\na\n```",
    "heading": "# A { #a }",
    "code": "`a`",
    "escape": r"\$",
    "block": "$$a$$",
    "inline": "$a$.",
    "figure": "![A.](area/a.py:b)",
    "value": "{{ a:.2f }}",
    "part": '--8<-- "a"',
    "stray": "$",
    "link": "](a.md",
}


@pytest.mark.parametrize(("kind", "text"), [*KINDS.items(), ("inline", "$a$"), ("value", "{{ a }}"), ("code", "``a``")])
def test_last_group_is_the_kind_of_a_mark(kind, text):
    text += ")" * (kind == "link")
    (mark,) = page(text).marks
    assert (mark.lastgroup, mark[0]) == (kind, text)
    assert mark[kind]


def test_marks_are_replaced_and_have_line_numbers():
    text = "---\na: 1\n---\n\n# A { #a }\n\nBefore $x$, `y`\nand {{ z }}.\n"
    assert page(text).sub(lambda mark: f"<{mark.lastgroup}>") == (
        "<matter>\n<heading>\n\nBefore <inline> <code>\nand <value>.\n"
    )
    assert [page(text).line(mark) for mark in page(text).marks] == [1, 5, 7, 7, 8]
    assert page(text).sub(lambda mark: mark[0]) == text


def test_sections_are_split_at_headings_of_every_depth():
    text = "before\n\n# A { #a }\n\none\n\n###### B { #b-2 }\ntwo\n\n```text\n# no\n```\n\n## C `x` {#c}\n"
    sections = page(text).sections
    assert [(section.id, section.line) for section in sections] == [("", 1), ("a", 3), ("b-2", 7), ("c", 14)]
    assert "".join(section.text for section in sections) == text


def test_sections_of_marks():
    sections = page("$a$\n\n## B { #b }\n\n$b$ $c$\n").sections
    assert [contents(section.marks)["inline"] for section in sections] == [["a"], ["b", "c"]]


def test_heading_without_id_is_an_error():
    with pytest.raises(BuildError, match=r"docs/en/area/trial\.md:5: a heading without an id"):
        page("# A { #a }\n\ntext\n\n## B\n").sections  # noqa: B018


def test_digest_depends_only_on_the_sections_text():
    first, second = (page(f"# A {{ #a }}\n\n{a}\n\n## B {{ #b }}\n\nb\n").sections for a in "xy")
    assert first[1].digest != second[1].digest
    assert first[2].digest == second[2].digest


def test_digest_ignores_blank_lines_at_the_end_of_a_section():
    first, second = (page(f"# A {{ #a }}\n{blank}\na\n{blank}").sections[1] for blank in ("", "\n"))
    assert first.digest == page("# A { #a }\n\na\n\n\n\n").sections[1].digest
    assert first.digest != second.digest


def test_uses_are_the_included_names_and_figures_with_their_lines():
    text = """\
# A { #a }

```python
--8<-- "area/a.py:one"

--8<-- "src/things/power.py:Power.forward"
--8<-- "src/things/power.py"
```

![A
curve.](area/a.py:two)

!!! note

    ```python
    --8<-- "area/b.py:three"
    ```
"""
    assert page(text).uses == [
        Use("area/a.py", "one", 4),
        Use("src/things/power.py", "Power.forward", 6),
        Use("src/things/power.py", "", 7),
        Use("area/a.py", "two", 10, figure=True),
        Use("area/b.py", "three", 16),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "x = 1",
        '--8<-- "area/a.py"',
        "--8<-- area/a.py:one",
        '--8<-- "area/a.py:one" # why',
        '--8<-- "../a.py:one"',
        ";--8<--",
    ],
)
def test_fence_that_mixes_includes_with_other_text_is_an_error(line):
    with pytest.raises(BuildError, match=r"docs/en/area/trial\.md:3: a fence with includes may contain only"):
        page(f'```python\n--8<-- "area/a.py:one"\n{line}\n```\n').uses  # noqa: B018


def test_name_and_language_of_a_page():
    assert (page("").name, page("").language) == ("area/trial", "en")
    assert (Page("docs/zh/index.md", "").name, Page("docs/zh/index.md", "").language) == ("index", "zh")


def test_pages_of_a_language_are_read_by_name(pristine):
    pages = read_pages(pristine.root, "zh")
    assert list(pages) == ["area/roots", "area/squares", "index"]
    assert pages["index"].path == "docs/zh/index.md"
    assert pages["index"].text.startswith("# 首页")
