"""Measure what a browser loads and when it paints: our GELU article, compared with the same text in two other tools.

    pip install -c constraints.txt -e '.[dev]'
    python benchmarks/pages.py [--repeat 9]

Needs Chromium, and npm to download MathJax for the other tools. Visits alternate between the sides. Print medians;
assert nothing.
"""

import argparse
import gzip
import http.server
import re
import shutil
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from measure import Row, Table
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright
from sites import build_sites

RESULTS = Path(__file__).parent / "results" / "pages.json"
SIDES = {"ours": "en", "mkdocs-jupyter": "jupyter", "mkdocs-material": "plain"}
FIRST, NEXT = "activations/gelu/", "activations/swish/"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# Chromium's "Slow 4G", with a processor that is 4 times slower.
PHONE = {"offline": False, "latency": 562.5, "downloadThroughput": 1.44e6 / 8, "uploadThroughput": 0.675e6 / 8}
QUERIES = {"en": "gelu", "zh": "注意力"}
SLOW = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
TEXT = re.compile(r"text/|application/(javascript|json)|\+xml|/xml")
INLINE_FIGURE = re.compile(rb'(?<=src=")data:image/[^"]*')

# Sum up layout shifts from the start of the page on.
COUNT_SHIFTS = """
window.shifted = 0;
new PerformanceObserver(list => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) shifted += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""
SCROLL = """async () => {
  for (let y = 0; y < document.documentElement.scrollHeight; y += 400) {
    scrollTo(0, y);
    await new Promise(done => setTimeout(done, 50));
  }
}"""
# The milliseconds from each turn of the slider to the frame on the screen.
TURN = """async () => {
  const figure = document.querySelector(".figure:has(.slider)"), input = figure.querySelector("input");
  figure.scrollIntoView();
  input.focus();
  await new Promise(done => setTimeout(done, 500)); // until its frames are loaded
  const times = [];
  for (let frame = 0; frame <= input.max; frame++) {
    const start = performance.now();
    input.value = frame;
    input.dispatchEvent(new Event("input"));
    await [...figure.querySelectorAll("img")].find(image => image.checkVisibility()).decode();
    await new Promise(done => requestAnimationFrame(() => setTimeout(done))); // after the paint
    times.push(performance.now() - start);
  }
  return times;
}"""
# The milliseconds from opening the box and typing at once to the first result on the screen, and to that of everything.
FIND = """async query => {
  const box = document.querySelector(".search"), input = box.querySelector("input");
  const painted = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  const type = () => {
    const start = performance.now();
    input.value = query;
    input.dispatchEvent(new Event("input"));
    return start;
  };
  const until = async (start, found) => {
    while (!found()) await new Promise(done => setTimeout(done, 5));
    await painted();
    return performance.now() - start;
  };
  document.querySelector(".search-open").click();
  const start = type();
  const first = await until(start, () => box.querySelector("li a"));
  const whole = await until(start, () => box.dataset.searched === "everything");
  return [first, whole, await until(type(), () => box.dataset.shown === query)];
}"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


@dataclass
class Visit:
    """The cost of one visit, with scrolling to the end of the page; figures are counted separately."""

    bytes: float = 0  # as Chromium counts them, with headers
    requests: float = 0
    figures: float = 0  # bytes of images, in separate files or in the page
    paint: float = 0  # ms to the first contentful paint
    shift: float = 0


# The server behaves as static hosts do: text is compressed, and may be cached for an hour.


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".js": "text/javascript"}  # noqa: RUF012

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            self.send_error(404)
            return
        kind = self.guess_type(path)
        body = compressed(path) if TEXT.search(kind) else path.read_bytes()
        self.send_response(200)
        if TEXT.search(kind):
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=3600")
        self.end_headers()
        with suppress(ConnectionError):  # the browser may leave the page during a transfer
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@cache
def compressed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), 6)


@contextmanager
def serving(site: Path) -> Iterator[str]:
    """Serve the site in a thread; yield the address of its root."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=site)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


# The visits


def visit(page: Page, session: CDPSession, url: str, site: Path) -> Visit:
    """Open the page, wait until the network is idle, and scroll to its end."""
    result = Visit()
    with counting(session, result):
        page.goto(url, wait_until="networkidle")
        page.evaluate(SCROLL)
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(500)
    result.paint, result.shift = page.evaluate(PAINT), page.evaluate("shifted")
    inline = inline_figures(site / urlsplit(url).path.strip("/") / "index.html")
    result.bytes, result.figures = result.bytes - inline, result.figures + inline
    return result


@contextmanager
def counting(session: CDPSession, result: Visit) -> Iterator[None]:
    """Add to the result the network traffic within the context; files in the browser's cache do not count."""
    kinds = {}

    def begin(event: dict) -> None:
        kinds[event["requestId"]] = event["response"]["mimeType"], event["response"]["url"]

    def end(event: dict) -> None:
        kind, url = kinds.get(event["requestId"], ("", "data:"))
        if url.startswith("data:") or not event["encodedDataLength"]:
            return  # part of another file, or read from the cache
        if kind == "image/svg+xml":
            result.figures += event["encodedDataLength"]
        else:
            result.bytes += event["encodedDataLength"]
            result.requests += 1

    listeners = {"Network.responseReceived": begin, "Network.loadingFinished": end}
    for event, listener in listeners.items():
        session.on(event, listener)
    yield
    for event, listener in listeners.items():
        session.remove_listener(event, listener)


def inline_figures(path: Path) -> int:
    """Return the compressed bytes that figures inside a page add to it."""
    without = INLINE_FIGURE.sub(b"", path.read_bytes())
    return len(compressed(path)) - len(gzip.compress(without, 6))


def read_two(browser: Browser, url: str, site: Path, network: dict | None = None) -> tuple[Visit, Visit]:
    """Visit the first page with an empty cache, and the next one after it."""
    with browser.new_context() as context, context.new_page() as page:
        page.add_init_script(COUNT_SHIFTS)
        session = context.new_cdp_session(page)
        session.send("Network.enable")
        if network:
            session.send("Network.emulateNetworkConditions", network)
        return tuple(visit(page, session, url + name, site) for name in (FIRST, NEXT))


def search_phone(browser: Browser, url: str, language: str) -> list[float]:
    """Return the milliseconds to the first result, to the search of everything, and of a search in it, on a phone."""
    with browser.new_context(viewport={"width": 390, "height": 800}) as context, context.new_page() as page:
        page.goto(f"{url}{language}/{FIRST}", wait_until="networkidle")
        session = context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.emulateNetworkConditions", PHONE)
        session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
        return page.evaluate(FIND, QUERIES[language])


def turn_slider(browser: Browser, url: str) -> list[float]:
    """Return the milliseconds until each frame of the next page's first figure with a slider is seen."""
    with browser.new_context() as context, context.new_page() as page:
        page.goto(url + NEXT, wait_until="networkidle")
        return page.evaluate(TURN)


# The table

Pair = tuple[Visit, Visit]
MEASURES: list[tuple[str, str, str, Callable[[Pair], float]]] = [
    ("first visit, without figures", "KB", "ours at most 250", lambda pair: pair[0].bytes / 1000),
    ("  its figures", "KB", "", lambda pair: pair[0].figures / 1000),
    ("  its requests, without figures", "", "", lambda pair: pair[0].requests),
    ("next page, without figures", "KB", "ours at most 40", lambda pair: pair[1].bytes / 1000),
    ("  its figures", "KB", "", lambda pair: pair[1].figures / 1000),
    ("  its requests, without figures", "", "", lambda pair: pair[1].requests),
]
FELT: list[tuple[str, str, str, Callable[[Pair], float]]] = [
    ("first contentful paint", "ms", "ours as soon as plain", lambda pair: pair[0].paint),
    ("layout shift, first visit", "", "ours 0", lambda pair: pair[0].shift),
    ("layout shift, next page", "", "ours 0", lambda pair: pair[1].shift),
]


def add_rows(table: Table, fast: dict[str, list[Pair]], slow: dict[str, list[Pair]], peer: str) -> None:
    for network, visits, measures in ("", fast, MEASURES + FELT), (", slow network", slow, FELT):
        for what, unit, wanted, value in measures:
            ours, other = (list(map(value, visits[side])) for side in ("ours", peer))
            middle = statistics.median(ours)
            result = f"{statistics.median(other) / middle:.2f} times" if middle else ""
            table.add(Row(what + network, ours, other, unit, result, wanted))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9, help="visits of each side (%(default)s)")
    options = parser.parse_args()
    table, fast, slow = Table(), {side: [] for side in SIDES}, {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        build_sites(Path(folder).resolve())
        site = Path(folder).resolve() / "site"
        with serving(site) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            for attempt in range(options.repeat + 1):
                for side, path in SIDES.items():
                    pair = read_two(browser, f"{address}{path}/", site)
                    if attempt:  # the first is a warm-up of the browser and the server
                        fast[side].append(pair)
            for _ in range(max(1, options.repeat // 3)):
                for side, path in SIDES.items():
                    slow[side].append(read_two(browser, f"{address}{path}/", site, SLOW))
            phones = {
                language: [search_phone(browser, address, language) for _ in range(max(1, options.repeat // 3))]
                for language in QUERIES
            }
            chromium, turns = browser.version, turn_slider(browser, f"{address}{SIDES['ours']}/")
        articles = len([*(site / "en").glob("*/*/index.html")])
    for peer in list(SIDES)[1:]:
        table.title(
            f"Our article on GELU, then the one on Swish, in Chromium {chromium}, compared with the same text in "
            f"{peer} {version(peer)}, in sites of {articles} articles. KB are 1000 bytes of network traffic, text in "
            "gzip; one server on this machine serves everything, including MathJax. The other tools' search workers, "
            "12 KB, are missing, since Chromium does not report them. The slow network: 1.6 Mbit/s, 150 ms."
        )
        add_rows(table, fast, slow, peer)
    table.title("A figure with a slider, from a turn to the frame on the screen once all frames are loaded")
    table.add(Row("next frame", turns, [], "ms", f"{statistics.median(turns):.0f} ms", "at most 50 ms"))
    table.title('The search on a phone: Chromium\'s "Slow 4G", a 4 times slower processor, typing as the box opens')
    for language, found in phones.items():
        first, whole, later = (list(times) for times in zip(*found, strict=True))
        table.add(
            Row(f"first result, {language}", first, [], "ms", f"{statistics.median(first):.0f} ms", "at most 1500")
        )
        table.add(Row(f"  everything is searched, {language}", whole, [], "ms"))
        table.add(Row(f"  a query after that, {language}", later, [], "ms"))
    table.save(RESULTS, chromium=chromium)


if __name__ == "__main__":
    main()
