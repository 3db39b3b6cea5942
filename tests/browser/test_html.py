"""Check the HTML of every page without a browser."""

import base64
import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote

import lxml.html
import pytest

SITE = Path(__file__).resolve().parents[2] / "site"
LANGUAGES = "en", "zh"
MACHINE = {"script", "noscript", "style", "template"}
HAN = re.compile("[\u2e80-\u2fdf\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")


def texts(element, without: set[str], language: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text in the element and its declared language, skipping elements named in `without`."""
    if not isinstance(element.tag, str) or element.tag in without or element.get("data-md-component") in without:
        return
    language = element.get("lang", language)
    yield element.text or "", language
    for child in element:
        yield from texts(child, without, language)
        yield child.tail or "", language


def target(page: str, reference: str) -> str:
    """Return the page or file of the site that a reference on the page points to, without its fragment."""
    folder = page if page.endswith("/") else posixpath.dirname(page)
    path = posixpath.normpath(posixpath.join(folder, unquote(reference.partition("#")[0])))
    return f"{path}/" if (SITE / path).is_dir() else path


def test_no_tex_is_left(any_page, read):
    found = texts(read(any_page).body, MACHINE | {"code", "pre", "annotation"})
    assert [text for text, _ in found if re.search(r"\$[^$]+\$|\\[a-zA-Z]{2,}", text)] == []


def test_texts_are_in_their_declared_language(any_page, read):
    tree = read(any_page)
    assert tree.get("lang") == (any_page[:2] if any_page[:3] in ("en/", "zh/") else "en")
    strange = []
    for text, language in texts(tree.body, MACHINE | {"pre", "code", "math", "toc"}, tree.get("lang")):
        chinese = language.startswith("zh")
        if not chinese if HAN.search(text) else chinese and len(re.findall("[A-Za-z]{2,}", text)) > 5:
            strange.append(text)
    assert strange == []


def test_images_exist_and_have_alt_text_and_a_size(any_page, read):
    """The size reserves space, so that nothing moves when the image loads."""
    for image in read(any_page).xpath("//article//img"):
        assert all(image.get(name, "").strip() for name in ("src", "alt", "width", "height")), image.attrib
        assert (SITE / target(any_page, image.get("src"))).is_file(), image.attrib


def test_figures_are_drawn_for_both_colour_schemes_and_have_a_caption(any_page, read):
    for figure in read(any_page).find_class("figure"):
        assert [caption.text_content().strip() for caption in figure.find_class("caption")] not in ([], [""])
        links = figure.find_class("enlarge")
        assert [link.get("class").split()[1] for link in links] in (["only-light", "only-dark"], [])
        assert [link.get("href") for link in links] == [link.find("img").get("src") for link in links]
        assert figure.xpath(".//img | .//svg | .//table")


def test_headings_have_unique_ids_and_link_to_themselves(any_page, read):
    tree = read(any_page)
    assert len(tree.xpath("//h1")) == 1
    assert [id for id, count in Counter(tree.xpath("//@id")).items() if count > 1] == []
    for heading in tree.xpath("//article//*[self::h1 or self::h2 or self::h3][.//a[@class='headerlink']]"):
        assert [link.get("href") for link in heading.find_class("headerlink")] == [f"#{heading.get('id')}"]


def headings(tree) -> list[str]:
    return tree.xpath("//article//*[self::h1 or self::h2 or self::h3]/@id")


def test_switch_and_headings_link_to_the_translation(translated_page, read):
    tree = read(translated_page)
    translation = ("zh" if translated_page.startswith("en") else "en") + translated_page[2:]
    (switch,) = tree.xpath("//header//a[contains(@class, 'twin')]")
    assert target(translated_page, switch.get("href")) == translation
    assert switch.get("hreflang") == switch.get("lang") == translation[:2]
    assert headings(tree) == headings(read(translation)) != []
    linked = {}
    for id in headings(tree):
        linked[id] = [link.get("href") for link in tree.xpath("//*[@id = $id]/a[@class='headertwin']", id=id)]
    assert linked == {id: [f"{switch.get('href')}#{id}"] for id in linked}


def test_pages_have_a_description_of_their_own(translated_page, read):
    """Previews of links and search engines show it."""
    tree = read(translated_page)
    (preview,) = tree.xpath("//meta[@property='og:description']/@content")
    assert preview.strip()
    assert tree.xpath("//meta[@name='description']/@content") == [preview]


def test_links_in_markdown_lead_somewhere():
    files, dead = sorted(SITE.glob("??/*/*.md")), []
    assert files
    for file in files:
        text = re.sub(r"^(`{3,}).*?^\1$|`[^`\n]+`|\$[^$]+\$", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)
        for path, id in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
            linked = file.parent / path if path else file
            anchored = not id or linked.suffix != ".md" or f'<a id="{id}"></a>' in linked.read_text()
            if not linked.exists() or not anchored:
                dead.append((file, path, id))
    assert dead == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_feeds_are_described(language):
    found = lxml.etree.parse(SITE / language / "feed.xml").iter("description")
    assert "" not in [(element.text or "").strip() for element in found]


def test_notebook_and_articles_link_to_each_other(article, read):
    name = article.removeprefix("en/lab/")
    if name == article:
        (link,) = read(article).xpath("//*[@class='lab']/a")
        assert target(article, link.get("href")) == f"en/lab/{article[3:]}"
        assert len(read(article).xpath("//*[@class='evidence']//*[@class='cite']//pre")) == 1
    else:
        (switch,) = read(article).find_class("twin-of-lab")
        assert target(article, switch.get("href")) == f"zh/{name}"
        endings = [Path(target(article, href)).suffix for href in read(article).xpath("//article//a[@download]/@href")]
        assert endings == [".ipynb", ".py"]


def test_notebook_is_small_and_loads_nothing_from_other_hosts(article, read):
    """The page that mkdocs-jupyter renders is ten times as large; the navigation, which grows, is not counted."""
    if article.startswith("en/lab/"):
        assert len(lxml.html.tostring(read(article).find(".//article"))) < 80_000
        sources = read(article).xpath("//@src | //link[not(@rel='canonical')]/@href")
        assert [source for source in sources if "//" in source] == []


def test_home_names_libraries_as_references(read):
    """Both languages name the same libraries, and no helper module of the tests."""
    proof = {
        language: " ".join(read(f"{language}/").find_class("proof")[0].text_content().split()) for language in LANGUAGES
    }
    english = re.split(", | and ", re.search("among other things against (.+?), loops", proof["en"])[1])
    chinese = re.split("、| 与 ", re.search("参照包括 (.+?) 这些库", proof["zh"])[1])
    assert english == chinese
    assert "torch" in english
    for name in english:
        assert version(name)  # raises an error if no such library is installed
        assert not list((SITE.parent / "tests").rglob(f"{name}.py")), f"{name} is a file of the tests"


def test_articles_name_the_tests_of_their_own_code(article, read):
    named = read(article).xpath("//details[@class='tests']//a")
    if article.startswith("en/lab/"):
        assert named == []
        return
    files = [SITE.parent / link.text for link in named]
    assert files
    assert all(path.is_file() for path in files)
    functions = {item.text_content() for item in read(article).xpath("//details[@class='tests']//li")}
    (summary,) = read(article).xpath("//details[@class='tests']/summary")
    assert functions <= {
        name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert int(re.search(r"\d+", summary.text)[0]) >= len(functions) > 0


# A URL on another host, also within a list such as `srcset`, or in a style.
ELSEWHERE = re.compile(r"""(?:^|[\s,('"])(?:[a-z]+:)?//""", re.IGNORECASE)


def test_nothing_is_fetched_from_another_host(any_page, read):
    found = []
    for element in read(any_page).iter("*"):
        reference = element.tag in ("a", "meta") or element.get("rel") in ("canonical", "alternate")
        names = {name for name, value in element.items() if ELSEWHERE.search(value)} - {"xmlns", "xmlns:xlink"}
        found += [element.attrib for name in names if not reference]
    assert found == []


@pytest.mark.parametrize("path", sorted(SITE.rglob("*.css")), ids=lambda path: path.relative_to(SITE).as_posix())
def test_no_style_refers_to_another_host(path):
    style = path.read_text()
    assert re.findall(r"""url\(\s*["']?(?:https?:)?//[^)]*""", style) == []
    assert "@import" not in style


def test_policy_allows_only_what_the_site_itself_contains(any_page, read):
    tree = read(any_page)
    (policy,) = tree.xpath("/html/head/meta[@http-equiv='Content-Security-Policy']")
    assert policy.xpath("preceding::*[self::script or self::link or self::style]") == []
    directives = dict(part.split(" ", 1) for part in policy.get("content").split("; "))
    assert directives["default-src"] == "'self'"
    for directive, name in ("script-src", "script"), ("style-src", "style"):
        inside = {element.text for element in tree.iter(name) if element.text and not element.get("type")}
        hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inside}
        assert set(directives[directive].split()) == {"'self'", *(f"'sha256-{each}'" for each in hashes)}
    assert tree.xpath("//@style | //@*[starts-with(name(), 'on')]") == []


@pytest.mark.parametrize("file", ["404.html", "en/404.html", "zh/404.html"])
def test_missing_page_links_to_both_home_pages(file, read):
    paragraphs = read(file).xpath("//article/p[@lang]")
    homes = {each.get("lang"): posixpath.normpath(each.find("a").get("href")) for each in paragraphs}
    assert {language: posixpath.basename(home) for language, home in homes.items()} == {"en": "en", "zh": "zh"}
