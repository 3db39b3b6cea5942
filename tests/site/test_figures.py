"""Figures: four drawings of a cell, identical in every run, with labels translated into Chinese."""

import re

import lxml.etree
import pytest

from zhixing_site.execution.figures import translate

DRAWINGS = ["en-light", "en-dark", "zh-light", "zh-dark"]
CATALOGUE = {
    "names": {"keep": ["GELU", "ReLU", "GPT-2", "LU"]},
    "text": {"value": "函数值", "{} layers of {}": "{} 层，每层 {}", "step 1": "第一步", "at $x_{0}$": "在 $x_{0}$ 处"},
}


@pytest.fixture
def drawings(project) -> dict[str, str]:
    """Drawings of the cell `curve`: an axis named `value`, another named $x$, a legend `Square`, numbers as ticks."""
    (cell,) = [cell for cell in project.notebook("area/squares")["cells"] if cell["id"] == "curve"]
    return cell["metadata"]["drawings"]


def drawn_texts(svg: str) -> set[str]:
    """Return the texts of a drawing: matplotlib draws letters as paths, and adds the text as a comment."""
    return set(re.findall(r"<!-- (.*?) -->", svg))


def test_a_drawing_for_each_language_and_scheme(project, drawings):
    assert list(drawings) == DRAWINGS
    for language in ("en", "zh"):
        for scheme in ("light", "dark"):
            svg = project.read(f"site/{language}/area/squares/curve-{scheme}.svg")
            assert svg == drawings[f"{language}-{scheme}"]
            assert lxml.etree.fromstring(svg.encode()).tag.endswith("svg")


def test_labels_are_in_the_drawings_language(drawings):
    for scheme in ("light", "dark"):
        assert {"value", "Square"} < drawn_texts(drawings[f"en-{scheme}"])
        assert {"函数值", "Square"} < drawn_texts(drawings[f"zh-{scheme}"])
        assert "函数值" not in drawings[f"en-{scheme}"]
        assert "value" not in drawn_texts(drawings[f"zh-{scheme}"])


def test_schemes_differ_only_in_colours(drawings):
    for language in ("en", "zh"):
        light, dark = drawings[f"{language}-light"], drawings[f"{language}-dark"]
        assert light != dark
        assert re.sub("#[0-9a-f]{6}", "", light) == re.sub("#[0-9a-f]{6}", "", dark)
        assert not set(re.findall('#[0-9a-f]{6}(?=[;"])', light)) & set(re.findall('#[0-9a-f]{6}(?=[;"])', dark))


def test_background_is_transparent(drawings):
    patch = re.search(r'<g id="patch_1">\s*<path d="[^"]*" style="([^"]*)"', drawings["en-light"])
    assert re.search(r"fill: none|opacity: 0(?!\.)", patch[1])


def test_unchanged_cell_is_drawn_identically(project, drawings):
    (project.root / ".cache/runs/area/squares.json").unlink()
    project.replace("snippets/area/squares.py", "# %% curve", '# %% rolls tags=["hidden"]\n1\n\n# %% curve')
    assert project.run("snippets/area/squares.py") == (0, "")
    (cell,) = [cell for cell in project.notebook("area/squares")["cells"] if cell["id"] == "curve"]
    assert cell["metadata"]["drawings"] == drawings


def test_page_shows_the_drawings_of_its_language(project):
    for language in ("en", "zh"):
        light, dark = project.html(f"{language}/area/squares").xpath("//span[@class='figure']//img")
        assert [light.get("src"), dark.get("src")] == ["curve-light.svg", "curve-dark.svg"]
        assert "only-light" in light.getparent().get("class")
        assert "only-dark" in dark.getparent().get("class")


def test_image_has_the_size_of_the_drawing(project, drawings):
    image, _ = project.html("en/area/squares").xpath("//span[@class='figure']//img")
    size = re.search(r'width="(\d+)" height="(\d+)" viewBox="0 0 ([\d.]+) ([\d.]+)"', drawings["en-light"])
    assert (image.get("width"), image.get("height")) == (size[1], size[2])
    for pixels, points in (size[1], size[3]), (size[2], size[4]):
        assert int(pixels) == pytest.approx(float(points) * 96 / 72, abs=0.5)


FENCES = """\
## Table { #table }

```python
--8<-- "area/squares.py:setup"
--8<-- "area/squares.py:table"
```
"""

# A caption and its alternative text.
CAPTIONS = {
    "words": ("The squares.", "The squares."),
    "Chinese": ("平方。", "平方。"),
    "formula": (r"Up to $x_1 \le 2$.", "Up to x1≤2."),
    "value": ("Up to {{ nine }} or $y = {{ below }}$.", "Up to 9 or y=−2.5."),
    "emphasis": ("A *steep* and **high** curve.", "A steep and high curve."),
    "code": ("Of `square(x)`.", "Of square(x)."),
    "link": ("See [the roots](roots.md#roots).", "See the roots."),
    "quotation marks": ("A \"quoted\" & 'single' <curve.", "A \"quoted\" & 'single' <curve."),
    "two lines": ("The\nsquares.", "The squares."),
}


@pytest.fixture(scope="module")
def captioned(pristine, tmp_path_factory):
    """The figures of a built page that shows one figure with each caption."""
    project = pristine.copy(tmp_path_factory.mktemp("captions") / "project")
    figures = [f"![{caption}](area/squares.py:curve)\n" for caption, _ in CAPTIONS.values()]
    project.page("area/squares", "\n".join(["# Squares { #squares }\n", *figures, FENCES]))
    assert project.build() == (0, "")
    return project.html("en/area/squares").xpath("//span[@class='figure']")


@pytest.mark.parametrize("caption", CAPTIONS)
def test_caption_is_the_alternative_text(captioned, caption):
    figure = captioned[list(CAPTIONS).index(caption)]
    assert [image.get("alt") for image in figure.xpath(".//img")] == [CAPTIONS[caption][1]] * 2


def test_alternative_text_is_in_the_pages_language(project):
    alternatives = [
        {image.get("alt") for image in project.html(f"{language}/area/squares").xpath("//span[@class='figure']//img")}
        for language in ("en", "zh")
    ]
    assert alternatives == [{"The squares up to x=2."}, {"x=2 以内的平方。"}]


LABELS = {
    "in the catalogue": ("value", "函数值"),
    "Chinese already": ("函数值", "函数值"),
    "number": ("3.5", "3.5"),
    "number with a minus sign": ("−1,000.5", "−1,000.5"),
    "power of ten": (r"$\mathdefault{10^{-3}}$", r"$\mathdefault{10^{-3}}$"),
    "float": ("1e-05", "1e-05"),
    "percentage": ("50%", "50%"),
    "mathematics": ("$x$", "$x$"),
    "mathematics and numbers": (r"$\alpha = 2$, 3 × 4", r"$\alpha = 2$, 3 × 4"),
    "name": ("GELU", "GELU"),
    "names": ("GELU / ReLU", "GELU / ReLU"),
    "name with a digit": ("GPT-2", "GPT-2"),
    "name and mathematics": ("GELU($x$)", "GELU($x$)"),
    "nothing": ("", ""),
    "pattern": ("12 layers of 512", "12 层，每层 512"),
    "pattern with fractions": ("1.5 layers of -2e-3", "1.5 层，每层 -2e-3"),
    "whole label before pattern": ("step 1", "第一步"),
    "words and mathematics": ("at $x_{0}$", "在 $x_{0}$ 处"),
}


@pytest.mark.parametrize(("label", "chinese"), LABELS.values(), ids=LABELS)
def test_label_in_chinese(label, chinese):
    assert translate(label, CATALOGUE) == chinese


@pytest.mark.parametrize(
    "label",
    [
        "error",
        "Value",
        "value of GELU",
        "GELUs",
        "PReLU",
        "12 layers",
        "12 heads of 512",
        "step 2",
        "$x$ axis",
        "α",
        "3 m",
    ],
)
def test_label_without_a_translation_has_no_chinese(label):
    assert translate(label, CATALOGUE) is None


def test_label_without_catalogue():
    assert translate("$x$", {}) == "$x$"
    assert translate("value", {}) is None


LARGE = {
    "points": ("plt.scatter(r.random(20_000), r.random(20_000))", "PathCollection"),
    "markers": ("plt.plot(r.random(20_000), 'o')", "line2d"),
    "fields": ("plt.pcolormesh(r.random((100, 100)))", "QuadMesh"),
    "contours": ("plt.contourf(r.random((150, 150)))", "QuadContourSet"),
    "bars": ("plt.bar(range(5_000), r.random(5_000))", "patch"),
    "pixels": ("plt.imshow(r.random((1_500, 1_500)), interpolation='none')", "image"),
}
RANDOM = "# %% one\nimport matplotlib.pyplot as plt\nimport numpy as np\n\nr = np.random.default_rng(0)\n"


@pytest.mark.parametrize("case", LARGE)
def test_figure_that_is_too_large_for_a_page_is_an_error(project, case):
    call, part = LARGE[case]
    project.write("snippets/area/trial.py", f"{RANDOM}{call}\n")
    code, messages = project.run("snippets/area/trial.py")
    assert code == 1
    assert messages.startswith("snippets/area/trial.py:2, cell one: the figure cannot be drawn: it has ")
    assert f"most of it is {part}: draw less of it, or with rasterized=True" in messages


@pytest.mark.parametrize("case", ["points", "markers", "fields", "pixels"])
def test_rasterized_figure_is_small(project, case):
    project.write("snippets/area/trial.py", f"{RANDOM}{LARGE[case][0][:-1]}, rasterized=True)\n")
    assert project.run("snippets/area/trial.py") == (0, "")
    (cell,) = project.notebook("area/trial")["cells"]
    assert all(len(drawing) < 400_000 for drawing in cell["metadata"]["drawings"].values())


def test_figure_without_words_needs_no_catalogue(project):
    project.write(
        "snippets/area/trial.py", "# %% one\nimport matplotlib.pyplot as plt\n\nplt.plot([1, 2])\nplt.title('$x$')\n"
    )
    assert project.run("snippets/area/trial.py") == (0, "")


def test_numbers_and_patterns_in_a_drawing_are_translated(project):
    snippet = """\
# %% one
import matplotlib.pyplot as plt

axes = plt.figure().add_subplot()
axes.semilogy([1, 2], [1e-3, 1e3], label="12 steps")
axes.set(xlabel="$x$", ylabel="value", title="Square")
axes.annotate("3.5 steps", (1, 1))
axes.legend()
"""
    project.write("snippets/area/trial.py", snippet)
    project.write("snippets/area/trial.toml", project.read("snippets/area/squares.toml"))
    assert project.run("snippets/area/trial.py") == (0, "")
    drawings = project.notebook("area/trial")["cells"][0]["metadata"]["drawings"]
    assert {"12 步", "3.5 步", "函数值", "Square"} < drawn_texts(drawings["zh-light"])
    assert {"12 steps", "3.5 steps", "value", "Square"} < drawn_texts(drawings["en-light"])


def test_changed_catalogue_redraws_figures(project):
    project.write("snippets/area/roots.toml", "[text]\n")  # of a snippet that draws nothing
    project.replace("snippets/area/squares.toml", "函数值", "值")
    assert project.build() == (0, "")
    assert project.ran == {"area/squares.py"}
    assert "值" in drawn_texts(project.read("site/zh/area/squares/curve-light.svg"))
    assert not list((project.root / "site").rglob("*.toml"))


def test_added_or_removed_catalogue_redraws_figures(project):
    snippet = "# %% one\nimport matplotlib.pyplot as plt\n\nplt.plot([1, 2])\nplt.title('$x$')\n"
    project.write("snippets/area/trial.py", snippet)
    assert project.run() == (0, "")
    project.write("snippets/area/trial.toml", "[text]\n'$x$' = '甲'\n")
    assert project.run() == (0, "")
    assert project.ran == {"area/trial.py"}
    assert "甲" in drawn_texts(project.notebook("area/trial")["cells"][0]["metadata"]["drawings"]["zh-light"])
    (project.root / "snippets/area/trial.toml").unlink()
    assert project.run() == (0, "")
    assert project.ran == {"area/trial.py"}


def test_dark_drawing_replaces_black_and_white(project):
    project.write(
        "snippets/area/trial.py",
        "# %% one\nimport matplotlib.pyplot as plt\n\nfigure, axes = plt.subplots()\n"
        "axes.fill([0, 1, 1], [0, 0, 1], color='black')\naxes.plot([0, 1], color='k')\naxes.legend(frameon=True)\n",
    )
    project.replace("snippets/area/trial.py", "color='k'", "color='k', label='$x$'")
    assert project.run("snippets/area/trial.py") == (0, "")
    drawings = project.notebook("area/trial")["cells"][0]["metadata"]["drawings"]
    assert drawings["en-dark"].startswith(drawings["en-light"].split("<svg")[0] + '<svg fill="#d8dee4"')
    assert not re.findall(r'#(?:000000|ffffff)(?=[;"])', drawings["en-dark"])


@pytest.mark.parametrize("text", ["- item\n\n    {}\n\n- next", '??? note "Box"\n\n    {}\n\n    after'])
def test_figure_is_complete_in_a_list_and_in_a_box(project, text):
    for language in ("en", "zh"):
        picture = re.search(r"!\[[^]]*\]\([^)]*\)", project.read(f"docs/{language}/area/squares.md"))[0]
        project.replace(f"docs/{language}/area/squares.md", picture, text.format(picture))
    project.command("accept")
    assert project.build() == (0, "")
    (figure,) = project.html("en/area/squares").xpath("//span[@class='figure']")
    assert len(figure.xpath(".//img")) == 2
    assert figure.xpath("string(span[@class='caption'])")
    assert not project.html("en/area/squares").xpath("//*[@markdown]")
