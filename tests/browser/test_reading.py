"""Test the keyboard, enlarged figures, print, the content security policy and downloads."""

import re
from pathlib import Path

import pytest

SITE = Path(__file__).resolve().parents[2] / "site"

PHONE = 360
LANGUAGE_AND_WIDTH = pytest.mark.parametrize(("language", "width"), [("en", PHONE), ("zh", 1300)])

# The interactive elements that are visible.
REACHABLE = """() => [...document.querySelectorAll("a[href], button, summary, input, [tabindex='0']")]
  .filter(element => element.tabIndex >= 0 && !element.closest("dialog, [hidden]"))
  .filter(element => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
  .filter(element => { const box = element.getBoundingClientRect(); return box.width > 0 && box.right > 0; })
  .map((element, i) => { element.dataset.number ??= i; return element.dataset.number; })"""

FOCUSED = """() => {
  const element = document.activeElement;
  const style = getComputedStyle(element), box = element.getBoundingClientRect();
  const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return {
    covered: !element.contains(top) && !top?.contains(element),
    number: element.dataset.number ?? null,
    html: element.outerHTML.slice(0, 120),
    marked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0
      && style.outlineColor !== getComputedStyle(element.closest("dialog, header, body")).backgroundColor,
    shown: element.checkVisibility({ visibilityProperty: true, opacityProperty: true }),
    inside: box.width > 0 && box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight,
  };
}"""


@LANGUAGE_AND_WIDTH
def test_keyboard_reaches_everything_with_a_visible_focus(tab, language, width):
    visit = tab(width=width)
    visit.open(f"{language}/activations/gelu/")
    page = visit.page
    visit.settle()
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


def press(visit, text: str, keys: tuple[str, ...]) -> None:
    """Press Tab until an element whose text starts with `text` has the focus, then press the keys."""
    page = visit.page
    for _ in range(30):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        assert focused["marked"], focused
        assert focused["shown"], focused
        assert not focused["covered"], focused
        if page.evaluate("document.activeElement.innerText").strip().startswith(text):
            break
    else:
        pytest.fail(f"{text} was not reached")
    for key in keys:
        page.keyboard.press(key)
    visit.settle()


def test_menu_of_a_phone_by_keyboard(tab):
    visit = tab(width=PHONE)
    visit.open("en/")
    page = visit.page
    menu = page.locator(".md-header [for=__drawer]")
    entry = page.locator(".md-sidebar--primary a", has_text="GELU")
    assert not entry.is_visible()
    for key in "Enter", "Space":
        menu.focus()
        page.keyboard.press(key)
        visit.settle()
        assert menu.get_attribute("aria-expanded") == "true"
        assert page.evaluate("document.activeElement.closest('.md-sidebar--primary') !== null")
        page.keyboard.press("Escape")
        assert menu.get_attribute("aria-expanded") == "false"
        assert menu.evaluate("menu => menu === document.activeElement")
    page.keyboard.press("Enter")
    visit.settle()
    press(visit, "Activation functions", ("Tab",))  # past the link to the area's page
    assert page.evaluate("document.activeElement.ariaLabel") == "Activation functions"
    page.keyboard.press("Space")
    visit.settle()
    assert page.evaluate("document.activeElement.innerText.trim()") == "Activation functions"  # of the panel
    for _ in range(2):  # back, and in again
        page.keyboard.press("Enter")
        visit.settle()
    press(visit, "GELU", ("Enter",))
    page.wait_for_url("**/activations/gelu/")


def test_search_opens_above_the_menu_of_a_phone(tab):
    visit = tab(width=PHONE)
    visit.open("en/activations/gelu/")
    page = visit.page
    page.click(".md-header [for=__drawer]")
    visit.settle()
    page.keyboard.press("/")
    page.keyboard.type("gradient")
    page.wait_for_selector(".search li a")
    assert page.input_value(".search input") == "gradient"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_search_results_show_the_focus(tab, scheme):
    visit = tab(color_scheme=scheme)
    visit.open("en/activations/gelu/")
    page = visit.page
    page.keyboard.press("/")
    page.fill(".search input", "gradient")
    page.wait_for_selector(".search li a")
    for _ in range(4):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        assert focused["marked"], focused
        assert focused["inside"], focused


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
    assert visit.problems == []


@pytest.mark.parametrize("width", [PHONE, 412])
def test_figure_is_enlarged_on_a_phone(tab, width):
    visit = tab(width=width)
    visit.open("en/activations/gelu/")
    figure = visit.page.locator(".enlarge.only-light").first
    small = figure.locator("img").bounding_box()
    figure.click()
    large = visit.page.locator(".enlarged img").bounding_box()
    assert large["width"] > 1.5 * small["width"]
    assert large["height"] > 1.5 * small["height"]
    box = visit.page.locator(".enlarged div")
    box.evaluate("box => box.scrollTo(100, 0)")
    visit.page.keyboard.press("Escape")
    figure.click()
    assert box.evaluate("box => box.scrollLeft") == 0
    reach = "box => box.scrollWidth > box.clientWidth && document.documentElement.scrollWidth <= innerWidth"
    assert box.evaluate(reach)


def test_figure_is_a_link_without_javascript(tab):
    visit = tab(java_script_enabled=False)
    visit.open("en/activations/gelu/")
    visit.page.click(".enlarge.only-light >> nth=0")
    assert visit.path() == "en/activations/gelu/shape-light.svg"


def test_wide_formula_is_reached_without_a_script(tab):
    visit = tab(width=PHONE, java_script_enabled=False)
    visit.open("en/activations/gelu/")
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate("document.activeElement.classList.contains('formula-block')"):
            return
    pytest.fail("no formula was reached")


# How many of the selected elements a printed page shows, and how many it hides.
SHOWN = "(selector) => [...document.querySelectorAll(selector)].filter(each => each.checkVisibility()).length"
HIDDEN = "(selector) => [...document.querySelectorAll(selector)].filter(each => !each.checkVisibility()).length"
COLOURS = "() => [...document.querySelectorAll('pre code span')].map(span => getComputedStyle(span).color)"
WIDE = "() => [...document.querySelectorAll('pre > code')].filter(code => code.scrollWidth > code.clientWidth).length"


@pytest.mark.parametrize("kind", ["article", "notebook"])
def test_print_shows_the_article_and_its_answers_in_black_on_white(tab, kind, fullest):
    visit = tab(width=PHONE, color_scheme="dark")
    visit.open(fullest(kind))
    page = visit.page
    page.emulate_media(media="print", color_scheme="dark")
    for hidden in ".md-header", ".md-sidebar", ".only-dark", ".headerlink", ".take":
        assert page.evaluate(SHOWN, hidden) == 0, hidden
    for shown in ".only-light", "details:not(.tests) p:not(.take)", ".evidence .cite pre":
        assert page.evaluate(HIDDEN, shown) == 0, shown
    assert page.evaluate(SHOWN, ".only-light") > 0
    assert page.evaluate(SHOWN, ".evidence .cite pre") == (kind == "article")
    assert page.evaluate("getComputedStyle(document.querySelector('article')).color") == "rgb(0, 0, 0)"
    assert page.evaluate(WIDE) == 0
    light = tab(color_scheme="light")
    light.open(fullest(kind))
    assert page.evaluate(COLOURS) == light.page.evaluate(COLOURS)


def test_formula_in_rare_characters_loads_the_rest_of_our_font(tab):
    visit = tab()
    visit.open("en/activations/gelu/")
    add = "text => document.querySelector('article p').innerHTML += `<math><mi>${text}</mi></math>`"
    visit.page.evaluate(add, "x")
    visit.page.evaluate("document.fonts.ready")
    assert not [url for url in visit.requests if "math-rest" in url]
    with visit.page.expect_response(re.compile("math-rest")) as response:
        visit.page.evaluate(add, "𝐱")
    assert response.value.ok
    assert visit.problems == []


def test_policy_blocks_other_scripts(tab):
    visit = tab()
    visit.open("en/")
    run = "code => document.body.append(Object.assign(document.createElement('script'), { textContent: code }))"
    visit.page.evaluate(run, "document.title = 'changed'")
    assert visit.page.title() != "changed"
    assert any("Content Security Policy" in problem for problem in visit.problems)


@LANGUAGE_AND_WIDTH
def test_file_of_a_definition_is_copied_or_downloaded(tab, language, width):
    visit = tab(width=width, permissions=["clipboard-read", "clipboard-write"])
    visit.open(f"{language}/activations/gelu/")
    offers, labels = visit.page.locator(".take").all(), []
    assert offers
    for offer in offers:
        button, link = offer.locator("button"), offer.locator("a")
        name = link.get_attribute("href").rpartition("/code/")[2]
        file = (SITE / "code" / name).read_text()
        labels.append(button.inner_text())
        assert name.rpartition("/")[2] in labels[-1]
        button.click()
        button.get_by_text("Copied" if language == "en" else "已复制").wait_for()
        assert visit.page.evaluate("navigator.clipboard.readText()") == file
        with visit.page.expect_download() as download:
            link.click()
        assert Path(download.value.path()).read_text() == file
        assert download.value.suggested_filename == name.rpartition("/")[2]
    for offer, label in zip(offers, labels, strict=True):
        offer.locator("button").get_by_text(label, exact=True).wait_for()  # it can be copied again
    assert visit.problems == []


def test_button_that_copies_a_file_twice_shows_its_label_again(tab):
    visit = tab(permissions=["clipboard-read", "clipboard-write"])
    visit.open("en/activations/gelu/")
    button = visit.page.locator(".take button").first
    label = button.inner_text()
    button.dblclick()
    button.get_by_text("Copied").wait_for()
    button.get_by_text(label, exact=True).wait_for()


def test_file_that_cannot_be_copied_is_downloaded(tab):
    visit = tab(permissions=[])
    visit.open("en/activations/gelu/")
    visit.page.evaluate("void (navigator.clipboard.write = () => Promise.reject())")
    with visit.page.expect_download() as download:
        visit.page.locator(".take button").first.click()
    assert download.value.suggested_filename.endswith(".py")


def test_file_can_be_downloaded_without_a_script(tab):
    visit = tab(java_script_enabled=False)
    visit.open("en/activations/gelu/")
    assert visit.page.locator(".take button").first.is_hidden()
    assert visit.page.locator(".take a").first.is_visible()


def test_notebook_is_linked_from_both_languages_and_links_back(tab):
    visit = tab()
    for language in "en", "zh":
        visit.open(f"{language}/activations/gelu/")
        visit.page.click(".lab a")
        assert visit.path() == "en/lab/activations/gelu/"
    visit.page.click(".md-header .twin-of-lab")
    assert visit.path() == "zh/activations/gelu/"
    visit.page.click(".lab a")
    for ending in ".ipynb", ".py":
        with visit.page.expect_download() as download:
            visit.page.click(f"a[href$='gelu{ending}']")
        assert download.value.suggested_filename == f"gelu{ending}"
    assert visit.problems == []
