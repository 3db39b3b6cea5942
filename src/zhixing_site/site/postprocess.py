"""Post-process the rendered HTML; extract anchors, links and search sections.

Finished pages have simpler code blocks, links from each section to its translation, `lang` on text in the other
language, a policy of what a browser may load, and the commit and day of the build.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import lxml.html

from zhixing_site.site.search import read_sections

POLICY_PLACE = "{content-security-policy}"  # theme/main.html leaves it in the head of each page
COMMIT = "zhixing-build-commit"  # stand for the commit and the day until a page is stamped
DAY = "zhixing-build-day"
# The theme's icons and our math font are data: URLs in stylesheets, which cause no request.
POLICY = "default-src 'self'; img-src 'self' data:; font-src 'self' data:; base-uri 'none'; object-src 'none'"
# Neither the API nor the numbers of lines.
CODE = "//article//pre[not(ancestor::*[contains(@class, 'doc ') or contains(@class, 'linenodiv')])]"
INLINE = {
    "script-src": re.compile(r"<script(?![^>]*\b(?:src|type)\s*=)[^>]*>(.*?)</script>", re.DOTALL),
    "style-src": re.compile(r"<style>(.*?)</style>", re.DOTALL),
}

TRANSLATION = re.compile(
    r'<a class="(?:[^"]* )?twin" href="(?P<href>[^"]*)" hreflang="(?P<code>\w+)"[^>]*>(?P<name>[^<]*)</a>'
)
PERMALINK = re.compile(r'<a (?=[^>]*class="headerlink")[^>]*href="(#[^"]*)"[^>]*>&para;</a>')

# Names, operators, brackets and the like, which have no colour of their own but are most elements of a page.
COLOURLESS = re.compile(r'<span class="(?:fm|kc|n|o|ow|p|sa|vm|w)">([^<]*)</span>')

# Scripts and the like and tags, to pass over them, or a run of Chinese.
CHINESE = re.compile(
    r"<(script|style|textarea|annotation)\b.*?</\1>|<[^>]*>"
    r"|(?P<run>[\u3400-\u9fff](?:[\u3000-\u303f\uff00-\uffef]*[\u3400-\u9fff])*)",
    re.DOTALL,
)
MODULE = '<div class="doc doc-object doc-module"'  # an article ends with the English API of its modules
EVIDENCE = '<div class="evidence"'  # and then the evidence, in its own language
ENGLISH = re.compile(
    r'<(a|td|li|p|em|strong|span(?= class="filename"))(?![^>]* lang=)((?: [^>]*)?)>'
    rf"(?!{DAY}<)"
    r"([^<\u3400-\u9fff]*[A-Za-z]{2}[^<\u3400-\u9fff]*)</\1>"
)


def finish(page: str, language: str) -> str:
    """The page as readers get it; to be called once, on a page that holds `POLICY_PLACE`."""
    page = COLOURLESS.sub(r"\1", page)
    return set_policy(_mark_languages(_link_translations(page), language))


def stamp(page: str, commit: str, day: str) -> str:
    """The page with the commit and the day in place of `COMMIT` and `DAY`."""
    return page.replace(COMMIT, commit).replace(DAY, day)


def set_policy(page: str) -> str:
    """The page with its policy, which allows scripts and styles inside the page by their digests."""
    parts = [POLICY]
    for directive, element in INLINE.items():
        digests = sorted({hashlib.sha256(text.encode()).digest() for text in element.findall(page)})
        hashes = (f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
        parts.append(" ".join([directive, "'self'", *hashes]))
    return page.replace(POLICY_PLACE, "; ".join(parts), 1)


def _link_translations(page: str) -> str:
    """Add to each heading's own link one to its translation, for readers whose browser runs no script."""
    other = TRANSLATION.search(page)
    if not other:  # a notebook
        return page
    link = rf'\g<0><a class="headertwin" href="{other["href"]}\1" lang="{other["code"]}">{other["name"]}</a>'
    return PERMALINK.sub(link, page)


def _mark_languages(page: str, language: str) -> str:
    """Set `lang` on text in the other language: any Chinese; on Chinese pages the API, and English links and cells."""
    if language == "en":
        head, body, rest = page.partition("<body")
        return head + _mark_chinese(body + rest)
    text, module, rest = page.partition(MODULE)
    rest, end, foot = rest.partition("</article>")
    api, evidence, rest = rest.partition(EVIDENCE)
    api = (module + _mark_chinese(api)).replace(MODULE, f'{MODULE} lang="en"')
    return _mark_english(text) + api + _mark_english(evidence + rest) + end + foot


def _mark_english(text: str) -> str:
    return ENGLISH.sub(r'<\1\2 lang="en">\3</\1>', text)


def _mark_chinese(text: str) -> str:
    return CHINESE.sub(lambda part: f'<span lang="zh">{part["run"]}</span>' if part["run"] else part[0], text)


@dataclass(frozen=True)
class Rendered:
    """What a page holds; a section has id, title, text and code; `published` are absolute addresses in its head.

    `code` are the texts of its blocks of code, except those of the API.
    """

    anchors: frozenset[str]
    references: list[str]
    published: list[str]
    sections: list[dict[str, str]]
    code: list[str]


def postprocess(site: Path, language: str, names: list[str]) -> dict[str, Rendered]:
    """Finish these pages of a language, which MkDocs has just rendered. Returns {path: what was read}."""
    rendered = {}
    for name in names:
        try:
            page = finish((site / name).read_text(), language)
            (site / name).write_text(page)
            rendered[name] = read(page)
        except Exception as error:
            raise ValueError(f"{name} cannot be read: {error}") from error
    return rendered


def read(page: str) -> Rendered:
    """What the link check and the search need of a page."""
    tree = lxml.html.document_fromstring(page.encode(), parser=lxml.html.HTMLParser(encoding="utf-8"))

    def find(path: str) -> set[str]:
        return {str(each) for each in tree.xpath(path, smart_strings=False)}

    article = tree.find(".//article")
    sections = [] if article is None else read_sections(article)
    published = sorted(find("//link/@href | //meta[@property='og:image' or @property='og:url']/@content"))
    code = [block.text_content() for block in tree.xpath(CODE)]
    return Rendered(frozenset(find("//@id | //a/@name")), sorted(find("//@href | //@src")), published, sections, code)
