"""Read a snippet: a percent-format notebook whose cells have names."""

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from zhixing_copy.source import sources
from zhixing_site.errors import BuildError

HEADER = re.compile(r'# %% (?P<name>[A-Za-z_]\w*)( tags=\["hidden"\]| raises="\w+"| warns="\w+")*', re.ASCII)


@dataclass(frozen=True)
class Cell:
    name: str
    source: str
    line: int  # of the first line of `source` in the snippet
    hidden: bool
    raises: str
    warns: str


@dataclass(frozen=True)
class Snippet:
    path: str  # relative to the project's root: snippets/activations/gelu.py
    content: bytes
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """The path below `snippets`, as pages write it: activations/gelu.py."""
        return self.path.removeprefix("snippets/")

    @cached_property
    def sources(self) -> set[str]:
        """The modules of the library that it imports: activations/gelu."""
        return sources(ast.parse(self.content))


def snippet_paths(root: Path) -> list[Path]:
    return sorted((root / "snippets").rglob("*.py"))


def read_snippet(path: Path, root: Path) -> Snippet:
    """Split the file into cells; raises BuildError where they are not well-formed and differently named."""
    content, relative = path.read_bytes(), path.relative_to(root).as_posix()
    try:
        lines = re.split("\r\n|\r|\n", content.decode())
    except UnicodeDecodeError as error:
        raise BuildError(f"the file is not UTF-8: {error}", relative) from error
    starts = [number for number, line in enumerate(lines) if re.match(r"#\s*%%", line)]
    for start in starts:
        if not HEADER.fullmatch(lines[start]):
            form = 'a cell starts with `# %% name`, an identifier, then tags=["hidden"], raises="…" or warns="…"'
            raise BuildError(f"{form}; this is `{lines[start]}`", relative, start + 1)
    if not starts or any(line.strip() for line in lines[: starts[0]]):
        raise BuildError("a snippet starts with a cell: `# %% name`", relative, 1)
    cells = [_cell(lines[start:end], start + 1) for start, end in pairwise([*starts, len(lines)])]
    for number, (cell, start) in enumerate(zip(cells, starts, strict=True)):
        if cell.name in [earlier.name for earlier in cells[:number]]:
            raise BuildError("a second cell of this name", relative, start + 1, cell.name)
    return Snippet(relative, content, tuple(cells))


def _cell(lines: list[str], number: int) -> Cell:
    """The cell of these lines, of which the first is line `number` of the file."""
    header, body = lines[0], "\n".join(lines[1:])
    source = body.lstrip("\n")
    name = HEADER.fullmatch(header)["name"]
    raises, warns = (re.search(rf'{key}="(\w+)"', header) for key in ("raises", "warns"))
    line = number + 1 + len(body) - len(source)
    return Cell(name, source.rstrip(), line, "tags=" in header, raises[1] if raises else "", warns[1] if warns else "")
