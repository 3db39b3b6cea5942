"""Read a snippet: a percent-format notebook whose cells have names."""

import re
from dataclasses import dataclass
from pathlib import Path

import jupytext

from zhixing_site.fault import Fault

HEADER = re.compile(r'# %% [A-Za-z_]\w*( tags=\["hidden"\]| raises="\w+"| warns="\w+")*', re.ASCII)


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


def snippet_paths(root: Path) -> list[Path]:
    return sorted((root / "snippets").rglob("*.py"))


def read_snippet(path: Path, root: Path) -> Snippet:
    """Parse the file; raises Fault where it is not a sequence of well-formed, differently named cells."""
    content, relative = path.read_bytes(), path.relative_to(root).as_posix()
    lines = content.decode().splitlines()
    headers = [number for number, line in enumerate(lines, 1) if re.match(r"#\s*%%", line)]
    for number in headers:
        if not HEADER.fullmatch(lines[number - 1]):
            form = 'a cell starts with `# %% name`, an identifier, then tags=["hidden"], raises="…" or warns="…"'
            raise Fault(f"{form}; this is `{lines[number - 1]}`", relative, number)
    if not headers or any(line.strip() for line in lines[: headers[0] - 1]):
        raise Fault("a snippet starts with a cell: `# %% name`", relative, 1)
    form = {"extension": ".py", "format_name": "percent", "comment_magics": False}  # a comment stays one
    parsed = jupytext.reads(content.decode(), form).cells
    if len(parsed) != len(headers):
        raise Fault(f"{len(headers)} lines look like a cell's header, {len(parsed)} are one", relative, 1)
    cells = tuple(_cell(*pair) for pair in zip(parsed, headers, strict=True))
    for number, cell in enumerate(cells):
        if cell.name in [earlier.name for earlier in cells[:number]]:
            raise Fault("a second cell of this name", relative, headers[number], cell.name)
    return Snippet(relative, content, cells)


def _cell(parsed, header: int) -> Cell:
    metadata, source = parsed.metadata, parsed.source.lstrip("\n")
    line = header + 1 + len(parsed.source) - len(source)
    hidden = "hidden" in metadata.get("tags", [])
    return Cell(metadata["title"], source.rstrip(), line, hidden, metadata.get("raises", ""), metadata.get("warns", ""))
