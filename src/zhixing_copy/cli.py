"""The command `zhixing`: list and copy code; check and update copied files."""

import argparse
import sys
from pathlib import Path

from zhixing_copy import project
from zhixing_copy.catalogue import CopyError, entries, find, installed, read


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0; 1 if a file is changed or outdated or has merge conflicts; 2 for an invalid request."""
    parser = argparse.ArgumentParser(prog="zhixing", description="Copy verified code into a project.")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("list", help="list what can be copied, by area")
    show.add_argument("words", nargs="*", help="only entries with all of these words in their name or summary")
    copy = commands.add_parser("copy", help="write a standalone file")
    copy.add_argument("name", help="a function, class or module: gelu, activations/gelu or activations/gelu.gelu_tanh")
    copy.add_argument("--to", type=Path, default=Path(), metavar="PATH", help="a folder or a file (default: .)")
    copy.add_argument("--force", action="store_true", help="overwrite an existing file")
    check = commands.add_parser("check", help="report which copied files were changed, or have a newer version")
    check.add_argument("paths", nargs="+", type=Path, help="copied files, or folders that contain them")
    update = commands.add_parser("update", help="merge the newest version into a copied file")
    update.add_argument("path", type=Path)
    options = parser.parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except project.MergeConflict as conflict:
        print(conflict, file=sys.stderr)
        return 1
    except CopyError as error:
        print(f"zhixing: {error}", file=sys.stderr)
    except BrokenPipeError:  # the reader of the list has closed it, as `head` does
        sys.stdout = None
        return 0
    except OSError as error:
        print(f"zhixing: {error.filename}: {error.strerror}", file=sys.stderr)
    return 2


def _list(options: argparse.Namespace) -> int:
    area = ""
    for entry in entries(installed()):
        summary = installed()[entry.module].summary(entry.definition)
        if not all(word.lower() in f"{entry.name} {summary}".lower() for word in options.words):
            continue
        if area != (area := entry.module.partition("/")[0]):
            print(f"{area}:")
        print(f"  {entry.name.partition('/')[2]:32} {summary}")
    if not area:
        raise CopyError(f"nothing has {' and '.join(options.words)} in its name or summary")
    return 0


def _copy(options: argparse.Namespace) -> int:
    entry = find(options.name, installed())
    path = project.copy(entry, options.to, options.force)
    header, _ = read(path.read_text(encoding="utf-8"))
    print(f"{path}: {entry.name} from {header['source']}, explained on {header['page']}; needs {header['needs']}")
    return 0


def _check(options: argparse.Namespace) -> int:
    results = {path: project.check(path) for given in options.paths for path in project.copied(given)}
    for path, result in results.items():
        print(f"{path}: {result or 'unchanged'}")
    return 1 if any(results.values()) else 0


def _update(options: argparse.Namespace) -> int:
    print(f"{options.path}: {project.update(options.path)}")
    return 0


COMMANDS = {"list": _list, "copy": _copy, "check": _check, "update": _update}
