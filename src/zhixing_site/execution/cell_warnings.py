"""Judge the warnings of a cell."""

from collections.abc import Iterable
from pathlib import Path
from warnings import WarningMessage

from zhixing_site.errors import BuildError
from zhixing_site.execution.snippet import Cell


def judge_warnings(caught: Iterable[WarningMessage], cell: Cell, path: str, root: Path) -> None:
    """Raises BuildError where the cell of the snippet at `path` does not warn as its header says, or warns otherwise.

    A warning that is attributed neither to the cell nor to src/ is a third party's about itself: no error, but the one
    that a header announces may be such a one.
    """
    if cell.warns and cell.warns not in [warning.category.__name__ for warning in caught]:
        raise BuildError(f"should warn {cell.warns}, but does not", path, cell.line, cell.name)
    for warning in caught:
        name, in_cell = warning.category.__name__, warning.filename == str(root / path)
        if name != cell.warns and (in_cell or Path(warning.filename).is_relative_to(root / "src")):
            where = "" if in_cell else f" ({warning.filename}:{warning.lineno})"
            line = warning.lineno if in_cell else cell.line
            raise BuildError(f"warns {name}: {warning.message}{where}", path, line, cell.name)
