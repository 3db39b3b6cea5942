"""Preview both sites while writing: pages reload when a file is saved, and show the errors.

A preview is a build that errors do not stop: a page with errors stays as it was.
"""

import html
import os
import shutil
import sys
import threading
import time
import traceback
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from zhixing_site.build import Builder
from zhixing_site.errors import BuildError, BuildErrors
from zhixing_site.execution.processes import Limits
from zhixing_site.execution.runner import Report, Run
from zhixing_site.files import LEFTOVER
from zhixing_site.site.mkdocs import Renderer

INTERVAL = 0.1  # seconds between two looks at the files
PATIENCE = 20  # seconds that a browser is kept waiting for news
MISSING = b'<!doctype html><body>There is no such page, or not yet; all are below <a href="/en/">/en/</a>.'


class Preview:
    """Both sites below .cache/preview, and what is wrong with them. `version` changes with every update."""

    def __init__(self, root: Path, limits: Limits, report: Report, renderer: Renderer):
        self.builder = Builder(root, limits, self._report, renderer, preview=True)
        self.report = report
        self.folder = root / ".cache/preview"
        self.site = self.folder / "0/site"
        self.version, self.errors = "0", ""
        self.news = threading.Condition()
        shutil.rmtree(self.folder, ignore_errors=True)

    def update(self) -> None:
        """Make the site again, from what has changed, and tell the browsers. Never raises for what a file contains."""
        errors: list[BuildError] = []
        version = str(time.time_ns())
        new, old = self.folder / version, self.site.parent
        try:
            self.builder.make_site(new, errors.extend)
            self.site = new / "site"
        except Exception as error:  # the site stays as it is
            errors.append(error if isinstance(error, BuildError) else BuildError(traceback.format_exc()))
            old = new
        with self.news:
            self.version, self.errors = version, str(BuildErrors(errors))
            self.news.notify_all()
        shutil.rmtree(old, ignore_errors=True)

    def _report(self, path: str, result: Run | BuildError) -> None:
        if isinstance(result, BuildError) or result.ending:  # what is cached is no news
            self.report(path, result)


class Handler(SimpleHTTPRequestHandler):
    """The preview's files, with a script in each page that waits for news."""

    def __init__(self, preview: Preview, *arguments):
        self.preview = preview
        super().__init__(*arguments, directory=str(preview.site))

    def do_GET(self):
        address, path = urlsplit(self.path), Path(self.translate_path(self.path))
        page, preview = path / "index.html" if path.is_dir() else path, self.preview
        if address.path == "/preview":
            seen = parse_qs(address.query).get("seen", [""])[0]
            with preview.news:
                preview.news.wait_for(lambda: preview.version != seen, timeout=PATIENCE)
            self._send(preview.version.encode(), "text/plain")
        elif address.path == "/preview.js":
            self._send((Path(__file__).parent / "preview.js").read_bytes(), "text/javascript")
        elif (path.is_dir() and not address.path.endswith("/")) or (page.is_file() and page.suffix != ".html"):
            super().do_GET()  # a file, or the same place with a slash
        else:
            data = f'data-version="{preview.version}" data-errors="{html.escape(preview.errors)}"'
            script = f'<script src="/preview.js" {data}></script>'.encode()
            content, status = (page.read_bytes(), 200) if page.is_file() else (MISSING, 404)
            self._send(content + script, "text/html; charset=utf-8", status)

    def _send(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self):
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a tab that was closed
            super().handle_error(request, client_address)


def serve(root: Path, limits: Limits, report: Report, port: int) -> None:
    """Build a preview, show it on this machine alone, and keep it up to date until interrupted."""
    with Renderer(root) as renderer:
        preview = Preview(root, limits, report, renderer)
        try:
            server = Server(("127.0.0.1", port), partial(Handler, preview))
        except OSError as error:
            raise BuildError(f"port {port} is not available ({error.strerror}); choose another with --port") from error
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        shown, seen = None, _state(root)
        while True:
            # Looked at, since a system does not report what happens to the target of a link, or on a network.
            before, seen = seen, _state(root)
            if shown != seen == before:  # no editor is about to write more
                started, shown = time.perf_counter(), seen
                preview.update()
                print(preview.errors or f"up to date in {time.perf_counter() - started:.1f} s", flush=True)
            time.sleep(INTERVAL)


def _state(root: Path) -> dict[str, tuple[int, int, int]]:
    """{path: what differs when it was saved} of the files below the root that people write, or to which links lead."""
    found = {}
    for folder, folders, names in os.walk(root):
        ignored = {"__pycache__", *(["site"] if folder == str(root) else [])}
        folders[:] = [name for name in folders if name[0] != "." and name not in ignored]
        if "pyvenv.cfg" in names:
            folders.clear()
        for path in [os.path.join(folder, name) for name in names if not LEFTOVER.fullmatch(name)]:
            with suppress(OSError):  # a link that leads nowhere, or a file that is gone
                status = os.stat(path)
                found[path] = status.st_mtime_ns, status.st_size, status.st_ino
    return found
