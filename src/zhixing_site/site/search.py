"""Write what the search box reads: search.json in each language's folder, the sections of all its pages."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from zhixing_site.project import LANGUAGES
from zhixing_site.site.postprocess import Rendered


def write_index(site: Path, pages: Mapping[str, Rendered]) -> None:
    """A list of sections: id (the address in the language's folder), place on the page, title, page, text, code."""
    for language in LANGUAGES:
        index = []
        for name in sorted(pages):
            # Not the home page, which lists others, nor notebooks, which say again what articles do.
            if address := re.fullmatch(rf"{language}/(?!lab/)(.+/)index\.html", name):
                index += _entries(address[1], pages[name].sections)
        text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
        (site / language / "search.json").write_text(text)


def _entries(url: str, sections: list[dict[str, str]]) -> list[dict[str, str | int]]:
    return [
        {**section, "id": f"{url}#{section['id']}" if place else url, "page": sections[0]["title"], "place": place}
        for place, section in enumerate(sections)
    ]
