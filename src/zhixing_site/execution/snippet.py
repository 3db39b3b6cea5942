"""Read a snippet, a percent-format notebook: split it into cells, and read their headers: name, tags, raises, warns."""

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from zhixing_copy.source import sources
from zhixing_site.errors import BuildError
from zhixing_site.files import decode, find_files, read_bytes

HEADER = re.compile(r'# %% (?P<name>[A-Za-z_]\w*)( tags=\["hidden"\]| raises="\w+"| warns="\w+")*', re.ASCII)


@dataclass(frozen=True)
class Cell:
    """One cell; `path` is its snippet's, relative to the project's root, and `line` that of its source's first line."""

    path: str
    name: str
    source: str
    line: int
    hidden: bool
    raises: str = ""
    warns: str = ""

    def error(self, cause: str, line: int = 0) -> BuildError:
        """An error at this line of the snippet, or at the cell's first."""
        return BuildError(cause, self.path, line or self.line, self.name)


@dataclass(frozen=True)
class Snippet:
    """A file of cells; `path` is relative to the project's root: snippets/activations/gelu.py."""

    path: str
    content: bytes
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """The path below `snippets`, as pages write it: activations/gelu.py."""
        return self.path.removeprefix("snippets/")

    @property
    def text(self) -> str:
        return decode(self.content, self.path)

    @cached_property
    def sources(self) -> set[str]:
        """The modules of the library that it imports: activations/gelu."""
        return sources(ast.parse(self.text))


def snippet_paths(root: Path) -> list[Path]:
    """All snippets of the project."""
    return [path for path in find_files(root / "snippets", root) if path.suffix == ".py"]


def read_snippet(path: Path, root: Path) -> Snippet:
    """Split the file into cells; raises BuildError if a header is malformed or a name is used twice."""
    relative = path.relative_to(root).as_posix()
    content = read_bytes(path, root)
    lines = decode(content, relative).split("\n")
    starts = [number for number, line in enumerate(lines) if re.match(r"#\s*%%", line)]
    if not starts or any(line.strip() for line in lines[: starts[0]]):
        raise BuildError("a snippet starts with a cell: `# %% name`", relative, 1)
    cells: dict[str, Cell] = {}
    for start, end in pairwise([*starts, len(lines)]):
        cell = _read_cell(lines[start:end], start + 1, relative)
        if cell.name in cells:
            raise cell.error("a second cell with this name", start + 1)
        cells[cell.name] = cell
    return Snippet(relative, content, tuple(cells.values()))


def _read_cell(lines: list[str], number: int, path: str) -> Cell:
    """The cell of these lines, of which the first is line `number` of the file."""
    header, body = lines[0], "\n".join(lines[1:])
    match = HEADER.fullmatch(header)
    if not match:
        form = 'a cell starts with `# %% name`, an identifier, then tags=["hidden"], raises="…" or warns="…"'
        raise BuildError(f"{form}; this is `{header}`", path, number)
    source = body.lstrip("\n")
    line = number + 1 + len(body) - len(source)
    announced = dict(re.findall(r'(raises|warns)="(\w+)"', header))
    return Cell(path, match["name"], source.rstrip(), line, "tags=" in header, **announced)
