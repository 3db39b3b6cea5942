"""Results that several tests look at, computed once."""

import fcntl
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parent
CHECKED = "ring_all_reduce", "ddp", "ddp_train"
sys.path.append(str(HERE))  # what runs on ranks stands beside the tests


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable:
    """Computes what several tests look at once, also where they run in several workers of xdist."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def once(name: str, compute: Callable[[Path], object]) -> object:
        folder = root / name
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                folder.mkdir()
                try:
                    result = {"value": compute(folder)}
                except BaseException as error:  # also one that no test expects
                    result = {"error": repr(error)}
                (folder / "result.json").write_text(json.dumps(result))
        result = json.loads((folder / "result.json").read_text())
        assert "value" in result, result["error"]
        return result["value"]

    return once


@pytest.fixture(scope="session")
def checked(once) -> dict:
    """What run_checks.py writes: one start of a program for all checks of all modules."""

    def compute(folder: Path) -> dict[str, dict[str, str]]:
        from zhixing.engineering.launch import run_all  # not above: jaxtyping's hook comes after this file

        tested = [importlib.import_module(f"zhixing.engineering.{module}").__file__ for module in CHECKED]
        run_all([[sys.executable, str(HERE / "run_checks.py"), *tested]], 550.0, folder=str(folder))
        found = {f"{path.relative_to(folder)}": json.loads(path.read_text()) for path in folder.glob("*/*.json")}
        return {**found, "failed": (folder / "failed").read_text()}

    return once("checks", compute)


@pytest.fixture(scope="session")
def wrong_on_ranks(checked) -> Callable[[str, str, int], str]:
    """What went wrong in a check, or with a mutation, of a module on any of so many ranks; nothing if nothing did."""

    def wrong(module: str, check: str, ranks: int) -> str:
        of_ranks = [checked[f"{ranks}/{rank}.json"][module][check] for rank in range(ranks)]
        return "\n".join(f"rank {rank}: {said}" for rank, said in enumerate(of_ranks) if said)

    return wrong


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each check of the module's suite, on two ranks and some on four, for tests with `check` and `ranks`."""
    if {"check", "ranks"} <= {*metafunc.fixturenames}:
        suite = metafunc.module.checks
        cases = [(2, check) for check in suite.CHECKS]
        cases += [(4, check) for check in suite.CHECKS if check.startswith(suite.ON_FOUR_RANKS)]
        metafunc.parametrize(("ranks", "check"), cases, ids=[f"{ranks} ranks, {check}" for ranks, check in cases])


@pytest.fixture
def still_there() -> Callable[[str], list[str]]:
    """The processes of this machine, but ours, that have the word in their command."""

    def look(word: str) -> list[str]:
        commands = {process.pid: process.info["cmdline"] for process in psutil.process_iter(["cmdline"])}
        return [" ".join(command) for pid, command in commands.items() if command and word in " ".join(command)]

    return look
