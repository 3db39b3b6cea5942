"""The search index: search.json in each language's folder, with the sections of all its pages."""

import json
import re
from collections.abc import Mapping

from zhixing_site.project import LANGUAGES
from zhixing_site.site.postprocess import Rendered
from zhixing_site.store import Files


def search_indexes(pages: Mapping[str, Rendered]) -> Files:
    """A list of sections: id (address in the language's folder), number on the page, title, page, text, code."""
    files = {}
    for language in LANGUAGES:
        index = []
        for name in sorted(pages):
            # Without the home page, which lists others, and notebooks, which repeat their articles.
            if address := re.fullmatch(rf"{language}/(?!lab/)(.+/)index\.html", name):
                index += _entries(address[1], pages[name].sections)
        files[f"{language}/search.json"] = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
    return files


def _entries(url: str, sections: list[dict[str, str]]) -> list[dict[str, str | int]]:
    return [
        {**section, "id": f"{url}#{section['id']}" if place else url, "page": sections[0]["title"], "place": place}
        for place, section in enumerate(sections)
    ]
