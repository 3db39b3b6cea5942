"""Metadata for search engines, feed readers and other sites: page heads, sitemaps, feeds, plain Markdown, cards."""

import io
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import lxml.etree
import lxml.html
import pytest
import resvg_py
from PIL import Image

from zhixing_site.content.page import Page
from zhixing_site.content.plain_markdown import page_markdown
from zhixing_site.site.cards import card, png
from zhixing_site.site.metadata import Site

URL = "https://zhi.example/know/"
NAMES = {
    "s": "http://www.sitemaps.org/schemas/sitemap/0.9",
    "x": "http://www.w3.org/1999/xhtml",
    "a": "http://www.w3.org/2005/Atom",
}
PAGES = ["en/", "en/area/roots/", "en/area/squares/", "zh/", "zh/area/roots/", "zh/area/squares/"]
SQUARES, ROOTS = "area/squares", "area/roots"
LOGO = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 2"><path d="M0 0h2v2z"/></svg>'


def add_front_matter(project, page: str, **meta: str) -> None:
    """Add the same front matter to the page in both languages."""
    lines = "".join(f"{key}: {value}\n" for key, value in meta.items())
    for language in "en", "zh":
        path = f"docs/{language}/{page}.md"
        project.write(path, f"---\n{lines}---\n{project.read(path)}")


@pytest.fixture(scope="module")
def hosted(pristine, tmp_path_factory):
    """Build for an address with a path; the article `roots` has no figure."""
    project = pristine.copy(tmp_path_factory.mktemp("hosted") / "project")
    add_front_matter(
        project, SQUARES, cover="curve", date="2026-05-04", summary="'What a \"square\" & its <root> are.'"
    )
    add_front_matter(project, ROOTS, date="2026-06-01", summary="'Undoing “squares”.'")
    add_front_matter(project, "index", summary="Squares and more.")
    project.command("accept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SITE_URL", URL.rstrip("/"))
        assert project.build() == (0, "")
    return project


def tree(project, path: str) -> lxml.etree._Element:
    return lxml.etree.fromstring((project.root / "site" / path).read_bytes())


def links(project, page: str, **wanted: str) -> list:
    """Return the `<link>`s of the page that have these attributes."""
    found = project.html(page).xpath("//head/link")
    return [each for each in found if all(each.get(key) == value for key, value in wanted.items())]


def properties(project, page: str) -> dict[str, str]:
    """Return the Open Graph properties in the page's head."""
    return {each.get("property"): each.get("content") for each in project.html(page).xpath("//head/meta[@property]")}


# Addresses


@pytest.mark.parametrize("page", PAGES)
def test_page_links_to_its_address_and_its_translation(hosted, page):
    (canonical,) = links(hosted, page, rel="canonical")
    assert canonical.get("href") == URL + page
    alternates = {each.get("hreflang"): each.get("href") for each in links(hosted, page) if each.get("hreflang")}
    rest = page[2:]
    default = URL if rest == "/" else f"{URL}en{rest}"
    assert alternates == {"en": f"{URL}en{rest}", "zh-Hans": f"{URL}zh{rest}", "x-default": default}


def test_notebook_has_an_address_and_no_translation(hosted):
    (canonical,) = links(hosted, "en/lab/area/squares", rel="canonical")
    assert canonical.get("href") == f"{URL}en/lab/area/squares/"
    assert links(hosted, "en/lab/area/squares", rel="alternate") == []


def test_default_address_is_localhost(project):
    assert project.html("en/area/squares").xpath("//link[@rel='canonical']/@href") == [
        "http://localhost/en/area/squares/"
    ]
    assert "http://localhost/zh/area/roots/" in project.read("site/zh/sitemap.xml")


def test_downloads_contain_the_address(hosted):
    assert f"{URL}en/area/squares/" in hosted.read("site/en/lab/area/squares.py")
    assert "localhost" not in hosted.read("site/en/lab/area/squares.ipynb").replace("http://localhost/source/", "")


def test_address_without_a_scheme_stops_the_build(project, monkeypatch):
    monkeypatch.setenv("SITE_URL", "zhi.example")
    assert "scheme" in project.failing_build()


@pytest.mark.parametrize("path", ["404.html", "en/404.html"])
def test_links_of_the_404_page_start_at_the_root(hosted, path):
    (home,) = tree_of_html(hosted, path).xpath("//a/@href")
    assert home.rstrip("/") == "/know/en"


def tree_of_html(project, path: str):
    return lxml.html.fromstring((project.root / "site" / path).read_bytes())


def test_links_of_the_404_page_are_checked(project, monkeypatch):
    monkeypatch.setenv("SITE_URL", URL)
    project.replace("theme/404.html", "{{ base_url }}", "/en/")
    assert "en/404.html: dead link /en/: it starts at the server's root" in project.failing_build()


# Sitemaps


def test_each_page_is_in_its_languages_sitemap_with_its_translation(hosted):
    for language in "en", "zh":
        found = tree(hosted, f"{language}/sitemap.xml").findall("s:url", NAMES)
        listed = {each.findtext("s:loc", namespaces=NAMES): each for each in found}
        html = [name for name in hosted.site() if re.fullmatch(rf"{language}/(.*/)?index\.html", name)]
        assert sorted(listed) == sorted(URL + name.removesuffix("index.html") for name in html)
        same = listed[f"{URL}{language}/area/squares/"].findall("x:link", NAMES)
        assert [(each.get("hreflang"), each.get("href")) for each in same] == [
            ("en", f"{URL}en/area/squares/"),
            ("zh-Hans", f"{URL}zh/area/squares/"),
            ("x-default", f"{URL}en/area/squares/"),
        ]
    assert listed[f"{URL}zh/"].findall("x:link", NAMES)[2].get("href") == URL


def test_sitemap_at_the_root_lists_both_sitemaps(hosted):
    index = tree(hosted, "sitemap.xml")
    assert index.tag == f"{{{NAMES['s']}}}sitemapindex"
    assert index.xpath("//s:sitemap/s:loc/text()", namespaces=NAMES) == [
        f"{URL}en/sitemap.xml",
        f"{URL}zh/sitemap.xml",
    ]
    assert f"Sitemap: {URL}sitemap.xml\n" in hosted.read("site/robots.txt")
    assert not [name for name in hosted.site() if name.endswith(".gz")]


# Titles, descriptions, cards


def test_head_contains_open_graph_properties(hosted):
    here = f"{URL}zh/area/squares/"
    assert properties(hosted, "zh/area/squares") == {
        "og:type": "article",
        "og:site_name": "首页",
        "og:title": "平方",
        "og:description": 'What a "square" & its <root> are.',
        "og:url": here,
        "og:locale": "zh_CN",
        "article:published_time": "2026-05-04",
        "og:image": f"{here}card.png",
        "og:image:type": "image/png",
        "og:image:width": "1200",
        "og:image:height": "630",
        "og:image:alt": "平方",
    }
    page = hosted.html("zh/area/squares")
    assert page.xpath("//meta[@name='twitter:card']/@content") == ["summary_large_image"]
    assert page.xpath("//meta[@name='description']/@content") == ['What a "square" & its <root> are.']


def test_home_page_is_not_an_article(hosted):
    assert properties(hosted, "en")["og:type"] == "website"
    assert "article:published_time" not in properties(hosted, "en")


def test_each_page_has_a_card_in_its_language(hosted):
    drawn = set()
    for page in PAGES:
        content = hosted.site()[f"{page}card.png"]
        with Image.open(hosted.root / f"site/{page}card.png") as image:
            assert (image.format, image.size) == ("PNG", (1200, 630))
        drawn.add(content)
    assert len(drawn) == len(PAGES)


def test_card_shows_the_cover_of_the_article(hosted):
    """Recognise the figure by its colours: that of its line, and white."""
    colours = {}
    for page in SQUARES, ROOTS:
        with Image.open(hosted.root / f"site/en/{page}/card.png") as image:
            right = image.convert("RGB").crop((540, 20, 1180, 610))
            colours[page] = {colour for _, colour in right.getcolors(1 << 20)}
    assert {(0x0B, 0x62, 0xB8), (255, 255, 255)} < colours[SQUARES]
    assert colours[ROOTS] >= {(0, 0, 0), (255, 255, 255)}  # the logo
    assert (0x0B, 0x62, 0xB8) not in colours[ROOTS]


def test_cards_are_reproducible(hosted):
    before = {name: content for name, content in hosted.site().items() if name.endswith("card.png")}
    rebuilt = hosted.copy(hosted.root.parent / "rebuilt")
    for path in (rebuilt.root / ".cache/cards").iterdir():
        path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SITE_URL", URL)
        assert rebuilt.build() == (0, "")
    assert {name: content for name, content in rebuilt.site().items() if name.endswith("card.png")} == before


def test_unchanged_card_is_not_drawn_again(project, monkeypatch):
    monkeypatch.setattr("zhixing_site.site.cards.png", lambda svg: pytest.fail("drawn"))
    assert project.build() == (0, "")


def test_character_that_the_font_lacks_stops_the_build(project):
    project.replace("docs/zh/area/roots.md", "# 根 {", "# 龘根 {")
    assert "docs/zh/area/roots.md:1: the font of cards and figures lacks 龘" in project.failing_build()


def has_white(svg: str, box: tuple[int, int, int, int]) -> bool:
    """Return whether this part of the card has anything white, which is the colour of titles."""
    with Image.open(io.BytesIO(png(svg))) as image:
        return (255, 255, 255) in {colour for _, colour in image.convert("RGB").crop(box).getcolors(1 << 20)}


@pytest.mark.parametrize(
    "title",
    ["根", "PyTorch 自动求导", "Activation functions, from the threshold to SwiGLU", "平方" * 27],
    ids=["one", "both", "long", "full"],
)
def test_title_stays_within_its_panel(title):
    svg = card(title, "Small", LOGO, figure=LOGO)
    assert has_white(svg, (56, 150, 464, 600))
    assert not has_white(svg, (466, 0, 520, 630))


def test_line_does_not_begin_with_chinese_punctuation():
    svg = card("激活函数，从阶跃到门控，再到今天，" * 2, "Small", LOGO, LOGO)
    lines = re.findall(r'<text x="56"[^>]*>(.*)</text>', svg)
    assert len(lines) > 1
    assert not [line for line in lines if line[0] in "，。"]


def test_last_line_is_not_a_short_remainder():
    lines = re.findall(r'<text x="56"[^>]*>(.*)</text>', card("GELU 激活函数", "Small", LOGO))
    assert lines == ["GELU 激活函数"]


def test_title_that_is_too_long_is_an_error():
    with pytest.raises(ValueError, match="too long for a card: 平方平方"):
        card("平方" * 60, "Small", LOGO, LOGO)
    with pytest.raises(ValueError, match="too long for a card: xx"):
        card("x" * 30, "Small", LOGO, LOGO)


def test_title_is_escaped():
    assert "a &lt;b&gt; &amp; c" in card("a <b> & c", "Small", LOGO)
    png(card("a <b> & c", "Small & <more>", LOGO))


def test_card_uses_no_system_fonts(monkeypatch):
    options_used = {}
    monkeypatch.setattr(resvg_py, "svg_to_bytes", lambda **options: options_used.update(options) or b"")
    png(card("平方", "Small", LOGO))
    assert options_used["skip_system_fonts"]
    assert [path.rpartition("/")[2] for path in options_used["font_files"]] == ["NotoSansSC-figures.otf"]


# Feeds


def test_feed_has_the_elements_that_rss_requires(hosted):
    for language, code in {"en": "en", "zh": "zh-Hans"}.items():
        feed = tree(hosted, f"{language}/feed.xml")
        assert (feed.tag, feed.get("version")) == ("rss", "2.0")
        (channel,) = feed
        texts = {each.tag: each.text for each in channel if each.tag not in ("item", f"{{{NAMES['a']}}}link")}
        title = hosted.html(language).xpath("string(//h1/text())").strip()
        assert texts == {
            "title": title,
            "link": f"{URL}{language}/",
            "description": "Squares and more.",
            "language": code,
        }
        own = channel.find("a:link", NAMES)
        assert dict(own.attrib) == {
            "rel": "self",
            "type": "application/rss+xml",
            "href": f"{URL}{language}/feed.xml",
        }


def test_feed_has_the_newest_article_first(hosted):
    items = tree(hosted, "en/feed.xml").findall("channel/item")
    assert [{each.tag: each.text for each in item if each.tag != "pubDate"} for item in items] == [
        {
            "title": title,
            "link": f"{URL}en/{page}/",
            "guid": f"{URL}en/{page}/",
            "description": about,
        }
        for title, page, about in [
            ("Roots", ROOTS, "Undoing “squares”."),
            ("Squares", SQUARES, 'What a "square" & its <root> are.'),
        ]
    ]
    days = [parsedate_to_datetime(item.findtext("pubDate")) for item in items]
    assert days == [datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 5, 4, tzinfo=UTC)]


@pytest.mark.parametrize("page", PAGES)
def test_each_page_links_to_the_feed_of_its_language(hosted, page):
    (feed,) = links(hosted, page, type="application/rss+xml")
    assert (feed.get("rel"), feed.get("href")) == ("alternate", f"{URL}{page[:2]}/feed.xml")


def test_article_without_a_date_is_not_in_the_feed(project):
    assert "<item>" not in project.read("site/en/feed.xml")


# Plain Markdown


TABLE = """\
for x in (1, 2, 3):
    print(x, square(x))
```

```text
1 1
2 4
3 9
```
"""
PLAIN = f"""\
# <a id="squares"></a>Squares

The square of 3 is 9, and $3^2 = 9.0$.

![The squares up to $x = 2$.](squares/curve-light.svg)

## <a id="table"></a>Table

```python
import matplotlib.pyplot as plt

from things.power import square


{TABLE}
The function, which [the roots](roots.md#roots) undo:

```python title="src/things/power.py"
def square(x):
    return x * x
```

$$
x^2 = x \\cdot x
$$
"""


def test_article_as_plain_markdown(hosted):
    assert hosted.read("site/en/area/squares.md") == PLAIN


def test_each_article_links_to_its_plain_markdown(hosted):
    for page in PAGES:
        found = [(link.get("rel"), link.get("href")) for link in links(hosted, page, type="text/markdown")]
        if page in ("en/", "zh/"):
            assert found == []
        else:
            assert found == [("alternate", f"{URL}{page.removesuffix('/')}.md")]
            assert hosted.read(f"site/{page.removesuffix('/')}.md").startswith("# ")


RICH = """\
# Trial { #trial }

<!-- nobody reads this -->
??? question "What is $3^2$?"

    It is {{ nine }}.

    ```python
    --8<-- "area/squares.py:table"
    ```

!!! note

    A note.

After, for \\$5 or {{ below }}, $e = {{ gap:.1e }}$。

::: zhixing.area.squares
"""


def test_boxes_tables_and_modules_as_plain_markdown(pristine, tmp_path):
    project = pristine.copy(tmp_path / "project")
    project.write("src/zhixing/area/squares.py", "")
    notebooks = {"area/squares.py": project.notebook("area/squares")}
    assert (
        page_markdown(Page("docs/en/area/squares.md", RICH), notebooks, project.root)
        == f"""\
# <a id="trial"></a>Trial


**What is $3^2$?**

It is 9.

```python
{TABLE}
**Note**

A note.

After, for \\$5 or -2.5, $e = 4.7\\times10^{{-4}}$。

[area/squares.py](../../code/area/squares.py)
"""
    )


def test_plain_markdown_links_to_files_that_exist(pristine):
    """An article has Markdown, another page only HTML."""
    text = "# T { #t }\n\n[a](roots.md#roots), [b](../glossary.md#x), [c](index.md), [d](../other/index.md).\n"
    page = Page("docs/en/area/squares.md", text)
    assert page_markdown(page, {}, pristine.root).endswith(
        "\n[a](roots.md#roots), [b](../glossary/#x), [c](./), [d](../other/).\n"
    )


def test_llms_txt_links_to_plain_markdown(hosted):
    assert (
        hosted.read("site/llms.txt")
        == f"""\
# Home

> Squares and more.

## English

- [Roots]({URL}en/area/roots.md): Undoing “squares”.
- [Squares]({URL}en/area/squares.md): What a "square" & its <root> are.

## 中文

- [根]({URL}zh/area/roots.md): Undoing “squares”.
- [平方]({URL}zh/area/squares.md): What a "square" & its <root> are.
"""
    )


# Descriptions and published addresses


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("# T { #t }\n\nSome\nprose.\n\nMore.\n", "Some prose."),
        ("---\nmenu: T\n---\n\n# T { #t }\n\nProse.\n", "Prose."),
        ("---\nsummary: A line.\n---\n\n# T { #t }\n\nProse.\n", "A line."),
        ("# T { #t }\n\nA [link](x.md).\n", "A link."),
        ("# T { #t }\n\nThe **bold** one.\n", ""),
        ("# T { #t }\n\nThe root $x$.\n", ""),
        ("# T { #t }\n\nThe value {{ nine }}.\n", ""),
        ("# T { #t }\n\n![A figure.](area/squares.py:curve)\n", ""),
        ("# T { #t }\n", ""),
    ],
    ids=["first paragraph", "below front matter", "summary", "link", "bold", "formula", "value", "figure", "nothing"],
)
def test_description_is_the_summary_or_the_first_paragraph(text, description):
    page = Page("docs/en/index.md", text)
    assert Site({"en": {"index": page}}, URL).description(page) == description


@pytest.mark.parametrize("what", ["card.png", "feed.xml", ".md"])
def test_dead_address_stops_the_build(project, what):
    project.replace("theme/main.html", "{{ page.meta.head }}", f"{{{{ page.meta.head | replace('{what}', 'no') }}}}")
    cause = r"en/area/squares/index.html: dead address http://localhost/en/\S*no: there is no such file"
    assert re.search(cause, project.failing_build())
