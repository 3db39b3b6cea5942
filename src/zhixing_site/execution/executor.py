"""Execute one snippet in the current process, which is its alone.

Imported by the fork server before any snippet runs, so that a run pays for none of these imports.
"""

import gc
import io
import json
import math
import os
import sys
import threading
import traceback
import warnings
from contextlib import nullcontext
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat.v4 as nbf
from IPython.core.displayhook import CapturingDisplayHook
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from zhixing_copy.standalone import digest
from zhixing_site.errors import BuildError
from zhixing_site.execution import figures
from zhixing_site.execution.cell_warnings import judge_warnings
from zhixing_site.execution.dependencies import DependencyTracker
from zhixing_site.execution.snippet import Cell, Snippet

PRINTED = 8_000  # characters of what a cell prints that are kept
PACKAGES = packages_distributions()


class Shell(InteractiveShell):
    """IPython for plain Python: no magics, no printing of tracebacks."""

    def transform_cell(self, raw_cell):
        return raw_cell

    def _tee(self, channel):
        """No second copy of all that is printed, for a history that nobody reads."""
        return nullcontext()

    def showtraceback(self, exc_tuple=None, *args, **kwargs):
        """Called with an argument only by a formatter, where a value's own `__repr__` raises."""
        if exc_tuple:
            sys.unraisablehook(SimpleNamespace(exc_value=exc_tuple[1]))

    def showsyntaxerror(self, *args, **kwargs):
        pass

    showindentationerror = showsyntaxerror


class OutputBuffer(io.StringIO):
    """Keeps the beginning of what is printed and counts the rest."""

    length = lines = 0

    def clear(self) -> None:
        self.seek(self.truncate(0))
        self.length = self.lines = 0

    def write(self, text: str) -> int:
        super().write(text[: max(0, PRINTED - self.length)])
        self.length += len(text)
        self.lines += text.count("\n")
        return len(text)

    def shown(self) -> str:
        text = self.getvalue()
        rest = f"\n… and {self.lines - text.count(chr(10))} more lines\n"
        return text + (rest if self.length > len(text) else "")


class SnippetExecutor:
    """One snippet in this process: its namespace, and the checks that each cell must pass."""

    def __init__(self, snippet: Snippet, root: Path):
        self.snippet, self.root = snippet, root
        self.path = str(root / snippet.path)
        self.printed = OutputBuffer()  # one for all cells: a logging handler keeps the stream that it first saw
        config = Config()
        config.HistoryManager.enabled = False
        Shell.clear_instance()
        self.shell = Shell.instance(config=config, ipython_dir=os.path.dirname(os.getcwd()))
        # The cells are compiled under the snippet's own path and line numbers, which makes
        # tracebacks, warnings and inspect.getsource right without help.
        self.shell.compile.cache = lambda *args, **kwargs: self.path
        self.shell.user_ns["__file__"] = self.path
        self.shell.display_formatter.active_types = ["text/plain"]  # all that a page shows
        self.shell.display_pub = CapturingDisplayPublisher()
        self.shown = self.shell.display_pub.outputs
        self.shell.display_trap.hook = CapturingDisplayHook(shell=self.shell, outputs=self.shown)

    def execute(self, progress) -> dict:
        """The executed notebook; calls `progress(cell)` before each cell. Raises BuildError at the first error."""
        figures.house_style()
        dependencies = DependencyTracker(self.root)
        dependencies.opened[self.snippet.path] = digest(self.snippet.content)
        cells = []
        for number, cell in enumerate(self.snippet.cells, 1):
            progress(cell)
            outputs = self._run(cell)
            drawn = self._draw(cell)
            metadata = {"title": cell.name, "tags": ["hidden"] * cell.hidden, "drawings": drawn}
            if drawn:
                # The value of a drawing cell's last line is noise: [<matplotlib.lines.Line2D at 0x…>].
                outputs = [output for output in outputs if output.output_type != "display_data"]
                outputs.append(nbf.new_output("display_data", {"image/svg+xml": drawn["en-light"]}))
            cells.append(nbf.new_code_cell(cell.source, id=cell.name, metadata=metadata, outputs=outputs))
            cells[-1].execution_count = number
        record = {"values": self._values(), "files": dependencies.files(), "distributions": _distributions()}
        notebook = nbf.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}, "zhixing": record})
        return json.loads(json.dumps(notebook))

    def _run(self, cell: Cell) -> list[dict]:
        printed = self.printed
        printed.clear()
        unseen: list[BaseException] = []  # raised where nobody can catch it: in a thread, in a destructor
        threading.excepthook = sys.unraisablehook = lambda raised: unseen.append(raised.exc_value)
        self.shown.clear()
        standard = sys.stdout, sys.stderr
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sys.stdout = sys.stderr = printed
            result = self.shell.run_cell("\n" * (cell.line - 1) + cell.source)
            sys.stdout, sys.stderr = standard
        caught = [warning for warning in caught if warning.filename != "<>"]  # IPython compiles a first time
        raised = result.error_before_exec or result.error_in_exec
        self._judge_raised(raised, cell.raises, cell)
        for error in unseen:
            self._judge_raised(error, "", cell)
        judge_warnings(caught, cell, self.snippet.path, self.root)
        printed.writelines(f"{cell.warns}: {w.message}\n" for w in caught if w.category.__name__ == cell.warns)
        outputs = [nbf.new_output("stream", name="stdout", text=printed.shown())] if printed.getvalue() else []
        for output in self.shown:
            value = OutputBuffer()
            value.write(output["data"].get("text/plain", ""))
            outputs.append(nbf.new_output("display_data", {**output["data"], "text/plain": value.shown()}))
        if raised is not None:
            name, message = type(raised).__name__, str(raised)
            outputs.append(nbf.new_output("error", ename=name, evalue=message, traceback=[f"{name}: {message}"]))
        return outputs

    def _error(self, cause: str, cell: Cell, line: int = 0) -> BuildError:
        return BuildError(cause, self.snippet.path, line or cell.line, cell.name)

    def _judge_raised(self, raised: BaseException | None, expected: str, cell: Cell) -> None:
        if raised is None and expected:
            raise self._error(f"should raise {expected}, but does not", cell)
        if raised is not None and type(raised).__name__ != expected:
            cause = "".join(traceback.format_exception_only(raised)).strip()
            if isinstance(raised, SystemExit):
                cause = f"quits the process: {cause}"
            if expected:
                cause = f"should raise {expected}, but raises {cause}"
            frames = traceback.extract_tb(raised.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == self.path]
            if isinstance(raised, SyntaxError) and raised.filename == self.path:
                lines.append(raised.lineno)
            raise self._error(cause, cell, lines[-1] if lines else 0)

    def _draw(self, cell: Cell) -> dict[str, str]:
        """The drawings of the figure that the cell left open, which is closed here."""
        numbers = plt.get_fignums()
        if len(numbers) > 1:
            raise self._error(f"draws {len(numbers)} figures; a cell draws one, for the page to caption", cell)
        if not numbers:
            return {}
        path = figures.catalogue_path(self.snippet.path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # a character that no font has
                return figures.draw(plt.figure(numbers[0]), figures.read_catalogue(self.root, path), path)
        except Exception as error:
            raise self._error(f"the figure cannot be drawn: {error}", cell) from error
        finally:
            plt.close("all")

    def _values(self) -> dict[str, bool | int | float | str]:
        """The variables that a page can quote: finite numbers, truth values and short strings."""
        values = {}
        for name, value in self.shell.user_ns.items():
            value = _number(value)
            finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
            if not name.startswith("_") and (finite or (isinstance(value, str) and len(value) < 200)):
                values[name] = value
        return values


def _number(value):
    """The number in an array or tensor without dimensions; anything else as it is."""
    try:
        return value.item() if value.ndim == 0 else value
    except Exception:
        return value


def _distributions() -> list[str]:
    tops = {name.partition(".")[0] for name in list(sys.modules)}
    return sorted({distribution for top in tops for distribution in PACKAGES.get(top, ())})


def warm_up() -> None:
    """Draw once before the first fork: the first drawing of a process costs four times the next."""
    figures.house_style()
    figures.draw(plt.figure("知 $x^2$"), {})
    plt.close("all")
    gc.collect()
    gc.freeze()
