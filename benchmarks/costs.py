"""What verification costs, an article and in all: `python benchmarks/costs.py` tells it of the last sessions.

`docs` leaves the seconds of each snippet in .cache/runs; the passes of `tests` and `browser` leave the times of their
tests as build/costs/<session>-<pass>.xml, and each session its wall-clock seconds as build/costs/<session>.json.
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
# Seconds of one core that an article may cost; a kernel, or several processes, may cost more in tests.
BUDGET = {"snippet": 10, "tests": 15, "as read": 20, "browser": 6}
SLOWEST = 15


@dataclass(frozen=True)
class Item:
    """Something that took time: a snippet, or a test; `article` is empty where it is about the builder."""

    name: str
    session: str
    part: str
    article: str
    seconds: float


def main() -> None:
    snippets = {snippet.name.removesuffix(".py"): snippet for snippet in map(_read, snippet_paths(ROOT))}
    items = [*ran(snippets), *tested(snippets)]
    print("\n".join(table(items, snippets)))
    print("\nthe slowest, in seconds")
    for item in sorted(items, key=lambda item: -item.seconds)[:SLOWEST]:
        print(f"{item.seconds:8.1f}  {item.name}")
    print("", *extrapolated(items, len(snippets)), sep="\n")


def _read(path: Path) -> Snippet:
    return read_snippet(path, ROOT)


def ran(snippets: dict[str, Snippet]) -> Iterator[Item]:
    for name, snippet in snippets.items():
        if notebook := load(snippet, ROOT):
            yield Item(snippet.path, "docs", "snippet", name, notebook["metadata"]["zhixing"]["seconds"])


def tested(snippets: dict[str, Snippet]) -> Iterator[Item]:
    for report in sorted(FOLDER.glob("*.xml")):
        session = report.stem.partition("-")[0]
        for case in ET.parse(report).iter("testcase"):
            name = f"{case.get('classname')}::{case.get('name')}"
            as_read = name.startswith(("docs.en.", "tests.lab."))
            part = "browser" if session == "browser" else "as read" if as_read else "tests"
            yield Item(name, session, part, article_of(name, snippets), float(case.get("time")))


def article_of(test: str, snippets: dict[str, Snippet]) -> str:
    """The article that the test's file or parameters name, or the first that builds on the module that they name."""
    file, _, case = test.partition("::")
    named = re.findall(r"(?=\b([a-z_]+/[a-z_]+))", case)  # they overlap in en/activations/gelu
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
    yield f"{'of no article':32}" + "".join(f"{totals['', part]:10.1f}" for part in BUDGET)


def extrapolated(items: list[Item], count: int) -> Iterator[str]:
    """Wall-clock minutes of each session, now and with all articles: what is of articles grows, the rest stays.

    But for `docs`, where the rest is mostly pages, which are not timed one by one.
    """
    whole = 0.0
    for path in sorted(FOLDER.glob("*.json")):
        session, seconds = path.stem, json.loads(path.read_text())["seconds"]
        of_articles = sum(item.seconds for item in items if item.session == session and item.article) / CORES
        rest, growth = max(0.0, seconds - of_articles), ARTICLES / count
        then = of_articles * growth + rest * (growth if session == "docs" else 1)
        whole += then
        yield f"{session:10} {seconds / 60:5.1f} min with {count} articles, {then / 60:5.1f} with {ARTICLES}"
    yield f"together {whole / 60:5.1f} min with {ARTICLES}"


if __name__ == "__main__":
    main()
