"""Let MkDocs render expanded pages, in a process a language that has it loaded, and keeps it."""

import json
import os
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path

from zhixing_site.errors import BuildError
from zhixing_site.project import CONFIGS, site_url
from zhixing_site.site.postprocess import Rendered, read, set_policy


class Renderer:
    """A process a language, all of which end with the context; `rendered` holds all pages of the site.

    That of English, which has more to do, starts at once; that of Chinese when it is asked, since the builder itself
    wants the second core until then.
    """

    def __init__(self, root: Path):
        self.root = root
        self.rendered: dict[str, Rendered] = {}
        self.processes = {"en": self._start("en")}

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            _end(process)

    def ask(self, language: str, pages: Path, site: Path, navigation: list, dirty: bool = False) -> None:
        """Begin to build a language below site/<language>, only the pages that differ if `dirty`."""
        process = self.processes.get(language)
        if process and process.poll() is not None:
            _end(process)
            process = None
        if not process:
            process = self.processes[language] = self._start(language)
        request = language, str(pages / language), str(site), navigation, dirty
        with suppress(BrokenPipeError):  # it has just ended, as the answer will tell
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()

    def wait(self) -> None:
        """Until a language is there, whose core is free from then on."""
        wait([process.stdout for process in self.processes.values()])

    def answers(self, site: Path, anew: bool = True) -> list[BuildError]:
        """Wait until both languages are there, `anew` or as they were else, and copy the page at the root.

        An error is all that MkDocs warns of in one language.
        """
        if anew:
            self.rendered.clear()
        errors = []
        for language, config in CONFIGS.items():
            said, rendered = self._answer(language)
            errors += [BuildError(said, config)] if said else []
            self.rendered |= rendered
        site.mkdir(parents=True, exist_ok=True)
        home = (self.root / "docs" / "index.html").read_text().replace("{site-url}", site_url())
        home = set_policy(home)
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


def _end(process: subprocess.Popen) -> int:
    """Kill it and all that it has forked; returns its exit code, where it ended before that of its own end."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
    process.communicate()  # closes the pipes
    return process.returncode
