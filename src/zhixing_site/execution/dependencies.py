"""Record what a run reads: every file of the project that it imports or opens, and every folder that it lists."""

import os
import re
import sys
from importlib.util import source_from_cache
from pathlib import Path

from zhixing_copy.standalone import digest
from zhixing_site.project import file_digest

LISTING_EVENTS = {"os.listdir", "os.scandir"}
IMPORTERS = ("_frozen_importlib", "importlib.")  # modules that list folders only to find what is imported
# A process was started, whose imports cannot be seen: audit events, and modules that start one without an event.
START_EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec", "os.system"}
START_MODULES = {"multiprocessing.popen_spawn_posix", "multiprocessing.popen_forkserver"}


def state(path: Path) -> str:
    """The digest of the file, or of the names in the folder; 'absent' where there is neither."""
    try:
        names = sorted(os.listdir(os.fsencode(path)))
    except OSError:
        return file_digest(path)
    return digest(b"/".join(name for name in names if name != b"__pycache__"))


class DependencyTracker:
    """From its creation on, records each file of the project when it is first read, as {relative path: state}."""

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
            opened = dict(self.opened)
            found = list(self.source.rglob("*"))
            self.opened = opened  # without the folders that were listed for this
            for path in found:
                if path.is_file() and "/." not in f"/{path.relative_to(self.source)}":
                    self._add(path)
        return dict(sorted(self.opened.items()))

    def _record(self, event: str, arguments: tuple) -> None:
        if event in START_EVENTS:
            self.started_process = True
        elif event == "import" and (self.source / arguments[0].partition(".")[0]).exists():
            path = self.source / arguments[0].replace(".", "/")  # if it is absent, it may appear later
            self._add(path.with_suffix(".py"))
            self._add(path / "__init__.py")
        elif event == "open":
            _, _, flags = arguments
            if not (isinstance(flags, int) and flags & os.O_ACCMODE == os.O_WRONLY):
                self._add_argument(arguments[0])
        elif event in LISTING_EVENTS:
            if not sys._getframe(1).f_globals.get("__name__", "").startswith(IMPORTERS):
                self._add_argument(arguments[0])
        elif event == "ctypes.dlopen":
            self._add_argument(arguments[0])
        elif event == "sqlite3.connect":
            self._add_argument(re.sub(r"^file:([^?]*).*", r"\1", os.fsdecode(arguments[0])))

    def _add_argument(self, path: str | bytes | int | None) -> None:
        """Record what a call reads, of which this is the argument: None for the working directory, or a descriptor."""
        if not isinstance(path, int):
            self._add(Path(os.path.abspath(os.fsdecode(path or "."))))

    def _add(self, path: Path) -> None:
        if path.suffix == ".pyc" and path.parent.name == "__pycache__":
            path = Path(source_from_cache(path))
        ours = path.is_relative_to(self.root) and not any(map(path.is_relative_to, (self.root / ".cache", sys.prefix)))
        name = path.relative_to(self.root).as_posix() if ours else ""
        if ours and path.name != "__pycache__" and name not in self.opened:
            self.opened[name] = "absent"  # known from here on: reading the file opens it again
            self.opened[name] = state(path)
