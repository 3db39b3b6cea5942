"""Damage a copied file, its original or its module, and say what the command `zhixing` does wrong."""

import contextlib
import io
import random
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from mutants import ACTIONS, COMMON, TOKENS, WHOLE, Edit
from small import Files, write

import zhixing_copy.cli
from zhixing_copy.catalogue import read_modules


def judge_copies(seed: int, good: Files, folder: Path) -> Iterator[str]:
    """Copy a function, damage the file or its original, change the module, and yield what `zhixing` does wrong."""
    rng = random.Random(seed)
    package, where = folder / "package", folder / "copies"
    write(package, {"area/ruler.py": good["src/zhixing/area/ruler.py"]})
    write(where, {})

    def zhixing(*arguments: str) -> tuple[int, str]:
        printed = io.StringIO()
        with contextlib.chdir(where), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = zhixing_copy.cli.main(list(arguments))
        return code, printed.getvalue()

    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in where.rglob("*") if path.is_file()}

    with pytest.MonkeyPatch.context() as patch:
        for module in zhixing_copy.cli, zhixing_copy.project:
            patch.setattr(module, "installed", lambda: read_modules(package))
        zhixing("copy", "measure")
        zhixing("copy", "ruler")
        files = {path.relative_to(where).as_posix(): path.read_bytes() for path in where.rglob("*.py")}
        edits, line = [], rng.uniform(0.6, 1)  # the last lines are those of the function in all three
        for path in rng.choices(["measure.py", ".zhixing/measure.py", "module"], [6, 2, 4], k=rng.choice([1, 2, 2])):
            action = rng.choice(ACTIONS + [*WHOLE] * (path != "module"))
            token = rng.choice(TOKENS["python"] + COMMON)
            edits.append(Edit((path,), action, token, rng.choice([line, rng.random()]), rng.choice([0, 1])))
            files = edits[-1].apply(files | {"module": good["src/zhixing/area/ruler.py"]})
        module = files.pop("module")
        with contextlib.suppress(ValueError, SyntaxError):  # a module that is published runs
            compile(module, "ruler.py", "exec")
            write(package, {"area/ruler.py": module})
        write(where, files)
        for arguments in rng.choices([["check", "."], ["check", "measure.py"], ["update", "measure.py"]], k=3):
            before, told = contents(), f"{' '.join(arguments)}, after {edits}:"
            try:
                code, printed = zhixing(*arguments)
            except Exception as error:
                frames = traceback.extract_tb(error.__traceback__)
                yield f"command: traceback: {type(error).__name__} in {frames[-1].name}: {error}: {told}"
                return
            if code not in (0, 1, 2) or not printed.strip():
                yield f"command: exit code {code}, and {printed!r}: {told}"
            if (code == 2 or arguments[0] == "check") and contents() != before:
                yield f"command: files touched with exit code {code}: {told}"
            after = next((content for name, content in contents().items() if name.endswith("copies/measure.py")), b"")
            if arguments[0] == "update" and code == 0 and b"<<<<<<<" in after:
                yield f"command: an update that ends well leaves conflicts: {told}"
            if code < 2 and b"SPDX" in after and "measure.py" not in printed:
                yield f"command: the copied file is left out: {told} {printed}"
