"""Post-processing of the pages that MkDocs rendered."""

import base64
import hashlib

import pytest

from zhixing_site.site.postprocess import COMMIT, DAY, finish, stamp


def policy(project, page: str) -> dict[str, str]:
    """Return the directives of the page's content security policy."""
    (policy,) = project.html(page).xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    return dict(part.split(" ", 1) for part in policy.split("; "))


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_policy_allows_the_site_itself_and_inline_scripts(project):
    assert project.build() == (0, "")
    for page in "en/area/squares", "zh":
        assert policy(project, page)["default-src"] == "'self'"
        assert policy(project, page)["script-src"] == f"'self' {digest('let here = 1;')}"
        assert policy(project, page)["style-src"] == "'self'"


@pytest.mark.parametrize(
    ("inside", "counts"),
    [
        ("<script>a</script>", True),
        ("<script\n  async>a</script>", True),
        ('<script src="../index.html"></script>', False),
        ('<script id="x" type="application/json">a</script>', False),
        ("<style>a</style>", True),
    ],
)
def test_inline_scripts_and_styles_are_hashed(project, inside, counts):
    project.replace("theme/main.html", "<script>let here = 1;</script>", inside)
    for page in "squares", "roots":
        for language in "en", "zh":
            (project.root / f"docs/{language}/area/{page}.md").unlink()
            project.write(f"docs/{language}/index.md", "# Home { #home }\n")
    (project.root / "snippets/area/squares.py").unlink()
    (project.root / "snippets/area/roots.py").unlink()
    project.command("accept")
    assert project.build() == (0, "")
    directives = policy(project, "en")["script-src"] + policy(project, "en")["style-src"]
    assert directives.count("sha256") == (digest("a") in directives) == counts


def test_each_heading_links_to_its_translation(project):
    assert project.build() == (0, "")
    links = project.html("en/area/squares").xpath("//a[@class='headertwin']")
    assert [each.get("href") for each in links] == [f"../../../zh/area/squares/#{id}" for id in ("squares", "table")]
    assert {(each.text, each.get("lang")) for each in links} == {("zh", "zh")}
    assert project.read("site/zh/area/squares/index.html").count(' lang="en" lang="en"') == 0
    assert project.html("zh").xpath("//h1/a[@class='headertwin']/@href") == ["./../en/#home"]


def test_text_in_the_other_language_is_marked(project):
    english = '# 知行 Zhi { #trial }\n\nAs 门，控 says, `码` and <b title="图">b</b>.\n'
    chinese = "# 知行 { #trial }\n\n见门控，`码`。\n\n- A longer title, 1977。\n- 见 Page\n\nAll of this.\n"
    project.page("area/trial", english, chinese)
    assert project.build() == (0, "")
    marked = project.html("en/area/trial").xpath("//article//span[@lang]")
    assert [(each.get("lang"), each.text) for each in marked] == [("zh", "知行"), ("zh", "门，控"), ("zh", "码")]
    marked = project.html("zh/area/trial").xpath("//article//*[@lang and not(@class)]")
    assert [(each.tag, each.get("lang")) for each in marked] == [("li", "en"), ("p", "en")]


def test_tokens_without_a_colour_have_no_element():
    code = (
        '<pre><code><span class="k">def</span><span class="w"> </span><span class="nf">f</span><span class="p">(</span>'
    )
    wanted = '<pre><code><span class="k">def</span> <span class="nf">f</span>('
    assert finish(code, "en") == wanted


def test_stamp_fills_in_commit_and_day():
    page = f"<time>{DAY}</time> <code>{COMMIT}</code> {DAY}"
    assert stamp(page, "abc1234", "2026-05-04") == "<time>2026-05-04</time> <code>abc1234</code> 2026-05-04"


def test_date_has_no_language():
    page = f"<p><strong>{DAY}</strong> 构建 <strong>Build {DAY}</strong></p>"
    assert finish(page, "zh") == page.replace("<strong>Build", '<strong lang="en">Build')


def test_file_name_is_marked_as_english():
    name = '<span class="filename">src/one/two.py</span>'
    assert finish(name, "zh") == name.replace(">src", ' lang="en">src')


def test_evidence_after_the_api_is_in_the_language_of_its_page():
    api, evidence = '<div class="doc doc-object doc-module"', '<div class="evidence"><p>验证，见<a href="">此 '
    page = f'<p>文</p>{api}><p>Of 图.</p></div>{evidence}</a> <a href="">Page</a></p></div></article><p>Foot</p>'
    wanted = f'<p>文</p>{api} lang="en"><p>Of <span lang="zh">图</span>.</p></div>{evidence}</a> '
    assert finish(page, "zh") == wanted + '<a href="" lang="en">Page</a></p></div></article><p>Foot</p>'


def test_scripts_are_not_marked_and_the_policy_is_not_inserted_into_text(project):
    project.replace("theme/main.html", "<article>", '<script>let a = "知行";</script><article>')
    project.page(
        "area/trial", "# Trial { #trial }\n\nThe text `{content-security-policy}`.\n", "# 试 { #trial }\n\n文\n"
    )
    assert project.build() == (0, "")
    assert '<script>let a = "知行";</script>' in project.read("site/en/area/trial/index.html")
    assert "<code>{content-security-policy}</code>" in project.read("site/en/area/trial/index.html")


def test_no_placeholder_of_the_policy_is_left(project):
    assert not any(b'content="{content-security-policy}"' in content for content in project.site().values())
