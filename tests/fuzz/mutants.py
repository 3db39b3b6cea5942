"""Changes of files, drawn at random: of lines, characters, whole files, names."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from small import Files


def tokens(name: str) -> list[str]:
    """What is put into files of this kind; in the list, ¶ is the end of a line, and ⇥ a tab."""
    text = (Path(__file__).parent / "tokens" / f"{name}.txt").read_text()
    return text.replace("⇥", "\t").rstrip("\n").split("\n")


CHARACTERS = [
    *"\r\0\f\v\x1b\x85\xa0\u00ad\u200b\u200f\u202e\u2028\u2029\ufeff\ue000\uffff\udcff𝕏﷽",
    "e\u0301",
    "👩\u200d👧",
]
DEEP = [
    *"*[(`${_#|~\\",
    "> ",
    "- ",
    "1. ",
    "<b>",
    "{{",
    "[a](",
    "**a",
    "![",
    "<!--",
    "$\\frac{",
    "a ",
    "\n",
    "| a ",
    "--8<--",
]
LONG = [
    "x" * 20_000,
    "x " * 20_000,
    "$" + "x+" * 5_000 + "x$",
    "${" + "{" * 200 + "}" * 200 + "}$",
    "a\n" * 500,
    "（" * 500,
]
COMMON = CHARACTERS + [each * 60 for each in DEEP] + LONG
TOKENS = {name: tokens(name) for name in ("page", "matter", "python", "table", "labels", "names")}
WHOLE: dict[
    str, Callable[[str], object]
] = {  # what becomes of a whole file: bytes, the target of a link, None a folder
    "UTF-16": lambda text: text.encode("utf-16"),
    "GB18030": lambda text: text.encode("gb18030", "replace"),
    "Latin-1": lambda text: text.encode("latin-1", "replace") + b"\xe9",
    "byte-order mark": lambda text: text.encode("utf-8-sig", "replace"),
    "Windows line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "Mac line ends": lambda text: text.replace("\n", "\r").encode(),
    "no final line end": lambda text: text.rstrip("\n").encode(),
    "empty": lambda text: b"",
    "blank": lambda text: b"\n \n\t\n",
    "half": lambda text: text.encode()[: len(text) // 2],
    "zeros": lambda text: bytes(len(text)),
    "random": lambda text: random.Random(text).randbytes(300),
    "lone surrogate": lambda text: text.encode() + b"\xed\xa0\x80",
    "folder": lambda text: None,
    "link to nothing": lambda text: Path("me@host.1:1"),
    "link to a folder": lambda text: Path("."),
    "link to a page": lambda text: Path("roots.md"),
    "absent": lambda text: ...,
}


def change(text: str, action: str, line: float, column: float, token: str) -> str:
    """The text with a change at a line and column, given as fractions of all lines and of the line."""
    lines = text.split("\n")
    number = int(line * len(lines))
    here, token = lines[number], token.replace("¶", "\n")
    cut = int(column * len(here))
    changed = {
        "insert": [here[:cut] + token + here[cut:]],
        "insert lines": [token, here],
        "insert paragraph": ["", token, "", here],
        "replace": [re.sub(r"\w+", lambda _: token, here[:cut]) + here[cut:]],
        "delete": [],
        "delete characters": [here[:cut] + here[cut + 1 + len(token) % 5 :]],
        "double": [here, here],
        "move": [],
        "indent": ["    " + here],
        "quote": ["> " + here],
        "cut": [here],
    }[action]
    rest = [] if action == "cut" else lines[number + 1 :]
    return "\n".join([*lines[:number], *changed, *rest[:1], *[here] * (action == "move"), *rest[1:]])


ACTIONS = ["insert"] * 5 + ["insert lines"] * 4 + ["insert paragraph"] * 6
ACTIONS += ["replace", "delete", "delete characters", "double", "move", "indent", "quote", "cut"]


@dataclass(frozen=True)
class Edit:
    """A change that is alike in each of these files."""

    paths: tuple[str, ...]
    action: str
    token: str = ""
    line: float = 0
    column: float = 0

    def apply(self, files: Files) -> Files:
        changed = {path: self._content(files.get(path, b"")) for path in self.paths}
        return {path: content for path, content in (files | changed).items() if content is not ...}

    def _content(self, content: object) -> object:
        if not isinstance(content, bytes):
            return content
        if self.action in WHOLE:
            return WHOLE[self.action](content.decode(errors="replace"))
        text = content.decode("utf-8", "surrogateescape")
        return change(text, self.action, self.line, self.column, self.token).encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Mutant:
    """Changes; whether a person accepts the translations, whether MkDocs renders the pages, and what else is tried."""

    edits: tuple[Edit, ...]
    accepted: bool = True
    rendered: bool = True
    also: str = ""

    def files(self, files: Files) -> Files:
        for edit in self.edits:
            files = edit.apply(files)
        return files


def draw(seed: int, good: Files) -> Mutant:
    """The mutant of this number."""
    rng = random.Random(seed)
    pages = [path for path in good if re.match(r"docs/en/.*\.md$", path)]
    code = [path for path in good if re.match(r"(snippets|src)/.*\.py$", path) and good[path]]
    tables = {"table": "docs/glossary.csv", "labels": "snippets/area/squares.toml"}
    kind = rng.choices(["page", "matter", "python", *tables, "whole", "names"], [50, 8, 12, 6, 3, 10, 6])[0]
    path, edits = rng.choice(code if kind == "python" else pages), []
    if kind == "whole":
        edits.append(Edit(twins(rng.choice([*pages, *code, *tables.values()]), rng), rng.choice([*WHOLE])))
    elif kind == "names":
        path = Path(rng.choice(["docs/en/more.md", *code]))  # a page in no area needs no front matter
        paths = twins(f"{path.parent}/{rng.choice(TOKENS[kind]).format(path.name, path.suffix)}", rng)
        text = "# More { #more }" if path.suffix == ".md" else '# %% more tags=["hidden"]'
        odd = ["insert"] * 3 + ["link to nothing", "folder", "random"]
        edits.append(Edit(tuple(each.replace("¶", "\n") for each in paths), rng.choice(odd), text))
    else:
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            token = rng.choice(TOKENS[kind] if rng.random() < 0.85 else COMMON)
            action, line, column = rng.choice(ACTIONS), rng.random(), rng.choice([0, rng.random(), 1])
            if kind == "matter" and good[path].startswith(b"---"):
                line *= min(1, 8 / good[path].count(b"\n"))
            elif kind == "matter":
                action, line, token = "insert lines", 0, f"---¶{token}¶---¶"
            edits.append(Edit(twins(tables.get(kind, path), rng), action, token, line, column))
    rendered, also = rng.choices([(False, ""), (True, ""), (True, "preview"), (True, "fresh")], [70, 24, 3, 3])[0]
    return Mutant(tuple(edits), rng.random() < 0.9, rendered, also)


def twins(path: str, rng: random.Random) -> tuple[str, ...]:
    """A page, its translation, or mostly both; any other file alone."""
    chinese = path.replace("docs/en/", "docs/zh/")
    return (path,) if chinese == path else rng.choice([(path,), (chinese,)] + [(path, chinese)] * 6)
