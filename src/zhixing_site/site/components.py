"""The HTML that the builder adds to pages: facts and evidence to articles; cards, reading paths, numbers to others."""

import csv
import io
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from zhixing_copy.source import Module
from zhixing_site.content.articles import PATHS, Area, Article, leads_to, menu
from zhixing_site.content.expand import Expander, plain_text
from zhixing_site.content.page import HEADING_ID, MARK, Page
from zhixing_site.errors import BuildError
from zhixing_site.execution.runner import Run
from zhixing_site.files import read_text
from zhixing_site.project import site_url, source_url
from zhixing_site.site.copies import offered
from zhixing_site.site.evidence import (
    files_that_test,
    functions_in,
    mutants,
    recordings,
    reference_libraries,
    tests_of,
    versions,
)
from zhixing_site.site.notebooks import notebook_link
from zhixing_site.site.postprocess import COMMIT, DAY
from zhixing_site.templates import WORDS, render

PACE = {"en": 225, "zh": 400}  # words, or Chinese characters, a minute
SECONDS = 5  # for a line of code or a formula
READ = {"en": re.compile(r"[^\W\d_][\w'’-]*"), "zh": re.compile(r"[\u3400-\u9fff]")}
PYTHON = re.compile(r"^(?P<fence> *`{3,})python.*?\n(?P<lines>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
RECORDED = "torch", "triton", "chromium", "lighthouse", "cosmic-ray"  # versions in recordings
ABOUT = {"index", "verification"}  # pages about the site
GLOSSARY = "docs/glossary.csv"
COLUMNS = ["term", "术语", "definition", "定义", "page"]
ROW, NOTE, INDENT = 30, 18, 46  # of the map, in pixels: heights of an article and of a line below it; left of both


@dataclass(frozen=True)
class Components:
    """Renders the components of each page. The commit is named only if there is one: `has_commit`."""

    areas: list[Area]
    runs: Mapping[str, Run]
    modules: Mapping[str, Module]
    root: Path
    has_commit: bool = False

    @cached_property
    def articles(self) -> dict[str, Article]:
        return {article.name: article for area in self.areas for article in area.articles}

    @cached_property
    def notebooks(self) -> dict[str, dict]:
        return {name: run.notebook for name, run in self.runs.items()}

    @cached_property
    def offers(self) -> dict[str, tuple[str, str]]:
        return offered(self.modules)

    # On an article

    def with_facts_and_evidence(self, page: Page, text: str) -> str:
        """An article's expanded text with its facts below the title and its evidence at the end."""
        lab = notebook_link(page) if page.snippet in self.runs else ""
        if page.name not in self.articles:
            return text + lab
        title = re.search(rf"^# .*{HEADING_ID.pattern}", text, re.MULTILINE).end()
        return f"{text[:title]}\n\n{self.facts(page, text)}{text[title:]}\n\n{self.evidence(page, lab)}"

    def facts(self, page: Page, text: str) -> str:
        """Reading time, papers, and the articles to read before and after; from the page and its expanded text."""
        article, count, pace = self.articles[page.name], count_words(page), PACE[page.language]
        lines = sum(code["lines"].count("\n") for code in PYTHON.finditer(text))
        formulas = sum(mark.lastgroup in ("block", "inline") for mark in page.marks)
        time = {"count": count, "pace": pace, "lines": lines, "formulas": formulas, "seconds": SECONDS}
        return render(
            "facts.html",
            words=WORDS[page.language],
            time={"minutes": max(1, round(count / pace + (lines + formulas) * SECONDS / 60)), **time},
            papers=[_paper(paper, page) for paper in article.english.meta.get("papers", [])],
            requires=self._links((self.articles[name] for name in article.requires if name in self.articles), page),
            leads=self._links(leads_to(article, self.areas), page),
        )

    def evidence(self, page: Page, lab: str) -> str:
        """Versions, tests, and how to cite, correct and run the page."""
        return render(
            "evidence.html",
            words=WORDS[page.language],
            page=page,
            lab=lab,
            tests=tests_of(self._modules_of(page), self.modules, self.root),
            day=DAY,
            commit=COMMIT if self.has_commit else "",
            versions=versions(),
            source=source_url(),
            url=f"{site_url()}{page.language}/{page.name}/",
            title=re.sub(r"([&%$#_{}])", r"\\\1", page.title),
            year=self.articles[page.name].date.year,
        )

    def _modules_of(self, page: Page) -> list[str]:
        """The modules from which the page shows code, or that its snippet imports."""
        shown = {use.path for use in page.uses}
        run = self.runs.get(page.snippet)
        imported = run.snippet.sources if run else set()
        return [name for name in self.modules if name in imported or f"src/zhixing/{name}.py" in shown]

    # On other pages

    def parts_of(self, page: Page) -> dict[str, str]:
        """{name: HTML} for the page's marks `--8<-- "name"`."""
        for area in self.areas:
            if page.name == f"{area.name}/index":
                return {"articles": self._cards([("", area)], page, "h2")}
        if page.name == "index":
            groups = [(_link(area.pages[page.language], page), area) for area in self.areas]
            paths = {f"start/{path}": self._reading_path(path, page) for path in PATHS}
            return {"articles": self._cards(groups, page, "h4"), "map": self._map(page), **paths}
        if page.name == "verification":
            return {"areas": self._verified_areas(page), "recordings": self._recordings(page)}
        return {"glossary": self._glossary(page)} if page.name == "glossary" else {}

    def notebooks_for(self, page: Page) -> dict[str, dict]:
        """{snippet: executed notebook} for the marks of the page; pages about the site have values of their own."""
        if page.name not in ABOUT:
            return self.notebooks
        *most, last = self._values["references"] or [""]
        words = WORDS[page.language]
        references = words["and"].join(filter(None, [words["comma"].join(most), last]))
        values = self._values | {"references": references}
        return self.notebooks | {page.snippet: {"cells": [], "metadata": {"zhixing": {"values": values}}}}

    @cached_property
    def _values(self) -> dict[str, object]:
        files = self._test_files(self.modules)
        found = mutants(self.modules, self.modules, self.root)
        return {
            "articles": len(self.articles),
            "tests": f"{sum(len(functions_in(path)) for path in files):,}",
            "references": sorted(set().union(*map(reference_libraries, files)), key=str.lower),
            "modules": len(self.modules),
            "assessed": found["assessed"],
            "mutants": f"{found['tried']:,}",
            "noticed": f"{found['noticed']:,}",
            "commit": COMMIT if self.has_commit else "…",
            "day": DAY,
            **versions(),
        }

    def _test_files(self, names: Iterable[str]) -> set[Path]:
        return {path for name in names for path in files_that_test(name, self.modules, self.root)}

    def _verified_areas(self, page: Page) -> str:
        """A table: the test functions and mutants of each area."""
        rows = []
        for area in self.areas:
            names = [name for name in self.modules if name.startswith(f"{area.name}/")]
            tests = [len(functions_in(path)) for path in self._test_files(names) if path.parent.name == area.name]
            found = {"tests": sum(tests), "modules": len(names), **mutants(names, self.modules, self.root)}
            rows.append(_link(area.pages[page.language], page) | found)
        return render("verified_areas.html", rows=rows, words=WORDS[page.language])

    def _recordings(self, page: Page) -> str:
        """A table: what each benchmark last ran on, as far as it says so."""
        words, rows = WORDS[page.language], []
        for name, found in recordings(self.root).items():
            facts = found.get("machine", found)
            tools = [f"{tool} {facts[tool]}" for tool in RECORDED if tool in facts]
            made_with = words["comma"].join([*filter(None, [facts.get("processor")]), *tools])
            rows.append([name, words["recordings"].get(name, name), facts.get("date"), made_with])
        return render("recordings.html", rows=rows, words=words, source=source_url())

    def _cards(self, groups: Iterable[tuple[object, Area]], page: Page, level: str) -> str:
        """Cards of the areas' articles, each area's below the link that comes with it."""
        groups = [(link, [self._card(article, page) for article in area.articles]) for link, area in groups]
        return render("cards.html", groups=groups, level=level) if any(cards for _, cards in groups) else ""

    def _card(self, article: Article, page: Page) -> dict[str, object]:
        other, cover = article.pages[page.language], article.english.meta.get("cover")
        card = _link(other, page) | {"title": other.title, "summary": other.meta["summary"], "pictures": []}
        if cover and other.snippet in self.notebooks:  # in both colour schemes, described by its caption
            expander = Expander(other, self.notebooks, self.root)
            mark = next(each for each in other.marks if each["figure"] == f"{other.snippet}:{cover}")
            card["alt"] = plain_text(expander.caption(mark))
            try:
                card["pictures"] = expander.images(other.snippet, cover, _folder(page))
            except ValueError as error:
                raise BuildError(str(error), other.path, other.line(mark)) from error
        return card

    def _reading_path(self, path: str, page: Page) -> str:
        """The articles that have a place in this path, in its order."""
        places = {name: each.english.meta.get("start", {}).get(path) for name, each in self.articles.items()}
        names = sorted((name for name in places if places[name] is not None), key=places.get)
        links = self._links((self.articles[name] for name in names), page)
        return render("reading_path.html", links=links) if links else ""

    def _map(self, page: Page) -> str:
        """A drawing for each area: its articles in reading order, and arcs from those that they require."""
        areas = [_link(area.pages[page.language], page) | self._rows(area, page) for area in self.areas]
        return render("map.html", areas=areas, indent=INDENT, words=WORDS[page.language])

    def _rows(self, area: Area, page: Page) -> dict[str, object]:
        """The rows of an area's drawing, and its height. What is required of other areas is named below an article."""
        rows, places, y = [], {}, 0
        for article in area.articles:
            required = [self.articles[name] for name in article.requires if name in self.articles]
            row = _link(article.pages[page.language], page) | {"y": y + ROW / 2}
            row["arcs"] = [places[other.name] for other in required if other.name in places]
            row["others"] = self._links((other for other in required if other not in area.articles), page)
            rows.append(row)
            places[article.name] = row["y"]
            y += ROW + NOTE * bool(row["others"])
        return {"rows": rows, "height": y}

    def _glossary(self, page: Page) -> str:
        """A section for each term: its names, its definition, and a link to where it is explained."""
        terms, expander = [], Expander(page, {}, self.root)
        for number, row in read_glossary(self.root):
            name, anchor, section = row["page"].partition("#")
            if name and name not in self.articles:
                raise BuildError(f"{row['term']}: there is no article {name}", GLOSSARY, number)
            link = f"[{menu(self.articles[name].pages[page.language])}]({name}.md{anchor}{section})" if name else ""
            definition = row["definition" if page.language == "en" else "定义"]
            if re.search(r"<[/!A-Za-z]", MARK.sub("", definition)):
                raise BuildError(f"{row['term']}: a definition must not contain HTML", GLOSSARY, number)
            try:
                text = expander.expanded(definition, 1)
            except BuildError as error:
                raise BuildError(f"{row['term']}: {error.cause}", GLOSSARY, number) from error
            names = {"term": row["term"], "chinese": row["术语"].partition("、")[0]}  # the rest are alternatives
            terms.append({"id": term_id(row["term"]), "text": text, "link": link, **names})
        return render("glossary.md", terms=terms, language=page.language, words=WORDS[page.language])

    def _links(self, articles: Iterable[Article], page: Page) -> list[dict[str, str]]:
        return [_link(article.pages[page.language], page) for article in articles]


def read_glossary(root: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of the glossary, each with its line; raises BuildError."""
    reader = csv.DictReader(io.StringIO(read_text(root / GLOSSARY, root)), strict=True)
    rows = []
    try:
        if reader.fieldnames != COLUMNS:
            raise BuildError(f"the first line must be {','.join(COLUMNS)}", GLOSSARY, 1)
        for row in reader:
            if None in row or None in row.values() or "\n" in "".join(row.values()) or not all([*row.values()][:-1]):
                cause = "a row has five cells in one line, of which only the last, the page, may be empty"
                raise BuildError(cause, GLOSSARY, reader.line_num)
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise BuildError(str(error), GLOSSARY, reader.reader.line_num) from error
    return rows


def count_words(page: Page) -> int:
    """The words, or Chinese characters, of the page's prose: without code, formulas, addresses and the API."""

    def prose(mark: re.Match) -> str:
        if mark["figure"]:
            return MARK.sub(prose, mark["caption"])
        return HEADING_ID.sub("", mark["heading"]) if mark["heading"] else " "

    text = re.sub(r"^:::.*$", "", page.sub(prose), flags=re.MULTILINE)
    return len(READ[page.language].findall(re.sub(r"<[^>]*>", "", text)))


def term_id(term: str) -> str:
    """The anchor of a term in the glossary: head-dimension."""
    return re.sub(r"[^a-z0-9]+", "-", term.lower()).strip("-")


def _link(other: Page, page: Page) -> dict[str, str]:
    """A relative link from the page to another of the same language."""
    return {"address": posixpath.relpath(_folder(other), _folder(page)) + "/", "title": menu(other)}


def _folder(page: Page) -> str:
    return page.name.removesuffix("index").strip("/") or "."


def _paper(paper: str | dict, page: Page) -> dict[str, str]:
    """A link to a paper; that to an arXiv number has the text of the page's last link there."""
    if isinstance(paper, dict):
        return {"address": paper["url"], "title": paper["title"]}
    url = f"https://arxiv.org/abs/{paper}"
    texts = re.findall(rf"\[([^\[\]]+)\]\({re.escape(url)}\)", page.text)
    return {"address": url, "title": re.sub(r"[*`]", "", texts[-1]) if texts else f"arXiv:{paper}"}
