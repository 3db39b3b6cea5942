"""Run the checks of modules on 2 and on 4 ranks: `python run_checks.py FILE …`, with the file of each module.

Writes what went wrong on each rank to RANKS/RANK.json: by module and check, and on 2 ranks by mutation. All modules in
one program, since its imports take longer than the checks. At last one of three ranks fails, and `failed` holds what
is printed.
"""

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist
from jaxtyping import install_import_hook
from on_ranks import LIMIT, Place, broken, run


def wrong(rank: int, ranks: int, module, suite) -> dict[str, str]:
    place = Place(rank, ranks, None, module)
    chosen = suite.CHECKS if ranks == 2 else [name for name in suite.CHECKS if name.startswith(suite.ON_FOUR_RANKS)]
    found = {name: run(place, suite.CHECKS[name]) for name in chosen}
    for name, (old, new, wanted) in suite.MUTATIONS.items() if ranks == 2 else ():
        found[name] = run(Place(rank, ranks, None, broken(module, old, new)), suite.CHECKS[wanted])
    return found


def main() -> None:
    modules, suites = {}, {}
    for tested in sys.argv[1:]:
        stem = Path(tested).stem
        with install_import_hook("zhixing", "beartype.beartype"):
            modules[stem] = importlib.import_module(f"zhixing.engineering.{stem}")
        # Where a copy takes the module's place, that copy must be what is imported here.
        assert modules[stem].__file__ == tested, f"{modules[stem].__file__} is not {tested}"
        suites[stem] = importlib.import_module(f"checks_{stem}")
    from zhixing.engineering.launch import fork_ranks

    for ranks in (2, 4):
        os.mkdir(f"{ranks}")

        def work(rank: int, ranks: int = ranks) -> None:
            found = {stem: wrong(rank, ranks, module, suites[stem]) for stem, module in modules.items()}
            Path(f"{ranks}/{rank}.json").write_text(json.dumps(found))

        # Longer than any check takes: who is done early waits here for the others.
        fork_ranks(work, ranks, 3 * LIMIT.total_seconds())

    def fail(rank: int) -> None:
        if rank == 1:
            raise ArithmeticError("on purpose")
        if rank == 2:
            time.sleep(20.0)
            print("was not ended", file=sys.stderr)
        dist.barrier()

    with open("failed", "w") as file, redirected(2, file.fileno()):
        try:
            # All of them at once: one that waits for the others would end with an error of its own after this time.
            fork_ranks(fail, 3, 500.0)
        except SystemExit as error:
            print(error, file=file)


@contextlib.contextmanager
def redirected(number: int, other: int) -> Iterator[None]:
    """What is written to a file descriptor, here and in forks, goes to the other one."""
    kept = os.dup(number)
    os.dup2(other, number)
    try:
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


if __name__ == "__main__":
    main()
