"""The labels of figures in Chinese, which lie in a file beside each snippet that draws with them."""

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


def test_labels_lie_beside_their_snippet():
    assert FILES
    assert [path for path in FILES if not path.with_suffix(".py").exists()] == []


def test_label_is_the_same_in_chinese_wherever_it_stands():
    chinese = defaultdict(lambda: defaultdict(list))
    for path in FILES:
        for label, text in labels(path).items():
            chinese[label][text].append(path.relative_to(SNIPPETS).as_posix())
    assert {label: dict(texts) for label, texts in chinese.items() if len(texts) > 1} == {}
