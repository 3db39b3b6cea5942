"""The recording of mutants: nearly all are noticed, and a table says why the others are not."""

import csv
import json
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
RECORDED = json.loads((BENCHMARKS / "results/mutation.json").read_text())["modules"]


def test_tests_notice_nine_of_ten_mutants():
    tried, noticed = (sum(each[key] for each in RECORDED.values()) for key in ("tried", "noticed"))
    assert noticed >= 0.9 * tried > 0


def test_each_survivor_is_explained_once():
    survivors = [(module, change) for module, each in RECORDED.items() for change in each["survivors"]]
    with open(BENCHMARKS / "survivors.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert sorted((row["module"], row["change"]) for row in rows) == sorted(survivors)
    assert all(row["why"] for row in rows)
