"""The built site in Chromium, served below a sub-path; all that goes wrong in a tab is kept."""

import re
import shutil
import sys
from collections import defaultdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SITE, SCREENSHOTS = ROOT / "site", ROOT / "build" / "browser"
OUTCOME = pytest.StashKey[bool]()
PAGES = sorted(path.relative_to(SITE).as_posix().removesuffix("index.html") for path in SITE.rglob("*.html"))
PAGES = [page for page in PAGES if not page.endswith("404.html")]  # it works only where site_url says
assert PAGES, "build the site first: nox -s docs"
# What a test asks for as an argument runs for each of them.
EACH = {
    "page": PAGES,
    "twin_page": [page for page in PAGES if page[:3] in ("en/", "zh/") and not page.startswith("en/lab/")],
    "article": [page for page in PAGES if page.count("/") > 2],
}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a tab that was left
            super().handle_error(request, client_address)


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """Where the site is served."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "sub").symlink_to(SITE)
    with Server(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/sub/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium where there is one, else Playwright's own."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)


class Tab:
    """A tab of a context of its own. `wrong` is what a reader would find in the console, and each strange request."""

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

    def at(self) -> str:
        return self.page.url.removeprefix(self.address)


@pytest.fixture
def tab(request, browser, address):
    """A function that makes a tab; where the test fails, screenshots of all of them are kept below build/browser/."""
    tabs = []

    def make(width: int = 1300, **options) -> Tab:
        tabs.append(Tab(browser.new_context(viewport={"width": width, "height": 800}, **options), address))
        return tabs[-1]

    yield make
    for number, each in enumerate(tabs):
        if request.node.stash.get(OUTCOME, True):
            name = re.sub(r"\W+", "-", request.node.name)
            each.page.screenshot(path=SCREENSHOTS / f"{name}-{number}.png")
        each.page.context.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.when == "call":
        item.stash[OUTCOME] = report.failed
    return report


def pytest_generate_tests(metafunc):
    for argument in EACH.keys() & set(metafunc.fixturenames):
        metafunc.parametrize(argument, EACH[argument], ids="{}|".format)


def pytest_terminal_summary(terminalreporter):
    """The seconds that a page takes in all its settings."""
    seconds = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            name, _, setting = getattr(report, "nodeid", "").partition("[")
            if name.endswith("::test_page") and hasattr(report, "duration"):
                seconds[setting.rpartition("|")[0]] += report.duration
    slowest = sorted(seconds, key=seconds.get, reverse=True)[:5]
    if seconds:
        mean = sum(seconds.values()) / len(seconds)
        most = ", ".join(f"{name or '/'} {seconds[name]:.1f}" for name in slowest)
        terminalreporter.line(f"{len(seconds)} pages, {mean:.1f} s each in all settings; the slowest: {most}")
