"""All-reduce around the ring on real processes: against torch's, with a rank that stays silent, with broken lines."""

from pathlib import Path

import checks_ring_all_reduce as checks
import pytest

from zhixing.engineering import ring_all_reduce


@pytest.mark.processes
@pytest.mark.parametrize("ranks", [2, 4], ids=lambda ranks: f"{ranks} ranks")
@pytest.mark.parametrize("check", checks.CHECKS)
def test_on_ranks(on_ranks, check, ranks):
    wrong = {rank: found[check] for rank, found in enumerate(on_ranks("ring_all_reduce", ranks)) if found[check]}
    assert not wrong, "\n".join(f"rank {rank}: {said}" for rank, said in wrong.items())


@pytest.mark.processes
@pytest.mark.mutation
@pytest.mark.parametrize("mutation", checks.MUTATIONS)
def test_broken_line_is_noticed(on_ranks, mutation):
    line, _, check = checks.MUTATIONS[mutation]
    assert Path(ring_all_reduce.__file__).read_text().count(line) == 1
    assert [found[check] for found in on_ranks("ring_all_reduce", 2)] == ["", ""], "fails with the line as it is"
    assert any(found[mutation] for found in on_ranks("ring_all_reduce", 2)), f"{check} does not notice"
