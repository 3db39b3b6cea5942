"""Front matter: areas, reading order, navigation, and errors in it."""

import pytest

from zhixing_site.content.articles import leads_to, navigation, read_areas
from zhixing_site.content.page import Page

KEYS = "menu: {menu}\nsummary: What it is about.\n"


def article(name: str, english: str = "", chinese: str = "", **keys: str) -> dict[str, Page]:
    """Return an article's pages; `keys` are those that do not depend on the language."""
    shared = "".join(f"{key}: {value}\n" for key, value in ({"date": "2026-01-01"} | keys).items())
    stem = name.partition("/")[2].capitalize()
    return {
        "en": Page(f"docs/en/{name}.md", english or f"---\n{KEYS.format(menu=stem)}{shared}---\n\n# {stem} {{ #a }}\n"),
        "zh": Page(f"docs/zh/{name}.md", chinese or f"---\n{KEYS.format(menu=f'文{stem}')}---\n\n# 文 {{ #a }}\n"),
    }


def area(name: str, order: object) -> dict[str, Page]:
    return {
        "en": Page(f"docs/en/{name}/index.md", f"---\norder: {order}\n---\n\n# Area {name} {{ #a }}\n"),
        "zh": Page(f"docs/zh/{name}/index.md", f"# 域 {name} {{ #a }}\n"),
    }


def read(*pairs: dict[str, Page]):
    pages = [{pair[language].name: pair[language] for pair in pairs} for language in ("en", "zh")]
    return *read_areas(*pages), pages


def names(*pairs: dict[str, Page]) -> list[list[str]]:
    areas, errors, _ = read(*pairs)
    assert errors == []
    return [[each.name for each in area.articles] for area in areas]


def test_areas_are_sorted_by_order_with_their_articles():
    pairs = article("b/two"), area("b", 1), article("a/one"), area("a", 2)
    assert names(*pairs) == [["b/two"], ["a/one"]]


def test_articles_are_sorted_by_requirements_then_date_then_name():
    pairs = (
        article("a/first", requires="[a/second]"),
        article("a/second", date="2026-02-02"),
        article("a/third", date="2026-02-01"),
        article("a/zero", date="2026-02-01"),
    )
    assert names(area("a", 1), *pairs) == [["a/third", "a/zero", "a/second", "a/first"]]


def test_requirement_through_another_area_comes_first():
    pairs = article("a/early", requires="[b/bridge]"), article("b/bridge", requires="[a/late]"), article("a/late")
    assert names(area("a", 1), area("b", 2), *pairs) == [["a/late", "a/early"], ["b/bridge"]]


def test_requirement_in_another_area_does_not_delay_an_article():
    pairs = article("a/early", requires="[b/new]"), article("a/late"), article("b/new", date="2027-01-01")
    assert names(area("a", 1), area("b", 2), *pairs)[0] == ["a/early", "a/late"]


def test_requirements_are_found_in_both_directions():
    areas, _, _ = read(area("a", 1), article("a/one"), article("a/two", requires="[a/one]"))
    one, two = areas[0].articles
    assert [each.name for each in leads_to(one, areas)] == ["a/two"] == [two.name]
    assert leads_to(two, areas) == []
    assert two.requires == ["a/one"]


def test_navigation_lists_home_areas_and_other_pages_in_each_language():
    home = {
        "en": Page("docs/en/index.md", "---\nmenu: Home\n---\n\n# Site { #a }\n"),
        "zh": Page("docs/zh/index.md", "---\nmenu: 首页\n---\n\n# 站 { #a }\n"),
    }
    words = {"en": Page("docs/en/words.md", "# Words { #a }\n"), "zh": Page("docs/zh/words.md", "# 词 { #a }\n")}
    areas, errors, (english, chinese) = read(words, area("a", 1), article("a/one"), home)
    assert errors == []
    assert navigation(areas, english) == [
        {"Home": "index.md"},
        {"Area a": [{"Area a": "a/index.md"}, {"One": "a/one.md"}]},
        {"Words": "words.md"},
    ]
    assert navigation(areas, chinese) == [
        {"首页": "index.md"},
        {"域 a": [{"域 a": "a/index.md"}, {"文One": "a/one.md"}]},
        {"词": "words.md"},
    ]


def test_titles_in_the_navigation_are_escaped():
    index = {
        "en": Page("docs/en/a/index.md", "---\nmenu: A\norder: 1\n---\n\n# R & *D* { #a }\n"),
        "zh": area("a", 1)["zh"],
    }
    areas, _, (english, _) = read(index)
    assert navigation(areas, english) == [{"A": [{"R &amp; D": "a/index.md"}]}]


INVALID = {
    "a menu of markup": ("en", "menu: One", "menu: '`One`'", "`menu` must be a short title for the navigation"),
    "no menu": ("zh", "menu: 文One\n", "", "`menu` is missing: a short title for the navigation"),
    "no summary": ("en", "summary: What it is about.\n", "", "`summary` is missing: a sentence of plain text"),
    "an empty summary": ("zh", "What it is about.", '""', "`summary` must be a sentence of plain text"),
    "a summary with a formula": ("en", "What it is", "What $x$ is", "`summary` must be a sentence of plain text"),
    "a summary with a value": ("en", "What it", 'Of "{{ x }}"', "`summary` must be a sentence of plain text"),
    "no date": ("en", "date: 2026-01-01\n", "", "`date` is missing: the day of the first publication"),
    "an invalid date": ("en", "2026-01-01", "January", "`date` must be the day of the first publication"),
    "a date on both pages": ("zh", "menu:", "date: 2026-01-01\nmenu:", "`date` belongs in the English page alone"),
    "an unknown key": (
        "en",
        "date:",
        "author: X\ndate:",
        "`author` is not a key of such a page; valid keys are menu, ",
    ),
    "a requirement that is not a list": (
        "en",
        "date:",
        "requires: a/two\ndate:",
        "`requires` must be a list of articles",
    ),
    "an unquoted arXiv number": (
        "en",
        "date:",
        "papers: [1606.08410]\ndate:",
        "`papers` must be a list of arXiv numbers in quotes",
    ),
    "a paper without a title": ("en", "date:", "papers: [{url: x}]\ndate:", "`papers` must be a list of arXiv numbers"),
    "an unknown path": ("en", "date:", "start: {old: 1}\ndate:", "`start` must be a position in one or more reading"),
    "a place that is not a number": (
        "en",
        "date:",
        "start: {new: first}\ndate:",
        "`start` must be a position in one or",
    ),
    "a cover that is not a figure": (
        "en",
        "date:",
        "cover: curve\ndate:",
        "`cover` is not a figure of this page's snippet, which has: none",
    ),
    "an unknown article": (
        "en",
        "date:",
        "requires: [a/two]\ndate:",
        "`requires` names a/two, which is not an article",
    ),
    "an area as an article": ("en", "date:", "requires: [a/index]\ndate:", "`requires` names a/index, which is no"),
    "a requirement of itself": (
        "en",
        "date:",
        "requires: [a/one]\ndate:",
        "`requires` is circular: a/one → a/one",
    ),
    "invalid YAML": ("en", "menu: One", "menu: [", "the front matter is not valid YAML"),
}


@pytest.mark.parametrize(("language", "old", "new", "cause"), INVALID.values(), ids=INVALID)
def test_invalid_key_is_an_error(language, old, new, cause):
    pages = article("a/one")
    text = pages[language].text
    assert old in text
    pages[language] = Page(pages[language].path, text.replace(old, new, 1))
    _, (error,), _ = read(area("a", 1), pages)
    assert cause in error.cause
    assert error.path == f"docs/{language}/a/one.md"
    key = cause.split("`")[1] if cause[0] == "`" else ""
    lines = pages[language].text.splitlines()
    assert error.line == next((number for number, line in enumerate(lines, 1) if line.startswith(f"{key}:")), 1)


def test_article_with_a_figure_needs_a_cover():
    pages = article("a/one")
    page = Page(pages["en"].path, pages["en"].text + "\n![A curve.](a/one.py:curve)\n![Of another.](a/two.py:line)\n")
    _, (error,), _ = read(area("a", 1), pages | {"en": page})
    assert "`cover` is missing: the name of the cell" in error.cause
    page = Page(page.path, page.text.replace("date:", "cover: line\ndate:"))
    _, (error,), _ = read(area("a", 1), pages | {"en": page})
    assert "which has: curve" in error.cause
    page = Page(page.path, page.text.replace("cover: line", "cover: curve"))
    assert read(area("a", 1), pages | {"en": page})[1] == []


@pytest.mark.parametrize("order", ["first", "1.5", "true", ""])
def test_area_without_a_valid_order_is_an_error(order):
    areas, (error,), _ = read(area("a", order), article("a/one"))
    assert str(error) == "docs/en/a/index.md:2: `order` must be the area's position among the areas: 3"
    assert areas == []


def test_circular_requirement_names_every_article_of_the_circle():
    pairs = (
        article("a/one", requires="[a/two]"),
        article("a/two", requires="[a/three]"),
        article("a/three", requires="[a/one]"),
    )
    _, (error,), _ = read(area("a", 1), *pairs)
    *circle, last = error.cause.partition(": ")[2].split(" → ")
    assert set(circle) == {"a/one", "a/two", "a/three"}
    assert last == circle[0]
    follows = dict(zip(circle, [*circle[1:], last], strict=True))
    assert follows == {"a/one": "a/two", "a/two": "a/three", "a/three": "a/one"}


def test_invalid_requirement_is_reported_once():
    invalid = article("a/two", english="---\nmenu: Two\nsummary: S.\n---\n\n# Two { #a }\n")
    _, (error,), _ = read(area("a", 1), article("a/one", requires="[a/two]"), invalid)
    assert error.path == "docs/en/a/two.md"


def test_page_outside_an_area_is_not_an_article():
    areas, errors, (english, _) = read({"en": Page("docs/en/a/one.md", "# A"), "zh": Page("docs/zh/a/one.md", "# B")})
    assert (areas, errors, navigation(areas, english)) == ([], [], [])
