"""What the builder writes into pages: facts and evidence on an article; cards, reading paths and numbers elsewhere."""

import html
import platform
import posixpath
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from zhixing_copy.catalogue import FILE
from zhixing_copy.source import Module
from zhixing_site.content.articles import PATHS, Area, Article, leads_to, menu
from zhixing_site.content.expand import SCHEMES, Expander, figure_path, plain
from zhixing_site.content.page import HEADING_ID, MARK, Page
from zhixing_site.execution.runner import Run
from zhixing_site.project import site_url, source_url
from zhixing_site.site.evidence import direct_test_files, files_that_test, functions_in, reference_libraries
from zhixing_site.site.notebooks import lab_link

UNKNOWN = "…"  # the commit, in a preview and where there is none
PACE = {"en": 225, "zh": 400}  # words, or Chinese characters, a minute
READ = {"en": re.compile(r"[^\W\d_][\w'’-]*"), "zh": re.compile(r"[\u3400-\u9fff]")}
# Of the Source, as GitHub lays out a repository.
EDIT, REPORT = "edit/main/{path}", "issues/new?title={title}"

WORDS = {
    "en": {
        "reading": "Reading time",
        "minutes": "{minutes} min: {count:,} words at {pace} a minute, without code and formulas",
        "papers": "Papers",
        "requires": "Read before",
        "leads": "Leads to",
        "verified": "Built on <time>{day}</time>{commit} with torch {torch} and Python {python}. "
        "The site is published only if all tests pass.",
        "commit": " at commit <code>{commit}</code>",
        "tests": "{count} test functions check the code of this page",
        "cite": "How to cite this page",
        "edit": "Edit this page",
        "report": "Report an error",
        "and": " and ",
        "comma": ", ",
        "author": "The Zhixing authors",
    },
    "zh": {
        "reading": "阅读时间",
        "minutes": "{minutes} 分钟：{count:,} 字，每分钟 {pace} 字，代码与公式不计",
        "papers": "论文",
        "requires": "先读",
        "leads": "接着读",
        "verified": "本页构建于 <time>{day}</time>{commit}，使用 torch {torch} 与 Python {python}。"
        "测试全部通过，网站才会发布。",
        "commit": "（提交 <code>{commit}</code>）",
        "tests": "检验本页代码的 {count} 个测试函数",
        "cite": "如何引用本页",
        "edit": "编辑本页",
        "report": "报告错误",
        "and": " 与 ",
        "comma": "、",
        "author": "知行 Zhixing 作者",
    },
}
CARD = """\
<li>{area}<div class="card">
{pictures}<{level} class="card-title"><a href="{address}">{title}</a></{level}>
<p>{summary}</p>
</div></li>"""
PICTURE = '<img class="only-{scheme}" src="{path}" alt="{alt}" width="{width}" height="{height}" loading="lazy">'
EVIDENCE = """

<div class="evidence" markdown="1">

<p>{verified}</p>
{lab}
{tests}
<details class="cite" markdown="1">
<summary>{cite}</summary>

```text
{bibtex}
```

</details>

<p><a href="{edit_address}">{edit}</a> · <a href="{report_address}">{report}</a></p>

</div>
"""
TESTS = """\
<details class="tests"><summary>{summary}</summary><div lang="en">
{files}
</div></details>
"""
BIBTEX = """\
@misc{{zhixing-{key},
  title  = {{{title}}},
  author = {{{{{author}}}}},
  year   = {{{year}}},
  url    = {{{url}}},
  note   = {{知行 Zhixing, {day}{commit}}}
}}"""

read_version = cache(version)  # of a package, which takes a millisecond


@dataclass(frozen=True)
class Parts:
    """All that the parts are made of. `commit` is empty in a preview."""

    areas: list[Area]
    runs: Mapping[str, Run]
    modules: Mapping[str, Module]
    root: Path
    commit: str = ""

    @cached_property
    def articles(self) -> dict[str, Article]:
        return {article.name: article for area in self.areas for article in area.articles}

    @cached_property
    def notebooks(self) -> dict[str, dict]:
        return {name: run.notebook for name, run in self.runs.items()}

    # On an article

    def around(self, page: Page, text: str) -> str:
        """An article's expanded text, with its facts below the title and what speaks for it at the end."""
        if page.name not in self.articles:
            return text + (lab_link(page) if page.snippet in self.runs else "")
        title = re.search(rf"^# .*{HEADING_ID.pattern}", text, re.MULTILINE)
        return text[: title.end()] + "\n\n" + self.facts(page) + text[title.end() :] + self.evidence(page)

    def facts(self, page: Page) -> str:
        article, words = self.articles[page.name], WORDS[page.language]
        required = [self.articles[name] for name in article.requires if name in self.articles]
        count, pace = reading(page), PACE[page.language]
        facts = {
            "reading": [words["minutes"].format(minutes=max(1, round(count / pace)), count=count, pace=pace)],
            "papers": [_paper(paper, page) for paper in article.english.meta.get("papers", [])],
            "requires": [" · ".join(self._link(each, page) for each in required)],
            "leads": [" · ".join(self._link(each, page) for each in leads_to(article, self.areas))],
        }
        rows = ["".join(f"<dd>{text}</dd>" for text in texts if text) for texts in facts.values()]
        items = [f"<div><dt>{words[key]}</dt>{row}</div>" for key, row in zip(facts, rows, strict=True) if row]
        return "\n".join(['<dl class="facts">', *items, "</dl>"])

    def evidence(self, page: Page) -> str:
        words, source = WORDS[page.language], source_url()
        return EVIDENCE.format_map(
            {
                **words,
                "verified": self._verified(words),
                "lab": lab_link(page) if page.snippet in self.runs else "",
                "tests": self._tests(page),
                "bibtex": self._bibtex(page),
                "edit_address": source + EDIT.format(path=page.path),
                "report_address": source + REPORT.format(title=quote(f"{page.name}: ")),
            }
        )

    def _verified(self, words: Mapping[str, str]) -> str:
        commit = words["commit"].format(commit=self.commit) if self.commit else ""
        versions = {"torch": read_version("torch"), "python": platform.python_version()}
        return words["verified"].format(day=today(), commit=commit, **versions)

    def _tests(self, page: Page) -> str:
        """The test functions that check the article's modules, by their files."""
        modules = self.modules_of(page)
        # What only a helper's other users test says little of this page, unless there is nothing else.
        files = set().union(*(direct_test_files(module, self.root) for module in modules))
        files = files or {path for module in modules for path in self.tests_of(module)}
        functions = {path: functions_in(path) for path in sorted(files)}
        if not any(functions.values()):
            return ""
        source = source_url()
        listed = []
        for path, names in functions.items():
            name = path.relative_to(self.root).as_posix()
            items = "".join(f"<li>{_breakable(each)}</li>" for each in names)
            listed.append(f'<p><a href="{source}{FILE.format(path=name)}">{name}</a></p><ul>{items}</ul>')
        summary = WORDS[page.language]["tests"].format(count=f"{sum(map(len, functions.values())):,}")
        return TESTS.format(summary=summary, files="\n".join(listed))

    def modules_of(self, page: Page) -> list[str]:
        """The modules that the page shows something of, or that its snippet imports."""
        paths = {use.path for use in page.uses}
        shown = {path.removeprefix("src/zhixing/").removesuffix(".py") for path in paths if path.startswith("src/")}
        run = self.runs.get(page.snippet)
        imported = run.snippet.sources if run else set()
        return [name for name in self.modules if name in shown | imported]

    def tests_of(self, module: str) -> list[Path]:
        return files_that_test(module, self.modules, self.root)

    def _bibtex(self, page: Page) -> str:
        return BIBTEX.format(
            key=page.name.replace("/", "-"),
            title=re.sub(r"([&%$#_{}])", r"\\\1", page.title),
            author=WORDS[page.language]["author"],
            year=self.articles[page.name].date.year,
            url=f"{site_url()}{page.language}/{page.name}/",
            day=today(),
            commit=f", {self.commit}" if self.commit else "",
        )

    def _link(self, article: Article, page: Page) -> str:
        other = article.pages[page.language]
        return f'<a href="{address(page, other)}">{html.escape(menu(other))}</a>'

    # On other pages

    def of(self, page: Page) -> dict[str, str]:
        """The texts of the page's marks `--8<-- "part"`."""
        area = next((area for area in self.areas if page.name == f"{area.name}/index"), None)
        if area:
            return {"articles": _cards(self._card(article, page, "h2") for article in area.articles)}
        if page.name == "index":
            cards = (card for area in self.areas for card in self._area(area, page))
            return {"articles": _cards(cards), **{f"start/{path}": self._path(path, page) for path in PATHS}}
        return {}

    def notebooks_for(self, page: Page) -> dict[str, dict]:
        """{snippet's name: executed notebook} for the marks of the page."""
        return self.notebooks | self._numbers(page)

    def _numbers(self, page: Page) -> dict[str, dict]:
        """The values that the home page can quote, as a notebook that ends in them."""
        if page.name != "index":
            return {}
        words = WORDS[page.language]
        files = {path for module in self.modules for path in self.tests_of(module)}
        libraries = sorted(set().union(*map(reference_libraries, files)))
        *most, last = libraries or [""]
        values = {
            "articles": len(self.articles),
            "tests": f"{sum(len(functions_in(path)) for path in files):,}",
            "references": words["and"].join(filter(None, [words["comma"].join(most), last])),
            "commit": self.commit or UNKNOWN,
            "day": today(),
        }
        return {page.snippet: {"cells": [], "metadata": {"zhixing": {"values": values}}}}

    def _area(self, area: Area, page: Page) -> Iterator[str]:
        """The cards of an area, whose name stands above the first."""
        introduction = area.pages[page.language]
        name = f'<a href="{address(page, introduction)}">{html.escape(menu(introduction))}</a>'
        for number, article in enumerate(area.articles):
            yield self._card(article, page, "h4", "" if number else f'<h3 class="area">{name}</h3>')

    def _card(self, article: Article, page: Page, level: str, area: str = "") -> str:
        other = article.pages[page.language]
        return CARD.format(
            area=area,
            pictures="".join(self._pictures(article, page)),
            level=level,
            address=address(page, other),
            title=html.escape(other.title),
            summary=html.escape(other.meta["summary"]),
        )

    def _pictures(self, article: Article, page: Page) -> Iterator[str]:
        """The article's cover in both colour schemes, described by its caption."""
        cover, other = article.english.meta.get("cover"), article.pages[page.language]
        if not cover:
            return
        expander = Expander(other, self.notebooks, self.root)
        mark = next(each for each in MARK.finditer(other.text) if each["figure"] == f"{other.snippet}:{cover}")
        alt = plain(expander.caption(mark, other.line(mark))).replace('"', "&quot;")
        for scheme in SCHEMES:
            width, height = expander.size(other.snippet, cover, scheme)
            path = posixpath.relpath(figure_path(other.snippet, cover, scheme), _folder(page) or ".")
            yield PICTURE.format(scheme=scheme, path=path, alt=alt, width=width, height=height)

    def _path(self, path: str, page: Page) -> str:
        """The articles that have a place in this path, in its order."""
        places = {each.name: each.english.meta.get("start", {}).get(path) for each in self.articles.values()}
        names = sorted((name for name in places if places[name] is not None), key=places.get)
        items = [f"<li>{self._link(self.articles[name], page)}</li>" for name in names]
        return "\n".join(['<ol class="reading-path">', *items, "</ol>"]) if items else ""


def _breakable(name: str) -> str:
    return html.escape(name).replace("_", "_<wbr>")


def _cards(cards: Iterable[str]) -> str:
    return "\n".join(['<ul class="cards">', *cards, "</ul>"]) if (cards := [*cards]) else ""


def reading(page: Page) -> int:
    """How many words, or Chinese characters, there are to read: without code, formulas, addresses and the API."""

    def prose(mark: re.Match) -> str:
        if mark["figure"]:
            return MARK.sub(prose, mark["caption"])
        return HEADING_ID.sub("", mark["heading"]) if mark["heading"] else " "

    text = re.sub(r"^:::.*$", "", MARK.sub(prose, page.text), flags=re.MULTILINE)
    return len(READ[page.language].findall(re.sub(r"<[^>]*>", "", text)))


def address(page: Page, other: Page) -> str:
    """The relative address of another page of the same language."""
    return posixpath.relpath(_folder(other) or ".", _folder(page) or ".") + "/"


def _folder(page: Page) -> str:
    return page.name.removesuffix("index").strip("/")


def _paper(paper: str | dict, page: Page) -> str:
    """A link, which for an arXiv number says what the article's last link there does."""
    if isinstance(paper, dict):
        title, url = paper["title"], paper["url"]
    else:
        url = f"https://arxiv.org/abs/{paper}"
        links = re.findall(rf"\[([^\[\]]+)\]\({re.escape(url)}\)", page.text)
        title = re.sub(r"[*`]", "", links[-1]) if links else f"arXiv:{paper}"
    return f'<a href="{html.escape(url)}">{html.escape(title)}</a>'


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def read_commit(root: Path) -> str:
    """The commit, with `-dirty` where files differ from it; nothing where there is none."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
