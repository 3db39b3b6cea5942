"""Keyboard, figures, print, and the policy."""

import pytest

PHONE = 360
WIDTHS = pytest.mark.parametrize("width", [PHONE, 1300])
LANGUAGES = pytest.mark.parametrize("language", ["en", "zh"])

# What a mouse can reach: not what is hidden, and of the colour schemes the one that is not there yet.
REACHABLE = """() => [...document.querySelectorAll("a[href], button, summary, input, [tabindex='0']")]
  .filter(element => element.tabIndex >= 0 && element.type !== "radio" && !element.closest("dialog, [hidden]"))
  .filter(element => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
  .filter(element => { const box = element.getBoundingClientRect(); return box.width > 0 && box.right > 0; })
  .map((element, i) => { element.dataset.number ??= i; return element.dataset.number; })"""

FOCUSED = """() => {
  const element = document.activeElement;
  const shown = element.type === "radio" ? element.nextElementSibling : element;
  const style = getComputedStyle(shown), box = shown.getBoundingClientRect();
  return {
    number: element.dataset.number ?? null,
    html: element.outerHTML.slice(0, 120),
    marked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
    inside: box.width > 0 && box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight,
  };
}"""


@WIDTHS
@LANGUAGES
def test_keyboard_reaches_everything_and_shows_where_it_is(tab, language, width):
    visit = tab(width=width)
    visit.open(f"{language}/activations/gelu/")
    page = visit.page
    page.wait_for_timeout(300)
    wanted, reached = set(page.evaluate(REACHABLE)), set()
    for _ in range(3 * len(wanted)):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused["html"].startswith("<body"):
            break
        assert focused["marked"], focused
        assert focused["inside"], focused
        reached.add(focused["number"])
    assert wanted - reached == set()


def test_menu_of_a_phone_by_keyboard(tab):
    visit = tab(width=PHONE)
    visit.open("en/")
    page = visit.page
    menu = page.locator(".md-header [for=__drawer]")
    entry = page.locator(".md-sidebar--primary a", has_text="GELU")
    assert not entry.is_visible()
    menu.focus()
    page.keyboard.press("Enter")
    entry.wait_for(state="visible")
    entry.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/activations/gelu/")


def test_colour_scheme_by_keyboard(tab):
    visit = tab()
    visit.open("en/")
    page = visit.page
    assert page.get_attribute("body", "data-md-color-scheme") == "default"
    page.locator("[name=__palette]").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("body", "data-md-color-scheme") == "slate"
    visit.open("en/activations/gelu/")
    assert page.get_attribute("body", "data-md-color-scheme") == "slate"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("way", ["click", "Enter"])
def test_figure_is_enlarged(tab, way, scheme):
    visit = tab(color_scheme=scheme)
    visit.open("en/activations/gelu/")
    page, dialog = visit.page, visit.page.locator(".enlarged")
    figure = page.locator(f".enlarge.only-{scheme}").first
    figure.scroll_into_view_if_needed()
    small = figure.locator("img").bounding_box()
    figure.click() if way == "click" else (figure.focus(), page.keyboard.press("Enter"))
    assert dialog.is_visible()
    large = dialog.locator("img")
    assert large.get_attribute("src").endswith(f"{scheme}.svg")
    assert large.get_attribute("alt") == figure.locator("img").get_attribute("alt")
    assert large.bounding_box()["height"] > 1.5 * small["height"]
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    figure.click()
    large.click()
    assert not dialog.is_visible()
    assert visit.wrong == []


def test_figure_is_a_link_without_javascript(tab):
    visit = tab(java_script_enabled=False)
    visit.open("en/activations/gelu/")
    visit.page.click(".enlarge.only-light >> nth=0")
    assert visit.at() == "en/activations/gelu/shape-light.svg"


def test_wide_formula_is_reached_without_a_script(tab):
    visit = tab(width=PHONE, java_script_enabled=False)
    visit.open("en/activations/gelu/")
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate("document.activeElement.classList.contains('formula-block')"):
            return
    pytest.fail("no formula was reached")


def test_print_shows_the_article_and_its_answers_in_black_on_white(tab, article):
    visit = tab(color_scheme="dark")
    visit.open(article)
    page = visit.page
    page.emulate_media(media="print")
    for hidden in ".md-header", ".md-sidebar", ".only-dark", ".headerlink":
        assert not any(each.is_visible() for each in page.locator(hidden).all()), hidden
    assert all(each.is_visible() for each in page.locator(".only-light").all())
    assert all(each.is_visible() for each in page.locator("details p").all())
    assert page.evaluate("getComputedStyle(document.querySelector('article')).color") == "rgb(0, 0, 0)"
    wide = (
        "() => [...document.querySelectorAll('pre > code')].filter(code => code.scrollWidth > code.clientWidth).length"
    )
    assert page.evaluate(wide) == 0


def test_policy_lets_no_other_script_run(tab):
    visit = tab()
    visit.open("en/")
    run = "code => document.body.append(Object.assign(document.createElement('script'), { textContent: code }))"
    visit.page.evaluate(run, "document.title = 'changed'")
    assert visit.page.title() != "changed"
    assert any("Content Security Policy" in what for what in visit.wrong)
