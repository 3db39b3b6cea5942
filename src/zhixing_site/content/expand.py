"""Expand a page: from its Markdown and the results of the runs to Markdown that any site generator can read."""

import ast
import html
import posixpath
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from pygments.lexers import find_lexer_class_by_name
from pygments.util import ClassNotFound

from zhixing_site.content import dialects, formulas
from zhixing_site.content.definitions import definition
from zhixing_site.content.page import MARK, VALUE, Page
from zhixing_site.content.tags import check_tags
from zhixing_site.errors import BuildError, BuildErrors
from zhixing_site.templates import WORDS, render

SCHEMES = ("light", "dark")
NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]\d+)?%?")
PERCENT = re.compile(r"(?<!\\)((?:\\\\)*)%")


def drawings(notebooks: Mapping[str, dict], language: str) -> dict[str, str]:
    """{path below the root of the language's site: SVG} of all figures and their frames."""
    return {
        figure_path(snippet, name, scheme): drawn[f"{language}-{scheme}"]
        for snippet, notebook in notebooks.items()
        for cell in notebook["cells"]
        for name, drawn in _named_drawings(cell)
        for scheme in SCHEMES
        if drawn
    }


def _named_drawings(cell: dict) -> list[tuple[str, dict[str, str]]]:
    """The figure of a cell by the cell's name, and its frames by the name and their numbers, as in js/slider.js."""
    frames = cell["metadata"].get("frames", {"drawings": []})["drawings"]
    return [
        (cell["id"], cell["metadata"]["drawings"]),
        *((f"{cell['id']}-{number}", drawn) for number, drawn in enumerate(frames)),
    ]


def figure_path(snippet: str, name: str, scheme: str) -> str:
    """The path of a drawing below the root of a language's site: activations/gelu/tails-dark.svg."""
    return f"{snippet.removesuffix('.py')}/{name}-{scheme}.svg"


@dataclass(frozen=True)
class Expander:
    """Makes plain Markdown of a page, from {snippet name: executed notebook} and the files below `root`.

    `offers` are the definitions below which a copy is offered: {"src/zhixing/area/article.py:definition": (name of its
    file below code/, its name for the command)}. `parts` are the texts to include at `--8<-- "part"`.
    """

    page: Page
    notebooks: Mapping[str, dict]
    root: Path
    offers: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    output = " { .text .output .no-copy }"  # the info string of a fence with what a cell printed

    def expand(self) -> str:
        """The page's text; raises BuildErrors, one for each mark that cannot be expanded."""
        errors = check_tags(self.page)

        def attempt(mark: re.Match) -> str:
            try:
                return self.replace(mark)
            except BuildError as error:
                errors.append(error)
                return ""

        text = self.page.sub(attempt)
        if errors:
            raise BuildErrors(sorted(errors, key=lambda error: error.line))
        return text

    def replace(self, mark: re.Match, line: int = 0) -> str:
        """What `expand_<kind>` makes of the mark, whose line is given if it is outside the page's own text.

        Marks without such a method stay as they are.

        Raises BuildError for the ValueError of other methods.
        """
        method = getattr(self, f"expand_{mark.lastgroup}", None)
        try:
            return method(mark) if method else mark[0]
        except ValueError as error:
            raise BuildError(str(error), self.page.path, line or self.page.line(mark)) from error

    def expand_fence(self, mark: re.Match) -> str:
        code, shown, offers = [], [], []
        files = dict.fromkeys(use.path for use in self.page.included(mark) if use.is_definition)
        title = f' title="{", ".join(files)}"' if files else ""
        for use in self.page.included(mark):
            try:
                if use.is_definition:
                    code.append(definition(use.path, use.name, self.root))
                    offers.append(self._offer(f"{use.path}:{use.name.partition('.')[0]}"))
                else:
                    cell = self._cell(use.path, use.name)
                    code.append(cell["source"])
                    shown += filter(None, map(output_text, cell["outputs"]))
            except (ValueError, SyntaxError) as error:
                raise BuildError(str(error), self.page.path, use.line) from error
        if not code and "--8<--" in mark["body"] and ">" in mark["indent"]:
            line = self.page.line(mark) + 1 + mark["body"].partition("--8<--")[0].count("\n")
            raise BuildError("a stray `--8<--`; what is included cannot be in a quotation", self.page.path, line)
        if not code:
            check_language(mark)
            return mark[0]
        blocks = [_block(mark["info"].strip() + title, "\n\n\n".join(code))]
        blocks += [_block(self.output, text) for text in shown]
        blocks += filter(None, dict.fromkeys(offers))
        return textwrap.indent("\n\n".join(blocks), mark["indent"])

    def _offer(self, name: str) -> str:
        """A line below a definition to copy or download its file; empty for one that is not offered."""
        if name not in self.offers:
            return ""
        file, command = self.offers[name]
        language, folder = self.page.language, self.page.name.removesuffix("index")
        address = posixpath.relpath(f"code/{file}", f"{language}/{folder}")
        words = WORDS[language]["offer"]
        return render("offer.html", words=words, file=posixpath.basename(file), address=address, command=command)

    def expand_block(self, mark: re.Match) -> str:
        return formulas.to_html(self.tex(mark["block"]), block=True)

    def expand_inline(self, mark: re.Match) -> str:
        return formulas.to_html(self.tex(mark["tex"]), block=False, stop=mark["stop"])

    def tex(self, tex: str) -> str:
        """The TeX of a formula with its values filled in, and with each percent sign shown: it begins no comment."""

        def value(mark: re.Match) -> str:
            return formulas.value_tex(self.value(mark), tex[: mark.start()])

        return PERCENT.sub(r"\1\%", VALUE.sub(value, tex))

    def expand_value(self, mark: re.Match) -> str:
        value = self.value(mark)
        return value.replace("-", "−") if NUMBER.fullmatch(value) else escape(value)

    def value(self, mark: re.Match) -> str:
        """The value that the mark quotes, in its format."""
        snippet, name = self.page.snippet, mark["name"]
        values = self.notebooks[snippet]["metadata"]["zhixing"]["values"] if snippet in self.notebooks else {}
        if name not in values:
            raise ValueError(f"no number or text `{name}` is left at the end of snippets/{snippet}")
        return format(values[name], mark["spec"] or "")

    def expand_figure(self, mark: re.Match) -> str:
        images = self.images(mark["snippet"], mark["cell"], posixpath.dirname(self.page.name) or ".")
        caption = self.caption(mark)
        first = mark is next(each for each in self.page.marks if each.lastgroup == "figure")
        slider = self.slider(mark["snippet"], mark["cell"])
        alt = plain_text(caption) + (slider["alt"] if slider else "")
        return render("figure.md", images=images, caption=caption, alt=alt, first=first, slider=slider)

    def slider(self, snippet: str, cell: str) -> dict[str, object]:
        """What the slider of a figure shows and says; empty for a figure without frames."""
        frames = self._cell(snippet, cell)["metadata"].get("frames")
        if not frames:
            return {}
        words, labels = WORDS[self.page.language]["slider"], frames["labels"][self.page.language]
        knob, value = frames["knob"][self.page.language], labels[frames["poster"]]
        alt = escape(words["alt"].format(knob=knob, value=value))
        return {"knob": knob, "labels": labels, "poster": frames["poster"], "words": words, "alt": alt}

    def caption(self, mark: re.Match) -> str:
        """The caption of a figure, expanded."""
        caption = self.expanded(" ".join(mark["caption"].split()), self.page.line(mark))
        if not caption:
            raise ValueError("a figure without a caption")
        return caption

    def images(self, snippet: str, cell: str, folder: str) -> list[dict[str, str | int]]:
        """The drawings of a cell's figure in both colour schemes, with their paths from this folder."""
        images = []
        for scheme in SCHEMES:
            width, height = self.size(snippet, cell, scheme)
            path = posixpath.relpath(figure_path(snippet, cell, scheme), folder)
            images.append({"scheme": scheme, "path": path, "width": width, "height": height})
        return images

    def expanded(self, text: str, line: int) -> str:
        """Text that the page has in this line, expanded."""
        return MARK.sub(lambda mark: self.replace(mark, line), text)

    def size(self, snippet: str, cell: str, scheme: str) -> tuple[int, int]:
        """Width and height of a cell's figure in pixels."""
        drawings = self._cell(snippet, cell)["metadata"]["drawings"]
        if not drawings:
            raise ValueError(f"cell {cell} draws no figure")
        size = re.search(r'width="(\d+)" height="(\d+)"', drawings[f"{self.page.language}-{scheme}"])
        width, height = map(int, size.groups())
        return width, height

    def _cell(self, snippet: str, name: str) -> dict:
        if snippet not in self.notebooks:
            raise ValueError(f"there is no snippet snippets/{snippet}")
        for cell in self.notebooks[snippet]["cells"]:
            if cell["id"] == name:
                return cell
        raise ValueError(f"there is no cell {name} in snippets/{snippet}")

    def expand_part(self, mark: re.Match) -> str:
        if not self.parts.get(mark["part"]):
            parts = ", ".join(name for name, text in self.parts.items() if text) or "none"
            raise ValueError(f"unknown component `{mark['part']}`; this page may use: {parts}")
        return self.parts[mark["part"]]

    def expand_escape(self, mark: re.Match) -> str:
        return "&#36;" if mark[0] == r"\$" else mark[0]

    def expand_heading(self, mark: re.Match) -> str:
        if len(re.findall(r"\{ *#", mark["heading"])) > 1:
            raise ValueError("a heading has one `{ #id }`, at its end")
        if re.search(r"(?<!\\)\$|\{\{", mark["heading"]):
            raise ValueError(
                "a heading must not contain a formula or value, whose source the contents and the search would show"
            )
        return mark[0]

    def expand_link(self, mark: re.Match) -> str:
        if re.search(r"\.py:", mark["link"]):
            form = "a figure is `![caption](area/article.py:cell)`: brackets in pairs, names of letters, digits and `_`"
            raise ValueError(f"`{mark['link']}` is no link; {form}")
        urlsplit(mark["link"])  # raises ValueError
        return mark[0]

    def expand_api(self, mark: re.Match) -> str:
        path = Path("src", *mark["api"].split("."))
        if not ((self.root / path).with_suffix(".py").is_file() or (self.root / path / "__init__.py").is_file()):
            raise ValueError(f"there is no module {mark['api']}: no file {path.with_suffix('.py')}")
        return mark[0]

    def expand_footnote(self, mark: re.Match) -> str:
        notes = re.findall(rf"{re.escape(mark[0])}(:?)", self.page.text)
        if len(set(notes)) < 2:
            missing = "nothing refers to it" if ":" in notes else f"no line starts with `{mark[0]}: `"
            raise ValueError(f"the footnote {mark[0]}: {missing}")
        return mark[0]

    def expand_foreign(self, mark: re.Match) -> str:
        raise ValueError(f"`{mark[0].strip()}` would be shown as it is typed; {dialects.instead(mark)}")

    def expand_stray(self, mark: re.Match) -> str:
        if mark[0][:2] in ("<!", "<?"):
            raise ValueError(f"`{mark[0]}` without its end would hide the rest of the page")
        if mark[0][0] in "`~<":
            form = "a fence begins and ends with a line of its own, indented alike, of its marks and language"
            raise ValueError(f"a stray `{mark[0]}`; code is in a fence, and {form}")
        cause = f"a stray `{mark[0]}`, which is no formula, include or value"
        raise ValueError(cause + "; a value is `{{ name:.2f }}`, a dollar is `\\$`")


def check_language(fence: re.Match) -> None:
    """Raise ValueError if the fence holds Python, or names a language that Markdown does not know."""
    info = re.sub(r"""\w+=("[^"]*"|'[^']*'|\S*)""", "", fence["info"])
    words = [word.lstrip(".") for word in re.findall(r"(?<![\w#])[.\w][\w#+.-]*", info)]
    lexers = [lexer.name for lexer in map(_lexer, words) if lexer]
    if any("ython" in name or name == "NumPy" for name in lexers) or (not words and _is_python(fence["body"])):
        raise ValueError("Python typed into the page; put it into the snippet and include the cell")
    if words and not _lexer(words[0]):
        raise ValueError(f"`{words[0]}` is no language of a fence, such as `text`, `bash` or `console`")


@cache
def _lexer(language: str) -> type | None:
    try:
        return find_lexer_class_by_name(language)
    except ClassNotFound:
        return None


def _is_python(text: str) -> bool:
    """Whether the text is statements of Python, or a session of it, and not only names and numbers."""
    try:
        found = ast.parse(textwrap.dedent(text)).body
    except (SyntaxError, ValueError):
        return bool(re.search(r"^\s*(>>>|In \[\d*\]:) ", text, re.MULTILINE))
    return any(not isinstance(each, ast.Expr | ast.AnnAssign) or isinstance(each.value, ast.Call) for each in found)


def output_text(output: dict) -> str:
    """What a page shows of a cell's output."""
    if output["output_type"] == "display_data":
        return output["data"].get("text/plain", "")
    return output["text"].rstrip("\n") if "text" in output else "\n".join(output["traceback"])


def _block(info: str, text: str) -> str:
    """A fence that the text cannot close."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`+", text))])
    return f"{fence}{info}\n{text}\n{fence}"


def plain_text(caption: str) -> str:
    """The caption as plain text, for `alt`: formulas as the characters that they show."""
    text = html.unescape(re.sub(r"<annotation.*?</annotation>|<[^>]*>", "", caption))
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return escape(re.sub(r"[*`\u2061]", "", text))


def escape(text: str) -> str:
    """Text escaped so that Markdown and HTML show it as it is."""
    return html.escape(text, quote=False).translate(formulas.MARKDOWN)
