"""The built site in Chromium, served below a sub-path; all that goes wrong in a tab is kept."""

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
NAMES = "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"  # the first is the quickest
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)


def file_of(page: str) -> Path:
    return SITE / page / "index.html" if page.endswith("/") or not page else SITE / page


def kind(page: str) -> str:
    """Pages of one kind are made by the same templates and styles."""
    if page.endswith("404.html"):
        return "missing"
    if page.startswith("en/lab/"):
        return "notebook"
    if page.endswith("glossary/"):
        return "glossary"
    return ["door", "home", "area", "article"][page.count("/")]


# What a test asks for as an argument runs for each of them: `page` is every page that is told of somewhere.
EACH = {
    "any_page": PAGES,
    "page": [page for page in PAGES if kind(page) != "missing"],
    "article": [page for page in PAGES if kind(page) in ("article", "notebook")],
    "any_kind": [*dict.fromkeys(map(kind, PAGES))],
    "twin_page": [page for page in PAGES if kind(page) in ("home", "area", "article", "glossary")],
}


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # which keeps connections

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
    """`slow` has the pages that come piece by piece, by their paths; an empty piece is the end."""

    block_on_close = False  # connections that are kept

    def __init__(self, *arguments):
        self.slow: dict[str, SimpleQueue] = {}
        super().__init__(*arguments)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a tab that was left
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
    """Where the site is served."""
    return f"http://127.0.0.1:{server.server_port}/sub/"


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium where there is one, else Playwright's own."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)


SETTLED = "() => Promise.all(document.getAnimations().map(each => each.finished.catch(() => null))).then(() => null)"


class Tab:
    """A tab of a browser. `wrong` is what a reader would find in the console, and each strange request."""

    def __init__(self, context, address: str):
        self.page, self.address, self.wrong, self.asked = context.new_page(), address, [], []
        self.page.on("console", lambda message: self._keep(message.type in ("error", "warning"), message.text))
        self.page.on("pageerror", lambda error: self._keep(True, str(error)))
        self.page.on("requestfailed", self._fail)
        self.page.on(
            "response", lambda response: self._keep(response.status >= 400, f"{response.status} {response.url}")
        )
        self.page.on("request", self._ask)

    def _keep(self, wrong: bool, what: str) -> None:
        if wrong:
            self.wrong.append(what[:500])

    def _fail(self, request) -> None:
        left = "ERR_ABORTED" in request.failure  # the page was left before it was there
        self._keep(not left, f"{request.url} {request.failure}")

    def _ask(self, request) -> None:
        self._keep(not request.url.startswith((self.address, "data:")), f"another host: {request.url}")
        self.asked.append(request.url.removeprefix(self.address))

    def open(self, page: str) -> None:
        self.page.goto(self.address + page, wait_until="load")

    def settle(self) -> None:
        """Wait for all that moves or fades, on the page to which a link may just be leading."""
        try:
            self.page.evaluate(SETTLED)
        except Error as error:
            if "context was destroyed" not in str(error):
                raise
            self.page.wait_for_load_state("load")
            self.page.evaluate(SETTLED)

    def leave(self) -> None:
        """Close it, and forget what was chosen in it."""
        if self.page.url.startswith(self.address):
            self.page.evaluate("() => { try { localStorage.clear(); } catch { /* none */ } }")
        self.page.close()

    def at(self) -> str:
        return self.page.url.removeprefix(self.address)


def photograph(tab: Tab, request, number: int = 0) -> bool:
    """Keep a screenshot below build/browser/ where the test failed; returns whether it did."""
    failed = request.node.stash.get(OUTCOME, True)
    if failed:
        name = re.sub(r"\W+", "-", request.node.name)
        tab.page.screenshot(path=SCREENSHOTS / f"{name}-{number}.png")
    return failed


@pytest.fixture(scope="session")
def contexts():
    """By their settings, those that tests share: what one has fetched, the next finds in the cache."""
    return {}


@pytest.fixture
def tab(request, browser, address, contexts):
    """A function that makes a tab; one that is `fresh` finds nothing in a cache. A failure leaves screenshots."""
    tabs = []

    def make(width: int = 1300, fresh: bool = False, at: str = address, **options) -> Tab:
        key = object() if fresh else repr(sorted(options.items()))
        if key not in contexts:
            contexts[key] = browser.new_context(**options)
        tabs.append((key, Tab(contexts[key], at)))
        tabs[-1][1].page.set_viewport_size({"width": width, "height": 800})
        return tabs[-1][1]

    yield make
    failed = [photograph(each, request, number) for number, (_, each) in enumerate(tabs)]
    for key, each in tabs:
        each.leave()
        if (any(failed) or not isinstance(key, str)) and key in contexts:
            contexts.pop(key).close()


@pytest.fixture(scope="session")
def visits():
    return []


@pytest.fixture
def visit(request, browser, address, visits):
    """One tab for tests that leave nothing behind in it; a new one after a failure."""
    if not visits:
        visits.append(Tab(browser.new_context(), address))
    tab = visits[0]
    tab.wrong.clear()
    tab.asked.clear()
    yield tab
    if photograph(tab, request):
        visits.pop().page.context.close()


@pytest.fixture
def turn(page):
    """The number of one of four settings: each page's is the next, its twin's the one beside."""
    names = [each[3:] for each in PAGES if each.startswith("en/")]
    return names.index(page[3:]) % 4 ^ page.startswith("zh/")


@pytest.fixture(scope="session")
def fullest():
    """The page of a kind that shows most different things: elements by their names and classes."""

    def variety(page: str) -> int:
        return len(set(re.findall(r'<\w+(?: class="[^"]*")?', file_of(page).read_text())))

    return cache(lambda wanted: max((page for page in PAGES if kind(page) == wanted), key=variety))


@pytest.fixture(scope="session")
def read():
    """The tree of a page's HTML."""
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
