"""Throw damaged projects at the builder, and damaged copies at `zhixing`: `python tests/fuzz/fuzz.py --seed 7`.

Each mutant is a small project with a few changes, all drawn from one number, its seed. `judge` builds it and says what
is wrong with the answer: a traceback, a hang, a message that names no file, a site that was touched or that lacks text.
`--seed 7 --mutants 1` makes the same mutant again.
"""

import argparse
import collections
import contextlib
import difflib
import re
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from copies import judge_copies
from judge import judge
from mutants import Mutant, draw
from small import Files, Project, prepared


def minimal(project: Project, good: Files, mutant: Mutant, kind: str) -> Mutant:
    """The mutant without the changes that the finding does not need."""
    for edit in mutant.edits:
        smaller = replace(mutant, edits=tuple(each for each in mutant.edits if each is not edit))
        if smaller.edits and any(finding.startswith(kind) for finding in judge(project, good, smaller)):
            mutant = smaller
    return mutant


def describe(good: Files, mutant: Mutant) -> str:
    """How the mutant differs from the good project."""
    lines, files = [], mutant.files(good)
    for path in sorted(path for path in good.keys() | files.keys() if good.get(path) != files.get(path, ...)):
        old, new = good.get(path, b""), files.get(path, "absent")
        if isinstance(new, bytes):
            texts = [each.decode(errors="backslashreplace").split("\n") for each in (old, new)]
            lines += difflib.unified_diff(*texts, path, path, n=0, lineterm="")
        else:
            lines.append(f"{path}: {new or 'a folder'}")
    short = [line if len(line) < 200 else f"{line[:200]}… ({len(line)} characters)" for line in lines]
    return "\n".join(repr(line)[1:-1] for line in short[:30]) + "\nnot accepted" * (not mutant.accepted)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first mutant; then counted up")
    parser.add_argument("--mutants", type=int, default=10**9)
    options = parser.parse_args()
    seen: collections.Counter = collections.Counter()
    started, seed = time.monotonic(), options.seed
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-"))).resolve()
        for name in "project", "package", "copies":
            (folder / name).mkdir()
        project, good = stack.enter_context(prepared(folder / "project"))
        while seed < options.seed + options.mutants and time.monotonic() < started + 60 * options.minutes:
            mutant = draw(seed, good)
            findings = [*judge(project, good, mutant), *judge_copies(seed, good, folder)]
            for finding in findings:
                kind = re.sub(r"\S*/\S*|\d+|['`\"\[].*", "", finding.partition("\n")[0])[:90]
                seen[kind] += 1
                if seen[kind] == 1:
                    print(f"\n== seed {seed}: {finding[:3000]}", flush=True)
                    if not finding.startswith("command"):
                        print(describe(good, minimal(project, good, mutant, finding.partition(":")[0])), flush=True)
            seed += 1
    minutes = (time.monotonic() - started) / 60
    print(f"\n{seed - options.seed} mutants, {(seed - options.seed) / minutes:.0f} a minute, first seed {options.seed}")
    print(*(f"{count:5} {kind}" for kind, count in seen.most_common()), sep="\n")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
