"""Let MkDocs render expanded pages, in a process a language that loads it while snippets run, and keeps it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from zhixing_site.fault import Fault

CONFIGS = {"en": "mkdocs.yml", "zh": "mkdocs.zh.yml"}


class Renderer:
    """The two processes, which start at once and end with the context."""

    def __init__(self, root: Path):
        self.root = root
        self.processes = {language: self._start(language) for language in CONFIGS}

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.communicate()  # closes the pipes

    def render(self, pages: Path, site: Path, dirty: bool = False) -> list[Fault]:
        """Build both languages side by side, only the pages that differ if `dirty`, and copy the page at the root.

        A fault is all that MkDocs warns of in one language.
        """
        for language in CONFIGS:
            self._ask(language, (str(pages / language), str(site / language), dirty))
        faults = [Fault(said, config) for language, config in CONFIGS.items() if (said := self._answer(language))]
        site.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.root / "docs" / "index.html", site)
        return faults

    def _start(self, language: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "zhixing_site.mkdocs_process", CONFIGS[language]]
        environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        # Ctrl-C goes to a whole session: in one of its own, the process is ended by us.
        return subprocess.Popen(command, cwd=self.root, env=environment, start_new_session=True, **pipes)

    def _ask(self, language: str, request: tuple) -> None:
        if self.processes[language].poll() is not None:
            self.processes[language].communicate()
            self.processes[language] = self._start(language)
        print(json.dumps(request), file=self.processes[language].stdin, flush=True)

    def _answer(self, language: str) -> str:
        process = self.processes[language]
        answer = process.stdout.readline()
        return json.loads(answer) if answer else f"MkDocs was ended from outside (exit code {process.wait()})"
