"""All-reduce around the ring on real processes: against torch's, with a rank that stays silent, with broken lines."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import checks_ring_all_reduce as checks
import pytest

from zhixing.engineering import ring_all_reduce


@pytest.mark.processes
def test_on_ranks(wrong_on_ranks, check, ranks):
    assert wrong_on_ranks("ring_all_reduce", check, ranks) == ""


def test_what_is_noted_of_a_message_stays_as_it_is():
    transfer = ring_all_reduce.Transfer(step=0, chunk=1, elements=60, start=0.5, end=0.75)
    with pytest.raises(FrozenInstanceError):
        transfer.elements = 59
    assert transfer.elements == 60


@pytest.mark.processes
@pytest.mark.mutation
@pytest.mark.parametrize("mutation", checks.MUTATIONS)
def test_broken_line_is_noticed(wrong_on_ranks, mutation):
    line, _, check = checks.MUTATIONS[mutation]
    assert Path(ring_all_reduce.__file__).read_text().count(line) == 1
    assert wrong_on_ranks("ring_all_reduce", check, 2) == "", "fails with the line as it is"
    assert wrong_on_ranks("ring_all_reduce", mutation, 2), f"{check} does not notice"
