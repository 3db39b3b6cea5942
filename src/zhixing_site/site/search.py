"""Write the search index: search.json in each language's folder, with the sections of all its pages."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from zhixing_site.project import LANGUAGES
from zhixing_site.site.postprocess import Rendered


def write_index(site: Path, pages: Mapping[str, Rendered]) -> None:
    """Write a list of sections: id (address in the language's folder), number on the page, title, page, text, code."""
    for language in LANGUAGES:
        index = []
        for name in sorted(pages):
            # Without the home page, which lists others, and notebooks, which repeat their articles.
            if address := re.fullmatch(rf"{language}/(?!lab/)(.+/)index\.html", name):
                index += _entries(address[1], pages[name].sections)
        text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
        (site / language / "search.json").write_text(text)


def _entries(url: str, sections: list[dict[str, str]]) -> list[dict[str, str | int]]:
    return [
        {**section, "id": f"{url}#{section['id']}" if place else url, "page": sections[0]["title"], "place": place}
        for place, section in enumerate(sections)
    ]
