"""Every page, in both colour schemes, on a phone and a desk, with and without JavaScript."""

import posixpath
import re
from pathlib import Path

import axe_playwright_python
import lxml.html
import pytest

SITE = Path(__file__).resolve().parents[2] / "site"
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()

# Text outside code, and outside what is there for machines.
RAW_TEX = r"""() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest("code, pre, script, noscript, style, annotation")) continue;
    if (/\$[^$]+\$|\\[a-zA-Z]{2,}/.test(node.data)) found.push(node.data);
  }
  return found;
}"""

# Images that are shown, which are made to load now.
IMAGES = """() => [...document.querySelectorAll("article img")].filter(image => image.checkVisibility())
  .map(image => { image.loading = "eager"; return [image.src, image.alt, image.complete, image.naturalWidth]; })"""

# What moved after it had been painted: by how much, when, and which elements.
SHIFTS = """() => new Promise(resolve => {
  const name = source => source.node?.outerHTML?.slice(0, 80) ?? source.node?.data?.slice(0, 80);
  const found = [];
  new PerformanceObserver(list => list.getEntries().forEach(entry => {
    found.push([entry.value, Math.round(entry.startTime), ...entry.sources.map(name)]);
  })).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => resolve(found), 50);
})"""

# Text whose script is not that of the language that it is said to be in.
STRANGE = r"""() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.data;
    if (element.closest("script, noscript, pre, code, math, [data-md-component=toc]")) continue;
    const chinese = element.closest("[lang]").lang.startsWith("zh");
    const words = text.match(/[A-Za-z]{2,}/g) ?? [];
    if (/\p{sc=Han}/u.test(text) ? !chinese : chinese && words.length > 5) found.push(text);
  }
  return found;
}"""

# Formulas with a root whose sign is not there, or with a tall part whose brackets have not grown with it.
SMALL = r"""() => {
  const box = element => element.getBoundingClientRect();
  const em = element => parseFloat(getComputedStyle(element).fontSize);
  const small = [];
  for (const root of document.querySelectorAll("math msqrt")) {
    const inside = [...root.children].reduce((sum, child) => sum + box(child).width, 0);
    if (box(root).width && box(root).width - inside < 0.3 * em(root)) small.push(root);
  }
  for (const bracket of document.querySelectorAll("math mo:is(:first-child, :last-child):not([stretchy=false])")) {
    const tall = box(bracket.parentElement).height;
    if (!/^[()[\]{}|‖⌊⌋⌈⌉⟨⟩]$/.test(bracket.textContent)) continue;
    if (tall > 2 * em(bracket) && box(bracket).height < 0.8 * tall) small.push(bracket);
  }
  return small.map(element => element.closest("math").querySelector("annotation").textContent);
}"""

# Headings whose link to themselves has a line of its own.
LOOSE = """() => [...document.querySelectorAll("article .headerlink")].filter(link => {
  const text = document.createRange();
  text.setStart(link.parentElement, 0);
  text.setEndBefore(link);
  return link.getBoundingClientRect().top >= text.getBoundingClientRect().bottom;
}).map(link => link.parentElement.textContent)"""


def bad_images(page) -> list:
    """Those that cannot be read, or that say nothing to who does not see them."""
    for _ in range(200):
        images = page.evaluate(IMAGES)
        if all(complete for _, _, complete, _ in images):
            break
        page.wait_for_timeout(20)
    return [image for image in images if not all(image)]


# Of formulas one, and of each kind of words in code one: the others are alike, and axe looks at every element.
THIN_OUT = """() => {
  const seen = new Set();
  for (const span of document.querySelectorAll("pre code span")) {
    if (seen.has(span.className)) span.replaceWith(...span.childNodes);
    seen.add(span.className);
  }
  [...document.querySelectorAll("math")].slice(1).forEach(math => math.replaceChildren());
}"""


def violations(page, script: bool) -> list[str]:
    """What axe finds that is serious or critical."""
    page.evaluate(THIN_OUT)
    # Without our script, wide formulas have no tabindex. Browsers let the keyboard reach what scrolls, which axe does
    # not know, and `test_wide_formula_is_reached_without_a_script` looks at.
    rules = {} if script else {"scrollable-region-focusable": {"enabled": False}}
    page.evaluate(AXE)
    found = page.evaluate("rules => axe.run({ rules, resultTypes: ['violations'] })", rules)["violations"]
    return [
        f"{each['id']}: {node['html'][:200]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def without_scripts(route) -> None:
    """The page as if no script had run, in a tab where ours still can: axe does not work where none may."""
    answer = route.fetch()
    route.fulfill(response=answer, body=re.sub(r"<script.*?</script>", "", answer.text(), flags=re.DOTALL))


# Any two of these properties are seen together; without JavaScript a page is light.
SETTINGS = [
    ("light", 1300, True),
    ("dark", 360, True),
    ("dark", 1300, True),
    ("light", 360, False),
    ("light", 1300, False),
]


@pytest.mark.parametrize(("scheme", "width", "script"), SETTINGS)
def test_page(tab, page, scheme, width, script):
    visit = tab(color_scheme=scheme, width=width, java_script_enabled=script)
    visit.open(page)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.page.evaluate(RAW_TEX) == []
    assert visit.page.evaluate(STRANGE) == []
    assert visit.page.evaluate(SMALL) == []
    assert bad_images(visit.page) == []
    if not script:
        assert visit.wrong == []
        visit = tab(color_scheme=scheme, width=width)
        visit.page.route(re.compile(r"/$|\.html$"), without_scripts)
        visit.open(page)
    else:
        assert visit.page.evaluate(SHIFTS) == []
        assert visit.page.evaluate(LOOSE) == []
        assert not [url for url in visit.asked if "math-rest" in url], "add its character in theme/math_font.py"
    assert violations(visit.page, script) == []
    assert visit.wrong == []


@pytest.mark.parametrize("page_name", ["en/activations/gelu/", "en/engineering/ddp/", "zh/attention/flash_attention/"])
def test_sign_beside_a_heading_begins_no_line_at_any_width(tab, page_name):
    visit = tab()
    visit.open(page_name)
    for width in range(320, 440, 6):
        visit.page.set_viewport_size({"width": width, "height": 800})
        assert visit.page.evaluate(LOOSE) == [], width


@pytest.mark.parametrize("file", ["404.html", "en/404.html", "zh/404.html"])
def test_missing_page_leads_home_in_both_languages(file):
    said = lxml.html.parse(str(SITE / file)).xpath("//article/p[@lang]")
    homes = {each.get("lang"): posixpath.normpath(each.find("a").get("href")) for each in said}
    assert {language: posixpath.basename(home) for language, home in homes.items()} == {"en": "en", "zh": "zh"}


def sections(name: str) -> list[str]:
    return lxml.html.parse(str(SITE / name / "index.html")).xpath("//article//*[self::h2 or self::h3]/@id")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_language_switch_keeps_page_and_section(tab, twin_page, script):
    name, twin = twin_page, ("zh" if twin_page.startswith("en") else "en") + twin_page[2:]
    visit = tab(java_script_enabled=script)
    visit.open(name)
    visit.page.click(".md-header .twin")
    assert visit.at() == twin
    for section in sections(name)[1::2][-2:]:
        visit.open(f"{name}#{section}")
        visit.page.click(".md-header .twin" if script else f"[id='{section}'] .headertwin")
        assert visit.at() == f"{twin}#{section}"
        visit.page.wait_for_load_state()
        top = visit.page.locator(f"[id='{section}']").bounding_box()["y"]
        assert 0 <= top <= 200 or visit.page.evaluate("scrollY + innerHeight >= document.body.scrollHeight - 1")
    assert visit.wrong == []


def test_copy_buttons_copy_the_code_and_nothing_else(tab, article):
    blocks = lxml.html.parse(str(SITE / article / "index.html")).xpath(
        "//article//pre[not(ancestor::*[contains(@class,'no-copy')])]"
    )
    codes = [
        block.text_content().rstrip("\n")
        for block in blocks
        if "doc-signature" not in block.getparent().get("class", "")
    ]
    visit = tab(permissions=["clipboard-read", "clipboard-write"])
    visit.open(article)
    assert visit.page.locator(".no-copy .md-code__button[data-md-type=copy]").count() == 0
    copied = []
    for button in visit.page.locator(".md-code__button[data-md-type=copy]").all():
        button.evaluate("button => button.closest('details')?.setAttribute('open', '')")
        button.click()
        copied.append(visit.page.evaluate("navigator.clipboard.readText()").rstrip("\n"))
    assert [code for code in copied if code in codes] == codes
    assert visit.wrong == []
