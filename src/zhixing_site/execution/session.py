"""Run cells in one namespace, and check that each raises and warns what its header announces (snippet.py)."""

import ast
import io
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from warnings import WarningMessage, catch_warnings, simplefilter

from IPython.lib.pretty import pretty

from zhixing_site.execution.snippet import Cell

MAX_OUTPUT = 8_000  # characters kept of what a cell prints, and of its last value


@dataclass(frozen=True)
class CellOutput:
    """What a cell printed, the value of its last expression as text, and the announced exception."""

    printed: str
    value: str
    raised: BaseException | None


class Session:
    """Runs cells one after the other in the same namespace."""

    def __init__(self, namespace: dict[str, object], root: Path):
        self.namespace, self.root = namespace, root
        self.printed = io.StringIO()  # one for all cells: a logging handler keeps the stream that it first got

    def run(self, cell: Cell) -> CellOutput:
        """Run the cell under its snippet's own path and line numbers.

        Raises BuildError if it raises or warns other than its header announces, from the exception if there is one.
        """
        value, raised = "", None
        self.printed.seek(self.printed.truncate(0))
        with _uncaught() as uncaught, catch_warnings(record=True) as warned:
            simplefilter("always")
            with redirect_stdout(self.printed), redirect_stderr(self.printed):
                try:
                    value = self._execute("\n" * (cell.line - 1) + cell.source, str(self.root / cell.path))
                except BaseException as error:
                    raised = error
        self._check_raised(raised, cell.raises, cell)
        for error in uncaught:
            self._check_raised(error, "", cell)
        self._check_warned(warned, cell)
        announced = [f"{cell.warns}: {w.message}\n" for w in warned if w.category.__name__ == cell.warns]
        return CellOutput(_shorten(self.printed.getvalue() + "".join(announced)), _shorten(value), raised)

    def _execute(self, source: str, file: str) -> str:
        """Run the source as that of the file; returns the value of a last expression, or nothing for None."""
        tree = compile(source, file, "exec", ast.PyCF_ONLY_AST)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, file, "exec"), self.namespace)
        value = eval(compile(ast.Expression(last.value), file, "eval"), self.namespace) if last else None
        return "" if value is None else pretty(value)

    def _check_raised(self, raised: BaseException | None, expected: str, cell: Cell) -> None:
        if raised is None and expected:
            raise cell.error(f"should raise {expected}, but does not")
        if raised is not None and type(raised).__name__ != expected:
            cause = "".join(traceback.format_exception_only(raised)).strip()
            if isinstance(raised, SystemExit):
                cause = f"quits the process: {cause}"
            if expected:
                cause = f"should raise {expected}, but raises {cause}"
            places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(raised.__traceback__)]
            if isinstance(raised, SyntaxError):
                places.append((raised.filename, raised.lineno))
            lines = [line for file, line in places if file == str(self.root / cell.path)]
            raise cell.error(cause, lines[-1] if lines else 0) from raised

    def _check_warned(self, warned: list[WarningMessage], cell: Cell) -> None:
        # A warning that is attributed neither to the cell nor to src/ is a third party's about itself, and no error.
        if cell.warns and cell.warns not in [warning.category.__name__ for warning in warned]:
            raise cell.error(f"should warn {cell.warns}, but does not")
        for warning in warned:
            name, in_cell = warning.category.__name__, warning.filename == str(self.root / cell.path)
            if name != cell.warns and (in_cell or Path(warning.filename).is_relative_to(self.root / "src")):
                where = "" if in_cell else f" ({warning.filename}:{warning.lineno})"
                raise cell.error(f"warns {name}: {warning.message}{where}", warning.lineno if in_cell else 0)


@contextmanager
def _uncaught() -> Iterator[list[BaseException]]:
    """The exceptions that no code can catch: those of threads and destructors."""
    hooks, raised = (threading.excepthook, sys.unraisablehook), []
    threading.excepthook = sys.unraisablehook = lambda arguments: raised.append(arguments.exc_value)
    try:
        yield raised
    finally:
        threading.excepthook, sys.unraisablehook = hooks


def _shorten(text: str) -> str:
    """The beginning of a long text, and how many lines follow."""
    kept, rest = text[:MAX_OUTPUT], text[MAX_OUTPUT:]
    return f"{kept}\n… and {rest.count(chr(10))} more lines\n" if rest else kept
