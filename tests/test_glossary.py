"""Test that the Chinese pages use the terms of the glossary."""

import csv
import re
from pathlib import Path

import pytest

from zhixing_site.content.page import HEADING_ID, MARK, Page, read_pages
from zhixing_site.site.components import term_id

REPOSITORY = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = (read_pages(REPOSITORY, language) for language in ("en", "zh"))
ARTICLES = pytest.mark.parametrize("name", sorted(ENGLISH.keys() - {"glossary"}))
PAGES = pytest.mark.parametrize("name", sorted(ENGLISH))
LINK = re.compile(r"\[([^\[\]]+)\]\(([./]*glossary\.md#[\w-]+)")

with open(REPOSITORY / "docs" / "glossary.csv", newline="") as file:
    ROWS = list(csv.DictReader(file))


def prose(page: Page) -> str:
    """Return the page's text, headings and captions, without code, formulas, addresses and the titles of papers."""
    text = "".join(section.text for section in page.sections if section.id != "references")
    return MARK.sub(lambda mark: HEADING_ID.sub("", mark["heading"] or mark["caption"] or " "), text)


def missing(english: str, chinese: str, rows: list[dict[str, str]]) -> list[str]:
    """Return the terms in the English text for which the Chinese text has none of the glossary's translations."""
    return [
        f"{row['term']}: {row['术语']}"
        for row in rows
        if re.search(rf"\b{re.escape(row['term'])}(s|es)?\b", english, re.IGNORECASE)
        and not any(word in chinese for word in row["术语"].split("、"))
    ]


def rejected(chinese: str, rows: list[dict[str, str]]) -> list[str]:
    """Return the words in the text that a definition of the glossary rejects: （不作“…”）."""
    words = [
        word
        for row in rows
        for part in re.findall("不作((?:“[^”]*”)+)", row["定义"])
        for word in part[1:-1].split("”“")
    ]
    return [word for word in words if word in chinese]


@ARTICLES
def test_chinese_page_uses_the_terms_of_the_glossary(name):
    assert missing(prose(ENGLISH[name]), prose(CHINESE[name]), ROWS) == []


@ARTICLES
def test_chinese_page_uses_no_rejected_word(name):
    assert rejected(prose(CHINESE[name]), ROWS) == []


def test_glossary_is_sorted_and_complete_without_duplicates():
    terms = [row["term"] for row in ROWS]
    assert terms == sorted(set(terms), key=str.lower)
    assert all(row["term"] and row["术语"] and row["definition"] and row["定义"] for row in ROWS)
    assert len({term_id(term) for term in terms}) == len(terms)


@PAGES
def test_first_use_of_a_term_on_a_page_is_its_link(name):
    for page in ENGLISH[name], CHINESE[name]:
        text = re.sub("^#.*", "", page.text, flags=re.MULTILINE)  # a heading holds no link
        for word, term in LINK.findall(text):
            before = prose(Page(page.path, text.partition(f"[{word}]({term}")[0]))
            assert not re.search(rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])", before), f"{page.path}: {word}"


def test_terms_are_found_only_in_prose():
    row = {"term": "weight", "术语": "权重、权", "定义": "求和时的系数。（不作“重量”“份量”）"}
    page = Page(
        "docs/en/area/trial.md",
        "# Weights { #weight }\n\n`weight` $weight$ [x](weight.md)\n\n```\nweight\n```\n\n"
        "# R { #references }\n\nWeight.\n",
    )
    assert missing(prose(page), "重量", [row]) == ["weight: 权重、权"]
    assert missing(prose(Page(page.path, page.text.replace("Weights", "Lightweight"))), "", [row]) == []
    assert missing(prose(page), "各权", [row]) == []
    assert rejected("份量与重量", [row]) == ["重量", "份量"]
    assert rejected("权重", [row]) == []
