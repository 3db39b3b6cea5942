"""Render expanded pages with MkDocs, which runs in a process for each language, and only if a page has changed."""

import multiprocessing
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from zhixing_copy.source import Module
from zhixing_site.errors import BuildError
from zhixing_site.files import read_text
from zhixing_site.project import CONFIGS, site_url
from zhixing_site.site import reuse
from zhixing_site.site.postprocess import Rendered, read, set_policy
from zhixing_site.store import write_files

SPAWN = multiprocessing.get_context("spawn")


class Worker:
    """A process that has MkDocs loaded, and its end of a pipe."""

    def __init__(self, language: str, root: Path):
        self.pipe, other = multiprocessing.Pipe()
        self.process = SPAWN.Process(target=work, args=(CONFIGS[language], root, other), daemon=True)
        self.process.start()
        other.close()

    def result(self) -> tuple[str, dict[str, Rendered]]:
        """What MkDocs warns of, and the pages that it rendered."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return f"the MkDocs process ended unexpectedly (exit code {self.end()})", {}

    def end(self) -> int:
        """Kill the process, unless it has ended; returns its exit code."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return self.process.exitcode


def work(config: str, root: Path, requests: Connection) -> None:
    """Load MkDocs and answer requests, in the worker's process."""
    from zhixing_site.site.mkdocs_process import main  # MkDocs is not loaded by the builder

    main(config, root, requests)


class Renderer(AbstractContextManager):
    """Renders folder/pages/<language> into folder/site/<language>, for both languages.

    `rendered` has all HTML files of the site. The processes end with the context.
    """

    def __init__(self, root: Path):
        self.root = root
        self.rendered: dict[str, Rendered] = {}
        self.workers: dict[str, Worker] = {}
        self.requests: dict[str, dict[str, str]] = {}  # those without an answer: {language: reuse.page_keys}

    def __exit__(self, *error: object) -> None:
        for worker in self.workers.values():
            worker.end()

    def start(self, language: str) -> Worker:
        """The worker of the language, which loads MkDocs, unless it has done so."""
        if language not in self.workers or not self.workers[language].process.is_alive():
            self.workers[language] = Worker(language, self.root)
        return self.workers[language]

    def submit(self, language: str, folder: Path, navigation: list, modules: Mapping[str, Module]) -> None:
        """Begin to render the pages of a language, of which the site holds no HTML yet."""
        if self.requests.pop(language, None):  # an update of a preview broke off, and wants no answer any more
            self.workers.pop(language).end()
        pages, site = folder / "pages", folder / "site"
        keys = reuse.page_keys(language, pages, navigation, modules, self.root)
        loaded = {name: reuse.load(name, key, site, self.root) for name, key in keys.items()}
        self.rendered = {name: page for name, page in self.rendered.items() if not name.startswith(f"{language}/")}
        self.rendered |= {name: page for name, page in loaded.items() if page}
        if all(loaded.values()):
            # What is no page is copied as MkDocs does.
            ignored = shutil.ignore_patterns(*reuse.SOURCES)
            shutil.copytree(pages / language, site / language, ignore=ignored, dirs_exist_ok=True)
            reuse.touch(language, self.root)
            return
        (site / language / reuse.SHARED).unlink(missing_ok=True)  # is rendered each time
        self.requests[language] = keys
        with suppress(OSError):  # it has just ended, as the answer will tell
            self.start(language).pipe.send((language, folder, navigation))

    def collect(self, folder: Path) -> list[BuildError]:
        """Wait until both languages are rendered, and write the page at the root.

        An error is all that MkDocs warns of in one language.
        """
        errors, site = [], folder / "site"
        for language, keys in self.requests.items():
            warnings, rendered = self.workers[language].result()
            self.rendered |= rendered
            if warnings:  # and it will warn again
                errors.append(BuildError(warnings, CONFIGS[language]))
            else:
                self._store(language, keys, rendered, folder)
        self.requests.clear()
        home = set_policy(read_text(self.root / "docs/index.html", self.root).replace("{site-url}", site_url()))
        write_files({"index.html": home}, site)
        self.rendered["index.html"] = read(home)
        return errors

    def _store(self, language: str, keys: Mapping[str, str], rendered: Mapping[str, Rendered], folder: Path) -> None:
        """Store what was rendered for later builds."""
        site, pages = folder / "site", folder / "pages"
        files = [path for path in (site / language).rglob("*") if path.is_file() and path.suffix != ".html"]
        theme = [path for path in files if not (pages / path.relative_to(site)).exists()]
        for name, page in rendered.items():
            others = theme if name == f"{language}/{reuse.SHARED}" else []
            reuse.save(name, keys[name], [site / name, *others], page, site, self.root)
