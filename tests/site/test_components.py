"""Components that the builder adds to pages from front matter, runs and tests."""

import json
import re
import string
import subprocess

import pytest

from zhixing_copy.catalogue import read_modules
from zhixing_site.build import read_site
from zhixing_site.content.articles import read_areas
from zhixing_site.content.page import Page
from zhixing_site.errors import BuildError
from zhixing_site.project import read_commit
from zhixing_site.site.components import Components, count_words, read_glossary
from zhixing_site.site.evidence import digest
from zhixing_site.templates import WORDS

DAY = "2026-01-01"  # of conftest
SQUARES = {
    "en": "---\nmenu: Squares\nsummary: Each number & itself.\ndate: 2026-01-01\ncover: curve\nrequires: [area/roots]\n"
    'papers: ["1606.08415", {title: A & B, url: "https://example.org/a"}]\nstart: {paper: 1}\n---\n\n',
    "zh": "---\nmenu: 平方\nsummary: 每个数与自己相乘。\n---\n\n",
}
ROOTS = {
    "en": "---\nmenu: Roots\nsummary: Back again.\ndate: 2026-01-02\nstart: {paper: 2, new: 1}\n---\n\n",
    "zh": "---\nmenu: 根\nsummary: 再回来。\n---\n\n",
}
HOME = {
    "en": "# Home { #home }\n\n{{ articles }} articles, {{ tests }} tests, {{ references }}, {{ day }}, {{ commit }}\n",
    "zh": "# 首页 { #home }\n\n{{ articles }} 篇，{{ tests }} 项，{{ references }}，{{ day }}，{{ commit }}。\n",
}
HOME_PARTS = '\n--8<-- "start/paper"\n\n--8<-- "map"\n\n## All { #all }\n\n--8<-- "articles"\n'
GLOSSARY = """\
term,术语,definition,定义,page
fixed point,不动点,"A value with $f(x) = x$, like 0.",满足 $f(x) = x$ 的值。,area/roots#roots
head,头、注意力头,One `part`.,一部分。,
Mish,Mish,A function.,一个函数。,area/squares
"""
INCLUDE = '\n```python\n--8<-- "src/zhixing/area/ruler.py:measure"\n```\n'
INCLUDE_TEST = '\n```python\n--8<-- "tests/area/test_ruler.py:test_length"\n```\n'
RULER = 'def measure(x):\n    """How long."""\n    return abs(x)\n'
TESTS = """\
import math

import psutil
import pytest
import torch

from zhixing.area.ruler import measure


@pytest.mark.parametrize("x", [1, -1, 0])
def test_length(x):
    assert measure(x) == torch.tensor(x).abs() == math.fabs(x)


def test_sum():
    assert measure(-2) + measure(2) == 4
"""

VERIFICATION = """\
# Verified { #verification }

{{ assessed }} of {{ modules }}, {{ mutants }}, {{ noticed }}, {{ torch }}, {{ processor }}

--8<-- "areas"

--8<-- "recordings"
"""
RECORDED = {"date": "2026-01-02", "processor": "AVX2", "torch": "2.0"}


@pytest.fixture(scope="module")
def built(pristine, tmp_path_factory):
    """Build the small project with an area, front matter, a paper in its references, and a tested module."""
    project = pristine.copy(tmp_path_factory.mktemp("parts") / "project")
    for language in "en", "zh":
        for name, meta in ("squares", SQUARES), ("roots", ROOTS):
            path = f"docs/{language}/area/{name}.md"
            project.write(path, meta[language] + project.read(path))
        project.write(f"docs/{language}/index.md", HOME[language] + INCLUDE + INCLUDE_TEST + HOME_PARTS)
        squares = project.read(f"docs/{language}/area/squares.md")
        references = "\n## References { #references }\n\n- [On *squares*](https://arxiv.org/abs/1606.08415)\n"
        project.write(f"docs/{language}/area/squares.md", squares + INCLUDE + references)
    project.write("docs/en/area/index.md", '---\norder: 1\n---\n\n# The area { #area }\n\n--8<-- "articles"\n')
    project.write("docs/zh/area/index.md", '# 一个领域 { #area }\n\n--8<-- "articles"\n')
    project.write("docs/glossary.csv", GLOSSARY)
    for language, title in ("en", "Terms"), ("zh", "术语"):
        project.write(f"docs/{language}/glossary.md", f'# {title} {{ #glossary }}\n\n--8<-- "glossary"\n')
    project.write("pyproject.toml", "[tool.pytest.ini_options]\naddopts = ['--import-mode=importlib']\n")
    for path, text in {
        "src/zhixing/__init__.py": "",
        "src/zhixing/area/__init__.py": "",
        "src/zhixing/area/ruler.py": RULER,
        "tests/area/test_ruler.py": TESTS,
    }.items():
        project.write(path, text)
    assert project.command("accept")[0] == 0
    assert project.build() == (0, "")
    return project


@pytest.fixture
def library(built, tmp_path):
    return built.copy(tmp_path / "project")


def facts(project, page: str) -> dict[str, str]:
    (block,) = project.html(page).find_class("facts")
    return {item.find("dt").text: " | ".join(each.text_content() for each in item.iter("dd")) for item in block}


def addresses(project, page: str, element) -> list[str]:
    """Return the targets of the links, relative to site/."""
    base = project.root / "site" / page
    found = [(base / each.get("href")).resolve() for each in element.iter("a")]
    return [path.relative_to(project.root / "site").as_posix() for path in found]


def test_page_on_verification_shows_numbers_of_the_build_and_recordings(library):
    for language in "en", "zh":
        library.write(f"docs/{language}/verification.md", VERIFICATION)
    modules = read_modules(library.root / "src/zhixing")
    assessed = {"digest": digest("area/ruler", modules, library.root), "tried": 1500, "noticed": 1200}
    recorded = {"machine": RECORDED, "modules": {"area/ruler": assessed}}
    library.write("benchmarks/results/mutation.json", json.dumps(recorded))
    library.write("benchmarks/results/times.json", json.dumps({"triton": "3.8.0"}))
    library.command("accept")
    assert library.build() == (0, "")
    page = library.html("en/verification").find(".//article")
    assert re.match(r"1 of 1, 1,500, 1,200, 2\.\S+, \S+$", page.find("p").text_content())
    areas, recorded = (rows(table) for table in page.iter("table"))
    assert areas == [
        ["Area", "Test functions", "Modules assessed", "Mutants noticed"],
        ["The area", "2", "1 / 1", "1200 / 1500"],
    ]
    assert recorded[1:] == [["Mutants", "2026-01-02", "AVX2, torch 2.0"], ["times", "–", "triton 3.8.0"]]
    assert "变异体" in library.html("zh/verification").text_content()


def test_mutants_of_modules_that_have_changed_since_do_not_count(library):
    for language in "en", "zh":
        library.write(f"docs/{language}/verification.md", VERIFICATION)
    assessed = {"digest": "of another text", "tried": 1500, "noticed": 1200}
    library.write("benchmarks/results/mutation.json", json.dumps({"modules": {"area/ruler": assessed}}))
    library.command("accept")
    assert library.build() == (0, "")
    page = library.html("en/verification").find(".//article")
    assert page.find("p").text_content().startswith("0 of 1, 0, 0, ")
    assert rows(page.find(".//table"))[1] == ["The area", "2", "0 / 1", ""]


def rows(table) -> list[list[str]]:
    return [[cell.text_content() for cell in row] for row in table.iter("tr")]


def test_facts_are_below_the_title(built):
    page = built.html("en/area/squares")
    assert [each.tag for each in page.find(".//article")][:3] == ["h1", "dl", "p"]
    assert facts(built, "en/area/squares") == {
        "Reading time": "1 min: 20 words at 225 a minute; 11 lines of code and 2 formulas at 5 seconds each",
        "Papers": "On squares | A & B",
        "Read before": "Roots",
    }
    assert facts(built, "zh/area/squares") == {
        "阅读时间": "1 分钟：21 字，每分钟 400 字；代码 11 行、公式 2 个，各按 5 秒计",
        "论文": "On squares | A & B",
        "先读": "根",
    }
    assert facts(built, "zh/area/roots") == {
        "阅读时间": "1 分钟：1 字，每分钟 400 字；代码 3 行、公式 0 个，各按 5 秒计",
        "接着读": "平方",
    }
    links = [each.get("href") for each in page.find_class("facts")[0].iter("a")]
    assert links == ["https://arxiv.org/abs/1606.08415", "https://example.org/a", "../roots/"]


def test_paper_without_a_link_on_the_page_is_shown_by_its_number(library):
    for language in "en", "zh":
        library.replace(f"docs/{language}/area/squares.md", "abs/1606.08415", "abs/1606.00000")
    library.command("accept")
    assert library.build() == (0, "")
    assert facts(library, "en/area/squares")["Papers"].startswith("arXiv:1606.08415 | ")


@pytest.mark.parametrize(
    ("language", "text", "count"),
    [
        ("en", "Two words.", 2),
        ("en", "---\nmenu: not read\n---\n\n# The title { #title }\n\nIt's one-sided.", 4),
        ("en", "Where $x + y$ is `torch.sum`, see [the page](other.md#there), {{ value }}.", 5),
        ("en", "![A figure, $x$.](area/trial.py:curve)\n\n```text\ncode here\n```\n\n::: zhixing.area.trial\n", 2),
        ("en", '<b class="many words">bold</b> 1 2 3', 1),
        ("en", "两个 words", 2),
        ("zh", "两个字，with words、`码`。", 3),
        ("zh", "# 标题 { #title }\n\n![图](area/trial.py:curve)", 3),
    ],
)
def test_counted_words(language, text, count):
    assert count_words(Page(f"docs/{language}/area/trial.md", text)) == count


def test_reading_time_is_rounded_to_minutes(library):
    library.replace("docs/en/area/roots.md", "# Roots { #roots }\n", "# Roots { #roots }\n\n" + "word " * 450 + "\n")
    library.command("accept")
    assert library.build() == (0, "")
    assert facts(library, "en/area/roots")["Reading time"].startswith("2 min: 451 words")


def test_reading_time_counts_code_and_formulas(library):
    library.replace("docs/en/area/roots.md", "# Roots { #roots }\n", "# Roots { #roots }\n\n" + "$x$ " * 24 + "\n")
    library.replace("docs/zh/area/roots.md", "{ #roots }\n", "{ #roots }\n\n" + "$x$ " * 24 + "\n")
    library.command("accept")
    assert library.build() == (0, "")
    time = facts(library, "en/area/roots")["Reading time"]
    assert re.match("2 min: .* 24 formulas at 5 seconds each", time)


def test_evidence_names_versions_tests_and_how_to_cite(built):
    (block,) = built.html("en/area/squares").find_class("evidence")
    text = block.text_content()
    assert re.search(rf"Built on {DAY} with torch 2\.\S+ and Python 3\.\d+\.\d+\. The site is pub", text)
    assert [each.text for each in block.iter("summary")] == [
        "2 test functions check the code of this page",
        "How to cite this page",
    ]
    (tests,) = block.find_class("tests")
    assert [each.text for each in tests.iter("a")] == ["tests/area/test_ruler.py"]
    assert [each.text_content() for each in tests.iter("li")] == ["test_length", "test_sum"]
    (citation,) = block.find_class("cite")
    assert re.sub(r"\s+", " ", citation.find(".//pre").text_content()).strip() == (
        "@misc{zhixing-area-squares, title = {Squares}, author = {{The Zhixing authors}}, year = {2026}, "
        f"url = {{http://localhost/en/area/squares/}}, note = {{知行 Zhixing, {DAY}}} }}"
    )
    links = {each.text: each.get("href") for each in block.iter("a")}
    assert links["Edit this page"] == "http://localhost/source/edit/main/docs/en/area/squares.md"
    assert links["Report an error"] == "http://localhost/source/issues/new?title=area/squares%3A%20"
    assert links["Notebook"] == "../../../en/lab/area/squares/"


def test_evidence_is_in_the_language_of_its_page(built):
    (block,) = built.html("zh/area/squares").find_class("evidence")
    assert [each.text for each in block.iter("summary")] == ["检验本页代码的 2 个测试函数", "如何引用本页"]
    assert f"本页构建于 {DAY}，使用 torch" in block.text_content()
    assert [each.get("lang") for each in block.find_class("tests")[0].iter("div")] == ["en"]
    assert block.xpath(".//*[@lang='zh']") == []
    assert "title = {平方}" in re.sub(r"\s+", " ", block.find_class("cite")[0].text_content())


def test_page_without_tested_code_lists_no_tests(built):
    (block,) = built.html("en/area/roots").find_class("evidence")
    assert [each.text for each in block.iter("summary")] == ["How to cite this page"]


def test_tests_of_modules_that_the_snippet_imports_are_listed(library):
    library.replace("snippets/area/roots.py", "from things", "from zhixing.area.ruler import measure\nfrom things")
    assert library.build() == (0, "")
    (block,) = library.html("en/area/roots").find_class("evidence")
    assert block.find(".//summary").text == "2 test functions check the code of this page"


def test_renamed_test_is_listed_by_its_new_name(library):
    library.replace("tests/area/test_ruler.py", "test_sum", "test_total")
    assert library.build() == (0, "")
    (tests,) = library.html("en/area/squares").find_class("tests")
    assert [each.text_content() for each in tests.iter("li")] == ["test_length", "test_total"]


def test_imported_helper_does_not_add_tests_of_its_other_users(library):
    for user in "ruler", "brush":
        code = "from zhixing.area.pen import ink\n\n\ndef measure(x):\n    return abs(ink(x))\n"
        library.write(f"src/zhixing/area/{user}.py", code)
    library.write("src/zhixing/area/pen.py", "def ink(x):\n    return x\n")
    library.write("tests/area/test_brush.py", "from zhixing.area import brush\n\n\ndef test_brush():\n    pass\n")
    library.replace("snippets/area/squares.py", "from things", "from zhixing.area.pen import ink\nfrom things")
    library.replace("snippets/area/roots.py", "from things", "from zhixing.area.pen import ink\nfrom things")
    assert library.build() == (0, "")
    (tests,) = library.html("en/area/squares").find_class("tests")
    assert [each.text_content() for each in tests.iter("li")] == ["test_length", "test_sum"]
    (tests,) = library.html("en/area/roots").find_class("tests")  # the page has no other tested code
    assert [each.text_content() for each in tests.iter("li")] == ["test_brush", "test_length", "test_sum"]


def test_home_shows_areas_with_cards_paths_and_numbers(built):
    page = built.html("en")
    article = page.find(".//article")
    assert article.find("p").text_content() == f"2 articles, 2 tests, torch, {DAY}, …"
    assert built.html("zh").find(".//article/p").text_content() == f"2 篇，2 项，torch，{DAY}，…。"
    (path,) = page.find_class("reading-path")
    assert [each.text_content() for each in path.iter("li")] == ["Squares", "Roots"]
    assert addresses(built, "en", path) == ["en/area/squares", "en/area/roots"]
    (cards,) = page.find_class("cards")
    roots, squares = cards.iter("li")
    (area,) = page.find_class("area")
    assert area.getparent() is roots
    assert (area.tag, area.text_content(), addresses(built, "en", area)) == ("h3", "The area", ["en/area"])
    roots, squares = cards.find_class("card")
    assert [each.find("h4").text_content() for each in (roots, squares)] == ["Roots", "Squares"]
    assert squares.find("p").text_content() == "Each number & itself."
    assert addresses(built, "en", squares) == ["en/area/squares"]
    assert list(roots.iter("img")) == []
    assert [
        (each.get("class"), each.get("src"), each.get("alt"), each.get("loading")) for each in squares.iter("img")
    ] == [
        ("only-light", "area/squares/curve-light.svg", "The squares up to x=2.", "lazy"),
        ("only-dark", "area/squares/curve-dark.svg", "The squares up to x=2.", "lazy"),
    ]
    assert (built.root / "site/en/area/squares/curve-dark.svg").is_file()


def test_map_leads_from_required_articles_to_those_that_build_on_them(built):
    for language, names in ("en", ["Roots", "Squares"]), ("zh", ["根", "平方"]):
        (areas,) = built.html(language).find_class("map")
        (drawing,) = areas.iter("svg")
        roots, squares = drawing.iter("g")
        assert [each.find("a/text").text for each in (roots, squares)] == names
        assert addresses(built, language, areas) == [f"{language}/area{page}" for page in ("", "/roots", "/squares")]
        assert roots.find("path") is None
        start, end = (each.find("circle") for each in (roots, squares))
        line = squares.find("path").get("d").replace("C", " ").split()
        assert line[1] == start.get("cy") != end.get("cy") == line[-1]
        assert drawing.find(".//text[@class='others']") is None


def test_map_names_what_an_article_requires_of_other_areas(library):
    meta = "menu: Trial\nsummary: A trial.\n"
    english = f"---\n{meta}date: 2026-01-01\nrequires: [area/roots]\n---\n\n"
    for language, head in ("en", english), ("zh", f"---\n{meta}---\n\n"):
        library.write(f"docs/{language}/other/index.md", library.read(f"docs/{language}/area/index.md"))
        library.write(f"docs/{language}/other/trial.md", f"{head}# Trial {{ #trial }}\n")
    library.command("accept")
    assert library.build() == (0, "")
    (others,) = library.html("en").find_class("others")
    assert others.text_content() == "after Roots"
    assert addresses(library, "en", others) == ["en/area/roots"]


def test_glossary_has_a_section_for_each_term(built):
    texts = {
        "en": [
            ("fixed point 不动点", "A value with"),
            ("head 头", "One part."),
            ("Mish", "A function. Explained in Squares."),
        ],
        "zh": [("不动点 fixed point", "满足"), ("头 head", "一部分。"), ("Mish", "一个函数。详见平方。")],
    }
    for language, sections in texts.items():
        page = built.html(f"{language}/glossary")
        headings = list(page.iter("h2"))
        assert [each.get("id") for each in headings] == ["fixed-point", "head", "mish"]
        for heading, (title, text) in zip(headings, sections, strict=True):
            assert " ".join(filter(None, [heading.text.strip(), heading.findtext("span")])) == title
            assert heading.getnext().text_content().startswith(text)
        explained = headings[0].getnext()
        assert explained.find(".//math") is not None
        (target,) = addresses(built, f"{language}/glossary", explained)
        assert target.startswith(f"{language}/area/roots")
        assert built.searched(language)["glossary/#head"]["text"] == sections[1][1]


def test_term_explained_by_no_article_is_an_error(library):
    library.replace("docs/glossary.csv", "area/roots#", "area/trees#")
    assert "docs/glossary.csv:2: fixed point: there is no article area/trees" in library.failing_build()


HEAD = "term,术语,definition,定义,page\n"
TABLES = {
    "": (1, "the first line must be term,术语,definition,定义,page"),
    "term,术语,definition,定义\n": (1, "the first line must be"),
    HEAD.replace(",", ";"): (1, "the first line must be"),
    HEAD.replace("page", "Page"): (1, "the first line must be"),
    f"{HEAD}a,b\n": (2, "a row has five cells"),
    f"{HEAD}a,甲,A.,甲。,\nb,乙,B.,乙。\n": (3, "a row has five cells"),
    f"{HEAD}a,b,c,d,,f\n": (2, "a row has five cells"),
    f"{HEAD}\n,,,,\n": (3, "a row has five cells"),
    f"{HEAD}a,甲,,甲。,\n": (2, "a row has five cells"),
    f'{HEAD}a,甲,"A\nB.",甲。,\n': (3, "a row has five cells in one line"),
    f'{HEAD}a,甲,"A.,甲。,\n': (2, ""),
    f'{HEAD}b,乙,B.,乙。,\na,甲,"A"B,甲。,\n': (3, ""),
}


@pytest.mark.parametrize(("table", "line", "cause"), [(table, *error) for table, error in TABLES.items()], ids=ascii)
def test_table_of_terms_that_is_damaged_is_an_error_with_its_line(tmp_path, table, line, cause):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/glossary.csv").write_text(table)
    with pytest.raises(BuildError, match=rf"^docs/glossary\.csv:{line}: {cause}"):
        read_glossary(tmp_path)


@pytest.mark.parametrize("encoding", ["gbk", "utf-16", "gb18030"])
def test_table_of_terms_in_another_encoding_is_an_error_that_names_it(tmp_path, encoding):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/glossary.csv").write_bytes(GLOSSARY.encode(encoding))
    with pytest.raises(BuildError, match=r"^docs/glossary\.csv:1: the file is not UTF-8"):
        read_glossary(tmp_path)


def test_missing_table_of_terms_is_an_error_that_names_it(tmp_path):
    with pytest.raises(BuildError, match=r"^docs/glossary\.csv: the file cannot be read: No such file"):
        read_glossary(tmp_path)


def test_table_of_terms_may_be_saved_by_a_spreadsheet(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/glossary.csv").write_bytes(b"\xef\xbb\xbf" + GLOSSARY.replace("\n", "\r\n").encode())
    assert [row["term"] for _, row in read_glossary(tmp_path)] == ["fixed point", "head", "Mish"]


def test_definitions_are_single_paragraphs_whatever_they_begin_with(library):
    starts = ["# a", "- a", "> a", "1. a", "| a | b |", "??? note", "---", "[x]: y"]
    rows = [f"term {number},{number},{start},{start},\n" for number, start in enumerate(starts)]
    library.write("docs/glossary.csv", HEAD + "".join(rows))
    assert library.build() == (0, "")
    for language in "en", "zh":
        texts = [each.getnext().text_content().strip() for each in library.html(f"{language}/glossary").iter("h2")]
        assert texts == starts


@pytest.mark.parametrize("definition", ["<div>", "a</p>", "<Script>x"])
def test_definition_with_html_is_an_error_with_its_line(library, definition):
    library.write("docs/glossary.csv", f"{GLOSSARY}zero,零,{definition},零。,\n")
    assert "docs/glossary.csv:5: zero: a definition must not contain HTML" in library.failing_build()


def test_definition_with_a_formula_that_does_not_parse_is_an_error_with_its_line(library):
    library.write("docs/glossary.csv", f"{GLOSSARY}zero,零,$\\frac$,零。,\n")
    assert "docs/glossary.csv:5: zero: the formula does not parse" in library.failing_build()


def test_home_offers_a_definition_and_shows_its_test(built):
    page = built.html("en")
    assert [each.text_content() for each in page.find_class("filename")] == [
        "src/zhixing/area/ruler.py",
        "tests/area/test_ruler.py",
    ]
    (offer,) = page.find_class("take")
    assert addresses(built, "en", offer) == ["code/area/ruler.measure.py"]
    test = page.find_class("highlight")[1].find(".//code").text_content()
    assert test.strip().startswith("@pytest.mark.parametrize")
    assert "def test_sum" not in test


def test_area_shows_its_articles(built):
    page = built.html("zh/area")
    (cards,) = page.find_class("cards")
    assert [each.text_content() for each in cards.iter("h2")] == ["根", "平方"]
    assert addresses(built, "zh/area", cards) == ["zh/area/roots", "zh/area/squares"]
    assert next(cards.iter("img")).get("src") == "squares/curve-light.svg"


def test_card_of_an_article_whose_snippet_failed_has_no_picture(library):
    """A preview shows it; a build stops before."""
    site, modules = read_site(library.root), read_modules(library.root / "src/zhixing")
    areas, _ = read_areas(*site.pages.values())
    components = Components(areas, {}, modules, library.root, has_commit=False)
    cards = components.parts_of(site.pages["en"]["area/index"])["articles"]
    assert "Squares" in cards
    assert "<img" not in cards


def test_quotation_marks_of_a_caption_are_kept_in_the_alternative_text(library):
    for language in "en", "zh":
        text = library.read(f"docs/{language}/area/squares.md")
        library.write(f"docs/{language}/area/squares.md", re.sub(r"!\[[^]]*\]", '![A "b" <c>.]', text))
    library.command("accept")
    assert library.build() == (0, "")
    assert next(library.html("en").find_class("cards")[0].iter("img")).get("alt") == 'A "b" .'


def test_components_are_not_in_the_search_index(built):
    index = built.searched("en")
    assert index.keys() >= {"area/", "area/squares/"}
    text = json.dumps(index)
    for part in "225 a minute", "Read before", "How to cite", "test_length", "zhixing-area", "Back again":
        assert part not in text
        assert part in built.html("en/area/squares").text_content() + built.html("en").text_content()


def test_navigation_is_built_from_front_matter(library):
    template = (
        "{% for item in nav recursive %}<i>{{ item.title }}</i>{{ loop(item.children or []) }}{% endfor %}</article>"
    )
    library.replace("theme/main.html", "</article>", f"</article><nav>{template}")
    assert library.build() == (0, "")
    titles = {
        "en": ["Home", "The area", "The area", "Roots", "Squares"],
        "zh": ["首页", "一个领域", "一个领域", "根", "平方"],
    }
    for language, wanted in titles.items():
        found = [each.text for each in library.html(language).iter("i")]
        assert [title for title in found if title in wanted] == wanted


@pytest.mark.parametrize("page", ["index", "area/index", "area/squares"])
def test_unknown_component_stops_the_build(library, page):
    for language in "en", "zh":
        path = f"docs/{language}/{page}.md"
        library.write(path, library.read(path) + '\n--8<-- "start/interview"\n')
    place = f"docs/en/{page}.md:{library.line(f'docs/en/{page}.md', 'interview')}"
    assert f"{place}: unknown component" in library.failing_build()


def test_components_that_differ_between_the_languages_stop_the_build(library):
    library.replace("docs/zh/index.md", '--8<-- "start/paper"', '--8<-- "start/new"')
    assert "a part of section #home differs from its translation" in library.failing_build()


def test_invalid_front_matter_stops_the_build(library):
    library.replace("docs/en/area/squares.md", "[area/roots]", "[area/trees]")
    assert "docs/en/area/squares.md:6: `requires` names area/trees, which is not an article" in library.failing_build()


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_words_of_both_languages_have_the_same_keys_and_fields():
    def all_fields(words: dict) -> dict:
        return {key: all_fields(each) if isinstance(each, dict) else fields(each) for key, each in words.items()}

    assert all_fields(WORDS["en"]) == all_fields(WORDS["zh"])


@pytest.mark.parametrize(("has_commit", "commit"), [(True, "zhixing-build-commit"), (False, "…")])
def test_markdown_depends_on_neither_commit_nor_day(tmp_path, has_commit, commit):
    components = Components([], {}, {}, tmp_path, has_commit)
    (notebook,) = components.notebooks_for(Page("docs/en/index.md", "")).values()
    values = notebook["metadata"]["zhixing"]["values"]
    assert (values["commit"], values["day"]) == (commit, "zhixing-build-day")


def test_commit_marks_uncommitted_changes(tmp_path):
    assert read_commit(tmp_path) == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "file").write_text("one")
    for command in ["init", "-q"], ["add", "file"], ["commit", "-qm", "Start"]:
        subprocess.run([*git, *command], check=True)
    commit = read_commit(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{7,}", commit)
    (tmp_path / "file").write_text("two")
    assert read_commit(tmp_path) == f"{commit}-dirty"


def test_pages_show_the_commit(library):
    for command in ["init", "-q"], ["add", "docs"], ["commit", "-qm", "Start"]:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *command], cwd=library.root, check=True
        )
    assert library.build() == (0, "")
    commit = read_commit(library.root)
    text = library.html("en/area/squares").find_class("evidence")[0].text_content()
    assert f"at commit {commit} with torch" in text
    assert f"{DAY}, {commit}}}" in text
    assert commit in library.html("zh").find(".//article/p").text_content()
    site = library.site()
    assert not any(b"zhixing-build" in content for content in site.values())
    pages = {name for name, content in site.items() if name.endswith(".html")}
    assert {name for name, content in site.items() if commit.encode() in content} < pages
