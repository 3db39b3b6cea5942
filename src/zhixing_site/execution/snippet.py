"""Read a snippet, a percent-format notebook: split it into cells, and read their headers."""

import ast
import io
import re
import tokenize
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from zhixing_copy.source import sources
from zhixing_site.errors import BuildError
from zhixing_site.files import decode, find_files, read_bytes

# As long as the id of a notebook's cell may be.
HEADER = re.compile(
    r'# %% (?P<name>[A-Za-z_]\w{0,63})( tags=\["hidden"\]| (raises|warns)="\w+"| (frames|poster)="[^"]+")*', re.ASCII
)

# What HTML cannot contain, or changes: control characters, halves of surrogate pairs, and no characters.
UNSHOWABLE = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Cell:
    """One cell; `path` is its snippet's, relative to the project's root, and `line` that of its source's first line.

    With `frames`, it leaves several figures, among which a reader chooses by a slider: `frames` names what the slider
    sets, and `poster` is the label of the figure that is shown at first.
    """

    path: str
    name: str
    source: str
    line: int
    hidden: bool
    raises: str = ""
    warns: str = ""
    frames: str = ""
    poster: str = ""

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

    def error(self, cause: str, line: int) -> BuildError:
        """An error at this line, in the cell that holds it."""
        cell = next(cell for cell in reversed(self.cells) if cell.line <= line or cell is self.cells[0])
        return cell.error(cause, line)


def snippet_paths(root: Path) -> list[Path]:
    """All snippets of the project."""
    return [path for path in find_files(root / "snippets", root) if path.suffix == ".py"]


def read_snippet(path: Path, root: Path) -> Snippet:
    """Split the file into cells; raises BuildError if a header is malformed or a name is used twice."""
    relative = path.relative_to(root).as_posix()
    content = read_bytes(path, root)
    lines = decode(content, relative).split("\n")
    quoted = lines_in_strings("\n".join(lines))
    starts = [number for number, line in enumerate(lines) if re.match(r"#\s*%%", line) and number + 1 not in quoted]
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
        options = 'tags=["hidden"], raises="…", warns="…", frames="…" or poster="…"'
        form = f"a cell starts with `# %% name`, an identifier, then {options}"
        raise BuildError(f"{form}; this is `{header}`", path, number)
    source = body.lstrip("\n")
    line = number + 1 + len(body) - len(source)
    options = dict(re.findall(r'(raises|warns|frames|poster)="([^"]+)"', header))
    if "poster" in options and "frames" not in options:
        raise BuildError('poster="…" names one of the figures of frames="…", which is missing', path, number)
    return Cell(path, match["name"], source.rstrip(), line, ' tags=["hidden"]' in header, **options)


def lines_in_strings(source: str) -> set[int]:
    """The numbers of the lines, from 1, that begin inside a string."""
    found, starts = set(), []
    with suppress(tokenize.TokenError, SyntaxError):  # a run reports it
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            kind = tokenize.tok_name[token.type]
            if kind.endswith(("STRING", "STRING_START")):  # the latter of a string with replacement fields
                starts.append(token.start[0])
            if kind.endswith(("STRING", "STRING_END")):
                found.update(range(starts.pop() + 1, token.end[0] + 1))
    return found
