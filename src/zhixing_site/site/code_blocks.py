"""Check that the blocks of code of rendered pages are the fences of their sources, which hold what ran."""

import re
from collections.abc import Iterable, Mapping

from zhixing_site.content.page import FENCE_OR_COMMENT, Page
from zhixing_site.errors import BuildError
from zhixing_site.site.metadata import folder
from zhixing_site.site.postprocess import Rendered


def check_code(
    pages: Iterable[Page], sources: Mapping[str, Mapping[str, str]], rendered: Mapping[str, Rendered]
) -> list[BuildError]:
    """An error for each block that is not a fence of its expanded page, and for each fence that is not a block.

    `sources` are the expanded pages: {path: {f"{name}.md": text}}.
    """
    errors = []
    for page in pages:
        shown = rendered.get(f"{folder(page.name, page.language)}index.html")
        if shown:  # MkDocs has not failed
            found = FENCE_OR_COMMENT.finditer(sources[page.path][f"{page.name}.md"])
            fences = {_letters(fence["body"]): fence["body"] for fence in found if fence["fence"]}
            blocks = {_letters(block): block for block in shown.code}
            for code in [blocks[letters] for letters in blocks if letters not in fences]:
                cause = "a block of code that is no fence, such as text that is indented by four spaces; write a fence"
                errors.append(BuildError(cause, page.path, _line(code, page)))
            for code in [fences[letters] for letters in fences if letters not in blocks]:
                cause = "a fence that is not shown as one; all of its lines are indented alike, and it is not in HTML"
                errors.append(BuildError(cause, page.path, _line(code, page)))
    return errors


def _letters(text: str) -> str:
    """The text without white space, and without the marks of a quotation."""
    return re.sub(r"[\s>]", "", text)


def _line(text: str, page: Page) -> int:
    """The page's line that starts like the text, as far as there is one, since marks in it were expanded; or 0."""
    lines = [line.lstrip("> \t") for line in page.text.splitlines()]
    words = text.strip().partition("\n")[0].split(" ")
    starts = (" ".join(words[:count]) for count in range(len(words), 0, -1))
    found = (
        (start, number) for start in starts for number, line in enumerate(lines, 1) if start and line.startswith(start)
    )
    return next((number for _, number in found), 0)
