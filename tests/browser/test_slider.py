"""Test figures with a slider: which frame they show, when frames are loaded, playing, and without a script."""

import re

import pytest

PAGE = "activations/swish/"
SCHEMES = pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("zh", "dark")])
SHOWN = "figure => [...figure.querySelectorAll('img')].find(image => image.checkVisibility()).currentSrc"
TURNED = f"part => ({SHOWN})(document.querySelector('.figure:has(.slider)')).includes(part)"
STILL = "document.documentElement.scrollHeight + ' ' + document.querySelector('.figure:has(.slider)').clientHeight"


class Slider:
    """The first figure with a slider, in a tab that has opened its page."""

    def __init__(self, tab, language="en", **options):
        self.visit = tab(**options)
        self.visit.open(f"{language}/{PAGE}")
        self.page = self.visit.page
        self.figure = self.page.locator(".figure:has(.slider)").first
        self.input, self.button = self.figure.locator("input"), self.figure.locator("button")
        self.figure.scroll_into_view_if_needed()

    def frame(self) -> str:
        """The file that is shown: family-3-light."""
        return re.search(r"([^/]*)\.svg$", self.figure.evaluate(SHOWN))[1]

    def loaded(self) -> set[str]:
        """The files of frames that were requested."""
        return {name[1] for url in self.visit.requests if (name := re.search(r"/(family-\d+-\w+)\.svg$", url))}


@SCHEMES
def test_keys_choose_the_frame_and_its_words(tab, language, scheme):
    slider = Slider(tab, language, color_scheme=scheme)
    assert slider.frame() == f"family-{scheme}"
    size = slider.page.evaluate(STILL)
    last = slider.input.get_attribute("max")
    slider.input.focus()
    for key, number in ("Home", "0"), ("ArrowRight", "1"), ("End", last), ("ArrowLeft", str(int(last) - 1)):
        slider.page.keyboard.press(key)
        slider.page.wait_for_function(TURNED, arg=f"-{number}-")
        value = slider.figure.locator(".value").inner_text()
        assert slider.input.get_attribute("aria-valuetext") == value
        image = slider.figure.locator("img:visible")
        assert image.get_attribute("alt").endswith(value)
        assert slider.figure.locator("a.enlarge:visible").get_attribute("href") == image.get_attribute("src")
        assert slider.page.evaluate(STILL) == size
    assert slider.visit.problems == []


@SCHEMES
def test_frames_are_loaded_at_the_first_touch_for_one_scheme(tab, language, scheme):
    slider = Slider(tab, language, color_scheme=scheme)
    slider.page.wait_for_load_state("networkidle")
    assert slider.loaded() == set()
    slider.input.focus()
    slider.page.wait_for_load_state("networkidle")
    frames = int(slider.input.get_attribute("max")) + 1
    assert slider.loaded() == {f"family-{number}-{scheme}" for number in range(frames)}


def test_button_plays_to_the_end_and_then_from_the_start(tab):
    slider = Slider(tab)
    slider.page.clock.install()
    slider.page.reload()
    assert slider.button.get_attribute("aria-label") == "Play"
    slider.button.click()
    assert slider.button.get_attribute("aria-label") == "Pause"
    slider.page.clock.run_for(60_000)
    assert slider.button.get_attribute("aria-label") == "Play"
    assert slider.input.input_value() == slider.input.get_attribute("max")
    slider.button.click()
    assert slider.input.input_value() == "0"
    slider.button.click()
    slider.page.clock.run_for(60_000)
    assert slider.input.input_value() == "0"


def test_playing_ends_when_the_figure_leaves_the_screen_or_motion_is_reduced(tab):
    slider = Slider(tab)
    last = slider.input.get_attribute("max")
    paused = ".slider button[aria-label=Play]"
    slider.button.click()
    slider.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    slider.page.wait_for_selector(paused, state="attached")
    assert slider.input.input_value() != last  # it did not end by itself
    slider.figure.scroll_into_view_if_needed()
    slider.input.focus()
    slider.page.keyboard.press("Home")
    slider.button.click()
    slider.page.emulate_media(reduced_motion="reduce")
    slider.page.wait_for_selector(paused, state="attached")
    assert slider.input.input_value() != last
    assert not slider.button.is_visible()


def test_without_a_script_and_on_paper_there_is_no_slider(tab):
    slider = Slider(tab, java_script_enabled=False)
    assert slider.figure.locator("img:visible").count() == 1
    assert not slider.input.is_visible()
    slider = Slider(tab)
    slider.page.emulate_media(media="print")
    assert not slider.input.is_visible()
    assert slider.figure.locator("img:visible").count() == 1


def test_script_is_small_and_only_where_there_is_a_slider(tab):
    visit = tab()
    visit.open("en/activations/gelu/")
    assert not [url for url in visit.requests if url.endswith("slider.js")]
    visit.open(f"en/{PAGE}")
    (address,) = {url for url in visit.requests if url.endswith("slider.js")}
    assert len(visit.page.request.get(visit.address + address).body()) <= 3000
