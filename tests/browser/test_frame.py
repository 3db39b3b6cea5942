"""Test the page around an article: colour scheme, contents, menu, back-to-top button, copy buttons, loading."""

import re
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue

import pytest

SITE = Path(__file__).resolve().parents[2] / "site"

ARTICLE = "en/activations/gelu/"
SCHEMES = {"light": "default", "dark": "slate"}


def scheme(page) -> str:
    return page.get_attribute("body", "data-md-color-scheme")


@pytest.mark.parametrize("system", SCHEMES)
def test_initial_colours_follow_the_system_before_the_first_paint(tab, system):
    visit = tab(color_scheme=system)
    visit.page.add_init_script("""
        new MutationObserver((_, observer) => {
          if (!document.querySelector("article h1")) return;
          window.early = document.body.dataset.mdColorScheme;
          observer.disconnect();
        }).observe(document, { childList: true, subtree: true });
    """)
    visit.open("en/")
    assert visit.page.evaluate("early") == scheme(visit.page) == SCHEMES[system]
    other = next(each for each in SCHEMES if each != system)
    visit.page.emulate_media(color_scheme=other)
    visit.page.wait_for_function("scheme => document.body.dataset.mdColorScheme === scheme", arg=SCHEMES[other])


@pytest.mark.parametrize("system", SCHEMES)
def test_chosen_colours_persist_across_pages_whatever_the_system_uses(tab, system):
    visit = tab(color_scheme=system)
    visit.open("en/")
    chosen = ({*SCHEMES.values()} - {SCHEMES[system]}).pop()
    switch = visit.page.locator(".scheme")
    assert switch.get_attribute("aria-label")
    icon = switch.locator("svg:visible").inner_html()
    switch.focus()
    visit.page.keyboard.press("Enter")
    assert scheme(visit.page) == chosen
    assert switch.locator("svg:visible").count() == 1
    assert switch.locator("svg:visible").inner_html() != icon
    for media in *SCHEMES, system:
        visit.page.emulate_media(color_scheme=media)
        visit.page.wait_for_timeout(50)
        assert scheme(visit.page) == chosen
    for page in ARTICLE, "zh/":
        visit.open(page)
        assert scheme(visit.page) == chosen


def test_colours_can_be_switched_without_local_storage(tab):
    visit = tab()
    refuse = "{ get() { throw new DOMException('refused', 'SecurityError'); } }"
    visit.page.add_init_script(f"Object.defineProperty(window, 'localStorage', {refuse})")
    visit.open("en/")
    visit.page.click(".scheme")
    assert scheme(visit.page) == "slate"
    visit.page.emulate_media(color_scheme="dark")
    visit.page.emulate_media(color_scheme="light")
    visit.page.wait_for_timeout(50)
    assert scheme(visit.page) == "slate"
    assert visit.problems == []


ACTIVE = ".md-sidebar--secondary .md-nav__link--active"


def scroll_to(page, id: str) -> None:
    """Scroll with the mouse wheel until the heading is just below the header."""
    page.mouse.move(650, 300)
    page.mouse.wheel(0, page.locator(f"[id='{id}']").bounding_box()["y"] - 60)
    page.wait_for_function(
        "([id, active]) => document.querySelector(active)?.hash === `#${id}`", arg=[id, ACTIVE], timeout=5000
    )


@pytest.mark.parametrize("language", ["en", "zh"])
def test_contents_address_and_language_switch_follow_the_reader(tab, language):
    visit = tab()
    page = visit.page
    page.set_viewport_size({"width": 1300, "height": 420})  # too low for the whole table of contents
    visit.open(f"{language}/activations/gelu/")
    assert page.locator(ACTIVE).count() == 0
    headings = page.eval_on_selector_all("article :is(h2, h3)[id]", "all => all.map(each => each.id)")
    for id in headings[1], headings[-3], headings[3]:
        scroll_to(page, id)
        page.wait_for_function("id => location.hash === `#${id}`", arg=id)
        assert page.locator(ACTIVE).count() == 1
        link, box = page.locator(ACTIVE).bounding_box(), page.locator(".md-sidebar--secondary").bounding_box()
        assert box["y"] <= link["y"] <= box["y"] + box["height"] - link["height"]
    page.click(".md-header .twin")
    assert visit.path() == f"{'zh' if language == 'en' else 'en'}/activations/gelu/#{headings[3]}"
    visit.open(f"{language}/activations/gelu/")
    scroll_to(page, headings[1])
    page.wait_for_function("id => location.hash === `#${id}`", arg=headings[1])
    page.keyboard.press("Home")
    page.wait_for_function("() => location.hash === ''")
    assert page.locator(ACTIVE).count() == 0
    assert visit.problems == []


def test_address_keeps_a_visible_section_that_cannot_scroll_to_the_top(tab):
    visit = tab()
    visit.page.set_viewport_size({"width": 1300, "height": 3000})
    visit.open(ARTICLE)
    headings = visit.page.eval_on_selector_all("article :is(h2, h3)[id]", "all => all.map(each => each.id)")
    visit.open(f"{ARTICLE}#{headings[-1]}")
    visit.page.wait_for_timeout(600)
    assert visit.page.locator(f"[id='{headings[-1]}']").bounding_box()["y"] > 200
    assert visit.path() == f"{ARTICLE}#{headings[-1]}"


def test_address_is_kept_when_a_late_image_moves_its_section_until_the_reader_scrolls(tab):
    """Load an image without a declared size after the page, in a browser without scroll anchoring."""
    visit = tab(fresh=True)
    page, waiting = visit.page, []
    text = (SITE / ARTICLE / "index.html").read_text()
    figure = re.search(r'(?<=only-light")[^<]*<img [^>]*loading="lazy"[^>]*>', text)
    source = re.search(r'src="[./]*([^"]+)"', figure[0])[1]
    section = re.search(r'<h[23] id="([^"]+)"', text[figure.end() :])[1]
    page.route(
        f"**/{ARTICLE}",
        lambda route: route.fulfill(
            content_type="text/html", body=text.replace(figure[0], re.sub(r' (width|height)="[^"]*"', "", figure[0]))
        ),
    )
    page.route(f"**/{source}", lambda route: waiting.append(route))
    visit.open(f"{ARTICLE}#{section}")
    page.evaluate("void (document.documentElement.style.overflowAnchor = 'none')")
    top = f"document.getElementById('{section}').getBoundingClientRect().top"
    page.wait_for_function(f"() => {top} < 80")
    while not waiting:
        page.wait_for_timeout(50)
    waiting[0].continue_()
    page.wait_for_function(f"() => {top} > 150")
    page.wait_for_timeout(500)
    assert visit.path() == f"{ARTICLE}#{section}"
    page.mouse.move(650, 300)
    page.mouse.wheel(0, -40)
    page.wait_for_function(f"() => location.hash !== '#{section}'")


@pytest.mark.parametrize("page_name", ["en/", "zh/"])
def test_address_keeps_its_heading_among_headings_side_by_side(tab, page_name):
    visit = tab()
    visit.open(page_name)
    places = "all => all.map(each => [each.id, each.getBoundingClientRect().top])"
    tops = dict(visit.page.eval_on_selector_all("article h3[id]", places))
    aligned = [id for id, top in tops.items() if [*tops.values()].count(top) > 1]
    assert len(aligned) > 1
    for id in aligned:
        visit.page.goto("about:blank")
        visit.open(f"{page_name}#{id}")
        marked = "([id, active]) => document.querySelector(active)?.hash === `#${id}`"
        visit.page.wait_for_function(marked, arg=[id, ACTIVE], timeout=5000)
        assert visit.path() == f"{page_name}#{id}"


def test_last_section_is_marked_where_it_cannot_scroll_to_the_top(tab):
    visit = tab()
    visit.open("en/engineering/ddp/")
    links = visit.page.locator(".md-sidebar--secondary .md-nav__link")
    for number in -1, -2, -1:
        link = links.nth(number)
        link.click()
        visit.page.wait_for_function(
            "link => link.classList.contains('md-nav__link--active')", arg=link.element_handle()
        )
        assert visit.page.locator(ACTIVE).count() == 1


def test_address_follows_a_reader_who_scrolls_up_in_steps(tab):
    visit = tab()
    page = visit.page
    visit.open("en/optimization/adamw/#equilibrium")
    page.mouse.move(600, 400)
    for _ in range(6):
        page.mouse.wheel(0, -100)
        page.wait_for_timeout(350)
    page.wait_for_function("active => document.querySelector(active)?.hash === location.hash", arg=ACTIVE)
    assert page.evaluate("location.hash") != "#equilibrium"


def test_malformed_fragment_causes_no_error(tab):
    visit = tab()
    visit.open(f"{ARTICLE}#100%")
    scroll_to(visit.page, "code")
    visit.page.wait_for_function("() => location.hash === '#code'")
    assert visit.problems == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_menu_of_a_phone_shows_the_section_being_read(tab, language):
    visit = tab(width=360)
    visit.open(f"{language}/engineering/ddp/#launching")
    page = visit.page
    page.click(".md-header [for=__drawer]")
    visit.settle()
    page.click("label[for=__toc] >> visible=true")
    visit.settle()
    link = page.locator(".md-sidebar--primary .md-nav--secondary .md-nav__link--active")
    assert link.count() == 1
    assert link.get_attribute("href") == "#launching"
    assert 0 < link.bounding_box()["y"] < 700
    assert link.is_visible()


def test_page_does_not_scroll_behind_the_menu_of_a_phone(tab):
    visit = tab(width=360)
    visit.open(ARTICLE)
    page = visit.page
    page.evaluate("scrollTo(0, 500)")
    page.click(".md-header [for=__drawer]")
    visit.settle()
    for x in 100, 340:  # on the menu, next to it
        page.mouse.move(x, 400)
        page.mouse.wheel(0, 300)
        page.wait_for_timeout(200)
    assert page.evaluate("scrollY") == 500
    page.keyboard.press("Escape")
    page.mouse.wheel(0, 300)
    page.wait_for_function("() => scrollY > 500")


def test_header_shows_the_title_once_it_is_out_of_view(tab):
    visit = tab()
    visit.open(ARTICLE)
    title = visit.page.locator(".md-header__title")
    assert "active" not in title.get_attribute("class")
    visit.page.evaluate("scrollTo(0, 1000)")
    visit.page.wait_for_selector(".md-header__title--active")
    visit.page.evaluate("scrollTo(0, 0)")
    visit.page.wait_for_selector(".md-header__title:not(.md-header__title--active)")


def test_back_to_top_button_appears_on_scrolling_up(tab):
    visit = tab()
    visit.open(ARTICLE)
    page, up = visit.page, visit.page.locator(".md-top")
    assert up.get_attribute("hidden") is not None
    page.evaluate("scrollTo(0, 4000)")
    page.wait_for_timeout(200)
    assert up.get_attribute("hidden") is not None
    page.evaluate("scrollTo(0, 3900)")
    page.wait_for_selector(".md-top:not([hidden])")
    up.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => scrollY === 0")
    page.wait_for_selector(".md-top[hidden]", state="attached")
    page.keyboard.press("Tab")
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.activeElement.closest('article') !== null")


@pytest.mark.parametrize("page_name", [ARTICLE, "zh/activations/gelu/"])
def test_menu_of_a_phone_closes_after_a_link_within_the_page(tab, page_name):
    visit = tab(width=360)
    visit.open(page_name)
    page = visit.page
    page.click(".md-header [for=__drawer]")
    visit.settle()
    page.click("label[for=__toc] >> visible=true")
    visit.settle()
    link = page.locator(".md-sidebar--primary .md-nav--secondary .md-nav__link").nth(2)
    link.scroll_into_view_if_needed()
    place = link.get_attribute("href")
    link.click()
    assert page.evaluate("location.hash") == place
    assert not page.locator("#__drawer").is_checked()


def test_copying_code_shows_a_confirmation(tab):
    visit = tab(permissions=["clipboard-read", "clipboard-write"])
    visit.open("zh/activations/gelu/")
    moved = "pre => pre.filter(each => each.innerText !== each.lastChild.innerText).length"
    assert visit.page.eval_on_selector_all(".md-typeset pre", moved) == 0  # the buttons do not move the code
    button = visit.page.locator(".md-code__button").first
    colour = "button => getComputedStyle(button).color"
    faint = button.evaluate(colour)
    visit.page.keyboard.press("Tab")
    button.focus()
    visit.settle()
    assert button.evaluate(colour) != faint
    visit.page.keyboard.press("Enter")
    visit.page.locator("[role=status]", has_text="已复制").wait_for()
    visit.page.wait_for_selector(".md-dialog:not(.md-dialog--active)", state="attached")


def test_code_that_cannot_be_copied_is_selected(tab):
    visit = tab()
    visit.open(ARTICLE)
    visit.page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject())")
    block = visit.page.locator(".md-typeset pre:has(.md-code__button)").first
    block.locator("button").click()
    assert visit.page.evaluate("getSelection().toString().trim()") == block.locator("code").inner_text().strip()
    assert visit.problems == []


# Record the positions of the elements that are visible without scrolling.
RECORD = """() => {
  const box = element => element.getBoundingClientRect();
  const seen = element => box(element).width && box(element).height && box(element).top < innerHeight
    && element.checkVisibility({ visibilityProperty: true });
  window.placesByElement ??= new Map();
  for (const element of document.querySelectorAll("body *")) {
    if (!seen(element)) continue;
    const place = `${Math.round(box(element).left)}, ${Math.round(box(element).top)}`;
    placesByElement.set(element, (placesByElement.get(element) ?? new Set()).add(place));
  }
  return placesByElement.size;
}"""
MOVED = """() => [...placesByElement].filter(([, places]) => places.size > 1)
  .map(([element, places]) => [element.outerHTML.slice(0, 80), ...places])"""


@pytest.mark.parametrize("width", [360, 1300])
@pytest.mark.parametrize("page_name", ["en/", "zh/attention/", "en/activations/gelu/", "zh/glossary/"])
def test_nothing_moves_while_the_rest_of_the_page_loads(tab, server, page_name, width):
    """Send the page in pieces, each ending with a comment that shows when it has been parsed.

    No formula is cut: while a part of one is there, its signs are elsewhere. No caption, which is centred, either.
    """
    text = (SITE / page_name / "index.html").read_text()
    whole = [
        range(*part.span()) for part in re.finditer('<math.*?</math>|<span class="caption">.*?</p>', text, re.DOTALL)
    ]
    ends = [end.end() for end in re.finditer("</(?!script|style|title)[a-z0-9]+>", text)]
    ends = [end for end in ends if text.index("<body") < end < text.index("<body") + 60_000]
    ends = [end for end in ends if not any(end in part for part in whole)]
    header = [end for end in ends if end < text.index("</header>")] if page_name == "en/" else []
    cuts = sorted({*header, *ends[:: len(ends) // 20]})
    visit = tab(width=width, fresh=True)
    pieces = server.slow[f"/sub/{page_name}"] = SimpleQueue()
    comments = """() => {
      const walker = document.createTreeWalker(document, NodeFilter.SHOW_COMMENT);
      let last;
      while (walker.nextNode()) last = walker.currentNode.data;
      return last;
    }"""
    try:
        pieces.put(text[: cuts[0]] + "<!--0-->")
        visit.page.goto(visit.address + page_name, wait_until="commit")
        for number, (start, end) in enumerate(pairwise(cuts)):
            parsed = f"number => ({comments})() === `${{number}}` && !document.documentElement.matches('.waiting')"
            visit.page.wait_for_function(parsed, arg=number, polling=10)
            visit.page.evaluate("() => document.fonts.ready.then(() => null)")
            visit.page.evaluate(RECORD)
            pieces.put(f"{text[start:end]}<!--{number + 1}-->")
        pieces.put(text[cuts[-1] :])
        pieces.put("")
        visit.page.wait_for_load_state()
        assert visit.page.evaluate(RECORD) > 20
        assert visit.page.evaluate(MOVED) == []
    finally:
        del server.slow[f"/sub/{page_name}"]
        pieces.put("")


def test_page_is_shown_if_the_math_font_cannot_be_loaded(tab):
    visit = tab()
    visit.page.add_init_script("document.fonts.load = () => Promise.reject(new Error('damaged'))")
    visit.open(ARTICLE)
    visit.page.wait_for_function(
        "() => document.querySelector('article p').checkVisibility({ visibilityProperty: true })"
    )


def test_page_is_shown_without_a_script(tab):
    visit = tab(java_script_enabled=False)
    visit.open(ARTICLE)
    assert visit.page.locator("article p").first.is_visible()
