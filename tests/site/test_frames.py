"""Figures with a slider: frames of one picture, of which the page shows one at first."""

import json
import re

import matplotlib.pyplot as plt
import pytest

from zhixing_site.execution import figures
from zhixing_site.execution.frames import draw_frames
from zhixing_site.execution.snippet import Cell

SNIPPET = """\
# %% powers frames="exponent" poster="2 steps"
import matplotlib.pyplot as plt

for exponent in (1, 2, 3):
    figure, axes = plt.subplots(figsize=(3, 2), num=f"{exponent} steps")
    axes.plot([0, 1, 2], [x**exponent for x in (0, 1, 2)])
    axes.set(ylim=(0, 8))
"""
CATALOGUE = '[text]\n"exponent" = "指数 <n>"\n"{} steps" = "{} 步"\n'
PAGE = """\
# Powers { #powers }

![Powers of $x$.](area/powers.py:powers)

![The squares.](area/squares.py:curve)

```python
--8<-- "area/powers.py:powers"
```
"""


@pytest.fixture(scope="module")
def powers(pristine, tmp_path_factory):
    """A built project whose page `area/powers` shows the frames."""
    project = pristine.copy(tmp_path_factory.mktemp("frames") / "project")
    project.write("snippets/area/powers.toml", CATALOGUE)
    project.article("area/powers", SNIPPET, PAGE)
    assert project.build() == (0, "")
    return project


def slider(project, language: str):
    (slider,) = project.html(f"{language}/area/powers").xpath("//span[@class='slider']")
    return slider


def test_page_shows_the_poster_and_a_slider(powers):
    images = powers.html("en/area/powers").xpath("(//span[@class='figure'])[1]//img")
    assert [image.get("src") for image in images] == ["powers-light.svg", "powers-dark.svg"]
    (control,) = slider(powers, "en").xpath(".//input")
    assert (control.get("min"), control.get("max"), control.get("value")) == (None, "2", "1")


@pytest.mark.parametrize(
    ("language", "knob", "labels"),
    [("en", "exponent", ["1 steps", "2 steps", "3 steps"]), ("zh", "指数 <n>", ["1 步", "2 步", "3 步"])],
    ids=["en", "zh"],
)
def test_slider_is_in_the_pages_language(powers, language, knob, labels):
    found = slider(powers, language)
    assert json.loads(found.get("data-labels")) == labels
    assert found.xpath(".//label/span")[0].text_content() == knob
    assert found.xpath(".//input/@aria-valuetext") == [labels[1]]
    assert found.xpath(".//*[@class='value']")[0].text_content() == labels[1]


def test_alternative_text_says_what_changes_and_ends_with_the_value(powers):
    assert {image.get("alt") for image in powers.html("en/area/powers").xpath("(//span[@class='figure'])[1]//img")} == {
        "Powers of x. Shown here: exponent = 2 steps"
    }
    (alternative, *_) = powers.html("zh/area/powers").xpath("(//span[@class='figure'])[1]//img/@alt")
    assert alternative.endswith("指数 <n> = 2 步")


def test_each_frame_has_a_file_for_each_language_and_scheme(powers):
    for language in ("en", "zh"):
        for scheme in ("light", "dark"):
            frames = [powers.read(f"site/{language}/area/powers/powers-{n}-{scheme}.svg") for n in range(3)]
            assert len(set(frames)) == 3
            assert frames[1] == powers.read(f"site/{language}/area/powers/powers-{scheme}.svg")


def test_figure_without_frames_has_no_slider(powers):
    assert powers.html("en/area/squares").xpath("//span[@class='slider']") == []
    assert not list((powers.root / "site/en/area/squares").glob("curve-0-*.svg"))


def test_notebook_and_markdown_show_the_poster(powers):
    (cell,) = powers.notebook("area/powers")["cells"]
    (output,) = cell["outputs"]
    assert output["data"]["image/svg+xml"] == powers.read("site/en/area/powers/powers-1-light.svg")
    (image,) = re.findall(r"!\[Powers.*\]\((.*)\)", powers.read("site/en/area/powers.md"))
    assert (powers.root / "site/en/area" / image).read_text() == output["data"]["image/svg+xml"]


@pytest.mark.parametrize("frames", [2, 12])
def test_first_frame_is_the_poster_unless_another_is_named(tmp_path, frames):
    figures.house_style()
    cell = Cell("snippets/area/trial.py", "trial", "", 1, hidden=False, frames="$n$")
    opened = [plt.figure(num=f"{number}") for number in range(frames)]
    try:
        drawn = draw_frames(opened, cell, tmp_path)
    finally:
        plt.close("all")
    assert drawn["poster"] == 0
    assert len(drawn["drawings"]) == frames


def test_frames_have_their_axes_in_one_place(tmp_path):
    figures.house_style()
    cell = Cell("snippets/area/trial.py", "trial", "", 1, hidden=False, frames="$n$")
    opened = [plt.figure(num=f"{number}") for number in (1, 2)]
    try:
        first, second = (figure.add_subplot() for figure in opened)
        second.set_title("$x$")
        draw_frames(opened, cell, tmp_path)
        assert (
            second.get_position().bounds
            == first.get_position().bounds
            != plt.figure().add_subplot().get_position().bounds
        )
    finally:
        plt.close("all")


def test_figure_is_drawn_again_only_for_words_that_differ(tmp_path, monkeypatch):
    drawn = []
    to_svg = figures.to_svg
    monkeypatch.setattr(figures, "to_svg", lambda figure: drawn.append(figure) or to_svg(figure))
    figures.house_style()
    path = tmp_path / "snippets/area/trial.toml"
    path.parent.mkdir(parents=True)
    path.write_text('[text]\n"value" = "函数值"\n')
    try:
        for label, drawings in ("$x$", 1), ("value", 2):
            figure, axes = plt.subplots()
            axes.set_xlabel(label)
            drawn.clear()
            (result,) = figures.draw([figure], "snippets/area/trial.py", tmp_path)
            assert len(drawn) == drawings
            assert (result["en-light"] == result["zh-light"]) == (drawings == 1)
    finally:
        plt.close("all")
