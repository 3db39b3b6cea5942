"""Render expanded pages with MkDocs, which runs in a process for each language, and only if a page has changed."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import MappingProxyType

from zhixing_copy.source import Module
from zhixing_site.errors import BuildError
from zhixing_site.project import CONFIGS, site_url
from zhixing_site.site import reuse
from zhixing_site.site.postprocess import Rendered, read, set_policy

NO_MODULES: Mapping[str, Module] = MappingProxyType({})


@dataclass(frozen=True)
class Request:
    """The folders of expanded pages and of the site, and what each page depends on, as reuse.page_keys says."""

    pages: Path
    site: Path
    keys: Mapping[str, str]


class Renderer:
    """Renders both languages. `rendered` has all HTML files of the site; the processes end with the context."""

    def __init__(self, root: Path):
        self.root = root
        self.rendered: dict[str, Rendered] = {}
        self.processes: dict[str, subprocess.Popen] = {}
        self.requests: dict[str, Request] = {}  # that were not answered yet, by language

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            _end(process)

    def start(self, language: str) -> subprocess.Popen:
        """The process of the language, which loads MkDocs, unless it has done so."""
        process = self.processes.get(language)
        if process and process.poll() is not None:
            _end(process)
            process = None
        self.processes[language] = process or self._start(language)
        return self.processes[language]

    def ask(
        self, language: str, pages: Path, site: Path, navigation: list, modules: Mapping[str, Module] = NO_MODULES
    ) -> None:
        """Begin to render the pages below pages/<language> into site/<language>, which holds no HTML yet."""
        if self.requests.pop(language, None):  # an update of a preview broke off, and wants no answer any more
            _end(self.processes.pop(language))
        keys = reuse.page_keys(language, pages, navigation, modules, self.root)
        loaded = {name: reuse.load(name, key, site, self.root) for name, key in keys.items()}
        self.rendered = {name: page for name, page in self.rendered.items() if not name.startswith(f"{language}/")}
        self.rendered |= {name: page for name, page in loaded.items() if page and name.endswith(".html")}
        if all(loaded.values()):
            _copy_files(pages / language, site / language)
            reuse.touch(language, self.root)
            return
        (site / language / "404.html").unlink(missing_ok=True)  # is rendered each time
        self.requests[language] = Request(pages, site, keys)
        process = self.start(language)
        with suppress(BrokenPipeError):  # it has just ended, as the answer will tell
            process.stdin.write(json.dumps([language, str(pages / language), str(site), navigation]).encode() + b"\n")
            process.stdin.flush()

    def wait(self) -> None:
        """Wait until MkDocs has rendered one language, which frees a core."""
        if self.requests:
            wait([self.processes[language].stdout for language in self.requests])

    def answers(self, site: Path) -> list[BuildError]:
        """Wait until both languages are rendered, and write the page at the root.

        An error is all that MkDocs warns of in one language.
        """
        errors = []
        for language, request in self.requests.items():
            warnings, rendered = self._answer(language)
            self.rendered |= rendered
            if warnings:  # and it will warn again
                errors.append(BuildError(warnings, CONFIGS[language]))
            else:
                self._store(language, request, rendered)
        self.requests.clear()
        site.mkdir(parents=True, exist_ok=True)
        home = set_policy((self.root / "docs" / "index.html").read_text().replace("{site-url}", site_url()))
        (site / "index.html").write_text(home)
        self.rendered["index.html"] = read(home)
        return errors

    def _start(self, language: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "zhixing_site.site.mkdocs_process", CONFIGS[language]]
        environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        # Ctrl-C reaches the whole foreground group of a terminal: in a session of its own, the process is ended by us.
        return subprocess.Popen(command, cwd=self.root, env=environment, start_new_session=True, **pipes)

    def _answer(self, language: str) -> tuple[str, dict[str, Rendered]]:
        process = self.processes[language]
        try:
            return pickle.load(process.stdout)
        except (EOFError, pickle.UnpicklingError):
            return f"MkDocs was ended from outside (exit code {_end(process)})", {}

    def _store(self, language: str, request: Request, rendered: Mapping[str, Rendered]) -> None:
        """Store what was rendered for later builds."""
        site, pages = request.site, request.pages
        files = [path for path in (site / language).rglob("*") if path.is_file() and path.suffix != ".html"]
        theme = [path for path in files if not (pages / path.relative_to(site)).exists()]
        saved = {f"{language}/{reuse.THEME}": (theme, reuse.NOTHING)}
        saved |= {name: ([site / name], page) for name, page in rendered.items()}
        for name, (paths, page) in saved.items():
            reuse.save(name, request.keys[name], paths, page, site, self.root)
        reuse.forget(language, request.keys, self.root)


def _copy_files(pages: Path, site: Path) -> None:
    """Copy the files that are no pages, as MkDocs does."""
    for path in pages.rglob("*"):
        if path.is_file() and not reuse.is_source(path):
            target = site / path.relative_to(pages)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _end(process: subprocess.Popen) -> int:
    """Kill the process, unless it has ended; returns its exit code."""
    process.kill()
    process.communicate()  # closes the pipes
    return process.returncode
