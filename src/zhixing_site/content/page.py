"""Read a page: its front matter, the marks in its Markdown, and its sections."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import yaml

from zhixing_copy.standalone import digest
from zhixing_site.content import dialects
from zhixing_site.errors import BuildError, BuildErrors
from zhixing_site.files import find_files, read_text

VALUE = re.compile(r"\{\{[ ](?P<value>(?P<name>[A-Za-z_]\w*)(?::(?P<spec>[^{}\s]*))?)[ ]\}\}")

FENCE = r"""^(?P<indent>[ \t>]*)(?P<ticks>`{3,}|~{3,})(?P<info>[^\n`~]*)\n (?P<body>(?:[^\n]*\n)*?)
      (?P=indent)(?P<fence>(?P=ticks))[ \t]*$"""
FENCE_OR_COMMENT = re.compile(FENCE + "|<!--.*?-->", re.VERBOSE | re.MULTILINE | re.DOTALL)

# Within a caption or the text of a link, brackets of formulas and code need no partner.
BRACKETS = r"""\\.|\$(?:\\.|(?!\n[ ]*\n)[^$\\])+\$|`[^`]+`"""

# The marks of a page; where several match, the first wins. Everything between them is plain Markdown. A match's
# `lastgroup` is the kind of the mark: in each alternative, the group named for the kind ends last.
MARK = re.compile(
    r"""
      (?P<matter> \A---\n.*?\n---[ ]*\n )
    | (?P<comment> <!--.*?--> )
    | FENCE
    | ^(?P<heading>\#{1,6}[^\n]*|[^\n]+\n(?:=+|-+)[ ]*)$
    | (?<!`)(?P<code>`{1,2}|`{3,}(?=[^\n]*`{3}))(?!`)(?:(?!\n[ >]*\n).)+?(?<!`)(?P=code)(?!`)
    | (?P<foreign>DIALECTS)
    | (?P<escape>\\.)
    | \$\$(?P<block>(?:(?!\$\$)(?!\n[ ]*[\n>]).)+)\$\$
    | (?<!\$)(?P<inline>\$(?=[^\s$])(?P<tex>(?:\\.|(?!\n[ ]*[\n>])[^$\\])+?)(?<!\s)\$(?![\d$])
      (?P<stop>[,.;:!?)，。；：！？、）]*))
    | !\[(?P<caption>(?:BRACKETS|\[(?:BRACKETS|[^\[\]])*+\]|[^\[\]])*+)\]
      \((?P<figure>(?P<snippet>[\w/]+\.py):(?P<cell>\w+))\)
    | VALUE
    | ^:::[ ]+(?P<api>[\w.]+)[ ]*$
    | (?P<footnote>\[\^[^\]\s]+\])
    | ^--8<--[ ]"(?P<part>[a-z/]+)"[ ]*$
    | (?P<stray>\$|--8<--|\{\{(?!\{)|`{3,}|~{3,}|(?i:<(?:pre|code|samp|listing|xmp|plaintext|textarea)\b)|<[!?])
    | \]\((?P<link>[^()\s]+)\)
    """.replace("FENCE", FENCE)
    .replace("BRACKETS", BRACKETS)
    .replace("VALUE", VALUE.pattern)
    .replace("DIALECTS", dialects.PATTERN),
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
# A file of src/ may be included without a name, and is then shown whole.
INCLUDE = re.compile(r'--8<-- "(?=src/|[^"]*:)(?P<path>[\w/]+\.py)(?::(?P<name>[\w.]+))?"')
API = re.compile(r"^::: ([\w.]+)[ ]*$", re.MULTILINE)  # shows the API of a module
MARKDOWN = {".markdown", ".md", ".mdown", ".mkd", ".mkdn"}  # what MkDocs makes pages of
PATH = re.compile(r"([a-z0-9][a-z0-9_-]*/)*[a-z0-9][a-z0-9_-]*\.md")
HEADING_ID = re.compile(r"\{ *#([\w-]+) *\}\s*$")


def is_article(name: str) -> bool:
    """Whether the page is in an area, and not its index."""
    return "/" in name and not name.endswith("/index")


@dataclass(frozen=True)
class Use:
    """A place where a page shows something of a Python file: code, or a figure."""

    path: str  # a file below src/ or tests/, or a snippet's name
    name: str  # of a definition or a cell; empty for the whole file
    line: int
    figure: bool = False

    @property
    def is_definition(self) -> bool:
        """Whether it is a definition of src/ or tests/, or such a file, and not of a snippet."""
        return self.path.startswith(("src/", "tests/"))


@dataclass
class Section:
    """The text from one heading to the next, and its marks, the heading's included."""

    id: str
    line: int
    text: str = ""
    marks: list[re.Match] = field(default_factory=list)

    @property
    def digest(self) -> str:
        return digest(self.text.strip())[:16]


@dataclass(frozen=True)
class Page:
    """A page's Markdown. `path` is relative to the project's root: docs/en/activations/gelu.md."""

    path: str
    text: str

    @property
    def language(self) -> str:
        return self.path.split("/")[1]

    @property
    def name(self) -> str:
        """The path below the language's folder without its suffix, which both translations share: activations/gelu."""
        return self.path.split("/", 2)[2].removesuffix(".md")

    @cached_property
    def title(self) -> str:
        """The first heading as plain text; without one, the name."""
        heading = re.search(r"^# +(.+?) *(\{ *#[\w-]+ *\} *)?$", self.text, re.MULTILINE)
        return re.sub("[`*]", "", heading[1]) if heading else self.name

    @property
    def snippet(self) -> str:
        """The name of the snippet whose values the page quotes: activations/gelu.py."""
        return f"{self.name}.py"

    @cached_property
    def meta(self) -> dict:
        """The front matter. Raises BuildError if it is not a mapping."""
        matter = self.marks[0]["matter"] if self.marks else None
        try:
            meta = yaml.load(matter.strip().strip("-"), yaml.CSafeLoader) if matter else {}
        except (yaml.YAMLError, ValueError) as error:  # the latter for a day that does not exist
            raise BuildError(f"the front matter is not valid YAML: {error}", self.path, 1) from error
        if not isinstance(meta, dict):
            raise BuildError("the front matter must be a list of `key: value`", self.path, 1)
        return meta

    @cached_property
    def marks(self) -> list[re.Match]:
        """All marks of the text, in order, without those in captions."""
        return list(MARK.finditer(self.text))

    def sub(self, replacement: Callable[[re.Match], str]) -> str:
        """Return the text with each mark replaced by what the function returns for it."""
        pieces, end = [], 0
        for mark in self.marks:
            pieces += self.text[end : mark.start()], replacement(mark)
            end = mark.end()
        return "".join(pieces) + self.text[end:]

    def line(self, match: re.Match) -> int:
        """The line in which a match in the text starts, counted from 1."""
        return self.text.count("\n", 0, match.start()) + 1

    @cached_property
    def sections(self) -> list[Section]:
        """The sections, of which the first, without an id, is above all headings.

        Raises BuildErrors if headings have no id, or that of another.
        """
        sections, start, errors = [Section("", 1)], 0, []
        for mark in self.marks:
            if mark.lastgroup == "heading":
                id = HEADING_ID.search(mark["heading"])
                if not id or id[1] in [section.id for section in sections]:
                    cause = f"a second heading #{id[1]}" if id else "a heading without an id: `## Title { #id }`"
                    errors.append(BuildError(cause, self.path, self.line(mark)))
                sections[-1].text, start = self.text[start : mark.start()], mark.start()
                sections.append(Section(id[1] if id else "", self.line(mark)))
            sections[-1].marks.append(mark)
        sections[-1].text = self.text[start:]
        if errors:
            raise BuildErrors(errors)
        return sections

    @cached_property
    def uses(self) -> list[Use]:
        """What the page includes and which figures it shows, in order."""
        found = []
        for mark in self.marks:
            if mark.lastgroup == "fence":
                found += self.included(mark)
            elif mark.lastgroup == "figure":
                found.append(Use(mark["snippet"], mark["cell"], self.line(mark), figure=True))
        return found

    def included(self, fence: re.Match) -> Iterator[Use]:
        """Yield what a fence includes: nothing if it holds other text. Raises BuildError if it holds both."""
        lines = fence["body"].splitlines() if "--8<--" in fence["body"] and ">" not in fence["indent"] else []
        for number, line in enumerate(map(str.strip, lines), self.line(fence) + 1):
            if match := INCLUDE.fullmatch(line):
                yield Use(match["path"], match["name"] or "", number)
            elif line:
                cause = 'a fence with includes may contain only lines `--8<-- "path.py:name"`'
                if odd := re.fullmatch(r'--8<-- "[^"]*?([^\w/.:"])[^"]*"', line):
                    cause = f"a file or name to include has letters, digits and `_`, and no `{odd[1]}`"
                raise BuildError(cause, self.path, number)


Pages = Mapping[str, Page]  # by name


def read_pages(root: Path, language: str) -> dict[str, Page]:
    """Read the pages of a language: {name: page}; raises BuildErrors for those that cannot be read."""
    folder, pages, errors = root / "docs" / language, {}, []
    for path in find_files(folder, root):
        if path.suffix.lower() in MARKDOWN:
            try:
                page = _read_page(path, folder, root)
            except BuildError as error:
                errors.append(error)
            else:
                pages[page.name] = page
    for name in pages.keys() & {name.removesuffix("/index") for name in pages if name.endswith("/index")}:
        errors.append(BuildError(f"has the same address as {pages[f'{name}/index'].path}", pages[name].path))
    if errors:
        raise BuildErrors(errors)
    return pages


def _read_page(path: Path, folder: Path, root: Path) -> Page:
    name = path.relative_to(root).as_posix()
    if not PATH.fullmatch(path.relative_to(folder).as_posix()):
        cause = "the name of a page is its address: a-z, 0-9, _ and - alone, as in area/linear_regression.md; rename it"
        raise BuildError(cause, name)
    page = _page(name, read_text(path, root))
    first = next((mark for mark in page.marks if mark["heading"]), None)
    if not first or not first["heading"].startswith("# "):
        cause = "the first heading must be the title of the page: `# Title { #id }`"
        raise BuildError(cause, name, page.line(first) if first else 1)
    return page


def pairs(english: Pages, chinese: Pages) -> dict[str, tuple[Page, Page]]:
    """{name: (English page, Chinese page)} of the pages that both languages have, by name."""
    return {name: (english[name], chinese[name]) for name in sorted(english.keys() & chinese.keys())}


@cache
def _page(path: str, text: str) -> Page:
    """The same object for the same text, so that a preview scans an unchanged page once."""
    return Page(path, text)
