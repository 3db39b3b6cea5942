"""Measure time and memory of builds: compare with mkdocs-jupyter and plain MkDocs, and find the overhead of a snippet.

    pip install -c constraints.txt -e '.[dev]'
    python benchmarks/build.py [notebooks] [overhead] [unchanged] [growth] [--articles 250 500 1000] [--repeat 3]

Both sides of a comparison alternate, in one run on one machine. Print medians; assert nothing.
"""

import argparse
import math
import shutil
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import projects
import psutil
from measure import Cost, Row, Table, measure, running

RESULTS = Path(__file__).parent / "results"
BUILD = [sys.executable, "-m", "zhixing_site", "build"]
MKDOCS = [sys.executable, "-m", "mkdocs"]
RUN = [sys.executable, "-m", "zhixing_site", "run"]
PATIENCE = 120  # seconds to wait for a served page
TICK = 0.05  # seconds between two requests of a served page
NOTEBOOKS, SNIPPETS, ARTICLES = 20, 40, 48
CHANGED = 7  # the notebook in which a line changes


def forget(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def times(ours: list[float], other: list[float]) -> float:
    return statistics.median(other) / statistics.median(ours)


# Comparison with mkdocs-jupyter


def notebooks(root: Path, options: argparse.Namespace, table: Table) -> None:
    """Build the same notebooks in two languages: without a cache, then with one changed line in one notebook."""
    projects.write_notebooks(root, NOTEBOOKS)
    configs = [["--config-file", f"jupyter.{language}.yml"] for language in projects.CONFIGS]
    builds = [[*MKDOCS, "build", "--quiet", *config] for config in configs]
    table.title(
        f"{NOTEBOOKS} notebooks that import torch and matplotlib and draw a figure, for two languages, compared "
        f"with mkdocs-jupyter {version('mkdocs-jupyter')} with `execute` and `cache`; its two builds run in parallel, "
        "with the same theme, plugins and pages, and each execute the notebooks. Ours executes them once, draws each "
        "figure four times (languages, colour schemes), and checks translations, formulas and links."
    )
    cold, changed = ([], []), ([], [])
    for attempt in range(options.repeat):
        forget(root / ".cache", root / "site")
        cold[0].append(measure(BUILD, root=root).seconds)
        cold[1].append(measure(*builds, root=root).seconds)
        projects.write_notebook(root, CHANGED, f"8.{attempt:03}1")
        changed[0].append(measure(BUILD, root=root).seconds)
        changed[1].append(measure(*builds, root=root).seconds)
    add_times(table, "build, nothing cached", cold, "10 times")
    add_times(table, "build, one line changed", changed, "2 times")
    port, *others = free_ports(3)
    ours = [[sys.executable, "-m", "zhixing_site", "serve", "--port", str(port)]]
    peers = [
        [*MKDOCS, "serve", *config, "--dev-addr", f"127.0.0.1:{other}"]
        for config, other in zip(configs, others, strict=True)
    ]
    saved = (
        time_saves(ours, [f"{port}/en", f"{port}/zh"], root, options.repeat),
        time_saves(peers, [f"{other}" for other in others], root, options.repeat),
    )
    add_times(table, "serve, from saving one line to seeing it", saved, "5 times")


def add_times(table: Table, what: str, sides: tuple[list[float], list[float]], wanted: str) -> None:
    table.add(Row(what, *sides, "s", f"{times(*sides):.1f} times", wanted))


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def time_saves(commands: list[list[str]], places: list[str], root: Path, repeat: int) -> list[float]:
    """Return the seconds from saving a changed line until the pages served at these places, one a language, show it."""
    urls = [f"http://127.0.0.1:{place}/small/notebook_{CHANGED}/" for place in places]
    seconds = []
    with running(*commands, root=root) as processes:
        await_text("Notebook", urls[0], processes), await_text("笔记本", urls[1], processes)
        for attempt in range(repeat):
            time.sleep(1)  # let the servers become idle
            number = f"8.5{attempt:02}{len(commands)}"
            started = time.perf_counter()
            projects.write_notebook(root, CHANGED, number)
            for url in urls:
                await_text(f">{number}<", url, processes)
            seconds.append(time.perf_counter() - started)
    return seconds


def await_text(text: str, url: str, processes: list[psutil.Popen]) -> None:
    """Wait until the page contains the text, or a server has ended, which `running` reports."""
    end = time.monotonic() + PATIENCE
    while all(process.poll() is None for process in processes):
        if time.monotonic() > end:
            sys.exit(f"{url} does not show {text} within {PATIENCE} s")
        try:
            if text in urllib.request.urlopen(url, timeout=600).read().decode():
                return
        except OSError:
            pass  # not served yet
        time.sleep(TICK)


# The overhead of a snippet


def overhead(root: Path, options: argparse.Namespace, table: Table) -> None:
    """Run many snippets of one trivial cell, and a single one, both without a cache."""
    table.title(
        f"The overhead of a snippet: {SNIPPETS} snippets that do almost nothing, with nothing cached. "
        "`other` is the same command with one snippet, mostly the start of the fork server. Rows without it: "
        f"the difference of the two, for each of {SNIPPETS - 1}."
    )
    for name, source, wish in ("x = 1", "x = 1", "at most 0.15 s"), ("a figure", FIGURE, ""):
        many, one = [], []
        for _ in range(options.repeat):
            for count, samples in (SNIPPETS, many), (1, one):
                projects.write_trivial(root, count, source)
                samples.append(measure(RUN, root=root).seconds)
        whole, start = statistics.median(many), statistics.median(one)
        table.add(Row(f"{name}, with the fork server's start", many, one, "s", f"{whole / SNIPPETS:.3f} s each", wish))
        rest = (whole - start) / (SNIPPETS - 1)
        table.add(Row(f"{name}, without it", many, one, "s", f"{rest:.3f} s each", wish))


FIGURE = "import matplotlib.pyplot as plt\nplt.plot([0, 1])"


# Comparison with plain MkDocs: nothing or little has changed


def unchanged(root: Path, options: argparse.Namespace, table: Table) -> None:
    """Build this repository a second time."""
    projects.write_repository(root)
    measure(BUILD, root=root)
    pages, ours, plain = compare_with_mkdocs(root, options.repeat)
    added = medians(ours)[0] - medians(plain)[0]
    table.title(
        "This repository in two languages, nothing changed, compared with the two plain MkDocs builds of the same "
        "expanded pages, in parallel."
    )
    add_unchanged(table, f"{pages} pages", pages, ours, plain, f"{added:+.2f} s", "at most +1 s")


def growth(root: Path, options: argparse.Namespace, table: Table) -> None:
    """Build increasing numbers of synthetic articles a second time."""
    table.title(
        "Synthetic articles in two languages (each with 9 headings, 9 fences, 65 formulas, 17 values, 8 links to "
        "another page, a figure), nothing changed, compared with the two plain MkDocs builds of the same expanded "
        "pages, in parallel."
    )
    before = ()
    for count in options.articles:
        projects.write_articles(root, count)
        measure(BUILD, root=root)
        pages, ours, plain = compare_with_mkdocs(root, max(1, options.repeat * 250 // (2 * count)))
        ratio = medians(ours)[0] / medians(plain)[0]
        add_unchanged(table, f"{count} articles", pages, ours, plain, f"{ratio:.2f} times", "at most 1.3")
        now = pages, *(medians(costs) for costs in (ours, plain))
        if before:
            add_growth(table, before, now)
        before = now


def incremental(root: Path, options: argparse.Namespace, table: Table) -> None:
    """Rebuild as many synthetic articles as the site will have, after changing nothing, a paragraph, or a snippet."""
    projects.write_articles(root, ARTICLES)
    measure(BUILD, root=root)
    table.title(
        f"{ARTICLES} synthetic articles in two languages, of which nothing changes, a paragraph of one in both "
        "languages, or a line of its snippet. `other` are the two plain MkDocs builds of the same expanded pages, "
        "in parallel, which render all pages."
    )
    _, _, plain = compare_with_mkdocs(root, options.repeat)
    name, seconds = "part_1/article_30", {"nothing": [], "a paragraph": [], "a snippet": []}
    for attempt in range(options.repeat):
        seconds["nothing"].append(measure(BUILD, root=root).seconds)
        for language in projects.CONFIGS:
            path = root / "docs" / language / f"{name}.md"
            path.write_text(f"{path.read_text()}\n{attempt}\n")
        projects.accept(root)
        seconds["a paragraph"].append(measure(BUILD, root=root).seconds)
        path = root / f"snippets/{name}.py"
        path.write_text(f"{path.read_text()}number += 1\n")
        seconds["a snippet"].append(measure(BUILD, root=root).seconds)
    for what, wanted in (
        ("nothing", "at most 3 s"),
        ("a paragraph", "at most 5 s"),
        ("a snippet", "at most 5 s + its run"),
    ):
        result = f"{statistics.median(seconds[what]):.1f} s"
        table.add(Row(f"build, {what} changed", seconds[what], [cost.seconds for cost in plain], "s", result, wanted))


def add_unchanged(
    table: Table, what: str, pages: int, ours: list[Cost], plain: list[Cost], result: str, wanted: str
) -> None:
    both = ours, plain
    table.add(Row(what, *([cost.seconds for cost in costs] for costs in both), "s", result, wanted))
    table.add(Row("  time a page", *([1000 * cost.seconds / pages for cost in costs] for costs in both), "ms"))
    table.add(Row("  peak memory a page", *([cost.bytes / 2**20 / pages for cost in costs] for costs in both), "MB"))
    table.add(Row("  peak memory", *([cost.bytes / 2**20 for cost in costs] for costs in both), "MB"))


def add_growth(table: Table, before: tuple, now: tuple) -> None:
    """Add the exponent of the growth of time and memory with the number of pages: 1 is linear."""
    pages = math.log(now[0] / before[0])
    for index, what in enumerate(("time", "memory")):
        powers = [math.log(late[index] / early[index]) / pages for early, late in zip(before[1:], now[1:], strict=True)]
        what = f"  {what} grows, from {before[0]} pages to {now[0]}, by the power"
        table.add(Row(what, *([power] for power in powers), "", f"{powers[0]:.2f}", "at most 1"))


def medians(costs: list[Cost]) -> tuple[float, float]:
    return statistics.median(cost.seconds for cost in costs), statistics.median(cost.bytes for cost in costs)


def compare_with_mkdocs(root: Path, repeat: int) -> tuple[int, list[Cost], list[Cost]]:
    """Return the number of pages, and the costs of our build and of the two plain ones, with cached snippets."""
    expanded, site = root / ".cache/plain/pages", root / ".cache/plain/site"
    forget(expanded)
    pages = projects.write_sources(root, expanded, projects.CONFIGS)
    plain = []
    for language, config in projects.CONFIGS.items():
        command = ["env", f"ZHIXING_PAGES={expanded / language}", *MKDOCS, "build", "--quiet", "--strict"]
        plain.append([*command, "--config-file", config, "--site-dir", str(site / language)])
    costs = [], []
    for _ in range(repeat):
        costs[0].append(measure(BUILD, root=root))
        forget(site)
        costs[1].append(measure(*plain, root=root))
    return len(pages), *costs


PARTS = {part.__name__: part for part in (notebooks, overhead, unchanged, incremental, growth)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="part", help=", ".join(PARTS))
    parser.add_argument(
        "--articles", nargs="+", type=int, default=[250, 500, 1000], help="numbers of synthetic articles for `growth`"
    )
    parser.add_argument(
        "--repeat", type=int, default=3, help="runs of each side, fewer for many articles (%(default)s)"
    )
    options = parser.parse_args()
    for name in options.parts or PARTS:
        table = Table()
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            PARTS[name](Path(folder).resolve(), options, table)
        table.save(RESULTS / f"build_{name}.json")


if __name__ == "__main__":
    main()
