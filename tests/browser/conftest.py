"""Serve the built site below a sub-path, open it in Chromium, and record each tab's problems and requests."""

import re
import shutil
import sys
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import lxml.html
import pytest
from playwright.sync_api import Error, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SITE, SCREENSHOTS = ROOT / "site", ROOT / "build" / "browser"
OUTCOME = pytest.StashKey[bool]()
PAGES = sorted(path.relative_to(SITE).as_posix().removesuffix("index.html") for path in SITE.rglob("*.html"))
assert PAGES, "build the site first: nox -s docs"
NAMES = "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"  # the fastest first
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)


def file_of(page: str) -> Path:
    return SITE / page / "index.html" if page.endswith("/") or not page else SITE / page


def kind(page: str) -> str:
    """Return the kind of a page; pages of one kind have the same templates and styles."""
    if page.endswith("404.html"):
        return "missing"
    if page.startswith("en/lab/"):
        return "notebook"
    if page.endswith("glossary/"):
        return "glossary"
    return ["entry", "home", "area", "article"][page.count("/")]


# A test with one of these arguments runs for each value; `page` is every page but the missing ones.
EACH = {
    "any_page": PAGES,
    "page": [page for page in PAGES if kind(page) != "missing"],
    "article": [page for page in PAGES if kind(page) in ("article", "notebook")],
    "any_kind": [*dict.fromkeys(map(kind, PAGES))],
    "translated_page": [page for page in PAGES if kind(page) in ("home", "area", "article", "glossary")],
}


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        if pieces := self.server.slow.get(self.path):
            self._send(pieces)
        else:
            super().do_GET()

    def _send(self, pieces: SimpleQueue) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in iter(pieces.get, ""):
            data = piece.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")


class Server(ThreadingHTTPServer):
    """A server that can send pages piece by piece: `slow` maps a path to its pieces; an empty one is the last."""

    block_on_close = False  # do not wait for connections that are kept open

    def __init__(self, *arguments):
        self.slow: dict[str, SimpleQueue] = {}
        super().__init__(*arguments)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a tab was closed
            super().handle_error(request, client_address)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "sub").symlink_to(SITE)
    with Server(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="session")
def address(server):
    """Return the URL at which the site is served."""
    return f"http://127.0.0.1:{server.server_port}/sub/"


@pytest.fixture(scope="session")
def browser():
    """Start the system's Chromium if there is one, else Playwright's."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)


SETTLED = "() => Promise.all(document.getAnimations().map(each => each.finished.catch(() => null))).then(() => null)"


class Tab:
    """A browser tab. `problems` lists console errors and warnings, failed requests and requests to other hosts."""

    def __init__(self, context, address: str):
        self.page, self.address, self.problems, self.requests = context.new_page(), address, [], []
        self.page.on("console", lambda message: self._record(message.type in ("error", "warning"), message.text))
        self.page.on("pageerror", lambda error: self._record(True, str(error)))
        self.page.on("requestfailed", self._on_failure)
        self.page.on(
            "response", lambda response: self._record(response.status >= 400, f"{response.status} {response.url}")
        )
        self.page.on("request", self._on_request)

    def _record(self, is_problem: bool, message: str) -> None:
        if is_problem:
            self.problems.append(message[:500])

    def _on_failure(self, request) -> None:
        aborted = "ERR_ABORTED" in request.failure  # by leaving the page while it was loading
        self._record(not aborted, f"{request.url} {request.failure}")

    def _on_request(self, request) -> None:
        self._record(not request.url.startswith((self.address, "data:")), f"another host: {request.url}")
        self.requests.append(request.url.removeprefix(self.address))

    def open(self, page: str) -> None:
        self.page.goto(self.address + page, wait_until="load")

    def settle(self) -> None:
        """Wait for all animations, also on a page that is about to load."""
        try:
            self.page.evaluate(SETTLED)
        except Error as error:
            if "context was destroyed" not in str(error):
                raise
            self.page.wait_for_load_state("load")
            self.page.evaluate(SETTLED)

    def close(self) -> None:
        """Close the tab and clear its local storage."""
        if self.page.url.startswith(self.address):
            self.page.evaluate("() => { try { localStorage.clear(); } catch { /* none */ } }")
        self.page.close()

    def path(self) -> str:
        return self.page.url.removeprefix(self.address)


def screenshot_if_failed(tab: Tab, request, number: int = 0) -> bool:
    """Save a screenshot below build/browser/ if the test failed; return whether it did."""
    failed = request.node.stash.get(OUTCOME, True)
    if failed:
        name = re.sub(r"\W+", "-", request.node.name)
        tab.page.screenshot(path=SCREENSHOTS / f"{name}-{number}.png")
    return failed


@pytest.fixture(scope="session")
def contexts():
    """Return the browser contexts that tests share, by their options, so that they share a cache."""
    return {}


@pytest.fixture
def tab(request, browser, address, contexts):
    """Return a function that opens a tab, with an empty cache if `fresh`. A failure saves screenshots."""
    tabs = []

    def make(width: int = 1300, fresh: bool = False, base: str = address, **options) -> Tab:
        key = object() if fresh else repr(sorted(options.items()))
        if key not in contexts:
            contexts[key] = browser.new_context(**options)
        tabs.append((key, Tab(contexts[key], base)))
        tabs[-1][1].page.set_viewport_size({"width": width, "height": 800})
        return tabs[-1][1]

    yield make
    failed = [screenshot_if_failed(each, request, number) for number, (_, each) in enumerate(tabs)]
    for key, each in tabs:
        each.close()
        if (any(failed) or not isinstance(key, str)) and key in contexts:
            contexts.pop(key).close()


@pytest.fixture(scope="session")
def visits():
    return []


@pytest.fixture
def visit(request, browser, address, visits):
    """Return a tab shared by tests that leave no state in it; a new one after a failure."""
    if not visits:
        visits.append(Tab(browser.new_context(), address))
    tab = visits[0]
    tab.problems.clear()
    tab.requests.clear()
    yield tab
    if screenshot_if_failed(tab, request):
        visits.pop().page.context.close()


@pytest.fixture
def turn(page):
    """Return the number of one of four settings: the next for each page, the opposite one for its translation."""
    names = [each[3:] for each in PAGES if each.startswith("en/")]
    return names.index(page[3:]) % 4 ^ page.startswith("zh/")


@pytest.fixture(scope="session")
def fullest():
    """Return a function that finds the page of a kind with the most distinct elements, by tag and class."""

    def variety(page: str) -> int:
        return len(set(re.findall(r'<\w+(?: class="[^"]*")?', file_of(page).read_text())))

    return cache(lambda wanted: max((page for page in PAGES if kind(page) == wanted), key=variety))


@pytest.fixture(scope="session")
def read():
    """Return a function that parses the HTML of a page."""
    parser = lxml.html.HTMLParser(encoding="utf-8")
    return cache(lambda page: lxml.html.parse(str(file_of(page)), parser).getroot())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.when == "call":
        item.stash[OUTCOME] = report.failed
    return report


def pytest_generate_tests(metafunc):
    for argument in EACH.keys() & set(metafunc.fixturenames):
        metafunc.parametrize(argument, EACH[argument], ids=lambda page: page or "index.html")
