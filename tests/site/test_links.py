"""Links of built pages."""

from urllib.parse import quote

import pytest

from zhixing_site.site.links import check_links, check_published
from zhixing_site.site.postprocess import read


def check(site, url: str = "http://localhost/") -> list[str]:
    """Return the error messages for the links of all pages of a site with this address."""
    pages = {path.relative_to(site).as_posix(): read(path.read_text()) for path in site.rglob("*.html")}
    return list(map(str, check_links(site, pages, url) + check_published(site, pages, url)))


@pytest.fixture
def messages(tmp_path):
    """Return a function that gives the error messages for a site with this body in en/area/index.html."""

    def messages(body: str) -> list[str]:
        pages = {
            "index.html": '<a href="en/">x</a>',
            "en/index.html": '<h1 id="top">x</h1><a name="old"></a><a href="area/#own">y</a>',
            "en/area/index.html": f'<h1 id="own">x</h1><p id="知行">y</p>{body}',
            "zh/index.html": '<h1 id="首页">x</h1>',
        }
        site = tmp_path / "site"
        for path, text in pages.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(f'<!doctype html><meta charset="utf-8"><title>x</title>{text}')
        (site / "en/style.css").write_text("")
        (site / "en/a b.svg").write_text("")
        (tmp_path / "outside.html").write_text("")
        return check(site)

    return messages


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "#",
        "#own",
        "./#own",
        "../",
        "../index.html",
        "../#top",
        "../#old",
        "..",
        "../../",
        "../style.css",
        "../style.css?v=1",
        "../a%20b.svg",
        "#知行",
        "#%E7%9F%A5%E8%A1%8C",
        "../../zh/#首页",
        "../style.css#anything",
        "https://example.org/nothing#x",
        "//example.org/nothing",
        "mailto:a@b.c",
        "data:image/png;base64,AA==",
        "javascript:void(0)",
    ],
)
def test_valid_link_is_accepted(messages, reference):
    assert messages(f'<a href="{reference}">x</a>') == []


@pytest.mark.parametrize(
    ("reference", "cause"),
    [
        ("#nowhere", "the page has no #nowhere"),
        ("#Own", "the page has no #Own"),
        ("../#own", "the page has no #own"),
        ("../../zh/#home", "the page has no #home"),
        ("nothing.md", "there is no such file"),
        ("nothing/", "there is no such file"),
        ("../../fr/", "there is no such file"),
        ("../../../outside.html", "there is no such file"),
        ("/en/", "server's root"),
        ("/", "server's root"),
        ("..//style.css", "an empty component"),
        ("http://[bad", "Invalid IPv6 URL"),
        ("//[/x", "Invalid IPv6 URL"),
    ],
)
def test_dead_link_is_reported(messages, reference, cause):
    (message,) = messages(f'<a href="{reference}">x</a>')
    assert message.startswith(f"en/area/index.html: dead link {reference}: ")
    assert cause in message


@pytest.mark.parametrize(
    "element",
    [
        '<img src="no.svg">',
        '<script src="no.js"></script>',
        '<link rel="stylesheet" href="no.css">',
        '<iframe src="no.html"></iframe>',
        '<svg><a href="no.html"/></svg>',
    ],
    ids=["image", "script", "style sheet", "frame", "drawing"],
)
def test_every_kind_of_reference_is_checked(messages, element):
    (message,) = messages(element)
    assert "dead link no." in message


@pytest.mark.parametrize("name", ["线性回归", "a b", "50%", "é", "e\u0301", "a+b"])
def test_published_address_of_any_file_name_is_found(tmp_path, name):
    address = f"http://localhost/en/{quote(name)}/"
    (tmp_path / "en" / name).mkdir(parents=True)
    (tmp_path / "en" / name / "index.html").write_text(f'<link rel="canonical" href="{address}">')
    assert check(tmp_path) == []
    (tmp_path / "en" / name).rename(tmp_path / "en/other")
    assert check(tmp_path) == [f"en/other/index.html: dead address {address}: there is no such file"]


def test_each_dead_link_is_reported_once(messages):
    body = '<a href="#a">x</a><a href="#a">y</a><a href="#b">z</a>'
    assert [message.split(":")[1] for message in messages(body)] == [" dead link #a", " dead link #b"]


def test_links_of_the_404_page_may_start_at_the_root(tmp_path):
    """It is served for addresses of any depth."""
    (tmp_path / "en").mkdir()
    for path in ("en/index.html", "en/404.html"):
        (tmp_path / path).write_text('<title>x</title><a href="/en/">x</a>')
    (message,) = check(tmp_path)
    assert message.startswith("en/index.html")
    (tmp_path / "en/404.html").write_text('<title>x</title><a href="/en/nothing/">x</a>')
    assert any(message.startswith("en/404.html: dead link /en/nothing/") for message in check(tmp_path))
