"""Every page once, in one of four settings by turns, and a page of each kind in all that a reader may have."""

import re
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import axe_playwright_python
import pytest

SITE = Path(__file__).resolve().parents[2] / "site"
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
PHONE, DESK = 360, 1300

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


# The same, for any width of a phone, with nothing but the headings left to lay out.
LOOSE_ON_A_PHONE = f"""() => {{
  const loose = {LOOSE}, article = document.querySelector("article");
  const beside = innerWidth - article.clientWidth;
  article.replaceChildren(...article.querySelectorAll(":is(h1, h2, h3, h4):has(> .headerlink)"));
  const found = [];
  for (let width = 320; width < 440; width += 6) {{
    article.style.width = `${{width - beside}}px`;
    found.push(...loose().map(heading => `${{width}} ${{heading}}`));
  }}
  return found;
}}"""

# What each button copies that stands on a block of code.
COPIED = """() => {
  const copied = [];
  navigator.clipboard.writeText = async text => copied.push(text);
  document.querySelectorAll(".md-code__button").forEach(button => button.click());
  return copied;
}"""


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


# Elements whose names and classes are the same all the way up look the same: of those, one that is seen and has text.
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
    """What axe finds that is serious or critical; colours, which cost it most, perhaps in a sample alone."""
    page.evaluate(THIN_OUT)
    # Without our script, wide formulas have no tabindex. Browsers let the keyboard reach what scrolls, which axe does
    # not know, and `test_wide_formula_is_reached_without_a_script` looks at.
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


# One follows the other as its opposite. A page has the next setting than the page before it, its twin the opposite.
TURNS = [("light", DESK), ("dark", PHONE), ("dark", DESK), ("light", PHONE)]


def codes(tree) -> list[str]:
    """What there is to copy on a page."""
    blocks = tree.xpath("//article//pre[code][not(ancestor::*[contains(@class, 'no-copy')])]/code")
    return [block.text_content() for block in blocks]


def looks_wrong(page) -> list:
    """What is too wide for the page, is not drawn, or stands alone on a line."""
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return [*([f"{wide} px too wide"] if wide > 0 else []), *bad_images(page), *page.evaluate(LOOSE)]


def test_page(visit, page, turn, read):
    """Once a page is opened, the rest is looked at in the opposite setting too, where nothing is loaded again."""
    tab = visit.page
    (scheme, width), (other_scheme, other_width) = TURNS[turn], TURNS[turn ^ 1]
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 800})
    visit.open(page)
    assert tab.evaluate(SHIFTS) == []
    assert tab.evaluate(SMALL) == []
    assert looks_wrong(tab) == []
    assert tab.evaluate(COPIED) == codes(read(page))
    assert not [url for url in visit.asked if "math-rest" in url], "add its character in theme/math_font.py"
    tab.emulate_media(color_scheme=other_scheme)
    tab.set_viewport_size({"width": other_width, "height": 800})
    assert looks_wrong(tab) == []
    visit.settle()
    assert violations(tab, sample=True) == []
    tab.set_viewport_size({"width": PHONE, "height": 800})
    assert tab.evaluate(LOOSE_ON_A_PHONE) == []
    assert visit.wrong == []


# Any two of these properties are seen together; without JavaScript a page is light.
SETTINGS = [
    ("light", DESK, True),
    ("dark", PHONE, True),
    ("dark", DESK, True),
    ("light", PHONE, False),
    ("light", DESK, False),
]


WHOLE = SETTINGS[:2]  # where all colours are looked at


def without_scripts(route) -> None:
    """The page as if no script had run, in a tab where ours still can: axe does not work where none may."""
    answer = route.fetch()
    route.fulfill(response=answer, body=re.sub(r"<script.*?</script>", "", answer.text(), flags=re.DOTALL))


def hosted(tab, read, **options):
    """A tab where the site lies where it was built for, and a missing page is answered as hosts do."""
    (home,) = read("en/").xpath("//link[@rel='canonical']/@href")
    visit = tab(at=home.removesuffix("en/"), **options)

    def answer(route):
        path = SITE / urlsplit(route.request.url.removeprefix(visit.address)).path
        route.fulfill(path=path if path.is_file() else SITE / "404.html")

    visit.page.route(visit.address + "**", answer)
    return visit


@pytest.mark.parametrize(("scheme", "width", "script"), SETTINGS)
def test_page_of_each_kind(tab, any_kind, fullest, read, scheme, width, script):
    page = "en/nothing/here/" if any_kind == "missing" else fullest(any_kind)
    if any_kind == "door" and script:
        return  # it sends the reader on
    make = partial(hosted, tab, read) if any_kind == "missing" else partial(tab, fresh=True)
    visit = make(color_scheme=scheme, width=width, java_script_enabled=script)
    visit.open(page)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.page.evaluate(SMALL) == []
    assert bad_images(visit.page) == []
    if script:
        assert visit.page.evaluate(SHIFTS) == []
        assert visit.page.evaluate(LOOSE) == []
        assert not [url for url in visit.asked if "math-rest" in url]
    elif any_kind != "missing":
        assert visit.wrong == []
        visit = tab(color_scheme=scheme, width=width)
        visit.page.route(re.compile(r"/$|\.html$"), without_scripts)
        visit.open(page)
    if script or any_kind != "missing":
        assert violations(visit.page, script, sample=(scheme, width, script) not in WHOLE) == []
    assert visit.wrong == []


@pytest.mark.parametrize(("locale", "home"), [("en-GB", "en/"), ("zh-CN", "zh/"), ("zh-TW", "zh/"), ("fr", "en/")])
def test_door_leads_to_the_language_of_the_browser(tab, locale, home):
    visit = tab(locale=locale)
    visit.open("")
    visit.page.wait_for_url(visit.address + home)
    assert visit.wrong == []


def sections(tree) -> list[str]:
    return tree.xpath("//article//*[self::h2 or self::h3]/@id")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
@pytest.mark.parametrize("kind", ["home", "area", "article", "glossary"])
def test_language_switch_keeps_page_and_section(tab, kind, fullest, read, script):
    name = fullest(kind)
    twin = ("zh" if name.startswith("en") else "en") + name[2:]
    visit = tab(java_script_enabled=script)
    visit.open(name)
    visit.page.click(".md-header .twin")
    assert visit.at() == twin
    ways = [(name, twin), (twin, name)]
    for (here, there), section in zip(ways, sections(read(name))[1::2], strict=False):
        visit.open(f"{here}#{section}")
        visit.page.click(".md-header .twin" if script else f"[id='{section}'] .headertwin")
        assert visit.at() == f"{there}#{section}"
        visit.page.wait_for_load_state()
        top = visit.page.locator(f"[id='{section}']").bounding_box()["y"]
        assert 0 <= top <= 200 or visit.page.evaluate("scrollY + innerHeight >= document.body.scrollHeight - 1")
    assert visit.wrong == []


@pytest.mark.parametrize("kind", ["article", "notebook"])
def test_copy_buttons_put_the_code_into_the_clipboard(tab, kind, fullest, read):
    visit = tab(permissions=["clipboard-read", "clipboard-write"])
    visit.open(fullest(kind))
    buttons, wanted = visit.page.locator(".md-code__button[data-md-type=copy]").all(), codes(read(fullest(kind)))
    assert len(buttons) == len(wanted) > 3
    for number in 0, len(buttons) // 2, -1:  # `test_page` asks them all, without a clipboard
        buttons[number].evaluate("button => button.closest('details')?.setAttribute('open', '')")
        buttons[number].click()
        visit.page.get_by_role("status").filter(has_text=re.compile("Copied|已复制")).wait_for()
        assert visit.page.evaluate("navigator.clipboard.readText()") == wanted[number]
    assert visit.wrong == []
