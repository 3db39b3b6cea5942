"""Test the first hits of the queries in queries/<page>.csv and in questions.csv, and the search box."""

import csv
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "queries"
ROWS = [
    row | {"page": path.relative_to(FOLDER).with_suffix("").as_posix()}
    for path in sorted(FOLDER.rglob("*.csv"))
    for row in csv.DictReader(path.read_text().splitlines())
]
# Written without having seen the pages, with the article that should answer.
QUESTIONS = list(csv.DictReader(Path(__file__).with_name("questions.csv").read_text().splitlines()))
LANGUAGES = pytest.mark.parametrize("language", ["en", "zh"])


# Type before the box opens, and note what has been searched, with the first result, whenever that changes.
STAGES = """query => {
  const box = document.querySelector(".search");
  box.querySelector("input").value = query;
  window.stages = [];
  new MutationObserver(() => stages.push([box.dataset.searched, box.querySelector("li a")?.href]))
    .observe(box, {attributeFilter: ["data-searched"]});
}"""
# Whether everything was searched for the query, not only titles.
SHOWN = """query => {
  const { shown, searched } = document.querySelector(".search").dataset;
  return shown === query && searched === "everything";
}"""


class Search:
    """A tab whose search box is open."""

    def __init__(self, tab, language: str, **options):
        self.visit, self.home = tab(**options), f"{language}/"
        self.page = self.visit.page
        self.visit.open(f"{language}/activations/gelu/")
        self.page.keyboard.press("/")

    def find(self, query: str) -> list[str]:
        """Search, and return the addresses of the results, relative to the site."""
        self.page.fill(".search input", query)
        self.page.wait_for_function(SHOWN, arg=query)
        links = self.page.eval_on_selector_all(".search li a", "links => links.map(link => link.href)")
        return [link.removeprefix(self.visit.address) for link in links]


# The first hit of each query, typed one after another.
FIRST_HITS = """queries => {
  const box = document.querySelector(".search"), input = box.querySelector("input"), first = [];
  for (const query of queries) {
    input.value = query;
    input.dispatchEvent(new Event("input"));
    first.push(box.querySelector("li a")?.href ?? "");
  }
  return first;
}"""


@LANGUAGES
def test_first_hits_match_the_table(tab, language):
    search, missed = Search(tab, language), []
    rows = [row for row in ROWS if row["language"] == language]
    assert len(rows) >= 30
    search.find(rows[0]["query"])  # wait for the index
    hits = search.page.evaluate(FIRST_HITS, [row["query"] for row in rows])
    for row, hit in zip(rows, hits, strict=True):
        first = hit.removeprefix(search.visit.address)
        wanted = f"{language}/{row['page']}/"
        if first != f"{wanted}#{row['section']}" if row["section"] else first.partition("#")[0] != wanted:
            missed.append((row["query"], first))
    assert missed == []
    assert search.visit.problems == []


@LANGUAGES
def test_first_hits_answer_nearly_all_questions(tab, language):
    search = Search(tab, language)
    rows = [row for row in QUESTIONS if row["language"] == language]
    search.find(rows[0]["query"])
    hits = search.page.evaluate(FIRST_HITS, [row["query"] for row in rows])
    missed = [
        (row["query"], hit.removeprefix(search.visit.address))
        for row, hit in zip(rows, hits, strict=True)
        if f"/{language}/{row['page']}/" not in hit
    ]
    assert len(rows) >= 200
    assert len(missed) <= 0.05 * len(rows), missed


@LANGUAGES
def test_results_are_only_in_the_readers_language(tab, language):
    search = Search(tab, language)
    for query in "GELU", "function" if language == "en" else "函数":
        search.find(query)
        first = search.page.locator(".search li").first.locator("a").first.inner_text()
        assert bool(re.search(r"[\u4e00-\u9fff]", first)) == (language == "zh"), first
    assert search.find("xyzzy") == []
    assert search.page.locator(".search [role=status]").inner_text() in (
        "No matching documents",
        "没有找到符合条件的结果",
    )
    assert search.find(" ,") == []
    assert search.page.locator(".search [role=status]").inner_text() == ""


def test_stop_words_are_searched_if_there_are_no_others(tab):
    search = Search(tab, "en")
    assert search.find("why")
    assert search.find("what is it")


def test_index_is_fetched_once_when_the_box_first_opens(tab):
    visit = tab()
    visit.open("en/activations/gelu/")
    visit.page.wait_for_timeout(300)
    assert not [url for url in visit.requests if ("search" in url and url.endswith(".json")) or "vendor" in url]
    visit.page.click(".search-open")
    visit.page.wait_for_function(SHOWN, arg="")
    visit.page.keyboard.press("Escape")
    visit.page.click(".search-open")
    visit.page.wait_for_timeout(300)
    fetched = [url.rpartition("/")[2] for url in visit.requests if url.endswith(".json")]
    assert fetched == ["search-pages.json", "search-sections.json", "search-text.json"]


def searched(tab, name: str, missing: str):
    """A tab with the search box open, where `name` is searched, while the file `missing` has not come."""
    visit, held = tab(), []
    visit.page.route(f"**/{missing}.json", lambda route: held.append(route))
    visit.open("en/")
    visit.page.keyboard.press("/")
    visit.page.wait_for_function("name => document.querySelector('.search').dataset.searched === name", arg=name)
    visit.continue_ = lambda: held.pop().continue_()
    return visit


@pytest.fixture
def half(tab):
    return searched(tab, "titles", "search-text")


def test_pages_are_searched_first_then_titles_then_everything(tab):
    visit = tab()
    visit.open("en/")
    visit.page.evaluate(STAGES, "gelu")
    visit.page.click(".search-open")
    visit.page.wait_for_function(SHOWN, arg="gelu")
    (pages, first), (titles, _), (everything, _) = visit.page.evaluate("stages")
    assert (pages, titles, everything) == ("pages", "titles", "everything")
    assert first.endswith("/activations/gelu/")


def test_pages_are_found_before_the_other_titles_have_come(tab):
    visit = searched(tab, "pages", "search-sections")
    visit.page.fill(".search input", "gelu")
    assert visit.page.locator(".search li a").first.get_attribute("href").endswith("/activations/gelu/")
    visit.continue_()
    visit.page.wait_for_function(SHOWN, arg="gelu")


def test_titles_are_found_before_the_text_has_come(half):
    half.page.fill(".search input", "left tail")
    assert half.page.locator(".search li a").first.get_attribute("href").endswith("/activations/gelu/#left-tail")
    assert half.page.locator(".search [role=status]").inner_text() == "Found in titles; the text is loading."
    half.page.fill(".search input", "gelu_tanh")  # a name that the code defines
    assert "/activations/gelu/" in half.page.locator(".search li a").first.get_attribute("href")
    half.continue_()
    half.page.wait_for_function(SHOWN, arg="gelu_tanh")
    assert half.page.locator(".search [role=status]").inner_text() == "1 matching document"


def test_focused_result_stays_when_the_text_comes(half):
    half.page.fill(".search input", "left tail")
    half.page.keyboard.press("ArrowDown")
    half.continue_()
    half.page.wait_for_function("() => document.querySelector('.search').dataset.searched === 'everything'")
    assert half.page.evaluate("() => document.activeElement.href").endswith("#left-tail")


def test_page_comes_first_for_its_name(tab):
    search = Search(tab, "en")
    for query, wanted in {"gelu": "gelu", "swish": "swish", "ＧＥＬＵ": "gelu"}.items():
        assert search.find(query)[0] == f"en/activations/{wanted}/", query
    assert search.find("torch.nn.SiLU")[0].startswith("en/activations/swish/")


def test_names_of_object_properties_are_found_as_words(tab):
    visit = tab()
    entry = {"id": "a/b/", "title": "The constructor", "page": "The constructor", "place": 0, "defined": ""}
    entry["keywords"] = []
    visit.page.route("**/search-pages.json", lambda route: route.fulfill(json=[entry]))
    visit.page.route("**/search-sections.json", lambda route: route.fulfill(json=[]))
    visit.page.route("**/search-text.json", lambda route: route.fulfill(json=[{"text": "x", "code": ""}]))
    visit.open("en/")
    visit.page.keyboard.press("/")
    visit.page.fill(".search input", "constructor")
    assert visit.page.locator(".search li a").first.get_attribute("href").endswith("/a/b/")
    assert visit.problems == []


@pytest.mark.parametrize("name", ["pages", "sections", "text"])
def test_failure_to_load_the_index_is_shown_and_retried(tab, name):
    visit = tab()
    visit.page.route(f"**/search-{name}.json", lambda route: route.abort())
    visit.open("en/")
    visit.page.keyboard.press("/")
    visit.page.get_by_text("could not be loaded").wait_for()
    visit.page.unroute(f"**/search-{name}.json")
    visit.page.fill(".search input", "gelu")
    visit.page.wait_for_function(SHOWN, arg="gelu")
    assert visit.page.locator(".search li a").count()


@pytest.mark.parametrize(("name", "query"), [("pages", "swish"), ("text", "transposed convolution checkerboard")])
def test_enter_waits_for_the_first_result(tab, name, query):
    visit = tab()
    visit.page.route(f"**/search-{name}.json", lambda route: (visit.page.wait_for_timeout(500), route.continue_()))
    visit.open("en/")
    visit.page.keyboard.press("/")
    visit.page.keyboard.type(query)
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_url("**/activations/swish/" if query == "swish" else "**/convolution/upsampling/**")


def test_enter_is_forgotten_when_the_box_closes(tab):
    search = Search(tab, "en")
    assert search.find("xyzzy") == []
    search.page.keyboard.press("Enter")
    search.page.keyboard.press("Escape")
    search.page.wait_for_function("() => !document.querySelector('.search').open")
    search.page.evaluate("document.querySelector('.search input').value = 'gelu'")
    search.page.keyboard.press("/")
    search.page.wait_for_function(SHOWN, arg="gelu")
    assert search.page.locator(".search").is_visible()


def test_keys_in_the_box_trigger_no_shortcuts_of_the_page(tab):
    search = Search(tab, "en")
    search.find("gradient")
    search.page.keyboard.press("ArrowDown")
    search.page.keyboard.press("n")  # the theme's key for the next page
    search.page.keyboard.press("p")
    search.page.wait_for_timeout(300)
    assert search.visit.path() == "en/activations/gelu/"
    assert search.page.locator(".search").is_visible()


def test_selection_may_end_outside_the_box(tab):
    search = Search(tab, "en")
    box = search.page.locator(".search input").bounding_box()
    search.page.mouse.move(box["x"] + 50, box["y"] + 5)
    search.page.mouse.down()
    search.page.mouse.move(5, 300)
    search.page.mouse.up()
    assert search.page.locator(".search").is_visible()
    search.page.mouse.click(5, 300)
    assert not search.page.locator(".search").is_visible()


def test_search_works_with_the_keyboard_alone(tab):
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


@pytest.mark.parametrize(("language", "term"), [("en", "arithmetic intensity"), ("zh", "算术强度")])
def test_terms_of_the_glossary_are_found_after_the_articles_that_use_them(tab, language, term):
    found = Search(tab, language).find(term)
    assert found.index(f"{language}/glossary/#arithmetic-intensity") > 0
    assert any("/attention/flash_attention/" in each for each in found)


def test_matches_are_marked_in_results(tab):
    search = Search(tab, "zh")
    search.find("误差函数")
    assert set(search.page.locator(".search li a").first.locator("mark").all_inner_texts()) == {"误差函数"}


def test_search_fits_a_phone(tab):
    search = Search(tab, "en", width=360)
    search.find("gradient")
    box = search.page.locator(".search").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    assert search.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_search_button_is_hidden_without_javascript(tab):
    visit = tab(java_script_enabled=False)
    visit.open("en/")
    assert not visit.page.locator(".search-open").is_visible()
