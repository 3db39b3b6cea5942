"""Record what a run reads: every file of the project that it imports or opens."""

import os
import sys
from importlib.util import source_from_cache
from pathlib import Path

from zhixing_site.project import file_digest

# A process was started, whose imports cannot be seen: audit events, and modules that start one without an event.
START_EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec", "os.system"}
START_MODULES = {"multiprocessing.popen_spawn_posix", "multiprocessing.popen_forkserver"}


class DependencyTracker:
    """From its creation on, records each file of the project when it is first opened, as {relative path: digest}."""

    def __init__(self, root: Path):
        self.root, self.source = root, root / "src"
        self.opened: dict[str, str] = {}
        self.started_process = False
        sys.path.insert(0, str(self.source))
        sys.dont_write_bytecode = True
        sys.addaudithook(self._record)

    def files(self) -> dict[str, str]:
        """The files that were read, with all of `src` if another process was started."""
        if self.started_process or START_MODULES & set(sys.modules):
            for path in self.source.rglob("*"):
                self._add(path)
        return dict(sorted(self.opened.items()))

    def _record(self, event: str, arguments: tuple) -> None:
        if event in START_EVENTS:
            self.started_process = True
        elif event == "import" and (self.source / arguments[0].partition(".")[0]).exists():
            path = self.source / arguments[0].replace(".", "/")  # if it is absent, it may appear later
            self._add(path.with_suffix(".py"))
            self._add(path / "__init__.py")
        elif event == "open" and not isinstance(arguments[0], int):
            _, _, flags = arguments
            if not (isinstance(flags, int) and flags & os.O_ACCMODE == os.O_WRONLY):
                self._add(Path(os.path.abspath(os.fsdecode(arguments[0]))))

    def _add(self, path: Path) -> None:
        if path.suffix == ".pyc":
            path = Path(source_from_cache(path)) if path.parent.name == "__pycache__" else path
        if not path.is_relative_to(self.root) or path.is_relative_to(sys.prefix) or path.is_dir():
            return
        name = path.relative_to(self.root).as_posix()
        if name not in self.opened and not any(part.startswith(".") for part in name.split("/")):
            self.opened[name] = "absent"  # known from here on: reading the file opens it again
            self.opened[name] = file_digest(path)
