"""The command `zhixing`: list and copy code; check and update copied files."""

import argparse
import io
import keyword
import sys
from pathlib import Path

from zhixing_copy import project
from zhixing_copy.catalogue import CopyError, find, installed, listed, read, write


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0; 1 for a file that differs or has merge conflicts; 2 for an invalid request."""
    for stream in sys.stdout, sys.stderr:
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack characters of a summary or a file name
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="zhixing", description="Copy verified code into a project.")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("list", help="list what can be copied, by area")
    show.add_argument("words", nargs="*", help="only entries with all of these words in their name or summary")
    copy = commands.add_parser("copy", help="write a standalone file")
    copy.add_argument(
        "name", help="a function or class (gelu, activations/gelu.gelu_tanh), or a module (activations/gelu)"
    )
    copy.add_argument("--to", default=".", metavar="PATH", help="a folder, or a file that ends in .py (default: .)")
    copy.add_argument("--force", action="store_true", help="overwrite an existing file")
    check = commands.add_parser(
        "check", help="report which copied files were changed, or differ from the installed code"
    )
    check.add_argument("paths", nargs="+", type=Path, help="copied files, or folders that contain them")
    update = commands.add_parser("update", help="merge the installed version into a copied file")
    update.add_argument("path", type=Path, help="a copied file; merging your changes needs git")
    options = parser.parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except project.MergeConflict as conflict:
        print(conflict, file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of the list has closed it, as `head` does
        sys.stdout = None
        return 0
    except (CopyError, OSError) as error:
        return _fail(error)


def _fail(error: CopyError | OSError) -> int:
    parts = (error.filename, error.strerror) if isinstance(error, OSError) else (error,)
    print("zhixing", *filter(None, parts), sep=": ", file=sys.stderr)
    return 2


def _list(options: argparse.Namespace) -> int:
    area = ""
    for entry, name in listed(installed()):
        summary = installed()[entry.module].summary(entry.definition)
        if not all(word.lower() in f"{entry.name} {summary}".lower() for word in options.words):
            continue
        if area != (area := entry.module.partition("/")[0]):
            print(f"{area}:")
        print(f"  {name:32} {summary}")
    if not area:
        raise CopyError(f"nothing has {' and '.join(options.words)} in its name or summary")
    return 0


def _copy(options: argparse.Namespace) -> int:
    entry = find(options.name, installed())
    path = project.copy(entry, options.to, options.force)
    header = read(write(entry, installed())).fields
    print(f"{path}: {entry.name} from {header['source']}, explained on {header['page']}; needs {header['needs']}")
    if not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        print(f"note: no program can import {path.name}, as {path.stem} is not a name in Python", file=sys.stderr)
    if path.stem in {*sys.stdlib_module_names, *header["needs"].split(", ")}:
        print(f"note: {path} hides the module {path.stem} from programs in its folder", file=sys.stderr)
    return 0


def _check(options: argparse.Namespace) -> int:
    code = 0
    for given in options.paths:
        paths = project.copied(given)
        if not paths:
            code = _fail(CopyError(f"{given} contains no copied file"))
        for path in paths:
            try:
                result = project.check(path)
            except (CopyError, OSError) as error:
                code = _fail(error)
            else:
                print(f"{path}: {result or 'unchanged'}")
                code = max(code, int(bool(result)))
    return code


def _update(options: argparse.Namespace) -> int:
    print(f"{options.path}: {project.update(options.path)}")
    return 0


COMMANDS = {"list": _list, "copy": _copy, "check": _check, "update": _update}
