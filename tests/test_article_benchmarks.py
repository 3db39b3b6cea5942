"""Test benchmarks/articles.py: each article has a row, and its two calls compute the same result."""

import importlib.util
import sys
from pathlib import Path

import pytest
from torch.testing import assert_close

ROOT = Path(__file__).resolve().parents[1]
# Articles without tensor computations that would be worth timing.
WITHOUT = {"engineering/api_export", "engineering/lightning", "engineering/source_backup"}
ARTICLES = {path.relative_to(ROOT / "snippets").with_suffix("").as_posix() for path in ROOT.glob("snippets/*/*.py")}


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    specification = importlib.util.spec_from_file_location("articles", ROOT / "benchmarks/articles.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["articles"] = module  # its dataclass looks up types there
    specification.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "benchmarks"))


def test_each_article_has_a_row_in_the_order_of_their_names(benchmark):
    assert list(benchmark.PAIRS) == sorted(ARTICLES - WITHOUT)


@pytest.mark.parametrize("article", sorted(ARTICLES - WITHOUT))
def test_both_calls_compute_the_same(benchmark, article):
    pair = benchmark.PAIRS[article]
    if pair.ranks > 1:
        pytest.skip("needs a process group")
    ours, reference = pair.calls()
    assert_close(list(ours()), list(reference()))


def test_times_are_of_each_call_in_turns(benchmark):
    called = []
    times = benchmark.in_turns(lambda: called.append("ours"), lambda: called.append("other"))
    assert called == ["ours", "other"] * (benchmark.TURNS + 1)
    assert [len(each) for each in times] == [benchmark.TURNS] * 2
    assert all(time >= 0 for each in times for time in each)
