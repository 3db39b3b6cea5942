"""Read a snippet: a percent-format notebook whose cells have names."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

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

    @property
    def name(self) -> str:
        """The path below `snippets`, as pages write it: activations/gelu.py."""
        return self.path.removeprefix("snippets/")

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Parsed when asked for, which costs more than all else where the run is cached.

        Raises Fault where the content is not a sequence of well-formed, differently named cells.
        """
        import jupytext  # half a second

        lines = self.content.decode().splitlines()
        headers = [number for number, line in enumerate(lines, 1) if re.match(r"#\s*%%", line)]
        for number in headers:
            if not HEADER.fullmatch(lines[number - 1]):
                form = 'a cell starts with `# %% name`, an identifier, then tags=["hidden"], raises="…" or warns="…"'
                raise Fault(f"{form}; this is `{lines[number - 1]}`", self.path, number)
        if not headers or any(line.strip() for line in lines[: headers[0] - 1]):
            raise Fault("a snippet starts with a cell: `# %% name`", self.path, 1)
        form = {"extension": ".py", "format_name": "percent", "comment_magics": False}  # a comment stays one
        parsed = jupytext.reads(self.content.decode(), form).cells
        if len(parsed) != len(headers):
            raise Fault(f"{len(headers)} lines look like a cell's header, {len(parsed)} are one", self.path, 1)
        cells = tuple(_cell(*pair) for pair in zip(parsed, headers, strict=True))
        for number, cell in enumerate(cells):
            if cell.name in [earlier.name for earlier in cells[:number]]:
                raise Fault("a second cell of this name", self.path, headers[number], cell.name)
        return cells


def snippet_paths(root: Path) -> list[Path]:
    return sorted((root / "snippets").rglob("*.py"))


def read_snippet(path: Path, root: Path) -> Snippet:
    return Snippet(path.relative_to(root).as_posix(), path.read_bytes())


def _cell(parsed, header: int) -> Cell:
    metadata, source = parsed.metadata, parsed.source.lstrip("\n")
    line = header + 1 + len(parsed.source) - len(source)
    hidden = "hidden" in metadata.get("tags", [])
    return Cell(metadata["title"], source.rstrip(), line, hidden, metadata.get("raises", ""), metadata.get("warns", ""))
