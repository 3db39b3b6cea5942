"""Expansion of the marks in a page's Markdown, with invented results."""

import re
from pathlib import Path

import lxml.html
import markdown
import pytest

from zhixing_site.content.expand import Expander
from zhixing_site.content.page import Page
from zhixing_site.errors import BuildError

REPOSITORY = Path(__file__).resolve().parents[2]

VALUES = {
    "gap": 4.7e-04,
    "huge": 1.25e10,
    "below": -2.5,
    "tiny_below": -3e-07,
    "count": 12_345,
    "share": 0.256,
    "true": True,
    "word": "GPT-2",
    "marked": "<b> & *x*_y_",
}
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="480" height="289"></svg>'


def cell(name: str, source: str, *outputs: dict, drawn: bool = False) -> dict:
    scopes = ("en-light", "en-dark", "zh-light", "zh-dark")
    drawings = dict.fromkeys(scopes, SVG) if drawn else {}
    return {"id": name, "source": source, "outputs": list(outputs), "metadata": {"drawings": drawings}}


def stream(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": text}


NOTEBOOK = {
    "cells": [
        cell("quiet", "x = 1"),
        cell("loud", "print('a')", stream("a\n")),
        cell("fails", "1 / 0", {"output_type": "error", "ename": "E", "evalue": "m", "traceback": ["E: m"]}),
        cell("curve", "plt.plot(x)", drawn=True),
    ],
    "metadata": {"zhixing": {"values": VALUES}},
}

SOURCE = '''\
"""A module."""

import functools

LIMITS = {
    "a": 1,
    "b": 2,
}


@functools.cache
def power(x):
    """The power of x.

    It has lines.
    """
    return x


class Power:
    scale: float = 1.0

    def forward(self, x):
        if x:
            return x

        return 0

    @property
    def size(self): return 1
'''


@pytest.fixture
def expanded(tmp_path):
    """Return a function that expands the text of a page, by default of the page of the snippet."""

    def expanded(text: str, path: str = "docs/en/area/trial.md") -> str:
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / "src/power.py").write_text(SOURCE)
        return Expander(Page(path, text), {"area/trial.py": NOTEBOOK}, tmp_path).expand()

    return expanded


EXTENSIONS = ["admonition", "attr_list", "footnotes", "md_in_html", "pymdownx.superfences", "tables"]


def rendered(text: str) -> lxml.html.HtmlElement:
    return lxml.html.fromstring(f"<div>{markdown.markdown(text, extensions=EXTENSIONS)}</div>")


PROSE = {
    "integer": ("{{ count }}", "12345"),
    "thousands": ("{{ count:, }}", "12,345"),
    "fixed": ("{{ gap:.5f }}", "0.00047"),
    "power of ten": ("{{ gap:.1e }}", "4.7e−04"),
    "negative": ("{{ below }}", "−2.5"),
    "percentage": ("{{ share:.1% }}", "25.6%"),
    "Boolean": ("{{ true }}", "True"),
    "text": ("{{ word }}", "GPT-2"),
    "within text": ("x{{ below:.0f }}y", "x−2y"),
    "twice": ("{{ count }}{{ count }}", "1234512345"),
    "escaped": (r"\{{ count }}", r"\{{ count }}"),
    "in code": ("`{{ count }}`", "`{{ count }}`"),
    "in a comment": ("<!-- {{ nothing }} -->", "<!-- {{ nothing }} -->"),
}


@pytest.mark.parametrize(("text", "wanted"), PROSE.values(), ids=PROSE)
def test_value_in_prose(expanded, text, wanted):
    assert expanded(text) == wanted


def test_text_value_is_shown_literally(expanded):
    assert rendered(expanded("It is {{ marked }}.")).text_content().strip() == f"It is {VALUES['marked']}."


@pytest.mark.parametrize(
    ("formula", "tex"),
    [
        ("{{ gap:.1e }}", r"4.7\times10^{-4}"),
        ("x = {{ gap:.1e }} + 1", r"x = 4.7\times10^{-4} + 1"),
        ("{{ huge:.2e }}", r"1.25\times10^{10}"),
        ("{{ tiny_below:.0e }}", r"-3\times10^{-7}"),
        ("{{ below }}", "-2.5"),
        ("{{ count:.0f }}", "12345"),
        ("x_{{{ count }}}", "x_{12345}"),
        ("2e-3 {{ count }}", "2e-3 12345"),
    ],
    ids=["power", "within", "large", "negative power", "negative", "integer", "in braces", "next to a typed number"],
)
@pytest.mark.parametrize("mark", ["$", "$$"], ids=["inline", "block"])
def test_value_in_a_formula(expanded, formula, tex, mark):
    tree = rendered(expanded(f"{mark}{formula}{mark}"))
    assert tree.xpath("string(.//annotation)") == tex


SHOWN = {
    "a percentage": ("p = {{ share:.1% }} + x", "p=25.6%+x"),
    "a typed percent sign": ("95%", "95%"),
    "a percent sign before the end of a line": ("5%\n+ x", "5%+x"),
    "an escaped percent sign": (r"95\%", "95%"),
    "two percent signs": ("a% + b%", "a%+b%"),
    "an exponent": ("2^{{ count }}", ["msup", "2", "12345"]),
    "an index": ("x_{{ below }}", ["msub", "x", "−2.5"]),
    "an index in braces": ("x_{{{ count }}}", ["msub", "x", "12345"]),
    "a fraction": (r"\frac{{ count }}{{ share:.2f }}", ["mfrac", "12345", "0.26"]),
    "a denominator": (r"\frac1{{ count }}", ["mfrac", "1", "12345"]),
    "a root": (r"\sqrt{{ gap:.1e }}", ["msqrt", "4.7×10−4"]),
    "a root of another degree": (r"\sqrt[3]{{ count }}", ["mroot", "12345", "3"]),
    "an exponent with a separator": ("2^{{ count:, }}", ["msup", "2", "12,345"]),
    "a separator that is an index in TeX": ("{{ count:_ }}", "12_345"),
    "braces in braces": (r"{{\mathbf{x}}_i}", ["msub", "𝐱", "i"]),
}


@pytest.mark.parametrize(("formula", "shown"), SHOWN.values(), ids=SHOWN)
def test_formula_shows_its_values_and_percent_signs(expanded, formula, shown):
    """What is shown is a text, or an element and the texts of its parts."""
    (math,) = rendered(expanded(f"${formula}$")).xpath(".//math")
    content = math.find(".//semantics")[0]
    if isinstance(shown, str):
        assert content.text_content() == shown
    else:
        assert [content.tag, *(part.text_content() for part in content)] == shown


def test_values_reach_the_built_pages(pristine):
    for language, sentence in (("en", "The square of 3 is 9,"), ("zh", "即 3 的平方是 9。")):
        paragraph = pristine.html(f"{language}/area/squares").xpath("//p")[0]
        assert sentence in paragraph.text_content()
        assert paragraph.xpath("string(.//annotation)") == "3^2 = 9.0"


FORMULAS = {
    "subscripts": "a_1 b_2 * c_3 * d",
    "braces": r"\{x\} \in \left\{ 1 \right\}",
    "bars": r"|x| \le \|y\|",
    "order": r"a < b > c \& d",
    "row": r"\begin{aligned} a &= b \\ &= c \end{aligned}",
    "tilde": "a~b",
    "brackets": "[0, 1) x^{[1]}(y)",
    "factorial": "n![k]",
    "primes": "f'(x) + f''",
    "backtick": r"\text{`a`}",
    "hash": r"\# x",
    "colon": "f: x",
    "spaces": r"a\,b\;c\ d",
    "Chinese": r"\text{偶数}",
    "operators": r"\operatorname{erf}(x) \mathbb{E}[x] \mathcal{N}(0, 1)",
}


@pytest.mark.parametrize(
    "place", ["{}", "- {}", "> {}", "| a | b |\n| - | - |\n| {} | c |", "!!! note\n\n    {}", "**{}**"]
)
@pytest.mark.parametrize("tex", FORMULAS.values(), ids=FORMULAS)
def test_formula_survives_markdown(expanded, tex, place):
    """The MathML is the same in every context, with the TeX as its annotation."""
    alone = rendered(expanded(f"${tex}$")).xpath(".//math")
    (math,) = rendered(expanded("Text.\n\n" + place.format(f"${tex}$") + "\n")).xpath(".//math")
    assert math.xpath("string(.//annotation)") == tex
    assert lxml.html.tostring(math, with_tail=False) == lxml.html.tostring(alone[0], with_tail=False)
    assert not math.xpath(".//em | .//strong | .//code | .//a | .//img | .//br")


def test_punctuation_after_a_formula_is_kept(expanded):
    text = rendered(expanded("So ($x$), $y$: and $z$。")).xpath("string(.)")
    for punctuation in ("),", ":", "。"):
        assert punctuation in text


def test_block_formula_has_its_class(expanded):
    assert "formula-block" in expanded("$$x$$")
    assert "formula-block" not in expanded("$x$")


def test_macro_of_one_formula_is_not_defined_in_the_next(expanded):
    with pytest.raises(BuildError, match="does not parse"):
        expanded("$\\newcommand{\\own}{x} \\own$ and $\\own$")


STYLED = [
    r"f\!(x)",
    r"\mathop{}\!\mathrm{d}x",
    r"\mathop{x}",
    r"\mathrel{:=}",
    r"\mathbin{x} \mathclose{]}",
    r"\cfrac{1}{1 + x}",
    r"a \negmedspace b \negthickspace c",
    r"\begin{cases}a & b\end{cases}",
    r"\begin{array}{||c:c||}\hline a & b\\\hdashline c & d\end{array}",
    r"\begin{multline}a\\b\\c\end{multline}",
    r"\begin{align}a &= b\end{align}",
    r"\sum_{\begin{subarray}{l}a\\b\end{subarray}}",
]


@pytest.mark.parametrize("tex", STYLED)
def test_formula_needs_no_inline_style(expanded, tex):
    text = expanded(f"$${tex}$$")
    assert " style=" not in text
    theme = (REPOSITORY / "theme/css/zhixing.css").read_text()
    for name in {name for each in rendered(text).xpath(".//math//@class") for name in each.split()}:
        assert f"\n.{name} {{" in theme


@pytest.mark.parametrize(
    ("tex", "command"),
    [
        (r"a + \hspace{-2em} x", r"\hspace"),
        (r"\frac{a}{\color{red} b}", r"\color"),
        (r"\textcolor{blue}{x}", r"\textcolor"),
        (r"\alpha \mkern-2mu b", r"\mkern"),
    ],
)
def test_command_that_needs_an_inline_style_is_named(expanded, tex, command):
    with pytest.raises(BuildError, match=rf"trial\.md:1: `{re.escape(command)}` needs the style"):
        expanded(f"${tex}$")


def test_dollar_sign(expanded):
    assert rendered(expanded(r"It costs \$5 or \$6.")).text_content().strip() == "It costs $5 or $6."


DEFINITIONS = {
    "constant": ("LIMITS", 'LIMITS = {\n    "a": 1,\n    "b": 2,\n}'),
    "function with its decorator and without its docstring": ("power", "@functools.cache\ndef power(x):\n    return x"),
    "class": ("Power", SOURCE[SOURCE.index("class Power") :].rstrip()),
    "method": ("Power.forward", "def forward(self, x):\n    if x:\n        return x\n\n    return 0"),
    "property": ("Power.size", "@property\ndef size(self): return 1"),
    "attribute": ("Power.scale", "scale: float = 1.0"),
}


def test_source_that_is_no_python_is_an_error(expanded, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_power.py").write_text("def test_square(:\n    pass\n")
    with pytest.raises(BuildError, match=r"area/trial\.md:2: invalid syntax"):
        expanded('```python\n--8<-- "tests/test_power.py:test_square"\n```')


@pytest.mark.parametrize(("name", "source"), DEFINITIONS.values(), ids=DEFINITIONS)
def test_definition_is_included_by_name(expanded, name, source):
    text = expanded(f'```python\n--8<-- "src/power.py:{name}"\n```')
    assert text == f'```python title="src/power.py"\n{source}\n```'


def test_title_names_each_file_once(expanded, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_power.py").write_text("def test_square():\n    pass\n")
    names = "src/power.py:power", "tests/test_power.py:test_square", "src/power.py:power"
    text = expanded("\n".join(["```python", *(f'--8<-- "{name}"' for name in names), "```"]))
    assert text.startswith('```python title="src/power.py, tests/test_power.py"\n')


def test_whole_file_is_included(expanded):
    assert expanded('```python\n--8<-- "src/power.py"\n```') == f'```python title="src/power.py"\n{SOURCE.strip()}\n```'


def test_cell_without_output(expanded):
    assert expanded('```python\n--8<-- "area/trial.py:quiet"\n```') == "```python\nx = 1\n```"


@pytest.mark.parametrize(("name", "shown"), [("loud", "a"), ("fails", "E: m")])
def test_cell_with_its_output(expanded, name, shown):
    text = expanded(f'```python\n--8<-- "area/trial.py:{name}"\n```')
    code, output = re.fullmatch(
        r"```python\n(.*)\n```\n\n``` \{[^}]*\.output[^}]*\}\n(.*)\n```", text, re.DOTALL
    ).groups()
    assert (code, output) == ({"loud": "print('a')", "fails": "1 / 0"}[name], shown)


def test_several_includes_form_one_block_followed_by_their_outputs(expanded):
    includes = "\n".join(
        f'--8<-- "{name}"' for name in ("src/power.py:power", "area/trial.py:loud", "area/trial.py:quiet")
    )
    tree = rendered(expanded(f"```python\n{includes}\n```"))
    code, output = (each.text_content() for each in tree.xpath(".//code"))
    assert code == "@functools.cache\ndef power(x):\n    return x\n\n\nprint('a')\n\n\nx = 1\n"
    assert output == "a\n"


def test_other_fences_are_unchanged(expanded):
    for fence in (
        "```text\n$x$ {{ y }} $\n```",
        "```console\n$ pip install zhixing\n```",
        "~~~\n--8<-\n~~~",
        "```\nx\n```",
    ):
        assert expanded(fence) == fence


def test_figure_has_an_image_for_each_colour_scheme(expanded):
    light, dark = rendered(expanded("![A curve.](area/trial.py:curve)")).xpath(".//span[@class='figure']//img")
    assert [image.get("src") for image in (light, dark)] == ["trial/curve-light.svg", "trial/curve-dark.svg"]
    assert [image.getparent().get("class") for image in (light, dark)] == ["enlarge only-light", "enlarge only-dark"]
    assert [image.getparent().get("href") for image in (light, dark)] == [image.get("src") for image in (light, dark)]
    for image in (light, dark):
        assert (image.get("width"), image.get("height"), image.get("alt")) == ("480", "289", "A curve.")


def test_first_figure_is_loaded_with_high_priority(expanded):
    figures = "Text.\n\n![A curve.](area/trial.py:curve)\n\n![It again.](area/trial.py:curve)"
    images = rendered(expanded(figures)).xpath(".//img")
    assert [image.get("fetchpriority") for image in images] == ["high", None, None, None]
    assert [image.get("loading") for image in images] == [None, "lazy", "lazy", "lazy"]


def test_second_figure_of_a_line_is_loaded_lazily(expanded):
    images = rendered(expanded("![A curve.](area/trial.py:curve) ![It again.](area/trial.py:curve)")).xpath(".//img")
    assert [image.get("fetchpriority") for image in images] == ["high", None, None, None]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("docs/en/index.md", "area/trial/curve-light.svg"),
        ("docs/en/area/other.md", "trial/curve-light.svg"),
        ("docs/zh/deep/er/page.md", "../../area/trial/curve-light.svg"),
    ],
)
def test_address_of_a_figure_is_relative_to_the_page(expanded, path, source):
    image = rendered(expanded("![A curve.](area/trial.py:curve)", path)).xpath(".//img")[0]
    assert image.get("src") == source


def test_marks_in_a_caption_are_expanded(expanded):
    caption = rendered(expanded("![At **{{ below }}**, $x_1$, [see](other.md).](area/trial.py:curve)")).find(
        ".//span[@class='caption']"
    )
    assert caption.text_content().startswith("At −2.5, ")
    assert caption.find(".//strong").text == "−2.5"
    assert caption.xpath("string(.//annotation)") == "x_1"
    assert caption.find(".//a").get("href") == "other.md"


@pytest.mark.parametrize(
    ("caption", "shown"),
    [
        ("On $[0, 1)$.", "On [0,1)."),
        ("On $(0, 1]$ and $]a, b[$.", "On (0,1] and ]a,b[."),
        ("The first of `x[0`.", "The first of x[0."),
        ("[On $[0, 1)$](other.md), \\$5.", "On [0,1), $5."),
    ],
)
def test_brackets_in_a_caption_need_no_partner_within_formulas_and_code(expanded, caption, shown):
    figure = rendered(expanded(f"![{caption}](area/trial.py:curve)")).find(".//span[@class='caption']")
    for annotation in figure.xpath(".//annotation"):
        annotation.text = ""
    assert figure.text_content() == shown


UNCHANGED = {
    "tilde in a fence's text": "~~~text\n`a`\n~~~",
    "language with options": '```text title="a.py" linenums="1"\nx\n```',
    "attributes": "``` { .json #id }\n{}\n```",
    "in a quotation": "> ```bash\n> pip install x\n> ```",
    "indented by a tab": "!!! note\n\n\t```toml\n\ta = 1\n\t```",
    "three backticks in a line": "```x``` is code",
    "boxes": '!!! note "A"\n\n    x\n\n???+ question\n\n    y',
    "brackets": r"see \[1\], [[1]](a.md), f\(x",
    "footnote": "a[^1]\n\n[^1]: b",
    "code of other dialects": "`:label:`, ``{eval}`x` ``, `==x==`, `\\alpha`, `- [ ]`",
    "operators": "a == b, x ~ y, C++ and C++, 12:30:00, a:b:c, -- x --",
    "whole HTML": '<div markdown>\n\n*a* < b<br><img src="x">\n\n</div> <https://x.org> <me@x.org>',
}


@pytest.mark.parametrize("text", UNCHANGED.values(), ids=UNCHANGED)
def test_plain_markdown_is_unchanged(expanded, text):
    assert expanded(text) == text


def test_formula_beside_code_in_three_backticks(expanded):
    assert "<math" in expanded("```x``` is code, $y$ not.\n\n```text\n$z$\n```")


def test_all_errors_of_a_page_are_told(expanded):
    with pytest.raises(BuildError) as error:
        expanded("A $ here.\n\n{{ nothing }} and $\\frac$\n\n```python\nx = 1\n```\n\n</p>")
    assert re.findall(r"trial\.md:(\d+)", str(error.value)) == ["1", "3", "3", "5", "9"]


def test_other_markdown_is_unchanged(expanded):
    text = (
        "# T { #t }\n\n*a* [b](c.md) `d` \\* {: .e } { .f }\n\n| g | h |\n| - | - |\n\n![i](j.png)\n\n{ k } -- 8 < --\n"
    )
    assert expanded(text) == text


def test_values_of_another_pages_snippet_are_not_available(expanded):
    with pytest.raises(BuildError, match=r"docs/en/area/other\.md:3: .*`count`"):
        expanded("Text.\n\n{{ count }}", "docs/en/area/other.md")
