"""Our MkDocs hooks, applied to a page."""

from types import SimpleNamespace

import pytest
from mkdocs.config import load_config
from mkdocs.structure.toc import get_toc
from mkdocs_autorefs import AUTOREF_RE

from zhixing_site.project import CONFIGS
from zhixing_site.site.mkdocs_process import on_page_content

NOTEBOOK = """\
<h1 id="notebook">Squares &amp; roots: the notebook<a class="headerlink" href="#notebook">¶</a></h1>
<h2 id="setup"><code>setup</code><a class="headerlink" href="#setup">¶</a></h2>
<h2 id="checks"><code>checks</code>, not in the article<a class="headerlink" href="#checks">¶</a></h2>
"""


def page(source: str, *anchors: str) -> SimpleNamespace:
    """Return a page with these anchors, each nested in the one before."""
    children = []
    for anchor in reversed(anchors):
        children = [{"level": 2, "id": anchor, "name": anchor.rpartition(".")[2].title(), "children": children}]
    return SimpleNamespace(file=SimpleNamespace(src_uri=source), toc=get_toc(children), present_anchor_ids=None)


def test_notebook_gets_title_contents_and_anchors_from_its_headings():
    lab = page("lab/area/squares/README.ipynb")
    assert on_page_content(f"{NOTEBOOK}\n<style>\nh2 {{}}\n</style>\n", lab) == f"{NOTEBOOK}\n"
    assert lab.title == "Squares &amp; roots: the notebook"
    (top,) = lab.toc
    assert (top.title, top.id) == (lab.title, "notebook")
    assert [(each.title, each.url) for each in top.children] == [
        ("setup", "#setup"),
        ("checks, not in the article", "#checks"),
    ]
    assert lab.present_anchor_ids == {"notebook", "setup", "checks"}


def test_article_is_unchanged():
    article = page("area/squares.md", "squares")
    text = f"{NOTEBOOK}<style>p {{}}</style>"
    assert on_page_content(text, article) == text
    assert [each.id for each in article.toc] == ["squares"]


REFERENCE = '<autoref identifier="{}" {}>Edge</autoref>'


def test_reference_to_the_same_page_is_a_link(caplog):
    html = on_page_content(REFERENCE.format("things.edge", "optional hover"), page("a.md", "things", "things.edge"))
    assert html == '<a class="autorefs autorefs-internal" title="Edge (things.edge)" href="#things.edge">Edge</a>'
    assert caplog.text == ""


def test_optional_reference_to_another_page_is_text(caplog):
    html = on_page_content(REFERENCE.format("other.edge", "optional hover"), page("a.md", "things.edge"))
    assert html == '<span title="other.edge">Edge</span>'
    assert caplog.text == ""


def test_required_reference_to_another_page_gives_a_warning(caplog):
    html = on_page_content(REFERENCE.format("other.edge", ""), page("a.md", "things.edge"))
    assert html == "[Edge][other.edge]"
    assert "a.md: the cross-reference [other.edge] has no target on this page" in caplog.text


def test_no_reference_is_left_for_the_plugin():
    text = "".join(REFERENCE.format(name, kind) for name in ("here", "there") for kind in ("", "optional"))
    assert not AUTOREF_RE.search(on_page_content(text, page("a.md", "here")))


@pytest.mark.parametrize("language", CONFIGS)
def test_only_the_english_site_loads_the_notebook_plugin(language, request):
    """Importing the plugin takes a second."""
    plugins = load_config(str(request.config.rootpath / CONFIGS[language])).plugins
    assert ("mkdocs-jupyter" in plugins) == (language == "en")
    assert "mkdocstrings" in plugins
    assert any(name.endswith("mkdocs_process.py") for name in plugins)
