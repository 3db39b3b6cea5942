"""Run cells in one namespace, and check that each raises and warns what its header announces (snippet.py)."""

import __future__

import ast
import io
import re
import sys
import threading
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from warnings import WarningMessage, catch_warnings, simplefilter

import IPython.display
from IPython.lib.pretty import pretty

from zhixing_site.execution.snippet import Cell, Snippet

MAX_OUTPUT = 8_000  # characters kept of what a cell prints, of its last value, and of an exception
# Methods by which IPython shows a value other than as text.
RICH = re.compile(r"_ipython_display_|_repr_(?!pretty_)\w+_")
FEATURES = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
INSTEAD = "print a text, or draw a figure with pyplot and leave it open"


@dataclass(frozen=True)
class CellOutput:
    """What a cell printed, the value of its last expression as text, and the announced exception with its name.

    The value is `opaque` if its text does not say what it contains.
    """

    printed: str
    value: str
    opaque: bool
    raised: str


class Session:
    """Runs cells one after the other in the same namespace, with these features of `__future__`."""

    def __init__(self, namespace: dict[str, object], root: Path, features: int):
        self.namespace, self.root, self.features = namespace, root, features
        IPython.display.display = IPython.core.display_functions.display = _display
        self.printed = io.StringIO()  # one for all cells: a logging handler keeps the stream that it first got

    def run(self, cell: Cell) -> CellOutput:
        """Run the cell under its snippet's own path and line numbers.

        Raises BuildError if it raises or warns other than its header announces, from the exception if there is one.
        """
        value, opaque, raised = "", False, None
        self.printed.seek(self.printed.truncate(0))
        with _uncaught() as uncaught, catch_warnings(record=True) as warned:
            simplefilter("always")
            with redirect_stdout(self.printed), redirect_stderr(self.printed):
                try:
                    value, opaque = self._execute("\n" * (cell.line - 1) + cell.source, str(self.root / cell.path))
                except BaseException as error:
                    raised = error
        self._check_raised(raised, cell.raises, cell)
        for error in uncaught:
            self._check_raised(error, "", cell)
        self._check_warned(warned, cell)
        announced = [f"{cell.warns}: {w.message}\n" for w in warned if w.category.__name__ == cell.warns]
        printed = self.printed.getvalue() + "".join(announced)
        message = "" if raised is None else f"{cell.raises}: {raised}"
        return CellOutput(_shorten(printed), _shorten(value), opaque, _shorten(message))

    def _execute(self, source: str, file: str) -> tuple[str, bool]:
        """Run the source as that of the file; returns the value of a last expression, and whether it is opaque."""
        tree = self._compile(source, file, "exec", ast.PyCF_ONLY_AST)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(self._compile(tree, file, "exec"), self.namespace)
        value = eval(self._compile(ast.Expression(last.value), file, "eval"), self.namespace) if last else None
        return ("", False) if value is None else _text(value)

    def _compile(self, source: str | ast.AST, file: str, mode: str, flags: int = 0) -> types.CodeType | ast.AST:
        return compile(source, file, mode, flags | self.features, dont_inherit=True)

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
            ours = [f"{file}:{line}" for file, line in places if str(file).startswith(f"{self.root}/src/")]
            if ours:
                cause += f" ({ours[-1].removeprefix(f'{self.root}/')})"
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


def future_features(snippet: Snippet) -> int:
    """The flags of what the snippet imports from `__future__`, which apply to all cells, as in the program.

    Raises BuildError if the cells, one after the other, are no program: readers can download it.
    """
    try:
        with catch_warnings(action="ignore"):  # the session checks the warnings of each cell
            program = compile(snippet.text, snippet.path, "exec", dont_inherit=True)
    except SyntaxError as error:
        cause = f"{type(error).__name__}: {error.msg}; the cells must form a program, which readers can download"
        if any(cell.raises in ("SyntaxError", "IndentationError", "TabError") for cell in snippet.cells):
            cause += '; write code that is to fail as text: exec("1 +")'
        raise snippet.error(cause, error.lineno or 1) from error
    return program.co_flags & FEATURES


@contextmanager
def _uncaught() -> Iterator[list[BaseException]]:
    """The exceptions that no code can catch: those of threads and destructors."""
    hooks, raised = (threading.excepthook, sys.unraisablehook), []
    threading.excepthook = sys.unraisablehook = lambda arguments: raised.append(arguments.exc_value)
    try:
        yield raised
    finally:
        threading.excepthook, sys.unraisablehook = hooks


def _text(value: object) -> tuple[str, bool]:
    """The value as text, and whether that is opaque: says of what type it is, but not what it contains."""
    text = pretty(value)
    is_shown_otherwise = any(map(RICH.fullmatch, dir(type(value))))
    return text, bool(re.fullmatch("<.*>", text, re.DOTALL)) and (is_shown_otherwise or " at 0x" in text)


def _display(*values: object, **_options: object) -> None:
    """In place of IPython's `display`: print the values as text."""
    for text, opaque in map(_text, values):
        if opaque:
            raise ValueError(f"a page could show only the text {text}; {INSTEAD}")
        print(text)


def _shorten(text: str) -> str:
    """The beginning of a long text, and how much follows: whole lines, or characters of the first one."""
    if len(text.rstrip("\n")) <= MAX_OUTPUT:
        return text
    text = text.rstrip("\n")
    kept = text[:MAX_OUTPUT]
    if lines := kept.rpartition("\n")[0].strip("\n"):
        kept, number, unit = lines, text.count("\n", len(lines)), "line"
    else:
        number, unit = len(text) - MAX_OUTPUT, "character"
    return f"{kept}\n… and {number} more {unit}{'s' * (number > 1)}\n"
