"""What searches find, in queries.csv, and how the search box behaves."""

import csv
from pathlib import Path

import pytest

ROWS = list(csv.DictReader((Path(__file__).parent / "queries.csv").read_text().splitlines()))
LANGUAGES = pytest.mark.parametrize("language", ["en", "zh"])


class Search:
    """A tab whose search box is open."""

    def __init__(self, tab, language: str, **options):
        self.visit, self.home = tab(**options), f"{language}/"
        self.page = self.visit.page
        self.visit.open(f"{language}/activations/gelu/")
        self.page.keyboard.press("/")

    def find(self, query: str) -> list[str]:
        """The addresses below the language's folder of what is found."""
        self.page.fill(".search input", query)
        self.page.wait_for_function("query => document.querySelector('.search').dataset.shown === query", arg=query)
        links = self.page.eval_on_selector_all(".search li a", "links => links.map(link => link.href)")
        return [link.removeprefix(self.visit.address) for link in links]


@LANGUAGES
def test_first_hits_are_those_of_the_table(tab, language):
    search, missed = Search(tab, language), []
    rows = [row for row in ROWS if row["language"] == language]
    assert len(rows) >= 30
    for row in rows:
        first = (search.find(row["query"]) or [""])[0]
        wanted = f"{language}/{row['page']}/"
        if first != f"{wanted}#{row['section']}" if row["section"] else first.partition("#")[0] != wanted:
            missed.append((row["query"], first))
    assert missed == []
    assert search.visit.wrong == []


@LANGUAGES
def test_results_are_of_the_readers_language_alone(tab, language):
    search = Search(tab, language)
    for query in "GELU", "函数", "function":
        assert all(result.startswith(language) for result in search.find(query))
    assert search.find("xyzzy") == []
    assert search.page.locator(".search [role=status]").inner_text() in (
        "No matching documents",
        "没有找到符合条件的结果",
    )
    assert search.find(" ,") == []
    assert search.page.locator(".search [role=status]").inner_text() == ""


def test_index_is_asked_for_when_the_box_first_opens(tab):
    visit = tab()
    visit.open("en/activations/gelu/")
    visit.page.wait_for_timeout(300)
    assert not [url for url in visit.asked if "search.json" in url or "vendor" in url]
    visit.page.click(".search-open")
    visit.page.wait_for_selector(".search[data-shown]")
    assert sum("search.json" in url for url in visit.asked) == 1
    visit.page.keyboard.press("Escape")
    visit.page.click(".search-open")
    visit.page.wait_for_timeout(300)
    assert sum("search.json" in url for url in visit.asked) == 1


def test_search_by_keyboard_alone(tab):
    search = Search(tab, "en")
    page = search.page
    assert search.find("left tail")[0] == "en/activations/gelu/#left-tail"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.href").endswith("#left-tail")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.matches('.search-query')")
    page.keyboard.press("Enter")
    page.wait_for_url("**/activations/gelu/#left-tail")
    assert not page.locator(".search").is_visible()
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    assert not page.locator(".search").is_visible()


def test_what_was_found_is_marked_in_its_surroundings(tab):
    search = Search(tab, "zh")
    search.find("误差函数")
    assert search.page.locator(".search li").first.locator("mark").all_inner_texts() == ["误差函数"]


def test_search_fits_a_phone(tab):
    search = Search(tab, "en", width=360)
    search.find("gradient")
    box = search.page.locator(".search").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    assert search.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_box_is_not_there_without_javascript(tab):
    visit = tab(java_script_enabled=False)
    visit.open("en/")
    assert not visit.page.locator(".search-open").is_visible()
