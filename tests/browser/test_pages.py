"""Check each page in one of four settings, in rotation, and a page of each kind in every setting."""

import re
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import axe_playwright_python
import pytest

SITE = Path(__file__).resolve().parents[2] / "site"
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
PHONE, DESK = 360, 1300

# Visible images, forced to load immediately.
IMAGES = """() => [...document.querySelectorAll("article img")].filter(image => image.checkVisibility())
  .map(image => { image.loading = "eager"; return [image.src, image.alt, image.complete, image.naturalWidth]; })"""

# Layout shifts: score, time and elements.
SHIFTS = """() => new Promise(resolve => {
  const name = source => source.node?.outerHTML?.slice(0, 80) ?? source.node?.data?.slice(0, 80);
  const found = [];
  new PerformanceObserver(list => list.getEntries().forEach(entry => {
    found.push([entry.value, Math.round(entry.startTime), ...entry.sources.map(name)]);
  })).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => resolve(found), 50);
})"""

# Formulas with a missing root sign, or with brackets that did not stretch with a tall part.
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

# Headings whose permalink wraps onto a separate line.
LOOSE = """() => [...document.querySelectorAll("article .headerlink")].filter(link => {
  const text = document.createRange();
  text.setStart(link.parentElement, 0);
  text.setEndBefore(link);
  return link.getBoundingClientRect().top >= text.getBoundingClientRect().bottom;
}).map(link => link.parentElement.textContent)"""


# The same for all phone widths, on a page reduced to its headings.
LOOSE_ON_A_PHONE = f"""() => {{
  const loose = {LOOSE}, article = document.querySelector("article");
  const margins = innerWidth - article.clientWidth;
  article.replaceChildren(...article.querySelectorAll(":is(h1, h2, h3, h4):has(> .headerlink)"));
  const found = [];
  for (let width = 320; width < 440; width += 6) {{
    article.style.width = `${{width - margins}}px`;
    found.push(...loose().map(heading => `${{width}} ${{heading}}`));
  }}
  return found;
}}"""

# The text that each code block's copy button copies. The message about it goes: it would fade while axe sees colours.
COPIED = """() => {
  const copied = [];
  navigator.clipboard.writeText = async text => copied.push(text);
  document.querySelectorAll(".md-code__button").forEach(button => button.click());
  document.querySelector(".md-dialog")?.remove();
  return copied;
}"""


def bad_images(page) -> list:
    """Return the images that did not load or lack alt text."""
    for _ in range(200):
        images = page.evaluate(IMAGES)
        if all(complete for _, _, complete, _ in images):
            break
        page.wait_for_timeout(20)
    return [image for image in images if not all(image)]


# Keep one formula and one token of each class in code: the rest are alike, and axe checks every element.
THIN_OUT = """() => {
  const seen = new Set();
  for (const span of document.querySelectorAll("pre code span")) {
    if (seen.has(span.className)) span.replaceWith(...span.childNodes);
    seen.add(span.className);
  }
  [...document.querySelectorAll("math")].slice(1).forEach(math => math.replaceChildren());
}"""


# Mark one visible element with text for each chain of ancestors' names and classes: the others look the same.
SAMPLE = """() => {
  const paths = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const chain = [];
    for (let each = element; each; each = each.parentElement) chain.push(each.localName, each.getAttribute("class"));
    const path = chain.join();
    const text = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!text || paths.has(path) || !element.checkVisibility({ visibilityProperty: true })) continue;
    paths.add(path);
    element.dataset.sample = "";
  }
  const of = { "color-contrast": "[data-sample]", "link-in-text-block": "a[href][data-sample]" };
  axe.configure({ rules: Object.entries(of).map(([id, selector]) => ({ id, selector })) });
}"""


def violations(page, script: bool = True, sample: bool = False) -> list[str]:
    """Return axe's serious and critical violations; with `sample`, check colours, the slowest rules, on a sample."""
    page.evaluate(THIN_OUT)
    # Without our script, wide formulas have no tabindex. Browsers let the keyboard reach what scrolls, which axe does
    # not know; `test_wide_formula_is_reached_without_a_script` checks it.
    rules = {"region": {"enabled": False}}  # slow, and moderate
    if not script:
        rules["scrollable-region-focusable"] = {"enabled": False}
    page.evaluate(AXE)
    if sample:
        page.evaluate(SAMPLE)
    found = page.evaluate("rules => axe.run({ rules, resultTypes: ['violations'] })", rules)["violations"]
    return [
        f"{each['id']}: {node['html'][:200]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


# Pairs of opposite settings. Each page has the next setting, and its translation the opposite one.
TURNS = [("light", DESK), ("dark", PHONE), ("dark", DESK), ("light", PHONE)]


def codes(tree) -> list[str]:
    """Return the text of each code block that has a copy button."""
    blocks = tree.xpath("//article//pre[code][not(ancestor::*[contains(@class, 'no-copy')])]/code")
    return [block.text_content() for block in blocks]


def looks_wrong(page) -> list:
    """Return what overflows the page, bad images, and headings whose permalink wraps."""
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return [*([f"{wide} px too wide"] if wide > 0 else []), *bad_images(page), *page.evaluate(LOOSE)]


def test_page(visit, page, turn, read):
    """After the checks on loading, repeat the others in the opposite setting without reloading."""
    tab = visit.page
    (scheme, width), (other_scheme, other_width) = TURNS[turn], TURNS[turn ^ 1]
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 800})
    visit.open(page)
    assert tab.evaluate(SHIFTS) == []
    assert tab.evaluate(SMALL) == []
    assert looks_wrong(tab) == []
    assert tab.evaluate(COPIED) == codes(read(page or "en/"))  # where the entry leads
    assert not [url for url in visit.requests if "math-rest" in url], "add its character in theme/math_font.py"
    tab.emulate_media(color_scheme=other_scheme)
    tab.set_viewport_size({"width": other_width, "height": 800})
    assert looks_wrong(tab) == []
    visit.settle()
    assert violations(tab, sample=True) == []
    tab.set_viewport_size({"width": PHONE, "height": 800})
    assert tab.evaluate(LOOSE_ON_A_PHONE) == []
    assert visit.problems == []


# Each possible pair of values occurs; without JavaScript a page is always light.
SETTINGS = [
    ("light", DESK, True),
    ("dark", PHONE, True),
    ("dark", DESK, True),
    ("light", PHONE, False),
    ("light", DESK, False),
]


WHOLE = SETTINGS[:2]  # where the colours of all elements are checked


def without_scripts(route) -> None:
    """Serve the page without its scripts, in a tab where scripts are allowed, since axe needs them."""
    response = route.fetch()
    route.fulfill(response=response, body=re.sub(r"<script.*?</script>", "", response.text(), flags=re.DOTALL))


def hosted(tab, read, **options):
    """Open a tab with the site at its public URL, where a missing page gets 404.html, as on a host."""
    (home,) = read("en/").xpath("//link[@rel='canonical']/@href")
    visit = tab(base=home.removesuffix("en/"), **options)

    def serve(route):
        path = SITE / urlsplit(route.request.url.removeprefix(visit.address)).path
        route.fulfill(path=path if path.is_file() else SITE / "404.html")

    visit.page.route(visit.address + "**", serve)
    return visit


@pytest.mark.parametrize(("scheme", "width", "script"), SETTINGS)
def test_page_of_each_kind(tab, any_kind, fullest, read, scheme, width, script):
    page = "en/nothing/here/" if any_kind == "missing" else fullest(any_kind)
    if any_kind == "entry" and script:
        return  # it redirects
    make = partial(hosted, tab, read) if any_kind == "missing" else partial(tab, fresh=True)
    visit = make(color_scheme=scheme, width=width, java_script_enabled=script)
    visit.open(page)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.page.evaluate(SMALL) == []
    assert bad_images(visit.page) == []
    if script:
        assert visit.page.evaluate(SHIFTS) == []
        assert visit.page.evaluate(LOOSE) == []
        assert not [url for url in visit.requests if "math-rest" in url]
    elif any_kind != "missing":
        assert visit.problems == []
        visit = tab(color_scheme=scheme, width=width)
        visit.page.route(re.compile(r"/$|\.html$"), without_scripts)
        visit.open(page)
    if script or any_kind != "missing":
        assert violations(visit.page, script, sample=(scheme, width, script) not in WHOLE) == []
    assert visit.problems == []


@pytest.mark.parametrize(("locale", "home"), [("en-GB", "en/"), ("zh-CN", "zh/"), ("zh-TW", "zh/"), ("fr", "en/")])
def test_entry_page_redirects_to_the_language_of_the_browser(tab, locale, home):
    visit = tab(locale=locale)
    visit.open("")
    visit.page.wait_for_url(visit.address + home)
    assert visit.problems == []


def sections(tree) -> list[str]:
    return tree.xpath("//article//*[self::h2 or self::h3]/@id")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
@pytest.mark.parametrize("kind", ["home", "area", "article", "glossary"])
def test_language_switch_keeps_page_and_section(tab, kind, fullest, read, script):
    name = fullest(kind)
    translation = ("zh" if name.startswith("en") else "en") + name[2:]
    visit = tab(java_script_enabled=script)
    visit.open(name)
    visit.page.click(".md-header .twin")
    assert visit.path() == translation
    directions = [(name, translation), (translation, name)]
    for (here, there), section in zip(directions, sections(read(name))[1::2], strict=False):
        visit.open(f"{here}#{section}")
        visit.page.click(".md-header .twin" if script else f"[id='{section}'] .headertwin")
        assert visit.path() == f"{there}#{section}"
        visit.page.wait_for_load_state()
        top = visit.page.locator(f"[id='{section}']").bounding_box()["y"]
        assert 0 <= top <= 200 or visit.page.evaluate("scrollY + innerHeight >= document.body.scrollHeight - 1")
    assert visit.problems == []


@pytest.mark.parametrize("kind", ["article", "notebook"])
def test_copy_buttons_put_the_code_into_the_clipboard(tab, kind, fullest, read):
    visit = tab(permissions=["clipboard-read", "clipboard-write"])
    visit.open(fullest(kind))
    buttons, wanted = visit.page.locator(".md-code__button[data-md-type=copy]").all(), codes(read(fullest(kind)))
    assert len(buttons) == len(wanted) > 3
    for number in 0, len(buttons) // 2, -1:  # `test_page` clicks them all, without a clipboard
        buttons[number].evaluate("button => button.closest('details')?.setAttribute('open', '')")
        buttons[number].click()
        visit.page.get_by_role("status").filter(has_text=re.compile("Copied|已复制")).wait_for()
        assert visit.page.evaluate("navigator.clipboard.readText()") == wanted[number]
    assert visit.problems == []
