"""Finish a page that MkDocs has rendered: plainer code, links to twin sections, languages, what a browser may load."""

import base64
import hashlib
import re

PLACE = "{content-security-policy}"  # theme/main.html leaves it in the head of each page
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

# Names, operators, brackets and the like have the colour of all code: most elements of a page, without a purpose.
COLOURLESS = re.compile(r'<span class="(?:fm|kc|n|o|ow|p|sa|vm|w)">([^<]*)</span>')

CHINESE = re.compile(r"[\u3400-\u9fff](?:[\u3000-\u303f\uff00-\uffef]*[\u3400-\u9fff])*")
MACHINE = re.compile(r"<(script|style|textarea|annotation)\b.*?</\1>", re.DOTALL)
MODULE = '<div class="doc doc-object doc-module"'  # an article ends in the API of its modules,
EVIDENCE = '<div class="evidence"'  # and in what speaks for it, in its own language
ENGLISH = re.compile(
    r'<(a|td|li|p|em|strong|span(?= class="filename"))(?![^>]* lang=)((?: [^>]*)?)>'
    r"([^<\u3400-\u9fff]*[A-Za-z]{2}[^<\u3400-\u9fff]*)</\1>"
)


def finish(page: str, language: str) -> str:
    """To be done once to a page, which holds a place for the policy until then."""
    page = COLOURLESS.sub(r"\1", page)
    return set_policy(_mark_languages(_link_twins(page), language))


def set_policy(page: str) -> str:
    return page.replace(PLACE, _policy(page), 1)


def _link_twins(page: str) -> str:
    """Beside each heading's own link one to its twin, for readers whose browser runs no script."""
    twin = TWIN.search(page)
    if not twin:  # a notebook
        return page
    link = rf'\g<0><a class="headertwin" href="{twin["href"]}\1" lang="{twin["code"]}">{twin["name"]}</a>'
    return PERMALINK.sub(link, page)


def _mark_languages(page: str, language: str) -> str:
    """Say what stands in the other language: on Chinese pages the API and English links and cells, else any Chinese."""
    if language == "en":
        head, body, rest = page.partition("<body")
        return head + body + _mark_chinese(rest)
    text, module, rest = page.partition(MODULE)
    rest, end, foot = rest.partition("</article>")
    api, evidence, rest = rest.partition(EVIDENCE)
    api = (module + _mark_chinese(api)).replace(MODULE, f'{MODULE} lang="en"')
    return _mark_english(text) + api + _mark_english(evidence + rest) + end + foot


def _mark_english(text: str) -> str:
    return ENGLISH.sub(r'<\1\2 lang="en">\3</\1>', text)


def _mark_chinese(text: str) -> str:
    """From one run of Chinese to the next, since most of a page has none; what is in a tag or for a machine stays."""
    machine = [range(*each.span()) for each in MACHINE.finditer(text)]

    def mark(run: re.Match) -> str:
        at = run.start()
        is_text = text.rfind("<", 0, at) < text.rfind(">", 0, at) and not any(at in each for each in machine)
        return f'<span lang="zh">{run[0]}</span>' if is_text else run[0]

    return CHINESE.sub(mark, text)


def _policy(page: str) -> str:
    parts = [POLICY]
    for what, inside in INSIDE.items():
        digests = sorted({hashlib.sha256(text.encode()).digest() for text in inside.findall(page)})
        hashes = (f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
        parts.append(" ".join([what, "'self'", *hashes]))
    return "; ".join(parts)
