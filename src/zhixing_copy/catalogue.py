"""List and find what can be copied: the modules of the package `zhixing`, and their public functions and classes."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import metadata
from pathlib import Path

from zhixing_copy.source import PACKAGE, Module
from zhixing_copy.standalone import Standalone, digest, standalone

HEADER = """\
# {name}, from 知行 Zhixing {version}. SPDX-License-Identifier: MIT
# Copyright (c) 2026 the Zhixing authors
# Page: {page}
# Source: {source}
# Verified with {verified}. Needs {needs}.
# sha256 of what follows: {digest}

"""
PATTERN = re.compile(
    "^"
    + "".join(
        re.escape(line)
        .replace(r"\{", "{")
        .replace(r"\}", "}")
        .format_map(
            {
                field: f"(?P<{field}>[^\n]+?)"
                for field in ("name", "version", "page", "source", "verified", "needs", "digest")
            }
        )
        for line in HEADER.splitlines(keepends=True)
    ),
    re.MULTILINE,
)
FILE = "blob/main/{path}"  # path below Source, as on GitHub

read_metadata = cache(metadata)  # a call takes a millisecond


class CopyError(Exception):
    """A request that cannot be carried out; the message tells the user why."""


@dataclass(frozen=True)
class Entry:
    """A module (activations/gelu), or a function or class in one (activations/gelu.gelu_tanh)."""

    module: str
    definition: str = ""

    @property
    def name(self) -> str:
        return f"{self.module}.{self.definition}" if self.definition else self.module

    @property
    def stem(self) -> str:
        """The name of its file, without suffix."""
        return self.definition or self.module.rpartition("/")[2]

    @property
    def below(self) -> str:
        """The name without its area."""
        return self.name.partition("/")[2]


@dataclass(frozen=True)
class Copied:
    """The text of a copied file: what is above its header, the header and its fields, and the code below."""

    above: str
    header: str
    fields: Mapping[str, str]
    code: str

    @property
    def digest(self) -> str:
        return self.fields["digest"]

    @property
    def intact(self) -> bool:
        """Whether nothing was changed, except in the header."""
        return not self.above.strip() and digest(self.code.encode(errors="surrogateescape")) == self.digest


@cache
def installed() -> dict[str, Module]:
    """Return the modules of the installed package, by name."""
    # Beside this package, as a folder in the user's project can have the name of the other one.
    return read_modules(Path(__file__).resolve().parent.with_name(PACKAGE))


def read_modules(root: Path) -> dict[str, Module]:
    """Return {name: module} for the package in this folder."""
    names = {
        path.relative_to(root).with_suffix("").as_posix(): path
        for path in sorted(root.glob("[!.]*/[!.]*.py"))
        if path.is_file()
    }
    return {name: Module(name, path) for name, path in names.items() if not name.endswith("__init__")}


def entries(modules: Mapping[str, Module]) -> Iterator[Entry]:
    """Yield each module, followed by its public definitions."""
    for name, module in modules.items():
        yield Entry(name)
        yield from (Entry(name, definition) for definition in module.public)


def find(name: str, modules: Mapping[str, Module]) -> Entry:
    """Return the entry with this name, or the only one whose name ends with it; definitions precede modules.

    Raises:
        CopyError: No entry matches, or several do.
    """
    wanted = name.removesuffix(".py")
    everything = list(entries(modules))
    found = _matches(wanted, everything)
    if len(found) == 1:
        return found[0]
    if found:
        raise CopyError(f"{name} is ambiguous: {', '.join(each.name for each in found)}")
    known = {text: each.name for each in everything for text in (each.stem, each.name)}
    near = [known[text] for text in difflib.get_close_matches(wanted, known, n=3)]
    raise CopyError(
        f"there is no {name}"
        + (f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else "; see `zhixing list`")
    )


def _matches(wanted: str, everything: Sequence[Entry]) -> list[Entry]:
    keys = (lambda each: each.name), (lambda each: each.definition), (lambda each: each.below), (lambda each: each.stem)
    matches = ([each for each in everything if key(each) == wanted] for key in keys)
    return next(filter(None, matches), [])


def shortest(entry: Entry, modules: Mapping[str, Module]) -> str:
    """Return the shorter one of the entry's name and its last part by which `find` finds it."""
    return entry.stem if _matches(entry.stem, list(entries(modules))) == [entry] else entry.name


def listed(modules: Mapping[str, Module]) -> Iterator[tuple[Entry, str]]:
    """Yield each entry with a name by which `find` finds it: without its area, if possible."""
    everything = list(entries(modules))
    for entry in everything:
        yield entry, entry.below if _matches(entry.below, everything) == [entry] else entry.name


def write(entry: Entry, modules: Mapping[str, Module], site: str = "") -> str:
    """Return the text of the entry's file, with its header; `site` overrides the site's address in the metadata.

    Raises:
        CopyError: The module has a form of which no file can be made.
    """
    hosts = addresses()
    try:
        code = standalone(modules, entry.module, entry.definition)
        verified = _verified(code)
    except (ValueError, SyntaxError) as error:
        raise CopyError(f"{entry.name} cannot be copied: {error}") from error
    header = HEADER.format(
        name=entry.name,
        version=read_metadata(PACKAGE)["Version"],
        page=f"{site or hosts['Site']}en/{entry.module}/",
        source=hosts["Source"] + FILE.format(path=f"src/{PACKAGE}/{entry.module}.py"),
        verified=verified,
        needs=", ".join(code.needs) or "nothing else",
        digest=code.digest,
    )
    return header + code.text


def addresses() -> dict[str, str]:
    """Return the addresses of the site and its source, as set in pyproject.toml."""
    return dict(line.split(", ") for line in read_metadata(PACKAGE).get_all("Project-URL"))


def _verified(code: Standalone) -> str:
    """Return the versions that the tests ran with, of Python and of the packages that the file needs."""
    versions = json.loads((Path(__file__).parent / "verified.json").read_text())
    if unknown := {*code.needs} - {*versions}:
        raise ValueError(f"{code.name} needs {', '.join(sorted(unknown))}, of which verified.json has no version")
    return ", ".join(f"{name} {versions[name]}" for name in ("Python", *code.needs))


def read(text: str) -> Copied | None:
    """Parse a copied file; return None if its header is missing or damaged."""
    header = PATTERN.search(text)
    return header and Copied(text[: header.start()], header[0], header.groupdict(), text[header.end() :])
