"""Hold each page against its twin in the other language."""

from itertools import zip_longest
from pathlib import Path

from zhixing_site.content.page import Page, Section
from zhixing_site.errors import BuildError, BuildErrors

REVIEWED = "docs/reviewed"  # a file a page, a line a section

# What stands alone must agree in order; what stands in sentences as a set, for word order is the language's own.
IN_ORDER = ("fence", "block", "figure", "table", "part")
AS_SETS = ("inline", "value", "link")


def compare_all(english: dict[str, Page], chinese: dict[str, Page]) -> list[BuildError]:
    """The errors of all pairs of pages: a missing twin, or a difference."""
    alone = [page for name, page in {**english, **chinese}.items() if name in english.keys() ^ chinese.keys()]
    errors = [BuildError("the page has no twin in the other language", page.path) for page in alone]
    pairs = [(english[name], chinese[name]) for name in sorted(english.keys() & chinese.keys())]
    return errors + [error for pair in pairs for error in compare(*pair)]


def compare(english: Page, chinese: Page) -> list[BuildError]:
    """An error for each kind of mark in which two sections differ, or for the first heading that does."""
    try:
        pairs = list(zip_longest(english.sections, chinese.sections))
    except BuildError as error:
        return [error]
    for ours, theirs in pairs:
        if (ours and ours.id) != (theirs and theirs.id):
            section, page = (theirs, chinese) if theirs else (ours, english)
            return [BuildError(f"heading #{section.id} has no twin at this place", page.path, section.line)]
    errors = []
    for ours, theirs in pairs:
        for kind, a, b in _differences(ours, theirs):
            cause = f"a {kind} of section #{ours.id} differs from its twin's\n{english.path}:{ours.line} has {a}"
            cause += f"\n{chinese.path}:{theirs.line} has {b}"
            errors.append(BuildError(cause, chinese.path, theirs.line))
    return errors


def _differences(ours: Section, theirs: Section):
    for kind in IN_ORDER:
        pairs = zip_longest(ours.marks[kind], theirs.marks[kind], fillvalue="nothing")
        yield from [(kind, a, b) for a, b in pairs if a != b][:1]
    for kind in AS_SETS:
        a, b = set(ours.marks[kind]), set(theirs.marks[kind])
        if a != b:
            yield kind, ", ".join(sorted(a - b)) or "nothing more", ", ".join(sorted(b - a)) or "nothing more"


def unreviewed(english: dict[str, Page], chinese: dict[str, Page], root: Path) -> list[BuildError]:
    """An error for each section that changed, in either language, since it was last read beside its twin."""
    errors = []
    for name in sorted(english.keys() & chinese.keys()):
        if not compare(english[name], chinese[name]):
            errors += _changed(english[name], chinese[name], read_reviewed(name, root))
    return errors


def _changed(english: Page, chinese: Page, reviewed: dict[str, list[str]]) -> list[BuildError]:
    errors = []
    for (id, now), section in zip(_digests(english, chinese).items(), chinese.sections, strict=True):
        seen = reviewed.get(id, ["", ""])
        changed = [page.path for page, new, old in zip((english, chinese), now, seen, strict=True) if new != old]
        if changed:
            cause = f"{english.name}{id} changed in {' and '.join(changed)} since it was reviewed against its twin"
            cause += f"; when both say the same: python -m zhixing_site accept {english.name}"
            errors.append(BuildError(cause, chinese.path, section.line))
    return errors


def _digests(english: Page, chinese: Page) -> dict[str, list[str]]:
    """{#section: [English digest, Chinese digest]}"""
    pairs = zip(english.sections, chinese.sections, strict=True)
    return {f"#{ours.id}": [ours.digest, theirs.digest] for ours, theirs in pairs}


def reviewed_path(name: str) -> str:
    return f"{REVIEWED}/{name}.txt"


def read_reviewed(name: str, root: Path) -> dict[str, list[str]]:
    """The digests of the page's sections when they were last reviewed."""
    path = root / reviewed_path(name)
    lines = path.read_text().splitlines() if path.exists() else []
    return {id: digests for id, *digests in map(str.split, lines)}


def accept(english: dict[str, Page], chinese: dict[str, Page], names: list[str], root: Path) -> list[str]:
    """Record the sections of the named pages, or of all, as reviewed; returns those that were not.

    What was recorded of pages that are gone is removed.
    """
    twins = english.keys() & chinese.keys()
    if unknown := set(names) - twins:
        raise BuildError(f"there is no pair of pages of this name: {', '.join(sorted(unknown))}")
    accepted = sorted(set(names) or twins)
    if errors := [error for name in accepted for error in compare(english[name], chinese[name])]:
        raise BuildErrors(errors)
    new = [f"{name}{id}" for name in accepted for id in _record(english[name], chinese[name], root)]
    for path in (root / REVIEWED).rglob("*.txt"):
        if path.relative_to(root / REVIEWED).with_suffix("").as_posix() not in twins:
            path.unlink()
    return new


def _record(english: Page, chinese: Page, root: Path) -> list[str]:
    """Write the page's file; returns the sections whose digests it did not have."""
    before, digests = read_reviewed(english.name, root), _digests(english, chinese)
    path = root / reviewed_path(english.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{id} {' '.join(pair)}\n" for id, pair in sorted(digests.items())))
    return [id for id, pair in digests.items() if pair != before.get(id)]
