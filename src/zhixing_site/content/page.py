"""Read a page: find the marks in its Markdown, and split it into sections."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import yaml

from zhixing_copy.standalone import digest
from zhixing_site.errors import BuildError

VALUE = re.compile(r"\{\{[ ](?P<value>[A-Za-z_]\w*)(?::(?P<spec>[^{}\s]*))?[ ]\}\}")

# The marks of a page, in the order in which they win. Everything between them is plain Markdown.
MARK = re.compile(
    r"""
      (?P<matter> \A---\n.*?\n---[ ]*\n )
    | (?P<comment> <!--.*?--> )
    | ^(?P<indent>[ ]*)(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)\n (?P<body>(?:[^\n]*\n)*?) (?P=indent)(?P=fence)[ ]*$
    | ^(?P<heading>\#{1,6}[^\n]+|[^\n]+\n(?:=+|-+)[ ]*)$
    | (?P<ticks>`{1,2})(?!`)(?:(?!\n[ ]*\n).)+?(?<!`)(?P=ticks)(?!`)
    | (?P<escape>\\.)
    | \$\$(?P<block>(?:(?!\$\$)(?!\n[ ]*[\n>]).)+)\$\$
    | (?<!\$)\$(?=[^\s$])(?P<inline>(?:\\.|(?!\n[ ]*[\n>])[^$\\])+?)(?<!\s)\$(?![\d$])
      (?P<stop>[,.;:!?)，。；：！？、）]*)
    | !\[(?P<caption>(?:\[[^\[\]]*\]|[^\[\]])*)\]\((?P<figure>[\w/]+\.py:\w+)\)
    | """
    + VALUE.pattern
    + r"""
    | ^--8<--[ ]"(?P<table>[\w/]+\.csv)"[ ]*$
    | ^--8<--[ ]"(?P<part>[a-z/]+)"[ ]*$
    | (?P<stray>\$|--8<--|\{\{(?!\{))
    | \]\((?P<link>[^()\s]+)\)
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
# A file of src/ may stand without a name, and is then shown whole.
INCLUDE = re.compile(r'--8<-- "(?=src/|[^"]*:)(?P<path>[\w/]+\.py)(?::(?P<name>[\w.]+))?"')
HEADING_ID = re.compile(r"\{ *#([\w-]+) *\}\s*$")


@dataclass(frozen=True)
class Use:
    """A place where a page shows something of a Python file: code, or a figure."""

    path: str  # a file below src/, or a snippet's name
    name: str  # of a definition or a cell; nothing for the whole file
    line: int
    figure: bool = False


@dataclass
class Section:
    """The text from one heading to the next, and the marks that its twin must have too: {kind: in order}."""

    id: str
    line: int
    text: str = ""
    marks: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def digest(self) -> str:
        return digest(self.text.strip())[:16]


@dataclass(frozen=True)
class Page:
    path: str  # relative to the project's root: docs/en/activations/gelu.md
    text: str

    @property
    def language(self) -> str:
        return self.path.split("/")[1]

    @property
    def name(self) -> str:
        """The path below the language's folder, without its ending; twins share it: activations/gelu."""
        return self.path.split("/", 2)[2].removesuffix(".md")

    @cached_property
    def title(self) -> str:
        """The first heading as plain text; without one, the name."""
        heading = re.search(r"^# +(.+?) *(\{ *#[\w-]+ *\} *)?$", self.text, re.MULTILINE)
        return re.sub("[`*]", "", heading[1]) if heading else self.name

    @property
    def snippet(self) -> str:
        """The name of the snippet whose values it quotes: activations/gelu.py."""
        return f"{self.name.removeprefix('lab/')}.py"

    @cached_property
    def meta(self) -> dict:
        """The front matter; raises BuildError where it is no mapping."""
        mark = MARK.match(self.text)
        try:
            meta = yaml.load(mark["matter"].strip().strip("-"), yaml.CSafeLoader) if mark and mark["matter"] else {}
        except yaml.YAMLError as error:
            raise BuildError(f"the front matter is no YAML: {error}", self.path, 1) from error
        if not isinstance(meta, dict):
            raise BuildError("the front matter is no list of `key: value`", self.path, 1)
        return meta

    def line(self, mark: re.Match) -> int:
        return self.text.count("\n", 0, mark.start()) + 1

    @cached_property
    def sections(self) -> list[Section]:
        """Raises BuildError where a heading has no id."""
        found, starts = [Section("", 1)], [0]
        for mark in MARK.finditer(self.text):
            if mark["heading"]:
                heading = HEADING_ID.search(mark["heading"])
                if not heading or heading[1] in [section.id for section in found]:
                    cause = (
                        f"a second heading #{heading[1]}" if heading else "a heading without an id: `## Title { #id }`"
                    )
                    raise BuildError(cause, self.path, self.line(mark))
                found.append(Section(heading[1], self.line(mark)))
                starts.append(mark.start())
            _collect(mark, found[-1].marks)
        for section, start, end in zip(found, starts, [*starts[1:], len(self.text)], strict=True):
            section.text = self.text[start:end]
        return found

    @cached_property
    def uses(self) -> list[Use]:
        found = []
        for mark in MARK.finditer(self.text):
            if mark["fence"]:
                found += self.included(mark)
            elif mark["figure"]:
                found.append(Use(*mark["figure"].split(":"), self.line(mark), figure=True))
        return found

    def included(self, fence: re.Match) -> Iterator[Use]:
        """What a fence includes; nothing for one that holds other text. Raises BuildError where it holds both."""
        if "--8<--" in fence["body"]:
            for number, line in enumerate(fence["body"].splitlines(), self.line(fence) + 1):
                match = INCLUDE.fullmatch(line.strip())
                if line.strip() and not match:
                    cause = 'a fence that includes holds nothing but lines `--8<-- "path.py:name"`'
                    raise BuildError(cause, self.path, number)
                if match:
                    yield Use(match["path"], match["name"] or "", number)


def read_pages(root: Path, language: str) -> dict[str, Page]:
    paths = sorted((root / "docs" / language).rglob("*.md"))
    pages = [_page(path.relative_to(root).as_posix(), path.read_text()) for path in paths]
    return {page.name: page for page in pages}


@cache
def _page(path: str, text: str) -> Page:
    """One page a text, so that a preview splits it once."""
    return Page(path, text)


def _collect(mark: re.Match, marks: dict[str, list[str]]) -> None:
    if mark["fence"]:
        marks["fence"].append(f"{mark['info'].strip()}\n{mark['body']}")
    for kind in "block", "inline":
        if mark[kind]:  # without its white space and its words, which are the language's own
            marks[kind].append(re.sub(r"\s+", "", re.sub(r"\\text\{[^{}]*\}", r"\\text{}", mark[kind])))
    for kind in "figure", "table", "part", "value", "link":
        if mark[kind]:
            marks[kind].append(mark[kind])
    marks["value"] += [value[1] for value in VALUE.finditer(mark["inline"] or mark["block"] or "")]
    for inner in MARK.finditer(mark["caption"] or ""):
        _collect(inner, marks)
