"""Print the time that builds and tests take, per article and in total: `python benchmarks/costs.py`.

The input comes from the last sessions of nox. `docs` stores the seconds of each snippet in .cache/runs. The passes of
`tests` and `browser` store the times of their tests in build/costs/<session>-<pass>.xml. Each session stores its
wall-clock seconds in build/costs/<session>.json.
"""

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zhixing_site.execution.cache import load
from zhixing_site.execution.snippet import Snippet, read_snippet, snippet_paths

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build/costs"
ARTICLES, CORES = 48, 2
# Seconds of one core for an article; a kernel, or several processes, may cost more in tests.
BUDGET = {"snippet": 10, "tests": 15, "as read": 20, "browser": 6}
SLOWEST = 15


@dataclass(frozen=True)
class Item:
    """A timed snippet or test; `article` is empty if it tests the builder."""

    name: str
    session: str
    part: str
    article: str
    seconds: float


def main() -> None:
    snippets = {snippet.name.removesuffix(".py"): snippet for snippet in map(_read, snippet_paths(ROOT))}
    items = [*snippet_items(snippets), *test_items(snippets)]
    print("\n".join(table(items, snippets)))
    print("\nthe slowest, in seconds")
    for item in sorted(items, key=lambda item: -item.seconds)[:SLOWEST]:
        print(f"{item.seconds:8.1f}  {item.name}")
    print("", *extrapolate(items, len(snippets)), sep="\n")


def _read(path: Path) -> Snippet:
    return read_snippet(path, ROOT)


def snippet_items(snippets: dict[str, Snippet]) -> Iterator[Item]:
    for name, snippet in snippets.items():
        if notebook := load(snippet, ROOT):
            yield Item(snippet.path, "docs", "snippet", name, notebook["metadata"]["zhixing"]["seconds"])


def test_items(snippets: dict[str, Snippet]) -> Iterator[Item]:
    for report in sorted(FOLDER.glob("*.xml")):
        session = report.stem.partition("-")[0]
        for case in ET.parse(report).iter("testcase"):
            name = f"{case.get('classname')}::{case.get('name')}"
            as_read = name.startswith(("docs.en.", "tests.lab."))
            part = "browser" if session == "browser" else "as read" if as_read else "tests"
            yield Item(name, session, part, article_of(name, snippets), float(case.get("time")))


def article_of(test: str, snippets: dict[str, Snippet]) -> str:
    """Return the article named by the test's file or parameters, or the first that uses the module they name."""
    file, _, case = test.partition("::")
    named = re.findall(r"(?=\b([a-z_]+/[a-z_]+))", case)  # matches may overlap, as in en/activations/gelu
    named += ["/".join(file.removesuffix(".md").split(".")[-2:]).replace("/test_", "/")]
    for name in named:
        exact = [article for article in snippets if name == article]
        begun = [article for article in snippets if name.startswith(f"{article}_")]
        used = [article for article, snippet in snippets.items() if name in snippet.sources]
        if found := exact or begun or used:
            return found[0]
    return ""


def table(items: list[Item], snippets: dict[str, Snippet]) -> Iterator[str]:
    yield f"{'seconds':32}" + "".join(f"{part:>10}" for part in BUDGET)
    totals = Counter()
    for item in items:
        totals[item.article, item.part] += item.seconds
    for article in snippets:
        yield f"{article:32}" + "".join(f"{totals[article, part]:10.1f}" for part in BUDGET)
    mean = {part: sum(totals[article, part] for article in snippets) / len(snippets) for part in BUDGET}
    yield f"{'mean':32}" + "".join(f"{mean[part]:10.1f}" for part in BUDGET)
    yield f"{'budget':32}" + "".join(f"{BUDGET[part]:10.1f}" for part in BUDGET)
    yield f"{'no article':32}" + "".join(f"{totals['', part]:10.1f}" for part in BUDGET)


def extrapolate(items: list[Item], count: int) -> Iterator[str]:
    """Yield wall-clock minutes of each session, now and with all articles: the part of articles grows in proportion.

    The rest is constant, except for `docs`, where it is mostly pages, which are not timed one by one.
    """
    whole = 0.0
    for path in sorted(FOLDER.glob("*.json")):
        session, seconds = path.stem, json.loads(path.read_text())["seconds"]
        of_articles = sum(item.seconds for item in items if item.session == session and item.article) / CORES
        rest, growth = max(0.0, seconds - of_articles), ARTICLES / count
        then = of_articles * growth + rest * (growth if session == "docs" else 1)
        whole += then
        yield f"{session:10} {seconds / 60:5.1f} min with {count} articles, {then / 60:5.1f} with {ARTICLES}"
    yield f"total {whole / 60:5.1f} min with {ARTICLES}"


if __name__ == "__main__":
    main()
