"""Compare each page with its counterpart in the other language, and record which sections were reviewed."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from zhixing_site.content.page import MARK, VALUE, Page, Pages, Section, pairs
from zhixing_site.errors import BuildError, BuildErrors
from zhixing_site.files import find_files

REVIEWED = "docs/reviewed"  # a file for each page, a line for each section

# Marks that stand alone must agree in their order; those in sentences as sets, since languages differ in word order.
IN_ORDER = ("fence", "block", "figure", "part")
AS_SETS = ("inline", "value", "link")


def compare_all(english: Pages, chinese: Pages) -> list[BuildError]:
    """The errors of all pages: one without a counterpart, or a difference."""
    alone = [page for name, page in (english | chinese).items() if name in english.keys() ^ chinese.keys()]
    errors = [BuildError("the page has no counterpart in the other language", page.path) for page in alone]
    return errors + [error for pair in pairs(english, chinese).values() for error in compare(*pair)]


def compare(english: Page, chinese: Page) -> list[BuildError]:
    """An error for each kind of mark in which two sections differ, or for the first heading that differs."""
    errors = []
    for page in (english, chinese):
        try:
            page.sections  # noqa: B018
        except BuildError as error:
            errors.append(error)
    if errors:
        return errors
    for ours, theirs in zip_longest(english.sections, chinese.sections):
        if (ours and ours.id) != (theirs and theirs.id):
            section, page = (theirs, chinese) if theirs else (ours, english)
            return [BuildError(f"heading #{section.id} has no counterpart at this place", page.path, section.line)]
        for kind, a, b in _differences(contents(ours.marks), contents(theirs.marks)):
            cause = f"a {kind} of section #{ours.id} differs from its translation\n{english.path}:{ours.line} has {a}"
            cause += f"\n{chinese.path}:{theirs.line} has {b}"
            errors.append(BuildError(cause, chinese.path, theirs.line))
    return errors


def contents(marks: Iterable[re.Match]) -> dict[str, list[str]]:
    """What marks must have in common with their translations: {kind: in order}."""
    found = defaultdict(list)
    for mark in marks:
        kind = mark.lastgroup
        if kind == "fence":
            found[kind].append(f"{mark['info'].strip()}\n{mark['body']}")
        elif kind in ("block", "inline"):  # without white space and words, which differ between languages
            formula = mark["block"] or mark["tex"]
            found[kind].append(re.sub(r"\s+", "", re.sub(r"\\text\{[^{}]*\}", r"\\text{}", formula)))
            found["value"] += [value["name"] for value in VALUE.finditer(formula)]
        elif kind in IN_ORDER + AS_SETS:
            found[kind].append(mark["name"] or mark[kind])  # a value's format may differ
        for kind, texts in contents(MARK.finditer(mark["caption"] or "")).items():
            found[kind] += texts
    return found


def _differences(ours: dict[str, list[str]], theirs: dict[str, list[str]]) -> Iterator[tuple[str, str, str]]:
    """Yield each kind of mark that differs, with what either section has of it."""
    for kind in IN_ORDER:
        both = zip_longest(ours[kind], theirs[kind], fillvalue="nothing")
        yield from [(kind, a, b) for a, b in both if a != b][:1]
    for kind in AS_SETS:
        a, b = set(ours[kind]), set(theirs[kind])
        if a != b:
            yield kind, ", ".join(sorted(a - b)) or "nothing more", ", ".join(sorted(b - a)) or "nothing more"


def unreviewed(english: Pages, chinese: Pages, root: Path) -> list[BuildError]:
    """An error for each section that changed since it was reviewed, of pages between which `compare` finds none."""
    errors = []
    for name, pair in pairs(english, chinese).items():
        for section, changed in _changes(*pair, root):
            cause = f"{name}#{section.id} changed in {' and '.join(changed)} since it was reviewed"
            cause += f"; if both languages still say the same: python -m zhixing_site accept {name}"
            errors.append(BuildError(cause, pair[1].path, section.line))
    return errors


def _changes(english: Page, chinese: Page, root: Path) -> Iterator[tuple[Section, list[str]]]:
    """Yield each Chinese section of which a text changed since it was reviewed, with the paths of these texts."""
    record = root / reviewed_path(english.name)
    lines = record.read_text("utf-8", "replace").splitlines() if record.is_file() else []
    reviewed = {fields[0]: fields[1:] for fields in map(str.split, lines) if len(fields) == 3}  # others are damaged
    for ours, theirs in zip(english.sections, chinese.sections, strict=True):
        before = reviewed.get(f"#{ours.id}", ["", ""])
        digests = {english.path: ours.digest, chinese.path: theirs.digest}
        if changed := [path for path, old in zip(digests, before, strict=True) if digests[path] != old]:
            yield theirs, changed


def reviewed_path(name: str) -> str:
    """Where the digests of a page's reviewed sections are recorded."""
    return f"{REVIEWED}/{name}.txt"


def accept(english: Pages, chinese: Pages, names: list[str], root: Path) -> list[str]:
    """Record the sections of the named pages, or of all, as reviewed; return those that were not.

    Records of pages that no longer exist are removed.
    """
    paired = pairs(english, chinese)
    if unknown := set(names) - paired.keys():
        raise BuildError(f"no page of this name in both languages: {', '.join(sorted(unknown))}")
    accepted = sorted(set(names)) or paired
    if errors := [error for name in accepted for error in compare(*paired[name])]:
        raise BuildErrors(errors)
    new = [f"{name}#{section.id}" for name in accepted for section, _ in _changes(*paired[name], root)]
    for name in accepted:
        sections = zip(*(page.sections for page in paired[name]), strict=True)
        lines = sorted(f"#{ours.id} {ours.digest} {theirs.digest}\n" for ours, theirs in sections)
        record = root / reviewed_path(name)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text("".join(lines), "utf-8")
    for path in find_files(root / REVIEWED, root):
        if path.suffix == ".txt" and path.relative_to(root / REVIEWED).with_suffix("").as_posix() not in paired:
            path.unlink()
    return new
