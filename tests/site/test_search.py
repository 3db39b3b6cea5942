"""The index that the search box reads."""

import json

import pytest


@pytest.fixture
def index(project):
    """Return a function that builds the site and gives the sections of one language by id."""

    def build(language: str) -> dict[str, dict]:
        assert project.build() == (0, "")
        return project.searched(language)

    return build


def test_each_section_has_a_place_titles_text_and_code(index):
    sections = index("en")
    assert list(sections) == ["area/roots/", "area/squares/", "area/squares/#table"]  # pages first
    first, second = sections["area/squares/"], sections["area/squares/#table"]
    assert (first["title"], first["page"], first["place"]) == ("Squares", "Squares", 0)
    assert (second["title"], second["page"], second["place"]) == ("Table", "Squares", 1)
    assert "def square(x):" in second["code"]
    assert "def square(x):" not in second["text"]
    assert second["defined"] == "square"
    assert second["text"].startswith("The function, which the roots undo:")


def test_first_section_of_a_page_has_its_keywords(index, project):
    header = "---\nkeywords: [second power, x*x]\n---\n\n"
    project.page("area/trial", f"{header}# Trial {{ #trial }}\n\n## More {{ #more }}\n")
    sections = index("en")
    assert sections["area/trial/"]["keywords"] == ["second power", "x*x"]
    assert "keywords" not in sections["area/trial/#more"]
    assert sections["area/roots/"]["keywords"] == []


def test_formulas_are_indexed_as_plain_text(index, project):
    assert index("en")["area/squares/"]["text"].startswith("The square of 3 is 9, and 3^2=9.0. The squares up to x=2.")
    formulas = [r"\frac12\sqrt{x+1}", r"(x_i - y)^2", r"\sum_{i=1}^n x'_i", r"\frac{a+b}{2.5}", r"\log\hat x"]
    project.page("area/trial", "# Trial { #trial }\n\n" + "\n\n".join(f"${formula}$" for formula in formulas) + "\n")
    shown = "1/2√(x+1) (x_i−y)^2 ∑_(i=1)^nx_i′ (a+b)/2.5 logxˆ"
    assert index("en")["area/trial/"]["text"] == shown


def test_each_language_has_a_separate_index(index):
    assert index("zh")["area/squares/#table"]["title"] == "表"
    assert "the roots" not in json.dumps(index("zh"))


def test_home_page_is_left_out(index):
    assert not any("Home" in section["title"] for section in index("en").values())


def test_words_of_neighbouring_blocks_are_separated(index, project):
    text = "- one\n- two\n\n| a | b |\n| --- | --- |\n| c | d |\n\nend*less*ly\n"
    project.page("area/trial", f"# Trial {{ #trial }}\n\n{text}")
    assert index("en")["area/trial/"]["text"] == "one two a b c d endlessly"
