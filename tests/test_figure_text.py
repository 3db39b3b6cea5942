"""Test the Chinese labels of figures, in the .toml file of each snippet."""

import tomllib
from collections import defaultdict
from pathlib import Path

SNIPPETS = Path(__file__).resolve().parents[1] / "snippets"
FILES = sorted(SNIPPETS.glob("*/*.toml"))


def labels(path: Path) -> dict[str, str]:
    catalogue = tomllib.loads(path.read_text())
    assert catalogue.keys() <= {"names", "text"}
    names = catalogue.get("names", {}).get("keep", [])
    return {name: name for name in names} | catalogue.get("text", {})


def test_each_file_of_labels_has_a_snippet():
    assert FILES
    assert [path for path in FILES if not path.with_suffix(".py").exists()] == []


def test_label_has_the_same_translation_everywhere():
    chinese = defaultdict(lambda: defaultdict(list))
    for path in FILES:
        for label, text in labels(path).items():
            chinese[label][text].append(path.relative_to(SNIPPETS).as_posix())
    assert {label: dict(texts) for label, texts in chinese.items() if len(texts) > 1} == {}
