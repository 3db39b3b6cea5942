"""List and find what can be copied: the modules of the package `zhixing`, and their public functions and classes."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import metadata
from importlib.util import find_spec
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
    "".join(
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
    )
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


@cache
def installed() -> dict[str, Module]:
    """Return the modules of the installed package, by name."""
    return read_modules(Path(find_spec(PACKAGE).origin).parent)


def read_modules(root: Path) -> dict[str, Module]:
    """Return {name: module} for the package in this folder."""
    names = {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.glob("[!.]*/[!.]*.py"))}
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
    for matches in (
        lambda each: each.name == wanted,
        lambda each: each.definition == wanted,
        lambda each: each.stem == wanted,
    ):
        found = [each for each in everything if matches(each)]
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


def shortest(entry: Entry, modules: Mapping[str, Module]) -> str:
    """Return the shortest name by which `find` finds the entry."""
    alike = [each for each in entries(modules) if each.stem == entry.stem]
    definitions = [each for each in alike if each.definition]  # which precede modules
    return entry.stem if (definitions or alike) == [entry] else entry.name


def write(entry: Entry, modules: Mapping[str, Module], site: str = "") -> str:
    """Return the text of the entry's file, with its header; `site` overrides the site's address in the metadata."""
    code, hosts = standalone(modules, entry.module, entry.definition), addresses()
    header = HEADER.format(
        name=entry.name,
        version=read_metadata(PACKAGE)["Version"],
        page=f"{site or hosts['Site']}en/{entry.module}/",
        source=hosts["Source"] + FILE.format(path=f"src/{PACKAGE}/{entry.module}.py"),
        verified=_verified(code),
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
    return ", ".join(f"{name} {versions[name]}" for name in ("Python", *code.needs))


def read(text: str) -> tuple[dict[str, str], bool]:
    """Parse a copied file: the fields of its header, and whether the code below it is unchanged.

    Raises:
        CopyError: The header is missing or damaged.
    """
    header = PATTERN.match(text)
    if not header:
        raise CopyError("has no header of a copied file, or a damaged one")
    return header.groupdict(), digest(text[header.end() :]) == header["digest"]
