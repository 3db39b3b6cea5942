"""Measure time and memory of builds: compare with mkdocs-jupyter and plain MkDocs, and find the overhead of a snippet.

    pip install -c constraints.txt -e '.[dev]'
    python benchmarks/build.py [repository] [notebooks] [overhead] [growth] [--articles 250 500 1000] [--repeat 3]

Both sides of a comparison alternate, in one run on one machine. Print medians; assert nothing.
"""

import argparse
import math
import re
import shutil
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path

import projects
import psutil
from measure import Cost, Row, Table, measure, running

RESULTS = Path(__file__).parent / "results"
BUILD = [sys.executable, "-m", "zhixing_site", "build"]
MKDOCS = [sys.executable, "-m", "mkdocs"]
RUN = [sys.executable, "-m", "zhixing_site", "run"]
SERVE = [sys.executable, "-m", "zhixing_site", "serve"]
PATIENCE = 120  # seconds to wait for a served page
TICK = 0.05  # seconds between two requests of a served page
NOTEBOOKS, SNIPPETS = 20, 40
ARTICLE = "activations/gelu"  # the article that changes
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
    ours = [[*SERVE, "--port", str(port)]]
    peers = [
        [*MKDOCS, "serve", *config, "--dev-addr", f"127.0.0.1:{other}"]
        for config, other in zip(configs, others, strict=True)
    ]
    places = [f"{port}/en", f"{port}/zh"], [f"{other}" for other in others]
    saved = tuple(
        time_saves(
            commands,
            [f"http://127.0.0.1:{place}/small/notebook_{CHANGED}/" for place in side],
            partial(projects.write_notebook, root, CHANGED),
            root,
            options.repeat,
        )
        for commands, side in zip((ours, peers), places, strict=True)
    )
    add_times(table, "serve, from saving one line to seeing it", saved, "5 times")


def add_times(table: Table, what: str, sides: tuple[list[float], list[float]], wanted: str) -> None:
    table.add(Row(what, *sides, "s", f"{times(*sides):.1f} times", wanted))


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def time_saves(
    commands: list[list[str]], urls: list[str], write: Callable[[str], None], root: Path, repeat: int
) -> list[float]:
    """Return the seconds from writing a new number until the pages served at these addresses show it."""
    seconds = []
    with running(*commands, root=root) as processes:
        for url in urls:
            await_text("</html>", url, processes)
        for attempt in range(repeat):
            time.sleep(1)  # let the servers become idle
            number = f"8.5{attempt:02}{len(commands)}"
            started = time.perf_counter()
            write(number)
            for url in urls:
                await_text(f"{number}<", url, processes)
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


# This repository, compared with plain MkDocs


def repository(root: Path, options: argparse.Namespace, table: Table) -> None:
    """Build this repository without a cache, then again after a change of nothing, a paragraph, or a snippet."""
    projects.write_repository(root)
    cold = []
    for _ in range(options.repeat):
        forget(root / ".cache", root / "site")
        cold.append(measure(BUILD, root=root).seconds)
    pages, same, plain = compare_with_mkdocs(root, options.repeat)
    other = [cost.seconds for cost in plain]
    table.title(
        f"This repository, {pages} pages in two languages. `other` are the two plain MkDocs builds of the same "
        "expanded pages, in parallel, which run no code and render all pages. Changed are a paragraph of one article "
        "in both languages, or a line of its snippet."
    )
    table.add(Row("build, nothing cached", cold, other, "s", f"{statistics.median(cold):.0f} s"))
    added = medians(same)[0] - medians(plain)[0]
    add_unchanged(table, "build, nothing changed", pages, same, plain, f"{added:+.2f} s", "at most +1 s")
    paragraphs, lines = [], []
    for attempt in range(options.repeat):
        for language in projects.CONFIGS:
            path = root / "docs" / language / f"{ARTICLE}.md"
            path.write_text(f"{path.read_text()}\n{attempt}\n")
        projects.accept(root)
        paragraphs.append(measure(BUILD, root=root).seconds)
        write_line(root, f"7.{attempt:03}1")
        lines.append(measure(BUILD, root=root).seconds)
    port = free_ports(1)[0]
    serve = [[*SERVE, "--port", str(port)]]
    urls = [f"http://127.0.0.1:{port}/{language}/{ARTICLE}/" for language in projects.CONFIGS]
    saved = time_saves(serve, urls, partial(write_line, root), root, options.repeat)
    for what, samples, sides in (
        ("build, a paragraph changed", paragraphs, other),
        ("build, a snippet changed", lines, other),
        ("serve, from saving a line to seeing it", saved, []),
    ):
        table.add(Row(what, samples, sides, "s", f"{statistics.median(samples):.1f} s", ""))


def write_line(root: Path, number: str) -> None:
    """Write the number into the first line of the article's snippet that the page shows."""
    path = root / f"snippets/{ARTICLE}.py"
    path.write_text(re.sub(r"^import torch\b.*", f"import torch  # {number}", path.read_text(), count=1, flags=re.M))


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
    templates = root / "src/zhixing_site/site/jupyter"  # of the notebooks' pages
    for language, config in projects.CONFIGS.items():
        settings = [f"ZHIXING_PAGES={expanded / language}", f"JUPYTER_PATH={templates}"]
        command = ["env", *settings, *MKDOCS, "build", "--quiet", "--strict"]
        plain.append([*command, "--config-file", config, "--site-dir", str(site / language)])
    costs = [], []
    for _ in range(repeat):
        costs[0].append(measure(BUILD, root=root))
        forget(site)
        costs[1].append(measure(*plain, root=root))
    return len(pages), *costs


PARTS = {part.__name__: part for part in (repository, notebooks, overhead, growth)}


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
