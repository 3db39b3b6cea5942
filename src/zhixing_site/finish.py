"""Finish the pages that MkDocs has rendered: links from section to twin section, languages, what a browser may load."""

import base64
import hashlib
import re
from pathlib import Path

from zhixing_site.page import LANGUAGES

PLACE = "{policy}"  # theme/main.html leaves it in the head of each page
# The theme's icons and our math font lie in stylesheets as data: nothing is asked for them.
POLICY = "default-src 'self'; img-src 'self' data:; font-src 'self' data:; base-uri 'none'; object-src 'none'"
INSIDE = {
    "script-src": re.compile(r"<script(?![^>]*\b(?:src|type)\s*=)[^>]*>(.*?)</script>", re.DOTALL),
    "style-src": re.compile(r"<style>(.*?)</style>", re.DOTALL),
}

TWIN = re.compile(
    r'<a class="(?:[^"]* )?twin" href="(?P<href>[^"]*)" hreflang="(?P<code>\w+)"[^>]*>(?P<name>[^<]*)</a>'
)
PERMALINK = re.compile(r'<a (?=[^>]*class="headerlink")[^>]*href="(#[^"]*)"[^>]*>&para;</a>')

CHINESE = re.compile(r"[\u3400-\u9fff](?:[\u3000-\u303f\uff00-\uffef]*[\u3400-\u9fff])*")
TEXT = re.compile(r"(?<=>)[^<>]*[\u3400-\u9fff][^<>]*(?=<)")
MODULE = '<div class="doc doc-object doc-module"'  # an article ends in the API of its modules
ENGLISH = re.compile(r"<(a|td|li|p|em|strong)((?: [^>]*)?)>([^<\u3400-\u9fff]*[A-Za-z]{2}[^<\u3400-\u9fff]*)</\1>")


def finish(site: Path) -> None:
    """Each page once: those that hold no place for the policy are done."""
    for path in site.rglob("*.html"):
        page = path.read_text()
        if PLACE in page:
            language = path.relative_to(site).parts[0]
            if language in LANGUAGES:
                page = _mark_languages(_link_twins(page), language)
            path.write_text(page.replace(PLACE, _policy(page)))


def _link_twins(page: str) -> str:
    """Beside each heading's own link one to its twin, for readers whose browser runs no script."""
    twin = TWIN.search(page)
    link = rf'\g<0><a class="headertwin" href="{twin["href"]}\1" lang="{twin["code"]}">{twin["name"]}</a>'
    return PERMALINK.sub(link, page)


def _mark_languages(page: str, language: str) -> str:
    """Say what stands in the other language: on Chinese pages the API and English links and cells, else any Chinese."""
    if language == "en":
        head, body, rest = page.partition("<body")
        return head + body + _mark_chinese(rest)
    text, module, rest = page.partition(MODULE)
    api, end, rest = rest.partition("</article>")
    api = (module + _mark_chinese(api)).replace(MODULE, f'{MODULE} lang="en"')
    return ENGLISH.sub(r'<\1\2 lang="en">\3</\1>', text) + api + end + rest


def _mark_chinese(text: str) -> str:
    return TEXT.sub(lambda run: CHINESE.sub(r'<span lang="zh">\g<0></span>', run[0]), text)


def _policy(page: str) -> str:
    parts = [POLICY]
    for what, inside in INSIDE.items():
        digests = sorted({hashlib.sha256(text.encode()).digest() for text in inside.findall(page)})
        hashes = (f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
        parts.append(" ".join([what, "'self'", *hashes]))
    return "; ".join(parts)
