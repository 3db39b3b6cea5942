"""All-reduce around the ring on real processes: against torch's, with a rank that stays silent, with broken lines."""

from pathlib import Path

import checks_ring_all_reduce as checks
import pytest

from zhixing.engineering import ring_all_reduce


@pytest.mark.processes
def test_on_ranks(wrong_on_ranks, check, ranks):
    assert wrong_on_ranks("ring_all_reduce", check, ranks) == ""


@pytest.mark.processes
@pytest.mark.mutation
@pytest.mark.parametrize("mutation", checks.MUTATIONS)
def test_broken_line_is_noticed(wrong_on_ranks, mutation):
    line, _, check = checks.MUTATIONS[mutation]
    assert Path(ring_all_reduce.__file__).read_text().count(line) == 1
    assert wrong_on_ranks("ring_all_reduce", check, 2) == "", "fails with the line as it is"
    assert wrong_on_ranks("ring_all_reduce", mutation, 2), f"{check} does not notice"
